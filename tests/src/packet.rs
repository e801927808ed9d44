//! A wire codec for tests, independent of the broker's own.
//!
//! Owned values and plain numbers, so that a test can write a packet that is wrong in one place. Decoding is strict: it panics on
//! anything a server may not send (reserved bits, length encodings, properties and reason codes that do not belong to the
//! packet), so every test that receives a packet also shows the `wire` statements of that packet.

mod decode;
mod property;

pub use decode::{decode, frame_len};
pub use property::{Property, find, properties_bytes};

/// A protocol version by its level on the wire.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1 (`MQIsdp`).
    V31 = 3,
    /// MQTT 3.1.1.
    V311 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

impl Version {
    /// All versions, oldest first.
    pub const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];
}

/// Appends a length-prefixed byte string.
///
/// # Panics
/// When the value has more than 65,535 bytes.
pub fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    let len = u16::try_from(value.len()).expect("a field of at most 65,535 bytes");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(value);
}

/// Appends a variable byte integer in its shortest form.
pub fn put_variable(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let digit = u8::try_from(value % 128).expect("below 128");
        value /= 128;
        if value == 0 {
            out.push(digit);
            return;
        }
        out.push(digit | 0x80);
    }
}

/// A whole packet: first byte, remaining length, body.
#[must_use]
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    put_variable(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

/// A packet whose body is a packet identifier only.
#[must_use]
pub fn ack(first: u8, packet_id: u16) -> Vec<u8> {
    frame(first, &packet_id.to_be_bytes())
}

/// A v5 acknowledgement with a reason code and properties.
#[must_use]
pub fn ack_v5(first: u8, packet_id: u16, reason: u8, properties: &[Property]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    body.push(reason);
    body.extend(properties_bytes(properties));
    frame(first, &body)
}

/// PINGREQ.
pub const PINGREQ: [u8; 2] = [0xC0, 0];
/// DISCONNECT of MQTT 3.x, and of MQTT 5 with reason 0x00.
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// A v5 DISCONNECT.
#[must_use]
pub fn disconnect_v5(reason: u8, properties: &[Property]) -> Vec<u8> {
    let mut body = vec![reason];
    body.extend(properties_bytes(properties));
    frame(0xE0, &body)
}

/// A v5 AUTH.
#[must_use]
pub fn auth(reason: u8, properties: &[Property]) -> Vec<u8> {
    let mut body = vec![reason];
    body.extend(properties_bytes(properties));
    frame(0xF0, &body)
}

/// A will message.
#[derive(Clone, Debug, Default)]
pub struct Will {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// QoS as two bits; 3 is possible here.
    pub qos: u8,
    /// Retain flag.
    pub retain: bool,
    /// Properties, v5 only.
    pub properties: Vec<Property>,
}

impl Will {
    /// A QoS 0 will without retain.
    #[must_use]
    pub fn new(topic: &str, payload: &str) -> Will {
        Will { topic: topic.into(), payload: payload.into(), ..Will::default() }
    }
    /// Sets the QoS.
    #[must_use]
    pub fn qos(mut self, qos: u8) -> Will {
        self.qos = qos;
        self
    }
    /// Sets the retain flag.
    #[must_use]
    pub fn retain(mut self) -> Will {
        self.retain = true;
        self
    }
    /// Adds a property.
    #[must_use]
    pub fn property(mut self, property: Property) -> Will {
        self.properties.push(property);
        self
    }
}

/// A CONNECT under construction.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Protocol version.
    pub version: Version,
    /// Clean session (3.x) or clean start (5).
    pub clean: bool,
    /// Keep alive in seconds.
    pub keep_alive_s: u16,
    /// Client identifier.
    pub client_id: String,
    /// Will message.
    pub will: Option<Will>,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Vec<u8>>,
    /// Properties, v5 only.
    pub properties: Vec<Property>,
}

