//! Listeners: `listener.<kind>.<name> = [ip:]port` and the keys below it (SEED-LSN-01 to 05, 07 to 18, 22).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::access::AccessRules;
use crate::kind::{Kind, Setting, TimeUnit};
use crate::rate::Rate;
use crate::sni::SniCertificates;
use crate::table::{Key, Part, section};
use crate::types::{PeerCertAs, VerifyPeer};

/// The address forms that are accepted, for error messages and the reference.
pub(crate) const ADDRESS_ALLOWED: &str = "off, a port, or address:port";
/// Example for [`ADDRESS_ALLOWED`].
pub(crate) const ADDRESS_EXAMPLE: &str = "1883, 127.0.0.1:1883 or [::1]:1883";
/// Documentation of the address key.
pub(crate) const ADDRESS_DOC: &str = "Address of a listener: listener.tcp.<name>, listener.ssl.<name> for TLS, listener.ws.<name> for \
    WebSocket, listener.wss.<name> for WebSocket over TLS; as many of each as wanted. A port alone listens on all IPv4 addresses; \
    [::]:1883 or :::1883 on all IPv6 addresses. Without any the broker has tcp external on 0.0.0.0:1883 and tcp internal on \
    127.0.0.1:11883. A file that gives an address to any listener states them all, as in EMQ; the environment and \
    --set change, add or remove one by its name and leave the others. off removes one. Port 0 lets the kernel pick.";

/// What a listener speaks below MQTT.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ListenerKind {
    /// TCP.
    Tcp,
    /// TLS.
    Ssl,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl ListenerKind {
    /// All kinds.
    pub const ALL: [ListenerKind; 4] =
        [ListenerKind::Tcp, ListenerKind::Ssl, ListenerKind::Ws, ListenerKind::Wss];

    /// The word in the keys: `tcp` of `listener.tcp.external`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            ListenerKind::Tcp => "tcp",
            ListenerKind::Ssl => "ssl",
            ListenerKind::Ws => "ws",
            ListenerKind::Wss => "wss",
        }
    }

    /// As listings name it: `mqtt:tcp`.
    #[must_use]
    pub const fn protocol(self) -> &'static str {
        match self {
            ListenerKind::Tcp => "mqtt:tcp",
            ListenerKind::Ssl => "mqtt:ssl",
            ListenerKind::Ws => "mqtt:ws",
            ListenerKind::Wss => "mqtt:wss",
        }
    }

    /// The kind a word names, with or without `mqtt:` before it.
    #[must_use]
    pub fn from_word(word: &str) -> Option<ListenerKind> {
        let word = word.strip_prefix("mqtt:").unwrap_or(word);
        ListenerKind::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Whether it speaks TLS.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, ListenerKind::Ssl | ListenerKind::Wss)
    }

    /// Whether it speaks WebSocket.
    #[must_use]
    pub const fn is_websocket(self) -> bool {
        matches!(self, ListenerKind::Ws | ListenerKind::Wss)
    }
}

impl fmt::Display for ListenerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The listeners of a broker without settings (SEED-LSN-01, SEED-LSN-02).
pub(crate) const DEFAULT_LISTENERS: [(&str, &str); 2] =
    [("external", "0.0.0.0:1883"), ("internal", "127.0.0.1:11883")];

/// One listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenerSettings {
    /// What it speaks.
    pub kind: ListenerKind,
    /// Name, as in `listener.tcp.<name>`; listeners of different kinds may have the same.
    pub name: String,
    /// Address it listens on; port 0 lets the kernel pick one.
    pub address: SocketAddr,
    /// Limits and socket options.
    pub options: ListenerOptions,
}

impl ListenerSettings {
    /// The key of its address: `listener.tcp.external`.
    #[must_use]
    pub fn key(&self) -> String {
        key(self.kind, &self.name)
    }
}

/// The key of a listener's address.
pub(crate) fn key(kind: ListenerKind, name: &str) -> String {
    format!("listener.{kind}.{name}")
}

