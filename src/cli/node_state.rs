//! `meshstore node-state`.

use clap::Subcommand;

use super::{
    failure::Failure,
    input,
    options::{Attached, Part, Session},
    output::{self, List},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create or overwrite the state of a node
    #[command(
        after_help = "JSON is the text itself, - for standard input, or @FILE.\n\nExamples:\n  meshstore node-state save node-1 '{\"load\":0.5}'\n  meshstore node-state save node-1 @node-state.json"
    )]
    Save {
        /// At most 255 bytes
        node_id: String,
        /// JSON text, kept exactly as it is; at most 1 MiB
        #[arg(value_name = "JSON", allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        with: Attached,
    },
    /// Read the state of a node
    #[command(
        after_help = "Examples:\n  meshstore node-state get node-1\n  meshstore node-state get node-1 --raw | jq ."
    )]
    Get {
        /// The id of the node
        node_id: String,
        /// Write exactly the JSON text
        #[arg(long, conflicts_with = "json")]
        raw: bool,
    },
    /// List node ids and their states, in order
    #[command(after_help = "Examples:\n  meshstore node-state list\n  meshstore node-state list --all --json")]
    List {
        #[command(flatten)]
        part: Part,
    },
    /// Delete the state of a node
    #[command(after_help = "Example:\n  meshstore node-state delete node-1")]
    Delete {
        /// The id of the node
        node_id: String,
    },
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let out = &session.out;
        match self {
            Self::Save { node_id, value, with } => {
                let value = input::text(&value)?;
                out.written(with.writer(session)?.node_state().save_json(&node_id, &value).await?)
            }
            Self::Get { node_id, raw } => {
                let stored = session.reader()?.node_state().get(&node_id).await?;
                if raw {
                    return out.raw(stored.value.raw().as_bytes());
                }
                let (json, text) = output::stored_json("node_id", &node_id, "state", &stored);
                out.answer(&json, || text)
            }
            Self::List { part } => {
                let states = session.reader()?.node_state();
                let (found, next_cursor, revision) = part.of(states.list_all(), states.list(part.request())).await?;
                let object = |(key, stored): &(String, _)| output::stored_json("node_id", key, "state", stored).0;
                let items = found.iter().map(object).collect();
                let rows = found.iter().map(|(key, stored)| output::json_row(key, stored)).collect();
                let list = List { items, rows, next_cursor, revision };
                out.list(&["node id", "state", "version", "revision", "updated"], list)
            }
            Self::Delete { node_id } => out.written(session.writer()?.node_state().delete(&node_id).await?),
        }
    }
}
