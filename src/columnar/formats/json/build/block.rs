//! Many rows at a time, a column after the other: see [`super::super::scan`] for the rules.
//!
//! The values of a topic usually have the same members in the same order. Then all that is between
//! their values is known from the row before, and what is left is a loop over rows for each member.
//! Such a loop decides only once what kind of value it reads, and the processor works on several
//! rows at a time, because where a value ends in one row does not matter to the next.
//!
//! ```text
//!            1st loop    2nd loop        3rd loop
//! row 0   {"id":17      ,"name":"alpha" ,"paid":true  }
//! row 1   {"id":8       ,"name":"beta"  ,"paid":false }
//! ```

use super::super::scan::{self, IsoTimes, Lead, Number};
use super::scalar::is_wide;
use super::{ColumnBuilder, Data, ObjectBuilder};
use crate::columnar::formats::rows::{BLOCK_ROWS, Value};
use crate::columnar::read::decode::TextBuilder;

impl ObjectBuilder {
    /// Appends rows for the first of some objects, up to one that is not of the simple kind or has
    /// other members than the row before; returns how many.
    pub(in super::super) fn push_block(&mut self, objects: &[Value<'_>]) -> usize {
        let row = self.rows;
        let mut rests = [&[][..]; BLOCK_ROWS];
        for (rest, object) in rests.iter_mut().zip(objects) {
            *rest = object.bytes;
        }
        let tried = objects.len().min(BLOCK_ROWS);
        let usual = self.order.usual();
        let mut count = if usual.is_empty() { 0 } else { tried };
        let mut filled = 0_usize;
        for lead in usual {
            let rests = rests.get_mut(..count).unwrap_or_default();
            count = match lead.column().and_then(|index| self.columns.get_mut(index)) {
                // As in a single row: of a field that occurs twice, the last one would count.
                Some(column) if column.len() != row => 0,
                Some(column) => {
                    filled = filled.wrapping_add(1);
                    column.push_block(lead, rests)
                }
                None => skip_each(lead, rests),
            };
        }
        let mut ends = objects.iter().zip(&rests).take(count);
        count = ends.position(|(object, rest)| !is_end(object, rest)).unwrap_or(count);
        if count > 0 && filled < self.columns.len() {
            for column in self.columns.iter_mut().filter(|column| column.len() == row) {
                if !column.field.is_nullable() {
                    count = 0;
                    break;
                }
                (0..count).for_each(|_| column.push_null());
            }
        }
        self.rows = row.wrapping_add(count);
        if count < tried {
            self.truncate(self.rows);
        }
        count
    }
}

/// Whether what is left of an object is its end. What was read before may have gone on behind it,
/// but then too much was read.
#[inline]
fn is_end(object: &Value<'_>, rest: &[u8]) -> bool {
    let at = object.bytes.len().wrapping_sub(rest.len());
    let object = object.alone();
    let behind = scan::one(object, scan::blank(object, at), b'}');
    behind.is_some_and(|behind| scan::blank(object, behind) == object.len())
}

/// Reads a value of each row, which is behind `lead`; `read` returns its size. Returns the number
/// of rows before the first that cannot be read.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the loop over a column's rows")]
fn each(lead: &Lead, rests: &mut [&[u8]], mut read: impl FnMut(&[u8]) -> Option<usize>) -> usize {
    let mut step = |rest: &mut &[u8]| {
        let value = lead.strip(rest)?;
        *rest = value.get(read(value)?..)?;
        Some(())
    };
    let count = rests.len();
    rests.iter_mut().position(|rest| step(rest).is_none()).unwrap_or(count)
}

/// As [`each`], for values that are not wanted: most are of the kind of the first one.
fn skip_each(lead: &Lead, rests: &mut [&[u8]]) -> usize {
    let first = rests.first().and_then(|rest| lead.strip(rest)?.first());
    match first {
        Some(b'"') => each(lead, rests, |value| match value.first() {
            Some(b'"') => scan::skip_string(value, 1),
            _ => scan::skip(value, 0),
        }),
        Some(b'-' | b'0'..=b'9') => each(lead, rests, |value| match value.first() {
            Some(b'-' | b'0'..=b'9') => scan::skip_number(value, 0),
            _ => scan::skip(value, 0),
        }),
        _ => each(lead, rests, |value| scan::skip(value, 0)),
    }
}

/// What is left of each row, when a column is read next.
struct Block<'a, 'v> {
    /// What its values are behind.
    lead: &'a Lead,
    rests: &'a mut [&'v [u8]],
    nullable: bool,
    /// The rows that are null, a bit each.
    nulls: u64,
}

