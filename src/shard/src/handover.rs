//! The move of a connection to the shard that is its client's home.
//!
//! Two things arrive there in either order: the descriptor, by the ring, and what was received so far, by the
//! mesh. The connection exists when both are there.

use std::collections::HashMap;

use metrics::Counter;
use mqtt::ReasonCode;
use ring::ShardId;

use crate::connection::State;
use crate::effect::{ConnectionId, Effect};
use crate::leave::End;
use crate::mesh::{ControlMessage, HandOver};
use crate::shard::Shard;

/// Bits of a token: it shares a completion tag with an operation.
const SEQUENCE_BITS: u32 = 40;

/// Hand-overs to this shard of which one half is here.
#[derive(Debug, Default)]
pub(crate) struct HandOvers {
    sequence: u64,
    /// Halves that came by the mesh.
    waiting: HashMap<u64, Box<HandOver>>,
    /// Halves that came by the ring: descriptor slots.
    arrived: HashMap<u64, u32>,
    /// Tokens of our own connections on their way out.
    leaving: HashMap<u32, (u64, ShardId)>,
}

impl Shard {
    /// Begins to move a connection: nothing more of it is handled here.
    pub(crate) fn hand_over(&mut self, id: ConnectionId, to: ShardId) {
        self.handovers.sequence += 1;
        let sequence = self.handovers.sequence & ((1 << SEQUENCE_BITS) - 1);
        let token = (self.id.index() as u64) << SEQUENCE_BITS | sequence;
        let connection = self.clients.connections.get_mut(id).expect("its packet is being handled");
        connection.state = State::Leaving;
        self.clients.connection_timers.cancel(id.index);
        self.handovers.leaving.insert(id.index, (token, to));
        self.clients.effects.push(Effect::HandOver { id, to, token });
    }

    /// The reactor has stopped receiving on a connection that leaves: everything received goes to its home.
    pub fn detach(&mut self, id: ConnectionId) {
        let Some(connection) = self.clients.connections.get_mut(id) else { return };
        assert!(connection.state == State::Leaving, "only a leaving connection is detached");
        let &(token, to) = self.handovers.leaving.get(&id.index).expect("it is leaving");
        let bytes = self.clients.stashes.take(&mut connection.stash);
        let (peer, listener) = (connection.peer.address(), connection.listener);
        let names = self.names.remove(&id.index);
        let message = HandOver { token, peer, listener, names, bytes };
        self.mesh.send_control(to, ControlMessage::HandOver(Box::new(message)));
        self.clients.metrics.inc(Counter::HandoverSent);
    }

    /// The ring has passed the descriptor on, or has not: then the connection is closed here.
    pub fn descriptor_sent(&mut self, id: ConnectionId, result: Result<(), i32>) {
        let Some((token, to)) = self.handovers.leaving.remove(&id.index) else { return };
        let Err(errno) = result else { return };
        log::debug!("a connection could not be moved to shard {}: errno {errno}", to.index());
        self.mesh.send_control(to, ControlMessage::HandOverFailed { token });
        if let Some(connection) = self.clients.connections.get_mut(id) {
            connection.state = State::AwaitsConnect;
            self.end_connection(id, End::ConnectRefused(ReasonCode::ServerBusy));
        }
    }

    /// The descriptor of a connection whose home is here has arrived in slot `index`. The id, if the other half is here
    /// too.
    pub fn descriptor_arrived(&mut self, token: u64, index: u32) -> Option<ConnectionId> {
        match self.handovers.waiting.remove(&token) {
            Some(handover) => Some(self.adopt(*handover, index)),
            None => {
                self.handovers.arrived.insert(token, index);
                None
            }
        }
    }

    /// The mesh's half of a hand-over.
    pub(crate) fn handover_received(&mut self, handover: Box<HandOver>) {
        match self.handovers.arrived.remove(&handover.token) {
            Some(index) => {
                self.adopt(*handover, index);
            }
            None => {
                self.handovers.waiting.insert(handover.token, handover);
            }
        }
    }

    pub(crate) fn handover_failed(&mut self, token: u64) {
        self.handovers.waiting.remove(&token);
    }

    fn adopt(&mut self, handover: HandOver, index: u32) -> ConnectionId {
        let HandOver { peer, listener, names, bytes, .. } = handover;
        let id = self.clients.connections.open(index, peer, listener);
        self.listeners.moved(listener, true);
        if let Some(names) = names {
            self.names.insert(index, names);
        }
        self.clients.metrics.inc(Counter::HandoverReceived);
        self.stamp(id);
        let deadline = self.clients.now.mono_ms + self.profiles.of(listener).mqtt.idle_timeout_ms;
        self.clients.connection_timers.set(index, deadline);
        self.clients.effects.push(Effect::StartReceive(id));
        if self.shutdown.is_some() {
            self.end_connection(id, End::ConnectRefused(ReasonCode::ServerShuttingDown));
        } else if self.listeners.is_stopped(listener) {
            // It was on its way when its listener was stopped.
            self.end_connection(id, End::ListenerStopped);
        } else {
            self.handle_packets(id, &bytes);
        }
        id
    }
}
