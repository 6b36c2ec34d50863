//! Fields as bytes that are ordered as the fields are, for sorting and for indexes.
//!
//! ```text
//! null < false < true < numbers < texts < lists < objects        (descending: the other way round)     < not there
//! ```
//!
//! Lists and objects are not ordered among themselves. No encoding is the beginning of another, so several can follow each
//! other. What is too long for an index is cut, which keeps the order, but makes different fields equal. Frozen: these
//! bytes stand in index entries.

use super::{Document, Field, decimal::Decimal, value::Value};
use crate::model::key;

const NULL: u8 = 0x10;
const FALSE: u8 = 0x20;
const TRUE: u8 = 0x21;
const NUMBER: u8 = 0x30;
const TEXT: u8 = 0x40;
const LIST: u8 = 0x50;
const OBJECT: u8 = 0x60;
/// Behind all others in both directions.
const MISSING: u8 = 0xFF;

/// Bytes of a text, and digits of a number, that an index orders by. With the encoding a part of what is stored: an index
/// that was built with another would have to be built anew.
pub const KEPT: usize = 256;

const NEGATIVE: u8 = 1;
const ZERO: u8 = 2;
const POSITIVE: u8 = 3;
/// Exponents up to this take one byte.
const SMALL: i64 = 100;

/// A field by which something is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// The field.
    pub field: Field,
    /// Whether the greatest comes first.
    pub descending: bool,
}

/// The fields of a document, one behind the other; and whether one was cut, at `most` bytes of a text or digits of a number.
pub fn key(document: &Document<'_>, by: &[By], most: Option<usize>) -> (Vec<u8>, bool) {
    let (mut bytes, mut cut) = (Vec::new(), false);
    for By { field, descending } in by {
        let (component, shortened) = component(field.of(document).as_ref(), *descending, most);
        bytes.extend_from_slice(&component);
        cut |= shortened;
    }
    (bytes, cut)
}

/// One field, and whether it was cut.
pub fn component(value: Option<&Value<'_>>, descending: bool, most: Option<usize>) -> (Vec<u8>, bool) {
    let Some(value) = value else { return (vec![MISSING], false) };
    let mut bytes = Vec::new();
    let cut = encode(value, most, &mut bytes);
    (directed(bytes, descending), cut)
}

/// What all texts that begin so begin with; and if that was cut, many others, too.
pub fn text_prefix(text: &[u8], descending: bool, most: usize) -> Vec<u8> {
    let mut bytes = vec![TEXT];
    key::escape(&mut bytes, text.get(..most).unwrap_or(text));
    // Without the end of the text.
    bytes.truncate(bytes.len() - 2);
    directed(bytes, descending)
}

/// What all values of a scalar's type begin with: the first and the last of them. `None` for what has no order.
pub fn type_bounds(value: &Value<'_>) -> Option<(u8, u8)> {
    match value {
        Value::Bool(_) => Some((FALSE, TRUE)),
        Value::Number(_) => Some((NUMBER, NUMBER)),
        Value::Text(_) => Some((TEXT, TEXT)),
        Value::Null | Value::List(_) | Value::Object(_) => None,
    }
}

