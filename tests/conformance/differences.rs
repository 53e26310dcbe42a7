//! Defines a difference from Apache Kafka, keeps the page that lists them, and checks that every
//! API has its conversation.
//!
//! `OTTLA_UPDATE=1` writes the differences into `src/manual/compatibility.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use ottla::protocol::api::ApiKey;

use crate::compare::{API_LABEL, answers_of};
use crate::difference_table::DIFFERENCES;
use crate::kafka;
use crate::page::check_section;

/// One difference.
pub(crate) struct Difference {
    /// The API, or several.
    pub(crate) api: &'static str,
    /// When it occurs.
    pub(crate) what: &'static str,
    /// What Apache Kafka does, in words.
    pub(crate) kafka: &'static str,
    /// What our broker does, in words.
    pub(crate) ottla: &'static str,
    /// The conversations and labels that show it.
    pub(crate) places: &'static [(&'static str, &'static str)],
    /// What to replace in the recording to get our answer.
    pub(crate) wire: &'static [(&'static str, &'static str)],
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The table of `src/manual/compatibility.md` is made from the one above.
#[test]
fn the_compatibility_page_lists_the_differences() {
    let (version, _) = kafka::version().rsplit_once('.').unwrap();
    let mut table = format!("| API | what | Apache Kafka {version} | ottla |\n|---|---|---|---|\n");
    for Difference { api, what, kafka, ottla, .. } in DIFFERENCES {
        writeln!(table, "| {api} | {what} | {kafka} | {ottla} |").unwrap();
    }
    let page = root().join("src/manual/compatibility.md");
    check_section(&page, "differences", &table, "cargo test --test conformance differences");
}

/// The recorded conversations: name and text.
fn recorded() -> BTreeMap<String, String> {
    let files = fs::read_dir(root().join("tests/conformance/recorded")).unwrap();
    let paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_version_of_every_api_is_in_a_conversation() {
    let mut heard = BTreeSet::new();
    for text in recorded().values() {
        for (version, apis) in answers_of(text).remove(API_LABEL).unwrap_or_default() {
            heard.extend(apis.into_iter().map(|api| (api, version)));
        }
    }
    // What nodes ask each other is not for clients to hear; the tests of its frames have every version.
    let served = ApiKey::ALL.iter().filter(|api| api.is_served() && !api.is_between_nodes());
    let missing: Vec<_> = served
        .flat_map(|api| {
            let versions = api.versions();
            (versions.min..=versions.max).map(move |version| (format!("{api:?}"), version))
        })
        .filter(|pair| !heard.contains(pair))
        .collect();
    assert!(missing.is_empty(), "served, and in no recorded conversation: {missing:?}");
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
        let script = format!("fn {name}(talk: &mut Script)");
        assert!(sources.contains(&script), "nobody holds {name}");
    }
    for difference in DIFFERENCES {
        for (conversation, _) in difference.places {
            assert!(conversations.contains_key(*conversation), "no conversation {conversation}");
        }
    }
}
