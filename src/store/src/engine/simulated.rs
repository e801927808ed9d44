//! A disk in memory that can do what disks do: lose what was not synced, tear it, be full, fail a sync. For tests and for the
//! simulation; the same seed does the same.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use super::{Change, Compaction, Engine, EngineError, EngineRead, EngineSizes, Keyspace, Visit};
use crate::codec::keys::Key;

type Tables = [BTreeMap<Key, Arc<[u8]>>; Keyspace::COUNT];

/// An engine on a disk in memory.
#[derive(Debug, Default)]
pub struct SimulatedEngine {
    /// What is read: synced and unsynced writes.
    current: Arc<Tables>,
    /// What outlives a loss of power in any case.
    synced: Arc<Tables>,
    /// Written since, oldest first.
    unsynced: VecDeque<Vec<Change>>,
    faults: Faults,
    /// A write or sync failed: nothing goes on until it is opened anew.
    is_stopped: bool,
    writes: u64,
    syncs: u64,
}

#[derive(Debug, Default)]
struct Faults {
    is_full: bool,
    fail_next_write: Option<WriteFault>,
    fail_next_sync: bool,
}

#[derive(Debug)]
struct WriteFault {
    /// Whether the failed write is on disk all the same.
    is_done: bool,
}

/// What a crash took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashLoss {
    /// Unsynced writes that are gone; all of them newer than those that are left.
    pub writes_lost: usize,
    /// Unsynced writes that were on disk.
    pub writes_kept: usize,
}

impl SimulatedEngine {
    /// A disk with nothing on it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The power goes: of the writes that were not synced a number of the oldest, drawn from `seed`, is left; a write that
    /// was torn is cut off with all that came after it. The engine is open again afterwards, and its faults are over.
    pub fn crash(&mut self, seed: u64) -> CrashLoss {
        let draw = splitmix(seed);
        let count = self.unsynced.len();
        let kept = usize::try_from(draw % (count as u64 + 1)).expect("at most the count");
        self.crash_keeping(kept)
    }

    /// The power goes, and the oldest `kept` unsynced writes are left.
    pub fn crash_keeping(&mut self, kept: usize) -> CrashLoss {
        let writes_lost = self.unsynced.len().saturating_sub(kept);
        self.unsynced.truncate(kept);
        let writes_kept = self.unsynced.len();
        self.restart();
        CrashLoss { writes_lost, writes_kept }
    }

    /// Only the process is gone: what was written is left, as the operating system has it.
    pub fn kill(&mut self) {
        self.restart();
    }

    /// Whether the disk has no room: writes fail until it has.
    pub fn set_full(&mut self, is_full: bool) {
        self.faults.is_full = is_full;
    }

    /// Lets the next write fail; `is_done` says whether it is on disk all the same.
    pub fn fail_next_write(&mut self, is_done: bool) {
        self.faults.fail_next_write = Some(WriteFault { is_done });
    }

    /// Lets the next sync fail. Of the writes it was for, none is known to be on disk.
    pub fn fail_next_sync(&mut self) {
        self.faults.fail_next_sync = true;
    }

    /// Changes a byte of a value, as a failing disk might. Says whether there is such a value.
    pub fn flip(&mut self, keyspace: Keyspace, key: &[u8], at: usize) -> bool {
        self.settle();
        let table = &mut Arc::make_mut(&mut self.current)[keyspace.index()];
        let Some(value) = table.get_mut(key) else { return false };
        let mut bytes = value.to_vec();
        let Some(byte) = bytes.get_mut(at) else { return false };
        *byte ^= 1;
        *value = bytes.into();
        self.synced = Arc::clone(&self.current);
        true
    }

