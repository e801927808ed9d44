//! What is counted, by emqtt_bench's names and in its order.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Counter {
    /// Sum of the latencies in milliseconds, by the `ts` header.
    PublishLatency,
    /// Messages received.
    Recv,
    /// Clients subscribed.
    Sub,
    /// Clients whose SUBSCRIBE was refused.
    SubFail,
    /// Messages published.
    Pub,
    /// Messages refused, or given up with their connection.
    PubFail,
    /// Messages that went later than the next was due.
    PubOverrun,
    /// Messages acknowledged with success.
    PubSucc,
    /// Messages acknowledged, without a subscriber.
    PubNosub,
    /// First connects.
    ConnectSucc,
    /// Connects that failed.
    ConnectFail,
    /// First connects tried again.
    ConnectRetried,
    /// Connects after a loss.
    ReconnectSucc,
    /// Connects that failed: no way there.
    Unreachable,
    /// Connects that failed: refused.
    ConnectionRefused,
    /// Connects that failed: no answer.
    ConnectionTimeout,
    /// Connections lost because one side heard nothing.
    ConnectionIdle,
    /// Ours: messages missing by the `cnt64` header.
    RecvLost,
    /// Ours: messages that came again, or behind others, by the `cnt64` header.
    RecvRepeated,
}

impl Counter {
    /// All, in the order they are printed.
    pub const ALL: [Counter; 19] = [
        Counter::PublishLatency,
        Counter::Recv,
        Counter::Sub,
        Counter::SubFail,
        Counter::Pub,
        Counter::PubFail,
        Counter::PubOverrun,
        Counter::PubSucc,
        Counter::PubNosub,
        Counter::ConnectSucc,
        Counter::ConnectFail,
        Counter::ConnectRetried,
        Counter::ReconnectSucc,
        Counter::Unreachable,
        Counter::ConnectionRefused,
        Counter::ConnectionTimeout,
        Counter::ConnectionIdle,
        Counter::RecvLost,
        Counter::RecvRepeated,
    ];

    /// The name that is printed.
    pub fn name(self) -> &'static str {
        match self {
            Counter::PublishLatency => "publish_latency",
            Counter::Recv => "recv",
            Counter::Sub => "sub",
            Counter::SubFail => "sub_fail",
            Counter::Pub => "pub",
            Counter::PubFail => "pub_fail",
            Counter::PubOverrun => "pub_overrun",
            Counter::PubSucc => "pub_succ",
            Counter::PubNosub => "pub_nosub",
            Counter::ConnectSucc => "connect_succ",
            Counter::ConnectFail => "connect_fail",
            Counter::ConnectRetried => "connect_retried",
            Counter::ReconnectSucc => "reconnect_succ",
            Counter::Unreachable => "unreachable",
            Counter::ConnectionRefused => "connection_refused",
            Counter::ConnectionTimeout => "connection_timeout",
            Counter::ConnectionIdle => "connection_idle",
            Counter::RecvLost => "recv_lost",
            Counter::RecvRepeated => "recv_repeated",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// A distribution of milliseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Timing {
    /// Until the TCP connection is there.
    TcpHandshake,
    /// Until the transport is there: TCP, and TLS if there is one.
    Handshake,
    /// Until the CONNACK.
    Connect,
    /// Until the SUBACK.
    Subscribe,
    /// From publisher to subscriber, by the `ts` header.
    EndToEnd,
}

const SHORT_MS: &[u64] = &[1, 3, 5, 10, 20, 50, 100, 200, 500, 1000];
const LONG_MS: &[u64] = &[1, 10, 25, 50, 100, 200, 300, 500, 750, 1000];
const END_TO_END_MS: &[u64] = &[
    1, 5, 10, 25, 50, 100, 500, 1000, 2000, 3000, 4000, 5000, 7500, 10_000, 15_000, 20_000, 25_000,
    30_000,
];
const BOUNDS_MAX: usize = END_TO_END_MS.len();

impl Timing {
    /// All.
    pub const ALL: [Timing; 5] = [
        Timing::TcpHandshake,
        Timing::Handshake,
        Timing::Connect,
        Timing::Subscribe,
        Timing::EndToEnd,
    ];

    /// The Prometheus name.
    pub fn name(self) -> &'static str {
        match self {
            Timing::TcpHandshake => "mqtt_client_tcp_handshake_duration",
            Timing::Handshake => "mqtt_client_handshake_duration",
            Timing::Connect => "mqtt_client_connect_duration",
            Timing::Subscribe => "mqtt_client_subscribe_duration",
            Timing::EndToEnd => "e2e_latency",
        }
    }

    /// Upper bounds of the buckets in milliseconds.
    pub fn bounds_ms(self) -> &'static [u64] {
        match self {
            Timing::TcpHandshake | Timing::Handshake => SHORT_MS,
            Timing::Connect | Timing::Subscribe => LONG_MS,
            Timing::EndToEnd => END_TO_END_MS,
        }
    }
}

/// Adds to a number that only one thread writes: cheaper than an atomic addition.
#[inline]
fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Relaxed) + more, Relaxed);
}

