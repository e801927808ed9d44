//! Buffers, only for connections in which bytes wait.

use super::connections::NONE;

/// A larger buffer is not kept when it is empty.
const KEPT_BYTES_MAX: usize = 64 << 10;
/// Empty buffers kept.
const KEPT_MAX: usize = 4096;

/// The buffers of one connection.
#[derive(Debug, Default)]
pub struct Io {
    /// The begin of a packet whose end has not come.
    pub partial: Vec<u8>,
    /// What is to be sent.
    pub outbox: Vec<u8>,
}

/// All of a thread, and the empty ones that wait to be used again.
#[derive(Debug, Default)]
pub struct Ios {
    entries: Vec<Io>,
    free: Vec<u32>,
    spare: Vec<Vec<u8>>,
}

impl Ios {
    /// The buffers named in `io`, which is set if there were none.
    pub fn need(&mut self, io: &mut u32) -> &mut Io {
        if *io == NONE {
            *io = self.free.pop().unwrap_or_else(|| {
                self.entries.push(Io::default());
                u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 connections")
            });
            if self.entry(*io).outbox.capacity() == 0 {
                self.entry(*io).outbox = self.spare.pop().unwrap_or_default();
            }
        }
        self.entry(*io)
    }

    /// The buffers, if there are any.
    pub fn get(&mut self, io: u32) -> Option<&mut Io> {
        (io != NONE).then(|| self.entry(io))
    }

    fn entry(&mut self, io: u32) -> &mut Io {
        &mut self.entries[usize::try_from(io).expect("32 bits fit")]
    }

    /// Gives the buffers back if nothing is in them.
    pub fn release_empty(&mut self, io: &mut u32) {
        if self.get(*io).is_some_and(|entry| entry.outbox.is_empty() && entry.partial.is_empty()) {
            self.release(io);
        }
    }

    /// Gives the buffers back, whatever is in them.
    pub fn release(&mut self, io: &mut u32) {
        if let Some(entry) = self.get(*io) {
            let Io { partial, outbox } = std::mem::take(entry);
            self.recycle(partial);
            self.recycle(outbox);
            self.free.push(*io);
            *io = NONE;
        }
    }

    /// Takes what is to be sent.
    pub fn take_outbox(&mut self, io: u32) -> Option<Vec<u8>> {
        let spare = self.spare.pop();
        let Some(entry) = self.get(io).filter(|entry| !entry.outbox.is_empty()) else {
            self.spare.extend(spare);
            return None;
        };
        Some(std::mem::replace(&mut entry.outbox, spare.unwrap_or_default()))
    }

    /// Keeps an empty buffer for the next who needs one.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        let is_kept = (1..=KEPT_BYTES_MAX).contains(&buffer.capacity());
        if is_kept && self.spare.len() < KEPT_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_share_the_buffers_of_busy_ones() {
        let mut ios = Ios::default();
        let mut first = NONE;
        ios.need(&mut first).outbox.extend_from_slice(b"hello");
        let capacity = ios.need(&mut first).outbox.capacity();
        ios.release_empty(&mut first);
        assert_ne!(first, NONE, "it is not empty");
        let taken = ios.take_outbox(first).expect("bytes");
        assert_eq!(taken, b"hello");
        assert!(ios.take_outbox(first).is_none());
        ios.recycle(taken);
        ios.release_empty(&mut first);
        assert_eq!(first, NONE);
        let mut second = NONE;
        assert_eq!(ios.need(&mut second).outbox.capacity(), capacity);
        assert_eq!((ios.entries.len(), ios.spare.len()), (1, 0));
    }
}
