//! Leads a run: connect, settle, storm, warm up, measure, drain; takes the snapshots between which things are measured.

use crate::clients::{Clients, Command, Counters, Failure, Report, Shared};
use crate::engine::{Fleet, FleetSetup};
use crate::error::BenchError;
use crate::plan::{Load, Plan, Shape};
use crate::sys::process::{self, KernelMemory, Usage};
use crate::sys::{self, monotonic_ns};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

/// Time between two lines of progress.
const PROGRESS_NS: u64 = 1_000_000_000;
/// Time the threads need to notice that sending is over.
const NOTICE: Duration = Duration::from_millis(50);

/// The times of a run and what it watches.
#[derive(Clone, Debug)]
pub struct Course {
    /// Between the last SUBACK and the first message, and before memory is read.
    pub settle: Duration,
    /// All clients are lost once before messages are sent.
    pub storm: bool,
    /// Load before the measured window.
    pub warmup: Duration,
    /// The measured window.
    pub duration: Duration,
    /// Longest wait for what is still on its way afterwards.
    pub drain: Duration,
    /// Processes of the broker; empty: nothing is known of it.
    pub broker_pids: Vec<i32>,
    /// No progress on standard error.
    pub quiet: bool,
}

/// State at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshot {
    /// When.
    pub at_ns: u64,
    /// Of the broker.
    pub broker: Usage,
    /// Of this process.
    pub own_cpu_ns: u64,
    /// Messages whose time had come.
    pub offered: u64,
    /// Messages sent.
    pub sent: u64,
    /// Messages received.
    pub delivered: u64,
    /// Churning clients: due, begun, through, failed.
    pub churn: [u64; 4],
}

/// Memory at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// VmRSS of the broker.
    pub resident_bytes: u64,
    /// VmRSS of this process.
    pub own_bytes: u64,
    /// Of the whole machine.
    pub kernel: KernelMemory,
}

/// What a storm did.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// Clients that were ready and were lost.
    pub lost: u64,
    /// Clients that were ready at the end.
    pub back: u64,
    /// Failed attempts.
    pub failures: u64,
    /// From the loss to the last client that was ready again, in nanoseconds.
    pub took_ns: u64,
    /// Before the loss and when all were back.
    pub window: [Snapshot; 2],
}

/// All that a run has found.
pub struct Outcome {
    /// Clients of the plan.
    pub clients: u64,
    /// Clients that became ready.
    pub ready: u64,
    /// Before anything was opened.
    pub memory_before: Memory,
    /// After all were ready and settled.
    pub memory_after: Memory,
    /// Before the first connect and when the last was ready.
    pub connect: [Snapshot; 2],
    /// If there was one.
    pub storm: Option<Storm>,
    /// Begin and end of the measured window.
    pub window: [Snapshot; 2],
    /// After the drain.
    pub end: Snapshot,
    /// Deliveries that everything sent should have led to.
    pub expected: u64,
    /// Why clients failed.
    pub failures: BTreeMap<String, u64>,
    /// Handshakes of TLS and WebSocket: full ones, and those of TLS by a ticket.
    pub handshakes: [u64; 2],
    /// Of all threads together.
    pub report: Report,
}

/// The memory of the broker and the kernel now.
pub fn memory(pids: &[i32]) -> Result<Memory, BenchError> {
    let resident_bytes =
        process::resident_bytes(pids).map_err(|source| process_error(pids, source))?;
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let own_bytes = process::resident_bytes(&[own]).unwrap_or(0);
    Ok(Memory { resident_bytes, own_bytes, kernel: process::kernel_memory() })
}

/// A process of the broker cannot be read.
pub fn process_error(pids: &[i32], source: std::io::Error) -> BenchError {
    BenchError::Process { pid: pids.first().copied().unwrap_or(0), source }
}

/// Threads that run a plan, and what they tell.
pub struct Generator<'a> {
    plan: &'a Plan,
    load: &'a Load,
    pids: &'a [i32],
    /// What the threads tell while they run.
    pub shared: Arc<Shared>,
    fleet: Fleet<Command>,
    quiet: bool,
    said_ns: u64,
    said: BTreeSet<Failure>,
    last: u64,
}

