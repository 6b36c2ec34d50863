//! Whether a node will answer calls, and if not, why: said over HTTP (`/readyz`), and by gRPC's own health service.

use std::time::Duration;

use crate::{node::Node, raft::consensus::Leadership};

/// That a node leads with a quorum, or has applied what a leader told it that long ago. Errors: why it is not ready.
pub(super) fn check(node: &Node, silence: Duration) -> Result<(), String> {
    if node.has_diverged() {
        return Err("its state differs from the majority's".into());
    }
    match (node.leadership(), node.age_ms()) {
        (Leadership::Unknown, _) => Err("no leader is known: an election is under way, or no quorum is reached".into()),
        (_, age_ms) if u128::from(age_ms) <= silence.as_millis() => Ok(()),
        // The leader that a vote of earlier names may be long gone.
        (Leadership::Me { .. }, _) => Err("this node leads, but no quorum answers it".into()),
        (Leadership::Other { id, .. }, u64::MAX) => {
            Err(format!("nothing was heard yet from node {id}, which led last"))
        }
        (Leadership::Other { id, .. }, age_ms) => {
            Err(format!("node {id} leads or led, and what was applied here of it is {age_ms} ms old"))
        }
    }
}
