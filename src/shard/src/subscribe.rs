//! SUBSCRIBE and UNSUBSCRIBE (MQTT-3.8 to MQTT-3.11), and the routes the other shards learn by them.
//!
//! A SUBACK waits until every shard has applied the routes it is about: who publishes after the SUBACK, on whatever
//! core, is heard. Routes go out once per tick under a sequence number; shards confirm the highest they have applied.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

use metrics::Counter;
use mqtt::{
    FilterKind, PacketId, ParsedFilter, ReasonCode, RetainHandling, SubAck, Subscribe,
    SubscribeOptions, UnsubAck, Unsubscribe,
};
use ring::ShardId;
use router::{FilterId, RouteDelta, SessionId, SubOptions};
use session::Subscription;
use session::acl::{Access, AclClient, AclDecision};
use smallvec::SmallVec;

use crate::command::Reply;
use crate::connection::pause;
use crate::effect::ConnectionId;
use crate::mesh::ControlMessage;
use crate::profile::Profile;
use crate::shard::Shard;
use crate::storage::StoredSubscription;

/// Answers of one connection that may wait for the other shards before it is no longer read.
const SUBSCRIBING_MAX: u8 = 32;

/// Who waits for routes to be in force.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A client, for its SUBACK; then retained messages follow.
    Suback {
        connection: ConnectionId,
        session: SessionId,
        packet_id: PacketId,
        reasons: SmallVec<[u8; 4]>,
        replays: Vec<WantsRetained>,
    },
    /// A client, for its UNSUBACK.
    Unsuback { connection: ConnectionId, packet_id: PacketId, reasons: SmallVec<[u8; 4]> },
    /// Nobody, but retained messages follow.
    Retained { connection: ConnectionId, session: SessionId, replays: Vec<WantsRetained> },
    /// The control plane.
    Command(u64),
}

/// A new subscription that is to get retained messages.
#[derive(Debug)]
pub(crate) struct WantsRetained {
    pub filter: FilterId,
    pub text: Box<str>,
    /// See [`crate::retained::Replays::begins`].
    pub began: u64,
}

/// Sequence numbers of routes: issued here, and applied by each other shard.
#[derive(Debug)]
pub(crate) struct PendingSubacks {
    issued: u64,
    applied: Vec<u64>,
    waiting: VecDeque<(u64, Waiter)>,
}

impl PendingSubacks {
    pub fn new(shards: usize) -> Self {
        Self { issued: 0, applied: vec![0; shards], waiting: VecDeque::new() }
    }

    /// Whether somebody waits who may get retained messages then.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn applied_by_all(&self, own: ShardId) -> u64 {
        let others = self.applied.iter().enumerate().filter(|&(n, _)| n != own.index());
        others.map(|(_, &sequence)| sequence).min().unwrap_or(u64::MAX)
    }
}

impl Shard {
    pub(crate) fn handle_subscribe(&mut self, id: ConnectionId, subscribe: &Subscribe<'_>) {
        self.clients.metrics.inc(Counter::PacketsSubscribe);
        let connection = self.clients.connections.get(id).expect("its packet is being handled");
        let mqtt = &self.profiles.of(connection.listener).mqtt;
        if subscribe.subscription_id.is_some() && !mqtt.subscription_identifiers {
            let reason = ReasonCode::SubscriptionIdentifiersNotSupported;
            return self.protocol_error(id, reason); // v5 MQTT-3.2.2.3.12
        }
        let session = SessionId(connection.session);
        let v5 = connection.is_v5();
        let mut reasons = SmallVec::new();
        let mut replays = Vec::new();
        for (filter, options) in subscribe.filters.iter() {
            let result =
                self.subscribe_one(id, session, filter, options, subscribe.subscription_id);
            reasons.push(match result {
                Ok(Subscribed { granted, retained }) => {
                    replays.extend(retained);
                    granted as u8
                }
                Err(reason) if v5 => reason as u8,
                Err(_) => 0x80, // MQTT-3.9.3-2: the one failure there was before v5
            });
        }
        self.gauge_routes();
        let packet_id = subscribe.packet_id;
        let waiter = Waiter::Suback { connection: id, session, packet_id, reasons, replays };
        self.wait_for_routes(Some(id), waiter);
    }

