//! PINGREQ and PINGRESP (sections 3.12 and 3.13).

use crate::error::DecodeError;
use crate::frame::FrameHeader;
use crate::packet_type::PacketType;
use crate::primitives::Reader;
use crate::protocol_version::ProtocolVersion;

/// Neither packet has a body.
pub(super) fn decode(
    header: &FrameHeader,
    body: &[u8],
    version: ProtocolVersion,
) -> Result<(), DecodeError> {
    header.check_version(version)?;
    Reader::new(body).finish(header.packet_type)
}

/// Appends a PINGREQ.
pub fn encode_ping_request(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingReq.first_byte(), 0]);
}

/// Appends a PINGRESP.
pub fn encode_ping_response(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingResp.first_byte(), 0]);
}
