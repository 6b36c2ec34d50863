//! Queries over the values of a namespace, and its indexes.

use serde::Serialize;

use super::{Kv, Page, PageRequest, Written, json, pages};
use crate::{
    Result,
    model::{
        filter::{Filter, Operator},
        kv::Entry,
        query::{Explanation, Found, Index, Query, SortField},
    },
    proto::{convert::expected, query::fields, v1},
};

impl Filter {
    /// A condition on a field, with anything that can be written as JSON. Errors: `InvalidArgument` if it cannot.
    ///
    /// ```
    /// use meshstore::client::{Filter, Operator};
    ///
    /// # fn main() -> meshstore::Result<()> {
    /// let grown_up = Filter::of("age", Operator::Gte, &18)?;
    /// let in_town = Filter::of("address.city", Operator::In, &["Rome", "Oslo"])?;
    /// assert_eq!(
    ///     grown_up.and(in_town.negated()),
    ///     Filter::parse(
    ///         r#"[{"field": "age", "operator": "gte", "value": 18},
    ///             {"not": {"field": "address.city", "operator": "in", "value": ["Rome","Oslo"]}}]"#
    ///     )?
    /// );
    /// # Ok(())
    /// # }
    /// ```
    pub fn of(field: impl Into<String>, operator: Operator, operand: &(impl Serialize + ?Sized)) -> Result<Self> {
        Ok(Self::field(field, operator, json::text("value", operand)?))
    }
}

/// The pages of a query; see [`KvQuery::pages`].
#[derive(Clone, Debug)]
pub struct QueryPages {
    next: Option<KvQuery>,
}

impl QueryPages {
    /// The next page; `None` behind the last. After an error the same page can be asked for again.
    ///
    /// Errors: as of [`page`](KvQuery::page); `ViewTooOld` if too long was spent between two pages.
    pub async fn next(&mut self) -> Result<Option<Page<Entry>>> {
        let Some(query) = self.next.clone() else { return Ok(None) };
        let page = query.clone().page().await?;
        let more = !page.next_cursor.is_empty();
        self.next = more.then(|| query.offset(0).cursor(page.next_cursor.clone()));
        Ok(Some(page))
    }
}

/// A query that is being put together; see [`Kv::query`].
#[derive(Clone, Debug)]
#[must_use = "a query does nothing until it is run"]
pub struct KvQuery {
    kv: Kv,
    query: Query,
}

impl Kv {
    /// A query for the values that a filter lets through; [`Filter::default`] lets all through. In the order of the keys
    /// unless it is sorted.
    ///
    /// ```no_run
    /// use meshstore::client::{Client, Filter, Operator};
    ///
    /// # async fn example(client: Client) -> meshstore::Result<()> {
    /// let grown_up = Filter::of("age", Operator::Gte, &18)?;
    /// for entry in client.kv("users").query(grown_up).sort_by("name").all().await? {
    ///     println!("{}", entry.key);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn query(&self, filter: Filter) -> KvQuery {
        KvQuery { kv: self.clone(), query: Query { filter, attributes: true, ..Query::default() } }
    }

    /// A page of a query that is put together already.
    pub(crate) async fn query_as(&self, query: Query) -> Result<Page<Entry>> {
        KvQuery { kv: self.clone(), query }.page().await
    }

    /// How many values a filter lets through. Without an index that helps, all are read.
    ///
    /// Errors: `NotFound` if there is no such namespace; `InvalidArgument` for a filter that is none.
    pub async fn count_where(&self, filter: Filter) -> Result<u64> {
        filter.check()?;
        let filter = Some(filter.into());
        let request = v1::StorageCountRequest { read: None, namespace: self.name().to_owned(), filter };
        Ok(self.client().read(request).await?.count)
    }

    /// Creates an index on fields of the values. Queries use it when it is built, which [`indexes`](Self::indexes) tells.
    ///
    /// Errors: `InvalidArgument` for a field that is none of a value, or more than 4; `AlreadyExists`; `NotFound` if there
    /// is no such namespace; `Refused` if it has 16 already, or if a node of the cluster is too old for it.
    pub async fn create_index(&self, name: &str, of: Vec<SortField>) -> Result<Written> {
        let (namespace, name) = (self.name().to_owned(), name.to_owned());
        self.client().write(v1::CreateIndexRequest { attempt: None, namespace, name, fields: fields(of) }).await
    }

    /// Drops an index, at once.
    ///
    /// Errors: `NotFound`.
    pub async fn drop_index(&self, name: &str) -> Result<Written> {
        let (namespace, name) = (self.name().to_owned(), name.to_owned());
        self.client().write(v1::DropIndexRequest { attempt: None, namespace, name }).await
    }

    /// The indexes, in the order in which they were created.
    ///
    /// Errors: `NotFound` if there is no such namespace.
    pub async fn indexes(&self) -> Result<Vec<Index>> {
        let request = v1::ListIndexesRequest { read: None, namespace: self.name().to_owned() };
        Ok(fields(self.client().read(request).await?.indexes))
    }
}

