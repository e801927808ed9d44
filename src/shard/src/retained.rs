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
use session::{Message, MessageId, Publication};
use xxhash_rust::xxh3::xxh3_64;

use crate::clients::Dispatch;
use crate::disc_only::{self, Asker, DiscOnly, Look};
use crate::journal::Journal;
use crate::mesh::{ControlMessage, RetainedPage, RetainedRequest};
use crate::shard::Shard;
use crate::storage::{RETAINED_TOPIC_LEN_MAX, StoredRetainedPage, StoredRetainedRow, is_as_new};
use crate::subscribe::WantsRetained;

/// Messages of a page.
const PAGE: usize = 64;
/// Pages that the replays of a shard ask for at a time.
const ASKED_MAX: usize = 256;
/// A replay whose session has no room looks again after this time.
const RETRY_MS: u64 = 50;
/// Publications that may pass a message which is on its way from its keeper: what is known of more is forgotten.
const OVERTAKES_MAX: usize = 65_536;
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
    /// What was published before was not delivered to it.
    began: u64,
}

/// Publications that replace or remove a retained message while replays run. Who subscribed gets them as they are published; an
/// older message of the topic that is on its way from its keeper is not to come behind.
#[derive(Debug, Default)]
pub(crate) struct Overtakes {
    seen: u64,
    /// By the hash of the topic.
    last: HashMap<u64, u64>,
    in_order: VecDeque<(u64, u64)>,
}

impl Overtakes {
    fn note(&mut self, topic: &str) {
        if self.in_order.len() == OVERTAKES_MAX
            && let Some((name, seen)) = self.in_order.pop_front()
            && self.last.get(&name) == Some(&seen)
        {
            self.last.remove(&name);
        }
        self.seen += 1;
        let name = xxh3_64(topic.as_bytes());
        self.last.insert(name, self.seen);
        self.in_order.push_back((name, self.seen));
    }

    fn forget(&mut self) {
        if !self.in_order.is_empty() {
            self.last = HashMap::new();
            self.in_order = VecDeque::new();
        }
    }

    fn has_overtaken(&self, topic: &str, began: u64) -> bool {
        !self.last.is_empty()
            && self.last.get(&xxh3_64(topic.as_bytes())).is_some_and(|&seen| seen > began)
    }
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
    /// Pages that are asked for and have not come, also of replays that have ended.
    asked: usize,
    /// Those that are to ask when another page has come; some may have ended.
    queued: VecDeque<u32>,
    /// Those whose session has no room, and when to look again.
    stalled: Vec<u32>,
    retry_ms: Option<u64>,
    /// Where the search for expired messages goes on.
    sweep: Option<Box<str>>,
    /// Something in the index may expire.
    may_expire: bool,
    overtakes: Overtakes,
    /// Topics of which the store says at the start that their message was removed, and by which.
    ended: HashMap<Box<str>, MessageId>,
    /// The same of messages that stay on disk.
    ended_rows: Vec<Box<str>>,
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

    /// A publication that replaces or removes a retained message has reached the subscribers of this shard.
    pub fn overtake(&mut self, topic: &str, has_subscribing: bool) {
        if has_subscribing || !self.running.is_empty() {
            self.overtakes.note(topic);
        } else {
            self.overtakes.forget();
        }
    }

    /// What is published from now on passes the retained messages of a subscription that is made now.
    pub fn begins(&self) -> u64 {
        self.overtakes.seen
    }

