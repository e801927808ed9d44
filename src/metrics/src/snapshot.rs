//! The node's numbers: all shards' summed.

use crate::{Counter, DropKind, DropReason, Gauge, Origin, ShardMetrics, drop_name};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Metrics of EMQ 2.x that are no counters of their own but follow from the other tables.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Derived {
    /// `messages/dropped`: the sum of all drops but those of kind [`DropKind::Retained`], where
    /// the message itself was delivered, and those for [`DropReason::Discarded`], where a will had
    /// simply become void.
    MessagesDropped,
    /// `messages/qos2/dropped`: the sum of the drops of kind [`DropKind::Qos2`].
    MessagesQos2Dropped,
    /// `messages/retained`: the present count of [`Gauge::Retained`], as in EMQ: the one metric
    /// that can fall.
    MessagesRetained,
}

/// All derived metrics.
pub const DERIVED: [Derived; 3] =
    [Derived::MessagesDropped, Derived::MessagesQos2Dropped, Derived::MessagesRetained];

impl Derived {
    /// The name, such as `messages/dropped`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MessagesDropped => "messages/dropped",
            Self::MessagesQos2Dropped => "messages/qos2/dropped",
            Self::MessagesRetained => "messages/retained",
        }
    }

    /// One sentence that says what it is.
    pub const fn doc(self) -> &'static str {
        match self {
            Self::MessagesDropped => "Messages dropped, of all kinds and for all reasons.",
            Self::MessagesQos2Dropped => "Messages of QoS 2 dropped, for all reasons.",
            Self::MessagesRetained => "Retained messages at present.",
        }
    }

    /// Whether it only grows.
    pub const fn is_counter(self) -> bool {
        !matches!(self, Self::MessagesRetained)
    }
}

/// A gauge of the node.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub struct GaugeValue {
    /// The sum over the shards.
    pub count: u64,
    /// The high-water mark; see [`StatsKeeper`].
    pub max: u64,
}

/// The sums over all shards, as read in passing: each number is right, not all of one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    counters: [u64; Counter::ALL.len()],
    drops: [[u64; DropReason::ALL.len()]; DropKind::ALL.len()],
    gauges: [GaugeValue; Gauge::ALL.len()],
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            counters: [0; Counter::ALL.len()],
            drops: [[0; DropReason::ALL.len()]; DropKind::ALL.len()],
            gauges: [GaugeValue::default(); Gauge::ALL.len()],
        }
    }
}

impl Snapshot {
    /// Sums the shards. A gauge's `max` is at least its present count and at least the highest mark
    /// of any one shard; [`StatsKeeper::observe`] knows better.
    pub fn sum(shards: &[Arc<ShardMetrics>]) -> Self {
        let mut sums = Self::default();
        for shard in shards {
            for &counter in Counter::ALL {
                sums.counters[counter as usize] += shard.get(counter);
            }
            for &kind in DropKind::ALL {
                for &reason in DropReason::ALL {
                    sums.drops[kind as usize][reason as usize] += shard.dropped(kind, reason);
                }
            }
            for &gauge in Gauge::ALL {
                let value = &mut sums.gauges[gauge as usize];
                value.count += shard.count(gauge);
                value.max = value.max.max(shard.max(gauge));
            }
        }
        for value in &mut sums.gauges {
            value.max = value.max.max(value.count);
        }
        sums
    }

    /// A counter's sum.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// How many of a kind were dropped for a reason.
    pub fn dropped(&self, kind: DropKind, reason: DropReason) -> u64 {
        self.drops[kind as usize][reason as usize]
    }

    /// The pairs under which anything was dropped, with their names and counts.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DropKind::ALL.iter().flat_map(move |&kind| {
            let named = move |&reason| (drop_name(kind, reason), self.dropped(kind, reason));
            DropReason::ALL.iter().map(named).filter(|&(_, count)| count > 0)
        })
    }

    /// A gauge's count and mark.
    pub fn gauge(&self, gauge: Gauge) -> GaugeValue {
        self.gauges[gauge as usize]
    }

    /// A derived metric's value.
    pub fn derived(&self, derived: Derived) -> u64 {
        match derived {
            Derived::MessagesDropped => self.messages_dropped(),
            Derived::MessagesQos2Dropped => self.drops[DropKind::Qos2 as usize].iter().sum(),
            Derived::MessagesRetained => self.gauge(Gauge::Retained).count,
        }
    }

    fn messages_dropped(&self) -> u64 {
        let kinds = DropKind::ALL.iter().filter(|&&kind| kind != DropKind::Retained);
        let pairs = kinds.flat_map(|&kind| {
            let lost = DropReason::ALL.iter().filter(|&&reason| reason != DropReason::Discarded);
            lost.map(move |&reason| self.dropped(kind, reason))
        });
        pairs.sum()
    }

    /// The metrics of EMQ 2.x, sorted by name: exactly those 38 (SEED-MET-01 to 03, SEED-REST-25).
    pub fn emq_metrics(&self) -> Vec<(&'static str, u64)> {
        let counters = Counter::ALL.iter().filter(|counter| counter.origin() == Origin::Emq);
        self.rows(counters)
    }

    /// All metrics, sorted by name: those of EMQ, ours, and each drop pair that has occurred.
    pub fn metrics(&self) -> Vec<(&'static str, u64)> {
        let mut rows = self.rows(Counter::ALL.iter());
        rows.extend(self.drops());
        rows.sort_unstable();
        rows
    }

    fn rows<'a>(&self, counters: impl Iterator<Item = &'a Counter>) -> Vec<(&'static str, u64)> {
        let counters = counters.map(|&counter| (counter.name(), self.counter(counter)));
        let derived = DERIVED.iter().map(|&derived| (derived.name(), self.derived(derived)));
        let mut rows: Vec<_> = counters.chain(derived).collect();
        rows.sort_unstable();
        rows
    }

    /// The gauges as `<name>/count` and `<name>/max`, sorted by name (SEED-CLI-03).
    pub fn stats(&self) -> Vec<(&'static str, u64)> {
        let both = |&gauge: &Gauge| {
            let GaugeValue { count, max } = self.gauge(gauge);
            [(gauge.count_name(), count), (gauge.max_name(), max)]
        };
        let mut rows: Vec<_> = Gauge::ALL.iter().flat_map(both).collect();
        rows.sort_unstable();
        rows
    }
}

