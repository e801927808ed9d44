//! The start of a shard that has a store: what was kept comes back.
//!
//! Listeners accept at once, but packets wait until all shards know all sessions, so that nothing is published past a
//! subscription that is kept and nobody gets a second session. Sessions come back without their messages; these are read when
//! the client returns. Messages that were on their way between shards are published again before any client is heard.
//!
//! Three steps, which all shards take together: read what the store has and announce the routes; publish again; serve.

use std::collections::{BTreeMap, VecDeque};

use mqtt::{ParsedFilter, ReasonCode, SubscribeOptions};
use ring::{ShardId, ShardSet};
use router::{SessionId, SubOptions, slot};
use session::{Session, Subscription, Will};

use crate::clients::Dispatch;
use crate::command::{OUTSTANDING_MAX, Reply, Request};
use crate::connection::pause;
use crate::effect::ConnectionId;
use crate::journal::carried;
use crate::mesh::ControlMessage;
use crate::shard::Shard;
use crate::storage::{
    ON_ITS_WAY, PASSED_ON, StoreHealth, StoreReply, StoredDelayed, StoredSessionRow,
    StoredSubscription,
};
use crate::turns::WORK_MAX;

/// Answers of the store that one tick takes; the largest is a page of sessions.
const REPLIES_PER_TICK: usize = 16;
/// Commands that wait for the end of the start; so that those which need not wait find room in the channel.
const COMMANDS_MAX: usize = OUTSTANDING_MAX / 2;
/// Messages that are published again in one tick.
const AGAIN_PER_TICK: usize = 1024;

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
    again: VecDeque<StoredDelayed>,
    /// Connections that wait for the end of the start.
    waiting: Vec<ConnectionId>,
    /// Commands that do.
    commands: Vec<(u64, Request)>,
    /// What the broker says of itself, the last of each topic: answered already.
    own: BTreeMap<String, Request>,
}

impl Recovery {
    /// `has_store`: whether there is anything to come back from.
    pub fn new(has_store: bool) -> Self {
        Self {
            step: if has_store { Step::Reading } else { Step::Serving },
            found: ShardSet::EMPTY,
            ready: ShardSet::EMPTY,
            again: VecDeque::new(),
            waiting: Vec::new(),
            commands: Vec::new(),
            own: BTreeMap::new(),
        }
    }

    /// Whether packets have to wait.
    pub fn holds(&self) -> bool {
        self.step != Step::Serving
    }
}

/// Whether a command depends on what the store has, or would be passed by it.
fn needs_store(request: &Request) -> bool {
    matches!(
        request,
        Request::Publish { .. }
            | Request::SubscriptionAdd { .. }
            | Request::SubscriptionDel { .. }
            | Request::ClientKick { .. }
            | Request::Delayed(_)
            | Request::Retainer(_)
    )
}

impl Shard {
    /// Holds a command back until the start is over, if it is one that has to be: what it publishes would go past subscriptions
    /// that are kept, take numbers that were given out before, and be replaced by what is older. `None`: it is held, or
    /// answered.
    pub(crate) fn hold_command(&mut self, token: u64, request: Request) -> Option<Request> {
        if !self.recovery.holds() || !needs_store(&request) {
            return Some(request);
        }
        match request {
            Request::Publish { topic, payload, qos, retain, sys: true } => {
                let name = topic.clone();
                let held = Request::Publish { topic, payload, qos, retain, sys: true };
                self.recovery.own.insert(name, held);
                self.reply(token, Reply::Published { destinations: 0 });
            }
            _ if self.shutdown.is_some() => {
                self.reply(token, Reply::Refused(ReasonCode::ServerShuttingDown));
            }
            request if self.recovery.commands.len() < COMMANDS_MAX => {
                self.recovery.commands.push((token, request));
            }
            _ => self.reply(token, Reply::Refused(ReasonCode::ServerBusy)),
        }
        None
    }

