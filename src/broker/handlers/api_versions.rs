//! ApiVersions: v0-v5.
//!
//! Behaviour: lists what is served, and the features that this cluster has finalized. Remembers the
//! name and version of the client's library for the log.
//! Versions: v1 throttle time; v3 client software, features (tagged, so that an old client can skip
//! them); v4 minimum versions of features may be 0; v5 the cluster and node that the client means
//! (KIP-1242), both or neither. An unknown version never gets here: the dispatcher answers it in the
//! form of v0 with UNSUPPORTED_VERSION and the versions of ApiVersions. Errors: INVALID_REQUEST when
//! the name or version of the software is malformed (KIP-511), or only one of cluster and node is
//! given; REBOOTSTRAP_REQUIRED when they are not ours.
//! What only nodes ask each other is listed, too, as Apache Kafka's controllers do: any node may be joined by others.
//! Answered from the first moment of a boot: until the metadata is known, without finalized features and with their
//! epoch -1, which means that they are not known.

use std::sync::Arc;

use crate::broker::dispatch::RequestContext;
use crate::broker::state::BrokerState;
use crate::error::ErrorCode;
use crate::machine::metadata::{MetadataImage, SUPPORTED_FEATURES};
use crate::protocol::messages::api_versions::{
    ApiVersionsRequest, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use crate::protocol::{Str, api};
use crate::types::NodeId;

/// The node id of a client that does not know which broker it talks to.
const NO_NODE: i32 = -1;

/// What KIP-511 allows as a software name or version: letters, digits, dots and dashes, starting
/// and ending with a letter or digit.
fn is_software_word(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|&byte| inner(byte))
}

/// Refuses a client that does not say who it is, or that means another broker.
fn check(
    request: &ApiVersionsRequest,
    version: i16,
    (cluster, node): (Option<&str>, NodeId),
) -> Result<(), ErrorCode> {
    if version >= 5 && request.cluster_id.is_some() != (request.node_id != NO_NODE) {
        return Err(ErrorCode::InvalidRequest);
    }
    let software = [&request.client_software_name, &request.client_software_version];
    if version >= 3 && !software.into_iter().all(|word| is_software_word(word)) {
        return Err(ErrorCode::InvalidRequest);
    }
    match &request.cluster_id {
        Some(meant) if Some(&**meant) != cluster || request.node_id != node.0 => {
            Err(ErrorCode::RebootstrapRequired)
        }
        _ => Ok(()),
    }
}

/// What the broker knows of itself and its cluster.
pub(in crate::broker) struct Known {
    node: NodeId,
    cluster: Option<String>,
    image: Arc<MetadataImage>,
}

impl Known {
    /// Before the quorum runs.
    pub(in crate::broker) fn early(node: NodeId) -> Self {
        Self { node, cluster: None, image: Arc::new(MetadataImage::empty()) }
    }

    pub(in crate::broker) fn of(state: &BrokerState) -> Self {
        let cluster = state.cluster_id().map(str::to_owned);
        Self { node: state.node_id(), cluster, image: state.image() }
    }
}

pub(in crate::broker) fn handle(
    known: &Known,
    context: &RequestContext,
    request: &ApiVersionsRequest,
) -> ApiVersionsResponse {
    let version = context.api_version;
    let own = (known.cluster.as_deref(), known.node);
    if let Err(code) = check(request, version, own) {
        return ApiVersionsResponse { error_code: code.to_i16(), ..ApiVersionsResponse::default() };
    }
    if version >= 3 {
        let (name, release) = (&request.client_software_name, &request.client_software_version);
        if let Some(peer) = &context.peer {
            let software = (String::from(name), String::from(release));
            tracing::debug!(peer = %peer.address, name = software.0, version = software.1, "client");
            drop(peer.software.set(software));
        }
    }
    let image = &known.image;
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
    use super::*;

    #[test]
    fn who_means_another_broker_is_told_to_bootstrap_again() {
        let check_meant = |cluster: Option<&str>, node_id| {
            let request = ApiVersionsRequest {
                client_software_name: "test".into(),
                client_software_version: "1".into(),
                cluster_id: cluster.map(Str::from),
                node_id,
            };
            check(&request, 5, (Some("ours"), NodeId(1)))
        };
        assert_eq!(check_meant(None, NO_NODE), Ok(()));
        assert_eq!(check_meant(Some("ours"), 1), Ok(()));
        for (cluster, node) in [(Some("ours"), NO_NODE), (None, 1), (None, 2)] {
            assert_eq!(check_meant(cluster, node), Err(ErrorCode::InvalidRequest));
        }
        for (cluster, node) in [("theirs", 1), ("ours", 2), ("", 1), ("ours", -2)] {
            let refused = check_meant(Some(cluster), node);
            assert_eq!(refused, Err(ErrorCode::RebootstrapRequired), "{cluster} {node}");
        }
    }

    #[test]
    fn software_words_are_those_of_kip_511() {
        for word in ["apache-kafka-java", "4.4.0", "a"] {
            assert!(is_software_word(word), "{word}");
        }
        for word in ["", "-a", "a.", "a b", "\u{e9}"] {
            assert!(!is_software_word(word), "{word}");
        }
    }
}
