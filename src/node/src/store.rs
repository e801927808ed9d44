//! The store of a node: its threads, its ways to the shards and back (SEED-SESS-01, SEED-PUB-11).

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use config::{Settings, StoreSync as SyncSetting};
use crossbeam_channel::{Receiver, Sender, bounded};
use reactor::WakeHandle;
use shard::storage::{StoreOp, StoreReply, StoreRequest};
use shard::{StoreLink, StoreMode};
use store::{
    BackupInfo, OnEvent, ShardOutlet, Store, StoreError, StoreEvent, StoreInfo, StoreSetup,
    StoreStage, StoreSync,
};

use crate::alarms::{Alarms, STORE_DAMAGED, STORE_FAILING};
use crate::banned::BannedStore;
use crate::node::COMMAND_TIMEOUT;

/// Its folder in the data folder.
const FOLDER: &str = "store";

/// How long the start waits to hear that the files cannot be opened. Opening may take longer; accepting does not wait for it.
const OPENING: Duration = Duration::from_millis(500);

/// How long the start waits until what is there is read: what cannot be read is to be said before the broker says it runs.
const READING: Duration = Duration::from_secs(20);

/// Answers that wait for a shard: pages of what is there at the start.
const REPLIES_MAX: usize = 64;

/// How often changes are handed over with `store.sync = never`.
const NEVER_MS: u64 = 1000;

/// How often it is looked at whether the store is read. In between nobody holds it, so that it can be closed.
const WATCH: Duration = Duration::from_millis(500);

/// The store while the shards are being started.
pub(crate) struct StoreStart {
    store: Store,
    requests: Sender<StoreRequest>,
    replies: Vec<Receiver<StoreReply>>,
    doorbells: Vec<Arc<OnceLock<WakeHandle>>>,
    mode: StoreMode,
}

/// A running store.
#[derive(Debug)]
pub(crate) struct NodeStore(Store);

impl StoreStart {
    /// Opens the store of these settings; `None` if they want none.
    ///
    /// # Errors
    /// [`StoreError`], if it is known soon that it cannot be opened.
    pub fn open(
        settings: &Settings,
        shards: usize,
        alarms: &Arc<Alarms>,
        banned: &BannedStore,
    ) -> Result<Option<Self>, StoreError> {
        if !settings.store.enable {
            return Ok(None);
        }
        let doorbells: Vec<Arc<OnceLock<WakeHandle>>> =
            (0..shards).map(|_| Arc::default()).collect();
        let (outlets, replies) = doorbells.iter().map(outlet).unzip();
        let (mode, sync) = policy(settings.store.sync);
        let store = Store::open(StoreSetup {
            folder: settings.node.data_dir.join(FOLDER),
            sync,
            bans: banned.hand_over(),
            shards: outlets,
            on_event: tell(Arc::clone(alarms), settings.store.sync),
        })?;
        store.wait_for(StoreStage::Loading, OPENING)?;
        Ok(Some(Self { requests: store.requests(), store, replies, doorbells, mode }))
    }

    /// The way of one shard.
    pub fn link(&self, shard: usize) -> StoreLink {
        StoreLink {
            requests: self.requests.clone(),
            replies: self.replies[shard].clone(),
            mode: self.mode,
        }
    }

    /// The shards run: answers wake them from now on.
    pub fn connect(self, wakes: impl Iterator<Item = WakeHandle>) -> NodeStore {
        for (doorbell, wake) in self.doorbells.iter().zip(wakes) {
            // What came before found nobody to wake.
            doorbell.get_or_init(|| wake).wake();
        }
        NodeStore(self.store)
    }
}

impl NodeStore {
    /// What can be said of it.
    pub fn info(&self) -> StoreInfo {
        self.0.info()
    }

    /// Waits until the shards know what is there, which is when clients are served; what takes long is said and goes on.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be read.
    pub fn wait_ready(&self) -> Result<(), StoreError> {
        if self.0.wait_for(StoreStage::Ready, READING)? != StoreStage::Ready {
            log::warn!(
                "the store is still being read after {} s: clients are accepted and wait for it",
                READING.as_secs()
            );
        }
        Ok(())
    }

