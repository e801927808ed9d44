//! Received bytes that cannot be handled yet: a packet of which the rest has not come, or everything of a
//! connection that is held back. A connection whose packets come whole has none.

/// No stash.
pub(crate) const NO_STASH: u32 = u32::MAX;

/// Buffers kept for use again, and the most capacity such a buffer may have.
const SPARE_MAX: usize = 256;
const SPARE_CAPACITY_MAX: usize = 16 * 1024;

#[derive(Debug, Default)]
struct Stash {
    bytes: Vec<u8>,
    owner: u32,
    /// When the first of these bytes came.
    since_ms: u64,
    used: bool,
}

/// The stashes of a shard.
#[derive(Debug, Default)]
pub(crate) struct Stashes {
    list: Vec<Stash>,
    free: Vec<u32>,
}

impl Stashes {
    /// Puts bytes behind those at `*index`.
    pub fn append(&mut self, index: &mut u32, owner: u32, bytes: &[u8], now_ms: u64) {
        if bytes.is_empty() {
            return;
        }
        if *index == NO_STASH {
            *index = self.free.pop().unwrap_or_else(|| {
                self.list.push(Stash::default());
                u32::try_from(self.list.len() - 1).expect("fewer stashes than connections")
            });
            let stash = &mut self.list[*index as usize];
            stash.owner = owner;
            stash.since_ms = now_ms;
            stash.used = true;
        }
        self.list[*index as usize].bytes.extend_from_slice(bytes);
    }

    /// Bytes at `index`.
    pub fn len(&self, index: u32) -> usize {
        if index == NO_STASH { 0 } else { self.list[index as usize].bytes.len() }
    }

    /// Takes the bytes out; the stash is given back.
    pub fn take(&mut self, index: &mut u32) -> Vec<u8> {
        if *index == NO_STASH {
            return Vec::new();
        }
        let stash = &mut self.list[*index as usize];
        let bytes = std::mem::take(&mut stash.bytes);
        stash.used = false;
        self.free.push(*index);
        *index = NO_STASH;
        bytes
    }

    /// How many hold something.
    pub fn in_use(&self) -> usize {
        self.list.len() - self.free.len()
    }

    /// When the first of the bytes at `index` came.
    pub fn since_ms(&self, index: u32) -> Option<u64> {
        if index == NO_STASH { None } else { Some(self.list[index as usize].since_ms) }
    }

    /// Puts bytes back that `take` gave out, with the time since when they wait.
    pub fn put_back(&mut self, index: &mut u32, owner: u32, bytes: Vec<u8>, since_ms: u64) {
        assert!(*index == NO_STASH, "bytes are put back where nothing came meanwhile");
        self.append(index, owner, &bytes[..bytes.len().min(1)], since_ms);
        if *index != NO_STASH {
            self.list[*index as usize].bytes = bytes;
        }
    }

    /// Gives a buffer back that `take` gave out.
    pub fn recycle(&mut self, mut bytes: Vec<u8>) {
        if let Some(&free) = self.free.last()
            && self.free.len() <= SPARE_MAX
            && bytes.capacity() <= SPARE_CAPACITY_MAX
        {
            let spare = &mut self.list[free as usize].bytes;
            if spare.capacity() < bytes.capacity() {
                bytes.clear();
                *spare = bytes;
            }
        }
    }

    /// Drops the bytes at `*index`.
    pub fn discard(&mut self, index: &mut u32) {
        let bytes = self.take(index);
        self.recycle(bytes);
    }

    /// Connections whose stash began at or before `before_ms`.
    pub fn overdue(&self, before_ms: u64) -> impl Iterator<Item = u32> {
        self.list
            .iter()
            .filter(move |stash| stash.used && stash.since_ms <= before_ms)
            .map(|stash| stash.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_and_the_buffer_is_used_again() {
        let mut stashes = Stashes::default();
        let mut index = NO_STASH;
        stashes.append(&mut index, 1, b"ab", 5);
        stashes.append(&mut index, 1, b"c", 9);
        assert_eq!(stashes.len(index), 3);
        assert_eq!(stashes.overdue(5).collect::<Vec<_>>(), [1]);
        let bytes = stashes.take(&mut index);
        assert_eq!(bytes, b"abc");
        assert_eq!(index, NO_STASH);
        assert_eq!(stashes.overdue(99).count(), 0);
        let address = bytes.as_ptr();
        stashes.recycle(bytes);
        stashes.append(&mut index, 2, b"x", 10);
        assert_eq!(stashes.list[index as usize].bytes.as_ptr(), address);
    }
}
