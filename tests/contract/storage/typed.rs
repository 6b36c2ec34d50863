//! Typed values.

use meshstore::{
    Error,
    contract::{Condition, Modify, Typed, Value},
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::{
    super::cases::{assert_missing, invalid_field, unique},
    Through,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Part {
    name: String,
    stock: Vec<Stock>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stock {
    place: String,
    pieces: u32,
}

fn part(pieces: u32) -> Part {
    Part { name: "bolt".into(), stock: vec![Stock { place: "shelf".into(), pieces }] }
}

fn parts(Through(storage): &Through) -> Typed<Part> {
    storage.typed(unique("parts"))
}

pub async fn typed_values_are_written_and_read_back(storage: &Through) {
    let parts = parts(storage);
    assert_eq!(parts.find("bolt").await.unwrap(), None);
    assert_missing(parts.get("bolt").await, "namespace", parts.namespace());
    let first = parts.create("bolt", &part(1)).await.unwrap();
    assert!(matches!(parts.create("bolt", &part(2)).await, Err(Error::AlreadyExists { .. })));
    let found = parts.get("bolt").await.unwrap();
    assert_eq!((found.key.as_str(), &found.value, found.metadata.version), ("bolt", &part(1), 1));
    let set = |value, condition| {
        let parts = parts.clone();
        async move { parts.compare_and_set("bolt", &part(value), condition).await }
    };
    assert!(matches!(set(3, Condition::Version(2)).await, Err(Error::ConditionFailed(_))));
    assert_eq!(set(3, Condition::ModRevision(first.revision)).await.unwrap().version, 2);
    assert_eq!(parts.set("nut", &part(4)).await.unwrap().version, 1);
    let all = parts.list("").await.unwrap();
    let all: Vec<_> = all.into_iter().map(|entry| (entry.key, entry.value.stock[0].pieces)).collect();
    assert_eq!(all, [("bolt".to_owned(), 3), ("nut".to_owned(), 4)]);
    assert_eq!(parts.list("b*").await.unwrap().len(), 1);
    assert!(parts.delete("nut").await.unwrap());
    assert_eq!(parts.find("nut").await.unwrap(), None);
}

pub async fn what_does_not_fit_the_type_is_told_with_its_place(storage: &Through) {
    let parts = parts(storage);
    let namespace = parts.namespace().to_owned();
    let set = async |value| storage.0.set("bolt", value, namespace.as_str().into()).await.unwrap();
    let told = async || match parts.get("bolt").await {
        Err(Error::Unexpected(told)) => told,
        other => panic!("{other:?}"),
    };
    set(Value::Json(r#"{"name": "bolt", "stock": [{"place": "shelf", "pieces": "many"}]}"#.into())).await;
    let what = told().await;
    assert!(what.contains(&format!("bolt in namespace {namespace}")) && what.contains("stock[0].pieces: "), "{what}");
    assert!(parts.list("").await.unwrap_err().to_string().contains("stock[0].pieces"));
    set(Value::Json("[]".into())).await;
    assert!(told().await.contains("is no"));
    set(Value::Bytes(vec![1].into())).await;
    assert!(told().await.contains("bytes"));
    let nan: Typed<std::collections::BTreeMap<(u8, u8), u8>> = storage.0.typed(&namespace);
    assert_eq!(invalid_field(nan.set("pairs", &[((1, 2), 3)].into()).await), "value");
}

pub async fn a_value_is_read_modified_and_written_though_others_do_the_same(Through(storage): &Through) {
    let counters: Typed<u64> = storage.typed(unique("counters"));
    let mut writers = JoinSet::new();
    for _ in 0..6 {
        let counters = counters.clone();
        writers.spawn(async move {
            for _ in 0..10 {
                let add = |before: Option<u64>| Ok::<_, Error>(Modify::Write(before.unwrap_or_default() + 1));
                assert!(counters.read_modify_write("visits", add).await.unwrap());
            }
        });
    }
    writers.join_all().await;
    let counter = counters.get("visits").await.unwrap();
    assert_eq!((counter.value, counter.metadata.version), (60, 60));
}

pub async fn a_modification_may_delete_leave_or_refuse(storage: &Through) {
    #[derive(Debug)]
    enum Refusal {
        SoldOut,
        Storage(Error),
    }
    impl From<Error> for Refusal {
        fn from(error: Error) -> Self {
            Self::Storage(error)
        }
    }
    let parts = parts(storage);
    let leave = |_| Ok::<_, Error>(Modify::Leave);
    let delete = |_| Ok::<_, Error>(Modify::Delete);
    assert!(!parts.read_modify_write("bolt", leave).await.unwrap());
    assert!(!parts.read_modify_write("bolt", delete).await.unwrap());
    parts.set("bolt", &part(1)).await.unwrap();
    assert!(!parts.read_modify_write("bolt", leave).await.unwrap());
    let take = |part: Option<Part>| {
        let mut part = part.ok_or(Refusal::SoldOut)?;
        part.stock[0].pieces = part.stock[0].pieces.checked_sub(1).ok_or(Refusal::SoldOut)?;
        Ok(Modify::Write(part))
    };
    assert!(parts.read_modify_write("bolt", take).await.unwrap());
    assert!(matches!(parts.read_modify_write("bolt", take).await, Err(Refusal::SoldOut)));
    assert_eq!(parts.get("bolt").await.unwrap().metadata.version, 2);
    assert!(parts.read_modify_write("bolt", delete).await.unwrap());
    assert_eq!(parts.find("bolt").await.unwrap(), None);
    let wrong = parts.read_modify_write("", take).await;
    assert!(matches!(wrong, Err(Refusal::Storage(Error::InvalidArgument { .. }))), "{wrong:?}");
}
