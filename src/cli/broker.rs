//! `meshstore broker`: collections, and what services are allowed with them.

mod grants;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::{
    failure::Failure,
    input,
    kv::query::{fields, written},
    options::{Part, Session, duration},
    output::{self, List, time},
};
use crate::client::{
    AppliedManifest, Collection, CollectionIndex, CollectionSettings, Declaration, DeclaredCollection, Documents,
    IndexSpec, IndexState, Permission, RequestState, RequestedAccess,
};

#[derive(Args, Debug)]
pub(super) struct Broker {
    /// The service for which the call is made; otherwise the one that you are known as, or whoever runs the cluster
    #[arg(long, global = true, default_value = "", hide_default_value = true, value_name = "SERVICE")]
    service: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a collection, or change the one that is there; what is not named stays as it is
    Declare(Declare),
    /// Show a collection
    #[command(after_help = "Example:\n  meshstore broker show shop.orders")]
    Show {
        /// The collection: SERVICE.COLLECTION, or the service's own
        collection: String,
    },
    /// List collections, in order of their names
    #[command(after_help = "Examples:\n  meshstore broker list\n  meshstore broker list --owner shop --all")]
    List {
        /// Only those of this service
        #[arg(long, default_value = "", hide_default_value = true, value_name = "SERVICE")]
        owner: String,
        #[command(flatten)]
        part: Part,
    },
    /// Drop a collection with all that it holds, at once
    #[command(after_help = "Example:\n  meshstore broker drop shop.orders")]
    Drop {
        /// The collection: SERVICE.COLLECTION, or the service's own
        collection: String,
    },
    /// Allow a service something with a collection, in place of what it was allowed
    #[command(
        after_help = "read: query; write: query and change documents; admin: all that, declare, drop, and grant.\n\nExamples:\n  meshstore broker grant shop.orders analytics read --reason 'monthly report'\n  meshstore broker grant shop.orders audit read --for 24h"
    )]
    Grant {
        /// The collection: SERVICE.COLLECTION, or the service's own
        collection: String,
        /// Who is allowed
        target: String,
        /// What: read, write or admin
        #[arg(value_parser = permission)]
        permission: Permission,
        /// Why
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
        /// How long it counts; otherwise until it is revoked
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        ttl: Option<Duration>,
    },
    /// Take back what a service was allowed
    #[command(after_help = "Example:\n  meshstore broker revoke shop.orders analytics")]
    Revoke {
        /// The collection: SERVICE.COLLECTION, or the service's own
        collection: String,
        /// Who was allowed
        target: String,
    },
    /// What services are allowed, and ask for
    #[command(subcommand)]
    Grants(grants::Command),
    /// Do what a manifest declares: its collections and indexes, and the access that it asks for
    #[command(
        after_help = "All that can be is done in one transaction; exit code 5 if there is something that cannot.\n\nExamples:\n  meshstore broker apply manifest.yaml --dry-run\n  meshstore broker apply manifest.yaml --strict"
    )]
    Apply {
        /// The manifest, in YAML or JSON; - for standard input
        file: String,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// Refuse fields that are unknown in the head of the manifest, too
        #[arg(long)]
        strict: bool,
    },
}

fn permission(text: &str) -> Result<Permission, &'static str> {
    text.parse()
}

#[derive(Args, Debug)]
#[command(
    after_help = "An index is FIELDS, with commas between and a minus in front of what descends, with flags behind: 'email unique'.\nOne of some documents only, or with a name, is JSON:\n  {\"name\": \"open\", \"fields\": [\"at\"], \"unique\": false, \"filter\": {\"open\": true}}\n\nExamples:\n  meshstore broker declare shop.orders --index item --index 'item,-at' --index 'number unique'\n  meshstore broker declare shop.cache --ttl 1h --max-documents 10000"
)]
struct Declare {
    /// The collection: SERVICE.COLLECTION, or the service's own
    collection: String,
    /// What it is for
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// Types by field, a JSON object; for people, nothing is checked by it
    #[arg(long, value_name = "JSON", default_value = "", hide_default_value = true)]
    schema_hint: String,
    /// An index; several are several
    #[arg(long = "index", value_name = "INDEX")]
    indexes: Vec<String>,
    /// Drop indexes that are not declared here
    #[arg(long)]
    exactly: bool,
    /// How long a document stays after it was last written; 0: for good
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<Duration>,
    /// Most documents; 0: no bound
    #[arg(long, value_name = "N")]
    max_documents: Option<u64>,
    /// Most bytes, of ids and documents and 64 more for each; 0: no bound
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<u64>,
}

