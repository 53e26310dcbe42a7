//! What a setting says about where the tier is.

use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};

/// Schemes of stores that are known, and not served.
const NOT_SERVED: [&str; 9] = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "http", "https"];

/// Where a tier is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a folder.
    Folder(PathBuf),
}

impl Location {
    /// Reads a `file:` URL, or the absolute path of a folder.
    ///
    /// # Errors
    ///
    /// An invalid argument that says what is expected.
    pub fn parse(text: &str) -> Result<Self> {
        let expected =
            || format!("{text:?} is no place for the tier: expected file:///path/to/a/folder");
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        if let Some(scheme) =
            scheme.filter(|scheme| NOT_SERVED.contains(&scheme.to_ascii_lowercase().as_str()))
        {
            return Err(Error::invalid(format!(
                "{text:?}: a tier in an object store ({scheme}:) is not supported yet, only one in a folder: file:///path/to/a/folder"
            )));
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
        for text in
            ["", "tier", "file:tier", "file://host/tier", "s3://bucket", "gs://b", "ftp://x"]
        {
            assert!(Location::parse(text).is_err(), "{text}");
        }
        assert!(Location::parse("S3://b").unwrap_err().to_string().contains("not supported yet"));
    }
}
