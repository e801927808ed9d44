//! The command line.

use crate::beside::BesideArgs;
use crate::cases::{Case, Rate};
use crate::durable::DurableArgs;
use crate::emqtt::{ConnArgs, PubArgs, SubArgs};
use crate::error::BenchError;
use crate::million::MillionArgs;
use crate::names::PREFIX_LEN_MAX;
use crate::plan::{Counts, Load, Plan, Shape, Urgency};
use crate::run::Course;
use crate::sources;
pub use crate::sources::parse as parse_sources;
use crate::transport::TransportArgs;
use crate::wire::{STAMP_LEN, Version};
use clap::{Args, Parser, Subcommand, ValueEnum};
use filter::ClientFilterSettings;
use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Largest payload: a packet must fit a read.
const PAYLOAD_MAX: usize = 128 * 1024;
/// Largest window: packet ids of one publisher must not run out.
const WINDOW_MAX: u64 = 60_000;

/// Measures MQTT brokers: rates, latency, losses, and the broker's CPU time and memory.
#[derive(Parser)]
#[command(name = "ringmq-bench", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Connect clients and keep them, as emqtt_bench does
    Conn(Box<ConnArgs>),
    /// Connect clients that subscribe, and count what comes, as emqtt_bench does
    Sub(Box<SubArgs>),
    /// Connect clients that publish, as emqtt_bench does
    Pub(Box<PubArgs>),
    /// Run one scenario against a broker (or, `echo`, against an echo-server)
    Scenario(Box<ScenarioArgs>),
    /// Hold a million clients: connect, measure, ping, publish, storm; an error if anything is lost
    Million(Box<MillionArgs>),
    /// Serve bare TCP echo on one thread: what the kernel itself costs
    EchoServer(EchoArgs),
    /// One table from the JSON files of several runs
    Compare(CompareArgs),
}

/// The scenarios.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Scenario {
    /// N clients with one subscription each, doing nothing
    Idle,
    /// N publishers with a subscriber each
    Pairs,
    /// One publisher, N subscribers
    #[value(alias = "fan-out")]
    Fanout,
    /// N publishers, one subscriber
    #[value(alias = "fan-in")]
    Fanin,
    /// One publisher and one subscriber, flat out
    HotPair,
    /// N clients connect and subscribe as fast as the broker lets them
    ConnectSubscribe,
    /// One client that measures its own round trip, QoS 1
    Probe,
    /// The packets of `pairs` against an echo server, without MQTT's handshake
    Echo,
    /// A probe beside garbage, half packets, connect floods and slow readers
    Hostile,
    /// 10,000 clients connect, 100 a second
    #[value(name = "conn-tcp-10k-100")]
    ConnTcp10k,
    /// 1,000,000 clients connect, 5,000 a second
    #[value(name = "conn-tcp-1M-5K")]
    ConnTcp1M,
    /// 1,000 publishers with a subscriber each, a message a second each
    #[value(name = "p2p-1K-1K-1K-1K")]
    P2p1K,
    /// 50,000 publishers with a subscriber each, a message a second each
    #[value(name = "p2p-50K-50K-50K-50K")]
    P2p50K,
    /// One publisher, a message a second, 1,000 subscribers
    #[value(name = "fanout-1-1k-1-1K")]
    Fanout1K,
    /// 5 publishers, 50 messages a second each, 1,000 subscribers of all 5 topics
    #[value(name = "fanout-5-1000-5-250K")]
    Fanout250K,
    /// 1,000 publishers, a message a second each, shared by 5 subscribers
    #[value(name = "sharedsub-1K-5-1K-1K")]
    Sharedsub1K,
    /// 50,000 publishers, a message a second each, shared by 500 subscribers
    #[value(name = "sharedsub-50K-500-50K-50K")]
    Sharedsub50K,
    /// 100,000 clients, 1% of them in pairs that send a message a second each
    #[value(name = "p2p-idle-100K", alias = "p2p-idle")]
    P2pIdle,
    /// All clients are lost at once and come back; then each hears a message
    Storm,
    /// Clients connect, subscribe and leave again, at a rate
    Churn,
    /// What the broker keeps for an idle client with TLS, and for one without
    TlsIdle,
    /// TLS handshakes flat out; and what established clients feel of them at a rate
    TlsHandshakes,
    /// Publishers in closed loop to sessions that are away: acknowledgements
    DurablePub,
    /// Sessions that are left, get messages, and come back for them, maybe after a restart
    OfflineQueue,
    /// Retained messages, and filters that match some of them
    RetainedMany,
    /// All clients of a listener are lost and come back; what established clients of another feel
    ReconnectStorm,
}

