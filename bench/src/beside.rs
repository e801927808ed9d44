//! Established clients beside others that come in: what TLS costs in memory, in handshakes, and what those who are there
//! already feel of handshakes and of a storm of reconnects.
//!
//! The load is applied to the listener of `--port`; probes, or the plain clients of `tls-idle`, are on that of `--beside-port`. The
//! threads of the load have the lowest priority and those of the probes a real-time one, so that a probe on the same CPU does not wait for
//! them; what the kernel does for the load in its own time it waits for all the same.

use crate::cli::{Scenario, ScenarioArgs, seconds};
use crate::clients::{Command, Report};
use crate::error::BenchError;
use crate::names::PREFIX_LEN_MAX;
use crate::plan::{Counts, Load, Plan, Shape, Urgency};
use crate::report::{self, float, ratio, round};
use crate::run::{self, Course, Generator, Memory, Snapshot};
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

/// Slots of latencies: before the load, and under it.
const QUIET: u8 = 1;
/// As above.
pub const BUSY: u8 = 2;
/// Between the begin of a load and the measured window.
const RISE: Duration = Duration::from_secs(1);

/// Options of `tls-idle`, `tls-handshakes` and `reconnect-storm`.
#[derive(Args, Clone, Debug)]
pub struct BesideArgs {
    /// Port of the other listener, a plain one: for the plain clients of tls-idle, and for the probes of the two others
    #[arg(long, default_value_t = 1883, help_heading = "Beside others")]
    pub beside_port: u16,
    /// Probes: clients that publish to themselves, QoS 1; tls-handshakes has as many on the loaded listener
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Beside others")]
    pub probes: u32,
    /// Messages per second of all probes of a listener together
    #[arg(long, default_value_t = 1_000.0, help_heading = "Beside others")]
    pub probe_rate: f64,
}

/// What a group of clients is made of.
pub struct Group {
    /// Who takes part.
    pub plan: Plan,
    /// Where and how.
    pub load: Load,
}

impl Group {
    /// Clients that publish to themselves, on the loaded listener or beside it.
    pub fn probes(args: &ScenarioArgs, load: &Load, is_beside: bool) -> Result<Group, BenchError> {
        let counts = Counts { publishers: args.beside.probes, ..Counts::default() };
        let letter = if is_beside { 'o' } else { 's' };
        let plan = Plan::new(Shape::Own, counts, &prefix(&args.prefix, letter), 1);
        let rate = args.beside.probe_rate;
        if !(0.001..=1e6).contains(&rate) {
            let text = format!("--probe-rate is 0.001 to 1000000 per second, not {rate}");
            return Err(BenchError::Option(text));
        }
        let mut load =
            Load { qos: 1, urgency: Urgency::Probe, rate, connect_rate: 0, ..load.clone() };
        // Where there are several CPUs, not that of the load's first thread.
        let others = load.cpus.len().min(1);
        load.cpus.rotate_left(others);
        Ok(if is_beside { beside(args, plan, load) } else { Group { plan, load } })
    }
}

/// On the listener beside.
fn beside(args: &ScenarioArgs, plan: Plan, mut load: Load) -> Group {
    load.target.set_port(args.beside.beside_port);
    load.layers = None;
    Group { plan, load }
}

/// A prefix of names for one group of clients.
fn prefix(all: &str, letter: char) -> String {
    let kept = all.len().min(PREFIX_LEN_MAX - 1);
    format!("{}{letter}", &all[..kept])
}

/// Runs one of the scenarios of this module.
pub fn run(
    args: &ScenarioArgs,
    plan: &Plan,
    load: &Load,
    course: &Course,
) -> Result<Value, BenchError> {
    let mut value = match args.name {
        Scenario::TlsIdle => idle(args, plan, load, course)?,
        Scenario::TlsHandshakes => handshakes(args, plan, load, course)?,
        _ => reconnects(args, plan, load, course)?,
    };
    value["machine"] = report::machine();
    value["options"] = report::options(plan, load, course);
    value["options"]["beside_port"] = json!(args.beside.beside_port);
    Ok(value)
}

/// Connects all clients of a group; an error if one is missing.
pub fn connect(generator: &mut Generator<'_>, clients: u32) -> Result<(), BenchError> {
    generator.connect();
    let (ready, total) = (generator.ready(), u64::from(clients));
    if ready == total {
        return Ok(());
    }
    let reasons = run::reasons(&generator.shared.failures_by_text());
    Err(BenchError::NotReady { ready, total, reasons })
}

// ---- memory

