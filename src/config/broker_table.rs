//! The settings of a broker, in the order of their names.
//!
//! Names, types and limits are Apache Kafka 4.4's. A name that is neither here nor in the other tables is
//! refused. Where a default differs from Kafka's, the line above it says why.

use super::definition::ConfigType::{Boolean, Int, List, Long, String};
use super::definition::Definition;
use super::definition::UpdateMode::{ClusterWide, ReadOnly};
use super::definition::Validator::{Any, AtLeast, Between, Check, MinusOneOrBetween, OneOf};
use super::listeners::{check_listeners, check_protocols};
use super::topic_table::{COMPRESSION_TYPES, DURABILITIES};
use super::voters::check_voters;

pub(super) const CLUSTER: &str = "a cluster of several nodes";
pub(super) const SECURITY: &str = "security";
const RACK_AWARE_SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
const RATE: &str = "connection rate limits";

macro_rules! broker {
    ($name:literal, $kind:ident, null, $validator:expr, $update:ident, $doc:literal) => {
        Definition::broker($name, $kind, None, $validator, $update, $doc)
    };
    ($name:literal, $kind:ident, $default:literal, $validator:expr, $update:ident, $doc:literal) => {
        Definition::broker($name, $kind, Some($default), $validator, $update, $doc)
    };
}
pub(super) use broker;

fn unlimited_or_positive(value: &str) -> Result<(), std::string::String> {
    match value.parse::<i64>() {
        Ok(-1 | 1..) => Ok(()),
        _ => Err("must be -1 (no limit) or at least 1".to_owned()),
    }
}

