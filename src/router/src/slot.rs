//! Slots: the stable hash that places clients and retained topics.

use ring::ShardId;
use xxhash_rust::xxh3::xxh3_64;

/// How many slots there are.
pub const SLOTS: u16 = 4096;

/// The slot of a client id or of a topic: the top 12 bits of its xxh3 without a seed. It must never
/// change, because the store keys by it.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "12 bits remain")]
pub fn slot(bytes: &[u8]) -> u16 {
    (xxh3_64(bytes) >> 52) as u16
}

/// The shard that owns a slot on a node of `shards` shards.
///
/// # Panics
/// When `shards` is zero, or above [`ring::SHARDS_MAX`] with a slot so high.
#[inline]
pub fn home(slot: u16, shards: usize) -> ShardId {
    ShardId::new(usize::from(slot) % shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_never_change() {
        // The first is the published xxh3-64 of nothing, 0x2D06800538D394C2.
        assert_eq!(slot(b""), 0x2D0);
        assert!(slot(b"client-1") < SLOTS);
        assert_eq!(slot(b"client-1"), slot(b"client-1"));
    }

    #[test]
    fn homes_cover_all_shards_evenly() {
        let mut counts = [0; 7];
        for n in 0..70_000 {
            counts[home(slot(format!("client-{n}").as_bytes()), 7).index()] += 1;
        }
        assert!(counts.iter().all(|count| (9_000..11_000).contains(count)), "{counts:?}");
    }
}
