//! One property and the block of them that a packet carries.

use std::num::{NonZeroU16, NonZeroU32};

use super::forwarded::{Forwarded, SubscriptionIds};
use super::id::PropertyId;
use super::user::UserProperties;
use crate::error::DecodeError;
use crate::limits::DecodeLimits;
use crate::packet_type::PacketType;
use crate::primitives::{Count, Reader, Sink};
use crate::qos::QoS;
use crate::topic;

/// A property with its value. Values the specification forbids cannot be expressed or are refused by `read`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "the variants are the names of the specification")]
pub(crate) enum Property<'a> {
    PayloadFormatIndicator(bool),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(NonZeroU32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(NonZeroU16),
    MaximumQos(QoS),
    RetainAvailable(bool),
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

/// Reads the identifier of a property.
#[inline]
fn read_id(reader: &mut Reader<'_>) -> Result<PropertyId, DecodeError> {
    let number = reader.varint("property identifier")?;
    u8::try_from(number)
        .ok()
        .and_then(PropertyId::from_u8)
        // Section 2.2.2.2: an identifier that is not defined makes the packet malformed.
        .ok_or_else(|| DecodeError::UnknownProperty(u32::try_from(number).unwrap_or(u32::MAX)))
}

impl<'a> Property<'a> {
    /// Reads a property, its identifier included.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        use PropertyId as Id;
        let id = read_id(reader)?;
        let name = id.name();
        let bad_value = DecodeError::PropertyValue(id);
        // Boolean properties: a value other than 0 or 1 is a protocol error.
        let flag = |reader: &mut Reader<'a>| match reader.u8(name)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(bad_value),
        };
        Ok(match id {
            Id::PayloadFormatIndicator => Self::PayloadFormatIndicator(flag(reader)?),
            Id::MessageExpiryInterval => Self::MessageExpiryInterval(reader.u32(name)?),
            Id::ContentType => Self::ContentType(reader.string(name)?),
            Id::ResponseTopic => {
                let text = reader.string(name)?;
                // v5 MQTT-3.3.2-14, and MQTT-4.7.3-1 as for any topic name.
                if text.is_empty() || topic::has_wildcard(text) {
                    return Err(bad_value);
                }
                Self::ResponseTopic(text)
            }
            Id::CorrelationData => Self::CorrelationData(reader.binary(name)?),
            Id::SubscriptionIdentifier => {
                // Section 3.8.2.1.2: 1 to 268,435,455.
                let number = u32::try_from(reader.varint(name)?).ok().and_then(NonZeroU32::new);
                Self::SubscriptionIdentifier(number.ok_or(bad_value)?)
            }
            Id::SessionExpiryInterval => Self::SessionExpiryInterval(reader.u32(name)?),
            Id::AssignedClientIdentifier => Self::AssignedClientIdentifier(reader.string(name)?),
            Id::ServerKeepAlive => Self::ServerKeepAlive(reader.u16(name)?),
            Id::AuthenticationMethod => Self::AuthenticationMethod(reader.string(name)?),
            Id::AuthenticationData => Self::AuthenticationData(reader.binary(name)?),
            Id::RequestProblemInformation => Self::RequestProblemInformation(flag(reader)?),
            Id::WillDelayInterval => Self::WillDelayInterval(reader.u32(name)?),
            Id::RequestResponseInformation => Self::RequestResponseInformation(flag(reader)?),
            Id::ResponseInformation => Self::ResponseInformation(reader.string(name)?),
            Id::ServerReference => Self::ServerReference(reader.string(name)?),
            Id::ReasonString => Self::ReasonString(reader.string(name)?),
            Id::ReceiveMaximum => match reader.u16(name)? {
                // Section 3.1.2.11.3: 0 is a protocol error.
                0 => return Err(bad_value),
                number => Self::ReceiveMaximum(number),
            },
            Id::TopicAliasMaximum => Self::TopicAliasMaximum(reader.u16(name)?),
            Id::TopicAlias => {
                // v5 MQTT-3.3.2-8.
                let alias = NonZeroU16::new(reader.u16(name)?);
                Self::TopicAlias(alias.ok_or(DecodeError::TopicAliasZero)?)
            }
            Id::MaximumQos => {
                // Section 3.2.2.3.4: 2 is said by leaving the property out.
                Self::MaximumQos(if flag(reader)? { QoS::AtLeastOnce } else { QoS::AtMostOnce })
            }
            Id::RetainAvailable => Self::RetainAvailable(flag(reader)?),
            Id::UserProperty => Self::UserProperty(reader.string(name)?, reader.string(name)?),
            Id::MaximumPacketSize => match reader.u32(name)? {
                // Section 3.1.2.11.4: 0 is a protocol error.
                0 => return Err(bad_value),
                number => Self::MaximumPacketSize(number),
            },
            Id::WildcardSubscriptionAvailable => Self::WildcardSubscriptionAvailable(flag(reader)?),
            Id::SubscriptionIdentifierAvailable => {
                Self::SubscriptionIdentifierAvailable(flag(reader)?)
            }
            Id::SharedSubscriptionAvailable => Self::SharedSubscriptionAvailable(flag(reader)?),
        })
    }

    pub(crate) const fn id(&self) -> PropertyId {
        use PropertyId as Id;
        match self {
            Self::PayloadFormatIndicator(_) => Id::PayloadFormatIndicator,
            Self::MessageExpiryInterval(_) => Id::MessageExpiryInterval,
            Self::ContentType(_) => Id::ContentType,
            Self::ResponseTopic(_) => Id::ResponseTopic,
            Self::CorrelationData(_) => Id::CorrelationData,
            Self::SubscriptionIdentifier(_) => Id::SubscriptionIdentifier,
            Self::SessionExpiryInterval(_) => Id::SessionExpiryInterval,
            Self::AssignedClientIdentifier(_) => Id::AssignedClientIdentifier,
            Self::ServerKeepAlive(_) => Id::ServerKeepAlive,
            Self::AuthenticationMethod(_) => Id::AuthenticationMethod,
            Self::AuthenticationData(_) => Id::AuthenticationData,
            Self::RequestProblemInformation(_) => Id::RequestProblemInformation,
            Self::WillDelayInterval(_) => Id::WillDelayInterval,
            Self::RequestResponseInformation(_) => Id::RequestResponseInformation,
            Self::ResponseInformation(_) => Id::ResponseInformation,
            Self::ServerReference(_) => Id::ServerReference,
            Self::ReasonString(_) => Id::ReasonString,
            Self::ReceiveMaximum(_) => Id::ReceiveMaximum,
            Self::TopicAliasMaximum(_) => Id::TopicAliasMaximum,
            Self::TopicAlias(_) => Id::TopicAlias,
            Self::MaximumQos(_) => Id::MaximumQos,
            Self::RetainAvailable(_) => Id::RetainAvailable,
            Self::UserProperty(..) => Id::UserProperty,
            Self::MaximumPacketSize(_) => Id::MaximumPacketSize,
            Self::WildcardSubscriptionAvailable(_) => Id::WildcardSubscriptionAvailable,
            Self::SubscriptionIdentifierAvailable(_) => Id::SubscriptionIdentifierAvailable,
            Self::SharedSubscriptionAvailable(_) => Id::SharedSubscriptionAvailable,
        }
    }

    /// Writes the property, its identifier included.
    pub(crate) fn write<S: Sink>(&self, out: &mut S) {
        out.put_u8(self.id() as u8);
        match *self {
            Self::PayloadFormatIndicator(flag)
            | Self::RequestProblemInformation(flag)
            | Self::RequestResponseInformation(flag)
            | Self::RetainAvailable(flag)
            | Self::WildcardSubscriptionAvailable(flag)
            | Self::SubscriptionIdentifierAvailable(flag)
            | Self::SharedSubscriptionAvailable(flag) => out.put_u8(u8::from(flag)),
            Self::MaximumQos(qos) => out.put_u8(qos.bits()),
            Self::ServerKeepAlive(number)
            | Self::ReceiveMaximum(number)
            | Self::TopicAliasMaximum(number) => out.put_u16(number),
            Self::TopicAlias(alias) => out.put_u16(alias.get()),
            Self::MessageExpiryInterval(number)
            | Self::SessionExpiryInterval(number)
            | Self::WillDelayInterval(number)
            | Self::MaximumPacketSize(number) => out.put_u32(number),
            Self::SubscriptionIdentifier(number) => put_u32_varint(out, number.get()),
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientIdentifier(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => out.put_str(text),
            Self::CorrelationData(bytes) | Self::AuthenticationData(bytes) => out.put_binary(bytes),
            Self::UserProperty(name, value) => {
                out.put_str(name);
                out.put_str(value);
            }
        }
    }
}

