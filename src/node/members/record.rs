//! What is wanted of a node, as it stands in the state: a record for each id that was ever given out or taken back.
//!
//! It is written before the membership of Raft is changed, by an ordinary transaction. So a change that has begun is
//! finished by whoever leads ([`super::keep`]), and an id is known to be used even when nobody has it any more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Fault, Result},
    model::{Key, ScopeId, keyspace},
    raft::types::{Member, NodeId},
    state::View,
    storage::codec::{self, Kind},
};

/// Where the records are.
pub(super) const SCOPE: ScopeId = ScopeId::new(keyspace::MEMBERS, keyspace::NO_SCOPE);
/// Records that are read at once.
const CHUNK: usize = 1_000;

/// What is to become of a node. Frozen: grows at the end only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Wish {
    /// It gets the log and votes for nobody.
    Learner,
    /// It votes, as soon as it has caught up.
    Voter,
    /// It is taken out; its id is not used again.
    Removed,
}

/// What is wanted of a node. Frozen (kind `MemberRecord`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The cluster in which this was decided. After a recovery, which makes another of what is left, it says nothing any more.
    pub(super) cluster: u128,
    /// Which directory has the id, and where it was when it was added.
    pub(super) member: Member,
    /// What is to become of it.
    pub(super) wish: Wish,
    /// The request that asked for it; 0 if it had no number.
    pub(super) request: u128,
    /// Who asked for it.
    pub(super) by: String,
}

/// A record with what the state says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) record: Record,
    /// Its last write: what a change relies on.
    pub(super) revision: u64,
    /// When that was, in milliseconds since 1970.
    pub(super) at_ms: u64,
}

/// The records of the nodes of a cluster.
pub(super) type Records = BTreeMap<NodeId, Found>;

/// The key of a node's record.
pub(super) fn key(node: NodeId) -> Key {
    SCOPE.key(&node.to_be_bytes())
}

/// The value of a record.
pub(super) fn value(record: &Record) -> bytes::Bytes {
    codec::encode(Kind::MemberRecord, record)
}

/// All records, those of other clusters, too.
pub(super) fn read_all(view: &View) -> Result<Records> {
    let (mut records, mut start) = (Records::new(), Vec::new());
    loop {
        let chunk = view.records(SCOPE, &start, None, CHUNK)?;
        let count = chunk.len();
        for (key, found) in chunk {
            let user_bytes = key.user_bytes();
            let broken =
                |what: &str| view.fault(Fault::damage(format!("the record {key} of a member is broken: {what}")));
            let id = <[u8; 8]>::try_from(user_bytes.as_ref()).map_err(|_| broken("its key is no node id"))?;
            let record = codec::decode(Kind::MemberRecord, &found.value).map_err(|error| broken(&error.to_string()))?;
            let (revision, at_ms) = (found.mod_revision, found.updated_at_ms);
            records.insert(NodeId::from_be_bytes(id), Found { record, revision, at_ms });
            start = user_bytes.to_vec();
            start.push(0);
        }
        if count < CHUNK {
            return Ok(records);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_exactly_these_bytes() {
        let member = Member { peer_address: "a:1".into(), client_address: "b:2".into(), directory: 300 };
        for (wish, number) in [(Wish::Learner, 0), (Wish::Voter, 1), (Wish::Removed, 2)] {
            let record = Record { cluster: 7, member: member.clone(), wish, request: 9, by: "me".into() };
            let sealed = value(&record);
            let payload = [7, 3, b'a', b':', b'1', 3, b'b', b':', b'2', 251, 44, 1, number, 9, 2, b'm', b'e'];
            assert_eq!(sealed[..9], [0x4D, 0x53, 40, 1, 0, 17, 0, 0, 0]);
            assert_eq!(sealed[13..], payload);
            assert_eq!(codec::decode(Kind::MemberRecord, &sealed), Ok(record));
        }
        assert_eq!(key(258).as_bytes().as_ref(), [0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }
}
