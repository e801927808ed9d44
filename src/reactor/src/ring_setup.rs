//! The raw ring of one shard: how it is made, and the way in and out.
//!
//! No submission is ever lost: what does not fit into the submission queue is submitted at once, and what the kernel
//! does not take waits, in order, in `spill`.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{Ordering, fence};

use io_uring::{IoUring, cqueue, squeue};

use crate::ReactorSettings;

/// `IORING_ENTER_GETEVENTS`: run deferred work, flush overflowed completions, wait.
const ENTER_GETEVENTS: u32 = 1 << 0;

/// A shard's ring could not be made.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum RingError {
    /// io_uring_setup with {0} submission entries failed: {1}; the rings of all shards count as locked memory: raise its limit (ulimit -l, LimitMEMLOCK in the systemd unit), or lower reactor.ring_entries or node.shards
    Setup(u32, io::Error),
    /// a table of {0} direct descriptors could not be registered: {1}; raise the limit of open files (ulimit -n) or lower the number of connections
    Table(u32, io::Error),
    /// {0} receive buffers of {1} bytes could not be registered: {2}; lower their number, or raise the limit of locked memory (ulimit -l)
    Buffers(u16, u32, io::Error),
    /// an eventfd for the control plane could not be made: {0}; raise the limit of open files (ulimit -n)
    EventFd(io::Error),
}

/// The most direct descriptors a table may have: the soft limit of open files.
pub(crate) fn descriptors_max() -> u32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(failed, 0, "getrlimit does not fail for a known limit");
    // The kernel's own bound of a table is 2^20 entries (IORING_MAX_FIXED_FILES); larger sizes are refused.
    u32::try_from(limit.rlim_cur).unwrap_or(u32::MAX).min(1 << 20)
}

/// One shard's ring and what waits to get into it.
pub(crate) struct Port {
    ring: IoUring,
    spill: VecDeque<squeue::Entry>,
    /// The last enter did not take all of the submission queue.
    left_over: bool,
    /// Operations whose last completion has not come.
    in_flight: u64,
    /// Completions taken so far.
    reaped: u64,
    /// Entries of the direct descriptor table.
    pub(crate) table_entries: u32,
}

/// How to enter the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Submit and take what is there.
    No,
    /// Wait for a completion.
    Yes,
}

/// How often and how long a setup that lacks memory is tried again.
const SETUP_TRIES: u32 = 20;
const SETUP_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);
/// The smallest submission queue that is tried where little memory may be locked.
pub const SUBMISSION_ENTRIES_LEAST: u32 = 256;

impl Port {
    /// Makes the ring with a table of so many entries; the calling thread must be the one that uses it.
    /// `is_patient`: whether a lack of memory is waited for; only at the start.
    pub(crate) fn new(
        settings: &ReactorSettings,
        table_entries: u32,
        is_patient: bool,
    ) -> Result<Self, RingError> {
        let ring = Self::build(settings, if is_patient { SETUP_TRIES } else { 0 })?;
        ring.submitter()
            .register_files_sparse(table_entries)
            .map_err(|error| RingError::Table(table_entries, error))?;
        Ok(Self {
            ring,
            spill: VecDeque::new(),
            left_over: false,
            in_flight: 0,
            reaped: 0,
            table_entries,
        })
    }

    /// Makes the ring. A normal user's rings count against the memlock limit, and those of a process that has just ended still do
    /// for a moment: so it tries for a while, then with smaller queues.
    fn build(settings: &ReactorSettings, tries: u32) -> Result<IoUring, RingError> {
        let make = |divisor: u32| {
            IoUring::builder()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_submit_all()
                .setup_taskrun_flag()
                .setup_cqsize(settings.completion_entries / divisor)
                .build(settings.submission_entries / divisor)
        };
        let is_memory = |error: &io::Error| error.raw_os_error() == Some(libc::ENOMEM);
        let mut result = make(1);
        for _ in 0..tries {
            match &result {
                Err(error) if is_memory(error) => std::thread::sleep(SETUP_PAUSE),
                _ => break,
            }
            result = make(1);
        }
        let mut divisor = 1;
        while let Err(error) = &result
            && is_memory(error)
            && settings.submission_entries / divisor > SUBMISSION_ENTRIES_LEAST
        {
            divisor *= 2;
            result = make(divisor);
        }
        if divisor > 1 && result.is_ok() {
            log::warn!(
                "little memory may be locked (ulimit -l): a ring has {} entries instead of {}",
                settings.submission_entries / divisor,
                settings.submission_entries
            );
        }
        result.map_err(|error| RingError::Setup(settings.submission_entries, error))
    }