/// Writes a variable byte integer held as `u32`, which is not wider than `usize` where this is built.
fn put_u32_varint<S: Sink>(out: &mut S, value: u32) {
    out.put_varint(usize::try_from(value).unwrap_or(usize::MAX));
}

/// Takes one property of checked bytes without looking at its value: identifier and all its bytes.
pub(super) fn next_raw<'a>(reader: &mut Reader<'a>) -> Option<(PropertyId, &'a [u8])> {
    use PropertyId as Id;
    let mut ahead = *reader;
    let id = read_id(&mut ahead).ok()?;
    let name = id.name();
    match id {
        Id::PayloadFormatIndicator
        | Id::RequestProblemInformation
        | Id::RequestResponseInformation
        | Id::MaximumQos
        | Id::RetainAvailable
        | Id::WildcardSubscriptionAvailable
        | Id::SubscriptionIdentifierAvailable
        | Id::SharedSubscriptionAvailable => ahead.take(1, name).map(drop),
        Id::ServerKeepAlive | Id::ReceiveMaximum | Id::TopicAliasMaximum | Id::TopicAlias => {
            ahead.take(2, name).map(drop)
        }
        Id::MessageExpiryInterval
        | Id::SessionExpiryInterval
        | Id::WillDelayInterval
        | Id::MaximumPacketSize => ahead.take(4, name).map(drop),
        Id::SubscriptionIdentifier => ahead.varint(name).map(drop),
        Id::ContentType
        | Id::ResponseTopic
        | Id::CorrelationData
        | Id::AssignedClientIdentifier
        | Id::AuthenticationMethod
        | Id::AuthenticationData
        | Id::ResponseInformation
        | Id::ServerReference
        | Id::ReasonString => ahead.binary(name).map(drop),
        Id::UserProperty => ahead.binary(name).and_then(|_| ahead.binary(name)).map(drop),
    }
    .ok()?;
    let bytes = reader.take(reader.len() - ahead.len(), name).ok()?;
    Some((id, bytes))
}

