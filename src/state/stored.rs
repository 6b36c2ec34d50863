//! Records as storage sees them: bytes.

use bytes::Bytes;

use crate::{
    error::Fault,
    model::Record,
    storage::codec::{self, DecodeError, Kind},
};

/// The stored form of a record.
pub fn encode(record: &Record) -> Bytes {
    codec::encode(Kind::Record, record)
}

/// The stored form of a record, and the record with its value there.
pub(super) fn encode_shared(mut record: Record) -> (Bytes, Record) {
    let stored = encode(&record);
    // It is the first of the record, behind its length.
    let begins = codec::HEADER_BYTES + codec::payload_len(&record.value.len());
    record.value = stored.slice(begins..begins + record.value.len());
    (stored, record)
}

/// The record from its stored form, where its byte strings stay. Bytes that are no record are a fault: storage has checked them.
pub fn decode(key: &[u8], stored: &Bytes) -> Result<Record, Fault> {
    codec::decode_shared(Kind::Record, stored).map_err(|error| damaged(key, error))
}

/// The same of bytes that cannot be shared.
pub fn decode_copied(key: &[u8], stored: &[u8]) -> Result<Record, Fault> {
    codec::decode(Kind::Record, stored).map_err(|error| damaged(key, error))
}

fn damaged(key: &[u8], error: DecodeError) -> Fault {
    Fault::new(format!("the record of key {} is damaged: {error}", key.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_shares_its_value_with_its_stored_form() {
        for length in [0, 1, 250, 251, 300, 70_000] {
            let record = Record {
                value: vec![b'v'; length].into(),
                create_revision: 300,
                mod_revision: 70_000,
                version: 1,
                created_at_ms: 1,
                updated_at_ms: 1 << 40,
                expires_at_ms: Some(7),
                entries: Vec::new(),
                references: Vec::new(),
            };
            let (stored, same) = encode_shared(record.clone());
            let decoded = decode(b"key", &stored).unwrap();
            assert!(same == record && decoded == record);
            let within = |value: &Bytes| value.is_empty() || stored.as_ptr_range().contains(&value.as_ptr());
            assert!(within(&same.value) && within(&decoded.value));
        }
    }
}
