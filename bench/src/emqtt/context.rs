//! What the clients of one thread share, and all threads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use super::config::Config;
use super::counters::{Counter, ThreadStats, Timing};
use super::lines::{Kind, Lines};
use super::qoe::{Row, Times};
use super::random::{Random, mix};

/// What all threads have in common.
#[derive(Debug)]
pub struct Shared {
    /// The options.
    pub config: Config,
    /// Lines about single clients.
    pub lines: Lines,
    /// Messages begun, of all clients.
    pub claimed: AtomicU64,
    /// Threads that have started their last client.
    pub ready_threads: AtomicUsize,
    /// Where latencies of connecting go.
    pub rows: Mutex<Sender<Row>>,
}

/// What the clients of one thread have in common.
#[derive(Debug)]
pub struct Context {
    /// With all threads.
    pub shared: Arc<Shared>,
    /// What is counted.
    pub stats: Arc<ThreadStats>,
    /// Random choices.
    pub random: Random,
    thread: u32,
    threads: u32,
    rows: Sender<Row>,
    /// Clients whose latencies are being taken; with `-Q true` only.
    times: HashMap<u32, Times>,
}

impl Context {
    /// For thread number `thread`.
    pub fn new(shared: Arc<Shared>, stats: Arc<ThreadStats>, thread: u32, threads: u32) -> Context {
        let rows = shared.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let random = Random::new(mix(shared.config.seed.wrapping_add(u64::from(thread))));
        Context { shared, stats, random, thread, threads, rows, times: HashMap::new() }
    }

    /// Number of a client of this thread in the whole run: threads take turns.
    #[inline]
    pub fn index(&self, client: u32) -> u32 {
        client * self.threads + self.thread
    }

    /// The number a client is known by.
    pub fn number(&self, client: u32) -> u64 {
        self.shared.config.number(self.index(client))
    }

    /// How many clients this thread has.
    pub fn clients(&self) -> u32 {
        clients_of(self.shared.config.count, self.thread, self.threads)
    }

    /// Counts one.
    #[inline]
    pub fn count(&self, counter: Counter) {
        self.stats.count(counter);
    }

    /// Says something about a client.
    pub fn say(&self, kind: Kind, client: u32, text: impl FnOnce() -> String) {
        self.shared.lines.say(kind, self.number(client), text);
    }

    // ---- latencies of connecting

    /// A client begins to connect.
    pub fn qoe_begin(&mut self, client: u32, now_ns: u64) {
        if self.shared.config.qoe {
            self.times.insert(client, Times::begin(now_ns));
        }
    }

    /// A client has come further.
    pub fn qoe_note(&mut self, client: u32, note: impl FnOnce(&mut Times)) {
        if let Some(times) = self.times.get_mut(&client) {
            note(times);
        }
    }

    /// A client is where it wanted to be.
    pub fn qoe_end(&mut self, client: u32) {
        let Some(times) = self.times.remove(&client) else { return };
        for (timing, ns) in [
            (Timing::TcpHandshake, times.tcp_ns),
            (Timing::Handshake, times.handshake_ns),
            (Timing::Connect, times.connect_ns),
            (Timing::Subscribe, times.subscribe_ns),
        ] {
            if let Some(ns) = ns {
                self.stats.timing(timing, ns / 1_000_000);
            }
        }
        let _ = self.rows.send(Row { index: self.index(client), times });
    }

    /// A client has failed on the way.
    pub fn qoe_forget(&mut self, client: u32) {
        self.times.remove(&client);
    }

    /// Messages of the limit that are done.
    pub fn finish(&self, messages: u64) {
        self.stats.finish(messages);
    }

    /// The next message of all clients: its number from 1, if the limit allows it. Without a limit, and if no topic needs
    /// the number, the threads do not share the counter.
    pub fn claim(&self, limit: u64, is_numbered: bool) -> Option<u64> {
        if limit == 0 && !is_numbered {
            return Some(0);
        }
        let number = self.shared.claimed.fetch_add(1, Relaxed) + 1;
        (limit == 0 || number <= limit).then_some(number)
    }
}

/// How many of `count` clients a thread has.
pub fn clients_of(count: u32, thread: u32, threads: u32) -> u32 {
    (count + threads - 1 - thread) / threads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_the_clients_without_rest() {
        for (count, threads) in [(1, 1), (10, 3), (11, 3), (12, 3), (2, 2), (1_000_000, 7)] {
            let sum: u32 = (0..threads).map(|thread| clients_of(count, thread, threads)).sum();
            assert_eq!(sum, count);
        }
        assert_eq!(clients_of(10, 0, 3), 4);
    }
}
