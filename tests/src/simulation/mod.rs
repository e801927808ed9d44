//! Deterministic simulation: real shards in one thread, a seeded scheduler that reorders, delays, cuts and fills, a
//! virtual clock. The same seed gives the same run.
//!
//! Invariants, checked while it runs and after everything has come to rest:
//! - a message of `QoS` 1 or 2 that was acknowledged reaches every subscriber that had its SUBACK before the message was
//!   sent; one of `QoS` 2 to a `QoS` 2 subscription exactly once;
//! - messages of one publisher on one topic with one `QoS` arrive in order;
//! - a client never has more under way than its window, and no packet id twice;
//! - one member of a shared group gets each message;
//! - the retained message of a topic is the last one acknowledged, and if that had no payload there is none; who subscribes gets
//!   none that is older than what came as it was published;
//! - at rest all replicas know the same routes, nothing is queued, and no slot or session is left over.
//!
//! With a store the broker crashes and stops now and then, and starts again with another number of shards. What is said above
//! holds over all its starts, with these limits:
//! - with `store.sync = always`: what a subscriber with `QoS` 0 got before its publisher had an answer comes again after a
//!   crash, and a message to a shared group may go to another member again; the order is that of the first time each message
//!   comes;
//! - with an interval: after a crash what is older than it holds for `QoS` 1; what came and was acknowledged within it may be
//!   lost or come again. After an orderly stop all of it holds;
//! - while the store cannot write a client before MQTT 5 gets no answer, and its messages may come in another order; so may
//!   those of MQTT 5 whose refusal was lost with the broker;
//! - sessions that do not last end with the broker;
//! - the retained message that a new session gets is not older than the last that was acknowledged when it connected;
//! - at rest nothing but sessions, subscriptions and retained messages is on disk.

mod client;
mod crash;
mod network;
pub mod random;
mod retained;
mod store;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use client::{Client, Event, MessageName};
use config::{RetainedStorage, Settings};
use metrics::{Gauge, ShardMetrics};
use network::{Pipe, Station};
pub use random::Random;
use retained::RetainedEnd;
use shard::command::{Reply, Request, SessionKind, SessionRow};
use shard::{Command, Now, StoreMode};
use store::Disk;

use crate::packet::Version;
use ::store::engine::SimulatedEngine;

const TOPICS: [&str; 6] = ["a", "a/b", "a/c", "b/b", "b", "c/d/e"];
const FILTERS: [&str; 8] = ["a", "a/b", "a/#", "+/b", "#", "b", "+/+/e", "c/#"];
const GROUP_FILTER: &str = "$share/g/+/b";
/// The client that asks for a fresh session now and then.
const RESTLESS: usize = 8;
/// How long a client stays away at most: longer than any session stays in memory.
const LONGEST_AWAY_MS: u64 = 7000;
/// The clients that share it.
const GROUP: std::ops::Range<usize> = 4..6;

/// A published message as the model knows it.
#[derive(Debug)]
struct Published {
    topic: &'static str,
    qos: u8,
    retain: bool,
    /// It has no payload: its topic has no retained message any more.
    erases: bool,
    /// When it was acknowledged; `None` if it may get lost.
    acknowledged_ms: Option<u64>,
    /// Clients that must get it, and the `QoS` they must get it with.
    expected: Vec<(usize, u8)>,
    /// The group must get it, with this `QoS`.
    group: Option<u8>,
}

