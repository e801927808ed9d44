//! A node: the shards, the mesh between them, and the one way in for everything that is asked of them.
//!
//! [`Node::start`] probes the kernel, binds every listener, builds the mesh, starts the shards and waits until all of them accept;
//! what fails leaves nothing half-started. [`Node::perform`] takes one [`Action`] and gives one [`ActionReply`]: the admin socket,
//! the `$SYS` publisher and what comes later have no other way to the shards. Listings come in pages that are asked of the
//! shards only as they are read.
#![forbid(unsafe_code)]

mod acl;
mod action;
mod alarms;
mod banned;
mod boot;
mod core;
mod filters;
mod links;
mod listeners;
mod listing;
mod node;
mod retainer;
mod stats;
mod store;
mod watch;

pub use crate::store::restore_store;
pub use ::store::{
    BackupInfo as StoreBackup, Latency as StoreLatency, StoreError, StoreInfo, is_panic_caught,
};
pub use acl::{AclFileError, load as load_acl};
pub use action::{
    Action, ActionReply, AlarmList, BrokerInfo, Capacity, ListenerInfo, ListenerName, Listing,
    RetainerInfo, RouteInfo, Rows, SettingInfo,
};
pub use alarms::{Alarm, AlarmKind, Alarms, Severity};
pub use banned::{BannedError, who as banned_who};
pub use boot::{NodeError, locked_bytes, shard_count};
pub use config::ListenerKind;
pub use filters::{FilterSetupError, check as check_filters, check_tls};
pub use links::LinkError;
pub use listeners::ListenerActionError;
pub use listing::Pages;
pub use node::{ActionError, Node, SYSDESCR, VERSION};
pub use ring::SHARDS_MAX;
pub use shard::storage::StoreHealth;
pub use shard::{Ban, BannedWho, DelayedId, DelayedIdError};
