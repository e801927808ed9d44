//! Listening sockets: every shard has its own for every listener, all bound before any shard starts.
//!
//! The sockets of one listener share its port by `SO_REUSEPORT`; the kernel spreads connections over them. As another
//! broker of the same user could share the port in the same way without anyone noticing, each address is first tried
//! without that option.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use config::ListenerSettings;
use shard::ListenerId;

/// How long an address may stay in use before it counts as another's: the kernel frees the listening sockets of a ring
/// only some milliseconds after its process has ended, and a broker is often started again at once.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);

/// A listener could not be made.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum ListenerError {
    /// listener {name}: {address} is in use by another process; stop that one (ss -ltnp shows it), or set {key} to another address
    InUse {
        /// The listener.
        name: String,
        /// The key of its address.
        key: String,
        /// Its address.
        address: SocketAddr,
    },
    /// listener {name}: {address} is the address of listener {other} too; give one of them another port
    Twice {
        /// The listener.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// The listener before it.
        other: String,
    },
    /// listener {name}: {address} may not be bound by this user; ports below {first} need CAP_NET_BIND_SERVICE, or take a higher port
    Denied {
        /// The listener.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// The first port anyone may bind.
        first: u16,
    },
    /// listener {name}: this machine has no address {ip}; take one that `ip addr` shows, or 0.0.0.0 for all
    NoSuchAddress {
        /// The listener.
        name: String,
        /// The address.
        ip: IpAddr,
    },
    /// listener {name}: {step} for {address} failed: {error}
    Failed {
        /// The listener.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// Which step.
        step: &'static str,
        /// What the kernel says.
        error: io::Error,
    },
}

/// A listening socket of one shard.
#[derive(Debug)]
pub struct BoundListener {
    /// The listener's number in the settings.
    pub id: ListenerId,
    /// Its name.
    pub name: String,
    /// The address it listens on; the port is the real one if the settings left it to the kernel.
    pub address: SocketAddr,
    pub(crate) socket: OwnedFd,
}

/// Binds every listener once per shard and listens; `result[shard]` has one socket per listener. The listeners' numbers
/// are their places in `listeners`.
///
/// `[::]` also takes IPv4 connections, unless a listener with an IPv4 address has the same port.
///
/// # Errors
/// The first listener that cannot be made; all sockets are closed again.
pub fn bind_all(
    listeners: &[ListenerSettings],
    shards: usize,
) -> Result<Vec<Vec<BoundListener>>, ListenerError> {
    let with_options: Vec<(&ListenerSettings, bool)> = listeners
        .iter()
        .enumerate()
        .map(|(number, listener)| {
            only_one(listeners, number)?;
            Ok((listener, shares_port_with_ipv4(listener, listeners)))
        })
        .collect::<Result<_, _>>()?;
    for (listener, ipv6_only) in &with_options {
        try_address(listener, *ipv6_only)?;
    }
    let mut bound: Vec<Vec<BoundListener>> = (0..shards).map(|_| Vec::new()).collect();
    for (number, (listener, ipv6_only)) in with_options.iter().enumerate() {
        let id = ListenerId(u16::try_from(number).expect("few listeners"));
        for (socket, address) in
            bind_listener(listener, *ipv6_only, shards)?.into_iter().zip(&mut bound)
        {
            address.push(BoundListener {
                id,
                name: listener.name.clone(),
                address: socket.1,
                socket: socket.0,
            });
        }
    }
    Ok(bound)
}

/// Whether listener `number` could be bound now; nothing listens at any time.
///
/// # Errors
/// As [`bind_all`].
pub fn try_bind(listeners: &[ListenerSettings], number: usize) -> Result<(), ListenerError> {
    only_one(listeners, number)?;
    let listener = &listeners[number];
    try_address(listener, shares_port_with_ipv4(listener, listeners))
}

/// Binds one listener once per shard and listens: for a listener that is started while the broker runs.
///
/// # Errors
/// If it cannot be made.
pub fn bind_one(
    id: ListenerId,
    listeners: &[ListenerSettings],
    shards: usize,
) -> Result<Vec<BoundListener>, ListenerError> {
    let listener = &listeners[usize::from(id.0)];
    let ipv6_only = shares_port_with_ipv4(listener, listeners);
    try_address(listener, ipv6_only)?;
    let sockets = bind_listener(listener, ipv6_only, shards)?;
    let bound =
        |(socket, address)| BoundListener { id, name: listener.name.clone(), address, socket };
    Ok(sockets.into_iter().map(bound).collect())
}