/// The properties of one packet (or will) while they are being decoded.
pub(crate) struct PropertyBlock<'a> {
    raw: &'a [u8],
    reader: Reader<'a>,
    packet_type: PacketType,
    /// One bit per identifier; the highest is 0x2A.
    seen: u64,
    user_properties: usize,
    user_properties_max: usize,
    subscription_ids: usize,
    /// Bytes of the properties that are not passed on.
    hop_by_hop_len: usize,
}

impl<'a> PropertyBlock<'a> {
    /// Takes the property length and the properties off `reader`.
    #[inline]
    pub(crate) fn read(
        reader: &mut Reader<'a>,
        packet_type: PacketType,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        let len = reader.varint("property length")?;
        let raw = reader.take(len, "properties")?;
        Ok(Self {
            raw,
            reader: Reader::new(raw),
            packet_type,
            seen: 0,
            user_properties: 0,
            user_properties_max: limits.user_properties_max,
            subscription_ids: 0,
            hop_by_hop_len: 0,
        })
    }

    /// The next property; what need not be kept apart (user properties) is returned too.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let len_before = self.reader.len();
        let property = Property::read(&mut self.reader)?;
        let id = property.id();
        let bit = 1 << (id as u8);
        // Each property of section 2.2.2.2 but two: including it more than once is a protocol error.
        if self.seen & bit != 0 && !id.is_repeatable() {
            return Err(DecodeError::DuplicateProperty(id));
        }
        self.seen |= bit;
        match id {
            PropertyId::UserProperty => {
                self.user_properties += 1;
                if self.user_properties > self.user_properties_max {
                    return Err(DecodeError::TooManyUserProperties(self.user_properties_max));
                }
            }
            PropertyId::SubscriptionIdentifier => self.subscription_ids += 1,
            _ => {}
        }
        if !id.is_forwarded() {
            self.hop_by_hop_len += len_before - self.reader.len();
        }
        Ok(Some(property))
    }

    /// Section 2.2.2.2: a property that is not valid for its packet makes the packet malformed.
    pub(crate) const fn not_allowed(&self, property: &Property<'_>) -> DecodeError {
        DecodeError::PropertyNotAllowed { packet_type: self.packet_type, property: property.id() }
    }

    /// The user properties seen so far.
    pub(crate) const fn user_properties(&self) -> UserProperties<'a> {
        UserProperties::from_checked(self.raw, self.user_properties)
    }

    /// The subscription identifiers seen so far.
    pub(crate) const fn subscription_ids(&self) -> SubscriptionIds<'a> {
        SubscriptionIds::from_checked(self.raw, self.subscription_ids)
    }

    /// What is passed on with the message; all properties must have been read.
    pub(crate) const fn forwarded(&self) -> Forwarded<'a> {
        Forwarded::from_checked(self.raw, self.raw.len() - self.hop_by_hop_len)
    }
}

/// What writes the properties of a packet, without their length.
pub(crate) trait Properties {
    fn write<S: Sink>(&self, out: &mut S);

    fn len(&self) -> usize {
        let mut count = Count(0);
        self.write(&mut count);
        count.0
    }
}

/// Writes the property length and the properties.
pub(crate) fn put_block<S: Sink>(properties: &impl Properties, out: &mut S) {
    out.put_varint(properties.len());
    properties.write(out);
}
