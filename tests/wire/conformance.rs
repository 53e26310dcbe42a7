//! Our tables against the definitions inside Apache Kafka's jar, line by line.
//!
//! The tests are ignored unless asked for, because they need Kafka's jars (see [`crate::kafka`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ottla::protocol::ApiKey;
use ottla::protocol::schema::{Field, Kind, OWN_TAGS, Structure, Versions};
use serde_json::Value;

use crate::catalog;
use crate::kafka::jars;

/// Kafka's definitions by message name.
fn definitions() -> BTreeMap<String, Value> {
    let directory = jars();
    let mut found = BTreeMap::new();
    for prefix in ["kafka-clients-", "kafka-group-coordinator-4", "kafka-transaction-coordinator-4"]
    {
        let wanted = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(prefix) && name.ends_with(".jar")
        };
        let entries = std::fs::read_dir(&directory).unwrap();
        let jar = entries.map(|entry| entry.unwrap().path()).find(wanted).unwrap();
        read_definitions(&jar, &mut found);
    }
    found
}

/// Adds the definitions of one jar.
fn read_definitions(jar: &Path, found: &mut BTreeMap<String, Value>) {
    let mut archive = zip::ZipArchive::new(File::open(jar).unwrap()).unwrap();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let name = entry.name().unwrap().into_owned();
        if !name.starts_with("common/message/") || !name.ends_with(".json") {
            continue;
        }
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let value: Value = serde_json::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap();
        found.insert(value["name"].as_str().unwrap().to_owned(), value);
    }
}

/// A range in Kafka's notation.
fn versions(value: &Value) -> Versions {
    let Some(text) = value.as_str() else { return Versions::NONE };
    if text == "none" {
        return Versions::NONE;
    }
    if let Some(min) = text.strip_suffix('+') {
        return Versions::since(min.parse().unwrap());
    }
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    Versions::between(min.parse().unwrap(), max.parse().unwrap())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The default that our table must have, in a common notation.
fn expected_default(field: &Value, kind: &str) -> String {
    // A bare `null` is a default, an absent one is not.
    let default = field.get("default").map_or_else(String::new, |default| match default {
        Value::Null => "null".to_owned(),
        other => text(other),
    });
    let nullable = !versions(&field["nullableVersions"]).is_empty();
    match kind {
        "records" if nullable => "null".to_owned(),
        // Kafka starts with null, which cannot be written.
        "records" => "no records".to_owned(),
        _ if default == "null" => default,
        "bool" if default.is_empty() => "false".to_owned(),
        "int8" | "int16" | "uint16" | "int32" | "uint32" | "int64" => {
            let hexadecimal = default.strip_prefix("0x");
            let number = match hexadecimal {
                Some(digits) => i64::from_str_radix(digits, 16).unwrap(),
                None if default.is_empty() => 0,
                None => default.parse().unwrap(),
            };
            number.to_string()
        }
        _ if default.is_empty() && nullable => "some empty".to_owned(),
        _ => default,
    }
}

fn our_default(field: &Field) -> String {
    match (field.default, field.kind) {
        ("", _) if field.optional => "null".to_owned(),
        ("Some(Str::EMPTY)" | "Some(Vec::new())" | "Some(Bytes::new())", _) => {
            "some empty".to_owned()
        }
        ("", Kind::Records) => "no records".to_owned(),
        ("", Kind::Bool) => "false".to_owned(),
        ("", Kind::String | Kind::Bytes | Kind::Array(_) | Kind::Struct(_) | Kind::Uuid) => {
            String::new()
        }
        ("", _) => "0".to_owned(),
        ("i32::MIN", _) => i32::MIN.to_string(),
        ("i32::MAX", _) => i32::MAX.to_string(),
        ("i64::MAX", _) => i64::MAX.to_string(),
        (other, _) => other.to_owned(),
    }
}

fn nested(kind: Kind) -> Option<&'static Structure> {
    match kind {
        Kind::Struct(structure) => Some(structure),
        Kind::Array(element) => nested(*element),
        _ => None,
    }
}