/// Options of `scenario`.
#[derive(Args)]
pub struct ScenarioArgs {
    /// Which one
    #[arg(ignore_case = true)]
    pub name: Scenario,
    /// Host of the broker
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the broker
    #[arg(short, long, default_value_t = 1883)]
    pub port: u16,
    /// Protocol version [default: 311; sharedsub: 5]
    #[arg(short = 'V', long, value_parser = ["31", "311", "5"])]
    pub protocol: Option<String>,
    /// Pairs, subscribers, publishers or clients; churn: clients at once [default by scenario]
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub count: Option<u32>,
    /// Publishers of a fan-out, each with a topic of its own [default by scenario]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub publishers: Option<u32>,
    /// Subscribers of a sharedsub [default by scenario]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub subscribers: Option<u32>,
    /// Percent of the clients of p2p-idle that send or hear messages
    #[arg(long)]
    pub active: Option<f64>,
    /// QoS of messages and subscriptions [default by scenario]
    #[arg(short, long, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: Option<u8>,
    /// Messages (churn: clients) per second of all together; 0: flat out [default by scenario]
    #[arg(short, long)]
    pub rate: Option<f64>,
    /// Bytes of a payload [default: 64; cases of the suite: 16]
    #[arg(short, long)]
    pub size: Option<usize>,
    /// Flat out: messages of one publisher on their way; paced: unacknowledged ones [default by scenario]
    #[arg(short, long)]
    pub window: Option<u64>,
    /// Seconds measured [default: 10; connect-subscribe: 0]
    #[arg(short, long)]
    pub duration: Option<f64>,
    /// Seconds of load before measuring [default: 2; without messages: 0]
    #[arg(long)]
    pub warmup: Option<f64>,
    /// Seconds between the last SUBACK and the first message
    #[arg(long, default_value_t = 1.0)]
    pub settle: f64,
    /// Longest wait, in seconds, for messages still on their way at the end
    #[arg(long, default_value_t = 5.0)]
    pub drain: f64,
    /// Generator threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// Pin the generator to these CPUs, as in 1 or 1,3: the first thread to the first, and so on
    #[arg(long, value_delimiter = ',')]
    pub cpu: Vec<usize>,
    /// Source addresses, as in 127.0.1.1-127.0.1.60 or a list [default for a loopback host: from 127.0.1.1 on, as many as the ports of the clients need, at least 16]
    #[arg(long)]
    pub ifaddr: Option<String>,
    /// Clients opened per second; 0: as fast as possible [default by scenario]
    #[arg(long)]
    pub connect_rate: Option<u64>,
    /// Clients of a thread between connect and SUBACK
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub connect_window: u32,
    /// Longest wait, in seconds, for all clients to be ready, or back [default: 60 and what the number of clients takes]
    #[arg(long)]
    pub connect_timeout: Option<f64>,
    /// churn: seconds a client stays after its SUBACK
    #[arg(long, default_value_t = 0.0)]
    pub hold: f64,
    /// Keep alive of every client in seconds; 0: off
    #[arg(long, default_value_t = 300)]
    pub keep_alive: u16,
    /// Begin of client ids and topics, so that two runs do not disturb each other
    #[arg(long, default_value = "bench")]
    pub prefix: String,
    /// Process of the broker, to measure its CPU time and memory (repeatable)
    #[arg(long)]
    pub broker_pid: Vec<i32>,
    /// Keep everything in this file
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Name of the measurement in the file [default: the scenario's name]
    #[arg(long)]
    pub label: Option<String>,
    /// Name of the broker in the file
    #[arg(long, default_value = "broker")]
    pub broker: String,
    /// No progress
    #[arg(long)]
    pub quiet: bool,
    /// echo: pairs of connections, for a server with --relay
    #[arg(long)]
    pub relay: bool,
    /// TLS and WebSocket
    #[command(flatten, next_help_heading = "TLS and WebSocket")]
    pub transport: TransportArgs,
    /// Options of the scenarios with clients beside others
    #[command(flatten)]
    pub beside: BesideArgs,
    /// Options of the scenarios about what a broker keeps
    #[command(flatten)]
    pub durable: DurableArgs,
    /// Options of `hostile`
    #[command(flatten)]
    pub hostile: HostileArgs,
}

/// Options of the scenario `hostile`; its probe takes --rate, --size and --qos.
#[derive(Args, Clone, Debug)]
pub struct HostileArgs {
    /// Hostile connections in all
    #[arg(long, default_value_t = 100_000, help_heading = "Hostile")]
    pub hostile_count: u64,
    /// Hostile connections at once
    #[arg(long, default_value_t = 2_000, help_heading = "Hostile")]
    pub hostile_at_once: usize,
    /// Kinds, in turn
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "garbage,half,flood,slow",
        help_heading = "Hostile"
    )]
    pub hostile_kinds: Vec<HostileKind>,
    /// Milliseconds a half packet or a slow reader stays
    #[arg(long, default_value_t = 1_000, help_heading = "Hostile")]
    pub hostile_hold_ms: u64,
    /// Bytes a slow reader publishes to itself without reading
    #[arg(long, default_value_t = 128 * 1024, help_heading = "Hostile")]
    pub hostile_slow_bytes: usize,
    /// Longest time of the attack in seconds
    #[arg(long, default_value_t = 120.0, help_heading = "Hostile")]
    pub hostile_time: f64,
    /// Seconds of the probe alone, before the attack
    #[arg(long, default_value_t = 10.0, help_heading = "Hostile")]
    pub quiet_time: f64,
    /// Seconds after the attack before the broker's memory is read again
    #[arg(long, default_value_t = 10.0, help_heading = "Hostile")]
    pub recovery_time: f64,
}

