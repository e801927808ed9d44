//! What a broker keeps: messages acknowledged while nobody who wants them is there, sessions that come back for their messages,
//! retained messages by the million.

mod agent;
mod layout;
mod tally;
#[cfg(test)]
mod tests;

use crate::beside;
use crate::cli::{Scenario, ScenarioArgs};
use crate::engine::{Fleet, FleetSetup};
use crate::error::BenchError;
use crate::names::Names;
use crate::plan::Load;
use crate::report::{self, float, ratio, round};
use crate::run::{self, Course, Generator};
use crate::sys::process::{self, Usage};
use crate::sys::{self, monotonic_ns};
use agent::{Clients, Command};
use clap::{Args, ValueEnum};
use layout::Layout;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use tally::Tally;

/// A phase in which nothing has happened for so long will not end.
const PATIENCE_NS: u64 = 60_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// A part of `offline-queue`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Phase {
    /// Sessions are made, subscribe, and are left
    Create,
    /// Each gets its messages
    Publish,
    /// They come back for them
    Return,
    /// They are ended for good
    Discard,
}

/// Options of `durable-pub`, `offline-queue` and `retained-many`.
#[derive(Args, Clone, Debug)]
pub struct DurableArgs {
    /// offline-queue: which phases, in this order; the others are of another run with the same -n, --messages and --prefix
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "create,publish,return",
        help_heading = "Durable"
    )]
    pub phases: Vec<Phase>,
    /// offline-queue: messages of each session
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000_000), help_heading = "Durable")]
    pub messages: u32,
    /// offline-queue: sessions that come back [default: all]
    #[arg(long, help_heading = "Durable")]
    pub returning: Option<u32>,
    /// Seconds the broker is to keep a session
    #[arg(long, default_value_t = 7_200, help_heading = "Durable")]
    pub expiry: u32,
    /// retained-many: messages that one filter matches
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Durable")]
    pub matching: u32,
    /// retained-many: filters asked for, one after the other
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Durable")]
    pub asks: u32,
}

/// A run and what it tells.
struct Run<'a> {
    fleet: Fleet<Command>,
    tally: Arc<Tally>,
    layout: Layout,
    course: &'a Course,
}

/// The state at one moment.
#[derive(Clone, Copy)]
struct Moment {
    at_ns: u64,
    broker: Usage,
    answered: u64,
    refused: u64,
    own_cpu_ns: u64,
}

fn layout(args: &ScenarioArgs) -> Layout {
    let count = args.count.unwrap_or(args.name.case().count);
    let publishers = args.publishers.unwrap_or(args.name.case().others);
    let base = Layout {
        names: Names::new(&args.prefix),
        prefix: args.prefix.clone(),
        sessions: count,
        publishers: publishers.min(count),
        topics: count,
        messages: args.durable.messages,
        per_group: 0,
        expiry_s: args.durable.expiry,
    };
    match args.name {
        Scenario::DurablePub => Layout { publishers: count, messages: 0, ..base },
        Scenario::RetainedMany => {
            let per_group = args.durable.matching.min(count);
            // All filters match the same number.
            let topics = count - count % per_group;
            Layout { sessions: 0, messages: 1, topics, per_group, ..base }
        }
        _ => base,
    }
}

/// Runs one of the scenarios of this module.
pub fn run(args: &ScenarioArgs, load: &Load, course: &Course) -> Result<Value, BenchError> {
    if args.threads != 1 {
        let text = format!("{} has one thread", args.name.name());
        return Err(BenchError::Option(text));
    }
    if load.qos == 0 {
        let text = format!("{} waits for acknowledgements: --qos is 1 or 2", args.name.name());
        return Err(BenchError::Option(text));
    }
    sys::raise_file_limit().map_err(BenchError::io("cannot raise the file limit"))?;
    let layout = layout(args);
    let tally = Arc::new(Tally::default());
    let cpus = match load.cpus.is_empty() {
        true => reactor::available_cpus(),
        false => load.cpus.clone(),
    };
    let parts = (layout.clone(), Arc::new(load.clone()), Arc::clone(&tally));
    let clients = layout.clients();
    let fleet = Fleet::start(&FleetSetup { threads: 1, cpus }, |_| {
        let parts = parts.clone();
        (move || Clients::new(parts.0, parts.1, parts.2), clients)
    })?;
    let run = Run { fleet, tally, layout, course };
    let led = match args.name {
        Scenario::DurablePub => run.durable_pub(),
        Scenario::OfflineQueue => run.offline_queue(&args.durable),
        _ => run.retained_many(args, load),
    };
    run.tell(Command::Stop);
    let Run { fleet, tally, layout, .. } = run;
    fleet.join();
    let mut value = led?;
    let found = tally.found();
    let mut put = |group: &str, histogram| {
        if let Some(group) = value.get_mut(group) {
            group["latency_us"] = report::latency(histogram);
        }
    };
    put("create", &found.created);
    put("publish", &found.acknowledged[1]);
    put("return", &found.returned);
    put("retained", &found.retained);
    value["failures"] = json!(tally.failures());
    value["machine"] = report::machine();
    value["options"] = json!({
        "target": load.target.to_string(),
        "transport": report::transport(load),
        "version": format!("{:?}", load.version),
        "qos": load.qos,
        "payload_bytes": load.payload_len,
        "window": load.window,
        "sessions": layout.sessions,
        "publishers": layout.publishers,
        "topics": layout.topics,
        "messages": layout.messages,
        "expiry_s": layout.expiry_s,
    });
    Ok(value)
}

