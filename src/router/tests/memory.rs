//! Bytes that routes cost, and allocations that matching makes, by a counting allocator.
#![allow(unsafe_code, reason = "a global allocator cannot be written without")]
#![allow(missing_docs, reason = "tests have no readers of documentation")]

use mqtt::{FilterKind, ParsedFilter};
use ring::ShardId;
use ringmq_router::{Matches, RetainedIndex, RouteDelta, Router, SessionId, SubOptions};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    /// Of this thread: tests run beside each other. What another thread allocated may be freed here, so it wraps.
    static BYTES: Cell<usize> = const { Cell::new(0) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is the system allocator's with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.with(|bytes| bytes.set(bytes.get().wrapping_add(layout.size())));
        CALLS.with(|calls| calls.set(calls.get() + 1));
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.with(|bytes| bytes.set(bytes.get().wrapping_sub(layout.size())));
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn bytes() -> usize {
    BYTES.with(Cell::get)
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
        let before = bytes();
        let text = text(number);
        let temporary = bytes().wrapping_sub(before);
        let before = bytes();
        subscribe(&mut own, number, &text, &mut deltas);
        // A wildcard's delta carries its text: not the tables'.
        let carried = match &deltas[0] {
            RouteDelta::AddWildcard(text) => text.len(),
            _ => 0,
        };
        own_bytes += bytes().wrapping_sub(carried).wrapping_sub(before).cast_signed();
        let before = bytes();
        other.apply(own.id(), &deltas[0]);
        other_bytes += bytes().wrapping_sub(before).cast_signed();
        deltas.clear();
        assert!(temporary >= text.len());
        if sizes.contains(&(number + 1)) {
            let each = |all: isize| usize::try_from(all).unwrap().div_ceil(number + 1);
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
    let before = bytes();
    let mut index = RetainedIndex::<u32>::new();
    for number in 0..100_000 {
        // An odd factor: all numbers in an order of no pattern.
        index.insert(&topic(number * 7_919 % 100_003), 0);
    }
    let each = bytes().wrapping_sub(before) / index.len();
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
    let before = CALLS.with(Cell::get);
    for topic in &topics {
        own.matches(topic, &mut out);
        assert_eq!(out.filters.len(), 6);
        own.match_local(topic, &mut out);
        other.matches(topic, &mut out);
        assert_eq!(out.shards.len(), 1);
    }
    assert_eq!(CALLS.with(Cell::get) - before, 0, "allocations while matching");
}
