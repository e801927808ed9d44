//! Pages of retained messages that shards do not hold in memory. The keys are in the order of the topics' bytes, so a filter is
//! looked for as in [`router::RetainedIndex`]: what cannot match is passed over by a search.
//!
//! All shards' messages stand in one order. A page has those of one shard; of the others only the keys are looked at.

use std::ops::ControlFlow;
use std::sync::Arc;

use ring::ShardId;
use router::{ScanStep, home, scan_start, scan_step, slot};
use session::Message;
use shard::storage::{RetainedQuery, StoredRetainedPage};

use super::Damage;
use crate::codec::keys::{self, Key};
use crate::codec::values;
use crate::engine::{EngineError, EngineRead, Keyspace};

/// Most messages of a page.
const PAGE: usize = 128;
/// Most bytes of a page's messages, passed by one message at most.
const PAGE_BYTES: usize = 256 * 1024;
/// Most keys that are looked at for a page, passed by a few at most.
const VISITS: usize = 8192;
/// Keys that are passed over one by one before the next that may match is searched for.
const STEPS_BEFORE_SEEK: usize = 8;

/// Whose messages are read.
#[derive(Debug, Clone, Copy)]
pub struct RetainedOf {
    /// The shard that asks.
    pub shard: ShardId,
    /// How many there are.
    pub shards: usize,
}

impl RetainedOf {
    fn has(self, topic: &str) -> bool {
        home(slot(topic.as_bytes()), self.shards) == self.shard
    }
}

/// Reads a page of a shard's retained messages. What is damaged is left out and counted.
///
/// # Errors
/// [`EngineError`]: nothing could be read.
pub fn read_retained(
    read: &impl EngineRead,
    of: RetainedOf,
    query: &RetainedQuery,
    damage: &mut Damage,
) -> Result<StoredRetainedPage, EngineError> {
    match query {
        RetainedQuery::Topic(topic) => read_topic(read, topic, damage),
        RetainedQuery::Matching { filter, from } => {
            let start = scan_start(filter);
            let from = from.as_deref().filter(|from| *from > start).unwrap_or(start);
            read_page(read, of, Some(filter), from, damage)
        }
        RetainedQuery::All { from } => {
            read_page(read, of, None, from.as_deref().unwrap_or(""), damage)
        }
    }
}

fn read_topic(
    read: &impl EngineRead,
    topic: &str,
    damage: &mut Damage,
) -> Result<StoredRetainedPage, EngineError> {
    let mut page = StoredRetainedPage::default();
    let key = keys::retained(topic);
    if let Some(value) = read.get(Keyspace::Retained, &key)? {
        take(&key, &value, &mut page.messages, damage);
    }
    Ok(page)
}

/// Takes a message, if there is one. Says how many bytes.
fn take(key: &[u8], value: &[u8], into: &mut Vec<Arc<Message>>, damage: &mut Damage) -> usize {
    match values::read_message(key, value) {
        // One without payload says that the topic has none.
        Ok(message) if message.payload().is_empty() => 0,
        Ok(message) => {
            let bytes = message.len();
            into.push(message);
            bytes
        }
        Err(_) => {
            damage.values += 1;
            0
        }
    }
}

/// What a scan stopped for.
enum Stop {
    /// Nothing more can match.
    End,
    /// The next topic that may match is far.
    Seek,
    /// The page is full; this is the next topic.
    Full(Box<str>),
}

fn read_page(
    read: &impl EngineRead,
    of: RetainedOf,
    filter: Option<&str>,
    from: &str,
    damage: &mut Damage,
) -> Result<StoredRetainedPage, EngineError> {
    let mut page = StoredRetainedPage::default();
    let mut target = from.to_owned();
    let mut search = String::new();
    let (mut visits, mut bytes) = (0, 0);
    // Topics that are too long for a key have another front, and are not kept.
    let below = keys::behind(&keys::retained_from(""));
    loop {
        let start: Key = keys::retained_from(&target);
        let (mut stop, mut passed) = (Stop::End, 0);
        read.scan(Keyspace::Retained, &start, below.as_deref(), &mut |key, value| {
            let Ok(Some(topic)) = keys::read_retained(key) else {
                damage.values += 1;
                return ControlFlow::Continue(());
            };
            if visits >= VISITS || page.messages.len() >= PAGE || bytes >= PAGE_BYTES {
                stop = Stop::Full(topic.into());
                return ControlFlow::Break(());
            }
            visits += 1;
            // What was searched for is not there yet.
            if passed > 0 && topic < target.as_str() {
                passed += 1;
                if passed > STEPS_BEFORE_SEEK {
                    stop = Stop::Seek;
                    return ControlFlow::Break(());
                }
                return ControlFlow::Continue(());
            }
            passed = 0;
            let step =
                filter.map_or(ScanStep::Match, |filter| scan_step(filter, topic, &mut search));
            match step {
                ScanStep::Match if of.has(topic) => {
                    bytes += take(key, value, &mut page.messages, damage);
                }
                ScanStep::Match => {}
                ScanStep::Seek => {
                    std::mem::swap(&mut target, &mut search);
                    passed = 1;
                }
                ScanStep::End => return ControlFlow::Break(()),
            }
            ControlFlow::Continue(())
        })?;
        match stop {
            Stop::End => return Ok(page),
            Stop::Seek => {}
            Stop::Full(next) => {
                page.next = Some(next);
                return Ok(page);
            }
        }
    }
}

#[cfg(test)]
mod tests;
