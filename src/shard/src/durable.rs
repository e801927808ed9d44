//! What of a session is kept in the store, and the tick's end of it (SEED-SESS-01, SEED-SESS-16).
//!
//! A session with a Session Expiry Interval above 0 is kept: its head, its subscriptions, its messages of `QoS` 1 and 2 (of `QoS`
//! 0 while it is away, if `mqueue.store_qos0`), the ids of received `QoS` 2 messages. Whatever is told to its client that
//! depends on a change waits for the change to be kept, where `store.sync = always`: see `barrier`.

use std::sync::Arc;

use mqtt::PacketId;
use ring::ShardSet;
use router::{SessionId, slot};
use session::{Delivery, Message, Settled};

use crate::clients::Clients;
use crate::effect::ConnectionId;
use crate::held::{Held, HeldSend};
use crate::journal::carried;
use crate::sessions::NO_CONNECTION;
use crate::shard::Shard;
use crate::storage::{
    PutAs, SessionHead, StoredDelayed, StoredEntry, StoredPlace, StoredSession, StoredState,
    StoredSubscription, StoredWill,
};

impl Clients {
    /// Whether nothing is told to a client before what it depends on is on disk.
    pub fn is_always(&self) -> bool {
        self.journal.as_ref().is_some_and(crate::journal::Journal::is_always)
    }

    /// A message that the store gave back was passed on, or nobody is there for it.
    pub fn forget_passed_on(&mut self, given: &StoredDelayed) {
        if let Some(journal) = &mut self.journal {
            journal.remove_delayed(given.slot, given.number);
        }
    }

    /// A change of a session was noted: what its client is told from now on depends on it.
    fn noted(&mut self, session: SessionId) {
        if !self.is_always() {
            return;
        }
        if let Some(index) = self.connected(session)
            && let Some(connection) = self.connections.at(index)
        {
            let generation = connection.generation;
            self.gate(ConnectionId { index, generation });
        }
    }

    /// What a session carries of its name in the store; `None` if it is not kept there.
    pub fn stored(&self, session: SessionId) -> Option<u64> {
        let stored = self.sessions.session(session.0)?.stored;
        (stored != 0 && self.journal.is_some()).then_some(stored)
    }

    /// Begins to keep a session that is to outlive its connection.
    pub fn keep_session(&mut self, session: SessionId) {
        let Some(journal) = &mut self.journal else { return };
        let Some(owner) = self.sessions.session_mut(session.0) else { return };
        if owner.stored == 0 && !owner.is_transient() {
            let slot = slot(owner.client_id.as_bytes());
            owner.stored = carried(StoredSession { slot, number: journal.next_number() });
        }
    }

    /// Notes that the head of a session has changed.
    pub fn store_head(&mut self, session: SessionId) {
        let Some(stored) = self.stored(session) else { return };
        let now = self.now;
        let slot = self.sessions.slot(session.0).expect("it is kept, so it is there");
        let owner = slot.session.as_ref().expect("the slot is in use");
        let will = owner.will.as_ref().map(|will| StoredWill {
            message: will.message.clone(),
            expiry_interval_s: will.expiry_interval_s,
            delay_s: will.delay_s,
        });
        let offline = (slot.connection == NO_CONNECTION)
            .then(|| now.unix_ms.saturating_sub(slot.offline_ms(now.mono_ms)));
        let head = Box::new(SessionHead {
            client_id: owner.client_id.clone(),
            created_unix_s: owner.created_unix_s,
            expiry_interval_s: owner.expiry_interval_s,
            offline_since_unix_ms: offline,
            will,
        });
        if let Some(journal) = &mut self.journal {
            journal.put_session(stored, head);
        }
        self.noted(session);
    }

    /// Notes the end of a session; the connections that wait for it to be read, and need not any more. `tell`: its messages are
    /// in the store only, and what becomes of them is to be told.
    #[must_use]
    pub fn unstore_session(&mut self, session: SessionId, tell: bool) -> Vec<ConnectionId> {
        let Some(stored) = self.stored(session) else { return Vec::new() };
        if let Some(journal) = &mut self.journal {
            journal.remove_session(stored, tell);
        }
        self.away.forget(stored)
    }

    /// Notes a subscription.
    pub fn store_subscription(&mut self, session: SessionId, subscription: StoredSubscription) {
        let Some(stored) = self.stored(session) else { return };
        if let Some(journal) = &mut self.journal {
            journal.put_subscription(stored, subscription);
        }
        self.noted(session);
    }

    /// Whether a session's subscriptions are kept.
    pub fn is_kept(&self, session: SessionId) -> bool {
        self.stored(session).is_some()
    }

    /// Notes that a subscription is gone.
    pub fn unstore_subscription(&mut self, session: SessionId, filter: Box<str>) {
        let Some(stored) = self.stored(session) else { return };
        if let Some(journal) = &mut self.journal {
            journal.remove_subscription(stored, filter);
        }
        self.noted(session);
    }

    /// A place in the store for a message to a session, if it is kept. `receivers`: how many get it here.
    pub fn place(&mut self, stored: u64, receivers: usize) -> Option<StoredPlace> {
        if stored == 0 {
            return None;
        }
        self.journal.as_mut().map(|journal| journal.next_place(receivers > 1))
    }

