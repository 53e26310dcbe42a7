//! Who votes, as it is written to the log and to snapshots.
//!
//! ```text
//! [{"id":1,"directory_id":"…","endpoints":[{"listener":"…","host":"…","port":9092,"security_protocol":0}]}]
//! ```
//!
//! Up to version 1 of both, voters were known by their node only; they are read, and get their directory ids from the
//! nodes themselves (`machine::quorum::UpdateVoterRequest`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::machine::metadata::{Endpoint, uuid_text};
use crate::machine::quorum::{ReplicaKey, Voter, VoterSet};
use crate::types::{NodeId, Uuid};

/// The first thing to be read from every file: in a newer version, the rest may mean anything.
#[derive(Deserialize)]
pub(super) struct VersionOnly {
    pub(super) version: u16,
}

/// A replica.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredReplica {
    id: NodeId,
    #[serde(with = "uuid_text")]
    directory_id: Uuid,
}

impl StoredReplica {
    pub(super) fn of(key: ReplicaKey) -> Self {
        Self { id: key.id, directory_id: key.directory_id }
    }

    pub(super) fn key(self) -> ReplicaKey {
        ReplicaKey { id: self.id, directory_id: self.directory_id }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredVoter {
    id: NodeId,
    #[serde(with = "uuid_text")]
    directory_id: Uuid,
    endpoints: Vec<Endpoint>,
}

/// Every voter, by id.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct StoredVoters(Vec<StoredVoter>);

impl StoredVoters {
    pub(super) fn of(voters: &VoterSet) -> Self {
        let stored = |voter: &Voter| StoredVoter {
            id: voter.key.id,
            directory_id: voter.key.directory_id,
            endpoints: voter.endpoints.clone(),
        };
        Self(voters.iter().map(stored).collect())
    }

    pub(super) fn voters(self) -> VoterSet {
        VoterSet::new(self.0.into_iter().map(|voter| Voter {
            key: ReplicaKey { id: voter.id, directory_id: voter.directory_id },
            endpoints: voter.endpoints,
        }))
    }
}

/// The voters as version 1 has them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Members {
    /// One set of voters; two while one replaced the other, which never happened.
    voters: Vec<BTreeSet<NodeId>>,
    /// Every node with an address, which nobody used.
    #[serde(rename = "nodes")]
    _nodes: serde_json::Value,
}

impl Members {
    pub(super) fn voters(&self) -> Result<VoterSet, String> {
        let [voters] = self.voters.as_slice() else {
            return Err(format!("{} sets of voters instead of one", self.voters.len()));
        };
        Ok(VoterSet::new(voters.iter().map(|id| Voter {
            key: ReplicaKey { id: *id, directory_id: Uuid::ZERO },
            endpoints: Vec::new(),
        })))
    }
}
