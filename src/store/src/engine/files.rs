//! A look at fjall's files before fjall opens them, and at what must be there.
//!
//! fjall trusts some bytes of its own that it has written a checksum for and does not look at: a changed list of tables ends in a
//! panic, or in a demand for more memory than there is. A file that is missing it takes for one that never was, and removes or
//! begins anew what belonged to it. So the lists and the ends of tables are checked here, small tables whole; a block of a large
//! one has a checksum that is looked at when it is read. And a [`Record`] beside the database says which files there were.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64, xxh3_128};

use super::journal::Rest;
use super::{EngineError, Keyspace};

/// What the file `version` begins with: fjall, and its format.
const MAGIC: &[u8; 3] = b"FJL";
const FORMAT: u8 = 3;
/// Bytes of tables that are read at each start to check them whole, the first ones of all.
const WHOLE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of the end of a table: magic, version, kind of checksum, checksum, place and length of its contents.
const TRAILER_LEN: usize = 4 + 1 + 1 + 16 + 8 + 8;
const TRAILER_MAGIC: &[u8; 4] = b"SFA!";
/// Most bytes of a table's contents: there are fewer than ten sections with short names.
const CONTENTS_LEN_MAX: u64 = 64 * 1024;
/// The first line of a [`Record`].
const RECORD: &str = "RingMQ store 1";

/// Checks what can be checked before the database is opened. One that was never opened in full has nothing to check.
pub(super) fn check(data: &Path) -> Result<(), EngineError> {
    let version = data.join("version");
    match fs::read(&version) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(bytes) => check_version(&version, &bytes)?,
    }
    let mut budget = WHOLE_BYTES_MAX;
    each_keyspace(data, &mut |folder| check_keyspace(folder, &mut budget))
}

/// Looks for the file that is damaged, through all tables to their last byte: after a block could not be read.
pub(super) fn find_damage(data: &Path) -> Option<String> {
    let mut budget = u64::MAX;
    match each_keyspace(data, &mut |folder| check_keyspace(folder, &mut budget)) {
        Err(EngineError::Damaged(what)) => Some(what),
        _ => None,
    }
}

