//! An edge-triggered epoll instance.

use super::check;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// One epoll instance. Every descriptor is watched edge-triggered, for reading and for writing at once, so that no
/// later change of interest costs a system call.
pub struct Epoll {
    fd: OwnedFd,
}

/// What happened to one descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The number given to [`Epoll::add`].
    pub token: u64,
    /// There are bytes, or the end of them.
    pub readable: bool,
    /// There is room to write, or a connect has ended.
    pub writable: bool,
    /// Error or both directions closed.
    pub broken: bool,
}

/// Room for the events of one wait.
pub struct Events {
    raw: Vec<libc::epoll_event>,
    len: usize,
}

impl Events {
    /// Room for `capacity` events.
    pub fn new(capacity: usize) -> Events {
        Events { raw: vec![libc::epoll_event { events: 0, u64: 0 }; capacity], len: 0 }
    }

    /// How many the last wait brought.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Event number `index` of the last wait.
    pub fn get(&self, index: usize) -> Event {
        let raw = self.raw[..self.len][index];
        let has = |bits: libc::c_int| raw.events & bits.cast_unsigned() != 0;
        Event {
            token: raw.u64,
            readable: has(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR),
            writable: has(libc::EPOLLOUT),
            broken: has(libc::EPOLLERR | libc::EPOLLHUP),
        }
    }
}

impl Epoll {
    /// A new instance.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: plain system call without pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `fd` was just created and is owned by nobody else.
        Ok(Epoll { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Watches `source` under `token` until it is closed.
    pub fn add(&self, source: &impl AsRawFd, token: u64) -> io::Result<()> {
        let bits = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event { events: bits.cast_unsigned(), u64: token };
        let (fd, source) = (self.fd.as_raw_fd(), source.as_raw_fd());
        // SAFETY: `event` lives through the call.
        let result = unsafe { libc::epoll_ctl(fd, libc::EPOLL_CTL_ADD, source, &raw mut event) };
        check(result).map(drop)
    }

    /// Waits at most `timeout` (exact to the nanosecond, unlike `epoll_wait`); a signal ends the wait without events.
    pub fn wait(&self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(timeout.subsec_nanos().cast_signed()),
        };
        events.len = 0;
        // SAFETY: the array has room for the count given, `timeout` lives through the call, no signal mask is given.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                events.raw.as_mut_ptr(),
                libc::c_int::try_from(events.raw.len()).unwrap_or(libc::c_int::MAX),
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        match usize::try_from(count) {
            Ok(count) => events.len = count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
