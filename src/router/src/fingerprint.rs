//! Seeded fingerprints of topics and levels.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// 64 bits of a topic's xxh3 under the process's seed: the same on all shards of a process, not to
/// be guessed by a client.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The fingerprint with these bits, as a mesh message carried them.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// Makes fingerprints under one seed.
#[derive(Copy, Clone)]
pub(crate) struct Fingerprinter {
    seed: u64,
    /// Tests cut fingerprints down to few bits, so that collisions are the rule.
    #[cfg(test)]
    pub(crate) mask: u64,
}

impl Fingerprinter {
    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            seed,
            #[cfg(test)]
            mask: u64::MAX,
        }
    }

    /// The fingerprint of a topic, a filter without wildcard, or a level.
    #[inline]
    pub(crate) fn of(&self, text: impl AsRef<[u8]>) -> Fingerprint {
        let bits = xxh3_64_with_seed(text.as_ref(), self.seed);
        #[cfg(test)]
        let bits = bits & self.mask;
        Fingerprint(bits)
    }
}

/// Joins two values to one hash with all bits used; the multiplier is 2^64 divided by the golden
/// ratio, the finish that of splitmix64.
#[inline]
pub(crate) const fn mix(a: u64, b: u64) -> u64 {
    let mut hash = a ^ b.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_make_different_fingerprints() {
        let (one, two) = (Fingerprinter::new(1), Fingerprinter::new(2));
        assert_eq!(one.of("a/b"), one.of("a/b"));
        assert_ne!(one.of("a/b"), one.of("a/c"));
        assert_ne!(one.of("a/b"), two.of("a/b"));
        assert_eq!(Fingerprint::from_bits(one.of("a").bits()), one.of("a"));
    }
}
