//! The simulated store: the real core of the store on a disk that loses, tears and delays what was not synced. A step of it
//! is one of the things the store's threads do: take what shards handed over, write and sync, read, answer.

use std::collections::{HashMap, VecDeque};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ring::ShardId;
use shard::storage::{RetainedRead, StoreHealth, StoreReply, StoreRequest, StoredSession};
use shard::{BATCHES_MAX, READS_MAX, StoreLink, StoreMode};
use store::Keyspace;
use store::codec::{keys, values};
use store::core::{
    Boot, Core, Damage, Known, Outcome, RetainedBoot, RetainedOf, load, read_retained,
};
use store::engine::{Engine, EngineError, EngineRead, SimulatedEngine, SimulatedSnapshot};

use super::random::Random;

/// Who answers a shard: each in its own order, all of them in any.
#[derive(Debug, Clone, Copy)]
enum Voice {
    Writer,
    Reader,
    Boot,
    Retained,
}

/// The answers to one shard.
struct Outlet {
    sender: Sender<StoreReply>,
    waiting: [VecDeque<StoreReply>; 4],
}

/// The store of a broker, and its disk.
pub struct Disk {
    core: Core<SimulatedEngine>,
    mode: StoreMode,
    requests: Receiver<StoreRequest>,
    links: Vec<Option<StoreLink>>,
    outlets: Vec<Outlet>,
    boot: Option<Boot<SimulatedSnapshot>>,
    reads: VecDeque<(SimulatedSnapshot, ShardId, StoredSession)>,
    /// What shards ask about retained messages that they do not hold.
    retained_reads: Option<Receiver<RetainedRead>>,
    /// What was committed last; none while the store cannot write.
    latest: Option<SimulatedSnapshot>,
    has_failed: bool,
    /// How much of its time the machine has for it, in percent.
    pace: u64,
    unsynced_since_ms: Option<u64>,
}

impl Disk {
    /// Opens the store for so many shards with what an engine has.
    pub fn open(
        engine: SimulatedEngine,
        shards: usize,
        mode: StoreMode,
        is_disc_only: bool,
        pace: u64,
    ) -> Result<Self, String> {
        let core = Core::open(engine, shards).map_err(|error| format!("the store: {error}"))?;
        let batches = usize::try_from(BATCHES_MAX).expect("a few");
        let (sender, requests) = bounded(batches * shards);
        let (mut links, mut outlets) = (Vec::new(), Vec::new());
        let (reads, retained_reads) = is_disc_only.then(|| bounded(READS_MAX * shards)).unzip();
        for _ in 0..shards {
            let (replies, receiver) = unbounded();
            let (requests, reads) = (sender.clone(), reads.clone());
            links.push(Some(StoreLink { requests, replies: receiver, reads, mode }));
            outlets.push(Outlet { sender: replies, waiting: Default::default() });
        }
        let rows = if is_disc_only { RetainedBoot::Rows } else { RetainedBoot::Messages };
        let boot = Boot::new(core.snapshot(), shards, core.numbers_from(), rows);
        Ok(Self {
            latest: Some(core.snapshot()),
            retained_reads,
            core,
            mode,
            requests,
            links,
            outlets,
            boot: Some(boot),
            reads: VecDeque::new(),
            has_failed: false,
            pace,
            unsynced_since_ms: None,
        })
    }

    /// The way of a shard to the store; once.
    pub fn link(&mut self, shard: usize) -> Option<StoreLink> {
        self.links[shard].take()
    }

    /// Whether it could not write and has not recovered.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Whether it is its turn.
    pub fn is_next(&self, random: &mut Random) -> bool {
        random.chance(self.pace)
    }

    /// Something of what the store has to do.
    pub fn step(&mut self, now_ms: u64, random: &mut Random) -> Result<(), String> {
        match random.below(10) {
            0..3 => self.take(random),
            3..6 => self.commit(now_ms, random)?,
            6 => self.boot()?,
            7 => self.read()?,
            8 => self.read_retained()?,
            _ => {}
        }
        for shard in 0..self.outlets.len() {
            self.deliver(shard, random);
        }
        Ok(())
    }

    /// All there is to do, as a store without load does it.
    pub fn settle(&mut self, now_ms: u64, random: &mut Random) -> Result<(), String> {
        while let Ok(request) = self.requests.try_recv() {
            self.core.take(request);
        }
        while self.core.has_waiting() || self.has_failed {
            self.commit(now_ms, random)?;
        }
        while self.boot.is_some() {
            self.boot()?;
        }
        while !self.reads.is_empty() {
            self.read()?;
        }
        while self.has_retained_reads() {
            self.read_retained()?;
        }
        for outlet in &mut self.outlets {
            for reply in outlet.waiting.iter_mut().flat_map(|waiting| waiting.drain(..)) {
                let _ = outlet.sender.send(reply);
            }
        }
        Ok(())
    }

