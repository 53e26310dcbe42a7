//! Brokers that follow the manifests of one topic with one table, race for its commits, and do not know that others lead.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::types::{NodeId, PartitionIndex, TopicId, Uuid};

const ID: TopicId = Uuid([7; 16]);
const OTHER: TopicId = Uuid([9; 16]);
const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

fn about(topic_id: TopicId) -> TableAbout {
    TableAbout { topic: "orders".to_owned(), topic_id, schema: "{}".to_owned() }
}

fn claim() -> Claim {
    Claim { leader_epoch: LeaderEpoch(0), broker: NodeId(1), token: "a".to_owned() }
}

fn file(base: i64, name: &str) -> FileEntry {
    FileEntry {
        name: format!("{base:020}-{name}.parquet"),
        base_offset: Offset(base),
        end_offset: Offset(base + 10),
        last_epoch: LeaderEpoch(0),
        max_timestamp: NOW,
        log_bytes: 10,
        file_bytes: 1234,
        crc32c: 0,
    }
}

fn change(manifest: &mut Manifest, delta: Delta) {
    let next = manifest.next(&claim(), delta).unwrap();
    manifest.apply(&next).unwrap();
}

/// Adds a file behind the last one.
fn add(manifest: &mut Manifest, name: &str) {
    let end = manifest.content().end_offset().unwrap_or(manifest.content().reached);
    change(manifest, Delta { add: Some(file(end.0, name)), ..Delta::default() });
}

/// Dooms the first file.
fn doom(manifest: &mut Manifest) {
    let doom = manifest.content().files.iter().take(1).map(|file| file.name.clone()).collect();
    change(manifest, Delta { doom, ..Delta::default() });
}

fn manifest(count: usize) -> Manifest {
    let mut manifest = Manifest::default();
    for _ in 0..count {
        add(&mut manifest, "a");
    }
    manifest
}

fn commit(changes: TableChanges, topic_id: TopicId) -> String {
    let statistics = vec![Some("{\"numRecords\":10}".to_owned()); changes.adds().len()];
    changes.commit(&about(topic_id), statistics, NOW).unwrap()
}

/// What a reader of Delta makes of commits.
#[derive(Debug, Default)]
struct Reader {
    files: BTreeSet<String>,
    protocol: Value,
    metadata: Value,
    adds: Vec<Value>,
    removed: Vec<String>,
}

impl Reader {
    fn of(commits: &[String]) -> Self {
        let mut reader = Self::default();
        for commit in commits {
            reader.removed.clear();
            for line in commit.lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                let (name, action) = line.as_object().unwrap().iter().next().unwrap();
                let path = || action["path"].as_str().unwrap().to_owned();
                match name.as_str() {
                    "protocol" => reader.protocol = action.clone(),
                    "metaData" => reader.metadata = action.clone(),
                    "add" => {
                        assert!(reader.files.insert(path()), "{} is added twice", path());
                        reader.adds.push(action.clone());
                    }
                    "remove" => {
                        assert!(reader.files.remove(&path()), "{} was not there", path());
                        reader.removed.push(path());
                    }
                    "txn" | "commitInfo" => {}
                    other => panic!("{other}"),
                }
            }
        }
        reader
    }

    fn is_open(&self) -> bool {
        self.protocol["minReaderVersion"] == 1
    }
}

fn paths(index: i32, manifest: &Manifest) -> BTreeSet<String> {
    let files = &manifest.content().files;
    files.iter().map(|file| format!("partition={index}/{}", file.name)).collect()
}

fn table(commits: &[String]) -> DeltaTable {
    let mut table = DeltaTable::default();
    for commit in commits {
        table.apply(commit).unwrap();
    }
    table
}

#[test]
fn a_table_begins_with_what_it_is_and_its_files() {
    let (one, other) = (manifest(2), manifest(1));
    let manifests = [(PartitionIndex(0), &one), (PartitionIndex(1), &other)];
    let table = DeltaTable::default();
    assert_eq!((table.owner(), table.next_version()), (TableOwner::Nobody, 0));
    let changes = table.changes(&about(ID), manifests);
    assert!(changes.is_complete() && !changes.is_empty());
    let commits = [commit(changes, ID)];
    let reader = Reader::of(&commits);
    assert_eq!(reader.protocol["minWriterVersion"], 7);
    assert_eq!(reader.protocol["writerFeatures"], serde_json::json!(["invariants", "ottlaTier"]));
    assert!(reader.is_open() && reader.protocol.get("readerFeatures").is_none());
    assert_eq!(reader.metadata["id"], "07070707-0707-0707-0707-070707070707");
    assert_eq!(reader.metadata["format"]["provider"], "parquet");
    assert_eq!(reader.metadata["partitionColumns"], serde_json::json!(["topic", "partition"]));
    assert_eq!(reader.files, &paths(0, &one) | &paths(1, &other));
    let first = &reader.adds[0];
    let values = serde_json::json!({"topic": "orders", "partition": "0"});
    assert_eq!((&first["partitionValues"], &first["size"]), (&values, &1234.into()));
    assert_eq!(first["stats"], "{\"numRecords\":10}");

    let table = self::table(&commits);
    assert_eq!(table.owner(), TableOwner::Topic { id: ID, is_deleted: false });
    assert_eq!(table.next_version(), 1);
    assert!(table.changes(&about(ID), manifests).is_empty(), "nothing has changed");
    let changed = TableAbout { schema: "{\"more\":1}".to_owned(), ..about(ID) };
    let changes = table.changes(&changed, manifests);
    assert!(!changes.is_empty() && changes.adds().is_empty() && changes.remove_count() == 0);
}

