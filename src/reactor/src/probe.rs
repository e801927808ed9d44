//! What this kernel can do, found out once at the start; where `io_uring` is missing or forbidden, one clear line.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};

use crate::accept::{SocketFd, getsockopt};
use crate::buffers::Buffers;
use crate::ring_setup::descriptors_max;

/// The oldest kernel that has all that is needed: `DEFER_TASKRUN` came last.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// The executor of a shard refuses to start with less.
const LOCKED_MEMORY_MIN: u64 = 512 << 10;
/// Where an administrator may forbid `io_uring`.
const DISABLED_FILE: &str = "/proc/sys/kernel/io_uring_disabled";

/// RingMQ cannot run here.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum ProbeError {
    /// kernel {0} is too old: io_uring as RingMQ uses it needs Linux 6.1 or newer; update the kernel
    KernelTooOld(String),
    /// io_uring is switched off for all processes (kernel.io_uring_disabled = 2); allow it with: sysctl kernel.io_uring_disabled=0
    DisabledForAll,
    /// io_uring is allowed only for CAP_SYS_ADMIN and the group of kernel.io_uring_group (kernel.io_uring_disabled = 1); put this user into that group, or allow it with: sysctl kernel.io_uring_disabled=0
    DisabledForUser,
    /// this kernel ({0}) has no io_uring: it was built without CONFIG_IO_URING, or a seccomp filter hides it; in a container allow io_uring_setup, io_uring_enter and io_uring_register (docker: --security-opt seccomp=unconfined or a profile with them)
    Missing(String),
    /// io_uring is forbidden to this process, most likely by a container's seccomp filter or a security module; allow io_uring_setup, io_uring_enter and io_uring_register (docker: --security-opt seccomp=unconfined or a profile with them)
    Forbidden,
    /// too little memory may be locked for io_uring (limit {0} KB; 8192 is plenty); raise it: ulimit -l unlimited, LimitMEMLOCK=infinity in the systemd unit
    LockedMemory(u64),
    /// too few open files are allowed ({0}); raise the limit: ulimit -n 1048576, LimitNOFILE=1048576 in the systemd unit
    OpenFiles(u64),
    /// io_uring_setup failed: {0}; this kernel is {1}
    Setup(io::Error, String),
    /// this kernel ({0}) lacks an io_uring feature that RingMQ needs: {1}; Linux 6.1 or newer has it, unless it was switched off
    Lacks(String, &'static str),
}

/// What the kernel can do beyond the floor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "a list of independent features")]
pub struct Features {
    /// Socket options can be read by a ring operation (6.7): multishot accept needs it for the peer's address.
    pub socket_options: bool,
    /// One receive or send may fill several buffers (6.10).
    pub bundles: bool,
    /// Buffers that are used up bit by bit (6.12).
    pub incremental_buffers: bool,
    /// A wait may gather completions for a while (6.12).
    pub min_wait: bool,
    /// Sends without a copy (6.0).
    pub send_zero_copy: bool,
}

/// The outcome: one line for the log.
#[derive(Debug, Clone)]
pub struct ProbeReport {
    /// Release of the kernel, as `uname -r` gives it.
    pub kernel: String,
    /// What it can do.
    pub features: Features,
    /// Soft limit of open files: the most connections of one shard.
    pub open_files: u64,
    /// Soft limit of locked memory in bytes; none: unlimited.
    pub locked_memory_bytes: Option<u64>,
    /// Shards that are to run.
    pub shards: usize,
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let features = &self.features;
        write!(out, "kernel {}, io_uring: ", self.kernel)?;
        let accept =
            if features.socket_options { "multishot accept/recv" } else { "multishot recv" };
        write!(out, "{accept}, direct descriptors, buffer rings, msg_ring")?;
        for (name, found) in [
            ("socket options", features.socket_options),
            ("bundles", features.bundles),
            ("incremental buffers", features.incremental_buffers),
            ("min-wait", features.min_wait),
            ("zero-copy send", features.send_zero_copy),
        ] {
            if found {
                write!(out, ", {name}")?;
            }
        }
        write!(out, ", files {}, memlock ", self.open_files)?;
        match self.locked_memory_bytes {
            None => write!(out, "unlimited")?,
            Some(bytes) if bytes >= 1 << 20 => write!(out, "{} MB", bytes >> 20)?,
            Some(bytes) => write!(out, "{} KB", bytes >> 10)?,
        }
        write!(out, ", shards {}", self.shards)
    }
}

