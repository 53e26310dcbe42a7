//! Settings of Apache Kafka 4.4 that ottla accepts without effect, grouped by subject.
//!
//! Why: the settings file of a Kafka broker should start ottla, and Kafka's tools should find every name.
//! Each of these tunes something internal to Kafka's broker, or something that Kafka has and ottla does
//! not, which is itself refused if somebody turns it on (a listener with TLS, a two-phase
//! commit, tiered storage). None of them alone makes a record safer or a client less trusted: those that would are
//! refused, in the other tables (ADR 0015).
//!
//! Names, types, defaults and limits are Apache Kafka 4.4.0's.

use super::definition::ConfigType::{
    Boolean, Class, Double, Int, List, Long, Password, Short, String,
};
use super::definition::Definition;
use super::definition::UpdateMode::{ClusterWide, PerBroker, ReadOnly};
use super::definition::Validator::{Any, AtLeast, Between, Fraction, OneOf};

macro_rules! default {
    (null) => {
        None
    };
    ($text:literal) => {
        Some($text)
    };
}

macro_rules! broker {
    ($list:ident, $about:literal, $($name:literal $kind:ident $default:tt, $validator:expr, $update:ident;)*) => {
        const $list: &[Definition] = &[$(
            Definition::broker($name, $kind, default!($default), $validator, $update, $about).idle()
        ),*];
    };
}

macro_rules! group {
    ($($name:literal $kind:ident $default:tt, $validator:expr, $about:literal;)*) => {
        pub(super) const GROUP: &[Definition] = &[$(Definition {
            default: default!($default),
            ..Definition::group($name, $kind, "", $validator, &[], $about)
        }.idle()),*];
    };
}

broker! { INSIDE, "For the inner workings of Apache Kafka's broker.",
    "background.threads" Int "10", AtLeast(1), ClusterWide;
    "delete.records.purgatory.purge.interval.requests" Int "1", Any, ReadOnly;
    "fetch.purgatory.purge.interval.requests" Int "1000", Any, ReadOnly;
    "group.consumer.assignor.offload.enable" Boolean "true", Any, ClusterWide;
    "group.coordinator.append.linger.ms" Int "-1", AtLeast(-1), ReadOnly;
    "group.coordinator.background.threads" Int "2", AtLeast(1), ReadOnly;
    "group.coordinator.cached.buffer.max.bytes" Int "1048588", AtLeast(524_288), ClusterWide;
    "group.coordinator.threads" Int "4", AtLeast(1), ReadOnly;
    "internal.metadata.delete.delay.millis" Long "60000", Any, ReadOnly;
    "internal.metadata.log.segment.bytes" Int null, Any, ReadOnly;
    "internal.metadata.max.batch.size.in.bytes" Int "8388608", Any, ReadOnly;
    "log.initial.task.delay.ms" Long "30000", AtLeast(0), ReadOnly;
    "metadata.log.max.snapshot.interval.ms" Long "3600000", AtLeast(0), ReadOnly;
    "metadata.log.segment.ms" Long "604800000", Any, ReadOnly;
    "metadata.max.idle.interval.ms" Int "500", AtLeast(0), ReadOnly;
    "metadata.max.retention.bytes" Long "104857600", Any, ReadOnly;
    "metadata.max.retention.ms" Long "604800000", Any, ReadOnly;
    "offsets.commit.timeout.ms" Int "5000", AtLeast(1), ReadOnly;
    "offsets.load.buffer.size" Int "5242880", AtLeast(1), ReadOnly;
    "offsets.topic.compression.codec" Int "0", Any, ReadOnly;
    "producer.id.expiration.check.interval.ms" Int "600000", AtLeast(1), ReadOnly;
    "producer.purgatory.purge.interval.requests" Int "1000", Any, ReadOnly;
    "server.max.startup.time.ms" Long "9223372036854775807", AtLeast(0), ReadOnly;
    "unstable.api.versions.enable" Boolean "false", Any, ReadOnly;
    "unstable.feature.versions.enable" Boolean "false", Any, ReadOnly;
}

