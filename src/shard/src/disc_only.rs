//! Retained messages that are on disk only (`retainer.storage_type = disc_only`, SEED-PUB-09).
//!
//! In memory is a fingerprint of each topic, so that counting, the limit and the question whether a topic has a message need no
//! disk; of messages that expire the topic too. The messages are read from the store, a page at a time, when somebody asks for
//! them. What was changed and may not be in what is read is held until it is: a page with these changes laid over it is what the
//! topics have at that moment. `$SYS` messages are never on disk and always among the changes.
//!
//! Invariants: what a page lacks is in `recent`, or the page is read again; at most [`READS_MAX`] pages are asked for at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crossbeam_channel::{Sender, TrySendError};
use hashbrown::{HashMap, HashSet};
use mqtt::topic::has_wildcard;
use ring::ShardId;
use router::{RetainedIndex, ScanBudget};
use session::Message;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::storage::{RetainedQuery, RetainedRead, StoredRetainedPage, StoredRetainedRow};

/// Pages of a shard that are asked for at a time; others wait for their turn.
pub const READS_MAX: usize = 16;
/// Changes that are laid over a page at most; then the page ends there.
const RECENT_PAGE: usize = 128;
/// Changes that are in the store and are forgotten at once.
const FORGOTTEN_AT_ONCE: usize = 4096;
/// So many changes are held for pages that are being read; then pages are read again.
const RECENT_MAX: usize = 100_000;
/// Fingerprints are in so many tables, so that none takes long to grow.
const PARTS: usize = 256;
/// The batch of what never goes to the store.
const NEVER: u64 = u64::MAX;

/// A change that what is read may lack.
#[derive(Debug)]
struct Recent {
    /// `None`: the topic has no message any more.
    message: Option<Arc<Message>>,
    /// The batch it goes to the store with.
    batch: u64,
}

/// Who wants a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A replay of this shard.
    Replay(u32),
    /// A replay of another shard.
    Peer { shard: ShardId, replay: u32 },
    /// A command.
    Command { token: u64, purpose: Purpose },
}

/// What a command does with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    List { limit: u32 },
    Measure,
    Clean,
}

/// A question on its way.
#[derive(Debug)]
struct Asked {
    asker: Asker,
    query: RetainedQuery,
    /// The last batch that was committed: what is read has it.
    committed: u64,
}

/// What a page has, with all changes.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub messages: Vec<Arc<Message>>,
    /// The first topic of the next page.
    pub next: Option<Box<str>>,
}

/// What a filter matches.
#[derive(Debug)]
pub(crate) enum Look {
    /// These, known without reading.
    Here(Vec<Arc<Message>>),
    /// That has to be read.
    Read(RetainedQuery),
}

/// The fingerprints of topics.
#[derive(Debug)]
struct Fingerprints {
    parts: Box<[HashSet<u64>]>,
    len: usize,
}

impl Fingerprints {
    fn new() -> Self {
        Self { parts: (0..PARTS).map(|_| HashSet::new()).collect(), len: 0 }
    }

    fn part(&mut self, fingerprint: u64) -> &mut HashSet<u64> {
        &mut self.parts[(fingerprint >> 56) as usize]
    }

    fn insert(&mut self, fingerprint: u64) {
        self.len += usize::from(self.part(fingerprint).insert(fingerprint));
    }

    fn remove(&mut self, fingerprint: u64) -> bool {
        let was_there = self.part(fingerprint).remove(&fingerprint);
        self.len -= usize::from(was_there);
        was_there
    }

    fn contains(&self, fingerprint: u64) -> bool {
        self.parts[(fingerprint >> 56) as usize].contains(&fingerprint)
    }
}

/// When messages are to be removed; of those that stay for ever nothing.
#[derive(Debug, Default)]
struct Expiries {
    /// Seconds since the Unix epoch, by fingerprint.
    of: HashMap<u64, u32>,
    due: BTreeMap<(u32, u64), Box<str>>,
}

impl Expiries {
    fn set(&mut self, fingerprint: u64, topic: &str, due_unix_ms: Option<u64>) {
        self.clear(fingerprint);
        let Some(due_unix_ms) = due_unix_ms else { return };
        let due_s = u32::try_from(due_unix_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        self.of.insert(fingerprint, due_s);
        self.due.insert((due_s, fingerprint), topic.into());
    }

    fn clear(&mut self, fingerprint: u64) {
        if let Some(due_s) = self.of.remove(&fingerprint) {
            self.due.remove(&(due_s, fingerprint));
        }
    }
}

/// What a shard knows of its retained messages.
pub(crate) struct DiscOnly {
    shard: ShardId,
    reads: Sender<RetainedRead>,
    seed: u64,
    recent: RetainedIndex<Recent>,
    /// Topics of `recent` in the order of their batches.
    in_order: VecDeque<(u64, Box<str>)>,
    /// Changes up to this batch may be forgotten.
    forgotten: u64,
    fingerprints: Fingerprints,
    /// Removed while the store still tells what it has; `None` when it has told all.
    removed: Option<HashSet<u64>>,
    expiries: Expiries,
    /// `$SYS` messages.
    own: usize,
    asked: BTreeMap<u64, Asked>,
    waiting: VecDeque<(Asker, RetainedQuery)>,
    next_id: u64,
}

impl DiscOnly {
    /// `seed`: nobody outside can find topics with the same fingerprint.
    pub fn new(shard: ShardId, reads: Sender<RetainedRead>, seed: u64) -> Self {
        Self {
            shard,
            reads,
            seed,
            recent: RetainedIndex::new(),
            in_order: VecDeque::new(),
            forgotten: 0,
            fingerprints: Fingerprints::new(),
            removed: Some(HashSet::new()),
            expiries: Expiries::default(),
            own: 0,
            asked: BTreeMap::new(),
            waiting: VecDeque::new(),
            next_id: 0,
        }
    }

