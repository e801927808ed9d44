//! One core's loop: enter, completions into the shard, inboxes, timers, effects, enter.
//!
//! The driver waits in its own ring and nowhere else. Everything it borrows from the shard is borrowed for one tick.

use std::collections::VecDeque;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use io_uring::{cqueue, opcode, types};
use ring::{ShardId, ShardSet};
use shard::{ConnectionId, Effect, ListenerId, Now, ReceiveEnd};

use crate::ReactorSettings;
use crate::accept::Accepts;
use crate::admission::Admission;
use crate::clock::{Clock, monotonic_ns};
use crate::closing::Deadlines;
use crate::connect::Connects;
use crate::connection_io::Held;
use crate::core::Core;
use crate::counters::{ReactorCounter, ReactorCounters};
use crate::filters::{FilterTable, Filters};
use crate::hand_over::Moves;
use crate::lanes::Lanes;
use crate::listener::BoundListener;
use crate::ops::{Op, Tag};
use crate::ring_setup::{RingError, Wait};
use crate::ring_table::RingTable;
use crate::sends::Sends;
use crate::slots::{FILTERED, Phase, Slots};
use crate::timer::Timer;

/// Time after a ring that could not be made before the next is tried.
const GROWTH_REST_MS: u64 = 10_000;
/// Nanoseconds of a millisecond.
pub(crate) const NS_PER_MS: u64 = 1_000_000;
/// Completions copied out of the queue at a time.
const BATCH: usize = 256;
/// How often one tick with slow work asks the kernel for the completions it has put off, 20 at a time: who waits behind a crowd
/// waits for fewer ticks.
const DEFERRED_ROUNDS_MAX: usize = 8;
/// Rounds of effects that effects cause within one tick; the rest waits for the next tick.
const EFFECT_ROUNDS_MAX: usize = 4;
/// Time the kernel has to end what is in flight when a shard ends.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Receives cancelled at a time when a shard ends.
const END_SLICE: usize = 512;
/// Time between two looks for what has ended in the meantime.
const END_PAUSE: Duration = Duration::from_millis(1);

/// What may be asked of a running reactor itself.
pub(crate) enum Control {
    /// Accept from one more socket.
    Add(BoundListener),
    /// Stop accepting: from one listener, or from all.
    Remove(Option<ListenerId>),
}

/// How a tick ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TickEnd {
    /// Go on.
    Next,
    /// Go on, and let background work run in between.
    Background,
    /// The shard has stopped.
    Stopped,
}

/// What a driver is made of.
pub(crate) struct DriverSetup<C: Core> {
    pub(crate) id: ShardId,
    pub(crate) settings: ReactorSettings,
    pub(crate) multishot_accept: bool,
    pub(crate) table: Arc<RingTable>,
    pub(crate) filter_table: Arc<FilterTable>,
    pub(crate) counters: Arc<ReactorCounters>,
    pub(crate) commands: Receiver<C::Command>,
    pub(crate) controls: Receiver<Control>,
    pub(crate) event: Arc<File>,
}

/// One shard's loop and all it owns.
pub(crate) struct Driver<C: Core> {
    pub(crate) lanes: Lanes,
    pub(crate) id: ShardId,
    pub(crate) settings: ReactorSettings,
    pub(crate) slots: Slots,
    pub(crate) sends: Sends,
    pub(crate) moves: Moves,
    pub(crate) accepts: Accepts,
    pub(crate) admission: Admission,
    pub(crate) connects: Connects,
    pub(crate) filters: Filters,
    pub(crate) filter_table: Arc<FilterTable>,
    /// What waits for the next tick: a connection's share was used up, or it is of a TLS handshake.
    pub(crate) held: VecDeque<Held>,
    /// Ends of receives above the number of a tick.
    pub(crate) ends: VecDeque<(ConnectionId, ReceiveEnd)>,
    /// How many more ends this tick handles.
    pub(crate) ends_left: usize,
    /// Completions of the tick before.
    pub(crate) reaped: usize,
    /// Connections whose receive is to be armed at the end of the tick.
    pub(crate) to_arm: Vec<ConnectionId>,
    pub(crate) linger_sends: Deadlines,
    pub(crate) linger_drains: Deadlines,
    /// Connections to be flushed again: they were asked to while a send was in flight.
    pub(crate) flushes: Vec<ConnectionId>,
    /// Shards to be rung again.
    pub(crate) bells_due: ShardSet,
    /// Something happened after the shard's `finish_tick`: have another tick before waiting.
    pub(crate) again: bool,
    pub(crate) now: Now,
    pub(crate) counters: Arc<ReactorCounters>,
    pub(crate) table: Arc<RingTable>,
    /// The low bits of the tick's number, to tell for which tick a share was counted.
    pub(crate) tick: u8,
    pub(crate) timer: Timer,
    clock: Clock,
    effects: Vec<Effect>,
    batch: Vec<MaybeUninit<cqueue::Entry>>,
    commands: Receiver<C::Command>,
    controls: Receiver<Control>,
    event: Arc<File>,
    /// Where the kernel writes the eventfd's count.
    event_count: Box<u64>,
    spin: Spin,
}

