//! Scans against a filter over an ordered map.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Levels around the byte order of `/`, where neighbours are not what they seem.
fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "a-", "a0", "b", "$", "$s", "!", "é"])
}

fn topics() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic has a byte", |topic| !topic.is_empty())
}

fn filters() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 2 => Just("+")];
    (prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(mut levels, all)| {
            if all {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter has a byte", |filter| !filter.is_empty())
}

fn budgets() -> impl Strategy<Value = ScanBudget> {
    (1usize..6, 1usize..9)
        .prop_map(|(matches_max, visits_max)| ScanBudget { matches_max, visits_max })
}

fn index_of(topics: &BTreeSet<String>) -> RetainedIndex<String> {
    let mut index = RetainedIndex::new();
    for topic in topics {
        index.insert(topic, topic.clone());
    }
    index
}

proptest! {
    #[test]
    fn a_scan_finds_what_matches_in_order(
        held in prop::collection::btree_set(topics(), 0..60),
        filter in filters(),
        budget in budgets(),
    ) {
        let index = index_of(&held);
        let mut found = Vec::new();
        let mut cursor = None;
        loop {
            let page = index.scan(&filter, cursor, budget);
            prop_assert!(page.matches.len() <= budget.matches_max);
            prop_assert!(page.next.is_none() || page.next > cursor);
            found.extend(page.matches.iter().map(|(topic, _)| String::from(*topic)));
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        let expected: Vec<_> =
            held.iter().filter(|topic| topic::matches(&filter, topic)).cloned().collect();
        prop_assert_eq!(found, expected, "{}", filter);
    }

    #[test]
    fn a_scan_survives_changes_between_pages(
        held in prop::collection::btree_set(topics(), 0..60),
        filter in filters(),
        budget in budgets(),
        changes in prop::collection::vec((topics(), any::<bool>()), 0..80),
    ) {
        let mut index = index_of(&held);
        let mut stays: BTreeMap<String, bool> = held.iter().map(|t| (t.clone(), true)).collect();
        let mut changes = changes.into_iter();
        let mut found: Vec<String> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = index.scan(&filter, cursor.as_deref(), budget);
            for (topic, value) in &page.matches {
                prop_assert!(topic::matches(&filter, topic) && topic == value);
                prop_assert!(found.last().is_none_or(|last| last.as_str() < *topic));
                found.push(String::from(*topic));
            }
            let Some(next) = page.next else { break };
            cursor = Some(next.to_owned());
            for (topic, add) in changes.by_ref().take(3) {
                if add {
                    index.insert(&topic, topic.clone());
                } else {
                    index.remove(&topic);
                    stays.insert(topic, false);
                }
            }
        }
        for (topic, _) in stays.iter().filter(|(_, stays)| **stays) {
            let met = found.contains(topic);
            prop_assert_eq!(met, topic::matches(&filter, topic), "{} {}", filter, topic);
        }
    }
}

#[test]
fn replace_get_and_remove() {
    let mut index = RetainedIndex::default();
    assert_eq!(index.insert("a/b", 1), None);
    assert_eq!(index.insert("a/b", 2), Some(1));
    *index.get_mut("a/b").unwrap() += 1;
    assert_eq!((index.get("a/b"), index.get("a"), index.len()), (Some(&3), None, 1));
    assert_eq!(index.scan("a/b", None, ScanBudget::of_matches(1)).matches, [("a/b", &3)]);
    assert_eq!(index.iter_after(Some("a")).count(), 1);
    assert_eq!((index.remove("a/b"), index.remove("a/b")), (Some(3), None));
    assert!(index.is_empty());
}

/// MQTT-4.7.2-1.
#[test]
fn system_topics_are_not_found_by_leading_wildcards() {
    let mut index = RetainedIndex::new();
    for topic in ["$SYS/up", "!x/up", "x/up"] {
        index.insert(topic, ());
    }
    let found = |filter| {
        let page = index.scan(filter, None, ScanBudget::of_matches(9));
        page.matches.iter().map(|(topic, ())| (*topic).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("#"), ["!x/up", "x/up"]);
    assert_eq!(found("+/up"), ["!x/up", "x/up"]);
    assert_eq!(found("$SYS/#"), ["$SYS/up"]);
}

#[test]
fn branches_that_cannot_match_are_passed_over() {
    let mut index = RetainedIndex::new();
    for branch in 0..10 {
        for leaf in 0..2000 {
            index.insert(&format!("a/{branch}/{leaf:04}/x"), ());
        }
        index.insert(&format!("a/{branch}/z"), ());
    }
    let budget = ScanBudget { matches_max: 100, visits_max: 120 };
    for (filter, count) in [("a/+/z", 10), ("a/+/1000/#", 10), ("+/+/1999/x", 10)] {
        let page = index.scan(filter, None, budget);
        assert_eq!((page.matches.len(), page.next), (count, None), "{filter}");
    }
}
