//! The store on real files: backups, and a disk that is full or cannot be written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use ring::ShardId;
use shard::storage::{
    StoreBatch, StoreHealth, StoreOp, StoreReply, StoreRequest, StoredSession, StoredSessionRow,
};

use crate::fixture::{message, own, put_entry, put_session};
use crate::{
    ShardOutlet, Store, StoreError, StoreEvent, StoreSetup, StoreStage, StoreSync, restore,
};

const SECONDS: Duration = Duration::from_secs(30);

/// A store with one shard.
struct Running {
    store: Store,
    replies: Receiver<StoreReply>,
    health: Arc<Mutex<Vec<String>>>,
    sequence: u64,
}

impl Running {
    fn open(folder: &Path) -> Result<(Self, Vec<StoredSessionRow>), StoreError> {
        let (outlet, replies) = bounded(64);
        let health = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&health);
        let store = Store::open(StoreSetup {
            folder: folder.to_owned(),
            sync: StoreSync::Always,
            bans: Vec::new(),
            shards: vec![ShardOutlet { replies: outlet, doorbell: Arc::new(|| ()) }],
            retained_reads: None,
            on_event: Arc::new(move |event: StoreEvent<'_>| {
                told.lock().expect("no panic").push(format!("{event:?}"));
            }),
        })?;
        store.wait_for(StoreStage::Loading, SECONDS)?;
        let running = Self { store, replies, health, sequence: 0 };
        let mut rows = Vec::new();
        loop {
            match running.replies.recv_timeout(SECONDS).expect("the store answers") {
                StoreReply::Sessions(page) => rows.extend(page),
                StoreReply::Found { .. } => return Ok((running, rows)),
                _ => {}
            }
        }
    }

    fn send(&mut self, ops: Vec<StoreOp>) {
        self.sequence += 1;
        let batch =
            StoreBatch { sequence: self.sequence, numbers_below: 1, ops, ..StoreBatch::default() };
        let request = StoreRequest { shard: ShardId::new(0), batch };
        self.store.requests().send(request).expect("it runs");
    }

    /// Whether the newest batch is committed within `patience`.
    fn is_committed(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while let Ok(reply) = self.replies.recv_deadline(deadline) {
            if matches!(reply, StoreReply::Committed { sequence } if sequence == self.sequence) {
                return true;
            }
        }
        false
    }
}

fn session(number: u64) -> StoredSession {
    StoredSession { slot: 1, number }
}

fn ids(rows: &[StoredSessionRow]) -> Vec<&str> {
    rows.iter().map(|row| &*row.head.client_id).collect()
}

#[test]
fn a_backup_of_a_running_store_is_taken_over_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, saved) = (folder.path().join("store"), folder.path().join("saved"));
    let (mut running, _) = Running::open(&store).expect("it opens");
    running
        .send(vec![put_session(session(1), "old"), put_entry(session(1), own(1), message(1, "a"))]);
    assert!(running.is_committed(SECONDS));
    let info = running.store.backup(&saved).expect("it is saved");
    assert!(info.records >= 4);
    let twice = running.store.backup(&saved).expect_err("it is there already");
    assert!(twice.to_string().contains("name another folder"), "{twice}");
    running.send(vec![put_session(session(2), "new")]);
    assert!(running.is_committed(SECONDS));

    assert_eq!(restore(&saved, &store).expect("it is whole"), info);
    running.store.close().expect("it closes");
    let (running, rows) = Running::open(&store).expect("it opens");
    assert_eq!(ids(&rows), ["old"]);
    running.store.close().expect("it closes");
    // Only once: the next start has what came since.
    let (running, _) = Running::open(&store).expect("it opens");
    assert!(!store.join("restore").exists());
    assert!(store.join("replaced").exists());
    running.store.close().expect("it closes");
}

#[test]
fn a_damaged_or_short_backup_is_refused_and_nothing_is_staged() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, saved) = (folder.path().join("store"), folder.path().join("saved"));
    let (mut running, _) = Running::open(&store).expect("it opens");
    running.send(vec![put_session(session(1), "old")]);
    assert!(running.is_committed(SECONDS));
    running.store.backup(&saved).expect("it is saved");
    running.store.close().expect("it closes");
    let file = saved.join("store.backup");
    let whole = fs::read(&file).expect("it reads");
    let refused = |what: &str| {
        let error = restore(&saved, &store).expect_err(what).to_string();
        assert!(error.contains(&saved.display().to_string()), "{what}: {error}");
        error
    };
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&file, &bytes).expect("it writes");
        refused(&format!("byte {at}"));
    }
    for len in 0..whole.len() {
        fs::write(&file, &whole[..len]).expect("it writes");
        refused(&format!("{len} bytes"));
    }
    fs::write(&file, [&whole[..], b"x"].concat()).expect("it writes");
    assert!(refused("appended").contains(&format!("it has {} bytes, and had", whole.len() + 1)));
    fs::write(&file, &whole).expect("it writes");
    let manifest = saved.join("manifest");
    let text = fs::read(&manifest).expect("it is written last");
    for at in 0..text.len() {
        let mut bytes = text.clone();
        bytes[at] ^= 1;
        fs::write(&manifest, &bytes).expect("it writes");
        refused(&format!("byte {at} of the manifest"));
    }
    fs::remove_file(&manifest).expect("it goes");
    assert!(refused("no manifest").contains("manifest: it cannot be read"));
    assert!(!store.join("restore/store.backup").exists());
    fs::write(&manifest, &text).expect("it writes");
    restore(&saved, &store).expect("it is whole again");
}

