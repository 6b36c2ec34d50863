//! Writes: documents inserted, changed, replaced and deleted, each call as one transaction.
//!
//! What a filter lets through is found on the view; that each of these documents is as it was seen is guarded, so an update is
//! made of what is there when it is applied, or decided anew. Documents that begin to match meanwhile are not seen, as with
//! every update that goes through documents one by one; what is only inserted if nothing matches is guarded by its id, or by
//! the whole collection.

mod target;

use std::collections::HashSet;

pub(in crate::layers) use self::target::taken;
use self::target::{AROUND, Target, check_id};
use super::{
    super::{Write, check, json, list::successor, search::Terms},
    access::Actor,
    filter::Matcher,
    opened, parse,
    path::{self, ID, Path},
    projection::Projection,
    read::{Documents, Order, missing},
    tree::{Tree, write_name},
    update::Update,
};
use crate::{
    Error, Result, limits,
    model::{
        Key, OperationResult, Outcome, Record,
        document::{self, FindAndUpdate, Inserted, Modification, Modified, NewDocument},
        keyspace,
        transaction::{Compare, Operation},
    },
    state::View,
};

/// Most documents that one call changes: each of them is guarded.
const CHANGED: usize = limits::COMPARES - 96;
/// Most bytes of documents that one call changes or deletes: they are in memory together, and apply replaces no more.
const CHANGED_BYTES: usize = 32 << 20;

/// The id of a document, if it has one in it, and its text without it. Errors: `InvalidArgument`.
fn taken_apart(document: &str) -> Result<(Option<String>, String)> {
    json::check("document", document)?;
    let wrong = |value: &str, rule: &str| Error::invalid("document", value, rule);
    if !document.trim_start().starts_with('{') {
        return Err(wrong("", "must be a JSON object"));
    }
    let members = Tree::members(document).map_err(|_| wrong("", "must have names that are UTF-8"))?;
    if let Some((name, _)) = members.iter().find(|(name, _)| name.starts_with('$') || path::is_known(name)) {
        let rule = if name.starts_with('$') { "must not begin with $" } else { "is what the store says of a document" };
        return Err(Error::invalid("document", name, format!("the name of a member {rule}")));
    }
    let Some((_, id)) = members.iter().find(|(name, _)| name == ID) else {
        return Ok((None, document.trim().to_owned()));
    };
    let id: String = serde_json::from_str(id).map_err(|_| Error::invalid(ID, *id, "must be a text"))?;
    check_id(&id)?;
    let mut text = String::from("{");
    for (name, value) in members.iter().filter(|(name, _)| name != ID) {
        if text.len() > 1 {
            text.push(',');
        }
        write_name(name, &mut text);
        text.push_str(value);
    }
    text.push('}');
    Ok((Some(id), text))
}

/// Documents that are to be inserted.
#[derive(Clone, Debug)]
pub struct Inserts {
    /// `None`: nothing is to be done.
    pub write: Option<Write>,
    items: Vec<(String, Option<Error>)>,
}

