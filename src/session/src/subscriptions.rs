//! The subscriptions of one session. The router knows a filter's subscribers; this knows a session's filters.

use std::num::NonZeroU32;

use mqtt::SubscribeOptions;
use router::FilterId;
use smallvec::SmallVec;

/// One subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// The filter, interned in this shard's router.
    pub filter: FilterId,
    /// The identifier the client gave (MQTT-3.8.2.1.2), 0 for none.
    id: u32,
    /// `SubscribeOptions` in the bits of the specification.
    options: u8,
}

impl Subscription {
    /// Puts a subscription together.
    #[must_use]
    pub fn new(filter: FilterId, options: SubscribeOptions, id: Option<NonZeroU32>) -> Self {
        Self { filter, id: id.map_or(0, NonZeroU32::get), options: options.to_bits() }
    }

    /// The subscription identifier.
    #[must_use]
    pub fn id(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.id)
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> SubscribeOptions {
        SubscribeOptions::from_bits(self.options).expect("made by to_bits")
    }
}

/// The subscriptions, sorted by filter. Most clients have one: it is kept in place, without an allocation.
#[derive(Debug, Default)]
pub struct Subscriptions {
    list: SmallVec<[Subscription; 1]>,
}

impl Subscriptions {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All, in the order of their filter ids.
    pub fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.list.iter()
    }

    /// The subscription to a filter.
    #[must_use]
    pub fn get(&self, filter: FilterId) -> Option<&Subscription> {
        self.list.binary_search_by_key(&filter, |s| s.filter).ok().map(|n| &self.list[n])
    }

    /// Adds a subscription or replaces the one to the same filter (MQTT-3.8.4-3).
    pub fn insert(&mut self, subscription: Subscription) {
        match self.list.binary_search_by_key(&subscription.filter, |s| s.filter) {
            Ok(position) => self.list[position] = subscription,
            Err(position) => self.list.insert(position, subscription),
        }
    }

    /// Removes the subscription to a filter.
    pub fn remove(&mut self, filter: FilterId) -> Option<Subscription> {
        let position = self.list.binary_search_by_key(&filter, |s| s.filter).ok()?;
        let gone = self.list.remove(position);
        if self.list.len() <= 1 {
            self.list.shrink_to_fit();
        }
        Some(gone)
    }

    /// Takes all out.
    pub fn take(&mut self) -> impl Iterator<Item = Subscription> + use<> {
        std::mem::take(&mut self.list).into_iter()
    }
}
