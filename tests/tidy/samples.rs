//! Files that break a rule: a rule that does not find them is worthless.

use crate::source::File;
use crate::{public, python, rules};

/// What a rule says about one file: each violation, without the path in front.
fn said(rule: fn(&[File]) -> Vec<String>, path: &str, text: &str) -> Vec<String> {
    let found = rule(&[File { path: path.to_owned(), text: text.to_owned() }]);
    let place = format!("{path}:");
    found.iter().map(|line| line.strip_prefix(&place).unwrap_or(line).to_owned()).collect()
}

#[test]
fn an_import_that_goes_up_is_found_in_every_form() {
    let said = |text| said(rules::imports_that_go_up, "src/log/segment.rs", text);
    assert_eq!(said("use crate::broker::Server;\n"), ["1: `log` must not import `broker`"]);
    assert_eq!(said("use crate::{env, broker::Server};\n"), ["1: `log` must not import `broker`"]);
    assert_eq!(
        said("use crate::{\n    record::{self, client},\n    python::runtime,\n};\n"),
        ["3: `log` must not import `python`"],
    );
    assert_eq!(said("fn at() {\n    crate::cli::run();\n}\n"), ["2: `log` must not import `cli`"]);
    assert!(said("use crate::{record::broker, env};\nuse my_crate::broker;\n").is_empty());
    assert!(said("// use crate::broker;\nuse crate::types::Offset;\n").is_empty());
}

#[test]
fn code_behind_a_test_module_is_code() {
    let said = |text| said(rules::imports_that_go_up, "src/log/segment.rs", text);
    let module = "#[cfg(test)]\nmod tests {\n    use crate::broker::Server;\n}\n";
    assert!(said(module).is_empty());
    let behind = format!("{module}\nuse crate::cli::run;\n");
    assert_eq!(said(&behind), ["6: `log` must not import `cli`"]);
    let elsewhere = "#[cfg(test)]\n#[path = \"more.rs\"]\nmod tests;\nuse crate::cli::run;\n";
    assert_eq!(said(elsewhere), ["4: `log` must not import `cli`"]);
    let helper = "#[cfg(test)]\nfn peek() {\n    crate::cli::run();\n}\n";
    assert_eq!(said(helper), ["3: `log` must not import `cli`"]);
}

#[test]
fn a_room_without_a_row_is_found() {
    let said = said(rules::imports_that_go_up, "src/attic/mod.rs", "");
    assert_eq!(said, ["1: room `attic` is not in the table of layers"]);
}

#[test]
fn a_door_that_nobody_uses_is_found() {
    let path = "src/error.rs";
    let used = said(rules::layers_that_nobody_uses, path, "use crate::types::Offset;\n");
    let unused = said(rules::layers_that_nobody_uses, path, "");
    let door = "tests/tidy/rules.rs: `error` does not import `types`".to_owned();
    assert!(unused.contains(&door) && !used.contains(&door));
}

#[test]
fn a_word_out_of_place_is_found() {
    let said = |text| said(rules::words_out_of_place, "src/machine/clock.rs", text);
    assert_eq!(
        said("fn now() { Instant::now(); }\n"),
        ["1: `machine` says `Instant`: decisions know no I/O and no clock"],
    );
    assert!(said("// an Instant\nfn now() {}\n").is_empty());
}

#[test]
fn unsafe_code_elsewhere_is_found() {
    let text = "fn read() {\n    unsafe { look() }\n}\n";
    assert_eq!(said(rules::unsafe_code_elsewhere, "src/log/segment.rs", text).len(), 1);
    assert!(said(rules::unsafe_code_elsewhere, "src/columnar/decode.rs", text).is_empty());
}

#[test]
fn a_file_without_a_reason_or_too_long_is_found() {
    let said = |text: &str| {
        said(rules::files_without_a_reason_or_too_long, "src/log/segment.rs", text).len()
    };
    let lines = "\n".repeat(rules::FILE_LINES_MAX);
    assert_eq!(said("fn main() {}\n"), 1);
    assert_eq!(said("//! Why.\n"), 0);
    assert_eq!(said(&format!("//! Why.\n{lines}")), 1);
    assert_eq!(said(&format!("//! Why.\n#[cfg(test)]\n{lines}")), 0);
}

#[test]
fn a_mark_of_unfinished_work_is_found() {
    let text = ["// TO", "DO: the rest\n"].concat();
    assert_eq!(said(rules::marks_of_unfinished_work, "python/ottla/a.py", &text).len(), 1);
}

