//! Fields to bytes and back.

use std::str;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::CodecError;

/// The version of a value's fields.
const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 4;

/// Puts a value together.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity + 1 + CHECKSUM_LEN);
        bytes.push(VERSION);
        Self(bytes)
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u128(&mut self, value: u128) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).expect("an MQTT packet is at most 256 MB"));
        self.0.extend_from_slice(value);
    }

    /// The value, sealed under its key.
    pub(super) fn seal(mut self, key: &[u8]) -> Vec<u8> {
        let sum = checksum(key, &self.0);
        self.0.extend_from_slice(&sum);
        self.0
    }
}

/// Takes a value apart.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Checks version and checksum.
    pub(super) fn open(key: &[u8], value: &'a [u8]) -> Result<Self, CodecError> {
        let (body, sum) = value.split_last_chunk::<CHECKSUM_LEN>().ok_or(CodecError::Malformed)?;
        if *sum != checksum(key, body) {
            return Err(CodecError::Checksum);
        }
        match body.split_first() {
            Some((&VERSION, fields)) => Ok(Self(fields)),
            Some((&version, _)) => Err(CodecError::Version(version)),
            None => Err(CodecError::Malformed),
        }
    }

    /// Reads fields that have neither version nor checksum: those of a key.
    pub(super) fn bare(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(CodecError::Malformed)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, CodecError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, CodecError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, CodecError> {
        self.array().map(u128::from_be_bytes)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let len = self.u32()? as usize;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(CodecError::Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn str(&mut self) -> Result<&'a str, CodecError> {
        str::from_utf8(self.bytes()?).map_err(|_| CodecError::Malformed)
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError::Malformed) }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "32 of the 64 bits are enough to find damage")]
fn checksum(key: &[u8], body: &[u8]) -> [u8; CHECKSUM_LEN] {
    (xxh3_64_with_seed(body, xxh3_64(key)) as u32).to_be_bytes()
}
