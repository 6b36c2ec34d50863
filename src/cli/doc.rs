//! `meshstore doc`: documents of the data broker.

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::{
    explained,
    failure::Failure,
    input::text,
    kv::query::fields,
    options::{Session, part},
    output::{self, List, time},
};
use crate::client::{Document, Documents, FindAndUpdate, Inserted, Modification, Modified};

const TEXTS: &str = "A COLLECTION is SERVICE.COLLECTION, or with --service the service's own. A DOCUMENT, FILTER or UPDATE is JSON,\nor - for standard input, or @FILE. Filters are written as MongoDB writes them:\n  {\"status\": \"open\", \"price\": {\"$gte\": 10}, \"$or\": [{\"tags\": \"new\"}, {\"name\": {\"$regex\": \"^A\"}}]}";

#[derive(Args, Debug)]
#[command(after_help = TEXTS)]
pub(super) struct Doc {
    /// The service for which the call is made; otherwise the one that you are known as, or whoever runs the cluster
    #[arg(long, global = true, default_value = "", hide_default_value = true, value_name = "SERVICE")]
    service: String,
    #[command(subcommand)]
    command: Command,
}

/// Where the documents are.
#[derive(Args, Clone, Debug)]
struct In {
    /// The collection: SERVICE.COLLECTION, or the service's own
    collection: String,
}

/// What of a document is shown.
#[derive(Args, Clone, Debug)]
struct Parts {
    /// Only these fields, with commas between
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    only: Vec<String>,
    /// All but these fields
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    without: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Insert documents; several all together, or not at all
    #[command(
        after_help = "Examples:\n  meshstore doc insert shop.orders '{\"item\": \"tea\", \"count\": 2}'\n  meshstore doc insert shop.orders @order.json\n  jq -c '.[]' orders.json | meshstore doc insert shop.orders --lines -"
    )]
    Insert {
        #[command(flatten)]
        place: In,
        /// JSON objects; their `_id`, a text, is taken if they have one
        #[arg(required = true, value_name = "DOCUMENT")]
        documents: Vec<String>,
        /// Each argument holds documents line by line
        #[arg(long)]
        lines: bool,
        /// Insert those that can be, and say of the others why not; exit code 5 if there are any
        #[arg(long)]
        each: bool,
    },
    /// Read a document
    #[command(after_help = "Example:\n  meshstore doc get shop.orders 01KB2M --only item,count")]
    Get {
        #[command(flatten)]
        place: In,
        /// Its id
        id: String,
        #[command(flatten)]
        parts: Parts,
        /// Write exactly the JSON of the document
        #[arg(long, conflicts_with = "json")]
        raw: bool,
    },
    /// Find documents by what is in them
    #[command(
        after_help = "Examples:\n  meshstore doc find shop.orders '{\"item\": \"tea\"}' --sort -count --limit 10\n  meshstore doc find shop.orders '{\"count\": {\"$gt\": 1}}' --only item --raw\n  meshstore doc find shop.orders '{\"item\": \"tea\"}' --explain"
    )]
    Find {
        #[command(flatten)]
        place: In,
        /// Which; all if it is left out
        #[arg(default_value = "", hide_default_value = true)]
        filter: String,
        #[command(flatten)]
        parts: Parts,
        /// Fields, with commas between; with a minus in front: the greatest first. Otherwise by id
        #[arg(long, value_name = "FIELDS", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
        sort: String,
        /// Most documents, up to 1000; 0: none
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1000))]
        limit: u32,
        /// Leave out so many at the beginning
        #[arg(long, value_name = "N", default_value_t = 0)]
        skip: u64,
        /// Go on where another page ended
        #[arg(long, value_name = "CURSOR", conflicts_with = "skip")]
        cursor: Option<String>,
        /// All documents, however many pages they are
        #[arg(long, conflicts_with_all = ["limit", "skip", "cursor"])]
        all: bool,
        /// Show how the documents are found, and not the documents
        #[arg(long, conflicts_with = "all")]
        explain: bool,
        /// Write exactly the JSON of the documents, one on each line
        #[arg(long, conflicts_with_all = ["json", "explain"])]
        raw: bool,
    },
    /// Count documents
    #[command(after_help = "Example:\n  meshstore doc count shop.orders '{\"item\": \"tea\"}'")]
    Count {
        #[command(flatten)]
        place: In,
        /// Which; all if it is left out
        #[arg(default_value = "", hide_default_value = true)]
        filter: String,
    },
    /// The different values that stand in a field
    #[command(after_help = "Example:\n  meshstore doc distinct shop.orders item '{\"count\": {\"$gt\": 1}}'")]
    Distinct {
        #[command(flatten)]
        place: In,
        /// The field
        field: String,
        /// Of which documents; of all if it is left out
        #[arg(default_value = "", hide_default_value = true)]
        filter: String,
    },
    /// Change the documents that a filter lets through
    #[command(
        after_help = "An UPDATE is fields that are set, or operators: $set $unset $inc $push $pull $addToSet $min $max.\n\nExamples:\n  meshstore doc update shop.orders '{\"item\": \"tea\"}' '{\"sold\": true}'\n  meshstore doc update shop.orders '{\"_id\": \"o1\"}' '{\"$inc\": {\"count\": 1}}' --upsert"
    )]
    Update {
        #[command(flatten)]
        place: In,
        /// Which
        filter: String,
        /// How
        update: String,
        /// Insert a document if there is none
        #[arg(long)]
        upsert: bool,
        /// Most documents, in the order of their ids; 0: all, which must be at most 4000
        #[arg(long, value_name = "N", default_value_t = 0)]
        limit: u64,
        /// Only if all of them were last written at this revision
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<u64>,
    },
    /// Change the first document that a filter lets through, and show it
    #[command(
        after_help = "Example:\n  meshstore doc find-and-update shop.jobs '{\"state\": \"new\"}' '{\"state\": \"taken\"}' --sort at"
    )]
    FindAndUpdate {
        #[command(flatten)]
        place: In,
        /// Which
        filter: String,
        /// How
        update: String,
        /// The first in this order; otherwise by id
        #[arg(long, value_name = "FIELDS", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
        sort: String,
        /// Insert a document if there is none
        #[arg(long)]
        upsert: bool,
        /// Show the document as it was before
        #[arg(long)]
        before: bool,
    },
    /// Replace a document, all of it
    #[command(
        after_help = "Example:\n  meshstore doc replace shop.orders o1 '{\"item\": \"coffee\"}' --if-revision 42"
    )]
    Replace {
        #[command(flatten)]
        place: In,
        /// Its id
        id: String,
        /// A JSON object
        document: String,
        /// Insert it if it is not there
        #[arg(long)]
        upsert: bool,
        /// Only if it was last written at this revision
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<u64>,
    },
    /// Delete the documents that a filter lets through
    #[command(
        after_help = "Examples:\n  meshstore doc delete shop.orders '{\"_id\": \"o1\"}'\n  meshstore doc delete shop.orders '{\"at\": {\"$lt\": \"2025\"}}' --limit 1000"
    )]
    Delete {
        #[command(flatten)]
        place: In,
        /// Which; {} for all
        filter: String,
        /// Most documents, in the order of their ids; 0: all, which must be at most 4000
        #[arg(long, value_name = "N", default_value_t = 0)]
        limit: u64,
        /// Only if all of them were last written at this revision
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<u64>,
    },
}

