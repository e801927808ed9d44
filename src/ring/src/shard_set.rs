//! A set of shards: 256 bits, inline.

use crate::shard_id::{SHARDS_MAX, ShardId};
use std::fmt;

/// How many words of 64 shards a set has.
pub(crate) const WORDS: usize = SHARDS_MAX / 64;

/// A set of shards. Copying it costs 32 bytes; nothing is allocated.
#[derive(Copy, Clone, Default, Eq, PartialEq, Hash)]
pub struct ShardSet([u64; WORDS]);

/// The word and the bit in it that stand for `shard`.
#[inline]
pub(crate) const fn place(shard: ShardId) -> (usize, u64) {
    (shard.index() / 64, 1 << (shard.index() % 64))
}

impl ShardSet {
    /// The set of no shard.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// The set of no shard.
    #[inline]
    pub const fn new() -> Self {
        Self::EMPTY
    }

    /// The set of one shard.
    #[inline]
    pub const fn single(shard: ShardId) -> Self {
        let mut words = [0; WORDS];
        let (word, bit) = place(shard);
        words[word] = bit;
        Self(words)
    }

    /// The set of the shards 0 to `shards` - 1.
    ///
    /// # Panics
    /// When `shards` is above [`SHARDS_MAX`].
    pub fn first(shards: usize) -> Self {
        assert!(shards <= SHARDS_MAX, "a node has at most SHARDS_MAX shards");
        (0..shards).map(ShardId::new).collect()
    }

    /// Puts `shard` in; true when it was not in before.
    #[inline]
    pub const fn insert(&mut self, shard: ShardId) -> bool {
        let (word, bit) = place(shard);
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// Takes `shard` out; true when it was in.
    #[inline]
    pub const fn remove(&mut self, shard: ShardId) -> bool {
        let (word, bit) = place(shard);
        let was = self.0[word] & bit != 0;
        self.0[word] &= !bit;
        was
    }

    /// Whether `shard` is in.
    #[inline]
    pub const fn contains(&self, shard: ShardId) -> bool {
        let (word, bit) = place(shard);
        self.0[word] & bit != 0
    }

    /// Takes all out.
    #[inline]
    pub const fn clear(&mut self) {
        self.0 = [0; WORDS];
    }

    /// Whether no shard is in.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.iter().fold(0, |all, word| all | word) == 0
    }

    /// How many shards are in.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The shards in either.
    #[inline]
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// The shards in both.
    #[inline]
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    /// The shards in this set and not in the other.
    #[inline]
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    /// The shards in ascending order.
    #[inline]
    pub const fn iter(&self) -> Iter {
        Iter { words: self.0, word: 0 }
    }

    /// Adds the shards whose bits are set in `bits`, which stands for the shards from `word` * 64.
    #[inline]
    pub(crate) const fn insert_word(&mut self, word: usize, bits: u64) {
        self.0[word] |= bits;
    }

    #[inline]
    fn zip(&self, other: &Self, join: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|word| join(self.0[word], other.0[word])))
    }
}

impl fmt::Debug for ShardSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.iter().map(ShardId::index)).finish()
    }
}

impl Extend<ShardId> for ShardSet {
    fn extend<I: IntoIterator<Item = ShardId>>(&mut self, shards: I) {
        for shard in shards {
            self.insert(shard);
        }
    }
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardId>>(shards: I) -> Self {
        let mut set = Self::EMPTY;
        set.extend(shards);
        set
    }
}

impl IntoIterator for ShardSet {
    type Item = ShardId;
    type IntoIter = Iter;
    fn into_iter(self) -> Iter {
        self.iter()
    }
}

impl IntoIterator for &ShardSet {
    type Item = ShardId;
    type IntoIter = Iter;
    fn into_iter(self) -> Iter {
        self.iter()
    }
}

/// The shards of a [`ShardSet`] in ascending order. Holds a copy of the set.
#[derive(Clone, Debug)]
pub struct Iter {
    words: [u64; WORDS],
    word: usize,
}

impl Iterator for Iter {
    type Item = ShardId;

    #[inline]
    fn next(&mut self) -> Option<ShardId> {
        while let Some(bits) = self.words.get_mut(self.word) {
            if *bits != 0 {
                let bit = bits.trailing_zeros() as usize;
                *bits &= *bits - 1;
                return Some(ShardId::new(self.word * 64 + bit));
            }
            self.word += 1;
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn holds_the_first_and_the_last_shard_of_every_word() {
        let ids = [0, 1, 63, 64, 127, 128, 191, 192, 255];
        let mut set = ShardSet::new();
        assert!(set.is_empty());
        for id in ids {
            assert!(set.insert(ShardId::new(id)));
            assert!(!set.insert(ShardId::new(id)));
        }
        assert_eq!(set.iter().map(ShardId::index).collect::<Vec<_>>(), ids);
        assert_eq!(set.len(), ids.len());
        assert!(set.contains(ShardId::new(191)) && !set.contains(ShardId::new(190)));
        assert!(set.remove(ShardId::new(191)) && !set.remove(ShardId::new(191)));
        assert_eq!(set.len(), ids.len() - 1);
        set.clear();
        assert_eq!(set, ShardSet::EMPTY);
    }

    #[test]
    fn joins_as_sets_do() {
        let low = ShardSet::first(100);
        let even: ShardSet = (0..SHARDS_MAX).step_by(2).map(ShardId::new).collect();
        assert_eq!(low.len(), 100);
        assert_eq!(low.intersection(&even).len(), 50);
        assert_eq!(low.union(&even).len(), 100 + 128 - 50);
        assert_eq!(low.difference(&even).len(), 50);
        assert!(low.difference(&low).is_empty());
        assert_eq!(ShardSet::first(SHARDS_MAX).len(), SHARDS_MAX);
        assert_eq!(ShardSet::single(ShardId::new(7)).into_iter().next(), Some(ShardId::new(7)));
        assert_eq!(format!("{:?}", ShardSet::first(3)), "{0, 1, 2}");
    }

    #[test]
    #[should_panic(expected = "below SHARDS_MAX")]
    fn a_number_past_the_last_is_refused() {
        let _ = ShardId::new(SHARDS_MAX);
    }
}
