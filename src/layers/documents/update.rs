//! Updates: what becomes of a document.
//!
//! ```json
//! { "processed": true, "stats.seen": 3 }                                  fields that are set, as in the seed
//! { "$set": {"processed": true}, "$inc": {"stats.seen": 1}, "$push": {"log": "x"} }
//! ```
//!
//! Both are changes of fields that do not touch each other, so their order is of no matter. `$set`, `$unset`, `$inc`, `$push`
//! and `$addToSet` (both with `$each`), `$pull` (a value, operators, or a filter on the members of elements), `$min` and
//! `$max` (by the order of a sort). Sums are exact. What cannot be done to a document (a number added to a text) refuses the
//! whole call, with its id.

use std::collections::{BTreeMap, HashSet};

use serde_json::value::RawValue;

use super::{
    super::query::{
        decimal::Decimal,
        order,
        value::{Segment, Value},
    },
    filter::{Element, members},
    path::{self, Path},
    tree::{Tree, Wrong},
};
use crate::{Error, Result, layers::json, limits};

/// Most fields that an update changes.
const CHANGES: usize = 256;

/// An update that was checked.
#[derive(Clone, Debug)]
pub(super) struct Update {
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
struct Change {
    path: Vec<Segment>,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Set(String),
    Unset,
    Add(Decimal),
    /// The elements; whether those that are there already are left out.
    Append(Vec<String>, bool),
    Pull(Element),
    /// The value, if it is less; or if it is greater.
    Least(String),
    Greatest(String),
}

const OPERATORS: &str = "$set, $unset, $inc, $push, $pull, $addToSet, $min, $max";

impl Update {
    /// Reads the JSON text of an update. Errors: `InvalidArgument` naming the place.
    pub(super) fn parse(text: &str) -> Result<Self> {
        json::check("update", text)?;
        let all = members("update", text)?;
        let mut update = Self { changes: Vec::new() };
        if all.keys().any(|name| name.starts_with('$')) {
            for (operator, raw) in all {
                let place = format!("update.{operator}");
                if !operator.starts_with('$') {
                    return Err(Error::invalid(place, "", "must not stand beside operators: put it into $set"));
                }
                update.operator(&operator, raw, &place)?;
            }
        } else {
            for (name, raw) in all {
                update.add(&format!("update.{name}"), &name, What::Set(raw.get().into()))?;
            }
        }
        if update.changes.is_empty() {
            return Err(Error::invalid("update", text, "must change something"));
        }
        update.check_apart()?;
        Ok(update)
    }

    fn operator(&mut self, operator: &str, raw: &RawValue, place: &str) -> Result<()> {
        if operator == "$unset" && raw.get().starts_with('[') {
            let names: Vec<String> = serde_json::from_str(raw.get())
                .map_err(|_| Error::invalid(place, raw.get(), "must be a list of names, or an object"))?;
            return names.iter().try_for_each(|name| self.add(place, name, What::Unset));
        }
        for (name, raw) in members(place, raw.get())? {
            let place = format!("{place}.{name}");
            let text = raw.get();
            let what = match operator {
                "$set" => What::Set(text.into()),
                "$unset" => What::Unset,
                "$inc" => match Value::read(text) {
                    Some(Value::Number(number)) => What::Add(number),
                    _ => return Err(Error::invalid(place, text, "must be a number")),
                },
                "$push" => What::Append(each(text, &place)?, false),
                "$addToSet" => What::Append(each(text, &place)?, true),
                "$pull" => What::Pull(Element::parse(text, &place)?),
                "$min" => What::Least(text.into()),
                "$max" => What::Greatest(text.into()),
                unknown => {
                    let rule = format!("is no operator of an update; these are: {OPERATORS}");
                    return Err(Error::invalid("update", unknown, rule));
                }
            };
            self.add(&place, &name, what)?;
        }
        Ok(())
    }

    fn add(&mut self, place: &str, name: &str, what: What) -> Result<()> {
        if self.changes.len() >= CHANGES {
            return Err(Error::invalid(place, "", format!("an update changes at most {CHANGES} fields")));
        }
        match path::parse(place, name)? {
            Path::Of(path) => {
                self.changes.push(Change { path, what });
                Ok(())
            }
            Path::Id | Path::Known(_) => Err(Error::invalid(place, name, "is not a field that can be changed")),
        }
    }

    /// That no change touches what another changes.
    fn check_apart(&self) -> Result<()> {
        let mut paths: Vec<&[Segment]> = self.changes.iter().map(|change| change.path.as_slice()).collect();
        paths.sort_by_key(|path| path.iter().map(Segment::name).collect::<Vec<_>>());
        match paths.windows(2).find(|pair| matches!(pair, [one, other] if other.starts_with(one))) {
            Some([one, other]) => {
                let rule =
                    format!("must not be changed together with {}, which is the same or part of it", path::joined(one));
                Err(Error::invalid("update", path::joined(other), rule))
            }
            _ => Ok(()),
        }
    }

