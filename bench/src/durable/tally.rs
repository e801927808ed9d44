//! What the thread of a durable scenario tells while it runs, and what it hands back.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use crate::clients::add;

/// Longest time that is told apart, in nanoseconds.
const TIME_MAX_NS: u64 = 3_600_000_000_000;

/// Counters that the thread writes and the leading thread reads.
#[derive(Debug, Default)]
pub struct Tally {
    /// The histogram of acknowledgements: 0 is thrown away.
    pub slot: AtomicU8,
    /// Publishers that are connected.
    pub publishers: AtomicU64,
    /// Sessions that were made, discarded, or that have come back and got all, since the begin of the run.
    pub through: AtomicU64,
    /// Sessions the broker did not know any more.
    pub sessions_missing: AtomicU64,
    /// Messages handed to connections.
    pub sent: AtomicU64,
    /// Messages the broker has answered.
    pub answered: AtomicU64,
    /// Those of them that it has refused.
    pub refused: AtomicU64,
    /// Messages heard, each once.
    pub heard: AtomicU64,
    /// Messages heard again.
    pub repeated: AtomicU64,
    /// Messages that were skipped.
    pub lost: AtomicU64,
    /// Messages that were not for whom they came to.
    pub foreign: AtomicU64,
    /// The watcher is through.
    pub watched: AtomicU64,
    /// When the last session was through, or the last message acknowledged.
    pub last_ns: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
    found: Mutex<Found>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    /// Counts a client that failed.
    pub fn count(&self, reason: String) {
        *lock(&self.failures).entry(reason).or_default() += 1;
    }

    /// Why clients failed.
    pub fn failures(&self) -> BTreeMap<String, u64> {
        lock(&self.failures).clone()
    }

    /// The thread is done.
    pub fn hand_in(&self, found: Found) {
        *lock(&self.found) = found;
    }

    /// What it has handed in.
    pub fn found(&self) -> Found {
        std::mem::take(&mut lock(&self.found))
    }
}

/// Times, in nanoseconds.
#[derive(Debug)]
pub struct Found {
    /// From a message's way into the connection to its acknowledgement (QoS 2: PUBCOMP), by slot.
    pub acknowledged: [Histogram<u64>; 2],
    /// From connect to SUBACK.
    pub created: Histogram<u64>,
    /// From connect to the last message.
    pub returned: Histogram<u64>,
    /// From SUBSCRIBE to the last retained message.
    pub retained: Histogram<u64>,
}

impl Default for Found {
    fn default() -> Found {
        let histogram = || {
            Histogram::new_with_bounds(1, TIME_MAX_NS, 3).expect("bounds are constant and valid")
        };
        Found {
            acknowledged: [histogram(), histogram()],
            created: histogram(),
            returned: histogram(),
            retained: histogram(),
        }
    }
}
