//! The sends in flight. Idle connections have no place here.
//!
//! An entry owns the buffers from the submission to the last completion; then they go back to the shard.
//!
//! A small send is *eager*: it may not wait (`MSG_DONTWAIT`), so the kernel does it while it takes the submission, and it
//! makes a completion only if it could not send all. Whoever has seen the completions that were there right after the enter
//! knows that the others are done (`lanes::Lane`). That saves one of two enters per message on a connection with little traffic.

use io_uring::{opcode, squeue, types};
use shard::{ConnectionId, Outgoing};

use crate::ops::{Op, Tag};

/// Most buffers of one `sendmsg` (`IOV_MAX`).
const IOVECS_MAX: usize = 1024;
/// Most bytes of one send; the length field has 32 bits and the kernel cuts at 2 GiB.
const SEND_BYTES_MAX: usize = 1 << 30;
/// Most bytes of an eager send. A larger one is often cut short, and its end is news the shard waits for.
pub(crate) const EAGER_BYTES_MAX: usize = 64 << 10;
/// Entries kept when nothing is in flight.
const IDLE_ENTRIES_MAX: usize = 1024;

/// A `msghdr` and its buffers, at a stable address.
struct Gather {
    header: libc::msghdr,
    iovecs: Vec<libc::iovec>,
}

/// One send.
struct Sending {
    id: ConnectionId,
    /// None: the entry is free.
    outgoing: Option<Outgoing>,
    total: usize,
    sent: usize,
    gather: Option<Box<Gather>>,
    /// It makes no completion if it succeeds.
    eager: bool,
    /// Which of all sends it is: entries are used again.
    serial: u64,
}

/// The sends of one shard.
#[derive(Default)]
pub(crate) struct Sends {
    entries: Vec<Sending>,
    free: Vec<u32>,
    /// Sends so far.
    started: u64,
    /// Gathers that were used and wait for the next.
    #[allow(clippy::vec_box, reason = "the kernel holds their address")]
    gathers: Vec<Box<Gather>>,
}

/// An eager send, by its entry and its number among all sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EagerSend {
    number: u32,
    serial: u64,
}

/// What became of a send after a completion.
pub(crate) enum Progress {
    /// Part is sent: submit the entry again.
    Short,
    /// All is sent, or it failed with this errno: the buffers go back.
    Done(Outgoing, Result<(), i32>),
}

impl Sends {
    /// Takes what is to be sent; gives the entry's number.
    pub(crate) fn start(
        &mut self,
        id: ConnectionId,
        outgoing: Outgoing,
        total: usize,
        eager: bool,
    ) -> u32 {
        self.started += 1;
        let serial = self.started;
        let outgoing = Some(outgoing);
        let sending = Sending { id, outgoing, total, sent: 0, gather: None, eager, serial };
        if let Some(number) = self.free.pop() {
            self.entries[number as usize] = sending;
            number
        } else {
            self.entries.push(sending);
            u32::try_from(self.entries.len() - 1).expect("one send per connection")
        }
    }

    /// What tells an eager send from the others that use its entry.
    pub(crate) fn eager(&self, number: u32) -> EagerSend {
        EagerSend { number, serial: self.entries[number as usize].serial }
    }

    /// Ends an eager send that is done: the completions after its enter were seen. None: it had one, or goes on as an ordinary send.
    pub(crate) fn finish_eager(&mut self, send: EagerSend) -> Option<(ConnectionId, Outgoing)> {
        // All entries may have been given up in the meantime, when none was in use.
        let sending = self.entries.get_mut(send.number as usize)?;
        if !sending.eager || sending.serial != send.serial {
            return None;
        }
        let (id, outgoing) = (sending.id, sending.outgoing.take()?);
        self.release(send.number);
        Some((id, outgoing))
    }

    /// Makes an entry an ordinary send; whether it was an eager one, of which the kernel owes no completion.
    pub(crate) fn end_eager(&mut self, number: u32) -> bool {
        std::mem::take(&mut self.entries[number as usize].eager)
    }

    fn release(&mut self, number: u32) {
        if let Some(gather) = self.entries[number as usize].gather.take() {
            self.gathers.push(gather);
        }
        self.free.push(number);
        if self.free.len() == self.entries.len() && self.entries.len() > IDLE_ENTRIES_MAX {
            // A big fan-out is over.
            *self = Self { started: self.started, ..Self::default() };
        }
    }

    /// The operation that sends what is left of an entry on its direct descriptor. It points into the entry's buffers.
    pub(crate) fn operation(&mut self, number: u32, fd: types::Fixed) -> squeue::Entry {
        let sending = &mut self.entries[number as usize];
        let tag = Tag::of(Op::Send, sending.id);
        let (wait, skip) = if sending.eager {
            (libc::MSG_DONTWAIT, squeue::Flags::SKIP_SUCCESS)
        } else {
            (0, squeue::Flags::empty())
        };
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | wait;
        let rest = match sending.outgoing.as_ref().expect("an entry in flight has its buffers") {
            Outgoing::Bytes(bytes) => &bytes[sending.sent..],
            Outgoing::Shared(bytes) => &bytes[sending.sent..],
            Outgoing::Segments(segments) if segments.len() == 1 => &segments[0][sending.sent..],
            Outgoing::Segments(segments) => {
                let gather = sending.gather.get_or_insert_with(|| {
                    self.gathers.pop().unwrap_or_else(|| Box::new(Gather::new()))
                });
                gather.fill(segments, sending.sent);
                return opcode::SendMsg::new(fd, &raw const gather.header)
                    .flags(flags.cast_unsigned())
                    .build()
                    .flags(skip)
                    .user_data(tag.0);
            }
        };
        let len = u32::try_from(rest.len().min(SEND_BYTES_MAX)).expect("at most a gibibyte");
        opcode::Send::new(fd, rest.as_ptr(), len).flags(flags).build().flags(skip).user_data(tag.0)
    }

