//! The clients of a shard: connections, sessions, outboxes and timers, and the delivery of messages to them.
//!
//! This is the half of a shard that sends; routing (the other half) borrows it while it walks subscriber lists.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use config::{MqueueKind, Settings};
use metrics::{Counter, DropKind, DropReason, ShardMetrics};
use mqtt::{PacketId, PacketType, ProtocolVersion, PublishOut, QoS, ReasonCode};
use ring::ShardSet;
use router::{FilterId, SessionId, SubOptions};
use session::{
    Awaiting, Delivery, Message, MessageIds, MqueueLimits, Origin, Publication, Pushed, Session,
    TopicForm, expiry_interval_left_s,
};

use crate::away::Away;
use crate::barrier::Barrier;
use crate::connection::{Connection, Connections, State, flag};
use crate::effect::{ConnectionId, Effect, Now, Outgoing};
use crate::held::HeldSend;
use crate::journal::Journal;
use crate::mount::unmount;
use crate::outbox::Outboxes;
use crate::sessions::{NO_CONNECTION, Sessions};
use crate::stash::Stashes;
use crate::storage::{PutAs, StoredState};
use crate::wheel::Wheel;

/// From this many receivers on a packet that is the same for all is encoded once and shared.
const SHARE_FROM: usize = 4;
/// A payload of this size is shared as it is, behind heads that differ.
const SHARE_PAYLOAD_FROM: usize = 4096;

/// Connections, sessions and what they send.
#[derive(Debug)]
pub(crate) struct Clients {
    pub shard: u16,
    pub now: Now,
    pub settings: Rc<Settings>,
    pub metrics: Arc<ShardMetrics>,
    pub connections: Connections,
    pub sessions: Sessions,
    pub outboxes: Outboxes,
    pub stashes: Stashes,
    pub connection_timers: Wheel,
    pub session_timers: Wheel,
    pub effects: Vec<Effect>,
    pub message_ids: MessageIds,
    /// Deliveries of this tick: what a tick is bounded by.
    pub work: usize,
    /// Bytes that may wait for a client before `QoS` 0 to it is dropped: fewer while the shard is overloaded.
    pub qos0_bytes_max: usize,
    /// Changes on their way to the store, if there is one.
    pub journal: Option<Journal>,
    /// What waits for something to be kept.
    pub barrier: Barrier,
    /// Sessions whose messages are in the store only.
    pub away: Away,
    /// The store is being read.
    pub is_recovering: bool,
}

/// A publication on its way to the subscribers of this shard, with what its receivers can share.
#[derive(Debug)]
pub(crate) struct Dispatch<'a> {
    pub publication: Publication<'a>,
    /// How many receivers there may be; decides whether sharing pays.
    fan_out: usize,
    message: Option<Arc<Message>>,
    /// Encoded packets by layout: version 5 or not, RETAIN or not.
    layouts: [Option<Bytes>; 4],
    payload: Option<Bytes>,
    /// The shared filter whose member is to get it.
    pub shared: Option<FilterId>,
    /// Other shards that have to say that they keep it.
    pub remote: ShardSet,
    /// Where it is to go, if it may not go to other shards yet.
    pub held: Option<Vec<HeldSend>>,
    /// It was on its way when the broker ended.
    pub is_again: bool,
}

impl<'a> Dispatch<'a> {
    pub fn new(publication: Publication<'a>, message: Option<&Arc<Message>>) -> Self {
        Self {
            publication,
            fan_out: 1,
            message: message.cloned(),
            layouts: [const { None }; 4],
            payload: None,
            shared: None,
            remote: ShardSet::EMPTY,
            held: None,
            is_again: false,
        }
    }

    /// Lets it go to other shards only when it is kept here.
    pub fn hold_back(&mut self) {
        self.held = Some(Vec::new());
    }

    /// Says how many receivers are to come.
    pub fn expect_receivers(&mut self, receivers: usize) {
        self.fan_out = receivers;
    }

    /// The message in its shared form, made at the first use.
    pub fn message(&mut self, ids: &mut MessageIds, now: Now) -> &Arc<Message> {
        let publication = &self.publication;
        self.message.get_or_insert_with(|| Message::new(ids.next(now.unix_ms), publication))
    }

    fn shared_payload(&mut self) -> Option<Bytes> {
        let payload = self.publication.payload;
        if self.fan_out < 2 || payload.len() < SHARE_PAYLOAD_FROM {
            return None;
        }
        Some(self.payload.get_or_insert_with(|| Bytes::copy_from_slice(payload)).clone())
    }
}

