//! `meta.properties` and `partition.metadata`: which cluster, node, directory and topic the files
//! belong to.

use std::collections::BTreeMap;
use std::path::Path;

use super::layout;
use crate::env::Disk;
use crate::error::{Error, Result};
use crate::types::{NodeId, TopicId, TopicPartition, Uuid};

/// The content of `meta.properties`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// The cluster; `None` until a directory that was made to join one has adopted its id.
    pub cluster_id: Option<String>,
    /// The node.
    pub node_id: NodeId,
    /// This directory among those of the node (KIP-858).
    pub directory_id: Uuid,
}

impl MetaProperties {
    pub(super) fn encode(&self) -> String {
        let cluster = self.cluster_id.iter().map(|id| format!("cluster.id={id}\n"));
        format!(
            "#\n{}directory.id={}\nnode.id={}\nversion=1\n",
            cluster.collect::<String>(),
            self.directory_id,
            self.node_id
        )
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// [`Error::Newer`] and [`Error::Corrupt`].
    pub(super) fn decode(file: &Path, text: &str) -> Result<Self> {
        let corrupt = |detail: String| Error::corrupt(file, 0, detail);
        let mut entries = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let pair =
                line.split_once('=').ok_or_else(|| corrupt(format!("no '=' in {line:?}")))?;
            entries.insert(pair.0.trim(), pair.1.trim());
        }
        let get = |key: &str| {
            entries.get(key).copied().ok_or_else(|| corrupt(format!("{key} is missing")))
        };
        match get("version")?.parse::<u32>() {
            Ok(1) => {}
            Ok(version) if version > 1 => {
                let what = file.display().to_string();
                return Err(Error::Newer { what, version, known: 1 });
            }
            _ => return Err(corrupt(format!("version {:?} is none", get("version")?))),
        }
        let (node_id, directory_id) = (get("node.id")?, get("directory.id")?);
        Ok(Self {
            cluster_id: entries.get("cluster.id").map(|&id| id.to_owned()),
            node_id: node_id
                .parse()
                .map(NodeId)
                .map_err(|_error| corrupt(format!("node.id {node_id:?} is not a number")))?,
            directory_id: Uuid::parse(directory_id)
                .ok_or_else(|| corrupt(format!("directory.id {directory_id:?} is not an id")))?,
        })
    }
}

/// Compares the topic id of a partition's directory, or writes it when there is none.
pub(super) fn check_topic_id(
    disk: &dyn Disk,
    directory: &Path,
    topic_id: TopicId,
    partition: &TopicPartition,
) -> Result<()> {
    match read_topic_id(disk, directory)? {
        Some(found) if found == topic_id => Ok(()),
        Some(found) => Err(Error::invalid(format!(
            "{} holds the topic id {found} for {partition}, not {topic_id}: it is left over from \
             another topic of this name",
            directory.display()
        ))),
        None => {
            let path = directory.join(layout::PARTITION_METADATA);
            let text = format!("version: 0\ntopic_id: {topic_id}\n");
            disk.write_atomically(&path, text.as_bytes())
                .map_err(|error| Error::io("write", &path, error))
        }
    }
}

/// The topic id in `partition.metadata`; none when there is no such file.
pub(super) fn read_topic_id(disk: &dyn Disk, directory: &Path) -> Result<Option<TopicId>> {
    let path = directory.join(layout::PARTITION_METADATA);
    let bytes = disk.read(&path).map_err(|error| Error::io("read", &path, error))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    match lines.next() {
        Some("version: 0") => {}
        other => {
            let detail = format!("the first line is {:?}, not \"version: 0\"", other.unwrap_or(""));
            return Err(Error::corrupt(&path, 0, detail));
        }
    }
    let id = lines.next().and_then(|line| line.strip_prefix("topic_id: ")).and_then(Uuid::parse);
    id.map(Some).ok_or_else(|| Error::corrupt(&path, 0, "the topic id is missing"))
}
