//! One generator thread: it drives its clients from the connect to the last message.
//!
//! Invariants: a client is counted exactly once as ready or failed; a message's latency counts from when it was to be
//! sent, not from when it was; no queue of a client grows beyond its publisher's window or outbox limit.

mod client;
mod publisher;

use crate::plan::{ClientPlan, Load, Plan, Shape};
use crate::sys::epoll::{Epoll, Event, Events};
use crate::sys::{self, now_ns};
use crate::wire::{self, Frame, Malformed, Stamp, Template};
use client::{Client, Stage, Tracks};
use hdrhistogram::Histogram;
use publisher::{Limit, Pace, Publisher};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Longest latency that is told apart, in nanoseconds.
const LATENCY_MAX_NS: u64 = 120_000_000_000;
/// Bytes read at once.
const READ_LEN: usize = 256 * 1024;
/// Gaps in the sequence numbers that are remembered to tell a late message from a duplicate.
const MISSING_MAX: usize = 100_000;
/// Longest wait: how late a worker may notice a new phase.
const WAIT_MAX: Duration = Duration::from_millis(10);

/// What the workers are to do now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Phase {
    /// Open clients; send nothing.
    Connect = 0,
    /// Send.
    Send = 1,
    /// Only receive.
    Drain = 2,
    /// Say DISCONNECT and end.
    Stop = 3,
}

/// Counters of one worker that the leading thread reads while it runs.
#[derive(Default)]
#[repr(align(128))]
pub struct Counters {
    /// Clients that are ready.
    pub ready: AtomicU64,
    /// Clients that failed, before or after they were ready.
    pub failed: AtomicU64,
    /// Messages whose time had come.
    pub offered: AtomicU64,
    /// Messages handed to the kernel or about to be.
    pub sent: AtomicU64,
    /// Messages received.
    pub delivered: AtomicU64,
}

/// What the threads of a run share.
pub struct Shared {
    /// A [`Phase`].
    pub phase: AtomicU8,
    /// The histogram that latencies go into: 0 is thrown away.
    pub slot: AtomicU8,
    /// When the first message is due.
    pub start_ns: AtomicU64,
    /// Of each worker.
    pub counters: Vec<Counters>,
    /// Deliveries of each publisher's messages: the window of flat-out runs.
    pub arrived: Vec<AtomicU64>,
}

/// Number of histograms.
pub const SLOTS: usize = 3;

