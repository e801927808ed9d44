//! [fjall](https://docs.rs/fjall), the engine of a broker at work.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fjall::{Database, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use crate::{StoreError, backup};

use super::journal::{self, Cut};
use super::{Change, Compaction, Engine, EngineError, EngineRead, EngineSizes, Keyspace, Visit};

/// Threads that write sorted tables and merge them. One alone would let a long merge hold up the writing.
const WORKERS: usize = 2;
/// Bytes of the block cache.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Most bytes of journals: what is replayed when a broker that was killed starts again.
const JOURNAL_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Most tables in memory of a keyspace that wait to be written, and most that are written and not merged, before a write waits.
/// Below the limits of fjall, 4 and 20.
const SEALED_MAX: usize = 2;
const YOUNG_MAX: usize = 18;
/// How often it is looked whether there is room.
const POLL: Duration = Duration::from_millis(2);
/// Most files held open.
const OPEN_FILES_MAX: usize = 128;

/// The folder of the database in that of the store.
const DATA: &str = "data";

/// An open database of fjall.
pub struct FjallEngine {
    folder: PathBuf,
    /// `None` after a reopening that failed.
    open: Option<Open>,
    cut: Cut,
    /// A sync failed, or a thread of the engine did, which may have been at one.
    has_failed_sync: bool,
}

struct Open {
    database: Database,
    keyspaces: [fjall::Keyspace; Keyspace::COUNT],
}

impl FjallEngine {
    /// Opens the database in this folder; makes an empty one where there is none.
    ///
    /// # Errors
    /// [`EngineError`]: it cannot be opened.
    pub fn open(folder: &Path) -> Result<Self, EngineError> {
        let (open, cut) = Open::new(folder)?;
        Ok(Self { folder: folder.to_owned(), open: Some(open), cut, has_failed_sync: false })
    }

    /// Opens the database of a store in its folder.
    ///
    /// # Errors
    /// [`StoreError`]: what is wrong and what to do.
    pub fn open_folder(folder: &Path) -> Result<Self, StoreError> {
        let is_in = |error: EngineError| StoreError::of_folder(folder, error);
        std::fs::create_dir_all(folder).map_err(|error| is_in(error.into()))?;
        backup::take_over(folder, DATA)?;
        Self::open(&folder.join(DATA)).map_err(is_in)
    }

    /// Writes what is in memory to tables.
    #[cfg(test)]
    pub(super) fn flush(&self) -> Result<(), EngineError> {
        self.opened()?.flush()
    }

    fn opened(&self) -> Result<&Open, EngineError> {
        self.open.as_ref().ok_or(EngineError::Stopped)
    }
}

impl Open {
    fn new(folder: &Path) -> Result<(Self, Cut), EngineError> {
        let lock = Lock::take(folder)?;
        let cut = journal::check(folder)?;
        drop(lock);
        let database = Database::builder(folder)
            .worker_threads(WORKERS)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .max_cached_files(Some(OPEN_FILES_MAX))
            .open()?;
        let mut keyspaces = Vec::with_capacity(Keyspace::COUNT);
        for keyspace in Keyspace::ALL {
            keyspaces.push(database.keyspace(keyspace.name(), || options(keyspace))?);
        }
        let keyspaces = keyspaces.try_into().ok().expect("one was opened for each");
        Ok((Self { database, keyspaces }, cut))
    }

    /// Waits while the engine's threads are behind. fjall would wait itself, but for ever if such a thread has died.
    fn wait_for_room(&self) -> Result<(), EngineError> {
        while self.keyspaces.iter().any(|keyspace| {
            keyspace.sealed_memtable_count() > SEALED_MAX || keyspace.l0_table_count() > YOUNG_MAX
        }) {
            self.check()?;
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Writes what is in memory to tables, which are synced.
    fn flush(&self) -> Result<(), EngineError> {
        for keyspace in &self.keyspaces {
            keyspace.rotate_memtable()?;
        }
        while self.keyspaces.iter().any(|keyspace| keyspace.sealed_memtable_count() > 0) {
            self.check()?;
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Whether the engine goes on: a thread of it that failed stops it.
    fn check(&self) -> Result<(), EngineError> {
        Ok(self.database.persist(PersistMode::Buffer)?)
    }

    fn keyspace(&self, keyspace: Keyspace) -> &fjall::Keyspace {
        &self.keyspaces[keyspace.index()]
    }
}

/// The engine's own lock, held while its journal is looked at: that of a running broker is not touched.
struct Lock(Option<File>);

impl Lock {
    fn take(folder: &Path) -> Result<Self, EngineError> {
        let file = match OpenOptions::new().read(true).write(true).open(folder.join("lock")) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self(None)),
            Err(error) => return Err(error.into()),
        };
        match file.try_lock() {
            Ok(()) => Ok(Self(Some(file))),
            Err(TryLockError::WouldBlock) => Err(EngineError::Locked),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            // Closing the file lets it go in any case.
            let _ = file.unlock();
        }
    }
}

/// Most of what is written is removed soon. The larger the table in memory, the less of it is ever written to a sorted table.
fn options(keyspace: Keyspace) -> KeyspaceCreateOptions {
    let memory_mb = match keyspace {
        Keyspace::Entries | Keyspace::Messages => 16,
        Keyspace::Sessions | Keyspace::Retained => 8,
        _ => 4,
    };
    KeyspaceCreateOptions::default().max_memtable_size(memory_mb * 1024 * 1024)
}

impl EngineRead for FjallEngine {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.opened()?.keyspace(keyspace).get(key)?.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        below: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        show(self.opened()?.keyspace(keyspace).range::<&[u8], _>(range(from, below)), visit)
    }
}

impl Engine for FjallEngine {
    type Snapshot = FjallSnapshot;

