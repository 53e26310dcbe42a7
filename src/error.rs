//! The errors of the engine: Kafka's error codes as one table, and our own [`Error`].
//!
//! [`ErrorCode`] is what is sent on the wire: its number, its name and whether a retry may help are
//! Kafka's. [`Error`] is what ottla's functions return: it says what was attempted, on which
//! partition, offset or file. [`Error::code`] is the only place that maps one to the other; the
//! match is exhaustive, so a new variant does not compile until it is mapped.
//!
//! An error prints only itself; the reporter prints the chain of sources.

mod words;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::types::{Offset, TopicPartition};

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! error_codes {
    ($($name:ident = $number:literal, $text:literal, $retriable:literal, $doc:literal;)*) => {
        /// The error codes of the Kafka protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(
                #[doc = $doc]
                $name = $number,
            )*
        }

        impl ErrorCode {
            /// Every code, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code of a number; `UnknownServerError` for an unknown number.
            #[must_use]
            pub const fn from_i16(number: i16) -> Self {
                match number {
                    $($number => Self::$name,)*
                    _ => Self::UnknownServerError,
                }
            }

            /// Kafka's name, for example `OFFSET_OUT_OF_RANGE`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether the same request may succeed when resent.
            #[must_use]
            pub const fn retriable(self) -> bool {
                match self { $(Self::$name => $retriable,)* }
            }

            /// What the code means, in one line.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => $doc,)* }
            }
        }
    };
}

