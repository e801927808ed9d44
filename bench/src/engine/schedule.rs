//! Timers: exact to the nanosecond, for millions of entries.
//!
//! What is due soon is in a heap, which so stays small; what is due later waits, unsorted, in buckets of time. A bucket is
//! poured into the heap when its time begins. Entries far away wait in coarse buckets that are poured into fine ones.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Timer;

/// Nanoseconds of a fine bucket: 2^23, about 8 ms.
const FINE_SHIFT: u32 = 23;
/// Buckets of each level.
const BUCKETS: u64 = 512;
/// Nanoseconds of a coarse bucket: all fine ones together, about 4.3 s. All coarse ones are about 37 minutes.
const COARSE_SHIFT: u32 = FINE_SHIFT + BUCKETS.trailing_zeros();

/// One timer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Entry {
    due_ns: u64,
    client: u32,
    tag: u32,
}

/// A ring of buckets over one unit of time each.
#[derive(Debug)]
struct Level {
    buckets: Vec<Vec<Entry>>,
    entries: usize,
}

impl Level {
    fn new() -> Level {
        Level { buckets: (0..BUCKETS).map(|_| Vec::new()).collect(), entries: 0 }
    }

    fn push(&mut self, turn: u64, entry: Entry) {
        self.bucket(turn).push(entry);
        self.entries += 1;
    }

    fn take(&mut self, turn: u64) -> Vec<Entry> {
        let taken = std::mem::take(self.bucket(turn));
        self.entries -= taken.len();
        taken
    }

    fn bucket(&mut self, turn: u64) -> &mut Vec<Entry> {
        &mut self.buckets[usize::try_from(turn % BUCKETS).expect("a bucket's number is small")]
    }

    /// The first turn after `now`, and at most a whole round later, that has entries.
    fn next(&self, now: u64) -> Option<u64> {
        if self.entries == 0 {
            return None;
        }
        let turns = (now + 1)..=(now + BUCKETS);
        let is_used = |turn: &u64| {
            let index = usize::try_from(turn % BUCKETS).expect("a bucket's number is small");
            !self.buckets[index].is_empty()
        };
        turns.into_iter().find(is_used)
    }
}

/// All timers of a thread.
#[derive(Debug)]
pub struct Schedule {
    near: BinaryHeap<Reverse<Entry>>,
    fine: Level,
    coarse: Level,
    /// The fine turn whose entries, and those of all before, are in `near`.
    turn: u64,
}

impl Schedule {
    /// An empty schedule that begins at `now_ns`.
    pub fn new(now_ns: u64) -> Schedule {
        Schedule {
            near: BinaryHeap::new(),
            fine: Level::new(),
            coarse: Level::new(),
            turn: now_ns >> FINE_SHIFT,
        }
    }

    /// Adds a timer; one in the past is due at once.
    pub fn add(&mut self, due_ns: u64, timer: Timer) {
        self.place(Entry { due_ns, client: timer.client, tag: timer.tag });
    }

    fn place(&mut self, entry: Entry) {
        let (fine, coarse) = (entry.due_ns >> FINE_SHIFT, entry.due_ns >> COARSE_SHIFT);
        let coarse_now = self.turn / BUCKETS;
        if fine <= self.turn {
            self.near.push(Reverse(entry));
        } else if coarse == coarse_now {
            self.fine.push(fine, entry);
        } else {
            // What is farther than a round waits in the last bucket and is placed again from there.
            self.coarse.push(coarse.min(coarse_now + BUCKETS - 1), entry);
        }
    }

    /// The next timer that is due at `now_ns`, in the order of time.
    pub fn pop(&mut self, now_ns: u64) -> Option<Timer> {
        self.advance(now_ns >> FINE_SHIFT);
        let Reverse(first) = self.near.peek()?;
        if first.due_ns > now_ns {
            return None;
        }
        let Reverse(entry) = self.near.pop()?;
        Some(Timer { client: entry.client, tag: entry.tag })
    }

