//! How connections and sessions end: DISCONNECT, wills, expiry (MQTT-3.14, MQTT-3.1.2-8, MQTT-3.1.2-10).

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{Counter, DropKind, DropReason, Gauge};
use mqtt::{Disconnect, ProtocolVersion, QoS, ReasonCode};
use ring::ShardSet;
use router::{FilterId, GroupId, SessionId, slot};
use session::{Delivery, Message, NEVER_EXPIRES_S, Session, WillDue, will_due};

use crate::away::SharedFilters;
use crate::clients::{Dispatch, QOS_ALL};
use crate::connection::{NO_SESSION, State, pause};
use crate::effect::{CloseMode, ConnectionId, Effect, Farewell};
use crate::journal::carried;
use crate::limit::rests_until_ms;
use crate::sessions::NO_CONNECTION;
use crate::shard::Shard;
use crate::storage::{PASSED_ON, StoredDelayed, StoredSession};

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client sent DISCONNECT; whether it wants its will published (reason 0x04).
    Disconnected { with_will: bool },
    /// The client closed without DISCONNECT.
    PeerClosed,
    /// The socket failed.
    SocketError(i32),
    /// The client broke the protocol.
    ProtocolError(ReasonCode),
    /// The first packet was no CONNECT.
    NotConnect,
    /// Its CONNECT was refused; the CONNACK is in the outbox.
    ConnectRefused(ReasonCode),
    /// Its CONNECT came to an overloaded shard; the CONNACK is in the outbox.
    Overloaded,
    /// Its address, which a proxy told, may not connect here.
    AccessDenied,
    /// Its PROXY header, TLS or WebSocket was wrong; the name it is counted by.
    LayerRefused(&'static str),
    /// No CONNECT in time, or half of one.
    IdleTimeout,
    /// The rest of a packet did not come in time.
    PartialPacket,
    /// Silent for longer than its keepalive allows.
    KeepaliveTimeout,
    /// It does not read what is sent to it.
    SendTimeout,
    /// What it published cannot be kept now, and its version has no way to tell it so.
    StoreFailing,
    /// The same client id connected again.
    TakenOver { session_goes_on: bool },
    /// An administrator ended it.
    Kicked,
    /// Its listener was stopped (SEED-LSN-19).
    ListenerStopped,
    /// The broker stops.
    Shutdown(ReasonCode),
}

impl End {
    /// As `listeners` shows it.
    fn name(self) -> &'static str {
        match self {
            Self::Disconnected { .. } => "normal",
            Self::PeerClosed => "closed",
            Self::SocketError(libc_errno::ECONNRESET) => "reset",
            Self::SocketError(_) => "socket_error",
            Self::ProtocolError(ReasonCode::PacketTooLarge) => "packet_too_large",
            Self::ProtocolError(_) => "protocol_error",
            Self::NotConnect => "not_connect",
            Self::ConnectRefused(ReasonCode::Banned) => "banned",
            Self::ConnectRefused(_) => "connect_refused",
            Self::Overloaded => "overloaded",
            Self::AccessDenied => "access_denied",
            Self::LayerRefused(name) => name,
            Self::IdleTimeout => "idle_timeout",
            Self::PartialPacket => "partial_packet",
            Self::KeepaliveTimeout => "keepalive_timeout",
            Self::SendTimeout => "send_timeout",
            Self::StoreFailing => "store_failing",
            Self::TakenOver { .. } => "conflict",
            Self::Kicked => "kicked",
            Self::ListenerStopped => "listener_stopped",
            Self::Shutdown(_) => "shutdown",
        }
    }

    /// What a v5 client is told (v5 MQTT-4.13.1-1); `None` where it is not there to hear it.
    fn disconnect_reason(self) -> Option<ReasonCode> {
        match self {
            Self::ProtocolError(reason) | Self::Shutdown(reason) => Some(reason),
            Self::KeepaliveTimeout => Some(ReasonCode::KeepAliveTimeout),
            Self::TakenOver { .. } => Some(ReasonCode::SessionTakenOver), // MQTT-3.1.4-3
            Self::Kicked | Self::ListenerStopped => Some(ReasonCode::AdministrativeAction),
            Self::PartialPacket => Some(ReasonCode::MalformedPacket),
            _ => None,
        }
    }

    /// Whether it was the client's doing: what flapping is about.
    fn is_by_client(self) -> bool {
        !matches!(
            self,
            Self::Kicked | Self::ListenerStopped | Self::StoreFailing | Self::Shutdown(_)
        )
    }

    /// The same for the layers below MQTT.
    fn farewell(self) -> Farewell {
        match self {
            Self::ProtocolError(reason) | Self::ConnectRefused(reason) => of_reason(reason),
            Self::NotConnect | Self::PartialPacket => Farewell::ProtocolError,
            Self::Kicked | Self::KeepaliveTimeout | Self::AccessDenied => Farewell::NotAllowed,
            Self::ListenerStopped | Self::Shutdown(_) => Farewell::Stopping,
            _ => Farewell::Done,
        }
    }

    fn close_mode(self) -> CloseMode {
        match self {
            Self::PeerClosed
            | Self::SocketError(_)
            | Self::SendTimeout
            | Self::IdleTimeout
            | Self::AccessDenied => CloseMode::Now,
            _ => CloseMode::Linger,
        }
    }
}

