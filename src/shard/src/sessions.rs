//! The sessions of a shard and the look-up by client id.

use hashbrown::HashTable;
use router::SessionId;
use session::{NEVER_EXPIRES_S, Session};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::chunked::Chunked;

/// No connection.
pub(crate) const NO_CONNECTION: u32 = u32::MAX;

/// A slot of the table.
#[derive(Debug, Default)]
pub(crate) struct SessionSlot {
    pub session: Option<Session>,
    /// The connection of its client, or [`NO_CONNECTION`].
    pub connection: u32,
    /// Tells apart the sessions that use a slot one after the other.
    pub generation: u32,
    /// Counted as a session that outlives its connection.
    pub counted_persistent: bool,
    /// Counted as a session with messages that wait.
    pub counted_queue: bool,
    /// Counted among the queues above the watermark.
    pub counted_alarm: bool,
    /// It waits to be unloaded.
    pub is_leaving: bool,
    /// When the connection ended, on the monotonic clock; before 0 if that was before the machine started. Of no meaning while
    /// there is one.
    offline_since_ms: i64,
}

impl SessionSlot {
    /// The connection ended `ago_ms` before now.
    pub fn went_offline(&mut self, now_ms: u64, ago_ms: u64) {
        self.offline_since_ms = now_ms.cast_signed().saturating_sub_unsigned(ago_ms);
    }

    /// How long ago the connection ended.
    pub fn offline_ms(&self, now_ms: u64) -> u64 {
        u64::try_from(now_ms.cast_signed().saturating_sub(self.offline_since_ms)).unwrap_or(0)
    }

    /// Whether its client has been away for longer than it stays (MQTT-3.1.2-23).
    pub fn is_expired(&self, now_ms: u64) -> bool {
        let expiry_s = self.session.as_ref().map_or(NEVER_EXPIRES_S, |s| s.expiry_interval_s);
        self.connection == NO_CONNECTION
            && expiry_s != NEVER_EXPIRES_S
            && self.offline_ms(now_ms) >= u64::from(expiry_s) * 1000
    }
}

/// The sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    slots: Chunked<SessionSlot>,
    by_client_id: HashTable<u32>,
    free: Vec<u32>,
    next: u32,
    seed: u64,
}

impl Sessions {
    /// `seed` keys the hash, so that clients cannot choose ids that collide.
    pub fn new(seed: u64) -> Self {
        Self {
            slots: Chunked::default(),
            by_client_id: HashTable::new(),
            free: Vec::new(),
            next: 0,
            seed,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_client_id.len()
    }

    /// Slots that were ever used; every index in use is below it.
    pub fn slots(&self) -> u32 {
        self.next
    }

    fn hash(&self, client_id: &str) -> u64 {
        xxh3_64_with_seed(client_id.as_bytes(), self.seed)
    }

    /// The session of a client.
    pub fn find(&self, client_id: &str) -> Option<SessionId> {
        let found = self.by_client_id.find(self.hash(client_id), |&index| {
            self.session(index).is_some_and(|session| &*session.client_id == client_id)
        });
        found.copied().map(SessionId)
    }

    /// Takes a session in.
    pub fn insert(&mut self, session: Session) -> SessionId {
        assert!(self.find(&session.client_id).is_none(), "one session per client id");
        let index = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.slots.grow_to(index);
        let hash = self.hash(&session.client_id);
        let slot = self.slots.get_mut(index).expect("room was made");
        slot.session = Some(session);
        slot.connection = NO_CONNECTION;
        slot.is_leaving = false;
        slot.generation = slot.generation.wrapping_add(1);
        let (slots, seed) = (&self.slots, self.seed);
        self.by_client_id.insert_unique(hash, index, |&other| {
            let session = slots.get(other).and_then(|slot| slot.session.as_ref());
            let session = session.expect("an indexed session exists");
            xxh3_64_with_seed(session.client_id.as_bytes(), seed)
        });
        SessionId(index)
    }

    /// Takes a session out.
    pub fn remove(&mut self, id: SessionId) -> Session {
        let slot = self.slots.get_mut(id.0).expect("a session's slot exists");
        let session = slot.session.take().expect("only a session in use is removed");
        slot.connection = NO_CONNECTION;
        let hash = self.hash(&session.client_id);
        let entry = self.by_client_id.find_entry(hash, |&index| index == id.0);
        entry.expect("every session is indexed").remove();
        if self.by_client_id.capacity() > 4096
            && self.by_client_id.len() * 8 < self.by_client_id.capacity()
        {
            let (slots, seed) = (&self.slots, self.seed);
            let capacity = self.by_client_id.len() * 2;
            self.by_client_id.shrink_to(capacity, |&other| {
                let session = slots.get(other).and_then(|slot| slot.session.as_ref());
                let session = session.expect("an indexed session exists");
                xxh3_64_with_seed(session.client_id.as_bytes(), seed)
            });
        }
        self.free.push(id.0);
        session
    }

    /// The session at an index.
    pub fn session(&self, index: u32) -> Option<&Session> {
        self.slots.get(index)?.session.as_ref()
    }

    /// The slot at an index, if it is in use.
    pub fn slot(&self, index: u32) -> Option<&SessionSlot> {
        self.slots.get(index).filter(|slot| slot.session.is_some())
    }

    /// The slot at an index, if it is in use.
    pub fn slot_mut(&mut self, index: u32) -> Option<&mut SessionSlot> {
        self.slots.get_mut(index).filter(|slot| slot.session.is_some())
    }

    /// The session at an index, if it is in use.
    pub fn session_mut(&mut self, index: u32) -> Option<&mut Session> {
        self.slots.get_mut(index)?.session.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_slot_of_an_idle_client_is_small() {
        assert!(size_of::<SessionSlot>() <= 128, "{}", size_of::<SessionSlot>());
    }

    #[test]
    fn sessions_are_found_by_client_id_and_slots_are_used_again() {
        let mut sessions = Sessions::new(1);
        let ids: Vec<SessionId> =
            (0..1000).map(|n| sessions.insert(Session::new(&format!("c{n}"), true, 0))).collect();
        assert_eq!(sessions.find("c500"), Some(ids[500]));
        let generation = sessions.slot(ids[500].0).unwrap().generation;
        sessions.remove(ids[500]);
        assert_eq!(sessions.find("c500"), None);
        assert_eq!(sessions.len(), 999);
        let again = sessions.insert(Session::new("other", true, 0));
        assert_eq!(again, ids[500]);
        assert_ne!(sessions.slot(again.0).unwrap().generation, generation);
        assert_eq!(sessions.slots(), 1000);
    }
}
