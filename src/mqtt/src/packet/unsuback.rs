//! UNSUBACK (section 3.11).

use crate::error::DecodeError;
use crate::frame::{Body, FrameHeader, encode_frame, frame_len};
use crate::limits::DecodeLimits;
use crate::packet_id::PacketId;
use crate::packet_type::PacketType;
use crate::primitives::{Reader, Sink};
use crate::property::{Properties, Property, PropertyBlock, UserProperties, put_block};
use crate::protocol_version::ProtocolVersion;

/// The answer to UNSUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// The identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// One code per filter in the order of the filters; empty before MQTT 5.0.
    pub reasons: &'a [u8],
    /// A reason for people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> UnsubAck<'a> {
    /// A UNSUBACK without properties.
    pub const fn new(packet_id: PacketId, reasons: &'a [u8]) -> Self {
        let user_properties = UserProperties::from_list(&[]);
        Self { packet_id, reasons, reason_string: None, user_properties }
    }

    /// Decodes the body of a UNSUBACK.
    ///
    /// # Errors
    /// What the peer did wrong.
    pub fn decode(
        header: &FrameHeader,
        body: &'a [u8],
        version: ProtocolVersion,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        header.check_version(version)?;
        let mut reader = Reader::new(body);
        let mut ack = Self::new(reader.packet_id(PacketType::UnsubAck)?, &[]);
        if version.is_v5() {
            ack.read_properties(&mut reader, limits)?;
            ack.reasons = reader.take_rest();
            // v5 MQTT-3.11.3-1: at least one filter was given, so there is at least one code.
            if ack.reasons.is_empty() {
                return Err(DecodeError::Truncated("reason codes"));
            }
            // v5 MQTT-3.11.3-2.
            super::check_reasons(PacketType::UnsubAck, version, ack.reasons)?;
        }
        // Section 3.11.3 of 3.1.1: no payload.
        reader.finish(PacketType::UnsubAck)?;
        Ok(ack)
    }

    fn read_properties(
        &mut self,
        reader: &mut Reader<'a>,
        limits: &DecodeLimits,
    ) -> Result<(), DecodeError> {
        let mut block = PropertyBlock::read(reader, PacketType::UnsubAck, limits)?;
        while let Some(property) = block.next()? {
            match property {
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::UserProperty(..) => {}
                other => return Err(block.not_allowed(&other)),
            }
        }
        self.user_properties = block.user_properties();
        Ok(())
    }

    /// Appends the packet. Before MQTT 5.0 it carries no codes.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        encode_frame(PacketType::UnsubAck.first_byte(), self, version, out);
    }

    /// Bytes [`encode`](Self::encode) appends.
    pub fn encoded_len(&self, version: ProtocolVersion) -> usize {
        frame_len(self, version)
    }
}

impl Body for UnsubAck<'_> {
    fn write<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        out.put_u16(self.packet_id.get());
        if version.is_v5() {
            put_block(self, out);
            out.put(self.reasons);
        }
    }
}

impl Properties for UnsubAck<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        if let Some(text) = self.reason_string {
            Property::ReasonString(text).write(out);
        }
        self.user_properties.write(out);
    }
}