/// What a reason code comes to.
const fn of_reason(reason: ReasonCode) -> Farewell {
    match reason {
        ReasonCode::PacketTooLarge => Farewell::TooBig,
        ReasonCode::PayloadFormatInvalid => Farewell::BadPayload,
        ReasonCode::UnspecifiedError | ReasonCode::ImplementationSpecificError => Farewell::Broken,
        ReasonCode::ServerBusy
        | ReasonCode::ServerUnavailable
        | ReasonCode::QuotaExceeded
        | ReasonCode::ConnectionRateExceeded => Farewell::Busy,
        ReasonCode::ServerShuttingDown => Farewell::Stopping,
        ReasonCode::UseAnotherServer | ReasonCode::ServerMoved => Farewell::Done,
        ReasonCode::ClientIdentifierNotValid
        | ReasonCode::BadUserNameOrPassword
        | ReasonCode::NotAuthorized
        | ReasonCode::Banned
        | ReasonCode::BadAuthenticationMethod
        | ReasonCode::MessageRateTooHigh
        | ReasonCode::AdministrativeAction => Farewell::NotAllowed,
        _ => Farewell::ProtocolError,
    }
}

/// Errnos this crate names; it has no system library below it.
mod libc_errno {
    pub const ECONNRESET: i32 = 104;
}

impl Shard {
    pub(crate) fn handle_disconnect(&mut self, id: ConnectionId, disconnect: &Disconnect<'_>) {
        self.clients.metrics.inc(Counter::PacketsDisconnect);
        if let Some(expiry_s) = disconnect.session_expiry_interval_s {
            let Some(connection) = self.clients.connections.get(id) else { return };
            let max = self.profiles.of(connection.listener).mqtt.max_session_expiry_interval_s;
            let Some(session) = self.clients.session_of(id.index) else { return };
            if session.is_transient() && expiry_s > 0 {
                return self.protocol_error(id, ReasonCode::ProtocolError); // v5 MQTT-3.14.2-2
            }
            session.expiry_interval_s = expiry_s.min(max);
            let connection = self.clients.connections.get(id).expect("its session was found");
            self.clients.gauge_session(SessionId(connection.session));
        }
        // Any reason but 0x00 leaves the will in place (v5 MQTT-3.14.4-3, MQTT-3.1.2-10).
        let with_will = disconnect.reason != ReasonCode::Success;
        self.end_connection(id, End::Disconnected { with_will });
    }

