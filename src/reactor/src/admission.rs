//! Who is let in next when more connections come than a tick has time for (NONE-09, SEED-LSN-23).
//!
//! A tick lets in so many; what is more waits here, before TLS and before the shard knows of it. Listeners and source prefixes
//! have their turns one by one: a network that storms waits behind itself, not in front of the others. What waits costs its slot
//! and some 100 bytes here; their number is bounded. Without I/O: time is an argument.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// How connections are let in.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionSettings {
    /// Connections let in per tick; 0: all at once.
    pub budget: usize,
    /// Connections that may wait.
    pub queue_max: usize,
    /// How long one may wait, in milliseconds.
    pub deadline_ms: u64,
    /// Bits of an IPv4 address that make a prefix.
    pub prefix_ipv4: u8,
    /// Bits of an IPv6 address that make a prefix.
    pub prefix_ipv6: u8,
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        Self { budget: 0, queue_max: 65_536, deadline_ms: 10_000, prefix_ipv4: 24, prefix_ipv6: 48 }
    }
}

/// A connection that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Newcomer {
    /// Its slot.
    pub(crate) index: u32,
    /// Its listener, by the number of its socket.
    pub(crate) listener: u32,
    pub(crate) peer: SocketAddr,
    /// When it came.
    pub(crate) since_ms: u64,
}

/// What becomes of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is let in now.
    LetIn,
    /// It waits for its turn.
    Waits,
    /// Too many wait, and too many of its prefix.
    Refused,
}

/// Whose turns are shared: a listener and a source prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source {
    listener: u32,
    prefix: u128,
}

/// Connections with and without layers below MQTT wait apart: while handshakes pile up only the others go on.
const KINDS: usize = 2;

/// The newcomers of a shard.
#[derive(Debug)]
pub(crate) struct Admission {
    settings: AdmissionSettings,
    /// Let in during this tick.
    let_in: usize,
    waiting: HashMap<Source, VecDeque<Newcomer>>,
    turns: [VecDeque<Source>; KINDS],
    count: usize,
    /// The kind that is next.
    kind: usize,
    /// Those of which is being asked whether they are still there, by slot.
    asked: HashMap<u32, Newcomer>,
}

impl Admission {
    pub(crate) fn new(settings: AdmissionSettings) -> Self {
        Self {
            settings,
            let_in: 0,
            waiting: HashMap::new(),
            turns: [const { VecDeque::new() }; KINDS],
            count: 0,
            kind: 0,
            asked: HashMap::new(),
        }
    }

    /// A tick begins.
    #[inline]
    pub(crate) const fn begin_tick(&mut self) {
        self.let_in = 0;
    }

    /// How many wait.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// A connection came. `layered` is asked only if it has to wait.
    #[inline]
    pub(crate) fn arrive(&mut self, new: Newcomer, layered: impl FnOnce() -> bool) -> Arrival {
        if self.settings.budget == 0 {
            return Arrival::LetIn;
        }
        if self.count == 0 && self.let_in < self.settings.budget {
            self.let_in += 1;
            return Arrival::LetIn;
        }
        self.queue(new, layered())
    }

    #[cold]
    fn queue(&mut self, new: Newcomer, layered: bool) -> Arrival {
        let source = self.source(&new);
        let of_source = self.waiting.get(&source).map_or(0, VecDeque::len);
        // Who has less than an even share of a full queue may exceed it, so that a storm does not shut the others out.
        let share = self.settings.queue_max / (self.waiting.len() + 1);
        let is_full = self.count >= self.settings.queue_max;
        if is_full && (of_source >= share || self.count >= 2 * self.settings.queue_max) {
            return Arrival::Refused;
        }
        if of_source == 0 {
            self.turns[usize::from(layered)].push_back(source);
        }
        self.waiting.entry(source).or_default().push_back(new);
        self.count += 1;
        Arrival::Waits
    }

    /// The next one whose turn it is, as long as this tick has time; without layered ones unless `layered`. The flag says whether
    /// it has waited for too long; then it takes nothing of the budget.
    pub(crate) fn next(&mut self, now_ms: u64, layered: bool) -> Option<(Newcomer, bool)> {
        if self.count == 0 || self.let_in >= self.settings.budget {
            return None;
        }
        let is_open =
            |kind: usize, turns: &VecDeque<Source>| (kind == 0 || layered) && !turns.is_empty();
        let kind = [self.kind, 1 - self.kind]
            .into_iter()
            .find(|&kind| is_open(kind, &self.turns[kind]))?;
        self.kind = 1 - kind;
        let source = self.turns[kind].pop_front().expect("it is not empty");
        let queue = self.waiting.get_mut(&source).expect("a source has its turn while one waits");
        let new = queue.pop_front().expect("a source has its turn while one waits");
        if queue.is_empty() {
            self.waiting.remove(&source);
        } else {
            self.turns[kind].push_back(source);
        }
        self.count -= 1;
        if self.count == 0 {
            self.shrink();
        }
        let is_late = now_ms.saturating_sub(new.since_ms) > self.settings.deadline_ms;
        self.let_in += usize::from(!is_late);
        Some((new, is_late))
    }

    /// Remembers one of which is being asked whether it is still there.
    pub(crate) fn ask(&mut self, new: Newcomer) {
        self.asked.insert(new.index, new);
    }

    /// The answer has come.
    pub(crate) fn answered(&mut self, index: u32) -> Newcomer {
        self.asked.remove(&index).expect("it was asked")
    }

