//! An engine as the reactor drives it.

use std::net::SocketAddr;

use super::connections::{DIRTY, WANTS_DRAINED};
use super::reassembly;
use super::{Agent, CloseCause, Net};
use crate::wire::Malformed;
use reactor::{Connect, Core};
use ring::Endpoint;
use shard::{ConnectionId, Effect, ListenerId, Now, Outgoing, ReceiveEnd};

/// Timers handled in one tick: a thread that is late goes on reading.
const TIMERS_MAX: usize = 4096;

/// The clients of one thread.
#[derive(Debug)]
pub struct Engine<A> {
    agent: A,
    net: Net,
    /// The doorbell; the threads have nothing to tell each other.
    endpoint: Endpoint<(), ()>,
    has_started: bool,
}

impl<A: Agent> Engine<A> {
    /// An engine for clients 0 to `clients` - 1.
    pub fn new(agent: A, clients: u32, endpoint: Endpoint<(), ()>) -> Engine<A> {
        Engine { agent, net: Net::new(clients), endpoint, has_started: false }
    }

    fn lost(&mut self, id: ConnectionId, cause: CloseCause) {
        if let Some(client) = self.net.lost(id) {
            self.agent.closed(&mut self.net, client, cause);
        }
    }

    /// Hands in all whole packets; keeps the begin of the last.
    fn take_bytes(&mut self, id: ConnectionId, bytes: &[u8]) -> Result<(), Malformed> {
        let Some(client) = self.net.client(id) else { return Ok(()) };
        let mut rest = bytes;
        if let Some(mut partial) = self.take_partial(id) {
            let used = reassembly::complete(&mut partial, rest)?;
            rest = &rest[used..];
            if let Some(frame) = reassembly::first(&partial)? {
                self.agent.packet(&mut self.net, client, &frame);
                partial.clear();
            }
            self.keep_partial(id, partial);
        }
        while self.net.client(id).is_some() {
            let Some(frame) = reassembly::first(rest)? else { break };
            self.agent.packet(&mut self.net, client, &frame);
            rest = &rest[frame.len..];
        }
        if !rest.is_empty() && self.net.client(id).is_some() {
            reassembly::packet_len(rest)?;
            let connection = self.net.connections.get(id).expect("it has a client");
            self.net.ios.need(&mut connection.io).partial.extend_from_slice(rest);
        }
        Ok(())
    }

    fn take_partial(&mut self, id: ConnectionId) -> Option<Vec<u8>> {
        let connection = self.net.connections.get(id)?;
        let io = self.net.ios.get(connection.io).filter(|io| !io.partial.is_empty())?;
        Some(std::mem::take(&mut io.partial))
    }

    fn keep_partial(&mut self, id: ConnectionId, partial: Vec<u8>) {
        let Some(connection) = self.net.connections.get(id) else { return };
        if let Some(io) = self.net.ios.get(connection.io) {
            io.partial = partial;
        }
    }

    fn settle(&mut self, id: ConnectionId) {
        if let Some(connection) = self.net.connections.get(id)
            && !connection.has(DIRTY)
        {
            self.net.ios.release_empty(&mut connection.io);
        }
    }
}

impl<A: Agent> Core for Engine<A> {
    type Command = A::Command;

    fn begin_tick(&mut self, _: Now) {
        self.net.read_clock();
        if !self.has_started {
            self.has_started = true;
            self.agent.start(&mut self.net);
        }
    }

    fn accepted(&mut self, _: u32, _: ListenerId, _: SocketAddr) -> ConnectionId {
        unreachable!("an engine has no listeners")
    }

    #[inline]
    fn received(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.net.read_clock();
        match self.take_bytes(id, bytes) {
            Ok(()) => self.settle(id),
            Err(Malformed) => self.lost(id, CloseCause::Malformed),
        }
    }

