//! Settings described and altered, word for word at every version.

use std::fmt::Write as _;

use ottla::protocol::Str;
use ottla::protocol::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterableConfig,
};
use ottla::protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResult,
};
use ottla::protocol::messages::incremental_alter_configs::{
    AlterConfigsResource as ChangedResource, AlterableConfig as Change,
    IncrementalAlterConfigsRequest,
};
use ottla::protocol::messages::list_config_resources::ListConfigResourcesRequest;

use crate::transcript::Script;

against_both!(
    transcript:
    describe_configs,
    incremental_alter_configs,
    alter_configs,
    list_config_resources,
);

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const METRICS: i8 = 16;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn describe(kind: i8, name: &Str, keys: Option<&[&str]>) -> DescribeConfigsRequest {
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.clone(),
        configuration_keys: keys.map(|keys| keys.iter().map(|&key| key.into()).collect()),
    };
    DescribeConfigsRequest { resources: vec![resource], ..DescribeConfigsRequest::default() }
}

/// Whether a text is present, since the texts themselves differ.
fn without_documentation(results: &mut [DescribeConfigsResult]) {
    for result in results {
        // Settings of ours.
        let is_ours = |name: &str| {
            matches!(name, "durability" | "ottla.tier.table" | "ottla.tier.value.schema")
        };
        result.configs.retain(|config| !is_ours(&config.name));
        result.configs.sort_by(|one, other| one.name.cmp(&other.name));
        for config in &mut result.configs {
            // Apache Kafka leaves out some defaults that have another name.
            config.synonyms.retain(|synonym| synonym.source != 5);
            config.documentation = config.documentation.as_ref().map(|_| "…".into());
        }
    }
}

fn ask(talk: &mut Script, label: &str, version: i16, request: DescribeConfigsRequest) {
    let mut answer = talk.call(version, request);
    answer.results.sort_by(|one, other| one.resource_name.cmp(&other.resource_name));
    without_documentation(&mut answer.results);
    talk.note(label, version, &answer);
}

/// Settings are described at every version.
fn describe_configs(talk: &mut Script) {
    let settings = [("retention.ms", "12345"), ("cleanup.policy", "compact,delete")];
    let (topic, _) = talk.topic_with("topic", 1, &settings);
    let missing = talk.name("missing");
    for version in 1..=4 {
        every_setting(talk, version, &topic);
        some_settings(talk, version, &topic, &missing);
    }
}

/// One label for each setting of a topic.
fn every_setting(talk: &mut Script, version: i16, topic: &Str) {
    for (how, include_synonyms, include_documentation) in
        [("", false, false), ("with synonyms, ", true, false), ("with texts, ", false, true)]
    {
        if include_documentation && version < 3 {
            continue;
        }
        let request = DescribeConfigsRequest {
            include_synonyms,
            include_documentation,
            ..describe(TOPIC, topic, None)
        };
        let mut answer = talk.call(version, request);
        without_documentation(&mut answer.results);
        for config in std::mem::take(&mut answer.results[0].configs) {
            let label = format!("{how}{}", config.name);
            // Short, since there are many.
            let mut text = format!(
                "{:?} read_only {} source {} sensitive {} type {} documentation {:?}",
                config.value,
                config.read_only,
                config.config_source,
                config.is_sensitive,
                config.config_type,
                config.documentation,
            );
            for synonym in config.synonyms {
                let (value, source) = (&synonym.value, synonym.source);
                write!(text, "; {} {value:?} source {source}", synonym.name).unwrap();
            }
            talk.note_text(&label, version, &text);
        }
        talk.note(&format!("{how}every setting"), version, &answer);
    }
}

