//! The gRPC services of a node.

pub mod forward;

pub use forward::Forwarded;
