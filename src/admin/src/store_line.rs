//! The rows of the `store` commands.

use node::{StoreBackup, StoreHealth, StoreInfo, StoreLatency};
use serde::{Deserialize, Serialize};

/// Latencies, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyLine {
    /// How many were measured.
    pub count: u64,
    /// Half were at most this.
    pub p50_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// 999 of 1,000.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl From<StoreLatency> for LatencyLine {
    fn from(latency: StoreLatency) -> LatencyLine {
        let StoreLatency { count, p50_us, p99_us, p999_us, max_us } = latency;
        LatencyLine { count, p50_us, p99_us, p999_us, max_us }
    }
}

/// What there was at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundLine {
    /// Sessions.
    pub sessions: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Retained messages.
    pub retained: u64,
    /// Delayed messages.
    pub delayed: u64,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreLine {
    /// `good` or `failing`.
    pub health: String,
    /// The last error of a write or sync, also if it is over.
    pub last_error: Option<String>,
    /// The version of its format.
    pub format: u32,
    /// What was there at the start; none while it is being read.
    pub found: Option<FoundLine>,
    /// Writes of all batches that waited.
    pub commits: u64,
    /// In the last seconds.
    pub commits_per_s: f64,
    /// Batches of shards in them.
    pub batches: u64,
    /// Changes the shards asked for.
    pub changes: u64,
    /// Keys that were written or removed for them.
    pub keys: u64,
    /// Of commits, with their sync where they have one.
    pub commit: LatencyLine,
    /// Of syncs.
    pub sync: LatencyLine,
    /// Bytes of the journal on disk.
    pub journal_bytes: u64,
    /// Bytes on disk by keyspace.
    pub keyspaces: Vec<(String, u64)>,
    /// Bytes cut off at the start: a write that a crash had left unfinished.
    pub cut_bytes: u64,
    /// Whole writes among them; nobody was told that they were kept.
    pub cut_writes: u64,
    /// Values that were damaged and left out.
    pub damaged_values: u64,
    /// Counts of uses that did not fit.
    pub damaged_counts: u64,
}

impl From<StoreInfo> for StoreLine {
    fn from(info: StoreInfo) -> StoreLine {
        let health = match info.health {
            StoreHealth::Good => "good",
            StoreHealth::Failing => "failing",
        };
        let keyspaces = info.keyspaces.into_iter();
        StoreLine {
            health: health.to_owned(),
            last_error: info.last_error,
            format: info.format,
            found: info.found.map(|found| FoundLine {
                sessions: found.sessions,
                subscriptions: found.subscriptions,
                retained: found.retained,
                delayed: found.delayed,
            }),
            commits: info.commits,
            commits_per_s: info.commits_per_s,
            batches: info.batches,
            changes: info.ops,
            keys: info.keys,
            commit: info.commit_latency.into(),
            sync: info.sync_latency.into(),
            journal_bytes: info.journal_bytes,
            keyspaces: keyspaces.map(|(name, bytes)| (name.to_owned(), bytes)).collect(),
            cut_bytes: info.cut.bytes,
            cut_writes: info.cut.writes,
            damaged_values: info.damaged_values,
            damaged_counts: info.damaged_counts,
        }
    }
}

/// A backup that was written, or staged to be taken over at the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupLine {
    /// Keys with their values.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

impl From<StoreBackup> for BackupLine {
    fn from(backup: StoreBackup) -> BackupLine {
        BackupLine { records: backup.records, bytes: backup.bytes }
    }
}
