//! An ordered index of retained messages' topics, made for scans by filter.
//!
//! Topics are ordered by their bytes. All topics below `a/` are then neighbours: a scan that meets
//! a topic which cannot match works out the next one that could, and goes there. `a` itself and
//! `a/b` need not be neighbours (`a-b` comes between), so a step is always worked out from the
//! topic met, never from what was met before; that is also why a scan can go on after any change.

use mqtt::topic;
use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::ops::Bound;

/// Neighbours looked at before a scan searches the tree anew: they are most often near.
const STEPS_BEFORE_SEEK: usize = 4;

/// What one call of [`RetainedIndex::scan`] may spend.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct ScanBudget {
    /// Most matches in the page, at least 1.
    pub matches_max: usize,
    /// Most topics looked at, matching or not; at least 1, passed by a few at most.
    pub visits_max: usize,
}

impl ScanBudget {
    /// A page of this many matches, and 16 looks for each.
    pub const fn of_matches(matches_max: usize) -> Self {
        Self { matches_max, visits_max: matches_max.saturating_mul(16) }
    }
}

/// A page of matches in the order of their topics' bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScanPage<'a, T> {
    /// The matches; fewer than asked for (none even) does not mean the end.
    pub matches: Vec<(&'a str, &'a T)>,
    /// The first topic that the next page looks at, to be copied if the index changes before;
    /// `None` at the end.
    pub next: Option<&'a str>,
}

/// Topics with what is retained of them.
pub struct RetainedIndex<T> {
    topics: BTreeMap<Box<str>, T>,
}

impl<T> Default for RetainedIndex<T> {
    fn default() -> Self {
        Self::new()
    }
}

type Entry<'a, T> = (&'a Box<str>, &'a T);

/// What a search in topics that are in the order of their bytes, wherever they are, does at one of them.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum ScanStep {
    /// It matches.
    Match,
    /// It does not; the target was written: nothing before it can match.
    Seek,
    /// It does not, and nothing behind it can.
    End,
}

/// Where a search for what a filter with wildcards (and without prefix) matches begins.
pub fn scan_start(filter: &str) -> &str {
    literal_prefix(filter)
}

/// What a search does at `topic`. `target` is written with [`ScanStep::Seek`].
pub fn scan_step(filter: &str, topic: &str, target: &mut String) -> ScanStep {
    if topic::matches(filter, topic) {
        return ScanStep::Match;
    }
    match skip(filter, topic, target) {
        Skip::Seek => ScanStep::Seek,
        Skip::End => ScanStep::End,
    }
}

/// What a scan does after a topic that does not match.
#[derive(Debug, Eq, PartialEq)]
enum Skip {
    /// Nothing beyond can match.
    End,
    /// The scan's target was written: nothing before it can match.
    Seek,
}

impl<T> RetainedIndex<T> {
    /// An empty index.
    pub const fn new() -> Self {
        Self { topics: BTreeMap::new() }
    }

    /// How many topics it holds.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// What is retained of `topic`.
    pub fn get(&self, topic: &str) -> Option<&T> {
        self.topics.get(topic)
    }

    /// As [`RetainedIndex::get`], to change it.
    pub fn get_mut(&mut self, topic: &str) -> Option<&mut T> {
        self.topics.get_mut(topic)
    }

    /// Retains `value` of `topic`; returns what it replaces.
    pub fn insert(&mut self, topic: &str, value: T) -> Option<T> {
        if let Some(old) = self.topics.get_mut(topic) {
            return Some(std::mem::replace(old, value));
        }
        self.topics.insert(topic.into(), value)
    }

    /// Takes out what is retained of `topic`.
    pub fn remove(&mut self, topic: &str) -> Option<T> {
        self.topics.remove(topic)
    }

    /// Topics after `cursor` (all without one), in order, `$` topics too.
    pub fn iter_after(&self, cursor: Option<&str>) -> impl Iterator<Item = (&str, &T)> {
        let start = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let topics = self.topics.range::<str, _>((start, Bound::Unbounded));
        topics.map(|(topic, value)| (&**topic, value))
    }

    /// Topics from `first` on (all without one), in order, `$` topics too.
    pub fn iter_from(&self, first: Option<&str>) -> impl Iterator<Item = (&str, &T)> {
        let start = first.map_or(Bound::Unbounded, Bound::Included);
        let topics = self.topics.range::<str, _>((start, Bound::Unbounded));
        topics.map(|(topic, value)| (&**topic, value))
    }

