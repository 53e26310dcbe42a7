//! Decompressing batches ahead of their turn, on whatever thread has time.
//!
//! The assembler reads batches one after the other. Those that are compressed can be handed out
//! before ([`Ahead::next`]), are decompressed where the caller likes ([`Unpack::run`]), and are found
//! done when the assembler comes to them. A batch that nobody handed out, or whose work was dropped,
//! is decompressed by the assembler itself: what comes out, errors included, is the same.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

use super::assemble::FetchedBytes;
use crate::error::{Error, Result};
use crate::record::{BatchHeader, Compression, Decompressor, HEADER_SIZE, peek_size};

/// Batches of so many bytes, decompressed, are handed out together where they are small.
const TOGETHER: usize = 256 << 10;
/// Fewer are not worth the way to another thread.
const WORTH_IT: usize = 16 << 10;
/// How many times its size a batch is expected to have decompressed, before one was.
const EXPANSION: usize = 4;

/// A result that is on its way; none until it is there.
type Cell = Arc<Mutex<Option<Result<Bytes>>>>;

/// Memory that is kept for the next batches.
const KEPT_MAX: usize = 32 << 20;
/// A buffer is not lent to arrays that would pin so many times what they need, or more.
const WASTE_MAX: usize = 2;

/// Memory for decompressed batches. It comes back when no array points into it any more: memory that the
/// allocator has to get from the system for each batch costs as much as decompressing it.
#[derive(Clone, Debug, Default)]
pub(in crate::columnar) struct Pool(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    free: Vec<Vec<u8>>,
    bytes: usize,
    decompressors: Vec<Decompressor>,
    /// How many times its size the last batch had decompressed, at least once.
    expansion: Option<usize>,
}

impl Kept {
    fn keep(&mut self, data: Vec<u8>) {
        let bytes = self.bytes.saturating_add(data.capacity());
        if bytes <= KEPT_MAX {
            self.bytes = bytes;
            self.free.push(data);
        }
    }
}

/// A buffer with a batch.
struct Lent {
    data: Vec<u8>,
    pool: Weak<Mutex<Kept>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            let data = std::mem::take(&mut self.data);
            pool.lock().unwrap_or_else(PoisonError::into_inner).keep(data);
        }
    }
}

impl Pool {
    /// About how many bytes a batch of this size will have decompressed.
    fn estimate(&self, size: usize) -> usize {
        size.saturating_mul(self.kept().expansion.unwrap_or(EXPANSION))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The records of a compressed batch.
    ///
    /// # Errors
    /// `CORRUPT_MESSAGE`, naming the offset, for bytes that are not what the header says.
    pub(in crate::columnar) fn unpacked(
        &self,
        header: &BatchHeader,
        stored: &[u8],
        size_max: usize,
    ) -> Result<Bytes> {
        let (mut decompressor, room) = {
            let mut kept = self.kept();
            let room = kept.free.pop().unwrap_or_default();
            kept.bytes = kept.bytes.saturating_sub(room.capacity());
            (kept.decompressors.pop().unwrap_or_default(), room)
        };
        let data = decompressor.decompress((header.compression, stored), size_max, room);
        let mut kept = self.kept();
        kept.decompressors.push(decompressor);
        if let Ok(data) = &data {
            kept.expansion = Some(data.len().div_ceil(stored.len().max(1)));
        }
        match data {
            Ok(data) if data.capacity() / WASTE_MAX > data.len() => {
                let exact = Bytes::copy_from_slice(&data);
                kept.keep(data);
                Ok(exact)
            }
            Ok(data) => Ok(Bytes::from_owner(Lent { data, pool: Arc::downgrade(&self.0) })),
            Err(Error::Kafka { code, context, .. }) => {
                Err(Error::of_batch(code, header.base_offset, context))
            }
            Err(other) => Err(other),
        }
    }
}

/// Batches of a chunk that are to be decompressed.
#[derive(Debug)]
pub struct Unpack {
    batches: Vec<(BatchHeader, Bytes, Cell)>,
    size_max: usize,
    /// Whether the checksums were compared already.
    checked: bool,
    pool: Pool,
}

impl Unpack {
    /// Decompresses the batches.
    pub fn run(self) {
        for (header, whole, cell) in self.batches {
            let checked = if self.checked { Ok(()) } else { header.verify_crc(&whole) };
            let stored = whole.get(HEADER_SIZE..).unwrap_or_default();
            let result = checked.and_then(|()| self.pool.unpacked(&header, stored, self.size_max));
            *cell.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    }
}

/// What of a chunk is decompressed ahead of its turn.
#[derive(Debug, Default)]
pub(in crate::columnar) struct Ahead {
    /// Where the next batch starts that was not looked at.
    at: usize,
    /// Where batches start, what they are estimated to have decompressed, and their results.
    begun: VecDeque<(usize, usize, Cell)>,
    /// A batch was met that is not compressed.
    stopped: bool,
}

impl Ahead {
    /// The next batches that are wanted and compressed; the assembler is at `at`.
    pub(in crate::columnar) fn next(
        &mut self,
        (chunk, at): (&FetchedBytes, usize),
        size_max: usize,
        pool: &Pool,
    ) -> Option<Unpack> {
        self.at = self.at.max(at);
        self.stopped = false;
        let (start, known) = (self.at, self.begun.len());
        let mut batches = Vec::new();
        // As they are estimated to be decompressed.
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
                let estimate = pool.estimate(size);
                self.begun.push_back((self.at, estimate, Arc::clone(&cell)));
                batches.push((header, chunk.bytes.slice(self.at..behind), cell));
                bytes = bytes.saturating_add(estimate);
            }
            self.at = behind;
        }
        if bytes < WORTH_IT {
            self.begun.truncate(known);
            self.at = start;
            return None;
        }
        Some(Unpack { batches, size_max, checked: chunk.checked, pool: pool.clone() })
    }

