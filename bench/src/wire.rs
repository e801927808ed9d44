//! The few packets a load generator needs, encoded and split by hand.
//!
//! Deliberately not the broker's own codec: a measuring tool that shared it would not see a mistake that both sides make,
//! and here a PUBLISH is a template of which only a few bytes change from message to message.

/// A version of the protocol a client can speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// MQTT 3.1.
    V3_1,
    /// MQTT 3.1.1.
    V3_1_1,
    /// MQTT 5.0.
    V5,
}

/// Bytes of the stamp that every published payload begins with.
pub const STAMP_LEN: usize = 16;

/// What every payload begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    /// Number of the publisher in the run.
    pub publisher: u32,
    /// Number of the message of this publisher, modulo 2^32.
    pub sequence: u32,
    /// When it was to be sent, in the generator's clock.
    pub intended_ns: u64,
}

impl Stamp {
    /// Writes the stamp over the first bytes of a payload.
    pub fn write(&self, payload: &mut [u8]) {
        payload[0..4].copy_from_slice(&self.publisher.to_le_bytes());
        payload[4..8].copy_from_slice(&self.sequence.to_le_bytes());
        payload[8..16].copy_from_slice(&self.intended_ns.to_le_bytes());
    }

    /// Reads the stamp; `None` if this payload is too short to be one of ours.
    pub fn read(payload: &[u8]) -> Option<Stamp> {
        let word = |at: usize| payload.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        Some(Stamp {
            publisher: word(0)?,
            sequence: word(4)?,
            intended_ns: payload.get(8..16)?.try_into().ok().map(u64::from_le_bytes)?,
        })
    }
}

/// One whole packet in a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// First byte: packet type in the high half, flags in the low one.
    pub first: u8,
    /// All that follows the fixed header.
    pub body: &'a [u8],
    /// Length of the whole packet.
    pub len: usize,
}

/// A malformed packet came from the broker.
#[derive(Debug)]
pub struct Malformed;

/// The packet at the begin of `bytes`; `None`: more bytes are needed.
pub fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, Malformed> {
    let mut body_len = 0usize;
    for index in 0..4 {
        let Some(&byte) = bytes.get(1 + index) else { return Ok(None) };
        body_len |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let head = 2 + index;
            let Some(body) = bytes.get(head..head + body_len) else { return Ok(None) };
            return Ok(Some(Frame { first: bytes[0], body, len: head + body_len }));
        }
    }
    Err(Malformed)
}

/// What a subscriber needs of a PUBLISH.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// 0, 1 or 2.
    pub qos: u8,
    /// 0 for QoS 0.
    pub packet_id: u16,
    /// The payload.
    pub payload: &'a [u8],
}

/// Reads the body of a PUBLISH.
pub fn publish<'a>(frame: &Frame<'a>, version: Version) -> Result<Incoming<'a>, Malformed> {
    let body = frame.body;
    let mut at = 2 + usize::from(word(body, 0)?);
    let qos = frame.first >> 1 & 3;
    let mut packet_id = 0;
    if qos > 0 {
        packet_id = word(body, at)?;
        at += 2;
    }
    if version == Version::V5 {
        let (len, used) = variable(body.get(at..).ok_or(Malformed)?)?;
        at += used + len;
    }
    Ok(Incoming { qos, packet_id, payload: body.get(at..).ok_or(Malformed)? })
}

/// The two bytes at `at`, as in a packet id or a length.
pub fn word(body: &[u8], at: usize) -> Result<u16, Malformed> {
    match body.get(at..at + 2) {
        Some(&[high, low]) => Ok(u16::from_be_bytes([high, low])),
        _ => Err(Malformed),
    }
}

fn variable(bytes: &[u8]) -> Result<(usize, usize), Malformed> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, index + 1));
        }
    }
    Err(Malformed)
}

fn put_packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    let mut rest = body.len();
    loop {
        let low = u8::try_from(rest & 0x7F).expect("7 bits");
        rest >>= 7;
        out.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
}

/// Appends a string with its length.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("names of this tool are short");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a CONNECT with a clean session and without a will.
pub fn connect(out: &mut Vec<u8>, version: Version, client_id: &str, keep_alive_s: u16) {
    Connect { is_clean: true, expiry_s: 0, keep_alive_s }.put(out, version, client_id);
}

/// A CONNECT without a will.
#[derive(Clone, Copy, Debug)]
pub struct Connect {
    /// Clean session, clean start.
    pub is_clean: bool,
    /// How long the session is kept, in seconds; only MQTT 5.0 can say it.
    pub expiry_s: u32,
    /// Keep alive.
    pub keep_alive_s: u16,
}

impl Connect {
    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>, version: Version, client_id: &str) {
        let mut body = Vec::with_capacity(32 + client_id.len());
        let (name, level) = match version {
            Version::V3_1 => ("MQIsdp", 3),
            Version::V3_1_1 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        };
        put_string(&mut body, name);
        body.extend_from_slice(&[level, if self.is_clean { 0x02 } else { 0 }]);
        body.extend_from_slice(&self.keep_alive_s.to_be_bytes());
        match (version, self.expiry_s) {
            (Version::V5, 0) => body.push(0),
            (Version::V5, expiry_s) => {
                body.extend_from_slice(&[5, 0x11]);
                body.extend_from_slice(&expiry_s.to_be_bytes());
            }
            _ => {}
        }
        put_string(&mut body, client_id);
        put_packet(out, 0x10, &body);
    }
}

/// Appends a SUBSCRIBE of one filter.
pub fn subscribe(out: &mut Vec<u8>, version: Version, packet_id: u16, filter: &str, qos: u8) {
    subscribe_all(out, version, packet_id, 1, qos, |_, body| put_string(body, filter));
}

