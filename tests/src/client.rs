//! A blocking client over one TCP stream.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{process, thread};

use mqtt::{DecodeLimits, FrameHeader, ProtocolVersion};

use crate::packet::{
    self, Ack, ConnAck, DISCONNECT, Disconnect, PINGREQ, Packet, Property, Publish, SubAck,
    Subscribe, Version, decode, frame_len,
};

/// How long an expected packet may take.
pub const WAIT: Duration = Duration::from_secs(5);
/// How long nothing must come for "nothing comes".
pub const QUIET: Duration = Duration::from_millis(200);

static NEXT: AtomicU32 = AtomicU32::new(1);

fn number() -> u32 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A client id no other test uses.
#[must_use]
pub fn id() -> String {
    format!("t{}x{}", process::id(), number())
}

/// A topic prefix no other test uses, without wildcard or trailing slash.
#[must_use]
pub fn topic() -> String {
    format!("t/{}/{}", process::id(), number())
}

/// What a read came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A packet.
    Packet(Packet),
    /// The server ended the stream (end of file or reset).
    Closed,
    /// Nothing in the time given.
    Nothing,
}

/// One TCP connection to the broker.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    version: Version,
    buffer: Vec<u8>,
    /// Messages that came while an acknowledgement was awaited; read before the stream.
    stash: VecDeque<Publish>,
    next_packet_id: u16,
}

impl Client {
    /// Opens a connection and sends nothing.
    ///
    /// # Panics
    /// When nothing listens there.
    #[must_use]
    #[track_caller]
    pub fn open(address: SocketAddr, version: Version) -> Client {
        Client::try_open(address, version).expect("the broker listens")
    }