/// Turns the order of bytes round if it is to descend.
pub fn directed(mut bytes: Vec<u8>, descending: bool) -> Vec<u8> {
    if descending {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
    bytes
}

fn encode(value: &Value<'_>, most: Option<usize>, into: &mut Vec<u8>) -> bool {
    match value {
        Value::Null => into.push(NULL),
        Value::Bool(false) => into.push(FALSE),
        Value::Bool(true) => into.push(TRUE),
        Value::Number(number) => {
            into.push(NUMBER);
            return encode_number(number, most, into);
        }
        Value::Text(text) => {
            into.push(TEXT);
            let kept = most.and_then(|most| text.get(..most)).unwrap_or(text);
            key::escape(into, kept);
            return kept.len() < text.len();
        }
        Value::List(_) => into.push(LIST),
        Value::Object(_) => into.push(OBJECT),
    }
    false
}

fn encode_number(number: &Decimal, most: Option<usize>, into: &mut Vec<u8>) -> bool {
    let Decimal { negative, exponent, digits } = number;
    if digits.is_empty() {
        into.push(ZERO);
        return false;
    }
    let mut size = Vec::with_capacity(digits.len() + 10);
    match *exponent {
        exponent if exponent < -SMALL => {
            size.push(0);
            size.extend_from_slice(&exponent.wrapping_sub(i64::MIN).to_be_bytes());
        }
        exponent if exponent > SMALL => {
            size.push(u8::MAX);
            size.extend_from_slice(&exponent.to_be_bytes());
        }
        // 28 to 228.
        exponent => size.push(u8::try_from(128 + exponent).unwrap_or(128)),
    }
    let kept = most.and_then(|most| digits.get(..most)).unwrap_or(digits);
    size.extend(kept.iter().map(|digit| digit + 1));
    size.push(0);
    into.push(if *negative { NEGATIVE } else { POSITIVE });
    // The greater a negative number's digits, the less it is.
    into.extend(directed(size, *negative));
    kept.len() < digits.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &str, descending: bool, most: Option<usize>) -> Vec<u8> {
        component(Some(&Value::read(text).unwrap()), descending, most).0
    }

    const ASCENDING: [&str; 30] = [
        "null",
        "false",
        "true",
        "-1e400",
        "-1e101",
        "-1e99",
        "-12",
        "-1.5",
        "-1",
        "-0.1",
        "-1e-400",
        "0",
        "1e-400",
        "1e-102",
        "0.1",
        "0.11",
        "1",
        "1.5",
        "2",
        "10",
        "9007199254740992",
        "9007199254740993",
        "1e101",
        "1e400",
        "\"\"",
        "\"\\u0000\"",
        "\"a\"",
        "\"aa\"",
        "\"b\"",
        "[]",
    ];

    #[test]
    fn bytes_are_ordered_as_values_are() {
        for (low, high) in ASCENDING.iter().zip(ASCENDING.iter().skip(1)) {
            assert!(encoded(low, false, None) < encoded(high, false, None), "{low} {high}");
            assert!(encoded(low, true, None) > encoded(high, true, None), "{low} {high}");
            for descending in [false, true] {
                assert!(encoded(high, descending, None) < component(None, descending, None).0);
            }
        }
        assert_eq!(encoded("1.0", false, None), encoded("1", false, None));
        assert!(encoded("[]", false, None) < encoded("{}", false, None));
    }

    #[test]
    fn an_index_has_exactly_these_bytes() {
        assert_eq!(encoded("-1.5", false, None), [0x30, 1, !129, !2, !6, !0]);
        assert_eq!(encoded("1e200", false, None), [0x30, 3, 255, 0, 0, 0, 0, 0, 0, 0, 201, 2, 0]);
        assert_eq!(encoded("\"a\\u0000\"", false, None), [0x40, b'a', 0, 0xFF, 0, 1]);
        assert_eq!(encoded("true", true, None), [!0x21]);
        assert_eq!(component(None, true, None).0, [0xFF]);
    }

    #[test]
    fn what_is_cut_keeps_its_place() {
        assert_eq!(
            component(Some(&Value::read("\"abcd\"").unwrap()), false, Some(3)),
            (encoded("\"abc\"", false, None), true)
        );
        assert_eq!(
            component(Some(&Value::read("1234").unwrap()), false, Some(3)),
            (encoded("1230", false, None), true)
        );
        assert!(!component(Some(&Value::read("123").unwrap()), false, Some(3)).1);
    }

    proptest! {
        #[test]
        fn no_encoding_is_the_beginning_of_another(a in "[\\x00-\\x02a]{0,4}", b in "[\\x00-\\x02a]{0,4}", m in -20i64..20, n in -20i64..20) {
            let text = |text: &str| serde_json::to_string(text).unwrap();
            for (left, right) in [(text(&a), text(&b)), (m.to_string(), n.to_string()), (format!("{m}e-1"), n.to_string())] {
                let (one, other) = (encoded(&left, false, None), encoded(&right, false, None));
                prop_assert_eq!(one.starts_with(&other), one == other);
            }
            prop_assert_eq!(encoded(&text(&a), false, None).cmp(&encoded(&text(&b), false, None)), a.cmp(&b));
            prop_assert!(encoded(&text(&a), false, Some(2)).cmp(&encoded(&text(&b), false, Some(2))) != a.cmp(&b).reverse() || a == b);
        }
    }
}
