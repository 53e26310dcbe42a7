//! Runs a compiled program on the bytes of a value.
//!
//! Bytes are not trusted: every length is checked against what is left before anything is reserved,
//! and items that take no bytes are limited in number, so a value's memory is bounded by its size.

mod block;

use super::resolve::{Default, Op, Program, Record, Skip};
use crate::columnar::formats::builder::Column;
use crate::columnar::formats::fail::{Fail, Read, ends_early, not_utf8};
use crate::columnar::formats::varint;
use crate::columnar::formats::varint::{VarintError, unzigzag};

/// How many items without bytes (nulls) the lists of a value may have.
const EMPTY_ITEMS_MAX: usize = 1 << 16;

#[cold]
fn too_long_varint() -> Fail {
    Fail::new("a number has more than 10 bytes")
}

/// The bytes of a value that have not been read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    /// How many more items without bytes the value may have.
    empty_left: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, empty_left: EMPTY_ITEMS_MAX }
    }

    #[inline]
    fn varint(&mut self) -> Read<u64> {
        if let [one @ 0..=0x7f, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*one));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Read<u64> {
        match varint::read(self.rest) {
            // The tenth byte has room for one bit.
            Ok((_, varint::SIZE_MAX)) if self.rest.get(varint::SIZE_MAX - 1) > Some(&1) => {
                Err(too_long_varint())
            }
            Ok((value, size)) => {
                self.rest = self.rest.get(size..).unwrap_or_default();
                Ok(value)
            }
            Err(VarintError::Truncated) => Err(ends_early()),
            Err(VarintError::TooLong) => Err(too_long_varint()),
        }
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of a hot loop")]
    fn long(&mut self) -> Read<i64> {
        // Numbers are usually longer than the lengths and counts that `varint` expects.
        let value = match varint::read(self.rest) {
            Ok((value, size @ 0..varint::SIZE_MAX)) => {
                self.rest = self.rest.get(size..).unwrap_or_default();
                value
            }
            _ => self.long_varint()?,
        };
        Ok(unzigzag(value))
    }

    #[inline]
    fn int(&mut self) -> Read<i32> {
        let value = self.long()?;
        i32::try_from(value)
            .map_err(|_source| Fail::new(format!("{value} is not a 32-bit integer")))
    }

    #[inline]
    fn take(&mut self, size: usize) -> Read<&'a [u8]> {
        match self.rest.split_at_checked(size) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(ends_early()),
        }
    }

    #[inline]
    fn chunk<const SIZE: usize>(&mut self) -> Read<[u8; SIZE]> {
        match self.rest.split_first_chunk::<SIZE>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(ends_early()),
        }
    }

    #[inline]
    fn size(&mut self) -> Read<usize> {
        let size = unzigzag(self.varint()?);
        usize::try_from(size).map_err(|_source| Fail::new(format!("a length is {size}")))
    }

    #[inline]
    fn bytes(&mut self) -> Read<&'a [u8]> {
        let size = self.size()?;
        self.take(size)
    }

    /// Appends a text with `push`, which gets the text's size and the bytes from its start on.
    #[inline]
    fn text(&mut self, push: impl FnOnce(&[u8], usize) -> bool) -> Read {
        let size = self.size()?;
        let bytes = self.rest;
        self.take(size)?;
        if push(bytes, size) { Ok(()) } else { Err(not_utf8()) }
    }

    #[inline]
    fn boolean(&mut self) -> Read<bool> {
        match self.chunk()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Fail::new(format!("{other} is not a boolean"))),
        }
    }

    #[inline]
    fn index(&mut self, count: usize, what: &str) -> Read<usize> {
        let index = self.long()?;
        usize::try_from(index)
            .ok()
            .filter(|index| *index < count)
            .ok_or_else(|| Fail::new(format!("{what} {index} of {count} does not exist")))
    }

    /// Reads the blocks of an array or a map, whose items take at least `size_min` bytes each.
    fn blocks(&mut self, size_min: usize, mut item: impl FnMut(&mut Self) -> Read) -> Read {
        loop {
            let mut count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // The size of the block follows, for readers that skip it.
                self.long()?;
                count = count.checked_neg().unwrap_or(i64::MAX);
            }
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let room = match self.rest.len().checked_div(size_min) {
                Some(room) => room,
                None => {
                    let room = self.empty_left;
                    self.empty_left = room.saturating_sub(count);
                    room
                }
            };
            if count > room {
                return Err(Fail::new(format!("{count} items do not fit into the value")));
            }
            for _ in 0..count {
                item(self)?;
            }
        }
    }

    #[inline]
    fn end(&self) -> Read {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Fail::new(format!(
            "{} bytes are left after the record; was it written with another schema?",
            self.rest.len()
        )))
    }

    fn skip(&mut self, skip: &Skip) -> Read {
        match skip {
            Skip::Fixed(size) => self.take(*size).map(drop),
            Skip::Varint => self.varint().map(drop),
            Skip::Bytes => self.bytes().map(drop),
            Skip::Union(branches) => {
                let index = self.index(branches.len(), "branch")?;
                branches.get(index).map_or(Ok(()), |branch| self.skip(branch))
            }
            Skip::Array(items, size_min) => self.blocks(*size_min, |cursor| cursor.skip(items)),
            Skip::Map(values) => self.blocks(1, |cursor| {
                cursor.bytes()?;
                cursor.skip(values)
            }),
            Skip::Record(parts) => parts.iter().try_for_each(|part| self.skip(part)),
        }
    }
}

