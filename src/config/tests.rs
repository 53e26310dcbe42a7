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
fn the_topic_settings_are_those_of_kafka_and_three_of_ours() {
    let names: Vec<&str> = definitions(Scope::Topic).iter().map(|one| one.name).collect();
    assert_eq!(names.len(), 41);
    assert!(names.contains(&"durability") && names.contains(&"ottla.tier.table"));
    assert!(names.contains(&"ottla.tier.value.schema"));
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
    let (name, value) = ("security.inter.broker.protocol", "SSL");
    validate(Scope::Broker, name, "PLAINTEXT").unwrap();
    check_refused(Scope::Broker, name, value, "needs security");
    check_refused(Scope::Broker, name, value, "accepted: \"PLAINTEXT\"");
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
    let listeners = listeners::parse_listeners("listeners", text).unwrap();
    assert_eq!(listeners[1].host.as_deref(), Some("::1"));
    assert_eq!(listeners[2].host, None);
    let written: Vec<String> = listeners.iter().map(ToString::to_string).collect();
    assert_eq!(written.join(","), text);
}

/// One setting of Apache Kafka, as its own definitions have it.
struct OfKafka {
    scope: Scope,
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    mode: &'static str,
}

fn settings_of_kafka() -> impl Iterator<Item = OfKafka> {
    let lines = include_str!("kafka-4.4.0-settings.txt").lines();
    lines.filter(|line| !line.starts_with('#')).map(|line| {
        let [scope, name, kind, default, mode] =
            line.split('|').collect::<Vec<_>>().try_into().unwrap();
        let scope = match scope {
            "topic" => Scope::Topic,
            "group" => Scope::Group,
            _ => Scope::Broker,
        };
        OfKafka { scope, name, kind, default, mode }
    })
}

/// Defaults that differ, each for the reason that its table gives.
const OTHER_DEFAULTS: &[&str] = &[
    "broker.heartbeat.interval.ms",
    "broker.session.timeout.ms",
    "listener.security.protocol.map",
    "listeners",
    "log.dir",
    "node.id",
    "process.roles",
    "queued.max.request.bytes",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
];

/// Settings that Kafka changes at run time and that need a restart here.
const NEED_A_RESTART: &[&str] =
    &["listener.security.protocol.map", "listeners", "max.connections", "max.connections.per.ip"];

#[test]
fn every_setting_of_kafka_is_known_with_its_type_default_and_mode() {
    let (mut defaults, mut modes, mut count) = (Vec::new(), Vec::new(), 0);
    for OfKafka { scope, name, kind, default, mode } in settings_of_kafka() {
        count += 1;
        let known = definition(scope, name).unwrap();
        assert_eq!(known.kind.to_string(), kind, "{name}");
        assert_eq!(known.sensitive, kind == "PASSWORD", "{name}");
        if known.default.unwrap_or_default() != default.trim_start_matches("(empty)")
            && default != "null"
            || default == "null" && known.default.is_some()
        {
            defaults.push(name);
        }
        let ours = match known.update {
            UpdateMode::ReadOnly => "read-only",
            UpdateMode::PerBroker => "per-broker",
            UpdateMode::ClusterWide => "cluster-wide",
        };
        if mode != "-" && mode != ours {
            modes.push(name);
        }
    }
    assert_eq!(count, 444);
    assert_eq!(defaults, OTHER_DEFAULTS);
    assert_eq!(modes, NEED_A_RESTART);
}

