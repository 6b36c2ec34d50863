//! The lines of a file.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::super::{Entry, SetEntry, Value};
use crate::limits;

/// The format that is written, and the newest that is read.
const FORMAT: u32 = 1;

/// The first line of an export.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    meshstore_export: u32,
    namespace: String,
    revision: u64,
}

/// Its last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    end: bool,
    pub(super) values: u64,
}

/// A value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    key: String,
    #[serde(borrow, default, deserialize_with = "given")]
    value: Option<&'a RawValue>,
    json: Option<String>,
    bytes: Option<String>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    metadata_json: Option<String>,
}

/// A member that is there, also if it is null.
fn given<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// What a line can be.
pub(super) enum Parsed {
    Head,
    Value(SetEntry),
    End(End),
}

/// The first line of an export.
pub(super) fn head(namespace: &str, revision: u64) -> String {
    text(&Head { meshstore_export: FORMAT, namespace: namespace.into(), revision })
}

/// Its last line.
pub(super) fn end(values: u64) -> String {
    text(&End { end: true, values })
}

/// The line of a value.
pub(super) fn of(entry: &Entry) -> String {
    let mut line = format!("{{\"key\":{}", text(&entry.key));
    match &entry.value {
        Value::Json(json) => put(&mut line, ("value", "json"), json),
        Value::Bytes(bytes) => line.push_str(&format!(",\"bytes\":\"{}\"", STANDARD.encode(bytes))),
    }
    // Attributes that were never set are none to be written.
    if let Some(attributes) = entry.metadata.attributes.as_ref().filter(|_| entry.metadata.attributes_revision > 0) {
        put(&mut line, ("metadata", "metadata_json"), attributes);
    }
    line.push('}');
    line
}

/// Puts a JSON text into a line exactly as it is; one with line breaks, or with spaces around it, as a string.
fn put(line: &mut String, (plain, quoted): (&str, &str), json: &str) {
    match json.contains(['\n', '\r']) || json.trim() != json {
        false => line.push_str(&format!(",\"{plain}\":{json}")),
        true => line.push_str(&format!(",\"{quoted}\":{}", text(json))),
    }
}

/// The JSON of a value of which serde_json cannot refuse any: strings, numbers, and structs of these.
fn text(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Reads a line, without its line break; what is wrong with it.
pub(super) fn parse(line: &str) -> Result<Parsed, String> {
    // Which of the three it is its members say, so that each is told what is wrong in its own terms.
    let begins =
        |member: &str| line.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with(member));
    if begins("\"meshstore_export\"") {
        let head: Head = serde_json::from_str(line).map_err(|error| error.to_string())?;
        return match head.meshstore_export {
            1..=FORMAT => Ok(Parsed::Head),
            other => Err(format!("format {other} of exports is not known here ({FORMAT} is); use a newer meshstore")),
        };
    }
    if begins("\"end\"") {
        return serde_json::from_str(line).map(Parsed::End).map_err(|error| error.to_string());
    }
    let Line { key, value, json, bytes, metadata, metadata_json } =
        serde_json::from_str(line).map_err(|error| error.to_string())?;
    let value = match (value, json, bytes) {
        (Some(value), None, None) => Value::Json(value.get().to_owned()),
        (None, Some(json), None) => Value::Json(checked("json", json)?),
        (None, None, Some(bytes)) => {
            let bytes = STANDARD.decode(bytes).map_err(|error| format!("bytes must be base64: {error}"))?;
            Value::Bytes(bytes.into())
        }
        _ => return Err("a value has one of the members value, json and bytes".into()),
    };
    let metadata = match (metadata, metadata_json) {
        (Some(_), Some(_)) => return Err("metadata and metadata_json exclude each other".into()),
        (metadata, json) => {
            let json = json.map(|json| checked("metadata_json", json)).transpose()?;
            metadata.map(|metadata| metadata.get().to_owned()).or(json)
        }
    };
    check(&key, &value, metadata.as_deref())?;
    Ok(Parsed::Value(SetEntry { metadata, ..SetEntry::new(key, value) }))
}

fn checked(member: &str, json: String) -> Result<String, String> {
    let parsed = serde_json::from_str::<IgnoredAny>(&json);
    parsed.map(|_| json).map_err(|error| format!("{member} must hold one JSON value: {error}"))
}

