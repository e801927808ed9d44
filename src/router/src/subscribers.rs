//! The subscribers of one filter on one shard.
//!
//! One subscriber is kept inline: most filters of a large broker have one. More are a list; a long
//! list gets an index, so that one of 500,000 is removed in constant time (`SEED-PUB-08`).

use crate::SubOptions;
use crate::fingerprint::mix;
use hashbrown::HashTable;
use std::slice;

/// From this many on a list has an index.
const INDEXED_FROM: usize = 32;

/// The index of a session in its shard.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct SessionId(pub u32);

/// A session that is subscribed, and how.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Subscriber {
    /// Who.
    pub session: SessionId,
    /// How.
    pub options: SubOptions,
}

const _: () = assert!(size_of::<Subscriber>() == 8 && size_of::<SubscriberSet>() == 16);

/// The subscribers of a filter; at least one.
pub(crate) enum SubscriberSet {
    One(Subscriber),
    Many(Box<Many>),
}

pub(crate) struct Many {
    list: Vec<Subscriber>,
    /// Places in `list` by session, once it is long.
    index: Option<HashTable<u32>>,
}

/// What a removal did.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Removed {
    /// The session was not subscribed.
    Absent,
    /// Others remain.
    One,
    /// It was the only one and is still there: the filter has to go, the set with it.
    Last,
}

fn hash(session: SessionId) -> u64 {
    mix(u64::from(session.0), 0)
}

fn place(index: usize) -> u32 {
    u32::try_from(index).expect("a session subscribes once, and session indices have 32 bits")
}

impl SubscriberSet {
    /// All of them, in no meaningful order.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[Subscriber] {
        match self {
            Self::One(subscriber) => slice::from_ref(subscriber),
            Self::Many(many) => &many.list,
        }
    }

    /// The place of `session` in the slice.
    pub(crate) fn position(&self, session: SessionId) -> Option<usize> {
        match self {
            Self::One(one) => (one.session == session).then_some(0),
            Self::Many(many) => many.position(session),
        }
    }

    /// The subscription of `session`.
    pub(crate) fn get(&self, session: SessionId) -> Option<&Subscriber> {
        self.position(session).map(|place| &self.as_slice()[place])
    }

    /// Adds a subscriber, or replaces its options (`MQTT-3.8.4-3`, `v5` `MQTT-3.8.4-3`); true when
    /// it is new.
    pub(crate) fn insert(&mut self, subscriber: Subscriber) -> bool {
        match self {
            Self::One(one) if one.session == subscriber.session => {
                one.options = subscriber.options;
                false
            }
            Self::One(one) => {
                let list = vec![*one, subscriber];
                *self = Self::Many(Box::new(Many { list, index: None }));
                true
            }
            Self::Many(many) => many.insert(subscriber),
        }
    }

    /// Takes a subscriber out.
    pub(crate) fn remove(&mut self, session: SessionId) -> Removed {
        let many = match self {
            Self::One(one) if one.session == session => return Removed::Last,
            Self::One(_) => return Removed::Absent,
            Self::Many(many) => many,
        };
        if !many.remove(session) {
            return Removed::Absent;
        }
        if let [one] = many.list[..] {
            *self = Self::One(one);
        }
        Removed::One
    }
}

impl Many {
    fn position(&self, session: SessionId) -> Option<usize> {
        let list = &self.list;
        match &self.index {
            Some(index) => index
                .find(hash(session), |place| list[*place as usize].session == session)
                .map(|place| *place as usize),
            None => list.iter().position(|one| one.session == session),
        }
    }

