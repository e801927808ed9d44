//! Who sends what where, computed from numbers.

use crate::names::Names;

/// What the clients of a durable scenario are.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Ids and topics.
    pub names: Names,
    /// What topics of retained messages begin with.
    pub prefix: String,
    /// Sessions, each with a topic of its own.
    pub sessions: u32,
    /// Publishers.
    pub publishers: u32,
    /// Topics; publisher k of n has the topics k, k + n, k + 2n and so on.
    pub topics: u32,
    /// Messages of each topic.
    pub messages: u32,
    /// Retained messages that one filter matches; 0: nothing is retained.
    pub per_group: u32,
    /// How long the broker keeps a session, in seconds (MQTT 5.0).
    pub expiry_s: u32,
}

impl Layout {
    /// Whether messages are retained.
    pub fn is_retained(&self) -> bool {
        self.per_group > 0
    }

    /// The client that asks for retained messages.
    pub fn watcher(&self) -> u32 {
        self.sessions + self.publishers
    }

    /// All clients.
    pub fn clients(&self) -> u32 {
        self.watcher() + 1
    }

    /// First levels of retained topics.
    pub fn groups(&self) -> u64 {
        u64::from(self.topics.div_ceil(self.per_group.max(1)))
    }

    /// A topic; all have the same length.
    pub fn topic(&self, number: u64) -> String {
        if !self.is_retained() {
            return self.names.topic(number).as_str().to_owned();
        }
        let per_group = u64::from(self.per_group);
        format!("{}/{:08}/{:06}", self.prefix, number / per_group, number % per_group)
    }

    /// The filter of all topics with one first level.
    pub fn group_filter(&self, group: u64) -> String {
        format!("{}/{group:08}/+", self.prefix)
    }

    /// Topics of one publisher.
    fn topics_of(&self, publisher: u32) -> u64 {
        u64::from((self.topics + self.publishers - 1 - publisher) / self.publishers)
    }

    /// Messages of one publisher if each of its topics gets all.
    pub fn messages_of(&self, publisher: u32) -> u64 {
        self.topics_of(publisher) * u64::from(self.messages)
    }

    /// The topic and the place in it of a publisher's message: one of each topic, then the next of each.
    pub fn message(&self, publisher: u32, number: u64) -> (u64, u32) {
        let topics = self.topics_of(publisher).max(1);
        let topic = number % topics * u64::from(self.publishers) + u64::from(publisher);
        (topic, u32::try_from(number / topics % (1 << 32)).expect("below 2^32"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn layout(topics: u32, publishers: u32, per_group: u32) -> Layout {
        Layout {
            names: Names::new("b"),
            prefix: "b".to_owned(),
            sessions: topics,
            publishers,
            topics,
            messages: 3,
            per_group,
            expiry_s: 60,
        }
    }

    #[test]
    fn each_topic_gets_its_messages_in_order_from_one_publisher() {
        for (topics, publishers) in [(7, 1), (7, 3), (2, 2), (5, 5)] {
            let layout = layout(topics, publishers, 0);
            let mut heard: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
            for publisher in 0..publishers {
                for number in 0..layout.messages_of(publisher) {
                    let (topic, sequence) = layout.message(publisher, number);
                    heard.entry(topic).or_default().push(sequence);
                }
            }
            assert_eq!(heard.len(), usize::try_from(topics).expect("few"));
            assert!(heard.values().all(|messages| messages == &[0, 1, 2]), "{heard:?}");
        }
    }

    #[test]
    fn retained_topics_are_found_by_their_first_level() {
        let layout = layout(250, 1, 100);
        assert_eq!(layout.groups(), 3);
        assert_eq!(layout.topic(0), "b/00000000/000000");
        assert_eq!(layout.topic(199), "b/00000001/000099");
        assert_eq!(layout.group_filter(1), "b/00000001/+");
    }
}
