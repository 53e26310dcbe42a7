//! The syntax of `listeners` and `advertised.listeners`: `NAME://host:port`, separated by commas.

use std::fmt;

use super::ConfigError;
use super::definition::split_list;

/// The security protocol of a listener; the numbers are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum SecurityProtocol {
    /// Neither encryption nor authentication.
    Plaintext = 0,
}

/// An address on which a broker listens, or which it gives to its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The name before `://`.
    pub name: String,
    /// Its security protocol.
    pub protocol: SecurityProtocol,
    /// The host or address, without the brackets of IPv6; `None` means every interface.
    pub host: Option<String>,
    /// The port; 0 picks a free one.
    pub port: u16,
}

impl fmt::Display for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or_default();
        if host.contains(':') {
            write!(formatter, "{}://[{host}]:{}", self.name, self.port)
        } else {
            write!(formatter, "{}://{host}:{}", self.name, self.port)
        }
    }
}

/// Reads a list of listeners.
///
/// # Errors
///
/// [`ConfigError`] for invalid syntax, and for security protocols that this version does not have.
pub fn parse_listeners(setting: &str, value: &str) -> Result<Vec<Listener>, ConfigError> {
    parse(value).map_err(|why| {
        ConfigError::new(
            setting,
            format!("invalid value {value} for configuration {setting}: {why}"),
        )
    })
}

/// The check that the table refers to.
pub(super) fn check_listeners(value: &str) -> Result<(), String> {
    parse(value).map(|_| ())
}

fn parse(value: &str) -> Result<Vec<Listener>, String> {
    let listeners = split_list(value).map(parse_one).collect::<Result<Vec<_>, _>>()?;
    if listeners.is_empty() {
        return Err("must name an address, for example PLAINTEXT://localhost:9092".to_owned());
    }
    Ok(listeners)
}

fn parse_one(text: &str) -> Result<Listener, String> {
    let form = || format!("\"{text}\" does not have the form NAME://host:port");
    let (name, address) = text.split_once("://").ok_or_else(form)?;
    let name = name.to_ascii_uppercase();
    match name.as_str() {
        "PLAINTEXT" => {}
        "SSL" | "SASL_PLAINTEXT" | "SASL_SSL" => {
            return Err(format!("{name} needs security, which this version does not have"));
        }
        _ => return Err(format!("unknown listener name {name}; use PLAINTEXT")),
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
    let port = port.parse().map_err(|_error| format!("\"{port}\" is not a port"))?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.contains(['/', '[', ']', ' ']) || (bare == host && host.contains(':')) {
        return Err(form());
    }
    let host = (!bare.is_empty()).then(|| bare.to_owned());
    Ok(Listener { name, protocol: SecurityProtocol::Plaintext, host, port })
}
