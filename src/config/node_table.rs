//! The settings for a node's identity and location, and those that name Java classes, in the order of their
//! names.

use super::broker_table::{CLUSTER, SECURITY, broker};
use super::definition::ConfigType::{Boolean, Class, Int, List, Long, String};
use super::definition::UpdateMode::{ClusterWide, PerBroker, ReadOnly};
use super::definition::Validator::{Any, AtLeast, Between, Check};
use super::definition::{Definition, split_list};
use super::voters::check_addresses;

const JAVA: &str = "a Java virtual machine";
const QUOTAS: &str = "quotas";

/// Both protocols of consumer groups are always available.
fn both_protocols(value: &str) -> Result<(), std::string::String> {
    let known = ["classic", "consumer", "share", "streams"];
    let given: Vec<&str> = split_list(value).collect();
    if let Some(unknown) = given.iter().find(|protocol| !known.contains(protocol)) {
        return Err(format!("\"{unknown}\" is not one of {}", known.join(", ")));
    }
    if given.contains(&"classic") && given.contains(&"consumer") {
        return Ok(());
    }
    Err("must name classic and consumer, which cannot be turned off".to_owned())
}

pub(super) const NODE: &[Definition] = &[
    broker!(
        "alter.config.policy.class.name",
        Class,
        null,
        Any,
        ReadOnly,
        "The class that decides which settings may be altered."
    )
    .only(&[], JAVA),
    broker!(
        "broker.id",
        Int,
        "-1",
        Any,
        ReadOnly,
        "The older name of node.id, used when only this one is set."
    ),
    broker!(
        "client.quota.callback.class",
        Class,
        null,
        Any,
        ReadOnly,
        "The class that decides about quotas."
    )
    .only(&[], QUOTAS),
    broker!(
        "config.providers",
        List,
        "",
        Any,
        ClusterWide,
        "The providers that resolve values of the form ${provider:path:key}."
    )
    .only(&[], "providers of configuration"),
    broker!(
        "controller.quorum.auto.join.enable",
        Boolean,
        "false",
        Any,
        ReadOnly,
        "Become a voter of the metadata quorum that this node joins, while that has fewer than three."
    ),
    broker!(
        "controller.quorum.bootstrap.servers",
        List,
        "",
        Check(check_addresses),
        ReadOnly,
        "The nodes, as host:port, whose cluster this one joins. The addresses of its own listeners do not count."
    ),
    broker!(
        "cordoned.log.dirs",
        List,
        "",
        Any,
        PerBroker,
        "Directories that accept no new partitions."
    )
    .only(&[], "several log directories"),
    broker!(
        "create.topic.policy.class.name",
        Class,
        null,
        Any,
        ReadOnly,
        "The class that decides which topics may be created."
    )
    .only(&[], JAVA),
    broker!(
        "follower.replication.throttled.rate",
        Long,
        "9223372036854775807",
        AtLeast(0),
        ClusterWide,
        "Bytes per second that the broker copies of the replicas in follower.replication.throttled.replicas of their topics."
    ),
    broker!(
        "group.coordinator.rebalance.protocols",
        List,
        "classic,consumer,streams",
        Check(both_protocols),
        ReadOnly,
        "The protocols of groups: classic and consumer are always supported, share and streams never."
    ),
    broker!(
        "leader.replication.throttled.rate",
        Long,
        "9223372036854775807",
        AtLeast(0),
        ClusterWide,
        "Bytes per second that the broker gives to followers of the replicas in leader.replication.throttled.replicas of their topics."
    ),
    broker!(
        "log.dir",
        List,
        null,
        Check(super::log_table::one_directory),
        ReadOnly,
        "The directory that holds the log, when log.dirs is not set."
    ),
    broker!(
        "max.connections.per.ip.overrides",
        String,
        "",
        Any,
        ClusterWide,
        "The most connections from individual addresses."
    )
    .only(&[], "connection limits for individual addresses"),
    broker!(
        "max.decompressed.message.bytes",
        Int,
        "2147483639",
        Between(1, 2_147_483_639),
        ClusterWide,
        "Default of max.decompressed.message.bytes of topics."
    ),
    broker!(
        "metadata.log.dir",
        String,
        null,
        Any,
        ReadOnly,
        "The directory that holds the metadata; must be the same as that of the log."
    ),
    broker!(
        "principal.builder.class",
        Class,
        "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder",
        Any,
        PerBroker,
        "The class that determines the identity of a client."
    )
    .only(&[], SECURITY),
    broker!(
        "process.roles",
        List,
        "broker,controller",
        super::definition::Validator::EachOneOf(&["broker", "controller"]),
        ReadOnly,
        "The roles of the node."
    )
    .only(&["controller,broker"], CLUSTER),
    broker!(
        "replication.quota.window.num",
        Int,
        "11",
        AtLeast(1),
        ReadOnly,
        "How many windows are kept to measure the rate of throttled replicas."
    ),
    broker!(
        "replication.quota.window.size.seconds",
        Int,
        "1",
        AtLeast(1),
        ReadOnly,
        "How long such a window is."
    ),
];
