//! SUBACK (section 3.9).

use crate::error::DecodeError;
use crate::frame::{Body, FrameHeader, encode_frame, frame_len};
use crate::limits::DecodeLimits;
use crate::packet_id::PacketId;
use crate::packet_type::PacketType;
use crate::primitives::{Reader, Sink};
use crate::property::{Properties, Property, PropertyBlock, UserProperties, put_block};
use crate::protocol_version::ProtocolVersion;

/// The answer to SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// The identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// One code per filter in the order of the filters: 0 to 2 are the granted QoS, 0x80 and above failures.
    pub reasons: &'a [u8],
    /// A reason for people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> SubAck<'a> {
    /// A SUBACK without properties.
    pub const fn new(packet_id: PacketId, reasons: &'a [u8]) -> Self {
        let user_properties = UserProperties::from_list(&[]);
        Self { packet_id, reasons, reason_string: None, user_properties }
    }

    /// Decodes the body of a SUBACK.
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
        let mut ack = Self::new(reader.packet_id(PacketType::SubAck)?, &[]);
        if version.is_v5() {
            ack.read_properties(&mut reader, limits)?;
        }
        ack.reasons = reader.take_rest();
        // MQTT-3.9.3-1: at least one filter was asked for, so there is at least one code.
        if ack.reasons.is_empty() {
            return Err(DecodeError::Truncated("reason codes"));
        }
        // MQTT-3.9.3-2.
        super::check_reasons(PacketType::SubAck, version, ack.reasons)?;
        Ok(ack)
    }

    fn read_properties(
        &mut self,
        reader: &mut Reader<'a>,
        limits: &DecodeLimits,
    ) -> Result<(), DecodeError> {
        let mut block = PropertyBlock::read(reader, PacketType::SubAck, limits)?;
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

    /// Appends the packet. Before MQTT 5.0 every failure is 0x80.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        encode_frame(PacketType::SubAck.first_byte(), self, version, out);
    }

    /// Bytes [`encode`](Self::encode) appends.
    pub fn encoded_len(&self, version: ProtocolVersion) -> usize {
        frame_len(self, version)
    }
}

impl Body for SubAck<'_> {
    fn write<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        out.put_u16(self.packet_id.get());
        if version.is_v5() {
            put_block(self, out);
            out.put(self.reasons);
            return;
        }
        for &code in self.reasons {
            // v3 MQTT-3.9.3-2: other codes are reserved.
            out.put_u8(if code >= 0x80 { 0x80 } else { code });
        }
    }
}

impl Properties for SubAck<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        if let Some(text) = self.reason_string {
            Property::ReasonString(text).write(out);
        }
        self.user_properties.write(out);
    }
}
