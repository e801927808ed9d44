//! PUBLISH (section 3.3): decoding for both sides, and the encoder of the broker.

use std::num::NonZeroU16;

use crate::error::DecodeError;
use crate::frame::{Body, FrameHeader, encode_frame, frame_len};
use crate::limits::DecodeLimits;
use crate::packet_id::PacketId;
use crate::packet_type::PacketType;
use crate::primitives::{Reader, Sink, varint_len};
use crate::property::{
    Forwarded, Properties, Property, PropertyBlock, PropertyId, SubscriptionIds, UserProperties,
    put_block,
};
use crate::protocol_version::ProtocolVersion;
use crate::qos::QoS;
use crate::topic::{self, TopicError};

const DUP: u8 = 0b1000;
const QOS_SHIFT: u8 = 1;
const RETAIN: u8 = 0b0001;

/// The first byte of a PUBLISH.
const fn first_byte(dup: bool, qos: QoS, retain: bool) -> u8 {
    let mut byte = (PacketType::Publish as u8) << 4 | qos.bits() << QOS_SHIFT;
    if dup {
        byte |= DUP;
    }
    if retain {
        byte |= RETAIN;
    }
    byte
}

/// A message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Whether it may have been sent before.
    pub dup: bool,
    /// Its quality of service.
    pub qos: QoS,
    /// Whether it is to be kept, or was.
    pub retain: bool,
    /// Its topic name; empty only in MQTT 5.0 and only with a topic alias.
    pub topic: &'a str,
    /// Its identifier; there is one if and only if the QoS is above 0 (MQTT-2.3.1-5, v5 MQTT-2.2.1-2).
    pub packet_id: Option<PacketId>,
    /// What it says.
    pub payload: &'a [u8],
    /// Its properties; none before MQTT 5.0.
    pub properties: PublishProperties<'a>,
}

/// The properties of a PUBLISH.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// Remaining life in seconds.
    pub message_expiry_interval_s: Option<u32>,
    /// A number for the topic.
    pub topic_alias: Option<NonZeroU16>,
    /// The subscriptions it came by; only from a server.
    pub subscription_ids: SubscriptionIds<'a>,
    /// What a broker passes on.
    pub forwarded: Forwarded<'a>,
}

impl<'a> PublishProperties<'a> {
    /// Whether the sender says that the payload is UTF-8 (unchecked).
    pub fn payload_is_utf8(&self) -> bool {
        self.forwarded.payload_is_utf8()
    }

    /// What the payload is.
    pub fn content_type(&self) -> Option<&'a str> {
        self.forwarded.content_type()
    }

    /// Where the answer to this request goes.
    pub fn response_topic(&self) -> Option<&'a str> {
        self.forwarded.response_topic()
    }

    /// What tells an answer which request it belongs to.
    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        self.forwarded.correlation_data()
    }

    /// The user properties, in order.
    pub fn user_properties(&self) -> UserProperties<'a> {
        self.forwarded.user_properties()
    }

    fn read(reader: &mut Reader<'a>, limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let mut block = PropertyBlock::read(reader, PacketType::Publish, limits)?;
        let mut properties = Self::default();
        while let Some(property) = block.next()? {
            match property {
                Property::MessageExpiryInterval(s) => {
                    properties.message_expiry_interval_s = Some(s);
                }
                Property::TopicAlias(alias) => properties.topic_alias = Some(alias),
                Property::SubscriptionIdentifier(_)
                | Property::PayloadFormatIndicator(_)
                | Property::ContentType(_)
                | Property::ResponseTopic(_)
                | Property::CorrelationData(_)
                | Property::UserProperty(..) => {}
                other => return Err(block.not_allowed(&other)),
            }
        }
        properties.subscription_ids = block.subscription_ids();
        properties.forwarded = block.forwarded();
        Ok(properties)
    }
}

