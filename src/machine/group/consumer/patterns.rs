//! Topics by regular expression.
//!
//! A topic matches when its whole name does.

use regex::Regex;

use crate::error::ErrorCode;
use crate::machine::group::record::RegularExpressionValue;
use crate::machine::group::{GroupError, TopicsView};
use crate::machine::pattern::{self, PATTERN_BYTES_MAX};
use crate::types::TimestampMs;

/// Parses an expression.
pub(super) fn compile(group: &str, text: &str) -> Result<Regex, GroupError> {
    let refused = |why: &str| {
        let message = format!("group {group}: the regular expression {text:?} is not valid: {why}");
        GroupError::new(ErrorCode::InvalidRegularExpression, message)
    };
    if text.len() > PATTERN_BYTES_MAX {
        let message = format!(
            "group {group}: the regular expression has {} bytes; at most {PATTERN_BYTES_MAX} are allowed",
            text.len()
        );
        return Err(GroupError::new(ErrorCode::InvalidRegularExpression, message));
    }
    pattern::compile_whole(text).map_err(|error| refused(&error.to_string()))
}

/// The topics that it currently matches, in order.
pub(super) fn resolve(
    regex: &Regex,
    view: &TopicsView,
    now: TimestampMs,
) -> RegularExpressionValue {
    RegularExpressionValue {
        topics: view
            .iter()
            .filter(|topic| regex.is_match(&topic.name))
            .map(|topic| topic.name.clone())
            .collect(),
        version: 0,
        timestamp: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::group::TopicView;
    use crate::types::Uuid;

    fn matches(text: &str) -> Vec<String> {
        let view = TopicsView::new(["orders", "orders-eu", "payments"].iter().zip(1..).map(
            |(&name, number)| TopicView {
                id: Uuid([number; 16]),
                name: name.into(),
                racks: Vec::new(),
            },
        ));
        let regex = compile("g", text).unwrap();
        let value = resolve(&regex, &view, TimestampMs(7));
        value.topics.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_topic_matches_by_its_whole_name() {
        assert_eq!(matches("orders"), ["orders"]);
        assert_eq!(matches("orders.*"), ["orders", "orders-eu"]);
        assert_eq!(matches("rders"), Vec::<String>::new());
        assert_eq!(matches("orders|pay.*"), ["orders", "payments"]);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["(", "a)(b", "[z-a]", "a{1000}{1000}{1000}"] {
            assert_eq!(
                compile("g", text).unwrap_err().code,
                ErrorCode::InvalidRegularExpression,
                "{text}"
            );
        }
        assert!(compile("g", &"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
    }
}
