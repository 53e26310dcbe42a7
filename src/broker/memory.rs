//! How many bytes of requests may be in memory at once (`queued.max.request.bytes`).
//!
//! Why: a frame announces its length before it arrives. Reserving that much would let a hundred
//! clients that announce 90 MB each take 9 GB with a hundred packets. Here a connection pays for
//! the buffer that it actually has, and the buffer grows with what arrives.
//!
//! Invariants:
//! - `MEMORY-1` the buffers of all partly received and unanswered requests stay below the limit,
//!   plus one request and what [`super::receive_buffers`] lends.
//! - `MEMORY-2` somebody always makes progress: when the budget is used up by partly received
//!   frames, one connection at a time may exceed the limit to finish its frame.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// The bytes that all connections share.
#[derive(Clone, Debug)]
pub(super) struct MemoryBudget {
    /// `None` for no limit.
    bytes: Option<Arc<Semaphore>>,
    limit: u32,
    /// A single token: whoever holds it need not pay.
    overdraft: Arc<Semaphore>,
}

/// What one request pays for; returned when it is dropped.
#[derive(Debug, Default)]
pub(super) struct MemoryHold {
    paid: Vec<OwnedSemaphorePermit>,
    overdraft: Option<OwnedSemaphorePermit>,
}

impl MemoryBudget {
    /// A budget of `limit_bytes`; `None` means no limit.
    pub(super) fn new(limit_bytes: Option<u64>) -> Self {
        // A semaphore takes at most a u32 per call; a limit above 4 GiB would not be worth having.
        let limit = u32::try_from(limit_bytes.unwrap_or(0)).unwrap_or(u32::MAX);
        let bytes = (limit > 0).then(|| Arc::new(Semaphore::new(limit as usize)));
        Self { bytes, limit, overdraft: Arc::new(Semaphore::new(1)) }
    }

    /// Pays for `count` more bytes of one request; waits until others have returned enough.
    ///
    /// Cancel-safe: nothing is paid when the future is dropped.
    pub(super) async fn pay(&self, hold: &mut MemoryHold, count: usize) -> Result<()> {
        let Some(bytes) = &self.bytes else { return Ok(()) };
        if hold.overdraft.is_some() {
            return Ok(());
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(self.limit);
        tokio::select! {
            biased;
            paid = Arc::clone(bytes).acquire_many_owned(count) => {
                hold.paid.push(paid.map_err(|_closed| Error::Closed { what: "the broker" })?);
            }
            token = Arc::clone(&self.overdraft).acquire_owned() => {
                let token = token.map_err(|_closed| Error::Closed { what: "the broker" })?;
                hold.overdraft = Some(token);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_request_gets_on_above_the_limit_and_the_next_waits() {
        let budget = MemoryBudget::new(Some(100));
        let (mut first, mut second, mut third) = Default::default();
        budget.pay(&mut first, 90).await.unwrap();
        budget.pay(&mut second, 20).await.unwrap();
        assert!(second.overdraft.is_some());
        budget.pay(&mut second, 1_000_000).await.unwrap();
        let mut waiting = Box::pin(budget.pay(&mut third, 20));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(first);
        waiting.await.unwrap();
        assert!(third.overdraft.is_none());
    }

    #[tokio::test]
    async fn no_limit_means_no_wait() {
        let budget = MemoryBudget::new(None);
        let mut hold = MemoryHold::default();
        budget.pay(&mut hold, usize::MAX).await.unwrap();
    }
}
