//! Filters that were checked, and their evaluation.

use serde_json::value::RawValue;

use super::{Document, Field, value::Value};
use crate::{
    Error, Result,
    layers::json,
    limits,
    model::{
        filter::{Comparison, Filter, Operator},
        transaction::Relation,
    },
};

/// A filter that was checked.
#[derive(Clone, Debug)]
pub struct Matcher {
    root: Node,
}

#[derive(Clone, Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
}

/// A condition on a field.
#[derive(Clone, Debug)]
pub struct Test {
    /// The field.
    pub field: Field,
    /// What must be true of it.
    pub check: Check,
}

/// What must be true of a field.
#[derive(Clone, Debug)]
pub enum Check {
    /// It is equal.
    Equal(Value<'static>),
    /// It is not equal.
    NotEqual(Value<'static>),
    /// It is of the type of this text, number or truth value, and relates so to it.
    Relates(Relation, Value<'static>),
    /// It is a text with this in it, or a list with this as an element.
    Contains(Value<'static>),
    /// It is a text that begins so.
    StartsWith(Vec<u8>),
    /// It is a text that ends so.
    EndsWith(Vec<u8>),
    /// It is equal to one of these.
    In(Vec<Value<'static>>),
    /// It is equal to none of these.
    NotIn(Vec<Value<'static>>),
}

impl Matcher {
    /// Checks a filter. Errors: `InvalidArgument` naming the place in it.
    pub fn of(filter: &Filter) -> Result<Self> {
        filter.check()?;
        Ok(Self { root: node(filter, "filter")? })
    }

    /// Whether a document is wanted.
    pub fn matches(&self, document: &Document<'_>) -> bool {
        self.root.holds(document)
    }

    /// What holds of every document that is wanted.
    pub fn conjuncts(&self) -> Vec<&Test> {
        let mut found = Vec::new();
        self.root.conjuncts(&mut found);
        found
    }

    /// Whether it says something of attributes.
    pub fn asks_for_attributes(&self) -> bool {
        self.root.asks_for_attributes()
    }
}

impl Node {
    fn holds(&self, document: &Document<'_>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.holds(document)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(document)),
            Self::Not(node) => !node.holds(document),
            Self::Test(Test { field, check }) => field.of(document).is_some_and(|found| check.holds(&found)),
        }
    }

    fn conjuncts<'a>(&'a self, into: &mut Vec<&'a Test>) {
        match self {
            Self::All(nodes) => nodes.iter().for_each(|node| node.conjuncts(into)),
            Self::Test(test) => into.push(test),
            Self::Any(_) | Self::Not(_) => {}
        }
    }

    fn asks_for_attributes(&self) -> bool {
        match self {
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().any(Self::asks_for_attributes),
            Self::Not(node) => node.asks_for_attributes(),
            Self::Test(test) => matches!(test.field, Field::Attributes(_)),
        }
    }
}

impl Check {
    /// Whether it is true of what was found.
    pub fn holds(&self, found: &Value<'_>) -> bool {
        match self {
            Self::Equal(wanted) => found.equals(wanted),
            Self::NotEqual(unwanted) => !found.equals(unwanted),
            Self::Relates(relation, bound) => match (found, bound) {
                (Value::Bool(found), Value::Bool(bound)) => relation.holds(found, bound),
                (Value::Number(found), Value::Number(bound)) => relation.holds(found, bound),
                (Value::Text(found), Value::Text(bound)) => relation.holds(found.as_ref(), bound.as_ref()),
                _ => false,
            },
            Self::Contains(wanted) => match (found, wanted) {
                (Value::Text(found), Value::Text(wanted)) => contains(found, wanted),
                (Value::List(found), wanted) => {
                    Value::elements(found).is_some_and(|all| all.iter().flatten().any(|element| element.equals(wanted)))
                }
                _ => false,
            },
            Self::StartsWith(wanted) => matches!(found, Value::Text(found) if found.starts_with(wanted)),
            Self::EndsWith(wanted) => matches!(found, Value::Text(found) if found.ends_with(wanted)),
            Self::In(wanted) => wanted.iter().any(|wanted| found.equals(wanted)),
            Self::NotIn(unwanted) => !unwanted.iter().any(|unwanted| found.equals(unwanted)),
        }
    }
}

fn contains(found: &[u8], wanted: &[u8]) -> bool {
    match (std::str::from_utf8(found), std::str::from_utf8(wanted)) {
        (Ok(found), Ok(wanted)) => found.contains(wanted),
        // Half of a surrogate pair is in one of them.
        _ => wanted.is_empty() || found.windows(wanted.len()).any(|window| window == wanted),
    }
}

fn node(filter: &Filter, place: &str) -> Result<Node> {
    let list = |name: &str, filters: &[Filter]| {
        let filters = filters.iter().enumerate();
        filters.map(|(at, filter)| node(filter, &format!("{place}.{name}[{at}]"))).collect::<Result<_>>()
    };
    Ok(match filter {
        Filter::All(filters) => Node::All(list("and", filters)?),
        Filter::Any(filters) if filters.is_empty() => {
            return Err(Error::invalid(format!("{place}.or"), "", "must have at least one condition"));
        }
        Filter::Any(filters) => Node::Any(list("or", filters)?),
        Filter::Not(filter) => Node::Not(Box::new(node(filter, &format!("{place}.not"))?)),
        Filter::Field(comparison) => Node::Test(test(comparison, place)?),
    })
}

fn test(comparison: &Comparison, place: &str) -> Result<Test> {
    let Comparison { field, operator, operand } = comparison;
    let field = Field::parse(&format!("{place}.field"), field)?;
    Ok(Test { field, check: check(*operator, operand, &format!("{place}.value"))? })
}

/// What an operator says with an operand, a JSON text. Errors: `InvalidArgument` naming `place`.
pub fn check(operator: Operator, operand: &str, place: &str) -> Result<Check> {
    json::check(place, operand)?;
    let wrong = |rule: &str| Error::invalid(place, operand, format!("{rule} for the operator {operator}"));
    let beyond = || Error::invalid(place, operand, "must not have numbers with exponents beyond 2^60");
    let value = Value::read(operand).ok_or_else(beyond)?.into_owned();
    let text = |value: Value<'static>| match value {
        Value::Text(text) => Ok(text.into_owned()),
        _ => Err(wrong("must be a string")),
    };
    let relates = |relation, value: Value<'static>| match value {
        Value::Bool(_) | Value::Number(_) | Value::Text(_) => Ok(Check::Relates(relation, value)),
        _ => Err(wrong("must be a number, a string, true or false")),
    };
    let items = || {
        let items: Vec<&RawValue> = serde_json::from_str(operand).map_err(|_| wrong("must be a list"))?;
        if items.len() > limits::FILTER_LIST {
            let rule = format!("must have at most {} items", limits::FILTER_LIST);
            return Err(Error::invalid(place, format!("{} items", items.len()), rule));
        }
        let items = items.into_iter().map(|item| Value::read(item.get()).map(Value::into_owned).ok_or_else(beyond));
        items.collect::<Result<Vec<_>>>()
    };
    Ok(match operator {
        Operator::Eq => Check::Equal(value),
        Operator::Ne => Check::NotEqual(value),
        Operator::Gt => relates(Relation::Greater, value)?,
        Operator::Gte => relates(Relation::GreaterOrEqual, value)?,
        Operator::Lt => relates(Relation::Less, value)?,
        Operator::Lte => relates(Relation::LessOrEqual, value)?,
        Operator::Contains if value.is_scalar() => Check::Contains(value),
        Operator::Contains => return Err(wrong("must be neither a list nor an object")),
        Operator::StartsWith => Check::StartsWith(text(value)?),
        Operator::EndsWith => Check::EndsWith(text(value)?),
        Operator::In => Check::In(items()?),
        Operator::Nin => Check::NotIn(items()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(value: &str, field: &str, operator: &str, operand: &str) -> bool {
        let filter = Filter::field(field, operator.parse().unwrap(), operand);
        let document = Document { key: "user:1", value: Some(value), attributes: Some(r#"{"by":"ada"}"#) };
        Matcher::of(&filter).unwrap().matches(&document)
    }

    #[test]
    fn every_operator_means_what_it_says() {
        let value =
            r#"{"n":5,"big":9007199254740993,"t":"abc","e":"é","b":true,"z":null,"l":[1,"x",null,[2]],"o":{"a":1}}"#;
        for (field, operator, operand) in [
            ("n", "eq", "5.0"),
            ("n", "ne", "6"),
            ("n", "ne", "\"5\""),
            ("n", "gt", "4.99"),
            ("n", "gte", "5"),
            ("n", "lt", "5.000000000000000000001"),
            ("n", "lte", "5"),
            ("big", "gt", "9007199254740992"),
            ("big", "ne", "9007199254740992"),
            ("t", "gt", "\"abb\""),
            ("t", "lt", "\"abca\""),
            ("e", "gt", "\"z\""),
            ("b", "gt", "false"),
            ("b", "lte", "true"),
            ("z", "eq", "null"),
            ("t", "contains", "\"b\""),
            ("t", "contains", "\"\""),
            ("l", "contains", "1.0"),
            ("l", "contains", "\"x\""),
            ("l", "contains", "null"),
            ("l", "eq", "[1,\"x\",null,[2]]"),
            ("o", "eq", "{\"a\":1.0}"),
            ("t", "startsWith", "\"ab\""),
            ("t", "endsWith", "\"bc\""),
            ("t", "in", "[1,\"abc\"]"),
            ("t", "nin", "[1,\"ab\"]"),
            ("t", "nin", "[]"),
            ("o.a", "eq", "1"),
            ("l.3.0", "eq", "2"),
            ("$key", "startsWith", "\"user:\""),
            ("$value", "ne", "5"),
            ("$metadata.by", "eq", "\"ada\""),
        ] {
            assert!(holds(value, field, operator, operand), "{field} {operator} {operand}");
        }
        for (field, operator, operand) in [
            ("n", "eq", "\"5\""),
            ("n", "gt", "\"4\""),
            ("n", "lt", "true"),
            ("n", "contains", "5"),
            ("n", "contains", "\"5\""),
            ("n", "startsWith", "\"5\""),
            ("big", "eq", "9007199254740992"),
            ("big", "lte", "9007199254740992"),
            ("t", "contains", "5"),
            ("l", "contains", "2"),
            ("l", "gt", "0"),
            ("t", "in", "[]"),
            ("missing", "eq", "null"),
            ("missing", "ne", "1"),
            ("missing", "nin", "[1]"),
            ("by", "eq", "\"ada\""),
        ] {
            assert!(!holds(value, field, operator, operand), "{field} {operator} {operand}");
        }
    }

    #[test]
    fn trees_are_evaluated() {
        let at = |text: &str| {
            let document = Document { key: "k", value: Some(r#"{"a":1,"b":2}"#), attributes: None };
            Matcher::of(&Filter::parse(text).unwrap()).unwrap().matches(&document)
        };
        let (yes, no) = (r#"{"field":"a","operator":"eq","value":1}"#, r#"{"field":"b","operator":"eq","value":1}"#);
        let missing = r#"{"field":"c","operator":"eq","value":1}"#;
        assert!(at("[]") && at(yes) && !at(no));
        assert!(at(&format!("[{yes},{{\"not\":{no}}}]")) && !at(&format!("[{yes},{no}]")));
        assert!(at(&format!("{{\"or\":[{no},{yes}]}}")) && !at(&format!("{{\"or\":[{no},{missing}]}}")));
        assert!(at(&format!("{{\"not\":{missing}}}")), "not turns round whatever it holds");
    }

    #[test]
    fn bytes_have_a_key_only() {
        let document = Document { key: "k", value: None, attributes: None };
        let at = |text: &str| Matcher::of(&Filter::parse(text).unwrap()).unwrap().matches(&document);
        assert!(at(r#"{"field":"$key","operator":"eq","value":"k"}"#));
        assert!(!at(r#"{"field":"$value","operator":"ne","value":1}"#));
        assert!(!at(r#"{"field":"$metadata.a","operator":"ne","value":1}"#));
    }

    #[test]
    fn an_operand_that_makes_no_sense_is_refused_with_its_place() {
        let many = format!("[{}]", vec!["1"; limits::FILTER_LIST + 1].join(","));
        for (operator, operand) in [
            ("gt", "null"),
            ("gte", "[1]"),
            ("lt", "{}"),
            ("lte", "null"),
            ("contains", "[1]"),
            ("contains", "{}"),
            ("startsWith", "1"),
            ("endsWith", "null"),
            ("in", "1"),
            ("nin", "\"a\""),
            ("in", &many),
            ("eq", "1e99999999999999999999"),
            ("in", "[1e99999999999999999999]"),
            ("eq", "nul"),
            ("eq", ""),
        ] {
            let filter = Filter::default().and(Filter::field("a", operator.parse().unwrap(), operand));
            match Matcher::of(&filter) {
                Err(Error::InvalidArgument { field, .. }) => {
                    assert_eq!(field, "filter.and[0].value", "{operator} {operand}")
                }
                other => panic!("{operator} {operand}: {other:?}"),
            }
        }
        assert!(Matcher::of(&Filter::Any(vec![])).is_err());
    }
}
