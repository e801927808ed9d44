//! The `$SYS` publisher: what the broker tells of itself as messages (SEED-SYS-01, 02, 05 to 08, 11).
//!
//! `$SYS/brokers` and each node's `version` and `sysdescr` are retained: they do not age. The others are told anew at each
//! interval.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mqtt::QoS;
use node::{Action, ActionError, ActionReply, BrokerInfo, Node};
use tokio::task;
use tokio::time::{MissedTickBehavior, interval};

use crate::text::{datetime, uptime};

/// One message.
struct Message {
    topic: String,
    payload: String,
    retain: bool,
}

/// Publishes at each interval, first at once, until the task is dropped.
pub(crate) async fn publish(node: Arc<Node>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let node = Arc::clone(&node);
        match task::spawn_blocking(move || publish_all(&node)).await {
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
