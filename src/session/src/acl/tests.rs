//! Tests of the access rules: the forms of the file, the order, the traps, and random rules against a plain model.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{Access, Acl, AclClient, AclDecision, AclError, DEFAULT_ACL_CONF};

const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

fn client(client_id: &str) -> AclClient<'_> {
    AclClient { client_id, username: None, peer: FAR }
}

fn named<'a>(client_id: &'a str, username: &'a str) -> AclClient<'a> {
    AclClient { client_id, username: Some(username), peer: FAR }
}

fn at(peer: &str) -> AclClient<'static> {
    AclClient { client_id: "c", username: None, peer: peer.parse().expect("an address") }
}

fn acl(text: &str) -> Acl {
    Acl::parse(text, AclDecision::Deny).expect("rules")
}

fn may(acl: &Acl, client: &AclClient<'_>, access: Access, topic: &str) -> bool {
    acl.check(client, access, topic) == AclDecision::Allow
}

fn may_subscribe(acl: &Acl, client: &AclClient<'_>, filter: &str) -> bool {
    may(acl, client, Access::Subscribe, filter)
}

fn may_publish(acl: &Acl, client: &AclClient<'_>, topic: &str) -> bool {
    may(acl, client, Access::Publish, topic)
}

fn error(text: &str) -> String {
    Acl::parse(text, AclDecision::Deny).expect_err("wrong rules").to_string()
}

#[test]
fn default_rules() {
    let acl = Acl::builtin(AclDecision::Deny);
    assert_eq!(acl.len(), 4);
    let far = client("c");
    assert!(may_publish(&acl, &far, "a/b"));
    assert!(may_subscribe(&acl, &far, "a/#"));
    assert!(may_subscribe(&acl, &far, "+/#"));
    assert!(!may_subscribe(&acl, &far, "#"));
    assert!(!may_subscribe(&acl, &far, "$SYS/#"));
    assert!(!may_subscribe(&acl, &far, "$SYS/brokers"));
    assert!(!may_subscribe(&acl, &far, "$share/g/#"));
    assert!(!may_subscribe(&acl, &far, "$queue/$SYS/#"));
    assert!(!may_subscribe(&acl, &far, "$local/#"));
    assert!(may_subscribe(&acl, &named("c", "dashboard"), "$SYS/#"));
    assert!(!may_subscribe(&acl, &named("dashboard", "other"), "$SYS/#"));
    for local in ["127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1"] {
        assert!(may_subscribe(&acl, &at(local), "#"), "{local}");
        assert!(may_subscribe(&acl, &at(local), "$SYS/#"), "{local}");
    }
    for far in ["128.0.0.1", "::2", "::ffff:10.0.0.1"] {
        assert!(!may_subscribe(&acl, &at(far), "#"), "{far}");
    }
    assert_eq!(
        acl.deciding_rule(&far, Access::Publish, "a").map(|(_, line)| line),
        DEFAULT_ACL_CONF.lines().position(|line| line == "{allow, all}.").map(|i| i + 1)
    );
}

#[test]
fn the_rules_of_emq_load() {
    let text = "%% Allow\n{allow, {user, \"dashboard\"}, subscribe, [\"$SYS/#\"]}.\n\
        {allow, {ipaddr, \"127.0.0.1\"}, pubsub, [\"$SYS/#\", \"#\"]}.\n\
        {deny, all, subscribe, [\"$SYS/#\", {eq, \"#\"}]}.\n{allow, all}.";
    let acl = acl(text);
    assert!(may_subscribe(&acl, &at("127.0.0.1"), "#"));
    assert!(!may_subscribe(&acl, &at("127.0.0.2"), "#"));
}

