//! The clients of one thread: how they come up, stay up and come back.

use std::sync::atomic::Ordering::Relaxed;

use filter::ClientFilterSettings;
use shard::CloseMode;

use super::config::Role;
use super::context::Context;
use super::counters::Counter;
use super::lines::Kind;
use super::packets::{self, ConnAck};
use super::publisher::{Next, Publishers};
use super::random::mix;
use super::reason;
use super::subscriber::Received;
use crate::engine::{Agent, CloseCause, Net, Route, Timer};
use crate::wire::{self, Frame, Malformed};

/// How long a broker may take for a CONNACK or SUBACK.
const HANDSHAKE_NS: u64 = 60_000_000_000;
/// Clients of a thread that come up at a time if no rate is given.
const HANDSHAKES_MAX: usize = 512;
/// The longest wait before a lost client connects again.
const RECONNECT_SECONDS_MAX: u32 = 5;
/// How long closing may take when the run ends.
const STOP_NS: u64 = 2_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// What the main thread wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// All clients of all threads are started: publish.
    Go,
    /// Disconnect and end.
    Stop,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Phase {
    /// Not started, or waiting to connect again.
    #[default]
    Waiting,
    Opening,
    AwaitConnAck,
    AwaitSubAck,
    Ready,
    /// Ended for good.
    Gone,
}

/// One client.
#[derive(Clone, Copy, Debug, Default)]
struct Client {
    /// Connects tried again since the last success.
    tries: u32,
    keep_alive_s: u16,
    /// Counts the connections, so that timers of old ones are known.
    epoch: u16,
    phase: Phase,
    has_connected: bool,
    awaits_pong: bool,
}

const _: () = assert!(size_of::<Client>() <= 12, "a million idle clients must fit");

/// What a timer is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Due {
    Ramp,
    Handshake,
    Ping,
    Reconnect,
    Begin,
    Publish(u32),
    Retry,
}

impl Due {
    /// With the connection it belongs to, in one word: 4 bits, 12 for a topic, 16 for the connection.
    fn tag(self, epoch: u16) -> u32 {
        let (kind, topic) = match self {
            Due::Ramp => (0, 0),
            Due::Handshake => (1, 0),
            Due::Ping => (2, 0),
            Due::Reconnect => (3, 0),
            Due::Begin => (4, 0),
            Due::Publish(topic) => (5, topic),
            Due::Retry => (6, 0),
        };
        kind << 28 | (topic & 0xFFF) << 16 | u32::from(epoch)
    }

    fn of(tag: u32) -> (Due, u16) {
        let due = match tag >> 28 {
            0 => Due::Ramp,
            1 => Due::Handshake,
            2 => Due::Ping,
            3 => Due::Reconnect,
            4 => Due::Begin,
            5 => Due::Publish(tag >> 16 & 0xFFF),
            _ => Due::Retry,
        };
        let [high, low] = [tag.to_be_bytes()[2], tag.to_be_bytes()[3]];
        (due, u16::from_be_bytes([high, low]))
    }
}

/// The agent of `conn`, `sub` and `pub`.
#[derive(Debug)]
pub struct Clients {
    ctx: Context,
    clients: Vec<Client>,
    received: Received,
    publishers: Option<Publishers>,
    /// The next client to start.
    next: u32,
    begin_ns: u64,
    /// Clients between their start and being ready.
    handshakes: usize,
    /// Clients that may not publish before [`Command::Go`].
    held: Option<Vec<u32>>,
    is_stopping: bool,
}

impl Clients {
    /// For one thread.
    pub fn new(ctx: Context) -> Clients {
        let count = usize::try_from(ctx.clients()).expect("32 bits fit");
        let (publishers, waits) = match &ctx.shared.config.role {
            Role::Pub(spec) => (Some(Publishers::new(&ctx)), spec.waits_for_all),
            Role::Conn | Role::Sub(_) => (None, false),
        };
        Clients {
            received: Received::new(&ctx),
            ctx,
            clients: vec![Client::default(); count],
            publishers,
            next: 0,
            begin_ns: 0,
            handshakes: 0,
            held: waits.then(Vec::new),
            is_stopping: false,
        }
    }

