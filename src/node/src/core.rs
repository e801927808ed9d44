//! A shard as its reactor drives it.

use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use filter::PeerInfo;
use reactor::Core;
use shard::{
    Command, ConnectionId, Effect, ListenerId, Now, Outgoing, PeerNames, ReceiveEnd, Shard,
};

/// Puts the two together: neither crate knows the other's type.
pub(crate) struct ShardCore(pub Shard);

impl Core for ShardCore {
    type Command = Command;

    fn begin_tick(&mut self, now: Now) {
        self.0.begin_tick(now);
        if self.0.wants_memory_back() {
            reactor::give_back_memory();
        }
    }

    fn accepted(&mut self, index: u32, listener: ListenerId, peer: SocketAddr) -> ConnectionId {
        self.0.accepted(index, listener, peer)
    }

    fn peer_known(&mut self, id: ConnectionId, peer: &PeerInfo, certificate: Option<&[u8]>) {
        let names = PeerNames {
            common_name: peer.common_name().map(Box::from),
            distinguished_name: peer.distinguished_name().map(Box::from),
            certificate: certificate.map(|der| BASE64_STANDARD.encode(der).into()),
            psk_identity: peer.psk_identity().map(Box::from),
        };
        self.0.peer_known(id, peer.address, &names);
    }

    fn received(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.0.received(id, bytes);
    }

    fn receive_ended(&mut self, id: ConnectionId, end: ReceiveEnd) {
        self.0.receive_ended(id, end);
    }

    fn sent(&mut self, id: ConnectionId, outgoing: Outgoing, result: Result<(), i32>) {
        self.0.sent(id, outgoing, result);
    }

    fn closed(&mut self, index: u32) {
        self.0.closed(index);
    }

    fn descriptor_arrived(&mut self, token: u64, index: u32) -> Option<ConnectionId> {
        self.0.descriptor_arrived(token, index)
    }

    fn detach(&mut self, id: ConnectionId) {
        self.0.detach(id);
    }

    fn descriptor_sent(&mut self, id: ConnectionId, result: Result<(), i32>) {
        self.0.descriptor_sent(id, result);
    }

    fn run_inbox(&mut self) {
        self.0.run_inbox();
    }

    fn command(&mut self, command: Command) {
        self.0.command(command);
    }

    fn run_timers(&mut self) {
        self.0.run_timers();
    }

    fn finish_tick(&mut self) {
        self.0.finish_tick();
    }

    fn drain_effects(&mut self, effects: &mut Vec<Effect>) {
        self.0.drain_effects(effects);
    }

    fn take_outgoing(&mut self, id: ConnectionId) -> Option<Outgoing> {
        self.0.take_outgoing(id)
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        self.0.next_deadline_ms()
    }

    fn take_foreign(&mut self) {
        self.0.take_foreign();
    }

    fn prepare_park(&mut self) -> bool {
        self.0.prepare_park()
    }

    fn unpark(&mut self) {
        self.0.unpark();
    }

    fn tick_took(&mut self, busy_us: u64) {
        self.0.tick_took(busy_us);
    }

    fn has_background_work(&self) -> bool {
        self.0.has_background_work()
    }

    fn run_background(&mut self) {
        self.0.run_background();
    }

    fn is_stopping(&self) -> bool {
        self.0.is_stopping()
    }

    fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }
}
