//! Protobuf schemas: a message and everything it contains, from texts or compiled descriptors.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Fields, TimeUnit};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use protox::prost_reflect::{DescriptorPool, FileDescriptor, MessageDescriptor};

use super::build::build;
use super::imports::{self, Import};
use super::mapping;
use super::wire::Cursor;
use crate::columnar::formats::json::base64;
use crate::columnar::formats::registry::{Fault, Registered, SchemaKind, SchemaReference};
use crate::error::{Error, Result};

/// The name of the file with the schema itself.
const MAIN_FILE: &str = "ottla/schema.proto";

/// How deep braces are nested at most.
const NESTING_MAX: usize = 64;
/// Messages nested deeper than this cannot be named by a value.
const INDEXES_MAX: usize = 64;

/// How a single value is encoded, in a field, a list or a map.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    Text,
    Bytes,
    Enum(Arc<Symbols>),
    Message(Arc<Message>),
    Timestamp,
    Duration,
    /// One of the wrappers: a message with a value in its field 1.
    Wrapper(Box<Self>),
    /// A message that is kept as bytes, since it contains itself.
    Opaque,
}

impl Kind {
    /// The wire type of a number, a text or bytes; none for kinds that need more than their
    /// payload.
    pub(super) const fn wire_type(&self) -> Option<u32> {
        match self {
            Self::Int32
            | Self::Int64
            | Self::Uint32
            | Self::Uint64
            | Self::Sint32
            | Self::Sint64
            | Self::Bool => Some(0),
            Self::Double | Self::Fixed64 | Self::Sfixed64 => Some(1),
            Self::Text | Self::Bytes => Some(2),
            Self::Float | Self::Fixed32 | Self::Sfixed32 => Some(5),
            _ => None,
        }
    }

    /// Whether several values can be packed into one field.
    pub(super) const fn packs(&self) -> bool {
        !self.is_delimited()
    }

    /// Whether it is bytes preceded by their length.
    pub(super) const fn is_delimited(&self) -> bool {
        matches!(self, Self::Text | Self::Bytes) || self.is_message()
    }

    pub(super) const fn is_message(&self) -> bool {
        use Kind::{Duration, Message, Opaque, Timestamp, Wrapper};
        matches!(self, Message(_) | Timestamp | Duration | Wrapper(_) | Opaque)
    }
}

/// The names of an enum; the first one is the default.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Symbols {
    pub(super) name: String,
    pub(super) values: Vec<(i32, String)>,
    /// Other names of the same numbers.
    pub(super) aliases: Vec<(i32, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// One value; null when it is not set, if that is tracked.
    One {
        presence: bool,
        required: bool,
    },
    Many {
        packed: bool,
    },
    /// With the kind of the keys.
    Map(Kind),
}

#[derive(Debug, PartialEq)]
pub(super) struct FieldDef {
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    /// Which oneof of the message it is a member of.
    pub(super) oneof: Option<usize>,
    /// Whether it is enclosed by two tags instead of preceded by its length.
    pub(super) group: bool,
}

/// A message with its fields in the order of the schema.
#[derive(Debug, PartialEq)]
pub(super) struct Message {
    /// The full name.
    pub(super) name: String,
    pub(super) fields: Vec<FieldDef>,
}

/// A Protobuf message and the schema that it is in.
#[derive(Clone)]
pub struct ProtobufSchema {
    text: Arc<str>,
    /// The given references in the registry.
    pub(super) references: Vec<SchemaReference>,
    /// What it imports, except files that every registry knows.
    pub(super) imports: Vec<String>,
    /// All imported files, dependencies first.
    pub(super) files: Arc<[Import]>,
    root: Arc<Message>,
    indexes: Vec<i32>,
}

impl PartialEq for ProtobufSchema {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.root == other.root
    }
}

impl fmt::Debug for ProtobufSchema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ProtobufSchema").field(&self.root.name).finish()
    }
}

impl ProtobufSchema {
    /// Reads a `.proto` text. `imports` are the texts of files that it imports, by name. The
    /// message is found by its full or short name; without a name, it must be the only one in the
    /// file.
    ///
    /// # Errors
    /// An invalid argument for a text that is not a schema, or a message that does not exist.
    pub fn parse(
        text: &str,
        imports: &[(String, String)],
        references: Vec<SchemaReference>,
        message: Option<&str>,
    ) -> Result<Self> {
        let wrong = |detail| Error::invalid(format!("Protobuf schema: {detail}"));
        let file = compile(text, imports).map_err(wrong)?;
        let found = find(&file, message).map_err(wrong)?;
        let schema = Self::of(&found, text.into(), imports).map_err(wrong)?;
        Ok(Self { references, ..schema })
    }

