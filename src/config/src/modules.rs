//! `module.*`: what EMQ 2.x has as modules. Subscriptions that are made for a client when it connects (SEED-PUB-17), and
//! rules that rewrite topics (SEED-PUB-18).

use std::fmt;

use regex::{Regex, RegexBuilder};

use crate::Settings;
use crate::kind::{Kind, Setting, bool_word, digits};
use crate::table::{Key, Part, section};

/// Titles of the sections.
pub(crate) const AUTO_SUBSCRIPTIONS: &str = "Subscriptions at connect";
pub(crate) const REWRITES: &str = "Rewriting of topics";

/// Most subscriptions a client gets: each costs every client that connects.
const SUBSCRIPTIONS_MAX: usize = 100;
/// Most rules: each PUBLISH and each filter of a SUBSCRIBE may be compared with all of them.
const RULES_MAX: usize = 1000;
/// Memory one compiled expression may take, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// How deep groups may stand in each other.
const REGEX_NEST_MAX: u32 = 32;

const RULE_ALLOWED: &str =
    "a filter, a regular expression and a topic with $1, $2 and so on, parted by spaces";
const RULE_EXAMPLE: &str = "x/# ^x/y/(.+)$ z/y/$1";
const RULE_DOC: &str = "A rule: the filter, the expression, and what the topic becomes, where $1 is what the first group matched. \
    Of the rules whose filter fits, the one with the highest number holds; if its expression does not match, the topic stays.";

section! {
    /// `module.subscription`: what clients are subscribed to when they connect.
    AutoSubscriptionSettings, AUTO_SUBSCRIPTION: Settings, auto_subscription => {
        /// `module.subscription.N.*`.
        subscriptions: AutoSubscriptions
    };

    /// Whether a client that connects is subscribed to module.subscription.N.topic, without a SUBACK and whatever the access rules
    /// say. One that comes back to its session keeps what it has there and gets no retained message again.
    "module.subscription" => enable: bool, Kind::Bool, "off";
}

section! {
    /// `module.rewrite`: rules that rewrite topics.
    RewriteSettings, REWRITE: Settings, rewrite => {
        /// `module.rewrite.rule.N`.
        rules: RewriteRules
    };

    /// Whether the rules module.rewrite.rule.N rewrite the topics of PUBLISH and of wills and the filters of SUBSCRIBE and
    /// UNSUBSCRIBE. Access rules see what the client sent. Behind $share/<group>/, $queue/ and $local/ the rest is
    /// rewritten, and of a delayed message the topic behind the delay.
    "module.rewrite" => enable: bool, Kind::Bool, "off";
}

/// A subscription that is made for each client.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AutoSubscription {
    /// The filter; `%c` stands for the client id, `%u` for the user name.
    pub topic: String,
    /// Highest `QoS`, 0 to 2.
    pub qos: u8,
    /// The client does not get what it publishes itself.
    pub no_local: bool,
    /// RETAIN is passed on as published.
    pub retain_as_published: bool,
    /// Retain Handling of MQTT 5, 0 to 2.
    pub retain_handling: u8,
}

/// The subscriptions, in the order of their numbers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AutoSubscriptions(Vec<(u32, AutoSubscription)>);

impl AutoSubscriptions {
    /// The subscriptions.
    pub fn iter(&self) -> impl Iterator<Item = &AutoSubscription> {
        self.0.iter().map(|(_, one)| one)
    }

    /// The one with a number, made if it is not there; `None` if there are too many.
    fn entry(&mut self, number: u32) -> Option<&mut AutoSubscription> {
        let place = match self.0.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(place) => place,
            Err(_) if self.0.len() >= SUBSCRIPTIONS_MAX => return None,
            Err(place) => {
                self.0.insert(place, (number, AutoSubscription::default()));
                place
            }
        };
        Some(&mut self.0[place].1)
    }

    /// Numbers that have no filter, each with the name of a key it has.
    pub(crate) fn without_topic(&self) -> Vec<(u32, &'static str)> {
        let blank = AutoSubscription::default();
        let given = |one: &AutoSubscription| {
            let options = &AUTO_OPTIONS[1..];
            let set = options.iter().find(|option| (option.show)(one) != (option.show)(&blank));
            set.map_or("qos", |option| option.name)
        };
        let without = self.0.iter().filter(|(_, one)| one.topic.is_empty());
        without.map(|(number, one)| (*number, given(one))).collect()
    }

    /// All keys and their values.
    pub(crate) fn numbered(&self) -> Vec<Numbered> {
        let keys = |(number, one): &(u32, AutoSubscription)| -> Vec<Numbered> {
            let key = |option: &AutoOption| Numbered {
                key: auto_key(*number, option.name),
                value: (option.show)(one),
                doc: option.doc,
                allowed: option.allowed,
            };
            AUTO_OPTIONS.iter().map(key).collect()
        };
        self.0.iter().flat_map(keys).collect()
    }
}

