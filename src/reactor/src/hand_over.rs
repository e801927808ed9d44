//! Passing a connection to its home shard: the descriptor by `MSG_RING`, everything else by the mesh.
//!
//! Order on the source: the receive ends (what still comes is handed to the shard), the shard packs what it has
//! (`detach`), the descriptor is sent, our slot is closed. The target learns of both parts in any order.

use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types};
use ring::ShardId;
use shard::ConnectionId;

use crate::core::Core;
use crate::counters::ReactorCounter;
use crate::driver::Driver;
use crate::ops::{Op, TOKEN_MAX, Tag};
use crate::slots::{FILTERED, PAUSED, Phase};

/// Where a connection moves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Move {
    to: ShardId,
    token: u64,
    /// The ring it was sent to last.
    ring: RawFd,
}

/// The connections whose receive must end before they move.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    entries: Vec<Move>,
    free: Vec<u32>,
}

impl Moves {
    /// Remembers a move.
    fn insert(&mut self, entry: Move) -> u32 {
        if let Some(place) = self.free.pop() {
            self.entries[place as usize] = entry;
            return place;
        }
        self.entries.push(entry);
        u32::try_from(self.entries.len() - 1).expect("at most one per connection")
    }

    /// Gives a move's place back.
    pub(crate) fn forget(&mut self, place: u32) {
        self.free.push(place);
        if self.free.len() == self.entries.len() && self.entries.len() > 1024 {
            *self = Self::default();
        }
    }
}

impl<C: Core> Driver<C> {
    /// The shard wants a connection moved.
    pub(crate) fn hand_over(&mut self, core: &mut C, id: ConnectionId, to: ShardId, token: u64) {
        assert!(token <= TOKEN_MAX, "a hand-over's token has 56 bits");
        assert_ne!(to, self.id, "a connection moves to another shard");
        let Some(slot) = self.slots.live(id).filter(|slot| slot.phase == Phase::Open) else {
            return;
        };
        slot.phase = Phase::Moving;
        // A moving connection has no share of a tick: everything is handed in.
        slot.tick_bytes = self.moves.insert(Move { to, token, ring: -1 });
        self.again = true;
        self.release_held_of(core, id);
        self.cancel_receive(id.index);
        self.settle(core, id.index);
    }

    /// Nothing of a moving connection is in flight: pass it on.
    pub(crate) fn pass_on(&mut self, core: &mut C, index: u32) {
        let slot = self.slots.get(index).expect("a moving connection has its slot");
        slot.phase = Phase::Moved;
        let id = ConnectionId { index, generation: slot.generation };
        // Its messages may need a doorbell, so there is another tick before waiting.
        self.again = true;
        core.detach(id);
        if self.slots.get(index).is_some_and(|slot| slot.has(FILTERED)) {
            let place = self.slots.get(index).expect("looked at above").tick_bytes;
            let token = self.moves.entries[place as usize].token;
            let filter = self.filters.take(index).expect("a filtered slot has its filter");
            self.table.put_filter(token, filter);
        }
        self.send_descriptor(id);
    }

    /// Sends a descriptor to the ring with which its new shard takes connections now.
    fn send_descriptor(&mut self, id: ConnectionId) {
        let index = id.index;
        let place = self.slots.get(index).expect("a moved connection has its slot").tick_bytes;
        let Move { to, token, .. } = self.moves.entries[place as usize];
        let ring = self.table.arrivals_fd(to);
        self.moves.entries[place as usize].ring = ring;
        let entry = opcode::MsgRingSendFd::new(
            types::Fd(ring),
            self.lanes.fixed(index),
            types::DestinationSlot::auto_target(),
            Tag::hand_over(token).0,
        )
        .build();
        // SAFETY: the entry points to no memory; the target's ring stays until all shards have ended.
        unsafe { self.lanes.push(index, &entry.user_data(Tag::of(Op::HandOverSent, id).0)) };
    }

    /// A descriptor was passed on and our slot is closed; or it was not, and the connection is the shard's again, not
    /// receiving, to be told so and closed.
    pub(crate) fn on_hand_over_sent(&mut self, core: &mut C, tag: Tag, result: i32) {
        self.lanes.completed(tag.index());
        let slot =
            self.slots.get(tag.index()).expect("a moved connection keeps its slot until here");
        assert_eq!(slot.phase, Phase::Moved, "a descriptor is passed on once");
        let place = slot.tick_bytes;
        let Move { to, ring, .. } = self.moves.entries[place as usize];
        if result == -libc::ENFILE && self.table.arrivals_fd(to) != ring {
            // That table was full; by now the shard takes connections with another.
            self.send_descriptor(tag.connection());
            return;
        }
        let token = self.moves.entries[place as usize].token;
        self.moves.forget(place);
        if result < 0 && slot.has(FILTERED) {
            // It was not fetched, as the descriptor did not arrive.
            let filter = self.table.take_filter(token).expect("only its new shard takes it");
            self.place_filter(tag.index(), filter);
        }
        let slot = self.slots.get(tag.index()).expect("looked at above");
        if result < 0 {
            slot.phase = Phase::Open;
            slot.set(PAUSED);
            self.counters.add(ReactorCounter::HandOversFailed, 1);
            core.descriptor_sent(tag.connection(), Err(-result));
        } else {
            self.counters.add(ReactorCounter::HandOversSent, 1);
            core.descriptor_sent(tag.connection(), Ok(()));
            self.submit_close(tag.index());
        }
    }

    /// A descriptor came from another shard. The completion's result is the slot in its
    /// lane's table; where none was free the source got
    /// the error and nothing comes here.
    pub(crate) fn on_hand_over(&mut self, core: &mut C, lane: usize, tag: Tag, result: i32) {
        let Ok(slot) = u32::try_from(result) else {
            log::error!("shard {}: a connection did not arrive: errno {}", self.id, -result);
            return;
        };
        let index = self.lanes.index(lane, slot);
        self.occupy(core, index, Phase::Arrived);
        if let Some(mut filter) = self.table.take_filter(tag.token()) {
            filter.arrived();
            self.place_filter(index, filter);
        }
        if let Some(id) = core.descriptor_arrived(tag.token(), index) {
            assert_eq!(id.index, index, "a connection's index is its slot");
            self.adopt(id);
        }
    }

    /// The shard knows whose an arrived descriptor is. Called before every effect; does nothing for others.
    pub(crate) fn adopt(&mut self, id: ConnectionId) {
        if let Some(slot) = self.slots.get(id.index).filter(|slot| slot.phase == Phase::Arrived) {
            slot.phase = Phase::Open;
            slot.generation = id.generation;
        }
    }

    /// Rings another shard.
    pub(crate) fn ring_doorbell(&mut self, to: ShardId) {
        assert_ne!(to, self.id, "a shard does not ring itself");
        let index = u32::try_from(to.index()).expect("a shard's number is small");
        let fd = types::Fd(self.table.fd(to));
        let entry = opcode::MsgRingData::new(fd, 0, Tag::new(Op::Doorbell, 0, 0).0, None)
            .build()
            .user_data(Tag::new(Op::DoorbellSent, 0, index).0)
            .flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: the entry points to no memory.
        unsafe { self.lanes.main().push_uncounted(&entry) };
    }

    /// Ringing failed (only failures complete): the target's completion queue had no room. Try again next tick.
    pub(crate) fn on_doorbell_failed(&mut self, tag: Tag) {
        self.counters.add(ReactorCounter::DoorbellsFailed, 1);
        self.bells_due.insert(ShardId::new(tag.index() as usize));
    }
}
