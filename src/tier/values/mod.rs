//! Typed columns: what the values of a topic say, beside the values themselves.
//!
//! ```text
//! setting of the topic ─► ValueSchema: format, columns ─► ValueDecoding ─► columns of a file
//!   (`setting`)             flat, nullable (`flat`)          values of rows    (`decoding`)
//! ```
//!
//! The values stay what they are; typed columns are derived from them, by the decoders that scans have. So nothing
//! depends on them: what does not decode has nulls, and is counted ([`ValueReport`]).

mod decoding;
mod flat;
mod setting;

use std::sync::Arc;

pub(super) use decoding::{VALUES_KEY, ValueDecoding};
pub(super) use flat::table_type;

pub use decoding::ValueReport;

use super::schema::TypedColumn;
use crate::columnar::ValueFormat;
use crate::error::{Error, Result};
use flat::Leaf;

/// How the values of a topic become columns: what its setting `ottla.tier.value.schema` says.
#[derive(Clone, Debug)]
pub struct ValueSchema {
    format: ValueFormat,
    format_name: &'static str,
    /// The fields that are decoded, by their positions.
    wanted: Vec<usize>,
    leaves: Arc<[Leaf]>,
}

impl ValueSchema {
    /// Reads the setting.
    ///
    /// # Errors
    ///
    /// An invalid argument that says what is wrong, and what to write instead.
    pub fn parse(text: &str) -> Result<Self> {
        setting::parse(text)
    }

    /// The columns: how they want to be called, and the names of their types. They are all different, also where case
    /// does not count, and none has the name of a column that all files have.
    #[must_use]
    pub fn columns(&self) -> Vec<(String, String)> {
        let column = |leaf: &Leaf| (leaf.name.clone(), flat::type_name(&leaf.data_type));
        self.leaves.iter().map(column).collect()
    }

    /// The columns of a file, by the names and field ids that they have there.
    ///
    /// # Errors
    ///
    /// An invalid argument when there are not as many names as columns.
    pub(super) fn typed(&self, names: &[(String, u32)]) -> Result<Vec<TypedColumn>> {
        if names.len() != self.leaves.len() {
            return Err(Error::invalid("each typed column needs a name"));
        }
        let column = |(leaf, (name, id)): (&Leaf, &(String, u32))| TypedColumn {
            name: name.clone(),
            data_type: leaf.data_type.clone(),
            id: *id,
        };
        Ok(self.leaves.iter().zip(names).map(column).collect())
    }
}

#[cfg(test)]
mod tests;
