//! A shard's number.

use std::fmt;

/// The most shards a node may have.
pub const SHARDS_MAX: usize = 256;

/// A shard's number: 0 up to the node's shard count, at most [`SHARDS_MAX`].
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct ShardId(u16);

impl ShardId {
    /// The shard with this number.
    ///
    /// # Panics
    /// When `index` is [`SHARDS_MAX`] or more.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "checked against SHARDS_MAX just before")]
    pub const fn new(index: usize) -> Self {
        assert!(index < SHARDS_MAX, "a shard's number must be below SHARDS_MAX");
        Self(index as u16)
    }

    /// The shard's number as an index into tables.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}
