//! AUTH (v5 section 3.15).

use crate::error::DecodeError;
use crate::frame::{Body, FrameHeader, encode_frame, frame_len};
use crate::limits::DecodeLimits;
use crate::packet_type::PacketType;
use crate::primitives::{Reader, Sink};
use crate::property::{Properties, Property, PropertyBlock, UserProperties, put_block};
use crate::protocol_version::ProtocolVersion;
use crate::reason_code::ReasonCode;

/// A step of an authentication exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue, or re-authenticate.
    pub reason: ReasonCode,
    /// Name of the method; `None` only in the form without a body.
    pub authentication_method: Option<&'a str>,
    /// Data of the method.
    pub authentication_data: Option<&'a [u8]>,
    /// A reason for people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    /// An AUTH with nothing but a reason.
    pub const fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            authentication_method: None,
            authentication_data: None,
            reason_string: None,
            user_properties: UserProperties::from_list(&[]),
        }
    }

    /// Decodes the body of an AUTH.
    ///
    /// # Errors
    /// What the peer did wrong; before MQTT 5.0 there is no such packet.
    pub fn decode(
        header: &FrameHeader,
        body: &'a [u8],
        version: ProtocolVersion,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        if !version.is_v5() {
            return Err(DecodeError::PacketNotInVersion(PacketType::Auth));
        }
        // v5 MQTT-3.15.1-1.
        header.check_version(version)?;
        let mut reader = Reader::new(body);
        let mut auth = Self::new(ReasonCode::Success);
        // Section 3.15.2.1: reason and properties are left out together.
        if !reader.is_empty() {
            // v5 MQTT-3.15.2-1.
            auth.reason = super::read_reason(PacketType::Auth, &mut reader)?;
            auth.read_properties(&mut reader, limits)?;
        }
        reader.finish(PacketType::Auth)?;
        Ok(auth)
    }

    fn read_properties(
        &mut self,
        reader: &mut Reader<'a>,
        limits: &DecodeLimits,
    ) -> Result<(), DecodeError> {
        let mut block = PropertyBlock::read(reader, PacketType::Auth, limits)?;
        while let Some(property) = block.next()? {
            match property {
                Property::AuthenticationMethod(text) => self.authentication_method = Some(text),
                Property::AuthenticationData(bytes) => self.authentication_data = Some(bytes),
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::UserProperty(..) => {}
                other => return Err(block.not_allowed(&other)),
            }
        }
        self.user_properties = block.user_properties();
        // Section 3.15.2.2.2: omitting the method is a protocol error.
        if self.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationMethodMissing);
        }
        Ok(())
    }

    /// Appends the packet.
    ///
    /// # Panics
    /// If `version` is not 5.0, or if the method is missing and this is more than a bare success.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        assert!(version.is_v5(), "AUTH is a packet of MQTT 5.0 only");
        assert!(
            self.authentication_method.is_some() || self.is_bare(),
            "AUTH names its authentication method"
        );
        encode_frame(PacketType::Auth.first_byte(), self, version, out);
    }

    /// Bytes [`encode`](Self::encode) appends.
    pub fn encoded_len(&self, version: ProtocolVersion) -> usize {
        frame_len(self, version)
    }

    fn is_bare(&self) -> bool {
        self.reason == ReasonCode::Success && self.len() == 0
    }
}

impl Body for Auth<'_> {
    fn write<S: Sink>(&self, _version: ProtocolVersion, out: &mut S) {
        if !self.is_bare() {
            out.put_u8(self.reason.code());
            put_block(self, out);
        }
    }
}

impl Properties for Auth<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        if let Some(text) = self.authentication_method {
            Property::AuthenticationMethod(text).write(out);
        }
        if let Some(bytes) = self.authentication_data {
            Property::AuthenticationData(bytes).write(out);
        }
        if let Some(text) = self.reason_string {
            Property::ReasonString(text).write(out);
        }
        self.user_properties.write(out);
    }
}
