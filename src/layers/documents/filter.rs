//! Filters as MongoDB writes them: what they mean, and what of them an index can serve.
//!
//! ```json
//! { "status": "open", "price": {"$gte": 10, "$lt": 20}, "$or": [ {"tags": "new"}, {"seller.name": {"$regex": "^A"}} ] }
//! ```
//!
//! * **A condition** is true of a document if it is true of one of the values under its path, or of an element of one that is
//!   a list ([`path`]). `$size`, `$elemMatch` and `$contains` look at the list itself.
//! * **Nothing is as null**: `{"a": null}` is true where there is no `a`. `$ne`, `$nin` and `$not` turn round what they are
//!   the opposite of, so they are true there, too.
//! * **Types are not converted**: a number is equal to no text, and neither less nor greater. Numbers are compared exactly.
//! * **Regular expressions** run in time that grows with the text, whatever they are; look-around and references back, which
//!   cannot, are refused.

mod read;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::value::RawValue;

use self::read::Reader;
use super::{
    super::query::{
        Field,
        filter::{self as query, Check},
        value::{Segment, Value},
    },
    path::{self, Document, Known, Path},
};
use crate::{Error, Result, layers::json, limits, model::filter::Operator};

/// A filter that was checked.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    root: Node,
}

#[derive(Clone, Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    /// All of these are true of what stands there.
    Field(Path, Vec<Test>),
}

#[derive(Clone, Debug)]
enum Test {
    Is(Check),
    Exists(bool),
    Size(usize),
    Contains(Check),
    Matches(Regex),
    /// A list has an element of which this is true.
    Element(Element),
    /// Not all of these are true.
    Not(Vec<Test>),
}

/// What must be true of an element of a list.
#[derive(Clone, Debug)]
pub(super) enum Element {
    /// Of itself.
    Value(Vec<ElementTest>),
    /// Of what is in it; it is an object.
    Object(Matcher),
}

/// A condition on a value that is under no path.
#[derive(Clone, Debug)]
pub(super) struct ElementTest(Test);

pub(super) fn members<'a>(place: &str, text: &'a str) -> Result<BTreeMap<String, &'a RawValue>> {
    serde_json::from_str(text).map_err(|error| Error::invalid(place, "", format!("must be a JSON object: {error}")))
}

impl Matcher {
    /// Reads the JSON text of a filter; an empty one lets everything through. Errors: `InvalidArgument` naming the place.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if text.len() > limits::FILTER_BYTES {
            let rule = format!("must be at most {} bytes long, is {}", limits::FILTER_BYTES, text.len());
            return Err(Error::invalid("filter", "", rule));
        }
        if text.trim().is_empty() {
            return Ok(Self { root: Node::All(vec![]) });
        }
        json::check("filter", text)?;
        let mut reader = Reader::new(true);
        Ok(Self { root: reader.filter(text, "filter")? })
    }

    /// Whether a document is wanted.
    pub(super) fn matches(&self, document: &Document<'_>) -> bool {
        self.root.holds(document)
    }

    /// What holds of every document that is wanted, as far as an index can know it.
    pub(super) fn conjuncts(&self) -> Vec<query::Test> {
        let mut found = Vec::new();
        self.root.conjuncts(&[], &mut found);
        found
    }

    /// The fields that must be equal to something, at the top: what an upsert begins with.
    pub(super) fn equalities(&self) -> Vec<(&Path, &Value<'static>)> {
        let mut found = Vec::new();
        self.root.equalities(&mut found);
        found
    }

    /// Whether an index can be of the documents that it lets through: it asks for nothing but what is in them, and not by regular
    /// expressions.
    pub(super) fn can_be_of_an_index(&self) -> bool {
        self.root.is_plain()
    }

    /// Whether every document of which this is true is let through by `other`, as far as that can be seen.
    pub(super) fn implies(&self, other: &Self) -> bool {
        let (Node::All(mine), Node::All(theirs)) = (&self.root, &other.root) else { return false };
        // As they were written; whoever queries with the condition of an index writes it as it was declared.
        theirs.iter().all(|node| mine.iter().any(|own| format!("{own:?}") == format!("{node:?}")))
    }
}

