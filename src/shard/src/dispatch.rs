//! Routing: from a publication to the subscribers of this shard, to other shards, to shared groups and to the
//! retained index (SEED-PUB-01..08).

use std::sync::Arc;

use metrics::{Counter, DropReason};
use mqtt::ReasonCode;
use ring::{ShardId, ShardSet};
use router::{Destination, FilterId, GroupId, PickInput, SubOptions, Subscriber, home, slot};
use session::{Message, Publication};
use xxhash_rust::xxh3::xxh3_64;

use crate::clients::{Clients, Delivered, Dispatch};
use crate::held::HeldSend;
use crate::mesh::{Mesh, Room, Target};
use crate::shard::Shard;

/// Which members of a shared group are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Members {
    /// Those whose client is connected.
    Connected,
    /// All: one that is away gets it queued.
    Any,
}

/// Where a publication went.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routed {
    /// Filters of this shard, other shards, and groups that wanted it.
    pub destinations: u32,
    /// A batch to another shard is full: whoever published has to wait.
    pub mesh_full: bool,
    /// Other shards that will say when they keep it.
    pub remote: ShardSet,
    /// The message, if there are such shards.
    pub message: Option<Arc<Message>>,
    /// When it is due, in milliseconds since the Unix epoch; 0 for one that is not delayed.
    pub due_unix_ms: u64,
    /// It went nowhere, for this reason.
    pub refused: Option<ReasonCode>,
    /// Where it is to go when it is kept here.
    pub held: Vec<HeldSend>,
}

impl Routed {
    /// What its publisher is told.
    pub fn reason(&self) -> ReasonCode {
        match self.refused {
            Some(reason) => reason,
            None if self.destinations > 0 => ReasonCode::Success,
            None => ReasonCode::NoMatchingSubscribers,
        }
    }
}

impl Shard {
    /// Routes a publication that entered the broker at this shard.
    pub(crate) fn route(&mut self, dispatch: &mut Dispatch<'_>) -> Routed {
        let publication = dispatch.publication;
        let mut matches = std::mem::take(&mut self.scratch.matches);
        self.router.matches(publication.topic, &mut matches);
        let mut routed = Routed::default();
        let destinations = matches.filters.len() + matches.shards.len() + matches.groups.len();
        routed.destinations = u32::try_from(destinations).unwrap_or(u32::MAX);
        self.deliver_to_filters(&matches.filters, dispatch);
        for to in matches.shards.iter() {
            routed.mesh_full |= self.send_to_shard(to, Target::Subscribers, dispatch) == Room::Full;
        }
        for group in &matches.groups {
            routed.mesh_full |= self.dispatch_to_group(group.group, dispatch) == Room::Full;
        }
        if publication.retain {
            self.replays.overtake(publication.topic, self.subacks.is_waiting());
            routed.mesh_full |= self.route_retained(dispatch) == Room::Full;
        }
        routed.remote = dispatch.remote;
        routed.held = dispatch.held.take().unwrap_or_default();
        if destinations == 0 && !publication.sys {
            self.clients.metrics.inc(Counter::MessagesNoSubscribers);
        }
        self.scratch.matches = matches;
        routed
    }

    /// Routes a publication to shared groups only.
    pub(crate) fn route_to_groups(&mut self, dispatch: &mut Dispatch<'_>) {
        let mut matches = std::mem::take(&mut self.scratch.matches);
        self.router.matches(dispatch.publication.topic, &mut matches);
        for group in &matches.groups {
            self.dispatch_to_group(group.group, dispatch);
        }
        self.scratch.matches = matches;
    }

    /// Routes a publication that another shard sent here for the subscribers of this one.
    pub(crate) fn route_local(&mut self, dispatch: &mut Dispatch<'_>) {
        let mut matches = std::mem::take(&mut self.scratch.matches);
        self.router.match_local(dispatch.publication.topic, &mut matches);
        self.deliver_to_filters(&matches.filters, dispatch);
        if dispatch.publication.retain {
            self.replays.overtake(dispatch.publication.topic, self.subacks.is_waiting());
        }
        self.scratch.matches = matches;
    }

    /// Adds a publication to the batch for another shard: inside it if it is small and of `QoS` 0, else by reference.
    fn send_to_shard(
        &mut self,
        to: ShardId,
        target: Target<'_>,
        dispatch: &mut Dispatch<'_>,
    ) -> Room {
        self.clients.metrics.inc(Counter::MessagesForwarded);
        if let Some(room) = self.mesh.send_inline(to, target, &dispatch.publication) {
            return room;
        }
        send_message(&mut self.clients, &mut self.mesh, to, target, dispatch)
    }