impl Program {
    /// Reads a whole value and appends a row; on a failure the columns are left with unequal
    /// lengths.
    #[inline]
    pub(super) fn run(&self, cursor: &mut Cursor<'_>, columns: &mut [Column]) -> Read {
        match self {
            Self::Plain(plain) => record(plain, cursor, columns)?,
            Self::Union(branches) => {
                let index = cursor.index(branches.len(), "branch")?;
                match branches.get(index) {
                    Some(Ok(branch)) => record(branch, cursor, columns)?,
                    Some(Err(detail)) => return Err(Fail::new(detail.as_str())),
                    None => {}
                }
            }
        }
        cursor.end()
    }
}

#[inline]
fn record(record: &Record, cursor: &mut Cursor<'_>, columns: &mut [Column]) -> Read {
    for step in &record.steps {
        let done = match (&step.op, columns.get_mut(step.column)) {
            (Op::Skip(skip), _) => cursor.skip(skip),
            (op, Some(column)) => read(op, cursor, column),
            (_, None) => Ok(()),
        };
        if let Err(fail) = done {
            return Err(fail.under(&step.name));
        }
    }
    for (index, default) in &record.missing {
        if let Some(column) = columns.get_mut(*index) {
            push_default(default, column)?;
        }
    }
    Ok(())
}

/// Appends the default of a reader's field that the writer lacks.
fn push_default(default: &Default, column: &mut Column) -> Read {
    read(&default.op, &mut Cursor::new(&default.bytes), column)
}

