//! Frames (section 5): reading those of a client, and the headers of ours.

use super::error::WebSocketError::{self, Protocol, TextFrame, TooBig};
use super::settings::WebSocketSettings;
use super::{close, mask};

// Opcodes (5.2).
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xA;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0F;
const MASKED: u8 = 0x80;
const LEN: u8 = 0x7F;
/// Longest header: two bytes, eight of length, four of mask.
const HEADER_LEN_MAX: usize = 14;
/// Longest payload of a control frame (5.5).
const CONTROL_LEN_MAX: u64 = 125;

/// A header of ours, final and not masked: ten bytes and how many of them.
pub(super) fn header(opcode: u8, len: usize) -> ([u8; 10], usize) {
    let mut header = [FIN | opcode, 127, 0, 0, 0, 0, 0, 0, 0, 0];
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ 0..=125), _) => {
            header[1] = len;
            (header, 2)
        }
        (_, Ok(len)) => {
            header[1] = 126;
            header[2..4].copy_from_slice(&len.to_be_bytes());
            (header, 4)
        }
        _ => {
            header[2..].copy_from_slice(&(len as u64).to_be_bytes());
            (header, 10)
        }
    }
}

/// Puts a header of ours.
pub(super) fn put_header(opcode: u8, len: usize, wire: &mut Vec<u8>) {
    let (header, len) = header(opcode, len);
    wire.extend_from_slice(&header[..len]);
}

/// What came of the bytes given to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frames {
    /// All were taken.
    Open,
    /// A Close came; what is behind it does not matter.
    Close,
}

/// A header that is whole.
#[derive(Debug, Clone, Copy)]
struct Header {
    fin: bool,
    opcode: u8,
    len: u64,
    mask: [u8; 4],
}

impl Header {
    const fn is_control(self) -> bool {
        self.opcode >= CLOSE
    }
}

/// The frame whose payload comes now.
#[derive(Debug, Clone, Copy)]
struct Payload {
    opcode: u8,
    /// Turned so that it begins with the next byte's.
    mask: [u8; 4],
    /// Bytes still to come.
    left: u64,
}

/// Reads a client's frames.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    payload: Option<Payload>,
    /// Bytes of the message so far, while it goes on: its last frame had no FIN.
    message: Option<u64>,
    /// A header that is cut.
    header: [u8; HEADER_LEN_MAX],
    header_len: u8,
    /// The payload of a control frame, until it is whole.
    control: Vec<u8>,
}

impl FrameReader {
    /// Reads frames: data is appended to `plain`, a ping is answered to `wire`. Without `plain` both are dropped.
    pub(super) fn received(
        &mut self,
        mut raw: &[u8],
        settings: &WebSocketSettings,
        mut plain: Option<&mut Vec<u8>>,
        wire: &mut Vec<u8>,
    ) -> Result<Frames, WebSocketError> {
        loop {
            let Some(payload) = &mut self.payload else {
                if raw.is_empty() || !self.read_header(&mut raw, settings)? {
                    return Ok(Frames::Open);
                }
                continue;
            };
            let len = usize::try_from(payload.left).unwrap_or(usize::MAX).min(raw.len());
            let (now, rest) = raw.split_at(len);
            raw = rest;
            let to = if payload.opcode >= CLOSE {
                Some(&mut self.control)
            } else {
                plain.as_deref_mut()
            };
            if let Some(to) = to {
                payload.mask = mask::append_unmasked(now, payload.mask, to);
            }
            payload.left -= len as u64;
            if payload.left > 0 {
                return Ok(Frames::Open);
            }
            let opcode = payload.opcode;
            self.payload = None;
            match opcode {
                // What the peer wants to say last is taken by `close_code`.
                CLOSE => return Ok(Frames::Close),
                // 5.5.3: "must have identical application data".
                PING => {
                    let said = std::mem::take(&mut self.control);
                    if plain.is_some() {
                        put_header(PONG, said.len(), wire);
                        wire.extend_from_slice(&said);
                    }
                }
                // 5.5.3: "a response to an unsolicited Pong frame is not expected".
                PONG => self.control = Vec::new(),
                _ => {}
            }
        }
    }