/// Appends a SUBSCRIBE of `count` filters, each put by `put_filter`.
pub fn subscribe_all(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    count: u32,
    qos: u8,
    mut put_filter: impl FnMut(u32, &mut Vec<u8>),
) {
    let mut body = Vec::with_capacity(64);
    body.extend_from_slice(&packet_id.to_be_bytes());
    if version == Version::V5 {
        body.push(0);
    }
    for number in 0..count {
        put_filter(number, &mut body);
        body.push(qos);
    }
    put_packet(out, 0x82, &body);
}

/// Appends an acknowledgement in its shortest form: `first` is the whole first byte (0x40, 0x50, 0x62, 0x70).
pub fn acknowledge(out: &mut Vec<u8>, first: u8, packet_id: u16) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[first, 2, high, low]);
}

/// A PINGREQ.
pub const PING: [u8; 2] = [0xC0, 0];
/// A DISCONNECT without a reason, the same in every version.
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// A PUBLISH of which only the packet id and the stamp change.
pub struct Template {
    bytes: Vec<u8>,
    topic_at: usize,
    packet_id_at: Option<usize>,
    payload_at: usize,
}

impl Template {
    /// A PUBLISH to `topic` with a payload of `payload_len` bytes (at least [`STAMP_LEN`]).
    pub fn new(version: Version, topic: &str, qos: u8, payload_len: usize) -> Template {
        assert!(payload_len >= STAMP_LEN, "a payload holds a stamp");
        let mut body = Vec::with_capacity(8 + topic.len() + payload_len);
        put_string(&mut body, topic);
        let packet_id_in_body = body.len();
        if qos > 0 {
            body.extend_from_slice(&[0, 1]);
        }
        if version == Version::V5 {
            body.push(0);
        }
        let payload_in_body = body.len();
        body.extend((0..payload_len).map(|i| b'a' + u8::try_from(i % 26).expect("below 26")));
        let mut bytes = Vec::with_capacity(body.len() + 5);
        put_packet(&mut bytes, 0x30 | qos << 1, &body);
        let head = bytes.len() - body.len();
        Template {
            topic_at: head + 2,
            packet_id_at: (qos > 0).then_some(head + packet_id_in_body),
            payload_at: head + payload_in_body,
            bytes,
        }
    }

    /// Appends one message; `packet_id` is ignored for QoS 0.
    pub fn append(&self, out: &mut Vec<u8>, packet_id: u16, stamp: &Stamp) {
        let base = out.len();
        out.extend_from_slice(&self.bytes);
        let packet = &mut out[base..];
        if let Some(at) = self.packet_id_at {
            packet[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
        stamp.write(&mut packet[self.payload_at..]);
    }

    /// From now on the messages are retained.
    pub fn retain(&mut self) {
        self.bytes[0] |= 1;
    }

    /// From now on to another topic, which is as long.
    pub fn set_topic(&mut self, topic: &str) {
        self.bytes[self.topic_at..self.topic_at + topic.len()].copy_from_slice(topic.as_bytes());
    }

    /// Bytes of one message on the wire.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_survives_the_way_through_frame_and_publish() {
        for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
            for (qos, payload_len) in [(0, 16), (1, 64), (2, 300)] {
                let template = Template::new(version, "a/b", qos, payload_len);
                let stamp = Stamp { publisher: 7, sequence: 9, intended_ns: 1 << 40 };
                let mut out = Vec::new();
                template.append(&mut out, 0x1234, &stamp);
                assert_eq!(out.len(), template.len());
                let frame = frame(&out).expect("well formed").expect("whole");
                let incoming = publish(&frame, version).expect("well formed");
                assert_eq!(incoming.qos, qos);
                assert_eq!(incoming.packet_id, if qos == 0 { 0 } else { 0x1234 });
                assert_eq!(incoming.payload.len(), payload_len);
                assert_eq!(Stamp::read(incoming.payload), Some(stamp));
            }
        }
    }

    #[test]
    fn a_template_goes_to_another_topic_in_place() {
        let mut template = Template::new(Version::V5, "a/1", 1, 200);
        template.set_topic("a/2");
        let (mut changed, mut made) = (Vec::new(), Vec::new());
        let stamp = Stamp { publisher: 0, sequence: 0, intended_ns: 0 };
        template.append(&mut changed, 7, &stamp);
        Template::new(Version::V5, "a/2", 1, 200).append(&mut made, 7, &stamp);
        assert_eq!(changed, made);
    }

    #[test]
    fn frame_waits_for_the_whole_packet() {
        let mut out = Vec::new();
        Template::new(Version::V5, "t", 1, 200).append(
            &mut out,
            1,
            &Stamp { publisher: 0, sequence: 0, intended_ns: 0 },
        );
        for len in 0..out.len() {
            assert!(frame(&out[..len]).expect("well formed").is_none(), "{len} bytes");
        }
        assert!(frame(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1]).is_err());
    }

    #[test]
    fn connect_and_subscribe_are_byte_exact() {
        let mut out = Vec::new();
        connect(&mut out, Version::V3_1_1, "ab", 60);
        assert_eq!(out, b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02ab");
        out.clear();
        let kept = Connect { is_clean: false, expiry_s: 258, keep_alive_s: 60 };
        kept.put(&mut out, Version::V5, "ab");
        assert_eq!(out, b"\x10\x14\x00\x04MQTT\x05\x00\x00\x3c\x05\x11\x00\x00\x01\x02\x00\x02ab");
        out.clear();
        subscribe(&mut out, Version::V5, 1, "x/#", 2);
        assert_eq!(out, b"\x82\x09\x00\x01\x00\x00\x03x/#\x02");
    }
}
