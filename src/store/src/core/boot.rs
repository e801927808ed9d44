//! What is there at the start, page by page: sessions with their subscriptions, retained and delayed messages, each to the
//! shard that has its slot now. Never more in memory than a page for each shard. When shards know all that, and serve, the messages
//! of the sessions are counted.

use std::ops::ControlFlow;
use std::sync::Arc;

use ring::ShardId;
use router::{home, slot};
use session::Message;
use shard::storage::{
    StoreReply, StoredCounts, StoredDelayed, StoredRetainedRow, StoredSession, StoredSessionRow,
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

/// Where the reading is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Bans,
    Sessions,
    Retained,
    Delayed,
    /// Shards have what they wait for; retained messages that stay on disk are told by their rows.
    RetainedRows,
    Counts,
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
    counts: Vec<Vec<(StoredSession, StoredCounts)>>,
    /// The session that is being counted, and what was counted of it.
    counting: Option<(StoredSession, StoredCounts)>,
    /// Up to where received ids are counted.
    received_from: Key,
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
            counts: (0..shards).map(|_| Vec::new()).collect(),
            counting: None,
            received_from: Key::new(),
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
            Phase::Counts => self.step_counts()?,
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
        hand_over(&mut self.counts, least, &mut |shard, rows| {
            emit(shard, StoreReply::Counts { rows, is_last: false });
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
                if is_rows { Phase::RetainedRows } else { Phase::Counts }
            }
            Phase::RetainedRows => {
                tell_all(&|| StoreReply::RetainedFound);
                Phase::Counts
            }
            Phase::Counts => {
                tell_all(&|| StoreReply::Counts { rows: Vec::new(), is_last: true });
                Phase::Done
            }
            Phase::Done => Phase::Done,
        };
    }

    /// What the shards serve without cannot be read further. Retained messages that were not told are still found when they are
    /// asked for, and sessions that were not counted are read when their clients return, as if they had messages.
    pub fn pass_over(&mut self, emit: &mut dyn FnMut(ShardId, StoreReply)) {
        self.from = Key::new();
        self.counting = None;
        if self.phase == Phase::RetainedRows {
            (0..self.shards).for_each(|shard| emit(ShardId::new(shard), StoreReply::RetainedFound));
            self.phase = Phase::Counts;
        } else {
            self.phase = Phase::Done;
        }
    }

    /// Whether shards know all they need to serve.
    #[must_use]
    pub fn has_found_all(&self) -> bool {
        matches!(self.phase, Phase::RetainedRows | Phase::Counts | Phase::Done)
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
            rows.push(StoredSessionRow { session, head, subscriptions: Vec::new() });
            Ok(())
        })?;
        if let [first, .., last] | [first @ last] = rows.as_slice() {
            let from = keys::session(first.session);
            let below = keys::behind(&keys::session(last.session));
            self.add_subscriptions(&mut rows, &from, below.as_deref())?;
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

    fn step_counts(&mut self) -> Result<bool, EngineError> {
        let mut counted: Vec<(StoredSession, StoredCounts)> = Vec::new();
        let mut counting = self.counting.take();
        let is_end = self.read_some(Keyspace::Entries, |key, value| {
            // What is damaged is found, and said, when it is to be loaded.
            let (Ok((session, _)), Ok(outline)) =
                (keys::read_session(key), values::read_entry_outline(key, value))
            else {
                return Ok(());
            };
            if counting.is_some_and(|(before, _)| before != session) {
                counted.extend(counting.take());
            }
            let (_, counts) = counting.get_or_insert_with(|| (session, StoredCounts::default()));
            if outline.is_queued {
                counts.queued = counts.queued.saturating_add(1);
            } else {
                counts.inflight = counts.inflight.saturating_add(1);
            }
            Ok(())
        })?;
        if is_end {
            counted.extend(counting.take());
        }
        self.count_received(&mut counted, counting.map(|(session, _)| session))?;
        self.counting = counting;
        for (session, counts) in counted {
            self.counts[home(session.slot, self.shards).index()].push((session, counts));
        }
        Ok(is_end)
    }

    /// Adds the received ids of the sessions before `below`.
    fn count_received(
        &mut self,
        counted: &mut Vec<(StoredSession, StoredCounts)>,
        below: Option<StoredSession>,
    ) -> Result<(), EngineError> {
        let below = below.map(keys::session);
        let mut received: Vec<(StoredSession, u16)> = Vec::new();
        let Self { read, received_from, .. } = self;
        read.scan(Keyspace::Received, received_from, below.as_deref(), &mut |key, _| {
            match (keys::read_session(key), received.last_mut()) {
                (Ok((session, _)), Some((last, ids))) if *last == session => {
                    *ids = ids.saturating_add(1);
                }
                (Ok((session, _)), _) => received.push((session, 1)),
                (Err(_), _) => {}
            }
            ControlFlow::Continue(())
        })?;
        if let Some(below) = below {
            *received_from = below;
        }
        for (session, awaiting_rel) in received {
            match counted.binary_search_by_key(&session, |(session, _)| *session) {
                Ok(at) => counted[at].1.awaiting_rel = awaiting_rel,
                Err(at) => {
                    let counts = StoredCounts { awaiting_rel, ..StoredCounts::default() };
                    counted.insert(at, (session, counts));
                }
            }
        }
        Ok(())
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

fn hand_over<T>(pages: &mut [Vec<T>], least: usize, emit: &mut dyn FnMut(ShardId, Vec<T>)) {
    for (shard, rows) in pages.iter_mut().enumerate() {
        while rows.len() >= least {
            let rest = rows.split_off(rows.len().min(PAGE));
            emit(ShardId::new(shard), std::mem::replace(rows, rest));
        }
    }
}
