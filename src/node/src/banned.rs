//! The list of who may not connect (SEED-AUTH-19).
//!
//! It is kept in the store, and a change is committed before its command is answered. Without a store (`store.enable = off`) it
//! is kept in the file `banned.json` of the data folder, a ban a line: a ban is not to end with the broker. The file is written
//! whole beside the old one and put in its place, so that a crash leaves one or the other. A store takes over what is in such a
//! file at its next start.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use displaydoc::Display;
use serde::{Deserialize, Serialize};
use shard::storage::StoreOp;
use shard::{Ban, BannedList, BannedWho};
use store::StoreError;
use thiserror::Error;

use crate::store::NodeStore;

/// Name of the file in the data folder.
const FILE: &str = "banned.json";

/// Most bans: each change writes the file, and each shard looks them up.
pub const BANS_MAX: usize = 10_000;

/// Longest name and reason of a ban in bytes.
const TEXT_MAX: usize = 65_535;

/// Why the list could not be read or changed.
#[derive(Debug, Display, Error)]
pub enum BannedError {
    /// cannot read the list of bans {0}: {1}
    Read(PathBuf, io::Error),
    /// {0}:{1}: this line is no ban: {2}; repair or remove it
    Line(PathBuf, usize, String),
    /// cannot write the list of bans {0}: {1}
    Write(PathBuf, io::Error),
    /// the bans are still being read from the store; try again in a while
    Reading,
    /// {0}
    Store(#[from] StoreError),
    /// there are 10000 bans already, which is the most; delete some, or ban addresses in the firewall
    Full,
    /// {0:?} is no address
    Address(String),
    /// the name of who is banned is empty, or it or the reason is longer than 65535 bytes
    Text,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    kind: Kind,
    who: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    by: String,
    #[serde(default)]
    at: u64,
    #[serde(default)]
    until: Option<u64>,
}

/// What of a client a ban is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    ClientId,
    Username,
    PeerHost,
}

/// Reads who a ban is about: `clientid`, `username` or `peerhost`, and the name.
///
/// # Errors
/// [`BannedError`] if it is nobody.
pub fn who(kind: &str, name: &str) -> Result<BannedWho, BannedError> {
    if name.is_empty() || name.len() > TEXT_MAX {
        return Err(BannedError::Text);
    }
    Ok(match kind {
        "clientid" => BannedWho::ClientId(name.to_owned()),
        "username" => BannedWho::Username(name.to_owned()),
        _ => {
            let address: Result<IpAddr, _> = name.parse();
            let address = address.map_err(|_| BannedError::Address(name.to_owned()))?;
            BannedWho::PeerHost(address.to_canonical())
        }
    })
}

fn to_line(ban: &Ban) -> Line {
    let (kind, who) = match &ban.who {
        BannedWho::ClientId(name) => (Kind::ClientId, name.clone()),
        BannedWho::Username(name) => (Kind::Username, name.clone()),
        BannedWho::PeerHost(host) => (Kind::PeerHost, host.to_string()),
    };
    let Ban { reason, by, at_unix_s: at, until_unix_s: until, .. } = ban.clone();
    Line { kind, who, reason, by, at, until }
}

fn from_line(text: &str) -> Result<Ban, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let kind = match line.kind {
        Kind::ClientId => "clientid",
        Kind::Username => "username",
        Kind::PeerHost => "peerhost",
    };
    let who = who(kind, &line.who).map_err(|error| error.to_string())?;
    let Line { reason, by, at, until, .. } = line;
    Ok(Ban { who, reason, by, at_unix_s: at, until_unix_s: until })
}

/// The list and its file.
#[derive(Debug)]
pub(crate) struct BannedStore {
    path: PathBuf,
    bans: Mutex<Vec<Ban>>,
    /// The store keeps them, and they are not read yet.
    is_reading: AtomicBool,
}