/// The bounds of the contract, so that a file that breaks one is refused before any of it is written.
fn check(key: &str, value: &Value, metadata: Option<&str>) -> Result<(), String> {
    if key.trim().is_empty() {
        return Err("key must not be empty or all spaces".into());
    }
    let sizes = [
        ("key", key.len(), limits::KEY_BYTES),
        ("the value", value.len(), limits::VALUE_BYTES),
        ("metadata", metadata.map_or(0, str::len), limits::ATTRIBUTES_BYTES),
    ];
    if let Some((what, bytes, most)) = sizes.into_iter().find(|(_, bytes, most)| bytes > most) {
        return Err(format!("{what} must be at most {most} bytes (given: {bytes})"));
    }
    match metadata {
        Some(metadata) if !metadata.trim_start().starts_with('{') => Err("metadata must be a JSON object".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Metadata;

    fn entry(value: Value, attributes: Option<&str>) -> Entry {
        let attributes_revision = u64::from(attributes.is_some());
        let attributes = Some(attributes.unwrap_or("{}").to_owned());
        Entry {
            key: "k\"\n".into(),
            value,
            metadata: Metadata { attributes, attributes_revision, ..Metadata::default() },
        }
    }

    #[test]
    fn what_is_written_is_read_back_exactly() {
        for (value, attributes) in [
            (Value::Json("null".into()), None),
            (Value::Json("{ \"a\": 90071992547409931, \"a\":1.0}".into()), Some("{\"x\": 1.0}")),
            (Value::Json(" 1 ".into()), None),
            (Value::Json("{\r\n\t\"a\": 1\n}".into()), Some("{\n}")),
            (Value::Json("\"end\"".into()), Some("{}")),
            (Value::Bytes(vec![0, 255, b'\n'].into()), None),
            (Value::Bytes(Default::default()), None),
        ] {
            let line = of(&entry(value.clone(), attributes));
            assert!(!line.contains('\n'), "{line}");
            let Ok(Parsed::Value(read)) = parse(&line) else { panic!("{line}") };
            let expected = SetEntry { metadata: attributes.map(str::to_owned), ..SetEntry::new("k\"\n", value) };
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn the_lines_have_exactly_this_form() {
        assert_eq!(head("users", 42), r#"{"meshstore_export":1,"namespace":"users","revision":42}"#);
        assert_eq!(end(3), r#"{"end":true,"values":3}"#);
        let line = of(&entry(Value::Json("{\"a\": 1}".into()), Some("{\"b\": 2}")));
        assert_eq!(line, r#"{"key":"k\"\n","value":{"a": 1},"metadata":{"b": 2}}"#);
        assert_eq!(of(&entry(Value::Bytes("hello".into()), None)), r#"{"key":"k\"\n","bytes":"aGVsbG8="}"#);
    }

    #[test]
    fn what_is_no_line_is_told_why() {
        let long = format!("{{\"key\":\"{}\",\"value\":1}}", "k".repeat(limits::KEY_BYTES + 1));
        for (line, why) in [
            ("", "EOF"),
            ("[]", "expected"),
            ("{\"key\":\"a\"}", "one of the members"),
            ("{\"key\":\"a\",\"value\":1,\"bytes\":\"\"}", "one of the members"),
            ("{\"key\":\"a\",\"valeu\":1}", "unknown field"),
            ("{\"key\":\"a\",\"json\":\"{\"}", "json must hold one JSON value"),
            ("{\"key\":\"a\",\"bytes\":\"?\"}", "base64"),
            ("{\"key\":\" \",\"value\":1}", "must not be empty"),
            ("{\"key\":\"a\",\"value\":1,\"metadata\":[]}", "JSON object"),
            ("{\"key\":\"a\",\"value\":1,\"metadata\":{},\"metadata_json\":\"{}\"}", "exclude"),
            ("{\"meshstore_export\":2,\"namespace\":\"a\",\"revision\":1}", "newer"),
            (long.as_str(), "at most 1024 bytes"),
        ] {
            match parse(line) {
                Err(told) => assert!(told.contains(why), "{line}: {told}"),
                Ok(_) => panic!("{line} is a line"),
            }
        }
    }
}
