use router::{RetainedIndex, ScanBudget};
use session::{MessageId, Publication};
use shard::storage::{StoreBatch, StoreOp, StoreReply, StoreRequest};

use super::*;
use crate::core::Core;
use crate::engine::SimulatedEngine;
use crate::fixture::{Draws, message};

fn core_with(messages: &[Arc<Message>]) -> Core<SimulatedEngine> {
    let mut core = Core::open(SimulatedEngine::new(), 1).expect("it opens");
    let put = |message: &Arc<Message>| StoreOp::PutRetained { message: message.clone() };
    apply(&mut core, 1, messages.iter().map(put).collect());
    core
}

fn apply(core: &mut Core<SimulatedEngine>, sequence: u64, ops: Vec<StoreOp>) -> Vec<StoreReply> {
    let batch = StoreBatch { sequence, ops, ..StoreBatch::default() };
    core.take(StoreRequest { shard: ShardId::new(0), batch });
    let outcome = core.commit(|_| Ok(true)).expect("it writes").expect("there was something");
    outcome.replies.into_iter().map(|(_, reply)| reply).collect()
}

fn gone(id: u128, topic: &str) -> Arc<Message> {
    let publication = Publication { retain: true, ..Publication::new(topic, b"") };
    Message::new(MessageId(id), &publication)
}

/// All pages of a query, and how many they were.
fn read_all(
    core: &Core<SimulatedEngine>,
    of: RetainedOf,
    query: impl Fn(Option<Box<str>>) -> RetainedQuery,
) -> (Vec<String>, usize) {
    let (mut found, mut pages, mut from) = (Vec::new(), 0, None);
    loop {
        let mut damage = Damage::default();
        let page = read_retained(&core.snapshot(), of, &query(from), &mut damage).expect("reads");
        assert_eq!(damage, Damage::default());
        pages += 1;
        found.extend(page.messages.iter().map(|message| message.topic().to_owned()));
        from = page.next;
        if from.is_none() {
            return (found, pages);
        }
    }
}

const ONE: RetainedOf = RetainedOf { shard: ShardId::new(0), shards: 1 };

#[test]
fn pages_of_all_shards_are_what_an_index_in_memory_has() {
    let mut draws = Draws::new(5);
    let levels = ["", "a", "b", "a-b", "$a", "aa", "\u{e9}"];
    let mut level = || levels[usize::try_from(draws.below(7)).expect("small")];
    let mut topics: Vec<String> = (0..3000)
        .map(|n| match n % 4 {
            0 => level().to_owned(),
            1 => format!("{}/{}", level(), level()),
            2 => format!("{}/{}/{}", level(), level(), level()),
            _ => format!("{}/{}/{}/{n}", level(), level(), level()),
        })
        .filter(|topic| !topic.is_empty())
        .collect();
    topics.sort();
    topics.dedup();
    let messages: Vec<_> = topics.iter().map(|topic| message(1, topic)).collect();
    let core = core_with(&messages);
    let mut index = RetainedIndex::new();
    for topic in &topics {
        index.insert(topic, ());
    }
    for filter in ["#", "+", "a/#", "+/a", "+/+/b/#", "a/+/+", "$a/#", "/#", "+/a-b/+/+", "b/a/#"] {
        let all = ScanBudget { matches_max: usize::MAX, visits_max: usize::MAX };
        let wanted: Vec<&str> =
            index.scan(filter, None, all).matches.iter().map(|(topic, ())| *topic).collect();
        let mut found = Vec::new();
        for shard in 0..3 {
            let of = RetainedOf { shard: ShardId::new(shard), shards: 3 };
            let query = |from| RetainedQuery::Matching { filter: filter.into(), from };
            let (topics, _) = read_all(&core, of, query);
            assert!(topics.iter().all(|topic| of.has(topic)), "{filter}: not of the shard");
            found.extend(topics);
        }
        found.sort();
        assert_eq!(found, wanted, "{filter}");
    }
    let (found, pages) = read_all(&core, ONE, |from| RetainedQuery::All { from });
    assert_eq!(found, topics);
    assert!(pages > topics.len() / PAGE, "{pages} pages");
}

/// NONE-17: what a filter costs depends on what it matches, not on what there is.
#[test]
fn what_cannot_match_is_passed_over() {
    let mut messages: Vec<_> =
        (0..20_000).map(|n| message(1, &format!("x/{}/{n}", n / 10))).collect();
    messages.extend((0..3).map(|n| message(1, &format!("x/{n}/here"))));
    let core = core_with(&messages);
    let query = |from| RetainedQuery::Matching { filter: "x/777/+".into(), from };
    let (found, pages) = read_all(&core, ONE, query);
    assert_eq!((found.len(), pages), (10, 1), "one page, whatever else there is");
    let query = |from| RetainedQuery::Matching { filter: "x/+/here".into(), from };
    let (found, pages) = read_all(&core, ONE, query);
    assert_eq!(found.len(), 3);
    assert!(pages <= 4, "{pages} pages: each value of the + costs a few looks");
}

#[test]
fn a_page_is_bounded_in_bytes() {
    let large = |n: u32| {
        let mut publication = message(1, "").publication().payload.to_vec();
        publication.resize(60_000, 7);
        let topic = format!("t/{n}");
        let gone = gone(1, "t");
        let publication =
            Publication { payload: &publication, topic: &topic, ..gone.publication() };
        Message::new(MessageId(1), &publication)
    };
    let core = core_with(&(0..20).map(large).collect::<Vec<_>>());
    let query = RetainedQuery::Matching { filter: "#".into(), from: None };
    let page = read_retained(&core.snapshot(), ONE, &query, &mut Damage::default()).expect("reads");
    assert_eq!(page.messages.len(), 5);
    let (found, _) =
        read_all(&core, ONE, |from| RetainedQuery::Matching { filter: "#".into(), from });
    assert_eq!(found.len(), 20);
}

/// A message that was on its way comes again after a crash: it must not take the place of a newer one, nor of a newer end.
#[test]
fn what_is_retained_again_does_not_replace_what_is_as_new() {
    let id = |ms: u128| (ms * 1000) << 64;
    let mut core = core_with(&[message(id(5), "kept"), gone(id(5), "gone")]);
    let again = |message: Arc<Message>| StoreOp::RetainAgain { message };
    let replies = apply(
        &mut core,
        2,
        vec![
            again(message(id(4), "kept")),
            again(gone(id(4), "kept")),
            again(message(id(4), "gone")),
            again(message(id(4), "new")),
            again(gone(id(6), "kept")),
            again(message(id(6), "gone")),
        ],
    );
    let told: Vec<(String, bool)> = replies
        .into_iter()
        .map(|reply| match reply {
            StoreReply::RetainedIs(row) => (row.topic.into(), !row.is_gone),
            other => panic!("{other:?}"),
        })
        .collect();
    let told: Vec<(&str, bool)> = told.iter().map(|(topic, is)| (topic.as_str(), *is)).collect();
    let wanted = [
        ("kept", true),
        ("kept", true),
        ("gone", false),
        ("new", true),
        ("kept", false),
        ("gone", true),
    ];
    assert_eq!(told, wanted);
    let (found, _) = read_all(&core, ONE, |from| RetainedQuery::All { from });
    assert_eq!(found, ["gone", "new"]);
}
