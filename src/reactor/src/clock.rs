//! The clocks, read once per tick.

use shard::Now;

/// How long the distance between the two clocks is trusted, in milliseconds.
const OFFSET_AGE_MS_MAX: u64 = 1000;

/// Reads the monotonic clock and keeps the wall clock's distance to it, so that a tick reads one clock only.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Wall clock minus monotonic clock, in milliseconds.
    offset_ms: u64,
    /// When `offset_ms` was measured.
    measured_at_ms: u64,
}

/// Nanoseconds of `CLOCK_MONOTONIC`, which all shards share.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    read_ns(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds of a clock.
#[inline]
fn read_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer; the clock ids used exist on every kernel.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(failed, 0, "clock_gettime does not fail for a known clock");
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

impl Clock {
    /// A clock that has measured its offset.
    pub(crate) fn new() -> Self {
        let mut clock = Self { offset_ms: 0, measured_at_ms: 0 };
        clock.measure(monotonic_ns() / 1_000_000);
        clock
    }

    /// This instant, and the nanoseconds it was made of.
    #[inline]
    pub(crate) fn now(&mut self) -> (Now, u64) {
        let mono_ns = monotonic_ns();
        let mono_ms = mono_ns / 1_000_000;
        if mono_ms - self.measured_at_ms >= OFFSET_AGE_MS_MAX {
            self.measure(mono_ms);
        }
        (Now { mono_ms, unix_ms: mono_ms.wrapping_add(self.offset_ms) }, mono_ns)
    }

    /// Measures the wall clock's distance; it may be set at any time.
    fn measure(&mut self, mono_ms: u64) {
        self.offset_ms = (read_ns(libc::CLOCK_REALTIME) / 1_000_000).wrapping_sub(mono_ms);
        self.measured_at_ms = mono_ms;
    }
}
