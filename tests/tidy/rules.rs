//! The rules: pure functions of files, which return their violations as lines `path:line: what to
//! do`. `samples.rs` shows each of them a file that breaks it.

use std::collections::BTreeSet;

use crate::source::File;

/// Each module of `src/`, with the modules that it may import. Imports only go down.
pub(crate) const LAYERS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("error", &["types"]),
    ("env", &["types"]),
    ("config", &["types", "error"]),
    ("record", &["types", "error"]),
    ("protocol", &["types", "error"]),
    ("connection", &["protocol", "env", "types", "error"]),
    ("log", &["record", "env", "types", "error"]),
    ("columnar", &["record", "types", "error"]),
    ("machine", &["config", "types", "error"]),
    ("store", &["env", "error"]),
    ("tier", &["columnar", "log", "record", "types", "error"]),
    (
        "client",
        &["machine", "columnar", "connection", "protocol", "record", "env", "types", "error"],
    ),
    (
        "broker",
        &[
            "machine",
            "log",
            "tier",
            "store",
            "connection",
            "protocol",
            "record",
            "config",
            "env",
            "types",
            "error",
        ],
    ),
    ("archive", &["client", "tier", "log", "record", "types", "error"]),
    ("cli", &["broker", "archive", "client", "columnar", "config", "types", "error"]),
    ("python", &["cli", "broker", "archive", "client", "columnar", "record", "types", "error"]),
    ("manual", &[]),
];

/// Words that a module must not contain outside its comments, with the reason.
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
    ("tier", &["tokio", "async ", "std::fs"], "files are made of batches, and read from a source"),
];

/// The only files that may contain `unsafe`; each has its reason in the ADR on unsafe code.
const UNSAFE_FILES: &[&str] =
    &["src/env/real/storage.rs", "src/columnar/read/decode.rs", "src/python/interop.rs"];

/// The rooms that reach the world through `env` only.
const BEHIND_THE_DOOR: &[&str] =
    &["broker", "client", "connection", "log", "machine", "record", "store"];

/// What goes around `env`, with the way through it. Timers and deadlines are tokio's.
const AROUND_THE_DOOR: &[(&str, &str)] = &[
    ("tokio::net", "`env.net` has sockets"),
    ("TcpStream", "`env.net` has sockets"),
    ("TcpListener", "`env.net` has sockets"),
    ("UdpSocket", "`env.net` has sockets"),
    ("lookup_host", "`env.net` resolves names"),
    ("to_socket_addrs", "`env.net` resolves names"),
    ("task::spawn_blocking", "`env.threads` has work that blocks"),
    ("block_in_place", "`env.threads` has work that blocks"),
    ("std::thread", "`env.threads` has threads"),
    ("thread::spawn", "`env.threads` has threads"),
    ("SystemTime", "`env.clock` tells the time"),
    ("rand::", "`env.random` has random numbers"),
    ("RandomState", "`env.random` has random numbers"),
    ("HashMap", "its order is random"),
    ("HashSet", "its order is random"),
    ("std::fs", "`env.disk` has files"),
    ("Env::real", "an `Env` is handed in"),
];

/// The exceptions, with the reason.
const WAYS_AROUND: &[(&str, &str, &str)] = &[
    ("src/broker/server.rs", "Env::real", "the way in for everyone but tests"),
    ("src/client/mod.rs", "Env::real", "the way in for everyone but tests"),
    ("src/client/registry/mod.rs", "Env::real", "the way in for everyone"),
];

pub(crate) const FILE_LINES_MAX: usize = 600;

/// Imports only go down the list.
pub(crate) fn imports_that_go_up(files: &[File]) -> Vec<String> {
    let mut violations = Vec::new();
    for file in files {
        let (path, here) = (&file.path, file.room());
        if matches!(here, "lib" | "main") {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == here) else {
            violations.push(format!("{path}:1: room `{here}` is not in the table of layers"));
            continue;
        };
        for (number, target) in file.imports() {
            if is_room(&target) && target != here && !allowed.contains(&target.as_str()) {
                violations.push(format!("{path}:{number}: `{here}` must not import `{target}`"));
            }
        }
    }
    violations
}

