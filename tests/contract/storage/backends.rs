//! Every case on the backends that are no cluster, and what is theirs alone.

use std::{sync::Arc, time::Duration};

use meshstore::{
    Client, Error, Storage,
    backends::{Embedded, Memory},
    client::Version,
    config::{Config, Flags},
    contract::{CreateNamespaceOptions, ListOptions, NamespaceSettings, SetEntry, Value},
    model::Principal,
};

use super::{Through, all, cases};

fn json(text: &str) -> Value {
    Value::Json(text.into())
}

/// Runs every case on a backend.
pub(super) async fn run_all(storage: Arc<dyn Storage>) {
    let storage = Through(storage);
    let failed = crate::run(&storage, all()).await;
    assert!(failed.is_empty(), "{} cases failed: {failed:?}", failed.len());
    cases::all_namespaces_are_cleared_at_once(&storage).await;
}

/// Writes what [`is_kept`] looks for.
pub(super) async fn write(storage: &dyn Storage) {
    let settings = NamespaceSettings { history: 3, max_entries: 10, max_bytes: 0 };
    let options =
        CreateNamespaceOptions { metadata: Some("{\"owner\":\"ops\"}".into()), settings, ..Default::default() };
    storage.create_namespace("kept", options).await.unwrap();
    let entry = SetEntry { metadata: Some("{\"a\":1}".into()), ..SetEntry::new("k", json("1")) };
    storage.set_many(vec![entry, SetEntry::new("l", json("2"))], "kept".into()).await.unwrap();
    storage.set("k", json("2"), "kept".into()).await.unwrap();
    assert!(storage.delete("l", "kept".into()).await.unwrap());
    storage.set("gone", json("1"), "dropped".into()).await.unwrap();
    storage.clear("dropped".into()).await.unwrap();
}

/// That everything is as it was written: values, metadata, older versions, bounds.
pub(super) async fn is_kept(storage: &dyn Storage) {
    let shown = storage.show_namespace("kept").await.unwrap();
    assert_eq!((shown.settings.history, shown.settings.max_entries, shown.entries), (3, 10, 1));
    assert_eq!(shown.metadata.value, "{\"owner\":\"ops\"}");
    let metadata = storage.get_metadata("k", "kept".into()).await.unwrap();
    assert_eq!((metadata.version, metadata.attributes.as_deref()), (2, Some("{\"a\":1}")));
    assert_eq!(storage.history("k", "kept".into()).await.unwrap().len(), 2);
    let history = storage.history("l", "kept".into()).await.unwrap();
    assert!(matches!(history[..], [Version::Deleted { .. }, Version::Value(_)]), "{history:?}");
    assert_eq!(storage.count("dropped".into()).await.unwrap(), 0);
    let status = storage.get_status().await.unwrap();
    assert_eq!((status.healthy, status.entries, status.namespaces), (true, 1, 3));
}

fn unavailable(error: &Error) -> bool {
    matches!(error, Error::Unavailable { .. })
}

