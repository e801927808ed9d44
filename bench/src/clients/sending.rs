//! Sending at a rate or flat out, and hearing what comes.

use super::publisher::{Limit, Pace, Publisher};
use super::tracks::Heard;
use super::{Clients, Stage, add, due, index};
use crate::engine::{Net, Timer};
use crate::plan::{Counts, Load, Plan, Shape};
use crate::wire::{Stamp, Template};
use std::sync::atomic::Ordering::Relaxed;

/// Flat out, with subscribers on other threads: nanoseconds between two looks at what they have heard.
const POLL_NS: u64 = 50_000;

/// The publishers of a thread.
pub struct Sending {
    /// Messages are sent.
    pub is_on: bool,
    publishers: Vec<Publisher>,
    /// The publishers to look at before the tick ends.
    awake: Vec<u32>,
    pace: Option<Pace>,
    /// Paced messages that were due so far.
    paced: u64,
    template: Template,
    /// Where the template goes to.
    topic: u32,
    is_local: bool,
}

impl Sending {
    /// Nothing was sent.
    pub fn new(plan: &Plan, load: &Load, counts: Counts) -> Sending {
        let topic = plan.names.topic(0);
        Sending {
            is_on: false,
            publishers: vec![Publisher::default(); index(counts.publishers)],
            awake: Vec::new(),
            pace: None,
            paced: 0,
            template: Template::new(load.version, topic.as_str(), load.qos, load.payload_len),
            topic: 0,
            is_local: plan.is_local(),
        }
    }
}

impl Clients {
    /// The publisher that a client is.
    pub(super) fn publisher_of(&self, client: u32) -> Option<u32> {
        client.checked_sub(self.counts.hearing + self.counts.idle)
    }

    fn is_flat(&self) -> bool {
        self.load.rate == 0.0
    }

    /// Begins to send.
    pub(super) fn start_sending(&mut self, net: &mut Net, start_ns: u64) {
        if self.counts.publishers == 0 {
            return;
        }
        self.sending.is_on = true;
        if self.is_flat() {
            for publisher in 0..self.counts.publishers {
                self.wake(net, publisher);
            }
            if !self.sending.is_local {
                net.at(net.now_ns() + POLL_NS, Timer { client: 0, tag: due::POLL });
            }
            return;
        }
        let (all, here) = (self.plan.counts.publishers, self.counts.publishers);
        let rate = self.load.rate * f64::from(here) / f64::from(all);
        self.sending.pace = Some(Pace { start_ns, rate, publishers: u64::from(here) });
        self.pace(net);
    }

    /// Sends what is due, and comes again when more is.
    pub(super) fn pace(&mut self, net: &mut Net) {
        let Some(pace) = self.sending.pace else { return };
        if !self.sending.is_on {
            return;
        }
        let now_ns = net.now_ns();
        let mut next_ns = pace.due_ns(self.sending.paced);
        while next_ns <= now_ns {
            let turn = u32::try_from(self.sending.paced % pace.publishers).expect("32 bits");
            self.sending.publishers[index(turn)].due += 1;
            self.sending.paced += 1;
            add(&self.counters().offered, 1);
            self.fill(net, turn);
            next_ns = pace.due_ns(self.sending.paced);
        }
        net.at(next_ns, Timer { client: 0, tag: due::PACE });
    }

    /// Looks at all publishers, for what other threads may have heard.
    pub(super) fn poll(&mut self, net: &mut Net) {
        if self.sending.is_on {
            for publisher in 0..self.counts.publishers {
                self.fill(net, publisher);
            }
            net.at(net.now_ns() + POLL_NS, Timer { client: 0, tag: due::POLL });
        }
    }

    /// Looks at a publisher before the tick ends: by then more may have come for it.
    #[inline]
    pub(super) fn wake(&mut self, net: &mut Net, publisher: u32) {
        let state = &mut self.sending.publishers[index(publisher)];
        if self.sending.is_on && !state.is_awake {
            state.is_awake = true;
            if self.sending.awake.is_empty() {
                net.at(net.now_ns(), Timer { client: 0, tag: due::FILL });
            }
            self.sending.awake.push(publisher);
        }
    }