/// What became of a message for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Sent, or queued.
    Taken,
    /// The session could not have it; counted.
    Dropped,
    /// It was not for this session (No Local), or the session is gone.
    Skipped,
}

/// How one PUBLISH to one client looks, apart from the message itself.
#[derive(Debug, Clone, Copy)]
struct Form<'a> {
    qos: QoS,
    retain: bool,
    dup: bool,
    packet_id: Option<PacketId>,
    subscription_ids: &'a [u32],
}

/// In the order of what the store counts by them.
pub(crate) const QOS_ALL: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

fn drop_kind(qos: QoS) -> DropKind {
    match qos {
        QoS::AtMostOnce => DropKind::Qos0,
        QoS::AtLeastOnce => DropKind::Qos1,
        QoS::ExactlyOnce => DropKind::Qos2,
    }
}

impl Clients {
    /// The connected client of a session.
    pub fn connected(&self, session: SessionId) -> Option<u32> {
        let slot = self.sessions.slot(session.0)?;
        (slot.connection != NO_CONNECTION).then_some(slot.connection)
    }

    /// Names a session as the origin of what it publishes.
    pub fn origin(&self, session: SessionId) -> Option<Origin> {
        let generation = self.sessions.slot(session.0)?.generation;
        Some(Origin { shard: self.shard, session: session.0, generation })
    }

    fn is_origin(&self, session: SessionId, origin: Option<Origin>) -> bool {
        origin.is_some_and(|o| o.shard == self.shard && o.session == session.0)
            && origin == self.origin(session)
    }

    /// Counts a message that is lost for one receiver.
    pub fn count_drop(&self, qos: QoS, reason: DropReason) {
        self.metrics.count_drop(drop_kind(qos), reason);
    }

    /// Counts messages that are lost.
    pub fn count_drops(&self, qos: QoS, reason: DropReason, count: u32) {
        self.metrics.count_drops(drop_kind(qos), reason, count.into());
    }

    /// Gives a message to a session, as its subscription says. `retained` is the flag for a message that comes
    /// from the retained index (MQTT-3.3.1-8).
    pub fn deliver(
        &mut self,
        session: SessionId,
        options: SubOptions,
        subscription_ids: &[u32],
        dispatch: &mut Dispatch<'_>,
        retained: bool,
    ) -> Delivered {
        self.work += 1;
        let publication = dispatch.publication;
        let Some(slot) = self.sessions.slot(session.0) else { return Delivered::Skipped };
        let no_local = options.no_local() || self.settings.session.ignore_loop_deliver;
        if no_local && publication.origin.is_some() && self.is_origin(session, publication.origin) {
            return Delivered::Skipped;
        }
        let qos = if self.settings.session.upgrade_qos {
            publication.qos.max(options.qos())
        } else {
            publication.qos.min(options.qos()) // MQTT-3.8.4-8
        };
        if self.is_recovering && qos == QoS::AtMostOnce && publication.qos != qos {
            // It is published again, and whoever wants it once at most may have it.
            return Delivered::Skipped;
        }
        let retain = retained || (options.retain_as_published() && publication.retain);
        let connection = slot.connection;
        let stored = slot.session.as_ref().map_or(0, |session| session.stored);
        let behind = slot.session.as_ref().is_some_and(Session::has_queued_qos0);
        if connection != NO_CONNECTION && qos == QoS::AtMostOnce && !behind {
            let form = Form { qos, retain, dup: false, packet_id: None, subscription_ids };
            return self.send_qos0(session, connection, form, dispatch);
        }
        let now = self.now;
        let place = self.place(stored, dispatch.fan_out);
        let delivery = Delivery {
            message: dispatch.message(&mut self.message_ids, now).clone(),
            qos,
            retain,
            subscription_ids: (!subscription_ids.is_empty()).then(|| subscription_ids.into()),
            shared: dispatch.shared,
            place,
        };
        let acknowledged = qos != QoS::AtMostOnce;
        if acknowledged && connection != NO_CONNECTION && self.has_outbox_room(connection) {
            let window = self.window(connection);
            let slot = self.sessions.slot(session.0).expect("looked at above");
            let sendable = slot.session.as_ref().and_then(|s| s.sendable_id(window));
            if let Some(id) = sendable {
                return self.send_acknowledged(session, connection, delivery, id, dispatch);
            }
        }
        self.enqueue(session, delivery)
    }

