//! Somebody who asks every node again and again how far the partitions are committed: the high watermark never goes
//! back within an epoch of a leader, nor behind what an earlier leader told.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use tokio_util::sync::CancellationToken;

use crate::broker::clients::{PARTITIONS, Peer, TOPIC};
use crate::broker::frames::Wire;

/// The lowest and the highest of an epoch.
type Told = BTreeMap<i32, (i64, i64)>;

const LATEST: i64 = -1;
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Asks until it is told to stop, and once more.
pub(crate) async fn watch(peer: Peer, stop: CancellationToken) {
    let mut told: BTreeMap<i32, Told> = BTreeMap::new();
    let mut wires: BTreeMap<String, Wire> = BTreeMap::new();
    while !stop.is_cancelled() {
        for server in peer.plan.servers.clone() {
            peer.rest(100).await;
            let mut wire = match wires.remove(&server) {
                Some(wire) => wire,
                None => match Wire::connect(&peer.own_env(), &server).await {
                    Some(wire) => wire,
                    None => continue,
                },
            };
            let call = tokio::time::timeout(ANSWER_MAX, wire.call(7, request()));
            let Ok(Some(answer)) = call.await else { continue };
            wires.insert(server.clone(), wire);
            for one in answer.topics.iter().flat_map(|topic| &topic.partitions) {
                if one.error_code == 0 {
                    let known = told.entry(one.partition_index).or_default();
                    if let Some(why) = contradicts(known, one.leader_epoch, one.offset) {
                        peer.complain(&format!("{server} of {}: {why}", one.partition_index));
                    }
                    let range = known.entry(one.leader_epoch).or_insert((one.offset, one.offset));
                    *range = (range.0.min(one.offset), range.1.max(one.offset));
                }
            }
        }
    }
}

fn request() -> ListOffsetsRequest {
    let partition = |index| ListOffsetsPartition {
        partition_index: index,
        timestamp: LATEST,
        ..ListOffsetsPartition::default()
    };
    let partitions = (0..PARTITIONS).map(partition).collect();
    let topics = vec![ListOffsetsTopic { name: TOPIC.into(), partitions }];
    ListOffsetsRequest { replica_id: -1, topics, ..ListOffsetsRequest::default() }
}

/// Everything that an earlier leader committed, a later one has when it begins.
fn contradicts(known: &Told, epoch: i32, offset: i64) -> Option<String> {
    let before = known.range(..=epoch).map(|(epoch, (_, highest))| (*highest, *epoch)).max();
    if let Some((highest, in_epoch)) = before
        && offset < highest
    {
        return Some(format!(
            "the high watermark went back to {offset} in epoch {epoch}, from {highest} in epoch {in_epoch}"
        ));
    }
    let after = known.range(epoch + 1..).map(|(epoch, (lowest, _))| (*lowest, *epoch)).min();
    let (lowest, in_epoch) = after?;
    (offset > lowest).then(|| {
        format!(
            "the high watermark is {offset} in epoch {epoch}, and was {lowest} in epoch {in_epoch}"
        )
    })
}
