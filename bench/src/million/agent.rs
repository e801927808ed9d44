//! The clients of one thread: each connects, subscribes to its own topic, answers what it is asked, and is counted.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use hdrhistogram::Histogram;
use reactor::CloseMode;

use crate::engine::{Agent, CloseCause, Net, Route, Timer};
use crate::wire::{self, Frame, STAMP_LEN, Stamp, Template, Version};

/// Longest latency told apart, in nanoseconds.
const LATENCY_MAX_NS: u64 = 120_000_000_000;
/// Bytes of a payload: a stamp and a little more.
const PAYLOAD_LEN: usize = 64;
/// Most messages of one thread's publisher that are not acknowledged.
const UNACKNOWLEDGED_MAX: u64 = 100;
/// Time between two looks at a rate, in nanoseconds.
const PACE_NS: u64 = 1_000_000;
/// Time before a client that could not connect tries again.
const RETRY_NS: u64 = 200_000_000;

/// What all threads know of the run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where the clients connect to.
    pub target: SocketAddrV4,
    /// Where they come from, in turn; empty: as the kernel routes.
    pub sources: Vec<Ipv4Addr>,
    /// Their protocol.
    pub version: Version,
    /// Their keep alive in seconds.
    pub keep_alive_s: u16,
    /// Threads.
    pub threads: u32,
    /// Clients of one thread between their connect and their SUBACK.
    pub window: usize,
    /// Connects of one thread per second; 0: no limit.
    pub rate: u64,
}

impl Setup {
    /// The client id: 20 characters.
    fn client_id(number: u32) -> String {
        format!("million-{number:012}")
    }

    /// The filter, and the topic: 24 bytes.
    fn topic(number: u32) -> String {
        format!("million/{number:016}")
    }
}

/// What the threads count, together.
#[derive(Debug, Default)]
pub struct Tally {
    /// Clients that have their SUBACK now.
    pub ready: AtomicU64,
    /// Connections that ended though nobody wanted it.
    pub lost: AtomicU64,
    /// Connects, handshakes and subscriptions that failed; they are tried again.
    pub failed: AtomicU64,
    /// PINGREQ sent.
    pub pings: AtomicU64,
    /// PINGRESP received.
    pub pongs: AtomicU64,
    /// Messages published.
    pub published: AtomicU64,
    /// PUBACK received.
    pub acknowledged: AtomicU64,
    /// Messages that reached the client they were for, once.
    pub arrived: AtomicU64,
    /// Messages that came to a wrong client, or twice.
    pub stray: AtomicU64,
    /// Connections closed by a storm.
    pub stormed: AtomicU64,
    /// Clients that have not had an answer to every PINGREQ, as the last look found.
    pub silent: AtomicU64,
    /// Threads that have done the last order.
    pub done: AtomicU64,
    /// Failures and losses by reason.
    pub reasons: Mutex<BTreeMap<String, u64>>,
    /// From PUBLISH to its arrival, nanoseconds.
    pub latency: Mutex<Option<Histogram<u64>>>,
}

impl Tally {
    fn note(&self, reason: String) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        *reasons.entry(reason).or_default() += 1;
    }

    fn record(&self, latency_ns: u64) {
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = latency.get_or_insert_with(|| {
            Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("bounds are constant and valid")
        });
        histogram.saturating_record(latency_ns);
    }
}

/// What the leading thread wants.
#[derive(Clone, Debug)]
pub enum Order {
    /// Every client sends a PINGREQ, spread over so many nanoseconds.
    Ping(u64),
    /// Publishes to these clients, each thread its own part.
    Publish(Arc<[u32]>),
    /// Closes the connections of these clients at once, and opens them again.
    Storm(Arc<[u32]>),
    /// Counts the clients with fewer PINGRESP than this.
    CountSilent(u8),
    /// Closes all and ends.
    Stop,
}

/// Where a client is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
enum Stage {
    Away,
    Opening,
    AwaitConnAck,
    AwaitSubAck,
    Ready,
}

/// A client: two bytes.
#[derive(Clone, Copy, Debug)]
struct Client {
    stage: Stage,
    pongs: u8,
}

/// What a timer is for.
mod tag {
    pub(super) const CONNECT: u32 = 0;
    pub(super) const RETRY: u32 = 1;
    pub(super) const PING: u32 = 2;
}

