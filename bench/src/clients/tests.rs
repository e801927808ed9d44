//! The clients of one thread against a broker that answers what a test wants, without I/O.

use super::*;
use crate::engine::Engine;
use crate::plan::{Plan, Urgency};
use crate::wire::{STAMP_LEN, Version};
use reactor::Core;
use ring::Mesh;
use shard::{ConnectionId, Effect, Now, Outgoing, ReceiveEnd};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const SUBACK: [u8; 5] = [0x90, 3, 0, 1, 0];

struct Bench {
    engine: Engine<Clients>,
    shared: Arc<Shared>,
    /// Connections that were opened and not closed, by client.
    open: BTreeMap<u32, ConnectionId>,
    slots: u32,
}

fn load(rate: f64) -> Load {
    Load {
        target: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1),
        layers: None,
        urgency: Urgency::Ordinary,
        sources: Vec::new(),
        version: Version::V3_1_1,
        qos: 0,
        rate,
        payload_len: STAMP_LEN,
        window: 8,
        connect_rate: 0,
        connect_window: 64,
        keep_alive_s: 0,
        cpus: vec![0],
        connect_timeout: Duration::from_secs(1),
        hold: Duration::ZERO,
    }
}

fn pairs(count: u32) -> Plan {
    let counts = Counts { hearing: count, idle: 0, publishers: count };
    Plan::new(Shape::Pairs, counts, "t", 1)
}

impl Bench {
    fn new(plan: Plan, load: Load) -> Bench {
        let shared = Arc::new(Shared::new(&plan, load.rate == 0.0));
        let clients = plan.counts.clients();
        let agent = Clients::new(Arc::new(plan), Arc::new(load), Arc::clone(&shared), 0);
        let endpoint = Mesh::build::<(), ()>(1, 2, 2).remove(0);
        let mut engine = Engine::new(agent, clients, endpoint);
        engine.begin_tick(Now::default());
        Bench { engine, shared, open: BTreeMap::new(), slots: 0 }
    }

    fn command(&mut self, command: Command) {
        self.engine.begin_tick(Now::default());
        self.engine.command(command);
    }

    /// Takes the connections that are wanted now, without opening them.
    fn wanted(&mut self) -> Vec<u32> {
        let next = || self.engine.next_connect();
        std::iter::from_fn(next).map(|c| u32::try_from(c.token).expect("a client")).collect()
    }

    /// Opens one that was wanted.
    fn opened(&mut self, client: u32) {
        let id = self.engine.connected(u64::from(client), self.slots);
        self.slots += 1;
        self.open.insert(client, id);
    }

    fn receive(&mut self, client: u32, bytes: &[u8]) {
        self.engine.begin_tick(Now::default());
        self.engine.received(self.open[&client], bytes);
        self.engine.run_timers();
    }

    /// What a client sends at the end of a tick.
    fn sent(&mut self, client: u32) -> Vec<u8> {
        let mut effects = Vec::new();
        self.engine.drain_effects(&mut effects);
        let id = self.open[&client];
        let Some(outgoing) = self.engine.take_outgoing(id) else { return Vec::new() };
        let Outgoing::Bytes(bytes) = outgoing else { panic!("bytes") };
        self.engine.sent(id, Outgoing::Bytes(Vec::new()), Ok(()));
        bytes
    }

    /// The clients whose connections are to be closed.
    fn closed(&mut self) -> Vec<u32> {
        let mut effects = Vec::new();
        self.engine.drain_effects(&mut effects);
        let closed = effects.iter().filter_map(|effect| match effect {
            Effect::Close { id, .. } => self.open.iter().find(|(_, open)| *open == id),
            _ => None,
        });
        closed.map(|(client, _)| *client).collect()
    }

    /// Opens all that are wanted and answers CONNECT and SUBSCRIBE.
    fn admit(&mut self) {
        loop {
            let wanted = self.wanted();
            if wanted.is_empty() {
                return;
            }
            for client in wanted {
                self.opened(client);
                self.receive(client, &CONNACK);
                if self.sent(client).contains(&0x82) {
                    self.receive(client, &SUBACK);
                }
            }
        }
    }

    fn sum(&self, pick: impl Fn(&Counters) -> &std::sync::atomic::AtomicU64) -> u64 {
        self.shared.sum(pick)
    }

    fn report(&mut self) -> Report {
        self.command(Command::Stop);
        self.shared.report()
    }
}

