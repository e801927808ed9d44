//! Lines about single clients, at most some a second of each kind: a million failing clients do not flood the terminal.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Lines of one kind in a second.
const LINES_MAX: u64 = 10;

/// What a line is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A connect failed.
    ConnectError,
    /// A connection was lost.
    Exit,
    /// The broker said DISCONNECT.
    Disconnected,
    /// A SUBSCRIBE was refused.
    SubscribeError,
    /// A PUBLISH was refused.
    PublishError,
    /// Payload headers do not fit.
    PayloadHeader,
}

const KINDS: [(Kind, &str); 6] = [
    (Kind::ConnectError, "connect error"),
    (Kind::Exit, "EXIT"),
    (Kind::Disconnected, "disconnected"),
    (Kind::SubscribeError, "subscribe error"),
    (Kind::PublishError, "publish error"),
    (Kind::PayloadHeader, "payload header"),
];

/// Where the threads leave their lines.
#[derive(Debug)]
pub struct Lines {
    is_on: bool,
    said: [AtomicU64; KINDS.len()],
    sender: Sender<String>,
    receiver: Mutex<Receiver<String>>,
    remedies: [AtomicBool; 8],
}

impl Lines {
    /// With `is_on` off, all lines are dropped.
    pub fn new(is_on: bool) -> Lines {
        let (sender, receiver) = channel();
        Lines {
            is_on,
            said: Default::default(),
            sender,
            receiver: Mutex::new(receiver),
            remedies: Default::default(),
        }
    }

    /// Says something about a client, unless enough was said of this kind.
    pub fn say(&self, kind: Kind, client: u64, text: impl FnOnce() -> String) {
        if self.is_on && self.said[kind as usize].fetch_add(1, Relaxed) < LINES_MAX {
            let _ = self.sender.send(format!("client({client}): {}", text()));
        }
    }

    /// Says once what to do about a limit of the machine.
    pub fn remedy(&self, errno: i32, text: &str) {
        let place = usize::try_from(errno).unwrap_or(0) % self.remedies.len();
        if self.is_on && !self.remedies[place].swap(true, Relaxed) {
            let _ = self.sender.send(text.to_owned());
        }
    }

    /// What was said since the last call.
    pub fn take(&self) -> Vec<String> {
        let receiver = self.receiver.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        receiver.try_iter().collect()
    }

    /// A second is over: what was left unsaid in it, by kind.
    pub fn end_second(&self) -> Vec<String> {
        let over = KINDS.iter().filter_map(|(kind, name)| {
            let said = self.said[*kind as usize].swap(0, Relaxed);
            let more = said.saturating_sub(LINES_MAX);
            (more > 0).then(|| format!("... and {more} more of: client(...): {name}"))
        });
        over.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_number() {
        let lines = Lines::new(true);
        for client in 0..25 {
            lines.say(Kind::ConnectError, client, || "connect error - econnrefused".to_owned());
        }
        lines.say(Kind::Exit, 3, || "EXIT for {shutdown,tcp_closed}".to_owned());
        let said = lines.take();
        assert_eq!(said.len(), 11);
        assert_eq!(said[2], "client(2): connect error - econnrefused");
        assert_eq!(said[10], "client(3): EXIT for {shutdown,tcp_closed}");
        assert_eq!(lines.end_second(), ["... and 15 more of: client(...): connect error"]);
        assert!(lines.end_second().is_empty());
        lines.say(Kind::ConnectError, 1, String::new);
        assert_eq!(lines.take().len(), 1);
        lines.remedy(libc::EMFILE, "raise it");
        lines.remedy(libc::EMFILE, "raise it");
        assert_eq!(lines.take(), ["raise it"]);
    }

    #[test]
    fn null_says_nothing() {
        let lines = Lines::new(false);
        lines.say(Kind::Exit, 1, || unreachable!("nobody reads it"));
        assert!(lines.take().is_empty() && lines.end_second().is_empty());
    }
}
