//! What is done between two leaders: one after the other, each remembered until it is known how it went.

use std::collections::{BTreeMap, BTreeSet};

use super::manifest::{Claim, Content, Delta, FileEntry, Manifest, Says, Version};
use super::{ClosedSegment, Creation, Effect, Kind, LogView, TierRules};
use crate::types::{Offset, TimestampMs};

/// The most files that one version dooms because nobody knows them.
const ORPHANS_MAX: usize = 1000;

/// What the version that is being created does.
#[derive(Debug)]
struct Creating {
    version: Version,
    is_claim: bool,
    /// Whether it is with the store; otherwise it waits to be tried again.
    is_sent: bool,
}

/// What is done between two leaders.
#[derive(Debug)]
pub(super) struct Term {
    claim: Claim,
    pub(super) manifest: Option<Manifest>,
    /// The number of the version that claims.
    pub(super) claimed: Option<u64>,
    pub(super) is_fenced: bool,
    pub(super) is_reading: bool,
    creating: Option<Creating>,
    pub(super) uploading: Option<(String, ClosedSegment)>,
    /// Uploaded, and named by no version yet.
    pub(super) uploaded: Option<FileEntry>,
    attempts: u64,
    pub(super) is_listing: bool,
    pub(super) list_at: TimestampMs,
    pub(super) deleting: Option<String>,
    /// Since when this term knows that files are doomed.
    pub(super) doomed_at: BTreeMap<String, TimestampMs>,
    orphans: BTreeSet<String>,
    pub(super) deleted: BTreeSet<String>,
    pub(super) raised: Offset,
    /// How often each kind of thing has failed since it last did not.
    pub(super) failures: BTreeMap<Kind, u32>,
    pub(super) pause_until: Option<TimestampMs>,
}

impl Term {
    pub(super) fn new(claim: Claim, now: TimestampMs) -> Self {
        Self {
            claim,
            manifest: None,
            claimed: None,
            is_fenced: false,
            is_reading: false,
            creating: None,
            uploading: None,
            uploaded: None,
            attempts: 0,
            is_listing: false,
            list_at: now,
            deleting: None,
            doomed_at: BTreeMap::new(),
            orphans: BTreeSet::new(),
            deleted: BTreeSet::new(),
            raised: Offset::ZERO,
            failures: BTreeMap::new(),
            pause_until: None,
        }
    }

    pub(super) fn read(&mut self, now: TimestampMs, manifest: Manifest, out: &mut Vec<Effect>) {
        if let Some(other) = manifest.claim()
            && other.leader_epoch > self.claim.leader_epoch
        {
            self.fence(other.clone(), out);
            return;
        }
        self.doomed_at = manifest.content().doomed.iter().map(|name| (name.clone(), now)).collect();
        self.manifest = Some(manifest);
    }

    fn fence(&mut self, other: Claim, out: &mut Vec<Effect>) {
        self.is_fenced = true;
        out.push(Effect::Fenced(other));
    }

    pub(super) fn created(
        &mut self,
        now: TimestampMs,
        creation: Creation,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let Some(creating) = &mut self.creating else { return Ok(()) };
        match creation {
            Creation::Failed(why) => {
                creating.is_sent = false;
                Err(why)
            }
            Creation::Exists(there) if *there != creating.version => {
                // Behind a claim only a later leader writes, or somebody else who takes itself for this one.
                if there.claim.leader_epoch > self.claim.leader_epoch || self.claimed.is_some() {
                    self.fence(there.claim, out);
                    return Ok(());
                }
                // Written by a leader before this one, while this one claimed.
                (self.creating, self.claimed, self.manifest) = (None, None, None);
                (self.uploaded, self.orphans) = (None, BTreeSet::new());
                Ok(())
            }
            Creation::Created | Creation::Exists(_) => {
                let Some(Creating { version, is_claim, .. }) = self.creating.take() else {
                    return Ok(());
                };
                self.commit(now, &version, is_claim, out)
            }
        }
    }

    /// A version of this leader is there.
    fn commit(
        &mut self,
        now: TimestampMs,
        version: &Version,
        is_claim: bool,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let Some(manifest) = &mut self.manifest else { return Ok(()) };
        manifest.apply(version)?;
        let content = manifest.content();
        if is_claim {
            self.claimed = Some(version.version);
        }
        self.doomed_at.retain(|name, _| content.doomed.contains(name));
        for name in &content.doomed {
            self.doomed_at.entry(name.clone()).or_insert(now);
        }
        self.deleted.retain(|name| content.doomed.contains(name));
        self.orphans.retain(|name| !content.doomed.contains(name));
        if let Some(end) = content.end_offset() {
            out.push(Effect::Tiered(end));
        }
        Ok(())
    }

    /// Has the next version created, if there is something to say and none is on its way.
    pub(super) fn create(
        &mut self,
        now: TimestampMs,
        rules: &TierRules,
        log: &LogView,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        if let Some(creating) = &mut self.creating {
            if !creating.is_sent {
                creating.is_sent = true;
                out.push(Effect::Create(Box::new(creating.version.clone())));
            }
            return Ok(());
        }
        let is_claim = self.claimed.is_none();
        let delta = if is_claim { Delta::default() } else { self.delta(now, rules, log) };
        let Some(manifest) = self.manifest.as_ref().filter(|_| is_claim || !delta.is_empty())
        else {
            return Ok(());
        };
        // What was uploaded may not follow any more; then it is an orphan.
        let version = manifest.next(&self.claim, delta)?;
        out.push(Effect::Create(Box::new(version.clone())));
        self.creating = Some(Creating { version, is_claim, is_sent: true });
        Ok(())
    }

