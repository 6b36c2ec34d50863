//! Calls that belong to a transaction: they say so in a header, whatever they are.
//!
//! A header and no field, since it is the same for every call, and since a node that passes calls on to the leader does not
//! look into them. Which calls may belong to one is a table; what is not in it is refused by its name, and never done as if
//! the header were not there.

use tokio::time::Instant;
use tonic::Status;
use tower::Layer;

use super::gate::{Gate, Gated};
use crate::{
    Error, Result,
    model::{isolation::TRANSACTION as HEADER, lease::Fence},
    node::Node,
    service::transactions::{self, Transactions},
};

/// The header, by which a call is passed on to the leader also if it only reads.
pub(super) const TRANSACTION: &str = HEADER;

/// The calls that may belong to a transaction, in the order of the protos.
const CALLS: [&str; 63] = [
    "/meshstore.v1.Mesh/StoreMessage",
    "/meshstore.v1.Mesh/GetMessage",
    "/meshstore.v1.Mesh/DeleteMessage",
    "/meshstore.v1.Mesh/ListMessages",
    "/meshstore.v1.Mesh/PutState",
    "/meshstore.v1.Mesh/GetState",
    "/meshstore.v1.Mesh/DeleteState",
    "/meshstore.v1.Mesh/ListState",
    "/meshstore.v1.Mesh/SaveNodeState",
    "/meshstore.v1.Mesh/GetNodeState",
    "/meshstore.v1.Mesh/DeleteNodeState",
    "/meshstore.v1.Mesh/ListNodeStates",
    "/meshstore.v1.Mesh/SaveRoute",
    "/meshstore.v1.Mesh/GetRoute",
    "/meshstore.v1.Mesh/ListRoutes",
    "/meshstore.v1.Mesh/DeleteRoute",
    "/meshstore.v1.Mesh/SaveConfig",
    "/meshstore.v1.Mesh/GetConfig",
    "/meshstore.v1.Mesh/DeleteConfig",
    "/meshstore.v1.Mesh/ListConfigKeys",
    "/meshstore.v1.Storage/Get",
    "/meshstore.v1.Storage/Set",
    "/meshstore.v1.Storage/Delete",
    "/meshstore.v1.Storage/Has",
    "/meshstore.v1.Storage/GetMany",
    "/meshstore.v1.Storage/SetMany",
    "/meshstore.v1.Storage/DeleteMany",
    "/meshstore.v1.Storage/List",
    "/meshstore.v1.Storage/Count",
    "/meshstore.v1.Storage/Query",
    "/meshstore.v1.Storage/CreateNamespace",
    "/meshstore.v1.Storage/ModifyNamespace",
    "/meshstore.v1.Storage/ShowNamespace",
    "/meshstore.v1.Storage/ListNamespaces",
    "/meshstore.v1.Storage/GetMetadata",
    "/meshstore.v1.Storage/SetMetadata",
    "/meshstore.v1.Storage/History",
    "/meshstore.v1.Storage/Restore",
    "/meshstore.v1.Topology/SeedMesh",
    "/meshstore.v1.Topology/JoinMesh",
    "/meshstore.v1.Topology/LeaveMesh",
    "/meshstore.v1.Topology/EvictNode",
    "/meshstore.v1.Topology/ModifyMesh",
    "/meshstore.v1.Topology/DeleteMesh",
    "/meshstore.v1.Topology/ModifyNode",
    "/meshstore.v1.Topology/AddRoute",
    "/meshstore.v1.Topology/ModifyRoute",
    "/meshstore.v1.Topology/DeleteRoute",
    "/meshstore.v1.Topology/AddRegion",
    "/meshstore.v1.Topology/ModifyRegion",
    "/meshstore.v1.Topology/DeleteRegion",
    "/meshstore.v1.Topology/Apply",
    "/meshstore.v1.Topology/ShowMesh",
    "/meshstore.v1.Topology/ListMeshes",
    "/meshstore.v1.Topology/ShowNode",
    "/meshstore.v1.Topology/ListNodes",
    "/meshstore.v1.Topology/ShowTopology",
    "/meshstore.v1.Topology/GetRoutesForNode",
    "/meshstore.v1.Topology/ListRegions",
    "/meshstore.v1.Topology/ReportApplied",
    "/meshstore.v1.ConsensusLog/AppendEntry",
    "/meshstore.v1.ConsensusLog/GetEntry",
    "/meshstore.v1.ConsensusLog/ListEntries",
];

