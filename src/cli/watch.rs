//! `meshstore watch`: changes, as they come.
//!
//! A line for each change: `+` is new, `~` is different, `-` is gone, `=` was there before. With `--json` each line is an object.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    doc,
    failure::Failure,
    input, kv, mesh, message,
    options::{Session, duration},
    output::{self, cell, parsed, shown, visible},
    state,
};
use crate::client::{Changed, Document, Event, Keys, Message, NamespaceEvent, Stored, Target, Watched, Watching};

/// Which keys.
#[derive(Args, Clone, Debug)]
pub(super) struct Which {
    /// Only this one
    #[arg(value_name = "KEY")]
    only: Option<String>,
    /// Only those that begin so
    #[arg(long, value_name = "PREFIX", conflicts_with = "only")]
    prefix: Option<String>,
}

impl Which {
    fn keys(self) -> Keys {
        match (self.only, self.prefix) {
            (Some(key), _) => Keys::One(key),
            (None, Some(prefix)) => Keys::Prefix(prefix),
            (None, None) => Keys::All,
        }
    }
}

/// From where on, and for how long.
#[derive(Args, Clone, Debug)]
pub(super) struct Span {
    /// Begin with what changed after this revision
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
    /// End after so many changes; a transaction is shown whole
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Tell so often up to which revision everything was shown, like 500ms or 5s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    progress: Option<Duration>,
}

/// What is there first.
#[derive(Args, Clone, Debug)]
pub(super) struct First {
    /// Show what is there first
    #[arg(long, conflicts_with = "after")]
    current: bool,
}

/// Which records of a table, and how.
#[derive(Args, Clone, Debug)]
pub(super) struct Keyed {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    first: First,
    #[command(flatten)]
    span: Span,
}

impl Keyed {
    fn of(self, table: impl FnOnce(Keys) -> Target) -> (Target, Option<First>, Span) {
        (table(self.which.keys()), Some(self.first), self.span)
    }
}

const EXAMPLES: &str = "Ctrl-C ends it. If the node that is watched goes away it goes on at another; what was missed then and is \
                        no longer kept anywhere is shown as the difference to what was shown before, marked (resynced).";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Values of a namespace; it need not exist yet
    #[command(after_help = format!("{EXAMPLES}\n\nExamples:\n  meshstore watch kv -n users\n  meshstore watch kv user:1 -n users --current\n  meshstore watch kv -n users --prefix user: --after 1042 --json"))]
    Kv {
        #[command(flatten)]
        which: Which,
        /// The namespace
        #[arg(long, short, default_value = "default")]
        namespace: String,
        /// Also the attributes of values, and when only they change
        #[arg(long)]
        metadata: bool,
        #[command(flatten)]
        first: First,
        #[command(flatten)]
        span: Span,
    },
    /// Shared state, by key
    #[command(after_help = format!("{EXAMPLES}\n\nExample:\n  meshstore watch state --prefix flags/ --current"))]
    State(Keyed),
    /// Messages, by id
    #[command(after_help = format!("{EXAMPLES}\n\nExample:\n  meshstore watch messages --json | jq ."))]
    Messages(Keyed),
    /// The routing table, by destination
    #[command(after_help = format!("{EXAMPLES}\n\nExample:\n  meshstore watch routes --current"))]
    Routes(Keyed),
    /// The runtime state of mesh nodes, by node id
    #[command(after_help = format!("{EXAMPLES}\n\nExample:\n  meshstore watch node-state node-1"))]
    NodeState(Keyed),
    /// Runtime configuration, by key
    #[command(after_help = format!("{EXAMPLES}\n\nExample:\n  meshstore watch config --prefix log."))]
    Config(Keyed),
    /// Documents of a collection, by id
    #[command(
        after_help = format!("{EXAMPLES} It also ends when the collection is dropped, and when it may no longer be read.\n\nWith a FILTER there is nothing but what it lets through: a document that comes to be so is new, one that no longer is, is gone.\n\nExamples:\n  meshstore watch documents shop.orders --current\n  meshstore watch documents shop.orders '{{\"state\": \"new\"}}' --json")
    )]
    Documents {
        /// The collection: SERVICE.COLLECTION, or the service's own
        collection: String,
        /// Which, as JSON (- for standard input, or @FILE); all if it is left out
        #[arg(default_value = "", hide_default_value = true)]
        filter: String,
        /// The service for which you watch; otherwise the one that you are known as, or whoever runs the cluster
        #[arg(long, default_value = "", hide_default_value = true, value_name = "SERVICE")]
        service: String,
        #[command(flatten)]
        first: First,
        #[command(flatten)]
        span: Span,
    },
    /// The definition of meshes, change by change
    #[command(
        after_help = "Ctrl-C ends it. The whole history is kept: --after 0 shows all of it.\n\nExample:\n  meshstore watch topology --after 0"
    )]
    Topology {
        #[command(flatten)]
        span: Span,
    },
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let (target, first, span) = match self {
            Self::Kv { which, namespace, metadata, first, span } => {
                (Target::Values { namespace, keys: which.keys(), attributes: metadata }, Some(first), span)
            }
            Self::State(keyed) => keyed.of(Target::State),
            Self::Messages(keyed) => keyed.of(Target::Messages),
            Self::Routes(keyed) => keyed.of(Target::Routes),
            Self::NodeState(keyed) => keyed.of(Target::NodeStates),
            Self::Config(keyed) => keyed.of(Target::Config),
            Self::Documents { collection, filter, service, first, span } => {
                let filter = input::text(&filter)?;
                (Target::Documents { service, collection, filter }, Some(first), span)
            }
            Self::Topology { span } => (Target::Topology, None, span),
        };
        let mut watching = session.reader()?.watch(target);
        if first.is_some_and(|first| first.current) {
            watching = watching.current();
        }
        if let Some(revision) = span.after {
            watching = watching.after(revision);
        }
        if let Some(every) = span.progress {
            watching = watching.progress(every);
        }
        tokio::select! {
            done = show(session, watching, &span) => done,
            // Whoever ends it has seen enough.
            ended = tokio::signal::ctrl_c() => Ok(ended?),
        }
    }
}

