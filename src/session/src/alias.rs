//! Topic aliases, both ways (SEED-PROTO-28, MQTT-3.3.2-7..12). They live as long as the connection.

use std::num::NonZeroU16;
use std::rc::Rc;

use hashbrown::HashMap;

/// Aliases a client has set, towards the broker.
#[derive(Debug, Default)]
pub struct InboundAliases {
    topics: Vec<Option<Rc<str>>>,
}

impl InboundAliases {
    /// Sets an alias; false if it is above the maximum the broker announced (MQTT-3.3.2-9).
    pub fn set(&mut self, alias: NonZeroU16, topic: &str, max: u16) -> bool {
        if alias.get() > max {
            return false;
        }
        let index = usize::from(alias.get()) - 1;
        if index >= self.topics.len() {
            self.topics.resize(index + 1, None);
        }
        // The same topic again is the common case of clients that always send both.
        if self.topics[index].as_deref() != Some(topic) {
            self.topics[index] = Some(topic.into());
        }
        true
    }

    /// The topic of an alias.
    #[must_use]
    pub fn topic(&self, alias: NonZeroU16) -> Option<Rc<str>> {
        self.topics.get(usize::from(alias.get()) - 1).cloned().flatten()
    }
}

/// Aliases the broker has set, towards a client that allows some.
#[derive(Debug, Default)]
pub struct OutboundAliases {
    aliases: HashMap<Box<str>, NonZeroU16>,
}

/// How to name a topic in a PUBLISH to the client.
#[derive(Debug, PartialEq, Eq)]
pub enum TopicForm {
    /// By its name alone.
    Name,
    /// By its name, which also sets an alias.
    NameAndAlias(NonZeroU16),
    /// By its alias alone.
    Alias(NonZeroU16),
}

impl OutboundAliases {
    /// The form for a topic, of at most `max` aliases: the first message of a topic sets its alias, the next ones
    /// leave the name away. Aliases are given to the first topics and not taken back: taking turns costs two
    /// bytes more on each message and saves nothing as soon as there are more topics than aliases.
    pub fn form(&mut self, topic: &str, max: u16) -> TopicForm {
        if let Some(&alias) = self.aliases.get(topic) {
            return TopicForm::Alias(alias);
        }
        if self.aliases.len() >= usize::from(max) {
            return TopicForm::Name;
        }
        let next = u16::try_from(self.aliases.len() + 1).ok().and_then(NonZeroU16::new);
        let alias = next.expect("at least 1 and at most `max`");
        self.aliases.insert(topic.into(), alias);
        TopicForm::NameAndAlias(alias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(n: u16) -> NonZeroU16 {
        NonZeroU16::new(n).unwrap()
    }

    #[test]
    fn inbound_aliases_are_bounded_and_may_be_set_anew() {
        let mut aliases = InboundAliases::default();
        assert!(!aliases.set(alias(3), "a", 2));
        assert!(aliases.set(alias(2), "a", 2));
        assert_eq!(aliases.topic(alias(2)).as_deref(), Some("a"));
        assert!(aliases.set(alias(2), "b", 2));
        assert_eq!(aliases.topic(alias(2)).as_deref(), Some("b"));
        assert_eq!(aliases.topic(alias(1)), None);
        assert_eq!(aliases.topic(alias(9)), None);
    }

    #[test]
    fn outbound_aliases_are_used_from_the_second_message_on() {
        let mut aliases = OutboundAliases::default();
        assert_eq!(aliases.form("a", 1), TopicForm::NameAndAlias(alias(1)));
        assert_eq!(aliases.form("a", 1), TopicForm::Alias(alias(1)));
        assert_eq!(aliases.form("b", 1), TopicForm::Name);
        assert_eq!(OutboundAliases::default().form("a", 0), TopicForm::Name);
    }
}
