//! Directories as releases with openraft left them, byte by byte.

use std::fs;
use std::path::Path;

use super::tests::{content, create, options_on, register};
use super::*;
use crate::machine::metadata::MetadataRecord;
use crate::record::{BatchBuilder, BatchOptions};
use crate::types::TimestampMs;

const MEMBERS: &str = r#""members":{"voters":[[1]],"nodes":[{"id":1,"address":""}]}"#;
const STATE: &str = r#"{"version":1,"sequence":2,"vote":{"term":1,"node":1,"committed":false},"committed":null,"purged":null,"recovery_point":0}"#;

fn lines(records: &[MetadataRecord]) -> String {
    let mut lines = String::new();
    for record in records {
        lines.push('\n');
        lines.push_str(std::str::from_utf8(&record.encode().unwrap()).unwrap());
    }
    lines
}

fn cluster() -> MetadataRecord {
    MetadataRecord::Cluster { id: "test-cluster".into() }
}

fn topic(name: &str, id: u8) -> MetadataRecord {
    MetadataRecord::Topic { name: name.into(), id: Uuid([id; 16]) }
}

fn with_sum(text: &str) -> Vec<u8> {
    format!("{text}\n{:08x}\n", crc32c::crc32c(text.as_bytes())).into_bytes()
}

fn write_state(directory: &Path, slots: [&str; 2]) {
    let slot = |text: &&str| {
        let mut bytes = with_sum(text);
        bytes.resize(4096, b' ');
        bytes
    };
    fs::write(directory.join("quorum-state"), slots.iter().flat_map(slot).collect::<Vec<_>>())
        .unwrap();
}

fn write_log(directory: &Path, start: i64, entries: &[(i32, String)]) {
    let mut bytes = Vec::new();
    for (offset, (term, value)) in (start..).zip(entries) {
        let options = BatchOptions {
            base_offset: Offset(offset),
            leader_epoch: LeaderEpoch(*term),
            ..BatchOptions::default()
        };
        let mut batch = BatchBuilder::new(options);
        batch.append(TimestampMs(5), None, Some(value.as_bytes()), &[]).unwrap();
        bytes.extend_from_slice(&batch.finish().unwrap());
    }
    fs::write(directory.join(format!("{start:020}.log")), bytes).unwrap();
}

fn records(records: &[MetadataRecord]) -> String {
    format!(r#"{{"version":1,"leader":1,"kind":"records"}}{}"#, lines(records))
}

/// A log from its beginning: the membership, in term 0; the first entry of term 1; records.
fn old_log() -> Vec<(i32, String)> {
    vec![
        (0, format!(r#"{{"version":1,"leader":0,"kind":"membership",{MEMBERS}}}"#)),
        (1, r#"{"version":1,"leader":1,"kind":"blank"}"#.to_owned()),
        (1, records(&[cluster()])),
        (1, records(&[topic("early", 5)])),
    ]
}

fn metadata_directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let metadata = directory.path().join(METADATA_DIRECTORY);
    fs::create_dir_all(&metadata).unwrap();
    (directory, metadata)
}

async fn check(directory: &Path, names: &[&str]) {
    let options = options_on(Env::real(), directory);
    let mut expected = Vec::new();
    for round in 0..2 {
        let quorum = Quorum::open(options.clone()).await.unwrap();
        for name in names {
            assert!(quorum.image().topic(name).is_some(), "{name} in round {round}");
        }
        let told = content(&quorum).into_iter().filter(|record| expected.contains(record));
        assert_eq!(told.count(), expected.len(), "round {round}");
        assert_eq!(quorum.leader_epoch(), LeaderEpoch(2 + round));
        // The voter is known by its directory from now on.
        let key = ReplicaKey { id: NodeId(1), directory_id: options.directory_id };
        assert_eq!(quorum.machine().voters().get(NodeId(1)).unwrap().key, key);
        register(&quorum, 3).await.unwrap();
        create(&quorum, &format!("later-{round}")).await.unwrap();
        expected = content(&quorum);
        expected.retain(|record| matches!(record, MetadataRecord::Topic { .. }));
        quorum.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_log_is_read_from_its_beginning() {
    let (directory, metadata) = metadata_directory();
    let committed = STATE.replace("\"sequence\":2", "\"sequence\":3").replace("false", "true");
    write_state(&metadata, [STATE, &committed]);
    write_log(&metadata, 0, &old_log());
    check(directory.path(), &["early"]).await;
    let state = fs::read_to_string(metadata.join("quorum-state")).unwrap();
    assert!(state.contains(r#""version":2"#) && !state.contains(r#""version":1"#), "{state}");
}

#[tokio::test]
async fn a_log_is_read_that_begins_behind_a_snapshot() {
    let (directory, metadata) = metadata_directory();
    let state = r#"{"version":1,"sequence":5,"vote":{"term":1,"node":1,"committed":true},"committed":{"index":4,"term":1,"leader":1},"purged":{"index":3,"term":1,"leader":1},"recovery_point":5}"#;
    write_state(&metadata, [STATE, state]);
    let header = format!(
        r#"{{"version":1,"last":{{"index":3,"term":1,"leader":1}},{MEMBERS},"members_since":{{"index":0,"term":0,"leader":0}},"records":2}}"#
    );
    let snapshot = format!("{header}{}", lines(&[cluster(), topic("early", 5)]));
    fs::write(metadata.join("00000000000000000004-0000000001.checkpoint"), with_sum(&snapshot))
        .unwrap();
    write_log(&metadata, 4, &[(1, records(&[topic("late", 6)]))]);
    check(directory.path(), &["early", "late"]).await;
}

/// The old release was killed between a snapshot and the cut of its log.
#[tokio::test]
async fn a_snapshot_in_the_middle_of_a_log_is_read() {
    let (directory, metadata) = metadata_directory();
    write_state(&metadata, [STATE, STATE]);
    let header = format!(
        r#"{{"version":1,"last":{{"index":2,"term":1,"leader":1}},{MEMBERS},"members_since":null,"records":1}}"#
    );
    let snapshot = format!("{header}{}", lines(&[cluster()]));
    fs::write(metadata.join("00000000000000000003-0000000001.checkpoint"), with_sum(&snapshot))
        .unwrap();
    write_log(&metadata, 0, &old_log());
    check(directory.path(), &["early"]).await;
}

#[test]
fn voters_are_written_as_they_are_read() {
    let endpoint = Endpoint {
        listener: "CONTROLLER".into(),
        host: "host".into(),
        port: 9093,
        security_protocol: 0,
    };
    let key = ReplicaKey { id: NodeId(3), directory_id: Uuid([7; 16]) };
    let voters = VoterSet::new([Voter { key, endpoints: vec![endpoint] }]);
    let (offset, epoch) = (Offset(4), LeaderEpoch(2));
    let entry = entry::Entry { offset, epoch, payload: machine::Payload::Voters(voters) };
    let value = entry::encode(&entry).unwrap();
    let text = std::str::from_utf8(&value).unwrap();
    assert_eq!(
        text,
        r#"{"version":2,"kind":"voters","voters":[{"id":3,"directory_id":"BwcHBwcHBwcHBwcHBwcHBw","endpoints":[{"listener":"CONTROLLER","host":"host","port":9093,"security_protocol":0}]}]}"#
    );
    assert_eq!(entry::decode(offset, epoch, &value).unwrap(), entry);
}
