//! One ring with one producer and one consumer, whose slots are swapped.
//!
//! # The protocol
//! `tail` counts pushes and only the producer writes it; `head` counts pops and only the consumer
//! writes it. Slots `head..tail` (modulo the capacity, a power of two) belong to the consumer, all
//! others to the producer. A side hands slots over by a Release store of its own index, and takes
//! them by an Acquire load of the other's. Each side keeps the last value it saw of the other's
//! index and reads it anew only when that value says full or empty: while the ring is neither, a
//! push or pop touches no cache line the other side is writing, but the slot.
//!
//! # Swapped slots
//! `push` swaps the caller's item with the slot's value, `pop` swaps the slot's value with the
//! caller's. If the consumer pops into an emptied batch, the producer gets that very batch back
//! `capacity` pushes later, with its buffers: nothing is allocated once the ring has gone round.
//! In its first round a slot holds nothing; the push then leaves a default value with the caller.
//! So a ring's memory is not touched before it is used.
//!
//! The indices are 64 bits wide and never wrap. A slot takes whole cache lines of 64 bytes: keep
//! the items at 64 bytes or less (a few `Vec`s).

use crate::sync::{Arc, AtomicUsize, Ordering, Padded, UnsafeCell};
use std::{cell::Cell, fmt, marker::PhantomData, mem, mem::MaybeUninit};

// The "never wraps" above, and the first-round test in `Writer::push`, rest on this.
const _: () = assert!(size_of::<usize>() == 8, "this crate needs a 64-bit machine");

/// The ring is full; the item is still with the caller, unchanged.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the ring is full; keep the item and push it again after the consumer's turn")
    }
}

impl std::error::Error for Full {}

/// A slot on cache lines of its own, so that neighbouring slots of two rings share none.
#[repr(align(64))]
pub(crate) struct Slot<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: a slot is reached from two threads, but by the protocol above only ever by the one that
// owns it at that time; a T moves from one thread to the other, which `T: Send` allows. No `&T` is
// ever shared.
unsafe impl<T: Send> Sync for Slot<T> {}
// SAFETY: a slot is nothing but storage of T's.
unsafe impl<T: Send> Send for Slot<T> {}

/// `count` slots that hold nothing yet. Their memory is not touched.
#[cfg(not(loom))]
pub(crate) fn empty_slots<T>(count: usize) -> Box<[Slot<T>]> {
    let slots = Box::<[Slot<T>]>::new_uninit_slice(count);
    // SAFETY: a Slot is a MaybeUninit within transparent wrappers, which needs no initial value.
    unsafe { slots.assume_init() }
}

/// `count` slots that hold nothing yet.
#[cfg(loom)]
pub(crate) fn empty_slots<T>(count: usize) -> Box<[Slot<T>]> {
    (0..count).map(|_| Slot(UnsafeCell::new(MaybeUninit::uninit()))).collect()
}

/// Drops what the slots of one ring hold when `tail` items have been pushed in all.
///
/// # Safety
/// `slots` must be all slots of one ring, `tail` its tail, and nobody else may use the ring any
/// more, now or later.
pub(crate) unsafe fn drop_slots<T>(slots: &[Slot<T>], tail: usize) {
    for slot in &slots[..tail.min(slots.len())] {
        // SAFETY: the slots below `tail` have been written in the first round and hold a value
        // since; the caller says nobody else uses them.
        slot.0.with_mut(|value| unsafe { (*value).assume_init_drop() });
    }
}

/// A ring's shared parts, wherever they are stored.
pub(crate) struct RingRef<'a, T> {
    pub(crate) tail: &'a AtomicUsize,
    pub(crate) head: &'a AtomicUsize,
    pub(crate) slots: &'a [Slot<T>],
}

impl<T> RingRef<'_, T> {
    #[inline]
    fn slot(&self, position: usize) -> &Slot<T> {
        &self.slots[position & (self.slots.len() - 1)]
    }
}

/// The producer's own state of a ring.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    tail: usize,
    /// The last head seen: never ahead of the true one.
    head: usize,
}

impl Writer {
    /// Swaps `item` into the next slot.
    ///
    /// # Safety
    /// This must be the only `Writer` ever used with this ring, and new when the ring was.
    #[inline]
    pub(crate) unsafe fn push<T: Default>(
        &mut self,
        ring: &RingRef<'_, T>,
        item: &mut T,
    ) -> Result<(), Full> {
        if self.tail - self.head == ring.slots.len() {
            // Acquire: pairs with the Release in `pop`, which gave the slots back.
            self.head = ring.head.load(Ordering::Acquire);
            if self.tail - self.head == ring.slots.len() {
                return Err(Full);
            }
        }
        ring.slot(self.tail).0.with_mut(|slot| {
            // SAFETY: the slot is not in head..tail, so it is this side's until the store below;
            // there is one Writer, borrowed mutably.
            let slot = unsafe { &mut *slot };
            if self.tail < ring.slots.len() {
                slot.write(mem::take(item));
            } else {
                // SAFETY: written in the first round, and never left without a value since.
                mem::swap(unsafe { slot.assume_init_mut() }, item);
            }
        });
        self.tail += 1;
        // Release: the consumer that sees this tail sees the slot's new value.
        ring.tail.store(self.tail, Ordering::Release);
        Ok(())
    }
}

/// The consumer's own state of a ring.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    head: usize,
    /// The last tail seen: never ahead of the true one.
    tail: usize,
}

