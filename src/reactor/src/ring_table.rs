//! The rings of all shards: who rings whom, and how shards start and end together.
//!
//! A ring must be there before anyone rings it and must stay until nobody does any more. So no shard begins its first
//! tick before all rings are up, and no shard drops its ring before all have ended.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ring::ShardId;

use crate::filters::Filtered;

/// A shard could not be started, so none was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, displaydoc::Display)]
pub enum StartError {
    /// shard {0} could not be started: {1}
    Shard(ShardId, String),
}

/// How far the shards are.
#[derive(Debug, Default)]
struct Progress {
    up: usize,
    ended: usize,
    failed: Option<StartError>,
}

/// The table; one for all shards.
#[derive(Debug)]
pub struct RingTable {
    fds: Box<[AtomicI32]>,
    /// The ring of each shard whose table new connections go to.
    arrivals: Box<[AtomicI32]>,
    progress: Mutex<Progress>,
    changed: Condvar,
    /// Filters of connections on their way to another shard, by the token of the hand-over.
    filters: Mutex<HashMap<u64, Box<Filtered>>>,
    /// How many; most brokers have none.
    filters_count: AtomicUsize,
}

impl RingTable {
    /// A table for so many shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            fds: (0..shards).map(|_| AtomicI32::new(-1)).collect(),
            arrivals: (0..shards).map(|_| AtomicI32::new(-1)).collect(),
            progress: Mutex::default(),
            changed: Condvar::new(),
            filters: Mutex::default(),
            filters_count: AtomicUsize::new(0),
        }
    }

    /// Waits until every shard is up.
    ///
    /// # Errors
    /// The first shard's that failed; all others end without a tick.
    pub fn wait_up(&self) -> Result<(), StartError> {
        let mut progress = self.lock();
        loop {
            if let Some(error) = &progress.failed {
                return Err(error.clone());
            }
            if progress.up == self.fds.len() {
                return Ok(());
            }
            progress =
                self.changed.wait(progress).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// A shard's ring is up.
    pub(crate) fn up(&self, shard: ShardId, fd: RawFd) {
        self.set_arrivals(shard, fd);
        let before = self.fds[shard.index()].swap(fd, Ordering::Release);
        assert_eq!(before, -1, "a shard has one ring");
        self.lock().up += 1;
        self.changed.notify_all();
    }

    /// A shard could not be started.
    pub(crate) fn failed(&self, shard: ShardId, reason: String) {
        self.lock().failed.get_or_insert(StartError::Shard(shard, reason));
        self.changed.notify_all();
    }

    /// Connections of other shards go to this ring of the shard from now on. It stays until all shards have ended.
    pub(crate) fn set_arrivals(&self, shard: ShardId, fd: RawFd) {
        self.arrivals[shard.index()].store(fd, Ordering::Release);
    }

    /// The descriptor of the ring a shard takes connections with.
    pub(crate) fn arrivals_fd(&self, shard: ShardId) -> RawFd {
        let fd = self.arrivals[shard.index()].load(Ordering::Acquire);
        assert!(fd >= 0, "all rings are up before the first tick");
        fd
    }

    /// Leaves a filter for the shard its connection moves to; before the descriptor is sent.
    pub(crate) fn put_filter(&self, token: u64, filter: Box<Filtered>) {
        let mut filters = self.filters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = filters.insert(token, filter);
        assert!(before.is_none(), "a token is used for one hand-over at a time");
        self.filters_count.store(filters.len(), Ordering::Release);
    }

    /// Takes the filter that came with a descriptor, if one did.
    pub(crate) fn take_filter(&self, token: u64) -> Option<Box<Filtered>> {
        if self.filters_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut filters = self.filters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let filter = filters.remove(&token);
        self.filters_count.store(filters.len(), Ordering::Release);
        filter
    }

    /// The descriptor of the ring a shard waits in.
    #[inline]
    pub(crate) fn fd(&self, shard: ShardId) -> RawFd {
        let fd = self.fds[shard.index()].load(Ordering::Relaxed);
        assert!(fd >= 0, "all rings are up before the first tick");
        fd
    }

    /// A shard has ended; waits, for a bounded time, until all have.
    pub(crate) fn end(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut progress = self.lock();
        progress.ended += 1;
        self.changed.notify_all();
        while progress.ended < self.fds.len() && progress.failed.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            progress = self
                .changed
                .wait_timeout(progress, left)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
    }

    /// The progress; a panic elsewhere while it was locked leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