/// Whether the files are there without which the engine would begin anew and say nothing.
pub(super) fn check_complete(data: &Path, record: &Record) -> Result<(), EngineError> {
    let here = |path: PathBuf| if path.exists() { Ok(()) } else { missing(&path) };
    here(data.join("version"))?;
    // Its own keyspace: the names of the others, without which it removes them.
    here(data.join("keyspaces/0/current"))?;
    each_keyspace(data, &mut |folder| here(folder.join("current")))?;
    let journals = journals(data)?;
    let Some((&oldest, _)) = journals.first_key_value() else {
        return missing(&data.join("*.jnl"));
    };
    let newest = record.journals.last_key_value().map_or(oldest, |(&number, _)| number);
    let name = |number: u64| data.join(format!("{number}.jnl"));
    // The engine removes journals from the oldest on, when all they have is in tables.
    if let Some(gone) = (oldest..=newest).find(|number| !journals.contains_key(number)) {
        return missing(&name(gone));
    }
    for (&number, &len) in &record.journals {
        match journals.get(&number) {
            None if record.is_end => return missing(&name(number)),
            Some(path) if fs::metadata(path)?.len() < len || used(path)? < len => {
                return Err(EngineError::Damaged(format!(
                    "{} had {len} bytes when it was written last and has fewer now",
                    path.display()
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The journals by their number.
pub(super) fn journals(data: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut journals = BTreeMap::new();
    for file in fs::read_dir(data)? {
        let path = file?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|ext| ext == "jnl")) {
            journals.insert(number, path);
        }
    }
    Ok(journals)
}

fn missing<T>(path: &Path) -> Result<T, EngineError> {
    Err(EngineError::Damaged(format!("{} is missing", path.display())))
}

fn check_version(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    match bytes {
        [a, b, c, format] if [*a, *b, *c] == *MAGIC => match *format {
            FORMAT => Ok(()),
            other => Err(EngineError::Damaged(format!(
                "{} says that the files are of format {other}, this build writes format {FORMAT}: either it has changed, or \
                 another build wrote them",
                path.display()
            ))),
        },
        _ => Err(EngineError::Damaged(format!(
            "{} is not the {} bytes that were written there",
            path.display(),
            MAGIC.len() + 1
        ))),
    }
}

fn each_keyspace(
    data: &Path,
    check: &mut dyn FnMut(&Path) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let keyspaces = data.join("keyspaces");
    let files = match fs::read_dir(&keyspaces) {
        Err(error) if error.kind() == ErrorKind::NotFound => return missing(&keyspaces),
        files => files?,
    };
    let mut folders = Vec::new();
    for file in files {
        let path = file?.path();
        let is_number = |name: &std::ffi::OsStr| name.to_str()?.parse::<u64>().ok();
        match path.file_name().and_then(is_number) {
            Some(number) if path.is_dir() => folders.push((number, path)),
            _ => return Err(EngineError::Damaged(format!("{} is not ours", path.display()))),
        }
    }
    folders.sort_unstable();
    folders.iter().try_for_each(|(_, folder)| check(folder))
}

/// The list of a keyspace's tables against its checksum, and the tables against theirs.
fn check_keyspace(folder: &Path, budget: &mut u64) -> Result<(), EngineError> {
    let current = folder.join("current");
    let bytes = match fs::read(&current) {
        // It was being made when the broker ended; the engine removes it and makes it anew.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        bytes => bytes?,
    };
    let mut rest = Rest(&bytes);
    let named = rest.u64().zip(rest.array().map(u128::from_le_bytes));
    let (Some((number, sum)), &[0]) = (named, rest.0) else {
        return Err(changed(&current));
    };
    let list = folder.join(format!("v{number}"));
    let bytes = match fs::read(&list) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(EngineError::Damaged(format!(
                "{} is missing, or {} has changed, which names it",
                list.display(),
                current.display()
            )));
        }
        bytes => bytes?,
    };
    if xxh3_128(&bytes) != sum {
        return Err(EngineError::Damaged(format!(
            "{} or {}, which has its checksum, has changed",
            list.display(),
            current.display()
        )));
    }
    let tables = section(&bytes, b"tables").and_then(tables).ok_or_else(|| changed(&list))?;
    for (id, sum) in tables {
        check_table(&folder.join("tables").join(id.to_string()), sum, budget)?;
    }
    Ok(())
}

fn check_table(path: &Path, sum: u128, budget: &mut u64) -> Result<(), EngineError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return missing(path),
        file => file?,
    };
    let len = file.metadata()?.len();
    if len <= *budget {
        *budget -= len;
        return if sum_of(file)? == sum { Ok(()) } else { Err(changed(path)) };
    }
    if has_whole_end(&file, len)? { Ok(()) } else { Err(changed(path)) }
}

/// The checksum of all bytes of a file.
pub(crate) fn sum_of(file: File) -> io::Result<u128> {
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut sum = Xxh3Default::new();
    loop {
        let part = input.fill_buf()?;
        if part.is_empty() {
            return Ok(sum.digest128());
        }
        sum.update(part);
        let len = part.len();
        input.consume(len);
    }
}

/// Whether the end of a table, with the places of all it has, is as it was written.
fn has_whole_end(file: &File, len: u64) -> io::Result<bool> {
    let from = len.saturating_sub(CONTENTS_LEN_MAX);
    let mut end = vec![0; usize::try_from(len - from).unwrap_or(0)];
    file.read_exact_at(&mut end, from)?;
    Ok(contents(&end, from).is_some())
}

/// The contents of an archive of which the bytes from `from` on are here, if their checksum fits.
fn contents(bytes: &[u8], from: u64) -> Option<&[u8]> {
    let (before, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER_LEN)?)?;
    let mut rest = Rest(trailer);
    (rest.take(TRAILER_MAGIC.len())? == TRAILER_MAGIC).then_some(())?;
    (rest.take(2)? == [1, 0]).then_some(())?;
    let sum = u128::from_le_bytes(rest.array()?);
    let at = usize::try_from(rest.u64()?.checked_sub(from)?).ok()?;
    let contents = before.get(at..)?;
    (xxh3_128(contents) == sum).then_some(contents)
}

/// A section of a whole archive.
fn section<'a>(bytes: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut rest = Rest(contents(bytes, 0)?);
    (rest.take(4)? == b"TOC!").then_some(())?;
    let count = rest.u32()?;
    for _ in 0..count {
        let (at, len) = (usize::try_from(rest.u64()?).ok()?, rest.u64()?);
        let name_len = rest.u16()?;
        if rest.take(usize::from(name_len))? == wanted {
            return bytes.get(at..)?.get(..usize::try_from(len).ok()?);
        }
    }
    None
}

