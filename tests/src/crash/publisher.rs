//! A publisher that survives the broker: what is not acknowledged is sent again, with the same packet ids.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::ledger::{Ledger, Sent};
use crate::client::{Client, Event};
use crate::packet::{Connect, Packet, Publish, Version, ack};
use crate::simulation::Random;

/// How long it waits for a packet before it looks at what else there is to do.
const LOOK: Duration = Duration::from_millis(5);

/// A message that is under way.
#[derive(Debug)]
struct UnderWay {
    packet_id: u16,
    number: u64,
    publish: Publish,
    /// PUBREC has come, PUBCOMP not.
    is_released: bool,
}

/// A publisher with a session of its own.
#[derive(Debug)]
pub struct Publisher {
    connect: Connect,
    /// Its name in topics and reports.
    pub index: usize,
    /// The `QoS` it publishes with; `None` for now this, now that.
    qos: Option<u8>,
    is_retaining: bool,
    window: usize,
    under_way: VecDeque<UnderWay>,
    next_packet_id: u16,
    /// A CONNACK has come: the session must be there from now on.
    has_session: bool,
    random: Random,
}

/// How a publisher's time with a broker ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Leg {
    /// The broker went away.
    Cut,
    /// All that was under way is acknowledged, or it was told to stop.
    Done,
}

impl Publisher {
    pub fn new(
        index: usize,
        version: Version,
        qos: Option<u8>,
        is_retaining: bool,
        seed: u64,
    ) -> Self {
        let mut random = Random::new(seed);
        Self {
            connect: Connect::new(version, &format!("publisher-{index}")).persistent(),
            index,
            qos,
            is_retaining,
            window: 1 + random.below(40),
            under_way: VecDeque::new(),
            next_packet_id: 0,
            has_session: false,
            random,
        }
    }

    /// How many messages are not acknowledged.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Connects, sends again what is under way, and goes on: with new messages until the broker is gone or `stop` says so; without
    /// `new_ones` until all is acknowledged or `deadline`.
    ///
    /// # Errors
    /// What the broker did wrong.
    pub fn run(
        &mut self,
        address: SocketAddr,
        ledger: &Ledger,
        new_ones: bool,
        deadline: Instant,
    ) -> Result<Leg, String> {
        let Some(mut client) = self.connected(address)? else { return Ok(Leg::Cut) };
        let mut again = std::mem::take(&mut self.under_way);
        for message in &mut again {
            let bytes = if message.is_released {
                ack(0x62, message.packet_id)
            } else {
                message.publish.dup = true;
                message.publish.encode(self.connect.version)
            };
            client.try_send(&bytes);
        }
        self.under_way = again;
        loop {
            if !new_ones && self.under_way.is_empty() || Instant::now() > deadline {
                return Ok(Leg::Done);
            }
            while new_ones && self.under_way.len() < self.window {
                if !self.publish(&mut client, ledger) {
                    return Ok(Leg::Cut);
                }
            }
            match client.event(LOOK) {
                Event::Packet(packet) => self.handle(&mut client, &packet, ledger)?,
                Event::Closed => return Ok(Leg::Cut),
                Event::Nothing => {}
            }
        }
    }

    fn connected(&mut self, address: SocketAddr) -> Result<Option<Client>, String> {
        let Ok(mut client) = Client::try_open(address, self.connect.version) else {
            return Ok(None);
        };
        client.try_send(&self.connect.encode());
        match client.event(super::ANSWER) {
            Event::Packet(Packet::ConnAck(ack)) if ack.code == 0 => {
                if self.has_session && !ack.session_present {
                    return Err(format!("the session of {} is lost", self.connect.client_id));
                }
                self.has_session = true;
                Ok(Some(client))
            }
            Event::Closed => Ok(None),
            other => Err(format!("{}: no CONNACK but {other:?}", self.connect.client_id)),
        }
    }

    fn publish(&mut self, client: &mut Client, ledger: &Ledger) -> bool {
        self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
        let packet_id = self.next_packet_id;
        let qos = self.qos.unwrap_or_else(|| 1 + u8::from(self.random.chance(50)));
        let part = self.random.below(super::TOPICS);
        let kind = if self.is_retaining { "r" } else { "c" };
        let topic = format!("{kind}/{}/{part}", self.index);
        let number = ledger.sent(Sent { publisher: self.index, topic: topic.clone(), qos });
        let mut publish = Publish::new(&topic, number.to_string()).qos(qos, packet_id);
        publish.retain = self.is_retaining;
        let is_taken = client.try_send(&publish.encode(self.connect.version));
        self.under_way.push_back(UnderWay { packet_id, number, publish, is_released: false });
        is_taken
    }

    fn handle(
        &mut self,
        client: &mut Client,
        packet: &Packet,
        ledger: &Ledger,
    ) -> Result<(), String> {
        let (Packet::PubAck(answer) | Packet::PubRec(answer) | Packet::PubComp(answer)) = packet
        else {
            return Err(format!("{} got {packet:?}", self.connect.client_id));
        };
        let at = self.under_way.iter().position(|one| one.packet_id == answer.packet_id);
        let Some(at) = at else {
            return Err(format!("{} got {packet:?} for nothing", self.connect.client_id));
        };
        let message = &mut self.under_way[at];
        if answer.reason >= 0x80 && !(message.is_released && answer.reason == 0x92) {
            return Err(format!("{} got {packet:?}", self.connect.client_id));
        }
        let number = message.number;
        match packet {
            Packet::PubRec(_) => {
                client.try_send(&ack(0x62, message.packet_id));
                if !std::mem::replace(&mut message.is_released, true) {
                    ledger.acknowledged(number);
                }
            }
            Packet::PubAck(_) => {
                self.under_way.remove(at);
                ledger.acknowledged(number);
            }
            _ => drop(self.under_way.remove(at)),
        }
        Ok(())
    }
}