    fn write(&mut self, changes: Vec<Change>) -> Result<(), EngineError> {
        let open = self.opened()?;
        open.wait_for_room()?;
        let mut batch = open.database.batch().durability(Some(PersistMode::Buffer));
        for Change { keyspace, key, value } in changes {
            let keyspace = open.keyspace(keyspace);
            match value {
                Some(value) => batch.insert(keyspace, &key[..], value),
                None => batch.remove(keyspace, &key[..]),
            }
        }
        let written = batch.commit().map_err(EngineError::from);
        self.has_failed_sync |= matches!(written, Err(EngineError::Stopped));
        written
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        let synced = self.opened()?.database.persist(PersistMode::SyncData);
        self.has_failed_sync |= synced.is_err();
        Ok(synced?)
    }

    fn snapshot(&self) -> FjallSnapshot {
        let open = self.open.as_ref().expect("a snapshot is taken after a write that was done");
        FjallSnapshot { snapshot: open.database.snapshot(), keyspaces: open.keyspaces.clone() }
    }

    fn reopen(&mut self) -> Result<(), EngineError> {
        // The files must be let go before they can be opened again.
        self.open = None;
        let (open, _) = Open::new(&self.folder)?;
        if self.has_failed_sync {
            // The kernel may hold the journal's pages for written although they are not; the next sync would not write
            // them. What was found in the journal is therefore written to new files, with a sync of their own.
            open.flush()?;
            self.has_failed_sync = false;
        }
        self.open = Some(open);
        Ok(())
    }

    fn compaction(&self, keyspace: Keyspace) -> Compaction {
        let Some(open) = &self.open else { return Box::new(|| Ok(())) };
        let keyspace = open.keyspace(keyspace).clone();
        Box::new(move || {
            keyspace.rotate_memtable()?;
            Ok(keyspace.major_compact()?)
        })
    }

    fn sizes(&self) -> EngineSizes {
        let Some(open) = &self.open else { return EngineSizes::default() };
        let keyspaces = std::array::from_fn(|n| open.keyspaces[n].disk_space());
        let all = open.database.disk_space().unwrap_or(0);
        let journal = all.saturating_sub(keyspaces.iter().sum());
        EngineSizes { keyspaces, journal }
    }

    fn cut(&self) -> Cut {
        self.cut
    }
}

/// The state of one moment of a [`FjallEngine`].
pub struct FjallSnapshot {
    snapshot: Snapshot,
    keyspaces: [fjall::Keyspace; Keyspace::COUNT],
}

impl EngineRead for FjallSnapshot {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let keyspace = &self.keyspaces[keyspace.index()];
        Ok(self.snapshot.get(keyspace, key)?.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        below: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let keyspace = &self.keyspaces[keyspace.index()];
        show(self.snapshot.range::<&[u8], _>(keyspace, range(from, below)), visit)
    }
}

fn range<'a>(from: &'a [u8], below: Option<&'a [u8]>) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(from), below.map_or(Bound::Unbounded, Bound::Excluded))
}

fn show(pairs: fjall::Iter, visit: Visit<'_>) -> Result<(), EngineError> {
    for pair in pairs {
        let (key, value) = pair.into_inner()?;
        if let ControlFlow::Break(()) = visit(&key, &value) {
            break;
        }
    }
    Ok(())
}

impl From<fjall::Error> for EngineError {
    fn from(error: fjall::Error) -> Self {
        use fjall::{Error, LsmError};
        match error {
            Error::Io(error) | Error::Storage(LsmError::Io(error)) => Self::from(error),
            Error::Locked => Self::Locked,
            Error::InvalidVersion(_) | Error::Storage(LsmError::InvalidVersion(_)) => {
                Self::EngineVersion
            }
            Error::Poisoned => Self::Stopped,
            other => Self::Damaged(other.to_string()),
        }
    }
}
