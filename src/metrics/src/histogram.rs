//! How long things take, in bounded memory.

use std::fmt;

/// The longest time told apart, in microseconds: 60 s. What took longer counts as this.
const US_MAX: u64 = 60_000_000;
/// Significant decimal digits kept of a time.
const DIGITS: u8 = 2;
/// Buckets of [`Histogram::buckets`]: powers of two up to 2^26 us, which is past [`US_MAX`].
const BUCKETS: usize = 27;

/// A histogram of times in microseconds, with two significant digits from 1 us to 60 s.
///
/// It belongs to one thread (a shard records its ticks in one); others ask that thread for
/// [`Histogram::summary`], [`Histogram::buckets`] or a clone. About 20 KB each, however much is recorded.
#[derive(Clone)]
pub struct Histogram(hdrhistogram::Histogram<u64>);

/// What a [`Histogram`] holds, in a few numbers. Times in microseconds, right to two digits.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub struct HistogramSummary {
    /// How many times were recorded.
    pub count: u64,
    /// Half took at most so long.
    pub p50_us: u64,
    /// 90 in 100 took at most so long.
    pub p90_us: u64,
    /// 99 in 100 took at most so long.
    pub p99_us: u64,
    /// 999 in 1000 took at most so long.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Self {
        let inner = hdrhistogram::Histogram::new_with_bounds(1, US_MAX, DIGITS);
        Self(inner.expect("the bounds are constants within what the histogram takes"))
    }

    /// Records a time. Allocates nothing.
    #[inline]
    pub fn record_us(&mut self, us: u64) {
        self.0.saturating_record(us.min(US_MAX));
    }

    /// Adds what another one holds.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms of this type have the same bounds");
    }

    /// The percentiles.
    pub fn summary(&self) -> HistogramSummary {
        HistogramSummary {
            count: self.0.len(),
            p50_us: self.0.value_at_quantile(0.5),
            p90_us: self.0.value_at_quantile(0.9),
            p99_us: self.0.value_at_quantile(0.99),
            p999_us: self.0.value_at_quantile(0.999),
            max_us: self.0.max(),
        }
    }

    /// The times sorted into buckets, always the same ones: (upper bound in microseconds, inclusive;
    /// how many lie in this bucket and in none before). The bounds are 1, 3, 7, 15 and so on, 2^k - 1,
    /// where the histogram's own steps end too, so the counts are exact; the last is `u64::MAX`.
    pub fn buckets(&self) -> Vec<(u64, u64)> {
        let bound = |k| if k == BUCKETS { u64::MAX } else { (1u64 << k) - 1 };
        let mut buckets: Vec<_> = (1..=BUCKETS).map(|k| (bound(k), 0)).collect();
        for step in self.0.iter_recorded() {
            let us = step.value_iterated_to();
            let place = buckets.partition_point(|&(upper, _)| upper < us);
            buckets[place].1 += step.count_at_value();
        }
        buckets
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.reset();
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.summary().fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_percentiles_to_two_digits() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.summary(), HistogramSummary::default());
        (1..=10_000).for_each(|us| histogram.record_us(us));
        let summary = histogram.summary();
        assert_eq!(summary.count, 10_000);
        let near = |got: u64, want: u64| got.abs_diff(want) * 100 <= want;
        assert!(near(summary.p50_us, 5_000), "{summary:?}");
        assert!(near(summary.p90_us, 9_000), "{summary:?}");
        assert!(near(summary.p99_us, 9_900), "{summary:?}");
        assert!(near(summary.p999_us, 9_990), "{summary:?}");
        assert!(near(summary.max_us, 10_000), "{summary:?}");
    }

    #[test]
    fn takes_any_time_and_stays_small() {
        let mut histogram = Histogram::new();
        for us in [0, 1, US_MAX, US_MAX + 1, u64::MAX] {
            histogram.record_us(us);
        }
        assert_eq!(histogram.summary().count, 5);
        assert!(histogram.0.distinct_values() * size_of::<u64>() <= 24 * 1024);
        assert!(histogram.summary().max_us.abs_diff(US_MAX) * 100 <= US_MAX);
    }

    #[test]
    fn merges_and_forgets() {
        let (mut all, mut other) = (Histogram::new(), Histogram::default());
        all.record_us(10);
        other.record_us(1_000);
        all.merge(&other);
        assert_eq!(all.summary().count, 2);
        assert_eq!(all.clone().summary(), all.summary());
        assert!(format!("{all:?}").contains("count: 2"));
        all.clear();
        assert_eq!(all.summary(), HistogramSummary::default());
    }

    #[test]
    fn buckets_hold_each_time_once_at_its_place() {
        let mut histogram = Histogram::new();
        let times = [0, 1, 2, 3, 4, 255, 256, 511, 512, 1_023, 1_024, 32_767, 32_768, 59_000_000];
        for us in times {
            histogram.record_us(us);
        }
        let buckets = histogram.buckets();
        assert_eq!(buckets.len(), BUCKETS);
        assert_eq!(buckets.last().unwrap().0, u64::MAX);
        let mut above = 0;
        for (index, &(upper, count)) in buckets.iter().enumerate() {
            let want =
                times.iter().filter(|&&us| us <= upper && (index == 0 || us > above)).count();
            assert_eq!(count, want as u64, "up to {upper}");
            above = upper;
        }
    }
}
