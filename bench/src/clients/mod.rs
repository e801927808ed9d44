//! The clients of a scenario on one generator thread, from the connect to the last message.
//!
//! Invariants: a client is counted exactly once as ready or failed; a message's latency counts from when it was to be
//! sent, not from when it was; no queue of a client grows beyond its publisher's window or what it may have unsent.

mod churn;
mod failure;
mod opening;
mod publisher;
mod sending;
mod shared;
#[cfg(test)]
mod tests;
mod tracks;

pub use failure::Failure;
pub use shared::{Counters, Report, Shared, add};

use crate::engine::{Agent, CloseCause, Net, Route, Timer};
use crate::plan::{Counts, Load, Plan, Role, Shape, Urgency};
use crate::sys;
use crate::wire::{self, Frame, Malformed};
use churn::Churn;
use filter::ClientFilterSettings;
use opening::Opening;
use sending::Sending;
use shard::CloseMode;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tracks::Tracks;

/// Time for all connections to be closed at the end of a run.
const STOP_PATIENCE_NS: u64 = 2_000_000_000;

/// How far a client is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// Not opened yet, or to be opened again.
    Planned,
    /// The connection is being opened.
    Connecting,
    /// CONNECT is sent.
    AwaitConnAck,
    /// SUBSCRIBE is sent.
    AwaitSubAck,
    /// Takes part.
    Ready,
    /// Closed or failed, and counted.
    Gone,
}

/// What a timer is for; the rest of its tag is a count that tells a stale one.
mod due {
    /// The next client is to be opened.
    pub const OPEN: u32 = 0;
    /// A client that failed is to be opened again.
    pub const RETRY: u32 = 1;
    /// The next PINGREQ.
    pub const PING: u32 = 2;
    /// The next paced message.
    pub const PACE: u32 = 3;
    /// Publishers are awake.
    pub const FILL: u32 = 4;
    /// What other threads have heard may let publishers go on.
    pub const POLL: u32 = 5;
    /// The next churning client.
    pub const CHURN: u32 = 6;
    /// A churning client has stayed long enough.
    pub const LEAVE: u32 = 7;
    /// Bits of these numbers.
    pub const BITS: u32 = 3;
}

/// What the leading thread wants.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// Open all clients.
    Connect,
    /// Lose all clients and open them again.
    Storm,
    /// Send; the first message is due then.
    Send(u64),
    /// Only receive.
    Drain,
    /// Hand in the report, say DISCONNECT and end.
    Stop,
}

/// One client.
#[derive(Clone, Copy, Debug)]
struct Client {
    /// When its connect began, or was to begin.
    opened_ns: u64,
    stage: Stage,
}

/// All clients of one thread.
pub struct Clients {
    plan: Arc<Plan>,
    load: Arc<Load>,
    shared: Arc<Shared>,
    thread: u32,
    counts: Counts,
    /// Where the thread may run, if it is not pinned.
    affinity: Vec<usize>,
    clients: Vec<Client>,
    opening: Opening,
    sending: Sending,
    churn: Churn,
    tracks: Tracks,
    report: Report,
}

fn index(number: u32) -> usize {
    usize::try_from(number).expect("32 bits fit")
}

impl Clients {
    /// The clients of `thread`.
    pub fn new(plan: Arc<Plan>, load: Arc<Load>, shared: Arc<Shared>, thread: u32) -> Clients {
        let counts = plan.on_thread(thread);
        let hearing = if counts.hearing > 0 { counts.hearing } else { counts.publishers };
        let tracks = match plan.shape {
            Shape::Shared => 0,
            _ => index(hearing) * index(plan.heard()),
        };
        let (sending, churn) = (Sending::new(&plan, &load, counts), Churn::new(&plan, counts));
        let affinity = if load.cpus.is_empty() { reactor::available_cpus() } else { Vec::new() };
        Clients {
            thread,
            counts,
            affinity,
            clients: vec![Client { opened_ns: 0, stage: Stage::Planned }; index(counts.clients())],
            opening: Opening::default(),
            sending,
            churn,
            tracks: Tracks::new(tracks),
            report: Report::default(),
            plan,
            load,
            shared,
        }
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters[index(self.thread)]
    }

    /// The number of what this thread has in place `local` of its kind.
    fn number(&self, local: u32) -> u32 {
        local.wrapping_mul(self.plan.threads).wrapping_add(self.thread)
    }

