//! Close frames (section 7).

use super::error::WebSocketError;
use super::frame;

/// Why we end a connection, as far as the peer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseWhy {
    /// All is done: DISCONNECT came, or a takeover.
    Normal,
    /// The broker or the listener stops.
    GoingAway,
    /// The peer's MQTT is wrong.
    ProtocolError,
    /// What the peer sent is not what it said it was.
    BadPayload,
    /// The peer may not be here: not authorised, banned, kicked.
    Policy,
    /// The peer sent more than it may.
    TooBig,
    /// Something of ours is broken.
    Internal,
    /// There are too many clients now.
    TryAgainLater,
}

impl CloseWhy {
    /// The code in a Close frame (7.4.1, and the IANA registry for 1013).
    pub const fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::ProtocolError => 1002,
            Self::BadPayload => 1007,
            Self::Policy => 1008,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::TryAgainLater => 1013,
        }
    }

    /// A few words for whoever looks at the peer's log.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Normal => "",
            Self::GoingAway => "the server stops",
            Self::ProtocolError => "protocol error",
            Self::BadPayload => "the payload is not as it was said to be",
            Self::Policy => "not allowed",
            Self::TooBig => "too big",
            Self::Internal => "internal error",
            Self::TryAgainLater => "too many clients, try again later",
        }
    }
}

/// Puts a Close frame. The reason is short.
pub(super) fn put(code: Option<u16>, reason: &str, wire: &mut Vec<u8>) {
    let Some(code) = code else { return frame::put_header(frame::CLOSE, 0, wire) };
    frame::put_header(frame::CLOSE, 2 + reason.len(), wire);
    wire.extend_from_slice(&code.to_be_bytes());
    wire.extend_from_slice(reason.as_bytes());
}

/// Tells the peer what was wrong with its frames.
pub(super) fn put_error(error: &WebSocketError, wire: &mut Vec<u8>) {
    let (code, reason) = match error {
        WebSocketError::TextFrame => (1003, "MQTT needs binary frames"),
        WebSocketError::CloseReasonNotUtf8 => (1007, "the reason is not UTF-8"),
        WebSocketError::TooBig { .. } => (1009, "the frame or message is too long"),
        WebSocketError::Protocol(what) => (1002, *what),
        WebSocketError::NotHttp | WebSocketError::Refused(_) | WebSocketError::Answer(_) => {
            (1002, "")
        }
    };
    put(Some(code), reason, wire);
}

/// The code a Close frame carries, if its payload is well-formed (5.5.1, 7.4).
pub(super) fn check_payload(payload: &[u8]) -> Result<Option<u16>, WebSocketError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        let empty = payload.is_empty();
        return if empty { Ok(None) } else { Err(WebSocketError::Protocol("a Close of one byte")) };
    };
    match u16::from_be_bytes(*code) {
        // 1004 is reserved; 1005, 1006 and 1015 never stand on the wire (7.4.1); 1012 to 1014 are in the IANA registry;
        // 3000 to 4999 are other people's (7.4.2).
        code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => {
            std::str::from_utf8(reason).map_err(|_| WebSocketError::CloseReasonNotUtf8)?;
            Ok(Some(code))
        }
        _ => Err(WebSocketError::Protocol("a Close with a code that must not be sent")),
    }
}