/// The whole world of a run.
struct World {
    random: Random,
    seed: u64,
    settings: Arc<Settings>,
    /// How the store keeps, if there is one.
    mode: Option<StoreMode>,
    disk: Option<Disk>,
    starts: u64,
    /// Sessions that had messages when the broker stopped in order.
    unloaded: usize,
    /// A shard that does not get its core at times.
    slow: Option<usize>,
    /// For so many ticks of any shard.
    stall_steps: usize,
    /// The store has failed: messages may have been refused.
    has_refused: bool,
    /// Messages whose refusal may have been lost with the broker: they come again behind what was sent after them.
    late: BTreeSet<MessageName>,
    /// Steps until the next crash, if it is due.
    crash_in: Option<u32>,
    may_crash: bool,
    /// How often it does.
    crashes_permille: usize,
    /// How often it does when a client gets a PUBREL, in percent.
    crashes_at_release: u64,
    /// The highest `QoS` of messages and subscriptions.
    most_qos: u8,
    crashes: usize,
    /// When the disk of a store with an interval has to have everything.
    interval_ends_ms: u64,
    now_ms: u64,
    stations: Vec<Station>,
    replies: Vec<crossbeam_channel::Receiver<(u64, Reply)>>,
    metrics: Vec<Arc<ShardMetrics>>,
    pipes: Vec<Pipe>,
    clients: Vec<Client>,
    published: BTreeMap<MessageName, Published>,
    /// By client, its session, and message.
    received: HashMap<(usize, u32, MessageName), u32>,
    group_received: HashMap<MessageName, u32>,
    last_in_order: HashMap<(usize, usize, String, u8), u32>,
    retained: BTreeMap<&'static str, MessageName>,
    /// The retained messages of a topic that were acknowledged, and when.
    retained_since: BTreeMap<&'static str, Vec<(u64, u32)>>,
    /// Per client without a lasting session: topics, and the number its retained messages may not be below.
    floors: HashMap<usize, BTreeMap<&'static str, u32>>,
    /// When clients had their first SUBACK in a session.
    subscribed_ms: HashMap<usize, u64>,
    /// Clients that subscribed once since they are connected, and the last retained message of each topic they got as it was
    /// published.
    live: HashMap<usize, BTreeMap<String, u32>>,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Report {
    /// Messages published.
    pub published: usize,
    /// Messages received by clients.
    pub received: usize,
    /// Connections made.
    pub connections: usize,
    /// Starts of the broker.
    pub starts: u64,
    /// Crashes before them.
    pub crashes: usize,
    /// Sessions that had messages when the broker stopped in order, and whose counts were right.
    pub counted: usize,
}

/// Runs one seed with so many shards and steps, and with a store if `mode` says how it keeps.
///
/// # Errors
/// The invariant that does not hold, in words.
pub fn run(
    seed: u64,
    shards: usize,
    steps: usize,
    mode: Option<StoreMode>,
) -> Result<Report, String> {
    let mut world = World::new(seed, mode);
    if let Some(mode) = mode {
        let pace = *world.random.pick(&crash::PACES);
        let is_disc_only = world.is_disc_only();
        let engine = SimulatedEngine::new();
        world.disk = Some(Disk::open(engine, shards, mode, is_disc_only, pace)?);
    }
    world.start(shards);
    for _ in 0..steps {
        world.step(true)?;
        world.end_perhaps()?;
    }
    world.come_to_rest()?;
    world.check_at_rest()?;
    world.check_disk()?;
    world.check_retained()?;
    Ok(Report {
        published: world.published.len(),
        received: world.received.values().map(|&n| n as usize).sum(),
        connections: world.pipes.len(),
        starts: world.starts,
        crashes: world.crashes,
        counted: world.unloaded,
    })
}

fn settings(random: &mut Random) -> Settings {
    let mut settings = Settings::default();
    // The model expects every message, so nothing may be dropped for lack of room; small rings and batches make
    // their limits bite instead.
    settings.mqueue.max_length = 100_000;
    settings.session.max_inflight = 5;
    settings.session.retry_interval_ms = 0;
    settings.session.await_rel_timeout_ms = 0;
    settings.session.max_awaiting_rel = 3;
    settings.mqtt.receive_maximum = 20;
    settings.session.expiry_interval_s = u32::MAX;
    settings.mesh.batch_bytes_max = 600;
    settings.store.unload_after_ms = *random.pick(&[0, 0, 20, 1000]);
    settings
}

impl World {
    fn new(seed: u64, mode: Option<StoreMode>) -> Self {
        let mut random = Random::new(seed);
        // With an interval a crash leaves ids of QoS 2 messages at one end that the other has forgotten, and they swallow the
        // next message with that id: who wants QoS 2 over a crash needs `always`. So half of the seeds only stop in order.
        let may_crash = mode == Some(StoreMode::Always) || mode.is_some() && seed % 2 == 1;
        let most_qos = if may_crash && mode != Some(StoreMode::Always) { 1 } else { 2 };
        let mut settings = settings(&mut random);
        if mode.is_some() && seed % 4 >= 2 {
            settings.retainer.storage = RetainedStorage::DiscOnly;
        }
        let crashes_permille = *random.pick(&[1, 2, 4]);
        let crashes_at_release = *random.pick(&[0, 5, 30]);
        let mut clients = Vec::new();
        for index in 0..9 {
            // With MQTT 5 only a fresh session can be one that lasts.
            let any = *random.pick(&Version::ALL);
            let version = if index == RESTLESS { Version::V5 } else { any };
            let window = if version == Version::V5 { 1 + random.below(5) } else { 5 };
            let mut client = Client::new(index, version, index < 6 || index == RESTLESS, window);
            if GROUP.contains(&index) {
                client.filters.push((GROUP_FILTER.to_owned(), most_qos));
            } else {
                for _ in 0..=random.below(3) {
                    let filter = (*random.pick(&FILTERS)).to_owned();
                    let qos = u8::try_from(random.below(3)).expect("below 3").min(most_qos);
                    client.filters.retain(|(known, _)| *known != filter);
                    client.filters.push((filter, qos));
                }
            }
            clients.push(client);
        }
        Self {
            random,
            seed,
            settings: Arc::new(settings),
            mode,
            disk: None,
            starts: 0,
            unloaded: 0,
            slow: None,
            stall_steps: 0,
            has_refused: false,
            late: BTreeSet::new(),
            crash_in: None,
            may_crash,
            crashes_permille,
            crashes_at_release,
            most_qos,
            crashes: 0,
            interval_ends_ms: 0,
            now_ms: 0,
            stations: Vec::new(),
            replies: Vec::new(),
            metrics: Vec::new(),
            pipes: Vec::new(),
            clients,
            published: BTreeMap::new(),
            received: HashMap::new(),
            group_received: HashMap::new(),
            last_in_order: HashMap::new(),
            retained: BTreeMap::new(),
            retained_since: BTreeMap::new(),
            floors: HashMap::new(),
            subscribed_ms: HashMap::new(),
            live: HashMap::new(),
        }
    }