    /// Reads a serialized `FileDescriptorSet`, as written by `protoc --include_imports`.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn from_descriptor_set(bytes: &[u8], message: Option<&str>) -> Result<Self> {
        let wrong = |detail: String| Error::invalid(format!("Protobuf descriptors: {detail}"));
        let pool = DescriptorPool::decode(bytes).map_err(|error| {
            wrong(format!("they are not a FileDescriptorSet with all imports: {error}"))
        })?;
        let found = match message {
            Some(name) => {
                let mut matching = pool.all_messages().filter(|one| is_named(one, name));
                matching.next().ok_or_else(|| {
                    let all: Vec<String> =
                        pool.all_messages().map(|one| one.full_name().to_owned()).collect();
                    wrong(format!("there is no message {name:?}; there are {}", all.join(", ")))
                })?
            }
            None => {
                // The compiled file comes after those that it imports.
                let file =
                    pool.files().last().ok_or_else(|| wrong("there is no file".to_owned()))?;
                find(&file, None).map_err(wrong)?
            }
        };
        let text = encoded(&found.parent_file());
        Self::of(&found, text.into(), &[]).map_err(wrong)
    }

    /// The same, with its references in the registry.
    #[must_use]
    pub fn referring(self, references: Vec<SchemaReference>) -> Self {
        Self { references, ..self }
    }

    fn of(
        message: &MessageDescriptor,
        text: Arc<str>,
        imports: &[(String, String)],
    ) -> Result<Self, String> {
        let file = message.parent_file();
        Ok(Self {
            text,
            references: Vec::new(),
            imports: imports::direct(&file),
            files: imports::all(&file, imports)?.into(),
            root: build(message)?,
            indexes: indexes(message),
        })
    }

    pub(in crate::columnar) fn of_registered(
        registered: &Registered,
        message: Option<&str>,
        indexes: Option<&[i32]>,
    ) -> Result<Self, String> {
        let file = registered_file(registered)?;
        let wrong = |detail| format!("schema {} of the registry: {detail}", registered.id);
        let found = match (message, indexes) {
            (Some(_), _) => find(&file, message).map_err(wrong)?,
            (None, indexes) => at(&file, indexes.unwrap_or(&[0])).map_err(wrong)?,
        };
        Self::of(&found, registered.text.as_str().into(), &registered.references).map_err(wrong)
    }

    /// The message of a value, whose bytes after the id are `rest`; the first one in the file when
    /// there are none.
    pub(in crate::columnar) fn of_value(
        registered: &Registered,
        message: Option<&str>,
        rest: &[u8],
    ) -> Result<Self, String> {
        let indexes = match unframe_indexes(rest) {
            Ok((indexes, _)) => Some(indexes),
            Err(_) => None,
        };
        Self::of_registered(registered, message, indexes.as_deref())
    }

    /// The full name of the message at a path in a file of the registry.
    pub(super) fn name_in(registered: &Registered, indexes: &[i32]) -> Result<String, String> {
        let file = registered_file(registered)?;
        let found = at(&file, indexes)
            .map_err(|detail| format!("schema {} of the registry: {detail}", registered.id))?;
        Ok(found.full_name().to_owned())
    }

    /// The columns, with times in a unit.
    #[must_use]
    pub fn fields(&self, time_unit: TimeUnit) -> Fields {
        mapping::fields(&self.root, time_unit)
    }

    /// The full name of the message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.root.name
    }

    pub(super) fn root(&self) -> &Arc<Message> {
        &self.root
    }

    #[cfg(test)]
    pub(super) fn set_indexes(&mut self, indexes: Vec<i32>) {
        self.indexes = indexes;
    }

    pub(in crate::columnar) fn text(&self) -> &str {
        &self.text
    }

    /// Writes the path to the message, which follows the id.
    pub(in crate::columnar) fn put_indexes(&self, output: &mut Vec<u8>) {
        if self.indexes == [0] {
            output.push(0);
            return;
        }
        super::wire::put_sint(self.indexes.len() as i64, output);
        for index in &self.indexes {
            super::wire::put_sint(i64::from(*index), output);
        }
    }
}

/// The path to the message after the id, and the rest.
pub(in crate::columnar) fn unframe_indexes(value: &[u8]) -> Result<(Vec<i32>, &[u8]), Fault> {
    let wrong = || Fault::Bad("the path to the message in the header is damaged".to_owned());
    let mut cursor = Cursor::new(value);
    let count = cursor.sint().map_err(|_fail| wrong())?;
    if count == 0 {
        return Ok((vec![0], cursor.rest()));
    }
    let count = usize::try_from(count).ok().filter(|count| *count <= INDEXES_MAX);
    let mut indexes = Vec::new();
    for _ in 0..count.ok_or_else(wrong)? {
        let index = cursor.sint().map_err(|_fail| wrong())?;
        indexes.push(i32::try_from(index).map_err(|_source| wrong())?);
    }
    Ok((indexes, cursor.rest()))
}

fn indexes(message: &MessageDescriptor) -> Vec<i32> {
    // Pairs of the kind of element and its position among those.
    message.path().iter().skip(1).step_by(2).copied().collect()
}