    /// Ends a connection; of one that is ending already nothing more is made.
    pub(crate) fn end_connection(&mut self, id: ConnectionId, end: End) {
        let Some(connection) = self.clients.connections.get_mut(id) else { return };
        if matches!(connection.state, State::Closing | State::Leaving) {
            // A leaving connection is the reactor's until the hand-over is over.
            return;
        }
        let (session, listener) = (connection.session, connection.listener);
        let was_connected = connection.state == State::Connected;
        let tell = connection.version == ProtocolVersion::V5 && was_connected;
        if tell && let Some(reason) = end.disconnect_reason() {
            let reference = self.profiles.of(listener).mqtt.server_reference.clone();
            self.clients.write(id.index, Counter::PacketsDisconnectSent, |version, out| {
                let disconnect = Disconnect {
                    server_reference: reference.as_deref().filter(|_| is_move(reason)),
                    ..Disconnect::new(reason)
                };
                disconnect.encode(version, out);
            });
        }
        let connection = self.clients.connections.get_mut(id).expect("looked at above");
        connection.state = State::Closing;
        connection.session = NO_SESSION;
        if let Some(until_ms) = rests_until_ms(connection) {
            self.rests.remove(&(until_ms, id.index));
        }
        connection.extras = None;
        self.clients.stashes.discard(&mut connection.stash);
        self.clients.connection_timers.cancel(id.index);
        self.listeners.count_end(listener, end.name());
        if was_connected && session != NO_SESSION {
            self.clients.metrics.inc(Counter::ClientDisconnected);
            if self.flapping.is_on() && end.is_by_client() {
                let session = self.clients.sessions.session(session);
                let client_id = &session.expect("a connection's session exists").client_id;
                self.flapping.disconnected(client_id, self.clients.now);
            }
            self.leave_session(SessionId(session), end);
        }
        let why = end.farewell();
        if why != Farewell::Done {
            self.clients.effects.push(Effect::Farewell { id, why });
        }
        if !self.clients.close_behind(id, end.close_mode()) {
            self.clients.effects.push(Effect::Close { id, mode: end.close_mode() });
        }
    }

    /// The connection of a session has ended.
    fn leave_session(&mut self, id: SessionId, end: End) {
        let now = self.clients.now;
        let slot = self.clients.sessions.slot_mut(id.0).expect("a connection's session exists");
        slot.connection = NO_CONNECTION;
        slot.went_offline(now.mono_ms, 0);
        let session = slot.session.as_mut().expect("the slot is in use");
        session.release_idle();
        let transient = session.is_transient();
        self.clients.metrics.decrease(Gauge::Clients);
        if let End::Disconnected { with_will: false } = end {
            session_will_discarded(self, id); // MQTT-3.14.4-3
        }
        let session = self.clients.sessions.session_mut(id.0).expect("looked at above");
        let expiry_s = session.expiry_interval_s;
        let delay_s = session.will.as_ref().map(|will| will.delay_s);
        let goes_on = matches!(end, End::TakenOver { session_goes_on: true });
        match delay_s.map(|delay_s| will_due(delay_s, expiry_s)) {
            Some(WillDue::Now) => self.publish_will(id),
            // The client is back already, so its delay cannot pass (MQTT-3.1.3-9).
            Some(WillDue::AfterSeconds(_)) if goes_on => session_will_discarded(self, id),
            _ => {}
        }
        if transient {
            self.end_session(id, Counter::SessionTerminated);
        } else {
            self.clients.store_head(id);
            self.arm_offline_timer(id);
            self.clients.may_unload(id);
        }
    }

    /// The timer of a session without connection: its will, or its end.
    pub(crate) fn arm_offline_timer(&mut self, id: SessionId) {
        let Some(slot) = self.clients.sessions.slot(id.0) else { return };
        let session = slot.session.as_ref().expect("the slot is in use");
        let will = session.will.as_ref().map(|will| will.delay_s);
        let expiry = Some(session.expiry_interval_s).filter(|&s| s != NEVER_EXPIRES_S);
        let first_s = match (will, expiry) {
            (Some(will), Some(expiry)) => will.min(expiry),
            (Some(seconds), None) | (None, Some(seconds)) => seconds,
            (None, None) => return,
        };
        let now_ms = self.clients.now.mono_ms;
        let left_ms = (u64::from(first_s) * 1000).saturating_sub(slot.offline_ms(now_ms));
        self.clients.session_timers.set(id.0, now_ms + left_ms);
    }

