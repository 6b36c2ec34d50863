//! A namespace into a file, out of one, and from one backend to another.

use std::{io::Cursor, sync::Arc};

use meshstore::{
    Error, Storage,
    backends::Memory,
    contract::{
        SetEntry, SetManyOptions, SetMetadataOptions, Value,
        transfer::{Exported, Failure, IfExists, Imported, copy, export, import},
    },
    limits,
};

use super::{super::cases::unique, Through};

fn json(text: &str) -> Value {
    Value::Json(text.into())
}

/// Values of all kinds.
async fn fill(storage: &dyn Storage) -> String {
    let namespace = unique("moved");
    let with =
        |key: &str, value, metadata: &str| SetEntry { metadata: Some(metadata.into()), ..SetEntry::new(key, value) };
    let entries = vec![
        SetEntry::new("null", json("null")),
        with("pretty", json("{\r\n  \"n\": 90071992547409931,\n  \"n\": 1.0\n}"), "{\n\"a\": 1.0}"),
        with("bytes", Value::Bytes(vec![0, 255, b'\n'].into()), "{}"),
        SetEntry::new("  spaced\t\"key\"\u{1}", json(" [ 1 ] ")),
        SetEntry::new("none", Value::Bytes(Default::default())),
    ];
    storage.set_many(entries, namespace.as_str().into()).await.unwrap();
    namespace
}

/// All that a namespace holds: key, value, attributes.
async fn held(storage: &dyn Storage, namespace: &str) -> Vec<(String, Value, Option<String>)> {
    let keys = storage.list(namespace.into()).await.unwrap().items;
    let mut held = Vec::new();
    for key in keys {
        let value = storage.get(&key, namespace.into()).await.unwrap().value;
        let metadata = storage.get_metadata(&key, namespace.into()).await.unwrap();
        held.push((key, value, metadata.attributes.filter(|_| metadata.attributes_revision > 0)));
    }
    held
}

async fn exported(storage: &dyn Storage, namespace: &str) -> (Exported, String) {
    let mut file = Vec::new();
    let exported = export(storage, namespace, &mut file, &mut |_| ()).await.unwrap();
    (exported, String::from_utf8(file).unwrap())
}

async fn imported(
    storage: &dyn Storage,
    namespace: &str,
    text: &str,
    if_exists: IfExists,
) -> Result<Imported, Failure> {
    import(storage, namespace, &mut Cursor::new(text), if_exists, &mut |_| ()).await
}

fn told(answer: Result<Imported, Failure>) -> String {
    answer.expect_err("it is refused").to_string()
}

pub async fn an_export_is_imported_exactly(Through(storage): &Through) {
    let storage = storage.as_ref();
    let (from, to) = (fill(storage).await, unique("moved"));
    let (Exported { revision, values }, text) = exported(storage, &from).await;
    let head = format!("{{\"meshstore_export\":1,\"namespace\":\"{from}\",\"revision\":{revision}}}\n");
    assert!(text.starts_with(&head) && text.ends_with("{\"end\":true,\"values\":5}\n"), "{text}");
    assert_eq!((values, text.lines().count()), (5, 7));
    let done = imported(storage, &to, &text, IfExists::Fail).await.unwrap();
    assert_eq!(done, Imported { written: 5, skipped: 0 });
    let before = held(storage, &from).await;
    assert_eq!(held(storage, &to).await, before);
    assert_eq!(before[0].1, json(" [ 1 ] "));
    let again = exported(storage, &to).await.1;
    assert_eq!(again.lines().skip(1).collect::<Vec<_>>(), text.lines().skip(1).collect::<Vec<_>>());
    let empty = unique("empty");
    storage.create_namespace(&empty, Default::default()).await.unwrap();
    let (Exported { values: 0, .. }, text) = exported(storage, &empty).await else { panic!("it is empty") };
    assert_eq!(imported(storage, &empty, &text, IfExists::Fail).await.unwrap(), Imported::default());
    let missing = export(storage, &unique("missing"), &mut Vec::new(), &mut |_| ()).await;
    assert!(matches!(missing, Err(Failure::Answer(Error::NotFound { .. }))), "{missing:?}");
}

