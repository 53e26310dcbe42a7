//! Explains to a user why a value is not a JSON object.

use serde::de::IgnoredAny;

use crate::columnar::formats::registry;

/// Describes a value that cannot be parsed.
#[cold]
#[must_use]
pub fn not_json(value: &[u8]) -> String {
    if value.is_empty() {
        return "the value is empty, and JSON is not".to_owned();
    }
    if let Ok((id, rest)) = registry::unframe(value) {
        let remedy = match rest.first() {
            Some(b'{' | b'[' | b' ' | b'"') => "json(framed=True) skips the header",
            _ => "avro(registry=…) and protobuf(registry=…) read such values",
        };
        return format!(
            "the value is not JSON but begins with the header of a schema registry, with schema id \
             {id}; {remedy}: {}",
            excerpt(value, 0)
        );
    }
    let text = match std::str::from_utf8(value) {
        Ok(text) => text,
        Err(error) => {
            let at = error.valid_up_to();
            return format!(
                "the value is not JSON: byte {at} is not UTF-8: {}",
                excerpt(value, at)
            );
        }
    };
    let Err(error) = serde_json::from_str::<IgnoredAny>(text) else {
        return format!(
            "the value is not JSON: a text in it is not Unicode, or it is nested too deeply: {}",
            excerpt(value, 0)
        );
    };
    let line_start = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum::<usize>();
    let at = line_start.saturating_add(error.column().saturating_sub(1));
    if error.is_eof() {
        return format!("the value is not JSON, it ends too early: {}", excerpt(value, at));
    }
    let behind = text.get(at..).unwrap_or_default();
    if ["NaN", "Infinity", "-Infinity"].iter().any(|word| behind.starts_with(word)) {
        return format!(
            "the value is not JSON, which has no NaN and no infinity: {}",
            excerpt(value, at)
        );
    }
    format!("the value is not JSON, see position {at}: {}", excerpt(value, at))
}

/// Describes a value that is JSON but not an object.
#[cold]
pub(super) fn not_object(kind: &str, value: &[u8]) -> String {
    format!(
        "the value is {kind}, and only the members of an object are columns: {}",
        excerpt(value, 0)
    )
}

/// A part of a value around a position, for people.
#[must_use]
pub fn excerpt(value: &[u8], at: usize) -> String {
    const SHOWN_MAX: usize = 60;
    const BEFORE_MAX: usize = 20;
    let from = if value.len() <= SHOWN_MAX { 0 } else { at.saturating_sub(BEFORE_MAX) };
    let until = from.saturating_add(SHOWN_MAX).min(value.len());
    let shown = value.get(from..until).unwrap_or_default();
    let text = shown.escape_ascii().to_string().replace("\\\"", "\"").replace("\\'", "'");
    // Text that is not ASCII is shown unescaped.
    let text = match std::str::from_utf8(shown) {
        Ok(one) if one.chars().all(|one| !one.is_control()) => one.to_owned(),
        _ => text,
    };
    let before = if from > 0 { "…" } else { "" };
    let behind = if until < value.len() { "…" } else { "" };
    format!("{before}{text}{behind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_is_told_in_plain_words_with_an_excerpt() {
        for (value, wanted) in [
            (&b""[..], "the value is empty, and JSON is not"),
            (b"ping", "the value is not JSON, see position 0: ping"),
            (b"{\"a\": 1", "the value is not JSON, it ends too early: {\"a\": 1"),
            (
                b"{\"a\": NaN}",
                "the value is not JSON, which has no NaN and no infinity: {\"a\": NaN}",
            ),
            (b"gr\xfc\xdfe", "the value is not JSON: byte 2 is not UTF-8: gr\\xfc\\xdfe"),
        ] {
            assert_eq!(not_json(value), wanted);
        }
        let framed = not_json(b"\0\0\0\0\x07{\"id\": 1}");
        assert!(framed.contains("schema id 7; json(framed=True)"), "{framed}");
        let framed = not_json(b"\0\0\0\0\x07\x02");
        assert!(framed.contains("schema id 7; avro(registry=…)"), "{framed}");
        let mut long = b"{\"a\": \"".to_vec();
        long.extend([b'x'; 500]);
        long.extend(b"\", oops");
        let told = not_json(&long);
        assert!(told.ends_with("xxx\", oops") && told.len() < 140, "{told}");
    }
}
