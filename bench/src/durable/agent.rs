//! The clients of the durable scenarios, on one thread: sessions that are left behind and come back, publishers in closed loop, and
//! one client that asks for retained messages.
//!
//! Clients are numbered: first the sessions, then the publishers, then the one that watches.

use super::layout::Layout;
use super::tally::{Found, Tally, add};
use crate::engine::{Agent, CloseCause, Net, Route, Timer};
use crate::plan::Load;
use crate::sys;
use crate::wire::{self, Frame, Malformed, Stamp, Template};
use filter::ClientFilterSettings;
use shard::CloseMode;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Time for all connections to be closed at the end.
const STOP_PATIENCE_NS: u64 = 2_000_000_000;
/// How long a client that failed waits before it tries again.
const RETRY_NS: u64 = 200_000_000;
/// Bytes of a publisher that may wait for the kernel.
const UNSENT_MAX: usize = 128 * 1024;

/// What the leading thread wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// Each session is made, subscribes and is left.
    Create,
    /// Each session is ended for good.
    Discard,
    /// So many sessions, the first ones, come back for their messages.
    Return(u32),
    /// The publishers connect.
    Connect,
    /// The publishers send, until all their topics have their messages; without a number of them, on and on.
    Publish,
    /// No publisher sends any more.
    Hold,
    /// The watcher asks for the retained messages of this many first levels, one after the other.
    Watch(u32),
    /// Say DISCONNECT and end.
    Stop,
}

/// What a session's client is about.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Stage {
    #[default]
    Away,
    Opening,
    AwaitConnAck,
    AwaitSubAck,
    /// Hears what was kept for it.
    Hears,
}

/// A session.
#[derive(Clone, Copy, Debug, Default)]
struct Session {
    begun_ns: u64,
    /// The message of its topic that comes next.
    next: u32,
    stage: Stage,
}

const _: () = assert!(size_of::<Session>() <= 16, "hundreds of thousands of sessions fit");

/// A publisher.
#[derive(Debug, Default)]
struct Publisher {
    sent: u64,
    packet_id: u16,
    is_ready: bool,
    /// What is not acknowledged to the end: packet ids, and when they were handed to the connection.
    inflight: VecDeque<(u16, u64)>,
}

/// A wave of sessions: a number of them, a window at a time.
#[derive(Clone, Copy, Debug)]
struct Wave {
    what: Command,
    next: u32,
    end: u32,
    outstanding: u32,
}

/// The watcher.
#[derive(Debug, Default)]
struct Watcher {
    /// First levels still to be asked for.
    left: u32,
    /// The one that is asked for now.
    group: u64,
    heard: Vec<bool>,
    asked_ns: u64,
    packet_id: u16,
}

/// All clients.
pub struct Clients {
    layout: Layout,
    load: Arc<Load>,
    tally: Arc<Tally>,
    affinity: Vec<usize>,
    sessions: Vec<Session>,
    publishers: Vec<Publisher>,
    watcher: Watcher,
    wave: Option<Wave>,
    /// Publishers send.
    is_sending: bool,
    template: Template,
    found: Found,
}

fn index(number: u32) -> usize {
    usize::try_from(number).expect("32 bits fit")
}

impl Clients {
    /// Nobody is there.
    pub fn new(layout: Layout, load: Arc<Load>, tally: Arc<Tally>) -> Clients {
        let affinity = if load.cpus.is_empty() { reactor::available_cpus() } else { Vec::new() };
        let topic = layout.topic(0);
        let mut template = Template::new(load.version, &topic, load.qos, load.payload_len);
        if layout.is_retained() {
            template.retain();
        }
        Clients {
            sessions: vec![Session::default(); index(layout.sessions)],
            publishers: (0..layout.publishers).map(|_| Publisher::default()).collect(),
            watcher: Watcher::default(),
            wave: None,
            is_sending: false,
            template,
            found: Found::default(),
            affinity,
            layout,
            load,
            tally,
        }
    }

