use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use ring::ShardId;
use shard::storage::{
    StoreBatch, StoreHealth, StoreOp, StoreReply, StoreRequest, StoredCounts, StoredSession,
};

use crate::fixture::{message, own, put_entry, put_session, shared};

use super::{ShardOutlet, Store, StoreEvent, StoreSetup, StoreStage, StoreSync};
use crate::engine::{
    Change, Compaction, Engine, EngineError, EngineRead, EngineSizes, Keyspace, SimulatedEngine,
    SimulatedSnapshot, Visit,
};

const SECONDS: Duration = Duration::from_secs(20);

fn setup(folder: &Path, shards: usize, sync: StoreSync) -> (StoreSetup, Vec<Receiver<StoreReply>>) {
    let (outlets, replies) = (0..shards)
        .map(|_| {
            let (replies, received) = bounded(64);
            (ShardOutlet { replies, doorbell: Arc::new(|| ()) }, received)
        })
        .unzip();
    let setup = StoreSetup {
        folder: folder.to_owned(),
        sync,
        bans: Vec::new(),
        shards: outlets,
        retained_reads: None,
        on_event: Arc::new(|_: StoreEvent<'_>| ()),
    };
    (setup, replies)
}

fn until<T>(replies: &Receiver<StoreReply>, mut wanted: impl FnMut(StoreReply) -> Option<T>) -> T {
    let deadline = Instant::now() + SECONDS;
    loop {
        let reply = replies.recv_deadline(deadline).expect("the reply comes");
        if let Some(found) = wanted(reply) {
            return found;
        }
    }
}

fn found(replies: &Receiver<StoreReply>) -> u64 {
    until(replies, |reply| match reply {
        StoreReply::Found { numbers_from } => Some(numbers_from),
        _ => None,
    })
}

fn committed(replies: &Receiver<StoreReply>, wanted: u64) {
    until(replies, |reply| match reply {
        StoreReply::Committed { sequence } if sequence == wanted => Some(()),
        _ => None,
    });
}

#[test]
fn what_is_committed_is_there_after_a_restart_with_other_shards() {
    for sync in [StoreSync::Always, StoreSync::Every(Duration::from_millis(50)), StoreSync::Never] {
        let folder = tempfile::tempdir().expect("a folder");
        let session = StoredSession { slot: 5, number: 7 };
        let (setup_one, replies) = setup(folder.path(), 1, sync);
        let store = Store::open(setup_one).expect("it starts");
        assert_eq!(found(&replies[0]), 0);
        let batch = StoreBatch {
            sequence: 1,
            numbers_below: 100,
            ops: vec![
                put_session(session, "client"),
                put_entry(session, own(1), message(1, "own")),
                put_entry(session, shared(2), message(2, "shared")),
            ],
            ..StoreBatch::default()
        };
        let request = StoreRequest { shard: ShardId::new(0), batch };
        store.requests().send(request).expect("it runs");
        committed(&replies[0], 1);
        store.close().expect("it closes");

        let (setup_three, replies) = setup(folder.path(), 3, sync);
        let store = Store::open(setup_three).expect("it starts");
        let rows = until(&replies[2], |reply| match reply {
            StoreReply::Sessions(rows) => Some(rows),
            _ => None,
        });
        assert_eq!(rows.len(), 1);
        assert_eq!(&*rows[0].head.client_id, "client");
        assert_eq!(found(&replies[2]), 100);
        let counts = until(&replies[2], |reply| match reply {
            StoreReply::Counts { rows, .. } => Some(rows),
            _ => None,
        });
        assert_eq!(counts, [(session, StoredCounts { queued: 2, ..StoredCounts::default() })]);
        let batch = StoreBatch {
            sequence: 1,
            numbers_below: 100,
            loads: vec![session],
            ..StoreBatch::default()
        };
        let request = StoreRequest { shard: ShardId::new(2), batch };
        store.requests().send(request).expect("it runs");
        let entries = until(&replies[2], |reply| match reply {
            StoreReply::Session { entries, .. } => Some(entries),
            _ => None,
        });
        let topics: Vec<&str> = entries
            .iter()
            .map(|(_, entry)| entry.message.as_ref().expect("it is queued").topic())
            .collect();
        assert_eq!(topics, ["own", "shared"]);
        let stage = store.wait_for(StoreStage::Ready, SECONDS).expect("it runs");
        assert_eq!(stage, StoreStage::Ready);
        store.close().expect("it closes");
    }
}

/// A simulated disk that the test can reach while the store works on it.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<SimulatedEngine>>);

impl Disk {
    fn with<T>(&self, act: impl FnOnce(&mut SimulatedEngine) -> T) -> T {
        act(&mut self.0.lock().expect("no panic"))
    }
}

impl EngineRead for Disk {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.with(|engine| engine.get(keyspace, key))
    }

    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        below: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        self.with(|engine| engine.scan(keyspace, from, below, visit))
    }
}

