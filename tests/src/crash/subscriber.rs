//! A subscriber that survives the broker, and remembers what a client has to remember.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::ledger::Ledger;
use crate::client::{Client, Event};
use crate::packet::{Connect, Packet, Property, Publish, Subscribe, Version, ack};
use crate::simulation::Random;

/// How long it waits for a packet before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);
/// In so many of 100,000 packets its network fails.
const CUTS: usize = 60;

/// A subscriber with a session of its own.
#[derive(Debug)]
pub struct Subscriber {
    connect: Connect,
    /// Its filter, of a shared group or not.
    pub filter: String,
    /// The `QoS` it asks for.
    pub qos: u8,
    /// What is published from this number on it has to get; `None` as long as it has no SUBACK.
    pub since: Option<u64>,
    /// How often it got each message.
    pub received: HashMap<u64, u32>,
    /// Received `QoS` 2 packet ids without PUBREL.
    unreleased: HashSet<u16>,
    /// The newest message of each topic and `QoS` it was published with.
    newest: HashMap<String, u64>,
    has_session: bool,
    random: Random,
}

impl Subscriber {
    pub fn new(name: &str, version: Version, filter: &str, qos: u8, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut connect = Connect::new(version, &format!("subscriber-{name}")).persistent();
        if version == Version::V5 && random.chance(50) {
            let maximum = u16::try_from(1 + random.below(30)).expect("small");
            connect = connect.property(Property::ReceiveMaximum(maximum));
        }
        Self {
            connect,
            filter: filter.to_owned(),
            qos,
            since: None,
            received: HashMap::new(),
            unreleased: HashSet::new(),
            newest: HashMap::new(),
            has_session: false,
            random,
        }
    }

    /// As reports name it.
    pub fn name(&self) -> String {
        let (id, version) = (&self.connect.client_id, self.connect.version);
        format!("'{id}' ({version:?}, {} at QoS {})", self.filter, self.qos)
    }

    /// Its client id.
    pub fn connect_id(&self) -> &str {
        &self.connect.client_id
    }

    /// The filter without the name of a group.
    pub fn plain_filter(&self) -> &str {
        match self.filter.strip_prefix("$share/") {
            Some(rest) => rest.split_once('/').map_or("", |(_, filter)| filter),
            None => &self.filter,
        }
    }

    /// Connects, subscribes if it has not, and receives until the broker is gone or `stop` says so. Now and then it loses its
    /// connection by itself and comes back.
    ///
    /// # Errors
    /// What the broker did wrong.
    pub fn run(
        &mut self,
        address: SocketAddr,
        ledger: &Ledger,
        stop: &AtomicBool,
    ) -> Result<(), String> {
        while let Some(mut client) = self.connected(address)? {
            if self.since.is_none() && !self.subscribe(&mut client, ledger)? {
                return Ok(());
            }
            loop {
                match client.event(LOOK) {
                    Event::Packet(packet) => self.handle(&mut client, &packet, ledger)?,
                    Event::Closed => return Ok(()),
                    Event::Nothing if stop.load(Ordering::Relaxed) => return Ok(()),
                    Event::Nothing => {}
                }
                if self.random.below(100_000) < CUTS {
                    break;
                }
            }
        }
        Ok(())
    }

    fn connected(&mut self, address: SocketAddr) -> Result<Option<Client>, String> {
        let Ok(mut client) = Client::try_open(address, self.connect.version) else {
            return Ok(None);
        };
        client.try_send(&self.connect.encode());
        match client.event(super::ANSWER) {
            Event::Packet(Packet::ConnAck(ack)) if ack.code == 0 => {
                if self.has_session && !ack.session_present {
                    return Err(format!("the session of {} is lost", self.name()));
                }
                self.has_session = true;
                Ok(Some(client))
            }
            Event::Closed => Ok(None),
            other => Err(format!("{}: no CONNACK but {other:?}", self.name())),
        }
    }

    fn subscribe(&mut self, client: &mut Client, ledger: &Ledger) -> Result<bool, String> {
        let subscribe = Subscribe::new(1).filter(&self.filter, self.qos);
        client.try_send(&subscribe.encode(self.connect.version));
        loop {
            match client.event(super::ANSWER) {
                Event::Packet(Packet::SubAck(ack)) if ack.codes == [self.qos] => {
                    self.since = Some(ledger.next());
                    return Ok(true);
                }
                // A server may deliver before the SUBACK; and the SUBACK of the time before may have been lost.
                Event::Packet(packet @ (Packet::Publish(_) | Packet::PubRel(_))) => {
                    self.handle(client, &packet, ledger)?;
                }
                Event::Closed => return Ok(false),
                other => return Err(format!("{}: no SUBACK but {other:?}", self.name())),
            }
        }
    }

    fn handle(
        &mut self,
        client: &mut Client,
        packet: &Packet,
        ledger: &Ledger,
    ) -> Result<(), String> {
        match packet {
            Packet::Publish(publish) => self.take(client, publish, ledger),
            Packet::PubRel(release) => {
                self.unreleased.remove(&release.packet_id);
                client.try_send(&ack(0x70, release.packet_id));
                Ok(())
            }
            other => Err(format!("{} got {other:?}", self.name())),
        }
    }

    fn take(
        &mut self,
        client: &mut Client,
        publish: &Publish,
        ledger: &Ledger,
    ) -> Result<(), String> {
        let number = publish.text().parse().map_err(|_| format!("{}: {publish:?}", self.name()))?;
        let is_new = publish.qos < 2 || self.unreleased.insert(publish.packet_id);
        if is_new {
            *self.received.entry(number).or_default() += 1;
            self.in_order(publish, number, ledger.message(number).qos)?;
        }
        let answer = if publish.qos == 2 { 0x50 } else { 0x40 };
        client.try_send(&ack(answer, publish.packet_id));
        Ok(())
    }

    /// What is new of one topic and `QoS` comes in the order it was published in (MQTT-4.6.0-5); a group's members share the
    /// order out.
    fn in_order(&mut self, publish: &Publish, number: u64, qos: u8) -> Result<(), String> {
        let newest = self.newest.entry(format!("{} {qos}", publish.topic)).or_default();
        if number > *newest {
            *newest = number;
        } else if self.received[&number] == 1 && !self.filter.starts_with('$') {
            let newest = *newest;
            return Err(format!("{}: {publish:?} came first behind {newest}", self.name()));
        }
        Ok(())
    }
}
