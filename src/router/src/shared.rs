//! Shared groups: the members per shard of each (group, filter), and the choice among them.
//!
//! `$queue/f` is the group `$queue` on `f`; so is `$share/$queue/f`: the two are one subscription
//! (`SEED-PUB-06`, `SEED-PROTO-26`). A group exists as long as a shard has a member.

use crate::Fingerprint;
use crate::delta::RouteDelta;
use crate::filters::FilterId;
use crate::fingerprint::{Fingerprinter, mix};
use crate::slab::{Index, Slab};
use crate::subscribers::{SessionId, Subscriber, SubscriberSet};
use crate::table::Table;
use crate::tags::Tags;
use ring::{ShardId, ShardSet};
use smallvec::SmallVec;

/// The group of `$queue/...` filters.
pub(crate) const QUEUE: &str = "$queue";

/// The index of a shared group in a shard's replica; another shard numbers it differently.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct GroupId(pub(crate) Index);

impl std::fmt::Debug for GroupId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "GroupId({})", self.0.number())
    }
}

/// Where a message goes.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Destination {
    /// A shard of this node; it may be the asking one.
    Shard(ShardId),
}

/// How a shared group chooses the member that gets a message.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub enum SharedStrategy {
    /// Any member.
    #[default]
    Random,
    /// One after the other, counted by each publishing shard.
    RoundRobin,
    /// Always the same member for a publishing shard, until it is gone.
    Sticky,
    /// By the publisher: the same member as long as the members stay.
    HashClientId,
    /// By the topic: the same member as long as the members stay.
    HashTopic,
    /// Any member on the publisher's shard; any other when there is none.
    Local,
}

impl SharedStrategy {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Random,
        Self::RoundRobin,
        Self::Sticky,
        Self::HashClientId,
        Self::HashTopic,
        Self::Local,
    ];

    /// Its name in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "round_robin",
            Self::Sticky => "sticky",
            Self::HashClientId => "hash_clientid",
            Self::HashTopic => "hash_topic",
            Self::Local => "local",
        }
    }

    /// The strategy of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.name() == name)
    }
}

/// What a choice is made by.
#[derive(Copy, Clone, Debug)]
pub struct PickInput {
    /// A hash of the topic; the fingerprint of [`crate::Matches::fingerprint`] is one.
    pub topic_hash: u64,
    /// A hash of the publisher's client id.
    pub publisher_hash: u64,
    /// A random number, fresh for this message.
    pub random: u64,
    /// How to choose.
    pub strategy: SharedStrategy,
}

/// A shard and how many members it has.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
struct Share {
    shard: ShardId,
    members: u32,
}

/// A shared group on one filter.
pub(crate) struct Group {
    /// The group's name, a slash, the filter. A group's name has no slash.
    text: Box<str>,
    name_len: u16,
    hash: u64,
    /// By shard, in ascending order, none with zero members.
    shares: SmallVec<[Share; 2]>,
    /// This shard's members, as subscribers of a filter.
    pub(crate) local: Option<FilterId>,
    previous: Option<GroupId>,
    /// The next group on the same filter (or one of colliding fingerprint).
    pub(crate) next: Option<GroupId>,
    turn_of_shards: u32,
    turn_of_members: u32,
    sticky_shard: Option<ShardId>,
    sticky_session: Option<SessionId>,
}

impl Group {
    pub(crate) fn name(&self) -> &str {
        &self.text[..usize::from(self.name_len)]
    }

    pub(crate) fn filter(&self) -> &str {
        &self.text[usize::from(self.name_len) + 1..]
    }

    /// The shards that have members, in ascending order, with their number.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (ShardId, u32)> {
        self.shares.iter().map(|share| (share.shard, share.members))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    fn members_at(&self, shard: ShardId) -> u32 {
        self.shares.iter().find(|share| share.shard == shard).map_or(0, |share| share.members)
    }

    /// Sets a shard's number of members; false when it had that number before.
    fn set_members(&mut self, shard: ShardId, members: u32) -> bool {
        match self.shares.binary_search_by_key(&shard, |share| share.shard) {
            Ok(at) if self.shares[at].members == members => return false,
            Ok(at) if members == 0 => {
                self.shares.remove(at);
            }
            Ok(at) => self.shares[at].members = members,
            Err(_) if members == 0 => return false,
            Err(at) => self.shares.insert(at, Share { shard, members }),
        }
        true
    }

