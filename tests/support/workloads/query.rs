//! Queries while values are written and deleted, indexes created and dropped, and the namespace cleared or deleted: what an
//! index answers is what is there.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::future::BoxFuture;
use meshstore::{
    Client, Error, Result,
    client::{Entry, Filter, Kv, Operator, Page, Set, SortField, Value},
};
use rand::Rng;
use serde::Deserialize;

use super::{
    super::history::{
        Recorder, Verdict,
        query::{self, Call, Reply, Row},
    },
    Seat, Workload, answered, lines,
};

const KEYS: u64 = 24;
const GROUPS: u64 = 3;
/// Numbers are below this, so that many are equal.
const NUMBERS: u64 = 8;
/// What indexes there may be, and whether their fields descend.
const INDEXES: [(&str, &[(&str, bool)]); 3] = [
    ("group and number", &[("group", false), ("number", true)]),
    ("number", &[("number", true)]),
    ("group", &[("group", true)]),
];

#[derive(Default)]
pub struct Queries {
    recorder: Recorder<Call, Reply>,
    written: AtomicU64,
}

#[derive(Deserialize)]
struct Stored {
    group: u64,
    /// A whole one, written in one of several ways.
    number: f64,
}

fn kv(client: &Client) -> Kv {
    client.kv("queries")
}

fn row(entry: Entry) -> Result<Row> {
    let Stored { group, number } = entry.value.parse()?;
    Ok(Row { key: entry.key, written: entry.metadata.mod_revision, group, number: number as u64 })
}

/// A page holds all that there is.
fn found(page: Page<Entry>) -> Result<Option<Reply>> {
    assert!(page.next_cursor.is_empty(), "there are {KEYS} keys");
    let rows = page.items.into_iter().map(row).collect::<Result<_>>()?;
    Ok(Some(Reply::Found { revision: page.revision, rows }))
}

/// What others did first is no reason to stop.
pub(super) fn changed<T>(answer: Result<T>) -> Result<Option<Reply>> {
    match answer {
        Ok(_) => Ok(Some(Reply::Changed)),
        Err(Error::NotFound { .. } | Error::AlreadyExists { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Queries {
    async fn step(&self, seat: &mut Seat) {
        let kv = kv(&seat.client);
        let key = format!("key/{}", seat.rng.random_range(0..KEYS));
        match seat.rng.random_range(0..1_000) {
            0..450 => drop(self.query(seat).await),
            450..600 => drop(self.scan(seat).await),
            600..850 => {
                // Each value is another, so that none is mistaken for one before.
                let unique = self.written.fetch_add(1, Ordering::SeqCst);
                let (group, number) = (seat.rng.random_range(0..GROUPS), seat.rng.random_range(0..NUMBERS));
                let form = if unique.is_multiple_of(2) { "" } else { "e0" };
                let text = format!(r#"{{"group":{group},"number":{number}{form},"unique":{unique}}}"#);
                self.change(seat, "set", async { changed(kv.set(Set::new(key, Value::Json(text))).await) }).await;
            }
            850..930 => self.change(seat, "delete", async { changed(kv.delete(&key).await) }).await,
            930..960 => {
                let (name, fields) = INDEXES[seat.rng.random_range(0..INDEXES.len())];
                let field =
                    |(field, descending): &(&str, bool)| SortField { field: (*field).into(), descending: *descending };
                let fields = fields.iter().map(field).collect();
                self.change(seat, "create index", async { changed(kv.create_index(name, fields).await) }).await;
            }
            960..985 => {
                let (name, _) = INDEXES[seat.rng.random_range(0..INDEXES.len())];
                self.change(seat, "drop index", async { changed(kv.drop_index(name).await) }).await;
            }
            985..997 => self.change(seat, "clear", async { changed(kv.clear().await) }).await,
            _ => {
                let namespaces = seat.client.namespaces();
                self.change(seat, "delete all", async { changed(namespaces.delete("queries", true).await) }).await;
            }
        }
    }

    async fn change(&self, seat: &Seat, what: &str, answer: impl Future<Output = Result<Option<Reply>>>) {
        seat.record(&self.recorder, Call::Change(what.into()), answer).await;
    }

    async fn query(&self, seat: &mut Seat) -> Option<Reply> {
        let (group, least) = (seat.rng.random_range(0..GROUPS), seat.rng.random_range(0..NUMBERS));
        let kv = kv(&seat.client);
        let query = async {
            let filter = Filter::of("group", Operator::Eq, &group)?.and(Filter::of("number", Operator::Gte, &least)?);
            found(kv.query(filter).sort_by_descending("number").limit(1_000).page().await?)
        };
        seat.record(&self.recorder, Call::Query { group, least }, query).await
    }

    async fn scan(&self, seat: &Seat) -> Option<Reply> {
        let kv = kv(&seat.client);
        let scan = async { found(kv.query(Filter::default()).limit(1_000).page().await?) };
        seat.record(&self.recorder, Call::Scan, scan).await
    }
}

impl Workload for Queries {
    fn name(&self) -> &'static str {
        "query"
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while seat.next().await {
                self.step(&mut seat).await;
            }
        })
    }

    fn conclude(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            for _ in 0..GROUPS * NUMBERS {
                while self.scan(&seat).await.is_none() || self.query(&mut seat).await.is_none() {
                    // The namespace has gone, maybe only now; what stands there is of no matter.
                    let value = Value::Json(r#"{"group":0,"number":0}"#.into());
                    kv(&seat.client).set(Set::new("key/0", value)).await?;
                }
            }
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        query::check(&self.recorder.history())
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