broker! { CLUSTER, "For traffic between the nodes of a cluster.",
    "controller.performance.always.log.threshold.ms" Long "2000", AtLeast(0), ReadOnly;
    "controller.performance.sample.period.ms" Long "60000", AtLeast(100), ReadOnly;
    "controller.quorum.append.linger.ms" Int "25", AtLeast(0), ReadOnly;
    "controller.quorum.election.backoff.max.ms" Int "1000", AtLeast(0), ReadOnly;
    "controller.quorum.fetch.max.bytes" Int "1048576", AtLeast(1), ReadOnly;
    "controller.quorum.fetch.snapshot.max.bytes" Int "1048576", AtLeast(1), ReadOnly;
    "controller.quorum.fetch.timeout.ms" Int "2000", AtLeast(0), ReadOnly;
    "controller.quorum.request.timeout.ms" Int "2000", AtLeast(0), ReadOnly;
    "controller.quorum.retry.backoff.ms" Int "20", AtLeast(0), ReadOnly;
    "controller.socket.timeout.ms" Int "30000", Any, ReadOnly;
    "early.start.listeners" List null, Any, ReadOnly;
    "log.dir.failure.timeout.ms" Long "30000", AtLeast(1), ReadOnly;
    "num.replica.alter.log.dirs.threads" Int null, Any, ReadOnly;
    "replica.alter.log.dirs.io.max.bytes.per.second" Long "9223372036854775807", AtLeast(0), ClusterWide;
    "replica.socket.receive.buffer.bytes" Int "65536", Any, ReadOnly;
    "replica.socket.timeout.ms" Int "30000", Any, ReadOnly;
    "socket.connection.setup.timeout.max.ms" Long "30000", Any, ReadOnly;
    "socket.connection.setup.timeout.ms" Long "10000", Any, ReadOnly;
    "unclean.leader.election.interval.ms" Long "300000", AtLeast(1), ReadOnly;
}

broker! { QUOTA, "For measuring quotas, which ottla does not have.",
    "alter.log.dirs.replication.quota.window.num" Int "11", AtLeast(1), ReadOnly;
    "alter.log.dirs.replication.quota.window.size.seconds" Int "1", AtLeast(1), ReadOnly;
    "controller.quota.window.num" Int "11", AtLeast(1), ReadOnly;
    "controller.quota.window.size.seconds" Int "1", AtLeast(1), ReadOnly;
    "quota.window.num" Int "11", AtLeast(1), ReadOnly;
    "quota.window.size.seconds" Int "1", AtLeast(1), ReadOnly;
}

broker! { METRICS, "For the metrics of Java programs.",
    "kafka.metrics.polling.interval.secs" Int "10", AtLeast(1), ReadOnly;
    "kafka.metrics.reporters" List "", Any, ReadOnly;
    "metric.reporters" List "org.apache.kafka.common.metrics.JmxReporter", Any, ClusterWide;
    "metrics.num.samples" Int "2", AtLeast(1), ReadOnly;
    "metrics.recording.level" String "INFO", Any, ReadOnly;
    "metrics.sample.window.ms" Long "30000", AtLeast(1), ReadOnly;
}

broker! { TRANSACTIONS, "For the internals of transactions, or for two-phase commits, which are refused.",
    "transaction.state.log.load.buffer.size" Int "5242880", AtLeast(1), ReadOnly;
    "transaction.two.phase.commit.enable" Boolean "false", Any, ReadOnly;
}