/// The calls about a transaction that write nothing.
pub(super) const WRITE_NOTHING: [&str; 2] =
    ["/meshstore.v1.Storage/BeginTransaction", "/meshstore.v1.Storage/Rollback"];

/// Which transaction a call belongs to, and where it is kept. An extension of the calls that belong to one.
#[derive(Clone)]
pub(super) struct Entered {
    id: String,
    transactions: Transactions,
}

/// Finds out to which transaction a call belongs, and refuses those that cannot. On the client listener it stands before the
/// layer that passes calls on.
#[derive(Clone)]
pub struct Belongs(Transactions);

impl Belongs {
    /// With the transactions that this node keeps.
    pub fn to(transactions: Transactions) -> Self {
        Self(transactions)
    }
}

impl Gate for Belongs {
    fn check<B>(&self, request: &mut http::Request<B>) -> Result<(), Status> {
        let Some(header) = request.headers().get(HEADER) else { return Ok(()) };
        let path = request.uri().path();
        if !CALLS.contains(&path) {
            let call = path.trim_start_matches("/meshstore.v1.");
            return Err(Error::Refused(format!("{call} cannot be part of a transaction")).into());
        }
        let id = header.to_str().map_err(|_| Error::invalid("transaction", "", "must be text"))?.to_owned();
        request.extensions_mut().insert(Entered { id, transactions: self.0.clone() });
        Ok(())
    }
}

impl<S> Layer<S> for Belongs {
    type Service = Gated<Self, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(self.clone(), inner)
    }
}

/// Where a call is made: in the store of a node, or in a transaction.
pub(super) type Place<'a> = transactions::Place<'a, Node>;

/// Errors: those of entering a transaction.
pub(super) async fn place<'a>(
    node: &'a Node,
    entered: Option<&Entered>,
    who: (&str, Option<&Fence>, Instant),
) -> Result<Place<'a>> {
    Place::of(node, entered.map(|Entered { id, transactions }| (transactions, id.as_str())), who).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::matrix;

    #[test]
    fn every_call_of_the_table_is_one() {
        for call in CALLS {
            assert!(matrix::action(call).is_some(), "{call}");
        }
        assert!(CALLS.iter().all(|call| matrix::paths().any(|path| path == *call)));
    }

    #[test]
    fn a_call_that_cannot_be_in_a_transaction_is_refused_by_name() {
        let gate = Belongs::to(Transactions::default());
        let ask = |path: &str, id: Option<&str>| {
            let mut request = http::Request::builder().uri(format!("http://node/meshstore.v1.{path}"));
            if let Some(id) = id {
                request = request.header(HEADER, id);
            }
            let mut request = request.body(()).unwrap();
            gate.check(&mut request).map(|()| request.extensions().get::<Entered>().map(|entered| entered.id.clone()))
        };
        assert_eq!(ask("Mesh/Transact", None).unwrap(), None);
        assert_eq!(ask("Mesh/PutState", Some("tx-1")).unwrap(), Some("tx-1".into()));
        for path in ["Mesh/Transact", "Storage/Clear", "Storage/Commit", "Cluster/Status", "Mesh/StoreLargeMessage"] {
            let refused = Error::Refused(format!("{path} cannot be part of a transaction"));
            assert_eq!(Error::from(ask(path, Some("tx-1")).unwrap_err()), refused);
        }
    }
}
