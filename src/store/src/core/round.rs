//! One round: the changes of its batches, put together over what the engine has, until they are written at once.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use mqtt::QoS;
use ring::ShardId;
use session::{Message, MessageId};
use shard::storage::{
    PASSED_ON, PutAs, StoreBatch, StoreOp, StoreReply, StoredDelayed, StoredEntry, StoredPlace,
    StoredSession, StoredState, is_as_new,
};

use super::{Damage, Outcome};
use crate::codec::keys::{self, Key};
use crate::codec::values::{self, Applied, EntryMessage, EntryOutline};
use crate::engine::{Change, EngineError, EngineRead, Keyspace, Visit};

/// Most keys of a session that ends within a round; one with more is marked and removed in slices.
const REMOVED_AT_ONCE: usize = 512;

/// Most messages in one reply about a session that ended.
const GIVEN_BACK_AT_ONCE: usize = 256;

/// Most sessions of which it is remembered where their queue begins.
const QUEUES_MAX: usize = 65_536;

/// A key that is changed.
struct Pending {
    value: Option<Vec<u8>>,
    /// The engine has nothing under this key: when it is removed again, there is nothing to write.
    is_new: bool,
}

/// How the use of a shared message changes.
#[derive(Default)]
struct Use {
    change: i64,
    message: Option<Arc<Message>>,
}

/// A session that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    pub(super) session: StoredSession,
    /// Who is to be told what was lost with it.
    pub(super) tell: Option<ShardId>,
}

/// A round that is being put together.
pub(super) struct Round<'e, E> {
    engine: &'e E,
    pending: [BTreeMap<Key, Pending>; Keyspace::COUNT],
    uses: HashMap<MessageId, Use>,
    /// The messages of sessions that were asked about.
    known: HashMap<StoredSession, HashSet<MessageId>>,
    /// Where the queue of a session begins that was trimmed: before it there is much that was removed, and a scan would pass over
    /// all of it again.
    queues_from: HashMap<StoredSession, Key>,
    ended: Vec<Ending>,
    outcome: Outcome,
    damage: Damage,
}

/// A round that is ready to be written.
pub(super) struct Finished {
    pub(super) changes: Vec<Change>,
    pub(super) outcome: Outcome,
    /// Sessions that are marked as ended.
    pub(super) ended: Vec<Ending>,
    pub(super) queues_from: HashMap<StoredSession, Key>,
    pub(super) damage: Damage,
}

impl<'e, E: EngineRead> Round<'e, E> {
    pub(super) fn new(engine: &'e E, damage: Damage) -> Self {
        Self {
            engine,
            pending: Default::default(),
            uses: HashMap::new(),
            known: HashMap::new(),
            queues_from: HashMap::new(),
            ended: Vec::new(),
            outcome: Outcome::default(),
            damage,
        }
    }

    /// What the round before found out about where queues begin.
    pub(super) fn with_queues_from(mut self, queues_from: HashMap<StoredSession, Key>) -> Self {
        self.queues_from = queues_from;
        self
    }

    pub(super) fn apply(&mut self, shard: ShardId, batch: &StoreBatch) -> Result<(), EngineError> {
        for op in &batch.ops {
            self.outcome.ops += 1;
            self.op(shard, op)?;
        }
        self.outcome.batches += 1;
        self.outcome.loads.extend(batch.loads.iter().map(|&session| (shard, session)));
        Ok(())
    }

    /// Changes that are no shard's.
    pub(super) fn apply_own(&mut self, ops: &[StoreOp]) -> Result<(), EngineError> {
        ops.iter().try_for_each(|op| self.op(ShardId::new(0), op))
    }

    pub(super) fn put(&mut self, keyspace: Keyspace, key: &[u8], value: Vec<u8>) {
        self.set(keyspace, Key::from_slice(key), value, false);
    }

