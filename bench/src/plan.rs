//! What a scenario is made of: which clients there are, who subscribes to what, who publishes where.

use crate::wire::Version;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::time::Duration;

/// Length of every client id, so that memory per client compares.
pub const CLIENT_ID_LEN: usize = 20;
/// Length of every topic and filter.
pub const TOPIC_LEN: usize = 24;

/// The shape of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// N clients with one subscription each and no messages.
    Idle,
    /// N publishers, each with a subscriber of its own.
    Pairs,
    /// One publisher, N subscribers.
    Fanout,
    /// N publishers, one subscriber.
    Fanin,
    /// N clients, each publishing to its own subscription.
    Own,
    /// N bare connections to an echo server, without MQTT's handshake.
    Echo,
    /// N pairs of bare connections to a relaying echo server.
    Relay,
}

/// One client of a run.
pub struct ClientPlan {
    /// Client id.
    pub id: String,
    /// The filter it subscribes to once connected.
    pub filter: Option<String>,
    /// Number of the publisher it is, and the topic it publishes to.
    pub publishes: Option<(u32, String)>,
    /// The publishers whose messages it is to receive.
    pub hears: Range<u32>,
    /// The generator's thread that drives it.
    pub thread: usize,
}

/// A whole run.
pub struct Plan {
    /// The shape.
    pub shape: Shape,
    /// Every client, in the order they connect: subscribers before publishers.
    pub clients: Vec<ClientPlan>,
    /// Number of publishers.
    pub publishers: u32,
    /// Deliveries that one message leads to.
    pub fan: u64,
    /// Every subscriber is driven by the thread of all its publishers.
    pub is_local: bool,
}

/// How the load is applied.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where the broker listens.
    pub target: SocketAddrV4,
    /// Source addresses, used in turn; empty: the kernel chooses.
    pub sources: Vec<Ipv4Addr>,
    /// Protocol version.
    pub version: Version,
    /// QoS of subscriptions and messages.
    pub qos: u8,
    /// Messages per second of all publishers together; 0: flat out within the window.
    pub rate: u64,
    /// Bytes of a payload.
    pub payload_len: usize,
    /// Flat out: messages of one publisher that may be on their way. Paced: QoS 1/2 messages not yet acknowledged.
    pub window: u64,
    /// Clients opened per second; 0: as fast as the window allows.
    pub connect_rate: u64,
    /// Clients of one thread that may be between connect and SUBACK.
    pub connect_window: usize,
    /// Keep alive of every client; PINGREQ are sent accordingly. 0: off.
    pub keep_alive_s: u16,
    /// Generator threads.
    pub threads: usize,
    /// Poll instead of sleeping while messages are due.
    pub spin: bool,
    /// Longest time for all clients to get ready.
    pub connect_timeout: Duration,
}

impl Plan {
    /// The plan of `shape` with `count` pairs, subscribers, publishers or clients on `threads` threads.
    pub fn new(shape: Shape, count: u32, prefix: &str, threads: usize) -> Plan {
        let name = |role: char, n: u32| numbered(&format!("{prefix}{role}"), n, CLIENT_ID_LEN);
        let topic = |n: u32| numbered(&format!("{prefix}/"), n, TOPIC_LEN);
        let thread = |n: u32| usize::try_from(n).expect("u32 fits") % threads;
        let subscriber = |n: u32, filter: u32, hears: Range<u32>| ClientPlan {
            id: name('s', n),
            filter: Some(topic(filter)),
            publishes: None,
            hears,
            thread: thread(n),
        };
        let publisher = |n: u32, to: u32| ClientPlan {
            id: name('p', n),
            filter: None,
            publishes: Some((n, topic(to))),
            hears: 0..0,
            thread: thread(n),
        };
        let numbers = 0..count;
        let (clients, publishers): (Vec<ClientPlan>, u32) = match shape {
            Shape::Idle => (numbers.map(|n| subscriber(n, n, 0..0)).collect(), 0),
            Shape::Pairs => (
                numbers
                    .clone()
                    .map(|n| subscriber(n, n, n..n + 1))
                    .chain(numbers.map(|n| publisher(n, n)))
                    .collect(),
                count,
            ),
            Shape::Fanout => {
                (numbers.map(|n| subscriber(n, 0, 0..1)).chain([publisher(0, 0)]).collect(), 1)
            }
            Shape::Fanin => (
                [subscriber(0, 0, 0..count)]
                    .into_iter()
                    .chain(numbers.map(|n| publisher(n, 0)))
                    .collect(),
                count,
            ),
            Shape::Own | Shape::Echo => (
                numbers
                    .map(|n| ClientPlan {
                        filter: (shape == Shape::Own).then(|| topic(n)),
                        hears: n..n + 1,
                        ..publisher(n, n)
                    })
                    .collect(),
                count,
            ),
            // The server joins connections two by two in the order they come.
            Shape::Relay => (
                numbers
                    .flat_map(|n| {
                        [publisher(n, n), ClientPlan { filter: None, ..subscriber(n, n, n..n + 1) }]
                    })
                    .collect(),
                count,
            ),
        };
        Plan {
            shape,
            clients,
            publishers,
            fan: if shape == Shape::Fanout { u64::from(count) } else { 1 },
            is_local: threads == 1 || !matches!(shape, Shape::Fanout | Shape::Fanin),
        }
    }
}

/// `prefix` and `n` with as many leading zeros as make it `len` characters.
fn numbered(prefix: &str, n: u32, len: usize) -> String {
    format!("{prefix}{n:0width$}", width = len.saturating_sub(prefix.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_topics_have_the_exact_length() {
        for shape in [Shape::Idle, Shape::Pairs, Shape::Fanout, Shape::Fanin, Shape::Own] {
            let plan = Plan::new(shape, 15, "bench", 2);
            for client in &plan.clients {
                assert_eq!(client.id.len(), 20);
                let topics = client.filter.iter().chain(client.publishes.iter().map(|(_, t)| t));
                assert!(topics.into_iter().all(|topic| topic.len() == 24));
            }
        }
    }

    #[test]
    fn every_publisher_is_heard_fan_times() {
        for shape in
            [Shape::Pairs, Shape::Fanout, Shape::Fanin, Shape::Own, Shape::Echo, Shape::Relay]
        {
            let plan = Plan::new(shape, 9, "b", 3);
            for publisher in 0..plan.publishers {
                let heard = plan.clients.iter().filter(|c| c.hears.contains(&publisher)).count();
                assert_eq!(u64::try_from(heard).expect("small"), plan.fan, "{shape:?}");
            }
        }
    }

    #[test]
    fn a_pair_shares_its_thread() {
        let plan = Plan::new(Shape::Pairs, 10, "b", 3);
        for client in &plan.clients[10..] {
            let (number, _) = client.publishes.as_ref().expect("a publisher");
            assert_eq!(
                client.thread,
                plan.clients[usize::try_from(*number).expect("small")].thread
            );
        }
    }
}
