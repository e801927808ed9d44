//! `-Q true`: how long clients took to come up.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::config::Config;
use crate::error::BenchError;

/// When one client was how far. Nanoseconds since it began, but for the publish.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    begin_ns: u64,
    /// TCP connection.
    pub tcp_ns: Option<u64>,
    /// TLS and WebSocket; without them the same.
    pub handshake_ns: Option<u64>,
    /// CONNACK.
    pub connect_ns: Option<u64>,
    /// SUBACK.
    pub subscribe_ns: Option<u64>,
    /// The first message's own time from PUBLISH to its acknowledgement.
    pub publish_ns: Option<u64>,
}

impl Times {
    /// Begins now.
    pub fn begin(now_ns: u64) -> Times {
        Times { begin_ns: now_ns, ..Times::default() }
    }

    /// Time since the begin.
    pub fn since_begin(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.begin_ns)
    }
}

/// One client that is where it wanted to be.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its number in the run, from 0.
    pub index: u32,
    /// Its times.
    pub times: Times,
}

/// The file of `--qoelog`.
#[derive(Debug)]
pub struct Log(BufWriter<File>);

impl Log {
    /// Makes the file.
    pub fn create(path: &Path) -> Result<Log, BenchError> {
        let fail = |source| BenchError::File { path: path.to_owned(), source };
        let mut file = BufWriter::new(File::create(path).map_err(fail)?);
        writeln!(file, "ClientId,TS,TCP,Handshake,Connect,Subscribe,Publish").map_err(fail)?;
        Ok(Log(file))
    }

    /// Adds lines; a full disk ends the log and not the run.
    pub fn write(&mut self, rows: &[Row], config: &Config, unix_ms: u64) {
        for row in rows {
            let mut id = Vec::new();
            config.write_client_id(&mut id, row.index);
            let times = &row.times;
            let _ = writeln!(
                self.0,
                "{},{unix_ms},{},{},{},{},{}",
                String::from_utf8_lossy(&id),
                cell(times.tcp_ns),
                cell(times.handshake_ns),
                cell(times.connect_ns),
                cell(times.subscribe_ns),
                cell(times.publish_ns),
            );
        }
        let _ = self.0.flush();
    }
}

/// Milliseconds with three decimals at most, or nothing.
fn cell(ns: Option<u64>) -> String {
    ns.map_or_else(String::new, |ns| milliseconds(ns).to_string())
}

/// One of a client's times.
type Column = fn(&Times) -> Option<u64>;

/// The lines of a second.
pub fn summary(rows: &[Row]) -> Vec<String> {
    let columns: [(&str, Column); 5] = [
        ("tcp", |times| times.tcp_ns),
        ("handshake", |times| times.handshake_ns),
        ("connect", |times| times.connect_ns),
        ("subscribe", |times| times.subscribe_ns),
        ("publish", |times| times.publish_ns),
    ];
    columns
        .into_iter()
        .filter_map(|(name, column)| {
            let mut ns: Vec<u64> = rows.iter().filter_map(|row| column(&row.times)).collect();
            ns.sort_unstable();
            let max = *ns.last()?;
            let rank = (ns.len() * 95).div_ceil(100).max(1);
            let sum: u64 = ns.iter().sum();
            let average = milliseconds(sum / u64::try_from(ns.len()).unwrap_or(1));
            let (p95, max) = (milliseconds(ns[rank - 1]), milliseconds(max));
            Some(format!("{name}, avg: {average:?}ms, P95: {p95}ms, Max: {max}ms"))
        })
        .collect()
}

/// To the microsecond.
#[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 microseconds")]
fn milliseconds(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_average_p95_and_maximum() {
        let rows: Vec<Row> = (1..=100u64)
            .map(|ms| {
                let tcp_ns = Some(ms * 1_000_000);
                let handshake_ns = tcp_ns.map(|ns| 2 * ns);
                Row { index: 0, times: Times { tcp_ns, handshake_ns, ..Times::default() } }
            })
            .collect();
        let lines = summary(&rows);
        assert_eq!(lines[1], "handshake, avg: 101.0ms, P95: 190ms, Max: 200ms");
        assert_eq!(lines.len(), 2, "nobody subscribed");
        let one =
            [Row { index: 0, times: Times { connect_ns: Some(23_000_400), ..Times::default() } }];
        assert_eq!(summary(&one), ["connect, avg: 23.0ms, P95: 23ms, Max: 23ms"]);
    }
}
