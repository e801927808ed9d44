//! Accepting: connections go straight into the direct descriptor table and take no process descriptor.
//!
//! A multishot accept names no peer, so its address is asked for by a socket command right after. Where the kernel has
//! no such command (before 6.7) a few one-shot accepts per listener wait instead, each with room for an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::{cqueue, opcode, squeue, types};
use shard::ListenerId;

use crate::admission::{Arrival, Newcomer};
use crate::core::Core;
use crate::counters::ReactorCounter;
use crate::driver::Driver;
use crate::listener::BoundListener;
use crate::ops::{Op, Tag};
use crate::slots::{Phase, UNKNOWN};

/// One-shot accepts in flight per listener.
const ONE_SHOTS: u32 = 16;
/// How often accept errors are logged at most.
const LOG_INTERVAL_MS: u64 = 60_000;
/// Connections that had waited too long, closed in one tick.
const LATE_MAX: usize = 1024;
/// Receives of handshakes that wait for their tick, above which no further connection with a handshake is let in.
const HANDSHAKES_WAITING_MAX: usize = 64;
/// Of a socket that is writable a poll with these ends at once, and says whether the peer has closed its side.
#[allow(clippy::cast_sign_loss, reason = "bits")]
const STILL_THERE_EVENTS: u32 = (libc::POLLOUT | libc::POLLRDHUP) as u32;
/// `SOCKET_URING_OP_GETSOCKOPT`.
const SOCKET_OP_GETSOCKOPT: u32 = 2;
/// Bytes of a `sockaddr_in`.
const IPV4_BYTES: u32 = 16;
/// Bytes of a `sockaddr_in6`.
const IPV6_BYTES: u32 = 28;

/// Room for a peer's address while the kernel writes it.
#[derive(Debug)]
#[repr(C, align(8))]
struct Place {
    bytes: [u8; 32],
    len: libc::socklen_t,
    listener: u32,
}

/// One listening socket of this shard.
struct Listening {
    id: ListenerId,
    name: String,
    /// None: closed.
    socket: Option<OwnedFd>,
    is_ipv6: bool,
    /// Accepts in flight.
    armed: u32,
    /// The lane an accept was armed on last.
    lane: usize,
    /// No accept before this time.
    rests_until_ms: Option<u64>,
    /// No more connections are wanted.
    removed: bool,
    logged_at_ms: Option<u64>,
    storm_logged_at_ms: Option<u64>,
}

/// The listening sockets of this shard and the addresses on their way.
pub(crate) struct Accepts {
    listeners: Vec<Listening>,
    #[allow(clippy::vec_box, reason = "the kernel holds their address")]
    places: Vec<Box<Place>>,
    free_places: Vec<u32>,
    multishot: bool,
}

/// A socket command that reads an option: the same layout as one that sets it, but for the command's number.
///
/// # Safety
/// `value` must have room for `len` bytes until the completion was reaped.
pub(crate) unsafe fn getsockopt(
    fd: SocketFd,
    option: u32,
    value: *mut u8,
    len: u32,
) -> squeue::Entry {
    let level = libc::SOL_SOCKET.cast_unsigned();
    let mut entry = match fd {
        SocketFd::Fixed(fd) => {
            opcode::SetSockOpt::new(fd, level, option, value.cast(), len).build()
        }
        SocketFd::Plain(fd) => {
            opcode::SetSockOpt::new(fd, level, option, value.cast(), len).build()
        }
    };
    // SAFETY: an entry is a transparent `io_uring_sqe`, 64 bytes aligned to 8; its third 32-bit word is `cmd_op`.
    unsafe { (&raw mut entry).cast::<u32>().add(2).write(SOCKET_OP_GETSOCKOPT) };
    entry
}

/// Which kind of descriptor an operation takes.
#[derive(Clone, Copy)]
pub(crate) enum SocketFd {
    Fixed(types::Fixed),
    Plain(types::Fd),
}

