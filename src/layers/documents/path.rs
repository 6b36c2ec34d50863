//! Paths into documents, and what stands under them.
//!
//! A path is names with dots between, as in [`value::path`]. Through a list it goes as MongoDB does: into the element of
//! that number, if the name is one, and into each element that is an object. So there may be several values under one path;
//! an object among them that lacks the member counts as one where nothing is, and so does a document in which the path leads
//! nowhere. A number that is beyond all comparison counts as nothing, too.
//!
//! `_id`, `_created_at`, `_updated_at`, `_revision` and `_owner` are not in the document but what the store knows of it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    fmt,
};

use serde_json::value::RawValue;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::super::query::{
    Field,
    decimal::Decimal,
    order,
    value::{self, Segment, Value},
};
use crate::{Error, Result, limits, model::key};

/// A document, as filters, orders and indexes see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document<'a> {
    /// Its id.
    pub(super) id: &'a str,
    /// The JSON text of an object that was checked, without the id.
    pub(super) text: &'a str,
    /// What else is known of it.
    pub(super) known: Known<'a>,
}

/// What the store knows of a document beside its id.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known<'a> {
    /// When it was inserted, in milliseconds since 1970.
    pub(super) created_at_ms: u64,
    /// When it was last written, in milliseconds since 1970.
    pub(super) updated_at_ms: u64,
    /// The revision that wrote it last.
    pub(super) revision: u64,
    /// The service that inserted it.
    pub(super) owner: &'a str,
}

/// The names of what the store knows; no document has members that are called so.
const KNOWN: [(&str, Stamp); 4] = [
    ("_created_at", Stamp::CreatedAt),
    ("_updated_at", Stamp::UpdatedAt),
    ("_revision", Stamp::Revision),
    ("_owner", Stamp::Owner),
];
/// Most names of a path.
const SEGMENTS: usize = 32;
/// The name of the id.
pub(super) const ID: &str = "_id";

/// Something that the store knows of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// When it was inserted, as `2026-11-30T17:25:20.123Z`.
    CreatedAt,
    /// When it was last written.
    UpdatedAt,
    /// The revision that wrote it last.
    Revision,
    /// The service that inserted it.
    Owner,
}

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// The id.
    Id,
    /// What the store knows.
    Known(Stamp),
    /// What stands in the document.
    Of(Vec<Segment>),
}

/// Whether a member of a document may not be called so, since the store knows something of that name.
pub(super) fn is_known(name: &str) -> bool {
    KNOWN.iter().any(|(known, _)| *known == name)
}

/// Reads a path into a document. Errors: `InvalidArgument` naming `place`.
pub(super) fn parse(place: &str, name: &str) -> Result<Path> {
    if name == ID {
        return Ok(Path::Id);
    }
    match KNOWN.iter().find(|(known, _)| *known == name) {
        Some((_, stamp)) => Ok(Path::Known(*stamp)),
        None => {
            let path = segments(place, name)?;
            match path.first().map(Segment::name) {
                Some(first) if first == ID || is_known(first) => {
                    Err(Error::invalid(place, name, format!("{first} has nothing below it")))
                }
                _ => Ok(Path::Of(path)),
            }
        }
    }
}

/// Reads a path into a value. Errors: `InvalidArgument` naming `place`.
pub(super) fn segments(place: &str, name: &str) -> Result<Vec<Segment>> {
    let wrong = |rule: String| Error::invalid(place, name, rule);
    if name.len() > limits::FIELD_BYTES {
        return Err(wrong(format!("must be at most {} bytes long, is {}", limits::FIELD_BYTES, name.len())));
    }
    let path = value::path(name).map_err(|rule| wrong(rule.into()))?;
    if path.len() > SEGMENTS {
        return Err(wrong(format!("must have at most {SEGMENTS} names, has {}", path.len())));
    }
    if path.iter().any(|segment| segment.name().starts_with('$')) {
        return Err(wrong("must not have a name that begins with $: that is how operators begin".into()));
    }
    Ok(path)
}

impl Path {
    /// The same, as an index and its plan know it; `None`: no index has it.
    pub(super) fn field(&self) -> Option<Field> {
        match self {
            Self::Id => Some(Field::Key),
            Self::Known(_) => None,
            Self::Of(path) => Some(Field::Value(path.clone())),
        }
    }

