//! PUBLISH from a client, and the acknowledgements of both directions (MQTT-3.3 to MQTT-3.7, MQTT-4.3).

use std::rc::Rc;

use metrics::{Counter, DropReason};
use mqtt::{Ack, PacketId, PacketType, Publish, QoS, ReasonCode};
use router::{SessionId, slot};
use session::acl::{Access, AclClient, AclDecision};
use session::{Acknowledged, Publication, Received};

use crate::clients::Dispatch;
use crate::connection::{Connection, NO_SESSION, flag, pause};
use crate::delayed::When;
use crate::dispatch::Routed;
use crate::effect::ConnectionId;
use crate::leave::End;
use crate::mount::mount;
use crate::packets::Handled;
use crate::shard::Shard;

/// Why a PUBLISH is not routed.
enum Refused {
    /// It is answered with this.
    Answered(ReasonCode),
    /// Its connection ends with this.
    Ends(ReasonCode),
}

impl Shard {
    pub(crate) fn handle_publish(&mut self, id: ConnectionId, publish: &Publish<'_>) -> Handled {
        let connection = self.clients.connections.get_mut(id).expect("its packet is being handled");
        let session = SessionId(connection.session);
        let is_limited = connection.has(flag::LIMITED);
        let alias_max = self.profiles.of(connection.listener).mqtt.max_topic_alias;
        let alias = match resolve_alias(connection, publish, alias_max) {
            Ok(alias) => alias,
            Err(reason) => {
                self.protocol_error(id, reason);
                return Handled::Done;
            }
        };
        let topic = alias.as_deref().unwrap_or(publish.topic);
        if let Err(reason) = self.check_publish(id, publish) {
            self.protocol_error(id, reason);
            return Handled::Done;
        }
        if self.is_store_failing() && self.refuse_unkept(id, session, topic, publish) {
            return Handled::Done;
        }
        if let (QoS::ExactlyOnce, Some(packet_id)) = (publish.qos, publish.packet_id) {
            if !publish.dup {
                self.forget_stale(session, packet_id);
            }
            match self.receive_qos2(id, session, packet_id) {
                Some(Received::First) => {}
                Some(Received::Repeated) => {
                    self.count_received(publish.qos);
                    if is_limited {
                        self.charge(id, 0, 1);
                    }
                    self.acknowledge(id, publish.qos, publish.packet_id, ReasonCode::Success);
                    return Handled::Done;
                }
                Some(Received::Full) => return Handled::Held,
                None => return Handled::Done,
            }
        }
        self.count_received(publish.qos);
        if is_limited {
            self.charge(id, 0, 1);
        }
        let mut routed = match self.publish_to(id, session, topic, publish) {
            Ok(routed) => routed,
            Err(Refused::Answered(reason)) => {
                self.acknowledge(id, publish.qos, publish.packet_id, reason);
                return Handled::Done;
            }
            Err(Refused::Ends(reason)) => {
                self.protocol_error(id, reason);
                return Handled::Done;
            }
        };
        if routed.mesh_full {
            self.pause(id, pause::MESH);
            self.mesh_paused.push(id);
        }
        let has_keepers = routed.destinations > 0 || publish.retain;
        if publish.qos != QoS::AtMostOnce && has_keepers {
            self.wait_until_kept(id, session, publish.qos, &mut routed);
        }
        self.acknowledge(id, publish.qos, publish.packet_id, routed.reason());
        Handled::Done
    }

