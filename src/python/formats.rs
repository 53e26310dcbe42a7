//! Value formats and header columns, from the objects of `ottla.formats`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::interop;
use super::registry::SchemaRegistry;
use crate::columnar::{
    AvroFormat, AvroSchema, AvroTarget, DebeziumFormat, DecimalStrings, Extra, Framing,
    HeaderField, IpcCompression, IpcFormat, IpcTarget, JsonFormat, JsonTarget, NonFinite,
    ProtobufFormat, ProtobufSchema, ProtobufTarget, ReaderSchema, SchemaReference, SchemaSource,
    ValueFormat, ValueSource, types,
};
use crate::error::{Error, Result};

/// An `ottla.formats.Format`.
#[derive(Clone, Debug)]
pub(super) struct Format {
    column: String,
    exclude: Vec<String>,
    /// Or what is wrong with it, which is reported on use: an error while arguments are extracted
    /// would become a `TypeError` with a different text.
    kind: std::result::Result<Kind, String>,
}

#[derive(Clone, Debug)]
enum Kind {
    Raw,
    Text,
    Json(Json),
    Avro(Avro),
    Protobuf(Protobuf),
    /// Events in this format, and whether they are unwrapped.
    Debezium(Box<Format>, bool, DecimalStrings),
    ArrowIpc(ArrowIpc),
}

#[derive(Clone, Debug)]
struct Json {
    reading: JsonFormat,
    non_finite: NonFinite,
}

#[derive(Clone, Debug)]
struct ArrowIpc {
    fields: Option<Fields>,
    max_rows: usize,
    compression: Option<IpcCompression>,
}

#[derive(Clone, Debug)]
struct Avro {
    schema: Option<String>,
    references: Vec<SchemaReference>,
    registry: Registry,
}

#[derive(Clone, Debug)]
struct Protobuf {
    /// A text, or compiled descriptors.
    schema: Option<std::result::Result<String, Vec<u8>>>,
    imports: Vec<(String, String)>,
    references: Vec<SchemaReference>,
    message: Option<String>,
    time_unit: TimeUnit,
    registry: Registry,
}

/// A format's settings for a schema registry.
#[derive(Clone, Debug)]
struct Registry {
    native: Option<Arc<Py<SchemaRegistry>>>,
    framed: bool,
    subject: Option<String>,
    /// Whether columns come from the latest schema instead of that of the first value.
    latest: bool,
    register: bool,
}

/// A field of a Python object.
fn field<'py, T>(object: Borrowed<'_, 'py, PyAny>, name: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    object.getattr(name)?.extract()
}

impl<'py> FromPyObject<'_, 'py> for Format {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let kind = kind(object).map_err(|error| error.value(object.py()).to_string());
        Ok(Self { column: field(object, "column")?, exclude: field(object, "exclude")?, kind })
    }
}

