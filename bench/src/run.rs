//! Leads a run: connect, settle, warm up, measure, drain; takes the snapshots between which things are measured.

use crate::error::BenchError;
use crate::plan::{Load, Plan};
use crate::sys::process::{self, KernelMemory, Usage};
use crate::sys::{self, now_ns};
use crate::worker::{Phase, Report, Shared, Worker};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

/// Descriptors of this process that are no clients.
const FILES_SPARE: u64 = 32;

/// The times of a run and what it watches.
#[derive(Clone, Debug)]
pub struct Course {
    /// Between the last SUBACK and the first message, and before memory is read.
    pub settle: Duration,
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
}

/// Memory at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// VmRSS of the broker.
    pub resident_bytes: u64,
    /// Of the whole machine.
    pub kernel: KernelMemory,
}

/// All that a run has found.
pub struct Outcome {
    /// Clients of the plan.
    pub clients: u64,
    /// Clients that became ready.
    pub ready: u64,
    /// Before the first connect.
    pub memory_before: Memory,
    /// After all were ready and settled.
    pub memory_after: Memory,
    /// Before the first connect and when the last was ready.
    pub connect: [Snapshot; 2],
    /// Begin and end of the measured window.
    pub window: [Snapshot; 2],
    /// After the drain.
    pub end: Snapshot,
    /// Deliveries that everything sent should have led to.
    pub expected: u64,
    /// Of all workers together.
    pub report: Report,
}

/// Checks that there are enough descriptors.
pub fn check_files(clients: usize) -> Result<(), BenchError> {
    let limit = sys::raise_file_limit().map_err(BenchError::io("cannot raise the file limit"))?;
    let needed = u64::try_from(clients).unwrap_or(u64::MAX).saturating_add(FILES_SPARE);
    if needed > limit { Err(BenchError::Files { clients, needed, limit }) } else { Ok(()) }
}

/// The memory of the broker and the kernel now.
pub fn memory(pids: &[i32]) -> Result<Memory, BenchError> {
    let resident_bytes =
        process::resident_bytes(pids).map_err(|source| process_error(pids, source))?;
    Ok(Memory { resident_bytes, kernel: process::kernel_memory() })
}

fn process_error(pids: &[i32], source: std::io::Error) -> BenchError {
    BenchError::Process { pid: pids.first().copied().unwrap_or(0), source }
}

/// The state of `shared` and of the broker now.
pub fn snapshot(shared: &Shared, pids: &[i32]) -> Result<Snapshot, BenchError> {
    let broker = process::usage(pids).map_err(|source| process_error(pids, source))?;
    Ok(Snapshot {
        at_ns: now_ns(),
        broker,
        own_cpu_ns: process::own_cpu_ns(),
        offered: shared.sum(|c| &c.offered),
        sent: shared.sum(|c| &c.sent),
        delivered: shared.sum(|c| &c.delivered),
    })
}

/// Runs `plan` under `load` along `course`.
pub fn run(plan: &Plan, load: &Load, course: &Course) -> Result<Outcome, BenchError> {
    check_files(plan.clients.len())?;
    let shared = Shared::new(plan, load.threads);
    let pids = &course.broker_pids;
    let memory_before = memory(pids)?;
    let connect_begin = snapshot(&shared, pids)?;
    thread::scope(|scope| {
        let mut handles = Vec::new();
        for index in 0..load.threads {
            let worker = Worker::new(&shared, index, plan, load)
                .map_err(BenchError::io("cannot make an epoll instance"))?;
            handles.push(scope.spawn(move || worker.run()));
        }
        let led = lead(plan, load, course, &shared);
        shared.enter(Phase::Stop);
        let mut reports = Vec::new();
        for handle in handles {
            let report = handle.join().map_err(|_| BenchError::Thread)?;
            reports.push(report.map_err(BenchError::io("cannot wait for events"))?);
        }
        let report = merge(reports);
        let led = led?;
        if led.ready == 0 && !plan.clients.is_empty() {
            return Err(BenchError::NotReady {
                ready: 0,
                total: u64::try_from(plan.clients.len()).unwrap_or(u64::MAX),
                reasons: reasons(&report.failures),
            });
        }
        Ok(Outcome {
            clients: u64::try_from(plan.clients.len()).unwrap_or(u64::MAX),
            ready: led.ready,
            memory_before,
            memory_after: led.memory_after,
            connect: [connect_begin, led.connected],
            window: led.window,
            end: led.end,
            expected: led.end.sent * plan.fan,
            report,
        })
    })
}