/// The clients of one thread.
#[derive(Debug)]
pub struct Million {
    setup: Arc<Setup>,
    tally: Arc<Tally>,
    thread: u32,
    clients: Vec<Client>,
    /// Clients that were never opened begin here.
    next: u32,
    /// Clients to be opened again, before those.
    again: VecDeque<u32>,
    /// Clients between connect and SUBACK.
    handshakes: usize,
    began_ns: u64,
    /// Connects since then.
    opened: u64,
    /// The running round of pings: begin, length, next client.
    round: Option<(u64, u64, u32)>,
    /// What is still to be published, and the packets of it that are not acknowledged.
    to_publish: VecDeque<u32>,
    unacknowledged: u64,
    packet_id: u16,
    /// Messages heard, by client.
    heard: BTreeMap<u32, u64>,
}

impl Million {
    /// Of thread `thread`, with `count` clients.
    pub fn new(setup: Arc<Setup>, tally: Arc<Tally>, thread: u32, count: u32) -> Million {
        let clients = vec![Client { stage: Stage::Away, pongs: 0 }; at(count)];
        Million {
            setup,
            tally,
            thread,
            clients,
            next: 0,
            again: VecDeque::new(),
            handshakes: 0,
            began_ns: 0,
            opened: 0,
            round: None,
            to_publish: VecDeque::new(),
            unacknowledged: 0,
            packet_id: 0,
            heard: BTreeMap::new(),
        }
    }

    /// The number of a client among those of all threads.
    fn number(&self, client: u32) -> u32 {
        client * self.setup.threads + self.thread
    }

    /// The client of this thread with that number.
    fn mine(&self, number: u32) -> Option<u32> {
        (number % self.setup.threads == self.thread).then(|| number / self.setup.threads)
    }

    fn client(&mut self, client: u32) -> &mut Client {
        &mut self.clients[at(client)]
    }

    fn begin_connecting(&mut self, net: &mut Net) {
        (self.began_ns, self.opened) = (net.now_ns(), 0);
        self.connect(net);
        if self.setup.rate > 0 {
            net.at(net.now_ns() + PACE_NS, Timer { client: 0, tag: tag::CONNECT });
        }
    }

    /// Opens as many clients as the window and the rate allow.
    fn connect(&mut self, net: &mut Net) {
        let total = u32::try_from(self.clients.len()).expect("a count of clients");
        let allowed = match self.setup.rate {
            0 => u64::MAX,
            rate => 1 + (net.now_ns() - self.began_ns) / 1000 * rate / 1_000_000,
        };
        while self.handshakes < self.setup.window && self.opened < allowed {
            let client = match self.again.pop_front() {
                Some(client) => client,
                None if self.next < total => {
                    self.next += 1;
                    self.next - 1
                }
                None => return,
            };
            self.client(client).stage = Stage::Opening;
            self.handshakes += 1;
            self.opened += 1;
            net.open(client);
        }
    }

    /// A connect did not come to its SUBACK: it is tried again.
    fn try_again(&mut self, net: &mut Net, client: u32, reason: String) {
        self.tally.failed.fetch_add(1, Relaxed);
        self.tally.note(reason);
        self.client(client).stage = Stage::Away;
        self.handshakes -= 1;
        net.at(net.now_ns() + RETRY_NS, Timer { client, tag: tag::RETRY });
        self.connect(net);
    }

    fn became_ready(&mut self, net: &mut Net, client: u32) {
        self.client(client).stage = Stage::Ready;
        self.handshakes -= 1;
        self.tally.ready.fetch_add(1, Relaxed);
        self.connect(net);
    }

    /// Sends the PINGREQs whose time has come.
    fn ping(&mut self, net: &mut Net) {
        let Some((began_ns, length_ns, next)) = self.round else { return };
        let total = u64::try_from(self.clients.len()).expect("a count of clients");
        let elapsed_ns = u128::from(net.now_ns() - began_ns);
        let due = (elapsed_ns * u128::from(total) / u128::from(length_ns.max(1))).min(total.into());
        let due = u32::try_from(due).expect("at most all clients");
        for client in next..due {
            if self.client(client).stage == Stage::Ready
                && let Some(outbox) = net.outbox(client)
            {
                outbox.extend_from_slice(&wire::PING);
                self.tally.pings.fetch_add(1, Relaxed);
            }
        }
        if u64::from(due) < total {
            self.round = Some((began_ns, length_ns, due));
            net.at(net.now_ns() + PACE_NS, Timer { client: 0, tag: tag::PING });
        } else {
            self.round = None;
            self.tally.done.fetch_add(1, Relaxed);
        }
    }