fn some_settings(talk: &mut Script, version: i16, topic: &Str, missing: &Str) {
    let broker = |name: &str| -> Str { name.into() };
    let threads: &[&str] = &["num.network.threads", "log.retention.ms", "node.id"];
    for (label, kind, name, keys) in [
        ("two keys", TOPIC, topic, Some(&["retention.ms", "segment.ms"][..])),
        ("an unknown key", TOPIC, topic, Some(&["no.such.key", "retention.ms"])),
        ("the same key twice", TOPIC, topic, Some(&["retention.ms", "retention.ms"])),
        ("an unknown topic", TOPIC, missing, None),
        ("an illegal name", TOPIC, &broker("bad name"), None),
        ("no name", TOPIC, &Str::EMPTY, None),
        ("keys of the broker", BROKER, &broker("1"), Some(threads)),
        ("unknown keys of the broker", BROKER, &broker("1"), Some(&["no.such.key"])),
        ("another broker", BROKER, &broker("99"), Some(threads)),
        ("a broker that is no number", BROKER, &broker("one"), Some(threads)),
        ("every broker", BROKER, &Str::EMPTY, Some(&["log.retention.ms"])),
        ("loggers", LOGGER, &broker("1"), Some(&["no.such.logger"])),
        ("loggers of another broker", LOGGER, &broker("99"), Some(&["root"])),
        ("loggers without a broker", LOGGER, &Str::EMPTY, Some(&["root"])),
        ("subscriptions of metrics without a name", METRICS, &Str::EMPTY, None),
        ("a kind that does not exist", 99, topic, None),
        ("the unknown kind", 0, topic, None),
    ] {
        ask(talk, label, version, describe(kind, name, keys));
    }
    let no_keys = talk.call(version, describe(TOPIC, topic, Some(&[])));
    talk.note("no keys", version, &(no_keys.results[0].configs.len() > 20));
    let mut two = describe(TOPIC, topic, Some(&["retention.ms"]));
    two.resources.extend(describe(TOPIC, missing, None).resources);
    ask(talk, "two topics, one unknown", version, two);
    let mut same = describe(TOPIC, topic, Some(&["retention.ms"]));
    same.resources.push(same.resources[0].clone());
    ask(talk, "the same topic twice", version, same);
    ask(talk, "nothing", version, DescribeConfigsRequest::default());
}

fn change(kind: i8, name: &Str, changes: &[(&str, i8, Option<&str>)]) -> ChangedResource {
    let change = |&(name, config_operation, value): &(&str, i8, Option<&str>)| Change {
        name: name.into(),
        config_operation,
        value: value.map(Str::from),
    };
    ChangedResource {
        resource_type: kind,
        resource_name: name.clone(),
        configs: changes.iter().map(change).collect(),
    }
}

/// Records an answer, and the settings afterwards.
fn ask_change(
    talk: &mut Script,
    (label, version): (&str, i16),
    request: IncrementalAlterConfigsRequest,
    topic: &Str,
) {
    let mut answer = talk.call(version, request);
    answer.responses.sort_by(|one, other| one.resource_name.cmp(&other.resource_name));
    talk.note(label, version, &answer);
    note_set(talk, label, version, topic);
}

/// The settings of the topic itself, once an earlier change is visible.
fn note_set(talk: &mut Script, label: &str, version: i16, topic: &Str) {
    // Apache Kafka answers before its broker has heard of the change; by now it has.
    let (name, _) = talk.topic_at(&format!("after {label}"), version, 1);
    drop(name);
    let mut answer = talk.call(4, describe(TOPIC, topic, None)).results.remove(0);
    answer.configs.retain(|config| config.config_source == 1);
    answer.configs.sort_by(|one, other| one.name.cmp(&other.name));
    let set: Vec<_> = answer.configs.iter().map(|config| (&config.name, &config.value)).collect();
    talk.note(&format!("{label}: set"), version, &set);
}

/// Settings are changed at every version.
fn incremental_alter_configs(talk: &mut Script) {
    let missing = talk.name("missing");
    for version in 0..=1 {
        let (topic, _) = talk.topic_at("topic", version, 1);
        changed(talk, version, &topic);
        refused(talk, version, &topic, &missing);
    }
}

