//! Where the private section is, and the checksum of everything behind it: an entry of Parquet's footer.
//!
//! The page index and the footer come last and are Parquet's: nothing can be put behind them. So their checksum is in
//! the footer itself, as eight digits that count as zeros where it is computed. The entry is looked for as text, so that
//! Parquet sees no footer that was not compared before.
//!
//! ```text
//! … │ private section │ page index │ footer: … "ottla.section" = at, size, checksum … │ size │ PAR1
//!                     └──────────────────── what the checksum covers ────────────────────────────┘
//! ```

use std::ops::Range;
use std::path::Path;

use parquet::file::metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader};

use super::blocks::{self, Source};
use crate::error::{Error, Result};

const KEY: &str = "ottla.section";
/// Place, size and checksum, in hexadecimal.
const VALUE_SIZE: usize = 16 + 16 + DIGITS;
const DIGITS: usize = 8;
/// How an entry goes on behind its key: the second field, bytes, so many.
const VALUE_FOLLOWS: [u8; 2] = [0x18, 40];
const _: () = assert!(VALUE_SIZE == 40);
const MAGIC: &[u8; 4] = b"PAR1";
/// The size of the footer, and the magic.
const END_BYTES: u64 = 8;

/// The entry for a section at a place; its checksum is to be entered.
pub(super) fn entry(at: u64, size: u64) -> KeyValue {
    KeyValue::new(KEY.to_owned(), format!("{at:016x}{size:016x}{:08x}", 0))
}

/// Where the value of the entry is.
fn value_of(bytes: &[u8]) -> Option<Range<usize>> {
    let start = [KEY.as_bytes(), &VALUE_FOLLOWS].concat();
    let at = bytes.windows(start.len()).rposition(|window| window == start)?;
    let at = at + start.len();
    (at + VALUE_SIZE <= bytes.len()).then_some(at..at + VALUE_SIZE)
}

/// The checksum of a tail, and where its digits are.
fn checksum(tail: &[u8]) -> Option<(u32, Range<usize>)> {
    let value = value_of(tail)?;
    let digits = value.end - DIGITS..value.end;
    let crc = crc32c::crc32c(tail.get(..digits.start)?);
    let crc = crc32c::crc32c_append(crc, &[b'0'; DIGITS]);
    Some((crc32c::crc32c_append(crc, tail.get(digits.end..)?), digits))
}

/// Enters the checksum of what follows the section; false if there is no place for it.
pub(super) fn seal(tail: &mut [u8]) -> bool {
    let Some((crc, digits)) = checksum(tail) else { return false };
    let Some(place) = tail.get_mut(digits) else { return false };
    place.copy_from_slice(format!("{crc:08x}").as_bytes());
    true
}

/// Parquet's footer, and the place of the private section.
#[derive(Debug)]
pub(super) struct Footer {
    pub(super) metadata: ParquetMetaData,
    pub(super) section: Range<u64>,
}

/// Reads the footer of a file and compares its checksum.
///
/// # Errors
///
/// [`Error::Corrupt`] when the file is damaged, or none of the tier.
pub(super) fn read(source: &dyn Source, path: &Path) -> Result<Footer> {
    let size = source.size();
    let corrupt = |at: u64, detail: &str| Error::corrupt(path, at, detail);
    let end = size.checked_sub(END_BYTES).filter(|end| *end >= MAGIC.len() as u64);
    let end = end.ok_or_else(|| corrupt(0, "the file is too short to be one of the tier"))?;
    let last = blocks::read(source, path, end..size)?;
    let Some((footer_size, magic)) = last.split_first_chunk::<4>() else {
        return Err(corrupt(end, "the file is too short to be one of the tier"));
    };
    if magic != MAGIC {
        return Err(corrupt(end, "the file does not end as a Parquet file"));
    }
    let start = end.checked_sub(u32::from_le_bytes(*footer_size).into());
    let start = start.ok_or_else(|| corrupt(end, "the footer is larger than the file"))?;
    let footer = blocks::read(source, path, start..end)?;
    let section = section(&footer).filter(|section| section.end <= start).ok_or_else(|| {
        corrupt(start, "the footer does not say where the private section is: it is damaged, or the file is not of the tier")
    })?;
    let tail = blocks::read(source, path, section.end..size)?;
    let (found, digits) =
        checksum(&tail).ok_or_else(|| corrupt(section.end, "the footer has no checksum"))?;
    let stored = tail.get(digits).unwrap_or_default();
    if stored != format!("{found:08x}").as_bytes() {
        let stored = String::from_utf8_lossy(stored);
        let detail = format!("the checksum of the footer is {found:08x}, but {stored} is stored");
        return Err(corrupt(section.end, &detail));
    }
    let metadata = ParquetMetaDataReader::decode_metadata(&footer)
        .map_err(|error| corrupt(start, &format!("the footer is not one: {error}")))?;
    Ok(Footer { metadata, section })
}

fn section(footer: &[u8]) -> Option<Range<u64>> {
    let value = std::str::from_utf8(footer.get(value_of(footer)?)?).ok()?;
    let number = |range: Range<usize>| u64::from_str_radix(value.get(range)?, 16).ok();
    let (at, size) = (number(0..16)?, number(16..32)?);
    Some(at..at.checked_add(size)?)
}