/// As many packets as there are, by their first byte.
fn packets(mut bytes: &[u8]) -> Vec<u8> {
    let mut firsts = Vec::new();
    while let Ok(Some(frame)) = wire::frame(bytes) {
        firsts.push(frame.first);
        bytes = &bytes[frame.len..];
    }
    assert!(bytes.is_empty(), "whole packets");
    firsts
}

#[test]
fn a_pair_sends_within_its_window_and_hears_each_message_once() {
    let mut bench = Bench::new(pairs(1), load(0.0));
    bench.command(Command::Connect);
    bench.admit();
    assert_eq!(bench.sum(|c| &c.ready), 2);
    bench.command(Command::Send(0));
    bench.engine.run_timers();
    let messages = bench.sent(1);
    assert_eq!(packets(&messages), [0x30; 8]);
    // All but the last arrive; three make more than a quarter of the window.
    let len = messages.len() / 8;
    bench.receive(0, &messages[..3 * len]);
    assert_eq!(packets(&bench.sent(1)), [0x30; 3]);
    bench.receive(0, &messages[3 * len..7 * len]);
    bench.receive(0, &messages[..len]);
    assert_eq!((bench.sum(|c| &c.sent), bench.sum(|c| &c.delivered)), (15, 8));
    let report = bench.report();
    assert_eq!((report.duplicates, report.reordered, report.foreign), (1, 0, 0));
    assert_eq!(report.latency[0].len(), 8);
}

#[test]
fn nothing_is_sent_after_the_end() {
    let mut bench = Bench::new(pairs(1), load(0.0));
    bench.command(Command::Connect);
    bench.admit();
    bench.command(Command::Send(0));
    bench.engine.run_timers();
    let messages = bench.sent(1);
    bench.command(Command::Drain);
    bench.receive(0, &messages);
    assert!(bench.sent(1).is_empty());
    assert_eq!((bench.sum(|c| &c.sent), bench.sum(|c| &c.delivered)), (8, 8));
}

#[test]
fn qos_2_is_acknowledged_to_the_end_before_more_is_sent() {
    let paced = Load { qos: 2, window: 1, ..load(1e6) };
    let mut bench = Bench::new(pairs(1), paced);
    bench.command(Command::Connect);
    bench.admit();
    bench.command(Command::Send(sys::monotonic_ns() - 10_000));
    let message = bench.sent(1);
    assert_eq!(packets(&message), [0x34], "one may be unacknowledged");
    bench.receive(1, &[0x50, 2, 0, 1]);
    assert_eq!(bench.sent(1), [0x62, 2, 0, 1]);
    bench.receive(1, &[0x70, 2, 0, 1]);
    assert_eq!(packets(&bench.sent(1)), [0x34]);
    bench.receive(0, &message);
    assert_eq!(bench.sent(0), [0x50, 2, 0, 1]);
    bench.receive(0, &[0x62, 2, 0, 1]);
    assert_eq!(bench.sent(0), [0x70, 2, 0, 1]);
}

#[test]
fn a_failing_client_is_counted_once_and_gives_its_place_to_the_next() {
    let mut bench = Bench::new(pairs(3), Load { connect_window: 2, ..load(1.0) });
    bench.command(Command::Connect);
    assert_eq!(bench.wanted(), [0, 1], "the window");
    bench.engine.connect_failed(0, libc::ECONNREFUSED);
    assert_eq!(bench.wanted(), [2]);
    bench.opened(1);
    bench.receive(1, &[0x20, 2, 0, 5]);
    assert_eq!(bench.closed(), [1]);
    assert_eq!(bench.wanted(), [3]);
    bench.opened(2);
    bench.receive(2, &CONNACK);
    bench.engine.receive_ended(bench.open[&2], ReceiveEnd::PeerClosed);
    bench.engine.receive_ended(bench.open[&2], ReceiveEnd::PeerClosed);
    assert_eq!((bench.sum(|c| &c.ready), bench.sum(|c| &c.failed)), (0, 3));
    let failures: Vec<(Failure, u64)> = bench.shared.failures().into_iter().collect();
    let refused = Failure::Connect(libc::ECONNREFUSED);
    let closed = Failure::Closed(Stage::AwaitSubAck);
    assert_eq!(failures, [(refused, 1), (closed, 1), (Failure::ConnAck(5), 1)]);
}

