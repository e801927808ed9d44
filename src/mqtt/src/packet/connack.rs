//! CONNACK (section 3.2).

use crate::error::DecodeError;
use crate::frame::{Body, FrameHeader, encode_frame, frame_len};
use crate::limits::DecodeLimits;
use crate::packet_type::PacketType;
use crate::primitives::{Reader, Sink};
use crate::property::{Properties, Property, PropertyBlock, UserProperties, put_block};
use crate::protocol_version::ProtocolVersion;
use crate::qos::QoS;
use crate::reason_code::ReasonCode;

const SESSION_PRESENT: u8 = 0b0000_0001;

/// The answer to CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the server has a session of this client.
    pub session_present: bool,
    /// The outcome.
    pub reason: ReasonCode,
    /// What the server offers; none before MQTT 5.0.
    pub properties: ConnAckProperties<'a>,
}

/// The properties of a CONNACK; the defaults are what a client assumes when one is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnAckProperties<'a> {
    /// Life of the session after the connection in seconds, if not what the client asked for.
    pub session_expiry_interval_s: Option<u32>,
    /// Most QoS 1 and 2 messages the server has in flight from this client; 65,535 if missing.
    pub receive_maximum: Option<u16>,
    /// Highest QoS the server supports.
    pub maximum_qos: QoS,
    /// Whether the server keeps retained messages.
    pub retain_available: bool,
    /// Largest packet the server accepts, in bytes.
    pub maximum_packet_size: Option<u32>,
    /// The client identifier the server chose.
    pub assigned_client_id: Option<&'a str>,
    /// Highest topic alias the server accepts.
    pub topic_alias_maximum: u16,
    /// A reason for people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
    /// Whether the server supports wildcards.
    pub wildcard_subscription_available: bool,
    /// Whether the server supports subscription identifiers.
    pub subscription_ids_available: bool,
    /// Whether the server supports shared subscriptions.
    pub shared_subscription_available: bool,
    /// The keep alive the client has to use, in seconds.
    pub server_keep_alive_s: Option<u16>,
    /// Basis of response topics.
    pub response_information: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// Name of the authentication method.
    pub authentication_method: Option<&'a str>,
    /// Data of the authentication method.
    pub authentication_data: Option<&'a [u8]>,
}

impl Default for ConnAckProperties<'_> {
    fn default() -> Self {
        Self {
            session_expiry_interval_s: None,
            receive_maximum: None,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            maximum_packet_size: None,
            assigned_client_id: None,
            topic_alias_maximum: 0,
            reason_string: None,
            user_properties: UserProperties::from_list(&[]),
            wildcard_subscription_available: true,
            subscription_ids_available: true,
            shared_subscription_available: true,
            server_keep_alive_s: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
        }
    }
}

impl<'a> ConnAckProperties<'a> {
    fn read(reader: &mut Reader<'a>, limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let mut block = PropertyBlock::read(reader, PacketType::ConnAck, limits)?;
        let mut into = Self::default();
        while let Some(property) = block.next()? {
            match property {
                Property::SessionExpiryInterval(s) => into.session_expiry_interval_s = Some(s),
                Property::ReceiveMaximum(number) => into.receive_maximum = Some(number),
                Property::MaximumQos(qos) => into.maximum_qos = qos,
                Property::RetainAvailable(flag) => into.retain_available = flag,
                Property::MaximumPacketSize(len) => into.maximum_packet_size = Some(len),
                Property::AssignedClientIdentifier(id) => into.assigned_client_id = Some(id),
                Property::TopicAliasMaximum(number) => into.topic_alias_maximum = number,
                Property::ReasonString(text) => into.reason_string = Some(text),
                Property::UserProperty(..) => {}
                Property::WildcardSubscriptionAvailable(flag) => {
                    into.wildcard_subscription_available = flag;
                }
                Property::SubscriptionIdentifierAvailable(flag) => {
                    into.subscription_ids_available = flag;
                }
                Property::SharedSubscriptionAvailable(flag) => {
                    into.shared_subscription_available = flag;
                }
                Property::ServerKeepAlive(s) => into.server_keep_alive_s = Some(s),
                Property::ResponseInformation(text) => into.response_information = Some(text),
                Property::ServerReference(text) => into.server_reference = Some(text),
                Property::AuthenticationMethod(text) => into.authentication_method = Some(text),
                Property::AuthenticationData(bytes) => into.authentication_data = Some(bytes),
                other => return Err(block.not_allowed(&other)),
            }
        }
        into.user_properties = block.user_properties();
        Ok(into)
    }
}

