//! The router's dealings with shared groups.

use crate::delta::RouteDelta;
use crate::filters::FilterId;
use crate::router::Router;
use crate::shared::{Destination, GroupId, GroupMembers, PickInput, QUEUE, SharedStrategy};
use crate::subscribers::Subscriber;
use mqtt::topic;
use ring::{ShardId, ShardSet};

impl Router {
    /// The group on this filter (without prefix); `$queue` is the group of `$queue/...` filters.
    pub fn group_find(&self, group: &str, filter: &str) -> Option<GroupId> {
        self.groups.find(group, filter, &self.fingerprinter)
    }

    /// The name and the filter of a group; `None` when it is gone.
    pub fn group(&self, group: GroupId) -> Option<(&str, &str)> {
        self.groups.get(group).map(|group| (group.name(), group.filter()))
    }

    /// The filter by which this shard's members of a group are subscribed; `None` without members
    /// here.
    pub fn group_filter(&self, group: GroupId) -> Option<FilterId> {
        self.groups.get(group)?.local
    }

    /// The shards with members of a group, in ascending order, and how many each has.
    pub fn group_shares(&self, group: GroupId) -> impl Iterator<Item = (ShardId, u32)> {
        self.groups.get(group).into_iter().flat_map(|group| group.shares())
    }

    /// Chooses the shard that gets a message for a group, weighted by members; `None` when the
    /// group is gone.
    pub fn group_pick(&mut self, group: GroupId, pick: &PickInput) -> Option<Destination> {
        self.group_pick_except(group, pick, &ShardSet::default())
    }

    /// As [`Router::group_pick`] without the shards in `tried`, to dispatch again what those could
    /// not take.
    pub fn group_pick_except(
        &mut self,
        group: GroupId,
        pick: &PickInput,
        tried: &ShardSet,
    ) -> Option<Destination> {
        self.groups.get(group)?;
        let shard = self.groups[group].pick_shard(self.id, pick, tried);
        shard.map(Destination::Shard)
    }

    /// Chooses the member on this shard that gets a message for a group.
    pub fn group_member(
        &mut self,
        group: &str,
        filter: &str,
        pick: &PickInput,
    ) -> Option<Subscriber> {
        self.group_members(group, filter, pick).next()
    }

    /// This shard's members of a group, the chosen one first, each once; none when the group is
    /// gone.
    pub fn group_members(
        &mut self,
        group: &str,
        filter: &str,
        pick: &PickInput,
    ) -> GroupMembers<'_> {
        match self.group_find(group, filter) {
            Some(group) => self.group_members_of(group, pick),
            None => GroupMembers::NONE,
        }
    }

    /// As [`Router::group_members`] for a group just matched.
    pub fn group_members_of(&mut self, group: GroupId, pick: &PickInput) -> GroupMembers<'_> {
        let Some(filter) = self.group_filter(group) else { return GroupMembers::NONE };
        let members = &self.filters[filter].subscribers;
        let first = self.groups[group].pick_member(pick, members);
        GroupMembers::new(filter, members.as_slice(), first)
    }

    /// No member took the message for which this shard's members of a group were chosen: it was nobody's turn.
    pub fn give_turn_back(&mut self, group: GroupId, pick: &PickInput) {
        if pick.strategy == SharedStrategy::RoundRobin {
            self.groups[group].give_turn_back();
        }
    }

    /// The group's filter with its prefix.
    pub(crate) fn group_name(&self, group: GroupId) -> String {
        let group = &self.groups[group];
        match group.name() {
            QUEUE => ["$queue/", group.filter()].concat(),
            name => ["$share/", name, "/", group.filter()].concat(),
        }
    }

    /// The group, made and linked to its filter if there is none.
    pub(crate) fn group_insert(&mut self, name: &str, filter: &str) -> GroupId {
        let (id, new) = self.groups.find_or_insert(name, filter, &self.fingerprinter);
        if new && topic::has_wildcard(filter) {
            let node = self.trie.insert(filter, &self.fingerprinter);
            self.groups.link_before(id, self.trie[node].groups);
            self.trie[node].groups = Some(id);
        } else if new {
            self.groups.link_exact(id, self.fingerprinter.of(filter));
        }
        id
    }

    /// Unlinks and removes a group without members.
    fn group_remove(&mut self, id: GroupId) {
        let filter = self.groups[id].filter();
        if topic::has_wildcard(filter) {
            let node = self.trie.find(filter, &self.fingerprinter);
            let node = node.expect("a group on a wildcard filter has its node");
            let next = self.groups.unlink(id);
            if self.trie[node].groups == Some(id) {
                self.trie[node].groups = next;
            }
            self.trie.prune(node);
        } else {
            let fingerprint = self.fingerprinter.of(filter);
            self.groups.unlink_exact(id, fingerprint);
        }
        self.groups.remove(id);
    }

    /// Counts this shard's members of a group anew and tells the others.
    pub(crate) fn tell_members(&mut self, group: GroupId, deltas: &mut Vec<RouteDelta>) {
        let local = self.groups[group].local;
        let members = local.map_or(0, |filter| self.subscribers(filter).len());
        let members = u32::try_from(members).expect("session indices have 32 bits");
        self.groups.set_members(group, self.id, members);
        deltas.push(self.groups.delta(group, self.id));
        if self.groups[group].is_empty() {
            self.group_remove(group);
        }
    }

    /// Sets another shard's members of a group.
    pub(crate) fn set_members(&mut self, from: ShardId, group: &str, filter: &str, members: u32) {
        let id = if members > 0 {
            Some(self.group_insert(group, filter))
        } else {
            self.group_find(group, filter)
        };
        let changed = id.is_some_and(|id| self.groups.set_members(id, from, members));
        assert!(changed, "shard {from} has {members} members in {group:?} on {filter:?} already");
        let id = id.expect("it has changed");
        if self.groups[id].is_empty() {
            self.group_remove(id);
        }
    }
}