    /// Notes a completion's result. `go_on`: whether a short send is worth continuing.
    pub(crate) fn completed(&mut self, number: u32, result: i32, go_on: bool) -> Progress {
        let sending = &mut self.entries[number as usize];
        let outcome = match u32::try_from(result) {
            // A send that takes nothing makes no progress; it never would.
            Ok(0) => Err(libc::EPIPE),
            Ok(bytes) => {
                sending.sent += bytes as usize;
                assert!(sending.sent <= sending.total, "the kernel sends what it was given");
                if sending.sent == sending.total {
                    Ok(())
                } else if go_on {
                    return Progress::Short;
                } else {
                    Err(libc::ECANCELED)
                }
            }
            Err(_) if matches!(-result, libc::EINTR | libc::EAGAIN) && go_on => {
                return Progress::Short;
            }
            Err(_) => Err(-result),
        };
        let outgoing = sending.outgoing.take().expect("an entry in flight has its buffers");
        self.release(number);
        Progress::Done(outgoing, outcome)
    }

    /// Sends in flight.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

impl Gather {
    /// An empty one.
    fn new() -> Self {
        // SAFETY: all-zero is a msghdr without name, buffers and control data.
        let header = unsafe { std::mem::zeroed() };
        Self { header, iovecs: Vec::new() }
    }

    /// Lists the bytes from `skip` on, as many buffers as one call takes.
    fn fill(&mut self, segments: &[bytes::Bytes], mut skip: usize) {
        self.iovecs.clear();
        for segment in segments {
            if skip >= segment.len() {
                skip -= segment.len();
                continue;
            }
            if self.iovecs.len() == IOVECS_MAX {
                break;
            }
            let rest = &segment[skip..];
            skip = 0;
            self.iovecs.push(libc::iovec {
                // The kernel only reads it.
                iov_base: rest.as_ptr().cast_mut().cast(),
                iov_len: rest.len(),
            });
        }
        self.header.msg_iov = self.iovecs.as_mut_ptr();
        self.header.msg_iovlen = self.iovecs.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const ID: ConnectionId = ConnectionId { index: 3, generation: 9 };

    #[test]
    fn a_short_send_goes_on_where_it_stopped() {
        let mut sends = Sends::default();
        let number = sends.start(ID, Outgoing::Bytes(vec![1; 10]), 10, false);
        assert!(matches!(sends.completed(number, 4, true), Progress::Short));
        assert!(matches!(sends.completed(number, 6, true), Progress::Done(_, Ok(()))));
        assert_eq!(sends.in_flight(), 0);
        let number = sends.start(ID, Outgoing::Bytes(vec![1; 10]), 10, false);
        assert!(matches!(
            sends.completed(number, 4, false),
            Progress::Done(_, Err(libc::ECANCELED))
        ));
        let number = sends.start(ID, Outgoing::Bytes(vec![1; 10]), 10, false);
        assert!(matches!(sends.completed(number, 0, true), Progress::Done(_, Err(libc::EPIPE))));
        let number = sends.start(ID, Outgoing::Bytes(vec![1; 10]), 10, false);
        assert!(matches!(
            sends.completed(number, -libc::ECONNRESET, true),
            Progress::Done(_, Err(libc::ECONNRESET))
        ));
    }

    #[test]
    fn an_eager_send_is_done_unless_a_completion_says_otherwise() {
        let mut sends = Sends::default();
        let other = ConnectionId { index: 4, generation: 1 };
        let short = sends.start(ID, Outgoing::Bytes(vec![1; 10]), 10, true);
        let whole = sends.start(other, Outgoing::Bytes(vec![1; 5]), 5, true);
        let (first, second) = (sends.eager(short), sends.eager(whole));
        assert!(sends.end_eager(short));
        assert!(matches!(sends.completed(short, 4, true), Progress::Short));
        assert!(sends.finish_eager(first).is_none(), "it goes on as an ordinary send");
        assert!(matches!(sends.finish_eager(second), Some((id, _)) if id == other));
        assert!(!sends.end_eager(short));
        // Its entry is used again before the first was looked for.
        let again = sends.start(other, Outgoing::Bytes(vec![1; 5]), 5, true);
        assert_eq!(again, whole);
        assert!(sends.finish_eager(second).is_none(), "another send has its entry");
        let third = sends.eager(again);
        assert!(sends.finish_eager(third).is_some());
        assert!(matches!(sends.completed(short, 6, true), Progress::Done(_, Ok(()))));
        assert_eq!(sends.in_flight(), 0);
    }

    #[test]
    fn segments_are_listed_from_the_first_unsent_byte() {
        let mut gather = Gather::new();
        let segments = [Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"defg")];
        gather.fill(&segments, 0);
        assert_eq!(gather.iovecs.iter().map(|i| i.iov_len).collect::<Vec<_>>(), [3, 4]);
        gather.fill(&segments, 3);
        assert_eq!(gather.iovecs.iter().map(|i| i.iov_len).collect::<Vec<_>>(), [4]);
        gather.fill(&segments, 5);
        assert_eq!(gather.iovecs[0].iov_len, 2);
        assert_eq!(gather.iovecs[0].iov_base, segments[2][2..].as_ptr().cast_mut().cast());
        gather.fill(&vec![Bytes::from_static(b"x"); 2000], 10);
        assert_eq!(gather.header.msg_iovlen, 1024);
    }
}
