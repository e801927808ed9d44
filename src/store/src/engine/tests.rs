use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::{Change, Cut, Engine, EngineError, EngineRead, FjallEngine, Keyspace, SimulatedEngine};
use crate::StoreError;
use crate::codec::keys::{Key, meta};
use crate::codec::values::{self, Applied};
use crate::fixture::Draws;

fn change(keyspace: Keyspace, key: &[u8], value: Option<&[u8]>) -> Change {
    Change { keyspace, key: Key::from_slice(key), value: value.map(<[u8]>::to_vec) }
}

fn all(engine: &impl EngineRead, keyspace: Keyspace) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut all = BTreeMap::new();
    engine
        .scan(keyspace, &[], None, &mut |key, value| {
            all.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        })
        .expect("it reads");
    all
}

/// A write as the core makes it: some keys, and the record of what was applied.
fn write(engine: &mut impl Engine, round: u64, synced_round: u64) {
    let key = meta::APPLIED;
    let applied = Applied { boot: 1, round, synced_round, numbers_below: 0 };
    let mut changes: Vec<Change> = (0..20)
        .map(|n| change(Keyspace::Entries, &[1, n], Some(&[u8::try_from(round).unwrap_or(0); 300])))
        .collect();
    changes.push(change(Keyspace::Meta, key, Some(&values::applied(key, applied))));
    engine.write(changes).expect("it writes");
}

fn round_of(engine: &impl EngineRead) -> Option<u64> {
    let value = engine.get(Keyspace::Meta, meta::APPLIED).expect("it reads")?;
    Some(values::read_applied(meta::APPLIED, &value).expect("it is whole").round)
}

fn journal(folder: &Path) -> PathBuf {
    let mut journals: Vec<PathBuf> = fs::read_dir(folder)
        .expect("it is there")
        .map(|file| file.expect("it is there").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "jnl"))
        .collect();
    journals.sort();
    journals.pop().expect("there is one")
}

fn tables(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder).expect("it is there") {
        let path = file.expect("it is there").path();
        if path.is_dir() {
            found.extend(tables(&path));
        } else if path.parent().is_some_and(|folder| folder.ends_with("tables")) {
            found.push(path);
        }
    }
    found
}

fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn fjall_and_the_simulated_disk_do_the_same() {
    let folder = folder();
    let mut real = FjallEngine::open(folder.path()).expect("it opens");
    let mut simulated = SimulatedEngine::new();
    let mut draws = Draws::new(7);
    for step in 0..300 {
        let mut byte = |bound| u8::try_from(draws.below(bound)).expect("small");
        let changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = (0..byte(8))
            .map(|_| (vec![byte(6), byte(6)], (byte(3) > 0).then(|| vec![byte(250); 40])))
            .collect();
        let changes: Vec<Change> = changes
            .into_iter()
            .map(|(key, value)| change(Keyspace::Entries, &key, value.as_deref()))
            .collect();
        real.write(changes.clone()).expect("it writes");
        simulated.write(changes).expect("it writes");
        if step % 50 == 49 {
            real.reopen().expect("it opens");
        }
        let (from, below) = ([byte(6)], [byte(6)]);
        let some = |engine: &dyn EngineRead| {
            let mut some = Vec::new();
            let mut visit = |key: &[u8], value: &[u8]| {
                some.push((key.to_vec(), value.to_vec()));
                if some.len() == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            engine.scan(Keyspace::Entries, &from, Some(&below), &mut visit).expect("it reads");
            some
        };
        assert_eq!(some(&real), some(&simulated));
    }
    assert_eq!(all(&real, Keyspace::Entries), all(&simulated, Keyspace::Entries));
}

#[test]
fn a_snapshot_does_not_change() {
    let folder = folder();
    let mut engine = FjallEngine::open(folder.path()).expect("it opens");
    engine.write(vec![change(Keyspace::Retained, b"a", Some(b"1"))]).expect("it writes");
    let snapshot = engine.snapshot();
    engine.write(vec![change(Keyspace::Retained, b"a", None)]).expect("it writes");
    assert_eq!(
        snapshot.get(Keyspace::Retained, b"a").expect("it reads").as_deref(),
        Some(&b"1"[..])
    );
    assert_eq!(engine.get(Keyspace::Retained, b"a").expect("it reads"), None);
}

/// Writes some rounds and gives the journal as a kill leaves it.
fn journal_of(rounds: u64, synced_round: impl Fn(u64) -> u64) -> (tempfile::TempDir, PathBuf) {
    let folder = folder();
    let mut engine = FjallEngine::open(folder.path()).expect("it opens");
    for round in 1..=rounds {
        write(&mut engine, round, synced_round(round));
    }
    drop(engine);
    let path = journal(folder.path());
    // Most of it is room made in advance; a little is enough and faster to read.
    let mut bytes = fs::read(&path).expect("it reads");
    bytes.truncate(used(&bytes) + 1_000);
    fs::write(&path, &bytes).expect("it writes");
    (folder, path)
}

#[test]
fn a_journal_cut_anywhere_is_opened_up_to_its_last_whole_write() {
    let (folder, path) = journal_of(5, |round| round - 1);
    let whole = fs::read(&path).expect("it reads");
    let len = used(&whole);
    let mut last = Some(5);
    for cut_at in (len - 13_000..=len).rev().step_by(701) {
        fs::write(&path, &whole[..cut_at]).expect("it writes");
        let engine = FjallEngine::open(folder.path()).expect("it opens");
        let round = round_of(&engine);
        assert!(round <= last, "cut at {cut_at}");
        assert_eq!(engine.cut().writes, 0);
        last = round;
    }
    assert!(last < Some(5));
}

#[test]
fn a_torn_write_that_was_not_synced_is_cut_off_with_what_follows() {
    // Nothing is synced after the first: as after a loss of power with an interval of syncs.
    let (folder, path) = journal_of(5, |_| 1);
    let mut bytes = fs::read(&path).expect("it reads");
    let at = used(&bytes) * 7 / 10;
    bytes[at..at + 100].fill(0);
    fs::write(&path, &bytes).expect("it writes");
    let mut engine = FjallEngine::open(folder.path()).expect("it opens");
    let Cut { bytes, writes } = engine.cut();
    assert!(bytes > 0 && writes == 1, "{bytes} {writes}");
    assert_eq!(round_of(&engine), Some(3));
    // And it can be written on.
    write(&mut engine, 4, 3);
    drop(engine);
    let engine = FjallEngine::open(folder.path()).expect("it opens");
    assert_eq!((round_of(&engine), engine.cut()), (Some(4), Cut::default()));
}

#[test]
fn a_flipped_byte_in_what_was_synced_is_refused_and_nothing_is_cut() {
    let (folder, path) = journal_of(6, |round| round - 1);
    let whole = fs::read(&path).expect("it reads");
    let len = used(&whole);
    let mut draws = Draws::new(3);
    let mut refused = 0;
    for _ in 0..40 {
        let at = usize::try_from(draws.below(len as u64 * 6 / 10)).expect("it fits");
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&path, &bytes).expect("it writes");
        match FjallEngine::open(folder.path()) {
            Err(EngineError::Damaged(text)) => {
                assert!(text.contains("jnl has changed at byte"), "{text}");
                refused += 1;
            }
            Err(other) => panic!("byte {at}: {other}"),
            // The sequence number of a write is in no checksum of the engine.
            Ok(engine) => assert!(round_of(&engine).is_some()),
        }
        assert_eq!(fs::read(&path).expect("it reads").len(), bytes.len());
    }
    assert!(refused >= 35, "{refused}");
}

