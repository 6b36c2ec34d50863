//! Manifests: what a service declares that it needs, as the file that it is deployed with says it.
//!
//! ```yaml
//! kind: AOLAgent                     # or AOLTool, AOLPlugin, AOLService
//! apiVersion: v1
//! metadata: {name: billing, version: 1.0.0}
//! spec:
//!   endpoints: {grpc: 50051, health: 50052}
//!   dependencies: [aol-core]
//!   dataRequirements:
//!     enabled: true
//!     collections:
//!       - name: events
//!         description: what happened
//!         schemaHint: {at: datetime, type: string}
//!         indexes:
//!           - {fields: [at], type: descending}
//!           - {fields: [number], type: ascending, unique: true}     # or type: unique
//!     accessRequests:
//!       - {collection: shop.orders, permission: read, reason: monthly report}
//! ```
//!
//! The rules are those of the original's validator: what must be there, ports, kinds; a version that is none and a missing
//! dependency on `aol-core` are only warned of. What is wrong is told all at once, each with its place. Unknown fields are
//! refused where this program reads (`dataRequirements` and below), and with `strict` in the head of the manifest as well; the
//! rest of `spec` belongs to others. The indexes of a collection are those that are declared, and no others. A manifest is applied in one transaction: what can be is, of the rest it says why not.

use serde_json::{Map, Value};

use super::{
    super::Write,
    access::Actor,
    collection::{Declared, Declaring, check_part},
    requests,
};
use crate::{
    Error, Result,
    model::{
        document::{
            AppliedManifest, Declaration, DeclaredCollection, IndexSpec, Permission, RequestState, RequestedAccess,
        },
        query::SortField,
    },
    state::View,
};

/// Largest manifest, in bytes.
const BYTES: usize = 1 << 20;
/// Most collections of a manifest, and most accesses that one asks for.
const ITEMS: usize = 100;
/// Problems that are told at once.
const TOLD: usize = 20;
const KINDS: [&str; 4] = ["AOLAgent", "AOLTool", "AOLPlugin", "AOLService"];
const TYPES: [&str; 7] = ["string", "number", "boolean", "datetime", "object", "array", "text"];
/// The dependency without which no data can be had, in the original.
const CORE: &str = "aol-core";

/// A manifest that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    service: String,
    collections: Vec<(String, Declaration)>,
    requests: Vec<Request>,
    warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Request {
    collection: String,
    permission: Permission,
    reason: String,
}

/// What is wrong, and where.
#[derive(Default)]
struct Problems {
    wrong: Vec<String>,
    warnings: Vec<String>,
}

impl Problems {
    fn add(&mut self, place: &str, rule: impl std::fmt::Display) {
        self.wrong.push(format!("{place} {rule}"));
    }

    fn warn(&mut self, place: &str, rule: impl std::fmt::Display) {
        self.warnings.push(format!("{place} {rule}"));
    }

    /// The members of an object; none if it is none.
    fn object<'v>(&mut self, place: &str, value: Option<&'v Value>) -> Option<&'v Map<String, Value>> {
        match value {
            Some(Value::Object(members)) => Some(members),
            Some(_) => {
                self.add(place, "must be an object");
                None
            }
            None => {
                self.add(place, "must be there");
                None
            }
        }
    }

    fn list<'v>(&mut self, place: &str, value: Option<&'v Value>) -> &'v [Value] {
        match value {
            Some(Value::Array(items)) if items.len() > ITEMS => {
                self.add(place, format!("must have at most {ITEMS} items"));
                &[]
            }
            Some(Value::Array(items)) => items,
            Some(Value::Null) | None => &[],
            Some(_) => {
                self.add(place, "must be a list");
                &[]
            }
        }
    }

    /// A text that must be there.
    fn text<'v>(&mut self, place: &str, value: Option<&'v Value>) -> &'v str {
        match value.and_then(Value::as_str) {
            Some(text) if !text.trim().is_empty() => text,
            _ => {
                self.add(place, "must be a text that is not empty");
                ""
            }
        }
    }

    /// A text that may be missing.
    fn any_text<'v>(&mut self, place: &str, value: Option<&'v Value>) -> &'v str {
        match value {
            None | Some(Value::Null) => "",
            Some(Value::String(text)) => text,
            Some(_) => {
                self.add(place, "must be a text");
                ""
            }
        }
    }

    fn flag(&mut self, place: &str, value: Option<&Value>) -> Option<bool> {
        match value {
            None => None,
            Some(Value::Bool(flag)) => Some(*flag),
            Some(_) => {
                self.add(place, "must be true or false");
                None
            }
        }
    }

    fn only(&mut self, place: &str, members: &Map<String, Value>, known: &[&str]) {
        for name in members.keys().filter(|name| !known.contains(&name.as_str())) {
            self.add(&joined(place, name), format!("is no field here; these are: {}", known.join(", ")));
        }
    }
}