/// What would make records safer or clients less trusted is refused, not accepted without an effect.
#[test]
fn what_asks_for_safety_is_refused_with_its_reason() {
    for (name, value, part) in [
        ("alter.config.policy.class.name", "org.example.Policy", "a Java virtual machine"),
        ("authorizer.class.name", "org.example.Authorizer", "needs security"),
        ("client.quota.callback.class", "org.example.Quotas", "needs quotas"),
        ("config.providers", "file", "needs providers"),
        ("cordoned.log.dirs", "/data", "several log directories"),
        ("create.topic.policy.class.name", "org.example.Policy", "a Java virtual machine"),
        ("group.coordinator.rebalance.protocols", "classic", "cannot be turned off"),
        ("listener.name.inside.max.connections", "5", "cannot be set for one"),
        ("listeners", "SASL_SSL://:9092", "needs security"),
        ("log.dirs", "/a,/b", "2 directories"),
        ("max.connection.creation.rate", "5", "connection rate limits"),
        ("max.connections.per.ip.overrides", "localhost:5", "individual addresses"),
        ("principal.builder.class", "org.example.Builder", "needs security"),
        ("process.roles", "broker", "a cluster of several nodes"),
        ("security.inter.broker.protocol", "SSL", "needs security"),
    ] {
        check_refused(Scope::Broker, name, value, part);
    }
    for (settings, part) in [
        (
            &[("listeners", "A://:9092"), ("listener.security.protocol.map", "A:SSL")][..],
            "security",
        ),
        (&[("listeners", "A://:9092")], "add A:PLAINTEXT"),
        (&[("node.id", "1"), ("broker.id", "2")], "two names for the same setting"),
        (
            &[("node.id", "3"), ("controller.quorum.voters", "1@a:9093,2@b:9093")],
            "does not name this node (node.id=3)",
        ),
        (&[("controller.quorum.bootstrap.servers", "a")], "\"a\" does not have the form host:port"),
        (
            &[
                ("controller.quorum.voters", "1@localhost:9092"),
                ("controller.quorum.bootstrap.servers", "b:9092"),
            ],
            "give one of the two",
        ),
        (
            &[("controller.quorum.voters", "1@a:9093,2@b:9093")],
            "1@a:9093 for this node, but none of its listeners has the port 9093; theirs: 9092",
        ),
        (&[("controller.quorum.voters", "1@a:9092,1@b:9092")], "node 1 is there twice"),
        (&[("controller.quorum.voters", "1@a:9092,2@A:9092")], "have the same address"),
        (&[("controller.quorum.voters", "1@a:0")], "a port from 1 to 65535"),
        (&[("controller.quorum.voters", "1@a:65536")], "a port from 1 to 65535"),
        (&[("controller.quorum.voters", "a:9092")], "id@host:port"),
        (&[("controller.quorum.voters", "-1@a:9092")], "id@host:port"),
        (&[("controller.quorum.voters", "1@:9092")], "id@host:port"),
        (&[("controller.quorum.voters", "1@::1:9092")], "id@host:port"),
        (&[("log.dirs", "/a"), ("metadata.log.dir", "/b")], "must be the directory of log.dirs"),
        (&[("advertised.listeners", "B://h:9092")], "not in listeners"),
        (&[("advertised.listeners", "PLAINTEXT://:9092")], "every interface"),
        (&[("advertised.listeners", "PLAINTEXT://0.0.0.0:9092")], "every interface"),
        (&[("advertised.listeners", "PLAINTEXT://[::]:9092")], "every interface"),
        (&[("inter.broker.listener.name", "B")], "not in listeners"),
        (&[("controller.listener.names", "PLAINTEXT")], "none for clients"),
    ] {
        let error = BrokerConfig::resolve(&map(settings)).unwrap_err();
        assert!(error.message.contains(part), "{}", error.message);
    }
}

#[test]
fn what_has_no_effect_is_accepted_checked_and_named() {
    let given = [
        ("transaction.state.log.load.buffer.size", "4"),
        ("sasl.kerberos.min.time.before.relogin", "5"),
        ("listener.name.outside.ssl.keystore.location", "/key"),
        ("listener.name.outside.scram-sha-256.sasl.jaas.config", "secret"),
        ("rsm.config.bucket.name", "b"),
        // The default, and one that has its effect.
        ("num.io.threads", "8"),
        ("num.partitions", "3"),
    ];
    let broker = BrokerConfig::resolve(&map(&given)).unwrap();
    assert_eq!(
        broker.without_effect(),
        [
            "listener.name.outside.scram-sha-256.sasl.jaas.config",
            "listener.name.outside.ssl.keystore.location",
            "rsm.config.bucket.name",
            "sasl.kerberos.min.time.before.relogin",
            "transaction.state.log.load.buffer.size",
        ]
    );
    check_refused(Scope::Broker, "transaction.state.log.load.buffer.size", "0", "at least 1");
    check_refused(Scope::Broker, "ssl.client.auth", "maybe", "must be one of");
    let described = describe_broker(&broker);
    let entry = |name: &str| described.iter().find(|entry| entry.name == name).unwrap();
    let entry = entry("transaction.state.log.load.buffer.size");
    assert_eq!((entry.value.as_deref(), entry.source), (Some("4"), ConfigSource::StaticBroker));
    assert!(entry.documentation.ends_with("without effect in this version of ottla."));
    let secret = BrokerConfig::resolve(&map(&[("ssl.key.password", "secret")])).unwrap();
    let entry = describe_broker(&secret).into_iter().find(|one| one.name == "ssl.key.password");
    let entry = entry.unwrap();
    assert_eq!((entry.value, entry.sensitive), (None, true));
    assert!(entry.synonyms.iter().all(|synonym| synonym.value.is_none()));
}

