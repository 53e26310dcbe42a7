//! [`Records`]: record batches as raw bytes, in one piece or several.

use bytes::{Bytes, BytesMut};

use crate::types::Chunk;

/// A rope of record batches: consecutive chunks, never copied to be joined.
///
/// A fetch that reads from two segments makes two chunks. Empty chunks are left out.
#[derive(Clone, Debug, Default)]
pub struct Records {
    // There is nearly always one chunk, so the vector stays unallocated.
    first: Chunk,
    rest: Vec<Chunk>,
}

impl Records {
    /// No records.
    pub const fn new() -> Self {
        Self { first: Chunk::empty(), rest: Vec::new() }
    }

    /// Adds a chunk at the end.
    pub fn push(&mut self, chunk: impl Into<Chunk>) {
        let chunk = chunk.into();
        if chunk.is_empty() {
        } else if self.first.is_empty() {
            self.first = chunk;
        } else {
            self.rest.push(chunk);
        }
    }

    /// The chunks, in order.
    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        std::iter::once(&self.first).filter(|chunk| !chunk.is_empty()).chain(&self.rest)
    }

    /// The number of bytes in all chunks.
    pub fn len(&self) -> usize {
        self.chunks().fold(0, |sum, chunk| sum.saturating_add(chunk.len()))
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// The bytes in one piece; copies only when there are several chunks.
    pub fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first.into_bytes();
        }
        let mut joined = BytesMut::with_capacity(self.len());
        for chunk in self.chunks() {
            joined.extend_from_slice(chunk);
        }
        joined.freeze()
    }
}

impl From<Chunk> for Records {
    fn from(chunk: Chunk) -> Self {
        Self { first: chunk, rest: Vec::new() }
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self::from(Chunk::from(bytes))
    }
}

impl From<Vec<u8>> for Records {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

impl FromIterator<Bytes> for Records {
    fn from_iter<I: IntoIterator<Item = Bytes>>(chunks: I) -> Self {
        let mut records = Self::new();
        for chunk in chunks {
            records.push(chunk);
        }
        records
    }
}

impl From<Vec<Bytes>> for Records {
    fn from(chunks: Vec<Bytes>) -> Self {
        chunks.into_iter().collect()
    }
}

impl PartialEq for Records {
    /// Equal bytes, however they are split.
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.chunks(), other.chunks());
        self.len() == other.len()
            && ours.flat_map(|chunk| chunk.iter()).eq(theirs.flat_map(|chunk| chunk.iter()))
    }
}

impl Eq for Records {}
