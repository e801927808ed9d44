//! Keys. What is the same in a key's front is found together: a slot's sessions, a session's entries.

use std::str;

use mqtt::PacketId;
use session::MessageId;
use shard::BannedWho;
use shard::storage::{StoredPlace, StoredSession};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_128;

use super::CodecError;
use super::bytes::Reader;

/// A key; most fit without an allocation.
pub type Key = SmallVec<[u8; 32]>;

/// The longest text that is part of a key as it is. Engines take keys up to 65,535 bytes, filters with mountpoint and share
/// name can be longer; a longer text is named by its hash, and the value has all of it.
const TEXT_LEN_MAX: usize = 60_000;
const TEXT_PLAIN: u8 = 0;
const TEXT_HASHED: u8 = 1;

/// Names of single values in [`crate::Keyspace::Meta`].
pub mod meta {
    /// The format's version.
    pub const FORMAT: &[u8] = b"format";
    /// What was applied last, and the numbers given out.
    pub const APPLIED: &[u8] = b"applied";
    /// In front of the bans.
    pub const BANS: &[u8] = b"ban/";
    /// In front of the sessions that have ended and are not yet removed in full.
    pub const ENDED: &[u8] = b"ended/";
}

/// The key of a session; in front of the keys of all it has.
#[must_use]
pub fn session(session: StoredSession) -> Key {
    let mut key = Key::new();
    key.extend_from_slice(&session.slot.to_be_bytes());
    key.extend_from_slice(&session.number.to_be_bytes());
    key
}

/// The mark of a session that has ended.
#[must_use]
pub fn ended(ended: StoredSession) -> Key {
    let mut key = Key::from_slice(meta::ENDED);
    key.extend_from_slice(&session(ended));
    key
}

/// The key of a ban.
#[must_use]
pub fn ban(who: &BannedWho) -> Key {
    let mut key = Key::from_slice(meta::BANS);
    match who {
        BannedWho::ClientId(name) => {
            key.push(0);
            text(&mut key, name);
        }
        BannedWho::Username(name) => {
            key.push(1);
            text(&mut key, name);
        }
        BannedWho::PeerHost(host) => {
            key.push(2);
            text(&mut key, &host.to_string());
        }
    }
    key
}

/// The key of a subscription.
#[must_use]
pub fn subscription(owner: StoredSession, filter: &str) -> Key {
    let mut key = session(owner);
    text(&mut key, filter);
    key
}

/// The key of an entry.
#[must_use]
pub fn entry(owner: StoredSession, place: StoredPlace) -> Key {
    let mut key = session(owner);
    key.extend_from_slice(&place.to_bits().to_be_bytes());
    key
}

/// The key of a received id.
#[must_use]
pub fn received(owner: StoredSession, packet_id: PacketId) -> Key {
    let mut key = session(owner);
    key.extend_from_slice(&packet_id.get().to_be_bytes());
    key
}

/// The key of a topic's retained message.
#[must_use]
pub fn retained(topic: &str) -> Key {
    let mut key = Key::new();
    text(&mut key, topic);
    key
}

/// The key of a shared message and of its count.
#[must_use]
pub fn message(id: MessageId) -> Key {
    Key::from_slice(&id.0.to_be_bytes())
}

/// The key of a delayed message.
#[must_use]
pub fn delayed(slot: u16, number: u64) -> Key {
    session(StoredSession { slot, number })
}

/// The first key behind all that begin with `prefix`; `None` where there is none.
#[must_use]
pub fn behind(prefix: &[u8]) -> Option<Key> {
    let kept = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut key = Key::from_slice(&prefix[..=kept]);
    key[kept] += 1;
    Some(key)
}

/// The first key behind this one.
#[must_use]
pub fn after(key: &[u8]) -> Key {
    let mut after = Key::from_slice(key);
    after.push(0);
    after
}

/// The session a key begins with, and what follows it.
///
/// # Errors
/// [`CodecError::Malformed`] when it is too short.
pub fn read_session(key: &[u8]) -> Result<(StoredSession, &[u8]), CodecError> {
    let mut reader = Reader::bare(key);
    let session = StoredSession { slot: reader.u16()?, number: reader.u64()? };
    Ok((session, reader.rest()))
}

/// The session of a mark of its end.
///
/// # Errors
/// [`CodecError::Malformed`] when it is none.
pub fn read_ended(key: &[u8]) -> Result<StoredSession, CodecError> {
    let named = key.strip_prefix(meta::ENDED).ok_or(CodecError::Malformed)?;
    match read_session(named)? {
        (session, []) => Ok(session),
        _ => Err(CodecError::Malformed),
    }
}

/// The session and place of an entry.
///
/// # Errors
/// [`CodecError::Malformed`] when it is no such key.
pub fn read_entry(key: &[u8]) -> Result<(StoredSession, StoredPlace), CodecError> {
    let (session, rest) = read_session(key)?;
    let place = <[u8; 8]>::try_from(rest).map_err(|_| CodecError::Malformed)?;
    let place = StoredPlace::from_bits(u64::from_be_bytes(place)).ok_or(CodecError::Malformed)?;
    Ok((session, place))
}

/// The session and id of a received id.
///
/// # Errors
/// [`CodecError::Malformed`] when it is no such key.
pub fn read_received(key: &[u8]) -> Result<(StoredSession, PacketId), CodecError> {
    let (session, rest) = read_session(key)?;
    let id = <[u8; 2]>::try_from(rest).map_err(|_| CodecError::Malformed)?;
    let id = PacketId::new(u16::from_be_bytes(id)).ok_or(CodecError::Malformed)?;
    Ok((session, id))
}

/// The slot and number of a delayed message.
///
/// # Errors
/// [`CodecError::Malformed`] when it is no such key.
pub fn read_delayed(key: &[u8]) -> Result<(u16, u64), CodecError> {
    match read_session(key)? {
        (named, []) => Ok((named.slot, named.number)),
        _ => Err(CodecError::Malformed),
    }
}

/// Whether a text of a key stands in its value instead.
pub(super) fn is_hashed(text: &str) -> bool {
    text.len() > TEXT_LEN_MAX
}

/// The text at a key's end; `None` when it stands in the value.
pub(super) fn read_text(rest: &[u8]) -> Result<Option<&str>, CodecError> {
    match rest.split_first() {
        Some((&TEXT_PLAIN, text)) => {
            str::from_utf8(text).map(Some).map_err(|_| CodecError::Malformed)
        }
        Some((&TEXT_HASHED, _)) => Ok(None),
        _ => Err(CodecError::Malformed),
    }
}

fn text(key: &mut Key, text: &str) {
    if is_hashed(text) {
        key.push(TEXT_HASHED);
        key.extend_from_slice(&xxh3_128(text.as_bytes()).to_be_bytes());
    } else {
        key.push(TEXT_PLAIN);
        key.extend_from_slice(text.as_bytes());
    }
}