#[test]
fn all_forms_of_who() {
    let only = |who: &str| acl(&format!("{{allow, {who}, pubsub, [\"t\"]}}."));
    let fits = |who: &str, client: &AclClient<'_>| may_publish(&only(who), client, "t");
    assert!(fits("all", &client("c")));
    assert!(fits("\"c\"", &client("c")) && !fits("\"c\"", &client("d")));
    assert!(fits("{client, \"c\"}", &client("c")) && !fits("{client, \"c\"}", &client("d")));
    assert!(fits("{client, <<\"c\">>}", &client("c")));
    assert!(fits("{client, <<\"c\"/utf8>>}", &client("c")));
    assert!(fits("{client, all}", &client("c")) && fits("{user, all}", &client("c")));
    assert!(fits("{user, \"u\"}", &named("c", "u")) && !fits("{user, \"u\"}", &client("u")));
    assert!(fits("{'and', [{user, \"u\"}, \"c\"]}", &named("c", "u")));
    assert!(!fits("{'and', [{user, \"u\"}, \"c\"]}", &named("d", "u")));
    assert!(fits("{'or', [{user, \"u\"}, \"c\"]}", &named("d", "u")));
    assert!(!fits("{'or', [{user, \"u\"}, \"c\"]}", &named("d", "v")));
    assert!(fits("{'or', [{'and', [all, \"x\"]}, {ipaddr, \"203.0.113.0/24\"}]}", &client("c")));
}

#[test]
fn nets() {
    let within = |net: &str, peer: &str| {
        let rules = acl(&format!("{{allow, {{ipaddr, \"{net}\"}}, publish, [\"t\"]}}."));
        may_publish(&rules, &at(peer), "t")
    };
    assert!(within("10.1.2.3/8", "10.255.0.1") && !within("10.1.2.3/8", "11.0.0.1"));
    assert!(within("0.0.0.0/0", "255.255.255.255") && !within("0.0.0.0/0", "::1"));
    assert!(within("::/0", "fe80::1") && !within("::/0", "1.2.3.4"));
    assert!(within("fe80::/10", "febf::1") && !within("fe80::/10", "fec0::1"));
    assert!(within("192.168.1.128/25", "192.168.1.129"));
    assert!(!within("192.168.1.128/25", "192.168.1.127"));
    assert!(within("192.168.1.5", "192.168.1.5") && !within("192.168.1.5", "192.168.1.4"));
    assert!(within("::1/128", "::1"));
    for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0", "host"] {
        let message = error(&format!("{{allow, {{ipaddr, \"{wrong}\"}}, publish, [\"t\"]}}."));
        assert!(message.starts_with("line 1, column 18: "), "{message}");
    }
}

#[test]
fn access_and_order() {
    let rules = acl("{deny, \"bad\", publish, \"a/#\"}.\n{allow, all, publish, [\"a/+\"]}.\n\
        {allow, all, subscribe, [\"b\", \"c/#\"]}.\n{deny, all}.\n{allow, all}.");
    assert!(!may_publish(&rules, &client("bad"), "a/x"));
    assert!(!may_publish(&rules, &client("bad"), "a"));
    assert!(may_publish(&rules, &client("good"), "a/x"));
    assert!(!may_publish(&rules, &client("good"), "a/x/y"));
    assert!(!may_publish(&rules, &client("good"), "b"));
    assert!(may_subscribe(&rules, &client("bad"), "b"));
    assert!(
        may_subscribe(&rules, &client("bad"), "c") && !may_subscribe(&rules, &client("x"), "a/x")
    );
}

#[test]
fn no_match_is_a_setting() {
    let text = "{allow, \"c\", publish, [\"t\"]}.";
    let mut rules = Acl::parse(text, config::AclNomatch::Allow).expect("rules");
    assert!(may_publish(&rules, &client("d"), "t"));
    rules.set_nomatch(AclDecision::Deny);
    assert!(!may_publish(&rules, &client("d"), "t"));
    assert!(rules.deciding_rule(&client("d"), Access::Publish, "t").is_none());
    let none = Acl::parse(" % nothing\n", AclDecision::Deny).expect("no rules");
    assert!(none.is_empty() && !may_publish(&none, &client("c"), "t"));
}

#[test]
fn a_leading_wildcard_spares_dollar_topics() {
    let rules = acl("{allow, all, pubsub, [\"#\", \"+/x\"]}.");
    assert!(!may_publish(&rules, &client("c"), "$SYS/x"));
    assert!(!may_subscribe(&rules, &client("c"), "$SYS/#"));
    assert!(may_subscribe(&rules, &client("c"), "a/x") && may_subscribe(&rules, &client("c"), "#"));
}

