//! What a query means: a pure function of a key, the JSON text under it and the attributes beside it. It knows no view, no
//! namespace and no index, so whatever stores such things can ask it, and an index can be held against it.
//!
//! * **A field** is `$key`, `$value` (the whole value), `$metadata` (the attributes), or a path of member names with dots
//!   between, into the value or behind `$value.` or `$metadata.`. A number steps into a list. Dots and backslashes of a
//!   name are written `\.` and `\\`. Nothing is looked up elsewhere if it is not there: a name that means one thing today
//!   and another tomorrow helps nobody, and no index could follow it.
//! * **A field that is not there meets no condition**, also none of `ne` and `nin`; of a value that is bytes there is only
//!   `$key` and `$metadata`. `not` turns round whatever it holds, so `not (a eq 1)` is also true where there is no `a`.
//! * **Nothing is rounded.** Numbers are compared as decimals ([`decimal`]), texts by their bytes, which is the order of
//!   their code points, false before true; null is equal to null. Lists are equal element by element, objects member by
//!   member in any order; of a member that stands there twice the last counts.
//! * **What is of another type is not equal**, and neither less nor greater. An operand that no value could meet (a list for
//!   `gt`, none for `in`) is refused.
//!
//! [`filter`] evaluates, [`value`] looks into JSON, [`order`] makes bytes of fields that order as the fields do.

pub mod decimal;
pub mod filter;
pub mod order;
pub mod value;

use std::{borrow::Cow, fmt};

use crate::{Error, Result, limits};
use value::{Segment, Value};

/// What a query looks at.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// The key.
    pub key: &'a str,
    /// The value, a JSON text that was checked; `None` if it is none.
    pub value: Option<&'a str>,
    /// The attributes, a JSON text that was checked; `None` if there are none, or nobody asks for them.
    pub attributes: Option<&'a str>,
}

/// A field of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The key.
    Key,
    /// What stands in the value under this path.
    Value(Vec<Segment>),
    /// What stands in the attributes under this path.
    Attributes(Vec<Segment>),
}

impl Field {
    /// Reads the name of a field. Errors: `InvalidArgument` naming `place`.
    pub fn parse(place: &str, name: &str) -> Result<Self> {
        let wrong = |rule: String| Error::invalid(place, name, rule);
        if name.len() > limits::FIELD_BYTES {
            return Err(wrong(format!("must be at most {} bytes long, is {}", limits::FIELD_BYTES, name.len())));
        }
        let path = |path: &str| value::path(path).map_err(|rule| wrong(rule.into()));
        match name
            .strip_prefix('$')
            .map(|rest| rest.split_once('.').map_or((rest, None), |(of, path)| (of, Some(path))))
        {
            None => Ok(Self::Value(path(name)?)),
            Some(("key", None)) => Ok(Self::Key),
            Some(("value", rest)) => Ok(Self::Value(rest.map_or(Ok(vec![]), path)?)),
            Some(("metadata", rest)) => Ok(Self::Attributes(rest.map_or(Ok(vec![]), path)?)),
            Some(_) => Err(wrong(
                "must be $key, $value, $metadata, or a path; a member that begins with $ is $value.$name".into(),
            )),
        }
    }

    /// What stands there.
    pub fn of<'a>(&self, document: &Document<'a>) -> Option<Value<'a>> {
        let (text, path) = match self {
            Self::Key => return Some(Value::Text(Cow::Borrowed(document.key.as_bytes()))),
            Self::Value(path) => (document.value?, path),
            Self::Attributes(path) => (document.attributes?, path),
        };
        Value::read(value::find(text, path)?)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (of, path) = match self {
            Self::Key => return f.write_str("$key"),
            Self::Value(path) => ("$value", path),
            Self::Attributes(path) => ("$metadata", path),
        };
        f.write_str(of)?;
        path.iter().try_for_each(|segment| write!(f, ".{segment}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_where_its_path_leads() {
        let document = Document {
            key: "k",
            value: Some(r#"{"a":{"b":[1,{"c":"x"}],"":0,"d.e":2,"\u0066":3},"a2":null,"$x":4,"0":5}"#),
            attributes: Some(r#"{"by":"me"}"#),
        };
        let text = |name: &str| match Field::parse("f", name).unwrap().of(&document) {
            None => "-".to_owned(),
            Some(Value::Null) => "null".into(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Text(text)) => String::from_utf8(text.into_owned()).unwrap(),
            Some(other) => format!("{other:?}").split('(').next().unwrap().into(),
        };
        for (name, found) in [
            ("$key", "k"),
            ("$value", "Object"),
            ("$metadata", "Object"),
            ("$metadata.by", "me"),
            ("$value.a2", "null"),
            ("$value.$x", "4"),
            ("a.b", "List"),
            ("a.b.0", "1"),
            ("a.b.1.c", "x"),
            ("a.b.2", "-"),
            ("a.b.01", "-"),
            ("a.b.x", "-"),
            ("a.d\\.e", "2"),
            ("a.f", "3"),
            ("a2", "null"),
            ("a2.x", "-"),
            ("0", "5"),
            ("by", "-"),
            ("key", "-"),
        ] {
            assert_eq!(text(name), found, "{name}");
        }
    }

    #[test]
    fn what_names_no_field_is_refused() {
        let long = "a".repeat(limits::FIELD_BYTES + 1);
        for name in ["", ".", "a.", ".a", "a..b", "a\\", "a\\b", "$", "$keys", "$key.a", "$value.", "$metadata.", &long]
        {
            assert!(
                matches!(Field::parse("filter.field", name), Err(Error::InvalidArgument { field, .. }) if field == "filter.field"),
                "{name}"
            );
        }
    }
}