/// One distribution of one thread.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last is for what is above all bounds.
    buckets: [AtomicU64; BOUNDS_MAX + 1],
    sum_ms: AtomicU64,
}

/// What one thread counts; written by that thread only.
#[derive(Debug, Default)]
pub struct ThreadStats {
    counters: [AtomicU64; Counter::ALL.len()],
    latencies: AtomicU64,
    finished: AtomicU64,
    gone: AtomicU64,
    timings: [Histogram; Timing::ALL.len()],
}

impl ThreadStats {
    /// Counts one.
    #[inline]
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts several.
    #[inline]
    pub fn add(&self, counter: Counter, more: u64) {
        add(&self.counters[counter.index()], more);
    }

    /// A message took so long from its publisher.
    #[inline]
    pub fn latency(&self, ms: u64) {
        self.add(Counter::PublishLatency, ms);
        add(&self.latencies, 1);
        self.timing(Timing::EndToEnd, ms);
    }

    /// Something took so long.
    #[inline]
    pub fn timing(&self, timing: Timing, ms: u64) {
        let bounds = timing.bounds_ms();
        let bucket = bounds.iter().position(|bound| ms <= *bound).unwrap_or(BOUNDS_MAX);
        let histogram = &self.timings[timing as usize];
        add(&histogram.buckets[bucket], 1);
        add(&histogram.sum_ms, ms);
    }

    /// Messages of the limit are done: acknowledged, refused or given up.
    #[inline]
    pub fn finish(&self, messages: u64) {
        add(&self.finished, messages);
    }

    /// A client has ended for good.
    pub fn client_gone(&self) {
        add(&self.gone, 1);
    }
}

/// What all threads have counted.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    values: [u64; Counter::ALL.len()],
    /// Messages whose latency is in [`Counter::PublishLatency`].
    pub latencies: u64,
    /// Messages of the limit that are done.
    pub finished: u64,
    /// Clients that have ended for good.
    pub gone: u64,
    timings: [(Vec<u64>, u64); Timing::ALL.len()],
}

impl Totals {
    /// Adds up the threads.
    pub fn of<'a>(threads: impl IntoIterator<Item = &'a ThreadStats>) -> Totals {
        let mut totals = Totals::default();
        for thread in threads {
            for (value, counter) in totals.values.iter_mut().zip(&thread.counters) {
                *value += counter.load(Relaxed);
            }
            totals.latencies += thread.latencies.load(Relaxed);
            totals.finished += thread.finished.load(Relaxed);
            totals.gone += thread.gone.load(Relaxed);
            for ((buckets, sum_ms), histogram) in totals.timings.iter_mut().zip(&thread.timings) {
                buckets.resize(BOUNDS_MAX + 1, 0);
                for (bucket, counted) in buckets.iter_mut().zip(&histogram.buckets) {
                    *bucket += counted.load(Relaxed);
                }
                *sum_ms += histogram.sum_ms.load(Relaxed);
            }
        }
        totals
    }

    /// The value of a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter.index()]
    }

    /// A distribution: how many were at most each bound, how many in all, and their sum in milliseconds.
    pub fn timing(&self, timing: Timing) -> (Vec<u64>, u64, u64) {
        let (buckets, sum_ms) = &self.timings[timing as usize];
        let bounds = timing.bounds_ms().len();
        let mut count = 0;
        let cumulated = buckets.iter().take(bounds).map(|bucket| {
            count += bucket;
            count
        });
        let cumulated: Vec<u64> = cumulated.collect();
        (cumulated, count + buckets.get(BOUNDS_MAX).copied().unwrap_or(0), *sum_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up_in_the_order_of_emqtt_bench() {
        let threads = [ThreadStats::default(), ThreadStats::default()];
        threads[0].add(Counter::Recv, 5);
        threads[1].count(Counter::Recv);
        threads[1].latency(12);
        threads[0].finish(3);
        threads[0].client_gone();
        let totals = Totals::of(&threads);
        assert_eq!(totals.get(Counter::Recv), 6);
        assert_eq!((totals.get(Counter::PublishLatency), totals.latencies), (12, 1));
        assert_eq!((totals.finished, totals.gone), (3, 1));
        for (index, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter.index(), index, "{}", counter.name());
        }
        let names: Vec<&str> = Counter::ALL.into_iter().map(Counter::name).take(5).collect();
        assert_eq!(names, ["publish_latency", "recv", "sub", "sub_fail", "pub"]);
    }

    #[test]
    fn histograms_are_cumulative_and_keep_what_is_above_all_bounds() {
        let stats = ThreadStats::default();
        for ms in [0, 1, 2, 3, 1000, 5000] {
            stats.timing(Timing::Handshake, ms);
        }
        let (buckets, count, sum_ms) = Totals::of([&stats]).timing(Timing::Handshake);
        assert_eq!(buckets, [2, 4, 4, 4, 4, 4, 4, 4, 4, 5]);
        assert_eq!((count, sum_ms), (6, 6006));
    }
}