#[test]
fn a_subscription_asks_for_no_more_than_is_allowed() {
    let allow = acl("{allow, all, subscribe, [\"a/+\", \"b/+/#\"]}.");
    assert!(
        may_subscribe(&allow, &client("c"), "a/+") && may_subscribe(&allow, &client("c"), "a/x")
    );
    assert!(!may_subscribe(&allow, &client("c"), "a/#"));
    assert!(!may_subscribe(&allow, &client("c"), "b/#"));
    assert!(may_subscribe(&allow, &client("c"), "b/x/#"));
    assert!(
        !may_subscribe(&allow, &client("c"), "+/x") && !may_subscribe(&allow, &client("c"), "#")
    );
    let deny = acl("{deny, all, subscribe, [\"a/+\"]}.\n{allow, all}.");
    assert!(!may_subscribe(&deny, &client("c"), "a/#"));
    let only_hash = acl("{deny, all, subscribe, [{eq, \"#\"}]}.\n{allow, all}.");
    assert!(!may_subscribe(&only_hash, &client("c"), "#"));
    assert!(may_subscribe(&only_hash, &client("c"), "a/#"));
}

#[test]
fn variables() {
    let rules = acl("{allow, all, pubsub, [\"c/%c/x\", \"u/%u/#\", \"p/dev-%c.json\"]}.");
    assert!(may_publish(&rules, &client("d1"), "c/d1/x"));
    assert!(!may_publish(&rules, &client("d1"), "c/d2/x"));
    assert!(!may_publish(&rules, &client("d1"), "c/%c/x"));
    assert!(may_publish(&rules, &named("d1", "joe"), "u/joe/a/b"));
    assert!(!may_publish(&rules, &client("joe"), "u/joe/a"));
    assert!(may_publish(&rules, &client("7"), "p/dev-7.json"));
    assert!(!may_publish(&rules, &client("7"), "p/dev-8.json"));
    assert!(!may_publish(&rules, &client("7"), "p/dev-7"));
    // `before` and `after` may not share a letter.
    let overlap = acl("{allow, all, publish, [\"ab%cba\"]}.");
    assert!(!may_publish(&overlap, &client("b"), "aba"));
    assert!(may_publish(&overlap, &client("b"), "abbba"));
    // {eq, _} knows no variables.
    let literal = acl("{allow, all, publish, [{eq, \"c/%c\"}]}.");
    assert!(
        may_publish(&literal, &client("d"), "c/%c") && !may_publish(&literal, &client("d"), "c/d")
    );
}

#[test]
fn names_of_clients_do_not_widen_access() {
    let rules = acl("{allow, all, pubsub, [\"room/%c\", \"home/%u/#\"]}.");
    for evil in ["#", "+", "a/b", "a#", ""] {
        assert!(!may_subscribe(&rules, &client(evil), &format!("room/{evil}")), "{evil}");
        assert!(!may_subscribe(&rules, &named("c", evil), &format!("home/{evil}/x")), "{evil}");
        assert!(!may_subscribe(&rules, &named("c", evil), "home/#"), "{evil}");
    }
}

#[test]
fn layout_comments_and_quotes() {
    let rules = acl(
        "\u{feff}% a comment with \"quotes\" and {\r\n{ allow ,\n  {'user', \"a \\\"b\\\"\"} , % here too\n\
        publish, [ \"x y\",\t<< \"z\" >> ] } . {deny, all}. %",
    );
    assert_eq!(rules.len(), 2);
    assert!(may_publish(&rules, &named("c", "a \"b\""), "x y"));
    assert!(may_publish(&rules, &named("c", "a \"b\""), "z"));
}

