//! What a listener asks of its WebSockets.

/// What a listener asks of its WebSockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketSettings {
    /// The path MQTT is spoken at. Compared byte by byte, the query left out.
    pub path: String,
    /// Whether a client must ask for a subprotocol of MQTT (`mqtt.websocket_protocol_header`; MQTT-6.0.0-3). Some, such as
    /// WeChat's mini programs, cannot.
    pub subprotocol_required: bool,
    /// Which pages may connect; `None`: all.
    pub origins: Option<OriginSettings>,
    /// Which headers a proxy in front tells the client's address in; `None`: they are not believed.
    pub forwarded: Option<ForwardedSettings>,
    /// Longest request in bytes: its line and all headers.
    pub head_len_max: usize,
    /// Most headers in a request.
    pub headers_max: usize,
    /// Longest payload of a frame in bytes.
    pub frame_len_max: u64,
    /// Longest payload of a message in bytes, over all its frames.
    pub message_len_max: u64,
}

impl Default for WebSocketSettings {
    fn default() -> Self {
        Self {
            path: "/mqtt".to_owned(),
            subprotocol_required: true,
            origins: None,
            forwarded: None,
            head_len_max: 8 * 1024,
            headers_max: 64,
            // As nothing is gathered, these cost no memory: room for the greatest packet of MQTT.
            frame_len_max: 1 << 28,
            message_len_max: 1 << 28,
        }
    }
}

/// Which pages may connect (RFC 6455, 10.2). This protects users of browsers; any other client says what it likes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginSettings {
    /// Origins as browsers send them (`https://example.com`); upper and lower case are the same.
    pub allowed: Vec<String>,
    /// Whether clients without the header may connect: all that are not browsers.
    pub absent_allowed: bool,
}

/// How a proxy in front tells the client's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedSettings {
    /// The header with the client's address.
    pub address_header: String,
    /// The header with the client's port.
    pub port_header: String,
    /// How many proxies in front of each other write [`Self::address_header`]. Each appends the address it was connected
    /// from, so this is the place of the client's, counted from the right; what is left of it anyone can write.
    pub hops: usize,
}

impl Default for ForwardedSettings {
    fn default() -> Self {
        Self {
            address_header: "X-Forwarded-For".to_owned(),
            port_header: "X-Forwarded-Port".to_owned(),
            hops: 1,
        }
    }
}
