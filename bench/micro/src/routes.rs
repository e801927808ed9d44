//! What a match costs, and what routes cost in memory.
//!
//! A node of two shards: one has all the subscribers, the other knows the routes. Topics are drawn at
//! random and are many, so that natively large tables miss the caches as they do in service; the
//! generator has a fixed seed, so that every run matches the same ones.

use crate::error::MicroError;
use crate::hooks;
use crate::meter::{Meter, Routes};
use mqtt::{FilterKind, ParsedFilter};
use ring::ShardId;
use router::{Matches, RouteDelta, Router, SessionId, SubOptions};
use std::fmt::{self, Write as _};
use std::hint::black_box;
use std::path::Path;

/// Topics matched. So many that what they touch in a large table is more than a cache holds.
const TOPICS: usize = 200_000;
/// As a process would draw it at random.
const SEED: u64 = 12_345;
/// Filters that every device's command matches, for the row with a little of everything.
const BROAD: [&str; 3] = ["#", "+/+/command", "devices/#"];

/// The filter (or topic) of a number, of 24 bytes as those of the memory budget.
fn command(number: usize, out: &mut String) -> fmt::Result {
    write!(out, "devices/{number:08}/command")
}

/// Even ones end with `+`, odd ones with `#`.
fn wild_filter(number: usize, out: &mut String) -> fmt::Result {
    match number % 2 {
        0 => write!(out, "devices/{number:08}/+"),
        _ => write!(out, "devices/{number:08}/#"),
    }
}

/// Both shards of the node, and what they take.
struct Node {
    home: Router,
    other: Router,
    memory: Routes,
}

impl Node {
    /// Subscribes `count` sessions at home, to a filter each.
    fn new(
        kind: &str,
        count: usize,
        filter: impl Fn(usize, &mut String) -> fmt::Result,
    ) -> Result<Self, MicroError> {
        let [home, other] = [0, 1].map(|shard| Router::new(ShardId::new(shard), 2, SEED));
        let memory = Routes {
            kind: kind.to_owned(),
            count,
            own_bytes: 0,
            other_bytes: 0,
            resident_bytes: 0,
        };
        let mut node = Self { home, other, memory };
        let (mut text, mut deltas) = (String::with_capacity(64), Vec::with_capacity(1));
        let resident_before = resident_bytes()?;
        // Tables shrink and grow as they move, so the sums are taken modulo 2^64.
        let (mut own, mut other) = (0_usize, 0_usize);
        for number in 0..count {
            text.clear();
            filter(number, &mut text).expect("a text takes all that is written to it");
            let before = hooks::live_bytes();
            node.subscribe(number, &text, &mut deltas);
            // A wildcard's delta carries its text: not the tables'.
            let carried = match &deltas[..] {
                [RouteDelta::AddWildcard(text)] => text.len(),
                _ => 0,
            };
            let between = hooks::live_bytes();
            own = own.wrapping_add(between.wrapping_sub(before).wrapping_sub(carried));
            node.tell(&mut deltas);
            let after = hooks::live_bytes();
            other = other.wrapping_add(after.wrapping_add(carried).wrapping_sub(between));
        }
        node.memory.own_bytes = own;
        node.memory.other_bytes = other;
        node.memory.resident_bytes = resident_bytes()?.saturating_sub(resident_before);
        Ok(node)
    }

    fn subscribe(&mut self, session: usize, text: &str, deltas: &mut Vec<RouteDelta>) {
        let session = SessionId(u32::try_from(session).expect("fewer sessions than 2^32"));
        let filter = ParsedFilter { kind: FilterKind::Plain, filter: text };
        self.home.subscribe(session, &filter, SubOptions::default(), deltas);
    }

    fn tell(&mut self, deltas: &mut Vec<RouteDelta>) {
        for delta in deltas.drain(..) {
            self.other.apply(self.home.id(), &delta);
        }
    }
}

