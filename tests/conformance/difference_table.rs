//! The intentional differences from Apache Kafka in what our broker answers: each one once, with the
//! conversations that show it. A difference that is not listed fails its conversation, and so does
//! a listed one that no longer exists.

use crate::differences::Difference;

/// All of them, by API.
pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        api: "ApiVersions",
        what: "APIs",
        kafka: "also those of share and streams groups, SASL, quotas, delegation tokens, telemetry, \
                the quorum",
        ottla: "those that are served, and what nodes ask each other: any node may be joined",
        places: &[("api_versions", "other APIs")],
        wire: &[(
            "[17, 36, 38, 39, 40, 41, 48, 49, 50, 51, 76, 77, 78, 79, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94]",
            "[52, 53, 54, 56, 58, 59, 62, 63, 67, 82]",
        )],
    },
    Difference {
        api: "ApiVersions",
        what: "features",
        kafka: "`metadata.version` 7 to 33, and also the features of KRaft, share groups and streams groups",
        ottla: "`metadata.version` 30, because 31 to 33 stand for ACLs and controllers that do not \
                exist here",
        places: &[("api_versions", "features")],
        wire: &[
            (
                "SupportedFeatureKey { name: \"kraft.version\", min_version: 0, max_version: 1 }, ",
                "",
            ),
            (
                "\"metadata.version\", min_version: 7, max_version: 33",
                "\"metadata.version\", min_version: 30, max_version: 30",
            ),
            (
                "\"metadata.version\", max_version_level: 33, min_version_level: 33",
                "\"metadata.version\", max_version_level: 30, min_version_level: 30",
            ),
            (
                ", SupportedFeatureKey { name: \"share.version\", min_version: 0, max_version: 2 \
                 }, SupportedFeatureKey { name: \"streams.version\", min_version: 0, max_version: \
                 1 }",
                "",
            ),
            (
                "FinalizedFeatureKey { name: \"kraft.version\", max_version_level: 1, \
                 min_version_level: 1 }, ",
                "",
            ),
            (
                ", FinalizedFeatureKey { name: \"share.version\", max_version_level: 2, \
                 min_version_level: 2 }, FinalizedFeatureKey { name: \"streams.version\", \
                 max_version_level: 1, min_version_level: 1 }",
                "",
            ),
        ],
    },
    Difference {
        api: "Produce",
        what: "the log start offset of a partition that refuses the records",
        kafka: "the actual offset",
        ottla: "-1",
        places: &[
            ("produce_idempotent", "a gap"),
            ("produce_idempotent", "a new epoch inside"),
            ("produce_idempotent", "a sequence below 0"),
            ("produce_idempotent", "a step back"),
            ("produce_idempotent", "an epoch below 0"),
            ("produce_idempotent", "an overlap"),
            ("produce_idempotent", "the new epoch again"),
            ("produce_idempotent", "the old epoch"),
            ("produce", "a codec to come"),
            ("produce", "a control batch"),
            ("produce", "another base offset"),
            ("produce", "another last offset"),
            ("produce", "fewer records counted"),
            ("produce", "more records counted"),
            ("produce", "no records counted"),
            ("produce_settings", "keys that are missing"),
            ("produce_settings", "times that are too early"),
            ("produce_settings", "times that are too late"),
        ],
        wire: &[("log_start_offset: 0", "log_start_offset: -1")],
    },
    Difference {
        api: "Produce",
        what: "the append time of a batch that is already in the log",
        kafka: "the batch's last timestamp",
        ottla: "-1",
        places: &[
            ("produce_idempotent", "the first again"),
            ("produce_idempotent", "the second again"),
            ("produce_idempotent", "the third again"),
        ],
        wire: &[("log_append_time_ms: 0", "log_append_time_ms: -1")],
    },
    Difference {
        api: "Produce",
        what: "a producer's epoch below 0",
        kafka: "INVALID_PRODUCER_EPOCH",
        ottla: "INVALID_RECORD",
        places: &[("produce_idempotent", "an epoch below 0")],
        wire: &[("error_code: 47", "error_code: 87")],
    },
    Difference {
        api: "Produce",
        what: "a truncated batch",
        kafka: "INVALID_RECORD",
        ottla: "CORRUPT_MESSAGE",
        places: &[("produce", "a batch that is cut off"), ("produce", "a header that is cut off")],
        wire: &[("error_code: 87", "error_code: 2")],
    },
    Difference {
        api: "Produce",
        what: "a batch format that does not exist",
        kafka: "CORRUPT_MESSAGE",
        ottla: "INVALID_RECORD",
        places: &[("produce", "a format to come")],
        wire: &[("error_code: 2,", "error_code: 87,")],
    },
    Difference {
        api: "Produce",
        what: "a compression codec that does not exist",
        kafka: "UNKNOWN_SERVER_ERROR",
        ottla: "CORRUPT_MESSAGE",
        places: &[("produce", "a codec to come")],
        wire: &[("error_code: -1", "error_code: 2")],
    },
    Difference {
        api: "Produce",
        what: "a topic without partitions",
        kafka: "is left out",
        ottla: "is answered",
        places: &[("produce", "no partitions")],
        wire: &[("0", "1")],
    },
    Difference {
        api: "Fetch",
        what: "a batch that no longer fits",
        kafka: "its first bytes, unless it is the first",
        ottla: "whole batches only",
        places: &[
            ("fetch", "100 bytes"),
            ("fetch", "250 bytes"),
            ("fetch", "150 bytes of each partition"),
        ],
        wire: &[
            ("[8 bytes of a batch]", ""),
            ("[58 bytes of a batch]", ""),
            ("[66 bytes of a batch]", ""),
        ],
    },
    Difference {
        api: "Fetch",
        what: "aborted transactions, read committed",
        kafka: "also those that begin behind what is returned, up to the next entry of the index",
        ottla: "those that have records in what is returned",
        places: &[("transactions_fetch", "one batch from the start, committed")],
        wire: &[(
            "aborted Some([AbortedTransaction { producer_id: 0, first_offset: 2 }])",
            "aborted Some([])",
        )],
    },
    Difference {
        api: "Fetch",
        what: "a negative byte limit",
        kafka: "UNKNOWN_SERVER_ERROR",
        ottla: "treated as 0",
        places: &[
            ("fetch", "fewer than no bytes"),
            ("fetch", "fewer than no bytes of each partition"),
        ],
        wire: &[("(0, -1)", "(0, 0)"), ("(1, -1)", "(1, 0)")],
    },
    Difference {
        api: "Fetch",
        what: "an isolation level that does not exist",
        kafka: "UNKNOWN_SERVER_ERROR",
        ottla: "as read committed",
        places: &[("fetch", "isolation level 2")],
        wire: &[
            ("(-1, [])", "(0, [(0, 0)])"),
            ("(-1, [(0, -1)])", "(0, [(0, 0)])"),
            ("(0, [(0, -1)])", "(0, [(0, 0)])"),
        ],
    },
    Difference {
        api: "Fetch",
        what: "a leader epoch below -1",
        kafka: "treated as none",
        ottla: "FENCED_LEADER_EPOCH",
        places: &[("fetch", "leader epoch -2")],
        wire: &[("(0, 0)", "(0, 74)")],
    },
    Difference {
        api: "ListOffsets",
        what: "a partition that is listed twice",
        kafka: "INVALID_REQUEST, once",
        ottla: "INVALID_REQUEST, each time",
        places: &[
            ("list_offsets", "the same partition twice"),
            ("list_offsets", "the same partition thrice, and another"),
        ],
        wire: &[(
            "partitions: [ListOffsetsPartitionResponse { partition_index: 0, error_code: 42, \
             timestamp: -1, offset: -1, leader_epoch: -1 }",
            "partitions: [ListOffsetsPartitionResponse { partition_index: 0, error_code: 42, \
             timestamp: -1, offset: -1, leader_epoch: -1 }, ListOffsetsPartitionResponse { \
             partition_index: 0, error_code: 42, timestamp: -1, offset: -1, leader_epoch: -1 }",
        )],
    },
    Difference {
        api: "ListOffsets",
        what: "a topic without partitions",
        kafka: "is left out",
        ottla: "is answered",
        places: &[("list_offsets", "no partitions")],
        wire: &[(
            "topics: []",
            "topics: [ListOffsetsTopicResponse { name: \"~-topic\", partitions: [] }]",
        )],
    },
    Difference {
        api: "ListOffsets",
        what: "an isolation level that does not exist",
        kafka: "UNKNOWN_SERVER_ERROR",
        ottla: "as read committed",
        places: &[("list_offsets", "isolation level 2")],
        wire: &[("-1", "0")],
    },
    Difference {
        api: "OffsetForLeaderEpoch",
        what: "an epoch below -1",
        kafka: "that epoch, and the start of the log",
        ottla: "no epoch",
        places: &[
            ("offset_for_leader_epoch", "an epoch below -1, as -1"),
            ("offset_for_leader_epoch", "an epoch below -1, as -2"),
            ("offset_for_leader_epoch", "an epoch below -1, as 5"),
        ],
        wire: &[("leader_epoch: -2, end_offset: 0", "leader_epoch: -1, end_offset: -1")],
    },
    Difference {
        api: "Metadata",
        what: "a topic that the request creates",
        kafka: "UNKNOWN_TOPIC_OR_PARTITION, until the client asks again",
        ottla: "the topic",
        places: &[("metadata", "a topic that is made")],
        wire: &[("(Some(\"<absent>\"), 3, 0)", "(Some(\"<absent>\"), 0, 1)")],
    },
    Difference {
        api: "Metadata",
        what: "a topic with neither a name nor an id",
        kafka: "UNKNOWN_SERVER_ERROR for the whole request",
        ottla: "no topic",
        places: &[("metadata", "by neither")],
        wire: &[
            (
                "brokers: [], cluster_id: None, controller_id: -1, topics: [MetadataResponseTopic \
                 { error_code: -1, name: Some(\"\"), topic_id: AAAAAAAAAAAAAAAAAAAAAA, \
                 is_internal: false, partitions: [], topic_authorized_operations: -2147483648 }]",
                "brokers: [MetadataResponseBroker { node_id: 1, host: \"127.0.0.1\", port: <port>, \
                 rack: None }], cluster_id: Some(\"<cluster>\"), controller_id: 1, topics: []",
            ),
            ("error_code: -1 }", "error_code: 0 }"),
        ],
    },
    Difference {
        api: "CreateTopics",
        what: "a negative timeout",
        kafka: "REQUEST_TIMED_OUT",
        ottla: "the outcome",
        places: &[("create_topics", "again, with a negative timeout")],
        wire: &[("error_code: 7,", "error_code: 36,")],
    },
    Difference {
        api: "CreateTopics",
        what: "the settings of a new topic",
        kafka: "those of Kafka",
        ottla: "`durability` is included",
        places: &[("create_topics", "plain: durability")],
        wire: &[(
            "",
            "CreatableTopicConfigs { name: \"durability\", value: Some(\"auto\"), read_only: \
             false, config_source: 5, is_sensitive: false }",
        )],
    },
    Difference {
        api: "CreateTopics",
        what: "the settings of a new topic about the tier",
        kafka: "those of Kafka",
        ottla: "`ottla.tier.table` is included",
        places: &[("create_topics", "plain: ottla.tier.table")],
        wire: &[(
            "",
            "CreatableTopicConfigs { name: \"ottla.tier.table\", value: Some(\"none\"), \
             read_only: false, config_source: 5, is_sensitive: false }",
        )],
    },
    Difference {
        api: "CreateTopics",
        what: "the settings of a new topic about the values in its tier",
        kafka: "those of Kafka",
        ottla: "`ottla.tier.value.schema` is included",
        places: &[("create_topics", "plain: ottla.tier.value.schema")],
        wire: &[(
            "",
            "CreatableTopicConfigs { name: \"ottla.tier.value.schema\", value: Some(\"\"), \
             read_only: false, config_source: 5, is_sensitive: false }",
        )],
    },
    Difference {
        api: "CreateTopics",
        what: "a setting that is given twice",
        kafka: "the last one counts",
        ottla: "INVALID_REQUEST",
        places: &[("create_topics", "a setting twice")],
        wire: &[
            (
                "topic_id: <new id>, error_code: 0, error_message: None",
                "topic_id: AAAAAAAAAAAAAAAAAAAAAA, error_code: 42",
            ),
            ("error_code: 0, error_message: None", "error_code: 42"),
            (
                "num_partitions: 1, replication_factor: 1, configs: Some([CreatableTopicConfigs { \
                 name: \"retention.ms\", value: Some(\"2\"), read_only: false, config_source: 1, \
                 is_sensitive: false }])",
                "num_partitions: -1, replication_factor: -1, configs: Some([])",
            ),
        ],
    },
    Difference {
        api: "CreateTopics",
        what: "spaces around a value",
        kafka: "kept",
        ottla: "trimmed",
        places: &[("create_topics", "spaces around a number")],
        wire: &[("Some(\" 1 \")", "Some(\"1\")")],
    },
    Difference {
        api: "CreateTopics",
        what: "the id of a topic that is only validated",
        kafka: "an id that no topic ever gets",
        ottla: "none",
        places: &[("create_topics", "validated"), ("create_topics", "validated again")],
        wire: &[("<new id>", "AAAAAAAAAAAAAAAAAAAAAA")],
    },
    Difference {
        api: "DeleteTopics",
        what: "a topic by name and again by id",
        kafka: "INVALID_REQUEST, once",
        ottla: "INVALID_REQUEST, for both",
        places: &[("delete_topics", "by name, and by id")],
        wire: &[(
            "DeletableTopicResult { name: Some(\"~-by-id-d\"), topic_id: <by-id-d>, error_code: \
             42 }",
            "DeletableTopicResult { name: None, topic_id: <by-id-d>, error_code: 42 }, \
             DeletableTopicResult { name: Some(\"~-by-id-d\"), topic_id: AAAAAAAAAAAAAAAAAAAAAA, \
             error_code: 42 }",
        )],
    },
    Difference {
        api: "AlterConfigs, IncrementalAlterConfigs",
        what: "a setting without a value",
        kafka: "INVALID_REQUEST",
        ottla: "INVALID_CONFIG",
        places: &[
            ("incremental_alter_configs", "without a value"),
            ("incremental_alter_configs", "without a value, validated"),
            ("incremental_alter_configs", "appended without a value"),
            ("incremental_alter_configs", "appended without a value, validated"),
            ("alter_configs", "without a value"),
            ("alter_configs", "without a value, validated"),
        ],
        wire: &[("error_code: 42", "error_code: 40")],
    },
    Difference {
        api: "AlterConfigs, IncrementalAlterConfigs",
        what: "a topic without a name",
        kafka: "INVALID_REQUEST",
        ottla: "UNKNOWN_TOPIC_OR_PARTITION",
        places: &[
            ("incremental_alter_configs", "no topic"),
            ("incremental_alter_configs", "no topic, validated"),
            ("alter_configs", "no topic"),
            ("alter_configs", "no topic, validated"),
        ],
        wire: &[("error_code: 42", "error_code: 3")],
    },
    Difference {
        api: "AlterConfigs, IncrementalAlterConfigs",
        what: "a broker that does not exist",
        kafka: "INVALID_REQUEST",
        ottla: "BROKER_ID_NOT_REGISTERED",
        places: &[
            ("incremental_alter_configs", "an unknown broker"),
            ("incremental_alter_configs", "an unknown broker, validated"),
            ("alter_configs", "a broker"),
            ("alter_configs", "a broker, validated"),
        ],
        wire: &[("error_code: 42", "error_code: 102")],
    },
    Difference {
        api: "IncrementalAlterConfigs",
        what: "the same setting twice",
        kafka: "INVALID_REQUEST",
        ottla: "INVALID_CONFIG",
        places: &[
            ("incremental_alter_configs", "one setting twice"),
            ("incremental_alter_configs", "one setting twice, validated"),
        ],
        wire: &[("error_code: 42", "error_code: 40")],
    },
    Difference {
        api: "IncrementalAlterConfigs",
        what: "a broker setting that is not a number, or that needs a restart",
        kafka: "INVALID_REQUEST",
        ottla: "INVALID_CONFIG",
        places: &[
            ("incremental_alter_configs", "a number for the broker"),
            ("incremental_alter_configs", "a number for the broker, validated"),
            ("incremental_alter_configs", "a number for all brokers"),
            ("incremental_alter_configs", "a number for all brokers, validated"),
            ("incremental_alter_configs", "what needs a restart"),
            ("incremental_alter_configs", "what needs a restart, validated"),
        ],
        wire: &[("error_code: 42", "error_code: 40")],
    },
    Difference {
        api: "IncrementalAlterConfigs",
        what: "a name that no topic can have",
        kafka: "INVALID_TOPIC_EXCEPTION",
        ottla: "UNKNOWN_TOPIC_OR_PARTITION",
        places: &[
            ("incremental_alter_configs", "an illegal topic"),
            ("incremental_alter_configs", "an illegal topic, validated"),
        ],
        wire: &[("error_code: 17", "error_code: 3")],
    },
    Difference {
        api: "IncrementalAlterConfigs",
        what: "an operation that does not exist",
        kafka: "UNKNOWN_SERVER_ERROR",
        ottla: "INVALID_REQUEST",
        places: &[
            ("incremental_alter_configs", "an operation to come"),
            ("incremental_alter_configs", "an operation to come, validated"),
        ],
        wire: &[("error_code: -1", "error_code: 42")],
    },
    Difference {
        api: "IncrementalAlterConfigs",
        what: "deleting an unknown setting",
        kafka: "accepted, without effect",
        ottla: "INVALID_CONFIG",
        places: &[
            ("incremental_alter_configs", "an unknown setting deleted"),
            ("incremental_alter_configs", "an unknown setting deleted, validated"),
        ],
        wire: &[("error_code: 0, error_message: None", "error_code: 40")],
    },
    Difference {
        api: "IncrementalAlterConfigs",
        what: "appending nothing to a list",
        kafka: "INVALID_CONFIG",
        ottla: "accepted, without effect",
        places: &[("incremental_alter_configs", "nothing appended")],
        wire: &[("error_code: 40", "error_code: 0, error_message: None")],
    },
    Difference {
        api: "IncrementalAlterConfigs",
        what: "logger levels",
        kafka: "INVALID_CONFIG for an unknown logger or level",
        ottla: "INVALID_REQUEST: loggers have no settings",
        places: &[
            ("incremental_alter_configs", "an unknown logger"),
            ("incremental_alter_configs", "an unknown logger, validated"),
            ("incremental_alter_configs", "an unknown level"),
            ("incremental_alter_configs", "an unknown level, validated"),
        ],
        wire: &[("error_code: 40", "error_code: 42")],
    },
    Difference {
        api: "DescribeTopicPartitions",
        what: "an empty name",
        kafka: "UNKNOWN_SERVER_ERROR for the whole request",
        ottla: "INVALID_TOPIC_EXCEPTION for the topic",
        places: &[("describe_topic_partitions", "the name \"\"")],
        wire: &[
            ("error_code: -1", "error_code: 17"),
            ("topic_authorized_operations: -2147483648", "topic_authorized_operations: 3576"),
        ],
    },
];