broker! { SHARE, "For share groups, which ottla does not have.",
    "errors.deadletterqueue.auto.create.topics.enable" Boolean "false", Any, ClusterWide;
    "errors.deadletterqueue.topic.name.prefix" String "dlq.", Any, ClusterWide;
    "group.share.assignment.interval.ms" Int "1000", AtLeast(0), ClusterWide;
    "group.share.assignor.offload.enable" Boolean "true", Any, ClusterWide;
    "group.share.assignors" List "simple", Any, ReadOnly;
    "group.share.delivery.count.limit" Int "5", Between(2, 10), ReadOnly;
    "group.share.dlq.manager.class.name" String "org.apache.kafka.server.share.dlq.DefaultShareGroupDLQManager", Any, ReadOnly;
    "group.share.heartbeat.interval.ms" Int "5000", AtLeast(1), ReadOnly;
    "group.share.initialize.retry.interval.ms" Int "30000", AtLeast(1), ReadOnly;
    "group.share.max.assignment.interval.ms" Int "15000", AtLeast(0), ReadOnly;
    "group.share.max.delivery.count.limit" Int "10", Between(5, 25), ReadOnly;
    "group.share.max.heartbeat.interval.ms" Int "15000", AtLeast(1), ReadOnly;
    "group.share.max.partition.max.record.locks" Int "4000", Between(2000, 10_000), ReadOnly;
    "group.share.max.record.lock.duration.ms" Int "60000", Between(30_000, 3_600_000), ReadOnly;
    "group.share.max.session.timeout.ms" Int "60000", AtLeast(1), ReadOnly;
    "group.share.max.share.sessions" Int "2000", AtLeast(1), ReadOnly;
    "group.share.max.size" Int "200", Between(1, 1000), ReadOnly;
    "group.share.min.assignment.interval.ms" Int "0", AtLeast(0), ReadOnly;
    "group.share.min.delivery.count.limit" Int "2", Between(2, 5), ReadOnly;
    "group.share.min.heartbeat.interval.ms" Int "5000", AtLeast(1), ReadOnly;
    "group.share.min.partition.max.record.locks" Int "100", Between(100, 2000), ReadOnly;
    "group.share.min.record.lock.duration.ms" Int "15000", Between(1000, 30_000), ReadOnly;
    "group.share.min.session.timeout.ms" Int "45000", AtLeast(1), ReadOnly;
    "group.share.partition.max.record.locks" Int "2000", Between(100, 10_000), ReadOnly;
    "group.share.persister.class.name" String "org.apache.kafka.server.share.persister.DefaultStatePersister", Any, ReadOnly;
    "group.share.record.lock.duration.ms" Int "30000", Between(1000, 3_600_000), ReadOnly;
    "group.share.session.timeout.ms" Int "45000", AtLeast(1), ReadOnly;
    "share.coordinator.append.linger.ms" Int "-1", AtLeast(-1), ReadOnly;
    "share.coordinator.cached.buffer.max.bytes" Int "1048588", AtLeast(524_288), ClusterWide;
    "share.coordinator.cold.partition.snapshot.interval.ms" Int "300000", AtLeast(1), ReadOnly;
    "share.coordinator.load.buffer.size" Int "5242880", AtLeast(1), ReadOnly;
    "share.coordinator.snapshot.update.records.per.snapshot" Int "500", Between(0, 500), ReadOnly;
    "share.coordinator.state.topic.compression.codec" Int "0", Any, ReadOnly;
    "share.coordinator.state.topic.min.isr" Short "2", AtLeast(1), ReadOnly;
    "share.coordinator.state.topic.num.partitions" Int "50", AtLeast(1), ReadOnly;
    "share.coordinator.state.topic.prune.interval.ms" Int "300000", AtLeast(1), ReadOnly;
    "share.coordinator.state.topic.replication.factor" Short "3", AtLeast(1), ReadOnly;
    "share.coordinator.state.topic.segment.bytes" Int "104857600", AtLeast(1), ReadOnly;
    "share.coordinator.threads" Int "1", AtLeast(1), ReadOnly;
    "share.coordinator.write.timeout.ms" Int "5000", AtLeast(1), ReadOnly;
    "share.fetch.purgatory.purge.interval.requests" Int "1000", Any, ReadOnly;
}