    /// Chooses a shard among those not in `tried`, each by the weight of its members.
    pub(crate) fn pick_shard(
        &mut self,
        own: ShardId,
        pick: &PickInput,
        tried: &ShardSet,
    ) -> Option<ShardId> {
        let open = |share: &&Share| !tried.contains(share.shard);
        let total: u64 = self.shares.iter().filter(open).map(|one| u64::from(one.members)).sum();
        if total == 0 {
            return None;
        }
        let wanted = match pick.strategy {
            SharedStrategy::Local => Some(own),
            SharedStrategy::Sticky => self.sticky_shard,
            _ => None,
        };
        if let Some(shard) = wanted
            && !tried.contains(shard)
            && self.members_at(shard) > 0
        {
            return Some(shard);
        }
        let mut place = place(pick, total, &mut self.turn_of_shards, 1);
        let chosen = self.shares.iter().filter(open).find(|share| {
            let members = u64::from(share.members);
            let found = place < members;
            place = place.saturating_sub(members);
            found
        });
        let chosen = chosen.map(|share| share.shard);
        if pick.strategy == SharedStrategy::Sticky {
            self.sticky_shard = chosen;
        }
        chosen
    }

    /// Chooses the place of a member in this shard's list.
    pub(crate) fn pick_member(&mut self, pick: &PickInput, members: &SubscriberSet) -> usize {
        if pick.strategy == SharedStrategy::Sticky
            && let Some(session) = self.sticky_session
            && let Some(at) = members.position(session)
        {
            return at;
        }
        let members = members.as_slice();
        let place = place(pick, members.len() as u64, &mut self.turn_of_members, 2);
        let at = usize::try_from(place).expect("a place in the list");
        if pick.strategy == SharedStrategy::Sticky {
            self.sticky_session = members.get(at).map(|member| member.session);
        }
        at
    }

    pub(crate) const fn give_turn_back(&mut self) {
        self.turn_of_members = self.turn_of_members.wrapping_sub(1);
    }
}

/// A number below `count` by the strategy. `salt` keeps the choices of shard and of member apart:
/// one hash used twice would always give the same member of a shard.
fn place(pick: &PickInput, count: u64, turn: &mut u32, salt: u64) -> u64 {
    let by = match pick.strategy {
        SharedStrategy::RoundRobin => {
            let place = u64::from(*turn) % count;
            *turn = turn.wrapping_add(1);
            return place;
        }
        SharedStrategy::HashClientId => pick.publisher_hash,
        SharedStrategy::HashTopic => pick.topic_hash,
        SharedStrategy::Random | SharedStrategy::Sticky | SharedStrategy::Local => pick.random,
    };
    u64::try_from((u128::from(mix(by, salt)) * u128::from(count)) >> 64).expect("below the count")
}

/// The members of a group on this shard, beginning with the chosen one: who dispatches takes the
/// first and goes on to the next when that one is gone or cannot take the message.
#[derive(Clone, Debug)]
pub struct GroupMembers<'a> {
    filter: Option<FilterId>,
    before: &'a [Subscriber],
    after: &'a [Subscriber],
}

impl<'a> GroupMembers<'a> {
    pub(crate) const NONE: Self = Self { filter: None, before: &[], after: &[] };

    pub(crate) fn new(filter: FilterId, members: &'a [Subscriber], first: usize) -> Self {
        let (before, after) = members.split_at(first);
        Self { filter: Some(filter), before, after }
    }

    /// The group's filter as the members' subscriptions know it; `None` without local members.
    pub const fn filter_id(&self) -> Option<FilterId> {
        self.filter
    }
}

impl Iterator for GroupMembers<'_> {
    type Item = Subscriber;

    fn next(&mut self) -> Option<Subscriber> {
        if self.after.is_empty() {
            self.after = std::mem::take(&mut self.before);
        }
        let (first, rest) = self.after.split_first()?;
        self.after = rest;
        Some(*first)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.before.len() + self.after.len();
        (len, Some(len))
    }
}

impl ExactSizeIterator for GroupMembers<'_> {}

/// The head of the list of groups on one filter without wildcard.
#[derive(Copy, Clone)]
struct Head {
    fingerprint: Fingerprint,
    first: GroupId,
}

/// All shared groups of the node.
#[derive(Default)]
pub(crate) struct Groups {
    groups: Slab<Group>,
    by_identity: Tags<GroupId>,
    by_topic: Table<Head>,
}

impl Groups {
    pub(crate) const fn len(&self) -> usize {
        self.groups.len()
    }

