//! Connections that do not speak MQTT's bytes on the wire: PROXY header, TLS, WebSocket ([`filter`]).
//!
//! The core sees such a connection as any other. What is received goes through its filter first; what the core sends is
//! put into frames and records, and the core's own buffers go back to it when those were sent. Handshakes and the answers of
//! the layers themselves are sent without the core.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use filter::{CloseWhy, Filter, FilterSettings, Stage};
use shard::{ConnectionId, Farewell, ListenerId, Outgoing, ReceiveEnd};

use crate::clock::monotonic_ns;
use crate::core::Core;
use crate::counters::ReactorCounter;
use crate::driver::Driver;
use crate::slots::{CLOGGED, ENDED, FILTERED, Phase, SENDING};

/// Slots per chunk, as in `slots`.
const CHUNK: usize = 1024;
/// Time after which a tick handles no further receive of a TLS handshake, in nanoseconds. One may cost a signature, a tenth of a
/// millisecond to one, so that is mostly one to a tick.
const TICK_HANDSHAKES_NS: u64 = 40_000;
/// Bytes that the layers of a connection may have to say (pongs, mostly) before it is read no more: a peer that takes nothing would
/// make them grow.
const WIRE_MAX: usize = 64 << 10;
/// Time a peer has to take something of that, in milliseconds.
const CLOGGED_MS: u64 = 15_000;
/// Room of a scratch buffer that is kept.
const SCRATCH_KEPT: usize = 256 << 10;

/// How long a connection may take for what comes before MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterTimes {
    /// For the PROXY header, in milliseconds.
    pub proxy_ms: u64,
    /// For the handshake of TLS, and again for that of WebSocket, in milliseconds.
    pub handshake_ms: u64,
}

impl FilterTimes {
    /// For a stage, with the name of the reason when it is over. None: the shard's own deadlines hold.
    const fn of(self, stage: Stage) -> Option<(u64, &'static str)> {
        match stage {
            Stage::Proxy => Some((self.proxy_ms, "proxy_timeout")),
            Stage::Tls => Some((self.handshake_ms, "tls_timeout")),
            Stage::WebSocket => Some((self.handshake_ms, "ws_timeout")),
            Stage::Open | Stage::Closing | Stage::Ended => None,
        }
    }
}

/// What connections of a listener get.
pub type ListenerFilter = (Arc<FilterSettings>, FilterTimes);

/// What the listeners of a node put in front of MQTT, by listener. Shared by all shards; may be changed while they run:
/// connections that are open keep what they have.
#[derive(Debug, Default)]
pub struct FilterTable {
    entries: Mutex<Vec<Option<ListenerFilter>>>,
}

impl FilterTable {
    /// Sets what a listener has from now on. None, or nothing in it: MQTT at once.
    pub fn set(&self, listener: ListenerId, settings: Option<ListenerFilter>) {
        let settings = settings.filter(|(settings, _)| !settings.is_plain());
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let place = usize::from(listener.0);
        if entries.len() <= place {
            entries.resize_with(place + 1, || None);
        }
        entries[place] = settings;
    }

    /// Whether connections of a listener begin with a handshake their peer has to answer, TLS or WebSocket.
    pub(crate) fn has_handshake(&self, listener: ListenerId) -> bool {
        self.of(listener).is_some_and(|(it, _)| it.tls.is_some() || it.websocket.is_some())
    }

    /// What a listener has now.
    fn of(&self, listener: ListenerId) -> Option<ListenerFilter> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(usize::from(listener.0)).cloned().flatten()
    }
}

/// The filter of one connection.
#[derive(Debug)]
pub(crate) struct Filtered {
    filter: Box<Filter>,
    /// What goes on the wire next.
    wire: Vec<u8>,
    /// What the core lent for the send in flight.
    lent: Option<Outgoing>,
    /// The core knows who the peer is.
    is_introduced: bool,
    /// What the peer will be told when we end.
    farewell: CloseWhy,
    /// The peer was told that we end.
    has_said_goodbye: bool,
    /// The core was told that nothing more comes.
    has_ended: bool,
    times: FilterTimes,
    /// The stage its deadline is for.
    stage: Stage,
    /// When that stage, or being clogged, must be over; it is in `Filters::deadlines` then.
    deadline_ms: Option<u64>,
    /// It is read no more until its peer has taken something.
    is_clogged: bool,
}

impl Filtered {
    /// It came to another shard: what the first was told while the connection left it had no effect.
    pub(crate) fn arrived(&mut self) {
        self.has_ended = false;
    }
}

/// The filters of neighbouring slots.
type Chunk = Box<[Option<Box<Filtered>>]>;

