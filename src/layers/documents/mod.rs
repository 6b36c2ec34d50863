//! The data broker's documents: JSON objects by id, in collections that services own.
//!
//! A document is a record of its collection's scope, under its id; what it is made of stands in [`StoredDocument`], what the
//! core knows of every record (times, revision, version) is not repeated there. [`collection`] has the collections, [`access`]
//! who may do what with them, [`index`] their indexes; a filter is a [`filter::Matcher`] over what a [`path`] leads to, and a
//! page of what it lets through is made in [`read`]; documents are written in [`mod@write`], changed as an
//! [`update::Update`] says, and watched through [`watch::Watched`].
//!
//! Every call is decided on a view: the collection, the grant that allows it, and the documents that it changes are as they
//! were seen when it is applied, or it is decided anew.

pub mod access;
pub mod collection;
mod filter;
pub mod index;
pub mod manifest;
mod path;
mod projection;
pub mod read;
pub mod requests;
#[cfg(test)]
mod tests;
mod tree;
mod update;
pub(in crate::layers) mod watch;
pub mod write;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::{
    path::{Document, Known},
    projection::Projection,
};
use crate::{
    Result,
    error::Fault,
    model::{Key, Record, document},
    state::View,
    storage::codec::{self, Kind},
};

/// Frozen (kind `Document`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredDocument {
    /// Who inserted it: a service, or a principal.
    owner: String,
    /// A JSON object, without the id.
    #[serde(deserialize_with = "crate::model::shared::deserialize")]
    json: Bytes,
}

fn seal(owner: &str, json: &str) -> Bytes {
    let stored = StoredDocument { owner: owner.into(), json: Bytes::copy_from_slice(json.as_bytes()) };
    codec::encode(Kind::Document, &stored)
}

/// A stored document that was read.
struct Opened {
    id: String,
    owner: String,
    json: Bytes,
}

/// What a record holds, which was checked when it was written.
fn opened(view: &View, key: &Key, record: &Record) -> Result<Opened> {
    parse(key, record).map_err(|fault| view.fault(fault))
}

fn parse(key: &Key, record: &Record) -> std::result::Result<Opened, Fault> {
    let broken = |error: &dyn std::fmt::Display| Fault::bug(format!("the document {key} cannot be read: {error}"));
    let StoredDocument { owner, json } =
        codec::decode(Kind::Document, &record.value).map_err(|error| broken(&error))?;
    let id = String::from_utf8(key.user_bytes().into()).map_err(|error| broken(&error))?;
    std::str::from_utf8(&json).map_err(|error| broken(&error))?;
    Ok(Opened { id, owner, json })
}

impl Opened {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.json).unwrap_or_default()
    }

    /// As filters, orders and indexes see it.
    fn document(&self, record: &Record) -> Document<'_> {
        let known = Known {
            created_at_ms: record.created_at_ms,
            updated_at_ms: record.updated_at_ms,
            revision: record.mod_revision,
            owner: &self.owner,
        };
        Document { id: &self.id, text: self.text(), known }
    }

    /// As callers see it.
    fn shown(self, record: &Record, projection: &Projection) -> document::Document {
        document::Document {
            json: projection.of(&self.id, self.text()),
            created_at_ms: record.created_at_ms,
            updated_at_ms: record.updated_at_ms,
            revision: record.mod_revision,
            version: record.version,
            owner: self.owner,
            id: self.id,
        }
    }
}
