//! The million: N clients with a subscription each are connected, held, pinged, published to, stormed and counted.
//!
//! Nothing may be lost: a connection that ends by itself, a ping without an answer, a message that does not come or comes
//! to the wrong client, or a client that does not come back makes the run fail.

mod agent;
mod args;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::engine::{Fleet, FleetSetup};
use crate::error::BenchError;
use crate::report::{self, float, round};
use crate::sys::process;
use agent::{Million, Order, Setup, Tally};
pub use args::MillionArgs;

/// Time without any progress after which a phase has failed.
const STALL: Duration = Duration::from_secs(60);
/// Failures after which a run is given up: as many as clients, and a few.
const FAILURES_SPARE: u64 = 10_000;
/// Clients that one loopback address carries towards one port, with some to spare.
const CLIENTS_PER_SOURCE: u32 = 20_000;

/// Memory at one moment, in bytes.
#[derive(Clone, Copy, Debug)]
struct Memory {
    broker: u64,
    own: u64,
    tcp: u64,
    slab: u64,
    available: u64,
}

/// The run, seen from the leading thread.
struct Run<'a> {
    args: &'a MillionArgs,
    tally: Arc<Tally>,
    fleet: Fleet<Order>,
    pids: Vec<i32>,
    json: Value,
    said: Instant,
}

/// Runs the scenario; an error if anything was lost.
pub fn run(args: &MillionArgs) -> Result<(), BenchError> {
    args.check()?;
    let setup = Arc::new(setup(args)?);
    let tally = Arc::new(Tally::default());
    let before = memory(&args.broker_pid)?;
    let fleet_setup = FleetSetup { threads: args.threads, cpus: args.cpus() };
    let threads = setup.threads;
    let fleet = Fleet::start(&fleet_setup, |thread| {
        let thread = u32::try_from(thread).expect("few threads");
        let count = args.count / threads + u32::from(thread < args.count % threads);
        let (setup, tally) = (Arc::clone(&setup), Arc::clone(&tally));
        (move || Million::new(setup, tally, thread, count), count)
    })
    .map_err(|error| BenchError::Fleet(error.to_string()))?;
    let mut run = Run {
        args,
        tally,
        fleet,
        pids: args.broker_pid.clone(),
        json: json!({
            "scenario": "million",
            "label": "million",
            "broker": args.broker,
            "machine": report::machine(),
            "clients": args.count,
            "threads": threads,
        }),
        said: Instant::now(),
    };
    let outcome = run.phases(before);
    run.fleet.send(|| Order::Stop);
    run.say("closing all connections");
    run.fleet.join();
    run.json["failures"] = json!(*run.tally.reasons.lock().map_err(|_| BenchError::Thread)?);
    if let Some(path) = &args.json {
        report::save(&run.json, path)?;
    }
    outcome?;
    println!("{}", line(&run.json));
    Ok(())
}

fn setup(args: &MillionArgs) -> Result<Setup, BenchError> {
    let target = args.target()?;
    let sources = match args.sources()? {
        Some(sources) => sources,
        None if target.ip().is_loopback() => default_sources(args.count),
        None => Vec::new(),
    };
    let threads = u32::try_from(args.threads).unwrap_or(1);
    Ok(Setup {
        target,
        sources,
        version: args.version(),
        keep_alive_s: args.keep_alive,
        threads,
        window: args.connect_window.div_ceil(args.threads),
        rate: args.connect_rate.div_ceil(u64::from(threads)),
    })
}

/// As many loopback addresses as so many clients need.
fn default_sources(clients: u32) -> Vec<Ipv4Addr> {
    let base = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    (0..clients.div_ceil(CLIENTS_PER_SOURCE).max(1))
        .map(|more| Ipv4Addr::from(base + more))
        .collect()
}

fn memory(pids: &[i32]) -> Result<Memory, BenchError> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let read = |pids: &[i32]| -> Result<u64, BenchError> {
        pids.iter().try_fold(0, |sum, &pid| {
            let bytes = process::resident_bytes(&[pid]);
            bytes.map(|bytes| sum + bytes).map_err(|source| BenchError::Process { pid, source })
        })
    };
    let kernel = process::kernel_memory();
    Ok(Memory {
        broker: read(pids)?,
        own: read(&[own])?,
        tcp: kernel.tcp_bytes,
        slab: kernel.slab_bytes,
        available: process::available_bytes(),
    })
}

