//! Taking over what was read: no more rows than are wanted, dead letters before the rows beside them, and no
//! end while there is nothing to be late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::time::Instant;

use super::output::note;
use super::{CommandResult, Failure};
use crate::client::admin::OffsetSpec;
use crate::client::{Acks, Client, DeadLetters, IsolationLevel, OffsetAndMetadata};
use crate::columnar::{Decoded, Rejected};
use crate::error::Error;
use crate::types::{Offset, TopicPartition};

/// How long brokers may take to say that they are there.
const ASKING_MAX: Duration = Duration::from_secs(5);

/// Where reading goes on.
type Ends = BTreeMap<TopicPartition, Offset>;

/// What is taken of an output.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) rows: RecordBatch,
    rejected: Vec<Rejected>,
    ends: Ends,
}

impl Taken {
    /// Takes the first rows, `left` at most. A partition with more of them goes on at the first one that is
    /// left over, which may be one of a record whose other rows were taken: it is read again, whole. Of the
    /// records that did not decode, those before it are taken. What is cut off is found by
    /// [`Decoded::offsets`], which must be filled unless everything is taken.
    pub(super) fn of(decoded: Decoded, left: u64) -> Self {
        let count = decoded.rows.num_rows();
        let kept = count.min(usize::try_from(left).unwrap_or(usize::MAX));
        let progress = decoded.progress.iter();
        let mut ends: Ends = progress.map(|one| (one.partition.clone(), one.next)).collect();
        let mut rejected = decoded.rejected;
        if kept < count
            && let Some(offsets) = &decoded.offsets
        {
            let mut row = 0_usize;
            for (partition, rows) in &decoded.origins {
                let behind = row.saturating_add(*rows);
                let first = row.max(kept);
                if first < behind
                    && let (Some(end), Some(&at)) =
                        (ends.get_mut(partition), offsets.values().get(first))
                {
                    *end = (*end).min(Offset(at));
                }
                row = behind;
            }
            rejected.retain(|one| ends.get(&one.partition).is_none_or(|end| one.offset < *end));
        }
        Self { rows: decoded.rows.slice(0, kept), rejected, ends }
    }

    /// Where to go on, as a group commits it.
    pub(super) fn ends(&self) -> BTreeMap<TopicPartition, OffsetAndMetadata> {
        self.ends.iter().map(|(partition, end)| (partition.clone(), (*end).into())).collect()
    }
}

/// Where records go that do not decode, if anywhere.
#[derive(Debug)]
pub(super) struct Letters {
    writer: Option<DeadLetters>,
    count: usize,
}

impl Letters {
    /// Writes to the topic, which must exist.
    pub(super) async fn to(topic: Option<&str>, client: &Client) -> Result<Self, Failure> {
        let Some(topic) = topic else { return Ok(Self { writer: None, count: 0 }) };
        client.admin().named(topic, client.topic(topic).await).await?;
        let mut config = client.config().producer.clone();
        // Rows are taken over because of this acknowledgement, whatever the setting.
        config.acks = Acks::All;
        let producer = Arc::new(client.producer_with(config)?);
        Ok(Self { writer: Some(DeadLetters::new(topic, producer)?), count: 0 })
    }

    /// Writes the records that did not decode, and waits until they are acknowledged.
    pub(super) async fn send(&mut self, taken: &Taken) -> CommandResult {
        if let Some(writer) = &self.writer {
            writer.send(&taken.rejected).await?;
            self.count = self.count.saturating_add(taken.rejected.len());
        }
        Ok(())
    }

    /// Says on standard error how many there were.
    pub(super) fn tell(&self) {
        if let (Some(writer), 1..) = (&self.writer, self.count) {
            let (count, topic) = (self.count, writer.topic());
            let records = if count == 1 { "record" } else { "records" };
            note(&format!("{count} {records} did not decode and went to topic {topic}"));
        }
    }
}

/// How long nothing may arrive.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Option<Duration>,
    since: Instant,
}

impl Patience {
    /// For ever without a limit.
    pub(super) fn new(limit_ms: Option<u64>) -> Self {
        Self { limit: limit_ms.map(Duration::from_millis), since: Instant::now() }
    }

