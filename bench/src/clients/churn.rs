//! Clients that connect, subscribe and leave again, at a rate or as fast as the broker lets them. A place is used by one
//! client after the other; each client has an id and a topic of its own.

use super::publisher::Pace;
use super::{Clients, Stage, add, due, index};
use crate::engine::{Net, Timer};
use crate::plan::{Counts, Plan};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

/// Indices of the counters.
pub const DUE: usize = 0;
/// As above.
pub const BEGUN: usize = 1;
/// As above.
pub const THROUGH: usize = 2;
/// As above.
pub const FAILED: usize = 3;

/// How far it is.
#[derive(Debug, Default)]
pub struct Churn {
    is_on: bool,
    pace: Option<Pace>,
    /// Clients begun on this thread.
    begun: u32,
    /// Which client has each place.
    turns: Vec<u32>,
    /// Places without a client, the one that is free longest first.
    free: VecDeque<u32>,
}

impl Churn {
    /// Nobody is there.
    pub fn new(plan: &Plan, counts: Counts) -> Churn {
        let places = if plan.churns() { counts.clients() } else { 0 };
        Churn { turns: vec![0; index(places)], free: (0..places).collect(), ..Churn::default() }
    }

    /// Which client of the thread has a place.
    pub fn turn(&self, place: u32) -> u32 {
        self.turns[index(place)]
    }

    /// Nobody begins any more.
    pub fn stop(&mut self) {
        self.is_on = false;
    }
}

impl Clients {
    /// Begins.
    pub(super) fn start_churn(&mut self, net: &mut Net, start_ns: u64) {
        self.churn.is_on = true;
        let rate = self.load.rate / f64::from(self.plan.threads);
        self.churn.pace = (rate > 0.0).then_some(Pace { start_ns, rate, publishers: 1 });
        self.churn_more(net);
    }

    /// Begins all clients that are due, and comes again when more are.
    pub(super) fn churn_more(&mut self, net: &mut Net) {
        if !self.churn.is_on {
            return;
        }
        let Some(pace) = self.churn.pace else { return self.begin_due(net) };
        let counter = &self.counters().churn[DUE];
        let mut next_ns = pace.due_ns(counter.load(Relaxed));
        while next_ns <= net.now_ns() {
            add(counter, 1);
            next_ns = pace.due_ns(counter.load(Relaxed));
        }
        self.begin_due(net);
        net.at(next_ns, Timer { client: 0, tag: due::CHURN });
    }

    /// Begins the clients that are due, as far as there are places.
    fn begin_due(&mut self, net: &mut Net) {
        while self.churn.is_on {
            let count = u64::from(self.churn.begun);
            let intended_ns = match self.churn.pace {
                Some(_) if count >= self.counters().churn[DUE].load(Relaxed) => return,
                Some(pace) => pace.due_ns(count),
                None if self.opening.outstanding >= self.load.connect_window => return,
                None => net.now_ns(),
            };
            let Some(place) = self.churn.free.pop_front() else { return };
            if self.churn.pace.is_none() {
                add(&self.counters().churn[DUE], 1);
            }
            self.churn.turns[index(place)] = self.churn.begun;
            self.churn.begun = self.churn.begun.wrapping_add(1);
            add(&self.counters().churn[BEGUN], 1);
            self.open(net, place, intended_ns);
        }
    }

    /// A client has its subscription: it stays a while, then leaves.
    pub(super) fn churned(&mut self, net: &mut Net, place: u32, took_ns: u64) {
        add(&self.counters().churn[THROUGH], 1);
        let slot = usize::from(self.shared.slot.load(Relaxed));
        self.report.latency[slot].saturating_record(took_ns);
        let turn = self.churn.turn(place);
        if self.load.hold.is_zero() {
            return self.leave(net, place, turn);
        }
        let hold_ns = u64::try_from(self.load.hold.as_nanos()).unwrap_or(u64::MAX / 4);
        net.at(
            net.now_ns() + hold_ns,
            Timer { client: place, tag: due::LEAVE | turn << due::BITS },
        );
        // It is no longer among those between connect and SUBACK.
        self.begin_due(net);
    }

    /// A client leaves, if it is still this one.
    pub(super) fn leave(&mut self, net: &mut Net, place: u32, turn: u32) {
        let mask = u32::MAX >> due::BITS;
        let is_this = self.churn.turn(place) & mask == turn & mask;
        if is_this && *self.stage(place) == Stage::Ready {
            add(&self.counters().ready, u64::MAX);
            *self.stage(place) = Stage::Planned;
            self.say_goodbye(net, place);
            self.churn.free.push_back(place);
            self.begin_due(net);
        }
    }

    /// A client failed; its place is free.
    pub(super) fn churn_failed(&mut self, net: &mut Net, place: u32) {
        add(&self.counters().churn[FAILED], 1);
        self.churn.free.push_back(place);
        self.begin_due(net);
    }
}
