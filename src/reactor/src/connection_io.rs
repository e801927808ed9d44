//! Receiving and sending of one connection.
//!
//! One multishot receive and one send at most are in flight per connection. Bytes are handed to the shard in place, in
//! order. A connection that has used up its share of a tick, or is at its TLS handshake, is *held*: what still comes for it waits
//! in its buffers for the next tick, and its receive is ended until then (at a handshake when more than one buffer has come), so what
//! waits is bounded. Ends of receives have a number of their own per tick.

use std::collections::VecDeque;

use io_uring::{cqueue, opcode, squeue};
use shard::{ConnectionId, GENERATION_MASK, Outgoing, ReceiveEnd};

use crate::buffers;
use crate::core::Core;
use crate::counters::ReactorCounter;
use crate::driver::Driver;
use crate::ops::{Op, Tag};
use crate::sends::{EAGER_BYTES_MAX, Progress};
use crate::slots::{
    ARMED, CANCELLING, ENDED, FILTERED, FLUSH_DUE, HELD, NONE, PAUSED, Phase, SENDING, STARTED,
    STARVED, Slot,
};

/// Buffers for each receive that is armed while others starve.
const BUFFERS_PER_STARVED: usize = 4;
/// Ends of receives handled in one tick: each makes the shard leave a client and the kernel close a socket, 10 to 20 microseconds.
/// When thousands are cut off at once the others do not wait for all of them.
const TICK_ENDS_MAX: usize = 8;
/// Completions of a tick above which they come in crowds: while they do, one end is handled for so many, as who is still there has
/// its bytes somewhere among them.
const COMPLETIONS_PER_END: usize = 32;

/// Something of a held connection that waits for the next tick.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Held {
    /// Received bytes.
    Bytes {
        /// Whose.
        id: ConnectionId,
        /// In which buffer.
        buffer: u16,
        /// How many.
        len: u32,
    },
    /// The end of the receive.
    End {
        /// Whose.
        id: ConnectionId,
        /// Why.
        end: ReceiveEnd,
    },
}

impl Held {
    /// Whose it is.
    pub(crate) const fn id(&self) -> ConnectionId {
        match self {
            Self::Bytes { id, .. } | Self::End { id, .. } => *id,
        }
    }
}

impl<C: Core> Driver<C> {
    /// The shard wants to receive from a connection, or to receive again.
    pub(crate) fn start_receive(&mut self, id: ConnectionId) {
        let Some(slot) = self.slots.live(id) else { return };
        slot.set(STARTED);
        slot.clear(PAUSED);
        self.arm_receive(id.index);
    }

    /// The shard wants no bytes for now. What comes before the kernel has stopped is still handed in.
    pub(crate) fn pause_receive(&mut self, id: ConnectionId) {
        let Some(slot) = self.slots.live(id) else { return };
        slot.set(PAUSED);
        self.cancel_receive(id.index);
    }

    /// Arms the receive at the end of the tick, if one is wanted and none is armed then.
    pub(crate) fn arm_receive(&mut self, index: u32) {
        let Some(slot) = self.slots.get(index) else { return };
        if slot.wants_receive() {
            let id = ConnectionId { index, generation: slot.generation & GENERATION_MASK };
            self.to_arm.push(id);
        }
    }

    /// Arms a receive that is wanted.
    fn arm_now(&mut self, index: u32) {
        let slot = self.slots.get(index).expect("checked by the caller");
        slot.set(ARMED);
        let tag = Tag::new(Op::Receive, slot.generation, index);
        let entry = opcode::RecvMulti::new(self.lanes.fixed(index), buffers::GROUP).build();
        // SAFETY: the entry points to no memory; the kernel picks buffers of the registered group.
        unsafe { self.lanes.push(index, &entry.user_data(tag.0)) };
    }

