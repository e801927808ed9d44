//! Storage that grows by chunks, so that adding the millionth entry moves none and wastes no more than a chunk.

/// Entries of a chunk.
const CHUNK: usize = 256;

/// A vector of chunks, those that are in use: indices may have gaps. Entries are never moved; the storage never shrinks (its size
/// follows the most entries there ever were, which is bounded by descriptors and sessions).
#[derive(Debug)]
pub(crate) struct Chunked<T> {
    chunks: Vec<Option<Box<[T]>>>,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T: Default> Chunked<T> {
    /// One more than the largest index there may be now.
    pub fn len(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// Makes room for `index`.
    pub fn grow_to(&mut self, index: u32) {
        let place = index as usize / CHUNK;
        if place >= self.chunks.len() {
            self.chunks.resize_with(place + 1, || None);
        }
        self.chunks[place].get_or_insert_with(|| (0..CHUNK).map(|_| T::default()).collect());
    }

    pub fn get(&self, index: u32) -> Option<&T> {
        self.chunks.get(index as usize / CHUNK)?.as_ref()?.get(index as usize % CHUNK)
    }

    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.chunks.get_mut(index as usize / CHUNK)?.as_mut()?.get_mut(index as usize % CHUNK)
    }
}