    /// The values under it; `None` for each place where nothing is.
    pub(super) fn values<'a>(&self, document: &Document<'a>) -> Vec<Option<Value<'a>>> {
        match self {
            Self::Id => vec![Some(Value::Text(Cow::Borrowed(document.id.as_bytes())))],
            Self::Known(stamp) => vec![stamp.of(&document.known)],
            Self::Of(path) => values(document.text, path),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str(ID),
            Self::Known(stamp) => {
                let name = KNOWN.iter().find(|(_, known)| known == stamp).map_or("", |(name, _)| name);
                f.write_str(name)
            }
            Self::Of(path) => f.write_str(&joined(path)),
        }
    }
}

/// A path as it is written.
pub(super) fn joined(path: &[Segment]) -> String {
    path.iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
}

impl Stamp {
    fn of<'a>(self, known: &Known<'a>) -> Option<Value<'a>> {
        match self {
            Self::CreatedAt => Some(Value::Text(Cow::Owned(date(known.created_at_ms).into_bytes()))),
            Self::UpdatedAt => Some(Value::Text(Cow::Owned(date(known.updated_at_ms).into_bytes()))),
            Self::Revision => Decimal::parse(&known.revision.to_string()).map(Value::Number),
            Self::Owner => Some(Value::Text(Cow::Borrowed(known.owner.as_bytes()))),
        }
    }
}

/// Milliseconds since 1970 as a date, always with three digits behind the second, so that dates are ordered as texts.
fn date(ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(i64::try_from(ms / 1_000).unwrap_or(i64::MAX));
    let whole = at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
    format!("{}.{:03}Z", whole.trim_end_matches('Z'), ms % 1_000)
}

/// The values under a path of a JSON text.
pub(super) fn values<'a>(text: &'a str, path: &[Segment]) -> Vec<Option<Value<'a>>> {
    let mut found = Vec::new();
    let mut walk = Walk { show: |text: Option<&'a str>| found.push(text.and_then(Value::read)), been: HashSet::new() };
    walk.visit(text, path);
    if found.is_empty() {
        found.push(None);
    }
    found
}

/// Goes through a text along a path, and shows what is under it; `None` where an object lacks a member.
struct Walk<F> {
    show: F,
    /// Where it has been: a place in the text, and how much of the path was left there. A number leads into an element twice, by
    /// itself and as an object among the others, and without this twice as often on every level.
    been: HashSet<(usize, usize)>,
}

impl<F> Walk<F> {
    fn visit<'a>(&mut self, text: &'a str, path: &[Segment])
    where
        F: FnMut(Option<&'a str>),
    {
        let Some((first, rest)) = path.split_first() else { return (self.show)(Some(text)) };
        match text.trim_start().as_bytes().first() {
            Some(b'{') => match value::find(text, std::slice::from_ref(first)) {
                Some(member) => self.visit(member, rest),
                None => (self.show)(None),
            },
            Some(b'[') => {
                let Ok(elements) = serde_json::from_str::<Vec<&'a RawValue>>(text) else { return };
                if let Some(element) = first.element().and_then(|at| elements.get(at)) {
                    self.visit_once(element.get(), rest);
                }
                for element in elements.iter().filter(|element| element.get().starts_with('{')) {
                    self.visit_once(element.get(), path);
                }
            }
            _ => {}
        }
    }

    fn visit_once<'a>(&mut self, text: &'a str, path: &[Segment])
    where
        F: FnMut(Option<&'a str>),
    {
        if self.been.insert((text.as_ptr() as usize, path.len())) {
            self.visit(text, path);
        }
    }
}

/// The elements of a value that is a list.
pub(super) fn elements<'v>(value: &'v Value<'_>) -> Vec<Value<'v>> {
    let Value::List(text) = value else { return Vec::new() };
    Value::elements(text).unwrap_or_default().into_iter().flatten().collect()
}

/// What an index knows of the values under a path: each of them, each element of a list, and that there is nothing. In order,
/// each once; and whether one was cut.
pub(super) fn components(document: &Document<'_>, path: &Path, most: Option<usize>) -> (Vec<Vec<u8>>, bool) {
    let (mut all, mut cut) = (Vec::new(), false);
    let mut add = |value: &Value<'_>| {
        let (component, shortened) = order::component(Some(value), false, most);
        all.push(component);
        cut |= shortened;
    };
    for value in path.values(document) {
        let value = value.unwrap_or(Value::Null);
        add(&value);
        elements(&value).iter().for_each(&mut add);
    }
    all.sort_unstable();
    all.dedup();
    (all, cut)
}

