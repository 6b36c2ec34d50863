//! Records as storage sees them: bytes.

use bytes::Bytes;

use crate::{
    error::Fault,
    model::Record,
    storage::codec::{self, Kind},
};

/// The stored form of a record.
pub fn encode(record: &Record) -> Bytes {
    codec::encode(Kind::Record, record)
}

/// The record from its stored form. Bytes that are no record are a fault: storage has checked them.
pub fn decode(key: &[u8], stored: &[u8]) -> Result<Record, Fault> {
    codec::decode(Kind::Record, stored)
        .map_err(|error| Fault::new(format!("the record of key {} is damaged: {error}", key.escape_ascii())))
}
