//! SIGINT and SIGTERM, waited for by one thread.

use super::check;
use std::io;
use std::mem;
use std::time::Duration;

/// The signals that end a run, blocked in this thread and in those it starts.
#[derive(Debug)]
pub struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// Blocks them.
    pub fn block() -> io::Result<Signals> {
        // SAFETY: a sigset_t is plain memory, and sigemptyset fills it in before it is read.
        let mut set: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: `set` lives through the calls, and the signal numbers are valid.
        unsafe {
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGINT);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
        }
        // SAFETY: `set` lives through the call; the old mask is not asked for.
        let error =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if error == 0 { Ok(Signals { set }) } else { Err(io::Error::from_raw_os_error(error)) }
    }

    /// Waits for one of them at most so long. True: one came.
    pub fn wait(&self, timeout: Duration) -> bool {
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(timeout.subsec_nanos().cast_signed()),
        };
        // SAFETY: both pointers are to live values; the signal's details are not asked for.
        let result = unsafe {
            libc::sigtimedwait(&raw const self.set, std::ptr::null_mut(), &raw const timeout)
        };
        check(result).is_ok()
    }
}
