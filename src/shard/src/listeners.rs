//! How many clients each listener has, and why its connections ended (SEED-LSN-07, SEED-LSN-20).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::command::ListenerRow;
use crate::effect::ListenerId;

/// The clients of a listener, of all shards together. The one thing shards share besides the mesh: `max_clients`
/// is a limit of the listener, and the kernel does not spread its connections evenly. It is touched when a
/// connection comes and goes, never by a message.
#[derive(Debug)]
pub struct ListenerClients {
    max: u32,
    current: AtomicU32,
}

impl ListenerClients {
    /// For a listener that takes at most `max` clients.
    #[must_use]
    pub const fn new(max: u32) -> Self {
        Self { max, current: AtomicU32::new(0) }
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
    ended: Vec<BTreeMap<&'static str, u64>>,
}

impl Listeners {
    pub fn new(clients: Arc<[ListenerClients]>) -> Self {
        let here = vec![0; clients.len()];
        let ended = clients.iter().map(|_| BTreeMap::new()).collect();
        Self { clients, here, ended }
    }

    /// A connection came; false if the listener has as many as it may.
    pub fn enter(&mut self, listener: ListenerId) -> bool {
        let entered = self.clients[usize::from(listener.0)].enter();
        self.here[usize::from(listener.0)] += u32::from(entered);
        entered
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
