//! Every file of a store, damaged in every way: it is said which, or nothing is missing.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::StoreError;
use crate::codec::keys::Key;
use crate::codec::values;
use crate::core::Core;
use crate::engine::{Change, Engine, EngineRead, FjallEngine, Keyspace};
use crate::fixture::Draws;

/// What a store has, but for what each start changes.
type Contents = BTreeMap<(Keyspace, Vec<u8>), Vec<u8>>;

fn contents(read: &dyn EngineRead) -> Result<Contents, StoreError> {
    let mut contents = Contents::new();
    for keyspace in Keyspace::ALL.into_iter().filter(|keyspace| *keyspace != Keyspace::Meta) {
        read.scan(keyspace, &[], None, &mut |key, value| {
            contents.insert((keyspace, key.to_vec()), value.to_vec());
            ControlFlow::Continue(())
        })?;
    }
    Ok(contents)
}

/// Makes some writes of all keyspaces, as a broker that then ends in an orderly way or is killed.
fn fill(folder: &Path, from: u8, count: u8, is_killed: bool) {
    let mut engine = FjallEngine::open_folder(folder).expect("it opens");
    for n in from..from + count {
        let changes = Keyspace::ALL.into_iter().filter(|keyspace| *keyspace != Keyspace::Meta);
        let changes = changes.map(|keyspace| {
            let key = Key::from_slice(&[0, n, keyspace as u8]);
            let value = Some(values::number(&key, u64::from(n) << 40));
            Change { keyspace, key, value }
        });
        engine.write(changes.collect()).expect("it writes");
    }
    engine.sync().expect("it syncs");
    let core = Core::open(engine, 1).expect("it opens");
    if from == 0 {
        for keyspace in Keyspace::ALL {
            core.engine().compaction(keyspace)().expect("it compacts");
        }
    }
    if !is_killed {
        core.into_engine().end().expect("it ends");
    }
}

/// Opens a store and reads all it has, as a start and its clients do.
fn read(folder: &Path) -> Result<Contents, StoreError> {
    let core =
        Core::open(FjallEngine::open_folder(folder)?, 1).map_err(|error| error.at_start(folder))?;
    contents(&core.snapshot()).map_err(|error| error.at_start(folder))
}

/// All files below a folder, with their bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for file in fs::read_dir(folder).expect("it is there") {
        let path = file.expect("it is there").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let mut bytes = fs::read(&path).expect("it reads");
            if path.extension().is_some_and(|extension| extension == "jnl") {
                // Most of it is room made in advance.
                let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                bytes.truncate(used + 50);
            }
            found.insert(path, bytes);
        }
    }
    found
}

fn lay(folder: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    fs::remove_dir_all(folder).expect("it goes");
    for (path, bytes) in files {
        fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
        fs::write(path, bytes).expect("it writes");
    }
}

enum Harm {
    Flip(usize),
    Cut(usize),
    Append,
    Remove,
}

/// Some of what there is to try with a file of so many bytes; all with `RINGMQ_EVERY_BYTE`, which takes minutes.
fn harms(len: usize, draws: &mut Draws) -> Vec<Harm> {
    let every = std::env::var_os("RINGMQ_EVERY_BYTE").is_some();
    let mut some = |most: usize| -> Vec<usize> {
        if every || len <= most {
            return (0..len).collect();
        }
        (0..most).map(|_| usize::try_from(draws.below(len as u64)).expect("it fits")).collect()
    };
    let mut harms: Vec<Harm> = some(30).into_iter().map(Harm::Flip).collect();
    harms.extend(some(6).into_iter().map(Harm::Cut));
    harms.extend([Harm::Append, Harm::Remove]);
    harms
}

#[test]
fn whatever_file_is_damaged_it_is_said_or_nothing_is_missing() {
    let (said, unharmed) = damage_all(false, &|_| false);
    assert!(said > 200 && unharmed > 20, "{said} {unharmed}");
}

/// Behind a kill the newest writes may be torn, and nobody can tell whether they were: they are cut off, which is logged.
#[test]
fn behind_a_kill_nothing_but_the_newest_writes_can_be_missing() {
    let newest = |found: &Contents| {
        found.keys().all(|(_, key)| key[1] < 25) && found.len() >= 20 * (Keyspace::COUNT - 1)
    };
    let (said, _) = damage_all(true, &newest);
    assert!(said > 200, "{said}");
}

/// How often it was said, and how often nothing was missing.
fn damage_all(is_killed: bool, may_be_left: &dyn Fn(&Contents) -> bool) -> (u32, u32) {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let folder = folder.expect("a folder");
    let store = folder.path().join("store");
    fill(&store, 0, 20, false);
    fill(&store, 20, 5, is_killed);
    let whole = files(&store);
    let wanted = {
        lay(&store, &whole);
        read(&store).expect("it is whole")
    };
    assert_eq!(wanted.len(), 25 * (Keyspace::COUNT - 1));
    let mut draws = Draws::new(11);
    let (mut said, mut unharmed) = (0, 0);
    for (path, bytes) in &whole {
        for harm in harms(bytes.len(), &mut draws) {
            lay(&store, &whole);
            let mut changed = bytes.clone();
            let what = match harm {
                Harm::Flip(at) => {
                    changed[at] ^= 1 << draws.below(8);
                    format!("byte {at} flipped")
                }
                Harm::Cut(len) => {
                    changed.truncate(len);
                    format!("cut to {len} bytes")
                }
                Harm::Append => {
                    changed.extend_from_slice(b"appended");
                    "appended".to_owned()
                }
                Harm::Remove => "removed".to_owned(),
            };
            if matches!(harm, Harm::Remove) {
                fs::remove_file(path).expect("it goes");
            } else {
                fs::write(path, &changed).expect("it writes");
            }
            let what = format!("{} of {} bytes: {what}", path.display(), bytes.len());
            match read(&store) {
                Ok(found) if found == wanted => unharmed += 1,
                Ok(found) if may_be_left(&found) => {}
                Ok(found) => panic!("{what}: {} of {} are there", found.len(), wanted.len()),
                Err(StoreError::Damaged { folder, what: text }) => {
                    said += 1;
                    let name = path.strip_prefix(&store).expect("it is in it");
                    let name = name.to_str().expect("it is text");
                    let is_named = text.contains(name)
                        || matches!(harm, Harm::Remove) && text.contains(".jnl");
                    assert!(is_named && folder == store, "{what}: {text}");
                }
                Err(other) => panic!("{what}: {other}"),
            }
        }
    }
    (said, unharmed)
}
