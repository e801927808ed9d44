//! CONNECT: checks, home, takeover, session, CONNACK (MQTT-3.1, MQTT-3.2).

use config::{MqttSettings, ServerMoved};
use metrics::{Counter, DropKind, DropReason, Gauge};
use mqtt::{
    ConnAck, ConnAckProperties, Connect, FrameHeader, Packet, ProtocolVersion, QoS, ReasonCode,
    topic,
};
use router::{SessionId, home, slot};
use session::acl::{Access, AclClient, AclDecision};
use session::{Message, Publication, Session, Will};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::connection::{Connection, Extras, State, Terms, flag, pause};
use crate::effect::{ConnectionId, ListenerId};
use crate::leave::End;
use crate::mount::{expand, mount};
use crate::packets::Handled;
use crate::profile::Profile;
use crate::sessions::NO_CONNECTION;
use crate::shard::Shard;

/// What an assigned client id begins with.
const ASSIGNED_PREFIX: &str = "ringmq-";

/// A keepalive is kept for this factor of its time, times twice the backoff setting (SEED-PROTO-04).
const KEEPALIVE_FACTOR: u64 = 2;

impl Shard {
    /// Handles the first packet of a connection.
    pub(crate) fn handle_connect(
        &mut self,
        id: ConnectionId,
        header: &FrameHeader,
        bytes: &[u8],
    ) -> Handled {
        let body = &bytes[header.header_len..];
        let decoded = Packet::decode(header, body, ProtocolVersion::V5, &self.limits);
        let mut connect = match decoded {
            Ok(Packet::Connect(connect)) => connect,
            Ok(_) => unreachable!("the caller looked at the packet type"),
            Err(error) => {
                self.decode_failed(id, bytes, &error);
                return Handled::Done;
            }
        };
        let names = if self.names.is_empty() { None } else { self.names.remove(&id.index) };
        if let Some(names) = &names {
            connect.username = names.username.as_deref().or(connect.username);
            connect.client_id = names.client_id.as_deref().unwrap_or(connect.client_id);
        }
        if !connect.client_id.is_empty() {
            let target = home(slot(connect.client_id.as_bytes()), self.shards);
            if target != self.id {
                self.names.extend(names.map(|names| (id.index, names)));
                self.hand_over(id, target);
                return Handled::Held;
            }
        }
        if let Some(reason) = self.guard.refusal() {
            self.count_connect();
            self.refuse_connect_for(id, Some(connect.version), reason, End::Overloaded);
            return Handled::Done; // SEED-LSN-24
        }
        let checked = self.check_connect(id, &connect);
        if checked.is_ok() && self.waits_for_session(id, &connect) {
            // It is looked at again, and then by these names.
            self.names.extend(names.map(|names| (id.index, names)));
            return Handled::Held;
        }
        self.count_connect();
        match checked {
            Ok(()) => self.accept_connect(id, &connect),
            Err(reason) => self.refuse_connect(id, Some(connect.version), reason),
        }
        Handled::Done
    }

    fn count_connect(&self) {
        self.clients.metrics.inc(Counter::PacketsReceived);
        self.clients.metrics.inc(Counter::PacketsConnect);
    }

    /// Whether the session a client asks for has to be read from the store first; then it is, and the connection waits.
    fn waits_for_session(&mut self, id: ConnectionId, connect: &Connect<'_>) -> bool {
        if let Some(session) = self.clients.sessions.find(connect.client_id)
            && self.clients.connected(session).is_none()
        {
            // Its end, or its will, may be due and its timer not have fired: the broker may have been away (MQTT-3.1.2-8).
            self.offline_timer(session);
        }
        let session =
            self.clients.sessions.find(connect.client_id).filter(|_| !connect.clean_start);
        let Some(session) = session else { return false };
        // One that is being read for another connection is waited for, though it may have been counted since and found empty.
        let waits = |owner: &Session| {
            owner.needs_load() || owner.is_unloaded() && self.clients.is_loading(owner.stored)
        };
        if !self.clients.sessions.session(session.0).is_some_and(waits) {
            return false;
        }
        self.pause(id, pause::LOADING);
        self.clients.load_session(session, id);
        true
    }