/// Inserts documents, all or none; with `each` those that can be.
///
/// Errors: `InvalidArgument`; `NotFound` for the collection; `PermissionDenied`; without `each` also `AlreadyExists`.
pub fn insert(view: &View, actor: &Actor, name: &str, (documents, each): (&[NewDocument], bool)) -> Result<Inserts> {
    check::check_some("documents", documents.len(), limits::CHANGES)?;
    let mut target = Target::open(view, actor, name)?;
    let mut items = Vec::with_capacity(documents.len());
    for NewDocument { json, id } in documents {
        let (id, inserted) = match taken_apart(json) {
            Ok((own, text)) => {
                let id = own.unwrap_or_else(|| id.clone());
                let inserted = target.insert(view, (&id, &text));
                (id, inserted)
            }
            Err(error) => (String::new(), Err(error)),
        };
        match inserted {
            Ok(()) => items.push((id, None)),
            Err(error @ (Error::InvalidArgument { .. } | Error::AlreadyExists { .. })) if each => {
                items.push((id, Some(error)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Inserts { write: target.write(), items })
}

impl Inserts {
    /// What became of each document; `None` was found if all that is known is the outcome of an earlier attempt.
    pub fn results(found: Option<Self>, documents: &[NewDocument], outcome: Option<&Outcome>) -> Vec<Inserted> {
        if let Some(Self { items, .. }) = found {
            let item = |(id, error): (String, Option<Error>)| Inserted {
                id,
                error: error.map(|error| error.to_string()).unwrap_or_default(),
            };
            return items.into_iter().map(item).collect();
        }
        // Those without an id of their own got new ones, in their order.
        let written: Vec<String> = written(outcome).collect();
        let owns: Vec<Option<String>> =
            documents.iter().map(|document| taken_apart(&document.json).ok().and_then(|(own, _)| own)).collect();
        let named: HashSet<&String> = owns.iter().flatten().collect();
        let mut new = written.iter().filter(|id| !named.contains(id));
        let there: HashSet<&String> = written.iter().collect();
        let result = |own: &Option<String>| {
            let id = match own {
                Some(id) => Some(id).filter(|id| there.contains(id)),
                None => new.next(),
            };
            let lost = "the first attempt of this call did not insert it";
            match id {
                Some(id) => Inserted { id: id.clone(), error: String::new() },
                None => Inserted { id: own.clone().unwrap_or_default(), error: lost.into() },
            }
        };
        owns.iter().map(result).collect()
    }
}

/// The ids of the documents that were written.
fn written(outcome: Option<&Outcome>) -> impl Iterator<Item = String> {
    let results = match outcome {
        Some(Outcome::Applied { results, .. }) => results.as_slice(),
        _ => &[],
    };
    results.iter().filter_map(|result| match result {
        OperationResult::Put { key, .. } if key.scope().keyspace == keyspace::DOCUMENTS => {
            Some(String::from_utf8_lossy(&key.user_bytes()).into_owned())
        }
        _ => None,
    })
}

/// What a filter lets through, in the order of the ids: at most `limit`; with 0 all, which must not be more than a transaction
/// can change. Errors: `Refused` if they are.
fn matched(view: &View, target: &Target, (matcher, limit): (&Matcher, u64)) -> Result<Vec<(Key, Record)>> {
    let (order, projection) = (Order::default(), Projection::default());
    let (mut found, limit) = (Vec::new(), usize::try_from(limit).unwrap_or(usize::MAX));
    let (most, mut bytes) = (if limit == 0 { CHANGED } else { limit.min(CHANGED) }, 0);
    Documents::new(&target.collection, matcher, &order, &projection).visit(view, |key, record| {
        bytes += record.value.len();
        if found.len() == most || bytes > CHANGED_BYTES {
            // As many as were asked for.
            if found.len() == limit {
                return Ok(false);
            }
            return Err(Error::Refused(format!(
                "more than {CHANGED} documents match, or more than {CHANGED_BYTES} bytes of them, which is more than one \
                 transaction can change; narrow the filter, or name a smaller limit and repeat the call until nothing is left"
            )));
        }
        found.push((key, record));
        Ok(true)
    })?;
    Ok(found)
}

fn check_revision(target: &Target, (key, record): (&Key, &Record), wanted: Option<u64>) -> Result<()> {
    match wanted {
        Some(wanted) if wanted != record.mod_revision => {
            let id = String::from_utf8_lossy(&key.user_bytes()).into_owned();
            let name = target.collection.name();
            Err(Error::ConditionFailed(format!("{id} in {name} (it has revision {})", record.mod_revision)))
        }
        _ => Ok(()),
    }
}

/// That none was to be there. Errors: `ConditionFailed`.
fn check_none(target: &Target, wanted: Option<u64>) -> Result<()> {
    match wanted {
        Some(wanted) if wanted > 0 => {
            Err(Error::ConditionFailed(format!("a document of {} (none matches)", target.collection.name())))
        }
        _ => Ok(()),
    }
}

/// A document that is to be inserted because none matches: what the filter says that it is equal to, updated.
fn upserted(view: &View, target: &mut Target, (matcher, update, new_id): (&Matcher, &Update, &str)) -> Result<String> {
    let (mut tree, mut id) = (Tree::text("{}"), None);
    for (path, value) in matcher.equalities() {
        match path {
            Path::Id => {
                let text = path::text_of(value);
                id = Some(
                    serde_json::from_str::<String>(&text).map_err(|_| Error::invalid(ID, text, "must be a text"))?,
                );
            }
            Path::Known(_) => {}
            Path::Of(path) => {
                let wrong = |why| Error::invalid("filter", path::joined(path), format!("cannot be made: {why}"));
                *tree.make(path).map_err(wrong)? = Tree::text(path::text_of(value));
            }
        }
    }
    let named = id.is_some();
    let id = id.unwrap_or_else(|| new_id.to_owned());
    let text = update.apply(&id, &tree.to_text())?;
    target.insert(view, (&id, &text))?;
    if !named {
        target.guards.push(Compare::unchanged_since(target.collection.documents(), view.revision()));
    }
    Ok(id)
}

/// Changes the documents that a filter lets through.
///
/// Errors: `InvalidArgument`, also if it cannot be done to one of them; `NotFound` for the collection; `PermissionDenied`;
/// `ConditionFailed`; `AlreadyExists` for what is unique; `Refused` if they are too many.
pub fn update(
    view: &View,
    actor: &Actor,
    name: &str,
    modification: &Modification,
) -> Result<(Option<Write>, Modified)> {
    let Modification { filter, update, upsert, new_id, limit, if_revision } = modification;
    let (matcher, update) = (Matcher::parse(filter)?, Update::parse(update)?);
    let mut target = Target::open(view, actor, name)?;
    let found = matched(view, &target, (&matcher, *limit))?;
    let mut modified = Modified { matched: found.len() as u64, ..Modified::default() };
    for (key, record) in &found {
        check_revision(&target, (key, record), *if_revision)?;
        modified.modified += u64::from(change_one(view, &mut target, (key, record), &update)?);
    }
    if found.is_empty() && *upsert {
        check_none(&target, *if_revision)?;
        modified.upserted_id = upserted(view, &mut target, (&matcher, &update, new_id))?;
    }
    Ok((target.write(), modified))
}

/// Changes a document: whether that makes a difference.
fn change_one(view: &View, target: &mut Target, (key, record): (&Key, &Record), update: &Update) -> Result<bool> {
    let before = opened(view, key, record)?;
    let text = update.apply(&before.id, before.text())?;
    if text == before.text() {
        return Ok(false);
    }
    target.put((&before.id, &text), (record, &before.owner))?;
    target.guard(key, Some(record))?;
    Ok(true)
}

impl Modified {
    /// What an earlier attempt has done, as far as its outcome says it: of those that matched those that were changed, too.
    pub fn before(outcome: Option<&Outcome>) -> Self {
        let results = match outcome {
            Some(Outcome::Applied { results, .. }) => results.as_slice(),
            _ => &[],
        };
        let mut before = Self::default();
        for result in results {
            match result {
                OperationResult::Put { key, version: 1 } if key.scope().keyspace == keyspace::DOCUMENTS => {
                    before.upserted_id = String::from_utf8_lossy(&key.user_bytes()).into_owned();
                }
                OperationResult::Put { .. } => {
                    (before.matched, before.modified) = (before.matched + 1, before.modified + 1)
                }
                // A document that was found and left as it is.
                OperationResult::Records(records) if results.len() == 1 => before.matched = records.len() as u64,
                _ => {}
            }
        }
        before
    }
}

/// Replaces a document; with `upsert` it is inserted if it is not there.
///
/// Errors: `InvalidArgument`; `NotFound` for the collection, and without `upsert` for the document; `PermissionDenied`;
/// `ConditionFailed` if it was not last written at `if_revision`; `AlreadyExists` for what is unique.
pub fn replace(
    view: &View,
    actor: &Actor,
    (name, id): (&str, &str),
    (document, if_revision, upsert): (&str, Option<u64>, bool),
) -> Result<Write> {
    check_id(id)?;
    let (own, text) = taken_apart(document)?;
    if let Some(own) = own.filter(|own| own != id) {
        return Err(Error::invalid(ID, own, format!("must be {id}, or not be there")));
    }
    let mut target = Target::open(view, actor, name)?;
    let key = target.collection.key(id);
    match view.record(&key)? {
        Some(record) => {
            check_revision(&target, (&key, &record), if_revision)?;
            let owner = opened(view, &key, &record)?.owner;
            target.put((id, &text), (&record, &owner))?;
            target.guard(&key, Some(&record))?;
        }
        None if !upsert => return Err(missing(&target.collection, id)),
        None if if_revision.is_some_and(|revision| revision > 0) => {
            let name = target.collection.name();
            return Err(Error::ConditionFailed(format!("{id} in {name} (it is not there)")));
        }
        None => target.insert(view, (id, &text))?,
    }
    target.write().ok_or_else(|| Error::Unexpected("a replacement that writes nothing".into()))
}

/// Deletes the documents that a filter lets through, and says how many.
///
/// Errors: `InvalidArgument`; `NotFound` for the collection; `PermissionDenied`; `ConditionFailed`; `Refused` if they are too
/// many.
pub fn delete(
    view: &View,
    actor: &Actor,
    name: &str,
    (filter, limit, if_revision): (&str, u64, Option<u64>),
) -> Result<(Option<Write>, u64)> {
    let matcher = Matcher::parse(filter)?;
    let mut target = Target::open(view, actor, name)?;
    let found = matched(view, &target, (&matcher, limit))?;
    for (key, record) in &found {
        check_revision(&target, (key, record), if_revision)?;
        target.guard(key, Some(record))?;
        target.weigh(key.as_bytes().len() + AROUND)?;
        target.operations.push(Operation::Delete { key: key.clone() });
    }
    Ok((target.write(), found.len() as u64))
}

/// How many documents an outcome says were deleted.
pub fn deleted(outcome: Option<&Outcome>) -> u64 {
    let results = match outcome {
        Some(Outcome::Applied { results, .. }) => results.as_slice(),
        _ => &[],
    };
    let deleted = results.iter().map(|result| match result {
        OperationResult::Deleted(count) => *count,
        _ => 0,
    });
    deleted.sum()
}

/// Changes the first document that a filter lets through, and answers it as it was, or as it is then.
///
/// Errors: as of [`update`].
pub fn find_and_update(
    view: &View,
    actor: &Actor,
    name: &str,
    wanted: &FindAndUpdate,
) -> Result<(Option<Write>, Modified)> {
    let FindAndUpdate { modification, sort, before } = wanted;
    let Modification { filter, update, upsert, new_id, if_revision, .. } = modification;
    let (matcher, update, order) = (Matcher::parse(filter)?, Update::parse(update)?, Order::parse(sort)?);
    let mut target = Target::open(view, actor, name)?;
    let (projection, terms) = (Projection::default(), Terms::new((Some(1), 0, ""), 0, !sort.is_empty())?);
    let first = Documents::new(&target.collection, &matcher, &order, &projection).page(view, &terms)?;
    let mut modified = Modified::default();
    let key = match first.items.first() {
        Some(first) => {
            let key = target.collection.key(&first.id);
            let record = view.record(&key)?.ok_or_else(|| missing(&target.collection, &first.id))?;
            check_revision(&target, (&key, &record), *if_revision)?;
            modified.matched = 1;
            if change_one(view, &mut target, (&key, &record), &update)? {
                modified.modified = 1;
            } else {
                target.guard(&key, Some(&record))?;
            }
            key
        }
        None if *upsert => {
            check_none(&target, *if_revision)?;
            modified.upserted_id = upserted(view, &mut target, (&matcher, &update, new_id))?;
            target.collection.key(&modified.upserted_id)
        }
        None => return Ok((None, modified)),
    };
    // In the transaction, so that it is read as it was when that was applied.
    let end = successor(key.as_bytes()).into();
    let read = Operation::Range { start: key, end, limit: 1 };
    if *before {
        target.operations.insert(0, read);
    } else {
        target.operations.push(read);
    }
    Ok((target.write(), modified))
}

/// The document that an outcome answers. Errors: `InvalidArgument` for a projection that is none; `Unexpected` if what is
/// answered is no document.
pub fn answered(
    outcome: Option<&Outcome>,
    (include, exclude): (&[String], &[String]),
) -> Result<Option<document::Document>> {
    let projection = Projection::parse(include, exclude)?;
    let Some(Outcome::Applied { results, .. }) = outcome else { return Ok(None) };
    let read = results.iter().find_map(|result| match result {
        OperationResult::Records(records) => records.first(),
        _ => None,
    });
    let Some((key, record)) = read else { return Ok(None) };
    let opened = parse(key, record).map_err(|fault| Error::Unexpected(fault.to_string()))?;
    Ok(Some(opened.shown(record, &projection)))
}
