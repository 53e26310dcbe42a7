use super::*;

fn map(pairs: &[(&str, &str)]) -> ConfigMap {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn change(name: &str, op: AlterOp, value: &str) -> ConfigChange {
    ConfigChange { name: name.to_owned(), op, value: Some(value.to_owned()) }
}

#[track_caller]
fn check_refused(scope: Scope, name: &str, value: &str, part: &str) {
    let error = validate(scope, name, value).unwrap_err();
    assert!(error.message.contains(part), "{}", error.message);
}

#[test]
fn every_table_is_in_order_documented_and_has_valid_defaults() {
    for scope in [Scope::Topic, Scope::Broker, Scope::Group] {
        for pair in definitions(scope).windows(2) {
            assert!(pair[0].name < pair[1].name, "{} {}", pair[0].name, pair[1].name);
        }
        for definition in definitions(scope) {
            assert_eq!(definition.scope, scope);
            assert!(definition.documentation.ends_with('.'), "{}", definition.name);
            if let Some(default) = definition.default {
                definition.validate(default).unwrap();
            }
            for synonym in definition.synonyms {
                super::definition(Scope::Broker, synonym.name).unwrap();
            }
        }
    }
}

#[test]
fn a_topic_default_and_its_broker_synonym_agree() {
    let described = describe_topic(&ConfigMap::new(), &BrokerConfig::default());
    for entry in described {
        let definition = definition(Scope::Topic, entry.name).unwrap();
        assert_eq!(entry.value.as_deref(), definition.default, "{}", entry.name);
        assert_eq!(entry.source, ConfigSource::Default);
        assert!(!entry.read_only);
    }
}

#[test]
fn the_topic_settings_are_those_of_kafka_and_durability() {
    let names: Vec<&str> = definitions(Scope::Topic).iter().map(|one| one.name).collect();
    assert_eq!(names.len(), 34);
    assert!(names.contains(&"durability"));
}

#[test]
fn bad_values_are_refused_with_what_is_accepted() {
    check_refused(Scope::Topic, "retention.ms", "-5", "must be at least -1");
    check_refused(Scope::Topic, "retention.ms", "soon", "LONG");
    check_refused(Scope::Topic, "segment.bytes", "3000000000", "INT");
    check_refused(Scope::Topic, "compression.type", "zip", "must be one of uncompressed");
    check_refused(Scope::Topic, "preallocate", "yes", "true or false");
    check_refused(Scope::Topic, "cleanup.policy", "shred", "is not one of compact, delete");
    check_refused(Scope::Broker, "log.dirs", "/a,/b", "2 directories");
    check_refused(Scope::Broker, "listeners", "localhost:9092", "NAME://host:port");
    check_refused(Scope::Broker, "listeners", "SSL://localhost:9092", "needs security");
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest() {
    check_refused(Scope::Topic, "retention.mss", "1", "did you mean retention.ms?");
    check_refused(Scope::Topic, "retention_ms", "1", "did you mean retention.ms?");
    check_refused(Scope::Broker, "num.partition", "1", "did you mean num.partitions?");
    let error = validate(Scope::Topic, "colour", "red").unwrap_err();
    assert_eq!(error.message, "unknown topic config name: colour");
}

#[test]
fn a_setting_of_a_feature_that_is_not_there_accepts_its_default_alone() {
    validate(Scope::Topic, "remote.storage.enable", "false").unwrap();
    check_refused(Scope::Topic, "remote.storage.enable", "true", "needs tiered storage");
    check_refused(Scope::Topic, "local.retention.ms", "5", "accepted: \"-2\"");
}

#[test]
fn the_strongest_source_wins_and_the_chain_shows_all() {
    let fixed = map(&[("log.retention.hours", "2"), ("message.max.bytes", "500000")]);
    let broker = BrokerConfig::resolve(&fixed).unwrap();
    assert_eq!(TopicConfig::resolve(&ConfigMap::new(), &broker).unwrap().retention_ms, 7_200_000);

    let broker = broker
        .with_dynamic(&map(&[("log.retention.ms", "9")]), &map(&[("message.max.bytes", "7")]))
        .unwrap();
    let topic = map(&[("retention.ms", "5")]);
    assert_eq!(TopicConfig::resolve(&topic, &broker).unwrap().retention_ms, 5);
    let resolved = TopicConfig::resolve(&ConfigMap::new(), &broker).unwrap();
    assert_eq!((resolved.retention_ms, resolved.max_message_bytes), (9, 7));

    let described = describe_topic(&topic, &broker);
    let entry = described.iter().find(|entry| entry.name == "retention.ms").unwrap();
    assert_eq!((entry.value.as_deref(), entry.source), (Some("5"), ConfigSource::Topic));
    let chain: Vec<(&str, &str, i8)> = entry
        .synonyms
        .iter()
        .map(|one| (one.name, one.value.as_deref().unwrap(), one.source.to_i8()))
        .collect();
    assert_eq!(
        chain,
        [
            ("retention.ms", "5", 1),
            ("log.retention.ms", "9", 3),
            ("log.retention.hours", "2", 4),
            ("log.retention.hours", "168", 5)
        ]
    );
}

#[test]
fn a_negative_retention_in_hours_is_no_limit() {
    let broker = BrokerConfig::resolve(&map(&[("log.retention.hours", "-1")])).unwrap();
    assert_eq!(TopicConfig::resolve(&ConfigMap::new(), &broker).unwrap().retention_ms, -1);
}

#[test]
fn a_broker_is_described_with_what_cannot_change() {
    let broker = BrokerConfig::resolve(&map(&[("num.partitions", "3")])).unwrap();
    let described = describe_broker(&broker);
    let entry = described.iter().find(|entry| entry.name == "num.partitions").unwrap();
    assert_eq!((entry.value.as_deref(), entry.source), (Some("3"), ConfigSource::StaticBroker));
    assert!(entry.read_only);
    let entry = described.iter().find(|entry| entry.name == "broker.rack").unwrap();
    assert_eq!(entry.value, None);
    let entry = described.iter().find(|entry| entry.name == "log.segment.bytes").unwrap();
    assert!(!entry.read_only);
}

#[test]
fn lists_are_appended_to_and_subtracted_from() {
    let inherited = |definition: &Definition| definition.default.map(str::to_owned);
    let apply = |current: &[(&str, &str)], one: ConfigChange| {
        apply_changes(Scope::Topic, &map(current), &[one], inherited)
    };
    let appended = apply(&[], change("cleanup.policy", AlterOp::Append, "delete")).unwrap();
    assert_eq!(appended, map(&[("cleanup.policy", "delete")]));
    let appended = apply(&[], change("cleanup.policy", AlterOp::Append, "compact")).unwrap();
    assert_eq!(appended, map(&[("cleanup.policy", "delete,compact")]));
    let subtracted = apply(&[], change("cleanup.policy", AlterOp::Subtract, "delete")).unwrap();
    assert_eq!(subtracted, map(&[("cleanup.policy", "")]));
    let error = apply(&[], change("retention.ms", AlterOp::Append, "5")).unwrap_err();
    assert!(error.message.contains("not a list"), "{error}");
    let stored = &[("retention.ms", "5")];
    let gone = apply(stored, change("retention.ms", AlterOp::Delete, "")).unwrap();
    assert_eq!(gone, ConfigMap::new());
    let set = apply(stored, change("retention.ms", AlterOp::Set, " 6 ")).unwrap();
    assert_eq!(set, map(&[("retention.ms", "6")]));
}

#[test]
fn a_setting_that_needs_a_restart_cannot_be_altered() {
    let one = [change("num.partitions", AlterOp::Set, "3")];
    let error = apply_changes(Scope::Broker, &ConfigMap::new(), &one, |_| None).unwrap_err();
    assert!(error.message.contains("restart"), "{error}");
}

#[test]
fn a_properties_file_is_read_as_java_reads_it() {
    let text =
        "# a comment\nnode.id = 7\nlisteners:PLAINTEXT://h\\:1\nbroker.rack=M\u{fc}\\\n  nchen\n";
    let settings = parse_properties(text).unwrap();
    assert_eq!(
        settings,
        map(&[("node.id", "7"), ("listeners", "PLAINTEXT://h:1"), ("broker.rack", "M\u{fc}nchen")])
    );
    assert_eq!(BrokerConfig::resolve(&settings).unwrap().node_id, 7);
}

#[test]
fn listeners_are_read_and_written() {
    let text = "PLAINTEXT://localhost:9092,PLAINTEXT://[::1]:0,PLAINTEXT://:9094";
    let listeners = parse_listeners("listeners", text).unwrap();
    assert_eq!(listeners[1].host.as_deref(), Some("::1"));
    assert_eq!(listeners[2].host, None);
    let written: Vec<String> = listeners.iter().map(ToString::to_string).collect();
    assert_eq!(written.join(","), text);
}
