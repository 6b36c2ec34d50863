//! The wire: generated code, and the only place where it meets the model.
//!
//! * [`v1`] is generated from `proto/meshstore/v1`. Nothing above `rpc` and `client` names its types.
//! * [`convert`] turns model values into wire messages and back. Server and client use the same
//!   functions, so a field cannot be written by one and overlooked by the other.
//! * [`status`] turns an [`Error`](crate::Error) into a gRPC status with rich details and back; the round
//!   trip is the identity.
//!
//! Conversions check shape (a field that must be there, a number that means nothing); rules of the
//! domain (lengths, JSON) are the layers'.

pub mod broker;
pub mod consensus_log;
pub mod convert;
pub mod large;
pub mod lease;
pub mod query;
mod retention;
pub mod status;
pub mod storage;
pub mod topology;
mod transaction;
pub mod watch;

pub use status::{error_from_status, status_from_error};

/// The protos themselves, as gRPC's reflection shows them: an encoded `FileDescriptorSet`.
pub const FILE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

// Which of these lints the generated code trips over depends on the crate's features.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated; its documentation is in proto/"
)]
pub mod v1 {
    tonic::include_proto!("meshstore.v1");
}
