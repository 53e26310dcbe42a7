//! Assignors: valid, balanced, sticky.

use proptest::prelude::*;

use super::*;
use crate::types::PartitionIndex;

const STICKY: [Assignor; 2] = [Assignor::Sticky, Assignor::CooperativeSticky];

fn topics(counts: &[(&str, usize)]) -> Topics {
    counts.iter().map(|(name, count)| (Arc::from(*name), vec![BTreeSet::new(); *count])).collect()
}

fn member(topics: &[&str]) -> MemberSubscription {
    MemberSubscription {
        topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
        ..MemberSubscription::default()
    }
}

fn members(list: &[(&str, &[&str])]) -> Members {
    list.iter().map(|(id, topics)| ((*id).to_owned(), member(topics))).collect()
}

fn names(assignment: &Assignment, id: &str) -> String {
    assignment[id].iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What the members say when they join again after an assignment.
fn rejoining(
    assignor: Assignor,
    before: &Members,
    assignment: &Assignment,
    generation: i32,
) -> Members {
    let mut members = before.clone();
    for (id, member) in &mut members {
        let Some(held) = assignment.get(id) else { continue };
        let held: BTreeSet<TopicPartition> = held.iter().cloned().collect();
        member.user_data = assignor.user_data(Some((&held, generation)));
        if assignor.is_cooperative() {
            member.owned = held.into_iter().collect();
            member.generation = Some(generation);
        }
    }
    members
}

/// ASG-1, and ASG-4 for what is withheld.
fn check_valid(assignor: Assignor, topics: &Topics, members: &Members, assignment: &Assignment) {
    assert_eq!(members.keys().collect::<Vec<_>>(), assignment.keys().collect::<Vec<_>>());
    let mut owners: BTreeMap<TopicPartition, &String> = BTreeMap::new();
    for (id, partitions) in assignment {
        for partition in partitions {
            assert!(members[id].topics.contains(&partition.topic), "{id} did not ask for it");
            let count = topics[&partition.topic].len();
            assert!(partition.partition.place().unwrap() < count);
            assert_eq!(owners.insert(partition.clone(), id), None, "{partition} is given twice");
        }
    }
    for (topic, partitions) in topics {
        if !members.values().any(|member| member.topics.contains(topic)) {
            continue;
        }
        for place in 0..partitions.len() {
            let partition = TopicPartition::new(Arc::clone(topic), PartitionIndex::at(place));
            let is_held = members.values().any(|member| member.owned.contains(&partition));
            let may_wait = assignor == Assignor::CooperativeSticky && is_held;
            assert!(owners.contains_key(&partition) || may_wait, "{partition} is given to nobody");
        }
    }
}

/// ASG-2.
fn check_balanced(members: &Members, assignment: &Assignment) {
    for (rich, given) in assignment {
        for (poor, other) in assignment {
            let could_take =
                given.iter().any(|partition| members[poor].topics.contains(&partition.topic));
            assert!(
                given.len() <= other.len() + 1 || !could_take,
                "{rich} has {} and {poor} {}",
                given.len(),
                other.len()
            );
        }
    }
}

#[test]
fn range_gives_runs_of_each_topic() {
    let topics = topics(&[("t", 5), ("u", 3)]);
    let members = members(&[("a", &["t", "u"]), ("b", &["t", "u"])]);
    let assignment = Assignor::Range.assign(&topics, &members);
    assert_eq!(names(&assignment, "a"), "t-0 t-1 t-2 u-0 u-1");
    assert_eq!(names(&assignment, "b"), "t-3 t-4 u-2");
}

#[test]
fn round_robin_deals_one_after_the_other() {
    let topics = topics(&[("t", 3), ("u", 3)]);
    let both = members(&[("a", &["t", "u"]), ("b", &["t", "u"])]);
    let assignment = Assignor::RoundRobin.assign(&topics, &both);
    assert_eq!(names(&assignment, "a"), "t-0 t-2 u-1");
    assert_eq!(names(&assignment, "b"), "t-1 u-0 u-2");
    let mixed = members(&[("a", &["t"]), ("b", &["t", "u"])]);
    let assignment = Assignor::RoundRobin.assign(&topics, &mixed);
    assert_eq!(names(&assignment, "a"), "t-0 t-2");
    assert_eq!(names(&assignment, "b"), "t-1 u-0 u-1 u-2");
}

#[test]
fn static_members_are_taken_by_their_instance() {
    let topics = topics(&[("t", 2)]);
    let with = |id: &str, instance: &str| {
        let instance_id = Some(instance.to_owned());
        (id.to_owned(), MemberSubscription { instance_id, ..member(&["t"]) })
    };
    for (first, second) in [("x", "y"), ("y", "x")] {
        let members = Members::from([with(first, "one"), with(second, "two")]);
        for assignor in [Assignor::Range, Assignor::RoundRobin] {
            let assignment = assignor.assign(&topics, &members);
            assert_eq!(names(&assignment, first), "t-0");
        }
    }
}

#[test]
fn members_get_partitions_of_their_rack() {
    let rack = |name: &str| BTreeSet::from([name.to_owned()]);
    let topics = Topics::from([(Arc::from("t"), vec![rack("n"), rack("s"), rack("n"), rack("s")])]);
    let in_rack = |name: &str| MemberSubscription { rack: Some(name.to_owned()), ..member(&["t"]) };
    let members = Members::from([("a".to_owned(), in_rack("n")), ("b".to_owned(), in_rack("s"))]);
    for assignor in [Assignor::Range, Assignor::Sticky, Assignor::CooperativeSticky] {
        let assignment = assignor.assign(&topics, &members);
        assert_eq!(names(&assignment, "a"), "t-0 t-2", "{}", assignor.name());
        assert_eq!(names(&assignment, "b"), "t-1 t-3", "{}", assignor.name());
    }
}

#[test]
fn a_partition_that_moves_is_withheld_until_it_is_given_up() {
    let topics = topics(&[("t", 4)]);
    let cooperative = Assignor::CooperativeSticky;
    let one = members(&[("a", &["t"])]);
    let first = cooperative.assign(&topics, &one);
    let mut two = rejoining(cooperative, &one, &first, 1);
    two.insert("b".to_owned(), member(&["t"]));
    let second = cooperative.assign(&topics, &two);
    assert_eq!((second["a"].len(), second["b"].len()), (2, 0));
    let three = rejoining(cooperative, &two, &second, 2);
    let third = cooperative.assign(&topics, &three);
    assert_eq!(third["a"], second["a"]);
    assert_eq!(third["b"].len(), 2);
}

#[test]
fn what_two_claim_goes_to_the_newer_generation() {
    let topics = topics(&[("t", 2)]);
    let claims = |generation| MemberSubscription {
        owned: vec![TopicPartition::new("t", 0)],
        generation: Some(generation),
        ..member(&["t"])
    };
    let members = |left, right| {
        Members::from([("a".to_owned(), claims(left)), ("b".to_owned(), claims(right))])
    };
    let cooperative = Assignor::CooperativeSticky;
    let assignment = cooperative.assign(&topics, &members(4, 5));
    assert_eq!(names(&assignment, "b"), "t-0");
    assert_eq!(names(&assignment, "a"), "t-1");
    let assignment = cooperative.assign(&topics, &members(5, 5));
    let given: usize = assignment.values().map(Vec::len).sum();
    assert_eq!(given, 1, "both must give t-0 up first");
}

fn arbitrary_group() -> impl Strategy<Value = (Topics, Members)> {
    let topic_count = 5_usize;
    let counts = prop::collection::vec(0_usize..9, topic_count);
    let rack = prop::option::of("[xyz]");
    let one = (prop::collection::btree_set(0..topic_count, 0..=topic_count), rack, any::<bool>());
    let all = prop::collection::vec(one, 1..8);
    let racks = prop::collection::vec("[xyz]", 9);
    (counts, all, racks, any::<bool>()).prop_map(|(counts, all, racks, has_racks)| {
        let name = |index: usize| format!("topic-{index}");
        let partitions = |count: usize| -> Vec<BTreeSet<String>> {
            let racks = racks.iter().take(count);
            racks.map(|rack| has_racks.then(|| rack.clone()).into_iter().collect()).collect()
        };
        let topics = counts
            .iter()
            .enumerate()
            .map(|(index, &count)| (Arc::from(name(index)), partitions(count)))
            .collect();
        let members = all
            .into_iter()
            .enumerate()
            .map(|(index, (wanted, rack, is_static))| {
                let subscription = MemberSubscription {
                    topics: wanted.into_iter().map(|index| Arc::from(name(index))).collect(),
                    rack,
                    instance_id: is_static.then(|| format!("static-{index}")),
                    ..MemberSubscription::default()
                };
                (format!("member-{index}"), subscription)
            })
            .collect();
        (topics, members)
    })
}

proptest! {
    #[test]
    fn every_assignment_is_valid((topics, members) in arbitrary_group()) {
        for assignor in Assignor::ALL {
            let assignment = assignor.assign(&topics, &members);
            check_valid(assignor, &topics, &members, &assignment);
        }
    }

    #[test]
    fn sticky_assignments_are_balanced((topics, members) in arbitrary_group()) {
        for assignor in STICKY {
            check_balanced(&members, &assignor.assign(&topics, &members));
        }
    }

    #[test]
    fn nothing_moves_when_nothing_changed((topics, members) in arbitrary_group()) {
        for assignor in STICKY {
            let first = assignor.assign(&topics, &members);
            let again = rejoining(assignor, &members, &first, 1);
            prop_assert_eq!(assignor.assign(&topics, &again), first);
        }
    }

    /// Members come and go; after a cooperative rebalance and its follow-up, all is given and
    /// balanced, and no partition was ever with two members.
    #[test]
    fn a_group_settles_after_every_change(
        (topics, members) in arbitrary_group(),
        leaving in 0_usize..8,
    ) {
        for assignor in STICKY {
            let mut now = members.clone();
            let removed = now.keys().nth(leaving % members.len()).cloned().unwrap();
            let kept = now.remove(&removed).unwrap();
            let mut held = assignor.assign(&topics, &now);
            // One comes, then another one goes.
            now.insert(removed.clone(), kept);
            for generation in 1..6 {
                if generation == 3 && now.len() > 1 {
                    let first = now.keys().next().cloned().unwrap();
                    now.remove(&first);
                    held.remove(&first);
                }
                now = rejoining(assignor, &now, &held, generation);
                let next = assignor.assign(&topics, &now);
                check_valid(assignor, &topics, &now, &next);
                for (id, partitions) in next.iter().filter(|_| assignor.is_cooperative()) {
                    for (other, before) in held.iter().filter(|(other, _)| *other != id) {
                        let both = partitions.iter().find(|partition| before.contains(partition));
                        prop_assert_eq!(both, None, "{} still had it, {} got it", other, id);
                    }
                }
                held = next;
            }
            let total: usize = held.values().map(Vec::len).sum();
            let wanted: BTreeSet<_> = now.values().flat_map(|member| &member.topics).collect();
            let expected: usize =
                wanted.iter().filter_map(|topic| topics.get(*topic)).map(Vec::len).sum();
            prop_assert_eq!(total, expected);
            check_balanced(&now, &held);
        }
    }
}
