//! A timing wheel: one timer per id, set, moved and cancelled in one step each.
//!
//! Ids index the wheel's nodes, which form a doubly linked list per bucket; nothing is allocated per timer.
//! A deadline beyond one turn stays in its bucket and is passed over until its turn comes.

use crate::chunked::Chunked;

/// Length of a wheel tick. Deadlines are met up to this much late.
pub(crate) const WHEEL_TICK_MS: u64 = 100;

const BUCKETS: usize = 2048;
const WORDS: usize = BUCKETS / 64;
const NONE: u32 = u32::MAX;
/// Marks a node that is in no bucket.
const IDLE: u32 = 0;

#[derive(Debug)]
struct Node {
    next: u32,
    prev: u32,
    /// In wheel ticks; [`IDLE`] when not set.
    deadline: u32,
}

impl Default for Node {
    fn default() -> Self {
        Self { next: NONE, prev: NONE, deadline: IDLE }
    }
}

/// The wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    heads: Box<[u32; BUCKETS]>,
    occupied: [u64; WORDS],
    nodes: Chunked<Node>,
    /// The last tick that was looked at.
    current: u32,
    armed: usize,
}

/// The tick of a time, rounded up: a timer never fires early. Tick 0 means "not set", so ticks start at 1; the
/// 32 bits last for 13 years of uptime.
fn tick_of(deadline_ms: u64) -> u32 {
    u32::try_from(deadline_ms.div_ceil(WHEEL_TICK_MS)).unwrap_or(u32::MAX).max(1)
}

fn bucket_of(tick: u32) -> usize {
    tick as usize % BUCKETS
}

impl Wheel {
    /// An empty wheel at `now_ms`.
    pub fn new(now_ms: u64) -> Self {
        Self {
            heads: Box::new([NONE; BUCKETS]),
            occupied: [0; WORDS],
            nodes: Chunked::default(),
            current: u32::try_from(now_ms / WHEEL_TICK_MS).unwrap_or(u32::MAX),
            armed: 0,
        }
    }

    /// Timers that are set.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Sets or moves the timer of `id`.
    pub fn set(&mut self, id: u32, deadline_ms: u64) {
        self.cancel(id);
        self.nodes.grow_to(id);
        let tick = tick_of(deadline_ms).max(self.current + 1);
        self.link(id, tick);
        self.armed += 1;
    }

    /// Sets the timer of `id` if it is not set, or set for later.
    pub fn set_earlier(&mut self, id: u32, deadline_ms: u64) {
        let tick = tick_of(deadline_ms);
        let set = self.nodes.get(id).map_or(IDLE, |node| node.deadline);
        if set == IDLE || tick < set {
            self.set(id, deadline_ms);
        }
    }

    /// Cancels the timer of `id`, if it is set.
    pub fn cancel(&mut self, id: u32) {
        if self.nodes.get(id).is_some_and(|node| node.deadline != IDLE) {
            self.unlink(id);
            self.armed -= 1;
        }
    }

    /// Takes the timers that are due out of the wheel and puts their ids into `due`.
    pub fn advance(&mut self, now_ms: u64, due: &mut Vec<u32>) {
        let target = u32::try_from(now_ms / WHEEL_TICK_MS).unwrap_or(u32::MAX);
        if self.armed == 0 {
            self.current = self.current.max(target);
            return;
        }
        // After a long sleep one turn visits every bucket.
        let first = self.current + 1;
        let first = first.max(target.saturating_sub(u32::try_from(BUCKETS).expect("2048") - 1));
        for tick in first..=target {
            let bucket = bucket_of(tick);
            if self.occupied[bucket / 64] & (1 << (bucket % 64)) != 0 {
                self.expire_bucket(bucket, target, due);
            }
        }
        self.current = self.current.max(target);
    }

    fn expire_bucket(&mut self, bucket: usize, target: u32, due: &mut Vec<u32>) {
        let mut id = self.heads[bucket];
        while id != NONE {
            let node = self.nodes.get(id).expect("a linked node exists");
            let (next, deadline) = (node.next, node.deadline);
            if deadline <= target {
                self.unlink(id);
                self.armed -= 1;
                due.push(id);
            }
            id = next;
        }
    }

