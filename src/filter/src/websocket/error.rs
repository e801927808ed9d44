//! Why a WebSocket came to an end that was not agreed on.

/// What the peer did wrong; it was told so before this was returned.
#[derive(Debug, Clone, PartialEq, Eq, displaydoc::Display, thiserror::Error)]
pub enum WebSocketError {
    /// the connection does not begin with an HTTP request: is it plain MQTT or TLS on a WebSocket listener?
    NotHttp,
    /// the request for a WebSocket was refused: {0}
    Refused(Refusal),
    /// the WebSocket was closed: the peer sent {0}
    Protocol(&'static str),
    /// the WebSocket was closed: the peer sent a text frame, and MQTT needs binary ones (MQTT-6.0.0-1)
    TextFrame,
    /// the WebSocket was closed: the peer sent a reason for closing that is not UTF-8
    CloseReasonNotUtf8,
    /// the WebSocket was closed: the peer sent a frame or message of {len} bytes, at most {max} are allowed here
    TooBig {
        /// Its length in bytes, so far.
        len: u64,
        /// The limit it exceeds.
        max: u64,
    },
    /// the server has not opened a WebSocket, it answers: {0}
    Answer(String),
}

impl WebSocketError {
    /// A name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotHttp => "ws_not_http",
            Self::Refused(refusal) => refusal.reason(),
            Self::Protocol(_) => "ws_protocol_error",
            Self::TextFrame => "ws_text_frame",
            Self::CloseReasonNotUtf8 => "ws_not_utf8",
            Self::TooBig { .. } => "ws_too_big",
            Self::Answer(_) => "ws_answer",
        }
    }
}

/// Why a request did not become a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, displaydoc::Display)]
pub enum Refusal {
    /// it is no request for a WebSocket (no 'Upgrade: websocket')
    PlainHttp,
    /// its path is {0}
    Path(String),
    /// its method is not GET
    Method,
    /// it is not well-formed HTTP/1: {0}
    Malformed(&'static str),
    /// its headers are longer than {0} bytes
    HeadTooLong(usize),
    /// it has more than {0} headers
    TooManyHeaders(usize),
    /// its Sec-WebSocket-Version is not 13
    Version,
    /// its Origin is {0}
    Origin(String),
    /// it asks for no subprotocol of MQTT
    Subprotocol,
}

impl Refusal {
    /// A name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::PlainHttp => "ws_plain_http",
            Self::Path(_) => "ws_path",
            Self::Method => "ws_method",
            Self::Malformed(_) => "ws_bad_request",
            Self::HeadTooLong(_) | Self::TooManyHeaders(_) => "ws_head_too_long",
            Self::Version => "ws_version",
            Self::Origin(_) => "ws_origin",
            Self::Subprotocol => "ws_subprotocol",
        }
    }
}

impl From<Refusal> for WebSocketError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
