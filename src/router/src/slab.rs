//! Values with stable `u32` indices in chunks of fixed size.
//!
//! Chunks, because one growing vector would copy everything it holds at each doubling (a pause) and
//! stand half empty after it (memory). A freed place joins a free list kept inside the places. When
//! the last value goes, all memory goes with it.

use std::num::NonZeroU32;

/// Values in a chunk. A power of two.
const CHUNK: usize = 1024;

/// The place of a value in a [`Slab`]; stored plus one, so that an `Option` of it is four bytes.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub(crate) struct Index(NonZeroU32);

impl Index {
    /// The index with this number, counted from zero.
    pub(crate) fn new(number: usize) -> Self {
        let number = u32::try_from(number).ok().and_then(|number| number.checked_add(1));
        Self(number.and_then(NonZeroU32::new).expect("a slab holds fewer than 2^32 - 1 values"))
    }

    /// The number, counted from zero.
    #[inline]
    pub(crate) const fn number(self) -> u32 {
        self.0.get() - 1
    }

    #[inline]
    const fn usize(self) -> usize {
        self.number() as usize
    }
}

enum Slot<T> {
    Free(Option<Index>),
    Used(T),
}

/// A slab of values of one kind.
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<Slot<T>>>,
    free: Option<Index>,
    /// Places ever used since the slab was last empty.
    used: usize,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: None, used: 0, len: 0 }
    }
}

impl<T> Slab<T> {
    /// How many values it holds.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// One above the highest number an index may have now.
    pub(crate) const fn used(&self) -> usize {
        self.used
    }

    /// Puts a value in.
    pub(crate) fn insert(&mut self, value: T) -> Index {
        self.len += 1;
        if let Some(index) = self.free {
            let slot = &mut self.chunks[index.usize() / CHUNK][index.usize() % CHUNK];
            let Slot::Free(next) = *slot else { unreachable!("a listed place is free") };
            self.free = next;
            *slot = Slot::Used(value);
            return index;
        }
        let index = Index::new(self.used);
        if self.used.is_multiple_of(CHUNK) {
            // The first chunk grows with its content: most brokers hold little.
            let capacity = if self.used == 0 { 4 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        self.chunks[self.used / CHUNK].push(Slot::Used(value));
        self.used += 1;
        index
    }

    /// Takes a value out.
    ///
    /// # Panics
    /// When there is none at `index`.
    pub(crate) fn remove(&mut self, index: Index) -> T {
        let slot = &mut self.chunks[index.usize() / CHUNK][index.usize() % CHUNK];
        let Slot::Used(value) = std::mem::replace(slot, Slot::Free(self.free)) else {
            panic!("no value at place {} of this slab", index.number());
        };
        self.free = Some(index);
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        }
        value
    }

    /// The value at `index`, if there is one.
    #[inline]
    pub(crate) fn get(&self, index: Index) -> Option<&T> {
        match self.chunks.get(index.usize() / CHUNK)?.get(index.usize() % CHUNK)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }
}

impl<T> std::ops::Index<Index> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: Index) -> &T {
        match &self.chunks[index.usize() / CHUNK][index.usize() % CHUNK] {
            Slot::Used(value) => value,
            Slot::Free(_) => panic!("no value at place {} of this slab", index.number()),
        }
    }
}

impl<T> std::ops::IndexMut<Index> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, index: Index) -> &mut T {
        match &mut self.chunks[index.usize() / CHUNK][index.usize() % CHUNK] {
            Slot::Used(value) => value,
            Slot::Free(_) => panic!("no value at place {} of this slab", index.number()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_stable_and_places_are_reused() {
        let mut slab = Slab::default();
        let all: Vec<Index> = (0..3000).map(|n| slab.insert(Box::new(n))).collect();
        assert_eq!(slab.remove(all[1500]), Box::new(1500));
        assert_eq!(slab.remove(all[7]), Box::new(7));
        assert!(slab.get(all[7]).is_none());
        assert_eq!(slab[all[2999]], Box::new(2999));
        assert!(slab.insert(Box::new(1)) == all[7] && slab.insert(Box::new(2)) == all[1500]);
        assert_eq!((slab.len(), slab.used()), (3000, 3000));
    }

    #[test]
    fn the_last_value_takes_all_memory_with_it() {
        let mut slab = Slab::default();
        let index = slab.insert(1);
        slab.remove(index);
        assert_eq!((slab.len(), slab.used(), slab.chunks.capacity()), (0, 0, 0));
    }

    #[test]
    #[should_panic(expected = "no value at place 0")]
    fn a_freed_place_panics() {
        let mut slab = Slab::default();
        let (first, _second) = (slab.insert(1), slab.insert(2));
        slab.remove(first);
        let _ = slab[first];
    }
}
