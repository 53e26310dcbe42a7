//! What a setting says about where the tier is.

use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use url::Url;

use super::cloud::scheme_of;
use crate::error::{Error, Result};

/// Schemes of object stores.
const CLOUD: [&str; 8] = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "https"];

/// Where a tier is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a folder.
    Folder(PathBuf),
    /// In a bucket.
    Cloud(Url),
}

impl Location {
    /// Reads a `file:` URL, the absolute path of a folder, or the URL of a bucket and maybe a prefix in it, such as
    /// `s3://bucket/prefix`, `gs://bucket`, `az://container`.
    ///
    /// # Errors
    ///
    /// An invalid argument that says what is expected.
    pub fn parse(text: &str) -> Result<Self> {
        let expected = || {
            format!(
                "{text:?} is no place for the tier: expected file:///path/to/a/folder, s3://bucket/prefix, gs://… or az://…"
            )
        };
        let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        if scheme.is_some_and(|scheme| CLOUD.contains(&scheme.as_str())) {
            let url = Url::parse(text).map_err(|_malformed| Error::invalid(expected()))?;
            scheme_of(&url)?;
            return Ok(Self::Cloud(url));
        }
        let path = match text.strip_prefix("file:") {
            None => PathBuf::from(text),
            Some(rest) => {
                let rest = rest.strip_prefix("//").unwrap_or(rest);
                let rest = rest.strip_prefix("localhost").unwrap_or(rest);
                let decoded = percent_decode_str(rest).decode_utf8();
                local(&decoded.map_err(|_not_utf8| Error::invalid(expected()))?)
            }
        };
        if !path.is_absolute() {
            return Err(Error::invalid(expected()));
        }
        Ok(Self::Folder(path))
    }
}

/// The path of a URL: on Windows, a drive is behind a slash.
fn local(path: &str) -> PathBuf {
    let drive = path.strip_prefix('/').filter(|rest| cfg!(windows) && rest.get(1..2) == Some(":"));
    Path::new(drive.unwrap_or(path)).to_path_buf()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_by_url_or_path() {
        let folder = |path: &str| Location::Folder(PathBuf::from(path));
        for (text, path) in [
            ("file:///var/tier", "/var/tier"),
            ("file:/var/tier", "/var/tier"),
            ("file://localhost/var/my%20tier", "/var/my tier"),
            ("/var/tier", "/var/tier"),
        ] {
            assert_eq!(Location::parse(text).unwrap(), folder(path), "{text}");
        }
        for text in ["", "tier", "file:tier", "file://host/tier", "ftp://x", "s3:", "https://x/y"] {
            assert!(Location::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bucket_is_named_by_its_url() {
        for text in ["s3://bucket", "S3://bucket/some/where", "gs://bucket/x", "az://container"] {
            assert!(matches!(Location::parse(text).unwrap(), Location::Cloud(_)), "{text}");
        }
    }
}