#[test]
fn the_voters_of_a_cluster_are_listed_and_reached_by_a_listener_of_their_port() {
    let list = "1@localhost:9092, 2@[::1]:9092,3@h:9094";
    let broker = BrokerConfig::resolve(&map(&[("controller.quorum.voters", list)])).unwrap();
    let shown: Vec<_> = broker.quorum_voters.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["1@localhost:9092", "2@[::1]:9092", "3@h:9094"]);
    assert_eq!(broker.quorum_voters[1].host, "::1");
    assert!(broker.has_peers());
    assert_eq!(broker.other_voters().map(|voter| voter.id).collect::<Vec<_>>(), [2, 3]);
    // One of the controllers, which is opened for the others alone.
    let pair = [
        ("controller.quorum.voters", "1@a:9093,2@b:9093"),
        ("listeners", "CONTROLLER://:9093,PLAINTEXT://:9092"),
        ("controller.listener.names", "CONTROLLER"),
        ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT"),
    ];
    let broker = BrokerConfig::resolve(&map(&pair)).unwrap();
    let opened: Vec<_> = broker.listeners.iter().map(|one| &*one.bind.name).collect();
    assert_eq!(opened, ["PLAINTEXT", "CONTROLLER"]);
    assert!(broker.is_of_controllers("CONTROLLER") && !broker.is_of_controllers("PLAINTEXT"));
    // A node that is its own only voter has nobody to open it for.
    let alone = [("controller.quorum.voters", "1@a:9999"), pair[1], pair[2], pair[3]];
    let broker = BrokerConfig::resolve(&map(&alone)).unwrap();
    assert!(!broker.has_peers());
    assert_eq!(broker.listeners.len(), 1);
    // Any port may be the right one where it is not known before the start.
    let any = [("controller.quorum.voters", "1@a:7,2@b:7"), ("listeners", "PLAINTEXT://:0")];
    assert!(BrokerConfig::resolve(&map(&any)).unwrap().has_peers());
}

#[test]
fn a_node_joins_others_and_not_itself() {
    let others = |settings: &[(&str, &str)]| {
        let broker = BrokerConfig::resolve(&map(settings)).unwrap();
        assert_eq!(broker.has_peers(), !broker.bootstrap_servers.is_empty());
        broker.bootstrap_servers
    };
    let list = |servers| ("controller.quorum.bootstrap.servers", servers);
    assert_eq!(others(&[list("a:9092, [::1]:7,a:9092")]), ["a:9092", "[::1]:7"]);
    assert!(others(&[list("localhost:9092,127.0.0.1:9092")]).is_empty());
    assert_eq!(others(&[list("localhost:9093"), ("listeners", "PLAINTEXT://:9092")]).len(), 1);
    let outside = ("listeners", "PLAINTEXT://10.0.0.1:9092");
    assert_eq!(others(&[list("10.0.0.1:9092,10.0.0.2:9092"), outside]), ["10.0.0.2:9092"]);
    assert_eq!(others(&[list("localhost:9092"), outside]), ["localhost:9092"]);
    let told = ("advertised.listeners", "PLAINTEXT://h.example:9092");
    assert_eq!(others(&[list("H.example:9092,i.example:9092"), told]), ["i.example:9092"]);
    let broker = BrokerConfig::resolve(&map(&[("controller.quorum.auto.join.enable", "true")]));
    assert!(broker.unwrap().auto_join);
}

