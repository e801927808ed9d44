//! The groups of operations; each runs in processes of its own, so that the memory of one is not that
//! of another.

use crate::error::MicroError;
use crate::meter::Meter;
use crate::{codec, rings, routes};
use clap::ValueEnum;

/// One group.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Group {
    /// An empty loop, decoding and encoding
    Codec,
    /// Rings between shards
    Ring,
    /// Matching at 1,000 exact routes
    #[value(name = "exact-1k")]
    Exact1K,
    /// Matching at 100,000 exact routes
    #[value(name = "exact-100k")]
    Exact100K,
    /// Matching at 1,000,000 exact routes
    #[value(name = "exact-1m")]
    Exact1M,
    /// Matching at 10,000,000 exact routes
    #[value(name = "exact-10m")]
    Exact10M,
    /// Matching at 1,000 filters with + and #
    #[value(name = "wildcard-1k")]
    Wildcard1K,
    /// Matching at 100,000 filters with + and #
    #[value(name = "wildcard-100k")]
    Wildcard100K,
    /// Matching at 1,000,000 filters with + and #
    #[value(name = "wildcard-1m")]
    Wildcard1M,
}

impl Group {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 9] = [
        Self::Codec,
        Self::Ring,
        Self::Exact1K,
        Self::Exact100K,
        Self::Exact1M,
        Self::Exact10M,
        Self::Wildcard1K,
        Self::Wildcard100K,
        Self::Wildcard1M,
    ];

    /// Whether it takes seconds only.
    pub const fn is_quick(self) -> bool {
        !matches!(self, Self::Exact1M | Self::Exact10M | Self::Wildcard1M)
    }

    /// The name as it is typed.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Measures it.
    pub fn run(self, meter: &mut Meter) -> Result<(), MicroError> {
        match self {
            Self::Codec => codec::run(meter),
            Self::Ring => rings::run(meter),
            Self::Exact1K => return routes::exact(meter, 1_000),
            Self::Exact100K => return routes::exact(meter, 100_000),
            Self::Exact1M => return routes::exact(meter, 1_000_000),
            Self::Exact10M => return routes::exact(meter, 10_000_000),
            Self::Wildcard1K => return routes::wildcard(meter, 1_000),
            Self::Wildcard100K => return routes::wildcard(meter, 100_000),
            Self::Wildcard1M => return routes::wildcard(meter, 1_000_000),
        }
        Ok(())
    }
}
