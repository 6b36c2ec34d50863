//! Indexes of a namespace.

use clap::Subcommand;
use serde_json::{Value as Json, json};

use super::{
    super::{
        failure::Failure,
        options::Session,
        output::{self, List},
    },
    In, query,
};
use crate::client::Index;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Create an index, which queries use once it is built
    #[command(
        after_help = "An index narrows where its first fields are compared with = or in, and the next with =, in, >, >=, <, <= or\n^=; and it gives the order of its fields. Every write of a value keeps it; what was there before is entered\nin the background.\n\nExamples:\n  meshstore kv index create by-age age -n users\n  meshstore kv index create by-city address.city,-age -n users"
    )]
    Create {
        /// Its name
        name: String,
        /// At most 4, with commas between; with a minus in front: the greatest first
        #[arg(allow_hyphen_values = true)]
        fields: String,
        #[command(flatten)]
        place: In,
    },
    /// Drop an index, at once
    #[command(after_help = "Example:\n  meshstore kv index drop by-age -n users")]
    Drop {
        /// Its name
        name: String,
        #[command(flatten)]
        place: In,
    },
    /// List the indexes of a namespace, and how far they are built
    #[command(after_help = "Example:\n  meshstore kv index list -n users")]
    List {
        #[command(flatten)]
        place: In,
    },
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Create { name, fields, place } => {
                session.out.written(place.write(session)?.create_index(&name, query::fields(&fields)).await?)
            }
            Self::Drop { name, place } => session.out.written(place.write(session)?.drop_index(&name).await?),
            Self::List { place } => {
                let indexes = place.read(session)?.indexes().await?;
                let (items, rows) = (indexes.iter().map(object).collect(), indexes.iter().map(row).collect());
                session.out.list(&["name", "fields", "state"], List { items, rows, ..List::default() })
            }
        }
    }
}

/// An index, for programs.
pub(super) fn object(index: &Index) -> Json {
    let Index { name, fields, ready, built } = index;
    let fields: Vec<_> = fields.iter().map(|by| json!({ "field": by.field, "descending": by.descending })).collect();
    json!({ "name": name, "fields": fields, "ready": ready, "built": built })
}

/// How far it is built.
pub(super) fn state(index: &Index) -> String {
    if index.ready { "ready".into() } else { format!("being built: {} values so far", index.built) }
}

fn row(index: &Index) -> Vec<String> {
    let fields = query::written(&index.fields);
    vec![output::cell(&output::visible(&index.name)), output::cell(&output::visible(&fields)), state(index)]
}
