//! The clients of the durable scenarios against a broker that answers what a test wants, without I/O.

use super::agent::{Clients, Command};
use super::layout::Layout;
use super::tally::Tally;
use crate::engine::Engine;
use crate::names::Names;
use crate::plan::{Load, Urgency};
use crate::wire::{self, STAMP_LEN, Version};
use reactor::Core;
use ring::Mesh;
use shard::{ConnectionId, Now, Outgoing};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const CONNACK_PRESENT: [u8; 4] = [0x20, 2, 1, 0];
const SUBACK: [u8; 5] = [0x90, 3, 0, 1, 1];

struct Bench {
    engine: Engine<Clients>,
    tally: Arc<Tally>,
    open: BTreeMap<u32, ConnectionId>,
    slots: u32,
}

fn layout(sessions: u32, publishers: u32, messages: u32) -> Layout {
    Layout {
        names: Names::new("t"),
        prefix: "t".to_owned(),
        sessions,
        publishers,
        topics: sessions,
        messages,
        per_group: 0,
        expiry_s: 60,
    }
}

impl Bench {
    fn new(layout: Layout, qos: u8, window: u64) -> Bench {
        let load = Load {
            target: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1),
            layers: None,
            urgency: Urgency::Ordinary,
            sources: Vec::new(),
            version: Version::V3_1_1,
            qos,
            rate: 0.0,
            payload_len: STAMP_LEN,
            window,
            connect_rate: 0,
            connect_window: 2,
            keep_alive_s: 0,
            cpus: vec![0],
            connect_timeout: Duration::from_secs(1),
            hold: Duration::ZERO,
        };
        let (tally, clients) = (Arc::new(Tally::default()), layout.clients());
        let agent = Clients::new(layout, Arc::new(load), Arc::clone(&tally));
        let endpoint = Mesh::build::<(), ()>(1, 2, 2).remove(0);
        let mut engine = Engine::new(agent, clients, endpoint);
        engine.begin_tick(Now::default());
        Bench { engine, tally, open: BTreeMap::new(), slots: 0 }
    }

    /// Opens what is wanted now and gives who it is.
    fn opened(&mut self) -> Vec<u32> {
        let wanted: Vec<u64> =
            std::iter::from_fn(|| self.engine.next_connect()).map(|it| it.token).collect();
        let mut clients = Vec::new();
        for token in wanted {
            let client = u32::try_from(token).expect("a client");
            self.open.insert(client, self.engine.connected(token, self.slots));
            self.slots += 1;
            clients.push(client);
        }
        clients
    }

    fn receive(&mut self, client: u32, bytes: &[u8]) {
        self.engine.received(self.open[&client], bytes);
    }

    /// What a client sends, packet by packet.
    fn sent(&mut self, client: u32) -> Vec<Vec<u8>> {
        let id = self.open[&client];
        let Some(Outgoing::Bytes(bytes)) = self.engine.take_outgoing(id) else { return Vec::new() };
        self.engine.sent(id, Outgoing::Bytes(Vec::new()), Ok(()));
        let mut rest = bytes.as_slice();
        let mut packets = Vec::new();
        while let Ok(Some(frame)) = wire::frame(rest) {
            packets.push(rest[..frame.len].to_vec());
            rest = &rest[frame.len..];
        }
        packets
    }

    fn count(&self, pick: fn(&Tally) -> &AtomicU64) -> u64 {
        pick(&self.tally).load(Relaxed)
    }

    /// The publishers, connected.
    fn publishers(&mut self) -> Vec<u32> {
        self.engine.command(Command::Connect);
        let clients = self.opened();
        for client in &clients {
            self.sent(*client);
            self.receive(*client, &CONNACK);
        }
        clients
    }
}

/// First bytes of packets.
fn firsts(packets: &[Vec<u8>]) -> Vec<u8> {
    packets.iter().map(|packet| packet[0]).collect()
}

#[test]
fn sessions_are_made_a_window_at_a_time_and_left() {
    let mut bench = Bench::new(layout(3, 1, 1), 1, 1);
    bench.engine.command(Command::Create);
    assert_eq!(bench.opened(), [0, 1], "the window");
    let connect = bench.sent(0);
    assert_eq!(connect[0][9], 0, "the session is to stay");
    bench.receive(0, &CONNACK);
    assert_eq!(firsts(&bench.sent(0)), [0x82]);
    bench.receive(0, &SUBACK);
    assert_eq!(firsts(&bench.sent(0)), [0xE0]);
    assert_eq!((bench.count(|t| &t.through), bench.opened()), (1, vec![2]));
    // Who is refused comes again later.
    bench.receive(1, &[0x20, 2, 0, 3]);
    assert_eq!(bench.tally.failures().into_keys().collect::<Vec<_>>(), ["CONNACK 0x03"]);
    std::thread::sleep(Duration::from_millis(220));
    bench.engine.begin_tick(Now::default());
    bench.engine.run_timers();
    assert_eq!(bench.opened(), [1]);
}