impl Connect {
    /// A clean CONNECT with keep alive 60 s.
    #[must_use]
    pub fn new(version: Version, client_id: &str) -> Connect {
        Connect {
            version,
            clean: true,
            keep_alive_s: 60,
            client_id: client_id.into(),
            will: None,
            username: None,
            password: None,
            properties: Vec::new(),
        }
    }
    /// Asks for a session that stays: clean session 0, and for v5 a session expiry of five minutes.
    #[must_use]
    pub fn persistent(mut self) -> Connect {
        self.clean = false;
        if self.version == Version::V5 {
            self.properties.push(Property::SessionExpiry(300));
        }
        self
    }
    /// Sets the clean flag.
    #[must_use]
    pub fn clean(mut self, clean: bool) -> Connect {
        self.clean = clean;
        self
    }
    /// Sets the keep alive.
    #[must_use]
    pub fn keep_alive(mut self, seconds: u16) -> Connect {
        self.keep_alive_s = seconds;
        self
    }
    /// Sets the will.
    #[must_use]
    pub fn will(mut self, will: Will) -> Connect {
        self.will = Some(will);
        self
    }
    /// Sets the user name.
    #[must_use]
    pub fn username(mut self, name: &str) -> Connect {
        self.username = Some(name.into());
        self
    }
    /// Sets the password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Connect {
        self.password = Some(password.into());
        self
    }
    /// Adds a property.
    #[must_use]
    pub fn property(mut self, property: Property) -> Connect {
        self.properties.push(property);
        self
    }
    /// The connect flags byte.
    #[must_use]
    pub fn flags(&self) -> u8 {
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 0x04 | (will.qos & 3) << 3 | u8::from(will.retain) << 5;
        }
        flags | u8::from(self.password.is_some()) << 6 | u8::from(self.username.is_some()) << 7
    }
    /// The payload: client id, will, user name, password.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_bytes(&mut body, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            if self.version == Version::V5 {
                body.extend(properties_bytes(&will.properties));
            }
            put_bytes(&mut body, will.topic.as_bytes());
            put_bytes(&mut body, &will.payload);
        }
        if let Some(name) = &self.username {
            put_bytes(&mut body, name.as_bytes());
        }
        if let Some(password) = &self.password {
            put_bytes(&mut body, password);
        }
        body
    }
    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let name = if self.version == Version::V31 { "MQIsdp" } else { "MQTT" };
        self.encode_with(name, self.version as u8, self.flags(), &self.payload())
    }
    /// The packet with a protocol name, level, flags and payload of the caller's choice.
    #[must_use]
    pub fn encode_with(&self, name: &str, level: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        put_bytes(&mut body, name.as_bytes());
        body.push(level);
        body.push(flags);
        body.extend_from_slice(&self.keep_alive_s.to_be_bytes());
        if self.version == Version::V5 {
            body.extend(properties_bytes(&self.properties));
        }
        body.extend_from_slice(payload);
        frame(0x10, &body)
    }
}

/// A PUBLISH, to send or as received.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Publish {
    /// DUP flag.
    pub dup: bool,
    /// QoS as two bits.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// Topic name.
    pub topic: String,
    /// Packet identifier, written when QoS is not 0.
    pub packet_id: u16,
    /// Properties, v5 only.
    pub properties: Vec<Property>,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Publish {
    /// A QoS 0 message.
    #[must_use]
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Publish {
        Publish { topic: topic.into(), payload: payload.as_ref().to_vec(), ..Publish::default() }
    }
    /// Sets QoS and packet identifier.
    #[must_use]
    pub fn qos(mut self, qos: u8, packet_id: u16) -> Publish {
        self.qos = qos;
        self.packet_id = packet_id;
        self
    }
    /// Sets the RETAIN flag.
    #[must_use]
    pub fn retain(mut self) -> Publish {
        self.retain = true;
        self
    }
    /// Sets the DUP flag.
    #[must_use]
    pub fn dup(mut self) -> Publish {
        self.dup = true;
        self
    }
    /// Adds a property.
    #[must_use]
    pub fn property(mut self, property: Property) -> Publish {
        self.properties.push(property);
        self
    }
    /// The payload as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a text payload")
    }
    /// The first byte of the packet.
    #[must_use]
    pub fn first(&self) -> u8 {
        0x30 | u8::from(self.dup) << 3 | (self.qos & 3) << 1 | u8::from(self.retain)
    }
    /// The packet.
    #[must_use]
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut body = Vec::new();
        put_bytes(&mut body, self.topic.as_bytes());
        if self.qos > 0 {
            body.extend_from_slice(&self.packet_id.to_be_bytes());
        }
        if version == Version::V5 {
            body.extend(properties_bytes(&self.properties));
        }
        body.extend_from_slice(&self.payload);
        frame(self.first(), &body)
    }
    /// The subscription identifiers, sorted.
    #[must_use]
    pub fn subscription_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self
            .properties
            .iter()
            .filter_map(|property| match property {
                Property::SubscriptionId(id) => Some(*id),
                _ => None,
            })
            .collect();
        ids.sort_unstable();
        ids
    }
    /// The user properties in order.
    #[must_use]
    pub fn user_properties(&self) -> Vec<(&str, &str)> {
        self.properties
            .iter()
            .filter_map(|property| match property {
                Property::User(name, value) => Some((name.as_str(), value.as_str())),
                _ => None,
            })
            .collect()
    }
    /// The topic alias, if there is one.
    #[must_use]
    pub fn topic_alias(&self) -> Option<u16> {
        find(&self.properties, |property| match property {
            Property::TopicAlias(alias) => Some(*alias),
            _ => None,
        })
    }
}

