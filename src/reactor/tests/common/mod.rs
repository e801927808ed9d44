//! A stand-in for a shard: it echoes, and does by order what shards do. And what starts some of them.
#![allow(dead_code, missing_docs, reason = "every test and example uses a part")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use crossbeam_channel::Sender;
use ring::{Endpoint, Mesh, ShardId};
use ringmq_reactor::{
    self as reactor, Connect, Core, Features, FilterTable, Reactor, ReactorSettings, ReactorSetup,
    RingTable, ShardThread, bind_all,
};
use shard::{CloseMode, ConnectionId, Effect, ListenerId, Now, Outgoing, ReceiveEnd};

/// A job for one echo, run on its thread.
pub type Job = Box<dyn FnOnce(&mut Echo) + Send>;

/// What a test looks at from outside.
#[derive(Debug, Default)]
pub struct Seen {
    pub accepted: AtomicU64,
    pub closed: AtomicU64,
    pub ended: AtomicU64,
    pub received_bytes: AtomicU64,
    pub received_calls: AtomicU64,
    pub received_bytes_in_tick_max: AtomicU64,
    pub ended_in_tick_max: AtomicU64,
    pub sends_failed: AtomicU64,
    pub adopted: AtomicU64,
    pub moves_failed: AtomicU64,
    pub ticks: AtomicU64,
    pub background: AtomicU64,
}

/// What moves with a descriptor.
#[derive(Debug, Default)]
pub struct Moved {
    token: u64,
    unread: Vec<u8>,
}

#[derive(Debug, Default)]
struct Connection {
    generation: u32,
    out: Vec<u8>,
    spare: Vec<u8>,
    in_flight: bool,
    dirty: bool,
    segments: Vec<Bytes>,
    /// Leaves: what comes is kept.
    leaving: Option<(ShardId, u64)>,
    /// Is being closed: what comes is no order and no text.
    closing: bool,
    unread: Vec<u8>,
    tick: u64,
    tick_bytes: u64,
}

/// The stand-in.
pub struct Echo {
    endpoint: Endpoint<Vec<u8>, Moved>,
    connections: Vec<Connection>,
    pub effects: Vec<Effect>,
    pub dirty: Vec<ConnectionId>,
    arrived: HashMap<u64, u32>,
    waiting: HashMap<u64, Moved>,
    sequence: u64,
    pub now: Now,
    pub seen: Arc<Seen>,
    pub peers: Vec<SocketAddr>,
    pub deadline_ms: Option<u64>,
    pub background: u32,
    pub stopping: bool,
    pub stopped: bool,
    /// Takes what comes and says nothing.
    pub sink: bool,
    /// How long an accept takes.
    pub accept_pause: std::time::Duration,
    /// Run at the end of the tick in which something came from that shard.
    /// Connections to be opened, and what became of those that were: token, slot or errno.
    pub connects: Vec<Connect>,
    pub opened: Vec<(u64, Result<u32, i32>)>,
    pub on_doorbell: Option<Box<dyn FnMut() + Send>>,
    tick: u64,
    ended_in_tick: u64,
}

impl Echo {
    fn new(endpoint: Endpoint<Vec<u8>, Moved>, seen: Arc<Seen>) -> Self {
        Self {
            endpoint,
            connections: Vec::new(),
            effects: Vec::new(),
            dirty: Vec::new(),
            arrived: HashMap::new(),
            waiting: HashMap::new(),
            sequence: 0,
            now: Now::default(),
            seen,
            peers: Vec::new(),
            deadline_ms: None,
            background: 0,
            stopping: false,
            stopped: false,
            sink: false,
            accept_pause: std::time::Duration::ZERO,
            connects: Vec::new(),
            opened: Vec::new(),
            on_doorbell: None,
            tick: 0,
            ended_in_tick: 0,
        }
    }

    /// One that nobody looks at.
    pub fn new_for_test(endpoint: Endpoint<Vec<u8>, Moved>) -> Self {
        Self::new(endpoint, Arc::default())
    }

    /// The connection in a slot, as it is now.
    pub fn id(&self, index: u32) -> ConnectionId {
        ConnectionId { index, generation: self.connections[index as usize].generation }
    }

    /// One more than the largest slot that was used.
    pub fn opened_max(&self) -> u32 {
        u32::try_from(self.connections.len()).unwrap()
    }

    /// Pushes something to another shard.
    pub fn poke(&mut self, to: ShardId) {
        self.endpoint.push_data(to, &mut Vec::new()).expect("the ring has room");
    }

