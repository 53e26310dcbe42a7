//! Calls to a registry: over HTTP, with its URLs in turn, again after a pause, within one limit of time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, http};

use super::config::{RegistryAuth, RegistryConfig};
use crate::env::Env;
use crate::error::{Error, ErrorCode, Result};

/// How many times a call is attempted before it fails.
const TRIES: u32 = 4;
/// The wait after the first failure; it doubles.
const BACKOFF: Duration = Duration::from_millis(100);
/// The last attempt has at least this time.
const ATTEMPT_MIN: Duration = Duration::from_millis(1);
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The contents of an unsuccessful answer.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) detail: String,
}

/// The connections to a registry.
#[derive(Debug)]
pub(super) struct Http {
    env: Env,
    pub(super) urls: Vec<String>,
    authorization: Option<String>,
    timeout: Duration,
    agent: Agent,
    /// The URL that answered last.
    place: AtomicUsize,
}

impl Http {
    pub(super) fn new(env: Env, config: &RegistryConfig) -> Result<Self> {
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
        Ok(Self {
            env,
            urls: config.urls.clone(),
            authorization,
            timeout: config.timeout,
            agent,
            place: AtomicUsize::new(0),
        })
    }

    /// One call, with retries and all URLs; the inner error is an unsuccessful answer. Blocks, for at most the
    /// timeout, and only while somebody waits for it.
    pub(super) fn call(
        &self,
        path: &str,
        body: Option<&Value>,
        what: &str,
    ) -> Result<std::result::Result<String, Refused>> {
        let end = self.env.clock.monotonic().saturating_add(self.timeout);
        let left = || end.saturating_sub(self.env.clock.monotonic());
        let urls = u32::try_from(self.urls.len()).unwrap_or(u32::MAX);
        let mut wait = BACKOFF;
        let mut failure = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                if wait >= left() {
                    break;
                }
                if !self.env.threads.pause(wait) {
                    return Err(Error::Closed { what: "the call that needed a schema" });
                }
                wait = wait.saturating_mul(2);
            }
            let mut is_worth_a_try = false;
            // A URL that keeps silent leaves time for those after it.
            for left_to_try in (1..=urls).rev() {
                let at = self.place.load(Ordering::Relaxed);
                let Some(url) = self.urls.get(at).or_else(|| self.urls.first()) else { break };
                let url = format!("{url}{path}");
                failure = match self.send(&url, body, (left() / left_to_try).max(ATTEMPT_MIN)) {
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
                let next = at.wrapping_add(1).checked_rem(self.urls.len()).unwrap_or(0);
                self.place.store(next, Ordering::Relaxed);
            }
            if !is_worth_a_try {
                break;
            }
        }
        let detail = format!("the schema registry did not answer for {what}: {failure}");
        Err(Error::told(ErrorCode::NetworkException, detail))
    }

    fn send(
        &self,
        url: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<(u16, String), ureq::Error> {
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
                let request = self.agent.configure_request(request.body(body.to_string())?);
                self.agent.run(request.timeout_global(Some(timeout)).build())
            }
            None => {
                let request =
                    self.agent.configure_request(with_auth(http::Request::get(url)).body(())?);
                self.agent.run(request.timeout_global(Some(timeout)).build())
            }
        };
        let mut answer = answer?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
        Ok((status, text))
    }

    /// The error of an unsuccessful answer.
    pub(super) fn refused(&self, what: &str, refused: &Refused) -> Error {
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

pub(super) fn encoded(part: &str) -> impl std::fmt::Display {
    utf8_percent_encode(part, ESCAPED)
}

pub(super) fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::env::Threads;

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

    #[test]
    fn a_silent_url_leaves_time_for_the_next() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let urls = format!("{},{}", url(&silent), url(&good));
        let timeout = Duration::from_secs(2);
        let config = RegistryConfig { timeout, ..RegistryConfig::new(&urls).unwrap() };
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = good.accept().unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        });
        let http = Http::new(Env::real(), &config).unwrap();
        let answer = http.call("/schemas/ids/1", None, "schema 1").unwrap();
        assert_eq!(answer.unwrap(), "{}");
        answering.join().unwrap();
    }

    /// A registry that is not there, or that takes connections and says nothing.
    fn absent(is_silent: bool, timeout: Duration) -> (Http, Option<TcpListener>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = RegistryConfig { timeout, ..RegistryConfig::new(&url).unwrap() };
        (Http::new(Env::real(), &config).unwrap(), is_silent.then_some(listener))
    }

    #[test]
    fn a_call_with_all_its_attempts_takes_no_longer_than_its_timeout() {
        for is_silent in [false, true] {
            let (http, _listener) = absent(is_silent, Duration::from_millis(250));
            let begun = Instant::now();
            let error = http.call("/schemas/ids/1", None, "schema 1").unwrap_err().to_string();
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
            assert!(
                error.starts_with("the schema registry did not answer for schema 1"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_is_not_attempted_again() {
        let (http, _) = absent(false, Duration::from_secs(600));
        let http = Arc::new(http);
        let (ended, result) = tokio::sync::oneshot::channel();
        let call = Threads::Real.spawn_interruptible(move || {
            ended.send(http.call("/schemas/ids/1", None, "schema 1")).ok();
        });
        drop(call);
        let result = result.await.unwrap();
        assert!(matches!(result, Err(Error::Closed { .. })), "{:?}", result.err());
    }
}
