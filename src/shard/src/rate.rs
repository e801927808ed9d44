//! Rates: token buckets of one client, and the rate of connections all shards share (SEED-LSN-09, SEED-LSN-22).

use std::sync::atomic::{AtomicU64, Ordering};

use config::Rate;

const NS_PER_MS: u64 = 1_000_000;

/// A client that is over its rate rests at least this long, if its burst allows: a pause costs a cancelled receive.
const REST_MS: u64 = 20;

/// How much of a rate is left. It may be overdrawn: what is there already is taken, and the debt is waited for; so packets of any
/// size pass, and the rate holds in the long run.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    rate: Rate,
    /// Tokens times [`Rate::per_ms`], so that no part of one is lost.
    level: i64,
    at_ms: u64,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate: Rate, now_ms: u64) -> Self {
        Self { rate, level: scaled(rate.burst, &rate), at_ms: now_ms }
    }

    /// Takes `tokens`; whether more may come at once.
    pub fn take(&mut self, tokens: u64, now_ms: u64) -> bool {
        self.refill(now_ms);
        self.level = self.level.saturating_sub(scaled(tokens, &self.rate));
        self.level >= self.one()
    }

    /// When, after it said no, to go on.
    pub fn resume_ms(&self) -> u64 {
        let rested = REST_MS.saturating_mul(self.rate.count);
        let wanted = i64::try_from(rested).unwrap_or(i64::MAX);
        let wanted = wanted.clamp(self.one(), scaled(self.rate.burst, &self.rate));
        let missing = wanted.saturating_sub(self.level).max(0).unsigned_abs();
        self.at_ms + missing.div_ceil(self.rate.count)
    }

    fn one(&self) -> i64 {
        scaled(1, &self.rate)
    }

    fn refill(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        let gained = i64::try_from(elapsed_ms.saturating_mul(self.rate.count)).unwrap_or(i64::MAX);
        self.level = self.level.saturating_add(gained).min(scaled(self.rate.burst, &self.rate));
    }
}

fn scaled(tokens: u64, rate: &Rate) -> i64 {
    i64::try_from(tokens.saturating_mul(rate.per_ms)).unwrap_or(i64::MAX)
}

/// What a client is allowed to send.
#[derive(Debug, Default)]
pub(crate) struct ClientRates {
    pub bytes: Option<TokenBucket>,
    pub messages: Option<TokenBucket>,
    /// When it goes on, while it rests.
    pub rests_until_ms: Option<u64>,
}

/// A rate that all shards draw from, one at a time. One number says all: when the bucket will be full again.
#[derive(Debug)]
pub(crate) struct SharedRate {
    /// Time one takes of the rate.
    interval_ns: u64,
    /// Time the burst takes of it.
    burst_ns: u64,
    full_at_ns: AtomicU64,
}

impl SharedRate {
    pub fn new(rate: Rate) -> Self {
        let interval_ns = (rate.per_ms.saturating_mul(NS_PER_MS) / rate.count).max(1);
        let burst_ns = interval_ns.saturating_mul(rate.burst);
        Self { interval_ns, burst_ns, full_at_ns: AtomicU64::new(0) }
    }

    /// Takes one; false if none is left.
    pub fn take(&self, now_ms: u64) -> bool {
        let now_ns = now_ms.saturating_mul(NS_PER_MS);
        let next = |full_at_ns: u64| {
            let next_ns = full_at_ns.max(now_ns).saturating_add(self.interval_ns);
            (next_ns <= now_ns.saturating_add(self.burst_ns)).then_some(next_ns)
        };
        self.full_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(count: u64, per_ms: u64, burst: u64) -> Rate {
        Rate { count, per_ms, burst }
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(rate(10, 1000, 3), 0);
        assert!(bucket.take(1, 0) && bucket.take(1, 0));
        assert!(!bucket.take(1, 0), "the third is taken, a fourth has to wait");
        assert_eq!(bucket.resume_ms(), 100, "one more is there every 100 ms");
        assert!(!bucket.take(1, 100));
        assert_eq!(bucket.resume_ms(), 200);
        assert!(
            bucket.take(0, 10_000) && bucket.take(2, 10_000),
            "no more than the burst is saved"
        );
        assert!(!bucket.take(1, 10_000));
    }

    #[test]
    fn a_debt_is_waited_for() {
        let mut bucket = TokenBucket::new(rate(1000, 1000, 1000), 0);
        assert!(!bucket.take(5000, 0));
        assert_eq!(bucket.resume_ms(), 4020, "the debt, and a rest");
        assert!(bucket.take(0, 4020));
    }

    #[test]
    fn the_long_run_is_exact() {
        let mut bucket = TokenBucket::new(rate(7, 3000, 2), 0);
        let (mut now, mut taken) = (0, 0);
        while now < 3_000_000 {
            taken += 1;
            if !bucket.take(1, now) {
                now = bucket.resume_ms();
            }
        }
        assert!((7000..7010).contains(&taken), "{taken}");
    }

    #[test]
    fn the_largest_rate_does_not_overflow() {
        let most = 1 << 34;
        let mut bucket = TokenBucket::new(rate(most, 86_400_000, most), 0);
        assert!(!bucket.take(u64::MAX, u64::MAX / 2));
        let _ = bucket.resume_ms();
        let shared = SharedRate::new(rate(most, 86_400_000, most));
        assert!(shared.take(u64::MAX / NS_PER_MS));
    }

    #[test]
    fn a_shared_rate_gives_its_burst_and_then_its_rate() {
        let shared = SharedRate::new(rate(10, 1000, 3));
        let taken = |now_ms| (0..100).filter(|_| shared.take(now_ms)).count();
        assert_eq!(taken(50_000), 3);
        assert_eq!(taken(50_050), 0);
        assert_eq!(taken(50_100), 1);
        assert_eq!(taken(51_000), 3);
    }
}