    /// The code in the Close that has come.
    pub(super) fn close_code(&mut self) -> Result<Option<u16>, WebSocketError> {
        close::check_payload(&std::mem::take(&mut self.control))
    }

    /// Takes a header from the front of `raw`; false if it is cut.
    fn read_header(
        &mut self,
        raw: &mut &[u8],
        settings: &WebSocketSettings,
    ) -> Result<bool, WebSocketError> {
        let before = usize::from(self.header_len);
        let taken = raw.len().min(HEADER_LEN_MAX - before);
        self.header[before..before + taken].copy_from_slice(&raw[..taken]);
        let Some((header, len)) =
            parse_header(&self.header[..before + taken], self.message.is_some())?
        else {
            self.header_len += u8::try_from(taken).expect("a header is short");
            *raw = &raw[taken..];
            return Ok(false);
        };
        self.header_len = 0;
        // The part of the header that was there before is not the whole of it.
        *raw = &raw[len - before..];
        if header.len > settings.frame_len_max {
            return Err(TooBig { len: header.len, max: settings.frame_len_max });
        }
        if !header.is_control() {
            let len = self.message.unwrap_or(0).saturating_add(header.len);
            if len > settings.message_len_max {
                return Err(TooBig { len, max: settings.message_len_max });
            }
            self.message = (!header.fin).then_some(len);
        }
        self.payload = Some(Payload { opcode: header.opcode, mask: header.mask, left: header.len });
        Ok(true)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.control.capacity()
    }
}

/// Parses the header these bytes begin with, and its length; `None` if it is cut. What is wrong is said as soon as it can
/// be seen. `in_message`: the last data frame had no FIN.
fn parse_header(bytes: &[u8], in_message: bool) -> Result<Option<(Header, usize)>, WebSocketError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    // 5.2: nonzero only if an extension is negotiated that says so, and none is.
    if first & RESERVED != 0 {
        return Err(Protocol("a frame with reserved bits set"));
    }
    let (fin, opcode) = (first & FIN != 0, first & OPCODE);
    match opcode {
        // 5.4.
        CONTINUATION if !in_message => return Err(Protocol("a continuation of no message")),
        TEXT | BINARY if in_message => {
            return Err(Protocol("a new message before the last one's end"));
        }
        TEXT => return Err(TextFrame),
        CLOSE | PING | PONG if !fin => return Err(Protocol("a control frame in fragments")),
        CONTINUATION | BINARY | CLOSE | PING | PONG => {}
        _ => return Err(Protocol("a frame with a reserved opcode")),
    }
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    // 5.1: "a server must close the connection upon receiving a frame that is not masked".
    if second & MASKED == 0 {
        return Err(Protocol("a frame without a mask"));
    }
    let Some((len, at)) = parse_len(second & LEN, &bytes[2..])? else { return Ok(None) };
    if opcode >= CLOSE && len > CONTROL_LEN_MAX {
        return Err(Protocol("a control frame of more than 125 bytes"));
    }
    let Some(mask) = bytes.get(2 + at..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
    Ok(Some((Header { fin, opcode, len, mask: *mask }, 2 + at + 4)))
}

/// The length of the payload, and how many bytes of `more` say it.
pub(super) fn parse_len(short: u8, more: &[u8]) -> Result<Option<(u64, usize)>, WebSocketError> {
    let (len, at, least) = match short {
        126 => (more.first_chunk().map(|len| u64::from(u16::from_be_bytes(*len))), 2, 126),
        127 => (more.first_chunk().map(|len| u64::from_be_bytes(*len)), 8, 1 << 16),
        _ => return Ok(Some((u64::from(short), 0))),
    };
    match len {
        // 5.2: "the minimal number of bytes must be used", "the most significant bit must be 0".
        Some(len) if len < least => Err(Protocol("a length in more bytes than it needs")),
        Some(len) if len >> 63 == 1 => Err(Protocol("a length of more than 63 bits")),
        Some(len) => Ok(Some((len, at))),
        None => Ok(None),
    }
}
