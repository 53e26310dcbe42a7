//! Decodes values row by row, or many rows a column at a time.

use arrow::array::ByteView;
use arrow::array::{Array, ArrayRef, BinaryViewArray};

use super::reading::Columns;
use super::registry::Fault;
use crate::error::Result;

/// How many values are decoded at a time, one column after another: enough to determine a column's
/// kind only once, and few enough for all of them to stay in the L1 cache.
pub(in crate::columnar) const BLOCK_ROWS: usize = 64;

/// The longest value that is in its view.
const INLINE_MAX: u32 = 12;

/// The most blocks that are read row by row after one that could not be read as a whole.
const PAUSE_MAX: u32 = 63;

/// A value of a block, and the bytes behind it in its buffer. Loads of a fixed size may reach over
/// those, so that the last parts of a value need no loops over single bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::columnar) struct Value<'a> {
    /// The value and what is behind it.
    pub(in crate::columnar) bytes: &'a [u8],
    /// The size of the value alone.
    pub(in crate::columnar) size: usize,
}

impl<'a> Value<'a> {
    /// A value with nothing behind it.
    pub(in crate::columnar) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, size: bytes.len() }
    }

    /// The value of a row; none for a null.
    #[inline]
    fn of(values: &'a BinaryViewArray, row: usize) -> Option<Self> {
        if values.is_null(row) {
            return None;
        }
        let view = ByteView::from(*values.views().get(row)?);
        // Short values are in the view itself.
        let buffer = values.data_buffers().get(view.buffer_index as usize);
        let bytes = buffer.and_then(|buffer| buffer.get(view.offset as usize..));
        match bytes.filter(|_| view.length > INLINE_MAX) {
            Some(bytes) => Some(Self { bytes, size: view.length as usize }),
            None => Some(Self::new(values.value(row))),
        }
    }

    /// The value alone.
    #[inline]
    pub(in crate::columnar) fn alone(&self) -> &'a [u8] {
        self.bytes.get(..self.size).unwrap_or_default()
    }

    /// The value without its first bytes, if it has as many.
    #[inline]
    pub(in crate::columnar) fn behind(&self, size: usize) -> Option<Self> {
        Some(Self { bytes: self.bytes.get(size..)?, size: self.size.checked_sub(size)? })
    }
}

/// A decoder for values of one row each.
pub(in crate::columnar) trait RowDecoder {
    /// Appends a row. On a fault it is as if the row had not been appended, except for
    /// [`Fault::Partly`].
    fn push(&mut self, value: &[u8]) -> Result<(), Fault>;

    /// Appends rows for the first of at most [`BLOCK_ROWS`] values, a column at a time, and returns
    /// how many. Those behind them are bad or unusual; [`Self::push`] then tells more.
    fn push_block(&mut self, _values: &[Value<'_>]) -> usize {
        0
    }

    /// Appends a row of nulls.
    fn push_null(&mut self);

    /// Makes room for rows that will follow.
    fn reserve(&mut self, rows: usize);

    /// The columns of the rows since the last call.
    fn finish(&mut self) -> Result<Vec<ArrayRef>>;
}

/// Decodes all values. `bad` is called for those that cannot be decoded, and may end it.
pub(in crate::columnar) fn decode_rows(
    decoder: &mut impl RowDecoder,
    values: &BinaryViewArray,
    bad: &mut dyn FnMut(usize, String) -> Result<()>,
) -> Result<Columns> {
    let rows = values.len();
    decoder.reserve(rows);
    let mut blocks = Blocks::default();
    let mut block = Vec::with_capacity(BLOCK_ROWS);
    let mut row = 0_usize;
    while row < rows {
        block.clear();
        let end = row.saturating_add(BLOCK_ROWS).min(rows);
        block.extend((row..end).map_while(|row| Value::of(values, row)));
        if block.is_empty() {
            decoder.push_null();
            row = row.saturating_add(1);
            continue;
        }
        let mut done = 0;
        if blocks.are_worth_it() {
            done = decoder.push_block(&block);
            blocks.tried(done > 0);
            row = row.saturating_add(done);
        }
        for value in block.iter().skip(done) {
            match decoder.push(value.alone()) {
                Ok(()) => {}
                Err(Fault::Schema(request)) => {
                    decoder.finish()?;
                    return Ok(Columns::Schema(request));
                }
                Err(Fault::Bad(detail)) => {
                    if let Err(error) = bad(row, detail) {
                        decoder.finish()?;
                        return Err(error);
                    }
                    decoder.push_null();
                }
                Err(Fault::Partly(detail)) => {
                    if let Err(error) = bad(row, detail) {
                        decoder.finish()?;
                        return Err(error);
                    }
                }
            }
            row = row.saturating_add(1);
        }
    }
    decoder.finish().map(Columns::Done)
}

/// Whether to try the next block as a whole: the more failed in a row, the less often.
#[derive(Debug, Default)]
struct Blocks {
    /// How many to skip after the next failure.
    pause: u32,
    /// How many are still to be skipped.
    left: u32,
}

impl Blocks {
    const fn are_worth_it(&mut self) -> bool {
        let worth = self.left == 0;
        self.left = self.left.saturating_sub(1);
        worth
    }

