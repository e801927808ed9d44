//! What the kernel knows of the measured processes: CPU time, resident memory, and the memory of sockets.

use super::check;
use std::fs;
use std::io;

/// CPU time and context switches of the measured processes, summed over all their threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time, exact to the nanosecond, with the threads that have ended.
    pub cpu_ns: u64,
    /// Ticks (1/100 s) in user mode, for the share only.
    pub user_ticks: u64,
    /// Ticks (1/100 s) in the kernel, for the share only.
    pub system_ticks: u64,
    /// Context switches, voluntary or not, of the threads that live.
    pub switches: u64,
}

/// The usage of `pids` together.
pub fn usage(pids: &[i32]) -> io::Result<Usage> {
    let mut sum = Usage::default();
    for &pid in pids {
        sum.cpu_ns += cpu_ns(pid)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name of the process may hold anything, also blanks; the fields after its bracket do not.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks =
            |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        sum.user_ticks += ticks(11);
        sum.system_ticks += ticks(12);
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between the listing and the reading.
            let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
            sum.switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            sum.switches += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
        }
    }
    Ok(sum)
}

/// User and system time of this process in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    cpu_ns(0).unwrap_or(0)
}

fn cpu_ns(pid: i32) -> io::Result<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a live value the call fills in.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live value the call fills in.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    Ok(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}

/// Resident memory (VmRSS) of `pids` together, in bytes.
pub fn resident_bytes(pids: &[i32]) -> io::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        sum += field(&status, "VmRSS:").unwrap_or(0) * 1024;
    }
    Ok(sum)
}

/// Memory the kernel spends, on the whole machine and for both ends of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelMemory {
    /// Socket buffers of TCP, in bytes (`/proc/net/sockstat`).
    pub tcp_bytes: u64,
    /// All slabs: sockets, inodes, files, epoll items and so on, in bytes (`/proc/meminfo`).
    pub slab_bytes: u64,
}

/// What the kernel spends now; what cannot be read is 0.
pub fn kernel_memory() -> KernelMemory {
    let sockstat = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let pages = sockstat
        .lines()
        .find(|line| line.starts_with("TCP:"))
        .and_then(|line| line.rsplit_once(' '))
        .and_then(|(_, pages)| pages.parse::<u64>().ok())
        .unwrap_or(0);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    KernelMemory {
        tcp_bytes: pages * 4096,
        slab_bytes: field(&meminfo, "Slab:").unwrap_or(0) * 1024,
    }
}

/// Memory that programs could still take, of the whole machine, in bytes.
pub fn available_bytes() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    field(&meminfo, "MemAvailable:").unwrap_or(0) * 1024
}

/// The kernel's release, for the record.
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// The CPUs that are online, as in `0-1`.
pub fn cpus_online() -> String {
    fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default().trim().to_owned()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_whitespace().next()?.parse().ok()
}
