//! PUBACK, PUBREC, PUBREL, PUBCOMP (sections 3.4 to 3.7), which have one shape.

use crate::error::DecodeError;
use crate::frame::{Body, FrameHeader, encode_frame, frame_len};
use crate::limits::DecodeLimits;
use crate::packet_id::PacketId;
use crate::packet_type::PacketType;
use crate::primitives::{Reader, Sink};
use crate::property::{Properties, Property, PropertyBlock, UserProperties, put_block};
use crate::protocol_version::ProtocolVersion;
use crate::reason_code::ReasonCode;

/// A step of the acknowledgement of a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The identifier of the PUBLISH.
    pub packet_id: PacketId,
    /// The outcome; always success before MQTT 5.0.
    pub reason: ReasonCode,
    /// A reason for people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Ack<'a> {
    /// An acknowledgement without properties.
    pub const fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        let user_properties = UserProperties::from_list(&[]);
        Self { packet_id, reason, reason_string: None, user_properties }
    }

    /// Decodes the body of one of the four packets; `header` says which.
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
        let mut reader = Reader::new(body);
        let mut ack = Self::new(reader.packet_id(header.packet_type)?, ReasonCode::Success);
        // Section 3.4.2.1 of 5.0: with a remaining length of 2 the reason is success.
        if version.is_v5() && !reader.is_empty() {
            ack.read_reason(header.packet_type, &mut reader, limits)?;
        }
        reader.finish(header.packet_type)?;
        Ok(ack)
    }

    fn read_reason(
        &mut self,
        packet_type: PacketType,
        reader: &mut Reader<'a>,
        limits: &DecodeLimits,
    ) -> Result<(), DecodeError> {
        // v5 MQTT-3.4.2-1, MQTT-3.5.2-1, MQTT-3.6.2-1, MQTT-3.7.2-1.
        self.reason = super::read_reason(packet_type, reader)?;
        // Section 3.4.2.2.1: with a remaining length below 4 there are no properties.
        if reader.is_empty() {
            return Ok(());
        }
        let mut block = PropertyBlock::read(reader, packet_type, limits)?;
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

    /// Appends the packet of type `packet_type`, in its shortest form. Before MQTT 5.0 only the identifier is sent.
    ///
    /// # Panics
    /// If `packet_type` is none of the four.
    pub fn encode(&self, packet_type: PacketType, version: ProtocolVersion, out: &mut Vec<u8>) {
        assert_ack(packet_type);
        encode_frame(packet_type.first_byte(), self, version, out);
    }

    /// Bytes [`encode`](Self::encode) appends.
    pub fn encoded_len(&self, version: ProtocolVersion) -> usize {
        frame_len(self, version)
    }

    fn has_properties(&self) -> bool {
        self.reason_string.is_some() || !self.user_properties.is_empty()
    }
}

impl Body for Ack<'_> {
    fn write<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        out.put_u16(self.packet_id.get());
        if !version.is_v5() {
            return;
        }
        if self.has_properties() {
            out.put_u8(self.reason.code());
            put_block(self, out);
        } else if self.reason != ReasonCode::Success {
            out.put_u8(self.reason.code());
        }
    }
}

impl Properties for Ack<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        if let Some(text) = self.reason_string {
            Property::ReasonString(text).write(out);
        }
        self.user_properties.write(out);
    }
}

fn assert_ack(packet_type: PacketType) {
    assert!(
        matches!(
            packet_type,
            PacketType::PubAck | PacketType::PubRec | PacketType::PubRel | PacketType::PubComp
        ),
        "{packet_type} is not an acknowledgement of PUBLISH"
    );
}

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP without properties, in its shortest form: 4 or 5 bytes.
///
/// # Panics
/// If `packet_type` is none of the four.
#[inline]
pub fn encode_ack(
    out: &mut Vec<u8>,
    packet_type: PacketType,
    version: ProtocolVersion,
    packet_id: PacketId,
    reason: ReasonCode,
) {
    assert_ack(packet_type);
    let [high, low] = packet_id.get().to_be_bytes();
    let first = packet_type.first_byte();
    if version.is_v5() && reason != ReasonCode::Success {
        out.extend_from_slice(&[first, 3, high, low, reason.code()]);
    } else {
        out.extend_from_slice(&[first, 2, high, low]);
    }
}
