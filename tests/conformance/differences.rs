//! Where our broker answers otherwise than Apache Kafka, on purpose: each difference once, with the
//! conversations that show it. A difference that is not listed fails its conversation, and so does one
//! that is listed and gone.
//!
//! `OTTLA_UPDATE=1` writes them into `src/manual/compatibility.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// One difference.
pub(crate) struct Difference {
    /// The API, or several.
    pub(crate) api: &'static str,
    /// When it shows.
    pub(crate) what: &'static str,
    /// What Apache Kafka does, in words.
    pub(crate) kafka: &'static str,
    /// What our broker does, in words.
    pub(crate) ottla: &'static str,
    /// The conversations and labels that show it.
    pub(crate) places: &'static [(&'static str, &'static str)],
    /// What to replace in what is recorded to have what we answer.
    pub(crate) wire: &'static [(&'static str, &'static str)],
}

/// All of them, by API.
pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        api: "ApiVersions",
        what: "APIs",
        kafka: "also those of transactions, share groups, SASL, quotas, delegation tokens, \
                telemetry, reassignment, the quorum",
        ottla: "those that are served",
        places: &[("api_versions", "other APIs")],
        wire: &[(
            "[17, 24, 25, 26, 27, 28, 34, 36, 38, 39, 40, 41, 43, 45, 48, 49, 50, 51, 57, 64, 65, \
             66, 76, 77, 78, 79, 80, 81, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92]",
            "[]",
        )],
    },
    Difference {
        api: "ApiVersions",
        what: "features",
        kafka: "`metadata.version` 7 to 30, and features of ELR, KRaft, share groups, streams \
                groups and transactions",
        ottla: "`metadata.version` 30 and `group.version`",
        places: &[("api_versions", "features")],
        wire: &[
            (
                "SupportedFeatureKey { name: \"eligible.leader.replicas.version\", min_version: 0, \
                 max_version: 1 }, ",
                "",
            ),
            (
                "SupportedFeatureKey { name: \"kraft.version\", min_version: 0, max_version: 1 }, ",
                "",
            ),
            ("\"metadata.version\", min_version: 7", "\"metadata.version\", min_version: 30"),
            (
                ", SupportedFeatureKey { name: \"share.version\", min_version: 0, max_version: 1 }, \
                 SupportedFeatureKey { name: \"streams.version\", min_version: 0, max_version: 1 }, \
                 SupportedFeatureKey { name: \"transaction.version\", min_version: 0, \
                 max_version: 2 }",
                "",
            ),
            (
                "FinalizedFeatureKey { name: \"eligible.leader.replicas.version\", \
                 max_version_level: 1, min_version_level: 1 }, ",
                "",
            ),
            (
                ", FinalizedFeatureKey { name: \"share.version\", max_version_level: 1, \
                 min_version_level: 1 }, FinalizedFeatureKey { name: \"streams.version\", \
                 max_version_level: 1, min_version_level: 1 }, FinalizedFeatureKey { name: \
                 \"transaction.version\", max_version_level: 2, min_version_level: 2 }",
                "",
            ),
        ],
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
                "brokers: [], cluster_id: None, controller_id: -1, topics: [MetadataResponseTopic { \
                 error_code: -1, name: Some(\"\"), topic_id: AAAAAAAAAAAAAAAAAAAAAA, is_internal: \
                 false, partitions: [], topic_authorized_operations: -2147483648 }]",
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
        kafka: "`min.insync.replicas` is a dynamic default of the cluster",
        ottla: "`min.insync.replicas` is the default; there is `durability`",
        places: &[
            ("create_topics", "plain: min.insync.replicas"),
            ("create_topics", "plain: durability"),
        ],
        wire: &[
            ("config_source: 3", "config_source: 5"),
            (
                "",
                "CreatableTopicConfigs { name: \"durability\", value: Some(\"auto\"), read_only: \
                 false, config_source: 5, is_sensitive: false }",
            ),
        ],
    },
    Difference {
        api: "CreateTopics",
        what: "a setting that is given twice",
        kafka: "the last counts",
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
        what: "a setting of the tier, which is not there yet",
        kafka: "taken, without an effect",
        ottla: "INVALID_CONFIG",
        places: &[("create_topics", "local above total retention")],
        wire: &[
            (
                "topic_id: <new id>, error_code: 0, error_message: None",
                "topic_id: AAAAAAAAAAAAAAAAAAAAAA, error_code: 40",
            ),
            ("error_code: 0, error_message: None", "error_code: 40"),
            (
                "num_partitions: 1, replication_factor: 1, configs: Some([CreatableTopicConfigs { \
                 name: \"local.retention.ms\", value: Some(\"999999999999\"), read_only: false, \
                 config_source: 1, is_sensitive: false }])",
                "num_partitions: -1, replication_factor: -1, configs: Some([])",
            ),
        ],
    },
    Difference {
        api: "CreateTopics",
        what: "spaces around a value",
        kafka: "kept",
        ottla: "dropped",
        places: &[("create_topics", "spaces around a number")],
        wire: &[("Some(\" 1 \")", "Some(\"1\")")],
    },
    Difference {
        api: "CreateTopics",
        what: "the id of a topic that is only validated",
        kafka: "an id that no topic gets",
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
            "DeletableTopicResult { name: Some(\"~-by-id-d\"), topic_id: <by-id-d>, error_code: 42 }",
            "DeletableTopicResult { name: None, topic_id: <by-id-d>, error_code: 42 }, \
             DeletableTopicResult { name: Some(\"~-by-id-d\"), topic_id: AAAAAAAAAAAAAAAAAAAAAA, \
             error_code: 42 }",
        )],
    },
    Difference {
        api: "CreatePartitions",
        what: "more partitions than one request may create",
        kafka: "UNKNOWN_SERVER_ERROR",
        ottla: "POLICY_VIOLATION",
        places: &[("create_partitions", "too many")],
        wire: &[("error_code: -1", "error_code: 44")],
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

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The table of `src/manual/compatibility.md` is made from the one above.
#[test]
fn the_compatibility_page_lists_the_differences() {
    const BEGIN: &str = "<!-- differences: begin -->\n";
    const END: &str = "<!-- differences: end -->";
    let path = root().join("src/manual/compatibility.md");
    let page = fs::read_to_string(&path).unwrap();
    let mut table = String::from("| API | what | Apache Kafka 4.3 | ottla |\n|---|---|---|---|\n");
    for Difference { api, what, kafka, ottla, .. } in DIFFERENCES {
        writeln!(table, "| {api} | {what} | {kafka} | {ottla} |").unwrap();
    }
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("OTTLA_UPDATE").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let current = fs::read_to_string(&path).unwrap();
    assert!(current == wanted, "run: OTTLA_UPDATE=1 cargo test --test conformance differences");
}

/// The recorded conversations: name and text.
fn recorded() -> BTreeMap<String, String> {
    let files = fs::read_dir(root().join("tests/conformance/recorded")).unwrap();
    let paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_recorded_conversation_is_held() {
    let sources: String = fs::read_dir(root().join("tests/conformance"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let conversations = recorded();
    for name in conversations.keys() {
        assert!(sources.contains(&format!("converse(\"{name}\"")), "nobody holds {name}");
    }
    for difference in DIFFERENCES {
        for (conversation, _) in difference.places {
            assert!(conversations.contains_key(*conversation), "no conversation {conversation}");
        }
    }
}
