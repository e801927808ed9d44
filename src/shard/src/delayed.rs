//! Delayed messages: kept until they are due by the shard their topic belongs to, then published from there (SEED-PUB-16).
//!
//! That shard and not the publisher's: it is where a store finds it again by its slot, whatever the number of shards; a message
//! with RETAIN need not move any more; and one publisher's messages spread over all shards' shares of the limit. The
//! answer to the PUBLISH waits for that shard as it does for a retained message (`keepers`), so it can say that there is no room.
//!
//! The message expiry interval runs from when the message was received, as in EMQX: one that is shorter than the delay means that
//! it is never published. Where a message was published by a client that is gone meanwhile, it is published all the same.

use std::sync::Arc;

use metrics::{Counter, DropReason, Gauge};
use mqtt::{QoS, ReasonCode, topic};
use router::{home, slot};
use session::{Delay, Delayed, DelayedId, Message};

use crate::clients::Dispatch;
use crate::command::{DelayedRequest, DelayedRow, PAGE_ROWS_MAX, Page, Reply};
use crate::dispatch::Routed;
use crate::mesh::{Room, Target};
use crate::shard::Shard;

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
        let due_unix_ms = self.clients.now.unix_ms.saturating_add(delay_ms);
        let mut routed = Routed { destinations: 1, ..Routed::default() };
        let keeper = home(slot(dispatch.publication.topic.as_bytes()), self.shards);
        if keeper == self.id {
            let kept = self.keep_delayed(due_unix_ms, dispatch);
            routed.refused = (!kept).then_some(ReasonCode::QuotaExceeded);
            return routed;
        }
        let message = dispatch.message(&mut self.clients.message_ids, self.clients.now).clone();
        self.keepers.sent(keeper);
        let target = Target::Delayed { due_unix_ms };
        routed.mesh_full = self.mesh.send_shared(keeper, target, message) == Room::Full;
        routed.kept_at = Some(keeper);
        routed
    }

    /// Keeps a publication until it is due; false, and counted, if there is no room.
    pub(crate) fn keep_delayed(&mut self, due_unix_ms: u64, dispatch: &mut Dispatch<'_>) -> bool {
        // This shard's share of the node's limit; topics are spread evenly by their slots.
        let max = self.settings.delayed.max_messages.div_ceil(self.shards as u64);
        if self.delayed.len() as u64 >= max {
            self.clients.count_drop(dispatch.publication.qos, DropReason::QuotaExceeded);
            return false;
        }
        let message = dispatch.message(&mut self.clients.message_ids, self.clients.now).clone();
        self.add_delayed(due_unix_ms, message);
        self.clients.metrics.inc(Counter::MessagesDelayed);
        true
    }

    /// Keeps a message that was delayed before a restart; to be called on the shard its topic belongs to. What is overdue is
    /// published in the next ticks. No limit holds: it was within it once. `number` is the one it was added with.
    pub fn restore_delayed(&mut self, due_unix_ms: u64, number: u64, message: Arc<Message>) {
        self.delayed.insert(due_unix_ms, Delayed { number, message });
        self.gauge_delayed();
    }

    /// The one place where a delayed message is added.
    fn add_delayed(&mut self, due_unix_ms: u64, message: Arc<Message>) {
        let number = self.delayed.next_number();
        self.delayed.insert(due_unix_ms, Delayed { number, message });
        self.gauge_delayed();
    }

    /// The one place where one is taken out: it is due, or deleted.
    fn remove_delayed(&mut self, id: DelayedId) -> Option<Arc<Message>> {
        let delayed = self.delayed.remove(id)?;
        self.gauge_delayed();
        Some(delayed.message)
    }

    fn gauge_delayed(&self) {
        self.clients.metrics.set(Gauge::Delayed, self.delayed.len() as u64);
    }

    /// Publishes messages that are due, a slice of them. While a ring to another shard is full they wait: nobody could be
    /// paused for them.
    pub(crate) fn publish_due(&mut self) {
        let unix_ms = self.clients.now.unix_ms;
        for _ in 0..SLICE {
            let due = self.delayed.first().filter(|id| id.due_unix_ms <= unix_ms);
            let Some(id) = due.filter(|_| !self.mesh.has_blocked()) else { return };
            let message = self.remove_delayed(id).expect("looked at above");
            if message.is_expired(unix_ms) {
                self.clients.count_drop(message.qos, DropReason::Expired);
                continue;
            }
            self.clients.metrics.inc(Counter::MessagesDelayedPublished);
            let routed = self.route(&mut Dispatch::new(message.publication(), Some(&message)));
            if routed.mesh_full || self.clients.work > crate::packets::WORK_MAX {
                return;
            }
        }
    }

    /// When the next message is due, on the monotonic clock.
    pub(crate) fn next_delayed_ms(&self) -> Option<u64> {
        let due = self.delayed.first().filter(|_| !self.mesh.has_blocked())?;
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
