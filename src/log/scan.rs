//! Walks the batch headers of a segment and says what is wrong with them.
//!
//! Base offset, length and leader epoch are not covered by a batch's CRC, so a matching checksum does
//! not prove them. They are checked against their neighbours: in a log that is not compacted each
//! batch starts where the previous one ended; epochs never decrease.

use std::io;

use bytes::Bytes;

use crate::env::File;
use crate::record::{Batch, BatchHeader, HEADER_SIZE};
use crate::types::{LeaderEpoch, Offset};

/// How much is read at once where bytes go through a buffer.
pub(super) const PIECE_BYTES: u64 = 256 << 10;

/// Reads whole batches from `position` on, which is where one starts, into a buffer: about `wanted` bytes, but at
/// least one batch, and none that reaches beyond `end`. Empty at the end.
///
/// Bytes that are not batches are in the result, too, so that whoever walks it finds the damage.
pub(super) fn read_batches(
    file: &dyn File,
    position: u64,
    end: u64,
    wanted: u64,
) -> io::Result<Bytes> {
    let left = end.saturating_sub(position);
    let mut wanted = wanted.max(HEADER_SIZE as u64).min(left);
    loop {
        let mut bytes = vec![0; usize::try_from(wanted).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, position)?;
        if wanted == left {
            return Ok(bytes.into());
        }
        match whole_batches(&bytes) {
            Whole::Until(whole) => {
                bytes.truncate(whole);
                return Ok(bytes.into());
            }
            Whole::NoneOf(size) => wanted = (size as u64).min(left),
        }
    }
}

/// How much of some bytes are whole batches.
enum Whole {
    Until(usize),
    /// Not even the first batch, which is this long.
    NoneOf(usize),
}

fn whole_batches(bytes: &[u8]) -> Whole {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.len() < HEADER_SIZE {
            return Whole::Until(at);
        }
        match BatchHeader::parse(rest) {
            Ok(header) if header.size_bytes <= rest.len() => at += header.size_bytes,
            Ok(header) if at == 0 => return Whole::NoneOf(header.size_bytes),
            Ok(_) => return Whole::Until(at),
            Err(_) => return Whole::Until(bytes.len()),
        }
    }
}

/// Why and where a batch cannot be what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// The position of the batch in the segment.
    pub(super) position: u64,
    /// What is wrong with it.
    pub(super) detail: String,
}

/// One batch on the walk.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Where it starts in the segment.
    pub(super) position: u64,
    /// Its header.
    pub(super) header: BatchHeader,
}

impl Found {
    pub(super) const fn end(&self) -> u64 {
        self.position + self.header.size_bytes as u64
    }
}

/// What the next batch must look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// The offset that it starts at or, in a log with gaps, the lowest offset it may start at.
    pub(super) next: Offset,
    /// Whether `next` is exact.
    pub(super) exact: bool,
    /// The lowest epoch that it may have.
    pub(super) epoch: LeaderEpoch,
}

impl Expected {
    /// What is known of a batch somewhere after `at_least`.
    pub(super) const fn anywhere(at_least: Offset) -> Self {
        Self { next: at_least, exact: false, epoch: LeaderEpoch::UNKNOWN }
    }
}

/// Walks the bytes of a segment, starting at a batch.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    data: &'a Bytes,
    /// The position of `data` in the segment.
    start: u64,
    at: usize,
    expected: Expected,
}

impl<'a> Scan<'a> {
    pub(super) const fn new(data: &'a Bytes, start: u64, expected: Expected) -> Self {
        Self { data, start, at: 0, expected }
    }

    /// The position in the segment of the next batch.
    pub(super) const fn position(&self) -> u64 {
        self.start + self.at as u64
    }

    /// What the next batch must look like.
    pub(super) const fn expected(&self) -> Expected {
        self.expected
    }

    /// The offset that the next batch must have.
    pub(super) const fn next_offset(&self) -> Offset {
        self.expected.next
    }

    /// The bytes of a batch that the walk found.
    pub(super) fn bytes_of(&self, found: &Found) -> Option<&'a [u8]> {
        let start = usize::try_from(found.position.checked_sub(self.start)?).ok()?;
        self.data.get(start..start.checked_add(found.header.size_bytes)?)
    }

    /// A batch that the walk found, as a [`Batch`].
    pub(super) fn batch_of(&self, found: &Found) -> Result<Batch, Damage> {
        let damage = |detail: String| Damage { position: found.position, detail };
        let start = found.position.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let rest =
            start.filter(|&start| start <= self.data.len()).map(|start| self.data.slice(start..));
        let rest =
            rest.ok_or_else(|| damage("the batch is not in the scanned bytes".to_owned()))?;
        Batch::parse(&rest).map_err(|error| damage(error.to_string()))
    }

    /// Continues at a later batch, of whose offset only a lower bound is known.
    pub(super) fn jump(&mut self, position: u64, at_least: Offset) {
        if let Some(at) = position.checked_sub(self.start).and_then(|at| usize::try_from(at).ok()) {
            self.at = at;
            self.expected.next = at_least;
            self.expected.exact = false;
        }
    }

    /// The next batch; none at the end of the bytes.
    pub(super) fn next(&mut self) -> Result<Option<Found>, Damage> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let position = self.position();
        let damage = |detail: String| Err(Damage { position, detail });
        if rest.len() < HEADER_SIZE {
            return damage(format!("{} bytes are not a batch header", rest.len()));
        }
        let header = match BatchHeader::parse(rest) {
            Ok(header) => header,
            Err(error) => return damage(error.to_string()),
        };
        if header.size_bytes > rest.len() {
            let missing = header.size_bytes - rest.len();
            return damage(format!("{missing} bytes of the batch are missing"));
        }
        let expected = self.expected;
        if header.base_offset < expected.next
            || expected.exact && header.base_offset != expected.next
        {
            let detail = format!(
                "the batch has base offset {}, expected {}",
                header.base_offset, expected.next
            );
            return damage(detail);
        }
        if header.leader_epoch < expected.epoch {
            let detail = format!(
                "the batch has leader epoch {} after a batch of epoch {}",
                header.leader_epoch, expected.epoch
            );
            return damage(detail);
        }
        self.at += header.size_bytes;
        self.expected.next = header.next_offset();
        self.expected.epoch = header.leader_epoch;
        Ok(Some(Found { position, header }))
    }
}

/// Compares the checksum of a whole batch.
pub(super) fn check_crc(found: &Found, bytes: &[u8]) -> Result<(), Damage> {
    const CRC_START: usize = 21;
    let computed = crc32c::crc32c(bytes.get(CRC_START..).unwrap_or_default());
    if computed == found.header.crc {
        return Ok(());
    }
    let detail = format!(
        "the batch at offset {} has the checksum {computed:#010x}, but {:#010x} is stored",
        found.header.base_offset, found.header.crc
    );
    Err(Damage { position: found.position, detail })
}