    /// Writes and syncs so far.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.writes, self.syncs)
    }

    /// Writes that a loss of power could take.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// How many keys a keyspace has.
    #[must_use]
    pub fn len(&self, keyspace: Keyspace) -> usize {
        self.current[keyspace.index()].len()
    }

    /// Whether no keyspace has a key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.current.iter().all(BTreeMap::is_empty)
    }

    fn restart(&mut self) {
        self.settle();
        self.current = Arc::clone(&self.synced);
        self.is_stopped = false;
        self.faults = Faults::default();
    }

    /// What was written and not lost is now synced.
    fn settle(&mut self) {
        let synced = Arc::make_mut(&mut self.synced);
        for changes in self.unsynced.drain(..) {
            apply(synced, changes);
        }
    }
}

fn apply(tables: &mut Tables, changes: Vec<Change>) {
    for Change { keyspace, key, value } in changes {
        let table = &mut tables[keyspace.index()];
        match value {
            Some(value) => table.insert(key, value.into()),
            None => table.remove(&key),
        };
    }
}

/// One draw from a seed.
fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl EngineRead for SimulatedEngine {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(get(&self.current, keyspace, key))
    }

    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        below: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        scan(&self.current, keyspace, from, below, visit);
        Ok(())
    }
}

impl Engine for SimulatedEngine {
    type Snapshot = SimulatedSnapshot;

    fn write(&mut self, changes: Vec<Change>) -> Result<(), EngineError> {
        if self.is_stopped {
            return Err(EngineError::Stopped);
        }
        if self.faults.is_full {
            self.is_stopped = true;
            return Err(EngineError::NoSpace);
        }
        self.writes += 1;
        if let Some(WriteFault { is_done }) = self.faults.fail_next_write.take() {
            self.is_stopped = true;
            if is_done {
                self.unsynced.push_back(changes);
            }
            return Err(EngineError::Io(std::io::Error::other("simulated fault of a write")));
        }
        apply(Arc::make_mut(&mut self.current), changes.clone());
        self.unsynced.push_back(changes);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        if self.is_stopped {
            return Err(EngineError::Stopped);
        }
        self.syncs += 1;
        if std::mem::take(&mut self.faults.fail_next_sync) {
            self.is_stopped = true;
            return Err(EngineError::Io(std::io::Error::other("simulated fault of a sync")));
        }
        self.settle();
        Ok(())
    }

    fn snapshot(&self) -> SimulatedSnapshot {
        SimulatedSnapshot(Arc::clone(&self.current))
    }

    fn reopen(&mut self) -> Result<(), EngineError> {
        if self.faults.is_full {
            return Err(EngineError::NoSpace);
        }
        self.settle();
        self.current = Arc::clone(&self.synced);
        self.is_stopped = false;
        Ok(())
    }

    fn compaction(&self, _: Keyspace) -> Compaction {
        // Its tables hold nothing that was removed.
        Box::new(|| Ok(()))
    }

    fn sizes(&self) -> EngineSizes {
        let bytes = |table: &BTreeMap<Key, Arc<[u8]>>| {
            table.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
        };
        EngineSizes { keyspaces: std::array::from_fn(|n| bytes(&self.current[n])), journal: 0 }
    }
}

/// The state of one moment of a [`SimulatedEngine`].
#[derive(Debug, Clone)]
pub struct SimulatedSnapshot(Arc<Tables>);

impl EngineRead for SimulatedSnapshot {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(get(&self.0, keyspace, key))
    }

    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        below: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        scan(&self.0, keyspace, from, below, visit);
        Ok(())
    }
}

fn get(tables: &Tables, keyspace: Keyspace, key: &[u8]) -> Option<Vec<u8>> {
    tables[keyspace.index()].get(key).map(|value| value.to_vec())
}

fn scan(tables: &Tables, keyspace: Keyspace, from: &[u8], below: Option<&[u8]>, visit: Visit<'_>) {
    if below.is_some_and(|below| below <= from) {
        return;
    }
    let range = (Bound::Included(from), below.map_or(Bound::Unbounded, Bound::Excluded));
    for (key, value) in tables[keyspace.index()].range::<[u8], _>(range) {
        if let ControlFlow::Break(()) = visit(key, value) {
            break;
        }
    }
}
