//! Hostile input, while a well-behaved client watches that its round trips still work and that the broker's memory returns.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringmq_tests::packet::{field, frame, put_variable};
use ringmq_tests::{Broker, Client, Connect, Property, Publish, Subscribe, V5, V311, id, topic};

/// The longest a round trip may take while others misbehave. A bound that only a broker that stalls breaks.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(1500);
/// How much more memory may be in use after the attack than before it.
const GROWTH_MAX: u64 = 32 << 20;

/// A client that sends messages to itself until told to stop, and gives the longest round trip.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Duration)>,
}

impl Watcher {
    fn start(broker: &Broker) -> Watcher {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut client, name, flag) = (broker.client(V5), topic(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            client.subscribe(&name, 1);
            let (mut count, mut longest) = (0, Duration::ZERO);
            while !flag.load(Ordering::Relaxed) || count < 20 {
                let start = Instant::now();
                client.publish(&name, &count.to_string(), 1);
                client.expect_message(&name, &count.to_string());
                longest = longest.max(start.elapsed());
                count += 1;
                thread::sleep(Duration::from_millis(5));
            }
            (count, longest)
        });
        Watcher { stop, thread }
    }
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (count, longest) = self.thread.join().expect("the well-behaved client was served");
        assert!(longest < ROUND_TRIP_MAX, "{longest:?} for one of {count} round trips");
    }
}

/// Runs an attack under watch, then looks at the memory.
fn attack(settings: &[&str], run: impl FnOnce(&Broker)) {
    let broker = Broker::start(settings);
    broker.client(V311).expect_alive();
    let before = broker.rss_bytes();
    let watcher = Watcher::start(&broker);
    run(&broker);
    watcher.end();
    let end = Instant::now() + Duration::from_secs(5);
    let mut grown = u64::MAX;
    while grown > GROWTH_MAX && Instant::now() < end {
        thread::sleep(Duration::from_millis(100));
        grown = broker.rss_bytes().saturating_sub(before);
    }
    assert!(grown <= GROWTH_MAX, "the broker holds {grown} bytes more after the attack");
}

fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the broker accepts");
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// A generator of bytes that are the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u8 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0.to_be_bytes()[0]
    }
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next()).collect()
    }
}

/// Random bytes instead of a CONNECT, and after one.
#[test]
fn garbage() {
    attack(&[], |broker| {
        let mut noise = Noise(7);
        for round in 0..1500_u32 {
            let mut stream = open(broker.address());
            if round % 2 == 0 {
                let version = if round % 4 == 0 { V5 } else { V311 };
                let _ = stream.write_all(&Connect::new(version, &id()).encode());
            }
            let len = 1 + usize::from(noise.next());
            let _ = stream.write_all(&noise.bytes(len));
        }
    });
}

/// Packets that are right but for one byte.
#[test]
fn flipped_bytes() {
    attack(&[], |broker| {
        let mut noise = Noise(11);
        let packets = [
            Connect::new(V5, "x").property(Property::user("a", "b")).encode(),
            Publish::new("a/b", "payload").qos(2, 7).property(Property::TopicAlias(3)).encode(V5),
            Subscribe::new(9).filter("a/#", 1).filter("$share/g/b", 0).encode(V5),
            Subscribe::new(9).filter("a/#", 1).encode_unsubscribe(V5),
            ringmq_tests::packet::disconnect_v5(4, &[Property::ReasonString("r".into())]),
        ];
        for round in 0..2000_usize {
            let mut bytes = packets[round % packets.len()].clone();
            let at = usize::from(noise.next()) % bytes.len();
            bytes[at] ^= 1 << (noise.next() % 8);
            let mut stream = open(broker.address());
            if round % packets.len() > 0 {
                let _ = stream.write_all(&Connect::new(V5, &id()).encode());
            }
            let _ = stream.write_all(&bytes);
        }
    });
}

/// Half packets that stay half, on many connections.
#[test]
fn half_packets() {
    attack(&["mqtt.conn.partial_packet_timeout=1s", "mqtt.client.idle_timeout=1s"], |broker| {
        let mut held = Vec::new();
        for number in 0..400 {
            let mut stream = open(broker.address());
            if number % 2 == 0 {
                let _ = stream.write_all(&Connect::new(V311, &id()).encode());
                let mut answer = [0; 4];
                let _ = stream.read_exact(&mut answer);
            }
            // A packet of 60,000 bytes of which 5,000 come.
            let mut bytes = vec![if number % 2 == 0 { 0x30 } else { 0x10 }];
            put_variable(&mut bytes, 60_000);
            bytes.extend(field(b"topic"));
            bytes.extend(vec![b'x'; 5_000]);
            let _ = stream.write_all(&bytes);
            held.push(stream);
        }
        thread::sleep(Duration::from_millis(2500));
        for stream in &mut held {
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let end = stream.read_to_end(&mut Vec::new());
            let reset = |error: io::Error| error.kind() == ErrorKind::ConnectionReset;
            assert!(end.map_or_else(reset, |_| true), "half a packet is still waited for");
        }
    });
}