    fn perform_held(&mut self) {
        for request in std::mem::take(&mut self.recovery.own).into_values() {
            if let Request::Publish { topic, payload, qos, retain, sys } = request {
                self.publish_own(&topic, &payload, qos, retain, sys);
            }
        }
        for (token, request) in std::mem::take(&mut self.recovery.commands) {
            self.perform(token, request);
        }
    }

    /// The shard ends before its start is over: who waits for an answer gets one.
    pub(crate) fn refuse_held_commands(&mut self) {
        for (token, _) in std::mem::take(&mut self.recovery.commands) {
            self.reply(token, Reply::Refused(ReasonCode::ServerShuttingDown));
        }
    }

    /// Holds a connection back until the start is over.
    pub(crate) fn wait_for_recovery(&mut self, id: ConnectionId) {
        self.pause(id, pause::LOADING);
        self.recovery.waiting.push(id);
    }

    /// Takes what the store has answered.
    pub(crate) fn run_store(&mut self) {
        for _ in 0..REPLIES_PER_TICK {
            // Looked at in each tick: a copy of the receiver would be two atomic writes.
            let Some(Ok(reply)) = self.store_replies.as_ref().map(|replies| replies.try_recv())
            else {
                break;
            };
            self.store_replied(reply);
        }
        self.run_disc_only();
    }

    /// Whether the store has answered.
    pub(crate) fn has_store_replies(&self) -> bool {
        self.store_replies.as_ref().is_some_and(|replies| !replies.is_empty())
    }

