//! What a session knows of its messages' copies in the store.

use std::num::NonZeroU64;

use crate::message::MessageId;

/// The place of a message in its session's stored queue. Increases from message to message of a session; the lowest bit says
/// how the message is kept: in the entry itself (0), or once for all entries that have it (1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredPlace(NonZeroU64);

impl StoredPlace {
    /// The place with this number, which is at least 1 and below 2^63.
    #[must_use]
    pub fn new(number: u64, is_shared: bool) -> Self {
        assert!(number > 0 && number < 1 << 63, "places are numbered from 1");
        Self(NonZeroU64::new(number << 1 | u64::from(is_shared)).expect("at least 2"))
    }

    /// The place as it is written: number and kind.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0.get()
    }

    /// Reads what [`Self::to_bits`] gave; `None` for what it never gives.
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).filter(|bits| bits.get() > 1).map(Self)
    }

    /// Its number; no other message of any session has it.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0.get() >> 1
    }

    /// Whether the message is kept once for all entries that have it.
    #[must_use]
    pub fn is_shared(self) -> bool {
        self.0.get() & 1 == 1
    }
}

/// A message that a session is done with, as the store knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Its place.
    pub place: StoredPlace,
    /// The message, if this place used it so far.
    pub message: Option<MessageId>,
}

/// How many messages of a session are in the store, while they are nowhere else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredCounts {
    /// Messages that wait in the queue.
    pub queued: u32,
    /// Messages sent and not acknowledged.
    pub inflight: u16,
    /// Received `QoS` 2 messages not released.
    pub awaiting_rel: u16,
}
