//! Judges the facts of a machine. Pure: the same facts give the same findings.

use config::Settings;
use reactor::ListenerError;

use super::machine::{Machine, MemoryLimit};
use super::{Finding, State};

/// Resident memory of an idle client to plan with. 348 were measured (MQTT 3.1.1, one subscription, one shard: bench/RESULTS.md).
const USER_BYTES: u64 = 512;

/// Memory the kernel takes for an idle connection, measured over loopback, one end.
const KERNEL_BYTES: u64 = 4900;

/// Memory of a broker without clients: measured 22 MB and 4.2 MB a shard, and at most 64 MB of receive buffers.
const BROKER_BYTES: u64 = 96 << 20;
const SHARD_BYTES: u64 = 5 << 20;

/// Memory of a slot of a ring's descriptor table, at most.
const SLOT_BYTES: u64 = 16;

/// The most slots the kernel gives a ring's descriptor table.
const TABLE_SLOTS_MAX: u64 = 1 << 20;

/// Memory of a further ring: its queues and receive buffers.
const RING_BYTES: u64 = 1 << 20;

/// Files of a broker: some of its own, and of each shard its rings, its executor's three, two eventfds, and a socket for
/// each listener.
const FILES: u64 = 64;
const SHARD_FILES: u64 = 6;

/// The most that `max_clients` of a listener may be set to.
const LISTENER_CLIENTS_MAX: u64 = 100_000_000;

/// What the kernel's tables of files are set to, at least.
const FILES_GENEROUS: u64 = 1 << 21;

/// Clocks that are read through a slow device or not often enough.
const CLOCKS_SLOW: [&str; 5] = ["hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"];

/// Drivers whose governor `powersave` still follows the load.
const DRIVERS_ADAPTIVE: [&str; 3] = ["intel_pstate", "amd-pstate", "amd-pstate-epp"];

/// What the broker is to do.
pub struct Plan {
    /// Clients it is to hold.
    pub connections: u64,
    /// Shards it will have.
    pub shards: usize,
    settings: Settings,
}

impl Plan {
    pub fn new(connections: u64, machine: &Machine, settings: Settings) -> Plan {
        let shards = node::shard_count(&settings, machine.cpus);
        Plan { connections, shards, settings }
    }

    fn shards_u64(&self) -> u64 {
        u64::try_from(self.shards).unwrap_or(u64::MAX)
    }

    fn per_shard(&self) -> u64 {
        self.connections.div_ceil(self.shards_u64())
    }

    /// Rings of each of so many shards, whose tables have as many slots as files may be open.
    fn rings(&self, shards: u64, open_files: u64) -> u64 {
        self.connections.div_ceil(shards).div_ceil(slots(open_files))
    }

    /// Rings each opens: a further one is there before an eighth of the slots is all that is left.
    fn rings_opened(&self, shards: u64, open_files: u64) -> u64 {
        let used = self.connections.div_ceil(shards).saturating_mul(8);
        used.div_ceil(slots(open_files) * 7).min(rings_max())
    }

    /// Files the broker itself opens.
    fn files(&self, shards: u64, open_files: u64) -> u64 {
        let listeners = u64::try_from(self.settings.listeners.len()).unwrap_or(u64::MAX);
        let rings = self.rings_opened(shards, open_files);
        FILES + shards * (SHARD_FILES + listeners + rings)
    }

    /// Whether so many shards hold all clients if so many files may be open.
    fn holds(&self, shards: u64, open_files: u64) -> bool {
        self.rings(shards, open_files) <= rings_max()
            && self.files(shards, open_files) <= open_files
    }

    /// The lowest limit of open files that does for so many shards.
    fn open_files_least(&self, shards: u64) -> u64 {
        let least = self.connections.div_ceil(shards).div_ceil(rings_max()).next_power_of_two();
        least.max(self.files(shards, least))
    }

    /// The fewest shards, no fewer than planned, that hold all clients if so many files may be open.
    fn shards_least(&self, open_files: u64) -> Option<u64> {
        (self.shards_u64()..=SHARDS_MAX).find(|shards| self.holds(*shards, open_files))
    }

