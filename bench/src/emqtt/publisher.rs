//! Clients that publish: what is due when, and what is not acknowledged.
//!
//! Message k of a stream is due at begin + k times its interval, whatever happened before. One that cannot go then, because
//! an acknowledgement is missing or the connection takes no more, goes as soon as it can.

use smallvec::SmallVec;

use super::config::{Publishing, Role};
use super::context::Context;
use super::counters::Counter;
use super::lines::Kind;
use super::packets::{ConnAck, Publish};
use super::payload::Payload;
use super::reason;
use super::topic::Values;
use crate::engine::Net;
use crate::{sys, wire};

/// Bytes a client has on their way at most when it publishes flat out with QoS 0.
const FLAT_OUT_BYTES: usize = 32 << 10;
/// ... and when it publishes at a pace.
const PACED_BYTES: usize = 1 << 20;

/// A message the broker has not acknowledged.
#[derive(Debug)]
struct Unacked {
    sent_ns: u64,
    /// The packet, if it may have to be sent again.
    packet: Option<Box<[u8]>>,
    packet_id: u16,
    /// QoS 2: PUBREC has come, PUBREL is sent.
    is_released: bool,
    /// What PUBREC or PUBACK said.
    code: u8,
}

/// One client's topic.
#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// The next message.
    next: u64,
    /// The next message is due and cannot go.
    is_blocked: bool,
}

/// One client.
#[derive(Debug)]
struct Publisher {
    begin_ns: u64,
    /// Messages so far, over all connections.
    count: u64,
    unacked: SmallVec<[Unacked; 1]>,
    packet_len_max: u32,
    last_packet_id: u16,
    window: u16,
    qos_max: u8,
    takes_retained: bool,
    retry_is_set: bool,
}

/// What to do after a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// Nothing.
    Nothing,
    /// Call [`Publishers::run`] at this time.
    At(u64),
    /// The broker does not take these messages; the client is to end.
    End,
}

/// All of a thread.
#[derive(Debug)]
pub struct Publishers {
    publishers: Vec<Publisher>,
    /// By client, then by topic.
    streams: Vec<Stream>,
    per_client: usize,
    is_numbered: bool,
    keeps_packets: bool,
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct Scratch {
    client_id: Vec<u8>,
    username: Vec<u8>,
    topic: Vec<u8>,
    payload: Vec<u8>,
}

impl Publishers {
    /// For the clients of a thread.
    pub fn new(ctx: &Context) -> Publishers {
        let config = &ctx.shared.config;
        let spec = spec(ctx);
        let clients = usize::try_from(ctx.clients()).expect("32 bits fit");
        let publisher = || Publisher {
            begin_ns: 0,
            count: 0,
            unacked: SmallVec::new(),
            packet_len_max: u32::MAX,
            last_packet_id: 0,
            window: 1,
            qos_max: 2,
            takes_retained: true,
            retry_is_set: false,
        };
        let per_client = spec.streams.len();
        Publishers {
            publishers: std::iter::repeat_with(publisher).take(clients).collect(),
            streams: vec![Stream::default(); clients * per_client],
            per_client,
            is_numbered: spec
                .streams
                .iter()
                .any(|stream| stream.topic.counts_messages() || stream.payload.counts_messages()),
            keeps_packets: spec.retry_interval.is_some()
                || (config.reconnects > 0 && !config.clean),
            scratch: Scratch::default(),
        }
    }

    /// Topics of a client.
    pub fn streams(&self) -> u32 {
        u32::try_from(self.per_client).expect("few topics")
    }

    /// The broker has taken the client: its limits hold, and what a session keeps goes again.
    pub fn connected(&mut self, net: &mut Net, ctx: &Context, client: u32, ack: &ConnAck) {
        let publisher = &mut self.publishers[at(client)];
        publisher.window = spec(ctx).window.min(ack.receive_maximum).max(1);
        publisher.packet_len_max = ack.packet_len_max;
        publisher.qos_max = ack.qos_max;
        publisher.takes_retained = ack.takes_retained;
        publisher.retry_is_set = false;
        if !ack.session_present {
            return self.give_up(ctx, client);
        }
        for message in &mut publisher.unacked {
            message.send_again(net, client);
        }
    }

    /// The client begins to publish at this time.
    pub fn begin(&mut self, client: u32, begin_ns: u64) {
        self.publishers[at(client)].begin_ns = begin_ns;
        let first = at(client) * self.per_client;
        self.streams[first..first + self.per_client].fill(Stream::default());
    }

    /// The connection is lost. What was not acknowledged is kept if a session may know it.
    pub fn lost(&mut self, ctx: &Context, client: u32, comes_back: bool) {
        if !(self.keeps_packets && comes_back && !ctx.shared.config.clean) {
            self.give_up(ctx, client);
        }
    }

