//! Which rows come from records without a value.
//!
//! A tombstone decodes to a row of nulls, as does the value `{}`: the columns do not tell the two
//! apart. So the rows are accompanied by this, and whoever writes them as records again writes a
//! null value where there was one. It takes no memory where there is no tombstone.

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, UInt64Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter, take};
use arrow::error::ArrowError;

/// Which rows of some are tombstones; boxed, as few have any.
#[derive(Clone, Debug, Default)]
pub struct Tombstones(Option<Box<BooleanBuffer>>);

impl Tombstones {
    /// No row is one.
    pub const NONE: Self = Self(None);

    fn known(rows: Option<BooleanBuffer>) -> Self {
        Self(rows.map(Box::new))
    }

    /// Those of rows whose records have these values.
    #[must_use]
    pub fn of(values: &BinaryViewArray) -> Self {
        let nulls = values.nulls().filter(|nulls| nulls.null_count() > 0);
        Self::known(nulls.map(|nulls| !nulls.inner()))
    }

    /// Those of rows that are marked.
    #[must_use]
    pub fn marked(rows: &BooleanArray) -> Self {
        Self::known(Some(rows.values().clone()))
    }

    /// Whether a row is one.
    #[inline]
    #[must_use]
    pub fn contains(&self, row: usize) -> bool {
        self.0.as_ref().is_some_and(|rows| row < rows.len() && rows.value(row))
    }

    /// Whether any row is one.
    #[must_use]
    pub fn any(&self) -> bool {
        self.0.as_ref().is_some_and(|rows| rows.count_set_bits() > 0)
    }

    /// Those of a part of the rows.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Self::known(self.0.as_ref().map(|rows| rows.slice(offset, length)))
    }

    /// Those of the rows in these places, in this order.
    ///
    /// # Errors
    /// When Arrow cannot take them.
    pub fn take(&self, places: &UInt64Array) -> Result<Self, ArrowError> {
        self.changed(|rows| take(rows, places, None))
    }

    /// Those of the rows that are kept.
    ///
    /// # Errors
    /// When Arrow cannot filter them.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, ArrowError> {
        self.changed(|rows| filter(rows, keep))
    }

    fn changed(
        &self,
        change: impl Fn(&BooleanArray) -> Result<ArrayRef, ArrowError>,
    ) -> Result<Self, ArrowError> {
        let Some(rows) = &self.0 else { return Ok(Self::NONE) };
        let changed = change(&BooleanArray::new(BooleanBuffer::clone(rows), None))?;
        Ok(Self::known(Some(changed.as_boolean().values().clone())))
    }

    /// Those of several pieces of rows, one behind the other, with the number of rows of each.
    #[must_use]
    pub fn concat(pieces: &[(Self, usize)]) -> Self {
        if pieces.iter().all(|(piece, _)| piece.0.is_none()) {
            return Self::NONE;
        }
        let rows =
            pieces.iter().flat_map(|(piece, rows)| (0..*rows).map(|row| piece.contains(row)));
        Self::known(Some(rows.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(tombstones: &Tombstones, rows: usize) -> Vec<bool> {
        (0..rows).map(|row| tombstones.contains(row)).collect()
    }

    #[test]
    fn they_follow_their_rows() {
        let values = BinaryViewArray::from_iter([Some("a"), None, Some("b"), None]);
        let all = Tombstones::of(&values);
        assert_eq!(shown(&all, 5), [false, true, false, true, false]);
        assert_eq!(shown(&all.slice(1, 2), 2), [true, false]);
        let taken = all.take(&UInt64Array::from(vec![3, 2, 1])).unwrap();
        assert_eq!(shown(&taken, 3), [true, false, true]);
        let kept = all.filter(&BooleanArray::from(vec![true, false, true, true])).unwrap();
        assert_eq!(shown(&kept, 3), [false, false, true]);
        let both = Tombstones::concat(&[(Tombstones::NONE, 2), (kept, 3)]);
        assert_eq!(shown(&both, 5), [false, false, false, false, true]);
    }

    #[test]
    fn rows_without_them_take_nothing() {
        let none = Tombstones::of(&BinaryViewArray::from_iter([Some("a"), Some("b")]));
        assert!(none.0.is_none() && !none.any());
        assert!(none.take(&UInt64Array::from(vec![1])).unwrap().0.is_none());
        assert!(Tombstones::concat(&[(none, 2), (Tombstones::NONE, 1)]).0.is_none());
    }
}