    /// Whether another page may be asked for now; if not the replay waits for its turn. However often clients subscribe, so many
    /// questions are on their way and so many replays wait.
    fn may_ask(&mut self, id: u32) -> bool {
        if self.asked < ASKED_MAX {
            return true;
        }
        if self.queued.len() > 2 * self.running.len() + ASKED_MAX {
            self.queued.retain(|id| self.running.contains_key(id));
        }
        self.queued.push_back(id);
        false
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
        if dispatch.is_again && self.is_retained_again(dispatch) {
            return;
        }
        let now = self.clients.now;
        let limits = &self.settings.retainer;
        if publication.payload.is_empty() {
            let end = dispatch.message(&mut self.clients.message_ids, now).clone();
            self.end_retained(&end);
            if dispatch.is_again {
                // An older one may come again behind it.
                self.replays.ended.insert(end.topic().into(), end.id);
            }
        } else if publication.payload.len() > limits.max_payload_size_bytes as usize
            || (self.disc_only.is_some() && publication.topic.len() > RETAINED_TOPIC_LEN_MAX)
        {
            self.clients.metrics.count_drop(DropKind::Retained, DropReason::TooLarge);
        } else if !publication.sys
            && self.retained_len() >= self.retained_max()
            && !self.has_retained(publication.topic)
        {
            self.clients.metrics.count_drop(DropKind::Retained, DropReason::QuotaExceeded);
        } else {
            let message = dispatch.message(&mut self.clients.message_ids, now).clone();
            self.keep_retained(publication.topic, message);
            self.clients.metrics.inc(Counter::MessagesRetained);
        }
        self.gauge_retained();
    }

    fn keep_retained(&mut self, topic: &str, message: Arc<Message>) {
        let due_unix_ms = self.retained_due(&message);
        let mut batch = 0;
        if !message.sys
            && let Some(journal) = self.retained_journal()
        {
            journal.put_retained(&message);
            batch = journal.next_sequence();
        }
        match &mut self.disc_only {
            Some(disc_only) if message.sys => disc_only.put_own(&message),
            Some(disc_only) => disc_only.put(message, batch, due_unix_ms),
            None => {
                self.replays.may_expire |= due_unix_ms.is_some();
                self.retained.insert(topic, message);
            }
        }
    }

    /// How many retained messages there are.
    pub(crate) fn retained_len(&self) -> u64 {
        self.disc_only.as_ref().map_or(self.retained.len(), DiscOnly::len) as u64
    }

    fn has_retained(&self, topic: &str) -> bool {
        match &self.disc_only {
            Some(disc_only) => disc_only.has(topic),
            None => self.retained.get(topic).is_some(),
        }
    }

    /// Whether nothing more is to be done for a message that was on its way when the broker ended: another one came behind it,
    /// or the store decides.
    fn is_retained_again(&mut self, dispatch: &mut Dispatch<'_>) -> bool {
        let now = self.clients.now;
        let message = dispatch.message(&mut self.clients.message_ids, now);
        if self.disc_only.is_some() {
            let message = message.clone();
            if let Some(journal) = self.retained_journal() {
                journal.retain_again(&message);
            }
            return true;
        }
        let known = self.retained.get(message.topic()).map(|known| known.id);
        let ended = self.replays.ended.get(message.topic()).copied();
        known.max(ended).is_some_and(|known| is_as_new(known, message.id))
    }

    /// The one place where a retained message is taken out; `end` is the message without payload that does it. Says whether there
    /// was one, as far as that is known.
    pub(crate) fn end_retained(&mut self, end: &Arc<Message>) -> bool {
        let now_ms = self.clients.now.mono_ms;
        let topic = end.topic();
        let was_there = match &mut self.disc_only {
            Some(disc_only) => {
                if disc_only.remove_own(topic) {
                    return true;
                }
                let batch = self.clients.journal.as_ref().map_or(0, Journal::next_sequence);
                disc_only.remove(topic, batch)
            }
            None => match self.retained.remove(topic) {
                Some(gone) if gone.sys => return true,
                gone => gone.is_some(),
            },
        };
        if was_there && let Some(journal) = self.retained_journal() {
            journal.bury_retained(end, now_ms);
        }
        was_there
    }

    /// Takes out the retained message of a topic.
    pub(crate) fn remove_retained(&mut self, topic: &str) -> bool {
        let end = Publication { retain: true, ..Publication::new(topic, &[]) };
        let id = self.clients.message_ids.next(self.clients.now.unix_ms);
        self.end_retained(&Message::new(id, &end))
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
        if message.payload().is_empty() {
            self.replays.ended.insert(message.topic().into(), message.id);
            return;
        }
        self.replays.may_expire |= self.retained_due(&message).is_some();
        let topic = Arc::clone(&message);
        self.retained.insert(topic.topic(), message);
        self.gauge_retained();
    }

