//! Strict decoding of what a server sends.

use super::{Ack, ConnAck, Disconnect, Packet, Property, Publish, SubAck, Version};

/// The length of the first packet in `bytes`, when its length field is whole.
///
/// # Panics
/// When the remaining length is not in its shortest form or longer than four bytes.
#[must_use]
pub fn frame_len(bytes: &[u8]) -> Option<(usize, usize)> {
    let (mut value, mut shift) = (0_usize, 0);
    for (index, byte) in bytes.iter().enumerate().skip(1) {
        assert!(index <= 4, "a remaining length of more than four bytes: {bytes:02x?}");
        value |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            assert!(
                index == 1 || *byte != 0,
                "a remaining length that is not minimal: {bytes:02x?}"
            );
            return Some((index + 1, value));
        }
    }
    None
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        assert!(self.bytes.len() >= len, "the packet ends inside a field");
        let (head, tail) = self.bytes.split_at(len);
        self.bytes = tail;
        head
    }
    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }
    fn u16(&mut self) -> u16 {
        let bytes = self.take(2);
        u16::from_be_bytes([bytes[0], bytes[1]])
    }
    fn u32(&mut self) -> u32 {
        let bytes = self.take(4);
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
    fn variable(&mut self) -> u32 {
        let (mut value, mut shift) = (0_u32, 0);
        loop {
            let byte = self.u8();
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                assert!(shift == 0 || byte != 0, "a variable byte integer that is not minimal");
                return value;
            }
            shift += 7;
            assert!(shift < 28, "a variable byte integer of more than four bytes");
        }
    }
    fn bytes(&mut self) -> Vec<u8> {
        let len = self.u16();
        self.take(usize::from(len)).to_vec()
    }
    fn text(&mut self) -> String {
        let text = String::from_utf8(self.bytes()).expect("a server sends well-formed UTF-8");
        assert!(!text.contains('\0'), "a server sends no U+0000");
        text
    }
    fn packet_id(&mut self) -> u16 {
        let packet_id = self.u16();
        assert_ne!(packet_id, 0, "packet identifier 0");
        packet_id
    }
    fn end(&self) {
        assert!(self.bytes.is_empty(), "bytes after the end: {:02x?}", self.bytes);
    }
}

/// The properties a server may put into each packet (by its type number).
fn allowed(packet_type: u8) -> &'static [u8] {
    match packet_type {
        2 => &[
            0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27,
            0x28, 0x29, 0x2A,
        ],
        3 => &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26],
        4..=7 | 9 | 11 => &[0x1F, 0x26],
        14 => &[0x1C, 0x1F, 0x26], // not 0x11: MQTT-3.14.2-2
        15 => &[0x15, 0x16, 0x1F, 0x26],
        _ => &[],
    }
}

/// The reason codes a server may put into each packet.
fn reasons(packet_type: u8) -> &'static [u8] {
    match packet_type {
        2 => &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90,
            0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ],
        4 | 5 => &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        6 | 7 => &[0x00, 0x92],
        9 => &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
        11 => &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91],
        14 => &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94,
            0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
        ],
        15 => &[0x00, 0x18],
        _ => &[],
    }
}

fn reason(packet_type: u8, reader: &mut Reader<'_>) -> u8 {
    let code = reader.u8();
    assert!(
        reasons(packet_type).contains(&code),
        "reason 0x{code:02x} does not belong to packet type {packet_type}"
    );
    code
}

fn properties(packet_type: u8, reader: &mut Reader<'_>) -> Vec<Property> {
    let len = reader.variable();
    let mut inner = Reader { bytes: reader.take(usize::try_from(len).expect("28 bits")) };
    let (mut found, mut seen) = (Vec::new(), Vec::new());
    while !inner.bytes.is_empty() {
        let identifier = u8::try_from(inner.variable()).expect("a known property");
        assert!(
            allowed(packet_type).contains(&identifier),
            "property 0x{identifier:02x} may not be in packet type {packet_type}"
        );
        let repeatable = identifier == 0x26 || (packet_type == 3 && identifier == 0x0B);
        assert!(repeatable || !seen.contains(&identifier), "property 0x{identifier:02x} twice");
        seen.push(identifier);
        found.push(property(identifier, &mut inner));
    }
    found
}

fn flag(reader: &mut Reader<'_>) -> u8 {
    let value = reader.u8();
    assert!(value <= 1, "a flag property with value {value}");
    value
}

fn not_zero(value: u16) -> u16 {
    assert_ne!(value, 0, "a property that may not be 0 is 0");
    value
}

fn property(identifier: u8, reader: &mut Reader<'_>) -> Property {
    match identifier {
        0x01 => Property::PayloadFormat(flag(reader)),
        0x02 => Property::MessageExpiry(reader.u32()),
        0x03 => Property::ContentType(reader.text()),
        0x08 => Property::ResponseTopic(reader.text()),
        0x09 => Property::CorrelationData(reader.bytes()),
        0x0B => {
            let value = reader.variable();
            assert_ne!(value, 0, "subscription identifier 0");
            Property::SubscriptionId(value)
        }
        0x11 => Property::SessionExpiry(reader.u32()),
        0x12 => Property::AssignedClientId(reader.text()),
        0x13 => Property::ServerKeepAlive(reader.u16()),
        0x15 => Property::AuthMethod(reader.text()),
        0x16 => Property::AuthData(reader.bytes()),
        0x1A => Property::ResponseInformation(reader.text()),
        0x1C => Property::ServerReference(reader.text()),
        0x1F => Property::ReasonString(reader.text()),
        0x21 => Property::ReceiveMaximum(not_zero(reader.u16())),
        0x22 => Property::TopicAliasMaximum(reader.u16()),
        0x23 => Property::TopicAlias(not_zero(reader.u16())),
        0x24 => Property::MaximumQos(flag(reader)),
        0x25 => Property::RetainAvailable(flag(reader)),
        0x26 => Property::User(reader.text(), reader.text()),
        0x27 => {
            let value = reader.u32();
            assert_ne!(value, 0, "maximum packet size 0");
            Property::MaximumPacketSize(value)
        }
        0x28 => Property::WildcardAvailable(flag(reader)),
        0x29 => Property::SubscriptionIdAvailable(flag(reader)),
        0x2A => Property::SharedAvailable(flag(reader)),
        other => panic!("property 0x{other:02x} is not known"),
    }
}

