//! Durable state: what a broker that is killed, or loses power, comes back with.
//!
//! Shards hand over batches of changes ([`shard::storage`]); one thread applies all that wait in one atomic write, syncs as
//! `store.sync` says, and answers how far it is. Everything is keyed by slot, so that another number of shards finds its data.
//!
//! - [`codec`]: the bytes of keys and values, a checksum on each value.
//! - [`engine`]: what is needed of an engine, and the two there are: fjall, and a simulated disk that fails as disks do.
//! - [`core`]: the store without a thread or a clock: rounds, reference counts, reading, what to do after an error.
//! - [`Store`]: the threads. `backup`: [`Store::backup`] while it runs, [`restore`] for the next start.
//!
//! Invariants: a batch is applied whole or not at all, and once, whatever fails; a message that many queues hold is kept once,
//! as long as one of them has it; of what was committed nothing is lost but by damage to the files, which is found by checksums
//! and said.
//!
//! # The engine
//!
//! Measured on our pattern: batches of 500 puts (key 18 bytes, value 150 bytes, half of it random) and 500 removals of what came
//! 20 batches before, 1 of 100 stays, one sync each; then 1,000,000 keys in batches of 1,000. Two cores, an ext4 disk, both
//! shared with other work, so only the order of size counts; one run each.
//!
//! | | fjall 3.1.13 | redb 4.6.0 | RocksDB 7.8.3 |
//! | --- | --- | --- | --- |
//! | batches of 1,000 with a sync, per second | 83 | 55 | 48 |
//! | CPU per change, microseconds | 3.6 | 6.3 | 6.0 |
//! | CPU per key of the million, microseconds | 5.4 | 20.1 | 8.7 |
//! | a million keys written in, seconds | 17.5 | 68.3 | 28.3 |
//! | on disk after the pattern, MB (20,000 keys live) | 86 (journals) | 7 | 29 |
//! | on disk with the million, after opening, MB | 205 | 269 | 105 |
//! | opened with the million after a clean end, seconds | 2.2 | 0.002 | 0.8 |
//! | memory with the million, MB | 90 | 82 | 42 |
//!
//! fjall costs least where the broker is busy, and is Rust without a C++ compiler. Its price is journals that are replayed at the
//! start; [`engine`] bounds them. What it does not do itself is done here: it cuts a journal off silently at an invalid byte, or
//! refuses all of it for a torn end (the journals are looked at before it sees them); a write waits for ever for a thread of it
//! that has died of a full disk (it is not let come to that).
#![forbid(unsafe_code)]

mod backup;
pub mod codec;
pub mod core;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod disk_tests;
pub mod engine;
mod error;
#[cfg(test)]
mod fixture;
mod info;
mod panics;
mod thread;

pub use backup::{BackupInfo, restore};
pub use engine::Keyspace;
pub use error::StoreError;
pub use info::{Latency, StoreInfo};
pub use panics::is_panic_caught;
pub use thread::{
    Doorbell, OnEvent, ShardOutlet, Store, StoreEvent, StoreSetup, StoreStage, StoreSync,
};