/// One key below `module.subscription.N`.
struct AutoOption {
    name: &'static str,
    doc: &'static str,
    allowed: &'static str,
    example: &'static str,
    set: fn(&mut AutoSubscription, &str) -> Option<()>,
    show: fn(&AutoSubscription) -> String,
}

fn show_bool(value: bool) -> String {
    (if value { "on" } else { "off" }).to_owned()
}

/// MQTT's options are numbers, settings are words: both are taken.
fn flag(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => bool_word(text),
    }
}

fn up_to_2(text: &str) -> Option<u8> {
    digits(text).filter(|&n| n <= 2).and_then(|n| u8::try_from(n).ok())
}

const AUTO_OPTIONS: &[AutoOption] = &[
    AutoOption {
        name: "topic",
        doc: "A filter each client is subscribed to; %c stands for its client id, %u for its user name. A client without a user name \
            gets none with %u, and one whose name has a wildcard none with it.",
        allowed: "a topic filter",
        example: "$client/%c",
        set: |one, text| is_filter(text).then(|| text.clone_into(&mut one.topic)),
        show: |one| one.topic.clone(),
    },
    AutoOption {
        name: "qos",
        doc: "Highest QoS of the subscription.",
        allowed: "0, 1 or 2",
        example: "1",
        set: |one, text| up_to_2(text).map(|qos| one.qos = qos),
        show: |one| one.qos.to_string(),
    },
    AutoOption {
        name: "nl",
        doc: "No Local: the client does not get what it publishes itself.",
        allowed: "on, off, true, false, 1 or 0",
        example: "off",
        set: |one, text| flag(text).map(|on| one.no_local = on),
        show: |one| show_bool(one.no_local),
    },
    AutoOption {
        name: "rap",
        doc: "Retain As Published: messages keep the RETAIN of their publisher.",
        allowed: "on, off, true, false, 1 or 0",
        example: "off",
        set: |one, text| flag(text).map(|on| one.retain_as_published = on),
        show: |one| show_bool(one.retain_as_published),
    },
    AutoOption {
        name: "rh",
        doc: "Retain Handling: 0 and 1 send retained messages to a new session, 2 never does.",
        allowed: "0, 1 or 2",
        example: "0",
        set: |one, text| up_to_2(text).map(|n| one.retain_handling = n),
        show: |one| one.retain_handling.to_string(),
    },
];

/// `module.subscription.<number>.<option>`
pub(crate) fn auto_key(number: u32, option: &str) -> String {
    format!("module.subscription.{number}.{option}")
}

fn rule_key(number: u32) -> String {
    format!("module.rewrite.rule.{number}")
}

/// A key with a number in it, for listings.
pub(crate) struct Numbered {
    pub key: String,
    pub value: String,
    pub doc: &'static str,
    pub allowed: &'static str,
}

/// The numbered keys that belong below a key, with examples.
pub(crate) fn examples(key: &str) -> Vec<Numbered> {
    let auto = |option: &AutoOption| Numbered {
        key: auto_key(1, option.name),
        value: option.example.to_owned(),
        doc: option.doc,
        allowed: option.allowed,
    };
    match key {
        "module.subscription" => AUTO_OPTIONS.iter().map(auto).collect(),
        "module.rewrite" => vec![Numbered {
            key: rule_key(1),
            value: RULE_EXAMPLE.to_owned(),
            doc: RULE_DOC,
            allowed: RULE_ALLOWED,
        }],
        _ => Vec::new(),
    }
}

