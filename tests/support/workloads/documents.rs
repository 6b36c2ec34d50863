//! Documents of the data broker while they are written, changed and deleted, and their collection is declared otherwise or
//! dropped: what an index answers is what is there, what is unique stays so, and each job is taken once.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::future::BoxFuture;
use meshstore::{
    Client, Error, Result,
    client::{Declaration, Document, Documents as Collection, FindAndUpdate, IndexSpec, Modification, Page, SortField},
};
use rand::Rng;
use serde_json::{Value as Json, json};

use super::{
    super::history::{
        Recorder, Verdict, jobs,
        query::{self, Call, Reply, Row},
    },
    Seat, Workload, answered, lines,
    query::changed,
};

const IDS: u64 = 24;
const GROUPS: u64 = 3;
/// Numbers are below this, so that many are equal.
const NUMBERS: u64 = 8;

#[derive(Default)]
pub struct Documents {
    rows: Recorder<Call, Reply>,
    jobs: Recorder<jobs::Call, jobs::Reply>,
    /// The number of the next job, about: so that several clients try the same.
    next: AtomicU64,
    takers: AtomicU64,
}

fn things(client: &Client) -> Collection {
    client.broker("documents").collection("things")
}

fn queue(client: &Client) -> Collection {
    client.broker("documents").collection("queue")
}

