//! CONNECT (section 3.1).

use crate::error::DecodeError;
use crate::frame::{Body, FrameHeader, encode_frame, frame_len};
use crate::limits::DecodeLimits;
use crate::packet_type::PacketType;
use crate::primitives::{Reader, Sink};
use crate::property::{Forwarded, Properties, Property, PropertyBlock, UserProperties, put_block};
use crate::protocol_version::ProtocolVersion;
use crate::qos::QoS;
use crate::topic;

const RESERVED: u8 = 0b0000_0001;
const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_QOS: u8 = 0b0001_1000;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USERNAME: u8 = 0b1000_0000;
/// Set in the protocol level by bridges of some brokers that speak 3.1 or 3.1.1.
const BRIDGE: u8 = 0x80;

/// The wish to open a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version the client speaks.
    pub version: ProtocolVersion,
    /// Whether an earlier session is to be forgotten (Clean Session before MQTT 5.0).
    pub clean_start: bool,
    /// Longest silence of the client in seconds; 0 is no limit.
    pub keep_alive_s: u16,
    /// The client identifier; may be empty.
    pub client_id: &'a str,
    /// What is published when the connection ends without a DISCONNECT.
    pub will: Option<Will<'a>>,
    /// The user name.
    pub username: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
    /// Whether the client set the bridge bit in the protocol level; only before MQTT 5.0.
    pub is_bridge: bool,
    /// Properties; defaults before MQTT 5.0.
    pub properties: ConnectProperties<'a>,
}

/// The properties of a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// Life of the session after the connection in seconds; none is 0, `u32::MAX` is for ever.
    pub session_expiry_interval_s: Option<u32>,
    /// Most QoS 1 and 2 messages in flight to the client; 65,535 if missing, never 0.
    pub receive_maximum: Option<u16>,
    /// Largest packet the client accepts, in bytes; never 0.
    pub maximum_packet_size: Option<u32>,
    /// Highest topic alias the client accepts.
    pub topic_alias_maximum: u16,
    /// Whether the client wants response information.
    pub request_response_information: bool,
    /// Whether the client wants reason strings and user properties with any packet.
    pub request_problem_information: bool,
    /// User properties.
    pub user_properties: UserProperties<'a>,
    /// Name of the authentication method.
    pub authentication_method: Option<&'a str>,
    /// Data of the authentication method.
    pub authentication_data: Option<&'a [u8]>,
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        Self {
            session_expiry_interval_s: None,
            receive_maximum: None,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: UserProperties::from_list(&[]),
            authentication_method: None,
            authentication_data: None,
        }
    }
}

/// A message for the end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// Its quality of service.
    pub qos: QoS,
    /// Whether it is to be kept.
    pub retain: bool,
    /// Its topic name.
    pub topic: &'a str,
    /// What it says.
    pub payload: &'a [u8],
    /// Time between the end of the connection and its publication, in seconds.
    pub delay_interval_s: u32,
    /// Its life in seconds, from its publication on.
    pub message_expiry_interval_s: Option<u32>,
    /// What is passed on with it.
    pub forwarded: Forwarded<'a>,
}

impl<'a> ConnectProperties<'a> {
    fn read(reader: &mut Reader<'a>, limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let mut block = PropertyBlock::read(reader, PacketType::Connect, limits)?;
        let mut into = Self::default();
        while let Some(property) = block.next()? {
            match property {
                Property::SessionExpiryInterval(s) => into.session_expiry_interval_s = Some(s),
                Property::ReceiveMaximum(number) => into.receive_maximum = Some(number),
                Property::MaximumPacketSize(len) => into.maximum_packet_size = Some(len),
                Property::TopicAliasMaximum(number) => into.topic_alias_maximum = number,
                Property::RequestResponseInformation(flag) => {
                    into.request_response_information = flag;
                }
                Property::RequestProblemInformation(flag) => {
                    into.request_problem_information = flag;
                }
                Property::UserProperty(..) => {}
                Property::AuthenticationMethod(text) => into.authentication_method = Some(text),
                Property::AuthenticationData(bytes) => into.authentication_data = Some(bytes),
                other => return Err(block.not_allowed(&other)),
            }
        }
        into.user_properties = block.user_properties();
        // Section 3.1.2.11.10: data without a method is a protocol error.
        if into.authentication_data.is_some() && into.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationMethodMissing);
        }
        Ok(into)
    }
}