    fn give_up(&mut self, ctx: &Context, client: u32) {
        let unacked = &mut self.publishers[at(client)].unacked;
        let count = u64::try_from(unacked.len()).expect("a count fits");
        unacked.clear();
        if count > 0 {
            ctx.stats.add(Counter::PubFail, count);
            ctx.finish(count);
        }
    }

    /// Sends what is due of a topic. `by_timer`: it is due just now, so it is not late.
    pub fn run(
        &mut self,
        net: &mut Net,
        ctx: &mut Context,
        client: u32,
        stream: u32,
        mut by_timer: bool,
    ) -> Next {
        let at_stream = at(client) * self.per_client + at(stream);
        let (limit, interval_ns, qos) = {
            let spec = spec(ctx);
            let stream = &spec.streams[at(stream)];
            let interval_ns = u64::try_from(stream.interval.as_nanos()).unwrap_or(u64::MAX);
            (spec.limit, interval_ns, stream.qos)
        };
        self.streams[at_stream].is_blocked = false;
        loop {
            let publisher = &self.publishers[at(client)];
            let next = self.streams[at_stream].next;
            let due_ns = publisher.begin_ns.saturating_add(next.saturating_mul(interval_ns));
            if due_ns > net.now_ns() {
                return Next::At(due_ns);
            }
            let is_full = if qos > 0 {
                publisher.unacked.len() >= usize::from(publisher.window)
            } else {
                let most = if interval_ns == 0 { FLAT_OUT_BYTES } else { PACED_BYTES };
                let is_full = net.unsent(client) >= most;
                if is_full {
                    net.when_drained(client);
                }
                is_full
            };
            if is_full {
                self.streams[at_stream].is_blocked = true;
                return Next::Nothing;
            }
            let Some(number) = ctx.claim(limit, self.is_numbered) else { return Next::Nothing };
            if interval_ns > 0 && !by_timer {
                ctx.count(Counter::PubOverrun);
            }
            by_timer = false;
            if let Err(code) = self.publish(net, ctx, client, stream, number) {
                ctx.count(Counter::PubFail);
                ctx.finish(1);
                ctx.say(Kind::PublishError, client, || {
                    format!("publish error - {}", reason::code(code))
                });
                return Next::End;
            }
            self.streams[at_stream].next += 1;
        }
    }

    /// Appends one message to the outbox.
    fn publish(
        &mut self,
        net: &mut Net,
        ctx: &mut Context,
        client: u32,
        stream: u32,
        number: u64,
    ) -> Result<(), u8> {
        let index = ctx.index(client);
        let config = &ctx.shared.config;
        let Role::Pub(spec) = &config.role else { unreachable!("only publishers publish") };
        let stream = &spec.streams[at(stream)];
        let publisher = &mut self.publishers[at(client)];
        let scratch = &mut self.scratch;
        scratch.client_id.clear();
        scratch.username.clear();
        if stream.topic.names_clients() || matches!(stream.payload, Payload::Template(_)) {
            config.write_client_id(&mut scratch.client_id, index);
            config.write_username(&mut scratch.username, index);
        }
        let mut values = Values {
            username: &scratch.username,
            client_id: &scratch.client_id,
            client_number: config.number(index),
            message_number: number,
            random: &mut ctx.random,
        };
        scratch.topic.clear();
        stream.topic.write(&mut scratch.topic, &mut values);
        let payload: &[u8] = match &stream.payload {
            Payload::Fixed(bytes) if spec.headers.is_empty() => bytes,
            payload => {
                let unix_ns = sys::unix_ns();
                scratch.payload.clear();
                spec.headers.write(&mut scratch.payload, publisher.count, unix_ns / 1_000_000);
                payload.write(&mut scratch.payload, unix_ns, &mut values);
                &scratch.payload
            }
        };
        let packet_id = if stream.qos > 0 { publisher.next_packet_id() } else { 0 };
        let packet = Publish {
            version: config.version,
            qos: stream.qos,
            retain: stream.retain,
            packet_id,
            topic: &scratch.topic,
            payload,
        };
        let len = packet.len();
        publisher.check(&packet, len)?;
        let Some(outbox) = net.outbox(client) else { return Err(UNSPECIFIED) };
        packet.write(outbox);
        let kept = (stream.qos > 0 && self.keeps_packets)
            .then(|| outbox[outbox.len() - len..].to_vec().into_boxed_slice());
        publisher.count += 1;
        ctx.stats.count(Counter::Pub);
        if stream.qos == 0 {
            ctx.stats.finish(1);
            if publisher.count == 1 {
                ctx.qoe_note(client, |times| times.publish_ns = Some(0));
                ctx.qoe_end(client);
            }
        } else {
            publisher.unacked.push(Unacked {
                sent_ns: net.now_ns(),
                packet: kept,
                packet_id,
                is_released: false,
                code: 0,
            });
        }
        Ok(())
    }