    /// What it makes of a document, whose `id` is named if it cannot be. Errors: `InvalidArgument`.
    pub(super) fn apply(&self, id: &str, text: &str) -> Result<String> {
        let mut tree = Tree::text(text);
        for Change { path, what } in &self.changes {
            let wrong = |rule: String| {
                Error::invalid(format!("update.{}", path::joined(path)), "", format!("{rule} (in document {id})"))
            };
            what.apply(&mut tree, path).map_err(|why| match why {
                Unfit::Path(why) => wrong(format!("cannot be reached: {why}")),
                Unfit::Value(rule) => wrong(rule.into()),
            })?;
        }
        Ok(tree.to_text())
    }
}

/// Why a change cannot be made.
enum Unfit {
    Path(Wrong),
    Value(&'static str),
}

impl From<Wrong> for Unfit {
    fn from(wrong: Wrong) -> Self {
        Self::Path(wrong)
    }
}

impl What {
    fn apply(&self, tree: &mut Tree, path: &[Segment]) -> Result<(), Unfit> {
        match self {
            Self::Set(text) => *tree.make(path)? = Tree::text(text.clone()),
            Self::Unset => tree.remove(path)?,
            Self::Add(number) => {
                let sum = match tree.get_mut(path)? {
                    None => number.to_json(),
                    Some(there) => {
                        let text = there.to_text();
                        let Some(Value::Number(before)) = Value::read(&text) else {
                            return Err(Unfit::Value("must be a number, which it is not"));
                        };
                        let sum = before.plus(number);
                        sum.ok_or(Unfit::Value("would become a number of more than 1,000 digits"))?.to_json()
                    }
                };
                *tree.make(path)? = Tree::text(sum);
            }
            Self::Append(elements, once) => {
                if tree.get_mut(path)?.is_none() {
                    *tree.make(path)? = Tree::text("[]");
                }
                let list = tree.make(path)?.list_mut()?.ok_or(Unfit::Value("must be a list, which it is not"))?;
                let same = |text: &str| Value::read(text).as_ref().map(path::canonical);
                let mut there: HashSet<_> =
                    if *once { list.iter().map(|element| same(&element.to_text())).collect() } else { HashSet::new() };
                for element in elements {
                    if !*once || there.insert(same(element)) {
                        list.push(Tree::text(element.clone()));
                    }
                }
            }
            Self::Pull(unwanted) => {
                if let Some(there) = tree.get_mut(path)? {
                    let list = there.list_mut()?.ok_or(Unfit::Value("must be a list, which it is not"))?;
                    list.retain(|element| {
                        let text = element.to_text();
                        !Value::read(&text).is_some_and(|element| unwanted.holds(&element))
                    });
                }
            }
            Self::Least(text) => replace_if(tree, path, text, |there, new| new < there)?,
            Self::Greatest(text) => replace_if(tree, path, text, |there, new| new > there)?,
        }
        Ok(())
    }
}

fn replace_if(
    tree: &mut Tree,
    path: &[Segment],
    text: &str,
    wanted: impl Fn(&[u8], &[u8]) -> bool,
) -> Result<(), Unfit> {
    let place = |text: &str| order::component(Value::read(text).as_ref(), false, None).0;
    let replace = match tree.get_mut(path)? {
        None => true,
        Some(there) => wanted(&place(&there.to_text()), &place(text)),
    };
    if replace {
        *tree.make(path)? = Tree::text(text);
    }
    Ok(())
}

/// What is appended: a value, or those of `$each`.
fn each(text: &str, place: &str) -> Result<Vec<String>> {
    if !text.starts_with('{') {
        return Ok(vec![text.into()]);
    }
    let mut operators: BTreeMap<String, &RawValue> = members(place, text)?;
    let Some(elements) = operators.remove("$each") else {
        return match operators.keys().find(|name| name.starts_with('$')) {
            Some(unknown) => Err(Error::invalid(place, unknown, "is not known here, only $each is")),
            None => Ok(vec![text.into()]),
        };
    };
    if let Some(unknown) = operators.keys().next() {
        return Err(Error::invalid(place, unknown, "must not stand beside $each"));
    }
    let elements: Vec<&RawValue> = serde_json::from_str(elements.get())
        .map_err(|_| Error::invalid(format!("{place}.$each"), elements.get(), "must be a list"))?;
    if elements.len() > limits::FILTER_LIST {
        let rule = format!("must have at most {} elements", limits::FILTER_LIST);
        return Err(Error::invalid(format!("{place}.$each"), format!("{} elements", elements.len()), rule));
    }
    Ok(elements.into_iter().map(|element| element.get().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updated(text: &str, update: &str) -> String {
        Update::parse(update).unwrap().apply("d", text).unwrap()
    }

    #[test]
    fn every_operator_does_what_mongodb_says() {
        for (text, update, becomes) in [
            (r#"{"a":1,"b":2}"#, r#"{"b":3,"c.d":4}"#, r#"{"a":1,"b":3,"c":{"d":4}}"#),
            (r#"{"a":1}"#, r#"{"$set":{"a":{"x":1}}}"#, r#"{"a":{"x":1}}"#),
            (r#"{"a":1,"b":{"c":1,"d":2}}"#, r#"{"$unset":{"b.c":"","x":1}}"#, r#"{"a":1,"b":{"d":2}}"#),
            (r#"{"a":1,"b":2}"#, r#"{"$unset":["a"]}"#, r#"{"b":2}"#),
            (r#"{"n":9007199254740993}"#, r#"{"$inc":{"n":1,"m":-2.5}}"#, r#"{"n":9007199254740994,"m":-2.5}"#),
            (r#"{"l":[1]}"#, r#"{"$push":{"l":2,"k":[3]}}"#, r#"{"l":[1,2],"k":[[3]]}"#),
            (r#"{"l":[1]}"#, r#"{"$push":{"l":{"$each":[2,{"a":1}]}}}"#, r#"{"l":[1,2,{"a":1}]}"#),
            (r#"{"l":[1,"a"]}"#, r#"{"$addToSet":{"l":{"$each":[1.0,"b","b"]}}}"#, r#"{"l":[1,"a","b"]}"#),
            (r#"{"l":[1,2,1,"x"]}"#, r#"{"$pull":{"l":1}}"#, r#"{"l":[2,"x"]}"#),
            (r#"{"l":[1,5,9]}"#, r#"{"$pull":{"l":{"$gte":5}}}"#, r#"{"l":[1]}"#),
            (r#"{"l":[{"a":1,"b":2},{"a":2}]}"#, r#"{"$pull":{"l":{"a":1}}}"#, r#"{"l":[{"a":2}]}"#),
            (r#"{"a":5,"b":5}"#, r#"{"$min":{"a":3,"b":7,"c":1}}"#, r#"{"a":3,"b":5,"c":1}"#),
            (r#"{"a":5,"b":5}"#, r#"{"$max":{"a":3,"b":7,"c":1}}"#, r#"{"a":5,"b":7,"c":1}"#),
            (r#"{"l":[{"n":1},{"n":2}]}"#, r#"{"$inc":{"l.1.n":10}}"#, r#"{"l":[{"n":1},{"n":12}]}"#),
        ] {
            assert_eq!(updated(text, update), becomes, "{text} {update}");
        }
    }

    #[test]
    fn what_is_no_update_is_refused_with_its_place() {
        let many = (0..=CHANGES).map(|n| format!("\"f{n}\":1")).collect::<Vec<_>>().join(",");
        for (text, place) in [
            ("{}", "update"),
            ("[]", "update"),
            ("{\"$set\":{}}", "update"),
            ("{\"$set\":1}", "update.$set"),
            ("{\"$rename\":{\"a\":\"b\"}}", "update"),
            ("{\"$set\":{\"a\":1},\"b\":2}", "update.b"),
            ("{\"_id\":1}", "update._id"),
            ("{\"$set\":{\"_owner\":1}}", "update.$set._owner"),
            ("{\"$inc\":{\"a\":\"1\"}}", "update.$inc.a"),
            ("{\"$push\":{\"a\":{\"$each\":1}}}", "update.$push.a.$each"),
            ("{\"$push\":{\"a\":{\"$slice\":1}}}", "update.$push.a"),
            ("{\"$pull\":{\"a\":{\"$like\":1}}}", "update.$pull.a.$like"),
            ("{\"$set\":{\"a.b\":1},\"$inc\":{\"a\":1}}", "update"),
            ("{\"a\":1,\"a.b\":1}", "update"),
            (&format!("{{{many}}}"), "update.f99"),
        ] {
            match Update::parse(text) {
                Err(Error::InvalidArgument { field, .. }) => assert_eq!(field, place, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_cannot_be_done_to_a_document_names_it() {
        for (text, update, rule) in [
            (r#"{"a":"x"}"#, r#"{"$inc":{"a":1}}"#, "must be a number"),
            (r#"{"a":1}"#, r#"{"$push":{"a":1}}"#, "must be a list"),
            (r#"{"a":1}"#, r#"{"$pull":{"a":1}}"#, "must be a list"),
            (r#"{"a":1}"#, r#"{"a.b":1}"#, "in its way"),
            (r#"{"a":[1]}"#, r#"{"a.b":1}"#, "no number of an element"),
            (r#"{"a":1e2000}"#, r#"{"$inc":{"a":1}}"#, "1,000 digits"),
        ] {
            let error = Update::parse(update).unwrap().apply("d7", text).unwrap_err().to_string();
            assert!(error.contains(rule) && error.contains("document d7"), "{error}");
        }
    }
}