section! {
    /// Limits and socket options of a listener.
    ListenerOptions, LISTENER: ListenerOptions => {
        /// `access.N`: who may connect.
        access: AccessRules,
        /// `sni.N`: certificates for clients that ask for certain names.
        sni: SniCertificates,
        /// What only listeners with a handshake before MQTT have.
        handshake: ListenerHandshakeOptions,
        /// What only listeners with TLS have.
        tls: ListenerTlsOptions,
        /// What only listeners with WebSocket have.
        websocket: ListenerWebSocketOptions
    };

    /// Most clients connected through this listener, over all shards. One more is closed at once and counted.
    "max_clients" was ["max_connections"] => max_clients: u32, Kind::Integer { min: 1, max: 100_000_000 }, "1000000";

    /// Connections the kernel holds until they are accepted, per shard. The kernel's net.core.somaxconn caps it.
    "backlog" => backlog: u32, Kind::Integer { min: 1, max: 65_535 }, "1024";

    /// SO_RCVBUF of each connection. 0 leaves it to the kernel, which adapts it: with very many idle connections a small
    /// value saves memory when they all talk at once.
    "recbuf" => recv_buffer_bytes: u32, Kind::Bytes { min: 0, max: 1 << 30 }, "0";

    /// SO_SNDBUF of each connection. 0 leaves it to the kernel.
    "sndbuf" => send_buffer_bytes: u32, Kind::Bytes { min: 0, max: 1 << 30 }, "0";

    /// TCP_NODELAY. The broker gathers small packets itself, so waiting in the kernel would only add delay.
    "nodelay" => nodelay: bool, Kind::Bool, "on";

    /// SO_REUSEADDR: listen again at once after a restart.
    "reuseaddr" => reuse_address: bool, Kind::Bool, "on";

    /// A client that takes nothing of what is being sent to it for this time is closed. 0 means never.
    "send_timeout" => send_timeout_ms: u64,
        Kind::Duration { unit: TimeUnit::Ms, min: 0, max: 86_400_000, infinity: false }, "15s";

    /// Whether send_timeout closes the connection. When off a client that does not read is kept as long as its keepalive lasts.
    "send_timeout_close" => send_timeout_close: bool, Kind::Bool, "on";

    /// Connections it takes in a time, over all shards, and how many at once after a quiet time: 1000/s,2000. One more is closed
    /// at once and counted.
    "max_conn_rate" => max_conn_rate: Option<Rate>, Kind::CountRate { what: "connections" }, "none";

    /// Bytes each client may send in a time, and how many at once after a quiet time: 10KB/s,100KB, or 100,10 as in EMQ 2.x (burst and
    /// rate in KB a second). A client that is over it is not read until it may send again; nothing is dropped.
    "rate_limit" was ["bytes_rate"] => rate_limit: Option<Rate>, Kind::ByteRate, "none";

    /// Messages each client may publish in a time, and how many at once after a quiet time: 100/s,500. As with rate_limit a client
    /// that is over it waits. none takes mqtt.client.max_publish_rate.
    "max_publish_rate" was ["messages_rate"]
        => max_publish_rate: Option<Rate>, Kind::CountRate { what: "messages" }, "none";

    /// Prefix of all topics of its clients: they publish and subscribe behind it and do not see it. %c is the client id, %u the user
    /// name; a client whose name is empty or holds /, + or # is refused then. ACL rules see topics without it.
    "mountpoint" => mountpoint: Option<String>, Kind::Mountpoint, "none";

    /// The set of mqtt.* settings its clients have: those of zone.<name>.* before the ones of the broker.
    "zone" => zone: Option<String>, Kind::OptionalName, "none";

    /// Whether a proxy in front tells the client's address by the PROXY protocol, version 1 or 2. Then every connection must.
    "proxy_protocol" => proxy_protocol: bool, Kind::Bool, "off";

    /// A connection that has sent no whole PROXY header after this time is closed.
    "proxy_protocol_timeout" => proxy_protocol_timeout_ms: u64,
        Kind::Duration { unit: TimeUnit::Ms, min: 100, max: 3_600_000, infinity: false }, "3s";

    /// What of the client's certificate, shown to TLS or to the proxy in front, becomes its user name in place of that of CONNECT:
    /// its common name, its distinguished name, or the whole of it (DER in base64).
    "peer_cert_as_username" => peer_cert_as_username: PeerCertAs, Kind::Enum(PeerCertAs::WORDS), "none";

    /// The same for its client id.
    "peer_cert_as_clientid" => peer_cert_as_clientid: PeerCertAs, Kind::Enum(PeerCertAs::WORDS), "none";
}

section! {
    /// What only listeners with TLS or WebSocket have.
    ListenerHandshakeOptions, HANDSHAKE: ListenerOptions, handshake;

    /// A connection that has not done the handshake of TLS after this time is closed; that of WebSocket has the same time again.
    "handshake_timeout" => handshake_timeout_ms: u64,
        Kind::Duration { unit: TimeUnit::Ms, min: 100, max: 3_600_000, infinity: false }, "15s";
}

