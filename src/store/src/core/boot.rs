//! What is there at the start, page by page: sessions with their subscriptions, retained and delayed messages, each to the
//! shard that has its slot now. Never more in memory than a page for each shard.

use std::ops::ControlFlow;
use std::sync::Arc;

use ring::ShardId;
use router::{home, slot};
use session::Message;
use shard::storage::{
    StoreReply, StoredDelayed, StoredRetainedRow, StoredSession, StoredSessionRow,
};
use shard::{Ban, BannedList};

use super::Damage;
use crate::codec::keys::{self, Key};
use crate::codec::{CodecError, values};
use crate::engine::{EngineError, EngineRead, Keyspace};

/// Most rows of one reply.
const PAGE: usize = 256;
/// Keys that are read at once.
const STEP: usize = 1_024;
/// Entries of one session that are passed over one by one; then the next session is looked for.
const PASSED_OVER: u32 = 16;

/// Where the reading is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Bans,
    Sessions,
    Retained,
    Delayed,
    /// Shards have what they wait for; retained messages that stay on disk are told by their rows.
    RetainedRows,
    Done,
}

/// What shards get of retained messages at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetainedBoot {
    /// The messages, before they serve anybody.
    Messages,
    /// What they are, behind all else: the messages stay on disk.
    Rows,
}

/// Reads what is there at the start.
pub struct Boot<R> {
    read: R,
    shards: usize,
    numbers_from: u64,
    retained_boot: RetainedBoot,
    phase: Phase,
    bans: Vec<Ban>,
    from: Key,
    sessions: Vec<Vec<StoredSessionRow>>,
    retained: Vec<Vec<Arc<Message>>>,
    retained_rows: Vec<Vec<StoredRetainedRow>>,
    delayed: Vec<Vec<StoredDelayed>>,
    damage: Damage,
    found: Found,
}

/// How much was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Sessions.
    pub sessions: u64,
    /// Their subscriptions.
    pub subscriptions: u64,
    /// Retained messages.
    pub retained: u64,
    /// Delayed messages.
    pub delayed: u64,
}

impl<R: EngineRead> Boot<R> {
    /// `read` is the state before the first batch of this start, `numbers_from` above all numbers given out before.
    pub fn new(read: R, shards: usize, numbers_from: u64, retained_boot: RetainedBoot) -> Self {
        Self {
            read,
            retained_boot,
            shards,
            numbers_from,
            phase: Phase::Bans,
            bans: Vec::new(),
            from: Key::new(),
            sessions: (0..shards).map(|_| Vec::new()).collect(),
            retained: (0..shards).map(|_| Vec::new()).collect(),
            retained_rows: (0..shards).map(|_| Vec::new()).collect(),
            delayed: (0..shards).map(|_| Vec::new()).collect(),
            damage: Damage::default(),
            found: Found::default(),
        }
    }

    /// Reads a little and hands over the pages that are full. Says whether there is more.
    ///
    /// # Errors
    /// [`EngineError`]: what follows cannot be read.
    pub fn step(&mut self, emit: &mut dyn FnMut(ShardId, StoreReply)) -> Result<bool, EngineError> {
        let is_end = match self.phase {
            Phase::Bans => {
                self.read_bans()?;
                let list = Arc::new(BannedList::new(&self.bans));
                for shard in 0..self.shards {
                    emit(ShardId::new(shard), StoreReply::Bans(Arc::clone(&list)));
                }
                true
            }
            Phase::Sessions => self.step_sessions()?,
            Phase::Retained => self.step_retained()?,
            Phase::Delayed => self.step_delayed()?,
            Phase::RetainedRows => self.step_retained_rows()?,
            Phase::Done => return Ok(false),
        };
        let least = if is_end { 1 } else { PAGE };
        hand_over(&mut self.sessions, least, &mut |shard, page| {
            emit(shard, StoreReply::Sessions(page));
        });
        hand_over(&mut self.retained, least, &mut |shard, page| {
            emit(shard, StoreReply::Retained(page));
        });
        hand_over(&mut self.retained_rows, least, &mut |shard, page| {
            emit(shard, StoreReply::RetainedRows(page));
        });
        hand_over(&mut self.delayed, least, &mut |shard, page| {
            emit(shard, StoreReply::Delayed(page));
        });
        if is_end {
            self.next_phase(emit);
        }
        Ok(self.phase != Phase::Done)
    }

