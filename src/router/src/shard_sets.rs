//! Sets of shards in four bytes: one shard inline, several as an interned set.

use crate::slab::{Index, Slab};
use crate::tags::Tags;
use ring::{SHARDS_MAX, ShardId, ShardSet};
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use xxhash_rust::xxh3::Xxh3Default;

/// A set of shards, as a number: 1 is the empty set; from 2 on single shards; then interned sets.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct SetRef(NonZeroU32);

/// The numbers of the first single shard and of the first interned set.
const ONE: usize = 2;
const INTERNED: usize = ONE + SHARDS_MAX;

enum Kind {
    Empty,
    One(ShardId),
    Interned(Index),
}

impl SetRef {
    pub(crate) const EMPTY: Self = Self(NonZeroU32::MIN);

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self == Self::EMPTY
    }

    #[inline]
    fn kind(self) -> Kind {
        match self.0.get() as usize {
            number if number < ONE => Kind::Empty,
            number if number < INTERNED => Kind::One(ShardId::new(number - ONE)),
            number => Kind::Interned(Index::new(number - INTERNED)),
        }
    }

    fn numbered(number: usize) -> Self {
        let number = u32::try_from(number).ok().and_then(NonZeroU32::new);
        Self(number.expect("fewer than 2^32 - 258 distinct shard sets"))
    }
}

struct Interned {
    set: ShardSet,
    uses: u32,
}

/// The interned sets of two and more shards, counted by use.
#[derive(Default)]
pub(crate) struct ShardSets {
    sets: Slab<Interned>,
    index: Tags<Index>,
}

fn hash(set: &ShardSet) -> u64 {
    let mut hasher = Xxh3Default::new();
    set.hash(&mut hasher);
    hasher.finish()
}

impl ShardSets {
    /// How many sets are interned.
    pub(crate) const fn len(&self) -> usize {
        self.sets.len()
    }

    /// The set itself.
    pub(crate) fn get(&self, set: SetRef) -> ShardSet {
        match set.kind() {
            Kind::Empty => ShardSet::default(),
            Kind::One(shard) => ShardSet::single(shard),
            Kind::Interned(index) => self.sets[index].set,
        }
    }

    /// Adds the shards of `set` to `out`.
    #[inline]
    pub(crate) fn add_to(&self, set: SetRef, out: &mut ShardSet) {
        match set.kind() {
            Kind::Empty => {}
            Kind::One(shard) => {
                out.insert(shard);
            }
            Kind::Interned(index) => *out = out.union(&self.sets[index].set),
        }
    }

    /// Puts `shard` into `set`; false when it was in before.
    pub(crate) fn insert(&mut self, set: &mut SetRef, shard: ShardId) -> bool {
        let mut shards = self.get(*set);
        let new = shards.insert(shard);
        if new {
            self.replace(set, &shards);
        }
        new
    }

    /// Takes `shard` out of `set`; false when it was not in.
    pub(crate) fn remove(&mut self, set: &mut SetRef, shard: ShardId) -> bool {
        let mut shards = self.get(*set);
        let was = shards.remove(shard);
        if was {
            self.replace(set, &shards);
        }
        was
    }

    fn replace(&mut self, set: &mut SetRef, shards: &ShardSet) {
        self.release(*set);
        *set = self.intern(shards);
    }

    fn intern(&mut self, shards: &ShardSet) -> SetRef {
        let mut members = shards.iter();
        match (members.next(), members.next()) {
            (None, _) => SetRef::EMPTY,
            (Some(one), None) => SetRef::numbered(ONE + one.index()),
            _ => {
                let index = self.intern_several(shards);
                SetRef::numbered(INTERNED + index.number() as usize)
            }
        }
    }

    fn intern_several(&mut self, shards: &ShardSet) -> Index {
        let hashed = hash(shards);
        let sets = &mut self.sets;
        if let Some(index) = self.index.candidates(hashed).find(|at| sets[*at].set == *shards) {
            sets[index].uses += 1;
            return index;
        }
        let index = sets.insert(Interned { set: *shards, uses: 1 });
        self.index.insert(hashed, index);
        index
    }

    fn release(&mut self, set: SetRef) {
        let Kind::Interned(index) = set.kind() else { return };
        let sets = &mut self.sets;
        sets[index].uses -= 1;
        if sets[index].uses == 0 {
            self.index.remove(hash(&sets[index].set), index);
            sets.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_grow_shrink_and_are_shared() {
        let mut sets = ShardSets::default();
        let (mut a, mut b) = (SetRef::EMPTY, SetRef::EMPTY);
        let [one, two, last] = [ShardId::new(1), ShardId::new(2), ShardId::new(255)];
        for shard in [one, two, last] {
            assert!(sets.insert(&mut a, shard));
            assert!(!sets.insert(&mut a, shard));
        }
        for shard in [last, one, two] {
            sets.insert(&mut b, shard);
        }
        assert_eq!(a, b);
        assert_eq!(sets.len(), 1);
        assert_eq!(sets.get(a).iter().collect::<Vec<_>>(), [one, two, last]);
        assert!(sets.remove(&mut a, two));
        assert!(!sets.remove(&mut a, two));
        assert_eq!(sets.len(), 2);
        let mut out = ShardSet::single(two);
        sets.add_to(a, &mut out);
        assert_eq!(out, sets.get(b));
        for shard in [one, two, last] {
            sets.remove(&mut a, shard);
            sets.remove(&mut b, shard);
        }
        assert!(a.is_empty() && b.is_empty());
        assert_eq!(sets.len(), 0);
    }
}
