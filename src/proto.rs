//! The generated gRPC code.

#[expect(missing_docs, clippy::all, reason = "generated; its documentation is in proto/")]
pub mod v1 {
    tonic::include_proto!("meshstore.v1");
}
