//! State values that are written several at once, and watchers of all of them.
//!
//! Every third client watches: what there is first, then each change, through whatever comes. The last reads go on where the
//! watchers stopped, with watches of their own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use meshstore::{
    Error, Result,
    client::{self, Keys, RecordId, Stored, Target, Transaction, Watched, Watching},
};
use rand::Rng;

use super::{
    super::history::{
        Outcome, Recorder, Verdict,
        watch::{self, Call, Change, Event, Reply, Values},
    },
    Seat, Workload, answered, lines, number,
};

const NAME: &str = "watch";
const KEYS: u64 = 8;
/// Of so many clients one watches.
const WATCHERS: u64 = 3;
/// How long a watcher waits before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Default)]
pub struct Watch {
    recorder: Recorder<Call, Reply>,
    /// Watchers that have stopped, and up to where they were told all.
    stopped: Mutex<BTreeMap<u64, u64>>,
}

fn name(key: u64) -> String {
    format!("{NAME}/{key}")
}

fn key(name: &str) -> u64 {
    name.rsplit('/').next().and_then(|key| key.parse().ok()).unwrap_or_else(|| panic!("a key {name:?}"))
}

fn watching(seat: &Seat) -> Watching {
    seat.client.watch(Target::State(Keys::Prefix(format!("{NAME}/")))).progress(LOOK)
}

fn change(change: Watched) -> Change {
    let Watched::State(changed) = change else { panic!("not a state value: {change:?}") };
    let value = |stored: Option<Stored<bytes::Bytes>>| stored.map(|stored| number(&stored.value));
    Change { key: key(&changed.key), before: value(changed.before), now: value(changed.now) }
}

fn event(event: client::Event) -> Event {
    match event {
        client::Event::Content { records, .. } => {
            let records = records.into_iter().map(change).map(|change| (change.key, change.now.unwrap()));
            Event::Content(records.collect())
        }
        client::Event::Current { revision } => Event::Current(revision),
        client::Event::Changes { revision, changes, resynced } => {
            Event::Changes { revision, changes: changes.into_iter().map(change).collect(), resynced }
        }
        client::Event::Reset { after, .. } => Event::Reset(after),
        client::Event::Progress { revision } => Event::Until(revision),
    }
}

impl Watch {
    fn told(&self, seat: &Seat, watcher: u64, event: Event) {
        let now = seat.stage.now_ns;
        let number = self.recorder.invoke(seat.process, Call::Watch(watcher), now());
        self.recorder.complete(number, Outcome::Ok(Reply::Told(event)), now());
    }

    async fn watch(&self, seat: &mut Seat) {
        while seat.next().await {
            let Ok(mut watch) = watching(seat).current().start().await else { continue };
            let (mut until, mut whole) = (0, false);
            while !seat.stage.closed.load(std::sync::atomic::Ordering::SeqCst) {
                match tokio::time::timeout(LOOK, watch.next()).await {
                    // Marks of progress are many; the last says it all.
                    Ok(Ok(client::Event::Progress { revision })) => until = revision,
                    Ok(Ok(told)) => {
                        let told = event(told);
                        whole = !matches!(told, Event::Reset(_)) && (whole || matches!(told, Event::Current(_)));
                        self.told(seat, seat.process, told);
                    }
                    Ok(Err(error)) => panic!("a watch ended: {error}"),
                    Err(_) => {}
                }
            }
            self.told(seat, seat.process, Event::Until(until));
            // While what there is is being told there is nothing to go on from.
            if whole {
                self.stopped.lock().unwrap().insert(seat.process, watch.revision());
            }
            return;
        }
    }

    async fn write(&self, seat: &mut Seat, fresh: &mut u64) {
        let first = seat.rng.random_range(0..KEYS);
        let mut write = BTreeMap::new();
        for key in 0..seat.rng.random_range(1..4) {
            *fresh += 1;
            write.insert((first + key) % KEYS, (key == 0 || seat.rng.random_bool(0.7)).then_some(*fresh));
        }
        let mut transaction = Transaction::default();
        for (key, value) in &write {
            transaction = match value {
                Some(value) => transaction.put_state(name(*key), value.to_string()),
                None => transaction.delete(RecordId::State(name(*key))),
            };
        }
        let client = seat.client.clone();
        let written = async { client.commit(transaction).await.map(|done| Some(Reply::Written(done.revision))) };
        seat.record(&self.recorder, Call::Write(write), written).await;
    }

    async fn read(&self, seat: &Seat) -> Option<u64> {
        let read = async {
            let page = client::PageRequest { limit: 1_000, ..client::PageRequest::default() };
            let page = seat.client.state().list(&format!("{NAME}/"), page).await?;
            let values: Values = page.items.iter().map(|(name, stored)| (key(name), number(&stored.value))).collect();
            Ok(Some(Reply::Read { revision: page.revision, values }))
        };
        match seat.record(&self.recorder, Call::Read, read).await? {
            Reply::Read { revision, .. } => Some(revision),
            _ => None,
        }
    }

    /// Has a watcher that has stopped told all up to a revision.
    async fn go_on(&self, seat: &Seat, (watcher, after): (u64, u64), until: u64) -> Result<()> {
        let mut watch = match watching(seat).after(after).start().await {
            // Its nodes were killed meanwhile: a watch that goes on would have been told so.
            Err(Error::NoLongerCovered { .. }) => return Ok(()),
            started => started?,
        };
        while watch.revision() < until {
            match watch.next().await? {
                client::Event::Progress { .. } => {}
                told => self.told(seat, watcher, event(told)),
            }
        }
        // The state has not changed since, whatever else has.
        self.told(seat, watcher, Event::Until(until));
        Ok(())
    }
}

impl Workload for Watch {
    fn name(&self) -> &'static str {
        NAME
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if seat.process % WATCHERS == 1 {
                return self.watch(&mut seat).await;
            }
            let mut fresh = seat.process << 32;
            while seat.next().await {
                self.write(&mut seat, &mut fresh).await;
            }
        })
    }

    fn conclude(self: Arc<Self>, seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let until = loop {
                if let Some(revision) = self.read(&seat).await {
                    break revision;
                }
            };
            let stopped = std::mem::take(&mut *self.stopped.lock().unwrap());
            for (watcher, after) in stopped {
                if let Err(error) = self.go_on(&seat, (watcher, after), until).await {
                    self.stopped.lock().unwrap().insert(watcher, after);
                    return Err(error);
                }
            }
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        watch::check(&self.recorder.history())
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