/// What indexes things may have.
fn indexes() -> [IndexSpec; 3] {
    let both = IndexSpec::of([SortField::ascending("group"), SortField::descending("number")]);
    [both, IndexSpec::descending("number"), IndexSpec::ascending("group").only(r#"{"group":1}"#)]
}

/// A number stands alone or in a list: it is found either way.
fn row(document: Document) -> Result<Row> {
    let json: Json = document.parse()?;
    let number = json["number"].as_array().map_or(&json["number"], |list| &list[0]);
    let (group, number) = (json["group"].as_u64().unwrap(), number.as_u64().unwrap());
    Ok(Row { key: document.id, written: document.revision, group, number })
}

/// A page holds all that there is.
fn found(page: Page<Document>) -> Result<Option<Reply>> {
    assert!(page.next_cursor.is_empty(), "there are {IDS} documents");
    let rows = page.items.into_iter().map(row).collect::<Result<_>>()?;
    Ok(Some(Reply::Found { revision: page.revision, rows }))
}

impl Documents {
    async fn step(&self, seat: &mut Seat) {
        let things = things(&seat.client);
        let id = format!("thing-{}", seat.rng.random_range(0..IDS));
        let (group, number) = (seat.rng.random_range(0..GROUPS), seat.rng.random_range(0..NUMBERS));
        let written = if seat.rng.random_bool(0.5) { json!(number) } else { json!([number]) };
        match seat.rng.random_range(0..1_000) {
            0..300 => drop(self.query(seat).await),
            300..400 => drop(self.scan(seat).await),
            400..550 => {
                let upsert = Modification {
                    filter: json!({"_id": id}).to_string(),
                    update: json!({"group": group, "number": written}).to_string(),
                    upsert: true,
                    ..Modification::default()
                };
                self.change(seat, "upsert", async { changed(things.modify(upsert).await) }).await;
            }
            550..600 => {
                let (filter, update) = (json!({"group": group, "number": {"$lt": number}}), json!({"number": number}));
                self.change(seat, "update", async { changed(things.update(&filter, &update).await) }).await;
            }
            600..650 => self.change(seat, "delete", async { changed(things.delete(&json!({"_id": id})).await) }).await,
            650..690 => {
                let wanted = indexes().into_iter().filter(|_| seat.rng.random_bool(0.5)).collect();
                let declaration = Declaration { indexes: Some(wanted), ..Declaration::default() };
                self.change(seat, "declare", async { changed(things.declare(declaration).await) }).await;
            }
            690..693 => self.change(seat, "drop", async { changed(things.drop().await) }).await,
            693..850 => self.add(seat).await,
            850..970 => self.take(seat).await,
            _ => drop(self.read(seat).await),
        }
    }

    async fn change(&self, seat: &Seat, what: &str, answer: impl Future<Output = Result<Option<Reply>>>) {
        seat.record(&self.rows, Call::Change(what.into()), answer).await;
    }

    async fn query(&self, seat: &mut Seat) -> Option<Reply> {
        let (group, least) = (seat.rng.random_range(0..GROUPS), seat.rng.random_range(0..NUMBERS));
        let things = things(&seat.client);
        let query = async {
            let filter = json!({"group": group, "number": {"$gte": least}});
            found(things.find(&filter)?.sort_by_descending("number").limit(1_000).page().await?)
        };
        seat.record(&self.rows, Call::Query { group, least }, query).await
    }

    async fn scan(&self, seat: &Seat) -> Option<Reply> {
        let things = things(&seat.client);
        let scan = async { found(things.find(&json!({}))?.limit(1_000).page().await?) };
        seat.record(&self.rows, Call::Scan, scan).await
    }

    async fn add(&self, seat: &mut Seat) {
        let (queue, next) = (queue(&seat.client), self.next.fetch_add(1, Ordering::SeqCst));
        let number = (next / 2).saturating_sub(seat.rng.random_range(0..3));
        let add = async {
            match queue.insert(&json!({"number": number, "state": "new"})).await {
                Ok(_) => Ok(Some(jobs::Reply::Added)),
                Err(Error::AlreadyExists { .. }) => Ok(Some(jobs::Reply::Exists)),
                Err(error) => Err(error),
            }
        };
        seat.record(&self.jobs, jobs::Call::Add(number), add).await;
    }

    async fn take(&self, seat: &Seat) {
        let (queue, taker) = (queue(&seat.client), self.takers.fetch_add(1, Ordering::SeqCst));
        let modification = Modification {
            filter: json!({"state": "new"}).to_string(),
            update: json!({"state": "taken", "by": taker}).to_string(),
            ..Modification::default()
        };
        let wanted = FindAndUpdate { modification, sort: vec![SortField::ascending("number")], before: false };
        let take = async {
            let job = queue.find_and_update(wanted).await?;
            let number = job.map(|job| job.parse::<Json>()).transpose()?.and_then(|job| job["number"].as_u64());
            Ok(Some(jobs::Reply::Taken(number)))
        };
        seat.record(&self.jobs, jobs::Call::Take(taker), take).await;
    }

    async fn read(&self, seat: &Seat) -> Option<jobs::Reply> {
        let queue = queue(&seat.client);
        let read = async {
            let all = queue.find(&json!({}))?.only(["number", "by"]).all().await?;
            let job = |document: Document| {
                let json: Json = document.parse()?;
                Ok((json["number"].as_u64().unwrap(), json["by"].as_u64()))
            };
            Ok(Some(jobs::Reply::Jobs(all.into_iter().map(job).collect::<Result<_>>()?)))
        };
        seat.record(&self.jobs, jobs::Call::Read, read).await
    }
}

impl Workload for Documents {
    fn name(&self) -> &'static str {
        "documents"
    }

    fn prepare(self: Arc<Self>, client: Client) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let unique = IndexSpec::ascending("number").unique();
            let declaration = Declaration::new().index(unique).index(IndexSpec::ascending("state"));
            queue(&client).declare(declaration).await?;
            things(&client).declare(Declaration::new().index(indexes()[0].clone())).await.map(drop)
        })
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
                    // The collection has gone, maybe only now.
                    things(&seat.client).declare(Declaration::new()).await?;
                }
            }
            while self.read(&seat).await.is_none() {}
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        match query::check(&self.rows.history()) {
            Verdict::Valid => jobs::check(&self.jobs.history()),
            verdict => verdict,
        }
    }

    fn answered(&self) -> usize {
        answered(&self.rows) + answered(&self.jobs)
    }

    fn lines(&self) -> String {
        lines(&self.rows) + &lines(&self.jobs)
    }
}