    fn open(&mut self, index: u32) -> ConnectionId {
        let place = index as usize;
        if self.connections.len() <= place {
            self.connections.resize_with(place + 1, Connection::default);
        }
        let generation = (self.connections[place].generation + 1) & shard::GENERATION_MASK;
        self.connections[place] = Connection { generation, ..Connection::default() };
        ConnectionId { index, generation }
    }

    fn queue(&mut self, id: ConnectionId, bytes: &[u8]) {
        let connection = &mut self.connections[id.index as usize];
        connection.out.extend_from_slice(bytes);
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(id);
        }
    }

    fn adopt(&mut self, index: u32, moved: &Moved) -> ConnectionId {
        let id = self.open(index);
        self.seen.adopted.fetch_add(1, Relaxed);
        self.effects.push(Effect::StartReceive(id));
        self.queue(id, b"MOVED:");
        self.take(id, &moved.unread);
        id
    }

    /// Orders begin with byte 1 and end with a newline; anything else is echoed.
    fn take(&mut self, id: ConnectionId, bytes: &[u8]) {
        if self.sink || bytes.is_empty() || self.connections[id.index as usize].closing {
            return;
        }
        if bytes[0] != 1 {
            return self.queue(id, bytes);
        }
        let end = bytes.iter().position(|byte| *byte == b'\n').expect("an order comes whole");
        let order = std::str::from_utf8(&bytes[1..end]).unwrap();
        let (verb, number) = order.split_once(' ').unwrap();
        let number: usize = number.parse().unwrap();
        match verb {
            "MOVE" => {
                let to = ShardId::new(number);
                self.sequence += 1;
                let token = (self.endpoint.id().index() as u64) << 40 | self.sequence;
                let connection = &mut self.connections[id.index as usize];
                connection.leaving = Some((to, token));
                connection.unread.extend_from_slice(&bytes[end + 1..]);
                self.effects.push(Effect::HandOver { id, to, token });
                return;
            }
            // So many bytes in segments of 1000, then a lingering close.
            "BIG" => {
                let pattern = text(number, 0..=250);
                let whole = Bytes::from(pattern);
                let segments =
                    (0..number).step_by(1000).map(|at| whole.slice(at..(at + 1000).min(number)));
                let segments = segments.collect();
                let connection = &mut self.connections[id.index as usize];
                (connection.segments, connection.closing) = (segments, true);
                self.effects.push(Effect::Flush(id));
                self.effects.push(Effect::Close { id, mode: CloseMode::Linger });
            }
            "NOW" => self.effects.push(Effect::Close { id, mode: CloseMode::Now }),
            other => panic!("unknown order {other}"),
        }
        self.take(id, &bytes[end + 1..]);
    }
}

impl Core for Echo {
    type Command = Job;

    fn begin_tick(&mut self, now: Now) {
        self.now = now;
        self.tick += 1;
        self.ended_in_tick = 0;
        self.seen.ticks.store(self.tick, Relaxed);
    }

    fn accepted(&mut self, index: u32, _: ListenerId, peer: SocketAddr) -> ConnectionId {
        std::thread::sleep(self.accept_pause);
        let id = self.open(index);
        self.seen.accepted.fetch_add(1, Relaxed);
        self.peers.push(peer);
        self.effects.push(Effect::StartReceive(id));
        id
    }

    fn next_connect(&mut self) -> Option<Connect> {
        self.connects.pop()
    }

    fn connected(&mut self, token: u64, index: u32) -> ConnectionId {
        let id = self.open(index);
        self.opened.push((token, Ok(index)));
        self.effects.push(Effect::StartReceive(id));
        self.queue(id, b"hello");
        id
    }

    fn connect_failed(&mut self, token: u64, errno: i32) {
        self.opened.push((token, Err(errno)));
    }

    fn received(&mut self, id: ConnectionId, bytes: &[u8]) {
        let connection = &mut self.connections[id.index as usize];
        assert_eq!(connection.generation, id.generation);
        let len = bytes.len() as u64;
        if connection.tick != self.tick {
            (connection.tick, connection.tick_bytes) = (self.tick, 0);
        }
        connection.tick_bytes += len;
        self.seen.received_bytes_in_tick_max.fetch_max(connection.tick_bytes, Relaxed);
        self.seen.received_bytes.fetch_add(len, Relaxed);
        self.seen.received_calls.fetch_add(1, Relaxed);
        if connection.leaving.is_some() {
            connection.unread.extend_from_slice(bytes);
        } else {
            self.take(id, bytes);
        }
    }

