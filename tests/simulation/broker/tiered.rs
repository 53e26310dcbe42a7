//! The same clients and faults, while the records go to a tier: a folder on the disk of the broker, which loses power with it.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ottla::broker::BrokerOptions;
use ottla::client::admin::NewTopic;
use ottla::env::sim::{Fault, SimDisk, SimRandom, SimRun};
use ottla::env::{Disk, OpenMode};
use tokio_util::sync::CancellationToken;

use super::clients::{Connected, Peer, TOPIC};
use super::node::Node;
use super::{Kind, live};
use crate::report::{Report, Suite};

const SUITE: Suite = Suite {
    module: "broker::tiered",
    seeds: 0..4,
    fresh: 2,
    acknowledged_min: 40,
    run: |seed| Report::of(async |witness| live(seed, witness, Kind::Tiered).await),
};

/// A broker with a tier, which looks for something to copy all the time.
pub(crate) fn options(options: BrokerOptions) -> BrokerOptions {
    options
        .with("remote.log.storage.system.enable", "true")
        .with("ottla.tier.url", "file:///tier")
        .with("remote.log.manager.task.interval.ms", "200")
        .with("log.retention.check.interval.ms", "300")
        .with("log.roll.ms", "700")
}

/// A topic of which only the newest segment stays in the log.
pub(crate) fn topic() -> NewTopic {
    Peer::topic(TOPIC)
        .config("remote.storage.enable", "true")
        .config("local.retention.bytes", "1")
        .config("retention.ms", "-1")
        .config("file.delete.delay.ms", "300")
        .config("ottla.tier.table", "delta")
}

/// How long somebody waits for everything to be in the tier.
const OFFLOAD_MAX: Duration = Duration::from_secs(8);

/// What fails of the accesses to the tier: the call, and the end of the path. A failing sync of a folder comes after the name
/// was given: what was to be done is done, and nobody is told.
const FAULTS: [(&str, &str); 8] = [
    ("link", ".json"),
    ("sync_dir", "_delta_log"),
    ("sync_dir", "/0"),
    ("sync_dir", "/1"),
    ("sync_dir", "partition=0"),
    ("sync_dir", "partition=1"),
    ("remove", ".parquet"),
    ("write", ".parquet"),
];

/// Lets accesses to the tier fail, until it is told to stop.
pub(crate) async fn disturb(run: SimRun, disk: Arc<SimDisk>, stop: CancellationToken) {
    let random = SimRandom::stream(run.seed, "faults of the tier");
    while !stop.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(100 + random.below(600))).await;
        let (call, path_suffix) = FAULTS[random.below(FAULTS.len() as u64) as usize];
        let (path_suffix, kind) = (path_suffix.to_owned(), io::ErrorKind::Other);
        disk.inject(Fault { call, path_suffix, skip: random.below(3), kind });
    }
}

/// Has all that is committed copied now and then, until it is told to stop. What was said to be in the tier stays in it.
pub(super) async fn offload(peer: Peer, stop: CancellationToken) {
    let Connected { client, .. } = peer.connect().await;
    let admin = client.admin();
    while !stop.is_cancelled() {
        peer.rest(2000).await;
        let Ok(offload) = admin.offload(TOPIC).await else { continue };
        let waited = admin.await_offload(TOPIC, &offload, |_done| Ok(()));
        if !matches!(tokio::time::timeout(OFFLOAD_MAX, waited).await, Ok(Ok(()))) {
            continue;
        }
        peer.rest(2000).await;
        let Ok(tier) = admin.tier(TOPIC).await else { continue };
        for one in tier.partitions {
            let end = offload[&one.partition].end;
            if one.tiered_end.is_some_and(|tiered| tiered < end) {
                peer.complain(&format!("{one:?} was in the tier up to {end}"));
            }
        }
    }
}

/// The files of the first partition.
pub(super) fn files(node: &Node) -> Vec<String> {
    let folder = format!("/tier/topic={TOPIC}/partition=0");
    node.machine.disk.names(folder.as_ref()).unwrap_or_default()
}

/// What is wrong with the Delta table of the topic, if something is: it has all its commits, and each file that it names is
/// there. The topic keeps everything, so no file is deleted that a commit has named.
pub(super) fn fault_of_table(node: &Node) -> Option<String> {
    let disk = &node.machine.disk;
    let topic = PathBuf::from(format!("/tier/topic={TOPIC}"));
    let log = topic.join("_delta_log");
    let commits = disk.names(&log).unwrap_or_default();
    if commits.is_empty() {
        return Some("there is no Delta table".to_owned());
    }
    let mut named = BTreeSet::new();
    for (version, name) in commits.iter().enumerate() {
        if *name != format!("{version:020}.json") {
            return Some(format!("commit {version} of the Delta table is missing"));
        }
        let file = disk.open(&log.join(name), OpenMode::Read).ok()?;
        let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
        file.read_exact_at(&mut bytes, 0).ok()?;
        for line in String::from_utf8_lossy(&bytes).lines() {
            let Ok(action) = serde_json::from_str::<serde_json::Value>(line) else {
                return Some(format!("commit {version} of the Delta table is not whole"));
            };
            if let Some(path) = action["remove"]["path"].as_str() {
                named.remove(path);
            }
            if let Some(path) = action["add"]["path"].as_str()
                && !named.insert(path.to_owned())
            {
                return Some(format!("commit {version} of the Delta table adds {path} again"));
            }
        }
    }
    let missing = named.iter().find(|path| !disk.exists(&topic.join(path)).unwrap_or(true));
    missing.map(|path| format!("the Delta table names {path}, which is not there"))
}

#[test]
fn nothing_is_lost_and_each_seed_is_one_run() {
    SUITE.try_seeds();
}

#[test]
fn fresh_seeds_find_nothing() {
    SUITE.try_fresh();
}

#[test]
fn replayed() {
    SUITE.replay();
}
