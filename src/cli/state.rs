//! `meshstore state`.

use clap::Subcommand;
use serde_json::{Map, Value};

use super::{
    failure::Failure,
    input,
    options::{Attached, Part, Session},
    output::{self, List},
};
use crate::client::Stored;

const VALUES: &str = "VALUE is the value itself, - for standard input, or @FILE (@@ for a value that begins with @).";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create or overwrite a value
    #[command(after_help = format!("{VALUES}\n\nExamples:\n  meshstore state put greeting hello\n  meshstore state put logo @logo.png\n  date | meshstore state put now -"))]
    Put {
        /// At most 1,024 bytes
        key: String,
        /// At most 1 MiB
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        with: Attached,
    },
    /// Read a value
    #[command(
        after_help = "Examples:\n  meshstore state get greeting\n  meshstore state get logo --raw > logo.png\n  meshstore state get greeting --read stale:1s"
    )]
    Get {
        /// The key
        key: String,
        /// Write exactly the bytes of the value
        #[arg(long, conflicts_with = "json")]
        raw: bool,
    },
    /// List keys and values, in order of the keys
    #[command(
        after_help = "Examples:\n  meshstore state list\n  meshstore state list user/ --limit 10\n  meshstore state list --all --json"
    )]
    List {
        /// Only keys that begin with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        #[command(flatten)]
        part: Part,
    },
    /// Delete a value
    #[command(after_help = "Example:\n  meshstore state delete greeting")]
    Delete {
        /// The key
        key: String,
    },
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let out = &session.out;
        match self {
            Self::Put { key, value, with } => {
                let value = input::bytes(&value)?;
                out.written(with.writer(session)?.state().put(&key, value).await?)
            }
            Self::Get { key, raw } => {
                let stored = session.reader()?.state().get(&key).await?;
                if raw {
                    return out.raw(&stored.value);
                }
                out.answer(&object(&key, &stored), || {
                    let key = output::visible(&key).into_owned();
                    let mut lines = vec![("key", key), ("value", output::shown(&stored.value))];
                    lines.extend(output::version_fields(&stored));
                    output::fields(&lines)
                })
            }
            Self::List { prefix, part } => {
                let state = session.reader()?.state();
                let (values, next_cursor, revision) =
                    part.of(state.list_all(&prefix), state.list(&prefix, part.request())).await?;
                let items = values.iter().map(|(key, stored)| object(key, stored)).collect();
                let rows = values.iter().map(|(key, stored)| row(key, stored)).collect();
                let list = List { items, rows, next_cursor, revision };
                out.list(&["key", "value", "version", "revision", "updated"], list)
            }
            Self::Delete { key } => out.written(session.writer()?.state().delete(&key).await?),
        }
    }
}

pub(super) fn object(key: &str, stored: &Stored<bytes::Bytes>) -> Value {
    let mut object = Map::new();
    object.insert("key".into(), key.into());
    output::put_bytes(&mut object, "value", &stored.value);
    output::put_version(&mut object, stored);
    Value::Object(object)
}

fn row(key: &str, stored: &Stored<bytes::Bytes>) -> Vec<String> {
    let (version, revision) = (stored.version.to_string(), stored.mod_revision.to_string());
    let value = output::cell(&output::shown(&stored.value));
    vec![output::cell(&output::visible(key)), value, version, revision, output::time(stored.updated_at_ms)]
}
