//! Application messages: the borrowed form of the hot path and the shared form that queues hold.

use std::sync::Arc;

use mqtt::QoS;

/// Who published a message, as far as No Local needs to know (MQTT-3.8.3-3): one session of one shard.
///
/// Client ids need no comparison: a session index and its generation name one session for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The shard of the publishing session.
    pub shard: u16,
    /// Index of the session in its shard.
    pub session: u32,
    /// Tells apart the sessions that use an index one after the other.
    pub generation: u32,
}

/// The globally unique id of a message: 64 bits of time in microseconds, 16 bits of node, 32 bits of shard and
/// process, 16 bits of a sequence (SEED-SESS-12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u128);

impl MessageId {
    /// When the message entered the broker, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        u64::try_from(self.0 >> 64).expect("64 bits are left") / 1000
    }

    /// Who made it: those of one maker increase strictly.
    #[must_use]
    pub fn maker(self) -> u64 {
        u64::try_from(self.0 >> 16 & 0xffff_ffff_ffff).expect("48 bits are left")
    }
}

/// Makes the [`MessageId`]s of one shard.
#[derive(Debug)]
pub struct MessageIds {
    node: u16,
    source: u32,
    time_us: u64,
    sequence: u16,
}

impl MessageIds {
    /// `node` names the broker, `source` the process and shard.
    #[must_use]
    pub const fn new(node: u16, source: u32) -> Self {
        Self { node, source, time_us: 0, sequence: 0 }
    }

    /// The next id. Ids of one maker increase strictly, also within one clock reading: when the sequence is used
    /// up, the time part moves ahead of the clock by one microsecond.
    pub fn next(&mut self, unix_ms: u64) -> MessageId {
        let now_us = unix_ms.saturating_mul(1000);
        if now_us > self.time_us {
            self.time_us = now_us;
            self.sequence = 0;
        } else if self.sequence == u16::MAX {
            self.time_us += 1;
            self.sequence = 0;
        } else {
            self.sequence += 1;
        }
        MessageId(
            u128::from(self.time_us) << 64
                | u128::from(self.node) << 48
                | u128::from(self.source) << 16
                | u128::from(self.sequence),
        )
    }
}

/// A message on its way, borrowed from where it was received. Delivery of `QoS` 0 needs no more than this; what
/// is to be kept becomes a [`Message`].
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    /// The topic name, without alias.
    pub topic: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// Raw v5 properties that are passed on unaltered and in order (MQTT-3.3.2-17).
    pub forwarded: &'a [u8],
    /// The publisher's `QoS`.
    pub qos: QoS,
    /// The publisher's RETAIN flag.
    pub retain: bool,
    /// A message of the broker itself (`$SYS`): not counted as traffic (SEED-SYS-12).
    pub sys: bool,
    /// When it is to be discarded, in milliseconds since the Unix epoch (MQTT-3.3.2-5).
    pub expires_unix_ms: Option<u64>,
    /// The publishing session, if a client of this node published it.
    pub origin: Option<Origin>,
}

impl<'a> Publication<'a> {
    /// One that nobody's client published: `QoS` 0, not retained, without properties, for ever.
    #[must_use]
    pub const fn new(topic: &'a str, payload: &'a [u8]) -> Self {
        Self {
            topic,
            payload,
            forwarded: &[],
            qos: QoS::AtMostOnce,
            retain: false,
            sys: false,
            expires_unix_ms: None,
            origin: None,
        }
    }
}

/// A message that is kept: in an inflight window, a queue, the retained index, or between shards. Shared by all
/// that hold it; never changed.
#[derive(Debug)]
pub struct Message {
    /// Its unique id.
    pub id: MessageId,
    /// The publisher's `QoS`.
    pub qos: QoS,
    /// The publisher's RETAIN flag.
    pub retain: bool,
    /// A message of the broker itself.
    pub sys: bool,
    /// When it is to be discarded, in milliseconds since the Unix epoch.
    pub expires_unix_ms: Option<u64>,
    /// The publishing session.
    pub origin: Option<Origin>,
    topic_len: u32,
    forwarded_len: u32,
    /// Topic, forwarded properties and payload, in this order: one allocation.
    bytes: Box<[u8]>,
}

