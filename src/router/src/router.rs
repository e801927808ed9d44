//! One shard's routes: the facade over its tables.

use crate::SubOptions;
use crate::delta::RouteDelta;
use crate::exact::{LocalExact, RemoteExact};
use crate::filters::{Filter, FilterId, Filters, Kind};
use crate::fingerprint::{Fingerprint, Fingerprinter};
use crate::shard_sets::ShardSets;
use crate::shared::{GroupId, Groups, QUEUE};
use crate::subscribers::{Removed, SessionId, Subscriber, SubscriberSet};
use crate::trie::{Trie, Walk};
use mqtt::topic;
use mqtt::{FilterKind, ParsedFilter};
use ring::{SHARDS_MAX, ShardId, ShardSet};

/// One shard's subscribers, and its replica of the routes of the whole node.
///
/// Invariants: a filter is interned as long as it has a subscriber here; a route stands on the
/// other shards exactly as long as a filter of its fingerprint (or, with wildcards, of its trie
/// node) is interned here, plain or `$local`; a shared group stands as long as any shard has a
/// member.
pub struct Router {
    pub(crate) id: ShardId,
    pub(crate) shards: usize,
    pub(crate) fingerprinter: Fingerprinter,
    pub(crate) filters: Filters,
    pub(crate) exact: LocalExact,
    pub(crate) remote: RemoteExact,
    pub(crate) trie: Trie,
    pub(crate) groups: Groups,
    pub(crate) sets: ShardSets,
    pub(crate) subscriptions: usize,
    /// Distinct routes of the node, shared groups aside.
    pub(crate) routes: usize,
}

/// A shared group whose filter matches; its members may be on any shard.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct GroupMatch {
    /// The group, to be given to [`Router::group_pick`] before anything else changes.
    pub group: GroupId,
}

/// What a topic matches. Made once and used again: matching allocates nothing once it is warm.
#[derive(Default)]
pub struct Matches {
    /// This shard's filters that match, shared ones not among them, each once.
    pub filters: Vec<FilterId>,
    /// Other shards that want the message for filters that are not shared. One may be in by
    /// a collision of fingerprints; it then finds nobody.
    pub shards: ShardSet,
    /// The shared groups that match, each once.
    pub groups: Vec<GroupMatch>,
    fingerprint: u64,
    walk: Walk,
}

impl Matches {
    /// The seeded hash of the topic that was matched, for [`crate::PickInput::topic_hash`].
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether nobody wants the message.
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty() && self.groups.is_empty() && self.shards.is_empty()
    }

    fn clear(&mut self, fingerprint: Fingerprint) {
        self.filters.clear();
        self.shards = ShardSet::default();
        self.groups.clear();
        self.fingerprint = fingerprint.bits();
    }
}

/// A filter's identity as the tables know it.
enum Identity<'a> {
    Own(Kind),
    Shared(&'a str),
}

fn identity<'a>(filter: &ParsedFilter<'a>) -> Identity<'a> {
    match filter.kind {
        FilterKind::Plain => Identity::Own(Kind::Plain),
        FilterKind::Local => Identity::Own(Kind::Local),
        FilterKind::Shared { group } => Identity::Shared(group),
        FilterKind::Queue => Identity::Shared(QUEUE),
    }
}

impl Router {
    /// An empty router for shard `id` of a node of `shards` shards. `seed` is a random number drawn
    /// once per process: the same for all its shards, unknown to clients.
    ///
    /// # Panics
    /// When there are more shards than [`SHARDS_MAX`], or `id` is not one of them.
    pub fn new(id: ShardId, shards: usize, seed: u64) -> Self {
        assert!(shards <= SHARDS_MAX && id.index() < shards, "shard {id} is not one of {shards}");
        Self {
            id,
            shards,
            fingerprinter: Fingerprinter::new(seed),
            filters: Filters::default(),
            exact: LocalExact::default(),
            remote: RemoteExact::default(),
            trie: Trie::default(),
            groups: Groups::default(),
            sets: ShardSets::default(),
            subscriptions: 0,
            routes: 0,
        }
    }

    /// This shard.
    pub const fn id(&self) -> ShardId {
        self.id
    }

