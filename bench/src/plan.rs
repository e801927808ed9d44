//! What a scenario is made of: which clients there are, who subscribes to what, who publishes where. Everything is
//! computed from numbers, so that a million clients cost nothing here.
//!
//! Threads have their clients numbered from 0: first those that hear messages, then those that only are there, then the
//! publishers. Of each kind thread k of n has the numbers k, k + n, k + 2n and so on: a pair shares its thread.

use crate::names::Names;
use crate::wire::{self, Version};
use filter::ClientFilterSettings;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// The shape of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// Clients without a subscription.
    Connected,
    /// Clients with one subscription each and no messages.
    Idle,
    /// Publishers, each with a subscriber of its own; beside them clients as in `Idle`.
    Pairs,
    /// Subscribers that hear all publishers, each of which has a topic.
    Fanout,
    /// Publishers to one topic, and one subscriber.
    Fanin,
    /// Publishers with a topic each; subscribers that share all topics.
    Shared,
    /// Clients that publish to their own subscription.
    Own,
    /// Clients that connect, subscribe and leave again.
    Churn,
    /// Clients that connect and leave again, without a subscription.
    Visits,
    /// Bare connections to an echo server, without MQTT's handshake.
    Echo,
    /// Pairs of bare connections to a relaying echo server.
    Relay,
}

/// What one client is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Hears messages.
    Hears(u32),
    /// Is there.
    Idle(u32),
    /// Is a publisher.
    Publishes(u32),
    /// Is a publisher that hears itself.
    Both(u32),
}

/// How many there are of each.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Clients that hear messages and publish none.
    pub hearing: u32,
    /// Clients that only are there.
    pub idle: u32,
    /// Publishers.
    pub publishers: u32,
}

impl Counts {
    /// All clients.
    pub fn clients(&self) -> u32 {
        self.hearing + self.idle + self.publishers
    }
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The shape.
    pub shape: Shape,
    /// Clients of all threads.
    pub counts: Counts,
    /// Threads.
    pub threads: u32,
    /// Deliveries that one message leads to.
    pub fan: u64,
    /// Ids and topics.
    pub names: Names,
}

/// Whether the threads of a load go before others on their CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Urgency {
    /// They give way to others: they are not what is measured.
    Background,
    /// As all threads.
    #[default]
    Ordinary,
    /// They go before all others: what they measure is not to include that they wait for their CPU.
    Probe,
}

/// How the load is applied.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where the broker listens.
    pub target: SocketAddrV4,
    /// What stands between the wire and MQTT there.
    pub layers: Option<Arc<ClientFilterSettings>>,
    /// Who of several threads on one CPU goes first.
    pub urgency: Urgency,
    /// Source addresses, used in turn; empty: the kernel chooses.
    pub sources: Vec<Ipv4Addr>,
    /// Protocol version.
    pub version: Version,
    /// QoS of subscriptions and messages.
    pub qos: u8,
    /// Messages (churn: clients) per second of all threads together; 0: flat out within the window.
    pub rate: f64,
    /// Bytes of a payload.
    pub payload_len: usize,
    /// Flat out: messages of one publisher that may be on their way. Paced: QoS 1/2 messages not yet acknowledged.
    pub window: u64,
    /// Clients opened per second; 0: as fast as the window allows.
    pub connect_rate: u64,
    /// Clients of one thread that may be between connect and SUBACK.
    pub connect_window: u32,
    /// Keep alive of every client; PINGREQ are sent accordingly. 0: off.
    pub keep_alive_s: u16,
    /// The CPUs of the threads, in turn; empty: the kernel chooses.
    pub cpus: Vec<usize>,
    /// Longest time for all clients to get ready.
    pub connect_timeout: Duration,
    /// Churn: how long a client stays.
    pub hold: Duration,
}

impl Plan {
    /// A plan on `threads` threads.
    pub fn new(shape: Shape, counts: Counts, prefix: &str, threads: u32) -> Plan {
        let fan = if shape == Shape::Fanout { u64::from(counts.hearing) } else { 1 };
        Plan { shape, counts, threads, fan, names: Names::new(prefix) }
    }

    /// Whether clients speak MQTT at all.
    pub fn is_mqtt(&self) -> bool {
        !matches!(self.shape, Shape::Echo | Shape::Relay)
    }

    /// Whether every subscriber is driven by the thread of all its publishers.
    pub fn is_local(&self) -> bool {
        self.threads == 1 || !matches!(self.shape, Shape::Fanout | Shape::Fanin | Shape::Shared)
    }

    /// Whether clients come and go all the time.
    pub fn churns(&self) -> bool {
        matches!(self.shape, Shape::Churn | Shape::Visits)
    }

    /// Clients that are opened before the run begins.
    pub fn opened_first(&self) -> u32 {
        if self.churns() { 0 } else { self.counts.clients() }
    }

