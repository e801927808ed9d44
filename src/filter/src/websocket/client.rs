//! The client's side: a request, and frames with masks one way and without the other.

use super::error::WebSocketError::{self, Answer, Protocol};
use super::handshake::{Head, HeadReader, accept};
use super::settings::WebSocketSettings;
use super::{frame, mask};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Longest header of a server: it has no mask.
const HEADER_LEN_MAX: usize = 10;
const OPCODE: u8 = 0x0F;
const MASKED: u8 = 0x80;

/// Keys and masks. They are to be unpredictable to who chooses what is sent, which is a page in a browser (10.3), not us.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[derive(Debug)]
enum State {
    /// The answer has not come, or not all of it.
    Handshake(HeadReader),
    /// Frames come and go.
    Open,
    /// The server has said Close.
    Ended,
}

/// One WebSocket as its client has it.
#[derive(Debug)]
pub(crate) struct ClientWebSocket {
    state: State,
    random: Random,
    key: [u8; 16],
    /// A header that is cut.
    header: [u8; HEADER_LEN_MAX],
    header_len: u8,
    /// What the frame is whose payload comes now, and how much of it is still to come.
    payload: Option<(u8, u64)>,
    /// The payload of a ping.
    ping: Vec<u8>,
    /// We have sent Close: nothing may be sent behind it (5.5.1).
    is_closing: bool,
}

impl ClientWebSocket {
    /// Keys and masks are made of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let [high, low] = [random.next(), random.next()].map(u64::to_be_bytes);
        let mut key = [0; 16];
        key[..8].copy_from_slice(&high);
        key[8..].copy_from_slice(&low);
        Self {
            state: State::Handshake(HeadReader::default()),
            random,
            key,
            header: [0; HEADER_LEN_MAX],
            header_len: 0,
            payload: None,
            ping: Vec::new(),
            is_closing: false,
        }
    }

    /// The request (4.1).
    pub(crate) fn request(&self, host: &str, path: &str) -> Vec<u8> {
        let key = STANDARD.encode(self.key);
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: mqtt\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        )
        .into_bytes()
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    pub(crate) const fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Takes what came: payload to `plain`, answers to `wire`.
    pub(crate) fn received(
        &mut self,
        mut raw: &[u8],
        plain: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> Result<(), WebSocketError> {
        if let State::Handshake(reader) = &mut self.state {
            match reader.received(raw, &WebSocketSettings::default())? {
                Head::Partial => return Ok(()),
                Head::Whole(taken, head) => {
                    check(&head, &STANDARD.encode(self.key))?;
                    raw = &raw[taken..];
                }
            }
            self.state = State::Open;
        }
        while self.is_open() && !raw.is_empty() {
            let Some((opcode, left)) = self.payload else {
                self.read_header(&mut raw)?;
                if self.payload.is_some_and(|(_, len)| len == 0) {
                    self.frame_ended(wire);
                }
                continue;
            };
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(raw.len());
            let (now, rest) = raw.split_at(len);
            raw = rest;
            match opcode {
                frame::PING => self.ping.extend_from_slice(now),
                frame::CLOSE | frame::PONG => {}
                _ => plain.extend_from_slice(now),
            }
            self.payload = Some((opcode, left - len as u64));
            if left == len as u64 {
                self.frame_ended(wire);
            }
        }
        Ok(())
    }

    fn frame_ended(&mut self, wire: &mut Vec<u8>) {
        match self.payload.take() {
            Some((frame::PING, _)) => {
                let said = std::mem::take(&mut self.ping);
                if !self.is_closing {
                    self.put(frame::PONG, std::iter::once(said.as_slice()), wire);
                }
            }
            Some((frame::CLOSE, _)) => {
                if !self.is_closing {
                    self.put(frame::CLOSE, std::iter::empty(), wire);
                }
                self.state = State::Ended;
            }
            _ => {}
        }
    }

    /// Takes a header from the front of `raw`, as much of it as there is.
    fn read_header(&mut self, raw: &mut &[u8]) -> Result<(), WebSocketError> {
        while let Some((byte, rest)) = raw.split_first() {
            *raw = rest;
            let at = usize::from(self.header_len);
            self.header[at] = *byte;
            self.header_len += 1;
            if at == 0 {
                continue;
            }
            // 5.1: "a client must close a connection if it detects a masked frame".
            if self.header[1] & MASKED != 0 {
                return Err(Protocol("a frame with a mask"));
            }
            let Some((len, _)) = frame::parse_len(self.header[1], &self.header[2..=at])? else {
                continue;
            };
            self.payload = Some((self.header[0] & OPCODE, len));
            self.header_len = 0;
            return Ok(());
        }
        Ok(())
    }

    /// Puts these bytes as one binary message.
    pub(crate) fn send(&mut self, bytes: &[u8], wire: &mut Vec<u8>) {
        self.put(frame::BINARY, std::iter::once(bytes), wire);
    }

    /// Says goodbye.
    pub(crate) fn close(&mut self, wire: &mut Vec<u8>) {
        if self.is_open() && !self.is_closing {
            self.put(frame::CLOSE, std::iter::once(1000_u16.to_be_bytes().as_slice()), wire);
            self.is_closing = true;
        }
    }

    /// Puts one final frame (5.2), masked (5.3).
    fn put<'a>(
        &mut self,
        opcode: u8,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
        wire: &mut Vec<u8>,
    ) {
        let len = pieces.clone().map(<[u8]>::len).sum();
        let (mut header, header_len) = frame::header(opcode, len);
        header[1] |= MASKED;
        wire.extend_from_slice(&header[..header_len]);
        let [a, b, c, d, ..] = self.random.next().to_be_bytes();
        wire.extend_from_slice(&[a, b, c, d]);
        let start = wire.len();
        pieces.for_each(|piece| wire.extend_from_slice(piece));
        // What takes a mask off puts it on, too.
        mask::unmask(&mut wire[start..], [a, b, c, d]);
    }
}

/// Checks the answer (4.1).
fn check(head: &[u8], key: &str) -> Result<(), WebSocketError> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut headers);
    match answer.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(Answer("no well-formed HTTP".to_owned())),
    }
    let code = answer.code.unwrap_or(0);
    if code != 101 {
        return Err(Answer(format!("{code} {}", answer.reason.unwrap_or_default())));
    }
    let is = |name: &str, value: &str| {
        answer.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case(name)
                && header.value.eq_ignore_ascii_case(value.as_bytes())
        })
    };
    let accepted = accept(key).expect("a key of ours has 16 bytes");
    if !is("Upgrade", "websocket") || !is("Sec-WebSocket-Accept", &accepted) {
        return Err(Answer("101 that is no WebSocket".to_owned()));
    }
    if !is("Sec-WebSocket-Protocol", "mqtt") {
        return Err(Answer("101 without the subprotocol mqtt".to_owned()));
    }
    Ok(())
}
