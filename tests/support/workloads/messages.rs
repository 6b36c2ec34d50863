//! Messages: each stored once, listed by every index, and read by its id; a few are too large to be sent at once.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use meshstore::{
    Error, Result,
    client::{self, MessageFilter, PageRequest, Stored},
};
use rand::Rng;

use super::{
    super::history::{
        Recorder, Verdict,
        messages::{self, Call, Filter, Listed, Message, Reply, text},
    },
    Seat, Workload, answered, journal, lines, number,
};

const NODES: u64 = 4;
/// One message of so many is large.
const LARGE_EVERY: u64 = 200;
/// Bytes of a large one, about: more than a value may have.
const LARGE_BYTES: usize = 1_100_000;

#[derive(Default)]
pub struct Messages {
    recorder: Recorder<Call, Reply>,
    next: AtomicU64,
}

fn is_large(id: u64) -> bool {
    id % LARGE_EVERY == LARGE_EVERY / 2
}

fn name(id: u64) -> String {
    format!("m{id:08}")
}

/// What is stored under an id.
fn content(id: u64, large: bool) -> Bytes {
    let text = text(id);
    if large { text.repeat(LARGE_BYTES / text.len()).into() } else { text.into() }
}

fn listed(stored: &Stored<client::Message>) -> Listed {
    let client::Message { id, from, to, content: shown, timestamp, large } = &stored.value;
    let number = |name: &str| number(name.trim_start_matches(char::is_alphabetic).as_bytes());
    let message = Message { id: number(id), from: number(from), to: number(to), timestamp: *timestamp };
    let expected = content(message.id, large.is_some() || shown.len() >= LARGE_BYTES / 2);
    let whole = match large {
        // A list says of a large content what it would be.
        Some(large) => {
            shown.is_empty() && (large.size, large.crc32c) == (expected.len() as u64, crc32c::crc32c(&expected))
        }
        None => *shown == expected,
    };
    Listed { message, revision: stored.mod_revision, version: stored.version, whole }
}

impl Messages {
    async fn store(&self, seat: &mut Seat) {
        let message = Message {
            id: self.next.fetch_add(1, Ordering::SeqCst),
            from: seat.rng.random_range(0..NODES),
            to: seat.rng.random_range(0..NODES),
            timestamp: seat.rng.random_range(-50..50),
        };
        let large = is_large(message.id);
        let stored = client::Message {
            id: name(message.id),
            from: format!("n{}", message.from),
            to: format!("n{}", message.to),
            content: content(message.id, large),
            timestamp: message.timestamp,
            large: None,
        };
        let messages = seat.client.messages();
        let store = async {
            let written = if large { messages.store_large(stored).await } else { messages.store(stored).await };
            written.map(|written| Some(Reply::Stored { revision: written.revision }))
        };
        seat.record(&self.recorder, Call::Store(message), store).await;
    }

    /// Reads a message that somebody has begun to store, if there is any; half of the time a large one.
    async fn get(&self, seat: &mut Seat) {
        let begun = self.next.load(Ordering::SeqCst);
        if begun == 0 {
            return;
        }
        let mut id = seat.rng.random_range(0..begun);
        if seat.rng.random_bool(0.5) {
            id = (id - id % LARGE_EVERY + LARGE_EVERY / 2).min(begun - 1);
        }
        let messages = seat.client.messages();
        let get = async {
            match messages.get_large(&name(id)).await {
                Ok(stored) => Ok(Some(Reply::Got(Some(listed(&stored))))),
                Err(Error::NotFound { .. }) => Ok(Some(Reply::Got(None))),
                Err(error) => Err(error),
            }
        };
        seat.record(&self.recorder, Call::Get(id), get).await;
    }

    async fn list(&self, seat: &Seat, filter: Filter) -> Option<Reply> {
        let messages = seat.client.messages();
        let name = |node: Option<u64>| node.map(|node| format!("n{node}"));
        let of = MessageFilter { from: name(filter.from), to: name(filter.to), ..MessageFilter::default() };
        let list = async {
            let (mut all, mut page) = (Vec::new(), PageRequest { limit: 1_000, cursor: String::new() });
            loop {
                let next = messages.list(of.clone(), page).await?;
                // The journal's are its own.
                let ours = next.items.iter().filter(|stored| stored.value.from != journal::NAME);
                all.extend(ours.map(listed));
                if next.next_cursor.is_empty() {
                    return Ok(Some(Reply::Listed { revision: next.revision, listed: all }));
                }
                page = PageRequest { limit: 1_000, cursor: next.next_cursor };
            }
        };
        seat.record(&self.recorder, Call::List(filter), list).await
    }
}

impl Workload for Messages {
    fn name(&self) -> &'static str {
        "messages"
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while seat.next().await {
                match seat.rng.random_range(0..20) {
                    0..=16 => self.store(&mut seat).await,
                    17 => self.get(&mut seat).await,
                    _ => {
                        let mut node = || seat.rng.random_bool(0.5).then(|| seat.rng.random_range(0..NODES));
                        let filter = Filter { from: node(), to: node() };
                        self.list(&seat, filter).await;
                    }
                }
            }
        })
    }

    fn conclude(self: Arc<Self>, seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let node = || (0..NODES).map(Some).chain([None]);
            for filter in node().flat_map(|from| node().map(move |to| Filter { from, to })) {
                while self.list(&seat, filter).await.is_none() {}
            }
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        messages::check(&self.recorder.history())
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
