//! What can be said of a running store.

use std::time::Duration;

use hdrhistogram::Histogram;
use shard::storage::StoreHealth;

use crate::codec::FORMAT;
use crate::core::{Damage, Found, Outcome};
use crate::engine::{Cut, EngineSizes, Keyspace};

/// The longest sync the histogram tells apart.
const SYNC_US_MAX: u64 = 60_000_000;
/// Seconds over which commits per second are told.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Half were at most this.
    pub p50_us: u64,
    /// 99 of 100 were at most this.
    pub p99_us: u64,
    /// 999 of 1,000 were at most this.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// What can be said of a running store.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreInfo {
    /// The version of keys and values.
    pub format: u32,
    /// How it is.
    pub health: StoreHealth,
    /// The last error of a write or sync, also if it is over.
    pub last_error: Option<String>,
    /// Bytes on disk by keyspace.
    pub keyspaces: Vec<(&'static str, u64)>,
    /// Bytes of the journal on disk.
    pub journal_bytes: u64,
    /// What was there at the start; `None` until all was handed over.
    pub found: Option<Found>,
    /// Writes: one is a commit of all batches that waited.
    pub commits: u64,
    /// Commits per second of the last ten seconds with commits.
    pub commits_per_s: f64,
    /// Batches in them.
    pub batches: u64,
    /// Changes that shards asked for.
    pub ops: u64,
    /// Keys that were written or removed for them.
    pub keys: u64,
    /// Latency of commits, with their sync where they have one.
    pub commit_latency: Latency,
    /// Latency of syncs.
    pub sync_latency: Latency,
    /// What was cut off at the start: writes that a crash left unfinished.
    pub cut: Cut,
    /// Values that were damaged and left out.
    pub damaged_values: u64,
    /// Reference counts that did not fit.
    pub damaged_counts: u64,
}

/// What the threads note.
pub(crate) struct Gauges {
    health: StoreHealth,
    last_error: Option<String>,
    pub(crate) sizes: EngineSizes,
    pub(crate) found: Option<Found>,
    pub(crate) cut: Cut,
    pub(crate) damage_read: Damage,
    pub(crate) damage_written: Damage,
    commits: u64,
    batches: u64,
    ops: u64,
    keys: u64,
    commit_us: Histogram<u64>,
    sync_us: Histogram<u64>,
    rate: Rate,
}

impl Gauges {
    pub(crate) fn new() -> Self {
        let histogram = || Histogram::new_with_max(SYNC_US_MAX, 2).expect("the limits are valid");
        Self {
            health: StoreHealth::Good,
            last_error: None,
            sizes: EngineSizes::default(),
            found: None,
            cut: Cut::default(),
            damage_read: Damage::default(),
            damage_written: Damage::default(),
            commits: 0,
            batches: 0,
            ops: 0,
            keys: 0,
            commit_us: histogram(),
            sync_us: histogram(),
            rate: Rate::default(),
        }
    }

    pub(crate) fn round(&mut self, outcome: &Outcome, took: Duration) {
        self.commits += 1;
        self.batches += outcome.batches;
        self.ops += outcome.ops;
        self.keys += outcome.keys;
        self.commit_us.saturating_record(micros(took));
        self.rate.note();
    }

    pub(crate) fn synced(&mut self, took: Duration) {
        self.sync_us.saturating_record(micros(took));
    }

    pub(crate) fn failed(&mut self, error: &str) {
        self.health = StoreHealth::Failing;
        self.last_error = Some(error.to_owned());
    }

    pub(crate) fn recovered(&mut self) {
        self.health = StoreHealth::Good;
    }

    pub(crate) fn info(&self) -> StoreInfo {
        let sizes = Keyspace::ALL.iter().zip(self.sizes.keyspaces);
        StoreInfo {
            format: FORMAT,
            health: self.health,
            last_error: self.last_error.clone(),
            keyspaces: sizes.map(|(keyspace, bytes)| (keyspace.name(), bytes)).collect(),
            journal_bytes: self.sizes.journal,
            found: self.found,
            commits: self.commits,
            commits_per_s: self.rate.per_s(),
            batches: self.batches,
            ops: self.ops,
            keys: self.keys,
            commit_latency: latency(&self.commit_us),
            sync_latency: latency(&self.sync_us),
            cut: self.cut,
            damaged_values: self.damage_read.values + self.damage_written.values,
            damaged_counts: self.damage_read.counts + self.damage_written.counts,
        }
    }
}

/// Events per second, by two halves of a window: the one before and the one under way.
#[derive(Default)]
struct Rate {
    window: Option<Window>,
    before: Option<f64>,
}

struct Window {
    since: std::time::Instant,
    count: u32,
}

impl Rate {
    fn note(&mut self) {
        let now = std::time::Instant::now();
        let window = self.window.get_or_insert(Window { since: now, count: 0 });
        let lasted = now.duration_since(window.since);
        if lasted >= RATE_WINDOW {
            self.before = Some(f64::from(window.count) / lasted.as_secs_f64());
            *window = Window { since: now, count: 0 };
        }
        window.count += 1;
    }

    fn per_s(&self) -> f64 {
        let Some(window) = &self.window else { return 0.0 };
        let lasted = window.since.elapsed();
        let current = f64::from(window.count) / lasted.as_secs_f64().max(0.001);
        if lasted.as_secs() >= 1 { current } else { self.before.unwrap_or(current) }
    }
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    Latency {
        count: histogram.len(),
        p50_us: histogram.value_at_quantile(0.5),
        p99_us: histogram.value_at_quantile(0.99),
        p999_us: histogram.value_at_quantile(0.999),
        max_us: histogram.max(),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