    fn deliver_to_filters(&mut self, filters: &[FilterId], dispatch: &mut Dispatch<'_>) {
        match *filters {
            [] => {}
            [filter] => self.deliver_to_filter(filter, dispatch),
            _ => self.deliver_overlapping(filters, dispatch),
        }
    }

    /// One filter matches: each of its subscribers is there once.
    fn deliver_to_filter(&mut self, filter: FilterId, dispatch: &mut Dispatch<'_>) {
        let Shard { router, clients, .. } = self;
        let subscribers = router.subscribers(filter);
        dispatch.expect_receivers(subscribers.len());
        for subscriber in subscribers {
            let id = [subscription_id(clients, filter, subscriber)];
            let ids = if id[0] == 0 { &[][..] } else { &id[..] };
            clients.deliver(subscriber.session, subscriber.options, ids, dispatch, false);
        }
    }

    /// Several filters match: a session that has more than one of them gets one copy, with the highest `QoS` and all
    /// subscription identifiers (SEED-PROTO-12, MQTT-3.3.4-2..4).
    fn deliver_overlapping(&mut self, filters: &[FilterId], dispatch: &mut Dispatch<'_>) {
        let mut all = std::mem::take(&mut self.scratch.overlapping);
        let mut ids = std::mem::take(&mut self.scratch.subscription_ids);
        all.clear();
        // Gathering and sorting is work too, whoever gets the message in the end.
        self.clients.work += filters.len();
        for &filter in filters {
            for subscriber in self.router.subscribers(filter) {
                all.push((*subscriber, subscription_id(&self.clients, filter, subscriber)));
            }
        }
        self.clients.work += all.len();
        all.sort_unstable_by_key(|(subscriber, _)| subscriber.session);
        dispatch.expect_receivers(all.len());
        for same in all.chunk_by(|(a, _), (b, _)| a.session == b.session) {
            let own = self.clients.origin(same[0].0.session) == dispatch.publication.origin;
            let wanted = |s: &&(Subscriber, u32)| !(own && s.0.options.no_local());
            ids.clear();
            ids.extend(same.iter().filter(wanted).map(|&(_, id)| id).filter(|&id| id != 0));
            if let Some(options) = merged_options(same.iter().filter(wanted)) {
                self.clients.deliver(same[0].0.session, options, &ids, dispatch, false);
            }
        }
        self.scratch.overlapping = all;
        self.scratch.subscription_ids = ids;
    }

    /// Gives a publication to one member of a shared group, on this shard or another. A shard of which no member is
    /// connected passes it on to the next one; the last queues it for a member that is away.
    pub(crate) fn dispatch_to_group(
        &mut self,
        group: GroupId,
        dispatch: &mut Dispatch<'_>,
    ) -> Room {
        let pick = self.pick_input(dispatch.publication);
        let Some(Destination::Shard(to)) = self.router.group_pick(group, &pick) else {
            return Room::Free;
        };
        let others = self.router.group_shares(group).filter(|&(shard, _)| shard != to).count();
        let hops = u16::try_from(others).expect("at most 256 shards");
        if to == self.id {
            self.deliver_or_pass_on(group, hops, &pick, dispatch)
        } else {
            self.send_to_group(to, group, hops, dispatch)
        }
    }

    fn send_to_group(
        &mut self,
        to: ShardId,
        group: GroupId,
        hops: u16,
        dispatch: &mut Dispatch<'_>,
    ) -> Room {
        let (group, filter) = self.router.group(group).expect("it was just looked up");
        let target = Target::Group { group, filter, hops };
        self.clients.metrics.inc(Counter::MessagesForwarded);
        if let Some(room) = self.mesh.send_inline(to, target, &dispatch.publication) {
            return room;
        }
        send_message(&mut self.clients, &mut self.mesh, to, target, dispatch)
    }

    fn deliver_or_pass_on(
        &mut self,
        group: GroupId,
        hops: u16,
        pick: &PickInput,
        dispatch: &mut Dispatch<'_>,
    ) -> Room {
        if self.deliver_to_members(group, pick, dispatch, Members::Connected) {
            return Room::Free;
        }
        let others = || self.router.group_shares(group).map(|(shard, _)| shard);
        let next = others().find(|&shard| shard > self.id).or_else(|| others().next());
        // Where it came from nobody can be paused for it: it does not go where there is no room, nor from a shard that ends.
        let may_pass = hops > 0 && self.shutdown.is_none();
        let passable = |&shard: &ShardId| shard != self.id && may_pass && !self.mesh.is_full(shard);
        if let Some(next) = next.filter(passable) {
            return self.send_to_group(next, group, hops - 1, dispatch);
        }
        if !self.deliver_to_members(group, pick, dispatch, Members::Any) {
            self.clients.count_drop(dispatch.publication.qos, DropReason::NoMember);
        }
        Room::Free
    }