    /// One thing happens: a shard's tick, the store's, or a client's move.
    fn step(&mut self, active: bool) -> Result<(), String> {
        if self.random.chance(20) {
            self.now_ms += self.random.number() % 50;
            self.keep_interval()?;
        }
        if let Some(disk) = &mut self.disk
            && disk.is_next(&mut self.random)
        {
            let step = disk.step(self.now_ms, &mut self.random);
            self.has_refused |= disk.has_failed();
            return step;
        }
        if self.random.chance(55) {
            let shard = self.random.below(self.stations.len());
            self.stall_steps = match self.stall_steps {
                0 if self.random.chance(1) => 100 + self.random.below(300),
                steps => steps.saturating_sub(1),
            };
            if self.slow != Some(shard) || self.stall_steps == 0 {
                self.tick(shard);
            }
            Ok(())
        } else {
            let client = self.random.below(self.clients.len());
            self.client_step(client, active)
        }
    }

    /// Whether retained messages are on disk only.
    fn is_disc_only(&self) -> bool {
        self.settings.retainer.storage == RetainedStorage::DiscOnly
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, unix_ms: 1_700_000_000_000 + self.now_ms }
    }

    fn tick(&mut self, own: usize) {
        if self.stations[own].shard.is_stopped() {
            return;
        }
        let reads_inbox = self.random.chance(80);
        self.tick_with(own, reads_inbox);
    }

    /// A tick that takes all that has come from other shards and from the store.
    fn tick_fully(&mut self, own: usize) {
        if !self.stations[own].shard.is_stopped() {
            self.tick_with(own, true);
        }
    }

    fn tick_with(&mut self, own: usize, reads_inbox: bool) {
        let now = self.now();
        let station = &mut self.stations[own];
        station.shard.begin_tick(now);
        station.complete(own, &mut self.pipes, &mut self.random);
        if reads_inbox {
            station.shard.run_inbox();
        }
        station.shard.run_timers();
        if station.shard.has_background_work() {
            station.shard.run_background();
        }
        station.shard.finish_tick();
        for (to, token, pipe) in station.apply(own, &mut self.pipes) {
            self.stations[to].arrive(token, pipe);
        }
    }