    /// Refuses a message that somebody would have to keep while the store cannot write. A client before MQTT 5 cannot be told: its
    /// connection ends, so that it sends this message again before those behind it (MQTT-4.4.0-1, MQTT-4.6.0-1).
    fn refuse_unkept(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        topic: &str,
        publish: &Publish<'_>,
    ) -> bool {
        let (qos, Some(packet_id)) = (publish.qos, publish.packet_id) else { return false };
        let is_qos2 = qos == QoS::ExactlyOnce;
        let owner = self.clients.sessions.session(session.0);
        if is_qos2 && owner.is_some_and(|owner| owner.awaits_rel(packet_id)) {
            // It was taken before.
            return false;
        }
        // Where a delayed or rewritten topic leads to is not looked into.
        let is_changed = topic.starts_with('$') || self.rewrites.apply(topic).is_some();
        let is_kept = publish.retain || is_changed || is_qos2 && self.clients.is_kept(session);
        if !is_kept && !self.has_destinations(id, topic) {
            return false;
        }
        self.count_received(qos);
        if self.clients.connections.get(id).is_some_and(|c| c.has(flag::LIMITED)) {
            self.charge(id, 0, 1);
        }
        self.clients.count_drop(qos, DropReason::StoreFailing);
        if self.clients.connections.get(id).is_some_and(Connection::is_v5) {
            let packet_type = if is_qos2 { PacketType::PubRec } else { PacketType::PubAck };
            self.clients.write_ack(id.index, packet_type, packet_id, ReasonCode::QuotaExceeded);
        } else {
            self.end_connection(id, End::StoreFailing);
        }
        true
    }

    /// Whether anybody would get what a client publishes to this topic.
    fn has_destinations(&mut self, id: ConnectionId, topic: &str) -> bool {
        let extras = self.clients.connections.get(id).and_then(|c| c.extras.as_ref());
        let mut mounted = std::mem::take(&mut self.scratch.topic);
        let topic = match extras.and_then(|extras| extras.mountpoint()) {
            Some(prefix) if mount(prefix, topic, &self.limits, &mut mounted) => &mounted,
            _ => topic,
        };
        let matches = &mut self.scratch.matches;
        self.router.matches(topic, matches);
        let found =
            !(matches.filters.is_empty() && matches.shards.is_empty() && matches.groups.is_empty());
        self.scratch.topic = mounted;
        found
    }

    /// Lets the answer to a PUBLISH wait until the message is kept by all that have to.
    fn wait_until_kept(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        qos: QoS,
        routed: &mut Routed,
    ) {
        if !self.clients.is_always() && routed.remote.is_empty() {
            return;
        }
        self.clients.gate(id);
        let is_kept_here = match &routed.message {
            // It is enough that it is kept here, beside the id it came with, and published again if need be.
            Some(message) if qos == QoS::ExactlyOnce && self.clients.is_kept(session) => {
                let owner = self.clients.sessions.session(session.0).expect("it is kept");
                let slot = slot(owner.client_id.as_bytes());
                let held = std::mem::take(&mut routed.held);
                let due_unix_ms = routed.due_unix_ms;
                self.keep_until_kept(slot, due_unix_ms, message.clone(), routed.remote, held)
            }
            _ => false,
        };
        if !is_kept_here {
            self.clients.barrier.need(routed.remote);
        }
    }

    /// Finds the topic a PUBLISH is for, looks whether its client may publish to it, and routes it. Access rules see what the
    /// client sent, without its delay; what is rewritten may ask for a delay itself.
    fn publish_to(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        text: &str,
        publish: &Publish<'_>,
    ) -> Result<Routed, Refused> {
        let (mut when, mut topic) =
            self.split_delay(text, publish.qos).map_err(Refused::Answered)?;
        if !self.may_publish(id, session, topic) {
            self.clients.metrics.inc(Counter::ClientAclDeny);
            self.clients.count_drop(publish.qos, DropReason::AclDenied);
            return Err(Refused::Answered(ReasonCode::NotAuthorized));
        }
        let rewritten = self.rewrites.apply(topic);
        if let Some(rewritten) = &rewritten {
            let split = self.split_delay(rewritten, publish.qos).map_err(Refused::Answered)?;
            when = if when == When::Now { split.0 } else { when };
            topic = split.1;
            mqtt::topic::validate_name(topic, &self.limits)
                .map_err(|_| Refused::Ends(ReasonCode::TopicNameInvalid))?;
        }
        let connection = self.clients.connections.get(id).expect("its packet is being handled");
        if !connection.has(flag::MOUNTED) {
            return Ok(self.publish_from(session, topic, when, publish));
        }
        let routed = self.publish_mounted(id, topic, when, publish);
        routed.ok_or(Refused::Ends(ReasonCode::TopicNameInvalid))
    }

