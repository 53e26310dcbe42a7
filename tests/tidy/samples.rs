//! Files that break a rule: a rule that does not find them is worthless.

use crate::rules;
use crate::source::File;

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
fn a_way_around_the_env_is_found() {
    let said = |path, text| said(rules::ways_around_the_env, path, text);
    let broker = |text| said("src/broker/connection.rs", text);
    for line in [
        "use tokio::net::TcpSocket;\n",
        "let stream: TcpStream;\n",
        "tokio::task::spawn_blocking(work);\n",
        "std::thread::sleep(wait);\n",
        "let now = SystemTime::now();\n",
        "let number = rand::random();\n",
        "let map = HashMap::new();\n",
        "let env = Env::real();\n",
        "use std::time::{Duration, Instant};\n",
        "tokio::select! {\n    () = first => {}\n}\n",
    ] {
        assert_eq!(broker(line).len(), 1, "{line}");
        assert!(said("src/cli/broker.rs", line).is_empty());
        assert!(said("src/env/real/net.rs", line).is_empty());
    }
    assert!(broker("tokio::select! {\n    biased;\n    () = first => {}\n}\n").is_empty());
    assert!(broker("use tokio::time::Instant;\nuse std::time::Duration;\n").is_empty());
    assert!(said("src/client/mod.rs", "Self::connect_on(Env::real(), config)\n").is_empty());
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