#[test]
fn errors_name_the_place_and_what_was_expected() {
    for (text, message) in [
        ("allow", "line 1, column 1: expected a rule, which starts with {, found allow"),
        (
            "{allow, all}\n",
            "line 2, column 1: expected a full stop behind the rule, found the end of the file",
        ),
        ("{allow, all}.\n{permit, all}.", "line 2, column 2: expected allow or deny, found permit"),
        (
            "{allow, all, read, [\"a\"]}.",
            "line 1, column 14: expected publish, subscribe or pubsub, found read",
        ),
        ("{allow, all, publish}.", "line 1, column 21: expected , and a list of topics, found }"),
        (
            "{allow, \"c\"}.",
            "line 1, column 12: expected , and publish, subscribe or pubsub, found }",
        ),
        (
            "{allow, all, publish, []}.",
            "line 1, column 24: expected a topic filter in quotes or {eq, \"text\"}, found ]",
        ),
        (
            "{allow, {client, c}, publish, []}.",
            "line 1, column 18: expected a client id in quotes, or all, found c",
        ),
        (
            "{allow, {group, \"g\"}, publish, []}.",
            "line 1, column 10: expected client, user, ipaddr, 'and' or 'or', found group",
        ),
        (
            "{allow, all, publish, [\"a\" \"b\"]}.",
            "line 1, column 28: expected , or ] at the end of the list, found \"b\"",
        ),
        (
            "{allow, all, publish, [\"a]}.",
            "line 1, column 24: expected a topic filter in quotes or {eq, \"text\"}, found a quote that is not closed",
        ),
        (
            "{allow, all, publish, [\"a/#/b\"]}.",
            "line 1, column 24: \"a/#/b\" is no topic filter: # must be the last level",
        ),
        (
            "{allow, all, publish, [\"a+\"]}.",
            "line 1, column 24: \"a+\" is no topic filter: + and # must be whole levels",
        ),
        ("{allow, all, publish, \"\"}.", "line 1, column 23: \"\" is no topic filter: it is empty"),
        (
            "{allow, all, publish, \"%c-%u\"}.",
            "line 1, column 23: \"%c-%u\" is no topic filter: a level may hold one of %c and %u, once",
        ),
        (
            "{allow, all, publish, Topics}.",
            "line 1, column 23: expected a list of topics, which starts with [, or one topic, found Topics",
        ),
        (
            "{allow, {'or', []}, publish, \"a\"}.",
            "line 1, column 17: expected all, \"client id\", {client, _}, {user, _}, {ipaddr, _}, {'and', [_]} or {'or', [_]}, found ]",
        ),
    ] {
        assert_eq!(error(text), message, "{text}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        let (open, close) = ("{'or', [".repeat(depth), "]}".repeat(depth));
        Acl::parse(&format!("{{allow, {open}all{close}, publish, \"a\"}}."), AclDecision::Deny)
    };
    assert!(nested(16).is_ok());
    assert!(matches!(nested(17), Err(AclError::TooDeep { line: 1, .. })));
    assert!(nested(100_000).is_err());
}

/// A rule as the generator makes it, kept apart from the compiled form.
#[derive(Clone, Debug)]
struct PlainRule {
    allow: bool,
    who: PlainWho,
    access: usize,
    topics: Option<Vec<(bool, String)>>,
}

#[derive(Clone, Debug)]
enum PlainWho {
    All,
    Client(String),
    User(String),
    Net(u8, u32),
    And(Vec<PlainWho>),
    Or(Vec<PlainWho>),
}

impl PlainWho {
    fn text(&self) -> String {
        let list = |list: &[PlainWho]| list.iter().map(Self::text).collect::<Vec<_>>().join(", ");
        match self {
            Self::All => "all".into(),
            Self::Client(id) => format!("{{client, \"{id}\"}}"),
            Self::User(name) => format!("{{user, \"{name}\"}}"),
            Self::Net(octet, prefix) => format!("{{ipaddr, \"10.0.0.{octet}/{prefix}\"}}"),
            Self::And(all) => format!("{{'and', [{}]}}", list(all)),
            Self::Or(any) => format!("{{'or', [{}]}}", list(any)),
        }
    }

    fn fits(&self, id: &str, user: Option<&str>, octet: u8) -> bool {
        match self {
            Self::All => true,
            Self::Client(want) => want == id,
            Self::User(want) => user == Some(want),
            Self::Net(net, prefix) => {
                u32::from(*net) >> (32 - prefix) == u32::from(octet) >> (32 - prefix)
            }
            Self::And(all) => all.iter().all(|who| who.fits(id, user, octet)),
            Self::Or(any) => any.iter().any(|who| who.fits(id, user, octet)),
        }
    }
}

impl PlainRule {
    fn text(&self) -> String {
        let decision = if self.allow { "allow" } else { "deny" };
        let Some(topics) = &self.topics else { return format!("{{{decision}, all}}.\n") };
        let topics: Vec<String> = topics
            .iter()
            .map(
                |(eq, topic)| {
                    if *eq { format!("{{eq, \"{topic}\"}}") } else { format!("\"{topic}\"") }
                },
            )
            .collect();
        let access = ["publish", "subscribe", "pubsub"][self.access];
        format!("{{{decision}, {}, {access}, [{}]}}.\n", self.who.text(), topics.join(", "))
    }

    fn fits(&self, id: &str, user: Option<&str>, octet: u8, access: Access, topic: &str) -> bool {
        let Some(topics) = &self.topics else { return true };
        let covered = self.access == 2 || self.access == usize::from(access == Access::Subscribe);
        covered
            && self.who.fits(id, user, octet)
            && topics.iter().any(|(eq, filter)| {
                if *eq { filter == topic } else { plain_match(filter, id, user, topic, self.allow) }
            })
    }
}

/// Matching by recursion over vectors of levels, after the variables are filled in.
fn plain_match(filter: &str, id: &str, user: Option<&str>, topic: &str, allow: bool) -> bool {
    fn go(filter: &[Option<String>], topic: &[&str], allow: bool) -> bool {
        match (filter, topic) {
            ([Some(hash)], _) if hash == "#" => true,
            ([], []) => true,
            ([Some(level), rest @ ..], [word, words @ ..]) => {
                let plus = level == "+" && !(allow && *word == "#");
                (plus || (level == word && level != "+")) && go(rest, words, allow)
            }
            _ => false,
        }
    }
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let safe =
        |name: &str| (!name.is_empty() && !name.contains(['+', '#', '/'])).then(|| name.to_owned());
    let levels: Vec<Option<String>> = filter
        .split('/')
        .map(|level| match level {
            "%c" => safe(id),
            "%u" => user.and_then(safe),
            _ => Some(level.to_owned()),
        })
        .collect();
    go(&levels, &topic.split('/').collect::<Vec<_>>(), allow)
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "+", "#", ""]).prop_map(str::to_owned)
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "$x", "+", "%c", "%u", ""]);
    (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(levels, hash)| {
        let text = levels.join("/");
        match (hash, text.is_empty()) {
            (true, _) => format!("{text}/#"),
            (false, true) => "#".into(),
            (false, false) => text,
        }
    })
}

