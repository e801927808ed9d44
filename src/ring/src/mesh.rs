//! All rings of a node: N x N, two lanes, and a bell per shard.
//!
//! Owns the memory between the shards. For each ordered pair of different shards there is one ring
//! per lane: `data` for batches of messages, `control` for what must pass even when the data lane
//! is full (route deltas, takeovers, acknowledgements). A shard's own diagonal has no ring. Within
//! one lane what a producer pushes arrives in its order; between lanes, and between producers,
//! there is no order.
//!
//! Each shard's thread owns one [`Endpoint`], which is every ring end of that shard. That, and
//! `&mut self`, is what makes each ring single-producer and single-consumer.
//!
//! # A consumer's turn
//! ```text
//! for from in endpoint.next_pending() { while endpoint.pop_control(from, ..) {..}  while endpoint.pop_data(from, ..) {..} }
//! ...work, pushes...
//! for shard in endpoint.take_doorbells() { ring it }
//! if endpoint.prepare_park() { sleep until a doorbell or other events }
//! endpoint.unpark()
//! ```
//! A lane stays pending until its pop has answered false, so a consumer may stop half-way and go
//! on in a later turn. [`Endpoint::prepare_park`] refuses while a lane is pending, while a
//! doorbell is due that was not taken, or while anything arrived.
//!
//! # A full ring
//! The item stays with the caller. The producer has left a mark in the ring; when the consumer has
//! emptied that lane it sets the producer's own bell. So a producer that keeps a batch may park: it
//! is woken when there is room, and finds the consumer in [`Endpoint::next_pending`] (with perhaps
//! nothing to pop). The mark is a second Dekker pair, as in [`crate::doorbell`]: the producer
//! sets it, fences, and tries once more; the consumer has moved the head, fences, and looks for it.
//!
//! # Memory
//! A pair costs 256 bytes of indices (128 each side writes), the two lanes' slots and 64 bytes
//! within the endpoints; a shard's bell 128 bytes. With slots of 64 bytes or less and
//! [`default_capacity`]:
//!
//! | shards | data, control slots per pair | total bytes |
//! | --- | --- | --- |
//! | 2 | 256, 64 | 41,856 |
//! | 16 | 64, 32 | 1,553,408 |
//! | 64 | 16, 16 | 9,555,968 |
//! | 256 | 4, 4 | 54,345,728 |
//!
//! Slots are not touched before their first use; of the last row 33.4 MB are slots. What the items
//! point to comes on top, and stays with the slots.

use crate::{
    doorbell::{Bells, Waker},
    shard_id::{SHARDS_MAX, ShardId},
    shard_set::ShardSet,
    spsc::{Full, Reader, RingRef, Slot, Writer, assert_capacity, drop_slots, empty_slots},
    sync::{Arc, AtomicBool, AtomicUsize, Ordering, Padded, fence},
};
use std::{cell::Cell, fmt, marker::PhantomData};

/// The lanes' places in a link's tables.
const DATA: usize = 0;
const CONTROL: usize = 1;
const LANES: usize = 2;

/// Slots per pair of shards, by lane. Powers of two.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Capacities {
    /// Slots of the data lane.
    pub data: usize,
    /// Slots of the control lane.
    pub control: usize,
}

/// Capacities that keep a mesh of `shards` shards bounded: the more shards, the less each of a
/// consumer's many producers has to say in one tick.
pub const fn default_capacity(shards: usize) -> Capacities {
    match shards {
        0..=4 => Capacities { data: 256, control: 64 },
        5..=16 => Capacities { data: 64, control: 32 },
        17..=64 => Capacities { data: 16, control: 16 },
        _ => Capacities { data: 4, control: 4 },
    }
}

/// Builds a node's [`Endpoint`]s.
pub struct Mesh;

