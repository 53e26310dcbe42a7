//! A client of a Schema Registry: schemas by id and subject, over HTTP.
//!
//! It speaks the REST interface that Confluent's registry, Karapace, Apicurio and others share. Schemas
//! never change under their id, so they are cached; the latest schema of a subject is fetched again
//! after `LATEST_FOR`. An id that the registry does not have is remembered for the same time.
//!
//! Calls block: the async parts of the client make them on blocking threads
//! ([`crate::client::decoding`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, http};

use crate::columnar::{
    Registered, SchemaId, SchemaKind, SchemaReference, SchemaRequest, SchemaSource,
};
use crate::error::{Error, ErrorCode, Result};

/// How long the latest schema of a subject, or its absence, is cached.
const LATEST_FOR: Duration = Duration::from_secs(60);
/// How many times a call is attempted before it fails.
const TRIES: u32 = 4;
/// The wait after the first failure; it doubles.
const BACKOFF: Duration = Duration::from_millis(100);
/// References nested deeper than this are refused.
const DEPTH_MAX: usize = 32;
/// How many schemas a schema may refer to, directly and indirectly.
const REFERENCES_MAX: usize = 1_000;
/// How many schemas, and how many missing ids, are cached.
const KEPT_MAX: usize = 100_000;
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// How the client authenticates with the registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum RegistryAuth {
    /// Without authentication.
    #[default]
    None,
    /// A user with a password.
    Basic {
        /// The user's name, or the API key.
        username: String,
        /// The password, or the API secret.
        password: String,
    },
    /// With a token.
    Bearer(String),
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

/// How to reach a registry.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// One URL, or several of the same registry, tried in turn.
    pub urls: Vec<String>,
    /// How the client authenticates.
    pub auth: RegistryAuth,
    /// The certificates to trust, in PEM; by default those of the public authorities.
    pub ca_pem: Option<Vec<u8>>,
    /// How long one call may take.
    pub timeout: Duration,
}

impl RegistryConfig {
    /// A registry at a URL, or at several separated by commas. A user and password in
    /// the URL are taken as [`RegistryAuth::Basic`].
    ///
    /// # Errors
    ///
    /// When a URL is not `http` or `https`.
    pub fn new(urls: &str) -> Result<Self> {
        let mut auth = RegistryAuth::None;
        let mut parsed = Vec::new();
        for url in urls.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
            if scheme != "http" && scheme != "https" {
                return Err(Error::invalid(format!(
                    "schema registry {url:?} is not a URL; write http://… or https://…"
                )));
            }
            let host_end = rest.find('/').unwrap_or(rest.len());
            let (host, path) = rest.split_at(host_end);
            let host = match host.rsplit_once('@') {
                Some((user, host)) => {
                    let (username, password) = user.split_once(':').unwrap_or((user, ""));
                    let (username, password) = (decoded(username), decoded(password));
                    auth = RegistryAuth::Basic { username, password };
                    host
                }
                None => host,
            };
            parsed.push(format!("{scheme}://{host}{}", path.trim_end_matches('/')));
        }
        if parsed.is_empty() {
            return Err(Error::invalid("the URL of the schema registry is empty"));
        }
        Ok(Self { urls: parsed, auth, ca_pem: None, timeout: Duration::from_secs(10) })
    }
}

/// A schema registry. See the module's documentation.
#[derive(Debug)]
pub struct SchemaRegistry {
    urls: Vec<String>,
    authorization: Option<String>,
    agent: Agent,
    known: Mutex<Known>,
}

type Found = Result<Arc<Registered>, String>;

#[derive(Debug, Default)]
struct Known {
    schemas: BTreeMap<SchemaId, Arc<Registered>>,
    missing: BTreeMap<SchemaId, (Instant, String)>,
    latest: BTreeMap<String, (Instant, Found)>,
    /// The ids of schemas registered under a subject, by subject and request.
    registered: BTreeMap<(String, String), SchemaId>,
    versions: BTreeMap<(String, String), i32>,
    /// The URL that answered last.
    url: usize,
}

#[derive(Deserialize)]
struct SchemaAnswer {
    #[serde(default)]
    id: u32,
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: i32,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Deserialize)]
struct VersionAnswer {
    version: i32,
}

/// The contents of an unsuccessful answer.
struct Refused {
    status: u16,
    detail: String,
}

