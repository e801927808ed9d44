//! What other threads see of a running store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shard::Ban;

use super::StoreStage;
use crate::StoreError;
use crate::info::{Gauges, StoreInfo};

pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    gauges: Mutex<Gauges>,
    /// The bans that were there at the start, when they are known and until they are taken.
    bans: Mutex<Vec<Ban>>,
    /// The threads that wait for a shard to read are to give up.
    is_closing: AtomicBool,
}

struct State {
    stage: StoreStage,
    failure: Option<StoreError>,
    is_over: bool,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State { stage: StoreStage::Opening, failure: None, is_over: false }),
            changed: Condvar::new(),
            gauges: Mutex::new(Gauges::new()),
            bans: Mutex::default(),
            is_closing: AtomicBool::new(false),
        }
    }

    pub(super) fn stage(&self) -> StoreStage {
        lock(&self.state).stage
    }

    pub(super) fn reach(&self, stage: StoreStage) {
        lock(&self.state).stage = stage;
        self.changed.notify_all();
    }

    pub(super) fn fail(&self, error: StoreError) {
        let mut state = lock(&self.state);
        state.is_over = true;
        state.failure.get_or_insert(error);
        self.changed.notify_all();
    }

    pub(super) fn wait_for(
        &self,
        stage: StoreStage,
        timeout: Duration,
    ) -> Result<StoreStage, StoreError> {
        let deadline = Instant::now() + timeout;
        let mut state = lock(&self.state);
        loop {
            if state.is_over {
                return Err(state.failure.take().unwrap_or(StoreError::Closed));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.stage as u8 >= stage as u8 || left.is_zero() {
                return Ok(state.stage);
            }
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn found_bans(&self, bans: &[Ban]) {
        *lock(&self.bans) = bans.to_vec();
    }

    pub(super) fn take_bans(&self) -> Vec<Ban> {
        std::mem::take(&mut *lock(&self.bans))
    }

    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    pub(super) fn gauges(&self) -> MutexGuard<'_, Gauges> {
        lock(&self.gauges)
    }

    pub(super) fn info(&self) -> StoreInfo {
        self.gauges().info()
    }
}

/// A thread that panicked while it held a lock leaves plain values behind, which are still true.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
