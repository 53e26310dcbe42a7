//! The house rules that no compiler checks: layers, sizes, the list of unsafe files, and
//! documents that must agree with the code.
//!
//! Think hard before changing the table of layers in `rules.rs`: it is the architecture.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod public;
mod python;
mod rules;
mod samples;
mod source;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use ottla::protocol::api::ApiKey;

#[path = "../support/page.rs"]
mod page;

use page::check_section;
use source::File;

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

/// The files below `directory` whose names end in `extension`.
fn sources(directory: &str, extension: &str) -> Vec<File> {
    let mut paths = Vec::new();
    files_below(&root().join(directory), extension, &mut paths);
    paths
        .into_iter()
        .map(|path| File {
            path: path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(),
            text: fs::read_to_string(&path).unwrap(),
        })
        .collect()
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
    check(&rules::imports_that_go_up(&sources("src", "rs")));
}

#[test]
fn the_table_of_layers_allows_nothing_that_nobody_uses() {
    check(&rules::layers_that_nobody_uses(&sources("src", "rs")));
}

#[test]
fn each_room_keeps_silent_about_what_it_must_not_know() {
    check(&rules::words_out_of_place(&sources("src", "rs")));
}

#[test]
fn unsafe_code_stays_in_its_few_files() {
    check(&rules::unsafe_code_elsewhere(&sources("src", "rs")));
}

#[test]
fn every_file_opens_with_why_and_fits_in_a_head() {
    for directory in ["src", "tests"] {
        check(&rules::files_without_a_reason_or_too_long(&sources(directory, "rs")));
    }
}

#[test]
fn python_files_import_only_what_is_below_them() {
    let files = sources("python/ottla", "py");
    check(&python::imports_that_go_up(&files));
    check(&python::rows_without_a_file(&files));
}

#[test]
fn every_python_file_opens_with_why_and_fits_in_a_head() {
    for directory in ["python", "tests"] {
        check(&python::files_without_a_reason_or_too_long(&sources(directory, "py")));
    }
}

#[test]
fn nothing_is_public_that_nobody_uses() {
    let mut files = sources("src", "rs");
    // The rule itself names some.
    files.extend(sources("tests", "rs").into_iter().filter(|file| !file.path.contains("/tidy/")));
    check(&public::items_that_nobody_uses(&files));
}

#[test]
fn nothing_is_left_for_later_in_silence() {
    for (directory, extension) in
        [("src", "rs"), ("tests", "rs"), ("tests", "py"), ("python", "py")]
    {
        check(&rules::marks_of_unfinished_work(&sources(directory, extension)));
    }
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
    for File { path, text } in sources("src/broker/handlers", "rs") {
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
