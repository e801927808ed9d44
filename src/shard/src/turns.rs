//! Fairness among connections that make more work than a tick has time for: deficit round robin (NONE-20).
//!
//! As long as a tick's deliveries stay below [`WORK_MAX`] nobody waits and nothing here runs. From then on each connection still has
//! one packet handled; those with more line up. A turn gives a connection [`QUANTUM`] deliveries of credit; it goes on until they are
//! used. What its last packet cost beyond them is a debt it carries, and what it took before it lined up is one too: a publisher
//! whose packets go to ten thousand subscriptions has a packet handled while one whose packets go to one has thousands.

use std::collections::VecDeque;

use crate::connection::pause;
use crate::effect::ConnectionId;
use crate::shard::Shard;

/// Deliveries after which a tick handles no second packet of a connection: one that is sent to very many subscriptions may
/// not keep the others waiting for longer than that and one more packet of each. As many again are for those in line.
pub(crate) const WORK_MAX: usize = 8192;

/// Deliveries of one turn.
const QUANTUM: i64 = 512;

/// A connection in line.
#[derive(Debug, Clone, Copy)]
struct Turn {
    id: ConnectionId,
    /// Deliveries it may still cause; below zero: has caused too many.
    credit: i64,
}

/// The line.
#[derive(Debug)]
pub(crate) struct Turns {
    line: VecDeque<Turn>,
    /// The work of this tick after which no second packet of a connection is handled.
    work_max: usize,
    /// The credit of the connection that is being handled.
    credit: i64,
}

impl Turns {
    pub const fn new() -> Self {
        Self { line: VecDeque::new(), work_max: WORK_MAX, credit: 0 }
    }

    /// Whether nobody is in line.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// The work after which a connection has had its share.
    #[inline]
    pub const fn work_max(&self) -> usize {
        self.work_max
    }

    /// If even the one with the least debt would have no turn in the next round, all skip the rounds until it has.
    fn skip_idle_rounds(&mut self) {
        let best = self.line.iter().map(|turn| turn.credit).max().unwrap_or(0);
        if best + QUANTUM <= 0 {
            let rounds = -best / QUANTUM;
            self.line.iter_mut().for_each(|turn| turn.credit += rounds * QUANTUM);
        }
    }
}

impl Shard {
    /// A connection has had its share and has more: it lines up. `used` is the work it has caused.
    #[cold]
    pub(crate) fn line_up(&mut self, id: ConnectionId, used: usize) {
        self.pause(id, pause::WORK);
        let credit = self.turns.credit.saturating_sub_unsigned(used as u64);
        self.turns.line.push_back(Turn { id, credit });
    }

    /// Gives turns to those in line until they have had their part of the tick.
    pub(crate) fn run_turns(&mut self) {
        let until = self.clients.work + WORK_MAX;
        while !self.turns.is_empty() && self.clients.work < until {
            self.turns.skip_idle_rounds();
            for _ in 0..self.turns.line.len() {
                if self.clients.work >= until {
                    break;
                }
                let Some(mut turn) = self.turns.line.pop_front() else { break };
                turn.credit += QUANTUM;
                if turn.credit > 0 {
                    self.take_turn(turn);
                } else {
                    self.turns.line.push_back(turn);
                }
            }
        }
        (self.turns.work_max, self.turns.credit) = (WORK_MAX, 0);
    }