async fn show(session: &Session, watching: Watching, span: &Span) -> Result<(), Failure> {
    let (out, mut watch, mut count) = (&session.out, watching.start().await?, 0);
    while span.count.is_none_or(|most| count < most) {
        match watch.next().await? {
            Event::Content { revision, records } => {
                count += records.len() as u64;
                for record in &records {
                    out.answer(&object(revision, "there", record, false), || line(revision, '=', record, false))?;
                }
            }
            Event::Changes { revision, changes, resynced } => {
                count += changes.len() as u64;
                for change in &changes {
                    let (name, sign) = kind(change, resynced);
                    out.answer(&object(revision, name, change, resynced), || line(revision, sign, change, resynced))?;
                }
            }
            Event::Current { revision } => out.answer(&json!({ "event": "current", "revision": revision }), || {
                format!("revision {revision}  that is all; what changes comes next")
            })?,
            Event::Reset { after, complete } => {
                let told = if complete { "" } else { ", without what was deleted" };
                out.answer(&json!({ "event": "reset", "after_revision": after, "complete": complete }), || {
                    format!("what changed after revision {after} is no longer kept; the difference comes next{told}")
                })?;
            }
            Event::Progress { revision } if span.progress.is_some() => {
                out.answer(&json!({ "event": "progress", "revision": revision }), || {
                    format!("revision {revision}  all shown")
                })?;
            }
            Event::Progress { .. } => {}
        }
    }
    Ok(())
}

/// What became of a record, as it is named in JSON, and its sign. What is found by comparison is not known to be new.
fn kind(change: &Watched, resynced: bool) -> (&'static str, char) {
    let of = |now: bool, before: bool| match (now, before) {
        (true, false) if !resynced => ("created", '+'),
        (true, _) => ("changed", '~'),
        (false, _) => ("deleted", '-'),
    };
    match change {
        // Whether there was one before is known even if it is not shown.
        Watched::Value { now, before, .. } => {
            let first = now.as_ref().is_some_and(|entry| entry.metadata.version == 1);
            of(now.is_some(), before.is_some() || !first)
        }
        Watched::Attributes { .. } => ("attributes", '~'),
        Watched::Namespace(NamespaceEvent::Created) => ("namespace_created", '+'),
        Watched::Namespace(NamespaceEvent::Cleared) => ("namespace_cleared", '-'),
        Watched::Namespace(NamespaceEvent::Deleted) => ("namespace_deleted", '-'),
        Watched::Message(changed) => of_stored(changed, of),
        Watched::State(changed) => of_stored(changed, of),
        Watched::NodeState(changed) | Watched::Route(changed) | Watched::Config(changed) => of_stored(changed, of),
        Watched::Topology(_) => ("topology", '~'),
        // What comes to be let through by a filter is new, however often it was written before.
        Watched::Document { now, before, .. } => of(now.is_some(), before.is_some()),
    }
}