impl Node {
    fn holds(&self, document: &Document<'_>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.holds(document)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(document)),
            Self::Not(node) => !node.holds(document),
            Self::Field(path, tests) => {
                let values = path.values(document);
                tests.iter().all(|test| test.holds(&values, true))
            }
        }
    }

    fn conjuncts(&self, front: &[Segment], into: &mut Vec<query::Test>) {
        match self {
            Self::All(nodes) => nodes.iter().for_each(|node| node.conjuncts(front, into)),
            Self::Field(path, tests) => {
                let field = match path {
                    Path::Of(rest) => Some(Field::Value([front, rest].concat())),
                    path => path.field(),
                };
                if let Some(field) = field {
                    tests.iter().for_each(|test| test.conjuncts(&field, into));
                }
            }
            Self::Any(_) | Self::Not(_) => {}
        }
    }

    fn is_plain(&self) -> bool {
        match self {
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().all(Self::is_plain),
            Self::Not(node) => node.is_plain(),
            Self::Field(path, tests) => !matches!(path, Path::Known(_)) && tests.iter().all(Test::is_plain),
        }
    }

    fn equalities<'a>(&'a self, into: &mut Vec<(&'a Path, &'a Value<'static>)>) {
        match self {
            Self::All(nodes) => nodes.iter().for_each(|node| node.equalities(into)),
            Self::Field(path, tests) => into.extend(tests.iter().filter_map(|test| match test {
                Test::Is(Check::Equal(value)) => Some((path, value)),
                _ => None,
            })),
            Self::Any(_) | Self::Not(_) => {}
        }
    }
}

impl Test {
    /// Whether it is true of one of the values; with `elements` also if it is of an element of one that is a list.
    fn holds(&self, values: &[Option<Value<'_>>], elements: bool) -> bool {
        let any = |holds: &dyn Fn(&Value<'_>) -> bool| {
            values.iter().flatten().any(|value| holds(value) || elements && path::elements(value).iter().any(holds))
        };
        match self {
            Self::Is(check) => {
                let nothing = values.iter().any(Option::is_none) && check.holds(&Value::Null);
                nothing || any(&|value| check.holds(value))
            }
            Self::Exists(exists) => values.iter().any(Option::is_some) == *exists,
            Self::Size(size) => values.iter().flatten().any(
                |value| matches!(value, Value::List(text) if Value::elements(text).is_some_and(|all| all.len() == *size)),
            ),
            Self::Contains(check) => values.iter().flatten().any(|value| check.holds(value)),
            Self::Matches(regex) => any(&|value| match value {
                Value::Text(text) => std::str::from_utf8(text).is_ok_and(|text| regex.is_match(text)),
                _ => false,
            }),
            Self::Element(element) => {
                values.iter().flatten().any(|value| path::elements(value).iter().any(|value| element.holds(value)))
            }
            Self::Not(tests) => !tests.iter().all(|test| test.holds(values, elements)),
        }
    }

    fn is_plain(&self) -> bool {
        match self {
            Self::Matches(_) => false,
            Self::Not(tests) => tests.iter().all(Self::is_plain),
            Self::Element(Element::Value(tests)) => tests.iter().all(|test| test.0.is_plain()),
            Self::Element(Element::Object(matcher)) => matcher.root.is_plain(),
            Self::Is(_) | Self::Exists(_) | Self::Size(_) | Self::Contains(_) => true,
        }
    }

    fn conjuncts(&self, field: &Field, into: &mut Vec<query::Test>) {
        match self {
            Self::Is(check @ (Check::Equal(_) | Check::In(_) | Check::Relates(..) | Check::StartsWith(_))) => {
                into.push(query::Test { field: field.clone(), check: check.clone() });
            }
            // An element is a value under the path of its list, and its members are under theirs; what is in it, if it is a
            // list itself, is not.
            Self::Element(Element::Value(tests)) => {
                let outermost = tests.iter().filter(|test| !matches!(test.0, Self::Element(_)));
                outermost.for_each(|test| test.0.conjuncts(field, into));
            }
            Self::Element(Element::Object(matcher)) => {
                if let Field::Value(front) = field {
                    matcher.root.conjuncts(front, into);
                }
            }
            _ => {}
        }
    }
}

impl Element {
    /// Reads what must be true of an element: operators, a filter on its members, or a value that it must be equal to.
    /// Errors: `InvalidArgument` naming `place`.
    pub(super) fn parse(text: &str, place: &str) -> Result<Self> {
        let mut reader = Reader::new(false);
        if text.trim_start().starts_with('{') {
            return reader.element(text, place);
        }
        Ok(Self::Value(vec![ElementTest(Test::Is(query::check(Operator::Eq, text, place)?))]))
    }