impl<'a> Publish<'a> {
    /// Decodes the body of a PUBLISH.
    ///
    /// # Errors
    /// What the peer did wrong.
    #[inline]
    pub fn decode(
        header: &FrameHeader,
        body: &'a [u8],
        version: ProtocolVersion,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        header.check_version(version)?;
        let dup = header.flags & DUP != 0;
        // MQTT-3.3.1-4.
        let qos = QoS::from_bits(header.flags >> QOS_SHIFT & 0b11);
        let qos = qos.ok_or(DecodeError::PublishQos3)?;
        // MQTT-3.3.1-2.
        if dup && qos == QoS::AtMostOnce {
            return Err(DecodeError::DupWithQos0);
        }
        let mut reader = Reader::new(body);
        let topic = read_topic(&mut reader, version, limits)?;
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            _ => Some(reader.packet_id(PacketType::Publish)?),
        };
        let properties = if version.is_v5() {
            PublishProperties::read(&mut reader, limits)?
        } else {
            PublishProperties::default()
        };
        // v5 section 3.3.2.1: an empty topic name needs an alias; before that see `read_topic`.
        if topic.is_empty() && properties.topic_alias.is_none() {
            return Err(DecodeError::TopicMissing);
        }
        let payload = reader.take_rest();
        let retain = header.flags & RETAIN != 0;
        Ok(Self { dup, qos, retain, topic, packet_id, payload, properties })
    }

    /// Refuses what only a server may say.
    ///
    /// # Errors
    /// [`DecodeError::SubscriptionIdFromClient`].
    #[inline]
    pub const fn check_from_client(&self) -> Result<(), DecodeError> {
        // v5 MQTT-3.3.4-6.
        if self.properties.subscription_ids.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::SubscriptionIdFromClient)
        }
    }

    /// Appends the packet. Before MQTT 5.0 the properties are left out.
    ///
    /// # Panics
    /// If there is an identifier with QoS 0 or none above it.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        assert_packet_id(self.qos, self.packet_id);
        encode_frame(first_byte(self.dup, self.qos, self.retain), self, version, out);
    }

    /// Bytes [`encode`](Self::encode) appends.
    pub fn encoded_len(&self, version: ProtocolVersion) -> usize {
        frame_len(self, version)
    }
}

#[inline]
fn read_topic<'a>(
    reader: &mut Reader<'a>,
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<&'a str, DecodeError> {
    let bytes = reader.binary("topic name")?;
    // MQTT-3.3.2-1, MQTT-1.5.3-1.
    let topic = std::str::from_utf8(bytes).map_err(|_| DecodeError::InvalidUtf8("topic name"))?;
    if topic.is_empty() && version.is_v5() {
        return Ok(topic);
    }
    // MQTT-3.3.2-2: no wildcards; U+0000 is looked for in the same pass.
    match topic::validate_name(topic, limits) {
        Ok(()) => Ok(topic),
        Err(TopicError::NullCharacter) => Err(DecodeError::NullCharacter("topic name")),
        Err(error) => Err(DecodeError::TopicName(error)),
    }
}

fn assert_packet_id(qos: QoS, packet_id: Option<PacketId>) {
    // MQTT-2.3.1-5, v5 MQTT-2.2.1-2.
    assert_eq!(
        packet_id.is_some(),
        qos != QoS::AtMostOnce,
        "PUBLISH has a packet identifier if and only if its QoS is above 0"
    );
}

impl Body for Publish<'_> {
    fn write<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        out.put_str(self.topic);
        if let Some(packet_id) = self.packet_id {
            out.put_u16(packet_id.get());
        }
        if version.is_v5() {
            put_block(&self.properties, out);
        }
        out.put(self.payload);
    }
}

impl Properties for PublishProperties<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        if let Some(s) = self.message_expiry_interval_s {
            Property::MessageExpiryInterval(s).write(out);
        }
        if let Some(alias) = self.topic_alias {
            Property::TopicAlias(alias).write(out);
        }
        self.subscription_ids.write(out);
        self.forwarded.write(out);
    }
}

