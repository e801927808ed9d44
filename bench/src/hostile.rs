//! A well-behaved probe beside many connections that are not: is it disturbed, and does the broker's memory come back?

use crate::cli::{HostileArgs, HostileKind, seconds};
use crate::clients::Command;
use crate::error::BenchError;
use crate::plan::{Load, Plan};
use crate::report::{self, float, round};
use crate::run::{self, Course, Generator};
use crate::sys::epoll::{Epoll, Event, Events};
use crate::sys::process;
use crate::sys::{self, monotonic_ns};
use crate::wire::{self, Stamp, Template, Version};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

/// Garbage that the broker neither answers nor closes is given up after this time.
const GARBAGE_HOLD_NS: u64 = 2_000_000_000;
/// Longest garbage in bytes.
const GARBAGE_LEN_MAX: u64 = 512;
/// Receive buffer asked for by slow readers, in bytes: the broker's queue fills instead.
const SLOW_RECEIVE_LEN: i32 = 4_096;
/// Payload of one message of a slow reader.
const SLOW_PAYLOAD_LEN: usize = 1_024;

/// Descriptors of this process that are no attackers.
const FILES_SPARE: u64 = 64;

/// One hostile connection.
struct Attack {
    stream: TcpStream,
    kind: HostileKind,
    /// Tells this connection from an earlier one in the same place.
    round: u64,
    outgoing: Vec<u8>,
    sent: usize,
}

/// All hostile connections.
struct Attackers<'a> {
    load: &'a Load,
    args: &'a HostileArgs,
    epoll: Epoll,
    places: Vec<Option<Attack>>,
    free: Vec<usize>,
    /// When the connection of a place and round is given up, soonest first per hold time.
    deadlines: [VecDeque<(u64, usize, u64)>; 2],
    opened: u64,
    open_count: usize,
    random: u64,
    endings: BTreeMap<(HostileKind, String), u64>,
}

/// Runs the probe alone, then beside the attack, then reads the memory again.
pub fn run(
    plan: &Plan,
    load: &Load,
    course: &Course,
    args: &HostileArgs,
) -> Result<Value, BenchError> {
    if args.hostile_kinds.is_empty() || args.hostile_at_once == 0 {
        return Err(BenchError::Option(
            "--hostile-kinds and --hostile-at-once may not be empty".into(),
        ));
    }
    let quiet = seconds("--quiet-time", args.quiet_time)?;
    let recovery = seconds("--recovery-time", args.recovery_time)?;
    let limit = seconds("--hostile-time", args.hostile_time)?;
    let mut generator = Generator::start(plan, load, course)?;
    check_files(args.hostile_at_once)?;
    let led = lead(&mut generator, load, course, args, [quiet, limit, recovery]);
    let shared = Arc::clone(&generator.shared);
    let report = generator.stop();
    let mut value = led?;
    let p99 = |slot: usize| float(report.latency[slot].value_at_percentile(99.0));
    value["machine"] = report::machine();
    value["options"] = report::options(plan, load, course);
    value["probe_alone_us"] = report::latency(&report.latency[1]);
    value["probe_attacked_us"] = report::latency(&report.latency[2]);
    value["probe"] = json!({
        "p99_ratio": if p99(1) > 0.0 { json!(round(p99(2) / p99(1), 3)) } else { Value::Null },
        "sent": shared.sum(|c| &c.sent),
        "delivered": shared.sum(|c| &c.delivered),
        "failures": shared.failures_by_text(),
    });
    Ok(value)
}

/// Checks that there are enough descriptors for the attackers, which have one each.
fn check_files(clients: usize) -> Result<(), BenchError> {
    let limit = sys::raise_file_limit().map_err(BenchError::io("cannot raise the file limit"))?;
    let needed = u64::try_from(clients).unwrap_or(u64::MAX).saturating_add(FILES_SPARE);
    if needed > limit { Err(BenchError::Files { clients, needed, limit }) } else { Ok(()) }
}