impl Run<'_> {
    fn tell(&self, command: Command) {
        self.fleet.send(|| command);
    }

    fn moment(&self) -> Result<Moment, BenchError> {
        let pids = &self.course.broker_pids;
        Ok(Moment {
            at_ns: monotonic_ns(),
            broker: process::usage(pids).map_err(|source| run::process_error(pids, source))?,
            answered: self.tally.answered.load(Relaxed),
            refused: self.tally.refused.load(Relaxed),
            own_cpu_ns: process::own_cpu_ns(),
        })
    }

    fn resident_bytes(&self) -> Result<u64, BenchError> {
        Ok(run::memory(&self.course.broker_pids)?.resident_bytes)
    }

    /// Waits until a counter has come so far; an error if nothing happens any more.
    fn wait(
        &self,
        what: &str,
        pick: impl Fn(&Tally) -> &AtomicU64,
        total: u64,
    ) -> Result<(), BenchError> {
        let (mut moved_ns, mut said_ns, mut last) = (monotonic_ns(), monotonic_ns(), 0);
        loop {
            let (done, now_ns) = (pick(&self.tally).load(Relaxed), monotonic_ns());
            if done >= total {
                return Ok(());
            }
            let moved = done + self.tally.heard.load(Relaxed);
            if moved != last {
                (last, moved_ns) = (moved, now_ns);
            }
            if now_ns - moved_ns > PATIENCE_NS {
                let reasons = run::reasons(&self.tally.failures());
                let what = what.to_owned();
                return Err(BenchError::Stalled { what, done, total, reasons });
            }
            if now_ns - said_ns > SECOND_NS && !self.course.quiet {
                said_ns = now_ns;
                eprintln!("{what}: {done} of {total}");
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets a wave of sessions do something; what it took.
    fn wave(&self, what: &str, command: Command, count: u32) -> Result<Value, BenchError> {
        let before = self.tally.through.load(Relaxed);
        let (begin, resident) = (self.moment()?, self.resident_bytes()?);
        self.tell(command);
        self.wait(what, |tally| &tally.through, before + u64::from(count))?;
        let end_ns = self.tally.last_ns.load(Relaxed);
        let end = self.moment()?;
        let seconds = float(end_ns.saturating_sub(begin.at_ns)) / 1e9;
        let sessions = float(count.into());
        let mut value = json!({
            "sessions": count,
            "seconds": round(seconds, 3),
            "sessions_per_s": ratio(sessions, seconds, 0),
        });
        if !self.course.broker_pids.is_empty() {
            let cpu_us = float(end.broker.cpu_ns - begin.broker.cpu_ns) / 1e3;
            value["broker_cpu_us_per_session"] = ratio(cpu_us, sessions, 1);
            let more = float(self.resident_bytes()?) - float(resident);
            value["broker_rss_bytes_per_session"] = ratio(more, sessions, 1);
        }
        Ok(value)
    }

    fn connect_publishers(&self) -> Result<(), BenchError> {
        self.tell(Command::Connect);
        self.wait("publishers", |tally| &tally.publishers, self.layout.publishers.into())
    }

    /// What was acknowledged between two moments.
    fn acknowledged(&self, begin: &Moment, end: &Moment) -> Value {
        let seconds = float(end.at_ns - begin.at_ns) / 1e9;
        let refused = end.refused - begin.refused;
        let count = end.answered - begin.answered - refused;
        let own = float(end.own_cpu_ns - begin.own_cpu_ns) / 1e7;
        let mut value = json!({
            "seconds": round(seconds, 3),
            "acknowledged": count,
            "refused": refused,
            "acknowledged_per_s": ratio(float(count), seconds, 0),
            "generator_cpu_percent": ratio(own, seconds, 1),
        });
        if !self.course.broker_pids.is_empty() {
            let cpu_us = float(end.broker.cpu_ns - begin.broker.cpu_ns) / 1e3;
            value["broker_cpu_percent"] = ratio(cpu_us / 1e4, seconds, 1);
            value["broker_cpu_us_per_message"] = ratio(cpu_us, float(count), 3);
        }
        value
    }

    /// All messages of all topics; what it took.
    fn publish_all(&self) -> Result<Value, BenchError> {
        let total = (0..self.layout.publishers).map(|at| self.layout.messages_of(at)).sum::<u64>();
        self.connect_publishers()?;
        let (begin, resident) = (self.moment()?, self.resident_bytes()?);
        self.tally.slot.store(1, Relaxed);
        self.tell(Command::Publish);
        self.wait("acknowledged", |tally| &tally.answered, total)?;
        let mut end = self.moment()?;
        end.at_ns = self.tally.last_ns.load(Relaxed).max(begin.at_ns);
        self.tally.slot.store(0, Relaxed);
        let mut value = self.acknowledged(&begin, &end);
        if !self.course.broker_pids.is_empty() {
            let more = float(self.resident_bytes()?) - float(resident);
            value["broker_rss_bytes_per_message"] = ratio(more, float(total), 1);
        }
        Ok(value)
    }

    // ---- the scenarios

    /// Publishers in closed loop to sessions that are away.
    fn durable_pub(&self) -> Result<Value, BenchError> {
        let create = self.wave("sessions made", Command::Create, self.layout.sessions)?;
        self.connect_publishers()?;
        self.tell(Command::Publish);
        thread::sleep(self.course.warmup);
        self.tally.slot.store(1, Relaxed);
        let begin = self.moment()?;
        thread::sleep(self.course.duration);
        let end = self.moment()?;
        self.tally.slot.store(0, Relaxed);
        self.tell(Command::Hold);
        thread::sleep(Duration::from_millis(50));
        let sent = self.tally.sent.load(Relaxed);
        self.wait("acknowledged", |tally| &tally.answered, sent)?;
        let publish = self.acknowledged(&begin, &end);
        self.wave("sessions discarded", Command::Discard, self.layout.sessions)?;
        Ok(json!({ "create": create, "publish": publish }))
    }

    /// Sessions that are left, get messages, and come back for them.
    fn offline_queue(&self, args: &DurableArgs) -> Result<Value, BenchError> {
        let mut value = json!({});
        let sessions = self.layout.sessions;
        for phase in &args.phases {
            match phase {
                Phase::Create => {
                    value["create"] = self.wave("sessions made", Command::Create, sessions)?;
                }
                Phase::Publish => value["publish"] = self.publish_all()?,
                Phase::Return => {
                    let count = args.returning.unwrap_or(sessions).min(sessions);
                    value["return"] = self.come_back(count)?;
                }
                Phase::Discard => {
                    value["discard"] =
                        self.wave("sessions discarded", Command::Discard, sessions)?;
                }
            }
            thread::sleep(self.course.settle);
        }
        Ok(value)
    }

    fn come_back(&self, count: u32) -> Result<Value, BenchError> {
        let tally = &self.tally;
        let mut value = self.wave("sessions back", Command::Return(count), count)?;
        let heard = tally.heard.load(Relaxed);
        let seconds = value["seconds"].as_f64().unwrap_or(0.0);
        value["messages"] = json!(heard);
        value["messages_per_s"] = ratio(float(heard), seconds, 0);
        value["expected"] = json!(u64::from(count) * u64::from(self.layout.messages));
        value["lost"] = json!(tally.lost.load(Relaxed));
        value["repeated"] = json!(tally.repeated.load(Relaxed));
        value["foreign"] = json!(tally.foreign.load(Relaxed));
        value["sessions_missing"] = json!(tally.sessions_missing.load(Relaxed));
        Ok(value)
    }

    /// Retained messages, and filters that match some of them, while probes watch.
    fn retained_many(&self, args: &ScenarioArgs, load: &Load) -> Result<Value, BenchError> {
        let group = beside::Group::probes(args, load, false)?;
        let mut probe = Generator::start(&group.plan, &group.load, self.course)?;
        beside::connect(&mut probe, args.beside.probes)?;
        let publish = self.publish_all()?;
        let mut probes = [probe];
        beside::quiet(args, &mut probes, self.course)?;
        let [probe] = probes;
        probe.shared.slot.store(beside::BUSY, Relaxed);
        self.tell(Command::Watch(args.durable.asks));
        let waited = self.wait("filters", |tally| &tally.watched, 1);
        probe.shared.slot.store(0, Relaxed);
        let probes = beside::felt(probe, self.course);
        waited?;
        let tally = &self.tally;
        Ok(json!({
            "publish": publish,
            "retained": {
                "filters": args.durable.asks,
                "messages_per_filter": self.layout.per_group,
                "messages": tally.heard.load(Relaxed),
                "repeated": tally.repeated.load(Relaxed),
                "foreign": tally.foreign.load(Relaxed),
            },
            "probes": probes,
        }))
    }
}
