//! One connection: its bytes in both directions and how far its handshake is.

use crate::wire;
use std::io::{self, Read, Write};
use std::net::TcpStream;

/// How far a client is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Not opened yet.
    Planned,
    /// The TCP handshake is under way.
    Connecting,
    /// CONNECT is sent.
    AwaitConnAck,
    /// SUBSCRIBE is sent.
    AwaitSubAck,
    /// Takes part.
    Ready,
    /// Closed or failed, and counted.
    Gone,
}

/// One connection.
pub struct Client {
    /// How far it is.
    pub stage: Stage,
    /// When its connect began.
    pub opened_ns: u64,
    /// Bytes waiting to be sent; [`Client::flush`] empties it.
    pub outbox: Vec<u8>,
    /// Index of its publisher in the worker.
    pub publisher: Option<usize>,
    /// What it has heard of each publisher.
    pub tracks: Tracks,
    stream: Option<TcpStream>,
    outbox_sent: usize,
    /// Begin of a packet whose end has not come yet.
    partial: Vec<u8>,
}

/// Sequence numbers heard so far, by publisher.
#[derive(Default)]
pub struct Tracks {
    /// The first publisher that is heard.
    pub first: u32,
    /// The next expected sequence number of each.
    pub next: Vec<u32>,
}

impl Client {
    /// A client that has not been opened.
    pub fn planned(publisher: Option<usize>, tracks: Tracks) -> Client {
        Client {
            stage: Stage::Planned,
            opened_ns: 0,
            outbox: Vec::new(),
            publisher,
            tracks,
            stream: None,
            outbox_sent: 0,
            partial: Vec::new(),
        }
    }

    /// Begins with `stream`.
    pub fn opened(&mut self, stream: TcpStream, now_ns: u64) {
        self.stream = Some(stream);
        self.opened_ns = now_ns;
        self.stage = Stage::Connecting;
    }

    /// The error of a connect that has ended, if it failed.
    pub fn connect_error(&self) -> Option<io::Error> {
        self.stream.as_ref().and_then(|stream| stream.take_error().ok().flatten())
    }

    /// Bytes that the kernel has not taken yet.
    pub fn outbox_len(&self) -> usize {
        self.outbox.len() - self.outbox_sent
    }

    /// Sends what the kernel takes.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            self.outbox.clear();
            self.outbox_sent = 0;
            return Ok(());
        };
        while self.outbox_sent < self.outbox.len() {
            match stream.write(&self.outbox[self.outbox_sent..]) {
                Ok(len) => self.outbox_sent += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.outbox_sent > self.outbox.len() / 2 {
                        self.outbox.drain(..self.outbox_sent);
                        self.outbox_sent = 0;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.outbox.clear();
        self.outbox_sent = 0;
        Ok(())
    }

    /// Reads once into `buffer`, behind the bytes that were left over. `Ok(None)`: nothing there. `Ok(Some(0))`: the
    /// broker has closed. Otherwise the number of valid bytes in `buffer`, and whether there may be more to read.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<(usize, bool)>> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        loop {
            match stream.read(&mut buffer[kept..]) {
                Ok(0) => return Ok(Some((0, false))),
                Ok(len) => return Ok(Some((kept + len, kept + len == buffer.len()))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps the begin of a packet for the next read.
    pub fn keep(&mut self, rest: &[u8]) {
        self.partial.clear();
        self.partial.extend_from_slice(rest);
    }

    /// Closes at once.
    pub fn drop_stream(&mut self) {
        self.stream = None;
        self.stage = Stage::Gone;
        self.partial = Vec::new();
        self.outbox = Vec::new();
        self.outbox_sent = 0;
    }

    /// Says DISCONNECT, if the handshake was done, and closes.
    pub fn leave(&mut self, is_mqtt: bool) {
        if self.stage == Stage::Ready && is_mqtt {
            self.outbox.extend_from_slice(&wire::DISCONNECT);
            // The run is over: whether the broker still reads this does not matter.
            let _ = self.flush();
        }
        self.drop_stream();
    }
}
