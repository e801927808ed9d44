//! The thread that reads what shards ask for.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use ring::ShardId;
use shard::storage::{StoreReply, StoredSession};

use super::ShardOutlet;
use super::outlet::send;
use super::shared::Shared;
use crate::core::{Damage, Known, load};
use crate::engine::EngineRead;

/// Something to read, as it was when its batch was applied.
pub(super) struct Job<S> {
    pub(super) snapshot: Arc<S>,
    pub(super) shard: ShardId,
    pub(super) session: StoredSession,
}

pub(super) fn run<S: EngineRead>(
    jobs: &Receiver<Job<S>>,
    outlets: &[ShardOutlet],
    shared: &Arc<Shared>,
) {
    let mut known = Known::default();
    for Job { snapshot, shard, session } in jobs {
        let mut damage = Damage::default();
        let reply = load(&*snapshot, session, &mut known, &mut damage).unwrap_or_else(|error| {
            damage.values += 1;
            log::error!("the store cannot read what shard {shard} asked for: {error}");
            nothing(session)
        });
        // What is not used any more can go from disk.
        drop(snapshot);
        if damage.values > 0 {
            let mut gauges = shared.gauges();
            gauges.damage_read.values += damage.values;
        }
        send(&outlets[shard.index()], reply, shared);
        if shared.is_closing() {
            return;
        }
    }
}

/// The answer when nothing can be read: a client that waits gets on, and what is on disk stays there.
fn nothing(session: StoredSession) -> StoreReply {
    StoreReply::Session { session, entries: Vec::new(), received: Vec::new() }
}
