//! The names of files and directories: Apache Kafka's, and `.ottla_registration`.
//!
//! ```text
//! DATA/                                   a log directory
//! ├── .lock                               held while a broker runs
//! ├── meta.properties                     which cluster, node and directory this is
//! ├── .kafka_cleanshutdown                written last on a clean stop, removed at start
//! ├── .ottla_registration                 as which broker, and since which start of the machine, it is used
//! ├── recovery-point-offset-checkpoint    up to where each log was synced
//! ├── log-start-offset-checkpoint         where each log starts, when not at a segment
//! ├── replication-offset-checkpoint       the high watermarks
//! ├── cleaner-offset-checkpoint           up to where compacted logs are clean
//! ├── TOPIC-N/                            one partition
//! │   ├── partition.metadata              the topic id
//! │   ├── leader-epoch-checkpoint         where each leader's term starts
//! │   ├── 00000000000000000000.log        batches; the name is the first offset
//! │   ├── 00000000000000000000.index      offset → position
//! │   ├── 00000000000000000000.timeindex  timestamp → offset
//! │   ├── 00000000000000000000.txnindex   aborted transactions, when there are any
//! │   └── 00000000000000000042.snapshot   the producers as of offset 42
//! ├── TOPIC-N.UUID-delete/                a deleted partition
//! └── TOPIC-N.UUID-stray/                 one that the metadata do not know; kept
//! ```

use std::path::{Path, PathBuf};

use crate::types::Offset;

pub(super) const LOG: &str = "log";
pub(super) const OFFSET_INDEX: &str = "index";
pub(super) const TIME_INDEX: &str = "timeindex";
pub(super) const TXN_INDEX: &str = "txnindex";
pub(super) const SNAPSHOT: &str = "snapshot";
/// Added to the name of a file that is about to be removed.
pub(super) const DELETED: &str = ".deleted";
/// Added to the name of a file that compaction is writing; removed at the next start.
pub(super) const CLEANED: &str = ".cleaned";
/// Added to the name of a file that compaction has written and is moving into place; finished at
/// the next start.
pub(super) const SWAP: &str = ".swap";
/// Added to the name of a file that is being written atomically; removed at the next start.
pub(super) const TEMPORARY: &str = ".tmp";

pub(super) const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
pub(super) const PARTITION_METADATA: &str = "partition.metadata";
pub(super) const META_PROPERTIES: &str = "meta.properties";
pub(super) const LOCK: &str = ".lock";
pub(super) const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
pub(super) const REGISTRATION: &str = ".ottla_registration";
pub(super) const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
pub(super) const LOG_START_OFFSETS: &str = "log-start-offset-checkpoint";
pub(super) const CLEANER_OFFSETS: &str = "cleaner-offset-checkpoint";
pub(super) const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";

/// The path of one of a segment's files.
pub(super) fn file(directory: &Path, base_offset: Offset, extension: &str) -> PathBuf {
    directory.join(format!("{:020}.{extension}", base_offset.0))
}

/// The base offset and the extension of a segment's file; none for other files.
pub(super) fn parse(name: &str) -> Option<(Offset, &str)> {
    let (digits, extension) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((Offset(digits.parse().ok()?), extension))
}

/// `path` with `suffix` appended to its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas_and_come_back() {
        let path = file(Path::new("/data/t-0"), Offset(42), TIME_INDEX);
        assert_eq!(path, Path::new("/data/t-0/00000000000000000042.timeindex"));
        assert_eq!(parse("00000000000000000042.timeindex"), Some((Offset(42), "timeindex")));
        assert_eq!(parse("00000000000000000042.log.deleted"), Some((Offset(42), "log.deleted")));
        for name in
            ["42.log", "0000000000000000004x.log", "partition.metadata", "99999999999999999999.log"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