/// No listener before this one has its address.
fn only_one(listeners: &[ListenerSettings], number: usize) -> Result<(), ListenerError> {
    let listener = &listeners[number];
    let address = listener.address;
    let same = |other: &&ListenerSettings| other.address == address && address.port() != 0;
    listeners[..number].iter().find(same).map_or(Ok(()), |other| {
        let (name, other) = (listener.name.clone(), other.name.clone());
        Err(ListenerError::Twice { name, address, other })
    })
}

/// Whether a listener with an IPv4 address has the port of this IPv6 listener.
fn shares_port_with_ipv4(listener: &ListenerSettings, all: &[ListenerSettings]) -> bool {
    listener.address.is_ipv6()
        && all
            .iter()
            .any(|other| other.address.is_ipv4() && other.address.port() == listener.address.port())
}

/// Sees whether the address can be bound by us alone.
fn try_address(listener: &ListenerSettings, ipv6_only: bool) -> Result<(), ListenerError> {
    let until = Instant::now() + RELEASE_PATIENCE;
    loop {
        // Dropped at once: only whether it can be bound is asked.
        match bound_socket(listener, listener.address, ipv6_only, false) {
            Err(ListenerError::InUse { .. }) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result.map(drop),
        }
    }
}

/// The sockets of one listener.
fn bind_listener(
    listener: &ListenerSettings,
    ipv6_only: bool,
    shards: usize,
) -> Result<Vec<(OwnedFd, SocketAddr)>, ListenerError> {
    let mut address = listener.address;
    let mut sockets = Vec::with_capacity(shards);
    for _ in 0..shards {
        let socket = bound_socket(listener, address, ipv6_only, true)?;
        let backlog = i32::try_from(listener.options.backlog).unwrap_or(i32::MAX);
        // SAFETY: no memory is involved.
        let failed = unsafe { libc::listen(socket.as_raw_fd(), backlog) };
        if failed != 0 {
            return Err(failure(listener, address, "listen", io::Error::last_os_error()));
        }
        // std reads the address back; the descriptor stays ours.
        let socket = std::net::TcpListener::from(socket);
        address = socket
            .local_addr()
            .map_err(|error| failure(listener, address, "getsockname", error))?;
        sockets.push((OwnedFd::from(socket), address));
    }
    Ok(sockets)
}

/// A socket with the listener's options, bound. Accepted connections inherit the options.
fn bound_socket(
    listener: &ListenerSettings,
    address: SocketAddr,
    ipv6_only: bool,
    reuse_port: bool,
) -> Result<OwnedFd, ListenerError> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(failure(listener, address, "socket", io::Error::last_os_error()));
    }
    // SAFETY: the descriptor was just made and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let options = &listener.options;
    let bytes = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let settings = [
        (
            "SO_REUSEADDR",
            libc::SOL_SOCKET,
            libc::SO_REUSEADDR,
            i32::from(options.reuse_address),
            true,
        ),
        ("SO_REUSEPORT", libc::SOL_SOCKET, libc::SO_REUSEPORT, 1, reuse_port),
        ("TCP_NODELAY", libc::IPPROTO_TCP, libc::TCP_NODELAY, i32::from(options.nodelay), true),
        (
            "IPV6_V6ONLY",
            libc::IPPROTO_IPV6,
            libc::IPV6_V6ONLY,
            i32::from(ipv6_only),
            address.is_ipv6(),
        ),
        (
            "SO_RCVBUF",
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            bytes(options.recv_buffer_bytes),
            options.recv_buffer_bytes > 0,
        ),
        (
            "SO_SNDBUF",
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            bytes(options.send_buffer_bytes),
            options.send_buffer_bytes > 0,
        ),
    ];
    for (step, level, option, value, wanted) in settings {
        if wanted {
            set_option(&socket, level, option, value)
                .map_err(|error| failure(listener, address, step, error))?;
        }
    }
    bind(&socket, address).map_err(|error| failure(listener, address, "bind", error))?;
    Ok(socket)
}

