//! Topics as files: a scan is written in the layout of the [tier](crate::tier), one file after the other for each
//! partition, and such files are checked.
//!
//! It works with any cluster that the client can read, and needs nothing of the broker's. What is written is what the
//! scan shows, with everything that is needed to get the batches back.
//!
//! - `ARC-1` A file has its name once it is complete, was synced, and was read back; until then it ends in `.tmp`.
//! - `ARC-2` Of one partition a folder has each offset once: a second file with offsets that are there is refused.

mod file;
mod partition;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::client::Scan;
use crate::error::{Error, Result};
use crate::tier::{TierFile, Totals, check, names};
use crate::types::{Offset, PartitionIndex};

use file::DiskFile;
use partition::PartitionFiles;

/// A file that was written, or checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveFile {
    /// Its path.
    pub path: PathBuf,
    /// The name of the topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset.
    pub base_offset: Offset,
    /// The offset behind the last one.
    pub end_offset: Offset,
    /// What it holds.
    pub totals: Totals,
    /// Its size.
    pub file_bytes: u64,
}

/// Writes what a scan shows to files below `root`; `progress` is told how many offsets are done.
///
/// Without an error, the files hold all of the range. With one, files that were complete before stay.
///
/// # Errors
///
/// An invalid argument when the folder has offsets of the range already; [`Error::DataLoss`] and what a broker refuses;
/// [`Error::Io`].
pub async fn write(
    scan: &Scan,
    root: &Path,
    mut progress: impl FnMut(i64),
) -> Result<Vec<ArchiveFile>> {
    let offsets = scan.offsets();
    let ranges = || offsets.partitions.iter().filter(|(_, range)| !range.is_empty());
    let folder = |index: PartitionIndex| root.join(names::folder(&offsets.topic, index));
    for (&index, range) in ranges() {
        refuse_overlap(&folder(index), (range.start, range.end))?;
    }
    let (mut written, mut before) = (Vec::new(), 0);
    // One after the other: a row group is in memory until it is written.
    for (&index, &range) in ranges() {
        let topic = (offsets.topic.as_str(), offsets.topic_id);
        let mut files = PartitionFiles::new(folder(index), topic, index, range);
        let mut reader = scan.read_batches(index);
        while let Some(scanned) = reader.next().await? {
            files.append(&scanned)?;
            progress(before + files.done());
        }
        before += range.end.since(range.start);
        progress(before);
        written.extend(files.finish()?);
    }
    Ok(written)
}

/// `ARC-2`.
fn refuse_overlap(folder: &Path, (start, end): (Offset, Offset)) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("list", folder, error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("list", folder, error))?;
        let name = entry.file_name();
        let Some((base, last)) = name.to_str().and_then(names::offsets) else { continue };
        if base < end && start < last {
            return Err(Error::invalid(format!(
                "{} has offsets {base} to {last} already, so offsets {start} to {end} would be there twice: \
                 start at {last}, or write to another folder",
                folder.display()
            )));
        }
    }
    Ok(())
}

/// Checks a file: all checksums, every batch, and that it is what its path says.
///
/// # Errors
///
/// [`Error::Corrupt`] with the place of the damage; [`Error::Io`].
pub fn verify(path: &Path) -> Result<ArchiveFile> {
    let source = DiskFile::open(path)?;
    let file_bytes = source.size_bytes();
    let file = TierFile::open(path, Arc::new(source))?;
    check(&file)?;
    let about = file.about();
    let told = path.file_name().and_then(|name| name.to_str()).and_then(names::offsets);
    if told.is_some_and(|told| told != (about.base_offset, about.end_offset)) {
        let (base, end) = (about.base_offset, about.end_offset);
        let detail = format!("it holds offsets {base} to {end}, which its name does not say");
        return Err(Error::corrupt(path, 0, detail));
    }
    let folder = names::folder(&about.topic, about.partition);
    let is_moved = path.parent().is_some_and(|parent| {
        let is_named = parent
            .file_name()
            .is_some_and(|name| name.to_str().is_some_and(|name| name.starts_with("partition=")));
        is_named && !parent.ends_with(&folder)
    });
    if is_moved {
        let detail = format!("it is of {folder}, and in the folder of another partition");
        return Err(Error::corrupt(path, 0, detail));
    }
    Ok(ArchiveFile {
        path: path.to_path_buf(),
        topic: about.topic.clone(),
        partition: about.partition,
        base_offset: about.base_offset,
        end_offset: about.end_offset,
        totals: file.totals(),
        file_bytes,
    })
}

/// The files of an archive: `path` itself, or all files below it whose names are of the layout, in order.
///
/// # Errors
///
/// [`Error::Io`].
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io("list", path, error);
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut entries: Vec<_> =
        fs::read_dir(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type().map_err(failed)?.is_dir() {
            // What is ours alone, as readers of Parquet have it.
            if !name.starts_with(['_', '.']) {
                found.extend(files(&entry.path())?);
            }
        } else if names::offsets(&name).is_some() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
