//! What the disks of the nodes hold when all is well again and nobody writes: every replica is in sync, has the same
//! bytes, the same epochs, and a high watermark at its end.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ottla::env::Disk;
use ottla::env::sim::SimDisk;
use ottla::record::Batches;
use ottla::types::NodeId;
use tokio::time::Instant;

use super::nodes::Cluster;
use crate::broker::clients::{Peer, TOPIC, is_segment};

/// How long the replicas may take to come together.
const TOGETHER_MAX: Duration = Duration::from_secs(60);
const REPLICAS: usize = 3;

/// What a node has of a partition.
#[derive(Debug, PartialEq, Eq)]
struct Copy {
    bytes: Vec<u8>,
    /// The first offset on the disk.
    first: i64,
    end: i64,
    /// Where each epoch begins, as the records say.
    epochs: Vec<(i32, i64)>,
    /// The same, as it was saved, without those that have no records.
    saved_epochs: Vec<(i32, i64)>,
    high_watermark: i64,
}

/// The replicas of a partition, by the id of their node.
struct Placement {
    name: String,
    replicas: Vec<NodeId>,
}

/// Waits until the replicas are together, complains if they do not come together; stops all nodes, and looks once
/// more.
pub(crate) async fn check(cluster: &mut Cluster, admin: &Peer) {
    let deadline = Instant::now() + TOGETHER_MAX;
    let placements = loop {
        let (placements, mut found) = placements(admin).await;
        found.extend(placements.iter().flat_map(|one| one.differences(cluster, false)));
        if found.is_empty() || Instant::now() >= deadline {
            for difference in &found {
                admin.complain(difference);
            }
            break placements;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    cluster.stop_all().await;
    for difference in placements.iter().flat_map(|one| one.differences(cluster, true)) {
        admin.complain(&format!("after all stopped: {difference}"));
    }
}

/// Where the replicas are, and which of them are not in sync.
async fn placements(admin: &Peer) -> (Vec<Placement>, Vec<String>) {
    let topics = match admin.connect().await.client.admin().all_topics().await {
        Ok(topics) => topics,
        Err(error) => return (Vec::new(), vec![format!("no topics: {}", error.chain())]),
    };
    let (mut placements, mut found) = (Vec::new(), Vec::new());
    for topic in topics {
        for partition in &topic.partitions {
            let name = format!("{}-{}", topic.name, partition.partition);
            let (mut in_sync, mut replicas) = (partition.isr.clone(), partition.replicas.clone());
            in_sync.sort_unstable();
            replicas.sort_unstable();
            if in_sync != replicas || partition.leader.is_none() || replicas.len() != REPLICAS {
                let leader = partition.leader;
                found.push(format!(
                    "{name}: led by {leader:?}, {in_sync:?} of {replicas:?} in sync"
                ));
            }
            placements.push(Placement { name, replicas });
        }
    }
    (placements, found)
}

impl Placement {
    fn differences(&self, cluster: &Cluster, stopped: bool) -> Vec<String> {
        let copies: Vec<Copy> = self
            .replicas
            .iter()
            .map(|id| copy(&cluster.nodes[id.0 as usize - 1].machine.disk, &self.name))
            .collect();
        // Of a topic with a tier, some have more on their disks than others.
        let is_tiered = cluster.tier.is_some() && self.name.starts_with(TOPIC);
        let first = copies.iter().map(|copy| copy.first).max().filter(|_| is_tiered);
        let first = first.unwrap_or(0);
        let pairs = self.replicas.iter().zip(&copies);
        let all = pairs.flat_map(|(id, copy)| {
            let committed = copies[0].high_watermark.min(copy.high_watermark);
            // While the nodes stop, a coordinator may still write.
            let below = if stopped { committed } else { i64::MAX };
            let why = [copies[0].difference(copy, first..below), copy.contradiction(stopped)];
            why.map(|why| why.map(|why| format!("{} on {id}: {why}", self.name)))
        });
        all.flatten().collect()
    }
}

impl Copy {
    /// What contradicts itself.
    fn contradiction(&self, stopped: bool) -> Option<String> {
        let (end, high_watermark) = (self.end, self.high_watermark);
        if high_watermark > end || high_watermark < end && !stopped {
            return Some(format!("the high watermark is {high_watermark}, and the end {end}"));
        }
        // They are saved with a sync, and when the log is closed.
        if stopped && self.epochs != self.saved_epochs {
            let (epochs, saved) = (&self.epochs, &self.saved_epochs);
            return Some(format!("saved epochs {saved:?}, and records of {epochs:?}"));
        }
        None
    }

    /// The batches before an offset.
    fn below(&self, end: i64) -> &[u8] {
        let batches = Batches::new(self.bytes.clone().into()).filter_map(Result::ok);
        let before = batches.take_while(|batch| batch.header().last_offset().0 < end);
        let length: usize = before.map(|batch| batch.bytes().len()).sum();
        &self.bytes[..length]
    }

    fn within(&self, range: &Range<i64>) -> &[u8] {
        &self.below(range.end.max(range.start))[self.below(range.start).len()..]
    }

    fn difference(&self, other: &Self, range: Range<i64>) -> Option<String> {
        let (own, others) = (self.within(&range), other.within(&range));
        if own == others {
            return None;
        }
        let place = own.iter().zip(others).take_while(|(one, other)| one == other).count();
        let (ends, lengths) = ((self.end, other.end), (own.len(), others.len()));
        Some(format!("other bytes from {place} on; ends {ends:?}, lengths {lengths:?}"))
    }
}

fn copy(disk: &SimDisk, name: &str) -> Copy {
    let directory = Path::new("/data").join(name);
    let mut segments: Vec<PathBuf> = match disk.read_dir(&directory) {
        Ok(entries) => entries
            .into_iter()
            .filter(|entry| is_segment(&entry.name))
            .map(|entry| directory.join(entry.name))
            .collect(),
        Err(_) => Vec::new(),
    };
    segments.sort();
    let bytes: Vec<u8> =
        segments.iter().flat_map(|path| disk.content(path, false).unwrap()).collect();
    let base = segments.last().and_then(|path| path.file_stem()?.to_str()?.parse().ok());
    let (mut first, mut end, mut epochs) = (None, base.unwrap_or(0), Vec::new());
    for batch in Batches::new(bytes.clone().into()).filter_map(Result::ok) {
        let header = batch.header();
        let epoch = header.leader_epoch.0;
        first.get_or_insert(header.base_offset.0);
        if epochs.last().is_none_or(|(last, _)| *last != epoch) {
            epochs.push((epoch, header.base_offset.0));
        }
        end = end.max(header.last_offset().0 + 1);
    }
    let first = first.unwrap_or(end);
    let saved = text(disk, &directory.join("leader-epoch-checkpoint"));
    let saved = saved.lines().skip(2).filter_map(|line| {
        let (epoch, start) = line.split_once(' ')?;
        Some((epoch.parse().ok()?, start.parse().ok()?))
    });
    let mut saved_epochs: Vec<(i32, i64)> = saved.filter(|(_, start)| *start < end).collect();
    // Those of what only the tier has.
    let here = saved_epochs.partition_point(|(_, start)| *start <= first);
    saved_epochs.drain(..here.saturating_sub(1));
    match saved_epochs.first_mut() {
        Some((_, start)) if first < end => *start = first.max(*start),
        _ => saved_epochs.clear(),
    }
    let high_watermark = high_watermarks(disk).get(name).copied().unwrap_or(0);
    Copy { bytes, first, end, epochs, saved_epochs, high_watermark }
}

fn high_watermarks(disk: &SimDisk) -> BTreeMap<String, i64> {
    let text = text(disk, Path::new("/data/replication-offset-checkpoint"));
    let parse = |line: &str| {
        let (partition, offset) = line.rsplit_once(' ')?;
        Some((partition.replace(' ', "-"), offset.parse().ok()?))
    };
    text.lines().skip(2).filter_map(parse).collect()
}

fn text(disk: &SimDisk, path: &Path) -> String {
    String::from_utf8(disk.content(path, false).unwrap_or_default()).unwrap()
}
