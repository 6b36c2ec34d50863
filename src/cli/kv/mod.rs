//! `meshstore kv`: the storage contract.

mod index;
mod many;
mod moving;
mod namespace;
pub(super) mod query;
pub(super) mod show;
mod transaction;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    failure::Failure,
    input,
    options::{Attached, Session, part},
    output::{self, List, Output},
};
use crate::client::{Condition, KeyFilter, Kv, Saved, Set, Value};

const VALUES: &str = "VALUE is JSON (with --bytes: anything), or - for standard input, or @FILE.";

/// Where the values are.
#[derive(Args, Clone, Debug)]
pub(super) struct In {
    /// The namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

impl In {
    fn read(&self, session: &Session) -> Result<Kv, Failure> {
        Ok(session.reader()?.kv(&self.namespace))
    }

    fn write(&self, session: &Session) -> Result<Kv, Failure> {
        Ok(session.writer()?.kv(&self.namespace))
    }
}

/// What must be true of the value that is there.
#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
pub(super) struct If {
    /// Only if the value has this version; 0: if there is none
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// Only if the value was last written at this revision; 0: if there is none
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
}

impl If {
    fn condition(&self) -> Option<Condition> {
        let revision = self.if_revision.map(Condition::ModRevision);
        self.if_version.map(Condition::Version).or(revision)
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read a value
    #[command(
        after_help = "Examples:\n  meshstore kv get user:1 -n users\n  meshstore kv get user:1 -n users --raw | jq .\n  meshstore kv get user:1 -n users --as-of 1042"
    )]
    Get {
        /// The key
        key: String,
        #[command(flatten)]
        place: In,
        /// The version that was current at this revision, if the namespace keeps it
        #[arg(long, value_name = "REVISION")]
        as_of: Option<u64>,
        /// Write exactly the bytes of the value
        #[arg(long, conflicts_with = "json")]
        raw: bool,
    },
    /// Create or overwrite a value; creates the namespace if there is none
    #[command(after_help = format!("{VALUES}\n\nExamples:\n  meshstore kv set user:1 '{{\"name\": \"Ada\"}}' -n users\n  meshstore kv set user:1 @ada.json -n users --create --metadata '{{\"source\": \"import\"}}'\n  meshstore kv set logo @logo.png --bytes"))]
    Set {
        /// At most 1,024 bytes
        key: String,
        /// At most 1 MiB
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        place: In,
        /// The value is bytes, and not JSON
        #[arg(long)]
        bytes: bool,
        /// Attributes, a JSON object; merged with those that are there
        #[arg(long, value_name = "JSON")]
        metadata: Option<String>,
        /// Do not overwrite a value that is there
        #[arg(long)]
        create: bool,
        #[command(flatten)]
        only: If,
        #[command(flatten)]
        with: Attached,
    },
    /// Delete a value
    #[command(after_help = "That there is none is no error.\n\nExample:\n  meshstore kv delete user:1 -n users")]
    Delete {
        /// The key
        key: String,
        #[command(flatten)]
        place: In,
        #[command(flatten)]
        only: If,
    },
    /// Whether there is a value; exit code 3 if not
    #[command(after_help = "Example:\n  meshstore kv has user:1 -n users && echo yes")]
    Has {
        /// The key
        key: String,
        #[command(flatten)]
        place: In,
    },
    /// Read several values, at one revision
    #[command(after_help = "Example:\n  meshstore kv get-many user:1 user:2 -n users")]
    GetMany {
        /// At most 1,000
        #[arg(required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        place: In,
    },
    /// Write several values: all or none
    SetMany(many::SetMany),
    /// Delete several values, at one revision: all or none
    #[command(after_help = "Example:\n  meshstore kv delete-many user:1 user:2 -n users")]
    DeleteMany {
        /// At most 1,024
        #[arg(required = true)]
        keys: Vec<String>,
        /// Delete those that can be, and say of the others why not; exit code 5 if there are any
        #[arg(long)]
        each: bool,
        #[command(flatten)]
        place: In,
    },
    /// List keys, in their order
    #[command(
        after_help = "In a pattern * stands for any run of characters, \\* for a star.\n\nExamples:\n  meshstore kv list -n users\n  meshstore kv list 'user:*' -n users --limit 10 --offset 20\n  meshstore kv list --all --json"
    )]
    List {
        /// Only keys that match
        #[arg(default_value = "", hide_default_value = true)]
        pattern: String,
        #[command(flatten)]
        place: In,
        /// Most keys, up to 1000; 0: none
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1000))]
        limit: u32,
        /// Leave out so many at the beginning
        #[arg(long, value_name = "N", default_value_t = 0)]
        offset: u64,
        /// Go on where another page ended
        #[arg(long, value_name = "CURSOR", conflicts_with = "offset")]
        cursor: Option<String>,
        /// All keys, however many pages they are
        #[arg(long, conflicts_with_all = ["limit", "offset", "cursor"])]
        all: bool,
    },
    /// Count the values of a namespace, or those that a filter lets through
    #[command(
        after_help = "Filters and conditions are those of meshstore kv query.\n\nExamples:\n  meshstore kv count -n users\n  meshstore kv count -n users --where 'age>=18'"
    )]
    Count {
        #[command(flatten)]
        wanted: query::Wanted,
        #[command(flatten)]
        place: In,
    },
    /// Find values by what is in them
    Query(query::Query),
    /// Create, drop and list indexes of a namespace
    #[command(subcommand)]
    Index(index::Command),
    /// Show what is known of a value: times, versions, who wrote it, its attributes
    #[command(after_help = "Example:\n  meshstore kv metadata user:1 -n users")]
    Metadata {
        /// The key
        key: String,
        #[command(flatten)]
        place: In,
    },
    /// Set the attributes of a value
    #[command(
        after_help = "Examples:\n  meshstore kv set-metadata user:1 '{\"checked\": true}' -n users\n  meshstore kv set-metadata user:1 '{}' -n users --replace"
    )]
    SetMetadata {
        /// The key
        key: String,
        /// A JSON object, or - for standard input, or @FILE; at most 64 KiB
        #[arg(value_name = "JSON")]
        attributes: String,
        #[command(flatten)]
        place: In,
        /// Replace the attributes that are there instead of merging
        #[arg(long)]
        replace: bool,
        /// Only if the attributes were last written at this revision; 0: if there are none
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<u64>,
    },
    /// Show the versions of a value that its namespace keeps
    #[command(after_help = "Example:\n  meshstore kv history user:1 -n users")]
    History {
        /// The key
        key: String,
        #[command(flatten)]
        place: In,
    },
    /// Make a value and its attributes what they were at a revision
    #[command(after_help = "Example:\n  meshstore kv restore user:1 --as-of 1042 -n users")]
    Restore {
        /// The key
        key: String,
        /// The revision
        #[arg(long, value_name = "REVISION")]
        as_of: u64,
        #[command(flatten)]
        place: In,
    },
    /// Delete all values of a namespace, and their older versions, at once
    #[command(after_help = "Examples:\n  meshstore kv clear -n users\n  meshstore kv clear --all-namespaces")]
    Clear {
        /// The namespace
        #[arg(long, short, required_unless_present = "all_namespaces")]
        namespace: Option<String>,
        /// All of them
        #[arg(long, conflicts_with = "namespace")]
        all_namespaces: bool,
    },
    /// Write all values of a namespace, as of one revision, into a file of JSON lines
    Export(moving::Export),
    /// Write the values of a file of JSON lines into a namespace
    Import(moving::Import),
    /// Show how much is stored
    #[command(after_help = "Example:\n  meshstore kv status")]
    Status,
    /// Begin a transaction: print its id
    Begin(transaction::Begin),
    /// Commit a transaction: all that waits in it, at one revision, or nothing
    #[command(
        after_help = "Nothing is written if others have changed what the transaction read, or its time was over.\n\nExample:\n  meshstore kv commit $MESHSTORE_TRANSACTION"
    )]
    Commit {
        /// Its id, if it is not that of --transaction
        id: Option<String>,
    },
    /// End a transaction without writing anything
    #[command(after_help = "Example:\n  meshstore kv rollback $MESHSTORE_TRANSACTION")]
    Rollback {
        /// Its id, if it is not that of --transaction
        id: Option<String>,
    },
    /// Create, show, change and delete namespaces
    #[command(subcommand)]
    Namespace(namespace::Command),
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let out = &session.out;
        match self {
            Self::Get { key, place, as_of, raw } => get(session, &place, &key, (as_of, raw)).await,
            Self::Set { key, value, place, bytes, metadata, create, only, with } => {
                let value = if bytes { Value::Bytes(input::bytes(&value)?.into()) } else { text(&value)? };
                let (condition, lease) = (only.condition(), with.lease);
                let set = Set { key, value, attributes: metadata, overwrite: !create, condition, lease };
                saved(session, place.write(session)?.set(set).await?)
            }
            Self::Delete { key, place, only } => delete(session, &place, &key, &only).await,
            Self::Has { key, place } => {
                let exists = place.read(session)?.has(&key).await?;
                out.answer(&json!({ "exists": exists }), || if exists { "yes" } else { "no" }.into())?;
                if exists { Ok(()) } else { Err(Failure::Said(super::failure::NOT_FOUND)) }
            }
            Self::GetMany { keys, place } => many::get(session, &place, keys).await,
            Self::SetMany(many) => many.run(session).await,
            Self::DeleteMany { keys, each, place } => many::delete(session, &place, keys, each).await,
            Self::List { pattern, place, limit, offset, cursor, all } => {
                let filter = KeyFilter { pattern, limit: Some(limit), offset, cursor: cursor.unwrap_or_default() };
                list(session, &place, filter, all).await
            }
            Self::Count { wanted, place } => {
                let (kv, filter) = (place.read(session)?, wanted.filter()?);
                let count = if filter.is_empty() { kv.count().await? } else { kv.count_where(filter).await? };
                out.answer(&json!({ "count": count }), || count.to_string())
            }
            Self::Metadata { key, place } => {
                let metadata = place.read(session)?.metadata(&key).await?;
                let json = serde_json::Value::Object(show::metadata(&metadata));
                out.answer(&json, || output::fields(&show::metadata_lines(&metadata)))
            }
            Self::SetMetadata { key, attributes, place, replace, if_revision } => {
                let (kv, attributes) = (place.write(session)?, input::text(&attributes)?);
                out.written(match if_revision {
                    Some(revision) => kv.set_metadata_if(&key, &attributes, !replace, revision).await?,
                    None => kv.set_metadata(&key, &attributes, !replace).await?,
                })
            }
            Self::History { key, place } => {
                let versions = place.read(session)?.history(&key).await?;
                show::history(session, &versions)
            }
            Self::Restore { key, as_of, place } => saved(session, place.write(session)?.restore(&key, as_of).await?),
            Self::Clear { namespace, .. } => {
                let client = session.writer()?;
                out.written(match namespace {
                    Some(namespace) => client.kv(namespace).clear().await?,
                    None => client.namespaces().clear_all().await?,
                })
            }
            Self::Export(export) => export.run(session).await,
            Self::Import(import) => import.run(session).await,
            Self::Status => show::status(session, &session.reader()?.namespaces().status().await?),
            Self::Query(query) => query.run(session).await,
            Self::Index(command) => command.run(session).await,
            Self::Begin(begin) => begin.run(session).await,
            Self::Commit { id } => transaction::commit(session, id).await,
            Self::Rollback { id } => transaction::rollback(session, id).await,
            Self::Namespace(command) => command.run(session).await,
        }
    }
}

