//! The main thread of a run: starts the others, prints what they count, and knows when it is over.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::clients::{Clients, Command};
use super::config::{Config, Role};
use super::context::{Context, Shared};
use super::counters::{Counter, ThreadStats, Totals};
use super::lines::Lines;
use super::output::{self, Output};
use super::prometheus;
use super::qoe::{self, Log, Row};
use crate::engine::{Fleet, FleetSetup};
use crate::error::BenchError;
use crate::sys;
use crate::sys::signals::Signals;

/// How often the main thread looks.
const LOOK: Duration = Duration::from_millis(20);
/// How often it prints.
const PERIOD: Duration = Duration::from_secs(1);

/// How a run ended.
enum End {
    /// All messages of `--limit` are published.
    Complete,
    /// SIGINT or SIGTERM.
    Signal,
    /// All clients have ended for good.
    NoClientLeft,
}

/// Runs until the end.
pub fn run(config: Config) -> Result<(), BenchError> {
    // Before there are threads: only this one waits for them.
    let signals = Signals::block().map_err(BenchError::io("cannot block signals"))?;
    sys::sharpen_timers().map_err(BenchError::io("cannot set the timer slack"))?;
    let log = config.qoe_log.as_deref().map(Log::create).transpose()?;
    let threads: Vec<Arc<ThreadStats>> = (0..config.threads).map(|_| Arc::default()).collect();
    if let Some(address) = config.rest_api {
        prometheus::serve(address, threads.clone())?;
    }
    let (rows_in, rows) = channel();
    let setup = FleetSetup { threads: config.threads, cpus: config.cpus.clone() };
    let mut output = Output::new();
    output.line(&first_line(&config));
    if let Some(note) = ports_note(&config, sys::local_ports()) {
        output.line(&note);
    }
    let shared = Arc::new(Shared {
        lines: Lines::new(config.says_clients),
        claimed: AtomicU64::new(0),
        ready_threads: AtomicUsize::new(0),
        rows: Mutex::new(rows_in),
        config,
    });
    let count = u32::try_from(threads.len()).expect("few threads");
    let fleet = Fleet::start(&setup, |thread| {
        let stats = Arc::clone(&threads[thread]);
        let thread = u32::try_from(thread).expect("few threads");
        let context = Context::new(Arc::clone(&shared), stats, thread, count);
        let clients = context.clients();
        (move || Clients::new(context), clients)
    })?;
    let mut watch = Watch {
        shared: &shared,
        threads: &threads,
        rows,
        log,
        output,
        start: Instant::now(),
        printed: Totals::default(),
        printed_at: Instant::now(),
        is_held: matches!(&shared.config.role, Role::Pub(spec) if spec.waits_for_all),
    };
    let end = watch.until_end(&fleet, &signals);
    fleet.send(|| Command::Stop);
    fleet.join();
    watch.finish(&end)
}

/// What emqtt_bench says first.
fn first_line(config: &Config) -> String {
    let threads = u32::try_from(config.threads).unwrap_or(u32::MAX);
    let interval_ms = (config.connect_interval * threads).as_secs_f64() * 1000.0;
    let interval_ms = (interval_ms * 1000.0).round() / 1000.0;
    format!(
        "Start with {threads} workers, addrs pool size: {} and req interval: {interval_ms} ms \n",
        config.address_pool()
    )
}

/// What will happen if the clients need more local ports than there are.
fn ports_note(config: &Config, ports: Option<usize>) -> Option<String> {
    let (wanted, ports) = (config.clients_per_address(), ports?);
    (wanted > ports).then(|| {
        format!(
            "{wanted} clients are to share a local address that has {ports} ports (net.ipv4.ip_local_port_range): some will \
             fail; give more addresses, as in --ifaddr 127.0.1.1-127.0.1.60"
        )
    })
}

struct Watch<'a> {
    shared: &'a Shared,
    threads: &'a [Arc<ThreadStats>],
    rows: Receiver<Row>,
    log: Option<Log>,
    output: Output,
    start: Instant,
    printed: Totals,
    printed_at: Instant,
    /// The publishers wait for the last client to be started.
    is_held: bool,
}

impl Watch<'_> {
    fn until_end(&mut self, fleet: &Fleet<Command>, signals: &Signals) -> End {
        let mut next_print = self.start + PERIOD;
        loop {
            if signals.wait(LOOK) {
                return End::Signal;
            }
            for line in self.shared.lines.take() {
                self.output.line(&line);
            }
            if self.is_held && self.shared.ready_threads.load(Relaxed) == self.threads.len() {
                self.is_held = false;
                let count = self.threads.len();
                self.output.line(&format!("Collected {count} 'go' signals, start publishing"));
                fleet.send(|| Command::Go);
            }
            let totals = self.totals();
            if self.is_complete(&totals) {
                return End::Complete;
            }
            if totals.gone >= u64::from(self.shared.config.count) {
                return End::NoClientLeft;
            }
            if Instant::now() >= next_print {
                next_print += PERIOD;
                self.print(&totals);
            } else if totals.get(Counter::ConnectSucc) < u64::from(self.shared.config.count) {
                self.output.progress(totals.get(Counter::ConnectSucc), self.shared.config.count);
            }
        }
    }

    fn totals(&self) -> Totals {
        Totals::of(self.threads.iter().map(Arc::as_ref))
    }

    fn is_complete(&self, totals: &Totals) -> bool {
        match &self.shared.config.role {
            Role::Pub(spec) => {
                spec.limit > 0 && !spec.keeps_connected && totals.finished >= spec.limit
            }
            Role::Conn | Role::Sub(_) => false,
        }
    }

    /// What happened since the last time.
    fn print(&mut self, totals: &Totals) {
        let rows: Vec<Row> = self.rows.try_iter().collect();
        if let Some(log) = &mut self.log {
            log.write(&rows, &self.shared.config, sys::unix_ns() / 1_000_000);
        }
        let now = Instant::now();
        // Rounded: a print is some milliseconds late.
        let elapsed = now - self.start + Duration::from_millis(500);
        let period = now - self.printed_at;
        let lines = output::changes(&self.printed, totals, elapsed.max(PERIOD), period);
        for line in lines.iter().chain(&qoe::summary(&rows)) {
            self.output.statistics(line);
        }
        for line in self.shared.lines.end_second() {
            self.output.line(&line);
        }
        self.printed = totals.clone();
        self.printed_at = now;
    }

    /// The last lines, after all threads have ended.
    fn finish(&mut self, end: &End) -> Result<(), BenchError> {
        for line in self.shared.lines.take() {
            self.output.line(&line);
        }
        let totals = self.totals();
        self.print(&totals);
        match end {
            End::Complete => self.output.statistics("publish complete"),
            End::Signal => self.output.line(&output::totals(&totals)),
            End::NoClientLeft => {
                return Err(BenchError::NoClientLeft { reasons: output::totals(&totals) });
            }
        }
        Ok(())
    }
}