impl Doc {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, command } = self;
        let read = |place: In| Ok::<_, Failure>(session.reader()?.broker(&service).collection(place.collection));
        let write = |place: In| Ok::<_, Failure>(session.writer()?.broker(&service).collection(place.collection));
        match command {
            Command::Insert { place, documents, lines, each } => {
                insert(session, &write(place)?, (documents, lines, each)).await
            }
            Command::Get { place, id, parts, raw } => {
                let document = read(place)?.get_as(&id, (parts.only, parts.without)).await?;
                match raw {
                    true => session.out.line(&document.json),
                    false => session.out.answer(&object(&document), || lines_of(&document)),
                }
            }
            Command::Find { place, filter, parts, sort, limit, skip, cursor, all, explain, raw } => {
                let query = read(place)?.find_text(text(&filter)?).only(parts.only).without(parts.without);
                let query = query.sort(fields(&sort));
                let page = query.clone().limit(limit).skip(skip).cursor(cursor.unwrap_or_default());
                if explain {
                    return explained::answer(&session.out, &page.explain().await?.explanation, "documents");
                }
                let (found, next_cursor, revision) = part(all, query.all(), page.page()).await?;
                if raw {
                    let lines: String = found.iter().map(|document| format!("{}\n", document.json)).collect();
                    return session.out.raw(lines.as_bytes());
                }
                let (items, rows) = (found.iter().map(object).collect(), found.iter().map(row).collect());
                session.out.list(&["id", "document", "changed", "owner"], List { items, rows, next_cursor, revision })
            }
            Command::Count { place, filter } => {
                let count = read(place)?.count_text(text(&filter)?).await?;
                session.out.answer(&json!({ "count": count }), || count.to_string())
            }
            Command::Distinct { place, field, filter } => {
                let values = read(place)?.distinct_text(&field, text(&filter)?).await?;
                let parsed: Vec<Json> = values.iter().map(|value| output::parsed(value)).collect();
                session.out.answer(&json!({ "values": parsed }), || output::visible(&values.join("\n")).into_owned())
            }
            Command::Update { place, filter, update, upsert, limit, if_revision } => {
                let (filter, update) = (text(&filter)?, text(&update)?);
                let new_id = String::new();
                let modification = Modification { filter, update, upsert, new_id, limit, if_revision };
                let modified = write(place)?.modify(modification).await?;
                let Modified { matched, modified, upserted_id } = &modified;
                let json = json!({ "matched": matched, "modified": modified, "upserted_id": upserted_id });
                session.out.answer(&json, || match upserted_id.as_str() {
                    "" => format!("{modified} changed of {matched} that match"),
                    id => format!("none matches: {} was inserted", output::visible(id)),
                })
            }
            Command::FindAndUpdate { place, filter, update, sort, upsert, before } => {
                let (filter, update) = (text(&filter)?, text(&update)?);
                let modification = Modification { filter, update, upsert, ..Modification::default() };
                let wanted = FindAndUpdate { modification, sort: fields(&sort), before };
                match write(place)?.find_and_update(wanted).await? {
                    Some(document) => session.out.answer(&object(&document), || lines_of(&document)),
                    None => session.out.answer(&Json::Null, || "none".into()),
                }
            }
            Command::Replace { place, id, document, upsert, if_revision } => {
                let document = text(&document)?;
                session.out.written(write(place)?.replace_text(&id, document, (if_revision, upsert)).await?)
            }
            Command::Delete { place, filter, limit, if_revision } => {
                let deleted = write(place)?.delete_text(text(&filter)?, (limit, if_revision)).await?;
                session.out.answer(&json!({ "deleted": deleted }), || format!("{deleted} deleted"))
            }
        }
    }
}

