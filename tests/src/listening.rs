//! What `ringmq listeners` says of a broker under test.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::client::WAIT;

fn row(broker: &Broker, name: &str) -> serde_json::Value {
    let text = broker.cli(&["listeners", "--json"]);
    let rows = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let row = rows.into_iter().find(|row: &serde_json::Value| row["name"] == name);
    row.unwrap_or_else(|| panic!("there is no listener {name}"))
}

/// Where a listener beside the harness's own listens, by its name.
///
/// # Panics
/// When there is none of this name.
#[must_use]
#[track_caller]
pub fn address(broker: &Broker, name: &str) -> SocketAddr {
    row(broker, name)["address"].as_str().and_then(|text| text.parse().ok()).expect("an address")
}

/// How many connections of a listener ended for a reason.
#[must_use]
#[track_caller]
pub fn ended(broker: &Broker, name: &str, reason: &str) -> u64 {
    row(broker, name)["shutdown_count"][reason].as_u64().unwrap_or(0)
}

/// Waits until so many connections of a listener have ended for a reason.
///
/// # Panics
/// When that does not happen in time.
#[track_caller]
pub fn expect_ended(broker: &Broker, name: &str, reason: &str, count: u64) {
    let end = Instant::now() + WAIT;
    loop {
        if ended(broker, name, reason) == count {
            return;
        }
        let row = row(broker, name);
        assert!(Instant::now() < end, "{count} {reason} were expected: {}", row["shutdown_count"]);
        thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a broker with settings that are made by the test.
#[must_use]
pub fn start(arguments: &[&str], settings: &[Vec<String>]) -> Broker {
    let settings = settings.iter().flatten().map(String::as_str);
    Broker::start(&arguments.iter().copied().chain(settings).collect::<Vec<_>>())
}
