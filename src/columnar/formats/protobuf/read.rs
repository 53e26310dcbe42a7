//! Reads the bytes of a value with a compiled message.
//!
//! Fields come in any order, and may be repeated: for a field with a single value the last one
//! counts, messages are merged, and a member of a oneof clears the others. Messages within a value
//! are therefore read after all other fields next to them, each once, so the work is bounded by the
//! size of the value times the depth of the schema.

mod block;

use arrow::datatypes::TimeUnit;

use super::element::{Element, push_kind, push_plain, read_plain, time};
use super::schema::{FieldDef, Kind, Message, Shape};
use super::wire::{Cursor, Raw};
use crate::columnar::formats::builder::Column;
use crate::columnar::formats::fail::{Fail, Read};

/// Numbers up to this one are looked up in a table.
const TABLE_MAX: u32 = 1024;
const UNKNOWN: u16 = u16::MAX;
/// Tags below this one take one byte.
const QUICK_TAGS: usize = 0x80;
const SLOW: u8 = u8::MAX;
/// How many words of marks fit on the stack.
const INLINE_WORDS: usize = 4;

/// What to do with the fields of a message.
#[derive(Debug)]
pub(super) struct Program {
    steps: Vec<Step>,
    /// The step of a field's number, from 0.
    table: Vec<u16>,
    /// The same for large numbers, in order.
    far: Vec<(u32, u16)>,
    /// The step of a one-byte tag, if the field is a single number or text of the tag's wire type
    /// and clears no other: nearly all fields are.
    quick: [u8; QUICK_TAGS],
    /// The marks of a message with all its fields, if each has a single value and their marks fit
    /// into one word.
    complete: Option<u64>,
    /// The steps in the order of the fields' numbers, in which nearly all writers write them; none
    /// where one may clear another.
    in_order: Option<Vec<u16>>,
}

#[derive(Debug)]
struct Step {
    name: String,
    number: u32,
    /// The tag, where it is in the table of quick ones.
    tag: Option<u8>,
    column: usize,
    element: Element,
    shape: Shape,
    /// The other members of its oneof, of those that have columns.
    siblings: Vec<u16>,
}

/// The column of a member of a oneof that was not requested: it clears those that have columns, and
/// is never marked as seen.
const NOWHERE: usize = usize::MAX;

impl Program {
    /// Compiles a message; of the outermost one, only the wanted columns.
    pub(super) fn new(message: &Message, wanted: Option<&[usize]>) -> Self {
        let all: Vec<usize> = (0..message.fields.len()).collect();
        let chosen: Vec<(usize, &FieldDef)> = wanted
            .unwrap_or(&all)
            .iter()
            .enumerate()
            .filter_map(|(column, &index)| Some((column, message.fields.get(index)?)))
            .collect();
        let mut program = Self {
            steps: Vec::new(),
            table: Vec::new(),
            far: Vec::new(),
            quick: [SLOW; QUICK_TAGS],
            complete: None,
            in_order: None,
        };
        let is_chosen = |field: &FieldDef| chosen.iter().any(|(_, one)| one.number == field.number);
        let is_rival = |field: &FieldDef| {
            field.oneof.is_some() && chosen.iter().any(|(_, one)| one.oneof == field.oneof)
        };
        let rivals = message.fields.iter().filter(|field| is_rival(field) && !is_chosen(field));
        let rivals = rivals.map(|field| (NOWHERE, field));
        for (column, field) in chosen.iter().copied().chain(rivals) {
            let is_sibling =
                |other: &FieldDef| other.oneof == field.oneof && other.number != field.number;
            let siblings: Vec<u16> = (0_u16..)
                .zip(&chosen)
                .filter(|(_, (_, other))| field.oneof.is_some() && is_sibling(other))
                .map(|(at, _)| at)
                .collect();
            program.step(column, field, siblings);
        }
        program.far.sort_unstable();
        let is_one = |(_, field): &(usize, &FieldDef)| matches!(field.shape, Shape::One { .. });
        let unused = 64_u32.checked_sub(chosen.len() as u32);
        if chosen.iter().all(is_one) {
            program.complete = unused.and_then(|unused| u64::MAX.checked_shr(unused));
        }
        if program.steps.iter().all(|step| step.siblings.is_empty() && step.column != NOWHERE) {
            let mut in_order: Vec<(u32, u16)> =
                program.steps.iter().map(|step| step.number).zip(0..).collect();
            in_order.sort_unstable();
            program.in_order = Some(in_order.into_iter().map(|(_, at)| at).collect());
        }
        program
    }

