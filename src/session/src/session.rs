//! One client's session: what outlives its connections (SEED-SESS-01..15, MQTT-3.1.2-4..6).
//!
//! A session of an idle client is this struct and its client id; windows and queues exist only while they hold
//! something. All about it happens on one shard.

use mqtt::{PacketId, QoS};

use crate::awaiting_rel::{AwaitingRel, Received};
use crate::inflight::{Awaiting, Entry, Inflight};
use crate::mqueue::{Delivery, Mqueue, MqueueLimits, Pushed};
use crate::stored::{Settled, StoredCounts};
use crate::subscriptions::Subscriptions;
use crate::will::Will;

/// Messages under way, in either direction.
#[derive(Debug)]
struct Flow {
    inflight: Inflight,
    /// Entries of the window that the present connection has not seen; their time is [`UNSENT`].
    unsent: usize,
    mqueue: Mqueue,
    awaiting_rel: AwaitingRel,
}

/// The time of an entry that the present connection has not seen.
const UNSENT: u64 = u64::MAX;

/// Where the messages under way are.
#[derive(Debug)]
enum Messages {
    /// Here; none is under way where there is nothing.
    Here(Option<Box<Flow>>),
    /// In the store only: its client is away.
    Stored(StoredCounts),
    /// In the store only, and how many were there at the start is not known yet; these came since.
    Uncounted(StoredCounts),
}

impl Flow {
    /// Takes a message out of the window; its copy in the store.
    fn remove(&mut self, id: PacketId) -> Option<Settled> {
        let gone = self.inflight.remove(id)?;
        self.unsent -= usize::from(gone.sent_ms == UNSENT);
        match gone.awaiting {
            Awaiting::PubAck(delivery) | Awaiting::PubRec(delivery) => delivery.settled(),
            Awaiting::PubComp(place) => place.map(|place| Settled { place, message: None }),
        }
    }
}

/// Session Expiry Interval of a session that never expires (MQTT 5.0, 3.1.2.11.2).
pub const NEVER_EXPIRES_S: u32 = u32::MAX;

/// A session.
#[derive(Debug)]
pub struct Session {
    /// The client it belongs to.
    pub client_id: Box<str>,
    /// Its subscriptions.
    pub subscriptions: Subscriptions,
    /// The will of the present connection, or of the last one while its delay runs.
    pub will: Option<Box<Will>>,
    messages: Messages,
    /// Seconds it outlives its connection; 0 ends with it, [`NEVER_EXPIRES_S`] never.
    pub expiry_interval_s: u32,
    /// When it was made, in seconds since the Unix epoch.
    pub created_unix_s: u32,
    /// Messages its queue lost, or that were too large for its client.
    pub dropped: u32,
    /// Messages sent to its client.
    pub delivered: u32,
    /// Messages that went through its queue.
    pub enqueued: u32,
    next_packet_id: PacketId,
    /// Its number and slot in the store, 0 if it is not kept there; the shard knows how to read it.
    pub stored: u64,
    /// Whether the client asked for a fresh session when it was made.
    pub clean_start: bool,
}

/// What became of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// It was awaited; the copy of the message in the store, if something about it has changed.
    Awaited(Option<Settled>),
    /// No message with this id waits for it: counted as missed (SEED-MET-04).
    Missed,
}

impl Session {
    /// A new session.
    #[must_use]
    pub fn new(client_id: &str, clean_start: bool, created_unix_s: u32) -> Self {
        Self {
            client_id: client_id.into(),
            subscriptions: Subscriptions::default(),
            will: None,
            messages: Messages::Here(None),
            expiry_interval_s: 0,
            created_unix_s,
            dropped: 0,
            delivered: 0,
            enqueued: 0,
            next_packet_id: PacketId::new(1).expect("1 is not 0"),
            stored: 0,
            clean_start,
        }
    }

    fn flow(&mut self) -> &mut Flow {
        let first = self.next_packet_id;
        let Messages::Here(flow) = &mut self.messages else {
            panic!("messages are loaded before more are under way");
        };
        flow.get_or_insert_with(|| {
            Box::new(Flow {
                inflight: Inflight::new(first),
                unsent: 0,
                mqueue: Mqueue::default(),
                awaiting_rel: AwaitingRel::default(),
            })
        })
    }