/// A SUBSCRIBE or UNSUBSCRIBE under construction.
#[derive(Clone, Debug, Default)]
pub struct Subscribe {
    /// Packet identifier.
    pub packet_id: u16,
    /// Filters with their options byte.
    pub filters: Vec<(String, u8)>,
    /// Properties, v5 only.
    pub properties: Vec<Property>,
}

/// Option bit: no local.
pub const NO_LOCAL: u8 = 0x04;
/// Option bit: retain as published.
pub const RETAIN_AS_PUBLISHED: u8 = 0x08;
/// Option bits: send retained messages only when the subscription is new.
pub const RETAIN_IF_NEW: u8 = 0x10;
/// Option bits: send no retained messages.
pub const RETAIN_NEVER: u8 = 0x20;

impl Subscribe {
    /// One with no filter yet.
    #[must_use]
    pub fn new(packet_id: u16) -> Subscribe {
        Subscribe { packet_id, ..Subscribe::default() }
    }
    /// Adds a filter.
    #[must_use]
    pub fn filter(mut self, filter: &str, options: u8) -> Subscribe {
        self.filters.push((filter.into(), options));
        self
    }
    /// Adds a property.
    #[must_use]
    pub fn property(mut self, property: Property) -> Subscribe {
        self.properties.push(property);
        self
    }
    fn head(&self, version: Version) -> Vec<u8> {
        let mut body = self.packet_id.to_be_bytes().to_vec();
        if version == Version::V5 {
            body.extend(properties_bytes(&self.properties));
        }
        body
    }
    /// The SUBSCRIBE.
    #[must_use]
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut body = self.head(version);
        for (filter, options) in &self.filters {
            put_bytes(&mut body, filter.as_bytes());
            body.push(*options);
        }
        frame(0x82, &body)
    }
    /// The UNSUBSCRIBE of the same filters.
    #[must_use]
    pub fn encode_unsubscribe(&self, version: Version) -> Vec<u8> {
        let mut body = self.head(version);
        for (filter, _) in &self.filters {
            put_bytes(&mut body, filter.as_bytes());
        }
        frame(0xA2, &body)
    }
}

/// A CONNACK as received.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnAck {
    /// Session present.
    pub session_present: bool,
    /// Return code (3.x) or reason code (5).
    pub code: u8,
    /// Properties, v5 only.
    pub properties: Vec<Property>,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP as received.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ack {
    /// Packet identifier.
    pub packet_id: u16,
    /// Reason code, 0 for 3.x.
    pub reason: u8,
    /// Properties, v5 only.
    pub properties: Vec<Property>,
}

/// SUBACK or UNSUBACK as received.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubAck {
    /// Packet identifier.
    pub packet_id: u16,
    /// One code a filter; none for UNSUBACK of 3.x.
    pub codes: Vec<u8>,
    /// Properties, v5 only.
    pub properties: Vec<Property>,
}

/// DISCONNECT or AUTH as received.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Disconnect {
    /// Reason code.
    pub reason: u8,
    /// Properties.
    pub properties: Vec<Property>,
}

/// A packet a server may send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Packet {
    /// CONNACK.
    ConnAck(ConnAck),
    /// PUBLISH.
    Publish(Publish),
    /// PUBACK.
    PubAck(Ack),
    /// PUBREC.
    PubRec(Ack),
    /// PUBREL.
    PubRel(Ack),
    /// PUBCOMP.
    PubComp(Ack),
    /// SUBACK.
    SubAck(SubAck),
    /// UNSUBACK.
    UnsubAck(SubAck),
    /// PINGRESP.
    PingResp,
    /// DISCONNECT, v5 only.
    Disconnect(Disconnect),
    /// AUTH, v5 only.
    Auth(Disconnect),
}

/// A length-prefixed byte string.
#[must_use]
pub fn field(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, value);
    out
}

/// Byte strings that are not well-formed UTF-8: a cut sequence, a surrogate, an overlong form, a stray continuation, beyond U+10FFFF.
pub const ILL_FORMED: [&[u8]; 5] =
    [b"a\xC3(", b"a\xED\xA0\x80", b"a\xC0\xAF", b"a\x80", b"a\xF5\x80\x80\x80"];
