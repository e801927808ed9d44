//! What is asked about retained messages by command: their topics, how many they are, and to remove them; a part at a time
//! (SEED-CLI-58).

use std::sync::Arc;

use metrics::{DropKind, DropReason};
use mqtt::topic::has_wildcard;
use mqtt::{FilterKind, ParsedFilter, ReasonCode};
use router::ScanBudget;
use session::Message;

use crate::command::{
    PAGE_ROWS_MAX, PAGE_SLOTS_MAX, Page, Reply, RetainedPart, RetainedRow, RetainerRequest,
};
use crate::disc_only::{self, Asker, Purpose};
use crate::shard::Shard;
use crate::storage::RetainedQuery;

impl Shard {
    /// `None`: the answer comes when it is read.
    pub(crate) fn perform_retainer(
        &mut self,
        token: u64,
        request: RetainerRequest,
    ) -> Option<Reply> {
        if let RetainerRequest::Clean { filter, .. } = &request {
            let parsed = ParsedFilter::parse(filter, &self.limits).ok();
            if parsed.is_none_or(|parsed| parsed.kind != FilterKind::Plain) {
                return Some(Reply::Refused(ReasonCode::TopicFilterInvalid));
            }
        }
        if let Some(disc_only) = &mut self.disc_only {
            let (purpose, query) = on_disc(request);
            disc_only.ask(Asker::Command { token, purpose }, query);
            return None;
        }
        Some(match request {
            RetainerRequest::Page { cursor, limit } => {
                Reply::Retained(self.retained_page(cursor.as_deref(), limit))
            }
            RetainerRequest::Measure { cursor } => {
                Reply::RetainedPart(self.measure_retained(cursor.as_deref()))
            }
            RetainerRequest::Clean { filter, cursor } => {
                self.clean_retained(&filter, cursor.as_deref())
            }
        })
    }

    /// Answers a command with what was read for it.
    pub(crate) fn answer_retainer(&mut self, token: u64, purpose: Purpose, page: disc_only::Page) {
        let disc_only::Page { mut messages, next } = page;
        let mut next = next.map(String::from);
        let reply = match purpose {
            Purpose::List { limit } => {
                let limit = limit.min(PAGE_ROWS_MAX) as usize;
                if let Some(first) = messages.get(limit) {
                    next = Some(first.topic().to_owned());
                    messages.truncate(limit);
                }
                let rows = messages.iter().map(|message| retained_row(message)).collect();
                Reply::Retained(Page { rows, next })
            }
            Purpose::Measure | Purpose::Clean => {
                let mut part = RetainedPart { messages: 0, bytes: 0, next };
                for message in &messages {
                    if purpose == Purpose::Measure || self.clean_one(message.topic()) {
                        part.messages += 1;
                        part.bytes += message.len() as u64;
                    }
                }
                self.gauge_retained();
                Reply::RetainedPart(part)
            }
        };
        if purpose == Purpose::Clean {
            self.reply_when_kept(token, reply);
        } else {
            self.reply(token, reply);
        }
    }

    fn clean_one(&mut self, topic: &str) -> bool {
        let was_there = self.remove_retained(topic);
        if was_there {
            self.clients.metrics.count_drop(DropKind::Retained, DropReason::Deleted);
        }
        was_there
    }

    fn retained_page(&self, cursor: Option<&str>, limit: u32) -> Page<RetainedRow, String> {
        let mut topics = self.retained.iter_after(cursor);
        let limit = limit.min(PAGE_ROWS_MAX) as usize;
        let rows: Vec<_> =
            topics.by_ref().take(limit).map(|(_, message)| retained_row(message)).collect();
        let more = topics.next().is_some();
        Page { next: rows.last().filter(|_| more).map(|last| last.topic.clone()), rows }
    }

