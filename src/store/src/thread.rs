//! The edge with threads. One thread writes: it takes all batches that wait, applies them in one write, syncs once, and
//! answers all shards. What reads for long is elsewhere, on snapshots: one thread hands over what is there at the start and
//! ends, one reads what shards ask for.

mod boot;
mod outlet;
mod reader;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use shard::Ban;
use shard::storage::{StoreHealth, StoreOp, StoreReply, StoreRequest};

use crate::StoreError;
use crate::engine::{Engine, EngineError, EngineRead, FjallEngine};
use crate::info::StoreInfo;
use shared::Shared;
use writer::Writer;

/// Batches that wait in the channel for each shard, and some.
const BATCHES_PER_SHARD: usize = 4;

/// When what is written is made safe from a loss of power (`store.sync`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreSync {
    /// Before a batch counts as committed.
    Always,
    /// This often. A batch counts as committed when the operating system has it: a broker that is killed loses nothing, a
    /// machine that loses power loses what is younger.
    Every(Duration),
    /// When the operating system does it, and at an orderly end.
    Never,
}

/// Wakes a shard that has a reply to read.
pub type Doorbell = Arc<dyn Fn() + Send + Sync>;

/// What whoever runs a store is to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreEvent<'a> {
    /// It cannot write: the error.
    Failing(&'a str),
    /// It can again.
    Good,
    /// Something in it was changed by others, and what of it cannot be read.
    Damaged(&'a str),
}

/// Is told of events, by threads of the store.
pub type OnEvent = Arc<dyn Fn(StoreEvent<'_>) + Send + Sync>;

/// The way to a shard.
#[derive(Clone)]
pub struct ShardOutlet {
    /// Its replies. Bounded; a shard that does not read holds up only itself.
    pub replies: Sender<StoreReply>,
    /// Its doorbell.
    pub doorbell: Doorbell,
}

/// What a store needs.
pub struct StoreSetup {
    /// The folder of its files; made if it is not there. Nothing else may be in it.
    pub folder: PathBuf,
    /// When to sync.
    pub sync: StoreSync,
    /// Bans that were kept elsewhere: they are taken over.
    pub bans: Vec<Ban>,
    /// The shards, by number.
    pub shards: Vec<ShardOutlet>,
    /// Is called by threads of the store.
    pub on_event: OnEvent,
}

/// How far a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreStage {
    /// It is being opened; after a kill its journal is read again.
    Opening,
    /// It takes batches; shards are still told what is there.
    Loading,
    /// Shards know all that was there.
    Ready,
}

/// A running store.
pub struct Store {
    folder: PathBuf,
    requests: Sender<StoreRequest>,
    control: Sender<Control>,
    shared: Arc<Shared>,
    thread: JoinHandle<Result<(), StoreError>>,
}

/// What the writer is asked beside batches.
enum Control {
    Snapshot(Sender<Arc<dyn EngineRead + Send + Sync>>),
    /// Is to be kept; answered when it is committed.
    Keep(Vec<StoreOp>, Sender<()>),
    Close,
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Store").field("stage", &self.shared.stage()).finish_non_exhaustive()
    }
}

impl Store {
    /// Starts the store's threads. The files are opened there, so that a long journal delays nobody: what came of it says
    /// [`Store::wait_for`].
    ///
    /// # Errors
    /// [`StoreError::Open`]: the threads cannot be started.
    pub fn open(setup: StoreSetup) -> Result<Self, StoreError> {
        let folder = setup.folder.clone();
        Self::open_on(setup, move || FjallEngine::open_folder(&folder))
    }

