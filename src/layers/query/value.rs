//! Looking into JSON texts that were checked when they were written, without making trees of them.
//!
//! A text that is no JSON has no fields: nothing here fails.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::decimal::Decimal;

/// A step of a path: a member of an object, or an element of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    name: String,
    /// Which element, if it is a number.
    element: Option<usize>,
}

/// Reads a path. Errors: the rule that it breaks.
pub fn path(text: &str) -> Result<Vec<Segment>, &'static str> {
    const RULE: &str = "must be names with dots between, none of them empty; \\. is a dot in a name, \\\\ a backslash";
    let (mut segments, mut name) = (Vec::new(), String::new());
    let mut characters = text.chars();
    loop {
        match characters.next() {
            Some('\\') => match characters.next() {
                Some(escaped @ ('.' | '\\')) => name.push(escaped),
                _ => return Err(RULE),
            },
            Some('.') | None if name.is_empty() => return Err(RULE),
            Some('.') => segments.push(Segment::of(std::mem::take(&mut name))),
            Some(character) => name.push(character),
            None => {
                segments.push(Segment::of(name));
                return Ok(segments);
            }
        }
    }
}

impl Segment {
    fn of(name: String) -> Self {
        // 01 is the name of a member, and of no element.
        let element = name.parse().ok().filter(|number: &usize| number.to_string() == name);
        Self { name, element }
    }

    /// The name of the member.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which element of a list it is, if it can be one.
    pub fn element(&self) -> Option<usize> {
        self.element
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name.replace('\\', "\\\\").replace('.', "\\."))
    }
}

/// The text of what stands under a path. The text is gone through once, however long the path.
pub fn find<'a>(text: &'a str, path: &[Segment]) -> Option<&'a str> {
    let mut reader = serde_json::Deserializer::from_str(text);
    Under(path).deserialize(&mut reader).ok().flatten()
}

/// What stands under a path, or the rest of one.
#[derive(Clone, Copy)]
struct Under<'s>(&'s [Segment]);

impl<'de> DeserializeSeed<'de> for Under<'_> {
    type Value = Option<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            [] => <&RawValue>::deserialize(value).map(|text| Some(text.get())),
            _ => value.deserialize_any(self),
        }
    }
}

/// What is neither an object nor a list has nothing under it.
impl<'de> Visitor<'de> for Under<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let Some((first, rest)) = self.0.split_first() else { return Ok(None) };
        let mut found = None;
        while let Some(wanted) = members.next_key_seed(Named(first.name.as_bytes()))? {
            if wanted {
                // Of several the last counts.
                found = members.next_value_seed(Under(rest))?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let Some((first, rest)) = self.0.split_first() else { return Ok(None) };
        let (mut at, mut found) = (0, None);
        loop {
            let more = if first.element == Some(at) {
                let element = elements.next_element_seed(Under(rest))?;
                found = element.flatten();
                element.is_some()
            } else {
                elements.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(found);
            }
            at += 1;
        }
    }
}

/// Whether a member has this name. By bytes, since a name may hold half of a surrogate pair, which no `str` can.
struct Named<'n>(&'n [u8]);

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<bool, D::Error> {
        name.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Named<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// A JSON value, looked into as far as comparing it takes.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number.
    Number(Decimal),
    /// The bytes of a text: UTF-8, unless half of a surrogate pair is in it.
    Text(Cow<'a, [u8]>),
    /// The text of a list.
    List(Cow<'a, str>),
    /// The text of an object.
    Object(Cow<'a, str>),
}

impl<'a> Value<'a> {
    /// Reads a JSON text; `None` if it is none, or a number that is beyond all comparison.
    pub fn read(text: &'a str) -> Option<Self> {
        let text = text.trim();
        match text.as_bytes() {
            b"null" => Some(Self::Null),
            b"true" => Some(Self::Bool(true)),
            b"false" => Some(Self::Bool(false)),
            [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => Some(Self::Text(Cow::Borrowed(inner))),
            [b'"', ..] => octets(text).map(|bytes| Self::Text(Cow::Owned(bytes))),
            [b'[', ..] => Some(Self::List(Cow::Borrowed(text))),
            [b'{', ..] => Some(Self::Object(Cow::Borrowed(text))),
            _ => Decimal::parse(text).map(Self::Number),
        }
    }

    /// The same, of its own.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(bool) => Value::Bool(bool),
            Self::Number(number) => Value::Number(number),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::List(text) => Value::List(Cow::Owned(text.into_owned())),
            Self::Object(text) => Value::Object(Cow::Owned(text.into_owned())),
        }
    }

    /// Whether it is neither a list nor an object.
    pub fn is_scalar(&self) -> bool {
        !matches!(self, Self::List(_) | Self::Object(_))
    }

    /// The elements of a list; `None` for one that is beyond all comparison.
    pub fn elements(text: &str) -> Option<Vec<Option<Value<'_>>>> {
        let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        Some(elements.into_iter().map(|element| Value::read(element.get())).collect())
    }

    /// Whether both are the same.
    pub fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(left), Value::Bool(right)) => left == right,
            (Self::Number(left), Value::Number(right)) => left == right,
            (Self::Text(left), Value::Text(right)) => left == right,
            (Self::List(left), Value::List(right)) => {
                let (Some(left), Some(right)) = (Value::elements(left), Value::elements(right)) else { return false };
                left.len() == right.len() && left.iter().zip(&right).all(|(left, right)| same(left, right))
            }
            (Self::Object(left), Value::Object(right)) => {
                let (Some(left), Some(right)) = (members(left), members(right)) else { return false };
                left.len() == right.len()
                    && left.iter().zip(&right).all(|((left_name, left), (right_name, right))| {
                        left_name == right_name && same(&Value::read(left), &Value::read(right))
                    })
            }
            _ => false,
        }
    }
}