/// What a hostile connection does.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub enum HostileKind {
    /// Random bytes instead of a CONNECT
    Garbage,
    /// Half a CONNECT, then silence
    Half,
    /// Connect and reset at once
    Flood,
    /// Connects well, publishes to itself, never reads
    Slow,
}

/// How an echo server waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum EchoMode {
    /// epoll, read, write
    Epoll,
    /// io_uring: multishot accept and receive, provided buffers
    Uring,
}

/// Options of `echo-server`.
#[derive(Args)]
pub struct EchoArgs {
    /// How it waits
    #[arg(long, default_value = "epoll")]
    pub mode: EchoMode,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:1884")]
    pub listen: SocketAddr,
    /// Send what comes in on one connection out on the next one, as a broker does, instead of back
    #[arg(long)]
    pub relay: bool,
    /// Pin the server to this CPU
    #[arg(long)]
    pub cpu: Option<usize>,
}

/// Options of `compare`.
#[derive(Args)]
pub struct CompareArgs {
    /// Results written with --json
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The broker whose figures are divided by the others' [default: ringmq, or else the first that is not echo]
    #[arg(long)]
    pub ours: Option<String>,
    /// Write a bar chart of CPU per delivery, CPU per client and memory per client to this file
    #[arg(long)]
    pub svg: Option<PathBuf>,
    /// Write the charted figures as a Markdown table to this file; -: standard output, after the other table
    #[arg(long)]
    pub markdown: Option<PathBuf>,
}

impl Scenario {
    /// The name as it is typed.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl ScenarioArgs {
    fn case(&self) -> Case {
        self.name.case()
    }

