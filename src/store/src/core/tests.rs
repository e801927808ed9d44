use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use mqtt::{PacketId, QoS};
use ring::ShardId;
use session::MessageId;
use shard::storage::{
    PutAs, StoreBatch, StoreOp, StoreReply, StoreRequest, StoredDelayed, StoredEntry, StoredPlace,
    StoredSession, StoredState, StoredSubscription,
};

use super::{Boot, Core, Damage, Known, RetainedBoot, load};
use crate::StoreError;
use crate::codec::{keys, values};
use crate::engine::{Engine, EngineRead, Keyspace, SimulatedEngine};
use crate::fixture::{Draws, entry, message, own, put_entry, put_session, shared};

const SHARDS: usize = 2;

/// What a store should have, told by its ops.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    sessions: BTreeMap<StoredSession, ModelSession>,
    retained: BTreeMap<String, u128>,
    delayed: BTreeMap<(u16, u64), u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ModelSession {
    client_id: String,
    subscriptions: BTreeMap<String, u8>,
    entries: BTreeMap<StoredPlace, ModelEntry>,
    received: BTreeSet<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ModelEntry {
    state: StoredState,
    message: Option<u128>,
    qos: QoS,
    priority: u8,
}

impl ModelEntry {
    fn of(entry: &StoredEntry) -> Self {
        Self {
            state: entry.state,
            message: entry.message.as_ref().map(|message| message.id.0),
            qos: entry.qos,
            priority: entry.priority,
        }
    }
}

impl Model {
    fn apply(&mut self, op: &StoreOp) {
        match op {
            StoreOp::PutBan(_) | StoreOp::RemoveBan(_) => unreachable!("no shard bans"),
            StoreOp::PutSession { session, head } => {
                self.of(*session).client_id = head.client_id.to_string();
            }
            StoreOp::RemoveSession { session, .. } => {
                self.sessions.remove(session);
            }
            StoreOp::PutSubscription { session, subscription } => {
                let filter = subscription.filter.to_string();
                self.of(*session).subscriptions.insert(filter, subscription.options);
            }
            StoreOp::RemoveSubscription { session, filter } => {
                self.of(*session).subscriptions.remove(&**filter);
            }
            StoreOp::PutEntry { session, place, entry, .. } => {
                self.of(*session).entries.insert(*place, ModelEntry::of(entry));
            }
            StoreOp::RemoveEntry { session, place } => {
                self.of(*session).entries.remove(place);
            }
            StoreOp::PutReceived { session, packet_id } => {
                self.of(*session).received.insert(packet_id.get());
            }
            StoreOp::RemoveReceived { session, packet_id } => {
                self.of(*session).received.remove(&packet_id.get());
            }
            StoreOp::Trim { session, keep } => self.of(*session).trim(*keep as usize),
            StoreOp::PutRetained { message } => {
                self.retained.insert(message.topic().to_owned(), message.id.0);
            }
            StoreOp::RetainAgain { .. } => unreachable!("only after a start, and not made here"),
            StoreOp::RemoveRetained { topic } => {
                self.retained.remove(&**topic);
            }
            StoreOp::PutDelayed(delayed) => {
                self.delayed.insert((delayed.slot, delayed.number), delayed.due_unix_ms);
            }
            StoreOp::RemoveDelayed { slot, number } => {
                self.delayed.remove(&(*slot, *number));
            }
        }
    }

    fn of(&mut self, session: StoredSession) -> &mut ModelSession {
        self.sessions.entry(session).or_default()
    }
}

impl ModelSession {
    /// One by one, as a queue in memory displaces.
    fn trim(&mut self, keep: usize) {
        loop {
            let queued = || self.entries.iter().filter(|(_, e)| e.state == StoredState::Queued);
            if queued().count() <= keep {
                return;
            }
            let qos0 = queued().filter(|(_, e)| e.qos == QoS::AtMostOnce);
            let victim = qos0
                .min_by_key(|(place, e)| (e.priority, **place))
                .or_else(|| queued().min_by_key(|(place, e)| (e.priority, **place)))
                .map(|(place, _)| *place)
                .expect("there is one too many");
            self.entries.remove(&victim);
        }
    }
}

/// Reads a store as shards do: the pages of the start, and a load of each session.
fn read_all(core: &Core<SimulatedEngine>) -> Model {
    let mut model = Model::default();
    let mut boot = Boot::new(core.snapshot(), 3, core.numbers_from(), RetainedBoot::Messages);
    let (mut rows, mut counts) = (Vec::new(), BTreeMap::new());
    let mut pages = Vec::new();
    while boot.step(&mut |shard, reply| pages.push((shard, reply))).expect("it reads") {}
    assert_eq!(boot.damage(), Damage::default());
    for (shard, reply) in pages {
        match reply {
            StoreReply::Bans(_) => {}
            StoreReply::Sessions(page) => {
                assert!(page.iter().all(|row| usize::from(row.session.slot) % 3 == shard.index()));
                rows.extend(page);
            }
            StoreReply::Retained(page) => {
                for row in page {
                    let message = row;
                    model.retained.insert(message.topic().to_owned(), message.id.0);
                }
            }
            StoreReply::Delayed(page) => {
                for delayed in page {
                    model.delayed.insert((delayed.slot, delayed.number), delayed.due_unix_ms);
                }
            }
            StoreReply::Found { .. } => {}
            StoreReply::Counts { rows, .. } => counts.extend(rows),
            other => panic!("not of the start: {other:?}"),
        }
    }
    for row in rows {
        let mut damage = Damage::default();
        let reply = load(&core.snapshot(), row.session, &mut Known::default(), &mut damage);
        let Ok(StoreReply::Session { entries, received, .. }) = reply else { panic!("{reply:?}") };
        assert_eq!(damage, Damage::default());
        let queued = entries.iter().filter(|(_, e)| e.state == StoredState::Queued).count();
        let found = counts.remove(&row.session).unwrap_or_default();
        let lens = [found.queued as usize, found.inflight.into(), found.awaiting_rel.into()];
        assert_eq!(lens, [queued, entries.len() - queued, received.len()]);
        let session = ModelSession {
            client_id: row.head.client_id.to_string(),
            subscriptions: row
                .subscriptions
                .into_iter()
                .map(|subscription| (subscription.filter.to_string(), subscription.options))
                .collect(),
            entries: entries.iter().map(|(place, entry)| (*place, ModelEntry::of(entry))).collect(),
            received: received.into_iter().map(PacketId::get).collect(),
        };
        model.sessions.insert(row.session, session);
    }
    model
}

/// Every shared message is there as often as it is used, and none that is not.
fn check_counts(core: &Core<SimulatedEngine>) {
    let engine = core.engine();
    let mut used: BTreeMap<MessageId, u64> = BTreeMap::new();
    let mut counted = BTreeMap::new();
    let mut kept = BTreeSet::new();
    let scan = |keyspace, visit: &mut dyn FnMut(&[u8], &[u8])| {
        let mut visit = |key: &[u8], value: &[u8]| {
            visit(key, value);
            ControlFlow::Continue(())
        };
        engine.scan(keyspace, &[], None, &mut visit).expect("it reads");
    };
    scan(Keyspace::Entries, &mut |key, value| {
        if let Some(id) = values::read_entry_outline(key, value).expect("it is whole").uses {
            *used.entry(id).or_default() += 1;
        }
    });
    let id = |key: &[u8]| MessageId(u128::from_be_bytes(key.try_into().expect("16 bytes")));
    scan(Keyspace::Counts, &mut |key, value| {
        counted.insert(id(key), values::read_number(key, value).expect("it is whole"));
    });
    scan(Keyspace::Messages, &mut |key, _| {
        kept.insert(id(key));
    });
    assert_eq!(used, counted);
    assert_eq!(kept, used.into_keys().collect());
    assert_eq!(core.damage(), Damage::default());
}

/// What the shards know and do.
struct World {
    draws: Draws,
    /// As the shards see it: with what is not committed.
    view: Model,
    next_number: u64,
    next_message: u128,
    sequences: [u64; SHARDS],
    /// Handed over and not committed.
    handed: [VecDeque<(u64, Vec<StoreOp>)>; SHARDS],
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            draws: Draws::new(seed),
            view: Model::default(),
            next_number: 1,
            next_message: 1,
            sequences: [0; SHARDS],
            handed: Default::default(),
        }
    }

    /// All shards start anew on what the store has.
    fn restart(&mut self, found: Model) {
        self.view = found;
        self.sequences = [0; SHARDS];
        self.handed = Default::default();
    }

    fn batch(&mut self, shard: usize) -> StoreRequest {
        let mut touched = BTreeSet::new();
        let mut ops = Vec::new();
        for _ in 0..=self.draws.below(4) {
            let some = self.op(shard, &mut touched);
            some.iter().for_each(|op| self.view.apply(op));
            ops.extend(some);
        }
        self.sequences[shard] += 1;
        let sequence = self.sequences[shard];
        self.handed[shard].push_back((sequence, ops.clone()));
        request(shard, sequence, self.next_number, ops)
    }

    fn new_entry(&mut self, shard: usize, touched: &mut BTreeSet<StoredSession>) -> Vec<StoreOp> {
        let Some(session) = self.pick(shard, touched) else { return Vec::new() };
        let is_shared = self.draws.below(2) == 1;
        let id = if is_shared && self.draws.below(2) == 1 {
            // One of a few that many use.
            u128::MAX - u128::from(self.draws.below(3))
        } else {
            self.next_message += 1;
            self.next_message
        };
        let place = StoredPlace::new(self.number(), is_shared);
        let qos = QoS::from_bits(self.draws.below(3).try_into().expect("small")).expect("valid");
        let mut entry = entry(message(id, "topic"), qos);
        entry.priority = self.draws.below(3).try_into().expect("small");
        vec![StoreOp::PutEntry { session, place, put: PutAs::New, entry }]
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// A session of the shard that this batch has not named.
    fn pick(
        &mut self,
        shard: usize,
        touched: &mut BTreeSet<StoredSession>,
    ) -> Option<StoredSession> {
        let own: Vec<StoredSession> = self
            .view
            .sessions
            .keys()
            .filter(|session| usize::from(session.slot) % SHARDS == shard)
            .filter(|session| !touched.contains(session))
            .copied()
            .collect();
        let at = self.draws.below(own.len().max(1) as u64);
        let session = *own.get(usize::try_from(at).expect("small"))?;
        touched.insert(session);
        Some(session)
    }

    #[allow(clippy::too_many_lines, reason = "one arm for each kind of change")]
    fn op(&mut self, shard: usize, touched: &mut BTreeSet<StoredSession>) -> Vec<StoreOp> {
        let kind = self.draws.below(14);
        if kind == 0 {
            let slot = u16::try_from(self.draws.below(8)).expect("small") * 2
                + u16::try_from(shard).expect("small");
            let session = StoredSession { slot, number: self.number() };
            touched.insert(session);
            return vec![put_session(session, &format!("client-{}", session.number))];
        }
        if kind <= 4 {
            return self.new_entry(shard, touched);
        }
        if kind == 5 {
            let topic = format!("topic/{shard}/{}", self.sequences[shard]);
            return match self.view.retained.keys().find(|t| t.starts_with(&topic[..8])) {
                Some(known) if self.draws.below(2) == 0 => {
                    vec![StoreOp::RemoveRetained { topic: known.as_str().into() }]
                }
                _ => {
                    self.next_message += 1;
                    vec![StoreOp::PutRetained { message: message(self.next_message, &topic) }]
                }
            };
        }
        if kind == 6 {
            let slot = u16::try_from(shard).expect("small");
            let own = self.view.delayed.keys().find(|(of, _)| *of == slot).copied();
            return match own {
                Some((slot, number)) if self.draws.below(2) == 0 => {
                    vec![StoreOp::RemoveDelayed { slot, number }]
                }
                _ => vec![StoreOp::PutDelayed(StoredDelayed {
                    slot,
                    number: self.number(),
                    due_unix_ms: self.draws.below(1000),
                    message: message(3, "later"),
                })],
            };
        }
        let Some(session) = self.pick(shard, touched) else { return Vec::new() };
        let known = self.view.sessions[&session].clone();
        match kind {
            7 => {
                let filter: Box<str> = format!("a/{}", self.draws.below(4)).into();
                if known.subscriptions.contains_key(&*filter) {
                    return vec![StoreOp::RemoveSubscription { session, filter }];
                }
                let options = self.draws.below(3).try_into().expect("small");
                let subscription = StoredSubscription { filter, options, id: 0 };
                vec![StoreOp::PutSubscription { session, subscription }]
            }
            8 => {
                let packet_id =
                    PacketId::new(1 + u16::try_from(self.draws.below(3)).expect("small"))
                        .expect("not zero");
                if known.received.contains(&packet_id.get()) {
                    return vec![StoreOp::RemoveReceived { session, packet_id }];
                }
                vec![StoreOp::PutReceived { session, packet_id }]
            }
            9 => {
                let keep = u32::try_from(self.draws.below(4)).expect("small");
                vec![StoreOp::Trim { session, keep }]
            }
            10 if self.draws.below(2) == 0 => {
                vec![StoreOp::RemoveSession { session, tell: self.draws.below(2) == 0 }]
            }
            _ => {
                let Some((&place, old)) = known.entries.first_key_value() else {
                    return Vec::new();
                };
                match old.state {
                    StoredState::Queued if kind == 11 => {
                        let id = old.message.expect("a queued one has");
                        let mut entry = entry(message(id, "topic"), old.qos);
                        entry.priority = old.priority;
                        entry.state = StoredState::Sent(PacketId::MIN);
                        vec![StoreOp::PutEntry { session, place, put: PutAs::Changed, entry }]
                    }
                    StoredState::Sent(packet_id) if kind == 11 => {
                        let mut entry = entry(message(1, "gone"), old.qos);
                        entry.priority = old.priority;
                        entry.message = None;
                        entry.state = StoredState::Released(packet_id, MessageId(1));
                        vec![StoreOp::PutEntry { session, place, put: PutAs::Changed, entry }]
                    }
                    _ => vec![StoreOp::RemoveEntry { session, place }],
                }
            }
        }
    }
}

