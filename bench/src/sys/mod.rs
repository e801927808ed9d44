//! The calls to the kernel that the standard library does not have. All of this crate's `unsafe` is in this folder;
//! every function here is safe to call with any argument.

pub mod epoll;
pub mod process;
pub mod ring;
pub mod signals;

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

/// Nanoseconds of the monotonic clock, the one of the reactor's deadlines.
#[inline]
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds since the Unix epoch.
#[inline]
pub fn unix_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME)
}

#[inline]
fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` lives through the call; the clocks used exist on every kernel, so the call does not fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("a socket option is small")
}

fn set_option<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is a live reference to a plain C value of exactly the length given; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), length_of::<T>())
    };
    check(result).map(drop)
}

fn socket_address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("AF_INET is 2"),
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

/// Begins a connection without waiting for it: the stream is non-blocking and becomes writable once connected.
///
/// `source` is the local address (its port is chosen at connect time, so that 2^16 ports per *destination* are usable);
/// `receive_buffer_len` in bytes makes the kernel's receive buffer small, for clients that are to be slow.
pub fn connect(
    source: Option<Ipv4Addr>,
    target: SocketAddrV4,
    receive_buffer_len: Option<i32>,
) -> io::Result<TcpStream> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: plain system call without pointers.
    let fd = check(unsafe { libc::socket(libc::AF_INET, kind, 0) })?;
    // SAFETY: `fd` was just created and is owned by nobody else.
    let stream = unsafe { TcpStream::from_raw_fd(fd) };
    stream.set_nodelay(true)?;
    if let Some(len) = receive_buffer_len {
        set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &len)?;
    }
    if let Some(ip) = source {
        set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1i32)?;
        let address = socket_address(SocketAddrV4::new(ip, 0));
        // SAFETY: `address` lives through the call and has the length given.
        check(unsafe {
            libc::bind(fd, (&raw const address).cast(), length_of::<libc::sockaddr_in>())
        })?;
    }
    let address = socket_address(target);
    // SAFETY: `address` lives through the call and has the length given.
    let result = check(unsafe {
        libc::connect(fd, (&raw const address).cast(), length_of::<libc::sockaddr_in>())
    });
    match result {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(stream),
    }
}

/// Lets `count` connections wait to be accepted instead of the 128 of the standard library.
pub fn lengthen_backlog(listener: &TcpListener, count: i32) -> io::Result<()> {
    // SAFETY: plain system call without pointers; on a listening socket it only changes the length.
    check(unsafe { libc::listen(listener.as_raw_fd(), count) }).map(drop)
}

/// Makes the close of `stream` a reset: unsent data is dropped and no TIME_WAIT stays behind.
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set_option(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// Restricts this thread, and the threads it starts later, to `cpus`.
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for &cpu in cpus {
        if cpu >= usize::try_from(libc::CPU_SETSIZE).unwrap_or(0) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: `cpu` is below CPU_SETSIZE.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` lives through the call and has the length given; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) }).map(drop)
}

/// Gives this thread the lowest ordinary priority.
pub fn be_nice() -> io::Result<()> {
    // SAFETY: plain system call without pointers; on Linux, 0 is the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) }).map(drop)
}

/// Lets this thread go before all ordinary ones, by the lowest real-time priority; takes `CAP_SYS_NICE`.
pub fn be_first() -> io::Result<()> {
    let least = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter lives through the call; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const least) }).map(drop)
}

/// Lets timed waits of this thread and of those it starts end on time instead of up to 50 us late.
pub fn sharpen_timers() -> io::Result<()> {
    let slack_ns: libc::c_ulong = 1;
    // SAFETY: PR_SET_TIMERSLACK takes one integer.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack_ns) }).map(drop)
}

/// The name of this machine.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// How many ports the kernel chooses local ones from.
pub fn local_ports() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ports = text.split_whitespace().map_while(|word| word.parse::<usize>().ok());
    let (first, last) = (ports.next()?, ports.next()?);
    (last + 1).checked_sub(first)
}

/// Raises the soft limit of open files to the hard limit and returns it.
pub fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit the kernel fills in.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a live rlimit the kernel reads.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}
