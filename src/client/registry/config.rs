//! How to reach a registry.

use std::time::Duration;

use super::http::decoded;
use crate::error::{Error, Result};

/// How the client authenticates with the registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum RegistryAuth {
    /// Without authentication.
    #[default]
    None,
    /// A user with a password.
    Basic {
        /// The user's name, or the API key.
        username: String,
        /// The password, or the API secret.
        password: String,
    },
    /// With a token.
    Bearer(String),
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

/// How to reach a registry.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// One URL, or several of the same registry, tried in turn.
    pub urls: Vec<String>,
    /// How the client authenticates.
    pub auth: RegistryAuth,
    /// The certificates to trust, in PEM; by default those of the public authorities.
    pub ca_pem: Option<Vec<u8>>,
    /// How long one call may take.
    pub timeout: Duration,
}

impl RegistryConfig {
    /// A registry at a URL, or at several separated by commas. A user and password in
    /// the URL are taken as [`RegistryAuth::Basic`].
    ///
    /// # Errors
    ///
    /// When a URL is not `http` or `https`.
    pub fn new(urls: &str) -> Result<Self> {
        let mut auth = RegistryAuth::None;
        let mut parsed = Vec::new();
        for url in urls.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
            if scheme != "http" && scheme != "https" {
                return Err(Error::invalid(format!(
                    "schema registry {url:?} is not a URL; write http://… or https://…"
                )));
            }
            let host_end = rest.find('/').unwrap_or(rest.len());
            let (host, path) = rest.split_at(host_end);
            let host = match host.rsplit_once('@') {
                Some((user, host)) => {
                    let (username, password) = user.split_once(':').unwrap_or((user, ""));
                    let (username, password) = (decoded(username), decoded(password));
                    auth = RegistryAuth::Basic { username, password };
                    host
                }
                None => host,
            };
            parsed.push(format!("{scheme}://{host}{}", path.trim_end_matches('/')));
        }
        if parsed.is_empty() {
            return Err(Error::invalid("the URL of the schema registry is empty"));
        }
        Ok(Self { urls: parsed, auth, ca_pem: None, timeout: Duration::from_secs(10) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_may_carry_a_user_and_be_several() {
        let config =
            RegistryConfig::new("http://me:p%40ss@one:8081/, https://two/registry/").unwrap();
        assert_eq!(config.urls, ["http://one:8081", "https://two/registry"]);
        let auth = RegistryAuth::Basic { username: "me".into(), password: "p@ss".into() };
        assert_eq!(config.auth, auth);
        assert!(!format!("{config:?}").contains("p@ss"), "secrets are not shown");
        assert!(RegistryConfig::new("one:8081").is_err());
        assert!(RegistryConfig::new(" ,").is_err());
    }
}