    /// Who takes part.
    pub fn plan(&self) -> Result<Plan, BenchError> {
        let case = self.case();
        if self.prefix.is_empty()
            || self.prefix.len() > PREFIX_LEN_MAX
            || !self.prefix.chars().all(|c| c.is_ascii_graphic() && !"+#/".contains(c))
        {
            return Err(BenchError::Option(format!(
                "--prefix is 1 to {PREFIX_LEN_MAX} ASCII characters without blanks and + # /"
            )));
        }
        if self.relay && (self.name != Scenario::Echo || self.threads != 1) {
            return Err(BenchError::Option("--relay is for echo with one thread".to_owned()));
        }
        let shape = if self.relay { Shape::Relay } else { case.shape };
        let count = self.count.unwrap_or(case.count);
        self.refuse_unfit(shape, case.active)?;
        let counts = match shape {
            Shape::Connected | Shape::Idle | Shape::Churn | Shape::Visits => {
                Counts { idle: count, ..Counts::default() }
            }
            Shape::Pairs | Shape::Relay => {
                let pairs = self.active_pairs(count, case.active)?;
                let idle = if case.active < 100.0 { count - 2 * pairs } else { 0 };
                Counts { hearing: pairs, idle, publishers: pairs }
            }
            Shape::Fanout => {
                let publishers = self.publishers.unwrap_or(case.others);
                Counts { hearing: count, idle: 0, publishers }
            }
            Shape::Fanin => Counts { hearing: 1, idle: 0, publishers: count },
            Shape::Shared => {
                let hearing = self.subscribers.unwrap_or(case.others);
                Counts { hearing, idle: 0, publishers: count }
            }
            Shape::Own | Shape::Echo => Counts { publishers: count, ..Counts::default() },
        };
        Ok(Plan::new(shape, counts, &self.prefix, self.threads))
    }

    /// Whether it is about what a broker keeps, with publishers to a number of topics.
    fn keeps(&self) -> bool {
        matches!(self.name, Scenario::OfflineQueue | Scenario::RetainedMany)
    }

    fn refuse_unfit(&self, shape: Shape, active: f64) -> Result<(), BenchError> {
        let unfit = [
            ("--publishers", self.publishers.is_some() && shape != Shape::Fanout && !self.keeps()),
            ("--subscribers", self.subscribers.is_some() && shape != Shape::Shared),
            ("--active", self.active.is_some() && active >= 100.0),
            ("--ssl", self.transport.is_tls() && self.name == Scenario::Echo),
            ("--ws", self.transport.ws && self.name == Scenario::Echo),
            ("--hold", self.hold > 0.0 && !matches!(shape, Shape::Churn | Shape::Visits)),
        ];
        match unfit.iter().find(|(_, is_unfit)| *is_unfit) {
            Some((option, _)) => {
                Err(BenchError::Option(format!("{option} is not for {}", self.name.name())))
            }
            None => Ok(()),
        }
    }

