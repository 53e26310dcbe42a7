//! Decompressing batches ahead of their turn, on whatever thread has time.
//!
//! The assembler reads batches one after the other. Those that are compressed can be handed out
//! before ([`Ahead::next`]), are decompressed where the caller likes ([`Unpack::run`]), and are found
//! done when the assembler comes to them. A batch that nobody handed out, or whose work was dropped,
//! is decompressed by the assembler itself: what comes out, errors included, is the same.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::assemble::Chunk;
use crate::error::{Error, Result};
use crate::record::{BatchHeader, Compression, HEADER_SIZE, decompress, peek_size};

/// So many compressed bytes are handed out together where batches are small.
const TOGETHER: usize = 64 << 10;
/// Fewer are not worth the way to another thread.
const WORTH_IT: usize = 4 << 10;
/// How many times its size a batch is expected to have once it is decompressed.
const EXPANSION: usize = 4;

/// A result that is on its way; none until it is there.
type Cell = Arc<Mutex<Option<Result<Bytes>>>>;

/// The records of a compressed batch.
///
/// # Errors
/// `CORRUPT_MESSAGE`, naming the offset, for bytes that are not what the header says.
pub(super) fn unpacked(header: &BatchHeader, stored: &[u8], size_max: usize) -> Result<Bytes> {
    let data = decompress(header.compression, stored, size_max);
    data.map(Bytes::from).map_err(|error| match error {
        Error::Kafka { code, context, .. } => {
            Error::kafka(code, format!("record batch at offset {}: {context}", header.base_offset))
        }
        other => other,
    })
}

/// Batches of a chunk that are to be decompressed.
#[derive(Debug)]
pub struct Unpack {
    batches: Vec<(BatchHeader, Bytes, Cell)>,
    size_max: usize,
    /// Whether the checksums were compared already.
    checked: bool,
}

impl Unpack {
    /// Decompresses the batches.
    pub fn run(self) {
        for (header, whole, cell) in self.batches {
            let checked = if self.checked { Ok(()) } else { header.verify_crc(&whole) };
            let stored = whole.get(HEADER_SIZE..).unwrap_or_default();
            let result = checked.and_then(|()| unpacked(&header, stored, self.size_max));
            *cell.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    }
}

/// What of a chunk is decompressed ahead of its turn.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Where the next batch starts that was not looked at.
    at: usize,
    /// Where batches start, what they are estimated to have decompressed, and their results.
    begun: VecDeque<(usize, usize, Cell)>,
    /// A batch was met that is not compressed.
    stopped: bool,
}

impl Ahead {
    /// The next batches that are wanted and compressed; the assembler is at `at`.
    pub(super) fn next(&mut self, chunk: &Chunk, at: usize, size_max: usize) -> Option<Unpack> {
        self.at = self.at.max(at);
        self.stopped = false;
        let (start, known) = (self.at, self.begun.len());
        let mut batches = Vec::new();
        let mut bytes = 0_usize;
        while bytes < TOGETHER {
            let rest = chunk.bytes.get(self.at..).unwrap_or_default();
            let Some(size) = peek_size(rest).ok().flatten().filter(|size| *size <= rest.len())
            else {
                break;
            };
            let whole = rest.get(..size).unwrap_or_default();
            // What is wrong with it the assembler says when it comes to it.
            let Ok(header) = BatchHeader::parse(whole) else { break };
            if header.compression == Compression::None {
                self.stopped = true;
                break;
            }
            if header.base_offset >= chunk.end {
                break;
            }
            let behind = self.at.saturating_add(size);
            if header.next_offset() > chunk.start && !header.is_control() {
                let cell = Cell::default();
                let estimate = size.saturating_mul(EXPANSION);
                self.begun.push_back((self.at, estimate, Arc::clone(&cell)));
                batches.push((header, chunk.bytes.slice(self.at..behind), cell));
                bytes = bytes.saturating_add(size);
            }
            self.at = behind;
        }
        if bytes < WORTH_IT {
            self.begun.truncate(known);
            self.at = start;
            return None;
        }
        Some(Unpack { batches, size_max, checked: chunk.checked })
    }

    /// Whether the next chunk may have more to do.
    pub(super) const fn is_hungry(&self) -> bool {
        !self.stopped
    }

    /// About how many bytes the results have, or will have.
    pub(super) fn bytes(&self) -> usize {
        let size = |(_, estimate, cell): &(usize, usize, Cell)| match &*cell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            Some(Ok(data)) => data.len(),
            Some(Err(_)) => 0,
            None => *estimate,
        };
        self.begun.iter().map(size).sum()
    }

    /// Whether the batch that starts at `at` is still being decompressed.
    pub(super) fn is_pending(&self, at: usize) -> bool {
        match self.begun.front() {
            Some((start, _, cell)) if *start == at => {
                // Where nobody else has it any more, the work was dropped.
                Arc::strong_count(cell) > 1
                    && cell.lock().unwrap_or_else(PoisonError::into_inner).is_none()
            }
            _ => false,
        }
    }

    /// The result for the batch that starts at `at`, where it was handed out.
    pub(super) fn take(&mut self, at: usize) -> Option<Result<Bytes>> {
        if self.begun.front().is_none_or(|(start, ..)| *start != at) {
            return None;
        }
        let (_, _, cell) = self.begun.pop_front()?;
        cell.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
