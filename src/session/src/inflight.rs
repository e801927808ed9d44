//! The inflight window: messages sent to a client and not yet acknowledged, in the order of their packet ids
//! (SEED-SESS-03, MQTT-4.3.2, MQTT-4.3.3, MQTT-4.6).
//!
//! Packet ids are given out in sequence, so an id's distance from the oldest one is its place in the window and
//! every acknowledgement is found in one step. Acknowledged places in the middle stay empty until the front
//! passes them; [`SPAN_MAX`] bounds how far the window may stretch, so a client that never acknowledges its
//! oldest message cannot make it grow.

use std::collections::VecDeque;

use mqtt::PacketId;

use crate::mqueue::Delivery;
use crate::stored::StoredPlace;

/// How many times its window the span of ids between the oldest and the newest unacknowledged message may be.
const SPAN_FACTOR: usize = 8;
/// The least such span, so that small windows are not held up by one late acknowledgement.
const SPAN_MIN: usize = 256;
/// The most: more would give out an id again while it is in use (MQTT-2.2.1-4).
pub const SPAN_MAX: usize = 65_534;

/// What the client has to say next about a message.
#[derive(Debug)]
pub enum Awaiting {
    /// PUBACK of a `QoS` 1 message.
    PubAck(Delivery),
    /// PUBREC of a `QoS` 2 message.
    PubRec(Delivery),
    /// PUBCOMP; the message itself is no longer needed (MQTT-4.3.3-6), only its place in the store.
    PubComp(Option<StoredPlace>),
}

/// An entry of the window.
#[derive(Debug)]
pub struct Entry {
    /// What is awaited.
    pub awaiting: Awaiting,
    /// When it was last sent, on the monotonic clock.
    pub sent_ms: u64,
}

/// The window.
#[derive(Debug)]
pub struct Inflight {
    /// Id of the place at the front; the id that is given next when the window is empty.
    base: PacketId,
    places: VecDeque<Option<Entry>>,
    occupied: usize,
}

/// The id `steps` after `id`: 1..=65535, then 1 again; 0 is no packet id (MQTT-2.2.1-2).
fn advance(id: PacketId, steps: usize) -> PacketId {
    let zero_based = (usize::from(id.get()) - 1 + steps) % 65_535;
    let next = u16::try_from(zero_based + 1).expect("below 65536 by the remainder");
    PacketId::new(next).expect("at least 1")
}

impl Inflight {
    /// An empty window that gives `first` as its first id.
    #[must_use]
    pub fn new(first: PacketId) -> Self {
        Self { base: first, places: VecDeque::new(), occupied: 0 }
    }

    /// A window as it was, from its messages in the order of their places; `sent_ms` is the time all of them get. The store may
    /// still have the end of a message whose id a newer one uses: the newer one counts.
    #[must_use]
    pub fn restore(mut messages: Vec<(PacketId, Awaiting)>, sent_ms: u64) -> Self {
        messages.reverse();
        messages.sort_by_key(|(id, _)| *id);
        messages.dedup_by_key(|(id, _)| *id);
        if messages.len() > SPAN_MAX {
            // No id would be left to give. Most of these have ended; to ask for their PUBCOMP again is not worth a panic.
            messages.retain(|(_, awaiting)| !matches!(awaiting, Awaiting::PubComp(_)));
        }
        messages.truncate(SPAN_MAX);
        // Ids are given in sequence and wrap; the oldest is the one behind the widest gap.
        let gap = |n: usize| {
            let id = usize::from(messages[n].0.get());
            let before = &messages[(n + messages.len() - 1) % messages.len()].0;
            (65_535 + id - usize::from(before.get()) - 1) % 65_535
        };
        let Some(oldest) = (0..messages.len()).max_by_key(|&n| gap(n)) else {
            return Self::new(PacketId::new(1).expect("1 is not 0"));
        };
        messages.rotate_left(oldest);
        let mut window = Self::new(messages[0].0);
        for (id, awaiting) in messages {
            while window.next_id() != id {
                window.places.push_back(None);
            }
            window.push(awaiting, sent_ms);
        }
        window
    }

    /// Messages in the window.
    #[must_use]
    pub fn len(&self) -> usize {
        self.occupied
    }

    /// Whether the window is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// The id that will be given next.
    #[must_use]
    pub fn next_id(&self) -> PacketId {
        advance(self.base, self.places.len())
    }

    /// Whether one more message may be sent, with a window of `max` (0: as many as there are ids).
    #[must_use]
    pub fn has_room(&self, max: usize) -> bool {
        let max = if max == 0 { SPAN_MAX } else { max.min(SPAN_MAX) };
        let span_max = (max * SPAN_FACTOR).clamp(SPAN_MIN, SPAN_MAX);
        self.occupied < max && self.places.len() < span_max
    }

    /// Takes a message into the window and gives it its id.
    pub fn push(&mut self, awaiting: Awaiting, now_ms: u64) -> PacketId {
        assert!(self.places.len() < SPAN_MAX, "a packet id would be used twice");
        let id = self.next_id();
        self.places.push_back(Some(Entry { awaiting, sent_ms: now_ms }));
        self.occupied += 1;
        id
    }