#[test]
fn a_leader_that_was_replaced_changes_nothing() {
    let mut newer = manifest(3);
    let older = newer.clone();
    doom(&mut newer);
    let mut commits =
        vec![commit(DeltaTable::default().changes(&about(ID), [(PartitionIndex(0), &older)]), ID)];
    let after = table(&commits).changes(&about(ID), [(PartitionIndex(0), &newer)]);
    assert_eq!((after.remove_count(), after.adds().len()), (1, 0));
    commits.push(commit(after, ID));
    let table = table(&commits);
    assert!(table.changes(&about(ID), [(PartitionIndex(0), &older)]).is_empty());
    assert_eq!(Reader::of(&commits).files, paths(0, &newer));
}

#[test]
fn many_files_are_added_by_several_commits() {
    let many = manifest(2300);
    let mut commits = Vec::new();
    loop {
        let changes = table(&commits).changes(&about(ID), [(PartitionIndex(0), &many)]);
        if changes.is_empty() {
            break;
        }
        let is_complete = changes.is_complete();
        commits.push(commit(changes, ID));
        assert_eq!(is_complete, commits.len() == 3);
    }
    assert_eq!(commits.len(), 3);
    assert_eq!(Reader::of(&commits).files, paths(0, &many));
    let older = table(&commits[..1]).changes(&about(ID), [(PartitionIndex(0), &manifest(5))]);
    assert!(older.is_empty(), "of what is not complete nothing is taken away");
}

#[test]
fn a_closed_table_keeps_its_files_and_opens_again() {
    let mut manifest = manifest(2);
    let wanted = |table: &DeltaTable, manifest: &Manifest| {
        table.changes(&about(ID), [(PartitionIndex(0), manifest)])
    };
    let mut commits = vec![commit(wanted(&DeltaTable::default(), &manifest), ID)];
    let close = |commits: &[String], id, deleted| table(commits).closing(id, deleted, NOW).unwrap();
    assert_eq!(close(&commits, OTHER, true), None, "it is of another topic");
    commits.push(close(&commits, ID, false).unwrap());
    assert_eq!(close(&commits, ID, false), None, "it is closed");
    let reader = Reader::of(&commits);
    assert_eq!(reader.protocol["minReaderVersion"], 3);
    assert_eq!(reader.protocol["readerFeatures"], serde_json::json!(["ottlaTableIsOff"]));
    let features = serde_json::json!(["invariants", "ottlaTableIsOff", "ottlaTier"]);
    assert_eq!(reader.protocol["writerFeatures"], features);
    assert_eq!(reader.files, paths(0, &manifest), "whatever is removed may be deleted by others");

    add(&mut manifest, "b");
    commits.push(commit(wanted(&table(&commits), &manifest), ID));
    let reader = Reader::of(&commits);
    assert!(reader.is_open() && reader.files == paths(0, &manifest));
}

#[test]
fn a_topic_takes_over_the_table_of_a_deleted_one() {
    let (before, after) = (manifest(3), manifest(1));
    let first = DeltaTable::default().changes(&about(OTHER), [(PartitionIndex(1), &before)]);
    let mut commits = vec![commit(first, OTHER)];
    commits.push(table(&commits).closing(OTHER, true, NOW).unwrap().unwrap());
    assert_eq!(table(&commits).owner(), TableOwner::Topic { id: OTHER, is_deleted: true });
    assert_eq!(table(&commits).closing(OTHER, true, NOW), Ok(None));
    let taking = table(&commits).changes(&about(ID), [(PartitionIndex(1), &after)]);
    assert_eq!(taking.remove_count(), 3);
    commits.push(commit(taking, ID));
    assert_eq!(table(&commits).owner(), TableOwner::Topic { id: ID, is_deleted: false });
    let reader = Reader::of(&commits);
    assert!(reader.is_open());
    assert_eq!(reader.files, paths(1, &after));
    assert_eq!(reader.metadata["id"], "07070707-0707-0707-0707-070707070707");
}