    /// Adds the step of a field.
    fn step(&mut self, column: usize, field: &FieldDef, siblings: Vec<u16>) {
        let at = self.steps.len() as u16;
        if field.number <= TABLE_MAX {
            let number = field.number as usize;
            if self.table.len() <= number {
                self.table.resize(number.saturating_add(1), UNKNOWN);
            }
            if let Some(slot) = self.table.get_mut(number) {
                *slot = at;
            }
        } else {
            self.far.push((field.number, at));
        }
        let tag =
            field.kind.wire_type().and_then(|kind| u8::try_from(field.number << 3 | kind).ok());
        let mut quick_tag = None;
        if let (Some(tag), Shape::One { .. }, []) = (tag, &field.shape, &*siblings)
            && let (Some(slot), Ok(at)) = (self.quick.get_mut(usize::from(tag)), u8::try_from(at))
        {
            *slot = at;
            quick_tag = Some(tag);
        }
        let element = match &field.kind {
            // Only its kind matters.
            Kind::Message(_) if column == NOWHERE => Element::Plain(Kind::Opaque),
            kind => Element::new(kind),
        };
        let (name, shape) = (field.name.clone(), field.shape.clone());
        let (number, tag) = (field.number, quick_tag);
        self.steps.push(Step { name, number, tag, column, element, shape, siblings });
    }

    /// The step of a field that can be read directly, by its tag.
    #[inline]
    fn find_quick(&self, tag: u8) -> Option<usize> {
        self.quick.get(usize::from(tag)).filter(|at| **at != SLOW).map(|at| usize::from(*at))
    }

    #[inline]
    fn find(&self, number: u32) -> Option<usize> {
        if number <= TABLE_MAX {
            return match self.table.get(number as usize) {
                Some(&at) if at != UNKNOWN => Some(usize::from(at)),
                _ => None,
            };
        }
        let found = self.far.binary_search_by_key(&number, |(known, _)| *known).ok()?;
        self.far.get(found).map(|(_, at)| usize::from(*at))
    }
}

/// Which fields of a message were seen.
struct Seen<'a>(&'a mut [u64]);

impl Seen<'_> {
    #[inline]
    fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    #[inline]
    fn mark(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    fn clear(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word &= !(1 << (at % 64));
        }
    }
}

/// Reads values; reuses the memory that it needs for that.
#[derive(Debug)]
pub(super) struct Reader {
    /// The unit of the time columns.
    time_unit: TimeUnit,
    /// Messages that wait until the other fields have been read: the step, and the position of the
    /// bytes in the value that contains them.
    waiting: Vec<(usize, usize, usize)>,
}

impl Reader {
    pub(super) const fn new(time_unit: TimeUnit) -> Self {
        Self { time_unit, waiting: Vec::new() }
    }

    /// Reads a message into the columns of its fields; on a failure they are left with unequal
    /// lengths.
    pub(super) fn message(
        &mut self,
        program: &Program,
        value: &[u8],
        columns: &mut [Column],
    ) -> Read {
        let words = program.steps.len().div_ceil(64);
        let mut inline = [0_u64; INLINE_WORDS];
        let mut heap = Vec::new();
        let words = match inline.get_mut(..words) {
            Some(words) => words,
            None => {
                heap.resize(words, 0);
                &mut heap[..]
            }
        };
        let mut seen = Seen(words);
        let base = self.waiting.len();
        if let Err(fail) = self.fields(program, value, columns, &mut seen) {
            self.waiting.truncate(base);
            return Err(fail);
        }
        let merged = self.waiting.len() > base;
        if merged {
            let waiting = self.waiting.split_off(base);
            self.messages(program, value, columns, waiting)?;
        }
        finish(program, columns, &seen)
    }