/// Sets a socket option that is an int.
fn set_option(socket: &OwnedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let len = u32::try_from(size_of::<i32>()).expect("four");
    // SAFETY: `value` is an int and `len` its size.
    let failed = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len)
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Binds a socket.
fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let failed = match address {
        SocketAddr::V4(address) => {
            let name = libc::sockaddr_in {
                sin_family: u16::try_from(libc::AF_INET).expect("a small number"),
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            let len = u32::try_from(size_of_val(&name)).expect("a small number");
            // SAFETY: `name` is a sockaddr_in and `len` its size.
            unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), len) }
        }
        SocketAddr::V6(address) => {
            let name = libc::sockaddr_in6 {
                sin6_family: u16::try_from(libc::AF_INET6).expect("a small number"),
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            let len = u32::try_from(size_of_val(&name)).expect("a small number");
            // SAFETY: `name` is a sockaddr_in6 and `len` its size.
            unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), len) }
        }
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a failure means for the one who wrote the settings.
fn failure(
    listener: &ListenerSettings,
    address: SocketAddr,
    step: &'static str,
    error: io::Error,
) -> ListenerError {
    let name = listener.name.clone();
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => ListenerError::InUse { name, key: listener.key(), address },
        Some(libc::EACCES | libc::EPERM) if step == "bind" => {
            let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
            let first = first.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
            ListenerError::Denied { name, address, first }
        }
        Some(libc::EADDRNOTAVAIL) => ListenerError::NoSuchAddress { name, ip: address.ip() },
        _ => ListenerError::Failed { name, address, step, error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::ListenerOptions;

    fn listener(name: &str, address: &str) -> ListenerSettings {
        ListenerSettings {
            kind: config::ListenerKind::Tcp,
            name: name.to_owned(),
            address: address.parse().unwrap(),
            options: ListenerOptions::default(),
        }
    }

    #[test]
    fn all_shards_share_the_port_the_kernel_picked() {
        let bound =
            bind_all(&[listener("a", "127.0.0.1:0"), listener("b", "127.0.0.1:0")], 3).unwrap();
        assert_eq!(bound.len(), 3);
        assert!(bound.iter().all(|shard| shard.len() == 2));
        assert_ne!(bound[0][0].address.port(), 0);
        assert!(bound.iter().all(|shard| shard[0].address == bound[0][0].address));
        assert_ne!(bound[0][0].address, bound[0][1].address);
        assert_eq!(bound[2][1].id, ListenerId(1));
    }

    #[test]
    fn a_port_that_another_broker_shares_is_in_use() {
        let first = bind_all(&[listener("first", "127.0.0.1:0")], 2).unwrap();
        let taken = first[0][0].address;
        let error = bind_all(&[listener("second", &taken.to_string())], 2).unwrap_err();
        assert!(
            matches!(&error, ListenerError::InUse { name, address, .. } if name == "second" && *address == taken)
        );
        assert!(error.to_string().contains("listener.tcp.second"), "{error}");
        let second = [listener("second", &taken.to_string())];
        assert!(matches!(try_bind(&second, 0), Err(ListenerError::InUse { .. })));
        drop(first);
        try_bind(&second, 0).unwrap();
        bind_all(&second, 2).unwrap();
    }

    #[test]
    fn two_listeners_may_not_have_one_address() {
        let error =
            bind_all(&[listener("a", "127.0.0.1:7"), listener("b", "127.0.0.1:7")], 1).unwrap_err();
        assert!(matches!(error, ListenerError::Twice { .. }));
        let same = [listener("a", "127.0.0.1:7"), listener("b", "127.0.0.1:7")];
        assert!(matches!(try_bind(&same, 1), Err(ListenerError::Twice { .. })));
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = bind_all(&[listener("a", "192.0.2.1:7")], 1).unwrap_err();
        assert!(matches!(error, ListenerError::NoSuchAddress { .. }));
    }

    #[test]
    fn ipv6_takes_ipv4_too_unless_a_listener_does() {
        let bound = bind_all(&[listener("a", "[::]:0")], 1).unwrap();
        let port = bound[0][0].address.port();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        drop(bound);
        let both =
            [listener("a", &format!("0.0.0.0:{port}")), listener("b", &format!("[::]:{port}"))];
        bind_all(&both, 2).unwrap();
    }
}
