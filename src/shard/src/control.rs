//! Commands of the control plane, and the counts it reads.

use std::sync::Arc;

use metrics::{Counter, Gauge, ShardMetrics};
use mqtt::{ParsedFilter, QoS, ReasonCode, SubscribeOptions, topic};
use ring::ShardSet;
use router::{RouteCursor as RouterCursor, SessionId};
use session::acl::Acl;
use session::{NEVER_EXPIRES_S, Publication, Session, Subscription};

use crate::clients::{Clients, Dispatch};
use crate::command::{
    ClientRow, DelayedRequest, PAGE_ROWS_MAX, PAGE_SLOTS_MAX, Page, Reply, Request,
    RetainerRequest, RouteCursor, RouteRow, SessionKind, SessionRow, SubscriptionCursor,
    SubscriptionRow, TickBucket,
};
use crate::connection::{Connection, State, flag};
use crate::effect::{ConnectionId, ListenerId};
use crate::leave::End;
use crate::sessions::{NO_CONNECTION, SessionSlot};
use crate::shard::Shard;
use crate::shutdown::ENDED_PER_TICK;
use crate::subscribe::{Waiter, granted};

/// The end of all clients of a listener.
#[derive(Debug)]
pub(crate) struct Eviction {
    token: u64,
    listener: ListenerId,
    /// The next connection to be looked at.
    next: u32,
}

fn seconds(n: u32) -> u64 {
    u64::from(n)
}

