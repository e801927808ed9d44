//! A hash table in segments, made for tables that are far larger than the caches.
//!
//! A look-up reads one cache line, most often: entries lie in one array, found by linear probing,
//! with nothing beside it to be read first. One big array would pause its shard while it moves all
//! entries at a doubling, and stand half empty after it; here each segment grows on its own and by
//! a quarter, so a growing table is between six and eight tenths full and a pause is short.

/// Segments of a table: the top bits of a hash.
const SEGMENT_BITS: u32 = 7;

/// A segment grows at a load of four fifths: up to there a probe is a few neighbours.
const LOAD: (usize, usize) = (4, 5);

/// From this many places on a segment grows by a quarter, below it doubles.
const SMALL: usize = 64;

/// A hash table of small entries. Hash and equality are the caller's: every call brings them along.
/// An `Option<T>` should be as small as a `T`.
pub(crate) struct Table<T> {
    /// Empty until the first insertion.
    segments: Vec<Segment<T>>,
    len: usize,
}

/// Entries by linear probing from the place that is their hash's; never full, so probing ends.
struct Segment<T> {
    places: Box<[Option<T>]>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { segments: Vec::new(), len: 0 }
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "seven bits remain")]
const fn segment(hash: u64) -> usize {
    (hash >> (u64::BITS - SEGMENT_BITS)) as usize
}

/// The place of a hash among `count`: 32 of its bits as a fraction of them.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the product of two 32-bit numbers, halved")]
const fn home(hash: u64, count: usize) -> usize {
    (((hash << SEGMENT_BITS >> 32) * count as u64) >> 32) as usize
}

impl<T: Copy> Table<T> {
    /// How many entries it holds.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing: nothing needs to be hashed then.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry with this hash that `is` recognises.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is: impl FnMut(&T) -> bool) -> Option<&T> {
        self.candidates(hash).find(|entry| is(entry))
    }

    /// Entries that may have this hash, those that have among them; the caller checks each.
    #[inline]
    pub(crate) fn candidates(&self, hash: u64) -> impl Iterator<Item = &T> {
        let places = self.segments.get(segment(hash)).map_or(&[][..], |segment| &segment.places);
        let (wrapped, from_home) = places.split_at(home(hash, places.len()));
        from_home.iter().chain(wrapped).map_while(Option::as_ref)
    }

    /// As [`Table::find`], to change what is not part of the hash.
    pub(crate) fn find_mut(&mut self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let segment = self.segments.get_mut(segment(hash))?;
        let at = segment.position(hash, is)?;
        segment.places[at].as_mut()
    }

    /// Puts an entry in without looking for an equal one.
    pub(crate) fn insert(&mut self, hash: u64, entry: T, hasher: impl Fn(&T) -> u64) {
        if self.segments.is_empty() {
            self.segments.resize_with(1 << SEGMENT_BITS, Segment::default);
        }
        let segment = &mut self.segments[segment(hash)];
        let places = segment.places.len();
        if (segment.len + 1) * LOAD.1 > places * LOAD.0 {
            let grown = if places < SMALL { places * 2 } else { places + places / 4 };
            segment.resize(grown.max(2), hasher);
        }
        segment.insert(hash, entry);
        self.len += 1;
    }

    /// Takes the entry out that `is` recognises.
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        is: impl FnMut(&T) -> bool,
        hasher: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let segment = self.segments.get_mut(segment(hash))?;
        let at = segment.position(hash, is)?;
        let entry = segment.remove(at, &hasher);
        self.len -= 1;
        if self.len == 0 {
            self.segments = Vec::new();
        } else if segment.len * 4 < segment.places.len() && segment.places.len() > 8 {
            segment.resize(segment.len * 2 + 2, hasher);
        }
        entry
    }
}

impl<T> Default for Segment<T> {
    fn default() -> Self {
        Self { places: Box::default(), len: 0 }
    }
}