    fn has_outbox_room(&self, connection: u32) -> bool {
        self.outbox_bytes(connection) < self.settings.conn.pending_bytes_max
    }

    fn outbox_bytes(&self, connection: u32) -> usize {
        let outbox = self.connections.at(connection).map_or(crate::outbox::NO_OUTBOX, |c| c.outbox);
        self.outboxes.bytes(outbox)
    }

    /// The inflight window of a client: the smaller of ours and its Receive Maximum (MQTT-3.3.4-9).
    pub fn window(&self, connection: u32) -> usize {
        let ours = usize::from(self.settings.session.max_inflight);
        let extras = self.connections.at(connection).and_then(|c| c.extras.as_ref());
        extras.map_or(ours, |extras| ours.min(usize::from(extras.receive_maximum)))
    }

    fn send_qos0(
        &mut self,
        session: SessionId,
        connection: u32,
        form: Form<'_>,
        dispatch: &mut Dispatch<'_>,
    ) -> Delivered {
        let waiting = self.outbox_bytes(connection);
        if waiting >= self.qos0_bytes_max {
            let is_full = waiting >= self.settings.conn.pending_bytes_max;
            let reason = if is_full { DropReason::OutboxFull } else { DropReason::Overloaded };
            self.count_drop(QoS::AtMostOnce, reason);
            return self.dropped(session);
        }
        if !self.write_publish(connection, form, dispatch) {
            return self.dropped(session);
        }
        let session = self.sessions.session_mut(session.0).expect("looked at above");
        session.delivered = session.delivered.wrapping_add(1);
        Delivered::Taken
    }

    fn dropped(&mut self, session: SessionId) -> Delivered {
        if let Some(session) = self.sessions.session_mut(session.0) {
            session.dropped = session.dropped.saturating_add(1);
        }
        Delivered::Dropped
    }

    fn send_acknowledged(
        &mut self,
        session: SessionId,
        connection: u32,
        delivery: Delivery,
        id: PacketId,
        dispatch: &mut Dispatch<'_>,
    ) -> Delivered {
        let form = Form {
            qos: delivery.qos,
            retain: delivery.retain,
            dup: false,
            packet_id: Some(id),
            subscription_ids: delivery.subscription_ids.as_deref().unwrap_or_default(),
        };
        if !self.write_publish(connection, form, dispatch) {
            // MQTT-3.1.2-25: too large for the client counts as delivered.
            return self.dropped(session);
        }
        self.note_sent(session, connection, delivery, id, PutAs::New);
        Delivered::Taken
    }

    fn note_sent(
        &mut self,
        session: SessionId,
        connection: u32,
        delivery: Delivery,
        id: PacketId,
        put: PutAs,
    ) {
        let now_ms = self.now.mono_ms;
        if delivery.place.is_some() {
            self.store_entry(session, &delivery, StoredState::Sent(id), 0, put);
        }
        let owner = self.sessions.session_mut(session.0).expect("the caller looked");
        let sent = owner.sent(delivery, now_ms);
        assert!(sent == id, "the packet id on the wire is the one in the window");
        self.arm_retry(session, connection);
    }

    /// MQTT 5 forbids sending again on the same connection (MQTT-4.4.0-1); before it, `retry_interval` says when.
    fn arm_retry(&mut self, session: SessionId, connection: u32) {
        let retry_ms = self.settings.session.retry_interval_ms;
        if retry_ms > 0 && self.connections.at(connection).is_some_and(|c| !c.is_v5()) {
            self.session_timers.set_earlier(session.0, self.now.mono_ms + retry_ms);
        }
    }

    fn mqueue_limits(&self) -> MqueueLimits {
        MqueueLimits {
            length_max: self.settings.mqueue.max_length as usize,
            store_qos0: self.settings.mqueue.store_qos0,
        }
    }