/// Decodes one whole packet a server sent.
///
/// # Panics
/// On anything a server may not send in this version.
#[must_use]
pub fn decode(first: u8, body: &[u8], version: Version) -> Packet {
    let mut reader = Reader { bytes: body };
    let (packet_type, flags) = (first >> 4, first & 0x0F);
    let expected = if packet_type == 6 { 2 } else { 0 };
    assert!(packet_type == 3 || flags == expected, "reserved flags in first byte 0x{first:02x}");
    let packet = match packet_type {
        2 => connack(&mut reader, version),
        3 => publish(first, &mut reader, version),
        4 => Packet::PubAck(ack(packet_type, &mut reader, version)),
        5 => Packet::PubRec(ack(packet_type, &mut reader, version)),
        6 => Packet::PubRel(ack(packet_type, &mut reader, version)),
        7 => Packet::PubComp(ack(packet_type, &mut reader, version)),
        9 | 11 => suback(packet_type, &mut reader, version),
        13 => Packet::PingResp,
        14 | 15 => {
            assert_eq!(version, Version::V5, "packet type {packet_type} to a 3.x client");
            let code = if reader.bytes.is_empty() { 0 } else { reason(packet_type, &mut reader) };
            let properties = if reader.bytes.is_empty() {
                Vec::new()
            } else {
                properties(packet_type, &mut reader)
            };
            let inner = Disconnect { reason: code, properties };
            if packet_type == 14 { Packet::Disconnect(inner) } else { Packet::Auth(inner) }
        }
        other => panic!("a server may not send packet type {other}"),
    };
    reader.end();
    packet
}

fn connack(reader: &mut Reader<'_>, version: Version) -> Packet {
    let flags = reader.u8();
    assert_eq!(flags & 0xFE, 0, "reserved CONNACK flags");
    if version == Version::V5 {
        let code = reason(2, reader);
        let properties = properties(2, reader);
        Packet::ConnAck(ConnAck { session_present: flags == 1, code, properties })
    } else {
        let code = reader.u8();
        assert!(code <= 5, "CONNACK return code {code} is reserved in MQTT 3.x");
        Packet::ConnAck(ConnAck { session_present: flags == 1, code, properties: Vec::new() })
    }
}

fn publish(first: u8, reader: &mut Reader<'_>, version: Version) -> Packet {
    let qos = first >> 1 & 3;
    let dup = first & 8 != 0;
    assert_ne!(qos, 3, "QoS 3");
    assert!(qos > 0 || !dup, "DUP on QoS 0");
    let topic = reader.text();
    assert!(!topic.contains(['#', '+']), "a wildcard in the topic name {topic}");
    let packet_id = if qos > 0 { reader.packet_id() } else { 0 };
    let properties = if version == Version::V5 { properties(3, reader) } else { Vec::new() };
    let aliased = properties.iter().any(|p| matches!(p, Property::TopicAlias(_)));
    assert!(!topic.is_empty() || aliased, "an empty topic name without an alias");
    let payload = reader.take(reader.bytes.len()).to_vec();
    Packet::Publish(Publish {
        dup,
        qos,
        retain: first & 1 != 0,
        topic,
        packet_id,
        properties,
        payload,
    })
}

fn ack(packet_type: u8, reader: &mut Reader<'_>, version: Version) -> Ack {
    let packet_id = reader.packet_id();
    let (mut code, mut found) = (0, Vec::new());
    if version == Version::V5 && !reader.bytes.is_empty() {
        code = reason(packet_type, reader);
        if !reader.bytes.is_empty() {
            found = properties(packet_type, reader);
        }
    }
    Ack { packet_id, reason: code, properties: found }
}

fn suback(packet_type: u8, reader: &mut Reader<'_>, version: Version) -> Packet {
    let packet_id = reader.packet_id();
    let found = if version == Version::V5 { properties(packet_type, reader) } else { Vec::new() };
    let mut codes = Vec::new();
    while !reader.bytes.is_empty() {
        codes.push(if version == Version::V5 { reason(packet_type, reader) } else { reader.u8() });
    }
    let inner = SubAck { packet_id, codes, properties: found };
    if packet_type == 9 {
        if version != Version::V5 {
            let ok = inner.codes.iter().all(|code| matches!(code, 0..=2 | 0x80));
            assert!(ok, "SUBACK codes {:02x?} are not of MQTT 3.x", inner.codes);
        }
        Packet::SubAck(inner)
    } else {
        let in_v3 = version == Version::V5 || inner.codes.is_empty();
        assert!(in_v3, "an UNSUBACK of MQTT 3.x with a payload");
        Packet::UnsubAck(inner)
    }
}
