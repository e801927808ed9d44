//! UNSUBSCRIBE (section 3.10).

use std::fmt;

use crate::error::DecodeError;
use crate::frame::{Body, FrameHeader, encode_frame, frame_len};
use crate::limits::DecodeLimits;
use crate::packet_id::PacketId;
use crate::packet_type::PacketType;
use crate::primitives::{Reader, Sink};
use crate::property::{Properties, Property, PropertyBlock, UserProperties, put_block};
use crate::protocol_version::ProtocolVersion;

/// The filters of an UNSUBSCRIBE, in order; a view that is parsed as it is walked. The syntax of the filters has not
/// been checked.
#[derive(Clone, Copy)]
pub struct UnsubscribeFilters<'a> {
    source: Source<'a>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    /// A checked payload of this many filters.
    Payload {
        raw: &'a [u8],
        count: usize,
    },
    List(&'a [&'a str]),
}

impl<'a> UnsubscribeFilters<'a> {
    /// The filters to send.
    pub const fn from_list(list: &'a [&'a str]) -> Self {
        Self { source: Source::List(list) }
    }

    fn decode(raw: &'a [u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let packet_type = PacketType::Unsubscribe;
        let mut reader = Reader::new(raw);
        let mut count = 0;
        while !reader.is_empty() {
            if count == limits.filters_per_packet_max {
                let max = limits.filters_per_packet_max;
                return Err(DecodeError::TooManyFilters { packet_type, max });
            }
            // MQTT-3.10.3-1.
            reader.string("topic filter")?;
            count += 1;
        }
        // MQTT-3.10.3-2, SEED-PROTO-10.
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

    /// The filters as they came.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
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
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.string("topic filter").ok()
    }
}

impl PartialEq for UnsubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for UnsubscribeFilters<'_> {}

impl fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A request to end subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// The identifier the UNSUBACK repeats.
    pub packet_id: PacketId,
    /// User properties.
    pub user_properties: UserProperties<'a>,
    /// The filters.
    pub filters: UnsubscribeFilters<'a>,
}

impl<'a> Unsubscribe<'a> {
    /// Decodes the body of an UNSUBSCRIBE.
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
        let packet_id = reader.packet_id(PacketType::Unsubscribe)?;
        let mut user_properties = UserProperties::default();
        if version.is_v5() {
            let mut block = PropertyBlock::read(&mut reader, PacketType::Unsubscribe, limits)?;
            while let Some(property) = block.next()? {
                match property {
                    Property::UserProperty(..) => {}
                    other => return Err(block.not_allowed(&other)),
                }
            }
            user_properties = block.user_properties();
        }
        let filters = UnsubscribeFilters::decode(reader.take_rest(), limits)?;
        Ok(Self { packet_id, user_properties, filters })
    }

    /// Appends the packet.
    ///
    /// # Panics
    /// If there are no filters.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        assert!(!self.filters.is_empty(), "UNSUBSCRIBE has at least one filter");
        encode_frame(PacketType::Unsubscribe.first_byte(), self, version, out);
    }

    /// Bytes [`encode`](Self::encode) appends.
    pub fn encoded_len(&self, version: ProtocolVersion) -> usize {
        frame_len(self, version)
    }
}

impl Body for Unsubscribe<'_> {
    fn write<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        out.put_u16(self.packet_id.get());
        if version.is_v5() {
            put_block(self, out);
        }
        for filter in self.filters.iter() {
            out.put_str(filter);
        }
    }
}

impl Properties for Unsubscribe<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        self.user_properties.write(out);
    }
}
