//! The overload guard: when a shard has too much to do, and what it then does not take on (SEED-LSN-24).
//!
//! It only decides. Ticks are timed by the reactor, memory is measured by the control plane; both come in as figures. What is
//! too high has to fall well below the limit, and stay there for a second, before it counts as mended.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use config::OverloadSettings;
use mqtt::ReasonCode;
use ring::ShardId;

/// Time the figures are averaged over.
const WINDOW_MS: u64 = 250;
/// Time between two times that memory is given back.
const GIVE_BACK_MS: u64 = 1000;
/// Windows in a row that must be fine before the shard is.
const CALM_WINDOWS: u32 = 4;
/// Bytes that may wait for a client of an overloaded shard before `QoS` 0 to it is dropped: one that reads has less.
pub(crate) const SLOW_BYTES: usize = 32 * 1024;

const US_PER_MS: u64 = 1000;

/// What a shard has too much of; a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Causes(u8);

impl Causes {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The memory of the process: the same for all shards.
    pub const MEMORY: Self = Self(1);
    /// Its ticks are too long.
    pub const TICK_TIME: Self = Self(1 << 1);
    /// Messages wait because rings to other shards are full.
    pub const MESH_QUEUE: Self = Self(1 << 2);

    /// Whether it has one of these.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn set(&mut self, which: Self, on: bool) {
        self.0 = if on { self.0 | which.0 } else { self.0 & !which.0 };
    }
}

/// A figure with a limit: raised at it, cleared well below it. A limit of 0 is never reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    high: u64,
    low: u64,
    raised: bool,
}

impl Watermark {
    /// Raised from `high` on, cleared below `low`.
    #[must_use]
    pub const fn new(high: u64, low: u64) -> Self {
        Self { high, low, raised: false }
    }

    /// Looks at the figure; whether the watermark is raised now.
    pub const fn look(&mut self, figure: u64) -> bool {
        self.raised = self.high > 0 && (figure >= self.high || (self.raised && figure >= self.low));
        self.raised
    }

    /// Where it is raised.
    #[must_use]
    pub const fn high(&self) -> u64 {
        self.high
    }
}

/// What the control plane tells the shards of the node's memory, and what each shard tells of itself. Beside it shards share
/// nothing but the mesh and the counts of listeners; each line of it is written when something changes, and read once a tick.
#[derive(Debug)]
pub struct OverloadBoard {
    memory: AtomicBool,
    shards: Box<[AtomicU8]>,
}

impl OverloadBoard {
    /// For so many shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        let shards = (0..shards).map(|_| AtomicU8::new(0)).collect();
        Self { memory: AtomicBool::new(false), shards }
    }

    /// Says whether the process has too much memory.
    pub fn set_memory(&self, is_high: bool) {
        self.memory.store(is_high, Ordering::Relaxed);
    }

    /// What a shard has too much of, memory apart.
    #[must_use]
    pub fn causes(&self, shard: ShardId) -> Causes {
        Causes(self.shards[shard.index()].load(Ordering::Relaxed))
    }
}

/// Decides for one shard.
#[derive(Debug)]
pub(crate) struct Guard {
    enabled: bool,
    causes: Causes,
    tick_time: Watermark,
    mesh_queue: Watermark,
    /// When the window began.
    since_ms: u64,
    /// The squares of the lengths of its ticks, in microseconds.
    squares_us: u64,
    calm: u32,
    /// When memory may be given back again; while there is too much.
    gives_back_ms: u64,
}

impl Guard {
    pub fn new(settings: &OverloadSettings, now_ms: u64) -> Self {
        let half = |high: u64| Watermark::new(high, high / 2);
        Self {
            enabled: settings.enable,
            causes: Causes::NONE,
            tick_time: half(settings.tick_time_ms * US_PER_MS),
            mesh_queue: half(u64::try_from(settings.mesh_queue).unwrap_or(u64::MAX)),
            since_ms: now_ms,
            squares_us: 0,
            calm: 0,
            gives_back_ms: 0,
        }
    }

    /// A tick took so long.
    #[inline]
    pub fn tick_took(&mut self, busy_us: u64) {
        self.squares_us = self.squares_us.saturating_add(busy_us.saturating_mul(busy_us));
    }