    /// What is to be written. The record of what was applied is part of it.
    pub(super) fn finish(mut self, applied: Applied) -> Result<Finished, EngineError> {
        self.count()?;
        let key = keys::meta::APPLIED;
        self.put(Keyspace::Meta, key, values::applied(key, applied));
        let mut changes = Vec::with_capacity(self.pending.iter().map(BTreeMap::len).sum());
        for (keyspace, pending) in Keyspace::ALL.into_iter().zip(self.pending) {
            let removed = pending.values().filter(|pending| pending.value.is_none()).count();
            self.outcome.removed[keyspace.index()] = removed as u64;
            changes.extend(pending.into_iter().map(|(key, pending)| Change {
                keyspace,
                key,
                value: pending.value,
            }));
        }
        self.outcome.keys = changes.len() as u64;
        if self.queues_from.len() > QUEUES_MAX {
            self.queues_from.clear();
        }
        let Self { outcome, ended, queues_from, damage, .. } = self;
        Ok(Finished { changes, outcome, ended, queues_from, damage })
    }

    fn op(&mut self, shard: ShardId, op: &StoreOp) -> Result<(), EngineError> {
        match op {
            StoreOp::PutSession { session, head } => {
                let key = keys::session(*session);
                let value = values::head(&key, head);
                self.set(Keyspace::Sessions, key, value, false);
            }
            StoreOp::RemoveSession { session, tell } => {
                let ending = Ending { session: *session, tell: tell.then_some(shard) };
                self.remove_session(ending)?;
            }
            StoreOp::PutSubscription { session, subscription } => {
                let key = keys::subscription(*session, &subscription.filter);
                let value = values::subscription(&key, subscription);
                self.set(Keyspace::Subscriptions, key, value, false);
            }
            StoreOp::RemoveSubscription { session, filter } => {
                self.remove(Keyspace::Subscriptions, keys::subscription(*session, filter));
            }
            StoreOp::PutEntry { session, place, put, entry } => {
                self.put_entry(shard, *session, *place, *put, entry)?;
            }
            StoreOp::RemoveEntry { session, place } => {
                let key = keys::entry(*session, *place);
                self.release_use(*place, &key)?;
                self.remove(Keyspace::Entries, key);
            }
            StoreOp::PutReceived { session, packet_id } => {
                let key = keys::received(*session, *packet_id);
                let value = values::mark(&key);
                self.set(Keyspace::Received, key, value, false);
            }
            StoreOp::RemoveReceived { session, packet_id } => {
                self.remove(Keyspace::Received, keys::received(*session, *packet_id));
            }
            StoreOp::Trim { session, keep } => self.trim(shard, *session, *keep)?,
            StoreOp::PutRetained { message } => {
                let key = keys::retained(message.topic());
                let value = values::message(&key, message);
                self.set(Keyspace::Retained, key, value, false);
            }
            StoreOp::RetainAgain { message } => self.retain_again(shard, message)?,
            StoreOp::RemoveRetained { topic } => {
                self.remove(Keyspace::Retained, keys::retained(topic));
            }
            StoreOp::PutDelayed(delayed) => {
                let key = keys::delayed(delayed.slot, delayed.number);
                let value = values::delayed(&key, delayed);
                self.set(Keyspace::Delayed, key, value, false);
            }
            StoreOp::PutBan(ban) => {
                let key = keys::ban(&ban.who);
                let value = values::ban(&key, ban);
                self.set(Keyspace::Meta, key, value, false);
            }
            StoreOp::RemoveBan(who) => self.remove(Keyspace::Meta, keys::ban(who)),
            StoreOp::RemoveDelayed { slot, number } => {
                self.remove(Keyspace::Delayed, keys::delayed(*slot, *number));
            }
        }
        Ok(())
    }

    /// Retains a message that was on its way when the broker ended, unless what its topic has is as new.
    fn retain_again(&mut self, shard: ShardId, message: &Arc<Message>) -> Result<(), EngineError> {
        let key = keys::retained(message.topic());
        let known = self.value(Keyspace::Retained, &key)?;
        let outline = known.as_deref().map(|known| values::read_retained_outline(&key, known));
        self.damage.values += u64::from(matches!(outline, Some(Err(_))));
        let row = match outline {
            Some(Ok(known)) if is_as_new(known.id, message.id) => known.row(),
            _ => {
                let value = values::message(&key, message);
                let row = values::read_retained_outline(&key, &value).map(|again| again.row());
                self.set(Keyspace::Retained, key, value, false);
                row.expect("it was just written")
            }
        };
        self.outcome.replies.push((shard, StoreReply::RetainedIs(row)));
        Ok(())
    }

