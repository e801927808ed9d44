//! What the broker counts: every name declared once, every shard on cache lines of its own.
//!
//! - [`Counter`]: what only ever grows; the names of EMQ 2.x (SEED-MET-01 to 04) and ours.
//! - [`DropKind`] and [`DropReason`]: each message the broker gives up is counted under both.
//! - [`Gauge`]: what goes up and down; a count and a high-water mark.
//! - [`ShardMetrics`]: one shard's numbers. Only the shard's own thread writes, anyone may read.
//! - [`Snapshot`] and [`StatsKeeper`]: the node's numbers, summed by whoever asks.
//! - [`Histogram`]: how long things take; owned by one thread and never shared.
//!
//! No thread, no clock: the numbers are recorded and read by others.
#![forbid(unsafe_code)]

mod counter;
mod drops;
mod gauge;
mod histogram;
mod shard_metrics;
mod snapshot;

pub use counter::{Counter, Origin};
pub use drops::{DropKind, DropReason, drop_name};
pub use gauge::Gauge;
pub use histogram::{Histogram, HistogramSummary};
pub use shard_metrics::ShardMetrics;
pub use snapshot::{DERIVED, Derived, GaugeValue, Snapshot, StatsKeeper};