    /// Whether a window is over, so that [`Guard::look`] is due.
    #[inline]
    pub const fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.since_ms + WINDOW_MS
    }

    /// Looks at the window that is over. `mesh_queue` is what waits now.
    pub fn look(&mut self, now_ms: u64, mesh_queue: usize) {
        if !self.enabled {
            return;
        }
        // A tick that is long weighs as much more as it lasts: the mean is the tick a newcomer's packet meets.
        let elapsed_us = (now_ms - self.since_ms).max(1) * US_PER_MS;
        let tick_us = self.squares_us / elapsed_us;
        (self.since_ms, self.squares_us) = (now_ms, 0);
        let mut found = Causes::NONE;
        found.set(Causes::TICK_TIME, self.tick_time.look(tick_us));
        found.set(
            Causes::MESH_QUEUE,
            self.mesh_queue.look(u64::try_from(mesh_queue).unwrap_or(u64::MAX)),
        );
        let own = self.own();
        if found.0 & !own.0 == 0 && found != own {
            // Less than before: for how long?
            self.calm += 1;
            if self.calm < CALM_WINDOWS {
                return;
            }
        }
        self.calm = 0;
        self.causes = Causes(found.0 | self.causes.0 & Causes::MEMORY.0);
    }

    /// The process has too much memory, or no more.
    #[inline]
    pub fn set_memory(&mut self, is_high: bool) {
        self.causes.set(Causes::MEMORY, is_high && self.enabled);
    }

    /// Whether it is time to give memory back that is free: now and then, while there is too much.
    #[inline]
    pub fn gives_back(&mut self, now_ms: u64) -> bool {
        let is_time = self.causes.has(Causes::MEMORY) && now_ms >= self.gives_back_ms;
        if is_time {
            self.gives_back_ms = now_ms + GIVE_BACK_MS;
        }
        is_time
    }

    /// What there is too much of.
    #[inline]
    pub const fn causes(&self) -> Causes {
        self.causes
    }

    /// What this shard has too much of by itself.
    const fn own(&self) -> Causes {
        Causes(self.causes.0 & !Causes::MEMORY.0)
    }

    /// When to look again though nothing happens, so that an alarm of a shard that has come to rest ends.
    pub fn next_look_ms(&self) -> Option<u64> {
        (self.own() != Causes::NONE).then_some(self.since_ms + WINDOW_MS)
    }

    /// Why a client that connects is refused, if it is.
    pub const fn refusal(&self) -> Option<ReasonCode> {
        if self.causes.has(Causes::MEMORY) {
            Some(ReasonCode::QuotaExceeded)
        } else if self.causes.0 != 0 {
            Some(ReasonCode::ServerBusy)
        } else {
            None
        }
    }
}

impl crate::Shard {
    /// How long the tick was busy, without the waiting, in microseconds.
    pub fn tick_took(&mut self, busy_us: u64) {
        self.tick_histogram.record_us(busy_us);
        self.guard.tick_took(busy_us);
    }

    /// Whether the shard's thread is to give back memory that is free, as the process has too much, or much was given up. Asked
    /// once a tick.
    #[inline]
    pub fn wants_memory_back(&mut self) -> bool {
        let now_ms = self.clients.now.mono_ms;
        self.guard.gives_back(now_ms) || self.clients.away.gives_back(now_ms)
    }

    /// At the begin of a tick.
    #[inline]
    pub(crate) fn watch_overload(&mut self) {
        let before = self.guard.causes();
        self.guard.set_memory(self.overload_board.memory.load(Ordering::Relaxed));
        let now_ms = self.clients.now.mono_ms;
        if self.guard.is_due(now_ms) {
            self.guard.look(now_ms, self.mesh.control_waiting());
        }
        if self.guard.causes() != before {
            self.overload_changed();
        }
    }

