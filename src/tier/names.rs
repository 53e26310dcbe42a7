//! The names of files: where Hive's readers look for the topic and the partition, and which offsets are inside.

use crate::types::{Offset, PartitionIndex, Uuid};

const EXTENSION: &str = ".parquet";
const DIGITS: usize = 20;

/// The folder of a partition, below the root.
#[must_use]
pub fn folder(topic: &str, partition: PartitionIndex) -> String {
    format!("topic={topic}/partition={partition}")
}

/// The folder with the log of the Delta table of a topic.
#[must_use]
pub fn table_log(topic: &str) -> String {
    format!("topic={topic}/_delta_log")
}

/// The name of a file with offsets from `base` to before `end`; `tag` tells it from others of the same offsets.
#[must_use]
pub fn file_name(base: Offset, end: Offset, topic_id: Uuid, tag: &str) -> String {
    let last = end.0.saturating_sub(1);
    let [a, b, c, d, ..] = topic_id.0;
    format!("{:020}-{last:020}-{a:02x}{b:02x}{c:02x}{d:02x}-{tag}{EXTENSION}", base.0)
}

/// The offsets that a name says: the first, and the one behind the last. None for the name of another file.
#[must_use]
pub fn offsets(name: &str) -> Option<(Offset, Offset)> {
    let stem = name.strip_suffix(EXTENSION)?;
    let mut parts = stem.splitn(3, '-');
    let mut number = || {
        let part = parts.next().filter(|part| part.len() == DIGITS)?;
        part.parse::<i64>().ok()
    };
    let (base, last) = (number()?, number()?);
    parts.next()?;
    Some((Offset(base), Offset(last.checked_add(1)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_its_offsets() {
        let id = Uuid([0xab, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        let name = file_name(Offset(7), Offset(12), id, "17.3");
        assert_eq!(name, "00000000000000000007-00000000000000000011-ab010203-17.3.parquet");
        assert_eq!(offsets(&name), Some((Offset(7), Offset(12))));
        for other in ["a.parquet", "7-11-ab010203-1.parquet", &name[..name.len() - 1], &name[..49]]
        {
            assert_eq!(offsets(other), None, "{other}");
        }
    }
}
