//! Budgets that are measured and cannot flake: memory of an idle client (DESIGN section 8). They hold for release builds; against another
//! binary the test says so and measures nothing.

use std::thread;
use std::time::Duration;

use ringmq_tests::broker::is_release;
use ringmq_tests::{Broker, Client, Connect, V311};

const WARM_UP: usize = 1_000;
const CLIENTS: usize = 5_000;
const BYTES_EACH_MAX: u64 = 512;

fn idle(broker: &Broker, number: usize) -> Client {
    let client_id = format!("idle-{number:015}");
    assert_eq!(client_id.len(), 20);
    let mut client = broker.connect(&Connect::new(V311, &client_id).keep_alive(600));
    let filter = format!("devices/{number:010}/state");
    assert_eq!(filter.len(), 24);
    client.subscribe(&filter, 0);
    client
}

/// Bytes of RSS of a client with an id of 20 bytes, one exact subscription of 24 bytes and keep alive.
#[test]
fn idle_client_takes_at_most_512_bytes() {
    if !is_release() {
        eprintln!(
            "not measured: the budget is for a release build (cargo build --release -p ringmq)"
        );
        return;
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let files: usize = line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX);
    assert!(files > WARM_UP + CLIENTS + 100, "run it with `ulimit -n 20000`: {line}");
    let broker = Broker::start(&[]);
    let mut clients: Vec<Client> = (0..WARM_UP).map(|number| idle(&broker, number)).collect();
    thread::sleep(Duration::from_millis(1500));
    let before = broker.rss_bytes();
    clients.extend((WARM_UP..WARM_UP + CLIENTS).map(|number| idle(&broker, number)));
    thread::sleep(Duration::from_millis(1500));
    let grown = broker.rss_bytes().saturating_sub(before);
    let each = grown / u64::try_from(CLIENTS).unwrap();
    eprintln!("{each} bytes each for {CLIENTS} idle clients");
    assert!(each <= BYTES_EACH_MAX, "{each} bytes of RSS for each idle client");
    clients[CLIENTS / 2].expect_alive();
}

/// Clients that come and go leave nothing behind: 400 bytes of each would be 8 MB here.
#[test]
fn memory_does_not_grow_with_clients_that_come_and_go() {
    let broker = Broker::start(&[]);
    let come_and_go = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            idle(&broker, number).disconnect();
        }
    };
    come_and_go(0..2_000);
    let before = broker.rss_bytes();
    come_and_go(2_000..22_000);
    let grown = broker.rss_bytes().saturating_sub(before);
    assert!(grown < 5 << 20, "{grown} bytes grown over 20,000 clients that are gone");
}
