//! Connections this side opens: what a load tool does all the time, and a broker towards other brokers.
//!
//! The socket is made and bound by ordinary calls, because its options and its source address need no waiting and kernels
//! before 6.11 cannot bind in the ring. Then it moves into a direct descriptor table and the process descriptor is closed;
//! only then it connects. So at most one process descriptor is in use for each connection that is on its way into the table.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use io_uring::opcode;

use crate::core::Core;
use crate::counters::ReactorCounter;
use crate::driver::Driver;
use crate::ops::{Op, Tag};
use crate::slots::{Phase, UNKNOWN};

/// Connections opened in one tick; the rest waits for the next.
const TICK_CONNECTS_MAX: usize = 128;
/// Connections on their way into a table or connecting, at most: each has a place of 64 bytes.
const CONNECTING_MAX: usize = 16_384;
/// `IORING_FILE_INDEX_ALLOC` as the offset of a files update: the kernel picks the slot and writes its number back.
const ALLOCATE: i32 = -1;
/// SYN packets that are sent again before a connect fails with `ETIMEDOUT`: about 15 seconds.
const SYN_RETRIES: i32 = 3;

/// The families as an address has them.
#[allow(clippy::cast_possible_truncation, reason = "2 and 10")]
const FAMILY_IPV4: libc::sa_family_t = libc::AF_INET as libc::sa_family_t;
#[allow(clippy::cast_possible_truncation, reason = "2 and 10")]
const FAMILY_IPV6: libc::sa_family_t = libc::AF_INET6 as libc::sa_family_t;

/// A connection to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect {
    /// The core's name for it until it is open.
    pub token: u64,
    /// The address it comes from; port 0: any. None: as the kernel routes.
    pub from: Option<SocketAddr>,
    /// The address it goes to.
    pub to: SocketAddr,
}

/// A socket address as the kernel reads it.
#[repr(C)]
union Address {
    ipv4: libc::sockaddr_in,
    ipv6: libc::sockaddr_in6,
}

impl Address {
    /// The address and its length.
    fn new(address: SocketAddr) -> (Self, libc::socklen_t) {
        match address {
            SocketAddr::V4(address) => {
                let ipv4 = libc::sockaddr_in {
                    sin_family: FAMILY_IPV4,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
                    sin_zero: [0; 8],
                };
                (Self { ipv4 }, socket_length::<libc::sockaddr_in>())
            }
            SocketAddr::V6(address) => {
                let ipv6 = libc::sockaddr_in6 {
                    sin6_family: FAMILY_IPV6,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                };
                (Self { ipv6 }, socket_length::<libc::sockaddr_in6>())
            }
        }
    }
}

/// The length of an address or an option, as the kernel takes it.
fn socket_length<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("a few bytes")
}

/// What the kernel needs while a connection is opened.
struct Place {
    address: Address,
    length: libc::socklen_t,
    /// The socket, until it is in a table.
    socket: Option<OwnedFd>,
    /// Its process descriptor; the kernel writes the slot of the table over it.
    slot: RawFd,
    token: u64,
}

/// The connections that are being opened.
#[derive(Default)]
pub(crate) struct Connects {
    #[allow(clippy::vec_box, reason = "the kernel holds their address")]
    places: Vec<Box<Place>>,
    free: Vec<u32>,
}

impl Connects {
    /// Keeps what the kernel needs; gives its number.
    fn insert(&mut self, connect: &Connect, socket: OwnedFd) -> u32 {
        let (address, length) = Address::new(connect.to);
        let place = Place { address, length, socket: Some(socket), slot: -1, token: connect.token };
        if let Some(number) = self.free.pop() {
            *self.places[number as usize] = place;
            return number;
        }
        self.places.push(Box::new(place));
        u32::try_from(self.places.len() - 1).expect("bounded")
    }

    /// How many are being opened.
    fn count(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Gives a place back.
    fn remove(&mut self, number: u32) -> u64 {
        let place = &mut self.places[number as usize];
        place.socket = None;
        let token = place.token;
        self.free.push(number);
        if self.free.len() == self.places.len() && self.places.len() > 1024 {
            *self = Self::default();
        }
        token
    }
}

/// Sets an option of a socket to a number.
fn set_option(socket: &OwnedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value lives during the call and has the length given.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            socket_length::<i32>(),
        )
    })?;
    Ok(())
}

