//! Answers to what shards want to read while the broker runs.

use std::ops::ControlFlow;
use std::sync::Arc;

use hashbrown::HashMap;
use session::{Message, MessageId};
use shard::storage::{StoreLoad, StoreReply, StoredEntry, StoredPlace, StoredSession};

use super::Damage;
use crate::codec::{keys, values};
use crate::engine::{EngineError, EngineRead, Keyspace};

/// Reads what was asked for. What is damaged is left out and counted.
///
/// # Errors
/// [`EngineError`]: nothing could be read.
pub fn load(
    read: &impl EngineRead,
    load: &StoreLoad,
    damage: &mut Damage,
) -> Result<StoreReply, EngineError> {
    match load {
        StoreLoad::Session(session) => load_session(read, *session, damage),
        StoreLoad::Retained { token, topics } => {
            let mut messages = Vec::with_capacity(topics.len());
            for topic in topics {
                let key = keys::retained(topic);
                let Some(value) = read.get(Keyspace::Retained, &key)? else { continue };
                match values::read_message(&key, &value) {
                    Ok(message) => messages.push(message),
                    Err(_) => damage.values += 1,
                }
            }
            Ok(StoreReply::RetainedMessages { token: *token, messages })
        }
    }
}

fn load_session(
    read: &impl EngineRead,
    session: StoredSession,
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
                    Some(known) => known.clone(),
                    None => {
                        let message = load_shared(read, id, damage)?;
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