fn same(left: &Option<Value<'_>>, right: &Option<Value<'_>>) -> bool {
    matches!((left, right), (Some(left), Some(right)) if left.equals(right))
}

/// The bytes of the text that a JSON string stands for.
fn octets(text: &str) -> Option<Vec<u8>> {
    serde_json::Deserializer::from_str(text).deserialize_bytes(Octets).ok()
}

struct Octets;

impl Visitor<'_> for Octets {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

/// The members of an object, by name.
fn members(text: &str) -> Option<BTreeMap<Vec<u8>, &str>> {
    serde_json::Deserializer::from_str(text).deserialize_map(Members).ok()
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = BTreeMap<Vec<u8>, &'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some(name) = members.next_key_seed(Name)? {
            all.insert(name, members.next_value::<&RawValue>()?.get());
        }
        Ok(all)
    }
}

struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Vec<u8>, D::Error> {
        name.deserialize_bytes(Octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(left: &str, right: &str) -> bool {
        Value::read(left).unwrap().equals(&Value::read(right).unwrap())
    }

    #[test]
    fn equal_is_what_means_the_same() {
        for (left, right) in [
            ("1", "1.0"),
            ("[1, 2.50]", "[1.0,2.5]"),
            (r#"{"a":1,"b":[{}]}"#, r#" {"b" : [ {} ], "a": 1e0}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#""\u00e9\n""#, "\"\u{e9}\\n\""),
            (r#""\ud800""#, r#""\uD800""#),
            (r#"{"\u0061":null}"#, r#"{"a":null}"#),
        ] {
            assert!(equal(left, right), "{left} {right}");
        }
        for (left, right) in [
            ("1", "\"1\""),
            ("9007199254740992", "9007199254740993"),
            ("[1,2]", "[2,1]"),
            ("[1]", "[1,1]"),
            ("{}", "[]"),
            ("null", "false"),
            (r#"{"a":1}"#, r#"{"a":1,"b":1}"#),
            (r#"{"a":1}"#, r#"{"b":1}"#),
        ] {
            assert!(!equal(left, right), "{left} {right}");
        }
    }

    #[test]
    fn what_is_no_json_has_nothing_in_it() {
        let to_a = path("a").unwrap();
        for text in ["", "{", "{\"a\"", "{\"a\":", "[1", "\"", "nul", "7"] {
            assert_eq!(find(text, &to_a), None, "{text}");
        }
        assert!(Value::read("nul").is_none() && Value::read("\"").is_none() && Value::read("").is_none());
        assert_eq!(find(r#"{"\ud800":1,"a":2,"a":3}"#, &to_a), Some("3"));
        let to_ab = path("a.b").unwrap();
        for (text, found) in [
            (r#"{"a":"x","a":{"b":1}}"#, Some("1")),
            (r#"{"a":{"b":1},"a":7}"#, None),
            (r#"{"a":{"b":1},"a":{"c":2}}"#, None),
            (r#"{"a":[{"b":1}]}"#, None),
            (r#"{"a":{"b":[1,{"b":2}]}}"#, Some(r#"[1,{"b":2}]"#)),
            (r#"{"x":1e999,"a":{"b": -1e999 }}"#, Some("-1e999")),
        ] {
            assert_eq!(find(text, &to_ab), found, "{text}");
        }
        let third = path("2.a").unwrap();
        assert_eq!(find(r#"[true,null,{"a":false}]"#, &third), Some("false"));
        assert_eq!(find("[1]", &third), None);
    }
}
