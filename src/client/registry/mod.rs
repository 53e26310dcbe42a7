//! A client of a Schema Registry: schemas by id and subject, over HTTP.
//!
//! It speaks the REST interface that Confluent's registry, Karapace, Apicurio and others share. Schemas
//! never change under their id, so they are cached (`cache`), with those that they refer to (`references`).
//!
//! Calls block, for at most `timeout=` (`http`): the async parts of the client make them on blocking threads
//! ([`crate::client::decoding`]).

mod cache;
mod config;
mod http;
mod references;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use self::cache::{Cache, Found};
pub use self::config::{RegistryAuth, RegistryConfig};
use self::http::{Http, Refused, encoded};
use self::references::{SchemaAnswer, schema_answer};
use crate::columnar::{SchemaId, SchemaKind, SchemaReference, SchemaRequest, SchemaSource};
use crate::env::Env;
use crate::error::{Error, Result};

/// A schema registry. See the module's documentation.
#[derive(Debug)]
pub struct SchemaRegistry {
    env: Env,
    http: Http,
    cache: Mutex<Cache>,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Deserialize)]
struct VersionAnswer {
    version: i32,
}

impl SchemaRegistry {
    /// A client of a registry. Connects on first use.
    ///
    /// # Errors
    ///
    /// When the certificates are not in PEM format.
    pub fn new(config: &RegistryConfig) -> Result<Self> {
        let env = Env::real();
        Ok(Self { http: Http::new(env.clone(), config)?, env, cache: Mutex::default() })
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.env.clock.monotonic()
    }

    fn load_id(&self, id: SchemaId) -> Result<()> {
        let what = format!("schema {id}");
        let found = match self.http.call(&format!("/schemas/ids/{id}"), None, &what)? {
            Ok(text) => {
                let answer = schema_answer(&text, &what)?;
                self.registered(SchemaAnswer { id: id.0, ..answer })?
            }
            Err(Refused { status: 404, detail }) => Err(format!(
                "the schema registry {} has no schema {id} ({detail}); was the value written \
                     with another registry?",
                self.http.urls.join(", ")
            )),
            Err(refused) => return Err(self.http.refused(&what, &refused)),
        };
        let now = self.now();
        self.cache().keep_schema(id, found.map(Arc::new), now);
        Ok(())
    }

    fn load_latest(&self, subject: &str) -> Result<()> {
        let what = format!("the latest schema of subject {subject:?}");
        let path = format!("/subjects/{}/versions/latest", encoded(subject));
        let found = match self.http.call(&path, None, &what)? {
            Ok(text) => self.registered(schema_answer(&text, &what)?)?.map(Arc::new),
            Err(Refused { status: 404, detail }) => Err(format!(
                "the schema registry {} does not have it ({detail}); name another subject with \
                     subject=, or let the first value decide with columns_from=\"first\"",
                self.http.urls.join(", ")
            )),
            Err(refused) => return Err(self.http.refused(&what, &refused)),
        };
        let now = self.now();
        self.cache().keep_latest(subject, found, now);
        Ok(())
    }
}

impl SchemaSource for SchemaRegistry {
    fn known(&self, id: SchemaId) -> Option<Found> {
        let now = self.now();
        self.cache().schema(id, now)
    }

    fn latest(&self, subject: &str) -> Option<Found> {
        let now = self.now();
        self.cache().latest(subject, now)
    }

    fn load(&self, request: &SchemaRequest) -> Result<()> {
        match request {
            SchemaRequest::Id(id) => self.load_id(*id),
            SchemaRequest::Latest(subject) => self.load_latest(subject),
        }
    }

    fn register(
        &self,
        subject: &str,
        schema: (SchemaKind, &str, &[SchemaReference]),
        create: bool,
    ) -> Result<SchemaId> {
        let body = request(schema);
        let key = (subject.to_owned(), body.to_string());
        if let Some(id) = self.cache().registered(&key) {
            return Ok(id);
        }
        let subject_path = format!("/subjects/{}", encoded(subject));
        let path = if create { format!("{subject_path}/versions") } else { subject_path };
        let what = if create { "registering a schema" } else { "the id of a schema" };
        let what = format!("{what} under subject {subject:?}");
        let text = match self.http.call(&path, Some(&body), &what)? {
            Ok(text) => text,
            Err(refused @ Refused { status: 404, .. }) if !create => {
                let error = self.http.refused(&what, &refused);
                return Err(Error::invalid(format!(
                    "{error}; register the schema first, or pass auto_register=True"
                )));
            }
            Err(refused) => return Err(self.http.refused(&what, &refused)),
        };
        let answer: IdAnswer = serde_json::from_str(&text).map_err(|error| {
            Error::malformed("answer of the schema registry", format!("for {what}: {error}"))
        })?;
        let id = SchemaId(answer.id);
        self.cache().keep_registered(key, id);
        Ok(id)
    }

    fn version(
        &self,
        subject: &str,
        schema: (SchemaKind, &str, &[SchemaReference]),
    ) -> Result<i32> {
        let body = request(schema);
        let key = (subject.to_owned(), body.to_string());
        if let Some(version) = self.cache().version(&key) {
            return Ok(version);
        }
        let what = format!("the version of a schema under subject {subject:?}");
        let text =
            match self.http.call(&format!("/subjects/{}", encoded(subject)), Some(&body), &what)? {
                Ok(text) => text,
                Err(refused) => return Err(self.http.refused(&what, &refused)),
            };
        let answer: VersionAnswer = serde_json::from_str(&text).map_err(|error| {
            Error::malformed("answer of the schema registry", format!("for {what}: {error}"))
        })?;
        self.cache().keep_version(key, answer.version);
        Ok(answer.version)
    }
}

/// The body of a request for a schema.
fn request((kind, text, references): (SchemaKind, &str, &[SchemaReference])) -> Value {
    let references: Vec<Value> = references
        .iter()
        .map(|one| json!({"name": one.name, "subject": one.subject, "version": one.version}))
        .collect();
    let mut body = json!({ "schema": text });
    if kind != SchemaKind::Avro {
        body["schemaType"] = json!(kind.name());
    }
    if !references.is_empty() {
        body["references"] = json!(references);
    }
    body
}