error_codes! {
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR", false, "the server encountered an unexpected error";
    None = 0, "NONE", false, "no error";
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE", false, "the offset is outside the range of the partition";
    CorruptMessage = 2, "CORRUPT_MESSAGE", true, "the message failed its checksum, has an invalid size, or lacks a key in a compacted topic";
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", true, "this server does not host the topic or partition";
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE", false, "the requested fetch size is invalid";
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", true, "the partition has no leader at the moment";
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", true, "this broker is not the leader, or not a replica, of the partition";
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", true, "the request timed out";
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE", false, "the broker is not available";
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", true, "the replica is not available for the partition";
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE", false, "the record batch is larger than the topic or the broker accepts";
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH", false, "the controller moved to another broker";
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE", false, "the metadata of the committed offset is too large";
    NetworkException = 13, "NETWORK_EXCEPTION", true, "the connection ended before a response was received";
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", true, "the coordinator is loading and cannot serve requests yet";
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", true, "the coordinator is not available";
    NotCoordinator = 16, "NOT_COORDINATOR", true, "this broker is not the coordinator";
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION", false, "the name of the topic is not valid";
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE", false, "the records of the request are larger than a segment may be";
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", true, "fewer replicas are in sync than min.insync.replicas asks for";
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", true, "the records were written, but to fewer replicas than min.insync.replicas asks for";
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS", false, "acks must be 0, 1 or -1";
    IllegalGeneration = 22, "ILLEGAL_GENERATION", false, "the generation of the group member is not the current one";
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL", false, "the protocol of the member does not fit those of the group";
    InvalidGroupId = 24, "INVALID_GROUP_ID", false, "the group id is not valid";
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID", false, "the coordinator does not know this member";
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT", false, "the session timeout is outside of the range that the broker accepts";
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS", false, "the group is rebalancing; join again";
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE", false, "the data of the commit are larger than allowed";
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED", false, "not authorized for the topic";
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED", false, "not authorized for the group";
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED", false, "not authorized for the cluster";
    InvalidTimestamp = 32, "INVALID_TIMESTAMP", false, "the timestamp of a record is outside of the accepted range";
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM", false, "the broker does not support the SASL mechanism";
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE", false, "the request does not fit the state of the SASL exchange";
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION", false, "the version of the API is not supported";
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS", false, "a topic with this name already exists";
    InvalidPartitions = 37, "INVALID_PARTITIONS", false, "the number of partitions is not valid";
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR", false, "the replication factor is below 1 or above the number of brokers";
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT", false, "the assignment of replicas is not valid";
    InvalidConfig = 40, "INVALID_CONFIG", false, "the configuration is not valid";
    NotController = 41, "NOT_CONTROLLER", true, "this broker is not the controller";
    InvalidRequest = 42, "INVALID_REQUEST", false, "the request is malformed, or contradicts itself";
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", false, "the message format of the broker does not support the request";
    PolicyViolation = 44, "POLICY_VIOLATION", false, "the request violates a policy";
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER", false, "the sequence of the producer has a gap";
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER", false, "the sequence of the producer was written before";
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH", false, "the epoch of the producer is older than the current one";
    InvalidTxnState = 48, "INVALID_TXN_STATE", false, "the transaction is not in a state that allows the operation";
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING", false, "the producer id does not belong to this transactional id";
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT", false, "the transaction timeout is larger than transaction.max.timeout.ms";
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", true, "another operation on the same transaction is in progress";
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED", false, "a newer transaction coordinator exists";
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", false, "not authorized for the transactional id";
    SecurityDisabled = 54, "SECURITY_DISABLED", false, "security features are disabled";
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED", false, "the operation was not attempted, since another of the same request failed";
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", true, "the disk of the partition failed";
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND", false, "the log directory is not among those of the broker";
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED", false, "SASL authentication failed";
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID", false, "the broker has no state for this producer id";
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS", false, "a reassignment of partitions is in progress";
    DelegationTokenAuthDisabled = 61, "DELEGATION_TOKEN_AUTH_DISABLED", false, "delegation tokens are not enabled";
    DelegationTokenNotFound = 62, "DELEGATION_TOKEN_NOT_FOUND", false, "unknown delegation token";
    DelegationTokenOwnerMismatch = 63, "DELEGATION_TOKEN_OWNER_MISMATCH", false, "the principal does not own the delegation token";
    DelegationTokenRequestNotAllowed = 64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", false, "delegation token requests are not allowed on this channel";
    DelegationTokenAuthorizationFailed = 65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", false, "not authorized for the delegation token";
    DelegationTokenExpired = 66, "DELEGATION_TOKEN_EXPIRED", false, "the delegation token is expired";
    InvalidPrincipalType = 67, "INVALID_PRINCIPAL_TYPE", false, "the type of the principal is not supported";
    NonEmptyGroup = 68, "NON_EMPTY_GROUP", false, "the group is not empty";
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND", false, "the group does not exist";
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", true, "unknown fetch session";
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", true, "the epoch of the fetch session is not the expected one";
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", true, "the leader has no listener with the name of the one that received the request";
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED", false, "the deletion of topics is disabled";
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", true, "the leader epoch of the request is older than that of the broker";
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", true, "the leader epoch of the request is newer than that of the broker";
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE", false, "the client does not support the compression type of the partition";
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH", false, "the broker epoch is not the current one";
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", true, "the new leader's high watermark has not caught up yet";
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED", false, "the member must join again with the member id that it was given";
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", true, "the preferred leader is not available";
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED", false, "the group has its maximum number of members";
    FencedInstanceId = 82, "FENCED_INSTANCE_ID", false, "another member with the same instance id took over";
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", true, "no eligible leader is available";
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", true, "the partition already has the desired leader";
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS", false, "no reassignment is in progress";
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC", false, "the group is subscribed to the topic";
    InvalidRecord = 87, "INVALID_RECORD", false, "the broker could not validate a record";
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", true, "offsets of a pending transaction are not stable yet";
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", true, "a quota is exceeded";
    ProducerFenced = 90, "PRODUCER_FENCED", false, "a newer producer with the same transactional id exists";
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND", false, "the resource does not exist";
    DuplicateResource = 92, "DUPLICATE_RESOURCE", false, "the resource is listed twice";
    UnacceptableCredential = 93, "UNACCEPTABLE_CREDENTIAL", false, "the credential does not meet the rules";
    InconsistentVoterSet = 94, "INCONSISTENT_VOTER_SET", false, "the voter sets do not agree";
    InvalidUpdateVersion = 95, "INVALID_UPDATE_VERSION", false, "the version of the update is not valid";
    FeatureUpdateFailed = 96, "FEATURE_UPDATE_FAILED", false, "the feature could not be updated";
    PrincipalDeserializationFailure = 97, "PRINCIPAL_DESERIALIZATION_FAILURE", false, "the forwarded principal cannot be read";
    SnapshotNotFound = 98, "SNAPSHOT_NOT_FOUND", false, "the snapshot does not exist";
    PositionOutOfRange = 99, "POSITION_OUT_OF_RANGE", false, "the position is outside the snapshot";
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", true, "this server does not host a topic with this id";
    DuplicateBrokerRegistration = 101, "DUPLICATE_BROKER_REGISTRATION", false, "a broker with this id is already registered";
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED", false, "no broker with this id is registered";
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", true, "the topic id differs from that in the log";
    InconsistentClusterId = 104, "INCONSISTENT_CLUSTER_ID", false, "the cluster id differs from that of the broker";
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND", false, "unknown transactional id";
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", true, "the use of topic ids changed within a fetch session";
    IneligibleReplica = 107, "INELIGIBLE_REPLICA", false, "a replica may not join the ISR";
    NewLeaderElected = 108, "NEW_LEADER_ELECTED", false, "the change of the ISR led to a new leader";
    OffsetMovedToTieredStorage = 109, "OFFSET_MOVED_TO_TIERED_STORAGE", false, "the offset is in tiered storage";
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH", false, "the epoch of the member is fenced; rejoin";
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID", false, "the instance id is still in use by another member";
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR", false, "the assignor, or its version, is not supported";
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH", false, "the epoch of the member is stale";
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE", false, "the request arrived at an endpoint of the wrong type";
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE", false, "this type of endpoint is not supported";
    UnknownControllerId = 116, "UNKNOWN_CONTROLLER_ID", false, "unknown controller id";
    UnknownSubscriptionId = 117, "UNKNOWN_SUBSCRIPTION_ID", false, "the client metrics subscription is not the current one";
    TelemetryTooLarge = 118, "TELEMETRY_TOO_LARGE", false, "the pushed metrics are larger than accepted";
    InvalidRegistration = 119, "INVALID_REGISTRATION", false, "the registration of the broker is not valid";
    TransactionAbortable = 120, "TRANSACTION_ABORTABLE", false, "the transaction must be aborted";
    InvalidRecordState = 121, "INVALID_RECORD_STATE", false, "the state of the record does not allow the acknowledgement";
    ShareSessionNotFound = 122, "SHARE_SESSION_NOT_FOUND", true, "unknown share session";
    InvalidShareSessionEpoch = 123, "INVALID_SHARE_SESSION_EPOCH", true, "the epoch of the share session is not the expected one";
    FencedStateEpoch = 124, "FENCED_STATE_EPOCH", false, "the state epoch of the share coordinator is fenced";
    InvalidVoterKey = 125, "INVALID_VOTER_KEY", false, "the voter key does not match";
    DuplicateVoter = 126, "DUPLICATE_VOTER", false, "the voter is already in the set";
    VoterNotFound = 127, "VOTER_NOT_FOUND", false, "the voter is not in the set";
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION", false, "the regular expression is not valid";
    RebootstrapRequired = 129, "REBOOTSTRAP_REQUIRED", false, "the client's metadata is stale; it must bootstrap again";
    StreamsInvalidTopology = 130, "STREAMS_INVALID_TOPOLOGY", false, "the streams topology is not valid";
    StreamsInvalidTopologyEpoch = 131, "STREAMS_INVALID_TOPOLOGY_EPOCH", false, "the epoch of the streams topology is not valid";
    StreamsTopologyFenced = 132, "STREAMS_TOPOLOGY_FENCED", false, "the streams topology is outdated";
    ShareSessionLimitReached = 133, "SHARE_SESSION_LIMIT_REACHED", true, "the broker has its maximum number of share sessions";
}

