//! What is printed, in emqtt_bench's form.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::counters::{Counter, Totals};

/// Standard output. That nobody reads it any more stops nothing.
#[derive(Debug)]
pub struct Output {
    is_terminal: bool,
    /// The cursor is behind a line of progress.
    in_progress: bool,
}

impl Output {
    /// Nothing printed yet.
    pub fn new() -> Output {
        Output { is_terminal: io::stdout().is_terminal(), in_progress: false }
    }

    /// How far the connecting is; for people only.
    pub fn progress(&mut self, connected: u64, clients: u32) {
        if self.is_terminal {
            self.in_progress = true;
            let mut out = io::stdout().lock();
            let _ = write!(out, "\rconnected: {connected} of {clients}");
            let _ = out.flush();
        }
    }

    /// A line about a client.
    pub fn line(&mut self, text: &str) {
        self.write("", text);
    }

    /// A line of statistics.
    pub fn statistics(&mut self, text: &str) {
        self.write("\r", text);
    }

    fn write(&mut self, begin: &str, text: &str) {
        let progress = if std::mem::take(&mut self.in_progress) { "\n" } else { "" };
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{progress}{begin}{text}");
        let _ = out.flush();
    }
}

/// The lines of one period: each counter that changed.
pub fn changes(before: &Totals, now: &Totals, elapsed: Duration, period: Duration) -> Vec<String> {
    let stamp = stamp(elapsed);
    let mut lines = Vec::new();
    for counter in Counter::ALL {
        let (old, new) = (before.get(counter), now.get(counter));
        if counter == Counter::PublishLatency {
            let messages = now.latencies - before.latencies;
            if let Some(average) = (new - old).checked_div(messages) {
                lines.push(format!("{stamp} publish_latency avg={average}ms"));
            }
        } else if new != old {
            let rate = rate(new - old, period);
            lines.push(format!("{stamp} {} total={new} rate={rate:.2}/sec", counter.name()));
        }
    }
    lines
}

/// The line at the end of a run that a signal ended.
pub fn totals(now: &Totals) -> String {
    let named = Counter::ALL.into_iter().filter(|counter| *counter != Counter::PublishLatency);
    let words: Vec<String> = named
        .filter(|counter| now.get(*counter) > 0)
        .map(|counter| format!("{}={}", counter.name(), now.get(counter)))
        .collect();
    format!("total: {}", if words.is_empty() { "nothing".to_owned() } else { words.join(" ") })
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn rate(count: u64, period: Duration) -> f64 {
    count as f64 / period.as_secs_f64().max(0.001)
}

/// `1s`, `1m5s`, `2h0m1s`, `1d0h0m1s`
fn stamp(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{seconds}s"),
        (0, ..) => format!("{hours}h{minutes}m{seconds}s"),
        _ => format!("{days}d{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::counters::ThreadStats;
    use super::*;

    #[test]
    fn only_what_changed_is_printed_in_its_order() {
        let stats = ThreadStats::default();
        stats.add(Counter::ConnectSucc, 10);
        let before = Totals::of([&stats]);
        stats.add(Counter::Pub, 958);
        stats.add(Counter::Recv, 3);
        for ms in [4, 9] {
            stats.latency(ms);
        }
        let now = Totals::of([&stats]);
        let lines = changes(&before, &now, Duration::from_secs(6), Duration::from_millis(1020));
        assert_eq!(
            lines,
            [
                "6s publish_latency avg=6ms",
                "6s recv total=3 rate=2.94/sec",
                "6s pub total=958 rate=939.22/sec",
            ]
        );
        assert!(changes(&now, &now, Duration::from_secs(7), Duration::from_secs(1)).is_empty());
        assert_eq!(totals(&now), "total: recv=3 pub=958 connect_succ=10");
    }

    #[test]
    fn stamps_grow_with_the_time() {
        for (seconds, expected) in
            [(1, "1s"), (59, "59s"), (65, "1m5s"), (7201, "2h0m1s"), (86_401, "1d0h0m1s")]
        {
            assert_eq!(stamp(Duration::from_secs(seconds)), expected);
        }
    }
}
