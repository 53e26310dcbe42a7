//! Public items that nobody uses. The crate is no public Rust API, so nobody else can: the compiler,
//! which must assume the opposite of a library, does not find them.

use std::collections::BTreeMap;

use crate::source::{File, identifier};

/// Items of rooms under construction, with the files that have them: what a follower of a partition
/// will use.
const UNUSED_YET: &[(&str, &str)] = &[("src/log/reader.rs", "latest_epoch")];

/// Public functions and constants that no other file names, and public types that nothing names.
/// A type that only its own file names may be what a function returns. Of two items with the same
/// name, one hides the other.
pub(crate) fn items_that_nobody_uses(files: &[File]) -> Vec<String> {
    let mut users: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        for line in without_exports(file.code()).iter().map(|(_, line)| *line) {
            for word in line.split(|one: char| !one.is_alphanumeric() && one != '_') {
                users.entry(word).or_default().push(index);
            }
        }
    }
    let mut violations = Vec::new();
    for (index, file) in files.iter().enumerate().filter(|(_, file)| file.path.starts_with("src/"))
    {
        for (number, line) in file.code() {
            let Some((is_type, name)) = public_item(line) else { continue };
            let Some(used) = users.get(name.as_str()) else { continue };
            let elsewhere = used.iter().any(|user| *user != index);
            let is_used = elsewhere || (is_type && used.len() > 1);
            let (path, known) = (&file.path, (file.path.as_str(), name.as_str()));
            if UNUSED_YET.contains(&known) {
                if is_used {
                    violations.push(format!("{path}:{number}: `{name}` is used: strike it off"));
                }
            } else if !is_used {
                violations.push(format!(
                    "{path}:{number}: no other file uses `{name}`: remove it, or drop its `pub`"
                ));
            }
        }
    }
    violations
}

/// The item that a line makes public, and whether it is a type.
fn public_item(line: &str) -> Option<(bool, String)> {
    let mut words = line.trim_start().strip_prefix("pub ")?.split_whitespace().peekable();
    loop {
        match words.next()? {
            "async" | "unsafe" => {}
            "const" if words.peek() == Some(&"fn") => {}
            "fn" | "const" | "static" => return Some((false, identifier(words.next()?))),
            "struct" | "enum" | "trait" | "type" => {
                return Some((true, identifier(words.next()?)));
            }
            _ => return None,
        }
    }
}

/// Code without its `pub use`, which only passes names on.
fn without_exports(code: Vec<(usize, &str)>) -> Vec<(usize, &str)> {
    let mut is_export = false;
    let kept = code.into_iter().filter(|(_, line)| {
        let start = line.trim_start();
        is_export |= start.starts_with("pub use ") || start.starts_with("pub(crate) use ");
        let was = is_export;
        is_export &= !line.trim_end().ends_with(';');
        !was
    });
    kept.collect()
}