    /// Pours all buckets up to this turn.
    fn advance(&mut self, turn: u64) {
        while self.turn < turn {
            // Nothing in the fine buckets: go to the end of their round at once.
            let round_end = self.turn | (BUCKETS - 1);
            if self.fine.entries == 0 && round_end < turn {
                self.turn = round_end;
            } else if self.fine.entries == 0 && turn <= round_end {
                self.turn = turn;
                return;
            }
            self.turn += 1;
            if self.turn.is_multiple_of(BUCKETS) {
                for entry in self.coarse.take(self.turn / BUCKETS) {
                    self.place(entry);
                }
            }
            for entry in self.fine.take(self.turn) {
                self.near.push(Reverse(entry));
            }
        }
    }

    /// When to look again at the latest: the next timer, or the begin of the next bucket that has some.
    pub fn next_ns(&self) -> Option<u64> {
        if let Some(Reverse(entry)) = self.near.peek() {
            return Some(entry.due_ns);
        }
        if let Some(turn) = self.fine.next(self.turn) {
            return Some(turn << FINE_SHIFT);
        }
        self.coarse.next(self.turn / BUCKETS).map(|turn| turn << COARSE_SHIFT)
    }

    /// Timers in all.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.near.len() + self.fine.entries + self.coarse.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(client: u32) -> Timer {
        Timer { client, tag: client ^ 7 }
    }

    /// Runs the schedule as a reactor does, waiting always until the time it names, and gives when each timer came.
    fn run(schedule: &mut Schedule, mut now_ns: u64) -> Vec<(u64, u32)> {
        let mut fired = Vec::new();
        while let Some(next_ns) = schedule.next_ns() {
            now_ns = now_ns.max(next_ns);
            while let Some(timer) = schedule.pop(now_ns) {
                fired.push((now_ns, timer.client));
            }
        }
        assert_eq!(schedule.len(), 0);
        fired
    }

    #[test]
    fn every_timer_comes_at_its_time_and_in_order() {
        let begin_ns = 123_456_789_123;
        let mut schedule = Schedule::new(begin_ns);
        let mut state = 1u64;
        let mut dues: Vec<(u64, u32)> = (0..20_000)
            .map(|client| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // From nanoseconds to hours: every level, and beyond the last.
                let magnitude = (state >> 58) % 44;
                (begin_ns + (state >> 20) % (1 << magnitude).max(1), client)
            })
            .collect();
        for (due_ns, client) in &dues {
            schedule.add(*due_ns, timer(*client));
        }
        dues.sort_unstable();
        assert_eq!(run(&mut schedule, begin_ns), dues);
    }

    #[test]
    fn nothing_comes_early_and_the_past_comes_at_once() {
        let begin_ns = 1 << 40;
        let mut schedule = Schedule::new(begin_ns);
        schedule.add(begin_ns + 20_000_000_000, timer(1));
        schedule.add(begin_ns - 5, timer(2));
        assert_eq!(schedule.pop(begin_ns), Some(timer(2)));
        assert_eq!(schedule.pop(begin_ns + 19_999_999_999), None);
        // Added after the turns have moved on.
        schedule.add(begin_ns + 19_999_999_999, timer(3));
        assert_eq!(schedule.pop(begin_ns + 19_999_999_999), Some(timer(3)));
        assert_eq!(schedule.pop(begin_ns + 20_000_000_000), Some(timer(1)));
        assert_eq!(schedule.next_ns(), None);
    }

    #[test]
    fn a_long_pause_loses_nothing() {
        let mut schedule = Schedule::new(0);
        for client in 0..1000 {
            schedule.add(u64::from(client) * 10_000_000_000, timer(client));
        }
        let mut count = 0;
        while schedule.pop(10_000 * 1_000_000_000).is_some() {
            count += 1;
        }
        assert_eq!(count, 1000);
    }
}
