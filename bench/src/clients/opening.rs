//! Opening clients, at a rate or as fast as the broker lets them, and keeping them alive.

use super::{Clients, Stage, add, due, index};
use crate::engine::{Net, Timer};
use crate::wire;
use shard::CloseMode;
use std::sync::atomic::Ordering::Relaxed;

/// How long a client that failed after a storm waits before it tries again.
const RETRY_NS: u64 = 500_000_000;
/// Least time between two looks at which clients are to be pinged.
const PING_PAUSE_NS: u64 = 5_000_000;

/// How far this is.
#[derive(Debug, Default)]
pub struct Opening {
    /// Clients opened so far.
    pub opened: u32,
    /// Clients between connect and SUBACK.
    pub outstanding: u32,
    /// A timer for the next client is set.
    pub has_timer: bool,
    /// All clients were lost: who fails from now on tries again.
    pub is_storm: bool,
    /// Nobody is opened any more.
    pub is_over: bool,
    start_ns: u64,
    pings_start_ns: u64,
    pings_due: u64,
}

impl Clients {
    /// Begins to open clients.
    pub(super) fn connect(&mut self, net: &mut Net) {
        self.opening.start_ns = net.now_ns();
        self.opening.pings_start_ns = net.now_ns();
        self.open_more(net);
        if self.load.keep_alive_s > 0 && self.plan.is_mqtt() && !self.clients.is_empty() {
            self.ping(net);
        }
    }

    /// Opens all clients that may be opened now.
    pub(super) fn open_more(&mut self, net: &mut Net) {
        let all = if self.plan.churns() { 0 } else { self.counts.clients() };
        while self.opening.opened < all
            && self.opening.outstanding < self.load.connect_window
            && !self.opening.is_over
        {
            let due_ns = self.next_open_ns();
            if due_ns.is_some_and(|due_ns| due_ns > net.now_ns()) {
                if !std::mem::replace(&mut self.opening.has_timer, true) {
                    net.at(due_ns.expect("just seen"), Timer { client: 0, tag: due::OPEN });
                }
                return;
            }
            let client = self.plan.opened_at(self.thread, self.opening.opened);
            self.opening.opened += 1;
            if *self.stage(client) == Stage::Planned {
                self.open(net, client, due_ns.unwrap_or(net.now_ns()));
            }
        }
    }

    /// Opens one client that was to be opened then.
    pub(super) fn open(&mut self, net: &mut Net, client: u32, intended_ns: u64) {
        self.opening.outstanding += 1;
        let state = &mut self.clients[index(client)];
        state.opened_ns = intended_ns;
        state.stage = Stage::Connecting;
        net.open(client);
    }

    /// When the next client is due; `None`: at once. All threads together keep the rate.
    fn next_open_ns(&self) -> Option<u64> {
        if self.load.connect_rate == 0 {
            return None;
        }
        let place = u64::from(self.number(self.opening.opened));
        Some(self.opening.start_ns + place * 1_000_000_000 / self.load.connect_rate)
    }

    /// A client takes part from now on.
    pub(super) fn became_ready(&mut self, net: &mut Net, client: u32) {
        if !matches!(
            *self.stage(client),
            Stage::Connecting | Stage::AwaitConnAck | Stage::AwaitSubAck
        ) {
            return;
        }
        *self.stage(client) = Stage::Ready;
        self.opening.outstanding -= 1;
        let took = net.now_ns().saturating_sub(self.clients[index(client)].opened_ns);
        self.report.connect[usize::from(self.opening.is_storm)].saturating_record(took);
        add(&self.counters().ready, 1);
        self.counters().last_ready_ns.store(net.now_ns(), Relaxed);
        if self.plan.churns() {
            self.churned(net, client, took);
        } else {
            if let Some(publisher) = self.publisher_of(client) {
                self.wake(net, publisher);
            }
            self.open_more(net);
        }
    }

    /// Loses all clients at once and opens them again.
    pub(super) fn storm(&mut self, net: &mut Net) {
        let mut lost = 0;
        for client in 0..self.counts.clients() {
            let stage = self.stage(client);
            lost += u64::from(*stage == Stage::Ready);
            // Who never got in, or is about to, storms along.
            *stage = Stage::Planned;
            net.close(client, CloseMode::Now);
        }
        add(&self.counters().lost, lost);
        self.counters().ready.store(0, Relaxed);
        self.counters().failed.store(0, Relaxed);
        self.opening.opened = 0;
        self.opening.outstanding = 0;
        self.opening.is_storm = true;
        self.opening.start_ns = net.now_ns();
        add(&self.counters().storms, 1);
        self.open_more(net);
    }

    /// Opens a client again, later.
    pub(super) fn retry_later(&mut self, net: &mut Net, client: u32) {
        net.at(net.now_ns() + RETRY_NS, Timer { client, tag: due::RETRY });
    }

    /// Opens a client again.
    pub(super) fn retry(&mut self, net: &mut Net, client: u32) {
        // One that the storm has in its row anyway is not opened twice.
        if *self.stage(client) == Stage::Planned && !self.opening.is_over {
            self.open(net, client, net.now_ns());
        }
    }

    /// PINGREQ of all clients, spread evenly over three quarters of the keep alive.
    pub(super) fn ping(&mut self, net: &mut Net) {
        if self.opening.is_over {
            return;
        }
        let count = u64::from(self.counts.clients());
        let period_ns = u128::from(self.load.keep_alive_s) * 750_000_000;
        let elapsed_ns = net.now_ns().saturating_sub(self.opening.pings_start_ns);
        let due = u128::from(elapsed_ns) * u128::from(count) / period_ns;
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        while self.opening.pings_due < due {
            let client = u32::try_from(self.opening.pings_due % count).expect("below 2^32");
            self.opening.pings_due += 1;
            if *self.stage(client) == Stage::Ready
                && let Some(outbox) = net.outbox(client)
            {
                outbox.extend_from_slice(&wire::PING);
                self.report.pings[0] += 1;
            }
        }
        let next_ns = u128::from(self.opening.pings_due + 1) * period_ns / u128::from(count);
        let next_ns = self.opening.pings_start_ns + u64::try_from(next_ns).unwrap_or(u64::MAX / 4);
        let at_ns = next_ns.max(net.now_ns() + PING_PAUSE_NS);
        net.at(at_ns, Timer { client: 0, tag: due::PING });
    }
}
