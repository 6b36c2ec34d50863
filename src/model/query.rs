//! Queries over the values of a namespace, and the indexes that help them.

use super::{filter::Filter, kv::Entry};

/// A field by which values are ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortField {
    /// As in a filter.
    pub field: String,
    /// Whether the greatest comes first. Values without the field come last either way.
    pub descending: bool,
}

impl SortField {
    /// The least first.
    pub fn ascending(field: impl Into<String>) -> Self {
        Self { field: field.into(), descending: false }
    }

    /// The greatest first.
    pub fn descending(field: impl Into<String>) -> Self {
        Self { field: field.into(), descending: true }
    }
}

/// Which values of a namespace are wanted, in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Which.
    pub filter: Filter,
    /// In which order; what is equal in all of these is in the order of the keys.
    pub sort: Vec<SortField>,
    /// Most values on the page; `None`: 100.
    pub limit: Option<u32>,
    /// How many are left out at the beginning; on the first page only.
    pub offset: u64,
    /// Where the page before ended; empty for the first.
    pub cursor: String,
    /// Whether the callers' own attributes are answered, too.
    pub attributes: bool,
}

/// A page of what a query found, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The values.
    pub entries: Vec<Entry>,
    /// For the next page; empty if there is none.
    pub next_cursor: String,
    /// How they were found.
    pub explanation: Explanation,
}

/// How the values of a page were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// What was gone through.
    pub access: Access,
    /// Whether what was found had to be put in order in memory.
    pub sorted: bool,
    /// Keys that were gone through, of values or of an index.
    pub keys_examined: u64,
    /// Values that were read and held against the filter.
    pub values_examined: u64,
    /// Values on the page.
    pub returned: u64,
    /// Indexes of the namespace that are still being built, so that no query uses them.
    pub building: Vec<String>,
}

/// What a query goes through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// All keys.
    #[default]
    Scan,
    /// A range of the keys.
    Keys,
    /// Ranges of an index.
    Index {
        /// Its name.
        name: String,
        /// How many of its fields, from the first, narrow the ranges; 0: all of it, for its order.
        fields: u32,
        /// How many ranges.
        ranges: u32,
        /// Whether it gives the order that is wanted.
        ordered: bool,
    },
}

/// An index on fields of the values of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Its fields, in their order.
    pub fields: Vec<SortField>,
    /// Whether queries use it; else it is being built.
    pub ready: bool,
    /// How many values have been gone through to build it.
    pub built: u64,
}