impl KvQuery {
    /// The same, sorted by a field behind those that were named before; the least first.
    pub fn sort_by(self, field: impl Into<String>) -> Self {
        self.sort(vec![SortField::ascending(field)])
    }

    /// The same with the greatest first. Values without the field come last either way.
    pub fn sort_by_descending(self, field: impl Into<String>) -> Self {
        self.sort(vec![SortField::descending(field)])
    }

    /// The same, sorted by these fields behind those that were named before.
    pub fn sort(mut self, by: Vec<SortField>) -> Self {
        self.query.sort.extend(by);
        self
    }

    /// The same with at most so many values on a page, up to 1,000; otherwise 100.
    pub fn limit(mut self, limit: u32) -> Self {
        self.query.limit = Some(limit);
        self
    }

    /// The same without the first values.
    pub fn offset(mut self, offset: u64) -> Self {
        self.query.offset = offset;
        self
    }

    /// The same behind another page, whose `next_cursor` this is.
    pub fn cursor(mut self, cursor: impl Into<String>) -> Self {
        self.query.cursor = cursor.into();
        self
    }

    /// A page, with the callers' own attributes. All pages show the revision of the first.
    ///
    /// Errors: `NotFound` if there is no such namespace; `InvalidArgument` for a filter, a field, a limit or a cursor that
    /// is none; `Refused` if more would have to be sorted than there is room for; `ViewTooOld` for a page of a revision
    /// that is given up.
    pub async fn page(self) -> Result<Page<Entry>> {
        let Self { kv, query } = self;
        query.filter.check()?;
        let answer = kv.client().read(v1::StorageQueryRequest::of(kv.name(), query, false)).await?;
        answer.try_into()
    }

    /// Page after page, all of one revision, for what does not fit into memory.
    ///
    /// ```no_run
    /// use meshstore::client::{Client, Filter};
    ///
    /// # async fn example(client: Client) -> meshstore::Result<()> {
    /// let mut pages = client.kv("users").query(Filter::default()).limit(1_000).pages();
    /// while let Some(page) = pages.next().await? {
    ///     println!("{} more", page.items.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn pages(self) -> QueryPages {
        QueryPages { next: Some(self) }
    }

    /// All values from here on, as of one revision, whatever the limit of a page is. They must fit into memory.
    ///
    /// Errors: as of [`page`](Self::page); `ViewTooOld` if it goes on behind a page whose revision is given up.
    pub async fn all(self) -> Result<Vec<Entry>> {
        let (offset, behind) = (self.query.offset, self.query.cursor.clone());
        let begins_anew = behind.is_empty();
        let page = move |request: PageRequest| {
            let (first, limit) = (request.cursor.is_empty(), request.limit);
            let (offset, cursor) = if first { (offset, behind.clone()) } else { (0, request.cursor) };
            self.clone().offset(offset).limit(limit).cursor(cursor).page()
        };
        if begins_anew { pages::all(page).await } else { pages::once(page).await }
    }

    /// A page, and how it was found.
    ///
    /// Errors: as of [`page`](Self::page).
    pub async fn explain(self) -> Result<Found> {
        let Self { kv, query } = self;
        query.filter.check()?;
        let answer = kv.client().read(v1::StorageQueryRequest::of(kv.name(), query, true)).await?;
        let explanation: Explanation = expected("explanation", answer.explanation.clone())?.try_into()?;
        let Page { items: entries, next_cursor, .. } = answer.try_into()?;
        Ok(Found { entries, next_cursor, explanation })
    }
}
