//! The queue of messages a session cannot take at once: offline, or with a full inflight window
//! (SEED-SESS-09..11).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mqtt::QoS;
use router::FilterId;

use crate::message::Message;
use crate::stored::{Settled, StoredPlace};

/// A message on its way to one session, with what the subscription made of it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The message.
    pub message: Arc<Message>,
    /// The `QoS` it is delivered with.
    pub qos: QoS,
    /// The RETAIN flag it is delivered with.
    pub retain: bool,
    /// Identifiers of the subscriptions that match it (MQTT-3.3.4-3); `None` where there are none.
    pub subscription_ids: Option<Box<[u32]>>,
    /// The shared filter it came by, if any: another member may get it when this session ends.
    pub shared: Option<FilterId>,
    /// Where it stands in the store, if its session is kept there.
    pub place: Option<StoredPlace>,
}

impl Delivery {
    /// What the store is to be told when its session is done with it.
    #[must_use]
    pub fn settled(&self) -> Option<Settled> {
        self.place.map(|place| Settled { place, message: Some(self.message.id) })
    }
}

/// Limits of a queue, from the settings.
#[derive(Debug, Clone, Copy)]
pub struct MqueueLimits {
    /// Most messages; 0 is unlimited.
    pub length_max: usize,
    /// Whether `QoS` 0 messages are kept at all.
    pub store_qos0: bool,
}

/// What a push did to the queue.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The message is in the queue.
    Queued,
    /// The message is in the queue and an older one is lost for it.
    Displaced {
        /// The `QoS` of the older one.
        qos: QoS,
        /// Its copy in the store.
        stored: Option<Settled>,
    },
    /// The message was not taken: `QoS` 0 and the queue does not store it.
    Refused,
}

/// A bounded queue; first in, first out within a priority, higher priorities first.
#[derive(Debug, Default)]
pub struct Mqueue {
    /// Priority 0, the only one of a simple queue.
    normal: VecDeque<Delivery>,
    /// Priorities above 0; most queues have none.
    urgent: Option<BTreeMap<u8, VecDeque<Delivery>>>,
    len: usize,
    qos0: usize,
}

impl Mqueue {
    /// Messages in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether messages of `QoS` 0 wait; one that comes now may not pass them (MQTT-4.6.0-6).
    #[must_use]
    pub fn has_qos0(&self) -> bool {
        self.qos0 > 0
    }

    /// Whether the queue is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a message in. When the queue is full the oldest `QoS` 0 message goes, else the oldest of the lowest
    /// priority (SEED-SESS-11); the new one is always taken, unless it is of `QoS` 0 and these are not stored.
    pub fn push(&mut self, delivery: Delivery, priority: u8, limits: MqueueLimits) -> Pushed {
        let qos0 = delivery.qos == QoS::AtMostOnce;
        if qos0 && !limits.store_qos0 {
            return Pushed::Refused;
        }
        let displaced = if limits.length_max > 0 && self.len >= limits.length_max {
            self.displace()
        } else {
            None
        };
        self.len += 1;
        self.qos0 += usize::from(qos0);
        if priority == 0 {
            self.normal.push_back(delivery);
        } else {
            self.urgent.get_or_insert_default().entry(priority).or_default().push_back(delivery);
        }
        match displaced {
            Some(gone) => Pushed::Displaced { qos: gone.qos, stored: gone.settled() },
            None => Pushed::Queued,
        }
    }