broker! { STREAMS, "For streams groups, which ottla does not have.",
    "group.streams.acceptable.recovery.lag" Long "10000", AtLeast(0), ReadOnly;
    "group.streams.assignment.interval.ms" Int "1000", AtLeast(0), ClusterWide;
    "group.streams.assignor.offload.enable" Boolean "true", Any, ClusterWide;
    "group.streams.assignors" List "sticky", Any, ReadOnly;
    "group.streams.heartbeat.interval.ms" Int "5000", AtLeast(1), ReadOnly;
    "group.streams.initial.rebalance.delay.ms" Int "3000", AtLeast(0), ReadOnly;
    "group.streams.max.assignment.interval.ms" Int "15000", AtLeast(0), ReadOnly;
    "group.streams.max.heartbeat.interval.ms" Int "15000", AtLeast(1), ReadOnly;
    "group.streams.max.session.timeout.ms" Int "60000", AtLeast(1), ReadOnly;
    "group.streams.max.size" Int "2147483647", AtLeast(1), ReadOnly;
    "group.streams.max.standby.replicas" Int "2", AtLeast(0), ReadOnly;
    "group.streams.max.warmup.replicas" Int "20", AtLeast(0), ReadOnly;
    "group.streams.min.assignment.interval.ms" Int "0", AtLeast(0), ReadOnly;
    "group.streams.min.heartbeat.interval.ms" Int "5000", AtLeast(1), ReadOnly;
    "group.streams.min.session.timeout.ms" Int "45000", AtLeast(1), ReadOnly;
    "group.streams.min.task.offset.interval.ms" Int "15000", AtLeast(1), ReadOnly;
    "group.streams.num.standby.replicas" Int "0", AtLeast(0), ReadOnly;
    "group.streams.num.warmup.replicas" Int "2", AtLeast(0), ReadOnly;
    "group.streams.rack.aware.assignment.tags" List "", Any, ReadOnly;
    "group.streams.session.timeout.ms" Int "45000", AtLeast(1), ReadOnly;
    "group.streams.task.offset.interval.ms" Int "60000", AtLeast(1), ReadOnly;
    "group.streams.topology.description.plugin.class" Class null, Any, ReadOnly;
}