    fn store_replied(&mut self, reply: StoreReply) {
        match reply {
            StoreReply::Bans(banned) => self.banned = banned,
            StoreReply::Sessions(rows) => rows.into_iter().for_each(|row| self.restore(row)),
            StoreReply::Retained(found) => {
                found.into_iter().for_each(|message| self.retain_found(message));
            }
            StoreReply::RetainedRows(rows) => self.retained_rows_found(&rows),
            StoreReply::RetainedFound => self.retained_rows_end(),
            StoreReply::RetainedIs(row) => self.retained_decided(&row),
            StoreReply::RetainedPage { id, page } => self.retained_read(id, page),
            StoreReply::Delayed(found) => self.restore_all_delayed(found),
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
                self.answer_kept();
            }
            StoreReply::Session { session, entries, received } => {
                let loaded = self.clients.being_loaded(session);
                let shared = loaded.map_or_else(Vec::new, |id| self.shared_filters(id));
                let waiting = self.clients.session_loaded(session, entries, &received, &shared);
                for connection in waiting {
                    self.resume(connection, pause::LOADING);
                }
            }
            StoreReply::Unread { session } => {
                for connection in self.clients.session_unread(session) {
                    self.resume(connection, pause::LOADING);
                }
            }
            StoreReply::Counts { rows, is_last } => self.clients.counted(rows, is_last),
            StoreReply::Trimmed { session, lost } => self.clients.queue_trimmed(session, lost),
            StoreReply::Known { session } => self.clients.message_known(session),
            StoreReply::Ended { session, lost, by_group, is_last } => {
                self.unloaded_session_ended(session, lost, by_group, is_last);
            }
            StoreReply::Health(health) => {
                if let Some(journal) = &mut self.clients.journal {
                    journal.is_failing = health == StoreHealth::Failing;
                }
                self.answer_kept();
            }
        }
    }

    /// Takes a session back as the store has it, without its messages.
    fn restore(&mut self, row: StoredSessionRow) {
        let StoredSessionRow { session, head, subscriptions } = row;
        if self.clients.sessions.find(&head.client_id).is_some() {
            log::error!("the store has two sessions of '{}'; one is left out", head.client_id);
            return;
        }
        let now = self.clients.now;
        let mut owner = Session::new(&head.client_id, false, head.created_unix_s);
        owner.expiry_interval_s = head.expiry_interval_s;
        owner.stored = carried(session);
        owner.found_stored();
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

    fn restore_all_delayed(&mut self, found: Vec<StoredDelayed>) {
        for one in found {
            // A delayed message that is in another slot than its topic's was on its way to the shard of its topic.
            if one.due_unix_ms <= PASSED_ON || one.slot != slot(one.message.topic().as_bytes()) {
                self.recovery.again.push_back(one);
            } else {
                self.restore_delayed(one.due_unix_ms, one.number, one.message);
            }
        }
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
            self.publish_some_again();
            if self.recovery.again.is_empty() && !self.clients.barrier.has_on_their_way() {
                self.tell_others(|| ControlMessage::StoreReady);
                self.recovery.step = Step::Ready;
            }
        }
        if self.recovery.step == Step::Ready && self.recovery.ready.len() == others {
            self.recovery.step = Step::Serving;
            self.clients.is_recovering = false;
            self.forget_ended_retained();
            self.perform_held();
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

    /// Publishes the next messages again: what a tick has time for, and the store and the mesh have room for.
    fn publish_some_again(&mut self) {
        for _ in 0..AGAIN_PER_TICK {
            if !self.may_publish_again() {
                return;
            }
            let Some(one) = self.recovery.again.pop_front() else { return };
            self.publish_again(&one);
        }
    }

    fn may_publish_again(&self) -> bool {
        self.clients.work <= WORK_MAX && !self.is_journal_full() && !self.mesh.has_blocked()
    }

    /// When there is more to be done for the start though nothing comes.
    pub(crate) fn next_recovery_ms(&self) -> Option<u64> {
        let is_ready = self.recovery.step == Step::Again
            && self.recovery.found.len() == self.shards - 1
            && !self.recovery.again.is_empty();
        let is_held = self.is_journal_full() || self.mesh.has_blocked();
        (is_ready && !is_held).then_some(self.clients.now.mono_ms)
    }

    /// Publishes a message again that was on its way to other shards when the broker ended.
    fn publish_again(&mut self, one: &StoredDelayed) {
        let mut publication = one.message.publication();
        publication.origin = None;
        let mut dispatch = Dispatch::new(publication, Some(&one.message));
        dispatch.is_again = true;
        match one.due_unix_ms {
            ON_ITS_WAY => {
                self.route(&mut dispatch);
            }
            PASSED_ON => self.route_to_groups(&mut dispatch),
            due_unix_ms => self.delay_again(due_unix_ms, &mut dispatch),
        }
        if dispatch.remote.is_empty() {
            if let Some(journal) = &mut self.clients.journal {
                journal.remove_delayed(one.slot, one.number);
            }
        } else {
            self.clients.barrier.forget_when_kept(one.slot, one.number, dispatch.remote);
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, Sender};
    use mqtt::QoS;
    use session::{Message, MessageId, Publication};

    use super::*;
    use crate::StoreMode;
    use crate::away::UNREAD_MS;
    use crate::desk::{Desk, connect};
    use crate::storage::{
        PutAs, SessionHead, StoreOp, StoreRequest, StoredEntry, StoredPlace, StoredSession,
        StoredState,
    };

    const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
    const PRESENT: [u8; 4] = [0x20, 2, 1, 0];
    const PUBLISH_QOS1: [u8; 7] = [0x32, 5, 0, 1, b'a', 0, 1];

    /// A CONNECT that asks for the session it had.
    fn connect_again(client_id: &str) -> Vec<u8> {
        let mut bytes = connect(client_id, 0);
        bytes[9] = 0;
        bytes
    }

    fn all(sent: Vec<(ConnectionId, Vec<u8>)>) -> Vec<u8> {
        sent.into_iter().flat_map(|(_, bytes)| bytes).collect()
    }

    fn row(number: u64, client_id: &str) -> StoredSessionRow {
        let head = SessionHead {
            client_id: client_id.into(),
            created_unix_s: 1,
            expiry_interval_s: 3600,
            offline_since_unix_ms: Some(1_700_000_000_000),
            will: None,
        };
        let slot = slot(client_id.as_bytes());
        let subscriptions = vec![StoredSubscription { filter: "a".into(), options: 1, id: 0 }];
        let session = StoredSession { slot, number };
        StoredSessionRow { session, head, subscriptions }
    }

    /// A shard that has found one session, of the client "c".
    fn started() -> (Desk, Receiver<StoreRequest>, Sender<StoreReply>, StoredSession) {
        let (mut desk, requests, answers) = Desk::stored(&[], StoreMode::EveryMs(50));
        let stored = row(7, "c");
        let session = stored.session;
        answers.send(StoreReply::Sessions(vec![stored])).unwrap();
        answers.send(StoreReply::Found { numbers_from: 9 }).unwrap();
        desk.tick(1, None);
        (desk, requests, answers, session)
    }

    fn entry(state: StoredState) -> StoredEntry {
        let publication = Publication { qos: QoS::AtLeastOnce, ..Publication::new("a", b"") };
        StoredEntry {
            state,
            message: Some(Message::new(MessageId(1), &publication)),
            qos: QoS::AtLeastOnce,
            retain: false,
            priority: 0,
            subscription_ids: None,
            by_group: false,
        }
    }

    #[test]
    fn clients_are_served_when_the_store_is_read() {
        let (mut desk, _requests, answers) = Desk::stored(&[], StoreMode::EveryMs(50));
        let client = desk.accept(0, "10.0.0.1:5");
        assert!(desk.tick(1, Some((client, &connect("c", 0)))).is_empty());
        answers.send(StoreReply::Found { numbers_from: 9 }).unwrap();
        desk.tick(1, None);
        assert_eq!(all(desk.tick(1, None)), CONNACK);
    }

    #[test]
    fn a_session_comes_back_with_its_subscription_and_messages() {
        let (mut desk, requests, answers, session) = started();
        // One comes while nobody is there: behind what is in the store.
        let publisher = desk.accept(0, "10.0.0.1:5");
        desk.tick(1, Some((publisher, &connect("p", 0))));
        assert_eq!(all(desk.tick(1, Some((publisher, &PUBLISH_QOS1)))), [0x40, 2, 0, 1]);
        let client = desk.accept(0, "10.0.0.1:6");
        assert!(desk.tick(1, Some((client, &connect_again("c")))).is_empty());
        let batch = requests.try_recv().expect("somebody waits for it").batch;
        let [StoreOp::PutEntry { put: PutAs::New, place, entry: queued, .. }] = &batch.ops[..]
        else {
            panic!("{:?}", batch.ops)
        };
        assert!(matches!(batch.loads[..], [asked] if asked == session));
        let sent = StoredState::Sent(mqtt::PacketId::new(40).unwrap());
        let entries = vec![(StoredPlace::new(3, false), entry(sent)), (*place, queued.clone())];
        answers.send(StoreReply::Session { session, entries, received: Vec::new() }).unwrap();
        let got = all(desk.tick(1, None));
        let (connack, publishes) = got.split_at(4);
        assert_eq!(connack, PRESENT);
        assert_eq!(publishes[..7], [0x3a, 5, 0, 1, b'a', 0, 40], "DUP and its packet id");
        assert_eq!(publishes[7..], [0x32, 5, 0, 1, b'a', 0, 41], "then what was queued");
    }

    /// SEED-SESS-01: what cannot be read is not taken for what never was.
    #[test]
    fn a_session_that_cannot_be_read_is_refused_and_tried_again() {
        let (mut desk, requests, answers, session) = started();
        let come = |desk: &mut Desk| {
            let client = desk.accept(0, "10.0.0.1:5");
            desk.tick(1, Some((client, &connect_again("c"))))
        };
        assert!(come(&mut desk).is_empty());
        assert_eq!(requests.try_iter().count(), 1);
        answers.send(StoreReply::Unread { session }).unwrap();
        const UNAVAILABLE: [u8; 4] = [0x20, 2, 0, 3];
        assert_eq!(all(desk.tick(1, None)), UNAVAILABLE);
        assert_eq!(all(come(&mut desk)), UNAVAILABLE, "it is not tried for each who comes");
        assert_eq!(requests.try_iter().count(), 0);
        desk.tick(UNREAD_MS, None);
        assert!(come(&mut desk).is_empty());
        let batch = requests.try_recv().expect("it is tried again").batch;
        assert!(matches!(batch.loads[..], [asked] if asked == session));
        let entries = vec![(StoredPlace::new(3, false), entry(StoredState::Queued))];
        answers.send(StoreReply::Session { session, entries, received: Vec::new() }).unwrap();
        let got = all(desk.tick(1, None));
        assert_eq!((&got[..4], got.len()), (&PRESENT[..], 4 + 7), "with what it had");
    }

    /// SEED-SESS-02: who comes while a session is being read waits for that, though it was counted meanwhile and has nothing.
    #[test]
    fn two_that_come_for_one_session_wait_for_one_read() {
        let (mut desk, _requests, answers, session) = started();
        let first = desk.accept(0, "10.0.0.1:5");
        assert!(desk.tick(1, Some((first, &connect_again("c")))).is_empty());
        answers.send(StoreReply::Counts { rows: Vec::new(), is_last: true }).unwrap();
        desk.tick(1, None);
        let second = desk.accept(0, "10.0.0.1:6");
        assert!(desk.tick(1, Some((second, &connect_again("c")))).is_empty());
        let entries = Vec::new();
        answers.send(StoreReply::Session { session, entries, received: Vec::new() }).unwrap();
        let mut got = desk.tick(1, None);
        got.extend(desk.tick(1, None));
        let got: Vec<_> = got.into_iter().filter(|(id, _)| *id == second).collect();
        assert_eq!(all(got), PRESENT);
    }

    #[test]
    fn with_always_nothing_is_told_before_it_is_committed() {
        let (mut desk, requests, answers) = Desk::stored(&[], StoreMode::Always);
        answers.send(StoreReply::Found { numbers_from: 9 }).unwrap();
        desk.tick(1, None);
        let client = desk.accept(0, "10.0.0.1:5");
        assert!(desk.tick(1, Some((client, &connect_again("c")))).is_empty());
        let commit = |desk: &mut Desk| {
            let sequence = requests.try_recv().expect("a batch").batch.sequence;
            answers.send(StoreReply::Committed { sequence }).unwrap();
            all(desk.tick(1, None))
        };
        assert_eq!(commit(&mut desk), CONNACK);
        let subscribe = [0x82, 6, 0, 1, 0, 1, b'a', 1];
        assert!(desk.tick(1, Some((client, &subscribe))).is_empty());
        assert_eq!(commit(&mut desk), [0x90, 3, 0, 1, 1]);
        // Its own message: the answer and the delivery wait together.
        assert!(desk.tick(1, Some((client, &PUBLISH_QOS1))).is_empty());
        let got = commit(&mut desk);
        assert_eq!(got.len(), 4 + 7, "{got:x?}");
        // A ping depends on nothing.
        assert_eq!(all(desk.tick(1, Some((client, &[0xc0, 0])))), [0xd0, 0]);
    }

    fn retained(id: u128, payload: &[u8]) -> std::sync::Arc<Message> {
        let publication = Publication { retain: true, ..Publication::new("a", payload) };
        Message::new(MessageId(id), &publication)
    }

    fn publish(payload: &'static [u8], sys: bool) -> Request {
        let payload = bytes::Bytes::from_static(payload);
        Request::Publish { topic: "a".into(), payload, qos: QoS::AtLeastOnce, retain: true, sys }
    }

    /// What a command publishes before the store is read would go past subscriptions that are kept, take numbers that were
    /// given out before, and be replaced by what is older.
    #[test]
    fn commands_wait_until_the_store_is_read() {
        let (mut desk, requests, answers) = Desk::stored(&[], StoreMode::EveryMs(50));
        desk.shard.command(crate::Command { token: 1, request: publish(b"new", false) });
        desk.tick(1, None);
        assert!(requests.try_recv().is_err() && desk.shard.retained.is_empty());
        answers.send(StoreReply::Sessions(vec![row(7, "c")])).unwrap();
        answers.send(StoreReply::Retained(vec![retained(1, b"old")])).unwrap();
        answers.send(StoreReply::Found { numbers_from: 900 }).unwrap();
        desk.tick(1, None);
        assert_eq!(desk.shard.retained.get("a").expect("kept").payload(), b"new");
        desk.tick(100, None);
        let batch = requests.try_recv().expect("it is time").batch;
        let [StoreOp::PutEntry { place, .. }, StoreOp::PutRetained { message }] = &batch.ops[..]
        else {
            panic!("{:?}", batch.ops)
        };
        assert!(place.to_bits() > 900 && batch.numbers_below > 900, "{place:?}");
        assert_eq!(message.payload(), b"new");
    }

    /// The last of each topic is published when the start is over; who says it does not wait, so that there is room for other
    /// commands however long it takes.
    #[test]
    fn what_the_broker_says_of_itself_waits_without_anybody() {
        let (mut desk, _requests, answers) = Desk::stored(&[], StoreMode::EveryMs(50));
        for number in 0..500 {
            let payload: &[u8] = if number == 499 { b"last" } else { b"x" };
            desk.shard.command(crate::Command { token: number, request: publish(payload, true) });
            let replied = desk.replies.try_recv().expect("at once");
            assert_eq!(replied, (number, Reply::Published { destinations: 0 }));
        }
        for number in 0..COMMANDS_MAX as u64 {
            desk.shard.command(crate::Command { token: number, request: publish(b"y", false) });
        }
        assert!(desk.replies.is_empty());
        desk.shard.command(crate::Command { token: 99, request: publish(b"y", false) });
        let refused = desk.replies.try_recv().expect("at once");
        assert_eq!(refused, (99, Reply::Refused(ReasonCode::ServerBusy)));
        answers.send(StoreReply::Found { numbers_from: 9 }).unwrap();
        desk.tick(1, None);
        assert_eq!(desk.replies.len(), COMMANDS_MAX, "the others have their answers too");
        assert_eq!(desk.shard.retained.get("a").expect("kept").payload(), b"y");
    }

    /// A message that was on its way when the broker ended is not retained behind its own end, nor behind a newer one.
    #[test]
    fn what_was_removed_does_not_come_back_with_what_was_on_its_way() {
        let id = |ms: u128| (ms * 1000) << 64;
        let cases = [
            (&b""[..], 5, None),
            (b"", 3, Some(&b"again"[..])),
            (b"newer", 5, Some(b"newer")),
            (b"older", 3, Some(b"again")),
        ];
        for (stored, ms, left) in cases {
            let (mut desk, _requests, answers) = Desk::stored(&[], StoreMode::Always);
            answers.send(StoreReply::Retained(vec![retained(id(ms), stored)])).unwrap();
            let message = retained(id(4), b"again");
            let due_unix_ms = ON_ITS_WAY;
            let one = StoredDelayed { slot: 1, number: 1, due_unix_ms, message };
            answers.send(StoreReply::Delayed(vec![one])).unwrap();
            answers.send(StoreReply::Found { numbers_from: 9 }).unwrap();
            desk.tick(1, None);
            let found = desk.shard.retained.get("a").map(|message| message.payload());
            assert_eq!(found, left, "{stored:?}");
        }
    }
}
