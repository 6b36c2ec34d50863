//! `meshstore kv namespace`.

use clap::Subcommand;
use serde_json::{Value as Json, json};

use super::{
    super::{
        failure::Failure,
        options::{Part, Session},
        output::{self, List, time},
    },
    index, query,
};
use crate::client::{Namespace, NamespaceChange, NamespaceSettings};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Create a namespace
    #[command(
        after_help = "Names hold none of / : *, but for the form principal://{id}.\n\nExamples:\n  meshstore kv namespace create users --history 5\n  meshstore kv namespace create cache --max-entries 10000 --metadata '{\"owner\": \"billing\"}'"
    )]
    Create {
        /// Its name
        name: String,
        /// A JSON object
        #[arg(long, value_name = "JSON", default_value = "", hide_default_value = true)]
        metadata: String,
        /// Older versions that are kept of each value, up to 64
        #[arg(long, value_name = "N", default_value_t = 0)]
        history: u32,
        /// Most values; 0: no bound
        #[arg(long, value_name = "N", default_value_t = 0)]
        max_entries: u64,
        /// Most bytes of keys and values, 64 more for each; 0: no bound
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        max_bytes: u64,
    },
    /// Change a namespace; what is not named stays as it is
    #[command(after_help = "Example:\n  meshstore kv namespace modify users --history 10 --max-entries 0")]
    Modify {
        /// Its name
        name: String,
        /// A JSON object
        #[arg(long, value_name = "JSON")]
        metadata: Option<String>,
        /// Older versions that are kept of each value, up to 64
        #[arg(long, value_name = "N")]
        history: Option<u32>,
        /// Most values; 0: no bound
        #[arg(long, value_name = "N")]
        max_entries: Option<u64>,
        /// Most bytes of keys and values, 64 more for each; 0: no bound
        #[arg(long, value_name = "BYTES")]
        max_bytes: Option<u64>,
    },
    /// Delete a namespace
    #[command(
        after_help = "Examples:\n  meshstore kv namespace delete users\n  meshstore kv namespace delete users --recursive"
    )]
    Delete {
        /// Its name
        name: String,
        /// With all that it holds
        #[arg(long)]
        recursive: bool,
    },
    /// Show a namespace
    #[command(after_help = "Example:\n  meshstore kv namespace show users")]
    Show {
        /// Its name
        name: String,
    },
    /// List namespaces, in order of their names
    #[command(after_help = "Example:\n  meshstore kv namespace list --all")]
    List {
        #[command(flatten)]
        part: Part,
    },
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let out = &session.out;
        match self {
            Self::Create { name, metadata, history, max_entries, max_bytes } => {
                let settings = NamespaceSettings { history, max_entries, max_bytes };
                out.written(session.writer()?.namespaces().create(&name, &metadata, settings).await?)
            }
            Self::Modify { name, metadata, history, max_entries, max_bytes } => {
                let change = NamespaceChange { metadata, history, max_entries, max_bytes };
                if change == NamespaceChange::default() {
                    return Err(Failure::usage(
                        "say what is to change: --metadata, --history, --max-entries, --max-bytes",
                    ));
                }
                out.written(session.writer()?.namespaces().modify(&name, change).await?)
            }
            Self::Delete { name, recursive } => {
                out.written(session.writer()?.namespaces().delete(&name, recursive).await?)
            }
            Self::Show { name } => {
                let namespace = session.reader()?.namespaces().show(&name).await?;
                out.answer(&object(&namespace), || lines(&namespace))
            }
            Self::List { part } => {
                let namespaces = session.reader()?.namespaces();
                let (found, next_cursor, revision) =
                    part.of(namespaces.list_all(), namespaces.list(part.request())).await?;
                let (items, rows) = (found.iter().map(object).collect(), found.iter().map(row).collect());
                out.list(
                    &["name", "values", "bytes", "history", "at most"],
                    List { items, rows, next_cursor, revision },
                )
            }
        }
    }
}

fn object(namespace: &Namespace) -> Json {
    let Namespace { name, settings, metadata, entries, bytes, indexes } = namespace;
    let indexes: Vec<_> = indexes.iter().map(index::object).collect();
    let NamespaceSettings { history, max_entries, max_bytes } = settings;
    let parsed = output::parsed(&metadata.value);
    json!({
        "name": name, "metadata": parsed, "entries": entries, "bytes": bytes, "history": history, "indexes": indexes,
        "max_entries": max_entries, "max_bytes": max_bytes, "version": metadata.version,
        "create_revision": metadata.create_revision, "mod_revision": metadata.mod_revision,
        "created_at_ms": metadata.created_at_ms, "updated_at_ms": metadata.updated_at_ms,
    })
}

/// What a namespace may hold.
fn bounds(settings: &NamespaceSettings) -> String {
    let bounds = [(settings.max_entries, "values"), (settings.max_bytes, "bytes")];
    let bounds: Vec<_> =
        bounds.iter().filter(|(most, _)| *most > 0).map(|(most, what)| format!("{most} {what}")).collect();
    if bounds.is_empty() { "no bound".into() } else { bounds.join(", ") }
}

fn lines(namespace: &Namespace) -> String {
    let Namespace { name, settings, metadata, entries, bytes, indexes } = namespace;
    let mut lines = vec![
        ("name", output::visible(name).into_owned()),
        ("values", format!("{entries} ({bytes} bytes)")),
        ("at most", bounds(settings)),
        ("history", format!("{} older versions", settings.history)),
        ("metadata", output::visible(&metadata.value).into_owned()),
    ];
    for index in indexes {
        let fields = output::visible(&query::written(&index.fields)).into_owned();
        lines.push(("index", format!("{} on {fields} ({})", output::visible(&index.name), index::state(index))));
    }
    if metadata.version > 0 {
        lines.push(("created", format!("{} (revision {})", time(metadata.created_at_ms), metadata.create_revision)));
        lines.push(("changed", format!("{} (revision {})", time(metadata.updated_at_ms), metadata.mod_revision)));
    }
    output::fields(&lines)
}

fn row(namespace: &Namespace) -> Vec<String> {
    vec![
        output::cell(&output::visible(&namespace.name)),
        namespace.entries.to_string(),
        namespace.bytes.to_string(),
        namespace.settings.history.to_string(),
        bounds(&namespace.settings),
    ]
}