impl SchemaRegistry {
    /// A client of a registry. Connects on first use.
    ///
    /// # Errors
    ///
    /// When the certificates are not in PEM format.
    pub fn new(config: &RegistryConfig) -> Result<Self> {
        let mut tls = TlsConfig::builder();
        if let Some(pem) = &config.ca_pem {
            let certificates = ureq::tls::parse_pem(pem)
                .filter_map(|item| match item {
                    Ok(ureq::tls::PemItem::Certificate(one)) => Some(Ok(one)),
                    Ok(_) => None,
                    Err(error) => Some(Err(error)),
                })
                .collect::<Result<Vec<Certificate<'static>>, _>>()
                .map_err(|error| {
                    Error::invalid(format!("certificates of the registry: {error}"))
                })?;
            if certificates.is_empty() {
                return Err(Error::invalid(
                    "the file of the registry's CA contains no certificate",
                ));
            }
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
        }
        let agent = Agent::config_builder()
            .timeout_per_call(Some(config.timeout))
            .http_status_as_error(false)
            .tls_config(tls.build())
            .build()
            .new_agent();
        let authorization = match &config.auth {
            RegistryAuth::None => None,
            RegistryAuth::Basic { username, password } => {
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}"))))
            }
            RegistryAuth::Bearer(token) => Some(format!("Bearer {token}")),
        };
        let urls = config.urls.clone();
        Ok(Self { urls, authorization, agent, known: Mutex::default() })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call, with retries and all URLs; the inner error is an unsuccessful answer.
    fn call(
        &self,
        path: &str,
        body: Option<&Value>,
        what: &str,
    ) -> Result<std::result::Result<String, Refused>> {
        let mut wait = BACKOFF;
        let mut failure = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                std::thread::sleep(wait);
                wait = wait.saturating_mul(2);
            }
            let mut is_worth_a_try = false;
            for _ in 0..self.urls.len() {
                let at = self.known().url;
                let Some(url) = self.urls.get(at).or_else(|| self.urls.first()) else { break };
                let url = format!("{url}{path}");
                failure = match self.send(&url, body) {
                    Ok((status @ 200..=299, text)) => {
                        tracing::debug!(url, status, "schema registry answered");
                        return Ok(Ok(text));
                    }
                    Ok((status, text)) if status < 500 && status != 429 => {
                        return Ok(Err(Refused { status, detail: message(&text) }));
                    }
                    Ok((status, text)) => {
                        is_worth_a_try = true;
                        format!("{url}: HTTP {status}: {}", message(&text))
                    }
                    Err(error) => {
                        let distrust = distrust(&url, &error);
                        is_worth_a_try |= distrust.is_none();
                        format!("{url}: {error}{}", distrust.unwrap_or_default())
                    }
                };
                tracing::debug!(failure, "schema registry did not answer");
                let mut known = self.known();
                known.url = known.url.wrapping_add(1).checked_rem(self.urls.len()).unwrap_or(0);
            }
            if !is_worth_a_try {
                break;
            }
        }
        let detail = format!("the schema registry did not answer for {what}: {failure}");
        Err(Error::told(ErrorCode::NetworkException, detail))
    }

    fn send(&self, url: &str, body: Option<&Value>) -> Result<(u16, String), ureq::Error> {
        const TYPE: &str = "application/vnd.schemaregistry.v1+json";
        let with_auth = |mut request: http::request::Builder| {
            if let Some(authorization) = &self.authorization {
                request = request.header("Authorization", authorization);
            }
            request.uri(url).header("Accept", format!("{TYPE}, application/json"))
        };
        let answer = match body {
            Some(body) => {
                let request = with_auth(http::Request::post(url)).header("Content-Type", TYPE);
                self.agent.run(request.body(body.to_string())?)
            }
            None => self.agent.run(with_auth(http::Request::get(url)).body(())?),
        };
        let mut answer = answer?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
        Ok((status, text))
    }

    fn schema_answer(text: &str, what: &str) -> Result<SchemaAnswer> {
        serde_json::from_str(text).map_err(|error| {
            Error::malformed("answer of the schema registry", format!("for {what}: {error}"))
        })
    }

    fn load_id(&self, id: SchemaId) -> Result<()> {
        let what = format!("schema {id}");
        let found = match self.call(&format!("/schemas/ids/{id}"), None, &what)? {
            Ok(text) => {
                let answer = Self::schema_answer(&text, &what)?;
                self.registered(SchemaAnswer { id: id.0, ..answer })?
            }
            Err(Refused { status: 404, detail }) => Err(format!(
                "the schema registry {} has no schema {id} ({detail}); was the value written \
                     with another registry?",
                self.urls.join(", ")
            )),
            Err(refused) => return Err(self.refused(&what, &refused)),
        };
        let mut known = self.known();
        match found {
            Ok(found) => {
                if known.schemas.len() >= KEPT_MAX {
                    known.schemas.pop_first();
                }
                known.schemas.insert(id, Arc::new(found));
            }
            Err(detail) => {
                if known.missing.len() >= KEPT_MAX {
                    known.missing.pop_first();
                }
                known.missing.insert(id, (Instant::now(), detail));
            }
        }
        Ok(())
    }

    fn load_latest(&self, subject: &str) -> Result<()> {
        let what = format!("the latest schema of subject {subject:?}");
        let path = format!("/subjects/{}/versions/latest", encoded(subject));
        let found = match self.call(&path, None, &what)? {
            Ok(text) => self.registered(Self::schema_answer(&text, &what)?)?.map(Arc::new),
            Err(Refused { status: 404, detail }) => Err(format!(
                "the schema registry {} does not have it ({detail}); name another subject with \
                     subject=, or let the first value decide with columns_from=\"first\"",
                self.urls.join(", ")
            )),
            Err(refused) => return Err(self.refused(&what, &refused)),
        };
        let mut known = self.known();
        if let Ok(found) = &found {
            known.schemas.insert(found.id, Arc::clone(found));
        }
        known.latest.retain(|_, (since, _)| since.elapsed() < LATEST_FOR);
        known.latest.insert(subject.to_owned(), (Instant::now(), found));
        Ok(())
    }

    /// A schema with everything that it refers to; the inner error means an unknown kind.
    fn registered(&self, answer: SchemaAnswer) -> Result<std::result::Result<Registered, String>> {
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
            match self.call(&path, None, &what)? {
                Ok(text) => {
                    let answer = Self::schema_answer(&text, &what)?;
                    let deeper = depth.saturating_add(1);
                    self.load_references(&answer.references, found, deeper, left)?;
                    found.push((name.clone(), answer.schema));
                }
                Err(refused) => return Err(self.refused(&what, &refused)),
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

    fn refused(&self, what: &str, refused: &Refused) -> Error {
        let Refused { status, detail } = refused;
        let code = match status {
            401 => ErrorCode::SaslAuthenticationFailed,
            403 => ErrorCode::TopicAuthorizationFailed,
            _ => ErrorCode::InvalidRequest,
        };
        let urls = self.urls.join(", ");
        let remedy = match status {
            401 => "; pass a username and password, or a token, that the registry accepts",
            409 => "; the schema is not compatible with the earlier ones of the subject",
            _ => "",
        };
        let context =
            format!("schema registry {urls} refused {what}: HTTP {status}: {detail}{remedy}");
        Error::told(code, context)
    }
}

impl SchemaSource for SchemaRegistry {
    fn known(&self, id: SchemaId) -> Option<Found> {
        let known = self.known();
        if let Some(found) = known.schemas.get(&id) {
            return Some(Ok(Arc::clone(found)));
        }
        let (since, detail) = known.missing.get(&id)?;
        (since.elapsed() < LATEST_FOR).then(|| Err(detail.clone()))
    }

    fn latest(&self, subject: &str) -> Option<Found> {
        let known = self.known();
        let (since, found) = known.latest.get(subject)?;
        (since.elapsed() < LATEST_FOR).then(|| found.clone())
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
        if let Some(id) = self.known().registered.get(&key) {
            return Ok(*id);
        }
        let subject_path = format!("/subjects/{}", encoded(subject));
        let path = if create { format!("{subject_path}/versions") } else { subject_path };
        let what = if create { "registering a schema" } else { "the id of a schema" };
        let what = format!("{what} under subject {subject:?}");
        let text = match self.call(&path, Some(&body), &what)? {
            Ok(text) => text,
            Err(refused @ Refused { status: 404, .. }) if !create => {
                let error = self.refused(&what, &refused);
                return Err(Error::invalid(format!(
                    "{error}; register the schema first, or pass auto_register=True"
                )));
            }
            Err(refused) => return Err(self.refused(&what, &refused)),
        };
        let answer: IdAnswer = serde_json::from_str(&text).map_err(|error| {
            Error::malformed("answer of the schema registry", format!("for {what}: {error}"))
        })?;
        let id = SchemaId(answer.id);
        let mut known = self.known();
        if known.registered.len() >= KEPT_MAX {
            known.registered.pop_first();
        }
        known.latest.remove(subject);
        known.registered.insert(key, id);
        Ok(id)
    }

    fn version(
        &self,
        subject: &str,
        schema: (SchemaKind, &str, &[SchemaReference]),
    ) -> Result<i32> {
        let body = request(schema);
        let key = (subject.to_owned(), body.to_string());
        if let Some(version) = self.known().versions.get(&key) {
            return Ok(*version);
        }
        let what = format!("the version of a schema under subject {subject:?}");
        let text =
            match self.call(&format!("/subjects/{}", encoded(subject)), Some(&body), &what)? {
                Ok(text) => text,
                Err(refused) => return Err(self.refused(&what, &refused)),
            };
        let answer: VersionAnswer = serde_json::from_str(&text).map_err(|error| {
            Error::malformed("answer of the schema registry", format!("for {what}: {error}"))
        })?;
        let mut known = self.known();
        if known.versions.len() >= KEPT_MAX {
            known.versions.pop_first();
        }
        known.versions.insert(key, answer.version);
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

/// The remedy for a server that was reached but is not trusted; retrying does not help.
fn distrust(url: &str, error: &ureq::Error) -> Option<&'static str> {
    let is_tls = match error {
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => true,
        // What rustls reports about the other side; without TLS it is just a bad answer.
        ureq::Error::Io(error) => {
            url.starts_with("https:") && error.kind() == std::io::ErrorKind::InvalidData
        }
        _ => false,
    };
    let text = if is_tls { error.to_string() } else { return None };
    Some(if text.contains("UnknownIssuer") || text.contains("CaUsedAsEndEntity") {
        "; its certificate is not from a trusted authority: pass the authority's own, as a PEM \
         file, with ca="
    } else if text.contains("not valid for name") || text.contains("NotValidForName") {
        "; its certificate is for other names: use one of them in the URL"
    } else if text.contains("corrupt message") {
        "; the server does not speak TLS: is it an http:// registry?"
    } else {
        ""
    })
}

/// The message in the body of an unsuccessful answer.
fn message(text: &str) -> String {
    const SHOWN_MAX: usize = 500;
    let json: Option<Value> = serde_json::from_str(text).ok();
    let told = json.as_ref().and_then(|json| json.get("message")).and_then(Value::as_str);
    told.unwrap_or(text).chars().take(SHOWN_MAX).collect()
}

/// What need not be escaped in a part of a path: the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

fn encoded(part: &str) -> impl std::fmt::Display {
    utf8_percent_encode(part, ESCAPED)
}

fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_may_carry_a_user_and_be_several() {
        let config =
            RegistryConfig::new("http://me:p%40ss@one:8081/, https://two/registry/").unwrap();
        assert_eq!(config.urls, ["http://one:8081", "https://two/registry"]);
        let auth = RegistryAuth::Basic { username: "me".into(), password: "p@ss".into() };
        assert_eq!(config.auth, auth);
        assert!(!format!("{config:?}").contains("p@ss"), "secrets are not shown");
        assert!(RegistryConfig::new("one:8081").is_err());
        assert!(RegistryConfig::new(" ,").is_err());
    }

    #[test]
    fn only_a_server_of_https_is_not_trusted() {
        let bad = || std::io::Error::new(std::io::ErrorKind::InvalidData, "UnknownIssuer");
        assert!(distrust("https://one", &bad().into()).is_some_and(|text| text.contains("ca=")));
        assert_eq!(distrust("http://one", &bad().into()), None);
        let cut = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        assert_eq!(distrust("https://one", &cut.into()), None);
    }

    #[test]
    fn subjects_are_escaped_in_paths() {
        assert_eq!(encoded("a/b c-value").to_string(), "a%2Fb%20c-value");
        assert_eq!(decoded("a%2Fb%zz%"), "a/b%zz%");
    }
}
