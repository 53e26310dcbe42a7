//! The quorum as the broker's metadata log.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Quorum, QuorumOptions};
use crate::broker::connection::BoxFuture;
use crate::broker::metadata_log::{MetadataLog, Question, QuorumStatus};
use crate::config::BrokerConfig;
use crate::env::Env;
use crate::error::Result;
use crate::log::LogDirectory;
use crate::machine::metadata::{MetadataImage, MetadataUpdate};
use crate::machine::quorum::{Timing, VoterSet};
use crate::types::NodeId;

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
    directory: &LogDirectory,
    volatile: bool,
) -> Result<Arc<dyn MetadataLog>> {
    let node_id = NodeId(config.node_id);
    let quorum = Quorum::open(QuorumOptions {
        env: env.clone(),
        log_dir: directory.path().to_path_buf(),
        health: directory.health(),
        node_id,
        cluster_id: directory.meta().cluster_id.as_str().into(),
        directory_id: directory.meta().directory_id,
        endpoints: Vec::new(),
        voters: VoterSet::default(),
        bootstrap: 0,
        timing: Timing::default(),
        config: config.clone(),
        fsync: !volatile,
    })
    .await?;
    Ok(Arc::new(Member { quorum, env: env.clone(), node_id }))
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

    fn shutdown(&self) -> BoxFuture<()> {
        let closed = self.quorum.shutdown();
        Box::pin(async move {
            if let Err(error) = closed.await {
                tracing::warn!(error = %error.chain(), "could not close the metadata log cleanly");
            }
        })
    }
}