    fn check_publish(&self, id: ConnectionId, publish: &Publish<'_>) -> Result<(), ReasonCode> {
        let connection = self.clients.connections.get(id).expect("its packet is being handled");
        let mqtt = &self.profiles.of(connection.listener).mqtt;
        if publish.qos as u8 > mqtt.max_qos_allowed {
            return Err(ReasonCode::QosNotSupported); // v5 MQTT-3.2.2-11
        }
        if publish.retain && !mqtt.retain_available {
            return Err(ReasonCode::RetainNotSupported); // v5 MQTT-3.2.2-14
        }
        if publish.qos != QoS::ExactlyOnce {
            return Ok(());
        }
        // v5 MQTT-3.3.4-7: QoS 1 is acknowledged at once, so only QoS 2 can exceed Receive Maximum.
        let Some(session) = self.clients.sessions.session(connection.session) else {
            return Ok(());
        };
        let exceeded = connection.is_v5()
            && session.awaiting_rel_len() >= usize::from(mqtt.receive_maximum)
            && publish.packet_id.is_some_and(|packet_id| !session.awaits_rel(packet_id));
        if exceeded { Err(ReasonCode::ReceiveMaximumExceeded) } else { Ok(()) }
    }

    /// Notes a `QoS` 2 message as received. One more than `max_awaiting_rel` allows waits, and its connection with
    /// it, until a PUBREL has come (SEED-SESS-05).
    fn receive_qos2(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        packet_id: PacketId,
    ) -> Option<Received> {
        let now_ms = self.clients.now.mono_ms;
        let connection = self.clients.connections.get(id)?;
        let profile = self.profiles.of(connection.listener);
        let max = if connection.is_v5() {
            usize::from(profile.mqtt.receive_maximum)
        } else if connection.takes_more {
            0
        } else {
            usize::from(profile.session.max_awaiting_rel)
        };
        let owner = self.clients.sessions.session_mut(session.0)?;
        let received = owner.receive_qos2(packet_id, max, now_ms);
        match received {
            Received::First => {
                self.clients.store_received(session, packet_id, true);
                self.arm_flow_timer(session);
            }
            Received::Repeated => {}
            Received::Full => self.pause(id, pause::AWAITING_REL),
        }
        Some(received)
    }

    /// Forgets an id of before a crash that its client uses for another message.
    fn forget_stale(&mut self, session: SessionId, packet_id: PacketId) {
        let owner = self.clients.sessions.session_mut(session.0);
        if owner.is_some_and(|owner| owner.sent_first(packet_id)) {
            self.clients.store_received(session, packet_id, false);
        }
    }

    fn may_publish(&self, id: ConnectionId, session: SessionId, topic: &str) -> bool {
        let connection = self.clients.connections.get(id).expect("its packet is being handled");
        let Some(owner) = self.clients.sessions.session(session.0) else { return false };
        let client = AclClient {
            client_id: &owner.client_id,
            username: connection.username(),
            peer: connection.peer.ip(),
        };
        self.acl.check(&client, Access::Publish, topic) == AclDecision::Allow
    }

    /// Publishes behind the prefix of a client; `None` if the topic is too long or too deep there.
    fn publish_mounted(
        &mut self,
        id: ConnectionId,
        topic: &str,
        when: When,
        publish: &Publish<'_>,
    ) -> Option<Routed> {
        let connection = self.clients.connections.get(id)?;
        let session = SessionId(connection.session);
        let prefix = connection.extras.as_ref()?.mountpoint()?;
        let mut mounted = std::mem::take(&mut self.scratch.topic);
        let fits = mount(prefix, topic, &self.limits, &mut mounted);
        let routed = fits.then(|| self.publish_from(session, &mounted, when, publish));
        self.scratch.topic = mounted;
        routed
    }

