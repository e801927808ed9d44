//! The store without a thread: takes batches, says which may be applied together, applies them to an engine, and knows what
//! to do when a write is in doubt.
//!
//! A *round* is what is applied at once: all batches that wait, of every shard in their order, in one atomic write. With the changes of a round the number of the round is written; a round whose write failed is found again by it
//! after the engine was opened anew, and is not applied twice.

mod boot;
mod load;
mod retained;
mod round;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use hashbrown::HashMap;

use ring::ShardId;
use shard::storage::{StoreBatch, StoreOp, StoreReply, StoreRequest, StoredSession};

pub use boot::{Boot, Found, RetainedBoot};
pub use load::{Known, load};
pub use retained::{RetainedOf, read_retained};

use crate::StoreError;
use crate::codec::values::{self, Applied};
use crate::codec::{FORMAT, keys};
use crate::engine::{Engine, EngineError, Keyspace};
use round::{Ending, Round};

/// Keys of an ended session that are removed at once.
const SWEEP_KEYS: usize = 1_000;

/// The store on an engine.
pub struct Core<E> {
    engine: E,
    applied: Applied,
    /// Batches that are not committed, oldest first, by shard.
    waiting: Vec<VecDeque<StoreBatch>>,
    /// Changes that are no shard's, the same.
    waiting_own: VecDeque<Vec<StoreOp>>,
    /// A round whose write or sync failed: whether it is applied is seen after a reopening.
    in_doubt: Option<InDoubt>,
    /// Sessions that have ended and are too big to be removed at once.
    ended: VecDeque<Ending>,
    /// See [`Round`].
    queues_from: HashMap<StoredSession, keys::Key>,
    damage: Damage,
}

struct InDoubt {
    applied: Applied,
    outcome: Outcome,
    /// How many batches of each shard it has.
    batches: Vec<usize>,
    /// How many of those that are no shard's.
    own: usize,
}

/// What a round did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The newest committed batch of each shard that had one.
    pub committed: Vec<(ShardId, u64)>,
    /// How many changes that are no shard's are committed.
    pub own: usize,
    /// Answers.
    pub replies: Vec<(ShardId, StoreReply)>,
    /// What is to be read now that it is applied.
    pub loads: Vec<(ShardId, StoredSession)>,
    /// Batches in it.
    pub batches: u64,
    /// Changes the shards asked for.
    pub ops: u64,
    /// Keys that were written or removed; what a later change of the round made void was neither.
    pub keys: u64,
    /// Keys that were removed, by keyspace.
    pub removed: [u64; Keyspace::COUNT],
}

/// What was found damaged. Nothing here stops the broker: the damaged thing is left out and counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// Keys or values that could not be read.
    pub values: u64,
    /// Reference counts that did not fit what used them.
    pub counts: u64,
}

impl Damage {
    /// What to tell people; nothing if nothing is damaged.
    #[must_use]
    pub fn text(self) -> Option<String> {
        let Self { values, counts } = self;
        (values + counts > 0).then(|| {
            format!(
                "{values} values and {counts} counts of uses are damaged and left out (`ringmq store info` has all since the start); a \
                 backup may have them"
            )
        })
    }
}

impl<E: Engine> Core<E> {
    /// Takes over an engine that is open: checks the format and counts this start.
    ///
    /// # Errors
    /// [`StoreError::Newer`], [`StoreError::Engine`].
    pub fn open(engine: E, shards: usize) -> Result<Self, StoreError> {
        Self::open_with(engine, shards, &[])
    }

