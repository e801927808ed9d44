//! Every finding on made-up machines, both ways.

use std::path::PathBuf;

use config::ListenerSettings;
use reactor::{Features, ProbeError, ProbeReport};

use super::*;
use crate::doctor::machine::{Conntrack, CpuQuota, Running};

/// A machine that has enough of everything for a million clients.
fn machine() -> Machine {
    Machine {
        io_uring: Ok(ProbeReport {
            kernel: "6.18".to_owned(),
            features: Features { socket_options: true, ..Features::default() },
            open_files: 1 << 20,
            locked_memory_bytes: None,
            shards: 2,
        }),
        beyond_file_max: false,
        locks_freely: false,
        open_files: Some((1024, 1 << 20)),
        locked_bytes_max: None,
        file_max: Some(1 << 22),
        files_open: 500,
        nr_open: Some(1 << 20),
        memory_available: Some(24 << 30),
        memory_limits: Vec::new(),
        page_bytes: 4096,
        tcp_mem_pages_max: Some(2_000_000),
        somaxconn: Some(4096),
        syn_backlog: Some(16_384),
        syncookies: Some(1),
        local_ports: Some((1024, 65_535)),
        conntrack: None,
        orphans_max: Some(1 << 20),
        cpus: 2,
        cpu_quota: None,
        governor: None,
        huge_pages: Some("madvise".to_owned()),
        clock: Some(("tsc".to_owned(), "tsc hpet".to_owned())),
        running: None,
        acl_error: None,
        tls_errors: Vec::new(),
        listener_errors: vec![None, None],
    }
}

fn plan(connections: u64) -> Plan {
    Plan { connections, shards: 2, settings: Settings::default() }
}

fn check<'a>(findings: &'a [Finding], name: &str) -> &'a Finding {
    let found: Vec<_> = findings.iter().filter(|finding| finding.check == name).collect();
    assert_eq!(found.len(), 1, "{name}: {findings:?}");
    found[0]
}

/// The line of a check, for a million clients.
#[track_caller]
fn line(machine: &Machine, name: &str) -> String {
    check(&diagnose(machine, &plan(1_000_000)), name).line()
}

#[track_caller]
fn assert_starts(line: &str, start: &str) {
    assert!(line.starts_with(start), "{line}");
}

#[test]
fn a_machine_with_enough_of_everything_is_all_right() {
    let findings = diagnose(&machine(), &plan(1_000_000));
    for finding in &findings {
        assert_eq!(finding.state, State::Ok, "{}", finding.line());
        assert_eq!(finding.remedy, None);
        assert!(!finding.line().contains('\n'));
    }
    assert!(findings.len() >= 15);
}

#[test]
fn what_is_wrong_always_has_a_remedy() {
    let bare = Machine {
        open_files: Some((1024, 1024)),
        nr_open: Some(1024),
        file_max: Some(65_536),
        memory_available: Some(1 << 30),
        tcp_mem_pages_max: Some(1),
        somaxconn: Some(128),
        syncookies: Some(0),
        syn_backlog: Some(128),
        orphans_max: Some(4096),
        locked_bytes_max: Some(64 << 10),
        conntrack: Some(Conntrack { count: 10, max: 65_536 }),
        ..machine()
    };
    let findings = diagnose(&bare, &plan(10_000_000));
    let wrong: Vec<_> = findings.iter().filter(|f| f.state != State::Ok).collect();
    assert!(wrong.len() >= 11, "{wrong:?}");
    assert!(wrong.iter().all(|finding| finding.remedy.is_some()), "{wrong:?}");
}

#[test]
fn io_uring_says_why_it_cannot_be_used() {
    let mut machine = machine();
    machine.io_uring = Err(ProbeError::DisabledForAll);
    assert_eq!(
        line(&machine, "io_uring"),
        "stop  io_uring is switched off for all processes (kernel.io_uring_disabled = 2): allow it with: sysctl kernel.io_uring_disabled=0"
    );
    machine.io_uring = Err(ProbeError::Forbidden);
    assert!(line(&machine, "io_uring").contains("seccomp"));
    machine.io_uring = Err(ProbeError::KernelTooOld("5.10".to_owned()));
    assert_starts(&line(&machine, "io_uring"), "stop  kernel 5.10 is too old");
    let mut report = self::machine().io_uring.unwrap();
    report.features.socket_options = false;
    machine.io_uring = Ok(report);
    assert_starts(&line(&machine, "io_uring"), "warn  kernel 6.18 cannot read socket options");
}

