//! The rings of one shard.
//!
//! A direct descriptor table has at most as many entries as the process may have open files, and a ring has one table. So a
//! shard that is to hold more connections has several rings, its *lanes*. It waits in the first, the main lane; the others
//! write the shard's eventfd, whose read is armed there, when something happens. A lane is added when the tables that are
//! there are nearly full, so a machine with a high limit of open files never has a second one.
//!
//! A connection's index counts through all lanes: the lane in the upper bits, the slot of its table in the lower ones.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use io_uring::{squeue, types};
use shard::ConnectionId;

use crate::ReactorSettings;
use crate::buffers::Buffers;
use crate::ring_setup::{Port, RingError, Wait, descriptors_max};
use crate::sends::EagerSend;

/// Part of the slots, as a divisor, that are free at least; otherwise a lane is added.
const FREE_SHARE: u64 = 8;
/// Part of a table, as a divisor, that another lane must have more of free before it is the one that fills up.
const FILL_SHARE: u32 = 16;
/// What a further lane has of the main lane's queues and receive buffers, as a divisor.
pub const FURTHER_SHARE: u32 = 4;
/// Receive buffers of a further lane at the least.
const BUFFERS_LEAST: u16 = 32;

/// One ring, its receive buffers, and the use of its table.
pub(crate) struct Lane {
    // The ring before the buffers: it is dropped first.
    pub(crate) port: Port,
    pub(crate) buffers: Buffers,
    /// Slots in use.
    used: u32,
    /// Connections whose receive ended because all buffers were in use.
    pub(crate) starved: VecDeque<ConnectionId>,
    /// Eager sends that were not seen to be done, in the order of their submission.
    eager: VecDeque<EagerSend>,
    /// How many of them were submitted by an enter, and how many completions there were right after it.
    marks: VecDeque<(usize, Option<u64>)>,
    /// How many were not submitted by any.
    unmarked: usize,
}

impl Lane {
    /// Makes a ring of a part of the settings' sizes.
    fn new(settings: &ReactorSettings, table: u32, share: u32) -> Result<Self, RingError> {
        let sizes = ReactorSettings {
            submission_entries: (settings.submission_entries / share).max(1),
            completion_entries: (settings.completion_entries / share).max(2),
            ..settings.clone()
        };
        let least = BUFFERS_LEAST.min(settings.buffers);
        let buffers = (u32::from(settings.buffers) / (share * share)).max(u32::from(least));
        let buffers = u16::try_from(buffers).expect("not more than there were");
        let port = Port::new(&sizes, table, share == 1)?;
        let buffers = Buffers::register(&port.submitter(), buffers, settings.buffer_bytes)
            .map_err(|error| RingError::Buffers(buffers, settings.buffer_bytes, error))?;
        Ok(Self {
            port,
            buffers,
            used: 0,
            starved: VecDeque::new(),
            eager: VecDeque::new(),
            marks: VecDeque::new(),
            unmarked: 0,
        })
    }

    /// Enters; the eager sends that it submits are done when the completions that are there afterwards were seen: one that
    /// fails makes its completion while it is submitted.
    pub(crate) fn enter(&mut self, wait: Wait) {
        self.port.enter(wait);
        // What the kernel holds back because the queue is full is not counted: the next enter may tell.
        let posted = (!self.port.overflowed()).then(|| self.port.posted());
        if posted.is_some() {
            for (_, mark) in self.marks.iter_mut().rev().take_while(|(_, mark)| mark.is_none()) {
                *mark = posted;
            }
        }
        if self.unmarked > 0 && !self.port.has_unsubmitted() {
            self.marks.push_back((std::mem::take(&mut self.unmarked), posted));
        }
    }

    /// An eager send was queued.
    pub(crate) fn queued_eager(&mut self, send: EagerSend) {
        self.eager.push_back(send);
        self.unmarked += 1;
    }

    /// The next eager send of which is known that it is done, unless a completion has said otherwise.
    pub(crate) fn next_eager(&mut self) -> Option<EagerSend> {
        let (count, mark) = self.marks.front_mut()?;
        if mark.is_none_or(|mark| mark > self.port.reaped()) {
            return None;
        }
        *count -= 1;
        if *count == 0 {
            self.marks.pop_front();
        }
        self.eager.pop_front()
    }

    /// Slots that are free at least before a lane is added, if it is the only one.
    fn reserve(&self) -> u64 {
        u64::from(self.port.table_entries).div_ceil(FREE_SHARE)
    }

    /// A small part of its table.
    fn step(&self) -> u32 {
        (self.port.table_entries / FILL_SHARE).max(1)
    }

    /// Slots of its table that are free.
    fn free(&self) -> u32 {
        self.port.table_entries.saturating_sub(self.used)
    }
}

/// How many slots the tables of a shard have.
struct Tables {
    /// Bits of an index below those of the lane.
    bits: u32,
    /// Of the first table.
    entries: u32,
    /// Of all there may be.
    all: u64,
}

