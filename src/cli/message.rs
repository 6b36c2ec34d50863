//! `meshstore message`.

mod content;
mod retention;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::{
    failure::Failure,
    input,
    options::{Part, Session},
    output::{self, List},
};
use crate::{
    client::{Message, MessageFilter, Stored},
    environment::{Clock, clock::RealClock},
    limits,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Store a message; one with the same id is overwritten
    #[command(
        after_help = "CONTENT is the content itself, - for standard input, or @FILE (@@ for one that begins with @). More than 1 MiB\ngoes to the store in chunks.\n\nExamples:\n  meshstore message store --from node-1 --to node-2 hello\n  meshstore message store --id m-7 --from node-1 --to node-2 --timestamp 1700000000 @photo.jpg\n  meshstore message store --from node-1 --to node-2 --file film.mp4"
    )]
    Store(Store),
    /// Read a message
    #[command(
        after_help = "Of content over 1 MiB only the size is shown, unless --raw or --output asks for it.\n\nExamples:\n  meshstore message get m-7\n  meshstore message get m-7 --raw > photo.jpg\n  meshstore message get m-8 --output film.mp4"
    )]
    Get {
        /// Its id
        id: String,
        /// Write exactly the bytes of the content
        #[arg(long, conflicts_with_all = ["json", "output"])]
        raw: bool,
        /// Write the content into this file, which appears when all of it is there
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List messages, in order of time, then id
    #[command(
        after_help = "Examples:\n  meshstore message list\n  meshstore message list --to node-2 --since 1700000000\n  meshstore message list --from node-1 --to node-2 --all --json"
    )]
    List(ListArguments),
    /// Delete a message
    #[command(after_help = "Example:\n  meshstore message delete m-7")]
    Delete {
        /// Its id
        id: String,
    },
    /// How long messages are kept, and how many, by receiver
    #[command(subcommand)]
    Retention(retention::Command),
}

#[derive(Args, Debug)]
pub(super) struct Store {
    /// Its id, at most 255 bytes [default: a random one, which is printed]
    #[arg(long)]
    id: Option<String>,
    /// The sender
    #[arg(long, value_name = "NODE")]
    from: String,
    /// The receiver
    #[arg(long, value_name = "NODE")]
    to: String,
    /// The sender's time, in any unit; lists are ordered by it [default: now, in milliseconds since 1970]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    timestamp: Option<i64>,
    /// A file that is the content
    #[arg(long, value_name = "FILE", conflicts_with = "content")]
    file: Option<String>,
    /// At most 64 MiB
    #[arg(allow_hyphen_values = true, required_unless_present = "file")]
    content: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct ListArguments {
    /// Only from this sender
    #[arg(long, value_name = "NODE")]
    from: Option<String>,
    /// Only to this receiver
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// Only at or after this time
    #[arg(long, value_name = "TIMESTAMP", allow_hyphen_values = true)]
    since: Option<i64>,
    /// Only before this time
    #[arg(long, value_name = "TIMESTAMP", allow_hyphen_values = true)]
    until: Option<i64>,
    #[command(flatten)]
    part: Part,
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let out = &session.out;
        match self {
            Self::Store(store) => store.run(session).await,
            Self::Get { id, raw: true, .. } => {
                content::write_out(session.reader()?.messages().read_large(&id).await?, out).await
            }
            Self::Get { id, output: Some(file), .. } => {
                let message = session.reader()?.messages().read_large(&id).await?;
                let stored = content::save(message, &file).await?;
                out.answer(&object(&stored), || text(&stored))
            }
            Self::Get { id, .. } => {
                let stored = session.reader()?.messages().get(&id).await?;
                out.answer(&object(&stored), || text(&stored))
            }
            Self::List(list) => list.run(session).await,
            Self::Delete { id } => out.written(session.writer()?.messages().delete(&id).await?),
            Self::Retention(command) => command.run(session).await,
        }
    }
}

impl Store {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { id, from, to, timestamp, file, content } = self;
        let content = match file {
            Some(file) => input::file(&file, limits::LARGE_MESSAGE_BYTES)?,
            None => input::bytes_up_to(&content.unwrap_or_default(), limits::LARGE_MESSAGE_BYTES)?,
        };
        let id = id.unwrap_or_else(|| format!("{:032x}", RealClock.random()));
        let timestamp = timestamp.unwrap_or_else(|| i64::try_from(RealClock.wall_ms()).unwrap_or(i64::MAX));
        let message = Message { id: id.clone(), from, to, content: content.into(), timestamp, large: None };
        let written = content::store(&session.writer()?.messages(), message).await?;
        let json = serde_json::json!({ "id": id, "revision": written.revision, "leader_id": written.leader_id });
        session.out.answer(&json, || {
            let (id, revision, leader) = (output::visible(&id), written.revision, written.leader_id);
            format!("stored {id} at revision {revision} (leader: node {leader})")
        })
    }
}

impl ListArguments {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { from, to, since, until, part } = self;
        let filter = MessageFilter { from, to, since, until };
        let messages = session.reader()?.messages();
        let (found, next_cursor, revision) =
            part.of(messages.list_all(filter.clone()), messages.list(filter, part.request())).await?;
        let items = found.iter().map(object).collect();
        let list = List { items, rows: found.iter().map(row).collect(), next_cursor, revision };
        session.out.list(&["timestamp", "id", "from", "to", "content", "revision"], list)
    }
}

pub(super) fn object(stored: &Stored<Message>) -> Value {
    let Message { id, from, to, content, timestamp, large } = &stored.value;
    let mut object = Map::new();
    object.insert("id".into(), id.as_str().into());
    object.insert("from".into(), from.as_str().into());
    object.insert("to".into(), to.as_str().into());
    object.insert("timestamp".into(), (*timestamp).into());
    match large {
        None => output::put_bytes(&mut object, "content", content),
        Some(large) => {
            object.insert("content_bytes".into(), large.size.into());
        }
    }
    output::put_version(&mut object, stored);
    Value::Object(object)
}

fn text(stored: &Stored<Message>) -> String {
    let Message { id, from, to, timestamp, .. } = &stored.value;
    let visible = |text: &str| output::visible(text).into_owned();
    let mut lines = vec![
        ("id", visible(id)),
        ("from", visible(from)),
        ("to", visible(to)),
        ("timestamp", timestamp.to_string()),
        ("content", content::shown(&stored.value)),
    ];
    lines.extend(output::version_fields(stored));
    output::fields(&lines)
}

fn row(stored: &Stored<Message>) -> Vec<String> {
    let Message { id, from, to, timestamp, .. } = &stored.value;
    let cell = |text: &str| output::cell(&output::visible(text));
    let content = output::cell(&content::shown(&stored.value));
    vec![timestamp.to_string(), cell(id), cell(from), cell(to), content, stored.mod_revision.to_string()]
}