impl Mesh {
    /// The endpoints of `shards` shards, in order of their ids: rings of `data_capacity` slots of
    /// `D` and `control_capacity` slots of `C`. See [`default_capacity`]; keep both types at 64
    /// bytes or less.
    ///
    /// # Panics
    /// When `shards` is 0 or above [`SHARDS_MAX`], or a capacity is no power of two.
    pub fn build<D: Default + Send, C: Default + Send>(
        shards: usize,
        data_capacity: usize,
        control_capacity: usize,
    ) -> Vec<Endpoint<D, C>> {
        assert!((1..=SHARDS_MAX).contains(&shards), "a node has 1 to SHARDS_MAX shards");
        assert_capacity(data_capacity);
        assert_capacity(control_capacity);
        let pairs = shards * (shards - 1);
        let rings = Arc::new(Rings {
            links: (0..pairs).map(|_| Link::default()).collect(),
            data: Lane { slots: empty_slots(pairs * data_capacity), capacity: data_capacity },
            control: Lane {
                slots: empty_slots(pairs * control_capacity),
                capacity: control_capacity,
            },
            shards,
        });
        let bells = Arc::new(Bells::new(shards));
        (0..shards)
            .map(|index| Endpoint {
                rings: Arc::clone(&rings),
                bells: Arc::clone(&bells),
                id: ShardId::new(index),
                writers: (0..shards).map(|_| Default::default()).collect(),
                readers: (0..shards).map(|_| Default::default()).collect(),
                pending: [ShardSet::EMPTY; LANES],
                due: ShardSet::EMPTY,
                foreign: false,
                not_sync: PhantomData,
            })
            .collect()
    }

    /// What [`Mesh::build`] with the same arguments reserves, in bytes, before the items' own
    /// buffers. The fixed 400 or so bytes of each endpoint are left out.
    pub const fn bytes<D, C>(
        shards: usize,
        data_capacity: usize,
        control_capacity: usize,
    ) -> usize {
        let pairs = shards * shards.saturating_sub(1);
        let ends = size_of::<[Writer; LANES]>() + size_of::<[Reader; LANES]>();
        let slots = data_capacity * size_of::<Slot<D>>() + control_capacity * size_of::<Slot<C>>();
        pairs * (size_of::<Link>() + slots + ends) + shards * Bells::BYTES_EACH
    }
}

/// The indices of one ordered pair's two rings, apart by who writes them.
#[derive(Default)]
struct Link {
    producer: Padded<ProducerLine>,
    consumer: Padded<ConsumerLine>,
}

#[derive(Default)]
struct ProducerLine {
    tail: [AtomicUsize; LANES],
    /// The producer met a full ring. The consumer clears it, rarely.
    wants_room: [AtomicBool; LANES],
}

#[derive(Default)]
struct ConsumerLine {
    head: [AtomicUsize; LANES],
}

/// One lane's slots of all pairs, in the order of the links.
struct Lane<T> {
    slots: Box<[Slot<T>]>,
    capacity: usize,
}

impl<T> Lane<T> {
    #[inline]
    fn of(&self, link: usize) -> &[Slot<T>] {
        &self.slots[link * self.capacity..][..self.capacity]
    }
}

/// All rings of the node.
struct Rings<D, C> {
    links: Box<[Link]>,
    data: Lane<D>,
    control: Lane<C>,
    shards: usize,
}

impl<D, C> Rings<D, C> {
    /// Where the pair is among the links.
    ///
    /// # Panics
    /// When a shard is not of this node, or both are the same: a shard has no ring to itself.
    #[inline]
    fn link(&self, from: ShardId, to: ShardId) -> usize {
        let (from, to) = (from.index(), to.index());
        assert!(from < self.shards && to < self.shards, "a shard outside this mesh");
        assert!(from != to, "a shard has no ring to itself: deliver locally");
        // The diagonal takes no place: behind it the row is shifted by one.
        from * (self.shards - 1) + to - usize::from(to > from)
    }

    #[inline]
    fn data(&self, link: usize) -> RingRef<'_, D> {
        self.links[link].ring(DATA, self.data.of(link))
    }

    #[inline]
    fn control(&self, link: usize) -> RingRef<'_, C> {
        self.links[link].ring(CONTROL, self.control.of(link))
    }
}

impl Link {
    #[inline]
    fn ring<'a, T>(&'a self, lane: usize, slots: &'a [Slot<T>]) -> RingRef<'a, T> {
        RingRef { tail: &self.producer.0.tail[lane], head: &self.consumer.0.head[lane], slots }
    }

    #[inline]
    fn wants_room(&self, lane: usize) -> &AtomicBool {
        &self.producer.0.wants_room[lane]
    }

    fn tail(&self, lane: usize) -> usize {
        self.producer.0.tail[lane].load(Ordering::Acquire)
    }
}

impl<D, C> Drop for Rings<D, C> {
    fn drop(&mut self) {
        for (index, link) in self.links.iter().enumerate() {
            // SAFETY: all endpoints are gone; each call gets one ring's slots and its tail.
            unsafe {
                drop_slots(self.data.of(index), link.tail(DATA));
                drop_slots(self.control.of(index), link.tail(CONTROL));
            }
        }
    }
}