impl Block<'_, '_> {
    /// Appends what `one` reads, with its size, up to the first row in which there is nothing to
    /// read; returns how many.
    #[inline]
    fn read<T: Copy + Default>(
        &mut self,
        values: &mut Vec<T>,
        mut one: impl FnMut(&[u8]) -> Option<(T, usize)>,
    ) -> usize {
        let begin = values.len();
        values.resize(begin.wrapping_add(self.rests.len()), T::default());
        let mut slots = values.get_mut(begin..).unwrap_or_default().iter_mut();
        let (nullable, mut bit) = (self.nullable, 1_u64);
        let count = each(self.lead, self.rests, |value| {
            let slot = slots.next()?;
            let size = match one(value) {
                Some((found, size)) => {
                    *slot = found;
                    size
                }
                None if nullable => {
                    let size = scan::literal(value, 0, b"null")?;
                    self.nulls |= bit;
                    size
                }
                None => return None,
            };
            bit = bit.wrapping_shl(1);
            Some(size)
        });
        values.truncate(begin.wrapping_add(count));
        count
    }

    /// As [`Self::read`], for texts.
    fn read_texts(&mut self, texts: &mut TextBuilder) -> usize {
        let (nullable, mut bit) = (self.nullable, 1_u64);
        each(self.lead, self.rests, |value| {
            let size = if value.first() == Some(&b'"') {
                let end = scan::string_end(value, 1)?;
                if !texts.push_utf8(value.get(1..)?, end.wrapping_sub(1)) {
                    return None;
                }
                end.wrapping_add(1)
            } else if nullable {
                let size = scan::literal(value, 0, b"null")?;
                texts.push_null();
                self.nulls |= bit;
                size
            } else {
                return None;
            };
            bit = bit.wrapping_shl(1);
            Some(size)
        })
    }
}

/// A whole number of 32 bits and its size.
#[inline]
fn whole32(value: &[u8]) -> Option<(i32, usize)> {
    let (whole, size) = scan::whole(value, 0)?;
    Some((whole.try_into().ok()?, size))
}

/// A number and its size, unless a float may be unable to hold it.
#[inline]
#[expect(clippy::cast_precision_loss, reason = "is_wide was checked")]
fn float(value: &[u8]) -> Option<(f64, usize)> {
    match scan::number(value, 0)? {
        (Number::Float(float), size) => Some((float, size)),
        (Number::Whole(whole), size) => (!is_wide(whole)).then_some((whole as f64, size)),
    }
}

/// A time as text, or as a number in the unit, and its size.
#[inline]
fn time(value: &[u8], times: &mut IsoTimes) -> Option<(i64, usize)> {
    if value.first() != Some(&b'"') {
        return scan::whole(value, 0);
    }
    times.quoted(value, 0)
}

impl ColumnBuilder {
    /// Appends the value behind `lead` of each row, up to the first row in which it is not a simple
    /// one that fits; returns how many.
    fn push_block(&mut self, lead: &Lead, rests: &mut [&[u8]]) -> usize {
        let nullable = self.field.is_nullable();
        let mut block = Block { lead, rests, nullable, nulls: 0 };
        let count = match &mut self.data {
            Data::I64(values) => block.read(values, |value| scan::whole(value, 0)),
            Data::I32(values) => block.read(values, whole32),
            Data::F64(values) => block.read(values, float),
            Data::Bool(values) => block.read(values, |value| scan::boolean(value, 0)),
            Data::Time(times, values) => block.read(values, |value| time(value, times)),
            Data::Text(texts) => block.read_texts(texts),
            // Rarer types are read row by row.
            _ => return each(lead, rests, |value| self.push_direct(value, 0)),
        };
        let nulls = block.nulls;
        self.count_block(count, nulls);
        count
    }

    /// Counts rows of which some are null.
    fn count_block(&mut self, count: usize, nulls: u64) {
        if nulls != 0 {
            self.valid.resize(self.rows, true);
            self.any_null = true;
        }
        if self.any_null {
            self.valid.extend((0..count).map(|row| nulls >> row & 1 == 0));
        }
        self.rows = self.rows.wrapping_add(count);
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Fields};
    use proptest::prelude::*;

    use super::super::super::{Extra, JsonDecoder, JsonFormat};
    use crate::columnar::formats::rows::Value;
    use crate::columnar::formats::rows::testing::assert_blocks_are_rows;

