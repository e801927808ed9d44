//! The packets of MQTT clients, all versions, encoded and decoded by hand; what [`wire`](crate::wire) does not have.

use crate::wire::{self, Frame, Malformed};

/// MQTT 5.
pub const V5: u8 = 5;

/// A CONNECT without a will.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    /// 3, 4 or 5.
    pub version: u8,
    /// Clean session, clean start.
    pub clean: bool,
    /// Seconds.
    pub keep_alive_s: u16,
    /// Seconds; MQTT 5 only.
    pub session_expiry_s: u32,
    /// Client id.
    pub client_id: &'a [u8],
    /// User name.
    pub username: Option<&'a [u8]>,
    /// Password.
    pub password: Option<&'a [u8]>,
}

/// What a CONNACK says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConnAck {
    /// The broker has a session from before.
    pub session_present: bool,
    /// 0 is success.
    pub code: u8,
    /// Unacknowledged messages of QoS 1 and 2 the broker takes.
    pub receive_maximum: u16,
    /// Bytes of a packet the broker takes.
    pub packet_len_max: u32,
    /// The highest QoS it takes.
    pub qos_max: u8,
    /// Whether it takes retained messages.
    pub takes_retained: bool,
    /// The keep alive it wants instead of the client's.
    pub keep_alive_s: Option<u16>,
}

/// A PUBLISH to send.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// 3, 4 or 5.
    pub version: u8,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Retained.
    pub retain: bool,
    /// Left out for QoS 0.
    pub packet_id: u16,
    /// Topic.
    pub topic: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

/// A PUBLISH that came.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// 0, 1 or 2.
    pub qos: u8,
    /// 0 for QoS 0.
    pub packet_id: u16,
    /// Topic.
    pub topic: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    // Options longer than this are refused before a run begins.
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&bytes[..usize::from(len)]);
}

/// Appends a length as MQTT writes it.
fn put_length(out: &mut Vec<u8>, mut len: usize) {
    loop {
        let low = u8::try_from(len & 0x7F).expect("7 bits");
        len >>= 7;
        out.push(if len > 0 { low | 0x80 } else { low });
        if len == 0 {
            return;
        }
    }
}

fn length_len(len: usize) -> usize {
    match len {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Appends a CONNECT.
pub fn connect(out: &mut Vec<u8>, connect: &Connect<'_>) {
    let mut body = Vec::with_capacity(64 + connect.client_id.len());
    put_binary(&mut body, if connect.version == 3 { b"MQIsdp" } else { b"MQTT" });
    body.push(connect.version);
    body.push(
        u8::from(connect.clean) << 1
            | u8::from(connect.password.is_some()) << 6
            | u8::from(connect.username.is_some()) << 7,
    );
    body.extend_from_slice(&connect.keep_alive_s.to_be_bytes());
    if connect.version == V5 {
        body.extend_from_slice(&[5, 0x11]);
        body.extend_from_slice(&connect.session_expiry_s.to_be_bytes());
    }
    put_binary(&mut body, connect.client_id);
    for text in [connect.username, connect.password].into_iter().flatten() {
        put_binary(&mut body, text);
    }
    out.push(0x10);
    put_length(out, body.len());
    out.extend_from_slice(&body);
}

/// Appends a SUBSCRIBE of several filters with one QoS.
pub fn subscribe(out: &mut Vec<u8>, version: u8, packet_id: u16, filters: &[Vec<u8>], qos: u8) {
    let mut body = Vec::with_capacity(64);
    body.extend_from_slice(&packet_id.to_be_bytes());
    if version == V5 {
        body.push(0);
    }
    for filter in filters {
        put_binary(&mut body, filter);
        body.push(qos);
    }
    out.push(0x82);
    put_length(out, body.len());
    out.extend_from_slice(&body);
}

impl Publish<'_> {
    fn body_len(&self) -> usize {
        let id = if self.qos > 0 { 2 } else { 0 };
        2 + self.topic.len() + id + usize::from(self.version == V5) + self.payload.len()
    }

    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        let body = self.body_len();
        1 + length_len(body) + body
    }

    /// Appends the packet.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.len());
        out.push(0x30 | self.qos << 1 | u8::from(self.retain));
        put_length(out, self.body_len());
        put_binary(out, self.topic);
        if self.qos > 0 {
            out.extend_from_slice(&self.packet_id.to_be_bytes());
        }
        if self.version == V5 {
            out.push(0);
        }
        out.extend_from_slice(self.payload);
    }
}

