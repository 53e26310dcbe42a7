//! Converts the plain tuples and dictionaries that Python passes to the engine's types.
//!
//! `python/ottla/_bounds.py` and `formats.py` have converted the user's arguments to these before.

use std::collections::BTreeMap;
use std::convert::Infallible;

use arrow::datatypes::SchemaRef;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt};

pub(super) use super::formats::{Columns, Format};
use super::whole::{self, Whole};
use crate::client::admin::OffsetSpec;
use crate::client::{Bound, IsolationLevel, Offsets, OnDataLoss, ScanOptions};
use crate::columnar::{DecodeOptions, Decoder, OnError, ValueFormat};
use crate::error::{Error, Result};
use crate::types::{Offset, PartitionIndex, TimestampMs};

/// Reads keyword arguments; the error for a wrong type names the argument and what it takes.
pub(super) fn arguments<'a, 'py, T>(arguments: &'a pyo3::Bound<'py, PyDict>) -> PyResult<T>
where
    T: FromPyObject<'a, 'py, Error = PyErr>,
{
    arguments.extract().map_err(|error: PyErr| {
        let py = arguments.py();
        let text = error.value(py).to_string();
        let name = text.split_once("Arguments.").map(|(_, name)| name.trim().to_owned());
        let found = name.and_then(|name| Some((arguments.get_item(&name).ok()??, name)));
        let Some((value, name)) = found else { return error };
        let takes = takes(&name);
        let takes_number = takes.starts_with("a whole number") || takes.starts_with("a partition ");
        let is_number = value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>();
        if takes_number && is_number {
            // A number, but not one of these.
            return Error::invalid(format!("{name}={value}: it takes {takes}")).into();
        }
        let class = value.get_type().qualname().map_or_else(|_| String::new(), |it| it.to_string());
        PyTypeError::new_err(format!("{name}= takes {takes}, not {class}: {value:?}"))
    })
}

/// What an argument takes, as text.
fn takes(name: &str) -> &'static str {
    match name {
        "key" | "timestamp" => "the name of a column",
        "partition" => "a partition or the name of a column",
        "headers" => "the name of a column, or a mapping of keys to names of columns",
        "partitions" => "a list of partitions",
        "columns" => "a list of names",
        "batch_rows" | "max_rows" | "max_bytes" | "memory_limit" => "a whole number, zero or more",
        "threads" => "a whole number from 1 on",
        duration if duration.ends_with("_ms") => "a whole number of milliseconds",
        "string_view" => "True or False",
        _ => "a str",
    }
}

impl<'py> FromPyObject<'_, 'py> for PartitionIndex {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        object.extract().map(Self)
    }
}

impl<'py> IntoPyObject<'py> for PartitionIndex {
    type Target = PyInt;
    type Output = pyo3::Bound<'py, PyInt>;
    type Error = Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Infallible> {
        self.0.into_pyobject(py)
    }
}

/// A position in a topic, as `_bounds.py` passes it.
#[derive(Clone, Debug)]
pub(super) struct Place(pub(super) Bound);

impl Place {
    /// The lookup, for positions that are not yet offsets.
    pub(super) fn spec(&self) -> Result<OffsetSpec> {
        match &self.0 {
            Bound::Earliest => Ok(OffsetSpec::Earliest),
            Bound::Latest => Ok(OffsetSpec::Latest),
            Bound::Timestamp(time) => Ok(OffsetSpec::Timestamp(*time)),
            other => Err(Error::invalid(format!("{other:?} needs no lookup"))),
        }
    }
}

impl<'py> FromPyObject<'_, 'py> for Place {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let (word, detail) = object.extract::<(String, pyo3::Bound<'py, PyAny>)>()?;
        Ok(Self(match word.as_str() {
            "earliest" => Bound::Earliest,
            "latest" => Bound::Latest,
            "time" => Bound::Timestamp(TimestampMs(detail.extract()?)),
            "checkpoint" => {
                let all: BTreeMap<String, BTreeMap<PartitionIndex, i64>> = detail.extract()?;
                let typed = |of: BTreeMap<PartitionIndex, i64>| {
                    of.into_iter().map(|(one, at)| (one, Offset(at))).collect()
                };
                Bound::Checkpoint(all.into_iter().map(|(one, of)| (one, typed(of))).collect())
            }
            "offsets" => {
                let offsets: BTreeMap<PartitionIndex, i64> = detail.extract()?;
                Bound::Offsets(offsets.into_iter().map(|(one, at)| (one, Offset(at))).collect())
            }
            other => return Err(Error::invalid(format!("{other:?} is no place")).into()),
        }))
    }
}