    /// The timer of a session without connection has fired.
    pub(crate) fn offline_timer(&mut self, id: SessionId) {
        let now_ms = self.clients.now.mono_ms;
        let Some(slot) = self.clients.sessions.slot(id.0) else { return };
        if slot.is_expired(now_ms) {
            self.end_session(id, Counter::SessionExpired);
            return;
        }
        let offline_ms = slot.offline_ms(now_ms);
        let session = slot.session.as_ref().expect("the slot is in use");
        let is_due = |delay_s: u32| offline_ms >= u64::from(delay_s) * 1000;
        if session.will.as_ref().is_some_and(|will| is_due(will.delay_s)) {
            self.publish_will(id);
            self.clients.store_head(id);
        }
        self.arm_offline_timer(id);
    }

    /// Publishes the will of a session, which thereby has none any more (MQTT-3.1.2-8, MQTT-3.1.2-10).
    pub(crate) fn publish_will(&mut self, id: SessionId) {
        let Some(session) = self.clients.sessions.session_mut(id.0) else { return };
        let Some(will) = session.will.take() else { return };
        let now = self.clients.now;
        let mut publication = will.message.publication();
        publication.origin = self.clients.origin(id);
        publication.expires_unix_ms =
            will.expiry_interval_s.map(|s| now.unix_ms + u64::from(s) * 1000);
        self.clients.metrics.inc(Counter::MessagesWill);
        let mut dispatch = Dispatch::new(publication, None);
        if self.clients.is_always() && publication.qos != QoS::AtMostOnce {
            dispatch.hold_back();
        }
        let routed = self.route(&mut dispatch);
        if !routed.remote.is_empty() && publication.qos != QoS::AtMostOnce {
            let message = dispatch.message(&mut self.clients.message_ids, now).clone();
            let owner = self.clients.sessions.session(id.0).expect("looked at above");
            let slot = slot(owner.client_id.as_bytes());
            self.keep_until_kept(slot, 0, message, routed.remote, routed.held);
        }
    }

    /// Ends a session: its will is published, its subscriptions go (MQTT-3.1.2-6).
    pub(crate) fn end_session(&mut self, id: SessionId, why: Counter) {
        self.publish_will(id);
        let ended_away = self.note_ended_away(id);
        let Some(session) = self.clients.sessions.session_mut(id.0) else { return };
        let subscriptions: Vec<_> = session.subscriptions.take().collect();
        let undelivered = session.take_undelivered();
        let groups = self.groups_of(&undelivered);
        for subscription in &subscriptions {
            self.router.unsubscribe(id, subscription.filter, &mut self.deltas);
        }
        self.clients.metrics.inc(why);
        for connection in self.clients.unstore_session(id, ended_away) {
            self.resume(connection, pause::LOADING);
        }
        self.clients.session_timers.cancel(id.0);
        self.replays.end_session(id);
        self.clients.gauge_session_gone(id);
        self.clients.sessions.remove(id);
        for delivery in undelivered {
            self.deliver_to_another(&delivery, &groups);
        }
        self.clients.gauge_sessions();
        self.gauge_routes();
    }
}

/// Shared groups by the filter their members had here.
type Groups = BTreeMap<FilterId, GroupName>;
/// The name of a shared group, and the topic filter of it.
pub(crate) type GroupName = (Box<str>, Box<str>);

impl Shard {
    /// The names of the groups some messages came by, while they can still be looked up.
    fn groups_of(&self, undelivered: &[Delivery]) -> Groups {
        let mut groups = Groups::new();
        for filter in undelivered.iter().filter_map(|delivery| delivery.shared) {
            let group = self.router.group_of(filter).and_then(|group| self.router.group(group));
            if let Some((group, filter_text)) = group {
                groups.entry(filter).or_insert_with(|| (group.into(), filter_text.into()));
            }
        }
        groups
    }

    /// What an ended session did not get is lost; but a `QoS` 1 message of a shared group goes to another member (v5 4.8.2).
    /// One of `QoS` 2 does not: the client may have it already (MQTT-4.8.2-5).
    fn deliver_to_another(&mut self, delivery: &Delivery, groups: &Groups) {
        let again = delivery.shared.filter(|_| delivery.qos == QoS::AtLeastOnce);
        let group = again
            .and_then(|filter| groups.get(&filter))
            .and_then(|(group, filter)| self.router.group_find(group, filter));
        match group {
            Some(group) => {
                let message = &delivery.message;
                let remote = self.pass_to_group(group, message);
                if !remote.is_empty() {
                    // It is kept here until it is kept there.
                    let slot = slot(message.topic().as_bytes());
                    self.keep_until_kept(slot, PASSED_ON, message.clone(), remote, Vec::new());
                }
            }
            None => self.clients.count_drop(delivery.qos, DropReason::SessionClosed),
        }
    }