/// Reads a `sockaddr_in` or `sockaddr_in6` as the kernel wrote it. An IPv4 address mapped into IPv6 is given as IPv4.
fn parse_address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip: IpAddr = match i32::from(family) {
        libc::AF_INET => {
            let octets: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Ipv4Addr::from(octets).into()
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

impl Accepts {
    /// Without listeners.
    pub(crate) fn new(multishot: bool) -> Self {
        Self { listeners: Vec::new(), places: Vec::new(), free_places: Vec::new(), multishot }
    }

    /// When an accept that rests is due again.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.listeners.iter().filter_map(|listener| listener.rests_until_ms).min()
    }

    /// Whether no socket is open.
    pub(crate) fn all_closed(&self) -> bool {
        self.listeners.iter().all(|listener| listener.socket.is_none())
    }

    /// The places that the one-shot accepts of a listener hold, and, which does no harm, those of its peers being named.
    fn rooms_of(&self, listener: u32) -> impl Iterator<Item = u32> {
        let is_free = |room: &u32| self.free_places.contains(room);
        (0u32..)
            .zip(&self.places)
            .filter(move |(room, place)| place.listener == listener && !is_free(room))
            .map(|(room, _)| room)
    }

    /// Room for an address.
    fn place(&mut self, listener: u32) -> (u32, &mut Place) {
        let number = self.free_places.pop().unwrap_or_else(|| {
            self.places.push(Box::new(Place { bytes: [0; 32], len: 0, listener: 0 }));
            u32::try_from(self.places.len() - 1).expect("at most one per connection")
        });
        let place = &mut self.places[number as usize];
        **place = Place { bytes: [0; 32], len: 32, listener };
        (number, place)
    }

    /// Takes the address out of its place and frees it.
    fn take_place(&mut self, number: u32, len: usize) -> (Option<SocketAddr>, u32) {
        let place = &self.places[number as usize];
        let peer = place.bytes.get(..len).and_then(parse_address);
        self.free_places.push(number);
        (peer, place.listener)
    }
}

impl<C: Core> Driver<C> {
    /// Starts to accept from a socket.
    pub(crate) fn add_listener(&mut self, listener: BoundListener) {
        let listening = Listening {
            id: listener.id,
            name: listener.name,
            is_ipv6: listener.address.is_ipv6(),
            socket: Some(listener.socket),
            armed: 0,
            lane: 0,
            rests_until_ms: None,
            removed: false,
            logged_at_ms: None,
            storm_logged_at_ms: None,
        };
        // One that was stopped is started in its old place: addresses on their way name it by that, and the list does not grow.
        let ended = |old: &Listening| {
            old.id == listening.id && old.removed && old.armed == 0 && old.socket.is_none()
        };
        let number = match self.accepts.listeners.iter().position(ended) {
            Some(number) => {
                self.accepts.listeners[number] = listening;
                number
            }
            None => {
                self.accepts.listeners.push(listening);
                self.accepts.listeners.len() - 1
            }
        };
        self.arm_accept(number);
    }

    /// Stops accepting from a listener, or from all; the socket is closed when its accepts have ended.
    pub(crate) fn remove_listeners(&mut self, only: Option<ListenerId>) {
        for number in 0..self.accepts.listeners.len() {
            let listener = &mut self.accepts.listeners[number];
            if listener.removed || only.is_some_and(|id| id != listener.id) {
                continue;
            }
            listener.removed = true;
            listener.rests_until_ms = None;
            match &listener.socket {
                Some(socket) if listener.armed > 0 => {
                    let fd = socket.as_raw_fd();
                    for lane in 0..self.lanes.count() {
                        self.cancel_accepts(lane, fd);
                    }
                }
                _ => listener.socket = None,
            }
        }
    }

    /// Ends the accepts of a socket on a lane; their completions tell when they have ended.
    fn cancel_accepts(&mut self, lane: usize, socket: RawFd) {
        let which = types::CancelBuilder::fd(types::Fd(socket)).all();
        let cancel = opcode::AsyncCancel2::new(which)
            .build()
            .user_data(Tag::new(Op::Ignored, 0, 0).0)
            .flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: the entry points to no memory.
        unsafe { self.lanes.at(lane).port.push_uncounted(&cancel) };
    }

    /// New connections go to another lane now: moves the accepts there.
    pub(crate) fn move_accepts(&mut self) {
        let fill = self.lanes.fill();
        for number in 0..self.accepts.listeners.len() {
            let listener = &self.accepts.listeners[number];
            if listener.armed == 0 || listener.lane == fill || listener.socket.is_none() {
                continue;
            }
            // By what names them: a search by descriptor looks at all that is armed on the lane.
            let lane = listener.lane;
            let index = u32::try_from(number).expect("few listeners");
            let tags: Vec<Tag> = match self.accepts.multishot {
                true => vec![Tag::new(Op::Accept, 0, index)],
                false => self
                    .accepts
                    .rooms_of(index)
                    .map(|room| Tag::new(Op::Accept, room, index))
                    .collect(),
            };
            for tag in tags {
                let cancel = opcode::AsyncCancel::new(tag.0)
                    .build()
                    .user_data(Tag::new(Op::Ignored, 0, 0).0)
                    .flags(squeue::Flags::SKIP_SUCCESS);
                // SAFETY: the entry points to no memory.
                unsafe { self.lanes.at(lane).port.push_uncounted(&cancel) };
            }
        }
    }

    /// Arms a listener's accepts, as many as are missing.
    fn arm_accept(&mut self, number: usize) {
        let tag_index = u32::try_from(number).expect("few listeners");
        let wanted = if self.accepts.multishot { 1 } else { ONE_SHOTS };
        let lane = self.lanes.fill();
        loop {
            let listener = &mut self.accepts.listeners[number];
            let Some(socket) = &listener.socket else { return };
            if listener.removed || listener.rests_until_ms.is_some() || listener.armed >= wanted {
                return;
            }
            let fd = types::Fd(socket.as_raw_fd());
            listener.armed += 1;
            listener.lane = lane;
            let entry = if self.accepts.multishot {
                let tag = Tag::new(Op::Accept, 0, tag_index);
                opcode::AcceptMulti::new(fd).allocate_file_index(true).build().user_data(tag.0)
            } else {
                let (room, place) = self.accepts.place(tag_index);
                opcode::Accept::new(fd, place.bytes.as_mut_ptr().cast(), &raw mut place.len)
                    .file_index(Some(types::DestinationSlot::auto_target()))
                    .build()
                    .user_data(Tag::new(Op::Accept, room, tag_index).0)
            };
            // SAFETY: the place is boxed and taken again only when the accept's completion comes; the socket is closed only
            // when no accept is in flight.
            unsafe { self.lanes.at(lane).port.push(&entry) };
        }
    }

    /// An accept on a lane completed.
    pub(crate) fn on_accept(&mut self, core: &mut C, lane: usize, completion: &cqueue::Entry) {
        let (tag, result) = (Tag(completion.user_data()), completion.result());
        let flags = completion.flags();
        let number = tag.index() as usize;
        let ended = !cqueue::more(flags);
        if ended {
            self.lanes.at(lane).port.completed();
            self.accepts.listeners[number].armed -= 1;
        }
        let named = if self.accepts.multishot {
            None
        } else {
            let len = self.accepts.places[tag.generation() as usize].len as usize;
            Some(self.accepts.take_place(tag.generation(), len).0)
        };
        match u32::try_from(result) {
            Ok(slot) => {
                self.counters.add(ReactorCounter::Accepted, 1);
                let index = self.lanes.index(lane, slot);
                self.occupy(core, index, Phase::Naming);
                match named {
                    None => self.ask_name(index, tag.index()),
                    Some(peer) => self.arrived(core, index, tag.index(), peer),
                }
            }
            // It was moved to another lane.
            Err(_) if -result == libc::ECANCELED && lane != self.lanes.fill() => {}
            Err(_) => self.accept_failed(number, lane, -result),
        }
        if ended {
            let listener = &mut self.accepts.listeners[number];
            if listener.removed && listener.armed == 0 {
                listener.socket = None;
            }
            self.arm_accept(number);
        }
    }

    /// Asks for the peer's address of a slot.
    fn ask_name(&mut self, index: u32, listener: u32) {
        let ipv6 = self.accepts.listeners[listener as usize].is_ipv6;
        // The kernel refuses a length above that of the address.
        let len = if ipv6 { IPV6_BYTES } else { IPV4_BYTES };
        let (room, place) = self.accepts.place(listener);
        let fd = SocketFd::Fixed(self.lanes.fixed(index));
        let peer_name = libc::SO_PEERNAME.cast_unsigned();
        // SAFETY: the place is boxed, has 32 bytes, and is taken again only when the completion comes.
        unsafe {
            let entry = getsockopt(fd, peer_name, place.bytes.as_mut_ptr(), len);
            self.lanes.push(index, &entry.user_data(Tag::new(Op::PeerName, room, index).0));
        }
    }

    /// The peer's address is there, or is not because the peer has gone.
    pub(crate) fn on_peer_name(&mut self, core: &mut C, tag: Tag, result: i32) {
        self.lanes.completed(tag.index());
        let len = usize::try_from(result).unwrap_or(0);
        let (peer, listener) = self.accepts.take_place(tag.generation(), len);
        self.arrived(core, tag.index(), listener, peer);
    }

    /// A connection's peer is known: it is let in, or waits for its turn. One whose peer is gone already is closed.
    fn arrived(&mut self, core: &mut C, index: u32, listener: u32, peer: Option<SocketAddr>) {
        let Some(peer) = peer else { return self.turn_away(index) };
        let new = Newcomer { index, listener, peer, since_ms: self.now.mono_ms };
        let Self { admission, accepts, filter_table, .. } = self;
        let id = accepts.listeners[listener as usize].id;
        match admission.arrive(new, || filter_table.has_handshake(id)) {
            Arrival::LetIn => self.introduce(core, new),
            Arrival::Waits => self.counters.add(ReactorCounter::AcceptWaited, 1),
            Arrival::Refused => {
                self.counters.add(ReactorCounter::AcceptQueueFull, 1);
                self.tell_storm(listener);
                self.turn_away(index);
            }
        }
    }

    /// Tells the shard of a connection.
    fn introduce(&mut self, core: &mut C, new: Newcomer) {
        let listener = self.accepts.listeners[new.listener as usize].id;
        let slot = self.slots.get(new.index).expect("an accepted connection has its slot");
        assert_eq!(slot.phase, Phase::Naming, "a connection is introduced once");
        slot.phase = Phase::Open;
        let id = core.accepted(new.index, listener, new.peer);
        assert_eq!(id.index, new.index, "a connection's index is its slot");
        slot.generation = id.generation;
        self.add_filter(new.index, listener, new.since_ms);
    }

    /// Closes a connection the shard has not been told of.
    fn turn_away(&mut self, index: u32) {
        self.slots.get(index).expect("an accepted connection has its slot").set(UNKNOWN);
        self.submit_close(index);
    }

    /// Lets in those whose turn it is. Of one that has a handshake before it is asked first whether its peer is still there.
    pub(crate) fn let_in(&mut self, core: &mut C) {
        // Bytes of handshakes that wait hold receive buffers, which the connected clients need.
        let layered = self.filters.waiting < HANDSHAKES_WAITING_MAX;
        let mut late = 0;
        while let Some((new, is_late)) = self.admission.next(self.now.mono_ms, layered) {
            if is_late {
                late += 1;
                self.counters.add(ReactorCounter::AcceptLate, 1);
                self.tell_storm(new.listener);
                self.turn_away(new.index);
                if late == LATE_MAX {
                    break;
                }
                continue;
            }
            let id = self.accepts.listeners[new.listener as usize].id;
            if !self.filter_table.has_handshake(id) {
                self.introduce(core, new);
                continue;
            }
            self.admission.ask(new);
            let entry =
                opcode::PollAdd::new(self.lanes.fixed(new.index), STILL_THERE_EVENTS).build();
            let tag = Tag::new(Op::StillThere, 0, new.index);
            // SAFETY: the entry points to no memory.
            unsafe { self.lanes.push(new.index, &entry.user_data(tag.0)) };
        }
        // Those that remain want the next tick at once, unless handshakes have to end first; these make ticks themselves.
        self.again |= self.admission.count() > 0;
    }

    /// The peer of a connection that has waited is still there, or is not: then nobody needs the handshake.
    pub(crate) fn on_still_there(&mut self, core: &mut C, tag: Tag, result: i32) {
        self.lanes.completed(tag.index());
        let new = self.admission.answered(tag.index());
        let gone = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
        if result < 0 || result & i32::from(gone) != 0 {
            self.counters.add(ReactorCounter::AcceptLeft, 1);
            self.turn_away(new.index);
        } else {
            self.introduce(core, new);
        }
    }

    /// Says, now and then, that connections come faster than they can be let in.
    fn tell_storm(&mut self, listener: u32) {
        let now_ms = self.now.mono_ms;
        let listener = &mut self.accepts.listeners[listener as usize];
        if listener.storm_logged_at_ms.is_some_and(|at_ms| now_ms - at_ms < LOG_INTERVAL_MS) {
            return;
        }
        listener.storm_logged_at_ms = Some(now_ms);
        log::warn!(
            "shard {}: connections come to listener {} faster than they can be let in: {} wait, others are closed \
             (reactor/accept_queue_full, reactor/accept_late); see overload.accept_*",
            self.id,
            listener.name,
            self.admission.count()
        );
    }

    /// An accept failed: arm again at once, or rest, so that a full table costs neither a core nor a log.
    fn accept_failed(&mut self, number: usize, lane: usize, errno: i32) {
        let listener = &mut self.accepts.listeners[number];
        let full = matches!(errno, libc::ENFILE | libc::EMFILE | libc::ENOMEM | libc::ENOBUFS);
        match errno {
            libc::ECANCELED if listener.removed => return,
            // The connection went before it was accepted; the next may be fine.
            libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::ECANCELED | libc::EPROTO => {
                self.counters.add(ReactorCounter::AcceptFailed, 1);
                return;
            }
            _ if full => self.counters.add(ReactorCounter::AcceptTableFull, 1),
            _ => self.counters.add(ReactorCounter::AcceptFailed, 1),
        }
        if full {
            self.choose_lane();
            if lane != self.lanes.fill() && self.lanes.has_room() {
                // This one is lost, as the kernel took it before it looked for a slot; the next has another table.
                return;
            }
        }
        let listener = &mut self.accepts.listeners[number];
        let now_ms = self.now.mono_ms;
        listener.rests_until_ms = Some(now_ms + self.settings.accept_backoff_ms);
        if listener.logged_at_ms.is_some_and(|at_ms| now_ms - at_ms < LOG_INTERVAL_MS) {
            return;
        }
        listener.logged_at_ms = Some(now_ms);
        let (shard, name) = (self.id, &listener.name);
        if full {
            log::warn!(
                "shard {shard}: listener {name} refuses connections: the table of {} descriptors, or memory, is used up \
                 (errno {errno}); raise the limit of open files (ulimit -n) or add shards",
                self.lanes.capacity()
            );
        } else {
            log::warn!(
                "shard {shard}: listener {name} cannot accept: errno {errno}; it tries again"
            );
        }
    }

    /// Arms accepts that have rested long enough.
    pub(crate) fn run_accept_timers(&mut self) {
        for number in 0..self.accepts.listeners.len() {
            let listener = &mut self.accepts.listeners[number];
            if listener.rests_until_ms.is_some_and(|until_ms| until_ms <= self.now.mono_ms) {
                listener.rests_until_ms = None;
                self.arm_accept(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let family = u16::try_from(libc::AF_INET).unwrap().to_ne_bytes();
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&family);
        bytes[2..8].copy_from_slice(&[0x07, 0x5b, 127, 0, 0, 1]);
        assert_eq!(parse_address(&bytes[..16]), Some("127.0.0.1:1883".parse().unwrap()));
        let family = u16::try_from(libc::AF_INET6).unwrap().to_ne_bytes();
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&family);
        bytes[2..4].copy_from_slice(&[0x07, 0x5b]);
        bytes[23] = 1;
        assert_eq!(parse_address(&bytes[..28]), Some("[::1]:1883".parse().unwrap()));
        bytes[18..24].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 9]);
        assert_eq!(parse_address(&bytes[..28]), Some("10.0.0.9:1883".parse().unwrap()));
        assert_eq!(parse_address(&[]), None);
    }
}
