//! A simulated client: well-behaved, with connections that break and acknowledgements that dawdle. It keeps what a real
//! client with a persistent session keeps, and checks everything it receives.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::random::Random;
use crate::packet::{self, Connect, Packet, Property, Publish, Subscribe, Version};

/// Name of a published message: its publisher and number.
pub type MessageName = (usize, u32);

/// A message a client has sent and that is not completed.
#[derive(Debug, Clone)]
struct Outgoing {
    name: MessageName,
    publish: Publish,
    released: bool,
}

/// What happened that the model has to know.
#[derive(Debug)]
pub enum Event {
    /// The broker has acknowledged a message.
    Acknowledged(MessageName),
    /// A message came: name, topic, `QoS`, whether from the retained index.
    Received { name: MessageName, topic: String, qos: u8, retain: bool },
    /// SUBACK: these filters are in force.
    Subscribed,
    /// PUBREL: the broker knows that the message has come.
    Released,
    /// CONNACK; whether the session was there.
    Connected { session_present: bool },
}

/// A client.
#[derive(Debug)]
pub struct Client {
    /// Its place among the clients.
    pub index: usize,
    /// Its version.
    pub version: Version,
    /// Whether its session outlives its connections.
    pub persistent: bool,
    /// Tells apart its sessions, where one has ended with the broker.
    pub session: u32,
    /// Its session has ended with the broker; it does not know yet.
    session_is_over: bool,
    /// It asks for a fresh session until it has one.
    wants_fresh: bool,
    /// Most `QoS` 1 and 2 messages the broker may have under way to it.
    pub window: usize,
    /// The connection, by number of the pipe.
    pub pipe: Option<usize>,
    /// It does not come back before.
    pub away_until_ms: u64,
    /// CONNACK has come.
    pub connected: bool,
    /// Its subscriptions: filter and `QoS`.
    pub filters: Vec<(String, u8)>,
    /// SUBACK has come at least once in this session.
    pub subscribed: bool,
    /// It was connected before with a session that lasts.
    had_session: bool,
    received: Vec<u8>,
    next_packet_id: u16,
    next_number: u32,
    outgoing: BTreeMap<u64, (u16, Outgoing)>,
    order: u64,
    acks: Vec<Vec<u8>>,
    incoming_qos2: BTreeSet<u16>,
    unacknowledged: BTreeSet<u16>,
    aliases: HashMap<u16, String>,
}

impl Client {
    /// A client that is not connected.
    pub fn new(index: usize, version: Version, persistent: bool, window: usize) -> Self {
        Self {
            index,
            version,
            persistent,
            session: 0,
            session_is_over: false,
            wants_fresh: false,
            window,
            pipe: None,
            away_until_ms: 0,
            connected: false,
            filters: Vec::new(),
            subscribed: false,
            had_session: false,
            received: Vec::new(),
            next_packet_id: 0,
            next_number: 0,
            outgoing: BTreeMap::new(),
            order: 0,
            acks: Vec::new(),
            incoming_qos2: BTreeSet::new(),
            unacknowledged: BTreeSet::new(),
            aliases: HashMap::new(),
        }
    }

    /// Its client id.
    pub fn id(&self) -> String {
        format!("client-{}", self.index)
    }

    /// Its connection is gone.
    pub fn disconnected(&mut self) {
        self.pipe = None;
        self.connected = false;
        self.received.clear();
        self.acks.clear();
        self.unacknowledged.clear();
        self.aliases.clear();
        self.session += u32::from(std::mem::take(&mut self.session_is_over));
        if !self.persistent {
            self.outgoing.clear();
            self.incoming_qos2.clear();
            self.subscribed = false;
        }
    }

    /// The broker has ended; and a session that does not last with it.
    pub fn broker_ended(&mut self) {
        if !self.persistent {
            self.session_is_over = true;
            if self.pipe.is_none() {
                self.disconnected();
            }
        }
    }

    /// Whether nothing of its own is under way.
    pub fn is_quiet(&self) -> bool {
        self.connected && self.outgoing.is_empty() && self.acks.is_empty()
    }

    /// What it has sent and has no answer to.
    pub fn unanswered(&self) -> impl Iterator<Item = MessageName> {
        let open = self.outgoing.values().filter(|(_, outgoing)| !outgoing.released);
        open.map(|(_, outgoing)| outgoing.name)
    }