fn of_stored<T>(changed: &Changed<T>, of: impl Fn(bool, bool) -> (&'static str, char)) -> (&'static str, char) {
    let first = changed.now.as_ref().is_some_and(|stored| stored.version == 1);
    of(changed.now.is_some(), changed.before.is_some() || !first)
}

fn object(revision: u64, event: &str, change: &Watched, resynced: bool) -> Value {
    let mut object = Map::from_iter([("event".to_owned(), event.into()), ("revision".to_owned(), revision.into())]);
    if let Some(key) = change.key() {
        object.insert("key".into(), key.into());
    }
    if resynced {
        object.insert("resynced".into(), true.into());
    }
    let (now, before) = match change {
        Watched::Value { now, before, .. } => {
            (now.as_ref().map(kv::show::object), before.as_ref().map(kv::show::object))
        }
        Watched::Attributes { now, before, .. } => (now.as_deref().map(parsed), before.as_deref().map(parsed)),
        Watched::Namespace(_) => (None, None),
        Watched::Message(Changed { now, before, .. }) => {
            (now.as_ref().map(message::object), before.as_ref().map(message::object))
        }
        Watched::State(Changed { key, now, before }) => {
            let of = |stored: &Option<_>| stored.as_ref().map(|stored| state::object(key, stored));
            (of(now), of(before))
        }
        Watched::NodeState(Changed { key, now, before }) => (json("node_id", key, now), json("node_id", key, before)),
        Watched::Route(Changed { key, now, before }) => {
            (json("destination", key, now), json("destination", key, before))
        }
        Watched::Config(Changed { key, now, before }) => (json("key", key, now), json("key", key, before)),
        Watched::Topology(entry) => (Some(mesh::show::entry_json(entry)), None),
        Watched::Document { now, before, .. } => (now.as_ref().map(doc::object), before.as_ref().map(doc::object)),
    };
    object.extend(now.map(|now| ("now".to_owned(), now)));
    object.extend(before.map(|before| ("before".to_owned(), before)));
    Value::Object(object)
}

fn json(key_name: &'static str, key: &str, stored: &Option<Stored<String>>) -> Option<Value> {
    let stored = stored.as_ref()?;
    let mut object = Map::from_iter([(key_name.to_owned(), key.into()), ("value".to_owned(), parsed(&stored.value))]);
    output::put_version(&mut object, stored);
    Some(Value::Object(object))
}

fn line(revision: u64, sign: char, change: &Watched, resynced: bool) -> String {
    let mark = if resynced { "  (resynced)" } else { "" };
    let (now, before) = match change {
        Watched::Value { now, before, .. } => {
            let text = |entry: &Option<crate::client::Entry>| {
                entry.as_ref().map(|entry| {
                    let attributes = entry.metadata.attributes.as_deref().filter(|it| *it != "{}");
                    let value = cell(&shown(kv::show::bytes(&entry.value)));
                    attributes.map_or(value.clone(), |it| format!("{value}  metadata {}", cell(&visible(it))))
                })
            };
            (text(now), text(before))
        }
        Watched::Attributes { now, before, .. } => {
            let text = |text: &Option<String>| text.as_ref().map(|text| format!("metadata {}", cell(&visible(text))));
            (text(now), text(before))
        }
        Watched::Namespace(event) => {
            let what = match event {
                NamespaceEvent::Created => "is created",
                NamespaceEvent::Cleared => "is cleared: all its values are gone",
                NamespaceEvent::Deleted => "is deleted, with all its values",
            };
            return format!("revision {revision}  {sign} the namespace {what}{mark}");
        }
        Watched::Message(Changed { now, before, .. }) => {
            (now.as_ref().map(of_message), before.as_ref().map(of_message))
        }
        Watched::State(Changed { now, before, .. }) => {
            let text = |stored: &Option<Stored<bytes::Bytes>>| stored.as_ref().map(|it| cell(&shown(&it.value)));
            (text(now), text(before))
        }
        Watched::NodeState(changed) | Watched::Route(changed) | Watched::Config(changed) => {
            let text = |stored: &Option<Stored<String>>| stored.as_ref().map(|it| cell(&visible(&it.value)));
            (text(&changed.now), text(&changed.before))
        }
        Watched::Document { now, before, .. } => {
            let text = |document: &Option<Document>| document.as_ref().map(|it| cell(&visible(&it.json)));
            (text(now), text(before))
        }
        Watched::Topology(entry) => {
            return mesh::show::entry_text(entry, &mesh::show::names(std::slice::from_ref(entry)));
        }
    };
    let key = visible(change.key().unwrap_or_default()).into_owned();
    let mut line = format!("revision {revision}  {sign} {}", cell(&key));
    if let Some(now) = now {
        line.push_str(&format!("  {now}"));
    }
    if let Some(before) = before {
        line.push_str(&format!("  (was {before})"));
    }
    line + mark
}

fn of_message(stored: &Stored<Message>) -> String {
    let Message { from, to, content, timestamp, large, .. } = &stored.value;
    let content = match large {
        Some(large) => format!("({} bytes)", large.size),
        None => cell(&shown(content)),
    };
    format!("{} -> {} at {timestamp}: {content}", visible(from), visible(to))
}