    /// Takes the next message.
    pub fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.pop_urgent().or_else(|| self.normal.pop_front())?;
        self.len -= 1;
        self.qos0 -= usize::from(delivery.qos == QoS::AtMostOnce);
        Some(delivery)
    }

    /// Gives back the room of a burst that is over.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    fn pop_urgent(&mut self) -> Option<Delivery> {
        let urgent = self.urgent.as_mut()?;
        let mut last = urgent.last_entry()?;
        let delivery = last.get_mut().pop_front();
        if last.get().is_empty() {
            last.remove();
        }
        if urgent.is_empty() {
            self.urgent = None;
        }
        delivery
    }

    /// Takes out what a full queue loses first: the oldest of `QoS` 0, else the oldest of the lowest priority.
    pub(crate) fn displace(&mut self) -> Option<Delivery> {
        let gone = if self.qos0 > 0 { self.remove_first_qos0() } else { None };
        let gone = gone.or_else(|| self.normal.pop_front()).or_else(|| self.pop_lowest_urgent())?;
        self.len -= 1;
        self.qos0 -= usize::from(gone.qos == QoS::AtMostOnce);
        Some(gone)
    }

    fn remove_first_qos0(&mut self) -> Option<Delivery> {
        fn take(queue: &mut VecDeque<Delivery>) -> Option<Delivery> {
            let position = queue.iter().position(|d| d.qos == QoS::AtMostOnce)?;
            queue.remove(position)
        }
        if let Some(delivery) = take(&mut self.normal) {
            return Some(delivery);
        }
        let urgent = self.urgent.as_mut()?;
        let (&priority, delivery) =
            urgent.iter_mut().find_map(|(p, queue)| take(queue).map(|d| (p, d)))?;
        if urgent[&priority].is_empty() {
            urgent.remove(&priority);
        }
        Some(delivery)
    }

    fn pop_lowest_urgent(&mut self) -> Option<Delivery> {
        let urgent = self.urgent.as_mut()?;
        let mut first = urgent.first_entry()?;
        let delivery = first.get_mut().pop_front();
        if first.get().is_empty() {
            first.remove();
        }
        delivery
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MessageId, Publication};

    fn delivery(name: &str, qos: QoS) -> Delivery {
        let publication = Publication { qos, ..Publication::new(name, b"") };
        let message = Message::new(MessageId(0), &publication);
        Delivery { message, qos, retain: false, subscription_ids: None, shared: None, place: None }
    }

    fn drain(queue: &mut Mqueue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop()).map(|d| d.message.topic().to_owned()).collect()
    }

    const LIMITS: MqueueLimits = MqueueLimits { length_max: 3, store_qos0: true };

    #[test]
    fn a_full_queue_loses_the_oldest_qos0_first_then_the_oldest() {
        let mut queue = Mqueue::default();
        assert_eq!(queue.push(delivery("1", QoS::AtLeastOnce), 0, LIMITS), Pushed::Queued);
        assert_eq!(queue.push(delivery("2", QoS::AtMostOnce), 0, LIMITS), Pushed::Queued);
        assert_eq!(queue.push(delivery("3", QoS::AtLeastOnce), 0, LIMITS), Pushed::Queued);
        let fourth = queue.push(delivery("4", QoS::ExactlyOnce), 0, LIMITS);
        assert_eq!(fourth, Pushed::Displaced { qos: QoS::AtMostOnce, stored: None });
        let fifth = queue.push(delivery("5", QoS::AtLeastOnce), 0, LIMITS);
        assert_eq!(fifth, Pushed::Displaced { qos: QoS::AtLeastOnce, stored: None });
        assert_eq!(queue.len(), 3);
        assert_eq!(drain(&mut queue), ["3", "4", "5"]);
    }

    #[test]
    fn qos0_is_refused_where_it_is_not_stored() {
        let mut queue = Mqueue::default();
        let limits = MqueueLimits { store_qos0: false, ..LIMITS };
        assert_eq!(queue.push(delivery("1", QoS::AtMostOnce), 0, limits), Pushed::Refused);
        assert!(queue.is_empty());
    }

    #[test]
    fn higher_priorities_go_first_and_are_displaced_last() {
        let mut queue = Mqueue::default();
        queue.push(delivery("low", QoS::AtLeastOnce), 0, LIMITS);
        queue.push(delivery("high", QoS::AtLeastOnce), 10, LIMITS);
        queue.push(delivery("middle", QoS::AtLeastOnce), 8, LIMITS);
        queue.push(delivery("high2", QoS::AtLeastOnce), 10, LIMITS);
        assert_eq!(drain(&mut queue), ["high", "high2", "middle"]);
        assert_eq!(queue.len(), 0);
        queue.shrink();
        assert!(queue.pop().is_none());
    }

    #[test]
    fn zero_is_unlimited() {
        let mut queue = Mqueue::default();
        let limits = MqueueLimits { length_max: 0, store_qos0: true };
        for n in 0..5000 {
            let pushed = queue.push(delivery(&n.to_string(), QoS::AtMostOnce), 0, limits);
            assert_eq!(pushed, Pushed::Queued);
        }
        assert_eq!(queue.len(), 5000);
    }
}