impl<'a> Generator<'a> {
    /// Starts the threads; they do nothing yet.
    pub fn start(
        plan: &'a Plan,
        load: &'a Load,
        course: &'a Course,
    ) -> Result<Generator<'a>, BenchError> {
        sys::raise_file_limit().map_err(BenchError::io("cannot raise the file limit"))?;
        let shared = Arc::new(Shared::new(plan, load.rate == 0.0));
        let (common_plan, common_load) = (Arc::new(plan.clone()), Arc::new(load.clone()));
        let cpus = match load.cpus.is_empty() {
            true => reactor::available_cpus(),
            false => load.cpus.clone(),
        };
        let setup = FleetSetup { threads: usize::try_from(plan.threads).unwrap_or(1), cpus };
        let fleet = Fleet::start(&setup, |thread| {
            let parts = (common_plan.clone(), common_load.clone(), shared.clone());
            let thread = u32::try_from(thread).expect("few threads");
            let clients = plan.on_thread(thread).clients();
            (move || Clients::new(parts.0, parts.1, parts.2, thread), clients)
        })?;
        let (quiet, pids) = (course.quiet, course.broker_pids.as_slice());
        let (said_ns, said) = (monotonic_ns(), BTreeSet::new());
        Ok(Generator { plan, load, pids, shared, fleet, quiet, said_ns, said, last: 0 })
    }

    /// Tells all threads.
    pub fn tell(&self, command: Command) {
        self.fleet.send(|| command);
    }

    /// Opens all clients; waits until each is ready or failed, or `connect_timeout` is over.
    pub fn connect(&mut self) {
        self.tell(Command::Connect);
        self.await_ready("connecting", 0);
    }

    /// Sends from now on.
    pub fn send(&self) {
        self.tell(Command::Send(monotonic_ns()));
    }

    /// Clients that are ready now.
    pub fn ready(&self) -> u64 {
        self.shared.sum(|c| &c.ready)
    }

    /// The state now.
    pub fn snapshot(&self) -> Result<Snapshot, BenchError> {
        let broker =
            process::usage(self.pids).map_err(|source| process_error(self.pids, source))?;
        let sum = |pick: fn(&Counters) -> &AtomicU64| self.shared.sum(pick);
        Ok(Snapshot {
            at_ns: monotonic_ns(),
            broker,
            own_cpu_ns: process::own_cpu_ns(),
            offered: sum(|c| &c.offered),
            sent: sum(|c| &c.sent),
            delivered: sum(|c| &c.delivered),
            churn: [
                sum(|c| &c.churn[0]),
                sum(|c| &c.churn[1]),
                sum(|c| &c.churn[2]),
                sum(|c| &c.churn[3]),
            ],
        })
    }

    /// Waits until all threads had so many storms and every client is ready or failed.
    fn await_ready(&mut self, what: &str, storms: u64) {
        let total = u64::from(self.plan.opened_first());
        let begin = monotonic_ns();
        self.last = 0;
        loop {
            let (ready, failed) = (self.ready(), self.shared.sum(|c| &c.failed));
            let has_begun = self.shared.sum(|c| &c.storms) >= storms;
            let elapsed = u128::from(monotonic_ns() - begin);
            if has_begun && ready + failed >= total
                || elapsed >= self.load.connect_timeout.as_nanos()
            {
                break;
            }
            self.progress(ready, |ready, rate| {
                format!("{what}: {ready} of {total} ready, {rate}/s, {failed} failed")
            });
            thread::sleep(Duration::from_millis(2));
        }
        // If nobody is ready, the error at the end says why.
        if self.ready() > 0 {
            self.say_failures();
        }
    }

    /// Loses all clients and waits until all are back.
    pub fn storm(&mut self) -> Result<Storm, BenchError> {
        let failures = |shared: &Shared| shared.failures().values().sum::<u64>();
        let (failed_before, before) = (failures(&self.shared), self.snapshot()?);
        self.tell(Command::Storm);
        self.await_ready("reconnecting", u64::from(self.plan.threads));
        let after = self.snapshot()?;
        Ok(Storm {
            lost: self.shared.sum(|c| &c.lost),
            back: self.ready(),
            failures: failures(&self.shared) - failed_before,
            took_ns: self.shared.last_ready_ns().saturating_sub(before.at_ns),
            window: [before, after],
        })
    }

    /// Lets time pass.
    pub fn watch(&mut self, what: &str, duration: Duration) {
        let end_ns = monotonic_ns() + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2);
        let is_churn = self.plan.churns();
        let done = |shared: &Shared| match is_churn {
            true => shared.sum(|c| &c.churn[2]),
            false => shared.sum(|c| &c.delivered),
        };
        self.last = done(&self.shared);
        loop {
            let now = monotonic_ns();
            if now >= end_ns {
                return;
            }
            let next_ns = end_ns.min((self.said_ns + PROGRESS_NS).max(now + 1));
            thread::sleep(Duration::from_nanos(next_ns - now));
            if monotonic_ns() >= end_ns {
                continue;
            }
            let sent = self.shared.sum(|c| &c.sent);
            self.progress(done(&self.shared), |done, rate| match is_churn {
                true => format!("{what}: {done} clients through, {rate}/s"),
                false => format!("{what}: sent {sent}, delivered {done}, {rate}/s"),
            });
        }
    }

    /// Stops sending and waits for what is on its way.
    pub fn drain(&mut self, timeout: Duration) {
        self.tell(Command::Drain);
        let begin = monotonic_ns();
        thread::sleep(NOTICE);
        let shared = Arc::clone(&self.shared);
        let fan = self.plan.fan;
        let is_waiting = || {
            let churn = |index: usize| shared.sum(|c: &Counters| &c.churn[index]);
            shared.sum(|c| &c.delivered) < shared.sum(|c| &c.sent) * fan
                || churn(2) + churn(3) < churn(1)
        };
        while u128::from(monotonic_ns() - begin) < timeout.as_nanos() && is_waiting() {
            self.progress(shared.sum(|c| &c.delivered), |done, rate| {
                format!("draining: delivered {done}, {rate}/s")
            });
            thread::sleep(Duration::from_millis(10));
        }
        if shared.sum(|c| &c.delivered) > 0 {
            self.say_failures();
        }
    }

    /// Ends the threads and takes their reports.
    pub fn stop(self) -> Report {
        self.tell(Command::Stop);
        self.fleet.join();
        self.shared.report()
    }

    /// Says a line if it is time; `count` is what the line's rate is made of.
    fn progress(&mut self, count: u64, line: impl FnOnce(u64, u64) -> String) {
        let now = monotonic_ns();
        if now - self.said_ns < PROGRESS_NS {
            return;
        }
        let rate = u128::from(count.saturating_sub(self.last)) * 1_000_000_000;
        let rate = u64::try_from(rate / u128::from(now - self.said_ns)).unwrap_or(0);
        (self.said_ns, self.last) = (now, count);
        if !self.quiet {
            eprintln!("{}", line(count, rate));
        }
        self.say_failures();
    }

    /// Says each reason once, when it is first seen.
    fn say_failures(&mut self) {
        for (failure, count) in self.shared.failures() {
            if self.said.insert(failure) {
                eprintln!("ringmq-bench: clients fail: {} ({count} so far)", failure.text());
            }
        }
    }
}