    fn take_turn(&mut self, turn: Turn) {
        let Turn { id, credit } = turn;
        let Some(connection) = self.clients.connections.get_mut(id) else { return };
        if connection.paused & pause::HOLDS_STASH != pause::WORK {
            // It waits for something else, too, and leaves the line: that may take long.
            return self.resume(id, pause::WORK);
        }
        connection.paused &= !pause::WORK;
        let before = self.clients.work;
        self.turns.credit = credit;
        self.turns.work_max = before + usize::try_from(credit).unwrap_or(0);
        self.handle_stash(id);
        let used = self.clients.work - before;
        let is_in_debt = credit.saturating_sub_unsigned(used as u64) < 0;
        let is_here = |c: &crate::connection::Connection| c.paused & pause::HOLDS_STASH == 0;
        if is_in_debt
            && !self.turns.is_empty()
            && self.clients.connections.get(id).is_some_and(is_here)
        {
            // It has nothing more now. What comes next waits until it has paid.
            self.line_up(id, used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::{Desk, connect, publish};

    fn client(desk: &mut Desk, name: &str, topic: Option<u8>) -> ConnectionId {
        let id = desk.accept(1, "10.0.0.1:5");
        desk.tick(1, Some((id, &connect(name, 0))));
        if let Some(topic) = topic {
            desk.tick(1, Some((id, &[0x82, 6, 0, 1, 0, 1, topic, 0])));
        }
        id
    }

    /// A publisher with a hundred subscribers, one with one, and what each has delivered.
    struct Two {
        desk: Desk,
        wide: ConnectionId,
        narrow: ConnectionId,
        last: ConnectionId,
        delivered: [usize; 2],
    }

    impl Two {
        fn new() -> Two {
            let mut desk = Desk::new(&[]);
            for n in 0..100 {
                client(&mut desk, &format!("s{n}"), Some(b'w'));
            }
            let last = client(&mut desk, "t", Some(b'n'));
            let wide = client(&mut desk, "wide", None);
            let narrow = client(&mut desk, "narrow", None);
            Two { desk, wide, narrow, last, delivered: [0; 2] }
        }

        fn tick(&mut self, wide: usize, narrow: usize) {
            let bytes = |topic: &str, count: usize| publish(topic, "x").repeat(count);
            self.desk.shard.received(self.wide, &bytes("w", wide));
            self.desk.shard.received(self.narrow, &bytes("n", narrow));
            for (id, bytes) in self.desk.tick(1, None) {
                self.delivered[usize::from(id == self.last)] += bytes.len() / 6;
            }
        }
    }

    #[test]
    fn a_wide_and_a_narrow_publisher_cause_the_same_work() {
        let mut two = Two::new();
        two.tick(1000, 9000);
        // The wide one takes what is there before anybody is in line, then it is the narrow one's turn until they are even.
        let [wide, narrow] = two.delivered;
        assert!(wide.abs_diff(narrow) <= 1000 && narrow > 7500, "{wide} {narrow}");
        for _ in 0..20 {
            two.tick(0, 0);
        }
        assert_eq!(two.delivered, [100_000, 9000], "nothing is lost");
        assert!(two.desk.shard.turns.is_empty());
    }

    #[test]
    fn one_alone_never_waits_for_its_debt() {
        let mut two = Two::new();
        two.tick(400, 0);
        // What a tick has for all, and what it has for those in line.
        assert!(two.delivered[0] >= 2 * WORK_MAX, "{}", two.delivered[0]);
        for _ in 0..3 {
            two.tick(0, 0);
        }
        assert_eq!(two.delivered[0], 40_000);
        assert!(two.desk.shard.prepare_park());
    }

    #[test]
    fn below_the_limit_nobody_lines_up() {
        let mut two = Two::new();
        two.tick(40, 4000);
        assert_eq!(two.delivered, [4000, 4000]);
        assert!(two.desk.shard.turns.is_empty());
    }

    #[test]
    fn a_debt_is_paid_before_more_is_taken() {
        let mut turns = Turns::new();
        let id = |index| ConnectionId { index, generation: 0 };
        turns.line.push_back(Turn { id: id(1), credit: -10_000 });
        turns.line.push_back(Turn { id: id(2), credit: -1025 });
        turns.skip_idle_rounds();
        let credits: Vec<_> = turns.line.iter().map(|turn| turn.credit).collect();
        assert_eq!(credits, [-8976, -1], "two rounds were skipped, the next is the second one's");
    }
}
