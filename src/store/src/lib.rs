//! Durable state.
#![forbid(unsafe_code)]

mod backup;
pub mod codec;
pub mod core;
#[cfg(test)]
mod disk_tests;
pub mod engine;
mod error;
#[cfg(test)]
mod fixture;
mod info;
mod thread;

pub use backup::{BackupInfo, restore};
pub use engine::Keyspace;
pub use error::StoreError;
pub use info::{Latency, StoreInfo};
pub use thread::{Doorbell, OnHealth, ShardOutlet, Store, StoreSetup, StoreStage, StoreSync};