    fn fingerprint(&self, topic: &str) -> u64 {
        xxh3_64_with_seed(topic.as_bytes(), self.seed)
    }

    /// How many messages there are; while the store still tells what it has, how many are known.
    pub fn len(&self) -> usize {
        self.fingerprints.len + self.own
    }

    /// Whether the topic is known to have a message.
    pub fn has(&self, topic: &str) -> bool {
        self.fingerprints.contains(self.fingerprint(topic))
    }

    /// Looks for what a filter (without prefix) matches, from a topic on.
    pub fn look(&self, filter: &str, from: Option<&str>) -> Look {
        if has_wildcard(filter) {
            return match self.removed.is_none() && self.len() == 0 {
                true => Look::Here(Vec::new()),
                false => {
                    let from = from.map(Box::from);
                    Look::Read(RetainedQuery::Matching { filter: filter.into(), from })
                }
            };
        }
        match self.recent.get(filter) {
            Some(recent) => Look::Here(recent.message.iter().cloned().collect()),
            None if self.may_have(filter) => Look::Read(RetainedQuery::Topic(filter.into())),
            None => Look::Here(Vec::new()),
        }
    }

    /// A topic has a message. `batch`: the one it goes to the store with.
    pub fn put(&mut self, message: Arc<Message>, batch: u64, due_unix_ms: Option<u64>) {
        let topic: Box<str> = message.topic().into();
        let fingerprint = self.fingerprint(&topic);
        self.fingerprints.insert(fingerprint);
        if let Some(removed) = &mut self.removed {
            removed.remove(&fingerprint);
        }
        self.expiries.set(fingerprint, &topic, due_unix_ms);
        self.note(topic, Some(message), batch);
    }

    /// A topic has a message of the broker itself, which stays in memory.
    pub fn put_own(&mut self, message: &Arc<Message>) {
        let recent = Recent { message: Some(Arc::clone(message)), batch: NEVER };
        let before = self.recent.insert(message.topic(), recent);
        self.own += usize::from(before.is_none_or(|before| before.batch != NEVER));
    }

    /// A topic has no message any more. `batch`: the one it goes to the store with. False if it is known that it had none.
    pub fn remove(&mut self, topic: &str, batch: u64) -> bool {
        if !self.may_have(topic) {
            return false;
        }
        let fingerprint = self.fingerprint(topic);
        self.fingerprints.remove(fingerprint);
        self.expiries.clear(fingerprint);
        if let Some(removed) = &mut self.removed {
            removed.insert(fingerprint);
        }
        self.note(topic.into(), None, batch);
        true
    }

    /// Whether a topic may have a message on disk.
    pub fn may_have(&self, topic: &str) -> bool {
        self.removed.is_some() || self.has(topic)
    }

    /// Removes a message of the broker itself.
    pub fn remove_own(&mut self, topic: &str) -> bool {
        let is_own = self.recent.get(topic).is_some_and(|recent| recent.batch == NEVER);
        if is_own {
            self.recent.remove(topic);
            self.own -= 1;
        }
        is_own
    }

    fn note(&mut self, topic: Box<str>, message: Option<Arc<Message>>, batch: u64) {
        let before = self.recent.insert(&topic, Recent { message, batch });
        self.own -= usize::from(before.as_ref().is_some_and(|before| before.batch == NEVER));
        if before.is_none_or(|before| before.batch != batch) {
            self.in_order.push_back((batch, topic));
        }
    }

    /// Forgets changes that are committed and that all pages which are being read have; some at a time.
    pub fn forget(&mut self, committed: u64) {
        let oldest = self.asked.first_key_value().map_or(committed, |(_, asked)| asked.committed);
        let is_too_much = self.in_order.len() > RECENT_MAX;
        let up_to = if is_too_much { committed } else { committed.min(oldest) };
        for _ in 0..FORGOTTEN_AT_ONCE {
            if self.in_order.front().is_none_or(|(batch, _)| *batch > up_to) {
                return;
            }
            let Some((batch, topic)) = self.in_order.pop_front() else { return };
            self.forgotten = batch;
            if self.recent.get(&topic).is_some_and(|recent| recent.batch <= batch) {
                self.recent.remove(&topic);
            }
        }
    }

