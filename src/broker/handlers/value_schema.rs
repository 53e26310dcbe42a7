//! What `ottla.tier.value.schema` says is checked here, before the controller stores it: the controller knows no formats of
//! values.

use crate::config::{TIER_VALUE_SCHEMA, TIER_VALUE_SCHEMA_BYTES_MAX};
use crate::error::ErrorCode;
use crate::machine::controller::Refusal;
use crate::tier::ValueSchema;

/// Fails if the settings give typed columns that there cannot be.
pub(super) fn check_value_schema<'a>(
    settings: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<(), Refusal> {
    for (name, value) in settings {
        let text = value.unwrap_or_default().trim();
        // What is too long the controller refuses, and nobody reads it before.
        if name != TIER_VALUE_SCHEMA || text.is_empty() || text.len() > TIER_VALUE_SCHEMA_BYTES_MAX
        {
            continue;
        }
        ValueSchema::parse(text).map_err(|error| {
            let text = format!("Invalid value for configuration {TIER_VALUE_SCHEMA}: {error}");
            Refusal::new(ErrorCode::InvalidConfig, text)
        })?;
    }
    Ok(())
}