    /// Gives up its session and everything that was under way in it.
    pub fn start_afresh(&mut self) {
        self.wants_fresh = true;
        self.session += 1;
        self.subscribed = false;
        self.outgoing.clear();
        self.incoming_qos2.clear();
    }

    /// A CONNECT.
    pub fn connect(&self) -> Vec<u8> {
        let mut connect = Connect::new(self.version, &self.id()).keep_alive(0);
        if self.persistent && !self.wants_fresh {
            connect = connect.clean(false);
        }
        if self.version == Version::V5 {
            if self.persistent {
                connect = connect.property(Property::SessionExpiry(u32::MAX));
            }
            let window = u16::try_from(self.window).expect("a small window");
            connect = connect.property(Property::ReceiveMaximum(window));
            connect = connect.property(Property::TopicAliasMaximum(3));
        }
        connect.encode()
    }

    fn packet_id(&mut self) -> u16 {
        loop {
            self.next_packet_id = self.next_packet_id % 40 + 1;
            let id = self.next_packet_id;
            if self.outgoing.values().all(|(used, _)| *used != id) {
                return id;
            }
        }
    }

    /// A SUBSCRIBE to all its filters.
    pub fn subscribe(&mut self) -> Vec<u8> {
        let mut subscribe = Subscribe::new(60_000);
        for (filter, qos) in &self.filters {
            subscribe = subscribe.filter(filter, *qos);
        }
        subscribe.encode(self.version)
    }

    /// An UNSUBSCRIBE from all its filters.
    pub fn unsubscribe(&mut self) -> Vec<u8> {
        let mut unsubscribe = Subscribe::new(60_001);
        for (filter, _) in &self.filters {
            unsubscribe = unsubscribe.filter(filter, 0);
        }
        unsubscribe.encode_unsubscribe(self.version)
    }

    /// A new PUBLISH; `None` while too many are under way.
    pub fn publish(
        &mut self,
        topic: &str,
        qos: u8,
        retain: bool,
        erases: bool,
    ) -> Option<(MessageName, Vec<u8>)> {
        if qos > 0 && self.outgoing.len() >= 8 {
            return None;
        }
        let name = (self.index, self.next_number);
        self.next_number += 1;
        let text = if erases { String::new() } else { format!("{}:{}", name.0, name.1) };
        let mut publish = Publish::new(topic, text);
        publish.retain = retain;
        if qos > 0 {
            let id = self.packet_id();
            publish = publish.qos(qos, id);
            self.order += 1;
            let outgoing = Outgoing { name, publish: publish.clone(), released: false };
            self.outgoing.insert(self.order, (id, outgoing));
        }
        Some((name, publish.encode(self.version)))
    }

    /// Everything that is not completed, again, in order: after a session was resumed.
    pub fn resend(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (id, outgoing) in self.outgoing.values() {
            if outgoing.released {
                bytes.extend(packet::ack(0x62, *id));
            } else {
                bytes.extend(outgoing.publish.clone().dup().encode(self.version));
            }
        }
        bytes
    }

    /// Some of the acknowledgements it owes.
    pub fn take_acks(&mut self, random: &mut Random) -> Vec<u8> {
        let count =
            if random.chance(50) { self.acks.len() } else { random.below(self.acks.len() + 1) };
        let acks: Vec<Vec<u8>> = self.acks.drain(..count).collect();
        for ack in &acks {
            if matches!(ack[0], 0x40 | 0x70) {
                self.unacknowledged.remove(&u16::from_be_bytes([ack[2], ack[3]]));
            }
        }
        acks.concat()
    }

