//! The syntax of `listeners` and `advertised.listeners`: `NAME://host:port`, separated by commas.

use std::fmt;
use std::net::IpAddr;

use super::ConfigError;
use super::definition::split_list;

/// The security protocol of a listener; the numbers are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum SecurityProtocol {
    /// Neither encryption nor authentication.
    Plaintext = 0,
}

/// A listener of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, and where it is bound.
    pub bind: ListenerAddress,
    /// Its security protocol.
    pub protocol: SecurityProtocol,
    /// Where its clients are told to connect; `None` means where they did.
    pub advertised: Option<Advertised>,
}

/// Where clients are told to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// The host or address.
    pub host: String,
    /// The port; 0 is the one that is bound.
    pub port: u16,
}

/// An address on which a broker listens, or which it gives to its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerAddress {
    /// The name before `://`.
    pub name: String,
    /// The host or address, without the brackets of IPv6; `None` means every interface.
    pub host: Option<String>,
    /// The port; 0 picks a free one.
    pub port: u16,
}

impl ListenerAddress {
    /// As an address that clients are told.
    ///
    /// # Errors
    ///
    /// It names no host that a client could connect to. Kafka refuses 0.0.0.0, too, and would guess a name of the
    /// machine where there is no host.
    pub(super) fn advertised(&self) -> Result<Advertised, String> {
        let is_any = |host: &str| host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
        match self.host.as_deref() {
            Some(host) if !is_any(host) => {
                Ok(Advertised { host: host.to_owned(), port: self.port })
            }
            _ => Err(format!(
                "{self} stands for every interface, which clients cannot connect to; name a host that they reach"
            )),
        }
    }
}

impl fmt::Display for ListenerAddress {
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
pub(super) fn parse_listeners(
    setting: &str,
    value: &str,
) -> Result<Vec<ListenerAddress>, ConfigError> {
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

/// The protocols that this version does not have.
const SECURE: [&str; 3] = ["SSL", "SASL_PLAINTEXT", "SASL_SSL"];

/// The security protocol of a listener, by `listener.security.protocol.map`.
///
/// # Errors
///
/// Why it is not one that this version has.
pub(super) fn protocol_of(name: &str, map: &str) -> Result<SecurityProtocol, String> {
    let mapped = split_list(map).find_map(|pair| {
        let (listener, protocol) = pair.split_once(':')?;
        listener.trim().eq_ignore_ascii_case(name).then(|| protocol.trim().to_ascii_uppercase())
    });
    match mapped.as_deref() {
        Some("PLAINTEXT") => Ok(SecurityProtocol::Plaintext),
        None if name == "PLAINTEXT" => Ok(SecurityProtocol::Plaintext),
        Some(protocol) => Err(format!(
            "the listener {name} has the protocol {protocol}, which needs security, which this version does not have"
        )),
        None => Err(format!(
            "the listener {name} is not in listener.security.protocol.map; use PLAINTEXT, or add {name}:PLAINTEXT to it"
        )),
    }
}

/// The check of `listener.security.protocol.map`.
pub(super) fn check_protocols(value: &str) -> Result<(), String> {
    let is_pair = |pair: &str| {
        let protocol =
            pair.split_once(':').map(|(_, protocol)| protocol.trim().to_ascii_uppercase());
        protocol.is_some_and(|name| name == "PLAINTEXT" || SECURE.contains(&name.as_str()))
    };
    match split_list(value).find(|pair| !is_pair(pair)) {
        None => Ok(()),
        Some(pair) => Err(format!("\"{pair}\" does not have the form LISTENER:PROTOCOL")),
    }
}

fn parse(value: &str) -> Result<Vec<ListenerAddress>, String> {
    let listeners = split_list(value).map(parse_one).collect::<Result<Vec<_>, _>>()?;
    if listeners.is_empty() {
        return Err("must name an address, for example PLAINTEXT://localhost:9092".to_owned());
    }
    Ok(listeners)
}

fn parse_one(text: &str) -> Result<ListenerAddress, String> {
    let form = || format!("\"{text}\" does not have the form NAME://host:port");
    let (name, address) = text.split_once("://").ok_or_else(form)?;
    let name = name.to_ascii_uppercase();
    if SECURE.contains(&name.as_str()) {
        return Err(format!("{name} needs security, which this version does not have"));
    }
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    if name.is_empty() || !name.chars().all(is_letter) {
        return Err(format!("\"{name}\" is not the name of a listener"));
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
    let port = port.parse().map_err(|_error| format!("\"{port}\" is not a port"))?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.contains(['/', '[', ']', ' ']) || (bare == host && host.contains(':')) {
        return Err(form());
    }
    let host = (!bare.is_empty()).then(|| bare.to_owned());
    Ok(ListenerAddress { name, host, port })
}