    fn role(&self, client: u32) -> Role {
        match self.plan.shape {
            Shape::Churn | Shape::Visits => Role::Idle(self.number(self.churn.turn(client))),
            _ => self.plan.role(self.thread, client),
        }
    }

    fn stage(&mut self, client: u32) -> &mut Stage {
        &mut self.clients[index(client)].stage
    }

    // ---- the end of a client

    fn fail(&mut self, net: &mut Net, client: u32, failure: Failure) {
        match *self.stage(client) {
            Stage::Gone | Stage::Planned => return,
            Stage::Ready => add(&self.counters().ready, u64::MAX),
            _ => self.opening.outstanding -= 1,
        }
        net.close(client, CloseMode::Now);
        self.shared.count(failure);
        *self.stage(client) = Stage::Planned;
        if self.plan.churns() {
            self.churn_failed(net, client);
        } else if self.opening.is_storm {
            self.retry_later(net, client);
        } else {
            *self.stage(client) = Stage::Gone;
            add(&self.counters().failed, 1);
        }
        self.open_more(net);
    }

    fn malformed(&mut self, net: &mut Net, client: u32) {
        self.fail(net, client, Failure::Malformed);
    }

    fn stop(&mut self, net: &mut Net) {
        self.sending.is_on = false;
        self.opening.is_over = true;
        for client in 0..self.counts.clients() {
            if *self.stage(client) == Stage::Ready && self.plan.is_mqtt() {
                self.say_goodbye(net, client);
            } else {
                net.close(client, CloseMode::Now);
            }
            *self.stage(client) = Stage::Gone;
        }
        self.shared.hand_in(std::mem::take(&mut self.report));
        net.stop(STOP_PATIENCE_NS);
    }

    fn say_goodbye(&self, net: &mut Net, client: u32) {
        if let Some(outbox) = net.outbox(client) {
            outbox.extend_from_slice(&wire::DISCONNECT);
        }
        net.close(client, CloseMode::Linger);
    }

    // ---- packets