    fn subscribe_one(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        text: &str,
        mut options: SubscribeOptions,
        subscription_id: Option<NonZeroU32>,
    ) -> Result<Subscribed, ReasonCode> {
        let parsed =
            ParsedFilter::parse(text, &self.limits).map_err(|_| ReasonCode::TopicFilterInvalid)?;
        let connection = self.clients.connections.get(id).expect("its packet is being handled");
        let Profile { mqtt, session: limits, .. } = self.profiles.of(connection.listener);
        if is_shared(&parsed) && !mqtt.shared_subscription {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        if !mqtt.wildcard_subscription && mqtt::topic::has_wildcard(parsed.filter) {
            return Err(ReasonCode::WildcardSubscriptionsNotSupported);
        }
        if !self.may_subscribe(id, session, parsed.filter) {
            self.clients.metrics.inc(Counter::ClientAclDeny);
            return Err(ReasonCode::NotAuthorized);
        }
        let mounted = self.mounted_filter(id, text);
        let parsed = match &mounted {
            Some(mounted) => ParsedFilter::parse(mounted, &self.limits)
                .map_err(|_| ReasonCode::TopicFilterInvalid)?,
            None => parsed,
        };
        let owner = self.clients.sessions.session(session.0).expect("its client is connected");
        let known = self.router.find(&parsed).is_some_and(|f| owner.subscriptions.get(f).is_some());
        if !known && owner.subscriptions.len() >= limits.max_subscriptions as usize {
            return Err(ReasonCode::QuotaExceeded);
        }
        options.qos = granted(options.qos, mqtt.max_qos_allowed);
        Ok(self.add_subscription(session, &parsed, options, subscription_id))
    }

    /// Adds or replaces a subscription (MQTT-3.8.4-3) without any check.
    pub(crate) fn add_subscription(
        &mut self,
        session: SessionId,
        parsed: &ParsedFilter<'_>,
        options: SubscribeOptions,
        subscription_id: Option<NonZeroU32>,
    ) -> Subscribed {
        let route_options = SubOptions::from_subscribe(&options, subscription_id.is_some());
        let (filter, is_new) =
            self.router.subscribe(session, parsed, route_options, &mut self.deltas);
        let owner = self.clients.sessions.session_mut(session.0).expect("the caller looked");
        owner.subscriptions.insert(Subscription::new(filter, options, subscription_id));
        if self.clients.is_kept(session) {
            let subscription = StoredSubscription {
                filter: self.router.name(filter).into(),
                options: options.to_bits(),
                id: subscription_id.map_or(0, NonZeroU32::get),
            };
            self.clients.store_subscription(session, subscription);
        }
        // MQTT-3.3.1-9..11; a shared subscription gets none (v5 4.8.2).
        let wanted = match options.retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        let retained = (wanted && !is_shared(parsed)).then(|| WantsRetained {
            filter,
            text: parsed.filter.into(),
            began: self.replays.begins(),
        });
        Subscribed { granted: options.qos, retained }
    }

    fn may_subscribe(&self, id: ConnectionId, session: SessionId, filter: &str) -> bool {
        let connection = self.clients.connections.get(id).expect("its packet is being handled");
        let Some(owner) = self.clients.sessions.session(session.0) else { return false };
        let client = AclClient {
            client_id: &owner.client_id,
            username: connection.username(),
            peer: connection.peer.ip(),
        };
        self.acl.check(&client, Access::Subscribe, filter) == AclDecision::Allow
    }

    pub(crate) fn handle_unsubscribe(&mut self, id: ConnectionId, unsubscribe: &Unsubscribe<'_>) {
        self.clients.metrics.inc(Counter::PacketsUnsubscribe);
        let connection = self.clients.connections.get(id).expect("its packet is being handled");
        let session = SessionId(connection.session);
        let mut reasons = SmallVec::new();
        for filter in unsubscribe.filters.iter() {
            let mounted = self.mounted_filter(id, filter);
            let filter = mounted.as_deref().unwrap_or(filter);
            reasons.push(match ParsedFilter::parse(filter, &self.limits) {
                Err(_) => ReasonCode::TopicFilterInvalid as u8,
                Ok(parsed) if self.remove_subscription(session, &parsed) => 0,
                Ok(_) => ReasonCode::NoSubscriptionExisted as u8,
            });
        }
        self.gauge_routes();
        let packet_id = unsubscribe.packet_id;
        self.wait_for_routes(Some(id), Waiter::Unsuback { connection: id, packet_id, reasons });
    }

    /// Removes a subscription; false if there was none (MQTT-3.10.4-1).
    pub(crate) fn remove_subscription(
        &mut self,
        session: SessionId,
        parsed: &ParsedFilter<'_>,
    ) -> bool {
        let Some(filter) = self.router.find(parsed) else { return false };
        let Some(owner) = self.clients.sessions.session_mut(session.0) else { return false };
        if owner.subscriptions.remove(filter).is_none() {
            return false;
        }
        if self.clients.is_kept(session) {
            let name = self.router.name(filter).into();
            self.clients.unstore_subscription(session, name);
        }
        self.replays.end_subscription(session, filter);
        self.router.unsubscribe(session, filter, &mut self.deltas);
        true
    }

    /// Lets somebody wait until the routes of this moment are in force on all shards.
    pub(crate) fn wait_for_routes(&mut self, connection: Option<ConnectionId>, waiter: Waiter) {
        // Changes of this tick get the next number when they are announced.
        let needed = self.subacks.issued + u64::from(!self.deltas.is_empty());
        if self.shards == 1 || self.subacks.applied_by_all(self.id) >= needed {
            return self.routes_in_force(waiter);
        }
        self.subacks.waiting.push_back((needed, waiter));
        if let Some(id) = connection
            && let Some(target) = self.clients.connections.get_mut(id)
        {
            target.subscribing = target.subscribing.saturating_add(1);
            if target.subscribing >= SUBSCRIBING_MAX {
                self.pause(id, pause::SUBSCRIBING);
            }
        }
    }

    /// Sends the route changes of this tick to the other shards.
    pub(crate) fn announce_routes(&mut self) {
        if self.deltas.is_empty() {
            return;
        }
        if self.shards == 1 {
            self.deltas.clear();
            return;
        }
        self.subacks.issued += 1;
        let deltas: Arc<[RouteDelta]> = self.deltas.drain(..).collect();
        let sequence = self.subacks.issued;
        for to in self.others() {
            let deltas = deltas.clone();
            self.mesh.send_control(to, ControlMessage::Routes { deltas, sequence });
        }
    }

    /// Applies another shard's route changes and confirms them.
    pub(crate) fn apply_routes(&mut self, from: ShardId, deltas: &[RouteDelta], sequence: u64) {
        for delta in deltas {
            self.router.apply(from, delta);
        }
        self.mesh.send_control(from, ControlMessage::RoutesApplied { sequence });
        self.gauge_routes();
    }

    /// Another shard has applied our routes up to `sequence`.
    pub(crate) fn routes_applied(&mut self, by: ShardId, sequence: u64) {
        let applied = &mut self.subacks.applied[by.index()];
        assert!(*applied < sequence, "confirmations come in order");
        *applied = sequence;
        let all = self.subacks.applied_by_all(self.id);
        while let Some(&(needed, _)) = self.subacks.waiting.front()
            && needed <= all
        {
            let (_, waiter) = self.subacks.waiting.pop_front().expect("looked at above");
            self.waited(&waiter);
            self.routes_in_force(waiter);
        }
    }

    fn waited(&mut self, waiter: &Waiter) {
        let (Waiter::Suback { connection, .. } | Waiter::Unsuback { connection, .. }) = waiter
        else {
            return;
        };
        if let Some(target) = self.clients.connections.get_mut(*connection) {
            target.subscribing = target.subscribing.saturating_sub(1);
            if target.subscribing < SUBSCRIBING_MAX {
                self.resume(*connection, pause::SUBSCRIBING);
            }
        }
    }

    fn routes_in_force(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Suback { connection, session, packet_id, reasons, replays } => {
                // The client may have gone meanwhile, and its session's index may be another's.
                let there = self.clients.connections.get(connection);
                if there.is_none_or(|there| there.session != session.0) {
                    return;
                }
                self.clients.write(connection.index, Counter::PacketsSuback, |version, out| {
                    SubAck::new(packet_id, &reasons).encode(version, out);
                });
                self.replay_all(session, replays);
            }
            Waiter::Retained { connection, session, replays } => {
                let there = self.clients.connections.get(connection);
                if there.is_some_and(|there| there.session == session.0) {
                    self.replay_all(session, replays);
                }
            }
            Waiter::Unsuback { connection, packet_id, reasons } => {
                if self.clients.connections.get(connection).is_some() {
                    self.clients.write(
                        connection.index,
                        Counter::PacketsUnsuback,
                        |version, out| {
                            UnsubAck::new(packet_id, &reasons).encode(version, out);
                        },
                    );
                }
            }
            Waiter::Command(token) => self.reply(token, Reply::Done),
        }
    }
}

impl Shard {
    /// Begins to send retained messages to the subscriptions that are still there.
    fn replay_all(&mut self, session: SessionId, replays: Vec<WantsRetained>) {
        for wanted in replays {
            // It may have unsubscribed, and the filter's number be another filter's.
            let owner = self.clients.sessions.session(session.0);
            let still = owner.is_some_and(|s| s.subscriptions.get(wanted.filter).is_some());
            if still && self.router.filter(wanted.filter) == &*wanted.text {
                self.replay_retained(session, wanted);
            }
        }
    }
}

/// A subscription that was made.
#[derive(Debug)]
pub(crate) struct Subscribed {
    /// The `QoS` that was granted.
    pub granted: mqtt::QoS,
    /// What is to be sent of the retained messages.
    pub retained: Option<WantsRetained>,
}

/// The `QoS` a subscription gets (MQTT-3.8.4-7).
pub(crate) fn granted(asked: mqtt::QoS, max: u8) -> mqtt::QoS {
    mqtt::QoS::from_bits(max).map_or(asked, |max| asked.min(max))
}

pub(crate) fn is_shared(parsed: &ParsedFilter<'_>) -> bool {
    matches!(parsed.kind, FilterKind::Shared { .. } | FilterKind::Queue)
}
