//! Both sides of a WebSocket (RFC 6455) that carries MQTT in binary messages.
//!
//! MQTT is a stream of bytes, and "the receiver must not assume that MQTT packets are aligned on WebSocket frame
//! boundaries" (MQTT-6.0.0-2). So nothing is gathered into messages: the payload of a frame is handed on as it comes, and
//! what is kept of a frame between two receives is its header or, of a control frame, at most 125 bytes.
//!
//! Extensions (compression) are refused by not answering them (section 9.1).

mod answer;
mod client;
mod close;
mod error;
mod frame;
mod handshake;
mod mask;
mod settings;

#[cfg(test)]
mod autobahn;
#[cfg(test)]
mod tests;

pub(crate) use client::ClientWebSocket;
pub use close::CloseWhy;
pub use error::{Refusal, WebSocketError};
pub use settings::{ForwardedSettings, OriginSettings, WebSocketSettings};

use crate::peer::PeerInfo;
use frame::{FrameReader, Frames};
use handshake::{Head, HeadReader};

/// One WebSocket as its server has it.
#[derive(Debug)]
pub(crate) enum WebSocket {
    /// The request has not come, or not all of it.
    Handshake(HeadReader),
    /// Frames come and go.
    Open(FrameReader),
    /// We have sent Close, the peer has not yet: its frames are read and dropped.
    Closing(FrameReader),
    /// Nothing more will come or may be sent.
    Ended,
}

impl WebSocket {
    pub(crate) fn new() -> Self {
        Self::Handshake(HeadReader::default())
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    pub(crate) const fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    pub(crate) const fn in_handshake(&self) -> bool {
        matches!(self, Self::Handshake(_))
    }

    /// Takes what came: payload to `plain`, answers to `wire`. After an error all is said and the WebSocket has ended.
    pub(crate) fn received(
        &mut self,
        raw: &[u8],
        settings: &WebSocketSettings,
        peer: &mut Option<Box<PeerInfo>>,
        plain: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> Result<(), WebSocketError> {
        let result = self.advance(raw, settings, peer, plain, wire);
        if let Err(error) = &result {
            match self {
                Self::Handshake(_) => answer::refuse(error, settings, wire),
                Self::Open(_) => close::put_error(error, wire),
                // Close was sent, and is sent once only (5.5.1).
                Self::Closing(_) | Self::Ended => {}
            }
            *self = Self::Ended;
        }
        result
    }

    fn advance(
        &mut self,
        mut raw: &[u8],
        settings: &WebSocketSettings,
        peer: &mut Option<Box<PeerInfo>>,
        plain: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> Result<(), WebSocketError> {
        if let Self::Handshake(reader) = self {
            match reader.received(raw, settings)? {
                Head::Partial => return Ok(()),
                Head::Whole(taken, head) => {
                    let request = handshake::check(&head, settings)?;
                    answer::accept(&request, wire);
                    request.tell(peer);
                    raw = &raw[taken..];
                }
            }
            *self = Self::Open(FrameReader::default());
        }
        let (reader, frames) = match self {
            Self::Open(reader) => {
                let frames = reader.received(raw, settings, Some(plain), wire)?;
                (reader, frames)
            }
            Self::Closing(reader) => {
                let frames = reader.received(raw, settings, None, wire)?;
                (reader, frames)
            }
            Self::Handshake(_) | Self::Ended => return Ok(()),
        };
        if frames == Frames::Close {
            let code = reader.close_code()?;
            if self.is_open() {
                close::put(code, "", wire);
            }
            *self = Self::Ended;
        }
        Ok(())
    }

    /// The header of one binary message of this length (5.2), and how long the header is; the payload is to follow,
    /// unmasked (5.1).
    pub(crate) fn header(len: usize) -> ([u8; 10], usize) {
        frame::header(frame::BINARY, len)
    }

    /// Says goodbye, if anything was said before. The peer's answer ends the WebSocket.
    pub(crate) fn close(&mut self, why: CloseWhy, wire: &mut Vec<u8>) {
        match std::mem::replace(self, Self::Ended) {
            Self::Open(reader) => {
                close::put(Some(why.code()), why.reason(), wire);
                *self = Self::Closing(reader);
            }
            Self::Handshake(_) => answer::unavailable(wire),
            same => *self = same,
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Handshake(reader) => reader.heap_bytes(),
            Self::Open(reader) | Self::Closing(reader) => reader.heap_bytes(),
            Self::Ended => 0,
        }
    }
}