fn joined(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

impl Manifest {
    /// Reads a manifest, in YAML or JSON. Errors: `InvalidArgument` with all that is wrong.
    pub fn parse(text: &str, strict: bool) -> Result<Self> {
        let wrong = |rule: String| Error::invalid("manifest", "", rule);
        if text.len() > BYTES {
            return Err(wrong(format!("must be at most {BYTES} bytes long, is {}", text.len())));
        }
        let value: Value =
            serde_saphyr::from_str(text).map_err(|error| wrong(format!("must be YAML or JSON: {error}")))?;
        let mut problems = Problems::default();
        let manifest = read(&mut problems, &value, strict);
        let Problems { wrong: all, warnings } = problems;
        match (manifest, all.as_slice()) {
            (Some(manifest), []) => Ok(Self { warnings, ..manifest }),
            (_, all) => {
                let more = all.len().saturating_sub(TOLD);
                let mut rules: Vec<String> = all.iter().take(TOLD).cloned().collect();
                if more > 0 {
                    rules.push(format!("and {more} more"));
                }
                Err(wrong(rules.join("; ")))
            }
        }
    }

    /// The service that it is of.
    pub fn service(&self) -> &str {
        &self.service
    }
}

fn read(problems: &mut Problems, value: &Value, strict: bool) -> Option<Manifest> {
    let root = problems.object("manifest", Some(value))?;
    if strict {
        problems.only("", root, &["kind", "apiVersion", "metadata", "spec"]);
    }
    let kind = problems.text("kind", root.get("kind"));
    if !kind.is_empty() && !KINDS.contains(&kind) {
        problems.add("kind", format!("must be one of {}, is {kind:?}", KINDS.join(", ")));
    }
    if root.get("apiVersion").and_then(Value::as_str) != Some("v1") {
        problems.add("apiVersion", "must be v1");
    }
    let service = head(problems, root, strict);
    let spec = problems.object("spec", root.get("spec"))?;
    endpoints(problems, spec);
    let data = match spec.get("dataRequirements") {
        None => None,
        data => problems.object("spec.dataRequirements", data),
    };
    let (mut collections, mut requests) = (Vec::new(), Vec::new());
    if let Some(data) = data {
        let place = "spec.dataRequirements";
        problems.only(place, data, &["enabled", "collections", "accessRequests"]);
        let enabled = problems.flag(&joined(place, "enabled"), data.get("enabled"));
        if data.get("enabled").is_none() {
            problems.add(&joined(place, "enabled"), "must be true or false");
        }
        for (at, item) in problems.list(&joined(place, "collections"), data.get("collections")).iter().enumerate() {
            collections.extend(collection(problems, &format!("{place}.collections[{at}]"), item));
        }
        for (at, item) in problems.list(&joined(place, "accessRequests"), data.get("accessRequests")).iter().enumerate()
        {
            requests.extend(request(problems, &format!("{place}.accessRequests[{at}]"), item));
        }
        twice(problems, &joined(place, "collections"), collections.iter().map(|(name, _)| name.as_str()));
        twice(problems, &joined(place, "accessRequests"), requests.iter().map(|request| request.collection.as_str()));
        if enabled == Some(false) {
            (collections, requests) = (vec![], vec![]);
        } else if !depends_on_core(spec) {
            problems.warn(place, format!("is enabled, but {CORE} is not among spec.dependencies"));
        }
    }
    Some(Manifest { service: service.to_owned(), collections, requests, warnings: vec![] })
}

fn head<'v>(problems: &mut Problems, root: &'v Map<String, Value>, strict: bool) -> &'v str {
    let Some(metadata) = problems.object("metadata", root.get("metadata")) else { return "" };
    if strict {
        problems.only("metadata", metadata, &["name", "version", "labels", "annotations"]);
    }
    let name = problems.text("metadata.name", metadata.get("name"));
    if !name.is_empty()
        && let Err(Error::InvalidArgument { rule, .. }) = check_part("name", name)
    {
        problems.add("metadata.name", rule);
    }
    let version = problems.text("metadata.version", metadata.get("version"));
    if !version.is_empty() && !is_version(version) {
        problems.warn("metadata.version", format!("should be like 1.0.0, is {version:?}"));
    }
    name
}