    /// The entry of an id.
    pub fn get_mut(&mut self, id: PacketId) -> Option<&mut Entry> {
        let position = self.position(id)?;
        self.places[position].as_mut()
    }

    /// Removes an id from the window.
    pub fn remove(&mut self, id: PacketId) -> Option<Entry> {
        let position = self.position(id)?;
        let entry = self.places[position].take()?;
        self.occupied -= 1;
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.base = advance(self.base, 1);
        }
        Some(entry)
    }

    /// All entries, oldest first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (PacketId, &mut Entry)> {
        let base = self.base;
        self.places
            .iter_mut()
            .enumerate()
            .filter_map(move |(n, place)| place.as_mut().map(|entry| (advance(base, n), entry)))
    }

    /// The oldest entry.
    #[must_use]
    pub fn oldest(&self) -> Option<&Entry> {
        self.places.front().and_then(Option::as_ref)
    }

    /// Ends the window; its messages in order.
    pub fn into_deliveries(self) -> impl Iterator<Item = Delivery> {
        self.places.into_iter().flatten().filter_map(|entry| match entry.awaiting {
            Awaiting::PubAck(delivery) | Awaiting::PubRec(delivery) => Some(delivery),
            Awaiting::PubComp(_) => None,
        })
    }

    fn position(&self, id: PacketId) -> Option<usize> {
        let distance = (65_535 + usize::from(id.get()) - usize::from(self.base.get())) % 65_535;
        (distance < self.places.len()).then_some(distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> PacketId {
        PacketId::new(n).unwrap()
    }

    #[test]
    fn ids_wrap_and_skip_zero() {
        let mut window = Inflight::new(id(65_535));
        assert_eq!(window.push(Awaiting::PubComp(None), 0), id(65_535));
        assert_eq!(window.push(Awaiting::PubComp(None), 0), id(1));
        assert!(window.remove(id(1)).is_some());
        assert!(window.remove(id(1)).is_none());
        assert!(window.remove(id(65_535)).is_some());
        assert!(window.is_empty());
        assert_eq!(window.next_id(), id(2));
    }

    #[test]
    fn acknowledgements_in_any_order_leave_nothing() {
        let mut window = Inflight::new(id(1));
        for _ in 0..100 {
            window.push(Awaiting::PubComp(None), 0);
        }
        for n in (1..=100).rev() {
            assert!(window.remove(id(n)).is_some());
        }
        assert_eq!(window.len(), 0);
        assert_eq!(window.places.len(), 0);
    }

    #[test]
    fn a_restored_window_goes_on_behind_its_newest_id() {
        let ids = [3, 65_534, 1, 65_530].map(id);
        let messages = ids.map(|id| (id, Awaiting::PubComp(None))).into();
        let mut window = Inflight::restore(messages, 7);
        let order: Vec<u16> = window.iter_mut().map(|(id, _)| id.get()).collect();
        assert_eq!(order, [65_530, 65_534, 1, 3]);
        assert_eq!((window.len(), window.next_id()), (4, id(4)));
        assert!(window.remove(id(65_530)).is_some());
        assert!(window.get_mut(id(65_534)).is_some_and(|entry| entry.sent_ms == 7));
        assert_eq!(Inflight::restore(Vec::new(), 0).next_id(), id(1));
        let one = Inflight::restore(vec![(id(9), Awaiting::PubComp(None))], 0);
        assert_eq!((one.len(), one.next_id()), (1, id(10)));
    }

    #[test]
    fn of_two_restored_messages_with_one_id_the_newer_one_counts() {
        let old = StoredPlace::new(1, false);
        let new = StoredPlace::new(2, false);
        let messages = [old, new].map(|place| (id(5), Awaiting::PubComp(Some(place))));
        let mut window = Inflight::restore(messages.into(), 0);
        assert_eq!(window.len(), 1);
        let entry = window.remove(id(5)).expect("it is there");
        assert!(matches!(entry.awaiting, Awaiting::PubComp(Some(place)) if place == new));
        let all = (1..=u16::MAX).map(|n| (id(n), Awaiting::PubComp(None)));
        assert!(Inflight::restore(all.collect(), 0).is_empty());
    }

    #[test]
    fn the_span_is_bounded_when_the_oldest_is_never_acknowledged() {
        let mut window = Inflight::new(id(1));
        window.push(Awaiting::PubComp(None), 0);
        let mut sent = 1;
        while window.has_room(2) {
            let newest = window.push(Awaiting::PubComp(None), 0);
            window.remove(newest);
            sent += 1;
        }
        assert_eq!(sent, SPAN_MIN);
        assert_eq!(window.len(), 1);
    }

    #[test]
    fn an_unlimited_window_never_gives_an_id_twice() {
        let mut window = Inflight::new(id(9));
        while window.has_room(0) {
            window.push(Awaiting::PubComp(None), 0);
        }
        assert_eq!(window.len(), SPAN_MAX);
    }
}
