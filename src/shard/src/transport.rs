//! What the reactor reports of a connection: accepted, bytes, sent, ended, closed. And the pause of its receive.

use std::net::SocketAddr;

use metrics::Counter;
use mqtt::FrameHeader;

use crate::connection::{Peer, STAMP_MS, State, flag, pause};
use crate::effect::{CloseMode, ConnectionId, Effect, ListenerId, Outgoing, ReceiveEnd};
use crate::journal::Journal;
use crate::leave::End;
use crate::names::{ConnectNames, PeerNames};
use crate::shard::Shard;
use crate::stash::NO_STASH;

/// Bytes a held-back connection may have in its stash before it is no longer read; a packet of the largest size
/// always fits.
const STASH_MAX: usize = 64 * 1024;

/// Connections that go on with what they have sent, in one tick.
const RESUMED_PER_TICK: usize = 1024;
/// How long what a peer sent before it left may wait to be handled.
const ENDING_MAX_MS: u64 = 5000;
/// How long after a failed send the receive may take to tell what the peer said last.
const SEND_FAILED_MAX_MS: u64 = 1000;

/// Answers (PUBACK, SUBACK, PINGRESP) may exceed the limit of an outbox by this much before the client that does not read them
/// is no longer read.
const ANSWERS_MAX: usize = 64 * 1024;

impl Shard {
    /// A connection was accepted into descriptor slot `index`.
    pub fn accepted(&mut self, index: u32, listener: ListenerId, peer: SocketAddr) -> ConnectionId {
        let id = self.clients.connections.open(index, peer, listener);
        self.clients.metrics.inc(Counter::ConnectionsAccepted);
        self.stamp(id);
        if let Err(reason) = self.admit(listener, peer) {
            // Counted as refused; it was never let in, so nothing has to leave.
            self.clients.metrics.inc(Counter::ConnectionsRefused);
            self.listeners.count_end(listener, reason);
            self.refuse(id);
            return id;
        }
        let deadline = self.clients.now.mono_ms + self.profiles.of(listener).mqtt.idle_timeout_ms;
        self.clients.connection_timers.set(index, deadline);
        self.clients.effects.push(Effect::StartReceive(id));
        id
    }

