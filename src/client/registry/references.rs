//! A schema with the schemas that it refers to, directly and indirectly.

use serde::Deserialize;

use super::SchemaRegistry;
use super::http::encoded;
use crate::columnar::{Registered, SchemaId, SchemaKind, SchemaReference};
use crate::error::{Error, Result};

/// References nested deeper than this are refused.
const DEPTH_MAX: usize = 32;
/// How many schemas a schema may refer to, directly and indirectly.
const REFERENCES_MAX: usize = 1_000;

#[derive(Deserialize)]
pub(super) struct SchemaAnswer {
    #[serde(default)]
    pub(super) id: u32,
    pub(super) schema: String,
    #[serde(rename = "schemaType")]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) references: Vec<Reference>,
}

#[derive(Deserialize)]
pub(super) struct Reference {
    name: String,
    subject: String,
    version: i32,
}

pub(super) fn schema_answer(text: &str, what: &str) -> Result<SchemaAnswer> {
    serde_json::from_str(text).map_err(|error| {
        Error::malformed("answer of the schema registry", format!("for {what}: {error}"))
    })
}

impl SchemaRegistry {
    /// A schema with everything that it refers to; the inner error means an unknown kind.
    pub(super) fn registered(
        &self,
        answer: SchemaAnswer,
    ) -> Result<std::result::Result<Registered, String>> {
        let id = SchemaId(answer.id);
        let kind = match answer.kind.as_deref() {
            None => SchemaKind::Avro,
            Some(name) => match SchemaKind::from_name(name) {
                Some(kind) => kind,
                None => return Ok(Err(format!("schema {id} is of unknown type {name:?}"))),
            },
        };
        let (mut references, mut left) = (Vec::new(), REFERENCES_MAX);
        self.load_references(&answer.references, &mut references, 0, &mut left)?;
        Ok(Ok(Registered { id, kind, text: answer.schema, references }))
    }

    fn load_references(
        &self,
        wanted: &[Reference],
        found: &mut Vec<(String, String)>,
        depth: usize,
        left: &mut usize,
    ) -> Result<()> {
        for Reference { name, subject, version } in wanted {
            if found.iter().any(|(known, _)| known == name) {
                continue;
            }
            let what = format!("version {version} of subject {subject:?}, which is referred to");
            if depth >= DEPTH_MAX {
                return Err(Error::invalid(format!("{what}, is nested too deeply")));
            }
            *left = left.checked_sub(1).ok_or_else(|| {
                Error::invalid(format!("{what}, is one of more than {REFERENCES_MAX}"))
            })?;
            let path = format!("/subjects/{}/versions/{version}", encoded(subject));
            match self.http.call(&path, None, &what)? {
                Ok(text) => {
                    let answer = schema_answer(&text, &what)?;
                    let deeper = depth.saturating_add(1);
                    self.load_references(&answer.references, found, deeper, left)?;
                    found.push((name.clone(), answer.schema));
                }
                Err(refused) => return Err(self.http.refused(&what, &refused)),
            }
        }
        Ok(())
    }

    /// The texts of the schemas that a schema refers to, dependencies first.
    ///
    /// # Errors
    ///
    /// When the registry did not answer, or does not have them.
    pub fn texts(&self, references: &[SchemaReference]) -> Result<Vec<(String, String)>> {
        let wanted: Vec<Reference> = references
            .iter()
            .map(|one| Reference {
                name: one.name.clone(),
                subject: one.subject.clone(),
                version: one.version,
            })
            .collect();
        let (mut found, mut left) = (Vec::new(), REFERENCES_MAX);
        self.load_references(&wanted, &mut found, 0, &mut left)?;
        Ok(found)
    }
}
