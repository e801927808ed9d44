//! A connection slot and the table of them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use mqtt::ProtocolVersion;
use session::{InboundAliases, OutboundAliases};

use crate::chunked::Chunked;
use crate::effect::{ConnectionId, GENERATION_MASK, ListenerId};
use crate::outbox::NO_OUTBOX;
use crate::rate::ClientRates;
use crate::stash::NO_STASH;

/// No session.
pub(crate) const NO_SESSION: u32 = u32::MAX;

/// Length of the ticks of `last_received`.
pub(crate) const STAMP_MS: u64 = 100;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum State {
    /// The slot is not in use.
    #[default]
    Free,
    /// Its first packet has not come.
    AwaitsConnect,
    /// It is on its way to another shard.
    Leaving,
    /// It has a session.
    Connected,
    /// It is being closed; what still arrives is discarded.
    Closing,
}

/// Why a connection is not read; a set of bits.
pub(crate) mod pause {
    /// A mesh ring its messages go through is full.
    pub const MESH: u16 = 1;
    /// It has as many unreleased `QoS` 2 messages as it may have.
    pub const AWAITING_REL: u16 = 1 << 1;
    /// Too many of its SUBSCRIBEs wait for the other shards.
    pub const SUBSCRIBING: u16 = 1 << 2;
    /// Its stash is full.
    pub const STASH: u16 = 1 << 3;
    /// The answers it does not read fill its outbox.
    pub const OUTBOX: u16 = 1 << 4;
    /// Its stash is about to be handled; it is not read before that, so that order is kept.
    pub const RESUMING: u16 = 1 << 5;
    /// What is kept of its session, or of all, is being read from the store.
    pub const LOADING: u16 = 1 << 6;
    /// The tick has had its share of work.
    pub const WORK: u16 = 1 << 7;
    /// It has sent more than its rate allows.
    pub const RATE: u16 = 1 << 8;
    /// More waits for the store than may.
    pub const STORE: u16 = 1 << 12;
    /// Reasons for which reading goes on: short ones, and one whose end is to be read.
    pub const READS_ON: u16 = AWAITING_REL | RESUMING | WORK;
    /// Reasons that also hold back what is in the stash.
    pub const HOLDS_STASH: u16 =
        MESH | AWAITING_REL | SUBSCRIBING | OUTBOX | RESUMING | LOADING | WORK | RATE | STORE;
    /// Reasons to hold the stash back that leave acknowledgements and pings in it free.
    pub const LETS_AHEAD: u16 = AWAITING_REL | RATE | STORE;
}

/// What is true of a connection from some time on, in one byte.
pub(crate) mod flag {
    /// The bridge bit of its CONNECT.
    pub const BRIDGE: u8 = 1;
    /// Clean Start of its CONNECT.
    pub const CLEAN_START: u8 = 1 << 1;
    /// Its listener had no room: it was never counted as a client of it.
    pub const REFUSED: u8 = 1 << 2;
    /// What it sends is counted against a rate; its extras have the buckets.
    pub const LIMITED: u8 = 1 << 3;
    /// Its topics have a prefix; its extras have it.
    pub const MOUNTED: u8 = 1 << 4;
    /// What it is told waits until something is kept.
    pub const GATED: u8 = 1 << 7;
}

/// A peer address in 18 bytes; IPv4 as IPv4-mapped IPv6.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peer {
    ip: [u8; 16],
    port: u16,
}

impl Peer {
    pub fn new(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Self { ip, port: address.port() }
    }

    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(self.ip).to_canonical()
    }

    pub fn address(self) -> SocketAddr {
        SocketAddr::new(self.ip(), self.port)
    }
}

/// What only some connections have: a user name, or the state of MQTT 5.
#[derive(Debug)]
pub(crate) struct Extras {
    pub username: Option<Box<str>>,
    /// Maximum Packet Size of the client; `u32::MAX` when it named none.
    pub maximum_packet_size: u32,
    /// Receive Maximum of the client.
    pub receive_maximum: u16,
    /// Topic Alias Maximum of the client, and the aliases given.
    pub alias_maximum: u16,
    pub outbound: OutboundAliases,
    pub inbound: InboundAliases,
    /// What only clients of some listeners have.
    pub terms: Option<Box<Terms>>,
}

/// What a listener asks of its clients, where it asks something.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// What they may send.
    pub rates: ClientRates,
    /// The prefix of their topics.
    pub mountpoint: Option<Box<str>>,
}

impl Extras {
    /// Whether a PUBLISH to it may look unlike that to others.
    pub fn shape_publish(&self) -> bool {
        self.alias_maximum > 0 || self.maximum_packet_size < u32::MAX || self.terms.is_some()
    }

