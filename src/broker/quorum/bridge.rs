//! The quorum as the broker's metadata log.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::links::Links;
use super::{Quorum, QuorumOptions};
use crate::broker::connection::BoxFuture;
use crate::broker::metadata_log::{MetadataLog, Question, QuorumStatus};
use crate::config::{BrokerConfig, QuorumVoter};
use crate::env::Env;
use crate::error::Result;
use crate::log::LogDirectory;
use crate::machine::metadata::{Endpoint, MetadataImage, MetadataUpdate};
use crate::machine::quorum::{ReplicaKey, Request, Response, Timing, Voter, VoterSet};
use crate::types::{NodeId, Uuid};

/// A quorum, with what the broker is asked about it.
#[derive(Debug)]
struct Member {
    quorum: Quorum,
    env: Env,
    node_id: NodeId,
}

/// Opens the metadata log of a broker. With `volatile`, data is not synced to disk.
///
/// # Errors
///
/// As [`Quorum::open`].
pub(in crate::broker) async fn start(
    env: &Env,
    config: &BrokerConfig,
    directory: &Arc<LogDirectory>,
    volatile: bool,
) -> Result<Arc<dyn MetadataLog>> {
    let node_id = NodeId(config.node_id);
    let meta = directory.meta();
    let listed = config.quorum_voters.iter().filter(|_| config.has_peers());
    let voters = VoterSet::new(listed.map(voter));
    let endpoints = voters.get(node_id).map(|own| own.endpoints.clone()).unwrap_or_default();
    let options = QuorumOptions {
        env: env.clone(),
        log_dir: directory.path().to_path_buf(),
        health: directory.health(),
        node_id,
        cluster_id: meta.cluster_id.map(Into::into),
        directory_id: meta.directory_id,
        endpoints,
        voters,
        // Every voter is listed with its address, so nobody is asked who they are.
        bootstrap: 0,
        timing: Timing::default(),
        config: config.clone(),
        fsync: !volatile,
    };
    let quorum = if config.has_peers() {
        let links = Links::new(env.net.clone(), node_id, config, directory);
        Quorum::open_among(options, Arc::new(links)).await?
    } else {
        Quorum::open(options).await?
    };
    Ok(Arc::new(Member { quorum, env: env.clone(), node_id }))
}

/// A voter of the configuration, which knows no directory ids.
fn voter(listed: &QuorumVoter) -> Voter {
    let endpoint = Endpoint {
        listener: "PLAINTEXT".into(),
        host: listed.host.as_str().into(),
        port: listed.port,
        security_protocol: 0,
    };
    let key = ReplicaKey { id: NodeId(listed.id), directory_id: Uuid::ZERO };
    Voter { key, endpoints: vec![endpoint] }
}

impl MetadataLog for Member {
    fn send(&self, question: Box<dyn Question>) -> BoxFuture<Result<()>> {
        Box::pin(self.quorum.send(question))
    }

    fn subscribe(&self) -> (Arc<MetadataImage>, mpsc::Receiver<MetadataUpdate>) {
        self.quorum.subscribe()
    }

    fn status(&self) -> QuorumStatus {
        self.quorum.status(&*self.env.clock, self.node_id)
    }

    fn answer(&self, request: Request) -> BoxFuture<Option<Response<Bytes>>> {
        Box::pin(self.quorum.handle(request))
    }

    fn carry_out(&self, command: Bytes) -> BoxFuture<Vec<u8>> {
        Box::pin(self.quorum.arrived(&command))
    }

    fn crashed(&self, node: NodeId) {
        self.quorum.crashed(node);
    }

    fn abandon(&self) -> BoxFuture<()> {
        let ended = self.quorum.abandon();
        Box::pin(async move { drop(ended.await) })
    }

    fn shutdown(&self) -> BoxFuture<()> {
        let closed = self.quorum.shutdown();
        Box::pin(async move {
            if let Err(error) = closed.await {
                tracing::warn!(error = %error.chain(), "could not close the metadata log cleanly");
            }
        })
    }
}
