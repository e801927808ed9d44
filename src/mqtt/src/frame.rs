//! The fixed header: where a packet begins and ends.

use crate::error::DecodeError;
use crate::packet_type::PacketType;
use crate::primitives::{Count, Sink, Varint, read_varint, varint_len};
use crate::protocol_version::ProtocolVersion;

const DUP: u8 = 0b1000;
const QOS: u8 = 0b0110;

/// The fixed header of a packet (section 2.2, v5 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The type of the packet.
    pub packet_type: PacketType,
    /// Lower half of the first byte.
    pub flags: u8,
    /// Length of the fixed header in bytes, 2 to 5.
    pub header_len: usize,
    /// Length of what follows it in bytes: the remaining length.
    pub body_len: usize,
}

impl FrameHeader {
    /// Looks for a fixed header at the start of `bytes`; `None` if it is not whole yet. The body need not be there.
    ///
    /// # Errors
    /// If no whole packet can come of these bytes: unknown type, reserved flags, remaining length too long.
    #[inline]
    pub fn peek(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let (packet_type, flags) = check_first_byte(first)?;
        match read_varint(rest) {
            Varint::Whole(body_len, len) => {
                Ok(Some(Self { packet_type, flags, header_len: 1 + len, body_len }))
            }
            Varint::Partial => Ok(None),
            // v5 MQTT-1.5.5-1 and section 2.2.3 of 3.1.1: four bytes at most.
            Varint::TooLong => Err(DecodeError::RemainingLengthTooLong),
        }
    }

    /// Length of the whole packet in bytes.
    pub const fn total_len(&self) -> usize {
        self.header_len + self.body_len
    }

    /// Refuses a packet of more than `max` bytes, fixed header included, before its body is read.
    ///
    /// # Errors
    /// [`DecodeError::PacketTooLarge`] (v5 MQTT-3.1.2-24 and MQTT-3.2.2-15 for the other side).
    pub const fn check_size(&self, max: usize) -> Result<(), DecodeError> {
        if self.total_len() > max {
            return Err(DecodeError::PacketTooLarge { len: self.total_len(), max });
        }
        Ok(())
    }

    /// What can only be said once the version is known.
    #[inline]
    pub(crate) fn check_version(&self, version: ProtocolVersion) -> Result<(), DecodeError> {
        // v5 MQTT-1.5.5-1; MQTT 3.1.1 does not ask for the shortest form.
        if version.is_v5() && self.header_len != 1 + varint_len(self.body_len) {
            return Err(DecodeError::VarintNotMinimal("remaining length"));
        }
        if self.packet_type == PacketType::Publish || self.flags == self.packet_type.flags() {
            return Ok(());
        }
        let tolerated = match version {
            // MQTT 3.1 sets DUP on a PUBREL, SUBSCRIBE or UNSUBSCRIBE that is sent again.
            ProtocolVersion::V3_1 => true,
            // SEED-PROTO-09: old clients send PUBREL without its flag.
            ProtocolVersion::V3_1_1 => self.packet_type == PacketType::PubRel && self.flags == 0,
            ProtocolVersion::V5 => false,
        };
        if tolerated { Ok(()) } else { Err(self.reserved_flags()) }
    }

    const fn reserved_flags(&self) -> DecodeError {
        DecodeError::ReservedFlags { packet_type: self.packet_type, flags: self.flags }
    }
}

/// Splits the first byte and refuses flags that no version allows.
#[inline]
fn check_first_byte(first: u8) -> Result<(PacketType, u8), DecodeError> {
    let flags = first & 0x0F;
    let packet_type =
        PacketType::from_u8(first >> 4).ok_or(DecodeError::UnknownPacketType(first >> 4))?;
    let allowed = match packet_type {
        // MQTT-3.3.1-4.
        PacketType::Publish if flags & QOS == QOS => return Err(DecodeError::PublishQos3),
        PacketType::Publish => true,
        // MQTT-3.6.1-1, less SEED-PROTO-09 and the DUP of 3.1, see `check_version`.
        PacketType::PubRel => flags & !DUP == 0b0010 || flags == 0,
        // MQTT-3.8.1-1, MQTT-3.10.1-1, less the DUP of 3.1.
        PacketType::Subscribe | PacketType::Unsubscribe => flags & !DUP == 0b0010,
        // MQTT-2.2.2-2, v5 MQTT-2.1.3-1, MQTT-3.14.1-1, v5 MQTT-3.15.1-1.
        _ => flags == 0,
    };
    if allowed {
        Ok((packet_type, flags))
    } else {
        Err(DecodeError::ReservedFlags { packet_type, flags })
    }
}

/// All of a packet behind its fixed header, for encoding.
pub(crate) trait Body {
    fn write<S: Sink>(&self, version: ProtocolVersion, out: &mut S);
}

/// The length in bytes of the packet with this body.
pub(crate) fn frame_len(body: &impl Body, version: ProtocolVersion) -> usize {
    let mut count = Count(0);
    body.write(version, &mut count);
    1 + varint_len(count.0) + count.0
}

/// Appends the packet with this first byte and body.
pub(crate) fn encode_frame(
    first_byte: u8,
    body: &impl Body,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) {
    let mut count = Count(0);
    body.write(version, &mut count);
    out.reserve(5 + count.0);
    out.push(first_byte);
    out.put_varint(count.0);
    let start = out.len();
    body.write(version, out);
    assert_eq!(out.len() - start, count.0, "a packet is as long as its remaining length says");
}
