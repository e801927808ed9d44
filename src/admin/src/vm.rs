//! What `vm` tells of the process and the machine, read from `/proc`.
//!
//! The names are those of a virtual machine the broker does not have; each is mapped to what an operator wants to know by it:
//! `memory/total` is the resident set, `processes` and `processes_used` its anonymous part (heap and stacks), `system` the rest,
//! `code` its file pages, `binary` shared pages (the rings and buffers shared with the kernel); atoms and tables have no
//! counterpart and are 0. `process/limit` is the most shards a node may have, `process/count` its shards, `process/threads` all
//! threads. `ports` are connections and the descriptor slots for them.

use std::fs;

use node::Capacity;
use serde_json::{Map, Value};

use crate::protocol::VmPart;

/// One object, `part/name` to value.
pub(crate) fn read(part: VmPart, capacity: &Capacity) -> Map<String, Value> {
    let mut out = Map::new();
    let all = part == VmPart::All;
    if all || part == VmPart::Load {
        load(&proc("loadavg"), &mut out);
    }
    let status = proc("self/status");
    if all || part == VmPart::Memory {
        memory(&status, &mut out);
    }
    if all || part == VmPart::Process {
        out.insert("process/limit".to_owned(), node::SHARDS_MAX.into());
        out.insert("process/count".to_owned(), capacity.shards.into());
        out.insert("process/threads".to_owned(), field(&status, "Threads:").into());
    }
    if all || part == VmPart::Io {
        out.insert("io/max_fds".to_owned(), max_fds(&proc("self/limits")).into());
        let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        out.insert("io/active_fds".to_owned(), open.into());
    }
    if all || part == VmPart::Ports {
        out.insert("ports/count".to_owned(), capacity.connections.into());
        out.insert("ports/limit".to_owned(), capacity.connection_slots.into());
    }
    out
}

fn proc(name: &str) -> String {
    fs::read_to_string(format!("/proc/{name}")).unwrap_or_default()
}

fn load(loadavg: &str, out: &mut Map<String, Value>) {
    let mut averages = loadavg.split_whitespace();
    for name in ["cpu/load1", "cpu/load5", "cpu/load15"] {
        out.insert(name.to_owned(), averages.next().unwrap_or("0.00").into());
    }
}

fn memory(status: &str, out: &mut Map<String, Value>) {
    let bytes = |name| field(status, name) * 1024;
    let (total, anonymous) = (bytes("VmRSS:"), bytes("RssAnon:"));
    for (name, value) in [
        ("total", total),
        ("processes", anonymous),
        ("processes_used", anonymous),
        ("system", total.saturating_sub(anonymous)),
        ("atom", 0),
        ("atom_used", 0),
        ("binary", bytes("RssShmem:")),
        ("code", bytes("RssFile:")),
        ("ets", 0),
    ] {
        out.insert(format!("memory/{name}"), value.into());
    }
}

/// The number behind a name in `/proc/self/status`.
fn field(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// The soft limit of open files in `/proc/self/limits`; 0: unlimited.
fn max_fds(limits: &str) -> u64 {
    field(limits, "Max open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity { shards: 2, connections: 3, connection_slots: 2_000 };

    #[test]
    fn a_part_has_its_names_only() {
        let names = |part| read(part, &CAPACITY).into_iter().map(|(name, _)| name);
        assert_eq!(
            names(VmPart::Load).collect::<Vec<_>>(),
            ["cpu/load1", "cpu/load15", "cpu/load5"]
        );
        assert!(names(VmPart::Memory).all(|name| name.starts_with("memory/")));
        assert_eq!(names(VmPart::Memory).count(), 9);
        assert_eq!(names(VmPart::All).count(), 3 + 9 + 3 + 2 + 2);
    }

    #[test]
    fn numbers_come_from_the_process() {
        let all = read(VmPart::All, &CAPACITY);
        assert!(all["memory/total"].as_u64().unwrap() > 100_000);
        assert!(all["io/active_fds"].as_u64().unwrap() >= 3);
        assert!(all["process/threads"].as_u64().unwrap() >= 1);
        assert_eq!(all["ports/limit"], 2_000);
    }

    #[test]
    fn files_of_proc_are_read_as_they_are() {
        let status = "Name:\tringmq\nVmRSS:\t  12 kB\nRssAnon:\t  8 kB\nRssFile:\t  4 kB\n";
        let mut out = Map::new();
        memory(status, &mut out);
        assert_eq!(out["memory/total"], 12 * 1024);
        assert_eq!(out["memory/system"], 4 * 1024);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024        524288   files\n";
        assert_eq!(max_fds(limits), 1024);
        assert_eq!(max_fds("Max open files  unlimited unlimited files"), 0);
    }
}
