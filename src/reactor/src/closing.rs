//! How connections end.
//!
//! A slot is closed only when no receive, send or shutdown of it is in flight: a close in between would let a late
//! operation hit the slot's next user.

use io_uring::opcode;
use shard::{CloseMode, ConnectionId};

use crate::core::Core;
use crate::counters::ReactorCounter;
use crate::driver::Driver;
use crate::ops::{Op, Tag};
use crate::slots::{ENDED, FILTERED, Phase, SENDING, SHUTTING, UNKNOWN};

/// `SHUT_WR`: we send no more.
const SHUT_WRITE: i32 = libc::SHUT_WR;

impl<C: Core> Driver<C> {
    /// The shard wants a connection closed.
    pub(crate) fn close(&mut self, core: &mut C, id: ConnectionId, mode: CloseMode) {
        let Some(slot) = self.slots.live(id) else { return };
        // Layers whose peer has said goodbye still have their answer to send.
        let is_answering =
            slot.has(FILTERED) && !slot.has(ENDED) && self.filters.has_last_word(id.index);
        let mode = if is_answering { CloseMode::Linger } else { mode };
        let Some(slot) = self.slots.live(id) else { return };
        match (slot.phase, mode) {
            (Phase::Open, CloseMode::Linger) => {
                slot.phase = Phase::LingerSend;
                let sending = slot.has(SENDING);
                let until_ms = self.now.mono_ms + self.settings.linger_send_ms;
                self.linger_sends.push_back((until_ms, id));
                if sending {
                    self.again = true;
                } else {
                    self.linger_on(core, id);
                }
            }
            (
                Phase::Open | Phase::LingerSend | Phase::LingerDrain | Phase::Moving,
                CloseMode::Now,
            )
            | (Phase::Moving, CloseMode::Linger) => self.abort(core, id.index),
            // It is being closed, or passed on, already.
            _ => {}
        }
    }

    /// Sends what a lingering connection still has; when all is sent, shuts our side and waits for the peer's.
    pub(crate) fn linger_on(&mut self, core: &mut C, id: ConnectionId) {
        if self.send_next(core, id) {
            return;
        }
        let slot = self.slots.get(id.index).expect("a lingering connection has its slot");
        if slot.has(FILTERED) && self.say_goodbye(core, id) {
            return;
        }
        let slot = self.slots.get(id.index).expect("a lingering connection has its slot");
        if slot.has(ENDED) {
            self.abort(core, id.index);
            return;
        }
        slot.phase = Phase::LingerDrain;
        slot.set(SHUTTING);
        let entry = opcode::Shutdown::new(self.lanes.fixed(id.index), SHUT_WRITE).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.lanes.push(id.index, &entry.user_data(Tag::of(Op::Shutdown, id).0)) };
        let until_ms = self.now.mono_ms + self.settings.linger_drain_ms;
        self.linger_drains.push_back((until_ms, id));
        self.arm_receive(id.index);
    }

    /// A shutdown completed; that it failed only means that the peer was faster.
    pub(crate) fn on_shutdown(&mut self, core: &mut C, tag: Tag) {
        self.lanes.completed(tag.index());
        let slot =
            self.slots.get(tag.index()).expect("a shutdown is in flight for used slots only");
        slot.clear(SHUTTING);
        self.settle(core, tag.index());
    }

    /// Ends what is in flight, then closes.
    pub(crate) fn abort(&mut self, core: &mut C, index: u32) {
        let slot = self.slots.get(index).expect("a connection that is closed has its slot");
        if slot.phase == Phase::Moving {
            let place = slot.tick_bytes;
            self.moves.forget(place);
        }
        slot.phase = Phase::Abort;
        if slot.has(SENDING) {
            let tag = Tag::new(Op::Send, slot.generation, index);
            self.cancel(tag);
            // If it is an eager one nothing will tell of its end.
            self.again = true;
        }
        self.cancel_receive(index);
        self.settle(core, index);
    }

    /// Goes on with a connection that waited until nothing of it is in flight.
    pub(crate) fn settle(&mut self, core: &mut C, index: u32) {
        let Some(slot) = self.slots.get(index) else { return };
        if !slot.is_quiet() {
            return;
        }
        match slot.phase {
            Phase::Abort => self.submit_close(index),
            Phase::Moving => self.pass_on(core, index),
            _ => {}
        }
    }

    /// Submits the close of a slot of which nothing is in flight.
    pub(crate) fn submit_close(&mut self, index: u32) {
        let slot = self.slots.get(index).expect("a slot that is closed was used");
        assert!(slot.is_quiet(), "a slot is closed only when nothing of it is in flight");
        slot.phase = Phase::Closing;
        let tag = Tag::new(Op::Close, slot.generation, index);
        let entry = opcode::Close::new(self.lanes.fixed(index)).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.lanes.push(index, &entry.user_data(tag.0)) };
    }

    /// The close of a slot completed.
    pub(crate) fn on_close(&mut self, core: &mut C, tag: Tag, result: i32) {
        self.lanes.completed(tag.index());
        if result < 0 {
            log::error!(
                "shard {}: closing slot {} failed: errno {}",
                self.id,
                tag.index(),
                -result
            );
        }
        self.reclaim(core, tag.index());
    }

    /// Frees a slot whose close was submitted. The kernel may give the slot to a new connection and tell us of that
    /// before it tells of the close; so this is called by both, and whoever comes second finds nothing to do.
    pub(crate) fn reclaim(&mut self, core: &mut C, index: u32) {
        let Some(slot) = self.slots.get(index).filter(|slot| slot.phase == Phase::Closing) else {
            return;
        };
        let known = !slot.has(UNKNOWN);
        if slot.has(FILTERED) {
            self.filters.take(index);
        }
        self.slots.free(index);
        if self.lanes.freed(index) {
            self.choose_lane();
        }
        if known {
            core.closed(index);
        }
    }

    /// Ends lingering that took too long.
    pub(crate) fn run_linger_timers(&mut self, core: &mut C) {
        while let Some(id) = pop_due(&mut self.linger_sends, self.now.mono_ms) {
            self.stop_lingering(core, id, Phase::LingerSend);
        }
        while let Some(id) = pop_due(&mut self.linger_drains, self.now.mono_ms) {
            self.stop_lingering(core, id, Phase::LingerDrain);
        }
    }

    /// Aborts a connection that is still in this phase of lingering.
    fn stop_lingering(&mut self, core: &mut C, id: ConnectionId, phase: Phase) {
        if self.slots.live(id).is_some_and(|slot| slot.phase == phase) {
            self.counters.add(ReactorCounter::LingerTimeouts, 1);
            self.abort(core, id.index);
        }
    }
}

/// Deadlines of one length, so in order.
pub(crate) type Deadlines = std::collections::VecDeque<(u64, ConnectionId)>;

/// Takes the first that is due.
fn pop_due(deadlines: &mut Deadlines, now_ms: u64) -> Option<ConnectionId> {
    let (_, id) = *deadlines.front().filter(|(until_ms, _)| *until_ms <= now_ms)?;
    deadlines.pop_front();
    if deadlines.is_empty() && deadlines.capacity() > 1024 {
        // Many were closed at once; it need not be kept.
        *deadlines = Deadlines::new();
    }
    Some(id)
}
