//! Enums become dictionaries: a number is looked up once for each value.

use std::sync::Arc;

use super::schema::Symbols;
use crate::columnar::formats::builder::Column;
use crate::columnar::formats::fail::{Fail, Read};

/// Maps the numbers of an enum to the positions of its names.
#[derive(Debug)]
pub(super) struct EnumTable {
    dense: Vec<i32>,
    symbols: Arc<Symbols>,
}

impl EnumTable {
    pub(super) fn new(symbols: &Arc<Symbols>) -> Self {
        let mut dense = Vec::new();
        for (at, (number, _)) in (0_i32..).zip(&symbols.values) {
            if let Ok(number @ 0..1024) = usize::try_from(*number) {
                if dense.len() <= number {
                    dense.resize(number.saturating_add(1), -1);
                }
                if let Some(slot) = dense.get_mut(number) {
                    *slot = at;
                }
            }
        }
        Self { dense, symbols: Arc::clone(symbols) }
    }

    pub(super) fn push(&self, number: i32, column: &mut Column) -> Read {
        let dense = usize::try_from(number).ok().and_then(|number| self.dense.get(number));
        let found = match dense {
            Some(at @ 0..) => Some(*at),
            _ => (0_i32..)
                .zip(&self.symbols.values)
                .find(|(_, one)| one.0 == number)
                .map(|one| one.0),
        };
        if let Some(found) = found {
            column.push_symbol(found);
            return Ok(());
        }
        // A newer schema may have a name for it.
        if column.push_new_symbol(&number.to_string()) {
            return Ok(());
        }
        Err(Fail::new(format!("too many numbers that enum {:?} does not have", self.symbols.name)))
    }
}
