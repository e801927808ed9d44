//! Routes, subscribers, shared groups and the index of retained messages: pure data structures.
//!
//! [`Router`] is one shard's view: its own subscribers, and its replica of which shards want which
//! topics (DESIGN.md, section 3). A subscription that is the first or last of its filter on a shard
//! makes [`RouteDelta`]s; the caller sends them to every other shard, which gives them to
//! [`Router::apply`] in the order of sending. [`RetainedIndex`] orders retained topics for scans by
//! filter. [`slot`] and [`home`] place clients and topics on shards.
//!
//! Nothing here does I/O, reads a clock or draws a random number; seeds and random numbers are
//! arguments. Matching allocates nothing once its [`Matches`] is warm.
#![forbid(unsafe_code)]

mod delta;
mod exact;
mod filters;
mod fingerprint;
mod groups;
mod listing;
mod options;
mod retained;
mod router;
mod shard_sets;
mod shared;
mod slab;
mod slot;
mod subscribers;
mod table;
mod tags;
mod text;
mod trie;

#[cfg(test)]
mod tests;

pub use delta::RouteDelta;
pub use filters::FilterId;
pub use fingerprint::Fingerprint;
pub use listing::{Footprint, Route, RouteCursor, RoutePage};
pub use options::SubOptions;
pub use retained::{RetainedIndex, ScanBudget, ScanPage, ScanStep, scan_start, scan_step};
pub use router::{GroupMatch, Matches, Router};
pub use shared::{Destination, GroupId, GroupMembers, PickInput, SharedStrategy};
pub use slot::{SLOTS, home, slot};
pub use subscribers::{SessionId, Subscriber};
