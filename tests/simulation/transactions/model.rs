//! What a log with transactions is: the entries, which of them count, and from where on nothing is decided.

use std::collections::BTreeMap;

use ottla::log::AbortedTransaction;
use ottla::types::{Offset, ProducerId};

/// What is in the log, one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry {
    Plain { offset: i64 },
    Data { offset: i64, count: i64, producer: i64, epoch: i16 },
    Marker { offset: i64, producer: i64, epoch: i16, committed: bool },
}

impl Entry {
    pub(super) fn next(&self) -> i64 {
        match *self {
            Self::Plain { offset } | Self::Marker { offset, .. } => offset + 1,
            Self::Data { offset, count, .. } => offset + count,
        }
    }
}

/// A transaction, as far as the log goes.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    pub(super) producer: i64,
    /// The offsets of its records.
    pub(super) records: Vec<i64>,
    /// The marker, and what of the log was stable with it.
    pub(super) end: Option<(i64, bool, i64)>,
}

impl Transaction {
    pub(super) fn first(&self) -> i64 {
        self.records[0]
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) entries: Vec<Entry>,
    pub(super) start: i64,
    pub(super) high_watermark: i64,
    /// Ends below this may have been forgotten in a restart, with everything decided and less than that committed.
    pub(super) forgotten: i64,
}

/// A producer as its partition knows it: its epoch, its next sequence, and its open transaction.
type Producer = (i16, i32, Option<usize>);

impl Model {
    pub(super) fn end(&self) -> i64 {
        self.entries.last().map_or(0, Entry::next)
    }

    pub(super) fn all(&self) -> (Vec<Transaction>, BTreeMap<i64, Producer>) {
        let mut transactions: Vec<Transaction> = Vec::new();
        let mut producers: BTreeMap<i64, Producer> = BTreeMap::new();
        for entry in &self.entries {
            match *entry {
                Entry::Plain { .. } => {}
                Entry::Data { offset, count, producer, epoch } => {
                    let known = producers.entry(producer).or_insert((epoch, 0, None));
                    if known.0 != epoch {
                        (known.0, known.1) = (epoch, 0);
                    }
                    known.1 += i32::try_from(count).unwrap();
                    let index = *known.2.get_or_insert_with(|| {
                        transactions.push(Transaction { producer, records: Vec::new(), end: None });
                        transactions.len() - 1
                    });
                    transactions[index].records.extend(offset..offset + count);
                }
                Entry::Marker { offset, producer, epoch, committed } => {
                    let known = producers.entry(producer).or_insert((epoch, 0, None));
                    if known.0 != epoch {
                        (known.0, known.1) = (epoch, 0);
                    }
                    if let Some(index) = known.2.take() {
                        let open = transactions.iter().enumerate();
                        let open = open.filter(|(other, one)| *other != index && one.end.is_none());
                        let stable = open.map(|(_, one)| one.first()).min().unwrap_or(offset + 1);
                        transactions[index].end = Some((offset, committed, stable));
                    }
                }
            }
        }
        (transactions, producers)
    }

    /// Where a consumer must stop at the latest, and where it may be told to stop at the earliest: an end that was
    /// forgotten in a restart holds nobody back.
    pub(super) fn stable(&self) -> (i64, i64) {
        let (transactions, _) = self.all();
        let earliest = |is_unstable: &dyn Fn(&Transaction) -> bool, from: i64| {
            let unstable = transactions.iter().filter(|one| is_unstable(one));
            // What began before the log start may be forgotten in a restart, or its first records.
            let left =
                |one: &Transaction| one.records.iter().copied().find(|offset| *offset >= from);
            let firsts = unstable.filter_map(left).map(|first| first.max(self.start));
            firsts.min().map_or(self.high_watermark, |first| first.min(self.high_watermark))
        };
        let strict = earliest(&|one| one.end.is_none_or(|end| end.0 >= self.high_watermark), 0);
        let lenient = earliest(
            &|one| match one.end {
                None => true,
                Some(end) => end.0 >= self.high_watermark && end.0 >= self.forgotten,
            },
            self.start,
        );
        (strict, lenient)
    }

    /// What a consumer sees between two offsets.
    pub(super) fn visible(&self, from: i64, to: i64) -> Vec<i64> {
        let (transactions, _) = self.all();
        let committed = transactions.iter().filter(|one| matches!(one.end, Some((_, true, _))));
        let mut visible: Vec<i64> = committed.flat_map(|one| one.records.iter().copied()).collect();
        visible.extend(self.entries.iter().filter_map(|entry| match entry {
            Entry::Plain { offset } => Some(*offset),
            _ => None,
        }));
        visible.retain(|offset| (from..to).contains(offset));
        visible.sort_unstable();
        visible
    }

    pub(super) fn aborted(&self) -> Vec<AbortedTransaction> {
        let (transactions, _) = self.all();
        let aborted = transactions.iter().filter_map(|one| match one.end {
            Some((marker, false, stable)) => Some(AbortedTransaction {
                producer_id: ProducerId(one.producer),
                first_offset: Offset(one.first()),
                last_offset: Offset(marker),
                last_stable_offset: Offset(stable),
            }),
            _ => None,
        });
        let mut aborted: Vec<_> = aborted.collect();
        aborted.sort_by_key(|entry| entry.first_offset);
        aborted
    }
}