    /// Makes safe what was written.
    pub fn sync(&mut self) -> Result<(), String> {
        self.unsynced_since_ms = None;
        self.core.sync().map_err(|error| format!("the store does not sync: {error}"))
    }

    /// Whether nothing is on its way.
    pub fn is_quiet(&self) -> bool {
        self.requests.is_empty()
            && !self.core.has_waiting()
            && !self.has_failed
            && self.reads.is_empty()
            && !self.has_retained_reads()
            && self.outlets.iter().all(|o| o.waiting.iter().all(VecDeque::is_empty))
    }

    /// The power goes. A round may be half way: written and not synced.
    pub fn crash(mut self, random: &mut Random) -> SimulatedEngine {
        if random.chance(50) {
            while random.chance(70)
                && let Ok(request) = self.requests.try_recv()
            {
                super::trace(|| format!("half way: {request:?}"));
                self.core.take(request);
            }
            let half_way = |_: &mut SimulatedEngine| Err(EngineError::Stopped);
            // It is what it looks like after the write and before the sync.
            let _ = self.core.commit(half_way);
        }
        let mut engine = self.core.into_engine();
        let loss = engine.crash(random.number());
        super::trace(|| format!("{loss:?}"));
        engine
    }

    /// The store ends in order.
    pub fn close(mut self, now_ms: u64, random: &mut Random) -> Result<SimulatedEngine, String> {
        self.settle(now_ms, random)?;
        self.sync()?;
        let mut engine = self.core.into_engine();
        engine.kill();
        Ok(engine)
    }

    fn take(&mut self, random: &mut Random) {
        while let Ok(request) = self.requests.try_recv() {
            super::trace(|| {
                let StoreRequest { shard, batch } = &request;
                format!("shard {shard} batch {}: {:?} {:?}", batch.sequence, batch.ops, batch.loads)
            });
            self.core.take(request);
            if random.chance(20) {
                break;
            }
        }
    }

    fn commit(&mut self, now_ms: u64, random: &mut Random) -> Result<(), String> {
        if self.has_failed {
            let outcome = self.core.recover().map_err(|error| format!("no recovery: {error}"))?;
            self.has_failed = false;
            self.latest = Some(self.core.snapshot());
            self.tell(StoreHealth::Good);
            outcome.into_iter().for_each(|outcome| self.done(outcome));
            return Ok(());
        }
        if !self.core.has_waiting() {
            return Ok(());
        }
        match random.below(200) {
            0 => self.core.engine_mut().fail_next_write(true),
            1 => self.core.engine_mut().fail_next_write(false),
            2 if self.mode == StoreMode::Always => self.core.engine_mut().fail_next_sync(),
            _ => {}
        }
        let is_always = self.mode == StoreMode::Always;
        match self
            .core
            .commit(|engine| if is_always { engine.sync().map(|()| true) } else { Ok(false) })
        {
            Ok(Some(outcome)) => self.done(outcome),
            Ok(None) => return Ok(()),
            Err(_) => {
                self.has_failed = true;
                self.latest = None;
                self.tell(StoreHealth::Failing);
                return Ok(());
            }
        }
        if !is_always {
            self.unsynced_since_ms.get_or_insert(now_ms);
        }
        if self.core.has_ended() {
            let swept = self.core.sweep().map_err(|error| format!("no sweep: {error}"))?;
            self.done(swept);
        }
        Ok(())
    }

    fn done(&mut self, outcome: Outcome) {
        super::trace(|| format!("committed: {:?}", outcome.committed));
        self.latest = Some(self.core.snapshot());
        for (shard, reply) in outcome.replies {
            self.say(Voice::Writer, shard, reply);
        }
        for (shard, sequence) in outcome.committed {
            self.say(Voice::Writer, shard, StoreReply::Committed { sequence });
        }
        for (shard, load) in outcome.loads {
            self.reads.push_back((self.core.snapshot(), shard, load));
        }
    }

