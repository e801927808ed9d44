//! How keys and values are written: the only module that knows the bytes of the store.
//!
//! Keys are big endian, so that the engine's order is the order of slots, sessions and places. A value is a version byte, its
//! fields, and four bytes of a checksum over both and its key; it is verified whenever the value is read, so what an engine
//! gives back changed, or under another key, is found. [`FORMAT`] is the version of all of it together.

mod bytes;
pub mod keys;
#[cfg(test)]
mod tests;
pub mod values;

use displaydoc::Display;
use thiserror::Error;

/// The version of keys and values this build writes and reads.
pub const FORMAT: u32 = 1;

/// Why a key or a value cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum CodecError {
    /// its checksum does not match its bytes
    Checksum,
    /// it is of version {0}, which this build does not know
    Version(u8),
    /// its bytes end inside a field or are no value of it
    Malformed,
}
