//! Files of the operating system, and the memory mappings that readers share.
//!
//! # Why a mapped read cannot crash the process
//!
//! Touching a page of a mapping that lies beyond the end of its file raises SIGBUS, and we live in
//! the user's process. Three rules, all enforced in this file, prevent it:
//!
//! - `MAP-1`: [`Mapping::slice`] hands out a range only when the file is known to be that long.
//! - `MAP-2`: every handed-out range raises the file's *fence*; [`File::set_len`] below the fence and
//!   [`File::write_all_at`] below the fence are refused. So bytes that were handed out are neither
//!   truncated nor changed (`&[u8]` must not change under its holder). A fence stays, because a
//!   socket that was given bytes by reference ([`Mapping::stored`]) may need them longer than their
//!   holder.
//! - `MAP-3`: [`OpenMode::CreateEmpty`] and [`Disk::rename`] never empty an existing file in place: a new inode
//!   takes the name, and the old one lives until its last mapping is gone. The same applies to
//!   removal.
//!
//! What remains outside is another process that truncates the files. The directory's lock keeps
//! other brokers out. There is no defence against `truncate(1)` by hand (Kafka has none either),
//! nor against a disk that cannot read a page (which would be an I/O error in a read call).
//!
//! For writing, the fence is per open handle: the log maps the segment that it writes to through the handle that it
//! writes with. For cutting, it is also that of the file, whoever has mapped it in this process, as long as
//! anything of it is held ([`HANDED_OUT`]).
//!
//! On Unix one mapping of the segment's largest size serves the file as it grows: address space only, no
//! memory. Elsewhere a mapping cannot be longer than its file, so it is re-created when the file
//! has grown.

#![allow(unsafe_code, reason = "a mapping is memory that someone else could truncate")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use memmap2::{MmapOptions, MmapRaw};

use super::to_timestamp;
use crate::env::{DirEntry, Disk, File, Lock, Mapping, OpenMode};
use crate::types::{Stored, TimestampMs};

/// The file systems of this machine.
#[derive(Debug, Default)]
pub struct RealDisk;

impl RealDisk {
    /// The file systems of this machine.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true);
            }
            OpenMode::CreateEmpty => {
                // MAP-3: never O_TRUNC, since someone may have the old file mapped.
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                options.write(true).create_new(true);
            }
        }
        let file = options.open(path)?;
        Ok(Arc::new(RealFile { file: Arc::new(file), fence: Arc::default(), seen: Arc::default() }))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed between the listing and the check.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            entries.push(DirEntry {
                name,
                is_dir: metadata.is_dir(),
                size_bytes: metadata.len(),
                modified: metadata.modified().map_or(TimestampMs::NONE, to_timestamp),
            });
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut current = Some(path);
        while let Some(directory) = current {
            if directory.as_os_str().is_empty() || fs::exists(directory)? {
                break;
            }
            missing.push(directory);
            current = directory.parent();
        }
        fs::create_dir_all(path)?;
        for directory in missing.iter().rev() {
            match directory.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent)?,
                _ => self.sync_dir(Path::new("."))?,
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    #[cfg(unix)]
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {
                // For whoever finds the lock taken; not worth failing over.
                let noted = file.set_len(0).and_then(|()| {
                    write_vectored(&file, &[format!("{}\n", std::process::id()).as_bytes()], 0)
                });
                drop(noted);
                Ok(Some(Box::new(RealLock { file, process: std::process::id() })))
            }
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        space(path).map(|(free, _)| free)
    }

    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        space(path).map(|(_, total)| total)
    }

    fn open_files_max(&self) -> Option<u64> {
        #[cfg(unix)]
        return rlimit::Resource::NOFILE.get_soft().ok().filter(|&limit| limit < rlimit::INFINITY);
        #[cfg(not(unix))]
        return None;
    }

    #[cfg(target_os = "linux")]
    fn boot_id(&self) -> Option<String> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned()).filter(|id| !id.is_empty())
    }

    #[cfg(not(target_os = "linux"))]
    fn boot_id(&self) -> Option<String> {
        None
    }
}