/// That a store that was closed answers nothing more.
pub(super) async fn is_closed(storage: &dyn Storage) {
    assert!(unavailable(&storage.get("k", "kept".into()).await.unwrap_err()));
    assert!(unavailable(&storage.set("k", json("3"), "kept".into()).await.unwrap_err()));
    assert!(unavailable(&storage.count("kept".into()).await.unwrap_err()));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    run_all(Arc::new(Memory::new().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    let home = tempfile::tempdir().unwrap();
    let node = Embedded::open(&home.path().join("data")).await.unwrap();
    run_all(Arc::new(node.clone())).await;
    node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn values_say_who_wrote_them() {
    let storage = Memory::new().unwrap();
    storage.set("k", json("1"), Default::default()).await.unwrap();
    assert_eq!(storage.get_metadata("k", Default::default()).await.unwrap().principal, "anonymous");
    let billing = storage.clone().with_principal(Principal::Service("billing".into()));
    billing.set("k", json("2"), Default::default()).await.unwrap();
    assert_eq!(storage.get_metadata("k", Default::default()).await.unwrap().principal, "service/billing");
    assert!(!storage.properties().is_durable);
}

/// A list goes on though what it shows is overwritten and freed meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_memory_shows_one_revision_under_writes() {
    let storage = Memory::new().unwrap();
    let sets = |text: &'static str| (0..1_000).map(move |n| SetEntry::new(format!("{n:04}"), json(text))).collect();
    storage.set_many(sets("0"), "n".into()).await.unwrap();
    let (mut keys, mut cursor, mut revision) = (Vec::new(), String::new(), 0);
    loop {
        let options = ListOptions { limit: Some(100), cursor, ..ListOptions::from("n") };
        let page = storage.list(options).await.unwrap();
        assert!(revision == 0 || revision == page.revision);
        revision = page.revision;
        keys.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
        for _ in 0..3 {
            storage.set_many(sets("1"), "n".into()).await.unwrap();
        }
        storage.delete_many(keys.iter().map(|key| key.as_str().into()).collect(), "n".into()).await.unwrap();
    }
    assert_eq!(keys.len(), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_node_keeps_everything_and_is_alone() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let node = Embedded::open(&data).await.unwrap();
    write(&node).await;
    let Err(fault) = Embedded::open(&data).await else { panic!("two nodes have one directory") };
    assert!(fault.to_string().contains("another process"), "{fault}");
    node.close().await.unwrap();
    is_closed(&node).await;
    node.close().await.unwrap();
    let again = Embedded::open(&data).await.unwrap();
    is_kept(&again).await;
    again.close().await.unwrap();
    let text = "[cluster]\nname = \"test\"\n[[node]]\nid = 1\nclient = \"127.0.0.1:1\"\npeer = \"127.0.0.1:2\"\nhttp = \
                \"127.0.0.1:3\"\n[[node]]\nid = 2\nclient = \"127.0.0.1:4\"\npeer = \"127.0.0.1:5\"\nhttp = \"127.0.0.1:6\"\n";
    let flags = Flags { node: Some(1), data_dir: Some(data), ..Flags::default() };
    let two = Config::parse(text, "two.toml".as_ref(), &flags).unwrap();
    let Err(fault) = Embedded::start(two).await else { panic!("it is not alone") };
    assert!(fault.to_string().contains("2 nodes"), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_others_cannot_be_embedded() {
    let nodes = crate::nodes::Nodes::start(3, "sled").await;
    // One that is told to stop while it starts may have its directory for a moment longer.
    for endpoint in &nodes.endpoints {
        Client::builder().endpoints([endpoint]).deadline(Duration::from_secs(30)).connect().await.unwrap();
    }
    let home = nodes.stop_and_keep().await;
    let Err(fault) = Embedded::open(&home.path().join("node-1")).await else { panic!("it is not alone") };
    assert!(fault.to_string().contains("has other nodes ([2, 3])"), "{fault}");
    let Err(fault) = Embedded::open(&home.path().join("node-2")).await else { panic!("it is another node's") };
    assert!(fault.to_string().contains("belongs to node 2, not 1"), "{fault}");
}

/// What was embedded can be served, and what was served embedded: they are the same files.
#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_node_can_be_served_and_the_other_way_round() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let node = Embedded::open(&data).await.unwrap();
    write(&node).await;
    node.close().await.unwrap();
    let served = crate::nodes::Nodes::serve(&data).await;
    let client = served.client().deadline(Duration::from_secs(30)).connect().await.unwrap();
    let remote = meshstore::contract::Remote::new(client);
    is_kept(&remote).await;
    remote.set("served", json("1"), "kept".into()).await.unwrap();
    drop(remote);
    served.stop().await;
    let node = Embedded::open(&data).await.unwrap();
    assert_eq!(node.get("served", "kept".into()).await.unwrap().value, json("1"));
    node.close().await.unwrap();
}
