//! The network between the nodes of a cluster, from the caller's side. The other side is
//! [`super::peer`].
//!
//! [`identity`] is who this node is and how every call says so, [`peers`] keeps the connections,
//! [`adapter`] is what openraft calls, `pipeline` keeps several appends under way, and [`snapshot`] streams a
//! snapshot. Nothing here retries: openraft does, and every failure is answered as one after which it tries
//! again.

pub mod adapter;
pub mod identity;
pub mod peers;
mod pipeline;
pub mod snapshot;

pub use adapter::{PeerConnection, PeerNetwork};
pub use identity::Identity;
pub use peers::{Lane, Peers};

#[cfg(test)]
mod tests;
