//! What a reactor counts of its own. One writer per shard; anyone may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// Things a reactor counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum ReactorCounter {
    /// Ticks.
    Ticks,
    /// Connections accepted into the table.
    Accepted,
    /// Accepts refused because the descriptor table, or the process, was full.
    AcceptTableFull,
    /// Accepts that failed otherwise.
    AcceptFailed,
    /// Connections that had to wait before they were let in.
    AcceptWaited,
    /// Connections closed because too many of their source prefix waited to be let in.
    AcceptQueueFull,
    /// Connections closed because they had waited too long to be let in.
    AcceptLate,
    /// Connections whose client had gone when it was their turn.
    AcceptLeft,
    /// Receives that ended because all buffers were in use; they are armed again.
    ReceiveNoBuffers,
    /// Times a connection had used up its share of a tick.
    ReceiveShareUsed,
    /// Receives of TLS handshakes that found others waiting for their tick.
    HandshakesQueued,
    /// Ends of receives that had to wait for a later tick.
    EndsPutOff,
    /// Sends the kernel cut short; they were continued.
    SendsContinued,
    /// Ticks that began with completions waiting outside the completion queue.
    CompletionOverflows,
    /// Doorbells that could not be delivered at once.
    DoorbellsFailed,
    /// Descriptors passed to other shards.
    HandOversSent,
    /// Descriptors that could not be passed.
    HandOversFailed,
    /// Closing connections that did not take their last bytes, or did not close their side, in time.
    LingerTimeouts,
    /// Rings added because the descriptor tables were nearly full.
    RingsAdded,
    /// Connections this side opened.
    Connected,
    /// Connections this side could not open.
    ConnectsFailed,
    /// Connections that ended because of what their PROXY header, TLS or WebSocket was.
    FilterErrors,
}

impl ReactorCounter {
    /// All of them, in order.
    pub const ALL: [Self; 22] = [
        Self::Ticks,
        Self::Accepted,
        Self::AcceptTableFull,
        Self::AcceptFailed,
        Self::AcceptWaited,
        Self::AcceptQueueFull,
        Self::AcceptLate,
        Self::AcceptLeft,
        Self::ReceiveNoBuffers,
        Self::ReceiveShareUsed,
        Self::HandshakesQueued,
        Self::EndsPutOff,
        Self::SendsContinued,
        Self::CompletionOverflows,
        Self::DoorbellsFailed,
        Self::HandOversSent,
        Self::HandOversFailed,
        Self::LingerTimeouts,
        Self::RingsAdded,
        Self::Connected,
        Self::ConnectsFailed,
        Self::FilterErrors,
    ];

    /// The counter's name among the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ticks => "reactor/ticks",
            Self::Accepted => "reactor/accepted",
            Self::AcceptTableFull => "reactor/accept_enfile",
            Self::AcceptFailed => "reactor/accept_failed",
            Self::AcceptWaited => "reactor/accept_waited",
            Self::AcceptQueueFull => "reactor/accept_queue_full",
            Self::AcceptLate => "reactor/accept_late",
            Self::AcceptLeft => "reactor/accept_left",
            Self::ReceiveNoBuffers => "reactor/receive_enobufs",
            Self::ReceiveShareUsed => "reactor/receive_share_used",
            Self::HandshakesQueued => "reactor/handshakes_queued",
            Self::EndsPutOff => "reactor/ends_put_off",
            Self::SendsContinued => "reactor/sends_continued",
            Self::CompletionOverflows => "reactor/completion_overflows",
            Self::DoorbellsFailed => "reactor/doorbells_failed",
            Self::HandOversSent => "reactor/handovers_sent",
            Self::HandOversFailed => "reactor/handovers_failed",
            Self::LingerTimeouts => "reactor/linger_timeouts",
            Self::RingsAdded => "reactor/rings_added",
            Self::Connected => "reactor/connected",
            Self::ConnectsFailed => "reactor/connects_failed",
            Self::FilterErrors => "reactor/filter_errors",
        }
    }
}

/// One shard's counters, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ReactorCounters {
    counts: [AtomicU64; ReactorCounter::ALL.len()],
}

impl ReactorCounters {
    /// Adds; only the shard's own thread may.
    #[inline]
    pub(crate) fn add(&self, counter: ReactorCounter, n: u64) {
        // There is one writer, so a load and a store add.
        let count = &self.counts[counter as usize];
        count.store(count.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// A counter's value.
    #[must_use]
    pub fn get(&self, counter: ReactorCounter) -> u64 {
        self.counts[counter as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_in_order_of_their_numbers() {
        for (place, counter) in ReactorCounter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, place);
        }
    }
}
