//! Prints what a match costs by the number of routes: `cargo run --release -p ringmq-router
//! --example match_cost`.
//!
//! A node of two shards; each filter has one subscriber, on one shard or the other in turn. Topics
//! are drawn at random from those that match, so that large tables miss the caches as they do in
//! service; drawing them is not timed.

use mqtt::{FilterKind, ParsedFilter};
use ring::ShardId;
use ringmq_router::{Matches, Router, SessionId, SubOptions};
use std::time::{Duration, Instant};

const BATCH: usize = 1024;
const BATCHES: usize = 400;

fn node(routes: usize, filter: impl Fn(usize) -> String) -> [Router; 2] {
    let mut routers = [0, 1].map(|shard| Router::new(ShardId::new(shard), 2, 12_345));
    let mut deltas = Vec::new();
    for number in 0..routes {
        let text = filter(number);
        let filter = ParsedFilter { kind: FilterKind::Plain, filter: &text };
        let [one, two] = &mut routers;
        let (own, other) = if number % 2 == 0 { (one, two) } else { (two, one) };
        own.subscribe(SessionId(0), &filter, SubOptions::default(), &mut deltas);
        for delta in deltas.drain(..) {
            other.apply(own.id(), &delta);
        }
    }
    routers
}

/// Nanoseconds per match.
fn cost(router: &Router, routes: usize) -> f64 {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut out = Matches::default();
    let mut spent = Duration::ZERO;
    let mut found = 0;
    for _ in 0..BATCHES {
        let topics: Vec<String> = (0..BATCH)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let drawn = u128::from(random) * routes as u128;
                format!("devices/{:08}/command", drawn >> 64)
            })
            .collect();
        let start = Instant::now();
        for topic in &topics {
            router.matches(topic, &mut out);
            found += out.filters.len() + out.shards.len();
        }
        spent += start.elapsed();
    }
    assert_eq!(found, BATCH * BATCHES, "each topic has one subscriber");
    spent.as_secs_f64() * 1e9 / (BATCH * BATCHES) as f64
}

fn main() {
    println!("{:>10} {:>12} {:>12} ns/match", "routes", "exact", "wildcard");
    for routes in [1_000, 50_000, 1_000_000] {
        let exact = node(routes, |number| format!("devices/{number:08}/command"));
        let exact = cost(&exact[0], routes);
        let wildcard = node(routes, |number| format!("devices/{number:08}/+"));
        let wildcard = cost(&wildcard[0], routes);
        println!("{routes:>10} {exact:>12.1} {wildcard:>12.1}");
    }
}