/// The free and the total bytes of a file system.
#[cfg(unix)]
fn space(path: &Path) -> io::Result<(u64, u64)> {
    let answer = nix::sys::statvfs::statvfs(path)?;
    #[allow(clippy::useless_conversion, reason = "the fields are narrower on other platforms")]
    let bytes = |blocks| u64::from(blocks).saturating_mul(u64::from(answer.fragment_size()));
    Ok((bytes(answer.blocks_available()), bytes(answer.blocks())))
}

#[cfg(not(unix))]
fn space(_path: &Path) -> io::Result<(u64, u64)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Released by the operating system when the file closes, even after a crash.
#[derive(Debug)]
struct RealLock {
    file: fs::File,
    process: u32,
}

impl Drop for RealLock {
    /// A process that is being started right now holds the file a moment longer than we do, so closing
    /// it does not yet release the lock. A forked child must leave the lock to its parent.
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.file.unlock().ok();
        }
    }
}

impl Lock for RealLock {}

/// What was handed out of a file, for as long as somebody holds a part of it.
#[derive(Debug)]
struct HandedOut {
    key: FileKey,
    /// The end of what was handed out.
    end: AtomicU64,
}

/// Device and inode.
type FileKey = (u64, u64);

/// The files of which something is mapped in this process.
static HANDED_OUT: Mutex<BTreeMap<FileKey, Weak<HandedOut>>> = Mutex::new(BTreeMap::new());

#[cfg(unix)]
fn file_key(metadata: &fs::Metadata) -> FileKey {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// Elsewhere all files count as one: none is cut while anything is mapped.
#[cfg(not(unix))]
fn file_key(_metadata: &fs::Metadata) -> FileKey {
    (0, 0)
}

impl HandedOut {
    /// What is known of a file that is about to be mapped.
    fn of(metadata: &fs::Metadata) -> Arc<Self> {
        let key = file_key(metadata);
        let mut files = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = files.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let new = Arc::new(Self { key, end: AtomicU64::new(0) });
        files.insert(key, Arc::downgrade(&new));
        new
    }

    /// The end of what is held of a file.
    fn end(metadata: &fs::Metadata) -> u64 {
        let known = {
            let files = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
            files.get(&file_key(metadata)).and_then(Weak::upgrade)
        };
        // Not with the list locked: this may be the last reference by now.
        known.map_or(0, |known| known.end.load(Ordering::Acquire))
    }
}

impl Drop for HandedOut {
    fn drop(&mut self) {
        let mut files = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
        // The file may have been mapped again meanwhile.
        if files.get(&self.key).is_some_and(|known| known.strong_count() == 0) {
            files.remove(&self.key);
        }
    }
}

/// A part of the address space that shows a file.
#[derive(Debug)]
struct Mapped {
    map: MmapRaw,
    handed_out: Arc<HandedOut>,
}

#[derive(Debug)]
struct RealFile {
    file: Arc<fs::File>,
    /// The end of what was handed out of a mapping. See `MAP-2`.
    fence: Arc<AtomicU64>,
    /// The length that the file is known to have. See `MAP-1`.
    seen: Arc<AtomicU64>,
}

impl RealFile {
    fn check_fence(&self, position: u64) -> io::Result<()> {
        let fence = self.fence.load(Ordering::Acquire);
        if position < fence {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "byte {position} is in a range that was handed to readers, which ends at \
                     {fence}"
                ),
            ));
        }
        Ok(())
    }
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(&*self.file, buffer, position);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_read(&*self.file, buffer, position);
    }

    fn write_all_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        self.check_fence(position)?;
        write_vectored(&self.file, parts, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_fence(len)?;
        if self.is_handed_out(len)? {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("somebody holds bytes of the file beyond byte {len}"),
            ));
        }
        self.file.set_len(len)?;
        self.seen.fetch_min(len, Ordering::AcqRel);
        Ok(())
    }

    fn is_handed_out(&self, position: u64) -> io::Result<bool> {
        Ok(HandedOut::end(&self.file.metadata()?) > position)
    }

    fn map(&self, limit: u64) -> io::Result<Arc<dyn Mapping>> {
        let metadata = self.file.metadata()?;
        let len = metadata.len();
        self.seen.fetch_max(len, Ordering::AcqRel);
        let mapping = RealMapping {
            map: Mutex::new(None),
            limit,
            seen: Arc::clone(&self.seen),
            fence: Arc::clone(&self.fence),
            handed_out: HandedOut::of(&metadata),
            file: (len < limit || cfg!(not(unix)) || may_stay_open(&self.file))
                .then(|| Arc::clone(&self.file)),
        };
        mapping.map_to(&self.file, if cfg!(unix) { limit } else { len.min(limit) })?;
        Ok(Arc::new(mapping))
    }
}

