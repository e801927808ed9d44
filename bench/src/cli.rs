//! The command line.

use crate::emqtt::{ConnArgs, PubArgs, SubArgs};
use crate::error::BenchError;
use crate::million::MillionArgs;
use crate::plan::{Load, Shape};
use crate::run::Course;
use crate::wire::{STAMP_LEN, Version};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::path::PathBuf;
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
    Fanout,
    /// N publishers, one subscriber
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
}

/// Options of `scenario`.
#[derive(Args)]
pub struct ScenarioArgs {
    /// Which one
    pub name: Scenario,
    /// Host of the broker
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the broker
    #[arg(short, long, default_value_t = 1883)]
    pub port: u16,
    /// Protocol version
    #[arg(short = 'V', long, default_value = "311", value_parser = ["31", "311", "5"])]
    pub protocol: String,
    /// Pairs, subscribers, publishers or clients [default by scenario]
    #[arg(short = 'n', long)]
    pub count: Option<u32>,
    /// QoS of messages and subscriptions [default: 0; probe: 1]
    #[arg(short, long, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: Option<u8>,
    /// Messages per second of all publishers together; 0: flat out [default by scenario]
    #[arg(short, long)]
    pub rate: Option<u64>,
    /// Bytes of a payload
    #[arg(short, long, default_value_t = 64)]
    pub size: usize,
    /// Flat out: messages of one publisher on their way; paced: unacknowledged ones [default by scenario]
    #[arg(short, long)]
    pub window: Option<u64>,
    /// Seconds measured [default: 10; connect-subscribe: 0]
    #[arg(short, long)]
    pub duration: Option<f64>,
    /// Seconds of load before measuring [default: 2; idle: 0]
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
    /// Pin the generator to these CPUs, as in 1 or 1,3
    #[arg(long, value_delimiter = ',')]
    pub cpu: Vec<usize>,
    /// Poll instead of sleeping between messages
    #[arg(long)]
    pub spin: bool,
    /// Source addresses, as in 127.0.1.1-127.0.1.60 or a list [default for a loopback host: 127.0.1.1-127.0.1.16]
    #[arg(long)]
    pub ifaddr: Option<String>,
    /// Clients opened per second; 0: as fast as possible
    #[arg(long, default_value_t = 0)]
    pub connect_rate: u64,
    /// Clients of a thread between connect and SUBACK
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub connect_window: u32,
    /// Longest wait, in seconds, for all clients to be ready
    #[arg(long, default_value_t = 60.0)]
    pub connect_timeout: f64,
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

/// What a scenario's name stands for.
struct Defaults {
    shape: Shape,
    count: u32,
    qos: u8,
    rate: u64,
    window: u64,
    warmup: f64,
    duration: f64,
}

impl Scenario {
    fn defaults(self) -> Defaults {
        let base = Defaults {
            shape: Shape::Pairs,
            count: 1_000,
            qos: 0,
            rate: 20_000,
            window: 100,
            warmup: 2.0,
            duration: 10.0,
        };
        match self {
            Scenario::Idle => {
                Defaults { shape: Shape::Idle, count: 15_000, rate: 0, warmup: 0.0, ..base }
            }
            Scenario::Pairs => base,
            Scenario::Fanout => Defaults { shape: Shape::Fanout, rate: 50, ..base },
            Scenario::Fanin => Defaults { shape: Shape::Fanin, rate: 0, window: 10, ..base },
            Scenario::HotPair => Defaults { count: 1, rate: 0, window: 1_000, ..base },
            Scenario::ConnectSubscribe => Defaults {
                shape: Shape::Idle,
                count: 15_000,
                rate: 0,
                warmup: 0.0,
                duration: 0.0,
                ..base
            },
            Scenario::Probe | Scenario::Hostile => {
                Defaults { shape: Shape::Own, count: 1, qos: 1, rate: 100, ..base }
            }
            Scenario::Echo => Defaults { shape: Shape::Echo, ..base },
        }
    }

