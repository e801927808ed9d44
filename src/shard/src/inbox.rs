//! What comes from other shards.

use metrics::Counter;
use ring::ShardId;

use crate::clients::Dispatch;
use crate::mesh::{ControlMessage, Target};
use crate::shard::Shard;
use crate::storage::PASSED_ON;

/// Batches taken from one shard in one tick; the rest waits for the next, so that a busy neighbour does not keep this
/// shard from its own connections.
const BATCHES_PER_TICK: usize = 8;

impl Shard {
    /// Takes what other shards have sent.
    pub fn run_inbox(&mut self) {
        self.inbox_left = false;
        self.run_store();
        if self.shards == 1 {
            return;
        }
        let mut data = std::mem::take(&mut self.scratch.data);
        let mut control = std::mem::take(&mut self.scratch.control);
        for from in self.mesh.endpoint.next_pending().iter() {
            let mut left = BATCHES_PER_TICK;
            // Control first: routes and hand-overs are few and somebody waits for them.
            while left > 0 && self.mesh.endpoint.pop_control(from, &mut control) {
                left -= 1;
                for message in control.drain() {
                    self.handle_control(from, message);
                }
                control.shrink();
            }
            // While more waits for the store than may, what others publish waits in the rings, and in the end those who publish it.
            while left > 0
                && !self.is_journal_full()
                && self.mesh.endpoint.pop_data(from, &mut data)
            {
                left -= 1;
                self.clients.metrics.inc(Counter::MeshBatchesReceived);
                self.handle_data(from, &data);
                data.clear();
            }
            if left == 0 {
                self.mesh.endpoint.keep_pending(from);
                self.inbox_left = true;
            }
        }
        self.scratch.data = data;
        self.scratch.control = control;
    }

    fn handle_data(&mut self, from: ShardId, batch: &crate::mesh::DataBatch) {
        for (target, publication, message) in batch.iter() {
            let mut dispatch = Dispatch::new(publication, message);
            if self.clients.barrier.counts(target, publication.qos) {
                self.clients.barrier.received(from);
            }
            match target {
                Target::Subscribers => self.route_local(&mut dispatch),
                Target::Group { group, filter, hops } => {
                    self.deliver_to_group(group, filter, hops, &mut dispatch);
                }
                Target::Retained { is_again } => {
                    dispatch.is_again = is_again;
                    self.store_retained(&mut dispatch);
                }
                Target::Delayed { due_unix_ms } => self.keep_delayed(due_unix_ms, &mut dispatch),
            }
            if !dispatch.remote.is_empty() {
                // It was passed on: our word is that it is not lost, whoever has it in the end.
                let now = self.clients.now;
                let message = dispatch.message(&mut self.clients.message_ids, now).clone();
                let slot = router::slot(message.topic().as_bytes());
                self.keep_until_kept(slot, PASSED_ON, message, dispatch.remote, Vec::new());
            }
        }
    }

    fn handle_control(&mut self, from: ShardId, message: ControlMessage) {
        match message {
            ControlMessage::Routes { deltas, sequence } => {
                self.apply_routes(from, &deltas, sequence);
            }
            ControlMessage::RoutesApplied { sequence } => self.routes_applied(from, sequence),
            ControlMessage::HandOver(handover) => self.handover_received(handover),
            ControlMessage::HandOverFailed { token } => self.handover_failed(token),
            ControlMessage::Kept { count } => self.kept(from, count),
            ControlMessage::StoreFound => self.peer_found(from),
            ControlMessage::StoreReady => self.peer_ready(from),
            ControlMessage::Ended => self.peer_ended(from),
            ControlMessage::RetainedRequest(request) => self.retained_requested(from, request),
            ControlMessage::RetainedPage(page) => self.retained_received(page),
        }
    }
}
