//! Routers of one node that exchange deltas, against a naive model.

use crate::*;
use mqtt::{FilterKind, ParsedFilter, QoS, topic};
use proptest::prelude::*;
use ring::{ShardId, ShardSet};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const SHARDS: usize = 3;

/// A filter that can be kept.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
struct Filter {
    prefix: &'static str,
    text: String,
}

impl Filter {
    fn parsed(&self) -> ParsedFilter<'_> {
        let kind = match self.prefix {
            "" => FilterKind::Plain,
            "$local/" => FilterKind::Local,
            "$queue/" => FilterKind::Queue,
            _ => FilterKind::Shared { group: self.group().unwrap() },
        };
        ParsedFilter { kind, filter: &self.text }
    }

    fn group(&self) -> Option<&'static str> {
        match self.prefix {
            "" | "$local/" => None,
            "$queue/" => Some("$queue"),
            shared => shared.strip_prefix("$share/")?.strip_suffix('/'),
        }
    }

    fn name(&self) -> String {
        [self.prefix, &self.text].concat()
    }

    /// The name under which its route is listed.
    fn route(&self) -> String {
        if self.prefix == "$local/" { self.text.clone() } else { self.name() }
    }
}

fn plain(text: &str) -> Filter {
    Filter { prefix: "", text: text.to_owned() }
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b", "$", "$s"])
}

fn topics() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic has a byte", |topic| !topic.is_empty())
}