/// The filters of a shard, by slot.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    chunks: Vec<Option<Chunk>>,
    /// Scratch: what a receive is in MQTT's bytes.
    plain: Vec<u8>,
    /// Time handshakes took in this tick, in nanoseconds.
    pub(crate) handshakes_ns: u64,
    /// Receives of handshakes that were put off.
    pub(crate) waiting: usize,
    /// When connections must be done with the stage they are in, with their slots.
    deadlines: BTreeSet<(u64, u32)>,
}

impl Filters {
    /// The filter of a slot.
    fn get(&mut self, index: u32) -> Option<&mut Filtered> {
        let place = index as usize;
        self.chunks.get_mut(place / CHUNK)?.as_mut()?[place % CHUNK].as_deref_mut()
    }

    /// Gives a slot a filter.
    fn insert(&mut self, index: u32, filtered: Box<Filtered>) {
        let place = index as usize;
        if self.chunks.len() <= place / CHUNK {
            self.chunks.resize_with(place / CHUNK + 1, || None);
        }
        let chunk =
            self.chunks[place / CHUNK].get_or_insert_with(|| (0..CHUNK).map(|_| None).collect());
        chunk[place % CHUNK] = Some(filtered);
    }

    /// Takes a slot's filter.
    pub(crate) fn take(&mut self, index: u32) -> Option<Box<Filtered>> {
        let place = index as usize;
        let mut filtered = self.chunks.get_mut(place / CHUNK)?.as_mut()?[place % CHUNK].take()?;
        if let Some(at_ms) = filtered.deadline_ms.take() {
            self.deadlines.remove(&(at_ms, index));
        }
        Some(filtered)
    }

    /// Whether the layers of a connection have ended, but not yet sent what they had to say last.
    pub(crate) fn has_last_word(&mut self, index: u32) -> bool {
        self.get(index).is_some_and(|it| it.filter.is_ended() && !it.wire.is_empty())
    }

    /// A connection may have come further: another deadline holds then, or none.
    fn set_deadline(&mut self, index: u32, now_ms: u64) {
        let Some(filtered) = self.get(index) else { return };
        let stage = filtered.filter.stage();
        if std::mem::replace(&mut filtered.stage, stage) == stage {
            return;
        }
        let next = filtered.times.of(stage).map(|(time_ms, _)| now_ms + time_ms);
        self.replace_deadline(index, next);
    }

    fn replace_deadline(&mut self, index: u32, next: Option<u64>) {
        let Some(filtered) = self.get(index) else { return };
        let before = std::mem::replace(&mut filtered.deadline_ms, next);
        if let Some(at_ms) = before {
            self.deadlines.remove(&(at_ms, index));
        }
        if let Some(at_ms) = next {
            self.deadlines.insert((at_ms, index));
        }
    }

    /// When the first connection is late.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|(at_ms, _)| *at_ms)
    }

    /// Takes the first connection that is late, with the reason.
    fn pop_late(&mut self, now_ms: u64) -> Option<(u32, &'static str)> {
        let (_, index) = *self.deadlines.first().filter(|(at_ms, _)| *at_ms <= now_ms)?;
        self.deadlines.pop_first();
        let filtered = self.get(index).expect("a filter that is taken takes its deadline along");
        filtered.deadline_ms = None;
        let reason = match filtered.times.of(filtered.stage) {
            _ if filtered.is_clogged => "send_timeout",
            Some((_, reason)) => reason,
            None => unreachable!("only stages with a time and clogged connections have a deadline"),
        };
        Some((index, reason))
    }
}

impl<C: Core> Driver<C> {
    /// Gives a connection that was accepted the filter of its listener, if that has one.
    pub(crate) fn add_filter(&mut self, index: u32, listener: ListenerId, since_ms: u64) {
        let Some((settings, times)) = self.filter_table.of(listener) else { return };
        let filtered = Filtered {
            filter: Filter::new(&settings),
            wire: Vec::new(),
            lent: None,
            is_introduced: false,
            farewell: CloseWhy::Normal,
            has_said_goodbye: false,
            has_ended: false,
            times,
            // None it can be in now: the first deadline is set below.
            stage: Stage::Ended,
            deadline_ms: None,
            is_clogged: false,
        };
        self.place_filter(index, Box::new(filtered));
        // The time it has waited to be let in counts.
        self.filters.set_deadline(index, since_ms);
    }

    /// Puts a filter into a slot: a new one, or one that came with its connection.
    pub(crate) fn place_filter(&mut self, index: u32, filtered: Box<Filtered>) {
        self.filters.insert(index, filtered);
        self.slots.get(index).expect("a filtered connection has its slot").set(FILTERED);
    }

