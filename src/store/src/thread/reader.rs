//! The thread that reads what shards ask for.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use ring::ShardId;
use shard::storage::{StoreLoad, StoreReply};

use super::ShardOutlet;
use super::outlet::send;
use super::shared::Shared;
use crate::core::{Damage, Known, load};
use crate::engine::EngineRead;

/// Something to read, as it was when its batch was applied.
pub(super) struct Job<S> {
    pub(super) snapshot: Arc<S>,
    pub(super) shard: ShardId,
    pub(super) load: StoreLoad,
}

pub(super) fn run<S: EngineRead>(
    jobs: &Receiver<Job<S>>,
    outlets: &[ShardOutlet],
    shared: &Arc<Shared>,
) {
    let mut known = Known::default();
    for Job { snapshot, shard, load: what } in jobs {
        let mut damage = Damage::default();
        let reply = load(&*snapshot, &what, &mut known, &mut damage).unwrap_or_else(|error| {
            damage.values += 1;
            log::error!("the store cannot read what shard {shard} asked for: {error}");
            nothing(&what)
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
fn nothing(load: &StoreLoad) -> StoreReply {
    match load {
        StoreLoad::Session(session) => {
            StoreReply::Session { session: *session, entries: Vec::new(), received: Vec::new() }
        }
        StoreLoad::Retained { token, .. } => {
            StoreReply::RetainedMessages { token: *token, messages: Vec::new() }
        }
    }
}
