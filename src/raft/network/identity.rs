//! Who a node is, and how it says so: every call between peers names cluster, node and data directory of
//! both ends, so that a wrong address, a second process with the same node id, or a wiped directory is
//! refused before it can do harm.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::watch;
use tonic::{Request, Status, service::Interceptor};

use crate::raft::types::NodeId;

/// The cluster that the caller means, in hex.
pub const CLUSTER: HeaderName = HeaderName::from_static("x-meshstore-cluster");
/// The caller's node id.
pub const FROM: HeaderName = HeaderName::from_static("x-meshstore-from");
/// The caller's data directory, in hex.
pub const FROM_DIRECTORY: HeaderName = HeaderName::from_static("x-meshstore-from-directory");
/// The node id that the caller means.
pub const TO: HeaderName = HeaderName::from_static("x-meshstore-to");
/// The data directory that the caller means, in hex.
pub const TO_DIRECTORY: HeaderName = HeaderName::from_static("x-meshstore-to-directory");
/// With these all headers begin that only peers may send.
pub const PREFIX: &str = "x-meshstore-";

/// Who this node is. Cheap to clone: all clones see the cluster as soon as it is known.
#[derive(Clone, Debug)]
pub struct Identity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: NodeId,
    directory: u128,
    cluster: watch::Sender<Option<u128>>,
}

impl Identity {
    /// A node's identity, as its data directory has it.
    pub fn new(node: NodeId, directory: u128, cluster: Option<u128>) -> Self {
        Self(Arc::new(Inner { node, directory, cluster: watch::Sender::new(cluster) }))
    }

    /// The node id.
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// The random id of the data directory.
    pub fn directory(&self) -> u128 {
        self.0.directory
    }

    /// The cluster; `None` before the node belongs to one.
    pub fn cluster(&self) -> Option<u128> {
        *self.0.cluster.borrow()
    }

    /// Waits until the node belongs to a cluster.
    pub async fn joined(&self) -> u128 {
        let mut cluster = self.0.cluster.subscribe();
        match cluster.wait_for(Option::is_some).await.map(|cluster| *cluster) {
            Ok(Some(cluster)) => cluster,
            // The sender lives as long as `self`, so neither can come.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Makes the cluster known to all clones, once it is on disk.
    pub(crate) fn join(&self, cluster: u128) {
        self.0.cluster.send_replace(Some(cluster));
    }

    /// What this node says of itself to node `to`. `directory`: the one that it means, where it knows it.
    pub fn introduce(&self, to: NodeId, directory: Option<u128>) -> Introduction {
        let mut headers = vec![
            (FROM, HeaderValue::from(self.node())),
            (FROM_DIRECTORY, hex_value(self.directory())),
            (TO, HeaderValue::from(to)),
        ];
        headers.extend(directory.map(|directory| (TO_DIRECTORY, hex_value(directory))));
        headers.extend(self.cluster().map(|cluster| (CLUSTER, hex_value(cluster))));
        Introduction(headers.into())
    }
}

/// What a node says of itself to one other, ready to be put on every call. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Introduction(Arc<[(HeaderName, HeaderValue)]>);

impl Introduction {
    /// Puts it on a call. What the call had under these names is replaced.
    pub fn put(&self, headers: &mut HeaderMap) {
        for (name, value) in self.0.iter() {
            headers.insert(name.clone(), value.clone());
        }
    }
}

impl Interceptor for Introduction {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        self.put(request.metadata_mut().as_mut());
        Ok(request)
    }
}

/// An id as it is written everywhere: 32 hex digits.
pub fn hex(id: u128) -> String {
    format!("{id:032x}")
}

/// The id that 32 hex digits stand for.
pub fn from_hex(text: &str) -> Option<u128> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

fn hex_value(id: u128) -> HeaderValue {
    // Hex digits are always a valid header value; an empty one would be refused by every peer.
    HeaderValue::from_str(&hex(id)).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_32_hex_digits() {
        assert_eq!(hex(0x2A), "0000000000000000000000000000002a");
        for id in [0, 1, u128::MAX, 0x0123_4567_89AB_CDEF << 60] {
            assert_eq!(from_hex(&hex(id)), Some(id));
        }
        for wrong in ["", "2a", "+000000000000000000000000000002a", "0000000000000000000000000000002g"] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn all_clones_see_the_cluster() {
        let identity = Identity::new(1, 5, None);
        let waiting = tokio::spawn({
            let identity = identity.clone();
            async move { identity.joined().await }
        });
        let mut headers = HeaderMap::new();
        identity.introduce(2, None).put(&mut headers);
        assert_eq!(headers.len(), 3, "{headers:?}");
        identity.join(7);
        assert_eq!(waiting.await.unwrap(), 7);
        identity.introduce(2, Some(9)).put(&mut headers);
        assert_eq!(headers.len(), 5, "{headers:?}");
        assert_eq!(headers[CLUSTER], hex(7).as_str());
    }
}