#[test]
fn a_backup_before_there_were_manifests_is_read_to_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, saved) = (folder.path().join("store"), folder.path().join("saved"));
    let (mut running, _) = Running::open(&store).expect("it opens");
    running.send(vec![put_session(session(1), "old")]);
    assert!(running.is_committed(SECONDS));
    running.store.backup(&saved).expect("it is saved");
    running.store.close().expect("it closes");
    fs::remove_file(saved.join("manifest")).expect("it goes");
    let file = saved.join("store.backup");
    let mut bytes = fs::read(&file).expect("it reads");
    bytes[14] = b'1';
    fs::write(&file, [&bytes[..], b"x"].concat()).expect("it writes");
    let error = restore(&saved, &store).expect_err("it is too long").to_string();
    assert!(error.contains("something was appended"), "{error}");
    fs::write(&file, &bytes).expect("it writes");
    restore(&saved, &store).expect("it is whole");
}

#[test]
fn a_backup_and_the_store_have_places_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store");
    let (running, _) = Running::open(&store).expect("it opens");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&store, &link).expect("a link");
    let places =
        [store.clone(), store.join("data"), store.join("a/b"), folder.path().to_owned(), link];
    for place in places {
        let error = running.store.backup(&place).expect_err("it is the store's").to_string();
        assert!(error.contains("name another folder"), "{error}");
        let error = restore(&place, &store).expect_err("it is the store's").to_string();
        assert!(error.contains("name another folder"), "{error}");
    }
    running.store.backup(&folder.path().join("store2")).expect("it is beside it");
    running.store.close().expect("it closes");
}

/// A mounted file system in memory that goes when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).expect("a folder");
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            _ => {
                eprintln!("skipped: a small file system cannot be mounted here (it takes root)");
                None
            }
        }
    }

    fn remount(&self, how: &str) {
        let status =
            Command::new("mount").args(["-o", how]).arg(&self.0).status().expect("mount runs");
        assert!(status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the engine's threads may still be closing its files.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_commits_and_room_lets_them_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(_disk) = SmallDisk::mount(&folder.path().join("disk"), "24m") else { return };
    let store = folder.path().join("disk/store");
    let (mut running, _) = Running::open(&store).expect("it opens");
    running.send(vec![put_session(session(0), "first")]);
    assert!(running.is_committed(SECONDS));
    // Others fill the disk.
    let filler = folder.path().join("disk/filler");
    let _ = fs::write(&filler, vec![1; 24 << 20]);
    let mut number = 0;
    let payload = "t".repeat(10_000);
    loop {
        number += 1;
        assert!(number < 1_000, "the disk is never full");
        running.send(vec![
            put_session(session(number), &format!("client-{number}")),
            put_entry(session(number), own(1), message(u128::from(number), &payload)),
        ]);
        if !running.is_committed(Duration::from_secs(3)) {
            break;
        }
    }
    let health = running.health.lock().expect("no panic").clone();
    assert!(health[0].contains("Failing") && health[0].contains("no space left"), "{health:?}");
    assert_eq!(running.store.info().health, StoreHealth::Failing);
    fs::remove_file(&filler).expect("it goes");
    assert!(running.is_committed(SECONDS), "{:?}", running.store.info());
    assert_eq!(running.store.info().health, StoreHealth::Good);
    running.store.close().expect("it closes");
    let (running, rows) = Running::open(&store).expect("it opens");
    assert_eq!(rows.len() as u64, number + 1);
    running.store.close().expect("it closes");
}

#[test]
fn a_disk_that_cannot_be_written_is_said_at_the_start_and_nothing_is_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk"), "24m") else { return };
    let store = folder.path().join("disk/store");
    let (mut running, _) = Running::open(&store).expect("it opens");
    running.send(vec![put_session(session(0), "first")]);
    assert!(running.is_committed(SECONDS));
    running.store.close().expect("it closes");
    disk.remount("remount,ro");
    let error = Running::open(&store).err().expect("it cannot be written");
    assert!(error.to_string().contains("must be readable and writable"), "{error}");
    disk.remount("remount,rw");
    let (running, rows) = Running::open(&store).expect("it opens");
    assert_eq!(ids(&rows), ["first"]);
    running.store.close().expect("it closes");
}