    /// The start is over: what only says that a topic has no message is not needed any more.
    pub(crate) fn forget_ended_retained(&mut self) {
        let now_ms = self.clients.now.mono_ms;
        for (topic, _) in std::mem::take(&mut self.replays.ended) {
            if self.retained.get(&topic).is_none()
                && let Some(journal) = &mut self.clients.journal
            {
                journal.forget_buried(&topic, now_ms);
            }
        }
        if let Some(journal) = &mut self.clients.journal {
            for topic in std::mem::take(&mut self.replays.ended_rows) {
                journal.forget_buried(&topic, now_ms);
            }
        }
    }

    /// The store tells of messages that stay on disk.
    pub(crate) fn retained_rows_found(&mut self, rows: &[StoredRetainedRow]) {
        let now_ms = self.clients.now.mono_ms;
        let age_max_s = self.settings.retainer.expiry_interval_s;
        let Some(disc_only) = &mut self.disc_only else { return };
        for row in rows {
            let due_unix_ms = due(row.published_unix_ms, row.expires_unix_ms, age_max_s);
            if disc_only.found(row, due_unix_ms) {
                continue;
            }
            if self.recovery.holds() {
                // What was on its way when the broker ended still has to meet it.
                self.replays.ended_rows.push(row.topic.clone());
            } else if let Some(journal) = &mut self.clients.journal {
                journal.forget_buried(&row.topic, now_ms);
            }
        }
        self.gauge_retained();
    }

    /// The store has told of all of them.
    pub(crate) fn retained_rows_end(&mut self) {
        if let Some(disc_only) = &mut self.disc_only {
            disc_only.found_all();
        }
    }

    /// The store has decided about a message that was on its way when the broker ended.
    pub(crate) fn retained_decided(&mut self, row: &StoredRetainedRow) {
        let now_ms = self.clients.now.mono_ms;
        let age_max_s = self.settings.retainer.expiry_interval_s;
        let Some(disc_only) = &mut self.disc_only else { return };
        let due_unix_ms = due(row.published_unix_ms, row.expires_unix_ms, age_max_s);
        if disc_only.decided(row, due_unix_ms)
            && let Some(journal) = &mut self.clients.journal
        {
            // Of one topic several may come again, the end of one and the next.
            if row.is_gone {
                journal.forget_buried(&row.topic, now_ms);
            } else {
                journal.unbury(&row.topic);
            }
        }
        self.gauge_retained();
    }

    /// Forgets what is on disk and asks for what is to be read.
    pub(crate) fn run_disc_only(&mut self) {
        let (Some(disc_only), Some(journal)) = (&mut self.disc_only, &self.clients.journal) else {
            return;
        };
        disc_only.forget(journal.committed_sequence());
        if !journal.is_failing {
            disc_only.send(journal.committed_sequence());
        }
    }

    /// The store has read a page.
    pub(crate) fn retained_read(&mut self, id: u64, page: StoredRetainedPage) {
        let Some(disc_only) = &mut self.disc_only else { return };
        let Some((asker, page)) = disc_only.answered(id, page) else { return };
        match asker {
            Asker::Replay(replay) => {
                let (messages, next) = self.alive(page);
                self.take_page(replay, messages, next);
                self.page_came();
            }
            Asker::Peer { shard, replay } => {
                let (messages, next) = self.alive(page);
                let page = RetainedPage { replay, messages, next };
                self.mesh.send_control(shard, ControlMessage::RetainedPage(page));
            }
            Asker::Command { token, purpose } => {
                self.answer_retainer(token, purpose, page);
            }
        }
    }

    fn alive(&self, page: disc_only::Page) -> (Vec<Arc<Message>>, Option<Box<str>>) {
        let disc_only::Page { mut messages, next } = page;
        messages.retain(|message| self.is_retained_alive(message));
        (messages, next)
    }

    /// This shard's share of the node's limit; topics are spread evenly by their slots.
    fn retained_max(&self) -> u64 {
        self.settings.retainer.max_message_num.div_ceil(self.shards as u64)
    }

    pub(crate) fn gauge_retained(&self) {
        self.clients.metrics.set(Gauge::Retained, self.retained_len());
    }

    /// When a retained message is to be removed, in milliseconds since the Unix epoch.
    fn retained_due(&self, message: &Message) -> Option<u64> {
        let age_max_s = if message.sys { 0 } else { self.settings.retainer.expiry_interval_s };
        due(message.id.unix_ms(), message.expires_unix_ms, age_max_s)
    }

