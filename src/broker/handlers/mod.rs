//! One file per API: what a client sees, and nothing else.
//!
//! A handler turns a wire struct into a request to the partitions, the metadata image or the
//! controller, and the result into a wire struct. Quirks of versions stop here. Each file opens
//! with the versions that are served, what a client sees, and every error.

pub(super) mod acls;
pub(super) mod add_offsets_to_txn;
pub(super) mod add_partitions_to_txn;
pub(super) mod alter_configs;
pub(super) mod alter_partition_reassignments;
pub(super) mod alter_replica_log_dirs;
pub(super) mod api_versions;
pub(super) mod broker_commands;
mod commits;
mod common;
pub(super) mod consumer_group_describe;
pub(super) mod consumer_group_heartbeat;
pub(super) mod create_partitions;
pub(super) mod create_topics;
pub(super) mod delete_groups;
pub(super) mod delete_records;
pub(super) mod delete_topics;
pub(super) mod describe_cluster;
pub(super) mod describe_configs;
pub(super) mod describe_groups;
pub(super) mod describe_log_dirs;
pub(super) mod describe_producers;
pub(super) mod describe_quorum;
pub(super) mod describe_topic_partitions;
pub(super) mod describe_transactions;
pub(super) mod elect_leaders;
pub(super) mod end_txn;
pub(super) mod errors;
pub(super) mod fetch;
pub(super) mod find_coordinator;
mod group_errors;
mod groups;
pub(super) mod heartbeat;
pub(super) mod init_producer_id;
pub(super) mod join_group;
pub(super) mod leave_group;
pub(super) mod list_config_resources;
pub(super) mod list_groups;
pub(super) mod list_offsets;
pub(super) mod list_partition_reassignments;
pub(super) mod list_transactions;
pub(super) mod metadata;
pub(super) mod offset_commit;
pub(super) mod offset_delete;
pub(super) mod offset_fetch;
pub(super) mod offset_for_leader_epoch;
pub(super) mod produce;
pub(super) mod quorum;
pub(super) mod raft_voters;
pub(super) mod sync_group;
mod topics;
mod transaction_errors;
mod transactions;
pub(super) mod txn_offset_commit;
pub(super) mod unregister_broker;
pub(super) mod update_features;
mod value_schema;
pub(super) mod write_txn_markers;