impl<'a> Will<'a> {
    fn read(
        reader: &mut Reader<'a>,
        flags: u8,
        version: ProtocolVersion,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        // v3 MQTT-3.1.2-14, v5 MQTT-3.1.2-12.
        let qos = QoS::from_bits((flags & WILL_QOS) >> WILL_QOS_SHIFT);
        let mut will = Self {
            qos: qos.ok_or(DecodeError::ConnectFlags(flags))?,
            retain: flags & WILL_RETAIN != 0,
            topic: "",
            payload: &[],
            delay_interval_s: 0,
            message_expiry_interval_s: None,
            forwarded: Forwarded::default(),
        };
        if version.is_v5() {
            will.read_properties(reader, limits)?;
        }
        // v3 MQTT-3.1.3-10, v5 MQTT-3.1.3-11.
        will.topic = reader.string("will topic")?;
        topic::validate_name(will.topic, limits).map_err(DecodeError::TopicName)?;
        will.payload = reader.binary("will payload")?;
        Ok(will)
    }

    fn read_properties(
        &mut self,
        reader: &mut Reader<'a>,
        limits: &DecodeLimits,
    ) -> Result<(), DecodeError> {
        let mut block = PropertyBlock::read(reader, PacketType::Connect, limits)?;
        while let Some(property) = block.next()? {
            match property {
                Property::WillDelayInterval(s) => self.delay_interval_s = s,
                Property::MessageExpiryInterval(s) => self.message_expiry_interval_s = Some(s),
                Property::PayloadFormatIndicator(_)
                | Property::ContentType(_)
                | Property::ResponseTopic(_)
                | Property::CorrelationData(_)
                | Property::UserProperty(..) => {}
                other => return Err(block.not_allowed(&other)),
            }
        }
        self.forwarded = block.forwarded();
        Ok(())
    }
}

/// Reads protocol name and level: the version and the bridge bit.
fn read_version(reader: &mut Reader<'_>) -> Result<(ProtocolVersion, bool), DecodeError> {
    let name = reader.binary("protocol name")?;
    // MQTT-3.1.2-1.
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(DecodeError::UnknownProtocolName);
    }
    let level = reader.u8("protocol level")?;
    // MQTT-3.1.2-2.
    let unsupported = DecodeError::UnsupportedProtocolVersion(level);
    let version = ProtocolVersion::from_level(level & !BRIDGE).ok_or(unsupported)?;
    let is_bridge = level & BRIDGE != 0;
    if version.protocol_name().as_bytes() != name || is_bridge && version.is_v5() {
        return Err(unsupported);
    }
    Ok((version, is_bridge))
}

fn check_flags(flags: u8, version: ProtocolVersion) -> Result<(), DecodeError> {
    // MQTT 3.1 says only that these bits are not used.
    if version == ProtocolVersion::V3_1 {
        return Ok(());
    }
    // MQTT-3.1.2-3.
    let has_reserved = flags & RESERVED != 0;
    // v3 MQTT-3.1.2-11, -13, -15; v5 MQTT-3.1.2-11, -13.
    let has_stray_will = flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0;
    if has_reserved || has_stray_will {
        return Err(DecodeError::ConnectFlags(flags));
    }
    Ok(())
}

impl<'a> Connect<'a> {
    /// The version named in a body that did not decode, so that the refusal can be said in it.
    pub fn peek_version(body: &[u8]) -> Option<ProtocolVersion> {
        read_version(&mut Reader::new(body)).ok().map(|(version, _)| version)
    }

    /// Decodes the body of a CONNECT.
    ///
    /// # Errors
    /// What the peer did wrong. An empty client identifier is left to the caller.
    pub fn decode(
        header: &FrameHeader,
        body: &'a [u8],
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let (version, is_bridge) = read_version(&mut reader)?;
        header.check_version(version)?;
        let flags = reader.u8("connect flags")?;
        check_flags(flags, version)?;
        // v3 MQTT-3.1.2-22; MQTT 5.0 lifted it.
        if !version.is_v5() && flags & (USERNAME | PASSWORD) == PASSWORD {
            return Err(DecodeError::PasswordWithoutUsername);
        }
        let mut connect = Self {
            version,
            clean_start: flags & CLEAN_START != 0,
            keep_alive_s: reader.u16("keep alive")?,
            client_id: "",
            will: None,
            username: None,
            password: None,
            is_bridge,
            properties: ConnectProperties::default(),
        };
        if version.is_v5() {
            connect.properties = ConnectProperties::read(&mut reader, limits)?;
        }
        connect.read_payload(&mut reader, flags, limits)?;
        reader.finish(PacketType::Connect)?;
        Ok(connect)
    }

