//! The `$SYS` publisher: what the broker tells of itself as messages (SEED-SYS-01, 02, 05 to 09, 11).
//!
//! `$SYS/brokers` and each node's `version` and `sysdescr` are retained: they do not age. The others are told anew at each
//! interval, and of alarms it is told as they are raised and cleared.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mqtt::QoS;
use node::{Action, ActionError, ActionReply, Alarm, BrokerInfo, Node};
use serde_json::json;
use tokio::task;
use tokio::time::{MissedTickBehavior, interval};

use crate::text::{datetime, uptime};

/// One message.
struct Message {
    topic: String,
    payload: String,
    retain: bool,
}

/// How often is looked for alarms that have changed.
const ALARM_INTERVAL: Duration = Duration::from_secs(1);

/// Publishes at each interval, first at once, until the task is dropped.
pub(crate) async fn publish(node: Arc<Node>, every: Duration) {
    each(every, move || publish_all(&node)).await;
}

/// Publishes the alarms that were raised and cleared (SEED-SYS-09), until the task is dropped.
pub(crate) async fn publish_alarms(node: Arc<Node>) {
    let seen = Arc::new(AtomicU64::new(0));
    each(ALARM_INTERVAL, move || {
        let (changes, next) = node.alarms().changes_since(seen.load(Ordering::Relaxed));
        seen.store(next, Ordering::Relaxed);
        if changes.is_empty() {
            return Ok(());
        }
        let name = node.name();
        send(&node, changes.iter().map(|alarm| alarm_message(name, alarm)).collect())
    })
    .await;
}

/// Does something at each interval, on a thread that may wait.
async fn each(every: Duration, what: impl Fn() -> Result<(), ActionError> + Send + Sync + 'static) {
    let what = Arc::new(what);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let what = Arc::clone(&what);
        match task::spawn_blocking(move || what()).await {
            Ok(Ok(())) => {}
            Ok(Err(ActionError::Link(node::LinkError::Stopped))) | Err(_) => return,
            Ok(Err(error)) => log::warn!("$SYS messages are not complete: {error}"),
        }
    }
}

fn publish_all(node: &Node) -> Result<(), ActionError> {
    let ActionReply::Broker(info) = node.perform(Action::Broker)? else {
        unreachable!("Broker is answered by Broker")
    };
    let mut messages = broker(&info);
    for (action, part) in [(Action::Stats, "stats"), (Action::Metrics, "metrics")] {
        let ActionReply::Numbers(numbers) = node.perform(action)? else {
            unreachable!("Stats and Metrics are answered by Numbers")
        };
        messages.extend(numbers.into_iter().map(|(name, number)| Message {
            topic: format!("$SYS/brokers/{}/{part}/{name}", info.node),
            payload: number.to_string(),
            retain: false,
        }));
    }
    send(node, messages)
}

fn send(node: &Node, messages: Vec<Message>) -> Result<(), ActionError> {
    for Message { topic, payload, retain } in messages {
        let payload = Bytes::from(payload);
        let publish = Action::Publish { topic, payload, qos: QoS::AtMostOnce, retain, sys: true };
        if let ActionReply::Refused(reason) = node.perform(publish)? {
            log::warn!("the name of the node makes no $SYS topic: refused with {reason:?}");
            return Ok(());
        }
    }
    Ok(())
}

/// `alarms/<id>/alert` or `alarms/<id>/clear`.
fn alarm_message(node: &str, alarm: &Alarm) -> Message {
    let (word, at_ms) = match alarm.cleared_unix_ms {
        None => ("alert", alarm.raised_unix_ms),
        Some(at_ms) => ("clear", at_ms),
    };
    let payload = json!({
        "id": alarm.kind.id,
        "severity": alarm.kind.severity.word(),
        "title": alarm.kind.title,
        "summary": alarm.summary,
        "ts": at_ms / 1000,
    });
    Message {
        topic: format!("$SYS/brokers/{node}/alarms/{}/{word}", alarm.kind.id),
        payload: payload.to_string(),
        retain: false,
    }
}

fn broker(info: &BrokerInfo) -> Vec<Message> {
    let own = |name: &str, payload: String, retain| Message {
        topic: format!("$SYS/brokers/{}/{name}", info.node),
        payload,
        retain,
    };
    vec![
        Message { topic: "$SYS/brokers".to_owned(), payload: info.node.clone(), retain: true },
        own("version", info.version.to_owned(), true),
        own("sysdescr", info.sysdescr.to_owned(), true),
        own("uptime", uptime(info.uptime_s), false),
        own("datetime", datetime(info.unix_s), false),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use node::{AlarmKind, Severity};

    /// SEED-SYS-09
    #[test]
    fn an_alarm_is_told_as_json() {
        let kind = AlarmKind { id: "store_full", severity: Severity::Critical, title: "full" };
        let summary = "no \"room\"".to_owned();
        let mut alarm = Alarm { kind, summary, raised_unix_ms: 1500, cleared_unix_ms: None };
        let message = alarm_message("n@h", &alarm);
        assert_eq!(message.topic, "$SYS/brokers/n@h/alarms/store_full/alert");
        let told: serde_json::Value = serde_json::from_str(&message.payload).unwrap();
        let want = json!({
            "id": "store_full", "severity": "critical", "title": "full", "summary": "no \"room\"", "ts": 1,
        });
        assert_eq!(told, want);
        alarm.cleared_unix_ms = Some(9000);
        let message = alarm_message("n@h", &alarm);
        assert_eq!(message.topic, "$SYS/brokers/n@h/alarms/store_full/clear");
        assert!(message.payload.contains("\"ts\":9"));
    }

    #[test]
    fn topics_and_payloads_are_those_of_the_field() {
        let info = BrokerInfo {
            node: "ringmq@127.0.0.1".to_owned(),
            sysdescr: "RingMQ",
            version: "0.1.0",
            uptime_s: 61,
            unix_s: 1_452_950_252,
            shards: 2,
        };
        let told: Vec<_> =
            broker(&info).into_iter().map(|m| (m.topic, m.payload, m.retain)).collect();
        let own = |name: &str| format!("$SYS/brokers/ringmq@127.0.0.1/{name}");
        assert_eq!(
            told,
            [
                ("$SYS/brokers".to_owned(), "ringmq@127.0.0.1".to_owned(), true),
                (own("version"), "0.1.0".to_owned(), true),
                (own("sysdescr"), "RingMQ".to_owned(), true),
                (own("uptime"), "1 minutes, 1 seconds".to_owned(), false),
                (own("datetime"), "2016-01-16 13:17:32".to_owned(), false),
            ]
        );
    }
}
