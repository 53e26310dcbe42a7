//! The rules for names of topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::command::Refusal;
use crate::error::ErrorCode;

/// The longest name: a directory on disk is named after the topic.
const LENGTH_MAX: usize = 249;

/// The log of the metadata has a directory beside those of topics; no topic may have its name.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Checks the name of a topic: 1 to 249 of the characters `a-z A-Z 0-9 . _ -`, not `.` or `..`.
///
/// # Errors
///
/// `INVALID_TOPIC_EXCEPTION`.
pub fn check_topic_name(name: &str) -> Result<(), Refusal> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let why = if name.is_empty() {
        "it is empty".to_owned()
    } else if name == "." || name == ".." {
        "it cannot be '.' or '..'".to_owned()
    } else if name.len() > LENGTH_MAX {
        format!("it is longer than {LENGTH_MAX} characters")
    } else if !name.bytes().all(legal) {
        "it contains characters other than ASCII letters, digits, '.', '_' and '-'".to_owned()
    } else {
        return Ok(());
    };
    // A hostile name is not repeated in full.
    let shown: String = name.chars().take(LENGTH_MAX).collect();
    let message = format!("topic name '{}' is not valid: {why}", shown.escape_debug());
    Err(Refusal::new(ErrorCode::InvalidTopicException, message))
}

/// Whether two names may collide with others in metrics, where `.` becomes `_`.
fn may_collide(name: &str) -> bool {
    name.contains(['.', '_'])
}

fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

/// The names that another name could collide with.
#[derive(Debug, Default)]
pub(super) struct Collisions {
    keys: BTreeMap<String, Arc<str>>,
}

impl Collisions {
    /// Takes the existing names.
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> Self {
        let mut collisions = Self::default();
        for name in names {
            collisions.insert(name);
        }
        collisions
    }

    pub(super) fn insert(&mut self, name: &Arc<str>) {
        if may_collide(name) {
            self.keys.insert(collision_key(name), name.clone());
        }
    }

    /// The other name that `name` collides with.
    pub(super) fn find(&self, name: &str) -> Option<&Arc<str>> {
        if !may_collide(name) {
            return None;
        }
        self.keys.get(&collision_key(name)).filter(|other| &***other != name)
    }
}
