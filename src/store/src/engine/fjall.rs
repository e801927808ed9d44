//! [fjall](https://docs.rs/fjall), the engine of a broker at work.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fjall::{Database, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use crate::{StoreError, backup, panics};

use super::files::{self, Record, damaged};
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
/// The [`Record`] beside it.
const COMPLETE: &str = "complete";

/// Device and inode of a folder.
fn place(folder: &Path) -> Result<(u64, u64), EngineError> {
    let metadata = std::fs::metadata(folder)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// An open database of fjall.
pub struct FjallEngine {
    folder: Arc<Path>,
    /// `None` after a reopening that failed.
    open: Option<Open>,
    cut: Cut,
    /// Device and inode of the folder.
    place: (u64, u64),
    /// A sync failed, or a thread of the engine did, which may have been at one.
    has_failed_sync: bool,
    /// What is written beside the database, and where. One that is opened without the folder of a store has none.
    record: Option<(PathBuf, Record)>,
}

struct Open {
    folder: Arc<Path>,
    database: Database,
    keyspaces: [fjall::Keyspace; Keyspace::COUNT],
}

impl FjallEngine {
    /// Opens the database in this folder; makes an empty one where there is none.
    ///
    /// # Errors
    /// [`EngineError`]: it cannot be opened.
    pub fn open(folder: &Path) -> Result<Self, EngineError> {
        Self::open_known(folder, &Record::default())
    }

    /// What the record has must be there.
    fn open_known(folder: &Path, known: &Record) -> Result<Self, EngineError> {
        let folder = Arc::from(folder);
        let (open, cut) = Open::new(&folder, known)?;
        let place = place(&folder)?;
        Ok(Self { folder, open: Some(open), cut, place, has_failed_sync: false, record: None })
    }

    /// Opens the database of a store in its folder.
    ///
    /// # Errors
    /// [`StoreError`]: what is wrong and what to do.
    pub fn open_folder(folder: &Path) -> Result<Self, StoreError> {
        let is_in = |error: EngineError| StoreError::of_folder(folder, error);
        std::fs::create_dir_all(folder).map_err(|error| is_in(error.into()))?;
        backup::take_over(folder, DATA)?;
        let data = folder.join(DATA);
        Self::open_recorded(&data, folder.join(COMPLETE)).map_err(is_in)
    }

    fn open_recorded(data: &Path, path: PathBuf) -> Result<Self, EngineError> {
        let mut known = Record::read(&path)?;
        if let Some(record) = &mut known {
            files::check_complete(data, record)?;
            if std::mem::take(&mut record.is_end) {
                // The engine removes journals from its opening on.
                record.write(&path)?;
            }
        }
        let mut engine = Self::open_known(data, &known.unwrap_or_default())?;
        // What the record promises must be on the disk before it.
        engine.sync()?;
        let record = Record::look(data, false)?;
        record.write(&path)?;
        engine.record = Some((path, record));
        Ok(engine)
    }

    /// The record of a store in this folder says nothing of the database that is put there.
    pub(crate) fn forget_record(folder: &Path) -> std::io::Result<()> {
        match std::fs::remove_file(folder.join(COMPLETE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
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
    fn new(folder: &Arc<Path>, known: &Record) -> Result<(Self, Cut), EngineError> {
        let lock = Lock::take(folder)?;
        files::check(folder)?;
        let cut = journal::check(folder, &known.journals)?;
        drop(lock);
        // What is damaged in a way that the look above does not see ends in an error or, in some places, in a panic.
        let open = panics::caught(|| Self::recover(folder, known.keyspaces));
        Ok((open.unwrap_or_else(|panic| Err(files::panicked(&*panic)))?, cut))
    }

    fn recover(folder: &Arc<Path>, known: usize) -> Result<Self, EngineError> {
        let database = Database::builder(folder)
            .worker_threads(WORKERS)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .max_cached_files(Some(OPEN_FILES_MAX))
            .open()?;
        let mut keyspaces = Vec::with_capacity(Keyspace::COUNT);
        for keyspace in Keyspace::ALL {
            if keyspace.index() < known && !database.keyspace_exists(keyspace.name()) {
                return Err(EngineError::Damaged(format!(
                    "a folder in {} is missing: that of the keyspace '{}'",
                    folder.join("keyspaces").display(),
                    keyspace.name()
                )));
            }
            keyspaces.push(database.keyspace(keyspace.name(), || options(keyspace))?);
        }
        let keyspaces = keyspaces.try_into().ok().expect("one was opened for each");
        Ok(Self { folder: Arc::clone(folder), database, keyspaces })
    }

    fn reading(&self) -> Reading<'_> {
        Reading { folder: &self.folder, keyspaces: &self.keyspaces }
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
        // Nothing is in it: one that is missing is made. Not before there is a database, which fjall makes with its own.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(folder.join("version").exists()).truncate(false);
        let file = match options.open(folder.join("lock")) {
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

/// What can be read, and where its files are.
struct Reading<'a> {
    folder: &'a Path,
    keyspaces: &'a [fjall::Keyspace; Keyspace::COUNT],
}

impl Reading<'_> {
    /// The value of a key in one of the keyspaces.
    fn get(
        &self,
        keyspace: Keyspace,
        get: impl FnOnce(&fjall::Keyspace) -> fjall::Result<Option<fjall::UserValue>>,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let value = get(&self.keyspaces[keyspace.index()]);
        Ok(value.map_err(|error| self.explain(keyspace, error))?.map(|value| value.to_vec()))
    }

    /// Shows the pairs of one of the keyspaces.
    fn scan(
        &self,
        keyspace: Keyspace,
        pairs: impl FnOnce(&fjall::Keyspace) -> fjall::Iter,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        for pair in pairs(&self.keyspaces[keyspace.index()]) {
            let (key, value) = pair.into_inner().map_err(|error| self.explain(keyspace, error))?;
            if let ControlFlow::Break(()) = visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    /// Says in which file the damage is that kept something from being read.
    fn explain(&self, keyspace: Keyspace, error: fjall::Error) -> EngineError {
        match EngineError::from(error) {
            EngineError::Damaged(what) => {
                let file = files::find_damage(self.folder).unwrap_or_else(|| {
                    let folder = self.keyspaces[keyspace.index()].path().to_path_buf();
                    format!("{}: {what}", folder.display())
                });
                EngineError::Damaged(format!("'{}' cannot be read: {file}", keyspace.name()))
            }
            other => other,
        }
    }
}

impl EngineRead for FjallEngine {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.opened()?.reading().get(keyspace, |open| open.get(key))
    }

    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        below: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let range = range(from, below);
        self.opened()?.reading().scan(keyspace, |open| open.range::<&[u8], _>(range), visit)
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
        FjallSnapshot {
            folder: Arc::clone(&open.folder),
            snapshot: open.database.snapshot(),
            keyspaces: open.keyspaces.clone(),
        }
    }

    fn reopen(&mut self) -> Result<(), EngineError> {
        // The files must be let go before they can be opened again.
        self.open = None;
        // An empty database in its place would say that nothing was ever kept.
        self.check()?;
        let all = Record { keyspaces: Keyspace::COUNT, ..Record::default() };
        let known = self.record.as_ref().map_or(&all, |(_, record)| record);
        let (open, _) = Open::new(&self.folder, known)?;
        if self.has_failed_sync {
            // The kernel may hold the journal's pages for written although they are not; the next sync would not write
            // them. What was found in the journal is therefore written to new files, with a sync of their own.
            open.flush()?;
            self.has_failed_sync = false;
        }
        self.open = Some(open);
        Ok(())
    }

    fn check(&mut self) -> Result<(), EngineError> {
        match place(&self.folder) {
            Ok(found) if found == self.place => {}
            _ => {
                return Err(EngineError::Damaged(format!(
                    "{} was removed or exchanged while the broker ran; put it back, or take a backup now and restore it",
                    self.folder.display()
                )));
            }
        }
        if let Some((path, record)) = &mut self.record
            && record.note(&self.folder)?
        {
            record.write(path)?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), EngineError> {
        // Its threads remove journals.
        self.open = None;
        if let Some((path, record)) = &mut self.record {
            *record = Record::look(&self.folder, true)?;
            record.write(path)?;
        }
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
    folder: Arc<Path>,
    snapshot: Snapshot,
    keyspaces: [fjall::Keyspace; Keyspace::COUNT],
}

impl FjallSnapshot {
    fn reading(&self) -> Reading<'_> {
        Reading { folder: &self.folder, keyspaces: &self.keyspaces }
    }
}

impl EngineRead for FjallSnapshot {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.reading().get(keyspace, |open| self.snapshot.get(open, key))
    }

    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        below: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let range = range(from, below);
        let pairs = |open: &fjall::Keyspace| self.snapshot.range::<&[u8], _>(open, range);
        self.reading().scan(keyspace, pairs, visit)
    }
}

fn range<'a>(from: &'a [u8], below: Option<&'a [u8]>) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(from), below.map_or(Bound::Unbounded, Bound::Excluded))
}

impl From<fjall::Error> for EngineError {
    fn from(error: fjall::Error) -> Self {
        use fjall::{Error, LsmError};
        let words = error.to_string();
        match error {
            Error::Io(error) | Error::Storage(LsmError::Io(error)) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::InvalidData => {
                    damaged("a file ends too soon or has changed", words)
                }
                ErrorKind::NotFound => damaged("a file is missing", words),
                _ => Self::from(error),
            },
            Error::Locked => Self::Locked,
            Error::InvalidVersion(_) | Error::Storage(LsmError::InvalidVersion(_)) => {
                Self::EngineVersion
            }
            Error::Poisoned => Self::Stopped,
            Error::JournalRecovery(_) | Error::InvalidTrailer | Error::InvalidTag(_) => {
                damaged("a journal has changed since it was written", words)
            }
            Error::Storage(LsmError::Unrecoverable) | Error::Unrecoverable => {
                damaged("a list of tables, or what it names, is missing or has changed", words)
            }
            _ => damaged("a block of a table has changed since it was written", words),
        }
    }
}