    /// Publishes from the first client, as long as few messages are not acknowledged.
    fn publish(&mut self, net: &mut Net) {
        while self.unacknowledged < UNACKNOWLEDGED_MAX {
            let Some(target) = self.to_publish.pop_front() else { return };
            let topic = Setup::topic(target);
            let template = Template::new(self.setup.version, &topic, 1, PAYLOAD_LEN);
            self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
            let stamp =
                Stamp { publisher: self.thread, sequence: target, intended_ns: net.now_ns() };
            let Some(outbox) = net.outbox(0) else { return };
            template.append(outbox, self.packet_id, &stamp);
            self.unacknowledged += 1;
            self.tally.published.fetch_add(1, Relaxed);
        }
    }

    /// A message: for this client, and the first, or not.
    fn hear(&mut self, net: &mut Net, client: u32, frame: &Frame<'_>) {
        let number = self.number(client);
        let Ok(incoming) = wire::publish(frame, self.setup.version) else {
            return self.lose(net, client, "a malformed PUBLISH");
        };
        const { assert!(PAYLOAD_LEN >= STAMP_LEN) };
        let stamp = Stamp::read(incoming.payload).filter(|stamp| stamp.sequence == number);
        let count = self.heard.entry(client).or_default();
        *count += 1;
        match stamp {
            Some(stamp) if *count == 1 => {
                self.tally.arrived.fetch_add(1, Relaxed);
                self.tally.record(net.now_ns().saturating_sub(stamp.intended_ns));
            }
            _ => drop(self.tally.stray.fetch_add(1, Relaxed)),
        }
        if incoming.qos == 1
            && let Some(outbox) = net.outbox(client)
        {
            wire::acknowledge(outbox, 0x40, incoming.packet_id);
        }
    }

    /// A ready client lost its connection.
    fn lose(&mut self, net: &mut Net, client: u32, reason: &str) {
        net.close(client, CloseMode::Now);
        self.client(client).stage = Stage::Away;
        self.tally.ready.fetch_sub(1, Relaxed);
        self.tally.lost.fetch_add(1, Relaxed);
        self.tally.note(format!("lost: {reason}"));
    }

    /// Something that the stage does not allow, or a refusal.
    fn refuse(&mut self, net: &mut Net, client: u32, reason: String) {
        match self.client(client).stage {
            Stage::Ready => self.lose(net, client, &reason),
            Stage::Away => {}
            _ => {
                net.close(client, CloseMode::Now);
                self.try_again(net, client, reason);
            }
        }
    }

    fn storm(&mut self, net: &mut Net, numbers: &[u32]) {
        for number in numbers {
            let Some(client) = self.mine(*number) else { continue };
            if self.client(client).stage == Stage::Ready {
                net.close(client, CloseMode::Now);
                self.client(client).stage = Stage::Away;
                self.tally.ready.fetch_sub(1, Relaxed);
                self.tally.stormed.fetch_add(1, Relaxed);
                self.again.push_back(client);
            }
        }
        self.tally.done.fetch_add(1, Relaxed);
        self.begin_connecting(net);
    }
}

impl Agent for Million {
    type Command = Order;

    fn start(&mut self, net: &mut Net) {
        self.begin_connecting(net);
    }

    fn route(&mut self, client: u32) -> Route {
        let sources = &self.setup.sources;
        let from = (!sources.is_empty()).then(|| {
            let place = at(self.number(client)) % sources.len();
            SocketAddr::from((sources[place], 0))
        });
        Route { from, to: SocketAddr::V4(self.setup.target) }
    }

    fn opened(&mut self, net: &mut Net, client: u32) {
        self.client(client).stage = Stage::AwaitConnAck;
        let id = Setup::client_id(self.number(client));
        if let Some(outbox) = net.outbox(client) {
            wire::connect(outbox, self.setup.version, &id, self.setup.keep_alive_s);
        }
    }