/// The numbered keys with the number 1, to look for the nearest key.
pub(crate) fn example_keys() -> impl Iterator<Item = String> {
    let all = ["module.subscription", "module.rewrite"];
    all.into_iter().flat_map(examples).map(|example| example.key)
}

/// What is wrong with a value.
pub(crate) enum Problem {
    /// It is not of the form.
    Bad { allowed: &'static str, example: &'static str },
    /// It cannot be, for this reason.
    Refused(String),
}

/// Applies a numbered key of a module and gives its canonical form; `None` if the key is no such key.
pub(crate) fn assign(
    settings: &mut Settings,
    key: &str,
    value: &str,
) -> Option<Result<String, Problem>> {
    if let Some(number) = key.strip_prefix("module.rewrite.rule.") {
        let number = u32::try_from(digits(number)?).ok()?;
        let set = RewriteRule::parse(value).and_then(|rule| {
            let fits = settings.rewrite.rules.set(number, rule);
            let too_many = || Problem::Refused(format!("there are at most {RULES_MAX} rules"));
            fits.then(|| rule_key(number)).ok_or_else(too_many)
        });
        return Some(set);
    }
    let (number, option) = key.strip_prefix("module.subscription.")?.split_once('.')?;
    let number = u32::try_from(digits(number)?).ok()?;
    let option = AUTO_OPTIONS.iter().find(|known| known.name == option)?;
    let Some(one) = settings.auto_subscription.subscriptions.entry(number) else {
        let reason = format!("there are at most {SUBSCRIPTIONS_MAX} subscriptions");
        return Some(Err(Problem::Refused(reason)));
    };
    let bad = Problem::Bad { allowed: option.allowed, example: option.example };
    Some((option.set)(one, value).map(|()| auto_key(number, option.name)).ok_or(bad))
}

/// Whether a text can be a topic filter (MQTT-4.7.1-2, MQTT-4.7.1-3).
fn is_filter(text: &str) -> bool {
    let mut levels = text.split('/').peekable();
    let mut fits = !text.is_empty() && text.len() <= 4096 && !text.contains(char::is_control);
    while let Some(level) = levels.next() {
        fits &= match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            _ => !level.contains(['+', '#']),
        };
    }
    fits
}

/// A part of what a topic becomes.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Piece {
    Text(String),
    /// What a group of the expression matched, from 1.
    Group(usize),
}

/// A rule that rewrites topics.
#[derive(Clone, Debug)]
pub struct RewriteRule {
    filter: String,
    expression: Regex,
    destination: String,
    pieces: Vec<Piece>,
}

impl PartialEq for RewriteRule {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for RewriteRule {}

impl fmt::Display for RewriteRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.filter, self.expression, self.destination)
    }
}

impl RewriteRule {
    fn parse(text: &str) -> Result<RewriteRule, Problem> {
        let bad = Problem::Bad { allowed: RULE_ALLOWED, example: RULE_EXAMPLE };
        // The expression may have spaces in it, the others hardly.
        let parts = text.trim().split_once(char::is_whitespace).and_then(|(filter, rest)| {
            let (expression, destination) = rest.trim().rsplit_once(char::is_whitespace)?;
            Some((filter, expression.trim(), destination))
        });
        let Some((filter, expression, destination)) = parts else { return Err(bad) };
        if text.len() > 4096 || text.contains(char::is_control) {
            return Err(bad);
        }
        if !is_filter(filter) {
            return Err(Problem::Refused(format!(
                "{filter} is not a topic filter: # stands alone in the last level, + alone in a level"
            )));
        }
        let expression = RegexBuilder::new(expression)
            .size_limit(REGEX_BYTES_MAX)
            .nest_limit(REGEX_NEST_MAX)
            .build()
            .map_err(|error| Problem::Refused(of_regex(&error)))?;
        let groups = expression.captures_len() - 1;
        let pieces = pieces(destination, groups).map_err(Problem::Refused)?;
        let (filter, destination) = (filter.to_owned(), destination.to_owned());
        Ok(RewriteRule { filter, expression, destination, pieces })
    }