fn who() -> impl Strategy<Value = PlainWho> {
    let leaf = prop_oneof![
        Just(PlainWho::All),
        name().prop_map(PlainWho::Client),
        name().prop_map(PlainWho::User),
        (any::<u8>(), 24_u32..=32).prop_map(|(octet, prefix)| PlainWho::Net(octet, prefix)),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        let list = prop::collection::vec(inner, 1..3);
        prop_oneof![list.clone().prop_map(PlainWho::And), list.prop_map(PlainWho::Or)]
    })
}

fn rule() -> impl Strategy<Value = PlainRule> {
    let topics = prop::collection::vec((prop::bool::weighted(0.2), filter()), 1..4);
    (any::<bool>(), who(), 0_usize..3, prop::option::weighted(0.95, topics))
        .prop_map(|(allow, who, access, topics)| PlainRule { allow, who, access, topics })
}

proptest! {
    #[test]
    fn any_text_is_rules_or_an_error(text in "\\PC*") {
        let _ = Acl::parse(&text, AclDecision::Deny);
    }

    #[test]
    fn any_tokens_are_rules_or_an_error(tokens in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "[", "]", ",", ".", "allow", "deny", "all", "'and'", "'or'", "user", "client", "ipaddr", "eq",
        "publish", "\"#\"", "\"a/%c\"", "\"10.0.0.0/8\"", "<<\"x\">>", "<<", "\"", "'", "%", "\n", "\\", "é",
    ]), 0..40)) {
        let _ = Acl::parse(&tokens.join(" "), AclDecision::Deny);
    }

    #[test]
    fn first_fitting_rule_decides(
        rules in prop::collection::vec(rule(), 0..8),
        id in name(),
        user in prop::option::of(name()),
        octet in any::<u8>(),
        subscribe in any::<bool>(),
        topic in filter(),
    ) {
        let text: String = rules.iter().map(PlainRule::text).collect();
        let acl = Acl::parse(&text, AclDecision::Deny).expect("generated rules are correct");
        let access = if subscribe { Access::Subscribe } else { Access::Publish };
        let user = user.as_deref();
        let expected = rules
            .iter()
            .find(|rule| rule.fits(&id, user, octet, access, &topic))
            .is_some_and(|rule| rule.allow);
        let v4 = Ipv4Addr::new(10, 0, 0, octet);
        for peer in [IpAddr::V4(v4), IpAddr::V6(Ipv6Addr::from(v4.to_ipv6_mapped().octets()))] {
            let client = AclClient { client_id: &id, username: user, peer };
            prop_assert_eq!(may(&acl, &client, access, &topic), expected, "{}", text);
        }
    }
}
