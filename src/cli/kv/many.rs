//! Several values at once.

use clap::Args;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    super::{
        failure::Failure,
        input,
        options::Session,
        output::{self, List},
    },
    In, show,
};
use crate::{
    client::{Condition, DeleteResult, Set, Value},
    limits,
};

#[derive(Args, Debug)]
#[command(
    after_help = "FILE holds one JSON object for each value, with the members key and value, and if wanted metadata,\ncreate (true: do not overwrite), if_version, if_revision, lease:\n\n  {\"key\": \"user:1\", \"value\": {\"name\": \"Ada\"}, \"metadata\": {\"source\": \"import\"}}\n  {\"key\": \"user:2\", \"value\": {\"name\": \"Alan\"}, \"create\": true}\n\nExamples:\n  meshstore kv set-many users.jsonl -n users\n  meshstore kv set-many - -n users --each < users.jsonl"
)]
pub(in crate::cli) struct SetMany {
    /// A file, or - for standard input; at most 1,024 values
    file: String,
    #[command(flatten)]
    place: In,
    /// Write what can be written, and say of the others why not; exit code 5 if there are any
    #[arg(long)]
    each: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    key: String,
    #[serde(borrow)]
    value: &'a RawValue,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(default)]
    create: bool,
    if_version: Option<u64>,
    if_revision: Option<u64>,
    lease: Option<u64>,
}

impl SetMany {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { file, place, each } = self;
        let argument = if file == "-" { file } else { format!("@{file}") };
        let text = input::bytes_up_to(&argument, limits::TRANSACTION_BYTES)?;
        let text = String::from_utf8(text).map_err(|_| Failure::usage("the file must be JSON, and so UTF-8 text"))?;
        let sets = sets(&text)?;
        let kv = place.write(session)?;
        let results = if each { kv.set_each(sets).await? } else { kv.set_many(sets).await? };
        let failed = results.iter().filter(|result| !result.error.is_empty()).count();
        let items = results
            .iter()
            .map(|result| match result.error.is_empty() {
                true => json!({ "key": result.key, "version": result.version }),
                false => json!({ "key": result.key, "error": result.error }),
            })
            .collect();
        let row = |result: &crate::client::SetResult| {
            let what =
                if result.error.is_empty() { format!("version {}", result.version) } else { result.error.clone() };
            vec![output::cell(&output::visible(&result.key)), output::visible(&what).into_owned()]
        };
        let rows = results.iter().map(row).collect();
        session.out.list(&["key", "result"], List { items, rows, ..List::default() })?;
        if failed == 0 {
            Ok(())
        } else {
            Err(Failure::Unmet(format!("{failed} of {} were not written", results.len())))
        }
    }
}

fn sets(text: &str) -> Result<Vec<Set>, Failure> {
    let mut sets = Vec::new();
    for line in serde_json::Deserializer::from_str(text).into_iter::<Line<'_>>() {
        let number = sets.len() + 1;
        let line = line.map_err(|error| Failure::usage(format!("value {number} of the file: {error}")))?;
        let Line { key, value, metadata, create, if_version, if_revision, lease } = line;
        if if_version.is_some() && if_revision.is_some() {
            let text = format!("value {number} of the file: if_version and if_revision exclude each other");
            return Err(Failure::usage(text));
        }
        sets.push(Set {
            key,
            value: Value::Json(value.get().to_owned()),
            attributes: metadata.map(|metadata| metadata.get().to_owned()),
            overwrite: !create,
            condition: if_version.map(Condition::Version).or(if_revision.map(Condition::ModRevision)),
            lease,
        });
    }
    Ok(sets)
}

/// Reads several values.
pub(super) async fn get(session: &Session, place: &In, keys: Vec<String>) -> Result<(), Failure> {
    let (entries, missing) = place.read(session)?.get_many(keys).await?;
    let items: Vec<_> = entries.iter().map(show::object).collect();
    session.out.answer(&json!({ "items": items, "missing": missing }), || {
        let rows: Vec<_> = entries.iter().map(show::row).collect();
        let mut text = if rows.is_empty() { "none".into() } else { output::table(&show::COLUMNS, rows) };
        if !missing.is_empty() {
            text.push_str(&format!("\n\nnot there: {}", output::visible(&missing.join(", "))));
        }
        text
    })
}

/// Deletes several values.
pub(super) async fn delete(session: &Session, place: &In, keys: Vec<String>, each: bool) -> Result<(), Failure> {
    let deletions = keys.into_iter().map(Into::into).collect();
    let results = place.write(session)?.delete_many_as(deletions, each).await?;
    let item = |result: &DeleteResult| match result.error.is_empty() {
        true => json!({ "key": result.key, "deleted": result.deleted }),
        false => json!({ "key": result.key, "error": result.error }),
    };
    let row = |result: &DeleteResult| {
        let what = match (result.deleted, result.error.as_str()) {
            (true, _) => "deleted",
            (false, "") => "there was nothing to delete",
            (false, error) => error,
        };
        vec![output::cell(&output::visible(&result.key)), output::visible(what).into_owned()]
    };
    let (items, rows) = (results.iter().map(item).collect(), results.iter().map(row).collect());
    session.out.list(&["key", "result"], List { items, rows, ..List::default() })?;
    match results.iter().filter(|result| !result.error.is_empty()).count() {
        0 => Ok(()),
        failed => Err(Failure::Unmet(format!("{failed} of {} were not deleted", results.len()))),
    }
}