impl Shared {
    /// For `plan` with `threads` workers.
    pub fn new(plan: &Plan, threads: usize) -> Shared {
        Shared {
            phase: AtomicU8::new(Phase::Connect as u8),
            slot: AtomicU8::new(0),
            start_ns: AtomicU64::new(0),
            counters: (0..threads).map(|_| Counters::default()).collect(),
            arrived: (0..plan.publishers).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// One counter over all workers.
    pub fn sum(&self, pick: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.counters.iter().map(|counters| pick(counters).load(Relaxed)).sum()
    }

    /// Sets the phase; a worker notices within 10 ms.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }
}

/// What a worker hands back.
pub struct Report {
    /// Latencies in nanoseconds by slot.
    pub latency: [Histogram<u64>; SLOTS],
    /// From connect to SUBACK (or CONNACK without a subscription), nanoseconds.
    pub connect: Histogram<u64>,
    /// Messages heard twice.
    pub duplicates: u64,
    /// Messages heard after a later one.
    pub reordered: u64,
    /// Messages that are none of this run.
    pub foreign: u64,
    /// PINGREQ sent and PINGRESP received.
    pub pings: (u64, u64),
    /// Failures by reason.
    pub failures: BTreeMap<String, u64>,
}

/// One generator thread.
pub struct Worker<'a> {
    shared: &'a Shared,
    index: usize,
    load: &'a Load,
    plans: Vec<&'a ClientPlan>,
    is_mqtt: bool,
    is_local: bool,
    fan: u64,
    threads: u32,
    epoll: Epoll,
    clients: Vec<Client>,
    publishers: Vec<Publisher>,
    awake: Vec<usize>,
    opened: usize,
    outstanding: usize,
    connect_start_ns: u64,
    ping_start_ns: u64,
    pings_due: u64,
    paced: u64,
    offered: u64,
    sent: u64,
    ready: u64,
    failed: u64,
    delivered: u64,
    slot: usize,
    missing: HashSet<(usize, u32, u32)>,
    report: Report,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("bounds are constant and valid")
}

impl<'a> Worker<'a> {
    /// Worker `index` of `plan`.
    pub fn new(
        shared: &'a Shared,
        index: usize,
        plan: &'a Plan,
        load: &'a Load,
    ) -> io::Result<Worker<'a>> {
        let plans: Vec<&ClientPlan> = plan.clients.iter().filter(|c| c.thread == index).collect();
        let mut clients = Vec::with_capacity(plans.len());
        let mut publishers = Vec::new();
        for (at, client) in plans.iter().enumerate() {
            let publisher = client.publishes.as_ref().map(|(number, topic)| {
                let template = Template::new(load.version, topic, load.qos, load.payload_len);
                publishers.push(Publisher::new(at, *number, template));
                publishers.len() - 1
            });
            let heard = client.hears.len();
            let tracks = Tracks { first: client.hears.start, next: vec![0; heard] };
            clients.push(Client::planned(publisher, tracks));
        }
        Ok(Worker {
            shared,
            index,
            load,
            plans,
            is_mqtt: !matches!(plan.shape, Shape::Echo | Shape::Relay),
            is_local: plan.is_local,
            fan: plan.fan,
            threads: u32::try_from(load.threads).unwrap_or(1),
            epoll: Epoll::new()?,
            clients,
            publishers,
            awake: Vec::new(),
            opened: 0,
            outstanding: 0,
            connect_start_ns: now_ns(),
            ping_start_ns: now_ns(),
            pings_due: 0,
            paced: 0,
            offered: 0,
            sent: 0,
            ready: 0,
            failed: 0,
            delivered: 0,
            slot: 0,
            missing: HashSet::new(),
            report: Report {
                latency: [histogram(), histogram(), histogram()],
                connect: histogram(),
                duplicates: 0,
                reordered: 0,
                foreign: 0,
                pings: (0, 0),
                failures: BTreeMap::new(),
            },
        })
    }

    /// Runs until the phase is [`Phase::Stop`].
    pub fn run(mut self) -> io::Result<Report> {
        let mut events = Events::new(1024);
        let mut buffer = vec![0; READ_LEN];
        self.connect_start_ns = now_ns();
        loop {
            let phase = self.shared.phase.load(Relaxed);
            if phase == Phase::Stop as u8 {
                break;
            }
            self.slot = usize::from(self.shared.slot.load(Relaxed));
            let is_sending = phase == Phase::Send as u8;
            let now = now_ns();
            self.open_more(now);
            self.ping(now);
            let mut timeout = self.connect_timeout(now);
            if is_sending {
                timeout = timeout.min(self.send(now));
            }
            self.publish_counters();
            self.epoll.wait(&mut events, timeout)?;
            for index in 0..events.len() {
                self.handle(events.get(index), &mut buffer);
            }
            if !is_sending {
                self.sleep_publishers();
            }
        }
        for client in &mut self.clients {
            client.leave(self.is_mqtt);
        }
        self.publish_counters();
        Ok(self.report)
    }

    fn publish_counters(&self) {
        let counters = &self.shared.counters[self.index];
        counters.ready.store(self.ready, Relaxed);
        counters.failed.store(self.failed, Relaxed);
        counters.offered.store(self.offered, Relaxed);
        counters.sent.store(self.sent, Relaxed);
        counters.delivered.store(self.delivered, Relaxed);
    }

    // ---- connecting

    fn open_more(&mut self, now: u64) {
        while self.opened < self.plans.len() && self.outstanding < self.load.connect_window {
            if now < self.next_open_ns() {
                break;
            }
            let at = self.opened;
            self.opened += 1;
            self.outstanding += 1;
            let global = at * self.load.threads + self.index;
            let source = match self.load.sources.len() {
                0 => None,
                count => Some(self.load.sources[global % count]),
            };
            let opened = sys::connect(source, self.load.target, None).and_then(|stream| {
                self.epoll.add(&stream, u64::try_from(at).expect("an index fits"))?;
                Ok(stream)
            });
            match opened {
                Ok(stream) => self.clients[at].opened(stream, now_ns()),
                Err(error) => {
                    self.clients[at].stage = Stage::Connecting;
                    self.fail(at, &reason("connect", &error));
                }
            }
        }
    }