    fn measure_retained(&self, cursor: Option<&str>) -> RetainedPart {
        let mut part = RetainedPart { messages: 0, bytes: 0, next: None };
        let mut topics = self.retained.iter_after(cursor);
        let mut last = None;
        for (topic, message) in topics.by_ref().take(PAGE_SLOTS_MAX as usize) {
            part.messages += 1;
            part.bytes += message.len() as u64;
            last = Some(topic);
        }
        part.next = last.filter(|_| topics.next().is_some()).map(str::to_owned);
        part
    }

    fn clean_retained(&mut self, filter: &str, cursor: Option<&str>) -> Reply {
        let budget =
            ScanBudget { matches_max: PAGE_ROWS_MAX as usize, visits_max: PAGE_SLOTS_MAX as usize };
        let page = self.retained.scan(filter, cursor, budget);
        let next = page.next.map(str::to_owned);
        let found: Vec<Arc<Message>> =
            page.matches.iter().map(|(_, message)| Arc::clone(message)).collect();
        let mut part = RetainedPart { messages: 0, bytes: 0, next };
        for message in found {
            if self.clean_one(message.topic()) {
                part.messages += 1;
                part.bytes += message.len() as u64;
            }
        }
        self.gauge_retained();
        Reply::RetainedPart(part)
    }
}

fn retained_row(message: &Message) -> RetainedRow {
    RetainedRow {
        topic: message.topic().to_owned(),
        qos: message.qos,
        published_unix_ms: message.id.unix_ms(),
        payload_len: message.payload().len() as u64,
    }
}

/// What is read for a command where messages are on disk only. The cursor of such pages is the first topic of the next one.
fn on_disc(request: RetainerRequest) -> (Purpose, RetainedQuery) {
    let from = |cursor: Option<String>| cursor.map(String::into_boxed_str);
    match request {
        RetainerRequest::Page { cursor, limit } => {
            (Purpose::List { limit }, RetainedQuery::All { from: from(cursor) })
        }
        RetainerRequest::Measure { cursor } => {
            (Purpose::Measure, RetainedQuery::All { from: from(cursor) })
        }
        RetainerRequest::Clean { filter, .. } if !has_wildcard(&filter) => {
            (Purpose::Clean, RetainedQuery::Topic(filter.into()))
        }
        RetainerRequest::Clean { filter, cursor } => {
            let filter = filter.into_boxed_str();
            (Purpose::Clean, RetainedQuery::Matching { filter, from: from(cursor) })
        }
    }
}

#[cfg(test)]
mod tests {
    use session::{Message, MessageId, Publication};

    use crate::desk::{changes, connect, publish, stored};
    use crate::storage::{StoreOp, StoreReply};

    /// SEED-PUB-09: with `ram` nothing is kept on disk, and what an earlier start kept there goes.
    #[test]
    fn retained_messages_that_are_to_be_in_memory_only_leave_the_store() {
        for (storage, kept) in [("ram", 0), ("disc", 1)] {
            let (mut desk, batches, replies) = stored(&[("retainer.storage_type", storage)]);
            let publication = Publication { retain: true, ..Publication::new("a", b"x") };
            let message = Message::new(MessageId(1), &publication);
            let found = vec![message];
            replies.send(StoreReply::Retained(found)).unwrap();
            replies.send(StoreReply::Found { numbers_from: 1 }).unwrap();
            desk.shard.run_store();
            desk.tick(1, None);
            assert_eq!(desk.shard.retained.len(), kept);
            let publisher = desk.accept(0, "10.0.0.1:5");
            desk.tick(1, Some((publisher, &connect("p", 0))));
            let mut retained = publish("b", "x");
            retained[0] |= 1;
            desk.tick(1, Some((publisher, &retained)));
            assert_eq!(desk.shard.retained.len(), kept + 1);
            let ops = changes(&batches, &replies);
            match (storage, &ops[..]) {
                ("ram", [StoreOp::RemoveRetained { topic }]) => assert_eq!(&**topic, "a"),
                ("disc", [StoreOp::PutRetained { message }]) => assert_eq!(message.topic(), "b"),
                (_, ops) => panic!("{storage}: {ops:?}"),
            }
        }
    }
}
