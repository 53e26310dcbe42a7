//! Manual pages with a table that is generated from the code.

use std::fs;
use std::path::Path;

/// Checks that the table between the marks of a section is the given one; `OTTLA_UPDATE=1` writes
/// it. `command` is what a person runs to do so.
pub(crate) fn check_section(page: &Path, section: &str, table: &str, command: &str) {
    let (begin, end) = (format!("<!-- {section}: begin -->\n"), format!("<!-- {section}: end -->"));
    let text = fs::read_to_string(page).unwrap();
    let (before, rest) = text.split_once(&begin).unwrap();
    let (_, after) = rest.split_once(&end).unwrap();
    let wanted = format!("{before}{begin}{table}{end}{after}");
    if std::env::var_os("OTTLA_UPDATE").is_some() {
        fs::write(page, &wanted).unwrap();
    }
    let current = fs::read_to_string(page).unwrap();
    assert!(current == wanted, "run: OTTLA_UPDATE=1 {command}");
}
