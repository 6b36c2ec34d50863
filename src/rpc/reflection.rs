//! gRPC's reflection service: what services there are, for `grpcurl` and the like. What nodes say to each other is left out.

use tonic_reflection::server::{
    Builder,
    v1::{ServerReflection, ServerReflectionServer},
};

use super::SERVICES;
use crate::{error::Fault, proto::FILE_DESCRIPTORS};

/// The service.
///
/// Errors: what the build made of the protos cannot be read.
pub fn service() -> Result<ServerReflectionServer<impl ServerReflection>, Fault> {
    let builder = Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let named = SERVICES
        .iter()
        .chain(&["grpc.health.v1.Health"])
        .fold(builder, |builder, service| builder.with_service_name(*service));
    named.build_v1().map_err(|error| Fault::bug(format!("the protos of this build: {error}")))
}
