//! Turns an outcome into JSON, and JSON into lines for people: both say the same.

use crate::error::BenchError;
use crate::plan::{Load, Plan};
use crate::run::{Course, Outcome, Snapshot, Storm};
use crate::sys::process;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::path::Path;

/// Microseconds at the percentiles that are reported.
pub fn latency(histogram: &Histogram<u64>) -> Value {
    let at = |percentile: f64| micros(histogram.value_at_percentile(percentile));
    json!({
        "count": histogram.len(),
        "mean": round(histogram.mean() / 1_000.0, 1),
        "p50": at(50.0), "p90": at(90.0), "p99": at(99.0), "p99.9": at(99.9), "p99.99": at(99.99),
        "max": micros(histogram.max()),
    })
}

fn micros(ns: u64) -> f64 {
    round(float(ns) / 1_000.0, 1)
}

/// Rounds to `digits` behind the point.
pub fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

#[expect(clippy::cast_precision_loss, reason = "for ratios of counts far below 2^53")]
pub fn float(value: u64) -> f64 {
    value as f64
}

/// A quotient, or null if there is nothing to divide by.
pub fn ratio(value: f64, by: f64, digits: i32) -> Value {
    if by > 0.0 { json!(round(value / by, digits)) } else { Value::Null }
}

/// The machine, for the record.
pub fn machine() -> Value {
    json!({
        "kernel": process::kernel_release(),
        "cpus_online": process::cpus_online(),
    })
}

fn window(begin: &Snapshot, end: &Snapshot, has_broker: bool) -> Value {
    let seconds = float(end.at_ns - begin.at_ns) / 1e9;
    let rate = |from: u64, to: u64| ratio(float(to - from), seconds, 0);
    let delivered = float(end.delivered - begin.delivered);
    let mut value = json!({
        "seconds": round(seconds, 3),
        "offered": end.offered - begin.offered,
        "sent": end.sent - begin.sent,
        "delivered": end.delivered - begin.delivered,
        "offered_per_s": rate(begin.offered, end.offered),
        "sent_per_s": rate(begin.sent, end.sent),
        "delivered_per_s": rate(begin.delivered, end.delivered),
        "generator_cpu_percent":
            ratio(float(end.own_cpu_ns - begin.own_cpu_ns) / 1e7, seconds, 1),
    });
    if has_broker {
        let (from, to) = (&begin.broker, &end.broker);
        let cpu_us = float(to.cpu_ns - from.cpu_ns) / 1e3;
        let user = float(to.user_ticks - from.user_ticks);
        let system = float(to.system_ticks - from.system_ticks);
        let switches = float(to.switches.saturating_sub(from.switches));
        value["broker_cpu_percent"] = ratio(cpu_us / 1e4, seconds, 2);
        value["broker_cpu_us_per_delivery"] = ratio(cpu_us, delivered, 4);
        value["broker_user_share"] = ratio(user, user + system, 3);
        value["broker_switches_per_delivery"] = ratio(switches, delivered, 4);
    }
    value
}

fn connect(outcome: &Outcome, has_broker: bool) -> Value {
    let [begin, end] = &outcome.connect;
    let seconds = float(end.at_ns - begin.at_ns) / 1e9;
    let clients = float(outcome.ready);
    let mut value = json!({
        "clients": outcome.clients,
        "ready": outcome.ready,
        "seconds": round(seconds, 3),
        "clients_per_s": ratio(clients, seconds, 0),
        "latency_us": latency(&outcome.report.connect[0]),
    });
    if has_broker {
        let cpu_us = float(end.broker.cpu_ns - begin.broker.cpu_ns) / 1e3;
        value["broker_cpu_us_per_client"] = ratio(cpu_us, clients, 2);
        value["broker_clients_per_core_s"] = ratio(clients * 1e6, cpu_us, 0);
    }
    value
}

fn memory(outcome: &Outcome, has_broker: bool) -> Value {
    let (before, after) = (&outcome.memory_before, &outcome.memory_after);
    let clients = float(outcome.ready);
    let per_client = |from: u64, to: u64| ratio(float(to) - float(from), clients, 1);
    let mut value = json!({
        "generator_rss_bytes_per_client": per_client(before.own_bytes, after.own_bytes),
        "kernel_both_ends_tcp_bytes_per_client":
            per_client(before.kernel.tcp_bytes, after.kernel.tcp_bytes),
        "kernel_both_ends_slab_bytes_per_client":
            per_client(before.kernel.slab_bytes, after.kernel.slab_bytes),
    });
    if has_broker {
        value["broker_rss_before_bytes"] = json!(before.resident_bytes);
        value["broker_rss_after_bytes"] = json!(after.resident_bytes);
        value["broker_rss_bytes_per_client"] =
            per_client(before.resident_bytes, after.resident_bytes);
    }
    value
}

