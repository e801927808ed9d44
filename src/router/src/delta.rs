//! What a shard tells the others about its routes.

use crate::Fingerprint;

/// One change of a shard's routes. Made at the first and last subscriber of a filter only, sent to
/// every other shard, applied there in ring order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RouteDelta {
    /// The shard wants topics of this fingerprint from now on.
    AddExact(Fingerprint),
    /// The shard has no filter of this fingerprint any more.
    RemoveExact(Fingerprint),
    /// The shard wants what this wildcard filter matches from now on.
    AddWildcard(Box<str>),
    /// The shard has no subscriber at this wildcard filter any more.
    RemoveWildcard(Box<str>),
    /// The shard's number of members in a shared group has changed.
    SharedMembers {
        /// The group; `$queue` for `$queue/...` filters.
        group: Box<str>,
        /// The group's filter, without prefix.
        filter: Box<str>,
        /// How many members the shard has now; 0 when it has left.
        members: u32,
    },
}