    /// Lets a new connection in, or says why not, as `listeners` shows it.
    fn admit(&mut self, listener: ListenerId, peer: SocketAddr) -> Result<(), &'static str> {
        if self.shutdown.is_some() {
            return Err("shutting_down");
        }
        if self.guard.refusal().is_some() {
            return Err("overloaded"); // SEED-LSN-24
        }
        if !self.profiles.of(listener).options.access.allows(peer.ip()) {
            return Err("access_denied"); // SEED-LSN-08
        }
        self.listeners.enter(listener, self.clients.now.mono_ms)
    }

    /// A proxy in front (PROXY protocol, X-Forwarded-For) has told where a client really is. From now on that is its address, for
    /// access rules, logs and listings. False if its listener does not let it in (SEED-LSN-08, SEED-LSN-12, SEED-LSN-13): the
    /// connection is being closed.
    pub fn real_address(&mut self, id: ConnectionId, address: SocketAddr) -> bool {
        let Some(connection) = self.clients.connections.get_mut(id) else { return false };
        connection.peer = Peer::new(address);
        let allowed = self.profiles.of(connection.listener).options.access.allows(address.ip());
        if !allowed {
            self.clients.metrics.inc(Counter::ConnectionsRefused);
            self.end_connection(id, End::AccessDenied);
        }
        allowed
    }

    /// The layers below MQTT of a connection are open and have learnt who its peer is (SEED-LSN-12, 13, 16, 17). To be called before its
    /// first bytes.
    pub fn peer_known(&mut self, id: ConnectionId, address: Option<SocketAddr>, peer: &PeerNames) {
        if let Some(address) = address
            && !self.real_address(id, address)
        {
            return;
        }
        let Some(connection) = self.clients.connections.get(id) else { return };
        let options = &self.profiles.of(connection.listener).options;
        let identity = peer.psk_identity.clone().filter(|_| options.tls.psk_identity_as_username);
        let username = identity.or_else(|| peer.pick(options.peer_cert_as_username));
        let client_id = peer.pick(options.peer_cert_as_clientid);
        if username.is_some() || client_id.is_some() {
            self.names.insert(id.index, Box::new(ConnectNames { username, client_id }));
        }
    }

    fn refuse(&mut self, id: ConnectionId) {
        let connection = self.clients.connections.get_mut(id).expect("it was opened above");
        connection.state = State::Closing;
        connection.flags |= flag::REFUSED;
        self.clients.effects.push(Effect::Close { id, mode: CloseMode::Now });
    }

    pub(crate) fn stamp(&mut self, id: ConnectionId) {
        let now = u32::try_from(self.clients.now.mono_ms / STAMP_MS).unwrap_or(u32::MAX);
        if let Some(connection) = self.clients.connections.get_mut(id) {
            connection.last_received = now;
        }
    }

    /// Bytes arrived. They are handled in place; what cannot be handled yet is copied.
    pub fn received(&mut self, id: ConnectionId, bytes: &[u8]) {
        let stamp = u32::try_from(self.clients.now.mono_ms / STAMP_MS).unwrap_or(u32::MAX);
        let Some(connection) = self.clients.connections.get_mut(id) else { return };
        connection.last_received = stamp;
        let (state, held) = (connection.state, connection.paused & pause::HOLDS_STASH != 0);
        let has_stash = connection.stash != NO_STASH;
        let is_limited = connection.has(flag::LIMITED);
        self.clients.metrics.add(Counter::BytesReceived, bytes.len() as u64);
        match state {
            State::Closing | State::Free => {}
            State::Leaving => self.stash(id, bytes),
            _ if held => self.hold_back(id, bytes),
            _ if has_stash => self.complete_stash(id, bytes),
            _ => self.handle_packets(id, bytes),
        }
        if is_limited {
            self.charge(id, bytes.len() as u64, 0);
        }
    }

    pub(crate) fn stash(&mut self, id: ConnectionId, bytes: &[u8]) {
        let now_ms = self.clients.now.mono_ms;
        if let Some(connection) = self.clients.connections.get_mut(id) {
            self.clients.stashes.append(&mut connection.stash, id.index, bytes, now_ms);
        }
    }

    /// Brings the one packet in the stash to its end, then goes on with the rest in place.
    fn complete_stash(&mut self, id: ConnectionId, mut bytes: &[u8]) {
        let connection = self.clients.connections.get_mut(id).expect("the caller looked");
        let listener = connection.listener;
        let since_ms = self.clients.stashes.since_ms(connection.stash);
        let mut packet = self.clients.stashes.take(&mut connection.stash);
        let mut whole = false;
        while !bytes.is_empty() {
            let missing = match FrameHeader::peek(&packet) {
                Ok(Some(header)) => header.total_len().saturating_sub(packet.len()),
                // A fixed header is at most 5 bytes: byte by byte until it is whole.
                Ok(None) => 1,
                Err(_) => 0,
            };
            whole = missing == 0;
            if whole {
                break;
            }
            let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
            packet.extend_from_slice(taken);
            bytes = rest;
            whole = self.is_too_large(listener, &packet)
                || matches!(FrameHeader::peek(&packet), Ok(Some(header)) if header.total_len() <= packet.len());
        }
        if let Some(since_ms) = since_ms.filter(|_| !whole)
            && let Some(connection) = self.clients.connections.get_mut(id)
        {
            // Still cut: it stays where it is, and waits since when it did.
            let stash = &mut connection.stash;
            return self.clients.stashes.put_back(stash, id.index, packet, since_ms);
        }
        self.handle_packets(id, &packet);
        self.clients.stashes.recycle(packet);
        if !bytes.is_empty() {
            // The packet may have ended, moved or paused the connection.
            self.continue_with(id, bytes);
        }
    }

    fn continue_with(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.clients.connections.get(id) else { return };
        match connection.state {
            State::Closing | State::Free => {}
            State::Leaving => self.stash(id, bytes),
            _ if connection.paused & pause::HOLDS_STASH != 0 => self.hold_back(id, bytes),
            _ => self.handle_packets(id, bytes),
        }
    }

    /// Keeps bytes of a connection that is held back.
    fn hold_back(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.stash(id, bytes);
        self.handle_ahead(id);
        self.limit_stash(id);
        self.limit_answers(id);
    }

    fn is_too_large(&self, listener: ListenerId, packet: &[u8]) -> bool {
        let max = self.profiles.of(listener).mqtt.max_packet_size_bytes as usize;
        matches!(FrameHeader::peek(packet), Ok(Some(header)) if header.total_len() > max)
    }

    fn limit_stash(&mut self, id: ConnectionId) {
        let Some(connection) = self.clients.connections.get(id) else { return };
        let mqtt = &self.profiles.of(connection.listener).mqtt;
        let max = STASH_MAX.max(mqtt.max_packet_size_bytes as usize);
        if self.clients.stashes.len(connection.stash) > max {
            if connection.paused & pause::AWAITING_REL != 0 {
                // What it waits for may stand behind what would not be read.
                if let Some(connection) = self.clients.connections.get_mut(id) {
                    connection.takes_more = true;
                }
                self.resume(id, pause::AWAITING_REL);
            } else {
                self.pause(id, pause::STASH);
            }
        } else {
            self.resume(id, pause::STASH);
        }
    }

    /// A connection whose answers pile up unread is not read until they have gone.
    pub(crate) fn limit_answers(&mut self, id: ConnectionId) {
        let Some(connection) = self.clients.connections.get(id) else { return };
        let max = self.settings.conn.pending_bytes_max.saturating_add(ANSWERS_MAX);
        if self.clients.outboxes.bytes(connection.outbox) > max {
            self.pause(id, pause::OUTBOX);
        }
    }

    /// The receive of a connection is over.
    pub fn receive_ended(&mut self, id: ConnectionId, end: ReceiveEnd) {
        self.lift_rate(id);
        if let Some(connection) = self.clients.connections.get_mut(id)
            && connection.state == State::Connected
            && connection.paused & pause::HOLDS_STASH != 0
            && connection.stash != NO_STASH
        {
            // What it sent before it left, a DISCONNECT perhaps, is handled first.
            return self.end_soon(id, ENDING_MAX_MS);
        }
        let end = match end {
            ReceiveEnd::PeerClosed => End::PeerClosed,
            ReceiveEnd::Failed(errno) => End::SocketError(errno),
            ReceiveEnd::Refused(name) => End::LayerRefused(name),
        };
        self.end_connection(id, end);
    }

    /// Ends a connection whose peer has gone when what came before is handled, at the latest after `within_ms`.
    fn end_soon(&mut self, id: ConnectionId, within_ms: u64) {
        let deadline_ms = self.clients.now.mono_ms + within_ms;
        let Some(connection) = self.clients.connections.get_mut(id) else { return };
        if connection.state == State::Connected && !connection.is_ending {
            connection.is_ending = true;
            self.clients.connection_timers.set_earlier(id.index, deadline_ms);
        }
    }

    /// A send is over; its buffers come back.
    pub fn sent(&mut self, id: ConnectionId, outgoing: Outgoing, result: Result<(), i32>) {
        let Some(connection) = self.clients.connections.get_mut(id) else {
            self.clients.outboxes.sent(&mut crate::outbox::NO_OUTBOX.clone(), outgoing);
            return;
        };
        let more = self.clients.outboxes.sent(&mut connection.outbox, outgoing);
        // A flush that was asked for meanwhile found the send in flight and took nothing.
        connection.flush_queued = false;
        let (session, paused) = (connection.session, connection.paused);
        if result.is_err() {
            // The receive may still hold a DISCONNECT; its end ends the connection.
            self.end_soon(id, SEND_FAILED_MAX_MS);
            return;
        }
        if more {
            let connection = self.clients.connections.get_mut(id).expect("looked at above");
            crate::clients::queue_flush(connection, id.index, &mut self.clients.effects);
        }
        if self.clients.sessions.session(session).is_some_and(|s| s.mqueue_len() > 0) {
            self.clients.drain_mqueue(router::SessionId(session));
        }
        if paused & pause::OUTBOX != 0 {
            self.resume(id, pause::OUTBOX);
        }
    }

    /// The descriptor slot of a connection is free.
    pub fn closed(&mut self, index: u32) {
        let Some(connection) = self.clients.connections.at_mut(index) else { return };
        assert!(
            matches!(connection.state, State::Closing | State::Leaving),
            "the reactor closes what the shard has ended"
        );
        self.clients.outboxes.close(&mut connection.outbox);
        self.clients.stashes.discard(&mut connection.stash);
        let (listener, refused) = (connection.listener, connection.has(flag::REFUSED));
        let left = connection.state == State::Leaving;
        self.clients.connection_timers.cancel(index);
        if !self.names.is_empty() {
            self.names.remove(&index);
        }
        self.clients.barrier.forget(index);
        self.clients.connections.free(index);
        if left {
            self.listeners.moved(listener, false);
        } else if !refused {
            self.listeners.leave(listener);
        }
    }

    /// Stops reading a connection for a reason.
    pub(crate) fn pause(&mut self, id: ConnectionId, reason: u16) {
        let Some(connection) = self.clients.connections.get_mut(id) else { return };
        let was_read = connection.is_read();
        connection.paused |= reason;
        if was_read && !connection.is_read() {
            self.clients.effects.push(Effect::PauseReceive(id));
        }
    }

    /// A reason to pause is gone. What was held back is handled at the end of the tick.
    pub(crate) fn resume(&mut self, id: ConnectionId, reason: u16) {
        let Some(connection) = self.clients.connections.get_mut(id) else { return };
        if connection.paused & reason == 0 {
            return;
        }
        let was_read = connection.is_read();
        connection.paused &= !reason;
        if !was_read && connection.is_read() {
            // While it was not read it could not be heard: its silence begins now.
            connection.last_received =
                u32::try_from(self.clients.now.mono_ms / STAMP_MS).unwrap_or(u32::MAX);
            self.clients.effects.push(Effect::ResumeReceive(id));
        }
        if connection.paused & pause::HOLDS_STASH == pause::AWAITING_REL {
            // The PUBRELs it waits for may have come while it was held for this reason.
            self.handle_ahead(id);
            return;
        }
        if connection.paused & pause::HOLDS_STASH == 0 {
            connection.paused |= pause::RESUMING;
            self.resumable.push_back(id);
        }
    }

    /// Goes on with connections for which the mesh has room again, and with what was held back.
    pub(crate) fn resume_paused(&mut self) {
        if !self.mesh_paused.is_empty() && !self.mesh.has_blocked() {
            for id in std::mem::take(&mut self.mesh_paused) {
                self.resume(id, pause::MESH);
            }
        }
        let is_full = self.clients.journal.as_ref().is_some_and(Journal::is_full);
        if !self.store_paused.is_empty() && !is_full {
            for id in std::mem::take(&mut self.store_paused) {
                self.resume(id, pause::STORE);
            }
        }
        // All clients may wait for the end of the start, and come on in one tick.
        for _ in 0..self.resumable.len().min(RESUMED_PER_TICK) {
            let Some(id) = self.resumable.pop_front() else { break };
            self.handle_stash(id);
        }
    }

    pub(crate) fn handle_stash(&mut self, id: ConnectionId) {
        let Some(connection) = self.clients.connections.get_mut(id) else { return };
        connection.paused &= !pause::RESUMING;
        if connection.paused & pause::HOLDS_STASH != 0 {
            return;
        }
        // A CONNECT may have waited for its session, or for the start to be over.
        if matches!(connection.state, State::Connected | State::AwaitsConnect) {
            let bytes = self.clients.stashes.take(&mut connection.stash);
            self.handle_packets(id, &bytes);
            self.clients.stashes.recycle(bytes);
        }
        self.limit_stash(id);
        let Some(connection) = self.clients.connections.get_mut(id) else { return };
        if connection.paused & pause::HOLDS_STASH == 0 {
            connection.takes_more = false;
            if connection.is_ending {
                self.end_connection(id, End::PeerClosed);
            }
        }
    }

    /// While a connection is held back for its unreleased `QoS` 2 messages, the PUBRELs that would release them
    /// stand behind the PUBLISH that waits; and while it is for its rate, acknowledgements of what it gets do. They and pings are
    /// therefore handled ahead of it; the order among PUBLISH, SUBSCRIBE and the others stays.
    pub(crate) fn handle_ahead(&mut self, id: ConnectionId) {
        let Some(connection) = self.clients.connections.get_mut(id) else { return };
        let held = connection.paused & pause::HOLDS_STASH;
        if held == 0 || held & !pause::LETS_AHEAD != 0 {
            return;
        }
        let bytes = self.clients.stashes.take(&mut connection.stash);
        let mut kept = Vec::with_capacity(bytes.len());
        let mut rest = &bytes[..];
        while let Ok(Some(header)) = FrameHeader::peek(rest)
            && header.total_len() <= rest.len()
        {
            let (packet, behind) = rest.split_at(header.total_len());
            rest = behind;
            if crate::packets::may_go_ahead(header.packet_type) {
                self.handle_packet(id, &header, packet);
                if self.clients.connections.get(id).is_none_or(|c| c.state != State::Connected) {
                    return;
                }
            } else {
                kept.extend_from_slice(packet);
            }
        }
        kept.extend_from_slice(rest);
        self.stash(id, &kept);
    }
}
