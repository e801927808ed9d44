//! The numbers of the node: of its shards, their reactors, and the most there was of what is counted now.

use std::sync::Arc;

use metrics::{Gauge, ShardMetrics, StatsKeeper};
use reactor::{ReactorCounter, ReactorCounters};

/// Where the numbers are.
#[derive(Debug)]
pub(crate) struct Stats {
    shards: Vec<Arc<ShardMetrics>>,
    reactors: Vec<Arc<ReactorCounters>>,
    keeper: StatsKeeper,
}

impl Stats {
    /// Of these shards and reactors.
    pub fn new(shards: Vec<Arc<ShardMetrics>>, reactors: Vec<Arc<ReactorCounters>>) -> Stats {
        Stats { shards, reactors, keeper: StatsKeeper::new() }
    }

    /// Looks at what there is, for the most there was.
    pub fn look(&self) {
        let _ = self.keeper.observe(&self.shards);
    }

    /// What a gauge is on all shards together.
    pub fn count(&self, gauge: Gauge) -> u64 {
        self.shards.iter().map(|shard| shard.count(gauge)).sum()
    }

    /// `broker stats`, sorted by name.
    pub fn stats(&self) -> Vec<(&'static str, u64)> {
        self.keeper.observe(&self.shards).stats()
    }

    /// `broker metrics`, sorted by name.
    pub fn metrics(&self) -> Vec<(&'static str, u64)> {
        let mut metrics = self.keeper.observe(&self.shards).metrics();
        metrics.extend(ReactorCounter::ALL.into_iter().map(|counter| {
            let sum = self.reactors.iter().map(|reactor| reactor.get(counter)).sum();
            (counter.name(), sum)
        }));
        metrics.sort_unstable();
        metrics
    }
}

#[cfg(test)]
mod tests {
    use metrics::Counter;

    use super::*;

    #[test]
    fn numbers_are_summed_and_sorted_and_the_most_is_kept() {
        let shards: Vec<Arc<ShardMetrics>> = vec![Arc::default(), Arc::default()];
        let stats = Stats::new(shards.clone(), vec![Arc::default()]);
        shards[0].set(Gauge::Clients, 2);
        shards[1].set(Gauge::Clients, 3);
        stats.look();
        shards[1].set(Gauge::Clients, 0);
        shards[0].add(Counter::BytesReceived, 7);
        let told = stats.stats();
        assert!(told.is_sorted());
        assert!(told.contains(&("clients/count", 2)));
        assert!(told.contains(&("clients/max", 5)));
        let told = stats.metrics();
        assert!(told.is_sorted());
        assert!(told.contains(&("bytes/received", 7)));
        assert!(told.contains(&("reactor/ticks", 0)));
    }
}