    fn source(&self, new: &Newcomer) -> Source {
        let (bits, shift) = match new.peer.ip() {
            IpAddr::V4(ip) => {
                let bits = ip.to_ipv6_mapped().to_bits();
                (bits, 32 - self.settings.prefix_ipv4.min(32))
            }
            IpAddr::V6(ip) => (ip.to_bits(), 128 - self.settings.prefix_ipv6.min(128)),
        };
        let prefix = bits.checked_shr(shift.into()).unwrap_or(0);
        Source { listener: new.listener, prefix }
    }

    /// A storm is over: its room is given back.
    fn shrink(&mut self) {
        if self.waiting.capacity() > 1024 {
            self.waiting = HashMap::new();
        }
        for turns in &mut self.turns {
            if turns.capacity() > 1024 {
                *turns = VecDeque::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(budget: usize, queue_max: usize) -> Admission {
        Admission::new(AdmissionSettings { budget, queue_max, ..AdmissionSettings::default() })
    }

    fn newcomer(index: u32, listener: u32, ip: &str) -> Newcomer {
        let peer = SocketAddr::new(ip.parse().unwrap(), 5);
        Newcomer { index, listener, peer, since_ms: 1000 }
    }

    /// Lets in what this tick has time for; the slots.
    fn tick(admission: &mut Admission, now_ms: u64, layered: bool) -> Vec<u32> {
        admission.begin_tick();
        std::iter::from_fn(|| admission.next(now_ms, layered)).map(|(new, _)| new.index).collect()
    }

    #[test]
    fn within_the_budget_nobody_waits_and_without_one_nobody_ever_does() {
        let mut some = admission(3, 10);
        let came = |admission: &mut Admission, index| {
            admission.arrive(newcomer(index, 0, "10.0.0.1"), || panic!("it need not be asked"))
        };
        for index in 0..3 {
            assert_eq!(came(&mut some, index), Arrival::LetIn);
        }
        assert_eq!(some.arrive(newcomer(3, 0, "10.0.0.1"), || false), Arrival::Waits);
        let mut all = admission(0, 1);
        assert!((0..1000).all(|index| came(&mut all, index) == Arrival::LetIn));
    }

    #[test]
    fn prefixes_and_listeners_have_their_turns_one_by_one() {
        let mut admission = admission(4, 1000);
        for index in 0..104 {
            admission.arrive(newcomer(index, 0, "10.0.0.1"), || false);
        }
        // The same /24, another /24, another listener, and two of one /48, which one customer has.
        for (index, listener, ip) in [
            (200, 0, "10.0.0.99"),
            (300, 0, "10.0.1.1"),
            (400, 1, "10.0.0.1"),
            (500, 0, "2001:db8:0:1::1"),
            (501, 0, "2001:db8:0:ff02::1"),
        ] {
            let verdict = admission.arrive(newcomer(index, listener, ip), || false);
            assert_eq!(verdict, Arrival::Waits);
        }
        assert_eq!(tick(&mut admission, 1000, true), [4, 300, 400, 500]);
        assert_eq!(tick(&mut admission, 1000, true), [5, 501, 6, 7]);
        assert_eq!(admission.count(), 97);
        // Who comes now waits behind those who wait, though the tick has time.
        admission.begin_tick();
        assert_eq!(admission.arrive(newcomer(600, 0, "10.9.9.9"), || false), Arrival::Waits);
    }

    #[test]
    fn a_full_queue_refuses_the_prefix_that_fills_it() {
        let mut admission = admission(1, 100);
        let verdicts: Vec<_> = (0..102)
            .map(|index| admission.arrive(newcomer(index, 0, "10.0.0.1"), || false))
            .collect();
        assert_eq!(
            (verdicts[0], verdicts[100], verdicts[101]),
            (Arrival::LetIn, Arrival::Waits, Arrival::Refused)
        );
        assert_eq!(admission.arrive(newcomer(200, 0, "10.0.1.1"), || false), Arrival::Waits);
        assert_eq!(tick(&mut admission, 1000, true), [1]);
        assert_eq!(tick(&mut admission, 1000, true), [200]);
        // However many prefixes there are, it ends somewhere.
        for index in 0..1000 {
            let ip = format!("10.{}.{}.1", 1 + index / 250, index % 250);
            admission.arrive(newcomer(1000 + index, 0, &ip), || false);
        }
        assert!(admission.count() <= 200, "{}", admission.count());
    }

    #[test]
    fn who_has_waited_too_long_is_told_apart_and_costs_no_turn() {
        let mut admission = admission(1, 100);
        for index in 0..4 {
            admission.arrive(newcomer(index, 0, "10.0.0.1"), || false);
        }
        let late = Newcomer { since_ms: 5000, ..newcomer(9, 0, "10.0.0.1") };
        admission.arrive(late, || false);
        admission.begin_tick();
        let seen: Vec<_> = std::iter::from_fn(|| admission.next(11_001, true)).collect();
        let seen: Vec<_> = seen.iter().map(|(new, is_late)| (new.index, *is_late)).collect();
        assert_eq!(seen, [(1, true), (2, true), (3, true), (9, false)]);
        assert_eq!(admission.count(), 0);
    }

    #[test]
    fn while_handshakes_pile_up_the_others_go_on() {
        let mut admission = admission(2, 100);
        for index in 0..4 {
            admission.arrive(newcomer(index, 0, "10.0.0.1"), || true);
        }
        admission.arrive(newcomer(10, 1, "10.0.0.1"), || false);
        assert_eq!(tick(&mut admission, 1000, false), [10]);
        assert_eq!(tick(&mut admission, 1000, false), [0; 0]);
        assert_eq!(tick(&mut admission, 1000, true), [2, 3]);
    }
}
