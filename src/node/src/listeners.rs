//! Listeners while the node runs: which accept, and how one is stopped and started (SEED-LSN-19).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::{ListenerSettings, Settings};
use displaydoc::Display;
use reactor::{ListenerError, ShardThread};
use shard::ListenerId;
use shard::command::Request;
use thiserror::Error;

use crate::action::{ListenerInfo, ListenerName};
use crate::links::{LinkError, Links};

/// Time the shards have to end the clients of a listener.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a listener was not started or stopped.
#[derive(Debug, Display, Error)]
pub enum ListenerActionError {
    /// there is no such listener; `ringmq listeners` lists them
    Unknown,
    /// {0} listeners have this port; name one by its address or its name
    Several(usize),
    /// it runs already
    Runs,
    /// it is stopped already
    Stopped,
    /// {0}
    Bind(#[from] ListenerError),
    /// {0}
    Link(#[from] LinkError),
}

/// The listeners of the settings. Each keeps its place: stopped, it only waits to be started.
#[derive(Debug)]
pub(crate) struct NodeListeners {
    /// With the addresses they are bound to: one whose port the kernel picked is started on the same again.
    settings: Vec<ListenerSettings>,
    infos: Mutex<Vec<ListenerInfo>>,
    /// Held by who starts or stops one, as that takes time.
    change: Mutex<()>,
}

/// A panic elsewhere stops the process; a poisoned lock is met only in tests.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NodeListeners {
    /// All of them run.
    pub fn new(settings: &Settings, infos: Vec<ListenerInfo>) -> NodeListeners {
        let bound = |(listener, info): (&ListenerSettings, &ListenerInfo)| ListenerSettings {
            address: info.address,
            ..listener.clone()
        };
        NodeListeners {
            settings: settings.listeners.iter().zip(&infos).map(bound).collect(),
            infos: Mutex::new(infos),
            change: Mutex::new(()),
        }
    }

    /// What is known of them here; the shards know of their clients.
    pub fn infos(&self) -> Vec<ListenerInfo> {
        lock(&self.infos).clone()
    }

    /// Starts one.
    pub fn start(
        &self,
        name: &ListenerName,
        links: &Links,
        threads: &Mutex<Vec<ShardThread>>,
    ) -> Result<(), ListenerActionError> {
        let _change = lock(&self.change);
        let number = find(&self.settings, name)?;
        if lock(&self.infos)[number].running {
            return Err(ListenerActionError::Runs);
        }
        self.start_it(number, links, threads)
    }

    /// Stops one: its sockets close, its clients are told and closed.
    pub fn stop(
        &self,
        name: &ListenerName,
        links: &Links,
        threads: &Mutex<Vec<ShardThread>>,
    ) -> Result<(), ListenerActionError> {
        let _change = lock(&self.change);
        let number = find(&self.settings, name)?;
        if !lock(&self.infos)[number].running {
            return Err(ListenerActionError::Stopped);
        }
        self.stop_it(number, links, threads)
    }

    /// Stops one, if it runs, and starts it.
    pub fn restart(
        &self,
        name: &ListenerName,
        links: &Links,
        threads: &Mutex<Vec<ShardThread>>,
    ) -> Result<(), ListenerActionError> {
        let _change = lock(&self.change);
        let number = find(&self.settings, name)?;
        if lock(&self.infos)[number].running {
            self.stop_it(number, links, threads)?;
        }
        self.start_it(number, links, threads)
    }

    fn start_it(
        &self,
        number: usize,
        links: &Links,
        threads: &Mutex<Vec<ShardThread>>,
    ) -> Result<(), ListenerActionError> {
        let id = id(number);
        let bound = reactor::bind_one(id, &self.settings, links.shards())?;
        links.ask_all(&Request::ListenerStart(id), STOP_TIMEOUT)?;
        for (thread, socket) in lock(threads).iter().zip(bound) {
            thread.add_listener(socket);
        }
        lock(&self.infos)[number].running = true;
        log::info!(
            "listener {} on {} is started",
            self.name(number),
            self.settings[number].address
        );
        Ok(())
    }

    fn stop_it(
        &self,
        number: usize,
        links: &Links,
        threads: &Mutex<Vec<ShardThread>>,
    ) -> Result<(), ListenerActionError> {
        let id = id(number);
        lock(&self.infos)[number].running = false;
        lock(threads).iter().for_each(|thread| thread.remove_listener(id));
        links.ask_all(&Request::ListenerStop(id), STOP_TIMEOUT)?;
        log::info!(
            "listener {} on {} is stopped",
            self.name(number),
            self.settings[number].address
        );
        Ok(())
    }

    fn name(&self, number: usize) -> String {
        let ListenerSettings { kind, name, .. } = &self.settings[number];
        format!("{kind}.{name}")
    }
}

fn id(number: usize) -> ListenerId {
    ListenerId(u16::try_from(number).expect("few listeners"))
}

/// The listener someone means: by its name, else by its address or port.
fn find(settings: &[ListenerSettings], name: &ListenerName) -> Result<usize, ListenerActionError> {
    let of_kind = || settings.iter().enumerate().filter(|(_, one)| one.kind == name.kind);
    if let Some((number, _)) = of_kind().find(|(_, one)| one.name == name.name) {
        return Ok(number);
    }
    let port = name.name.parse::<u16>().ok();
    let fits = |one: &ListenerSettings| match port {
        Some(port) => one.address.port() == port,
        None => one.address.to_string() == name.name,
    };
    let found: Vec<usize> = of_kind().filter(|(_, one)| fits(one)).map(|(n, _)| n).collect();
    match found[..] {
        [] => Err(ListenerActionError::Unknown),
        [number] => Ok(number),
        _ => Err(ListenerActionError::Several(found.len())),
    }
}

#[cfg(test)]
mod tests {
    use config::{ListenerKind, LoadRequest};

    use super::*;

    #[test]
    fn listeners_are_found_by_name_port_and_address() {
        let set = [
            ("listener.tcp.a", "127.0.0.1:1884"),
            ("listener.tcp.b", "127.0.0.2:1884"),
            ("listener.tcp.1883", "127.0.0.1:1999"),
            ("listener.ws.a", "8083"),
        ];
        let set = set.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let request = LoadRequest { set: set.to_vec(), ..LoadRequest::default() };
        let settings = Settings::load(&request).unwrap().0.listeners;
        let found = |kind, name: &str| {
            find(&settings, &ListenerName { kind, name: name.to_owned() })
                .map(|number| settings[number].key())
                .map_err(|error| error.to_string())
        };
        let tcp = ListenerKind::Tcp;
        assert_eq!(found(tcp, "a").unwrap(), "listener.tcp.a");
        assert_eq!(found(ListenerKind::Ws, "a").unwrap(), "listener.ws.a");
        assert_eq!(found(ListenerKind::Ws, "8083").unwrap(), "listener.ws.a");
        assert_eq!(found(tcp, "127.0.0.2:1884").unwrap(), "listener.tcp.b");
        assert_eq!(found(tcp, "1883").unwrap(), "listener.tcp.1883", "a name goes before a port");
        assert!(found(tcp, "1884").unwrap_err().starts_with("2 listeners have this port"));
        assert!(found(tcp, "8083").unwrap_err().starts_with("there is no such listener"));
    }
}