/// One shard's ends of all its rings. Moves to the shard's thread; no two threads can use it.
pub struct Endpoint<D, C> {
    rings: Arc<Rings<D, C>>,
    bells: Arc<Bells>,
    id: ShardId,
    /// By the shard pushed to.
    writers: Box<[[Writer; LANES]]>,
    /// By the shard popped from.
    readers: Box<[[Reader; LANES]]>,
    /// By lane: producers whose bit was taken and whose lane was not seen empty since.
    pending: [ShardSet; LANES],
    /// Doorbells this shard must ring.
    due: ShardSet,
    /// The foreign flag was taken and not yet asked for.
    foreign: bool,
    not_sync: PhantomData<Cell<()>>,
}

impl<D: Default + Send, C: Default + Send> Endpoint<D, C> {
    /// The shard this endpoint is of.
    #[inline]
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// How many shards the mesh has.
    #[inline]
    pub fn shards(&self) -> usize {
        self.rings.shards
    }

    /// Pushes a batch to a shard: swaps it for an emptied one that has been round before, or a
    /// default one.
    ///
    /// # Errors
    /// [`Full`]: the batch stays with the caller, untouched. This shard is woken when `to` has
    /// emptied the lane.
    ///
    /// # Panics
    /// When `to` is this shard or not of this mesh.
    #[inline]
    pub fn push_data(&mut self, to: ShardId, item: &mut D) -> Result<(), Full> {
        let link = self.rings.link(self.id, to);
        let ring = self.rings.data(link);
        let wants_room = self.rings.links[link].wants_room(DATA);
        // SAFETY: this endpoint alone has the writers of its own row, one per ring.
        unsafe { push(&mut self.writers[to.index()][DATA], &ring, wants_room, item) }?;
        self.announce(to);
        Ok(())
    }

    /// Pushes to a shard on the control lane; otherwise as [`Endpoint::push_data`].
    ///
    /// # Errors
    /// [`Full`], as there.
    ///
    /// # Panics
    /// As there.
    #[inline]
    pub fn push_control(&mut self, to: ShardId, item: &mut C) -> Result<(), Full> {
        let link = self.rings.link(self.id, to);
        let ring = self.rings.control(link);
        let wants_room = self.rings.links[link].wants_room(CONTROL);
        // SAFETY: as in `push_data`.
        unsafe { push(&mut self.writers[to.index()][CONTROL], &ring, wants_room, item) }?;
        self.announce(to);
        Ok(())
    }

    /// The shards that have pushed something, on either lane, or have made room where this shard
    /// met a full ring. Pop from each on both lanes until false; a lane that was not emptied is
    /// named again.
    #[inline]
    pub fn next_pending(&mut self) -> ShardSet {
        let new = self.bells.of(self.id).take();
        for lane in &mut self.pending {
            *lane = lane.union(&new);
        }
        self.pending[DATA].union(&self.pending[CONTROL])
    }

    /// Pops the oldest batch of a shard by swapping it with `item`, which should be an emptied one:
    /// it travels back to that shard. False when there is none.
    ///
    /// # Panics
    /// When `from` is this shard or not of this mesh.
    #[inline]
    pub fn pop_data(&mut self, from: ShardId, item: &mut D) -> bool {
        let link = self.rings.link(from, self.id);
        let ring = self.rings.data(link);
        // SAFETY: this endpoint alone has the readers of its own column, one per ring.
        let popped = unsafe { self.readers[from.index()][DATA].pop(&ring, item) };
        if !popped {
            self.emptied(from, link, DATA);
        }
        popped
    }

    /// Pops from the control lane; otherwise as [`Endpoint::pop_data`].
    ///
    /// # Panics
    /// As there.
    #[inline]
    pub fn pop_control(&mut self, from: ShardId, item: &mut C) -> bool {
        let link = self.rings.link(from, self.id);
        let ring = self.rings.control(link);
        // SAFETY: as in `pop_data`.
        let popped = unsafe { self.readers[from.index()][CONTROL].pop(&ring, item) };
        if !popped {
            self.emptied(from, link, CONTROL);
        }
        popped
    }

    /// Says that this shard is not done with `from`, so that [`Endpoint::next_pending`] names it again.
    /// Needed only after both lanes were seen empty; otherwise it is named anyway.
    #[inline]
    pub fn keep_pending(&mut self, from: ShardId) {
        for lane in &mut self.pending {
            lane.insert(from);
        }
    }

