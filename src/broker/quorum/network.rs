//! The network between voters: none yet.
//!
//! Every call answers *unreachable*, which openraft treats as a node that is down. A quorum of one
//! never calls it. The type configuration and the store are the ones that several voters will use;
//! only this file will be replaced.

use openraft::BasicNode;
use openraft::error::{InstallSnapshotError, RPCError, RaftError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};

use super::types::TypeConfig;
use crate::types::NodeId;

/// Reaches nobody.
#[derive(Debug)]
pub(super) struct NoNetwork;

/// A voter that cannot be reached.
#[derive(Debug)]
pub(super) struct NoVoter {
    target: NodeId,
}

#[derive(Debug, thiserror::Error)]
#[error("node {0} cannot be reached: metadata traffic between nodes is not served yet")]
struct NotServed(NodeId);

impl NoVoter {
    fn unreachable(&self) -> Unreachable {
        Unreachable::new(&NotServed(self.target))
    }
}

impl RaftNetworkFactory<TypeConfig> for NoNetwork {
    type Network = NoVoter;

    async fn new_client(&mut self, target: NodeId, _node: &BasicNode) -> NoVoter {
        NoVoter { target }
    }
}

impl RaftNetwork<TypeConfig> for NoVoter {
    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, BasicNode, RaftError<NodeId>>> {
        Err(self.unreachable().into())
    }

    async fn install_snapshot(
        &mut self,
        _rpc: InstallSnapshotRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<NodeId>,
        RPCError<NodeId, BasicNode, RaftError<NodeId, InstallSnapshotError>>,
    > {
        Err(self.unreachable().into())
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<NodeId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RPCError<NodeId, BasicNode, RaftError<NodeId>>> {
        Err(self.unreachable().into())
    }
}