/// Looks for work a little before waiting, as long as that pays.
#[derive(Debug, Default)]
struct Spin {
    /// Waits to be done without looking, after looking was in vain.
    skip: u32,
    /// How many times in a row it was in vain.
    misses: u32,
}

impl<C: Core> Driver<C> {
    /// Makes the ring and its buffers on the calling thread, which must be the shard's.
    pub(crate) fn new(setup: DriverSetup<C>) -> Result<Self, RingError> {
        let settings = setup.settings;
        let lanes = Lanes::new(&settings, Arc::clone(&setup.event))?;
        let slots = Slots::default();
        let mut driver = Self {
            lanes,
            id: setup.id,
            slots,
            sends: Sends::default(),
            moves: Moves::default(),
            accepts: Accepts::new(setup.multishot_accept),
            admission: Admission::new(settings.admission),
            connects: Connects::default(),
            filters: Filters::default(),
            filter_table: setup.filter_table,
            held: VecDeque::new(),
            ends: VecDeque::new(),
            ends_left: 0,
            reaped: 0,
            to_arm: Vec::new(),
            linger_sends: Deadlines::new(),
            linger_drains: Deadlines::new(),
            flushes: Vec::new(),
            bells_due: ShardSet::EMPTY,
            again: false,
            now: Now::default(),
            counters: setup.counters,
            table: setup.table,
            tick: 0,
            timer: Timer::new(),
            clock: Clock::new(),
            effects: Vec::new(),
            batch: (0..BATCH).map(|_| MaybeUninit::uninit()).collect(),
            commands: setup.commands,
            controls: setup.controls,
            event: setup.event,
            event_count: Box::new(0),
            spin: Spin::default(),
            settings,
        };
        driver.arm_wake();
        Ok(driver)
    }

    /// One tick, from the clock to the next enter.
    pub(crate) fn tick(&mut self, core: &mut C) -> TickEnd {
        let (now, started_ns) = self.clock.now();
        self.now = now;
        self.tick = self.tick.wrapping_add(1);
        self.again = false;
        self.filters.handshakes_ns = 0;
        self.admission.begin_tick();
        core.begin_tick(now);
        if self.lanes.overflowed() {
            self.counters.add(ReactorCounter::CompletionOverflows, 1);
        }
        if !self.held.is_empty() {
            self.release_held(core);
        }
        self.release_ends(core);
        self.reap(core);
        if self.admission.count() > 0 {
            self.let_in(core);
        }
        core.run_inbox();
        self.run_commands(core);
        core.run_timers();
        self.run_timers(core);
        core.finish_tick();
        self.apply_effects(core);
        self.open_connections(core);
        self.lanes.publish_buffers();
        self.arm_receives();
        let background = core.has_background_work();
        let stopped = core.is_stopped();
        let wait = if background || stopped { Wait::No } else { self.choose_wait(core) };
        self.counters.add(ReactorCounter::Ticks, 1);
        core.tick_took((monotonic_ns() - started_ns) / 1000);
        self.lanes.enter(wait);
        core.unpark();
        match (stopped, background) {
            (true, _) => TickEnd::Stopped,
            (_, true) => TickEnd::Background,
            _ => TickEnd::Next,
        }
    }