/// Asks the kernel.
///
/// # Errors
/// If the broker cannot run here; the message says why and what to do.
pub fn probe(shards: usize) -> Result<ProbeReport, ProbeError> {
    // On a thread of its own: when a ring is gone the kernel still interrupts, a little later, what the thread that made it
    // waits for, and the caller's reads would see EINTR.
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| ask(shards));
        asked.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    })
}

/// Asks the kernel, on the calling thread.
fn ask(shards: usize) -> Result<ProbeReport, ProbeError> {
    let kernel = kernel_release();
    if parse_release(&kernel).is_some_and(|version| version < KERNEL_MIN) {
        return Err(ProbeError::KernelTooOld(kernel));
    }
    let open_files = limit(libc::RLIMIT_NOFILE).unwrap_or(u64::MAX);
    if open_files < 64 {
        return Err(ProbeError::OpenFiles(open_files));
    }
    if let Some(bytes) = limit(libc::RLIMIT_MEMLOCK).filter(|bytes| *bytes < LOCKED_MEMORY_MIN) {
        return Err(ProbeError::LockedMemory(bytes >> 10));
    }
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_taskrun_flag()
        .build(8)
        .map_err(|error| setup_failed(error, &kernel))?;
    let lacks = |what| ProbeError::Lacks(kernel.clone(), what);
    check_operations(&ring).map_err(lacks)?;
    let table = 64.min(descriptors_max());
    ring.submitter().register_files_sparse(table).map_err(|_| lacks("direct descriptors"))?;
    // Dropped after the ring at the end of this function.
    let _buffers = Buffers::register(&ring.submitter(), 8, 64).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::ENOMEM) => {
                ProbeError::LockedMemory(limit(libc::RLIMIT_MEMLOCK).unwrap_or(0) >> 10)
            }
            _ => lacks("buffer rings"),
        }
    })?;
    let at_least = |major, minor| parse_release(&kernel).is_some_and(|v| v >= (major, minor));
    let mut operations = io_uring::Probe::new();
    let known = ring.submitter().register_probe(&mut operations).is_ok();
    let features = Features {
        socket_options: reads_socket_options(&mut ring),
        bundles: ring.params().is_feature_recvsend_bundle(),
        incremental_buffers: at_least(6, 12),
        min_wait: ring.params().is_feature_min_timeout(),
        send_zero_copy: known && operations.is_supported(opcode::SendZc::CODE),
    };
    drop(ring);
    let locked_memory_bytes = limit(libc::RLIMIT_MEMLOCK);
    Ok(ProbeReport { kernel, features, open_files, locked_memory_bytes, shards })
}

/// Raises the soft limit of open files to the hard one: a shard's table has at most as many entries.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer, and then holds a valid limit.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0
            && limit.rlim_cur < limit.rlim_max
        {
            limit.rlim_cur = limit.rlim_max;
            // If it cannot be raised, the probe's line shows what it is.
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Why `io_uring_setup` failed.
fn setup_failed(error: io::Error, kernel: &str) -> ProbeError {
    let disabled = std::fs::read_to_string(DISABLED_FILE).ok();
    match (error.raw_os_error(), disabled.as_deref().map(str::trim)) {
        (Some(libc::ENOSYS), _) => ProbeError::Missing(kernel.to_owned()),
        (Some(libc::EPERM), Some("2")) => ProbeError::DisabledForAll,
        (Some(libc::EPERM), Some("1")) => ProbeError::DisabledForUser,
        (Some(libc::EPERM | libc::EACCES), _) => ProbeError::Forbidden,
        (Some(libc::ENOMEM), _) => {
            ProbeError::LockedMemory(limit(libc::RLIMIT_MEMLOCK).unwrap_or(u64::MAX) >> 10)
        }
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            ProbeError::OpenFiles(limit(libc::RLIMIT_NOFILE).unwrap_or(u64::MAX))
        }
        (Some(libc::EINVAL), _) => ProbeError::Lacks(kernel.to_owned(), "DEFER_TASKRUN rings"),
        _ => ProbeError::Setup(error, kernel.to_owned()),
    }
}

