//! A bare TCP echo (or relay) server: what the kernel itself costs for the same bytes.

use crate::cli::{EchoArgs, EchoMode};
use crate::error::BenchError;
use crate::sys;
use crate::sys::epoll::{Epoll, Events};
use crate::sys::ring::{Completion, EchoRing};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// The token of the listener.
const LISTENER: u64 = u64::MAX;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4_096;
/// Bytes read at once.
const READ_LEN: usize = 64 * 1024;

/// Serves until it is killed.
pub fn serve(args: &EchoArgs) -> Result<(), BenchError> {
    if let Some(cpu) = args.cpu {
        sys::pin(&[cpu]).map_err(|source| BenchError::Pin { cpus: vec![cpu], source })?;
    }
    let limit = sys::raise_file_limit().map_err(BenchError::io("cannot raise the file limit"))?;
    let listener = TcpListener::bind(args.listen).map_err(BenchError::io("cannot listen"))?;
    sys::lengthen_backlog(&listener, BACKLOG).map_err(BenchError::io("cannot listen"))?;
    println!("echo on {} ({:?}), process {}", args.listen, args.mode, std::process::id());
    match args.mode {
        EchoMode::Epoll => epoll(&listener, args.relay),
        EchoMode::Uring => {
            let slots = u32::try_from(limit).unwrap_or(u32::MAX).min(1 << 20);
            uring(&listener, slots, args.relay)
        }
    }
    .map_err(BenchError::io("the echo server failed"))
}

struct Peer {
    stream: TcpStream,
    outgoing: Vec<u8>,
}

fn epoll(listener: &TcpListener, relay: bool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    epoll.add(listener, LISTENER)?;
    let mut events = Events::new(1024);
    let mut peers: HashMap<u64, Peer> = HashMap::new();
    let mut next = 0;
    let mut buffer = vec![0; READ_LEN];
    loop {
        epoll.wait(&mut events, Duration::from_secs(3_600))?;
        for index in 0..events.len() {
            let event = events.get(index);
            if event.token == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    epoll.add(&stream, next)?;
                    peers.insert(next, Peer { stream, outgoing: Vec::new() });
                    next += 1;
                }
                continue;
            }
            let Some(peer) = peers.get_mut(&event.token) else { continue };
            let mut is_closed = event.writable && flush(peer).is_err();
            while event.readable && !is_closed {
                let Some(peer) = peers.get_mut(&event.token) else { break };
                let len = match peer.stream.read(&mut buffer) {
                    Ok(0) => 0,
                    Ok(len) => len,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => 0,
                };
                is_closed = len == 0;
                let to = if relay { event.token ^ 1 } else { event.token };
                if let Some(target) = peers.get_mut(&to) {
                    send(target, &buffer[..len]);
                }
                if len < buffer.len() {
                    break;
                }
            }
            if is_closed {
                peers.remove(&event.token);
            }
        }
    }
}

fn send(peer: &mut Peer, bytes: &[u8]) {
    let mut sent = 0;
    if peer.outgoing.is_empty() && !bytes.is_empty() {
        // A failure is seen again when this connection is read.
        sent = peer.stream.write(bytes).unwrap_or(0);
    }
    peer.outgoing.extend_from_slice(&bytes[sent..]);
}

fn flush(peer: &mut Peer) -> io::Result<()> {
    while !peer.outgoing.is_empty() {
        match peer.stream.write(&peer.outgoing) {
            Ok(len) => {
                peer.outgoing.drain(..len);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A connection of the io_uring server; the slot of the descriptor is its index.
#[derive(Default)]
struct Slot {
    is_open: bool,
    is_sending: bool,
    outgoing: Vec<u8>,
    spare: Vec<u8>,
    /// Where its bytes go.
    partner: Option<u32>,
}

fn uring(listener: &TcpListener, limit: u32, relay: bool) -> io::Result<()> {
    let mut ring = EchoRing::new(listener, limit)?;
    let mut slots: Vec<Slot> = Vec::new();
    let mut unpaired = None;
    let index_of = |slot: u32| usize::try_from(slot).expect("u32 fits");
    loop {
        match ring.next()? {
            Completion::Accepted(slot) => {
                let index = index_of(slot);
                if slots.len() <= index {
                    slots.resize_with(index + 1, Slot::default);
                }
                let partner = if relay { unpaired.take() } else { Some(slot) };
                slots[index] = Slot { is_open: true, partner, ..Slot::default() };
                match partner {
                    Some(partner) => slots[index_of(partner)].partner = Some(slot),
                    None => unpaired = Some(slot),
                }
                ring.receive(slot)?;
            }
            Completion::Received { slot, buffer, len } => {
                if let Some(to) = slots[index_of(slot)].partner {
                    let target = &mut slots[index_of(to)];
                    target.outgoing.extend_from_slice(ring.bytes(buffer, len));
                    start_send(&mut ring, target, to)?;
                }
                ring.recycle(buffer);
            }
            Completion::Sent(slot, len) => {
                let state = &mut slots[index_of(slot)];
                state.is_sending = false;
                let mut bytes = ring.take_sent(slot);
                if len < bytes.len() && len > 0 {
                    bytes.drain(..len);
                    bytes.append(&mut state.outgoing);
                    state.outgoing = bytes;
                } else {
                    bytes.clear();
                    state.spare = bytes;
                }
                if state.is_open {
                    start_send(&mut ring, state, slot)?;
                } else {
                    ring.close(slot)?;
                }
            }
            Completion::Ended(slot) => {
                let state = &mut slots[index_of(slot)];
                state.is_open = false;
                if unpaired == Some(slot) {
                    unpaired = None;
                }
                if !state.is_sending {
                    ring.close(slot)?;
                }
            }
        }
    }
}

fn start_send(ring: &mut EchoRing, state: &mut Slot, slot: u32) -> io::Result<()> {
    if state.is_open && !state.is_sending && !state.outgoing.is_empty() {
        state.is_sending = true;
        let spare = mem::take(&mut state.spare);
        ring.send(slot, mem::replace(&mut state.outgoing, spare))?;
    }
    Ok(())
}