    fn client_step(&mut self, index: usize, active: bool) -> Result<(), String> {
        let Some(pipe) = self.clients[index].pipe else {
            if !active || self.now_ms >= self.clients[index].away_until_ms {
                self.client_connect(index);
            }
            return Ok(());
        };
        self.client_receive(index, pipe)?;
        if self.clients[index].pipe.is_none() || !self.clients[index].connected {
            return Ok(());
        }
        let acks = self.clients[index].take_acks(&mut self.random);
        if !acks.is_empty() {
            trace(|| format!("client-{index} -> {acks:x?}"));
        }
        self.pipes[pipe].to_broker.extend(acks);
        if !active {
            return Ok(());
        }
        match self.random.below(100) {
            0..60 => self.client_publish(index, pipe),
            60..63 => {
                self.live.remove(&index);
                let again = self.clients[index].subscribe();
                self.pipes[pipe].to_broker.extend(again);
            }
            63..65 if !self.clients[index].persistent => {
                let bytes = self.clients[index].unsubscribe();
                self.pipes[pipe].to_broker.extend(bytes);
            }
            65..67 => self.client_break(index, pipe),
            // Connects again while the broker still believes in the old connection: a takeover.
            67 => {
                self.clients[index].disconnected();
                self.client_connect(index);
            }
            _ => {}
        }
        Ok(())
    }

    fn client_connect(&mut self, index: usize) {
        let number = u32::try_from(self.pipes.len()).expect("few connections");
        if index == RESTLESS && self.random.chance(30) {
            self.clients[index].start_afresh();
        }
        if !self.clients[index].persistent {
            let versions = self.retained_since.iter();
            let newest = versions.filter_map(|(topic, of)| of.last().map(|&(_, n)| (*topic, n)));
            self.floors.insert(index, newest.collect());
        }
        let mut pipe = Pipe::new(number);
        pipe.to_broker.extend(self.clients[index].connect());
        trace(|| format!("client-{index} connects on pipe {number} at {} ms", self.now_ms));
        self.pipes.push(pipe);
        let pipe = self.pipes.len() - 1;
        self.clients[index].pipe = Some(pipe);
        let shard = self.random.below(self.stations.len());
        self.stations[shard].connect(pipe);
    }

    fn client_break(&mut self, index: usize, pipe: usize) {
        self.pipes[pipe].client_closed = true;
        if self.random.chance(50) {
            self.pipes[pipe].to_broker.clear();
        }
        self.clients[index].disconnected();
        if self.disk.is_some() && self.random.chance(30) {
            // Long enough to be unloaded.
            self.clients[index].away_until_ms =
                self.now_ms + self.random.number() % LONGEST_AWAY_MS;
        }
    }

    fn client_publish(&mut self, index: usize, pipe: usize) {
        // Each topic has one retained publisher, so that "the last" is well defined.
        let topic = *self.random.pick(&TOPICS);
        // And one QoS: sent again after a reconnect, a message of QoS 1 may pass one of QoS 2 that was taken before.
        let owner = TOPICS.iter().position(|t| *t == topic) == Some(index);
        let retain = owner && self.random.chance(30);
        let any = u8::try_from(self.random.below(3)).expect("below 3");
        let qos = if retain { 1 + u8::from(index.is_multiple_of(2)) } else { any };
        let qos = qos.min(self.most_qos);
        let erases = retain && self.random.chance(30);
        let Some((name, bytes)) = self.clients[index].publish(topic, qos, retain, erases) else {
            return;
        };
        let group = self.clients[GROUP].iter().all(|member| member.subscribed);
        let published = Published {
            topic,
            qos,
            retain,
            erases,
            acknowledged_ms: None,
            // Without payload nobody can tell which one it is.
            expected: if erases { Vec::new() } else { self.expected(topic, qos) },
            group: (group && !erases && matches(GROUP_FILTER, topic)).then_some(qos.min(2)),
        };
        trace(|| format!("client-{index} publishes {name:?}: {published:?}"));
        self.published.insert(name, published);
        if retain {
            self.retained.insert(topic, name);
        }
        self.pipes[pipe].to_broker.extend(bytes);
    }

