//! The start of a shard that has a store: what was kept comes back.
//!
//! Listeners accept at once, but packets wait until all shards know all sessions, so that nothing is published past a
//! subscription that is kept and nobody gets a second session. Sessions come back without their messages; these are read when
//! the client returns. Messages that were on their way between shards are published again before any client is heard.
//!
//! Three steps, which all shards take together: read what the store has and announce the routes; publish again; serve.

use mqtt::{ParsedFilter, SubscribeOptions};
use ring::{ShardId, ShardSet};
use router::{SessionId, SubOptions};
use session::{Session, Subscription, Will};

use crate::clients::Dispatch;
use crate::connection::pause;
use crate::effect::ConnectionId;
use crate::journal::carried;
use crate::mesh::ControlMessage;
use crate::shard::Shard;
use crate::storage::{
    StoreHealth, StoreReply, StoredDelayed, StoredRetained, StoredSessionRow, StoredSubscription,
};

/// Answers of the store that one tick takes; the largest is a page of sessions.
const REPLIES_PER_TICK: usize = 16;

/// How far the start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The store tells what it has.
    Reading,
    /// All of it is known; its routes are on their way to the others.
    Found,
    /// The messages that were on their way are, again.
    Again,
    /// They have arrived; others may not be so far.
    Ready,
    /// Clients are served.
    Serving,
}

/// The start of a shard.
#[derive(Debug)]
pub(crate) struct Recovery {
    step: Step,
    /// Other shards that have announced the routes of what they found.
    found: ShardSet,
    /// Other shards whose messages have arrived.
    ready: ShardSet,
    /// Messages that were on their way when the broker ended.
    again: Vec<StoredDelayed>,
    /// Connections that wait for the end of the start.
    waiting: Vec<ConnectionId>,
}