    fn tried(&mut self, done: bool) {
        self.left = self.pause;
        self.pause = self.pause.saturating_mul(2).saturating_add(1).min(PAUSE_MAX);
        if done {
            (self.pause, self.left) = (0, 0);
        }
    }
}

#[cfg(test)]
pub(in crate::columnar) mod testing {
    use super::*;

    /// The result of decoding: the columns, the refused values, and how many blocks were decoded as
    /// a whole.
    type DecodedRows = (Vec<ArrayRef>, Vec<(usize, String)>, usize);

    /// A decoder that can be prevented from reading blocks.
    struct Watched<D> {
        decoder: D,
        may_take_blocks: bool,
        blocks: usize,
    }

    impl<D: RowDecoder> RowDecoder for Watched<D> {
        fn push(&mut self, value: &[u8]) -> Result<(), Fault> {
            self.decoder.push(value)
        }

        fn push_block(&mut self, values: &[Value<'_>]) -> usize {
            if !self.may_take_blocks {
                return 0;
            }
            let done = self.decoder.push_block(values);
            self.blocks += usize::from(done == values.len());
            done
        }

        fn push_null(&mut self) {
            self.decoder.push_null();
        }

        fn reserve(&mut self, rows: usize) {
            self.decoder.reserve(rows);
        }

        fn finish(&mut self) -> Result<Vec<ArrayRef>> {
            self.decoder.finish()
        }
    }

    fn outcome(decoder: impl RowDecoder, values: &BinaryViewArray, blocks: bool) -> DecodedRows {
        let mut decoder = Watched { decoder, may_take_blocks: blocks, blocks: 0 };
        let mut refused = Vec::new();
        let columns = decode_rows(&mut decoder, values, &mut |row, detail| {
            refused.push((row, detail));
            Ok(())
        });
        let Ok(Columns::Done(columns)) = columns else { panic!("{columns:?}") };
        (columns, refused, decoder.blocks)
    }

    /// Asserts that blocks yield the same as single rows; returns how many blocks were decoded as a
    /// whole.
    pub(in crate::columnar) fn assert_blocks_are_rows<D: RowDecoder>(
        decoder: impl Fn() -> D,
        values: &[Option<Vec<u8>>],
    ) -> usize {
        let values: BinaryViewArray = values.iter().map(Option::as_deref).collect();
        let (columns, refused, blocks) = outcome(decoder(), &values, true);
        let (expected, expected_refused, _) = outcome(decoder(), &values, false);
        assert_eq!(refused, expected_refused);
        assert_eq!(columns.len(), expected.len());
        for (column, expected) in columns.iter().zip(&expected) {
            column.to_data().validate_full().unwrap();
            // Dictionaries with their texts in a different order are equal.
            assert_eq!(column, expected);
        }
        blocks
    }

    #[test]
    fn blocks_that_fail_are_tried_ever_more_rarely() {
        let mut blocks = Blocks::default();
        let mut tried = |fails: bool| {
            (0..1000)
                .filter(|_| {
                    let worth = blocks.are_worth_it();
                    if worth {
                        blocks.tried(!fails);
                    }
                    worth
                })
                .count()
        };
        assert!((20..40).contains(&tried(true)));
        assert!(tried(false) > 960);
    }
}
