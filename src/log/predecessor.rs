//! What the last process that used a log directory has left in it: all that it wrote, or only what it synced.
//!
//! Why: a replica that may lack records that it once had must not count as in sync (KIP-966). Apache Kafka takes every
//! end but a clean shutdown for a loss. But what a process wrote lies in the page cache, which outlives the process
//! and ends with the machine. So while it runs a process leaves a note with its registration and the start of the
//! machine; whoever comes next finds in it that the machine has not been started since, and that nothing is lost.
//!
//! - `LEFT-1` a note that is missing, damaged or of another start of the machine proves nothing. It need not be written
//!   before anything else is: the controller compares its registration with the last one that it knows.
//! - `LEFT-2` a sync that failed may have dropped pages that the next process could still read for a while: the note is
//!   removed when the directory goes offline.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::layout;
use crate::env::{Disk, Env};
use crate::error::{Error, Result};
use crate::types::BrokerEpoch;

/// The last process that used a directory as a registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// Its registration.
    pub broker_epoch: BrokerEpoch,
    /// Whether everything that it wrote is there; what it synced always is.
    pub left_all: bool,
    /// Its `durability`, of topics without one of their own; `None` when that is not known.
    pub durability: Option<String>,
}

/// The registration of a process, as it notes it for the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Note {
    version: u16,
    broker_epoch: BrokerEpoch,
    boot_id: Option<String>,
    durability: Option<String>,
}

/// As Kafka writes it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CleanShutdown {
    version: u16,
    broker_epoch: i64,
}

const NOTE_VERSION: u16 = 1;

impl Note {
    fn read(env: &Env, directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(layout::REGISTRATION);
        let bytes = env.disk.read(&path).map_err(|error| Error::io("read", &path, error))?;
        let note: Option<Self> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(note.filter(|note| note.version == NOTE_VERSION))
    }

    fn write(&self, env: &Env, directory: &Path) -> Result<()> {
        let path = directory.join(layout::REGISTRATION);
        let json =
            serde_json::to_vec(self).map_err(|error| Error::invalid(format!("a note: {error}")))?;
        let written = env.disk.write_atomically(&path, &json);
        written.map_err(|error| Error::io("write", &path, error))
    }
}

/// Notes that a process uses the directory as the broker with this registration.
pub(super) fn note(
    env: &Env,
    directory: &Path,
    broker_epoch: BrokerEpoch,
    durability: Option<String>,
) -> Result<()> {
    let boot_id = env.disk.boot_id();
    Note { version: NOTE_VERSION, broker_epoch, boot_id, durability }.write(env, directory)
}

/// Drops the note, so that nobody relies on what was not synced (`LEFT-2`).
pub(super) fn forget(disk: &dyn Disk, directory: &Path) {
    let path = directory.join(layout::REGISTRATION);
    if let Err(error) = disk.remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "could not remove");
    }
}

/// The marker of a clean shutdown.
pub(super) fn clean_shutdown(broker_epoch: BrokerEpoch) -> String {
    format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}")
}

/// Takes the marker of a clean shutdown: whether it existed, and who was there before. When this returns, the marker is
/// durably removed.
pub(super) fn take(env: &Env, directory: &Path) -> Result<(bool, Option<Predecessor>)> {
    let marker = directory.join(layout::CLEAN_SHUTDOWN);
    let found = env.disk.read(&marker).map_err(|error| Error::io("read", &marker, error))?;
    let note = Note::read(env, directory)?;
    let boot_id = env.disk.boot_id();
    let Some(found) = found else {
        let predecessor = note.map(|note| Predecessor {
            broker_epoch: note.broker_epoch,
            left_all: boot_id.is_some() && note.boot_id == boot_id,
            durability: note.durability,
        });
        return Ok((false, predecessor));
    };
    let clean: Option<CleanShutdown> = serde_json::from_slice(&found).ok();
    // An earlier version, or another program, that did not know its registration.
    let broker_epoch = clean.map(|clean| BrokerEpoch(clean.broker_epoch)).filter(|one| one.0 >= 0);
    let known = note.clone().filter(|note| Some(note.broker_epoch) == broker_epoch);
    let predecessor = broker_epoch.map(|broker_epoch| Predecessor {
        broker_epoch,
        left_all: true,
        durability: known.and_then(|note| note.durability),
    });
    if let Some(left) = &predecessor
        && note.is_none_or(|note| note.boot_id != boot_id || note.broker_epoch != left.broker_epoch)
    {
        // If this process ends before it is registered, the next one finds what this one did.
        self::note(env, directory, left.broker_epoch, left.durability.clone())?;
    }
    env.disk.remove_file(&marker).map_err(|error| Error::io("remove", &marker, error))?;
    env.disk.sync_dir(directory).map_err(|error| Error::io("sync", directory, error))?;
    Ok((true, predecessor))
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::sim::{SimDisk, SimRandom};
    use crate::log::LogDirectory;
    use crate::types::NodeId;

    #[test]
    fn a_directory_tells_who_used_it_and_what_is_left() {
        let disk = SimDisk::new(SimRandom::stream(1, "disk"));
        let open = || {
            let env = Env { disk: Arc::new(disk.of_this_boot()), ..Env::real() };
            LogDirectory::open(&env, Path::new("/data"), NodeId(1), None).unwrap()
        };
        let left = |directory: &LogDirectory| {
            let left = directory.predecessor()?;
            Some((left.broker_epoch.0, left.left_all, left.durability.clone()))
        };
        let os = || Some("os".to_owned());
        let first = open();
        assert_eq!(left(&first), None);
        first.note_registration(BrokerEpoch(3), "os").unwrap();
        disk.kill();
        // The page cache outlives the process; also if the next one does not come as far as its registration.
        for _ in 0..2 {
            assert_eq!(left(&open()), Some((3, true, os())));
            disk.kill();
        }
        open().note_registration(BrokerEpoch(4), "fsync").unwrap();
        disk.power_cut();
        let next = open();
        assert_eq!(left(&next), Some((4, false, Some("fsync".to_owned()))));
        next.note_registration(BrokerEpoch(5), "os").unwrap();
        next.close().unwrap();
        disk.power_cut();
        // All was synced, and stays so until somebody registers.
        for _ in 0..2 {
            assert_eq!(left(&open()), Some((5, true, os())));
            disk.kill();
        }
        // What a failed sync left in memory is not to be relied on.
        let next = open();
        next.health().take_offline("a sync failed");
        disk.kill();
        assert_eq!(left(&open()), None);
    }
}
