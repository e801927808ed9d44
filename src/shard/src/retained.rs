//! Retained messages: kept by the shard their topic belongs to, and replayed to new subscriptions in slices
//! (SEED-PUB-10..13, MQTT-3.3.1-5..12).
//!
//! A replay asks one shard after the other, a page at a time, and asks for the next page only when the session has
//! taken the one before: a client that subscribes to a million retained messages neither stalls a shard nor fills
//! a queue.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use config::RetainedStorage;
use metrics::{Counter, DropKind, DropReason, Gauge};
use mqtt::topic::has_wildcard;
use ring::ShardId;
use router::{FilterId, ScanBudget, SessionId, SubOptions, home, slot};
use session::Message;

use crate::clients::Dispatch;
use crate::journal::Journal;
use crate::mesh::{ControlMessage, RetainedPage, RetainedRequest};
use crate::shard::Shard;
use crate::subscribe::WantsRetained;

/// Messages of a page.
const PAGE: usize = 64;
/// A replay whose session has no room looks again after this time.
const RETRY_MS: u64 = 50;
/// Messages of the index that one look for expired ones visits.
const SWEEP_VISITS: usize = 5000;

/// One subscription's replay.
#[derive(Debug)]
struct Replay {
    session: SessionId,
    session_generation: u32,
    filter: FilterId,
    text: Box<str>,
    /// Shards that are still to be asked; the first is being asked.
    sources: VecDeque<ShardId>,
    /// Where the shard that is being asked goes on.
    cursor: Option<Box<str>>,
}

/// The replays to the sessions of this shard, at most one per subscription.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    next: u32,
    running: HashMap<u32, Replay>,
    /// Keyed by session and filter.
    by_subscription: BTreeMap<(u32, usize), u32>,
    /// Those whose next page is to be read from this shard's own index.
    ready: VecDeque<u32>,
    /// Those whose session has no room, and when to look again.
    stalled: Vec<u32>,
    retry_ms: Option<u64>,
    /// Where the search for expired messages goes on.
    sweep: Option<Box<str>>,
    /// Something in the index may expire.
    may_expire: bool,
}

impl Replays {
    fn begin(&mut self, replay: Replay) -> u32 {
        let subscription = (replay.session.0, replay.filter.index());
        self.end(subscription);
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.running.insert(id, replay);
        self.by_subscription.insert(subscription, id);
        id
    }

    fn end(&mut self, subscription: (u32, usize)) {
        if let Some(id) = self.by_subscription.remove(&subscription) {
            self.running.remove(&id);
        }
    }

    fn end_id(&mut self, id: u32) {
        if let Some(replay) = self.running.remove(&id) {
            self.by_subscription.remove(&(replay.session.0, replay.filter.index()));
        }
    }

    /// Ends the replays of a session.
    pub fn end_session(&mut self, session: SessionId) {
        let all = (session.0, 0)..=(session.0, usize::MAX);
        let ended: Vec<_> = self.by_subscription.range(all).map(|(&key, _)| key).collect();
        ended.into_iter().for_each(|subscription| self.end(subscription));
    }

    /// Ends the replay of a subscription.
    pub fn end_subscription(&mut self, session: SessionId, filter: FilterId) {
        self.end((session.0, filter.index()));
    }

    /// When stalled replays are to be looked at.
    pub fn next_ms(&self) -> Option<u64> {
        self.retry_ms
    }
}

impl Shard {
    /// Keeps a publication as its topic's retained message, or removes it if it is empty (MQTT-3.3.1-6).
    pub(crate) fn store_retained(&mut self, dispatch: &mut Dispatch<'_>) {
        let publication = dispatch.publication;
        if self.clients.is_recovering && self.has_newer_retained(dispatch) {
            // It was on its way when the broker ended, and another one came behind it.
            return;
        }
        let limits = &self.settings.retainer;
        if publication.payload.is_empty() {
            self.remove_retained(publication.topic);
        } else if publication.payload.len() > limits.max_payload_size_bytes as usize {
            self.clients.metrics.count_drop(DropKind::Retained, DropReason::TooLarge);
        } else if !publication.sys
            && self.retained.len() as u64 >= self.retained_max()
            && self.retained.get(publication.topic).is_none()
        {
            self.clients.metrics.count_drop(DropKind::Retained, DropReason::QuotaExceeded);
        } else {
            let now = self.clients.now;
            let message = dispatch.message(&mut self.clients.message_ids, now).clone();
            self.replays.may_expire |=
                message.expires_unix_ms.is_some() || limits.expiry_interval_s > 0;
            if !message.sys
                && let Some(journal) = self.retained_journal()
            {
                journal.put_retained(&message);
            }
            self.retained.insert(publication.topic, message);
            self.clients.metrics.inc(Counter::MessagesRetained);
        }
        self.gauge_retained();
    }