/// The most bytes of records put into one batch of many rows, unless the caller asks for more: the
/// number of rows says little about its size.
const MANY_ROWS_BYTES: usize = 16 << 20;

/// The topic of `on_error="dlq:TOPIC"`.
pub(super) fn dead_letter_topic(on_error: &str) -> Option<&str> {
    on_error.strip_prefix("dlq:")
}

/// The keyword arguments that `client.scan` and `client.consumer` share.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(super) struct ReadArguments {
    value: Option<Format>,
    columns: Option<Columns>,
    isolation_level: Option<String>,
    pub(super) on_error: String,
    on_data_loss: String,
    string_view: bool,
    threads: Option<Whole<usize>>,
}

impl ReadArguments {
    /// How records become rows.
    pub(super) fn decode(&self, max_rows: usize) -> Result<DecodeOptions> {
        let on_error = match self.on_error.as_str() {
            "raise" => OnError::Raise,
            "null" => OnError::Null,
            "column" => OnError::Column,
            other if dead_letter_topic(other).is_some() => OnError::SetAside,
            other => {
                return Err(Error::invalid(format!(
                    "on_error={other:?}: use raise, null, column or dlq:TOPIC"
                )));
            }
        };
        if max_rows == 0 {
            return Err(Error::invalid("a batch must have at least one row"));
        }
        let (columns, headers) = match self.columns.clone() {
            Some(Columns { names, headers }) => (Some(names), headers),
            None => (None, Vec::new()),
        };
        let value = self.value.as_ref().map_or(Ok(ValueFormat::Raw), Format::reading)?;
        let many = value.is_many_rows();
        Ok(DecodeOptions {
            columns,
            headers,
            max_rows,
            max_bytes: if many { MANY_ROWS_BYTES } else { usize::MAX },
            value,
            on_error,
            views: self.string_view,
            threads: whole::number(self.threads).map(crate::client::threads).transpose()?,
            ..DecodeOptions::default()
        })
    }

    pub(super) fn isolation_level(&self) -> Result<Option<IsolationLevel>> {
        match self.isolation_level.as_deref() {
            None => Ok(None),
            Some("read_uncommitted") => Ok(Some(IsolationLevel::ReadUncommitted)),
            Some("read_committed") => Ok(Some(IsolationLevel::ReadCommitted)),
            Some(other) => Err(Error::invalid(format!(
                "isolation_level={other:?}: use read_uncommitted or read_committed"
            ))),
        }
    }

    pub(super) fn on_data_loss(&self) -> Result<OnDataLoss> {
        OnDataLoss::parse(&self.on_data_loss)
    }
}

/// The columns of decoded rows; the fields of JSON values must be known by then.
pub(super) fn schema(decode: &DecodeOptions) -> Result<SchemaRef> {
    let decoder = Decoder::new(decode.clone())?;
    decoder.schema().ok_or_else(|| Error::invalid("the fields of the values are not known yet"))
}

/// The columns of the rows of a scan. Without rows, the columns of the values are unknown.
pub(super) fn schema_of(
    decode: &DecodeOptions,
    asked: &ScanOptions,
    offsets: &Offsets,
) -> Result<SchemaRef> {
    let is_unknown = !asked.decode.value.is_settled() && offsets.count() == 0;
    schema(decode).map_err(|error| match error {
        Error::InvalidArgument(text) if is_unknown => Error::invalid(format!(
            "{text}; the scan of topic {} has no records from which to infer the columns of their \
             values: name them with a schema",
            offsets.topic
        )),
        other => other,
    })
}