    /// The clients that must get a message sent now: those with a session that lasts and their SUBACK.
    fn expected(&self, topic: &str, qos: u8) -> Vec<(usize, u8)> {
        let stable = self.clients.iter().filter(|c| c.persistent && c.subscribed && c.index < 4);
        stable
            .filter_map(|client| {
                let matching = client.filters.iter().filter(|(filter, _)| matches(filter, topic));
                let granted = matching.map(|(_, granted)| *granted).max()?;
                Some((client.index, granted.min(qos)))
            })
            .collect()
    }

    fn client_receive(&mut self, index: usize, pipe: usize) -> Result<(), String> {
        let available = self.pipes[pipe].to_client.len();
        if available > 0 {
            let length =
                if self.random.chance(70) { available } else { self.random.below(available) };
            let bytes: Vec<u8> = self.pipes[pipe].to_client.drain(..length).collect();
            for event in self.clients[index].receive(&bytes)? {
                self.happened(index, pipe, event)?;
            }
        }
        if self.pipes[pipe].broker_closed && self.pipes[pipe].to_client.is_empty() {
            self.pipes[pipe].client_closed = true;
            self.clients[index].disconnected();
        }
        Ok(())
    }

    fn happened(&mut self, index: usize, pipe: usize, event: Event) -> Result<(), String> {
        match event {
            Event::Connected { session_present } => {
                if !session_present && self.clients[index].subscribed {
                    return Err(format!("the session of client-{index} was lost"));
                }
                let bytes = self.clients[index].resend();
                trace(|| format!("client-{index} sends again: {bytes:x?}"));
                self.pipes[pipe].to_broker.extend(bytes);
                self.live.remove(&index);
                if !session_present || !self.clients[index].subscribed {
                    if !session_present {
                        // What is known of the session before says nothing of this one.
                        self.subscribed_ms.remove(&index);
                        self.live.insert(index, BTreeMap::new());
                    }
                    let bytes = self.clients[index].subscribe();
                    self.pipes[pipe].to_broker.extend(bytes);
                }
            }
            Event::Acknowledged(name) => {
                if let Some(published) = self.published.get_mut(&name) {
                    published.acknowledged_ms = Some(self.now_ms);
                    if published.retain {
                        let versions = self.retained_since.entry(published.topic).or_default();
                        versions.push((self.now_ms, name.1));
                    }
                }
            }
            Event::Received { name, topic, qos, retain } => {
                return self.message_received(index, name, topic, qos, retain);
            }
            // Now the store has its end, and its publisher's shard may have its beginning: a good moment for a crash.
            Event::Released => {
                if self.crash_in.is_none() && self.random.chance(self.crashes_at_release) {
                    // At once, or when the message is through to its end.
                    self.crash_in = Some(*self.random.pick(&[0, 50, 100, 200]));
                }
            }
            Event::Subscribed => {
                self.subscribed_ms.entry(index).or_insert(self.now_ms);
            }
        }
        Ok(())
    }

    fn message_received(
        &mut self,
        index: usize,
        name: MessageName,
        topic: String,
        qos: u8,
        retain: bool,
    ) -> Result<(), String> {
        let published = self
            .published
            .get(&name)
            .ok_or(format!("client-{index} received {name:?}, never sent"))?;
        if published.topic != topic {
            return Err(format!(
                "{name:?} was published to {} and came on {topic}",
                published.topic
            ));
        }
        if retain {
            self.check_floor(index, name, &topic)?;
            let newer = self.live.get(&index).and_then(|live| live.get(&topic));
            return match newer {
                Some(newer) if *newer > name.1 && !self.may_be_late(name) => Err(format!(
                    "client-{index} got {name:?} as the retained message of {topic} behind number {newer}"
                )),
                _ => Ok(()),
            };
        }
        if published.retain
            && let Some(live) = self.live.get_mut(&index)
        {
            let last = live.entry(topic.clone()).or_default();
            *last = name.1.max(*last);
        }
        let (knows_all, crashed) = (self.knows_all(), self.crashes > 0);
        let session = self.clients[index].session;
        let times = self.received.entry((index, session, name)).or_default();
        *times += 1;
        let first = *times == 1;
        if qos == 2 && *times > 1 && knows_all {
            return Err(format!("client-{index} received {name:?} {times} times with QoS 2"));
        }
        if GROUP.contains(&index) {
            *self.group_received.entry(name).or_default() += 1;
        }
        // Sent with QoS 0 what was published with QoS 1 may get lost, and come again late from its publisher.
        // So may what was sent before this client had its SUBACK.
        let sure = published.expected.iter().any(|&(client, _)| client == index);
        let ordered = sure && (qos > 0 || published.qos != 1);
        let unanswered = self.may_be_late(name);
        if first && ordered && (knows_all || !crashed) && !unanswered {
            let key = (index, name.0, topic, published.qos);
            let last = self.last_in_order.insert(key, name.1);
            if let Some(last) = last
                && last > name.1
                && !GROUP.contains(&index)
            {
                return Err(format!("client-{index} received {name:?} after number {last}"));
            }
        }
        Ok(())
    }

