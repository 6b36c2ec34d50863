//! Collections of documents, and what is asked of them.

use super::query::{Explanation, SortField};

/// A collection, as its owner declared it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declaration {
    /// What it is for.
    pub description: String,
    /// What its documents are like: a JSON object of types by field, for people; nothing is checked by it. Empty: nothing was
    /// said.
    pub schema_hint: String,
    /// Its bounds; `None`: as they are, and none for a new one.
    pub settings: Option<CollectionSettings>,
    /// Its indexes; `None`: as they are.
    pub indexes: Option<Vec<IndexSpec>>,
}

/// The bounds of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectionSettings {
    /// How long a document stays after it was last written, in milliseconds of log time; 0: for good.
    pub ttl_ms: u64,
    /// Most documents; 0: no bound.
    pub max_documents: u64,
    /// Most bytes (id + document + 64 each); 0: no bound.
    pub max_bytes: u64,
}

/// An index, as it is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexSpec {
    /// Its name; empty: made of its fields, like `type_1_timestamp_-1`.
    pub name: String,
    /// Its fields, in their order.
    pub fields: Vec<SortField>,
    /// Whether no two documents may have the same in all fields; nothing is as null.
    pub unique: bool,
    /// A filter, in JSON: only documents that it lets through are in the index. Empty: all are.
    pub filter: String,
}

/// An index, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionIndex {
    /// What was declared, with its name.
    pub spec: IndexSpec,
    /// Whether queries use it.
    pub state: IndexState,
    /// Documents that were gone through to build it.
    pub built: u64,
}

/// How far an index is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// Queries use it.
    Ready,
    /// It is being built; queries do without it.
    Building,
    /// It could not be built, for this reason, and is not kept.
    Failed(String),
}

/// A collection, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// `service.collection`.
    pub name: String,
    /// The service that owns it.
    pub owner: String,
    /// What it is for.
    pub description: String,
    /// See [`Declaration::schema_hint`].
    pub schema_hint: String,
    /// Its bounds.
    pub settings: CollectionSettings,
    /// Its indexes, in the order in which they were created.
    pub indexes: Vec<CollectionIndex>,
    /// When it was created, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// The revision that created it.
    pub create_revision: u64,
    /// How many documents it holds.
    pub documents: u64,
    /// Their bytes (id + document + 64 each).
    pub bytes: u64,
}

/// A document, with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its id.
    pub id: String,
    /// A JSON object, with `_id` in front; what a projection has left of it.
    pub json: String,
    /// When it was inserted, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it was last written, in milliseconds since 1970.
    pub updated_at_ms: u64,
    /// The revision that wrote it last.
    pub revision: u64,
    /// 1 when inserted, +1 with each write.
    pub version: u64,
    /// The service that inserted it.
    pub owner: String,
}

/// Which documents of a collection are wanted, in which order, and what of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentQuery {
    /// A filter, in JSON; empty: all.
    pub filter: String,
    /// The fields that alone are answered, beside the id; none: all.
    pub include: Vec<String>,
    /// Fields that are left out.
    pub exclude: Vec<String>,
    /// In which order; what is equal in all of these is in the order of the ids.
    pub sort: Vec<SortField>,
    /// Most documents on the page; `None`: 100.
    pub limit: Option<u32>,
    /// How many are left out at the beginning; on the first page only.
    pub skip: u64,
    /// Where the page before ended; empty for the first.
    pub cursor: String,
}

/// A page of what a query found, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDocuments {
    /// The documents.
    pub documents: Vec<Document>,
    /// For the next page; empty if there is none.
    pub next_cursor: String,
    /// How they were found.
    pub explanation: Explanation,
}

/// A document that is to be inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDocument {
    /// A JSON object; its `_id`, a text, is taken if it has one.
    pub json: String,
    /// The id that it gets otherwise.
    pub id: String,
}

/// What became of one of several documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inserted {
    /// Its id; empty if it has none, because it was no document.
    pub id: String,
    /// Why it was not inserted; empty if it was.
    pub error: String,
}

/// Which documents are changed, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modification {
    /// A filter, in JSON; empty: all.
    pub filter: String,
    /// An update, in JSON.
    pub update: String,
    /// Whether a document is inserted if there is none. It gets `new_id`, unless the filter names an id.
    pub upsert: bool,
    /// See `upsert`.
    pub new_id: String,
    /// Most documents, in the order of their ids; 0: all that match, which must not be too many for one transaction.
    pub limit: u64,
    /// Only if all of them were last written at this revision.
    pub if_revision: Option<u64>,
}

/// What became of documents that were to be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modified {
    /// How many the filter let through, within the limit.
    pub matched: u64,
    /// How many of these were changed.
    pub modified: u64,
    /// The id of the one that was inserted instead; empty if none was.
    pub upserted_id: String,
}

/// What one document is changed to, and which of its two states is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FindAndUpdate {
    /// Which, and how; its limit is 1.
    pub modification: Modification,
    /// The first in this order.
    pub sort: Vec<SortField>,
    /// Whether the document is answered as it was before.
    pub before: bool,
}

/// What somebody may do with a collection that is not their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Query it.
    Read,
    /// Query it, and change its documents.
    Write,
    /// All that, and grant it to others.
    Admin,
}

impl Permission {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl std::fmt::Display for Permission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Permission {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Read, Self::Write, Self::Admin]
            .into_iter()
            .find(|permission| permission.name() == name)
            .ok_or("must be read, write or admin")
    }
}

/// That a service asks to be allowed something with a collection of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRequest {
    /// `service.collection`.
    pub collection: String,
    /// Who asks.
    pub service: String,
    /// For what.
    pub permission: Permission,
    /// Why.
    pub reason: String,
    /// When it asked, or it was denied, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who denied it; empty: it waits.
    pub denied_by: String,
}

/// What became of a collection that a manifest declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredCollection {
    /// `service.collection`; as it is written if that is no name.
    pub name: String,
    /// Whether it was created.
    pub created: bool,
    /// Whether description, hint or bounds were changed.
    pub changed: bool,
    /// Indexes that are built from now on.
    pub added_indexes: Vec<String>,
    /// Indexes that are gone.
    pub dropped_indexes: Vec<String>,
    /// Why nothing of this was done; empty: it was.
    pub error: String,
}

/// What became of an access that a manifest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedAccess {
    /// `service.collection`.
    pub collection: String,
    /// What is asked for.
    pub permission: Permission,
    /// Where it stands.
    pub state: RequestState,
    /// Why it was not asked for; empty: it was.
    pub error: String,
}

/// Where an access stands that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestState {
    /// It is allowed.
    Granted,
    /// It waits for the owner.
    Pending,
    /// The owner has denied it.
    Denied,
}

/// What became of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedManifest {
    /// The service that it is of.
    pub service: String,
    /// Its collections, in their order.
    pub collections: Vec<DeclaredCollection>,
    /// What it asks for, in its order.
    pub requests: Vec<RequestedAccess>,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// That a service may do something with a collection of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// `service.collection`.
    pub collection: String,
    /// Who may.
    pub service: String,
    /// What.
    pub permission: Permission,
    /// Why.
    pub reason: String,
    /// Who granted it.
    pub granted_by: String,
    /// When, in milliseconds since 1970.
    pub granted_at_ms: u64,
    /// How long it counts from then on, in milliseconds of log time; 0: until it is revoked.
    pub ttl_ms: u64,
}