/// Connections that come and go as fast as they can, with and without CONNECT.
#[test]
fn connect_flood() {
    attack(&[], |broker| {
        let address = broker.address();
        let threads: Vec<_> = (0..4)
            .map(|part| {
                thread::spawn(move || {
                    for number in 0..1000 {
                        let mut stream = open(address);
                        match number % 4 {
                            0 => drop(stream),
                            1 => {
                                let _ = stream.write_all(&Connect::new(V5, &id()).encode());
                            }
                            2 => {
                                // The same id from four threads: takeovers.
                                let same = format!("flood-{part}");
                                let _ = stream.write_all(&Connect::new(V311, &same).encode());
                                let mut answer = [0; 4];
                                let _ = stream.read(&mut answer);
                            }
                            _ => {
                                let _ = stream.write_all(&[0x10, 0x7F]);
                            }
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Subscribers that do not read while messages come.
#[test]
fn slow_readers() {
    attack(&["mqtt.conn.pending_bytes_max=64KB"], |broker| {
        let mut slow = Vec::new();
        for _ in 0..50 {
            let mut client = broker.client(V311);
            client.subscribe("flood", 0);
            slow.push(client);
        }
        let mut publisher = broker.client(V311);
        let payload = "x".repeat(8_000);
        for _ in 0..400 {
            publisher.send_publish(&Publish::new("flood", &payload)); // 3 MB to each of 50
        }
        publisher.expect_alive();
        // They are slow, not dead: what they get at last is whole.
        for client in &mut slow {
            assert_eq!(client.message().payload.len(), 8_000);
        }
    });
}

/// QoS 1 subscribers that read and never acknowledge: the queue is bounded.
#[test]
fn subscribers_that_never_acknowledge() {
    attack(&["mqtt.mqueue.max_length=100"], |broker| {
        let mut subscribers: Vec<Client> = (0..20)
            .map(|_| {
                let mut client = broker.client(V5);
                client.subscribe("never", 1);
                client
            })
            .collect();
        let mut publisher = broker.client(V5);
        for _ in 0..1000 {
            publisher.publish("never", &"x".repeat(1000), 1);
        }
        for client in &mut subscribers {
            for _ in 0..32 {
                client.expect_publish();
            }
            client.expect_alive();
        }
    });
}

/// Lengths that promise far more than comes.
#[test]
fn packet_size_bombs() {
    attack(&[], |broker| {
        for _ in 0..300 {
            for first in [0x10, 0x30, 0x82] {
                let mut stream = open(broker.address());
                if first != 0x10 {
                    let _ = stream.write_all(&Connect::new(V5, &id()).encode());
                }
                let _ = stream.write_all(&[first, 0xFF, 0xFF, 0xFF, 0x7F, 0, 4]);
            }
        }
    });
}

/// Packets full of user properties, and properties that promise more than there is.
#[test]
fn property_bombs() {
    attack(&[], |broker| {
        let small = Property::user("", "");
        for round in 0..200 {
            let mut client = broker.raw(V5);
            let mut connect = Connect::new(V5, &id());
            if round % 2 == 0 {
                connect.properties = vec![small.clone(); 12_000];
            }
            client.try_send(&connect.encode());
            let bomb = Publish { properties: vec![small.clone(); 12_000], ..Publish::new("a", "") };
            client.try_send(&bomb.encode(V5));
            let mut body = field(b"a");
            body.extend([0xFF, 0xFF, 0xFF, 0x7F]);
            client.try_send(&frame(0x30, &body));
        }
    });
}

/// Thousands of filters from one client, deep ones and wild ones, then gone.
#[test]
fn thousands_of_filters() {
    attack(&[], |broker| {
        let mut client = broker.client(V5);
        for packet in 0..10 {
            let names: Vec<String> = (0..500)
                .map(|number| match number % 4 {
                    0 => format!("a/{packet}/{number}"),
                    1 => format!("+/{packet}/{number}/#"),
                    2 => format!("{}x/{packet}/{number}", "+/".repeat(20)),
                    _ => format!("{}{packet}/{number}/#", "d/".repeat(60)),
                })
                .collect();
            let filters: Vec<(&str, u8)> = names.iter().map(|name| (name.as_str(), 0)).collect();
            assert_eq!(client.subscribe_with(&filters, &[]).len(), 500);
        }
        // Topics that touch as many branches as they can.
        let mut publisher = broker.client(V5);
        for _ in 0..200 {
            publisher.publish(&"d/".repeat(60), "x", 0);
        }
        publisher.expect_alive();
        client.disconnect();
    });
}

/// A filter that is all wildcards against topics of as many levels.
#[test]
fn wildcard_explosion() {
    attack(&[], |broker| {
        let mut clients: Vec<Client> = Vec::new();
        for number in 0..16 {
            let mut client = broker.client(V311);
            // Every pattern of `+` and `a` over eight levels.
            let names: Vec<String> = (0..256_u32)
                .map(|bits| {
                    let levels: Vec<&str> =
                        (0..8).map(|bit| if bits >> bit & 1 == 0 { "+" } else { "a" }).collect();
                    format!("{}/{number}", levels.join("/"))
                })
                .collect();
            let filters: Vec<(&str, u8)> = names.iter().map(|name| (name.as_str(), 0)).collect();
            client.subscribe_with(&filters, &[]);
            clients.push(client);
        }
        let mut publisher = broker.client(V311);
        for (number, client) in clients.iter_mut().enumerate() {
            let name = format!("{}/{number}", ["a"; 8].join("/"));
            publisher.publish(&name, "x", 0);
            client.expect_message(&name, "x");
            client.expect_nothing();
        }
    });
}

/// A client that sends as fast as it can does not starve the others.
#[test]
fn one_loud_publisher() {
    attack(&[], |broker| {
        let mut publisher = broker.client(V311);
        let one = Publish::new("loud", "x".repeat(50)).encode(V311);
        let many = one.repeat(1000);
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            publisher.send(&many);
        }
        publisher.expect_alive();
    });
}
