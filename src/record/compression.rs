//! The five codecs, as Kafka's Java client writes and reads them.
//!
//! - gzip: one member is written, several are read.
//! - snappy: written in the framing of `snappy-java` (a magic, two versions, then blocks of 32 KiB
//!   of raw snappy, each preceded by its size); read in that framing and as one raw block.
//! - lz4: the LZ4 frame format with independent blocks of 64 KiB and no content checksum, which is
//!   all that Kafka's Java reader accepts.
//! - zstd: one frame.
//!
//! RB-2: a size that the compressed bytes announce is never trusted beyond what the format can
//! expand to; output grows in steps and stops one step past the limit.

use std::cell::RefCell;
use std::io::{Read, Write};

use zstd::zstd_safe;

use crate::error::{Error, ErrorCode, Result};

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Every codec, in the order of the numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec for a number in the attributes.
    ///
    /// # Errors
    /// `UNSUPPORTED_COMPRESSION_TYPE` for a number without a codec.
    pub fn from_id(id: i16) -> Result<Self> {
        match id {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            other => Err(Error::kafka(
                ErrorCode::UnsupportedCompressionType,
                format!("compression type {other} does not exist"),
            )),
        }
    }

    /// The codec of a `compression.type`; `uncompressed` is Kafka's other name for none.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "none" | "uncompressed" => Some(Self::None),
            "gzip" => Some(Self::Gzip),
            "snappy" => Some(Self::Snappy),
            "lz4" => Some(Self::Lz4),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The number in the attributes.
    #[must_use]
    pub const fn id(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Kafka's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The levels that Kafka accepts (smallest, largest, default); none for a codec without.
    #[must_use]
    pub const fn levels(self) -> Option<(i32, i32, i32)> {
        match self {
            Self::None | Self::Snappy => None,
            Self::Gzip => Some((1, 9, -1)),
            Self::Lz4 => Some((1, 17, 9)),
            Self::Zstd => Some((-131_072, 22, 3)),
        }
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Compresses `input` and appends the result to `output`.
///
/// `level` is Kafka's `compression.<codec>.level`; none, or the codec's default, for the default.
///
/// # Errors
/// An invalid argument for a level outside [`Compression::levels`] or for a codec without
/// levels; `UNKNOWN_SERVER_ERROR` when the codec itself fails, which only lack of memory causes.
pub fn compress(
    compression: Compression,
    level: Option<i32>,
    input: &[u8],
    output: &mut Vec<u8>,
) -> Result<()> {
    check_level(compression, level)?;
    Codec::compress(compression, level, input, output).map_err(|detail| {
        Error::kafka(ErrorCode::UnknownServerError, format!("could not compress: {detail}"))
    })
}

/// Decompresses `input` to at most `limit` bytes.
///
/// # Errors
/// `CORRUPT_MESSAGE` when the bytes are not in the codec's format, are truncated, or hold more than
/// `limit`.
pub fn decompress(compression: Compression, input: &[u8], limit: usize) -> Result<Vec<u8>> {
    Codec::decompress(compression, input, limit)
        .map_err(|detail| Error::kafka(ErrorCode::CorruptMessage, detail))
}

/// Decompresses many batches, with what the codecs need from one to the next.
#[derive(Default)]
pub struct Decompressor {
    zstd: Option<zstd_safe::DCtx<'static>>,
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

impl Decompressor {
    /// As [`decompress`], into the memory of a vector that is not needed any more.
    ///
    /// # Errors
    /// As [`decompress`].
    pub fn decompress(
        &mut self,
        (compression, input): (Compression, &[u8]),
        limit: usize,
        mut output: Vec<u8>,
    ) -> Result<Vec<u8>> {
        let size = decompress_into(compression, input, limit, (&mut output, &mut self.zstd))
            .map_err(|detail| Error::kafka(ErrorCode::CorruptMessage, detail))?;
        output.truncate(size);
        // What a single large window needed is not kept.
        if self.zstd.as_ref().is_some_and(|context| context.sizeof() > SCRATCH_KEPT) {
            self.zstd = None;
        }
        Ok(output)
    }
}

fn check_level(compression: Compression, level: Option<i32>) -> Result<()> {
    let Some(level) = level else { return Ok(()) };
    match compression.levels() {
        None => Err(Error::invalid(format!("compression type {compression} has no levels"))),
        Some((min, max, default)) if level != default && !(min..=max).contains(&level) => {
            Err(Error::invalid(format!(
                "compression level {level} of {compression} is outside the range {min} to {max}"
            )))
        }
        Some(_) => Ok(()),
    }
}

const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_VERSION: [u8; 4] = 1_u32.to_be_bytes();
const XERIAL_BLOCK_SIZE: usize = 32 * 1024;
const XERIAL_HEADER_SIZE: usize = 16;

/// A copy of 64 bytes takes snappy three bytes; nothing expands further.
const SNAPPY_EXPANSION_MAX: usize = 22;
/// Up to this many times its input a zstd frame's announced size is reserved at once.
const ZSTD_EXPANSION_BELIEVED: usize = 32;
const STEP_MIN: usize = 16 * 1024;
const STEP_MAX: usize = 4 * 1024 * 1024;
/// What a [`Scratch`] keeps of each kind of memory.
const SCRATCH_KEPT: usize = 4 * 1024 * 1024;

/// The codecs behind the functions of this module, with errors as plain text.
#[derive(Clone, Copy, Debug)]
pub struct Codec;

impl Codec {
    pub(super) fn compress(
        compression: Compression,
        level: Option<i32>,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), String> {
        match compression {
            Compression::None => {
                output.extend_from_slice(input);
                Ok(())
            }
            Compression::Gzip => {
                let level = match level {
                    None | Some(-1) => flate2::Compression::default(),
                    Some(level) => flate2::Compression::new(level.unsigned_abs()),
                };
                let mut encoder = flate2::write::GzEncoder::new(output, level);
                encoder.write_all(input).map_err(text)?;
                encoder.finish().map(drop).map_err(text)
            }
            Compression::Snappy => snappy_compress(input, output),
            Compression::Lz4 => lz4_compress(level, input, output),
            Compression::Zstd => {
                zstd_compress(level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL), input, output)
            }
        }
    }

    pub(super) fn decompress(
        compression: Compression,
        input: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>, String> {
        let mut output = Vec::new();
        let size = decompress_into(compression, input, limit, (&mut output, &mut None))?;
        output.truncate(size);
        Ok(output)
    }
}

/// Reusable memory to decompress into.
#[derive(Default)]
pub(super) struct Scratch {
    output: Vec<u8>,
    zstd: Option<zstd_safe::DCtx<'static>>,
}

impl Scratch {
    /// Decompresses `input` to at most `limit` bytes, and lets `look` see them.
    pub(super) fn with<T>(
        &mut self,
        (compression, input): (Compression, &[u8]),
        limit: usize,
        look: impl FnOnce(Result<&[u8], String>) -> T,
    ) -> T {
        let memory = (&mut self.output, &mut self.zstd);
        let size = decompress_into(compression, input, limit, memory);
        let looked = look(size.map(|size| self.output.get(..size).unwrap_or_default()));
        // Memory that a single large batch needed is not kept.
        if self.output.capacity() > SCRATCH_KEPT {
            self.output = Vec::new();
        }
        if self.zstd.as_ref().is_some_and(|context| context.sizeof() > SCRATCH_KEPT) {
            self.zstd = None;
        }
        looked
    }

    /// The memory that is kept, of each kind.
    #[cfg(test)]
    pub(super) fn kept(&self) -> [usize; 2] {
        [self.output.capacity(), self.zstd.as_ref().map_or(0, zstd_safe::DCtx::sizeof)]
    }
}

/// Decompresses to the front of `output`, which is overwritten and grows; returns how many bytes
/// there are.
fn decompress_into(
    compression: Compression,
    input: &[u8],
    limit: usize,
    (output, zstd): (&mut Vec<u8>, &mut Option<zstd_safe::DCtx<'static>>),
) -> Result<usize, String> {
    match compression {
        Compression::None => {
            if input.len() > limit {
                return Err(too_large(limit));
            }
            output.clear();
            output.extend_from_slice(input);
            Ok(input.len())
        }
        Compression::Gzip => {
            let mut decoder = flate2::bufread::MultiGzDecoder::new(input);
            read_bounded(&mut decoder, input.len(), limit, output)
        }
        Compression::Snappy => snappy_decompress(input, limit, output),
        Compression::Lz4 => {
            let mut decoder = lz4::Decoder::new(input).map_err(text)?;
            let size = read_bounded(&mut decoder, input.len(), limit, output)?;
            let (_, complete) = decoder.finish();
            complete.map_err(|_unfinished| "the lz4 frame is truncated".to_owned())?;
            Ok(size)
        }
        Compression::Zstd => {
            let context = zstd.get_or_insert_with(zstd_safe::DCtx::create);
            zstd_decompress(context, input, limit, output)
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn too_large(limit: usize) -> String {
    format!("the uncompressed records are larger than the limit of {limit} bytes")
}

/// Room after the filled part: existing room, or a step that grows with the data seen so far; up
/// to one byte beyond the limit, so that an excess is noticed.
fn room(output: &mut Vec<u8>, filled: usize, input_size: usize, limit: usize) -> &mut [u8] {
    let end = limit.saturating_add(1);
    if output.len() <= filled {
        let first = input_size.saturating_mul(3).clamp(STEP_MIN, STEP_MAX);
        let step = filled.clamp(first, STEP_MAX);
        output.resize(filled.saturating_add(step).min(end), 0);
    }
    let end = output.len().min(end);
    output.get_mut(filled..end).unwrap_or_default()
}

/// Reads to the end, up to `limit` bytes; returns how many there are.
fn read_bounded(
    reader: &mut impl Read,
    input_size: usize,
    limit: usize,
    output: &mut Vec<u8>,
) -> Result<usize, String> {
    let mut filled = 0_usize;
    loop {
        match reader.read(room(output, filled, input_size, limit)).map_err(text)? {
            0 => return Ok(filled),
            read => filled = filled.saturating_add(read),
        }
        if filled > limit {
            return Err(too_large(limit));
        }
    }
}

fn snappy_compress(input: &[u8], output: &mut Vec<u8>) -> Result<(), String> {
    output.extend_from_slice(&XERIAL_MAGIC);
    output.extend_from_slice(&XERIAL_VERSION);
    output.extend_from_slice(&XERIAL_VERSION);
    let mut encoder = snap::raw::Encoder::new();
    let mut block = vec![0; snap::raw::max_compress_len(XERIAL_BLOCK_SIZE.min(input.len()))];
    for chunk in input.chunks(XERIAL_BLOCK_SIZE) {
        let size = encoder.compress(chunk, &mut block).map_err(text)?;
        let length = u32::try_from(size).map_err(text)?;
        output.extend_from_slice(&length.to_be_bytes());
        output.extend_from_slice(block.get(..size).unwrap_or_default());
    }
    Ok(())
}

fn snappy_decompress(input: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<usize, String> {
    if !input.starts_with(&XERIAL_MAGIC) {
        return snappy_block(input, limit, (output, 0));
    }
    let mut filled = 0;
    let mut rest = input.get(XERIAL_HEADER_SIZE..).ok_or("the snappy header is truncated")?;
    while !rest.is_empty() {
        // A stream may be several streams in a row.
        if rest.starts_with(&XERIAL_MAGIC) {
            rest = rest.get(XERIAL_HEADER_SIZE..).ok_or("the snappy header is truncated")?;
            continue;
        }
        let (length, behind) = rest.split_first_chunk().ok_or("a snappy block is truncated")?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(text)?;
        let block = behind.get(..length).ok_or("a snappy block is truncated")?;
        filled = snappy_block(block, limit, (output, filled))?;
        rest = behind.get(length..).unwrap_or_default();
    }
    Ok(filled)
}

/// Decompresses a block after the filled part; returns how much is then filled.
fn snappy_block(
    block: &[u8],
    limit: usize,
    (output, filled): (&mut Vec<u8>, usize),
) -> Result<usize, String> {
    let size = snap::raw::decompress_len(block).map_err(text)?;
    let end = filled.saturating_add(size);
    if end > limit {
        return Err(too_large(limit));
    }
    if size > block.len().saturating_mul(SNAPPY_EXPANSION_MAX) {
        return Err("a snappy block announces more than it can hold".to_owned());
    }
    if output.len() < end {
        output.resize(end, 0);
    }
    let room = output.get_mut(filled..end).unwrap_or_default();
    let written = snap::raw::Decoder::new().decompress(block, room).map_err(text)?;
    if written == size { Ok(end) } else { Err("a snappy block is truncated".to_owned()) }
}

fn lz4_compress(level: Option<i32>, input: &[u8], output: &mut Vec<u8>) -> Result<(), String> {
    // Kafka's default level 9 means the fast compressor; other levels mean lz4's slow one.
    let level = match level {
        None | Some(9) => 0,
        Some(level) => level.unsigned_abs().clamp(3, 12),
    };
    let mut encoder = lz4::EncoderBuilder::new()
        .block_mode(lz4::BlockMode::Independent)
        .block_size(lz4::BlockSize::Max64KB)
        .checksum(lz4::ContentChecksum::NoChecksum)
        .level(level)
        .build(output)
        .map_err(text)?;
    encoder.write_all(input).map_err(text)?;
    let (_, result) = encoder.finish();
    result.map_err(text)
}

thread_local! {
    /// The memory that zstd compresses with takes longer to make than a small batch to compress.
    static ZSTD: RefCell<Option<zstd_safe::CCtx<'static>>> = const { RefCell::new(None) };
}

fn zstd_compress(level: i32, input: &[u8], output: &mut Vec<u8>) -> Result<(), String> {
    let fails = |code| zstd_safe::get_error_name(code).to_owned();
    let mut context = ZSTD.take().unwrap_or_else(zstd_safe::CCtx::create);
    let before = output.len();
    output.resize(before.saturating_add(zstd_safe::compress_bound(input.len())), 0);
    let room = output.get_mut(before..).unwrap_or_default();
    let size = context.compress(room, input, level).map_err(fails)?;
    output.truncate(before.saturating_add(size));
    if context.sizeof() <= SCRATCH_KEPT {
        ZSTD.set(Some(context));
    }
    Ok(())
}

fn zstd_decompress(
    context: &mut zstd_safe::DCtx<'static>,
    input: &[u8],
    limit: usize,
    output: &mut Vec<u8>,
) -> Result<usize, String> {
    let fails = |code| zstd_safe::get_error_name(code).to_owned();
    if input.is_empty() {
        return Ok(0);
    }
    check_zstd_frame(input)?;
    context.reset(zstd_safe::ResetDirective::SessionOnly).map_err(fails)?;
    let announced = zstd_safe::get_frame_content_size(input).ok().flatten();
    let believed = input.len().saturating_mul(ZSTD_EXPANSION_BELIEVED);
    if let Some(size) = announced.and_then(|size| usize::try_from(size).ok()) {
        if size > limit {
            return Err(too_large(limit));
        }
        let one_frame =
            zstd_safe::find_frame_compressed_size(input).is_ok_and(|frame| frame == input.len());
        if size <= believed && one_frame {
            output.clear();
            output.reserve(size);
            return context.decompress(output, input).map_err(fails);
        }
    }
    // The window is allocated by the C library, but only its written pages become resident.
    let mut stored = zstd_safe::InBuffer::around(input);
    let mut filled = 0_usize;
    loop {
        let room = room(output, filled, input.len(), limit);
        let mut space = zstd_safe::OutBuffer::around(room);
        let due = context.decompress_stream(&mut space, &mut stored).map_err(fails)?;
        let written = space.pos();
        filled = filled.saturating_add(written);
        if filled > limit {
            return Err(too_large(limit));
        }
        if stored.pos() == input.len() {
            match (due, written) {
                // The frame is complete, and no other follows.
                (0, _) => return Ok(filled),
                (_, 0) => return Err("the zstd frame is truncated".to_owned()),
                _ => {}
            }
        } else if due == 0 {
            check_zstd_frame(input.get(stored.pos()..).unwrap_or_default())?;
        }
    }
}

/// Refuses anything that is not a frame of today's format: the library also reads those before
/// version 0.8, with memory that it neither bounds nor counts.
fn check_zstd_frame(input: &[u8]) -> Result<(), String> {
    match input {
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(()),
        [_, _, _, _, ..] => Err("the bytes are not a zstd frame".to_owned()),
        _ => Err("the zstd frame is truncated".to_owned()),
    }
}
