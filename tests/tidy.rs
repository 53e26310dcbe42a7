//! The rules of the house that no compiler checks: layers, sizes, the list of unsafe files, and
//! documents that must agree with the code.
//!
//! A rule here is a function that returns its violations as lines `path:line: what to do`. Think
//! hard before changing the table of layers: it is the architecture.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use ottla::protocol::api::ApiKey;

#[path = "support/page.rs"]
mod page;

use page::check_section;

/// Each room of `src/`, with the rooms that it may import. Imports only go down.
const LAYERS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("error", &["types"]),
    ("env", &["types", "error"]),
    ("config", &["types", "error"]),
    ("record", &["types", "error"]),
    ("protocol", &["types", "error"]),
    ("log", &["record", "config", "env", "types", "error"]),
    ("columnar", &["record", "config", "types", "error"]),
    ("machine", &["record", "config", "types", "error"]),
    ("client", &["machine", "columnar", "protocol", "record", "config", "env", "types", "error"]),
    (
        "broker",
        &[
            "client", "machine", "columnar", "log", "protocol", "record", "config", "env", "types",
            "error",
        ],
    ),
    (
        "cli",
        &["broker", "client", "columnar", "protocol", "record", "config", "env", "types", "error"],
    ),
    (
        "python",
        &[
            "cli", "broker", "client", "columnar", "protocol", "record", "config", "env", "types",
            "error",
        ],
    ),
    ("manual", &[]),
];

/// Words that a room never says outside of its comments, with the reason.
const SILENT: &[(&str, &[&str], &str)] = &[
    (
        "machine",
        &["tokio", "async ", "Instant", "SystemTime"],
        "decisions know no I/O and no clock",
    ),
    ("log", &["tokio", "async "], "one partition on disk is synchronous"),
    ("protocol", &["tokio", "TcpStream"], "the wire is without I/O"),
    ("record", &["tokio", "std::fs"], "record batches are bytes"),
    ("columnar", &["tokio", "std::fs"], "batches to Arrow are bytes to bytes"),
];

/// The only files that may contain `unsafe`; each has its reason in the ADR on unsafe code.
const UNSAFE_FILES: &[&str] =
    &["src/env/real/storage.rs", "src/columnar/decode.rs", "src/python/interop.rs"];

const FILE_LINES_MAX: usize = 600;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                files_below(&path, extension, found);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

/// The Rust files below `directory`, as (path from the root, text).
fn sources(directory: &str) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    files_below(&root().join(directory), "rs", &mut paths);
    paths
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The room of a path: `src/log/segment.rs` and `src/log.rs` are both in `log`.
fn room(path: &str) -> &str {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    let first = inner.split('/').next().unwrap_or(inner);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// The lines of code of a file, numbered from 1: without comments, and without the tests at its
/// foot.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim_end() != "#[cfg(test)]" || line.starts_with(' '))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

fn is_generated(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.contains("@generated"))
}

#[track_caller]
fn check(violations: &[String]) {
    let mut report = String::new();
    for violation in violations {
        let _ = writeln!(report, "  {violation}");
    }
    assert!(violations.is_empty(), "{} violations:\n{report}", violations.len());
}

#[test]
fn imports_only_go_down_the_ladder() {
    let mut violations = Vec::new();
    for (path, text) in sources("src") {
        let here = room(&path);
        if matches!(here, "lib" | "main") {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == here) else {
            violations.push(format!("{path}:1: room `{here}` is not in the table of layers"));
            continue;
        };
        for (number, line) in code_lines(&text) {
            for (position, _) in line.match_indices("crate::") {
                let target: String = line[position + "crate::".len()..]
                    .chars()
                    .take_while(|character| character.is_alphanumeric() || *character == '_')
                    .collect();
                let is_room = LAYERS.iter().any(|(name, _)| *name == target);
                if is_room && target != here && !allowed.contains(&target.as_str()) {
                    violations
                        .push(format!("{path}:{number}: `{here}` must not import `{target}`"));
                }
            }
        }
    }
    check(&violations);
}

#[test]
fn each_room_keeps_silent_about_what_it_must_not_know() {
    let mut violations = Vec::new();
    for (path, text) in sources("src") {
        let here = room(&path);
        for (room, words, reason) in SILENT.iter().filter(|(room, ..)| *room == here) {
            for (number, line) in code_lines(&text) {
                for word in *words {
                    if line.contains(word) {
                        violations
                            .push(format!("{path}:{number}: `{room}` says `{word}`: {reason}"));
                    }
                }
            }
        }
    }
    check(&violations);
}

