//! Projections: which fields of a document are answered.

use super::{
    super::query::value::Segment,
    path::{self, ID, Path},
    tree::{Tree, write_name},
};
use crate::{Error, Result, layers::check, limits};

/// Most fields of a projection.
const FIELDS: usize = 256;

/// A projection that was checked; without fields everything is answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Projection {
    /// Whether these are the fields that are answered, and not those that are left out.
    include: bool,
    paths: Vec<Vec<Segment>>,
    without_id: bool,
}

impl Projection {
    /// Of fields that alone are answered, beside the id, and of fields that are left out; `_id` may stand among these beside
    /// the others. Errors: `InvalidArgument`.
    pub(super) fn parse(include: &[String], exclude: &[String]) -> Result<Self> {
        let mut projection = Self { include: !include.is_empty(), ..Self::default() };
        for (place, names) in [("projection.include", include), ("projection.exclude", exclude)] {
            check::check_count(place, names.len(), FIELDS)?;
            for name in names {
                if name.as_str() == ID {
                    projection.without_id = place == "projection.exclude";
                    continue;
                }
                match path::parse(place, name)? {
                    Path::Of(path) if projection.include && place == "projection.exclude" => {
                        let rule = "cannot be left out where others alone are answered; only _id can";
                        return Err(Error::invalid(place, path::joined(&path), rule));
                    }
                    Path::Of(path) => projection.paths.push(path),
                    Path::Id | Path::Known(_) => {
                        return Err(Error::invalid(place, name, "is always answered, beside the document"));
                    }
                }
            }
        }
        Ok(projection)
    }

    /// What is answered of a document: a JSON object, with its id in front.
    pub(super) fn of(&self, id: &str, text: &str) -> String {
        let mut shown = String::with_capacity(text.len().min(limits::VALUE_BYTES) + id.len() + 16);
        shown.push('{');
        if !self.without_id {
            write_name(ID, &mut shown);
            shown.push_str(&serde_json::Value::from(id).to_string());
        }
        let inner = if self.paths.is_empty() && !self.include {
            text.to_owned()
        } else {
            let paths: Vec<&[Segment]> = self.paths.iter().map(Vec::as_slice).collect();
            self.object(text, &paths)
        };
        let inner = inner.trim().strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or_default();
        if !inner.trim().is_empty() {
            if !self.without_id {
                shown.push(',');
            }
            shown.push_str(inner);
        }
        shown.push('}');
        shown
    }

    fn object(&self, text: &str, paths: &[&[Segment]]) -> String {
        let Ok(members) = Tree::members(text) else { return "{}".into() };
        let mut shown = String::from("{");
        for (name, value) in members {
            let below = paths.iter().filter(|path| path.first().is_some_and(|first| first.name() == name));
            let below: Vec<&[Segment]> = below.filter_map(|path| path.get(1..)).collect();
            let Some(value) = self.value(value, &below) else { continue };
            if shown.len() > 1 {
                shown.push(',');
            }
            write_name(&name, &mut shown);
            shown.push_str(&value);
        }
        shown.push('}');
        shown
    }

    /// What is answered of a value, of which these are the paths below it.
    fn value(&self, text: &str, below: &[&[Segment]]) -> Option<String> {
        if below.iter().any(|path| path.is_empty()) || below.is_empty() {
            // Named itself, or not at all.
            return (below.is_empty() != self.include).then(|| text.to_owned());
        }
        match text.trim_start().as_bytes().first() {
            Some(b'{') => Some(self.object(text, below)),
            Some(b'[') => {
                let elements: Vec<&serde_json::value::RawValue> = serde_json::from_str(text).unwrap_or_default();
                let elements = elements.into_iter().filter_map(|element| match element.get().as_bytes().first() {
                    Some(b'{' | b'[') => self.value(element.get(), below),
                    _ => (!self.include).then(|| element.get().to_owned()),
                });
                Some(format!("[{}]", elements.collect::<Vec<_>>().join(",")))
            }
            _ => (!self.include).then(|| text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(include: &[&str], exclude: &[&str]) -> String {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let text = r#" {"a":1.0, "b":{"c":[{"d":1,"e":2},3,{"e":4}],"f":5} } "#;
        Projection::parse(&names(include), &names(exclude)).unwrap().of("x\"y", text)
    }

    #[test]
    fn fields_are_answered_or_left_out() {
        assert_eq!(shown(&[], &[]), r#"{"_id":"x\"y","a":1.0, "b":{"c":[{"d":1,"e":2},3,{"e":4}],"f":5} }"#);
        assert_eq!(shown(&["a"], &[]), r#"{"_id":"x\"y","a":1.0}"#);
        assert_eq!(shown(&["a", "nothing"], &["_id"]), r#"{"a":1.0}"#);
        assert_eq!(shown(&["b.c.e"], &[]), r#"{"_id":"x\"y","b":{"c":[{"e":2},{"e":4}]}}"#);
        assert_eq!(shown(&["_id"], &[]), r#"{"_id":"x\"y"}"#);
        assert_eq!(shown(&[], &["b"]), r#"{"_id":"x\"y","a":1.0}"#);
        assert_eq!(shown(&[], &["b.c.e", "a"]), r#"{"_id":"x\"y","b":{"c":[{"d":1},3,{}],"f":5}}"#);
        assert_eq!(shown(&[], &["_id", "b"]), r#"{"a":1.0}"#);
    }

    #[test]
    fn what_is_no_projection_is_refused() {
        let refused = |include: &[&str], exclude: &[&str]| {
            let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
            Projection::parse(&names(include), &names(exclude)).is_err()
        };
        assert!(refused(&["a"], &["b"]) && refused(&["$a"], &[]) && refused(&["_owner"], &[]) && refused(&[""], &[]));
    }
}
