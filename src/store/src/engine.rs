//! The engine below the store: ordered keyspaces, atomic writes, a sync. Narrow, so that the real one can be exchanged and a
//! simulated one can fail in every way a disk can.

mod files;
mod fjall;
mod journal;
mod simulated;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::ControlFlow;

use displaydoc::Display;
use thiserror::Error;

pub(crate) use files::sum_of;
pub use fjall::{FjallEngine, FjallSnapshot};
pub use journal::Cut;
pub use simulated::{CrashLoss, SimulatedEngine, SimulatedSnapshot};

use crate::codec::keys::Key;

/// What is kept apart from each other, each in the order of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keyspace {
    /// Single values: format, what was applied last, sessions that have ended.
    Meta,
    /// Heads of sessions by slot and number.
    Sessions,
    /// Subscriptions by session and filter.
    Subscriptions,
    /// Messages of queues by session and place.
    Entries,
    /// Received ids by session.
    Received,
    /// Retained messages by topic.
    Retained,
    /// Messages that are kept once, by id.
    Messages,
    /// How many entries use a message.
    Counts,
    /// Delayed messages by slot and number.
    Delayed,
}

impl Keyspace {
    /// How many there are.
    pub const COUNT: usize = 9;

    /// All, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Meta,
        Self::Sessions,
        Self::Subscriptions,
        Self::Entries,
        Self::Received,
        Self::Retained,
        Self::Messages,
        Self::Counts,
        Self::Delayed,
    ];

    /// Its name on disk and for people. Names never change.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Sessions => "sessions",
            Self::Subscriptions => "subscriptions",
            Self::Entries => "entries",
            Self::Received => "received",
            Self::Retained => "retained",
            Self::Messages => "messages",
            Self::Counts => "counts",
            Self::Delayed => "delayed",
        }
    }

    /// Its place in [`Keyspace::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A key that gets a value, or loses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub keyspace: Keyspace,
    /// The key.
    pub key: Key,
    /// Its value; `None` removes it.
    pub value: Option<Vec<u8>>,
}

/// What a scan shows of each pair: its key and its value.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Work to be done by another thread.
pub type Compaction = Box<dyn FnOnce() -> Result<(), EngineError> + Send>;

/// What can be read: of an engine as it is, or of a snapshot.
pub trait EngineRead {
    /// The value of a key.
    ///
    /// # Errors
    /// [`EngineError`]: it cannot be read.
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// Shows the pairs from `from` on and below `below`, in order, until `visit` breaks.
    ///
    /// # Errors
    /// [`EngineError`]: they cannot be read; those before were shown.
    fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        below: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), EngineError>;
}

/// An engine that is open.
pub trait Engine: EngineRead + Send {
    /// The state of one moment.
    type Snapshot: EngineRead + Send + Sync + 'static;

    /// Does all changes, or none. When it returns the operating system has them: they outlive the process. After an error
    /// it is in doubt whether they are done, until [`Engine::reopen`].
    ///
    /// # Errors
    /// [`EngineError`]: they may be done or not.
    fn write(&mut self, changes: Vec<Change>) -> Result<(), EngineError>;

    /// Makes what was written outlive a loss of power.
    ///
    /// # Errors
    /// [`EngineError`]: what was written since the last sync may be lost.
    fn sync(&mut self) -> Result<(), EngineError>;

    /// The state as it is now; what is written later does not change it.
    fn snapshot(&self) -> Self::Snapshot;

    /// Opens anew after an error. What is there then is on disk.
    ///
    /// # Errors
    /// [`EngineError`]: it cannot be opened yet, or not at all.
    fn reopen(&mut self) -> Result<(), EngineError>;

    /// Whether its files are still where they were opened. Asked about once a second.
    ///
    /// # Errors
    /// [`EngineError::Damaged`]: they were removed or exchanged; what is written now is lost at the end of the process.
    fn check(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// Notes that nothing is written any more: what is missing at the next start was removed by others.
    ///
    /// # Errors
    /// [`EngineError`]: it cannot be noted; nothing is lost by that.
    fn end(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// The work of writing a keyspace anew without what was removed from it. Takes long; any thread may do it.
    fn compaction(&self, keyspace: Keyspace) -> Compaction;

    /// Bytes on disk.
    fn sizes(&self) -> EngineSizes;

    /// What was cut off when it was opened: the unfinished end of a journal.
    fn cut(&self) -> Cut {
        Cut::default()
    }
}

/// Bytes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineSizes {
    /// Of each keyspace, in the order of [`Keyspace::ALL`].
    pub keyspaces: [u64; Keyspace::COUNT],
    /// Of the journal.
    pub journal: u64,
}

/// Why an engine could not do what it was asked.
#[derive(Debug, Display, Error)]
pub enum EngineError {
    /// no space left on the disk
    NoSpace,
    /// the disk fails: {0}
    Io(io::Error),
    /// {0}
    Damaged(String),
    /// another process has it open
    Locked,
    /// it was written by another version of the engine
    EngineVersion,
    /// a write in the background failed, the line before says why; the store is opened anew
    Stopped,
}

impl From<io::Error> for EngineError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io(error),
        }
    }
}
