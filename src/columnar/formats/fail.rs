//! Why a value of a binary format cannot be read.

use std::fmt;

use super::json::explain;

/// What is wrong with a value, and in which field.
#[derive(Debug)]
pub(in crate::columnar) struct Fail(Box<(String, String)>);

impl Fail {
    #[cold]
    pub(in crate::columnar) fn new(detail: impl Into<String>) -> Self {
        Self(Box::new((String::new(), detail.into())))
    }

    #[cold]
    pub(in crate::columnar) fn under(mut self, name: &str) -> Self {
        let path = &mut self.0.0;
        let joint = if path.is_empty() { "" } else { "." };
        *path = format!("{name}{joint}{path}");
        self
    }
}

impl Fail {
    /// The same for a value being written, whose field is a column.
    #[cold]
    pub(in crate::columnar) fn in_column(&self) -> String {
        let (path, detail) = &*self.0;
        format!("column {path:?}: {detail}")
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, detail) = &*self.0;
        if path.is_empty() {
            formatter.write_str(detail)
        } else {
            write!(formatter, "field {path:?}: {detail}")
        }
    }
}

/// The same with a part of the value, for people.
#[cold]
pub(in crate::columnar) fn with_excerpt(detail: impl fmt::Display, value: &[u8]) -> String {
    format!("{detail}; the value of {} bytes: {}", value.len(), explain::excerpt(value, 0))
}

/// The result of reading a part of a value.
pub(in crate::columnar) type Read<T = ()> = Result<T, Fail>;

#[cold]
pub(in crate::columnar) fn ends_early() -> Fail {
    Fail::new("the value ends early")
}

#[cold]
pub(in crate::columnar) fn not_utf8() -> Fail {
    Fail::new("the text is not UTF-8")
}
