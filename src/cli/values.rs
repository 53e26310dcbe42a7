//! How values are read and written, where it takes more than the name of a format: schemas, their
//! registry, and the types of columns.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::TimeUnit;
use clap::{Args, ValueEnum};

use super::Failure;
use super::csv::fields_named;
use super::options::{key_value, read_text};
use crate::client::{RegistryAuth, RegistryConfig, SchemaRegistry};
use crate::columnar::{
    AvroFormat, AvroSchema, AvroTarget, Framing, IpcFormat, IpcTarget, JsonFormat, ProtobufFormat,
    ProtobufSchema, ProtobufTarget, ReaderSchema, SchemaSource, ValueFormat, ValueSource,
};
use crate::error::{Error, Result};

/// The user and password for a registry whose URL names none, as `user:password`.
const REGISTRY_USER: &str = "OTTLA_SCHEMA_REGISTRY_USER";
/// The token for one that wants a token.
const REGISTRY_TOKEN: &str = "OTTLA_SCHEMA_REGISTRY_TOKEN";

/// The most rows of a record that is an Arrow IPC stream.
const IPC_ROWS_MAX: usize = 10_000;

/// How values are decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ReadAs {
    /// Bytes; written as text where they are UTF-8, otherwise as hexadecimal digits.
    #[default]
    Raw,
    /// Text; bytes that are not UTF-8 are errors.
    Text,
    /// JSON objects, one column per member.
    Json,
    /// Avro records, one column per field; with --schema-registry or --value-schema.
    Avro,
    /// Protobuf messages, one column per field; with --schema-registry or --value-schema.
    Protobuf,
    /// Arrow IPC streams, whose rows become rows.
    ArrowIpc,
}

impl ReadAs {
    /// Whether a value becomes columns of its own.
    pub(super) const fn has_columns(self) -> bool {
        !matches!(self, Self::Raw | Self::Text)
    }
}

/// What values are made from the columns of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum WriteAs {
    /// A JSON object.
    Json,
    /// An Avro record; without a schema, that of the columns is registered.
    Avro,
    /// A Protobuf message; without a schema, that of the columns is registered.
    Protobuf,
    /// Arrow IPC streams of many rows.
    ArrowIpc,
}

/// Whose schema the columns come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ColumnsFrom {
    /// The latest schema of the subject.
    #[default]
    Latest,
    /// The schema of the first value.
    First,
}

/// The schemas of values.
#[derive(Clone, Debug, Args)]
pub(super) struct SchemaArguments {
    /// With avro and protobuf: a file with the schema, which is Avro's JSON, a .proto file (files that it imports
    /// are looked for in its folder), or what protoc --include_imports -o wrote.
    #[arg(long, value_name = "FILE")]
    value_schema: Option<PathBuf>,
    /// With protobuf: the message, where the schema has several.
    #[arg(long, value_name = "NAME")]
    message: Option<String>,
    /// With avro and protobuf: the URL of a schema registry, or several URLs of one, separated by commas. Values
    /// begin with its header. A user is taken from the URL, or from OTTLA_SCHEMA_REGISTRY_USER (user:password); a
    /// token from OTTLA_SCHEMA_REGISTRY_TOKEN.
    #[arg(long, value_name = "URL")]
    schema_registry: Option<String>,
    /// A PEM file with the certificates to trust instead of those of the public authorities.
    #[arg(long, value_name = "FILE", requires = "schema_registry")]
    schema_registry_ca: Option<PathBuf>,
    /// The subject in the registry. Default: the topic's name with -value.
    #[arg(long, value_name = "SUBJECT", requires = "schema_registry")]
    subject: Option<String>,
}

impl SchemaArguments {
    /// Refuses what a format has no use for.
    fn check(&self, has_schema: bool, is_protobuf: bool) -> Result<(), Failure> {
        let misplaced = if !has_schema && self.value_schema.is_some() {
            "--value-schema applies to --value-format avro and protobuf"
        } else if !has_schema && self.schema_registry.is_some() {
            "--schema-registry applies to --value-format avro and protobuf"
        } else if !is_protobuf && self.message.is_some() {
            "--message applies to --value-format protobuf"
        } else {
            return Ok(());
        };
        Err(Failure::Usage(misplaced.to_owned()))
    }

    fn registry(&self) -> Result<Option<Arc<dyn SchemaSource>>> {
        let Some(urls) = &self.schema_registry else { return Ok(None) };
        let mut config = RegistryConfig::new(urls)?;
        if config.auth == RegistryAuth::None {
            config.auth = auth()?;
        }
        if let Some(file) = &self.schema_registry_ca {
            config.ca_pem = Some(read_bytes(file)?);
        }
        Ok(Some(Arc::new(SchemaRegistry::new(&config)?)))
    }

    fn avro(&self) -> Result<Option<AvroSchema>> {
        let parse = |file: &PathBuf| AvroSchema::parse(&read_text(file)?).map_err(in_file(file));
        self.value_schema.as_ref().map(parse).transpose()
    }

