//! A checksum for each 64 KiB of a file, from its start to the private section.
//!
//! Parquet can carry a checksum in each page, but the headers of the pages, and what lies between them, would have
//! none. A reader fetches whole blocks and compares them before Parquet sees a byte, so that a flipped bit is an error
//! that names its place, whatever it is part of.

use std::fmt::Debug;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

use crate::error::{Error, Result};

/// The size of a block; the last one may be shorter.
pub(super) const BLOCK_BYTES: u64 = 64 << 10;
/// The same, in memory.
const BLOCK_SIZE: usize = 64 << 10;

/// A file of the tier, wherever it is.
pub trait Source: Send + Sync + Debug {
    /// Its size.
    fn size(&self) -> u64;

    /// The bytes of a range inside of it.
    ///
    /// # Errors
    ///
    /// Those of the file, and [`io::ErrorKind::UnexpectedEof`] for a range that is not inside.
    fn read(&self, range: Range<u64>) -> io::Result<Bytes>;
}

/// Reads a range of a file of that size into memory of its own.
///
/// # Errors
///
/// Those of `read`, and [`io::ErrorKind::UnexpectedEof`] for a range that is not inside.
pub fn read_range(
    size: u64,
    range: Range<u64>,
    read: impl FnOnce(&mut [u8]) -> io::Result<()>,
) -> io::Result<Bytes> {
    if range.start > range.end || range.end > size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    read(&mut bytes)?;
    Ok(bytes.into())
}

impl Source for Bytes {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let (start, end) = (place(range.start), place(range.end));
        if start > end || end > self.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.slice(start..end))
    }
}

/// Computes the checksums of what passes.
#[derive(Debug, Default)]
struct Checksums {
    complete: Vec<u32>,
    current: u32,
    /// How many bytes the current block has.
    filled: usize,
}

impl Checksums {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_SIZE - self.filled));
            self.current = crc32c::crc32c_append(self.current, now);
            self.filled += now.len();
            if self.filled == BLOCK_SIZE {
                self.close();
            }
            bytes = later;
        }
    }

    fn close(&mut self) {
        if self.filled > 0 {
            self.complete.push(self.current);
            (self.current, self.filled) = (0, 0);
        }
    }
}

/// Passes a file on, and computes the checksums of its blocks, up to a point from which it holds the bytes back.
#[derive(Debug)]
pub(super) struct Checked<W> {
    output: W,
    checksums: Checksums,
    held: Option<Vec<u8>>,
}

impl<W> Checked<W> {
    pub(super) fn new(output: W) -> Self {
        Self { output, checksums: Checksums::default(), held: None }
    }

    /// The checksums of what was written so far. What is written from now on is held back.
    pub(super) fn hold(&mut self) -> Vec<u32> {
        self.held = Some(Vec::new());
        self.checksums.close();
        std::mem::take(&mut self.checksums.complete)
    }

    /// The output, and what was held back.
    pub(super) fn into_parts(self) -> (W, Vec<u8>) {
        (self.output, self.held.unwrap_or_default())
    }
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(held) = &mut self.held {
            held.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        let size = self.output.write(bytes)?;
        self.checksums.update(bytes.get(..size).unwrap_or_default());
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Bytes of the blocks of a file, compared with their checksums.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    checksums: Vec<u32>,
    /// Where the last block ends.
    end: u64,
}

impl Blocks {
    /// Blocks that end at `end`; none when there are not as many checksums as blocks.
    pub(super) fn new(checksums: Vec<u32>, end: u64) -> Option<Self> {
        let count = u64::try_from(checksums.len()).ok()?;
        (count == end.div_ceil(BLOCK_BYTES)).then_some(Self { checksums, end })
    }

    /// The whole blocks that a range lies in.
    pub(super) fn around(&self, range: Range<u64>) -> Range<u64> {
        if range.is_empty() {
            return 0..0;
        }
        let start = range.start / BLOCK_BYTES * BLOCK_BYTES;
        start..range.end.next_multiple_of(BLOCK_BYTES).min(self.end)
    }

    /// Reads a range; `path` is how errors name the file.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] with the position of the first block that is not what was written.
    pub(super) fn read(
        &self,
        source: &dyn Source,
        path: &Path,
        range: Range<u64>,
    ) -> Result<Bytes> {
        if range.start > range.end || range.end > self.end {
            let detail = format!("bytes {range:?} are behind its rows, which end at {}", self.end);
            return Err(Error::corrupt(path, range.start, detail));
        }
        let whole = self.around(range.clone());
        if whole.is_empty() {
            // What has no bytes has no place either, and no source need know it.
            return Ok(Bytes::new());
        }
        let start = whole.start;
        let first = start / BLOCK_BYTES;
        let bytes = read(source, path, whole)?;
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let expected = self.checksums.iter().skip(place(first));
        let blocks = bytes.chunks(BLOCK_SIZE).zip(expected);
        for (index, (block, expected)) in blocks.enumerate() {
            let found = crc32c::crc32c(block);
            if found != *expected {
                let at = start + index as u64 * BLOCK_BYTES;
                let detail = format!(
                    "the checksum of the {} bytes from here on is {found:#010x}, but {expected:#010x} is stored",
                    block.len()
                );
                return Err(Error::corrupt(path, at, detail));
            }
        }
        Ok(bytes.slice(place(range.start - start)..place(range.end - start)))
    }
}

/// Reads exactly a range that nothing is known about; `path` is how errors name the file.
pub(super) fn read(source: &dyn Source, path: &Path, range: Range<u64>) -> Result<Bytes> {
    let size = range.end.saturating_sub(range.start);
    let bytes = source.read(range.clone()).map_err(|error| Error::io("read", path, error))?;
    if bytes.len() as u64 == size {
        return Ok(bytes);
    }
    let detail = format!("{} bytes instead of {size} are there", bytes.len());
    Err(Error::corrupt(path, range.start, detail))
}
