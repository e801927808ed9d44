//! The thread that reads what shards ask for.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use ring::ShardId;
use shard::storage::{StoreReply, StoredSession};

use super::outlet::send;
use super::shared::Shared;
use super::{OnEvent, ShardOutlet, StoreEvent};
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
    on_event: &OnEvent,
) {
    let mut known = Known::default();
    for Job { snapshot, shard, session } in jobs {
        let mut damage = Damage::default();
        let mut said = None;
        let reply = load(&*snapshot, session, &mut known, &mut damage).unwrap_or_else(|error| {
            damage.values += 1;
            said = Some(format!(
                "{error}; clients whose session cannot be read are refused, and what is on disk of it stays"
            ));
            StoreReply::Unread { session }
        });
        if let Some(text) = said.or_else(|| damage.text()) {
            on_event(StoreEvent::Damaged(&text));
        }
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