pub(crate) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Shard {
    pub(crate) fn perform(&mut self, token: u64, request: Request) {
        let Some(request) = self.hold_command(token, request) else { return };
        let reply = match request {
            Request::ClientsPage { cursor, limit } => {
                Reply::Clients(self.clients_page(cursor, limit))
            }
            Request::ClientShow { client_id } => Reply::Client(self.client_show(&client_id)),
            Request::ClientKick { client_id } => self.client_kick(&client_id),
            Request::SessionsPage { cursor, limit, kind } => {
                Reply::Sessions(self.sessions_page(cursor, limit, kind))
            }
            Request::SessionShow { client_id } => Reply::Session(self.session_show(&client_id)),
            Request::RoutesPage { cursor, limit } => Reply::Routes(self.routes_page(cursor, limit)),
            Request::RouteShow { filter } => Reply::Route(self.route_show(&filter)),
            Request::SubscriptionsPage { cursor, limit } => {
                Reply::Subscriptions(self.subscriptions_page(cursor, limit))
            }
            Request::SubscriptionsShow { client_id, offset, limit } => {
                self.subscriptions_show(&client_id, offset, limit)
            }
            Request::SubscriptionAdd { client_id, filter, qos } => {
                match self.subscription_add(token, &client_id, &filter, qos) {
                    Some(reply) => reply,
                    None => return, // answered when the routes are in force
                }
            }
            Request::SubscriptionDel { client_id, filter } => {
                self.subscription_del(&client_id, &filter)
            }
            Request::Publish { topic, payload, qos, retain, sys } => {
                self.publish_own(&topic, &payload, qos, retain, sys)
            }
            Request::Delayed(request) => {
                let changes = matches!(request, DelayedRequest::Delete(_));
                let reply = self.perform_delayed(request);
                if changes && reply == Reply::Done {
                    return self.reply_when_kept(token, reply);
                }
                reply
            }
            Request::Retainer(request) => {
                let changes = matches!(request, RetainerRequest::Clean { .. });
                let Some(reply) = self.perform_retainer(token, request) else {
                    return; // answered when it is read
                };
                if changes && matches!(reply, Reply::RetainedPart(_)) {
                    return self.reply_when_kept(token, reply);
                }
                reply
            }
            Request::AclReload(acl) => self.acl_reload(acl),
            Request::BannedReplace(banned) => {
                self.banned = banned;
                Reply::Done
            }
            Request::Keep => return self.reply_when_kept(token, Reply::Done),
            Request::FlappingBans => Reply::Bans(self.flapping.list(self.clients.now)),
            Request::FlappingForgive { client_id } => {
                if self.flapping.forgive(&client_id) {
                    Reply::Done
                } else {
                    Reply::NotFound
                }
            }
            Request::ListenerCounts => Reply::Listeners(self.listeners.rows()),
            Request::ListenerStop(listener) => {
                self.listeners.set_stopped(listener, true);
                return self.evictions.push(Eviction { token, listener, next: 0 });
            }
            Request::ListenerStart(listener) => {
                self.listeners.set_stopped(listener, false);
                Reply::Done
            }
            Request::TickHistogram => Reply::TickHistogram(self.tick_buckets()),
            Request::Shutdown { reason, grace_ms } => {
                return self.begin_shutdown(token, reason, grace_ms);
            }
        };
        self.reply(token, reply);
    }

    fn clients_page(&self, cursor: u32, limit: u32) -> Page<ClientRow, u32> {
        let end = self.clients.connections.slots();
        page(cursor, limit, end, |index| {
            let connection = self.clients.connections.at(index)?;
            client_row(&self.clients, connection)
        })
    }

    fn client_show(&self, client_id: &str) -> Option<Box<ClientRow>> {
        let session = self.clients.sessions.find(client_id)?;
        let connection = self.clients.connections.at(self.clients.connected(session)?)?;
        client_row(&self.clients, connection).map(Box::new)
    }

    fn client_kick(&mut self, client_id: &str) -> Reply {
        let Some(session) = self.clients.sessions.find(client_id) else { return Reply::NotFound };
        let Some(index) = self.clients.connected(session) else { return Reply::NotFound };
        let connection = self.clients.connections.at(index).expect("a session's connection exists");
        let id = ConnectionId { index, generation: connection.generation };
        self.end_connection(id, End::Kicked);
        if self.clients.sessions.find(client_id) == Some(session) {
            self.end_session(session, Counter::SessionTerminated);
        }
        Reply::Done
    }

    fn sessions_page(&self, cursor: u32, limit: u32, kind: SessionKind) -> Page<SessionRow, u32> {
        let end = self.clients.sessions.slots();
        page(cursor, limit, end, |index| {
            let slot = self.clients.sessions.slot(index)?;
            let session = slot.session.as_ref()?;
            let wanted = match kind {
                SessionKind::Any => true,
                SessionKind::Persistent => !session.is_transient(),
                SessionKind::Transient => session.is_transient(),
            };
            wanted.then(|| self.session_row(slot, session))
        })
    }

    fn session_show(&self, client_id: &str) -> Option<Box<SessionRow>> {
        let id = self.clients.sessions.find(client_id)?;
        let slot = self.clients.sessions.slot(id.0)?;
        Some(Box::new(self.session_row(slot, slot.session.as_ref()?)))
    }

    fn session_row(&self, slot: &SessionSlot, session: &Session) -> SessionRow {
        let connected = slot.connection != NO_CONNECTION;
        let now = self.clients.now;
        let expires = (!connected && session.expiry_interval_s != NEVER_EXPIRES_S).then(|| {
            let offline_ms = slot.offline_ms(now.mono_ms);
            (now.unix_ms.saturating_sub(offline_ms)) / 1000 + seconds(session.expiry_interval_s)
        });
        let window = if connected {
            self.clients.window(slot.connection)
        } else {
            usize::from(self.settings.session.max_inflight)
        };
        SessionRow {
            client_id: session.client_id.to_string(),
            connected,
            clean_start: session.is_transient(),
            expiry_interval_s: session.expiry_interval_s,
            expires_at_unix_s: expires,
            subscriptions: count(session.subscriptions.len()),
            max_inflight: count(window),
            inflight: count(session.inflight_len()),
            mqueue_len: count(self.clients.queue_len(session)),
            mqueue_max: self.settings.mqueue.max_length,
            mqueue_dropped: seconds(session.dropped),
            awaiting_rel: count(session.awaiting_rel_len()),
            deliver_msg: seconds(session.delivered),
            enqueue_msg: seconds(session.enqueued),
            created_at_unix_s: seconds(session.created_unix_s),
        }
    }

    fn routes_page(&self, cursor: RouteCursor, limit: u32) -> Page<RouteRow, RouteCursor> {
        let start = u32::try_from(cursor.0)
            .map_or(RouterCursor::from_raw(u32::MAX), RouterCursor::from_raw);
        let page = self.router.routes(start, limit.min(PAGE_ROWS_MAX) as usize);
        let rows = page.routes.into_iter().map(|route| self.route_row(route.filter, route.shards));
        Page {
            rows: rows.collect(),
            next: page.next.map(|next| RouteCursor(u64::from(next.raw()))),
        }
    }

    fn route_row(&self, filter: String, shards: ShardSet) -> RouteRow {
        let parsed = ParsedFilter::parse(&filter, &self.limits).ok();
        let id = parsed.and_then(|parsed| self.router.find(&parsed));
        let subscribers = count(id.map_or(0, |id| self.router.subscribers(id).len()));
        RouteRow { filter, shards, subscribers }
    }

    fn route_show(&self, filter: &str) -> Option<Box<RouteRow>> {
        let parsed = ParsedFilter::parse(filter, &self.limits).ok()?;
        self.router.find(&parsed)?;
        let shards = self.router.route_shards(&parsed);
        Some(Box::new(self.route_row(filter.to_owned(), shards)))
    }

    fn subscriptions_page(
        &self,
        cursor: SubscriptionCursor,
        limit: u32,
    ) -> Page<SubscriptionRow, SubscriptionCursor> {
        let limit = limit.min(PAGE_ROWS_MAX) as usize;
        let mut rows = Vec::new();
        let mut at = cursor;
        let end = self.clients.sessions.slots();
        let looks_end = cursor.session.saturating_add(PAGE_SLOTS_MAX).min(end);
        while at.session < looks_end {
            if let Some(session) = self.clients.sessions.session(at.session) {
                let left = limit - rows.len();
                let listed = session.subscriptions.iter().skip(at.offset as usize).take(left);
                let before = rows.len();
                rows.extend(listed.map(|s| self.subscription_row(session, s)));
                at.offset += count(rows.len() - before);
                if (at.offset as usize) < session.subscriptions.len() {
                    return Page { rows, next: Some(at) };
                }
            }
            at = SubscriptionCursor { session: at.session + 1, offset: 0 };
            if rows.len() == limit {
                break;
            }
        }
        Page { rows, next: (at.session < end).then_some(at) }
    }

    fn subscriptions_show(&self, client_id: &str, offset: u32, limit: u32) -> Reply {
        let Some(id) = self.clients.sessions.find(client_id) else { return Reply::NotFound };
        let session = self.clients.sessions.session(id.0).expect("it was found");
        let limit = limit.min(PAGE_ROWS_MAX);
        let listed = session.subscriptions.iter().skip(offset as usize).take(limit as usize);
        let rows: Vec<_> = listed.map(|s| self.subscription_row(session, s)).collect();
        let next = offset + count(rows.len());
        let more = (next as usize) < session.subscriptions.len();
        Reply::ClientSubscriptions(Page { rows, next: more.then_some(next) })
    }

    fn subscription_row(&self, session: &Session, subscription: &Subscription) -> SubscriptionRow {
        let options = subscription.options();
        SubscriptionRow {
            client_id: session.client_id.to_string(),
            filter: self.router.name(subscription.filter),
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: options.retain_handling,
            subscription_id: subscription.id().map(std::num::NonZeroU32::get),
        }
    }

    fn subscription_add(
        &mut self,
        token: u64,
        client_id: &str,
        filter: &str,
        qos: QoS,
    ) -> Option<Reply> {
        let Some(session) = self.clients.sessions.find(client_id) else {
            return Some(Reply::NotFound);
        };
        let Ok(parsed) = ParsedFilter::parse(filter, &self.limits) else {
            return Some(Reply::Refused(ReasonCode::TopicFilterInvalid));
        };
        let qos = granted(qos, self.settings.mqtt.max_qos_allowed);
        let options = SubscribeOptions { qos, ..SubscribeOptions::default() };
        let subscribed = self.add_subscription(session, &parsed, options, None);
        self.gauge_routes();
        if let Some(wanted) = subscribed.retained {
            self.replay_retained(session, wanted);
        }
        self.wait_for_routes(None, Waiter::Command(token));
        None
    }

    fn subscription_del(&mut self, client_id: &str, filter: &str) -> Reply {
        let Some(session) = self.clients.sessions.find(client_id) else { return Reply::NotFound };
        if let Ok(parsed) = ParsedFilter::parse(filter, &self.limits) {
            self.remove_subscription(session, &parsed);
            self.gauge_routes();
        }
        Reply::Done
    }

    pub(crate) fn publish_own(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
        sys: bool,
    ) -> Reply {
        if topic::validate_name(topic, &self.limits).is_err() {
            return Reply::Refused(ReasonCode::TopicNameInvalid);
        }
        let publication = Publication { qos, retain, sys, ..Publication::new(topic, payload) };
        let routed = self.route(&mut Dispatch::new(publication, None));
        Reply::Published { destinations: routed.destinations }
    }

    fn acl_reload(&mut self, acl: Arc<Acl>) -> Reply {
        self.acl = acl;
        Reply::Done
    }

    fn tick_buckets(&self) -> Vec<TickBucket> {
        let buckets = self.tick_histogram.buckets();
        buckets.into_iter().map(|(upper_us, count)| TickBucket { upper_us, count }).collect()
    }

    /// Ends the next clients of listeners that were stopped; answers when the last one has been.
    pub(crate) fn continue_evictions(&mut self) {
        for mut eviction in std::mem::take(&mut self.evictions) {
            let slots = self.clients.connections.slots();
            let end = eviction.next.saturating_add(ENDED_PER_TICK).min(slots);
            for index in eviction.next..end {
                if let Some(connection) = self.clients.connections.at(index)
                    && connection.listener == eviction.listener
                {
                    let id = ConnectionId { index, generation: connection.generation };
                    self.end_connection(id, End::ListenerStopped);
                }
            }
            eviction.next = end;
            if end < slots {
                self.evictions.push(eviction);
            } else {
                self.reply(eviction.token, Reply::Done);
            }
        }
    }

    pub(crate) fn gauge_routes(&self) {
        let metrics = &self.clients.metrics;
        metrics.set(Gauge::Subscriptions, self.router.subscription_count() as u64);
        metrics.set(Gauge::Subscribers, self.router.subscription_count() as u64);
        // Every replica knows the routes of the whole node; one of them counts.
        if self.id.index() == 0 {
            metrics.set(Gauge::Routes, self.router.route_count() as u64);
            metrics.set(Gauge::Topics, self.router.route_count() as u64);
        }
    }
}