    /// The same, and takes over what was kept elsewhere before.
    ///
    /// # Errors
    /// As [`Core::open`].
    pub fn open_with(mut engine: E, shards: usize, own: &[StoreOp]) -> Result<Self, StoreError> {
        let format = match engine.get(Keyspace::Meta, keys::meta::FORMAT)? {
            Some(value) => values::read_number(keys::meta::FORMAT, &value)
                .map_err(|error| EngineError::Damaged(format!("its format version: {error}")))?,
            None => 0,
        };
        if format > u64::from(FORMAT) {
            return Err(StoreError::Newer { found: format, known: FORMAT });
        }
        let mut applied = read_applied(&engine)?.unwrap_or_default();
        applied.boot += 1;
        applied.round = 0;
        applied.synced_round = 0;
        let mut round = Round::new(&engine, Damage::default());
        let key = keys::meta::FORMAT;
        round.put(Keyspace::Meta, key, values::number(key, u64::from(FORMAT)));
        round.apply_own(own)?;
        let changes = round.finish(applied)?.changes;
        engine.write(changes)?;
        engine.sync()?;
        let mut core = Self {
            engine,
            applied,
            waiting: (0..shards).map(|_| VecDeque::new()).collect(),
            waiting_own: VecDeque::new(),
            in_doubt: None,
            ended: VecDeque::new(),
            queues_from: HashMap::new(),
            damage: Damage::default(),
        };
        core.ended = core.find_ended()?;
        Ok(core)
    }

    /// Takes a batch. It is applied by one of the next calls of [`Core::commit`].
    pub fn take(&mut self, request: StoreRequest) {
        if let Some(waiting) = self.waiting.get_mut(request.shard.index()) {
            waiting.push_back(request.batch);
        }
    }

    /// Takes changes that are no shard's, which are applied in their order.
    pub fn take_own(&mut self, ops: Vec<StoreOp>) {
        self.waiting_own.push_back(ops);
    }

