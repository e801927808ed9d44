//! SUBSCRIBE (section 3.8).

use std::fmt;
use std::num::NonZeroU32;

use crate::error::DecodeError;
use crate::frame::{Body, FrameHeader, encode_frame, frame_len};
use crate::limits::DecodeLimits;
use crate::packet_id::PacketId;
use crate::packet_type::PacketType;
use crate::primitives::{Reader, Sink};
use crate::property::{Properties, Property, PropertyBlock, PropertyId, UserProperties, put_block};
use crate::protocol_version::ProtocolVersion;
use crate::qos::QoS;
use crate::topic;

const QOS: u8 = 0b0000_0011;
const NO_LOCAL: u8 = 0b0000_0100;
const RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
const RETAIN_HANDLING_SHIFT: u8 = 4;
const RESERVED: u8 = 0b1100_0000;
const RESERVED_V3: u8 = 0b1111_1100;

/// Whether a new subscription is sent the retained messages (v5 MQTT-3.3.1-9, -10, -11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// At each SUBSCRIBE.
    #[default]
    SendAtSubscribe = 0,
    /// If the subscription did not exist.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

impl RetainHandling {
    /// The handling of these two bits; `None` for 3 and above.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::SendAtSubscribe),
            1 => Some(Self::SendIfNew),
            2 => Some(Self::DoNotSend),
            _ => None,
        }
    }
}

/// The options of a subscription; before MQTT 5.0 all but the QoS are at their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SubscribeOptions {
    /// Highest QoS of messages to this subscription.
    pub qos: QoS,
    /// Not the messages this client itself publishes.
    pub no_local: bool,
    /// Keep the RETAIN flag of messages as it was published.
    pub retain_as_published: bool,
    /// Whether to send retained messages now.
    pub retain_handling: RetainHandling,
}

impl SubscribeOptions {
    /// Options with this QoS and all others at their defaults.
    pub const fn from_qos(qos: QoS) -> Self {
        Self {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        }
    }

    /// The byte of MQTT 5.0 (v5 section 3.8.3.1).
    pub const fn to_bits(self) -> u8 {
        let mut bits = self.qos.bits() | (self.retain_handling as u8) << RETAIN_HANDLING_SHIFT;
        if self.no_local {
            bits |= NO_LOCAL;
        }
        if self.retain_as_published {
            bits |= RETAIN_AS_PUBLISHED;
        }
        bits
    }

    /// The options of a byte of MQTT 5.0; `None` if it uses reserved bits or values.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match Self::decode(bits) {
            Ok(options) => Some(options),
            Err(_) => None,
        }
    }

    #[inline]
    const fn decode(bits: u8) -> Result<Self, DecodeError> {
        // v5 MQTT-3.8.3-5.
        if bits & RESERVED != 0 {
            return Err(DecodeError::SubscribeOptionsReserved(bits));
        }
        // MQTT-3-8.3-4 of 3.1.1, section 3.8.3.1 of 5.0.
        let Some(qos) = QoS::from_bits(bits & QOS) else {
            return Err(DecodeError::SubscribeQos3(bits));
        };
        // Section 3.8.3.1 of 5.0: a retain handling of 3 is a protocol error.
        let Some(retain_handling) = RetainHandling::from_bits(bits >> RETAIN_HANDLING_SHIFT) else {
            return Err(DecodeError::RetainHandling3(bits));
        };
        Ok(Self {
            qos,
            no_local: bits & NO_LOCAL != 0,
            retain_as_published: bits & RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        })
    }
}

/// The filters of a SUBSCRIBE with their options, in order; a view that is parsed as it is walked. The syntax of the
/// filters has not been checked.
#[derive(Clone, Copy)]
pub struct SubscribeFilters<'a> {
    source: Source<'a>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    /// A checked payload of this many filters.
    Payload {
        raw: &'a [u8],
        count: usize,
    },
    List(&'a [(&'a str, SubscribeOptions)]),
}