#[test]
fn many_files_are_removed_by_several_commits() {
    let many = manifest(2300);
    let wanted = |commits: &[String], id, manifest: &Manifest| {
        table(commits).changes(&about(id), [(PartitionIndex(0), manifest)])
    };
    let mut commits = Vec::new();
    for _ in 0..3 {
        commits.push(commit(wanted(&commits, OTHER, &many), OTHER));
    }
    // Retention has left nothing; then the topic is deleted, and another one takes the table over.
    let mut emptied = many.clone();
    let doom = many.content().files.iter().map(|file| file.name.clone()).collect();
    change(&mut emptied, Delta { doom, ..Delta::default() });
    for (id, after) in [(OTHER, emptied), (ID, manifest(2))] {
        let mut commits = commits.clone();
        if id == ID {
            commits.push(table(&commits).closing(OTHER, true, NOW).unwrap().unwrap());
        }
        let mut counts = Vec::new();
        loop {
            let changes = wanted(&commits, id, &after);
            if changes.is_empty() {
                break;
            }
            counts.push((changes.remove_count(), changes.is_complete()));
            commits.push(commit(changes, id));
        }
        assert_eq!(counts, [(1000, false), (1000, false), (300, true)]);
        let reader = Reader::of(&commits);
        assert!(reader.is_open() && reader.files == paths(0, &after));
    }
}

#[test]
fn what_others_have_written_is_no_table_of_a_topic() {
    let mut table = DeltaTable::default();
    let strange = r#"{"metaData":{"id":"x","format":{"provider":"parquet","options":{}},"schemaString":"{}","partitionColumns":[],"configuration":{}}}
{"add":{"path":"part-0.parquet","partitionValues":{},"size":1,"modificationTime":1,"dataChange":true,"deletionVector":null}}

{"cdc":{"path":"x"}}"#;
    table.apply(strange).unwrap();
    assert_eq!(table.owner(), TableOwner::Stranger);
    assert_eq!(table.closing(ID, true, NOW), Ok(None));
    assert!(table.apply("{\"add\":").unwrap_err().contains("EOF"));
    assert!(table.apply("{\"add\":{}}").unwrap_err().contains("path"));
}

/// Random numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Each seed: two partitions whose manifests change, and brokers that have read the table and a manifest at some time
/// before they try to commit.
#[test]
fn whoever_commits_when_the_table_ends_as_the_manifests_say() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let mut manifests = [Manifest::default(), Manifest::default()];
        let mut commits: Vec<String> = Vec::new();
        // What a broker had read when it was held up.
        let mut held: Vec<(DeltaTable, usize, Manifest)> = Vec::new();
        let mut committed = 0;
        for step in 0..120 {
            let partition = dice.below(2);
            match dice.below(8) {
                0..=2 => add(&mut manifests[partition], &format!("s{step}")),
                3 if manifests[partition].content().files.len() > 1 => {
                    doom(&mut manifests[partition]);
                }
                4 => held.push((table(&commits), partition, manifests[partition].clone())),
                5 if !held.is_empty() => {
                    let at = dice.below(held.len());
                    let (known, partition, manifest) = held.swap_remove(at);
                    let fresh = table(&commits);
                    // Create-only: with a table that is not the newest, the number of the commit is taken.
                    let known = if known == fresh { known } else { fresh };
                    try_commit(&mut commits, &known, partition, &manifest, &manifests);
                }
                _ => {
                    let manifest = manifests[partition].clone();
                    let known = table(&commits);
                    committed += usize::from(try_commit(
                        &mut commits,
                        &known,
                        partition,
                        &manifest,
                        &manifests,
                    ));
                }
            }
        }
        assert!(committed > 5, "seed {seed}");
        for (partition, manifest) in manifests.iter().enumerate() {
            let known = table(&commits);
            try_commit(&mut commits, &known, partition, manifest, &manifests);
        }
        let expected = &paths(0, &manifests[0]) | &paths(1, &manifests[1]);
        assert_eq!(Reader::of(&commits).files, expected, "seed {seed}");
    }
}

fn try_commit(
    commits: &mut Vec<String>,
    known: &DeltaTable,
    partition: usize,
    manifest: &Manifest,
    newest: &[Manifest; 2],
) -> bool {
    let index = i32::try_from(partition).unwrap();
    let changes = known.changes(&about(ID), [(PartitionIndex(index), manifest)]);
    if changes.is_empty() {
        return false;
    }
    assert_eq!(known.next_version(), commits.len() as u64);
    commits.push(commit(changes, ID));
    // `TABLE-2`: by the newest manifest of all.
    let removed = Reader::of(commits).removed;
    let live = &paths(0, &newest[0]) | &paths(1, &newest[1]);
    assert!(removed.iter().all(|path| !live.contains(path)), "{removed:?}");
    true
}