    /// The pairs among `count` clients, if only a part is active; else that many pairs.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a number that fits"
    )]
    fn active_pairs(&self, count: u32, default: f64) -> Result<u32, BenchError> {
        if default >= 100.0 {
            return Ok(count);
        }
        let active = self.active.unwrap_or(default);
        if !(active > 0.0 && active <= 100.0) {
            return Err(BenchError::Option(format!("--active is 0 to 100 percent, not {active}")));
        }
        let pairs = (f64::from(count) * active / 200.0).round() as u32;
        match (count / 2).min(pairs.max(1)) {
            0 => Err(BenchError::Option("--count is 2 at least".to_owned())),
            pairs => Ok(pairs),
        }
    }

    /// How the load is applied.
    pub fn load(&self, plan: &Plan) -> Result<Load, BenchError> {
        let case = self.case();
        let target = resolve(&self.host, self.port)?;
        let payload_len = self.size.unwrap_or(case.size);
        if !(STAMP_LEN..=PAYLOAD_MAX).contains(&payload_len) {
            let text = format!("--size is {STAMP_LEN} to {PAYLOAD_MAX} bytes, not {payload_len}");
            return Err(BenchError::Option(text));
        }
        let window = self.window.unwrap_or(case.window);
        if !(1..=WINDOW_MAX).contains(&window) {
            return Err(BenchError::Option(format!("--window is 1 to {WINDOW_MAX}, not {window}")));
        }
        let rate = match (self.rate, case.rate) {
            (Some(rate), _) | (None, Rate::All(rate)) => rate,
            (None, Rate::Each(rate)) => rate * f64::from(plan.counts.publishers),
        };
        if !(rate == 0.0 || (0.001..=1e9).contains(&rate)) {
            return Err(BenchError::Option(format!(
                "--rate is 0 or 0.001 to 1000000000 per second, not {rate}"
            )));
        }
        let clients = u64::from(plan.counts.clients());
        let sources = match &self.ifaddr {
            Some(text) => {
                let sources = sources::parse(text)?;
                sources::check(&sources)?;
                sources
            }
            None => sources::default_for(target, self.connections(clients, rate)),
        };
        let connect_rate = self.connect_rate.unwrap_or(case.connect_rate);
        let connect_timeout = self.connect_timeout.unwrap_or_else(|| {
            let per_s = if connect_rate == 0 { 2_000 } else { connect_rate.min(2_000) };
            (60 + clients / per_s * 2).min(86_400).try_into().map_or(86_400.0, |s: u32| s.into())
        });
        let version = self.protocol.as_deref().unwrap_or(case.version);
        Ok(Load {
            target,
            layers: self.layers()?,
            urgency: Urgency::Ordinary,
            sources,
            version: match version {
                "31" => Version::V3_1,
                "5" => Version::V5,
                _ => Version::V3_1_1,
            },
            qos: self.qos.unwrap_or(case.qos),
            rate,
            payload_len,
            window,
            connect_rate,
            // The relay joins connections in the order they come.
            connect_window: if self.relay { 1 } else { self.connect_window },
            keep_alive_s: self.keep_alive,
            cpus: self.cpu.clone(),
            connect_timeout: seconds("--connect-timeout", connect_timeout)?,
            hold: seconds("--hold", self.hold)?,
        })
    }

    fn layers(&self) -> Result<Option<Arc<ClientFilterSettings>>, BenchError> {
        let is_about_tls = matches!(self.name, Scenario::TlsIdle | Scenario::TlsHandshakes);
        let ssl = self.transport.ssl || is_about_tls;
        let transport = TransportArgs { ssl, ..self.transport.clone() };
        Ok(transport.settings(&self.host, self.port)?.map(Arc::new))
    }

    /// How many ports are in use at once: also those of connections that were closed within a minute.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be small and positive"
    )]
    fn connections(&self, clients: u64, rate: f64) -> u64 {
        match self.name {
            Scenario::Storm | Scenario::ReconnectStorm => clients * 2,
            // It comes flat out, too.
            Scenario::TlsHandshakes => clients + 60 * 30_000,
            Scenario::Churn if rate == 0.0 => clients + 60 * 30_000,
            Scenario::Churn => clients + 60 * rate as u64,
            _ => clients,
        }
    }

    /// The times of the run.
    pub fn course(&self) -> Result<Course, BenchError> {
        let case = self.case();
        Ok(Course {
            settle: seconds("--settle", self.settle)?,
            storm: self.name == Scenario::Storm,
            warmup: seconds("--warmup", self.warmup.unwrap_or(case.warmup))?,
            duration: seconds("--duration", self.duration.unwrap_or(case.duration))?,
            drain: seconds("--drain", self.drain)?,
            broker_pids: self.broker_pid.clone(),
            quiet: self.quiet,
        })
    }
}

/// A time option; a day is the longest.
pub fn seconds(name: &str, value: f64) -> Result<Duration, BenchError> {
    if (0.0..=86_400.0).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(BenchError::Option(format!("{name} is 0 to 86400 seconds, not {value}")))
    }
}

