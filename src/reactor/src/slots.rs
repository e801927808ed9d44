//! What the reactor knows of each connection: 16 bytes, by slot of the direct descriptor table.
//!
//! Chunks are made when the kernel first gives out a slot of theirs; nothing moves or doubles when a shard grows.

use shard::{ConnectionId, GENERATION_MASK};

/// Slots per chunk: 16 KiB.
const CHUNK: usize = 1024;

/// No send, no hand-over.
pub(crate) const NONE: u32 = u32::MAX;

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Nobody's.
    #[default]
    Free,
    /// Being opened by this side. The core does not know the slot yet.
    Connecting,
    /// Accepted; the peer's address is being asked for. The shard does not know it yet.
    Naming,
    /// Came from another shard; the shard has not said whose it is.
    Arrived,
    /// The shard's.
    Open,
    /// To be closed after everything was sent.
    LingerSend,
    /// Our side is shut; waits for the peer to close its side.
    LingerDrain,
    /// To be closed as soon as nothing is in flight.
    Abort,
    /// To be passed to another shard as soon as nothing is in flight.
    Moving,
    /// The descriptor is being passed.
    Moved,
    /// The close was submitted.
    Closing,
}

/// A receive is in the kernel's hands.
pub(crate) const ARMED: u16 = 1 << 0;
/// ... and was told to end.
pub(crate) const CANCELLING: u16 = 1 << 1;
/// The shard wants to receive (it has said so once).
pub(crate) const STARTED: u16 = 1 << 2;
/// The shard wants no bytes for now.
pub(crate) const PAUSED: u16 = 1 << 3;
/// Buffers of this connection wait for the next tick.
pub(crate) const HELD: u16 = 1 << 4;
/// A send is in flight.
pub(crate) const SENDING: u16 = 1 << 5;
/// The shard asked for a flush while a send was in flight.
pub(crate) const FLUSH_DUE: u16 = 1 << 6;
/// The peer closed its side, or the receive failed.
pub(crate) const ENDED: u16 = 1 << 7;
/// A shutdown is in flight.
pub(crate) const SHUTTING: u16 = 1 << 8;
/// The shard never heard of this connection.
pub(crate) const UNKNOWN: u16 = 1 << 9;
/// Its receive ended because all buffers were in use; it waits for its turn to be armed again.
pub(crate) const STARVED: u16 = 1 << 10;
/// It has a filter between the wire and the shard.
pub(crate) const FILTERED: u16 = 1 << 11;
/// Its layers have much to send and its peer takes nothing.
pub(crate) const CLOGGED: u16 = 1 << 12;

/// One connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slot {
    /// Low 24 bits: generation, as the shard counts it.
    pub(crate) generation: u32,
    /// The send in flight, if [`SENDING`]; the hand-over, if moving.
    pub(crate) operation: u32,
    /// Bytes handed in during tick `tick`.
    pub(crate) tick_bytes: u32,
    /// The tick `tick_bytes` counts for, its low 8 bits; a stale one that looks current costs a connection one tick.
    pub(crate) tick: u8,
    /// Where it is in its life.
    pub(crate) phase: Phase,
    /// What is in flight and what is wanted.
    pub(crate) flags: u16,
}

const _: () =
    assert!(size_of::<Slot>() == 16, "DESIGN: an idle connection costs the reactor 16 bytes");

impl Slot {
    /// Whether any of these flags is set.
    #[inline]
    pub(crate) const fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// Sets flags.
    #[inline]
    pub(crate) const fn set(&mut self, flags: u16) {
        self.flags |= flags;
    }

    /// Clears flags.
    #[inline]
    pub(crate) const fn clear(&mut self, flags: u16) {
        self.flags &= !flags;
    }

