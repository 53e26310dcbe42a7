//! The log directory: lock, identity, checkpoints, deletion.

use ottla::env::Env;
use ottla::log::{CheckpointedOffsets, Log, LogConfig, LogDirectory, OpenOptions};
use ottla::types::{NodeId, Offset, TimestampMs, TopicPartition};

use crate::support::{EPOCH, batch, create, options, read_all};

fn open(path: &std::path::Path) -> ottla::error::Result<LogDirectory> {
    LogDirectory::open(&Env::real(), path, NodeId(1), None)
}

#[test]
fn a_directory_is_locked_and_knows_whose_it_is() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(root.path()).unwrap();
    assert!(!directory.was_clean());
    let error = open(root.path()).unwrap_err();
    assert!(error.to_string().contains("another broker of this process holds"), "{error}");
    let cluster = directory.meta().cluster_id;
    directory.close().unwrap();
    let again = open(root.path()).unwrap();
    assert!(again.was_clean());
    assert_eq!(again.meta().cluster_id, cluster);
    drop(again);
    assert!(!open(root.path()).unwrap().was_clean(), "a second start without a clean stop");
    let env = Env::real();
    let error = LogDirectory::open(&env, root.path(), NodeId(2), None).unwrap_err();
    assert!(error.to_string().contains("belongs to node 1"), "{error}");
    let error = LogDirectory::open(&env, root.path(), NodeId(1), Some("other")).unwrap_err();
    assert!(error.to_string().contains("belongs to cluster"), "{error}");
    let file = root.path().join("meta.properties");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("version=1", "version=2")).unwrap();
    let error = open(root.path()).unwrap_err();
    assert!(error.to_string().contains("newer release"), "{error}");
}

#[test]
fn a_directory_that_is_to_join_a_cluster_adopts_its_id_once() {
    let root = tempfile::tempdir().unwrap();
    let env = Env::real();
    let join = || LogDirectory::open_to_join(&env, root.path(), NodeId(1)).unwrap();
    let directory = join();
    assert_eq!(directory.meta().cluster_id, None);
    let directory_id = directory.meta().directory_id;
    drop(directory);
    // Nor does it get one of its own when it is opened without the intention.
    assert_eq!(open(root.path()).unwrap().meta().cluster_id, None);
    let directory = join();
    directory.adopt("theirs").unwrap();
    directory.adopt("theirs").unwrap();
    let error = directory.adopt("other").unwrap_err();
    assert_eq!(error.code(), ottla::error::ErrorCode::InconsistentClusterId);
    let text = error.to_string();
    assert!(text.contains("belongs to cluster theirs") && text.contains("other"), "{text}");
    drop(directory);
    let meta = open(root.path()).unwrap().meta();
    assert_eq!((meta.cluster_id.as_deref(), meta.directory_id), (Some("theirs"), directory_id));
}

#[test]
fn checkpoints_and_partitions_come_back_and_deletion_forgets_them() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(root.path()).unwrap();
    let partition = TopicPartition::new("orders", 0);
    let log = create(&Env::real(), &directory.partition_path(&partition), <_>::default());
    log.close().unwrap();
    let offsets = CheckpointedOffsets {
        recovery_point: Offset(5),
        log_start_offset: Offset(2),
        high_watermark: Offset(4),
    };
    directory.write_checkpoints([(partition.clone(), offsets)]).unwrap();
    drop(directory);
    let directory = open(root.path()).unwrap();
    assert_eq!(directory.checkpointed(&partition), offsets);
    let found = directory.partitions().unwrap();
    assert_eq!(found.iter().map(|found| &found.partition).collect::<Vec<_>>(), [&partition]);
    assert_eq!(found.first().and_then(|found| found.topic_id), Some(ottla::types::Uuid([7; 16])));
    let missing = TopicPartition::new("orders", 1);
    let mut renamed = directory.delete_partitions(&[missing, partition.clone()]).unwrap();
    let renamed = renamed.pop().unwrap().unwrap();
    assert!(renamed.exists() && renamed.to_string_lossy().ends_with("-delete"));
    assert!(directory.partitions().unwrap().is_empty());
    assert_eq!(directory.checkpointed(&partition), CheckpointedOffsets::default());
    drop(directory);
    let directory = open(root.path()).unwrap();
    assert!(!renamed.exists(), "the next start removes it");
    assert_eq!(directory.checkpointed(&partition), CheckpointedOffsets::default());
    assert!(directory.free_bytes().unwrap() > 0);
}

#[test]
fn closing_a_log_that_nothing_changed_writes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("orders-0");
    let (env, config) = (Env::real(), LogConfig::default());
    let again = || {
        let options = OpenOptions { clean_shutdown: true, ..options(config.clone()) };
        Log::open(&env, &directory, options).unwrap().0
    };
    let modified = || {
        let mut files: Vec<_> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name(), entry.metadata().unwrap().modified().unwrap()))
            .collect();
        files.sort();
        files
    };
    let mut log = create(&env, &directory, config.clone());
    log.append_as_leader(&batch(1, &["a"]), EPOCH, TimestampMs(1)).unwrap();
    log.close().unwrap();
    let before = modified();
    assert_eq!(again().close().unwrap(), Offset(1));
    assert_eq!(modified(), before);
    let mut log = again();
    log.append_as_leader(&batch(1, &["b"]), EPOCH, TimestampMs(2)).unwrap();
    assert_eq!(log.close().unwrap(), Offset(2));
    assert_ne!(modified(), before);
    assert_eq!(read_all(&again().reader()).unwrap().len(), 2);
}