/// Idle clients without TLS, then as many with it.
fn idle(
    args: &ScenarioArgs,
    plan: &Plan,
    load: &Load,
    course: &Course,
) -> Result<Value, BenchError> {
    if course.broker_pids.is_empty() {
        let text = "tls-idle measures the broker's memory: give --broker-pid";
        return Err(BenchError::Option(text.to_owned()));
    }
    let of =
        |letter| Plan::new(Shape::Idle, plan.counts, &prefix(&args.prefix, letter), plan.threads);
    let plain = beside(args, of('p'), load.clone());
    let layered = Group { plan: of('t'), load: load.clone() };
    let memory = || run::memory(&course.broker_pids);
    let before = memory()?;
    let mut first = Generator::start(&plain.plan, &plain.load, course)?;
    connect(&mut first, plan.counts.idle)?;
    thread::sleep(course.settle);
    let between = memory()?;
    let mut second = Generator::start(&layered.plan, &layered.load, course)?;
    connect(&mut second, plan.counts.idle)?;
    thread::sleep(course.settle);
    let after = memory()?;
    second.watch("idle", course.duration);
    let at_end = memory()?;
    let ready = [first.ready(), second.ready()];
    let report = second.stop();
    first.stop();
    let clients = float(plan.counts.idle.into());
    let per_client = |from: &Memory, to: &Memory| {
        (float(to.resident_bytes) - float(from.resident_bytes)) / clients
    };
    let (plain, tls) = (per_client(&before, &between), per_client(&between, &after));
    let kernel = |from: &Memory, to: &Memory| {
        ratio(float(to.kernel.tcp_bytes) - float(from.kernel.tcp_bytes), clients, 1)
    };
    Ok(json!({
        "plain": {
            "clients": ready[0],
            "broker_rss_bytes_per_client": round(plain, 1),
            "kernel_both_ends_tcp_bytes_per_client": kernel(&before, &between),
        },
        "tls": {
            "clients": ready[1],
            "broker_rss_bytes_per_client": round(tls, 1),
            "generator_rss_bytes_per_client":
                ratio(float(after.own_bytes) - float(between.own_bytes), clients, 1),
            "kernel_both_ends_tcp_bytes_per_client": kernel(&between, &after),
            "connect_us": report::latency(&report.connect[0]),
        },
        "difference": {
            "broker_rss_bytes_per_client": round(tls - plain, 1),
        },
        "memory": {
            "broker_rss_before_bytes": before.resident_bytes,
            "broker_rss_plain_bytes": between.resident_bytes,
            "broker_rss_both_bytes": after.resident_bytes,
            "broker_rss_at_end_bytes": at_end.resident_bytes,
        },
    }))
}

// ---- handshakes

/// Probes alone, beside clients that come at a rate, and clients that come flat out.
fn handshakes(
    args: &ScenarioArgs,
    plan: &Plan,
    load: &Load,
    course: &Course,
) -> Result<Value, BenchError> {
    let groups = [Group::probes(args, load, true)?, Group::probes(args, load, false)?];
    let mut probes = Vec::new();
    for group in &groups {
        let mut probe = Generator::start(&group.plan, &group.load, course)?;
        connect(&mut probe, args.beside.probes)?;
        probes.push(probe);
    }
    let quiet = quiet(args, &mut probes, course)?;
    let background = Load { urgency: Urgency::Background, ..load.clone() };
    let paced = visits(plan, &background, course, &probes)?;
    let flat = Load { rate: 0.0, ..background.clone() };
    let flat = visits(plan, &flat, course, &[])?;
    let mut value = json!({
        "quiet": { "seconds": round(quiet.seconds(), 3), "broker_cpu_percent": quiet.percent() },
        "handshakes_paced": paced.json(&quiet),
        "handshakes_flat_out": flat.json(&quiet),
    });
    for (name, probe) in ["probes_other_listener", "probes_same_listener"].iter().zip(probes) {
        value[*name] = felt(probe, course);
    }
    Ok(value)
}

/// What clients that only come and go cost.
struct Visits {
    window: [Snapshot; 2],
    handshakes: [u64; 2],
    report: Report,
    failures: Value,
}