#[expect(clippy::cast_precision_loss, reason = "the specification promotes long to float")]
#[inline]
fn read(op: &Op, cursor: &mut Cursor<'_>, column: &mut Column) -> Read {
    match op {
        Op::Long => column.push_i64(cursor.long()?),
        Op::Text => cursor.text(|bytes, size| column.push_utf8(bytes, size))?,
        Op::Double => column.push_f64(f64::from_le_bytes(cursor.chunk()?)),
        Op::Int => column.push_i32(cursor.int()?),
        Op::Boolean => column.push_bool(cursor.boolean()?),
        Op::Optional { null, op } => {
            let branch = cursor.varint()?;
            if branch == *null {
                column.push_null();
            } else if branch == 2 - *null {
                return read(op, cursor, column);
            } else {
                return Err(Fail::new("the branch of a union does not exist"));
            }
        }
        Op::Null => column.push_null(),
        Op::Float => column.push_f32(f32::from_le_bytes(cursor.chunk()?)),
        Op::Bytes => column.push_bytes(cursor.bytes()?),
        Op::IntAsLong => column.push_i64(i64::from(cursor.int()?)),
        Op::IntAsFloat => column.push_f32(cursor.int()? as f32),
        Op::IntAsDouble => column.push_f64(f64::from(cursor.int()?)),
        Op::LongAsFloat => column.push_f32(cursor.long()? as f32),
        Op::LongAsDouble => column.push_f64(cursor.long()? as f64),
        Op::FloatAsDouble => column.push_f64(f64::from(f32::from_le_bytes(cursor.chunk()?))),
        Op::Fixed(size) => column.push_fixed(cursor.take(*size)?),
        _ => return read_rare(op, cursor, column),
    }
    Ok(())
}

/// Appends a time in a finer unit than it was written in.
fn finer(time: i64, units: i64, column: &mut Column) -> Read {
    let fits = || Fail::new(format!("{time} times {units} does not fit 64 bits"));
    column.push_i64(time.checked_mul(units).ok_or_else(fits)?);
    Ok(())
}

fn decimal(bytes: &[u8], column: &mut Column) -> Read {
    if column.push_decimal(bytes) {
        return Ok(());
    }
    Err(Fail::new("the decimal has more digits than its schema allows"))
}

#[cold]
fn too_long() -> Fail {
    Fail::new("the lists of one output have more than 2^31 items")
}

fn closed(column: &mut Column) -> Read {
    if column.close() { Ok(()) } else { Err(too_long()) }
}

fn read_rare(op: &Op, cursor: &mut Cursor<'_>, column: &mut Column) -> Read {
    match op {
        Op::IntAsTime(units) => finer(i64::from(cursor.int()?), *units, column),
        Op::LongAsTime(units) => finer(cursor.long()?, *units, column),
        Op::DecimalBytes => decimal(cursor.bytes()?, column),
        Op::DecimalFixed(size) => decimal(cursor.take(*size)?, column),
        Op::Enum { indices, symbols } => {
            let index = cursor.index(indices.len(), "symbol")?;
            match indices.get(index) {
                Some(Some(symbol)) => {
                    column.push_symbol(*symbol);
                    Ok(())
                }
                _ => {
                    let symbol = symbols.get(index).map_or("", String::as_str);
                    Err(Fail::new(format!("the columns' schema has no symbol {symbol:?}")))
                }
            }
        }
        Op::Union(branches) => {
            let index = cursor.index(branches.len(), "branch")?;
            branches.get(index).map_or(Ok(()), |branch| read(branch, cursor, column))
        }
        Op::Member { index, op } => {
            for (at, member) in column.members().into_iter().flatten().enumerate() {
                if at == *index {
                    read(op, cursor, member)?;
                } else {
                    member.push_null();
                }
            }
            closed(column)
        }
        Op::Array { op, size_min } => {
            if let Some(items) = column.items() {
                cursor.blocks(*size_min, |cursor| read(op, cursor, items))?;
            }
            closed(column)
        }
        Op::Map(op) => {
            if let Some((keys, values)) = column.entries() {
                cursor.blocks(1, |cursor| {
                    cursor.text(|bytes, size| keys.push_utf8(bytes, size))?;
                    read(op, cursor, values)
                })?;
            }
            closed(column)
        }
        Op::Record(inner) => {
            if let Some(members) = column.members() {
                record(inner, cursor, members)?;
            }
            closed(column)
        }
        Op::Fail(detail) => Err(Fail::new(detail.as_str())),
        Op::Skip(skip) => cursor.skip(skip),
        other => Err(Fail::new(format!("{other:?} cannot be read here"))),
    }
}