pub async fn an_export_is_of_one_revision(Through(storage): &Through) {
    let namespace = unique("moved");
    // More than one page of keys, and more than one answer of values.
    for part in 0..3 {
        let entries = (0..500).map(|n| SetEntry::new(format!("{part}/{n:03}"), json("1"))).collect();
        storage.set_many(entries, namespace.as_str().into()).await.unwrap();
    }
    for n in 0..5 {
        let large = Value::Bytes(vec![7; limits::VALUE_BYTES].into());
        storage.set(&format!("large/{n}"), large, namespace.as_str().into()).await.unwrap();
    }
    let (mut file, mut parts) = (Vec::new(), 0);
    let (others, place) = (Arc::clone(storage), namespace.clone());
    let mut meanwhile = |_| {
        parts += 1;
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                others.set("2/499", json("2"), place.as_str().into()).await.unwrap();
                others.delete(&format!("large/{}", parts % 5), place.as_str().into()).await.unwrap();
                others.set(&format!("3/{parts}"), json("2"), place.as_str().into()).await.unwrap();
            });
        });
    };
    let done = export(storage.as_ref(), &namespace, &mut file, &mut meanwhile).await.unwrap();
    let text = String::from_utf8(file).unwrap();
    assert!(parts > 3, "it came in parts");
    assert_eq!(done.values, 1_505);
    assert!(text.contains("{\"key\":\"2/499\",\"value\":1}") && !text.contains("\"3/"), "what came later is not in it");
}

pub async fn what_is_there_is_overwritten_skipped_or_stops_the_import(Through(storage): &Through) {
    let storage = storage.as_ref();
    let namespace = unique("moved");
    let place = || namespace.as_str();
    let text = "{\"key\":\"b\",\"value\":2,\"metadata\":{\"x\":2}}\n{\"key\":\"a\",\"value\":2}\r\n{\"key\":\"c\",\"value\":2}";
    storage.set("a", json("1"), place().into()).await.unwrap();
    storage.set_metadata("a", "{\"y\":1}", SetMetadataOptions::from(place())).await.unwrap();
    let what = told(imported(storage, place(), text, IfExists::Fail).await);
    assert!(
        what.contains("line 2 (key a)") && what.contains("exists already") && what.contains("0 values were"),
        "{what}"
    );
    assert_eq!(storage.count(place().into()).await.unwrap(), 1, "a batch is written wholly or not at all");
    let skipped = imported(storage, place(), text, IfExists::Skip).await.unwrap();
    assert_eq!(skipped, Imported { written: 2, skipped: 1 });
    assert_eq!(storage.get("a", place().into()).await.unwrap().value, json("1"));
    for _ in 0..2 {
        let overwritten = imported(storage, place(), text, IfExists::Overwrite).await.unwrap();
        assert_eq!(overwritten, Imported { written: 3, skipped: 0 });
        let expected = [("a", "{\"y\":1}"), ("b", "{\"x\":2}")];
        for (key, attributes) in expected {
            assert_eq!(storage.get(key, place().into()).await.unwrap().value, json("2"));
            let metadata = storage.get_metadata(key, place().into()).await.unwrap();
            assert_eq!(metadata.attributes.as_deref(), Some(attributes));
        }
    }
}

