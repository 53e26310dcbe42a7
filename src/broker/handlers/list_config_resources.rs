//! ListConfigResources: v0-v1.
//!
//! Behaviour: the resources that have settings of a type: topics and brokers that exist, groups for
//! which something is set; ottla has no client metrics subscriptions. v0, formerly
//! ListClientMetricsResources, lists those subscriptions only. An empty list of types means all
//! types (KIP-1142). Errors: UNSUPPORTED_VERSION for a type that cannot be listed.

use super::topics::Topics;
use crate::broker::dispatch::Call;
use crate::error::ErrorCode;
use crate::machine::metadata::ConfigResource as Resource;
use crate::protocol::Str;
use crate::protocol::messages::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;
const ALL: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub(in crate::broker) fn handle(
    call: &Call<'_>,
    request: &ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    if call.context.api_version == 0 {
        return ListConfigResourcesResponse::default();
    }
    if request.resource_types.iter().any(|kind| !ALL.contains(kind)) {
        let error_code = ErrorCode::UnsupportedVersion.to_i16();
        return ListConfigResourcesResponse { error_code, ..Default::default() };
    }
    let wanted =
        |kind: i8| request.resource_types.is_empty() || request.resource_types.contains(&kind);
    let known = Topics::of(call);
    let image = known.image();
    let resource =
        |kind: i8, name: Str| ConfigResource { resource_name: name, resource_type: kind };
    let mut config_resources = Vec::new();
    if wanted(TOPIC) {
        let topics = known.all().map(|topic| resource(TOPIC, Str::from(&topic.name)));
        config_resources.extend(topics);
    }
    for kind in [BROKER, BROKER_LOGGER] {
        if wanted(kind) {
            let brokers = image.brokers();
            config_resources
                .extend(brokers.map(|broker| resource(kind, Str::from(broker.id.to_string()))));
        }
    }
    if wanted(GROUP) {
        let groups = image.configs().filter_map(|(resource, settings)| match resource {
            Resource::Group(name) if !settings.is_empty() => Some(Str::from(name)),
            _ => None,
        });
        config_resources.extend(groups.map(|name| resource(GROUP, name)));
    }
    ListConfigResourcesResponse { config_resources, ..Default::default() }
}