/// Lets clients come and go, and the probes feel it.
fn visits(
    plan: &Plan,
    load: &Load,
    course: &Course,
    probes: &[Generator<'_>],
) -> Result<Visits, BenchError> {
    let mut generator = Generator::start(plan, load, course)?;
    let shared = Arc::clone(&generator.shared);
    let handshakes = || [0, 1].map(|kind| shared.sum(|c| &c.handshakes[kind]));
    generator.send();
    generator.watch("coming up", RISE);
    let (before, begin) = (handshakes(), generator.snapshot()?);
    shared.slot.store(QUIET, Relaxed);
    probes.iter().for_each(|probe| probe.shared.slot.store(BUSY, Relaxed));
    generator.watch("measuring", course.duration);
    let (after, end) = (handshakes(), generator.snapshot()?);
    probes.iter().for_each(|probe| probe.shared.slot.store(0, Relaxed));
    shared.slot.store(0, Relaxed);
    generator.drain(course.drain);
    let report = generator.stop();
    let failures = json!(shared.failures_by_text());
    let handshakes = [after[0] - before[0], after[1] - before[1]];
    if end.churn[2] == begin.churn[2] {
        let reasons = run::reasons(&shared.failures_by_text());
        return Err(BenchError::NotReady { ready: 0, total: end.churn[1], reasons });
    }
    Ok(Visits { window: [begin, end], handshakes, report, failures })
}

impl Visits {
    fn json(&self, quiet: &Quiet) -> Value {
        let [begin, end] = &self.window;
        let seconds = float(end.at_ns - begin.at_ns) / 1e9;
        let through = float(end.churn[2] - begin.churn[2]);
        let own = float(end.own_cpu_ns - begin.own_cpu_ns) / 1e9;
        let mut value = json!({
            "seconds": round(seconds, 3),
            "clients": end.churn[2] - begin.churn[2],
            "clients_per_s": ratio(through, seconds, 0),
            "due": end.churn[0] - begin.churn[0],
            "failed": end.churn[3] - begin.churn[3],
            "full_handshakes": self.handshakes[0],
            "resumed_handshakes": self.handshakes[1],
            "generator_cpu_percent": ratio(own * 100.0, seconds, 1),
            "handshake_us": report::latency(&self.report.handshake),
            "connack_us": report::latency(&self.report.latency[1]),
            "failures": self.failures,
        });
        if quiet.has_broker {
            let cpu = float(end.broker.cpu_ns - begin.broker.cpu_ns) / 1e9;
            // The probes' share is there all the time.
            let net = cpu - quiet.cpu_per_s() * seconds;
            value["broker_cpu_percent"] = ratio(cpu * 100.0, seconds, 1);
            value["broker_cpu_us_per_client"] = ratio(net * 1e6, through, 1);
            value["broker_clients_per_core_s"] = ratio(through, net, 0);
        }
        value
    }
}

/// The broker with nothing but the probes.
pub struct Quiet {
    window: [Snapshot; 2],
    has_broker: bool,
}

impl Quiet {
    fn seconds(&self) -> f64 {
        float(self.window[1].at_ns - self.window[0].at_ns) / 1e9
    }

    fn cpu_per_s(&self) -> f64 {
        float(self.window[1].broker.cpu_ns - self.window[0].broker.cpu_ns) / 1e9 / self.seconds()
    }

    fn percent(&self) -> Value {
        if self.has_broker { json!(round(self.cpu_per_s() * 100.0, 2)) } else { Value::Null }
    }
}

/// Lets the probes send from now on, and measures while nothing else happens.
pub fn quiet(
    args: &ScenarioArgs,
    probes: &mut [Generator<'_>],
    course: &Course,
) -> Result<Quiet, BenchError> {
    let time = seconds("--quiet-time", args.hostile.quiet_time)?;
    thread::sleep(course.settle);
    probes.iter().for_each(Generator::send);
    thread::sleep(course.warmup);
    let begin = probes[0].snapshot()?;
    probes.iter().for_each(|probe| probe.shared.slot.store(QUIET, Relaxed));
    probes[0].watch("quiet", time);
    probes.iter().for_each(|probe| probe.shared.slot.store(0, Relaxed));
    let end = probes[0].snapshot()?;
    Ok(Quiet { window: [begin, end], has_broker: !course.broker_pids.is_empty() })
}

/// What probes felt, alone and beside the load; they end.
pub fn felt(mut probe: Generator<'_>, course: &Course) -> Value {
    probe.drain(course.drain);
    let shared = Arc::clone(&probe.shared);
    let report = probe.stop();
    let p99 = |histogram: &Histogram<u64>| float(histogram.value_at_percentile(99.0));
    let [_, quiet, busy] = &report.latency;
    json!({
        "quiet_us": report::latency(quiet),
        "busy_us": report::latency(busy),
        "p99_ratio": ratio(p99(busy), p99(quiet), 3),
        "sent": shared.sum(|c| &c.sent),
        "delivered": shared.sum(|c| &c.delivered),
        "failures": shared.failures_by_text(),
    })
}

// ---- reconnects

/// Probes on one listener while all clients of another are lost and come back.
fn reconnects(
    args: &ScenarioArgs,
    plan: &Plan,
    load: &Load,
    course: &Course,
) -> Result<Value, BenchError> {
    let group = Group::probes(args, load, true)?;
    let mut probe = Generator::start(&group.plan, &group.load, course)?;
    connect(&mut probe, args.beside.probes)?;
    let background = Load { urgency: Urgency::Background, ..load.clone() };
    let mut generator = Generator::start(plan, &background, course)?;
    connect(&mut generator, plan.counts.idle)?;
    let mut probes = [probe];
    let quiet = quiet(args, &mut probes, course)?;
    let [probe] = probes;
    probe.shared.slot.store(BUSY, Relaxed);
    let storm = generator.storm()?;
    probe.shared.slot.store(0, Relaxed);
    let shared = Arc::clone(&generator.shared);
    generator.tell(Command::Drain);
    let report = generator.stop();
    let has_broker = !course.broker_pids.is_empty();
    let mut value = json!({
        "quiet": { "seconds": round(quiet.seconds(), 3), "broker_cpu_percent": quiet.percent() },
        "storm": report::storm(&storm, &report.connect[1], has_broker),
        "failures": shared.failures_by_text(),
    });
    value["probes_other_listener"] = felt(probe, course);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_names_of_their_own_that_fit() {
        assert_eq!(prefix("bench", 'p'), "benchp");
        assert_eq!(prefix("12345678", 't'), "1234567t");
        assert_ne!(prefix("b", 'o'), prefix("b", 's'));
    }
}