    /// Whether to wait for the next completion, and how long. The shard is marked as parked if it may.
    fn choose_wait(&mut self, core: &mut C) -> Wait {
        if self.again || self.has_put_off() || !self.commands.is_empty() {
            return Wait::No;
        }
        let own_ms = [
            self.accepts.next_deadline_ms(),
            self.linger_sends.front().map(|(until_ms, _)| *until_ms),
            self.linger_drains.front().map(|(until_ms, _)| *until_ms),
            self.filters.next_deadline_ms(),
            // A shard whose queue was full is rung again soon.
            (!self.bells_due.is_empty()).then_some(self.now.mono_ms + 1),
        ];
        let own_ns = own_ms.into_iter().flatten().min().map(|at_ms| at_ms * NS_PER_MS);
        let deadline_ns = [core.next_deadline_ns(), own_ns].into_iter().flatten().min();
        let is_due = deadline_ns.is_some_and(|at_ns| at_ns <= self.now.mono_ms * NS_PER_MS);
        if is_due || self.spin_finds_work(core) || !core.prepare_park() {
            return Wait::No;
        }
        // Only now: who leaves a command after this look sees the shard parked and rings.
        if !self.commands.is_empty() || !self.controls.is_empty() {
            return Wait::No;
        }
        if let Some(at_ns) = deadline_ns {
            self.wait_at_most_until(at_ns);
        }
        Wait::Yes
    }

    /// Looks for work for `reactor.spin` before waiting. After looking in vain several times in a row it waits at once
    /// for a growing number of times.
    fn spin_finds_work(&mut self, core: &mut C) -> bool {
        if self.settings.spin_us == 0 {
            return false;
        }
        if self.spin.skip > 0 {
            self.spin.skip -= 1;
            return false;
        }
        // What was pushed must be on its way while we look.
        self.lanes.enter(Wait::No);
        let until_ns = monotonic_ns() + u64::from(self.settings.spin_us) * 1000;
        loop {
            let parked = core.prepare_park();
            core.unpark();
            if !parked || self.lanes.has_work() || !self.commands.is_empty() {
                self.spin.misses = 0;
                return true;
            }
            if monotonic_ns() >= until_ns {
                break;
            }
            for _ in 0..32 {
                std::hint::spin_loop();
            }
        }
        self.spin.misses = (self.spin.misses + 1).min(10);
        self.spin.skip = (1 << self.spin.misses) / 8;
        false
    }

    /// Takes completions, up to a tick's number; each tick another lane is the first.
    fn reap(&mut self, core: &mut C) {
        self.lanes.run_deferred();
        let most = self.settings.tick_completions_max.max(1);
        let mut left = most;
        let (lanes, first) = (self.lanes.count(), usize::from(self.tick));
        for round in 0..DEFERRED_ROUNDS_MAX {
            if round > 0 && !(self.has_put_off() && self.lanes.run_rest()) {
                break;
            }
            for turn in 0..lanes {
                left -= self.reap_lane(core, (first + turn) % lanes, left);
            }
        }
        self.reaped = most - left;
        self.finish_eager(core);
        self.again |= left == 0 || self.lanes.overflowed() || self.lanes.has_unsubmitted();
    }

    /// Takes the completions of one lane, at most so many. Gives their number; if it is less, all were seen.
    fn reap_lane(&mut self, core: &mut C, lane: usize, most: usize) -> usize {
        let mut batch = std::mem::take(&mut self.batch);
        let mut taken = 0;
        while taken < most {
            let room = (most - taken).min(batch.len());
            let completions = self.lanes.at(lane).port.reap(&mut batch[..room]);
            if completions.is_empty() {
                break;
            }
            taken += completions.len();
            for completion in completions {
                self.complete(core, lane, completion);
            }
        }
        self.batch = batch;
        taken
    }