    fn enqueue(&mut self, session: SessionId, delivery: Delivery) -> Delivered {
        let limits = self.mqueue_limits();
        let priority = self.priority(delivery.message.topic());
        let qos = delivery.qos;
        let is_refused = qos == QoS::AtMostOnce && !limits.store_qos0;
        let owner = self.sessions.session(session.0).expect("the caller looked");
        if owner.is_unloaded() {
            if is_refused {
                self.count_drop(qos, DropReason::SessionOffline);
                return self.dropped(session);
            }
            self.append(session, delivery, priority);
            return Delivered::Taken;
        }
        if delivery.place.is_some() && !is_refused {
            self.store_entry(session, &delivery, StoredState::Queued, priority, PutAs::New);
        }
        let owner = self.sessions.session_mut(session.0).expect("the caller looked");
        let pushed = owner.enqueue(delivery, priority, limits);
        let length = owner.mqueue_len();
        if length == 1 || length == self.alarm_length() {
            self.gauge_session(session);
        }
        match pushed {
            Pushed::Queued => Delivered::Taken,
            Pushed::Displaced { qos: lost, stored } => {
                self.count_drop(lost, DropReason::QueueFull);
                self.settle(session, stored);
                Delivered::Taken
            }
            Pushed::Refused => {
                self.count_drop(qos, DropReason::SessionOffline);
                Delivered::Dropped
            }
        }
    }

    /// The length of a queue that is above the high watermark, if it only just is (SEED-SESS-10). Queues without a limit
    /// have no watermarks.
    pub fn alarm_length(&self) -> usize {
        let mqueue = &self.settings.mqueue;
        let above =
            mqueue.max_length as usize * usize::from(mqueue.high_watermark_percent) / 100 + 1;
        if mqueue.max_length == 0 { usize::MAX } else { above }
    }

    /// The length below which the alarm is cleared.
    pub fn clear_length(&self) -> usize {
        let mqueue = &self.settings.mqueue;
        (mqueue.max_length as usize * usize::from(mqueue.low_watermark_percent)).div_ceil(100)
    }

    fn priority(&self, topic: &str) -> u8 {
        if self.settings.mqueue.kind == MqueueKind::Simple {
            return 0;
        }
        let priorities = &self.settings.mqueue.priorities.0;
        priorities.iter().find(|(name, _)| name == topic).map_or(0, |&(_, priority)| priority)
    }

    /// Sends what is queued, as far as the window and the outbox have room.
    pub fn drain_mqueue(&mut self, session: SessionId) {
        self.send_queued(session);
        self.gauge_session(session);
    }

    fn send_queued(&mut self, session: SessionId) {
        let Some(connection) = self.connected(session) else { return };
        let window = self.window(connection);
        while self.has_outbox_room(connection) {
            let owner = self.sessions.session_mut(session.0).expect("it is connected");
            let Some((delivery, id)) = owner.dequeue(window) else { return };
            if delivery.message.is_expired(self.now.unix_ms) {
                self.count_drop(delivery.qos, DropReason::Expired); // MQTT-3.3.2-5
                self.settle(session, delivery.settled());
                continue;
            }
            let message = delivery.message.clone();
            let mut dispatch = Dispatch::new(message.publication(), Some(&message));
            let qos0 = delivery.qos == QoS::AtMostOnce;
            let form = Form {
                qos: delivery.qos,
                retain: delivery.retain,
                dup: false,
                packet_id: (!qos0).then_some(id),
                subscription_ids: delivery.subscription_ids.as_deref().unwrap_or_default(),
            };
            if !self.write_publish(connection, form, &mut dispatch) {
                self.dropped(session);
                self.settle(session, delivery.settled());
            } else if qos0 {
                let owner = self.sessions.session_mut(session.0).expect("it is connected");
                owner.delivered = owner.delivered.wrapping_add(1);
                self.settle(session, delivery.settled());
            } else {
                self.note_sent(session, connection, delivery, id, PutAs::Changed);
            }
        }
    }

    /// Sends everything in the window again, with DUP (MQTT-3.3.1-1): after the client is back. If its window is smaller
    /// than it was, the rest follows as acknowledgements come (MQTT-3.3.4-9).
    pub fn resend_inflight(&mut self, session: SessionId) {
        let Some(connection) = self.connected(session) else { return };
        let owner = self.sessions.session_mut(session.0).expect("it is connected");
        owner.mark_unsent();
        self.send_unsent(session);
        self.arm_retry(session, connection);
    }

    /// Sends what of the window this connection has not seen, as far as its window has room.
    pub fn send_unsent(&mut self, session: SessionId) {
        let Some(connection) = self.connected(session) else { return };
        let window = self.window(connection);
        let owner = self.sessions.session_mut(session.0).expect("it is connected");
        let again: Vec<_> = owner.take_unsent(window, self.now.mono_ms).map(again).collect();
        self.send_again(session, connection, again);
    }