fn changed(talk: &mut Script, version: i16, topic: &Str) {
    let policy = "cleanup.policy";
    for (label, changes) in [
        ("two are set", &[("retention.ms", SET, Some("5")), ("segment.ms", SET, Some("70"))][..]),
        ("one is deleted", &[("segment.ms", DELETE, None)]),
        ("one that is not set is deleted", &[("flush.ms", DELETE, None)]),
        ("deleted, with a value", &[("retention.ms", DELETE, Some("9"))]),
        ("appended", &[(policy, APPEND, Some("compact"))]),
        ("appended again", &[(policy, APPEND, Some("compact"))]),
        ("subtracted", &[(policy, SUBTRACT, Some("delete"))]),
        ("subtracted again", &[(policy, SUBTRACT, Some("delete"))]),
        ("the last subtracted", &[(policy, SUBTRACT, Some("compact"))]),
        ("two appended", &[(policy, APPEND, Some("compact,delete"))]),
        ("nothing appended", &[(policy, APPEND, Some(""))]),
        ("no changes", &[]),
    ] {
        let resources = vec![change(TOPIC, topic, changes)];
        let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
        ask_change(talk, (label, version), request, topic);
    }
    let resources = vec![change(TOPIC, topic, &[("retention.ms", SET, Some("77"))])];
    let request = IncrementalAlterConfigsRequest { resources, validate_only: true };
    ask_change(talk, ("only validated", version), request, topic);
}

fn refused(talk: &mut Script, version: i16, topic: &Str, missing: &Str) {
    let (one, other): (Str, Str) = ("1".into(), "99".into());
    let good: &[(&str, i8, Option<&str>)] = &[("retention.ms", SET, Some("5"))];
    let size: &[(&str, i8, Option<&str>)] = &[("log.segment.bytes", SET, Some("x"))];
    for (label, kind, name, changes) in [
        ("no number", TOPIC, topic, &[("retention.ms", SET, Some("x"))][..]),
        ("too small", TOPIC, topic, &[("retention.ms", SET, Some("-2"))]),
        ("an unknown setting", TOPIC, topic, &[("no.such.setting", SET, Some("1"))]),
        ("an unknown setting deleted", TOPIC, topic, &[("no.such.setting", DELETE, None)]),
        ("without a value", TOPIC, topic, &[("retention.ms", SET, None)]),
        ("an empty value", TOPIC, topic, &[("retention.ms", SET, Some(""))]),
        ("appended to a number", TOPIC, topic, &[("retention.ms", APPEND, Some("5"))]),
        ("subtracted from a number", TOPIC, topic, &[("retention.ms", SUBTRACT, Some("5"))]),
        ("appended without a value", TOPIC, topic, &[("cleanup.policy", APPEND, None)]),
        ("an unknown policy", TOPIC, topic, &[("cleanup.policy", APPEND, Some("shrink"))]),
        ("an operation to come", TOPIC, topic, &[("retention.ms", 9, Some("5"))]),
        ("one setting twice", TOPIC, topic, &[good[0], ("retention.ms", DELETE, None)]),
        ("one good and one bad", TOPIC, topic, &[good[0], ("segment.ms", SET, Some("x"))]),
        ("an unknown topic", TOPIC, missing, good),
        ("an illegal topic", TOPIC, &"bad name".into(), good),
        ("no topic", TOPIC, &Str::EMPTY, good),
        ("a number for the broker", BROKER, &one, size),
        ("a number for all brokers", BROKER, &Str::EMPTY, size),
        ("an unknown broker", BROKER, &other, &[("log.retention.ms", SET, Some("5"))]),
        ("a broker that is no number", BROKER, &"one".into(), size),
        ("what needs a restart", BROKER, &one, &[("log.dirs", SET, Some("/x"))]),
        ("an unknown logger", LOGGER, &one, &[("no.such.logger", SET, Some("INFO"))]),
        ("an unknown level", LOGGER, &one, &[("root", SET, Some("LOUD"))]),
        ("a logger of an unknown broker", LOGGER, &other, &[("root", SET, Some("INFO"))]),
        ("a kind that does not exist", 99, topic, good),
        ("the unknown kind", 0, topic, good),
    ] {
        let resources = vec![change(kind, name, changes)];
        let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
        talk.ask(label, version, request.clone());
        let request = IncrementalAlterConfigsRequest { validate_only: true, ..request };
        talk.ask(&format!("{label}, validated"), version, request);
    }
    let twice = vec![change(TOPIC, topic, good), change(TOPIC, topic, good)];
    let request = IncrementalAlterConfigsRequest { resources: twice, validate_only: false };
    talk.ask("the same topic twice", version, request);
    talk.ask("nothing", version, IncrementalAlterConfigsRequest::default());
}

