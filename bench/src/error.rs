//! What can stop a run. A single failing client never does: it is counted by reason instead.

use crate::engine::FleetError;
use std::io;
use std::path::PathBuf;

/// Why a run could not start or could not go on.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum BenchError {
    /// cannot resolve {host:?} to an IPv4 address: {source}
    Resolve {
        /// The name that was asked for.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// {host:?} has no IPv4 address; give one with --host
    NoAddress {
        /// The name that was asked for.
        host: String,
    },
    /// bad option: {0}
    Option(String),
    /// process {pid} (--broker-pid) cannot be read: {source}
    Process {
        /// The process that was to be measured.
        pid: i32,
        /// What the kernel said.
        source: io::Error,
    },
    /// cannot pin to CPU {cpus:?}: {source}
    Pin {
        /// The CPUs that were asked for.
        cpus: Vec<usize>,
        /// What the kernel said.
        source: io::Error,
    },
    /// {clients} attackers need {needed} files, the limit is {limit}; raise `ulimit -n` or use fewer clients
    Files {
        /// Clients of the run.
        clients: usize,
        /// Descriptors they need.
        needed: u64,
        /// The hard limit of this process.
        limit: u64,
    },
    /// only {ready} of {total} clients got ready: {reasons}
    NotReady {
        /// Clients that got through.
        ready: u64,
        /// Clients of the run.
        total: u64,
        /// Failures by reason, as text.
        reasons: String,
    },
    /// cannot use {path:?}: {source}
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// {path:?} is not a result of this tool: {reason}
    Result {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// the threads could not be started: {0}
    Fleet(String),
    /// not all is well: {0}
    Lost(String),
    /// no result has a figure to chart: run the scenarios with --broker-pid
    NothingToChart,
    /// {what}: {source}
    Io {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// no client is left; {reasons}
    NoClientLeft {
        /// What was counted, as text.
        reasons: String,
    },
    /// {0}
    Threads(#[from] FleetError),
    /// {what}: nothing has happened for a minute after {done} of {total}; clients that failed: {reasons}
    Stalled {
        /// What was waited for.
        what: String,
        /// How far it came.
        done: u64,
        /// How far it was to come.
        total: u64,
        /// Failures by reason, as text.
        reasons: String,
    },
    /// a generator thread ended early; this is a bug of ringmq-bench
    Thread,
}

impl BenchError {
    /// An adapter for `map_err`: says what was being done.
    pub fn io(what: &'static str) -> impl FnOnce(io::Error) -> BenchError {
        move |source| BenchError::Io { what, source }
    }
}