    /// When a retained message is no longer to be sent: its own expiry, or the setting's age; `$SYS` never expires
    /// (SEED-PUB-13).
    fn is_retained_alive(&self, message: &Message) -> bool {
        let unix_ms = self.clients.now.unix_ms;
        self.retained_due(message).is_none_or(|due_unix_ms| due_unix_ms > unix_ms)
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
            began: wanted.began,
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
        } else if source == self.id && self.disc_only.is_some() {
            self.continue_on_disc(id);
        } else if source == self.id && has_wildcard(&replay.text) && !self.retained.is_empty() {
            self.replays.ready.push_back(id);
        } else if source == self.id {
            let (messages, next) = self.scan_retained(&replay.text, replay.cursor.as_deref());
            self.take_page(id, messages, next);
        } else if self.replays.may_ask(id) {
            self.replays.asked += 1;
            let replay = &self.replays.running[&id];
            let request = RetainedRequest {
                replay: id,
                filter: replay.text.clone(),
                cursor: replay.cursor.clone(),
            };
            self.mesh.send_control(source, ControlMessage::RetainedRequest(request));
        }
    }

    fn continue_on_disc(&mut self, id: u32) {
        let Some(disc_only) = &mut self.disc_only else { return };
        let replay = &self.replays.running[&id];
        match disc_only.look(&replay.text, replay.cursor.as_deref()) {
            Look::Here(messages) => {
                let (messages, next) = self.alive(disc_only::Page { messages, next: None });
                self.take_page(id, messages, next);
            }
            Look::Read(query) => {
                if self.replays.may_ask(id) {
                    self.replays.asked += 1;
                    disc_only.ask(Asker::Replay(id), query);
                }
            }
        }
    }

    /// A page has come: another one may be asked for.
    fn page_came(&mut self) {
        self.replays.asked -= 1;
        while self.replays.asked < ASKED_MAX
            && let Some(id) = self.replays.queued.pop_front()
        {
            self.continue_replay(id);
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
        let (messages, next) = match &mut self.disc_only {
            None => self.scan_retained(&filter, cursor.as_deref()),
            Some(disc_only) => match disc_only.look(&filter, cursor.as_deref()) {
                Look::Here(messages) => self.alive(disc_only::Page { messages, next: None }),
                Look::Read(query) => {
                    return disc_only.ask(Asker::Peer { shard: from, replay }, query);
                }
            },
        };
        let page = RetainedPage { replay, messages, next };
        self.mesh.send_control(from, ControlMessage::RetainedPage(page));
    }

    /// Another shard has answered.
    pub(crate) fn retained_received(&mut self, page: RetainedPage) {
        self.take_page(page.replay, page.messages, page.next);
        self.page_came();
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
        let began = replay.began;
        for message in messages {
            if self.replays.overtakes.has_overtaken(message.topic(), began) {
                continue;
            }
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
        match &self.disc_only {
            Some(disc_only) => disc_only.may_expire(),
            None => self.replays.may_expire && !self.retained.is_empty(),
        }
    }

    /// Removes expired messages from the index, a part of it at a time.
    pub(crate) fn sweep_retained(&mut self) {
        if !self.retained_may_expire() {
            return;
        }
        let expired = match &self.disc_only {
            Some(disc_only) => disc_only.expired(self.clients.now.unix_ms, SWEEP_VISITS),
            None => self.find_expired(),
        };
        for topic in expired {
            self.remove_retained(&topic);
            self.clients.metrics.count_drop(DropKind::Retained, DropReason::Expired);
        }
        self.gauge_retained();
    }

    /// Looks at some of the index.
    fn find_expired(&mut self) -> Vec<Box<str>> {
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
        expired
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

/// When a retained message is to be removed: its own expiry, or the setting's age (0: none).
fn due(published_unix_ms: u64, expires_unix_ms: Option<u64>, age_max_s: u32) -> Option<u64> {
    let old =
        (age_max_s > 0).then(|| published_unix_ms.saturating_add(u64::from(age_max_s) * 1000));
    [expires_unix_ms, old].into_iter().flatten().min()
}
