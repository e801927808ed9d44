//! What the name of a scenario stands for.
//!
//! The cases of the Open MQTT Benchmark Suite (github.com/emqx/mqttbs) have QoS 1, payloads of 16 bytes, a keep alive of 300
//! seconds, clean sessions, and one message a second from each publisher, but for fanout-5-1000-5-250K, whose publishers
//! send 50. Clients there stay for 30 minutes; here a run is as short as our own.

use crate::cli::Scenario;
use crate::plan::Shape;

/// How fast messages are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// So many per second in all.
    All(f64),
    /// So many per second of each publisher.
    Each(f64),
}

/// A scenario's defaults.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its shape.
    pub shape: Shape,
    /// Pairs, subscribers, publishers or clients: what `-n` changes.
    pub count: u32,
    /// The clients on the side that `-n` is not for: publishers of a fan-out, subscribers of a fan-in or a shared one.
    pub others: u32,
    /// Protocol version.
    pub version: &'static str,
    /// QoS of messages and subscriptions.
    pub qos: u8,
    /// Bytes of a payload.
    pub size: usize,
    /// Messages (churn: clients) per second.
    pub rate: Rate,
    /// See `--window`.
    pub window: u64,
    /// Clients per second; 0: as fast as possible.
    pub connect_rate: u64,
    /// Seconds.
    pub warmup: f64,
    /// Seconds.
    pub duration: f64,
    /// Percent of the clients that send or hear messages.
    pub active: f64,
}

impl Scenario {
    /// What it stands for.
    pub fn case(self) -> Case {
        use Scenario::*;
        let base = Case {
            shape: Shape::Pairs,
            count: 1_000,
            others: 1,
            version: "311",
            qos: 0,
            size: 64,
            rate: Rate::All(20_000.0),
            window: 100,
            connect_rate: 0,
            warmup: 2.0,
            duration: 10.0,
            active: 100.0,
        };
        let still =
            Case { shape: Shape::Idle, count: 15_000, rate: Rate::All(0.0), warmup: 0.0, ..base };
        let suite = Case { qos: 1, size: 16, rate: Rate::Each(1.0), ..base };
        let conn = Case { shape: Shape::Connected, qos: 1, ..still };
        let fanout = Case { shape: Shape::Fanout, ..suite };
        let shared = Case { shape: Shape::Shared, version: "5", ..suite };
        match self {
            Idle => still,
            ConnectSubscribe => Case { duration: 0.0, ..still },
            Pairs => base,
            Fanout => Case { shape: Shape::Fanout, rate: Rate::All(50.0), ..base },
            Fanin => Case { shape: Shape::Fanin, rate: Rate::All(0.0), window: 10, ..base },
            HotPair => Case { count: 1, rate: Rate::All(0.0), window: 1_000, ..base },
            Probe | Hostile => {
                Case { shape: Shape::Own, count: 1, qos: 1, rate: Rate::All(100.0), ..base }
            }
            Echo => Case { shape: Shape::Echo, ..base },
            ConnTcp10k => Case { count: 10_000, connect_rate: 100, ..conn },
            ConnTcp1M => Case { count: 1_000_000, connect_rate: 5_000, ..conn },
            P2p1K => suite,
            P2p50K => Case { count: 50_000, ..suite },
            Fanout1K => fanout,
            Fanout250K => Case { others: 5, rate: Rate::Each(50.0), ..fanout },
            Sharedsub1K => Case { others: 5, ..shared },
            Sharedsub50K => Case { count: 50_000, others: 500, ..shared },
            P2pIdle => Case { count: 100_000, active: 1.0, ..suite },
            Storm => Case {
                shape: Shape::Own,
                count: 10_000,
                qos: 1,
                // One message to each client.
                rate: Rate::Each(0.2),
                warmup: 0.0,
                duration: 5.0,
                ..base
            },
            TlsIdle => Case { count: 10_000, ..still },
            TlsHandshakes => {
                Case { shape: Shape::Visits, count: 1_000, rate: Rate::All(2_000.0), ..base }
            }
            ReconnectStorm => Case { warmup: 1.0, ..still },
            DurablePub => Case { count: 100, version: "5", ..suite },
            OfflineQueue => Case { count: 10_000, others: 10, version: "5", ..suite },
            RetainedMany => Case { count: 100_000, others: 10, version: "5", ..suite },
            Churn => Case { shape: Shape::Churn, count: 10_000, rate: Rate::All(1_000.0), ..base },
        }
    }
}
