//! What to do with members of objects that no field names.

/// What to do with a member of an object that no field names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// It is not read: the fields say what is wanted.
    Ignore,
    /// It is an error of its row, whose fields are decoded nevertheless.
    Error,
    /// The same for what lies in the members of these names; others are not read.
    ErrorIn(&'static [&'static str]),
}

/// Looks after the members of an object, and of those in it, that no field names.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// What their names begin with in errors.
    path: String,
    /// The members in which they are errors; none for everywhere.
    only_in: &'static [&'static str],
}

impl Watch {
    /// None where no member matters.
    pub(super) const fn new(extra: Extra) -> Option<Self> {
        let only_in: &[&str] = match extra {
            Extra::Ignore => return None,
            Extra::Error => &[],
            Extra::ErrorIn(names) => names,
        };
        Some(Self { path: String::new(), only_in })
    }

    /// The same for a member.
    pub(super) fn member(&self, name: &str) -> Self {
        let only_in = if self.only_in.contains(&name) { &[] } else { self.only_in };
        Self { path: format!("{}{name}", self.path), only_in }
    }

    /// The same for what is in a member.
    pub(super) fn inside(&self, joint: &str) -> Self {
        Self { path: format!("{}{joint}", self.path), only_in: self.only_in }
    }

    /// What names begin with in errors; none if members are no errors here.
    pub(super) fn prefix(&self) -> Option<&str> {
        self.only_in.is_empty().then_some(&*self.path)
    }
}
