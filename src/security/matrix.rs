//! The matrix: every RPC, with what it does to which surface. What is not listed is not served.

use super::decide::{
    Access::{self, Admin, Peer, Read, Write},
    Action,
    Surface::{self, Broker, Calls, Cluster, ConsensusLog, Lease, Lock, Mesh, Session, Storage, Topology, Watch},
};

type Entry = (&'static str, Access, Surface);

/// In the order of the protos.
const MATRIX: [Entry; 143] = [
    ("/meshstore.v1.Mesh/StoreMessage", Write, Mesh),
    ("/meshstore.v1.Mesh/GetMessage", Read, Mesh),
    ("/meshstore.v1.Mesh/DeleteMessage", Write, Mesh),
    ("/meshstore.v1.Mesh/ListMessages", Read, Mesh),
    ("/meshstore.v1.Mesh/StoreLargeMessage", Write, Mesh),
    ("/meshstore.v1.Mesh/ReadLargeMessage", Read, Mesh),
    ("/meshstore.v1.Mesh/SetRetention", Write, Mesh),
    ("/meshstore.v1.Mesh/GetRetention", Read, Mesh),
    ("/meshstore.v1.Mesh/DeleteRetention", Write, Mesh),
    ("/meshstore.v1.Mesh/ListRetention", Read, Mesh),
    ("/meshstore.v1.Mesh/PutState", Write, Mesh),
    ("/meshstore.v1.Mesh/GetState", Read, Mesh),
    ("/meshstore.v1.Mesh/DeleteState", Write, Mesh),
    ("/meshstore.v1.Mesh/ListState", Read, Mesh),
    ("/meshstore.v1.Mesh/SaveNodeState", Write, Mesh),
    ("/meshstore.v1.Mesh/GetNodeState", Read, Mesh),
    ("/meshstore.v1.Mesh/DeleteNodeState", Write, Mesh),
    ("/meshstore.v1.Mesh/ListNodeStates", Read, Mesh),
    ("/meshstore.v1.Mesh/SaveRoute", Write, Mesh),
    ("/meshstore.v1.Mesh/GetRoute", Read, Mesh),
    ("/meshstore.v1.Mesh/ListRoutes", Read, Mesh),
    ("/meshstore.v1.Mesh/DeleteRoute", Write, Mesh),
    ("/meshstore.v1.Mesh/SaveConfig", Write, Mesh),
    ("/meshstore.v1.Mesh/GetConfig", Read, Mesh),
    ("/meshstore.v1.Mesh/DeleteConfig", Write, Mesh),
    ("/meshstore.v1.Mesh/ListConfigKeys", Read, Mesh),
    ("/meshstore.v1.Mesh/Transact", Write, Mesh),
    ("/meshstore.v1.Topology/SeedMesh", Write, Topology),
    ("/meshstore.v1.Topology/JoinMesh", Write, Topology),
    ("/meshstore.v1.Topology/LeaveMesh", Write, Topology),
    ("/meshstore.v1.Topology/EvictNode", Write, Topology),
    ("/meshstore.v1.Topology/ModifyMesh", Write, Topology),
    ("/meshstore.v1.Topology/DeleteMesh", Write, Topology),
    ("/meshstore.v1.Topology/ModifyNode", Write, Topology),
    ("/meshstore.v1.Topology/AddRoute", Write, Topology),
    ("/meshstore.v1.Topology/ModifyRoute", Write, Topology),
    ("/meshstore.v1.Topology/DeleteRoute", Write, Topology),
    ("/meshstore.v1.Topology/AddRegion", Write, Topology),
    ("/meshstore.v1.Topology/ModifyRegion", Write, Topology),
    ("/meshstore.v1.Topology/DeleteRegion", Write, Topology),
    ("/meshstore.v1.Topology/Apply", Write, Topology),
    ("/meshstore.v1.Topology/Confirm", Write, Topology),
    ("/meshstore.v1.Topology/Rollback", Write, Topology),
    ("/meshstore.v1.Topology/ShowMesh", Read, Topology),
    ("/meshstore.v1.Topology/ListMeshes", Read, Topology),
    ("/meshstore.v1.Topology/ShowNode", Read, Topology),
    ("/meshstore.v1.Topology/ListNodes", Read, Topology),
    ("/meshstore.v1.Topology/ShowTopology", Read, Topology),
    ("/meshstore.v1.Topology/GetRoutesForNode", Read, Topology),
    ("/meshstore.v1.Topology/ListRegions", Read, Topology),
    ("/meshstore.v1.Topology/History", Read, Topology),
    ("/meshstore.v1.Topology/Diff", Read, Topology),
    ("/meshstore.v1.Topology/GetLocalIdentity", Read, Topology),
    ("/meshstore.v1.Topology/SetLocalIdentity", Write, Topology),
    ("/meshstore.v1.Topology/ReportApplied", Write, Topology),
    ("/meshstore.v1.Topology/ShowApplied", Read, Topology),
    ("/meshstore.v1.Topology/WaitUntilApplied", Read, Topology),
    ("/meshstore.v1.Storage/Get", Read, Storage),
    ("/meshstore.v1.Storage/Set", Write, Storage),
    ("/meshstore.v1.Storage/Delete", Write, Storage),
    ("/meshstore.v1.Storage/Has", Read, Storage),
    ("/meshstore.v1.Storage/GetMany", Read, Storage),
    ("/meshstore.v1.Storage/SetMany", Write, Storage),
    ("/meshstore.v1.Storage/DeleteMany", Write, Storage),
    ("/meshstore.v1.Storage/List", Read, Storage),
    ("/meshstore.v1.Storage/Count", Read, Storage),
    ("/meshstore.v1.Storage/Query", Read, Storage),
    ("/meshstore.v1.Storage/CreateIndex", Write, Storage),
    ("/meshstore.v1.Storage/DropIndex", Write, Storage),
    ("/meshstore.v1.Storage/ListIndexes", Read, Storage),
    ("/meshstore.v1.Storage/CreateNamespace", Write, Storage),
    ("/meshstore.v1.Storage/ModifyNamespace", Write, Storage),
    ("/meshstore.v1.Storage/DeleteNamespace", Write, Storage),
    ("/meshstore.v1.Storage/ShowNamespace", Read, Storage),
    ("/meshstore.v1.Storage/ListNamespaces", Read, Storage),
    ("/meshstore.v1.Storage/GetMetadata", Read, Storage),
    ("/meshstore.v1.Storage/SetMetadata", Write, Storage),
    ("/meshstore.v1.Storage/History", Read, Storage),
    ("/meshstore.v1.Storage/Restore", Write, Storage),
    ("/meshstore.v1.Storage/Clear", Write, Storage),
    ("/meshstore.v1.Storage/GetStatus", Read, Storage),
    ("/meshstore.v1.Storage/BeginTransaction", Write, Storage),
    ("/meshstore.v1.Storage/Commit", Write, Storage),
    ("/meshstore.v1.Storage/Rollback", Write, Storage),
    ("/meshstore.v1.Broker/RequestCollection", Write, Broker),
    ("/meshstore.v1.Broker/DropCollection", Write, Broker),
    ("/meshstore.v1.Broker/ShowCollection", Read, Broker),
    ("/meshstore.v1.Broker/ListCollections", Read, Broker),
    ("/meshstore.v1.Broker/Insert", Write, Broker),
    ("/meshstore.v1.Broker/GetDocument", Read, Broker),
    ("/meshstore.v1.Broker/Find", Read, Broker),
    ("/meshstore.v1.Broker/CountDocuments", Read, Broker),
    ("/meshstore.v1.Broker/Distinct", Read, Broker),
    ("/meshstore.v1.Broker/Update", Write, Broker),
    ("/meshstore.v1.Broker/FindAndUpdate", Write, Broker),
    ("/meshstore.v1.Broker/Replace", Write, Broker),
    ("/meshstore.v1.Broker/DeleteDocuments", Write, Broker),
    ("/meshstore.v1.Broker/GrantAccess", Write, Broker),
    ("/meshstore.v1.Broker/RevokeAccess", Write, Broker),
    ("/meshstore.v1.Broker/ListGrants", Read, Broker),
    ("/meshstore.v1.Broker/ApplyManifest", Write, Broker),
    ("/meshstore.v1.Broker/ListAccessRequests", Read, Broker),
    ("/meshstore.v1.Broker/DecideAccessRequest", Write, Broker),
    ("/meshstore.v1.Lease/Grant", Write, Lease),
    ("/meshstore.v1.Lease/KeepAlive", Write, Lease),
    ("/meshstore.v1.Lease/Revoke", Write, Lease),
    ("/meshstore.v1.Lease/Show", Read, Lease),
    ("/meshstore.v1.Lease/List", Read, Lease),
    ("/meshstore.v1.Lock/Acquire", Write, Lock),
    ("/meshstore.v1.Lock/Release", Write, Lock),
    ("/meshstore.v1.Lock/Show", Read, Lock),
    ("/meshstore.v1.Lock/Observe", Read, Lock),
    ("/meshstore.v1.Watch/Watch", Read, Watch),
    ("/meshstore.v1.ConsensusLog/AppendToRaft", Write, ConsensusLog),
    ("/meshstore.v1.ConsensusLog/ReadRaft", Read, ConsensusLog),
    ("/meshstore.v1.ConsensusLog/AppendEntry", Write, ConsensusLog),
    ("/meshstore.v1.ConsensusLog/GetEntry", Read, ConsensusLog),
    ("/meshstore.v1.ConsensusLog/ListEntries", Read, ConsensusLog),
    ("/meshstore.v1.ConsensusLog/DeleteEntries", Write, ConsensusLog),
    ("/meshstore.v1.Session/OpenSession", Write, Session),
    ("/meshstore.v1.Session/KeepSession", Write, Session),
    ("/meshstore.v1.Session/CloseSession", Write, Session),
    ("/meshstore.v1.Cluster/Status", Read, Cluster),
    ("/meshstore.v1.Cluster/ListMembers", Read, Cluster),
    ("/meshstore.v1.Cluster/AddMember", Admin, Cluster),
    ("/meshstore.v1.Cluster/RemoveMember", Admin, Cluster),
    ("/meshstore.v1.Cluster/PromoteMember", Admin, Cluster),
    ("/meshstore.v1.Cluster/UpdateMember", Admin, Cluster),
    ("/meshstore.v1.Cluster/TransferLeadership", Admin, Cluster),
    ("/meshstore.v1.Cluster/Backup", Admin, Cluster),
    // Each of the calls in it is decided by itself.
    ("/meshstore.v1.Calls/Multiplex", Read, Calls),
    ("/meshstore.v1.Peer/Identify", Peer, Surface::Peer),
    ("/meshstore.v1.Peer/Adopt", Peer, Surface::Peer),
    ("/meshstore.v1.Peer/Join", Peer, Surface::Peer),
    ("/meshstore.v1.Peer/Append", Peer, Surface::Peer),
    ("/meshstore.v1.Peer/Replicate", Peer, Surface::Peer),
    ("/meshstore.v1.Peer/Vote", Peer, Surface::Peer),
    ("/meshstore.v1.Peer/PreVote", Peer, Surface::Peer),
    ("/meshstore.v1.Peer/TransferLeader", Peer, Surface::Peer),
    ("/meshstore.v1.Peer/InstallSnapshot", Peer, Surface::Peer),
    ("/meshstore.v1.Peer/FetchSnapshot", Peer, Surface::Peer),
    ("/meshstore.v1.Peer/ReadIndex", Peer, Surface::Peer),
    ("/meshstore.v1.Peer/StateHash", Peer, Surface::Peer),
];

/// gRPC's own service that shows the others. Its health service is open to all.
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// The paths of what clients call.
pub fn paths() -> impl Iterator<Item = &'static str> {
    MATRIX.iter().filter(|(_, access, _)| *access != Peer).map(|(path, ..)| *path)
}