/// What must be unique of the values under a path: each of them, of a list its elements, and that there is nothing; whole, so that
/// only what is equal is the same.
pub(super) fn unique_components(document: &Document<'_>, path: &Path) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for value in path.values(document) {
        let value = value.unwrap_or(Value::Null);
        match (&value, elements(&value)) {
            (Value::List(_), elements) if !elements.is_empty() => all.extend(elements.iter().map(canonical)),
            _ => all.push(canonical(&value)),
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Bytes of a value that are those of every value that is equal to it, and of no other.
pub(super) fn canonical(value: &Value<'_>) -> Vec<u8> {
    let mut bytes = order::component(Some(value), false, None).0;
    match value {
        Value::List(_) => {
            for element in elements(value) {
                bytes.push(1);
                bytes.extend(canonical(&element));
            }
            bytes.push(0);
        }
        Value::Object(text) => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap_or_default();
            for (name, member) in members {
                bytes.push(1);
                key::escape(&mut bytes, name.as_bytes());
                bytes.extend(Value::read(member.get()).as_ref().map(canonical).unwrap_or_default());
            }
            bytes.push(0);
        }
        _ => {}
    }
    bytes
}

/// Whether an index may hold several components of a document for a path: there is a list on the way, or at its end.
pub(super) fn is_plural(document: &Document<'_>, path: &Path) -> bool {
    let values = path.values(document);
    values.len() > 1
        || values.iter().flatten().any(|value| matches!(value, Value::List(_)))
        || matches!(path, Path::Of(path) if crosses_a_list(document.text, path))
}

fn crosses_a_list(text: &str, path: &[Segment]) -> bool {
    (1..path.len()).any(|end| {
        let front = path.get(..end).and_then(|front| value::find(text, front));
        front.is_some_and(|front| front.trim_start().starts_with('['))
    })
}

/// The values under a path, with the elements of lists in their place: what tells each from the others, and its JSON text.
pub(super) fn distinct(document: &Document<'_>, path: &Path) -> Vec<(Vec<u8>, String)> {
    let mut all = Vec::new();
    for value in path.values(document).into_iter().flatten() {
        let elements = elements(&value);
        let values = if matches!(value, Value::List(_)) { elements } else { vec![value.clone()] };
        all.extend(values.iter().map(|value| {
            let text = text_of(value);
            let mut place = order::component(Some(value), false, None).0;
            if !value.is_scalar() {
                // Of these the order says nothing but their type.
                place.extend_from_slice(text.as_bytes());
            }
            (place, text)
        }));
    }
    all
}

/// A value as JSON writes it.
pub(super) fn text_of(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(bool) => bool.to_string(),
        Value::Number(number) => number.to_json(),
        Value::Text(text) => serde_json::Value::from(String::from_utf8_lossy(text)).to_string(),
        Value::List(text) | Value::Object(text) => text.trim().to_owned(),
    }
}

/// An empty list, which is before all others.
const EMPTY: u8 = 0x08;

