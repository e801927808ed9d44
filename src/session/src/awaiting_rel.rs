//! Packet ids of received `QoS` 2 messages whose PUBREL has not come (SEED-SESS-05, MQTT-4.3.3-9..12).
//!
//! A message is dispatched when its PUBLISH arrives first; the id is remembered so that a repeated PUBLISH is
//! answered and not dispatched again. That keeps two bytes and a time per message instead of the message.

use mqtt::PacketId;

/// What a PUBLISH of `QoS` 2 meant.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// New: dispatch it.
    First,
    /// Seen before: only answer.
    Repeated,
    /// The limit is reached: the caller waits or refuses, nothing was remembered.
    Full,
}

/// The ids, oldest first, and since when. Few at a time, so a scan of a short vector is the fastest table.
#[derive(Debug, Default)]
pub struct AwaitingRel {
    entries: Vec<(PacketId, u64)>,
    /// Of those, ids whose PUBREL may have come, and been forgotten in a crash.
    in_doubt: Vec<PacketId>,
}

impl AwaitingRel {
    /// Ids remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether this id is remembered.
    #[must_use]
    pub fn contains(&self, id: PacketId) -> bool {
        self.entries.iter().any(|&(known, _)| known == id)
    }

    /// Notes a received PUBLISH; at most `max` ids are remembered (0: unlimited).
    pub fn receive(&mut self, id: PacketId, max: usize, now_ms: u64) -> Received {
        if self.contains(id) {
            return Received::Repeated;
        }
        if max > 0 && self.entries.len() >= max {
            return Received::Full;
        }
        self.entries.push((id, now_ms));
        Received::First
    }

    /// Its PUBREL may have come, and been forgotten in a crash.
    pub fn doubt(&mut self, id: PacketId) {
        self.in_doubt.push(id);
    }

    /// A PUBLISH with DUP 0 came. Its sender does not hold the id for one that is in use (MQTT-2.2.1-3, MQTT-3.3.1-1), so an id
    /// in doubt is of a message that is long done: it is forgotten. True if it was.
    pub fn sent_first(&mut self, id: PacketId) -> bool {
        let is_stale = self.in_doubt.contains(&id);
        is_stale && self.release(id)
    }

    /// Forgets an id whose PUBREL came; false if it was not known.
    pub fn release(&mut self, id: PacketId) -> bool {
        let Some(position) = self.entries.iter().position(|&(known, _)| known == id) else {
            return false;
        };
        self.entries.remove(position);
        self.in_doubt.retain(|&known| known != id);
        true
    }

    /// Starts the clocks again: time in which the client was not connected does not count against it.
    pub fn restart(&mut self, now_ms: u64) {
        for entry in &mut self.entries {
            entry.1 = now_ms;
        }
    }

    /// Forgets the ids that have waited `timeout_ms`, and gives them.
    pub fn expire(&mut self, timeout_ms: u64, now_ms: u64) -> Vec<PacketId> {
        let is_expired = |&(_, since): &(PacketId, u64)| since.saturating_add(timeout_ms) <= now_ms;
        let expired = self.entries.iter().filter(|entry| is_expired(entry)).map(|&(id, _)| id);
        let expired: Vec<PacketId> = expired.collect();
        if !expired.is_empty() {
            self.in_doubt.retain(|id| !expired.contains(id));
            self.entries.retain(|entry| !is_expired(entry));
        }
        expired
    }

    /// When the oldest id was received.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        self.entries.first().map(|&(_, since)| since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> PacketId {
        PacketId::new(n).unwrap()
    }

    #[test]
    fn a_repeated_publish_is_known_until_its_pubrel() {
        let mut awaiting = AwaitingRel::default();
        assert_eq!(awaiting.receive(id(5), 2, 0), Received::First);
        assert_eq!(awaiting.receive(id(5), 2, 0), Received::Repeated);
        assert_eq!(awaiting.receive(id(6), 2, 0), Received::First);
        assert_eq!(awaiting.receive(id(7), 2, 0), Received::Full);
        assert_eq!(awaiting.receive(id(6), 2, 0), Received::Repeated);
        assert!(awaiting.release(id(5)));
        assert!(!awaiting.release(id(5)));
        assert_eq!(awaiting.receive(id(5), 2, 0), Received::First);
    }

    #[test]
    fn an_id_in_doubt_that_is_used_for_the_first_time_is_of_a_new_message() {
        let mut awaiting = AwaitingRel::default();
        awaiting.receive(id(1), 0, 0);
        awaiting.receive(id(2), 0, 0);
        awaiting.doubt(id(1));
        assert!(!awaiting.sent_first(id(2)), "nothing was forgotten");
        assert_eq!(awaiting.receive(id(2), 0, 0), Received::Repeated);
        assert!(awaiting.sent_first(id(1)));
        assert_eq!(awaiting.receive(id(1), 0, 0), Received::First);
        // Now it is known what has come.
        assert!(!awaiting.sent_first(id(1)));
    }

    #[test]
    fn ids_expire_by_the_time_they_waited_while_connected() {
        let mut awaiting = AwaitingRel::default();
        awaiting.receive(id(1), 0, 0);
        awaiting.receive(id(2), 0, 500);
        assert_eq!(awaiting.expire(1000, 1000), [id(1)]);
        awaiting.restart(5000);
        assert_eq!(awaiting.expire(1000, 5999), []);
        assert_eq!(awaiting.expire(1000, 6000), [id(2)]);
    }
}
