//! A backup of a running store, and the way back.
//!
//! A backup is one file of the state of one moment: chunks of keys and values, each with a checksum, and an end that says how
//! many there are. It does not depend on the engine. Beside it, written last, is a manifest with its length and its checksum:
//! without one, or with one that does not fit, it is no whole backup. Restoring checks the whole file and puts a copy into the store's folder;
//! the store takes it over when it is opened next. That is honest: the sessions and retained messages of a running broker
//! cannot be exchanged under its clients. What the backup replaced is kept beside it until the next one is taken over.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use crate::codec::FORMAT;
use crate::codec::keys::{Key, after};
use crate::engine::{Change, Engine, EngineRead, FjallEngine, Keyspace, sum_of};
use crate::{Store, StoreError};

/// The name of a backup's file.
const FILE: &str = "store.backup";
/// The folder in that of the store where a backup waits to be taken over.
const STAGED: &str = "restore";
/// What the store had before a backup was taken over.
const REPLACED: &str = "replaced";
/// A store that is being built from a backup.
const BUILDING: &str = "building";
/// The file that says what a backup's file is to be.
const MANIFEST: &str = "manifest";
const MAGIC: &[u8; 16] = b"RingMQ backup 2\n";
/// As it was before there was a manifest.
const MAGIC_1: &[u8; 16] = b"RingMQ backup 1\n";
/// Bytes after which a chunk is closed.
const CHUNK: usize = 1024 * 1024;
/// Most bytes a chunk can have: a message is at most 256 MB.
const CHUNK_MAX: usize = 512 * 1024 * 1024;
/// Keys that are read in one scan: an iterator of an engine holds what it reads.
const SLICE: usize = 10_000;

/// What a backup has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackupInfo {
    /// Keys with their values.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

impl Store {
    /// Writes a backup into a folder, which is made if it is not there, while the store goes on. Takes as long as reading
    /// everything does; the caller's thread does it.
    ///
    /// # Errors
    /// [`StoreError::SamePlace`], [`StoreError::Backup`]: the folder has one already or cannot be written; [`StoreError::Engine`]: something cannot be
    /// read; [`StoreError::Closed`].
    pub fn backup(&self, folder: &Path) -> Result<BackupInfo, StoreError> {
        keep_apart(folder, self.folder())?;
        write(&*self.snapshot()?, folder)
    }
}

/// Checks the backup in `folder` and stages it for the store in `store`, running or not: it is taken over when the store is
/// opened next.
///
/// # Errors
/// [`StoreError::Backup`]: it is damaged, newer than this build, or cannot be copied. Nothing is changed then.
pub fn restore(folder: &Path, store: &Path) -> Result<BackupInfo, StoreError> {
    keep_apart(folder, store)?;
    let file = folder.join(FILE);
    let info = read(folder, &mut |_| Ok(()))?;
    let staged = store.join(STAGED);
    let copy_one = |name: &str| {
        let part = staged.join("part");
        fs::copy(folder.join(name), &part)?;
        File::open(&part)?.sync_all()?;
        fs::rename(&part, staged.join(name))
    };
    let copy = || {
        // An earlier one that waits goes. The file comes last: with it the backup is there.
        remove_folder(&staged)?;
        fs::create_dir_all(&staged)?;
        if folder.join(MANIFEST).exists() {
            copy_one(MANIFEST)?;
        }
        copy_one(FILE)?;
        sync_folder(&staged)?;
        sync_folder(store)
    };
    copy().map_err(|error| unusable(&file, format_args!("it cannot be copied: {error}")))?;
    Ok(info)
}

/// Takes a staged backup over, if there is one: builds a store of it and puts it in the place of `data`. May be stopped at
/// any point and begun again.
pub(crate) fn take_over(store: &Path, data: &str) -> Result<(), StoreError> {
    let staged = store.join(STAGED);
    if !staged.join(FILE).exists() {
        return Ok(());
    }
    let (data, building) = (store.join(data), store.join(BUILDING));
    let failed = |error: io::Error| StoreError::of_folder(store, error.into());
    remove_folder(&building).map_err(failed)?;
    let mut engine = FjallEngine::open(&building)?;
    let info = read(&staged, &mut |changes| Ok(engine.write(changes)?))?;
    engine.sync()?;
    drop(engine);
    let exchange = || {
        FjallEngine::forget_record(store)?;
        let replaced = store.join(REPLACED);
        if data.exists() {
            remove_folder(&replaced)?;
            fs::rename(&data, &replaced)?;
        }
        fs::rename(&building, &data)?;
        sync_folder(store)?;
        remove_folder(&staged)
    };
    exchange().map_err(failed)?;
    log::warn!(
        "the store was restored from a backup of {} records; what it had before is in {}",
        info.records,
        store.join(REPLACED).display()
    );
    Ok(())
}

