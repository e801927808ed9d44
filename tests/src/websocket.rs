//! A blocking WebSocket client that says what the test wants, right or wrong.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::client::WAIT;
use crate::packet::{ConnAck, Connect, Packet, Publish, Version, decode, frame_len};

/// A frame that continues a message.
pub const CONTINUATION: u8 = 0;
/// A frame of text.
pub const TEXT: u8 = 1;
/// A frame of bytes.
pub const BINARY: u8 = 2;
/// The end.
pub const CLOSE: u8 = 8;
/// A question.
pub const PING: u8 = 9;
/// Its answer.
pub const PONG: u8 = 10;

/// What a WebSocket runs over.
pub trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// The end of an HTTP head.
const HEAD_END: &[u8] = b"\r\n\r\n";
/// What a client sends as Sec-WebSocket-Key (RFC 6455, 1.3) ...
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// ... and what it is answered.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A TCP stream with bounded waits.
///
/// # Panics
/// When nothing listens there.
#[must_use]
#[track_caller]
pub fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, WAIT).expect("the broker listens");
    stream.set_read_timeout(Some(WAIT)).expect("a read timeout");
    stream.set_write_timeout(Some(WAIT)).expect("a write timeout");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream
}

/// A request for a WebSocket with these further headers.
#[must_use]
pub fn request(path: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}

/// Reads until the end, or a reset.
///
/// # Panics
/// When neither comes in time.
#[track_caller]
pub fn read_end(stream: &mut dyn Stream) -> Vec<u8> {
    let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return all,
            Ok(count) => all.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no end within {WAIT:?} after {}", String::from_utf8_lossy(&all))
            }
            Err(_) => return all,
        }
    }
}

/// Sends a request and gives all that is answered until the end.
#[track_caller]
pub fn answer(address: SocketAddr, request: &str) -> String {
    let mut stream = tcp(address);
    stream.write_all(request.as_bytes()).expect("it is taken");
    String::from_utf8(read_end(&mut stream)).expect("text")
}

/// A frame as a client sends it: masked.
#[must_use]
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | u8::try_from(len).expect("small")),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(len).expect("16 bits").to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// One WebSocket.
pub struct WebSocket {
    stream: Box<dyn Stream>,
    /// Bytes after the last frame.
    raw: Vec<u8>,
    /// MQTT's bytes after the last packet.
    mqtt: Vec<u8>,
    version: Version,
    /// The head of the answer to its request.
    pub head: String,
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("head", &self.head).finish_non_exhaustive()
    }
}

impl WebSocket {
    /// Opens one at /mqtt.
    #[must_use]
    #[track_caller]
    pub fn open(stream: Box<dyn Stream>, version: Version) -> WebSocket {
        WebSocket::open_with(stream, version, &request("/mqtt", &["Sec-WebSocket-Protocol: mqtt"]))
    }

    /// Opens one by this request.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    #[track_caller]
    pub fn open_with(mut stream: Box<dyn Stream>, version: Version, request: &str) -> WebSocket {
        stream.write_all(request.as_bytes()).expect("it is taken");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(HEAD_END) {
            stream.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains(&format!("Sec-WebSocket-Accept: {ACCEPT}\r\n")), "{head}");
        WebSocket { stream, raw: Vec::new(), mqtt: Vec::new(), version, head }
    }

    /// Opens one and connects.
    #[must_use]
    #[track_caller]
    pub fn connect(stream: Box<dyn Stream>, connect: &Connect) -> WebSocket {
        let mut socket = WebSocket::open(stream, connect.version);
        socket.send(&connect.encode());
        assert_eq!(socket.expect_connack().code, 0);
        socket
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When the connection is broken.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection takes bytes");
        self.stream.flush().expect("the connection takes bytes");
    }

    /// Sends one whole message of bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.send_raw(&frame(0x80 | BINARY, bytes));
    }

    /// The next frame: what it is, and its payload. None at the end.
    ///
    /// # Panics
    /// When none comes in time, or one that is masked or a part.
    #[track_caller]
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(found) = self.take() {
                return Some(found);
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.raw.extend_from_slice(&chunk[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    panic!("no frame within {WAIT:?}")
                }
                Err(_) => return None,
            }
        }
    }

    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second, rest @ ..] = self.raw.as_slice() else { return None };
        assert!(first & 0x70 == 0, "a reserved bit is set");
        assert!(first & 0x80 != 0, "the broker sends whole messages");
        let (head, len) = match second {
            0..126 => (2, usize::from(*second)),
            126 => (4, usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?))),
            127 => {
                let len = u64::from_be_bytes(rest.get(..8)?.try_into().ok()?);
                (10, usize::try_from(len).expect("it fits"))
            }
            _ => panic!("a server must not mask"),
        };
        let opcode = first & 15;
        let payload = self.raw.get(head..head + len)?.to_vec();
        self.raw.drain(..head + len);
        Some((opcode, payload))
    }

    /// The next packet of MQTT.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn packet(&mut self) -> Packet {
        loop {
            if let Some((header, body)) = frame_len(&self.mqtt)
                && self.mqtt.len() >= header + body
            {
                let rest = self.mqtt.split_off(header + body);
                let bytes = std::mem::replace(&mut self.mqtt, rest);
                return decode(bytes[0], &bytes[header..], self.version);
            }
            let (opcode, payload) = self.frame().expect("a packet, not the end");
            assert_eq!(opcode, BINARY, "a packet was expected, not {payload:02x?}");
            self.mqtt.extend_from_slice(&payload);
        }
    }

    /// A CONNACK.
    #[track_caller]
    pub fn expect_connack(&mut self) -> ConnAck {
        match self.packet() {
            Packet::ConnAck(ack) => ack,
            other => panic!("CONNACK was expected, not {other:?}"),
        }
    }

    /// A PUBLISH.
    #[track_caller]
    pub fn expect_publish(&mut self) -> Publish {
        match self.packet() {
            Packet::Publish(publish) => publish,
            other => panic!("PUBLISH was expected, not {other:?}"),
        }
    }

    /// A Close, then the end. Gives the code.
    #[track_caller]
    pub fn expect_close(&mut self) -> Option<u16> {
        let (opcode, payload) = self.frame().expect("a Close, not the end");
        assert_eq!(opcode, CLOSE, "{payload:02x?}");
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        assert_eq!(self.frame(), None, "nothing comes after a Close");
        code
    }
}