impl Clients {
    /// The messages of a session that wait and that its client will get: what of a queue in the store is above the limit goes
    /// when it is trimmed.
    fn queue_len(&self, session: &Session) -> usize {
        let length_max = self.settings.mqueue.max_length as usize;
        let length = session.mqueue_len();
        if length_max > 0 { length.min(length_max) } else { length }
    }

    pub fn gauge_sessions(&self) {
        self.metrics.set(Gauge::Sessions, self.sessions.len() as u64);
    }

    /// Counts a session among those that outlive their connection, and among those with messages that wait, if it is one.
    pub fn gauge_session(&mut self, id: SessionId) {
        let (raise, clear) = (self.alarm_length(), self.clear_length());
        let Some(slot) = self.sessions.slot_mut(id.0) else { return };
        let session = slot.session.as_ref().expect("the slot is in use");
        let (persistent, length) = (!session.is_transient(), session.mqueue_len());
        let (queue, was_alarm) = (length > 0, slot.counted_alarm);
        // Between the watermarks it stays as it was (SEED-SESS-10).
        let alarm = length >= raise || (was_alarm && length > 0 && length >= clear);
        change(&self.metrics, Gauge::PersistentSessions, &mut slot.counted_persistent, persistent);
        change(&self.metrics, Gauge::Queues, &mut slot.counted_queue, queue);
        change(&self.metrics, Gauge::QueueAlarms, &mut slot.counted_alarm, alarm);
    }

