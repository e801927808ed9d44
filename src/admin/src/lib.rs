//! The control plane: the admin socket, signals and the `$SYS` publisher, on one tokio runtime of one thread.
//!
//! Nothing here runs on a shard's core loop, and nothing here can make a shard wait: what is asked goes through
//! [`node::Node::perform`] on a thread that may wait.
#![forbid(unsafe_code)]

mod data_folder;
pub mod protocol;
mod server;
mod signals;
pub mod store_line;
mod sys;
pub mod text;
mod vm;

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use displaydoc::Display;
use node::Node;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

pub use data_folder::{DataFolder, DataFolderError, FolderLock, Launch};

/// Why the control plane did not start.
#[derive(Debug, Display, Error)]
pub enum AdminError {
    /// cannot start the control plane: {0}
    Runtime(io::Error),
}

/// What the control plane tells the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `stop` was asked for over the admin socket.
    Stop,
    /// A signal asks for an orderly end: its name.
    Signal(&'static str),
}

/// The running control plane.
#[derive(Debug)]
pub struct Admin {
    events: mpsc::UnboundedReceiver<Event>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Serves the admin socket, takes the signals and, unless `sys_interval` is zero, publishes `$SYS` messages.
    ///
    /// # Errors
    /// [`AdminError::Runtime`].
    pub fn start(
        socket: UnixListener,
        node: Arc<Node>,
        sys_interval: Duration,
    ) -> Result<Admin, AdminError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("ringmq-admin")
            .build()
            .map_err(AdminError::Runtime)?;
        let entered = runtime.enter();
        let socket = tokio::net::UnixListener::from_std(socket).map_err(AdminError::Runtime)?;
        let signals = signals::Signals::new().map_err(AdminError::Runtime)?;
        drop(entered);
        let (events_in, events) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            runtime.spawn(server::serve(socket, Arc::clone(&node), events_in.clone()));
            runtime.spawn(signals.watch(Arc::clone(&node), events_in));
            if !sys_interval.is_zero() {
                runtime.spawn(sys::publish_alarms(Arc::clone(&node)));
                runtime.spawn(sys::publish(node, sys_interval));
            }
            // Ends when `stop` is sent to or dropped.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new()
            .name("ringmq-admin".to_owned())
            .spawn(run)
            .map_err(AdminError::Runtime)?;
        Ok(Admin { events, stop, thread })
    }

    /// Waits for the next event. None: the control plane has ended.
    pub fn wait(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }

    /// Ends the control plane: no request is answered any more.
    pub fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}
