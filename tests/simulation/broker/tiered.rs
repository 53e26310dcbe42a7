//! The same clients and faults, while the records go to a tier: a folder on the disk of the broker, which loses power with it.

use ottla::broker::BrokerOptions;
use ottla::client::admin::NewTopic;

use super::clients::{Peer, TOPIC};
use super::node::Node;
use super::{Kind, live};
use crate::report::{Report, Suite};

const SUITE: Suite = Suite {
    module: "broker::tiered",
    seeds: 0..4,
    fresh: 2,
    acknowledged_min: 40,
    run: |seed| Report::of(async |witness| live(seed, witness, Kind::Tiered).await),
};

/// A broker with a tier, which looks for something to copy all the time.
pub(super) fn options(options: BrokerOptions) -> BrokerOptions {
    options
        .with("remote.log.storage.system.enable", "true")
        .with("ottla.tier.url", "file:///tier")
        .with("remote.log.manager.task.interval.ms", "200")
        .with("log.retention.check.interval.ms", "300")
        .with("log.roll.ms", "700")
}

/// A topic of which only the newest segment stays in the log.
pub(super) fn topic() -> NewTopic {
    Peer::topic(TOPIC)
        .config("remote.storage.enable", "true")
        .config("local.retention.bytes", "1")
        .config("retention.ms", "-1")
        .config("file.delete.delay.ms", "300")
}

/// The files of the first partition.
pub(super) fn files(node: &Node) -> Vec<String> {
    let folder = format!("/tier/topic={TOPIC}/partition=0");
    node.machine.disk.names(folder.as_ref()).unwrap_or_default()
}

#[test]
fn nothing_is_lost_and_each_seed_is_one_run() {
    SUITE.try_seeds();
}

#[test]
fn fresh_seeds_find_nothing() {
    SUITE.try_fresh();
}

#[test]
fn replayed() {
    SUITE.replay();
}