impl Engine for Disk {
    type Snapshot = SimulatedSnapshot;

    fn write(&mut self, changes: Vec<Change>) -> Result<(), EngineError> {
        self.with(|engine| engine.write(changes))
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        self.with(SimulatedEngine::sync)
    }

    fn snapshot(&self) -> SimulatedSnapshot {
        self.with(|engine| engine.snapshot())
    }

    fn reopen(&mut self) -> Result<(), EngineError> {
        self.with(SimulatedEngine::reopen)
    }

    fn compaction(&self, keyspace: Keyspace) -> Compaction {
        self.with(|engine| engine.compaction(keyspace))
    }

    fn sizes(&self) -> EngineSizes {
        self.with(|engine| engine.sizes())
    }
}

fn open_on(disk: &Disk, shards: usize, sync: StoreSync) -> (Store, Vec<Receiver<StoreReply>>) {
    let (setup, replies) = setup(Path::new("nowhere"), shards, sync);
    let engine = disk.clone();
    let store = Store::open_on(setup, move || Ok(engine)).expect("it starts");
    replies.iter().for_each(|replies| {
        found(replies);
    });
    (store, replies)
}

fn send(store: &Store, shard: usize, sequence: u64, ops: Vec<StoreOp>) {
    let batch = StoreBatch { sequence, numbers_below: 1, ops, ..StoreBatch::default() };
    let request = StoreRequest { shard: ShardId::new(shard), batch };
    store.requests().send(request).expect("it runs");
}

fn session(number: u64) -> StoredSession {
    StoredSession { slot: 0, number }
}

#[test]
fn a_failed_sync_is_told_and_made_good_and_nothing_is_done_twice() {
    let disk = Disk::default();
    let (store, replies) = open_on(&disk, 2, StoreSync::Always);
    disk.with(SimulatedEngine::fail_next_sync);
    let place = shared(1);
    let ops = vec![put_session(session(1), "a"), put_entry(session(1), place, message(9, "b"))];
    send(&store, 0, 1, ops);
    for replies in &replies {
        for wanted in [StoreHealth::Failing, StoreHealth::Good] {
            until(replies, |reply| match reply {
                StoreReply::Committed { .. } => panic!("not before it is well"),
                StoreReply::Health(health) => (health == wanted).then_some(()),
                _ => None,
            });
        }
    }
    committed(&replies[0], 1);
    // Had it been counted twice, one use would be left.
    send(&store, 0, 2, vec![StoreOp::RemoveEntry { session: session(1), place }]);
    committed(&replies[0], 2);
    let info = store.info();
    assert_eq!(info.health, StoreHealth::Good);
    assert!(info.last_error.expect("it failed once").contains("simulated fault"));
    store.close().expect("it closes");
    assert_eq!(disk.with(|engine| engine.len(Keyspace::Counts)), 0);
}

#[test]
fn a_shard_that_does_not_read_holds_up_no_other() {
    let disk = Disk::default();
    let (store, replies) = open_on(&disk, 2, StoreSync::Always);
    // Far more answers than its channel has room for.
    for sequence in 1..=200 {
        let ops = vec![StoreOp::Trim { session: session(1), keep: 1 }; 2];
        send(&store, 0, sequence, ops);
        send(&store, 1, sequence, vec![put_session(session(sequence), "b")]);
        committed(&replies[1], sequence);
    }
    let mut trimmed = 0;
    until(&replies[0], |reply| match reply {
        StoreReply::Trimmed { .. } => {
            trimmed += 1;
            None
        }
        StoreReply::Committed { sequence } => (sequence == 200).then_some(()),
        StoreReply::Counts { .. } => None,
        other => panic!("{other:?}"),
    });
    assert_eq!(trimmed, 400);
    store.close().expect("it closes");
}

