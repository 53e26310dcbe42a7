//! Last stable offsets: somebody who asks every node for them again and again, and whether transactions come to an end.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla::client::IsolationLevel;
use ottla::client::admin::{OffsetSpec, TransactionFilter};
use ottla::error::Error;
use ottla::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{COPIES, partitions};
use crate::broker::clients::{Connected, PARTITIONS, Peer, TOPIC};
use crate::broker::frames::Wire;
use crate::history::Event;

const LATEST: i64 = -1;
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What a leader told of each partition: its epoch, and an offset.
type Told = BTreeMap<String, (i32, i64)>;

impl Peer {
    /// Asks until it is told to stop.
    pub(super) async fn observe(self, stop: CancellationToken) {
        let mut wires: BTreeMap<String, Wire> = BTreeMap::new();
        // What was told last says nothing when it is told again.
        let mut last = Told::new();
        while !stop.is_cancelled() {
            for server in self.plan.servers.clone() {
                self.rest(100).await;
                let mut wire = match wires.remove(&server) {
                    Some(wire) => wire,
                    None => match Wire::connect(&self.own_env(), &server).await {
                        Some(wire) => wire,
                        None => continue,
                    },
                };
                let Some(stable) = ask(&mut wire, IsolationLevel::ReadCommitted).await else {
                    continue;
                };
                for (partition, &(epoch, offset)) in &stable {
                    if last.insert(partition.clone(), (epoch, offset)) != Some((epoch, offset)) {
                        let partition = partition.clone();
                        self.note(Event::Stable { partition, epoch, offset });
                    }
                }
                let Some(ends) = ask(&mut wire, IsolationLevel::ReadUncommitted).await else {
                    continue;
                };
                wires.insert(server.clone(), wire);
                for (partition, (epoch, offset)) in stable {
                    if let Some((same, end)) = ends.get(&partition)
                        && *same == epoch
                        && *end < offset
                    {
                        self.complain(&format!(
                            "{server} of {partition}: {offset} is stable, and the high watermark {end}"
                        ));
                    }
                }
            }
        }
    }

    /// Waits until no transaction is open, and nothing is held back by one; complains if it takes too long. Whether
    /// it came about.
    pub(super) async fn await_settled(&self, limit: Duration) -> bool {
        let began = Instant::now();
        loop {
            let left = self.unsettled().await;
            if left.is_empty() {
                return true;
            }
            if began.elapsed() > limit {
                self.complain(&format!("after {limit:?} not at an end: {left:?}"));
                return false;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Transactions that are open, and partitions that are held back.
    pub(super) async fn unsettled(&self) -> Vec<String> {
        match self.try_unsettled().await {
            Ok(left) => left,
            Err(error) => vec![error.chain()],
        }
    }

    async fn try_unsettled(&self) -> Result<Vec<String>, Error> {
        let Connected { client, .. } = self.connect().await;
        let admin = client.admin();
        let states = ["Ongoing", "PrepareCommit", "PrepareAbort"].map(str::to_owned);
        let open = TransactionFilter { states: states.to_vec(), ..TransactionFilter::default() };
        let open = admin.list_transactions(&open).await?;
        let mut left: Vec<String> = open.iter().map(|one| format!("{one:?}")).collect();
        let wanted = partitions().map(|one| (one, OffsetSpec::Latest)).collect();
        let stable = admin.list_offsets(&wanted, IsolationLevel::ReadCommitted).await?;
        let ends = admin.list_offsets(&wanted, IsolationLevel::ReadUncommitted).await?;
        for (partition, end) in &ends {
            let stable = stable.get(partition).and_then(|one| one.offset);
            if stable != end.offset {
                let producers = admin.describe_producers(partition).await?;
                let open: Vec<_> =
                    producers.iter().filter(|one| one.transaction_start.is_some()).collect();
                let end = end.offset;
                left.push(format!("{partition}: stable {stable:?} of {end:?}, open {open:?}"));
            }
        }
        Ok(left)
    }
}

async fn ask(wire: &mut Wire, isolation: IsolationLevel) -> Option<Told> {
    let partition = |index| ListOffsetsPartition {
        partition_index: index,
        timestamp: LATEST,
        ..ListOffsetsPartition::default()
    };
    let topic = |name: &str| ListOffsetsTopic {
        name: name.into(),
        partitions: (0..PARTITIONS).map(partition).collect(),
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        isolation_level: isolation.to_i8(),
        topics: [TOPIC, COPIES].map(topic).to_vec(),
        ..ListOffsetsRequest::default()
    };
    let answer = tokio::time::timeout(ANSWER_MAX, wire.call(7, request)).await.ok()??;
    let told = answer.topics.iter().flat_map(|topic| {
        let led = topic.partitions.iter().filter(|one| one.error_code == 0);
        led.map(|one| {
            let name = format!("{}-{}", topic.name, one.partition_index);
            (name, (one.leader_epoch, one.offset))
        })
    });
    Some(told.collect())
}