    /// Whether a receive should be armed, now that none is.
    #[inline]
    pub(crate) const fn wants_receive(&self) -> bool {
        match self.phase {
            Phase::Open => {
                const NONE_OF: u16 = PAUSED | HELD | ENDED | ARMED | STARVED | CLOGGED;
                self.flags & (STARTED | NONE_OF) == STARTED
            }
            Phase::LingerDrain => self.flags & (ENDED | ARMED | STARVED) == 0,
            _ => false,
        }
    }

    /// Whether nothing of this connection is in the kernel's hands.
    #[inline]
    pub(crate) const fn is_quiet(&self) -> bool {
        self.flags & (ARMED | SENDING | SHUTTING) == 0
    }
}

/// All slots of a shard.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    chunks: Vec<Option<Box<[Slot; CHUNK]>>>,
}

impl Slots {
    /// The slot of a connection that is alive: known under this generation and not being closed for good.
    #[inline]
    pub(crate) fn live(&mut self, id: ConnectionId) -> Option<&mut Slot> {
        let slot = self.get(id.index)?;
        let alive = slot.generation == id.generation & GENERATION_MASK
            && !matches!(
                slot.phase,
                Phase::Free | Phase::Connecting | Phase::Naming | Phase::Arrived | Phase::Closing
            );
        alive.then_some(slot)
    }

    /// A slot, whatever is in it; none if it was never used.
    #[inline]
    pub(crate) fn get(&mut self, index: u32) -> Option<&mut Slot> {
        let chunk = self.chunks.get_mut(index as usize / CHUNK)?.as_mut()?;
        Some(&mut chunk[index as usize % CHUNK])
    }

    /// Takes a slot the kernel gave out.
    ///
    /// # Panics
    /// If it is in use: the kernel gives out a slot once.
    pub(crate) fn occupy(&mut self, index: u32, phase: Phase) -> &mut Slot {
        let place = index as usize / CHUNK;
        if place >= self.chunks.len() {
            self.chunks.resize_with(place + 1, || None);
        }
        let chunk = self.chunks[place].get_or_insert_with(|| Box::new([Slot::default(); CHUNK]));
        let slot = &mut chunk[index as usize % CHUNK];
        assert_eq!(slot.phase, Phase::Free, "the kernel gives out a slot once");
        // The generation stays: completions of the last user must not match before the shard has named the new one.
        *slot = Slot { generation: slot.generation, operation: NONE, phase, ..Slot::default() };
        slot
    }

    /// The connections whose receive is armed.
    pub(crate) fn armed(&self) -> impl Iterator<Item = ConnectionId> {
        let slots = self.chunks.iter().flatten().flat_map(|chunk| chunk.iter());
        let places = self.chunks.iter().enumerate().filter(|(_, chunk)| chunk.is_some());
        let indices = places.flat_map(|(place, _)| place * CHUNK..(place + 1) * CHUNK);
        indices.zip(slots).filter(|(_, slot)| slot.has(ARMED)).map(|(index, slot)| ConnectionId {
            index: u32::try_from(index).expect("an index has 32 bits"),
            generation: slot.generation & GENERATION_MASK,
        })
    }

    /// Gives a slot back.
    pub(crate) fn free(&mut self, index: u32) {
        let slot = self.get(index).expect("a used slot has its chunk");
        assert_ne!(slot.phase, Phase::Free, "a slot is freed once");
        slot.phase = Phase::Free;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_found_by_its_generation_only() {
        let mut slots = Slots::default();
        assert!(slots.live(ConnectionId { index: 2999, generation: 0 }).is_none());
        let slot = slots.occupy(2999, Phase::Naming);
        slot.generation = 7;
        assert!(slots.live(ConnectionId { index: 2999, generation: 7 }).is_none(), "not named yet");
        slots.get(2999).unwrap().phase = Phase::Open;
        assert!(slots.live(ConnectionId { index: 2999, generation: 7 }).is_some());
        assert!(slots.live(ConnectionId { index: 2999, generation: 6 }).is_none());
        slots.free(2999);
        assert!(slots.live(ConnectionId { index: 2999, generation: 7 }).is_none());
    }
}