#[test]
fn publishers_keep_their_window_and_acknowledgements_are_timed() {
    for (qos, acknowledgement) in [(1, 0x40), (2, 0x70)] {
        let mut bench = Bench::new(layout(2, 1, 3), qos, 4);
        let publisher = bench.publishers()[0];
        bench.tally.slot.store(1, Relaxed);
        bench.engine.command(Command::Publish);
        assert_eq!(bench.sent(publisher).len(), 4, "the window");
        if qos == 2 {
            bench.receive(publisher, &[0x50, 2, 0, 1]);
            assert_eq!(bench.sent(publisher), [[0x62, 2, 0, 1]]);
            // One that is refused is over.
            bench.receive(publisher, &[0x50, 3, 0, 4, 0x97]);
            assert_eq!(bench.count(|t| &t.refused), 1);
            assert_eq!(bench.sent(publisher).len(), 1);
        }
        bench.receive(publisher, &[acknowledgement, 2, 0, 1]);
        bench.receive(publisher, &[acknowledgement, 2, 0, 3]);
        let (rest, rest_answered) = if qos == 2 { (1, 3) } else { (2, 2) };
        assert_eq!(bench.sent(publisher).len(), rest, "no more than there are");
        assert_eq!((bench.count(|t| &t.sent), bench.count(|t| &t.answered)), (6, rest_answered));
        bench.engine.command(Command::Stop);
        let counted = bench.tally.found().acknowledged[1].len();
        assert_eq!(counted, if qos == 2 { 3 } else { 2 });
    }
}

#[test]
fn who_comes_back_hears_each_message_once_and_what_is_wrong_is_counted() {
    let mut bench = Bench::new(layout(2, 1, 3), 1, 10);
    let publisher = bench.publishers()[0];
    bench.engine.command(Command::Publish);
    let messages = bench.sent(publisher);
    // Topics take turns: the messages of session 0 are the first, the third and the fifth.
    bench.engine.command(Command::Return(2));
    assert_eq!(bench.opened(), [0, 1]);
    bench.receive(0, &CONNACK_PRESENT);
    for place in [0, 0, 1, 4] {
        bench.receive(0, &messages[place]);
    }
    assert_eq!(bench.count(|t| &t.heard), 2);
    assert_eq!(bench.count(|t| &t.repeated), 1);
    assert_eq!(bench.count(|t| &t.foreign), 1);
    assert_eq!(bench.count(|t| &t.lost), 1, "one was skipped");
    assert_eq!(firsts(&bench.sent(0)), [0x10, 0x40, 0x40, 0x40, 0x40, 0xE0]);
    // A session that is not known any more has nothing to wait for.
    bench.receive(1, &CONNACK);
    assert_eq!((bench.count(|t| &t.sessions_missing), bench.count(|t| &t.through)), (1, 2));
}

#[test]
fn the_watcher_asks_again_when_all_that_match_are_there() {
    let retained = Layout { sessions: 0, topics: 4, per_group: 2, ..layout(4, 1, 1) };
    let mut bench = Bench::new(retained, 1, 10);
    let publisher = bench.publishers()[0];
    bench.engine.command(Command::Publish);
    let messages = bench.sent(publisher);
    assert_eq!(firsts(&messages), [0x33; 4], "retained");
    bench.engine.command(Command::Watch(2));
    let watcher = bench.opened()[0];
    bench.receive(watcher, &CONNACK);
    assert_eq!(firsts(&bench.sent(watcher)), [0x10, 0x82]);
    // It begins with the second of two first levels.
    for place in [2, 2, 0] {
        bench.receive(watcher, &messages[place]);
    }
    assert_eq!((bench.count(|t| &t.repeated), bench.count(|t| &t.foreign)), (1, 1));
    bench.receive(watcher, &messages[3]);
    assert_eq!(bench.sent(watcher).last().expect("the next filter")[0], 0x82);
    bench.receive(watcher, &messages[0]);
    bench.receive(watcher, &messages[1]);
    assert_eq!((bench.count(|t| &t.heard), bench.count(|t| &t.watched)), (4, 1));
}