    /// Subscribes a session. A second subscription to the same filter (same kind, group and text)
    /// replaces the options: then the flag is false. What other shards must learn is added to
    /// `deltas`.
    pub fn subscribe(
        &mut self,
        session: SessionId,
        filter: &ParsedFilter<'_>,
        options: SubOptions,
        deltas: &mut Vec<RouteDelta>,
    ) -> (FilterId, bool) {
        let subscriber = Subscriber { session, options };
        let (id, new) = match self.find(filter) {
            Some(id) => (id, self.filters[id].subscribers.insert(subscriber)),
            None => (self.intern(filter, subscriber, deltas), true),
        };
        if new {
            self.subscriptions += 1;
            if let Kind::Shared(group) = self.filters[id].kind() {
                self.tell_members(group, deltas);
            }
        }
        (id, new)
    }

    /// Ends a subscription; false when there was none. With its last subscriber the filter goes,
    /// and its id may come back for another filter.
    ///
    /// # Panics
    /// When `filter` is not in use: only a session with a subscription to it may know it.
    pub fn unsubscribe(
        &mut self,
        session: SessionId,
        filter: FilterId,
        deltas: &mut Vec<RouteDelta>,
    ) -> bool {
        let kind = self.filters[filter].kind();
        let removed = self.filters[filter].subscribers.remove(session);
        match (removed, kind) {
            (Removed::Absent, _) => return false,
            (Removed::One, Kind::Shared(group)) => self.tell_members(group, deltas),
            (Removed::One, _) => {}
            (Removed::Last, Kind::Shared(group)) => {
                self.filters.remove(filter);
                self.groups[group].local = None;
                self.tell_members(group, deltas);
            }
            (Removed::Last, _) => self.forget(filter, deltas),
        }
        self.subscriptions -= 1;
        true
    }

    /// The filter's id, if it has a subscriber on this shard.
    pub fn find(&self, filter: &ParsedFilter<'_>) -> Option<FilterId> {
        match identity(filter) {
            Identity::Own(kind) => self.find_own(filter.filter, kind),
            Identity::Shared(group) => self.group_filter(self.group_find(group, filter.filter)?),
        }
    }

    pub(crate) fn find_own(&self, text: &str, kind: Kind) -> Option<FilterId> {
        let is =
            |id: &FilterId| self.filters[*id].kind() == kind && self.filters[*id].text == *text;
        if topic::has_wildcard(text) {
            let node = self.trie.find(text, &self.fingerprinter)?;
            self.chain(self.trie[node].local).find(is)
        } else {
            self.exact.candidates(self.fingerprinter.of(text)).find(is)
        }
    }

    /// The filters of one trie node.
    fn chain(&self, first: Option<FilterId>) -> impl Iterator<Item = FilterId> {
        std::iter::successors(first, |id| self.filters[*id].next())
    }

    /// Interns a filter with its first subscriber.
    fn intern(
        &mut self,
        filter: &ParsedFilter<'_>,
        first: Subscriber,
        deltas: &mut Vec<RouteDelta>,
    ) -> FilterId {
        let subscribers = SubscriberSet::One(first);
        let kind = match identity(filter) {
            Identity::Own(kind) => kind,
            Identity::Shared(name) => {
                let group = self.group_insert(name, filter.filter);
                let id = Filter::new("", Kind::Shared(group), subscribers);
                let id = self.filters.insert(id);
                self.groups[group].local = Some(id);
                return id;
            }
        };
        let mut entry = Filter::new(filter.filter, kind, subscribers);
        if !topic::has_wildcard(filter.filter) {
            let fingerprint = self.fingerprinter.of(filter.filter);
            let known = self.exact.has(fingerprint, &self.filters, &self.fingerprinter);
            let id = self.filters.insert(entry);
            self.exact.insert(fingerprint, id);
            if !known {
                self.routes += usize::from(self.remote.get(fingerprint).is_none());
                deltas.push(RouteDelta::AddExact(fingerprint));
            }
            return id;
        }
        let node = self.trie.insert(filter.filter, &self.fingerprinter);
        let node = &mut self.trie[node];
        self.routes += usize::from(!node.is_route());
        entry.set_next(node.local);
        if node.local.is_none() {
            deltas.push(RouteDelta::AddWildcard(filter.filter.into()));
        }
        let id = self.filters.insert(entry);
        node.local = Some(id);
        id
    }

