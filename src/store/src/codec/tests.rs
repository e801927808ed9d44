use std::sync::Arc;

use mqtt::{PacketId, QoS};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use session::{Message, MessageId, Publication};
use shard::storage::{
    SessionHead, StoredDelayed, StoredEntry, StoredPlace, StoredSession, StoredState,
    StoredSubscription, StoredWill,
};

use super::values::EntryMessage;
use super::{CodecError, keys, values};

fn qos() -> impl Strategy<Value = QoS> {
    (0..3u8).prop_map(|bits| QoS::from_bits(bits).expect("0 to 2 are valid"))
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).expect("not zero"))
}

fn places() -> impl Strategy<Value = StoredPlace> {
    (1..1u64 << 62, any::<bool>()).prop_map(|(number, shared)| StoredPlace::new(number, shared))
}

prop_compose! {
    fn messages()(
        id in any::<u128>(),
        topic in "[a-z/]{1,20}",
        payload in vec(any::<u8>(), 0..100),
        forwarded in vec(any::<u8>(), 0..20),
        qos in qos(),
        retain in any::<bool>(),
        sys in any::<bool>(),
        expires_unix_ms in option::of(any::<u64>()),
    ) -> Arc<Message> {
        Message::new(MessageId(id), &Publication {
            topic: &topic,
            payload: &payload,
            forwarded: &forwarded,
            qos,
            retain,
            sys,
            expires_unix_ms,
            origin: None,
        })
    }
}

prop_compose! {
    fn heads()(
        client_id in ".{0,30}",
        created_unix_s in any::<u32>(),
        expiry_interval_s in any::<u32>(),
        offline_since_unix_ms in option::of(any::<u64>()),
        will in option::of((messages(), option::of(any::<u32>()), any::<u32>())),
    ) -> SessionHead {
        SessionHead {
            client_id: client_id.into(),
            created_unix_s,
            expiry_interval_s,
            offline_since_unix_ms,
            will: will.map(|(message, expiry_interval_s, delay_s)| {
                StoredWill { message, expiry_interval_s, delay_s }
            }),
        }
    }
}

prop_compose! {
    fn entries()(
        state in prop_oneof![
            Just(StoredState::Queued),
            packet_id().prop_map(StoredState::Sent),
            (packet_id(), any::<u128>())
                .prop_map(|(id, message)| StoredState::Released(id, MessageId(message))),
        ],
        message in option::of(messages()),
        qos in qos(),
        retain in any::<bool>(),
        priority in any::<u8>(),
        subscription_ids in option::of(vec(any::<u32>(), 0..5)),
        by_group in any::<bool>(),
    ) -> StoredEntry {
        // The message itself is given up at PUBREC.
        let message = message.filter(|_| !matches!(state, StoredState::Released(..)));
        StoredEntry {
            state,
            message,
            qos,
            retain,
            priority,
            subscription_ids: subscription_ids.map(Into::into),
            by_group,
        }
    }
}

fn same(a: &Message, b: &Message) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

proptest! {
    #[test]
    fn heads_come_back(head in heads(), slot in any::<u16>(), number in any::<u64>()) {
        let session = StoredSession { slot, number };
        let key = keys::session(session);
        prop_assert_eq!(keys::read_session(&key), Ok((session, &[][..])));
        let read = values::read_head(&key, &values::head(&key, &head)).expect("it is whole");
        prop_assert_eq!(format!("{head:?}"), format!("{read:?}"));
    }

    #[test]
    fn entries_come_back(entry in entries(), slot in any::<u16>(), place in places()) {
        let session = StoredSession { slot, number: 1 };
        let key = keys::entry(session, place);
        prop_assert_eq!(keys::read_entry(&key), Ok((session, place)));
        let value = values::entry(&key, place, &entry);
        let (read, message) = values::read_entry(&key, &value).expect("it is whole");
        let is_same = match (&entry.message, message) {
            (None, EntryMessage::None) => true,
            (Some(message), EntryMessage::Own(read)) => !place.is_shared() && same(message, &read),
            (Some(message), EntryMessage::Shared(id)) => place.is_shared() && message.id == id,
            _ => false,
        };
        prop_assert!(is_same);
        let outline = values::read_entry_outline(&key, &value).expect("it is whole");
        prop_assert_eq!(outline.is_queued, entry.state == StoredState::Queued);
        prop_assert_eq!(outline.priority, entry.priority);
        let id = match entry.state {
            StoredState::Released(_, id) => Some(id),
            _ => entry.message.as_ref().map(|message| message.id),
        };
        prop_assert_eq!(outline.message, id);
        let without = StoredEntry { message: None, ..entry };
        prop_assert_eq!(format!("{without:?}"), format!("{read:?}"));
    }

    #[test]
    fn messages_and_delayed_come_back(message in messages(), due_unix_ms in any::<u64>()) {
        let key = keys::retained(message.topic());
        let read = values::read_message(&key, &values::message(&key, &message));
        prop_assert!(same(&message, &read.expect("it is whole")));
        let delayed = StoredDelayed { slot: 3, number: 4, due_unix_ms, message };
        let key = keys::delayed(3, 4);
        let read = values::read_delayed(&key, &values::delayed(&key, &delayed));
        prop_assert_eq!(format!("{delayed:?}"), format!("{:?}", read.expect("it is whole")));
    }

    #[test]
    fn a_changed_byte_is_found(message in messages(), at in any::<prop::sample::Index>()) {
        let key = keys::message(message.id);
        let mut value = values::message(&key, &message);
        let at = at.index(value.len());
        value[at] ^= 0x10;
        prop_assert_eq!(values::read_message(&key, &value).err(), Some(CodecError::Checksum));
    }

    #[test]
    fn keys_are_in_the_order_of_sessions_and_places(
        a in (0..4u16, 0..4u64, places()),
        b in (0..4u16, 0..4u64, places()),
    ) {
        let key = |(slot, number, place)| {
            keys::entry(StoredSession { slot, number }, place)
        };
        prop_assert_eq!(a.cmp(&b), key(a).cmp(&key(b)));
    }
}

#[test]
fn a_filter_too_long_for_a_key_comes_back() {
    let session = StoredSession { slot: 1, number: 2 };
    for len in [1, 60_000, 60_001, 65_535] {
        let filter = "f".repeat(len);
        let key = keys::subscription(session, &filter);
        assert!(key.len() < 65_536);
        let subscription =
            StoredSubscription { filter: filter.as_str().into(), options: 5, id: 77 };
        let value = values::subscription(&key, &subscription);
        assert_eq!(values::read_subscription(&key, &value), Ok(subscription));
    }
}

#[test]
fn a_value_under_another_key_is_found() {
    let (key, other) = (keys::message(MessageId(1)), keys::message(MessageId(2)));
    let value = values::number(&key, 5);
    assert_eq!(values::read_number(&key, &value), Ok(5));
    assert_eq!(values::read_number(&other, &value), Err(CodecError::Checksum));
}

#[test]
fn what_is_behind_a_prefix_is_the_next_of_its_kind() {
    assert_eq!(keys::behind(&[1, 2]).as_deref(), Some(&[1, 3][..]));
    assert_eq!(keys::behind(&[1, 255]).as_deref(), Some(&[2][..]));
    assert_eq!(keys::behind(&[255, 255]), None);
}
