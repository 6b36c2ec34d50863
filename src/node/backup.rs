//! Backups: all that a cluster holds as of one revision, as one file.
//!
//! The files of a node are its state as of a flush, so a backup is a flush and a pass over them: no view is held, no write
//! waits, and any node can make one. Sessions and members are in it, the log is not: nothing behind the revision is needed.

use std::path::Path;

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use tokio::time::Instant;

use super::{Node, peers, status};
use crate::{
    environment::Environment,
    error::{Error, Fault, Result},
    model::{Position, ReadMode},
    raft::{
        network::snapshot,
        snapshot::Pieces,
        types::{NodeId, StoredMembershipAt},
    },
    state::{Meta, audit::Accounts},
    storage::{self, Checkpoint, codec},
};

/// What is in a backup.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The cluster that it is of.
    pub cluster: u128,
    /// The last log entry that is in it.
    pub position: Position,
    /// Its revision.
    pub revision: u64,
    /// Log time, in milliseconds.
    pub log_time_ms: u64,
    /// The hash of the state.
    pub state_hash: u128,
    /// The members: id, peer address, client address, whether it votes.
    pub members: Vec<(NodeId, String, String, bool)>,
    /// Open sessions.
    pub sessions: u64,
    /// Keyspace number, records, bytes; those that hold records only.
    pub keyspaces: Vec<(u8, u64, u64)>,
}

/// A backup on its way.
pub struct Outgoing {
    /// What is in it.
    pub contents: Contents,
    /// About how many bytes it has, at most.
    pub bytes: u64,
    /// The file, in pieces. It is whole only if the last of them is no error.
    pub pieces: BoxStream<'static, std::result::Result<Bytes, String>>,
}

impl Contents {
    fn of(cluster: u128, checkpoint: &Checkpoint) -> std::result::Result<Self, Fault> {
        let meta = Meta::decode(&checkpoint.meta)?;
        let members: StoredMembershipAt = codec::decode_payload(&checkpoint.membership)
            .map_err(|error| Fault::damage(format!("the members cannot be read: {error}")))?;
        let voters = members.membership.configs;
        let member = |(id, member): (NodeId, crate::raft::types::Member)| {
            let votes = voters.iter().any(|config| config.contains(&id));
            (id, member.peer_address, member.client_address, votes)
        };
        Ok(Self {
            cluster,
            position: checkpoint.position,
            revision: checkpoint.revision,
            log_time_ms: meta.log_time_ms,
            state_hash: checkpoint.state_hash,
            members: members.membership.members.into_iter().map(member).collect(),
            sessions: meta.sessions.len() as u64,
            keyspaces: status::keyspaces(&meta),
        })
    }
}

impl Node {
    /// Everything, as of a revision that a read in this mode may show, or a later one. What must be flushed for it is
    /// flushed first.
    ///
    /// Errors: as of a read; `Unavailable` if this node's disk does not keep up.
    pub async fn backup(
        &self,
        mode: ReadMode,
        deadline: Instant,
    ) -> Result<impl Future<Output = Result<Outgoing>> + use<>> {
        drop(self.read(mode, None, deadline).await?);
        let shared = std::sync::Arc::clone(&self.shared);
        let index = shared.machine.progress().borrow().position.index;
        Ok(async move {
            let unavailable = |reason: String| Error::Unavailable {
                reason: format!("node {} cannot be backed up: it {reason}", shared.node_id),
                leader: None,
            };
            peers::flushed_up_to(&shared.machine, index).await.map_err(unavailable)?;
            let files = shared.machine.store().snapshot().ok_or_else(|| unavailable("holds nothing yet".into()))?;
            let cluster = shared.cluster().ok_or_else(|| unavailable("belongs to no cluster yet".into()))?;
            let broken = |fault: Fault| Error::Unexpected(fault.to_string());
            let contents = Contents::of(cluster, files.checkpoint()).map_err(broken)?;
            let bytes = files.bytes();
            let reader = Pieces::of(&files).map_err(broken)?;
            let pieces = snapshot::pieces(Box::new(reader), shared.environment.executor.as_ref());
            Ok(Outgoing { contents, bytes, pieces: pieces.boxed() })
        })
    }
}

/// What is in a file, which is read wholly: its contents, pairs and bytes.
///
/// Errors: it is no backup, or damaged, with file and offset.
pub fn inspect(environment: &Environment, path: &Path) -> std::result::Result<(Contents, u64, u64), Fault> {
    let found = storage::Backup::inspect(&environment.disk, path, &Accounts)?;
    Ok((Contents::of(found.cluster, &found.checkpoint)?, found.pairs, found.bytes))
}