    /// When to look again: the time of the next bucket that holds a timer.
    pub fn next_ms(&self) -> Option<u64> {
        if self.armed == 0 {
            return None;
        }
        let start = bucket_of(self.current + 1);
        // Word by word around the wheel; the first word is looked at twice, its lower bits last.
        for step in 0..=WORDS {
            let word = (start / 64 + step) % WORDS;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == WORDS {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let bucket = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (bucket + BUCKETS - start) % BUCKETS;
                return Some((u64::from(self.current) + 1 + ahead as u64) * WHEEL_TICK_MS);
            }
        }
        unreachable!("an armed timer is in a bucket")
    }

    fn link(&mut self, id: u32, tick: u32) {
        let bucket = bucket_of(tick);
        let head = self.heads[bucket];
        if head != NONE {
            self.nodes.get_mut(head).expect("a linked node exists").prev = id;
        }
        let node = self.nodes.get_mut(id).expect("room was made");
        *node = Node { next: head, prev: NONE, deadline: tick };
        self.heads[bucket] = id;
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
    }

    fn unlink(&mut self, id: u32) {
        let node = std::mem::take(self.nodes.get_mut(id).expect("a linked node exists"));
        let bucket = bucket_of(node.deadline);
        if node.next != NONE {
            self.nodes.get_mut(node.next).expect("a linked node exists").prev = node.prev;
        }
        if node.prev == NONE {
            self.heads[bucket] = node.next;
            if node.next == NONE {
                self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            }
        } else {
            self.nodes.get_mut(node.prev).expect("a linked node exists").next = node.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(wheel: &mut Wheel, now_ms: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(now_ms, &mut due);
        due.sort_unstable();
        due
    }

    #[test]
    fn a_timer_fires_once_and_never_early() {
        let mut wheel = Wheel::new(0);
        wheel.set(3, 1_050);
        assert_eq!(wheel.next_ms(), Some(1_100));
        assert_eq!(due(&mut wheel, 1_050), []);
        assert_eq!(due(&mut wheel, 1_100), [3]);
        assert_eq!(due(&mut wheel, 9_999), []);
        assert_eq!(wheel.next_ms(), None);
    }

    #[test]
    fn a_timer_beyond_one_turn_waits_for_its_turn() {
        let mut wheel = Wheel::new(0);
        let far = WHEEL_TICK_MS * (BUCKETS as u64 * 3 + 5);
        wheel.set(1, far);
        let mut now = 0;
        while now < far - WHEEL_TICK_MS {
            now = wheel.next_ms().unwrap().min(far - WHEEL_TICK_MS);
            assert_eq!(due(&mut wheel, now), [], "at {now}");
        }
        assert_eq!(due(&mut wheel, far), [1]);
    }

    #[test]
    fn a_long_sleep_misses_nothing() {
        let mut wheel = Wheel::new(0);
        for id in 0..5000 {
            wheel.set(id, u64::from(id) * 130);
        }
        assert_eq!(due(&mut wheel, 1_000_000).len(), 5000);
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn moving_and_cancelling_leave_no_trace() {
        let mut wheel = Wheel::new(0);
        for id in 0..100 {
            wheel.set(id, 500);
            wheel.set(id, 700);
        }
        wheel.set_earlier(7, 300);
        wheel.set_earlier(8, 900);
        for id in (0..100).filter(|id| *id != 7 && *id != 8) {
            wheel.cancel(id);
            wheel.cancel(id);
        }
        assert_eq!(wheel.len(), 2);
        assert_eq!(due(&mut wheel, 300), [7]);
        assert_eq!(due(&mut wheel, 699), []);
        assert_eq!(due(&mut wheel, 700), [8]);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_tick() {
        let mut wheel = Wheel::new(0);
        assert_eq!(due(&mut wheel, 10_000), []);
        wheel.set(1, 5);
        assert_eq!(wheel.next_ms(), Some(10_100));
        assert_eq!(due(&mut wheel, 10_100), [1]);
    }
}