fn write(read: &dyn EngineRead, folder: &Path) -> Result<BackupInfo, StoreError> {
    let file = folder.join(FILE);
    if file.exists() {
        return Err(unusable(&file, format_args!("it is there already; name another folder")));
    }
    let part = folder.join("store.part");
    let failed = |error: io::Error| unusable(&file, format_args!("it cannot be written: {error}"));
    fs::create_dir_all(folder).map_err(failed)?;
    let mut out = Output::new(File::create(&part).map_err(failed)?).map_err(failed)?;
    for keyspace in Keyspace::ALL {
        let mut from = Key::new();
        let mut is_end = false;
        while !is_end {
            let mut shown = 0;
            let mut written = Ok(());
            is_end = true;
            read.scan(keyspace, &from.clone(), None, &mut |key, value| {
                written = out.record(keyspace, key, value);
                shown += 1;
                if written.is_err() || shown == SLICE {
                    from = after(key);
                    is_end = false;
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            written.map_err(failed)?;
        }
    }
    let (info, sum) = out.finish().map_err(failed)?;
    let seal = || {
        fs::rename(&part, &file)?;
        sync_folder(folder)?;
        let mut manifest = File::create(&part)?;
        manifest.write_all(Manifest { len: info.bytes, sum }.text().as_bytes())?;
        manifest.sync_all()?;
        fs::rename(&part, folder.join(MANIFEST))?;
        sync_folder(folder)
    };
    seal().map_err(failed)?;
    Ok(info)
}

/// A backup lies neither in the folder of a store nor around it: what is in that folder is the store's, and who removes the one
/// removes the other.
fn keep_apart(folder: &Path, store: &Path) -> Result<(), StoreError> {
    let (place, own) = (real(folder), real(store));
    if place.starts_with(&own) || own.starts_with(&place) {
        return Err(StoreError::SamePlace { folder: folder.to_owned(), store: store.to_owned() });
    }
    Ok(())
}

/// Where a path leads, also if its end is not there yet.
fn real(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut there = path;
    loop {
        if let Ok(found) = there.canonicalize() {
            return missing.into_iter().rev().fold(found, |path: PathBuf, name| path.join(name));
        }
        let (Some(above), Some(name)) = (there.parent(), there.file_name()) else {
            return path.to_owned();
        };
        missing.push(name);
        there = above;
    }
}

/// What the file of a backup is to be.
#[derive(Debug, PartialEq, Eq)]
struct Manifest {
    len: u64,
    sum: u128,
}

impl Manifest {
    fn text(&self) -> String {
        format!("{FILE} {} bytes xxh3-128 {:032x}\n", self.len, self.sum)
    }

    /// Checks the file in this folder against its manifest.
    fn check(folder: &Path) -> Result<(), StoreError> {
        let (file, path) = (folder.join(FILE), folder.join(MANIFEST));
        let text = fs::read_to_string(&path).map_err(|error| {
            unusable(
                &path,
                format_args!("it cannot be read, so the backup may not be whole: {error}"),
            )
        })?;
        let len =
            fs::metadata(&file).map_err(|error| unusable(&file, format_args!("{error}")))?.len();
        let failed = |error| unusable(&file, format_args!("it cannot be read: {error}"));
        let found = Self { len, sum: sum_of(File::open(&file).map_err(failed)?).map_err(failed)? };
        if found.text() == text {
            return Ok(());
        }
        let mut words = text.split(' ');
        match words.nth(1).and_then(|len| len.parse::<u64>().ok()) {
            Some(wanted) if wanted != len => Err(unusable(
                &file,
                format_args!("it has {len} bytes, and had {wanted} when it was written"),
            )),
            _ => Err(unusable(
                &file,
                format_args!("it, or {}, has changed since it was written", path.display()),
            )),
        }
    }
}

/// A backup that is being written.
struct Output {
    file: BufWriter<File>,
    /// Of all that was written.
    sum: Box<Xxh3Default>,
    chunk: Vec<u8>,
    info: BackupInfo,
}

impl Output {
    fn new(file: File) -> io::Result<Self> {
        let mut out = Self {
            file: BufWriter::new(file),
            sum: Box::default(),
            chunk: Vec::with_capacity(CHUNK),
            info: BackupInfo::default(),
        };
        out.write(MAGIC)?;
        out.write(&FORMAT.to_be_bytes())?;
        Ok(out)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.info.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn record(&mut self, keyspace: Keyspace, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.chunk.push(u8::try_from(keyspace.index()).expect("there are few"));
        for field in [key, value] {
            let len = u32::try_from(field.len()).expect("a message is at most 256 MB");
            self.chunk.extend_from_slice(&len.to_be_bytes());
            self.chunk.extend_from_slice(field);
        }
        self.info.records += 1;
        if self.chunk.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let len = u32::try_from(self.chunk.len()).expect("a record is at most 256 MB");
        let mut chunk = std::mem::take(&mut self.chunk);
        self.write(&len.to_be_bytes())?;
        self.write(&xxh3_64(&chunk).to_be_bytes())?;
        self.write(&chunk)?;
        chunk.clear();
        self.chunk = chunk;
        Ok(())
    }

    /// The end: an empty chunk, and how many records there are. Gives the checksum of the file too.
    fn finish(mut self) -> io::Result<(BackupInfo, u128)> {
        if !self.chunk.is_empty() {
            self.flush()?;
        }
        let records = self.info.records.to_be_bytes();
        self.write(&0u32.to_be_bytes())?;
        self.write(&xxh3_64(&records).to_be_bytes())?;
        self.write(&records)?;
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok((self.info, self.sum.digest128()))
    }
}

/// Reads a backup to its end and shows it chunk by chunk.
fn read(
    folder: &Path,
    show: &mut dyn FnMut(Vec<Change>) -> Result<(), StoreError>,
) -> Result<BackupInfo, StoreError> {
    let file = &folder.join(FILE);
    let cut = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => unusable(file, format_args!("its end is missing")),
        _ => unusable(file, format_args!("it cannot be read: {error}")),
    };
    let mut input = BufReader::new(File::open(file).map_err(cut)?);
    let mut magic = [0; MAGIC.len()];
    input.read_exact(&mut magic).map_err(cut)?;
    if magic == *MAGIC {
        Manifest::check(folder)?;
    } else if magic != *MAGIC_1 {
        return Err(unusable(file, format_args!("it is no backup of a RingMQ store")));
    }
    let format = u32::from_be_bytes(array(&mut input).map_err(cut)?);
    if format > FORMAT {
        return Err(StoreError::Newer { found: u64::from(format), known: FORMAT });
    }
    let mut info = BackupInfo { records: 0, bytes: MAGIC.len() as u64 + 4 };
    loop {
        let damaged = || unusable(file, format_args!("it is damaged near byte {}", info.bytes));
        let len = u32::from_be_bytes(array(&mut input).map_err(cut)?) as usize;
        let sum = u64::from_be_bytes(array(&mut input).map_err(cut)?);
        if len > CHUNK_MAX {
            return Err(damaged());
        }
        let mut chunk = vec![0; if len == 0 { 8 } else { len }];
        input.read_exact(&mut chunk).map_err(cut)?;
        if xxh3_64(&chunk) != sum {
            return Err(damaged());
        }
        if len == 0 {
            if chunk != info.records.to_be_bytes() {
                return Err(damaged());
            }
            info.bytes += 20;
            return match input.read(&mut [0]).map_err(cut)? {
                0 => Ok(info),
                _ => Err(unusable(file, format_args!("something was appended to it"))),
            };
        }
        let changes = records(&chunk).ok_or_else(damaged)?;
        info.records += changes.len() as u64;
        info.bytes += 12 + len as u64;
        show(changes)?;
    }
}

fn records(mut chunk: &[u8]) -> Option<Vec<Change>> {
    fn field<'a>(chunk: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (len, rest) = chunk.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        *chunk = rest;
        Some(field)
    }
    let mut changes = Vec::new();
    while let Some((&keyspace, rest)) = chunk.split_first() {
        chunk = rest;
        let keyspace = *Keyspace::ALL.get(usize::from(keyspace))?;
        let key = Key::from_slice(field(&mut chunk)?);
        let value = Some(field(&mut chunk)?.to_vec());
        changes.push(Change { keyspace, key, value });
    }
    Some(changes)
}

fn array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut array = [0; N];
    input.read_exact(&mut array)?;
    Ok(array)
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn unusable(file: &Path, reason: std::fmt::Arguments<'_>) -> StoreError {
    StoreError::Backup { file: PathBuf::from(file), reason: reason.to_string() }
}
