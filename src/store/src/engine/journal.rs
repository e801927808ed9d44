//! A look at fjall's journals before fjall opens them.
//!
//! fjall cuts a journal off silently at the first byte that is no entry, and refuses to open at the first checksum that does
//! not fit. Neither will do: after a loss of power an unsynced write may be torn in its middle, with or without whole writes
//! behind it, and must be cut off; a byte that has changed in what was synced must not take all that came later with it unsaid.
//! The record of what was applied, in every write, tells the two apart: it says up to which write all was on disk.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::{EngineError, files};
use crate::codec::keys::meta;
use crate::codec::values::{self, Applied};

/// The format of journals this module knows: fjall 3.
const MAGIC: &[u8; 4] = b"FJL\x03";
const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const TAG_CLEAR: u8 = 4;
/// Bytes of the end of a batch: tag, checksum, magic.
const END_LEN: usize = 1 + 8 + MAGIC.len();

/// How far the number of a write is above that of the one before: each takes one, and the engine takes few for itself.
const SEQUENCE_STEP_MAX: u64 = 1 << 32;
/// The highest number of a first write that is believed.
const SEQUENCE_MAX: u64 = 1 << 48;

/// What was cut off a journal's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    /// Bytes.
    pub bytes: u64,
    /// Whole writes among them, behind the torn one. None was known to be on disk.
    pub writes: u64,
}

/// Checks the journals of a database, and cuts off the last one's torn end. `known` says how much of them was on disk for certain.
pub(super) fn check(folder: &Path, known: &BTreeMap<u64, u64>) -> Result<Cut, EngineError> {
    match fs::read(folder.join("version")) {
        Ok(version) if version.starts_with(MAGIC) => {}
        // Nothing yet.
        _ => return Ok(Cut::default()),
    }
    let journals = files::journals(folder)?;
    let mut cut = Cut::default();
    let last = journals.len().saturating_sub(1);
    let mut sequence = None;
    for (at, (number, path)) in journals.iter().enumerate() {
        let known_len = known.get(number).copied().unwrap_or(0);
        cut = check_file(path, at == last, known_len, &mut sequence)?;
    }
    Ok(cut)
}

/// `sequence` is the number of the last write before, and then of the last whole write here.
fn check_file(
    path: &Path,
    is_last: bool,
    known_len: u64,
    sequence: &mut Option<u64>,
) -> Result<Cut, EngineError> {
    let bytes = fs::read(path)?;
    let Found { whole_len, torn, last } = look(&bytes, *sequence);
    *sequence = last;
    let Some(torn) = torn else { return Ok(Cut::default()) };
    // A journal is synced before the next one is begun.
    if !is_last || torn.was_synced || (whole_len as u64) < known_len {
        return Err(EngineError::Damaged(format!(
            "{} has changed at byte {whole_len} or soon after it, in a write that was on disk; {} whole writes follow it",
            path.display(),
            torn.writes_behind
        )));
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(whole_len as u64)?;
    file.sync_all()?;
    let cut = Cut { bytes: torn.len as u64, writes: torn.writes_behind };
    log::warn!(
        "{} ended in an unfinished write, as a kill or a power failure leaves it: {} bytes cut off, with {} whole writes",
        path.display(),
        cut.bytes,
        cut.writes
    );
    Ok(cut)
}

/// What a journal has.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// Bytes of the whole writes at its front.
    whole_len: usize,
    /// What comes then, if it is more than the zeros of a file made long in advance.
    torn: Option<Torn>,
    /// The number of the last whole write, or of the one before the journal.
    last: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
struct Torn {
    len: usize,
    writes_behind: u64,
    /// A later write says that the torn one was on disk.
    was_synced: bool,
}

fn look(bytes: &[u8], mut sequence: Option<u64>) -> Found {
    let mut at = 0;
    let mut before = None;
    let mut is_in_order = true;
    while let Some(write) = Write::parse(&bytes[at..]) {
        // One that is whole was not torn: its number, or the one before, has changed.
        is_in_order = write.follows(sequence);
        if !is_in_order {
            break;
        }
        at += write.len;
        before = write.applied.or(before);
        sequence = Some(write.sequence);
    }
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    if used <= at {
        return Found { whole_len: at, torn: None, last: sequence };
    }
    let mut torn = Torn { len: used - at, writes_behind: 0, was_synced: !is_in_order };
    let mut from = at;
    let mut first_behind = None;
    // Where a write ends the next one begins, whatever is damaged between.
    while let Some(end) = find(&bytes[from..used], MAGIC) {
        from += end + MAGIC.len();
        while let Some(write) = Write::parse(&bytes[from..]) {
            from += write.len;
            torn.writes_behind += 1;
            if let Some(later) = write.applied {
                let first = *first_behind.get_or_insert(later);
                torn.was_synced |= says_synced(before, first, later);
            }
        }
    }
    Found { whole_len: at, torn: Some(torn), last: sequence }
}

/// Whether a later write shows that the torn ones, between `before` and `first`, were on disk. A start of the broker syncs
/// all there is.
fn says_synced(before: Option<Applied>, first: Applied, later: Applied) -> bool {
    match before {
        Some(before) if before.boot == later.boot => later.synced_round > before.round,
        Some(_) => true,
        None => {
            later.boot > first.boot || first.round == 0 || later.synced_round + 1 >= first.round
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// A whole write whose checksum fits.
struct Write {
    len: usize,
    /// What fjall orders writes by. No checksum has it.
    sequence: u64,
    applied: Option<Applied>,
}

impl Write {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        if rest.u8()? != TAG_START {
            return None;
        }
        let items = rest.u32()?;
        let sequence = rest.u64()?;
        let mut sum = Xxh3::new();
        let mut applied = None;
        for _ in 0..items {
            let item = rest.0;
            match rest.u8()? {
                TAG_ITEM => {
                    let (_kind, compression) = (rest.u8()?, rest.u8()?);
                    rest.u64()?;
                    let key_len = usize::from(rest.u16()?);
                    rest.u32()?;
                    let value_len = rest.u32()? as usize;
                    let (key, value) = (rest.take(key_len)?, rest.take(value_len)?);
                    if key == meta::APPLIED && compression == 0 {
                        applied = values::read_applied(key, value).ok().or(applied);
                    }
                }
                TAG_CLEAR => {
                    rest.u64()?;
                }
                _ => return None,
            }
            sum.update(&item[..item.len() - rest.0.len()]);
        }
        let end = Rest(rest.take(END_LEN)?);
        (end.is(sum.digest())).then_some(())?;
        Some(Self { len: bytes.len() - rest.0.len(), sequence, applied })
    }

    /// Whether it may come behind the write with the number `before`.
    fn follows(&self, before: Option<u64>) -> bool {
        match before {
            Some(before) => self.sequence > before && self.sequence - before <= SEQUENCE_STEP_MAX,
            None => self.sequence <= SEQUENCE_MAX,
        }
    }
}

/// What is still to be parsed; little endian, as fjall writes.
pub(super) struct Rest<'a>(pub(super) &'a [u8]);

impl<'a> Rest<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn is(mut self, sum: u64) -> bool {
        self.u8() == Some(TAG_END) && self.u64() == Some(sum) && self.0 == MAGIC
    }
}