/// All clients were lost and came back.
pub fn storm(storm: &Storm, latencies: &Histogram<u64>, has_broker: bool) -> Value {
    let [begin, end] = &storm.window;
    let seconds = float(storm.took_ns) / 1e9;
    let back = float(storm.back);
    let mut value = json!({
        "lost_clients": storm.lost,
        "back": storm.back,
        "seconds": round(seconds, 3),
        "clients_per_s": ratio(back, seconds, 0),
        "failed_attempts": storm.failures,
        "latency_us": latency(latencies),
    });
    if has_broker {
        let cpu_us = float(end.broker.cpu_ns - begin.broker.cpu_ns) / 1e3;
        value["broker_cpu_us_per_client"] = ratio(cpu_us, back, 2);
    }
    value
}

/// Clients that came and went in the window; the same names as in `connect` where it is the same.
fn churn(outcome: &Outcome, has_broker: bool) -> Value {
    let [begin, end] = &outcome.window;
    let seconds = float(end.at_ns - begin.at_ns) / 1e9;
    let [due, begun, through, failed] =
        std::array::from_fn(|index| end.churn[index] - begin.churn[index]);
    let mut value = json!({
        "clients": begun,
        "ready": through,
        "due": due,
        "failed": failed,
        "seconds": round(seconds, 3),
        "clients_per_s": ratio(float(through), seconds, 0),
        "latency_us": latency(&outcome.report.latency[1]),
    });
    if has_broker {
        let cpu_us = float(end.broker.cpu_ns - begin.broker.cpu_ns) / 1e3;
        value["broker_cpu_us_per_client"] = ratio(cpu_us, float(through), 2);
        value["broker_clients_per_core_s"] = ratio(float(through) * 1e6, cpu_us, 0);
    }
    value
}

/// What MQTT is carried by.
pub fn transport(load: &Load) -> &'static str {
    match load.layers.as_deref() {
        None => "tcp",
        Some(layers) if layers.websocket.is_none() => "tls",
        Some(layers) if layers.tls.is_none() => "ws",
        Some(_) => "wss",
    }
}

/// The options of a run, for the record.
pub fn options(plan: &Plan, load: &Load, course: &Course) -> Value {
    json!({
        "subscribers": plan.counts.hearing,
        "publishers": plan.counts.publishers,
        "idle_clients": plan.counts.idle,
        "target": load.target.to_string(),
        "transport": transport(load),
        "version": format!("{:?}", load.version),
        "qos": load.qos,
        "rate_per_s": load.rate,
        "payload_bytes": load.payload_len,
        "window": load.window,
        "connect_rate_per_s": load.connect_rate,
        "connect_window": load.connect_window,
        "keep_alive_s": load.keep_alive_s,
        "threads": plan.threads,
        "source_addresses": load.sources.len(),
        "warmup_s": course.warmup.as_secs_f64(),
        "duration_s": course.duration.as_secs_f64(),
    })
}

/// All of an outcome.
pub fn outcome(outcome: &Outcome, plan: &Plan, load: &Load, course: &Course) -> Value {
    let has_broker = !course.broker_pids.is_empty();
    let report = &outcome.report;
    let is_churn = plan.churns();
    let heard_once = outcome.end.delivered.saturating_sub(report.duplicates);
    let connects = if is_churn { churn(outcome, has_broker) } else { connect(outcome, has_broker) };
    let mut value = json!({
        "machine": machine(),
        "options": options(plan, load, course),
        "connect": connects,
        "memory": memory(outcome, has_broker),
        "window": window(&outcome.window[0], &outcome.window[1], has_broker),
        "latency_us": if is_churn { json!({ "count": 0 }) } else { latency(&report.latency[1]) },
        "totals": {
            "sent": outcome.end.sent,
            "expected": outcome.expected,
            "delivered": outcome.end.delivered,
            "lost": outcome.expected.saturating_sub(heard_once),
            "duplicates": report.duplicates,
            "reordered": report.reordered,
            "foreign": report.foreign,
            "pings_sent": report.pings[0],
            "pings_answered": report.pings[1],
        },
        "failures": outcome.failures,
    });
    if load.layers.is_some() {
        value["handshakes"] = json!({
            "full": outcome.handshakes[0],
            "resumed": outcome.handshakes[1],
            "latency_us": latency(&report.handshake),
        });
    }
    if let Some(found) = &outcome.storm {
        value["storm"] = storm(found, &report.connect[1], has_broker);
    }
    value
}

/// Prints every leaf as `name = value`, one group a line.
pub fn print(value: &Value) {
    let Value::Object(groups) = value else { return };
    for (name, group) in groups {
        match group {
            Value::Object(fields)
                if fields.is_empty() || fields.get("count") == Some(&json!(0)) => {}
            Value::Object(fields) => {
                let line: Vec<String> = fields
                    .iter()
                    .map(|(key, value)| match value {
                        Value::Object(inner) => {
                            let inner: Vec<String> =
                                inner.iter().map(|(k, v)| format!("{k} {v}")).collect();
                            format!("{key} ({})", inner.join(", "))
                        }
                        other => format!("{key} {other}"),
                    })
                    .collect();
                println!("{name}: {}", line.join(", "));
            }
            other => println!("{name}: {other}"),
        }
    }
}

/// Writes `value` to `path`.
pub fn save(value: &Value, path: &Path) -> Result<(), BenchError> {
    std::fs::write(path, format!("{value:#}\n"))
        .map_err(|source| BenchError::File { path: path.to_owned(), source })
}
