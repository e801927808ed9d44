//! Messages that go to other shards only when they are on their way to the store (`store.sync = always`).
//!
//! The shard that gets a `QoS` 2 message could have it on disk before the publisher's shard has the id it came with. After a
//! crash between the two the publisher sends it again, nobody knows the id, and the subscriber gets it twice. The store
//! commits in the order in which batches are handed over, so it is enough that the message leaves behind the batch with its id.
//!
//! What goes to the retained index is not held back: it may come twice, and may not be passed by the publisher's next.

use std::sync::Arc;

use ring::{ShardId, ShardSet};
use session::Message;

use crate::mesh::Target;
use crate::shard::Shard;

/// Where a message that is held back is to go.
#[derive(Debug, Clone)]
pub(crate) struct HeldSend {
    to: ShardId,
    target: HeldTarget,
}

#[derive(Debug, Clone)]
enum HeldTarget {
    Subscribers,
    Group { group: Box<str>, filter: Box<str>, hops: u16 },
    Delayed { due_unix_ms: u64 },
}

impl HeldSend {
    /// `None`: it is not to be held back.
    pub fn new(to: ShardId, target: Target<'_>) -> Option<Self> {
        let target = match target {
            Target::Subscribers => HeldTarget::Subscribers,
            Target::Delayed { due_unix_ms } => HeldTarget::Delayed { due_unix_ms },
            Target::Retained { .. } => return None,
            Target::Group { group, filter, hops } => {
                HeldTarget::Group { group: group.into(), filter: filter.into(), hops }
            }
        };
        Some(Self { to, target })
    }

    fn target(&self) -> Target<'_> {
        match &self.target {
            HeldTarget::Subscribers => Target::Subscribers,
            HeldTarget::Delayed { due_unix_ms } => Target::Delayed { due_unix_ms: *due_unix_ms },
            HeldTarget::Group { group, filter, hops } => {
                Target::Group { group, filter, hops: *hops }
            }
        }
    }
}

/// A message that is held back.
#[derive(Debug)]
pub(crate) struct Held {
    /// The batch it is kept by.
    pub sequence: u64,
    /// Its name there.
    pub slot: u16,
    pub number: u64,
    pub message: Arc<Message>,
    pub sends: Vec<HeldSend>,
    /// The shards that have to say that they keep it; it may have gone to some for their retained index.
    pub remote: ShardSet,
}

impl Shard {
    /// Sends what was held back and is handed over by now.
    pub(crate) fn send_held(&mut self) {
        let Some(journal) = &self.clients.journal else { return };
        let handed_over = journal.handed_over();
        while let Some(held) = self.clients.barrier.next_held(handed_over) {
            for send in &held.sends {
                let target = send.target();
                if self.clients.barrier.counts(target, held.message.qos) {
                    self.clients.barrier.sent(send.to);
                }
                self.mesh.send_shared(send.to, target, held.message.clone());
            }
            self.clients.barrier.forget_when_kept(held.slot, held.number, held.remote);
        }
    }
}
