//! How many clients each listener has, and why its connections ended (SEED-LSN-07, SEED-LSN-20).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use config::ListenerOptions;

use crate::command::ListenerRow;
use crate::effect::ListenerId;
use crate::rate::SharedRate;

/// The clients of a listener, of all shards together. One of two things shards share besides the mesh, the other is
/// [`crate::DelayedPlaces`]: `max_clients` and
/// `max_conn_rate` are limits of the listener, and the kernel does not spread its connections evenly. It is touched when a
/// connection comes and goes, never by a message.
#[derive(Debug)]
pub struct ListenerClients {
    max: u32,
    current: AtomicU32,
    rate: Option<SharedRate>,
}

impl ListenerClients {
    /// For a listener with these options.
    #[must_use]
    pub fn new(options: &ListenerOptions) -> Self {
        let rate = options.max_conn_rate.map(SharedRate::new);
        Self { max: options.max_clients, current: AtomicU32::new(0), rate }
    }

    fn enter(&self) -> bool {
        let room = |current| (current < self.max).then_some(current + 1);
        self.current.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    fn leave(&self) {
        let before = self.current.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a client left that never came");
    }
}

/// What one shard knows of the listeners.
#[derive(Debug)]
pub(crate) struct Listeners {
    clients: Arc<[ListenerClients]>,
    here: Vec<u32>,
    stopped: Vec<bool>,
    ended: Vec<BTreeMap<&'static str, u64>>,
}

impl Listeners {
    pub fn new(clients: Arc<[ListenerClients]>) -> Self {
        let here = vec![0; clients.len()];
        let ended = clients.iter().map(|_| BTreeMap::new()).collect();
        let stopped = vec![false; clients.len()];
        Self { clients, here, stopped, ended }
    }

    /// A listener is stopped, or started again.
    pub fn set_stopped(&mut self, listener: ListenerId, is_stopped: bool) {
        self.stopped[usize::from(listener.0)] = is_stopped;
    }

    /// Whether a listener is stopped.
    pub fn is_stopped(&self, listener: ListenerId) -> bool {
        self.stopped[usize::from(listener.0)]
    }

    /// A connection came; the reason if it may not stay.
    pub fn enter(&mut self, listener: ListenerId, now_ms: u64) -> Result<(), &'static str> {
        if self.is_stopped(listener) {
            return Err("listener_stopped");
        }
        let clients = &self.clients[usize::from(listener.0)];
        if clients.rate.as_ref().is_some_and(|rate| !rate.take(now_ms)) {
            return Err("max_conn_rate"); // SEED-LSN-22
        }
        if !clients.enter() {
            return Err("max_clients"); // SEED-LSN-07
        }
        self.here[usize::from(listener.0)] += 1;
        Ok(())
    }

    /// A connection came from another shard, or went to one.
    pub fn moved(&mut self, listener: ListenerId, in_here: bool) {
        let here = &mut self.here[usize::from(listener.0)];
        *here = if in_here { *here + 1 } else { *here - 1 };
    }

    /// A connection is gone.
    pub fn leave(&mut self, listener: ListenerId) {
        self.clients[usize::from(listener.0)].leave();
        self.here[usize::from(listener.0)] -= 1;
    }

    /// Counts why a connection ends.
    pub fn count_end(&mut self, listener: ListenerId, reason: &'static str) {
        *self.ended[usize::from(listener.0)].entry(reason).or_default() += 1;
    }

    pub fn rows(&self) -> Vec<ListenerRow> {
        (0..self.here.len())
            .map(|n| ListenerRow {
                listener: ListenerId(u16::try_from(n).expect("few listeners")),
                current_clients: self.here[n],
                shutdown_count: self.ended[n].iter().map(|(&reason, &n)| (reason, n)).collect(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::desk::Desk;
    use crate::effect::{CloseMode, Effect};

    /// SEED-LSN-08
    #[test]
    fn a_denied_address_is_closed_at_once_and_counted() {
        let mut desk = Desk::new(&[
            ("listener.tcp.external.access.1", "allow 10.0.0.0/8"),
            ("listener.tcp.external.access.2", "deny all"),
        ]);
        let denied = desk.accept(0, "11.0.0.1:5");
        let allowed = desk.accept(0, "10.0.0.1:5");
        let other = desk.accept(1, "11.0.0.1:5");
        desk.tick(1, None);
        assert!(desk.asked(Effect::Close { id: denied, mode: CloseMode::Now }));
        assert!(desk.asked(Effect::StartReceive(allowed)));
        assert!(desk.asked(Effect::StartReceive(other)));
        assert_eq!((desk.ended(0, "access_denied"), desk.ended(1, "access_denied")), (1, 0));
        desk.shard.closed(denied.index);
        assert_eq!(desk.shard.listeners.rows()[0].current_clients, 1);
        // A proxy tells where it really comes from.
        assert!(desk.shard.real_address(allowed, "10.9.9.9:77".parse().unwrap()));
        assert!(!desk.shard.real_address(allowed, "[2001:db8::1]:77".parse().unwrap()));
        desk.tick(1, None);
        assert!(desk.asked(Effect::Close { id: allowed, mode: CloseMode::Now }));
        assert_eq!(desk.ended(0, "access_denied"), 2);
        desk.shard.closed(allowed.index);
        assert_eq!(desk.shard.listeners.rows()[0].current_clients, 0);
    }

    /// SEED-LSN-22
    #[test]
    fn connections_over_the_rate_are_refused_and_counted() {
        let mut desk = Desk::new(&[
            ("listener.tcp.external.max_conn_rate", "10/s,3"),
            ("listener.tcp.external.max_clients", "4"),
        ]);
        for _ in 0..5 {
            desk.accept(0, "10.0.0.1:5");
        }
        assert_eq!(desk.ended(0, "max_conn_rate"), 2);
        desk.tick(200, None);
        for _ in 0..3 {
            desk.accept(0, "10.0.0.1:5");
        }
        // Two more by the rate, of which one has room.
        assert_eq!((desk.ended(0, "max_conn_rate"), desk.ended(0, "max_clients")), (3, 1));
    }
}