    /// The value of a key with the changes so far.
    fn value(&self, keyspace: Keyspace, key: &Key) -> Result<Option<Vec<u8>>, EngineError> {
        match self.pending[keyspace.index()].get(key) {
            Some(pending) => Ok(pending.value.clone()),
            None => self.engine.get(keyspace, key),
        }
    }

    fn put_entry(
        &mut self,
        shard: ShardId,
        session: StoredSession,
        place: StoredPlace,
        put: PutAs,
        entry: &StoredEntry,
    ) -> Result<(), EngineError> {
        if put == PutAs::NewUnlessKnown && !self.is_unknown(session, entry)? {
            self.outcome.replies.push((shard, StoreReply::Known { session }));
            return Ok(());
        }
        let is_new = put != PutAs::Changed;
        if let Some(message) = entry.message.as_ref().filter(|_| is_new && place.is_shared()) {
            let used = self.uses.entry(message.id).or_default();
            used.change += 1;
            used.message.get_or_insert_with(|| Arc::clone(message));
        }
        let key = keys::entry(session, place);
        if !is_new && entry.message.is_none() {
            self.release_use(place, &key)?;
        }
        if entry.state == StoredState::Queued
            && self.queues_from.get(&session).is_some_and(|from| key < *from)
        {
            self.queues_from.remove(&session);
        }
        let value = values::entry(&key, place, entry);
        self.set(Keyspace::Entries, key, value, is_new);
        Ok(())
    }

    /// The entry under this key uses its message no more, if it is there and does.
    fn release_use(&mut self, place: StoredPlace, key: &Key) -> Result<(), EngineError> {
        if !place.is_shared() {
            return Ok(());
        }
        let stored;
        let value = match self.pending[Keyspace::Entries.index()].get(key) {
            Some(pending) => pending.value.as_deref(),
            None => {
                stored = self.engine.get(Keyspace::Entries, key)?;
                stored.as_deref()
            }
        };
        match value.map(|value| values::read_entry_outline(key, value)) {
            Some(Ok(EntryOutline { uses: Some(message), .. })) => self.release(message),
            Some(Err(_)) => self.damage.values += 1,
            Some(Ok(_)) | None => {}
        }
        Ok(())
    }

    /// Whether a session has the message of an entry in no other one; it has it now. Its queue is looked through once in a round.
    fn is_unknown(
        &mut self,
        session: StoredSession,
        entry: &StoredEntry,
    ) -> Result<bool, EngineError> {
        let wanted = match (&entry.message, entry.state) {
            (Some(message), _) => message.id,
            (None, StoredState::Released(_, message)) => message,
            (None, _) => return Ok(true),
        };
        if !self.known.contains_key(&session) {
            let mut known = HashSet::new();
            self.show_under(Keyspace::Entries, &keys::session(session), &mut |key, value| {
                let outline = values::read_entry_outline(key, value);
                known.extend(outline.ok().and_then(|outline| outline.message));
                ControlFlow::Continue(())
            })?;
            self.known.insert(session, known);
        }
        Ok(self.known.entry(session).or_default().insert(wanted))
    }

    fn release(&mut self, message: MessageId) {
        self.uses.entry(message).or_default().change -= 1;
    }

    fn remove_session(&mut self, ending: Ending) -> Result<(), EngineError> {
        self.remove(Keyspace::Sessions, keys::session(ending.session));
        self.give_back(ending)?;
        if !self.remove_some(ending, REMOVED_AT_ONCE)? {
            let key = keys::ended(ending.session);
            let value = values::mark(&key);
            self.set(Keyspace::Meta, key, value, true);
            self.ended.push(ending);
        }
        Ok(())
    }

