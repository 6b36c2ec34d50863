//! Messages: each stored once, and listed by every index.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::future::BoxFuture;
use meshstore::{
    Result,
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

#[derive(Default)]
pub struct Messages {
    recorder: Recorder<Call, Reply>,
    next: AtomicU64,
}

fn listed(stored: &Stored<client::Message>) -> Listed {
    let client::Message { id, from, to, content, timestamp, large: _ } = &stored.value;
    let number = |name: &str| number(name.trim_start_matches(char::is_alphabetic).as_bytes());
    let message = Message { id: number(id), from: number(from), to: number(to), timestamp: *timestamp };
    let whole = *content == text(message.id);
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
        let stored = client::Message {
            id: format!("m{:08}", message.id),
            from: format!("n{}", message.from),
            to: format!("n{}", message.to),
            content: text(message.id).into(),
            timestamp: message.timestamp,
            large: None,
        };
        let messages = seat.client.messages();
        let store =
            async { messages.store(stored).await.map(|written| Some(Reply::Stored { revision: written.revision })) };
        seat.record(&self.recorder, Call::Store(message), store).await;
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
                if seat.rng.random_bool(0.9) {
                    self.store(&mut seat).await;
                    continue;
                }
                let mut node = || seat.rng.random_bool(0.5).then(|| seat.rng.random_range(0..NODES));
                let filter = Filter { from: node(), to: node() };
                self.list(&seat, filter).await;
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