    /// The prefix of its topics.
    pub fn mountpoint(&self) -> Option<&str> {
        self.terms.as_ref()?.mountpoint.as_deref()
    }
}

impl Default for Extras {
    fn default() -> Self {
        Self {
            username: None,
            maximum_packet_size: u32::MAX,
            receive_maximum: u16::MAX,
            alias_maximum: 0,
            outbound: OutboundAliases::default(),
            inbound: InboundAliases::default(),
            terms: None,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub generation: u32,
    pub session: u32,
    pub outbox: u32,
    pub stash: u32,
    /// When it last received something, in units of [`STAMP_MS`].
    pub last_received: u32,
    /// When it was accepted, later when its CONNECT was, in seconds since the Unix epoch.
    pub connected_unix_s: u32,
    pub extras: Option<Box<Extras>>,
    pub peer: Peer,
    pub keepalive_s: u16,
    pub listener: ListenerId,
    pub version: ProtocolVersion,
    pub state: State,
    /// Why it is not read: bits of [`pause`].
    pub paused: u16,
    /// SUBACKs and UNSUBACKs that wait for other shards.
    pub subscribing: u8,
    /// A flush effect of it is queued.
    pub flush_queued: bool,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Its peer has gone, but what it sent before is still to be handled; it ends soon.
    pub is_ending: bool,
    /// Its stash is full while it waits for PUBRELs that may stand behind what is not read: more messages are taken than
    /// `max_awaiting_rel` until the stash is empty.
    pub takes_more: bool,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            generation: 0,
            session: NO_SESSION,
            outbox: NO_OUTBOX,
            stash: NO_STASH,
            last_received: 0,
            connected_unix_s: 0,
            extras: None,
            peer: Peer::default(),
            keepalive_s: 0,
            listener: ListenerId(0),
            version: ProtocolVersion::V3_1_1,
            state: State::Free,
            paused: 0,
            subscribing: 0,
            flush_queued: false,
            flags: 0,
            is_ending: false,
            takes_more: false,
        }
    }
}

impl Connection {
    pub fn is_v5(&self) -> bool {
        self.version == ProtocolVersion::V5
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether its receive is to be armed.
    pub fn is_read(&self) -> bool {
        self.paused & !pause::READS_ON == 0
    }

    pub fn username(&self) -> Option<&str> {
        self.extras.as_ref().and_then(|extras| extras.username.as_deref())
    }
}

/// The connections of a shard, by descriptor slot.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    table: Chunked<Connection>,
}

impl Connections {
    /// Slots there is room for; every index in use is below it.
    pub fn slots(&self) -> u32 {
        u32::try_from(self.table.len()).expect("indices are 32 bits")
    }

    /// Puts a new connection into slot `index`.
    pub fn open(&mut self, index: u32, peer: SocketAddr, listener: ListenerId) -> ConnectionId {
        self.table.grow_to(index);
        let slot = self.table.get_mut(index).expect("room was made");
        assert!(slot.state == State::Free, "descriptor slot {index} was given out twice");
        let generation = slot.generation.wrapping_add(1) & GENERATION_MASK;
        *slot = Connection {
            generation,
            peer: Peer::new(peer),
            listener,
            state: State::AwaitsConnect,
            ..Connection::default()
        };
        ConnectionId { index, generation }
    }

    /// The connection, if it is still this one.
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.at(id.index).filter(|c| c.generation == id.generation)
    }

    /// The connection, if it is still this one.
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.at_mut(id.index).filter(|c| c.generation == id.generation)
    }

    /// The connection in a slot that is in use.
    pub fn at(&self, index: u32) -> Option<&Connection> {
        self.table.get(index).filter(|c| c.state != State::Free)
    }

    /// The connection in a slot that is in use.
    pub fn at_mut(&mut self, index: u32) -> Option<&mut Connection> {
        self.table.get_mut(index).filter(|c| c.state != State::Free)
    }

    /// Frees a slot; its generation stays.
    pub fn free(&mut self, index: u32) {
        let slot = self.at_mut(index).expect("only a slot in use is freed");
        *slot = Connection { generation: slot.generation, ..Connection::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_used_again_has_another_generation() {
        let mut connections = Connections::default();
        let peer: SocketAddr = "127.0.0.9:5".parse().unwrap();
        let first = connections.open(7, peer, ListenerId(0));
        assert_eq!(connections.get(first).unwrap().peer.address(), peer);
        connections.free(7);
        assert!(connections.get(first).is_none());
        let second = connections.open(7, peer, ListenerId(0));
        assert_ne!(first, second);
        assert!(connections.get(first).is_none());
        assert!(connections.get(second).is_some());
    }

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 64, "{}", size_of::<Connection>());
    }
}
