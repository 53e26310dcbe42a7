//! The same clients and faults, while the records go to a tier in a bucket that delays, fails, loses answers and cuts
//! bodies; and the process is killed between requests to it, whether the last one was carried out or not.
//!
//! In the end all is well, and then the tier catches up, has each offset in one live file and nothing else, and every
//! manifest there ever was follows the one before it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use ottla::env::sim::{Mutation, SimRandom, SimRun, plant};
use ottla::machine::tier::{Claim, Content, Manifest, Version};
use ottla::store::SimBucket;
use ottla::types::{Offset, PartitionIndex};
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clients::{Connected, PARTITIONS, Peer, Plan, Promise, Shared, TOPIC};
use super::node::{self, ADDRESS, Node};
use super::tiered::{self, Objects, fault_of_table};
use super::{Kind, live};
use crate::report::{self, Report, Suite};

const SUITE: Suite = Suite {
    module: "broker::bucket",
    seeds: 0..2,
    fresh: 1,
    acknowledged_min: 40,
    run: |seed| run(seed, None),
};

/// Within these seeds a planted fault is found.
const SEEDS_TO_FIND: std::ops::Range<u64> = 0..20;

fn run(seed: u64, mutation: Option<Mutation>) -> Report {
    plant(mutation);
    let report = Report::of(async |witness| live(seed, witness, Kind::Bucket).await);
    plant(None);
    report
}

/// How long the tier may take to be complete once all is well: pauses after failures, and calls that were never answered.
const CATCH_UP_MAX: Duration = Duration::from_secs(400);

/// How long a copy is waited for while not all is well.
const WRITE_ON_MAX: Duration = Duration::from_secs(5);
/// How late a request is carried out at the latest.
const LATE_MAX: Duration = Duration::from_secs(20);

impl Objects for SimBucket {
    fn names(&self, folder: &str) -> Vec<String> {
        let prefix = format!("{folder}/");
        let names = self.paths(&prefix).into_iter();
        names.filter_map(|path| path.strip_prefix(&prefix).map(str::to_owned)).collect()
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.content(path).map(Bytes::into)
    }
}

/// A bucket with which more or less goes wrong.
pub(super) fn open(run: &SimRun) -> SimBucket {
    let bucket = SimBucket::new(SimRandom::stream(run.seed, "bucket"), run.trace.clone());
    bucket.disturb(2 + run.seed % 7);
    bucket
}

/// What was stored, behind its checksum.
#[derive(Deserialize)]
struct Sealed {
    value: Version,
}

/// All that the manifest of a partition ever was, or what is wrong with it: versions follow each other, those of a leader
/// stand together, and nothing is ever taken away, since the topic keeps everything.
fn manifest_of(bucket: &SimBucket, partition: i32) -> Result<Manifest, String> {
    let end = format!("/{partition}/");
    let paths = bucket.paths("_ottla/manifests/");
    let (mut manifest, mut claims) = (Manifest::default(), Vec::<Claim>::new());
    for path in paths.iter().filter(|path| path.contains(&end)) {
        let bytes = bucket.content(path).unwrap_or_default();
        let sealed: Sealed =
            serde_json::from_slice(&bytes).map_err(|error| format!("{path}: {error}"))?;
        let before = manifest.clone();
        manifest.apply(&sealed.value)?;
        if !manifest.content().files.starts_with(&before.content().files) {
            return Err(format!("{path} takes away what was live"));
        }
        let claim = sealed.value.claim;
        if claims.last() != Some(&claim) {
            if claims.contains(&claim) {
                return Err(format!("{path} is of a leader that was replaced: {claim:?}"));
            }
            claims.push(claim);
        }
    }
    Ok(manifest)
}

/// What is still wrong with what a partition has in the bucket: it lacks records before `end`, or has files that nobody
/// knows.
fn lacks(bucket: &SimBucket, partition: i32, end: Offset) -> Result<(), String> {
    let manifest = manifest_of(bucket, partition)?;
    let Content { files, doomed, .. } = manifest.content();
    let range = (manifest.content().start_offset(), manifest.content().end_offset());
    if end > Offset::ZERO && (range.0 != Some(Offset::ZERO) || range.1 < Some(end)) {
        return Err(format!(
            "partition {partition}: the tier has {range:?}, and not all up to {end}"
        ));
    }
    let live: BTreeSet<String> = files.iter().map(|file| file.name.clone()).collect();
    let folder = format!("topic={TOPIC}/partition={partition}");
    let there: BTreeSet<String> = bucket.names(&folder).into_iter().collect();
    if live != there || !doomed.is_empty() {
        let orphans: Vec<_> = there.difference(&live).collect();
        let missing: Vec<_> = live.difference(&there).collect();
        return Err(format!("partition {partition}: orphans {orphans:?}, missing {missing:?}"));
    }
    for file in files {
        let bytes = bucket.content(&format!("{folder}/{}", file.name)).unwrap_or_default();
        if bytes.len() as u64 != file.file_bytes || crc32c::crc32c(&bytes) != file.crc32c {
            return Err(format!("{} is not what the manifest says", file.name));
        }
    }
    Ok(())
}