impl BannedStore {
    /// Reads the list of a data folder; there need be none.
    pub fn load(folder: &Path) -> Result<BannedStore, BannedError> {
        let path = folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(BannedError::Read(path, error)),
        };
        let mut bans = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let ban =
                from_line(line).map_err(|why| BannedError::Line(path.clone(), number + 1, why))?;
            bans.push(ban);
        }
        if bans.len() > BANS_MAX {
            return Err(BannedError::Full);
        }
        Ok(BannedStore { path, bans: Mutex::new(bans), is_reading: AtomicBool::new(false) })
    }

    /// The bans, for a store to take over; those it has are not known yet.
    pub fn hand_over(&self) -> Vec<Ban> {
        self.is_reading.store(true, Ordering::Release);
        self.lock().clone()
    }

    /// The store has these, with those of the file, which is needed no more.
    pub fn found(&self, bans: Vec<Ban>) {
        *self.lock() = bans;
        self.is_reading.store(false, Ordering::Release);
        match fs::remove_file(&self.path) {
            Ok(()) => log::info!("the bans of {} are kept in the store now", self.path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => log::warn!(
                "cannot remove {}, whose bans are in the store now: {error}; remove it, else the next start takes them over again",
                self.path.display()
            ),
        }
    }

    /// Whether it is not known yet what the store has.
    pub fn is_reading(&self) -> bool {
        self.is_reading.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Ban>> {
        self.bans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bans in the form the shards look them up in.
    pub fn snapshot(&self) -> Arc<BannedList> {
        Arc::new(BannedList::new(self.lock().iter()))
    }

    /// The bans in force.
    pub fn list(&self, now_unix_s: u64) -> Vec<Ban> {
        self.lock().iter().filter(|ban| in_force(ban, now_unix_s)).cloned().collect()
    }

    /// Adds a ban, or replaces that of the same client. Kept when it returns.
    pub fn add(&self, ban: Ban, store: Option<&NodeStore>) -> Result<(), BannedError> {
        if ban.reason.len() > TEXT_MAX || ban.by.len() > TEXT_MAX {
            return Err(BannedError::Text);
        }
        let mut bans = self.lock();
        let mut changed = bans.clone();
        changed.retain(|old| old.who != ban.who && in_force(old, ban.at_unix_s));
        if changed.len() >= BANS_MAX {
            return Err(BannedError::Full);
        }
        changed.push(ban);
        self.keep(&mut bans, changed, store)
    }

    /// Deletes a ban; false if there was none.
    pub fn delete(&self, who: &BannedWho, store: Option<&NodeStore>) -> Result<bool, BannedError> {
        let mut bans = self.lock();
        let changed: Vec<Ban> = bans.iter().filter(|ban| ban.who != *who).cloned().collect();
        if changed.len() == bans.len() {
            return Ok(false);
        }
        self.keep(&mut bans, changed, store)?;
        Ok(true)
    }

    /// Keeps the list as it is to be; then it is so.
    fn keep(
        &self,
        bans: &mut Vec<Ban>,
        changed: Vec<Ban>,
        store: Option<&NodeStore>,
    ) -> Result<(), BannedError> {
        let Some(store) = store else {
            self.write(&changed)?;
            *bans = changed;
            return Ok(());
        };
        if self.is_reading() {
            return Err(BannedError::Reading);
        }
        let kept = store.keep(changes(bans, &changed));
        if let Ok(()) | Err(StoreError::Late) = kept {
            *bans = changed;
        }
        Ok(kept?)
    }

    fn write(&self, bans: &[Ban]) -> Result<(), BannedError> {
        let beside = self.path.with_extension("json.new");
        let written = (|| {
            let mut text = Vec::new();
            for ban in bans {
                serde_json::to_writer(&mut text, &to_line(ban))?;
                text.push(b'\n');
            }
            let mut file = File::create(&beside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)?;
            // The new name is in force for certain only when the folder is on the disk too.
            self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        })();
        written.map_err(|error: io::Error| BannedError::Write(self.path.clone(), error))
    }
}

/// What makes one list the other.
fn changes(before: &[Ban], after: &[Ban]) -> Vec<StoreOp> {
    let known: HashMap<&BannedWho, &Ban> = before.iter().map(|ban| (&ban.who, ban)).collect();
    let left: HashSet<&BannedWho> = after.iter().map(|ban| &ban.who).collect();
    let gone = before.iter().filter(|ban| !left.contains(&ban.who));
    let new = after.iter().filter(|ban| known.get(&ban.who) != Some(ban));
    let gone = gone.map(|ban| StoreOp::RemoveBan(ban.who.clone()));
    gone.chain(new.map(|ban| StoreOp::PutBan(Box::new(ban.clone())))).collect()
}

fn in_force(ban: &Ban, now_unix_s: u64) -> bool {
    ban.until_unix_s.is_none_or(|until| now_unix_s < until)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path =
                std::env::temp_dir().join(format!("ringmq-banned-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn ban(kind: &str, name: &str, until_unix_s: Option<u64>) -> Ban {
        let who = who(kind, name).unwrap();
        Ban { who, reason: "why\n\"so\"".into(), by: "me".into(), at_unix_s: 100, until_unix_s }
    }

    #[test]
    fn bans_are_kept_in_the_folder() {
        let folder = Folder::new("kept");
        let store = BannedStore::load(&folder.0).unwrap();
        let bans = [
            ban("clientid", "c\u{0} d", None),
            ban("username", "u", Some(500)),
            ban("peerhost", "::ffff:10.0.0.1", Some(900)),
        ];
        for ban in &bans {
            store.add(ban.clone(), None).unwrap();
        }
        store.add(bans[1].clone(), None).unwrap();
        let again = BannedStore::load(&folder.0).unwrap();
        assert_eq!(again.list(100), [bans[0].clone(), bans[2].clone(), bans[1].clone()]);
        assert_eq!(again.list(500).len(), 2, "one has ended");
        assert!(
            again.delete(&bans[0].who, None).unwrap() && !again.delete(&bans[0].who, None).unwrap()
        );
        assert_eq!(BannedStore::load(&folder.0).unwrap().list(100).len(), 2);
        assert!(!folder.0.join("banned.json.new").exists());
        let later = Ban { at_unix_s: 600, ..ban("clientid", "x", None) };
        again.add(later, None).unwrap();
        let text = fs::read_to_string(folder.0.join(FILE)).unwrap();
        assert_eq!(text.lines().count(), 2, "who has ended is dropped at the next change");
    }

    #[test]
    fn a_broken_file_is_told_with_its_line() {
        let folder = Folder::new("broken");
        let path = folder.0.join(FILE);
        let good = "{\"kind\":\"clientid\",\"who\":\"c\"}";
        for (line, why) in [
            ("nonsense", "expected"),
            ("{\"kind\":\"peerhost\",\"who\":\"host\"}", "\"host\" is no address"),
            ("{\"kind\":\"clientid\",\"who\":\"\"}", "is empty"),
        ] {
            fs::write(&path, format!("{good}\n{line}\n")).unwrap();
            let error = BannedStore::load(&folder.0).unwrap_err().to_string();
            let start = format!("{}:2: this line is no ban: ", path.display());
            assert!(error.starts_with(&start) && error.contains(why), "{error}");
        }
        let store = BannedStore {
            path: folder.0.join("none/x"),
            bans: Mutex::default(),
            is_reading: AtomicBool::new(false),
        };
        assert!(matches!(store.add(ban("clientid", "c", None), None), Err(BannedError::Write(..))));
        assert!(store.list(0).is_empty(), "what could not be kept is not in force");
    }

    #[test]
    fn the_list_is_bounded() {
        let folder = Folder::new("bounded");
        let many = (0..BANS_MAX).map(|n| ban("clientid", &n.to_string(), None)).collect();
        let store = BannedStore {
            path: folder.0.join(FILE),
            bans: Mutex::new(many),
            is_reading: AtomicBool::new(false),
        };
        assert!(matches!(store.add(ban("clientid", "more", None), None), Err(BannedError::Full)));
        store.add(ban("clientid", "7", Some(1000)), None).unwrap();
        assert_eq!(BannedStore::load(&folder.0).unwrap().list(0).len(), BANS_MAX);
    }

    #[test]
    fn a_change_of_the_list_is_few_changes_of_the_store() {
        let list =
            [ban("clientid", "a", None), ban("username", "b", None), ban("clientid", "c", None)];
        let mut after =
            vec![list[0].clone(), ban("username", "b", Some(9)), ban("peerhost", "::1", None)];
        assert_eq!(changes(&list, &list).len(), 0);
        let wanted = |op: &StoreOp| match op {
            StoreOp::RemoveBan(who) => *who == list[2].who,
            StoreOp::PutBan(put) => **put == after[1] || **put == after[2],
            _ => false,
        };
        let found = changes(&list, &after);
        assert_eq!((found.len(), found.iter().all(wanted)), (3, true), "{found:?}");
        after.clear();
        assert_eq!(changes(&list, &after).len(), 3);
    }
}
