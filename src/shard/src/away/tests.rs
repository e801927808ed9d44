use crossbeam_channel::{Receiver, Sender};
use metrics::{DropKind, Gauge};
use session::Session;

use super::*;
use crate::desk::{Desk, connect};
use crate::storage::{PASSED_ON, StoreHealth, StoreOp, StoreReply, StoreRequest, StoredDelayed};
use crate::{Effect, StoreMode};

const PUBLISH_QOS1: [u8; 7] = [0x32, 5, 0, 1, b'a', 0, 1];
const PRESENT: [u8; 4] = [0x20, 2, 1, 0];

/// A shard, the store it talks to, and a publisher.
struct Table {
    desk: Desk,
    requests: Receiver<StoreRequest>,
    answers: Sender<StoreReply>,
    publisher: ConnectionId,
    /// What the store was asked for.
    ops: Vec<StoreOp>,
    loads: Vec<StoredSession>,
}

impl Table {
    fn new(set: &[(&str, &str)]) -> Table {
        let (mut desk, requests, answers) = Desk::stored(set, StoreMode::EveryMs(50));
        answers.send(StoreReply::Found { numbers_from: 9 }).unwrap();
        desk.tick(1, None);
        desk.tick(1, None);
        let publisher = desk.accept(0, "10.0.0.1:5");
        let (ops, loads) = Default::default();
        let mut table = Table { desk, requests, answers, publisher, ops, loads };
        table.tick(1, Some((publisher, &connect("p", 0))));
        table
    }

    /// A tick, and a store that commits at once.
    fn tick(&mut self, after_ms: u64, input: Option<(ConnectionId, &[u8])>) -> Vec<u8> {
        let sent = self.desk.tick(after_ms, input);
        for StoreRequest { batch, .. } in self.requests.try_iter() {
            self.ops.extend(batch.ops);
            self.loads.extend(batch.loads);
            self.answers.send(StoreReply::Committed { sequence: batch.sequence }).unwrap();
        }
        sent.into_iter()
            .filter(|(id, _)| *id != self.publisher)
            .flat_map(|(_, bytes)| bytes)
            .collect()
    }

    /// The CONNECT of a client that wants its session kept.
    fn connect(&mut self) -> (ConnectionId, Vec<u8>) {
        let client = self.desk.accept(0, "10.0.0.1:6");
        let mut bytes = connect("c", 0);
        bytes[9] = 0;
        let got = self.tick(1, Some((client, &bytes)));
        (client, got)
    }

    /// A client that subscribes to "a" and leaves.
    fn leave(&mut self) {
        let (client, _) = self.connect();
        self.tick(1, Some((client, &[0x82, 6, 0, 1, 0, 1, b'a', 1])));
        self.tick(1, Some((client, &[0xe0, 0])));
    }

    fn publish(&mut self, count: usize) {
        for _ in 0..count {
            self.tick(1, Some((self.publisher, &PUBLISH_QOS1)));
        }
    }

    fn session(&self) -> &Session {
        let sessions = &self.desk.shard.clients.sessions;
        sessions.session(sessions.find("c").expect("it is kept").0).expect("it is kept")
    }

    fn stored(&self) -> StoredSession {
        stored_session(self.session().stored)
    }

    fn gauge(&self, gauge: Gauge) -> u64 {
        self.desk.shard.metrics().count(gauge)
    }

    /// What the store has of the session, as it answers a load.
    fn load(&self) -> StoreReply {
        let session = self.stored();
        let mut entries = Vec::new();
        for op in &self.ops {
            if let StoreOp::PutEntry { place, entry, .. } = op {
                entries.push((*place, entry.clone()));
            }
        }
        StoreReply::Session { session, entries, received: Vec::new() }
    }
}

#[test]
fn messages_of_a_client_that_is_away_are_given_up_and_read_when_it_returns() {
    let mut table = Table::new(&[]);
    table.leave();
    table.publish(3);
    assert!(!table.session().is_unloaded());
    table.tick(1000, None);
    assert!(table.session().is_unloaded());
    // What comes now goes by its session.
    table.publish(1);
    table.tick(50, None);
    assert_eq!((table.session().mqueue_len(), table.gauge(Gauge::Queues)), (4, 1));
    let (_, got) = table.connect();
    assert!(got.is_empty() && table.loads == [table.stored()], "{got:?} {:?}", table.loads);
    let reply = table.load();
    table.answers.send(reply).unwrap();
    let got = table.tick(1, None);
    assert_eq!(got[..4], PRESENT);
    assert_eq!(got.len(), 4 + 4 * PUBLISH_QOS1.len());
    assert_eq!((table.session().inflight_len(), table.gauge(Gauge::Queues)), (4, 0));
    // It is there: nothing of it is given up.
    table.tick(5000, None);
    assert!(!table.session().is_unloaded());
}

#[test]
fn a_session_without_messages_needs_no_read() {
    let mut table = Table::new(&[("store.unload_after", "0ms")]);
    table.leave();
    table.tick(1, None);
    assert!(table.session().is_unloaded());
    let (_, got) = table.connect();
    assert_eq!((&got[..], table.loads.len()), (&PRESENT[..], 0));
}

