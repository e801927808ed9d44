//! The simulated network: pipes between clients and shards, and a stand-in for the reactor that plays out a shard's
//! effects with delays, cuts and reorderings of its own choosing.

use std::collections::VecDeque;

use shard::{CloseMode, ConnectionId, Effect, ListenerId, Outgoing, ReceiveEnd, Shard};

use super::random::Random;

/// One TCP connection.
#[derive(Debug, Default)]
pub struct Pipe {
    /// Bytes the client has written and the broker has not read.
    pub to_broker: VecDeque<u8>,
    /// Bytes the broker has sent and the client has not read.
    pub to_client: VecDeque<u8>,
    /// The client has closed its side.
    pub client_closed: bool,
    /// The broker has closed.
    pub broker_closed: bool,
    /// Where it is accepted: shard and connection.
    at: Option<(usize, ConnectionId)>,
    reading: bool,
    end_reported: bool,
    in_flight: Option<Outgoing>,
    closing: Option<CloseMode>,
    leaving: Option<(usize, u64)>,
    number: u32,
}

impl Pipe {
    /// A connection made by the `number`th connect of the run.
    pub fn new(number: u32) -> Self {
        Self { number, ..Self::default() }
    }

    /// The broker is gone; of what it has sent last its client gets so much at most.
    pub fn broken(&mut self, left: usize) {
        self.to_client.truncate(left);
        let number = self.number;
        let to_client = std::mem::take(&mut self.to_client);
        let client_closed = self.client_closed;
        *self = Self { to_client, client_closed, broker_closed: true, ..Self::new(number) };
    }

    /// Whether nothing is under way on it.
    pub fn is_quiet(&self) -> bool {
        self.broker_closed || (self.to_broker.is_empty() && self.to_client.is_empty())
    }
}

/// One shard and its descriptor table.
pub struct Station {
    /// The shard under test.
    pub shard: Shard,
    slots: Vec<Option<usize>>,
    backlog: VecDeque<usize>,
    arrivals: VecDeque<(u64, usize)>,
    effects: Vec<Effect>,
}

impl Station {
    /// A station around a shard.
    pub fn new(shard: Shard) -> Self {
        Self {
            shard,
            slots: Vec::new(),
            backlog: VecDeque::new(),
            arrivals: VecDeque::new(),
            effects: Vec::new(),
        }
    }

    /// A client has connected to this shard's listener.
    pub fn connect(&mut self, pipe: usize) {
        self.backlog.push_back(pipe);
    }

