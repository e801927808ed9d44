//! Values. Each is sealed under its key: version, fields, checksum.

use std::sync::Arc;

use mqtt::{PacketId, QoS};
use session::{Message, MessageId, Publication};
use shard::storage::{
    SessionHead, StoredDelayed, StoredEntry, StoredPlace, StoredRetainedRow, StoredState,
    StoredSubscription, StoredWill,
};
use shard::{Ban, BannedWho};

use super::bytes::{Reader, Writer};
use super::{CodecError, keys};

/// A whole number: the format's version, a reference count.
#[must_use]
pub fn number(key: &[u8], number: u64) -> Vec<u8> {
    let mut out = Writer::new(8);
    out.u64(number);
    out.seal(key)
}

/// Reads a number.
///
/// # Errors
/// [`CodecError`]: the value is damaged.
pub fn read_number(key: &[u8], value: &[u8]) -> Result<u64, CodecError> {
    let mut from = Reader::open(key, value)?;
    let number = from.u64()?;
    from.end()?;
    Ok(number)
}

/// A value that says nothing but that its key is there.
#[must_use]
pub fn mark(key: &[u8]) -> Vec<u8> {
    Writer::new(0).seal(key)
}

/// Reads a mark.
///
/// # Errors
/// [`CodecError`]: the value is damaged.
pub fn read_mark(key: &[u8], value: &[u8]) -> Result<(), CodecError> {
    Reader::open(key, value)?.end()
}

/// A ban.
#[must_use]
pub fn ban(key: &[u8], ban: &Ban) -> Vec<u8> {
    let Ban { who, reason, by, at_unix_s, until_unix_s } = ban;
    let host;
    let (kind, name) = match who {
        BannedWho::ClientId(name) => (0, name.as_str()),
        BannedWho::Username(name) => (1, name.as_str()),
        BannedWho::PeerHost(address) => {
            host = address.to_string();
            (2, host.as_str())
        }
    };
    let mut out = Writer::new(name.len() + reason.len() + by.len() + 32);
    out.u8(kind);
    for text in [name, reason, by] {
        out.bytes(text.as_bytes());
    }
    out.u64(*at_unix_s);
    // No ban ends before the epoch.
    out.u64(until_unix_s.unwrap_or(0));
    out.seal(key)
}

/// Reads a ban.
///
/// # Errors
/// [`CodecError`]: the value is damaged.
pub fn read_ban(key: &[u8], value: &[u8]) -> Result<Ban, CodecError> {
    let mut from = Reader::open(key, value)?;
    let (kind, name) = (from.u8()?, from.str()?);
    let who = match kind {
        0 => BannedWho::ClientId(name.to_owned()),
        1 => BannedWho::Username(name.to_owned()),
        2 => BannedWho::PeerHost(name.parse().map_err(|_| CodecError::Malformed)?),
        _ => return Err(CodecError::Malformed),
    };
    let (reason, by) = (from.str()?.to_owned(), from.str()?.to_owned());
    let (at_unix_s, until) = (from.u64()?, from.u64()?);
    from.end()?;
    Ok(Ban { who, reason, by, at_unix_s, until_unix_s: (until > 0).then_some(until) })
}

/// What was applied last: written with every write, so that one that is in doubt is not done twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Counts the starts of this store.
    pub boot: u64,
    /// Counts the writes of this start.
    pub round: u64,
    /// The newest write that is known to be on disk: what is damaged up to there was not torn by a loss of power.
    pub synced_round: u64,
    /// Above all numbers given out.
    pub numbers_below: u64,
}

/// The record of what was applied.
#[must_use]
pub fn applied(key: &[u8], applied: Applied) -> Vec<u8> {
    let mut out = Writer::new(32);
    out.u64(applied.boot);
    out.u64(applied.round);
    out.u64(applied.synced_round);
    out.u64(applied.numbers_below);
    out.seal(key)
}

/// Reads what was applied.
///
/// # Errors
/// [`CodecError`]: the value is damaged.
pub fn read_applied(key: &[u8], value: &[u8]) -> Result<Applied, CodecError> {
    let mut from = Reader::open(key, value)?;
    let applied = Applied {
        boot: from.u64()?,
        round: from.u64()?,
        synced_round: from.u64()?,
        numbers_below: from.u64()?,
    };
    from.end()?;
    Ok(applied)
}