    /// Whether a foreign thread has left something by a [`Waker`] since the last call. To call it is
    /// optional: who looks into its foreign channels after each [`Endpoint::unpark`] and each
    /// refused [`Endpoint::prepare_park`] misses nothing.
    #[inline]
    pub fn take_foreign(&mut self) -> bool {
        self.look_foreign();
        std::mem::take(&mut self.foreign)
    }

    /// The shards whose doorbell this shard must ring now. Until it does nobody else will: take
    /// and ring them after the pushes of each tick.
    #[inline]
    pub fn take_doorbells(&mut self) -> ShardSet {
        std::mem::take(&mut self.due)
    }

    /// Puts a doorbell back that could not be rung, so that [`Endpoint::take_doorbells`] names it
    /// again.
    pub fn ring_again(&mut self, shard: ShardId) {
        self.due.insert(shard);
    }

    /// Says that this shard is about to sleep. False: there is work (look into the foreign channels
    /// too), or a doorbell to ring; do not sleep. After true a doorbell comes when anything arrives
    /// (one at most), and it may sleep. A doorbell may also come, late, for a park that has ended
    /// otherwise.
    #[inline]
    #[must_use]
    pub fn prepare_park(&mut self) -> bool {
        self.prepare_park_for(self.pending.iter().all(ShardSet::is_empty))
    }

    /// The same for a shard that can take no data now: what is pending in data lanes is no reason to stay awake, and is
    /// named again by [`Endpoint::next_pending`] after the sleep. Something else has to wake it when it can take more.
    #[must_use]
    pub fn prepare_park_without_data(&mut self) -> bool {
        self.prepare_park_for(self.pending[CONTROL].is_empty())
    }

    #[inline]
    fn prepare_park_for(&mut self, nothing_pending: bool) -> bool {
        let quiet = self.due.is_empty() && nothing_pending && self.bells.of(self.id).prepare_park();
        if !quiet {
            // Taken here, because a caller that never asks for it would be refused for ever.
            self.look_foreign();
        }
        quiet
    }

    /// Says that this shard is awake, whatever woke it. Call it after each sleep, before the work:
    /// before looking into the foreign channels.
    #[inline]
    pub fn unpark(&mut self) {
        self.bells.of(self.id).unpark();
        self.look_foreign();
    }

    #[inline]
    fn look_foreign(&mut self) {
        self.foreign |= self.bells.of(self.id).take_foreign();
    }

    /// A waker of this shard for a thread that is no shard.
    pub fn waker(&self) -> Waker {
        Waker::new(Arc::clone(&self.bells), self.id)
    }

    /// Tells a shard that there is something from this one; notes the doorbell when it is due.
    #[inline]
    fn announce(&mut self, to: ShardId) {
        if self.bells.of(to).post(self.id) {
            self.due.insert(to);
        }
    }

    /// A lane was seen empty: it is pending no longer, and its producer may wait for room.
    #[inline]
    fn emptied(&mut self, from: ShardId, link: usize, lane: usize) {
        self.pending[lane].remove(from);
        // The heads stored before this fence are seen by a producer whose mark is not seen behind
        // it (module doc, "A full ring").
        fence(Ordering::SeqCst);
        let wants_room = self.rings.links[link].wants_room(lane);
        if wants_room.load(Ordering::Relaxed) && wants_room.swap(false, Ordering::Relaxed) {
            self.announce(from);
        }
    }
}

impl<D, C> fmt::Debug for Endpoint<D, C> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Endpoint")
            .field("id", &self.id)
            .field("pending", &self.pending)
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

/// Pushes; on a full ring leaves the mark and tries once more.
///
/// # Safety
/// As [`Writer::push`].
#[inline]
unsafe fn push<T: Default>(
    writer: &mut Writer,
    ring: &RingRef<'_, T>,
    wants_room: &AtomicBool,
    item: &mut T,
) -> Result<(), Full> {
    // SAFETY: passed on.
    let first = unsafe { writer.push(ring, item) };
    if first.is_ok() {
        return first;
    }
    wants_room.store(true, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    // A mark left behind by a second try that succeeds costs one spare wake-up, no more.
    // SAFETY: passed on.
    unsafe { writer.push(ring, item) }
}

#[cfg(all(test, not(loom)))]
mod tests;