/// Waits until something is so; complains if that takes too long.
async fn until(peer: &Peer, mut is_so: impl AsyncFnMut() -> Result<(), String>) {
    let deadline = Instant::now() + CATCH_UP_MAX;
    while let Err(why) = is_so().await {
        if Instant::now() >= deadline {
            return peer.complain(&why);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Writes and copies for a while, and nobody is killed any more: what a leader does not come to terms with by itself stays.
pub(super) async fn write_on(peer: &Peer) {
    let Connected { client, .. } = peer.connect().await;
    let admin = client.admin();
    for (count, partition) in (0..12).zip((0..PARTITIONS).cycle()) {
        peer.send_one(&client, partition, &peer.value(count)).await;
        // Whether it is there in time does not matter yet.
        if let Ok(offload) = admin.offload(TOPIC).await {
            let waited = admin.await_offload(TOPIC, &offload, |_done| Ok(()));
            drop(tokio::time::timeout(WRITE_ON_MAX, waited).await);
        }
    }
}

/// All is well: looks whether the tier comes to be what it should be.
pub(super) async fn settle(node: &mut Node, bucket: &SimBucket, peer: &Peer) {
    let mut ends = Vec::new();
    until(peer, async || {
        ends = all_copied(peer).await?;
        Ok(())
    })
    .await;
    // A leader looks for orphans when it begins, and every six hours: what is late has to be there by then.
    tokio::time::sleep(LATE_MAX).await;
    node.restart().await;
    let at = |partition| ends.get(usize::try_from(partition).unwrap_or(0)).copied();
    until(peer, async || {
        for partition in 0..PARTITIONS {
            lacks(bucket, partition, at(partition).unwrap_or(Offset::ZERO))?;
        }
        fault_of_table(bucket).map_or(Ok(()), Err)
    })
    .await;
    until(peer, async || is_gone_here(peer).await).await;
}

/// Reads all of it once more, which lies in the bucket by now.
pub(super) async fn read_again(peer: Peer) {
    let is_last = CancellationToken::new();
    is_last.cancel();
    peer.consume(is_last).await;
}

/// Has everything copied, and tells up to where.
async fn all_copied(peer: &Peer) -> Result<Vec<Offset>, String> {
    let Connected { client, .. } = peer.connect().await;
    let admin = client.admin();
    let offload = admin.offload(TOPIC).await.map_err(|error| error.chain())?;
    let waited = admin.await_offload(TOPIC, &offload, |_done| Ok(()));
    match tokio::time::timeout(CATCH_UP_MAX, waited).await {
        Ok(waited) => waited.map_err(|error| error.chain())?,
        Err(_elapsed) => {
            let obstacles = admin.offload_obstacles(TOPIC, &offload).await;
            return Err(format!("the tier does not catch up: {obstacles:?}"));
        }
    }
    Ok((0..PARTITIONS).map(|index| offload[&PartitionIndex(index)].end).collect())
}

/// Whether the log has let go of what is in the tier: all but the last segment with a record, as retention by bytes does.
async fn is_gone_here(peer: &Peer) -> Result<(), String> {
    let Connected { client, .. } = peer.connect().await;
    let tier = client.admin().tier(TOPIC).await.map_err(|error| error.chain())?;
    for one in tier.partitions {
        if one.local_start == one.start && one.files > Some(1) {
            return Err(format!("the log keeps what is in the tier: {one:?}"));
        }
    }
    Ok(())
}

/// A broker that was started again, and whose bucket is silent: all of the log is on its disk, and what is in the tier, too,
/// it cannot know.
async fn restart_without_bucket(witness: &Shared) -> (SimRun, Vec<String>) {
    let run = SimRun::new(7);
    let bucket = SimBucket::new(SimRandom::stream(7, "bucket"), run.trace.clone());
    let options = tiered::options(node::options(ADDRESS));
    let mut node = Node::start_with(&run, options, Some(bucket.clone())).await;
    let promise = Promise { disks: Vec::new(), copies: 0, synced: true };
    let plan = Plan { servers: vec![ADDRESS.to_owned()], records: 0, pause_ms: 1, promise };
    let peer = Peer::new(&run, &plan, 0, witness);
    peer.create(Peer::topic(TOPIC).config("remote.storage.enable", "true")).await.unwrap();
    let Connected { client, .. } = peer.connect().await;
    let fresh = client.admin().tier(TOPIC).await.unwrap();
    assert!(fresh.partitions.iter().all(|one| one.pending == Some(Offset::ZERO)), "{fresh:?}");
    for number in 0..5 {
        assert!(peer.send_one(&client, 0, &format!("value {number}")).await);
    }
    assert_eq!(all_copied(&peer).await.unwrap().first(), Some(&Offset(5)));
    bucket.stop_after(0, false);
    node.restart().await;
    let Connected { client, .. } = peer.connect().await;
    let of_first = async || client.admin().tier(TOPIC).await.unwrap().partitions.remove(0);
    let unknown = of_first().await;
    assert_eq!((unknown.end, unknown.local_start), (Some(Offset(5)), Some(Offset::ZERO)));
    assert_eq!((unknown.pending, unknown.pending_bytes, unknown.files), (None, None, None));
    bucket.go_on();
    until(&peer, async || {
        let known = of_first().await;
        let is_known = known.pending == Some(Offset(5)) && known.files == Some(1);
        if is_known { Ok(()) } else { Err(format!("the broker does not come to know: {known:?}")) }
    })
    .await;
    (run, Vec::new())
}

#[test]
fn what_a_broker_does_not_know_of_its_tier_it_does_not_tell() {
    let report = Report::of(async |witness| restart_without_bucket(witness).await);
    assert_eq!(report.findings, Vec::<String>::new());
}

#[test]
fn every_planted_fault_is_found() {
    report::find_all(Mutation::OF_TIER, &SEEDS_TO_FIND, run);
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
