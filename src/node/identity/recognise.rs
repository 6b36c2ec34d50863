//! Whether a data directory stands in the right place.
//!
//! A directory that belongs to a cluster starts without asking anybody: after a loss of power all nodes must come up
//! whatever the others do. But if it is another cluster's (a disk or a `cluster.toml` was mixed up), nobody will ever
//! let it in, and whoever started it should be told so.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Directory,
    form::{Address, PAUSE, clients, identify_all},
};
use crate::{
    environment::net::Net,
    error::Fault,
    raft::{
        network::identity::{from_hex, hex},
        types::NodeId,
    },
};

/// Asks the nodes of `cluster.toml`, for as long as it takes, until one says that it is of the directory's cluster, or
/// until `in_place` knows it otherwise.
///
/// Errors: so many are of another cluster that the rest is no quorum.
pub async fn recognise(
    directory: &Directory,
    net: &Arc<dyn Net>,
    nodes: &BTreeMap<NodeId, Address>,
    in_place: impl Fn() -> bool,
) -> Result<(), Fault> {
    let identity = directory.identity();
    let Some(own) = identity.cluster() else { return Ok(()) };
    let mut clients = clients(net, nodes)?;
    clients.remove(&identity.node());
    loop {
        let mut foreign = BTreeMap::new();
        for (node, answer) in identify_all(&clients).await {
            let Ok(answer) = answer else { continue };
            match from_hex(&answer.cluster) {
                Some(cluster) if cluster == own => return Ok(()),
                // Another node's address stands in its place: nothing is known of this one.
                _ if answer.node_id != node => {}
                Some(cluster) => drop(foreign.insert(node, cluster)),
                None => {}
            }
        }
        if in_place() {
            return Ok(());
        }
        let quorum = nodes.len() / 2 + 1;
        if nodes.len() - foreign.len() < quorum
            && let Some(cluster) = foreign.values().next()
        {
            return Err(Fault::new(format!(
                "{} belongs to cluster {}, but of the nodes in cluster.toml {:?} belong to cluster {}: start node {} \
                 with the data directory that it had in that cluster, or with the cluster.toml of its own",
                directory.path().display(),
                hex(own),
                foreign.keys().collect::<Vec<_>>(),
                hex(*cluster),
                identity.node(),
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
