//! The changes of this shard that are on their way to the store (SEED-SESS-01, SEED-PUB-11).
//!
//! Changes are gathered and handed over as one batch: at the end of a tick with `store.sync = always`, else when the interval
//! has passed. What is made and undone in between, a message that is acknowledged at once for instance, never reaches the
//! store. At most [`BATCHES_MAX`] batches are on their way; what comes meanwhile waits here, and if it becomes too much those
//! who publish wait too.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Sender, TrySendError};
use hashbrown::HashMap;
use mqtt::PacketId;
use ring::ShardId;
use session::{Message, Settled, StoredPlace};
use xxhash_rust::xxh3::xxh3_128;

use crate::storage::{
    PutAs, SessionHead, StoreBatch, StoreOp, StoreRequest, StoredDelayed, StoredEntry,
    StoredSession, StoredState, StoredSubscription,
};

/// Batches of a shard that are handed over and not committed.
pub const BATCHES_MAX: u64 = 2;
/// A batch of this weight is handed over before its time.
const BATCH_BYTES: usize = 4 << 20;
/// With so much waiting, those who publish wait too.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// So many empty places are left until the rest moves together.
const HOLES_MAX: usize = 4096;
/// What an op weighs beside its message.
const OP_BYTES: usize = 128;
/// How long the end of a `QoS` 2 message stays in the store where its publisher may be on another shard: that shard forgets
/// the message as soon as it knows that it is kept here, which takes far less.
const LATE_MS: u64 = 5000;
/// Bits of the slot in the number a session carries.
const SLOT_BITS: u32 = 12;
/// Bits of the shard in a number it gives out: what several shards have given out meets on one after another start.
const SHARD_BITS: u32 = 8;

/// When changes are handed over, and what a client is told before they are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreMode {
    /// At once, and nothing that depends on them is told to a client before they are committed.
    Always,
    /// After so many milliseconds.
    EveryMs(u64),
}

/// What a change is about: a later one replaces an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Session(u64),
    Subscription(u64, u128),
    /// Numbers of places are given out by each shard; sessions that meet on one may have the same.
    Entry(u64, StoredPlace),
    Received(u64, PacketId),
    Retained(u128),
    Delayed(u16, u64),
}

/// The name of a session in the store, from what it carries.
pub(crate) fn stored_session(stored: u64) -> StoredSession {
    let slot = u16::try_from(stored & ((1 << SLOT_BITS) - 1)).expect("12 bits");
    StoredSession { slot, number: stored >> SLOT_BITS }
}

/// What a session carries of its name in the store.
pub(crate) fn carried(session: StoredSession) -> u64 {
    session.number << SLOT_BITS | u64::from(session.slot)
}

/// A change that waits.
#[derive(Debug)]
struct Waiting {
    key: Option<Key>,
    op: StoreOp,
    weight: usize,
}

/// The changes that wait.
#[derive(Debug)]
pub(crate) struct Journal {
    shard: ShardId,
    requests: Sender<StoreRequest>,
    mode: StoreMode,
    /// In their order; what a later one has replaced leaves its place empty.
    ops: Vec<Option<Waiting>>,
    /// How many places are empty.
    holes: usize,
    by_key: HashMap<Key, usize>,
    loads: Vec<StoredSession>,
    /// Weight of what waits.
    bytes: usize,
    /// When the oldest change came.
    since_ms: Option<u64>,
    /// Ends of messages that stay for a while.
    late: VecDeque<(u64, u64, StoredPlace)>,
    /// Whether ends of messages are to stay.
    has_late: bool,
    /// Somebody waits for what is here: it is handed over before its time.
    is_urgent: bool,
    /// Topics whose retained message was removed, and when that may be forgotten.
    buried: HashMap<u128, u64>,
    late_retained: VecDeque<(u64, Box<str>)>,
    next_number: u64,
    handed_over: u64,
    committed: u64,
    /// The store cannot write.
    pub is_failing: bool,
}

impl Journal {
    pub fn new(
        shard: ShardId,
        shards: usize,
        requests: Sender<StoreRequest>,
        mode: StoreMode,
    ) -> Self {
        Self {
            shard,
            requests,
            mode,
            ops: Vec::new(),
            holes: 0,
            by_key: HashMap::new(),
            loads: Vec::new(),
            bytes: 0,
            since_ms: None,
            late: VecDeque::new(),
            has_late: mode == StoreMode::Always && shards > 1,
            is_urgent: false,
            buried: HashMap::new(),
            late_retained: VecDeque::new(),
            next_number: 1,
            handed_over: 0,
            committed: 0,
            is_failing: false,
        }
    }