    /// Whether nothing that was told to anybody is ever forgotten.
    fn knows_all(&self) -> bool {
        self.crashes == 0 || self.mode == Some(StoreMode::Always)
    }

    /// A new session gets no retained message that is older than what was acknowledged before.
    fn check_floor(&self, index: usize, name: MessageName, topic: &str) -> Result<(), String> {
        let floor = self.floors.get(&index).and_then(|floors| floors.get(topic));
        match floor.filter(|_| self.knows_all() && !self.late.contains(&name)) {
            Some(floor) if name.1 < *floor => Err(format!(
                "client-{index} got {name:?} as the retained message of {topic}, number {floor} was acknowledged"
            )),
            _ => Ok(()),
        }
    }

    /// Lets everybody finish: connected, nothing under way.
    fn come_to_rest(&mut self) -> Result<(), String> {
        self.slow = None;
        let mut quiet = 0;
        for _ in 1..200_000 {
            self.step(false)?;
            let rest = self.clients.iter().all(Client::is_quiet)
                && self.pipes.iter().all(Pipe::is_quiet)
                && self.disk.as_ref().is_none_or(Disk::is_quiet);
            quiet = if rest { quiet + 1 } else { 0 };
            if quiet > 600 * self.stations.len() {
                return Ok(());
            }
        }
        let stuck = self.clients.iter().find(|c| !c.is_quiet());
        let pipe = stuck.and_then(|client| client.pipe).map(|pipe| &self.pipes[pipe]);
        Err(format!("it does not come to rest: {pipe:?} of {stuck:?} for one"))
    }

    fn check_at_rest(&mut self) -> Result<(), String> {
        for (name, published) in &self.published {
            if published.qos == 0 || published.acknowledged_ms.is_none() {
                continue;
            }
            for &(client, qos) in &published.expected {
                let times = self.received.get(&(client, 0, *name)).copied().unwrap_or(0);
                let right = match qos {
                    // A publisher may send QoS 1 twice; what it costs the subscriber is not our doing.
                    0 => times <= 1 || published.qos == 1 || self.crashes > 0,
                    1 => times >= 1,
                    _ => times == 1,
                };
                if !right {
                    return Err(format!(
                        "client-{client} received {name:?} ({published:?}) {times} times"
                    ));
                }
            }
            if let Some(qos) = published.group {
                let times = self.group_received.get(name).copied().unwrap_or(0);
                if times == 0 || (qos == 2 && times > 1 && self.crashes == 0) {
                    return Err(format!(
                        "the group received {name:?} ({published:?}) {times} times"
                    ));
                }
            }
        }
        self.check_shards()
    }

