//! Kafka's checkpoint text: a version line (0), a count line, then one line per entry.

use std::collections::BTreeMap;

use crate::types::{Offset, PartitionIndex, TopicPartition};

/// The text of a checkpoint.
pub(super) fn encode(lines: impl Iterator<Item = String>) -> String {
    let mut count = 0_usize;
    let mut body = String::new();
    for line in lines {
        count += 1;
        body.push_str(&line);
        body.push('\n');
    }
    format!("0\n{count}\n{body}")
}

/// The entry lines of a checkpoint.
///
/// # Errors
///
/// The reason, as text.
pub(super) fn decode(text: &str) -> Result<Vec<&str>, String> {
    let mut lines = text.lines();
    match lines.next().map(str::trim) {
        Some("0") => {}
        Some(version) => {
            return Err(format!("version {version:?} is newer than 0, the only known one"));
        }
        None => return Err("the file is empty".to_owned()),
    }
    let count = lines.next().and_then(|line| line.trim().parse::<usize>().ok());
    let count = count.ok_or("the second line is not a count")?;
    let entries: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    if entries.len() != count {
        return Err(format!(
            "the header announces {count} entries, but there are {}",
            entries.len()
        ));
    }
    Ok(entries)
}

/// The text of an offset checkpoint of a log directory: `topic partition offset` lines.
pub(super) fn encode_offsets(offsets: &BTreeMap<TopicPartition, Offset>) -> String {
    encode(
        offsets
            .iter()
            .map(|(name, offset)| format!("{} {} {}", name.topic, name.partition, offset)),
    )
}

/// Reads what [`encode_offsets`] writes.
pub(super) fn decode_offsets(text: &str) -> Result<BTreeMap<TopicPartition, Offset>, String> {
    let mut offsets = BTreeMap::new();
    for line in decode(text)? {
        let mut words = line.split_ascii_whitespace();
        let entry = (|| {
            let topic = words.next()?;
            let partition: PartitionIndex = words.next()?.parse().ok()?;
            let offset = words.next()?.parse().ok()?;
            words.next().is_none().then(|| (TopicPartition::new(topic, partition), Offset(offset)))
        })();
        let (name, offset) =
            entry.ok_or_else(|| format!("not a topic, a partition and an offset: {line:?}"))?;
        offsets.insert(name, offset);
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_come_back_from_text() {
        let offsets = BTreeMap::from([
            (TopicPartition::new("a.b-c", 11), Offset(5)),
            (TopicPartition::new("z", 0), Offset(0)),
        ]);
        let text = encode_offsets(&offsets);
        assert_eq!(text, "0\n2\na.b-c 11 5\nz 0 0\n");
        assert_eq!(decode_offsets(&text), Ok(offsets));
        for broken in ["", "0", "0\nx\n", "0\n1\nz 0\n", "0\n1\nz 0 1 2\n", "0\n0\nz 0 1\n"] {
            assert!(decode_offsets(broken).is_err(), "{broken:?}");
        }
    }
}
