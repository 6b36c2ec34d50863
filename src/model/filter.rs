//! Filters: which values are wanted, as a tree of conditions on fields, and its JSON form.
//!
//! ```json
//! [ {"field": "age", "operator": "gte", "value": 18},
//!   {"or": [ {"field": "$key", "operator": "startsWith", "value": "user:"},
//!            {"not": {"field": "address.city", "operator": "in", "value": ["Rome", "Oslo"]}} ]} ]
//! ```
//!
//! A list holds if all that it lists holds. What the operators mean, and what a field is, is said in `layers::query`, which
//! evaluates them. A condition's operand is kept as the JSON text that it came as, so that no number is rounded on the way.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde_json::value::RawValue;

use crate::{Error, Result, limits};

/// Which values are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All of these hold; without any: every value is wanted.
    All(Vec<Filter>),
    /// At least one of these holds.
    Any(Vec<Filter>),
    /// This does not hold.
    Not(Box<Filter>),
    /// A condition on a field.
    Field(Comparison),
}

impl Default for Filter {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

/// A condition on a field. One that is not there meets none, whatever the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// `$key`, `$value`, `$metadata`, or a path into the value, like `address.city` or `tags.0`.
    pub field: String,
    /// How it must relate.
    pub operator: Operator,
    /// To what: a JSON text.
    pub operand: String,
}

/// How a field must relate to an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// It is equal.
    Eq,
    /// It is there, and not equal.
    Ne,
    /// It is greater, and of the same type.
    Gt,
    /// It is greater or equal, and of the same type.
    Gte,
    /// It is less, and of the same type.
    Lt,
    /// It is less or equal, and of the same type.
    Lte,
    /// It is a text with the operand in it, or a list that has it as an element.
    Contains,
    /// It is a text that begins so.
    StartsWith,
    /// It is a text that ends so.
    EndsWith,
    /// It is equal to one of a list.
    In,
    /// It is there, and equal to none of a list.
    Nin,
}

impl Operator {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::Eq, "eq"),
        (Self::Ne, "ne"),
        (Self::Gt, "gt"),
        (Self::Gte, "gte"),
        (Self::Lt, "lt"),
        (Self::Lte, "lte"),
        (Self::Contains, "contains"),
        (Self::StartsWith, "startsWith"),
        (Self::EndsWith, "endsWith"),
        (Self::In, "in"),
        (Self::Nin, "nin"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(operator, _)| *operator == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Operator {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(operator, _)| *operator).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(_, name)| *name).collect();
            format!("must be one of {}", names.join(", "))
        })
    }
}

impl Filter {
    /// A condition on a field; the operand is a JSON text.
    pub fn field(field: impl Into<String>, operator: Operator, operand: impl Into<String>) -> Self {
        Self::Field(Comparison { field: field.into(), operator, operand: operand.into() })
    }

    /// This, and another, too.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match self {
            Self::All(mut all) => {
                all.push(other);
                Self::All(all)
            }
            one => Self::All(vec![one, other]),
        }
    }

    /// This, or another.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match self {
            Self::Any(mut any) => {
                any.push(other);
                Self::Any(any)
            }
            one => Self::Any(vec![one, other]),
        }
    }

    /// Everything but this.
    #[must_use]
    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// Whether it lets every value through, because it says nothing.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::All(all) if all.is_empty())
    }

    /// That it is neither too deep nor too wide. Errors: `InvalidArgument` naming the place.
    pub fn check(&self) -> Result<()> {
        self.count(1).map(drop)
    }

    fn count(&self, depth: usize) -> Result<usize> {
        if depth > limits::FILTER_DEPTH {
            return Err(too_deep("filter"));
        }
        let sum = |filters: &[Self]| {
            let mut sum = 1;
            for filter in filters {
                sum += filter.count(depth + 1)?;
                if sum > limits::FILTER_CONDITIONS {
                    let rule = format!("must have at most {} conditions", limits::FILTER_CONDITIONS);
                    return Err(Error::invalid("filter", "", rule));
                }
            }
            Ok(sum)
        };
        match self {
            Self::All(filters) | Self::Any(filters) => sum(filters),
            Self::Not(filter) => filter.count(depth + 1),
            Self::Field(_) => Ok(1),
        }
    }

    /// Reads the JSON form; nothing at all is the filter that lets everything through. Errors: `InvalidArgument` naming the
    /// place.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > limits::FILTER_BYTES {
            let rule = format!("must be at most {} bytes long, is {}", limits::FILTER_BYTES, text.len());
            return Err(Error::invalid("filter", "", rule));
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let raw: &RawValue = serde_json::from_str(text)
            .map_err(|error| Error::invalid("filter", text, format!("must be JSON: {error}")))?;
        let filter = read(raw, "filter", 1)?;
        filter.check()?;
        Ok(filter)
    }

    /// The JSON form, which [`parse`](Self::parse) reads.
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, into: &mut String) {
        let list = |name: &str, filters: &[Self], into: &mut String| {
            into.push_str(&format!("{{\"{name}\":["));
            for (at, filter) in filters.iter().enumerate() {
                if at > 0 {
                    into.push(',');
                }
                filter.write(into);
            }
            into.push_str("]}");
        };
        match self {
            Self::All(filters) => list("and", filters, into),
            Self::Any(filters) => list("or", filters, into),
            Self::Not(filter) => {
                into.push_str("{\"not\":");
                filter.write(into);
                into.push('}');
            }
            Self::Field(Comparison { field, operator, operand }) => {
                let field = serde_json::Value::from(field.as_str());
                into.push_str(&format!("{{\"field\":{field},\"operator\":\"{operator}\",\"value\":{operand}}}"));
            }
        }
    }
}