    /// Whether the topic of a message that is published again has a later one. Ids of one shard tell it exactly, those of two by
    /// the time of their ticks.
    fn has_newer_retained(&mut self, dispatch: &mut Dispatch<'_>) -> bool {
        let Some(known) = self.retained.get(dispatch.publication.topic) else { return false };
        let known = known.id;
        let now = self.clients.now;
        let id = dispatch.message(&mut self.clients.message_ids, now).id;
        if known.maker() == id.maker() { known > id } else { known.unix_ms() > id.unix_ms() }
    }

    /// The one place where a retained message is taken out.
    pub(crate) fn remove_retained(&mut self, topic: &str) -> Option<Arc<Message>> {
        let gone = self.retained.remove(topic)?;
        if !gone.sys
            && let Some(journal) = self.retained_journal()
        {
            journal.remove_retained(topic);
        }
        Some(gone)
    }

    /// Where changes of retained messages are noted, if they are kept on disk (SEED-PUB-09).
    fn retained_journal(&mut self) -> Option<&mut Journal> {
        let on_disk = self.settings.retainer.storage != RetainedStorage::Ram;
        self.clients.journal.as_mut().filter(|_| on_disk)
    }

    /// Takes a retained message back from the store; or out of it, if they are to be in memory only now.
    pub(crate) fn retain_found(&mut self, message: Arc<Message>) {
        if self.settings.retainer.storage == RetainedStorage::Ram {
            if let Some(journal) = &mut self.clients.journal {
                journal.remove_retained(message.topic());
            }
            return;
        }
        self.replays.may_expire |=
            message.expires_unix_ms.is_some() || self.settings.retainer.expiry_interval_s > 0;
        let topic: Box<str> = message.topic().into();
        self.retained.insert(&topic, message);
        self.gauge_retained();
    }

    /// This shard's share of the node's limit; topics are spread evenly by their slots.
    fn retained_max(&self) -> u64 {
        self.settings.retainer.max_message_num.div_ceil(self.shards as u64)
    }

    pub(crate) fn gauge_retained(&self) {
        self.clients.metrics.set(Gauge::Retained, self.retained.len() as u64);
    }

    /// When a retained message is no longer to be sent: its own expiry, or the setting's age; `$SYS` never expires
    /// (SEED-PUB-13).
    fn is_retained_alive(&self, message: &Message) -> bool {
        let unix_ms = self.clients.now.unix_ms;
        if message.is_expired(unix_ms) {
            return false;
        }
        let age_max_s = u64::from(self.settings.retainer.expiry_interval_s);
        let age_ms = unix_ms.saturating_sub(message.id.unix_ms());
        age_max_s == 0 || message.sys || age_ms < age_max_s * 1000
    }

    /// Begins to send the retained messages that match a new subscription.
    pub(crate) fn replay_retained(&mut self, session: SessionId, wanted: WantsRetained) {
        let Some(slot_of) = self.clients.sessions.slot(session.0) else { return };
        let session_generation = slot_of.generation;
        let sources = if has_wildcard(&wanted.text) {
            std::iter::once(self.id).chain(self.others()).collect()
        } else {
            VecDeque::from([home(slot(wanted.text.as_bytes()), self.shards)])
        };
        let replay = Replay {
            session,
            session_generation,
            filter: wanted.filter,
            text: wanted.text,
            sources,
            cursor: None,
        };
        let id = self.replays.begin(replay);
        self.continue_replay(id);
    }

    /// Asks for the next page of a replay.
    fn continue_replay(&mut self, id: u32) {
        let Some(replay) = self.replays.running.get(&id) else { return };
        let Some(&source) = replay.sources.front() else {
            self.replays.end_id(id);
            return;
        };
        if !self.has_room_for_replay(replay.session) {
            let cursor = replay.cursor.clone();
            self.stall_replay(id, cursor);
        } else if source == self.id && has_wildcard(&replay.text) && !self.retained.is_empty() {
            self.replays.ready.push_back(id);
        } else if source == self.id {
            let (messages, next) = self.scan_retained(&replay.text, replay.cursor.as_deref());
            self.take_page(id, messages, next);
        } else {
            let request = RetainedRequest {
                replay: id,
                filter: replay.text.clone(),
                cursor: replay.cursor.clone(),
            };
            self.mesh.send_control(source, ControlMessage::RetainedRequest(request));
        }
    }

    /// Whether a session can take a page: half of its outbox and of its queue are free.
    fn has_room_for_replay(&self, session: SessionId) -> bool {
        let Some(slot) = self.clients.sessions.slot(session.0) else { return true };
        let queued = slot.session.as_ref().map_or(0, session::Session::mqueue_len);
        let outbox = self
            .clients
            .connected(session)
            .and_then(|connection| self.clients.connections.at(connection))
            .map_or(0, |connection| self.clients.outboxes.bytes(connection.outbox));
        let queue_max = self.settings.mqueue.max_length as usize;
        queued <= queue_max / 2 && outbox <= self.settings.conn.pending_bytes_max / 2
    }