    fn next_phase(&mut self, emit: &mut dyn FnMut(ShardId, StoreReply)) {
        let is_rows = self.retained_boot == RetainedBoot::Rows;
        let numbers_from = self.numbers_from;
        let mut tell_all = |reply: &dyn Fn() -> StoreReply| {
            (0..self.shards).for_each(|shard| emit(ShardId::new(shard), reply()));
        };
        self.from = Key::new();
        self.phase = match self.phase {
            Phase::Bans => Phase::Sessions,
            Phase::Sessions if !is_rows => Phase::Retained,
            Phase::Sessions | Phase::Retained => Phase::Delayed,
            Phase::Delayed => {
                tell_all(&|| StoreReply::Found { numbers_from });
                if is_rows { Phase::RetainedRows } else { Phase::Done }
            }
            Phase::RetainedRows => {
                tell_all(&|| StoreReply::RetainedFound);
                Phase::Done
            }
            Phase::Done => Phase::Done,
        };
    }

    /// The bans that were found.
    #[must_use]
    pub fn bans(&self) -> &[Ban] {
        &self.bans
    }

    /// How much was found so far.
    #[must_use]
    pub fn found(&self) -> Found {
        self.found
    }

    /// What was damaged, and is left out.
    #[must_use]
    pub fn damage(&self) -> Damage {
        self.damage
    }

    fn read_bans(&mut self) -> Result<(), EngineError> {
        let Self { read, bans, damage, .. } = self;
        let below = keys::behind(keys::meta::BANS);
        read.scan(Keyspace::Meta, keys::meta::BANS, below.as_deref(), &mut |key, value| {
            match values::read_ban(key, value) {
                Ok(ban) => bans.push(ban),
                Err(_) => damage.values += 1,
            }
            ControlFlow::Continue(())
        })
    }

    fn step_sessions(&mut self) -> Result<bool, EngineError> {
        let mut rows: Vec<StoredSessionRow> = Vec::with_capacity(STEP);
        let is_end = self.read_some(Keyspace::Sessions, |key, value| {
            let (session, _) = keys::read_session(key)?;
            let head = values::read_head(key, value)?;
            rows.push(StoredSessionRow {
                session,
                head,
                subscriptions: Vec::new(),
                has_messages: false,
            });
            Ok(())
        })?;
        if let [first, .., last] | [first @ last] = rows.as_slice() {
            let from = keys::session(first.session);
            let below = keys::behind(&keys::session(last.session));
            self.add_subscriptions(&mut rows, &from, below.as_deref())?;
            for keyspace in [Keyspace::Entries, Keyspace::Received] {
                mark_those_with(&self.read, keyspace, &mut rows, &from, below.as_deref())?;
            }
        }
        self.found.sessions += rows.len() as u64;
        for row in rows {
            self.sessions[home(row.session.slot, self.shards).index()].push(row);
        }
        Ok(is_end)
    }

    fn add_subscriptions(
        &mut self,
        rows: &mut [StoredSessionRow],
        from: &[u8],
        below: Option<&[u8]>,
    ) -> Result<(), EngineError> {
        let Self { read, damage, found, .. } = self;
        let mut rows = rows.iter_mut().peekable();
        read.scan(Keyspace::Subscriptions, from, below, &mut |key, value| {
            let Ok((session, _)) = keys::read_session(key) else {
                damage.values += 1;
                return ControlFlow::Continue(());
            };
            while rows.next_if(|row| row.session < session).is_some() {}
            // One of a session that has ended and is still being removed has no row.
            let Some(row) = rows.peek_mut().filter(|row| row.session == session) else {
                return ControlFlow::Continue(());
            };
            match values::read_subscription(key, value) {
                Ok(subscription) => {
                    found.subscriptions += 1;
                    row.subscriptions.push(subscription);
                }
                Err(_) => damage.values += 1,
            }
            ControlFlow::Continue(())
        })
    }