    #[inline]
    fn client(&mut self, client: u32) -> &mut Client {
        &mut self.clients[usize::try_from(client).expect("32 bits fit")]
    }

    fn set_timer(&mut self, net: &mut Net, at_ns: u64, client: u32, due: Due) {
        let epoch = self.client(client).epoch;
        net.at(at_ns, Timer { client, tag: due.tag(epoch) });
    }

    // ---- coming up

    /// Starts clients as far as it is their time.
    fn ramp(&mut self, net: &mut Net) {
        let interval = self.ctx.shared.config.connect_interval;
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        let count = self.ctx.clients();
        while self.next < count && !self.is_stopping {
            let due_ns = self.begin_ns + interval_ns * u64::from(self.ctx.index(self.next));
            if due_ns > net.now_ns() {
                net.at(due_ns, Timer { client: 0, tag: Due::Ramp.tag(0) });
                return;
            }
            if interval_ns == 0 && self.handshakes >= HANDSHAKES_MAX {
                return;
            }
            self.next += 1;
            self.open(net, self.next - 1);
            if self.next == count {
                self.ctx.shared.ready_threads.fetch_add(1, Relaxed);
            }
        }
    }

    fn open(&mut self, net: &mut Net, client: u32) {
        self.handshakes += 1;
        self.ctx.qoe_begin(client, net.now_ns());
        let entry = self.client(client);
        entry.phase = Phase::Opening;
        entry.epoch = entry.epoch.wrapping_add(1);
        net.open(client);
    }

    /// A client is up, or will not come up this time: without a rate the next may begin.
    fn handshake_over(&mut self, net: &mut Net) {
        self.handshakes -= 1;
        if self.ctx.shared.config.connect_interval.is_zero() {
            self.ramp(net);
        }
    }

    fn write_connect(&mut self, net: &mut Net, client: u32) {
        let config = &self.ctx.shared.config;
        let index = self.ctx.index(client);
        let (mut client_id, mut username) = (Vec::new(), Vec::new());
        config.write_client_id(&mut client_id, index);
        config.write_username(&mut username, index);
        let packet = packets::Connect {
            version: config.version,
            clean: config.clean,
            keep_alive_s: config.keep_alive_s,
            session_expiry_s: config.session_expiry_s,
            client_id: &client_id,
            username: config.usernames.is_some().then_some(username.as_slice()),
            password: config.password.as_deref().map(str::as_bytes),
        };
        if let Some(outbox) = net.outbox(client) {
            packets::connect(outbox, &packet);
        }
    }

    fn on_connack(
        &mut self,
        net: &mut Net,
        client: u32,
        frame: &Frame<'_>,
    ) -> Result<(), Malformed> {
        if self.client(client).phase != Phase::AwaitConnAck {
            return Err(Malformed);
        }
        let version = self.ctx.shared.config.version;
        let ack = packets::connack(frame, version)?;
        if ack.code != 0 {
            let name = match version {
                packets::V5 if ack.code >= 0x80 => reason::code(ack.code),
                _ => reason::connack_v3(ack.code),
            };
            net.close(client, CloseMode::Now);
            self.connect_failed(net, client, name, None);
            return Ok(());
        }
        let now_ns = net.now_ns();
        self.ctx.qoe_note(client, |times| times.connect_ns = Some(times.since_begin(now_ns)));
        let keep_alive_s = ack.keep_alive_s.unwrap_or(self.ctx.shared.config.keep_alive_s);
        let entry = self.client(client);
        entry.keep_alive_s = keep_alive_s;
        entry.tries = 0;
        entry.awaits_pong = false;
        let counter =
            if entry.has_connected { Counter::ReconnectSucc } else { Counter::ConnectSucc };
        entry.has_connected = true;
        self.ctx.count(counter);
        if keep_alive_s > 0 {
            let at_ns = now_ns + u64::from(keep_alive_s) * SECOND_NS;
            self.set_timer(net, at_ns, client, Due::Ping);
        }
        match self.ctx.shared.config.role {
            Role::Conn => {
                self.ready(net, client);
                self.ctx.qoe_end(client);
            }
            Role::Sub(_) => self.subscribe(net, client),
            Role::Pub(_) => {
                self.ready(net, client);
                self.begin_publishing(net, client, &ack);
            }
        }
        Ok(())
    }