fn filters() -> impl Strategy<Value = Filter> {
    let level = prop_oneof![3 => level(), 2 => Just("+")];
    let text = (prop::collection::vec(level, 0..4), any::<bool>()).prop_map(|(mut levels, all)| {
        if all {
            levels.push("#");
        }
        levels.join("/")
    });
    let prefix =
        prop::sample::select(vec!["", "", "", "$local/", "$share/g/", "$share/h/", "$queue/"]);
    (prefix, text)
        .prop_map(|(prefix, text)| Filter { prefix, text })
        .prop_filter("a filter has a byte", |filter| !filter.text.is_empty())
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe {
        shard: usize,
        session: u32,
        filter: Filter,
        qos: u8,
    },
    /// Ends the nth subscription of the shard, counted around.
    Unsubscribe {
        shard: usize,
        nth: usize,
    },
    Deliver {
        from: usize,
        to: usize,
        count: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let shard = 0..SHARDS;
    let step = prop_oneof![
        5 => (shard.clone(), 0u32..4, filters(), 0u8..3).prop_map(
            |(shard, session, filter, qos)| Step::Subscribe { shard, session, filter, qos }),
        4 => (shard.clone(), 0usize..99)
            .prop_map(|(shard, nth)| Step::Unsubscribe { shard, nth }),
        2 => (shard.clone(), shard, 1usize..5)
            .prop_map(|(from, to, count)| Step::Deliver { from, to, count }),
    ];
    prop::collection::vec(step, 0..120)
}

/// The subscriptions of one shard.
type Model = BTreeMap<Filter, BTreeMap<u32, u8>>;

struct Node {
    routers: Vec<Router>,
    models: Vec<Model>,
    queues: Vec<Vec<VecDeque<RouteDelta>>>,
    /// Whether fingerprints tell topics apart.
    sharp: bool,
}

impl Node {
    fn new(mask: u64) -> Self {
        let router = |shard| {
            let mut router = Router::new(ShardId::new(shard), SHARDS, 42);
            router.fingerprinter.mask = mask;
            router
        };
        Self {
            routers: (0..SHARDS).map(router).collect(),
            models: vec![Model::new(); SHARDS],
            queues: vec![vec![VecDeque::new(); SHARDS]; SHARDS],
            sharp: mask == u64::MAX,
        }
    }

    fn send(&mut self, from: usize, deltas: &[RouteDelta]) {
        for to in (0..SHARDS).filter(|to| *to != from) {
            self.queues[from][to].extend(deltas.iter().cloned());
        }
    }

    fn subscribe(&mut self, shard: usize, session: u32, filter: &Filter, qos: u8) {
        let options = SubOptions::new(QoS::from_bits(qos).unwrap());
        let mut deltas = Vec::new();
        let router = &mut self.routers[shard];
        let before = router.find(&filter.parsed());
        let (id, new) =
            router.subscribe(SessionId(session), &filter.parsed(), options, &mut deltas);
        assert_eq!(before.is_some(), self.models[shard].contains_key(filter));
        assert!(before.is_none_or(|before| before == id));
        let sessions = self.models[shard].entry(filter.clone()).or_default();
        assert_eq!(new, sessions.insert(session, qos).is_none());
        assert!(new || deltas.is_empty());
        assert_eq!(router.name(id), filter.name());
        assert_eq!(router.filter(id), filter.text);
        assert_eq!(router.is_shared(id), filter.group().is_some());
        self.send(shard, &deltas);
    }

    fn unsubscribe(&mut self, shard: usize, nth: usize) {
        let all: Vec<(Filter, u32)> = self.models[shard]
            .iter()
            .flat_map(|(filter, sessions)| sessions.keys().map(|s| (filter.clone(), *s)))
            .collect();
        let Some((filter, session)) = all.get(nth % all.len().max(1)) else { return };
        let router = &mut self.routers[shard];
        let id = router.find(&filter.parsed()).unwrap();
        let mut deltas = Vec::new();
        assert!(!router.unsubscribe(SessionId(77), id, &mut deltas) && deltas.is_empty());
        assert!(router.unsubscribe(SessionId(*session), id, &mut deltas));
        let sessions = self.models[shard].get_mut(filter).unwrap();
        sessions.remove(session);
        if sessions.is_empty() {
            self.models[shard].remove(filter);
            assert_eq!(router.find(&filter.parsed()), None);
        }
        self.send(shard, &deltas);
    }

    fn deliver(&mut self, from: usize, to: usize, count: usize) {
        for _ in 0..count {
            let Some(delta) = self.queues[from][to].pop_front() else { return };
            self.routers[to].apply(ShardId::new(from), &delta);
        }
    }

    fn deliver_all(&mut self) {
        for from in 0..SHARDS {
            for to in 0..SHARDS {
                self.deliver(from, to, usize::MAX);
            }
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Subscribe { shard, session, filter, qos } => {
                self.subscribe(*shard, *session, filter, *qos);
            }
            Step::Unsubscribe { shard, nth } => self.unsubscribe(*shard, *nth),
            Step::Deliver { from, to, count } => self.deliver(*from, *to, *count),
        }
    }

    /// The local filters that match, which hold whatever deltas are under way.
    fn check_local(&self, shard: usize, topic: &str, found: &[FilterId]) {
        let router = &self.routers[shard];
        let mut names: Vec<_> = found.iter().map(|id| router.name(*id)).collect();
        names.sort_unstable();
        let matching =
            |filter: &&Filter| filter.group().is_none() && topic::matches(&filter.text, topic);
        let mut expected: Vec<_> =
            self.models[shard].keys().filter(matching).map(Filter::name).collect();
        expected.sort_unstable();
        assert_eq!(names, expected, "shard {shard} {topic:?}");
    }

    /// All that a topic matches; the node is quiet.
    fn check_topic(&mut self, topic: &str) {
        let mut out = Matches::default();
        for shard in 0..SHARDS {
            self.routers[shard].match_local(topic, &mut out);
            self.check_local(shard, topic, &out.filters);
            assert!(out.shards.is_empty() && out.groups.is_empty());
            self.routers[shard].matches(topic, &mut out);
            self.check_local(shard, topic, &out.filters);
            let wanted = |other: &usize| {
                let mut filters = self.models[*other].keys();
                filters.any(|f| f.group().is_none() && topic::matches(&f.text, topic))
            };
            let others = (0..SHARDS).filter(|other| *other != shard);
            let expected: ShardSet = others.filter(wanted).map(ShardId::new).collect();
            assert_eq!(expected.union(&out.shards), out.shards, "lost {topic:?}");
            assert!(!out.shards.contains(ShardId::new(shard)));
            assert!(!self.sharp || expected == out.shards, "too many for {topic:?}");
            self.check_groups(shard, topic, &out.groups);
        }
    }

    fn check_groups(&mut self, shard: usize, topic: &str, found: &[GroupMatch]) {
        let router = &mut self.routers[shard];
        let mut names = Vec::new();
        for GroupMatch { group } in found {
            let (name, text) = router.group(*group).unwrap();
            let (name, text) = (name.to_owned(), text.to_owned());
            for (number, strategy) in SharedStrategy::ALL.into_iter().enumerate() {
                let seed = number as u64;
                let pick =
                    PickInput { topic_hash: seed, publisher_hash: seed, random: seed, strategy };
                let Destination::Shard(to) = router.group_pick(*group, &pick).unwrap();
                assert!(
                    router.group_shares(*group).any(|(shard, members)| shard == to && members > 0)
                );
                let members = router.group_members(&name, &text, &pick);
                let mut members: Vec<_> = members.map(|one| one.session.0).collect();
                members.sort_unstable();
                let own = self.models[shard].iter();
                let own = own.filter(|(f, _)| f.group() == Some(&name) && f.text == text);
                let expected: Vec<_> =
                    own.flat_map(|(_, sessions)| sessions.keys().copied()).collect();
                assert_eq!(members, expected);
            }
            names.push((name, text));
        }
        names.sort_unstable();
        let all = self.models.iter().flat_map(BTreeMap::keys);
        let all = all.filter(|filter| topic::matches(&filter.text, topic));
        let all = all.filter_map(|f| f.group().map(|group| (group.to_owned(), f.text.clone())));
        let expected: BTreeSet<_> = all.collect();
        assert_eq!(names, expected.into_iter().collect::<Vec<_>>(), "{topic:?}");
    }

    /// Counts and listings; the node is quiet.
    fn check_listing(&self) {
        let mut expected: BTreeMap<String, ShardSet> = BTreeMap::new();
        for (shard, model) in self.models.iter().enumerate() {
            for filter in model.keys() {
                expected.entry(filter.route()).or_default().insert(ShardId::new(shard));
            }
            let router = &self.routers[shard];
            assert_eq!(router.filter_count(), model.len());
            let subscriptions: usize = model.values().map(BTreeMap::len).sum();
            assert_eq!(router.subscription_count(), subscriptions);
            for (filter, sessions) in model {
                let id = router.find(&filter.parsed()).unwrap();
                assert_eq!(router.subscribers(id).len(), sessions.len());
                for (session, qos) in sessions {
                    let subscriber = router.subscriber(id, SessionId(*session)).unwrap();
                    assert_eq!(subscriber.options.qos() as u8, *qos);
                }
            }
        }
        if !self.sharp {
            return;
        }
        let mut listed = BTreeMap::new();
        for router in &self.routers {
            assert_eq!(router.route_count(), expected.len());
            let mut cursor = Some(RouteCursor::default());
            while let Some(from) = cursor {
                let page = router.routes(from, 2);
                assert!(page.routes.len() <= 2);
                for route in page.routes {
                    assert!(listed.insert(route.filter, route.shards).is_none(), "listed twice");
                }
                cursor = page.next;
            }
        }
        assert_eq!(listed, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_node_is_its_model(
        steps in steps(),
        topics in prop::collection::vec(topics(), 6),
        mask in prop::sample::select(vec![u64::MAX, u64::MAX, 7 << 60 | 3, 1, 0]),
    ) {
        let mut node = Node::new(mask);
        let mut out = Matches::default();
        for (number, step) in steps.iter().enumerate() {
            node.run(step);
            let (shard, topic) = (number % SHARDS, &topics[number % topics.len()]);
            node.routers[shard].matches(topic, &mut out);
            node.check_local(shard, topic, &out.filters);
        }
        node.deliver_all();
        for topic in &topics {
            node.check_topic(topic);
        }
        node.check_listing();
        for shard in 0..SHARDS {
            while !node.models[shard].is_empty() {
                node.unsubscribe(shard, shard);
            }
        }
        node.deliver_all();
        for router in &node.routers {
            prop_assert_eq!(router.footprint(), Footprint::default());
            prop_assert_eq!((router.route_count(), router.subscription_count()), (0, 0));
        }
    }
}

fn router(shard: usize) -> Router {
    Router::new(ShardId::new(shard), SHARDS, 7)
}

fn subscribe(router: &mut Router, session: u32, filter: &Filter) -> (FilterId, Vec<RouteDelta>) {
    let mut deltas = Vec::new();
    let options = SubOptions::default();
    let (id, _) = router.subscribe(SessionId(session), &filter.parsed(), options, &mut deltas);
    (id, deltas)
}

#[test]
fn only_first_and_last_subscriber_make_a_delta() {
    for text in ["a/b", "a/+"] {
        let local = Filter { prefix: "$local/", text: text.to_owned() };
        let mut router = router(0);
        let (id, deltas) = subscribe(&mut router, 1, &plain(text));
        assert_eq!(deltas.len(), 1);
        assert_eq!(subscribe(&mut router, 2, &plain(text)), (id, vec![]));
        let (local_id, deltas) = subscribe(&mut router, 1, &local);
        assert!(local_id != id && deltas.is_empty());
        assert_eq!(router.route_count(), 1);
        let mut deltas = Vec::new();
        router.unsubscribe(SessionId(1), id, &mut deltas);
        router.unsubscribe(SessionId(2), id, &mut deltas);
        assert_eq!(deltas, []);
        router.unsubscribe(SessionId(1), local_id, &mut deltas);
        let removed =
            matches!(deltas[..], [RouteDelta::RemoveExact(_) | RouteDelta::RemoveWildcard(_)]);
        assert!(removed, "{deltas:?}");
    }
}

/// MQTT-4.7.2-1, MQTT-4.7.1-2, MQTT-4.7.3-1.
#[test]
fn wildcards_match_as_specified() {
    let mut router = router(0);
    for filter in ["#", "+/x", "a/#", "/+", "+/+", "$SYS/#", "+"] {
        subscribe(&mut router, 1, &plain(filter));
    }
    let found = |topic| {
        let mut out = Matches::default();
        router.matches(topic, &mut out);
        let mut names: Vec<_> = out.filters.iter().map(|id| router.name(*id)).collect();
        names.sort_unstable();
        names.join(" ")
    };
    assert_eq!(found("a"), "# + a/#");
    assert_eq!(found("a/x"), "# +/+ +/x a/#");
    assert_eq!(found("/x"), "# +/+ +/x /+");
    assert_eq!(found("$SYS"), "$SYS/#");
    assert_eq!(found("$SYS/x"), "$SYS/#");
    assert_eq!(found("/a/x"), "#");
}

#[test]
fn a_queue_is_a_group_of_its_own() {
    let mut router = router(0);
    let queue = Filter { prefix: "$queue/", text: "a".to_owned() };
    let shared = Filter { prefix: "$share/queue/", text: "a".to_owned() };
    let (queue_id, deltas) = subscribe(&mut router, 1, &queue);
    let (shared_id, _) = subscribe(&mut router, 1, &shared);
    assert_ne!(queue_id, shared_id);
    assert_eq!(router.name(queue_id), "$queue/a");
    assert_eq!(
        deltas,
        [RouteDelta::SharedMembers { group: "$queue".into(), filter: "a".into(), members: 1 }]
    );
    assert_eq!(router.group_find("$queue", "a"), router.group_of(queue_id));
}

/// A group with 3 members on shard 0, 1 on shard 1 and 2 on shard 2, seen by shard 0.
fn group() -> (Router, GroupId) {
    let mut router = router(0);
    let filter = Filter { prefix: "$share/g/", text: "a/+".to_owned() };
    for session in 0..3 {
        subscribe(&mut router, session, &filter);
    }
    for (shard, members) in [(1, 1), (2, 2)] {
        let (group, filter) = ("g".into(), "a/+".into());
        let delta = RouteDelta::SharedMembers { group, filter, members };
        router.apply(ShardId::new(shard), &delta);
    }
    let mut out = Matches::default();
    router.matches("a/b", &mut out);
    (router, out.groups[0].group)
}

fn pick(strategy: SharedStrategy, by: u64) -> PickInput {
    PickInput { topic_hash: by, publisher_hash: by, random: by, strategy }
}

/// How often each shard, and each of this shard's members, is chosen in 6,000 messages.
fn choices(strategy: SharedStrategy) -> ([u32; SHARDS], [u32; 3]) {
    let (mut router, group) = group();
    let (mut shards, mut sessions) = ([0; SHARDS], [0; 3]);
    for message in 0..6000 {
        let pick = pick(strategy, message);
        let Destination::Shard(shard) = router.group_pick(group, &pick).unwrap();
        shards[shard.index()] += 1;
        if shard.index() == 0 {
            let member = router.group_member("g", "a/+", &pick).unwrap();
            sessions[member.session.0 as usize] += 1;
        }
    }
    (shards, sessions)
}

#[test]
fn strategies_weigh_shards_by_their_members() {
    use SharedStrategy::{HashClientId, HashTopic, Local, Random, RoundRobin, Sticky};
    assert_eq!(choices(RoundRobin), ([3000, 1000, 2000], [1000; 3]));
    for strategy in [Random, HashClientId, HashTopic] {
        let (shards, sessions) = choices(strategy);
        let all = [shards[0] / 3, shards[1], shards[2] / 2].into_iter().chain(sessions);
        for count in all {
            assert!((900..1100).contains(&count), "{strategy:?} {shards:?} {sessions:?}");
        }
    }
    let (shards, sessions) = choices(Local);
    assert!(shards[0] == 6000 && sessions.iter().all(|count| *count > 1800), "{sessions:?}");
    let (shards, sessions) = choices(Sticky);
    assert!(shards.contains(&6000));
    assert!(shards[0] == 0 || sessions.contains(&6000));
}

#[test]
fn hashes_choose_the_same_again() {
    let (mut router, group) = group();
    for by in 0..50 {
        for strategy in [SharedStrategy::HashClientId, SharedStrategy::HashTopic] {
            let pick = pick(strategy, by);
            assert_eq!(router.group_pick(group, &pick), router.group_pick(group, &pick));
            let first = router.group_member("g", "a/+", &pick);
            assert_eq!(first, router.group_member("g", "a/+", &pick));
        }
    }
}

#[test]
fn dispatch_goes_on_with_those_not_tried() {
    let (mut router, group) = group();
    for strategy in SharedStrategy::ALL {
        let mut tried = ShardSet::default();
        let pick = pick(strategy, 5);
        for _ in 0..SHARDS {
            let Some(Destination::Shard(shard)) = router.group_pick_except(group, &pick, &tried)
            else {
                panic!("there are shards left");
            };
            assert!(tried.insert(shard));
        }
        assert_eq!(router.group_pick_except(group, &pick, &tried), None);
        let members = router.group_members_of(group, &pick);
        assert!(members.filter_id().is_some());
        assert_eq!(members.map(|one| one.session).collect::<BTreeSet<_>>().len(), 3);
    }
}

#[test]
fn a_sticky_member_stays_until_it_is_gone() {
    let (mut router, _) = group();
    let filter = router.find(&Filter { prefix: "$share/g/", text: "a/+".into() }.parsed()).unwrap();
    let strategy = SharedStrategy::Sticky;
    let first = router.group_member("g", "a/+", &pick(strategy, 1)).unwrap();
    for by in 2..20 {
        assert_eq!(router.group_member("g", "a/+", &pick(strategy, by)), Some(first));
    }
    router.unsubscribe(first.session, filter, &mut Vec::new());
    let second = router.group_member("g", "a/+", &pick(strategy, 1)).unwrap();
    assert_ne!(first, second);
    assert_eq!(router.group_member("g", "a/+", &pick(strategy, 9)), Some(second));
}

#[test]
fn names_of_strategies_lead_back() {
    for strategy in SharedStrategy::ALL {
        assert_eq!(SharedStrategy::from_name(strategy.name()), Some(strategy));
    }
    assert_eq!(SharedStrategy::from_name("none"), None);
}

/// 2^14 filters of `+` and `a` in all orders: a match visits each node once and ends.
#[test]
fn branching_is_bounded_by_the_nodes() {
    let mut router = router(0);
    let levels = 14;
    for bits in 0u32..1 << levels {
        let level = |n: u32| if bits >> n & 1 == 1 { "+" } else { "a" };
        let text = (0..levels).map(level).collect::<Vec<_>>().join("/");
        subscribe(&mut router, 1, &plain(&text));
    }
    let mut out = Matches::default();
    router.matches(&["a"; 14].join("/"), &mut out);
    assert_eq!(out.filters.len(), 1 << levels);
    let deep = ["+"; 128].join("/");
    subscribe(&mut router, 1, &plain(&deep));
    router.matches(&["a"; 128].join("/"), &mut out);
    assert_eq!(out.filters.len(), 1);
}

fn foreign(delta: &RouteDelta) {
    router(0).apply(ShardId::new(1), delta);
}

#[test]
#[should_panic(expected = "removes an exact route that it has not")]
fn removing_an_unknown_exact_route_is_a_fault() {
    foreign(&RouteDelta::RemoveExact(Fingerprint::from_bits(1)));
}

#[test]
#[should_panic(expected = "removes a wildcard route that it has not")]
fn removing_an_unknown_wildcard_route_is_a_fault() {
    foreign(&RouteDelta::RemoveWildcard("a/+".into()));
}

#[test]
#[should_panic(expected = "has 0 members in \"g\" on \"a\" already")]
fn leaving_an_unknown_group_is_a_fault() {
    foreign(&RouteDelta::SharedMembers { group: "g".into(), filter: "a".into(), members: 0 });
}

#[test]
#[should_panic(expected = "adds a wildcard route that it has")]
fn adding_a_route_twice_is_a_fault() {
    let mut router = router(0);
    for _ in 0..2 {
        router.apply(ShardId::new(1), &RouteDelta::AddWildcard("a/+".into()));
    }
}

#[test]
#[should_panic(expected = "shard 0 gets a route delta of shard 0")]
fn applying_an_own_delta_is_a_fault() {
    router(0).apply(ShardId::new(0), &RouteDelta::AddWildcard("a/+".into()));
}