    /// Tells an armed receive to end.
    pub(crate) fn cancel_receive(&mut self, index: u32) {
        let Some(slot) = self.slots.get(index) else { return };
        if slot.has(ARMED) && !slot.has(CANCELLING) {
            slot.set(CANCELLING);
            let tag = Tag::new(Op::Receive, slot.generation, index);
            self.cancel(tag);
        }
    }

    /// Cancels the operation with this tag on a connection; its own completion tells when it has ended.
    pub(crate) fn cancel(&mut self, tag: Tag) {
        let entry = opcode::AsyncCancel::new(tag.0)
            .build()
            .user_data(Tag::new(Op::Ignored, 0, 0).0)
            .flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: the entry points to no memory.
        unsafe { self.lanes.push_uncounted(tag.index(), &entry) };
    }

    /// A receive gave bytes, or ended.
    #[inline]
    pub(crate) fn on_receive(&mut self, core: &mut C, tag: Tag, result: i32, flags: u32) {
        let id = tag.connection();
        let buffer = cqueue::buffer_select(flags);
        let ended = !cqueue::more(flags);
        if ended {
            self.lanes.completed(id.index);
        }
        let slot = self.slots.get(id.index).expect("a receive is in flight for used slots only");
        assert_eq!(
            slot.generation & GENERATION_MASK,
            id.generation,
            "a slot is not freed while its receive is in flight"
        );
        if ended {
            slot.clear(ARMED | CANCELLING);
        }
        match (u32::try_from(result), buffer) {
            (Ok(len @ 1..), Some(buffer)) => self.take_bytes(core, id, buffer, len),
            (Ok(_), buffer) => {
                if let Some(buffer) = buffer {
                    self.lanes.buffers(id.index).release(buffer);
                }
                self.take_end(core, id, ReceiveEnd::PeerClosed);
            }
            (Err(_), _) => match -result {
                libc::ENOBUFS => self.starve(id),
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                errno => self.take_end(core, id, ReceiveEnd::Failed(errno)),
            },
        }
        if ended {
            self.arm_receive(id.index);
            self.settle(core, id.index);
        }
    }

    /// All buffers were in use, so the receive of a connection that has bytes ended. Many more connections than buffers may be
    /// in this state: arming all of them again at once would end nearly all of them again.
    fn starve(&mut self, id: ConnectionId) {
        self.counters.add(ReactorCounter::ReceiveNoBuffers, 1);
        let slot = self.slots.get(id.index).expect("checked by the caller");
        if !slot.has(STARVED) {
            slot.set(STARVED);
            let lane = self.lanes.of(id.index);
            self.lanes.at(lane).starved.push_back(id);
        }
    }

    /// Arms what is to be armed. Starved connections first, in the order they came: those that send much would take all buffers
    /// before them at each enter. Of each lane part of its number of buffers, as one receive may take several; the others wait
    /// behind them.
    pub(crate) fn arm_receives(&mut self) {
        for lane in 0..self.lanes.count() {
            if self.lanes.at(lane).starved.is_empty() {
                continue;
            }
            let most = (self.lanes.at(lane).buffers.count() / BUFFERS_PER_STARVED).max(1);
            for _ in 0..most {
                let Some(id) = self.lanes.at(lane).starved.pop_front() else { break };
                if let Some(slot) = self.slots.get(id.index).filter(|slot| {
                    slot.generation & GENERATION_MASK == id.generation && slot.has(STARVED)
                }) {
                    slot.clear(STARVED);
                    if slot.wants_receive() {
                        self.arm_now(id.index);
                    }
                }
            }
        }
        for place in 0..self.to_arm.len() {
            let id = self.to_arm[place];
            let is_same = |slot: &&mut Slot| slot.generation & GENERATION_MASK == id.generation;
            let Some(slot) = self.slots.get(id.index).filter(is_same) else { continue };
            if !slot.wants_receive() {
                continue;
            }
            let lane = self.lanes.of(id.index);
            if self.lanes.at(lane).starved.is_empty() {
                self.arm_now(id.index);
            } else {
                slot.set(STARVED);
                self.lanes.at(lane).starved.push_back(id);
            }
        }
        self.to_arm.clear();
        for lane in 0..self.lanes.count() {
            // One that has gone in the meantime must not keep the others waiting.
            self.again |= !self.lanes.at(lane).starved.is_empty();
        }
    }