    /// Counts a session no more.
    pub fn gauge_session_gone(&mut self, id: SessionId) {
        let Some(slot) = self.sessions.slot_mut(id.0) else { return };
        change(&self.metrics, Gauge::PersistentSessions, &mut slot.counted_persistent, false);
        change(&self.metrics, Gauge::Queues, &mut slot.counted_queue, false);
        change(&self.metrics, Gauge::QueueAlarms, &mut slot.counted_alarm, false);
    }
}

fn change(metrics: &ShardMetrics, gauge: Gauge, counted: &mut bool, is: bool) {
    match (*counted, is) {
        (false, true) => metrics.increase(gauge),
        (true, false) => metrics.decrease(gauge),
        _ => {}
    }
    *counted = is;
}

/// A page of what `row` finds in the slots from `cursor` on.
fn page<R>(cursor: u32, limit: u32, end: u32, row: impl Fn(u32) -> Option<R>) -> Page<R, u32> {
    let limit = limit.min(PAGE_ROWS_MAX) as usize;
    let looks_end = cursor.saturating_add(PAGE_SLOTS_MAX).min(end);
    let mut rows = Vec::new();
    let mut at = cursor;
    while at < looks_end && rows.len() < limit {
        rows.extend(row(at));
        at += 1;
    }
    Page { rows, next: (at < end).then_some(at) }
}

fn client_row(clients: &Clients, connection: &Connection) -> Option<ClientRow> {
    if connection.state != State::Connected {
        return None;
    }
    let session = clients.sessions.session(connection.session)?;
    Some(ClientRow {
        client_id: session.client_id.to_string(),
        username: connection.username().map(str::to_owned),
        clean_start: connection.has(flag::CLEAN_START),
        version: connection.version,
        keepalive_s: connection.keepalive_s,
        peer: connection.peer.address(),
        listener: connection.listener,
        connected_at_unix_s: seconds(connection.connected_unix_s),
        is_bridge: connection.has(flag::BRIDGE),
        has_will: session.will.is_some(),
        outbox_bytes: clients.outboxes.bytes(connection.outbox) as u64,
    })
}
