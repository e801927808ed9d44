//! When a publisher may send its next message, and when it was to send it.

use crate::wire::{Stamp, Template};

/// Bytes a publisher may have on their way to the kernel before it waits.
const UNSENT_MAX: usize = 128 * 1024;

/// One publisher of a thread. Its client and its topic are known by its number.
#[derive(Clone, Debug, Default)]
pub struct Publisher {
    /// Messages handed to the outbox.
    pub sent: u64,
    /// Messages whose intended time has come (paced only).
    pub due: u64,
    /// QoS 1 and 2: sent, not yet acknowledged to the end.
    pub unacknowledged: u32,
    packet_id: u16,
    /// It waits in the thread's list of publishers to look at.
    pub is_awake: bool,
}

/// When things of one thread are due: evenly, its publishers in turn.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// When the first is due.
    pub start_ns: u64,
    /// How many per second of this thread.
    pub rate: f64,
    /// Publishers of this thread.
    pub publishers: u64,
}

impl Pace {
    /// When the thread's message `index` is due.
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
    /// Messages that `limit` allows now, and whether they all may go while `unsent` bytes wait.
    pub fn allowed(&self, limit: Limit, unsent: usize, message_len: usize) -> (u64, bool) {
        let acknowledgeable = |window: u64| window.saturating_sub(self.unacknowledged.into());
        let allowed = match limit {
            Limit::Paced { window, .. } => (self.due - self.sent).min(acknowledgeable(window)),
            Limit::Flat { arrived, window, .. } => {
                let open =
                    (arrived + window).saturating_sub(self.sent).min(acknowledgeable(window));
                // A publisher that is flat out writes in bulk: answering every single arrival with one message would
                // measure the generator's system calls.
                if open >= (window / 4).max(1) { open } else { 0 }
            }
        };
        let room = UNSENT_MAX.saturating_sub(unsent).div_ceil(message_len);
        let room = u64::try_from(room).unwrap_or(u64::MAX);
        (allowed.min(room), allowed <= room)
    }

    /// Appends `count` messages of publisher `number` to `outbox`. `acknowledged`: QoS is above 0.
    pub fn fill(
        &mut self,
        outbox: &mut Vec<u8>,
        template: &Template,
        number: u32,
        limit: Limit,
        count: u64,
        acknowledged: bool,
    ) {
        for _ in 0..count {
            let intended_ns = match limit {
                Limit::Paced { pace, turn, .. } => pace.due_ns(self.sent * pace.publishers + turn),
                Limit::Flat { now_ns, .. } => now_ns,
            };
            // Never 0 (MQTT-2.2.1-3); the window is far smaller than the 65,535 ids, so none is in use twice.
            self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
            let stamp = Stamp { publisher: number, sequence: low_half(self.sent), intended_ns };
            template.append(outbox, self.packet_id, &stamp);
            self.sent += 1;
        }
        if acknowledged {
            self.unacknowledged += u32::try_from(count).expect("bounded by the window");
        }
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

    fn template(qos: u8) -> Template {
        Template::new(Version::V3_1_1, "topic", qos, 64)
    }

    fn send(publisher: &mut Publisher, out: &mut Vec<u8>, qos: u8, limit: Limit) -> u64 {
        let template = template(qos);
        let (count, _) = publisher.allowed(limit, out.len(), template.len());
        publisher.fill(out, &template, 3, limit, count, qos > 0);
        count
    }

    #[test]
    fn paced_messages_carry_their_own_time_even_when_late() {
        let mut publisher = Publisher { due: 3, ..Publisher::default() };
        let pace = Pace { start_ns: 1_000, rate: 1e9, publishers: 10 };
        let mut out = Vec::new();
        let limit = Limit::Paced { pace, turn: 4, window: 100 };
        assert_eq!(send(&mut publisher, &mut out, 0, limit), 3);
        let mut rest = out.as_slice();
        for sequence in 0..3u32 {
            let frame = wire::frame(rest).expect("well formed").expect("whole");
            let incoming = wire::publish(&frame, Version::V3_1_1).expect("well formed");
            let stamp = Stamp::read(incoming.payload).expect("stamped");
            assert_eq!((stamp.publisher, stamp.sequence), (3, sequence));
            assert_eq!(stamp.intended_ns, 1_000 + u64::from(sequence) * 10 + 4);
            rest = &rest[frame.len..];
        }
    }

    #[test]
    fn window_bounds_flat_out() {
        let mut publisher = Publisher::default();
        let mut out = Vec::new();
        let flat = |arrived| Limit::Flat { arrived, window: 8, now_ns: 1 };
        assert_eq!(send(&mut publisher, &mut out, 0, flat(0)), 8);
        assert_eq!(send(&mut publisher, &mut out, 0, flat(0)), 0);
        assert_eq!(
            send(&mut publisher, &mut out, 0, flat(1)),
            0,
            "waits for a quarter of the window"
        );
        assert_eq!(send(&mut publisher, &mut out, 0, flat(3)), 3);
    }

    #[test]
    fn what_the_kernel_has_not_taken_bounds_it_too() {
        let publisher = Publisher { due: 10, ..Publisher::default() };
        let pace = Pace { start_ns: 0, rate: 1.0, publishers: 1 };
        let limit = Limit::Paced { pace, turn: 0, window: 100 };
        assert_eq!(publisher.allowed(limit, 0, 100), (10, true));
        assert_eq!(publisher.allowed(limit, UNSENT_MAX - 250, 100), (3, false));
        assert_eq!(publisher.allowed(limit, UNSENT_MAX, 100), (0, false));
    }

    #[test]
    fn packet_ids_are_never_zero() {
        let mut publisher = Publisher::default();
        let mut out = Vec::new();
        for round in 1..=70u64 {
            out.clear();
            let flat = Limit::Flat { arrived: round * 1_000, window: 1_000, now_ns: 1 };
            publisher.unacknowledged = 0;
            send(&mut publisher, &mut out, 1, flat);
            let mut rest = out.as_slice();
            while let Ok(Some(frame)) = wire::frame(rest) {
                let incoming = wire::publish(&frame, Version::V3_1_1).expect("well formed");
                assert_ne!(incoming.packet_id, 0);
                rest = &rest[frame.len..];
            }
        }
    }
}