    /// Notes a message of a session.
    pub fn store_entry(
        &mut self,
        session: SessionId,
        delivery: &Delivery,
        state: StoredState,
        priority: u8,
        put: PutAs,
    ) {
        let (Some(stored), Some(place)) = (self.stored(session), delivery.place) else { return };
        let entry = StoredEntry {
            state,
            message: Some(delivery.message.clone()),
            qos: delivery.qos,
            retain: delivery.retain,
            priority,
            subscription_ids: delivery.subscription_ids.clone(),
            by_group: delivery.shared.is_some(),
        };
        // While the store is read, what comes is published again: a session may have it.
        let put = if self.is_recovering && put == PutAs::New { PutAs::NewUnlessKnown } else { put };
        if let Some(journal) = &mut self.journal {
            journal.put_entry(stored, place, put, entry);
        }
        self.noted(session);
    }

    /// Notes that a session is done with a message.
    pub fn settle(&mut self, session: SessionId, settled: Option<Settled>) {
        let (Some(stored), Some(settled)) = (self.stored(session), settled) else { return };
        if let Some(journal) = &mut self.journal {
            journal.settle(stored, settled);
        }
        self.noted(session);
    }

    /// Notes that a session needs a message itself no more: PUBREC has come.
    pub fn store_released(&mut self, session: SessionId, id: PacketId, settled: Option<Settled>) {
        let (Some(stored), Some(settled)) = (self.stored(session), settled) else { return };
        if let Some(journal) = &mut self.journal {
            journal.release(stored, id, settled);
        }
        self.noted(session);
    }

    /// Notes that PUBCOMP has come.
    pub fn settle_released(&mut self, session: SessionId, settled: Option<Settled>) {
        let (Some(stored), Some(settled)) = (self.stored(session), settled) else { return };
        let now_ms = self.now.mono_ms;
        if let Some(journal) = &mut self.journal {
            journal.settle_released(stored, settled.place, now_ms);
        }
        self.noted(session);
    }

    /// Notes that a `QoS` 2 message was received, or that its PUBREL has come.
    pub fn store_received(&mut self, session: SessionId, id: PacketId, awaits_rel: bool) {
        let Some(stored) = self.stored(session) else { return };
        if let Some(journal) = &mut self.journal {
            if awaits_rel {
                journal.put_received(stored, id);
            } else {
                journal.remove_received(stored, id);
            }
        }
        self.noted(session);
    }
}

impl Shard {
    /// Keeps a message that was taken from a client until `remote` have it too: if the broker ends before, it is published again,
    /// or if it is delayed (`due_unix_ms` is not 0) taken to its keeper again. False if there is no store that would.
    /// `sends`: where it is to go as soon as its batch is handed over, if it was held back.
    pub(crate) fn keep_until_kept(
        &mut self,
        slot: u16,
        due_unix_ms: u64,
        message: Arc<Message>,
        remote: ShardSet,
        sends: Vec<HeldSend>,
    ) -> bool {
        let Some(journal) = self.clients.journal.as_mut().filter(|j| j.is_always()) else {
            return false;
        };
        let number = journal.next_number();
        let delayed = StoredDelayed { slot, number, due_unix_ms, message: message.clone() };
        journal.put_delayed(delayed);
        if sends.is_empty() {
            self.clients.barrier.forget_when_kept(slot, number, remote);
        } else {
            let sequence = journal.needed();
            let held = Held { sequence, slot, number, message, sends, remote };
            self.clients.barrier.hold(held);
        }
        true
    }

    /// The last part of a tick: hands changes over, and lets go what need not wait for them.
    pub(crate) fn finish_durable(&mut self) {
        let now_ms = self.clients.now.mono_ms;
        let is_ending = self.shutdown.is_some();
        if let Some(journal) = &mut self.clients.journal {
            journal.tick(now_ms, is_ending);
        }
        if !is_ending {
            // Behind the journal: the ends of messages that stayed for a while are on their way.
            self.clients.unload_away();
        }
        self.clients.count_some();
        self.send_held();
        self.close_group();
    }

    /// Whether everything is kept, as far as the store keeps it.
    pub(crate) fn is_all_kept(&self) -> bool {
        self.clients.journal.as_ref().is_none_or(|journal| journal.needed() == 0)
    }

    /// Whether more waits for the store than may.
    pub(crate) fn is_journal_full(&self) -> bool {
        self.clients.journal.as_ref().is_some_and(crate::journal::Journal::is_full)
    }

    /// Whether the store cannot write.
    pub(crate) fn is_store_failing(&self) -> bool {
        self.clients.journal.as_ref().is_some_and(|journal| journal.is_failing)
    }

    /// When the store is to get something.
    pub(crate) fn durable_deadline_ms(&self) -> Option<u64> {
        let journal = self.clients.journal.as_ref()?.deadline_ms(self.clients.now.mono_ms);
        let unload = self.clients.unload_deadline_ms().filter(|_| self.shutdown.is_none());
        let count = self.clients.has_to_count().then_some(self.clients.now.mono_ms);
        journal.into_iter().chain(unload).chain(count).min()
    }
}
