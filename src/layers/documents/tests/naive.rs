//! An evaluator that goes through everything, over `serde_json` values: it shares nothing with the real one.

use std::cmp::Ordering;

use serde_json::Value as Json;

use crate::model::query::SortField;

/// The values under a path; `None` where an object lacks a member.
fn under<'a>(value: &'a Json, path: &[&str], into: &mut Vec<Option<&'a Json>>) {
    let Some((first, rest)) = path.split_first() else { return into.push(Some(value)) };
    match value {
        Json::Object(members) => match members.get(*first) {
            Some(member) => under(member, rest, into),
            None => into.push(None),
        },
        Json::Array(elements) => {
            if let Some(element) = first.parse::<usize>().ok().and_then(|at| elements.get(at)) {
                under(element, rest, into);
            }
            elements.iter().filter(|element| element.is_object()).for_each(|element| under(element, path, into));
        }
        _ => {}
    }
}

fn values<'a>(document: &'a Json, path: &str) -> Vec<Option<&'a Json>> {
    let mut found = Vec::new();
    under(document, &path.split('.').collect::<Vec<_>>(), &mut found);
    if found.is_empty() { vec![None] } else { found }
}

fn rank(value: &Json) -> u8 {
    match value {
        Json::Null => 0,
        Json::Bool(_) => 1,
        Json::Number(_) => 2,
        Json::String(_) => 3,
        Json::Array(_) => 4,
        Json::Object(_) => 5,
    }
}

fn relate(left: &Json, right: &Json) -> Option<Ordering> {
    match (left, right) {
        (Json::Bool(left), Json::Bool(right)) => Some(left.cmp(right)),
        (Json::Number(left), Json::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => left.as_f64().partial_cmp(&right.as_f64()),
        },
        (Json::String(left), Json::String(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
        _ => None,
    }
}

fn equal(left: &Json, right: &Json) -> bool {
    relate(left, right).map_or(left == right, |order| order == Ordering::Equal)
}

/// Whether something is true of a value, or if they count of an element of it.
fn any_of(values: &[Option<&Json>], elements: bool, holds: impl Fn(&Json) -> bool) -> bool {
    values.iter().any(|value| {
        let value = value.unwrap_or(&Json::Null);
        holds(value) || elements && value.as_array().is_some_and(|elements| elements.iter().any(&holds))
    })
}

fn operator(name: &str, operand: &Json, values: &[Option<&Json>], elements: bool) -> bool {
    let any = |values: &[Option<&Json>], holds: &dyn Fn(&Json) -> bool| any_of(values, elements, holds);
    let relates = |wanted: &dyn Fn(Ordering) -> bool| any(values, &|value| relate(value, operand).is_some_and(wanted));
    let among = |value: &Json| operand.as_array().unwrap().iter().any(|one| equal(one, value));
    match name {
        "$eq" => any(values, &|value| equal(value, operand)),
        "$ne" => !any(values, &|value| equal(value, operand)),
        "$gt" => relates(&|order| order.is_gt()),
        "$gte" => relates(&|order| order.is_ge()),
        "$lt" => relates(&|order| order.is_lt()),
        "$lte" => relates(&|order| order.is_le()),
        "$in" => any(values, &among),
        "$nin" => !any(values, &among),
        "$exists" => values.iter().any(Option::is_some) == operand.as_bool().unwrap(),
        "$size" => {
            let size = operand.as_u64().unwrap() as usize;
            values.iter().flatten().any(|value| value.as_array().is_some_and(|elements| elements.len() == size))
        }
        "$startsWith" => {
            any(values, &|value| value.as_str().is_some_and(|text| text.starts_with(operand.as_str().unwrap())))
        }
        "$regex" => any(values, &|value| {
            // Only what these tests ask.
            value.as_str().is_some_and(|text| text.starts_with(operand.as_str().unwrap().trim_start_matches('^')))
        }),
        "$not" => !condition(operand, values, elements),
        "$elemMatch" => values.iter().flatten().filter_map(|value| value.as_array()).flatten().any(|element| {
            match operand.as_object().unwrap().keys().all(|name| name.starts_with('$')) {
                true => condition(operand, &[Some(element)], false),
                false => element.is_object() && matches("", element, operand),
            }
        }),
        other => panic!("{other} is not known here"),
    }
}

fn condition(condition: &Json, values: &[Option<&Json>], elements: bool) -> bool {
    match condition.as_object() {
        Some(operators) if operators.keys().any(|name| name.starts_with('$')) => {
            operators.iter().all(|(name, operand)| operator(name, operand, values, elements))
        }
        _ => operator("$eq", condition, values, elements),
    }
}

pub(super) fn matches(id: &str, document: &Json, filter: &Json) -> bool {
    filter.as_object().unwrap().iter().all(|(name, inner)| {
        let list = || inner.as_array().unwrap().iter();
        match name.as_str() {
            "$and" => list().all(|one| matches(id, document, one)),
            "$or" => list().any(|one| matches(id, document, one)),
            "$nor" => !list().any(|one| matches(id, document, one)),
            "$not" => !matches(id, document, inner),
            "_id" => condition(inner, &[Some(&Json::from(id))], true),
            path => condition(inner, &values(document, path), true),
        }
    })
}

/// Where a value stands among others: an empty list is before all.
fn place(left: Option<&Json>, right: Option<&Json>) -> Ordering {
    match (left, right) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(left), Some(right)) => relate(left, right).unwrap_or_else(|| rank(left).cmp(&rank(right))),
    }
}

/// By what a document is sorted; the inner `None` is an empty list.
fn sorted_by<'a>(document: &'a Json, path: &str, descending: bool) -> Option<&'a Json> {
    let mut all = Vec::new();
    for value in values(document, path) {
        match value {
            Some(Json::Array(elements)) if elements.is_empty() => all.push(None),
            Some(Json::Array(elements)) => all.extend(elements.iter().map(Some)),
            value => all.push(Some(value.unwrap_or(&Json::Null))),
        }
    }
    let chosen = all.into_iter().reduce(|one, other| {
        let order = place(one, other);
        if (order.is_lt()) == descending && order.is_ne() { other } else { one }
    });
    chosen.unwrap_or(None)
}

/// What a query is to answer: all ids, in order.
pub(super) fn found(documents: &[(String, Json)], filter: &Json, sort: &[SortField]) -> Vec<String> {
    let mut wanted: Vec<&(String, Json)> =
        documents.iter().filter(|(id, document)| matches(id, document, filter)).collect();
    wanted.sort_by(|(left_id, left), (right_id, right)| {
        for SortField { field, descending } in sort {
            let order = match field.as_str() {
                "_id" => left_id.cmp(right_id),
                // All are of one service.
                "_owner" => Ordering::Equal,
                field => place(sorted_by(left, field, *descending), sorted_by(right, field, *descending)),
            };
            match if *descending { order.reverse() } else { order } {
                Ordering::Equal => {}
                order => return order,
            }
        }
        left_id.cmp(right_id)
    });
    wanted.into_iter().map(|(id, _)| id.clone()).collect()
}
