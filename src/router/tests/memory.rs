//! Bytes that routes cost, and allocations that matching makes, by a counting allocator.
#![allow(missing_docs, reason = "tests have no readers of documentation")]

use mqtt::{FilterKind, ParsedFilter};
use ring::ShardId;
use ringmq_router::{Matches, RetainedIndex, RouteDelta, Router, SessionId, SubOptions};

/// Bytes that are held after this call and were not before.
fn held(call: impl FnOnce()) -> i64 {
    allocation_counter::measure(call).bytes_current
}

fn topic(number: usize) -> String {
    format!("devices/{number:08}/command")
}

fn subscribe(router: &mut Router, number: usize, text: &str, deltas: &mut Vec<RouteDelta>) {
    let session = SessionId(u32::try_from(number).unwrap());
    let filter = ParsedFilter { kind: FilterKind::Plain, filter: text };
    router.subscribe(session, &filter, SubOptions::default(), deltas);
}

fn routers() -> [Router; 2] {
    [0, 1].map(|shard| Router::new(ShardId::new(shard), 2, 99))
}

/// Subscribes and applies until `count`; bytes per filter on the own and on the other shard, worst
/// of several sizes.
fn worst_cost(sizes: &[usize], text: impl Fn(usize) -> String) -> (usize, usize) {
    let [mut own, mut other] = routers();
    let mut deltas = Vec::with_capacity(1);
    let (mut own_bytes, mut other_bytes, mut worst) = (0, 0, (0, 0));
    for number in 0..*sizes.last().unwrap() {
        let mut made = String::new();
        let temporary = held(|| made = text(number));
        own_bytes += held(|| subscribe(&mut own, number, &made, &mut deltas));
        // A wildcard's delta carries its text: not the tables'.
        let carried = match &deltas[0] {
            RouteDelta::AddWildcard(text) => text.len(),
            _ => 0,
        };
        let len = |len: usize| i64::try_from(len).unwrap();
        own_bytes -= len(carried);
        other_bytes += held(|| other.apply(own.id(), &deltas[0]));
        deltas.clear();
        assert!(temporary >= len(made.len()));
        if sizes.contains(&(number + 1)) {
            let each = |all: i64| usize::try_from(all).unwrap().div_ceil(number + 1);
            worst = (worst.0.max(each(own_bytes)), worst.1.max(each(other_bytes)));
        }
    }
    worst
}

/// Sizes that meet the tables before and after their growth.
const SIZES: [usize; 5] = [60_000, 75_000, 100_000, 120_000, 150_000];

#[test]
fn an_exact_subscription_costs_little() {
    assert_eq!(topic(1).len(), 24);
    let (own, other) = worst_cost(&SIZES, topic);
    println!("exact: {own} bytes on the own shard, {other} on another");
    assert!(own <= 90, "{own} bytes on the own shard");
    assert!(other <= 22, "{other} bytes on another shard");
}

#[test]
fn a_wildcard_subscription_costs_little() {
    let (own, other) = worst_cost(&SIZES, |number| format!("devices/{number:08}/+"));
    println!("wildcard: {own} bytes on the own shard, {other} on another");
    assert!(own <= 170, "{own} bytes on the own shard");
    assert!(other <= 90, "{other} bytes on another shard");
}

#[test]
fn a_retained_topic_costs_little() {
    let mut index = RetainedIndex::<u32>::new();
    let all = held(|| {
        for number in 0..100_000 {
            // An odd factor: all numbers in an order of no pattern.
            index.insert(&topic(number * 7_919 % 100_003), 0);
        }
    });
    let each = usize::try_from(all).unwrap() / index.len();
    println!("retained: {each} bytes");
    assert!(each <= 60, "{each} bytes");
}

#[test]
fn matching_allocates_nothing() {
    let [mut own, mut other] = routers();
    let mut deltas = Vec::new();
    for number in 0..1000 {
        subscribe(&mut own, 1, &topic(number), &mut deltas);
        subscribe(&mut own, 2, &format!("devices/{number:08}/+"), &mut deltas);
    }
    for filter in ["#", "+/+/+", "devices/#", "devices/+/command"] {
        subscribe(&mut own, 3, filter, &mut deltas);
    }
    for delta in &deltas {
        other.apply(own.id(), delta);
    }
    let mut out = Matches::default();
    let topics: Vec<String> = (0..1000).map(topic).collect();
    own.matches(&topics[0], &mut out);
    let counted = allocation_counter::measure(|| {
        for topic in &topics {
            own.matches(topic, &mut out);
            assert_eq!(out.filters.len(), 6);
            own.match_local(topic, &mut out);
            other.matches(topic, &mut out);
            assert_eq!(out.shards.len(), 1);
        }
    });
    assert_eq!(counted.count_total, 0, "allocations while matching");
}
