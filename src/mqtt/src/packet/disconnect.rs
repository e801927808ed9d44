//! DISCONNECT (section 3.14).

use crate::error::DecodeError;
use crate::frame::{Body, FrameHeader, encode_frame, frame_len};
use crate::limits::DecodeLimits;
use crate::packet_type::PacketType;
use crate::primitives::{Reader, Sink};
use crate::property::{Properties, Property, PropertyBlock, UserProperties, put_block};
use crate::protocol_version::ProtocolVersion;
use crate::reason_code::ReasonCode;

/// The end of a connection, said by one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why; always success before MQTT 5.0.
    pub reason: ReasonCode,
    /// Client only: a new life of the session after this connection, in seconds.
    pub session_expiry_interval_s: Option<u32>,
    /// A reason for people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
    /// Server only: another server to use.
    pub server_reference: Option<&'a str>,
}

impl<'a> Disconnect<'a> {
    /// A DISCONNECT without properties.
    pub const fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_expiry_interval_s: None,
            reason_string: None,
            user_properties: UserProperties::from_list(&[]),
            server_reference: None,
        }
    }

    /// Decodes the body of a DISCONNECT.
    ///
    /// # Errors
    /// What the peer did wrong.
    pub fn decode(
        header: &FrameHeader,
        body: &'a [u8],
        version: ProtocolVersion,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        // v3 MQTT-3.14.1-1, v5 MQTT-3.14.1-1.
        header.check_version(version)?;
        let mut reader = Reader::new(body);
        let mut disconnect = Self::new(ReasonCode::Success);
        // Section 3.14.2.1 of 5.0: without a body the reason is 0x00.
        if version.is_v5() && !reader.is_empty() {
            // v5 MQTT-3.14.2-1.
            disconnect.reason = super::read_reason(PacketType::Disconnect, &mut reader)?;
            // Section 3.14.2.2.1: with a remaining length below 2 there are no properties.
            if !reader.is_empty() {
                disconnect.read_properties(&mut reader, limits)?;
            }
        }
        reader.finish(PacketType::Disconnect)?;
        Ok(disconnect)
    }

    fn read_properties(
        &mut self,
        reader: &mut Reader<'a>,
        limits: &DecodeLimits,
    ) -> Result<(), DecodeError> {
        let mut block = PropertyBlock::read(reader, PacketType::Disconnect, limits)?;
        while let Some(property) = block.next()? {
            match property {
                Property::SessionExpiryInterval(s) => self.session_expiry_interval_s = Some(s),
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::ServerReference(text) => self.server_reference = Some(text),
                Property::UserProperty(..) => {}
                other => return Err(block.not_allowed(&other)),
            }
        }
        self.user_properties = block.user_properties();
        Ok(())
    }

    /// Appends the packet in its shortest form. Before MQTT 5.0 it has no body, and a server does not send it.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        encode_frame(PacketType::Disconnect.first_byte(), self, version, out);
    }

    /// Bytes [`encode`](Self::encode) appends.
    pub fn encoded_len(&self, version: ProtocolVersion) -> usize {
        frame_len(self, version)
    }
}

impl Body for Disconnect<'_> {
    fn write<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        if !version.is_v5() {
            return;
        }
        if self.len() > 0 {
            out.put_u8(self.reason.code());
            put_block(self, out);
        } else if self.reason != ReasonCode::Success {
            out.put_u8(self.reason.code());
        }
    }
}

impl Properties for Disconnect<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        if let Some(s) = self.session_expiry_interval_s {
            Property::SessionExpiryInterval(s).write(out);
        }
        if let Some(text) = self.reason_string {
            Property::ReasonString(text).write(out);
        }
        self.user_properties.write(out);
        if let Some(text) = self.server_reference {
            Property::ServerReference(text).write(out);
        }
    }
}