    /// Bytes came: hand them in, keep them for the next tick, or drop them.
    #[inline]
    fn take_bytes(&mut self, core: &mut C, id: ConnectionId, buffer: u16, len: u32) {
        let slot = self.slots.get(id.index).expect("checked by the caller");
        match slot.phase {
            Phase::Open => {
                let share_used =
                    slot.tick == self.tick && slot.tick_bytes >= self.settings.tick_bytes_max;
                let (is_held, is_filtered) = (slot.has(HELD) || share_used, slot.has(FILTERED));
                if is_held {
                    self.hold(id, Held::Bytes { id, buffer, len });
                } else if is_filtered && self.is_handshaking(id.index) {
                    // Whatever else came is handled and answered before it: see `release_held`.
                    let is_behind = u64::from(self.filters.waiting > 0);
                    self.counters.add(ReactorCounter::HandshakesQueued, is_behind);
                    self.filters.waiting += 1;
                    self.slots.get(id.index).expect("it is open").set(HELD);
                    self.held.push_back(Held::Bytes { id, buffer, len });
                } else {
                    self.hand_in(core, id, buffer, len);
                }
            }
            Phase::Moving => self.hand_in(core, id, buffer, len),
            _ => self.lanes.buffers(id.index).release(buffer),
        }
    }

    /// Gives bytes to the shard and the buffer back.
    #[inline]
    fn hand_in(&mut self, core: &mut C, id: ConnectionId, buffer: u16, len: u32) {
        let tick = self.tick;
        let slot = self.slots.get(id.index).expect("checked by the caller");
        let is_filtered = slot.has(FILTERED);
        if slot.phase == Phase::Open {
            // What it took beyond its share counts against the next.
            let share = self.settings.tick_bytes_max;
            let debt = slot.tick_bytes.saturating_sub(share).min(share);
            let before = if slot.tick == tick { slot.tick_bytes } else { debt };
            slot.tick = tick;
            slot.tick_bytes = before.saturating_add(len);
        }
        if is_filtered {
            return self.hand_in_filtered(core, id, buffer, len);
        }
        core.received(id, self.lanes.buffers(id.index).received(buffer, len));
        self.lanes.buffers(id.index).release(buffer);
    }

    /// No more bytes will come.
    fn take_end(&mut self, core: &mut C, id: ConnectionId, end: ReceiveEnd) {
        let slot = self.slots.get(id.index).expect("checked by the caller");
        slot.set(ENDED);
        match slot.phase {
            Phase::Open if slot.has(HELD) => self.held.push_back(Held::End { id, end }),
            Phase::Open | Phase::LingerDrain => self.end_soon(core, id, end),
            // A connection that moves meets its end again on its new shard.
            _ => {}
        }
    }

    /// Handles the end of a receive, now if this tick has time for it.
    pub(crate) fn end_soon(&mut self, core: &mut C, id: ConnectionId, end: ReceiveEnd) {
        if self.ends_left == 0 {
            self.counters.add(ReactorCounter::EndsPutOff, 1);
            self.ends.push_back((id, end));
        } else {
            self.end_now(core, id, end);
        }
    }

    fn end_now(&mut self, core: &mut C, id: ConnectionId, end: ReceiveEnd) {
        self.ends_left = self.ends_left.saturating_sub(1);
        match self.slots.live(id).map(|slot| slot.phase) {
            Some(Phase::Open) => core.receive_ended(id, end),
            // The peer has closed its side too: nothing is left to wait for.
            Some(Phase::LingerDrain) => self.abort(core, id.index),
            _ => {}
        }
    }

