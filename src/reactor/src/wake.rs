//! How the control plane wakes a shard that waits in its ring: an eventfd whose read is armed there.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;
use std::sync::Arc;

use ring::Waker;

/// Makes the eventfd. Blocking: the ring's read of it waits by polling, and a write never blocks before 2^64 of them.
pub(crate) fn eventfd() -> io::Result<File> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and is nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Wakes one shard.
#[derive(Clone)]
pub struct WakeHandle {
    waker: Waker,
    event: Arc<File>,
}

impl WakeHandle {
    /// For the shard of `waker`.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub(crate) fn new(waker: Waker) -> io::Result<Self> {
        Ok(Self { waker, event: Arc::new(eventfd()?) })
    }

    /// Tells the shard that something was left for it. Call it after leaving it, each time; a system call is made
    /// only if the shard waits.
    pub fn wake(&self) {
        if self.waker.needs_doorbell() {
            self.ring();
        }
    }

    /// Writes the eventfd.
    pub(crate) fn ring(&self) {
        // It fails only if the counter is full, and then the shard has been told anyway.
        let _ = (&*self.event).write(&1u64.to_ne_bytes());
    }

    /// The eventfd, for the ring.
    pub(crate) fn event(&self) -> Arc<File> {
        Arc::clone(&self.event)
    }
}

impl std::fmt::Debug for WakeHandle {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("WakeHandle").field("shard", &self.waker.shard()).finish_non_exhaustive()
    }
}
