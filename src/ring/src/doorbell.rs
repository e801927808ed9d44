//! How a consumer that sleeps is woken: a bitmap of who has pushed, a parked flag, a doorbell.
//!
//! # The protocol
//! A producer, after its push: (1) sets its bit in the consumer's bitmap, (2) fence, (3) reads the
//! parked flag; when it is set it tries to clear it, and who succeeds must ring the doorbell.
//! A consumer, before it sleeps: (1) sets the parked flag, (2) fence, (3) reads the bitmap; when a
//! bit is set it clears the flag and does not sleep.
//!
//! # Why the fences
//! Each side writes one word and then reads the other's word. Without a fence a processor (x86
//! included: the write waits in the store buffer while the read goes ahead) and the memory model
//! allow both reads to see the old values: the producer sees "not parked" and does not ring, the
//! consumer sees "nothing pending" and sleeps, and the item waits for ever. Acquire and Release
//! do not forbid this, they never order a write before a later read. A `SeqCst` fence on both sides
//! does: one of the two fences is first in the one order all threads agree on, and what was written
//! before it is seen by every read behind the other. So the producer sees the flag, or the
//! consumer sees the bit, or both (then the doorbell is rung for a consumer that is awake, which
//! costs it one empty turn).
//!
//! # At most once per park
//! The flag is cleared by compare-and-swap, so of all producers that see it set one succeeds. The
//! others need not ring: the one that does wakes the consumer for all, because their bits are set.
//! The price is a duty: **who was told to ring must ring, and soon**; until then nobody else does.
//! A ring that failed goes back by [`Endpoint::ring_again`](crate::Endpoint::ring_again).
//!
//! # Taking the bits
//! The consumer swaps a word of the bitmap for zero (Acquire) and pops afterwards. A push that it
//! misses sets its bit after the swap and so is found at the next look.

use crate::{
    shard_id::ShardId,
    shard_set::{ShardSet, WORDS, place},
    sync::{Arc, AtomicBool, AtomicU64, Ordering, Padded, fence},
};

/// One consumer's bitmap, foreign flag and parked flag.
///
/// All on one cache line: a producer needs the bitmap and the parked flag in one go.
#[derive(Debug, Default)]
pub struct Bell {
    pending: [AtomicU64; WORDS],
    /// A thread that is no shard has left something, by ways of its own.
    foreign: AtomicBool,
    parked: AtomicBool,
}

impl Bell {
    /// A bell nobody has rung, of a consumer that is awake.
    pub fn new() -> Self {
        Self::default()
    }

    /// Producer: says that `from` has pushed. Call it after the push. True: the doorbell is due and
    /// the caller must ring it.
    #[inline]
    #[must_use]
    pub fn post(&self, from: ShardId) -> bool {
        let (word, bit) = place(from);
        // Release: who takes the bit sees the push.
        self.pending[word].fetch_or(bit, Ordering::Release);
        self.claim()
    }

    /// Foreign thread: says that it has left something for the consumer. Call it after leaving it.
    /// True: the doorbell is due and the caller must ring it.
    #[inline]
    #[must_use]
    pub fn post_foreign(&self) -> bool {
        // A swap and not a store: a store would end the release sequence of another thread's post,
        // and the consumer that takes the flag could miss what that other thread left.
        self.foreign.swap(true, Ordering::AcqRel);
        self.claim()
    }

    /// Consumer: takes the bits of who has pushed since the last call.
    #[inline]
    pub fn take(&self) -> ShardSet {
        let mut set = ShardSet::EMPTY;
        for (index, word) in self.pending.iter().enumerate() {
            // A look first: the swap takes the line away from the producers even when it is zero.
            if word.load(Ordering::Relaxed) != 0 {
                set.insert_word(index, word.swap(0, Ordering::Acquire));
            }
        }
        set
    }

    /// Consumer: whether a foreign thread has left something since the last call.
    #[inline]
    pub fn take_foreign(&self) -> bool {
        self.foreign.load(Ordering::Relaxed) && self.foreign.swap(false, Ordering::Acquire)
    }

    /// Consumer: says that it is about to sleep. False: there is something to take, do not sleep
    /// (the consumer counts as awake again). After true, the consumer may sleep until the doorbell.
    #[inline]
    #[must_use]
    pub fn prepare_park(&self) -> bool {
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let quiet = self.pending.iter().all(|word| word.load(Ordering::Relaxed) == 0)
            && !self.foreign.load(Ordering::Relaxed);
        if !quiet {
            self.unpark();
        }
        quiet
    }

    /// Consumer: says that it is awake, whatever woke it.
    #[inline]
    pub fn unpark(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// The producer's half behind its write: whether the caller must ring.
    #[inline]
    fn claim(&self) -> bool {
        fence(Ordering::SeqCst);
        self.parked.load(Ordering::Relaxed)
            && self
                .parked
                .compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// The bells of all shards.
#[derive(Debug)]
pub(crate) struct Bells(Box<[Padded<Bell>]>);

impl Bells {
    /// What one shard's bell takes, in bytes.
    pub(crate) const BYTES_EACH: usize = size_of::<Padded<Bell>>();

    pub(crate) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| Padded(Bell::new())).collect())
    }

    #[inline]
    pub(crate) fn of(&self, shard: ShardId) -> &Bell {
        &self.0[shard.index()].0
    }
}

/// The doorbell's protocol for a thread that is no shard (the control plane): it leaves a command
/// in a channel of its own, asks [`Waker::needs_doorbell`], and rings when told to.
#[derive(Clone, Debug)]
pub struct Waker {
    bells: Arc<Bells>,
    shard: ShardId,
}

impl Waker {
    pub(crate) fn new(bells: Arc<Bells>, shard: ShardId) -> Self {
        Self { bells, shard }
    }

    /// The shard this waker is for.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Says that something was left for the shard, which finds it by
    /// [`Endpoint::take_foreign`](crate::Endpoint::take_foreign). True: the shard is parked and the
    /// caller must ring its doorbell now. Call it after leaving the thing, each time.
    #[inline]
    #[must_use]
    pub fn needs_doorbell(&self) -> bool {
        self.bells.of(self.shard).post_foreign()
    }
}