    pub(super) fn holds(&self, element: &Value<'_>) -> bool {
        match self {
            Self::Value(tests) => {
                let values = [Some(element.clone())];
                tests.iter().all(|test| test.0.holds(&values, false))
            }
            Self::Object(matcher) => match element {
                Value::Object(text) => matcher.matches(&Document { id: "", text, known: Known::default() }),
                _ => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{read::PATTERN_BYTES, *};

    fn holds(text: &str, filter: &str) -> bool {
        let known = Known { created_at_ms: 0, updated_at_ms: 0, revision: 7, owner: "shop" };
        Matcher::parse(filter).unwrap().matches(&Document { id: "d1", text, known })
    }

    #[test]
    fn every_operator_means_what_mongodb_says() {
        let text = r#"{"n":5,"big":9007199254740993,"t":"abc","z":null,"l":[1,"x",null],"e":[],
            "items":[{"sku":"a","n":1},{"sku":"b","n":5}],"o":{"a":1},"ll":[[1]]}"#;
        for filter in [
            "",
            "{}",
            r#"{"n":5.0}"#,
            r#"{"n":{"$eq":5}}"#,
            r#"{"n":{"$gt":4,"$lt":6}}"#,
            r#"{"big":{"$gt":9007199254740992}}"#,
            r#"{"big":{"$ne":9007199254740992}}"#,
            r#"{"missing":null}"#,
            r#"{"missing":{"$ne":1}}"#,
            r#"{"missing":{"$nin":[1,2]}}"#,
            r#"{"missing":{"$in":[1,null]}}"#,
            r#"{"missing":{"$exists":false},"z":{"$exists":true}}"#,
            r#"{"missing":{"$not":{"$gt":3}}}"#,
            r#"{"l":1}"#,
            r#"{"l":"x"}"#,
            r#"{"l":[1,"x",null]}"#,
            r#"{"l":{"$size":3},"e":{"$size":0}}"#,
            r#"{"l":{"$contains":"x"},"t":{"$contains":"b"}}"#,
            r#"{"t":{"$startsWith":"ab"}}"#,
            r#"{"t":{"$regex":"^A.C$","$options":"i"}}"#,
            r#"{"l":{"$regex":"x"}}"#,
            r#"{"items.sku":"a","items.n":5}"#,
            r#"{"items":{"$elemMatch":{"sku":"b","n":{"$gte":5}}}}"#,
            r#"{"l":{"$elemMatch":{"$gte":1,"$lt":2}}}"#,
            r#"{"ll":{"$elemMatch":{"$elemMatch":{"$eq":1}}}}"#,
            r#"{"items.0.sku":"a"}"#,
            r#"{"o":{"a":1.0}}"#,
            r#"{"$or":[{"n":1},{"n":5}],"$and":[{"t":"abc"},{"z":null}]}"#,
            r#"{"$nor":[{"n":1}],"$not":{"n":2}}"#,
            r#"{"_id":"d1","_owner":"shop","_revision":{"$lte":7}}"#,
        ] {
            assert!(holds(text, filter), "{filter}");
        }
        for filter in [
            r#"{"n":"5"}"#,
            r#"{"n":{"$gt":"4"}}"#,
            r#"{"n":{"$ne":5}}"#,
            r#"{"l":{"$ne":1}}"#,
            r#"{"l":{"$nin":["x"]}}"#,
            r#"{"big":9007199254740992}"#,
            r#"{"missing":{"$gt":1}}"#,
            r#"{"missing":{"$exists":true}}"#,
            r#"{"items":{"$elemMatch":{"sku":"a","n":5}}}"#,
            r#"{"l":{"$size":1}}"#,
            r#"{"n":{"$size":1}}"#,
            r#"{"t":{"$regex":"^b"}}"#,
            r#"{"t":{"$not":{"$startsWith":"a"}}}"#,
            r#"{"e":1}"#,
            r#"{"_id":"d2"}"#,
            r#"{"ll":{"$elemMatch":{"$eq":1}}}"#,
        ] {
            assert!(!holds(text, filter), "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_its_place() {
        let many = format!("{{\"$or\":[{}]}}", vec![r#"{"a":1}"#; limits::FILTER_CONDITIONS + 1].join(","));
        let deep = format!("{}{{}}{}", r#"{"$not":"#.repeat(70), "}".repeat(70));
        let long = format!(r#"{{"a":{{"$regex":"{}"}}}}"#, "x".repeat(PATTERN_BYTES + 1));
        for (text, place) in [
            ("[]", "filter"),
            ("{", "filter"),
            (r#"{"$where":"1"}"#, "filter.$where"),
            (r#"{"a":{"$like":1}}"#, "filter.a.$like"),
            (r#"{"a":{"$gt":[1]}}"#, "filter.a.$gt"),
            (r#"{"a":{"$gt":null}}"#, "filter.a.$gt"),
            (r#"{"a":{"$in":1}}"#, "filter.a.$in"),
            (r#"{"a":{"$exists":1}}"#, "filter.a.$exists"),
            (r#"{"a":{"$size":-1}}"#, "filter.a.$size"),
            (r#"{"a":{"$size":1.5}}"#, "filter.a.$size"),
            (r#"{"a":{"$not":1}}"#, "filter.a.$not"),
            (r#"{"a":{"$not":{"b":1}}}"#, "filter.a.$not"),
            (r#"{"a":{"$elemMatch":1}}"#, "filter.a.$elemMatch"),
            (r#"{"a":{"$elemMatch":{"$or":1}}}"#, "filter.a.$elemMatch.$or"),
            (r#"{"a":{"$regex":"("}}"#, "filter.a.$regex"),
            (r#"{"a":{"$regex":"(?=x)"}}"#, "filter.a.$regex"),
            (r#"{"a":{"$regex":"a{1000}{1000}{100}"}}"#, "filter.a.$regex"),
            (r#"{"a":{"$regex":1}}"#, "filter.a.$regex"),
            (r#"{"a":{"$regex":"x","$options":"q"}}"#, "filter.a.$regex"),
            (r#"{"a":{"$options":"i"}}"#, "filter.a.$options"),
            (r#"{"$or":[]}"#, "filter.$or"),
            (r#"{"$or":[{"$and":[1]}]}"#, "filter.$or[0].$and[0]"),
            (r#"{"a.$b":1}"#, "filter.a.$b"),
            (r#"{"a":{"$gt":1,"b":2}}"#, "filter.a.b"),
            (&many, "filter.$or[255].a"),
            (&deep, "filter"),
            (&long, "filter.a.$regex"),
        ] {
            match Matcher::parse(text) {
                Err(Error::InvalidArgument { field, .. }) => assert_eq!(field, place, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_an_index_can_serve_is_found() {
        let fields = |filter: &str| {
            let tests = Matcher::parse(filter).unwrap().conjuncts();
            tests.iter().map(|test| test.field.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(fields(r#"{"a":1,"$and":[{"b":{"$gt":1}}],"_id":"x"}"#), ["$value.b", "$key", "$value.a"]);
        assert_eq!(fields(r#"{"i":{"$elemMatch":{"sku":"a"}}}"#), ["$value.i.sku"]);
        assert_eq!(fields(r#"{"i":{"$elemMatch":{"$gt":1}}}"#), ["$value.i"]);
        assert!(fields(r#"{"$or":[{"a":1}],"b":{"$ne":1},"_owner":"x"}"#).is_empty());
    }

    #[test]
    fn a_filter_that_repeats_another_implies_it() {
        let implies = |one: &str, other: &str| Matcher::parse(one).unwrap().implies(&Matcher::parse(other).unwrap());
        assert!(implies(r#"{"a":1,"open":true}"#, r#"{"open":true}"#));
        assert!(implies(r#"{"a":1}"#, "{}"));
        assert!(!implies(r#"{"a":1}"#, r#"{"open":true}"#));
        assert!(!implies(r#"{"open":{"$ne":false}}"#, r#"{"open":true}"#));
    }
}
