//! Reads many values with a compiled message at once, a column at a time.
//!
//! Nearly all writers write the fields of a message in the order of their numbers, each once. Then
//! the kind of a field is determined once for all values, and the processor reads ahead in some
//! values while the sizes in others are still being determined. A value that is bad, or has its
//! fields in another order, is detected and fails the whole block, which is then read value by
//! value.

use super::super::element::{push_plain, read_plain};
use super::super::schema::{Kind, Shape};
use super::super::wire::{Cursor, Raw};
use super::{Element, Program, Reader, Step};
use crate::columnar::formats::builder::Column;
use crate::columnar::formats::fail::{Fail, Read};
use crate::columnar::formats::varint::unzigzag;

/// A value is bad or unusual.
#[derive(Debug)]
pub(in crate::columnar::formats::protobuf) struct Unusual;

impl From<Fail> for Unusual {
    fn from(_: Fail) -> Self {
        Self
    }
}

type Block<T = ()> = Result<T, Unusual>;

impl Reader {
    /// Reads whole values and appends a row for each; on a failure the columns are left with
    /// unequal lengths.
    pub(in crate::columnar::formats::protobuf) fn block(
        &mut self,
        program: &Program,
        cursors: &mut [Cursor<'_>],
        columns: &mut [Column],
    ) -> Block {
        for &at in program.in_order.as_ref().ok_or(Unusual)? {
            let step = program.steps.get(usize::from(at)).ok_or(Unusual)?;
            let column = columns.get_mut(step.column).ok_or(Unusual)?;
            match (&step.element, step.tag, &step.shape) {
                (Element::Plain(kind), Some(tag), _)
                    if cursors.iter().all(|cursor| cursor.first() == Some(tag)) =>
                {
                    let skip_tag = |cursor: &mut Cursor<'_>| {
                        cursor.skip_byte();
                        Ok(true)
                    };
                    read_column(kind, cursors, column, skip_tag)?;
                }
                (
                    Element::Plain(kind),
                    Some(tag),
                    Shape::One { presence: false, required: false },
                ) => {
                    let skip_to_tag =
                        |cursor: &mut Cursor<'_>| skip_tag(step, tag, program, cursor);
                    read_column(kind, cursors, column, skip_to_tag)?;
                }
                _ => {
                    for cursor in &mut *cursors {
                        self.field_in_order(program, step, cursor, column)?;
                    }
                }
            }
        }
        for cursor in cursors {
            if skip_to(u32::MAX, program, cursor)? {
                return Err(Unusual);
            }
        }
        Ok(())
    }

    /// Reads a field of one value, which comes next if it is present.
    fn field_in_order(
        &mut self,
        program: &Program,
        step: &Step,
        cursor: &mut Cursor<'_>,
        column: &mut Column,
    ) -> Block {
        let element = &step.element;
        match &step.shape {
            Shape::One { required, presence } => {
                if let (Element::Plain(kind), Some(_)) = (element, cursor.first())
                    && cursor.first() == step.tag
                {
                    return Ok(read_plain(kind, cursor, column)?);
                }
                if !skip_to(step.number, program, cursor)? {
                    match (required, presence) {
                        (true, _) => return Err(Unusual),
                        (false, true) => column.push_null(),
                        (false, false) => element.push_default(column),
                    }
                    return Ok(());
                }
                match cursor.field()? {
                    (_, raw) if !element.takes(raw) => return Err(Unusual),
                    (_, Raw::Bytes(bytes) | Raw::Group(bytes)) if element.is_merged() => {
                        self.merged(element, bytes, column)?;
                    }
                    (_, raw) => {
                        push_plain(element, raw, column)?;
                    }
                }
            }
            Shape::Many { .. } => {
                while skip_to(step.number, program, cursor)? {
                    let (_, raw) = cursor.field()?;
                    self.item(element, raw, column.items().ok_or(Unusual)?)?;
                }
                column.close().then_some(()).ok_or(Unusual)?;
            }
            Shape::Map(key) => {
                while skip_to(step.number, program, cursor)? {
                    let (_, Raw::Bytes(entry)) = cursor.field()? else { return Err(Unusual) };
                    self.entry((key, element), entry, column.entries().ok_or(Unusual)?)?;
                }
                column.close().then_some(()).ok_or(Unusual)?;
            }
        }
        Ok(())
    }
}