/// Reads an index as people write it.
fn index(text: &str) -> Result<IndexSpec, Failure> {
    let wrong = |why: &str| Failure::usage(format!("{text:?} is no index: {why}"));
    if text.trim_start().starts_with('{') {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            #[serde(default)]
            name: String,
            fields: Vec<String>,
            #[serde(default)]
            unique: bool,
            #[serde(default)]
            filter: Option<Box<serde_json::value::RawValue>>,
        }
        let parsed: Written = serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
        let Written { name, fields: of, unique, filter } = parsed;
        let filter = filter.map_or(String::new(), |filter| filter.get().to_owned());
        return Ok(IndexSpec { name, fields: fields(&of.join(",")), unique, filter });
    }
    let mut words = text.split_whitespace();
    let mut spec = IndexSpec::of(fields(words.next().ok_or_else(|| wrong("it names no field"))?));
    for flag in words {
        match flag {
            "unique" => spec.unique = true,
            _ => return Err(wrong("behind the fields there may only be: unique")),
        }
    }
    Ok(spec)
}

impl Declare {
    async fn run(self, session: &Session, documents: &Documents) -> Result<(), Failure> {
        let Self { collection: _, description, schema_hint, indexes, exactly, ttl, max_documents, max_bytes } = self;
        let settings = if ttl.is_some() || max_documents.is_some() || max_bytes.is_some() {
            let before = match documents.show().await {
                Ok(collection) => collection.settings,
                Err(crate::Error::NotFound { .. }) => CollectionSettings::default(),
                Err(error) => return Err(error.into()),
            };
            let ttl_ms = ttl.map_or(before.ttl_ms, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
            let max_documents = max_documents.unwrap_or(before.max_documents);
            Some(CollectionSettings { ttl_ms, max_documents, max_bytes: max_bytes.unwrap_or(before.max_bytes) })
        } else {
            None
        };
        let named = !indexes.is_empty() || exactly;
        let indexes = indexes.iter().map(|text| index(text)).collect::<Result<Vec<_>, _>>()?;
        let schema_hint = if schema_hint.is_empty() { schema_hint } else { input::text(&schema_hint)? };
        let declaration = Declaration { description, schema_hint, settings, indexes: named.then_some(indexes) };
        let done = documents.declare_as(declaration, exactly).await?;
        let json = json!({
            "collection": done.collection_id, "created": done.created, "changed": done.changed,
            "added_indexes": done.added_indexes, "dropped_indexes": done.dropped_indexes, "revision": done.revision,
        });
        session.out.answer(&json, || {
            let what = match (done.created, done.changed) {
                (true, _) => "created",
                (false, true) => "changed",
                (false, false) if done.added_indexes.is_empty() && done.dropped_indexes.is_empty() => "is as declared",
                (false, false) => "has other indexes",
            };
            let mut lines = vec![format!("{}: {what} (revision {})", done.collection_id, done.revision)];
            lines.extend(done.dropped_indexes.iter().map(|name| format!("- index {}", output::visible(name))));
            lines.extend(done.added_indexes.iter().map(|name| format!("+ index {}", output::visible(name))));
            lines.join("\n")
        })
    }
}

impl Broker {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, command } = self;
        let out = &session.out;
        let read = |name: String| Ok::<_, Failure>(session.reader()?.broker(&service).collection(name));
        let write = |name: String| Ok::<_, Failure>(session.writer()?.broker(&service).collection(name));
        match command {
            Command::Declare(declare) => {
                let documents = write(declare.collection.clone())?;
                declare.run(session, &documents).await
            }
            Command::Show { collection } => {
                let collection = read(collection)?.show().await?;
                out.answer(&object(&collection), || lines(&collection))
            }
            Command::List { owner, part } => {
                let broker = session.reader()?.broker(&service);
                let page = broker.collections(&owner, part.request());
                let (found, next_cursor, revision) = part.of(broker.all_collections(&owner), page).await?;
                let (items, rows) = (found.iter().map(object).collect(), found.iter().map(row).collect());
                let columns = ["name", "documents", "bytes", "indexes", "at most"];
                out.list(&columns, List { items, rows, next_cursor, revision })
            }
            Command::Drop { collection } => out.written(write(collection)?.drop().await?),
            Command::Grant { collection, target, permission, reason, ttl } => {
                out.written(write(collection)?.grant(&target, permission, (&reason, ttl)).await?)
            }
            Command::Revoke { collection, target } => out.written(write(collection)?.revoke(&target).await?),
            Command::Grants(command) => command.run(session, &service).await,
            Command::Apply { file, dry_run, strict } => {
                let text = match file.as_str() {
                    "-" => input::text("-")?,
                    path => input::text(&format!("@{path}"))?,
                };
                let applied = session.writer()?.broker(&service).apply_manifest(&text, (strict, dry_run)).await?;
                out.answer(&applied_object(&applied), || applied_lines(&applied, dry_run))?;
                let errors = applied.collections.iter().map(|one| &one.error);
                match errors.chain(applied.requests.iter().map(|one| &one.error)).filter(|one| !one.is_empty()).count()
                {
                    0 => Ok(()),
                    count => Err(Failure::Unmet(format!("{count} of what the manifest declares cannot be"))),
                }
            }
        }
    }
}

