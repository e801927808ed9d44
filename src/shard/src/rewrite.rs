//! Rules that rewrite topics (SEED-PUB-18). Of the rules whose filter fits, the one with the highest number holds, as in EMQ X 4 and
//! EMQX 5; if its expression does not match, the topic stays as it is.

use config::{RewriteRule, RewriteSettings};
use mqtt::topic;

/// The rules of a shard, the one to be tried first in front. Each shard has its own: an expression's working memory is not shared.
#[derive(Debug)]
pub(crate) struct Rewrites(Box<[RewriteRule]>);

impl Rewrites {
    pub fn new(settings: &RewriteSettings) -> Self {
        let rules = settings.rules.iter().rev().filter(|_| settings.enable);
        Self(rules.cloned().collect())
    }

    /// Whether nothing is ever rewritten.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a topic, or a filter without prefix, becomes; `None` if it stays.
    pub fn apply(&self, text: &str) -> Option<String> {
        self.0.iter().find(|rule| topic::matches(rule.filter(), text))?.rewrite(text)
    }
}

#[cfg(test)]
mod tests {
    use crate::desk::{Desk, connect, publish};

    const RULES: &[(&str, &str)] = &[
        ("module.rewrite", "on"),
        ("module.rewrite.rule.1", "x/# ^x/(.+)$ one/$1"),
        ("module.rewrite.rule.10", "x/y/# ^x/y/(\\d+)$ ten/$1"),
        ("module.rewrite.rule.2", "later/# ^later/(.+)$ $delayed/5/$1"),
    ];

    /// SEED-PUB-18
    #[test]
    fn the_highest_rule_whose_filter_fits_holds() {
        let desk = Desk::new(RULES);
        let apply = |text| desk.shard.rewrites.apply(text);
        assert_eq!(apply("x/a/b").as_deref(), Some("one/a/b"));
        assert_eq!(apply("x/y/7").as_deref(), Some("ten/7"));
        assert_eq!(apply("x/y/a"), None, "its filter fits, so rule 1 is not asked");
        assert_eq!(apply("y/x"), None);
        let off = Desk::new(&RULES[1..]);
        assert!(off.shard.rewrites.is_empty(), "module.rewrite is off");
    }

    /// SEED-PUB-18: filters are rewritten as topics are, and a rule may ask for a delay.
    #[test]
    fn publish_and_subscribe_meet_behind_the_rules() {
        let mut desk = Desk::new(RULES);
        let client = desk.accept(0, "10.0.0.1:5");
        desk.tick(1, Some((client, &connect("c", 0))));
        let subscribe = |filter: &str| {
            let length = u8::try_from(filter.len()).expect("short");
            let mut bytes = vec![0x82, 5 + length, 0, 1, 0, length];
            bytes.extend(filter.as_bytes());
            bytes.push(0);
            bytes
        };
        desk.tick(1, Some((client, &subscribe("x/#"))));
        desk.tick(1, Some((client, &subscribe("a"))));
        let sent = desk.tick(1, Some((client, &publish("x/a", "1"))));
        assert_eq!(sent, [(client, publish("one/a", "1"))]);
        assert_eq!(desk.tick(1, Some((client, &publish("later/a", "2")))), []);
        assert_eq!(desk.tick(5000, None), [(client, publish("a", "2"))]);
        let unsubscribe = [0xa2, 7, 0, 2, 0, 3, b'x', b'/', b'#'];
        desk.tick(1, Some((client, &unsubscribe)));
        assert_eq!(desk.tick(1, Some((client, &publish("x/a", "3")))), []);
    }
}
