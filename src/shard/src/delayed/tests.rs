use metrics::{Counter, DropKind, DropReason, Gauge};
use session::{MessageId, Publication};

use super::*;
use crate::desk::{Desk, changes, connect, publish, stored};
use crate::effect::ConnectionId;
use crate::storage::{StoreOp, StoreReply};

/// A client that publishes and a subscriber of `a`.
fn pair(set: &[(&str, &str)]) -> (Desk, ConnectionId, ConnectionId) {
    let mut desk = Desk::new(set);
    let publisher = desk.accept(0, "10.0.0.1:5");
    desk.tick(1, Some((publisher, &connect("p", 0))));
    let subscriber = desk.accept(0, "10.0.0.2:5");
    desk.tick(1, Some((subscriber, &connect("s", 0))));
    desk.tick(1, Some((subscriber, &[0x82, 6, 0, 1, 0, 1, b'a', 0])));
    (desk, publisher, subscriber)
}

fn dropped(desk: &Desk, reason: DropReason) -> u64 {
    desk.shard.metrics().dropped(DropKind::Qos0, reason)
}

fn message(id: u128, expires_unix_ms: Option<u64>) -> Arc<Message> {
    let publication = Publication { expires_unix_ms, ..Publication::new("a", b"x") };
    Message::new(MessageId(id), &publication)
}

/// SEED-PUB-16
#[test]
fn a_message_is_published_when_it_is_due_and_not_before() {
    let (mut desk, publisher, subscriber) = pair(&[]);
    for topic in ["$delayed/2/a", "$delay/1/a"] {
        assert_eq!(desk.tick(0, Some((publisher, &publish(topic, topic)))), []);
    }
    let metrics = desk.shard.metrics().clone();
    assert_eq!(metrics.count(Gauge::Delayed), 2);
    assert_eq!(desk.shard.next_deadline_ms(), Some(desk.now.mono_ms + 1000));
    assert_eq!(desk.tick(999, None), []);
    assert_eq!(desk.tick(1, None), [(subscriber, publish("a", "$delay/1/a"))]);
    // The subscriber's keepalive is off and nothing else is to be done: the next deadline is the message's.
    assert_eq!(desk.shard.next_deadline_ms(), Some(desk.now.mono_ms + 1000));
    assert_eq!(desk.tick(1000, None), [(subscriber, publish("a", "$delayed/2/a"))]);
    assert_eq!(metrics.count(Gauge::Delayed), 0);
    assert_eq!(metrics.get(Counter::MessagesDelayedPublished), 2);
    assert_eq!(desk.shard.next_delayed_ms(), None);
}

#[test]
fn what_is_too_much_too_long_or_no_delay_is_dropped_and_counted() {
    let set = [("delayed.max_delayed_messages", "2"), ("delayed.max_delay", "10s")];
    let (mut desk, publisher, _) = pair(&set);
    for topic in ["$delayed/10/a", "$delayed/10/a", "$delayed/10/a", "$delayed/11/a"] {
        desk.tick(0, Some((publisher, &publish(topic, "x"))));
    }
    assert_eq!(dropped(&desk, DropReason::QuotaExceeded), 2);
    for topic in ["$delayed/x/a", "$delayed/1", "$delayed/1/", "$delayed//a"] {
        desk.tick(0, Some((publisher, &publish(topic, "x"))));
    }
    assert_eq!(dropped(&desk, DropReason::DelayInvalid), 4);
    assert_eq!(desk.shard.delayed.len(), 2);
    assert_eq!(desk.tick(10_000, None).len(), 1);
}

#[test]
fn off_the_topics_are_topics_like_any_other() {
    let (mut desk, publisher, _) = pair(&[("delayed.enable", "off")]);
    let before = desk.shard.metrics().get(Counter::MessagesNoSubscribers);
    desk.tick(0, Some((publisher, &publish("$delayed/x/a", "x"))));
    assert_eq!(desk.shard.metrics().get(Counter::MessagesNoSubscribers), before + 1);
    assert!(desk.shard.delayed.is_empty());
}

/// As EMQX: the expiry interval runs from when the message was received.
#[test]
fn what_expires_before_it_is_due_is_never_published() {
    let (mut desk, _, _) = pair(&[]);
    let now_ms = desk.now.unix_ms;
    desk.shard.restore_delayed(now_ms + 1000, 1, message(1, Some(now_ms + 1000)));
    desk.shard.restore_delayed(now_ms + 1000, 2, message(2, Some(now_ms + 1001)));
    assert_eq!(desk.tick(1000, None).len(), 1);
    assert_eq!(dropped(&desk, DropReason::Expired), 1);
}

/// A million may be due at once: a tick publishes a slice of them, and the next one follows without waiting.
#[test]
fn many_that_are_due_at_once_are_published_in_slices() {
    let (mut desk, _, _) = pair(&[("mqtt.conn.pending_bytes_max", "1MB")]);
    let count = 10 * SLICE as u64;
    // Overdue, as after a restart.
    for id in 0..count {
        desk.shard.restore_delayed(1, id, message(u128::from(id), None));
    }
    for tick in 1..=10 {
        assert_eq!(desk.shard.next_deadline_ms(), Some(desk.now.mono_ms));
        desk.tick(0, None);
        assert_eq!(desk.shard.delayed.len() as u64, count - tick * SLICE as u64);
    }
    assert_eq!(desk.shard.next_delayed_ms(), None);
}

