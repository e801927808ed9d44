//! The provided buffer ring: memory the kernel receives into.
//!
//! The kernel picks a buffer when bytes are there, so an idle connection holds none. A buffer is out while the shard
//! reads it in place and goes back in the same tick. All memory is mapped and touched at the start.
//!
//! Invariant: every buffer is either in the ring, or named by exactly one completion that was not released yet.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// The only buffer group.
pub(crate) const GROUP: u16 = 0;

/// Anonymous memory of its own, zeroed and touched.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes.
    fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a new anonymous mapping touches no memory of ours.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("mmap gives no null page");
        Ok(Self { base, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this length, and its owner hands out no borrow that outlives it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// The buffers of one shard.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// The ring of entries the kernel reads; its first entry holds the tail.
    ring: Mapping,
    /// The buffers, one after the other.
    data: Mapping,
    /// Number of buffers, a power of two.
    entries: u16,
    /// Size of one.
    bytes: u32,
    /// Our tail; the kernel sees it at [`Buffers::publish`].
    tail: u16,
    /// The tail the kernel has seen.
    published: u16,
}

impl Buffers {
    /// Maps `entries` buffers of `bytes` each and gives them to the ring.
    ///
    /// # Errors
    /// Memory that cannot be had, or a kernel that takes no buffer ring.
    pub(crate) fn register(
        submitter: &Submitter<'_>,
        entries: u16,
        bytes: u32,
    ) -> io::Result<Self> {
        assert!(entries.is_power_of_two() && entries <= 1 << 15, "a power of two up to 32,768");
        assert!(bytes > 0, "a buffer has room");
        let ring = Mapping::new(usize::from(entries) * size_of::<BufRingEntry>())?;
        let data = Mapping::new(usize::from(entries) * bytes as usize)?;
        // SAFETY: the ring's memory is page-aligned, has room for `entries` entries and is unmapped only after the group
        // was unregistered or the io_uring was closed (`Driver` drops its ring first).
        unsafe {
            submitter.register_buf_ring_with_flags(ring.base.as_ptr() as u64, entries, GROUP, 0)?;
        }
        let mut buffers = Self { ring, data, entries, bytes, tail: 0, published: 0 };
        for buffer in 0..entries {
            buffers.release(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// How many buffers there are.
    pub(crate) fn count(&self) -> usize {
        usize::from(self.entries)
    }

    /// The bytes received into a buffer.
    ///
    /// # Panics
    /// If there is no such buffer or it is smaller than `len`.
    #[inline]
    pub(crate) fn received(&self, buffer: u16, len: u32) -> &[u8] {
        assert!(buffer < self.entries && len <= self.bytes, "the kernel names a buffer of ours");
        // SAFETY: the buffer lies inside the mapping (asserted) and belongs to us until it is released, for which
        // `&mut self` is needed: nobody writes it while the slice lives.
        unsafe {
            let start = self.data.base.as_ptr().add(usize::from(buffer) * self.bytes as usize);
            std::slice::from_raw_parts(start, len as usize)
        }
    }

    /// The same, to be decrypted in place.
    ///
    /// # Panics
    /// As [`Buffers::received`].
    #[inline]
    pub(crate) fn received_mut(&mut self, buffer: u16, len: u32) -> &mut [u8] {
        assert!(buffer < self.entries && len <= self.bytes, "the kernel names a buffer of ours");
        // SAFETY: as in `received`; `&mut self` is held as long as the slice, so nobody else reads it.
        unsafe {
            let start = self.data.base.as_ptr().add(usize::from(buffer) * self.bytes as usize);
            std::slice::from_raw_parts_mut(start, len as usize)
        }
    }

    /// Takes a buffer back; the kernel gets it at the next [`Buffers::publish`].
    #[inline]
    pub(crate) fn release(&mut self, buffer: u16) {
        assert!(buffer < self.entries, "the kernel names a buffer of ours");
        let place = usize::from(self.tail & (self.entries - 1));
        // SAFETY: `place` is below `entries`. The kernel reads entries between its head and the published tail only, and
        // as each buffer is in the ring at most once, this place is not among them. The first entry's last field is
        // the tail; the setters leave it alone.
        unsafe {
            let entry = &mut *self.ring.base.as_ptr().cast::<BufRingEntry>().add(place);
            let start = self.data.base.as_ptr().add(usize::from(buffer) * self.bytes as usize);
            entry.set_addr(start as u64);
            entry.set_len(self.bytes);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel the buffers that were released.
    #[inline]
    pub(crate) fn publish(&mut self) {
        if self.tail == self.published {
            return;
        }
        // SAFETY: the ring's base is its first entry, whose tail field is two bytes, aligned, inside the mapping. The
        // kernel only reads it.
        unsafe {
            let tail = BufRingEntry::tail(self.ring.base.as_ptr().cast());
            AtomicU16::from_ptr(tail.cast_mut()).store(self.tail, Ordering::Release);
        }
        self.published = self.tail;
    }
}