    /// Whether a receive of this connection is a handshake for which this tick has no time any more.
    pub(crate) fn is_over_handshakes(&mut self, index: u32) -> bool {
        self.filters.handshakes_ns >= TICK_HANDSHAKES_NS && self.is_handshaking(index)
    }

    /// Whether the TLS handshake of this connection is under way.
    pub(crate) fn is_handshaking(&mut self, index: u32) -> bool {
        self.filters.get(index).is_some_and(|it| it.filter.stage() == Stage::Tls)
    }

    /// Whether received bytes of this connection ask for work of its TLS handshake.
    pub(crate) fn asks_for_handshake(&mut self, index: u32, buffer: u16, len: u32) -> bool {
        let raw = self.lanes.buffers(index).received(buffer, len);
        self.filters.get(index).is_some_and(|it| it.filter.asks_for_handshake(raw))
    }

    /// Hands in what a filter makes of received bytes; gives the buffer back.
    pub(crate) fn hand_in_filtered(
        &mut self,
        core: &mut C,
        id: ConnectionId,
        buffer: u16,
        len: u32,
    ) {
        let buffers = self.lanes.buffers(id.index);
        let mut plain = std::mem::take(&mut self.filters.plain);
        plain.clear();
        let filtered = self.filters.get(id.index).expect("a filtered slot has its filter");
        let is_handshake = filtered.filter.stage() == Stage::Tls;
        let since_ns = if is_handshake { monotonic_ns() } else { 0 };
        let raw = buffers.received_mut(buffer, len);
        let result = filtered.filter.received(raw, &mut plain, &mut filtered.wire);
        buffers.release(buffer);
        let introduces = !filtered.is_introduced && filtered.filter.is_open();
        filtered.is_introduced |= introduces;
        let (has_wire, is_ended) = (!filtered.wire.is_empty(), filtered.filter.is_ended());
        let peer = introduces.then(|| {
            let certificate = filtered.filter.client_certificate().map(<[u8]>::to_vec);
            (filtered.filter.take_peer(), certificate)
        });
        if is_handshake {
            self.filters.handshakes_ns += monotonic_ns() - since_ns;
        }
        self.filters.set_deadline(id.index, self.now.mono_ms);
        if let Some((peer, certificate)) = peer {
            core.peer_known(id, &peer, certificate.as_deref());
        }
        if !plain.is_empty() {
            core.received(id, &plain);
        }
        if plain.capacity() <= SCRATCH_KEPT {
            self.filters.plain = plain;
        }
        if has_wire {
            self.flushes.push(id);
        }
        self.clog(id.index);
        let end = match result {
            Err(error) => {
                self.counters.add(ReactorCounter::FilterErrors, 1);
                log::debug!("shard {}: connection {}: {error}", self.id, id.index);
                Some(ReceiveEnd::Refused(error.reason()))
            }
            Ok(()) if is_ended => Some(ReceiveEnd::PeerClosed),
            Ok(()) => None,
        };
        if let Some(end) = end {
            self.end_filtered(core, id, end);
        }
    }

    /// Reads a connection no more if its layers have much to say and a send is in flight.
    fn clog(&mut self, index: u32) {
        let filtered = self.filters.get(index).expect("a filtered slot has its filter");
        if filtered.wire.len() <= WIRE_MAX || filtered.is_clogged {
            return;
        }
        let slot = self.slots.get(index).expect("a filtered connection has its slot");
        if slot.phase == Phase::Open && slot.has(SENDING) {
            filtered.is_clogged = true;
            slot.set(CLOGGED);
            self.cancel_receive(index);
            self.filters.replace_deadline(index, Some(self.now.mono_ms + CLOGGED_MS));
        }
    }

    /// A peer has taken something: its connection is read again.
    fn unclog(&mut self, index: u32) {
        let Some(filtered) = self.filters.get(index).filter(|it| it.is_clogged) else { return };
        filtered.is_clogged = false;
        self.filters.replace_deadline(index, None);
        self.slots.get(index).expect("a filtered connection has its slot").clear(CLOGGED);
        self.arm_receive(index);
    }

    /// A connection with layers starts to receive, on its first shard or its last. If they have ended on the way, that is told now.
    pub(crate) fn start_filtered(&mut self, core: &mut C, id: ConnectionId) {
        let has_ended = self.filters.get(id.index).is_some_and(|it| it.filter.is_ended());
        if has_ended {
            self.end_filtered(core, id, ReceiveEnd::PeerClosed);
        }
    }