/// Runs `plan` under `load` along `course`.
pub fn run(plan: &Plan, load: &Load, course: &Course) -> Result<Outcome, BenchError> {
    let memory_before = memory(&course.broker_pids)?;
    let mut generator = Generator::start(plan, load, course)?;
    let led = lead(&mut generator, plan, course);
    let shared = Arc::clone(&generator.shared);
    let report = generator.stop();
    let led = led?;
    let clients = u64::from(plan.opened_first());
    let nobody = match plan.shape {
        Shape::Churn | Shape::Visits => led.end.churn[2] == 0,
        _ => led.ready == 0 && clients > 0,
    };
    let failures = shared.failures_by_text();
    if nobody {
        let total = clients.max(led.end.churn[1]);
        return Err(BenchError::NotReady { ready: 0, total, reasons: reasons(&failures) });
    }
    Ok(Outcome {
        clients,
        ready: led.ready,
        memory_before,
        memory_after: led.memory_after,
        connect: led.connect,
        storm: led.storm,
        window: led.window,
        end: led.end,
        expected: led.end.sent * plan.fan,
        failures,
        handshakes: [0, 1].map(|kind| shared.sum(|c| &c.handshakes[kind])),
        report,
    })
}

struct Led {
    ready: u64,
    connect: [Snapshot; 2],
    memory_after: Memory,
    storm: Option<Storm>,
    window: [Snapshot; 2],
    end: Snapshot,
}

fn lead(generator: &mut Generator<'_>, plan: &Plan, course: &Course) -> Result<Led, BenchError> {
    let connect_begin = generator.snapshot()?;
    generator.connect();
    let connected = generator.snapshot()?;
    let ready = generator.ready();
    let is_going = ready > 0 || plan.churns();
    thread::sleep(course.settle);
    let memory_after = memory(&course.broker_pids)?;
    let storm = if course.storm && is_going { Some(generator.storm()?) } else { None };
    if is_going {
        generator.send();
        generator.watch("warming up", course.warmup);
    }
    generator.shared.slot.store(1, Relaxed);
    let begin = generator.snapshot()?;
    if is_going {
        generator.watch("measuring", course.duration);
    }
    let finish = generator.snapshot()?;
    generator.shared.slot.store(0, Relaxed);
    generator.drain(course.drain);
    let end = generator.snapshot()?;
    let connect = [connect_begin, connected];
    Ok(Led { ready, connect, memory_after, storm, window: [begin, finish], end })
}

/// Failures as one line of text.
pub fn reasons(failures: &BTreeMap<String, u64>) -> String {
    if failures.is_empty() {
        return "the others did not answer in time".to_owned();
    }
    let list: Vec<String> =
        failures.iter().map(|(why, count)| format!("{why} ({count})")).collect();
    list.join(", ")
}
