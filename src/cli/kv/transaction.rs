//! `meshstore kv begin`, `commit` and `rollback`: a transaction that the leader keeps, for a person in a shell.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::super::{
    failure::Failure,
    options::{Session, duration},
};
use crate::{client::Isolation, model::isolation::Begun};

/// What a transaction sees of others.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    /// One revision; what was read is checked at the commit
    Serializable,
    /// The newest state; only what writes were decided on is checked
    ReadCommitted,
    /// The same as read-committed
    ReadUncommitted,
}

#[derive(Args, Debug)]
#[command(
    after_help = "What commands write that name it waits in it: all of kv but clear, status and namespace delete; state,\nnode-state, route and config; and messages that are not large. They name it by --transaction, or by\nMESHSTORE_TRANSACTION.\n\nExample:\n  export MESHSTORE_TRANSACTION=$(meshstore kv begin)\n  meshstore kv set user:1 '{\"name\": \"Ada\"}' -n users\n  meshstore state put last-user user:1\n  meshstore kv commit"
)]
pub(in crate::cli) struct Begin {
    /// What it sees of others
    #[arg(long, value_enum, default_value = "serializable")]
    isolation: Level,
    /// How long it stays open, at most 5m
    #[arg(long = "open", value_name = "TIME", default_value = "30s", value_parser = duration)]
    time: Duration,
}

impl Begin {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let isolation = match self.isolation {
            Level::Serializable => Isolation::Serializable,
            Level::ReadCommitted => Isolation::ReadCommitted,
            Level::ReadUncommitted => Isolation::ReadUncommitted,
        };
        let Begun { id, revision, expires_in } = session.outside()?.begin_held_id(isolation, self.time).await?;
        let json = json!({ "transaction": id, "revision": revision, "expires_in_ms": expires_in.as_millis() });
        session.out.answer(&json, || id)
    }
}

/// Commits the transaction.
pub(super) async fn commit(session: &Session, id: Option<String>) -> Result<(), Failure> {
    let id = session.transaction(id)?;
    let revision = session.outside()?.commit_held(&id).await?.revision;
    session.out.answer(&json!({ "revision": revision }), || format!("committed at revision {revision}"))
}

/// Ends it without writing anything.
pub(super) async fn rollback(session: &Session, id: Option<String>) -> Result<(), Failure> {
    session.outside()?.rollback_held(&session.transaction(id)?).await?;
    session.out.answer(&json!({ "rolled_back": true }), || "rolled back".into())
}
