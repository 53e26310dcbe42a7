//! Three of our nodes as one cluster: their options, with a directory, a port and a rack for each.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;

use ottla::broker::BrokerOptions;

pub(crate) const NODES: [i32; 3] = [1, 2, 3];

/// The options of each node, whose directories are in `directory`.
pub(crate) fn options(directory: &Path) -> BTreeMap<i32, BrokerOptions> {
    // All are held at once, so that each node gets a port of its own.
    let held = NODES.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = held.each_ref().map(|socket| socket.local_addr().unwrap().port());
    drop(held);
    let voters: Vec<String> =
        NODES.iter().zip(ports).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
    let options = NODES.iter().zip(ports).map(|(&id, port)| {
        let mut options = BrokerOptions::in_directory(directory.join(id.to_string()))
            .with("node.id", id.to_string())
            .with("broker.rack", format!("rack-{id}"))
            .with("controller.quorum.voters", voters.join(","))
            .with("min.insync.replicas", "2");
        options.listeners = Some(format!("PLAINTEXT://127.0.0.1:{port}"));
        (id, options)
    });
    options.collect()
}