    /// Takes out a filter that has no subscriber any more, shared ones aside.
    fn forget(&mut self, id: FilterId, deltas: &mut Vec<RouteDelta>) {
        let filter = self.filters.remove(id);
        let (text, next) = (filter.text.as_str(), filter.next());
        if !topic::has_wildcard(text) {
            let fingerprint = self.fingerprinter.of(text);
            self.exact.remove(fingerprint, id);
            if !self.exact.has(fingerprint, &self.filters, &self.fingerprinter) {
                self.routes -= usize::from(self.remote.get(fingerprint).is_none());
                deltas.push(RouteDelta::RemoveExact(fingerprint));
            }
            return;
        }
        let node_id = self.trie.find(text, &self.fingerprinter);
        let node_id = node_id.expect("an interned wildcard filter has its node");
        let node = &mut self.trie[node_id];
        if node.local == Some(id) {
            node.local = next;
        } else {
            let first = node.local;
            let before = self.chain(first).find(|other| self.filters[*other].next() == Some(id));
            let before = before.expect("an interned wildcard filter is listed at its node");
            self.filters[before].set_next(next);
        }
        let node = &self.trie[node_id];
        if node.local.is_none() {
            self.routes -= usize::from(!node.is_route());
            deltas.push(RouteDelta::RemoveWildcard(text.into()));
            self.trie.prune(node_id);
        }
    }

    /// The subscribers of a filter in use, in no meaningful order; at least one.
    ///
    /// # Panics
    /// When `filter` is not in use.
    #[inline]
    pub fn subscribers(&self, filter: FilterId) -> &[Subscriber] {
        self.filters[filter].subscribers.as_slice()
    }

    /// The subscription of one session to a filter in use, in constant time.
    ///
    /// # Panics
    /// When `filter` is not in use.
    #[inline]
    pub fn subscriber(&self, filter: FilterId, session: SessionId) -> Option<&Subscriber> {
        self.filters[filter].subscribers.get(session)
    }

    /// The text of a filter in use, without its prefix.
    ///
    /// # Panics
    /// When `filter` is not in use.
    pub fn filter(&self, filter: FilterId) -> &str {
        match self.filters[filter].kind() {
            Kind::Plain | Kind::Local => self.filters[filter].text.as_str(),
            Kind::Shared(group) => self.groups[group].filter(),
        }
    }

    /// The text of a filter in use, with its prefix as a client sends it.
    ///
    /// # Panics
    /// When `filter` is not in use.
    pub fn name(&self, filter: FilterId) -> String {
        match self.filters[filter].kind() {
            Kind::Plain => self.filter(filter).to_owned(),
            Kind::Local => ["$local/", self.filter(filter)].concat(),
            Kind::Shared(group) => self.group_name(group),
        }
    }

    /// The group of a shared filter in use; `None` for other filters.
    ///
    /// # Panics
    /// When `filter` is not in use.
    pub fn group_of(&self, filter: FilterId) -> Option<GroupId> {
        match self.filters[filter].kind() {
            Kind::Shared(group) => Some(group),
            Kind::Plain | Kind::Local => None,
        }
    }

    /// Whether a filter in use is a shared one (`$share/...`, `$queue/...`).
    ///
    /// # Panics
    /// When `filter` is not in use.
    pub fn is_shared(&self, filter: FilterId) -> bool {
        self.group_of(filter).is_some()
    }

    /// Finds all who want `topic`: this shard's filters, other shards, shared groups of the node.
    /// `topic` is a valid name, without wildcards.
    pub fn matches(&self, topic: &str, out: &mut Matches) {
        let fingerprint = self.fingerprinter.of(topic);
        out.clear(fingerprint);
        self.match_exact(topic, fingerprint, out);
        self.remote.add_to(fingerprint, &self.sets, &mut out.shards);
        if self.groups.has_exact() {
            let first = self.groups.on_topic(fingerprint);
            self.match_groups(first, out, |filter| filter == topic);
        }
        let mut walk = std::mem::take(&mut out.walk);
        self.trie.walk(topic, &self.fingerprinter, &mut walk, |node| {
            self.sets.add_to(node.shards, &mut out.shards);
            self.match_wildcards(topic, node.local, out);
            self.match_groups(node.groups, out, |filter| topic::matches(filter, topic));
        });
        out.walk = walk;
    }

