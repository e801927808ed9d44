//! The way to a shard, for a thread that must not wait and for threads that may.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, TrySendError};
use shard::storage::StoreReply;

use super::ShardOutlet;
use super::shared::Shared;

/// How long a thread waits for a shard to read before it looks whether the store is closing.
const WAIT: Duration = Duration::from_millis(50);

/// The writer's end: never waits. Of `Committed` only the newest matters.
pub(super) struct WriterOutlet {
    outlet: ShardOutlet,
    unsent: VecDeque<StoreReply>,
    committed: Option<u64>,
}

impl WriterOutlet {
    pub(super) fn new(outlet: ShardOutlet) -> Self {
        Self { outlet, unsent: VecDeque::new(), committed: None }
    }

    /// Goes out with the next flush, in order. Bounded, because a shard hands over nothing more before it has read that
    /// its batches are committed, and that comes after.
    pub(super) fn push(&mut self, reply: StoreReply) {
        self.unsent.push_back(reply);
    }

    pub(super) fn commit(&mut self, sequence: u64) {
        self.committed = Some(sequence);
    }

    /// Sends what the channel takes. Says whether that was all.
    pub(super) fn flush(&mut self) -> bool {
        let mut has_sent = false;
        let mut is_all = true;
        loop {
            let (reply, is_committed) = match (self.unsent.pop_front(), self.committed) {
                (Some(reply), _) => (reply, false),
                (None, Some(sequence)) => (StoreReply::Committed { sequence }, true),
                (None, None) => break,
            };
            match self.outlet.replies.try_send(reply) {
                Ok(()) => has_sent = true,
                Err(TrySendError::Full(reply)) => {
                    if !is_committed {
                        self.unsent.push_front(reply);
                    }
                    is_all = false;
                    break;
                }
                // The shard has ended; nobody will read.
                Err(TrySendError::Disconnected(_)) => {}
            }
            if is_committed {
                self.committed = None;
            }
        }
        if has_sent {
            (self.outlet.doorbell)();
        }
        is_all
    }
}

/// Sends a reply and waits until the shard takes it. Says `false` when the store is closing or the shard has ended.
pub(super) fn send(outlet: &ShardOutlet, mut reply: StoreReply, shared: &Shared) -> bool {
    while !shared.is_closing() {
        match outlet.replies.send_timeout(reply, WAIT) {
            Ok(()) => {
                (outlet.doorbell)();
                return true;
            }
            Err(SendTimeoutError::Timeout(back)) => {
                // It may have been rung for what was there before this came.
                (outlet.doorbell)();
                reply = back;
            }
            Err(SendTimeoutError::Disconnected(_)) => return false,
        }
    }
    false
}
