//! A journal in the log of a group, messages and a state value: each append is one transaction over all three.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use meshstore::{
    Result,
    client::{Client, LogEntry, Message, MessageFilter, OpenTransaction, consensus_log::Indexes},
};
use rand::Rng;

use super::{
    super::history::{
        Recorder, Verdict,
        journal::{self, Call, Items, Reply},
    },
    Seat, Workload, answered, lines, number,
};

pub const NAME: &str = "journal";
const TERM: u64 = 1;
const ALL: Indexes = Indexes { first: 0, last: 0 };
/// At so many items the older half goes.
const MOST: usize = 16;

#[derive(Default)]
pub struct Journal {
    recorder: Recorder<Call, Reply>,
}

fn id(index: u64) -> String {
    format!("{NAME}/{index:08}")
}

/// The last number, and the log.
async fn log(open: &OpenTransaction) -> Result<(u64, Items)> {
    let last = open.get_state(NAME).await?.map_or(0, |last| number(&last));
    let entries = open.list_entries(NAME, ALL).await?;
    Ok((
        last,
        entries.iter().map(|LogEntry { index, entry_json, .. }| (*index, number(entry_json.as_bytes()))).collect(),
    ))
}

async fn append(client: &Client, value: u64) -> Result<Option<Reply>> {
    let open = client.begin();
    let (last, log) = log(&open).await?;
    let next = last + 1;
    open.append_entry(NAME, TERM, next, &value.to_string()).await?;
    let (from, content) = (NAME.into(), value.to_string().into());
    let (to, timestamp) = (NAME.into(), i64::try_from(next).unwrap());
    open.store_message(Message { id: id(next), from, to, content, timestamp, large: None })?;
    open.put_state(NAME, next.to_string())?;
    if log.len() >= MOST {
        let until = log[MOST / 2].0;
        open.delete_entries(NAME, Indexes { first: 0, last: until }).await?;
        for (old, _) in log.iter().take_while(|(old, _)| *old <= until) {
            open.delete_message(&id(*old)).await?;
        }
    }
    let revision = open.commit().await?;
    Ok(Some(Reply::Appended { number: next, revision }))
}

async fn read(client: &Client) -> Result<Option<Reply>> {
    let open = client.begin();
    let (last, log) = log(&open).await?;
    let filter = MessageFilter { from: Some(NAME.into()), ..MessageFilter::default() };
    let messages = open.list_messages(&filter).await?;
    let messages =
        messages.iter().map(|message| (message.timestamp.cast_unsigned(), number(&message.content))).collect();
    let revision = open.commit().await?;
    Ok(Some(Reply::Read { revision, last, log, messages }))
}

impl Workload for Journal {
    fn name(&self) -> &'static str {
        NAME
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut value = seat.process << 32;
            while seat.next().await {
                let client = seat.client.clone();
                if seat.rng.random_bool(0.3) {
                    seat.record(&self.recorder, Call::Read, read(&client)).await;
                    continue;
                }
                value += 1;
                seat.record(&self.recorder, Call::Append(value), append(&client, value)).await;
            }
        })
    }

    fn conclude(self: Arc<Self>, seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            while seat.record(&self.recorder, Call::Read, read(&seat.client)).await.is_none() {}
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        journal::check(&self.recorder.history())
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
