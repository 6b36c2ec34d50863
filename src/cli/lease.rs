//! `meshstore lease`.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    failure::{Failure, NOT_FOUND},
    options::{Part, Session, duration},
    output::{self, List},
};
use crate::client::{AttachedKey, Kept, Lease};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a lease, and print its id
    #[command(
        after_help = "It expires unless it is kept alive. What commands write with --lease ID goes with it.\n\nExamples:\n  meshstore lease grant 30s\n  ID=$(meshstore lease grant 10s) && meshstore state put services/a up --lease $ID"
    )]
    Grant {
        /// How long it lives without being kept alive, like 10s: a second to 30 days
        #[arg(value_name = "TIME", value_parser = duration)]
        ttl: Duration,
        /// The id that it is to have; otherwise one is chosen
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        id: Option<u64>,
    },
    /// Give leases their whole time again; exit code 3 if one of them has expired
    #[command(after_help = "Example:\n  meshstore lease keep-alive 7 8")]
    KeepAlive {
        /// At most 1,000
        #[arg(required = true)]
        ids: Vec<u64>,
    },
    /// End a lease, with all that is attached to it
    #[command(after_help = "Example:\n  meshstore lease revoke 7")]
    Revoke {
        /// The lease
        id: u64,
    },
    /// Show a lease and what is attached to it
    #[command(after_help = "Example:\n  meshstore lease show 7")]
    Show {
        /// The lease
        id: u64,
    },
    /// List leases, in order of their ids
    #[command(after_help = "Examples:\n  meshstore lease list\n  meshstore lease list --all --json")]
    List {
        #[command(flatten)]
        part: Part,
    },
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let out = &session.out;
        match self {
            Self::Grant { ttl, id } => {
                let id = session.writer()?.leases().grant_only(ttl, id).await?;
                out.answer(&json!({ "id": id, "ttl_ms": ms(ttl) }), || id.to_string())
            }
            Self::KeepAlive { ids } => keep_alive(session, ids).await,
            Self::Revoke { id } => out.written(session.writer()?.leases().revoke(id).await?),
            Self::Show { id } => {
                let (lease, keys) = session.reader()?.leases().show(id).await?;
                let mut object = object(&lease);
                if let Value::Object(members) = &mut object {
                    members.insert("keys".into(), keys.iter().map(AttachedKey::to_string).collect());
                }
                out.answer(&object, || lines(&lease, &keys))
            }
            Self::List { part } => {
                let leases = session.reader()?.leases();
                let (found, next_cursor, revision) = part.of(leases.list_all(), leases.list(part.request())).await?;
                let (items, rows) = (found.iter().map(object).collect(), found.iter().map(row).collect());
                out.list(&["lease", "time", "granted", "by"], List { items, rows, next_cursor, revision })
            }
        }
    }
}

async fn keep_alive(session: &Session, ids: Vec<u64>) -> Result<(), Failure> {
    let Kept { kept, missing } = session.writer()?.leases().keep_all_alive(ids).await?;
    let json = json!({
        "kept": kept.iter().map(|(id, ttl_ms)| json!({ "id": id, "ttl_ms": ttl_ms })).collect::<Vec<_>>(),
        "missing": missing,
    });
    session.out.answer(&json, || {
        let kept = kept.iter().map(|(id, ttl_ms)| format!("lease {id} lives for {ttl_ms} ms from now"));
        let missing = missing.iter().map(|id| format!("lease not found: {id}"));
        kept.chain(missing).collect::<Vec<_>>().join("\n")
    })?;
    if missing.is_empty() { Ok(()) } else { Err(Failure::Said(NOT_FOUND)) }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn object(lease: &Lease) -> Value {
    json!({
        "id": lease.id, "ttl_ms": lease.ttl_ms, "remaining_ms": lease.remaining_ms, "principal": lease.principal,
        "granted_at_ms": lease.granted_at_ms, "kept_at_ms": lease.kept_at_ms,
        "create_revision": lease.create_revision, "mod_revision": lease.mod_revision, "version": lease.version,
    })
}

fn time(lease: &Lease) -> String {
    format!("{} ms, {} ms left", lease.ttl_ms, lease.remaining_ms)
}

fn lines(lease: &Lease, keys: &[AttachedKey]) -> String {
    let mut lines = vec![
        ("lease", lease.id.to_string()),
        ("time", time(lease)),
        ("granted", format!("{} (revision {})", output::time(lease.granted_at_ms), lease.create_revision)),
        ("kept", format!("{} (revision {})", output::time(lease.kept_at_ms), lease.mod_revision)),
        ("by", output::visible(&lease.principal).into_owned()),
    ];
    lines.extend(keys.iter().map(|key| ("with it", output::visible(&key.to_string()).into_owned())));
    output::fields(&lines)
}

fn row(lease: &Lease) -> Vec<String> {
    let by = output::cell(&output::visible(&lease.principal));
    vec![lease.id.to_string(), time(lease), output::time(lease.granted_at_ms), by]
}
