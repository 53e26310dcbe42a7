//! Runs a compiled program on many values at once, a column at a time.
//!
//! What a step does is chosen once for all values, and the processor reads ahead in some values
//! while the lengths in others are still being determined. This works only if all values are good:
//! reading them one by one finds out which is not, and why.

use super::{Cursor, Fail, Op, Program, Read, push_default, read};
use crate::columnar::formats::builder::Column;
use crate::columnar::formats::rows::BLOCK_ROWS;

impl Program {
    /// Reads whole values, at most [`BLOCK_ROWS`], and appends a row for each; on a failure the
    /// columns are left with unequal lengths. Values in a union are read one by one.
    pub(in crate::columnar::formats::avro) fn run_block(
        &self,
        cursors: &mut [Cursor<'_>],
        columns: &mut [Column],
    ) -> Read {
        let Self::Plain(plain) = self else {
            return cursors.iter_mut().try_for_each(|cursor| self.run(cursor, columns));
        };
        for step in &plain.steps {
            match (&step.op, columns.get_mut(step.column)) {
                (Op::Skip(skip), _) => {
                    cursors.iter_mut().try_for_each(|cursor| cursor.skip(skip))?;
                }
                (op, Some(column)) => read_column(op, cursors, column)?,
                (_, None) => {}
            }
        }
        for (index, default) in &plain.missing {
            if let Some(column) = columns.get_mut(*index) {
                cursors.iter().try_for_each(|_| push_default(default, column))?;
            }
        }
        cursors.iter().try_for_each(Cursor::end)
    }
}

fn read_column(op: &Op, cursors: &mut [Cursor<'_>], column: &mut Column) -> Read {
    match op {
        Op::Long => column.extend_i64(cursors, Cursor::long),
        Op::Text => column.extend_text(cursors, |cursor, texts| {
            cursor.text(|bytes, size| texts.push_utf8(bytes, size))
        }),
        Op::Double => column.extend_f64(cursors, |cursor| cursor.chunk().map(f64::from_le_bytes)),
        Op::Int => column.extend_i32(cursors, Cursor::int),
        Op::Boolean => column.extend_bool(cursors, Cursor::boolean),
        Op::Float => column.extend_f32(cursors, |cursor| cursor.chunk().map(f32::from_le_bytes)),
        Op::Optional { null, op } => optional(*null, op, cursors, column),
        _ => cursors.iter_mut().try_for_each(|cursor| read(op, cursor, column)),
    }
}

/// Reads a union with null: first the branches, then, if none is null, the values as if there were
/// no union.
fn optional(null: u64, op: &Op, cursors: &mut [Cursor<'_>], column: &mut Column) -> Read {
    let mut present = [false; BLOCK_ROWS];
    let mut all_present = true;
    for (cursor, present) in cursors.iter_mut().zip(&mut present) {
        let branch = cursor.varint()?;
        if branch | 2 != 2 {
            return Err(Fail::new("the branch of a union does not exist"));
        }
        *present = branch != null;
        all_present &= *present;
    }
    if all_present {
        return read_column(op, cursors, column);
    }
    for (cursor, present) in cursors.iter_mut().zip(present) {
        if present {
            read(op, cursor, column)?;
        } else {
            column.push_null();
        }
    }
    Ok(())
}