    fn receive_ended(&mut self, id: ConnectionId, end: ReceiveEnd) {
        let cause = match end {
            ReceiveEnd::PeerClosed => CloseCause::PeerClosed,
            ReceiveEnd::Failed(errno) => Net::cause(errno),
        };
        self.lost(id, cause);
    }

    fn sent(&mut self, id: ConnectionId, outgoing: Outgoing, result: Result<(), i32>) {
        if let Outgoing::Bytes(buffer) = outgoing {
            self.net.ios.recycle(buffer);
        }
        let Some(connection) = self.net.connections.get(id) else { return };
        connection.sending = 0;
        if let Err(errno) = result {
            return self.lost(id, Net::cause(errno));
        }
        let is_empty = self.net.ios.get(connection.io).is_none_or(|io| io.outbox.is_empty());
        if is_empty && connection.has(WANTS_DRAINED) {
            connection.clear(WANTS_DRAINED);
            if let Some(client) = self.net.client(id) {
                self.agent.drained(&mut self.net, client);
            }
        }
        self.settle(id);
    }

    fn closed(&mut self, index: u32) {
        self.net.freed(index);
    }

    fn descriptor_arrived(&mut self, _: u64, _: u32) -> Option<ConnectionId> {
        unreachable!("connections do not move between engines")
    }

    fn detach(&mut self, _: ConnectionId) {
        unreachable!("connections do not move between engines")
    }

    fn descriptor_sent(&mut self, _: ConnectionId, _: Result<(), i32>) {
        unreachable!("connections do not move between engines")
    }

    fn run_inbox(&mut self) {
        for _ in self.endpoint.next_pending() {}
    }

    fn command(&mut self, command: A::Command) {
        self.agent.command(&mut self.net, command);
    }

    fn run_timers(&mut self) {
        for _ in 0..TIMERS_MAX {
            let Some(timer) = self.net.schedule.pop(self.net.now_ns()) else { break };
            self.agent.timer(&mut self.net, timer);
        }
    }

    fn finish_tick(&mut self) {}

    fn drain_effects(&mut self, effects: &mut Vec<Effect>) {
        self.net.drain_effects(effects);
    }

    fn take_outgoing(&mut self, id: ConnectionId) -> Option<Outgoing> {
        let connection = self.net.connections.get(id)?;
        let bytes = self.net.ios.take_outbox(connection.io)?;
        connection.sending = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.net.look_again |= connection.has(WANTS_DRAINED);
        Some(Outgoing::Bytes(bytes))
    }

    fn next_connect(&mut self) -> Option<Connect> {
        let client = self.net.next_to_open()?;
        let route = self.agent.route(client);
        Some(Connect { token: u64::from(client), from: route.from, to: route.to })
    }

    fn connected(&mut self, token: u64, index: u32) -> ConnectionId {
        self.net.read_clock();
        let client = u32::try_from(token).expect("tokens are clients");
        let (id, is_wanted) = self.net.opened(client, index);
        if is_wanted {
            self.agent.opened(&mut self.net, client);
        }
        id
    }

    fn connect_failed(&mut self, token: u64, errno: i32) {
        let client = u32::try_from(token).expect("tokens are clients");
        if self.net.not_opened(client) {
            self.agent.failed(&mut self.net, client, errno);
        }
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        self.next_deadline_ns().map(|at_ns| at_ns.div_ceil(1_000_000))
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        self.net.next_deadline_ns()
    }

    fn take_foreign(&mut self) {
        self.endpoint.take_foreign();
    }

    fn prepare_park(&mut self) -> bool {
        !std::mem::take(&mut self.net.look_again) && self.endpoint.prepare_park()
    }

    fn unpark(&mut self) {
        self.endpoint.unpark();
    }

    fn has_background_work(&self) -> bool {
        false
    }

    fn run_background(&mut self) {}

    fn is_stopping(&self) -> bool {
        self.net.is_stopping()
    }

    fn is_stopped(&self) -> bool {
        self.net.is_stopped()
    }
}
