//! An evaluator that goes through everything, over values of its own: it shares nothing with the real one.

use std::cmp::Ordering;

use super::{Filter, Operator, SortField};

/// A JSON value whose numbers are tenths.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Tenths(i128),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(bool) => bool.to_string(),
            Self::Tenths(tenths) if tenths % 10 == 0 => (tenths / 10).to_string(),
            Self::Tenths(tenths) => format!("{tenths}e-1"),
            Self::Text(text) => serde_json::to_string(text).unwrap(),
            Self::List(items) => format!("[{}]", items.iter().map(Self::text).collect::<Vec<_>>().join(",")),
            Self::Object(members) => {
                let member = |(name, value): &(String, Self)| format!("\"{name}\": {}", value.text());
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |value, name| match value {
            Self::Object(members) => members.iter().find(|(member, _)| member == name).map(|(_, value)| value),
            Self::List(items) => name.parse::<usize>().ok().and_then(|at| items.get(at)),
            _ => None,
        })
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Tenths(_) => 2,
            Self::Text(_) => 3,
            Self::List(_) => 4,
            Self::Object(_) => 5,
        }
    }

    /// How two of a type relate; `None` for different types, and for what has no order.
    fn relate(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(left), Self::Bool(right)) => Some(left.cmp(right)),
            (Self::Tenths(left), Self::Tenths(right)) => Some(left.cmp(right)),
            (Self::Text(left), Self::Text(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
            _ => None,
        }
    }
}

fn field<'a>(key: &'a Json, value: Option<&'a Json>, name: &str) -> Option<&'a Json> {
    match name {
        "$key" => Some(key),
        "$value" => value,
        path => value.and_then(|value| value.at(path)),
    }
}

/// A filter with operands that are not texts yet.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    All(Vec<Tree>),
    Any(Vec<Tree>),
    Not(Box<Tree>),
    Is(&'static str, Operator, Json),
}

impl Tree {
    pub(super) fn filter(&self) -> Filter {
        match self {
            Self::All(all) => Filter::All(all.iter().map(Self::filter).collect()),
            Self::Any(any) => Filter::Any(any.iter().map(Self::filter).collect()),
            Self::Not(tree) => tree.filter().negated(),
            Self::Is(field, operator, operand) => Filter::field(*field, *operator, operand.text()),
        }
    }

    fn holds(&self, key: &Json, value: Option<&Json>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|tree| tree.holds(key, value)),
            Self::Any(any) => any.iter().any(|tree| tree.holds(key, value)),
            Self::Not(tree) => !tree.holds(key, value),
            Self::Is(name, operator, operand) => {
                field(key, value, name).is_some_and(|found| holds(found, *operator, operand))
            }
        }
    }
}

fn holds(found: &Json, operator: Operator, operand: &Json) -> bool {
    let relation = found.relate(operand);
    let among = || matches!(operand, Json::List(items) if items.contains(found));
    match operator {
        Operator::Eq => found == operand,
        Operator::Ne => found != operand,
        Operator::Gt => relation == Some(Ordering::Greater),
        Operator::Gte => matches!(relation, Some(Ordering::Greater | Ordering::Equal)),
        Operator::Lt => relation == Some(Ordering::Less),
        Operator::Lte => matches!(relation, Some(Ordering::Less | Ordering::Equal)),
        Operator::Contains => match (found, operand) {
            (Json::Text(found), Json::Text(operand)) => found.contains(operand.as_str()),
            (Json::List(items), operand) => items.contains(operand),
            _ => false,
        },
        Operator::StartsWith => {
            matches!((found, operand), (Json::Text(found), Json::Text(operand)) if found.starts_with(operand))
        }
        Operator::EndsWith => {
            matches!((found, operand), (Json::Text(found), Json::Text(operand)) if found.ends_with(operand))
        }
        Operator::In => among(),
        Operator::Nin => !among(),
    }
}

/// What a query is to answer: all keys, in order.
pub(super) fn naive(documents: &[(String, Option<Json>)], tree: &Tree, sort: &[SortField]) -> Vec<String> {
    let mut wanted: Vec<(Json, Option<&Json>)> = documents
        .iter()
        .map(|(key, value)| (Json::Text(key.clone()), value.as_ref()))
        .filter(|(key, value)| tree.holds(key, *value))
        .collect();
    wanted.sort_by(|(left_key, left), (right_key, right)| {
        for SortField { field: name, descending } in sort {
            let order = match (field(left_key, *left, name), field(right_key, *right, name)) {
                (None, None) => Ordering::Equal,
                (None, Some(_)) => return Ordering::Greater,
                (Some(_), None) => return Ordering::Less,
                (Some(left), Some(right)) => left.relate(right).unwrap_or_else(|| left.rank().cmp(&right.rank())),
            };
            match if *descending { order.reverse() } else { order } {
                Ordering::Equal => {}
                order => return order,
            }
        }
        left_key.relate(right_key).unwrap()
    });
    wanted.into_iter().map(|(key, _)| if let Json::Text(key) = key { key } else { unreachable!() }).collect()
}
