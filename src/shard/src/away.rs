//! Sessions of clients that are away: their messages are in the store only, and memory holds their counts.
//!
//! A session is found so at the start. When its client has left, its messages are given up here a moment later; what comes for it
//! goes to the store without a look at what is there. When the client returns they are read: a read comes behind all changes that
//! were noted before it, whether these are committed or not, so nothing that waits for the store can be missed. While the store
//! fails nothing is given up: it could not be read.
//!
//! Counts are exact but for what the store finds damaged; reading a session mends them. A queue may be above its length by a
//! [`TRIM_SHARE`]th until it is trimmed.

use std::collections::VecDeque;

use hashbrown::{HashMap, HashSet};
use metrics::DropReason;
use mqtt::{PacketId, QoS};
use router::{FilterId, SessionId};
use session::{Awaiting, Delivery, Settled};

use crate::clients::{Clients, QOS_ALL};
use crate::effect::ConnectionId;
use crate::journal::{carried, stored_session};
use crate::sessions::NO_CONNECTION;
use crate::storage::{PutAs, StoredCounts, StoredEntry, StoredPlace, StoredSession, StoredState};

/// How long the clients of a session that could not be read are refused before it is tried again.
pub(crate) const UNREAD_MS: u64 = 1000;
/// Messages that are given up in one tick, and as many sessions.
const UNLOADED_PER_TICK: usize = 8192;
/// Messages that, when they were given up, are worth a look for memory that is free; and the least time between two looks.
const GIVEN_UP_MUCH: usize = 256;
const GIVE_BACK_MS: u64 = 10_000;
/// Sessions that are given their counts in one tick.
const COUNTED_PER_TICK: u32 = 4096;
/// What a queue in the store may get beyond its length before it is trimmed.
const TRIM_SHARE: u32 = 4;

/// A session that is to be unloaded.
#[derive(Debug)]
struct Leaving {
    due_ms: u64,
    session: SessionId,
    generation: u32,
}

/// A session whose messages are being read.
#[derive(Debug)]
struct Load {
    session: SessionId,
    /// Connections whose CONNECT waits for it.
    connections: Vec<ConnectionId>,
    /// What came for it since it was asked for, with its priority.
    later: VecDeque<(Delivery, u8)>,
}

/// The shared filters of a session with their topic filters: which its messages came by is found by their topics.
pub(crate) type SharedFilters = Vec<(FilterId, Box<str>)>;

/// What goes on about sessions whose messages are in the store. They are named by what they carry of their name there.
#[derive(Debug, Default)]
pub(crate) struct Away {
    /// Sessions to be unloaded, the first that is due in front.
    leaving: VecDeque<Leaving>,
    loads: HashMap<u64, Load>,
    /// Queues that are being trimmed.
    trims: HashMap<u64, SessionId>,
    /// Sessions that got a message at the start which they may have had.
    in_doubt: HashMap<u64, SessionId>,
    /// Sessions that could not be read, and until when nobody tries again.
    unread: HashMap<u64, u64>,
    counts: Counts,
    /// Messages given up since memory was last given back, and when that may be again.
    given_up: usize,
    gives_back_ms: u64,
}

/// What sessions had at the start, on its way to them.
#[derive(Debug, Default)]
struct Counts {
    rows: VecDeque<(StoredSession, StoredCounts)>,
    /// No more come.
    is_last: bool,
    /// The next slot that they may be about.
    next: u32,
}

/// How far above its length the queue of a session may get before it is trimmed, at most a [`TRIM_SHARE`]th. Sessions that fill at
/// the same time differ in it, so that the store does not trim all of them at the same time.
fn trim_room(length_max: u32, stored: u64) -> u32 {
    let room = length_max.div_ceil(TRIM_SHARE);
    let kind = stored.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
    room - room / 32 * u32::try_from(kind).expect("four bits")
}

impl Away {
    /// Whether it is time to give memory back that is free: now and then, when much was given up.
    #[inline]
    pub fn gives_back(&mut self, now_ms: u64) -> bool {
        let is_time = self.given_up >= GIVEN_UP_MUCH && now_ms >= self.gives_back_ms;
        if is_time {
            (self.given_up, self.gives_back_ms) = (0, now_ms + GIVE_BACK_MS);
        }
        is_time
    }

