//! One shard's numbers.

use crate::{Counter, DropKind, DropReason, Gauge};
use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// One shard's counters, drops and gauges, on cache lines of their own.
///
/// Only the shard's own thread may call what writes: a write is a relaxed load and a relaxed store,
/// no locked instruction, and two writers would lose counts (nothing worse). Any thread may
/// read; what it reads is a value each number had, not one moment of all of them.
#[derive(Default)]
#[repr(align(128))]
pub struct ShardMetrics {
    counters: Table<{ Counter::ALL.len() }>,
    drops: Drops,
    counts: Table<{ Gauge::ALL.len() }>,
    maxima: Table<{ Gauge::ALL.len() }>,
}

#[derive(Default)]
struct Drops([Table<{ DropReason::ALL.len() }>; DropKind::ALL.len()]);

struct Table<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Table<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// Adds as the only writer.
#[inline]
fn add(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
}

impl ShardMetrics {
    /// All zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writer: adds `n`.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        add(&self.counters.0[counter as usize], n);
    }

    /// Writer: adds one.
    #[inline]
    pub fn inc(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// A counter's value.
    #[inline]
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters.0[counter as usize].load(Relaxed)
    }

    /// Writer: counts one message dropped.
    #[inline]
    pub fn count_drop(&self, kind: DropKind, reason: DropReason) {
        self.count_drops(kind, reason, 1);
    }

    /// Writer: counts messages dropped.
    #[inline]
    pub fn count_drops(&self, kind: DropKind, reason: DropReason, n: u64) {
        add(&self.drops.0[kind as usize].0[reason as usize], n);
    }

    /// How many of a kind were dropped for a reason.
    pub fn dropped(&self, kind: DropKind, reason: DropReason) -> u64 {
        self.drops.0[kind as usize].0[reason as usize].load(Relaxed)
    }

    /// Writer: sets a gauge.
    #[inline]
    pub fn set(&self, gauge: Gauge, count: u64) {
        self.counts.0[gauge as usize].store(count, Relaxed);
        let max = &self.maxima.0[gauge as usize];
        if count > max.load(Relaxed) {
            max.store(count, Relaxed);
        }
    }

    /// Writer: one more.
    #[inline]
    pub fn increase(&self, gauge: Gauge) {
        self.set(gauge, self.count(gauge) + 1);
    }

    /// Writer: one less; stays at zero.
    #[inline]
    pub fn decrease(&self, gauge: Gauge) {
        let count = self.count(gauge);
        debug_assert!(count > 0, "{gauge:?} would fall below zero");
        self.set(gauge, count.saturating_sub(1));
    }

    /// A gauge's value on this shard.
    #[inline]
    pub fn count(&self, gauge: Gauge) -> u64 {
        self.counts.0[gauge as usize].load(Relaxed)
    }

    /// The most a gauge ever was on this shard. The node's mark is [`StatsKeeper`](crate::StatsKeeper)'s.
    #[inline]
    pub fn max(&self, gauge: Gauge) -> u64 {
        self.maxima.0[gauge as usize].load(Relaxed)
    }
}

impl fmt::Debug for ShardMetrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nonzero = Counter::ALL.iter().map(|&c| (c.name(), self.get(c))).filter(|(_, n)| *n > 0);
        out.debug_map().entries(nonzero).finish()
    }
}
