//! STAND-IN for the reactor until it opens connections: the same calls over epoll. To be deleted.

use super::epoll::{Epoll, Events};
use crate::engine::{Agent, Engine};
use crossbeam_channel::Receiver;
use reactor::Core;
use shard::{CloseMode, ConnectionId, Effect, Now, Outgoing, ReceiveEnd};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// A connection to open.
#[derive(Clone, Copy, Debug)]
pub struct Connect {
    /// Whose.
    pub token: u64,
    /// Local address.
    pub from: Option<SocketAddr>,
    /// Remote address.
    pub to: SocketAddr,
}

struct Slot {
    stream: TcpStream,
    id: Option<ConnectionId>,
    token: u64,
    sending: Option<(Vec<u8>, usize)>,
    linger: bool,
}

/// Runs an engine to its end.
pub fn run<A: Agent>(mut core: Engine<A>, commands: &Receiver<A::Command>) {
    let epoll = Epoll::new().expect("epoll");
    let mut events = Events::new(1024);
    let mut slots: HashMap<u32, Slot> = HashMap::new();
    let mut next = 0u32;
    let mut effects = Vec::new();
    let mut buffer = vec![0; 8192];
    loop {
        let unix_ms = super::unix_ns() / 1_000_000;
        core.begin_tick(Now { mono_ms: super::monotonic_ns() / 1_000_000, unix_ms });
        for at in 0..events.len() {
            let event = events.get(at);
            let index = u32::try_from(event.token).unwrap();
            let Some(slot) = slots.get_mut(&index) else { continue };
            if slot.id.is_none() {
                let error = slot.stream.take_error().ok().flatten();
                if let Some(error) = error {
                    let token = slot.token;
                    slots.remove(&index);
                    core.connect_failed(token, error.raw_os_error().unwrap());
                    continue;
                }
                if !event.writable {
                    continue;
                }
                let id = core.connected(slot.token, index);
                slot.id = Some(id);
            }
            let id = slot.id.unwrap();
            if event.writable {
                flush(&mut core, &mut slots, id);
            }
            while let Some(slot) = slots.get_mut(&index) {
                match slot.stream.read(&mut buffer) {
                    Ok(0) => {
                        core.receive_ended(id, ReceiveEnd::PeerClosed);
                        break;
                    }
                    Ok(len) => core.received(id, &buffer[..len]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => {
                        let end = ReceiveEnd::Failed(error.raw_os_error().unwrap());
                        core.receive_ended(id, end);
                        break;
                    }
                }
            }
        }
        core.take_foreign();
        core.run_inbox();
        while let Ok(command) = commands.try_recv() {
            core.command(command);
        }
        core.run_timers();
        core.finish_tick();
        loop {
            core.drain_effects(&mut effects);
            if effects.is_empty() {
                break;
            }
            for effect in effects.drain(..) {
                match effect {
                    Effect::Flush(id) => flush(&mut core, &mut slots, id),
                    Effect::Close { id, mode } => {
                        if mode == CloseMode::Linger {
                            flush(&mut core, &mut slots, id);
                        }
                        if slots.remove(&id.index).is_some_and(|slot| slot.id.is_some()) {
                            core.closed(id.index);
                        }
                    }
                    _ => {}
                }
            }
        }
        while let Some(connect) = core.next_connect() {
            let from = connect.from.map(|from| match from.ip() {
                IpAddr::V4(ip) => ip,
                IpAddr::V6(_) => unimplemented_v6(),
            });
            let SocketAddr::V4(to) = connect.to else { unimplemented_v6() };
            match super::connect(from, to, None) {
                Ok(stream) => {
                    epoll.add(&stream, u64::from(next)).unwrap();
                    let token = connect.token;
                    slots.insert(next, Slot { stream, id: None, token, sending: None, linger: false });
                    next += 1;
                }
                Err(error) => core.connect_failed(connect.token, error.raw_os_error().unwrap()),
            }
        }
        if core.is_stopped() {
            return;
        }
        let now_ns = super::monotonic_ns();
        let wait_ns = core.next_deadline_ns().map_or(u64::MAX, |at| at.saturating_sub(now_ns));
        let wait_ns = if core.prepare_park() { wait_ns.min(5_000_000) } else { 0 };
        epoll.wait(&mut events, Duration::from_nanos(wait_ns)).unwrap();
        core.unpark();
    }
}

fn unimplemented_v6() -> ! {
    panic!("no IPv6 here")
}

fn flush<A: Agent>(core: &mut Engine<A>, slots: &mut HashMap<u32, Slot>, id: ConnectionId) {
    let Some(slot) = slots.get_mut(&id.index).filter(|slot| slot.id == Some(id)) else { return };
    let _ = slot.linger;
    loop {
        if slot.sending.is_none() {
            let Some(Outgoing::Bytes(bytes)) = core.take_outgoing(id) else { return };
            slot.sending = Some((bytes, 0));
        }
        let (bytes, done) = slot.sending.as_mut().unwrap();
        match slot.stream.write(&bytes[*done..]) {
            Ok(len) => *done += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => {
                let (bytes, _) = slot.sending.take().unwrap();
                return core.sent(id, Outgoing::Bytes(bytes), Err(error.raw_os_error().unwrap()));
            }
        }
        if *done == bytes.len() {
            let (bytes, _) = slot.sending.take().unwrap();
            core.sent(id, Outgoing::Bytes(bytes), Ok(()));
        }
    }
}