    /// Fields of all kinds that are read in blocks, one of a rarer kind, and one that rows need.
    fn fields() -> Fields {
        let time = DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None);
        Fields::from(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("count", DataType::Int32, true),
            Field::new("amount", DataType::Float64, true),
            Field::new("ok", DataType::Boolean, true),
            Field::new("name", DataType::Utf8View, true),
            Field::new("ts", time, true),
            Field::new("small", DataType::UInt8, true),
        ])
    }

    fn decoder(wanted: &[usize], extra: Extra, framed: bool) -> JsonDecoder {
        let format = JsonFormat { extra, framed, ..JsonFormat::given(fields()) };
        JsonDecoder::new(&format, wanted).unwrap()
    }

    /// A value that fits a field, or rarely some other text.
    fn any_value(name: &str) -> BoxedStrategy<String> {
        let odd = [
            "null",
            "nul",
            "1e3",
            "12345678901234567890",
            "\"a\\n\"",
            "\"\\u00e9\"",
            "[1]",
            "{}",
            "-0",
            "01",
            "1.5",
            "-7",
            "300",
            "\"7\"",
            "\"open",
            "1.",
            "9007199254740993",
            "\"\u{1}\"",
            "\"\"",
            "false",
            " 1",
            "",
            "\"2026-11-29T10:00:00+02:00\"",
            "\"2026-02-30T10:00:00Z\"",
        ];
        let usual = match name {
            "id" => "-?[1-9][0-9]{0,17}",
            "count" | "small" => "[1-9][0-9]?",
            "amount" => "[1-9][0-9]{0,5}(\\.[0-9]{1,4})?",
            "ok" => "true|false",
            "ts" => "\"20[0-9]{2}-0[1-9]-1[0-9]T1[0-9]:[0-5][0-9]:00(\\.[0-9]{3})?Z\"",
            _ => "\"[a-zé]{0,20}\"",
        };
        prop_oneof![40 => usual, 1 => prop::sample::select(odd.to_vec()).prop_map(String::from)]
            .boxed()
    }

    /// An object whose members are the usual ones, or rarely others.
    fn any_object() -> impl Strategy<Value = String> {
        let names: Vec<String> = fields().iter().map(|field| field.name().clone()).collect();
        let values: Vec<_> = names.iter().map(|name| any_value(name)).collect();
        let shape = prop_oneof![30 => Just(0), 1 => 1..10_usize];
        (values, shape, 0..7_usize).prop_map(move |(values, shape, at)| {
            let mut members: Vec<String> = names
                .iter()
                .zip(values)
                .map(|(name, value)| format!("\"{name}\":{value}"))
                .collect();
            match shape {
                1 => members.reverse(),
                2 => drop(members.remove(at)),
                3 => members.push(members[at].clone()),
                4 => members.insert(at, "\"more\": \"unwanted\"".to_owned()),
                _ => {}
            }
            let text = format!("{{{}}}", members.join(","));
            match shape {
                5 => text.replace(',', " , ").replace(':', " : "),
                6 => format!(" {text}\n"),
                7 => format!("{text}x"),
                8 => text.replacen(',', ",,", 1),
                9 => text.trim_end_matches('}').to_owned(),
                _ => text,
            }
        })
    }

    proptest! {
        #[test]
        fn blocks_give_the_rows_and_errors_of_single_rows(
            objects in prop::collection::vec(prop::option::weighted(0.98, any_object()), 1..300),
            wanted in prop::sample::subsequence((0..7).collect::<Vec<usize>>(), 1..=7),
            ignore in any::<bool>(), framed in any::<bool>(),
        ) {
            let header: &[u8] = if framed { &[0, 0, 0, 0, 1] } else { &[] };
            let value = |text: String| [header, text.as_bytes()].concat();
            let values: Vec<_> = objects.into_iter().map(|object| object.map(value)).collect();
            let extra = if ignore { Extra::Ignore } else { Extra::Error };
            assert_blocks_are_rows(|| decoder(&wanted, extra, framed), &values);
        }
    }

    #[test]
    fn rows_with_the_members_of_the_row_before_are_read_as_blocks() {
        let row =
            |n: usize| format!("{{\"id\": {n} , \"name\": \"n{n}\",\"count\":null}}").into_bytes();
        let values: Vec<_> = (0..640).map(|n| Some(row(n))).collect();
        let decoder = || decoder(&[0, 1, 4, 6], Extra::Ignore, false);
        assert_eq!(assert_blocks_are_rows(decoder, &values), 10);
        let mut decoder = decoder();
        let texts: Vec<_> = values.iter().flatten().map(|text| Value::new(text)).collect();
        assert_eq!(decoder.root.push_block(&texts[..64]), 0);
        assert_eq!(decoder.root.push_direct(texts[0].bytes), Some(()));
        assert_eq!(decoder.root.push_block(&texts[1..64]), 63);
    }
}
