//! What topics may retain, as the model knows it.

use super::{MessageName, World};

/// What a topic has at the end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RetainedEnd {
    /// This message.
    Is(MessageName),
    /// None.
    None,
    /// The last message was not acknowledged.
    Unknown,
}

impl World {
    /// What a topic retains, of which this is the last one.
    pub(super) fn retained_end(&self, topic: &str, name: MessageName) -> RetainedEnd {
        let unanswered = self.may_end_late(name);
        let published = &self.published[&name];
        debug_assert_eq!(published.topic, topic);
        match published.acknowledged_ms {
            None => RetainedEnd::Unknown,
            Some(_) if unanswered => RetainedEnd::Unknown,
            Some(_) if published.erases => RetainedEnd::None,
            Some(_) => RetainedEnd::Is(name),
        }
    }

    /// Whether a message may have been refused without its publisher knowing: it comes again after what was sent behind it.
    pub(super) fn may_be_late(&self, name: MessageName) -> bool {
        self.late.contains(&name)
    }

    /// Whether the last message of a topic may be one that was published before this.
    fn may_end_late(&self, name: MessageName) -> bool {
        let topic = self.published[&name].topic;
        let mut before = self.late.range((name.0, 0)..=name);
        let is_one = |late: &MessageName| {
            let published = &self.published[late];
            published.retain && published.topic == topic
        };
        self.may_be_late(name) || before.any(is_one)
    }

    /// Whether a topic may retain this, if its last message was not acknowledged: nothing older than the last that was.
    pub(super) fn may_be_last(
        &self,
        topic: &str,
        name: MessageName,
        last: Option<&MessageName>,
    ) -> bool {
        if self.may_end_late(name) {
            return true;
        }
        let known = self.retained_since.get(topic).and_then(|versions| versions.last());
        let Some(&(_, floor)) = known else { return true };
        match last {
            Some(last) => last.1 >= floor && !self.published[last].erases,
            // One that was not acknowledged may have removed it.
            None => self
                .published
                .range((name.0, floor)..=name)
                .any(|(_, published)| published.topic == topic && published.erases),
        }
    }
}
