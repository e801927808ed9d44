//! The interned filters of this shard: each text once, with its subscribers.

use crate::shared::GroupId;
use crate::slab::{Index, Slab};
use crate::subscribers::SubscriberSet;
use crate::text::Text;

/// The index of an interned filter in its shard: stable while the filter has a subscriber, reused
/// afterwards.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct FilterId(pub(crate) Index);

impl FilterId {
    /// Its number, from 0: filters are packed, so it may index a table.
    #[inline]
    pub const fn index(self) -> usize {
        self.0.number() as usize
    }
}

impl std::fmt::Debug for FilterId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "FilterId({})", self.index())
    }
}

/// What a filter is, beside its text.
#[derive(Copy, Clone, Eq, PartialEq)]
pub(crate) enum Kind {
    Plain,
    /// `$local/...`: matches like a plain one, but is a subscription of its own (`SEED-PUB-05`).
    Local,
    /// The text is the group's, not kept here.
    Shared(GroupId),
}

/// One interned filter: one cache line, its subscriber included if there is one only.
#[repr(align(64))]
pub(crate) struct Filter {
    /// Without prefix; empty for a shared one.
    pub(crate) text: Text,
    pub(crate) subscribers: SubscriberSet,
    role: Role,
}

/// A [`Kind`], and where the list of a trie node's filters goes on.
enum Role {
    Plain(Option<FilterId>),
    Local(Option<FilterId>),
    Shared(GroupId),
}

const _: () = assert!(size_of::<Option<Filter>>() == 64);

impl Filter {
    pub(crate) fn new(text: &str, kind: Kind, subscribers: SubscriberSet) -> Self {
        let role = match kind {
            Kind::Plain => Role::Plain(None),
            Kind::Local => Role::Local(None),
            Kind::Shared(group) => Role::Shared(group),
        };
        Self { text: Text::new(text), subscribers, role }
    }

    #[inline]
    pub(crate) const fn kind(&self) -> Kind {
        match self.role {
            Role::Plain(_) => Kind::Plain,
            Role::Local(_) => Kind::Local,
            Role::Shared(group) => Kind::Shared(group),
        }
    }

    /// The next filter at the same trie node; wildcard filters only.
    #[inline]
    pub(crate) const fn next(&self) -> Option<FilterId> {
        match self.role {
            Role::Plain(next) | Role::Local(next) => next,
            Role::Shared(_) => None,
        }
    }

    /// Sets what [`Filter::next`] gives; a shared filter has none.
    pub(crate) fn set_next(&mut self, id: Option<FilterId>) {
        match &mut self.role {
            Role::Plain(next) | Role::Local(next) => *next = id,
            Role::Shared(_) => unreachable!("a shared filter is listed by its group"),
        }
    }
}

/// The filters of a shard.
#[derive(Default)]
pub(crate) struct Filters(Slab<Filter>);

impl Filters {
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn insert(&mut self, filter: Filter) -> FilterId {
        FilterId(self.0.insert(filter))
    }

    pub(crate) fn remove(&mut self, id: FilterId) -> Filter {
        self.0.remove(id.0)
    }

    /// One above the highest index in use.
    pub(crate) const fn used(&self) -> usize {
        self.0.used()
    }

    /// The filter with this index, if it is in use.
    pub(crate) fn at(&self, index: usize) -> Option<(FilterId, &Filter)> {
        let index = Index::new(index);
        self.0.get(index).map(|filter| (FilterId(index), filter))
    }
}

impl std::ops::Index<FilterId> for Filters {
    type Output = Filter;

    #[inline]
    fn index(&self, id: FilterId) -> &Filter {
        &self.0[id.0]
    }
}

impl std::ops::IndexMut<FilterId> for Filters {
    #[inline]
    fn index_mut(&mut self, id: FilterId) -> &mut Filter {
        &mut self.0[id.0]
    }
}