    fn check_shards(&mut self) -> Result<(), String> {
        let subscriptions: usize = self
            .clients
            .iter()
            .map(|c| if c.persistent || c.subscribed { c.filters.len() } else { 0 })
            .sum();
        let total = |gauge| self.metrics.iter().map(|m| m.count(gauge)).sum::<u64>();
        if total(Gauge::Subscriptions) != subscriptions as u64 {
            return Err(format!(
                "{} subscriptions where the clients have {subscriptions}",
                total(Gauge::Subscriptions)
            ));
        }
        let clients = self.clients.len() as u64;
        if total(Gauge::Clients) != clients || total(Gauge::Sessions) != clients {
            return Err(format!(
                "{} clients and {} sessions where there are {clients}",
                total(Gauge::Clients),
                total(Gauge::Sessions)
            ));
        }
        let slots: usize = self.stations.iter().map(Station::slots_in_use).sum();
        if slots as u64 != clients {
            return Err(format!("{slots} descriptor slots in use by {clients} clients"));
        }
        let routes: Vec<usize> = self.stations.iter().map(|s| s.shard.route_count()).collect();
        if routes.iter().any(|count| *count != routes[0]) {
            return Err(format!("the replicas differ: {routes:?} routes"));
        }
        for shard in 0..self.stations.len() {
            let left = |row: &&SessionRow| row.inflight + row.mqueue_len + row.awaiting_rel > 0;
            if let Some(row) = self.session_rows(shard)?.iter().find(left) {
                return Err(format!("something is left for a session at rest: {row:?}"));
            }
        }
        Ok(())
    }

    /// The sessions of a shard as it tells them.
    fn session_rows(&mut self, shard: usize) -> Result<Vec<SessionRow>, String> {
        let request = Request::SessionsPage { cursor: 0, limit: 256, kind: SessionKind::Any };
        self.stations[shard].shard.command(Command { token: 1, request });
        match self.replies[shard].try_recv() {
            Ok((1, Reply::Sessions(page))) => Ok(page.rows),
            reply => Err(format!("shard {shard} answered {reply:?}")),
        }
    }

    /// A fresh client that subscribes to everything gets the last retained message of each topic.
    fn check_retained(&mut self) -> Result<(), String> {
        let index = self.clients.len();
        let mut probe = Client::new(index, Version::V311, false, 1000);
        probe.filters.push(("#".to_owned(), 0));
        self.clients.push(probe);
        let mut found: BTreeMap<String, MessageName> = BTreeMap::new();
        let ends = self.retained.iter().map(|(topic, name)| self.retained_end(topic, *name));
        let sure = ends.filter(|end| matches!(end, RetainedEnd::Is(_))).count();
        let mut looks = 0;
        for _ in 0..40_000 {
            if self.random.chance(60) {
                let shard = self.random.below(self.stations.len());
                self.tick(shard);
                continue;
            }
            if let Some(disk) = &mut self.disk {
                disk.step(self.now_ms, &mut self.random)?;
            }
            let Some(pipe) = self.clients[index].pipe else {
                self.client_connect(index);
                continue;
            };
            let bytes: Vec<u8> = self.pipes[pipe].to_client.drain(..).collect();
            for event in self.clients[index].receive(&bytes)? {
                match event {
                    Event::Received { name, topic, retain: true, .. } => {
                        found.insert(topic, name);
                    }
                    Event::Connected { .. } => {
                        let bytes = self.clients[index].subscribe();
                        self.pipes[pipe].to_broker.extend(bytes);
                    }
                    _ => {}
                }
            }
            // What should not be there would come too.
            looks += usize::from(found.len() >= sure && self.clients[index].subscribed);
            if looks > 1000 {
                break;
            }
        }
        for (topic, name) in &self.retained {
            let last = found.get(*topic);
            let end = self.retained_end(topic, *name);
            let is_right = match end {
                RetainedEnd::Is(name) => last == Some(&name),
                RetainedEnd::None => last.is_none(),
                RetainedEnd::Unknown => self.may_be_last(topic, *name, last),
            };
            if !is_right {
                return Err(format!("{topic} retains {last:?} where {end:?} is right"));
            }
        }
        Ok(())
    }
}

/// Shows what happens, if `SIMULATION_TRACE` is set.
fn trace(what: impl FnOnce() -> String) {
    static WANTED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    if *WANTED.get_or_init(|| std::env::var_os("SIMULATION_TRACE").is_some()) {
        eprintln!("{}", what());
    }
}

/// The reference matcher, as naive as can be.
fn matches(filter: &str, topic: &str) -> bool {
    let filter = filter.strip_prefix("$share/g/").unwrap_or(filter);
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    matches_levels(&filter, &topic)
}

fn matches_levels(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) | ([], []) => true,
        ([f, filter @ ..], [t, topic @ ..]) => {
            (*f == "+" || f == t) && matches_levels(filter, topic)
        }
        _ => false,
    }
}
