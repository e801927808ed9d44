//! Counts, and the listing of the node's routes.

use crate::filters::{Filter, FilterId, Kind};
use crate::router::Router;
use mqtt::{FilterKind, ParsedFilter, topic};
use ring::ShardSet;

/// Where a listing goes on. Routes that come and go between pages may be missed, never listed twice
/// by one shard unless they went and came again.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub struct RouteCursor(u32);

impl RouteCursor {
    /// The cursor with this number, as [`RouteCursor::raw`] gave it.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// A number to carry it elsewhere.
    pub const fn raw(self) -> u32 {
        self.0
    }
}

/// A distinct filter of the node and the shards that have subscribers of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// The filter, with its prefix if shared. `$local/f` and `f` are one route, listed as `f`.
    pub filter: String,
    /// The shards, the listing one among them.
    pub shards: ShardSet,
}

/// A page of a listing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RoutePage {
    /// The routes; fewer than asked for (none even) does not mean the end.
    pub routes: Vec<Route>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<RouteCursor>,
}

/// How much a router holds, entry by entry. All zero once nobody on the node is subscribed.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub struct Footprint {
    /// This shard's interned filters.
    pub filters: usize,
    /// Nodes of the trie, the root among them.
    pub trie_nodes: usize,
    /// Fingerprints of exact filters of other shards.
    pub remote_fingerprints: usize,
    /// Distinct sets of two and more shards.
    pub shard_sets: usize,
    /// Shared groups of the node.
    pub groups: usize,
}

/// Filters looked at for each route asked for, at most: bounds a page's time.
const LOOKS_PER_ROUTE: usize = 16;

impl Router {
    /// How many filters have subscribers on this shard, shared and `$local` ones counted apart.
    pub const fn filter_count(&self) -> usize {
        self.filters.len()
    }

    /// How many subscriptions there are on this shard.
    pub const fn subscription_count(&self) -> usize {
        self.subscriptions
    }

    /// Distinct routes of the whole node as this replica knows them: filters (`f` and `$local/f`
    /// are one) and shared groups. The same on every shard once all deltas are applied; kept at
    /// each change, so the call is free.
    pub const fn route_count(&self) -> usize {
        self.routes + self.groups.len()
    }

    /// How much this router holds.
    pub const fn footprint(&self) -> Footprint {
        Footprint {
            filters: self.filters.len(),
            trie_nodes: self.trie.len(),
            remote_fingerprints: self.remote.len(),
            shard_sets: self.sets.len(),
            groups: self.groups.len(),
        }
    }

    /// A page of this shard's share of the node's routes, at most `limit` of them. Each route is
    /// listed by the lowest shard that has it: the pages of all shards together are the node's.
    pub fn routes(&self, cursor: RouteCursor, limit: usize) -> RoutePage {
        let start = cursor.0 as usize;
        let looks_end = start.saturating_add(limit.saturating_mul(LOOKS_PER_ROUTE));
        let end = self.filters.used().min(looks_end);
        let mut page = RoutePage::default();
        let mut at = start;
        while at < end && page.routes.len() < limit {
            page.routes.extend(self.filters.at(at).and_then(|(id, filter)| self.route(id, filter)));
            at += 1;
        }
        if at < self.filters.used() {
            page.next = u32::try_from(at).ok().map(RouteCursor);
        }
        page
    }

    /// The route of a local filter, if it is this shard's to list.
    fn route(&self, id: FilterId, filter: &Filter) -> Option<Route> {
        let (name, mut shards) = match filter.kind() {
            Kind::Shared(group) => {
                let shares = self.groups[group].shares();
                (None, shares.map(|(shard, _)| shard).collect())
            }
            Kind::Local if self.find_own(filter.text.as_str(), Kind::Plain).is_some() => {
                return None;
            }
            Kind::Plain | Kind::Local => (Some(&filter.text), self.others(filter.text.as_str())),
        };
        shards.insert(self.id);
        if shards.iter().next() != Some(self.id) {
            return None;
        }
        let filter = name.map_or_else(|| self.name(id), |text| text.as_str().to_owned());
        Some(Route { filter, shards })
    }

    /// The shards of the node that have a subscriber at a filter, as this replica knows them.
    pub fn route_shards(&self, filter: &ParsedFilter<'_>) -> ShardSet {
        let mut shards = match filter.kind {
            FilterKind::Plain | FilterKind::Local => self.others(filter.filter),
            FilterKind::Shared { group } => self.shards_of_group(group, filter.filter),
            FilterKind::Queue => self.shards_of_group(crate::shared::QUEUE, filter.filter),
        };
        if self.find(filter).is_some() {
            shards.insert(self.id);
        }
        shards
    }

    fn shards_of_group(&self, group: &str, filter: &str) -> ShardSet {
        let id = self.group_find(group, filter);
        id.into_iter().flat_map(|id| self.group_shares(id)).map(|(shard, _)| shard).collect()
    }

    /// The other shards that have this filter.
    fn others(&self, text: &str) -> ShardSet {
        let mut shards = ShardSet::default();
        if topic::has_wildcard(text) {
            if let Some(node) = self.trie.find(text, &self.fingerprinter) {
                self.sets.add_to(self.trie[node].shards, &mut shards);
            }
        } else {
            self.remote.add_to(self.fingerprinter.of(text), &self.sets, &mut shards);
        }
        shards
    }
}
