//! What [`Error::NotFound`](crate::Error::NotFound) calls the things that can be missing.

/// A message.
pub const MESSAGE: &str = "message";
/// A shared state value.
pub const STATE: &str = "state";
/// The runtime state of a node.
pub const NODE_STATE: &str = "node state";
/// An entry of the routing table.
pub const ROUTE: &str = "route";
/// A runtime configuration value.
pub const CONFIG: &str = "config";
/// Whatever this program has no name for.
pub const ITEM: &str = "item";

/// The constant that equals `name`; [`ITEM`] if there is none.
pub fn known(name: &str) -> &'static str {
    let all = [MESSAGE, STATE, NODE_STATE, ROUTE, CONFIG];
    all.into_iter().find(|kind| *kind == name).unwrap_or(ITEM)
}
