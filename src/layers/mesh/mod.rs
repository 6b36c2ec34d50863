//! Mesh storage: messages, state, node state, the routing table, runtime configuration.
//!
//! Five tables of the seed `mesh-storage.md`, a file each. Their common rules:
//!
//! * a store is an upsert: it overwrites what is there, and keeps `created_at`;
//! * reading or deleting what is not there is `NotFound`, naming kind and name;
//! * ids, keys and destinations are not empty and not longer than their limit;
//! * JSON is checked, then kept byte for byte ([`json`]), so that no number loses a digit;
//! * lists are ordered, come in pages, and all pages of one list show one revision ([`list`]);
//! * a transaction makes changes of any of them together, by the same rules ([`transaction`]).

pub mod config;
pub mod json;
pub mod list;
pub mod message;
pub mod node_state;
pub mod route;
pub mod state;
mod table;
pub mod transaction;

use crate::{Error, Result, limits, model::Record, model::mesh::Stored};

/// A name of at most `most` bytes. Errors: `InvalidArgument` naming `field`.
fn check_name(field: &str, name: &str, most: usize) -> Result<()> {
    match name.len() {
        0 => Err(Error::invalid(field, "", "must not be empty")),
        length if length > most => Err(too_long(field, name, length, most)),
        _ => Ok(()),
    }
}

/// A value. Errors: `InvalidArgument` naming `field`.
fn check_size(field: &str, bytes: usize) -> Result<()> {
    if bytes > limits::VALUE_BYTES { Err(too_long(field, "", bytes, limits::VALUE_BYTES)) } else { Ok(()) }
}

fn too_long(field: &str, value: &str, bytes: usize, most: usize) -> Error {
    Error::invalid(field, value, format!("must be at most {most} bytes long, is {bytes}"))
}

/// A value with what the record says of it.
fn stored<T>(record: &Record, value: T) -> Stored<T> {
    Stored {
        value,
        created_at_ms: record.created_at_ms,
        updated_at_ms: record.updated_at_ms,
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
        version: record.version,
    }
}

#[cfg(test)]
mod testing;
