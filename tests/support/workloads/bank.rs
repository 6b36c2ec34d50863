//! A bank: transfers between accounts, each one transaction, and reads of all accounts.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::BoxFuture;
use meshstore::{
    Client, Result,
    client::{Condition, RecordId, Transaction},
};
use rand::Rng;

use super::{
    super::history::{
        Recorder, Verdict,
        bank::{self, Call, Reply},
    },
    Seat, Workload, answered, lines, number,
};

const ACCOUNTS: u64 = 6;
const BEGIN: i64 = 100;

#[derive(Default)]
pub struct Bank {
    recorder: Recorder<Call, Reply>,
}

fn name(account: u64) -> String {
    format!("bank/{account:04}")
}

/// Balances and the revisions that wrote them, by account.
async fn read(client: &Client) -> Result<BTreeMap<u64, (i64, u64)>> {
    let all = client.state().list_all("bank/").await?;
    let account = |key: &str| number(key.trim_start_matches("bank/").as_bytes());
    Ok(all.iter().map(|(key, stored)| (account(key), (number(&stored.value) as i64, stored.mod_revision))).collect())
}

async fn transfer(client: &Client, from: u64, to: u64, amount: i64) -> Result<Option<Reply>> {
    let balances = read(client).await?;
    let ((source, source_at), (target, target_at)) = (balances[&from], balances[&to]);
    if source < amount {
        return Ok(Some(Reply::Refused));
    }
    let transfer = Transaction::default()
        .require(RecordId::State(name(from)), Condition::ModRevision(source_at))
        .require(RecordId::State(name(to)), Condition::ModRevision(target_at))
        .put_state(name(from), (source - amount).to_string())
        .put_state(name(to), (target + amount).to_string());
    Ok(client.commit(transfer).await?.succeeded.then_some(Reply::Transferred))
}

impl Bank {
    async fn read(&self, seat: &Seat) -> Option<Reply> {
        let read = async {
            let balances = read(&seat.client).await?;
            Ok(Some(Reply::Read(balances.into_iter().map(|(account, (balance, _))| (account, balance)).collect())))
        };
        seat.record(&self.recorder, Call::Read, read).await
    }
}

impl Workload for Bank {
    fn name(&self) -> &'static str {
        "bank"
    }

    fn prepare(self: Arc<Self>, client: Client) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let open = Transaction::default().require(RecordId::State(name(0)), Condition::Missing);
            let open = (0..ACCOUNTS).fold(open, |open, account| open.put_state(name(account), BEGIN.to_string()));
            client.commit(open).await.map(drop)
        })
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while seat.next().await {
                if seat.rng.random_bool(0.2) {
                    self.read(&seat).await;
                    continue;
                }
                let from = seat.rng.random_range(0..ACCOUNTS);
                let to = (from + seat.rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
                let amount = seat.rng.random_range(1..=40);
                let client = seat.client.clone();
                let transfer = transfer(&client, from, to, amount);
                seat.record(&self.recorder, Call::Transfer { from, to, amount }, transfer).await;
            }
        })
    }

    fn conclude(self: Arc<Self>, seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            while self.read(&seat).await.is_none() {}
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        let begin = (0..ACCOUNTS).map(|account| (account, BEGIN)).collect();
        bank::check(&self.recorder.history(), &begin)
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