struct Led {
    ready: u64,
    connected: Snapshot,
    memory_after: Memory,
    window: [Snapshot; 2],
    end: Snapshot,
}

fn lead(plan: &Plan, load: &Load, course: &Course, shared: &Shared) -> Result<Led, BenchError> {
    let pids = &course.broker_pids;
    await_ready(plan, load.connect_timeout, course.quiet, shared);
    let connected = snapshot(shared, pids)?;
    let ready = shared.sum(|c| &c.ready);
    thread::sleep(course.settle);
    let memory_after = memory(pids)?;

    shared.start_ns.store(now_ns(), Relaxed);
    if ready > 0 {
        shared.enter(Phase::Send);
        thread::sleep(course.warmup);
    }
    shared.slot.store(1, Relaxed);
    let begin = snapshot(shared, pids)?;
    if ready > 0 {
        watch(course.duration, course.quiet, shared, begin);
    }
    let finish = snapshot(shared, pids)?;
    shared.slot.store(0, Relaxed);
    shared.enter(Phase::Drain);
    await_drained(plan.fan, course.drain, shared);
    let end = snapshot(shared, pids)?;
    Ok(Led { ready, connected, memory_after, window: [begin, finish], end })
}

/// Waits until every client is ready or failed, at most `timeout`.
pub fn await_ready(plan: &Plan, timeout: Duration, quiet: bool, shared: &Shared) {
    let total = u64::try_from(plan.clients.len()).unwrap_or(u64::MAX);
    let begin = now_ns();
    let mut said_ns = begin;
    loop {
        let (ready, failed) = (shared.sum(|c| &c.ready), shared.sum(|c| &c.failed));
        let now = now_ns();
        if ready + failed >= total || u128::from(now - begin) >= timeout.as_nanos() {
            return;
        }
        if !quiet && now - said_ns >= 1_000_000_000 {
            said_ns = now;
            eprintln!("connecting: {ready} of {total} ready, {failed} failed");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn watch(duration: Duration, quiet: bool, shared: &Shared, begin: Snapshot) {
    let end_ns = begin.at_ns + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2);
    let mut last = begin.delivered;
    loop {
        let now = now_ns();
        if now >= end_ns {
            return;
        }
        thread::sleep(Duration::from_nanos(end_ns - now).min(Duration::from_secs(1)));
        let delivered = shared.sum(|c| &c.delivered);
        if !quiet && now_ns() < end_ns {
            eprintln!("delivered {delivered}, {} in the last second", delivered - last);
        }
        last = delivered;
    }
}

fn await_drained(fan: u64, timeout: Duration, shared: &Shared) {
    let begin = now_ns();
    // The workers need a moment to notice that sending is over.
    thread::sleep(Duration::from_millis(50));
    while u128::from(now_ns() - begin) < timeout.as_nanos()
        && shared.sum(|c| &c.delivered) < shared.sum(|c| &c.sent) * fan
    {
        thread::sleep(Duration::from_millis(10));
    }
}

/// One report of several workers.
pub fn merge(reports: Vec<Report>) -> Report {
    let mut reports = reports.into_iter();
    let mut sum = reports.next().expect("a run has at least one worker");
    let add = |to: &mut Histogram<u64>, from: &Histogram<u64>| {
        to.add(from).expect("all histograms have the same bounds");
    };
    for report in reports {
        for (to, from) in sum.latency.iter_mut().zip(&report.latency) {
            add(to, from);
        }
        add(&mut sum.connect, &report.connect);
        sum.duplicates += report.duplicates;
        sum.reordered += report.reordered;
        sum.foreign += report.foreign;
        sum.pings.0 += report.pings.0;
        sum.pings.1 += report.pings.1;
        for (reason, count) in report.failures {
            *sum.failures.entry(reason).or_default() += count;
        }
    }
    sum
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