    fn receive_ended(&mut self, id: ConnectionId, _: ReceiveEnd) {
        self.seen.ended.fetch_add(1, Relaxed);
        self.ended_in_tick += 1;
        self.seen.ended_in_tick_max.fetch_max(self.ended_in_tick, Relaxed);
        self.effects.push(Effect::Close { id, mode: CloseMode::Linger });
    }

    fn sent(&mut self, id: ConnectionId, outgoing: Outgoing, result: Result<(), i32>) {
        let connection = &mut self.connections[id.index as usize];
        assert!(connection.in_flight);
        connection.in_flight = false;
        if let Outgoing::Bytes(mut bytes) = outgoing {
            bytes.clear();
            connection.spare = bytes;
        }
        if result.is_err() {
            self.seen.sends_failed.fetch_add(1, Relaxed);
            connection.out.clear();
            self.effects.push(Effect::Close { id, mode: CloseMode::Now });
        } else if !connection.out.is_empty() {
            self.effects.push(Effect::Flush(id));
        }
    }

    fn closed(&mut self, index: u32) {
        assert!(!self.connections[index as usize].in_flight);
        self.seen.closed.fetch_add(1, Relaxed);
    }

    fn descriptor_arrived(&mut self, token: u64, index: u32) -> Option<ConnectionId> {
        match self.waiting.remove(&token) {
            Some(moved) => Some(self.adopt(index, &moved)),
            None => {
                self.arrived.insert(token, index);
                None
            }
        }
    }

