//! The SPSC mesh between the shards: N x N rings, two lanes, a doorbell per shard.
//!
//! Owns what crosses from one core to another. Each pair of shards has a ring of its own in each
//! direction, so every ring has one producer and one consumer and needs no lock and no
//! read-modify-write. A ring's slots are *swapped*: a push hands back the slot's old, emptied value,
//! so that a batch and its buffers travel round and round without an allocation.
//!
//! - [`ShardId`], [`ShardSet`]: a shard's number and a set of them.
//! - [`spsc`]: one ring on its own.
//! - [`doorbell`]: how a sleeping consumer is woken once, and why no wake-up can be lost.
//! - [`mesh`]: all rings and doorbells of a node; each shard's thread owns one [`Endpoint`].
//!
//! Only memory and atomics: no thread, no clock, no system call. Ringing a doorbell (a `MSG_RING`
//! between shards, an eventfd from the control plane) is the caller's.
#![warn(clippy::pedantic)]
#![allow(clippy::must_use_candidate, clippy::module_name_repetitions)]

pub mod doorbell;
pub mod mesh;
mod shard_id;
mod shard_set;
pub mod spsc;
mod sync;

pub use doorbell::Waker;
pub use mesh::{Capacities, Endpoint, Mesh, default_capacity};
pub use shard_id::{SHARDS_MAX, ShardId};
pub use shard_set::ShardSet;
pub use spsc::Full;