/// How many buffers one `pwritev` takes at least on every Unix.
#[cfg(unix)]
const VECTOR_COUNT_MAX: usize = 1024;

#[cfg(unix)]
fn write_vectored(file: &fs::File, parts: &[&[u8]], mut position: u64) -> io::Result<()> {
    let mut slices: Vec<io::IoSlice<'_>> =
        parts.iter().filter(|part| !part.is_empty()).map(|part| io::IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        let count = rest.len().min(VECTOR_COUNT_MAX);
        let offset = position.try_into().map_err(io::Error::other)?;
        match nix::sys::uio::pwritev(file, rest.get(..count).unwrap_or_default(), offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += written as u64;
                io::IoSlice::advance_slices(&mut rest, written);
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(windows)]
fn write_vectored(file: &fs::File, parts: &[&[u8]], mut position: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let written = file.seek_write(rest, position)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            position += written as u64;
            rest = rest.get(written..).unwrap_or_default();
        }
    }
    Ok(())
}

#[derive(Debug)]
struct RealMapping {
    /// Created once on Unix; replaced by a longer one elsewhere. Slices hold their own reference.
    map: Mutex<Option<Arc<Mapped>>>,
    limit: u64,
    /// The length that the file is known to have. See `MAP-1`.
    seen: Arc<AtomicU64>,
    fence: Arc<AtomicU64>,
    handed_out: Arc<HandedOut>,
    /// The file while it may still grow, and afterwards for sockets.
    file: Option<Arc<fs::File>>,
}

/// Whether a file may stay open only for sockets. Its descriptor tells how many are open, since the
/// lowest free number is assigned: beyond half of what the process may open, bytes go to sockets as
/// a copy.
#[cfg(target_os = "linux")]
fn may_stay_open(file: &fs::File) -> bool {
    use std::os::fd::AsRawFd;
    let limit = rlimit::Resource::NOFILE.get_soft().unwrap_or(0);
    u64::try_from(file.as_raw_fd()).is_ok_and(|number| number < limit / 2)
}

#[cfg(not(target_os = "linux"))]
fn may_stay_open(_file: &fs::File) -> bool {
    false
}