    #[inline]
    fn fields(
        &mut self,
        program: &Program,
        value: &[u8],
        columns: &mut [Column],
        seen: &mut Seen<'_>,
    ) -> Read {
        let base = self.waiting.len();
        let mut cursor = Cursor::new(value);
        while let Some(tag) = cursor.first() {
            if let Some(at) = program.find_quick(tag).filter(|at| !seen.has(*at))
                && let Some(step) = program.steps.get(at)
                && let Some(column) = columns.get_mut(step.column)
                && let Element::Plain(kind) = &step.element
            {
                read_plain(kind, &mut cursor, column).map_err(|fail| fail.under(&step.name))?;
                seen.mark(at);
                continue;
            }
            let (number, raw) = cursor.field()?;
            let Some(at) = program.find(number) else { continue };
            let Some(step) = program.steps.get(at) else { continue };
            let Some(column) = columns.get_mut(step.column) else {
                if step.element.takes(raw) {
                    self.take_back(program, (step, base), columns, seen);
                }
                continue;
            };
            let done = match step.shape {
                Shape::One { .. } if step.element.is_merged() => {
                    if let Raw::Bytes(bytes) | Raw::Group(bytes) = raw {
                        let end = value.len().saturating_sub(cursor.rest().len());
                        let behind = match raw {
                            Raw::Group(_) => tag_size(number),
                            _ => 0,
                        };
                        let end = end.saturating_sub(behind);
                        self.waiting.push((at, end.saturating_sub(bytes.len()), end));
                        seen.mark(at);
                    }
                    Ok(())
                }
                Shape::One { .. } => {
                    if seen.has(at) && step.element.takes(raw) {
                        column.truncate(column.len().saturating_sub(1));
                        seen.clear(at);
                    }
                    let pushed = push_plain(&step.element, raw, column);
                    pushed.map(|pushed| {
                        if pushed {
                            seen.mark(at);
                        }
                    })
                }
                Shape::Many { .. } => match column.items() {
                    Some(items) => self.item(&step.element, raw, items),
                    None => Ok(()),
                },
                Shape::Map(ref key) => match (raw, column.entries()) {
                    (Raw::Bytes(entry), Some(entries)) => {
                        self.entry((key, &step.element), entry, entries)
                    }
                    _ => Ok(()),
                },
            };
            done.map_err(|fail| fail.under(&step.name))?;
            if !step.siblings.is_empty() && seen.has(at) {
                self.take_back(program, (step, base), columns, seen);
            }
        }
        Ok(())
    }

    /// Clears the other members of a oneof that have columns.
    #[cold]
    fn take_back(
        &mut self,
        program: &Program,
        (step, base): (&Step, usize),
        columns: &mut [Column],
        seen: &mut Seen<'_>,
    ) {
        for &sibling in &step.siblings {
            let at = usize::from(sibling);
            let Some(other) = program.steps.get(at).filter(|_| seen.has(at)) else { continue };
            seen.clear(at);
            if other.element.is_merged() {
                let mut index = 0_usize;
                self.waiting.retain(|(step, ..)| {
                    index = index.wrapping_add(1);
                    index <= base || *step != at
                });
            } else if let Some(column) = columns.get_mut(other.column) {
                column.truncate(column.len().saturating_sub(1));
            }
        }
    }

    /// Reads the messages that waited; several of the same field are merged.
    fn messages(
        &mut self,
        program: &Program,
        value: &[u8],
        columns: &mut [Column],
        mut waiting: Vec<(usize, usize, usize)>,
    ) -> Read {
        waiting.sort_by_key(|(at, ..)| *at);
        for group in waiting.chunk_by(|one, other| one.0 == other.0) {
            let Some((at, start, end)) = group.first().copied() else { continue };
            let Some(step) = program.steps.get(at) else { continue };
            let Some(column) = columns.get_mut(step.column) else { continue };
            let whole: Vec<u8>;
            let bytes = if group.len() == 1 {
                value.get(start..end).unwrap_or_default()
            } else {
                let parts = group.iter().filter_map(|(_, start, end)| value.get(*start..*end));
                whole = parts.flatten().copied().collect();
                &whole
            };
            self.merged(&step.element, bytes, column).map_err(|fail| fail.under(&step.name))?;
        }
        Ok(())
    }

    /// Appends an element that is a message.
    fn merged(&mut self, element: &Element, bytes: &[u8], column: &mut Column) -> Read {
        match element {
            Element::Message(program) => {
                if let Some(members) = column.members() {
                    self.message(program, bytes, members)?;
                }
                column.close();
            }
            Element::Wrapper(inner) => {
                let mut found = None;
                let mut cursor = Cursor::new(bytes);
                while !cursor.is_empty() {
                    let (number, raw) = cursor.field()?;
                    if number == 1 {
                        found = Some(raw);
                    }
                }
                let pushed = found.map_or(Ok(false), |raw| push_plain(inner, raw, column))?;
                if !pushed {
                    inner.push_default(column);
                }
            }
            Element::Plain(Kind::Timestamp | Kind::Duration) => {
                column.push_i64(time(bytes, self.time_unit)?);
            }
            Element::Plain(_) | Element::Enum(_) => column.push_bytes(bytes),
        }
        Ok(())
    }