#[expect(clippy::derivable_impls, reason = "the table above has no place for a #[default] mark")]
impl Default for ErrorCode {
    fn default() -> Self {
        Self::None
    }
}

impl ErrorCode {
    /// Whether this is [`ErrorCode::None`].
    #[must_use]
    pub const fn is_ok(self) -> bool {
        matches!(self, Self::None)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn to_i16(self) -> i16 {
        self as i16
    }

    /// `Ok` for [`ErrorCode::None`], else an [`Error::Kafka`] with the given context.
    ///
    /// # Errors
    ///
    /// The code itself, when it is one.
    pub fn into_result(self, context: impl Into<String>) -> Result<()> {
        if self.is_ok() { Ok(()) } else { Err(Error::kafka(self, context)) }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What went wrong, and where.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request was refused with one of Kafka's codes, by a broker or by ottla itself.
    #[error("{context}{} ({code})", meaning(*code, *is_told))]
    Kafka {
        /// The code.
        code: ErrorCode,
        /// What was attempted, on which topic, partition or resource, and the remedy if known.
        context: String,
        /// Whether the context already says what the code means.
        is_told: bool,
        /// What is behind it, if that is known.
        source: Option<Arc<Error>>,
    },
    /// Records of a produced batch were refused, and with them the batch.
    #[error("{detail}{} ({code})", meaning(*code, !detail.is_empty()))]
    RecordsRefused {
        /// The code.
        code: ErrorCode,
        /// Why the batch is refused.
        detail: String,
        /// The index in the batch of each bad record, and what is wrong with it; limited to the first
        /// ones.
        records: Vec<(i32, String)>,
    },
    /// An offset is outside the range that the partition holds.
    #[error("offset {offset} of {partition} is outside of [{start}, {end})")]
    OffsetOutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The requested offset.
        offset: Offset,
        /// The log start offset.
        start: Offset,
        /// The readable end.
        end: Offset,
    },
    /// Bytes from the network do not follow the protocol.
    #[error("malformed {what}: {detail}")]
    Malformed {
        /// The message, field or batch.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// Bytes on disk are not what was written.
    #[error("corrupt file {path} at byte {position}: {detail}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The position of the damaged batch, entry or header.
        position: u64,
        /// What is wrong with it.
        detail: String,
    },
    /// The operating system refused a file operation.
    #[error("{}could not {action} {path}", if is_full(source) { "the disk is full: " } else { "" })]
    Io {
        /// The verb: open, read, write, sync, map, rename, remove, list, lock.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: Arc<io::Error>,
    },
    /// The operating system refused a network operation.
    #[error("could not {action} {address}")]
    Network {
        /// The verb: connect to, bind, read from, write to, resolve.
        action: &'static str,
        /// The address.
        address: String,
        /// The operating system's error.
        source: Arc<io::Error>,
    },
    /// The log directory is offline after an earlier failure; nothing in it is served.
    #[error("log directory {path} is offline: {reason}")]
    Offline {
        /// The log directory.
        path: PathBuf,
        /// The failure that took it offline.
        reason: String,
    },
    /// A directory may not be used by this process: another one holds it.
    #[error("log directory {path} is in use: {detail}")]
    InUse {
        /// The log directory.
        path: PathBuf,
        /// Who holds it if that is known, and the remedy.
        detail: String,
    },
    /// Data on disk was written by a newer release.
    #[error(
        "{what} has version {version}, and this release of ottla reads up to {known}: start the newer \
         release that wrote it, or use another data directory"
    )]
    Newer {
        /// The file or record.
        what: String,
        /// Its version.
        version: u32,
        /// The highest known version.
        known: u16,
    },
    /// An argument or a configuration value is not acceptable.
    #[error("{0}")]
    InvalidArgument(String),
    /// A row of a table cannot be written.
    #[error("row {row}: {detail}")]
    Row {
        /// Its place, from 0.
        row: usize,
        /// What is wrong with it.
        detail: String,
    },
    /// A call did not finish in time.
    #[error("timed out after {}{}{what}", waited(*after_ms), if what.is_empty() { "" } else { ": " })]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long, in milliseconds.
        after_ms: u64,
        /// What stood in the way, if that is known: the cause of the last attempt.
        source: Option<Arc<Error>>,
    },
    /// A commit was asked for and not answered: nobody here knows whether it took effect.
    #[error("{what}")]
    UnknownOutcome {
        /// Of which transactional id, and the remedy.
        what: String,
        /// What stood in the way, if that is known.
        source: Option<Arc<Error>>,
    },
    /// The client, broker or batch was closed, or is closing.
    #[error("{what} is closed")]
    Closed {
        /// What was closed.
        what: &'static str,
    },
    /// A record does not match its value format.
    #[error("could not decode {what} of {partition} at offset {offset}: {detail}")]
    Decode {
        /// Key, value or header.
        what: &'static str,
        /// The partition.
        partition: TopicPartition,
        /// The offset of the first such record.
        offset: Offset,
        /// What is wrong with it, and the remedy.
        detail: String,
    },
    /// Requested records no longer exist.
    #[error("data loss in {partition}: {detail}")]
    DataLoss {
        /// The partition.
        partition: TopicPartition,
        /// Which records are missing, and the remedy.
        detail: String,
    },
}

