//! What an agent has to do with its clients' connections.

use std::collections::VecDeque;

use shard::{CloseMode, ConnectionId, Effect};

use super::connections::{Connections, DIRTY, NONE, WANTS_DRAINED};
use super::io::Ios;
use super::layers::Layers;
use super::schedule::Schedule;
use super::{CloseCause, Timer};
use crate::sys;

/// The client's connection was asked for and is not there yet.
const OPENING: u32 = NONE - 1;
/// As [`OPENING`], but nobody wants it any more.
const ABANDONED: u32 = NONE - 2;

/// Connections closed in one round of effects: the kernel closes all of an enter in one go, and a thread that measures on the same
/// CPU would wait for that.
const CLOSES_MAX: usize = 16;

/// The connections, timers and effects of one thread.
#[derive(Debug)]
pub struct Net {
    now_ns: u64,
    pub(super) connections: Connections,
    /// The slot of each client, or one of the marks above.
    slots: Vec<u32>,
    pub(super) ios: Ios,
    pub(super) layers: Layers,
    effects: Vec<Effect>,
    closes: VecDeque<(ConnectionId, CloseMode)>,
    dirty: Vec<ConnectionId>,
    to_open: VecDeque<u32>,
    /// Slots in use.
    open: usize,
    pub(super) schedule: Schedule,
    /// When the thread ends, whatever is still open.
    stop_at_ns: Option<u64>,
    /// A send of a client that waits to be drained was taken: its end may make no event, so look for it.
    pub(super) look_again: bool,
}

impl Net {
    pub(super) fn new(clients: u32) -> Net {
        let now_ns = sys::monotonic_ns();
        Net {
            now_ns,
            connections: Connections::default(),
            slots: vec![NONE; at(clients)],
            ios: Ios::default(),
            layers: Layers::default(),
            effects: Vec::new(),
            closes: VecDeque::new(),
            dirty: Vec::new(),
            to_open: VecDeque::new(),
            open: 0,
            schedule: Schedule::new(now_ns),
            stop_at_ns: None,
            look_again: false,
        }
    }

    // ---- for the agent

    /// This instant in nanoseconds of the monotonic clock: when the bytes came that are being handled, or this tick began.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Asks for a connection of a client that has none.
    pub fn open(&mut self, client: u32) {
        let slot = &mut self.slots[at(client)];
        match *slot {
            // The one that is on its way will do.
            ABANDONED => *slot = OPENING,
            NONE => {
                *slot = OPENING;
                self.to_open.push_back(client);
            }
            _ => debug_assert!(false, "client {client} has a connection"),
        }
    }

    /// Where to append packets of a client, if it has a connection. They are sent at the end of the tick.
    #[inline]
    pub fn outbox(&mut self, client: u32) -> Option<&mut Vec<u8>> {
        let index = self.slots[at(client)];
        if index >= ABANDONED {
            return None;
        }
        self.is_to_flush(index);
        let connection = self.connections.at(index)?;
        Some(&mut self.ios.need(&mut connection.io).outbox)
    }

    /// Bytes of a client that the kernel has not taken.
    pub fn unsent(&mut self, client: u32) -> usize {
        let Some(connection) = self.connections.at(self.slots[at(client)]) else { return 0 };
        let sending = at(connection.sending);
        sending + self.ios.get(connection.io).map_or(0, |io| io.outbox.len())
    }

    /// Asks for one call of [`drained`](super::Agent::drained) when the kernel has taken all of a client's bytes. Something
    /// must be in its outbox or on its way.
    pub fn when_drained(&mut self, client: u32) {
        if let Some(connection) = self.connections.at(self.slots[at(client)]) {
            connection.set(WANTS_DRAINED);
            self.look_again |= connection.sending > 0;
        }
    }

    /// Ends a client's connection: with `Linger` after what is in its outbox was sent, with `Now` at once. The client has no
    /// connection from now on.
    pub fn close(&mut self, client: u32, mode: CloseMode) {
        let slot = &mut self.slots[at(client)];
        match *slot {
            NONE | ABANDONED => {}
            OPENING => *slot = ABANDONED,
            index => {
                *slot = NONE;
                let connection = self.connections.at(index).expect("an open client has a slot");
                connection.client = NONE;
                let id = ConnectionId { index, generation: connection.generation() };
                self.closes.push_back((id, mode));
            }
        }
    }