    /// Gives a message that a member did not get to another one. The shards it went to, if that is elsewhere.
    fn pass_to_group(&mut self, group: GroupId, message: &Arc<Message>) -> ShardSet {
        let mut dispatch = Dispatch::new(message.publication(), Some(message));
        self.dispatch_to_group(group, &mut dispatch);
        dispatch.remote
    }

    /// The same with one that the store has as on its way: it is forgotten there when what it becomes is kept, or sure to be.
    fn pass_stored(&mut self, group: GroupId, given: &StoredDelayed) {
        let remote = self.pass_to_group(group, &given.message);
        if self.clients.is_always() && !remote.is_empty() {
            self.clients.barrier.forget_when_kept(given.slot, given.number, remote);
        } else {
            self.clients.forget_passed_on(given);
        }
    }

    /// The shared groups of a session: as its subscriptions know them, by name, and their topic filters.
    fn groups_of_session(&self, session: &Session) -> impl Iterator<Item = (FilterId, &str, &str)> {
        session.subscriptions.iter().filter_map(|subscription| {
            let group = self.router.group_of(subscription.filter)?;
            let (name, text) = self.router.group(group)?;
            Some((subscription.filter, name, text))
        })
    }

    /// The shared filters of a session.
    pub(crate) fn shared_filters(&self, id: SessionId) -> SharedFilters {
        let Some(session) = self.clients.sessions.session(id.0) else { return Vec::new() };
        self.groups_of_session(session).map(|(filter, _, text)| (filter, text.into())).collect()
    }

    /// A session ends. If its messages are in the store only the store is to say what they were; the groups they may have come by
    /// are noted.
    fn note_ended_away(&mut self, id: SessionId) -> bool {
        let Some(session) = self.clients.sessions.session(id.0) else { return false };
        if !session.needs_load() {
            return false;
        }
        let stored = session.stored;
        let groups = self.groups_of_session(session);
        let groups: Vec<GroupName> =
            groups.map(|(_, name, text)| (name.into(), text.into())).collect();
        if !groups.is_empty() {
            self.groups_of_ended.insert(stored, groups);
        }
        true
    }

    /// The store has removed messages of a session that ended while they were there only.
    pub(crate) fn unloaded_session_ended(
        &mut self,
        session: StoredSession,
        lost: [u32; 3],
        by_group: Vec<StoredDelayed>,
        is_last: bool,
    ) {
        for (qos, count) in QOS_ALL.into_iter().zip(lost) {
            self.clients.count_drops(qos, DropReason::SessionClosed, count);
        }
        let stored = carried(session);
        let groups = self.groups_of_ended.remove(&stored).unwrap_or_default();
        for given in by_group {
            let topic = given.message.topic();
            let matching = groups.iter().find(|(_, filter)| mqtt::topic::matches(filter, topic));
            match matching.and_then(|(group, filter)| self.router.group_find(group, filter)) {
                Some(group) => self.pass_stored(group, &given),
                None => {
                    self.clients.count_drop(QoS::AtLeastOnce, DropReason::SessionClosed);
                    self.clients.forget_passed_on(&given);
                }
            }
        }
        if !is_last && !groups.is_empty() {
            self.groups_of_ended.insert(stored, groups);
        }
    }
}

fn session_will_discarded(shard: &mut Shard, id: SessionId) {
    if let Some(session) = shard.clients.sessions.session_mut(id.0)
        && session.will.take().is_some()
    {
        shard.clients.metrics.count_drop(DropKind::Will, DropReason::Discarded);
    }
}

fn is_move(reason: ReasonCode) -> bool {
    matches!(reason, ReasonCode::UseAnotherServer | ReasonCode::ServerMoved)
}