    fn ready(&mut self, net: &mut Net, client: u32) {
        self.client(client).phase = Phase::Ready;
        self.handshake_over(net);
    }

    // ---- subscribers

    fn subscribe(&mut self, net: &mut Net, client: u32) {
        self.client(client).phase = Phase::AwaitSubAck;
        let index = self.ctx.index(client);
        let config = &self.ctx.shared.config;
        let Role::Sub(spec) = &config.role else { unreachable!("only subscribers subscribe") };
        let (mut client_id, mut username) = (Vec::new(), Vec::new());
        config.write_client_id(&mut client_id, index);
        config.write_username(&mut username, index);
        let mut values = super::topic::Values {
            username: &username,
            client_id: &client_id,
            client_number: config.number(index),
            message_number: 0,
            random: &mut self.ctx.random,
        };
        let render = |filter: &super::topic::TopicTemplate| {
            let mut out = Vec::new();
            filter.write(&mut out, &mut values);
            out
        };
        let filters: Vec<Vec<u8>> = spec.filters.iter().map(render).collect();
        if let Some(outbox) = net.outbox(client) {
            packets::subscribe(outbox, config.version, 1, &filters, spec.qos);
        }
    }

    fn on_suback(
        &mut self,
        net: &mut Net,
        client: u32,
        frame: &Frame<'_>,
    ) -> Result<(), Malformed> {
        if self.client(client).phase != Phase::AwaitSubAck {
            return Err(Malformed);
        }
        let codes = packets::suback(frame, self.ctx.shared.config.version)?;
        let now_ns = net.now_ns();
        match codes.iter().find(|code| **code > 2) {
            None => {
                self.ctx.count(Counter::Sub);
                self.ctx
                    .qoe_note(client, |times| times.subscribe_ns = Some(times.since_begin(now_ns)));
                self.ctx.qoe_end(client);
            }
            Some(code) => {
                self.ctx.count(Counter::SubFail);
                self.ctx.qoe_forget(client);
                self.ctx.say(Kind::SubscribeError, client, || {
                    format!("subscribe error - {}", reason::code(*code))
                });
            }
        }
        self.ready(net, client);
        Ok(())
    }

    // ---- publishers

    fn begin_publishing(&mut self, net: &mut Net, client: u32, ack: &ConnAck) {
        let Some(publishers) = &mut self.publishers else { return };
        publishers.connected(net, &self.ctx, client, ack);
        self.set_retry(net, client);
        match &mut self.held {
            Some(held) => held.push(client),
            None => self.wait_and_begin(net, client),
        }
    }

    fn wait_and_begin(&mut self, net: &mut Net, client: u32) {
        let Role::Pub(spec) = &self.ctx.shared.config.role else { return };
        let (least, most) = spec.random_wait;
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let wait_ns = self.ctx.random.between(nanos(least), nanos(most));
        if wait_ns > 0 {
            self.set_timer(net, net.now_ns() + wait_ns, client, Due::Begin);
        } else {
            self.publish_all(net, client);
        }
    }

    /// Begins all topics of a client.
    fn publish_all(&mut self, net: &mut Net, client: u32) {
        let Some(publishers) = &mut self.publishers else { return };
        publishers.begin(client, net.now_ns());
        for stream in 0..publishers.streams() {
            self.run_stream(net, client, stream, true);
        }
    }

