//! What layers check of any name or value, and what they say of any record.

use crate::{
    Error, Result, limits,
    model::{Record, mesh::Stored},
};

/// A name of at most `most` bytes. Errors: `InvalidArgument` naming `field`.
pub(super) fn check_name(field: &str, name: &str, most: usize) -> Result<()> {
    match name.len() {
        0 => Err(Error::invalid(field, "", "must not be empty")),
        length if length > most => Err(too_long(field, name, length, most)),
        _ => Ok(()),
    }
}

/// So many items in a list. Errors: `InvalidArgument` naming `field`.
pub(super) fn check_count(field: &str, count: usize, most: usize) -> Result<()> {
    if count <= most { Ok(()) } else { Err(Error::invalid(field, format!("{count} items"), format!("at most {most}"))) }
}

/// The same, of which there must be at least one. Errors: `InvalidArgument` naming `field`.
pub(super) fn check_some(field: &str, count: usize, most: usize) -> Result<()> {
    if count == 0 {
        Err(Error::invalid(field, "", "there must be at least one"))
    } else {
        check_count(field, count, most)
    }
}

/// A value. Errors: `InvalidArgument` naming `field`.
pub(super) fn check_size(field: &str, bytes: usize) -> Result<()> {
    check_length(field, bytes, limits::VALUE_BYTES)
}

/// A text or value of at most `most` bytes. Errors: `InvalidArgument` naming `field`.
pub(super) fn check_length(field: &str, bytes: usize, most: usize) -> Result<()> {
    if bytes > most { Err(too_long(field, "", bytes, most)) } else { Ok(()) }
}

fn too_long(field: &str, value: &str, bytes: usize, most: usize) -> Error {
    Error::invalid(field, value, format!("must be at most {most} bytes long, is {bytes}"))
}

/// A value with what the record says of it.
pub(super) fn stored<T>(record: &Record, value: T) -> Stored<T> {
    Stored {
        value,
        created_at_ms: record.created_at_ms,
        updated_at_ms: record.updated_at_ms,
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
        version: record.version,
    }
}