#[test]
fn the_clock_of_days_may_be_set_while_the_shard_sleeps() {
    let (mut desk, publisher, subscriber) = pair(&[]);
    desk.tick(0, Some((publisher, &publish("$delayed/86400/a", "x"))));
    assert_eq!(desk.shard.next_delayed_ms(), Some(desk.now.mono_ms + LOOK_MS_MAX));
    desk.now.unix_ms += 86_400_000;
    assert_eq!(desk.tick(1, None), [(subscriber, publish("a", "x"))]);
}

#[test]
fn they_are_listed_in_pages_shown_and_deleted() {
    let (mut desk, publisher, _) = pair(&[]);
    for seconds in (1..=5).rev() {
        let topic = format!("$delayed/{seconds}/a");
        desk.tick(0, Some((publisher, &publish(&topic, &seconds.to_string()))));
    }
    let mut cursor = None;
    let mut due = Vec::new();
    let mut ids = Vec::new();
    loop {
        let page = desk.shard.delayed_page(cursor, 2);
        for row in &page.rows {
            due.push((row.id.due_unix_ms - desk.now.unix_ms) / 1000);
            assert_eq!((row.topic.as_str(), row.payload_len, &row.payload), ("a", 1, &None));
            ids.push(row.id);
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(due, [1, 2, 3, 4, 5]);
    let Reply::DelayedMessage(Some(row)) = desk.shard.delayed_show(ids[2]) else { panic!("there") };
    assert_eq!(row.payload.as_deref(), Some(&b"3"[..]));
    assert_eq!(desk.shard.delayed_delete(ids[2]), Reply::Done);
    assert_eq!(desk.shard.delayed_delete(ids[2]), Reply::NotFound);
    assert_eq!(desk.shard.delayed_show(ids[2]), Reply::DelayedMessage(None));
    assert_eq!(dropped(&desk, DropReason::Deleted), 1);
}

/// SEED-PUB-16: what waits is in the store until it is due.
#[test]
fn a_message_is_in_the_store_until_it_is_due() {
    let (mut desk, batches, replies) = stored(&[]);
    replies.send(StoreReply::Found { numbers_from: 40 }).unwrap();
    desk.shard.run_store();
    desk.tick(1, None);
    let publisher = desk.accept(0, "10.0.0.1:5");
    desk.tick(1, Some((publisher, &connect("p", 0))));
    desk.tick(1, Some((publisher, &publish("$delayed/2/a", "x"))));
    let due = desk.now.unix_ms + 2000;
    let put = changes(&batches, &replies);
    let [StoreOp::PutDelayed(put)] = &put[..] else { panic!("{put:?}") };
    assert_eq!((put.slot, put.number, put.due_unix_ms), (slot(b"a"), 40 << 8, due));
    assert_eq!(put.message.topic(), "a");
    desk.shard.run_store();
    desk.tick(2000, None);
    let removed = changes(&batches, &replies);
    let [StoreOp::RemoveDelayed { slot: at, number: 10_240 }] = removed[..] else {
        panic!("{removed:?}")
    };
    assert_eq!(at, slot(b"a"));
}

/// SEED-PUB-16: nothing is published while subscriptions may be unknown; what was on its way here is taken once, whether it had
/// arrived or not; all count for the limit.
#[test]
fn a_start_takes_back_what_waited_and_what_was_on_its_way() {
    let (mut desk, batches, replies) = stored(&[("delayed.max_delayed_messages", "3")]);
    let due = desk.now.unix_ms + 1000;
    let one = |slot: u16, number: u64, due_unix_ms: u64, id: u128| StoredDelayed {
        slot,
        number,
        due_unix_ms,
        message: message(id, None),
    };
    let (own, other) = (slot(b"a"), slot(b"a") ^ 1);
    let found =
        vec![one(own, 7, 5, 1), one(own, 8, due, 2), one(other, 7, due, 2), one(other, 9, due, 3)];
    replies.send(StoreReply::Delayed(found)).unwrap();
    desk.shard.run_store();
    desk.tick(1, None);
    assert_eq!(desk.shard.delayed.len(), 2, "one is overdue, and waits");
    assert_eq!(desk.shard.next_delayed_ms(), None);
    replies.send(StoreReply::Found { numbers_from: 10 }).unwrap();
    desk.shard.run_store();
    desk.tick(1, None);
    assert_eq!(desk.shard.delayed.len(), 3);
    let mut ops = changes(&batches, &replies);
    let number = |op: &StoreOp| match op {
        StoreOp::RemoveDelayed { slot, number } if *slot == other => *number,
        StoreOp::PutDelayed(put) if put.slot == own && put.due_unix_ms == due => put.number,
        op => panic!("{op:?}"),
    };
    ops.sort_by_key(number);
    assert_eq!(ops.iter().map(number).collect::<Vec<_>>(), [7, 9, 10 << 8]);
    let publisher = desk.accept(0, "10.0.0.1:5");
    desk.shard.run_store();
    desk.tick(1, Some((publisher, &connect("p", 0))));
    assert_eq!(desk.shard.delayed.len(), 2, "the overdue one is published");
    for _ in 0..2 {
        desk.tick(1, Some((publisher, &publish("$delayed/600/a", "x"))));
    }
    assert_eq!((desk.shard.delayed.len(), dropped(&desk, DropReason::QuotaExceeded)), (3, 1));
}
