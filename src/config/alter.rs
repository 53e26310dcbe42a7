//! Changing stored settings: SET, DELETE, APPEND and SUBTRACT.

use super::definition::split_list;
use super::{ConfigError, ConfigMap, ConfigType, Definition, Scope, UpdateMode, definition};

/// What an incremental change does; the numbers are those of `IncrementalAlterConfigs`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[repr(i8)]
pub enum AlterOp {
    /// Replace the value.
    Set = 0,
    /// Go back to the inherited value.
    Delete = 1,
    /// Add elements to a list.
    Append = 2,
    /// Remove elements from a list.
    Subtract = 3,
}

impl AlterOp {
    /// The operation that a number on the wire stands for.
    #[must_use]
    pub const fn from_i8(number: i8) -> Option<Self> {
        match number {
            0 => Some(Self::Set),
            1 => Some(Self::Delete),
            2 => Some(Self::Append),
            3 => Some(Self::Subtract),
            _ => None,
        }
    }
}

/// One incremental change of one setting.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ConfigChange {
    /// The setting.
    pub name: String,
    /// What to do.
    pub op: AlterOp,
    /// The value; not used by [`AlterOp::Delete`].
    pub value: Option<String>,
}

/// The settings after `changes`, all of them checked.
///
/// `inherited` gives the value that a list has while it is not set here: APPEND and SUBTRACT start
/// from it.
///
/// # Errors
///
/// The first change that cannot be made; in that case nothing is changed.
pub fn apply_changes(
    scope: Scope,
    current: &ConfigMap,
    changes: &[ConfigChange],
    inherited: impl Fn(&Definition) -> Option<String>,
) -> Result<ConfigMap, ConfigError> {
    let mut settings = current.clone();
    let mut seen: Vec<&str> = Vec::with_capacity(changes.len());
    for change in changes {
        if seen.contains(&change.name.as_str()) {
            let text = format!("configuration {} is changed twice in one request", change.name);
            return Err(ConfigError::new(&change.name, text));
        }
        seen.push(&change.name);
        let definition = match definition(scope, &change.name) {
            Ok(definition) => definition,
            // A setting stored by an older version and unknown to this one can still be removed.
            Err(_) if change.op == AlterOp::Delete && settings.contains_key(&change.name) => {
                settings.remove(&change.name);
                continue;
            }
            Err(error) => return Err(error),
        };
        check_dynamic(definition)?;
        let base = || {
            current
                .get(definition.name)
                .cloned()
                .or_else(|| inherited(definition))
                .unwrap_or_default()
        };
        match new_value(definition, change, base)? {
            Some(value) => {
                definition.validate(&value)?;
                settings.insert(change.name.clone(), value.trim().to_owned());
            }
            None => {
                settings.remove(&change.name);
            }
        }
    }
    Ok(settings)
}

/// Checks a complete set of settings, as sent by `CreateTopics` and the legacy `AlterConfigs`.
///
/// # Errors
///
/// The first setting that is not acceptable.
pub fn check_all(scope: Scope, settings: &ConfigMap) -> Result<(), ConfigError> {
    for (name, value) in settings {
        let definition = definition(scope, name)?;
        check_dynamic(definition)?;
        definition.validate(value)?;
    }
    Ok(())
}

fn check_dynamic(definition: &Definition) -> Result<(), ConfigError> {
    if definition.scope == Scope::Broker && definition.update == UpdateMode::ReadOnly {
        let name = definition.name;
        let text = format!(
            "{name} cannot be changed while the broker runs; set it in server.properties and restart"
        );
        return Err(ConfigError::new(name, text));
    }
    Ok(())
}

fn new_value(
    definition: &Definition,
    change: &ConfigChange,
    base: impl FnOnce() -> String,
) -> Result<Option<String>, ConfigError> {
    let name = definition.name;
    let given = || {
        change.value.as_deref().ok_or_else(|| {
            ConfigError::new(name, format!("null value not supported for configuration {name}"))
        })
    };
    let list = |verb: &str| {
        if definition.kind == ConfigType::List {
            Ok(())
        } else {
            let text = format!("can't {verb} {name}: it is not a list but a {}", definition.kind);
            Err(ConfigError::new(name, text))
        }
    };
    match change.op {
        AlterOp::Set => Ok(Some(given()?.to_owned())),
        AlterOp::Delete => Ok(None),
        AlterOp::Append => {
            list("append to")?;
            let base = base();
            let mut elements: Vec<&str> = split_list(&base).collect();
            for element in split_list(given()?) {
                if !elements.contains(&element) {
                    elements.push(element);
                }
            }
            Ok(Some(elements.join(",")))
        }
        AlterOp::Subtract => {
            list("subtract from")?;
            let removed: Vec<&str> = split_list(given()?).collect();
            let base = base();
            let left: Vec<&str> =
                split_list(&base).filter(|element| !removed.contains(element)).collect();
            Ok(Some(left.join(",")))
        }
    }
}
