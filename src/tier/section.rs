//! The private section: what Kafka consumers need beyond the rows, behind the last row group.
//!
//! ```text
//! batch table of each group │ producers │ epochs │ aborted transactions │ checksums of the blocks
//! directory │ its size u32 │ its checksum u32 │ "ottlaTIR"
//! ```
//!
//! The parts in the first line are zstd, each with a checksum in the directory. The directory begins with its version,
//! and is read backwards from the end of the section, which the footer of the file gives.

use std::ops::Range;
use std::path::Path;

use super::blocks::{self, BLOCK_BYTES, Source};
use super::numbers::{Put, Take};
use crate::error::{Error, Result};
use crate::log::{AbortedTransaction, EpochEntry};
use crate::record::{Compression, compress, decompress};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, ProducerId, TimestampMs, Uuid};

const VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"ottlaTIR";
/// Size, checksum and magic behind the directory.
const TRAILER_BYTES: u64 = 16;
const GROUP_BYTES: usize = 76;
const LEVEL: i32 = 3;

/// Which part of which log a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The name of the topic.
    pub topic: String,
    /// Its id.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset, whether there is a record with it or not.
    pub base_offset: Offset,
    /// The offset behind the last one.
    pub end_offset: Offset,
}

/// What a file holds, as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The batches, those without records among them.
    pub batches: u64,
    /// The rows: records that are committed.
    pub rows: u64,
    /// How many bytes the batches had in the log.
    pub log_bytes: u64,
}

/// Where a part is, and how it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Where it starts in the file.
    at: u64,
    /// Its size there.
    stored: u64,
    /// Its size uncompressed.
    size: u64,
    /// The CRC-32C of what is there.
    crc: u32,
}

/// A row group, and the batches that it belongs to. One without rows has no row group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) base_offset: Offset,
    pub(super) end_offset: Offset,
    pub(super) lines: u32,
    pub(super) rows: u32,
    /// Where the batches are that are kept as they were, and how many bytes they take.
    pub(super) raw_at: u64,
    pub(super) raw_size: u64,
    /// The largest timestamp of its batches.
    pub(super) max_timestamp: TimestampMs,
    pub(super) table: Part,
}

/// The table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) about: About,
    pub(super) totals: Totals,
    pub(super) groups: Vec<Group>,
    pub(super) producers: Part,
    pub(super) epochs: Part,
    pub(super) aborted: Part,
    pub(super) checksums: Part,
}

/// A section that is being written, from a position of the file on.
#[derive(Debug)]
pub(super) struct SectionWriter {
    start: u64,
    bytes: Vec<u8>,
}

impl SectionWriter {
    pub(super) const fn new(start: u64) -> Self {
        Self { start, bytes: Vec::new() }
    }

    /// Adds a part that was packed before.
    pub(super) fn add(&mut self, packed: &Packed) -> Part {
        let at = self.start + self.bytes.len() as u64;
        self.bytes.extend_from_slice(&packed.bytes);
        Part { at, ..packed.unplaced() }
    }

    /// The whole section.
    pub(super) fn finish(mut self, directory: &Directory) -> Vec<u8> {
        let encoded = directory.encode();
        self.bytes.extend_from_slice(&encoded);
        let mut trailer = Put::default();
        trailer.u32(u32::try_from(encoded.len()).unwrap_or(u32::MAX));
        trailer.u32(crc32c::crc32c(&encoded));
        trailer.bytes(MAGIC);
        self.bytes.extend_from_slice(&trailer.0);
        self.bytes
    }
}

/// A part before it has its place.
#[derive(Debug)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    size: u64,
}

impl Packed {
    pub(super) fn new(bytes: &[u8]) -> Result<Self> {
        let mut packed = Vec::new();
        compress(Compression::Zstd, Some(LEVEL), bytes, &mut packed)?;
        Ok(Self { bytes: packed, size: bytes.len() as u64 })
    }

    /// The part, before it is known where it will be.
    pub(super) fn unplaced(&self) -> Part {
        let stored = self.bytes.len() as u64;
        Part { at: 0, stored, size: self.size, crc: crc32c::crc32c(&self.bytes) }
    }
}

impl Part {
    fn encode(&self, put: &mut Put) {
        put.u64(self.at);
        put.u64(self.stored);
        put.u64(self.size);
        put.u32(self.crc);
    }

    fn decode(take: &mut Take<'_>) -> Option<Self> {
        Some(Self { at: take.u64()?, stored: take.u64()?, size: take.u64()?, crc: take.u32()? })
    }

    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    pub(super) const fn range(&self) -> Range<u64> {
        self.at..self.at + self.stored
    }