    /// Looks at all publishers that are awake.
    pub(super) fn fill_awake(&mut self, net: &mut Net) {
        let mut awake = std::mem::take(&mut self.sending.awake);
        for publisher in awake.drain(..) {
            self.sending.publishers[index(publisher)].is_awake = false;
            self.fill(net, publisher);
        }
        self.sending.awake = awake;
    }

    /// Sends what a publisher may send.
    fn fill(&mut self, net: &mut Net, publisher: u32) {
        let client = self.counts.hearing + self.counts.idle + publisher;
        if *self.stage(client) != Stage::Ready || !self.sending.is_on {
            return;
        }
        let number = self.number(publisher);
        let window = self.load.window;
        let limit = match self.sending.pace {
            Some(pace) => Limit::Paced { pace, turn: u64::from(publisher), window },
            None => {
                let arrived = self.shared.arrived[index(number)].load(Relaxed) / self.plan.fan;
                Limit::Flat { arrived, window, now_ns: net.now_ns() }
            }
        };
        let unsent = net.unsent(client);
        let state = &mut self.sending.publishers[index(publisher)];
        let (count, is_all) = state.allowed(limit, unsent, self.sending.template.len());
        if count > 0
            && let Some(outbox) = net.outbox(client)
        {
            let topic = if self.plan.shape == Shape::Fanin { 0 } else { number };
            if self.sending.topic != topic {
                self.sending.topic = topic;
                self.sending.template.set_topic(self.plan.names.topic(u64::from(topic)).as_str());
            }
            let acknowledged = self.load.qos > 0 && self.plan.is_mqtt();
            state.fill(outbox, &self.sending.template, number, limit, count, acknowledged);
            add(&self.counters().sent, count);
            if self.sending.pace.is_none() {
                add(&self.counters().offered, count);
            }
        }
        if !is_all {
            net.when_drained(client);
        }
    }

    /// A message was acknowledged to the end.
    pub(super) fn on_acknowledged(&mut self, net: &mut Net, client: u32) {
        let Some(publisher) = self.publisher_of(client) else { return };
        let state = &mut self.sending.publishers[index(publisher)];
        state.unacknowledged = state.unacknowledged.saturating_sub(1);
        if self.sending.pace.is_none() || state.due > state.sent {
            self.wake(net, publisher);
        }
    }

    /// A message came.
    #[inline]
    pub(super) fn hear(&mut self, net: &mut Net, client: u32, payload: &[u8]) {
        let heard = Stamp::read(payload)
            .and_then(|stamp| Some((stamp, self.note(client, stamp.publisher, stamp.sequence)?)));
        let Some((stamp, heard)) = heard else {
            self.report.foreign += 1;
            return;
        };
        // What a gap skips is on its way no longer: a window that kept it would close for good.
        let settled = match heard {
            Heard::New(settled) => settled,
            Heard::Late => {
                self.report.reordered += 1;
                0
            }
            Heard::Twice => {
                self.report.duplicates += 1;
                0
            }
        };
        add(&self.counters().delivered, 1);
        let latency = net.now_ns().saturating_sub(stamp.intended_ns);
        let slot = usize::from(self.shared.slot.load(Relaxed));
        self.report.latency[slot].saturating_record(latency);
        if self.is_flat() {
            let arrived = &self.shared.arrived[index(stamp.publisher)];
            if self.sending.is_local {
                add(arrived, settled);
                self.wake(net, stamp.publisher / self.plan.threads);
            } else {
                arrived.fetch_add(settled, Relaxed);
            }
        }
    }

    /// Notes the message of a publisher; `None`: this client was not to hear it.
    #[inline]
    fn note(&mut self, client: u32, publisher: u32, sequence: u32) -> Option<Heard> {
        match self.plan.shape {
            Shape::Shared => self.shared.tracks().hear(index(publisher), sequence),
            Shape::Fanout | Shape::Fanin => {
                let all = self.plan.counts.publishers;
                let place = index(client) * index(all) + index(publisher);
                if publisher < all { self.tracks.hear(place, sequence) } else { None }
            }
            _ if self.number(client) == publisher => self.tracks.hear(index(client), sequence),
            _ => None,
        }
    }
}
