//! The threads of a run: an engine on each.

use std::sync::Arc;

use crossbeam_channel::Sender;
use reactor::{Reactor, ReactorSettings, ReactorSetup, RingTable, ShardThread};
use ring::Mesh;

use super::{Agent, Engine};

/// What the threads have in common.
#[derive(Clone, Debug)]
pub struct FleetSetup {
    /// Threads.
    pub threads: usize,
    /// The CPUs they run on, in turn.
    pub cpus: Vec<usize>,
}

/// The threads could not be started.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum FleetError {
    /// {0}
    Start(String),
}

/// Engines that run.
#[derive(Debug)]
pub struct Fleet<C> {
    threads: Vec<(Sender<C>, ShardThread)>,
}

impl<C: Send + 'static> Fleet<C> {
    /// Starts the threads. `make` gives the agent of each and the number of its clients.
    ///
    /// # Errors
    /// If io_uring cannot be used here, or a thread cannot be started.
    pub fn start<A: Agent<Command = C> + Send>(
        setup: &FleetSetup,
        mut make: impl FnMut(usize) -> (A, u32),
    ) -> Result<Fleet<C>, FleetError> {
        let probed = reactor::probe(setup.threads);
        let features = probed.map_err(|error| FleetError::Start(error.to_string()))?.features;
        let table = Arc::new(RingTable::new(setup.threads));
        let mut threads = Vec::new();
        for endpoint in Mesh::build::<(), ()>(setup.threads, 2, 2) {
            let (sender, commands) = crossbeam_channel::unbounded();
            let id = endpoint.id();
            let (agent, clients) = make(id.index());
            let waker = endpoint.waker();
            let thread = Reactor::spawn(ReactorSetup {
                id,
                cpu: setup.cpus[id.index() % setup.cpus.len()],
                build: Box::new(move || Engine::new(agent, clients, endpoint)),
                listeners: Vec::new(),
                table: Arc::clone(&table),
                commands,
                waker,
                settings: ReactorSettings::default(),
                features,
            });
            threads.push((sender, thread.map_err(|error| FleetError::Start(error.to_string()))?));
        }
        table.wait_up().map_err(|error| FleetError::Start(error.to_string()))?;
        Ok(Fleet { threads })
    }

    /// Tells every thread.
    pub fn send(&self, command: impl Fn() -> C) {
        for (sender, thread) in &self.threads {
            let _ = sender.send(command());
            thread.wake.wake();
        }
    }

    /// Whether all threads have ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(|(_, thread)| thread.is_finished())
    }

    /// Waits for the end of all threads.
    pub fn join(self) {
        for (_, thread) in self.threads {
            thread.join();
        }
    }
}