    fn publisher_of(&self, client: u32) -> Option<u32> {
        client.checked_sub(self.layout.sessions).filter(|at| *at < self.layout.publishers)
    }

    // ---- sessions

    fn begin_wave(&mut self, net: &mut Net, what: Command, count: u32) {
        let end = count.min(self.layout.sessions);
        self.wave = Some(Wave { what, next: 0, end, outstanding: 0 });
        self.open_sessions(net);
    }

    fn open_sessions(&mut self, net: &mut Net) {
        let Some(mut wave) = self.wave else { return };
        while wave.next < wave.end && wave.outstanding < self.load.connect_window {
            let session = &mut self.sessions[index(wave.next)];
            *session = Session { begun_ns: net.now_ns(), next: 0, stage: Stage::Opening };
            net.open(wave.next);
            wave.next += 1;
            wave.outstanding += 1;
        }
        self.wave = Some(wave);
    }

    /// A session has what this wave is for: it is left, and the next comes.
    fn leave(&mut self, net: &mut Net, client: u32) {
        let session = &mut self.sessions[index(client)];
        session.stage = Stage::Away;
        let took = net.now_ns().saturating_sub(session.begun_ns);
        disconnect(net, client);
        if let Some(wave) = &mut self.wave {
            wave.outstanding -= 1;
            match wave.what {
                Command::Return(_) => self.found.returned.saturating_record(took),
                Command::Create => self.found.created.saturating_record(took),
                _ => {}
            }
        }
        add(&self.tally.through, 1);
        self.tally.last_ns.store(net.now_ns(), Relaxed);
        self.open_sessions(net);
    }

    fn session_connected(
        &mut self,
        net: &mut Net,
        client: u32,
        has_session: bool,
    ) -> Result<(), Malformed> {
        let Some(wave) = self.wave else { return Err(Malformed) };
        match wave.what {
            Command::Create => {
                self.sessions[index(client)].stage = Stage::AwaitSubAck;
                let topic = self.layout.topic(u64::from(client));
                if let Some(outbox) = net.outbox(client) {
                    // As much as there is: what is measured comes from the publishers.
                    wire::subscribe(outbox, self.load.version, 1, &topic, self.load.qos);
                }
            }
            Command::Return(_) => {
                add(&self.tally.sessions_missing, u64::from(!has_session));
                self.sessions[index(client)].stage = Stage::Hears;
                if self.layout.messages == 0 || !has_session {
                    self.leave(net, client);
                }
            }
            _ => self.leave(net, client),
        }
        Ok(())
    }

    /// A message came for a session, in its order or not.
    fn session_heard(&mut self, net: &mut Net, client: u32, stamp: Stamp) {
        let messages = self.layout.messages;
        let session = &mut self.sessions[index(client)];
        if session.stage != Stage::Hears {
            return;
        }
        if stamp.publisher != client || stamp.sequence >= messages {
            add(&self.tally.foreign, 1);
        } else if stamp.sequence < session.next {
            add(&self.tally.repeated, 1);
        } else {
            add(&self.tally.lost, u64::from(stamp.sequence - session.next));
            add(&self.tally.heard, 1);
            session.next = stamp.sequence + 1;
        }
        if session.next == messages {
            self.leave(net, client);
        }
    }

    // ---- publishers