/// Reads a CONNACK.
pub fn connack(frame: &Frame<'_>, version: u8) -> Result<ConnAck, Malformed> {
    let [flags, code, properties @ ..] = frame.body else { return Err(Malformed) };
    let mut ack = ConnAck {
        session_present: flags & 1 == 1,
        code: *code,
        receive_maximum: u16::MAX,
        packet_len_max: u32::MAX,
        qos_max: 2,
        takes_retained: true,
        keep_alive_s: None,
    };
    // A broker may answer a version it does not know in the form of an older one, without properties.
    if version == V5 && !properties.is_empty() {
        let (len, used) = length(properties)?;
        let mut rest = properties.get(used..used + len).ok_or(Malformed)?;
        while !rest.is_empty() {
            let (id, value, after) = property(rest)?;
            match (id, value) {
                (0x13, [high, low]) => ack.keep_alive_s = Some(u16::from_be_bytes([*high, *low])),
                (0x21, [high, low]) => ack.receive_maximum = u16::from_be_bytes([*high, *low]),
                (0x24, [qos]) => ack.qos_max = *qos,
                (0x25, [available]) => ack.takes_retained = *available == 1,
                (0x27, [a, b, c, d]) => ack.packet_len_max = u32::from_be_bytes([*a, *b, *c, *d]),
                _ => {}
            }
            rest = after;
        }
    }
    Ok(ack)
}

/// A length as MQTT writes it, and the bytes it took.
fn length(bytes: &[u8]) -> Result<(usize, usize), Malformed> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, index + 1));
        }
    }
    Err(Malformed)
}

/// The first property: its id, its value, and what follows.
fn property(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), Malformed> {
    let (id, rest) = bytes.split_first().ok_or(Malformed)?;
    let text_len = |at: usize| Ok(2 + usize::from(wire::word(rest, at)?));
    let len = match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
        0x13 | 0x21 | 0x22 | 0x23 => 2,
        0x02 | 0x11 | 0x18 | 0x27 => 4,
        0x0B => length(rest)?.1,
        0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => text_len(0)?,
        0x26 => {
            let name = text_len(0)?;
            name + text_len(name)?
        }
        _ => return Err(Malformed),
    };
    Ok((*id, rest.get(..len).ok_or(Malformed)?, &rest[len..]))
}

/// Reads a PUBLISH.
#[inline]
pub fn publish<'a>(frame: &Frame<'a>, version: u8) -> Result<Incoming<'a>, Malformed> {
    let body = frame.body;
    let mut at = 2 + usize::from(wire::word(body, 0)?);
    let topic = body.get(2..at).ok_or(Malformed)?;
    let qos = frame.first >> 1 & 3;
    let mut packet_id = 0;
    if qos > 0 {
        packet_id = wire::word(body, at)?;
        at += 2;
    }
    if version == V5 {
        let (len, used) = length(body.get(at..).ok_or(Malformed)?)?;
        at += used + len;
    }
    Ok(Incoming { qos, packet_id, topic, payload: body.get(at..).ok_or(Malformed)? })
}

/// Reads the packet id and the reason code of a PUBACK, PUBREC, PUBREL or PUBCOMP.
pub fn acknowledgement(frame: &Frame<'_>) -> Result<(u16, u8), Malformed> {
    Ok((wire::word(frame.body, 0)?, frame.body.get(2).copied().unwrap_or(0)))
}