impl<T: Copy> Segment<T> {
    fn position(&self, hash: u64, mut is: impl FnMut(&T) -> bool) -> Option<usize> {
        let count = self.places.len();
        let mut at = home(hash, count);
        loop {
            if is(self.places.get(at)?.as_ref()?) {
                return Some(at);
            }
            at = next(at, count);
        }
    }

    fn insert(&mut self, hash: u64, entry: T) {
        let count = self.places.len();
        let mut at = home(hash, count);
        while self.places[at].is_some() {
            at = next(at, count);
        }
        self.places[at] = Some(entry);
        self.len += 1;
    }

    /// Empties a place and moves up those behind it that probing would not find any more.
    fn remove(&mut self, mut hole: usize, hasher: impl Fn(&T) -> u64) -> Option<T> {
        let count = self.places.len();
        let entry = self.places[hole].take();
        self.len -= 1;
        let mut at = next(hole, count);
        while let Some(moved) = self.places[at] {
            // How far an entry is from its home, and how far from the hole; around the end.
            let from_home = (at + count - home(hasher(&moved), count)) % count;
            let from_hole = (at + count - hole) % count;
            if from_home >= from_hole {
                self.places[hole] = self.places[at].take();
                hole = at;
            }
            at = next(at, count);
        }
        entry
    }

    fn resize(&mut self, count: usize, hasher: impl Fn(&T) -> u64) {
        let places = std::mem::replace(&mut self.places, vec![None; count].into_boxed_slice());
        self.len = 0;
        for entry in places.into_iter().flatten() {
            self.insert(hasher(&entry), entry);
        }
    }
}

#[inline]
const fn next(at: usize, count: usize) -> usize {
    if at + 1 == count { 0 } else { at + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::mix;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::num::NonZeroU64;

    fn places(table: &Table<NonZeroU64>) -> usize {
        table.segments.iter().map(|segment| segment.places.len()).sum()
    }

    proptest! {
        #[test]
        fn a_table_is_a_set(
            steps in prop::collection::vec((any::<bool>(), 1u64..200), 0..600),
            mask in prop::sample::select(vec![u64::MAX, 3 << 56, 0]),
        ) {
            let hasher = |entry: &NonZeroU64| mix(entry.get(), 1) & mask;
            let mut table = Table::default();
            let mut model = BTreeSet::new();
            for (add, number) in steps {
                let entry = NonZeroU64::new(number).unwrap();
                if add && model.insert(entry) {
                    table.insert(hasher(&entry), entry, hasher);
                } else if !add {
                    let removed = table.remove(hasher(&entry), |other| *other == entry, hasher);
                    prop_assert_eq!(removed.is_some(), model.remove(&entry));
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for number in 1..200 {
                let entry = NonZeroU64::new(number).unwrap();
                let found = table.find(hasher(&entry), |other| *other == entry).copied();
                prop_assert_eq!(found, model.get(&entry).copied());
            }
        }
    }

    #[test]
    fn load_stays_high_and_memory_goes_with_the_entries() {
        let hasher = |entry: &NonZeroU64| mix(entry.get(), 1);
        let entry = |number: u64| NonZeroU64::new(number + 1).unwrap();
        let mut table = Table::default();
        for number in 0..200_000 {
            table.insert(hasher(&entry(number)), entry(number), hasher);
            if number > 50_000 && number % 5000 == 0 {
                let permille = table.len() * 1000 / places(&table);
                assert!((620..=800).contains(&permille), "{permille} at {number}");
            }
        }
        for number in 0..199_000 {
            let entry = entry(number);
            let removed = table.remove(hasher(&entry), |other| *other == entry, hasher);
            assert_eq!(removed, Some(entry));
        }
        assert!(places(&table) < 4500, "{}", places(&table));
        for number in 199_000..200_000 {
            let entry = entry(number);
            assert!(table.find(hasher(&entry), |other| *other == entry).is_some());
            table.remove(hasher(&entry), |other| *other == entry, hasher);
        }
        assert!(table.segments.capacity() == 0 && table.is_empty());
    }
}
