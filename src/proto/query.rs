//! Queries and indexes as wire messages, and back.

use super::{
    convert::expected,
    v1::{self, FilterOperator, filter, query_explanation},
};
use crate::{
    Error, Result,
    model::{
        filter::{Comparison, Filter, Operator},
        kv::Entry,
        mesh::Page,
        query::{Access, Explanation, Found, Index, Query, SortField},
    },
};

const OPERATORS: [(Operator, FilterOperator); 11] = [
    (Operator::Eq, FilterOperator::Eq),
    (Operator::Ne, FilterOperator::Ne),
    (Operator::Gt, FilterOperator::Gt),
    (Operator::Gte, FilterOperator::Gte),
    (Operator::Lt, FilterOperator::Lt),
    (Operator::Lte, FilterOperator::Lte),
    (Operator::Contains, FilterOperator::Contains),
    (Operator::StartsWith, FilterOperator::StartsWith),
    (Operator::EndsWith, FilterOperator::EndsWith),
    (Operator::In, FilterOperator::In),
    (Operator::Nin, FilterOperator::Nin),
];

impl From<Operator> for FilterOperator {
    fn from(operator: Operator) -> Self {
        OPERATORS.iter().find(|(known, _)| *known == operator).map_or(Self::Unspecified, |(_, wire)| *wire)
    }
}

impl From<Filter> for v1::Filter {
    fn from(filter: Filter) -> Self {
        let list = |filters: Vec<Filter>| v1::FilterList { filters: filters.into_iter().map(Into::into).collect() };
        let filter = match filter {
            Filter::All(filters) => filter::Filter::All(list(filters)),
            Filter::Any(filters) => filter::Filter::Any(list(filters)),
            Filter::Not(filter) => filter::Filter::Not(Box::new((*filter).into())),
            Filter::Field(Comparison { field, operator, operand: value_json }) => {
                let operator = FilterOperator::from(operator).into();
                filter::Filter::Field(v1::FieldCondition { field, operator, value_json })
            }
        };
        Self { filter: Some(filter) }
    }
}

/// What a caller filters by; nothing lets everything through. Errors: `InvalidArgument` naming the place. What arrives is no
/// deeper than the decoder lets it be.
pub fn filter(sent: Option<v1::Filter>) -> Result<Filter> {
    sent.map_or_else(|| Ok(Filter::default()), |sent| read(sent, "filter"))
}

fn read(sent: v1::Filter, place: &str) -> Result<Filter> {
    let list = |name: &str, list: v1::FilterList| {
        let filters = list.filters.into_iter().enumerate();
        filters.map(|(at, filter)| read(filter, &format!("{place}.{name}[{at}]"))).collect::<Result<_>>()
    };
    let nothing = || Error::invalid(place, "", "must be one of all, any, not, field");
    Ok(match sent.filter.ok_or_else(nothing)? {
        filter::Filter::All(filters) => Filter::All(list("and", filters)?),
        filter::Filter::Any(filters) => Filter::Any(list("or", filters)?),
        filter::Filter::Not(filter) => Filter::Not(Box::new(read(*filter, &format!("{place}.not"))?)),
        filter::Filter::Field(v1::FieldCondition { field, operator: sent, value_json: operand }) => {
            let known = OPERATORS.iter().find(|(_, wire)| i32::from(*wire) == sent);
            let unknown = || {
                Error::invalid(
                    format!("{place}.operator"),
                    sent.to_string(),
                    "must be an operator that this node knows",
                )
            };
            Filter::Field(Comparison { field, operator: known.ok_or_else(unknown)?.0, operand })
        }
    })
}

impl From<SortField> for v1::SortField {
    fn from(SortField { field, descending }: SortField) -> Self {
        Self { field, descending }
    }
}

impl From<v1::SortField> for SortField {
    fn from(v1::SortField { field, descending }: v1::SortField) -> Self {
        Self { field, descending }
    }
}

/// The fields of a sort or an index.
pub fn fields<A, B: From<A>>(fields: Vec<A>) -> Vec<B> {
    fields.into_iter().map(Into::into).collect()
}

impl v1::StorageQueryRequest {
    /// What is asked of a namespace.
    pub fn of(namespace: &str, query: Query, explain: bool) -> Self {
        let Query { filter, sort, limit, offset, cursor, attributes } = query;
        let filter = (!filter.is_empty()).then(|| filter.into());
        let (namespace, sort) = (namespace.to_owned(), fields(sort));
        Self { read: None, namespace, filter, sort, limit, offset, cursor, include_metadata: attributes, explain }
    }