    fn here(&self) -> Option<&Flow> {
        match &self.messages {
            Messages::Here(flow) => flow.as_deref(),
            Messages::Stored(_) | Messages::Uncounted(_) => None,
        }
    }

    fn here_mut(&mut self) -> Option<&mut Flow> {
        match &mut self.messages {
            Messages::Here(flow) => flow.as_deref_mut(),
            Messages::Stored(_) | Messages::Uncounted(_) => None,
        }
    }

    /// Messages sent and not acknowledged.
    #[must_use]
    pub fn inflight_len(&self) -> usize {
        match &self.messages {
            Messages::Here(flow) => flow.as_ref().map_or(0, |flow| flow.inflight.len()),
            Messages::Stored(counts) | Messages::Uncounted(counts) => counts.inflight.into(),
        }
    }

    /// Messages queued.
    #[must_use]
    pub fn mqueue_len(&self) -> usize {
        match &self.messages {
            Messages::Here(flow) => flow.as_ref().map_or(0, |flow| flow.mqueue.len()),
            Messages::Stored(counts) | Messages::Uncounted(counts) => counts.queued as usize,
        }
    }

    /// Whether `QoS` 0 messages wait in the queue.
    #[must_use]
    pub fn has_queued_qos0(&self) -> bool {
        self.here().is_some_and(|flow| flow.mqueue.has_qos0())
    }

    /// Received `QoS` 2 messages not released.
    #[must_use]
    pub fn awaiting_rel_len(&self) -> usize {
        match &self.messages {
            Messages::Here(flow) => flow.as_ref().map_or(0, |flow| flow.awaiting_rel.len()),
            Messages::Stored(counts) | Messages::Uncounted(counts) => counts.awaiting_rel.into(),
        }
    }

    /// Inflight messages by what they wait for: (PUBACK or PUBREC, PUBCOMP).
    pub fn awaiting_counts(&mut self) -> (usize, usize) {
        let Some(flow) = self.here_mut() else { return (0, 0) };
        let all = flow.inflight.len();
        let comp = flow
            .inflight
            .iter_mut()
            .filter(|(_, entry)| matches!(entry.awaiting, Awaiting::PubComp(_)))
            .count();
        (all - comp, comp)
    }

    /// The id the next `QoS` 1 or 2 message would be sent with, if it may be sent now: nothing is queued before
    /// it (MQTT-4.6.0-6) and the window of `window` messages has room.
    #[must_use]
    pub fn sendable_id(&self, window: usize) -> Option<PacketId> {
        let Messages::Here(flow) = &self.messages else { return None };
        match flow {
            None => Some(self.next_packet_id),
            Some(flow) if flow.mqueue.is_empty() && flow.inflight.has_room(window) => {
                Some(flow.inflight.next_id())
            }
            Some(_) => None,
        }
    }

    /// Notes a `QoS` 1 or 2 message as sent; its id is the one [`Self::sendable_id`] gave.
    pub fn sent(&mut self, delivery: Delivery, now_ms: u64) -> PacketId {
        assert!(delivery.qos != QoS::AtMostOnce, "QoS 0 has no packet id");
        let awaiting = match delivery.qos {
            QoS::ExactlyOnce => Awaiting::PubRec(delivery),
            _ => Awaiting::PubAck(delivery),
        };
        self.delivered = self.delivered.wrapping_add(1);
        self.flow().inflight.push(awaiting, now_ms)
    }

    /// Queues a message.
    pub fn enqueue(&mut self, delivery: Delivery, priority: u8, limits: MqueueLimits) -> Pushed {
        let pushed = self.flow().mqueue.push(delivery, priority, limits);
        match pushed {
            Pushed::Queued => self.enqueued = self.enqueued.wrapping_add(1),
            Pushed::Displaced { .. } => {
                self.enqueued = self.enqueued.wrapping_add(1);
                self.dropped = self.dropped.saturating_add(1);
            }
            Pushed::Refused => self.dropped = self.dropped.saturating_add(1),
        }
        pushed
    }