    fn run_stream(&mut self, net: &mut Net, client: u32, stream: u32, by_timer: bool) {
        if self.is_stopping || self.client(client).phase != Phase::Ready {
            return;
        }
        let Some(publishers) = &mut self.publishers else { return };
        match publishers.run(net, &mut self.ctx, client, stream, by_timer) {
            Next::Nothing => {}
            Next::At(at_ns) => self.set_timer(net, at_ns, client, Due::Publish(stream)),
            Next::End => {
                publishers.lost(&self.ctx, client, false);
                self.disconnect(net, client);
                return self.gone(client);
            }
        }
        self.set_retry(net, client);
    }

    fn run_blocked(&mut self, net: &mut Net, client: u32) {
        let Some(publishers) = &self.publishers else { return };
        for stream in 0..publishers.streams() {
            if self.publishers.as_ref().is_some_and(|all| all.is_blocked(client, stream)) {
                self.run_stream(net, client, stream, false);
            }
        }
    }

    fn set_retry(&mut self, net: &mut Net, client: u32) {
        let Some(publishers) = &mut self.publishers else { return };
        if let Some(at_ns) = publishers.retry_at(&self.ctx, client, net.now_ns()) {
            self.set_timer(net, at_ns, client, Due::Retry);
        }
    }

    // ---- failing and coming back

    /// A client did not come up.
    fn connect_failed(&mut self, net: &mut Net, client: u32, name: &str, counter: Option<Counter>) {
        self.ctx.count(Counter::ConnectFail);
        if let Some(counter) = counter {
            self.ctx.count(counter);
        }
        self.ctx.say(Kind::ConnectError, client, || format!("connect error - {name}"));
        self.ctx.qoe_forget(client);
        let retries = self.ctx.shared.config.connect_retries;
        let entry = self.client(client);
        if entry.has_connected {
            self.come_back(net, client);
        } else if entry.tries < retries && !self.is_stopping {
            self.client(client).tries += 1;
            self.ctx.count(Counter::ConnectRetried);
            self.open(net, client);
        } else {
            self.gone(client);
        }
        // After the client itself has tried again.
        self.handshake_over(net);
    }

    /// A client that was up has lost its connection.
    fn lost(&mut self, net: &mut Net, client: u32) {
        self.ctx.qoe_forget(client);
        if self.client(client).phase == Phase::AwaitSubAck {
            self.handshake_over(net);
        }
        self.come_back(net, client);
    }

    fn come_back(&mut self, net: &mut Net, client: u32) {
        let reconnects = self.ctx.shared.config.reconnects;
        let comes_back = self.client(client).tries < reconnects && !self.is_stopping;
        if let Some(publishers) = &mut self.publishers {
            publishers.lost(&self.ctx, client, comes_back);
        }
        if !comes_back {
            return self.gone(client);
        }
        let entry = self.client(client);
        entry.phase = Phase::Waiting;
        entry.epoch = entry.epoch.wrapping_add(1);
        entry.tries += 1;
        // Spread over a second: all may have been lost at once.
        let spread_ns = mix(u64::from(client) ^ net.now_ns()) % SECOND_NS;
        let wait_ns = u64::from(entry.tries.min(RECONNECT_SECONDS_MAX)) * SECOND_NS - SECOND_NS / 2;
        self.set_timer(net, net.now_ns() + wait_ns + spread_ns, client, Due::Reconnect);
    }

    fn gone(&mut self, client: u32) {
        let entry = self.client(client);
        if entry.phase != Phase::Gone {
            entry.phase = Phase::Gone;
            entry.epoch = entry.epoch.wrapping_add(1);
            self.ctx.stats.client_gone();
        }
    }

    fn disconnect(&mut self, net: &mut Net, client: u32) {
        if let Some(outbox) = net.outbox(client) {
            outbox.extend_from_slice(&wire::DISCONNECT);
        }
        net.close(client, CloseMode::Linger);
    }

