//! Delayed messages: kept until they are due by the shard their topic belongs to, then published from there (SEED-PUB-16).
//!
//! That shard and not the publisher's: it is where a store finds it again by its slot, whatever the number of shards; and a message
//! with RETAIN need not move any more. The answer to the PUBLISH waits for that shard as it does for a retained message
//! (`barrier`). Whether there is room the publisher's shard knows at once: the limit counts the messages of the node.
//!
//! With a store they outlive the broker, of whatever `QoS`. One that is due leaves the store in the batch that has what became of it
//! here; until other shards have it too it stays there as one that is on its way (`Shard::keep_until_kept`).
//!
//! The message expiry interval runs from when the message was received, as in EMQX: one that is shorter than the delay means that
//! it is never published. Where a message was published by a client that is gone meanwhile, it is published all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, DropReason, Gauge};
use mqtt::{QoS, ReasonCode, topic};
use router::{home, slot};
use session::{Delay, Delayed, DelayedId, Message};

use crate::clients::Dispatch;
use crate::command::{DelayedRequest, DelayedRow, PAGE_ROWS_MAX, Page, Reply};
use crate::dispatch::{Routed, send_message};
use crate::journal::Journal;
use crate::mesh::{Room, Target};
use crate::shard::Shard;
use crate::storage::StoredDelayed;

/// Messages published in one tick: those that are due at one time, however many, do not keep clients waiting.
const SLICE: usize = 256;
/// The clock of days may be set while a shard sleeps: it looks at it this often.
const LOOK_MS_MAX: u64 = 60_000;

/// When a publication is to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Now,
    /// After so many milliseconds.
    After(u64),
}

/// How many delayed messages there may be and are, of all shards together: the limit is one of the node, as
/// [`crate::ListenerClients`] has those of a listener. Touched by delayed messages only, when they come and go.
#[derive(Debug)]
pub struct DelayedPlaces {
    max: u64,
    taken: AtomicU64,
}

impl DelayedPlaces {
    /// With room for so many; `u64::MAX` for no limit.
    #[must_use]
    pub fn new(max: u64) -> Self {
        Self { max, taken: AtomicU64::new(0) }
    }