    /// Sends what the window allows.
    fn fill(&mut self, net: &mut Net, publisher: u32) {
        let client = self.layout.sessions + publisher;
        let window = usize::try_from(self.load.window).expect("bounded");
        let room = UNSENT_MAX.saturating_sub(net.unsent(client)).div_ceil(self.template.len());
        let now_ns = net.now_ns();
        let state = &mut self.publishers[index(publisher)];
        if !state.is_ready || !self.is_sending {
            return;
        }
        let all = match self.layout.messages {
            0 => u64::MAX,
            _ => self.layout.messages_of(publisher),
        };
        let wants = usize::try_from(all.saturating_sub(state.sent)).unwrap_or(usize::MAX);
        let free = window.saturating_sub(state.inflight.len()).min(wants);
        let count = free.min(room);
        if count > 0
            && let Some(outbox) = net.outbox(client)
        {
            for _ in 0..count {
                let (topic, sequence) = self.layout.message(publisher, state.sent);
                self.template.set_topic(&self.layout.topic(topic));
                // Never 0 (MQTT-2.2.1-3); the window is smaller than the ids there are.
                state.packet_id = state.packet_id.checked_add(1).unwrap_or(1);
                let of = u32::try_from(topic).unwrap_or(u32::MAX);
                let stamp = Stamp { publisher: of, sequence, intended_ns: now_ns };
                self.template.append(outbox, state.packet_id, &stamp);
                state.inflight.push_back((state.packet_id, now_ns));
                state.sent += 1;
            }
            add(&self.tally.sent, u64::try_from(count).expect("bounded"));
        }
        if free > room {
            net.when_drained(client);
        }
    }

    fn acknowledged(
        &mut self,
        net: &mut Net,
        client: u32,
        frame: &Frame<'_>,
    ) -> Result<(), Malformed> {
        let Some(publisher) = self.publisher_of(client) else { return Err(Malformed) };
        let packet_id = wire::word(frame.body, 0)?;
        // 0x10: nobody subscribes to it.
        let is_refused = frame.body.get(2).is_some_and(|code| *code >= 0x80);
        let state = &mut self.publishers[index(publisher)];
        let at = state.inflight.iter().position(|(id, _)| *id == packet_id).ok_or(Malformed)?;
        let (_, sent_ns) = state.inflight.remove(at).expect("just found");
        let took = net.now_ns().saturating_sub(sent_ns);
        let slot = usize::from(self.tally.slot.load(Relaxed));
        self.found.acknowledged[slot].saturating_record(took);
        add(&self.tally.answered, 1);
        add(&self.tally.refused, u64::from(is_refused));
        self.tally.last_ns.store(net.now_ns(), Relaxed);
        self.fill(net, publisher);
        Ok(())
    }

    // ---- the watcher

    fn ask(&mut self, net: &mut Net) {
        let client = self.layout.watcher();
        let watcher = &mut self.watcher;
        if watcher.left == 0 {
            disconnect(net, client);
            add(&self.tally.watched, 1);
            return;
        }
        watcher.left -= 1;
        // Spread over all of them.
        let groups = self.layout.groups();
        watcher.group = (watcher.group + groups / 7 * 3 + 1) % groups;
        watcher.heard.clear();
        watcher.heard.resize(index(self.layout.per_group), false);
        watcher.packet_id = watcher.packet_id % u16::MAX + 1;
        watcher.asked_ns = net.now_ns();
        let filter = self.layout.group_filter(watcher.group);
        let (version, packet_id) = (self.load.version, watcher.packet_id);
        if let Some(outbox) = net.outbox(client) {
            wire::subscribe(outbox, version, packet_id, &filter, self.load.qos);
        }
    }

    fn watcher_heard(&mut self, net: &mut Net, stamp: Stamp) {
        let per_group = u64::from(self.layout.per_group);
        let (group, at) =
            (u64::from(stamp.publisher) / per_group, u64::from(stamp.publisher) % per_group);
        let heard = usize::try_from(at).ok().and_then(|at| self.watcher.heard.get_mut(at));
        match heard {
            Some(heard) if group == self.watcher.group => {
                let is_new = !std::mem::replace(heard, true);
                add(if is_new { &self.tally.heard } else { &self.tally.repeated }, 1);
            }
            _ => return add(&self.tally.foreign, 1),
        }
        if self.watcher.heard.iter().all(|heard| *heard) {
            let took = net.now_ns().saturating_sub(self.watcher.asked_ns);
            self.found.retained.saturating_record(took);
            self.ask(net);
        }
    }

    // ---- connections