impl Message {
    /// Copies a publication into a message of its own.
    #[must_use]
    pub fn new(id: MessageId, publication: &Publication<'_>) -> Arc<Self> {
        let Publication { topic, payload, forwarded, .. } = *publication;
        let mut bytes = Vec::with_capacity(topic.len() + forwarded.len() + payload.len());
        bytes.extend_from_slice(topic.as_bytes());
        bytes.extend_from_slice(forwarded);
        bytes.extend_from_slice(payload);
        let length = |n: usize| u32::try_from(n).expect("an MQTT packet is at most 256 MB");
        Arc::new(Self {
            id,
            qos: publication.qos,
            retain: publication.retain,
            sys: publication.sys,
            expires_unix_ms: publication.expires_unix_ms,
            origin: publication.origin,
            topic_len: length(topic.len()),
            forwarded_len: length(forwarded.len()),
            bytes: bytes.into_boxed_slice(),
        })
    }

    /// The topic name.
    #[must_use]
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.topic_len as usize])
            .expect("the bytes were copied from a str")
    }

    /// The forwarded properties, raw.
    #[must_use]
    pub fn forwarded(&self) -> &[u8] {
        let start = self.topic_len as usize;
        &self.bytes[start..start + self.forwarded_len as usize]
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.topic_len as usize + self.forwarded_len as usize..]
    }

    /// Bytes of topic, properties and payload.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has none: never, a topic has at least one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The borrowed form.
    #[must_use]
    pub fn publication(&self) -> Publication<'_> {
        Publication {
            topic: self.topic(),
            payload: self.payload(),
            forwarded: self.forwarded(),
            qos: self.qos,
            retain: self.retain,
            sys: self.sys,
            expires_unix_ms: self.expires_unix_ms,
            origin: self.origin,
        }
    }

    /// Whether its expiry interval has passed.
    #[must_use]
    pub fn is_expired(&self, unix_ms: u64) -> bool {
        self.expires_unix_ms.is_some_and(|at| at <= unix_ms)
    }
}

/// Seconds left of a message's life, as the Message Expiry Interval that is sent on (MQTT-3.3.2-6); `None` when
/// it does not expire. Rounded to the nearest second, so that clocks of two shards that are a tick apart do not show; at
/// least 1: what has expired is dropped before it is encoded.
#[must_use]
pub fn expiry_interval_left_s(expires_unix_ms: Option<u64>, unix_ms: u64) -> Option<u32> {
    let left_ms = expires_unix_ms?.saturating_sub(unix_ms);
    Some(u32::try_from(left_ms.saturating_add(500) / 1000).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_increase_within_one_millisecond_and_across_the_sequence() {
        let mut ids = MessageIds::new(7, 9);
        let mut last = ids.next(1);
        for _ in 0..200_000 {
            let next = ids.next(1);
            assert!(next > last);
            last = next;
        }
        assert_eq!(u16::try_from(last.0 >> 48 & 0xffff), Ok(7));
        assert_eq!(last.maker(), 7 << 32 | 9);
    }

    #[test]
    fn a_message_keeps_its_parts() {
        let publication = Publication {
            topic: "a/b",
            payload: b"xyz",
            forwarded: &[1, 1],
            qos: QoS::AtLeastOnce,
            retain: true,
            sys: false,
            expires_unix_ms: Some(2000),
            origin: None,
        };
        let message = Message::new(MessageId(1), &publication);
        assert_eq!(message.topic(), "a/b");
        assert_eq!(message.forwarded(), &[1, 1]);
        assert_eq!(message.payload(), b"xyz");
        assert!(!message.is_expired(1999));
        assert!(message.is_expired(2000));
    }

    #[test]
    fn what_is_left_of_an_expiry_interval_is_rounded() {
        assert_eq!(expiry_interval_left_s(None, 5), None);
        assert_eq!(expiry_interval_left_s(Some(10_000), 7_500), Some(3));
        assert_eq!(expiry_interval_left_s(Some(10_000), 6_999), Some(3));
        assert_eq!(expiry_interval_left_s(Some(10_000), 10_500), Some(1));
    }
}