    /// Messages that other members of a shared group may get do not end with the session: in the same round they become messages
    /// on their way, and its shard is told to pass them on.
    fn give_back(&mut self, ending: Ending) -> Result<(), EngineError> {
        let Ending { session, tell: Some(shard) } = ending else { return Ok(()) };
        let mut found: Vec<(Key, StoredPlace, EntryMessage)> = Vec::new();
        self.show_under(Keyspace::Entries, &keys::session(session), &mut |key, value| {
            // What cannot be read is counted when it is removed.
            if let Ok(outline) = values::read_entry_outline(key, value)
                && outline.by_group
                && outline.qos == QoS::AtLeastOnce
                && !outline.is_released
                && let Ok((_, place)) = keys::read_entry(key)
                && let Ok((_, message)) = values::read_entry(key, value)
            {
                found.push((Key::from_slice(key), place, message));
            }
            ControlFlow::Continue(())
        })?;
        let mut given = Vec::new();
        for (key, place, message) in found {
            let (message, uses) = match message {
                EntryMessage::Own(message) => (message, None),
                EntryMessage::Shared(id) => match self.message(id)? {
                    Some(message) => (message, Some(id)),
                    None => continue,
                },
                EntryMessage::None => continue,
            };
            self.remove(Keyspace::Entries, key);
            if let Some(id) = uses {
                self.release(id);
            }
            // Numbers of places and of delayed messages are given out by one counter.
            let (slot, number) = (session.slot, place.number());
            let delayed = StoredDelayed { slot, number, due_unix_ms: PASSED_ON, message };
            let key = keys::delayed(slot, number);
            let value = values::delayed(&key, &delayed);
            self.set(Keyspace::Delayed, key, value, true);
            given.push(delayed);
        }
        while !given.is_empty() {
            let rest = given.split_off(given.len().min(GIVEN_BACK_AT_ONCE));
            let by_group = std::mem::replace(&mut given, rest);
            let reply = StoreReply::Ended { session, lost: [0; 3], by_group, is_last: false };
            self.outcome.replies.push((shard, reply));
        }
        Ok(())
    }

    /// Removes up to `most` keys of what a session had. Says whether that was all.
    pub(super) fn remove_some(&mut self, ending: Ending, most: usize) -> Result<bool, EngineError> {
        let Ending { session, tell } = ending;
        let prefix = keys::session(session);
        let mut gone: Vec<(Keyspace, Key, Option<MessageId>)> = Vec::new();
        let mut lost = [0; 3];
        let mut is_last = true;
        let mut damaged = 0;
        for keyspace in [Keyspace::Subscriptions, Keyspace::Received, Keyspace::Entries] {
            self.show_under(keyspace, &prefix, &mut |key, value| {
                if gone.len() == most {
                    is_last = false;
                    return ControlFlow::Break(());
                }
                let mut uses = None;
                if keyspace == Keyspace::Entries {
                    match values::read_entry_outline(key, value) {
                        Ok(outline) => {
                            uses = outline.uses;
                            lost[usize::from(outline.qos.bits())] +=
                                u32::from(!outline.is_released);
                        }
                        Err(_) => damaged += 1,
                    }
                }
                gone.push((keyspace, Key::from_slice(key), uses));
                ControlFlow::Continue(())
            })?;
        }
        self.damage.values += damaged;
        if let Some(shard) = tell {
            let reply = StoreReply::Ended { session, lost, by_group: Vec::new(), is_last };
            self.outcome.replies.push((shard, reply));
        }
        for (keyspace, key, uses) in gone {
            self.remove(keyspace, key);
            if let Some(message) = uses {
                self.release(message);
            }
        }
        Ok(is_last)
    }

    /// A shared message.
    fn message(&self, id: MessageId) -> Result<Option<Arc<Message>>, EngineError> {
        if let Some(message) = self.uses.get(&id).and_then(|used| used.message.clone()) {
            return Ok(Some(message));
        }
        let key = keys::message(id);
        let value = self.engine.get(Keyspace::Messages, &key)?;
        Ok(value.and_then(|value| values::read_message(&key, &value).ok()))
    }

    /// Nothing is left of a session that has ended.
    pub(super) fn forget_ended(&mut self, session: StoredSession) {
        self.remove(Keyspace::Meta, keys::ended(session));
    }