    /// What the next version is to change.
    fn delta(&mut self, now: TimestampMs, rules: &TierRules, log: &LogView) -> Delta {
        let mut doom = std::mem::take(&mut self.orphans);
        let empty = Content::default();
        let content = self.manifest.as_ref().map_or(&empty, Manifest::content);
        let strays = content.files.iter().position(|file| !log.has(file));
        for (place, file) in content.files.iter().enumerate() {
            let is_before = file.end_offset <= log.log_start;
            if is_before || strays.is_some_and(|first| place >= first) {
                doom.insert(file.name.clone());
            }
        }
        let add = self.uploaded.take();
        // A version for every file that is deleted would be one too many.
        let is_more_due = self.deleting.is_some() || self.due(now, rules).next().is_some();
        let forget = if is_more_due && doom.is_empty() && add.is_none() {
            BTreeSet::new()
        } else {
            self.deleted.clone()
        };
        Delta { add, doom, forget }
    }

    /// Doomed files that are to be deleted now.
    pub(super) fn due(&self, now: TimestampMs, rules: &TierRules) -> impl Iterator<Item = &String> {
        let before = now.plus(-rules.delete_delay_ms);
        let doomed = self.doomed_at.iter();
        doomed
            .filter(move |(name, at)| **at <= before && !self.deleted.contains(*name))
            .map(|(name, _)| name)
    }

    /// Files that no version names and none dooms, and that are not on their way here.
    pub(super) fn find_orphans(&mut self, names: Vec<String>) {
        let Some(manifest) = &self.manifest else { return };
        let content = manifest.content();
        let uploading = self.uploading.iter().map(|(name, _)| name);
        let uploaded = self.uploaded.iter().map(|file| &file.name);
        let creating = self.creating.iter().filter_map(|creating| match &creating.version.says {
            Says::Delta(delta) => delta.add.as_ref().map(|file| &file.name),
            Says::Snapshot(content) => content.files.last().map(|file| &file.name),
        });
        let known: BTreeSet<&String> = uploading
            .chain(uploaded)
            .chain(creating)
            .chain(content.files.iter().map(|file| &file.name))
            .chain(&content.doomed)
            .collect();
        let unknown = names.into_iter().filter(|name| !known.contains(name));
        self.orphans = unknown.take(ORPHANS_MAX).collect();
    }

    pub(super) fn upload(&mut self, tag: &str, claimed: u64, log: &LogView, out: &mut Vec<Effect>) {
        let Some(manifest) = &self.manifest else { return };
        let is_adding = self.creating.as_ref().is_some_and(Creating::adds);
        if self.uploading.is_some() || self.uploaded.is_some() || is_adding {
            return;
        }
        // Segments end elsewhere on other brokers; the next file begins where the last one ended.
        let start = manifest.content().end_offset().unwrap_or(log.log_start);
        let next = log.closed.iter().find(|segment| segment.end_offset > start);
        let Some(segment) = next else { return };
        // The log may start in the middle of a segment, or of a batch; files have whole ones.
        let is_first = manifest.content().files.is_empty();
        let base_offset = if is_first { segment.base_offset } else { start };
        if base_offset < segment.base_offset {
            // The log has nothing of what would follow.
            return;
        }
        let segment = ClosedSegment { base_offset, ..*segment };
        self.attempts += 1;
        let last = Offset(segment.end_offset.0 - 1);
        let name = format!(
            "{:020}-{:020}-{tag}-{claimed}.{}.parquet",
            base_offset.0, last.0, self.attempts
        );
        out.push(Effect::Upload {
            name: name.clone(),
            base_offset,
            end_offset: segment.end_offset,
        });
        self.uploading = Some((name, segment));
    }

    /// Retention of the whole: what is too old or too much goes, file by file from the first.
    pub(super) fn raise_log_start(
        &mut self,
        now: TimestampMs,
        rules: &TierRules,
        log: &LogView,
        out: &mut Vec<Effect>,
    ) {
        let Some(manifest) = &self.manifest else { return };
        let files =
            || manifest.content().files.iter().filter(|file| file.end_offset > log.log_start);
        let mut total = files().map(|file| file.log_bytes).sum::<u64>() + log.local_bytes;
        let mut start = log.log_start;
        for file in files() {
            let is_old = rules.retention_ms.is_some_and(|kept| {
                file.max_timestamp.0 >= 0 && file.max_timestamp.plus(kept) < now
            });
            let is_surplus = rules
                .retention_bytes
                .is_some_and(|kept| total.saturating_sub(file.log_bytes) >= kept && total > kept);
            if !is_old && !is_surplus {
                break;
            }
            total -= file.log_bytes;
            start = file.end_offset;
        }
        if start > log.log_start && start > self.raised {
            self.raised = start;
            out.push(Effect::RaiseLogStart(start));
        }
    }
}

impl Creating {
    fn adds(&self) -> bool {
        match &self.version.says {
            Says::Delta(delta) => delta.add.is_some(),
            Says::Snapshot(_) => true,
        }
    }
}
