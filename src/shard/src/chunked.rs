//! Storage that grows by chunks, so that adding the millionth entry moves none and wastes no more than a chunk.

/// Entries of a chunk.
const CHUNK: usize = 256;

/// A vector of chunks. Entries are never moved; the storage never shrinks (its size follows the most entries
/// there ever were, which is bounded by descriptors and sessions).
#[derive(Debug)]
pub(crate) struct Chunked<T> {
    chunks: Vec<Box<[T]>>,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T: Default> Chunked<T> {
    /// Entries there is room for.
    pub fn len(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// Makes room for `index`.
    pub fn grow_to(&mut self, index: u32) {
        while self.len() <= index as usize {
            self.chunks.push((0..CHUNK).map(|_| T::default()).collect());
        }
    }

    pub fn get(&self, index: u32) -> Option<&T> {
        self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)
    }

    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)
    }
}