/// Skips unrequested fields before one; whether that one comes next.
#[inline]
fn skip_to(number: u32, program: &Program, cursor: &mut Cursor<'_>) -> Block<bool> {
    while let Some(next) = cursor.next_number()? {
        if next >= number {
            return Ok(next == number);
        }
        if program.find(next).is_some() {
            return Err(Unusual);
        }
        cursor.field()?;
    }
    Ok(false)
}

/// Skips what comes before a field and its one-byte tag; false if the field is missing.
#[inline]
fn skip_tag(step: &Step, tag: u8, program: &Program, cursor: &mut Cursor<'_>) -> Block<bool> {
    if cursor.first() != Some(tag) {
        if !skip_to(step.number, program, cursor)? {
            return Ok(false);
        }
        if cursor.first() != Some(tag) {
            return Err(Unusual);
        }
    }
    cursor.skip_byte();
    Ok(true)
}

/// Reads what follows a tag, if `is_there` has skipped one; otherwise appends the default.
fn read_column<'a>(
    kind: &Kind,
    cursors: &mut [Cursor<'a>],
    column: &mut Column,
    is_there: impl Fn(&mut Cursor<'a>) -> Block<bool>,
) -> Block {
    let is_there = &is_there;
    match kind {
        Kind::Int64 | Kind::Uint64 => {
            let read = |cursor: &mut Cursor<'a>| cursor.number().map(|value| value as i64);
            column.extend_i64(cursors, or_default(is_there, read))
        }
        Kind::Int32 | Kind::Uint32 => {
            let read = |cursor: &mut Cursor<'a>| cursor.number().map(|value| value as i32);
            column.extend_i32(cursors, or_default(is_there, read))
        }
        Kind::Sint64 => {
            let read = |cursor: &mut Cursor<'a>| cursor.number().map(unzigzag);
            column.extend_i64(cursors, or_default(is_there, read))
        }
        Kind::Sint32 => {
            let unzigzag = |value| unzigzag(value & 0xffff_ffff) as i32;
            let read = |cursor: &mut Cursor<'a>| cursor.number().map(unzigzag);
            column.extend_i32(cursors, or_default(is_there, read))
        }
        Kind::Bool => {
            let read = |cursor: &mut Cursor<'a>| cursor.number().map(|value| value != 0);
            column.extend_bool(cursors, or_default(is_there, read))
        }
        Kind::Double => {
            let read = |cursor: &mut Cursor<'a>| cursor.chunk().map(f64::from_le_bytes);
            column.extend_f64(cursors, or_default(is_there, read))
        }
        Kind::Float => {
            let read = |cursor: &mut Cursor<'a>| cursor.chunk().map(f32::from_le_bytes);
            column.extend_f32(cursors, or_default(is_there, read))
        }
        Kind::Fixed64 | Kind::Sfixed64 => {
            let read = |cursor: &mut Cursor<'a>| cursor.chunk().map(i64::from_le_bytes);
            column.extend_i64(cursors, or_default(is_there, read))
        }
        Kind::Fixed32 | Kind::Sfixed32 => {
            let read = |cursor: &mut Cursor<'a>| cursor.chunk().map(i32::from_le_bytes);
            column.extend_i32(cursors, or_default(is_there, read))
        }
        Kind::Text => column.extend_text(cursors, |cursor, texts| {
            if is_there(cursor)? {
                cursor.text(texts)?;
            } else {
                texts.push("");
            }
            Ok(())
        }),
        Kind::Bytes => cursors.iter_mut().try_for_each(|cursor| {
            let bytes = if is_there(cursor)? { cursor.bytes()? } else { &[] };
            column.push_bytes(bytes);
            Ok(())
        }),
        _ => Err(Unusual),
    }
}

/// The result of `read`, or the default if the field is missing.
#[inline]
fn or_default<'a, T: Default>(
    is_there: impl Fn(&mut Cursor<'a>) -> Block<bool>,
    read: impl Fn(&mut Cursor<'a>) -> Read<T>,
) -> impl FnMut(&mut Cursor<'a>) -> Block<T> {
    move |cursor| if is_there(cursor)? { Ok(read(cursor)?) } else { Ok(T::default()) }
}
