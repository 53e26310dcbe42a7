//! A file on this machine, as a source.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::tier::{Source, read_range};

/// An open file.
#[derive(Debug)]
pub(super) struct DiskFile {
    file: Mutex<File>,
    size: u64,
}

impl DiskFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, file) = opened.map_err(|error| Error::io("open", path, error))?;
        Ok(Self { file: Mutex::new(file), size })
    }

    pub(super) const fn size_bytes(&self) -> u64 {
        self.size
    }
}

impl Source for DiskFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let start = range.start;
        read_range(self.size, range, |bytes| {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(bytes)
        })
    }
}