    fn overload_changed(&mut self) {
        let is_overloaded = self.guard.refusal().is_some();
        let most = self.settings.conn.pending_bytes_max;
        self.clients.qos0_bytes_max = if is_overloaded { most.min(SLOW_BYTES) } else { most };
        self.clients.metrics.set(metrics::Gauge::Overloaded, u64::from(is_overloaded));
        self.overload_board.shards[self.id.index()].store(self.guard.own().0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::{Desk, connect, publish};
    use crate::effect::{CloseMode, Effect};

    fn guard() -> Guard {
        let settings = OverloadSettings { tick_time_ms: 100, mesh_queue: 10, ..Default::default() };
        Guard::new(&settings, 1000)
    }

    #[test]
    fn a_watermark_is_raised_at_its_limit_and_cleared_well_below() {
        let mut mark = Watermark::new(100, 90);
        let seen = [99, 100, 95, 90, 89, 95, 100].map(|figure| mark.look(figure));
        assert_eq!(seen, [false, true, true, true, false, false, true]);
        assert!(!Watermark::new(0, 0).look(u64::MAX), "no limit");
    }

    #[test]
    fn long_ticks_raise_it_and_a_calm_second_clears_it() {
        let mut guard = guard();
        // One tick of 100 ms in a quarter of a second is no overload; two of 120 ms and nothing else are.
        guard.tick_took(100_000);
        guard.look(1250, 0);
        assert_eq!(guard.causes(), Causes::NONE);
        guard.tick_took(120_000);
        guard.tick_took(120_000);
        guard.look(1500, 0);
        assert_eq!(
            (guard.causes(), guard.refusal()),
            (Causes::TICK_TIME, Some(ReasonCode::ServerBusy))
        );
        assert_eq!(guard.next_look_ms(), Some(1750));
        for window in 1..=3 {
            guard.look(1500 + window * 250, 0);
            assert!(guard.refusal().is_some(), "not calm for long enough: {window}");
        }
        guard.look(2500, 0);
        assert_eq!((guard.refusal(), guard.next_look_ms()), (None, None));
    }

    #[test]
    fn many_short_ticks_are_no_overload() {
        let mut guard = guard();
        // Never idle, 5 ms each.
        (0..50).for_each(|_| guard.tick_took(5000));
        guard.look(1250, 0);
        assert_eq!(guard.refusal(), None);
        guard.tick_took(u64::MAX);
        guard.look(1500, 0);
        assert!(guard.refusal().is_some());
    }

    #[test]
    fn the_queue_between_shards_counts_and_calm_begins_anew_after_a_relapse() {
        let mut guard = guard();
        guard.look(1250, 10);
        assert_eq!(guard.causes(), Causes::MESH_QUEUE);
        guard.look(1500, 4);
        guard.look(1750, 4);
        guard.look(2000, 12);
        for at_ms in [2250, 2500, 2750] {
            guard.look(at_ms, 0);
            assert!(guard.causes().has(Causes::MESH_QUEUE), "{at_ms}");
        }
        guard.look(3000, 0);
        assert_eq!(guard.causes(), Causes::NONE);
    }

    #[test]
    fn memory_goes_before_the_rest_and_off_is_off() {
        let mut guard = guard();
        guard.look(1250, 10);
        guard.set_memory(true);
        assert_eq!(guard.refusal(), Some(ReasonCode::QuotaExceeded));
        let asked = [1300, 1400, 2299, 2300].map(|now_ms| guard.gives_back(now_ms));
        assert_eq!(asked, [true, false, false, true]);
        guard.set_memory(false);
        assert!(!guard.gives_back(9999));
        assert_eq!(guard.refusal(), Some(ReasonCode::ServerBusy));
        let settings = OverloadSettings { enable: false, ..Default::default() };
        let mut off = Guard::new(&settings, 1000);
        off.set_memory(true);
        off.tick_took(10_000_000);
        off.look(1250, usize::MAX);
        assert_eq!(off.refusal(), None);
    }

    #[test]
    fn an_overloaded_shard_takes_no_newcomers_and_goes_on_with_who_is_there() {
        let mut desk = Desk::new(&[]);
        let there = desk.accept(0, "10.0.0.1:5");
        desk.tick(1, Some((there, &connect("there", 60))));
        let half_way = desk.accept(0, "10.0.0.1:6");
        desk.board.set_memory(true);
        desk.tick(1, None);
        let new = desk.accept(0, "10.0.0.1:7");
        let sent = desk.tick(1, Some((half_way, &connect("half", 60))));
        assert!(desk.asked(Effect::Close { id: new, mode: CloseMode::Now }));
        assert_eq!(sent, [(half_way, vec![0x20, 2, 0, 3])], "return code 3: server unavailable");
        assert_eq!(desk.ended(0, "overloaded"), 2);
        let sent = desk.tick(1, Some((there, &[0xc0, 0])));
        assert_eq!(sent, [(there, vec![0xd0, 0])]);
        desk.board.set_memory(false);
        desk.tick(1, None);
        let new = desk.accept(0, "10.0.0.1:8");
        let sent = desk.tick(1, Some((new, &connect("new", 60))));
        assert_eq!(sent, [(new, vec![0x20, 2, 0, 0])]);
        assert_eq!(desk.ended(0, "overloaded"), 2);
    }

    #[test]
    fn a_client_of_mqtt_5_is_told_which_it_is() {
        let connect = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 1, b'a'];
        for (memory, reason) in [(true, 0x97), (false, 0x89)] {
            let mut desk = Desk::new(&[("overload.tick_time", "1ms")]);
            let client = desk.accept(0, "10.0.0.1:5");
            desk.board.set_memory(memory);
            desk.shard.tick_took(1_000_000);
            desk.tick(300, None);
            let sent = desk.tick(1, Some((client, &connect)));
            assert_eq!(sent[0].1[..4], [0x20, 3, 0, reason]);
        }
    }

    #[test]
    fn qos_0_to_slow_clients_is_dropped_first_and_counted_apart() {
        use metrics::{DropKind, DropReason};
        let mut desk = Desk::new(&[]);
        let client = desk.accept(0, "10.0.0.1:5");
        desk.tick(1, Some((client, &connect("a", 60))));
        desk.tick(1, Some((client, &[0x82, 6, 0, 1, 0, 1, b't', 0])));
        let many: Vec<u8> = (0..1000).flat_map(|_| publish("t", &"x".repeat(100))).collect();
        let dropped = |desk: &Desk, reason| desk.shard.metrics().dropped(DropKind::Qos0, reason);
        // What a client has not been sent yet at the end of a tick is at most what came in it.
        let sent = desk.tick(1, Some((client, &many)));
        assert_eq!(sent[0].1.len(), many.len());
        desk.board.set_memory(true);
        let sent = desk.tick(1, Some((client, &many)));
        assert!((SLOW_BYTES..SLOW_BYTES + 200).contains(&sent[0].1.len()), "{}", sent[0].1.len());
        let lost = dropped(&desk, DropReason::Overloaded);
        assert_eq!(lost, 1000 - (sent[0].1.len() / 105) as u64);
        assert_eq!(dropped(&desk, DropReason::OutboxFull), 0);
    }
}
