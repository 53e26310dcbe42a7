//! Reading the text of a `server.properties` file.

use std::fmt::Write;

use super::{ConfigError, ConfigMap};

/// Reads Java properties: `key=value`, `key: value`, comments, continued lines, escapes. If a key
/// occurs twice, the last value wins, as in Java.
///
/// The names are not checked here: [`super::BrokerConfig::resolve`] does.
///
/// # Errors
///
/// [`ConfigError`] with the line, for text that is not a properties file.
pub fn parse_properties(text: &str) -> Result<ConfigMap, ConfigError> {
    let mut settings = ConfigMap::new();
    java_properties::PropertiesIter::new(ascii(text).as_bytes())
        .read_into(|name, value| {
            settings.insert(name, value);
        })
        .map_err(|error| ConfigError::new("server.properties", error.to_string()))?;
    Ok(settings)
}

/// The same properties in ASCII: the reader assumes Latin-1 unless told otherwise through a type of
/// another crate, and the format has an escape for everything else.
fn ascii(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    escaped
}
