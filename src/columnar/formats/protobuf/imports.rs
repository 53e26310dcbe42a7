//! The files that a schema imports, and what it refers to in a registry for them.
//!
//! A registry holds each file under its own subject. By default, files are registered under their
//! names, as Confluent's serializers do; Google's files under `google/protobuf/` are known
//! everywhere and left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use protox::prost_reflect::FileDescriptor;

use super::schema::{ProtobufSchema, encoded};
use crate::columnar::formats::registry::{SchemaId, SchemaKind, SchemaReference, SchemaSource};
use crate::error::Result;

/// How many files a schema may import, directly and indirectly.
const IMPORTS_MAX: usize = 1_000;

/// A file that a schema imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    name: String,
    text: Arc<str>,
    /// What it imports itself.
    imports: Vec<String>,
}

/// The names that a file imports, except those known everywhere.
pub(super) fn direct(file: &FileDescriptor) -> Vec<String> {
    let names = file.dependencies().map(|one| one.name().to_owned());
    names.filter(|name| !is_known(name)).collect()
}

fn is_known(name: &str) -> bool {
    name.starts_with("google/protobuf/")
}

/// Everything that a file imports, dependencies first, with the given texts.
///
/// # Errors
/// When there are too many.
pub(super) fn all(
    file: &FileDescriptor,
    texts: &[(String, String)],
) -> Result<Vec<Import>, String> {
    let mut found = Vec::new();
    collect(file, texts, &mut found)?;
    Ok(found)
}

fn collect(
    file: &FileDescriptor,
    texts: &[(String, String)],
    found: &mut Vec<Import>,
) -> Result<(), String> {
    for one in file.dependencies() {
        let name = one.name();
        if is_known(name) || found.iter().any(|known| known.name == name) {
            continue;
        }
        collect(&one, texts, found)?;
        if found.len() >= IMPORTS_MAX {
            return Err(format!("it imports more than {IMPORTS_MAX} files"));
        }
        let given = texts.iter().find(|(known, _)| known == name);
        let text = given.map_or_else(|| encoded(&one), |(_, text)| text.clone());
        found.push(Import { name: name.to_owned(), text: text.into(), imports: direct(&one) });
    }
    Ok(())
}

impl ProtobufSchema {
    /// The id of the schema under a subject. Files that it imports and whose subject was not given
    /// come first, each under its name; all are created if `create`. May block.
    ///
    /// # Errors
    /// When the registry cannot be reached, refuses a schema, or does not know it.
    pub(in crate::columnar) fn register(
        &self,
        source: &dyn SchemaSource,
        subject: &str,
        create: bool,
    ) -> Result<SchemaId> {
        let mut known: BTreeMap<&str, SchemaReference> =
            self.references.iter().map(|one| (one.name.as_str(), one.clone())).collect();
        // The registry already knows the imports of a file that was referred to.
        let mut needed: Vec<&str> = self.imports.iter().map(String::as_str).collect();
        for import in self.files.iter().rev() {
            let name = import.name.as_str();
            if needed.contains(&name) && !known.contains_key(name) {
                needed.extend(import.imports.iter().map(String::as_str));
            }
        }
        for import in self.files.iter() {
            let name = import.name.as_str();
            if known.contains_key(name) || !needed.contains(&name) {
                continue;
            }
            let references = of(&import.imports, &known);
            let schema = (SchemaKind::Protobuf, &*import.text, references.as_slice());
            source.register(&import.name, schema, create)?;
            let version = source.version(&import.name, schema)?;
            let (name, subject) = (import.name.clone(), import.name.clone());
            known.insert(&import.name, SchemaReference { name, subject, version });
        }
        let mut references = self.references.clone();
        let imported = of(&self.imports, &known);
        references.extend(imported.into_iter().filter(|one| !self.references.contains(one)));
        source.register(subject, (SchemaKind::Protobuf, self.text(), &references), create)
    }
}

fn of(names: &[String], known: &BTreeMap<&str, SchemaReference>) -> Vec<SchemaReference> {
    names.iter().filter_map(|name| known.get(name.as_str()).cloned()).collect()
}
