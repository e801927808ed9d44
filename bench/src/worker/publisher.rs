//! When a publisher may send its next message, and when it was to send it.

use crate::wire::{Stamp, Template};

/// Bytes a publisher may have in its outbox before it waits for the kernel.
const OUTBOX_MAX: usize = 128 * 1024;

/// One publisher of a worker.
pub struct Publisher {
    /// Its client's index in the worker.
    pub client: usize,
    /// Its number in the run.
    pub number: u32,
    /// It waits in the worker's list of publishers to look at.
    pub is_awake: bool,
    /// Messages handed to the outbox.
    pub sent: u64,
    /// Messages whose intended time has come (paced only).
    pub due: u64,
    /// QoS 1 and 2: sent, not yet acknowledged to the end.
    pub unacknowledged: u64,
    template: Template,
    packet_id: u16,
}

/// When the messages of one worker are to be sent: evenly, its publishers in turn.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// When message 0 is due.
    pub start_ns: u64,
    /// Messages per second of this worker.
    pub rate: f64,
    /// Publishers of this worker.
    pub publishers: u64,
}

impl Pace {
    /// When the worker's message `index` is due.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts stay far below 2^53 and the offset is never negative"
    )]
    pub fn due_ns(&self, index: u64) -> u64 {
        self.start_ns + (index as f64 * 1e9 / self.rate) as u64
    }
}

/// What bounds a publisher.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// It sends what is due, as long as fewer than `window` messages are unacknowledged.
    Paced {
        /// The schedule.
        pace: Pace,
        /// Its place in the schedule's turn.
        turn: u64,
        /// Most messages without acknowledgement.
        window: u64,
    },
    /// It sends as long as fewer than `window` messages are on their way.
    Flat {
        /// Its messages that have reached all subscribers.
        arrived: u64,
        /// Most messages on their way.
        window: u64,
        /// The time all of them are stamped with.
        now_ns: u64,
    },
}

impl Publisher {
    /// A publisher that has sent nothing.
    pub fn new(client: usize, number: u32, template: Template) -> Publisher {
        Publisher {
            client,
            number,
            is_awake: false,
            sent: 0,
            due: 0,
            unacknowledged: 0,
            template,
            packet_id: 0,
        }
    }

    /// Appends every message that `limit` allows to `outbox` and returns how many. `acknowledged`: QoS is above 0.
    pub fn fill(&mut self, outbox: &mut Vec<u8>, limit: Limit, acknowledged: bool) -> u64 {
        let room = (OUTBOX_MAX.saturating_sub(outbox.len())).div_ceil(self.template.len());
        let room = u64::try_from(room).unwrap_or(u64::MAX);
        let allowed = match limit {
            Limit::Paced { window, .. } => {
                (self.due - self.sent).min(window.saturating_sub(self.unacknowledged))
            }
            Limit::Flat { arrived, window, .. } => {
                let acks = window.saturating_sub(self.unacknowledged);
                let open = (arrived + window).saturating_sub(self.sent).min(acks);
                // A publisher that is flat out writes in bulk: answering every single arrival with one message would
                // measure the generator's system calls.
                if open >= (window / 4).max(1) { open } else { 0 }
            }
        };
        let count = allowed.min(room);
        for _ in 0..count {
            let intended_ns = match limit {
                Limit::Paced { pace, turn, .. } => pace.due_ns(self.sent * pace.publishers + turn),
                Limit::Flat { now_ns, .. } => now_ns,
            };
            // Never 0 (MQTT-2.2.1-3); the window is far smaller than the 65,535 ids, so none is in use twice.
            self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
            let stamp =
                Stamp { publisher: self.number, sequence: low_half(self.sent), intended_ns };
            self.template.append(outbox, self.packet_id, &stamp);
            self.sent += 1;
        }
        if acknowledged {
            self.unacknowledged += count;
        }
        count
    }
}

/// The lower 32 bits.
fn low_half(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).expect("masked to 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, Version};

    fn publisher(qos: u8) -> Publisher {
        Publisher::new(0, 3, Template::new(Version::V3_1_1, "topic", qos, 64))
    }

    #[test]
    fn paced_messages_carry_their_own_time_even_when_late() {
        let mut publisher = publisher(0);
        publisher.due = 3;
        let pace = Pace { start_ns: 1_000, rate: 1e9, publishers: 10 };
        let mut out = Vec::new();
        let limit = Limit::Paced { pace, turn: 4, window: 100 };
        assert_eq!(publisher.fill(&mut out, limit, false), 3);
        let mut rest = out.as_slice();
        for sequence in 0..3u32 {
            let frame = wire::frame(rest).expect("well formed").expect("whole");
            let incoming = wire::publish(&frame, Version::V3_1_1).expect("well formed");
            let stamp = Stamp::read(incoming.payload).expect("stamped");
            assert_eq!(stamp.sequence, sequence);
            assert_eq!(stamp.intended_ns, 1_000 + u64::from(sequence) * 10 + 4);
            rest = &rest[frame.len..];
        }
    }

    #[test]
    fn window_bounds_flat_out() {
        let mut publisher = publisher(0);
        let mut out = Vec::new();
        let flat = |arrived| Limit::Flat { arrived, window: 8, now_ns: 1 };
        assert_eq!(publisher.fill(&mut out, flat(0), false), 8);
        assert_eq!(publisher.fill(&mut out, flat(0), false), 0);
        assert_eq!(
            publisher.fill(&mut out, flat(1), false),
            0,
            "waits for a quarter of the window"
        );
        assert_eq!(publisher.fill(&mut out, flat(3), false), 3);
    }

    #[test]
    fn packet_ids_are_never_zero() {
        let mut publisher = publisher(1);
        let mut out = Vec::new();
        for round in 1..=70u64 {
            out.clear();
            let flat = Limit::Flat { arrived: round * 1_000, window: 1_000, now_ns: 1 };
            publisher.unacknowledged = 0;
            publisher.fill(&mut out, flat, true);
            let mut rest = out.as_slice();
            while let Ok(Some(frame)) = wire::frame(rest) {
                assert_ne!(
                    wire::publish(&frame, Version::V3_1_1).expect("well formed").packet_id,
                    0
                );
                rest = &rest[frame.len..];
            }
        }
    }
}
