//! `meshstore broker grants`: what services are allowed with collections, and ask for.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value as Json, json};

use super::{
    super::{
        failure::Failure,
        options::{Part, Session, duration},
        output::{self, List, time},
    },
    permission,
};
use crate::client::{AccessRequest, Grant, Permission};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// What services are allowed with a collection
    #[command(after_help = "Example:\n  meshstore broker grants list shop.orders")]
    List {
        /// The collection: SERVICE.COLLECTION, or the service's own
        collection: String,
        #[command(flatten)]
        part: Part,
    },
    /// What services ask for with their manifests
    #[command(after_help = "Example:\n  meshstore broker grants pending --owner shop")]
    Pending {
        /// Only with the collections of this service
        #[arg(long, default_value = "", hide_default_value = true, value_name = "SERVICE")]
        owner: String,
        /// Also what was denied
        #[arg(long)]
        denied: bool,
        #[command(flatten)]
        part: Part,
    },
    /// Allow what a service asks for
    #[command(
        after_help = "Examples:\n  meshstore broker grants approve shop.orders analytics\n  meshstore broker grants approve shop.orders analytics --only read --for 24h"
    )]
    Approve {
        /// The collection: SERVICE.COLLECTION, or the service's own
        collection: String,
        /// Who asks
        target: String,
        /// This, and not what it asks for: read, write or admin
        #[arg(long, value_parser = permission, value_name = "PERMISSION")]
        only: Option<Permission>,
        /// How long it counts; otherwise until it is revoked
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        ttl: Option<Duration>,
    },
    /// Deny what a service asks for; asked for again it stays denied
    #[command(after_help = "Example:\n  meshstore broker grants deny shop.orders analytics")]
    Deny {
        /// The collection: SERVICE.COLLECTION, or the service's own
        collection: String,
        /// Who asks
        target: String,
    },
}

impl Command {
    pub(super) async fn run(self, session: &Session, service: &str) -> Result<(), Failure> {
        let out = &session.out;
        match self {
            Self::List { collection, part } => {
                let documents = session.reader()?.broker(service).collection(collection);
                let page = documents.grants(part.request());
                let (found, next_cursor, revision) = part.of(documents.all_grants(), page).await?;
                let (items, rows) = (found.iter().map(grant).collect(), found.iter().map(grant_row).collect());
                let columns = ["service", "may", "granted", "by", "for", "reason"];
                out.list(&columns, List { items, rows, next_cursor, revision })
            }
            Self::Pending { owner, denied, part } => {
                let broker = session.reader()?.broker(service);
                let of = (owner.as_str(), denied);
                let page = broker.access_requests(of, part.request());
                let (found, next_cursor, revision) = part.of(broker.all_access_requests(of), page).await?;
                let (items, rows) = (found.iter().map(request).collect(), found.iter().map(request_row).collect());
                let columns = ["collection", "service", "asks for", "since", "denied by", "reason"];
                out.list(&columns, List { items, rows, next_cursor, revision })
            }
            Self::Approve { collection, target, only, ttl } => {
                let documents = session.writer()?.broker(service).collection(collection);
                out.written(documents.approve(&target, only, ttl).await?)
            }
            Self::Deny { collection, target } => {
                out.written(session.writer()?.broker(service).collection(collection).deny(&target).await?)
            }
        }
    }
}

fn grant(grant: &Grant) -> Json {
    let Grant { collection, service, permission, reason, granted_by, granted_at_ms, ttl_ms } = grant;
    json!({
        "collection": collection, "service": service, "permission": permission.name(), "reason": reason,
        "granted_by": granted_by, "granted_at_ms": granted_at_ms, "ttl_ms": ttl_ms,
    })
}

fn grant_row(grant: &Grant) -> Vec<String> {
    let duration = match grant.ttl_ms {
        0 => "good".into(),
        ms => format!("{} s", ms / 1_000),
    };
    vec![
        output::cell(&output::visible(&grant.service)),
        grant.permission.to_string(),
        time(grant.granted_at_ms),
        output::cell(&output::visible(&grant.granted_by)),
        duration,
        output::cell(&output::visible(&grant.reason)),
    ]
}

fn request(request: &AccessRequest) -> Json {
    let AccessRequest { collection, service, permission, reason, at_ms, denied_by } = request;
    json!({
        "collection": collection, "service": service, "permission": permission.name(), "reason": reason, "at_ms": at_ms,
        "denied_by": denied_by,
    })
}

fn request_row(request: &AccessRequest) -> Vec<String> {
    vec![
        output::cell(&output::visible(&request.collection)),
        output::cell(&output::visible(&request.service)),
        request.permission.to_string(),
        time(request.at_ms),
        output::cell(&output::visible(&request.denied_by)),
        output::cell(&output::visible(&request.reason)),
    ]
}