/// The table must not allow an import that nobody needs.
pub(crate) fn layers_that_nobody_uses(files: &[File]) -> Vec<String> {
    let mut used = BTreeSet::new();
    for file in files {
        used.extend(file.imports().into_iter().map(|(_, target)| (file.room(), target)));
    }
    let mut violations = Vec::new();
    for (here, allowed) in LAYERS {
        for target in allowed.iter().filter(|target| !used.contains(&(*here, (**target).into()))) {
            violations.push(format!("tests/tidy/rules.rs: `{here}` does not import `{target}`"));
        }
    }
    violations
}

fn is_room(name: &str) -> bool {
    LAYERS.iter().any(|(room, _)| *room == name)
}

/// A module does not mention what it must not know.
pub(crate) fn words_out_of_place(files: &[File]) -> Vec<String> {
    let mut violations = Vec::new();
    for file in files {
        let path = &file.path;
        for (room, words, reason) in SILENT.iter().filter(|(room, ..)| *room == file.room()) {
            for (number, line) in file.code() {
                for word in words.iter().filter(|word| line.contains(**word)) {
                    violations.push(format!("{path}:{number}: `{room}` says `{word}`: {reason}"));
                }
            }
        }
    }
    violations
}

/// Nothing goes around `env`: a simulation could not replay it.
pub(crate) fn ways_around_the_env(files: &[File]) -> Vec<String> {
    let mut violations = Vec::new();
    for file in files {
        let path = &file.path;
        if !BEHIND_THE_DOOR.contains(&file.room()) || path.ends_with("tests.rs") {
            continue;
        }
        let excused =
            |word: &str| WAYS_AROUND.iter().any(|(file, one, _)| path == file && *one == word);
        let code = file.code();
        for (index, (number, line)) in code.iter().enumerate() {
            for (word, way) in AROUND_THE_DOOR.iter().filter(|(word, _)| line.contains(word)) {
                if !excused(word) {
                    violations.push(format!("{path}:{number}: `{word}` goes around `env`: {way}"));
                }
            }
            if line.contains("std::time::") && line.contains("Instant") && !excused("Instant") {
                violations.push(format!("{path}:{number}: deadlines are of `tokio::time`"));
            }
            let next = code.get(index + 1).map_or("", |(_, next)| next.trim());
            if line.trim_end().ends_with("select! {") && next != "biased;" {
                violations.push(format!("{path}:{number}: `select!` without `biased` is random"));
            }
        }
    }
    violations
}

/// Unsafe code stays in its few files.
pub(crate) fn unsafe_code_elsewhere(files: &[File]) -> Vec<String> {
    let mut violations = Vec::new();
    for file in files {
        let path = &file.path;
        if UNSAFE_FILES.contains(&path.as_str()) {
            continue;
        }
        for (number, line) in file.code() {
            if ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| line.contains(word)) {
                violations
                    .push(format!("{path}:{number}: unsafe code outside of {UNSAFE_FILES:?}"));
            }
        }
    }
    violations
}

/// A file opens with why it exists, and is short enough to understand.
pub(crate) fn files_without_a_reason_or_too_long(files: &[File]) -> Vec<String> {
    let mut violations = Vec::new();
    for file in files {
        let path = &file.path;
        if path.ends_with("/tests.rs") || file.is_generated() {
            continue;
        }
        if !file.text.starts_with("//!") {
            violations.push(format!("{path}:1: open the file with a `//!` line that says why"));
        }
        let lines = file.text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        if lines > FILE_LINES_MAX {
            violations.push(format!(
                "{path}:1: {lines} lines without tests; split by meaning at {FILE_LINES_MAX}"
            ));
        }
    }
    violations
}

/// Nothing is silently left for later.
pub(crate) fn marks_of_unfinished_work(files: &[File]) -> Vec<String> {
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["X", "XX"].concat()];
    let mut violations = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                let place = format!("{}:{}", file.path, index + 1);
                violations.push(format!("{place}: finish it, or refuse it clearly"));
            }
        }
    }
    violations
}