    /// Sets a timer; one in the past is due in this tick or the next.
    #[inline]
    pub fn at(&mut self, due_ns: u64, timer: Timer) {
        self.schedule.add(due_ns, timer);
    }

    /// Ends the thread when all connections are closed, and after `patience_ns` in any case.
    pub fn stop(&mut self, patience_ns: u64) {
        self.to_open.clear();
        self.stop_at_ns.get_or_insert(self.now_ns + patience_ns);
    }

    // ---- for the engine

    /// The connection in this slot has something to send.
    #[inline]
    pub(super) fn is_to_flush(&mut self, index: u32) {
        let Some(connection) = self.connections.at(index) else { return };
        if !connection.has(DIRTY) {
            connection.set(DIRTY);
            self.dirty.push(ConnectionId { index, generation: connection.generation() });
        }
    }

    #[inline]
    pub(super) fn read_clock(&mut self) {
        self.now_ns = sys::monotonic_ns();
    }

    /// The client whose connection this is.
    #[inline]
    pub(super) fn client(&mut self, id: ConnectionId) -> Option<u32> {
        self.connections
            .get(id)
            .map(|connection| connection.client)
            .filter(|client| *client != NONE)
    }

    pub(super) fn next_to_open(&mut self) -> Option<u32> {
        while let Some(client) = self.to_open.pop_front() {
            if self.slots[at(client)] == OPENING {
                return Some(client);
            }
            self.not_opened(client);
        }
        None
    }

    /// A connection is there. False: nobody wants it any more; it is being closed.
    pub(super) fn opened(&mut self, client: u32, index: u32) -> (ConnectionId, bool) {
        self.open += 1;
        let is_wanted = self.slots[at(client)] == OPENING && self.stop_at_ns.is_none();
        let id = self.connections.take(index, client);
        if is_wanted {
            self.slots[at(client)] = index;
            self.effects.push(Effect::StartReceive(id));
        } else {
            self.slots[at(client)] = NONE;
            self.connections.at(index).expect("taken above").client = NONE;
            self.closes.push_back((id, CloseMode::Now));
        }
        (id, is_wanted)
    }

    /// A connection will not come. False: nobody wanted it any more.
    pub(super) fn not_opened(&mut self, client: u32) -> bool {
        std::mem::replace(&mut self.slots[at(client)], NONE) == OPENING
    }

    /// A connection has ended by itself. Gives whose it was, unless it was being closed anyway.
    pub(super) fn lost(&mut self, id: ConnectionId) -> Option<u32> {
        let client = self.client(id)?;
        self.close(client, CloseMode::Now);
        Some(client)
    }

    pub(super) fn freed(&mut self, index: u32) {
        self.open -= 1;
        if let Some(connection) = self.connections.at(index) {
            self.ios.release(&mut connection.io);
        }
        self.layers.remove(index);
    }

    /// The errno of a failed send or receive as a cause.
    pub(super) fn cause(errno: i32) -> CloseCause {
        CloseCause::Failed(errno)
    }

    pub(super) fn drain_effects(&mut self, effects: &mut Vec<Effect>) {
        std::mem::swap(&mut self.effects, effects);
        let closes = self.closes.len().min(CLOSES_MAX);
        let closes = self.closes.drain(..closes);
        effects.extend(closes.map(|(id, mode)| Effect::Close { id, mode }));
        for id in self.dirty.drain(..) {
            if let Some(connection) = self.connections.get(id) {
                connection.clear(DIRTY);
                effects.push(Effect::Flush(id));
            }
        }
        // What is sent before a close must be asked for before it: a close with `Linger` takes it by itself.
    }

    pub(super) fn next_deadline_ns(&self) -> Option<u64> {
        self.schedule.next_ns().into_iter().chain(self.stop_at_ns).min()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop_at_ns.is_some()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop_at_ns.is_some_and(|at_ns| self.open == 0 || self.now_ns >= at_ns)
    }
}

/// A client's number as an index.
fn at(client: u32) -> usize {
    usize::try_from(client).expect("32 bits fit")
}