/// The result of a call of libc.
fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes a socket, bound if it is to come from a certain address.
fn open_socket(connect: &Connect) -> io::Result<OwnedFd> {
    let family = if connect.to.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is involved.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the descriptor was just made and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set_option(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set_option(&socket, libc::IPPROTO_TCP, libc::TCP_SYNCNT, SYN_RETRIES)?;
    if let Some(from) = connect.from {
        // The port is chosen at the connect, so that one source address has all ports towards each target.
        set_option(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        let (address, length) = Address::new(from);
        // SAFETY: the address lives during the call and has the length given.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    }
    Ok(socket)
}

impl<C: Core> Driver<C> {
    /// Opens the connections the core wants.
    pub(crate) fn open_connections(&mut self, core: &mut C) {
        for _ in 0..TICK_CONNECTS_MAX {
            if self.connects.count() >= CONNECTING_MAX {
                // Each that ends makes a tick, which asks again.
                return;
            }
            let Some(connect) = core.next_connect() else { return };
            match open_socket(&connect) {
                Ok(socket) => {
                    let number = self.connects.insert(&connect, socket);
                    self.install(number);
                }
                Err(error) => {
                    self.again = true;
                    self.counters.add(ReactorCounter::ConnectsFailed, 1);
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    core.connect_failed(connect.token, errno);
                }
            }
        }
        self.again = true;
    }

    /// Puts a socket into the table of the lane that fills up.
    fn install(&mut self, number: u32) {
        let place = &mut self.connects.places[number as usize];
        place.slot = place.socket.as_ref().expect("it is not in a table yet").as_raw_fd();
        let entry = opcode::FilesUpdate::new(&raw mut place.slot, 1).offset(ALLOCATE).build();
        let entry = entry.user_data(Tag::new(Op::Install, 0, number).0);
        let lane = self.lanes.fill();
        // SAFETY: the place is boxed and freed only after the completion of the connect, or of this if it fails.
        unsafe { self.lanes.at(lane).port.push(&entry) };
    }

    /// A socket is in the table of a lane, or is not.
    pub(crate) fn on_install(&mut self, core: &mut C, lane: usize, tag: Tag, result: i32) {
        self.lanes.at(lane).port.completed();
        let number = tag.index();
        if result != 1 {
            self.choose_lane();
            let is_full = result == 0 || result == -libc::ENFILE;
            if is_full && lane != self.lanes.fill() && self.lanes.has_room() {
                // The table has filled up since it was chosen.
                self.install(number);
                return;
            }
            let errno = if result < 0 { -result } else { libc::ENFILE };
            self.again = true;
            self.counters.add(ReactorCounter::ConnectsFailed, 1);
            let token = self.connects.remove(number);
            core.connect_failed(token, errno);
            return;
        }
        // The table holds the socket by itself.
        self.connects.places[number as usize].socket = None;
        let place = &self.connects.places[number as usize];
        let slot = u32::try_from(place.slot).expect("the kernel gives a slot's number");
        let (address, length) = (&raw const place.address, place.length);
        let index = self.lanes.index(lane, slot);
        self.occupy(core, index, Phase::Connecting);
        let entry = opcode::Connect::new(self.lanes.fixed(index), address.cast(), length).build();
        let entry = entry.user_data(Tag::new(Op::Connect, number, index).0);
        // SAFETY: the place is boxed and freed only after the completion.
        unsafe { self.lanes.push(index, &entry) };
    }

    /// A connect completed.
    pub(crate) fn on_connect(&mut self, core: &mut C, tag: Tag, result: i32) {
        let index = tag.index();
        self.lanes.completed(index);
        let token = self.connects.remove(tag.generation());
        let slot = self.slots.get(index).expect("a connecting slot is in use");
        assert_eq!(slot.phase, Phase::Connecting, "a connection is opened once");
        if result < 0 {
            slot.set(UNKNOWN);
            self.counters.add(ReactorCounter::ConnectsFailed, 1);
            self.submit_close(index);
            core.connect_failed(token, -result);
            return;
        }
        slot.phase = Phase::Open;
        self.counters.add(ReactorCounter::Connected, 1);
        let id = core.connected(token, index);
        assert_eq!(id.index, index, "a connection's index is its slot");
        let slot = self.slots.get(index).expect("in use");
        slot.generation = id.generation;
    }
}