section! {
    /// What only listeners with TLS have (SEED-LSN-15).
    ListenerTlsOptions, TLS: ListenerOptions, tls;

    /// The private key, in PEM.
    "keyfile" => key_file: Option<PathBuf>, Kind::OptionalFile, "none";

    /// The certificate and those between it and its authority, in PEM.
    "certfile" => cert_file: Option<PathBuf>, Kind::OptionalFile, "none";

    /// Certificates of the authorities that clients' certificates must come from, in PEM.
    "cacertfile" => ca_cert_file: Option<PathBuf>, Kind::OptionalFile, "none";

    /// Lists of revoked certificates (CRL) of these authorities, in PEM.
    "crlfile" => crl_file: Option<PathBuf>, Kind::OptionalFile, "none";

    /// Whether clients are asked for a certificate.
    "verify" => verify: VerifyPeer, Kind::Enum(VerifyPeer::WORDS), "verify_none";

    /// Whether a client that is asked and has no certificate is refused.
    "fail_if_no_peer_cert" => fail_if_no_peer_cert: bool, Kind::Bool, "off";

    /// Pre-shared keys, a file as mosquitto's: lines of identity:key, the key in hexadecimal. With it certfile and keyfile are for clients
    /// without a key and may be left out; clients are asked for no certificate.
    "psk_file" => psk_file: Option<PathBuf>, Kind::OptionalFile, "none";

    /// Whether the identity of a client's pre-shared key becomes its user name in place of that of CONNECT.
    "psk_identity_as_username" => psk_identity_as_username: bool, Kind::Bool, "off";

    /// Versions that are spoken. default is TLS 1.2 and 1.3.
    "tls_versions" => tls_versions: Vec<String>,
        Kind::List(Some(&["tlsv1.3", "tlsv1.2", "tlsv1.1", "tlsv1"])), "default";

    /// Cipher suites by the name OpenSSL or IANA has for them, the best first. default is all that are known.
    "ciphers" => ciphers: Vec<String>, Kind::List(None), "default";

    /// Parameters for Diffie-Hellman, in PEM.
    "dhfile" => dh_file: Option<PathBuf>, Kind::OptionalFile, "none";

    /// Whether a handshake may be repeated only in the secure way.
    "secure_renegotiate" => secure_renegotiate: bool, Kind::Bool, "on";

    /// Whether a client may come back without a full handshake.
    "reuse_sessions" => reuse_sessions: bool, Kind::Bool, "on";

    /// Whether the order of ciphers of the broker counts, not the client's.
    "honor_cipher_order" => honor_cipher_order: bool, Kind::Bool, "on";
}

section! {
    /// What only listeners with WebSocket have (SEED-LSN-04, SEED-LSN-13).
    ListenerWebSocketOptions, WEBSOCKET: ListenerOptions, websocket;

    /// The path MQTT is spoken at.
    "path" was ["mqtt_path"] => path: String, Kind::UrlPath, "/mqtt";

    /// Whether a client must ask for a subprotocol of MQTT; mqtt.websocket_protocol_header = off holds for all listeners.
    "verify_protocol_header" => verify_protocol_header: bool, Kind::Bool, "on";

    /// Origins of the web pages that may connect, parted by commas: https://example.com. default is all.
    "check_origins" => check_origins: Vec<String>, Kind::List(None), "default";

    /// Whether clients that name no origin may connect although check_origins is set: all that are not browsers.
    "allow_origin_absence" => allow_origin_absence: bool, Kind::Bool, "on";

    /// The header in which a proxy in front tells the client's address, X-Forwarded-For mostly. none believes none.
    "proxy_address_header" => proxy_address_header: Option<String>, Kind::OptionalText, "none";

    /// The header in which it tells the client's port, X-Forwarded-Port mostly.
    "proxy_port_header" => proxy_port_header: Option<String>, Kind::OptionalText, "none";
}

/// The keys below a listener of a kind.
pub(crate) fn options_of(
    kind: ListenerKind,
) -> impl Iterator<Item = &'static Key<ListenerOptions>> {
    let handshake = if kind.is_tls() || kind.is_websocket() { HANDSHAKE } else { &[] };
    let tls = if kind.is_tls() { TLS } else { &[] };
    let websocket = if kind.is_websocket() { WEBSOCKET } else { &[] };
    LISTENER.iter().chain(handshake).chain(tls).chain(websocket)
}

/// The keys below listeners of any kind.
pub(crate) fn all_options() -> impl Iterator<Item = &'static Key<ListenerOptions>> {
    LISTENER.iter().chain(HANDSHAKE).chain(TLS).chain(WEBSOCKET)
}

impl Part<ListenerOptions> for ListenerOptions {
    fn part(&self) -> &ListenerOptions {
        self
    }
    fn part_mut(&mut self) -> &mut ListenerOptions {
        self
    }
}

/// Reads `1883`, `127.0.0.1:1883`, `::1:1883`, `[::1]:1883`, `:::1883` and the like.
pub(crate) fn parse_address(text: &str) -> Option<SocketAddr> {
    let port = |digits: &str| -> Option<u16> {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    let Some((host, digits)) = text.rsplit_once(':') else {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port(text)?));
    };
    let address = match host.strip_prefix('[') {
        Some(inner) => IpAddr::V6(inner.strip_suffix(']')?.parse().ok()?),
        // `:::1883` leaves `::`, `::1:1883` leaves `::1`: the last colon always parts off the port.
        None => host.parse().ok()?,
    };
    Some(SocketAddr::new(address, port(digits)?))
}

/// Whether `name` may name a listener. The names of the keys below a listener may not: `listener.tcp.backlog` is the
/// old spelling of `listener.tcp.external.backlog`.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    !name.is_empty() && name.len() <= 64 && name.bytes().all(plain)
}

/// The listeners of [`DEFAULT_LISTENERS`].
pub(crate) fn defaults() -> Vec<ListenerSettings> {
    DEFAULT_LISTENERS
        .iter()
        .map(|(name, address)| ListenerSettings {
            kind: ListenerKind::Tcp,
            name: (*name).to_owned(),
            address: parse_address(address).expect("a default address is allowed"),
            options: ListenerOptions::default(),
        })
        .collect()
}
