//! The threads of a run: an engine on each.

use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use ring::Mesh;

use super::{Agent, Engine};
use crate::sys;

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
    threads: Vec<(Sender<C>, JoinHandle<()>)>,
}

impl<C: Send + 'static> Fleet<C> {
    /// Starts the threads. `make` gives for each what makes its agent, on its thread, and the number of its
    /// clients.
    ///
    /// # Errors
    /// If io_uring cannot be used here, or a thread cannot be started.
    pub fn start<A, B>(
        setup: &FleetSetup,
        mut make: impl FnMut(usize) -> (B, u32),
    ) -> Result<Fleet<C>, FleetError>
    where
        A: Agent<Command = C>,
        B: FnOnce() -> A + Send + 'static,
    {
        let endpoints = Mesh::build::<(), ()>(setup.threads, 2, 2);
        let threads = endpoints
            .into_iter()
            .enumerate()
            .map(|(thread, endpoint)| {
                let (sender, commands) = crossbeam_channel::unbounded();
                let (build, clients) = make(thread);
                let handle = std::thread::spawn(move || {
                    sys::standin::run(Engine::new(build(), clients, endpoint), &commands);
                });
                (sender, handle)
            })
            .collect();
        Ok(Fleet { threads })
    }

    /// Tells every thread.
    pub fn send(&self, command: impl Fn() -> C) {
        for (sender, _) in &self.threads {
            let _ = sender.send(command());
        }
    }

    /// Whether all threads have ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(|(_, handle)| handle.is_finished())
    }

    /// Waits for the end of all threads.
    pub fn join(self) {
        for (_, handle) in self.threads {
            let _ = handle.join();
        }
    }
}