    /// The filter a topic has to fit before the expression is tried.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// What a topic becomes; `None` if the expression does not match. Takes time in proportion to the topic's length.
    #[must_use]
    pub fn rewrite(&self, topic: &str) -> Option<String> {
        let found = self.expression.captures(topic)?;
        let mut out = String::with_capacity(topic.len());
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                // A group that took no part is empty.
                Piece::Group(group) => {
                    out.push_str(found.get(*group).map_or("", |found| found.as_str()));
                }
            }
        }
        Some(out)
    }
}

/// An error of the expression in one line, with what to do.
fn of_regex(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => format!(
            "the expression is too large when compiled (at most {REGEX_BYTES_MAX} bytes); make its repetitions smaller"
        ),
        // The parser draws its error below the expression; the last line says what it is.
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!(
                "it is not a regular expression: {last}; look-around and back-references are not known, \\ takes a sign literally"
            )
        }
    }
}

/// Takes a destination apart at its `$1`, `$2`.
fn pieces(destination: &str, groups: usize) -> Result<Vec<Piece>, String> {
    if destination.contains(['+', '#']) {
        return Err(format!(
            "{destination} has a wildcard: nothing can be published to it; use a group and $1"
        ));
    }
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = destination;
    while let Some(at) = rest.find('$') {
        let behind = &rest[at + 1..];
        let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        text.push_str(&rest[..at]);
        rest = &behind[end..];
        if end == 0 {
            // As in $SYS.
            text.push('$');
            continue;
        }
        let group = behind[..end].parse().ok().filter(|group| (1..=groups).contains(group));
        let group = group.ok_or_else(|| {
            format!(
                "there is no ${}: the expression has {groups} group{} in parentheses",
                &behind[..end],
                if groups == 1 { "" } else { "s" }
            )
        })?;
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(Piece::Group(group));
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

/// The rules, in the order of their numbers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RewriteRules(Vec<(u32, RewriteRule)>);

impl RewriteRules {
    /// The rules.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &RewriteRule> {
        self.0.iter().map(|(_, rule)| rule)
    }

    /// Sets a rule; false if there are too many.
    fn set(&mut self, number: u32, rule: RewriteRule) -> bool {
        match self.0.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(place) => self.0[place].1 = rule,
            Err(_) if self.0.len() >= RULES_MAX => return false,
            Err(place) => self.0.insert(place, (number, rule)),
        }
        true
    }

    /// All keys and their values.
    pub(crate) fn numbered(&self) -> Vec<Numbered> {
        let key = |(number, rule): &(u32, RewriteRule)| Numbered {
            key: rule_key(*number),
            value: rule.to_string(),
            doc: RULE_DOC,
            allowed: RULE_ALLOWED,
        };
        self.0.iter().map(key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> RewriteRule {
        RewriteRule::parse(text).unwrap_or_else(|problem| panic!("{text}: {}", said(problem)))
    }

    fn said(problem: Problem) -> String {
        match problem {
            Problem::Bad { allowed, .. } => allowed.to_owned(),
            Problem::Refused(reason) => reason,
        }
    }

    /// SEED-PUB-18: the rules of EMQ's own file.
    #[test]
    fn groups_stand_in_the_destination() {
        let one = rule("x/# ^x/y/(.+)$ z/y/$1");
        assert_eq!((one.filter(), one.to_string().as_str()), ("x/#", "x/# ^x/y/(.+)$ z/y/$1"));
        assert_eq!(one.rewrite("x/y/a/b").as_deref(), Some("z/y/a/b"));
        assert_eq!(one.rewrite("x/z/a"), None);
        let two = rule("y/+/z/# ^y/(.+)/z/(.+)$ y/z/$2");
        assert_eq!(two.rewrite("y/a/z/b").as_deref(), Some("y/z/b"));
        let all = rule("#   ^(a)?/(b) c$   $2$1/$SYS/$2");
        assert_eq!(all.rewrite("/b c").as_deref(), Some("b/$SYS/b"));
        assert_eq!(rule("a/# ^a/(\\d+)$ b/$1").rewrite("a/17").as_deref(), Some("b/17"));
    }

    fn load(set: &[(&str, &str)]) -> Result<Settings, String> {
        let set = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let request = crate::LoadRequest { set: set.collect(), ..crate::LoadRequest::default() };
        let loaded = Settings::load(&request).map_err(|error| error.to_string())?;
        assert_eq!(loaded.1, []);
        Ok(loaded.0)
    }

    /// SEED-PUB-17, SEED-PUB-18: what is set is shown, and what is shown loads again.
    #[test]
    fn numbered_keys_are_set_and_shown() {
        let settings = load(&[
            ("module.subscription", "on"),
            ("module.subscription.10.topic", "b/%u"),
            ("module.subscription.2.qos", "1"),
            ("module.subscription.2.topic", "$client/%c"),
            ("module.subscription.2.nl", "1"),
            ("module.subscription.2.rh", "2"),
        ])
        .expect("settings");
        let all: Vec<_> = settings.auto_subscription.subscriptions.iter().collect();
        assert_eq!((all[0].topic.as_str(), all[0].qos, all[0].no_local), ("$client/%c", 1, true));
        assert_eq!((all[0].retain_handling, all[1].topic.as_str()), (2, "b/%u"));
        let rules =
            [("module.rewrite.rule.7", "a ^(a)$ c/$1"), ("module.rewrite.rule.3", "b ^b$ c")];
        let rules = load(&rules).expect("settings");
        let texts: Vec<_> = rules.rewrite.rules.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["b ^b$ c", "a ^(a)$ c/$1"], "in the order of the numbers");
        for settings in [settings, rules] {
            let shown: Vec<(String, String)> = settings
                .entries()
                .into_iter()
                .filter(|entry| entry.key.starts_with("module."))
                .map(|entry| (entry.key, entry.value))
                .collect();
            let pairs: Vec<_> = shown.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let again = load(&pairs).expect("what is shown loads");
            assert_eq!(again.auto_subscription, settings.auto_subscription);
            assert_eq!(again.rewrite, settings.rewrite);
        }
    }

    #[test]
    fn wrong_numbered_keys_are_told() {
        for (key, value, message) in [
            (
                "module.subscription.2.qos",
                "1",
                "--set: unknown key module.subscription.2.qos: there is no subscription 2; give module.subscription.2.topic = <filter>",
            ),
            (
                "module.subscription.1.qos",
                "3",
                "--set: module.subscription.1.qos cannot be \"3\"; allowed: 0, 1 or 2, for example 1",
            ),
            (
                "module.subscription.1.topic",
                "a/#/b",
                "--set: module.subscription.1.topic cannot be \"a/#/b\"; allowed: a topic filter, for example $client/%c",
            ),
            (
                "module.subscription.1.topc",
                "a",
                "--set: unknown key module.subscription.1.topc; did you mean module.subscription.1.topic?",
            ),
            (
                "module.rewrite.rules.1",
                "a b c",
                "--set: unknown key module.rewrite.rules.1; did you mean module.rewrite.rule.1?",
            ),
            (
                "module.rewrite.rule.1",
                "x/# ^x/(.+)$ z/$2",
                "--set: module.rewrite.rule.1 = x/# ^x/(.+)$ z/$2: there is no $2: the expression has 1 group in parentheses",
            ),
        ] {
            let error = load(&[(key, value)]).map(drop).expect_err(key);
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn what_is_no_rule_says_why() {
        for (text, part) in [
            ("", "a filter, a regular expression"),
            ("x/#", "a filter, a regular expression"),
            ("x/# y", "a filter, a regular expression"),
            ("x/#/y ^x$ y", "x/#/y is not a topic filter"),
            ("x+ ^x$ y", "x+ is not a topic filter"),
            ("x/# ^x/(y z/$1", "it is not a regular expression: unclosed group"),
            ("x/# (?=x) z", "look-around"),
            ("x/# ^x/(.+)$ z/$2", "there is no $2: the expression has 1 group in"),
            ("x/# ^x$ z/$1", "there is no $1: the expression has 0 groups"),
            ("x/# ^x$ z/$99999999999999999999", "there is no $999"),
            ("x/# ^x/(.+)$ z/+/$1", "z/+/$1 has a wildcard"),
            ("x/# ((a{1000}){1000}){10} z", "too large when compiled"),
        ] {
            let problem = RewriteRule::parse(text).err().unwrap_or_else(|| panic!("{text}"));
            let said = said(problem);
            assert!(said.contains(part), "{text}: {said}");
            assert!(!said.contains('\n'), "{text}: {said}");
        }
    }
}