    fn protobuf(&self) -> Result<Option<ProtobufSchema>> {
        let Some(file) = &self.value_schema else { return Ok(None) };
        let message = self.message.as_deref();
        let schema = if file.extension().is_some_and(|end| end == "proto") {
            let text = read_text(file)?;
            let imports = imports(file, &text)?;
            ProtobufSchema::parse(&text, &imports, Vec::new(), message)
        } else {
            ProtobufSchema::from_descriptor_set(&read_bytes(file)?, message)
        };
        schema.map(Some).map_err(in_file(file))
    }
}

/// The schemas of values that are read, and how their columns are found.
#[derive(Clone, Debug, Args)]
pub(super) struct ReadingArguments {
    /// How values are decoded.
    #[arg(long, value_enum, default_value_t)]
    value_format: ReadAs,
    /// With json and arrow-ipc: the columns and their types, for example id=int64,amount=float64 (text, int64,
    /// uint64, float64, bool, date, timestamp); others are not read. Without it, they are found from the first
    /// values.
    #[arg(long, value_name = "NAME=TYPE,…", value_delimiter = ',', value_parser = key_value)]
    schema: Vec<(String, String)>,
    /// With a schema registry and no --value-schema: which schema the columns come from.
    #[arg(long, value_enum, requires = "schema_registry", conflicts_with = "value_schema")]
    columns_from: Option<ColumnsFrom>,
    #[command(flatten)]
    schemas: SchemaArguments,
}

impl ReadingArguments {
    pub(super) const fn kind(&self) -> ReadAs {
        self.value_format
    }

    /// Whether the columns are found from the first values.
    pub(super) const fn infers(&self) -> bool {
        matches!(self.value_format, ReadAs::Json | ReadAs::ArrowIpc) && self.schema.is_empty()
    }

    /// The format of values.
    pub(super) fn format(&self) -> Result<ValueFormat, Failure> {
        let kind = self.value_format;
        let has_schema = matches!(kind, ReadAs::Avro | ReadAs::Protobuf);
        self.schemas.check(has_schema, kind == ReadAs::Protobuf)?;
        if !self.schema.is_empty() && !matches!(kind, ReadAs::Json | ReadAs::ArrowIpc) {
            let detail = "--schema applies to --value-format json and arrow-ipc; --value-schema \
                          names a file with a schema";
            return Err(Failure::Usage(detail.to_owned()));
        }
        let fields = if self.schema.is_empty() {
            None
        } else {
            Some(fields_named(&self.schema, Some("UTC"))?)
        };
        Ok(match kind {
            ReadAs::Raw => ValueFormat::Raw,
            ReadAs::Text => ValueFormat::Text,
            ReadAs::Json => fields.map_or_else(ValueFormat::json_inferred, ValueFormat::json),
            ReadAs::ArrowIpc => {
                ValueFormat::ArrowIpc(fields.map_or_else(IpcFormat::inferred, IpcFormat::given))
            }
            ReadAs::Avro => {
                let source = self.schemas.registry()?;
                let schema = self.reader(self.schemas.avro()?, source.is_some())?;
                let framed = source.is_some();
                ValueFormat::Avro(Arc::new(AvroFormat { schema, framed, source }))
            }
            ReadAs::Protobuf => {
                let source = self.schemas.registry()?;
                let schema = self.reader(self.schemas.protobuf()?, source.is_some())?;
                let framed = source.is_some();
                let message = self.schemas.message.clone();
                let time_unit = TimeUnit::Nanosecond;
                let format = ProtobufFormat { schema, message, time_unit, framed, source };
                ValueFormat::Protobuf(Arc::new(format))
            }
        })
    }

    fn reader<S>(&self, given: Option<S>, has_registry: bool) -> Result<ReaderSchema<S>, Failure> {
        if given.is_some() && self.schemas.subject.is_some() {
            let detail = "--value-schema names the columns, so that no --subject is asked for them: omit one of them";
            return Err(Failure::Usage(detail.to_owned()));
        }
        Ok(match (given, self.columns_from.unwrap_or_default()) {
            (Some(schema), _) => ReaderSchema::Given(schema),
            (None, _) if !has_registry => {
                let detail =
                    "values need a schema: add --schema-registry URL or --value-schema FILE";
                return Err(Failure::Usage(detail.to_owned()));
            }
            (None, ColumnsFrom::Latest) => ReaderSchema::Latest(self.schemas.subject.clone()),
            (None, ColumnsFrom::First) if self.schemas.subject.is_some() => {
                let detail = "--columns-from first takes no subject: omit --subject";
                return Err(Failure::Usage(detail.to_owned()));
            }
            (None, ColumnsFrom::First) => ReaderSchema::First,
        })
    }
}

/// The schemas of values that are written.
#[derive(Clone, Debug, Args)]
pub(super) struct WritingArguments {
    /// What values are made from the columns of CSV and Parquet, or the members of JSON. Default: JSON.
    #[arg(long, value_enum)]
    value_format: Option<WriteAs>,
    /// With a schema registry: do not register the schema; the subject must have it.
    #[arg(long, requires = "schema_registry")]
    no_auto_register: bool,
    #[command(flatten)]
    schemas: SchemaArguments,
}