    fn is_in(&self, section: &Range<u64>) -> bool {
        let end = self.at.checked_add(self.stored);
        self.at >= section.start && end.is_some_and(|end| end <= section.end)
    }

    /// Reads the part.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when it is not what was written.
    pub(super) fn read(&self, source: &dyn Source, path: &Path, what: &str) -> Result<Vec<u8>> {
        let stored = blocks::read(source, path, self.at..self.at + self.stored)?;
        let found = crc32c::crc32c(&stored);
        let crc = self.crc;
        if found != crc {
            let detail =
                format!("the checksum of the {what} is {found:#010x}, but {crc:#010x} is stored");
            return Err(Error::corrupt(path, self.at, detail));
        }
        let limit = usize::try_from(self.size).unwrap_or(usize::MAX);
        let bytes = decompress(Compression::Zstd, &stored, limit)
            .map_err(|error| Error::corrupt(path, self.at, format!("the {what}: {error}")))?;
        if bytes.len() as u64 == self.size {
            return Ok(bytes);
        }
        let detail = format!("the {what} has {} bytes instead of {}", bytes.len(), self.size);
        Err(Error::corrupt(path, self.at, detail))
    }
}

impl Directory {
    fn encode(&self) -> Vec<u8> {
        let mut put = Put::default();
        put.u16(VERSION);
        put.u32(u32::try_from(BLOCK_BYTES).unwrap_or(u32::MAX));
        put.varint(self.about.topic.len() as u64);
        put.bytes(self.about.topic.as_bytes());
        put.bytes(&self.about.topic_id.0);
        put.i32(self.about.partition.0);
        put.i64(self.about.base_offset.0);
        put.i64(self.about.end_offset.0);
        put.u64(self.totals.batches);
        put.u64(self.totals.rows);
        put.u64(self.totals.log_bytes);
        for part in [&self.producers, &self.epochs, &self.aborted, &self.checksums] {
            part.encode(&mut put);
        }
        put.varint(self.groups.len() as u64);
        for group in &self.groups {
            put.i64(group.base_offset.0);
            put.i64(group.end_offset.0);
            put.u32(group.lines);
            put.u32(group.rows);
            put.u64(group.raw_at);
            put.u64(group.raw_size);
            put.i64(group.max_timestamp.0);
            group.table.encode(&mut put);
        }
        put.0
    }

    /// Reads the directory of the section in this range of a file.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], or [`Error::Newer`] for a version that is not known.
    pub(super) fn read(source: &dyn Source, path: &Path, section: &Range<u64>) -> Result<Self> {
        let corrupt = |at: u64, detail: &str| Error::corrupt(path, at, detail);
        let Some(end) = section.end.checked_sub(TRAILER_BYTES).filter(|end| *end >= section.start)
        else {
            return Err(corrupt(section.start, "the private section is too small"));
        };
        let trailer = blocks::read(source, path, end..section.end)?;
        let mut take = Take(&trailer);
        let (size, crc) = (take.u32().unwrap_or(0), take.u32().unwrap_or(0));
        if take.0 != MAGIC {
            return Err(corrupt(end, "the private section does not end as one"));
        }
        let start = end.checked_sub(size.into()).filter(|start| *start >= section.start);
        let start =
            start.ok_or_else(|| corrupt(end, "the directory is larger than its section"))?;
        let bytes = blocks::read(source, path, start..end)?;
        let found = crc32c::crc32c(&bytes);
        if found != crc {
            let detail = format!(
                "the checksum of the directory is {found:#010x}, but {crc:#010x} is stored"
            );
            return Err(corrupt(start, &detail));
        }
        let mut take = Take(&bytes);
        match take.u16() {
            Some(VERSION) => {}
            Some(version) => {
                let what = format!("the private section of {}", path.display());
                return Err(Error::Newer { what, version: version.into(), known: VERSION });
            }
            None => return Err(corrupt(start, "the directory is empty")),
        }
        let directory = Self::decode(&mut take).filter(|_| take.0.is_empty());
        let directory = directory.ok_or_else(|| corrupt(start, "the directory is not one"))?;
        directory.check(section).map_err(|detail| corrupt(start, detail))?;
        Ok(directory)
    }

