//! AlterPartition (API key 56).

use super::own::Outcome;
use crate::types::Uuid;

message! {
    /// The body of the AlterPartition request.
    struct AlterPartitionRequest versions [2-3] flexible [0+] {
        broker_id: i32, "BrokerId" [0+];
        broker_epoch: i64 = -1, "BrokerEpoch" [0+];
        topics: Vec<TopicData>, "Topics" [0+];
    }

    /// An element of [`AlterPartitionRequest::topics`].
    struct TopicData {
        topic_id: Uuid, "TopicId" [2+], ignorable;
        partitions: Vec<PartitionData>, "Partitions" [0+];
    }

    /// An element of [`TopicData::partitions`].
    struct PartitionData {
        partition_index: i32, "PartitionIndex" [0+];
        leader_epoch: i32, "LeaderEpoch" [0+];
        new_isr: Vec<i32>, "NewIsr" [0-2];
        new_isr_with_epochs: Vec<BrokerState>, "NewIsrWithEpochs" [3+];
        leader_recovery_state: i8 = 0, "LeaderRecoveryState" [1+];
        partition_epoch: i32, "PartitionEpoch" [0+];
    }

    /// An element of [`PartitionData::new_isr_with_epochs`].
    struct BrokerState {
        broker_id: i32, "BrokerId" [3+];
        broker_epoch: i64 = -1, "BrokerEpoch" [3+];
    }

    /// The body of the AlterPartition response.
    struct AlterPartitionResponse versions [2-3] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        topics: Vec<TopicState>, "Topics" [0+];
        ottla: Outcome, "Ottla" [0+] tag 10000 [0+];
    }

    /// An element of [`AlterPartitionResponse::topics`].
    struct TopicState as "TopicData" {
        topic_id: Uuid, "TopicId" [2+], ignorable;
        partitions: Vec<PartitionState>, "Partitions" [0+];
    }

    /// An element of [`TopicState::partitions`].
    struct PartitionState as "PartitionData" {
        partition_index: i32, "PartitionIndex" [0+];
        error_code: i16, "ErrorCode" [0+];
        leader_id: i32, "LeaderId" [0+];
        leader_epoch: i32, "LeaderEpoch" [0+];
        isr: Vec<i32>, "Isr" [0+];
        leader_recovery_state: i8 = 0, "LeaderRecoveryState" [1+], ignorable;
        partition_epoch: i32, "PartitionEpoch" [0+];
    }
}
