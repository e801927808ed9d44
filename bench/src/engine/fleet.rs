//! The threads of a run: an engine on a reactor each.

use std::sync::Arc;

use crossbeam_channel::Sender;
use reactor::{
    ProbeError, Reactor, ReactorSettings, ReactorSetup, RingTable, ShardThread, StartError,
};
use ring::Mesh;

use super::{Agent, Engine};

/// What the threads have in common.
#[derive(Clone, Debug)]
pub struct FleetSetup {
    /// Threads.
    pub threads: usize,
    /// The CPUs they run on, in turn; not empty.
    pub cpus: Vec<usize>,
}

/// The threads could not be started.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum FleetError {
    /// {0}
    Probe(#[from] ProbeError),
    /// {0}
    Start(#[from] StartError),
}

/// Engines that run.
#[derive(Debug)]
pub struct Fleet<C> {
    threads: Vec<(Sender<C>, ShardThread)>,
}

impl<C: Send + 'static> Fleet<C> {
    /// Starts the threads and waits until all are up. `make` gives for each what makes its agent, on its thread, and the
    /// number of its clients.
    ///
    /// # Errors
    /// If `io_uring` cannot be used here, or a thread cannot be started.
    pub fn start<A, B>(
        setup: &FleetSetup,
        mut make: impl FnMut(usize) -> (B, u32),
    ) -> Result<Fleet<C>, FleetError>
    where
        A: Agent<Command = C>,
        B: FnOnce() -> A + Send + 'static,
    {
        reactor::raise_open_files();
        let features = reactor::probe(setup.threads)?.features;
        let table = Arc::new(RingTable::new(setup.threads));
        let endpoints = Mesh::build::<(), ()>(setup.threads, 2, 2);
        let mut threads = Vec::with_capacity(setup.threads);
        for (thread, endpoint) in endpoints.into_iter().enumerate() {
            let (sender, commands) = crossbeam_channel::unbounded();
            let (build, clients) = make(thread);
            let waker = endpoint.waker();
            let handle = Reactor::spawn(ReactorSetup {
                id: endpoint.id(),
                cpu: setup.cpus[thread % setup.cpus.len()],
                build: Box::new(move || Engine::new(build(), clients, endpoint)),
                listeners: Vec::new(),
                table: Arc::clone(&table),
                filters: Arc::default(),
                commands,
                waker,
                settings: ReactorSettings::default(),
                features,
            })?;
            threads.push((sender, handle));
        }
        table.wait_up()?;
        Ok(Fleet { threads })
    }

    /// Tells every thread.
    pub fn send(&self, command: impl Fn() -> C) {
        for (sender, thread) in &self.threads {
            // A thread that has ended needs to hear nothing.
            if sender.send(command()).is_ok() {
                thread.wake.wake();
            }
        }
    }

    /// Whether all threads have ended.
    #[must_use]
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
