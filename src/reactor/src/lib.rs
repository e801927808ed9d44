//! One core's loop over `io_uring`: listeners, connections, receives, sends, timers and doorbells for one shard.
//!
//! [`probe`] asks the kernel once. [`bind_all`] makes all listening sockets. [`Reactor::spawn`] starts a thread per
//! shard: a glommio executor, pinned, whose main task is the driver with a ring of its own. The driver calls the shard
//! ([`Core`]) with what happened and does what its effects ask for. It knows nothing of MQTT.

mod accept;
mod admission;
mod buffers;
mod clock;
mod closing;
mod connect;
mod connection_io;
mod core;
mod counters;
mod driver;
mod filters;
mod hand_over;
mod lanes;
mod listener;
mod memory;
mod ops;
mod probe;
mod ring_setup;
mod ring_table;
mod sends;
mod settings;
mod slots;
mod thread;
mod timer;
mod wake;

pub use admission::AdmissionSettings;
pub use connect::Connect;
pub use core::Core;
pub use counters::{ReactorCounter, ReactorCounters};
pub use filters::{FilterTable, FilterTimes, ListenerFilter};
pub use lanes::FURTHER_SHARE;
pub use listener::{BoundListener, ListenerError, bind_all, bind_one, try_bind};
pub use memory::give_back_memory;
pub use probe::{Features, ProbeError, ProbeReport, probe, raise_open_files};
pub use ring_setup::{RingError, SUBMISSION_ENTRIES_LEAST};
pub use ring_table::{RingTable, StartError};
pub use settings::ReactorSettings;
pub use shard::{CloseMode, ConnectionId, Effect, ListenerId, Now, Outgoing, ReceiveEnd};
pub use thread::{Reactor, ReactorSetup, ShardThread, available_cpus};
pub use wake::WakeHandle;
