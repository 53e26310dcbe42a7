//! What the tier has of a partition.

use std::sync::Arc;

use super::Partition;
use super::role::Ledger;
use crate::broker::tier::{ColdFiles, ColdRead, ColdWant, TierReader, TieredPartition};
use crate::config::{TopicConfig, TopicTier};
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Deleted, Log};
use crate::machine::tier::Manifest;
use crate::types::{LeaderEpoch, Offset, TimestampMs};

impl Partition {
    /// Its tier: none without `remote.storage.enable`, or once nothing is left of it.
    pub(in crate::broker) fn tier(&self) -> Option<Arc<TieredPartition>> {
        self.tier.load_full()
    }

    /// Gives it a tier, or takes it away, as the settings say.
    pub(super) fn settle_tier(&self, config: &TopicConfig) {
        match (&self.store, config.tier, self.tier()) {
            (_, TopicTier::None, _) | (None, _, _) => self.tier.store(None),
            (Some(_), _, Some(tier)) => tier.wake(),
            (Some(store), _, None) => {
                // Whose log was empty when its tier began has nothing in it yet.
                let is_new = self.reader.log_end_offset() == Offset::ZERO;
                let tier = TieredPartition::new(Arc::clone(store), &self.name, is_new);
                self.tier.store(Some(Arc::new(tier)));
            }
        }
    }

    /// Whether the data is temporary.
    pub(in crate::broker) const fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// Whether an offset is of the log, and not on this disk any more.
    pub(in crate::broker) fn is_in_tier(&self, offset: Offset) -> bool {
        offset >= self.reader.log_start_offset() && offset < self.reader.local_start_offset()
    }

    /// The first offset that the tier does not have; none without a tier, and while it is not known here.
    pub(in crate::broker) fn pending_upload(&self) -> Option<Offset> {
        let start = self.reader.log_start_offset();
        if let Some(end) = self.reader.tiered_end_offset() {
            return Some(end.max(start));
        }
        let tier = self.tier().filter(|_| self.config().tier.is_enabled())?;
        let manifest = tier.manifest();
        match manifest.as_ref().and_then(|manifest| manifest.content().end_offset()) {
            // Not claimed yet.
            Some(end) => Some(end.max(start)),
            // Nothing was copied yet; or it was, and this broker does not know how much.
            None => {
                let is_known = manifest.is_some() || tier.is_new();
                let is_all_here = self.reader.local_start_offset() == start;
                (is_known && is_all_here).then_some(start)
            }
        }
    }

    /// Makes a manifest known that the leader of an epoch has read, to readers only. What a leader of an earlier epoch has
    /// read says nothing.
    pub(in crate::broker) fn show_tier(&self, epoch: LeaderEpoch, manifest: Option<&Manifest>) {
        let _unturned = self.state();
        if self.standing.load().token.leads() == Some(epoch)
            && let Some(tier) = self.tier()
        {
            tier.publish(manifest);
        }
    }

    /// Hears of another manifest, which the leader of an epoch wrote, to be read from here on: retention may delete what it
    /// names. It changes nothing once another epoch has begun: whoever led in between may have changed the tier. Waits for
    /// whoever writes to the log.
    ///
    /// # Errors
    ///
    /// When the log is closed.
    pub(in crate::broker) fn publish_tier(
        &self,
        epoch: LeaderEpoch,
        manifest: &Manifest,
    ) -> Result<()> {
        // Readers first: what is deleted here must be found there.
        self.show_tier(epoch, Some(manifest));
        let content = manifest.content();
        self.with_ledger(|Ledger { log, token }| {
            if token.leads() != Some(epoch) {
                return Ok(());
            }
            match content.start_offset().zip(content.end_offset()) {
                Some((start, end)) => log.set_tiered(start, end),
                None => log.forget_tiered(),
            }
            Ok(())
        })
    }

    /// Nobody looks after the tier here any more.
    ///
    /// # Errors
    ///
    /// When the log is closed.
    pub(in crate::broker) fn forget_tier(&self) -> Result<()> {
        self.with_ledger(|ledger| {
            self.forget_tier_in(&mut ledger.log);
            Ok(())
        })
    }