    fn next_open_ns(&self) -> u64 {
        if self.load.connect_rate == 0 {
            return 0;
        }
        // A cast of a small index: all workers together keep the rate.
        let global = u64::try_from(self.opened * self.load.threads).expect("an index fits");
        self.connect_start_ns + global * 1_000_000_000 / self.load.connect_rate
    }

    fn connect_timeout(&self, now: u64) -> Duration {
        if self.opened < self.plans.len() && self.outstanding < self.load.connect_window {
            WAIT_MAX.min(Duration::from_nanos(self.next_open_ns().saturating_sub(now)))
        } else {
            WAIT_MAX
        }
    }

    fn connected(&mut self, at: usize) {
        if let Some(error) = self.clients[at].connect_error() {
            self.fail(at, &reason("connect", &error));
            return;
        }
        if !self.is_mqtt {
            self.became_ready(at);
            return;
        }
        self.clients[at].stage = Stage::AwaitConnAck;
        let plan = self.plans[at];
        let outbox = &mut self.clients[at].outbox;
        wire::connect(outbox, self.load.version, &plan.id, self.load.keep_alive_s);
        self.flush(at);
    }

    fn became_ready(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.stage = Stage::Ready;
        // Handshake buffers are not needed again by an idle client.
        client.outbox.shrink_to_fit();
        let took = now_ns().saturating_sub(client.opened_ns);
        self.report.connect.saturating_record(took);
        self.outstanding -= 1;
        self.ready += 1;
        if self.opened == self.plans.len() && self.outstanding == 0 {
            self.ping_start_ns = now_ns();
        }
    }

    fn fail(&mut self, at: usize, reason: &str) {
        match self.clients[at].stage {
            Stage::Gone | Stage::Planned => return,
            Stage::Ready => self.ready -= 1,
            Stage::Connecting | Stage::AwaitConnAck | Stage::AwaitSubAck => self.outstanding -= 1,
        }
        self.failed += 1;
        *self.report.failures.entry(reason.to_owned()).or_default() += 1;
        self.clients[at].drop_stream();
    }

    /// PINGREQ of all clients, spread evenly over three quarters of the keep alive.
    fn ping(&mut self, now: u64) {
        let count = u64::try_from(self.clients.len()).expect("a count fits");
        if self.load.keep_alive_s == 0 || !self.is_mqtt || self.outstanding > 0 || count == 0 {
            return;
        }
        let period_ns = u64::from(self.load.keep_alive_s) * 750_000_000;
        let elapsed_ns = u128::from(now.saturating_sub(self.ping_start_ns));
        let due = elapsed_ns * u128::from(count) / u128::from(period_ns);
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        while self.pings_due < due {
            let at = usize::try_from(self.pings_due % count).expect("an index fits");
            self.pings_due += 1;
            if self.clients[at].stage == Stage::Ready {
                self.clients[at].outbox.extend_from_slice(&wire::PING);
                self.report.pings.0 += 1;
                self.flush(at);
            }
        }
    }

    // ---- sending

