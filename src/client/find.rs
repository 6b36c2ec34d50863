//! Queries over the documents of a collection.

use serde::Serialize;

use super::{Documents, Page, PageRequest, json, pages};
use crate::{
    Result,
    model::{
        document::{Document, DocumentQuery, FoundDocuments},
        query::SortField,
    },
    proto::v1,
};

impl Documents {
    /// A query for the documents that a filter lets through. In the order of the ids unless it is sorted.
    ///
    /// Errors: `InvalidArgument` for a filter that cannot be written as JSON.
    pub fn find(&self, filter: &(impl Serialize + ?Sized)) -> Result<Find> {
        Ok(self.find_text(json::text("filter", filter)?))
    }

    pub(crate) fn find_text(&self, filter: String) -> Find {
        Find { documents: self.clone(), query: DocumentQuery { filter, ..DocumentQuery::default() } }
    }
}

/// A query that is being put together; see [`Documents::find`].
#[derive(Clone, Debug)]
#[must_use = "a query does nothing until it is run"]
pub struct Find {
    documents: Documents,
    query: DocumentQuery,
}

impl Find {
    /// The same, which answers these fields alone, beside the id.
    pub fn only<T: Into<String>>(mut self, fields: impl IntoIterator<Item = T>) -> Self {
        self.query.include.extend(fields.into_iter().map(Into::into));
        self
    }

    /// The same without these fields.
    pub fn without<T: Into<String>>(mut self, fields: impl IntoIterator<Item = T>) -> Self {
        self.query.exclude.extend(fields.into_iter().map(Into::into));
        self
    }

    /// The same, sorted by a field behind those that were named before; the least first.
    pub fn sort_by(self, field: impl Into<String>) -> Self {
        self.sort([SortField::ascending(field)])
    }

    /// The same with the greatest first.
    pub fn sort_by_descending(self, field: impl Into<String>) -> Self {
        self.sort([SortField::descending(field)])
    }

    /// The same, sorted by these fields behind those that were named before.
    pub fn sort(mut self, by: impl IntoIterator<Item = SortField>) -> Self {
        self.query.sort.extend(by);
        self
    }

    /// The same with at most so many documents on a page, up to 1,000; otherwise 100.
    pub fn limit(mut self, limit: u32) -> Self {
        self.query.limit = Some(limit);
        self
    }

    /// The same without the first documents.
    pub fn skip(mut self, skip: u64) -> Self {
        self.query.skip = skip;
        self
    }

    /// The same behind another page, whose `next_cursor` this is.
    pub fn cursor(mut self, cursor: impl Into<String>) -> Self {
        self.query.cursor = cursor.into();
        self
    }

    /// A page. All pages show the revision of the first.
    ///
    /// Errors: `NotFound` for the collection; `PermissionDenied`; `InvalidArgument` for a filter, a field, a limit or a cursor
    /// that is none; `Refused` if more would have to be sorted than there is room for; `ViewTooOld` for a page of a revision
    /// that is given up.
    pub async fn page(self) -> Result<Page<Document>> {
        let Self { documents, query } = self;
        documents.client().read(v1::FindRequest::of(documents.names(), query, false)).await?.try_into()
    }

    /// All documents from here on, as of one revision, whatever the limit of a page is. They must fit into memory.
    ///
    /// Errors: as of [`page`](Self::page).
    pub async fn all(self) -> Result<Vec<Document>> {
        let (skip, behind) = (self.query.skip, self.query.cursor.clone());
        let begins_anew = behind.is_empty();
        let page = move |request: PageRequest| {
            let (first, limit) = (request.cursor.is_empty(), request.limit);
            let (skip, cursor) = if first { (skip, behind.clone()) } else { (0, request.cursor) };
            self.clone().skip(skip).limit(limit).cursor(cursor).page()
        };
        if begins_anew { pages::all(page).await } else { pages::once(page).await }
    }

    /// A page, and how it was found.
    ///
    /// Errors: as of [`page`](Self::page).
    pub async fn explain(self) -> Result<FoundDocuments> {
        let Self { documents, query } = self;
        documents.client().read(v1::FindRequest::of(documents.names(), query, true)).await?.try_into()
    }
}
