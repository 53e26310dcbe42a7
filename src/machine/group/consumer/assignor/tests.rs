#![allow(clippy::indexing_slicing, reason = "test code")]

use proptest::prelude::*;

use super::*;
use crate::types::PartitionIndex;

fn topic(number: u8) -> TopicId {
    let mut bytes = [0; 16];
    bytes[15] = number;
    crate::types::Uuid(bytes)
}

fn member(id: &str, topics: &[u8], owned: &[(u8, i32)]) -> MemberSpec {
    let mut partitions = Partitions::new();
    for &(number, partition) in owned {
        partitions.entry(topic(number)).or_default().insert(PartitionIndex(partition));
    }
    MemberSpec {
        id: id.into(),
        instance_id: None,
        topics: Arc::new(topics.iter().map(|&number| topic(number)).collect()),
        owned: partitions,
    }
}

fn count(partitions: &Partitions) -> usize {
    partitions.values().map(BTreeSet::len).sum()
}

fn counts(assignment: &[Partitions]) -> Vec<usize> {
    assignment.iter().map(count).collect()
}

/// How many partitions go to a member that did not have them although another one did.
fn moves(members: &[MemberSpec], assignment: &[Partitions]) -> usize {
    let mut moved = 0;
    for (index, partitions) in assignment.iter().enumerate() {
        for (topic, indexes) in partitions {
            for partition in indexes {
                let had = |spec: &MemberSpec| {
                    spec.owned.get(topic).is_some_and(|owned| owned.contains(partition))
                };
                if !had(&members[index]) && members.iter().any(had) {
                    moved += 1;
                }
            }
        }
    }
    moved
}

fn assert_complete(members: &[MemberSpec], topics: &BTreeMap<TopicId, i32>, given: &[Partitions]) {
    assert_eq!(given.len(), members.len());
    for (&topic, &end) in topics {
        let wanted = members.iter().any(|member| member.topics.contains(&topic));
        for partition in PartitionIndex::all(end) {
            let owners: Vec<usize> = (0..members.len())
                .filter(|&index| {
                    given[index].get(&topic).is_some_and(|mine| mine.contains(&partition))
                })
                .collect();
            assert_eq!(owners.len(), usize::from(wanted), "ASSIGN-1 {topic}-{partition}");
            for owner in owners {
                assert!(members[owner].topics.contains(&topic), "ASSIGN-1 unsubscribed owner");
            }
        }
    }
    for (index, partitions) in given.iter().enumerate() {
        for (topic, mine) in partitions {
            assert!(!mine.is_empty(), "an empty entry of member {index}");
            let end = topics.get(topic).copied().unwrap_or(0);
            assert!(mine.iter().all(|partition| partition.is_below(end)));
        }
    }
}

fn assert_uniform(members: &[MemberSpec], given: &[Partitions]) {
    let counts = counts(given);
    for (from, partitions) in given.iter().enumerate() {
        for topic in partitions.keys() {
            for (to, member) in members.iter().enumerate() {
                if member.topics.contains(topic) {
                    assert!(counts[from] <= counts[to] + 1, "UNIFORM-1 {from} to {to}: {counts:?}");
                }
            }
        }
    }
}

fn with_owned(members: &[MemberSpec], given: Vec<Partitions>) -> Vec<MemberSpec> {
    members
        .iter()
        .zip(given)
        .map(|(member, owned)| MemberSpec { owned, ..member.clone() })
        .collect()
}

fn arbitrary_topics() -> impl Strategy<Value = BTreeMap<TopicId, i32>> {
    proptest::collection::btree_map((0_u8..6).prop_map(topic), 0_i32..12, 0..6)
}