/// A session's head.
#[must_use]
pub fn head(key: &[u8], head: &SessionHead) -> Vec<u8> {
    let will_len = head.will.as_ref().map_or(0, |will| will.message.len() + 64);
    let mut out = Writer::new(32 + head.client_id.len() + will_len);
    out.bytes(head.client_id.as_bytes());
    out.u32(head.created_unix_s);
    out.u32(head.expiry_interval_s);
    option(&mut out, head.offline_since_unix_ms, Writer::u64);
    option(&mut out, head.will.as_ref(), |out, will| {
        option(out, will.expiry_interval_s, Writer::u32);
        out.u32(will.delay_s);
        put_message(out, &will.message);
    });
    out.seal(key)
}

/// Reads a session's head.
///
/// # Errors
/// [`CodecError`]: the value is damaged.
pub fn read_head(key: &[u8], value: &[u8]) -> Result<SessionHead, CodecError> {
    let mut from = Reader::open(key, value)?;
    let head = SessionHead {
        client_id: from.str()?.into(),
        created_unix_s: from.u32()?,
        expiry_interval_s: from.u32()?,
        offline_since_unix_ms: read_option(&mut from, Reader::u64)?,
        will: read_option(&mut from, |from| {
            let expiry_interval_s = read_option(from, Reader::u32)?;
            let delay_s = from.u32()?;
            Ok(StoredWill { message: take_message(from)?, expiry_interval_s, delay_s })
        })?,
    };
    from.end()?;
    Ok(head)
}

/// A subscription; its filter is in the key, unless it is too long for one.
#[must_use]
pub fn subscription(key: &[u8], subscription: &StoredSubscription) -> Vec<u8> {
    let mut out = Writer::new(5);
    out.u8(subscription.options);
    out.u32(subscription.id);
    if keys::is_hashed(&subscription.filter) {
        out.bytes(subscription.filter.as_bytes());
    }
    out.seal(key)
}

/// Reads a subscription.
///
/// # Errors
/// [`CodecError`]: key or value is damaged.
pub fn read_subscription(key: &[u8], value: &[u8]) -> Result<StoredSubscription, CodecError> {
    let (_, rest) = keys::read_session(key)?;
    let mut from = Reader::open(key, value)?;
    let (options, id) = (from.u8()?, from.u32()?);
    let filter = match keys::read_text(rest)? {
        Some(filter) => filter,
        None => from.str()?,
    };
    from.end()?;
    Ok(StoredSubscription { filter: filter.into(), options, id })
}

/// Where an entry's message is.
#[derive(Debug, Clone)]
pub enum EntryMessage {
    /// There is none any more.
    None,
    /// Here.
    Own(Arc<Message>),
    /// Kept once for all.
    Shared(MessageId),
}

const MESSAGE_NONE: u8 = 0;
const MESSAGE_OWN: u8 = 1;
const MESSAGE_SHARED: u8 = 2;
/// It is not needed any more; who it was.
const MESSAGE_PAST: u8 = 3;

/// An entry of a session's queue.
#[must_use]
pub fn entry(key: &[u8], place: StoredPlace, entry: &StoredEntry) -> Vec<u8> {
    let own = entry.message.as_ref().filter(|_| !place.is_shared());
    let mut out = Writer::new(48 + own.map_or(0, |message| message.len() + 40));
    let (state, packet_id) = match entry.state {
        StoredState::Queued => (0, None),
        StoredState::Sent(id) => (1, Some(id)),
        StoredState::Released(id, _) => (2, Some(id)),
    };
    out.u8(state);
    out.u8(entry.qos.bits() | u8::from(entry.retain) << 2 | u8::from(entry.by_group) << 3);
    out.u8(entry.priority);
    if let Some(id) = packet_id {
        out.u16(id.get());
    }
    option(&mut out, entry.subscription_ids.as_deref(), |out, ids| {
        out.u32(u32::try_from(ids.len()).expect("a packet has fewer subscription identifiers"));
        ids.iter().for_each(|&id| out.u32(id));
    });
    match (&entry.message, place.is_shared()) {
        (None, _) => match entry.state {
            StoredState::Released(_, message) => {
                out.u8(MESSAGE_PAST);
                out.u128(message.0);
            }
            _ => out.u8(MESSAGE_NONE),
        },
        (Some(message), false) => {
            out.u8(MESSAGE_OWN);
            put_message(&mut out, message);
        }
        (Some(message), true) => {
            out.u8(MESSAGE_SHARED);
            out.u128(message.id.0);
        }
    }
    out.seal(key)
}