impl WritingArguments {
    pub(super) const fn kind(&self) -> Option<WriteAs> {
        self.value_format
    }

    /// What values are made of, without the columns in `exclude`.
    pub(super) fn source(&self, exclude: Vec<String>) -> Result<ValueSource, Failure> {
        let kind = self.value_format.unwrap_or(WriteAs::Json);
        let has_schema = matches!(kind, WriteAs::Avro | WriteAs::Protobuf);
        self.schemas.check(has_schema, kind == WriteAs::Protobuf)?;
        Ok(match kind {
            WriteAs::Json => ValueSource::json(exclude),
            WriteAs::ArrowIpc => {
                let (max_rows, compression) = (IPC_ROWS_MAX, None);
                ValueSource::ArrowIpc(IpcTarget { exclude, max_rows, compression })
            }
            WriteAs::Avro => {
                let (schema, framing) = (self.schemas.avro()?, self.framing()?);
                require(schema.is_some(), &framing)?;
                ValueSource::Avro(AvroTarget { schema, exclude, framing, settled: false })
            }
            WriteAs::Protobuf => {
                let (schema, framing) = (self.schemas.protobuf()?, self.framing()?);
                require(schema.is_some(), &framing)?;
                let message = self.schemas.message.clone();
                let settled = false;
                let target = ProtobufTarget { schema, message, exclude, framing, settled };
                ValueSource::Protobuf(target)
            }
        })
    }

    fn framing(&self) -> Result<Framing> {
        Ok(self.schemas.registry()?.map_or(Framing::Plain, |source| Framing::Register {
            source,
            subject: self.schemas.subject.clone(),
            auto_register: !self.no_auto_register,
        }))
    }
}

/// Values without a registry are of no use to whoever does not have their schema.
fn require(has_schema: bool, framing: &Framing) -> Result<(), Failure> {
    if has_schema || *framing != Framing::Plain {
        return Ok(());
    }
    let detail = "values need a schema: add --schema-registry URL or --value-schema FILE";
    Err(Failure::Usage(detail.to_owned()))
}

/// JSON objects as rows with the columns that a schema wants; other members are errors.
pub(super) fn json_rows_for(source: &ValueSource) -> Result<Option<ValueFormat>> {
    let format = |fields| {
        let extra = crate::columnar::Extra::Error;
        ValueFormat::Json(JsonFormat { extra, ..JsonFormat::given(fields) })
    };
    Ok(source.fields()?.map(format))
}

fn auth() -> Result<RegistryAuth> {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    match (variable(REGISTRY_USER), variable(REGISTRY_TOKEN)) {
        (Some(_), Some(_)) => Err(Error::invalid(format!(
            "both {REGISTRY_USER} and {REGISTRY_TOKEN} are set: unset one of them"
        ))),
        (Some(user), None) => match user.split_once(':') {
            Some((name, password)) => {
                Ok(RegistryAuth::Basic { username: name.into(), password: password.into() })
            }
            None => Err(Error::invalid(format!("{REGISTRY_USER} is not user:password"))),
        },
        (None, Some(token)) => Ok(RegistryAuth::Bearer(token)),
        (None, None) => Ok(RegistryAuth::None),
    }
}

fn read_bytes(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(|error| Error::io("read", file, error))
}

fn in_file(file: &Path) -> impl Fn(Error) -> Error + use<'_> {
    move |error| Error::invalid(format!("{}: {error}", file.display()))
}

/// The texts of the files that a .proto file imports, as far as they are in its folder: what is not may be one
/// that every compiler knows.
fn imports(file: &Path, text: &str) -> Result<Vec<(String, String)>> {
    let folder = file.parent().unwrap_or_else(|| Path::new(""));
    let statement = regex::Regex::new(r#"\bimport\s+(?:public\s+|weak\s+)?"([^"]+)""#)
        .map_err(|error| Error::invalid(error.to_string()))?;
    let mut found: Vec<(String, String)> = Vec::new();
    let mut texts = vec![text.to_owned()];
    while let Some(text) = texts.pop() {
        for name in statement.captures_iter(&text).filter_map(|it| Some(it.get(1)?.as_str())) {
            let path = folder.join(name);
            if found.iter().all(|(known, _)| known != name) && path.is_file() {
                let imported = read_text(&path)?;
                texts.push(imported.clone());
                found.push((name.to_owned(), imported));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_found_in_the_folder_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        put("a.proto", "import public \"b.proto\";");
        put("b.proto", "import \"a.proto\"; import \"google/protobuf/timestamp.proto\";");
        let main = "syntax = \"proto3\"; import \"a.proto\";";
        let path = put("main.proto", main);
        let names: Vec<String> =
            imports(&path, main).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a.proto", "b.proto"]);
    }
}
