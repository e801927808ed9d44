//! One core's broker: connections, sessions, dispatch to shards, delivery to sessions, outboxes, timers and the
//! messages of the mesh. Sans-I/O: the reactor (or the simulator) calls [`Shard`] with what happened and drains
//! [`Effect`]s; time is an argument.
//!
//! One message's way through the modules: `transport` (bytes arrive) -> `packets` (whole packets) -> `publish` (checks,
//! `QoS`) -> `dispatch` (the router's answer: here, other shards, groups, retained) -> `mesh` and `inbox` (to another
//! shard and there) -> `clients` (to the session, into the outbox) -> `outbox` (one send per tick).
//!
//! Invariants, asserted where they could break: a session has at most one connection and both are of this shard; a slot of
//! the descriptor table has one user at a time, told apart by its generation; a packet id on the wire is in the
//! window; everything a connection can make grow (outbox, stash, window, queue, pending SUBACKs) has a limit.
#![forbid(unsafe_code)]

mod auto_subscribe;
mod away;
mod banned;
mod barrier;
mod chunked;
mod clients;
pub mod command;
mod connect;
mod connection;
mod control;
mod delayed;
#[cfg(test)]
mod desk;
mod disc_only;
mod dispatch;
mod durable;
mod effect;
mod handover;
mod held;
mod inbox;
mod journal;
mod leave;
mod limit;
mod listeners;
mod mesh;
mod mount;
mod names;
mod outbox;
mod overload;
mod packets;
mod profile;
mod publish;
mod random;
mod rate;
mod recovery;
mod retained;
mod retainer;
mod rewrite;
mod sessions;
mod shard;
mod shutdown;
mod stash;
pub mod storage;
mod subscribe;
mod timers;
mod transport;
mod turns;
mod wheel;

pub use banned::{Ban, BannedList, BannedWho};
pub use command::{Command, Reply, Request};
pub use delayed::DelayedPlaces;
pub use disc_only::READS_MAX;
pub use effect::{
    CloseMode, ConnectionId, Effect, Farewell, GENERATION_MASK, ListenerId, Now, Outgoing,
    ReceiveEnd,
};
pub use journal::{BATCHES_MAX, StoreMode};
pub use listeners::ListenerClients;
pub use mesh::{ControlBatch, DataBatch, MeshEndpoint};
pub use names::PeerNames;
pub use overload::{Causes, OverloadBoard, Watermark};
pub use session::{DelayedId, DelayedIdError};
pub use shard::{Shard, ShardSetup, StoreLink};
