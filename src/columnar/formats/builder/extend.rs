//! Appends the values of many rows to a column at once.

use super::{Column, Data};
use crate::columnar::read::decode::TextBuilder;

macro_rules! extend_values {
    ($name:ident, $kind:ident, $type:ty) => {
        /// Appends what `read` takes from each source; on a failure the column is left incomplete.
        #[inline]
        pub(in crate::columnar) fn $name<S, E>(
            &mut self,
            sources: &mut [S],
            mut read: impl FnMut(&mut S) -> Result<$type, E>,
        ) -> Result<(), E> {
            let Data::$kind(values) = &mut self.data else {
                self.unfit_for(sources.len());
                return Ok(());
            };
            let begin = values.len();
            values.resize(begin.saturating_add(sources.len()), <$type>::default());
            let slots = values.get_mut(begin..).unwrap_or_default();
            for (slot, source) in slots.iter_mut().zip(&mut *sources) {
                *slot = read(source)?;
            }
            self.grown_by(sources.len());
            Ok(())
        }
    };
}

impl Column {
    extend_values!(extend_bool, Bool, bool);
    extend_values!(extend_i32, I32, i32);
    extend_values!(extend_i64, I64, i64);
    extend_values!(extend_f32, F32, f32);
    extend_values!(extend_f64, F64, f64);

    /// Appends the texts that `push` appends, one of each source; on a failure the column is left
    /// incomplete.
    #[inline]
    pub(in crate::columnar) fn extend_text<S, E>(
        &mut self,
        sources: &mut [S],
        mut push: impl FnMut(&mut S, &mut TextBuilder) -> Result<(), E>,
    ) -> Result<(), E> {
        let Data::Text(texts) = &mut self.data else {
            self.unfit_for(sources.len());
            return Ok(());
        };
        sources.iter_mut().try_for_each(|source| push(source, texts))?;
        self.grown_by(sources.len());
        Ok(())
    }

    #[cold]
    fn unfit_for(&mut self, rows: usize) {
        for _ in 0..rows {
            self.unfit();
        }
    }

    fn grown_by(&mut self, count: usize) {
        self.rows = self.rows.saturating_add(count);
        if self.any_null {
            self.valid.resize(self.rows, true);
        }
    }
}
