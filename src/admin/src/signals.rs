//! Signals: SIGTERM and SIGINT end the broker in order, a second one at once; SIGHUP reads the access rules again.

use std::io;
use std::process;
use std::sync::Arc;

use node::{Action, Node};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task;

use crate::Event;

/// Exit code of an end that was forced by a second signal.
const EXIT_FORCED: i32 = 1;

/// The signals, caught from now on.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Must be called within a runtime.
    pub(crate) fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Tells the process of signals until the task is dropped.
    pub(crate) async fn watch(mut self, node: Arc<Node>, events: mpsc::UnboundedSender<Event>) {
        let mut ending = false;
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hangup.recv() => {
                    reload(&node);
                    continue;
                }
            };
            if ending {
                log::warn!("{name} again: ending at once");
                process::exit(EXIT_FORCED);
            }
            ending = true;
            let _ = events.send(Event::Signal(name));
        }
    }
}

fn reload(node: &Arc<Node>) {
    let node = Arc::clone(node);
    task::spawn_blocking(move || {
        match node.perform(Action::AclReload) {
            Ok(_) => log::info!("SIGHUP: the access rules are read again"),
            Err(error) => log::error!("SIGHUP: the old access rules stay: {error}"),
        }
        match node.perform(Action::CertificatesReload) {
            Ok(_) => log::info!("SIGHUP: the certificates of the listeners are read again"),
            Err(error) => log::error!("SIGHUP: {error}"),
        }
    });
}