impl RealMapping {
    fn map_to(&self, file: &fs::File, len: u64) -> io::Result<Option<Arc<Mapped>>> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        if len == 0 {
            return Ok(None); // an empty mapping is an error on most systems
        }
        let map = MmapOptions::new().len(len).map_raw_read_only(file)?;
        let map = Arc::new(Mapped { map, handed_out: Arc::clone(&self.handed_out) });
        *self.map.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&map));
        Ok(Some(map))
    }

    /// The mapping, when it is long enough; otherwise a new one, when the file is.
    fn covering(&self, end: u64) -> io::Result<Arc<Mapped>> {
        let beyond = || {
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("byte {end} lies beyond the end of the mapped file"),
            )
        };
        if end > self.limit {
            return Err(beyond());
        }
        if end > self.seen.load(Ordering::Acquire) {
            let len = match &self.file {
                Some(file) => file.metadata()?.len(),
                None => return Err(beyond()),
            };
            if end > len {
                return Err(beyond());
            }
            self.seen.fetch_max(len, Ordering::AcqRel);
        }
        let current = self.map.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match current {
            Some(map) if map.map.len() as u64 >= end => Ok(map),
            _ => match &self.file {
                Some(file) => {
                    let len = self.seen.load(Ordering::Acquire).min(self.limit);
                    self.map_to(file, len)?.ok_or_else(beyond)
                }
                None => Err(beyond()),
            },
        }
    }
}

impl Mapping for RealMapping {
    fn slice(self: Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let map = self.covering(range.end)?;
        let bounds = || -> Option<(usize, usize)> {
            let start = usize::try_from(range.start).ok()?;
            let end = usize::try_from(range.end).ok()?;
            (end <= map.map.len()).then_some((start, end.checked_sub(start)?))
        };
        let (start, len) = bounds().ok_or(io::ErrorKind::InvalidInput)?;
        self.fence.fetch_max(range.end, Ordering::AcqRel);
        map.handed_out.end.fetch_max(range.end, Ordering::AcqRel);
        Ok(Bytes::from_owner(MappedRange { map, start, len }))
    }

    fn stored(&self, position: u64) -> Option<Stored> {
        if cfg!(not(target_os = "linux")) {
            return None;
        }
        let file = Arc::clone(self.file.as_ref()?);
        Some(Stored { file, position })
    }

    fn prefault(&self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Ok(map) = self.covering(range.end) else { return };
        let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end))
        else {
            return;
        };
        #[cfg(target_os = "linux")]
        {
            // Kernels before 5.14 answer EINVAL; the reader then faults the pages in itself.
            const PAGE: usize = 4096;
            let start = start / PAGE * PAGE;
            if map.map.advise_range(memmap2::Advice::PopulateRead, start, end - start).is_err() {
                drop(map.map.advise_range(memmap2::Advice::WillNeed, start, end - start));
            }
        }
        #[cfg(all(unix, not(target_os = "linux")))]
        drop(map.map.advise_range(memmap2::Advice::WillNeed, start, end - start));
        #[cfg(not(unix))]
        drop((map, start, end));
    }
}

/// A range of a mapping, as the owner of a [`Bytes`].
#[derive(Debug)]
struct MappedRange {
    map: Arc<Mapped>,
    start: usize,
    len: usize,
}