#[test]
fn descriptor_tables_and_files_fit_the_limit() {
    let mut machine = machine();
    let with = |machine: &mut Machine, limit: u64| {
        machine.open_files = Some((limit, limit));
        line(machine, "open files")
    };
    // 500,000 a shard: 256 tables of 1,954 slots.
    assert_starts(&with(&mut machine, 1954), "ok    the limit of open files is 1954; ");
    let text = with(&mut machine, 1953);
    assert_starts(
        &text,
        "stop  the limit of open files is 1953; 1000000 clients on 2 shards take 257 of at most 256 descriptor tables of 1953 entries a shard",
    );
    assert!(text.contains("ulimit -n 65536 as root"), "{text}");
    assert!(text.contains("LimitNOFILE=65536"), "{text}");
    assert!(
        text.contains(", or --shards 3 (or tuning/tune apply --connections 1000000)"),
        "{text}"
    );
    // So few that no number of shards helps: each has files of its own.
    assert!(!with(&mut machine, 256).contains("--shards"));
    machine.open_files = Some((1024, 4096));
    let few = check(&diagnose(&machine, &plan(1000)), "open files").line();
    assert_starts(
        &few,
        "ok    the limit of open files is 4096 (now 1024; the broker raises it itself)",
    );
    machine.open_files = Some((u64::MAX, u64::MAX));
    assert_starts(&line(&machine, "open files"), "ok    open files are not limited");
    machine.open_files = None;
    assert_starts(&line(&machine, "open files"), "warn  ");
}

#[test]
fn a_node_has_a_bound() {
    let of = |count| check(&diagnose(&machine(), &plan(count)), "open files").line();
    assert!(of(1_000_000_000).ends_with("--shards 4 and a limit of 1048576 open files"));
    assert!(of(10_000_000_000).contains("--shards 38 "));
    let huge = Plan { connections: 10_000_000_000, ..plan(1) };
    assert_eq!(huge.shards_least(1 << 10), None);
}

#[test]
fn nr_open_lets_the_limit_be_raised() {
    let mut machine = machine();
    machine.nr_open = Some(2047);
    assert_eq!(
        line(&machine, "fs.nr_open"),
        "stop  fs.nr_open is 2047; the limit of open files must be 2048 or more and cannot exceed it: \
         sysctl -w fs.nr_open=2097152 (or tuning/tune apply --connections 1000000)"
    );
    machine.nr_open = Some(2048);
    assert_starts(&line(&machine, "fs.nr_open"), "ok  ");
}

#[test]
fn file_max_counts_every_socket() {
    let mut machine = machine();
    machine.file_max = Some(65_536);
    assert_eq!(
        line(&machine, "fs.file-max"),
        "stop  fs.file-max is 65536; 1000000 clients need at least 1010500 (500 are in use): \
         sysctl -w fs.file-max=2097152 (or tuning/tune apply --connections 1000000)"
    );
    machine.beyond_file_max = true;
    assert_starts(&line(&machine, "fs.file-max"), "warn  ");
    machine.file_max = Some(1_010_500);
    assert_starts(&line(&machine, "fs.file-max"), "ok  ");
    machine.file_max = None;
    assert_starts(&line(&machine, "fs.file-max"), "warn  fs.file-max cannot be read");
}

#[test]
fn a_shard_holds_no_more_than_its_setting() {
    let with = |descriptors| {
        let mut plan = plan(1_000_000);
        plan.settings.reactor.descriptors = descriptors;
        diagnose(&machine(), &plan)
    };
    assert!(with(0).iter().all(|finding| finding.check != "reactor.descriptors"));
    assert_eq!(check(&with(500_000), "reactor.descriptors").state, State::Ok);
    let few = with(100_000);
    let few = check(&few, "reactor.descriptors");
    assert_eq!(few.state, State::Stop);
    assert!(few.line().ends_with("--set reactor.descriptors=0, or --shards 10"));
}