fn sweep_all(core: &mut Core<SimulatedEngine>) {
    while core.has_ended() {
        core.sweep().expect("it sweeps");
    }
}

fn open(engine: SimulatedEngine) -> Core<SimulatedEngine> {
    Core::open(engine, SHARDS).expect("it opens")
}

/// Takes what an outcome says is committed into the model.
fn settle(world: &mut World, model: &mut Model, outcome: &super::Outcome) {
    for &(shard, sequence) in &outcome.committed {
        let handed = &mut world.handed[shard.index()];
        while handed.front().is_some_and(|(own, _)| *own <= sequence) {
            let (_, ops) = handed.pop_front().expect("there is one");
            ops.iter().for_each(|op| model.apply(op));
        }
    }
}

/// Random work with faults and crashes: after each crash the store is one of the states it had after a round, no older than
/// what was synced; after each fault nothing is lost and nothing done twice.
#[test]
fn no_fault_and_no_crash_loses_what_was_committed() {
    for seed in 0..300 {
        run(seed);
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    let mut core = open(SimulatedEngine::new());
    let mut model = Model::default();
    // States after rounds that are not known to be on disk; the first is.
    let mut possible = vec![model.clone()];
    for step in 0..60 {
        let shard = usize::try_from(world.draws.below(SHARDS as u64)).expect("small");
        let request = world.batch(shard);
        core.take(request);
        if world.draws.below(3) > 0 {
            continue;
        }
        match world.draws.below(12) {
            0 => core.engine_mut().fail_next_write(false),
            1 => core.engine_mut().fail_next_write(true),
            2 => core.engine_mut().fail_next_sync(),
            3 => core.engine_mut().set_full(true),
            _ => {}
        }
        let is_synced = world.draws.below(2) == 0;
        let mut result = core.commit(|engine| {
            if is_synced {
                engine.sync()?;
            }
            Ok(is_synced)
        });
        while result.is_err() {
            result = match core.recover() {
                Ok(None) => core.commit(|engine| engine.sync().map(|()| true)),
                done => done,
            };
            // A full disk has room again after the first attempt.
            core.engine_mut().set_full(false);
        }
        let outcome = result.expect("it went on");
        if let Some(outcome) = outcome {
            settle(&mut world, &mut model, &outcome);
            if is_synced {
                possible.clear();
            }
            possible.push(model.clone());
        }
        if world.draws.below(5) == 0 {
            let mut engine = core.into_engine();
            engine.crash(seed * 1000 + step);
            core = open(engine);
            sweep_all(&mut core);
            let found = read_all(&core);
            assert!(possible.contains(&found), "seed {seed} step {step}: {found:#?}");
            check_counts(&core);
            model = found.clone();
            possible = vec![found.clone()];
            world.restart(found);
        }
    }
    sweep_all(&mut core);
    assert_eq!(read_all(&core), model, "seed {seed}");
    check_counts(&core);
}

fn commit(core: &mut Core<SimulatedEngine>) -> Option<super::Outcome> {
    core.commit(|engine| engine.sync().map(|()| true)).expect("it commits")
}

fn request(shard: usize, sequence: u64, numbers_below: u64, ops: Vec<StoreOp>) -> StoreRequest {
    let batch = StoreBatch { sequence, numbers_below, ops, loads: Vec::new() };
    StoreRequest { shard: ShardId::new(shard), batch }
}

const SESSION: StoredSession = StoredSession { slot: 2, number: 1 };

#[test]
fn a_message_of_many_sessions_is_written_and_counted_once() {
    let mut core = open(SimulatedEngine::new());
    let news = message(9, "news");
    let ops = (0..100_000)
        .map(|number| put_entry(StoredSession { slot: 2, number }, shared(1), Arc::clone(&news)))
        .collect();
    core.take(request(0, 1, 1, ops));
    let outcome = commit(&mut core).expect("there is a batch");
    // Entries, one message, one count, one record of the round.
    assert_eq!(outcome.keys, 100_000 + 3);
    assert_eq!(core.engine().len(Keyspace::Messages), 1);
    let ops = (0..100_000)
        .map(|number| {
            let session = StoredSession { slot: 2, number };
            StoreOp::RemoveEntry { session, place: shared(1) }
        })
        .collect();
    core.take(request(0, 2, 1, ops));
    commit(&mut core);
    for keyspace in [Keyspace::Entries, Keyspace::Messages, Keyspace::Counts] {
        assert_eq!(core.engine().len(keyspace), 0);
    }
}

#[test]
fn what_comes_and_goes_within_a_round_is_not_written() {
    let mut core = open(SimulatedEngine::new());
    let places = [own(1), shared(2)];
    for (place, sequence) in places.into_iter().zip(1..) {
        core.take(request(0, sequence, 1, vec![put_entry(SESSION, place, message(1, "a"))]));
    }
    let ops = places.map(|place| StoreOp::RemoveEntry { session: SESSION, place });
    core.take(request(0, 3, 1, ops.to_vec()));
    let outcome = commit(&mut core).expect("there are batches");
    assert_eq!(outcome.keys, 1, "only the record of the round");
    assert_eq!(outcome.committed, [(ShardId::new(0), 3)]);
}

#[test]
fn a_message_that_comes_again_after_a_crash_is_put_once() {
    let mut core = open(SimulatedEngine::new());
    let put = |number, put| {
        let entry = entry(message(7, "news"), QoS::ExactlyOnce);
        vec![StoreOp::PutEntry { session: SESSION, place: shared(number), put, entry }]
    };
    core.take(request(0, 1, 1, put(1, PutAs::New)));
    commit(&mut core);
    core.take(request(0, 2, 1, put(2, PutAs::NewUnlessKnown)));
    commit(&mut core);
    assert_eq!(core.engine().len(Keyspace::Entries), 1);
    // The shard believes that it is there, and is done with it: the first entry keeps its message.
    core.take(request(0, 3, 1, vec![StoreOp::RemoveEntry { session: SESSION, place: shared(2) }]));
    commit(&mut core);
    check_counts(&core);
    assert_eq!(core.engine().len(Keyspace::Messages), 1);
}

#[test]
fn a_released_message_that_comes_again_after_a_crash_is_known() {
    let mut core = open(SimulatedEngine::new());
    let put = |number, put, state, message| {
        let entry = StoredEntry { state, message, ..entry(message_again(), QoS::ExactlyOnce) };
        vec![StoreOp::PutEntry { session: SESSION, place: own(number), put, entry }]
    };
    let id = PacketId::new(4).expect("not 0");
    core.take(request(0, 1, 1, put(1, PutAs::New, StoredState::Sent(id), Some(message_again()))));
    let released = StoredState::Released(id, message_again().id);
    core.take(request(0, 2, 1, put(1, PutAs::Changed, released, None)));
    commit(&mut core);
    let again = put(2, PutAs::NewUnlessKnown, StoredState::Queued, Some(message_again()));
    core.take(request(0, 3, 1, again));
    commit(&mut core);
    assert_eq!(core.engine().len(Keyspace::Entries), 1);
}

fn message_again() -> Arc<session::Message> {
    message(7, "news")
}

#[test]
fn a_big_session_ends_at_once_and_goes_in_slices() {
    let mut core = open(SimulatedEngine::new());
    let mut ops = vec![put_session(SESSION, "big")];
    ops.extend((1..2_501).map(|n| put_entry(SESSION, shared(n), message(u128::from(n) / 2, "t"))));
    core.take(request(0, 1, 1, ops));
    commit(&mut core);
    core.take(request(0, 2, 1, vec![StoreOp::RemoveSession { session: SESSION, tell: false }]));
    commit(&mut core);
    assert_eq!(read_all(&core), Model::default());
    assert!(core.has_ended());
    core.sweep().expect("it sweeps");
    assert!(core.has_ended());
    // The power goes in between: the rest is still to be removed, and is not brought back.
    let mut engine = core.into_engine();
    engine.crash_keeping(0);
    let mut core = open(engine);
    assert_eq!(read_all(&core), Model::default());
    assert!(core.has_ended());
    sweep_all(&mut core);
    for keyspace in [Keyspace::Entries, Keyspace::Messages, Keyspace::Counts] {
        assert_eq!(core.engine().len(keyspace), 0);
    }
    check_counts(&core);
}

#[test]
fn what_is_lost_with_a_session_is_told_and_what_others_may_get_is_given_back() {
    let mut core = open(SimulatedEngine::new());
    let put = |place, entry| StoreOp::PutEntry { session: SESSION, place, put: PutAs::New, entry };
    let by_group = |id, qos| StoredEntry { by_group: true, ..entry(message(id, "g"), qos) };
    let id = PacketId::new(1).expect("not 0");
    let released = StoredEntry {
        state: StoredState::Released(id, MessageId(4)),
        message: None,
        ..entry(message(4, "t"), QoS::ExactlyOnce)
    };
    let mut ops = vec![
        put_session(SESSION, "gone"),
        put(own(1), by_group(1, QoS::AtLeastOnce)),
        put(shared(2), by_group(2, QoS::AtLeastOnce)),
        // The client may have it already.
        put(own(3), by_group(3, QoS::ExactlyOnce)),
        put(own(4), released),
        put(own(5), entry(message(5, "t"), QoS::AtMostOnce)),
    ];
    let more = 6..1_006;
    ops.extend(more.map(|n| put_entry(SESSION, shared(n), message(u128::from(n), "t"))));
    core.take(request(0, 1, 1, ops));
    commit(&mut core);
    core.take(request(0, 2, 1, vec![StoreOp::RemoveSession { session: SESSION, tell: true }]));
    let mut replies = commit(&mut core).expect("a round").replies;
    while core.has_ended() {
        replies.extend(core.sweep().expect("it sweeps").replies);
    }
    let (mut lost_all, mut given, mut lasts) = ([0; 3], Vec::new(), Vec::new());
    for (shard, reply) in replies {
        let StoreReply::Ended { session, lost, by_group, is_last } = reply else {
            panic!("{reply:?}")
        };
        assert_eq!((shard, session), (ShardId::new(0), SESSION));
        lost_all.iter_mut().zip(lost).for_each(|(all, lost)| *all += lost);
        given.extend(by_group);
        lasts.push(is_last);
    }
    assert_eq!((lost_all, lasts), ([1, 1000, 1], vec![false, false, true]));
    // What was given back is kept until the shard has passed it on.
    let ids =
        |given: &[StoredDelayed]| given.iter().map(|one| one.message.id.0).collect::<Vec<_>>();
    assert_eq!(ids(&given), [1, 2]);
    let kept = read_all(&core).delayed;
    assert_eq!(kept.len(), 2);
    check_counts(&core);
    let mut engine = core.into_engine();
    engine.crash_keeping(0);
    let mut core = open(engine);
    assert_eq!(read_all(&core).delayed, kept);
    let remove = |one: StoredDelayed| StoreOp::RemoveDelayed { slot: one.slot, number: one.number };
    core.take(request(0, 3, 1, given.into_iter().map(remove).collect()));
    commit(&mut core);
    assert_eq!(read_all(&core), Model::default());
}

#[test]
fn a_newer_format_is_refused() {
    let mut core = open(SimulatedEngine::new());
    let key = keys::meta::FORMAT;
    let change = crate::engine::Change {
        keyspace: Keyspace::Meta,
        key: keys::Key::from_slice(key),
        value: Some(values::number(key, 2)),
    };
    core.engine_mut().write(vec![change]).expect("it writes");
    let refused = Core::open(core.into_engine(), 1).err().expect("it is refused");
    assert!(matches!(refused, StoreError::Newer { found: 2, known: 1 }));
    assert!(refused.to_string().contains("newer build"));
}

#[test]
fn damaged_values_are_left_out_and_counted() {
    let mut core = open(SimulatedEngine::new());
    let ops = vec![
        put_session(SESSION, "client"),
        put_entry(SESSION, own(1), message(1, "first")),
        put_entry(SESSION, own(2), message(2, "second")),
    ];
    core.take(request(0, 1, 1, ops));
    commit(&mut core);
    let key = keys::entry(SESSION, own(1));
    assert!(core.engine_mut().flip(Keyspace::Entries, &key, 20));
    let mut damage = Damage::default();
    let reply = load(&core.snapshot(), SESSION, &mut Known::default(), &mut damage);
    let Ok(StoreReply::Session { entries, .. }) = reply else { panic!("{reply:?}") };
    assert_eq!(entries.len(), 1);
    assert_eq!(damage.values, 1);
}

#[test]
fn numbers_go_on_above_all_that_were_given_out() {
    let mut core = open(SimulatedEngine::new());
    core.take(request(0, 1, 50, vec![]));
    commit(&mut core);
    core.take(request(1, 1, 20, vec![]));
    commit(&mut core);
    assert_eq!(open(core.into_engine()).numbers_from(), 50);
}
