use crossbeam_channel::{Receiver, bounded};
use session::{MessageId, Publication};

use super::*;

fn message(topic: &str, payload: &str) -> Arc<Message> {
    let publication = Publication { retain: true, ..Publication::new(topic, payload.as_bytes()) };
    Message::new(MessageId(1), &publication)
}

fn row(topic: &str) -> StoredRetainedRow {
    StoredRetainedRow {
        topic: topic.into(),
        published_unix_ms: 1,
        expires_unix_ms: None,
        is_gone: false,
    }
}

/// Of which the store has told all, if `is_told`.
fn disc_only(is_told: bool) -> (DiscOnly, Receiver<RetainedRead>) {
    let (sender, reads) = bounded(READS_MAX);
    let mut disc_only = DiscOnly::new(ShardId::new(0), sender, 7);
    if is_told {
        disc_only.found_all();
    }
    (disc_only, reads)
}

fn all(from: Option<&str>) -> RetainedQuery {
    RetainedQuery::All { from: from.map(Box::from) }
}

fn stored(messages: &[Arc<Message>], next: Option<&str>) -> StoredRetainedPage {
    StoredRetainedPage { messages: messages.to_vec(), next: next.map(Box::from) }
}

fn texts(page: &Page) -> Vec<(&str, &str)> {
    let text = |message| std::str::from_utf8(message).expect("the tests write text");
    page.messages.iter().map(|m| (m.topic(), text(m.payload()))).collect()
}

/// An overwritten value is never seen behind its successor, however long the reading takes.
#[test]
fn what_changes_while_a_page_is_read_is_laid_over_it() {
    let (mut disc_only, reads) = disc_only(true);
    for topic in ["a", "b", "c", "z"] {
        disc_only.put(message(topic, "old"), 1, None);
    }
    disc_only.forget(1);
    disc_only.ask(Asker::Replay(3), all(None));
    disc_only.send(1);
    let asked = reads.try_recv().expect("it was asked");
    disc_only.put(message("b", "new"), 2, None);
    assert!(disc_only.remove("c", 2));
    disc_only.put(message("bb", "new"), 3, None);
    disc_only.put(message("y", "later"), 3, None);
    // They are committed before the page comes, which was read before.
    disc_only.forget(3);
    let old = ["a", "b", "c"].map(|topic| message(topic, "old"));
    let (asker, page) = disc_only.answered(asked.id, stored(&old, Some("x"))).expect("good");
    assert_eq!(asker, Asker::Replay(3));
    assert_eq!(texts(&page), [("a", "old"), ("b", "new"), ("bb", "new")]);
    assert_eq!(page.next.as_deref(), Some("x"), "what is behind comes with the next page");
    disc_only.forget(3);
    assert_eq!(disc_only.recent.len(), 0, "nobody needs them any more");
    assert_eq!(disc_only.len(), 5);
}

#[test]
fn a_page_that_came_too_late_is_read_again() {
    let (mut disc_only, reads) = disc_only(true);
    disc_only.ask(Asker::Replay(3), all(None));
    disc_only.send(0);
    let asked = reads.try_recv().expect("it was asked");
    for n in 0..=RECENT_MAX {
        disc_only.put(message(&format!("t/{n}"), "x"), 1, None);
    }
    // More than is held for it.
    disc_only.forget(1);
    assert!(disc_only.recent.len() <= RECENT_MAX);
    assert!(disc_only.answered(asked.id, stored(&[], None)).is_none());
    disc_only.send(1);
    let again = reads.try_recv().expect("it is asked again");
    assert_eq!(again.query, asked.query);
    let (_, page) = disc_only.answered(again.id, stored(&[], None)).expect("good");
    assert_eq!(page.messages.len(), RECENT_PAGE, "and then in parts");
    assert!(page.next.is_some());
}