    /// Handles the ends that were put off, as many as this tick has time for.
    pub(crate) fn release_ends(&mut self, core: &mut C) {
        self.ends_left = match self.reaped {
            ..COMPLETIONS_PER_END => TICK_ENDS_MAX,
            many => many / COMPLETIONS_PER_END,
        };
        while self.ends_left > 0 {
            let Some((id, end)) = self.ends.pop_front() else { break };
            self.end_now(core, id, end);
        }
        if self.ends.is_empty() && self.ends.capacity() > 1024 {
            // A crowd has gone; its room is given back.
            self.ends = VecDeque::new();
        }
    }

    /// Whether something that came was put off to the next tick.
    pub(crate) fn has_put_off(&self) -> bool {
        !self.held.is_empty() || !self.ends.is_empty()
    }

    /// Keeps bytes for the next tick; the receive ends until they were handed in.
    fn hold(&mut self, id: ConnectionId, held: Held) {
        self.held.push_back(held);
        let slot = self.slots.get(id.index).expect("checked by the caller");
        if !slot.has(HELD) {
            slot.set(HELD);
            self.counters.add(ReactorCounter::ReceiveShareUsed, 1);
        }
        self.cancel_receive(id.index);
    }

    /// Hands in what waited for this tick, each connection its share; the rest keeps its order.
    pub(crate) fn release_held(&mut self, core: &mut C) {
        self.filters.waiting = 0;
        for _ in 0..self.held.len() {
            let held = self.held.pop_front().expect("counted");
            let id = held.id();
            let tick = self.tick;
            let open = self.slots.live(id).filter(|slot| slot.phase == Phase::Open);
            let Some(slot) = open else {
                if let Held::Bytes { buffer, .. } = held {
                    self.lanes.buffers(id.index).release(buffer);
                }
                continue;
            };
            let share_used = slot.tick == tick && slot.tick_bytes >= self.settings.tick_bytes_max;
            let (is_filtered, has_gone) = (slot.has(FILTERED), slot.has(ENDED));
            let puts_off = is_filtered && self.is_over_handshakes(id.index);
            let is_bytes = matches!(held, Held::Bytes { .. });
            if let Held::Bytes { buffer, len, .. } = held
                && is_filtered
                && has_gone
                && self.asks_for_handshake(id.index, buffer, len)
            {
                // Nobody needs the handshake any more, and the end follows in the queue.
                self.lanes.buffers(id.index).release(buffer);
                continue;
            }
            self.filters.waiting += usize::from(puts_off && is_bytes);
            let slot = self.slots.get(id.index).expect("it is live");
            let share_used = share_used || puts_off;
            match held {
                _ if share_used => {
                    slot.set(HELD);
                    self.held.push_back(held);
                }
                Held::Bytes { buffer, len, .. } => {
                    // What follows of this connection in the queue sets it again, if it may not be handed in.
                    slot.clear(HELD);
                    self.hand_in(core, id, buffer, len);
                    self.to_arm.push(id);
                }
                Held::End { end, .. } => {
                    slot.clear(HELD);
                    core.receive_ended(id, end);
                }
            }
        }
    }

    /// Hands in all that waits of one connection; it moves.
    pub(crate) fn release_held_of(&mut self, core: &mut C, id: ConnectionId) {
        for _ in 0..self.held.len() {
            let held = self.held.pop_front().expect("counted");
            match held {
                _ if held.id() != id => self.held.push_back(held),
                Held::Bytes { buffer, len, .. } => self.hand_in(core, id, buffer, len),
                Held::End { .. } => {}
            }
        }
    }

    /// A connection has something to send.
    #[inline]
    pub(crate) fn flush(&mut self, core: &mut C, id: ConnectionId) {
        let Some(slot) = self.slots.live(id) else { return };
        if !matches!(slot.phase, Phase::Open | Phase::LingerSend) {
            return;
        }
        if slot.has(SENDING) {
            slot.set(FLUSH_DUE);
            // If that send is an eager one nothing will tell of its end.
            self.again = true;
            return;
        }
        self.send_next(core, id);
    }

