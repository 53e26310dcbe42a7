//! ApiVersions: v0-v4.
//!
//! Behaviour: lists what is served, and the features that this cluster has finalized. Remembers the
//! name and version of the client's library for the log.
//! Versions: v1 throttle time; v3 client software, features (tagged, so that an old client can skip
//! them); v4 minimum versions of features may be 0. An unknown version never gets here: the
//! dispatcher answers it in the form of v0 with UNSUPPORTED_VERSION and the versions of
//! ApiVersions. Errors: INVALID_REQUEST when the name or version of the software is malformed
//! (KIP-511).

use std::sync::Arc;

use crate::broker::dispatch::Call;
use crate::error::ErrorCode;
use crate::machine::metadata::SUPPORTED_FEATURES;
use crate::protocol::messages::api_versions::{
    ApiVersionsRequest, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use crate::protocol::{Str, api};

/// What KIP-511 allows as a software name or version: letters, digits, dots and dashes, starting
/// and ending with a letter or digit.
fn is_software_word(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|&byte| inner(byte))
}

pub(in crate::broker) fn handle(
    call: &Call<'_>,
    request: &ApiVersionsRequest,
) -> ApiVersionsResponse {
    let version = call.context.api_version;
    if version >= 3 {
        let (name, release) = (&request.client_software_name, &request.client_software_version);
        if !is_software_word(name) || !is_software_word(release) {
            let error_code = ErrorCode::InvalidRequest.to_i16();
            return ApiVersionsResponse { error_code, ..ApiVersionsResponse::default() };
        }
        if let Some(peer) = call.peer {
            let software = (String::from(name), String::from(release));
            tracing::debug!(peer = %peer.peer, name = software.0, version = software.1, "client");
            drop(peer.software.set(software));
        }
    }
    let image = call.state.image();
    let supported = SUPPORTED_FEATURES.iter();
    let finalized = |(name, level): (&Arc<str>, i16)| FinalizedFeatureKey {
        name: Str::from(name),
        max_version_level: level,
        min_version_level: level,
    };
    ApiVersionsResponse {
        api_keys: api::advertised(),
        supported_features: supported
            .filter(|feature| version >= 4 || feature.min_level > 0)
            .map(|feature| SupportedFeatureKey {
                name: Str::from_static(feature.name),
                min_version: feature.min_level,
                max_version: feature.max_level,
            })
            .collect(),
        finalized_features_epoch: image.offset.0,
        finalized_features: image.features().map(finalized).collect(),
        ..ApiVersionsResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use super::is_software_word;

    #[test]
    fn software_words_are_those_of_kip_511() {
        for word in ["apache-kafka-java", "4.3.0", "a"] {
            assert!(is_software_word(word), "{word}");
        }
        for word in ["", "-a", "a.", "a b", "\u{e9}"] {
            assert!(!is_software_word(word), "{word}");
        }
    }
}
