//! Compares the answers with the recording, label by label and version by version.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::difference_table::DIFFERENCES;
use crate::differences::Difference;

/// The label under which a transcript lists the APIs whose answers it has.
pub(crate) const API_LABEL: &str = "answers of";

/// The answers under each label, by version.
pub(crate) type Answers = BTreeMap<String, BTreeMap<i16, Vec<String>>>;

/// Parses a transcript.
pub(crate) fn answers_of(text: &str) -> Answers {
    let mut answers = Answers::new();
    let mut label = String::new();
    for line in text.lines() {
        if let Some(next) = line.strip_prefix("# ") {
            next.clone_into(&mut label);
            continue;
        }
        let (versions, answer) = line.split_once(": ").unwrap();
        let (first, last) = versions.split_once('-').unwrap_or((versions, versions));
        let number = |text: &str| text.strip_prefix('v').unwrap().parse::<i16>().unwrap();
        for version in number(first)..=number(last) {
            let of_version = answers.entry(label.clone()).or_default().entry(version).or_default();
            if of_version.last().is_none_or(|before| before != answer) {
                of_version.push(answer.to_owned());
            }
        }
    }
    answers
}

/// Fails unless both are the same.
#[track_caller]
pub(crate) fn check(peer: &str, recorded: &str, answered: &str) {
    let report = compare(&answers_of(recorded), &answers_of(answered), |_, _| false);
    assert!(report.is_empty(), "{peer} answers otherwise than recorded:\n{report}");
}

/// Fails unless our broker answered as recorded, apart from exactly the listed differences.
#[track_caller]
pub(crate) fn check_with_differences(conversation: &str, recorded: &str, answered: &str) {
    let report = compare_with(DIFFERENCES, conversation, recorded, answered);
    assert!(report.is_empty(), "ottla answers otherwise than recorded and listed:\n{report}");
}

/// Differences that are not listed, and listed ones that do not occur.
fn compare_with(
    listed: &[Difference],
    conversation: &str,
    recorded: &str,
    answered: &str,
) -> String {
    let (recorded, answered) = (answers_of(recorded), answers_of(answered));
    let mut seen = BTreeSet::new();
    let mut report = compare(&recorded, &answered, |label, pair| {
        let mut text = pair.0.to_owned();
        for (number, difference) in listed.iter().enumerate() {
            if difference.places.contains(&(conversation, label)) {
                for (kafka, ours) in difference.wire {
                    let absent = kafka.is_empty();
                    if absent && text.is_empty() {
                        (*ours).clone_into(&mut text);
                        seen.insert((number, label.to_owned()));
                    } else if !absent && text.contains(kafka) {
                        text = text.replace(kafka, ours);
                        seen.insert((number, label.to_owned()));
                    }
                }
            }
        }
        text == pair.1
    });
    for (number, difference) in listed.iter().enumerate() {
        for (_, label) in difference.places.iter().filter(|place| place.0 == conversation) {
            if !seen.contains(&(number, (*label).to_owned())) {
                let what = difference.what;
                writeln!(report, "# {label}\n  the difference is gone: {what}").unwrap();
            }
        }
    }
    report
}

/// The pairs that are neither the same nor excused.
fn compare(
    recorded: &Answers,
    answered: &Answers,
    mut excused: impl FnMut(&str, (&str, &str)) -> bool,
) -> String {
    let mut report = String::new();
    let none = BTreeMap::new();
    let labels: BTreeSet<_> = recorded.keys().chain(answered.keys()).collect();
    for label in labels {
        let theirs = recorded.get(label).unwrap_or(&none);
        let ours = answered.get(label).unwrap_or(&none);
        let versions: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
        let lines = |answers: &BTreeMap<i16, Vec<String>>, version| {
            answers.get(version).map(|lines| lines.join("\n")).unwrap_or_default()
        };
        let mut pairs: Vec<_> = versions
            .into_iter()
            .map(|version| (version, lines(theirs, version), lines(ours, version)))
            .collect();
        pairs.retain(|(_, one, other)| one != other && !excused(label, (one, other)));
        for same in pairs.chunk_by(|one, next| (&one.1, &one.2) == (&next.1, &next.2)) {
            let versions: Vec<_> = same.iter().map(|pair| format!("v{}", pair.0)).collect();
            writeln!(report, "# {label} ({})", versions.join(", ")).unwrap();
            writeln!(report, "  recorded: {}\n  answered: {}", same[0].1, same[0].2).unwrap();
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &[Difference] = &[Difference {
        api: "Api",
        what: "a code",
        kafka: "1",
        ottla: "2",
        places: &[("talk", "label")],
        wire: &[("code: 1", "code: 2")],
    }];

    fn report(recorded: &str, answered: &str) -> String {
        compare_with(LISTED, "talk", recorded, answered)
    }

    #[test]
    fn a_listed_difference_passes_and_only_that_one() {
        let recorded = "# label\nv0-v1: code: 1\n# other\nv0: code: 1\n";
        assert_eq!(report(recorded, &recorded.replacen("code: 1", "code: 2", 1)), "");
        let elsewhere = report(recorded, &recorded.replace("code: 1", "code: 2"));
        assert!(elsewhere.starts_with("# other (v0)"), "{elsewhere}");
        assert!(report(recorded, &recorded.replacen("code: 1", "code: 3", 1)).contains("code: 3"));
    }

    #[test]
    fn a_difference_that_is_gone_fails() {
        let same = "# label\nv0: code: 1\n";
        assert!(report(same, same).contains("the difference is gone"));
    }

    #[test]
    fn a_version_that_is_missing_fails() {
        let both = "# other\nv0-v1: code: 1\n";
        assert!(report(both, "# other\nv0: code: 1\n").contains("v1"));
        assert!(report("# other\nv0: code: 1\n", both).contains("v1"));
    }
}