#[test]
fn a_flipped_byte_in_a_table_is_never_read_as_something_else() {
    let folder = folder();
    let mut engine = FjallEngine::open(folder.path()).expect("it opens");
    let value = |n: u16| format!("value {n} {}", "x".repeat(100)).into_bytes();
    let changes = (0..2_000u16)
        .map(|n| change(Keyspace::Retained, &n.to_be_bytes(), Some(&value(n))))
        .collect();
    engine.write(changes).expect("it writes");
    engine.flush().expect("it writes");
    drop(engine);
    let table = tables(folder.path())
        .into_iter()
        .max_by_key(|path| fs::metadata(path).expect("it is there").len())
        .expect("there is one");
    let whole = fs::read(&table).expect("it reads");
    let mut draws = Draws::new(5);
    let mut found = 0;
    for _ in 0..25 {
        let at = usize::try_from(draws.below(whole.len() as u64)).expect("it fits");
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&table, &bytes).expect("it writes");
        let result = FjallEngine::open(folder.path()).and_then(|engine| {
            let mut count = 0;
            engine.scan(Keyspace::Retained, &[], None, &mut |key, read| {
                let n = u16::from_be_bytes(key.try_into().expect("two bytes"));
                assert_eq!(read, value(n), "byte {at}");
                count += 1;
                ControlFlow::Continue(())
            })?;
            Ok(count)
        });
        match result {
            Ok(count) => assert_eq!(count, 2_000, "byte {at}"),
            Err(_) => found += 1,
        }
    }
    assert!(found > 15, "{found}");
    fs::write(&table, &whole).expect("it writes");
    let engine = FjallEngine::open(folder.path()).expect("it opens");
    assert_eq!(all(&engine, Keyspace::Retained).len(), 2_000);
}

#[test]
fn a_store_in_use_or_in_no_folder_is_refused_with_what_to_do() {
    let folder = folder();
    let _open = FjallEngine::open_folder(folder.path()).expect("it opens");
    let error = FjallEngine::open_folder(folder.path()).err().expect("it is in use");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("it writes");
    let error = FjallEngine::open_folder(&file).err().expect("it is no folder");
    assert!(error.to_string().contains("must be readable and writable"), "{error}");
}

#[test]
fn what_was_removed_gives_its_space_back() {
    let folder = folder();
    let mut engine = FjallEngine::open(folder.path()).expect("it opens");
    let key = |n: u32| n.to_be_bytes();
    let mut draws = Draws::new(1);
    let mut value = [0; 1_000];
    for n in 0..20_000 {
        value.iter_mut().for_each(|byte| *byte = u8::try_from(draws.below(256)).expect("small"));
        engine.write(vec![change(Keyspace::Entries, &key(n), Some(&value))]).expect("it writes");
    }
    engine.compaction(Keyspace::Entries)().expect("it writes");
    let full = engine.sizes().keyspaces[Keyspace::Entries.index()];
    assert!(full > 15_000_000, "{full}");
    for n in 0..20_000 {
        engine.write(vec![change(Keyspace::Entries, &key(n), None)]).expect("it writes");
    }
    let mut left = full;
    // The table in memory is written by a thread of the engine; only then is there something to merge.
    for _ in 0..600 {
        engine.compaction(Keyspace::Entries)().expect("it writes");
        left = engine.sizes().keyspaces[Keyspace::Entries.index()];
        if left < full / 10 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{left} of {full} bytes are left");
}