    fn tune(&self) -> String {
        format!("tuning/tune apply --connections {}", self.connections)
    }

    /// A command, and the script that does the same.
    fn or_tune(&self, command: &str) -> String {
        format!("{command} (or {})", self.tune())
    }

    fn sysctl(&self, key: &str, value: u64) -> String {
        self.or_tune(&format!("sysctl -w {key}={value}"))
    }
}

/// The most rings a shard opens, one after the other as their tables fill up.
fn rings_max() -> u64 {
    u64::from(reactor::ReactorSettings::default().rings_max)
}

/// Slots of the table of each of several rings.
fn slots(open_files: u64) -> u64 {
    open_files.clamp(1, TABLE_SLOTS_MAX)
}

/// Judges a machine: a finding for each check, in the order of its layers.
pub fn diagnose(machine: &Machine, plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(running(machine, plan));
    findings.push(io_uring(machine));
    findings.push(open_files(machine, plan));
    findings.extend(nr_open(machine, plan));
    findings.push(file_max(machine, plan));
    findings.extend(descriptors(plan));
    findings.push(memory(machine, plan));
    findings.extend(group_memory(machine, plan));
    findings.extend(locked_memory(machine, plan));
    findings.extend(tcp_mem(machine, plan));
    findings.extend(conntrack(machine, plan));
    findings.extend(somaxconn(machine, plan));
    findings.extend(syn_backlog(machine, plan));
    findings.extend(orphans(machine, plan));
    findings.extend(local_ports(machine, plan));
    findings.push(clients_max(plan));
    findings.extend(listeners(machine, plan));
    findings.extend(machine.tls_errors.iter().map(tls));
    findings.push(acl(machine));
    findings.push(cpus(machine, plan));
    findings.extend(cpu_quota(machine, plan));
    findings.extend(governor(machine));
    findings.extend(huge_pages(machine, plan));
    findings.extend(clock(machine));
    findings
}

/// A finding without anything to do.
fn note(check: &str, state: State, found: String) -> Finding {
    Finding { check: check.to_owned(), state, found, needed: None, remedy: None }
}

/// A finding with what is needed, and the remedy unless all is well.
fn judged(
    check: &str,
    state: State,
    found: String,
    needed: String,
    remedy: impl FnOnce() -> String,
) -> Finding {
    let remedy = (state != State::Ok).then(remedy);
    Finding { check: check.to_owned(), state, found, needed: Some(needed), remedy }
}

fn ok_unless(wrong: bool, state: State) -> State {
    if wrong { state } else { State::Ok }
}

/// Connections that are still to come.
fn to_come(machine: &Machine, plan: &Plan) -> u64 {
    plan.connections.saturating_sub(machine.running.as_ref().map_or(0, |r| r.connections))
}