    fn detach(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id.index as usize];
        let (to, token) = connection.leaving.expect("it leaves");
        let mut moved = Moved { token, unread: std::mem::take(&mut connection.unread) };
        self.endpoint.push_control(to, &mut moved).expect("the ring has room");
    }

    fn descriptor_sent(&mut self, id: ConnectionId, result: Result<(), i32>) {
        if result.is_err() {
            self.seen.moves_failed.fetch_add(1, Relaxed);
            self.connections[id.index as usize].leaving = None;
            self.queue(id, b"FULL");
            self.effects.push(Effect::Flush(id));
            self.effects.push(Effect::Close { id, mode: CloseMode::Linger });
        }
    }

    fn run_inbox(&mut self) {
        for from in self.endpoint.next_pending().iter() {
            let mut bytes = Vec::new();
            while self.endpoint.pop_data(from, &mut bytes) {
                if let Some(on_doorbell) = &mut self.on_doorbell {
                    on_doorbell();
                }
            }
            let mut moved = Moved::default();
            while self.endpoint.pop_control(from, &mut moved) {
                let moved = std::mem::take(&mut moved);
                match self.arrived.remove(&moved.token) {
                    Some(index) => drop(self.adopt(index, &moved)),
                    None => drop(self.waiting.insert(moved.token, moved)),
                }
            }
        }
    }

    fn command(&mut self, command: Job) {
        command(self);
    }

    fn run_timers(&mut self) {
        if self.deadline_ms.is_some_and(|at_ms| at_ms <= self.now.mono_ms) {
            self.deadline_ms = None;
        }
    }

    fn finish_tick(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        for id in &dirty {
            let connection = &mut self.connections[id.index as usize];
            connection.dirty = false;
            if !connection.in_flight {
                self.effects.push(Effect::Flush(*id));
            }
        }
        self.dirty = dirty;
        self.dirty.clear();
        for shard in self.endpoint.take_doorbells().iter() {
            self.effects.push(Effect::Doorbell(shard));
        }
    }

    fn drain_effects(&mut self, effects: &mut Vec<Effect>) {
        assert!(effects.is_empty());
        std::mem::swap(effects, &mut self.effects);
    }

    fn take_outgoing(&mut self, id: ConnectionId) -> Option<Outgoing> {
        let connection = &mut self.connections[id.index as usize];
        assert!(!connection.in_flight);
        let outgoing = if !connection.segments.is_empty() {
            Outgoing::Segments(std::mem::take(&mut connection.segments))
        } else if connection.out.is_empty() {
            return None;
        } else {
            let spare = std::mem::take(&mut connection.spare);
            Outgoing::Bytes(std::mem::replace(&mut connection.out, spare))
        };
        connection.in_flight = true;
        Some(outgoing)
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    fn take_foreign(&mut self) {
        self.endpoint.take_foreign();
    }

    fn prepare_park(&mut self) -> bool {
        self.effects.is_empty()
            && self.dirty.is_empty()
            && self.connects.is_empty()
            && self.endpoint.prepare_park()
    }

    fn unpark(&mut self) {
        self.endpoint.unpark();
    }

    fn has_background_work(&self) -> bool {
        self.background > 0
    }

    fn run_background(&mut self) {
        self.background -= 1;
        self.seen.background.fetch_add(1, Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping
    }

    fn is_stopped(&self) -> bool {
        self.stopped
    }
}

/// Some echoes that run.
pub struct Echoes {
    pub address: SocketAddr,
    pub shards: Vec<Running>,
}

/// One of them.
pub struct Running {
    pub seen: Arc<Seen>,
    pub thread: ShardThread,
    jobs: Sender<Job>,
}

/// A listener on a port of the kernel's choice.
pub fn listener(address: &str) -> config::ListenerSettings {
    config::ListenerSettings {
        kind: config::ListenerKind::Tcp,
        name: "test".to_owned(),
        address: address.parse().unwrap(),
        options: config::ListenerOptions::default(),
    }
}

/// Small rings and tables, so that rare paths are met.
pub fn small() -> ReactorSettings {
    ReactorSettings {
        submission_entries: 64,
        completion_entries: 256,
        connections_max: Some(4096),
        buffers: 64,
        buffer_bytes: 2048,
        ..ReactorSettings::default()
    }
}

/// Starts echoes; only shard 0 listens if `one_listens`.
pub fn start(settings: &[ReactorSettings], one_listens: bool) -> Echoes {
    let features = reactor::probe(settings.len()).expect("io_uring is there").features;
    start_at("127.0.0.1:0", settings, one_listens, features)
}

/// As [`start`], with an address and the kernel's features as told.
pub fn start_at(
    address: &str,
    settings: &[ReactorSettings],
    one_listens: bool,
    features: Features,
) -> Echoes {
    start_filtered(address, settings, one_listens, features, &Arc::default())
}

/// As [`start_at`], with layers below the echo.
pub fn start_filtered(
    address: &str,
    settings: &[ReactorSettings],
    one_listens: bool,
    features: Features,
    filters: &Arc<FilterTable>,
) -> Echoes {
    let shards = settings.len();
    let table = Arc::new(RingTable::new(shards));
    let listening = if one_listens { 1 } else { shards };
    let mut bound = bind_all(&[listener(address)], listening).expect("a free port");
    let address = bound[0][0].address;
    bound.resize_with(shards, Vec::new);
    let cpus = reactor::available_cpus();
    let endpoints = Mesh::build::<Vec<u8>, Moved>(shards, 64, 1024);
    let mut running = Vec::new();
    for (endpoint, listeners) in endpoints.into_iter().zip(bound) {
        let id = endpoint.id();
        let seen = Arc::new(Seen::default());
        let (jobs, commands) = crossbeam_channel::bounded::<Job>(64);
        let waker = endpoint.waker();
        let inner = Arc::clone(&seen);
        let thread = Reactor::spawn(ReactorSetup {
            id,
            cpu: cpus[id.index() % cpus.len()],
            build: Box::new(move || Echo::new(endpoint, inner)),
            listeners,
            table: Arc::clone(&table),
            filters: Arc::clone(filters),
            commands,
            waker,
            settings: settings[id.index()].clone(),
            features,
        })
        .expect("a thread");
        running.push(Running { seen, thread, jobs });
    }
    table.wait_up().expect("all shards are up");
    Echoes { address, shards: running }
}

impl Running {
    /// Runs a job on the shard's thread and waits for its answer.
    pub fn ask<T: Send + 'static>(&self, job: impl FnOnce(&mut Echo) -> T + Send + 'static) -> T {
        let (answer, answered) = crossbeam_channel::bounded(1);
        self.tell(move |echo| answer.send(job(echo)).unwrap());
        answered.recv_timeout(std::time::Duration::from_secs(10)).expect("the shard answers")
    }

    /// Runs a job on the shard's thread.
    pub fn tell(&self, job: impl FnOnce(&mut Echo) + Send + 'static) {
        self.jobs.send(Box::new(job)).unwrap();
        self.thread.wake.wake();
    }
}

impl Echoes {
    /// Ends them all.
    pub fn stop(self) {
        for shard in &self.shards {
            shard.tell(|echo| (echo.stopping, echo.stopped) = (true, true));
        }
        for shard in self.shards {
            shard.thread.join();
        }
    }
}

/// So many bytes that go round in a range; from 2 on they are no order to an echo.
pub fn text(len: usize, range: std::ops::RangeInclusive<u8>) -> Vec<u8> {
    range.cycle().take(len).collect()
}

/// Waits until something is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !so() {
        assert!(start.elapsed().as_secs() < 20, "waited in vain until {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