    fn check_connect(&self, id: ConnectionId, connect: &Connect<'_>) -> Result<(), ReasonCode> {
        let connection = self.clients.connections.get(id).expect("its packet is being handled");
        let mqtt = &self.profiles.of(connection.listener).mqtt;
        let v5 = connect.version == ProtocolVersion::V5;
        let (now, peer) = (self.clients.now, connection.peer.ip());
        let (client_id, username) = (connect.client_id, connect.username);
        if self.banned.bans(client_id, username, peer, now.unix_ms / 1000)
            || self.flapping.bans(client_id, now)
        {
            self.clients.metrics.inc(Counter::ClientBanned);
            return Err(ReasonCode::Banned); // SEED-AUTH-19
        }
        match mqtt.server_moved {
            ServerMoved::Off => {}
            ServerMoved::Temporary => return Err(ReasonCode::UseAnotherServer),
            ServerMoved::Permanent => return Err(ReasonCode::ServerMoved),
        }
        // MQTT-3.1.3-8; MQTT 3.1 knows no empty id at all. SEED-PROTO-06.
        let may_be_empty = match connect.version {
            ProtocolVersion::V3_1 => false,
            ProtocolVersion::V3_1_1 => connect.clean_start,
            ProtocolVersion::V5 => true,
        };
        if connect.client_id.is_empty() && !may_be_empty
            || connect.client_id.len() > mqtt.max_client_id_len
        {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        if connect.properties.authentication_method.is_some() {
            return Err(ReasonCode::BadAuthenticationMethod); // v5 MQTT-4.12.0-1
        }
        if !mqtt.allow_anonymous {
            // Without authentication modules nobody can be told from anybody (SEED-AUTH-02).
            return Err(ReasonCode::NotAuthorized);
        }
        if let Some(will) = &connect.will {
            if will.qos as u8 > mqtt.max_qos_allowed && v5 {
                return Err(ReasonCode::QosNotSupported); // v5 MQTT-3.2.2-12
            }
            if will.retain && !mqtt.retain_available && v5 {
                return Err(ReasonCode::RetainNotSupported); // v5 MQTT-3.2.2-13
            }
        }
        if self.is_store_failing() && self.needs_store(connection, connect) {
            return Err(ReasonCode::ServerUnavailable);
        }
        if self.asks_for_unread(connect) {
            return Err(ReasonCode::ServerUnavailable);
        }
        log::trace!("{}: CONNECT of '{}'", connection.peer.address(), connect.client_id);
        Ok(())
    }

    /// Whether a CONNECT cannot be answered while the store does not write: its session is to be kept, and is new, or what is
    /// said about it waits for the store.
    fn needs_store(&self, connection: &Connection, connect: &Connect<'_>) -> bool {
        let profile = self.profiles.of(connection.listener);
        let found = self.clients.sessions.find(connect.client_id).filter(|_| !connect.clean_start);
        let found = found.and_then(|session| self.clients.sessions.session(session.0));
        match found {
            Some(owner) if owner.stored != 0 => owner.needs_load() || self.clients.is_always(),
            _ => session_expiry_s(connect, profile) > 0,
        }
    }

    /// Whether a CONNECT asks for a session whose messages could not be read. Without them it would seem to have had none.
    fn asks_for_unread(&self, connect: &Connect<'_>) -> bool {
        let found = self.clients.sessions.find(connect.client_id).filter(|_| !connect.clean_start);
        let found = found.and_then(|session| self.clients.sessions.session(session.0));
        found.is_some_and(|owner| owner.is_unloaded() && self.clients.is_unread(owner.stored))
    }

    /// Answers a CONNECT with a reason and closes (MQTT-3.2.2-5). A client before MQTT 5 whose CONNECT cannot be read
    /// gets no answer, as it asked none of the questions its return codes answer.
    pub(crate) fn refuse_connect(
        &mut self,
        id: ConnectionId,
        version: Option<ProtocolVersion>,
        reason: ReasonCode,
    ) {
        self.refuse_connect_for(id, version, reason, End::ConnectRefused(reason));
    }

    fn refuse_connect_for(
        &mut self,
        id: ConnectionId,
        version: Option<ProtocolVersion>,
        reason: ReasonCode,
        end: End,
    ) {
        let Some(connection) = self.clients.connections.get_mut(id) else { return };
        if let Some(version) = version {
            connection.version = version;
        }
        let answerable = version.is_some_and(|version| {
            version == ProtocolVersion::V5
                || !matches!(
                    reason,
                    ReasonCode::MalformedPacket
                        | ReasonCode::ProtocolError
                        | ReasonCode::PacketTooLarge
                )
        });
        if answerable {
            let reference = self.profiles.of(connection.listener).mqtt.server_reference.clone();
            let moved = matches!(reason, ReasonCode::UseAnotherServer | ReasonCode::ServerMoved);
            self.clients.write(id.index, Counter::PacketsConnack, |version, out| {
                let properties = ConnAckProperties {
                    server_reference: reference.as_deref().filter(|_| moved),
                    ..ConnAckProperties::default()
                };
                ConnAck { session_present: false, reason, properties }.encode(version, out);
            });
        }
        self.clients.metrics.inc(Counter::ClientConnectRefused);
        self.end_connection(id, end);
    }

    fn accept_connect(&mut self, id: ConnectionId, connect: &Connect<'_>) {
        let assigned = connect.client_id.is_empty().then(|| self.assign_client_id());
        let connection = self.clients.connections.get(id).expect("its packet is being handled");
        let (profiles, listener) = (self.profiles.clone(), connection.listener);
        let profile = profiles.of(listener);
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        let (mountpoint, will_topic) = match self.mount_client(profile, client_id, connect) {
            Ok(mounted) => mounted,
            Err(reason) => return self.refuse_connect(id, Some(connect.version), reason),
        };
        let (session, present) = self.open_session(id, client_id, connect);
        let will = connect.will.as_ref().and_then(|will| {
            let topic = will_topic.as_deref().unwrap_or(will.topic);
            self.accept_will(id, client_id, connect, will, topic)
        });
        let now = self.clients.now;
        let slot = self.clients.sessions.slot_mut(session.0).expect("just opened");
        slot.connection = id.index;
        let owner = slot.session.as_mut().expect("just opened");
        owner.will = will;
        owner.expiry_interval_s = session_expiry_s(connect, profile);
        owner.clean_start = connect.clean_start;
        owner.restart_clocks(now.mono_ms);
        let keepalive_s = keepalive_s(connect, &profile.mqtt);
        let mut extras = connection_extras(connect, profile.mqtt.max_topic_alias);
        let rates = profile.rates(now.mono_ms);
        let (is_limited, is_mounted) = (rates.is_some(), mountpoint.is_some());
        if is_limited || is_mounted {
            let rates = rates.unwrap_or_default();
            extras.get_or_insert_default().terms = Some(Box::new(Terms { rates, mountpoint }));
        }
        let connection = self.clients.connections.get_mut(id).expect("its packet is being handled");
        connection.session = session.0;
        connection.state = State::Connected;
        connection.version = connect.version;
        connection.keepalive_s = keepalive_s;
        connection.connected_unix_s = u32::try_from(now.unix_ms / 1000).unwrap_or(u32::MAX);
        connection.flags |= if connect.is_bridge { flag::BRIDGE } else { 0 };
        connection.flags |= if connect.clean_start { flag::CLEAN_START } else { 0 };
        connection.flags |= if is_limited { flag::LIMITED } else { 0 };
        connection.flags |= if is_mounted { flag::MOUNTED } else { 0 };
        connection.extras = extras;
        self.clients.keep_session(session);
        self.clients.store_head(session);
        self.clients.session_timers.cancel(session.0);
        self.arm_keepalive(id.index);
        self.arm_flow_timer(session);
        self.clients.metrics.inc(Counter::ClientConnected);
        self.clients.metrics.increase(Gauge::Clients);
        self.clients.gauge_session(session);
        self.send_connack(id, connect, assigned.as_deref(), present, keepalive_s);
        if present {
            self.clients.resend_inflight(session); // MQTT-4.4.0-1
            self.clients.drain_mqueue(session);
        }
        self.auto_subscribe(id, session, present);
    }

    /// The prefix of a client's topics, and its will's topic rewritten and behind it, if that is another.
    fn mount_client(
        &self,
        profile: &Profile,
        client_id: &str,
        connect: &Connect<'_>,
    ) -> Result<(Option<Box<str>>, Option<String>), ReasonCode> {
        let rewritten = connect.will.as_ref().and_then(|will| self.rewrites.apply(will.topic));
        if rewritten.as_ref().is_some_and(|t| topic::validate_name(t, &self.limits).is_err()) {
            return Err(ReasonCode::TopicNameInvalid);
        }
        let Some(template) = &profile.options.mountpoint else { return Ok((None, rewritten)) };
        let len_max = self.limits.topic_len_max.min(usize::from(u16::MAX));
        let prefix = expand(template, client_id, connect.username, len_max)?;
        let Some(will) = &connect.will else { return Ok((Some(prefix), None)) };
        let mut topic = String::new();
        let own = rewritten.as_deref().unwrap_or(will.topic);
        let fits = mount(&prefix, own, &self.limits, &mut topic);
        if fits { Ok((Some(prefix), Some(topic))) } else { Err(ReasonCode::TopicNameInvalid) }
    }

    /// Finds the session the client asks for, or makes it; whether it was there (MQTT-3.2.2-1..3). The connection it
    /// may still have is taken over (MQTT-3.1.4-2).
    fn open_session(
        &mut self,
        id: ConnectionId,
        client_id: &str,
        connect: &Connect<'_>,
    ) -> (SessionId, bool) {
        if let Some(session) = self.clients.sessions.find(client_id) {
            let slot = self.clients.sessions.slot(session.0).expect("it was found");
            let connection = slot.connection;
            if connection != NO_CONNECTION {
                self.take_over(connection, connect.clean_start);
            }
            // Ending its connection ends a transient session.
            if self.clients.sessions.find(client_id).is_some() {
                if !connect.clean_start {
                    self.clients.metrics.inc(Counter::SessionResumed);
                    let owner = self.clients.sessions.session_mut(session.0);
                    owner.expect("it was found").load_nothing();
                    return (session, true);
                }
                self.end_session(session, Counter::SessionDiscarded); // MQTT-3.1.2-4
                if self.clients.is_always() {
                    // It is not told so before it is true.
                    self.clients.gate(id);
                }
            }
        }
        let created = u32::try_from(self.clients.now.unix_ms / 1000).unwrap_or(u32::MAX);
        let session = Session::new(client_id, connect.clean_start, created);
        let opened = self.clients.sessions.insert(session);
        self.clients.metrics.inc(Counter::SessionCreated);
        self.clients.gauge_sessions();
        (opened, false)
    }

    fn take_over(&mut self, connection: u32, clean_start: bool) {
        let old = self.clients.connections.at(connection).expect("a session's connection exists");
        let old = ConnectionId { index: connection, generation: old.generation };
        self.clients.metrics.inc(Counter::SessionTakenOver);
        self.end_connection(old, End::TakenOver { session_goes_on: !clean_start });
    }

    /// What the next assigned id is made of. One id tells neither the next nor the seed of the tables' hashes.
    fn assigned_hash(&self) -> u64 {
        let secret = xxh3_64_with_seed(b"assigned client ids", self.seed);
        xxh3_64_with_seed(&(self.assigned << 8 | self.id.index() as u64).to_le_bytes(), secret)
    }

    /// A client id that is at home on this shard, so that no move is needed.
    fn assign_client_id(&mut self) -> String {
        loop {
            self.assigned += 1;
            let id = format!("{ASSIGNED_PREFIX}{:016x}", self.assigned_hash());
            let here = home(slot(id.as_bytes()), self.shards) == self.id;
            if here && self.clients.sessions.find(&id).is_none() {
                return id;
            }
        }
    }

    /// A will whose topic the client may not publish to is not kept (SEED-PUB-15), and counted. `topic` is that behind the
    /// client's prefix.
    fn accept_will(
        &mut self,
        id: ConnectionId,
        client_id: &str,
        connect: &Connect<'_>,
        will: &mqtt::Will<'_>,
        topic: &str,
    ) -> Option<Box<Will>> {
        let connection = self.clients.connections.get(id)?;
        let mqtt = &self.profiles.of(connection.listener).mqtt;
        let (max_qos, may_retain) = (mqtt.max_qos_allowed, mqtt.retain_available);
        let client =
            AclClient { client_id, username: connect.username, peer: connection.peer.ip() };
        if self.acl.check(&client, Access::Publish, will.topic) == AclDecision::Deny {
            self.clients.metrics.inc(Counter::ClientAclDeny);
            self.clients.metrics.count_drop(DropKind::Will, DropReason::AclDenied);
            return None;
        }
        let mut forwarded = Vec::with_capacity(will.forwarded.len());
        will.forwarded.write_to(&mut forwarded);
        let qos = QoS::from_bits((will.qos as u8).min(max_qos));
        let publication = Publication {
            forwarded: &forwarded,
            qos: qos.unwrap_or(QoS::AtMostOnce),
            retain: will.retain && may_retain,
            ..Publication::new(topic, will.payload)
        };
        let now = self.clients.now;
        Some(Box::new(Will {
            message: Message::new(self.clients.message_ids.next(now.unix_ms), &publication),
            expiry_interval_s: will.message_expiry_interval_s,
            delay_s: will.delay_interval_s,
        }))
    }

    /// How long a connection may be silent: one and a half times its keepalive, by default (MQTT-3.1.2-22).
    pub(crate) fn silence_max_ms(&self, listener: ListenerId, keepalive_s: u16) -> u64 {
        let backoff = u64::from(self.profiles.of(listener).mqtt.keepalive_backoff_permille);
        u64::from(keepalive_s) * KEEPALIVE_FACTOR * backoff
    }

    pub(crate) fn arm_keepalive(&mut self, connection: u32) {
        let Some(target) = self.clients.connections.at(connection) else { return };
        if target.keepalive_s == 0 {
            self.clients.connection_timers.cancel(connection); // MQTT-3.1.2-22: 0 turns it off
        } else {
            let deadline =
                self.clients.now.mono_ms + self.silence_max_ms(target.listener, target.keepalive_s);
            self.clients.connection_timers.set(connection, deadline);
        }
    }

    fn send_connack(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        assigned: Option<&str>,
        session_present: bool,
        keepalive_s: u16,
    ) {
        let Some(connection) = self.clients.connections.get(id) else { return };
        let (profiles, listener) = (self.profiles.clone(), connection.listener);
        let mqtt = &profiles.of(listener).mqtt;
        let expiry = self.clients.session_of(id.index).map_or(0, |s| s.expiry_interval_s);
        let asked = connect.properties.session_expiry_interval_s.unwrap_or(0);
        let properties = ConnAckProperties {
            session_expiry_interval_s: (expiry != asked).then_some(expiry),
            receive_maximum: Some(mqtt.receive_maximum),
            maximum_qos: QoS::from_bits(mqtt.max_qos_allowed).unwrap_or(QoS::ExactlyOnce),
            retain_available: mqtt.retain_available,
            maximum_packet_size: Some(mqtt.max_packet_size_bytes),
            assigned_client_id: assigned,
            topic_alias_maximum: mqtt.max_topic_alias,
            wildcard_subscription_available: mqtt.wildcard_subscription,
            subscription_ids_available: mqtt.subscription_identifiers,
            shared_subscription_available: mqtt.shared_subscription,
            server_keep_alive_s: (keepalive_s != connect.keep_alive_s).then_some(keepalive_s),
            // MQTT-3.1.2-28: only to a client that asked for it.
            response_information: mqtt
                .response_information
                .as_deref()
                .filter(|_| connect.properties.request_response_information),
            ..ConnAckProperties::default()
        };
        self.clients.write(id.index, Counter::PacketsConnack, |version, out| {
            let reason = ReasonCode::Success;
            ConnAck { session_present, reason, properties }.encode(version, out);
        });
    }
}

/// How long the session outlives its connection: for v5 what the client asks for, within the setting's limit; before it
/// the setting, unless the session is clean (SEED-SESS-02, SEED-PROTO-20).
fn session_expiry_s(connect: &Connect<'_>, profile: &Profile) -> u32 {
    if connect.version == ProtocolVersion::V5 {
        let asked = connect.properties.session_expiry_interval_s.unwrap_or(0);
        asked.min(profile.mqtt.max_session_expiry_interval_s)
    } else if connect.clean_start {
        0
    } else {
        profile.session.expiry_interval_s
    }
}

/// Server Keep Alive replaces a longer value of the client's, or none, for v5 only (MQTT-3.1.2-21, MQTT-3.2.2-21).
/// A client that asks to be watched more closely is.
fn keepalive_s(connect: &Connect<'_>, mqtt: &MqttSettings) -> u16 {
    let (server, client) = (mqtt.server_keepalive_s, connect.keep_alive_s);
    let longer = client == 0 || client > server;
    if connect.version == ProtocolVersion::V5 && server > 0 && longer { server } else { client }
}

/// What this connection has beyond the least; `None` for a v3 client without a user name.
fn connection_extras(connect: &Connect<'_>, alias_max: u16) -> Option<Box<Extras>> {
    let v5 = connect.version == ProtocolVersion::V5;
    if !v5 && connect.username.is_none() {
        return None;
    }
    let properties = &connect.properties;
    Some(Box::new(Extras {
        username: connect.username.map(Box::from),
        maximum_packet_size: properties.maximum_packet_size.unwrap_or(u32::MAX),
        receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
        alias_maximum: properties.topic_alias_maximum.min(alias_max),
        ..Extras::default()
    }))
}