    /// Whether a call of [`Core::commit`] could apply something.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting_own.is_empty() || self.waiting.iter().any(|waiting| !waiting.is_empty())
    }

    /// Whether something waits that somebody waits for: a batch that wants to read, as its client is there, or a command.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        !self.waiting_own.is_empty()
            || self.waiting.iter().flatten().any(|batch| !batch.loads.is_empty())
    }

    /// Applies all batches that may be applied, in one atomic write. `settle` comes after the write and before anything
    /// counts as committed: the place for a sync, and it says whether there was one. `None` when there was nothing to apply.
    ///
    /// # Errors
    /// [`EngineError`]: nothing is committed and nothing forgotten; [`Core::recover`] is to be called until it succeeds.
    pub fn commit(
        &mut self,
        settle: impl FnOnce(&mut E) -> Result<bool, EngineError>,
    ) -> Result<Option<Outcome>, EngineError> {
        if self.in_doubt.is_some() {
            return Err(EngineError::Stopped);
        }
        let batches: Vec<usize> = self.waiting.iter().map(VecDeque::len).collect();
        let own = self.waiting_own.len();
        if batches.iter().all(|&count| count == 0) && own == 0 {
            return Ok(None);
        }
        let mut applied = self.applied;
        applied.round += 1;
        // After an error nothing is known of what was written.
        let queues_from = std::mem::take(&mut self.queues_from);
        let mut round = Round::new(&self.engine, self.damage).with_queues_from(queues_from);
        for (shard, &count) in batches.iter().enumerate() {
            for batch in self.waiting[shard].iter().take(count) {
                applied.numbers_below = applied.numbers_below.max(batch.numbers_below);
                round.apply(ShardId::new(shard), batch)?;
            }
        }
        for ops in &self.waiting_own {
            round.apply_own(ops)?;
        }
        let finished = round.finish(applied)?;
        self.damage = finished.damage;
        self.ended.extend(finished.ended);
        let outcome = finished.outcome;
        let engine = &mut self.engine;
        match engine.write(finished.changes).and_then(|()| settle(engine)) {
            Ok(is_synced) => {
                self.written(applied, is_synced);
                self.queues_from = finished.queues_from;
            }
            Err(error) => {
                self.in_doubt = Some(InDoubt { applied, outcome, batches, own });
                return Err(error);
            }
        }
        Ok(Some(self.committed(outcome, &batches, own)))
    }

    /// After an error: opens the engine anew and finds out whether the round in doubt is applied; its outcome if it is.
    ///
    /// # Errors
    /// [`EngineError`]: it is still not possible to go on.
    pub fn recover(&mut self) -> Result<Option<Outcome>, EngineError> {
        self.engine.reopen()?;
        self.applied.synced_round = self.applied.round;
        let found = read_applied(&self.engine)?;
        // Ended sessions of a round that is not applied have no mark.
        self.ended = self.find_ended()?;
        // What a failed sweep has written counts as a round too: its number is not used again.
        if let Some(found) = found.filter(|found| found.boot == self.applied.boot) {
            self.applied.round = self.applied.round.max(found.round);
        }
        let Some(in_doubt) = self.in_doubt.take() else { return Ok(None) };
        if found.is_none_or(|found| {
            (found.boot, found.round) != (in_doubt.applied.boot, in_doubt.applied.round)
        }) {
            return Ok(None);
        }
        self.written(in_doubt.applied, true);
        Ok(Some(self.committed(in_doubt.outcome, &in_doubt.batches, in_doubt.own)))
    }

    /// Makes what was written outlive a loss of power.
    ///
    /// # Errors
    /// [`EngineError`]: what was written since the last sync may be lost with the power; [`Core::recover`] is to be called.
    pub fn sync(&mut self) -> Result<(), EngineError> {
        self.engine.sync()?;
        self.applied.synced_round = self.applied.round;
        Ok(())
    }

    /// Removes a slice of the sessions that have ended. [`Core::has_ended`] says whether there is more.
    ///
    /// # Errors
    /// [`EngineError`]: [`Core::recover`] is to be called.
    pub fn sweep(&mut self) -> Result<Outcome, EngineError> {
        if self.in_doubt.is_some() {
            return Err(EngineError::Stopped);
        }
        let Some(&ending) = self.ended.front() else { return Ok(Outcome::default()) };
        let mut applied = self.applied;
        applied.round += 1;
        let mut round = Round::new(&self.engine, self.damage);
        let is_done = round.remove_some(ending, SWEEP_KEYS)?;
        if is_done {
            round.forget_ended(ending.session);
        }
        let finished = round.finish(applied)?;
        self.damage = finished.damage;
        self.engine.write(finished.changes)?;
        self.written(applied, false);
        if is_done {
            self.ended.pop_front();
        }
        Ok(finished.outcome)
    }

    /// Whether sessions that have ended are still to be removed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// The state as it is now, to read from elsewhere.
    #[must_use]
    pub fn snapshot(&self) -> E::Snapshot {
        self.engine.snapshot()
    }

    /// Above all numbers given out.
    #[must_use]
    pub fn numbers_from(&self) -> u64 {
        self.applied.numbers_below
    }

    /// What was found damaged while batches were applied.
    #[must_use]
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// The engine: for tests and the simulation, which let it fail.
    pub fn engine_mut(&mut self) -> &mut E {
        &mut self.engine
    }

    /// Gives the engine back, to open it anew as after a crash. What was not committed is forgotten.
    #[must_use]
    pub fn into_engine(self) -> E {
        self.engine
    }

    fn written(&mut self, applied: Applied, is_synced: bool) {
        self.applied = applied;
        if is_synced {
            self.applied.synced_round = applied.round;
        }
    }

    fn committed(&mut self, mut outcome: Outcome, batches: &[usize], own: usize) -> Outcome {
        self.waiting_own.drain(..own);
        outcome.own = own;
        for (shard, &count) in batches.iter().enumerate() {
            let newest = self.waiting[shard].drain(..count).next_back();
            if let Some(newest) = newest {
                outcome.committed.push((ShardId::new(shard), newest.sequence));
            }
        }
        outcome
    }

    fn find_ended(&self) -> Result<VecDeque<Ending>, EngineError> {
        let mut ended = VecDeque::new();
        let from = keys::meta::ENDED;
        let below = keys::behind(from);
        self.engine.scan(Keyspace::Meta, from, below.as_deref(), &mut |key, _| {
            if let Ok(session) = keys::read_ended(key) {
                let known = self.ended.iter().find(|known| known.session == session);
                ended.push_back(Ending { session, tell: known.and_then(|known| known.tell) });
            }
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(ended)
    }
}

fn read_applied(engine: &impl Engine) -> Result<Option<Applied>, EngineError> {
    let key = keys::meta::APPLIED;
    let Some(value) = engine.get(Keyspace::Meta, key)? else { return Ok(None) };
    values::read_applied(key, &value)
        .map(Some)
        .map_err(|error| EngineError::Damaged(format!("the record of what was applied: {error}")))
}
