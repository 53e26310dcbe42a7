//! The settings of a group (resource type GROUP), in the order of their names.
//!
//! Those of share groups and streams groups are missing: ottla has no such groups.

use super::definition::ConfigType::Int;
use super::definition::Validator::AtLeast;
use super::definition::{Definition, Synonym};

const fn same(name: &'static str) -> Synonym {
    Synonym { name, factor: 1 }
}

pub(super) const GROUP: &[Definition] = &[
    Definition::group(
        "consumer.assignment.interval.ms",
        Int,
        "1000",
        AtLeast(0),
        &[same("group.consumer.assignment.interval.ms")],
        "The shortest time between two assignments of the group, under the consumer protocol.",
    ),
    Definition::group(
        "consumer.heartbeat.interval.ms",
        Int,
        "5000",
        AtLeast(1),
        &[same("group.consumer.heartbeat.interval.ms")],
        "How often a member of the group sends a heartbeat, under the consumer protocol.",
    ),
    Definition::group(
        "consumer.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        &[same("group.consumer.session.timeout.ms")],
        "A member of the group that sends no heartbeat for this long is removed, under the consumer protocol.",
    ),
];
