//! Why a store cannot be opened, saved or restored.

use std::path::{Path, PathBuf};

use displaydoc::Display;
use thiserror::Error;

use crate::engine::EngineError;

/// Why the store did not do what was asked. Each message says what to do.
#[derive(Debug, Display, Error)]
pub enum StoreError {
    /// the store in {folder} is in use by another process; stop that one, or give this one another data folder
    InUse {
        /// The store's folder.
        folder: PathBuf,
    },
    /// the store is of format {found} and this build knows formats up to {known}; start the newer build that wrote it, or give this one another data folder
    Newer {
        /// What it says.
        found: u64,
        /// The newest this build knows.
        known: u32,
    },
    /// the store in {folder} is damaged: {what}; put back a backup ("ringmq store restore DIR", then start), or move {folder} away to start with an empty store
    Damaged {
        /// The store's folder.
        folder: PathBuf,
        /// Which file, and what is wrong with it.
        what: String,
    },
    /// cannot open the store in {folder}: {reason}
    Version {
        /// The store's folder.
        folder: PathBuf,
        /// Who wrote it.
        reason: String,
    },
    /// cannot open the store in {folder}: {reason}; the folder must be readable and writable for the broker's user
    Open {
        /// The store's folder.
        folder: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// no space left on the disk of the store in {folder}; make room there and start again
    NoSpace {
        /// The store's folder.
        folder: PathBuf,
    },
    /// {folder} is in the folder of the store, {store}, or around it; name another folder for the backup
    SamePlace {
        /// The folder of the backup.
        folder: PathBuf,
        /// The store's.
        store: PathBuf,
    },
    /// the store cannot write now, so what is in it is not certain; try again when `ringmq status` shows no alarm store_failing
    Failing,
    /// the store has not answered in time: it is in force, and kept when the store can write; see `ringmq alarms`
    Late,
    /// the backup cannot be used, for {file}: {reason}
    Backup {
        /// Its file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// the store failed: {0}
    Engine(EngineError),
    /// the store is closed
    Closed,
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl StoreError {
    /// What an engine's error means for the store in this folder.
    pub(crate) fn of_folder(folder: &Path, error: EngineError) -> Self {
        let folder = folder.to_owned();
        match error {
            EngineError::Locked => Self::InUse { folder },
            EngineError::NoSpace => Self::NoSpace { folder },
            EngineError::Io(error) => Self::Open { folder, reason: error.to_string() },
            EngineError::EngineVersion => Self::Version {
                folder,
                reason: "another version of its engine wrote it; start the build that did"
                    .to_owned(),
            },
            EngineError::Damaged(what) => Self::Damaged { folder, what },
            EngineError::Stopped => Self::Engine(EngineError::Stopped),
        }
    }

    /// What an error that came while the store in this folder was being opened means for it.
    pub(crate) fn at_start(self, folder: &Path) -> Self {
        match self {
            Self::Engine(error) => Self::of_folder(folder, error),
            other => other,
        }
    }

    /// What an engine's error means that came later.
    pub(crate) fn at_work(folder: &Path, error: EngineError) -> Self {
        match error {
            EngineError::Damaged(what) => Self::Damaged { folder: folder.to_owned(), what },
            other => Self::Engine(other),
        }
    }
}