    /// The store tells what it has. Gives back whether there is such a message; false for one that only says that there is
    /// none, unless something is known that came later.
    pub fn found(&mut self, row: &StoredRetainedRow, due_unix_ms: Option<u64>) -> bool {
        let fingerprint = self.fingerprint(&row.topic);
        let is_later = self.fingerprints.contains(fingerprint)
            || self.removed.as_ref().is_some_and(|removed| removed.contains(&fingerprint));
        if is_later || row.is_gone {
            return is_later;
        }
        self.fingerprints.insert(fingerprint);
        self.expiries.set(fingerprint, &row.topic, due_unix_ms);
        true
    }

    /// The store has told all.
    pub fn found_all(&mut self) {
        self.removed = None;
    }

    /// The store has decided about a message that was retained again. False: something came later, and it does not matter.
    pub fn decided(&mut self, row: &StoredRetainedRow, due_unix_ms: Option<u64>) -> bool {
        if self.recent.get(&row.topic).is_some() {
            return false;
        }
        let fingerprint = self.fingerprint(&row.topic);
        if row.is_gone {
            self.fingerprints.remove(fingerprint);
            self.expiries.clear(fingerprint);
        } else {
            self.fingerprints.insert(fingerprint);
            self.expiries.set(fingerprint, &row.topic, due_unix_ms);
        }
        if let Some(removed) = &mut self.removed {
            if row.is_gone {
                removed.insert(fingerprint)
            } else {
                removed.remove(&fingerprint)
            };
        }
        true
    }

    /// Whether messages may expire.
    pub fn may_expire(&self) -> bool {
        !self.expiries.due.is_empty()
    }

    /// Topics whose message has expired, so many at most.
    pub fn expired(&self, unix_ms: u64, at_most: usize) -> Vec<Box<str>> {
        let now_s = u32::try_from(unix_ms / 1000).unwrap_or(u32::MAX);
        let due = self.expiries.due.range(..=(now_s, u64::MAX));
        due.take(at_most).map(|(_, topic)| topic.clone()).collect()
    }

    /// Asks for a page, when it is its turn.
    pub fn ask(&mut self, asker: Asker, query: RetainedQuery) {
        self.waiting.push_back((asker, query));
    }

    /// Sends questions as far as there is room.
    pub fn send(&mut self, committed: u64) {
        while self.asked.len() < READS_MAX
            && let Some((asker, query)) = self.waiting.pop_front()
        {
            let id = self.next_id;
            self.next_id += 1;
            let read = RetainedRead { shard: self.shard, id, query: query.clone() };
            self.asked.insert(id, Asked { asker, query, committed });
            match self.reads.try_send(read) {
                // A store that is gone has said why, and the node ends.
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(_)) => panic!("more questions than the store has room for"),
            }
        }
    }

    /// The store has answered: who asked, and the page. `None` if it is too old to be made good, and is asked for again.
    pub fn answered(&mut self, id: u64, page: StoredRetainedPage) -> Option<(Asker, Page)> {
        let Asked { asker, query, committed } = self.asked.remove(&id)?;
        if committed < self.forgotten {
            self.waiting.push_front((asker, query));
            return None;
        }
        Some((asker, self.complete(&query, page)))
    }

    /// Lays what has changed over a page.
    fn complete(&self, query: &RetainedQuery, stored: StoredRetainedPage) -> Page {
        let StoredRetainedPage { mut messages, mut next } = stored;
        let budget = ScanBudget::of_matches(RECENT_PAGE);
        let mut changes: Vec<(&str, &Recent)> = Vec::new();
        match query {
            RetainedQuery::Topic(topic) => {
                changes.extend(self.recent.get(topic).map(|recent| (&**topic, recent)));
            }
            RetainedQuery::Matching { filter, from } => {
                let page = self.recent.scan(filter, from.as_deref(), budget);
                next = sooner(next, page.next);
                changes = page.matches;
            }
            RetainedQuery::All { from } => {
                let mut all = self.recent.iter_from(from.as_deref());
                changes.extend(all.by_ref().take(RECENT_PAGE));
                next = sooner(next, all.next().map(|(topic, _)| topic));
            }
        }
        let is_here = |topic: &str| next.as_deref().is_none_or(|next| topic < next);
        messages.retain(|message| is_here(message.topic()));
        if !changes.is_empty() {
            messages.retain(|message| self.recent.get(message.topic()).is_none());
            let newer = changes.into_iter().filter(|(topic, _)| is_here(topic));
            messages.extend(newer.filter_map(|(_, recent)| recent.message.clone()));
            messages.sort_by(|a, b| a.topic().cmp(b.topic()));
        }
        Page { messages, next }
    }
}

/// The one of two places that comes first, where none means the end.
fn sooner(a: Option<Box<str>>, b: Option<&str>) -> Option<Box<str>> {
    match (a, b) {
        (Some(a), Some(b)) if *a <= *b => Some(a),
        (_, Some(b)) => Some(b.into()),
        (a, None) => a,
    }
}

#[cfg(test)]
mod tests;