/// Whether a text is a version: three numbers, and what may follow behind a minus or a plus.
fn is_version(text: &str) -> bool {
    let (front, behind) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
    let numbers: Vec<&str> = front.split('.').collect();
    let is_number = |part: &&str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && (*part == "0" || !part.starts_with('0'))
    };
    let is_rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
    numbers.len() == 3 && numbers.iter().all(is_number) && behind.len() != 1 && behind.bytes().all(is_rest)
}

fn endpoints(problems: &mut Problems, spec: &Map<String, Value>) {
    let Some(endpoints) = problems.object("spec.endpoints", spec.get("endpoints")) else { return };
    for name in ["grpc", "health"] {
        if !endpoints.contains_key(name) {
            problems.add(&format!("spec.endpoints.{name}"), "must be there");
        }
    }
    for (name, port) in endpoints {
        let number = port.as_u64().or_else(|| port.as_str().and_then(|text| text.parse().ok()));
        if !number.is_some_and(|number| (1..=65_535).contains(&number)) {
            problems.add(&format!("spec.endpoints.{name}"), "must be a port from 1 to 65535");
        }
    }
}

/// A dependency is a name, or an object with one.
fn depends_on_core(spec: &Map<String, Value>) -> bool {
    let of = |dependency: &Value| match dependency {
        Value::String(name) => name == CORE,
        Value::Object(members) => {
            ["name", "service"].iter().any(|name| members.get(*name).is_some_and(|it| it == CORE))
        }
        _ => false,
    };
    match spec.get("dependencies") {
        Some(Value::Array(dependencies)) => dependencies.iter().any(of),
        Some(Value::Object(dependencies)) => dependencies.contains_key(CORE),
        _ => false,
    }
}

fn collection(problems: &mut Problems, place: &str, item: &Value) -> Option<(String, Declaration)> {
    let members = problems.object(place, Some(item))?;
    problems.only(place, members, &["name", "description", "schemaHint", "indexes"]);
    let name = problems.text(&joined(place, "name"), members.get("name"));
    if !name.is_empty()
        && let Err(Error::InvalidArgument { rule, .. }) = check_part("name", name)
    {
        problems.add(&joined(place, "name"), rule);
    }
    let description = problems.any_text(&joined(place, "description"), members.get("description"));
    let hint_place = joined(place, "schemaHint");
    let hint = match members.get("schemaHint") {
        None | Some(Value::Null) => None,
        hint => problems.object(&hint_place, hint),
    };
    for (field, kind) in hint.into_iter().flatten() {
        if !kind.as_str().is_some_and(|kind| TYPES.contains(&kind)) {
            problems.add(&joined(&hint_place, field), format!("must be one of {}", TYPES.join(", ")));
        }
    }
    let listed = problems.list(&joined(place, "indexes"), members.get("indexes"));
    let specs =
        listed.iter().enumerate().filter_map(|(at, item)| index(problems, &format!("{place}.indexes[{at}]"), item));
    let indexes: Vec<IndexSpec> = specs.collect();
    let declaration = Declaration {
        description: description.to_owned(),
        schema_hint: hint.map(|hint| Value::from(hint.clone()).to_string()).unwrap_or_default(),
        settings: None,
        indexes: Some(indexes),
    };
    Some((name.to_owned(), declaration))
}