broker! { TIER, "For parts of Kafka's tiered storage that are made differently here.",
    "follower.fetch.last.tiered.offset.enable" Boolean "false", Any, ClusterWide;
    "log.remote.copy.lag.bytes" Long "-1", AtLeast(-1), ClusterWide;
    "log.remote.copy.lag.ms" Long "0", AtLeast(-1), ClusterWide;
    "remote.fetch.max.wait.ms" Int "500", AtLeast(1), ClusterWide;
    "remote.list.offsets.request.timeout.ms" Long "30000", AtLeast(1), ClusterWide;
    "remote.log.index.file.cache.total.size.bytes" Long "1073741824", AtLeast(1), ClusterWide;
    "remote.log.index.file.cache.ttl.ms" Long "900000", AtLeast(-1), ReadOnly;
    "remote.log.manager.copier.thread.pool.size" Int "10", AtLeast(1), ClusterWide;
    "remote.log.manager.copy.max.bytes.per.second" Long "9223372036854775807", AtLeast(1), ClusterWide;
    "remote.log.manager.copy.quota.window.num" Int "11", AtLeast(1), ReadOnly;
    "remote.log.manager.copy.quota.window.size.seconds" Int "1", AtLeast(1), ReadOnly;
    "remote.log.manager.expiration.thread.pool.size" Int "10", AtLeast(1), ClusterWide;
    "remote.log.manager.fetch.max.bytes.per.second" Long "9223372036854775807", AtLeast(1), ClusterWide;
    "remote.log.manager.fetch.quota.window.num" Int "11", AtLeast(1), ReadOnly;
    "remote.log.manager.fetch.quota.window.size.seconds" Int "1", AtLeast(1), ReadOnly;
    "remote.log.manager.follower.thread.pool.size" Int "2", AtLeast(1), ClusterWide;
    "remote.log.manager.task.retry.backoff.max.ms" Long "30000", AtLeast(1), ReadOnly;
    "remote.log.manager.task.retry.backoff.ms" Long "500", AtLeast(1), ReadOnly;
    "remote.log.manager.task.retry.jitter" Double "0.2", Fraction(0.0, 0.5), ReadOnly;
    "remote.log.manager.thread.pool.size" Int "2", AtLeast(1), ReadOnly;
    "remote.log.metadata.custom.metadata.max.bytes" Int "128", AtLeast(0), ReadOnly;
    "remote.log.metadata.manager.class.name" String "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager", Any, ReadOnly;
    "remote.log.metadata.manager.class.path" String null, Any, ReadOnly;
    "remote.log.metadata.manager.impl.prefix" String "rlmm.config.", Any, ReadOnly;
    "remote.log.metadata.manager.listener.name" String null, Any, ReadOnly;
    "remote.log.reader.max.pending.tasks" Int "100", AtLeast(1), ReadOnly;
    "remote.log.reader.threads" Int "10", AtLeast(1), ClusterWide;
    "remote.log.storage.manager.class.name" String null, Any, ReadOnly;
    "remote.log.storage.manager.class.path" String null, Any, ReadOnly;
    "remote.log.storage.manager.impl.prefix" String "rsm.config.", Any, ReadOnly;
}