pub async fn a_file_that_is_not_whole_changes_nothing(Through(storage): &Through) {
    let storage = storage.as_ref();
    let (from, to) = (fill(storage).await, unique("moved"));
    let (_, text) = exported(storage, &from).await;
    let lines: Vec<&str> = text.lines().collect();
    let cut = lines[..6].join("\n");
    let half = &text[..text.len() / 2];
    let swapped = [&lines[..2], &[lines[3], lines[2]], &lines[4..]].concat().join("\n");
    let short = [&lines[..5], &lines[6..]].concat().join("\n");
    let long = text.clone() + "{\"key\":\"more\",\"value\":1}";
    let value = "{\"key\":\"a\",\"value\":1}";
    let other = "{\"key\":\"b\",\"value\":1}";
    for (wrong, why) in [
        (cut.as_str(), "line 7: the export is cut off here"),
        (half, "line "),
        (&swapped, "line 4: the keys of an export ascend"),
        (&short, "line 6: the export says that it has 5 values, but 4"),
        (&long, "line 8: nothing may follow"),
        (&format!("{value}\n{text}"), "line 2: an export begins here"),
        (&format!("{value}\n{{\"end\":true,\"values\":1}}"), "line 2: an export ends here"),
        (&format!("{value}\n{other}\n{value}"), "line 3: this key stands in line 1"),
        (&format!("{value}\n\n{other}"), "line 2: EOF"),
        (&format!("{value}\n{{\"key\":\"b\"}}"), "line 2: a value has one of the members"),
        (&format!("{value}\n{{\"key\":\"b\",\"valeu\":1}}"), "line 2: unknown field `valeu`"),
        (&format!("{value}\n{{\"key\":\"\",\"value\":1}}"), "line 2: key must not be empty"),
    ] {
        let what = told(imported(storage, &to, wrong, IfExists::Overwrite).await);
        assert!(what.starts_with(why), "{what} is not {why}");
        let missing = storage.count(to.as_str().into()).await;
        assert!(matches!(missing, Err(Error::NotFound { .. })), "something was written: {why}");
    }
    let binary = import(storage, &to, &mut Cursor::new([0xFF, b'\n']), IfExists::Skip, &mut |_| ()).await;
    assert!(told(binary).contains("line 1: must be UTF-8"));
}

pub async fn what_the_store_refuses_is_told_with_its_line(Through(storage): &Through) {
    let storage = storage.as_ref();
    let deep = "[".repeat(100) + &"]".repeat(100);
    let text = format!("{{\"key\":\"a\",\"value\":1}}\n{{\"key\":\"deep\",\"value\":{deep}}}\n");
    for (if_exists, line) in [(IfExists::Overwrite, true), (IfExists::Skip, true), (IfExists::Fail, false)] {
        let what = told(imported(storage, &unique("moved"), &text, if_exists).await);
        assert!(what.contains("nested deeper"), "{what}");
        assert_eq!(what.contains("line 2 (key deep)"), line, "{what}");
    }
    let full = unique("full");
    let settings = meshstore::client::NamespaceSettings { max_entries: 1, ..Default::default() };
    let options = meshstore::contract::CreateNamespaceOptions { settings, ..Default::default() };
    storage.create_namespace(&full, options).await.unwrap();
    let text = "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":1}\n";
    assert!(told(imported(storage, &full, text, IfExists::Overwrite).await).contains("capacity exceeded"));
    assert!(told(imported(storage, "a/b", text, IfExists::Overwrite).await).contains("namespace"));
}

pub async fn a_namespace_moves_from_one_backend_to_another(Through(storage): &Through) {
    let storage = storage.as_ref();
    let (from, to) = (fill(storage).await, unique("moved"));
    let large = || Value::Bytes(vec![7; limits::VALUE_BYTES].into());
    for n in 0..4 {
        storage.set(&format!("large/{n}"), large(), from.as_str().into()).await.unwrap();
    }
    let memory = Memory::new().unwrap();
    let mut seen = Vec::new();
    let done = copy((storage, &from), (&memory, "elsewhere"), IfExists::Fail, &mut |told| seen.push(told)).await;
    assert_eq!(done.unwrap(), Imported { written: 9, skipped: 0 });
    let last = seen.last().unwrap();
    assert_eq!((last.done, last.of, seen.is_sorted_by_key(|told| told.done)), (9, 9, true));
    copy((&memory, "elsewhere"), (storage, &to), IfExists::Fail, &mut |_| ()).await.unwrap();
    assert_eq!(held(storage, &to).await, held(storage, &from).await);
    let again = copy((&memory, "elsewhere"), (storage, &to), IfExists::Skip, &mut |_| ()).await;
    assert_eq!(again.unwrap(), Imported { written: 0, skipped: 9 });
    let one = SetManyOptions { overwrite: true, ..SetManyOptions::from("elsewhere") };
    memory.set_many(vec![SetEntry::new("null", json("1"))], one).await.unwrap();
    let stops = copy((&memory, "elsewhere"), (storage, &to), IfExists::Fail, &mut |_| ()).await;
    assert!(matches!(stops, Err(Failure::Value { .. })), "{stops:?}");
}