    /// Handles one completion of a lane.
    #[inline]
    fn complete(&mut self, core: &mut C, lane: usize, completion: &cqueue::Entry) {
        let (tag, result) = (Tag(completion.user_data()), completion.result());
        let flags = completion.flags();
        match tag.op() {
            Some(Op::Receive) => self.on_receive(core, tag, result, flags),
            Some(Op::Send) => self.on_send(core, tag, result),
            // Both only end the wait: the inbox is looked at in every tick.
            Some(Op::Doorbell | Op::Ignored) => {}
            Some(Op::Accept) => self.on_accept(core, lane, completion),
            Some(Op::PeerName) => self.on_peer_name(core, tag, result),
            Some(Op::Shutdown) => self.on_shutdown(core, tag),
            Some(Op::Close) => self.on_close(core, tag, result),
            Some(Op::DoorbellSent) => self.on_doorbell_failed(tag),
            Some(Op::HandOver) => self.on_hand_over(core, lane, tag, result),
            Some(Op::HandOverSent) => self.on_hand_over_sent(core, tag, result),
            Some(Op::Wake) => {
                self.lanes.main().completed();
                self.arm_wake();
            }
            Some(Op::Timer) => self.on_timer(),
            Some(Op::Install) => self.on_install(core, lane, tag, result),
            Some(Op::Connect) => self.on_connect(core, tag, result),
            Some(Op::StillThere) => self.on_still_there(core, tag, result),
            None => panic!("a completion with the unknown tag {:#x}", tag.0),
        }
    }

    /// Arms the read of the eventfd.
    fn arm_wake(&mut self) {
        let fd = types::Fd(self.event.as_raw_fd());
        let entry = opcode::Read::new(fd, (&raw mut *self.event_count).cast(), 8)
            .build()
            .user_data(Tag::new(Op::Wake, 0, 0).0);
        // SAFETY: the count is boxed and lives as long as the driver, whose end waits for what is in flight.
        unsafe { self.lanes.main().push(&entry) };
    }

    /// Takes a slot the kernel gave out; makes sure that there are slots for those to come.
    pub(crate) fn occupy(&mut self, core: &mut C, index: u32, phase: Phase) {
        self.reclaim(core, index);
        self.slots.occupy(index, phase);
        if self.lanes.occupied(index) {
            self.choose_lane();
        }
    }

    /// Makes the emptiest lane the one new connections go to; adds one if all are nearly full.
    pub(crate) fn choose_lane(&mut self) {
        if !self.lanes.choose_fill() {
            return;
        }
        if self.lanes.wants_lane(self.now.mono_ms) {
            match self.lanes.grow(&self.settings) {
                Ok(()) => self.counters.add(ReactorCounter::RingsAdded, 1),
                Err(error) => {
                    log::warn!("shard {}: no further ring for connections: {error}", self.id);
                    self.lanes.rest_from_growing(self.now.mono_ms + GROWTH_REST_MS);
                }
            }
        }
        self.table.set_arrivals(self.id, self.lanes.fill_fd());
        self.move_accepts();
    }

    /// Handles what the control plane left.
    fn run_commands(&mut self, core: &mut C) {
        core.take_foreign();
        for _ in 0..self.settings.tick_commands_max {
            let Ok(command) = self.commands.try_recv() else { break };
            core.command(command);
        }
        while let Ok(control) = self.controls.try_recv() {
            match control {
                Control::Add(listener) if !core.is_stopping() => self.add_listener(listener),
                Control::Add(_) => {}
                Control::Remove(only) => self.remove_listeners(only),
            }
        }
        if core.is_stopping() && !self.accepts.all_closed() {
            self.remove_listeners(None);
        }
    }

    /// Handles the reactor's own timers.
    fn run_timers(&mut self, core: &mut C) {
        self.run_accept_timers();
        self.run_linger_timers(core);
        self.run_filter_timers(core);
        if !self.bells_due.is_empty() {
            for shard in std::mem::take(&mut self.bells_due).iter() {
                self.ring_doorbell(shard);
            }
        }
    }

    /// Does what the shard asked for, and what that causes.
    fn apply_effects(&mut self, core: &mut C) {
        let mut effects = std::mem::take(&mut self.effects);
        for _ in 0..EFFECT_ROUNDS_MAX {
            effects.clear();
            core.drain_effects(&mut effects);
            if effects.is_empty() && self.flushes.is_empty() {
                self.effects = effects;
                return;
            }
            for effect in &effects {
                self.apply(core, *effect);
            }
            for place in 0..self.flushes.len() {
                let id = self.flushes[place];
                self.flush(core, id);
            }
            self.flushes.clear();
        }
        effects.clear();
        self.effects = effects;
        self.again = true;
    }