    /// The same, for whoever has the log: what is known of the tier ends with the epoch in which it was learnt.
    pub(super) fn forget_tier_in(&self, log: &mut Log) {
        if let Some(tier) = self.tier() {
            tier.publish(None);
        }
        log.forget_tiered();
    }

    /// Has the log start later, as the leader of an epoch decides by the limits of the whole.
    ///
    /// # Errors
    ///
    /// When the log is closed.
    pub(in crate::broker) fn raise_log_start(
        &self,
        epoch: LeaderEpoch,
        start: Offset,
    ) -> Result<()> {
        self.with_ledger(|Ledger { log, token }| {
            if token.leads() == Some(epoch) {
                log.raise_log_start(start);
            }
            Ok(())
        })?;
        self.parking.wake(&self.key);
        Ok(())
    }

    /// Retention on this disk: by the limits where this broker leads, or there is no tier; otherwise as its leader did. Also rolls
    /// by age, and forgets producers that were silent. Blocks.
    ///
    /// # Errors
    ///
    /// Those of the log.
    pub(in crate::broker) fn clean(&self, now: TimestampMs) -> Result<Deleted> {
        let before = self.reader.local_start_offset();
        let deleted = self.with_ledger(|Ledger { log, token }| {
            log.expire_producers(now);
            log.maybe_roll(now)?;
            // That of this epoch.
            let high_watermark = self.high_watermark();
            match token.leads() {
                Some(_) => log.apply_retention(now, high_watermark),
                None => log.apply_retention_as_follower(now, high_watermark),
            }
        });
        if self.config().tier.is_enabled() && self.reader.local_start_offset() > before {
            // Followers delete what the leader has deleted.
            self.parking.wake(&self.key);
        }
        deleted
    }

    /// The tier with the files that it has, as far as is known here.
    ///
    /// # Errors
    ///
    /// `KAFKA_STORAGE_ERROR`, to be tried again: the manifest was not read yet.
    fn tier_files(&self) -> Result<ColdFiles> {
        let tier = self.tier();
        let manifest = tier.as_ref().and_then(|tier| tier.manifest());
        match (tier, manifest) {
            (Some(tier), Some(manifest)) => {
                Ok(ColdFiles { key: self.key, name: self.name.clone(), tier, manifest })
            }
            _ => {
                let context = format!(
                    "the records of {} before offset {} are in the tier, and which files it has was not read yet",
                    self.name,
                    self.reader.local_start_offset()
                );
                Err(Error::kafka(ErrorCode::KafkaStorageError, context))
            }
        }
    }

    /// Reads from the tier.
    ///
    /// # Errors
    ///
    /// As [`TierReader::read`], and [`Error::OffsetOutOfRange`] when the log starts behind the offset by now.
    pub(in crate::broker) async fn read_tier(
        &self,
        tier: &TierReader,
        want: ColdWant,
    ) -> Result<Option<ColdRead>> {
        let read = tier.read(&self.tier_files()?, want).await;
        read.map_err(|error| self.explained(want.offset, error))
    }

    /// The first record of the tier in `[log start, upper)` that is at least as late as `timestamp`; none when all of
    /// the log is on this disk.
    ///
    /// # Errors
    ///
    /// As [`TierReader::find_timestamp`].
    pub(in crate::broker) async fn find_in_tier(
        &self,
        tier: &TierReader,
        (timestamp, limit): (TimestampMs, usize),
        upper: Offset,
    ) -> Result<Option<(TimestampMs, Offset, LeaderEpoch)>> {
        let start = self.reader.log_start_offset();
        if !self.is_in_tier(start) {
            return Ok(None);
        }
        let files = self.tier_files()?;
        let end = upper.min(self.reader.local_start_offset());
        let found = tier.find_timestamp(&files, (timestamp, limit), start..end).await;
        found.map_err(|error| self.explained(start, error))
    }

    /// A file may be deleted while it is read: the log start has passed it before.
    fn explained(&self, offset: Offset, error: Error) -> Error {
        let start = self.reader.log_start_offset();
        if offset >= start {
            return error;
        }
        let (partition, end) = (self.name.clone(), self.reader.log_end_offset());
        Error::OffsetOutOfRange { partition, offset, start, end }
    }
}