/// Whether the operations that are always used exist; the first that does not.
fn check_operations(ring: &IoUring) -> Result<(), &'static str> {
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|_| "the operation probe")?;
    let needed = [
        (opcode::Accept::CODE, "accept"),
        (opcode::Recv::CODE, "recv"),
        (opcode::Send::CODE, "send"),
        (opcode::SendMsg::CODE, "sendmsg"),
        (opcode::Shutdown::CODE, "shutdown"),
        (opcode::Close::CODE, "close"),
        (opcode::AsyncCancel::CODE, "async cancel"),
        (opcode::MsgRingData::CODE, "msg_ring"),
        (opcode::Read::CODE, "read"),
    ];
    match needed.into_iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, name)) => Err(name),
        None => Ok(()),
    }
}

/// Tries to read a socket's type by a ring operation.
fn reads_socket_options(ring: &mut IoUring) -> bool {
    let Ok(socket) = std::net::TcpListener::bind("127.0.0.1:0") else { return false };
    let mut value = [0u8; 4];
    let option = libc::SO_TYPE.cast_unsigned();
    let fd = SocketFd::Plain(types::Fd(socket.as_raw_fd()));
    // SAFETY: `value` has four bytes and outlives the operation, which is waited for.
    let submitted = unsafe {
        let entry = getsockopt(fd, option, value.as_mut_ptr(), 4);
        ring.submission().push(&entry).is_ok()
    };
    // The operation runs within the submission; it never waits for anything.
    let waited = submitted && ring.submit_and_wait(1).is_ok();
    let result = ring.completion().next().map(|completion| completion.result());
    waited && result == Some(4) && i32::from_ne_bytes(value) == libc::SOCK_STREAM
}

/// A soft limit; none: unlimited.
fn limit(which: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    let failed = unsafe { libc::getrlimit(which, &raw mut limit) };
    (failed == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// The kernel's release.
fn kernel_release() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    read.map_or_else(|_| "of unknown release".to_owned(), |text| text.trim().to_owned())
}

/// Major and minor number of a release such as `6.18.44-arch1`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(parse_release("6.18.44-fc"), Some((6, 18)));
        assert_eq!(parse_release("5.10"), Some((5, 10)));
        assert_eq!(parse_release("of unknown release"), None);
        assert!(parse_release("6.2").unwrap() < parse_release("6.18").unwrap());
    }

    #[test]
    fn the_report_is_one_line() {
        let report = ProbeReport {
            kernel: "6.18.44".to_owned(),
            features: Features { socket_options: true, bundles: true, ..Features::default() },
            open_files: 20_000,
            locked_memory_bytes: Some(8 << 20),
            shards: 2,
        };
        assert_eq!(
            report.to_string(),
            "kernel 6.18.44, io_uring: multishot accept/recv, direct descriptors, buffer rings, msg_ring, \
             socket options, bundles, files 20000, memlock 8 MB, shards 2"
        );
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let refuse = |errno| setup_failed(io::Error::from_raw_os_error(errno), "6.18");
        assert!(matches!(refuse(libc::ENOSYS), ProbeError::Missing(_)));
        assert!(refuse(libc::ENOSYS).to_string().contains("seccomp"));
        assert!(refuse(libc::ENOMEM).to_string().contains("ulimit -l"));
        assert!(refuse(libc::EPERM).to_string().contains("io_uring"));
        assert!(matches!(refuse(libc::EIO), ProbeError::Setup(..)));
    }

    #[test]
    fn this_kernel_is_probed() {
        let report = probe(1).unwrap();
        assert!(!report.to_string().contains('\n'));
    }
}
