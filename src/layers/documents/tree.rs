//! A JSON text that is changed in places: opened only where a change goes, so that all else stays as it was sent.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::super::query::value::Segment;

/// Elements that a list may grow by when one behind its end is written.
const GAP: usize = 100;

/// A value, as far as it was looked into.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    /// As it was sent.
    Text(String),
    /// The members of an object, in their order.
    Object(Vec<(String, Tree)>),
    /// The elements of a list.
    List(Vec<Tree>),
}

/// The members of an object in the order in which they stand; of several of one name the last.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(object: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut members, mut places): (Self::Value, HashMap<String, usize>) = Default::default();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    match places.get(&name).and_then(|place| members.get_mut(*place)) {
                        Some(known) => known.1 = value,
                        None => {
                            places.insert(name.clone(), members.len());
                            members.push((name, value));
                        }
                    }
                }
                Ok(members)
            }
        }
        object.deserialize_map(Read).map(Self)
    }
}

/// Where a path led that could not be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    #[error("there is a value in its way that is neither an object nor a list")]
    InTheWay,
    #[error("{0:?} is no number of an element, and it leads into a list")]
    NoElement(String),
    #[error("element {0} is more than {GAP} behind the end of the list")]
    FarBehind(usize),
    #[error("it leads through a name that is no UTF-8")]
    Unreadable,
}

impl Tree {
    /// A value that was checked.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The members of an object that was checked. Errors: it is none, or a name of it is no UTF-8.
    pub(super) fn members(text: &str) -> Result<Vec<(String, &str)>, Wrong> {
        let Members(members) = serde_json::from_str(text).map_err(|_| Wrong::Unreadable)?;
        Ok(members.into_iter().map(|(name, value)| (name, value.get())).collect())
    }

    /// An object or a list is taken apart.
    fn open(&mut self) -> Result<(), Wrong> {
        let Self::Text(text) = self else { return Ok(()) };
        let opened = match text.trim_start().as_bytes().first() {
            Some(b'{') => {
                let members = Self::members(text)?;
                Self::Object(members.into_iter().map(|(name, value)| (name, Self::text(value))).collect())
            }
            Some(b'[') => {
                let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Wrong::Unreadable)?;
                Self::List(elements.into_iter().map(|element| Self::text(element.get())).collect())
            }
            _ => return Ok(()),
        };
        *self = opened;
        Ok(())
    }

    /// What stands under a path. Errors: as of [`Wrong`].
    pub(super) fn get_mut(&mut self, path: &[Segment]) -> Result<Option<&mut Self>, Wrong> {
        let Some((first, rest)) = path.split_first() else { return Ok(Some(self)) };
        self.open()?;
        let inner = match self {
            Self::Object(members) => members.iter_mut().find(|(name, _)| name == first.name()).map(|(_, value)| value),
            Self::List(elements) => match first.element() {
                Some(at) => elements.get_mut(at),
                None => return Err(Wrong::NoElement(first.name().into())),
            },
            Self::Text(_) => None,
        };
        inner.map_or(Ok(None), |inner| inner.get_mut(rest))
    }

    /// What stands under a path, which is made if it is not there: objects on the way, and null at its end.
    pub(super) fn make(&mut self, path: &[Segment]) -> Result<&mut Self, Wrong> {
        let Some((first, rest)) = path.split_first() else { return Ok(self) };
        self.open()?;
        let fresh = || Self::text(if rest.is_empty() { "null" } else { "{}" });
        match self {
            Self::Object(members) => {
                let at = match members.iter().position(|(name, _)| name == first.name()) {
                    Some(at) => at,
                    None => {
                        members.push((first.name().into(), fresh()));
                        members.len() - 1
                    }
                };
                members.get_mut(at).ok_or(Wrong::InTheWay)?.1.make(rest)
            }
            Self::List(elements) => {
                let at = first.element().ok_or_else(|| Wrong::NoElement(first.name().into()))?;
                if at >= elements.len() + GAP {
                    return Err(Wrong::FarBehind(at));
                }
                while elements.len() < at {
                    elements.push(Self::text("null"));
                }
                if elements.len() == at {
                    elements.push(fresh());
                }
                elements.get_mut(at).ok_or(Wrong::InTheWay)?.make(rest)
            }
            Self::Text(_) => Err(Wrong::InTheWay),
        }
    }

    /// Takes away what stands under a path: a member goes, an element becomes null.
    pub(super) fn remove(&mut self, path: &[Segment]) -> Result<(), Wrong> {
        let Some((last, front)) = path.split_last() else { return Ok(()) };
        let Some(home) = self.get_mut(front)? else { return Ok(()) };
        home.open()?;
        match home {
            Self::Object(members) => members.retain(|(name, _)| name != last.name()),
            Self::List(elements) => {
                if let Some(element) = last.element().and_then(|at| elements.get_mut(at)) {
                    *element = Self::text("null");
                }
            }
            Self::Text(_) => {}
        }
        Ok(())
    }

    /// The elements of a list; `None` if it is none.
    pub(super) fn list_mut(&mut self) -> Result<Option<&mut Vec<Self>>, Wrong> {
        self.open()?;
        Ok(match self {
            Self::List(elements) => Some(elements),
            _ => None,
        })
    }

    /// As a JSON text.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, into: &mut String) {
        match self {
            Self::Text(text) => into.push_str(text),
            Self::Object(members) => {
                into.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        into.push(',');
                    }
                    write_name(name, into);
                    value.write(into);
                }
                into.push('}');
            }
            Self::List(elements) => {
                into.push('[');
                for (at, element) in elements.iter().enumerate() {
                    if at > 0 {
                        into.push(',');
                    }
                    element.write(into);
                }
                into.push(']');
            }
        }
    }
}

/// The name of a member, and the colon behind it.
pub(super) fn write_name(name: &str, into: &mut String) {
    into.push_str(&serde_json::Value::from(name).to_string());
    into.push(':');
}

#[cfg(test)]
mod tests {
    use super::{super::super::query::value, *};

    fn path(text: &str) -> Vec<Segment> {
        value::path(text).unwrap()
    }

    #[test]
    fn what_is_not_changed_stays_as_it_was_sent() {
        let mut tree = Tree::text(r#"{ "n": 1.0,"a": {"b": [1, {"c":90071992547409931}]},"n2":  1e2 }"#);
        *tree.make(&path("a.b.1.d")).unwrap() = Tree::text("true");
        *tree.make(&path("x.y")).unwrap() = Tree::text("\"é\"");
        *tree.make(&path("a.b.3")).unwrap() = Tree::text("4");
        tree.remove(&path("a.b.0")).unwrap();
        tree.remove(&path("n2")).unwrap();
        tree.remove(&path("nothing.here")).unwrap();
        assert_eq!(
            tree.to_text(),
            r#"{"n":1.0,"a":{"b":[null,{"c":90071992547409931,"d":true},null,4]},"x":{"y":"é"}}"#
        );
    }

    #[test]
    fn a_path_that_leads_nowhere_is_told() {
        let mut tree = Tree::text(r#"{"n":1,"l":[1]}"#);
        assert_eq!(tree.make(&path("n.x")).err(), Some(Wrong::InTheWay));
        assert_eq!(tree.make(&path("l.x")).err(), Some(Wrong::NoElement("x".into())));
        assert_eq!(tree.make(&path("l.200")).err(), Some(Wrong::FarBehind(200)));
        assert_eq!(tree.to_text(), r#"{"n":1,"l":[1]}"#);
    }
}