    fn put_connect(&self, out: &mut Vec<u8>, client: u32) {
        let (letter, number) = match self.publisher_of(client) {
            Some(publisher) => (b'p', publisher),
            None if client == self.layout.watcher() => (b'w', 0),
            None => (b'k', client),
        };
        let id = self.layout.names.client_id(letter, u64::from(number));
        let discards = self.wave.is_some_and(|wave| wave.what == Command::Discard);
        let is_clean = letter != b'k' || discards;
        let expiry_s = if is_clean { 0 } else { self.layout.expiry_s };
        // A session may wait for its messages as long as it takes.
        let connect = wire::Connect { is_clean, expiry_s, keep_alive_s: 0 };
        connect.put(out, self.load.version, id.as_str());
    }

    fn connected(
        &mut self,
        net: &mut Net,
        client: u32,
        frame: &Frame<'_>,
    ) -> Result<(), Malformed> {
        let (flags, code) = match frame.body {
            [flags, code, ..] => (*flags, *code),
            _ => return Err(Malformed),
        };
        if code != 0 {
            self.again(net, client, format!("CONNACK 0x{code:02X}"));
            return Ok(());
        }
        if let Some(publisher) = self.publisher_of(client) {
            self.publishers[index(publisher)].is_ready = true;
            add(&self.tally.publishers, 1);
            self.fill(net, publisher);
        } else if client == self.layout.watcher() {
            self.ask(net);
        } else {
            self.session_connected(net, client, flags & 1 == 1)?;
        }
        Ok(())
    }

    /// A client failed: a session tries again, all others are counted and missed.
    fn again(&mut self, net: &mut Net, client: u32, reason: String) {
        net.close(client, CloseMode::Now);
        self.tally.count(reason);
        if let Some(publisher) = self.publisher_of(client) {
            let state = &mut self.publishers[index(publisher)];
            if std::mem::take(&mut state.is_ready) {
                add(&self.tally.publishers, u64::MAX);
            }
        } else if client < self.layout.sessions {
            self.sessions[index(client)].stage = Stage::Away;
            net.at(net.now_ns() + RETRY_NS, Timer { client, tag: 0 });
        }
    }