    /// Ends connections that take too long for what comes before MQTT.
    pub(crate) fn run_filter_timers(&mut self, core: &mut C) {
        while let Some((index, reason)) = self.filters.pop_late(self.now.mono_ms) {
            let slot = self.slots.get(index).expect("a filtered connection has its slot");
            let id = ConnectionId { index, generation: slot.generation };
            self.end_filtered(core, id, ReceiveEnd::Refused(reason));
        }
    }

    /// Nothing more comes from a filtered connection, though its socket may still be open.
    fn end_filtered(&mut self, core: &mut C, id: ConnectionId, end: ReceiveEnd) {
        let slot = self.slots.get(id.index).expect("checked by the caller");
        let is_open = slot.phase == Phase::Open && !slot.has(ENDED);
        let filtered = self.filters.get(id.index).expect("a filtered slot has its filter");
        if is_open && !std::mem::replace(&mut filtered.has_ended, true) {
            self.end_soon(core, id, end);
        }
    }

    /// Submits what a filtered connection has to send, of its layers and of the core. True: a send is in flight.
    pub(crate) fn send_next_filtered(&mut self, core: &mut C, id: ConnectionId) -> bool {
        let filtered = self.filters.get(id.index).expect("a filtered slot has its filter");
        while filtered.lent.is_none() && filtered.filter.is_open() {
            let Some(outgoing) = core.take_outgoing(id) else { break };
            if outgoing.is_empty() {
                self.again = true;
                core.sent(id, outgoing, Ok(()));
                continue;
            }
            // An error means that the connection has ended: nothing is put on the wire any more.
            let _ = match &outgoing {
                Outgoing::Bytes(bytes) => {
                    filtered.filter.send(std::iter::once(bytes.as_slice()), &mut filtered.wire)
                }
                Outgoing::Shared(bytes) => {
                    filtered.filter.send(std::iter::once(bytes.as_ref()), &mut filtered.wire)
                }
                Outgoing::Segments(segments) => {
                    filtered.filter.send(segments.iter().map(AsRef::as_ref), &mut filtered.wire)
                }
            };
            filtered.lent = Some(outgoing);
        }
        let wire = std::mem::take(&mut filtered.wire);
        if wire.is_empty() {
            // What was lent could not be put on the wire: the connection is at its end.
            let Some(outgoing) = filtered.lent.take() else { return false };
            self.again = true;
            core.sent(id, outgoing, Err(libc::EPIPE));
            return false;
        }
        let total = wire.len();
        self.submit_send(id, Outgoing::Bytes(wire), total);
        true
    }

    /// A send of a filtered connection is over: the core gets back what it had lent.
    pub(crate) fn filtered_sent(
        &mut self,
        core: &mut C,
        id: ConnectionId,
        result: Result<(), i32>,
    ) {
        let Some(filtered) = self.filters.get(id.index) else { return };
        let has_wire = !filtered.wire.is_empty();
        let lent = filtered.lent.take();
        if result.is_ok() {
            self.unclog(id.index);
        }
        match (lent, result) {
            (Some(outgoing), result) => core.sent(id, outgoing, result),
            (None, Err(errno)) => self.end_filtered(core, id, ReceiveEnd::Failed(errno)),
            (None, Ok(())) => self.again = true,
        }
        if has_wire || result.is_ok() {
            self.flushes.push(id);
        }
    }

    /// The core has told why a connection will be closed.
    pub(crate) fn will_say(&mut self, id: ConnectionId, why: Farewell) {
        let is_filtered = self.slots.live(id).is_some_and(|slot| slot.has(FILTERED));
        if let Some(filtered) = self.filters.get(id.index).filter(|_| is_filtered) {
            filtered.farewell = match why {
                Farewell::Done => CloseWhy::Normal,
                Farewell::Stopping => CloseWhy::GoingAway,
                Farewell::ProtocolError => CloseWhy::ProtocolError,
                Farewell::BadPayload => CloseWhy::BadPayload,
                Farewell::NotAllowed => CloseWhy::Policy,
                Farewell::TooBig => CloseWhy::TooBig,
                Farewell::Broken => CloseWhy::Internal,
                Farewell::Busy => CloseWhy::TryAgainLater,
            };
        }
    }

    /// Ends the layers in good order, once. True: a send is in flight.
    pub(crate) fn say_goodbye(&mut self, core: &mut C, id: ConnectionId) -> bool {
        let filtered = self.filters.get(id.index).expect("a filtered slot has its filter");
        if std::mem::replace(&mut filtered.has_said_goodbye, true) {
            return false;
        }
        filtered.filter.close(filtered.farewell, &mut filtered.wire);
        self.send_next_filtered(core, id)
    }
}