impl<'a> ConnAck<'a> {
    /// A CONNACK without properties.
    pub fn new(session_present: bool, reason: ReasonCode) -> Self {
        Self { session_present, reason, properties: ConnAckProperties::default() }
    }

    /// Decodes the body of a CONNACK.
    ///
    /// # Errors
    /// What the peer did wrong.
    pub fn decode(
        header: &FrameHeader,
        body: &'a [u8],
        version: ProtocolVersion,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        let packet_type = PacketType::ConnAck;
        header.check_version(version)?;
        let mut reader = Reader::new(body);
        let flags = reader.u8("acknowledge flags")?;
        // v5 MQTT-3.2.2-1 and section 3.2.2.1 of 3.1.1; MQTT 3.1 does not use the byte.
        if version != ProtocolVersion::V3_1 && flags & !SESSION_PRESENT != 0 {
            return Err(DecodeError::ConnAckFlags(flags));
        }
        let session_present = version != ProtocolVersion::V3_1 && flags & SESSION_PRESENT != 0;
        let mut properties = ConnAckProperties::default();
        let reason = if version.is_v5() {
            // v5 MQTT-3.2.2-8.
            let reason = super::read_reason(packet_type, &mut reader)?;
            properties = ConnAckProperties::read(&mut reader, limits)?;
            reason
        } else {
            let code = reader.u8("return code")?;
            ReasonCode::from_v3_connack_code(code)
                .ok_or(DecodeError::ReasonCode { packet_type, code })?
        };
        reader.finish(packet_type)?;
        // v3 MQTT-3.2.2-4, v5 MQTT-3.2.2-6.
        if session_present && reason != ReasonCode::Success {
            return Err(DecodeError::SessionPresentOnRefusal);
        }
        Ok(Self { session_present, reason, properties })
    }

    /// Appends the packet. Before MQTT 5.0 the reason becomes the nearest return code and there are no properties.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        encode_frame(PacketType::ConnAck.first_byte(), self, version, out);
    }

    /// Bytes [`encode`](Self::encode) appends.
    pub fn encoded_len(&self, version: ProtocolVersion) -> usize {
        frame_len(self, version)
    }
}

impl Body for ConnAck<'_> {
    fn write<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        // v3 MQTT-3.2.2-4, v5 MQTT-3.2.2-6: no session with a refusal. MQTT 3.1 knows no such flag.
        let session_present = self.session_present
            && self.reason == ReasonCode::Success
            && version != ProtocolVersion::V3_1;
        out.put_u8(if session_present { SESSION_PRESENT } else { 0 });
        if version.is_v5() {
            out.put_u8(self.reason.code());
            put_block(&self.properties, out);
        } else {
            out.put_u8(self.reason.v3_connack_code());
        }
    }
}

impl Properties for ConnAckProperties<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        let optional = [
            self.session_expiry_interval_s.map(Property::SessionExpiryInterval),
            self.receive_maximum.map(Property::ReceiveMaximum),
            // Section 3.2.2.3.4: 2 is said by leaving the property out.
            (self.maximum_qos != QoS::ExactlyOnce)
                .then_some(Property::MaximumQos(self.maximum_qos)),
            (!self.retain_available).then_some(Property::RetainAvailable(false)),
            self.maximum_packet_size.map(Property::MaximumPacketSize),
            self.assigned_client_id.map(Property::AssignedClientIdentifier),
            (self.topic_alias_maximum != 0)
                .then_some(Property::TopicAliasMaximum(self.topic_alias_maximum)),
            self.reason_string.map(Property::ReasonString),
            (!self.wildcard_subscription_available)
                .then_some(Property::WildcardSubscriptionAvailable(false)),
            (!self.subscription_ids_available)
                .then_some(Property::SubscriptionIdentifierAvailable(false)),
            (!self.shared_subscription_available)
                .then_some(Property::SharedSubscriptionAvailable(false)),
            self.server_keep_alive_s.map(Property::ServerKeepAlive),
            self.response_information.map(Property::ResponseInformation),
            self.server_reference.map(Property::ServerReference),
            self.authentication_method.map(Property::AuthenticationMethod),
            self.authentication_data.map(Property::AuthenticationData),
        ];
        for property in optional.into_iter().flatten() {
            property.write(out);
        }
        self.user_properties.write(out);
    }
}
