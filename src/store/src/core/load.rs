//! Answers to what shards want to read while the broker runs.

use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use session::{Message, MessageId};
use shard::storage::{StoreReply, StoredEntry, StoredPlace, StoredSession};

use super::Damage;
use crate::codec::{keys, values};
use crate::engine::{EngineError, EngineRead, Keyspace};

/// Messages up to which nobody looks whether they are still in use.
const TIDY_LEAST: usize = 1024;

/// Shared messages that were read and that somebody still has: sessions that are read one after the other share them too.
#[derive(Debug, Default)]
pub struct Known {
    messages: HashMap<MessageId, Weak<Message>>,
    /// When there are so many, those that nobody has any more go.
    tidy_at: usize,
}

impl Known {
    fn get(&self, id: MessageId) -> Option<Arc<Message>> {
        self.messages.get(&id)?.upgrade()
    }

    fn insert(&mut self, message: &Arc<Message>) {
        self.messages.insert(message.id, Arc::downgrade(message));
        if self.messages.len() > self.tidy_at.max(TIDY_LEAST) {
            self.messages.retain(|_, message| message.strong_count() > 0);
            self.tidy_at = self.messages.len() * 2;
        }
    }
}

/// Reads the messages of a session. What is damaged is left out and counted.
///
/// # Errors
/// [`EngineError`]: nothing could be read.
pub fn load(
    read: &impl EngineRead,
    session: StoredSession,
    known: &mut Known,
    damage: &mut Damage,
) -> Result<StoreReply, EngineError> {
    let prefix = keys::session(session);
    let below = keys::behind(&prefix);
    let mut found: Vec<(StoredPlace, StoredEntry, values::EntryMessage)> = Vec::new();
    read.scan(Keyspace::Entries, &prefix, below.as_deref(), &mut |key, value| {
        match (keys::read_entry(key), values::read_entry(key, value)) {
            (Ok((_, place)), Ok((entry, message))) => found.push((place, entry, message)),
            _ => damage.values += 1,
        }
        ControlFlow::Continue(())
    })?;
    let mut received = Vec::new();
    read.scan(Keyspace::Received, &prefix, below.as_deref(), &mut |key, value| {
        match (keys::read_received(key), values::read_mark(key, value)) {
            (Ok((_, id)), Ok(())) => received.push(id),
            _ => damage.values += 1,
        }
        ControlFlow::Continue(())
    })?;
    let mut shared: HashMap<MessageId, Option<Arc<Message>>> = HashMap::new();
    let mut entries = Vec::with_capacity(found.len());
    for (place, mut entry, message) in found {
        entry.message = match message {
            values::EntryMessage::None => None,
            values::EntryMessage::Own(message) => Some(message),
            values::EntryMessage::Shared(id) => {
                let message = match shared.get(&id) {
                    Some(message) => message.clone(),
                    None => {
                        let message = match known.get(id) {
                            Some(message) => Some(message),
                            None => load_shared(read, id, damage)?,
                        };
                        if let Some(message) = &message {
                            known.insert(message);
                        }
                        shared.insert(id, message.clone());
                        message
                    }
                };
                // Without its message there is nothing to deliver.
                let Some(message) = message else { continue };
                Some(message)
            }
        };
        entries.push((place, entry));
    }
    Ok(StoreReply::Session { session, entries, received })
}

fn load_shared(
    read: &impl EngineRead,
    id: MessageId,
    damage: &mut Damage,
) -> Result<Option<Arc<Message>>, EngineError> {
    let key = keys::message(id);
    let message = read
        .get(Keyspace::Messages, &key)?
        .and_then(|value| values::read_message(&key, &value).ok());
    damage.values += u64::from(message.is_none());
    Ok(message)
}