#[test]
fn a_refused_subscription_of_many_filters_is_seen() {
    let counts = Counts { hearing: 1, idle: 0, publishers: 3 };
    let mut bench = Bench::new(Plan::new(Shape::Fanout, counts, "t", 1), load(1.0));
    bench.command(Command::Connect);
    let client = bench.wanted()[0];
    bench.opened(client);
    bench.receive(client, &CONNACK);
    bench.receive(client, &[0x90, 5, 0, 1, 0, 0x80, 0]);
    assert_eq!(bench.shared.failures().into_keys().next(), Some(Failure::SubAck(0x80)));
}

#[test]
fn a_storm_loses_all_and_brings_all_back() {
    let counts = Counts { publishers: 4, ..Counts::default() };
    let mut bench = Bench::new(Plan::new(Shape::Own, counts, "t", 1), load(1.0));
    bench.command(Command::Connect);
    bench.admit();
    assert_eq!(bench.sum(|c| &c.ready), 4);
    bench.command(Command::Storm);
    assert_eq!(bench.closed(), [0, 1, 2, 3]);
    assert_eq!((bench.sum(|c| &c.ready), bench.sum(|c| &c.lost)), (0, 4));
    let wanted = bench.wanted();
    assert_eq!(wanted, [0, 1, 2, 3]);
    // Who fails now is tried again after a while, and is not given up.
    bench.engine.connect_failed(2, libc::ECONNRESET);
    assert_eq!(bench.sum(|c| &c.failed), 0);
    for client in [0, 1, 3] {
        bench.opened(client);
        bench.receive(client, &CONNACK);
        bench.receive(client, &SUBACK);
    }
    assert_eq!(bench.sum(|c| &c.ready), 3);
    std::thread::sleep(Duration::from_millis(520));
    bench.engine.begin_tick(Now::default());
    bench.engine.run_timers();
    assert_eq!(bench.wanted(), [2]);
    let report = bench.report();
    assert_eq!((report.connect[0].len(), report.connect[1].len()), (4, 3));
}

#[test]
fn churning_clients_leave_and_the_next_has_another_name() {
    let counts = Counts { idle: 1, ..Counts::default() };
    let mut bench = Bench::new(Plan::new(Shape::Churn, counts, "t", 1), load(0.0));
    bench.command(Command::Connect);
    assert!(bench.wanted().is_empty(), "nobody before it begins");
    bench.command(Command::Send(0));
    let mut names = Vec::new();
    for _ in 0..3 {
        assert_eq!(bench.wanted(), [0]);
        bench.opened(0);
        names.push(String::from_utf8_lossy(&bench.sent(0)[14..]).into_owned());
        bench.receive(0, &CONNACK);
        assert_eq!(packets(&bench.sent(0)), [0x82]);
        bench.receive(0, &SUBACK);
        // The connection is closed after the DISCONNECT was taken from it.
        let id = bench.open[&0];
        let Some(Outgoing::Bytes(bytes)) = bench.engine.take_outgoing(id) else { panic!("bytes") };
        assert_eq!(bytes, wire::DISCONNECT);
    }
    assert_eq!(names, [0, 1, 2].map(|n| format!("ti{n:018}")));
    assert_eq!(bench.sum(|c| &c.churn[churn::THROUGH]), 3);
    bench.command(Command::Drain);
    bench.wanted();
    bench.engine.connect_failed(0, libc::ECONNREFUSED);
    assert!(bench.wanted().is_empty(), "nobody begins any more");
    assert_eq!(bench.sum(|c| &c.churn[churn::FAILED]), 1);
}

#[test]
fn subscribers_that_share_hear_each_message_once_together() {
    let counts = Counts { hearing: 2, idle: 0, publishers: 1 };
    let mut bench = Bench::new(Plan::new(Shape::Shared, counts, "t", 1), load(0.0));
    bench.command(Command::Connect);
    bench.admit();
    bench.command(Command::Send(0));
    bench.engine.run_timers();
    let messages = bench.sent(2);
    let len = messages.len() / 8;
    for number in 0..8 {
        let client = u32::from(number % 3 == 0);
        bench.receive(client, &messages[number * len..][..len]);
    }
    bench.receive(0, &messages[..len]);
    let report = bench.report();
    assert_eq!((report.duplicates, report.reordered, report.foreign), (1, 0, 0));
}

#[test]
fn an_idle_client_keeps_16_bytes() {
    assert_eq!(size_of::<Client>(), 16);
    assert!(size_of::<publisher::Publisher>() <= 24);
}
