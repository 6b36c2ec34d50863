//! What holds for every table of JSON values.

use meshstore::Client;

use super::{assert_missing, invalid_field, tables::Table, unique};

pub async fn a_text_is_kept_exactly<T: Table>(client: &Client) {
    let key = unique("exact");
    let texts = [
        "null",
        "true",
        "0",
        "\"\"",
        "9007199254740993",
        "-9223372036854775808",
        "123456789012345678901234567890",
        "1.10",
        "1e400",
        " { \"b\" : 1 ,\n\t\"a\":[ ] }\r\n",
        r#"{"a":1,"a":2}"#,
        r#""\u00e9 \/ \ud83d\ude00""#,
        "\"é 😀\"",
    ];
    for text in texts {
        T::save(client, &key, text).await.unwrap();
        assert_eq!(T::get(client, &key).await.unwrap().value, text);
    }
}

pub async fn what_is_no_json_is_refused<T: Table>(client: &Client) {
    let key = unique("malformed");
    let texts = [
        "",
        " ",
        "{",
        "}",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "'a'",
        "\"a",
        "nul",
        "NaN",
        "Infinity",
        "01",
        "1.",
        "+1",
        "{} {}",
        "1 2",
        "// comment\n1",
        "\u{feff}1",
        "\"\n\"",
        r#""\x""#,
        "undefined",
    ];
    for text in texts {
        assert_eq!(invalid_field(T::save(client, &key, text).await), T::VALUE_FIELD, "{text:?}");
    }
    assert_missing(T::get(client, &key).await, T::KIND, &key);
    // Neither does it touch what is there.
    T::save(client, &key, "1").await.unwrap();
    assert_eq!(invalid_field(T::save(client, &key, "{").await), T::VALUE_FIELD);
    let stored = T::get(client, &key).await.unwrap();
    assert_eq!((stored.value.as_str(), stored.version), ("1", 1));
}

pub async fn depth_is_bounded<T: Table>(client: &Client) {
    let key = unique("depth");
    let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    T::save(client, &key, &nested(64)).await.unwrap();
    assert_eq!(T::get(client, &key).await.unwrap().value, nested(64));
    assert_eq!(invalid_field(T::save(client, &key, &nested(65)).await), T::VALUE_FIELD);
    assert_eq!(invalid_field(T::save(client, &key, &nested(100_000)).await), T::VALUE_FIELD);
    // Brackets in a string are no nesting.
    let text = format!("\"{}\"", "[".repeat(1_000));
    T::save(client, &key, &text).await.unwrap();
}
