//! An io_uring for the echo server: multishot accept into direct descriptors, multishot receive into provided buffers,
//! one send in flight per connection.
//!
//! Memory the kernel reads or writes lives as long as the process: the provided buffers are leaked and a send owns its
//! bytes until its completion, so no drop can free what is in use.

use io_uring::types::{BufRingEntry, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::collections::VecDeque;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

const GROUP: u16 = 0;
const BUFFERS: u16 = 4_096;
const BUFFER_LEN: u32 = 4_096;
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const CLOSE: u64 = 3;

/// What has happened.
#[derive(Clone, Copy, Debug)]
pub enum Completion {
    /// A connection has come, in this slot.
    Accepted(u32),
    /// Bytes have come into provided buffer `buffer`; give it back with [`EchoRing::recycle`].
    Received {
        /// The connection's slot.
        slot: u32,
        /// The provided buffer.
        buffer: u16,
        /// Valid bytes in it.
        len: usize,
    },
    /// No more bytes will come: the peer has closed, or the connection failed.
    Ended(u32),
    /// The send of this slot is over; whether it failed the receive side will tell. Bytes the kernel took.
    Sent(u32, usize),
}

/// The ring.
pub struct EchoRing {
    ring: IoUring,
    entries: *mut BufRingEntry,
    buffers: &'static mut [u8],
    tail: u16,
    sends: ManuallyDrop<Vec<Vec<u8>>>,
    completions: VecDeque<(u64, i32, u32)>,
    listener: i32,
}

impl EchoRing {
    /// A ring for at most `slots` connections of `listener`.
    pub fn new(listener: &TcpListener, slots: u32) -> io::Result<EchoRing> {
        super::set_option(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32)?;
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(16_384)
            .build(4_096)?;
        ring.submitter().register_files_sparse(slots)?;
        let size = usize::from(BUFFERS) * size_of::<BufRingEntry>();
        let layout = Layout::from_size_align(size, 4_096).expect("a page is a valid alignment");
        // SAFETY: the layout is not empty.
        let entries = unsafe { alloc_zeroed(layout) };
        if entries.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: `entries` is page-aligned, zeroed, of the length for BUFFERS entries, and never freed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.addr() as u64,
                BUFFERS,
                GROUP,
                0,
            )?;
        };
        let buffer_bytes = usize::from(BUFFERS) * usize::try_from(BUFFER_LEN).expect("u32 fits");
        let mut echo = EchoRing {
            ring,
            entries: entries.cast(),
            buffers: vec![0; buffer_bytes].leak(),
            tail: 0,
            sends: ManuallyDrop::new(Vec::new()),
            completions: VecDeque::new(),
            listener: listener.as_raw_fd(),
        };
        for buffer in 0..BUFFERS {
            echo.recycle(buffer);
        }
        echo.accept()?;
        Ok(echo)
    }

    /// The next completion; waits for one when none is left, and submits everything before it waits.
    pub fn next(&mut self) -> io::Result<Completion> {
        loop {
            while let Some((user_data, result, flags)) = self.completions.pop_front() {
                if let Some(completion) = self.interpret(user_data, result, flags)? {
                    return Ok(completion);
                }
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            let queue = self.ring.completion();
            self.completions.extend(queue.map(|c| (c.user_data(), c.result(), c.flags())));
        }
    }

    /// The bytes of a provided buffer.
    pub fn bytes(&self, buffer: u16, len: usize) -> &[u8] {
        let start = buffer_start(buffer);
        &self.buffers[start..start + len]
    }

    /// Gives a provided buffer back to the kernel.
    pub fn recycle(&mut self, buffer: u16) {
        assert!(buffer < BUFFERS, "the kernel names only buffers it was given");
        let address = self.buffers[buffer_start(buffer)..].as_mut_ptr().addr() as u64;
        let index = usize::from(self.tail % BUFFERS);
        // SAFETY: the index is below BUFFERS, and the kernel does not read an entry at or behind the tail.
        let entry = unsafe { &mut *self.entries.add(index) };
        entry.set_addr(address);
        entry.set_len(BUFFER_LEN);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is in the first entry of the ring, aligned to 2 bytes, written by this thread only; the
        // release store publishes the entry before it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Sends `bytes`; at most one send of a slot may be in flight. Nothing was in flight, or this panics.
    pub fn send(&mut self, slot: u32, bytes: Vec<u8>) -> io::Result<()> {
        let index = usize::try_from(slot).expect("u32 fits");
        if self.sends.len() <= index {
            self.sends.resize_with(index + 1, Vec::new);
        }
        assert!(self.sends[index].is_empty(), "one send in flight per connection");
        self.sends[index] = bytes;
        let bytes = &self.sends[index];
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fixed(slot), bytes.as_ptr(), len).build();
        self.push(&entry.user_data(u64::from(slot) << 8 | SEND))
    }

    /// The bytes of the send that has just completed, for reuse.
    pub fn take_sent(&mut self, slot: u32) -> Vec<u8> {
        mem::take(&mut self.sends[usize::try_from(slot).expect("u32 fits")])
    }

    /// Begins to receive.
    pub fn receive(&mut self, slot: u32) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fixed(slot), GROUP).build();
        self.push(&entry.user_data(u64::from(slot) << 8 | RECEIVE))
    }

    /// Closes the slot; it may be used again at once.
    pub fn close(&mut self, slot: u32) -> io::Result<()> {
        let entry = opcode::Close::new(Fixed(slot)).build();
        self.push(&entry.user_data(u64::from(slot) << 8 | CLOSE))
    }

    fn accept(&mut self) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(self.listener)).allocate_file_index(true).build();
        self.push(&entry.user_data(ACCEPT))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: the buffers that entries refer to live until their completion, see the module's documentation.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }

    fn interpret(
        &mut self,
        user_data: u64,
        result: i32,
        flags: u32,
    ) -> io::Result<Option<Completion>> {
        let slot = u32::try_from(user_data >> 8).expect("the slot is in the upper bits");
        Ok(match (user_data & 0xFF, usize::try_from(result)) {
            (ACCEPT, accepted) => {
                if !cqueue::more(flags) {
                    self.accept()?;
                }
                accepted.ok().and_then(|slot| u32::try_from(slot).ok()).map(Completion::Accepted)
            }
            (RECEIVE, Ok(len)) if len > 0 => {
                if !cqueue::more(flags) {
                    self.receive(slot)?;
                }
                let buffer = cqueue::buffer_select(flags).expect("bytes come in a buffer");
                Some(Completion::Received { slot, buffer, len })
            }
            (RECEIVE, Err(_)) if result == -libc::ENOBUFS => {
                self.receive(slot)?;
                None
            }
            (RECEIVE, _) => Some(Completion::Ended(slot)),
            (SEND, sent) => Some(Completion::Sent(slot, sent.unwrap_or(0))),
            _ => None,
        })
    }
}

fn buffer_start(buffer: u16) -> usize {
    usize::from(buffer) * usize::try_from(BUFFER_LEN).expect("u32 fits")
}