    fn insert(&mut self, subscriber: Subscriber) -> bool {
        if let Some(place) = self.position(subscriber.session) {
            self.list[place].options = subscriber.options;
            return false;
        }
        self.list.push(subscriber);
        let list = &self.list;
        let hasher = |place: &u32| hash(list[*place as usize].session);
        if let Some(index) = &mut self.index {
            index.insert_unique(hash(subscriber.session), place(list.len() - 1), hasher);
        } else if list.len() >= INDEXED_FROM {
            let mut index = HashTable::with_capacity(list.len() * 2);
            for (number, one) in list.iter().enumerate() {
                index.insert_unique(hash(one.session), place(number), hasher);
            }
            self.index = Some(index);
        }
        true
    }

    fn remove(&mut self, session: SessionId) -> bool {
        let Some(position) = self.position(session) else { return false };
        let (removed, last) = (place(position), place(self.list.len() - 1));
        if let Some(index) = &mut self.index {
            let found = index.find_entry(hash(session), |place| *place == removed);
            found.expect("the index knows every member of the list").remove();
            if removed != last {
                let moved = hash(self.list[last as usize].session);
                let entry = index.find_mut(moved, |place| *place == last);
                *entry.expect("the index knows every member of the list") = removed;
            }
        }
        self.list.swap_remove(position);
        self.shrink();
        true
    }

    /// Gives memory back once three quarters are not used.
    fn shrink(&mut self) {
        let list = &mut self.list;
        // Half of the threshold, so that one who comes and goes does not build the index each time.
        if list.len() < INDEXED_FROM / 2 {
            self.index = None;
        }
        if list.len() * 4 < list.capacity() {
            list.shrink_to(list.len() * 2);
            if let Some(index) = &mut self.index {
                index.shrink_to(list.len() * 2, |place| hash(list[*place as usize].session));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt::QoS;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn subscriber(session: u32, qos: QoS) -> Subscriber {
        Subscriber { session: SessionId(session), options: SubOptions::new(qos) }
    }

    proptest! {
        #[test]
        fn a_set_is_a_map_by_session(
            steps in prop::collection::vec((0u32..60, 0u8..5), 1..400),
        ) {
            let mut set = SubscriberSet::One(subscriber(99, QoS::AtMostOnce));
            let mut model = BTreeMap::from([(99, QoS::AtMostOnce)]);
            for (session, action) in steps {
                if let Some(qos) = QoS::from_bits(action) {
                    let new = model.insert(session, qos).is_none();
                    prop_assert_eq!(set.insert(subscriber(session, qos)), new);
                } else {
                    let expected = match model.remove(&session) {
                        Some(_) => Removed::One,
                        None => Removed::Absent,
                    };
                    prop_assert_eq!(set.remove(SessionId(session)), expected);
                }
                let all = set.as_slice().iter();
                let mut all: Vec<_> = all.map(|s| (s.session.0, s.options.qos())).collect();
                all.sort_unstable();
                prop_assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
                let known = set.get(SessionId(session)).map(|s| s.options.qos());
                prop_assert_eq!(known, model.get(&session).copied());
            }
        }
    }

    #[test]
    fn the_only_one_is_the_last() {
        let mut set = SubscriberSet::One(subscriber(1, QoS::AtMostOnce));
        assert_eq!(set.remove(SessionId(2)), Removed::Absent);
        assert_eq!(set.remove(SessionId(1)), Removed::Last);
        set.insert(subscriber(2, QoS::AtMostOnce));
        set.remove(SessionId(1));
        assert!(matches!(set, SubscriberSet::One(_)));
        assert_eq!(set.remove(SessionId(2)), Removed::Last);
    }

    #[test]
    fn half_a_million_come_and_go() {
        let mut set = SubscriberSet::One(subscriber(0, QoS::AtMostOnce));
        for session in 1..500_000 {
            assert!(set.insert(subscriber(session, QoS::AtMostOnce)));
        }
        for session in 0..499_990 {
            assert_eq!(set.remove(SessionId(session)), Removed::One);
        }
        let SubscriberSet::Many(many) = &set else { panic!("ten remain") };
        assert!(many.list.capacity() <= 64 && many.index.is_none());
    }
}