    fn step_retained(&mut self) -> Result<bool, EngineError> {
        let mut rows = Vec::with_capacity(STEP);
        let is_end = self.read_some(Keyspace::Retained, |key, value| {
            let message = values::read_message(key, value)?;
            rows.push((slot(message.topic().as_bytes()), message));
            Ok(())
        })?;
        for (slot, row) in rows {
            // One without payload says that the topic has none.
            self.found.retained += u64::from(!row.payload().is_empty());
            self.retained[home(slot, self.shards).index()].push(row);
        }
        Ok(is_end)
    }

    fn step_retained_rows(&mut self) -> Result<bool, EngineError> {
        let mut rows = Vec::with_capacity(STEP);
        let is_end = self.read_some(Keyspace::Retained, |key, value| {
            rows.push(values::read_retained_outline(key, value)?.row());
            Ok(())
        })?;
        for row in rows {
            self.found.retained += u64::from(!row.is_gone);
            let slot = slot(row.topic.as_bytes());
            self.retained_rows[home(slot, self.shards).index()].push(row);
        }
        Ok(is_end)
    }

    fn step_delayed(&mut self) -> Result<bool, EngineError> {
        let mut rows = Vec::new();
        let is_end = self.read_some(Keyspace::Delayed, |key, value| {
            rows.push(values::read_delayed(key, value)?);
            Ok(())
        })?;
        self.found.delayed += rows.len() as u64;
        for row in rows {
            self.delayed[home(row.slot, self.shards).index()].push(row);
        }
        Ok(is_end)
    }

    /// Shows the next keys of a keyspace. Says whether they were the last.
    fn read_some(
        &mut self,
        keyspace: Keyspace,
        mut show: impl FnMut(&[u8], &[u8]) -> Result<(), CodecError>,
    ) -> Result<bool, EngineError> {
        let mut shown = 0;
        let mut next = None;
        let mut damaged = 0;
        self.read.scan(keyspace, &self.from, None, &mut |key, value| {
            damaged += u64::from(show(key, value).is_err());
            shown += 1;
            if shown == STEP {
                next = Some(keys::after(key));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        self.damage.values += damaged;
        let is_end = next.is_none();
        self.from = next.unwrap_or_default();
        Ok(is_end)
    }
}

/// Marks the sessions that have something in this keyspace.
fn mark_those_with(
    read: &impl EngineRead,
    keyspace: Keyspace,
    rows: &mut [StoredSessionRow],
    from: &[u8],
    below: Option<&[u8]>,
) -> Result<(), EngineError> {
    let mut from = Key::from_slice(from);
    let mut rows = rows.iter_mut().peekable();
    loop {
        let mut passed: Option<(StoredSession, u32)> = None;
        let mut skip = None;
        read.scan(keyspace, &from, below, &mut |key, _| {
            let Ok((session, _)) = keys::read_session(key) else {
                return ControlFlow::Continue(());
            };
            match &mut passed {
                Some((last, count)) if *last == session => {
                    *count += 1;
                    if *count < PASSED_OVER {
                        return ControlFlow::Continue(());
                    }
                    skip = keys::behind(&keys::session(session));
                    return ControlFlow::Break(());
                }
                _ => passed = Some((session, 1)),
            }
            while rows.next_if(|row| row.session < session).is_some() {}
            match rows.peek_mut() {
                Some(row) if row.session == session => row.has_messages = true,
                Some(_) => {}
                None => return ControlFlow::Break(()),
            }
            ControlFlow::Continue(())
        })?;
        match skip {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

fn hand_over<T>(pages: &mut [Vec<T>], least: usize, emit: &mut dyn FnMut(ShardId, Vec<T>)) {
    for (shard, rows) in pages.iter_mut().enumerate() {
        while rows.len() >= least {
            let rest = rows.split_off(rows.len().min(PAGE));
            emit(ShardId::new(shard), std::mem::replace(rows, rest));
        }
    }
}