/// By what a document is ordered: of several values under a path the least, or the greatest if it descends; nothing is as null,
/// and an empty list before it.
pub(super) fn order_component(document: &Document<'_>, path: &Path, descending: bool) -> Vec<u8> {
    let mut all = Vec::new();
    for value in path.values(document) {
        match value {
            Some(list @ Value::List(_)) => match elements(&list) {
                elements if elements.is_empty() => all.push(vec![EMPTY]),
                elements => all.extend(elements.iter().map(|element| order::component(Some(element), false, None).0)),
            },
            value => all.push(order::component(Some(&value.unwrap_or(Value::Null)), false, None).0),
        }
    }
    let chosen = if descending { all.into_iter().max() } else { all.into_iter().min() };
    order::directed(chosen.unwrap_or_default(), descending)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document<'_> {
        let known = Known { created_at_ms: 1_000, updated_at_ms: 1_764_523_520_123, revision: 7, owner: "billing" };
        Document { id: "a1", text, known }
    }

    fn shown(text: &str, path: &str) -> Vec<String> {
        let value = |value: Option<Value<'_>>| match value {
            None => "-".to_owned(),
            Some(Value::Null) => "null".into(),
            Some(Value::Bool(bool)) => bool.to_string(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Text(text)) => String::from_utf8_lossy(&text).into_owned(),
            Some(Value::List(text) | Value::Object(text)) => text.into_owned(),
        };
        parse("field", path).unwrap().values(&document(text)).into_iter().map(value).collect()
    }

    #[test]
    fn a_path_goes_through_lists_as_mongodb_does() {
        let text = r#"{"a":{"b":1},"l":[{"b":1},{"c":2},{"b":[3,4]},5],"m":[[{"b":9}],7],"e":[],"n":{"0":"x"}}"#;
        for (path, found) in [
            ("a.b", vec!["1"]),
            ("a.c", vec!["-"]),
            ("a.b.c", vec!["-"]),
            ("x", vec!["-"]),
            ("l.b", vec!["1", "-", "[3,4]"]),
            ("l.0.b", vec!["1", "-", "-", "-"]),
            ("l.3", vec!["5", "-", "-", "-"]),
            ("m.b", vec!["-"]),
            ("m.0.b", vec!["9"]),
            ("m.1", vec!["7"]),
            ("e", vec!["[]"]),
            ("e.b", vec!["-"]),
            ("n.0", vec!["x"]),
            ("_id", vec!["a1"]),
            ("_revision", vec!["7"]),
            ("_owner", vec!["billing"]),
            ("_created_at", vec!["1970-01-01T00:00:01.000Z"]),
            ("_updated_at", vec!["2025-11-30T17:25:20.123Z"]),
        ] {
            assert_eq!(shown(text, path), found, "{path}");
        }
        assert_eq!(shown(r#"{"a":1e99999999999999999999}"#, "a"), ["-"]);
    }

    #[test]
    fn a_path_with_an_operator_in_it_is_refused() {
        for name in
            ["$gt", "a.$b", "", "a..b", "_id.x", "_owner.x", &"a.".repeat(32), &"a".repeat(limits::FIELD_BYTES + 1)]
        {
            assert!(matches!(parse("f", name), Err(Error::InvalidArgument { field, .. }) if field == "f"), "{name}");
        }
        assert_eq!(parse("f", "a.b").unwrap().to_string(), "a.b");
        assert_eq!(parse("f", "_owner").unwrap().to_string(), "_owner");
    }

    #[test]
    fn a_path_of_numbers_takes_no_longer_for_being_ambiguous() {
        let levels = 31;
        let text = r#"{"0":["#.repeat(levels) + "7" + &"]}".repeat(levels);
        let path = ["0"; 32].join(".");
        assert!(shown(&text, &path).len() < 2_000);
        let once = ["0"; 4].join(".");
        assert_eq!(shown(r#"{"0":[{"0":[7]}]}"#, &once), ["7"]);
    }

    #[test]
    fn what_is_equal_and_nothing_else_is_the_same() {
        let of = |text: &str| canonical(&Value::read(text).unwrap());
        for (one, other) in [("1", "1.0"), ("[1,{}]", "[1.0, {}]"), (r#"{"a":1,"b":[2]}"#, r#"{"b":[2.0],"a":1}"#)] {
            assert_eq!(of(one), of(other), "{one} {other}");
        }
        let different = [
            "null",
            "[]",
            "[null]",
            "[[]]",
            "[[],[]]",
            "[1,2]",
            "[12]",
            "{}",
            r#"{"a":{}}"#,
            r#"{"a":[]}"#,
            r#"{"":1}"#,
        ];
        for (at, one) in different.iter().enumerate() {
            different[..at].iter().for_each(|other| assert_ne!(of(one), of(other), "{one} {other}"));
        }
        let unique = |text: &str| unique_components(&document(text), &parse("f", "a").unwrap()).len();
        assert_eq!([unique("{}"), unique(r#"{"a":[]}"#), unique(r#"{"a":[1,1.0,[2]]}"#)], [1, 1, 2]);
    }

    #[test]
    fn what_an_index_holds_of_lists() {
        let count = |text: &str, path: &str| {
            let path = parse("f", path).unwrap();
            (components(&document(text), &path, None).0.len(), is_plural(&document(text), &path))
        };
        assert_eq!(count(r#"{"a":1}"#, "a"), (1, false));
        assert_eq!(count("{}", "a"), (1, false));
        assert_eq!(count(r#"{"a":[1,2,2]}"#, "a"), (3, true));
        assert_eq!(count(r#"{"a":[]}"#, "a"), (1, true));
        assert_eq!(count(r#"{"a":[{"b":1}]}"#, "a.b"), (1, true));
        assert_eq!(count(r#"{"a":{"b":1}}"#, "a.b"), (1, false));
    }

    #[test]
    fn a_list_is_ordered_by_its_least_or_greatest_element() {
        let order = |text: &str, descending| order_component(&document(text), &parse("f", "a").unwrap(), descending);
        let ascending = [r#"{"a":[]}"#, "{}", r#"{"a":-1}"#, r#"{"a":[7,0]}"#, r#"{"a":1}"#, r#"{"a":"x"}"#];
        for pair in ascending.windows(2) {
            assert!(order(pair[0], false) < order(pair[1], false), "{pair:?}");
        }
        assert_eq!(order("{}", false), order(r#"{"a":null}"#, false));
        assert!(order(r#"{"a":[7,0]}"#, true) < order(r#"{"a":1}"#, true));
    }
}