async fn get(session: &Session, place: &In, key: &str, (as_of, raw): (Option<u64>, bool)) -> Result<(), Failure> {
    let kv = place.read(session)?;
    let entry = match as_of {
        Some(revision) => kv.get_at(key, revision).await?,
        None => kv.get(key).await?,
    };
    if raw {
        return session.out.raw(show::bytes(&entry.value));
    }
    session.out.answer(&show::object(&entry), || show::lines(&entry))
}

async fn delete(session: &Session, place: &In, key: &str, only: &If) -> Result<(), Failure> {
    let kv = place.write(session)?;
    let deleted = match only.condition() {
        Some(condition) => kv.delete_if(key, condition).await?,
        None => kv.delete(key).await?,
    };
    let text = if deleted { "deleted" } else { "there was nothing to delete" };
    session.out.answer(&json!({ "deleted": deleted }), || text.into())
}

async fn list(session: &Session, place: &In, filter: KeyFilter, all: bool) -> Result<(), Failure> {
    let kv = place.read(session)?;
    let pattern = filter.pattern.clone();
    let (keys, next_cursor, revision) = part(all, kv.list_all(&pattern), kv.list(filter)).await?;
    let rows = keys.iter().map(|key| vec![output::visible(key).into_owned()]).collect();
    let items = keys.into_iter().map(Into::into).collect();
    session.out.list(&["key"], List { items, rows, next_cursor, revision })
}

/// JSON, from the argument, a file or standard input.
fn text(argument: &str) -> Result<Value, Failure> {
    Ok(Value::Json(input::text(argument)?))
}

fn saved(session: &Session, saved: Saved) -> Result<(), Failure> {
    let Saved { revision, version } = saved;
    session.out.answer(&json!({ "revision": revision, "version": version }), || match session.out.waits {
        true => Output::waiting(revision),
        false => format!("done at revision {revision}: version {version}"),
    })
}
