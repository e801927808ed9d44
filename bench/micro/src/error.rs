//! What can stop a run.

use std::io;
use std::path::PathBuf;

/// Why there are no figures.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum MicroError {
    /// valgrind cannot be started ({0}); scripts/micro installs it
    Valgrind(io::Error),
    /// group {group} failed {how}: {reason}
    Group {
        /// The group of operations.
        group: String,
        /// Natively or under callgrind.
        how: &'static str,
        /// The last thing it said.
        reason: String,
    },
    /// cannot use {path:?}: {source}
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// group {group} says {line:?}, which is no measurement
    Line {
        /// The group of operations.
        group: String,
        /// What it said.
        line: String,
    },
    /// callgrind's file {path:?} has no {what}
    Profile {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// callgrind counted nothing for {0:?}
    NotCounted(String),
    /// two runs counted differently: {0}
    Differs(String),
    /// {what}: {source}
    Io {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl MicroError {
    /// An adapter for `map_err`: says what was being done.
    pub fn io(what: &'static str) -> impl FnOnce(io::Error) -> MicroError {
        move |source| MicroError::Io { what, source }
    }
}