#[test]
fn unsafe_code_stays_in_its_few_files() {
    let mut violations = Vec::new();
    for (path, text) in sources("src") {
        if UNSAFE_FILES.contains(&path.as_str()) {
            continue;
        }
        for (number, line) in code_lines(&text) {
            if line.contains("unsafe {")
                || line.contains("unsafe fn")
                || line.contains("unsafe impl")
            {
                violations
                    .push(format!("{path}:{number}: unsafe code outside of {UNSAFE_FILES:?}"));
            }
        }
    }
    check(&violations);
}

#[test]
fn every_file_opens_with_why_and_fits_in_a_head() {
    let mut violations = Vec::new();
    for directory in ["src", "tests"] {
        for (path, text) in sources(directory) {
            if path.ends_with("/tests.rs") {
                continue;
            }
            if !text.starts_with("//!") && !is_generated(&text) {
                violations.push(format!("{path}:1: open the file with a `//!` line that says why"));
            }
            let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
            if lines > FILE_LINES_MAX && !is_generated(&text) {
                violations.push(format!(
                    "{path}:1: {lines} lines without tests; split by meaning at {FILE_LINES_MAX}"
                ));
            }
        }
    }
    check(&violations);
}

#[test]
fn nothing_is_left_for_later_in_silence() {
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["X", "XX"].concat()];
    let mut violations = Vec::new();
    for directory in ["src", "tests", "python"] {
        for (path, text) in sources(directory) {
            for (index, line) in text.lines().enumerate() {
                if marks.iter().any(|mark| line.contains(mark.as_str())) {
                    violations
                        .push(format!("{path}:{}: finish it, or refuse it clearly", index + 1));
                }
            }
        }
    }
    check(&violations);
}

/// The APIs that are answered: Kafka's number, our name, and the versions as the documents write
/// them.
fn served() -> Vec<(i16, String, String)> {
    ApiKey::ALL
        .iter()
        .filter(|key| key.is_served())
        .map(|key| {
            let versions = key.versions();
            let range = if versions.min == versions.max {
                format!("v{}", versions.max)
            } else {
                format!("v{}-v{}", versions.min, versions.max)
            };
            (key.to_i16(), format!("{key:?}"), range)
        })
        .collect()
}

/// A handler's file opens with a line `//! Fetch: v4-v18.` for each API that it answers.
#[test]
fn every_handler_states_the_versions_that_are_served() {
    let served = served();
    let mut seen = BTreeSet::new();
    let mut violations = Vec::new();
    for (path, text) in sources("src/broker/handlers") {
        for line in text.lines().take_while(|line| line.starts_with("//!")) {
            let line = line.replace('\u{2013}', "-");
            for (_, name, range) in &served {
                let Some(stated) = line.strip_prefix(&format!("//! {name}: ")) else { continue };
                if stated.trim_end_matches('.') != range {
                    violations.push(format!("{path}:1: `{line}`, but {range} is served"));
                }
                seen.insert(name.clone());
            }
        }
    }
    for (_, name, range) in &served {
        if !seen.contains(name) {
            violations.push(format!("src/broker/handlers: no file opens `//! {name}: {range}.`"));
        }
    }
    check(&violations);
}

#[test]
fn decisions_are_numbered_without_gaps_and_listed() {
    let directory = root().join("src/manual/decisions");
    let mut names: Vec<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| Path::new(name).extension().is_some_and(|found| found == "md"))
        .collect();
    names.sort();
    let index = fs::read_to_string(root().join("src/manual/mod.rs")).unwrap();
    let mut violations = Vec::new();
    for (position, name) in names.iter().enumerate() {
        if !name.starts_with(&format!("{:04}-", position + 1)) {
            violations.push(format!("{name}: expected number {:04}", position + 1));
        }
        if !index.contains(name.as_str()) {
            violations.push(format!("src/manual/mod.rs: does not include {name}"));
        }
    }
    check(&violations);
}

/// The table of `src/manual/compatibility.md` is made from the table of APIs; `OTTLA_UPDATE=1`
/// writes it.
#[test]
fn the_compatibility_page_lists_what_is_served() {
    let mut table = String::from("| key | API | versions |\n|---|---|---|\n");
    for (number, name, range) in served() {
        let _ = writeln!(table, "| {number} | {name} | {range} |");
    }
    let page = root().join("src/manual/compatibility.md");
    check_section(&page, "apis", &table, "cargo test --test tidy");
}

#[test]
fn the_changelog_has_an_unreleased_section_on_top() {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let first = text.lines().find(|line| line.starts_with("## ")).unwrap_or_default();
    assert_eq!(first, "## Unreleased");
}