    /// Takes the next queued message if the window has room for it.
    pub fn dequeue(&mut self, window: usize) -> Option<(Delivery, PacketId)> {
        let flow = self.here_mut()?;
        if !flow.inflight.has_room(window) {
            return None;
        }
        let delivery = flow.mqueue.pop()?;
        Some((delivery, flow.inflight.next_id()))
    }

    /// A PUBACK came (MQTT-4.3.2-3).
    pub fn puback(&mut self, id: PacketId) -> Acknowledged {
        let Some(flow) = self.here_mut() else { return Acknowledged::Missed };
        match flow.inflight.get_mut(id) {
            Some(entry) if matches!(entry.awaiting, Awaiting::PubAck(_)) => {
                Acknowledged::Awaited(flow.remove(id))
            }
            _ => Acknowledged::Missed,
        }
    }

    /// A PUBREC came. With success the message itself is given up and its PUBCOMP awaited; a repeated PUBREC is
    /// answered again (SEED-PROTO-09). With an error the message is done (MQTT-4.3.3-4).
    pub fn pubrec(&mut self, id: PacketId, success: bool, now_ms: u64) -> Acknowledged {
        let Some(flow) = self.here_mut() else { return Acknowledged::Missed };
        match flow.inflight.get_mut(id) {
            Some(Entry { awaiting: Awaiting::PubRec(delivery), .. }) if success => {
                let settled = delivery.settled();
                let released = Awaiting::PubComp(delivery.place);
                let entry = flow.inflight.get_mut(id).expect("it was just found");
                flow.unsent -= usize::from(entry.sent_ms == UNSENT);
                *entry = Entry { awaiting: released, sent_ms: now_ms };
                Acknowledged::Awaited(settled)
            }
            Some(Entry { awaiting: Awaiting::PubRec(_), .. }) => {
                Acknowledged::Awaited(flow.remove(id))
            }
            Some(Entry { awaiting: Awaiting::PubComp(_), .. }) => Acknowledged::Awaited(None),
            _ => Acknowledged::Missed,
        }
    }

    /// A PUBCOMP came.
    pub fn pubcomp(&mut self, id: PacketId) -> Acknowledged {
        let Some(flow) = self.here_mut() else { return Acknowledged::Missed };
        match flow.inflight.get_mut(id) {
            Some(Entry { awaiting: Awaiting::PubComp(_), .. }) => {
                Acknowledged::Awaited(flow.remove(id))
            }
            _ => Acknowledged::Missed,
        }
    }

    /// A PUBLISH of `QoS` 2 came.
    pub fn receive_qos2(&mut self, id: PacketId, max: usize, now_ms: u64) -> Received {
        self.flow().awaiting_rel.receive(id, max, now_ms)
    }

    /// Received ids are those of before a crash, and their PUBRELs may have been forgotten in it.
    pub fn doubt_received(&mut self, ids: &[PacketId]) {
        if let Some(flow) = self.here_mut() {
            ids.iter().for_each(|&id| flow.awaiting_rel.doubt(id));
        }
    }

    /// A PUBLISH of `QoS` 2 with DUP 0 came; true if its id was remembered and can only be of a message that is done.
    pub fn sent_first(&mut self, id: PacketId) -> bool {
        self.here_mut().is_some_and(|flow| flow.awaiting_rel.sent_first(id))
    }

    /// Whether a received `QoS` 2 message with this id waits for its PUBREL.
    #[must_use]
    pub fn awaits_rel(&self, id: PacketId) -> bool {
        self.here().is_some_and(|flow| flow.awaiting_rel.contains(id))
    }

    /// A PUBREL came; false if no message waited for it.
    pub fn pubrel(&mut self, id: PacketId) -> bool {
        self.here_mut().is_some_and(|flow| flow.awaiting_rel.release(id))
    }

    /// Forgets received `QoS` 2 ids whose PUBREL is overdue, and gives them.
    pub fn expire_awaiting_rel(&mut self, timeout_ms: u64, now_ms: u64) -> Vec<PacketId> {
        self.here_mut().map_or_else(Vec::new, |f| f.awaiting_rel.expire(timeout_ms, now_ms))
    }

    /// A client is back: the clocks of what it owes start again.
    pub fn restart_clocks(&mut self, now_ms: u64) {
        if let Some(flow) = self.here_mut() {
            flow.awaiting_rel.restart(now_ms);
        }
    }

