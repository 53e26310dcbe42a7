//! The syntax of `controller.quorum.voters`: `id@host:port`, separated by commas.

use std::fmt;

use super::ConfigError;
use super::definition::split_list;

/// The name of the setting.
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
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
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

fn parse_one(text: &str) -> Result<QuorumVoter, String> {
    let form = || format!("\"{text}\" does not have the form id@host:port");
    let (id, address) = text.split_once('@').ok_or_else(form)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
    let id = id.trim().parse().ok().filter(|id: &i32| *id >= 0);
    let id = id.ok_or_else(form)?;
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
    Ok(QuorumVoter { id, host: bare.to_owned(), port })
}
