//! Protobuf's binary encoding, one field at a time.

use crate::columnar::formats::fail::{Fail, Read, ends_early, not_utf8};
use crate::columnar::formats::varint;
use crate::columnar::formats::varint::{VarintError, unzigzag};
use crate::columnar::read::decode::TextBuilder;

/// Groups nested deeper than this are refused.
const GROUP_DEPTH_MAX: usize = 64;

/// The payload of a field, by its wire type.
#[derive(Clone, Copy, Debug)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Eight([u8; 8]),
    Bytes(&'a [u8]),
    /// The bytes between the two tags of a group.
    Group(&'a [u8]),
    Four([u8; 4]),
}

/// The bytes of a value that have not been read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Read<u64> {
        if let [one @ 0..=0x7f, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*one));
        }
        self.long_varint()
    }

    /// [`Self::number`], kept out of the loop in which it is rare.
    fn long_varint(&mut self) -> Read<u64> {
        self.number()
    }

    pub(super) fn sint(&mut self) -> Read<i64> {
        self.varint().map(unzigzag)
    }

    #[inline]
    fn take(&mut self, size: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(size).ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn chunk<const SIZE: usize>(&mut self) -> Read<[u8; SIZE]> {
        let (taken, rest) = self.rest.split_first_chunk::<SIZE>().ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// The first byte; at a field's start, that of its tag.
    #[inline]
    pub(super) fn first(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    #[inline]
    pub(super) fn skip_byte(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    /// A number that is usually longer than the sizes that [`Self::varint`] expects.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of a hot loop")]
    pub(super) fn number(&mut self) -> Read<u64> {
        match varint::read(self.rest) {
            // Bits beyond 64 are dropped, as in all decoders.
            Ok((value, size)) => {
                self.rest = self.rest.get(size..).unwrap_or_default();
                Ok(value)
            }
            Err(VarintError::Truncated) => Err(ends_early()),
            Err(VarintError::TooLong) => Err(Fail::new("a number has more than 10 bytes")),
        }
    }

    /// The number of the next field; none at the end.
    #[inline]
    pub(super) fn next_number(&self) -> Read<Option<u32>> {
        match self.rest.first() {
            None => Ok(None),
            Some(tag @ 0..=0x7f) => Ok(Some(u32::from(tag >> 3))),
            Some(_) => {
                let tag = Self::new(self.rest).varint()?;
                Ok(Some(u32::try_from(tag >> 3).unwrap_or(u32::MAX)))
            }
        }
    }

    /// Appends a text that follows its size.
    #[inline]
    pub(super) fn text(&mut self, texts: &mut TextBuilder) -> Read {
        let size = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        let bytes = self.rest;
        self.take(size)?;
        if texts.push_utf8(bytes, size) { Ok(()) } else { Err(not_utf8()) }
    }

    /// Bytes that follow their size.
    #[inline]
    pub(super) fn bytes(&mut self) -> Read<&'a [u8]> {
        let size = self.varint()?;
        self.take(usize::try_from(size).unwrap_or(usize::MAX))
    }

    /// The number and the payload of the next field.
    #[inline]
    pub(super) fn field(&mut self) -> Read<(u32, Raw<'a>)> {
        let tag = self.varint()?;
        let number = (tag >> 3) as u32;
        if tag >> 3 > 0x1fff_ffff || number == 0 {
            return Err(Fail::new(format!("there is no field {}; is it this message?", tag >> 3)));
        }
        let raw = match tag & 7 {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Eight(self.chunk()?),
            2 => Raw::Bytes(self.bytes()?),
            3 => Raw::Group(self.group(number)?),
            5 => Raw::Four(self.chunk()?),
            other => return Err(Fail::new(format!("field {number} has wire type {other}"))),
        };
        Ok((number, raw))
    }

    /// The contents of a group, up to its end.
    fn group(&mut self, number: u32) -> Read<&'a [u8]> {
        let start = self.rest;
        let mut open = vec![number];
        loop {
            let before = self.rest.len();
            let tag = self.varint()?;
            let number = (tag >> 3) as u32;
            match tag & 7 {
                0 => {
                    self.varint()?;
                }
                1 => {
                    self.take(8)?;
                }
                2 => {
                    let size = self.varint()?;
                    self.take(usize::try_from(size).unwrap_or(usize::MAX))?;
                }
                3 if open.len() < GROUP_DEPTH_MAX => open.push(number),
                4 if open.last() == Some(&number) => {
                    open.pop();
                    if open.is_empty() {
                        let size = start.len().saturating_sub(before);
                        return Ok(start.get(..size).unwrap_or_default());
                    }
                }
                5 => {
                    self.take(4)?;
                }
                other => return Err(Fail::new(format!("a group has wire type {other} in it"))),
            }
        }
    }
}

#[inline]
pub(super) fn put_varint(mut rest: u64, output: &mut Vec<u8>) {
    while rest >= 0x80 {
        output.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    output.push(rest as u8);
}

pub(super) fn put_sint(value: i64, output: &mut Vec<u8>) {
    put_varint((value.wrapping_shl(1) ^ (value >> 63)) as u64, output);
}

/// Appends what `put` appends, preceded by its length.
#[inline]
pub(super) fn put_delimited<E>(
    output: &mut Vec<u8>,
    put: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let at = output.len();
    output.push(0);
    put(output)?;
    let size = output.len().saturating_sub(at).saturating_sub(1);
    if size < 0x80 {
        if let Some(slot) = output.get_mut(at) {
            *slot = size as u8;
        }
        return Ok(());
    }
    let mut length = Vec::with_capacity(10);
    put_varint(size as u64, &mut length);
    output.splice(at..at.saturating_add(1), length);
    Ok(())
}