fn name_of(state: RequestState) -> &'static str {
    match state {
        RequestState::Granted => "granted",
        RequestState::Pending => "pending",
        RequestState::Denied => "denied",
    }
}

fn state(state: RequestState) -> &'static str {
    match state {
        RequestState::Pending => "waits for the owner",
        state => name_of(state),
    }
}

fn applied_object(applied: &AppliedManifest) -> Json {
    let AppliedManifest { service, collections, requests, warnings } = applied;
    let collection = |one: &DeclaredCollection| {
        let DeclaredCollection { name, created, changed, added_indexes, dropped_indexes, error } = one;
        json!({
            "name": name, "created": created, "changed": changed, "added_indexes": added_indexes,
            "dropped_indexes": dropped_indexes, "error": error,
        })
    };
    let request = |RequestedAccess { collection, permission, state: at, error }: &RequestedAccess| json!({ "collection": collection, "permission": permission.name(), "state": name_of(*at), "error": error });
    json!({
        "service": service, "collections": collections.iter().map(collection).collect::<Vec<_>>(),
        "requests": requests.iter().map(request).collect::<Vec<_>>(), "warnings": warnings,
    })
}

fn applied_lines(applied: &AppliedManifest, dry_run: bool) -> String {
    let AppliedManifest { service, collections, requests, warnings } = applied;
    let done = collections.iter().filter(|one| one.error.is_empty()).count();
    let mood = if dry_run { "would be as declared" } else { "are as declared" };
    let mut lines = vec![format!("{service}: {done} of {} collections {mood}", collections.len())];
    for DeclaredCollection { name, created, changed, added_indexes, dropped_indexes, error } in collections {
        let what = match (error.as_str(), created, changed) {
            ("", true, _) => "+ ",
            ("", false, true) => "~ ",
            ("", false, false) => "  ",
            _ => "! ",
        };
        let why = if error.is_empty() { String::new() } else { format!(": {error}") };
        lines.push(format!("{what}collection {name}{why}"));
        lines.extend(dropped_indexes.iter().map(|index| format!("  - index {index}")));
        lines.extend(added_indexes.iter().map(|index| format!("  + index {index}")));
    }
    for RequestedAccess { collection, permission, state: at, error } in requests {
        let text = if error.is_empty() { state(*at) } else { error.as_str() };
        lines.push(format!("  {permission} access to {collection}: {text}"));
    }
    lines.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
    output::visible(&lines.join("\n")).into_owned()
}