/// Reads how much memory the process has from the kernel.
fn resident_bytes() -> Result<usize, MicroError> {
    let path = Path::new("/proc/self/status");
    let text = std::fs::read_to_string(path)
        .map_err(|source| MicroError::File { path: path.to_owned(), source })?;
    let field = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = field.and_then(|field| field.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    Ok(kib.unwrap_or_default() * 1024)
}

/// Texts one behind the other, as packets in a buffer are.
struct Topics {
    text: String,
    ends: Vec<usize>,
}

impl Topics {
    /// Of numbers below `count`, drawn at random.
    fn draw(count: usize, topic: impl Fn(usize, &mut String) -> fmt::Result) -> Self {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut topics = Self { text: String::new(), ends: Vec::with_capacity(TOPICS) };
        for _ in 0..TOPICS {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let drawn = (u128::from(random) * count as u128) >> 64;
            let drawn = usize::try_from(drawn).expect("it is below the count");
            topic(drawn, &mut topics.text).expect("a text takes all that is written to it");
            topics.ends.push(topics.text.len());
        }
        topics
    }

    fn list(&self) -> Vec<&str> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(start, end)| &self.text[*start..*end]).collect()
    }
}

/// Measures a match of each topic, which must find so many filters and shards.
fn measure(meter: &mut Meter, name: &str, router: &Router, topics: &Topics, each: usize) {
    let topics = topics.list();
    let mut out = Matches::default();
    for topic in topics.iter().take(1_000) {
        router.matches(topic, &mut out);
        assert_eq!(out.filters.len() + out.shards.len(), each, "what {topic} finds");
    }
    meter.measure(name, topics.len(), |number| {
        router.matches(black_box(topics[number]), &mut out);
        black_box(&out);
    });
}

/// 1234567 as 1,234,567.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Filters without wildcards.
pub fn exact(meter: &mut Meter, count: usize) -> Result<(), MicroError> {
    let mut node = Node::new("exact", count, command)?;
    let topics = Topics::draw(count, command);
    let absent = Topics::draw(count, |number, out| write!(out, "devices/{number:08}/unknown"));
    let routes = thousands(count);
    measure(meter, &format!("match at home, {routes} exact"), &node.home, &topics, 1);
    measure(meter, &format!("match for another shard, {routes} exact"), &node.other, &topics, 1);
    measure(meter, &format!("match nobody, {routes} exact"), &node.home, &absent, 0);
    let mut deltas = Vec::new();
    for filter in BROAD {
        node.subscribe(count, filter, &mut deltas);
        node.tell(&mut deltas);
    }
    let name = format!("match 4 at home, {routes} exact and # + +");
    measure(meter, &name, &node.home, &topics, 1 + BROAD.len());
    meter.routes(node.memory);
    Ok(())
}

/// Filters with `+` and `#`, half and half; none of them shares more than its first level.
pub fn wildcard(meter: &mut Meter, count: usize) -> Result<(), MicroError> {
    let node = Node::new("+ and #", count, wild_filter)?;
    let topics = Topics::draw(count, command);
    let routes = thousands(count);
    measure(meter, &format!("match at home, {routes} + and #"), &node.home, &topics, 1);
    measure(meter, &format!("match for another shard, {routes} + and #"), &node.other, &topics, 1);
    meter.routes(node.memory);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_get_their_commas() {
        let text = [0, 999, 1_000, 12_345, 10_000_000].map(thousands);
        assert_eq!(text, ["0", "999", "1,000", "12,345", "10,000,000"]);
    }

    #[test]
    fn a_node_has_its_routes_on_both_shards() {
        let node = Node::new("exact", 5_000, command).expect("a node");
        let mut out = Matches::default();
        for (router, found) in [(&node.home, (1, 0)), (&node.other, (0, 1))] {
            router.matches("devices/00004999/command", &mut out);
            assert_eq!((out.filters.len(), out.shards.len()), found);
        }
        // A filter takes a cache line at home, and elsewhere its fingerprint.
        assert!(node.memory.own_bytes > 64 * 5_000, "{} at home", node.memory.own_bytes);
        assert!(node.memory.other_bytes > 12 * 5_000, "{} elsewhere", node.memory.other_bytes);
        assert!(node.memory.other_bytes < node.memory.own_bytes / 2);
    }

    #[test]
    fn topics_are_the_same_in_every_run_and_in_the_range() {
        let (one, two) = (Topics::draw(1_000, command), Topics::draw(1_000, command));
        assert_eq!(one.text, two.text);
        let list = one.list();
        assert_eq!((list.len(), list[0].len()), (TOPICS, 24));
        assert!(list.iter().all(|topic| *topic < "devices/00001000/command"));
        assert!(list.iter().any(|topic| *topic != list[0]));
    }
}