#[test]
fn batches_of_all_shards_share_writes_and_syncs() {
    let disk = Disk::default();
    let (store, replies) = open_on(&disk, 4, StoreSync::Always);
    let (_, syncs_before) = disk.with(|engine| engine.counts());
    // The store waits at the disk meanwhile.
    disk.with(|engine| {
        for shard in 0..4 {
            send(&store, shard, 1, vec![put_session(session(shard as u64), "a")]);
            send(&store, shard, 2, vec![put_session(session(10 + shard as u64), "b")]);
        }
        engine.set_full(false);
    });
    for replies in &replies {
        committed(replies, 2);
    }
    let (_, syncs) = disk.with(|engine| engine.counts());
    assert!(syncs - syncs_before <= 3, "{} syncs for 8 batches", syncs - syncs_before);
    let info = store.info();
    assert_eq!((info.batches, info.sync_latency.count), (8, info.commits));
    store.close().expect("it closes");
}

#[test]
fn with_an_interval_syncs_come_by_the_clock() {
    let disk = Disk::default();
    let interval = Duration::from_millis(200);
    let (store, replies) = open_on(&disk, 1, StoreSync::Every(interval));
    let start = Instant::now();
    let (_, syncs_before) = disk.with(|engine| engine.counts());
    for sequence in 1..=20 {
        send(&store, 0, sequence, vec![put_session(session(sequence), "a")]);
        committed(&replies[0], sequence);
    }
    let (_, syncs) = disk.with(|engine| engine.counts());
    let most = start.elapsed().as_millis() / interval.as_millis() + 1;
    assert!(u128::from(syncs - syncs_before) <= most, "{syncs} - {syncs_before} <= {most}");
    // And when nothing more comes, the last are synced, too.
    let deadline = Instant::now() + SECONDS;
    while disk.with(|engine| engine.unsynced()) > 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    store.close().expect("it closes");
}

#[test]
fn a_store_that_cannot_be_opened_says_why_and_takes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup_first, replies) = setup(folder.path(), 1, StoreSync::Never);
    let first = Store::open(setup_first).expect("it starts");
    found(&replies[0]);
    let (setup_second, _replies) = setup(folder.path(), 1, StoreSync::Never);
    let second = Store::open(setup_second).expect("it starts");
    let error = second.wait_for(StoreStage::Loading, SECONDS).expect_err("it is in use");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    second.close().expect("there is nothing to do");
    first.close().expect("it closes");
}

#[test]
fn a_damaged_table_is_said_at_the_start_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup_first, replies) = setup(folder.path(), 1, StoreSync::Always);
    let store = Store::open(setup_first).expect("it starts");
    found(&replies[0]);
    let ops = (0..500).map(|n| put_session(session(n), &format!("client-{n}"))).collect();
    send(&store, 0, 1, ops);
    committed(&replies[0], 1);
    store.close().expect("it closes");
    let engine = crate::engine::FjallEngine::open_folder(folder.path()).expect("it opens");
    engine.compaction(Keyspace::Sessions)().expect("it writes");
    let deadline = Instant::now() + SECONDS;
    while engine.sizes().keyspaces[Keyspace::Sessions.index()] == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(engine);
    let table = largest_table(&folder.path().join("data/keyspaces"));
    let mut bytes = std::fs::read(&table).expect("it reads");
    bytes[1_000] ^= 1;
    std::fs::write(&table, bytes).expect("it writes");
    let (setup_second, _replies) = setup(folder.path(), 1, StoreSync::Always);
    let store = Store::open(setup_second).expect("it starts");
    let error = store.wait_for(StoreStage::Ready, SECONDS).expect_err("it is damaged");
    let text = error.to_string();
    assert!(text.contains(&format!("{} has changed", table.display())), "{text}");
    assert!(text.contains("put back a backup"), "{text}");
    store.close().expect("there is nothing to do");
}

fn largest_table(folder: &Path) -> std::path::PathBuf {
    let keyspaces = std::fs::read_dir(folder).expect("it is there");
    keyspaces
        .filter_map(|keyspace| std::fs::read_dir(keyspace.ok()?.path().join("tables")).ok())
        .flatten()
        .map(|table| table.expect("it is there").path())
        .max_by_key(|table| std::fs::metadata(table).expect("it is there").len())
        .expect("there is one")
}