    /// Sends again what has waited for `retry_interval` (SEED-SESS-04).
    pub fn resend_overdue(&mut self, session: SessionId, before_ms: u64) {
        let Some(connection) = self.connected(session) else { return };
        if self.outbox_bytes(connection) > 0 {
            // It has not even got what was sent before.
            return;
        }
        let owner = self.sessions.session_mut(session.0).expect("it is connected");
        let again: Vec<_> = owner.overdue(before_ms, self.now.mono_ms).map(again).collect();
        self.send_again(session, connection, again);
    }

    fn send_again(
        &mut self,
        session: SessionId,
        connection: u32,
        again: Vec<(PacketId, Option<Delivery>)>,
    ) {
        for (id, delivery) in again {
            let Some(delivery) = delivery else {
                self.write_ack(connection, PacketType::PubRel, id, ReasonCode::Success);
                continue;
            };
            let mut dispatch = Dispatch::new(delivery.message.publication(), None);
            let form = Form {
                qos: delivery.qos,
                retain: delivery.retain,
                dup: true,
                packet_id: Some(id),
                subscription_ids: delivery.subscription_ids.as_deref().unwrap_or_default(),
            };
            if !self.write_publish(connection, form, &mut dispatch) {
                // MQTT-3.1.2-25: too large for the client as it is now, so it counts as delivered.
                let owner = self.sessions.session_mut(session.0).expect("it is connected");
                let settled = owner.give_up(id);
                self.settle(session, settled);
            }
        }
    }

    /// Encodes a PUBLISH into the outbox of a connection; false if it is too large for the client
    /// (MQTT-3.1.2-24), which is counted.
    fn write_publish(
        &mut self,
        connection: u32,
        form: Form<'_>,
        dispatch: &mut Dispatch<'_>,
    ) -> bool {
        let Clients { connections, outboxes, effects, settings: _, metrics, now, .. } = self;
        let target = connections.at_mut(connection).expect("a session's connection exists");
        let publication = dispatch.publication;
        let plain = plain_publish(target.version, form, &publication, *now);
        match target.extras.as_deref_mut() {
            Some(extras) if extras.shape_publish() => {
                let topic = unmount(extras.mountpoint(), publication.topic);
                let plain = PublishOut { topic, ..plain };
                let limit = extras.maximum_packet_size as usize;
                // Setting an alias costs 3 bytes, and may make both lengths before it longer by one; it must not be what makes
                // the packet too large.
                let may_alias = plain.encoded_len() + 5 <= limit;
                let topic_form = if may_alias {
                    extras.outbound.form(topic, extras.alias_maximum)
                } else {
                    TopicForm::Name
                };
                let packet = with_topic_form(plain, &topic_form);
                if !may_alias && packet.encoded_len() > limit {
                    metrics.count_drop(drop_kind(form.qos), DropReason::TooLarge);
                    return false;
                }
                let outbox = outboxes.open(&mut target.outbox, connection);
                match dispatch.shared_payload() {
                    Some(payload) => {
                        packet.encode_head(outbox.tail());
                        outbox.push_shared(&payload);
                    }
                    None => packet.encode(outbox.tail()),
                }
            }
            _ => write_plain(&plain, target, outboxes, connection, form, dispatch),
        }
        queue_flush(target, connection, effects);
        if !publication.sys {
            count_sent(metrics, form.qos);
        }
        true
    }

    /// Encodes one of the four acknowledgements into the outbox of a connection.
    pub fn write_ack(
        &mut self,
        connection: u32,
        packet_type: PacketType,
        id: PacketId,
        reason: ReasonCode,
    ) {
        let counter = match packet_type {
            PacketType::PubAck => Counter::PacketsPubackSent,
            PacketType::PubRec => Counter::PacketsPubrecSent,
            PacketType::PubRel => Counter::PacketsPubrelSent,
            _ => Counter::PacketsPubcompSent,
        };
        self.write(connection, counter, |version, out| {
            mqtt::encode_ack(out, packet_type, version, id, reason);
        });
    }

    /// Encodes a packet into the outbox of a connection.
    pub fn write(
        &mut self,
        connection: u32,
        counter: Counter,
        encode: impl FnOnce(ProtocolVersion, &mut Vec<u8>),
    ) {
        let Some(target) = self.connections.at_mut(connection) else { return };
        if matches!(target.state, State::Closing | State::Leaving) {
            return;
        }
        let outbox = self.outboxes.open(&mut target.outbox, connection);
        encode(target.version, outbox.tail());
        queue_flush(target, connection, &mut self.effects);
        self.metrics.inc(Counter::PacketsSent);
        self.metrics.inc(counter);
    }