fn arbitrary_members(same: bool) -> impl Strategy<Value = Vec<MemberSpec>> {
    let one = (
        proptest::collection::btree_set(0_u8..7, 0..6),
        proptest::collection::vec((0_u8..7, 0_i32..14), 0..20),
        proptest::option::of(0_u8..40),
    );
    proptest::collection::vec(one, 1..8).prop_map(move |list| {
        let first: Vec<u8> = list[0].0.iter().copied().collect();
        list.iter()
            .enumerate()
            .map(|(index, (topics, owned, instance))| {
                let own: Vec<u8> = topics.iter().copied().collect();
                let mut spec =
                    member(&format!("member-{index}"), if same { &first } else { &own }, owned);
                spec.instance_id = instance.map(|name| format!("i{name}-{index}").into());
                spec
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn uniform_gives_each_partition_once_and_evenly_to_members_that_want_the_same(
        members in arbitrary_members(true), topics in arbitrary_topics(),
    ) {
        let given = Assignor::Uniform.assign(&members, &topics);
        assert_complete(&members, &topics, &given);
        let counts = counts(&given);
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        prop_assert!(most - least <= 1, "UNIFORM-1 {counts:?}");
        let again = Assignor::Uniform.assign(&with_owned(&members, given.clone()), &topics);
        prop_assert_eq!(again, given, "UNIFORM-2");
    }

    #[test]
    fn uniform_gives_each_partition_once_and_evenly_to_members_that_want_different_topics(
        members in arbitrary_members(false), topics in arbitrary_topics(),
    ) {
        let given = Assignor::Uniform.assign(&members, &topics);
        assert_complete(&members, &topics, &given);
        assert_uniform(&members, &given);
        let again = Assignor::Uniform.assign(&with_owned(&members, given.clone()), &topics);
        prop_assert_eq!(again, given, "UNIFORM-2");
    }

    #[test]
    fn uniform_moves_only_what_a_new_member_gets_and_what_a_gone_one_had(
        members in arbitrary_members(true), topics in arbitrary_topics(),
    ) {
        let given = Assignor::Uniform.assign(&members, &topics);
        let settled = with_owned(&members, given);
        let mut grown = settled.clone();
        let mut newcomer = settled[0].clone();
        newcomer.id = "newcomer".into();
        newcomer.owned.clear();
        grown.push(newcomer);
        let after = Assignor::Uniform.assign(&grown, &topics);
        prop_assert_eq!(moves(&grown, &after), count(&after[after.len() - 1]), "UNIFORM-2");

        let shrunk = &settled[1..];
        let after = Assignor::Uniform.assign(shrunk, &topics);
        prop_assert_eq!(moves(shrunk, &after), 0, "UNIFORM-2");
    }

    #[test]
    fn range_gives_contiguous_ranges_that_agree_between_topics_of_one_size(
        members in arbitrary_members(false), topics in arbitrary_topics(),
    ) {
        let given = Assignor::Range.assign(&members, &topics);
        assert_complete(&members, &topics, &given);
        for &topic in topics.keys() {
            let sizes: Vec<usize> = (0..members.len())
                .filter(|&index| members[index].topics.contains(&topic))
                .map(|index| given[index].get(&topic).map_or(0, BTreeSet::len))
                .collect();
            let spread = sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0);
            prop_assert!(spread <= 1, "RANGE-2 {sizes:?}");
        }
        for partitions in &given {
            for mine in partitions.values() {
                let (first, last) = (mine.first().unwrap(), mine.last().unwrap());
                prop_assert_eq!(usize::try_from(last.0 - first.0).unwrap() + 1, mine.len(), "RANGE-1");
            }
        }
        for (&one, &one_end) in &topics {
            for (&other, &other_end) in &topics {
                let alike = one_end == other_end
                    && members
                        .iter()
                        .all(|member| member.topics.contains(&one) == member.topics.contains(&other));
                if alike {
                    for partitions in &given {
                        prop_assert_eq!(partitions.get(&one), partitions.get(&other), "RANGE-1");
                    }
                }
            }
        }
    }

    #[test]
    fn the_order_of_the_members_does_not_decide_a_range(
        members in arbitrary_members(false), topics in arbitrary_topics(),
    ) {
        let given = Assignor::Range.assign(&members, &topics);
        let mut reversed = members;
        reversed.reverse();
        let mut backwards = Assignor::Range.assign(&reversed, &topics);
        backwards.reverse();
        prop_assert_eq!(given, backwards, "ASSIGN-2");
    }
}

#[test]
fn uniform_spreads_a_topic_over_new_members() {
    let members: Vec<_> = ["a", "b", "c"].iter().map(|id| member(id, &[1, 2], &[])).collect();
    let topics = BTreeMap::from([(topic(1), 3), (topic(2), 3)]);
    let given = Assignor::Uniform.assign(&members, &topics);
    assert_eq!(counts(&given), [2, 2, 2]);
}

#[test]
fn uniform_levels_members_that_share_one_topic_only() {
    let members = [
        member("a", &[1, 2], &[(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1)]),
        member("b", &[2], &[]),
    ];
    let topics = BTreeMap::from([(topic(1), 4), (topic(2), 2)]);
    let given = Assignor::Uniform.assign(&members, &topics);
    assert_eq!(counts(&given), [4, 2]);
}

#[test]
fn a_static_member_keeps_its_range_under_another_member_id() {
    let topics = BTreeMap::from([(topic(1), 7)]);
    let mut members = vec![member("z", &[1], &[]), member("m", &[1], &[])];
    members[0].instance_id = Some("first".into());
    let before = Assignor::Range.assign(&members, &topics);
    assert_eq!(counts(&before), [4, 3]);
    members[0].id = "zz".into();
    assert_eq!(Assignor::Range.assign(&members, &topics), before);
}

#[test]
fn an_assignor_is_known_by_its_name() {
    for &assignor in Assignor::ALL {
        assert_eq!(Assignor::from_name(assignor.name()), Some(assignor));
    }
    assert_eq!(Assignor::from_name("sticky"), None);
}
