//! `meshstore message retention`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::super::{
    failure::Failure,
    options::{self, Part, Session},
    output::{self, List},
};
use crate::client::{Retention, Stored};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Keep messages to a receiver only for so long, or only so many
    #[command(
        after_help = "Age is the time since a message was stored, by the clock of the leader. Of too many messages the oldest go, by\ntimestamp and id.\n\nExamples:\n  meshstore message retention set node-2 --max-count 10000\n  meshstore message retention set --all-others --max-age 168h"
    )]
    Set(Set),
    /// Show the rule of a receiver
    #[command(after_help = "Example:\n  meshstore message retention get node-2")]
    Get(Mailbox),
    /// List the rules, in order of the receivers
    #[command(after_help = "Example:\n  meshstore message retention list")]
    List(Part),
    /// Delete the rule of a receiver
    #[command(after_help = "Example:\n  meshstore message retention delete node-2")]
    Delete(Mailbox),
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(in crate::cli) struct Mailbox {
    /// The receiver
    mailbox: Option<String>,
    /// All receivers that have no rule of their own
    #[arg(long)]
    all_others: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Set {
    #[command(flatten)]
    mailbox: Mailbox,
    /// How long a message is kept, at least 1s
    #[arg(long, value_name = "TIME", value_parser = options::duration, required_unless_present = "max_count")]
    max_age: Option<Duration>,
    /// How many messages are kept, at least 1
    #[arg(long, value_name = "N")]
    max_count: Option<u64>,
}

impl Command {
    pub(in crate::cli) async fn run(self, session: &Session) -> Result<(), Failure> {
        let out = &session.out;
        match self {
            Self::Set(Set { mailbox, max_age, max_count }) => {
                let max_age_ms = max_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
                let retention = Retention { max_age_ms, max_count };
                out.written(session.writer()?.retention().set(mailbox.mailbox.as_deref(), retention).await?)
            }
            Self::Get(mailbox) => {
                let name = mailbox.mailbox.unwrap_or_default();
                let named = Some(name.as_str()).filter(|name| !name.is_empty());
                let item = (name.clone(), session.reader()?.retention().get(named).await?);
                out.answer(&object(&item), || text(&item))
            }
            Self::List(part) => {
                let rules = session.reader()?.retention();
                let (found, next_cursor, revision) = part.of(rules.list_all(), rules.list(part.request())).await?;
                let items = found.iter().map(object).collect();
                let list = List { items, rows: found.iter().map(row).collect(), next_cursor, revision };
                out.list(&["receiver", "max age", "max count", "revision"], list)
            }
            Self::Delete(mailbox) => {
                out.written(session.writer()?.retention().delete(mailbox.mailbox.as_deref()).await?)
            }
        }
    }
}

type Item = (String, Stored<Retention>);

fn object((mailbox, stored): &Item) -> Value {
    let mut object = Map::new();
    object.insert("mailbox".into(), mailbox.as_str().into());
    object.insert("max_age_ms".into(), stored.value.max_age_ms.into());
    object.insert("max_count".into(), stored.value.max_count.into());
    output::put_version(&mut object, stored);
    Value::Object(object)
}

fn name(mailbox: &str) -> String {
    if mailbox.is_empty() { "(all others)".into() } else { output::visible(mailbox).into_owned() }
}

fn age(max_age_ms: Option<u64>) -> String {
    max_age_ms.map_or_else(|| "-".into(), |age_ms| format!("{:?}", Duration::from_millis(age_ms)))
}

fn count(max_count: Option<u64>) -> String {
    max_count.map_or_else(|| "-".into(), |count| count.to_string())
}

fn text((mailbox, stored): &Item) -> String {
    let Retention { max_age_ms, max_count } = stored.value;
    let mut lines = vec![("receiver", name(mailbox)), ("max age", age(max_age_ms)), ("max count", count(max_count))];
    lines.extend(output::version_fields(stored));
    output::fields(&lines)
}

fn row((mailbox, stored): &Item) -> Vec<String> {
    let Retention { max_age_ms, max_count } = stored.value;
    vec![output::cell(&name(mailbox)), age(max_age_ms), count(max_count), stored.mod_revision.to_string()]
}
