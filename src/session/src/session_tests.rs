use std::sync::Arc;

use super::*;
use crate::message::{Message, MessageId, Publication};
use crate::stored::StoredPlace;

fn message() -> Arc<Message> {
    let publication = Publication { qos: QoS::ExactlyOnce, ..Publication::new("t", b"p") };
    Message::new(MessageId(0), &publication)
}

fn delivery(qos: QoS) -> Delivery {
    Delivery {
        message: message(),
        qos,
        retain: false,
        subscription_ids: None,
        shared: None,
        place: None,
    }
}

const LIMITS: MqueueLimits = MqueueLimits { length_max: 10, store_qos0: true };

#[test]
fn qos1_goes_out_until_the_window_is_full_then_queues_in_order() {
    let mut session = Session::new("c", false, 0);
    for n in 1..=2 {
        assert_eq!(session.sendable_id(2).map(PacketId::get), Some(n));
        assert_eq!(session.sent(delivery(QoS::AtLeastOnce), 0).get(), n);
    }
    assert_eq!(session.sendable_id(2), None);
    assert_eq!(session.enqueue(delivery(QoS::AtLeastOnce), 0, LIMITS), Pushed::Queued);
    assert!(session.dequeue(2).is_none());
    assert_eq!(session.puback(PacketId::new(1).unwrap()), Acknowledged::Awaited(None));
    assert_eq!(session.sendable_id(2), None, "the queued one goes first");
    let (queued, id) = session.dequeue(2).unwrap();
    assert_eq!(id.get(), 3);
    assert_eq!(session.sent(queued, 0), id);
}

#[test]
fn qos2_forgets_the_message_at_pubrec_and_answers_a_repeated_one() {
    let mut session = Session::new("c", false, 0);
    let id = session.sent(delivery(QoS::ExactlyOnce), 0);
    assert_eq!(session.puback(id), Acknowledged::Missed, "MQTT-4.3.3: PUBACK is for QoS 1");
    assert_eq!(session.pubrec(id, true, 5), Acknowledged::Awaited(None));
    assert_eq!(session.pubrec(id, true, 6), Acknowledged::Awaited(None));
    session.mark_unsent();
    assert!(matches!(session.take_unsent(0, 7).next(), Some((_, Awaiting::PubComp(None)))));
    assert_eq!(session.pubcomp(id), Acknowledged::Awaited(None));
    assert_eq!(session.pubcomp(id), Acknowledged::Missed);
    assert_eq!(session.inflight_len(), 0);
}

#[test]
fn a_failed_pubrec_ends_the_message() {
    let mut session = Session::new("c", false, 0);
    let id = session.sent(delivery(QoS::ExactlyOnce), 0);
    assert_eq!(session.pubrec(id, false, 5), Acknowledged::Awaited(None));
    assert_eq!(session.inflight_len(), 0);
}

#[test]
fn an_idle_session_keeps_nothing_but_its_next_id() {
    let mut session = Session::new("c", false, 0);
    let id = session.sent(delivery(QoS::AtLeastOnce), 0);
    session.release_idle();
    assert_eq!(session.inflight_len(), 1);
    session.puback(id);
    session.release_idle();
    assert!(session.here().is_none());
    assert_eq!(session.sendable_id(1).map(PacketId::get), Some(2));
}

#[test]
fn only_overdue_messages_are_sent_again() {
    let mut session = Session::new("c", false, 0);
    session.sent(delivery(QoS::AtLeastOnce), 0);
    session.sent(delivery(QoS::AtLeastOnce), 900);
    assert_eq!(session.flow_deadline_ms(1000, 0), Some(1000));
    assert_eq!(session.overdue(0, 1000).count(), 1);
    assert_eq!(session.overdue(0, 1000).count(), 0);
}

#[test]
fn a_smaller_window_gets_the_rest_as_acknowledgements_come() {
    let mut session = Session::new("c", false, 0);
    let ids: Vec<PacketId> = (0..5).map(|_| session.sent(delivery(QoS::AtLeastOnce), 0)).collect();
    session.mark_unsent();
    assert_eq!(session.take_unsent(2, 1).count(), 2);
    assert!(session.has_unsent());
    assert_eq!(session.take_unsent(2, 1).count(), 0);
    session.puback(ids[0]);
    assert_eq!(session.take_unsent(2, 2).map(|(id, _)| id).collect::<Vec<_>>(), [ids[2]]);
    // Acknowledged before it was sent again: the client had it from the connection before.
    session.puback(ids[4]);
    session.puback(ids[1]);
    assert_eq!(session.take_unsent(2, 3).map(|(id, _)| id).collect::<Vec<_>>(), [ids[3]]);
    assert!(!session.has_unsent());
}

#[test]
fn undelivered_messages_come_out_in_order() {
    let mut session = Session::new("c", false, 0);
    let first = session.sent(delivery(QoS::ExactlyOnce), 0);
    session.sent(delivery(QoS::AtLeastOnce), 0);
    session.enqueue(delivery(QoS::AtMostOnce), 0, LIMITS);
    session.pubrec(first, true, 0);
    let left: Vec<QoS> = session.take_undelivered().iter().map(|d| d.qos).collect();
    assert_eq!(left, [QoS::AtLeastOnce, QoS::AtMostOnce]);
}

#[test]
fn a_session_of_an_idle_client_is_small() {
    assert!(size_of::<Session>() <= 104, "{}", size_of::<Session>());
}

#[test]
fn an_unloaded_session_keeps_its_counts_and_goes_on_with_its_packet_ids() {
    let place = |number| Some(StoredPlace::new(number, false));
    let mut session = Session::new("c", false, 0);
    for number in 1..=3 {
        session.sent(Delivery { place: place(number), ..delivery(QoS::AtLeastOnce) }, 0);
    }
    session.enqueue(Delivery { place: place(4), ..delivery(QoS::AtMostOnce) }, 0, LIMITS);
    session.receive_qos2(PacketId::new(7).unwrap(), 0, 0);
    session.unload();
    let lens = |s: &Session| (s.mqueue_len(), s.inflight_len(), s.awaiting_rel_len());
    assert_eq!(lens(&session), (1, 3, 1));
    assert!(session.is_unloaded() && session.needs_load() && session.has_unsent().eq(&false));
    session.appended();
    session.trimmed(1);
    assert_eq!((lens(&session), session.dropped, session.enqueued), ((1, 3, 1), 1, 2));
    let window = vec![(PacketId::new(2).unwrap(), Awaiting::PubAck(delivery(QoS::AtLeastOnce)))];
    session.restore(window, Vec::new(), &[], 5);
    assert_eq!((lens(&session), session.needs_load()), ((0, 1, 0), false));
    session.puback(PacketId::new(2).unwrap());
    session.unload();
    assert!(session.is_unloaded() && !session.needs_load());
    session.load_nothing();
    assert_eq!(session.sendable_id(0).map(PacketId::get), Some(3), "the one behind the last");
    // What nobody has counted may be anything; what came since is added to what is found.
    session.found_stored();
    session.appended();
    assert!(session.needs_load() && session.is_uncounted());
    session.counted(StoredCounts { queued: 5, inflight: 1, awaiting_rel: 0 });
    assert_eq!(lens(&session), (6, 1, 0));
}