#[test]
fn a_python_import_that_goes_up_is_found_in_every_form() {
    let said = |text| said(python::imports_that_go_up, "python/ottla/_scan.py", text);
    let up = |number: usize, target: &str| {
        format!("{number}: `_scan` must not import `{target}`, which is not below it")
    };
    assert_eq!(said("from ottla._client import Client\n"), [up(1, "_client")]);
    assert_eq!(said("import ottla._client as client\n"), [up(1, "_client")]);
    assert_eq!(said("from ottla import errors, _client\n"), [up(1, "_client")]);
    assert_eq!(said("from ottla import (\n    _bounds,\n    _client,\n)\n"), [up(1, "_client")]);
    assert_eq!(said("import re, ottla\n"), [up(1, "__init__")]);
    assert_eq!(said("from ottla import Broker\n"), [up(1, "__init__")]);
    assert_eq!(said("from . import _client\n"), [up(1, "_client")]);
    assert_eq!(said("from ._client import Client\n"), [up(1, "_client")]);
    let hidden = "if TYPE_CHECKING:\n    from ottla._client import Client\n";
    assert_eq!(said(hidden), [up(2, "_client")]);
    let late = "def read():\n    from ottla._client import Client\n";
    assert_eq!(said(late), [up(2, "_client")]);
    // Of two files in one row, none is below the other.
    assert_eq!(said("from ottla._writing import Writing\n"), [up(1, "_writing")]);
    assert_eq!(said("from ottla._attic import x\n"), ["1: there is no `_attic`"]);
    assert!(said("import pandas\nfrom ottla._bounds import Bound\nimport ottlax\n").is_empty());
    assert!(said("from ottlax import y\n# import ottla\n").is_empty());
    let documented = "\"\"\"Why.\n\nfrom ottla._client import Client\n\"\"\"\nimport re\n";
    assert!(said(documented).is_empty());
}

#[test]
fn a_python_file_without_a_row_and_a_row_without_a_file_are_found() {
    let attic = said(python::imports_that_go_up, "python/ottla/_attic.py", "");
    assert_eq!(attic, ["1: `_attic` is not in the table of layers"]);
    let gone = said(python::rows_without_a_file, "python/ottla/_scan.py", "");
    let sentence = |name: &str| format!("tests/tidy/python.rs: there is no file `{name}.py`");
    assert!(gone.contains(&sentence("_client")) && !gone.contains(&sentence("_scan")));
}

#[test]
fn a_python_file_without_a_reason_or_too_long_is_found() {
    let said = |text: &str| {
        said(python::files_without_a_reason_or_too_long, "python/ottla/_scan.py", text).len()
    };
    let lines = "\n".repeat(rules::FILE_LINES_MAX);
    assert_eq!(said("import re\n"), 1);
    assert_eq!(said("\"\"\"Why.\"\"\"\n"), 0);
    assert_eq!(said(&format!("\"\"\"Why.\"\"\"\n{lines}")), 1);
}

#[test]
fn a_public_item_that_nobody_uses_is_found() {
    let said = |text: &str, other: &str| {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files = [file("src/log/segment.rs", text), file("src/log/mod.rs", other)];
        public::items_that_nobody_uses(&files)
    };
    let dead = |name: &str| {
        let remedy = "remove it, or drop its `pub`";
        vec![format!("src/log/segment.rs:1: no other file uses `{name}`: {remedy}")]
    };
    assert_eq!(said("pub const fn open() {}\nfn f() { open() }\n", ""), dead("open"));
    assert_eq!(said("pub const MAX: u8 = 1;\n", "pub use segment::{\n    MAX,\n};\n"), dead("MAX"));
    assert_eq!(said("pub struct Segment;\n", "// Segment\n"), dead("Segment"));
    assert!(said("pub fn open() {}\n", "fn f() { segment::open() }\n").is_empty());
    // A type that is returned need not be named.
    assert!(said("pub struct Segment;\nfn f() -> Segment {}\n", "").is_empty());
    assert!(said("pub(crate) fn open() {}\nfn close() {}\n", "").is_empty());
    let in_tests = "#[cfg(test)]\nmod tests {\n    fn f() { open() }\n}\n";
    assert_eq!(said("pub fn open() {}\n", in_tests), dead("open"));
}
