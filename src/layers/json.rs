//! JSON values: checked, then kept exactly as they were sent.
//!
//! They are never parsed into values, which would round integers above 2^53, reorder members and drop
//! duplicates. What comes back is what was sent, spaces and all.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::check::{check_length, check_size};
use crate::{Error, Result};

/// Deepest nesting of arrays and objects: what parsers of all languages take without complaint.
pub const DEPTH: usize = 64;

/// That a text is exactly one JSON value within the limits. Errors: `InvalidArgument` naming `field`.
pub fn check(field: &str, text: &str) -> Result<()> {
    check_size(field, text.len())?;
    check_depth(field, text)?;
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::invalid(field, "", format!("must be one JSON value: {error}"))),
    }
}

/// That a JSON text is nested no deeper than it may be. Errors: `InvalidArgument` naming `field`.
pub fn check_depth(field: &str, text: &str) -> Result<()> {
    if depth(text) > DEPTH {
        return Err(Error::invalid(field, "", format!("must not be nested deeper than {DEPTH} levels")));
    }
    Ok(())
}

/// That a text is one JSON object of at most `most` bytes. Errors: `InvalidArgument` naming `field`.
pub fn check_object(field: &str, text: &str, most: usize) -> Result<()> {
    check_length(field, text.len(), most)?;
    check(field, text)?;
    members(field, text).map(drop)
}

/// The object `new`, with those members of `old` that it does not have; each member is kept as it was sent. Both were
/// checked. Errors: `InvalidArgument` naming `field`.
pub fn merge(field: &str, old: &str, new: &str) -> Result<String> {
    let mut merged = members(field, old)?;
    merged.extend(members(field, new)?);
    serde_json::to_string(&merged).map_err(|error| Error::invalid(field, "", format!("cannot be merged: {error}")))
}

fn members<'a>(field: &str, text: &'a str) -> Result<BTreeMap<String, &'a RawValue>> {
    serde_json::from_str(text).map_err(|error| Error::invalid(field, "", format!("must be a JSON object: {error}")))
}

/// The deepest nesting of brackets outside of strings; exact for valid JSON.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_merged_by_their_members_and_these_are_kept_as_they_were() {
        let merged = merge("m", r#"{"b": 1.0, "a": {"x": 9007199254740993}, "c":null}"#, r#"{"b":[ ],"d":""}"#);
        assert_eq!(merged.unwrap(), r#"{"a":{"x": 9007199254740993},"b":[ ],"c":null,"d":""}"#);
        for no_object in ["[]", "1", "null", "\"{}\"", "{", "{}{}"] {
            assert!(check_object("m", no_object, 100).is_err(), "{no_object}");
        }
        assert!(check_object("m", "{}", 2).is_ok() && check_object("m", "{ }", 2).is_err());
    }
    use crate::limits;

    fn rule(text: &str) -> Option<String> {
        match check("value_json", text) {
            Ok(()) => None,
            Err(Error::InvalidArgument { field, rule, .. }) if field == "value_json" => Some(rule),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn one_json_value_is_taken() {
        let huge = "123456789012345678901234567890";
        for text in [
            "null",
            " true\n",
            "0",
            "-0.5e+10",
            huge,
            "1e999",
            r#""""#,
            r#""\ud83d\ude00\n""#,
            "[]",
            "{}",
            r#"{"a":1,"a":2,  "b":[{},null]}"#,
            r#"{"]]]":"[[[\"[[["}"#,
        ] {
            assert_eq!(rule(text), None, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            " ",
            "nul",
            "NaN",
            "Infinity",
            "01",
            "1.",
            ".5",
            "+1",
            "0x10",
            "'a'",
            "\"a",
            "\"\t\"",
            r#""\x""#,
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "{1:2}",
            "[",
            "]",
            "{}{}",
            "1 2",
            "[1] x",
            "\u{feff}{}",
            "// c\n1",
            "\0",
        ] {
            assert!(rule(text).is_some_and(|rule| rule.starts_with("must be one JSON value")), "{text:?}");
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let nested = |levels: usize| "[{\"a\":".repeat(levels / 2) + "1" + &"}]".repeat(levels / 2);
        assert_eq!(rule(&nested(DEPTH)), None);
        assert!(rule(&nested(DEPTH + 2)).unwrap().contains("nested"));
        // A million brackets are refused without recursion.
        assert!(rule(&"[".repeat(limits::VALUE_BYTES)).unwrap().contains("nested"));
        let sized = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert_eq!(rule(&sized(limits::VALUE_BYTES)), None);
        assert!(rule(&sized(limits::VALUE_BYTES + 1)).unwrap().contains("bytes long"));
    }
}
