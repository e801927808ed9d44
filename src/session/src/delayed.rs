//! Messages that are to be published later (SEED-PUB-16): what a topic asks for, and those that wait, by the time they are due.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Message, MessageId};

/// The prefixes of a topic that ask for a delay: that of EMQX, and the one EMQ's own feature list has.
const PREFIXES: [&str; 2] = ["$delayed/", "$delay/"];

/// What a topic asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay<'a> {
    /// It has no such prefix.
    None,
    /// It has one, but no whole number of seconds or no topic behind it.
    Malformed,
    /// To be published to `topic` after `seconds`; the topic is not checked.
    After {
        /// The delay.
        seconds: u64,
        /// What stands behind it.
        topic: &'a str,
    },
}

impl<'a> Delay<'a> {
    /// Takes a topic apart.
    #[must_use]
    pub fn of(topic: &'a str) -> Self {
        if !topic.starts_with("$delay") {
            return Self::None;
        }
        let Some(rest) = PREFIXES.iter().find_map(|prefix| topic.strip_prefix(prefix)) else {
            return Self::None;
        };
        let parts = rest.split_once('/').filter(|(_, topic)| !topic.is_empty());
        let Some((digits, topic)) = parts else { return Self::Malformed };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Self::Malformed;
        }
        // What does not fit is longer than any limit.
        let seconds = digits.parse().unwrap_or(u64::MAX);
        Self::After { seconds, topic }
    }
}

/// Names a delayed message. Ids of messages are unique over shards and restarts, so these are too. In order of the time they are
/// due, then as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DelayedId {
    /// When it is due, in milliseconds since the Unix epoch.
    pub due_unix_ms: u64,
    /// The message.
    pub message: MessageId,
}

/// Two hexadecimal numbers: `18bcfe56800-60a24f...`.
impl fmt::Display for DelayedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.due_unix_ms, self.message.0)
    }
}

/// it is no id of a delayed message: two hexadecimal numbers with a - between them, as delayed list shows them
#[derive(Debug, Clone, Copy, PartialEq, Eq, displaydoc::Display, thiserror::Error)]
pub struct DelayedIdError;

impl FromStr for DelayedId {
    type Err = DelayedIdError;

    fn from_str(text: &str) -> Result<Self, DelayedIdError> {
        let (due, message) = text.split_once('-').ok_or(DelayedIdError)?;
        let hex = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if plain { u128::from_str_radix(digits, 16).ok() } else { None }
        };
        let due_unix_ms = hex(due).and_then(|due| u64::try_from(due).ok());
        Ok(Self {
            due_unix_ms: due_unix_ms.ok_or(DelayedIdError)?,
            message: MessageId(hex(message).ok_or(DelayedIdError)?),
        })
    }
}

/// A message that waits.
#[derive(Debug, Clone)]
pub struct Delayed {
    /// Tells it apart from others of its topic's slot, for a store: each is given once.
    pub number: u64,
    /// The message.
    pub message: Arc<Message>,
}

/// The messages of a shard that wait for their time.
#[derive(Debug, Default)]
pub struct DelayedMessages {
    waiting: BTreeMap<DelayedId, Delayed>,
    /// The next number.
    next: u64,
}

impl DelayedMessages {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A number that none had before.
    pub fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Adds a message. Numbers go on above its own.
    pub fn insert(&mut self, due_unix_ms: u64, delayed: Delayed) {
        self.next = self.next.max(delayed.number);
        self.waiting.insert(DelayedId { due_unix_ms, message: delayed.message.id }, delayed);
    }

    /// Takes a message out.
    pub fn remove(&mut self, id: DelayedId) -> Option<Delayed> {
        self.waiting.remove(&id)
    }

    /// A message.
    #[must_use]
    pub fn get(&self, id: DelayedId) -> Option<&Arc<Message>> {
        self.waiting.get(&id).map(|delayed| &delayed.message)
    }

    /// The one that is due first.
    #[must_use]
    pub fn first(&self) -> Option<DelayedId> {
        self.waiting.first_key_value().map(|(&id, _)| id)
    }

    /// Those behind `cursor` (all without one), in order.
    pub fn iter_after(
        &self,
        cursor: Option<DelayedId>,
    ) -> impl Iterator<Item = (DelayedId, &Arc<Message>)> {
        let start = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        self.waiting.range((start, Bound::Unbounded)).map(|(&id, one)| (id, &one.message))
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::Publication;

    fn message(id: u128) -> Arc<Message> {
        let publication = Publication::new("a", b"x");
        Message::new(MessageId(id), &publication)
    }

    #[test]
    fn topics_ask_for_a_delay() {
        let after = |seconds, topic| Delay::After { seconds, topic };
        for (topic, delay) in [
            ("$delayed/15/x/y", after(15, "x/y")),
            ("$delay/0/x", after(0, "x")),
            ("$delayed/3600/$SYS/topic", after(3600, "$SYS/topic")),
            ("$delayed/007//", after(7, "/")),
            ("$delayed/99999999999999999999999/x", after(u64::MAX, "x")),
            ("$delayed/x/y", Delay::Malformed),
            ("$delayed/+5/y", Delay::Malformed),
            ("$delayed/-5/y", Delay::Malformed),
            ("$delayed//y", Delay::Malformed),
            ("$delayed/5", Delay::Malformed),
            ("$delayed/5/", Delay::Malformed),
            ("$delay/", Delay::Malformed),
            ("$delayed", Delay::None),
            ("$delayedx/5/y", Delay::None),
            ("a/$delayed/5/y", Delay::None),
        ] {
            assert_eq!(Delay::of(topic), delay, "{topic}");
        }
    }

    #[test]
    fn the_first_due_comes_first_and_equal_ones_as_they_came() {
        let mut all = DelayedMessages::default();
        for (due, id) in [(20, 1), (10, 3), (10, 2), (30, 4)] {
            let number = all.next_number();
            all.insert(due, Delayed { number, message: message(id) });
        }
        all.insert(40, Delayed { number: 99, message: message(9) });
        assert_eq!(all.next_number(), 100);
        let order: Vec<u128> = all.iter_after(None).map(|(id, _)| id.message.0).collect();
        assert_eq!(order, [2, 3, 1, 4, 9]);
        let first = all.first().unwrap();
        assert_eq!(all.iter_after(Some(first)).next().unwrap().0.message.0, 3);
        assert!(all.get(first).is_some() && all.remove(first).is_some());
        assert!(all.remove(first).is_none() && all.len() == 4);
    }

    #[test]
    fn names_survive_being_text() {
        let id = DelayedId { due_unix_ms: 1_700_000_000_000, message: MessageId(u128::MAX - 5) };
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "-", "1-", "-1", "g-1", "1-+1", "1ffffffffffffffff-1", "1-2-3"] {
            assert_eq!(text.parse::<DelayedId>(), Err(DelayedIdError), "{text}");
        }
    }
}