/// A PUBLISH as the broker sends it; nothing in it is parsed again.
///
/// Properties go out in the order expiry, alias, subscription identifiers, forwarded; before MQTT 5.0 all are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishOut<'a> {
    /// The version the receiver speaks.
    pub version: ProtocolVersion,
    /// Whether it was sent before.
    pub dup: bool,
    /// Its quality of service.
    pub qos: QoS,
    /// Whether it is a retained message.
    pub retain: bool,
    /// Its topic name; empty if the receiver knows the alias.
    pub topic: &'a str,
    /// Its identifier; there is one if and only if the QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// A number for the topic.
    pub topic_alias: Option<NonZeroU16>,
    /// Remaining life in seconds.
    pub message_expiry_interval_s: Option<u32>,
    /// The identifiers of the subscriptions it goes by, each 1 to 268,435,455.
    pub subscription_ids: &'a [u32],
    /// What [`Forwarded::write_to`] wrote.
    pub forwarded: &'a [u8],
    /// What it says.
    pub payload: &'a [u8],
}

/// `u32` as `usize`; the product is built for 64-bit machines.
fn widen(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl PublishOut<'_> {
    fn properties_len(&self) -> usize {
        let mut len = self.forwarded.len();
        if self.message_expiry_interval_s.is_some() {
            len += 5;
        }
        if self.topic_alias.is_some() {
            len += 3;
        }
        for &number in self.subscription_ids {
            len += 1 + varint_len(widen(number));
        }
        len
    }

    /// The remaining length, given the length of the properties.
    fn body_len(&self, properties_len: usize) -> usize {
        let mut len = 2 + self.topic.len() + self.payload.len();
        if self.packet_id.is_some() {
            len += 2;
        }
        if self.version.is_v5() {
            len += varint_len(properties_len) + properties_len;
        }
        len
    }

    /// Bytes [`encode`](Self::encode) appends.
    ///
    /// # Panics
    /// If the packet would be longer than [`MAX_PACKET_LEN`](crate::MAX_PACKET_LEN).
    pub fn encoded_len(&self) -> usize {
        let body_len = self.body_len(self.properties_len());
        1 + varint_len(body_len) + body_len
    }

    /// Appends the packet.
    ///
    /// # Panics
    /// If there is an identifier with QoS 0 or none above it, a subscription identifier is 0, the topic is longer than
    /// 65,535 bytes, or the packet longer than [`MAX_PACKET_LEN`](crate::MAX_PACKET_LEN).
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.write_head(out, self.payload.len());
        out.extend_from_slice(self.payload);
    }

    /// Appends the packet up to its payload, which the caller sends from elsewhere.
    ///
    /// # Panics
    /// As [`encode`](Self::encode).
    #[inline]
    pub fn encode_head(&self, out: &mut Vec<u8>) {
        self.write_head(out, 0);
    }

    /// Appends all but the payload; makes room for `spare` bytes more.
    fn write_head(&self, out: &mut Vec<u8>, spare: usize) {
        assert_packet_id(self.qos, self.packet_id);
        let properties_len = self.properties_len();
        let body_len = self.body_len(properties_len);
        out.reserve(5 + body_len - self.payload.len() + spare);
        out.push(first_byte(self.dup, self.qos, self.retain));
        out.put_varint(body_len);
        out.put_str(self.topic);
        if let Some(packet_id) = self.packet_id {
            out.put_u16(packet_id.get());
        }
        if self.version.is_v5() {
            self.write_properties(properties_len, out);
        }
    }

    fn write_properties(&self, len: usize, out: &mut Vec<u8>) {
        out.put_varint(len);
        if let Some(s) = self.message_expiry_interval_s {
            Property::MessageExpiryInterval(s).write(out);
        }
        if let Some(alias) = self.topic_alias {
            Property::TopicAlias(alias).write(out);
        }
        for &number in self.subscription_ids {
            assert!(number != 0, "a subscription identifier is not 0");
            out.put_u8(PropertyId::SubscriptionIdentifier as u8);
            out.put_varint(widen(number));
        }
        out.put(self.forwarded);
    }
}