/// Reads an entry. Its `message` is empty: where it is, is said beside it.
///
/// # Errors
/// [`CodecError`]: the value is damaged.
pub fn read_entry(key: &[u8], value: &[u8]) -> Result<(StoredEntry, EntryMessage), CodecError> {
    let mut from = Reader::open(key, value)?;
    let (mut entry, at) = read_entry_front(&mut from)?;
    let message = match at {
        MESSAGE_NONE => EntryMessage::None,
        MESSAGE_OWN => EntryMessage::Own(take_message(&mut from)?),
        MESSAGE_SHARED => EntryMessage::Shared(MessageId(from.u128()?)),
        MESSAGE_PAST => {
            let StoredState::Released(_, message) = &mut entry.state else {
                return Err(CodecError::Malformed);
            };
            *message = MessageId(from.u128()?);
            EntryMessage::None
        }
        _ => return Err(CodecError::Malformed),
    };
    from.end()?;
    entry.message = None;
    Ok((entry, message))
}

/// What trimming and removing need of an entry; its own message is not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryOutline {
    /// Whether it waits in the queue.
    pub is_queued: bool,
    /// Whether only its end is awaited: the client has it.
    pub is_released: bool,
    /// Whether another member of a shared group may get it.
    pub by_group: bool,
    /// The `QoS` it is delivered with.
    pub qos: QoS,
    /// Its priority.
    pub priority: u8,
    /// Its message.
    pub message: Option<MessageId>,
    /// The shared message it uses.
    pub uses: Option<MessageId>,
}

/// Reads the outline of an entry.
///
/// # Errors
/// [`CodecError`]: the value is damaged.
pub fn read_entry_outline(key: &[u8], value: &[u8]) -> Result<EntryOutline, CodecError> {
    let mut from = Reader::open(key, value)?;
    let (entry, at) = read_entry_front(&mut from)?;
    // Each way the id is what comes first.
    let message = if at == MESSAGE_NONE { None } else { Some(MessageId(from.u128()?)) };
    let uses = message.filter(|_| at == MESSAGE_SHARED);
    Ok(EntryOutline {
        is_queued: entry.state == StoredState::Queued,
        is_released: matches!(entry.state, StoredState::Released(..)),
        by_group: entry.by_group,
        qos: entry.qos,
        priority: entry.priority,
        message,
        uses,
    })
}

fn read_entry_front(from: &mut Reader<'_>) -> Result<(StoredEntry, u8), CodecError> {
    let (state, flags, priority) = (from.u8()?, from.u8()?, from.u8()?);
    let mut packet_id = || PacketId::new(from.u16()?).ok_or(CodecError::Malformed);
    let state = match state {
        0 => StoredState::Queued,
        1 => StoredState::Sent(packet_id()?),
        // Its message follows behind.
        2 => StoredState::Released(packet_id()?, MessageId(0)),
        _ => return Err(CodecError::Malformed),
    };
    let subscription_ids = read_option(from, |from| {
        let ids = from.u32()?;
        (0..ids).map(|_| from.u32()).collect::<Result<Box<[u32]>, _>>()
    })?;
    let entry = StoredEntry {
        state,
        message: None,
        qos: qos(flags & 3)?,
        retain: flags & 4 != 0,
        priority,
        subscription_ids,
        by_group: flags & 8 != 0,
    };
    Ok((entry, from.u8()?))
}

/// A message on its own: shared, or retained.
#[must_use]
pub fn message(key: &[u8], message: &Message) -> Vec<u8> {
    let mut out = Writer::new(40 + message.len());
    put_message(&mut out, message);
    out.seal(key)
}

/// Reads a message.
///
/// # Errors
/// [`CodecError`]: the value is damaged.
pub fn read_message(key: &[u8], value: &[u8]) -> Result<Arc<Message>, CodecError> {
    let mut from = Reader::open(key, value)?;
    let message = take_message(&mut from)?;
    from.end()?;
    Ok(message)
}