/// Settings are replaced at every version.
fn alter_configs(talk: &mut Script) {
    let missing = talk.name("missing");
    for version in 0..=2 {
        let (topic, _) = talk.topic_at("topic", version, 1);
        for (label, kind, name, settings) in [
            ("two", TOPIC, &topic, &[("retention.ms", Some("5")), ("flush.ms", Some("70"))][..]),
            ("one", TOPIC, &topic, &[("retention.ms", Some("6"))]),
            ("no number", TOPIC, &topic, &[("retention.ms", Some("x"))]),
            ("an unknown setting", TOPIC, &topic, &[("no.such.setting", Some("1"))]),
            ("without a value", TOPIC, &topic, &[("retention.ms", None)]),
            ("an unknown topic", TOPIC, &missing, &[("retention.ms", Some("5"))]),
            ("no topic", TOPIC, &Str::EMPTY, &[("retention.ms", Some("5"))]),
            ("a broker", BROKER, &"99".into(), &[("log.retention.ms", Some("5"))]),
            ("a logger", LOGGER, &"1".into(), &[("root", Some("INFO"))]),
            ("a kind that does not exist", 99, &topic, &[("retention.ms", Some("5"))]),
            ("none", TOPIC, &topic, &[]),
        ] {
            replaced(talk, (label, version), (kind, name, settings), &topic);
        }
        talk.ask("nothing", version, AlterConfigsRequest::default());
    }
}

type Settings<'a> = (i8, &'a Str, &'a [(&'a str, Option<&'a str>)]);

fn replaced(
    talk: &mut Script,
    (label, version): (&str, i16),
    (kind, name, settings): Settings<'_>,
    topic: &Str,
) {
    let setting = |&(name, value): &(&str, Option<&str>)| AlterableConfig {
        name: name.into(),
        value: value.map(Str::from),
    };
    let resource = AlterConfigsResource {
        resource_type: kind,
        resource_name: name.clone(),
        configs: settings.iter().map(setting).collect(),
    };
    let request = AlterConfigsRequest { resources: vec![resource.clone()], validate_only: true };
    talk.ask(&format!("{label}, validated"), version, request);
    let request = AlterConfigsRequest { resources: vec![resource], validate_only: false };
    talk.ask(label, version, request);
    note_set(talk, label, version, topic);
}

/// What has settings is listed.
fn list_config_resources(talk: &mut Script) {
    let (topic, _) = talk.topic("topic", 1);
    for version in 0..=1 {
        for kinds in
            [&[][..], &[TOPIC], &[BROKER], &[LOGGER], &[METRICS], &[TOPIC, BROKER], &[99], &[0]]
        {
            if version == 0 && !kinds.is_empty() {
                continue;
            }
            let request = ListConfigResourcesRequest { resource_types: kinds.to_vec() };
            let mut answer = talk.call(version, request);
            answer.config_resources.retain(|resource| {
                resource.resource_name == topic || matches!(resource.resource_type, 4 | 8)
            });
            answer.config_resources.sort_by_key(|resource| resource.resource_type);
            talk.note(&format!("kinds {kinds:?}"), version, &answer);
        }
    }
}