    /// The same on an engine that `open` opens: for tests and for the simulation of failing disks.
    ///
    /// # Errors
    /// [`StoreError::Open`]: the threads cannot be started.
    pub fn open_on<E: Engine + 'static>(
        setup: StoreSetup,
        open: impl FnOnce() -> Result<E, StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (requests, incoming) = bounded(BATCHES_PER_SHARD * setup.shards.len() + 4);
        let (control, controlled) = bounded(4);
        let shared = Arc::new(Shared::new());
        let (folder, for_writer) = (setup.folder.clone(), Arc::clone(&shared));
        let at = folder.clone();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || run(setup, open, &for_writer, incoming, controlled))
            .map_err(|error| StoreError::Open { folder: at, reason: error.to_string() })?;
        Ok(Self { folder, requests, control, shared, thread })
    }

    /// The folder of its files.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// Where shards hand over their batches. Bounded.
    #[must_use]
    pub fn requests(&self) -> Sender<StoreRequest> {
        self.requests.clone()
    }

    /// Waits until the store has come to `stage`, at most `timeout`; says where it is then.
    ///
    /// # Errors
    /// [`StoreError`]: it will never come there. The error is given once; later calls say [`StoreError::Closed`].
    pub fn wait_for(&self, stage: StoreStage, timeout: Duration) -> Result<StoreStage, StoreError> {
        self.shared.wait_for(stage, timeout)
    }

    /// Sizes, counts and health.
    #[must_use]
    pub fn info(&self) -> StoreInfo {
        self.shared.info()
    }

    /// The bans that were there at the start. Once [`StoreStage::Ready`] is reached, and once.
    #[must_use]
    pub fn take_bans(&self) -> Vec<Ban> {
        self.shared.take_bans()
    }

    /// Keeps changes that are no shard's. Returns when they are committed, as `store.sync` says; after `timeout` with an error, and
    /// then they are kept when the store can.
    ///
    /// # Errors
    /// [`StoreError::Failing`]: it cannot write, and nothing is done; [`StoreError::Late`]; [`StoreError::Closed`].
    pub fn keep(&self, ops: Vec<StoreOp>, timeout: Duration) -> Result<(), StoreError> {
        if self.info().health == StoreHealth::Failing {
            return Err(StoreError::Failing);
        }
        let (answer, answered) = bounded(1);
        self.control.send(Control::Keep(ops, answer)).map_err(|_| StoreError::Closed)?;
        answered.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => StoreError::Late,
            RecvTimeoutError::Disconnected => StoreError::Closed,
        })
    }

    /// The state of one moment, to be read by the caller's thread.
    pub(crate) fn snapshot(&self) -> Result<Arc<dyn EngineRead + Send + Sync>, StoreError> {
        let (answer, answered) = bounded(1);
        self.control.send(Control::Snapshot(answer)).map_err(|_| StoreError::Closed)?;
        // No answer: it cannot write, and what it has in memory may not be what is on disk.
        answered.recv().map_err(|_| StoreError::Failing)
    }

    /// Applies what was handed over, syncs, and ends.
    ///
    /// # Errors
    /// [`StoreError::Engine`]: what was not committed could not be written.
    pub fn close(self) -> Result<(), StoreError> {
        // A thread that has ended needs no order to.
        let _ = self.control.send(Control::Close);
        drop(self.requests);
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Tells those who wait when the writer's thread panics: nothing is committed any more.
struct Watch<'a>(&'a Shared);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
            self.0.fail(StoreError::Engine(EngineError::Stopped));
        }
    }
}

fn run<E: Engine + 'static>(
    setup: StoreSetup,
    open: impl FnOnce() -> Result<E, StoreError>,
    shared: &Arc<Shared>,
    requests: Receiver<StoreRequest>,
    control: Receiver<Control>,
) -> Result<(), StoreError> {
    let _watch = Watch(shared);
    let folder = setup.folder.clone();
    let result = open()
        .and_then(|engine| Writer::start(engine, setup, Arc::clone(shared), requests, control))
        .map_err(|error| error.at_start(&folder))
        .map(Writer::run);
    match result {
        Ok(end) => {
            shared.fail(StoreError::Closed);
            end
        }
        Err(error) => {
            shared.fail(error);
            Ok(())
        }
    }
}
