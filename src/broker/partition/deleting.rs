//! DeleteRecords: the leader deletes at once, and tells when its followers have followed.

use tokio::sync::oneshot;

use super::Partition;
use crate::error::{Error, ErrorCode, Result};
use crate::types::Offset;

/// Records that the leader has deleted.
#[derive(Debug)]
pub(in crate::broker) struct Deletion {
    /// Where its log starts now.
    pub(in crate::broker) start: Offset,
    /// Answered when every replica has deleted them, or with the reason why nobody will know.
    pub(in crate::broker) everywhere: oneshot::Receiver<Result<()>>,
}

impl Partition {
    /// Moves the log start offset, as DeleteRecords does; -1 is the high watermark. The answer comes once every
    /// follower whose broker is active has moved its own.
    ///
    /// # Errors
    ///
    /// `OFFSET_OUT_OF_RANGE`, `POLICY_VIOLATION`, and those of the log.
    pub(in crate::broker) fn delete_records(&self, offset: Offset) -> Result<Deletion> {
        self.check_leader()?;
        let policy = self.config().cleanup_policy;
        if policy.compact && !policy.delete {
            let context = format!("the cleanup policy of {} only compacts", self.name);
            return Err(Error::kafka(ErrorCode::PolicyViolation, context));
        }
        let high_watermark = self.high_watermark();
        let offset = if offset == Offset::UNKNOWN { high_watermark } else { offset };
        if offset < Offset::ZERO || offset > high_watermark {
            let partition = self.name.clone();
            let start = self.reader.log_start_offset();
            return Err(Error::OffsetOutOfRange { partition, offset, start, end: high_watermark });
        }
        let start = self.with_log(|log| log.delete_records_before(offset, high_watermark))?;
        assert!(start <= self.high_watermark(), "HW-3: {} starts at {start}", self.name);
        let (sender, everywhere) = oneshot::channel();
        let mut state = self.state();
        // Whoever closed it, or took the lead from it, has answered those who waited.
        self.standing.load().leads(&self.name)?;
        if state.replica.have_deleted(offset) {
            // The receiver is still here.
            sender.send(Ok(())).ok();
        } else {
            state.waiting_for_deletion.push((offset, sender));
        }
        drop(state);
        self.parking.wake(&self.key);
        Ok(Deletion { start, everywhere })
    }
}
