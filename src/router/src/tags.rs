//! A [`Table`] of indices, each with 32 bits of its key's hash: what else is known of the key is
//! read for the right entry only (a wrong tag is as likely as one in 2^32 for each entry met), and
//! entries move without their keys being hashed again.

use crate::table::Table;

/// Indices by hash.
pub(crate) struct Tags<I>(Table<(u32, I)>);

impl<I> Default for Tags<I> {
    fn default() -> Self {
        Self(Table::default())
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
const fn tag(hash: u64) -> u32 {
    hash as u32
}

/// The table's hash of a tag; the multiplier is 2^64 divided by the golden ratio.
#[inline]
const fn spread(tag: u32) -> u64 {
    (tag as u64 | 1 << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl<I: Copy + Eq> Tags<I> {
    /// The indices whose keys may have this hash; the caller checks each key.
    #[inline]
    pub(crate) fn candidates(&self, hash: u64) -> impl Iterator<Item = I> {
        let tag = tag(hash);
        let entries = self.0.candidates(spread(tag));
        entries.filter(move |entry| entry.0 == tag).map(|entry| entry.1)
    }

    /// Puts an index in.
    pub(crate) fn insert(&mut self, hash: u64, index: I) {
        let tag = tag(hash);
        self.0.insert(spread(tag), (tag, index), |entry| spread(entry.0));
    }

    /// Takes an index out.
    ///
    /// # Panics
    /// When it is not in.
    pub(crate) fn remove(&mut self, hash: u64, index: I) {
        let entry =
            self.0.remove(spread(tag(hash)), |entry| entry.1 == index, |entry| spread(entry.0));
        assert!(entry.is_some(), "what is taken out of a table is in it");
    }
}