impl Reader {
    /// Swaps the oldest item with `item`; false when the ring is empty.
    ///
    /// # Safety
    /// This must be the only `Reader` ever used with this ring, and new when the ring was.
    #[inline]
    pub(crate) unsafe fn pop<T>(&mut self, ring: &RingRef<'_, T>, item: &mut T) -> bool {
        if self.head == self.tail {
            // Acquire: pairs with the Release in `push`, which handed the slots over.
            self.tail = ring.tail.load(Ordering::Acquire);
            if self.head == self.tail {
                return false;
            }
        }
        ring.slot(self.head).0.with_mut(|slot| {
            // SAFETY: the slot is in head..tail, so it is this side's until the store below, and it
            // holds a value; there is one Reader, borrowed mutably.
            mem::swap(unsafe { (*slot).assume_init_mut() }, item);
        });
        self.head += 1;
        // Release: the producer that sees this head sees what was swapped into the slot.
        ring.head.store(self.head, Ordering::Release);
        true
    }
}

/// The shared parts of a ring that stands alone.
struct Ring<T> {
    tail: Padded<AtomicUsize>,
    head: Padded<AtomicUsize>,
    slots: Box<[Slot<T>]>,
}

impl<T> Ring<T> {
    fn parts(&self) -> RingRef<'_, T> {
        RingRef { tail: &self.tail.0, head: &self.head.0, slots: &self.slots }
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let tail = self.tail.0.load(Ordering::Acquire);
        // SAFETY: both ends are gone, this is the whole ring and its tail.
        unsafe { drop_slots(&self.slots, tail) }
    }
}

/// Whether `capacity` can be a ring's.
///
/// # Panics
/// When it is no power of two.
pub(crate) fn assert_capacity(capacity: usize) {
    assert!(capacity.is_power_of_two(), "a ring's capacity must be a power of two");
}

/// A ring of `capacity` slots: its two ends.
///
/// # Panics
/// When `capacity` is no power of two.
pub fn channel<T: Default + Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    assert_capacity(capacity);
    let ring = Arc::new(Ring {
        tail: Padded(AtomicUsize::new(0)),
        head: Padded(AtomicUsize::new(0)),
        slots: empty_slots(capacity),
    });
    (
        Producer { ring: Arc::clone(&ring), writer: Writer::default(), not_sync: PhantomData },
        Consumer { ring, reader: Reader::default(), not_sync: PhantomData },
    )
}

/// The pushing end of a ring. Can move to a thread, cannot be shared by two.
pub struct Producer<T> {
    ring: Arc<Ring<T>>,
    writer: Writer,
    not_sync: PhantomData<Cell<()>>,
}

impl<T: Default> Producer<T> {
    /// Swaps `item` into the ring; the caller gets an emptied one that has been round before, or a
    /// default one.
    ///
    /// # Errors
    /// [`Full`]: the item stays with the caller, untouched.
    #[inline]
    pub fn push(&mut self, item: &mut T) -> Result<(), Full> {
        // SAFETY: `channel` made one Producer and so one Writer, with the ring.
        unsafe { self.writer.push(&self.ring.parts(), item) }
    }
}

/// The popping end of a ring. Can move to a thread, cannot be shared by two.
pub struct Consumer<T> {
    ring: Arc<Ring<T>>,
    reader: Reader,
    not_sync: PhantomData<Cell<()>>,
}

impl<T> Consumer<T> {
    /// Swaps the oldest item with `item`, which travels back to the producer; false when the ring is
    /// empty.
    #[inline]
    pub fn pop(&mut self, item: &mut T) -> bool {
        // SAFETY: `channel` made one Consumer and so one Reader, with the ring.
        unsafe { self.reader.pop(&self.ring.parts(), item) }
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Producer").field(&self.writer).finish()
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Consumer").field(&self.reader).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn fills_empties_and_goes_round() {
        let (mut producer, mut consumer) = channel::<u32>(4);
        let mut item = 0;
        assert!(!consumer.pop(&mut item));
        for round in 0..5 {
            for n in 0..4 {
                producer.push(&mut (round * 4 + n)).unwrap();
            }
            let mut kept = 99;
            assert_eq!(producer.push(&mut kept), Err(Full));
            assert_eq!(kept, 99);
            for n in 0..4 {
                assert!(consumer.pop(&mut item));
                assert_eq!(item, round * 4 + n);
            }
            assert!(!consumer.pop(&mut item));
        }
    }

    #[test]
    fn hands_back_what_the_consumer_put_in() {
        let (mut producer, mut consumer) = channel::<String>(2);
        let mut back = vec![];
        for n in 0..5 {
            let mut item = format!("out {n}");
            producer.push(&mut item).unwrap();
            back.push(item);
            let mut item = format!("back {n}");
            assert!(consumer.pop(&mut item));
            assert_eq!(item, format!("out {n}"));
        }
        assert_eq!(back, ["", "", "back 0", "back 1", "back 2"]);
        assert!(format!("{producer:?} {consumer:?}").starts_with("Producer"));
    }

    #[test]
    fn two_threads_keep_the_order_and_lose_nothing() {
        const ITEMS: u64 = 200_000;
        let (mut producer, mut consumer) = channel::<Vec<u64>>(8);
        let pushing = thread::spawn(move || {
            let mut batch = vec![];
            for n in 0..ITEMS {
                assert!(batch.is_empty());
                batch.push(n);
                while producer.push(&mut batch).is_err() {
                    assert_eq!(batch, [n]);
                    thread::yield_now();
                }
            }
        });
        let (mut next, mut batch) = (0, vec![]);
        while next < ITEMS {
            if consumer.pop(&mut batch) {
                assert_eq!(batch, [next]);
                next += 1;
                batch.clear();
            } else {
                thread::yield_now();
            }
        }
        pushing.join().unwrap();
        assert!(!consumer.pop(&mut batch));
    }

    #[test]
    #[should_panic(expected = "power of two")]
    fn a_capacity_of_zero_is_refused() {
        let _ = channel::<u8>(0);
    }
}