#[test]
fn counts_are_exact_without_reading() {
    let (mut disc_only, _reads) = disc_only(true);
    for n in 0..1000 {
        disc_only.put(message(&format!("t/{}", n % 300), "x"), 1, None);
    }
    assert_eq!(disc_only.len(), 300);
    assert!(disc_only.has("t/7") && disc_only.remove("t/7", 2) && !disc_only.remove("t/7", 2));
    disc_only.forget(2);
    assert!(matches!(disc_only.look("t/7", None), Look::Here(none) if none.is_empty()));
    assert!(matches!(disc_only.look("t/8", None), Look::Read(RetainedQuery::Topic(_))));
    disc_only.put(message("t/8", "y"), 3, None);
    let Look::Here(held) = disc_only.look("t/8", None) else { panic!("it was just changed") };
    assert_eq!((held[0].payload(), disc_only.len()), (&b"y"[..], 299));
    // Those of the broker itself stay in memory.
    disc_only.put_own(&message("$SYS/a", "1"));
    disc_only.put_own(&message("$SYS/a", "2"));
    assert_eq!(disc_only.len(), 300);
    disc_only.forget(9);
    assert!(matches!(disc_only.look("$SYS/a", None), Look::Here(one) if one.len() == 1));
    assert!(disc_only.remove_own("$SYS/a") && !disc_only.remove_own("$SYS/a"));
    assert_eq!(disc_only.len(), 299);
}

/// What changed while the store still tells what it had counts, not what it had.
#[test]
fn what_came_after_the_start_is_newer_than_what_is_found() {
    let (mut disc_only, _reads) = disc_only(false);
    assert!(matches!(disc_only.look("kept", None), Look::Read(_)), "nobody knows yet");
    assert!(disc_only.remove("removed", 1));
    disc_only.put(message("put", "x"), 1, Some(5000));
    assert!(disc_only.remove("both", 1));
    disc_only.put(message("both", "x"), 1, None);
    disc_only.forget(1);
    for topic in ["removed", "put", "both", "kept"] {
        assert!(disc_only.found(&row(topic), None));
    }
    let gone = StoredRetainedRow { is_gone: true, ..row("gone") };
    assert!(!disc_only.found(&gone, None), "it says only that there is none");
    disc_only.found_all();
    assert_eq!(disc_only.len(), 3);
    assert!(!disc_only.has("removed") && !disc_only.has("gone"));
    assert_eq!(disc_only.expired(6000, 9), [Box::from("put")]);
}

/// Removal of what has expired costs by what has, not by what there is; and a topic that gets another message waits anew.
#[test]
fn what_expires_is_found_without_a_search() {
    let (mut disc_only, _reads) = disc_only(true);
    for n in 0..100 {
        let due = (n % 2 == 0).then_some(1000 * n + 1);
        disc_only.put(message(&format!("t/{n}"), "x"), 1, due);
    }
    assert_eq!(disc_only.expired(1000, 9), [Box::from("t/0")]);
    disc_only.put(message("t/0", "again"), 2, Some(90_000));
    assert!(disc_only.expired(1000, 9).is_empty());
    disc_only.put(message("t/2", "for ever"), 2, None);
    assert_eq!(disc_only.expired(6000, 9), [Box::from("t/4")]);
    assert!(disc_only.remove("t/4", 3) && disc_only.expired(6000, 9).is_empty());
    assert_eq!(disc_only.expired(u64::MAX, 7).len(), 7, "a part at a time");
    assert_eq!((disc_only.expiries.of.len(), disc_only.expiries.due.len()), (48, 48));
}

#[test]
fn so_many_pages_are_asked_for_at_a_time() {
    let (mut disc_only, reads) = disc_only(true);
    for replay in 0..100 {
        disc_only.ask(Asker::Replay(replay), all(None));
    }
    disc_only.send(0);
    assert_eq!(reads.len(), READS_MAX);
    for n in 0..100 {
        let asked = reads.try_recv().expect("one after the other");
        let (asker, _) = disc_only.answered(asked.id, stored(&[], None)).expect("good");
        assert_eq!(asker, Asker::Replay(n));
        disc_only.send(0);
    }
    assert!(reads.is_empty() && disc_only.asked.is_empty());
}