impl Error {
    /// An error with one of Kafka's codes.
    pub fn kafka(code: ErrorCode, context: impl Into<String>) -> Self {
        Self::Kafka { code, context: context.into(), is_told: false, source: None }
    }

    /// An error with one of Kafka's codes whose meaning the text already gives, so that it is not
    /// repeated.
    pub fn told(code: ErrorCode, text: impl Into<String>) -> Self {
        Self::Kafka { code, context: text.into(), is_told: true, source: None }
    }

    /// A wait that ended early.
    pub fn timeout(what: impl Into<String>, after: Duration) -> Self {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Self::Timeout { what: what.into(), after_ms, source: None }
    }

    /// This error with what is behind it; an error that knows that already keeps it.
    #[must_use]
    pub fn because(mut self, cause: Option<Arc<Self>>) -> Self {
        if let Self::Timeout { source, .. }
        | Self::Kafka { source, .. }
        | Self::UnknownOutcome { source, .. } = &mut self
            && source.is_none()
        {
            *source = cause;
        }
        self
    }

    /// A failed file operation.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io { action, path: path.as_ref().to_path_buf(), source: Arc::new(source) }
    }

    /// A failed network operation.
    pub fn network(
        action: &'static str,
        address: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Network { action, address: address.into(), source: Arc::new(source.into()) }
    }

    /// Whether a file could not be written because the disk, or the share of it that the process may
    /// use, is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }

    /// Malformed bytes from the network.
    pub fn malformed(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Malformed { what, detail: detail.into() }
    }

    /// This error for bytes that were read from a file, which it then names.
    #[must_use]
    pub fn in_file(self, path: impl AsRef<Path>) -> Self {
        match self {
            Self::Newer { what, version, known } => {
                let what = format!("{what} in {}", path.as_ref().display());
                Self::Newer { what, version, known }
            }
            Self::Malformed { what, detail } => {
                Self::corrupt(path, 0, format!("malformed {what}: {detail}"))
            }
            other => other,
        }
    }

    /// Damaged bytes on disk.
    pub fn corrupt(path: impl AsRef<Path>, position: u64, detail: impl Into<String>) -> Self {
        Self::Corrupt { path: path.as_ref().to_path_buf(), position, detail: detail.into() }
    }

    /// An argument that is not acceptable.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::InvalidArgument(detail.into())
    }

    /// The code sent to a Kafka client.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Kafka { code, .. } | Self::RecordsRefused { code, .. } => *code,
            Self::OffsetOutOfRange { .. } | Self::DataLoss { .. } => ErrorCode::OffsetOutOfRange,
            Self::Malformed { .. } | Self::InvalidArgument(_) | Self::Row { .. } => {
                ErrorCode::InvalidRequest
            }
            Self::Corrupt { .. }
            | Self::Io { .. }
            | Self::Offline { .. }
            | Self::InUse { .. }
            | Self::Newer { .. } => ErrorCode::KafkaStorageError,
            Self::Network { .. } | Self::Closed { .. } => ErrorCode::NetworkException,
            Self::Timeout { .. } | Self::UnknownOutcome { .. } => ErrorCode::RequestTimedOut,
            Self::Decode { .. } => ErrorCode::InvalidRecord,
        }
    }

    /// Whether the same call may succeed when repeated.
    #[must_use]
    pub fn retriable(&self) -> bool {
        match self {
            Self::Closed { .. }
            | Self::Corrupt { .. }
            | Self::Newer { .. }
            | Self::UnknownOutcome { .. } => false,
            other => other.code().retriable(),
        }
    }

    /// This error and all its sources on one line, for a log or a person.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A time as people say it.