impl Run<'_> {
    fn phases(&mut self, before: Memory) -> Result<(), BenchError> {
        self.connect()?;
        thread::sleep(self.args.settle_time());
        self.measure_memory(before)?;
        self.idle()?;
        for number in 1..=self.args.pings {
            self.ping(number)?;
        }
        self.check_pongs()?;
        self.publish()?;
        self.storm()?;
        self.check_lost()
    }

    /// Waits until all clients are in.
    fn connect(&mut self) -> Result<(), BenchError> {
        let (begin, cpu_ns) = (Instant::now(), self.cpu_ns()?);
        self.await_ready("connecting")?;
        let seconds = begin.elapsed().as_secs_f64();
        let cpu_us = float(self.cpu_ns()? - cpu_ns) / 1e3;
        let clients = f64::from(self.args.count);
        self.json["connect"] = json!({
            "ready": self.args.count,
            "seconds": round(seconds, 2),
            "clients_per_s": round(clients / seconds, 0),
            "broker_cpu_us_per_client": round(cpu_us / clients, 2),
            "failed_and_tried_again": self.tally.failed.load(Relaxed),
        });
        Ok(())
    }

    fn measure_memory(&mut self, before: Memory) -> Result<(), BenchError> {
        let after = memory(&self.pids)?;
        let clients = f64::from(self.args.count);
        let per_client = |from: u64, to: u64| round((float(to) - float(from)) / clients, 1);
        self.json["memory"] = json!({
            "broker_rss_before_bytes": before.broker,
            "broker_rss_after_bytes": after.broker,
            "broker_rss_bytes_per_client": per_client(before.broker, after.broker),
            "tool_rss_bytes_per_client": per_client(before.own, after.own),
            "kernel_both_ends_slab_bytes_per_client": per_client(before.slab, after.slab),
            "kernel_both_ends_tcp_bytes_per_client": per_client(before.tcp, after.tcp),
            "machine_bytes_per_client": per_client(after.available, before.available),
            "machine_available_bytes": after.available,
        });
        self.say(&format!(
            "broker {} bytes of RSS per client, tool {}, kernel {} for both ends; {} MB available",
            self.json["memory"]["broker_rss_bytes_per_client"],
            self.json["memory"]["tool_rss_bytes_per_client"],
            self.json["memory"]["kernel_both_ends_slab_bytes_per_client"],
            after.available >> 20,
        ));
        Ok(())
    }

    /// What the broker needs while nothing happens.
    fn idle(&mut self) -> Result<(), BenchError> {
        let (begin, cpu_ns) = (Instant::now(), self.cpu_ns()?);
        thread::sleep(self.args.idle_time());
        let seconds = begin.elapsed().as_secs_f64();
        let percent = float(self.cpu_ns()? - cpu_ns) / 1e7 / seconds.max(1e-9);
        self.json["idle"] =
            json!({ "seconds": round(seconds, 2), "broker_cpu_percent": round(percent, 3) });
        self.say(&format!("idle: {} % of a core", round(percent, 3)));
        Ok(())
    }

    /// One PINGREQ of every client.
    fn ping(&mut self, number: u8) -> Result<(), BenchError> {
        let (begin, cpu_ns) = (Instant::now(), self.cpu_ns()?);
        let before = self.tally.pongs.load(Relaxed);
        let length_ns = u64::try_from(self.args.ping_length().as_nanos()).unwrap_or(u64::MAX);
        self.order(|| Order::Ping(length_ns), "pinging")?;
        let wanted = u64::from(number) * u64::from(self.args.count);
        self.until("pings answered", wanted, |tally| tally.pongs.load(Relaxed))?;
        let answered = self.tally.pongs.load(Relaxed) - before;
        let cpu_us = float(self.cpu_ns()? - cpu_ns) / 1e3;
        self.json[format!("ping_{number}")] = json!({
            "answered": answered,
            "seconds": round(begin.elapsed().as_secs_f64(), 2),
            "broker_cpu_us_per_ping": round(cpu_us / float(answered.max(1)), 2),
        });
        Ok(())
    }

    fn check_pongs(&mut self) -> Result<(), BenchError> {
        let pings = self.args.pings;
        self.order(|| Order::CountSilent(pings), "counting answers")?;
        let silent = self.tally.silent.load(Relaxed);
        self.json["silent"] = json!(silent);
        if silent > 0 {
            return Err(BenchError::Lost(format!("{silent} clients had no answer to a ping")));
        }
        Ok(())
    }

    /// A message to each of some random clients.
    fn publish(&mut self) -> Result<(), BenchError> {
        let targets: Arc<[u32]> = some(self.args.count, self.args.publish, 1).into();
        let wanted = u64::try_from(targets.len()).unwrap_or(u64::MAX);
        let (begin, cpu_ns) = (Instant::now(), self.cpu_ns()?);
        self.order(|| Order::Publish(Arc::clone(&targets)), "publishing")?;
        self.until("messages arrived", wanted, |tally| {
            tally.arrived.load(Relaxed).min(tally.acknowledged.load(Relaxed))
        })?;
        let cpu_us = float(self.cpu_ns()? - cpu_ns) / 1e3;
        let stray = self.tally.stray.load(Relaxed);
        let latency = self.tally.latency.lock().map_err(|_| BenchError::Thread)?;
        self.json["publish"] = json!({
            "published": self.tally.published.load(Relaxed),
            "arrived": self.tally.arrived.load(Relaxed),
            "stray": stray,
            "seconds": round(begin.elapsed().as_secs_f64(), 2),
            "broker_cpu_us_per_message": round(cpu_us / float(wanted.max(1)), 2),
            "latency_us": latency.as_ref().map(report::latency),
        });
        drop(latency);
        if stray > 0 {
            return Err(BenchError::Lost(format!(
                "{stray} messages came twice or to the wrong client"
            )));
        }
        Ok(())
    }

    /// Part of the clients is lost at once and comes back.
    fn storm(&mut self) -> Result<(), BenchError> {
        let count = u64::from(self.args.count) * u64::from(self.args.storm_percent) / 100;
        let count = u32::try_from(count).expect("a part of the clients");
        let targets: Arc<[u32]> = some(self.args.count, count, 2).into();
        let (begin, failed) = (Instant::now(), self.tally.failed.load(Relaxed));
        self.order(|| Order::Storm(Arc::clone(&targets)), "storm")?;
        let stormed = self.tally.stormed.load(Relaxed);
        self.await_ready("coming back")?;
        let seconds = begin.elapsed().as_secs_f64();
        self.json["storm"] = json!({
            "closed": stormed,
            "seconds_until_all_are_back": round(seconds, 2),
            "clients_per_s": round(float(stormed) / seconds, 0),
            "failed_and_tried_again": self.tally.failed.load(Relaxed) - failed,
        });
        if stormed != u64::from(count) {
            return Err(BenchError::Lost(format!("only {stormed} of {count} clients were there")));
        }
        Ok(())
    }

    fn check_lost(&self) -> Result<(), BenchError> {
        match self.tally.lost.load(Relaxed) {
            0 => Ok(()),
            lost => Err(BenchError::Lost(format!("{lost} connections ended: {}", self.reasons()))),
        }
    }

    /// Gives an order and waits until all threads have done it.
    fn order(&mut self, order: impl Fn() -> Order, what: &str) -> Result<(), BenchError> {
        self.tally.done.store(0, Relaxed);
        self.fleet.send(order);
        let threads = u64::try_from(self.args.threads).unwrap_or(1);
        let pings = Arc::clone(&self.tally);
        self.wait(
            what,
            threads,
            |tally| tally.done.load(Relaxed),
            move || pings.pings.load(Relaxed),
        )
    }

    fn await_ready(&mut self, what: &str) -> Result<(), BenchError> {
        self.until(what, u64::from(self.args.count), |tally| tally.ready.load(Relaxed))
    }

    fn until(
        &mut self,
        what: &str,
        wanted: u64,
        count: impl Fn(&Tally) -> u64,
    ) -> Result<(), BenchError> {
        self.wait(what, wanted, count, || 0)
    }

    /// Waits until a count is reached; fails if neither it nor `also` moves for a while.
    fn wait(
        &mut self,
        what: &str,
        wanted: u64,
        count: impl Fn(&Tally) -> u64,
        also: impl Fn() -> u64,
    ) -> Result<(), BenchError> {
        let mut moved = (Instant::now(), (0, 0));
        loop {
            let now = (count(&self.tally), also());
            if now.0 >= wanted {
                return Ok(());
            }
            if now != moved.1 {
                moved = (Instant::now(), now);
            }
            let failed = self.tally.failed.load(Relaxed);
            let is_hopeless = failed > u64::from(self.args.count) + FAILURES_SPARE;
            if self.fleet.is_finished() {
                return Err(BenchError::Thread);
            }
            if is_hopeless || moved.0.elapsed() > STALL || self.tally.lost.load(Relaxed) > 0 {
                let text = format!("{what}: {} of {wanted}: {}", now.0, self.reasons());
                return Err(BenchError::Lost(text));
            }
            if self.said.elapsed() >= Duration::from_secs(1) {
                let how_far = match now.1 {
                    0 => format!("{} of {wanted}", now.0),
                    so_far => format!("{so_far} so far"),
                };
                self.say(&format!("{what}: {how_far}, {failed} tried again"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn reasons(&self) -> String {
        let reasons = self.tally.reasons.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        crate::run::reasons(&reasons)
    }

    fn cpu_ns(&self) -> Result<u64, BenchError> {
        let usage = process::usage(&self.pids);
        let pid = self.pids.first().copied().unwrap_or(0);
        Ok(usage.map_err(|source| BenchError::Process { pid, source })?.cpu_ns)
    }

    fn say(&mut self, text: &str) {
        self.said = Instant::now();
        if !self.args.quiet {
            eprintln!("{text}");
        }
    }
}

/// So many different numbers below `all`, spread by a fixed sequence: a run can be repeated.
fn some(all: u32, count: u32, seed: u64) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut numbers: Vec<u32> = (0..all).collect();
    let count = count.min(all);
    for place in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let rest = u64::from(all - place);
        let other = place + u32::try_from(state % rest).expect("below a number of 32 bits");
        let (place, other) = (usize::try_from(place), usize::try_from(other));
        numbers.swap(place.expect("32 bits fit"), other.expect("32 bits fit"));
    }
    numbers.truncate(usize::try_from(count).expect("32 bits fit"));
    numbers
}

/// The one line of figures.
fn line(json: &Value) -> String {
    let (memory, publish) = (&json["memory"], &json["publish"]);
    format!(
        "{} clients held: {}/s connected, broker {} bytes of RSS per client, tool {}, kernel {} for both ends; idle {} % of a \
         core; all pings answered; {} of {} messages arrived, p99 {} us; {} clients lost at once were back in {} s",
        json["clients"],
        json["connect"]["clients_per_s"],
        memory["broker_rss_bytes_per_client"],
        memory["tool_rss_bytes_per_client"],
        memory["kernel_both_ends_slab_bytes_per_client"],
        json["idle"]["broker_cpu_percent"],
        publish["arrived"],
        publish["published"],
        publish["latency_us"]["p99"],
        json["storm"]["closed"],
        json["storm"]["seconds_until_all_are_back"],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_different_and_repeatable() {
        let numbers = some(1000, 100, 7);
        assert_eq!(numbers, some(1000, 100, 7));
        assert_ne!(numbers, some(1000, 100, 8));
        let mut unique = numbers.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), 100);
        assert!(unique.iter().all(|number| *number < 1000));
        assert_eq!(some(5, 10, 1).len(), 5);
    }

    #[test]
    fn there_are_as_many_sources_as_clients_need() {
        assert_eq!(default_sources(1), [Ipv4Addr::new(127, 1, 0, 1)]);
        let sources = default_sources(10_000_000);
        assert_eq!(sources.len(), 500);
        assert!(sources.iter().all(Ipv4Addr::is_loopback));
    }
}