fn kind(object: Borrowed<'_, '_, PyAny>) -> PyResult<Kind> {
    let kind: String = field(object, "kind")?;
    Ok(match kind.as_str() {
        "raw" => Kind::Raw,
        "text" => Kind::Text,
        "json" => {
            let schema = object.getattr(intern!(object.py(), "schema"))?;
            let mut reading = JsonFormat::inferred(field(object, "infer")?);
            if !schema.is_none() {
                reading.fields = Some(fields(&schema)?);
                reading.extra = Extra::Ignore;
            }
            let extra: Option<String> = field(object, "extra")?;
            reading.extra = match extra.as_deref() {
                None => reading.extra,
                Some("ignore") => Extra::Ignore,
                Some("error") => Extra::Error,
                Some(other) => {
                    let detail = format!("extra={other:?}: use error or ignore");
                    return Err(Error::invalid(detail).into());
                }
            };
            reading.framed = field(object, "framed")?;
            let nan: String = field(object, "nan")?;
            Kind::Json(Json { reading, non_finite: non_finite(&nan)? })
        }
        "avro" => Kind::Avro(Avro {
            schema: field(object, "schema")?,
            references: references(object)?,
            registry: registry(object)?,
        }),
        "protobuf" => Kind::Protobuf(Protobuf {
            schema: protobuf_schema(object)?,
            imports: field(object, "imports")?,
            references: references(object)?,
            message: field(object, "message")?,
            time_unit: match field::<String>(object, "time_unit")?.as_str() {
                "us" => TimeUnit::Microsecond,
                _ => TimeUnit::Nanosecond,
            },
            registry: registry(object)?,
        }),
        "arrow_ipc" => {
            let schema = object.getattr(intern!(object.py(), "schema"))?;
            let compression: Option<String> = field(object, "compression")?;
            Kind::ArrowIpc(ArrowIpc {
                fields: if schema.is_none() { None } else { Some(fields(&schema)?) },
                max_rows: field(object, "max_rows")?,
                compression: compression.as_deref().map(ipc_compression).transpose()?,
            })
        }
        "debezium" => {
            let inner = object.getattr(intern!(object.py(), "inner"))?;
            let decimals: Option<String> = field(object, "decimals")?;
            let decimals = match decimals.as_deref() {
                None => DecimalStrings::Either,
                Some("precise") => DecimalStrings::Precise,
                Some("string") => DecimalStrings::Digits,
                Some(other) => {
                    let detail = format!("decimals={other:?}: use precise or string");
                    return Err(Error::invalid(detail).into());
                }
            };
            Kind::Debezium(Box::new(inner.extract()?), field(object, "unwrap")?, decimals)
        }
        other => return Err(Error::invalid(format!("there is no format {other:?}")).into()),
    })
}

fn non_finite(nan: &str) -> Result<NonFinite> {
    match nan {
        "error" => Ok(NonFinite::Refuse),
        "null" => Ok(NonFinite::Null),
        "text" => Ok(NonFinite::Text),
        other => Err(Error::invalid(format!("nan={other:?}: use error, null or text"))),
    }
}

fn ipc_compression(name: &str) -> Result<IpcCompression> {
    match name {
        "lz4" => Ok(IpcCompression::Lz4),
        "zstd" => Ok(IpcCompression::Zstd),
        other => Err(Error::invalid(format!("compression={other:?}: use lz4 or zstd"))),
    }
}

/// A `.proto` text, or the bytes of compiled descriptors.
fn protobuf_schema(
    object: Borrowed<'_, '_, PyAny>,
) -> PyResult<Option<std::result::Result<String, Vec<u8>>>> {
    let schema = object.getattr(intern!(object.py(), "schema"))?;
    if schema.is_none() {
        return Ok(None);
    }
    Ok(Some(match schema.cast::<PyString>() {
        Ok(text) => Ok(text.extract()?),
        Err(_not_text) => Err(schema.extract()?),
    }))
}

/// The fields of a mapping of names to types, or of an object with a whole schema.
fn fields(schema: &Bound<'_, PyAny>) -> PyResult<Fields> {
    let Ok(mapping) = schema.cast::<PyDict>() else {
        return Ok(interop::import_any_schema(schema)?.fields);
    };
    let mut fields = Vec::with_capacity(mapping.len());
    for (name, data_type) in mapping {
        let name: String = name.extract()?;
        fields.push(typed_field(&name, &data_type)?);
    }
    Ok(fields.into())
}

/// A field from the name of a type, a mapping (a struct) or an object with `__arrow_c_schema__`.
fn typed_field(name: &str, data_type: &Bound<'_, PyAny>) -> PyResult<Field> {
    if let Ok(text) = data_type.extract::<String>() {
        return Ok(types::parse_field(name, &text)?);
    }
    if data_type.is_instance_of::<PyDict>() {
        return Ok(Field::new(name, DataType::Struct(fields(data_type)?), true));
    }
    let field = interop::import_field(data_type)?;
    Ok(field.with_name(name).with_nullable(true))
}