    /// As [`Client::open`], where the broker may be gone.
    ///
    /// # Errors
    /// Nothing listens there.
    ///
    /// # Panics
    /// When the stream takes no options.
    pub fn try_open(address: SocketAddr, version: Version) -> std::io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, WAIT)?;
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(WAIT)).expect("a write timeout");
        let (buffer, stash) = (Vec::new(), VecDeque::new());
        Ok(Client { stream, version, buffer, stash, next_packet_id: 0 })
    }

    /// The protocol version packets are read in.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The stream itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The next packet identifier of this client, from 1.
    pub fn packet_id(&mut self) -> u16 {
        self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
        self.next_packet_id
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When the connection is broken.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection takes bytes");
    }

    /// Sends bytes; a connection the server has closed is no error.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads one packet, or the end, or nothing within `limit`.
    ///
    /// # Panics
    /// When the server sends what it may not.
    #[track_caller]
    pub fn event(&mut self, limit: Duration) -> Event {
        match self.stash.pop_front() {
            Some(publish) => Event::Packet(Packet::Publish(publish)),
            None => self.read(limit),
        }
    }

    #[track_caller]
    fn read(&mut self, limit: Duration) -> Event {
        let end = Instant::now() + limit;
        loop {
            if let Some(packet) = self.take() {
                return Event::Packet(packet);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Event::Nothing;
            }
            self.stream.set_read_timeout(Some(left)).expect("a read timeout");
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Event::Closed,
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Event::Closed,
                },
            }
        }
    }

    #[track_caller]
    fn take(&mut self) -> Option<Packet> {
        let (header, body) = frame_len(&self.buffer)?;
        if self.buffer.len() < header + body {
            return None;
        }
        let rest = self.buffer.split_off(header + body);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        let packet = decode(bytes[0], &bytes[header..], self.version);
        agrees(&bytes, self.version);
        Some(packet)
    }

    /// The next packet.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn packet(&mut self) -> Packet {
        match self.event(WAIT) {
            Event::Packet(packet) => packet,
            Event::Closed => panic!("the server closed the connection; a packet was expected"),
            Event::Nothing => panic!("no packet within {WAIT:?}"),
        }
    }

    /// Nothing comes, and the connection stays open.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        let event = self.event(QUIET);
        assert_eq!(event, Event::Nothing, "nothing was expected");
    }

    /// The server closes without a further packet.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        self.expect_closed_within(WAIT);
    }

    /// The server closes without a further packet within `limit`.
    #[track_caller]
    pub fn expect_closed_within(&mut self, limit: Duration) {
        assert_eq!(self.event(limit), Event::Closed, "the end of the connection was expected");
    }

    /// The server closes; a DISCONNECT before it is allowed for v5 only and given back.
    #[track_caller]
    pub fn expect_end(&mut self) -> Option<u8> {
        match self.event(WAIT) {
            Event::Closed => None,
            Event::Packet(Packet::Disconnect(disconnect)) => {
                self.expect_closed();
                Some(disconnect.reason)
            }
            other => panic!("the end of the connection was expected, not {other:?}"),
        }
    }

    /// v5: a DISCONNECT with this reason, then the end.
    #[track_caller]
    pub fn expect_disconnect(&mut self, reason: u8) -> Disconnect {
        let packet = self.packet();
        let Packet::Disconnect(disconnect) = packet else {
            panic!("DISCONNECT 0x{reason:02x} was expected, not {packet:?}")
        };
        assert_eq!(
            disconnect.reason, reason,
            "DISCONNECT 0x{reason:02x} was expected, not {disconnect:02x?}"
        );
        self.expect_closed();
        disconnect
    }

    /// A protocol error was made: a v5 server says `reason` and closes, a 3.x server closes.
    #[track_caller]
    pub fn expect_error(&mut self, reason: u8) {
        if self.version == Version::V5 {
            self.expect_disconnect(reason);
        } else {
            self.expect_closed();
        }
    }

    /// The connection is open and answers.
    #[track_caller]
    pub fn expect_alive(&mut self) {
        self.send(&PINGREQ);
        assert_eq!(self.answer(), Packet::PingResp);
    }

    /// A CONNACK.
    #[track_caller]
    pub fn expect_connack(&mut self) -> ConnAck {
        match self.packet() {
            Packet::ConnAck(ack) => ack,
            other => panic!("CONNACK was expected, not {other:?}"),
        }
    }

    /// A PUBLISH, not acknowledged.
    #[track_caller]
    pub fn expect_publish(&mut self) -> Publish {
        match self.packet() {
            Packet::Publish(publish) => publish,
            other => panic!("PUBLISH was expected, not {other:?}"),
        }
    }

    /// A PUBACK; messages before it are kept for later.
    #[track_caller]
    pub fn expect_puback(&mut self, packet_id: u16) -> Ack {
        match self.answer() {
            Packet::PubAck(ack) if ack.packet_id == packet_id => ack,
            other => panic!("PUBACK {packet_id} was expected, not {other:?}"),
        }
    }

    /// A PUBREC; messages before it are kept for later.
    #[track_caller]
    pub fn expect_pubrec(&mut self, packet_id: u16) -> Ack {
        match self.answer() {
            Packet::PubRec(ack) if ack.packet_id == packet_id => ack,
            other => panic!("PUBREC {packet_id} was expected, not {other:?}"),
        }
    }

    /// A PUBREL; messages before it are kept for later.
    #[track_caller]
    pub fn expect_pubrel(&mut self, packet_id: u16) -> Ack {
        match self.answer() {
            Packet::PubRel(ack) if ack.packet_id == packet_id => ack,
            other => panic!("PUBREL {packet_id} was expected, not {other:?}"),
        }
    }

    /// A PUBCOMP; messages before it are kept for later.
    #[track_caller]
    pub fn expect_pubcomp(&mut self, packet_id: u16) -> Ack {
        match self.answer() {
            Packet::PubComp(ack) if ack.packet_id == packet_id => ack,
            other => panic!("PUBCOMP {packet_id} was expected, not {other:?}"),
        }
    }

    /// A SUBACK; messages before it are kept for later.
    #[track_caller]
    pub fn expect_suback(&mut self, packet_id: u16) -> SubAck {
        match self.answer() {
            Packet::SubAck(ack) if ack.packet_id == packet_id => ack,
            other => panic!("SUBACK {packet_id} was expected, not {other:?}"),
        }
    }

    /// An UNSUBACK; messages before it are kept for later.
    #[track_caller]
    pub fn expect_unsuback(&mut self, packet_id: u16) -> SubAck {
        match self.answer() {
            Packet::UnsubAck(ack) if ack.packet_id == packet_id => ack,
            other => panic!("UNSUBACK {packet_id} was expected, not {other:?}"),
        }
    }

    /// The next packet that is no PUBLISH. Messages that come before it are kept for later: a server may deliver at any time,
    /// even before the SUBACK of the subscription or the PUBACK of the client's own message.
    #[track_caller]
    pub fn answer(&mut self) -> Packet {
        loop {
            match self.read(WAIT) {
                Event::Packet(Packet::Publish(publish)) => self.stash.push_back(publish),
                Event::Packet(packet) => return packet,
                Event::Closed => panic!("the server closed the connection; an answer was expected"),
                Event::Nothing => panic!("no answer within {WAIT:?}"),
            }
        }
    }

    /// The rest of the QoS handshake for a PUBLISH that was received.
    #[track_caller]
    pub fn acknowledge(&mut self, publish: &Publish) {
        match publish.qos {
            0 => {}
            1 => self.send(&packet::ack(0x40, publish.packet_id)),
            _ => {
                self.send(&packet::ack(0x50, publish.packet_id));
                self.expect_pubrel(publish.packet_id);
                self.send(&packet::ack(0x70, publish.packet_id));
            }
        }
    }

    /// A PUBLISH, acknowledged.
    #[track_caller]
    pub fn message(&mut self) -> Publish {
        let publish = self.expect_publish();
        self.acknowledge(&publish);
        publish
    }

    /// A PUBLISH on this topic with this payload, acknowledged.
    #[track_caller]
    pub fn expect_message(&mut self, topic: &str, payload: &str) -> Publish {
        let publish = self.message();
        assert_eq!((publish.topic.as_str(), publish.text()), (topic, payload));
        publish
    }

    /// The payloads of the next `count` messages, acknowledged.
    #[track_caller]
    pub fn payloads(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.message().text().to_owned()).collect()
    }

    /// Sends a PUBLISH as it is.
    #[track_caller]
    pub fn send_publish(&mut self, publish: &Publish) {
        let bytes = publish.encode(self.version);
        self.send(&bytes);
    }

    /// Publishes and goes through the whole handshake, which must succeed.
    #[track_caller]
    pub fn publish(&mut self, topic: &str, payload: &str, qos: u8) {
        self.publish_whole(Publish::new(topic, payload), qos);
    }

    /// As [`Client::publish`] with RETAIN.
    #[track_caller]
    pub fn publish_retained(&mut self, topic: &str, payload: &str, qos: u8) {
        self.publish_whole(Publish::new(topic, payload).retain(), qos);
    }

    /// Publishes a prepared message at this QoS and goes through the whole handshake.
    #[track_caller]
    pub fn publish_whole(&mut self, publish: Publish, qos: u8) {
        let packet_id = if qos > 0 { self.packet_id() } else { 0 };
        self.send_publish(&publish.qos(qos, packet_id));
        match qos {
            0 => {}
            1 => assert!(self.expect_puback(packet_id).reason < 0x80, "PUBACK with an error"),
            _ => {
                assert!(self.expect_pubrec(packet_id).reason < 0x80, "PUBREC with an error");
                self.send(&packet::ack(0x62, packet_id));
                self.expect_pubcomp(packet_id);
            }
        }
    }

    /// Sends a SUBSCRIBE and gives the codes of its SUBACK, which must be the next packet.
    #[track_caller]
    pub fn subscribe_with(&mut self, filters: &[(&str, u8)], properties: &[Property]) -> Vec<u8> {
        let mut subscribe = Subscribe::new(self.packet_id());
        for (filter, options) in filters {
            subscribe = subscribe.filter(filter, *options);
        }
        subscribe.properties = properties.to_vec();
        self.send(&subscribe.encode(self.version));
        self.expect_suback(subscribe.packet_id).codes
    }

    /// Subscribes to one filter, which must be granted as asked.
    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, options: u8) {
        let codes = self.subscribe_with(&[(filter, options)], &[]);
        assert_eq!(codes, [options & 3], "SUBACK for {filter}");
    }

    /// Unsubscribes and gives the codes of the UNSUBACK.
    #[track_caller]
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let mut subscribe = Subscribe::new(self.packet_id());
        for filter in filters {
            subscribe = subscribe.filter(filter, 0);
        }
        self.send(&subscribe.encode_unsubscribe(self.version));
        self.expect_unsuback(subscribe.packet_id).codes
    }

    /// DISCONNECT, and waits for the server to close.
    #[track_caller]
    pub fn disconnect(mut self) {
        self.send(&DISCONNECT);
        self.expect_closed();
    }

    /// Closes the TCP connection without DISCONNECT.
    pub fn cut(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Cuts and waits until the broker must have noticed.
    pub fn cut_and_wait(self) {
        self.cut();
        thread::sleep(Duration::from_millis(50));
    }
}

/// What the broker sent is also read by the `mqtt` crate.
///
/// # Panics
/// When the two codecs do not agree.
#[track_caller]
fn agrees(bytes: &[u8], version: Version) {
    let version = match version {
        Version::V31 => ProtocolVersion::V3_1,
        Version::V311 => ProtocolVersion::V3_1_1,
        Version::V5 => ProtocolVersion::V5,
    };
    let header = FrameHeader::peek(bytes).expect("the mqtt crate reads the header");
    let header = header.expect("the packet is whole");
    assert_eq!(header.total_len(), bytes.len());
    let body = &bytes[header.header_len..];
    let packet = mqtt::Packet::decode(&header, body, version, &DecodeLimits::UNLIMITED);
    packet.unwrap_or_else(|error| panic!("the mqtt crate does not read {bytes:02x?}: {error}"));
}