fn registered_file(registered: &Registered) -> Result<FileDescriptor, String> {
    let id = registered.id;
    if registered.kind != SchemaKind::Protobuf {
        let kind = registered.kind.name();
        return Err(format!("schema {id} of the registry is {kind}, not PROTOBUF"));
    }
    compile(&registered.text, &registered.references)
        .map_err(|detail| format!("schema {id} of the registry: {detail}"))
}

/// Files in memory, as texts or as descriptors in base64.
struct Files<'a>(Vec<(&'a str, &'a str)>);

impl FileResolver for Files<'_> {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        use protox::prost::Message as _;

        let found = self.0.iter().find(|(known, _)| *known == name);
        let Some((_, text)) = found else { return Err(protox::Error::file_not_found(name)) };
        let Some(bytes) = base64_of(text) else { return File::from_source(name, text) };
        let mut decoded =
            protox::prost_reflect::prost_types::FileDescriptorProto::decode(&bytes[..])
                .map_err(protox::Error::new)?;
        decoded.name = Some(name.to_owned());
        Ok(File::from_file_descriptor_proto(decoded))
    }
}

/// Some clients register the descriptor of a file instead of its text.
fn base64_of(text: &str) -> Option<Vec<u8>> {
    if text.contains(['{', ';', ' ']) {
        return None;
    }
    let mut bytes = Vec::new();
    base64::decode(text.trim(), &mut bytes).map(|()| bytes)
}

/// Whether braces are nested deeper than a compiler follows, which goes down with them.
fn is_too_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > NESTING_MAX
    })
}

fn compile(text: &str, imports: &[(String, String)]) -> Result<FileDescriptor, String> {
    if is_too_deep(text) || imports.iter().any(|(_, text)| is_too_deep(text)) {
        return Err(format!("it has more than {NESTING_MAX} braces within each other"));
    }
    let mut files = vec![(MAIN_FILE, text)];
    files.extend(imports.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    let owned: Vec<(String, String)> =
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let mut resolver = ChainFileResolver::new();
    resolver.add(Owned(owned));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    compiler.open_file(MAIN_FILE).map_err(|error| {
        let remedy = if error.is_file_not_found() {
            "; pass the schema as the path of a file in whose folder its imports are, or say \
             where the registry has them with references="
        } else {
            ""
        };
        format!("{}{remedy}", described(&error))
    })?;
    let pool = compiler.descriptor_pool();
    pool.get_file_by_name(MAIN_FILE).ok_or_else(|| "the file is empty".to_owned())
}

/// A compiled file as the text that registries take: its descriptor, in base64.
pub(super) fn encoded(file: &FileDescriptor) -> String {
    let mut text = Vec::new();
    base64::encode(&file.encode_to_vec(), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// [`Files`] that outlive their caller.
struct Owned(Vec<(String, String)>);

impl FileResolver for Owned {
    fn resolve_path(&self, path: &std::path::Path) -> Option<String> {
        path.to_str().map(str::to_owned)
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        Files(self.0.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect())
            .open_file(name)
    }
}

fn described(error: &protox::Error) -> String {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

fn is_named(message: &MessageDescriptor, name: &str) -> bool {
    message.full_name() == name || message.name() == name
}

fn all_of(file: &FileDescriptor) -> Vec<MessageDescriptor> {
    let mut all = Vec::new();
    let mut open: Vec<MessageDescriptor> = file.messages().collect();
    open.reverse();
    while let Some(message) = open.pop() {
        if message.is_map_entry() {
            continue;
        }
        let mut children: Vec<MessageDescriptor> = message.child_messages().collect();
        children.reverse();
        open.extend(children);
        all.push(message);
    }
    all
}

fn find(file: &FileDescriptor, name: Option<&str>) -> Result<MessageDescriptor, String> {
    let all = all_of(file);
    let names = || all.iter().map(MessageDescriptor::full_name).collect::<Vec<_>>().join(", ");
    match name {
        Some(name) => match all.iter().find(|one| is_named(one, name)) {
            Some(found) => Ok(found.clone()),
            None => Err(format!("there is no message {name:?}; there are {}", names())),
        },
        None => {
            let mut top = file.messages();
            match (top.next(), top.next()) {
                (Some(only), None) => Ok(only),
                (Some(_), Some(_)) => {
                    Err(format!("there are several messages, name one: {}", names()))
                }
                (None, _) => Err("there is no message".to_owned()),
            }
        }
    }
}

fn at(file: &FileDescriptor, indexes: &[i32]) -> Result<MessageDescriptor, String> {
    let mut found: Option<MessageDescriptor> = None;
    for index in indexes {
        let index = usize::try_from(*index).unwrap_or(usize::MAX);
        found = match &found {
            None => file.messages().nth(index),
            Some(outer) => outer.child_messages().nth(index),
        };
        if found.is_none() {
            break;
        }
    }
    found.ok_or_else(|| format!("there is no message at {indexes:?}"))
}
