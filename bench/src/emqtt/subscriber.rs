//! Messages that come: counted, acknowledged, and looked into if they have headers.

use std::collections::{HashMap, HashSet};

use super::config::Role;
use super::context::Context;
use super::counters::Counter;
use super::headers::Headers;
use super::lines::Kind;
use super::packets;
use crate::engine::Net;
use crate::sys;
use crate::wire::{self, Frame, Malformed};

/// What the clients of a thread have received.
#[derive(Debug)]
pub struct Received {
    headers: Headers,
    /// QoS 2: packet ids between PUBREC and PUBREL, by client and connection.
    unreleased: HashSet<(u32, u16, u16)>,
    /// The next count of each client and topic.
    counts: HashMap<(u32, u64), u64>,
}

impl Received {
    /// For the clients of a thread.
    pub fn new(ctx: &Context) -> Received {
        let headers = match &ctx.shared.config.role {
            Role::Sub(spec) => spec.headers,
            Role::Conn | Role::Pub(_) => Headers::default(),
        };
        Received { headers, unreleased: HashSet::new(), counts: HashMap::new() }
    }

    /// A PUBLISH. `session` tells the sessions of a client apart.
    #[inline]
    pub fn publish(
        &mut self,
        net: &mut Net,
        ctx: &Context,
        client: u32,
        session: u16,
        frame: &Frame<'_>,
    ) -> Result<(), Malformed> {
        let message = packets::publish(frame, ctx.shared.config.version)?;
        if message.qos > 0 {
            let Some(outbox) = net.outbox(client) else { return Ok(()) };
            if message.qos == 1 {
                wire::acknowledge(outbox, 0x40, message.packet_id);
            } else {
                wire::acknowledge(outbox, 0x50, message.packet_id);
                if !self.unreleased.insert((client, session, message.packet_id)) {
                    return Ok(());
                }
            }
        }
        ctx.count(Counter::Recv);
        if !self.headers.is_empty() {
            self.look_into(ctx, client, message.topic, message.payload);
        }
        Ok(())
    }

    /// A PUBREL.
    pub fn released(&mut self, net: &mut Net, client: u32, session: u16, packet_id: u16) {
        self.unreleased.remove(&(client, session, packet_id));
        if let Some(outbox) = net.outbox(client) {
            wire::acknowledge(outbox, 0x70, packet_id);
        }
    }

    fn look_into(&mut self, ctx: &Context, client: u32, topic: &[u8], payload: &[u8]) {
        let Some(read) = self.headers.read(payload) else {
            return ctx.say(Kind::PayloadHeader, client, || {
                format!("payload of {} bytes is shorter than --payload-hdrs", payload.len())
            });
        };
        if let Some(sent_ms) = read.unix_ms {
            ctx.stats.latency((sys::unix_ns() / 1_000_000).saturating_sub(sent_ms));
        }
        let Some(count) = read.count else { return };
        let next = self.counts.entry((client, hash(topic))).or_insert(count);
        let expected = *next;
        if count < expected {
            ctx.count(Counter::RecvRepeated);
            return;
        }
        *next = count + 1;
        if count > expected {
            ctx.stats.add(Counter::RecvLost, count - expected);
            ctx.say(Kind::PayloadHeader, client, || {
                let topic = String::from_utf8_lossy(topic).into_owned();
                format!("payload header cnt64 of {topic} went from {expected} to {count}")
            });
        }
    }
}

/// FNV-1a; topics of one client that collide would show as losses, one in 2^64.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