impl AsRef<[u8]> for MappedRange {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `slice` checked that the range lies within the mapping, which `self.map` keeps alive.
        let start = unsafe { self.map.map.as_ptr().add(self.start) };
        // SAFETY: the range lies within the mapping and, by MAP-1, within the file, so its pages are
        // readable; by MAP-2 and MAP-3 the file is not cut below its end and the bytes do not change
        // while this owner lives.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        (directory, path)
    }

    #[test]
    fn a_mapping_made_early_sees_what_is_written_later_and_outlives_the_file() {
        let (directory, path) = temporary();
        let disk = RealDisk::new();
        let file = disk.open(&path, OpenMode::Create).unwrap();
        let mapping = file.map(1 << 20).unwrap();
        assert!(Arc::clone(&mapping).slice(0..1).is_err(), "nothing is readable yet");
        file.write_all_at(&[b"hello ", b"world"], 0).unwrap();
        let hello = Arc::clone(&mapping).slice(0..5).unwrap();
        assert_eq!(&hello[..], b"hello");
        assert!(Arc::clone(&mapping).slice(0..12).is_err(), "one byte too many");
        let later = vec![7_u8; 300_000];
        file.write_all_at(&[&later], 11).unwrap();
        mapping.prefault(0..300_011);
        let all = mapping.slice(11..300_011).unwrap();
        drop(file);
        directory.close().unwrap();
        assert_eq!(&hello[..], b"hello");
        assert!(all.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn what_was_handed_out_is_neither_cut_nor_overwritten() {
        let (_directory, path) = temporary();
        let disk = RealDisk::new();
        let file = disk.open(&path, OpenMode::Create).unwrap();
        file.write_all_at(&[b"0123456789"], 0).unwrap();
        let mapping = file.map(4096).unwrap();
        let slice = Arc::clone(&mapping).slice(2..6).unwrap();
        assert!(file.set_len(5).is_err());
        assert!(file.write_all_at(&[b"x"], 5).is_err());
        file.write_all_at(&[b"xyz"], 6).unwrap();
        file.set_len(6).unwrap();
        assert!(Arc::clone(&mapping).slice(5..7).is_err(), "the file became shorter");
        file.write_all_at(&[b"XYZ"], 6).unwrap();
        assert_eq!(&mapping.slice(5..9).unwrap()[..], b"5XYZ");
        let replaced = disk.open(&path, OpenMode::CreateEmpty).unwrap();
        assert_eq!(replaced.len().unwrap(), 0);
        assert_eq!(&slice[..], b"2345");
    }

    #[test]
    fn nobody_cuts_what_is_held_through_another_handle() {
        let (_directory, path) = temporary();
        let disk = RealDisk::new();
        disk.open(&path, OpenMode::Create).unwrap().write_all_at(&[b"0123456789"], 0).unwrap();
        let slice = disk.open(&path, OpenMode::Read).unwrap().map(10).unwrap().slice(2..6).unwrap();
        let other = disk.open(&path, OpenMode::ReadWrite).unwrap();
        assert!(other.is_handed_out(5).unwrap() && !other.is_handed_out(6).unwrap());
        other.set_len(5).unwrap_err();
        other.set_len(6).unwrap();
        drop(slice);
        assert!(!other.is_handed_out(0).unwrap());
        other.set_len(0).unwrap();
        assert!(!HANDED_OUT.lock().unwrap().contains_key(&file_key(&path.metadata().unwrap())));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_finds_the_bytes_of_a_mapping_in_its_file() {
        use std::os::unix::fs::FileExt;
        let (_directory, path) = temporary();
        let disk = RealDisk::new();
        let file = disk.open(&path, OpenMode::Create).unwrap();
        let growing = file.map(1 << 20).unwrap();
        file.write_all_at(&[b"0123456789"], 0).unwrap();
        let sealed = disk.open(&path, OpenMode::Read).unwrap().map(10).unwrap();
        disk.remove_file(&path).unwrap();
        for mapping in [growing, sealed] {
            let stored = mapping.stored(4).unwrap();
            let mut found = [0; 3];
            stored.file.read_exact_at(&mut found, stored.position).unwrap();
            assert_eq!(found[..], mapping.slice(4..7).unwrap()[..]);
        }
    }

    #[test]
    fn a_lock_is_held_once() {
        let (_directory, path) = temporary();
        let disk = RealDisk::new();
        let held = disk.lock(&path).unwrap();
        assert!(held.is_some());
        assert!(disk.lock(&path).unwrap().is_none());
        drop(held);
        assert!(disk.lock(&path).unwrap().is_some());
    }

    #[test]
    fn an_atomic_write_leaves_no_temporary_file() {
        let (directory, path) = temporary();
        let disk = RealDisk::new();
        disk.write_atomically(&path, b"one").unwrap();
        disk.write_atomically(&path, b"two").unwrap();
        assert_eq!(disk.read(&path).unwrap().unwrap(), b"two");
        assert_eq!(disk.read_dir(directory.path()).unwrap().len(), 1);
        assert!(disk.free_bytes(directory.path()).unwrap() > 0);
        assert_eq!(disk.read(&directory.path().join("none")).unwrap(), None);
    }
}