fn index_object(index: &CollectionIndex) -> Json {
    let CollectionIndex { spec, state, built } = index;
    let (state, failed) = match state {
        IndexState::Ready => ("ready", ""),
        IndexState::Building => ("building", ""),
        IndexState::Failed(why) => ("failed", why.as_str()),
    };
    let fields: Vec<String> = spec.fields.iter().map(|field| written(std::slice::from_ref(field))).collect();
    json!({
        "name": spec.name, "fields": fields, "unique": spec.unique, "filter": output::parsed(&spec.filter),
        "state": state, "failed": failed, "built": built,
    })
}

fn object(collection: &Collection) -> Json {
    let Collection { name, owner, description, schema_hint, settings, indexes, .. } = collection;
    let CollectionSettings { ttl_ms, max_documents, max_bytes } = settings;
    json!({
        "name": name, "owner": owner, "description": description, "schema_hint": output::parsed(schema_hint),
        "ttl_ms": ttl_ms, "max_documents": max_documents, "max_bytes": max_bytes,
        "indexes": indexes.iter().map(index_object).collect::<Vec<_>>(), "documents": collection.documents,
        "bytes": collection.bytes, "created_at_ms": collection.created_at_ms,
        "create_revision": collection.create_revision,
    })
}

/// What a collection may hold, and for how long.
fn bounds(settings: &CollectionSettings) -> String {
    let CollectionSettings { ttl_ms, max_documents, max_bytes } = settings;
    let bounds = [(max_documents, "documents"), (max_bytes, "bytes"), (ttl_ms, "ms after a write")];
    let bounds: Vec<_> =
        bounds.iter().filter(|(most, _)| **most > 0).map(|(most, what)| format!("{most} {what}")).collect();
    if bounds.is_empty() { "no bound".into() } else { bounds.join(", ") }
}

fn lines(collection: &Collection) -> String {
    let Collection { name, owner, description, schema_hint, settings, indexes, .. } = collection;
    let mut lines = vec![
        ("name", output::visible(name).into_owned()),
        ("owner", output::visible(owner).into_owned()),
        ("documents", format!("{} ({} bytes)", collection.documents, collection.bytes)),
        ("at most", bounds(settings)),
    ];
    for (label, text) in [("description", description), ("schema hint", schema_hint)] {
        if !text.is_empty() {
            lines.push((label, output::visible(text).into_owned()));
        }
    }
    for CollectionIndex { spec, state, built } in indexes {
        let state = match state {
            IndexState::Ready => "ready".into(),
            IndexState::Building => format!("building, {built} documents so far"),
            IndexState::Failed(why) => format!("failed: {why}"),
        };
        let unique = if spec.unique { "unique, " } else { "" };
        let filter = if spec.filter.is_empty() { String::new() } else { format!("where {}, ", spec.filter) };
        let text = format!("{} on {} ({unique}{filter}{state})", spec.name, written(&spec.fields));
        lines.push(("index", output::visible(&text).into_owned()));
    }
    lines.push(("created", format!("{} (revision {})", time(collection.created_at_ms), collection.create_revision)));
    output::fields(&lines)
}

fn row(collection: &Collection) -> Vec<String> {
    vec![
        output::cell(&output::visible(&collection.name)),
        collection.documents.to_string(),
        collection.bytes.to_string(),
        collection.indexes.len().to_string(),
        bounds(&collection.settings),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::SortField;

    #[test]
    fn an_index_is_read_as_people_write_it() {
        let both = IndexSpec::of([SortField::ascending("item"), SortField::descending("at")]);
        assert_eq!(index("item,-at").unwrap(), both);
        assert_eq!(index("email unique").unwrap(), IndexSpec::ascending("email").unique());
        let json = index(r#"{"name": "open", "fields": ["-at"], "filter": {"open": true}}"#).unwrap();
        assert_eq!(json, IndexSpec::descending("at").named("open").only(r#"{"open": true}"#));
        for wrong in ["", "a sparse", "{\"fields\": [\"a\"], \"sparse\": true}", "{}"] {
            assert!(matches!(index(wrong), Err(Failure::Usage(_))), "{wrong}");
        }
    }
}
