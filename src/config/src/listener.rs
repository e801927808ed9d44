//! TCP listeners: `listener.tcp.<name> = [ip:]port` and the keys below it (SEED-LSN-01, 02, 14, 18).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::kind::{Kind, Setting, TimeUnit};
use crate::table::{Key, Part, section};

/// The address forms that are accepted, for error messages and the reference.
pub(crate) const ADDRESS_ALLOWED: &str = "off, a port, or address:port";
/// Example for [`ADDRESS_ALLOWED`].
pub(crate) const ADDRESS_EXAMPLE: &str = "1883, 127.0.0.1:1883 or [::1]:1883";
/// Documentation of the address key.
pub(crate) const ADDRESS_DOC: &str = "Address of a TCP listener. A port alone listens on all IPv4 addresses; \
    [::]:1883 or :::1883 on all IPv6 addresses. Without any the broker has external on 0.0.0.0:1883 and internal on \
    127.0.0.1:11883. A file that gives an address to any TCP listener states them all, as in EMQ; the environment and \
    --set change, add or remove one by its name and leave the others. off removes one. Port 0 lets the kernel pick.";

/// The listeners of a broker without settings (SEED-LSN-01, SEED-LSN-02).
pub(crate) const DEFAULT_LISTENERS: [(&str, &str); 2] =
    [("external", "0.0.0.0:1883"), ("internal", "127.0.0.1:11883")];

/// One TCP listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenerSettings {
    /// Name, as in `listener.tcp.<name>`.
    pub name: String,
    /// Address it listens on; port 0 lets the kernel pick one.
    pub address: SocketAddr,
    /// Limits and socket options.
    pub options: ListenerOptions,
}

section! {
    /// Limits and socket options of a listener.
    ListenerOptions, LISTENER: ListenerOptions;

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
            name: (*name).to_owned(),
            address: parse_address(address).expect("a default address is allowed"),
            options: ListenerOptions::default(),
        })
        .collect()
}