/// Collects the differences between one of our structures and Kafka's fields.
fn compare(
    path: &str,
    ours: &Structure,
    theirs: &Value,
    common: &Value,
    differences: &mut Vec<String>,
) {
    let empty = Vec::new();
    let theirs = theirs.as_array().unwrap_or(&empty);
    let names = |fields: Vec<String>| fields.join(", ");
    // What is ottla's own is no part of Kafka's message.
    let fields: Vec<&Field> = ours.fields.iter().filter(|field| field.tag < OWN_TAGS).collect();
    let our_names = names(fields.iter().map(|field| field.name.to_owned()).collect());
    let their_names = names(theirs.iter().map(|field| text(&field["name"])).collect());
    if our_names != their_names {
        differences.push(format!("{path}: fields {our_names}; Kafka: {their_names}"));
        return;
    }
    for (field, definition) in fields.into_iter().zip(theirs) {
        let path = format!("{path}.{}", field.name);
        let kind = text(&definition["type"]);
        let tagged = versions(&definition["taggedVersions"]);
        let nullable = versions(&definition["nullableVersions"]);
        let ignorable = text(&definition["ignorable"]) == "true";
        let mut differ = |what: &str, ours: String, theirs: String| {
            if ours != theirs {
                differences.push(format!("{path}: {what} {ours}; Kafka: {theirs}"));
            }
        };
        let show = |versions: Versions| versions.to_string();
        differ("type", field.kind.to_string(), kind.clone());
        // Where the versions of a tagged field are not given, they are those of the tag.
        let valid = definition.get("versions").map_or(tagged, versions);
        differ("versions", show(field.versions), show(valid));
        differ("nullable", show(field.nullable), show(nullable));
        differ("tagged", show(field.tagged), show(tagged));
        differ("tag", field.tag.to_string(), definition["tag"].as_i64().unwrap_or(0).to_string());
        differ("ignorable", field.ignorable.to_string(), ignorable.to_string());
        differ("default", our_default(field), expected_default(definition, &kind));
        if let Some(structure) = nested(field.kind) {
            let shared = || {
                let name = Value::from(structure.name);
                let all = common.as_array()?;
                all.iter().find(|common| common["name"] == name).map(|common| &common["fields"])
            };
            let fields = Some(&definition["fields"]).filter(|fields| fields.is_array());
            let fields = fields.or_else(shared).unwrap_or(&Value::Null);
            compare(&path, structure, fields, common, differences);
        }
    }
}

#[test]
#[ignore = "needs Apache Kafka's jars"]
fn every_table_says_what_kafka_says() {
    let definitions = definitions();
    let mut differences = Vec::new();
    for case in catalog::all() {
        let definition = &definitions[case.name()];
        let name = case.name();
        let mut differ = |what: &str, ours: String, theirs: String| {
            if ours != theirs {
                differences.push(format!("{name}: {what} {ours}; Kafka: {theirs}"));
            }
        };
        let number = definition["apiKey"].as_i64();
        differ("API key", format!("{:?}", case.number.map(i64::from)), format!("{number:?}"));
        let valid = versions(&definition["validVersions"]);
        differ("versions", case.schema.versions.to_string(), valid.to_string());
        let flexible = versions(&definition["flexibleVersions"]);
        differ("flexible versions", case.schema.flexible.to_string(), flexible.to_string());
        compare(
            name,
            case.schema.structure,
            &definition["fields"],
            &definition["commonStructs"],
            &mut differences,
        );
    }
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

#[test]
#[ignore = "needs Apache Kafka's jars"]
fn every_api_has_the_number_and_name_that_kafka_gives_it() {
    let definitions = definitions();
    let mut theirs = BTreeMap::new();
    for (name, definition) in &definitions {
        if let Some(name) = name.strip_suffix("Request") {
            let mut upper = String::new();
            for letter in name.chars() {
                if letter.is_uppercase() && !upper.is_empty() {
                    upper.push('_');
                }
                upper.extend(letter.to_uppercase());
            }
            theirs.insert(definition["apiKey"].as_i64().unwrap(), upper);
        }
    }
    let ours: BTreeMap<_, _> =
        ApiKey::ALL.iter().map(|api| (i64::from(api.to_i16()), api.name().to_owned())).collect();
    assert_eq!(ours, theirs);
}

#[test]
#[ignore = "needs Apache Kafka's jars"]
fn every_stable_version_of_a_served_api_is_served() {
    let definitions = definitions();
    for entry in ottla::protocol::api::KNOWN {
        let definition = &definitions[entry.request.structure.name];
        let mut stable = versions(&definition["validVersions"]);
        if definition["latestVersionUnstable"] == Value::Bool(true) {
            stable.max -= 1;
        }
        assert_eq!(entry.versions, stable, "{}", entry.api);
        let advertised = match entry.api {
            ApiKey::Produce => Versions::between(0, stable.max),
            api if !api.is_served() => Versions::NONE,
            _ => stable,
        };
        assert_eq!(entry.advertised, advertised, "{}", entry.api);
    }
}