    fn stop(&mut self, net: &mut Net) {
        self.is_stopping = true;
        for client in 0..self.next {
            match self.client(client).phase {
                Phase::AwaitSubAck | Phase::Ready => self.disconnect(net, client),
                _ => net.close(client, CloseMode::Now),
            }
            self.client(client).phase = Phase::Gone;
        }
        net.stop(STOP_NS);
    }

    // ---- packets and time

    fn on_packet(
        &mut self,
        net: &mut Net,
        client: u32,
        frame: &Frame<'_>,
    ) -> Result<(), Malformed> {
        match frame.first >> 4 {
            3 => {
                let session = self.session(client);
                self.received.publish(net, &self.ctx, client, session, frame)?;
            }
            4 | 5 | 7 => {
                let ack = packets::acknowledgement(frame)?;
                if let Some(publishers) = &mut self.publishers {
                    publishers.acknowledged(net, &mut self.ctx, client, frame.first, ack);
                    self.run_blocked(net, client);
                }
            }
            6 => {
                let (packet_id, _) = packets::acknowledgement(frame)?;
                let session = self.session(client);
                self.received.released(net, client, session, packet_id);
            }
            13 => self.client(client).awaits_pong = false,
            2 => self.on_connack(net, client, frame)?,
            9 => self.on_suback(net, client, frame)?,
            14 => self.on_disconnect(net, client, frame),
            _ => return Err(Malformed),
        }
        Ok(())
    }

    /// Tells apart the sessions of a client; one that outlives its connection is the same.
    fn session(&mut self, client: u32) -> u16 {
        if self.ctx.shared.config.clean { self.client(client).epoch } else { 0 }
    }

    fn on_disconnect(&mut self, net: &mut Net, client: u32, frame: &Frame<'_>) {
        let code = frame.body.first().copied().unwrap_or(0);
        net.close(client, CloseMode::Now);
        if code == 0x8D {
            self.ctx.count(Counter::ConnectionIdle);
        }
        if matches!(self.client(client).phase, Phase::AwaitConnAck) {
            return self.connect_failed(net, client, reason::code(code), None);
        }
        self.ctx.say(Kind::Disconnected, client, || {
            format!("disconnected with reason {code}: {}", reason::code(code))
        });
        self.lost(net, client);
    }

    fn on_ping(&mut self, net: &mut Net, client: u32) {
        if self.client(client).awaits_pong {
            net.close(client, CloseMode::Now);
            self.ctx.count(Counter::ConnectionIdle);
            self.ctx.say(Kind::Exit, client, || "EXIT for {shutdown,ping_timeout}".to_owned());
            return self.lost(net, client);
        }
        let entry = self.client(client);
        entry.awaits_pong = true;
        let keep_alive_s = entry.keep_alive_s;
        if let Some(outbox) = net.outbox(client) {
            outbox.extend_from_slice(&wire::PING);
        }
        let at_ns = net.now_ns() + u64::from(keep_alive_s) * SECOND_NS;
        self.set_timer(net, at_ns, client, Due::Ping);
    }

    fn on_handshake_timeout(&mut self, net: &mut Net, client: u32) {
        match self.client(client).phase {
            Phase::AwaitConnAck => {
                net.close(client, CloseMode::Now);
                let counter = Some(Counter::ConnectionTimeout);
                self.connect_failed(net, client, "connack_timeout", counter);
            }
            Phase::AwaitSubAck => {
                net.close(client, CloseMode::Now);
                self.ctx.count(Counter::SubFail);
                self.ctx
                    .say(Kind::SubscribeError, client, || "subscribe error - timeout".to_owned());
                self.lost(net, client);
            }
            _ => {}
        }
    }
}

impl Agent for Clients {
    type Command = Command;

    fn start(&mut self, net: &mut Net) {
        self.begin_ns = net.now_ns();
        self.ramp(net);
    }

    fn route(&mut self, client: u32) -> Route {
        self.ctx.shared.config.route(self.ctx.index(client))
    }

    fn layers(&self, client: u32) -> Option<&ClientFilterSettings> {
        self.ctx.shared.config.layers(self.ctx.index(client))
    }