/// What a call of this path does; `None` if there is no such RPC.
pub fn action(path: &str) -> Option<Action> {
    if path == REFLECTION {
        return Some(Action { access: Read, surface: Cluster });
    }
    let (_, access, surface) = MATRIX.iter().find(|(listed, ..)| *listed == path)?;
    Some(Action { access: *access, surface: *surface })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every RPC that the protos have, in their order.
    fn rpcs() -> Vec<String> {
        let protos = [
            include_str!("../../proto/meshstore/v1/mesh.proto"),
            include_str!("../../proto/meshstore/v1/topology.proto"),
            include_str!("../../proto/meshstore/v1/storage.proto"),
            include_str!("../../proto/meshstore/v1/broker.proto"),
            include_str!("../../proto/meshstore/v1/lease.proto"),
            include_str!("../../proto/meshstore/v1/watch.proto"),
            include_str!("../../proto/meshstore/v1/consensus_log.proto"),
            include_str!("../../proto/meshstore/v1/cluster.proto"),
            include_str!("../../proto/meshstore/v1/calls.proto"),
            include_str!("../../proto/meshstore/v1/peer.proto"),
        ];
        let (mut found, mut service) = (Vec::new(), "");
        for line in protos.iter().flat_map(|proto| proto.lines()) {
            let mut words = line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
            match (line.trim_start().split(' ').next(), words.nth(1)) {
                (Some("service"), Some(name)) => service = name,
                (Some("rpc"), Some(name)) => found.push(format!("/meshstore.v1.{service}/{name}")),
                _ => {}
            }
        }
        found
    }

    #[test]
    fn every_rpc_has_its_entry() {
        let listed: Vec<&str> = MATRIX.iter().map(|(path, ..)| *path).collect();
        assert_eq!(listed, rpcs(), "a new RPC needs a line in src/security/matrix.rs: what does it do, to what?");
        let protos = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/proto/meshstore/v1")).unwrap();
        // common.proto has no services; a new file is to be read above.
        assert_eq!(protos.count(), 11, "rpcs() does not read every file of proto/");
    }

    #[test]
    fn an_entry_says_its_surface() {
        for (path, access, surface) in MATRIX {
            assert!(path.starts_with(&format!("/meshstore.v1.{surface:?}/")), "{path}");
            assert_eq!(access == Access::Peer, surface == Surface::Peer, "{path}");
            assert_eq!(action(path), Some(Action { access, surface }));
        }
        assert_eq!(action("/meshstore.v1.Mesh/DropEverything"), None);
    }
}