#[test]
fn memory_is_that_of_user_space_kernel_and_broker() {
    let mut machine = machine();
    let with = |machine: &mut Machine, bytes: u64| {
        machine.memory_available = Some(bytes);
        line(machine, "memory")
    };
    assert_starts(
        &with(&mut machine, 24 << 30),
        "ok    24.0 GB of memory are available; 1000000 idle clients need 5.2 GB",
    );
    assert_starts(&with(&mut machine, 6 << 30), "warn  ");
    let text = with(&mut machine, 1 << 30);
    assert_starts(&text, "stop  1.0 GB of memory are available; ");
    assert!(text.contains(": add memory, or plan for 1"), "{text}");
    // What is left to spare is enough for that many.
    let count = text.rsplit(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(check(&diagnose(&machine, &plan(count)), "memory").state, State::Ok);
    machine.memory_available = None;
    assert_starts(&line(&machine, "memory"), "warn  ");
}

#[test]
fn the_tightest_control_group_counts() {
    let mut machine = machine();
    let limit = |file: &str, max: u64, used: u64| MemoryLimit {
        file: PathBuf::from(file),
        bytes_max: max << 30,
        bytes_used: used << 30,
    };
    machine.memory_limits = vec![limit("/a/b", 20, 1), limit("/a", 20, 2)];
    assert_starts(
        &line(&machine, "control group's memory"),
        "ok    the control group allows 20.0 GB, 18.0 GB are left (/a); ",
    );
    machine.memory_limits.push(limit("/", 20, 16));
    let text = line(&machine, "control group's memory");
    assert_starts(&text, "stop  the control group allows 20.0 GB, 4.0 GB are left (/); ");
    assert!(text.contains("MemoryMax="), "{text}");
}

#[test]
fn rings_of_a_normal_user_count_as_locked_memory() {
    let mut machine = machine();
    machine.locked_bytes_max = Some(8 << 20);
    assert_starts(&line(&machine, "locked memory"), "ok    8 MB may be locked");
    machine.locked_bytes_max = Some(1 << 20);
    let text = line(&machine, "locked memory");
    assert_starts(
        &text,
        "warn  1 MB may be locked (ulimit -l); 2 rings take 2 MB; they will be smaller",
    );
    assert!(text.contains("ulimit -l 2048") && text.contains("LimitMEMLOCK=2048K"), "{text}");
    // Further rings count too.
    machine.open_files = Some((20_000, 20_000));
    assert_starts(
        &line(&machine, "locked memory"),
        "stop  1 MB may be locked (ulimit -l); 58 rings take 13 MB, 4 MB at the least: ",
    );
    machine.locks_freely = true;
    let findings = diagnose(&machine, &plan(1_000_000));
    assert!(findings.iter().all(|finding| finding.check != "locked memory"));
}

#[test]
fn tcp_data_has_a_page_a_client() {
    let mut machine = machine();
    machine.tcp_mem_pages_max = Some(575_802);
    let text = line(&machine, "net.ipv4.tcp_mem");
    assert_starts(&text, "warn  net.ipv4.tcp_mem allows 575802 pages (2.2 GB)");
    assert!(text.contains("sysctl -w net.ipv4.tcp_mem='1000000 1250000 1500000' (or tuning/tune"));
    machine.tcp_mem_pages_max = Some(1_000_000);
    assert_starts(&line(&machine, "net.ipv4.tcp_mem"), "ok  ");
}

#[test]
fn conntrack_stops_only_where_it_tracks() {
    let mut machine = machine();
    let name = "nf_conntrack_max";
    machine.conntrack = Some(Conntrack { count: 7, max: 262_144 });
    assert_eq!(
        line(&machine, name),
        "stop  nf_conntrack_max is 262144 (7 are tracked); 1000000 clients need at least 1100007: \
         sysctl -w net.netfilter.nf_conntrack_max=2097152 (or tuning/tune apply --connections 1000000)"
    );
    machine.conntrack = Some(Conntrack { count: 0, max: 262_144 });
    assert_starts(&line(&machine, name), "warn  ");
    machine.conntrack = Some(Conntrack { count: 7, max: 1_100_007 });
    assert_starts(&line(&machine, name), "ok  ");
}

#[test]
fn backlogs_are_not_cut() {
    let mut machine = machine();
    machine.somaxconn = Some(128);
    let text = line(&machine, "net.core.somaxconn");
    assert_starts(&text, "warn  net.core.somaxconn is 128; ");
    assert!(text.contains("sysctl -w net.core.somaxconn=4096"), "{text}");
    machine.somaxconn = Some(1024);
    assert_starts(&line(&machine, "net.core.somaxconn"), "ok  ");

    let name = "net.ipv4.tcp_max_syn_backlog";
    machine.syn_backlog = Some(128);
    assert_starts(&line(&machine, name), "ok  ");
    machine.syncookies = Some(0);
    assert_starts(&line(&machine, name), "warn  net.ipv4.tcp_max_syn_backlog is 128; without");
    machine.syn_backlog = Some(1024);
    assert_starts(&line(&machine, name), "ok  ");
}

#[test]
fn a_quarter_may_be_orphans() {
    let mut machine = machine();
    machine.orphans_max = Some(131_072);
    let text = line(&machine, "net.ipv4.tcp_max_orphans");
    assert_starts(&text, "warn  net.ipv4.tcp_max_orphans is 131072; ");
    assert!(text.contains(": sysctl -w net.ipv4.tcp_max_orphans=262144 (or tuning/tune"), "{text}");
    machine.orphans_max = Some(250_000);
    assert_starts(&line(&machine, "net.ipv4.tcp_max_orphans"), "ok  ");
}

#[test]
fn the_range_of_ports_is_a_hint() {
    let mut machine = machine();
    machine.local_ports = Some((32_768, 60_999));
    let text = line(&machine, "net.ipv4.ip_local_port_range");
    assert_starts(&text, "ok  ");
    assert!(text.ends_with(
        "28232 ports towards one listener, so 1000000 clients need 36 source addresses"
    ));
}

#[test]
fn listeners_take_all_clients() {
    let state = |connections, settings: &dyn Fn(&mut Vec<ListenerSettings>)| {
        let mut plan = plan(connections);
        settings(&mut plan.settings.listeners);
        check(&diagnose(&machine(), &plan), "max_clients").clone()
    };
    assert_eq!(state(1_000_000, &|_| {}).state, State::Ok);
    assert_eq!(state(2_000_000, &|_| {}).state, State::Warn);
    let stop = state(2_000_001, &|_| {});
    assert_eq!(
        stop.line(),
        "stop  the listeners take 2000000 clients, external of them 1000000; 2000001 are to connect: \
         --set listener.tcp.external.max_clients=2000001"
    );
    assert!(
        state(100_000_001, &|_| {})
            .line()
            .ends_with("max_clients=100000000, and further listeners")
    );
    assert_eq!(state(1, &Vec::clear).state, State::Stop);
}

#[test]
fn addresses_are_free_or_the_running_brokers() {
    let mut machine = machine();
    assert_eq!(
        line(&machine, "listener external"),
        "ok    listener external: 0.0.0.0:1883 is free"
    );
    let address = "0.0.0.0:1883";
    machine.listener_errors[0] = Some(ListenerError::InUse {
        key: "listener.tcp.external".to_owned(),
        name: "external".to_owned(),
        address: address.parse().unwrap(),
    });
    let text = line(&machine, "listener external");
    assert_starts(
        &text,
        "stop  listener external: 0.0.0.0:1883 is in use by another process: stop that one",
    );
    machine.listener_errors[0] = None;
    machine.running =
        Some(Running { pid: 7, connections: 900_000, addresses: vec![address.to_owned()] });
    let text = line(&machine, "listener external");
    assert_eq!(
        text,
        "ok    listener external: 0.0.0.0:1883 is that of the running broker (process 7)"
    );
}

#[test]
fn a_running_brokers_clients_are_not_counted_twice() {
    let mut machine = machine();
    machine.memory_available = Some(1 << 30);
    machine.file_max = Some(200_000);
    machine.running = Some(Running { pid: 7, connections: 900_000, addresses: Vec::new() });
    let text = line(&machine, "broker");
    assert_starts(
        &text,
        "ok    RingMQ runs on this data folder (process 7) with 900000 connections",
    );
    assert_starts(&line(&machine, "memory"), "ok    1.0 GB of memory are available; 100000 idle");
    assert_starts(&line(&machine, "fs.file-max"), "ok  ");
    machine.running = None;
    assert_starts(&line(&machine, "memory"), "stop  ");
    assert_starts(&line(&machine, "fs.file-max"), "stop  ");
}

#[test]
fn wrong_access_rules_stop_it() {
    let mut machine = machine();
    assert_eq!(line(&machine, "access rules"), "ok    the access rules are right");
    machine.acl_error = Some("acl.conf, line 3: no such rule".to_owned());
    assert_eq!(line(&machine, "access rules"), "stop  acl.conf, line 3: no such rule");
}

#[test]
fn cpus_and_their_quota() {
    let mut machine = machine();
    assert_eq!(line(&machine, "CPUs"), "ok    2 shards on 2 CPUs");
    machine.cpus = 1;
    assert_eq!(line(&machine, "CPUs"), "ok    2 shards on 1 CPU; those on one CPU take turns");
    machine.cpus = 2;
    let quota = |millis| Some(CpuQuota { file: PathBuf::from("/a/cpu.max"), millis });
    machine.cpu_quota = quota(1500);
    let text = line(&machine, "CPU quota");
    assert_starts(
        &text,
        "warn  the control group may use 1.50 CPUs (/a/cpu.max); 2 shards can keep 2 busy",
    );
    assert!(
        text.ends_with(
            "CPUQuota=200% in the systemd unit, --cpus=2 of the container, or --shards 1"
        )
    );
    machine.cpu_quota = quota(2000);
    assert_starts(&line(&machine, "CPU quota"), "ok  ");
}

#[test]
fn the_governor_is_named_only_if_it_slows() {
    let mut machine = machine();
    let with = |machine: &mut Machine, governor: &str, driver: &str| {
        machine.governor = Some((governor.to_owned(), driver.to_owned()));
        let findings = diagnose(machine, &plan(1));
        findings.iter().filter(|f| f.check == "frequency governor").map(Finding::line).next()
    };
    assert_eq!(with(&mut machine, "performance", "acpi-cpufreq"), None);
    assert_eq!(with(&mut machine, "powersave", "intel_pstate"), None);
    assert!(with(&mut machine, "powersave", "acpi-cpufreq").unwrap().starts_with("warn  "));
}

#[test]
fn huge_pages_matter_only_if_they_are_wanted() {
    let mut machine = machine();
    let named = |machine: &Machine, wanted| {
        let mut plan = plan(1);
        plan.settings.node.huge_pages = wanted;
        diagnose(machine, &plan).iter().any(|finding| finding.check == "huge pages")
    };
    assert!(!named(&machine, true));
    machine.huge_pages = Some("never".to_owned());
    assert!(named(&machine, true));
    assert!(!named(&machine, false));
}

#[test]
fn slow_clocks_are_named() {
    let mut machine = machine();
    machine.clock = Some(("hpet".to_owned(), "hpet acpi_pm tsc".to_owned()));
    let text = line(&machine, "clock");
    assert_starts(&text, "warn  the clock source is hpet; ");
    assert!(text.contains(": echo tsc > /sys/"), "{text}");
    machine.clock = Some(("hpet".to_owned(), "hpet acpi_pm".to_owned()));
    assert!(line(&machine, "clock").contains("dmesg"));
    machine.clock = Some(("kvm-clock".to_owned(), "tsc kvm-clock".to_owned()));
    assert_eq!(line(&machine, "clock"), "ok    the clock source is kvm-clock");
}

#[test]
fn sizes_are_rounded_up() {
    let cases = [(1, "1 KB"), (1 << 20, "1 MB"), ((1 << 20) + 1, "2 MB"), (3 << 29, "1.5 GB")];
    for (bytes, text) in cases {
        assert_eq!(size(bytes), text);
    }
}