    /// Whether clients are told nothing before it is on disk.
    pub fn is_always(&self) -> bool {
        self.mode == StoreMode::Always
    }

    /// How long the end of a message may stay here.
    pub fn late_ms(&self) -> u64 {
        if self.has_late { LATE_MS } else { 0 }
    }

    /// Numbers go on from here.
    pub fn numbers_from(&mut self, number: u64) {
        self.next_number = self.next_number.max(number);
    }

    /// A number that no shard of this or another start has given out.
    pub fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        (self.next_number - 1) << SHARD_BITS | self.shard.index() as u64
    }

    /// A place for a message in a queue; `is_shared` if it is kept once for all that get it.
    pub fn next_place(&mut self, is_shared: bool) -> StoredPlace {
        StoredPlace::new(self.next_number(), is_shared)
    }

    fn push(&mut self, key: Option<Key>, op: StoreOp, weight: usize) {
        if let Some(key) = key {
            self.take(key);
            self.by_key.insert(key, self.ops.len());
        }
        self.ops.push(Some(Waiting { key, op, weight }));
        self.bytes += weight;
        if self.holes > HOLES_MAX && self.holes > self.ops.len() / 2 {
            self.close_holes();
        }
    }

    /// A change that has not been handed over.
    fn waiting(&self, key: Key) -> Option<&StoreOp> {
        let at = *self.by_key.get(&key)?;
        self.ops[at].as_ref().map(|waiting| &waiting.op)
    }

    fn close_holes(&mut self) {
        self.ops.retain(Option::is_some);
        self.holes = 0;
        self.by_key.clear();
        for (at, waiting) in self.ops.iter().enumerate() {
            if let Some(key) = waiting.as_ref().and_then(|waiting| waiting.key) {
                self.by_key.insert(key, at);
            }
        }
    }

    /// Takes a change out that has not been handed over.
    fn take(&mut self, key: Key) -> Option<StoreOp> {
        let waiting = self.by_key.remove(&key).and_then(|place| self.ops[place].take())?;
        self.bytes -= waiting.weight;
        self.holes += 1;
        Some(waiting.op)
    }

    pub fn put_session(&mut self, stored: u64, head: Box<SessionHead>) {
        let weight = OP_BYTES + head.will.as_ref().map_or(0, |will| will.message.len());
        let session = stored_session(stored);
        self.push(Some(Key::Session(stored)), StoreOp::PutSession { session, head }, weight);
    }

    pub fn remove_session(&mut self, stored: u64, tell: bool) {
        let op = StoreOp::RemoveSession { session: stored_session(stored), tell };
        self.push(Some(Key::Session(stored)), op, OP_BYTES);
    }

    pub fn put_subscription(&mut self, stored: u64, subscription: StoredSubscription) {
        let key = Key::Subscription(stored, xxh3_128(subscription.filter.as_bytes()));
        let session = stored_session(stored);
        self.push(Some(key), StoreOp::PutSubscription { session, subscription }, OP_BYTES);
    }

    pub fn remove_subscription(&mut self, stored: u64, filter: Box<str>) {
        let key = Key::Subscription(stored, xxh3_128(filter.as_bytes()));
        let session = stored_session(stored);
        self.push(Some(key), StoreOp::RemoveSubscription { session, filter }, OP_BYTES);
    }

    /// A message is in a session's queue, or its state is another one.
    pub fn put_entry(&mut self, stored: u64, place: StoredPlace, put: PutAs, entry: StoredEntry) {
        let key = Key::Entry(stored, place);
        // What is not there yet stays new, whatever has become of it.
        let put = match self.waiting(key) {
            Some(StoreOp::PutEntry { put: before, .. }) => *before,
            _ => put,
        };
        let weight = match (put, &entry.message) {
            // Where it is kept once for all a change does not write it again.
            (PutAs::Changed, Some(_)) if place.is_shared() => 0,
            (_, Some(message)) => message.len(),
            (_, None) => 0,
        };
        let session = stored_session(stored);
        let op = StoreOp::PutEntry { session, place, put, entry };
        self.push(Some(key), op, OP_BYTES + weight);
    }

    /// A message of a session is done.
    pub fn settle(&mut self, stored: u64, settled: Settled) {
        if self.take_new(stored, settled.place).is_some() {
            return;
        }
        let session = stored_session(stored);
        let op = StoreOp::RemoveEntry { session, place: settled.place };
        self.push(Some(Key::Entry(stored, settled.place)), op, OP_BYTES);
    }

    /// A `QoS` 2 message of a session is done, from PUBLISH to PUBCOMP.
    pub fn settle_released(&mut self, stored: u64, place: StoredPlace, now_ms: u64) {
        if self.has_late {
            self.late.push_back((now_ms + LATE_MS, stored, place));
        } else {
            self.settle(stored, Settled { place, message: None });
        }
    }

    /// PUBREC has come: the message itself is no longer needed.
    pub fn release(&mut self, stored: u64, packet_id: PacketId, settled: Settled) {
        let Some(message) = settled.message else { return };
        let entry = StoredEntry {
            state: StoredState::Released(packet_id, message),
            message: None,
            qos: mqtt::QoS::ExactlyOnce,
            retain: false,
            priority: 0,
            subscription_ids: None,
            by_group: false,
        };
        self.put_entry(stored, settled.place, PutAs::Changed, entry);
    }

    fn is_new(&self, stored: u64, place: StoredPlace) -> bool {
        let op = self.waiting(Key::Entry(stored, place));
        matches!(op, Some(StoreOp::PutEntry { put: PutAs::New | PutAs::NewUnlessKnown, .. }))
    }

    /// Takes an entry out that the store has not seen.
    fn take_new(&mut self, stored: u64, place: StoredPlace) -> Option<StoreOp> {
        if self.is_new(stored, place) { self.take(Key::Entry(stored, place)) } else { None }
    }

    pub fn put_received(&mut self, stored: u64, packet_id: PacketId) {
        let session = stored_session(stored);
        let key = Key::Received(stored, packet_id);
        // The end of the message that used this id before stays where it is: the store may have that one.
        if let Some(before) = self.by_key.remove(&key).and_then(|at| self.ops[at].as_mut()) {
            before.key = None;
        }
        self.push(Some(key), StoreOp::PutReceived { session, packet_id }, OP_BYTES);
    }

    pub fn remove_received(&mut self, stored: u64, packet_id: PacketId) {
        let key = Key::Received(stored, packet_id);
        if let Some(StoreOp::PutReceived { .. }) = self.take(key) {
            return;
        }
        let session = stored_session(stored);
        self.push(Some(key), StoreOp::RemoveReceived { session, packet_id }, OP_BYTES);
    }

    pub fn put_retained(&mut self, message: &Arc<Message>) {
        let topic = xxh3_128(message.topic().as_bytes());
        self.buried.remove(&topic);
        self.push_retained(topic, message);
    }

    fn push_retained(&mut self, topic: u128, message: &Arc<Message>) {
        let weight = OP_BYTES + message.len();
        let op = StoreOp::PutRetained { message: message.clone() };
        self.push(Some(Key::Retained(topic)), op, weight);
    }

    /// A message that was on its way when the broker ended is its topic's, unless the store has one as new.
    pub fn retain_again(&mut self, message: &Arc<Message>) {
        let weight = OP_BYTES + message.len();
        // What the topic has then is known when the store has decided.
        self.unbury(message.topic());
        // Behind what came before, and before what comes behind: the store takes them in this order.
        self.push(None, StoreOp::RetainAgain { message: message.clone() }, weight);
    }

    pub fn remove_retained(&mut self, topic: &str) {
        let key = Key::Retained(xxh3_128(topic.as_bytes()));
        self.push(Some(key), StoreOp::RemoveRetained { topic: topic.into() }, OP_BYTES);
    }

    /// A message without payload has removed its topic's. Where that may have an older one on its way from another shard, which
    /// is published again after a crash, it stays in the store for a while to say so.
    pub fn bury_retained(&mut self, end: &Arc<Message>, now_ms: u64) {
        if !self.has_late {
            return self.remove_retained(end.topic());
        }
        self.push_retained(xxh3_128(end.topic().as_bytes()), end);
        self.forget_buried(end.topic(), now_ms);
    }

    /// The store has a message without payload for this topic: it goes when nothing older can come any more.
    pub fn forget_buried(&mut self, topic: &str, now_ms: u64) {
        let due_ms = now_ms + LATE_MS;
        self.buried.insert(xxh3_128(topic.as_bytes()), due_ms);
        self.late_retained.push_back((due_ms, topic.into()));
    }

    /// The store has a message with payload again.
    pub fn unbury(&mut self, topic: &str) {
        self.buried.remove(&xxh3_128(topic.as_bytes()));
    }

    fn run_late(&mut self, now_ms: u64, now: bool) {
        while let Some(&(due_ms, stored, place)) = self.late.front()
            && (due_ms <= now_ms || now)
        {
            self.late.pop_front();
            self.settle(stored, Settled { place, message: None });
        }
        while self.late_retained.front().is_some_and(|&(due_ms, _)| due_ms <= now_ms || now) {
            let Some((due_ms, topic)) = self.late_retained.pop_front() else { return };
            let name = xxh3_128(topic.as_bytes());
            // Not if the topic has a message again, or lost that one later.
            if self.buried.get(&name) == Some(&due_ms) {
                self.buried.remove(&name);
                self.remove_retained(&topic);
            }
        }
    }

    pub fn put_delayed(&mut self, delayed: StoredDelayed) {
        let weight = OP_BYTES + delayed.message.len();
        let key = Key::Delayed(delayed.slot, delayed.number);
        self.push(Some(key), StoreOp::PutDelayed(delayed), weight);
    }

    pub fn remove_delayed(&mut self, slot: u16, number: u64) {
        let key = Key::Delayed(slot, number);
        if self.take(key).is_none() {
            let op = StoreOp::RemoveDelayed { slot, number };
            self.push(Some(key), op, OP_BYTES);
        }
    }

    pub fn trim(&mut self, stored: u64, keep: u32) {
        self.push(None, StoreOp::Trim { session: stored_session(stored), keep }, OP_BYTES);
    }

    pub fn load(&mut self, session: StoredSession) {
        self.loads.push(session);
    }

    fn has_waiting(&self) -> bool {
        self.ops.len() > self.holes || !self.loads.is_empty()
    }

    fn may_hand_over(&self) -> bool {
        self.handed_over - self.committed < BATCHES_MAX
    }

    /// Notes the time of what has come in this tick, and hands it over if it is time or `now` is asked for.
    pub fn tick(&mut self, now_ms: u64, now: bool) {
        self.run_late(now_ms, now);
        if !self.has_waiting() {
            return;
        }
        let since_ms = *self.since_ms.get_or_insert(now_ms);
        let is_time = match self.mode {
            StoreMode::Always => true,
            StoreMode::EveryMs(interval_ms) => {
                now || now_ms >= since_ms + interval_ms
                    || self.bytes >= BATCH_BYTES
                    || self.is_urgent
                    || !self.loads.is_empty()
            }
        };
        if is_time && self.may_hand_over() {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let mut ops: Vec<StoreOp> = Vec::with_capacity(self.by_key.len());
        ops.extend(self.ops.drain(..).flatten().map(|waiting| waiting.op));
        self.holes = 0;
        let batch = StoreBatch {
            sequence: self.handed_over + 1,
            numbers_below: self.next_number,
            ops,
            loads: std::mem::take(&mut self.loads),
        };
        self.by_key.clear();
        if self.by_key.capacity() > 1 << 16 {
            self.by_key = HashMap::new();
            self.ops = Vec::new();
        }
        self.bytes = 0;
        self.since_ms = None;
        self.is_urgent = false;
        self.handed_over += 1;
        let request = StoreRequest { shard: self.shard, batch };
        match self.requests.try_send(request) {
            // A store that is gone has said why, and the node ends.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => panic!("more batches than the store has room for"),
        }
    }

    /// The store has committed up to this batch.
    pub fn committed(&mut self, sequence: u64) {
        assert!(sequence <= self.handed_over, "nothing is committed that was not handed over");
        self.committed = self.committed.max(sequence);
    }

    /// The batch whose commit covers everything so far; 0 if all is committed.
    pub fn needed(&self) -> u64 {
        if self.has_waiting() {
            self.handed_over + 1
        } else if self.committed < self.handed_over {
            self.handed_over
        } else {
            0
        }
    }

    /// The batch to wait for until everything so far is kept, which is handed over in this tick if it can be; 0 if all is kept.
    pub fn hurry(&mut self) -> u64 {
        self.is_urgent = self.has_waiting();
        self.needed()
    }

    /// The batch that has what is noted now.
    pub fn next_sequence(&self) -> u64 {
        self.handed_over + 1
    }

    /// The last batch that was handed over.
    pub fn handed_over(&self) -> u64 {
        self.handed_over
    }

    /// The last batch that is committed.
    pub fn committed_sequence(&self) -> u64 {
        self.committed
    }

    /// Whether so much waits that those who publish should wait too.
    pub fn is_full(&self) -> bool {
        self.bytes >= WAITING_BYTES_MAX
    }

    /// When it wants to be looked at again.
    pub fn deadline_ms(&self, now_ms: u64) -> Option<u64> {
        let late = self.late.front().map(|&(due_ms, ..)| due_ms);
        let late_retained = self.late_retained.front().map(|&(due_ms, _)| due_ms);
        let waiting = (self.has_waiting() && self.may_hand_over()).then(|| match self.mode {
            StoreMode::Always => now_ms,
            StoreMode::EveryMs(interval_ms) => self.since_ms.map_or(now_ms, |at| at + interval_ms),
        });
        [late, late_retained, waiting].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, bounded};
    use mqtt::QoS;
    use session::{Message, MessageId, Publication};

    use super::*;

    fn journal(mode: StoreMode) -> (Journal, Receiver<StoreRequest>) {
        let (requests, receiver) = bounded(8);
        (Journal::new(ShardId::new(0), 1, requests, mode), receiver)
    }

    fn entry(state: StoredState) -> StoredEntry {
        let publication = Publication { qos: QoS::AtLeastOnce, ..Publication::new("t", b"p") };
        StoredEntry {
            state,
            message: Some(Message::new(MessageId(5), &publication)),
            qos: QoS::AtLeastOnce,
            retain: false,
            priority: 0,
            subscription_ids: None,
            by_group: false,
        }
    }

    #[test]
    fn what_is_made_and_undone_in_between_never_reaches_the_store() {
        let (mut journal, receiver) = journal(StoreMode::EveryMs(100));
        let place = journal.next_place(true);
        let settled = Settled { place, message: Some(MessageId(5)) };
        journal.put_entry(9, place, PutAs::New, entry(StoredState::Queued));
        let sent = StoredState::Sent(PacketId::new(1).unwrap());
        journal.put_entry(9, place, PutAs::Changed, entry(sent));
        journal.settle(9, settled);
        journal.tick(0, false);
        journal.tick(100, false);
        let batch = receiver.try_recv().map(|request| request.batch.ops.len());
        assert!(batch.is_err() || batch == Ok(0), "{batch:?}");
    }

    #[test]
    fn no_two_shards_give_out_the_same_number() {
        let (requests, _receiver) = bounded(8);
        let mut given: Vec<u64> = (0..3)
            .flat_map(|n| {
                let always = StoreMode::Always;
                let mut journal = Journal::new(ShardId::new(n), 3, requests.clone(), always);
                let mut numbers = vec![journal.next_number(), journal.next_number()];
                journal.numbers_from(50);
                numbers.extend([journal.next_number(), journal.next_number()]);
                assert!(numbers[0] > 0 && numbers[2] > numbers[1]);
                numbers
            })
            .collect();
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 12);
    }

    #[test]
    fn a_change_of_what_is_not_there_yet_is_new() {
        let (mut journal, receiver) = journal(StoreMode::Always);
        let place = journal.next_place(false);
        let sent = StoredState::Sent(PacketId::new(1).unwrap());
        journal.put_entry(9, place, PutAs::New, entry(StoredState::Queued));
        journal.put_entry(9, place, PutAs::Changed, entry(sent));
        assert_eq!(journal.needed(), 1);
        journal.tick(0, false);
        let ops = receiver.try_recv().unwrap().batch.ops;
        let [StoreOp::PutEntry { put: PutAs::New, entry, .. }] = &ops[..] else {
            panic!("{ops:?}")
        };
        assert_eq!(entry.state, sent);
        // Now it is there.
        journal.settle(9, Settled { place, message: None });
        journal.tick(0, false);
        let ops = receiver.try_recv().unwrap().batch.ops;
        assert!(matches!(&ops[..], [StoreOp::RemoveEntry { .. }]), "{ops:?}");
    }

    #[test]
    fn batches_wait_for_the_store_and_grow_meanwhile() {
        let (mut journal, receiver) = journal(StoreMode::Always);
        for n in 1..=5_u16 {
            journal.put_received(1, PacketId::new(n).unwrap());
            journal.tick(0, false);
        }
        assert_eq!(receiver.try_iter().map(|r| r.batch.ops.len()).collect::<Vec<_>>(), [1, 1]);
        assert_eq!((journal.needed(), journal.deadline_ms(0)), (3, None));
        journal.committed(1);
        assert_eq!(journal.deadline_ms(7), Some(7));
        journal.tick(0, false);
        let third = receiver.try_recv().unwrap().batch;
        assert_eq!((third.sequence, third.ops.len()), (3, 3));
        journal.committed(3);
        assert_eq!(journal.needed(), 0);
    }

    #[test]
    fn an_id_used_again_before_its_end_is_handed_over_is_removed_once() {
        let (mut journal, receiver) = journal(StoreMode::EveryMs(100));
        let id = PacketId::new(7).unwrap();
        journal.put_received(9, id);
        journal.tick(0, true);
        journal.remove_received(9, id);
        journal.put_received(9, id);
        journal.remove_received(9, id);
        journal.tick(0, true);
        let batches: Vec<_> = receiver.try_iter().map(|request| request.batch.ops).collect();
        assert!(matches!(&batches[0][..], [StoreOp::PutReceived { .. }]), "{batches:?}");
        assert!(matches!(&batches[1][..], [StoreOp::RemoveReceived { .. }]), "{batches:?}");
    }

    #[test]
    fn what_is_put_only_if_unknown_and_done_at_once_never_reaches_the_store() {
        let (mut journal, receiver) = journal(StoreMode::EveryMs(100));
        let place = journal.next_place(true);
        journal.put_entry(9, place, PutAs::NewUnlessKnown, entry(StoredState::Queued));
        journal.settle(9, Settled { place, message: Some(MessageId(5)) });
        journal.tick(0, true);
        let ops = receiver.try_recv().map_or_else(|_| Vec::new(), |request| request.batch.ops);
        assert!(ops.is_empty(), "{ops:?}");
    }

    #[test]
    fn sessions_that_meet_may_have_the_same_places() {
        let (mut journal, receiver) = journal(StoreMode::Always);
        let settled = Settled { place: StoredPlace::new(7, false), message: None };
        journal.settle(8, settled);
        journal.settle(9, settled);
        journal.tick(0, false);
        assert_eq!(receiver.try_recv().unwrap().batch.ops.len(), 2);
    }

    #[test]
    fn the_end_of_a_session_comes_behind_what_it_had() {
        let (mut journal, receiver) = journal(StoreMode::Always);
        let place = journal.next_place(false);
        journal.put_received(9, PacketId::new(1).unwrap());
        journal.put_entry(9, place, PutAs::New, entry(StoredState::Queued));
        journal.remove_session(9, false);
        journal.tick(0, false);
        let ops = receiver.try_recv().unwrap().batch.ops;
        assert!(matches!(ops.last(), Some(StoreOp::RemoveSession { .. })), "{ops:?}");
    }

    fn retained(id: u128, payload: &[u8]) -> Arc<Message> {
        let before = entry(StoredState::Queued).message.expect("it has one");
        let publication = Publication { payload, retain: true, ..before.publication() };
        Message::new(MessageId(id), &publication)
    }

    /// An older message may be on its way from another shard, and comes again after a crash.
    #[test]
    fn the_end_of_a_retained_message_is_kept_for_a_while_where_there_are_others() {
        for shards in [1, 2] {
            let (requests, receiver) = bounded(8);
            let mut journal = Journal::new(ShardId::new(0), shards, requests, StoreMode::Always);
            let ops = |journal: &mut Journal, now_ms| {
                journal.tick(now_ms, false);
                let batches: Vec<_> = receiver.try_iter().map(|request| request.batch).collect();
                if let Some(last) = batches.last() {
                    journal.committed(last.sequence);
                }
                batches.into_iter().flat_map(|batch| batch.ops).collect::<Vec<_>>()
            };
            journal.bury_retained(&retained(2, b""), 0);
            match (shards, &ops(&mut journal, 0)[..]) {
                (1, [StoreOp::RemoveRetained { .. }]) => continue,
                (2, [StoreOp::PutRetained { message }]) => assert!(message.payload().is_empty()),
                (_, ops) => panic!("{ops:?}"),
            }
            assert_eq!(journal.deadline_ms(1), Some(LATE_MS));
            // Removed again later: the second end stays as long.
            journal.bury_retained(&retained(3, b""), 1000);
            ops(&mut journal, 1000);
            assert!(ops(&mut journal, LATE_MS).is_empty());
            let late = ops(&mut journal, LATE_MS + 1000);
            assert!(matches!(&late[..], [StoreOp::RemoveRetained { .. }]), "{late:?}");
            // A topic that has a message again keeps it.
            journal.bury_retained(&retained(4, b""), 10_000);
            journal.put_retained(&retained(5, b"x"));
            ops(&mut journal, 10_000);
            assert!(ops(&mut journal, 90_000).is_empty());
        }
    }
}