    /// A PUBACK, PUBREC or PUBCOMP has come; `first` is its first byte.
    pub fn acknowledged(
        &mut self,
        net: &mut Net,
        ctx: &mut Context,
        client: u32,
        first: u8,
        (packet_id, code): (u16, u8),
    ) {
        let publisher = &mut self.publishers[at(client)];
        let found = publisher.unacked.iter().position(|message| message.packet_id == packet_id);
        let is_received = first >> 4 == 5;
        let Some(place) = found else {
            // As the standard wants it: a PUBREC nobody waits for is answered, so that the broker can forget the message.
            if is_received
                && code < 0x80
                && let Some(outbox) = net.outbox(client)
            {
                wire::acknowledge(outbox, 0x62, packet_id);
            }
            return;
        };
        let message = &mut publisher.unacked[place];
        if !message.is_released {
            message.code = code;
        }
        if is_received && code < 0x80 {
            message.is_released = true;
            if let Some(outbox) = net.outbox(client) {
                wire::acknowledge(outbox, 0x62, packet_id);
            }
            return;
        }
        let message = publisher.unacked.remove(place);
        ctx.finish(1);
        match message.code {
            0 => ctx.count(Counter::PubSucc),
            0x10 => ctx.count(Counter::PubNosub),
            code => {
                ctx.count(Counter::PubFail);
                ctx.say(Kind::PublishError, client, || {
                    format!("publish error - {}", reason::code(code))
                });
            }
        }
        if ctx.shared.config.qoe {
            let took_ns = net.now_ns().saturating_sub(message.sent_ns);
            ctx.qoe_note(client, |times| times.publish_ns = Some(took_ns));
            ctx.qoe_end(client);
        }
    }

    /// Whether a topic's next message is due and can go now; asked after an acknowledgement or when the outbox is empty.
    pub fn is_blocked(&self, client: u32, stream: u32) -> bool {
        self.streams[at(client) * self.per_client + at(stream)].is_blocked
    }

    /// When to look for messages to be sent again, if that is not set already.
    pub fn retry_at(&mut self, ctx: &Context, client: u32, now_ns: u64) -> Option<u64> {
        let interval = spec(ctx).retry_interval?;
        let publisher = &mut self.publishers[at(client)];
        if publisher.retry_is_set || publisher.unacked.is_empty() {
            return None;
        }
        publisher.retry_is_set = true;
        Some(now_ns + u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX / 2))
    }

    /// Sends again what has waited for its acknowledgement too long.
    pub fn retry(&mut self, net: &mut Net, ctx: &Context, client: u32) {
        let publisher = &mut self.publishers[at(client)];
        publisher.retry_is_set = false;
        let Some(interval) = spec(ctx).retry_interval else { return };
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        let now_ns = net.now_ns();
        for message in &mut publisher.unacked {
            if now_ns.saturating_sub(message.sent_ns) >= interval_ns {
                message.send_again(net, client);
                message.sent_ns = now_ns;
            }
        }
    }
}

/// Unspecified error.
const UNSPECIFIED: u8 = 0x80;

impl Unacked {
    fn send_again(&mut self, net: &mut Net, client: u32) {
        let Some(outbox) = net.outbox(client) else { return };
        if self.is_released {
            wire::acknowledge(outbox, 0x62, self.packet_id);
        } else if let Some(packet) = &mut self.packet {
            // DUP
            packet[0] |= 0x08;
            outbox.extend_from_slice(packet);
        }
    }
}

impl Publisher {
    fn next_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            let is_used = |message: &Unacked| message.packet_id == self.last_packet_id;
            // The window is below the number of ids, so one is free.
            if !self.unacked.iter().any(is_used) {
                return self.last_packet_id;
            }
        }
    }

    /// Whether the broker takes such a packet, by what its CONNACK said.
    fn check(&self, packet: &Publish<'_>, len: usize) -> Result<(), u8> {
        if len > usize::try_from(self.packet_len_max).unwrap_or(usize::MAX) || len > LEN_MAX {
            return Err(0x95);
        }
        if packet.topic.len() > usize::from(u16::MAX) {
            return Err(0x90);
        }
        if packet.qos > self.qos_max {
            return Err(0x9B);
        }
        if packet.retain && !self.takes_retained {
            return Err(0x9A);
        }
        Ok(())
    }
}

/// The longest packet of MQTT.
const LEN_MAX: usize = 268_435_460;

fn spec(ctx: &Context) -> &Publishing {
    match &ctx.shared.config.role {
        Role::Pub(spec) => spec,
        Role::Conn | Role::Sub(_) => unreachable!("only publishers publish"),
    }
}

fn at(number: u32) -> usize {
    usize::try_from(number).expect("32 bits fit")
}