impl Tables {
    fn of(settings: &ReactorSettings) -> Self {
        let allowed = descriptors_max().min(settings.table_entries_max.unwrap_or(u32::MAX)).max(1);
        let wanted = settings.connections_max.unwrap_or(u32::MAX);
        if wanted <= allowed {
            return Self { bits: u32::BITS - 1, entries: wanted, all: u64::from(wanted) };
        }
        // An index is taken apart by a shift; between the tables there may be indices that nobody has.
        let bits = allowed.next_power_of_two().ilog2();
        let lanes_max = u64::from(settings.rings_max.max(1)).min(1 << (u32::BITS - bits));
        let all = (lanes_max * u64::from(allowed)).min(u64::from(wanted));
        Self { bits, entries: allowed, all }
    }
}

impl ReactorSettings {
    /// Most connections of one shard, as `RLIMIT_NOFILE` is now.
    #[must_use]
    pub fn connections_per_shard(&self) -> u64 {
        Tables::of(self).all
    }
}

/// The lanes of a shard.
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    /// Bits of an index below those of the lane.
    bits: u32,
    /// Slots that further lanes may have together.
    left: u64,
    /// The lane whose table new connections go to.
    fill: usize,
    /// No lane is added before this time: one could not be made.
    rests_until_ms: u64,
    /// Written by all lanes but the first.
    event: Arc<File>,
}

impl Lanes {
    /// The main lane; the calling thread must be the shard's.
    pub(crate) fn new(settings: &ReactorSettings, event: Arc<File>) -> Result<Self, RingError> {
        let Tables { bits, entries, all } = Tables::of(settings);
        let main = Lane::new(settings, entries, 1)?;
        let left = all - u64::from(entries);
        Ok(Self { lanes: vec![main], bits, left, fill: 0, rests_until_ms: 0, event })
    }

    /// Slots there may be, with all lanes that may be added.
    pub(crate) fn capacity(&self) -> u64 {
        let here: u64 = self.lanes.iter().map(|lane| u64::from(lane.port.table_entries)).sum();
        here + self.left
    }