broker! { SECURITY, "For SASL, TLS or delegation tokens; listeners that use them are refused.",
    "connection.failed.authentication.delay.ms" Int "100", AtLeast(0), ReadOnly;
    "connections.max.reauth.ms" Long "0", Any, ReadOnly;
    "delegation.token.expiry.check.interval.ms" Long "3600000", AtLeast(1), ReadOnly;
    "delegation.token.expiry.time.ms" Long "86400000", AtLeast(1), ReadOnly;
    "delegation.token.max.lifetime.ms" Long "604800000", AtLeast(1), ReadOnly;
    "delegation.token.secret.key" Password null, Any, ReadOnly;
    "sasl.client.callback.handler.class" Class null, Any, ReadOnly;
    "sasl.enabled.mechanisms" List "GSSAPI", Any, PerBroker;
    "sasl.jaas.config" Password null, Any, PerBroker;
    "sasl.kerberos.kinit.cmd" String "/usr/bin/kinit", Any, PerBroker;
    "sasl.kerberos.min.time.before.relogin" Long "60000", Any, PerBroker;
    "sasl.kerberos.principal.to.local.rules" List "DEFAULT", Any, PerBroker;
    "sasl.kerberos.service.name" String null, Any, PerBroker;
    "sasl.kerberos.ticket.renew.jitter" Double "0.05", Any, PerBroker;
    "sasl.kerberos.ticket.renew.window.factor" Double "0.8", Any, PerBroker;
    "sasl.login.callback.handler.class" Class null, Any, ReadOnly;
    "sasl.login.class" Class null, Any, ReadOnly;
    "sasl.login.connect.timeout.ms" Int null, Any, ReadOnly;
    "sasl.login.read.timeout.ms" Int null, Any, ReadOnly;
    "sasl.login.refresh.buffer.seconds" Short "300", Any, PerBroker;
    "sasl.login.refresh.min.period.seconds" Short "60", Any, PerBroker;
    "sasl.login.refresh.window.factor" Double "0.8", Any, PerBroker;
    "sasl.login.refresh.window.jitter" Double "0.05", Any, PerBroker;
    "sasl.login.retry.backoff.max.ms" Long "10000", Any, ReadOnly;
    "sasl.login.retry.backoff.ms" Long "100", Any, ReadOnly;
    "sasl.mechanism.controller.protocol" String "GSSAPI", Any, ReadOnly;
    "sasl.mechanism.inter.broker.protocol" String "GSSAPI", Any, PerBroker;
    "sasl.oauthbearer.allow.unverified.audience" Boolean "false", Any, ReadOnly;
    "sasl.oauthbearer.allow.unverified.issuer" Boolean "false", Any, ReadOnly;
    "sasl.oauthbearer.assertion.algorithm" String "RS256", Any, ReadOnly;
    "sasl.oauthbearer.assertion.claim.aud" String null, Any, ReadOnly;
    "sasl.oauthbearer.assertion.claim.exp.seconds" Int "300", Between(0, 86_400), ReadOnly;
    "sasl.oauthbearer.assertion.claim.iss" String null, Any, ReadOnly;
    "sasl.oauthbearer.assertion.claim.jti.include" Boolean "false", Any, ReadOnly;
    "sasl.oauthbearer.assertion.claim.nbf.seconds" Int "60", Between(0, 3600), ReadOnly;
    "sasl.oauthbearer.assertion.claim.sub" String null, Any, ReadOnly;
    "sasl.oauthbearer.assertion.file" String null, Any, ReadOnly;
    "sasl.oauthbearer.assertion.private.key.file" String null, Any, ReadOnly;
    "sasl.oauthbearer.assertion.private.key.passphrase" Password null, Any, ReadOnly;
    "sasl.oauthbearer.assertion.template.file" String null, Any, ReadOnly;
    "sasl.oauthbearer.client.credentials.client.id" String null, Any, ReadOnly;
    "sasl.oauthbearer.client.credentials.client.secret" Password null, Any, ReadOnly;
    "sasl.oauthbearer.clock.skew.seconds" Int "30", Any, ReadOnly;
    "sasl.oauthbearer.expected.audience" List "", Any, ReadOnly;
    "sasl.oauthbearer.expected.issuer" String null, Any, ReadOnly;
    "sasl.oauthbearer.jwks.endpoint.refresh.ms" Long "3600000", Any, ReadOnly;
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms" Long "10000", Any, ReadOnly;
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms" Long "100", Any, ReadOnly;
    "sasl.oauthbearer.jwks.endpoint.url" String null, Any, ReadOnly;
    "sasl.oauthbearer.jwt.retriever.class" Class "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever", Any, ReadOnly;
    "sasl.oauthbearer.jwt.validator.class" Class "org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator", Any, ReadOnly;
    "sasl.oauthbearer.scope" String null, Any, ReadOnly;
    "sasl.oauthbearer.scope.claim.name" String "scope", Any, ReadOnly;
    "sasl.oauthbearer.sub.claim.name" String "sub", Any, ReadOnly;
    "sasl.oauthbearer.token.endpoint.url" String null, Any, ReadOnly;
    "sasl.server.callback.handler.class" Class null, Any, ReadOnly;
    "sasl.server.max.receive.size" Int "524288", Any, ReadOnly;
    "security.providers" String null, Any, ReadOnly;
    "ssl.allow.dn.changes" Boolean "false", Any, ReadOnly;
    "ssl.allow.san.changes" Boolean "false", Any, ReadOnly;
    "ssl.cipher.suites" List "", Any, PerBroker;
    "ssl.client.auth" String "none", OneOf(&["required", "requested", "none"]), PerBroker;
    "ssl.enabled.protocols" List "TLSv1.2,TLSv1.3", Any, PerBroker;
    "ssl.endpoint.identification.algorithm" String "https", Any, PerBroker;
    "ssl.engine.factory.class" Class null, Any, PerBroker;
    "ssl.key.password" Password null, Any, PerBroker;
    "ssl.keymanager.algorithm" String "SunX509", Any, PerBroker;
    "ssl.keystore.certificate.chain" Password null, Any, PerBroker;
    "ssl.keystore.key" Password null, Any, PerBroker;
    "ssl.keystore.location" String null, Any, PerBroker;
    "ssl.keystore.password" Password null, Any, PerBroker;
    "ssl.keystore.type" String "JKS", Any, PerBroker;
    "ssl.principal.mapping.rules" String "DEFAULT", Any, ReadOnly;
    "ssl.protocol" String "TLSv1.3", Any, PerBroker;
    "ssl.provider" String null, Any, PerBroker;
    "ssl.secure.random.implementation" String null, Any, PerBroker;
    "ssl.trustmanager.algorithm" String "PKIX", Any, PerBroker;
    "ssl.truststore.certificates" Password null, Any, PerBroker;
    "ssl.truststore.location" String null, Any, PerBroker;
    "ssl.truststore.password" Password null, Any, PerBroker;
    "ssl.truststore.type" String "JKS", Any, PerBroker;
}