fn waited(ms: u64) -> String {
    let tenths = ms.saturating_add(50) / 100;
    match (tenths / 10, tenths % 10) {
        (0, _) => format!("{ms} ms"),
        (seconds, 0) => format!("{seconds} s"),
        (seconds, tenths) => format!("{seconds}.{tenths} s"),
    }
}

fn meaning(code: ErrorCode, is_told: bool) -> String {
    if is_told { String::new() } else { format!(": {}", code.description()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_from_its_number() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_i16(code.to_i16()), code);
        }
        assert_eq!(ErrorCode::from_i16(9999), ErrorCode::UnknownServerError);
    }

    #[test]
    fn a_wait_names_what_stood_in_the_way() {
        let kind = io::ErrorKind::ConnectionRefused;
        let refused = Arc::new(Error::network("connect to", "localhost:1", kind));
        let error = Error::timeout("listing topics", Duration::from_secs(2));
        let error = error.because(Some(refused)).because(Some(Arc::new(Error::invalid("later"))));
        assert_eq!(
            error.chain(),
            "timed out after 2 s: listing topics: could not connect to localhost:1: \
             connection refused"
        );
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        let said = [0, 250, 999, 1499, 1999, 60_000].map(waited);
        assert_eq!(said, ["0 ms", "250 ms", "1 s", "1.5 s", "2 s", "60 s"]);
    }

    #[test]
    fn a_chain_names_every_source() {
        let error = Error::io("open", "/data/x", io::Error::other("no such thing"));
        assert_eq!(error.chain(), "could not open /data/x: no such thing");
        let full = Error::io("append to", "/data/y", io::ErrorKind::StorageFull.into());
        assert_eq!(full.chain(), "the disk is full: could not append to /data/y: no storage space");
        assert!(full.is_disk_full() && !error.is_disk_full());
    }
}