impl<'a> SubscribeFilters<'a> {
    /// The filters to send.
    pub const fn from_list(list: &'a [(&'a str, SubscribeOptions)]) -> Self {
        Self { source: Source::List(list) }
    }

    fn decode(
        raw: &'a [u8],
        version: ProtocolVersion,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        let packet_type = PacketType::Subscribe;
        let mut reader = Reader::new(raw);
        let mut count = 0;
        while !reader.is_empty() {
            if count == limits.filters_per_packet_max {
                let max = limits.filters_per_packet_max;
                return Err(DecodeError::TooManyFilters { packet_type, max });
            }
            let (filter, bits) = read_filter(&mut reader)?;
            // MQTT-3-8.3-4 of 3.1.1.
            if !version.is_v5() && bits & RESERVED_V3 != 0 {
                return Err(DecodeError::SubscribeOptionsReserved(bits));
            }
            let options = SubscribeOptions::decode(bits)?;
            // v5 MQTT-3.8.3-4.
            if options.no_local && filter.starts_with(topic::SHARE_PREFIX) {
                return Err(DecodeError::NoLocalOnShared);
            }
            count += 1;
        }
        // MQTT-3.8.3-3, v5 MQTT-3.8.3-2, SEED-PROTO-10.
        if count == 0 {
            return Err(DecodeError::NoFilters(packet_type));
        }
        Ok(Self { source: Source::Payload { raw, count } })
    }

    /// How many filters there are; at least one after decoding.
    pub const fn len(&self) -> usize {
        match self.source {
            Source::Payload { count, .. } => count,
            Source::List(list) => list.len(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The filters as they came, with their options.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, SubscribeOptions)> + Clone + use<'a> {
        let (raw, list): (&[u8], &[_]) = match self.source {
            Source::Payload { raw, .. } => (raw, &[]),
            Source::List(list) => (&[], list),
        };
        let payload = Payload(Reader::new(raw));
        payload.chain(list.iter().copied())
    }
}

#[derive(Clone)]
struct Payload<'a>(Reader<'a>);

impl<'a> Iterator for Payload<'a> {
    type Item = (&'a str, SubscribeOptions);

    fn next(&mut self) -> Option<Self::Item> {
        let (filter, bits) = read_filter(&mut self.0).ok()?;
        Some((filter, SubscribeOptions::from_bits(bits)?))
    }
}

fn read_filter<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, u8), DecodeError> {
    // MQTT-3.8.3-1.
    let filter = reader.string("topic filter")?;
    Ok((filter, reader.u8("subscription options")?))
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for SubscribeFilters<'_> {}

impl fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A request for subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The identifier the SUBACK repeats.
    pub packet_id: PacketId,
    /// A number the server sends with each message of these subscriptions; 1 to 268,435,455.
    pub subscription_id: Option<NonZeroU32>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
    /// The filters.
    pub filters: SubscribeFilters<'a>,
}

impl<'a> Subscribe<'a> {
    /// Decodes the body of a SUBSCRIBE.
    ///
    /// # Errors
    /// What the peer did wrong; the syntax of filters is not looked at.
    pub fn decode(
        header: &FrameHeader,
        body: &'a [u8],
        version: ProtocolVersion,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        header.check_version(version)?;
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id(PacketType::Subscribe)?;
        let mut subscription_id = None;
        let mut user_properties = UserProperties::default();
        if version.is_v5() {
            let mut block = PropertyBlock::read(&mut reader, PacketType::Subscribe, limits)?;
            while let Some(property) = block.next()? {
                match property {
                    // Section 3.8.2.1.2: more than one is a protocol error; only PUBLISH has several.
                    Property::SubscriptionIdentifier(_) if subscription_id.is_some() => {
                        let id = PropertyId::SubscriptionIdentifier;
                        return Err(DecodeError::DuplicateProperty(id));
                    }
                    Property::SubscriptionIdentifier(number) => subscription_id = Some(number),
                    Property::UserProperty(..) => {}
                    other => return Err(block.not_allowed(&other)),
                }
            }
            user_properties = block.user_properties();
        }
        let filters = SubscribeFilters::decode(reader.take_rest(), version, limits)?;
        Ok(Self { packet_id, subscription_id, user_properties, filters })
    }

    /// Appends the packet. Before MQTT 5.0 only the QoS of the options is sent.
    ///
    /// # Panics
    /// If there are no filters.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        assert!(!self.filters.is_empty(), "SUBSCRIBE has at least one filter");
        encode_frame(PacketType::Subscribe.first_byte(), self, version, out);
    }

    /// Bytes [`encode`](Self::encode) appends.
    pub fn encoded_len(&self, version: ProtocolVersion) -> usize {
        frame_len(self, version)
    }
}

impl Body for Subscribe<'_> {
    fn write<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        out.put_u16(self.packet_id.get());
        if version.is_v5() {
            put_block(self, out);
        }
        for (filter, options) in self.filters.iter() {
            out.put_str(filter);
            out.put_u8(if version.is_v5() { options.to_bits() } else { options.qos.bits() });
        }
    }
}

impl Properties for Subscribe<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        if let Some(number) = self.subscription_id {
            Property::SubscriptionIdentifier(number).write(out);
        }
        self.user_properties.write(out);
    }
}
