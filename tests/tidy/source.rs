//! A source file as the rules see it: its code without comments and without test modules, and the
//! modules that it imports.

/// A file of the tree: the path from the root, and the text.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// The module of the file: `src/log/segment.rs` and `src/log.rs` are both in `log`.
    pub(crate) fn room(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let first = inner.split('/').next().unwrap_or(inner);
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Whether a program wrote it.
    pub(crate) fn is_generated(&self) -> bool {
        self.text.lines().next().is_some_and(|line| line.contains("@generated"))
    }

    /// The lines of code, numbered from 1: without comments and without test modules. Code after a
    /// test module is still code.
    pub(crate) fn code(&self) -> Vec<(usize, &str)> {
        let mut lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let mut code = Vec::new();
        while let Some((number, line)) = lines.next() {
            if line.trim() == "#[cfg(test)]" {
                let mut held = vec![(number, line)];
                let attributes = |line: &str| line.trim_start().starts_with("#[");
                let item = loop {
                    match lines.next() {
                        Some((number, line)) if attributes(line) => held.push((number, line)),
                        other => break other,
                    }
                };
                let Some((number, item)) = item else { break };
                if !is_module(item) {
                    // A helper for tests: it is code of this file, like its module.
                    code.extend(held);
                    code.push((number, item));
                } else if item.ends_with('{') {
                    // rustfmt puts the closing brace below the first character of the item.
                    let indentation = item.len() - item.trim_start().len();
                    let end = format!("{}}}", &item[..indentation]);
                    lines.by_ref().find(|(_, line)| *line == end);
                }
            } else if !line.trim_start().starts_with("//") {
                code.push((number, line));
            }
        }
        code
    }

    /// The names after `crate::`, including those of a list in braces, with their lines.
    pub(crate) fn imports(&self) -> Vec<(usize, String)> {
        let code = self.code();
        let mut found = Vec::new();
        for (index, (number, line)) in code.iter().enumerate() {
            for (position, start) in line.match_indices("crate::") {
                // `$crate::` is the same crate, `other_crate::` is another.
                let before = line[..position].chars().next_back();
                if before.is_some_and(|one| one.is_alphanumeric() || one == '_') {
                    continue;
                }
                let behind = &line[position + start.len()..];
                if behind.starts_with('{') {
                    let rest = code.get(index + 1..).unwrap_or_default();
                    found.extend(listed(behind, *number, rest));
                } else {
                    found.push((*number, identifier(behind)));
                }
            }
        }
        found
    }
}

fn is_module(item: &str) -> bool {
    let item = item.trim_start();
    let item = match item.strip_prefix("pub") {
        Some(rest) => rest.trim_start_matches(|one: char| one != ' ').trim_start(),
        None => item,
    };
    item.starts_with("mod ")
}

/// The identifier that a text begins with.
pub(crate) fn identifier(text: &str) -> String {
    text.chars().take_while(|one| one.is_alphanumeric() || *one == '_').collect()
}

/// The first names in `{a::b, c::{d, e}}`, which may continue over the lines of `rest`.
fn listed(first: &str, number: usize, rest: &[(usize, &str)]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let (mut depth, mut begins) = (0_usize, false);
    let lines = std::iter::once((number, first)).chain(rest.iter().copied());
    for (number, line) in lines {
        for (position, one) in line.char_indices() {
            match one {
                '{' => {
                    depth += 1;
                    begins = depth == 1;
                }
                '}' if depth == 1 => return found,
                '}' => depth -= 1,
                ',' if depth == 1 => begins = true,
                _ if begins && !one.is_whitespace() => {
                    found.push((number, identifier(&line[position..])));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    found
}