    /// Gives the bans that were there at the start, when it is read; after that it does nothing.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be read.
    pub fn tell_bans(&self, banned: &BannedStore) -> Result<(), StoreError> {
        if banned.is_reading()
            && self.0.wait_for(StoreStage::Ready, Duration::ZERO)? == StoreStage::Ready
        {
            banned.found(self.0.take_bans());
        }
        Ok(())
    }

    /// Keeps changes of the bans; returns when it is committed.
    pub fn keep(&self, changes: Vec<StoreOp>) -> Result<(), StoreError> {
        self.0.keep(changes, COMMAND_TIMEOUT)
    }

    /// Writes a backup while the store goes on; returns when it is whole.
    pub fn backup(&self, folder: &Path) -> Result<BackupInfo, StoreError> {
        self.0.backup(folder)
    }

    /// Ends the process if the store turns out not to be readable: without it the shards serve nobody.
    pub fn watch(self: &Arc<Self>) -> std::io::Result<()> {
        let watched = Arc::downgrade(self);
        thread::Builder::new().name("ringmq-store".to_owned()).spawn(move || {
            loop {
                let Some(store) = watched.upgrade() else { return };
                match store.0.wait_for(StoreStage::Ready, Duration::ZERO) {
                    Ok(StoreStage::Ready) | Err(StoreError::Closed) => return,
                    Ok(_) => {}
                    Err(error) => {
                        log::error!("{error}; the broker ends");
                        std::process::exit(1);
                    }
                }
                drop(store);
                thread::sleep(WATCH);
            }
        })?;
        Ok(())
    }

    /// Writes what is left, and ends.
    ///
    /// # Errors
    /// [`StoreError`]: what was not committed is lost.
    pub fn close(self) -> Result<(), StoreError> {
        self.0.close()
    }
}

fn outlet(doorbell: &Arc<OnceLock<WakeHandle>>) -> (ShardOutlet, Receiver<StoreReply>) {
    let (replies, receiver) = bounded(REPLIES_MAX);
    let late = Arc::clone(doorbell);
    let ring = move || {
        if let Some(wake) = late.get() {
            wake.wake();
        }
    };
    (ShardOutlet { replies, doorbell: Arc::new(ring) }, receiver)
}

/// When shards hand over, and when the store syncs. An interval is shared by both, so that together they keep to it.
fn policy(setting: SyncSetting) -> (StoreMode, StoreSync) {
    match setting {
        SyncSetting::Always => (StoreMode::Always, StoreSync::Always),
        SyncSetting::EveryMs(interval_ms) => {
            let half_ms = interval_ms.div_ceil(2);
            (StoreMode::EveryMs(half_ms), StoreSync::Every(Duration::from_millis(half_ms)))
        }
        SyncSetting::Never => (StoreMode::EveryMs(NEVER_MS), StoreSync::Never),
    }
}

fn tell(alarms: Arc<Alarms>, sync: SyncSetting) -> OnEvent {
    let meanwhile = match sync {
        SyncSetting::Always => "nothing acknowledged is lost",
        _ => {
            "what was acknowledged since the last write is lost if the broker ends before there is a next one"
        }
    };
    Arc::new(move |event: StoreEvent<'_>| match event {
        StoreEvent::Failing(why) => alarms.raise(&STORE_FAILING, format!("{why}; {meanwhile}")),
        StoreEvent::Good => alarms.clear(&STORE_FAILING),
        StoreEvent::Damaged(what) => alarms.raise(&STORE_DAMAGED, what),
    })
}

/// Checks a backup and lays it ready in a data folder: the broker there takes it over when it starts the next time.
///
/// # Errors
/// [`StoreError`]: it is damaged, of a newer version, or cannot be copied. Nothing is changed then.
pub fn restore_store(data_dir: &Path, backup: &Path) -> Result<BackupInfo, StoreError> {
    store::restore(backup, &data_dir.join(FOLDER))
}