    /// Finds this shard's own filters that match `topic`, shared ones aside: for a message that
    /// another shard has matched and sent here.
    pub fn match_local(&self, topic: &str, out: &mut Matches) {
        let fingerprint = self.fingerprinter.of(topic);
        out.clear(fingerprint);
        self.match_exact(topic, fingerprint, out);
        let mut walk = std::mem::take(&mut out.walk);
        self.trie.walk(topic, &self.fingerprinter, &mut walk, |node| {
            self.match_wildcards(topic, node.local, out);
        });
        out.walk = walk;
    }

    #[inline]
    fn match_exact(&self, topic: &str, fingerprint: Fingerprint, out: &mut Matches) {
        let candidates = self.exact.candidates(fingerprint);
        out.filters.extend(candidates.filter(|id| self.filters[*id].text == *topic));
    }

    #[inline]
    fn match_wildcards(&self, topic: &str, first: Option<FilterId>, out: &mut Matches) {
        let matching = |id: &FilterId| {
            topic::matches_bytes(self.filters[*id].text.as_bytes(), topic.as_bytes())
        };
        out.filters.extend(self.chain(first).filter(matching));
    }

    #[inline]
    fn match_groups(
        &self,
        first: Option<GroupId>,
        out: &mut Matches,
        matches: impl Fn(&str) -> bool,
    ) {
        let groups = std::iter::successors(first, |id| self.groups[*id].next);
        let groups = groups.filter(|id| matches(self.groups[*id].filter()));
        out.groups.extend(groups.map(|group| GroupMatch { group }));
    }

    /// Applies another shard's delta. Deltas of one shard come in the order in which it made them.
    ///
    /// # Panics
    /// When the delta is this shard's own, or contradicts those before it: a lost or repeated delta
    /// means lost messages, so the fault must not pass unseen.
    pub fn apply(&mut self, from: ShardId, delta: &RouteDelta) {
        let other = from != self.id && from.index() < self.shards;
        assert!(other, "shard {} gets a route delta of shard {from}", self.id);
        match delta {
            RouteDelta::AddExact(fingerprint) => self.add_exact(from, *fingerprint),
            RouteDelta::RemoveExact(fingerprint) => {
                self.remote.remove(*fingerprint, from, &mut self.sets);
                self.routes -= usize::from(!self.has_exact(*fingerprint));
            }
            RouteDelta::AddWildcard(filter) => {
                let node = self.trie.insert(filter, &self.fingerprinter);
                let node = &mut self.trie[node];
                self.routes += usize::from(!node.is_route());
                let new = self.sets.insert(&mut node.shards, from);
                assert!(new, "shard {from} adds a wildcard route that it has: {filter:?}");
            }
            RouteDelta::RemoveWildcard(filter) => {
                let node_id = self.trie.find(filter, &self.fingerprinter);
                let was =
                    node_id.is_some_and(|node| self.sets.remove(&mut self.trie[node].shards, from));
                assert!(was, "shard {from} removes a wildcard route that it has not: {filter:?}");
                let node_id = node_id.expect("it was there");
                self.routes -= usize::from(!self.trie[node_id].is_route());
                self.trie.prune(node_id);
            }
            RouteDelta::SharedMembers { group, filter, members } => {
                self.set_members(from, group, filter, *members);
            }
        }
    }

    fn add_exact(&mut self, from: ShardId, fingerprint: Fingerprint) {
        let known = self.has_exact(fingerprint);
        self.routes += usize::from(!known);
        self.remote.add(fingerprint, from, &mut self.sets);
    }

    /// Whether any shard of the node has a filter of this fingerprint.
    fn has_exact(&self, fingerprint: Fingerprint) -> bool {
        self.remote.get(fingerprint).is_some()
            || self.exact.has(fingerprint, &self.filters, &self.fingerprinter)
    }
}
