//! Durable state.
#![forbid(unsafe_code)]

pub mod codec;
pub mod core;
pub mod engine;
mod error;
mod info;
mod thread;

pub use engine::Keyspace;
pub use error::StoreError;
pub use info::{Latency, StoreInfo};
pub use thread::{Doorbell, OnHealth, ShardOutlet, Store, StoreSetup, StoreStage, StoreSync};