/// The tables of all levels, and their checksums.
fn tables(section: &[u8]) -> Option<Vec<(u64, u128)>> {
    let mut rest = Rest(section);
    let mut tables = Vec::new();
    for _ in 0..rest.u8()? {
        for _ in 0..rest.u8()? {
            for _ in 0..rest.u32()? {
                let id = rest.u64()?;
                (rest.u8()? == 0).then_some(())?;
                tables.push((id, u128::from_le_bytes(rest.array()?)));
                let _sequence = rest.u64()?;
            }
        }
    }
    rest.0.is_empty().then_some(tables)
}

fn changed(path: &Path) -> EngineError {
    EngineError::Damaged(format!("{} has changed since it was written", path.display()))
}

/// Bytes of a journal that are not room made in advance.
fn used(path: &Path) -> io::Result<u64> {
    let mut input = BufReader::with_capacity(1 << 20, File::open(path)?);
    let (mut at, mut used) = (0, 0);
    loop {
        let part = input.fill_buf()?;
        if part.is_empty() {
            return Ok(used);
        }
        if let Some(last) = part.iter().rposition(|&byte| byte != 0) {
            used = at + last as u64 + 1;
        }
        let len = part.len();
        at += len as u64;
        input.consume(len);
    }
}

/// What there was when it was looked at last: a file `complete` beside the database, which also says that the database was once
/// opened in full. It is an aid: without it, or with a damaged one, what is missing or shorter may be taken for what never was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// How many keyspaces there are, of [`Keyspace::ALL`] the first ones.
    pub keyspaces: usize,
    /// The journals and how many of their bytes were used and on disk.
    pub journals: BTreeMap<u64, u64>,
    /// It was written at an orderly end: since then nothing was removed.
    pub is_end: bool,
}

impl Record {
    /// The record of a database that is open, or ends.
    pub fn look(data: &Path, is_end: bool) -> io::Result<Self> {
        let mut journals = BTreeMap::new();
        for (number, path) in self::journals(data)? {
            journals.insert(number, used(&path)?);
        }
        Ok(Self { keyspaces: Keyspace::COUNT, journals, is_end })
    }

    /// Notes which journals there are; of new ones it is not known how much of them is on disk. Says whether that is news.
    pub fn note(&mut self, data: &Path) -> io::Result<bool> {
        let found = journals(data)?;
        if found.keys().eq(self.journals.keys()) {
            return Ok(false);
        }
        let known = std::mem::take(&mut self.journals);
        let len = |number: &u64| known.get(number).copied().unwrap_or(0);
        self.journals = found.keys().map(|number| (*number, len(number))).collect();
        Ok(true)
    }

    /// The record of this file; `None` where there is no file.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        // The builds before this one left it empty.
        let old = Self { keyspaces: Keyspace::COUNT, ..Self::default() };
        let record = if bytes.is_empty() { Some(old.clone()) } else { Self::parse(&bytes) };
        Ok(Some(record.unwrap_or_else(|| {
            log::warn!(
                "{} has changed since it was written, and is written anew: files that are missing or cut off may go unnoticed \
                 this time",
                path.display()
            );
            old
        })))
    }

    /// Writes it whole in the place of the old one.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    fn text(&self) -> String {
        let mut text = format!("{RECORD}\nkeyspaces {}\nend {}\n", self.keyspaces, self.is_end);
        for (number, len) in &self.journals {
            text.push_str(&format!("journal {number} {len}\n"));
        }
        let sum = xxh3_64(text.as_bytes());
        text + &format!("sum {sum:016x}\n")
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut record = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            match (words.next()?, words.next(), words.next()) {
                ("keyspaces", Some(count), None) => record.keyspaces = count.parse().ok()?,
                ("end", Some(is_end), None) => record.is_end = is_end.parse().ok()?,
                ("journal", Some(number), Some(len)) => {
                    record.journals.insert(number.parse().ok()?, len.parse().ok()?);
                }
                _ => {}
            }
        }
        // Only what would be written so is one: no byte is without meaning.
        (record.text() == text).then_some(record)
    }
}

/// Says what a panic of the engine was about, which it has caught.
pub(super) fn panicked(panic: &(dyn std::any::Any + Send)) -> EngineError {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
    damaged("the engine cannot make sense of its files", text)
}

/// A damage, with the engine's own words for those who know it.
pub(super) fn damaged(what: &str, words: impl Display) -> EngineError {
    EngineError::Damaged(format!("{what} (fjall: {words})"))
}