    /// A session has ended; the connections that wait for it.
    pub fn forget(&mut self, stored: u64) -> Vec<ConnectionId> {
        self.trims.remove(&stored);
        self.in_doubt.remove(&stored);
        self.loads.remove(&stored).map_or_else(Vec::new, |load| load.connections)
    }
}

impl Clients {
    /// Lets the messages of a session go from memory in a while, if its client is still away then.
    pub fn may_unload(&mut self, session: SessionId) {
        let Some(stay_ms) = self.stay_ms() else { return };
        self.unload_after(session, stay_ms);
    }

    fn unload_after(&mut self, session: SessionId, wait_ms: u64) {
        let due_ms = self.now.mono_ms + wait_ms;
        let Some(slot) = self.sessions.slot_mut(session.0) else { return };
        let is_kept = slot.session.as_ref().is_some_and(|owner| owner.stored != 0);
        if is_kept && !slot.is_leaving {
            slot.is_leaving = true;
            let generation = slot.generation;
            self.away.leaving.push_back(Leaving { due_ms, session, generation });
        }
    }

    /// How long after its client has left a session stays in memory: many are back at once. Until then the ends of messages that
    /// stay in the store for a while are there too.
    fn stay_ms(&self) -> Option<u64> {
        let late_ms = self.journal.as_ref()?.late_ms();
        Some(self.settings.store.unload_after_ms.max(late_ms))
    }

    /// When the next session is to be unloaded.
    pub fn unload_deadline_ms(&self) -> Option<u64> {
        let journal = self.journal.as_ref().filter(|journal| !journal.is_failing)?;
        // With a full journal nobody waits for it, and what is given up is not what fills the memory.
        self.away.leaving.front().map(|leaving| leaving.due_ms).filter(|_| !journal.is_full())
    }