/// The codes of a SUBACK.
pub fn suback<'a>(frame: &Frame<'a>, version: u8) -> Result<&'a [u8], Malformed> {
    let mut at = 2;
    if version == V5 {
        let (len, used) = length(frame.body.get(2..).ok_or(Malformed)?)?;
        at += used + len;
    }
    frame.body.get(at..).filter(|codes| !codes.is_empty()).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> Frame<'_> {
        let frame = wire::frame(bytes).expect("well formed").expect("whole");
        assert_eq!(frame.len, bytes.len());
        frame
    }

    #[test]
    fn connect_is_byte_exact() {
        let mut out = Vec::new();
        let mut packet = Connect {
            version: 5,
            clean: true,
            keep_alive_s: 300,
            session_expiry_s: 0,
            client_id: b"ab",
            username: Some(b"u"),
            password: Some(b"pw"),
        };
        connect(&mut out, &packet);
        assert_eq!(
            out,
            b"\x10\x1b\x00\x04MQTT\x05\xc2\x01\x2c\x05\x11\x00\x00\x00\x00\x00\x02ab\x00\x01u\x00\x02pw"
        );
        out.clear();
        packet = Connect { version: 3, clean: false, username: None, password: None, ..packet };
        connect(&mut out, &packet);
        assert_eq!(out, b"\x10\x10\x00\x06MQIsdp\x03\x00\x01\x2c\x00\x02ab");
    }

    #[test]
    fn publish_survives_the_way_there_and_back() {
        for version in [3, 4, 5] {
            for (qos, len) in [(0u8, 0usize), (1, 100), (2, 200), (1, 20_000), (0, 3_000_000)] {
                let payload = vec![7; len];
                let packet = Publish {
                    version,
                    qos,
                    retain: true,
                    packet_id: 513,
                    topic: b"a/b",
                    payload: &payload,
                };
                let mut out = Vec::new();
                packet.write(&mut out);
                assert_eq!(out.len(), packet.len());
                assert_eq!(out[0], 0x31 | qos << 1);
                let incoming = publish(&frame(&out), version).expect("well formed");
                assert_eq!(incoming.topic, b"a/b");
                assert_eq!(incoming.payload, payload);
                assert_eq!(
                    (incoming.qos, incoming.packet_id),
                    (qos, if qos > 0 { 513 } else { 0 })
                );
            }
        }
    }

    #[test]
    fn subscribe_has_all_filters() {
        let mut out = Vec::new();
        subscribe(&mut out, 5, 1, &[b"a".to_vec(), b"b/#".to_vec()], 1);
        assert_eq!(out, b"\x82\x0d\x00\x01\x00\x00\x01a\x01\x00\x03b/#\x01");
        assert_eq!(suback(&frame(b"\x90\x05\x00\x01\x00\x01\x80"), 5).expect("codes"), [1, 0x80]);
        assert_eq!(suback(&frame(b"\x90\x04\x00\x01\x01\x80"), 4).expect("codes"), [1, 0x80]);
        assert!(suback(&frame(b"\x90\x02\x00\x01"), 4).is_err());
    }

    #[test]
    fn connack_tells_the_brokers_limits() {
        let mut body = vec![1, 0, 0];
        body.extend_from_slice(b"\x21\x00\x0a\x27\x00\x00\x10\x00\x24\x01\x25\x00\x13\x00\x3c");
        body.extend_from_slice(b"\x12\x00\x03abc\x26\x00\x01k\x00\x01v\x22\x00\x05\x2a\x01");
        body[2] = u8::try_from(body.len() - 3).expect("short");
        let mut packet = vec![0x20, u8::try_from(body.len()).expect("short")];
        packet.extend_from_slice(&body);
        let ack = connack(&frame(&packet), 5).expect("well formed");
        let expected = ConnAck {
            session_present: true,
            code: 0,
            receive_maximum: 10,
            packet_len_max: 4096,
            qos_max: 1,
            takes_retained: false,
            keep_alive_s: Some(60),
        };
        assert_eq!(ack, expected);
        assert_eq!(connack(&frame(b"\x20\x02\x00\x05"), 4).expect("well formed").code, 5);
        assert!(connack(&frame(b"\x20\x04\x00\x00\x01\x00"), 5).is_err(), "no such property");
        assert!(connack(&frame(b"\x20\x01\x00"), 4).is_err());
    }

    #[test]
    fn acknowledgements_may_leave_out_the_code() {
        assert_eq!(acknowledgement(&frame(b"\x40\x02\x01\x02")).expect("well formed"), (258, 0));
        assert_eq!(
            acknowledgement(&frame(b"\x40\x03\x01\x02\x10")).expect("well formed"),
            (258, 16)
        );
        assert!(acknowledgement(&frame(b"\x40\x01\x01")).is_err());
    }
}
