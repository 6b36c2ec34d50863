//! Searching: pages of the records of a scope that are wanted, in the order that is asked for, with the help of indexes.
//!
//! What the records are, what a field of one is and which are wanted, a [`Home`] says: the values of a namespace, or the
//! documents of a collection. [`mod@plan`] chooses what to go through, [`run`] makes the page.
//!
//! * **Order**: by the sort fields, and what is equal in these by key. Without sort fields: by key. The plan does not show in
//!   what is answered.
//! * **Pages** show the revision of the first. A cursor names the last record that was given out and nothing of the plan:
//!   where it stands in an index, or among what is sorted, is looked up in that revision. So it stays good across nodes and
//!   releases. Only a transaction can change what it pages over: unsorted it goes on behind the key, whatever has become of
//!   it; sorted by what was changed it is told to begin anew.
//! * **Memory**: a page holds what it answers. If it has to be sorted, of all that is wanted only the keys (and fields) of
//!   those that may come on this page are kept, so the hundred first of a million take room for a hundred; what is left out
//!   before the first page takes room, too. Over [`limits::SORT_BYTES`](crate::limits::SORT_BYTES) the search is refused, and
//!   told what helps.
//! * **Time**: before each record it is asked whether somebody still waits, so what is searched for nobody is one record.
//!
//! Invariant of an index: each record, or each that the index is for, has at least one entry in it; the entries are made of
//! the record alone, by [`order`](super::query::order), and in the order of what they are made of. What an index may not be
//! asked because of some records stands in its marks, which no other entry begins like ([`MARKS`]).

pub(super) mod build;
mod plan;
mod run;

pub(super) use self::{plan::plan, run::Run};
use super::{
    list::{Cursor, page_limit},
    query::order::By,
};
use crate::{
    Error, Result,
    model::{Key, Record, ScopeId, query::Explanation},
    state::View,
};

/// Where the marks of an index stand: before [`FIRST`].
pub(super) const MARKS: &[u8] = &[1];
/// The mark that says that a field of a record was cut: an index that holds it is not asked for an order.
pub(super) const CUT: &[u8] = &[1];
/// The first that an entry which is no mark can begin with.
pub(super) const FIRST: &[u8] = &[2];

/// An index that a search may use.
pub(super) struct Usable {
    /// What it is called.
    pub(super) name: String,
    /// The scope of its entries.
    pub(super) scope: u32,
    /// Its fields.
    pub(super) by: Vec<By>,
    /// Whether a record may have several entries in it, which are no marks.
    pub(super) several: bool,
}

/// What is searched.
pub(super) trait Home {
    /// What a page holds of a record.
    type Item;

    /// Where its records stand.
    fn records(&self) -> ScopeId;
    /// The fields by which a record is ordered, one behind the other, if it is wanted.
    fn wanted(&self, view: &View, key: &Key, record: &Record) -> Result<Option<Vec<u8>>>;
    /// The same of one that is wanted.
    fn order(&self, view: &View, key: &Key, record: &Record) -> Result<Vec<u8>>;
    /// The entry of a record in an index in which it has one only.
    fn entry(&self, view: &View, index: &Usable, key: &Key, record: &Record) -> Result<Vec<u8>>;
    /// What the page holds of a record, and how many bytes that are.
    fn item(&self, view: &View, key: &Key, record: &Record) -> Result<(Self::Item, usize)>;
}

/// Which page is asked for.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// Most records.
    limit: usize,
    /// How many are left out at the beginning.
    offset: usize,
    /// Where the page before ended.
    after: Option<Cursor>,
    /// What tells the search from all others.
    fingerprint: u64,
    /// Whether an order was asked for.
    sorted: bool,
    /// Whether no record is wanted at all.
    none: bool,
}

impl Terms {
    /// Errors: `InvalidArgument` for a limit or a cursor that is none, or not of this search.
    pub(super) fn new(
        (limit, offset, cursor): (Option<u32>, u64, &str),
        fingerprint: u64,
        sorted: bool,
    ) -> Result<Self> {
        if offset > 0 && !cursor.is_empty() {
            let rule = "must be 0 with a cursor: the first page left them out";
            return Err(Error::invalid("offset", offset.to_string(), rule));
        }
        Ok(Self {
            limit: page_limit(limit.unwrap_or_default())?,
            offset: usize::try_from(offset).unwrap_or(usize::MAX),
            after: Cursor::parse(cursor, fingerprint)?,
            fingerprint,
            sorted,
            none: limit == Some(0),
        })
    }

    /// All that are wanted, on one page that is not bounded.
    pub(super) fn all() -> Self {
        Self { limit: usize::MAX, offset: 0, after: None, fingerprint: 0, sorted: false, none: false }
    }

    /// The revision at which the page must be read: the one of the pages before.
    pub(super) fn revision(&self) -> Option<u64> {
        self.after.as_ref().map(|cursor| cursor.revision)
    }

    /// What tells the search from all others.
    #[cfg(test)]
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether no record is wanted at all.
    pub(super) fn is_for_none(&self) -> bool {
        self.none
    }

    /// That a page can follow the one before. Errors: `InvalidArgument` for a cursor that is not of this store.
    pub(super) fn check(&self, view: &View) -> Result<()> {
        self.after.as_ref().map_or(Ok(()), |cursor| cursor.check_revision(view))
    }
}

/// A page that was found.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) items: Vec<T>,
    /// For the next page; empty if there is none.
    pub(super) next_cursor: String,
    pub(super) explanation: Explanation,
}