    /// Appends one item of a list, or several packed items.
    fn item(&mut self, element: &Element, raw: Raw<'_>, items: &mut Column) -> Read {
        if element.is_merged() {
            if let Raw::Bytes(bytes) | Raw::Group(bytes) = raw {
                self.merged(element, bytes, items)?;
            }
            return Ok(());
        }
        match (element, raw) {
            (Element::Plain(Kind::Text | Kind::Bytes), _) => {
                push_plain(element, raw, items).map(drop)
            }
            (_, Raw::Bytes(packed)) => {
                let mut cursor = Cursor::new(packed);
                while !cursor.is_empty() {
                    let raw = match element {
                        Element::Plain(Kind::Double | Kind::Fixed64 | Kind::Sfixed64) => {
                            Raw::Eight(cursor.chunk()?)
                        }
                        Element::Plain(Kind::Float | Kind::Fixed32 | Kind::Sfixed32) => {
                            Raw::Four(cursor.chunk()?)
                        }
                        _ => Raw::Varint(cursor.varint()?),
                    };
                    push_plain(element, raw, items)?;
                }
                Ok(())
            }
            _ => push_plain(element, raw, items).map(drop),
        }
    }

    /// Appends an entry of a map: a message of a key and a value, either of which may be missing.
    fn entry(
        &mut self,
        (key, element): (&Kind, &Element),
        entry: &[u8],
        (keys, values): (&mut Column, &mut Column),
    ) -> Read {
        let (mut key_raw, mut value_raw) = (None, None);
        let mut cursor = Cursor::new(entry);
        while !cursor.is_empty() {
            match cursor.field()? {
                (1, raw) => key_raw = Some(raw),
                (2, raw) => value_raw = Some(raw),
                _ => {}
            }
        }
        let pushed = match key_raw {
            Some(raw) => push_kind(key, raw, keys)?,
            None => false,
        };
        if !pushed {
            Element::Plain(key.clone()).push_default(keys);
        }
        match (element.is_merged(), value_raw) {
            (true, Some(Raw::Bytes(bytes) | Raw::Group(bytes))) => {
                self.merged(element, bytes, values)
            }
            (true, _) => self.merged(element, &[], values),
            (false, raw) => {
                let pushed = raw.map_or(Ok(false), |raw| push_plain(element, raw, values))?;
                if !pushed {
                    element.push_default(values);
                }
                Ok(())
            }
        }
    }
}

const fn tag_size(number: u32) -> usize {
    let mut size = 1;
    let mut rest = number >> 4;
    while rest > 0 {
        rest >>= 7;
        size += 1;
    }
    size
}

/// Ends the row of every field, including missing ones.
#[inline]
fn finish(program: &Program, columns: &mut [Column], seen: &Seen<'_>) -> Read {
    if program.complete.is_some() && program.complete == seen.0.first().copied() {
        return Ok(());
    }
    for (at, step) in program.steps.iter().enumerate() {
        let Some(column) = columns.get_mut(step.column) else { continue };
        match step.shape {
            Shape::One { .. } if seen.has(at) => {}
            Shape::One { required: true, .. } => {
                return Err(Fail::new("it is required, but missing").under(&step.name));
            }
            Shape::One { presence: true, .. } => column.push_null(),
            Shape::One { .. } => step.element.push_default(column),
            Shape::Many { .. } | Shape::Map(_) => {
                if !column.close() {
                    return Err(Fail::new("the lists of a batch are too long").under(&step.name));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::ProtobufSchema;
    use super::*;
    use crate::columnar::formats::builder::Rows;

    #[test]
    fn nothing_waits_after_a_bad_value() {
        let text = "syntax = \"proto3\"; message M { M2 a = 1; int64 c = 2; repeated M2 b = 3; } \
                    message M2 { M3 x = 1; int64 y = 2; } message M3 { int64 z = 1; }";
        let schema = ProtobufSchema::parse(text, &[], Vec::new(), Some("M")).unwrap();
        let program = Program::new(schema.root(), None);
        let mut rows = Rows::new(&schema.fields(TimeUnit::Nanosecond)).unwrap();
        let mut reader = Reader::new(TimeUnit::Nanosecond);
        // The field c ends early behind a; y ends early behind x, inside of a and of b.
        let in_a = [0x0a, 3, 0x0a, 0, 0x10, 0x0a, 0];
        let in_b = [0x0a, 0, 0x1a, 3, 0x0a, 0, 0x10];
        for bad in [&[0x0a, 0, 0x10][..], &in_a, &in_b] {
            let read = reader.message(&program, bad, &mut rows.columns);
            assert!(rows.end_row(read).is_err());
            assert_eq!((reader.waiting.len(), rows.columns[0].len()), (0, 0));
        }
    }
}
