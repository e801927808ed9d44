//! The timer that ends the wait: one timeout that stands in the ring.
//!
//! A wait with a time limit of its own would arm and cancel a timer of the kernel each time, also when messages end nearly all
//! waits. The standing timeout is moved only when something is due before it; when it ends too early, that costs one tick.

use io_uring::{opcode, squeue, types};

use crate::core::Core;
use crate::driver::Driver;
use crate::ops::{Op, Tag};

/// The standing timeout.
#[derive(Debug)]
pub(crate) struct Timer {
    /// Where the kernel reads the time from; its address stays.
    time: Box<types::Timespec>,
    /// When it ends, on the monotonic clock. None: there is none.
    ends_ns: Option<u64>,
}

impl Timer {
    /// None stands.
    pub(crate) fn new() -> Self {
        Self { time: Box::new(types::Timespec::new()), ends_ns: None }
    }
}

impl<C: Core> Driver<C> {
    /// Makes sure that a wait ends at `at_ns`, or before.
    pub(crate) fn wait_at_most_until(&mut self, at_ns: u64) {
        let standing = self.timer.ends_ns;
        if standing.is_some_and(|ends_ns| ends_ns <= at_ns) {
            return;
        }
        self.timer.ends_ns = Some(at_ns);
        let nanoseconds = u32::try_from(at_ns % 1_000_000_000).expect("below 10^9");
        *self.timer.time = types::Timespec::new().sec(at_ns / 1_000_000_000).nsec(nanoseconds);
        let time = &raw const *self.timer.time;
        let timer = Tag::new(Op::Timer, 0, 0).0;
        if standing.is_some() {
            // If it has ended by itself in the meantime, its completion ends the wait, and the next one arms anew.
            let entry = opcode::TimeoutUpdate::new(timer, time).flags(types::TimeoutFlags::ABS);
            let entry = entry.build().user_data(Tag::new(Op::Ignored, 0, 0).0);
            // SAFETY: the time is boxed and lives as long as the driver.
            unsafe { self.lanes.main().push_uncounted(&entry.flags(squeue::Flags::SKIP_SUCCESS)) };
        } else {
            let entry = opcode::Timeout::new(time).flags(types::TimeoutFlags::ABS);
            // SAFETY: as above.
            unsafe { self.lanes.main().push(&entry.build().user_data(timer)) };
        }
    }

    /// The standing timeout ended.
    pub(crate) fn on_timer(&mut self) {
        self.lanes.main().completed();
        self.timer.ends_ns = None;
    }
}