fn lead(
    generator: &mut Generator<'_>,
    load: &Load,
    course: &Course,
    args: &HostileArgs,
    [quiet, limit, recovery]: [Duration; 3],
) -> Result<Value, BenchError> {
    let pids = &course.broker_pids;
    generator.connect();
    let shared = Arc::clone(&generator.shared);
    if shared.sum(|c| &c.failed) > 0 || generator.ready() == 0 {
        let (ready, total) = (generator.ready(), 1.max(generator.ready()));
        let reasons =
            format!("the probe could not connect: {}", run::reasons(&shared.failures_by_text()));
        return Err(BenchError::NotReady { ready, total, reasons });
    }
    thread::sleep(course.settle);
    generator.send();
    thread::sleep(course.warmup);
    let before = run::memory(pids)?;
    shared.slot.store(1, Relaxed);
    thread::sleep(quiet);
    shared.slot.store(2, Relaxed);
    let begin = generator.snapshot()?;
    // The probe must not wait for the attacker's turn on a CPU they share.
    sys::be_nice().map_err(BenchError::io("cannot lower the attacker's priority"))?;
    let mut attackers =
        Attackers::new(load, args).map_err(BenchError::io("cannot make an epoll instance"))?;
    let peak = attackers
        .attack(limit, pids, course.quiet)
        .map_err(BenchError::io("cannot wait for events"))?;
    let end = generator.snapshot()?;
    let during = run::memory(pids)?;
    shared.slot.store(0, Relaxed);
    generator.tell(Command::Drain);
    thread::sleep(recovery);
    let after = run::memory(pids)?;
    let seconds = float(end.at_ns - begin.at_ns) / 1e9;
    let mut endings = serde_json::Map::new();
    for ((kind, ending), count) in &attackers.endings {
        endings.insert(format!("{kind:?} {ending}").to_lowercase(), json!(count));
    }
    Ok(json!({
        "attack": {
            "opened": attackers.opened,
            "seconds": round(seconds, 2),
            "opened_per_s": round(float(attackers.opened) / seconds, 0),
            "broker_cpu_percent":
                round(float(end.broker.cpu_ns - begin.broker.cpu_ns) / 1e7 / seconds, 1),
        },
        "endings": endings,
        "memory": {
            "broker_rss_before_bytes": before.resident_bytes,
            "broker_rss_peak_bytes": peak.max(during.resident_bytes),
            "broker_rss_after_bytes": after.resident_bytes,
            "kernel_tcp_before_bytes": before.kernel.tcp_bytes,
            "kernel_tcp_during_bytes": during.kernel.tcp_bytes,
            "kernel_tcp_after_bytes": after.kernel.tcp_bytes,
        },
    }))
}