    /// A new connection has seen nothing of the window yet.
    pub fn mark_unsent(&mut self) {
        let Some(flow) = self.here_mut() else { return };
        flow.inflight.iter_mut().for_each(|(_, entry)| entry.sent_ms = UNSENT);
        flow.unsent = flow.inflight.len();
    }

    /// Whether there is something in the window that this connection has not seen.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.here().is_some_and(|flow| flow.unsent > 0)
    }

    /// What this connection has not seen, oldest first, as far as a window of `window` messages has room; marked as sent now.
    pub fn take_unsent(
        &mut self,
        window: usize,
        now_ms: u64,
    ) -> impl Iterator<Item = (PacketId, &Awaiting)> {
        let (seen, unsent) = match self.here_mut() {
            Some(flow) => (flow.inflight.len() - flow.unsent, flow.unsent),
            None => (0, 0),
        };
        let room = if window == 0 { unsent } else { window.saturating_sub(seen).min(unsent) };
        if let Some(flow) = self.here_mut() {
            flow.unsent -= room;
        }
        let entries = self.here_mut().into_iter().flat_map(|flow| flow.inflight.iter_mut());
        entries.filter(|(_, entry)| entry.sent_ms == UNSENT).take(room).map(move |(id, entry)| {
            entry.sent_ms = now_ms;
            (id, &entry.awaiting)
        })
    }

    /// Gives up a message of the window that its client cannot take; its copy in the store.
    pub fn give_up(&mut self, id: PacketId) -> Option<Settled> {
        self.dropped = self.dropped.saturating_add(1);
        self.here_mut()?.remove(id)
    }

    /// What was last sent at or before `before_ms`, marked as sent now.
    pub fn overdue(
        &mut self,
        before_ms: u64,
        now_ms: u64,
    ) -> impl Iterator<Item = (PacketId, &Awaiting)> {
        self.here_mut()
            .into_iter()
            .flat_map(|flow| flow.inflight.iter_mut())
            .filter(move |(_, entry)| entry.sent_ms <= before_ms)
            .map(move |(id, entry)| {
                entry.sent_ms = now_ms;
                (id, &entry.awaiting)
            })
    }

    /// When the next timer of messages under way is due: a retransmission after `retry_ms`, or a received
    /// `QoS` 2 id after `await_rel_ms` (0: never).
    #[must_use]
    pub fn flow_deadline_ms(&self, retry_ms: u64, await_rel_ms: u64) -> Option<u64> {
        let flow = self.here()?;
        let oldest = flow.inflight.oldest().filter(|e| retry_ms > 0 && e.sent_ms != UNSENT);
        let retry = oldest.map(|e| e.sent_ms + retry_ms);
        let rel = flow.awaiting_rel.oldest_ms().filter(|_| await_rel_ms > 0);
        let rel = rel.map(|since| since + await_rel_ms);
        match (retry, rel) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Gives back windows and queues that hold nothing (SEED-SESS-15).
    pub fn release_idle(&mut self) {
        if let Messages::Here(Some(flow)) = &mut self.messages {
            flow.mqueue.shrink();
            if flow.inflight.is_empty() && flow.mqueue.is_empty() && flow.awaiting_rel.is_empty() {
                self.next_packet_id = flow.inflight.next_id();
                self.messages = Messages::Here(None);
            }
        }
    }

    /// Whether its messages under way are in the store only.
    #[must_use]
    pub const fn is_unloaded(&self) -> bool {
        !matches!(self.messages, Messages::Here(_))
    }

    /// Whether there is, or may be, something in the store that its client has to have before it goes on.
    #[must_use]
    pub fn needs_load(&self) -> bool {
        match self.messages {
            Messages::Here(_) => false,
            Messages::Stored(counts) => counts != StoredCounts::default(),
            Messages::Uncounted(_) => true,
        }
    }

    /// Whether its messages are in the store only, and have not been counted since the start.
    #[must_use]
    pub const fn is_uncounted(&self) -> bool {
        matches!(self.messages, Messages::Uncounted(_))
    }

    /// Messages under way, in either direction.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.mqueue_len() + self.inflight_len() + self.awaiting_rel_len()
    }

    /// Was found in the store; its messages stay there until they are needed.
    pub fn found_stored(&mut self) {
        self.messages = Messages::Uncounted(StoredCounts::default());
    }

    /// So many messages were in the store at the start.
    pub fn counted(&mut self, found: StoredCounts) {
        if let Messages::Uncounted(since) = self.messages {
            let queued = found.queued.saturating_add(since.queued);
            self.messages = Messages::Stored(StoredCounts { queued, ..found });
        }
    }

    /// Gives up the messages under way: the store has all of them. Only their counts stay.
    pub fn unload(&mut self) {
        self.release_idle();
        if self.is_unloaded() {
            return;
        }
        let counts = StoredCounts {
            queued: u32::try_from(self.mqueue_len()).unwrap_or(u32::MAX),
            inflight: u16::try_from(self.inflight_len()).expect("there are 65,535 packet ids"),
            awaiting_rel: u16::try_from(self.awaiting_rel_len()).expect("as many"),
        };
        if let Some(flow) = self.here() {
            self.next_packet_id = flow.inflight.next_id();
        }
        self.messages = Messages::Stored(counts);
    }

    /// A message was put into its queue in the store.
    pub fn appended(&mut self) {
        self.enqueued = self.enqueued.wrapping_add(1);
        if let Messages::Stored(counts) | Messages::Uncounted(counts) = &mut self.messages {
            counts.queued = counts.queued.saturating_add(1);
        }
    }

    /// Its queue in the store has lost so many messages.
    pub fn trimmed(&mut self, lost: u32) {
        self.dropped = self.dropped.saturating_add(lost);
        if let Messages::Stored(counts) = &mut self.messages {
            counts.queued = counts.queued.saturating_sub(lost);
        }
    }

    /// The last message that was put into its queue in the store was there already.
    pub fn had_before(&mut self) {
        if let Messages::Stored(counts) | Messages::Uncounted(counts) = &mut self.messages {
            counts.queued = counts.queued.saturating_sub(1);
        }
    }

    /// Its client is back, and the store has nothing for it.
    pub fn load_nothing(&mut self) {
        if self.is_unloaded() {
            assert!(!self.needs_load(), "what is in the store is loaded");
            self.messages = Messages::Here(None);
        }
    }

    /// Takes in what the store has of it: the window by packet ids, the queue in order, received ids. Nothing is under way yet.
    pub fn restore(
        &mut self,
        window: Vec<(PacketId, Awaiting)>,
        queue: Vec<(Delivery, u8)>,
        received: &[PacketId],
        now_ms: u64,
    ) {
        assert!(self.is_unloaded(), "messages are loaded before any is under way");
        self.messages = Messages::Here(None);
        if window.is_empty() && queue.is_empty() && received.is_empty() {
            return;
        }
        let flow = self.flow();
        if !window.is_empty() {
            flow.inflight = Inflight::restore(window, UNSENT);
        }
        flow.unsent = flow.inflight.len();
        let limits = MqueueLimits { length_max: 0, store_qos0: true };
        for (delivery, priority) in queue {
            flow.mqueue.push(delivery, priority, limits);
        }
        for &id in received {
            flow.awaiting_rel.receive(id, 0, now_ms);
        }
    }

    /// Takes the oldest queued message out while there are more than `length_max`, in the order a full queue loses them.
    pub fn displace_over(&mut self, length_max: usize) -> Option<Delivery> {
        let flow = self.here_mut().filter(|flow| flow.mqueue.len() > length_max)?;
        let displaced = flow.mqueue.displace();
        self.dropped = self.dropped.saturating_add(1);
        displaced
    }

    /// Ends the messages under way.
    pub fn take_undelivered(&mut self) -> Vec<Delivery> {
        let Messages::Here(flow) = &mut self.messages else { return Vec::new() };
        let Some(flow) = flow.take() else { return Vec::new() };
        let Flow { inflight, mut mqueue, .. } = *flow;
        let mut all: Vec<Delivery> = inflight.into_deliveries().collect();
        all.extend(std::iter::from_fn(|| mqueue.pop()));
        all
    }

    /// Whether it ends with its connection.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.expiry_interval_s == 0
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