pub fn resolve(host: &str, port: u16) -> Result<SocketAddrV4, BenchError> {
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|source| BenchError::Resolve { host: host.to_owned(), source })?;
    addresses
        .filter_map(|address| match address {
            SocketAddr::V4(address) => Some(address),
            SocketAddr::V6(_) => None,
        })
        .next()
        .ok_or_else(|| BenchError::NoAddress { host: host.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn parse(words: &str) -> ScenarioArgs {
        let words = ["ringmq-bench", "scenario"].into_iter().chain(words.split_whitespace());
        match Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).command {
            Command::Scenario(args) => *args,
            _ => panic!("a scenario"),
        }
    }

    fn counts(words: &str) -> [u32; 3] {
        let Counts { hearing, idle, publishers } = parse(words).plan().expect("valid").counts;
        [hearing, idle, publishers]
    }

    #[test]
    fn the_names_of_the_suite_stand_for_its_numbers() {
        assert_eq!(counts("conn-tcp-10k-100"), [0, 10_000, 0]);
        assert_eq!(counts("conn-tcp-1M-5K"), [0, 1_000_000, 0]);
        assert_eq!(counts("P2P-1k-1k-1k-1k"), [1_000, 0, 1_000]);
        assert_eq!(counts("p2p-50K-50K-50K-50K"), [50_000, 0, 50_000]);
        assert_eq!(counts("fanout-1-1k-1-1K"), [1_000, 0, 1]);
        assert_eq!(counts("fanout-5-1000-5-250K"), [1_000, 0, 5]);
        assert_eq!(counts("sharedsub-1K-5-1K-1K"), [5, 0, 1_000]);
        assert_eq!(counts("sharedsub-50K-500-50K-50K"), [500, 0, 50_000]);
        assert_eq!(counts("p2p-idle-100K"), [500, 99_000, 500]);
        assert_eq!(counts("tls-idle"), [0, 10_000, 0]);
        assert_eq!(counts("reconnect-storm"), [0, 15_000, 0]);
        assert_eq!(counts("fan-in"), counts("fanin"));
        for (name, delivered) in [
            ("p2p-1K-1K-1K-1K", 1_000.0),
            ("p2p-50K-50K-50K-50K", 50_000.0),
            ("fanout-1-1k-1-1K", 1_000.0),
            ("fanout-5-1000-5-250K", 250_000.0),
            ("sharedsub-1K-5-1K-1K", 1_000.0),
            ("sharedsub-50K-500-50K-50K", 50_000.0),
        ] {
            let args = parse(name);
            let plan = args.plan().expect("valid");
            let load = args.load(&plan).expect("valid");
            let fan = f64::from(u32::try_from(plan.fan).expect("small"));
            assert_eq!((load.qos, load.payload_len, load.rate * fan), (1, 16, delivered), "{name}");
        }
    }

    #[test]
    fn what_is_about_tls_speaks_it() {
        let has_tls = |words: &str| {
            let args = parse(words);
            let load = args.load(&args.plan().expect("valid")).expect("valid");
            load.layers.is_some_and(|layers| layers.tls.is_some())
        };
        assert!(has_tls("tls-idle") && has_tls("tls-handshakes --ws") && has_tls("pairs -S"));
        assert!(!has_tls("reconnect-storm") && !has_tls("pairs --ws"));
    }

    #[test]
    fn cases_are_scaled_by_options() {
        assert_eq!(counts("p2p-idle-100K -n 1000 --active 10"), [50, 900, 50]);
        assert_eq!(counts("p2p-idle-100K -n 2"), [1, 0, 1]);
        assert_eq!(counts("fanout -n 7 --publishers 3"), [7, 0, 3]);
        assert_eq!(counts("sharedsub-1K-5-1K-1K -n 9 --subscribers 2"), [2, 0, 9]);
        let args = parse("p2p-1K-1K-1K-1K -n 10");
        assert!((args.load(&args.plan().expect("valid")).expect("valid").rate - 10.0).abs() < 1e-9);
        for unfit in [
            "pairs --publishers 3",
            "fanout --subscribers 3",
            "pairs --active 3",
            "idle --hold 1",
            "echo -S",
        ] {
            assert!(parse(unfit).plan().is_err(), "{unfit}");
        }
        assert!(parse("p2p-idle-100K --active 0").plan().is_err());
    }
}