async fn insert(
    session: &Session,
    documents: &Documents,
    (arguments, lines, each): (Vec<String>, bool, bool),
) -> Result<(), Failure> {
    let mut texts = Vec::new();
    for argument in &arguments {
        let text = text(argument)?;
        if lines {
            texts.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        } else {
            texts.push(text);
        }
    }
    let inserted = documents.insert_texts(texts, each).await?;
    let item = |Inserted { id, error }: &Inserted| json!({ "id": id, "error": error });
    let json = json!({ "results": inserted.iter().map(item).collect::<Vec<_>>() });
    let line = |Inserted { id, error }: &Inserted| match error.as_str() {
        "" => output::visible(id).into_owned(),
        error => format!("not inserted: {}", output::visible(error)),
    };
    session.out.answer(&json, || inserted.iter().map(line).collect::<Vec<_>>().join("\n"))?;
    match inserted.iter().filter(|one| !one.error.is_empty()).count() {
        0 => Ok(()),
        count => Err(Failure::Unmet(format!("{count} of {} documents were not inserted", inserted.len()))),
    }
}

pub(super) fn object(document: &Document) -> Json {
    let Document { id, json, created_at_ms, updated_at_ms, revision, version, owner } = document;
    json!({
        "id": id, "document": output::parsed(json), "created_at_ms": created_at_ms, "updated_at_ms": updated_at_ms,
        "revision": revision, "version": version, "owner": owner,
    })
}

fn lines_of(document: &Document) -> String {
    let Document { id, json, created_at_ms, updated_at_ms, revision, version, owner } = document;
    output::fields(&[
        ("id", output::visible(id).into_owned()),
        ("document", output::visible(json).into_owned()),
        ("owner", output::visible(owner).into_owned()),
        ("created", time(*created_at_ms)),
        ("changed", format!("{} (revision {revision}, version {version})", time(*updated_at_ms))),
    ])
}

fn row(document: &Document) -> Vec<String> {
    vec![
        output::cell(&output::visible(&document.id)),
        output::cell(&output::visible(&document.json)),
        time(document.updated_at_ms),
        output::cell(&output::visible(&document.owner)),
    ]
}