    /// What is asked. Errors: `InvalidArgument`.
    pub fn open(self) -> Result<Query> {
        let Self { read: _, namespace: _, filter: sent, sort, limit, offset, cursor, include_metadata, explain: _ } =
            self;
        let attributes = include_metadata;
        Ok(Query { filter: filter(sent)?, sort: fields(sort), limit, offset, cursor, attributes })
    }
}

impl From<(v1::ReadHeader, Found, bool)> for v1::StorageQueryResponse {
    fn from((header, found, explain): (v1::ReadHeader, Found, bool)) -> Self {
        let Found { entries, next_cursor, explanation } = found;
        Self {
            header: Some(header),
            entries: entries.into_iter().map(Into::into).collect(),
            next_cursor,
            explanation: explain.then(|| explanation.into()),
        }
    }
}

impl TryFrom<v1::StorageQueryResponse> for Page<Entry> {
    type Error = Error;

    fn try_from(answer: v1::StorageQueryResponse) -> Result<Self> {
        let v1::StorageQueryResponse { header, entries, next_cursor, explanation: _ } = answer;
        let items = entries.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        Ok(Self { items, next_cursor, revision: expected("header", header)?.revision })
    }
}

impl From<Explanation> for v1::QueryExplanation {
    fn from(explanation: Explanation) -> Self {
        let Explanation { access, sorted, keys_examined, values_examined, returned, building } = explanation;
        let access = match access {
            Access::Scan => query_explanation::Access::Scan(true),
            Access::Keys => query_explanation::Access::KeyRange(true),
            Access::Index { name, fields, ranges, ordered } => {
                query_explanation::Access::Index(v1::IndexAccess { name, fields, ranges, ordered })
            }
        };
        Self { access: Some(access), sorted, keys_examined, values_examined, returned, building }
    }
}

impl TryFrom<v1::QueryExplanation> for Explanation {
    type Error = Error;

    fn try_from(sent: v1::QueryExplanation) -> Result<Self> {
        let v1::QueryExplanation { access, sorted, keys_examined, values_examined, returned, building } = sent;
        let access = match expected("access", access)? {
            query_explanation::Access::Scan(_) => Access::Scan,
            query_explanation::Access::KeyRange(_) => Access::Keys,
            query_explanation::Access::Index(v1::IndexAccess { name, fields, ranges, ordered }) => {
                Access::Index { name, fields, ranges, ordered }
            }
        };
        Ok(Self { access, sorted, keys_examined, values_examined, returned, building })
    }
}

impl From<Index> for v1::IndexInfo {
    fn from(Index { name, fields: of, ready, built }: Index) -> Self {
        Self { name, fields: fields(of), ready, built }
    }
}

impl From<v1::IndexInfo> for Index {
    fn from(v1::IndexInfo { name, fields: of, ready, built }: v1::IndexInfo) -> Self {
        Self { name, fields: fields(of), ready, built }
    }
}

impl From<(v1::ReadHeader, Vec<Index>)> for v1::ListIndexesResponse {
    fn from((header, indexes): (v1::ReadHeader, Vec<Index>)) -> Self {
        Self { header: Some(header), indexes: fields(indexes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_round_trips() {
        let each = Operator::ALL.iter().map(|(operator, _)| Filter::field("a", *operator, "[1.0]")).collect();
        let tree = Filter::All(vec![Filter::Any(each), Filter::field("$key", Operator::Eq, "\"k\"").negated()]);
        assert_eq!(filter(Some(tree.clone().into())), Ok(tree));
        assert_eq!(filter(None), Ok(Filter::default()));
    }

    #[test]
    fn what_says_nothing_is_refused_with_its_place() {
        let unknown = v1::FieldCondition { field: "a".into(), operator: 99, value_json: "1".into() };
        let unknown = v1::Filter { filter: Some(filter::Filter::Field(unknown)) };
        for (inner, place) in [(v1::Filter { filter: None }, "filter.or[0]"), (unknown, "filter.or[0].operator")] {
            let list = v1::FilterList { filters: vec![inner] };
            let sent = v1::Filter { filter: Some(filter::Filter::Any(list)) };
            assert!(
                matches!(filter(Some(sent)), Err(Error::InvalidArgument { field, .. }) if field == place),
                "{place}"
            );
        }
    }
}
