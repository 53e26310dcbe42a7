//! The assignments of a group of the consumer protocol: the target, and the current state.

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The key of record type 6.
    struct ConsumerGroupTargetAssignmentMetadataKey versions [0] flexible [none] {
        group_id: Str, "GroupId" [0];
    }

    /// The value of record type 6.
    struct ConsumerGroupTargetAssignmentMetadataValue versions [0] flexible [0+] {
        assignment_epoch: i32, "AssignmentEpoch" [0+];
        assignment_timestamp: i64, "AssignmentTimestamp" [0+] tag 0 [0+], ignorable;
    }

    /// The key of record type 7.
    struct ConsumerGroupTargetAssignmentMemberKey versions [0] flexible [none] {
        group_id: Str, "GroupId" [0];
        member_id: Str, "MemberId" [0];
    }

    /// The value of record type 7.
    struct ConsumerGroupTargetAssignmentMemberValue versions [0] flexible [0+] {
        topic_partitions: Vec<TargetTopicPartition>, "TopicPartitions" [0+];
    }

    /// An element of [`ConsumerGroupTargetAssignmentMemberValue::topic_partitions`].
    struct TargetTopicPartition as "TopicPartition" {
        topic_id: Uuid, "TopicId" [0+];
        partitions: Vec<i32>, "Partitions" [0+];
    }

    /// The key of record type 8.
    struct ConsumerGroupCurrentMemberAssignmentKey versions [0] flexible [none] {
        group_id: Str, "GroupId" [0];
        member_id: Str, "MemberId" [0];
    }

    /// The value of record type 8.
    struct ConsumerGroupCurrentMemberAssignmentValue versions [0] flexible [0+] {
        member_epoch: i32, "MemberEpoch" [0+];
        previous_member_epoch: i32, "PreviousMemberEpoch" [0+];
        state: i8, "State" [0+];
        assigned_partitions: Vec<CurrentTopicPartitions>, "AssignedPartitions" [0+];
        partitions_pending_revocation: Vec<CurrentTopicPartitions>,
            "PartitionsPendingRevocation" [0+];
    }

    /// An element of [`ConsumerGroupCurrentMemberAssignmentValue::assigned_partitions`].
    struct CurrentTopicPartitions as "TopicPartitions" {
        topic_id: Uuid, "TopicId" [0+];
        partitions: Vec<i32>, "Partitions" [0+];
        assignment_epochs: Option<Vec<i32>>, "AssignmentEpochs" [0+] nullable [0+] tag 0 [0+];
    }
}
