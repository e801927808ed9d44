//! What a reactor drives: one shard, or a test's stand-in that only echoes.

use std::net::SocketAddr;

use crate::connect::Connect;
use crate::driver::NS_PER_MS;
use filter::PeerInfo;
use shard::{ConnectionId, Effect, ListenerId, Now, Outgoing, ReceiveEnd};

/// One shard as its reactor sees it. Without I/O: it is told what happened, and its effects are drained once per tick.
///
/// Calls of one tick come in this order: `begin_tick`; completions in the order the kernel gave them; `run_inbox`;
/// `command` for each command; `run_timers`; `finish_tick`; then `drain_effects` until there are none, which may call
/// `take_outgoing`, `sent`, `received` and `detach` in between.
pub trait Core: 'static {
    /// What the control plane sends.
    type Command: Send + 'static;

    /// A tick begins.
    fn begin_tick(&mut self, now: Now);
    /// A connection was accepted into slot `index`.
    fn accepted(&mut self, index: u32, listener: ListenerId, peer: SocketAddr) -> ConnectionId;
    /// The layers of a connection below MQTT are open; this is what they have learnt about its peer. Called once, before its
    /// first bytes, and only for connections that have such layers. The certificate of the client is DER.
    fn peer_known(&mut self, id: ConnectionId, peer: &PeerInfo, certificate: Option<&[u8]>) {
        let _ = (id, peer, certificate);
    }
    /// Bytes came. They are read in place and gone after the call.
    fn received(&mut self, id: ConnectionId, bytes: &[u8]);
    /// No more bytes will come.
    fn receive_ended(&mut self, id: ConnectionId, end: ReceiveEnd);
    /// A send ended; the buffers are the core's again. The error is an errno.
    fn sent(&mut self, id: ConnectionId, outgoing: Outgoing, result: Result<(), i32>);
    /// The slot is free.
    fn closed(&mut self, index: u32);
    /// The next connection to open, if one is wanted now. Asked in each tick, after the effects, until there is none.
    fn next_connect(&mut self) -> Option<Connect> {
        None
    }
    /// A connection that was asked for is open, in slot `index`. It receives nothing before `Effect::StartReceive`.
    fn connected(&mut self, token: u64, index: u32) -> ConnectionId {
        panic!("connection {token} in slot {index} was not asked for")
    }
    /// A connection that was asked for could not be opened; `errno` says why (`ENFILE`: all tables are full).
    fn connect_failed(&mut self, token: u64, errno: i32) {
        panic!("connection {token} was not asked for: errno {errno}")
    }
    /// A descriptor came from another shard into slot `index`. None: the core does not know the token yet; the first
    /// effect that names the slot says whose it is.
    fn descriptor_arrived(&mut self, token: u64, index: u32) -> Option<ConnectionId>;
    /// The receive of a connection that moves has ended and nothing of it is in flight: what it has received and not
    /// used is to go to its new shard now.
    fn detach(&mut self, id: ConnectionId);
    /// The descriptor of a connection that moves was passed on, and its slot here is being closed; or it was not, and the
    /// core has the connection again, not receiving, and should close it.
    fn descriptor_sent(&mut self, id: ConnectionId, result: Result<(), i32>);
    /// Handles what other shards sent.
    fn run_inbox(&mut self);
    /// Handles a command of the control plane.
    fn command(&mut self, command: Self::Command);
    /// Handles timers that are due.
    fn run_timers(&mut self);
    /// The last call before the effects are drained.
    fn finish_tick(&mut self);
    /// Swaps the effects with `effects`, which is empty.
    fn drain_effects(&mut self, effects: &mut Vec<Effect>);
    /// Takes what a connection has to send; called only while no send of it is in flight.
    fn take_outgoing(&mut self, id: ConnectionId) -> Option<Outgoing>;
    /// How long the tick was busy, without the waiting, in microseconds.
    fn tick_took(&mut self, busy_us: u64) {
        let _ = busy_us;
    }
    /// When the next tick is due at the latest, on the monotonic clock.
    fn next_deadline_ms(&self) -> Option<u64>;
    /// The same in nanoseconds, for a core that needs it finer.
    fn next_deadline_ns(&self) -> Option<u64> {
        self.next_deadline_ms().map(|at_ms| at_ms * NS_PER_MS)
    }
    /// Forgets that a foreign thread left something: the commands are being read now.
    fn take_foreign(&mut self);
    /// The reactor is about to wait. False: there is work, do not wait.
    fn prepare_park(&mut self) -> bool;
    /// The reactor waits no more.
    fn unpark(&mut self);
    /// Whether there is work that may be done between ticks.
    fn has_background_work(&self) -> bool;
    /// Does a slice of that work.
    fn run_background(&mut self);
    /// Whether no more connections are wanted: the listeners are closed.
    fn is_stopping(&self) -> bool;
    /// Whether the loop is to end.
    fn is_stopped(&self) -> bool;
}