    /// How many there are.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.lanes.len()
    }

    /// The lane of an index.
    #[inline]
    pub(crate) fn of(&self, index: u32) -> usize {
        (index >> self.bits) as usize
    }

    /// The direct descriptor of an index, in its lane's table.
    #[inline]
    pub(crate) fn fixed(&self, index: u32) -> types::Fixed {
        types::Fixed(index & ((1 << self.bits) - 1))
    }

    /// The index of a slot of a lane's table.
    #[inline]
    pub(crate) fn index(&self, lane: usize, slot: u32) -> u32 {
        u32::try_from(lane).expect("few lanes") << self.bits | slot
    }

    /// A lane.
    #[inline]
    pub(crate) fn at(&mut self, lane: usize) -> &mut Lane {
        &mut self.lanes[lane]
    }

    /// The ring the shard waits in.
    #[inline]
    pub(crate) fn main(&mut self) -> &mut Port {
        &mut self.lanes[0].port
    }

    /// Queues an operation on a connection; see [`Port::push`].
    ///
    /// # Safety
    /// What the entry points to must stay valid until its (last) completion was reaped.
    #[inline]
    pub(crate) unsafe fn push(&mut self, index: u32, entry: &squeue::Entry) {
        let lane = self.of(index);
        // SAFETY: as the caller promises.
        unsafe { self.lanes[lane].port.push(entry) };
    }

    /// Queues an operation on a connection whose success makes no completion; see [`Port::push_uncounted`].
    ///
    /// # Safety
    /// What the entry points to must stay valid until the kernel has done it.
    #[inline]
    pub(crate) unsafe fn push_uncounted(&mut self, index: u32, entry: &squeue::Entry) {
        let lane = self.of(index);
        // SAFETY: as the caller promises.
        unsafe { self.lanes[lane].port.push_uncounted(entry) };
    }

    /// Counts the last completion of an operation on a connection.
    #[inline]
    pub(crate) fn completed(&mut self, index: u32) {
        let lane = self.of(index);
        self.lanes[lane].port.completed();
    }

    /// The buffers a connection receives into.
    #[inline]
    pub(crate) fn buffers(&mut self, index: u32) -> &mut Buffers {
        let lane = self.of(index);
        &mut self.lanes[lane].buffers
    }

    /// Operations of all lanes whose last completion has not come.
    pub(crate) fn in_flight(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.port.in_flight()).sum()
    }

    /// Gives the released buffers of all lanes back to the kernel.
    #[inline]
    pub(crate) fn publish_buffers(&mut self) {
        for lane in &mut self.lanes {
            lane.buffers.publish();
        }
    }

    /// Whether completions of a lane wait in the kernel because its completion queue is full.
    #[inline]
    pub(crate) fn overflowed(&mut self) -> bool {
        self.lanes.iter_mut().any(|lane| lane.port.overflowed())
    }

    /// Whether the last enters left operations that the kernel has not taken.
    #[inline]
    pub(crate) fn has_unsubmitted(&self) -> bool {
        self.lanes.iter().any(|lane| lane.port.has_unsubmitted())
    }

    /// Whether an enter would find work, or completions are there.
    #[inline]
    pub(crate) fn has_work(&mut self) -> bool {
        self.lanes.iter_mut().any(|lane| lane.port.has_work())
    }

    /// Runs what the kernel has put off on the lanes that were not waited in, so that their completions are there.
    #[inline]
    pub(crate) fn run_deferred(&mut self) {
        for lane in &mut self.lanes[1..] {
            if lane.port.is_deferring() {
                lane.enter(Wait::No);
            }
        }
    }

    /// Runs what the kernel has put off on any lane: it does so many pieces in one enter and keeps the rest. False: nothing was
    /// there.
    pub(crate) fn run_rest(&mut self) -> bool {
        let mut has_run = false;
        for lane in &mut self.lanes {
            if lane.port.is_deferring() {
                lane.buffers.publish();
                lane.enter(Wait::No);
                has_run = true;
            }
        }
        has_run
    }

    /// Submits to all lanes and waits in the main one, if nothing is there yet.
    #[inline]
    pub(crate) fn enter(&mut self, wait: Wait) {
        let mut wait = wait;
        for lane in &mut self.lanes[1..] {
            if lane.port.has_queued() {
                lane.enter(Wait::No);
            }
            if wait == Wait::Yes {
                lane.port.signal_completions();
            }
            if lane.port.has_work() || lane.port.has_unsubmitted() {
                wait = Wait::No;
            }
        }
        self.lanes[0].enter(wait);
        for lane in &mut self.lanes[1..] {
            lane.port.silence_completions();
        }
    }

    /// The lane new connections go to.
    #[inline]
    pub(crate) fn fill(&self) -> usize {
        self.fill
    }

    /// Whether the lane new connections go to has a free slot.
    pub(crate) fn has_room(&self) -> bool {
        self.lanes[self.fill].free() > 0
    }

    /// The descriptor of the ring new connections go to, for `MSG_RING`.
    pub(crate) fn fill_fd(&self) -> RawFd {
        self.lanes[self.fill].port.fd()
    }

    /// Counts a slot as used. True: it is time for [`Lanes::choose_fill`].
    #[inline]
    pub(crate) fn occupied(&mut self, index: u32) -> bool {
        let lane = self.of(index);
        let lane = &mut self.lanes[lane];
        lane.used += 1;
        lane.used.is_multiple_of(lane.step()) || u64::from(lane.free()) < lane.reserve()
    }

    /// Counts a slot as free. True: it is time for [`Lanes::choose_fill`].
    #[inline]
    pub(crate) fn freed(&mut self, index: u32) -> bool {
        let lane = self.of(index);
        self.lanes[lane].used -= 1;
        lane != self.fill && self.lanes[self.fill].free() == 0
    }

    /// Takes the emptiest lane, if it is much emptier or the one that fills up is full. True: it is another one, or there
    /// should be one more.
    pub(crate) fn choose_fill(&mut self) -> bool {
        let best = (0..self.lanes.len()).max_by_key(|lane| self.lanes[*lane].free()).expect("one");
        let (most, free) = (self.lanes[best].free(), self.lanes[self.fill].free());
        let step = self.lanes[self.fill].step();
        // Before it is full: accepts and hand-overs that are on their way go there too.
        let is_other = most > free + step || (free <= step && most > 2 * free);
        if is_other {
            self.fill = best;
        }
        is_other || self.is_short()
    }

    /// Whether the tables are nearly full and there may be one more, apart from the rest after one that could not be made.
    pub(crate) fn is_short(&self) -> bool {
        let (free, reserve) = self.lanes.iter().fold((0, 0), |(free, reserve), lane| {
            (free + u64::from(lane.free()), reserve + lane.reserve())
        });
        self.left > 0 && free < reserve
    }

    /// Whether a lane should be added now.
    pub(crate) fn wants_lane(&self, now_ms: u64) -> bool {
        self.is_short() && now_ms >= self.rests_until_ms
    }

    /// Adds a lane, which new connections go to from now on.
    pub(crate) fn grow(&mut self, settings: &ReactorSettings) -> Result<(), RingError> {
        let entries = self.lanes[0].port.table_entries;
        let table = u32::try_from(self.left.min(entries.into())).expect("at most a table");
        let lane = Lane::new(settings, table, FURTHER_SHARE)?;
        lane.port
            .submitter()
            .register_eventfd(self.event.as_raw_fd())
            .map_err(RingError::EventFd)?;
        self.left -= u64::from(table);
        self.lanes.push(lane);
        self.choose_fill();
        Ok(())
    }

    /// Adds no lane for a while.
    pub(crate) fn rest_from_growing(&mut self, until_ms: u64) {
        self.rests_until_ms = until_ms;
    }
}
