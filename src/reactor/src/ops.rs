//! What a completion belongs to: the 64 bits of `user_data`.
//!
//! An operation in the top 8 bits, a slot's generation in the next 24, an index in the low 32. The tag of an arriving
//! hand-over is made by another shard's ring and carries a token of 56 bits instead.

use shard::{ConnectionId, GENERATION_MASK};

/// The kind of operation a completion ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    /// Nobody waits for it (cancellations; only failures show).
    Ignored = 0,
    /// An accept; index: listener, generation: place of the one-shot accept's address.
    Accept = 1,
    /// The peer's address of an accepted connection; index: slot, generation: place of the address.
    PeerName = 2,
    /// A multishot receive.
    Receive = 3,
    /// A send.
    Send = 4,
    /// A shutdown of one direction.
    Shutdown = 5,
    /// The close of a slot.
    Close = 6,
    /// Another shard rang.
    Doorbell = 7,
    /// Our ringing failed; index: the shard that was to be rung.
    DoorbellSent = 8,
    /// A descriptor came from another shard; 56 bits of token.
    HandOver = 9,
    /// A descriptor of ours was passed on, or was not.
    HandOverSent = 10,
    /// The control plane wrote the eventfd.
    Wake = 11,
    /// The time of the next deadline has come.
    Timer = 12,
    /// A socket was put into a lane's table; index: place of the connect.
    Install = 13,
    /// A connect; index: slot, generation: place of the connect.
    Connect = 14,
    /// Whether the peer of a connection that waited is still there; index: slot.
    StillThere = 15,
}

impl Op {
    /// The operation with this number.
    const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Ignored,
            1 => Self::Accept,
            2 => Self::PeerName,
            3 => Self::Receive,
            4 => Self::Send,
            5 => Self::Shutdown,
            6 => Self::Close,
            7 => Self::Doorbell,
            8 => Self::DoorbellSent,
            9 => Self::HandOver,
            10 => Self::HandOverSent,
            11 => Self::Wake,
            12 => Self::Timer,
            13 => Self::Install,
            14 => Self::Connect,
            15 => Self::StillThere,
            _ => return None,
        })
    }
}

/// Most a token of a hand-over can be: 56 bits.
pub(crate) const TOKEN_MAX: u64 = (1 << 56) - 1;

/// A completion's `user_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(pub(crate) u64);

impl Tag {
    /// Packs the three parts; of the generation the low 24 bits are taken.
    pub(crate) const fn new(op: Op, generation: u32, index: u32) -> Self {
        Self((op as u64) << 56 | ((generation & GENERATION_MASK) as u64) << 32 | index as u64)
    }

    /// The tag of an operation on a connection.
    pub(crate) const fn of(op: Op, id: ConnectionId) -> Self {
        Self::new(op, id.generation, id.index)
    }

    /// The tag a descriptor arrives with on the target's ring.
    pub(crate) fn hand_over(token: u64) -> Self {
        assert!(token <= TOKEN_MAX, "a hand-over's token has 56 bits");
        Self((Op::HandOver as u64) << 56 | token)
    }

    /// The operation; none if no operation of ours has that number.
    pub(crate) const fn op(self) -> Option<Op> {
        Op::from_u8((self.0 >> 56) as u8)
    }

    /// The generation of the slot.
    #[allow(clippy::cast_possible_truncation, reason = "masked to 24 bits")]
    pub(crate) const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & GENERATION_MASK
    }

    /// The index.
    #[allow(clippy::cast_possible_truncation, reason = "the low 32 bits are the index")]
    pub(crate) const fn index(self) -> u32 {
        self.0 as u32
    }

    /// The slot's connection.
    pub(crate) const fn connection(self) -> ConnectionId {
        ConnectionId { index: self.index(), generation: self.generation() }
    }

    /// The token of an arriving hand-over.
    pub(crate) const fn token(self) -> u64 {
        self.0 & TOKEN_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_gives_back_its_parts() {
        let tag = Tag::new(Op::HandOverSent, 0xff_fffe, 0xffff_fffd);
        assert_eq!(tag.op(), Some(Op::HandOverSent));
        assert_eq!(tag.connection(), ConnectionId { index: 0xffff_fffd, generation: 0xff_fffe });
        let tag = Tag::hand_over(TOKEN_MAX);
        assert_eq!((tag.op(), tag.token()), (Some(Op::HandOver), TOKEN_MAX));
        assert_eq!(Tag(0xff << 56).op(), None);
    }

    #[test]
    fn every_operation_has_its_number() {
        for number in 0..=u8::MAX {
            if let Some(op) = Op::from_u8(number) {
                assert_eq!(op as u8, number);
            }
        }
    }
}