    /// Gives a publication that another shard sent here to a member of the group. If the group is gone meanwhile it is
    /// dropped, and counted.
    pub(crate) fn deliver_to_group(
        &mut self,
        group: &str,
        filter: &str,
        hops: u16,
        dispatch: &mut Dispatch<'_>,
    ) {
        match self.router.group_find(group, filter) {
            Some(group) => {
                let pick = self.pick_input(dispatch.publication);
                self.deliver_or_pass_on(group, hops, &pick, dispatch);
            }
            None => self.clients.count_drop(dispatch.publication.qos, DropReason::NoMember),
        }
    }

    /// Tries this shard's members of a group, the picked one first, until one takes the message.
    fn deliver_to_members(
        &mut self,
        group: GroupId,
        pick: &PickInput,
        dispatch: &mut Dispatch<'_>,
        which: Members,
    ) -> bool {
        let Shard { router, clients, .. } = self;
        let mut members = router.group_members_of(group, pick);
        let Some(filter) = members.filter_id() else { return false };
        dispatch.shared = Some(filter);
        let taken = members.any(|member| {
            if which == Members::Connected && clients.connected(member.session).is_none() {
                return false;
            }
            let id = [subscription_id(clients, filter, &member)];
            let ids = if id[0] == 0 { &[][..] } else { &id[..] };
            let delivered = clients.deliver(member.session, member.options, ids, dispatch, false);
            delivered == Delivered::Taken
        });
        dispatch.shared = None;
        if !taken {
            // A group is asked more than once for a message that nobody takes at first: only one of these is a turn.
            router.give_turn_back(group, pick);
        }
        taken
    }

    fn pick_input(&mut self, publication: Publication<'_>) -> PickInput {
        let publisher = publication
            .origin
            .map_or(0, |origin| u64::from(origin.shard) << 32 | u64::from(origin.session));
        PickInput {
            topic_hash: xxh3_64(publication.topic.as_bytes()),
            publisher_hash: publisher.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            random: self.random.next(),
            strategy: self.shared_strategy,
        }
    }

    /// Takes a publication with RETAIN to the shard that keeps its topic (MQTT-3.3.1-5).
    fn route_retained(&mut self, dispatch: &mut Dispatch<'_>) -> Room {
        let keeper = home(slot(dispatch.publication.topic.as_bytes()), self.shards);
        if keeper == self.id {
            self.store_retained(dispatch);
            return Room::Free;
        }
        let target = Target::Retained { is_again: dispatch.is_again };
        send_message(&mut self.clients, &mut self.mesh, keeper, target, dispatch)
    }
}

/// Adds a message by reference to the batch for another shard, and counts it if that is to say when it keeps it; or notes
/// where it is to go, if it is held back.
pub(crate) fn send_message(
    clients: &mut Clients,
    mesh: &mut Mesh,
    to: ShardId,
    target: Target<'_>,
    dispatch: &mut Dispatch<'_>,
) -> Room {
    let counts = clients.barrier.counts(target, dispatch.publication.qos);
    if counts {
        dispatch.remote.insert(to);
    }
    if let Some(held) = &mut dispatch.held
        && let Some(send) = HeldSend::new(to, target)
    {
        held.push(send);
        return if mesh.is_full(to) { Room::Full } else { Room::Free };
    }
    if counts {
        clients.barrier.sent(to);
    }
    let now = clients.now;
    mesh.send_shared(to, target, dispatch.message(&mut clients.message_ids, now).clone())
}

/// The identifier of a session's subscription to a filter; 0 for none.
fn subscription_id(clients: &Clients, filter: FilterId, subscriber: &Subscriber) -> u32 {
    if !subscriber.options.has_subscription_id() {
        return 0;
    }
    let session = clients.sessions.session(subscriber.session.0);
    let subscription = session.and_then(|session| session.subscriptions.get(filter));
    subscription.and_then(session::Subscription::id).map_or(0, std::num::NonZeroU32::get)
}

/// The options of one copy for several overlapping subscriptions: the highest `QoS`; RETAIN as published if any asks for
/// it. `None` if there is none: a subscription with No Local does not count for what its own client published.
fn merged_options<'a>(same: impl Iterator<Item = &'a (Subscriber, u32)>) -> Option<SubOptions> {
    same.map(|(subscriber, _)| subscriber.options).reduce(|merged, options| {
        let as_published = merged.retain_as_published() || options.retain_as_published();
        SubOptions::new(merged.qos().max(options.qos())).with_retain_as_published(as_published)
    })
}
