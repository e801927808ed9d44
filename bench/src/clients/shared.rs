//! What the threads of a run share, and what they hand back.

use super::{Failure, Tracks};
use crate::plan::{Plan, Shape};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Longest latency that is told apart, in nanoseconds.
const LATENCY_MAX_NS: u64 = 120_000_000_000;
/// Number of histograms of latencies; what goes into the first is thrown away.
pub const SLOTS: usize = 3;

/// Counters of one thread that the leading thread reads while it runs. Only their thread writes them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Clients that are ready now.
    pub ready: AtomicU64,
    /// Clients that have failed for good, before or after they were ready.
    pub failed: AtomicU64,
    /// Messages whose time had come.
    pub offered: AtomicU64,
    /// Messages handed to the kernel or about to be.
    pub sent: AtomicU64,
    /// Messages received.
    pub delivered: AtomicU64,
    /// When the last client became ready.
    pub last_ready_ns: AtomicU64,
    /// Times that all clients were lost.
    pub storms: AtomicU64,
    /// Clients that were ready when they were lost.
    pub lost: AtomicU64,
    /// Churn: clients whose time had come, that began, that were through, and that failed.
    pub churn: [AtomicU64; 4],
    /// Handshakes of TLS and WebSocket: full ones, and those of TLS by a ticket.
    pub handshakes: [AtomicU64; 2],
}

/// Adds to a counter that only this thread writes.
#[inline]
pub fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}

/// What the threads of a run share.
#[derive(Debug)]
pub struct Shared {
    /// The histogram that latencies go into: 0 is thrown away.
    pub slot: AtomicU8,
    /// Of each thread.
    pub counters: Vec<Counters>,
    /// Deliveries of each publisher's messages: the window of flat-out runs.
    pub arrived: Vec<AtomicU64>,
    /// What was heard of each publisher, where many hear for one another.
    tracks: Mutex<Tracks>,
    failures: Mutex<BTreeMap<Failure, u64>>,
    reports: Mutex<Vec<Report>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// For `plan`; flat out or not.
    pub fn new(plan: &Plan, flat: bool) -> Shared {
        let publishers = usize::try_from(plan.counts.publishers).expect("u32 fits");
        let tracks = if plan.shape == Shape::Shared { publishers } else { 0 };
        Shared {
            slot: AtomicU8::new(0),
            counters: (0..plan.threads).map(|_| Counters::default()).collect(),
            arrived: (0..if flat { publishers } else { 0 }).map(|_| AtomicU64::new(0)).collect(),
            tracks: Mutex::new(Tracks::new(tracks)),
            failures: Mutex::default(),
            reports: Mutex::default(),
        }
    }

    /// One counter over all threads.
    pub fn sum(&self, pick: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.counters.iter().map(|counters| pick(counters).load(Relaxed)).sum()
    }

    /// When the last client of all became ready.
    pub fn last_ready_ns(&self) -> u64 {
        self.counters.iter().map(|c| c.last_ready_ns.load(Relaxed)).max().unwrap_or(0)
    }

    /// The common tracks.
    pub fn tracks(&self) -> MutexGuard<'_, Tracks> {
        lock(&self.tracks)
    }

    /// Counts a failed client.
    pub fn count(&self, failure: Failure) {
        *lock(&self.failures).entry(failure).or_default() += 1;
    }

    /// The failures so far.
    pub fn failures(&self) -> BTreeMap<Failure, u64> {
        lock(&self.failures).clone()
    }

    /// The failures so far, as text.
    pub fn failures_by_text(&self) -> BTreeMap<String, u64> {
        lock(&self.failures).iter().map(|(why, count)| (why.text(), *count)).collect()
    }

    /// A thread's part is done.
    pub fn hand_in(&self, report: Report) {
        lock(&self.reports).push(report);
    }

    /// All that was handed in, as one.
    pub fn report(&self) -> Report {
        let mut sum = Report::default();
        for report in lock(&self.reports).drain(..) {
            sum.add(&report);
        }
        sum
    }
}

/// What a thread hands back.
#[derive(Debug)]
pub struct Report {
    /// Latencies in nanoseconds by slot: of messages, and of churning clients.
    pub latency: [Histogram<u64>; SLOTS],
    /// From connect to SUBACK (or CONNACK without a subscription), nanoseconds: at first, and after a storm.
    pub connect: [Histogram<u64>; 2],
    /// From connect to the end of the handshakes of TLS and WebSocket, nanoseconds.
    pub handshake: Histogram<u64>,
    /// Messages heard twice.
    pub duplicates: u64,
    /// Messages heard after a later one.
    pub reordered: u64,
    /// Messages that are none of this run.
    pub foreign: u64,
    /// PINGREQ sent and PINGRESP received.
    pub pings: [u64; 2],
}

impl Default for Report {
    fn default() -> Report {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("bounds are constant and valid")
        };
        Report {
            latency: [histogram(), histogram(), histogram()],
            connect: [histogram(), histogram()],
            handshake: histogram(),
            duplicates: 0,
            reordered: 0,
            foreign: 0,
            pings: [0; 2],
        }
    }
}

impl Report {
    fn add(&mut self, from: &Report) {
        let histograms = self.latency.iter_mut().chain(&mut self.connect);
        for (to, from) in histograms.zip(from.latency.iter().chain(&from.connect)) {
            to.add(from).expect("all histograms have the same bounds");
        }
        self.handshake.add(&from.handshake).expect("all histograms have the same bounds");
        self.duplicates += from.duplicates;
        self.reordered += from.reordered;
        self.foreign += from.foreign;
        for (to, from) in self.pings.iter_mut().zip(from.pings) {
            *to += from;
        }
    }
}
