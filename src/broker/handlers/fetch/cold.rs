//! What a fetch reads from the tier.
//!
//! Partitions on this disk come first, as in Kafka: what they give is counted, and those in the tier share the rest, several
//! of them at a time. If that takes too long, the answer goes without them; what was begun is finished, and the next fetch
//! finds it.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use super::{Limits, Target, read_one};
use crate::broker::dispatch::Call;
use crate::broker::handlers::fetch::Read;
use crate::broker::partition::{FetchRead, Isolation};
use crate::broker::tier::{ColdRead, ColdWant, TierReader};
use crate::error::Result;
use crate::protocol::Records;
use crate::record::BatchHeader;
use crate::types::Offset;

/// How many partitions are read at a time.
const AT_ONCE: usize = 4;
/// How long a fetch waits for the tier when it has something else to tell.
const WAIT_WITH_NEWS: Duration = Duration::from_millis(500);
/// How long it waits when it has not: less than any client waits for an answer.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Reads those partitions from the tier that this disk had nothing of.
pub(super) async fn fill(
    call: &Call<'_>,
    targets: &[Target],
    limits: &Limits,
    reads: &mut [Result<FetchRead>],
) {
    let is_cold = |read: &Result<FetchRead>| read.as_ref().is_ok_and(|read| read.is_cold);
    if !reads.iter().any(is_cold) {
        return;
    }
    let size = |read: &Result<FetchRead>| read.as_ref().map_or(0, |read| read.records.len());
    let used: usize = reads.iter().map(size).sum();
    let mut left = limits.max_bytes.saturating_sub(used);
    let wait = if used > 0 { WAIT_WITH_NEWS } else { WAIT_MAX };
    let deadline = Instant::now() + wait;
    let tier = call.state.tier_reader();
    let wanted: Vec<(usize, Offset)> = reads
        .iter()
        .enumerate()
        .filter(|(_, read)| is_cold(read))
        .map(|(at, read)| (at, upper(read, limits.isolation)))
        .collect();
    // A batch that is larger than the room is granted to the first partition of the request that has any, as in Kafka: one
    // in the tier must not wait until all on this disk are silent.
    let is_first =
        |reads: &[Result<FetchRead>], at: usize| reads.iter().take(at).all(|read| size(read) == 0);
    let mut may_be_first = wanted.first().is_some_and(|(at, _)| is_first(reads, *at));
    let read = |(at, upper): (usize, Offset)| {
        let target = targets.get(at);
        async move { (at, read_target(tier, target, limits, upper).await) }
    };
    let mut running = futures::stream::iter(wanted).map(read).buffered(AT_ONCE);
    while left > 0 || may_be_first {
        let next = tokio::select! {
            biased;
            next = running.next() => next,
            () = call.gone.cancelled() => None,
            () = tokio::time::sleep_until(deadline) => None,
        };
        let Some((at, cold)) = next else { return };
        let at_least_one = is_first(reads, at);
        let (Some(read), Some(target)) = (reads.get_mut(at), targets.get(at)) else { return };
        match cold {
            Ok(Some(cold)) => {
                if let Ok(read) = read {
                    put(read, target, cold, limits, (left, at_least_one));
                }
            }
            Ok(None) => *read = read_behind(target, limits, (left, at_least_one)),
            Err(error) => *read = Err(error),
        }
        let size = size(read);
        may_be_first &= size == 0;
        left = left.saturating_sub(size);
    }
}

fn upper(read: &Result<FetchRead>, isolation: Isolation) -> Offset {
    read.as_ref().map_or(Offset::ZERO, |read| match isolation {
        Isolation::Committed => read.last_stable_offset,
        Isolation::Uncommitted | Isolation::Everything => read.high_watermark,
    })
}

fn room(target: &Target) -> usize {
    usize::try_from(target.interest.max_bytes.max(0)).unwrap_or(0)
}

async fn read_target(
    tier: &TierReader,
    target: Option<&Target>,
    limits: &Limits,
    upper: Offset,
) -> Result<Option<ColdRead>> {
    let Some((target, Ok(partition))) = target.map(|target| (target, &target.partition)) else {
        return Ok(None);
    };
    let want = ColdWant {
        offset: target.interest.fetch_offset,
        upper,
        max_bytes: room(target).min(limits.max_bytes),
        // Whether that is one too many is known when its turn comes.
        at_least_one: true,
    };
    partition.read_tier(tier, want).await
}

/// Takes as many batches as there is room for.
fn put(
    read: &mut FetchRead,
    target: &Target,
    cold: ColdRead,
    limits: &Limits,
    (left, at_least_one): (usize, bool),
) {
    let max = room(target).min(left);
    let mut size = 0;
    let mut end = target.interest.fetch_offset;
    while let Some(header) = cold.records.get(size..).and_then(|rest| BatchHeader::parse(rest).ok())
    {
        let next = size + header.size_bytes;
        if next > max && !(size == 0 && at_least_one) {
            break;
        }
        (size, end) = (next, header.next_offset());
    }
    read.records = Records::from(cold.records.slice(..size));
    if limits.isolation == Isolation::Committed && size > 0 {
        read.aborted = cold.aborted;
        read.aborted.retain(|one| one.first_offset < end);
    }
}

/// Reads a partition whose tier has no batch from the offset on: what follows is on this disk.
fn read_behind(
    target: &Target,
    limits: &Limits,
    (left, at_least_one): (usize, bool),
) -> Result<FetchRead> {
    let mut behind = Target {
        interest: target.interest,
        partition: target.partition.clone(),
        is_held_back: target.is_held_back,
    };
    if let Ok(partition) = &target.partition {
        behind.interest.fetch_offset = partition.reader().local_start_offset();
    }
    read_one(&behind, limits, (left, at_least_one), Read::Later)
}