#[test]
fn nothing_is_given_up_while_the_store_fails() {
    let mut table = Table::new(&[]);
    table.leave();
    table.publish(1);
    table.answers.send(StoreReply::Health(StoreHealth::Failing)).unwrap();
    table.tick(5000, None);
    assert!(!table.session().is_unloaded());
    table.answers.send(StoreReply::Health(StoreHealth::Good)).unwrap();
    table.tick(1, None);
    assert!(table.session().is_unloaded());
    assert_eq!(table.session().mqueue_len(), 1);
}

#[test]
fn who_is_back_and_gone_again_stays_for_as_long_as_others() {
    let mut table = Table::new(&[]);
    table.leave();
    table.publish(1);
    table.tick(900, None);
    let (client, _) = table.connect();
    table.tick(1, Some((client, &[0xe0, 0])));
    table.tick(500, None);
    assert!(!table.session().is_unloaded());
    table.tick(600, None);
    assert!(table.session().is_unloaded());
}

#[test]
fn a_read_for_a_client_that_is_gone_is_given_up_again() {
    let mut table = Table::new(&[]);
    table.leave();
    table.publish(2);
    table.tick(1000, None);
    let (client, _) = table.connect();
    table.desk.shard.receive_ended(client, crate::ReceiveEnd::PeerClosed);
    let reply = table.load();
    table.answers.send(reply).unwrap();
    table.tick(1, None);
    assert!(!table.session().is_unloaded());
    table.tick(1000, None);
    assert!(table.session().is_unloaded());
    assert_eq!(table.session().mqueue_len(), 2);
}

#[test]
fn a_queue_in_the_store_is_trimmed_once_and_what_it_lost_is_counted() {
    let mut table = Table::new(&[("mqtt.mqueue.max_length", "4"), ("store.unload_after", "0ms")]);
    table.leave();
    table.tick(1, None);
    let trims = |table: &Table| {
        table.ops.iter().filter(|op| matches!(op, StoreOp::Trim { keep: 4, .. })).count()
    };
    table.publish(4);
    table.tick(50, None);
    assert_eq!((trims(&table), table.gauge(Gauge::QueueAlarms)), (0, 1));
    table.publish(3);
    table.tick(50, None);
    assert_eq!(trims(&table), 1, "one is on its way");
    let session = table.stored();
    table.answers.send(StoreReply::Trimmed { session, lost: [0, 1, 0] }).unwrap();
    table.tick(1, None);
    let dropped = table.desk.shard.metrics().dropped(DropKind::Qos1, DropReason::QueueFull);
    assert_eq!((dropped, table.session().dropped, table.session().mqueue_len()), (1, 1, 6));
    // It is too long again, as more came meanwhile.
    table.tick(50, None);
    assert_eq!(trims(&table), 2);
    assert!(!table.desk.effects.iter().any(|effect| matches!(effect, Effect::Close { .. })));
}

#[test]
fn what_an_ended_session_gives_back_goes_to_another_member_and_is_then_forgotten() {
    let mut table = Table::new(&[]);
    let subscribe: &[u8] = &[0x82, 15, 0, 1, 0, 10, 36, 115, 104, 97, 114, 101, 47, 103, 47, 97, 1];
    assert_eq!(&subscribe[6..16], b"$share/g/a");
    let (client, _) = table.connect();
    table.tick(1, Some((client, subscribe)));
    table.tick(1, Some((client, &[0xe0, 0])));
    table.publish(2);
    table.tick(1000, None);
    assert!(table.session().is_unloaded());
    let gone = table.stored();
    let messages: Vec<_> = match table.load() {
        StoreReply::Session { entries, .. } => entries,
        other => panic!("{other:?}"),
    };
    let by_group = messages
        .into_iter()
        .map(|(place, entry)| StoredDelayed {
            slot: gone.slot,
            number: place.number(),
            due_unix_ms: PASSED_ON,
            message: entry.message.expect("it is new"),
        })
        .collect::<Vec<_>>();
    assert_eq!(by_group.len(), 2);
    let other = table.desk.accept(0, "10.0.0.1:7");
    table.tick(1, Some((other, &connect("d", 0))));
    table.tick(1, Some((other, subscribe)));
    // A clean session ends the one that was kept (MQTT-3.1.2-4).
    let clean = table.desk.accept(0, "10.0.0.1:6");
    table.tick(1, Some((clean, &connect("c", 0))));
    table.tick(50, None);
    let tells = |op: &StoreOp| matches!(op, StoreOp::RemoveSession { session, tell: true } if *session == gone);
    assert!(table.ops.iter().any(tells));
    let numbers: Vec<_> = by_group.iter().map(|given| given.number).collect();
    let reply =
        |by_group, is_last| StoreReply::Ended { session: gone, lost: [0; 3], by_group, is_last };
    table.answers.send(reply(by_group, false)).unwrap();
    table.answers.send(reply(Vec::new(), true)).unwrap();
    let got = table.tick(1, None);
    let publish = |id| [0x32, 5, 0, 1, b'a', 0, id];
    assert_eq!(got, [publish(1), publish(2)].concat());
    table.tick(50, None);
    let forgotten: Vec<_> = table
        .ops
        .iter()
        .filter_map(|op| match op {
            StoreOp::RemoveDelayed { slot, number } if *slot == gone.slot => Some(*number),
            _ => None,
        })
        .collect();
    assert_eq!(forgotten, numbers);
}
