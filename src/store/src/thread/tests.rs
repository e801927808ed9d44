use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use mqtt::QoS;
use ring::ShardId;
use session::{Message, MessageId, Publication};
use shard::storage::{
    PutAs, SessionHead, StoreBatch, StoreHealth, StoreLoad, StoreOp, StoreReply, StoreRequest,
    StoredEntry, StoredPlace, StoredSession, StoredState,
};

use super::{ShardOutlet, Store, StoreSetup, StoreStage, StoreSync};

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
        shards: outlets,
        retained_on_disc_only: false,
        on_health: Box::new(|_: StoreHealth, _: &str| ()),
    };
    (setup, replies)
}

fn message(id: u128, topic: &str) -> Arc<Message> {
    let publication = Publication {
        topic,
        payload: b"payload",
        forwarded: &[],
        qos: QoS::AtLeastOnce,
        retain: false,
        sys: false,
        expires_unix_ms: None,
        origin: None,
    };
    Message::new(MessageId(id), &publication)
}

fn put_session(session: StoredSession, client_id: &str) -> StoreOp {
    let head = SessionHead {
        client_id: client_id.into(),
        created_unix_s: 1,
        expiry_interval_s: u32::MAX,
        offline_since_unix_ms: None,
        will: None,
    };
    StoreOp::PutSession { session, head: Box::new(head) }
}

fn put_entry(session: StoredSession, place: u64, message: Arc<Message>) -> StoreOp {
    let entry = StoredEntry {
        state: StoredState::Queued,
        message: Some(message),
        qos: QoS::AtLeastOnce,
        retain: false,
        priority: 0,
        subscription_ids: None,
    };
    StoreOp::PutEntry {
        session,
        place: StoredPlace::new(place, place & 1 == 1),
        put: PutAs::New,
        entry,
    }
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
                put_entry(session, 2, message(1, "own")),
                put_entry(session, 5, message(2, "shared")),
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
        assert!(rows[0].has_messages);
        assert_eq!(found(&replies[2]), 100);
        let batch = StoreBatch {
            sequence: 1,
            numbers_below: 100,
            loads: vec![StoreLoad::Session(session)],
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
