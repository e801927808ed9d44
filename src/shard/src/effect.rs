//! What a shard asks its reactor to do, and the names both use for connections and time.
//!
//! A shard does no I/O. Its reactor calls it with what happened and then drains these effects, in order.

use bytes::Bytes;
use ring::ShardId;

/// One instant, read once per tick by the reactor (or by the simulator).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch, for what people read and for message expiry.
    pub unix_ms: u64,
}

/// A connection of one shard. `index` is its slot in the ring's direct descriptor table; the generation tells
/// apart the connections that use a slot one after the other, so that a late completion finds nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Slot in the direct descriptor table.
    pub index: u32,
    /// Counts the users of the slot; 24 bits are used.
    pub generation: u32,
}

/// Bits of a generation that are used: it shares a 64-bit completion tag with the index and an operation.
pub const GENERATION_MASK: u32 = 0x00ff_ffff;

/// The number of a listener in the settings' list, the same on all shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

/// Why a connection receives no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// The peer closed its side.
    PeerClosed,
    /// The receive failed with this errno.
    Failed(i32),
    /// What came is no PROXY header, TLS or WebSocket as it should be; the name it is counted by.
    Refused(&'static str),
}

/// How a connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseMode {
    /// Send what is in the outbox, shut the sending side, read and discard until the peer closes or a short
    /// deadline passes: closing with unread bytes would reset the connection and could destroy our last packet
    /// on its way.
    Linger,
    /// Close at once; nothing that is still to be sent matters.
    Now,
}

/// Why a connection ends, for layers below MQTT that can say it too: WebSocket has codes for it (RFC 6455, 7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// All is done.
    Done,
    /// The broker or the listener stops.
    Stopping,
    /// The peer broke the protocol.
    ProtocolError,
    /// A payload is not what the peer said it was.
    BadPayload,
    /// The peer may not be here, or not do that.
    NotAllowed,
    /// It sent more than it may.
    TooBig,
    /// Something of ours is broken.
    Broken,
    /// There is no room for it now.
    Busy,
}

/// What the reactor is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The connection has something to send: if no send of it is in flight, take it and send it.
    Flush(ConnectionId),
    /// Arm the receive of a new connection.
    StartReceive(ConnectionId),
    /// Stop receiving; bytes that arrive before the stop takes hold are still handed in.
    PauseReceive(ConnectionId),
    /// Receive again.
    ResumeReceive(ConnectionId),
    /// Stop receiving, then call `detach`, then pass the descriptor to another shard.
    HandOver {
        /// The connection that moves.
        id: ConnectionId,
        /// Its home.
        to: ShardId,
        /// Names the hand-over to both shards; 56 bits are used.
        token: u64,
    },
    /// What a connection that will be closed is to be told by its layers, if it is not [`Farewell::Done`].
    Farewell {
        /// The connection.
        id: ConnectionId,
        /// Why it ends.
        why: Farewell,
    },
    /// Close the connection and call `closed` when its slot is free.
    Close {
        /// The connection.
        id: ConnectionId,
        /// How.
        mode: CloseMode,
    },
    /// Wake a shard that waits in its ring.
    Doorbell(ShardId),
}

/// Bytes to be sent by one operation. They come back by `Shard::sent`, so that buffers are used again.
#[derive(Debug)]
pub enum Outgoing {
    /// One buffer of this connection's own.
    Bytes(Vec<u8>),
    /// One buffer that many connections share (a fan-out).
    Shared(Bytes),
    /// Several buffers, in order.
    Segments(Vec<Bytes>),
}

impl Outgoing {
    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Shared(bytes) => bytes.len(),
            Self::Segments(segments) => segments.iter().map(Bytes::len).sum(),
        }
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
