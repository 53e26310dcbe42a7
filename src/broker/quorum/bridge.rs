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
use crate::machine::controller::{AnyCommand, CommandAnswer};
use crate::machine::metadata::{Endpoint, MetadataImage, MetadataUpdate};
use crate::machine::quorum::{
    Refusal, ReplicaKey, Request, Response, Timing, Voter, VoterChange, VoterSet,
};
use crate::types::{NodeId, Uuid};

/// A quorum, with what the broker is asked about it.
#[derive(Debug)]
struct Member {
    quorum: Quorum,
    env: Env,
    node_id: NodeId,
}

/// Opens the metadata log of a broker, which listens for other nodes at `endpoints`. With `volatile`, data is not synced
/// to disk.
///
/// # Errors
///
/// As [`Quorum::open`].
pub(in crate::broker) async fn start(
    env: &Env,
    config: &BrokerConfig,
    directory: &Arc<LogDirectory>,
    endpoints: Vec<Endpoint>,
    volatile: bool,
) -> Result<Arc<dyn MetadataLog>> {
    let node_id = NodeId(config.node_id);
    let meta = directory.meta();
    let listed = config.quorum_voters.iter().filter(|_| config.has_peers());
    let voters = VoterSet::new(listed.map(voter));
    // Those of the list are how the other nodes of the list reach this one.
    let endpoints = voters.get(node_id).map_or(endpoints, |own| own.endpoints.clone());
    let options = QuorumOptions {
        env: env.clone(),
        log_dir: directory.path().to_path_buf(),
        health: directory.health(),
        node_id,
        cluster_id: meta.cluster_id.map(Into::into),
        directory_id: meta.directory_id,
        endpoints,
        voters,
        bootstrap: config.bootstrap_servers.len(),
        timing: Timing::default(),
        config: config.clone(),
        fsync: !volatile,
    };
    let links = Links::new(env.net.clone(), node_id, config, directory);
    let quorum = Quorum::open_among(options, Arc::new(links)).await?;
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

    fn image(&self) -> Arc<MetadataImage> {
        self.quorum.image()
    }

    fn status(&self) -> QuorumStatus {
        self.quorum.status(&*self.env.clock, self.node_id)
    }

    fn voters(&self) -> VoterSet {
        self.quorum.voter_set()
    }

    fn change_voters(
        &self,
        change: VoterChange,
        when_appended: bool,
    ) -> BoxFuture<Result<Result<(), Refusal>>> {
        Box::pin(self.quorum.change_voters(change, when_appended))
    }

    fn answer(&self, request: Request) -> BoxFuture<Option<Response<Bytes>>> {
        Box::pin(self.quorum.handle(request))
    }

    fn carry_out(&self, command: AnyCommand) -> BoxFuture<CommandAnswer> {
        Box::pin(self.quorum.arrived(command))
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