    /// Takes a place for a message; false if there is none.
    fn take(&self) -> bool {
        let room = |taken| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    /// Takes a place for a message that was within the limit once.
    fn take_back(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    fn leave(&self) {
        let before = self.taken.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a delayed message left that never came");
    }
}

impl Shard {
    /// Takes the delay off a topic a client publishes to.
    ///
    /// # Errors
    /// The delay is none or too long, or what stands behind it is no topic: counted, and the reason to answer with.
    pub(crate) fn split_delay<'a>(
        &self,
        text: &'a str,
        qos: QoS,
    ) -> Result<(When, &'a str), ReasonCode> {
        if !self.settings.delayed.enable {
            return Ok((When::Now, text));
        }
        match Delay::of(text) {
            Delay::None => Ok((When::Now, text)),
            Delay::After { topic: name, seconds }
                if topic::validate_name(name, &self.limits).is_ok() =>
            {
                if seconds > u64::from(self.settings.delayed.max_delay_s) {
                    self.clients.count_drop(qos, DropReason::QuotaExceeded);
                    return Err(ReasonCode::QuotaExceeded);
                }
                Ok((When::After(seconds * 1000), name))
            }
            Delay::After { .. } | Delay::Malformed => {
                self.clients.count_drop(qos, DropReason::DelayInvalid);
                Err(ReasonCode::TopicNameInvalid)
            }
        }
    }

    /// Routes a publication, or takes it to the shard that keeps it until it is due.
    pub(crate) fn route_when(&mut self, when: When, dispatch: &mut Dispatch<'_>) -> Routed {
        let When::After(delay_ms) = when else { return self.route(dispatch) };
        let mut routed = Routed { destinations: 1, ..Routed::default() };
        if !self.delayed_places.take() {
            self.clients.count_drop(dispatch.publication.qos, DropReason::QuotaExceeded);
            routed.refused = Some(ReasonCode::QuotaExceeded);
            return routed;
        }
        routed.due_unix_ms = self.clients.now.unix_ms.saturating_add(delay_ms);
        routed.mesh_full = self.take_to_keeper(routed.due_unix_ms, dispatch) == Room::Full;
        routed.remote = dispatch.remote;
        routed.held = dispatch.held.take().unwrap_or_default();
        routed
    }

    /// Takes a delayed publication that has its place to the shard its topic belongs to.
    fn take_to_keeper(&mut self, due_unix_ms: u64, dispatch: &mut Dispatch<'_>) -> Room {
        let keeper = home(slot(dispatch.publication.topic.as_bytes()), self.shards);
        if keeper == self.id {
            self.keep_delayed(due_unix_ms, dispatch);
            return Room::Free;
        }
        let target = Target::Delayed { due_unix_ms };
        send_message(&mut self.clients, &mut self.mesh, keeper, target, dispatch)
    }

    /// Keeps a publication that has its place until it is due. One that is here already gives its place back: it was on its way
    /// when the broker ended, and had arrived.
    pub(crate) fn keep_delayed(&mut self, due_unix_ms: u64, dispatch: &mut Dispatch<'_>) {
        let message = dispatch.message(&mut self.clients.message_ids, self.clients.now).clone();
        if self.delayed.get(DelayedId { due_unix_ms, message: message.id }).is_some() {
            self.delayed_places.leave();
            return;
        }
        self.clients.metrics.inc(Counter::MessagesDelayed);
        let number = match &mut self.clients.journal {
            Some(journal) => {
                let number = journal.next_number();
                let slot = slot(message.topic().as_bytes());
                let message = message.clone();
                journal.put_delayed(StoredDelayed { slot, number, due_unix_ms, message });
                number
            }
            None => self.delayed.next_number(),
        };
        self.delayed.insert(due_unix_ms, Delayed { number, message });
        self.gauge_delayed();
    }

    /// Takes a message back that was delayed when the broker ended; to be called on the shard its topic belongs to. What is
    /// overdue is published in the next ticks. No limit holds: it was within it once. `number` is the one it is stored with.
    pub fn restore_delayed(&mut self, due_unix_ms: u64, number: u64, message: Arc<Message>) {
        self.delayed_places.take_back();
        self.delayed.insert(due_unix_ms, Delayed { number, message });
        self.gauge_delayed();
    }

    /// Takes a delayed message that was on its way to its keeper when the broker ended there, again.
    pub(crate) fn delay_again(&mut self, due_unix_ms: u64, dispatch: &mut Dispatch<'_>) {
        self.delayed_places.take_back();
        self.take_to_keeper(due_unix_ms, dispatch);
    }

    /// The one place where one is taken out: it is due, or deleted.
    fn remove_delayed(&mut self, id: DelayedId) -> Option<Arc<Message>> {
        let Delayed { number, message } = self.delayed.remove(id)?;
        self.delayed_places.leave();
        if let Some(journal) = &mut self.clients.journal {
            journal.remove_delayed(slot(message.topic().as_bytes()), number);
        }
        self.gauge_delayed();
        Some(message)
    }

    fn gauge_delayed(&self) {
        self.clients.metrics.set(Gauge::Delayed, self.delayed.len() as u64);
    }

    /// Whether one that is due may be published. It waits until all subscriptions are known, and while a ring to another shard or
    /// the journal is full: nobody could be paused for it.
    fn may_publish_due(&self) -> bool {
        let is_full = self.clients.journal.as_ref().is_some_and(Journal::is_full);
        let is_ending = self.shutdown.is_some();
        !is_ending && !self.recovery.holds() && !self.mesh.has_blocked() && !is_full
    }

    /// Publishes messages that are due, a slice of them.
    pub(crate) fn publish_due(&mut self) {
        let unix_ms = self.clients.now.unix_ms;
        for _ in 0..SLICE {
            let due = self.delayed.first().filter(|id| id.due_unix_ms <= unix_ms);
            let Some(id) = due.filter(|_| self.may_publish_due()) else { return };
            let message = self.remove_delayed(id).expect("looked at above");
            if message.is_expired(unix_ms) {
                self.clients.count_drop(message.qos, DropReason::Expired);
                continue;
            }
            self.clients.metrics.inc(Counter::MessagesDelayedPublished);
            let mut dispatch = Dispatch::new(message.publication(), Some(&message));
            if self.clients.is_always() && message.qos != QoS::AtMostOnce {
                dispatch.hold_back();
            }
            let routed = self.route(&mut dispatch);
            if !routed.remote.is_empty() && message.qos != QoS::AtMostOnce {
                let slot = slot(message.topic().as_bytes());
                self.keep_until_kept(slot, 0, message, routed.remote, routed.held);
            }
            if routed.mesh_full || self.clients.work > crate::turns::WORK_MAX {
                return;
            }
        }
    }

    /// When the next message is due, on the monotonic clock.
    pub(crate) fn next_delayed_ms(&self) -> Option<u64> {
        let due = self.delayed.first().filter(|_| self.may_publish_due())?;
        let left_ms = due.due_unix_ms.saturating_sub(self.clients.now.unix_ms);
        Some(self.clients.now.mono_ms + left_ms.min(LOOK_MS_MAX))
    }

    /// Answers what is asked about delayed messages.
    pub(crate) fn perform_delayed(&mut self, request: DelayedRequest) -> Reply {
        match request {
            DelayedRequest::Page { cursor, limit } => {
                Reply::Delayed(self.delayed_page(cursor, limit))
            }
            DelayedRequest::Show(id) => self.delayed_show(id),
            DelayedRequest::Delete(id) => self.delayed_delete(id),
        }
    }

    /// A page of the messages that wait, in the order they are due.
    fn delayed_page(&self, cursor: Option<DelayedId>, limit: u32) -> Page<DelayedRow, DelayedId> {
        let limit = limit.min(PAGE_ROWS_MAX) as usize;
        let mut waiting = self.delayed.iter_after(cursor);
        let rows: Vec<_> =
            waiting.by_ref().take(limit).map(|(id, message)| row(id, message)).collect();
        let last = rows.last().map(|row: &DelayedRow| row.id);
        Page { next: last.filter(|_| waiting.next().is_some()), rows }
    }

    fn delayed_show(&self, id: DelayedId) -> Reply {
        let with_payload = |message: &Arc<Message>| DelayedRow {
            payload: Some(message.payload().into()),
            ..row(id, message)
        };
        Reply::DelayedMessage(self.delayed.get(id).map(|message| Box::new(with_payload(message))))
    }

    fn delayed_delete(&mut self, id: DelayedId) -> Reply {
        let Some(message) = self.remove_delayed(id) else { return Reply::NotFound };
        self.clients.count_drop(message.qos, DropReason::Deleted);
        Reply::Done
    }
}

fn row(id: DelayedId, message: &Message) -> DelayedRow {
    DelayedRow {
        id,
        topic: message.topic().to_owned(),
        qos: message.qos,
        retain: message.retain,
        published_unix_ms: message.id.unix_ms(),
        payload_len: message.payload().len() as u64,
        payload: None,
    }
}

#[cfg(test)]
mod tests;