impl<'a> Attackers<'a> {
    fn new(load: &'a Load, args: &'a HostileArgs) -> io::Result<Attackers<'a>> {
        Ok(Attackers {
            load,
            args,
            epoll: Epoll::new()?,
            places: (0..args.hostile_at_once).map(|_| None).collect(),
            free: (0..args.hostile_at_once).rev().collect(),
            deadlines: [VecDeque::new(), VecDeque::new()],
            opened: 0,
            open_count: 0,
            // The same attack in every run.
            random: 0x9E37_79B9_7F4A_7C15,
            endings: BTreeMap::new(),
        })
    }

    /// Opens all connections, a bounded number at once; ends them all within `limit`. Returns the broker's highest
    /// memory that was seen.
    fn attack(&mut self, limit: Duration, pids: &[i32], quiet: bool) -> io::Result<u64> {
        let mut events = Events::new(1024);
        let begin = monotonic_ns();
        let (mut said_ns, mut peak) = (begin, 0);
        loop {
            let now = monotonic_ns();
            let is_over = u128::from(now - begin) >= limit.as_nanos();
            if is_over || (self.opened >= self.args.hostile_count && self.open_count == 0) {
                break;
            }
            // A few at a time, so that deadlines and answers get their turn.
            for _ in 0..64 {
                if self.opened >= self.args.hostile_count || !self.open(now) {
                    break;
                }
            }
            self.expire(now);
            self.epoll.wait(&mut events, Duration::from_millis(2))?;
            for index in 0..events.len() {
                self.handle(events.get(index));
            }
            if now - said_ns >= 1_000_000_000 {
                said_ns = now;
                // Whether the broker still lives is told by the snapshot after the attack.
                peak = peak.max(process::resident_bytes(pids).unwrap_or(0));
                if !quiet {
                    eprintln!("hostile: {} opened, {} open", self.opened, self.open_count);
                }
            }
        }
        for place in 0..self.places.len() {
            self.end(place, "cut off by the time limit");
        }
        Ok(peak)
    }

    /// Opens the next connection; `false`: no place is free.
    fn open(&mut self, now: u64) -> bool {
        let Some(place) = self.free.pop() else { return false };
        let number = self.opened;
        self.opened += 1;
        let turn =
            |count: usize| usize::try_from(number % u64::try_from(count).unwrap_or(1)).unwrap_or(0);
        let kind = self.args.hostile_kinds[turn(self.args.hostile_kinds.len())];
        let source = match self.load.sources.len() {
            0 => None,
            // All kinds use all addresses.
            count => Some(self.load.sources[turn(self.args.hostile_kinds.len() * count) % count]),
        };
        let buffer = (kind == HostileKind::Slow).then_some(SLOW_RECEIVE_LEN);
        let opened = sys::connect(source, self.load.target, buffer).and_then(|stream| {
            sys::reset_on_close(&stream)?;
            self.epoll.add(&stream, u64::try_from(place).unwrap_or(u64::MAX))?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => {
                let outgoing = self.outgoing(kind, number);
                self.places[place] =
                    Some(Attack { stream, kind, round: number, outgoing, sent: 0 });
                self.open_count += 1;
                let (lane, hold_ns) = match kind {
                    HostileKind::Garbage | HostileKind::Flood => (0, GARBAGE_HOLD_NS),
                    HostileKind::Half | HostileKind::Slow => {
                        (1, self.args.hostile_hold_ms.saturating_mul(1_000_000))
                    }
                };
                self.deadlines[lane].push_back((now.saturating_add(hold_ns), place, number));
            }
            Err(error) => {
                self.free.push(place);
                *self
                    .endings
                    .entry((kind, format!("not opened: {}", error.kind())))
                    .or_default() += 1;
            }
        }
        true
    }

    fn outgoing(&mut self, kind: HostileKind, number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        match kind {
            HostileKind::Garbage => {
                let len = 1 + self.next_random() % GARBAGE_LEN_MAX;
                bytes.extend((0..len).map(|_| self.next_random().to_le_bytes()[7]));
            }
            HostileKind::Half => {
                wire::connect(&mut bytes, Version::V3_1_1, &format!("half-{number:015}"), 60);
                let half = usize::try_from(self.next_random()).unwrap_or(0) % bytes.len();
                bytes.truncate(half.max(1));
            }
            HostileKind::Flood => {}
            HostileKind::Slow => {
                let topic = format!("slow/{number:019}");
                wire::connect(&mut bytes, Version::V3_1_1, &format!("slow-{number:015}"), 60);
                wire::subscribe(&mut bytes, Version::V3_1_1, 1, &topic, 0);
                let template = Template::new(Version::V3_1_1, &topic, 0, SLOW_PAYLOAD_LEN);
                let stamp = Stamp { publisher: u32::MAX, sequence: 0, intended_ns: 0 };
                while bytes.len() < self.args.hostile_slow_bytes {
                    template.append(&mut bytes, 0, &stamp);
                }
            }
        }
        bytes
    }

    /// xorshift64*.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn handle(&mut self, event: Event) {
        let place = usize::try_from(event.token).unwrap_or(usize::MAX);
        let Some(attack) = self.places.get_mut(place).and_then(Option::as_mut) else { return };
        if event.writable && !event.broken {
            if attack.kind == HostileKind::Flood {
                return self.end(place, "reset by us");
            }
            while attack.sent < attack.outgoing.len() {
                match attack.stream.write(&attack.outgoing[attack.sent..]) {
                    Ok(len) => attack.sent += len,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return self.end(place, "closed by the broker"),
                }
            }
        }
        if event.broken {
            return self.end(place, "closed by the broker");
        }
        if event.readable && attack.kind != HostileKind::Slow {
            let mut buffer = [0; 256];
            loop {
                match attack.stream.read(&mut buffer) {
                    Ok(0) => return self.end(place, "closed by the broker"),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Err(_) => return self.end(place, "closed by the broker"),
                }
            }
        }
    }

    fn expire(&mut self, now: u64) {
        for lane in 0..self.deadlines.len() {
            while let Some(&(deadline, place, round)) = self.deadlines[lane].front() {
                if deadline > now {
                    break;
                }
                self.deadlines[lane].pop_front();
                if self.places[place].as_ref().is_some_and(|attack| attack.round == round) {
                    self.end(place, "held to the end");
                }
            }
        }
    }

    fn end(&mut self, place: usize, ending: &str) {
        if let Some(attack) = self.places[place].take() {
            *self.endings.entry((attack.kind, ending.to_owned())).or_default() += 1;
            self.open_count -= 1;
            self.free.push(place);
        }
    }
}
