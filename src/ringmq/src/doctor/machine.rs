//! The facts of this machine, read from `/proc` and `/sys`, and by probing the kernel and the listeners' addresses. A fact that
//! cannot be read is none, never an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use admin::DataFolder;
use admin::protocol::{AdminRequest, ListenerLine, VmPart};
use config::Settings;
use nix::unistd::{SysconfVar, sysconf};
use reactor::{ListenerError, ProbeError, ProbeReport};

use crate::client::ask_within;

/// Time a running broker has for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Bits of `CapEff`.
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_ADMIN: u32 = 21;

/// What was found.
#[derive(Debug)]
pub struct Machine {
    /// What the kernel's `io_uring` can do, or why it cannot be used.
    pub io_uring: Result<ProbeReport, ProbeError>,
    /// May open files beyond `fs.file-max` (`CAP_SYS_ADMIN`).
    pub beyond_file_max: bool,
    /// May lock memory beyond the limit (`CAP_IPC_LOCK`).
    pub locks_freely: bool,
    /// Soft and hard limit of open files.
    pub open_files: Option<(u64, u64)>,
    /// Soft limit of locked memory in bytes; none: unlimited.
    pub locked_bytes_max: Option<u64>,
    /// `fs.file-max`
    pub file_max: Option<u64>,
    /// Files that are open on the whole machine.
    pub files_open: u64,
    /// `fs.nr_open`
    pub nr_open: Option<u64>,
    /// Memory the kernel could give without swapping, in bytes.
    pub memory_available: Option<u64>,
    /// Limits on memory of the control groups around the process.
    pub memory_limits: Vec<MemoryLimit>,
    /// Size of a page of memory.
    pub page_bytes: u64,
    /// The last number of `net.ipv4.tcp_mem`, in pages.
    pub tcp_mem_pages_max: Option<u64>,
    /// `net.core.somaxconn`
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`
    pub syn_backlog: Option<u64>,
    /// `net.ipv4.tcp_syncookies`
    pub syncookies: Option<u64>,
    /// `net.ipv4.ip_local_port_range`
    pub local_ports: Option<(u64, u64)>,
    /// Connection tracking, if its module is loaded.
    pub conntrack: Option<Conntrack>,
    /// `net.ipv4.tcp_max_orphans`
    pub orphans_max: Option<u64>,
    /// CPUs the process may run on.
    pub cpus: usize,
    /// The narrowest quota of CPU time of the control groups around the process.
    pub cpu_quota: Option<CpuQuota>,
    /// Governor and driver of the CPUs' frequency.
    pub governor: Option<(String, String)>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    /// The clock in use, and those that could be.
    pub clock: Option<(String, String)>,
    /// The broker that runs on the data folder.
    pub running: Option<Running>,
    /// What is wrong with the access rules.
    pub acl_error: Option<String>,
    /// What is wrong with the certificates and keys of each listener with TLS, by its name.
    pub tls_errors: Vec<(String, Option<String>)>,
    /// What is wrong with each listener of the settings.
    pub listener_errors: Vec<Option<ListenerError>>,
}

/// A limit on memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The file that sets it.
    pub file: PathBuf,
    /// The limit in bytes.
    pub bytes_max: u64,
    /// What is used of it and cannot be dropped.
    pub bytes_used: u64,
}

/// A quota of CPU time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuQuota {
    /// The file that sets it.
    pub file: PathBuf,
    /// Thousandths of a CPU.
    pub millis: u64,
}

/// State of connection tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conntrack {
    /// Connections that are tracked.
    pub count: u64,
    /// The most there may be.
    pub max: u64,
}

/// The broker that runs on the data folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// Its process.
    pub pid: i32,
    /// Its connections.
    pub connections: u64,
    /// Addresses it listens on.
    pub addresses: Vec<String>,
}

impl Machine {
    /// Looks.
    pub fn look(folder: &DataFolder, settings: &Settings) -> Machine {
        let running = running(folder);
        // A running broker may have other limits and groups than this shell.
        let process = running
            .as_ref()
            .map(|running| format!("/proc/{}", running.pid))
            .filter(|path| Path::new(path).join("limits").exists())
            .unwrap_or_else(|| "/proc/self".to_owned());
        let limits = read(format!("{process}/limits"));
        let open_files = limit(&limits, "Max open files");
        let capable = capabilities(&process);
        let (memory_limits, cpu_quota) = groups(&read(format!("{process}/cgroup")));
        // As the broker does: the probe wants a few files.
        reactor::raise_open_files();
        let cpus = reactor::available_cpus().len();
        Machine {
            io_uring: reactor::probe(node::shard_count(settings, cpus)),
            beyond_file_max: capable & 1 << CAP_SYS_ADMIN != 0,
            locks_freely: capable & 1 << CAP_IPC_LOCK != 0,
            open_files,
            locked_bytes_max: limit(&limits, "Max locked memory")
                .map(|(soft, _)| soft)
                .filter(|soft| *soft != u64::MAX),
            file_max: number("/proc/sys/fs/file-max"),
            files_open: nth("/proc/sys/fs/file-nr", 0).unwrap_or(0),
            nr_open: number("/proc/sys/fs/nr_open"),
            memory_available: memory_available(&read("/proc/meminfo")),
            memory_limits,
            page_bytes: page_bytes(),
            tcp_mem_pages_max: nth("/proc/sys/net/ipv4/tcp_mem", 2),
            somaxconn: number("/proc/sys/net/core/somaxconn"),
            syn_backlog: number("/proc/sys/net/ipv4/tcp_max_syn_backlog"),
            syncookies: number("/proc/sys/net/ipv4/tcp_syncookies"),
            local_ports: nth("/proc/sys/net/ipv4/ip_local_port_range", 0)
                .zip(nth("/proc/sys/net/ipv4/ip_local_port_range", 1)),
            conntrack: conntrack(),
            orphans_max: number("/proc/sys/net/ipv4/tcp_max_orphans"),
            cpus,
            cpu_quota,
            governor: governor(),
            huge_pages: chosen(&read("/sys/kernel/mm/transparent_hugepage/enabled")),
            clock: clock(),
            acl_error: node::load_acl(settings).err().map(|error| error.to_string()),
            tls_errors: node::check_tls(settings)
                .into_iter()
                .map(|(name, error)| (name, error.map(|error| error.to_string())))
                .collect(),
            listener_errors: (0..settings.listeners.len())
                .map(|number| {
                    let address = settings.listeners[number].address.to_string();
                    // An address of the running broker would only be waited for.
                    let own = running.as_ref().is_some_and(|r| r.addresses.contains(&address));
                    if own { None } else { reactor::try_bind(&settings.listeners, number).err() }
                })
                .collect(),
            running,
        }
    }
}

/// The broker that runs on the data folder, and what it tells.
fn running(folder: &DataFolder) -> Option<Running> {
    if !folder.is_taken() {
        return None;
    }
    let mut running = Running { pid: folder.pid()?, ..Running::default() };
    let ports = AdminRequest::Vm { part: VmPart::Ports };
    // One that does not answer runs nevertheless.
    let _ = ask_within(folder, &ports, ANSWER_TIMEOUT, |row| {
        let numbers: BTreeMap<String, serde_json::Value> = serde_json::from_str(row)?;
        let count = numbers.get("ports/count").and_then(serde_json::Value::as_u64);
        running.connections = count.unwrap_or(0);
        Ok(())
    });
    let _ = ask_within(folder, &AdminRequest::Listeners, ANSWER_TIMEOUT, |row| {
        running.addresses.push(serde_json::from_str::<ListenerLine>(row)?.address);
        Ok(())
    });
    Some(running)
}

/// A file's text; empty if it cannot be read.
fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A file that holds one number.
fn number<T: FromStr>(path: impl AsRef<Path>) -> Option<T> {
    read(path).trim().parse().ok()
}

/// A number of a file that holds several.
fn nth(path: &str, index: usize) -> Option<u64> {
    read(path).split_whitespace().nth(index)?.parse().ok()
}

/// Soft and hard value of a limit in `/proc/<pid>/limits`.
fn limit(limits: &str, name: &str) -> Option<(u64, u64)> {
    let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let mut values = rest.split_whitespace().map(|word| match word {
        "unlimited" => Some(u64::MAX),
        digits => digits.parse().ok(),
    });
    Some((values.next()??, values.next()??))
}

/// The effective capabilities that the kernel heeds for limits of the whole machine: those of the first user namespace.
fn capabilities(process: &str) -> u64 {
    let map = read(format!("{process}/uid_map"));
    if map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"] {
        return 0;
    }
    let status = read(format!("{process}/status"));
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn memory_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn page_bytes() -> u64 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096)
}

fn conntrack() -> Option<Conntrack> {
    let folder = Path::new("/proc/sys/net/netfilter");
    let max = number(folder.join("nf_conntrack_max"))?;
    Some(Conntrack { count: number(folder.join("nf_conntrack_count")).unwrap_or(0), max })
}

/// The first CPU stands for all.
fn governor() -> Option<(String, String)> {
    let folder = Path::new("/sys/devices/system/cpu/cpu0/cpufreq");
    let governor = read(folder.join("scaling_governor")).trim().to_owned();
    let driver = read(folder.join("scaling_driver")).trim().to_owned();
    (!governor.is_empty()).then_some((governor, driver))
}

fn clock() -> Option<(String, String)> {
    let folder = Path::new("/sys/devices/system/clocksource/clocksource0");
    let current = read(folder.join("current_clocksource")).trim().to_owned();
    let available = read(folder.join("available_clocksource")).trim().to_owned();
    (!current.is_empty()).then_some((current, available))
}

/// The word in brackets.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

/// The limits of the control groups that `/proc/<pid>/cgroup` names, and of those around them.
fn groups(cgroup: &str) -> (Vec<MemoryLimit>, Option<CpuQuota>) {
    let mut memory = Vec::new();
    let mut quotas = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let has = |name: &str| controllers.split(',').any(|controller| controller == name);
        if controllers.is_empty() {
            for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
                for folder in upwards(root, path) {
                    memory.extend(memory_limit(&folder, "memory.max", "memory.current"));
                    quotas.extend(cpu_max(&folder));
                }
            }
        }
        if has("memory") {
            for folder in upwards("/sys/fs/cgroup/memory", path) {
                let files = ("memory.limit_in_bytes", "memory.usage_in_bytes");
                memory.extend(memory_limit(&folder, files.0, files.1));
            }
        }
        if has("cpu") {
            for root in ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"] {
                quotas.extend(upwards(root, path).iter().filter_map(|folder| cfs_quota(folder)));
            }
        }
    }
    (memory, quotas.into_iter().min_by_key(|quota: &CpuQuota| quota.millis))
}

/// The folder of a group and all above it, up to the root of its hierarchy.
fn upwards(root: &str, path: &str) -> Vec<PathBuf> {
    let folder = Path::new(root).join(path.trim_start_matches('/'));
    folder.ancestors().take_while(|folder| folder.starts_with(root)).map(PathBuf::from).collect()
}

/// A limit, unless it is none: `max`, or larger than any memory.
fn memory_limit(folder: &Path, max: &str, used: &str) -> Option<MemoryLimit> {
    let file = folder.join(max);
    let bytes_max: u64 = number(&file).filter(|bytes| *bytes < 1 << 60)?;
    let used: u64 = number(folder.join(used))?;
    let stat = read(folder.join("memory.stat"));
    // Pages of files that nobody used lately are dropped when memory is short.
    let field = |name: &str| -> Option<u64> {
        stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    let droppable = field("total_inactive_file ").or_else(|| field("inactive_file ")).unwrap_or(0);
    Some(MemoryLimit { file, bytes_max, bytes_used: used.saturating_sub(droppable) })
}

/// `cpu.max`: quota and period.
fn cpu_max(folder: &Path) -> Option<CpuQuota> {
    let file = folder.join("cpu.max");
    let text = read(&file);
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    quota(file, numbers.next()?.ok()?, numbers.next()?.ok()?)
}

/// The same of the older control groups.
fn cfs_quota(folder: &Path) -> Option<CpuQuota> {
    let file = folder.join("cpu.cfs_quota_us");
    let us: u64 = number(&file)?;
    quota(file, us, number(folder.join("cpu.cfs_period_us"))?)
}

fn quota(file: PathBuf, us: u64, period_us: u64) -> Option<CpuQuota> {
    Some(CpuQuota { file, millis: us.saturating_mul(1000).checked_div(period_us)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_with_both_values() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            1024                 524288               files\n\
                    Max locked memory         unlimited            unlimited            bytes\n";
        assert_eq!(limit(text, "Max open files"), Some((1024, 524_288)));
        assert_eq!(limit(text, "Max locked memory"), Some((u64::MAX, u64::MAX)));
        assert_eq!(limit(text, "Max processes"), None);
    }

    #[test]
    fn the_chosen_word_and_the_free_memory_are_found() {
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(chosen(""), None);
        assert_eq!(memory_available("MemFree: 1 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
    }

    #[test]
    fn a_group_stands_below_those_around_it() {
        let folders = upwards("/sys/fs/cgroup", "/a/b");
        let expected = ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"];
        assert_eq!(folders, expected.map(PathBuf::from));
        assert_eq!(upwards("/sys/fs/cgroup", "/"), [PathBuf::from("/sys/fs/cgroup")]);
    }

    #[test]
    fn limits_of_groups_are_read_from_their_files() {
        let folder = std::env::temp_dir().join(format!("ringmq-doctor-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "5000\n");
        write("memory.stat", "anon 1\ninactive_file 1000\n");
        write("cpu.max", "max 100000\n");
        let limit = || memory_limit(&folder, "memory.max", "memory.current");
        assert_eq!(limit(), None);
        assert_eq!(cpu_max(&folder), None);
        write("memory.max", "1048576\n");
        write("cpu.max", "150000 100000\n");
        assert_eq!(limit().map(|l| (l.bytes_max, l.bytes_used)), Some((1 << 20, 4000)));
        assert_eq!(cpu_max(&folder).map(|quota| quota.millis), Some(1500));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn this_machine_is_looked_at() {
        let folder = DataFolder::new(std::env::temp_dir().join("ringmq-doctor-none"));
        let machine = Machine::look(&folder, &Settings::default());
        assert!(machine.open_files.is_some() && machine.memory_available.is_some());
        assert!(machine.running.is_none());
        assert_eq!(machine.listener_errors.len(), 2);
    }
}