    /// Gives up the messages of the sessions that are due: the store has them, or the journal does.
    pub fn unload_away(&mut self) {
        let now_ms = self.now.mono_ms;
        let Some(stay_ms) = self.stay_ms() else { return };
        let mut budget = UNLOADED_PER_TICK;
        while budget > 0 && self.unload_deadline_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            let Some(leaving) = self.away.leaving.pop_front() else { return };
            let Leaving { session, generation, .. } = leaving;
            budget -= 1;
            let Some(slot) = self.sessions.slot_mut(session.0) else { continue };
            if slot.generation != generation {
                continue;
            }
            slot.is_leaving = false;
            if slot.connection != NO_CONNECTION {
                continue;
            }
            let offline_ms = slot.offline_ms(now_ms);
            if offline_ms < stay_ms {
                // It was back, and left again.
                self.unload_after(session, stay_ms - offline_ms);
                continue;
            }
            let owner = slot.session.as_mut().expect("the slot is in use");
            if !owner.is_unloaded() {
                let given_up = owner.under_way();
                budget = budget.saturating_sub(given_up);
                self.away.given_up += given_up;
                owner.unload();
                self.gauge_session(session);
            }
        }
    }

    /// Queues a message for a session of which the messages are in the store only.
    pub fn append(&mut self, session: SessionId, delivery: Delivery, priority: u8) {
        self.store_entry(session, &delivery, StoredState::Queued, priority, PutAs::New);
        let Some(owner) = self.sessions.session_mut(session.0) else { return };
        owner.appended();
        let (stored, length) = (owner.stored, owner.mqueue_len());
        if self.is_recovering {
            self.away.in_doubt.insert(stored, session);
        }
        if let Some(load) = self.away.loads.get_mut(&stored) {
            load.later.push_back((delivery, priority));
            let length_max = self.settings.mqueue.max_length as usize;
            if length_max > 0
                && load.later.len() > length_max
                && let Some((gone, _)) = load.later.pop_front()
            {
                self.count_drop(gone.qos, DropReason::QueueFull);
                self.settle(session, gone.settled());
            }
            return;
        }
        if length == 1 || length == self.alarm_length() {
            self.gauge_session(session);
        }
        self.trim_if_long(session);
    }

    /// Has the queue of an unloaded session trimmed, if it is too long by more than a share.
    fn trim_if_long(&mut self, session: SessionId) {
        let length_max = self.settings.mqueue.max_length;
        let Some(owner) = self.sessions.session(session.0) else { return };
        let limit = length_max.saturating_add(trim_room(length_max, owner.stored)) as usize;
        // One that is not counted yet is looked at when it is.
        let is_counted = owner.is_unloaded() && !owner.is_uncounted();
        if length_max == 0 || !is_counted || owner.mqueue_len() < limit {
            return;
        }
        let stored = owner.stored;
        if !self.away.loads.contains_key(&stored)
            && self.away.trims.insert(stored, session).is_none()
            && let Some(journal) = &mut self.journal
        {
            journal.trim(stored, length_max);
        }
    }

    /// The queue of a session was trimmed.
    pub fn queue_trimmed(&mut self, stored: StoredSession, lost: [u32; 3]) {
        for (qos, count) in QOS_ALL.into_iter().zip(lost) {
            self.count_drops(qos, DropReason::QueueFull, count);
        }
        // One that was read meanwhile has it right already.
        let Some(session) = self.away.trims.remove(&carried(stored)) else { return };
        let Some(owner) = self.sessions.session_mut(session.0) else { return };
        let found: u32 = lost.iter().sum();
        owner.trimmed(found);
        self.gauge_session(session);
        // A count that is too high would ask again and again.
        if found > 0 {
            self.trim_if_long(session);
        }
    }

    /// A message that was put at the start was known.
    pub fn message_known(&mut self, stored: StoredSession) {
        let Some(&session) = self.away.in_doubt.get(&carried(stored)) else { return };
        if let Some(owner) = self.sessions.session_mut(session.0) {
            owner.had_before();
            self.gauge_session(session);
        }
    }

    /// The store has counted what some sessions had at the start.
    pub fn counted(&mut self, rows: Vec<(StoredSession, StoredCounts)>, is_last: bool) {
        self.away.counts.rows.extend(rows);
        self.away.counts.is_last |= is_last;
    }

    /// Gives the next sessions their counts. They come in the order in which the sessions came, and those came into the slots in
    /// order; so one walk over the slots finds them, and what it passes has none.
    pub fn count_some(&mut self) {
        let looks_end = self.away.counts.next.saturating_add(COUNTED_PER_TICK);
        while self.has_to_count() && self.away.counts.next < looks_end {
            let session = SessionId(self.away.counts.next);
            let uncounted = self.sessions.session(session.0).filter(|owner| owner.is_uncounted());
            if let Some(owner) = uncounted {
                let stored = stored_session(owner.stored);
                let counts = &mut self.away.counts;
                // Those that are gone meanwhile.
                while counts.rows.front().is_some_and(|(counted, _)| *counted < stored) {
                    counts.rows.pop_front();
                }
                let found = match counts.rows.front() {
                    Some(&(counted, found)) if counted == stored => {
                        counts.rows.pop_front();
                        found
                    }
                    // It may be in the next page.
                    None if !counts.is_last => return,
                    _ => StoredCounts::default(),
                };
                let owner = self.sessions.session_mut(session.0).expect("looked at above");
                owner.counted(found);
                self.gauge_session(session);
                self.trim_if_long(session);
            }
            self.away.counts.next += 1;
        }
    }

    /// Whether there are counts to be given.
    pub fn has_to_count(&self) -> bool {
        let counts = &self.away.counts;
        (counts.is_last || !counts.rows.is_empty()) && counts.next < self.sessions.slots()
    }

    /// Asks for the messages of a session; the connection's CONNECT waits for them.
    pub fn load_session(&mut self, session: SessionId, connection: ConnectionId) {
        let Some(owner) = self.sessions.session(session.0) else { return };
        let stored = owner.stored;
        let load = self.away.loads.entry(stored).or_insert_with(|| {
            if let Some(journal) = &mut self.journal {
                journal.load(stored_session(stored));
            }
            Load { session, connections: Vec::new(), later: VecDeque::new() }
        });
        load.connections.push(connection);
    }

    /// Whether a session is being read.
    pub fn is_loading(&self, stored: u64) -> bool {
        self.away.loads.contains_key(&stored)
    }

    /// The session that is being read for somebody.
    pub fn being_loaded(&self, stored: StoredSession) -> Option<SessionId> {
        self.away.loads.get(&carried(stored)).map(|load| load.session)
    }

    /// The messages of a session cannot be read; the connections that wait for them. It stays as it is, and so do the messages
    /// that came for it meanwhile: they are in the store.
    pub fn session_unread(&mut self, stored: StoredSession) -> Vec<ConnectionId> {
        let Some(load) = self.away.loads.remove(&carried(stored)) else { return Vec::new() };
        let now_ms = self.now.mono_ms;
        self.away.unread.retain(|_, until_ms| now_ms < *until_ms);
        self.away.unread.insert(carried(stored), now_ms + UNREAD_MS);
        load.connections
    }

    /// Whether a session could not be read just now.
    pub fn is_unread(&self, stored: u64) -> bool {
        self.away.unread.get(&stored).is_some_and(|until_ms| self.now.mono_ms < *until_ms)
    }

    /// The messages of a session have come; the connections that wait for them. `shared`: its shared filters.
    pub fn session_loaded(
        &mut self,
        stored: StoredSession,
        entries: Vec<(StoredPlace, StoredEntry)>,
        received: &[PacketId],
        shared: &SharedFilters,
    ) -> Vec<ConnectionId> {
        let Some(load) = self.away.loads.remove(&carried(stored)) else { return Vec::new() };
        let Load { session, connections, later } = load;
        self.away.trims.remove(&carried(stored));
        self.away.in_doubt.remove(&carried(stored));
        let known: HashSet<StoredPlace> = entries.iter().map(|(place, _)| *place).collect();
        let (mut window, mut queue) = (Vec::new(), Vec::new());
        let again = ids_given_again(&entries);
        for (place, entry) in entries {
            if again.contains(&place) {
                self.settle(session, Some(Settled { place, message: None }));
                continue;
            }
            match (entry.state, delivery(place, &entry, shared)) {
                (StoredState::Queued, Some(delivery)) => queue.push((delivery, entry.priority)),
                (StoredState::Sent(id), Some(delivery)) => {
                    let is_qos2 = delivery.qos == QoS::ExactlyOnce;
                    let awaiting = if is_qos2 { Awaiting::PubRec } else { Awaiting::PubAck };
                    window.push((id, awaiting(delivery)));
                }
                (StoredState::Released(id, _), _) => {
                    window.push((id, Awaiting::PubComp(Some(place))));
                }
                (_, None) => {
                    log::error!("the store has an entry without its message; it is left out");
                }
            }
        }
        let is_new =
            |(delivery, _): &(Delivery, u8)| delivery.place.is_none_or(|p| !known.contains(&p));
        queue.extend(later.into_iter().filter(is_new));
        let now_ms = self.now.mono_ms;
        let Some(owner) = self.sessions.session_mut(session.0) else { return connections };
        owner.restore(window, queue, received, now_ms);
        if !self.is_always() {
            // What was told may have been forgotten, if the broker was killed.
            let owner = self.sessions.session_mut(session.0).expect("it was just restored");
            owner.doubt_received(received);
        }
        self.displace_over(session);
        self.gauge_session(session);
        // If nobody takes it, because who asked is gone.
        self.may_unload(session);
        connections
    }

    /// Drops what a queue has above its length.
    fn displace_over(&mut self, session: SessionId) {
        let length_max = self.settings.mqueue.max_length as usize;
        while length_max > 0
            && let Some(owner) = self.sessions.session_mut(session.0)
            && let Some(delivery) = owner.displace_over(length_max)
        {
            self.count_drop(delivery.qos, DropReason::QueueFull);
            self.settle(session, delivery.settled());
        }
    }
}

/// Places of messages whose packet id a later message has: their end is not in the store yet, but has come.
fn ids_given_again(entries: &[(StoredPlace, StoredEntry)]) -> HashSet<StoredPlace> {
    let mut last: HashMap<PacketId, StoredPlace> = HashMap::new();
    let mut again = HashSet::new();
    for (place, entry) in entries {
        if let StoredState::Sent(id) | StoredState::Released(id, _) = entry.state
            && let Some(before) = last.insert(id, *place)
        {
            again.insert(before);
        }
    }
    again
}

fn delivery(place: StoredPlace, entry: &StoredEntry, shared: &SharedFilters) -> Option<Delivery> {
    let message = entry.message.clone()?;
    let matching = shared.iter().find(|(_, filter)| mqtt::topic::matches(filter, message.topic()));
    Some(Delivery {
        qos: entry.qos,
        retain: entry.retain,
        subscription_ids: entry.subscription_ids.clone(),
        shared: matching.filter(|_| entry.by_group).map(|&(filter, _)| filter),
        place: Some(place),
        message,
    })
}

#[cfg(test)]
mod tests;