    fn trim(
        &mut self,
        shard: ShardId,
        session: StoredSession,
        keep: u32,
    ) -> Result<(), EngineError> {
        let mut queued: Vec<(Key, EntryOutline)> = Vec::new();
        let mut damaged = 0;
        let prefix = keys::session(session);
        let from = self.queues_from.get(&session).unwrap_or(&prefix);
        self.show_from(Keyspace::Entries, from, &prefix, &mut |key, value| {
            match values::read_entry_outline(key, value) {
                Ok(outline) if outline.is_queued => queued.push((Key::from_slice(key), outline)),
                Ok(_) => {}
                Err(_) => damaged += 1,
            }
            ControlFlow::Continue(())
        })?;
        self.damage.values += damaged;
        let excess = queued.len().saturating_sub(keep as usize);
        // As `session::Mqueue` displaces them; they are in the order of their places, and the sort keeps it.
        queued.sort_by_key(|(_, outline)| (outline.qos != QoS::AtMostOnce, outline.priority));
        let mut lost = [0; 3];
        if let Some(first) = queued[excess..].iter().map(|(key, _)| key).min() {
            self.queues_from.insert(session, first.clone());
        }
        for (key, outline) in queued.into_iter().take(excess) {
            self.remove(Keyspace::Entries, key);
            lost[usize::from(outline.qos.bits())] += 1;
            if let Some(message) = outline.uses {
                self.release(message);
            }
        }
        self.outcome.replies.push((shard, StoreReply::Trimmed { session, lost }));
        Ok(())
    }

    fn set(&mut self, keyspace: Keyspace, key: Key, value: Vec<u8>, is_new: bool) {
        let pending =
            self.pending[keyspace.index()].entry(key).or_insert(Pending { value: None, is_new });
        pending.value = Some(value);
    }

    fn remove(&mut self, keyspace: Keyspace, key: Key) {
        let pending = &mut self.pending[keyspace.index()];
        if pending.get(&key).is_some_and(|pending| pending.is_new) {
            pending.remove(&key);
        } else {
            pending.insert(key, Pending { value: None, is_new: false });
        }
    }

    /// Shows what is under a prefix with the changes so far, in order.
    fn show_under(
        &self,
        keyspace: Keyspace,
        prefix: &[u8],
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        self.show_from(keyspace, prefix, prefix, visit)
    }

    /// The same from a key on.
    fn show_from(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        prefix: &[u8],
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let mut pending = self.pending[keyspace.index()]
            .range(Key::from_slice(from)..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .peekable();
        let mut flow = ControlFlow::Continue(());
        let below = keys::behind(prefix);
        self.engine.scan(keyspace, from, below.as_deref(), &mut |key, value| {
            while let Some((earlier, change)) = pending.next_if(|(own, _)| own.as_slice() < key) {
                if let Some(value) = &change.value {
                    flow = visit(earlier, value);
                    flow?;
                }
            }
            let changed = pending.next_if(|(own, _)| own.as_slice() == key);
            flow = match changed.map(|(_, change)| &change.value) {
                None => visit(key, value),
                Some(Some(changed)) => visit(key, changed),
                Some(None) => ControlFlow::Continue(()),
            };
            flow
        })?;
        for (key, change) in pending {
            if flow.is_break() {
                break;
            }
            if let Some(value) = &change.value {
                flow = visit(key, value);
            }
        }
        Ok(())
    }

    /// Turns the uses of the round into counts: one read and at most two changes for each message.
    fn count(&mut self) -> Result<(), EngineError> {
        for (id, used) in std::mem::take(&mut self.uses) {
            if used.change == 0 {
                continue;
            }
            let key = keys::message(id);
            let before = match self.engine.get(Keyspace::Counts, &key)? {
                Some(value) => match values::read_number(&key, &value) {
                    Ok(count) => count,
                    Err(_) => {
                        // Others may use the message: it stays, and so does what cannot be read.
                        self.damage.values += 1;
                        continue;
                    }
                },
                None => 0,
            };
            let after = before.checked_add_signed(used.change).unwrap_or_else(|| {
                self.damage.counts += 1;
                0
            });
            if after > 0 {
                let value = values::number(&key, after);
                self.set(Keyspace::Counts, key.clone(), value, false);
                if before == 0
                    && let Some(message) = used.message
                {
                    let value = values::message(&key, &message);
                    self.set(Keyspace::Messages, key, value, false);
                }
            } else if before > 0 {
                self.remove(Keyspace::Counts, key.clone());
                self.remove(Keyspace::Messages, key);
            }
        }
        Ok(())
    }
}
