//! Which replicas are copied at a limited rate.

use std::collections::BTreeSet;

use crate::types::PartitionIndex;

/// The value of `leader.replication.throttled.replicas` or `follower.replication.throttled.replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ThrottledReplicas {
    /// All replicas of the topic: `*`.
    All,
    /// These, by partition and broker.
    Some(BTreeSet<(PartitionIndex, i32)>),
}

impl ThrottledReplicas {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names: Vec<&str> = names.collect();
        if names == ["*"] {
            return Some(Self::All);
        }
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse().ok()).flatten()
        };
        let pair = |name: &&str| {
            let (partition, broker) = name.split_once(':')?;
            Some((PartitionIndex(number(partition)?), number(broker)?))
        };
        names.iter().map(pair).collect::<Option<_>>().map(Self::Some)
    }

    /// For the table.
    pub(super) fn check(text: &str) -> Result<(), String> {
        let wrong = || "use \"*\" or a list of PARTITION:BROKER".to_owned();
        Self::parse(text).map(drop).ok_or_else(wrong)
    }

    /// Whether the replica of a partition on a broker is among them.
    #[must_use]
    pub fn contains(&self, partition: PartitionIndex, broker: i32) -> bool {
        match self {
            Self::All => true,
            Self::Some(replicas) => replicas.contains(&(partition, broker)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_listed_by_partition_and_broker() {
        let listed = ThrottledReplicas::parse("0:1, 12:3,").unwrap();
        assert!(listed.contains(PartitionIndex(0), 1) && listed.contains(PartitionIndex(12), 3));
        assert!(!listed.contains(PartitionIndex(1), 0) && !listed.contains(PartitionIndex(12), 1));
        assert!(!ThrottledReplicas::parse("").unwrap().contains(PartitionIndex(0), 0));
        assert!(ThrottledReplicas::parse(" * ").unwrap().contains(PartitionIndex(7), 9));
        for wrong in ["0", "0:", ":1", "0:1:2", "a:1", "-1:0", "+1:0", "*,0:1", "0:99999999999"] {
            assert!(ThrottledReplicas::check(wrong).is_err(), "{wrong}");
        }
    }
}