    fn publish_from(
        &mut self,
        session: SessionId,
        topic: &str,
        when: When,
        publish: &Publish<'_>,
    ) -> Routed {
        let mut scratch = std::mem::take(&mut self.scratch.forwarded);
        scratch.clear();
        let forwarded = publish.properties.forwarded;
        let forwarded = match forwarded.as_contiguous() {
            Some(raw) => raw,
            None => {
                forwarded.write_to(&mut scratch);
                &scratch
            }
        };
        let unix_ms = self.clients.now.unix_ms;
        let interval_s = publish.properties.message_expiry_interval_s;
        let publication = Publication {
            topic,
            payload: publish.payload,
            forwarded,
            qos: publish.qos,
            retain: publish.retain,
            sys: false,
            expires_unix_ms: interval_s.map(|s| unix_ms + u64::from(s) * 1000),
            origin: self.clients.origin(session),
        };
        let mut dispatch = Dispatch::new(publication, None);
        if publish.qos == QoS::ExactlyOnce
            && self.clients.is_always()
            && self.clients.is_kept(session)
        {
            dispatch.hold_back();
        }
        let mut routed = self.route_when(when, &mut dispatch);
        if !routed.remote.is_empty() {
            let now = self.clients.now;
            routed.message = Some(dispatch.message(&mut self.clients.message_ids, now).clone());
        }
        self.scratch.forwarded = scratch;
        routed
    }

    fn count_received(&self, qos: QoS) {
        let metrics = &self.clients.metrics;
        metrics.inc(Counter::PacketsPublishReceived);
        metrics.inc(Counter::MessagesReceived);
        metrics.inc(match qos {
            QoS::AtMostOnce => Counter::MessagesQos0Received,
            QoS::AtLeastOnce => Counter::MessagesQos1Received,
            QoS::ExactlyOnce => Counter::MessagesQos2Received,
        });
    }

    /// Answers a PUBLISH: it is in every queue it has to reach.
    pub(crate) fn acknowledge(
        &mut self,
        id: ConnectionId,
        qos: QoS,
        packet_id: Option<PacketId>,
        reason: ReasonCode,
    ) {
        let Some(packet_id) = packet_id else { return };
        let packet_type = match qos {
            QoS::AtMostOnce => return,
            QoS::AtLeastOnce => PacketType::PubAck,
            QoS::ExactlyOnce => PacketType::PubRec,
        };
        if reason.is_error() && qos == QoS::ExactlyOnce {
            // A v5 client sends no PUBREL after an error (MQTT-4.3.3-9); a v3 client cannot see one.
            let v5 = self.clients.connections.get(id).is_some_and(Connection::is_v5);
            if v5 && let Some(session) = self.clients.session_of(id.index) {
                session.pubrel(packet_id);
                if let Some(connection) = self.clients.connections.get(id) {
                    let session = SessionId(connection.session);
                    self.clients.store_received(session, packet_id, false);
                }
            }
        }
        self.clients.write_ack(id.index, packet_type, packet_id, reason);
    }

    pub(crate) fn handle_puback(&mut self, id: ConnectionId, ack: &Ack<'_>) {
        self.clients.metrics.inc(Counter::PacketsPubackReceived);
        let Some(session) = self.clients.session_of(id.index) else { return };
        let acknowledged = session.puback(ack.packet_id);
        if let Acknowledged::Awaited(settled @ Some(_)) = acknowledged {
            self.clients.settle(self.session_id(id), settled);
        }
        self.acknowledged(id, acknowledged, Counter::PacketsPubackMissed);
    }

    pub(crate) fn handle_pubrec(&mut self, id: ConnectionId, ack: &Ack<'_>) {
        self.clients.metrics.inc(Counter::PacketsPubrecReceived);
        let now_ms = self.clients.now.mono_ms;
        let success = !ack.reason.is_error();
        let Some(session) = self.clients.session_of(id.index) else { return };
        let acknowledged = session.pubrec(ack.packet_id, success, now_ms);
        if let Acknowledged::Awaited(settled @ Some(_)) = acknowledged {
            let session = self.session_id(id);
            if success {
                self.clients.store_released(session, ack.packet_id, settled);
            } else {
                self.clients.settle(session, settled);
            }
        }
        if success {
            let v5 = self.clients.connections.get(id).is_some_and(Connection::is_v5);
            let reason = match acknowledged {
                Acknowledged::Missed if v5 => ReasonCode::PacketIdentifierNotFound,
                _ => ReasonCode::Success,
            };
            self.clients.write_ack(id.index, PacketType::PubRel, ack.packet_id, reason);
        }
        self.acknowledged(id, acknowledged, Counter::PacketsPubrecMissed);
    }