pub(super) const BROKER: &[Definition] = &[
    broker!(
        "advertised.listeners",
        List,
        null,
        Check(check_listeners),
        ReadOnly,
        "The addresses given to clients, by listener name. When unset, a client is given the address that it connected to."
    ),
    broker!(
        "authorizer.class.name",
        String,
        "",
        Any,
        ReadOnly,
        "The class that decides who may do what."
    )
    .only(&[], SECURITY),
    broker!(
        "auto.create.topics.enable",
        Boolean,
        "true",
        Any,
        ReadOnly,
        "Create a missing topic when a client asks for its metadata and allows it to be created."
    ),
    broker!(
        "auto.leader.rebalance.enable",
        Boolean,
        "true",
        Any,
        ReadOnly,
        "Move leadership back to the preferred replica from time to time."
    ),
    // Kafka's default is 2000; a cluster that serves again within seconds needs to hear of silence sooner.
    broker!(
        "broker.heartbeat.interval.ms",
        Int,
        "500",
        AtLeast(1),
        ReadOnly,
        "How often a broker of a cluster of several nodes tells the controller that it is alive."
    ),
    broker!(
        "broker.rack",
        String,
        null,
        Any,
        ReadOnly,
        "The rack of the broker; replicas of a partition are spread over racks."
    ),
    // Kafka's default is 9000. Pauses of a disk or a machine that is busy stay below a second; three leave room for them.
    broker!(
        "broker.session.timeout.ms",
        Int,
        "3000",
        AtLeast(1),
        ReadOnly,
        "How long the controller waits for a heartbeat before it fences a broker."
    ),
    broker!(
        "compression.gzip.level",
        Int,
        "-1",
        MinusOneOrBetween(1, 9),
        ClusterWide,
        "Default of compression.gzip.level of topics."
    ),
    broker!(
        "compression.lz4.level",
        Int,
        "9",
        Between(1, 17),
        ClusterWide,
        "Default of compression.lz4.level of topics."
    ),
    broker!(
        "compression.type",
        String,
        "producer",
        OneOf(COMPRESSION_TYPES),
        ClusterWide,
        "Default of compression.type of topics."
    ),
    broker!(
        "compression.zstd.level",
        Int,
        "3",
        Between(-131_072, 22),
        ClusterWide,
        "Default of compression.zstd.level of topics."
    ),
    broker!(
        "connections.max.idle.ms",
        Long,
        "600000",
        AtLeast(1),
        ReadOnly,
        "A connection that is idle for this long is closed."
    ),
    broker!(
        "controlled.shutdown.enable",
        Boolean,
        "true",
        Any,
        ReadOnly,
        "Hand over leadership before the broker stops."
    ),
    broker!(
        "controller.listener.names",
        List,
        null,
        Any,
        ReadOnly,
        "The listeners of controllers, which are opened in a cluster of several nodes. Ottla's controllers can be reached by those of brokers, too."
    ),
    broker!(
        "controller.quorum.election.timeout.ms",
        Int,
        "1000",
        AtLeast(0),
        ReadOnly,
        "How long a voter waits for a leader before it stands for election."
    )
    .idle(),
    broker!(
        "controller.quorum.voters",
        List,
        "",
        Check(check_voters),
        ReadOnly,
        "The nodes that store the metadata, as id@host:port, this one among them. Without a list, this node stores them alone, or joins those that do (controller.quorum.bootstrap.servers)."
    ),
    broker!(
        "default.replication.factor",
        Int,
        "1",
        AtLeast(1),
        ReadOnly,
        "The number of replicas of a topic that is created without specifying it."
    ),
    broker!("delete.topic.enable", Boolean, "true", Any, ReadOnly, "Allow topics to be deleted."),
    broker!(
        "durability",
        String,
        "auto",
        OneOf(DURABILITIES),
        ClusterWide,
        "Default of durability of topics. Ottla's own setting."
    ),
    broker!(
        "fetch.max.bytes",
        Int,
        "57671680",
        AtLeast(1024),
        ReadOnly,
        "The largest response to one fetch request."
    ),
    broker!(
        "initial.broker.registration.timeout.ms",
        Int,
        "60000",
        AtLeast(1),
        ReadOnly,
        "How long a starting broker keeps trying to register."
    ),
    broker!(
        "inter.broker.listener.name",
        String,
        null,
        Any,
        ReadOnly,
        "The listener that brokers use to talk to each other."
    ),
    broker!(
        "leader.imbalance.check.interval.seconds",
        Long,
        "300",
        AtLeast(1),
        ReadOnly,
        "How often the distribution of leaders is checked."
    ),
    broker!(
        "listener.security.protocol.map",
        String,
        "PLAINTEXT:PLAINTEXT",
        Check(check_protocols),
        ReadOnly,
        "The security protocol of each listener name."
    ),
    // Kafka listens on every interface; ottla stays on this machine unless told otherwise.
    broker!(
        "listeners",
        List,
        "PLAINTEXT://localhost:9092",
        Check(check_listeners),
        ReadOnly,
        "The addresses on which the broker listens, as NAME://host:port. Port 0 picks a free port; an empty host means every interface."
    ),
    broker!(
        "max.connection.creation.rate",
        Int,
        "2147483647",
        AtLeast(0),
        ClusterWide,
        "The most new connections per second."
    )
    .only(&[], RATE),
    broker!(
        "max.connections",
        Int,
        "2147483647",
        AtLeast(0),
        ReadOnly,
        "The most connections served at a time; further ones wait until another is closed."
    ),
    broker!(
        "max.connections.per.ip",
        Int,
        "2147483647",
        AtLeast(0),
        ReadOnly,
        "The most connections open at a time from one address."
    ),
    broker!(
        "max.incremental.fetch.session.cache.slots",
        Int,
        "1000",
        AtLeast(0),
        ReadOnly,
        "The number of fetch sessions kept; further clients have to send full requests."
    ),
    broker!(
        "max.request.partition.size.limit",
        Int,
        "2000",
        AtLeast(1),
        ReadOnly,
        "The most partitions in one response to DescribeTopicPartitions."
    ),
    broker!(
        "message.max.bytes",
        Int,
        "1048588",
        AtLeast(0),
        ClusterWide,
        "Default of max.message.bytes of topics."
    ),
    broker!(
        "metadata.log.max.record.bytes.between.snapshots",
        Long,
        "20971520",
        AtLeast(1),
        ReadOnly,
        "A snapshot is taken after this many bytes of metadata records."
    ),
    broker!(
        "metadata.log.segment.bytes",
        Int,
        "1073741824",
        AtLeast(8_388_608),
        ReadOnly,
        "The size at which a segment of the metadata log is closed."
    ),
    broker!(
        "min.insync.replicas",
        Int,
        "1",
        AtLeast(1),
        ClusterWide,
        "Default of min.insync.replicas of topics."
    ),
    // Kafka requires it; a single broker does not need to be told its id.
    broker!(
        "node.id",
        Int,
        "1",
        AtLeast(0),
        ReadOnly,
        "The id of this node: unique in the cluster, and never to be changed for a data directory."
    ),
    broker!(
        "num.io.threads",
        Int,
        "8",
        AtLeast(1),
        ClusterWide,
        "Threads that serve requests in Kafka."
    )
    .idle(),
    broker!(
        "num.network.threads",
        Int,
        "3",
        AtLeast(1),
        ClusterWide,
        "Threads that serve sockets in Kafka."
    )
    .idle(),
    broker!(
        "num.partitions",
        Int,
        "1",
        AtLeast(1),
        ReadOnly,
        "The number of partitions of a topic that is created without specifying it."
    ),
    broker!(
        "num.recovery.threads.per.data.dir",
        Int,
        "2",
        AtLeast(1),
        ClusterWide,
        "Threads that recover partitions in Kafka."
    )
    .idle(),
    broker!(
        "num.replica.fetchers",
        Int,
        "1",
        AtLeast(1),
        ClusterWide,
        "Fetchers per source broker."
    )
    .idle(),
    broker!(
        "ottla.tier.cache.bytes",
        Long,
        "134217728",
        AtLeast(1_048_576),
        ReadOnly,
        "How many bytes of batches that were read from the tier are kept in memory, for those who read on. Ottla's own setting."
    ),
    broker!(
        "ottla.tier.url",
        String,
        null,
        Any,
        ReadOnly,
        "Where the tier is: file:///path/to/a/folder. Ottla's own setting."
    ),
    broker!(
        "producer.id.expiration.ms",
        Int,
        "86400000",
        AtLeast(1),
        ClusterWide,
        "How long a partition remembers an idempotent producer that sends nothing."
    ),
    // Kafka sets no limit; ottla's memory is bounded by default.
    broker!(
        "queued.max.request.bytes",
        Long,
        "268435456",
        Check(unlimited_or_positive),
        ReadOnly,
        "The most bytes of requests in progress, over all connections; at the limit, reading pauses. -1 for no limit."
    ),
    broker!(
        "queued.max.requests",
        Int,
        "500",
        AtLeast(1),
        ReadOnly,
        "The most requests that wait for a thread in Kafka."
    )
    .idle(),
    broker!(
        "remote.log.manager.task.interval.ms",
        Long,
        "30000",
        AtLeast(1),
        ReadOnly,
        "How often the leader of a partition with a tier looks for closed segments to copy, and for what is to be deleted."
    ),
    broker!(
        "remote.log.storage.system.enable",
        Boolean,
        "false",
        Any,
        ReadOnly,
        "Let topics keep closed segments in the tier, at ottla.tier.url."
    ),
    broker!(
        "replica.fetch.backoff.ms",
        Int,
        "1000",
        AtLeast(0),
        ReadOnly,
        "The longest that a follower waits before it asks again after a failure."
    ),
    broker!(
        "replica.fetch.max.bytes",
        Int,
        "1048576",
        AtLeast(0),
        ReadOnly,
        "Bytes per partition that a follower asks for."
    ),
    broker!(
        "replica.fetch.min.bytes",
        Int,
        "1",
        AtLeast(1),
        ReadOnly,
        "The fewest bytes that a response to a follower should have."
    ),
    broker!(
        "replica.fetch.response.max.bytes",
        Int,
        "10485760",
        AtLeast(0),
        ReadOnly,
        "The largest response that a follower asks for."
    ),
    broker!(
        "replica.fetch.wait.max.ms",
        Int,
        "500",
        AtLeast(0),
        ReadOnly,
        "The longest time that a follower's fetch may wait."
    ),
    broker!(
        "replica.high.watermark.checkpoint.interval.ms",
        Long,
        "5000",
        AtLeast(1),
        ReadOnly,
        "How often high watermarks are saved to disk."
    ),
    broker!(
        "replica.lag.time.max.ms",
        Long,
        "30000",
        AtLeast(1),
        ReadOnly,
        "A follower that has not caught up for this long leaves the ISR."
    ),
    broker!(
        "replica.selector.class",
        String,
        null,
        OneOf(&[RACK_AWARE_SELECTOR]),
        ReadOnly,
        "Who picks the replica from which a consumer reads: Kafka's RackAwareReplicaSelector sends it to one in its rack."
    ),
    broker!(
        "request.timeout.ms",
        Int,
        "30000",
        AtLeast(1),
        ReadOnly,
        "How long a request between nodes may take."
    )
    .idle(),
    broker!(
        "security.inter.broker.protocol",
        String,
        "PLAINTEXT",
        OneOf(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]),
        ReadOnly,
        "The security protocol used between brokers."
    )
    .only(&[], SECURITY),
    broker!(
        "socket.listen.backlog.size",
        Int,
        "50",
        AtLeast(1),
        ReadOnly,
        "The most connections that may wait to be accepted."
    ),
    broker!(
        "socket.receive.buffer.bytes",
        Int,
        "-1",
        Check(unlimited_or_positive),
        ReadOnly,
        "The receive buffer of a socket; -1 leaves it to the operating system."
    ),
    broker!(
        "socket.request.max.bytes",
        Int,
        "104857600",
        AtLeast(1),
        ReadOnly,
        "The largest request; on a larger one the connection is closed before any memory is reserved."
    ),
    broker!(
        "socket.send.buffer.bytes",
        Int,
        "-1",
        Check(unlimited_or_positive),
        ReadOnly,
        "The send buffer of a socket; -1 leaves it to the operating system."
    ),
    broker!(
        "unclean.leader.election.enable",
        Boolean,
        "false",
        Any,
        ClusterWide,
        "Default of unclean.leader.election.enable of topics."
    ),
];