impl Recovery {
    /// `has_store`: whether there is anything to come back from.
    pub fn new(has_store: bool) -> Self {
        Self {
            step: if has_store { Step::Reading } else { Step::Serving },
            found: ShardSet::EMPTY,
            ready: ShardSet::EMPTY,
            again: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Whether packets have to wait.
    pub fn holds(&self) -> bool {
        self.step != Step::Serving
    }
}

impl Shard {
    /// Holds a connection back until the start is over.
    pub(crate) fn wait_for_recovery(&mut self, id: ConnectionId) {
        self.pause(id, pause::LOADING);
        self.recovery.waiting.push(id);
    }

    /// Takes what the store has answered.
    pub(crate) fn run_store(&mut self) {
        let Some(replies) = self.store_replies.clone() else { return };
        for _ in 0..REPLIES_PER_TICK {
            let Ok(reply) = replies.try_recv() else { return };
            self.store_replied(reply);
        }
    }

    /// Whether the store has answered.
    pub(crate) fn has_store_replies(&self) -> bool {
        self.store_replies.as_ref().is_some_and(|replies| !replies.is_empty())
    }

    fn store_replied(&mut self, reply: StoreReply) {
        match reply {
            StoreReply::Sessions(rows) => rows.into_iter().for_each(|row| self.restore(row)),
            StoreReply::Retained(found) => found.into_iter().for_each(|r| self.restore_retained(r)),
            StoreReply::Delayed(found) => self.restore_delayed(found),
            StoreReply::Found { numbers_from } => {
                if let Some(journal) = &mut self.clients.journal {
                    journal.numbers_from(numbers_from);
                }
                self.recovery.step = Step::Found;
                self.gauge_routes();
                self.clients.gauge_sessions();
            }
            StoreReply::Committed { sequence } => {
                if let Some(journal) = &mut self.clients.journal {
                    journal.committed(sequence);
                }
                self.pass_groups();
            }
            StoreReply::Session { session, entries, received } => {
                for connection in self.clients.session_loaded(session, entries, &received) {
                    self.resume(connection, pause::LOADING);
                }
            }
            StoreReply::RetainedMessages { token, messages } => {
                self.retained_loaded(token, messages);
            }
            StoreReply::Trimmed { lost, .. } => {
                let kinds = [mqtt::QoS::AtMostOnce, mqtt::QoS::AtLeastOnce, mqtt::QoS::ExactlyOnce];
                for (qos, count) in kinds.into_iter().zip(lost) {
                    for _ in 0..count {
                        self.clients.count_drop(qos, metrics::DropReason::QueueFull);
                    }
                }
            }
            StoreReply::Health(health) => {
                if let Some(journal) = &mut self.clients.journal {
                    journal.is_failing = health == StoreHealth::Failing;
                }
            }
        }
    }

    /// Takes a session back as the store has it, without its messages.
    fn restore(&mut self, row: StoredSessionRow) {
        let StoredSessionRow { session, head, subscriptions, has_messages } = row;
        if self.clients.sessions.find(&head.client_id).is_some() {
            log::error!("the store has two sessions of '{}'; one is left out", head.client_id);
            return;
        }
        let now = self.clients.now;
        let mut owner = Session::new(&head.client_id, false, head.created_unix_s);
        owner.expiry_interval_s = head.expiry_interval_s;
        owner.stored = carried(session);
        owner.is_unloaded = has_messages;
        owner.will = head.will.map(|will| {
            let (expiry_interval_s, delay_s) = (will.expiry_interval_s, will.delay_s);
            Box::new(Will { message: will.message, expiry_interval_s, delay_s })
        });
        let id = self.clients.sessions.insert(owner);
        let offline_ms = head.offline_since_unix_ms.map_or(0, |at| now.unix_ms.saturating_sub(at));
        let slot = self.clients.sessions.slot_mut(id.0).expect("it was just put there");
        slot.went_offline(now.mono_ms, offline_ms);
        for subscription in subscriptions {
            self.restore_subscription(id, &subscription);
        }
        if head.offline_since_unix_ms.is_none() {
            // Its connection ended with the broker: its time away, and its will's delay, begin now (MQTT-3.1.2-8).
            self.clients.store_head(id);
        }
        self.clients.gauge_session(id);
        self.arm_offline_timer(id);
    }

    fn restore_subscription(&mut self, session: SessionId, stored: &StoredSubscription) {
        let parsed = ParsedFilter::parse(&stored.filter, &self.limits);
        let (Ok(parsed), Some(options)) = (parsed, SubscribeOptions::from_bits(stored.options))
        else {
            log::warn!("a stored subscription to '{}' is not valid any more", stored.filter);
            return;
        };
        let subscription_id = std::num::NonZeroU32::new(stored.id);
        let route_options = SubOptions::from_subscribe(&options, subscription_id.is_some());
        let (filter, _) = self.router.subscribe(session, &parsed, route_options, &mut self.deltas);
        let owner = self.clients.sessions.session_mut(session.0).expect("the caller made it");
        owner.subscriptions.insert(Subscription::new(filter, options, subscription_id));
    }

    fn restore_retained(&mut self, found: StoredRetained) {
        match found {
            StoredRetained::Message(message) => self.retain_found(&message),
            StoredRetained::Topic { .. } => {
                unreachable!("only a store that was asked to keeps messages to itself")
            }
        }
    }

    fn restore_delayed(&mut self, found: Vec<StoredDelayed>) {
        self.recovery.again.extend(found.into_iter().filter(|one| one.due_unix_ms == 0));
    }

    /// Another shard has announced the routes of what it found.
    pub(crate) fn peer_found(&mut self, peer: ShardId) {
        self.recovery.found.insert(peer);
    }

    /// The messages of another shard have arrived.
    pub(crate) fn peer_ready(&mut self, peer: ShardId) {
        self.recovery.ready.insert(peer);
    }

    /// Takes the steps of the start that can be taken. Routes of this tick are announced.
    pub(crate) fn continue_recovery(&mut self) {
        if self.recovery.step == Step::Found {
            self.tell_others(|| ControlMessage::StoreFound);
            self.recovery.step = Step::Again;
        }
        let others = self.shards - 1;
        if self.recovery.step == Step::Again && self.recovery.found.len() == others {
            for one in std::mem::take(&mut self.recovery.again) {
                self.publish_again(&one);
            }
            if !self.clients.barrier.has_on_their_way() {
                self.tell_others(|| ControlMessage::StoreReady);
                self.recovery.step = Step::Ready;
            }
        }
        if self.recovery.step == Step::Ready && self.recovery.ready.len() == others {
            self.recovery.step = Step::Serving;
            self.clients.is_recovering = false;
            for id in std::mem::take(&mut self.recovery.waiting) {
                self.resume(id, pause::LOADING);
            }
        }
    }

    fn tell_others(&mut self, message: impl Fn() -> ControlMessage) {
        for to in self.others() {
            self.mesh.send_control(to, message());
        }
    }

    /// Publishes a message again that was on its way to other shards when the broker ended.
    fn publish_again(&mut self, one: &StoredDelayed) {
        let mut publication = one.message.publication();
        publication.origin = None;
        let mut dispatch = Dispatch::new(publication, Some(&one.message));
        let routed = self.route(&mut dispatch);
        if routed.remote.is_empty() {
            if let Some(journal) = &mut self.clients.journal {
                journal.remove_delayed(one.slot, one.number);
            }
        } else {
            self.clients.barrier.forget_when_kept(one.slot, one.number, routed.remote);
        }
    }
}
