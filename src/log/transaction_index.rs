//! The `.txnindex` files: which transactions were aborted.
//!
//! An entry lies with the segment that has the marker. All of them are also in memory, for readers.
//!
//! - `TXI-1` an entry is in the file before the marker is published, or the append fails: whoever may read the records
//!   finds that they were aborted. The file is synced with the batches.
//! - `TXI-2` of a segment that reaches the recovery point, a crash may have taken or torn entries, also where a later
//!   snapshot of the producers was left: recovery rebuilds the file from the batches. It starts with a snapshot that is not
//!   behind the start of that segment.
//! - `TXI-3` a file is changed from its end, never emptied: wherever the power goes, the entries before are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::layout;
use super::producers::AbortedTransaction;
use super::segment::Home;
use super::shared::Shared;
use super::snapshot::{TRANSACTION_ENTRY_BYTES, decode_aborted, encode_aborted};
use super::writer::Log;
use crate::env::{File, OpenMode};
use crate::error::{Error, Result};
use crate::types::Offset;

fn position(entries: usize) -> u64 {
    (entries * TRANSACTION_ENTRY_BYTES) as u64
}

impl Log {
    /// Writes what the batches abort that were just written and are not published (`TXI-1`).
    pub(super) fn write_aborted(&mut self, aborted: &[AbortedTransaction]) -> Result<()> {
        if aborted.is_empty() {
            return Ok(());
        }
        let file = self.open_transaction_index()?;
        let bytes: Vec<u8> = aborted.iter().flat_map(encode_aborted).collect();
        file.write_all_at(&[&bytes], position(self.active.aborted_written))
            .map_err(|error| Error::io("write", self.transaction_index_path(), error))?;
        self.shared.dirty().grown(&file);
        self.active.aborted_written += aborted.len();
        self.shared.aborted_mut().extend_from_slice(aborted);
        Ok(())
    }

    fn open_transaction_index(&mut self) -> Result<Arc<dyn File>> {
        if let Some(file) = &self.active.transaction_index {
            return Ok(Arc::clone(file));
        }
        // Without an entry, a file of that name is of a segment that was here before.
        let is_new = self.active.aborted_written == 0;
        let mode = if is_new { OpenMode::CreateEmpty } else { OpenMode::Create };
        let path = self.transaction_index_path();
        let opened = self.home.disk.open(&path, mode);
        let file = opened.map_err(|error| Error::io("create", &path, error))?;
        if is_new {
            self.shared.dirty().directory();
        }
        self.active.transaction_index = Some(Arc::clone(&file));
        Ok(file)
    }

    fn transaction_index_path(&self) -> std::path::PathBuf {
        let base = self.active.segment.base_offset;
        layout::file(&self.home.directory, base, layout::TXN_INDEX)
    }

    /// Cuts what a failed write left behind the entries of the active segment.
    pub(super) fn clean_transaction_index(&self) -> Result<()> {
        let Some(file) = &self.active.transaction_index else { return Ok(()) };
        let cut = file.set_len(position(self.active.aborted_written));
        cut.map_err(|error| Error::io("write", self.transaction_index_path(), error))
    }

    /// Drops the entries of markers from `end` on, which is the log end offset, and those before the log start.
    pub(super) fn cut_aborted(&mut self, end: Offset) -> Result<()> {
        let (base, start) = (self.active.segment.base_offset, self.log_start_offset());
        let kept = {
            let mut aborted = self.shared.aborted_mut();
            aborted.retain(|entry| entry.last_offset < end && entry.last_offset >= start);
            aborted.iter().filter(|entry| entry.last_offset >= base).count()
        };
        self.active.transaction_index = None;
        self.active.aborted_written = kept;
        let path = self.transaction_index_path();
        let failed = |error| Error::io("write", &path, error);
        if !self.home.disk.exists(&path).map_err(failed)? {
            return Ok(());
        }
        let file = self.home.disk.open(&path, OpenMode::ReadWrite).map_err(failed)?;
        if file.len().map_err(failed)? != position(kept) {
            file.set_len(position(kept)).map_err(failed)?;
            self.shared.dirty().file(Arc::clone(&file));
        }
        self.active.transaction_index = Some(file);
        Ok(())
    }
}

/// Entries by the base offset of their segment.
pub(super) type Files = BTreeMap<Offset, Vec<AbortedTransaction>>;

/// Reads the files of the segments, and removes those of segments that are gone: a later one may begin there.
pub(super) fn read_files(
    home: &Home,
    shared: &Shared,
    bases: impl Iterator<Item = Offset>,
) -> Result<Files> {
    let view = shared.view.load();
    let mut files = Files::new();
    for base in bases {
        let path = layout::file(&home.directory, base, layout::TXN_INDEX);
        if view.segments.iter().any(|segment| segment.base_offset == base) {
            let bytes = home.disk.read(&path).map_err(|error| Error::io("read", &path, error))?;
            files.insert(base, decode_aborted(&bytes.unwrap_or_default()));
        } else {
            let removed = home.disk.remove_file(&path);
            removed.map_err(|error| Error::io("remove", &path, error))?;
            shared.dirty().directory();
        }
    }
    Ok(files)
}

/// Makes the files hold exactly the entries that are known, where they differ (`TXI-3`), and has those synced of
/// segments from `unsynced` on.
pub(super) fn mend_files(
    home: &Home,
    shared: &Shared,
    found: &Files,
    unsynced: Offset,
) -> Result<()> {
    let mut wanted = Files::new();
    {
        let view = shared.view.load();
        for entry in shared.aborted().iter() {
            if let Some(segment) = view.segments.get(view.index_of(entry.last_offset)) {
                wanted.entry(segment.base_offset).or_default().push(*entry);
            }
        }
    }
    let none = Vec::new();
    for base in wanted.keys().chain(found.keys().filter(|base| !wanted.contains_key(base))) {
        let (wanted, found) = (wanted.get(base).unwrap_or(&none), found.get(base));
        if found != Some(wanted) || *base >= unsynced {
            mend_file(home, shared, (*base, wanted), found.unwrap_or(&none))?;
        }
    }
    Ok(())
}

fn mend_file(
    home: &Home,
    shared: &Shared,
    (base, wanted): (Offset, &[AbortedTransaction]),
    found: &[AbortedTransaction],
) -> Result<()> {
    let same = found.iter().zip(wanted).take_while(|(found, wanted)| found == wanted).count();
    let rest: Vec<u8> = wanted.iter().skip(same).flat_map(encode_aborted).collect();
    let path = layout::file(&home.directory, base, layout::TXN_INDEX);
    let write = || -> std::io::Result<()> {
        let file = home.disk.open(&path, OpenMode::Create)?;
        file.write_all_at(&[&rest], position(same))?;
        file.set_len(position(wanted.len()))?;
        shared.dirty().file(file);
        Ok(())
    };
    write().map_err(|error| Error::io("write", &path, error))
}