fn too_deep(place: &str) -> Error {
    Error::invalid(place, "", format!("must not be nested deeper than {} levels", limits::FILTER_DEPTH))
}

fn read(raw: &RawValue, place: &str, depth: usize) -> Result<Filter> {
    if depth > limits::FILTER_DEPTH {
        return Err(too_deep(place));
    }
    match raw.get().as_bytes().first() {
        Some(b'[') => list(raw, place, depth).map(Filter::All),
        Some(b'{') => object(raw, place, depth),
        _ => Err(Error::invalid(place, raw.get(), "must be an object, or a list of them")),
    }
}

fn list(raw: &RawValue, place: &str, depth: usize) -> Result<Vec<Filter>> {
    let items: Vec<&RawValue> = serde_json::from_str(raw.get())
        .map_err(|error| Error::invalid(place, "", format!("must be a list of filters: {error}")))?;
    items.into_iter().enumerate().map(|(at, item)| read(item, &format!("{place}[{at}]"), depth + 1)).collect()
}

const MEMBERS: &str = "must have the members field, operator and value, or one of and, or, not";

fn object(raw: &RawValue, place: &str, depth: usize) -> Result<Filter> {
    let mut members: BTreeMap<String, &RawValue> =
        serde_json::from_str(raw.get()).map_err(|error| Error::invalid(place, "", format!("{MEMBERS}: {error}")))?;
    let inside = |name: &str| format!("{place}.{name}");
    let filter = if let Some(all) = members.remove("and") {
        Filter::All(list(all, &inside("and"), depth)?)
    } else if let Some(any) = members.remove("or") {
        Filter::Any(list(any, &inside("or"), depth)?)
    } else if let Some(not) = members.remove("not") {
        Filter::Not(Box::new(read(not, &inside("not"), depth + 1)?))
    } else {
        let mut text = |name: &str| -> Result<String> {
            let member = members.remove(name).ok_or_else(|| Error::invalid(inside(name), "", MEMBERS))?;
            serde_json::from_str(member.get())
                .map_err(|_| Error::invalid(inside(name), member.get(), "must be a string"))
        };
        let (field, operator) = (text("field")?, text("operator")?);
        let operator = operator.parse().map_err(|rule| Error::invalid(inside("operator"), &operator, rule))?;
        let operand = members.remove("value").ok_or_else(|| Error::invalid(inside("value"), "", MEMBERS))?;
        Filter::Field(Comparison { field, operator, operand: operand.get().to_owned() })
    };
    match members.pop_first() {
        Some((unknown, _)) => Err(Error::invalid(inside(&unknown), "", MEMBERS)),
        None => Ok(filter),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_json_form_is_read_and_written() {
        let text = r#"[{"field":"age","operator":"gte","value":18},
            {"or":[{"field":"$key","operator":"startsWith","value":"u:"},
                   {"not":{"field":"a.b","operator":"in","value":[1.0, 9007199254740993]}}]}]"#;
        let filter = Filter::parse(text).unwrap();
        let age = Filter::field("age", Operator::Gte, "18");
        let key = Filter::field("$key", Operator::StartsWith, "\"u:\"");
        let not = Filter::field("a.b", Operator::In, "[1.0, 9007199254740993]").negated();
        assert_eq!(filter, Filter::All(vec![age, key.or(not)]));
        assert_eq!(Filter::parse(&filter.to_json()).unwrap(), filter);
        assert!(Filter::parse("").unwrap().is_empty() && Filter::parse("[]").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let condition = r#"{"field":"a","operator":"eq","value":1}"#;
        let deep = format!("{}{condition}{}", "{\"not\":".repeat(40), "}".repeat(40));
        let wide = format!("[{}]", vec![condition; 300].join(","));
        for (text, place) in [
            ("{", "filter"),
            ("1", "filter"),
            ("{}", "filter.field"),
            (r#"[{"field":"a","operator":"eq"}]"#, "filter[0].value"),
            (r#"{"field":1,"operator":"eq","value":1}"#, "filter.field"),
            (r#"{"and":[{"or":[{"field":"a","operator":"like","value":1}]}]}"#, "filter.and[0].or[0].operator"),
            (r#"{"not":[7]}"#, "filter.not[0]"),
            (r#"{"and":{}}"#, "filter.and"),
            (r#"{"field":"a","operator":"eq","value":1,"x":2}"#, "filter.x"),
            (r#"{"and":[],"or":[]}"#, "filter.or"),
            (&format!("\"{}\"", "x".repeat(limits::FILTER_BYTES)), "filter"),
            (&wide, "filter"),
        ] {
            match Filter::parse(text) {
                Err(Error::InvalidArgument { field, .. }) => assert_eq!(field, place, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(matches!(Filter::parse(&deep), Err(Error::InvalidArgument { rule, .. }) if rule.contains("deeper")));
        let mut deep = Filter::default();
        for _ in 0..40 {
            deep = deep.negated();
        }
        assert!(deep.check().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_filter_or_refused(text in "[\\[\\]{}:,\"a-z0-9]{0,60}|\\PC{0,40}") {
            if let Ok(filter) = Filter::parse(&text) {
                prop_assert_eq!(Filter::parse(&filter.to_json()).unwrap(), filter);
            }
        }
    }
}