fn registry(object: Borrowed<'_, '_, PyAny>) -> PyResult<Registry> {
    let registry = object.getattr(intern!(object.py(), "registry"))?;
    let native = if registry.is_none() {
        None
    } else {
        let native = registry.getattr(intern!(object.py(), "_native"))?;
        Some(Arc::new(native.cast::<SchemaRegistry>()?.clone().unbind()))
    };
    Ok(Registry {
        native,
        framed: field(object, "framed")?,
        subject: field(object, "subject")?,
        latest: field(object, "latest")?,
        register: field(object, "register")?,
    })
}

/// The schemas in the registry that the schema refers to.
fn references(object: Borrowed<'_, '_, PyAny>) -> PyResult<Vec<SchemaReference>> {
    let references: Vec<(String, String, i32)> = field(object, "references")?;
    Ok(references
        .into_iter()
        .map(|(name, subject, version)| SchemaReference { name, subject, version })
        .collect())
}

impl Avro {
    /// The given schema; asks the registry for its references.
    fn schema(&self) -> Result<Option<AvroSchema>> {
        let Some(text) = &self.schema else { return Ok(None) };
        match &self.registry.native {
            Some(native) if !self.references.is_empty() => {
                let texts = Python::attach(|py| native.get().texts(py, &self.references))?;
                AvroSchema::parse_referring(text, self.references.clone(), &texts).map(Some)
            }
            _ => AvroSchema::parse(text).map(Some),
        }
    }
}

impl Protobuf {
    /// The given schema; asks the registry for its references.
    fn schema(&self) -> Result<Option<ProtobufSchema>> {
        let message = self.message.as_deref();
        let mut imports = self.imports.clone();
        if let (Some(native), false) = (&self.registry.native, self.references.is_empty()) {
            imports.extend(Python::attach(|py| native.get().texts(py, &self.references))?);
        }
        let references = self.references.clone();
        match &self.schema {
            None => Ok(None),
            Some(Ok(text)) => ProtobufSchema::parse(text, &imports, references, message).map(Some),
            Some(Err(descriptors)) => {
                let schema = ProtobufSchema::from_descriptor_set(descriptors, message)?;
                Ok(Some(schema.referring(references)))
            }
        }
    }
}

impl Registry {
    /// Which schema the columns come from, if this one is given or none.
    fn reader<S>(&self, given: Option<S>) -> ReaderSchema<S> {
        match given {
            Some(schema) => ReaderSchema::Given(schema),
            None if self.latest => ReaderSchema::Latest(self.subject.clone()),
            None => ReaderSchema::First,
        }
    }

    fn source(&self) -> Result<Option<Arc<dyn SchemaSource>>> {
        self.native.as_ref().map(|native| native.get().source()).transpose()
    }

    /// What is written before values.
    fn framing(&self) -> Result<Framing> {
        match self.source()? {
            Some(source) => Ok(Framing::Register {
                source,
                subject: self.subject.clone(),
                auto_register: self.register,
            }),
            None if self.framed => Err(Error::invalid(
                "values with the header of a schema registry need an id: pass registry=",
            )),
            None => Ok(Framing::Plain),
        }
    }
}

impl Format {
    fn kind(&self) -> Result<&Kind> {
        self.kind.as_ref().map_err(|detail| Error::invalid(detail.clone()))
    }