    /// Does one thing the shard asked for.
    #[inline]
    fn apply(&mut self, core: &mut C, effect: Effect) {
        match effect {
            Effect::Flush(id) => {
                self.adopt(id);
                self.flush(core, id);
            }
            Effect::StartReceive(id) | Effect::ResumeReceive(id) => {
                self.adopt(id);
                self.start_receive(id);
                if self.slots.live(id).is_some_and(|slot| slot.has(FILTERED)) {
                    self.start_filtered(core, id);
                }
            }
            Effect::PauseReceive(id) => {
                self.adopt(id);
                self.pause_receive(id);
            }
            Effect::HandOver { id, to, token } => self.hand_over(core, id, to, token),
            Effect::Farewell { id, why } => {
                self.adopt(id);
                self.will_say(id, why);
            }
            Effect::Close { id, mode } => {
                self.adopt(id);
                self.close(core, id, mode);
            }
            Effect::Doorbell(to) => self.ring_doorbell(to),
        }
    }

    /// Ends: stops accepting, closes what is open, and waits until the kernel holds nothing of ours. After that no
    /// buffer can be written or read any more. The core is told of nothing.
    pub(crate) fn end(mut self) {
        let all = opcode::AsyncCancel2::new(types::CancelBuilder::any())
            .build()
            .user_data(Tag::new(Op::Ignored, 0, 0).0);
        let until_ns = monotonic_ns() + u64::try_from(END_PATIENCE.as_nanos()).unwrap_or(u64::MAX);
        // Receives by what names them, in slices: a search for all operations takes time by the square of their number.
        let receives: Vec<Tag> =
            self.slots.armed().map(|id| Tag::new(Op::Receive, id.generation, id.index)).collect();
        for slice in receives.chunks(END_SLICE) {
            for tag in slice {
                self.cancel(*tag);
            }
            self.lanes.enter(Wait::No);
            for lane in 0..self.lanes.count() {
                self.discard(lane);
            }
            if monotonic_ns() >= until_ns {
                break;
            }
        }
        let mut in_flight = u64::MAX;
        while self.lanes.in_flight() > 0 && monotonic_ns() < until_ns {
            if in_flight != self.lanes.in_flight() {
                in_flight = self.lanes.in_flight();
                for lane in 0..self.lanes.count() {
                    // SAFETY: the entry points to no memory.
                    unsafe { self.lanes.at(lane).port.push_uncounted(&all) };
                }
            }
            self.lanes.run_deferred();
            self.lanes.enter(Wait::No);
            if !self.lanes.has_work() {
                std::thread::sleep(END_PAUSE);
            }
            for lane in 0..self.lanes.count() {
                self.discard(lane);
            }
        }
        let clean = self.lanes.in_flight() == 0;
        self.table.end(END_PATIENCE);
        if !clean {
            // The kernel may still write there: never give the memory back.
            log::warn!("shard {}: {} operations did not end", self.id, self.lanes.in_flight());
            std::mem::forget(self);
        }
    }

    /// Takes completions of a lane of which the core is told no more.
    fn discard(&mut self, lane: usize) {
        let mut batch = std::mem::take(&mut self.batch);
        for completion in self.lanes.at(lane).port.reap(&mut batch) {
            let (tag, flags) = (Tag(completion.user_data()), completion.flags());
            let uncounted = matches!(
                tag.op(),
                Some(Op::Ignored | Op::Doorbell | Op::DoorbellSent | Op::HandOver) | None
            );
            // An eager send that failed was never counted.
            let eager = tag.op() == Some(Op::Send) && {
                let slot = self.slots.get(tag.index());
                slot.is_some_and(|slot| self.sends.end_eager(slot.operation))
            };
            if !uncounted && !eager && !cqueue::more(flags) {
                self.lanes.at(lane).port.completed();
            }
        }
        self.batch = batch;
    }
}