    /// The fields the flags announce, in the order of MQTT-3.1.3-1.
    fn read_payload(
        &mut self,
        reader: &mut Reader<'a>,
        flags: u8,
        limits: &DecodeLimits,
    ) -> Result<(), DecodeError> {
        // MQTT-3.1.3-3, MQTT-3.1.3-4: present, and UTF-8.
        self.client_id = reader.string("client identifier")?;
        // MQTT-3.1.2-9.
        if flags & WILL != 0 {
            self.will = Some(Will::read(reader, flags, self.version, limits)?);
        }
        // MQTT 3.1 allows the flags without the fields: the remaining length takes precedence.
        let may_lack = self.version == ProtocolVersion::V3_1;
        // v3 MQTT-3.1.2-19, MQTT-3.1.3-11; v5 MQTT-3.1.2-17, MQTT-3.1.3-12.
        if flags & USERNAME != 0 && !(may_lack && reader.is_empty()) {
            self.username = Some(reader.string("user name")?);
        }
        // v3 MQTT-3.1.2-21, v5 MQTT-3.1.2-19.
        if flags & PASSWORD != 0 && !(may_lack && reader.is_empty()) {
            self.password = Some(reader.binary("password")?);
        }
        Ok(())
    }

    /// Appends the packet in the version it carries; `_version` is there for sameness with the other packets.
    pub fn encode(&self, _version: ProtocolVersion, out: &mut Vec<u8>) {
        encode_frame(PacketType::Connect.first_byte(), self, self.version, out);
    }

    /// Bytes [`encode`](Self::encode) appends.
    pub fn encoded_len(&self, _version: ProtocolVersion) -> usize {
        frame_len(self, self.version)
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= WILL | will.qos.bits() << WILL_QOS_SHIFT;
            if will.retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        if self.username.is_some() {
            flags |= USERNAME;
        }
        flags
    }
}

impl Body for Connect<'_> {
    fn write<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        out.put_str(version.protocol_name());
        let bridge = if self.is_bridge && !version.is_v5() { BRIDGE } else { 0 };
        out.put_u8(version.level() | bridge);
        out.put_u8(self.flags());
        out.put_u16(self.keep_alive_s);
        if version.is_v5() {
            put_block(&self.properties, out);
        }
        out.put_str(self.client_id);
        if let Some(will) = &self.will {
            if version.is_v5() {
                put_block(will, out);
            }
            out.put_str(will.topic);
            out.put_binary(will.payload);
        }
        if let Some(username) = self.username {
            out.put_str(username);
        }
        if let Some(password) = self.password {
            out.put_binary(password);
        }
    }
}

impl Properties for ConnectProperties<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        let optional = [
            self.session_expiry_interval_s.map(Property::SessionExpiryInterval),
            self.receive_maximum.map(Property::ReceiveMaximum),
            self.maximum_packet_size.map(Property::MaximumPacketSize),
            (self.topic_alias_maximum != 0)
                .then_some(Property::TopicAliasMaximum(self.topic_alias_maximum)),
            self.request_response_information.then_some(Property::RequestResponseInformation(true)),
            (!self.request_problem_information)
                .then_some(Property::RequestProblemInformation(false)),
            self.authentication_method.map(Property::AuthenticationMethod),
            self.authentication_data.map(Property::AuthenticationData),
        ];
        for property in optional.into_iter().flatten() {
            property.write(out);
        }
        self.user_properties.write(out);
    }
}

impl Properties for Will<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        if self.delay_interval_s != 0 {
            Property::WillDelayInterval(self.delay_interval_s).write(out);
        }
        if let Some(s) = self.message_expiry_interval_s {
            Property::MessageExpiryInterval(s).write(out);
        }
        self.forwarded.write(out);
    }
}