    /// Topics that are published to.
    pub fn topics(&self) -> u32 {
        if self.shape == Shape::Fanin { 1 } else { self.counts.publishers }
    }

    /// Publishers that one client of this kind hears.
    pub fn heard(&self) -> u32 {
        match self.shape {
            Shape::Fanout | Shape::Fanin => self.counts.publishers,
            _ => 1,
        }
    }

    /// The clients of one thread.
    pub fn on_thread(&self, thread: u32) -> Counts {
        let share = |count: u32| (count + self.threads - 1 - thread) / self.threads;
        Counts {
            hearing: share(self.counts.hearing),
            idle: share(self.counts.idle),
            publishers: share(self.counts.publishers),
        }
    }

    /// What client `local` of a thread is for.
    pub fn role(&self, thread: u32, local: u32) -> Role {
        let counts = self.on_thread(thread);
        let number = |index: u32| index * self.threads + thread;
        if local < counts.hearing {
            return Role::Hears(number(local));
        }
        let local = local - counts.hearing;
        if local < counts.idle {
            return Role::Idle(number(local));
        }
        match self.shape {
            Shape::Own | Shape::Echo => Role::Both(number(local - counts.idle)),
            _ => Role::Publishes(number(local - counts.idle)),
        }
    }

    /// The client of a thread that is opened in this place.
    pub fn opened_at(&self, thread: u32, place: u32) -> u32 {
        if self.shape == Shape::Relay {
            // The server joins connections two by two in the order they come.
            return place / 2
                + if place.is_multiple_of(2) { self.on_thread(thread).hearing } else { 0 };
        }
        place
    }

    /// Appends the CONNECT of a client in `role`.
    pub fn put_connect(&self, out: &mut Vec<u8>, load: &Load, role: Role) {
        let (letter, number) = match role {
            Role::Hears(number) => (b's', number),
            Role::Idle(number) => (b'i', number),
            Role::Publishes(number) | Role::Both(number) => (b'p', number),
        };
        let id = self.names.client_id(letter, u64::from(number));
        wire::connect(out, load.version, id.as_str(), load.keep_alive_s);
    }

    /// Appends the SUBSCRIBE of a client in `role`; false: it has none.
    pub fn put_subscribe(&self, out: &mut Vec<u8>, load: &Load, role: Role) -> bool {
        let topic = |number: u32| self.names.topic(u64::from(number));
        let one = |out: &mut Vec<u8>, number: u32| {
            wire::subscribe(out, load.version, 1, topic(number).as_str(), load.qos);
        };
        match (role, self.shape) {
            (_, Shape::Connected | Shape::Visits) | (Role::Publishes(_), _) => return false,
            // Behind the topics of those that hear.
            (Role::Idle(number), _) => one(out, self.counts.hearing + number),
            (Role::Hears(_), Shape::Fanout | Shape::Fanin) => {
                wire::subscribe_all(
                    out,
                    load.version,
                    1,
                    self.topics(),
                    load.qos,
                    |number, out| {
                        wire::put_string(out, topic(number).as_str());
                    },
                );
            }
            (Role::Hears(_), Shape::Shared) => {
                wire::subscribe_all(out, load.version, 1, 1, load.qos, |_, out| {
                    self.names.put_shared_filter(out);
                });
            }
            (Role::Hears(number) | Role::Both(number), _) => one(out, number),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const COUNTS: Counts = Counts { hearing: 9, idle: 4, publishers: 9 };

    #[test]
    fn every_client_has_one_place_on_one_thread() {
        for threads in 1..=4 {
            let plan = Plan::new(Shape::Pairs, COUNTS, "b", threads);
            let mut seen = BTreeSet::new();
            for thread in 0..threads {
                for local in 0..plan.on_thread(thread).clients() {
                    assert!(seen.insert(format!("{:?}", plan.role(thread, local))));
                }
            }
            assert_eq!(seen.len(), 22);
        }
    }

    #[test]
    fn a_pair_shares_its_thread() {
        let plan = Plan::new(Shape::Pairs, COUNTS, "b", 3);
        for thread in 0..3 {
            let counts = plan.on_thread(thread);
            for pair in 0..counts.hearing {
                let Role::Hears(subscriber) = plan.role(thread, pair) else { panic!("hears") };
                let publisher = plan.role(thread, counts.hearing + counts.idle + pair);
                assert_eq!(publisher, Role::Publishes(subscriber));
            }
        }
    }

    #[test]
    fn a_relay_opens_every_publisher_before_its_subscriber() {
        let counts = Counts { hearing: 5, idle: 0, publishers: 5 };
        let plan = Plan::new(Shape::Relay, counts, "b", 1);
        let order: Vec<Role> =
            (0..10).map(|place| plan.role(0, plan.opened_at(0, place))).collect();
        for (pair, roles) in (0..5).zip(order.chunks(2)) {
            assert_eq!(roles, [Role::Publishes(pair), Role::Hears(pair)]);
        }
    }
}