    /// For registering things.
    pub(crate) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// The ring's descriptor, for `MSG_RING`.
    pub(crate) fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// Queues an operation whose completion is waited for.
    ///
    /// # Safety
    /// What the entry points to must stay valid until its (last) completion was reaped.
    #[inline]
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) {
        self.in_flight += 1;
        // SAFETY: the caller keeps what the entry points to.
        unsafe { self.push_uncounted(entry) };
    }

    /// Queues an operation whose success makes no completion (`SKIP_SUCCESS`).
    ///
    /// # Safety
    /// What the entry points to must stay valid until the kernel has done it; entries that point nowhere are fine.
    #[inline]
    pub(crate) unsafe fn push_uncounted(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller keeps what the entry points to.
        if self.spill.is_empty() && unsafe { self.ring.submission().push(entry) }.is_ok() {
            return;
        }
        self.push_slow(entry);
    }

    /// The submission queue is full: hand it to the kernel and try again.
    #[cold]
    fn push_slow(&mut self, entry: &squeue::Entry) {
        self.spill.push_back(entry.clone());
        self.unspill();
    }

    /// Moves what waits into the submission queue as long as the kernel takes it.
    fn unspill(&mut self) {
        while !self.spill.is_empty() {
            {
                let mut queue = self.ring.submission();
                while let Some(entry) = self.spill.front() {
                    // SAFETY: as for the push that put the entry here.
                    if unsafe { queue.push(entry) }.is_err() {
                        break;
                    }
                    self.spill.pop_front();
                }
            }
            if self.spill.is_empty() || !matches!(self.ring.submit(), Ok(1..)) {
                return;
            }
        }
    }

    /// Counts the last completion of an operation.
    #[inline]
    pub(crate) fn completed(&mut self) {
        debug_assert!(self.in_flight > 0, "a completion belongs to an operation");
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Operations whose last completion has not come.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Submits, runs deferred work and waits as told.
    ///
    /// # Panics
    /// If the kernel refuses for a reason that does not pass by itself: a bug, or a ring that is gone.
    pub(crate) fn enter(&mut self, wait: Wait) {
        self.unspill();
        // What waits in `spill` is submitted by the next enter: do not sleep on it.
        let wait = if self.spill.is_empty() { wait } else { Wait::No };
        let queued = u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX);
        let least = u32::from(wait == Wait::Yes);
        // SAFETY: plain flags, no argument.
        let result =
            unsafe { self.ring.submitter().enter::<()>(queued, least, ENTER_GETEVENTS, None) };
        match result.map_err(|error| error.raw_os_error()) {
            Ok(_) | Err(Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
            Err(errno) => panic!("io_uring_enter failed with errno {errno:?}"),
        }
        self.left_over = !self.ring.submission().is_empty() || !self.spill.is_empty();
    }

    /// Whether completions wait in the kernel because the completion queue is full.
    #[inline]
    pub(crate) fn overflowed(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    /// Completions taken so far.
    #[inline]
    pub(crate) fn reaped(&self) -> u64 {
        self.reaped
    }

    /// Completions so far, taken or in the queue.
    #[inline]
    pub(crate) fn posted(&mut self) -> u64 {
        self.reaped + self.ring.completion().len() as u64
    }

    /// Whether the last enter left operations that the kernel has not taken: the submission queue was full, or it had no
    /// memory for them. What they point to is still needed.
    #[inline]
    pub(crate) fn has_unsubmitted(&self) -> bool {
        self.left_over || !self.spill.is_empty()
    }

    /// Whether the kernel has put off work, or completions, until the next enter.
    #[inline]
    pub(crate) fn is_deferring(&mut self) -> bool {
        let queue = self.ring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Completions of this ring signal its eventfd from now on; what came before must be looked for after this call.
    #[inline]
    pub(crate) fn signal_completions(&mut self) {
        self.ring.completion().enable_eventfd();
        // The kernel adds work first and looks at the flag then; so whoever looks for work after the fence sees it, or is told.
        fence(Ordering::SeqCst);
    }

    /// Completions of this ring signal nothing: it is looked at anyway.
    #[inline]
    pub(crate) fn silence_completions(&mut self) {
        self.ring.completion().disable_eventfd();
    }

    /// Whether operations wait to be submitted.
    #[inline]
    pub(crate) fn has_queued(&mut self) -> bool {
        !self.spill.is_empty() || !self.ring.submission().is_empty()
    }

    /// Whether the kernel has work that an enter would run, or completions are there.
    #[inline]
    pub(crate) fn has_work(&mut self) -> bool {
        self.ring.submission().taskrun() || !self.ring.completion().is_empty()
    }

    /// Takes completions, at most as many as `batch` has room for; the queue's room is the kernel's again.
    #[inline]
    pub(crate) fn reap<'a>(
        &mut self,
        batch: &'a mut [MaybeUninit<cqueue::Entry>],
    ) -> &'a mut [cqueue::Entry] {
        let completions = self.ring.completion().fill(batch);
        self.reaped += completions.len() as u64;
        completions
    }
}