    /// Whether the next chunk may have more to do.
    pub(in crate::columnar) const fn is_hungry(&self) -> bool {
        !self.stopped
    }

    /// About how many bytes the results have, or will have.
    pub(in crate::columnar) fn bytes(&self) -> usize {
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
    pub(in crate::columnar) fn is_pending(&self, at: usize) -> bool {
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
    pub(in crate::columnar) fn take(&mut self, at: usize) -> Option<Result<Bytes>> {
        if self.begun.front().is_none_or(|(start, ..)| *start != at) {
            return None;
        }
        let (_, _, cell) = self.begun.pop_front()?;
        cell.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, BatchOptions};
    use crate::types::{Offset, TimestampMs, TopicPartition};

    fn batch(value: &[u8]) -> Bytes {
        let compression = Compression::Zstd;
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        builder.append(TimestampMs(0), None, Some(value), &[]).unwrap();
        builder.finish().unwrap()
    }

    fn unpack(pool: &Pool, batch: &Bytes) -> Bytes {
        let header = BatchHeader::parse(batch).unwrap();
        pool.unpacked(&header, &batch[HEADER_SIZE..], 64 << 20).unwrap()
    }

    #[test]
    fn memory_is_used_again_once_nothing_points_into_it() {
        let pool = Pool::default();
        let large = batch(&vec![7; 1 << 20]);
        let first = unpack(&pool, &large);
        let second = unpack(&pool, &large);
        assert_ne!(first.as_ptr(), second.as_ptr());
        let (place, slice) = (first.as_ptr(), first.slice(10..20));
        drop(first);
        assert!(pool.kept().free.is_empty());
        drop(slice);
        assert_eq!(pool.kept().free.len(), 1);
        assert_eq!(unpack(&pool, &large).as_ptr(), place);
        drop(pool);
        assert_eq!(second.len(), unpack(&Pool::default(), &large).len());
    }

    #[test]
    fn a_small_batch_pins_no_large_buffer_and_little_is_kept() {
        let pool = Pool::default();
        drop(unpack(&pool, &batch(&vec![7; 1 << 20])));
        let small = unpack(&pool, &batch(b"little"));
        assert!(small.len() < 100);
        assert_eq!(pool.kept().free.len(), 1);
        let all: Vec<Bytes> = (0..50).map(|_| unpack(&pool, &batch(&vec![7; 2 << 20]))).collect();
        drop(all);
        let kept = pool.kept();
        assert!(kept.bytes <= KEPT_MAX);
        assert_eq!(kept.bytes, kept.free.iter().map(Vec::capacity).sum::<usize>());
    }

    #[test]
    fn work_that_was_dropped_is_not_waited_for() {
        let bytes: Bytes = batch(&(0..200_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        let chunk = FetchedBytes::whole(TopicPartition::new("t", 0), bytes);
        let mut ahead = Ahead::default();
        let unpack = ahead.next((&chunk, 0), 64 << 20, &Pool::default()).unwrap();
        assert!(ahead.is_pending(0));
        assert!(ahead.bytes() > 0);
        drop(unpack);
        assert!(!ahead.is_pending(0));
        assert!(ahead.take(0).is_none());
        assert_eq!(chunk.start, Offset::ZERO);
    }
}
