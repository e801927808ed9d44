//! The properties of a message that a broker passes on, and those that end at it.

use std::fmt;
use std::num::NonZeroU32;

use super::block::{Property, next_raw};
use super::id::PropertyId;
use super::user::UserProperties;
use crate::primitives::{Reader, Sink};

/// The properties of a message that a broker passes on unaltered and in order: payload format, content type, response
/// topic, correlation data, user properties (v5 MQTT-3.3.2-4, -15, -16, -17, -18, -20).
///
/// A view of a property block that skips the others (alias, expiry, subscription identifiers, will delay).
#[derive(Clone, Copy, Default)]
pub struct Forwarded<'a> {
    raw: &'a [u8],
    /// Bytes of the forwarded properties; the length of `raw` if there are no others, and then encoding is one copy.
    len: usize,
}

impl<'a> Forwarded<'a> {
    pub(super) const fn from_checked(raw: &'a [u8], len: usize) -> Self {
        Self { raw, len }
    }

    /// The view of bytes that [`write_to`](Self::write_to) or [`ForwardedFields::write_to`] wrote before.
    pub const fn from_raw(raw: &'a [u8]) -> Self {
        Self { raw, len: raw.len() }
    }

    /// Bytes [`write_to`](Self::write_to) writes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to pass on.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes themselves, if they stand in one piece.
    pub const fn as_contiguous(&self) -> Option<&'a [u8]> {
        if self.len == self.raw.len() {
            Some(self.raw)
        } else if self.len == 0 {
            Some(&[])
        } else {
            None
        }
    }

    /// Appends the properties as they stand on the wire.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        self.write(out);
    }

    pub(crate) fn write<S: Sink>(&self, out: &mut S) {
        match self.as_contiguous() {
            Some(bytes) => out.put(bytes),
            None => self.pieces().for_each(|bytes| out.put(bytes)),
        }
    }

    /// The bytes of each property that is passed on.
    fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new(self.raw);
        std::iter::from_fn(move || {
            loop {
                let (id, bytes) = next_raw(&mut reader)?;
                if id.is_forwarded() {
                    return Some(bytes);
                }
            }
        })
    }

    /// The first property with this identifier.
    fn find(&self, wanted: PropertyId) -> Option<Property<'a>> {
        if self.len == 0 {
            return None;
        }
        let mut reader = Reader::new(self.raw);
        loop {
            let (id, bytes) = next_raw(&mut reader)?;
            if id == wanted {
                return Property::read(&mut Reader::new(bytes)).ok();
            }
        }
    }

    /// Whether the sender says that the payload is UTF-8; nobody has checked that, see [`Self::is_payload_valid`].
    pub fn payload_is_utf8(&self) -> bool {
        self.find(PropertyId::PayloadFormatIndicator)
            == Some(Property::PayloadFormatIndicator(true))
    }

    /// Whether `payload` is what the payload format indicator says (v5 reason code 0x99 if not).
    pub fn is_payload_valid(&self, payload: &[u8]) -> bool {
        !self.payload_is_utf8() || std::str::from_utf8(payload).is_ok()
    }

    /// What the payload is.
    pub fn content_type(&self) -> Option<&'a str> {
        match self.find(PropertyId::ContentType)? {
            Property::ContentType(text) => Some(text),
            _ => None,
        }
    }

    /// Where the answer to this request goes.
    pub fn response_topic(&self) -> Option<&'a str> {
        match self.find(PropertyId::ResponseTopic)? {
            Property::ResponseTopic(text) => Some(text),
            _ => None,
        }
    }

    /// What tells an answer which request it belongs to.
    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        match self.find(PropertyId::CorrelationData)? {
            Property::CorrelationData(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The user properties, in order.
    pub fn user_properties(&self) -> UserProperties<'a> {
        let mut reader = Reader::new(self.raw);
        let count = std::iter::from_fn(|| next_raw(&mut reader))
            .filter(|(id, _)| *id == PropertyId::UserProperty)
            .count();
        UserProperties::from_checked(self.raw, count)
    }
}

impl PartialEq for Forwarded<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.as_contiguous(), other.as_contiguous()) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.len == other.len && self.pieces().eq(other.pieces()),
        }
    }
}

impl Eq for Forwarded<'_> {}

impl fmt::Debug for Forwarded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarded")
            .field("payload_is_utf8", &self.payload_is_utf8())
            .field("content_type", &self.content_type())
            .field("response_topic", &self.response_topic())
            .field("correlation_data", &self.correlation_data())
            .field("user_properties", &self.user_properties())
            .finish()
    }
}

/// The properties of a message that is made here rather than passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ForwardedFields<'a> {
    /// Whether the payload is UTF-8.
    pub payload_is_utf8: bool,
    /// What the payload is.
    pub content_type: Option<&'a str>,
    /// Where the answer goes; a topic name without wildcards.
    pub response_topic: Option<&'a str>,
    /// What tells an answer which request it belongs to.
    pub correlation_data: Option<&'a [u8]>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

impl ForwardedFields<'_> {
    /// Appends the properties as they stand on the wire; [`Forwarded::from_raw`] makes a view of them.
    ///
    /// # Panics
    /// If a string or the correlation data is longer than 65,535 bytes.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        if self.payload_is_utf8 {
            Property::PayloadFormatIndicator(true).write(out);
        }
        if let Some(text) = self.content_type {
            Property::ContentType(text).write(out);
        }
        if let Some(topic) = self.response_topic {
            Property::ResponseTopic(topic).write(out);
        }
        if let Some(bytes) = self.correlation_data {
            Property::CorrelationData(bytes).write(out);
        }
        self.user_properties.write(out);
    }
}

/// The subscription identifiers of a PUBLISH, in order; a view that is parsed as it is walked.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIds<'a> {
    raw: &'a [u8],
    count: usize,
}

impl<'a> SubscriptionIds<'a> {
    pub(super) const fn from_checked(raw: &'a [u8], count: usize) -> Self {
        Self { raw, count }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The identifiers in order; the same one may come more than once.
    pub fn iter(&self) -> impl Iterator<Item = NonZeroU32> + use<'a> {
        let mut reader = Reader::new(if self.count == 0 { &[] } else { self.raw });
        std::iter::from_fn(move || {
            loop {
                let (id, bytes) = next_raw(&mut reader)?;
                if id == PropertyId::SubscriptionIdentifier {
                    return match Property::read(&mut Reader::new(bytes)) {
                        Ok(Property::SubscriptionIdentifier(number)) => Some(number),
                        _ => None,
                    };
                }
            }
        })
    }

    pub(crate) fn write<S: Sink>(&self, out: &mut S) {
        for number in self.iter() {
            Property::SubscriptionIdentifier(number).write(out);
        }
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIds<'_> {}

impl fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
