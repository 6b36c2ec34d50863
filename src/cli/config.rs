//! `meshstore config`.

use clap::Subcommand;

use super::{
    failure::Failure,
    input,
    options::{Attached, Part, Session},
    output::{self, List},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create or overwrite a configuration value
    #[command(
        after_help = "JSON is the text itself, - for standard input, or @FILE.\n\nExamples:\n  meshstore config save retry/limit '5'\n  meshstore config save retry/limit @config.json"
    )]
    Save {
        /// At most 1,024 bytes
        key: String,
        /// JSON text, kept exactly as it is; at most 1 MiB
        #[arg(value_name = "JSON", allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        with: Attached,
    },
    /// Read a configuration value
    #[command(
        after_help = "Examples:\n  meshstore config get retry/limit\n  meshstore config get retry/limit --raw | jq ."
    )]
    Get {
        /// The key
        key: String,
        /// Write exactly the JSON text
        #[arg(long, conflicts_with = "json")]
        raw: bool,
    },
    /// List keys, in order
    #[command(
        after_help = "Examples:\n  meshstore config list\n  meshstore config list retry/\n  meshstore config list --all --json"
    )]
    List {
        /// Only keys that begin with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        #[command(flatten)]
        part: Part,
    },
    /// Delete a configuration value
    #[command(after_help = "Example:\n  meshstore config delete retry/limit")]
    Delete {
        /// The key
        key: String,
    },
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let out = &session.out;
        match self {
            Self::Save { key, value, with } => {
                let value = input::text(&value)?;
                out.written(with.writer(session)?.config().save_json(&key, &value).await?)
            }
            Self::Get { key, raw } => {
                let stored = session.reader()?.config().get(&key).await?;
                if raw {
                    return out.raw(stored.value.raw().as_bytes());
                }
                let (json, text) = output::stored_json("key", &key, "value", &stored);
                out.answer(&json, || text)
            }
            Self::List { prefix, part } => {
                let config = session.reader()?.config();
                let (keys, next_cursor, revision) =
                    part.of(config.list_all_keys(&prefix), config.list_keys(&prefix, part.request())).await?;
                let rows = keys.iter().map(|key| vec![output::visible(key).into_owned()]).collect();
                let items = keys.into_iter().map(Into::into).collect();
                out.list(&["key"], List { items, rows, next_cursor, revision })
            }
            Self::Delete { key } => out.written(session.writer()?.config().delete(&key).await?),
        }
    }
}