    fn secured(&mut self, net: &mut Net, client: u32, _: bool) {
        let now_ns = net.now_ns();
        self.ctx.qoe_note(client, |times| times.handshake_ns = Some(times.since_begin(now_ns)));
    }

    fn opened(&mut self, net: &mut Net, client: u32) {
        let now_ns = net.now_ns();
        self.ctx.qoe_note(client, |times| {
            times.tcp_ns = Some(times.since_begin(now_ns));
            // Without TLS and WebSocket there is nothing more to shake hands about.
            times.handshake_ns = times.tcp_ns;
        });
        self.client(client).phase = Phase::AwaitConnAck;
        self.write_connect(net, client);
        self.set_timer(net, now_ns + HANDSHAKE_NS, client, Due::Handshake);
    }

    #[inline]
    fn packet(&mut self, net: &mut Net, client: u32, frame: &Frame<'_>) {
        if self.on_packet(net, client, frame).is_err() {
            net.close(client, CloseMode::Now);
            self.closed(net, client, CloseCause::Malformed);
        }
    }

    fn failed(&mut self, net: &mut Net, client: u32, errno: i32) {
        let counter = match errno {
            libc::ECONNREFUSED => Some(Counter::ConnectionRefused),
            libc::ETIMEDOUT => Some(Counter::ConnectionTimeout),
            libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENETDOWN => {
                Some(Counter::Unreachable)
            }
            _ => None,
        };
        if let Some(remedy) = reason::remedy(errno) {
            self.ctx.shared.lines.remedy(errno, remedy);
        }
        self.connect_failed(net, client, &reason::errno(errno), counter);
    }

    fn closed(&mut self, net: &mut Net, client: u32, cause: CloseCause) {
        let name = match cause {
            CloseCause::PeerClosed => "tcp_closed".to_owned(),
            CloseCause::Failed(errno) => reason::errno(errno),
            CloseCause::Malformed => "malformed_packet".to_owned(),
            CloseCause::Layers(reason) => reason.to_owned(),
        };
        if self.client(client).phase == Phase::AwaitConnAck {
            return self.connect_failed(net, client, &name, None);
        }
        self.ctx.say(Kind::Exit, client, || format!("EXIT for {{shutdown,{name}}}"));
        self.lost(net, client);
    }

    fn drained(&mut self, net: &mut Net, client: u32) {
        self.run_blocked(net, client);
    }

    fn timer(&mut self, net: &mut Net, timer: Timer) {
        let (due, epoch) = Due::of(timer.tag);
        if due == Due::Ramp {
            return self.ramp(net);
        }
        let client = timer.client;
        if self.is_stopping || self.client(client).epoch != epoch {
            return;
        }
        match due {
            Due::Ramp => {}
            Due::Handshake => self.on_handshake_timeout(net, client),
            Due::Ping => self.on_ping(net, client),
            Due::Reconnect => self.open(net, client),
            Due::Begin => self.publish_all(net, client),
            Due::Publish(stream) => self.run_stream(net, client, stream, true),
            Due::Retry => {
                if let Some(publishers) = &mut self.publishers {
                    publishers.retry(net, &self.ctx, client);
                }
                self.set_retry(net, client);
            }
        }
    }

    fn command(&mut self, net: &mut Net, command: Command) {
        match command {
            Command::Go => {
                for client in self.held.take().unwrap_or_default() {
                    if self.client(client).phase == Phase::Ready {
                        self.wait_and_begin(net, client);
                    }
                }
            }
            Command::Stop => self.stop(net),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_keep_what_they_are_for() {
        for due in [
            Due::Ramp,
            Due::Handshake,
            Due::Ping,
            Due::Reconnect,
            Due::Begin,
            Due::Publish(0),
            Due::Publish(4095),
            Due::Retry,
        ] {
            for epoch in [0, 1, 0x1234, u16::MAX] {
                assert_eq!(Due::of(due.tag(epoch)), (due, epoch));
            }
        }
    }
}