    /// How long to wait for the next records at once.
    pub(super) fn max_wait(&self) -> Duration {
        self.limit.unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(1))
    }

    /// Something arrived, or nothing could.
    pub(super) fn restart(&mut self) {
        self.since = Instant::now();
    }

    /// Whether nothing has arrived for too long.
    pub(super) fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.since.elapsed() >= limit)
    }

    /// Says on standard error that nothing has arrived, which is an orderly end unless the brokers that lead these
    /// partitions cannot be asked.
    pub(super) async fn check(
        &self,
        client: &Client,
        partitions: &[TopicPartition],
    ) -> CommandResult {
        let limit = self.limit.unwrap_or_default();
        if let Some(obstacle) = client.obstacle() {
            // It may be one of an address that nobody needs.
            let ends = partitions.iter().map(|one| (one.clone(), OffsetSpec::Latest)).collect();
            let (admin, all) = (client.admin(), IsolationLevel::ReadUncommitted);
            let asked = tokio::time::timeout(ASKING_MAX, admin.list_offsets(&ends, all)).await;
            if !matches!(asked, Ok(Ok(_))) {
                let error = Error::timeout("waiting for records", limit);
                return Err(error.because(Some(obstacle)).into());
            }
        }
        note(&format!("no record arrived for {} ms", limit.as_millis()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatchOptions};
    use arrow::datatypes::Schema;

    use super::*;
    use crate::columnar::{PartitionProgress, Tombstones};

    fn decoded(origins: &[(i32, usize)], offsets: Vec<i64>, rejected: &[(i32, i64)]) -> Decoded {
        let partition = |index| TopicPartition::new("t", index);
        let mut indices: Vec<i32> = origins.iter().map(|(index, _)| *index).collect();
        indices.sort_unstable();
        indices.dedup();
        let progress = |index: &i32| PartitionProgress {
            partition: partition(*index),
            from: Offset(0),
            next: Offset(100),
        };
        let options = RecordBatchOptions::new().with_row_count(Some(offsets.len()));
        let schema = Arc::new(Schema::empty());
        Decoded {
            rows: RecordBatch::try_new_with_options(schema, Vec::new(), &options).unwrap(),
            progress: indices.iter().map(progress).collect(),
            rejected: rejected
                .iter()
                .map(|&(index, offset)| Rejected {
                    partition: partition(index),
                    offset: Offset(offset),
                    timestamp: None,
                    key: None,
                    value: None,
                    headers: Vec::new(),
                    error: String::new(),
                })
                .collect(),
            offsets: Some(Int64Array::from(offsets)),
            origins: origins.iter().map(|&(index, rows)| (partition(index), rows)).collect(),
            tombstones: Tombstones::NONE,
            hides_errors: false,
        }
    }

    fn taken(decoded: Decoded, left: u64) -> (usize, Vec<i64>, Vec<i64>) {
        let taken = Taken::of(decoded, left);
        let rejected = taken.rejected.iter().map(|one| one.offset.0).collect();
        (taken.rows.num_rows(), taken.ends.values().map(|end| end.0).collect(), rejected)
    }

    #[test]
    fn what_is_left_over_is_read_again() {
        let some = || decoded(&[(0, 2), (1, 3), (0, 1)], vec![3, 7, 5, 6, 9, 12], &[]);
        assert_eq!(taken(some(), 6), (6, vec![100, 100], vec![]));
        assert_eq!(taken(some(), 5), (5, vec![12, 100], vec![]));
        assert_eq!(taken(some(), 3), (3, vec![12, 6], vec![]));
        assert_eq!(taken(some(), 1), (1, vec![7, 5], vec![]));
        assert_eq!(taken(some(), 0), (0, vec![3, 5], vec![]));
    }

    #[test]
    fn a_record_of_which_rows_are_left_over_is_read_again() {
        let some = || decoded(&[(0, 5)], vec![3, 3, 3, 4, 4], &[]);
        assert_eq!(taken(some(), 2), (2, vec![3], vec![]));
        assert_eq!(taken(some(), 3), (3, vec![4], vec![]));
        assert_eq!(taken(some(), 4), (4, vec![4], vec![]));
    }

    #[test]
    fn dead_letters_are_those_before_what_is_left_over() {
        let some = || decoded(&[(0, 3)], vec![3, 7, 9], &[(0, 2), (0, 5), (0, 8), (0, 11)]);
        assert_eq!(taken(some(), 1), (1, vec![7], vec![2, 5]));
        assert_eq!(taken(some(), 3), (3, vec![100], vec![2, 5, 8, 11]));
    }
}