    fn handle(&mut self, net: &mut Net, client: u32, frame: &Frame<'_>) -> Result<(), Malformed> {
        match frame.first >> 4 {
            2 => self.connected(net, client, frame)?,
            3 => self.published(net, client, frame)?,
            4 | 7 => self.acknowledged(net, client, frame)?,
            // A message that is refused goes no further.
            5 if frame.body.get(2).is_some_and(|code| *code >= 0x80) => {
                self.acknowledged(net, client, frame)?;
            }
            5 => acknowledge(net, client, 0x62, wire::word(frame.body, 0)?),
            6 => acknowledge(net, client, 0x70, wire::word(frame.body, 0)?),
            9 => match frame.body.last() {
                Some(0..=2) if client < self.layout.sessions => self.leave(net, client),
                Some(0..=2) => {}
                Some(code) => self.again(net, client, format!("SUBACK 0x{code:02X}")),
                None => return Err(Malformed),
            },
            13 => {}
            14 => {
                let code = frame.body.first().copied().unwrap_or(0);
                self.again(net, client, format!("DISCONNECT 0x{code:02X} from the broker"));
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn published(
        &mut self,
        net: &mut Net,
        client: u32,
        frame: &Frame<'_>,
    ) -> Result<(), Malformed> {
        let incoming = wire::publish(frame, self.load.version)?;
        match incoming.qos {
            0 => {}
            1 => acknowledge(net, client, 0x40, incoming.packet_id),
            _ => acknowledge(net, client, 0x50, incoming.packet_id),
        }
        match Stamp::read(incoming.payload) {
            None => add(&self.tally.foreign, 1),
            Some(stamp) if client == self.layout.watcher() => self.watcher_heard(net, stamp),
            Some(stamp) if client < self.layout.sessions => self.session_heard(net, client, stamp),
            Some(_) => add(&self.tally.foreign, 1),
        }
        Ok(())
    }
}

fn acknowledge(net: &mut Net, client: u32, first: u8, packet_id: u16) {
    if let Some(outbox) = net.outbox(client) {
        wire::acknowledge(outbox, first, packet_id);
    }
}

fn disconnect(net: &mut Net, client: u32) {
    if let Some(outbox) = net.outbox(client) {
        outbox.extend_from_slice(&wire::DISCONNECT);
    }
    net.close(client, CloseMode::Linger);
}

impl Agent for Clients {
    type Command = Command;

    fn start(&mut self, _: &mut Net) {
        if !self.affinity.is_empty() {
            // The reactor has pinned its thread. Should the kernel refuse, it stays where it is.
            let _ = sys::pin(&self.affinity);
        }
    }

    fn route(&mut self, client: u32) -> Route {
        let from = match self.load.sources.len() {
            0 => None,
            count => Some(SocketAddr::new(IpAddr::V4(self.load.sources[index(client) % count]), 0)),
        };
        Route { from, to: SocketAddr::V4(self.load.target) }
    }

    fn layers(&self, _: u32) -> Option<&ClientFilterSettings> {
        self.load.layers.as_deref()
    }

    fn opened(&mut self, net: &mut Net, client: u32) {
        if client < self.layout.sessions {
            self.sessions[index(client)].stage = Stage::AwaitConnAck;
        }
        let mut packet = Vec::with_capacity(64);
        self.put_connect(&mut packet, client);
        if let Some(outbox) = net.outbox(client) {
            outbox.extend_from_slice(&packet);
        }
    }

    fn packet(&mut self, net: &mut Net, client: u32, frame: &Frame<'_>) {
        if self.handle(net, client, frame).is_err() {
            self.again(net, client, "malformed packet from the broker".to_owned());
        }
    }

    fn failed(&mut self, net: &mut Net, client: u32, errno: i32) {
        let text = std::io::Error::from_raw_os_error(errno);
        self.again(net, client, format!("connect: {text}"));
    }

    fn closed(&mut self, net: &mut Net, client: u32, cause: CloseCause) {
        let reason = match cause {
            CloseCause::PeerClosed => "closed by the broker".to_owned(),
            CloseCause::Failed(errno) => std::io::Error::from_raw_os_error(errno).to_string(),
            CloseCause::Malformed => "malformed packet from the broker".to_owned(),
            CloseCause::Layers(reason) => format!("TLS or WebSocket failed: {reason}"),
        };
        self.again(net, client, reason);
    }

    fn drained(&mut self, net: &mut Net, client: u32) {
        if let Some(publisher) = self.publisher_of(client) {
            self.fill(net, publisher);
        }
    }

    fn timer(&mut self, net: &mut Net, timer: Timer) {
        let session = &mut self.sessions[index(timer.client)];
        if session.stage == Stage::Away && self.wave.is_some() {
            session.stage = Stage::Opening;
            net.open(timer.client);
        }
    }

    fn command(&mut self, net: &mut Net, command: Command) {
        match command {
            Command::Create | Command::Discard => {
                self.begin_wave(net, command, self.layout.sessions);
            }
            Command::Return(count) => self.begin_wave(net, command, count),
            Command::Connect => {
                for publisher in 0..self.layout.publishers {
                    net.open(self.layout.sessions + publisher);
                }
            }
            Command::Publish => {
                self.is_sending = true;
                for publisher in 0..self.layout.publishers {
                    self.fill(net, publisher);
                }
            }
            Command::Hold => self.is_sending = false,
            Command::Watch(count) => {
                self.watcher.left = count;
                net.open(self.layout.watcher());
            }
            Command::Stop => {
                self.wave = None;
                for client in 0..self.layout.clients() {
                    disconnect(net, client);
                }
                self.tally.hand_in(std::mem::take(&mut self.found));
                net.stop(STOP_PATIENCE_NS);
            }
        }
    }
}
