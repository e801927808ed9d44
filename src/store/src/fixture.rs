//! What the tests of this crate build from.

use std::sync::Arc;

use mqtt::QoS;
use session::{Message, MessageId, Publication};
use shard::storage::{
    PutAs, SessionHead, StoreOp, StoredEntry, StoredPlace, StoredSession, StoredState,
};

/// Draws from a seed.
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

pub(crate) fn message(id: u128, topic: &str) -> Arc<Message> {
    let publication = Publication { qos: QoS::AtLeastOnce, ..Publication::new(topic, b"payload") };
    Message::new(MessageId(id), &publication)
}

pub(crate) fn put_session(session: StoredSession, client_id: &str) -> StoreOp {
    let head = SessionHead {
        client_id: client_id.into(),
        created_unix_s: 1,
        expiry_interval_s: u32::MAX,
        offline_since_unix_ms: None,
        will: None,
    };
    StoreOp::PutSession { session, head: Box::new(head) }
}

pub(crate) fn put_entry(
    session: StoredSession,
    place: StoredPlace,
    message: Arc<Message>,
) -> StoreOp {
    let entry = entry(message, QoS::AtLeastOnce);
    StoreOp::PutEntry { session, place, put: PutAs::New, entry }
}

pub(crate) fn entry(message: Arc<Message>, qos: QoS) -> StoredEntry {
    StoredEntry {
        state: StoredState::Queued,
        message: Some(message),
        qos,
        retain: false,
        priority: 0,
        subscription_ids: None,
        by_group: false,
    }
}

/// A place whose message is in its entry.
pub(crate) fn own(number: u64) -> StoredPlace {
    StoredPlace::new(number, false)
}

/// A place whose message is kept once for all.
pub(crate) fn shared(number: u64) -> StoredPlace {
    StoredPlace::new(number, true)
}
