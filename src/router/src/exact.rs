//! Filters without wildcards: never in the trie (`SEED-PUB-01`).
//!
//! This shard's own are found by fingerprint and then checked by text. Of other shards' only the
//! fingerprint is known: a collision costs a message that nobody there wants, never a wrong
//! delivery.

use crate::Fingerprint;
use crate::filters::{FilterId, Filters};
use crate::fingerprint::Fingerprinter;
use crate::shard_sets::{SetRef, ShardSets};
use crate::table::Table;
use crate::tags::Tags;
use ring::{ShardId, ShardSet};

/// This shard's own filters by fingerprint.
#[derive(Default)]
pub(crate) struct LocalExact(Tags<FilterId>);

impl LocalExact {
    /// The filters that may have this fingerprint; the caller checks the text.
    #[inline]
    pub(crate) fn candidates(&self, fingerprint: Fingerprint) -> impl Iterator<Item = FilterId> {
        self.0.candidates(fingerprint.bits())
    }

    /// Whether a filter has this fingerprint. The shard's route for it stands as long as one has,
    /// whichever texts they are.
    pub(crate) fn has(
        &self,
        fingerprint: Fingerprint,
        filters: &Filters,
        fingerprinter: &Fingerprinter,
    ) -> bool {
        self.candidates(fingerprint)
            .any(|filter| fingerprinter.of(filters[filter].text.as_bytes()) == fingerprint)
    }

    pub(crate) fn insert(&mut self, fingerprint: Fingerprint, filter: FilterId) {
        self.0.insert(fingerprint.bits(), filter);
    }

    /// Takes a filter out.
    ///
    /// # Panics
    /// When it is not in.
    pub(crate) fn remove(&mut self, fingerprint: Fingerprint, filter: FilterId) {
        self.0.remove(fingerprint.bits(), filter);
    }
}

/// An entry of [`RemoteExact`]. The fingerprint is cut in two so that no byte is padding.
#[derive(Copy, Clone)]
struct RemoteEntry {
    fingerprint: [u32; 2],
    set: SetRef,
}

const _: () = assert!(size_of::<Option<RemoteEntry>>() == 12);

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "both halves are kept")]
const fn halves(fingerprint: Fingerprint) -> [u32; 2] {
    [fingerprint.bits() as u32, (fingerprint.bits() >> 32) as u32]
}

fn rehash(entry: &RemoteEntry) -> u64 {
    u64::from(entry.fingerprint[0]) | u64::from(entry.fingerprint[1]) << 32
}

/// Which other shards want a fingerprint.
#[derive(Default)]
pub(crate) struct RemoteExact(Table<RemoteEntry>);

impl RemoteExact {
    /// How many fingerprints are known.
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// The shards that want it.
    #[inline]
    pub(crate) fn get(&self, fingerprint: Fingerprint) -> Option<SetRef> {
        let halves = halves(fingerprint);
        let entry = self.0.find(fingerprint.bits(), |entry| entry.fingerprint == halves);
        entry.map(|entry| entry.set)
    }

    /// Adds the shards that want it to `out`.
    #[inline]
    pub(crate) fn add_to(&self, fingerprint: Fingerprint, sets: &ShardSets, out: &mut ShardSet) {
        if let Some(set) = self.get(fingerprint) {
            sets.add_to(set, out);
        }
    }

    /// Notes that `shard` wants it.
    ///
    /// # Panics
    /// When it is noted already.
    pub(crate) fn add(&mut self, fingerprint: Fingerprint, shard: ShardId, sets: &mut ShardSets) {
        let halves = halves(fingerprint);
        let known = self.0.find_mut(fingerprint.bits(), |entry| entry.fingerprint == halves);
        if let Some(entry) = known {
            let new = sets.insert(&mut entry.set, shard);
            assert!(new, "shard {shard} adds an exact route that it has: deltas are out of order");
            return;
        }
        let mut set = SetRef::EMPTY;
        sets.insert(&mut set, shard);
        self.0.insert(fingerprint.bits(), RemoteEntry { fingerprint: halves, set }, rehash);
    }

    /// Notes that `shard` does not want it any more.
    ///
    /// # Panics
    /// When it never did.
    pub(crate) fn remove(
        &mut self,
        fingerprint: Fingerprint,
        shard: ShardId,
        sets: &mut ShardSets,
    ) {
        let halves = halves(fingerprint);
        let entry = self.0.find_mut(fingerprint.bits(), |entry| entry.fingerprint == halves);
        let set = entry.map(|entry| {
            let was = sets.remove(&mut entry.set, shard);
            (was, entry.set)
        });
        let Some((true, rest)) = set else {
            panic!("shard {shard} removes an exact route that it has not: deltas are out of order");
        };
        if rest.is_empty() {
            self.0.remove(fingerprint.bits(), |entry| entry.fingerprint == halves, rehash);
        }
    }
}
