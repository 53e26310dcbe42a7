//! Requests that are not served: logged once for each client, API and version.
//!
//! Why: Kafka's protocol has no answer to an API or a version that a broker does not know, so the
//! connection is closed, and that is all the client sees. Only the log can say why. Clients retry, some of
//! them many times a second, so it is logged only once.
//!
//! Invariants:
//! - `UNSERVED-1` memory is bounded, whatever names clients use: at most [`REMEMBERED_MAX`] are remembered,
//!   with names cut at [`NAME_BYTES_MAX`]; then one line says that no more are listed.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::protocol::{ApiKey, RequestHeader};

/// How many are remembered.
const REMEMBERED_MAX: usize = 1000;
/// How much of a client's name is kept.
const NAME_BYTES_MAX: usize = 64;

/// What has been logged so far.
#[derive(Debug, Default)]
pub(super) struct Unserved {
    said: Mutex<BTreeSet<(Option<String>, i16, i16)>>,
}

/// What to log about a request.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// The request.
    Request,
    /// That there are too many to list.
    TooMany,
    /// Nothing.
    Nothing,
}

impl Unserved {
    /// Records a request that closes its connection.
    pub(super) fn note(&self, header: &RequestHeader, peer: &super::connection::PeerInfo) {
        match self.word(header) {
            Word::Nothing => {}
            Word::TooMany => tracing::warn!(
                "more than {REMEMBERED_MAX} clients and APIs that are not served; no more are listed"
            ),
            Word::Request => {
                let (software, release) =
                    peer.software.get().map_or(("", ""), |(name, version)| (name, version));
                tracing::warn!(
                    client = header.client_id.as_deref().unwrap_or_default(),
                    software,
                    release,
                    peer = %peer.address,
                    api = api_name(header.api_key),
                    key = header.api_key,
                    version = header.api_version,
                    served = served_versions(header.api_key),
                    "a request of this kind is not served; its connection is closed"
                );
            }
        }
    }

    fn word(&self, header: &RequestHeader) -> Word {
        let name = header.client_id.as_deref().map(short);
        let key = (name, header.api_key, header.api_version);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() > REMEMBERED_MAX || !said.insert(key) {
            return Word::Nothing;
        }
        if said.len() > REMEMBERED_MAX { Word::TooMany } else { Word::Request }
    }
}

/// Whether requests like this one close their connection.
pub(super) fn is_unserved(header: &RequestHeader) -> bool {
    header.api().is_none_or(|api| !api.is_served() || !api.supports(header.api_version))
}

fn short(name: &str) -> String {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default().to_owned()
}

fn api_name(key: i16) -> &'static str {
    ApiKey::from_i16(key).map_or("unknown", ApiKey::name)
}

fn served_versions(key: i16) -> String {
    let served = ApiKey::from_i16(key).filter(|api| api.is_served());
    served.map_or_else(|| "none".to_owned(), |api| api.versions().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(client: &str, api_key: i16, api_version: i16) -> RequestHeader {
        RequestHeader { api_key, api_version, correlation_id: 1, client_id: Some(client.into()) }
    }

    #[test]
    fn each_client_api_and_version_is_said_once() {
        let unserved = Unserved::default();
        let word = |client: &str, key, version| unserved.word(&header(client, key, version));
        assert_eq!(word("one", 26, 0), Word::Request);
        assert_eq!(word("one", 26, 0), Word::Nothing);
        assert_eq!(word("one", 26, 1), Word::Request);
        assert_eq!(word("other", 26, 0), Word::Request);
        assert_eq!(word("one", 9999, 0), Word::Request);
    }

    #[test]
    fn memory_is_bounded_whatever_clients_call_themselves() {
        let unserved = Unserved::default();
        let long = "\u{e9}".repeat(20_000);
        let words: Vec<Word> = (0..2 * REMEMBERED_MAX)
            .map(|number| unserved.word(&header(&format!("{number}{long}"), 26, 0)))
            .collect();
        let named = words.iter().filter(|word| **word == Word::Request).count();
        let too_many = words.iter().filter(|word| **word == Word::TooMany).count();
        assert_eq!((named, too_many), (REMEMBERED_MAX, 1));
        let said = unserved.said.lock().unwrap();
        let bytes: usize = said.iter().map(|(name, ..)| name.as_ref().map_or(0, String::len)).sum();
        assert!(bytes <= (REMEMBERED_MAX + 1) * NAME_BYTES_MAX);
    }

    #[test]
    fn what_is_served_is_not_named() {
        assert!(!is_unserved(&header("c", 3, 12)));
        for (key, version) in [(17, 0), (9999, 0), (-1, 0), (0, 2), (3, 99), (3, -1)] {
            assert!(is_unserved(&header("c", key, version)), "{key} v{version}");
        }
        assert_eq!((api_name(17), served_versions(17).as_str()), ("SASL_HANDSHAKE", "none"));
        assert_eq!((api_name(9999), served_versions(0).as_str()), ("unknown", "3-13"));
    }
}