/// What is needed of a retained message that stays on disk; it is not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainedOutline<'a> {
    /// Its id.
    pub id: MessageId,
    /// Its topic.
    pub topic: &'a str,
    /// When it is to be discarded, in milliseconds since the Unix epoch.
    pub expires_unix_ms: Option<u64>,
    /// It has no payload: it only says that the topic has none.
    pub is_gone: bool,
}

impl RetainedOutline<'_> {
    /// What a shard is told of it.
    #[must_use]
    pub fn row(self) -> StoredRetainedRow {
        StoredRetainedRow {
            topic: self.topic.into(),
            published_unix_ms: self.id.unix_ms(),
            expires_unix_ms: self.expires_unix_ms,
            is_gone: self.is_gone,
        }
    }
}

/// Reads the outline of a retained message.
///
/// # Errors
/// [`CodecError`]: the value is damaged.
pub fn read_retained_outline<'a>(
    key: &[u8],
    value: &'a [u8],
) -> Result<RetainedOutline<'a>, CodecError> {
    let mut from = Reader::open(key, value)?;
    let MessageFields { id, topic, expires_unix_ms, payload, .. } = MessageFields::read(&mut from)?;
    from.end()?;
    Ok(RetainedOutline { id, topic, expires_unix_ms, is_gone: payload.is_empty() })
}

/// A delayed message.
#[must_use]
pub fn delayed(key: &[u8], delayed: &StoredDelayed) -> Vec<u8> {
    let mut out = Writer::new(48 + delayed.message.len());
    out.u64(delayed.due_unix_ms);
    put_message(&mut out, &delayed.message);
    out.seal(key)
}

/// Reads a delayed message.
///
/// # Errors
/// [`CodecError`]: key or value is damaged.
pub fn read_delayed(key: &[u8], value: &[u8]) -> Result<StoredDelayed, CodecError> {
    let (slot, number) = keys::read_delayed(key)?;
    let mut from = Reader::open(key, value)?;
    let due_unix_ms = from.u64()?;
    let message = take_message(&mut from)?;
    from.end()?;
    Ok(StoredDelayed { slot, number, due_unix_ms, message })
}

/// The publishing session of a message is not kept: it names a session of a running process, and No Local was obeyed when the
/// message came into the queue.
fn put_message(out: &mut Writer, message: &Message) {
    out.u128(message.id.0);
    let flags = message.qos.bits() | u8::from(message.retain) << 2 | u8::from(message.sys) << 3;
    out.u8(flags);
    option(out, message.expires_unix_ms, Writer::u64);
    out.bytes(message.topic().as_bytes());
    out.bytes(message.forwarded());
    out.bytes(message.payload());
}

/// A message's fields, borrowed.
struct MessageFields<'a> {
    id: MessageId,
    flags: u8,
    expires_unix_ms: Option<u64>,
    topic: &'a str,
    forwarded: &'a [u8],
    payload: &'a [u8],
}

impl<'a> MessageFields<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, CodecError> {
        Ok(Self {
            id: MessageId(from.u128()?),
            flags: from.u8()?,
            expires_unix_ms: read_option(from, Reader::u64)?,
            topic: from.str()?,
            forwarded: from.bytes()?,
            payload: from.bytes()?,
        })
    }
}

fn take_message(from: &mut Reader<'_>) -> Result<Arc<Message>, CodecError> {
    let fields = MessageFields::read(from)?;
    let publication = Publication {
        topic: fields.topic,
        payload: fields.payload,
        forwarded: fields.forwarded,
        qos: qos(fields.flags & 3)?,
        retain: fields.flags & 4 != 0,
        sys: fields.flags & 8 != 0,
        expires_unix_ms: fields.expires_unix_ms,
        origin: None,
    };
    Ok(Message::new(fields.id, &publication))
}

fn qos(bits: u8) -> Result<QoS, CodecError> {
    QoS::from_bits(bits).ok_or(CodecError::Malformed)
}

fn option<T>(out: &mut Writer, value: Option<T>, put: impl FnOnce(&mut Writer, T)) {
    out.u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn read_option<'a, T>(
    from: &mut Reader<'a>,
    take: impl FnOnce(&mut Reader<'a>) -> Result<T, CodecError>,
) -> Result<Option<T>, CodecError> {
    match from.u8()? {
        0 => Ok(None),
        1 => take(from).map(Some),
        _ => Err(CodecError::Malformed),
    }
}