fn size(bytes: u64) -> String {
    let tenths = |unit: u64| {
        let tenths = (u128::from(bytes) * 10).div_ceil(u128::from(unit));
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match bytes {
        0..=0xF_FFFF => format!("{} KB", bytes.div_ceil(1 << 10)),
        0x10_0000..=0x3FFF_FFFF => format!("{} MB", bytes.div_ceil(1 << 20)),
        _ => format!("{} GB", tenths(1 << 30)),
    }
}

fn running(machine: &Machine, plan: &Plan) -> Option<Finding> {
    let running = machine.running.as_ref()?;
    let text = format!(
        "RingMQ runs on this data folder (process {}) with {} connections; its limits are judged, and what {} more clients need",
        running.pid,
        running.connections,
        to_come(machine, plan)
    );
    Some(note("broker", State::Ok, text))
}

fn io_uring(machine: &Machine) -> Finding {
    match &machine.io_uring {
        Err(error) => {
            // "what is wrong; what to do"
            let text = error.to_string();
            let (found, remedy) = text
                .split_once("; ")
                .map_or((&*text, None), |(found, remedy)| (found, Some(remedy.to_owned())));
            Finding { remedy, ..note("io_uring", State::Stop, found.to_owned()) }
        }
        Ok(report) if report.features.socket_options => {
            let text = format!("kernel {} has all of io_uring that RingMQ uses", report.kernel);
            note("io_uring", State::Ok, text)
        }
        Ok(report) => judged(
            "io_uring",
            State::Warn,
            format!("kernel {} cannot read socket options by io_uring", report.kernel),
            "without it one accept request serves only one connection".to_owned(),
            || "update to Linux 6.7 or newer".to_owned(),
        ),
    }
}

fn open_files(machine: &Machine, plan: &Plan) -> Finding {
    let check = "open files";
    let Some((soft, hard)) = machine.open_files else {
        return note(check, State::Warn, "the limit of open files cannot be read".to_owned());
    };
    let rings = plan.rings(plan.shards_u64(), hard);
    let files = plan.files(plan.shards_u64(), hard);
    let found = match (soft, hard) {
        (_, u64::MAX) => "open files are not limited".to_owned(),
        (soft, hard) if soft < hard => {
            format!("the limit of open files is {hard} (now {soft}; the broker raises it itself)")
        }
        _ => format!("the limit of open files is {hard}"),
    };
    let needed = format!(
        "{} clients on {} take {rings} of at most {} descriptor tables of {} entries a shard, and {files} files",
        plan.connections,
        shards(plan.shards_u64()),
        rings_max(),
        slots(hard),
    );
    let wrong = !plan.holds(plan.shards_u64(), hard);
    judged(check, ok_unless(wrong, State::Stop), found, needed, || {
        let least = plan.open_files_least(plan.shards_u64());
        if least <= TABLE_SLOTS_MAX {
            let generous = least.next_power_of_two().max(1 << 16);
            // What is more than fs.nr_open is refused.
            let limit = generous.min(machine.nr_open.unwrap_or(generous)).max(least);
            let raise = format!(
                "ulimit -n {limit} as root in the shell that starts the broker, LimitNOFILE={limit} in its systemd unit"
            );
            let other = plan.shards_least(hard).map(|shards| format!(", or --shards {shards}"));
            return plan.or_tune(&(raise + &other.unwrap_or_default()));
        }
        plan.shards_least(TABLE_SLOTS_MAX).map_or_else(
            || "one node cannot hold so many: use several".to_owned(),
            |shards| format!("--shards {shards} and a limit of {TABLE_SLOTS_MAX} open files"),
        )
    })
}

/// The most shards of a node.
const SHARDS_MAX: u64 = node::SHARDS_MAX as u64;

fn shards(count: u64) -> String {
    if count == 1 { "1 shard".to_owned() } else { format!("{count} shards") }
}

/// Only the way to a higher limit of open files.
fn nr_open(machine: &Machine, plan: &Plan) -> Option<Finding> {
    let nr_open = machine.nr_open?;
    let least = plan.open_files_least(plan.shards_u64()).min(TABLE_SLOTS_MAX);
    let found = format!("fs.nr_open is {nr_open}");
    let needed = format!("the limit of open files must be {least} or more and cannot exceed it");
    Some(judged("fs.nr_open", ok_unless(nr_open < least, State::Stop), found, needed, || {
        plan.sysctl("fs.nr_open", FILES_GENEROUS)
    }))
}

fn file_max(machine: &Machine, plan: &Plan) -> Finding {
    let check = "fs.file-max";
    let Some(file_max) = machine.file_max else {
        return note(check, State::Warn, "fs.file-max cannot be read".to_owned());
    };
    let more = to_come(machine, plan);
    let least = machine.files_open + more + (more / 100).max(1000);
    let found = format!("fs.file-max is {file_max}");
    let needed = format!(
        "{} clients need at least {least} ({} are in use)",
        plan.connections, machine.files_open
    );
    let state = match file_max < least {
        false => State::Ok,
        // Root goes on beyond it, but nobody else on the machine.
        true if machine.beyond_file_max => State::Warn,
        true => State::Stop,
    };
    judged(check, state, found, needed, || {
        plan.sysctl("fs.file-max", least.next_power_of_two().max(FILES_GENEROUS))
    })
}

fn descriptors(plan: &Plan) -> Option<Finding> {
    let most = u64::from(plan.settings.reactor.descriptors);
    if most == 0 {
        return None;
    }
    let least = plan.per_shard();
    let found = format!("reactor.descriptors is {most}");
    let needed = format!("a shard has {least} of {} clients", plan.connections);
    let state = ok_unless(most < least, State::Stop);
    Some(judged("reactor.descriptors", state, found, needed, || {
        format!(
            "--set reactor.descriptors=0, or --shards {}",
            plan.connections.div_ceil(most).min(SHARDS_MAX)
        )
    }))
}

/// Memory that is still to be taken: in user space, in the kernel, by the broker itself.
struct Need {
    user: u64,
    kernel: u64,
    broker: u64,
}

impl Need {
    fn new(machine: &Machine, plan: &Plan) -> Need {
        let more = to_come(machine, plan);
        let files = machine.open_files.map_or(TABLE_SLOTS_MAX, |(_, hard)| hard);
        let rings = plan.rings_opened(plan.shards_u64(), files);
        let ring = RING_BYTES + slots(files) * SLOT_BYTES;
        let broker = BROKER_BYTES + plan.shards_u64() * (SHARD_BYTES + rings * ring);
        Need {
            user: more * USER_BYTES,
            kernel: more * KERNEL_BYTES,
            // A running one has it already.
            broker: if machine.running.is_some() { 0 } else { broker },
        }
    }

    fn total(&self) -> u64 {
        self.user + self.kernel + self.broker
    }

    fn state(&self, room: u64) -> State {
        match self.total() {
            total if total > room => State::Stop,
            // What is sent and received takes memory beside.
            total if total > room / 10 * 8 => State::Warn,
            _ => State::Ok,
        }
    }

    fn text(&self, connections: u64) -> String {
        format!(
            "{connections} idle clients need {}: {} in user space ({USER_BYTES} bytes each), {} in the kernel ({KERNEL_BYTES} each), {} for the broker",
            size(self.total()),
            size(self.user),
            size(self.kernel),
            size(self.broker)
        )
    }

    /// Clients that fit, with a fifth to spare.
    fn fitting(&self, room: u64) -> u64 {
        (room / 10 * 8).saturating_sub(self.broker) / (USER_BYTES + KERNEL_BYTES)
    }
}

fn memory(machine: &Machine, plan: &Plan) -> Finding {
    let Some(room) = machine.memory_available else {
        return note("memory", State::Warn, "the memory available cannot be read".to_owned());
    };
    let need = Need::new(machine, plan);
    let found = format!("{} of memory are available", size(room));
    judged("memory", need.state(room), found, need.text(to_come(machine, plan)), || {
        format!("add memory, or plan for {} clients", need.fitting(room))
    })
}

/// The control group with the least room.
fn group_memory(machine: &Machine, plan: &Plan) -> Option<Finding> {
    let room_of = |limit: &MemoryLimit| limit.bytes_max.saturating_sub(limit.bytes_used);
    let limit = machine.memory_limits.iter().min_by_key(|limit| room_of(limit))?;
    let room = room_of(limit);
    let need = Need::new(machine, plan);
    let file = limit.file.display();
    let found = format!(
        "the control group allows {}, {} are left ({file})",
        size(limit.bytes_max),
        size(room)
    );
    let text = need.text(to_come(machine, plan));
    Some(judged("control group's memory", need.state(room), found, text, || {
        let least = limit.bytes_used + need.total() / 8 * 10;
        format!(
            "MemoryMax={least} in the systemd unit, --memory={least} of the container, or plan for {} clients",
            need.fitting(room)
        )
    }))
}

fn locked_memory(machine: &Machine, plan: &Plan) -> Option<Finding> {
    let most = machine.locked_bytes_max.filter(|_| !machine.locks_freely)?;
    let files = machine.open_files.map_or(TABLE_SLOTS_MAX, |(_, hard)| hard);
    let rings = plan.rings_opened(plan.shards_u64(), files);
    let rings = plan.shards * usize::try_from(rings).unwrap_or(usize::MAX);
    let (wanted, least) = node::locked_bytes(&plan.settings, plan.shards, rings, most);
    let state = match most {
        most if most < least => State::Stop,
        most if most < wanted => State::Warn,
        _ => State::Ok,
    };
    let found = format!("{} may be locked (ulimit -l)", size(most));
    let mut needed = format!("{rings} rings take {}", size(wanted));
    match state {
        State::Ok => {}
        State::Warn => needed.push_str("; they will be smaller, and slower under load"),
        State::Stop => needed.push_str(&format!(", {} at the least", size(least))),
    }
    Some(judged("locked memory", state, found, needed, || {
        let kilobytes = wanted.div_ceil(1 << 20) << 10;
        format!(
            "ulimit -l {kilobytes} as root in the shell that starts the broker, LimitMEMLOCK={kilobytes}K in its systemd unit"
        )
    }))
}

fn tcp_mem(machine: &Machine, plan: &Plan) -> Option<Finding> {
    let most = machine.tcp_mem_pages_max?;
    let least = plan.connections;
    let bytes = most.saturating_mul(machine.page_bytes);
    let found = format!("net.ipv4.tcp_mem allows {most} pages ({}) for all TCP data", size(bytes));
    let needed = format!(
        "{least} clients take a page each while data waits for them, none while they are idle"
    );
    let state = ok_unless(most < least, State::Warn);
    Some(judged("net.ipv4.tcp_mem", state, found, needed, || {
        let values = format!("'{least} {} {}'", least / 4 * 5, least / 2 * 3);
        plan.or_tune(&format!("sysctl -w net.ipv4.tcp_mem={values}"))
    }))
}

fn conntrack(machine: &Machine, plan: &Plan) -> Option<Finding> {
    let check = "nf_conntrack_max";
    let tracked = machine.conntrack?;
    let more = to_come(machine, plan);
    let least = tracked.count + more + more / 10;
    let found = format!("nf_conntrack_max is {} ({} are tracked)", tracked.max, tracked.count);
    let short = tracked.max < least;
    // The module may be there without a rule that uses it.
    let idle = tracked.count == 0;
    let mut needed = format!("{} clients need at least {least}", plan.connections);
    if short && idle {
        needed.push_str(" once a firewall rule tracks connections");
    }
    let state = ok_unless(short, if idle { State::Warn } else { State::Stop });
    Some(judged(check, state, found, needed, || {
        plan.sysctl("net.netfilter.nf_conntrack_max", least.next_power_of_two())
    }))
}

/// The longest backlog of the settings.
fn backlog(plan: &Plan) -> Option<u64> {
    plan.settings.listeners.iter().map(|listener| u64::from(listener.options.backlog)).max()
}

fn somaxconn(machine: &Machine, plan: &Plan) -> Option<Finding> {
    let (most, backlog) = (machine.somaxconn?, backlog(plan)?);
    let found = format!("net.core.somaxconn is {most}");
    let needed = format!("it cuts the listeners' backlog of {backlog} a shard if it is lower");
    let state = ok_unless(most < backlog, State::Warn);
    Some(judged("net.core.somaxconn", state, found, needed, || {
        plan.sysctl("net.core.somaxconn", backlog.next_power_of_two().max(4096))
    }))
}

fn syn_backlog(machine: &Machine, plan: &Plan) -> Option<Finding> {
    let (most, backlog) = (machine.syn_backlog?, backlog(plan)?);
    let cookies = machine.syncookies.is_some_and(|value| value != 0);
    let found = format!("net.ipv4.tcp_max_syn_backlog is {most}");
    let needed = if cookies {
        "it does not count while net.ipv4.tcp_syncookies is on".to_owned()
    } else {
        format!("without net.ipv4.tcp_syncookies it cuts the listeners' backlog of {backlog}")
    };
    let state = ok_unless(!cookies && most < backlog, State::Warn);
    Some(judged("net.ipv4.tcp_max_syn_backlog", state, found, needed, || {
        plan.sysctl("net.ipv4.tcp_max_syn_backlog", backlog.next_power_of_two().max(16_384))
    }))
}

/// As many as `tuning/tune` allows: not all clients that are closed at once have something unsent.
fn orphans(machine: &Machine, plan: &Plan) -> Option<Finding> {
    let most = machine.orphans_max?;
    let least = plan.connections.div_ceil(4);
    let found = format!("net.ipv4.tcp_max_orphans is {most}");
    let needed = format!(
        "a quarter of {} clients may be closed at once with something unsent: {least}; what is more is reset",
        plan.connections
    );
    Some(judged(
        "net.ipv4.tcp_max_orphans",
        ok_unless(most < least, State::Warn),
        found,
        needed,
        || plan.sysctl("net.ipv4.tcp_max_orphans", least.next_power_of_two().max(65_536)),
    ))
}

/// No obstacle for the broker: a hint for who runs the clients on the same machine.
fn local_ports(machine: &Machine, plan: &Plan) -> Option<Finding> {
    let (low, high) = machine.local_ports.filter(|(low, high)| low <= high)?;
    let each = high - low + 1;
    let text = format!(
        "net.ipv4.ip_local_port_range is {low} to {high}; matters only for clients on this machine: a source address has {each} ports \
         towards one listener, so {} clients need {} source addresses",
        plan.connections,
        plan.connections.div_ceil(each)
    );
    Some(note("net.ipv4.ip_local_port_range", State::Ok, text))
}

/// Whether the listeners let so many clients in.
fn clients_max(plan: &Plan) -> Finding {
    let check = "max_clients";
    let listeners = &plan.settings.listeners;
    let most = |listener: &config::ListenerSettings| u64::from(listener.options.max_clients);
    // Of equal ones the first that others can reach.
    let order = |l: &&config::ListenerSettings| (most(l), !l.address.ip().is_loopback());
    let Some(largest) = listeners.iter().rev().max_by_key(order) else {
        return judged(
            check,
            State::Stop,
            "no listener is set".to_owned(),
            "no client can connect".to_owned(),
            || "--set listener.tcp.external=1883".to_owned(),
        );
    };
    let sum: u64 = listeners.iter().map(most).sum();
    let found =
        format!("the listeners take {sum} clients, {} of them {}", largest.name, most(largest));
    let state = match plan.connections {
        wanted if wanted > sum => State::Stop,
        wanted if wanted > most(largest) => State::Warn,
        _ => State::Ok,
    };
    judged(check, state, found, format!("{} are to connect", plan.connections), || {
        let raise = |most| format!("--set {}.max_clients={most}", largest.key());
        match plan.connections {
            wanted @ ..=LISTENER_CLIENTS_MAX => raise(wanted),
            _ => format!("{}, and further listeners", raise(LISTENER_CLIENTS_MAX)),
        }
    })
}

fn listeners(machine: &Machine, plan: &Plan) -> Vec<Finding> {
    let listeners = plan.settings.listeners.iter().zip(&machine.listener_errors);
    let finding = |(listener, error): (&config::ListenerSettings, &Option<ListenerError>)| {
        let check = format!("listener {}", listener.name);
        let address = listener.address.to_string();
        let own = machine.running.as_ref().filter(|r| r.addresses.contains(&address));
        let Some(error) = error else {
            let text = own.map_or_else(
                || format!("{check}: {address} is free"),
                |own| {
                    format!(
                        "{check}: {address} is that of the running broker (process {})",
                        own.pid
                    )
                },
            );
            return note(&check, State::Ok, text);
        };
        let text = error.to_string();
        let (found, remedy) = text
            .split_once("; ")
            .map_or((&*text, None), |(found, remedy)| (found, Some(remedy.to_owned())));
        Finding { remedy, ..note(&check, State::Stop, found.to_owned()) }
    };
    listeners.map(finding).collect()
}

/// Whether the files of a listener with TLS are right.
fn tls((name, error): &(String, Option<String>)) -> Finding {
    let check = format!("tls {name}");
    let Some(error) = error else {
        return note(
            &check,
            State::Ok,
            format!("listener {name}: its certificates and keys are right"),
        );
    };
    let (found, remedy) = error
        .split_once("; ")
        .map_or((&**error, None), |(found, remedy)| (found, Some(remedy.to_owned())));
    Finding { remedy, ..note(&check, State::Stop, found.to_owned()) }
}

fn acl(machine: &Machine) -> Finding {
    let check = "access rules";
    match &machine.acl_error {
        None => note(check, State::Ok, "the access rules are right".to_owned()),
        Some(error) => note(check, State::Stop, error.clone()),
    }
}

fn cpus(machine: &Machine, plan: &Plan) -> Finding {
    let s = if machine.cpus == 1 { "" } else { "s" };
    let mut text = format!("{} on {} CPU{s}", shards(plan.shards_u64()), machine.cpus);
    if plan.shards > machine.cpus {
        text.push_str("; those on one CPU take turns");
    }
    note("CPUs", State::Ok, text)
}

fn cpu_quota(machine: &Machine, plan: &Plan) -> Option<Finding> {
    let quota = machine.cpu_quota.as_ref()?;
    let busy = plan.shards.min(machine.cpus);
    let wanted = u64::try_from(busy).unwrap_or(u64::MAX).saturating_mul(1000);
    let found = format!(
        "the control group may use {}.{:02} CPUs ({})",
        quota.millis / 1000,
        quota.millis % 1000 / 10,
        quota.file.display()
    );
    let needed = format!(
        "{} can keep {busy} busy; what is more is stopped for some milliseconds at a time",
        shards(plan.shards_u64())
    );
    let state = ok_unless(quota.millis < wanted, State::Warn);
    Some(judged("CPU quota", state, found, needed, || {
        format!(
            "CPUQuota={}% in the systemd unit, --cpus={busy} of the container, or --shards {}",
            wanted / 10,
            (quota.millis / 1000).max(1)
        )
    }))
}

fn governor(machine: &Machine) -> Option<Finding> {
    let (governor, driver) = machine.governor.as_ref()?;
    let slow = governor == "powersave" && !DRIVERS_ADAPTIVE.contains(&driver.as_str());
    let found = format!("the frequency governor of the CPUs is {governor} (driver {driver})");
    let needed = "powersave keeps this driver's CPUs at their lowest frequency".to_owned();
    slow.then(|| {
        judged("frequency governor", State::Warn, found, needed, || {
            "cpupower frequency-set -g performance".to_owned()
        })
    })
}

fn huge_pages(machine: &Machine, plan: &Plan) -> Option<Finding> {
    let mode = machine.huge_pages.as_deref()?;
    (plan.settings.node.huge_pages && mode == "never").then(|| {
        judged(
            "huge pages",
            State::Warn,
            "transparent huge pages are switched off".to_owned(),
            "node.huge_pages=on has no effect without them".to_owned(),
            || "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled".to_owned(),
        )
    })
}

fn clock(machine: &Machine) -> Option<Finding> {
    let (current, available) = machine.clock.as_ref()?;
    let slow = CLOCKS_SLOW.contains(&current.as_str());
    if !slow {
        return Some(note("clock", State::Ok, format!("the clock source is {current}")));
    }
    let found = format!("the clock source is {current}");
    let needed = "every look at the time is a slow call".to_owned();
    Some(judged("clock", State::Warn, found, needed, || {
        let faster = available.split_whitespace().find(|name| !CLOCKS_SLOW.contains(name));
        faster.map_or_else(
            || {
                "the kernel found no faster one: dmesg | grep -i -e tsc -e clocksource tells why"
                    .to_owned()
            },
            |name| {
                format!(
                    "echo {name} > /sys/devices/system/clocksource/clocksource0/current_clocksource"
                )
            },
        )
    }))
}

#[cfg(test)]
mod tests;
