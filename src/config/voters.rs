//! The syntax of the lists of nodes: `controller.quorum.voters`, which is `id@host:port`, separated by commas, and
//! `controller.quorum.bootstrap.servers`, which is the same without ids.

use std::fmt;

use super::ConfigError;
use super::definition::split_list;

/// The names of the settings.
pub(super) const BOOTSTRAP: &str = "controller.quorum.bootstrap.servers";
pub(super) const VOTERS: &str = "controller.quorum.voters";

/// A node that stores the metadata, and where the other nodes reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumVoter {
    /// The node.
    pub id: i32,
    /// The host or address, without the brackets of IPv6.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl QuorumVoter {
    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        address_text(&self.host, self.port)
    }
}

/// `host:port`, with brackets around an address of IPv6.
pub(super) fn address_text(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl fmt::Display for QuorumVoter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.id, self.address())
    }
}

/// Reads the list of voters, which may be empty.
///
/// # Errors
///
/// [`ConfigError`] for invalid syntax, and for a node or an address that is there twice.
pub(super) fn parse_voters(value: &str) -> Result<Vec<QuorumVoter>, ConfigError> {
    parse(value).map_err(|why| {
        let text = format!("invalid value {value} for configuration {VOTERS}: {why}");
        ConfigError::new(VOTERS, text)
    })
}

/// The check that the table refers to.
pub(super) fn check_voters(value: &str) -> Result<(), String> {
    parse(value).map(|_| ())
}

fn parse(value: &str) -> Result<Vec<QuorumVoter>, String> {
    let mut voters: Vec<QuorumVoter> = Vec::new();
    for text in split_list(value) {
        let voter = parse_one(text)?;
        if voters.iter().any(|known| known.id == voter.id) {
            return Err(format!("node {} is there twice", voter.id));
        }
        let is_there = |known: &&QuorumVoter| {
            known.port == voter.port && known.host.eq_ignore_ascii_case(&voter.host)
        };
        if let Some(known) = voters.iter().find(is_there) {
            return Err(format!("{known} and {voter} have the same address"));
        }
        voters.push(voter);
    }
    Ok(voters)
}

/// The check that the table refers to, of a list of addresses.
pub(super) fn check_addresses(value: &str) -> Result<(), String> {
    parse_addresses(value).map(|_| ())
}

/// Reads a list of `host:port`, which may be empty. What is there twice counts once.
pub(super) fn parse_addresses(value: &str) -> Result<Vec<(String, u16)>, String> {
    let mut addresses = Vec::new();
    for text in split_list(value) {
        let address = parse_address(text, text, "host:port")?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn parse_one(text: &str) -> Result<QuorumVoter, String> {
    let form = || format!("\"{text}\" does not have the form id@host:port");
    let (id, address) = text.split_once('@').ok_or_else(form)?;
    let id = id.trim().parse().ok().filter(|id: &i32| *id >= 0);
    let id = id.ok_or_else(form)?;
    let (host, port) = parse_address(text, address, "id@host:port")?;
    Ok(QuorumVoter { id, host, port })
}

/// `text` is what the user wrote, for the error.
fn parse_address(text: &str, address: &str, wanted: &str) -> Result<(String, u16), String> {
    let form = || format!("\"{text}\" does not have the form {wanted}");
    let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
    let port = port.trim().parse().ok().filter(|port: &u16| *port != 0);
    let port = port.ok_or_else(|| format!("\"{text}\" does not have a port from 1 to 65535"))?;
    let host = host.trim();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.is_empty()
        || bare.contains(['/', '[', ']', ' ', '@'])
        || (bare == host && host.contains(':'))
    {
        return Err(form());
    }
    Ok((bare.to_owned(), port))
}