    fn decode(take: &mut Take<'_>) -> Option<Self> {
        if u64::from(take.u32()?) != BLOCK_BYTES {
            return None;
        }
        let name_size = usize::try_from(take.varint()?).ok()?;
        let topic = String::from_utf8(take.bytes(name_size)?.to_vec()).ok()?;
        let about = About {
            topic,
            topic_id: take.uuid()?,
            partition: PartitionIndex(take.i32()?),
            base_offset: Offset(take.i64()?),
            end_offset: Offset(take.i64()?),
        };
        let totals = Totals { batches: take.u64()?, rows: take.u64()?, log_bytes: take.u64()? };
        let producers = Part::decode(take)?;
        let epochs = Part::decode(take)?;
        let aborted = Part::decode(take)?;
        let checksums = Part::decode(take)?;
        let count = usize::try_from(take.varint()?).ok()?;
        if count > take.0.len() / GROUP_BYTES {
            return None;
        }
        let groups = (0..count).map(|_| Group::decode(take)).collect::<Option<_>>()?;
        Some(Self { about, totals, groups, producers, epochs, aborted, checksums })
    }

    /// Whether it makes sense: everything has its place, and the groups follow each other.
    fn check(&self, section: &Range<u64>) -> Result<(), &'static str> {
        let parts = [&self.producers, &self.epochs, &self.aborted, &self.checksums];
        let tables = self.groups.iter().map(|group| &group.table);
        if !parts.into_iter().chain(tables).all(|part| part.is_in(section)) {
            return Err("a part of the private section is outside of it");
        }
        let mut next = self.about.base_offset;
        for group in &self.groups {
            let raw_end = group.raw_at.checked_add(group.raw_size);
            if group.base_offset != next || group.end_offset <= group.base_offset {
                return Err("the groups of batches do not follow each other");
            }
            if raw_end.is_none_or(|end| end > section.start) {
                return Err("raw batches are behind the rows");
            }
            next = group.end_offset;
        }
        let rows: u64 = self.groups.iter().map(|group| u64::from(group.rows)).sum();
        let lines: u64 = self.groups.iter().map(|group| u64::from(group.lines)).sum();
        if next != self.about.end_offset || (rows, lines) != (self.totals.rows, self.totals.batches)
        {
            return Err("the groups of batches are not what the file holds");
        }
        Ok(())
    }
}

impl Group {
    fn decode(take: &mut Take<'_>) -> Option<Self> {
        Some(Self {
            base_offset: Offset(take.i64()?),
            end_offset: Offset(take.i64()?),
            lines: take.u32()?,
            rows: take.u32()?,
            raw_at: take.u64()?,
            raw_size: take.u64()?,
            max_timestamp: TimestampMs(take.i64()?),
            table: Part::decode(take)?,
        })
    }
}

pub(super) fn encode_epochs(epochs: &[EpochEntry]) -> Vec<u8> {
    let mut put = Put::default();
    for entry in epochs {
        put.i32(entry.epoch.0);
        put.i64(entry.start_offset.0);
    }
    put.0
}

pub(super) fn decode_epochs(bytes: &[u8]) -> Option<Vec<EpochEntry>> {
    let mut take = Take(bytes);
    let mut entries = Vec::new();
    while !take.0.is_empty() {
        let epoch = LeaderEpoch(take.i32()?);
        entries.push(EpochEntry { epoch, start_offset: Offset(take.i64()?) });
    }
    Some(entries)
}

pub(super) fn encode_aborted(aborted: &[AbortedTransaction]) -> Vec<u8> {
    let mut put = Put::default();
    for one in aborted {
        put.i64(one.producer_id.0);
        for offset in [one.first_offset, one.last_offset, one.last_stable_offset] {
            put.i64(offset.0);
        }
    }
    put.0
}

pub(super) fn decode_aborted(bytes: &[u8]) -> Option<Vec<AbortedTransaction>> {
    let mut take = Take(bytes);
    let mut entries = Vec::new();
    while !take.0.is_empty() {
        entries.push(AbortedTransaction {
            producer_id: ProducerId(take.i64()?),
            first_offset: Offset(take.i64()?),
            last_offset: Offset(take.i64()?),
            last_stable_offset: Offset(take.i64()?),
        });
    }
    Some(entries)
}

pub(super) fn encode_checksums(checksums: &[u32]) -> Vec<u8> {
    checksums.iter().flat_map(|crc| crc.to_be_bytes()).collect()
}

pub(super) fn decode_checksums(bytes: &[u8]) -> Option<Vec<u32>> {
    let mut take = Take(bytes);
    let mut checksums = Vec::with_capacity(bytes.len() / 4);
    while !take.0.is_empty() {
        checksums.push(take.u32()?);
    }
    Some(checksums)
}
