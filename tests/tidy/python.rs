//! The rules of the Python package: its layers, and the size of its files.

use std::collections::BTreeSet;

use crate::rules::FILE_LINES_MAX;
use crate::source::{File, identifier};

/// The package's files in rows, from the top down. A file imports only from rows below its own, so
/// there is no circle. `_ottla` is the extension.
const LAYERS: &[&[&str]] = &[
    &["demo"],
    // The package, and what other programs start or load by its name.
    &["__init__", "__main__", "spark", "testing"],
    &["_cluster"],
    &["_broker", "_producer"],
    // A client is its parts together; each builds on a connection.
    &["_client"],
    &["_topic"],
    &["_admin", "_consumer", "_tabling", "_transactions", "_watching", "_windowing"],
    &["_topic_table", "_windows"],
    &["_groups", "_reader", "_scanning", "_writing"],
    &["_scan"],
    &["_scan_parts", "_spark_options"],
    &["_committing", "_connection", "_table_columns", "formats", "sql_offsets"],
    &["_lazy", "_offsets", "_runs", "_schemas", "_server"],
    // What users pass, converted for the extension.
    &["_bounds", "_format", "_membership"],
    &[
        "_engines",
        "_names",
        "_records",
        "_registry",
        "_settings",
        "_spark_types",
        "_tables",
        "_tier",
        "_types",
    ],
    // How Python objects become Arrow arrays.
    &["_objects"],
    &["_moments"],
    &["_values"],
    &[
        "_aio",
        "_arguments",
        "_closing",
        "_description",
        "_embedded",
        "_exit",
        "_frames",
        "_imported",
        "_progress",
        "errors",
    ],
    &["_kafka_columns", "typing"],
    &["_ottla"],
];

const PACKAGE: &str = "ottla";

fn row(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn module(file: &File) -> &str {
    let name = file.path.rsplit('/').next().unwrap_or(&file.path);
    name.strip_suffix(".py").unwrap_or(name)
}

/// Imports only go down the rows, also those within functions and for type checkers.
pub(crate) fn imports_that_go_up(files: &[File]) -> Vec<String> {
    let mut violations = Vec::new();
    for file in files {
        let (path, here) = (&file.path, module(file));
        let Some(own) = row(here) else {
            violations.push(format!("{path}:1: `{here}` is not in the table of layers"));
            continue;
        };
        for (number, target) in imports(file) {
            match row(&target) {
                None => violations.push(format!("{path}:{number}: there is no `{target}`")),
                Some(below) if below > own => {}
                Some(_) => violations.push(format!(
                    "{path}:{number}: `{here}` must not import `{target}`, which is not below it"
                )),
            }
        }
    }
    violations
}

/// The table names no file that is gone.
pub(crate) fn rows_without_a_file(files: &[File]) -> Vec<String> {
    let there: BTreeSet<&str> = files.iter().map(module).collect();
    let named = LAYERS.iter().copied().flatten().filter(|name| **name != "_ottla");
    let gone = named.filter(|name| !there.contains(**name));
    gone.map(|name| format!("tests/tidy/python.rs: there is no file `{name}.py`")).collect()
}

/// A file opens with why it exists, and is short enough to understand.
pub(crate) fn files_without_a_reason_or_too_long(files: &[File]) -> Vec<String> {
    let mut violations = Vec::new();
    for file in files {
        let path = &file.path;
        let first = file.text.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
        if !first.starts_with("\"\"\"") {
            violations.push(format!("{path}:1: open the file with a docstring that says why"));
        }
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            violations
                .push(format!("{path}:1: {lines} lines; split by meaning at {FILE_LINES_MAX}"));
        }
    }
    violations
}

/// The files of the package that a file imports, with the lines.
fn imports(file: &File) -> Vec<(usize, String)> {
    let code = code(file);
    let mut found = Vec::new();
    for (index, (number, line)) in code.iter().enumerate() {
        if let Some(rest) = line.strip_prefix("import ") {
            for one in rest.split(',') {
                let mut parts = one.trim().split('.');
                if parts.next().map(identifier).as_deref() == Some(PACKAGE) {
                    found.push((*number, parts.next().map_or_else(package, identifier)));
                }
            }
        } else if let Some((from, names)) =
            line.strip_prefix("from ").and_then(|rest| rest.split_once(" import "))
        {
            let inner = from.strip_prefix(PACKAGE).or_else(|| from.strip_prefix('.'));
            match inner {
                // Of the package itself: its files, or what it exports.
                Some("") => {
                    let rest = code.get(index + 1..).unwrap_or_default();
                    found.extend(listed(names, rest).into_iter().map(|name| {
                        (*number, if row(&name).is_some() { name } else { package() })
                    }));
                }
                Some(inner) if from.starts_with('.') || inner.starts_with('.') => {
                    found.push((*number, identifier(inner.trim_start_matches('.'))));
                }
                _ => {}
            }
        }
    }
    found
}

fn package() -> String {
    "__init__".to_owned()
}

/// The names after `import`, which continue over the lines of `rest` within parentheses.
fn listed(names: &str, rest: &[(usize, &str)]) -> Vec<String> {
    let mut text = names.to_owned();
    if names.starts_with('(') {
        let mut lines = rest.iter().map(|(_, line)| *line);
        while !text.contains(')') {
            let Some(line) = lines.next() else { break };
            text.push_str(line);
        }
    }
    let names = text.split(',').map(|one| identifier(one.trim_matches([' ', '(', ')'])));
    names.filter(|name| !name.is_empty()).collect()
}

/// The lines of code, numbered from 1, without their indentation, comments and docstrings.
fn code(file: &File) -> Vec<(usize, &str)> {
    let mut is_text = false;
    let mut code = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let line = line.trim();
        let quotes = line.matches("\"\"\"").count();
        if !is_text && quotes == 0 && !line.starts_with('#') {
            code.push((index + 1, line));
        }
        is_text ^= quotes % 2 == 1;
    }
    code
}
