//! [`Chunk`]: bytes of an outgoing message, and where they lie in a file.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::fs::File;
use std::ops::Deref;
use std::sync::Arc;

use bytes::{Buf, Bytes};

/// Bytes on their way out. When they are a mapping of a file, a socket can be given them by the
/// operating system (`sendfile`), without a copy; everybody else reads them like any bytes.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    bytes: Bytes,
    stored: Option<Stored>,
}

/// The place of bytes in a file. Whoever makes one promises that the file holds those bytes there, and
/// that they neither change nor are cut off, also after the bytes were let go.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The file, open for reading.
    pub file: Arc<File>,
    /// Where the first byte lies.
    pub position: u64,
}

impl Chunk {
    /// Bytes, and their place in a file if they have one.
    #[must_use]
    pub const fn new(bytes: Bytes, stored: Option<Stored>) -> Self {
        Self { bytes, stored }
    }

    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self::new(Bytes::new(), None)
    }

    /// Where the bytes lie, if that is known.
    #[must_use]
    pub const fn stored(&self) -> Option<&Stored> {
        self.stored.as_ref()
    }

    /// Has the bytes read from memory.
    pub fn forget_place(&mut self) {
        self.stored = None;
    }

    /// The bytes alone.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Takes bytes off the front, at most all.
    pub fn advance(&mut self, count: usize) {
        let count = count.min(self.bytes.len());
        self.bytes.advance(count);
        if let Some(stored) = &mut self.stored {
            stored.position += count as u64;
        }
    }

    /// Takes what was written off the front of chunks that are written one after the other.
    pub fn take_off(chunks: &mut VecDeque<Self>, mut written: usize) {
        while let Some(front) = chunks.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            chunks.pop_front();
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Borrow<[u8]> for Chunk {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_moves_with_the_bytes() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let stored = Stored { file, position: 7 };
        let mut chunk = Chunk::new(Bytes::from_static(b"abcdef"), Some(stored));
        chunk.advance(2);
        assert_eq!((&chunk[..], chunk.stored().unwrap().position), (&b"cdef"[..], 9));
        chunk.advance(9);
        assert_eq!((chunk.len(), chunk.stored().unwrap().position), (0, 13));
    }
}