    /// Descriptor slots in use.
    pub fn slots_in_use(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    fn take_slot(&mut self, pipe: usize, random: &mut Random) -> u32 {
        let free: Vec<usize> = (0..self.slots.len()).filter(|&n| self.slots[n].is_none()).collect();
        let index = if free.is_empty() || random.chance(20) {
            self.slots.push(None);
            self.slots.len() - 1
        } else {
            free[random.below(free.len())]
        };
        self.slots[index] = Some(pipe);
        u32::try_from(index).expect("few slots")
    }

    /// Completions of one tick, in an order chosen at random, each with some probability.
    pub fn complete(&mut self, own: usize, pipes: &mut [Pipe], random: &mut Random) {
        while !self.backlog.is_empty() && random.chance(70) {
            let pipe = self.backlog.pop_front().expect("it is not empty");
            let index = self.take_slot(pipe, random);
            let port = u16::try_from(pipes[pipe].number % 60_000).expect("below 60,000");
            let peer = ([127, 0, 0, 1], port).into();
            let id = self.shard.accepted(index, ListenerId(0), peer);
            pipes[pipe].at = Some((own, id));
        }
        while !self.arrivals.is_empty() && random.chance(70) {
            let (token, pipe) = self.arrivals.pop_front().expect("it is not empty");
            let index = self.take_slot(pipe, random);
            self.shard.descriptor_arrived(token, index);
        }
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        random.shuffle(&mut order);
        for index in order {
            if let Some(pipe) = self.slots[index] {
                self.complete_pipe(own, &mut pipes[pipe], random);
            }
        }
    }

    fn complete_pipe(&mut self, own: usize, pipe: &mut Pipe, random: &mut Random) {
        let Some((at, id)) = pipe.at else { return };
        if at != own {
            return;
        }
        if random.chance(60) {
            self.complete_send(pipe, id);
        }
        let discards = pipe.closing.is_some();
        if (pipe.reading || discards) && !pipe.to_broker.is_empty() && random.chance(60) {
            let most = pipe.to_broker.len();
            let length = if random.chance(60) { most } else { 1 + random.below(most) };
            let chunk: Vec<u8> = pipe.to_broker.drain(..length).collect();
            self.shard.received(id, &chunk);
        }
        let drained = pipe.client_closed && pipe.to_broker.is_empty() && pipe.reading;
        if drained && !pipe.end_reported && random.chance(60) {
            pipe.end_reported = true;
            self.shard.receive_ended(id, ReceiveEnd::PeerClosed);
        }
        self.close_when_done(pipe, id);
    }

    fn complete_send(&mut self, pipe: &mut Pipe, id: ConnectionId) {
        let Some(outgoing) = pipe.in_flight.take() else { return };
        let result = if pipe.client_closed {
            Err(32)
        } else {
            match &outgoing {
                Outgoing::Bytes(bytes) => pipe.to_client.extend(bytes),
                Outgoing::Shared(bytes) => pipe.to_client.extend(bytes),
                Outgoing::Segments(all) => all.iter().for_each(|b| pipe.to_client.extend(b)),
            }
            Ok(())
        };
        self.shard.sent(id, outgoing, result);
    }

    fn close_when_done(&mut self, pipe: &mut Pipe, id: ConnectionId) {
        let Some(mode) = pipe.closing else { return };
        if pipe.in_flight.is_some() {
            return;
        }
        if mode == CloseMode::Linger
            && let Some(outgoing) = self.shard.take_outgoing(id)
        {
            pipe.in_flight = Some(outgoing);
            return;
        }
        self.slots[id.index as usize] = None;
        pipe.at = None;
        pipe.broker_closed = true;
        self.shard.closed(id.index);
    }

    /// Plays out the effects of a tick; hand-overs are returned for the other stations: (target, token, pipe).
    pub fn apply(&mut self, own: usize, pipes: &mut [Pipe]) -> Vec<(usize, u64, usize)> {
        let mut effects = std::mem::take(&mut self.effects);
        let mut moved = Vec::new();
        self.shard.drain_effects(&mut effects);
        for effect in effects.drain(..) {
            let Some((pipe, id)) = self.subject(effect) else { continue };
            let target = &mut pipes[pipe];
            match effect {
                Effect::StartReceive(_) => {
                    target.at = Some((own, id));
                    target.reading = true;
                }
                Effect::ResumeReceive(_) => target.reading = true,
                Effect::PauseReceive(_) => target.reading = false,
                Effect::Flush(_) => {
                    if target.in_flight.is_none() {
                        target.in_flight = self.shard.take_outgoing(id);
                    }
                }
                Effect::HandOver { to, token, .. } => {
                    target.leaving = Some((to.index(), token));
                    target.reading = false;
                    self.shard.detach(id);
                    self.shard.descriptor_sent(id, Ok(()));
                    self.slots[id.index as usize] = None;
                    self.shard.closed(id.index);
                    target.at = None;
                    moved.push((to.index(), token, pipe));
                }
                Effect::Close { mode, .. } => {
                    target.closing = Some(mode);
                    target.reading = false;
                }
                Effect::Farewell { .. } | Effect::Doorbell(_) => {}
            }
        }
        self.effects = effects;
        moved
    }

    /// A connection arrives from another station.
    pub fn arrive(&mut self, token: u64, pipe: usize) {
        self.arrivals.push_back((token, pipe));
    }

    fn subject(&self, effect: Effect) -> Option<(usize, ConnectionId)> {
        let id = match effect {
            Effect::Flush(id)
            | Effect::StartReceive(id)
            | Effect::PauseReceive(id)
            | Effect::ResumeReceive(id)
            | Effect::HandOver { id, .. }
            | Effect::Farewell { id, .. }
            | Effect::Close { id, .. } => id,
            Effect::Doorbell(_) => return None,
        };
        let pipe = self.slots[id.index as usize];
        if pipe.is_none() && matches!(effect, Effect::Flush(_)) {
            // It was asked for in the tick in which the connection was closed; as the reactor does.
            return None;
        }
        Some((pipe.expect("effects are about open connections"), id))
    }
}