/// The file that Apache Kafka 4.4 comes with for one node.
#[test]
fn the_settings_file_of_kafka_is_understood() {
    let text = "process.roles=broker,controller\nnode.id=7\n\
        controller.quorum.bootstrap.servers=localhost:9093\n\
        listeners=PLAINTEXT://:9092,CONTROLLER://:9093\n\
        inter.broker.listener.name=PLAINTEXT\n\
        advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
        controller.listener.names=CONTROLLER\n\
        listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,\
        SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\n\
        num.network.threads=4\nnum.io.threads=9\nsocket.send.buffer.bytes=102400\n\
        log.dirs=/tmp/kraft-combined-logs\nnum.recovery.threads.per.data.dir=1\n\
        share.coordinator.state.topic.replication.factor=1\n\
        transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
        log.flush.interval.messages=10000\nlog.flush.interval.ms=1000\nlog.retention.hours=168\n";
    let broker = BrokerConfig::resolve(&parse_properties(text).unwrap()).unwrap();
    let [listener] = &*broker.listeners else { panic!("{:?}", broker.listeners) };
    assert_eq!(listener.bind.to_string(), "PLAINTEXT://:9092");
    assert_eq!(listener.protocol, SecurityProtocol::Plaintext);
    let advertised = Advertised { host: "localhost".to_owned(), port: 9092 };
    assert_eq!(listener.advertised, Some(advertised));
    let [controllers] = &*broker.controller_listeners else { panic!("not one") };
    assert_eq!(controllers.name, "CONTROLLER");
    assert_eq!((broker.node_id, broker.log_dir.as_deref()), (7, Some("/tmp/kraft-combined-logs")));
    let topic = TopicConfig::resolve(&ConfigMap::new(), &broker).unwrap();
    assert_eq!((topic.flush_messages, topic.flush_ms), (10_000, 1000));
    let older = BrokerConfig::resolve(&map(&[("broker.id", "5"), ("log.dir", "/d")])).unwrap();
    assert_eq!((older.node_id, older.log_dir.as_deref()), (5, Some("/d")));
}

#[test]
fn a_tier_needs_a_place_and_to_be_turned_on() {
    let on = ("remote.log.storage.system.enable", "true");
    let place = ("ottla.tier.url", "file:///tier");
    let refused = |settings: &[(&str, &str)]| BrokerConfig::resolve(&map(settings)).unwrap_err();
    assert!(refused(&[on]).message.contains("set ottla.tier.url="));
    assert!(refused(&[place]).message.contains("is not true"));
    let broker = BrokerConfig::resolve(&map(&[on, place])).unwrap();
    assert_eq!(broker.tier.url.as_deref(), Some("file:///tier"));
    let resolve = |broker: &BrokerConfig, settings: &[(&str, &str)]| {
        let topic = TopicConfig::resolve(&map(settings), broker);
        topic.map(|topic| topic.tier).map_err(|error| error.message)
    };
    let tier = ("remote.storage.enable", "true");
    let stopped = ("remote.log.copy.disable", "true");
    assert_eq!(resolve(&broker, &[tier]), Ok(TopicTier::Copied));
    assert_eq!(resolve(&broker, &[tier, stopped]), Ok(TopicTier::ReadOnly));
    assert_eq!(
        resolve(&broker, &[("remote.log.delete.on.disable", "true")]),
        Ok(TopicTier::Removed)
    );
    assert_eq!(resolve(&broker, &[stopped]), Ok(TopicTier::None));
    let compacted = resolve(&broker, &[tier, ("cleanup.policy", "compact,delete")]);
    assert!(compacted.unwrap_err().contains("only supports topics with"));
    assert_eq!(resolve(&broker, &[tier, ("cleanup.policy", "")]), Ok(TopicTier::Copied));
    assert!(resolve(&BrokerConfig::default(), &[tier]).unwrap_err().contains("is disabled"));
    let table = ("ottla.tier.table", "delta");
    let tables = TopicConfig::resolve(&map(&[tier, table]), &broker).unwrap().tier_table;
    assert_eq!(tables, TierTable::Delta);
    for without in [&[table][..], &[table, ("remote.log.delete.on.disable", "true")]] {
        assert!(
            resolve(&broker, without).unwrap_err().contains("needs remote.storage.enable=true")
        );
    }
    check_refused(Scope::Topic, "ottla.tier.table", "hudi", "must be one of none, delta");
    let schema = ("ottla.tier.value.schema", " {\"format\": \"json\"} ");
    let typed = TopicConfig::resolve(&map(&[tier, schema]), &broker).unwrap().tier_value_schema;
    assert_eq!(typed.as_deref(), Some("{\"format\": \"json\"}"));
    let none = TopicConfig::resolve(&map(&[(schema.0, "")]), &broker).unwrap();
    assert_eq!(none.tier_value_schema, None);
    let refused = resolve(&broker, &[schema]).unwrap_err();
    assert!(refused.contains("needs remote.storage.enable=true"), "{refused}");
    check_refused(Scope::Topic, schema.0, "[1]", "must be a JSON object, or empty");
    let long = format!("{{\"a\": \"{}\"}}", "x".repeat(64 << 10));
    check_refused(Scope::Topic, schema.0, &long, "must have at most 65536 bytes");
}