    fn packet(&mut self, net: &mut Net, client: u32, frame: &Frame<'_>) {
        match (frame.first >> 4, self.client(client).stage) {
            (0xD, Stage::Ready) => {
                let pongs = &mut self.client(client).pongs;
                *pongs = pongs.saturating_add(1);
                self.tally.pongs.fetch_add(1, Relaxed);
            }
            (0x3, Stage::Ready) => self.hear(net, client, frame),
            (0x4, Stage::Ready) => {
                self.unacknowledged = self.unacknowledged.saturating_sub(1);
                self.tally.acknowledged.fetch_add(1, Relaxed);
                self.publish(net);
            }
            (0x2, Stage::AwaitConnAck) if frame.body.get(1) == Some(&0) => {
                self.client(client).stage = Stage::AwaitSubAck;
                let topic = Setup::topic(self.number(client));
                if let Some(outbox) = net.outbox(client) {
                    wire::subscribe(outbox, self.setup.version, 1, &topic, 1);
                }
            }
            (0x9, Stage::AwaitSubAck) if frame.body.last().is_some_and(|code| *code < 0x80) => {
                self.became_ready(net, client);
            }
            (kind @ (0x2 | 0x9 | 0xE), _) => {
                let code = match kind {
                    0x2 => frame.body.get(1),
                    0x9 => frame.body.last(),
                    _ => frame.body.first(),
                };
                let name = ["CONNACK", "SUBACK", "DISCONNECT"]
                    [usize::from(kind > 2) + usize::from(kind > 9)];
                let code = code.copied().unwrap_or(0);
                self.refuse(net, client, format!("{name} with 0x{code:02X}"));
            }
            (kind, stage) => {
                self.refuse(net, client, format!("packet type {kind} while {stage:?}"));
            }
        }
    }

    fn failed(&mut self, net: &mut Net, client: u32, errno: i32) {
        self.try_again(net, client, format!("connect: {}", errno_text(errno)));
    }

    fn closed(&mut self, net: &mut Net, client: u32, cause: CloseCause) {
        let reason = match cause {
            CloseCause::PeerClosed => "closed by the broker".to_owned(),
            CloseCause::Failed(errno) => errno_text(errno),
            CloseCause::Malformed => "a malformed packet".to_owned(),
            CloseCause::Layers(reason) => reason.to_owned(),
        };
        self.refuse(net, client, reason);
    }

    fn timer(&mut self, net: &mut Net, timer: Timer) {
        match timer.tag {
            tag::PING => self.ping(net),
            tag::RETRY => {
                self.again.push_back(timer.client);
                self.connect(net);
            }
            _ => {
                self.connect(net);
                let total = u32::try_from(self.clients.len()).expect("a count of clients");
                if self.next < total || !self.again.is_empty() || self.handshakes > 0 {
                    net.at(net.now_ns() + PACE_NS, Timer { client: 0, tag: tag::CONNECT });
                }
            }
        }
    }

    fn command(&mut self, net: &mut Net, order: Order) {
        match order {
            Order::Ping(length_ns) => {
                self.round = Some((net.now_ns(), length_ns, 0));
                self.ping(net);
            }
            Order::Publish(targets) => {
                let threads = at(self.setup.threads);
                self.to_publish =
                    targets.iter().copied().skip(at(self.thread)).step_by(threads).collect();
                self.publish(net);
                self.tally.done.fetch_add(1, Relaxed);
            }
            Order::Storm(numbers) => self.storm(net, &numbers),
            Order::CountSilent(least) => {
                let silent = self.clients.iter().filter(|client| client.pongs < least).count();
                self.tally.silent.fetch_add(u64::try_from(silent).unwrap_or(u64::MAX), Relaxed);
                self.tally.done.fetch_add(1, Relaxed);
            }
            Order::Stop => {
                let total = u32::try_from(self.clients.len()).expect("a count of clients");
                for client in 0..total {
                    if self.client(client).stage != Stage::Away {
                        self.client(client).stage = Stage::Away;
                        net.close(client, CloseMode::Now);
                    }
                }
                self.next = total;
                self.again.clear();
                net.stop(STOP_PATIENCE_NS);
            }
        }
    }
}

/// Longest wait for connections to be closed at the end.
const STOP_PATIENCE_NS: u64 = 30_000_000_000;

/// An errno as people know it.
fn errno_text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

/// A number as an index.
fn at(number: u32) -> usize {
    usize::try_from(number).expect("32 bits fit")
}
