//! How answers look as text. The forms are those of the field's command lines, so that scripts written for them go on working.

use std::fmt::Write as _;
use std::io;

use admin::protocol::{
    AlarmLine, BanLine, BrokerLine, ClientLine, DelayedLine, ListenerLine, RemovedLine,
    RetainedLine, RetainerLine, RouteLine, SessionLine, SettingLine, SubscriptionLine,
};
use admin::store_line::{BackupLine, LatencyLine, StoreLine};
use admin::text::datetime;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The order `vm` tells its numbers in, and the width of the name behind its `/`.
const VM_GROUPS: [(&str, usize, &[&str]); 5] = [
    ("cpu", 20, &["load1", "load5", "load15"]),
    (
        "memory",
        17,
        &[
            "total",
            "processes",
            "processes_used",
            "system",
            "atom",
            "atom_used",
            "binary",
            "code",
            "ets",
        ],
    ),
    ("process", 16, &["limit", "count", "threads"]),
    ("io", 21, &["max_fds", "active_fds"]),
    ("ports", 18, &["count", "limit"]),
];

/// Reads a row of an answer.
pub fn parse<T: DeserializeOwned>(row: &str) -> io::Result<T> {
    serde_json::from_str(row).map_err(io::Error::from)
}

/// Names come from clients: what could steer a terminal or fake a line is shown escaped.
pub fn safe(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// `Client(<id>, clean_sess=..., ...)` (SEED-CLI-10).
pub fn client(c: &ClientLine) -> String {
    format!(
        "Client({}, clean_sess={}, username={}, peername={}, connected_at={})",
        safe(&c.client_id),
        c.clean_sess,
        c.username.as_deref().map_or_else(|| "undefined".to_owned(), safe),
        c.peername,
        c.connected_at
    )
}

/// `Session(<id>, clean_sess=..., ...)` in the form of 2.3 (SEED-CLI-13).
pub fn session(s: &SessionLine) -> String {
    format!(
        "Session({}, clean_sess={}, subscriptions={}, max_inflight={}, inflight={}, mqueue_len={}, mqueue_dropped={}, \
         awaiting_rel={}, deliver_msg={}, enqueue_msg={}, created_at={})",
        safe(&s.client_id),
        s.clean_sess,
        s.subscriptions,
        s.max_inflight,
        s.inflight,
        s.mqueue_len,
        s.mqueue_dropped,
        s.awaiting_rel,
        s.deliver_msg,
        s.enqueue_msg,
        s.created_at
    )
}

/// `t/+/x -> node1,node2` (SEED-CLI-17).
pub fn route(r: &RouteLine) -> String {
    format!("{} -> {}", safe(&r.topic), r.nodes.join(","))
}

/// The topic only (SEED-CLI-19).
pub fn topic(r: &RouteLine) -> String {
    safe(&r.topic)
}

/// `client -> topic:1` (SEED-CLI-21).
pub fn subscription(s: &SubscriptionLine) -> String {
    format!("{} -> {}:{}", safe(&s.client_id), safe(&s.topic), s.qos)
}

/// One item of `client: [{<<"topic">>,1},...]` (SEED-CLI-23).
pub fn subscription_item(s: &SubscriptionLine) -> String {
    format!("{{<<\"{}\">>,{}}}", safe(&s.topic), s.qos)
}

/// `listener on mqtt:tcp:1883` and the lines below it (SEED-CLI-45).
pub fn listener(l: &ListenerLine) -> String {
    let counts: Vec<String> =
        l.shutdown_count.iter().map(|(reason, count)| format!("{{{reason},{count}}}")).collect();
    let mut text = format!("listener on {}", l.listener);
    for (name, value) in [
        ("acceptors", l.acceptors.to_string()),
        ("max_clients", l.max_clients.to_string()),
        ("current_clients", l.current_clients.to_string()),
        ("shutdown_count", format!("[{}]", counts.join(","))),
    ] {
        let _ = write!(text, "\n  {name:<16}: {value}");
    }
    if !l.running {
        let _ = write!(text, "\n  {:<16}: false", "running");
    }
    text
}

/// A setting as a line of a settings file, and what it is for.
pub fn setting(s: &SettingLine, doc: bool) -> String {
    let line = format!("{} = {}", s.key, s.value);
    if doc {
        return format!("## {}\n## From: {}\n{line}\n", s.doc, s.origin);
    }
    format!("{line:<56} ## {}", s.origin)
}

/// `Alarm(<id>, severity=..., raised=..., cleared=..., <what was found>)`
pub fn alarm(a: &AlarmLine) -> String {
    format!(
        "Alarm({}, severity={}, raised={}, cleared={}, {}: {})",
        a.id,
        a.severity,
        datetime(a.raised_at),
        a.cleared_at.map_or_else(|| "no".to_owned(), datetime),
        safe(&a.title),
        safe(&a.summary)
    )
}

/// `Banned(clientid, <id>, reason=..., by=..., at=..., until=...)`
pub fn ban(b: &BanLine) -> String {
    format!(
        "Banned({}, {}, reason={}, by={}, at={}, until={})",
        b.kind,
        safe(&b.who),
        safe(&b.reason),
        safe(&b.by),
        datetime(b.at),
        b.until.map_or_else(|| "never".to_owned(), datetime)
    )
}

/// `Delayed(<id>, topic=..., ...)`, and the payload if it was asked for.
pub fn delayed(d: &DelayedLine) -> String {
    let mut text = format!(
        "Delayed({}, topic={}, qos={}, retain={}, publish_at={}, expected_at={}, payload_bytes={})",
        d.id,
        safe(&d.topic),
        d.qos,
        d.retain,
        datetime(d.publish_at_ms / 1000),
        datetime(d.expected_at_ms / 1000),
        d.payload_bytes
    );
    for (name, payload) in [("payload", &d.payload), ("payload_hex", &d.payload_hex)] {
        if let Some(payload) = payload {
            let _ = write!(text, "\n  {name:<16}: {}", safe(payload));
        }
    }
    text
}

/// A line for each number of `retainer info`.
pub fn retainer(r: &RetainerLine) -> String {
    let max = r.max_message_num.map_or_else(|| "infinity".to_owned(), |max| max.to_string());
    let lines = [
        ("messages", r.messages.to_string()),
        ("bytes", r.bytes.to_string()),
        ("storage_type", r.storage_type.clone()),
        ("max_message_num", max),
        ("max_payload_size", r.max_payload_size.to_string()),
        ("expiry_interval", format!("{}s", r.expiry_interval_s)),
    ];
    lines.map(|(name, value)| format!("{name:<16}: {value}")).join("\n")
}

/// A line for each number of `store info`.
pub fn store(s: &StoreLine) -> String {
    let latency = |of: &LatencyLine| {
        format!(
            "p50 {} us, p99 {} us, p99.9 {} us, max {} us, {} measured",
            of.p50_us, of.p99_us, of.p999_us, of.max_us, of.count
        )
    };
    let found = s.found.map_or_else(
        || "being read".to_owned(),
        |found| {
            format!(
                "{} sessions, {} subscriptions, {} retained, {} delayed",
                found.sessions, found.subscriptions, found.retained, found.delayed
            )
        },
    );
    let mut lines = vec![
        ("health", s.health.clone()),
        ("last error", s.last_error.clone().unwrap_or_else(|| "none".to_owned())),
        ("format", s.format.to_string()),
        ("at the start", found),
        ("commits", format!("{}, {:.1}/s", s.commits, s.commits_per_s)),
        ("batches", s.batches.to_string()),
        ("changes", s.changes.to_string()),
        ("keys written", s.keys.to_string()),
        ("commit", latency(&s.commit)),
        ("sync", latency(&s.sync)),
        ("cut off", format!("{} bytes, {} writes nobody was told of", s.cut_bytes, s.cut_writes)),
        ("damaged", format!("{} values, {} counts", s.damaged_values, s.damaged_counts)),
        ("journal", format!("{} bytes", s.journal_bytes)),
    ];
    lines.extend(s.keyspaces.iter().map(|(name, bytes)| (&**name, format!("{bytes} bytes"))));
    let lines = lines.into_iter().map(|(name, value)| format!("{name:<16}: {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// `1234 records, 56789 bytes`
pub fn backup(b: BackupLine) -> String {
    format!("{} records, {} bytes", b.records, b.bytes)
}

/// The topic only, as EMQ's `retainer topics`.
pub fn retained(r: &RetainedLine) -> String {
    safe(&r.topic)
}

/// `5 removed`
pub fn removed(r: RemovedLine) -> String {
    format!("{} removed", r.removed)
}

/// The four lines of `broker` (SEED-CLI-02).
pub fn broker(b: &BrokerLine) -> String {
    let lines = [
        ("sysdescr", &b.sysdescr),
        ("version", &b.version),
        ("uptime", &b.uptime),
        ("datetime", &b.datetime),
    ];
    lines.map(|(name, value)| format!("{name:<10}: {value}")).join("\n")
}

/// A line for each number, in order of the names, which stand in `width` columns (SEED-CLI-03, 04).
pub fn numbers(object: &Map<String, Value>, width: usize) -> String {
    let mut lines: Vec<(&String, &Value)> = object.iter().collect();
    lines.sort_by_key(|(name, _)| *name);
    let lines: Vec<String> =
        lines.into_iter().map(|(name, value)| format!("{name:<width$}: {value}")).collect();
    lines.join("\n")
}

/// The lines of `vm` (SEED-CLI-34 to 39).
pub fn vm(object: &Map<String, Value>) -> String {
    let mut lines = Vec::new();
    for (group, width, names) in VM_GROUPS {
        for name in names {
            let value = match object.get(&format!("{group}/{name}")) {
                Some(Value::String(text)) => text.clone(),
                Some(number) => number.to_string(),
                None => continue,
            };
            lines.push(format!("{group}/{name:<width$}: {value}"));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests;