    /// Takes bytes in; what they mean for the model. An error is a broken invariant.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Event>, String> {
        self.received.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some((header, body)) = packet::frame_len(&self.received)
            && self.received.len() >= header + body
        {
            let frame: Vec<u8> = self.received.drain(..header + body).collect();
            let packet = packet::decode(frame[0], &frame[header..], self.version);
            super::trace(|| format!("{} <- {packet:?}", self.id()));
            self.handle(packet, &mut events)?;
        }
        Ok(events)
    }

    fn handle(&mut self, packet: Packet, events: &mut Vec<Event>) -> Result<(), String> {
        match packet {
            Packet::ConnAck(ack) if ack.code == 0 => {
                self.connected = true;
                self.wants_fresh = false;
                // MQTT 3.1 has no such flag; its clients have to believe in their session.
                let believed = self.version == Version::V31 && self.had_session;
                let session_present = ack.session_present || believed;
                self.had_session = self.persistent;
                if !session_present {
                    // A fresh session on both sides.
                    self.incoming_qos2.clear();
                }
                events.push(Event::Connected { session_present });
            }
            // The store cannot write: it tries again.
            Packet::ConnAck(ack) if matches!(ack.code, 3 | 0x88) => {}
            Packet::PubAck(ack) | Packet::PubRec(ack) if ack.reason >= 0x80 => {
                self.complete(ack.packet_id, false);
            }
            Packet::Publish(publish) => self.handle_publish(&publish, events)?,
            Packet::PubAck(ack) => events.extend(self.complete(ack.packet_id, true)),
            Packet::PubRec(ack) => {
                events.extend(self.release(ack.packet_id));
                self.acks.push(packet::ack(0x62, ack.packet_id));
            }
            Packet::PubRel(ack) => {
                self.incoming_qos2.remove(&ack.packet_id);
                self.acks.push(packet::ack(0x70, ack.packet_id));
                events.push(Event::Released);
            }
            Packet::PubComp(ack) => {
                self.complete(ack.packet_id, false);
            }
            Packet::SubAck(ack) => {
                if let Some(code) = ack.codes.iter().find(|&&code| code > 2) {
                    return Err(format!("{} was refused a filter: {code:#x}", self.id()));
                }
                self.subscribed = true;
                events.push(Event::Subscribed);
            }
            Packet::UnsubAck(_) => self.subscribed = false,
            Packet::PingResp => {}
            // Taken over by its own next connection; or the broker stops.
            Packet::Disconnect(disconnect) if matches!(disconnect.reason, 0x8b | 0x8e) => {}
            other => return Err(format!("{} received {other:?}", self.id())),
        }
        Ok(())
    }

    fn complete(&mut self, id: u16, acknowledges: bool) -> Option<Event> {
        let key = *self.outgoing.iter().find(|(_, (used, _))| *used == id)?.0;
        let (_, outgoing) = self.outgoing.remove(&key)?;
        acknowledges.then_some(Event::Acknowledged(outgoing.name))
    }

    fn release(&mut self, id: u16) -> Option<Event> {
        let (_, outgoing) = self.outgoing.values_mut().find(|(used, _)| *used == id)?;
        let first = !outgoing.released;
        outgoing.released = true;
        first.then_some(Event::Acknowledged(outgoing.name))
    }

    fn handle_publish(&mut self, publish: &Publish, events: &mut Vec<Event>) -> Result<(), String> {
        let topic = match publish.topic_alias() {
            Some(alias) if publish.topic.is_empty() => {
                let known = self.aliases.get(&alias).cloned();
                known.ok_or(format!("{} received alias {alias}, never set", self.id()))?
            }
            Some(alias) => {
                self.aliases.insert(alias, publish.topic.clone());
                publish.topic.clone()
            }
            None => publish.topic.clone(),
        };
        let name = name_of(publish.text())?;
        let id = publish.packet_id;
        let (qos, retain) = (publish.qos, publish.retain);
        let mut repeated = false;
        if qos > 0 {
            if !self.unacknowledged.insert(id) && !publish.dup {
                return Err(format!("{} received packet id {id} twice at a time", self.id()));
            }
            if self.unacknowledged.len() > self.window {
                return Err(format!("{} has more than {} under way", self.id(), self.window));
            }
            self.acks.push(packet::ack(if qos == 1 { 0x40 } else { 0x50 }, id));
        }
        if qos == 2 {
            repeated = !self.incoming_qos2.insert(id);
        }
        if let Some(name) = name.filter(|_| !repeated) {
            events.push(Event::Received { name, topic, qos, retain });
        }
        Ok(())
    }
}

/// The name in a payload; none without one, which removes a retained message.
fn name_of(text: &str) -> Result<Option<MessageName>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let (publisher, number) =
        text.split_once(':').ok_or(format!("payload '{text}' is none of ours"))?;
    match (publisher.parse(), number.parse()) {
        (Ok(publisher), Ok(number)) => Ok(Some((publisher, number))),
        _ => Err(format!("payload '{text}' is none of ours")),
    }
}
