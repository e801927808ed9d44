//! The options of `million`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::{parse_sources, resolve, seconds};
use crate::error::BenchError;
use crate::wire::Version;

/// Options of `million`.
#[derive(Args, Debug)]
pub struct MillionArgs {
    /// Clients
    #[arg(short = 'n', long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub count: u32,
    /// Host of the broker
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the broker
    #[arg(short, long, default_value_t = 1883)]
    pub port: u16,
    /// Protocol version
    #[arg(short = 'V', long, default_value = "311", value_parser = ["31", "311", "5"])]
    pub protocol: String,
    /// Source addresses, as in 127.0.1.1-127.0.1.60 or a list [default for a loopback host: one for every 20,000 clients]
    #[arg(long)]
    pub ifaddr: Option<String>,
    /// Threads, one to a CPU
    #[arg(long, default_value_t = 1, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub threads: usize,
    /// CPUs of the threads, in turn [default: all this process may use]
    #[arg(long, value_delimiter = ',')]
    pub cpu: Vec<usize>,
    /// Clients opened per second; 0: as fast as possible
    #[arg(long, default_value_t = 0)]
    pub connect_rate: u64,
    /// Clients between connect and SUBACK
    #[arg(long, default_value_t = 512, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub connect_window: usize,
    /// Keep alive of every client in seconds
    #[arg(long, default_value_t = 900)]
    pub keep_alive: u16,
    /// Seconds between the last SUBACK and the look at the memory
    #[arg(long, default_value_t = 5.0)]
    pub settle: f64,
    /// Seconds in which nothing happens, to measure the broker at rest
    #[arg(long, default_value_t = 10.0)]
    pub idle: f64,
    /// PINGREQs of every client
    #[arg(long, default_value_t = 2)]
    pub pings: u8,
    /// Seconds over which the PINGREQs of all clients are spread
    #[arg(long, default_value_t = 30.0)]
    pub ping_time: f64,
    /// Clients that get a message
    #[arg(long, default_value_t = 10_000)]
    pub publish: u32,
    /// Percentage of the clients that is lost at once and comes back
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub storm_percent: u8,
    /// Process of the broker, to measure its CPU time and memory (repeatable)
    #[arg(long)]
    pub broker_pid: Vec<i32>,
    /// Name of the broker in the file
    #[arg(long, default_value = "broker")]
    pub broker: String,
    /// Keep everything in this file
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// No progress
    #[arg(long)]
    pub quiet: bool,
}

impl MillionArgs {
    /// Checks what the parser cannot.
    ///
    /// # Errors
    /// A time that is none.
    pub fn check(&self) -> Result<(), BenchError> {
        seconds("--settle", self.settle)?;
        seconds("--idle", self.idle)?;
        seconds("--ping-time", self.ping_time)?;
        Ok(())
    }

    /// The address of the broker.
    pub fn target(&self) -> Result<SocketAddrV4, BenchError> {
        resolve(&self.host, self.port)
    }

    /// The source addresses that were given.
    pub fn sources(&self) -> Result<Option<Vec<Ipv4Addr>>, BenchError> {
        self.ifaddr.as_deref().map(parse_sources).transpose()
    }

    /// The protocol.
    pub fn version(&self) -> Version {
        match self.protocol.as_str() {
            "31" => Version::V3_1,
            "5" => Version::V5,
            _ => Version::V3_1_1,
        }
    }

    /// The CPUs of the threads.
    pub fn cpus(&self) -> Vec<usize> {
        if self.cpu.is_empty() { reactor::available_cpus() } else { self.cpu.clone() }
    }

    /// See [`MillionArgs::settle`].
    pub fn settle_time(&self) -> Duration {
        Duration::from_secs_f64(self.settle)
    }

    /// See [`MillionArgs::idle`].
    pub fn idle_time(&self) -> Duration {
        Duration::from_secs_f64(self.idle)
    }

    /// See [`MillionArgs::ping_time`].
    pub fn ping_length(&self) -> Duration {
        Duration::from_secs_f64(self.ping_time)
    }
}