    pub(crate) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id.0)
    }

    /// Whether there are groups on filters without wildcard.
    #[inline]
    pub(crate) const fn has_exact(&self) -> bool {
        !self.by_topic.is_empty()
    }

    fn hash(name: &str, filter: &str, fingerprinter: &Fingerprinter) -> u64 {
        mix(fingerprinter.of(name).bits(), fingerprinter.of(filter).bits())
    }

    pub(crate) fn find(
        &self,
        name: &str,
        filter: &str,
        fingerprinter: &Fingerprinter,
    ) -> Option<GroupId> {
        let is = |id: &GroupId| self[*id].name() == name && self[*id].filter() == filter;
        self.by_identity.candidates(Self::hash(name, filter, fingerprinter)).find(is)
    }

    /// The group, made if there is none: then true, and the caller links it.
    pub(crate) fn find_or_insert(
        &mut self,
        name: &str,
        filter: &str,
        fingerprinter: &Fingerprinter,
    ) -> (GroupId, bool) {
        if let Some(id) = self.find(name, filter, fingerprinter) {
            return (id, false);
        }
        assert!(!name.contains('/'), "a shared group's name has no slash");
        let hash = Self::hash(name, filter, fingerprinter);
        let id = GroupId(self.groups.insert(Group {
            text: [name, "/", filter].concat().into_boxed_str(),
            name_len: u16::try_from(name.len()).expect("a group's name is part of a filter"),
            hash,
            shares: SmallVec::new(),
            local: None,
            previous: None,
            next: None,
            turn_of_shards: 0,
            turn_of_members: 0,
            sticky_shard: None,
            sticky_session: None,
        }));
        self.by_identity.insert(hash, id);
        (id, true)
    }

    /// Sets the members of `shard`; false when that changes nothing.
    pub(crate) fn set_members(&mut self, id: GroupId, shard: ShardId, members: u32) -> bool {
        self[id].set_members(shard, members)
    }

    /// Takes a group out that has been unlinked.
    pub(crate) fn remove(&mut self, id: GroupId) {
        self.by_identity.remove(self[id].hash, id);
        self.groups.remove(id.0);
    }

    /// The groups on the filter without wildcard that has this fingerprint; the caller checks
    /// texts.
    #[inline]
    pub(crate) fn on_topic(&self, fingerprint: Fingerprint) -> Option<GroupId> {
        let is = |head: &Head| head.fingerprint == fingerprint;
        self.by_topic.find(fingerprint.bits(), is).map(|head| head.first)
    }

    /// Links a group to the filter without wildcard that has this fingerprint.
    pub(crate) fn link_exact(&mut self, id: GroupId, fingerprint: Fingerprint) {
        let is = |head: &Head| head.fingerprint == fingerprint;
        if let Some(head) = self.by_topic.find_mut(fingerprint.bits(), is) {
            let second = std::mem::replace(&mut head.first, id);
            self.link_before(id, Some(second));
        } else {
            let head = Head { fingerprint, first: id };
            self.by_topic.insert(fingerprint.bits(), head, |head| head.fingerprint.bits());
        }
    }

    /// Undoes [`Groups::link_exact`].
    pub(crate) fn unlink_exact(&mut self, id: GroupId, fingerprint: Fingerprint) {
        let was_first = self.on_topic(fingerprint) == Some(id);
        let second = self.unlink(id);
        if !was_first {
            return;
        }
        let is = |head: &Head| head.fingerprint == fingerprint;
        match second {
            Some(first) => {
                let head = self.by_topic.find_mut(fingerprint.bits(), is);
                head.expect("the list has this head").first = first;
            }
            None => {
                let hasher = |head: &Head| head.fingerprint.bits();
                self.by_topic.remove(fingerprint.bits(), is, hasher);
            }
        }
    }

    /// Puts a group before the first of a list; the caller makes it the list's head.
    pub(crate) fn link_before(&mut self, id: GroupId, first: Option<GroupId>) {
        self[id].next = first;
        if let Some(first) = first {
            self[first].previous = Some(id);
        }
    }

    /// Takes a group out of its list; returns what follows it.
    pub(crate) fn unlink(&mut self, id: GroupId) -> Option<GroupId> {
        let (previous, next) = (self[id].previous.take(), self[id].next.take());
        if let Some(previous) = previous {
            self[previous].next = next;
        }
        if let Some(next) = next {
            self[next].previous = previous;
        }
        next
    }

    /// The delta that tells a shard's number of members.
    pub(crate) fn delta(&self, id: GroupId, shard: ShardId) -> RouteDelta {
        let group = &self[id];
        RouteDelta::SharedMembers {
            group: group.name().into(),
            filter: group.filter().into(),
            members: group.members_at(shard),
        }
    }
}

impl std::ops::Index<GroupId> for Groups {
    type Output = Group;

    fn index(&self, id: GroupId) -> &Group {
        &self.groups[id.0]
    }
}

impl std::ops::IndexMut<GroupId> for Groups {
    fn index_mut(&mut self, id: GroupId) -> &mut Group {
        &mut self.groups[id.0]
    }
}