    /// The next page of what `filter` (without prefix) matches, from `cursor` on. A topic that
    /// stays is met exactly once, whatever comes and goes between pages; topics that begin with `$`
    /// are not met by a filter that begins with a wildcard (`MQTT-4.7.2-1`).
    pub fn scan(&self, filter: &str, cursor: Option<&str>, budget: ScanBudget) -> ScanPage<'_, T> {
        let mut page = ScanPage { matches: Vec::new(), next: None };
        if !topic::has_wildcard(filter) {
            let found = self.topics.get_key_value(filter).filter(|_| cursor.is_none());
            page.matches.extend(found.map(|(topic, value)| (&**topic, value)));
            return page;
        }
        let mut target = literal_prefix(filter).to_owned();
        let start = cursor.filter(|cursor| *cursor > &*target);
        let mut rest = self.at(start.unwrap_or(&target));
        let mut visits = 0;
        let mut entry = rest.next();
        while let Some((topic, value)) = entry {
            visits += 1;
            if topic::matches(filter, topic) {
                page.matches.push((&**topic, value));
                entry = rest.next();
            } else if skip(filter, topic, &mut target) == Skip::End {
                return page;
            } else {
                entry = self.seek(&mut rest, &target, &mut visits);
            }
            if page.matches.len() >= budget.matches_max || visits >= budget.visits_max {
                page.next = entry.map(|(topic, _)| &**topic);
                return page;
            }
        }
        page
    }

    /// The first entry at or after `target`, by a few steps or else by a search.
    fn seek<'a>(
        &'a self,
        rest: &mut Range<'a, Box<str>, T>,
        target: &str,
        visits: &mut usize,
    ) -> Option<Entry<'a, T>> {
        for _ in 0..STEPS_BEFORE_SEEK {
            let entry = rest.next()?;
            if **entry.0 >= *target {
                return Some(entry);
            }
            *visits += 1;
        }
        *rest = self.at(target);
        rest.next()
    }

    fn at(&self, start: &str) -> Range<'_, Box<str>, T> {
        self.topics.range::<str, _>((Bound::Included(start), Bound::Unbounded))
    }
}

/// What every match begins with: the levels before the first wildcard, without the slash after them
/// (`a/#` matches `a`).
fn literal_prefix(filter: &str) -> &str {
    let wildcard = filter.find(['+', '#']).unwrap_or(filter.len());
    filter[..wildcard].strip_suffix('/').unwrap_or(&filter[..wildcard])
}

/// Works out where a scan goes on after `topic`, which `filter` does not match. Writes to `target`
/// a text that is above `topic`, below or equal to all matches above `topic`.
fn skip(filter: &str, topic: &str, target: &mut String) -> Skip {
    target.clear();
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        // `%` is the byte after `$`: past all topics that begin so.
        target.push('%');
        return Skip::Seek;
    }
    // Where the topic's deepest level ends that a `+` stands for, if there was one.
    let mut branch = None;
    // Where the level at hand begins, in the topic.
    let mut start = 0;
    let mut levels = topic::levels(topic);
    let mut wanted = topic::levels(filter).peekable();
    while let Some(want) = wanted.next() {
        let Some(level) = levels.next() else {
            // The topic ends too early. Where its last level stands for a `+`, a longer value of
            // that level comes before what is below this one, so nothing can be passed over.
            target.push_str(topic);
            target.push(if branch == Some(topic.len()) { '\0' } else { '/' });
            return Skip::Seek;
        };
        let end = start + level.len();
        if want == "+" {
            branch = Some(end);
        } else if want != level {
            target.push_str(&topic[..start]);
            target.push_str(want);
            if target.as_str() > topic {
                return Skip::Seek;
            }
            // The wanted level itself is behind; what is below it may still come.
            target.push('/');
            if (wanted.peek().is_some()) && target.as_str() > topic {
                return Skip::Seek;
            }
            return past_branch(topic, branch, target);
        }
        start = end + 1;
    }
    // The topic is deeper than the filter: its whole branch has been passed over.
    past_branch(topic, branch, target)
}

/// Goes on at the next value of the deepest `+`, past all that is below this one.
fn past_branch(topic: &str, branch: Option<usize>, target: &mut String) -> Skip {
    let Some(end) = branch else { return Skip::End };
    target.clear();
    target.push_str(&topic[..end]);
    // `0` is the byte after `/`.
    target.push('0');
    Skip::Seek
}

#[cfg(test)]
mod tests;