    /// Takes what a connection has to send, if no send of it is in flight.
    pub fn take_outgoing(&mut self, id: ConnectionId) -> Option<Outgoing> {
        let target = self.connections.get_mut(id)?;
        target.flush_queued = false;
        let outgoing = if target.has(flag::GATED) {
            self.take_gated(id)?
        } else {
            self.outboxes.take(target.outbox, self.now.mono_ms)?
        };
        self.metrics.add(Counter::BytesSent, outgoing.len() as u64);
        Some(outgoing)
    }

    /// The session of a connection.
    pub fn session_of(&mut self, connection: u32) -> Option<&mut Session> {
        let session = self.connections.at(connection)?.session;
        self.sessions.session_mut(session)
    }
}

fn again((id, awaiting): (PacketId, &Awaiting)) -> (PacketId, Option<Delivery>) {
    match awaiting {
        Awaiting::PubAck(delivery) | Awaiting::PubRec(delivery) => (id, Some(delivery.clone())),
        Awaiting::PubComp(_) => (id, None),
    }
}

fn plain_publish<'a>(
    version: ProtocolVersion,
    form: Form<'a>,
    publication: &Publication<'a>,
    now: Now,
) -> PublishOut<'a> {
    let v5 = version == ProtocolVersion::V5;
    PublishOut {
        version,
        dup: form.dup,
        qos: form.qos,
        retain: form.retain,
        topic: publication.topic,
        packet_id: form.packet_id,
        topic_alias: None,
        message_expiry_interval_s: if v5 {
            expiry_interval_left_s(publication.expires_unix_ms, now.unix_ms)
        } else {
            None
        },
        subscription_ids: if v5 { form.subscription_ids } else { &[] },
        forwarded: publication.forwarded,
        payload: publication.payload,
    }
}

fn with_topic_form<'a>(packet: PublishOut<'a>, form: &TopicForm) -> PublishOut<'a> {
    match *form {
        TopicForm::Name => packet,
        TopicForm::NameAndAlias(alias) => PublishOut { topic_alias: Some(alias), ..packet },
        TopicForm::Alias(alias) => PublishOut { topic: "", topic_alias: Some(alias), ..packet },
    }
}

/// Writes a PUBLISH that needs no alias and knows no size limit; where many get the same bytes these are encoded
/// once.
fn write_plain(
    packet: &PublishOut<'_>,
    target: &mut Connection,
    outboxes: &mut Outboxes,
    connection: u32,
    form: Form<'_>,
    dispatch: &mut Dispatch<'_>,
) {
    let same_for_all = form.qos == QoS::AtMostOnce && form.subscription_ids.is_empty() && !form.dup;
    let outbox = outboxes.open(&mut target.outbox, connection);
    if same_for_all && dispatch.fan_out >= SHARE_FROM {
        let layout =
            usize::from(target.version == ProtocolVersion::V5) * 2 + usize::from(form.retain);
        let bytes = dispatch.layouts[layout].get_or_insert_with(|| {
            let mut bytes = Vec::with_capacity(packet.encoded_len());
            packet.encode(&mut bytes);
            Bytes::from(bytes)
        });
        outbox.push_shared(bytes);
    } else if let Some(payload) = dispatch.shared_payload() {
        packet.encode_head(outbox.tail());
        outbox.push_shared(&payload);
    } else {
        packet.encode(outbox.tail());
    }
}

pub(crate) fn queue_flush(target: &mut Connection, connection: u32, effects: &mut Vec<Effect>) {
    if !target.flush_queued {
        target.flush_queued = true;
        let id = ConnectionId { index: connection, generation: target.generation };
        effects.push(Effect::Flush(id));
    }
}

fn count_sent(metrics: &ShardMetrics, qos: QoS) {
    metrics.inc(Counter::PacketsSent);
    metrics.inc(Counter::PacketsPublishSent);
    metrics.inc(Counter::MessagesSent);
    metrics.inc(match qos {
        QoS::AtMostOnce => Counter::MessagesQos0Sent,
        QoS::AtLeastOnce => Counter::MessagesQos1Sent,
        QoS::ExactlyOnce => Counter::MessagesQos2Sent,
    });
}