    pub(crate) fn handle_pubrel(&mut self, id: ConnectionId, ack: &Ack<'_>) {
        self.clients.metrics.inc(Counter::PacketsPubrelReceived);
        let Some(session) = self.clients.session_of(id.index) else { return };
        let known = session.pubrel(ack.packet_id);
        if known {
            self.clients.store_received(self.session_id(id), ack.packet_id, false);
        } else {
            self.clients.metrics.inc(Counter::PacketsPubrelMissed);
        }
        let v5 = self.clients.connections.get(id).is_some_and(Connection::is_v5);
        let reason =
            if known || !v5 { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        // MQTT-4.3.3-11: answered whether it was known or not, or the client would ask for ever.
        self.clients.write_ack(id.index, PacketType::PubComp, ack.packet_id, reason);
        self.resume(id, pause::AWAITING_REL);
    }

    pub(crate) fn handle_pubcomp(&mut self, id: ConnectionId, ack: &Ack<'_>) {
        self.clients.metrics.inc(Counter::PacketsPubcompReceived);
        let Some(session) = self.clients.session_of(id.index) else { return };
        let acknowledged = session.pubcomp(ack.packet_id);
        if let Acknowledged::Awaited(settled @ Some(_)) = acknowledged {
            self.clients.settle_released(self.session_id(id), settled);
        }
        self.acknowledged(id, acknowledged, Counter::PacketsPubcompMissed);
    }

    /// The session of a connection that has one.
    fn session_id(&self, id: ConnectionId) -> SessionId {
        SessionId(self.clients.connections.get(id).map_or(NO_SESSION, |c| c.session))
    }

    fn acknowledged(&mut self, id: ConnectionId, acknowledged: Acknowledged, missed: Counter) {
        if acknowledged == Acknowledged::Missed {
            self.clients.metrics.inc(missed); // SEED-MET-04
            return;
        }
        let Some(connection) = self.clients.connections.get(id) else { return };
        let session = SessionId(connection.session);
        let Some(owner) = self.clients.sessions.session(session.0) else { return };
        if owner.has_unsent() {
            self.clients.send_unsent(session);
        } else if owner.mqueue_len() > 0 {
            self.clients.drain_mqueue(session);
        }
    }
}

/// The topic an alias stands for, if the PUBLISH names none; and sets it, if it names both (MQTT-3.3.2-8..12).
fn resolve_alias(
    connection: &mut Connection,
    publish: &Publish<'_>,
    alias_max: u16,
) -> Result<Option<Rc<str>>, ReasonCode> {
    let Some(alias) = publish.properties.topic_alias else {
        // The decoder lets an empty topic pass for v5, where an alias may stand for it.
        return if publish.topic.is_empty() { Err(ReasonCode::ProtocolError) } else { Ok(None) };
    };
    let Some(extras) = connection.extras.as_mut() else {
        return Err(ReasonCode::TopicAliasInvalid);
    };
    if publish.topic.is_empty() {
        let topic = extras.inbound.topic(alias);
        // v5 MQTT-3.3.4, 4.13: an alias that was never set is a protocol error; one above the maximum is invalid.
        let invalid = alias.get() > alias_max;
        let reason =
            if invalid { ReasonCode::TopicAliasInvalid } else { ReasonCode::ProtocolError };
        return topic.map(Some).ok_or(reason);
    }
    if extras.inbound.set(alias, publish.topic, alias_max) {
        Ok(None)
    } else {
        Err(ReasonCode::TopicAliasInvalid)
    }
}