group! {
    "consumer.assignor.offload.enable" Boolean "true", Any, "For the inner workings of Apache Kafka's broker.";
    "errors.deadletterqueue.copy.record.enable" Boolean "false", Any, "For share groups, which ottla does not have.";
    "errors.deadletterqueue.topic.name" String "", Any, "For share groups, which ottla does not have.";
    "share.assignment.interval.ms" Int "1000", AtLeast(0), "For share groups, which ottla does not have.";
    "share.assignor.offload.enable" Boolean "true", Any, "For share groups, which ottla does not have.";
    "share.auto.offset.reset" String "latest", Any, "For share groups, which ottla does not have.";
    "share.delivery.count.limit" Int "5", AtLeast(2), "For share groups, which ottla does not have.";
    "share.heartbeat.interval.ms" Int "5000", AtLeast(1), "For share groups, which ottla does not have.";
    "share.isolation.level" String "read_uncommitted", OneOf(&["read_committed", "read_uncommitted"]), "For share groups, which ottla does not have.";
    "share.partition.max.record.locks" Int "2000", AtLeast(100), "For share groups, which ottla does not have.";
    "share.record.lock.duration.ms" Int "30000", AtLeast(1000), "For share groups, which ottla does not have.";
    "share.renew.acknowledge.enable" Boolean "true", Any, "For share groups, which ottla does not have.";
    "share.session.timeout.ms" Int "45000", AtLeast(1), "For share groups, which ottla does not have.";
    "streams.acceptable.recovery.lag" Long "10000", AtLeast(0), "For streams groups, which ottla does not have.";
    "streams.assignment.interval.ms" Int "1000", AtLeast(0), "For streams groups, which ottla does not have.";
    "streams.assignor.name" String null, Any, "For streams groups, which ottla does not have.";
    "streams.assignor.offload.enable" Boolean "true", Any, "For streams groups, which ottla does not have.";
    "streams.heartbeat.interval.ms" Int "5000", AtLeast(1), "For streams groups, which ottla does not have.";
    "streams.initial.rebalance.delay.ms" Int "3000", AtLeast(0), "For streams groups, which ottla does not have.";
    "streams.num.standby.replicas" Int "0", AtLeast(0), "For streams groups, which ottla does not have.";
    "streams.num.warmup.replicas" Int "2", AtLeast(0), "For streams groups, which ottla does not have.";
    "streams.rack.aware.assignment.tags" List "", Any, "For streams groups, which ottla does not have.";
    "streams.session.timeout.ms" Int "45000", AtLeast(1), "For streams groups, which ottla does not have.";
    "streams.task.offset.interval.ms" Int "60000", AtLeast(1), "For streams groups, which ottla does not have.";
}

/// Those of a broker.
pub(super) const BROKER: &[&[Definition]] =
    &[INSIDE, CLUSTER, QUOTA, METRICS, TRANSACTIONS, SHARE, STREAMS, TIER, SECURITY];