    /// Whether there are replays to be read from this shard's own index.
    #[must_use]
    pub fn has_background_work(&self) -> bool {
        !self.replays.ready.is_empty()
    }

    /// Does one slice of that work.
    pub fn run_background(&mut self) {
        let Some(id) = self.replays.ready.pop_front() else { return };
        let Some(replay) = self.replays.running.get(&id) else { return };
        let page = self.scan_retained(&replay.text, replay.cursor.as_deref());
        self.take_page(id, page.0, page.1);
    }

    fn scan_retained(
        &self,
        filter: &str,
        cursor: Option<&str>,
    ) -> (Vec<Arc<Message>>, Option<Box<str>>) {
        let page = self.retained.scan(filter, cursor, ScanBudget::of_matches(PAGE));
        let alive = page.matches.iter().filter(|(_, message)| self.is_retained_alive(message));
        (alive.map(|(_, message)| Arc::clone(message)).collect(), page.next.map(Box::from))
    }

    /// Another shard asks for retained messages kept here.
    pub(crate) fn retained_requested(&mut self, from: ShardId, request: RetainedRequest) {
        let RetainedRequest { replay, filter, cursor } = request;
        let (messages, next) = self.scan_retained(&filter, cursor.as_deref());
        let page = RetainedPage { replay, messages, next };
        self.mesh.send_control(from, ControlMessage::RetainedPage(page));
    }

    /// Another shard has answered.
    pub(crate) fn retained_received(&mut self, page: RetainedPage) {
        self.take_page(page.replay, page.messages, page.next);
    }

    /// Delivers a page, as far as the session has room; the rest is asked for again.
    fn take_page(&mut self, id: u32, messages: Vec<Arc<Message>>, next: Option<Box<str>>) {
        let Some(replay) = self.replays.running.get(&id) else { return };
        let (session, generation, filter) =
            (replay.session, replay.session_generation, replay.filter);
        let is_wild = has_wildcard(&replay.text);
        let owner = self.clients.sessions.slot(session.0).filter(|s| s.generation == generation);
        let subscription = owner
            .and_then(|slot| slot.session.as_ref())
            .and_then(|session| session.subscriptions.get(filter).copied());
        let Some(subscription) = subscription else {
            self.replays.end_id(id);
            return;
        };
        let options = SubOptions::from_subscribe(&subscription.options(), false);
        let ids = [subscription.id().map_or(0, std::num::NonZeroU32::get)];
        let ids = if ids[0] == 0 { &[][..] } else { &ids[..] };
        for message in messages {
            if !self.has_room_for_replay(session) {
                // A cursor names the first topic of the next page.
                self.stall_replay(id, is_wild.then(|| message.topic().into()));
                return;
            }
            let mut dispatch = Dispatch::new(message.publication(), Some(&message));
            self.clients.deliver(session, options, ids, &mut dispatch, true);
        }
        let Some(replay) = self.replays.running.get_mut(&id) else { return };
        if next.is_none() {
            replay.sources.pop_front();
        }
        replay.cursor = next;
        self.continue_replay(id);
    }

    fn stall_replay(&mut self, id: u32, cursor: Option<Box<str>>) {
        if let Some(replay) = self.replays.running.get_mut(&id) {
            replay.cursor = cursor;
        }
        self.replays.stalled.push(id);
        self.replays.retry_ms.get_or_insert(self.clients.now.mono_ms + RETRY_MS);
    }

    /// Whether the index may hold messages that expire.
    pub(crate) fn retained_may_expire(&self) -> bool {
        self.replays.may_expire && !self.retained.is_empty()
    }

    /// Removes expired messages from the index, a part of it at a time.
    pub(crate) fn sweep_retained(&mut self) {
        if !self.retained_may_expire() {
            return;
        }
        let mut visited = 0;
        let mut last = None;
        let mut expired: Vec<Box<str>> = Vec::new();
        for (topic, message) in self.retained.iter_after(self.replays.sweep.as_deref()) {
            if visited == SWEEP_VISITS {
                break;
            }
            visited += 1;
            last = Some(topic);
            if !self.is_retained_alive(message) {
                expired.push(topic.into());
            }
        }
        // At the end it begins again.
        self.replays.sweep = last.filter(|_| visited == SWEEP_VISITS).map(Box::from);
        for topic in expired {
            self.remove_retained(&topic);
            self.clients.metrics.count_drop(DropKind::Retained, DropReason::Expired);
        }
        self.gauge_retained();
    }

    /// Looks at stalled replays again.
    pub(crate) fn retry_replays(&mut self) {
        if self.replays.retry_ms.is_some_and(|at| at <= self.clients.now.mono_ms) {
            self.replays.retry_ms = None;
            for id in std::mem::take(&mut self.replays.stalled) {
                self.continue_replay(id);
            }
        }
    }
}