    /// The name as it is typed.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl ScenarioArgs {
    /// The shape of the run and its number of pairs, subscribers, publishers or clients.
    pub fn shape(&self) -> (Shape, u32) {
        let defaults = self.name.defaults();
        let is_relay = self.name == Scenario::Echo && self.relay;
        (if is_relay { Shape::Relay } else { defaults.shape }, self.count.unwrap_or(defaults.count))
    }

    /// How the load is applied.
    pub fn load(&self) -> Result<Load, BenchError> {
        let defaults = self.name.defaults();
        let target = resolve(&self.host, self.port)?;
        if !(STAMP_LEN..=PAYLOAD_MAX).contains(&self.size) {
            let text = format!("--size is {STAMP_LEN} to {PAYLOAD_MAX} bytes, not {}", self.size);
            return Err(BenchError::Option(text));
        }
        let window = self.window.unwrap_or(defaults.window);
        if !(1..=WINDOW_MAX).contains(&window) {
            return Err(BenchError::Option(format!("--window is 1 to {WINDOW_MAX}, not {window}")));
        }
        if self.prefix.is_empty() || self.prefix.len() > 8 || self.prefix.contains(['+', '#', '/'])
        {
            return Err(BenchError::Option(
                "--prefix is 1 to 8 characters without + # /".to_owned(),
            ));
        }
        if self.relay && (self.name != Scenario::Echo || self.threads != 1) {
            return Err(BenchError::Option("--relay is for echo with one thread".to_owned()));
        }
        let sources = match &self.ifaddr {
            Some(text) => parse_sources(text)?,
            None if target.ip().is_loopback() => parse_sources("127.0.1.1-127.0.1.16")?,
            None => Vec::new(),
        };
        Ok(Load {
            target,
            sources,
            version: match self.protocol.as_str() {
                "31" => Version::V3_1,
                "5" => Version::V5,
                _ => Version::V3_1_1,
            },
            qos: self.qos.unwrap_or(defaults.qos),
            rate: self.rate.unwrap_or(defaults.rate),
            payload_len: self.size,
            window,
            connect_rate: self.connect_rate,
            // The relay joins connections in the order they come.
            connect_window: match self.relay {
                true => 1,
                false => usize::try_from(self.connect_window).unwrap_or(usize::MAX),
            },
            keep_alive_s: self.keep_alive,
            threads: usize::try_from(self.threads).unwrap_or(1),
            spin: self.spin,
            connect_timeout: seconds("--connect-timeout", self.connect_timeout)?,
        })
    }

    /// The times of the run.
    pub fn course(&self) -> Result<Course, BenchError> {
        let defaults = self.name.defaults();
        Ok(Course {
            settle: seconds("--settle", self.settle)?,
            warmup: seconds("--warmup", self.warmup.unwrap_or(defaults.warmup))?,
            duration: seconds("--duration", self.duration.unwrap_or(defaults.duration))?,
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

/// `a-b` and lists of both.
pub fn parse_sources(text: &str) -> Result<Vec<Ipv4Addr>, BenchError> {
    let bad =
        || BenchError::Option(format!("--ifaddr takes A, A-B or a list of them, not {text:?}"));
    let parse = |text: &str| text.trim().parse::<Ipv4Addr>().map_err(|_| bad());
    let mut sources = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (u32::from(parse(first)?), u32::from(parse(last)?));
        if last < first || last - first >= 65_536 {
            return Err(bad());
        }
        sources.extend((first..=last).map(Ipv4Addr::from));
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sources_are_ranges_and_lists() {
        let sources = parse_sources("127.0.1.254-127.0.2.1,127.0.0.9").expect("valid");
        let text: Vec<String> = sources.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["127.0.1.254", "127.0.1.255", "127.0.2.0", "127.0.2.1", "127.0.0.9"]);
        assert!(parse_sources("127.0.0.2-127.0.0.1").is_err());
        assert!(parse_sources("x").is_err());
    }
}