    fn boot(&mut self) -> Result<(), String> {
        let Some(mut boot) = self.boot.take() else { return Ok(()) };
        let mut pages = Vec::new();
        let step = boot.step(&mut |shard, reply| pages.push((shard, reply)));
        for (shard, reply) in pages {
            self.say(Voice::Boot, shard, reply);
        }
        if boot.damage() != Damage::default() {
            return Err(format!("the store is damaged at the start: {:?}", boot.damage()));
        }
        if step.map_err(|error| format!("the store cannot be read: {error}"))? {
            self.boot = Some(boot);
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), String> {
        let Some((snapshot, shard, what)) = self.reads.pop_front() else { return Ok(()) };
        let mut damage = Damage::default();
        let reply = load(&snapshot, what, &mut Known::default(), &mut damage);
        let reply = reply.map_err(|error| format!("the store cannot be read: {error}"))?;
        if damage != Damage::default() {
            return Err(format!("damage while {what:?} was read: {damage:?}"));
        }
        super::trace(|| format!("shard {shard} reads {what:?}"));
        self.say(Voice::Reader, shard, reply);
        Ok(())
    }

    fn has_retained_reads(&self) -> bool {
        self.retained_reads.as_ref().is_some_and(|reads| !reads.is_empty())
    }

    fn read_retained(&mut self) -> Result<(), String> {
        let (Some(reads), Some(latest)) = (&self.retained_reads, &self.latest) else {
            return Ok(());
        };
        let Ok(RetainedRead { shard, id, query }) = reads.try_recv() else { return Ok(()) };
        let mut damage = Damage::default();
        let of = RetainedOf { shard, shards: self.outlets.len() };
        let page = read_retained(latest, of, &query, &mut damage)
            .map_err(|error| format!("the store cannot be read: {error}"))?;
        if damage != Damage::default() {
            return Err(format!("damage while {query:?} was read: {damage:?}"));
        }
        super::trace(|| format!("shard {shard} reads {query:?}: {page:?}"));
        self.say(Voice::Retained, shard, StoreReply::RetainedPage { id, page });
        Ok(())
    }

    fn tell(&mut self, health: StoreHealth) {
        for shard in 0..self.outlets.len() {
            self.say(Voice::Writer, ShardId::new(shard), StoreReply::Health(health));
        }
    }

    fn say(&mut self, voice: Voice, shard: ShardId, reply: StoreReply) {
        self.outlets[shard.index()].waiting[voice as usize].push_back(reply);
    }

    fn deliver(&mut self, shard: usize, random: &mut Random) {
        let outlet = &mut self.outlets[shard];
        while random.chance(60) {
            let voice = random.below(outlet.waiting.len());
            if let Some(reply) = outlet.waiting[voice].pop_front() {
                let _ = outlet.sender.send(reply);
            }
        }
    }

    /// Messages that are queued, those under way, and received ids, by client.
    pub fn counts(&self) -> HashMap<String, [u32; 3]> {
        let mut by_session: HashMap<StoredSession, [u32; 3]> = HashMap::new();
        let mut found = HashMap::new();
        for keyspace in [Keyspace::Entries, Keyspace::Received, Keyspace::Sessions] {
            let _ = self.core.engine().scan(keyspace, &[], None, &mut |key, value| {
                let session = keys::read_session(key).expect("it is whole").0;
                let counts = by_session.entry(session).or_default();
                match keyspace {
                    Keyspace::Entries => {
                        let outline = values::read_entry_outline(key, value).expect("it is whole");
                        counts[usize::from(!outline.is_queued)] += 1;
                    }
                    Keyspace::Received => counts[2] += 1,
                    _ => {
                        let head = values::read_head(key, value).expect("it is whole");
                        found.insert(head.client_id.to_string(), *counts);
                    }
                }
                std::ops::ControlFlow::Continue(())
            });
        }
        found
    }

    fn dump(&self, keyspace: Keyspace) -> String {
        let mut text = String::new();
        let _ = self.core.engine().scan(keyspace, &[], None, &mut |key, value| {
            text.push_str(&format!("{}: {key:02x?} {value:02x?}\n", keyspace.name()));
            std::ops::ControlFlow::Continue(())
        });
        text
    }

    /// What must hold when everything has come to rest: of the clients' sessions, so many are kept with so many subscriptions,
    /// and these topics have a retained message.
    pub fn check_at_rest(
        &self,
        sessions: usize,
        subscriptions: usize,
        retained: std::ops::RangeInclusive<usize>,
    ) -> Result<(), String> {
        let engine = self.core.engine();
        let wanted = [
            (Keyspace::Sessions, sessions),
            (Keyspace::Subscriptions, subscriptions),
            (Keyspace::Entries, 0),
            (Keyspace::Received, 0),
            (Keyspace::Messages, 0),
            (Keyspace::Counts, 0),
            (Keyspace::Delayed, 0),
        ];
        for (keyspace, count) in wanted {
            if engine.len(keyspace) != count {
                super::trace(|| self.dump(keyspace));
                return Err(format!(
                    "the store has {} {} at rest where {count} are right",
                    engine.len(keyspace),
                    keyspace.name()
                ));
            }
        }
        if !retained.contains(&engine.len(Keyspace::Retained)) {
            let count = engine.len(Keyspace::Retained);
            return Err(format!(
                "the store has {count} retained messages where {retained:?} are right"
            ));
        }
        if self.core.damage() != Damage::default() {
            return Err(format!("the store found damage: {:?}", self.core.damage()));
        }
        Ok(())
    }
}