    fn handle(&mut self, net: &mut Net, client: u32, frame: &Frame<'_>) -> Result<(), Malformed> {
        match frame.first >> 4 {
            3 => return self.on_publish(net, client, frame),
            2 => self.on_connack(net, client, frame),
            9 => self.on_suback(net, client, frame),
            4 | 7 => self.on_acknowledged(net, client),
            5 => acknowledge(net, client, 0x62, wire::word(frame.body, 0)?),
            6 => acknowledge(net, client, 0x70, wire::word(frame.body, 0)?),
            13 => self.report.pings[1] += 1,
            14 => {
                let code = frame.body.first().copied().unwrap_or(0);
                self.fail(net, client, Failure::Disconnect(code));
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn on_connack(&mut self, net: &mut Net, client: u32, frame: &Frame<'_>) {
        match frame.body.get(1) {
            Some(0) => {}
            Some(code) => return self.fail(net, client, Failure::ConnAck(*code)),
            None => return self.malformed(net, client),
        }
        let role = self.role(client);
        let subscribes = net
            .outbox(client)
            .is_some_and(|outbox| self.plan.put_subscribe(outbox, &self.load, role));
        if subscribes {
            *self.stage(client) = Stage::AwaitSubAck;
        } else {
            self.became_ready(net, client);
        }
    }

    fn on_suback(&mut self, net: &mut Net, client: u32, frame: &Frame<'_>) {
        // The codes are the last bytes, one for each filter, whatever properties are before them.
        let filters = match self.role(client) {
            Role::Hears(_) if self.plan.shape == Shape::Fanout => index(self.plan.topics()),
            _ => 1,
        };
        let Some(at) = frame.body.len().checked_sub(filters) else {
            return self.malformed(net, client);
        };
        match frame.body[at..].iter().find(|code| **code > 2) {
            None => self.became_ready(net, client),
            Some(code) => self.fail(net, client, Failure::SubAck(*code)),
        }
    }

    fn on_publish(
        &mut self,
        net: &mut Net,
        client: u32,
        frame: &Frame<'_>,
    ) -> Result<(), Malformed> {
        let incoming = wire::publish(frame, self.load.version)?;
        // Echoed bytes of the QoS 1 and 2 shapes are no packets that anybody waits for.
        if self.plan.is_mqtt() {
            match incoming.qos {
                0 => {}
                1 => acknowledge(net, client, 0x40, incoming.packet_id),
                _ => acknowledge(net, client, 0x50, incoming.packet_id),
            }
        }
        self.hear(net, client, incoming.payload);
        Ok(())
    }
}

fn acknowledge(net: &mut Net, client: u32, first: u8, packet_id: u16) {
    if let Some(outbox) = net.outbox(client) {
        wire::acknowledge(outbox, first, packet_id);
    }
}

impl Agent for Clients {
    type Command = Command;

    fn start(&mut self, _: &mut Net) {
        if !self.affinity.is_empty() {
            // The reactor has pinned its thread. Should the kernel refuse, it stays where it is.
            let _ = sys::pin(&self.affinity);
        }
        // Should the kernel refuse, it takes its turn as all others.
        let _ = match self.load.urgency {
            Urgency::Background => sys::be_nice(),
            Urgency::Ordinary => Ok(()),
            Urgency::Probe => sys::be_first(),
        };
    }

    fn route(&mut self, client: u32) -> Route {
        let number = match self.role(client) {
            Role::Idle(number) if self.plan.churns() => number,
            _ => self.number(client),
        };
        let from = match self.load.sources.len() {
            0 => None,
            count => Some(SocketAddr::new(IpAddr::V4(self.load.sources[index(number) % count]), 0)),
        };
        Route { from, to: SocketAddr::V4(self.load.target) }
    }

    fn layers(&self, _: u32) -> Option<&ClientFilterSettings> {
        self.load.layers.as_deref()
    }

    fn secured(&mut self, net: &mut Net, client: u32, is_resumed: bool) {
        let counters = self.counters();
        add(&counters.handshakes[usize::from(is_resumed)], 1);
        let took = net.now_ns().saturating_sub(self.clients[index(client)].opened_ns);
        self.report.handshake.saturating_record(took);
    }

    fn opened(&mut self, net: &mut Net, client: u32) {
        if !self.plan.is_mqtt() {
            return self.became_ready(net, client);
        }
        *self.stage(client) = Stage::AwaitConnAck;
        let role = self.role(client);
        if let Some(outbox) = net.outbox(client) {
            self.plan.put_connect(outbox, &self.load, role);
        }
    }

    #[inline]
    fn packet(&mut self, net: &mut Net, client: u32, frame: &Frame<'_>) {
        if self.handle(net, client, frame).is_err() {
            self.malformed(net, client);
        }
    }

    fn failed(&mut self, net: &mut Net, client: u32, errno: i32) {
        self.fail(net, client, Failure::Connect(errno));
    }

    fn closed(&mut self, net: &mut Net, client: u32, cause: CloseCause) {
        let failure = match cause {
            CloseCause::PeerClosed => Failure::Closed(*self.stage(client)),
            CloseCause::Failed(errno) => Failure::Broken(errno),
            CloseCause::Malformed => Failure::Malformed,
            CloseCause::Layers(reason) => Failure::Layers(reason),
        };
        self.fail(net, client, failure);
    }

    fn drained(&mut self, net: &mut Net, client: u32) {
        if let Some(publisher) = self.publisher_of(client) {
            self.wake(net, publisher);
        }
    }

    fn timer(&mut self, net: &mut Net, timer: Timer) {
        match timer.tag % (1 << due::BITS) {
            due::OPEN => {
                self.opening.has_timer = false;
                self.open_more(net);
            }
            due::RETRY => self.retry(net, timer.client),
            due::PING => self.ping(net),
            due::PACE => self.pace(net),
            due::FILL => self.fill_awake(net),
            due::POLL => self.poll(net),
            due::CHURN => self.churn_more(net),
            _ => self.leave(net, timer.client, timer.tag >> due::BITS),
        }
    }

    fn command(&mut self, net: &mut Net, command: Command) {
        match command {
            Command::Connect => self.connect(net),
            Command::Storm => self.storm(net),
            Command::Send(start_ns) if self.plan.churns() => {
                self.start_churn(net, start_ns);
            }
            Command::Send(start_ns) => self.start_sending(net, start_ns),
            Command::Drain => {
                self.sending.is_on = false;
                self.churn.stop();
            }
            Command::Stop => self.stop(net),
        }
    }
}