fn index(problems: &mut Problems, place: &str, item: &Value) -> Option<IndexSpec> {
    let members = problems.object(place, Some(item))?;
    problems.only(place, members, &["name", "fields", "type", "unique"]);
    let kind = match members.get("type") {
        None => "ascending",
        kind => problems.text(&joined(place, "type"), kind),
    };
    let descending = kind == "descending";
    if kind == "text" {
        problems.add(&joined(place, "type"), "text is not supported by this program yet; leave the index out");
    } else if !kind.is_empty() && !["ascending", "descending", "compound", "unique"].contains(&kind) {
        problems.add(&joined(place, "type"), "must be one of ascending, descending, compound, unique, text");
    }
    let flagged = problems.flag(&joined(place, "unique"), members.get("unique")).unwrap_or_default();
    let fields_place = joined(place, "fields");
    let names = problems.list(&fields_place, members.get("fields"));
    if names.is_empty() {
        problems.add(&fields_place, "must name at least one field");
    }
    let field = |(at, name): (usize, &Value)| {
        let field = problems.text(&format!("{fields_place}[{at}]"), Some(name)).to_owned();
        SortField { field, descending }
    };
    let fields = names.iter().enumerate().map(field).collect();
    let name = problems.any_text(&joined(place, "name"), members.get("name")).to_owned();
    Some(IndexSpec { name, fields, unique: flagged || kind == "unique", filter: String::new() })
}

fn request(problems: &mut Problems, place: &str, item: &Value) -> Option<Request> {
    let members = problems.object(place, Some(item))?;
    problems.only(place, members, &["collection", "permission", "reason"]);
    let collection = problems.text(&joined(place, "collection"), members.get("collection")).to_owned();
    let permission = problems.text(&joined(place, "permission"), members.get("permission"));
    let permission = permission.parse().map_err(|rule| problems.add(&joined(place, "permission"), rule)).ok();
    let reason = problems.any_text(&joined(place, "reason"), members.get("reason")).to_owned();
    Some(Request { collection, permission: permission?, reason })
}

fn twice<'n>(problems: &mut Problems, place: &str, names: impl Iterator<Item = &'n str>) {
    let mut seen = std::collections::BTreeSet::new();
    let again: Vec<&str> = names.filter(|name| !name.is_empty() && !seen.insert(*name)).collect();
    for name in again {
        problems.add(place, format!("must not have {name:?} twice"));
    }
}

/// Declares what a manifest declares, and asks for what it asks for: all that can be, in one transaction. `None`: there is
/// nothing to change.
///
/// Errors: `PermissionDenied` for the manifest of another service.
pub fn apply(view: &View, actor: &Actor, manifest: &Manifest) -> Result<(Option<Write>, AppliedManifest)> {
    if actor.service().is_some_and(|service| service != manifest.service) {
        let (actor, service) = (actor.name(), &manifest.service);
        return Err(Error::PermissionDenied(format!("{actor} cannot apply the manifest of {service}")));
    }
    let mut all = Declaring::new(view, actor)?;
    let mut applied = AppliedManifest {
        service: manifest.service.clone(),
        warnings: manifest.warnings.clone(),
        ..AppliedManifest::default()
    };
    for (name, declaration) in &manifest.collections {
        let name = format!("{}.{name}", manifest.service);
        applied.collections.push(match all.add(&name, declaration, true) {
            Ok(Declared { name, created, changed, added_indexes, dropped_indexes }) => {
                DeclaredCollection { name, created, changed, added_indexes, dropped_indexes, error: String::new() }
            }
            Err(error @ (Error::InvalidArgument { .. } | Error::Refused(_) | Error::PermissionDenied(_))) => {
                DeclaredCollection { name, error: error.to_string(), ..DeclaredCollection::default() }
            }
            Err(error) => return Err(error),
        });
    }
    for Request { collection, permission, reason } in &manifest.requests {
        let asked = requests::ask(view, &manifest.service, (collection, *permission, reason));
        let (state, error) = match asked {
            Ok((state, guards, operations)) => {
                all.also(guards, operations);
                (state, String::new())
            }
            Err(error @ Error::InvalidArgument { .. }) => (RequestState::Denied, error.to_string()),
            Err(error) => return Err(error),
        };
        applied.requests.push(RequestedAccess {
            collection: collection.clone(),
            permission: *permission,
            state,
            error,
        });
    }
    Ok((all.write(), applied))
}

#[cfg(test)]
mod tests;
