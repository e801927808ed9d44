//! What the filters learnt about who is at the other end.

use std::net::SocketAddr;

/// What is known about the peer of one connection, as far as its layers have been opened.
///
/// All of it comes from the peer or from a proxy in front of it: the certificate is verified if the listener asks for
/// that, the rest is believed because the listener was told to believe it (`proxy`, `forwarded`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// Where the client really is: from the PROXY header or, over it, from `X-Forwarded-For`. The port is 0 if only
    /// the address is known. `None`: the socket's own peer is the client.
    pub address: Option<SocketAddr>,
    /// Where the client wanted to go: the destination in the PROXY header.
    pub destination: Option<SocketAddr>,
    /// What else the PROXY header said.
    pub proxy: Option<Box<ProxyInfo>>,
    /// What the TLS handshake said.
    pub tls: Option<Box<TlsInfo>>,
    /// What the WebSocket handshake said.
    pub websocket: Option<Box<WebSocketInfo>>,
}

/// A peer of whom nothing is known.
pub(crate) static UNKNOWN: PeerInfo =
    PeerInfo { address: None, destination: None, proxy: None, tls: None, websocket: None };

impl PeerInfo {
    /// The common name of the client's certificate, whether it was shown here or to the proxy in front.
    pub fn common_name(&self) -> Option<&str> {
        let own = self.tls.as_deref().and_then(|tls| tls.certificate.as_deref());
        match own {
            Some(certificate) => certificate.common_name.as_deref(),
            None => self.proxy.as_deref()?.tls.as_deref()?.common_name.as_deref(),
        }
    }

    /// The distinguished name of the client's certificate, as RFC 4514 writes it (`CN=a,O=b,C=c`). A proxy does not
    /// hand it on.
    pub fn distinguished_name(&self) -> Option<&str> {
        Some(&self.tls.as_deref()?.certificate.as_deref()?.distinguished_name)
    }

    /// The identity of the pre-shared key the client came with (SEED-LSN-17).
    pub fn psk_identity(&self) -> Option<&str> {
        self.tls.as_deref()?.psk_identity.as_deref()
    }

    /// Bytes this holds on the heap, beyond itself.
    pub fn heap_bytes(&self) -> usize {
        fn boxed<T>(of: &Option<Box<T>>, inside: impl Fn(&T) -> usize) -> usize {
            of.as_deref().map_or(0, |it| size_of::<T>() + inside(it))
        }
        boxed(&self.proxy, ProxyInfo::heap_bytes)
            + boxed(&self.tls, TlsInfo::heap_bytes)
            + boxed(&self.websocket, WebSocketInfo::heap_bytes)
    }
}

fn len(of: &Option<Box<str>>) -> usize {
    of.as_deref().map_or(0, str::len)
}

/// What a PROXY header of version 2 may carry beside addresses (its TLVs).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyInfo {
    /// The protocol the client agreed on with the proxy (`PP2_TYPE_ALPN`).
    pub alpn: Option<Box<str>>,
    /// The name the client asked the proxy for: its SNI, usually (`PP2_TYPE_AUTHORITY`).
    pub authority: Option<Box<str>>,
    /// The proxy's own name for the connection (`PP2_TYPE_UNIQUE_ID`), at most 128 bytes.
    pub unique_id: Option<Box<[u8]>>,
    /// The TLS connection that ended at the proxy (`PP2_TYPE_SSL`).
    pub tls: Option<Box<ProxyTls>>,
}

impl ProxyInfo {
    fn heap_bytes(&self) -> usize {
        let tls = self.tls.as_deref().map_or(0, |tls| {
            size_of::<ProxyTls>() + len(&tls.version) + len(&tls.cipher) + len(&tls.common_name)
        });
        let id = self.unique_id.as_deref().map_or(0, <[u8]>::len);
        len(&self.alpn) + len(&self.authority) + id + tls
    }
}

/// A TLS connection that ended at the proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyTls {
    /// As the proxy's TLS library calls it: `TLSv1.3`.
    pub version: Option<Box<str>>,
    /// As the proxy's TLS library calls it.
    pub cipher: Option<Box<str>>,
    /// Whether the proxy has verified a certificate of the client's.
    pub verified: bool,
    /// The common name in that certificate; only if it was verified.
    pub common_name: Option<Box<str>>,
}

/// What a TLS handshake said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite by its IANA name.
    pub cipher: &'static str,
    /// Whether the client came back with a ticket instead of making a full handshake.
    pub resumed: bool,
    /// The name the client asked for (SNI).
    pub server_name: Option<Box<str>>,
    /// The protocol agreed on (ALPN).
    pub alpn: Option<Box<str>>,
    /// The certificate the client has shown. Its bytes: `Filter::client_certificate`.
    pub certificate: Option<Box<ClientCertificate>>,
    /// The identity of the pre-shared key the client came with.
    pub psk_identity: Option<Box<str>>,
}

impl TlsInfo {
    fn heap_bytes(&self) -> usize {
        let certificate = self.certificate.as_deref().map_or(0, |certificate| {
            size_of::<ClientCertificate>()
                + len(&certificate.common_name)
                + certificate.distinguished_name.len()
        });
        len(&self.server_name) + len(&self.alpn) + len(&self.psk_identity) + certificate
    }
}

/// Who a client's certificate was issued to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The most specific common name (CN) of the subject, if it has one.
    pub common_name: Option<Box<str>>,
    /// The subject as RFC 4514 writes it: `CN=a,O=b,C=c`, the most specific part first.
    pub distinguished_name: Box<str>,
}

/// What a WebSocket handshake said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebSocketInfo {
    /// The target of the request with its query: `/mqtt?token=1`.
    pub target: Box<str>,
    /// The subprotocol agreed on; `None` if the client asked for none and the listener did not mind.
    pub subprotocol: Option<Subprotocol>,
    /// The page the client runs in: `https://example.com`.
    pub origin: Option<Box<str>>,
    /// The `Host` header: what the client calls this server.
    pub host: Option<Box<str>>,
    /// The `Cookie` headers, joined by `; `.
    pub cookies: Option<Box<str>>,
}

impl WebSocketInfo {
    /// The value of the first cookie of this name, without the quotes it may stand in.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.as_deref()?.split(';').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let value = value.trim();
            let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            (key.trim() == name).then_some(bare.unwrap_or(value))
        })
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    fn heap_bytes(&self) -> usize {
        self.target.len() + len(&self.origin) + len(&self.host) + len(&self.cookies)
    }
}

/// The WebSocket subprotocols of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subprotocol {
    /// `mqtt`, the registered name (MQTT-6.0.0-3).
    Mqtt,
    /// `mqttv3.1`, of MQTT 3.1.
    MqttV31,
    /// `mqttv3.1.1`, which some clients send for MQTT 3.1.1.
    MqttV311,
}

impl Subprotocol {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::MqttV31 => "mqttv3.1",
            Self::MqttV311 => "mqttv3.1.1",
        }
    }

    /// The one of this name. Names are compared exactly (RFC 6455, 4.1 (10)).
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Mqtt, Self::MqttV31, Self::MqttV311].into_iter().find(|it| it.name() == name)
    }
}