/// Keeps the node's high-water marks.
///
/// No shard knows the node's sum, so a mark is the highest sum seen by [`StatsKeeper::observe`],
/// which the control plane calls every second, or the highest mark of a single shard if that is
/// more. With one shard it is exact; with several a peak of the sum that comes and goes between two
/// looks is missed.
#[derive(Debug, Default)]
pub struct StatsKeeper {
    maxima: [AtomicU64; Gauge::ALL.len()],
}

impl StatsKeeper {
    /// A keeper that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sums the shards and raises the marks. Any thread may call it.
    pub fn observe(&self, shards: &[Arc<ShardMetrics>]) -> Snapshot {
        let mut sums = Snapshot::sum(shards);
        for (kept, value) in self.maxima.iter().zip(&mut sums.gauges) {
            value.max = value.max.max(kept.fetch_max(value.max, Relaxed));
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(count: usize) -> Vec<Arc<ShardMetrics>> {
        (0..count).map(|_| Arc::default()).collect()
    }

    #[test]
    fn sums_counters_and_drops_over_the_shards() {
        let shards = shards(3);
        shards[0].inc(Counter::MessagesSent);
        shards[2].add(Counter::MessagesSent, 41);
        shards[1].count_drop(DropKind::Qos2, DropReason::QueueFull);
        shards[2].count_drop(DropKind::Qos2, DropReason::Expired);
        shards[2].count_drop(DropKind::Qos0, DropReason::OutboxFull);
        shards[0].count_drop(DropKind::Retained, DropReason::TooLarge);
        shards[0].count_drop(DropKind::Will, DropReason::Discarded);
        shards[0].count_drop(DropKind::Will, DropReason::AclDenied);
        shards[0].set(Gauge::Retained, 5);
        shards[1].set(Gauge::Retained, 2);

        let sums = Snapshot::sum(&shards);
        assert_eq!(sums.counter(Counter::MessagesSent), 42);
        assert_eq!(sums.dropped(DropKind::Qos2, DropReason::Expired), 1);
        assert_eq!(sums.derived(Derived::MessagesDropped), 4);
        assert_eq!(sums.derived(Derived::MessagesQos2Dropped), 2);
        assert_eq!(sums.derived(Derived::MessagesRetained), 7);
        assert_eq!(sums.drops().count(), 6);
        let metrics = sums.metrics();
        assert!(metrics.is_sorted() && metrics.contains(&("messages/dropped/qos2/expired", 1)));
        assert!(metrics.contains(&("messages/sent", 42)));
        assert_eq!(sums.emq_metrics().len(), 38);
        assert!(format!("{:?}", shards[2]).contains("messages/sent"));
    }

    #[test]
    fn keeps_the_highest_sum_and_the_highest_single_shard() {
        let (shards, keeper) = (shards(2), StatsKeeper::new());
        shards[0].set(Gauge::Clients, 3);
        shards[1].increase(Gauge::Clients);
        let value = |keeper: &StatsKeeper| keeper.observe(&shards).gauge(Gauge::Clients);
        assert_eq!(value(&keeper), GaugeValue { count: 4, max: 4 });
        shards[0].set(Gauge::Clients, 0);
        shards[1].decrease(Gauge::Clients);
        assert_eq!(value(&keeper), GaugeValue { count: 0, max: 4 });
        // A peak nobody looked at, but on one shard.
        shards[0].set(Gauge::Clients, 9);
        shards[0].set(Gauge::Clients, 1);
        assert_eq!(value(&keeper), GaugeValue { count: 1, max: 9 });
        let stats = keeper.observe(&shards).stats();
        assert!(stats.contains(&("clients/count", 1)) && stats.contains(&("clients/max", 9)));
        assert_eq!(stats.len(), 2 * Gauge::ALL.len());
    }

    #[test]
    fn a_reader_on_another_thread_sees_counters_only_grow() {
        let shards = shards(1);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..100_000).for_each(|_| shards[0].inc(Counter::BytesSent)));
            let mut last = 0;
            while last < 100_000 {
                let now = Snapshot::sum(&shards).counter(Counter::BytesSent);
                assert!(now >= last);
                last = now;
            }
        });
    }

    #[test]
    fn two_shards_share_no_cache_line() {
        assert_eq!(align_of::<ShardMetrics>(), 128);
        assert!(size_of::<ShardMetrics>() <= 1536, "{}", size_of::<ShardMetrics>());
    }
}