    /// Sends what may be sent and returns how long there is nothing more to send.
    fn send(&mut self, now: u64) -> Duration {
        if self.publishers.is_empty() {
            return WAIT_MAX;
        }
        let paced = self.pace();
        if let Some(pace) = paced {
            while pace.due_ns(self.paced) <= now {
                let turn = usize::try_from(self.paced % pace.publishers).expect("an index fits");
                self.publishers[turn].due += 1;
                self.paced += 1;
                self.offered += 1;
                self.wake(turn);
            }
        } else if !self.is_local || self.sent == 0 {
            // Deliveries that other threads count wake nobody here.
            for index in 0..self.publishers.len() {
                self.wake(index);
            }
        }
        let mut awake = std::mem::take(&mut self.awake);
        for &index in &awake {
            self.fill(index, paced, now);
        }
        awake.clear();
        // Filling may have woken others only through a failure; those have nothing to send.
        self.awake = awake;
        match paced {
            _ if self.load.spin => Duration::ZERO,
            Some(pace) => {
                Duration::from_nanos(pace.due_ns(self.paced).saturating_sub(now_ns())).min(WAIT_MAX)
            }
            None if self.is_local => WAIT_MAX,
            None => Duration::from_micros(50),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^53")]
    fn pace(&self) -> Option<Pace> {
        let publishers = u64::try_from(self.publishers.len()).expect("a count fits");
        let all = u64::try_from(self.shared.arrived.len()).expect("a count fits");
        (self.load.rate > 0).then(|| Pace {
            start_ns: self.shared.start_ns.load(Relaxed),
            rate: self.load.rate as f64 * publishers as f64 / all as f64,
            publishers,
        })
    }

    fn wake(&mut self, index: usize) {
        if !self.publishers[index].is_awake {
            self.publishers[index].is_awake = true;
            self.awake.push(index);
        }
    }

    fn sleep_publishers(&mut self) {
        for &index in &self.awake {
            self.publishers[index].is_awake = false;
        }
        self.awake.clear();
    }

    fn fill(&mut self, index: usize, paced: Option<Pace>, now: u64) {
        let publisher = &mut self.publishers[index];
        publisher.is_awake = false;
        let at = publisher.client;
        if self.clients[at].stage != Stage::Ready {
            return;
        }
        let window = self.load.window;
        let turn = u64::try_from(index).expect("an index fits");
        let limit = match paced {
            Some(pace) => Limit::Paced { pace, turn, window },
            None => {
                let number = usize::try_from(publisher.number).expect("u32 fits");
                let arrived = self.shared.arrived[number].load(Relaxed) / self.fan;
                Limit::Flat { arrived, window, now_ns: now }
            }
        };
        let acknowledged = self.load.qos > 0 && self.is_mqtt;
        let count = publisher.fill(&mut self.clients[at].outbox, limit, acknowledged);
        self.sent += count;
        if paced.is_none() {
            self.offered += count;
        }
        if count > 0 {
            self.flush(at);
        }
    }

    fn flush(&mut self, at: usize) {
        if let Err(error) = self.clients[at].flush() {
            self.fail(at, &reason("send", &error));
        }
    }

    // ---- receiving

    fn handle(&mut self, event: Event, buffer: &mut [u8]) {
        let at = usize::try_from(event.token).expect("tokens are indices");
        if self.clients[at].stage == Stage::Connecting {
            if event.broken {
                let error = self.clients[at].connect_error();
                let error = error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
                self.fail(at, &reason("connect", &error));
            } else if event.writable {
                self.connected(at);
            }
        } else if event.writable && self.clients[at].outbox_len() > 0 {
            self.flush(at);
            if let Some(publisher) = self.clients[at].publisher {
                self.wake(publisher);
            }
        }
        if event.readable {
            self.receive(at, buffer);
        }
    }

    fn receive(&mut self, at: usize, buffer: &mut [u8]) {
        loop {
            let (len, may_have_more) = match self.clients[at].read(buffer) {
                Ok(None) => return,
                Ok(Some((0, _))) => {
                    let stage = self.clients[at].stage;
                    return self.fail(at, &format!("closed by the broker ({stage:?})"));
                }
                Ok(Some(read)) => read,
                Err(error) => return self.fail(at, &reason("receive", &error)),
            };
            if self.parse(at, &buffer[..len]).is_err() {
                return self.fail(at, "malformed packet from the broker");
            }
            self.flush(at);
            if !may_have_more {
                return;
            }
        }
    }

    fn parse(&mut self, at: usize, bytes: &[u8]) -> Result<(), Malformed> {
        let now = now_ns();
        let mut used = 0;
        while let Some(frame) = wire::frame(&bytes[used..])? {
            used += frame.len;
            match frame.first >> 4 {
                3 => self.on_publish(at, &frame, now)?,
                2 => self.on_connack(at, &frame),
                9 => self.on_suback(at, &frame),
                4 | 7 => self.on_acknowledged(at),
                5 => {
                    let id = wire::word(frame.body, 0)?;
                    wire::acknowledge(&mut self.clients[at].outbox, 0x62, id);
                }
                6 => {
                    let id = wire::word(frame.body, 0)?;
                    wire::acknowledge(&mut self.clients[at].outbox, 0x70, id);
                }
                13 => self.report.pings.1 += 1,
                14 => {
                    let code = frame.body.first().copied().unwrap_or(0);
                    self.fail(at, &format!("DISCONNECT 0x{code:02X} from the broker"));
                    return Ok(());
                }
                _ => return Err(Malformed),
            }
        }
        if self.clients[at].stage != Stage::Gone {
            self.clients[at].keep(&bytes[used..]);
        }
        Ok(())
    }

    fn on_connack(&mut self, at: usize, frame: &Frame<'_>) {
        match frame.body.get(1) {
            Some(0) => {}
            Some(code) => return self.fail(at, &format!("CONNACK 0x{code:02X}")),
            None => return self.fail(at, "malformed packet from the broker"),
        }
        match &self.plans[at].filter {
            Some(filter) => {
                self.clients[at].stage = Stage::AwaitSubAck;
                let outbox = &mut self.clients[at].outbox;
                wire::subscribe(outbox, self.load.version, 1, filter, self.load.qos);
            }
            None => self.became_ready(at),
        }
    }

    fn on_suback(&mut self, at: usize, frame: &Frame<'_>) {
        match frame.body.last() {
            Some(code) if *code <= 2 => self.became_ready(at),
            code => {
                let code = code.copied().unwrap_or(0xFF);
                self.fail(at, &format!("SUBACK 0x{code:02X}"));
            }
        }
    }

    fn on_acknowledged(&mut self, at: usize) {
        let Some(index) = self.clients[at].publisher else { return };
        let publisher = &mut self.publishers[index];
        publisher.unacknowledged = publisher.unacknowledged.saturating_sub(1);
        self.wake(index);
    }

    fn on_publish(&mut self, at: usize, frame: &Frame<'_>, now: u64) -> Result<(), Malformed> {
        let incoming = wire::publish(frame, self.load.version)?;
        let client = &mut self.clients[at];
        // Echoed bytes of the QoS 1 and 2 shapes are no packets that anybody waits for.
        if self.is_mqtt {
            match incoming.qos {
                0 => {}
                1 => wire::acknowledge(&mut client.outbox, 0x40, incoming.packet_id),
                _ => wire::acknowledge(&mut client.outbox, 0x50, incoming.packet_id),
            }
        }
        let stamp = Stamp::read(incoming.payload);
        let Some((stamp, next)) = stamp.and_then(|stamp| {
            let track = stamp.publisher.checked_sub(client.tracks.first)?;
            Some((stamp, client.tracks.next.get_mut(usize::try_from(track).ok()?)?))
        }) else {
            self.report.foreign += 1;
            return Ok(());
        };
        let ahead = stamp.sequence.wrapping_sub(*next);
        // What a gap skips is on its way no longer: a window that kept it would close for good.
        let mut settled = 0;
        if ahead == 0 {
            *next = next.wrapping_add(1);
            settled = 1;
        } else if ahead < u32::MAX / 2 {
            settled = 1 + u64::from(ahead);
            let first = *next;
            *next = stamp.sequence.wrapping_add(1);
            for gap in 0..ahead {
                if self.missing.len() >= MISSING_MAX {
                    break;
                }
                self.missing.insert((at, stamp.publisher, first.wrapping_add(gap)));
            }
        } else if self.missing.remove(&(at, stamp.publisher, stamp.sequence)) {
            self.report.reordered += 1;
        } else {
            self.report.duplicates += 1;
        }
        self.delivered += 1;
        let latency = now.saturating_sub(stamp.intended_ns);
        self.report.latency[self.slot].saturating_record(latency);
        if self.load.rate == 0 {
            let number = usize::try_from(stamp.publisher).expect("u32 fits");
            self.shared.arrived[number].fetch_add(settled, Relaxed);
            if self.is_local {
                self.wake(usize::try_from(stamp.publisher / self.threads).expect("u32 fits"));
            }
        }
        Ok(())
    }
}

fn reason(what: &str, error: &io::Error) -> String {
    // The text of an errno, without the number that Rust appends.
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("{what}: {text}")
}