    /// Submits what the shard has to send, if anything. True: a send is in flight.
    pub(crate) fn send_next(&mut self, core: &mut C, id: ConnectionId) -> bool {
        if self.slots.get(id.index).is_some_and(|slot| slot.has(FILTERED)) {
            return self.send_next_filtered(core, id);
        }
        while let Some(outgoing) = core.take_outgoing(id) {
            let total = outgoing.len();
            if total == 0 {
                self.again = true;
                core.sent(id, outgoing, Ok(()));
                continue;
            }
            self.submit_send(id, outgoing, total);
            return true;
        }
        false
    }

    /// Submits one send.
    #[inline]
    pub(crate) fn submit_send(&mut self, id: ConnectionId, outgoing: Outgoing, total: usize) {
        let slot = self.slots.get(id.index).expect("checked by the caller");
        let eager = slot.phase == Phase::Open && total <= EAGER_BYTES_MAX;
        let number = self.sends.start(id, outgoing, total, eager);
        slot.set(SENDING);
        slot.operation = number;
        let entry = self.sends.operation(number, self.lanes.fixed(id.index));
        if eager {
            // SAFETY: the entry's buffers stay in `sends` until after the enter that submits it.
            unsafe { self.lanes.push_uncounted(id.index, &entry) };
            let lane = self.lanes.of(id.index);
            self.lanes.at(lane).queued_eager(self.sends.eager(number));
        } else {
            // SAFETY: the entry's buffers stay in `sends` until the completion.
            unsafe { self.lanes.push(id.index, &entry) };
        }
    }

    /// A send completed.
    #[inline]
    pub(crate) fn on_send(&mut self, core: &mut C, tag: Tag, result: i32) {
        let id = tag.connection();
        let slot = self.slots.get(id.index).expect("a send is in flight for used slots only");
        assert!(
            slot.has(SENDING) && slot.generation & GENERATION_MASK == id.generation,
            "a slot is not freed while its send is in flight"
        );
        let number = slot.operation;
        let go_on = slot.phase != Phase::Abort;
        if !self.sends.end_eager(number) {
            self.lanes.completed(id.index);
        }
        let (outgoing, result) = match self.sends.completed(number, result, go_on) {
            Progress::Short => {
                self.counters.add(ReactorCounter::SendsContinued, 1);
                let entry = self.sends.operation(number, self.lanes.fixed(id.index));
                // SAFETY: as for the first part.
                unsafe { self.lanes.push(id.index, &entry) };
                return;
            }
            Progress::Done(outgoing, result) => (outgoing, result),
        };
        self.send_done(core, id, outgoing, result);
    }

    /// Ends the eager sends of which is known that they are done.
    pub(crate) fn finish_eager(&mut self, core: &mut C) {
        for lane in 0..self.lanes.count() {
            while let Some(send) = self.lanes.at(lane).next_eager() {
                if let Some((id, outgoing)) = self.sends.finish_eager(send) {
                    self.send_done(core, id, outgoing, Ok(()));
                }
            }
        }
    }

    /// A send is over; the shard gets its buffers back.
    #[inline]
    fn send_done(
        &mut self,
        core: &mut C,
        id: ConnectionId,
        outgoing: Outgoing,
        result: Result<(), i32>,
    ) {
        let slot = self.slots.get(id.index).expect("a send is in flight for used slots only");
        let flush = slot.has(FLUSH_DUE);
        slot.clear(SENDING | FLUSH_DUE);
        slot.operation = NONE;
        let phase = slot.phase;
        if slot.has(FILTERED) {
            // What was sent is the filter's.
            drop(outgoing);
            self.filtered_sent(core, id, result);
        } else {
            core.sent(id, outgoing, result);
        }
        match phase {
            Phase::Open if flush => self.flushes.push(id),
            Phase::LingerSend if result.is_ok() => self.linger_on(core, id),
            Phase::LingerSend => self.abort(core, id.index),
            Phase::Abort | Phase::Moving => self.settle(core, id.index),
            _ => {}
        }
    }
}
