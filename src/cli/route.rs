//! `meshstore route`.

use clap::Subcommand;

use super::{
    failure::Failure,
    input,
    options::{Attached, Part, Session},
    output::{self, List},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create or overwrite the route to a destination
    #[command(
        after_help = "JSON is the text itself, - for standard input, or @FILE.\n\nExamples:\n  meshstore route save 10.0.0.0/8 '{\"via\":\"node-2\"}'\n  meshstore route save 10.0.0.0/8 @route.json"
    )]
    Save {
        /// At most 1,024 bytes
        destination: String,
        /// JSON text, kept exactly as it is; at most 1 MiB
        #[arg(value_name = "JSON", allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        with: Attached,
    },
    /// Read the route to a destination
    #[command(
        after_help = "Examples:\n  meshstore route get 10.0.0.0/8\n  meshstore route get 10.0.0.0/8 --raw | jq ."
    )]
    Get {
        /// The destination
        destination: String,
        /// Write exactly the JSON text
        #[arg(long, conflicts_with = "json")]
        raw: bool,
    },
    /// List destinations and their routes, in order
    #[command(
        after_help = "Examples:\n  meshstore route list\n  meshstore route list 10.\n  meshstore route list --all --json"
    )]
    List {
        /// Only destinations that begin with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        #[command(flatten)]
        part: Part,
    },
    /// Delete the route to a destination
    #[command(after_help = "Example:\n  meshstore route delete 10.0.0.0/8")]
    Delete {
        /// The destination
        destination: String,
    },
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let out = &session.out;
        match self {
            Self::Save { destination, value, with } => {
                let value = input::text(&value)?;
                out.written(with.writer(session)?.routes().save_json(&destination, &value).await?)
            }
            Self::Get { destination, raw } => {
                let stored = session.reader()?.routes().get(&destination).await?;
                if raw {
                    return out.raw(stored.value.raw().as_bytes());
                }
                let (json, text) = output::stored_json("destination", &destination, "route", &stored);
                out.answer(&json, || text)
            }
            Self::List { prefix, part } => {
                let routes = session.reader()?.routes();
                let (found, next_cursor, revision) =
                    part.of(routes.list_all(&prefix), routes.list(&prefix, part.request())).await?;
                let object = |(key, stored): &(String, _)| output::stored_json("destination", key, "route", stored).0;
                let items = found.iter().map(object).collect();
                let rows = found.iter().map(|(key, stored)| output::json_row(key, stored)).collect();
                let list = List { items, rows, next_cursor, revision };
                out.list(&["destination", "route", "version", "revision", "updated"], list)
            }
            Self::Delete { destination } => out.written(session.writer()?.routes().delete(&destination).await?),
        }
    }
}