    /// How values are read.
    pub(super) fn reading(&self) -> Result<ValueFormat> {
        if !self.exclude.is_empty() {
            return Err(Error::invalid("exclude= is for writing only; use columns= of scan"));
        }
        let column = |kind: &str| match self.column.as_str() {
            "value" => Ok(()),
            other => Err(Error::invalid(format!(
                "ottla.{kind}({other:?}) names a column to write; in a scan it is called value"
            ))),
        };
        Ok(match self.kind()? {
            Kind::Raw => column("raw").map(|()| ValueFormat::Raw)?,
            Kind::Text => column("text").map(|()| ValueFormat::Text)?,
            Kind::Json(json) => ValueFormat::Json(json.reading.clone()),
            Kind::Avro(avro) => ValueFormat::Avro(Arc::new(AvroFormat {
                schema: avro.registry.reader(avro.schema()?),
                framed: avro.registry.framed,
                source: avro.registry.source()?,
            })),
            Kind::ArrowIpc(ipc) => ValueFormat::ArrowIpc(match &ipc.fields {
                Some(fields) => IpcFormat::given(fields.clone()),
                None => IpcFormat::inferred(),
            }),
            Kind::Debezium(inner, unwrap, decimals) => {
                ValueFormat::Debezium(Arc::new(DebeziumFormat {
                    inner: inner.reading()?,
                    unwrap: *unwrap,
                    decimals: *decimals,
                }))
            }
            Kind::Protobuf(protobuf) => ValueFormat::Protobuf(Arc::new(ProtobufFormat {
                schema: protobuf.registry.reader(protobuf.schema()?),
                message: protobuf.message.clone(),
                time_unit: protobuf.time_unit,
                framed: protobuf.registry.framed,
                source: protobuf.registry.source()?,
            })),
        })
    }

    /// How a single value is written, from which no schema can be derived: without a given one, the
    /// latest of the subject is used.
    pub(super) fn writing_one(&self) -> Result<ValueSource> {
        self.writing()?.without_table()
    }

    /// How values are written.
    pub(super) fn writing(&self) -> Result<ValueSource> {
        let exclude = self.exclude.clone();
        Ok(match self.kind()? {
            Kind::Raw | Kind::Text => ValueSource::Column(self.column.clone()),
            Kind::Json(Json { reading: JsonFormat { fields: Some(_), .. }, .. })
            | Kind::ArrowIpc(ArrowIpc { fields: Some(_), .. }) => {
                return Err(Error::invalid("a schema is for reading only; a table has its own"));
            }
            Kind::Json(Json { reading: JsonFormat { framed: true, .. }, .. }) => {
                return Err(Error::invalid("framed= is for reading only: JSON has no header"));
            }
            Kind::Json(json) => {
                ValueSource::Json(JsonTarget { exclude, non_finite: json.non_finite })
            }
            Kind::Avro(avro) => ValueSource::Avro(AvroTarget {
                schema: avro.schema()?,
                exclude,
                framing: avro.registry.framing()?,
                settled: false,
            }),
            Kind::ArrowIpc(ipc) => ValueSource::ArrowIpc(IpcTarget {
                exclude,
                max_rows: ipc.max_rows,
                compression: ipc.compression,
            }),
            Kind::Debezium(..) => {
                return Err(Error::invalid("Debezium events are for reading only: write rows"));
            }
            Kind::Protobuf(protobuf) => ValueSource::Protobuf(ProtobufTarget {
                schema: protobuf.schema()?,
                message: protobuf.message.clone(),
                exclude,
                framing: protobuf.registry.framing()?,
                settled: false,
            }),
        })
    }
}

/// The columns of `scan` and `consumer`: names, and headers as columns.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    pub(super) names: Vec<String>,
    pub(super) headers: Vec<HeaderField>,
}

impl From<Vec<String>> for Columns {
    fn from(names: Vec<String>) -> Self {
        Self { names, headers: Vec::new() }
    }
}

impl<'py> FromPyObject<'_, 'py> for Columns {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let mut columns = Self::default();
        for item in object.try_iter()? {
            let item = item?;
            if let Ok(name) = item.cast::<PyString>() {
                columns.names.push(name.extract()?);
                continue;
            }
            let header = HeaderField {
                key: item.getattr(intern!(item.py(), "key"))?.extract()?,
                column: item.getattr(intern!(item.py(), "name"))?.extract()?,
                text: item.getattr(intern!(item.py(), "text"))?.extract()?,
            };
            columns.names.push(header.column.clone());
            columns.headers.push(header);
        }
        Ok(columns)
    }
}
