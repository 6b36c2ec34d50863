//! Writes of values and of their attributes.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{Write, json},
    attributes_of, check_key, check_value, holds, index, missing, named,
    namespace::{Creation, Namespace, creation, name_of},
    read, seal, unchanged,
};
use crate::{
    Error, Result,
    layers::{check, lease::Attachments},
    limits,
    model::{
        Key, OperationResult, Outcome, Record, Reference, ReferenceMode, keyspace, kind,
        kv::{DeleteResult, Deletion, NamespaceSettings, Set, SetResult},
        mesh::Condition,
        transaction::{Compare, Operation, Put},
    },
    state::View,
};

/// Values that are to be written.
#[derive(Clone, Debug)]
pub struct Sets {
    /// `None`: none of them can be written.
    pub write: Option<Write>,
    /// The keys in the order in which they came, with why one is not written.
    keys: Vec<(String, Option<Error>)>,
    /// Whether some may be written and others not.
    per_key: bool,
}

/// Writes values, all or none; with `per_key` those that can be. Errors: `InvalidArgument`; without `per_key` also
/// `AlreadyExists` and `ConditionFailed`.
pub fn set(view: &View, principal: &str, namespace: &str, sets: Vec<Set>, per_key: bool) -> Result<Sets> {
    check::check_some("sets", sets.len(), limits::CHANGES)?;
    let (namespace, mut guards, mut operations) = match Namespace::find(view, namespace)? {
        Some(found) => {
            let guard = found.guard();
            (found, vec![guard], vec![])
        }
        None => {
            let created = creation(view, namespace, "{}".into(), NamespaceSettings::default())?;
            let Creation { namespace, guards, operations } = created;
            (namespace, guards, operations)
        }
    };
    let (mut keys, mut any, mut bytes, mut attached) = (Vec::new(), false, 0, Attachments::default());
    for set in last_of_each(sets, |set| &set.key) {
        let name = set.key.clone();
        bytes += name.len() + set.value.len();
        match set_one(view, principal, &namespace, set) {
            Ok(one) => {
                any = true;
                bytes += one.bytes;
                guards.extend(one.guards);
                operations.extend(one.operations);
                attached.join(one.attached);
                keys.push((name, None));
            }
            Err(error @ Error::InvalidArgument { .. }) if per_key => keys.push((name, Some(error))),
            Err(error @ (Error::AlreadyExists { .. } | Error::ConditionFailed(_))) if per_key => {
                // It must still be so when the others are written.
                let key = namespace.value_key(&name);
                guards.push(unchanged(&key, view.record(&key)?.as_ref()));
                keys.push((name, Some(error)));
            }
            Err(error) => return Err(error),
        }
        if bytes > limits::TRANSACTION_BYTES {
            let rule = format!(
                "must be at most {} bytes together, with their metadata and index entries",
                limits::TRANSACTION_BYTES
            );
            return Err(Error::invalid("sets", "", rule));
        }
    }
    let write = any.then(|| {
        let write = Write::guarded(guards, operations).if_full(namespace.full());
        Write { attached, ..write }
    });
    Ok(Sets { write, keys, per_key })
}

/// Of several with one key the last, in the order in which they came.
fn last_of_each<T>(items: Vec<T>, key: impl Fn(&T) -> &str) -> Vec<T> {
    let mut last = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        last.insert(key(item).to_owned(), at);
    }
    let is_last = |at: usize, item: &T| last.get(key(item)) == Some(&at);
    items.into_iter().enumerate().filter(|(at, item)| is_last(*at, item)).map(|(_, item)| item).collect()
}

struct One {
    guards: Vec<Compare>,
    operations: Vec<Operation>,
    attached: Attachments,
    /// Of attributes and index entries.
    bytes: usize,
}

fn set_one(view: &View, principal: &str, namespace: &Namespace, set: Set) -> Result<One> {
    let Set { key: name, value, attributes, overwrite, condition, lease } = set;
    check_key(&name)?;
    check_value(&value)?;
    let key = namespace.value_key(&name);
    let mut one = One { guards: vec![], operations: vec![], attached: Attachments::default(), bytes: 0 };
    if !overwrite || condition.is_some() {
        let record = view.record(&key)?;
        if !overwrite && record.is_some() {
            return Err(Error::AlreadyExists { kind: kind::VALUE, name: named(namespace.name(), &name) });
        }
        check_condition((Some(namespace), &name), condition, record.as_ref())?;
        one.guards.push(unchanged(&key, record.as_ref()));
    }
    let entries = index::entries(namespace, &value);
    one.bytes += entries.iter().map(|entry| entry.key.len()).sum::<usize>();
    let length = value.len();
    let mut put = Put { entries, ..Put::value(seal(value, principal)) };
    if let Some(lease) = lease {
        one.attached.attach(lease, ("value", length), &mut put)?;
    }
    one.operations.push(Operation::Put { key: key.clone(), put });
    if let Some(attributes) = attributes {
        let Attributes { bytes, guard, operation, .. } =
            write_attributes(view, namespace, (&name, key), &attributes, true)?;
        one.bytes += bytes;
        one.guards.push(guard);
        one.operations.push(operation);
    }
    Ok(one)
}

fn check_condition(
    (namespace, name): (Option<&Namespace>, &str),
    condition: Option<Condition>,
    record: Option<&Record>,
) -> Result<()> {
    match condition {
        Some(condition) if !holds(condition, record) => {
            let found = record.map_or("is not there".into(), |record| {
                format!("has version {}, revision {}", record.version, record.mod_revision)
            });
            Err(Error::ConditionFailed(format!("{} (it {found})", named(name_of(namespace), name))))
        }
        _ => Ok(()),
    }
}

/// Attributes that are to be written.
struct Attributes {
    /// Whether there are some already.
    replaced: bool,
    bytes: usize,
    /// That those which are there are the ones that were seen.
    guard: Compare,
    operation: Operation,
}

/// What makes these the attributes of a value, merged with those that it has if `merge`.
fn write_attributes(
    view: &View,
    namespace: &Namespace,
    (name, value): (&str, Key),
    attributes: &str,
    merge: bool,
) -> Result<Attributes> {
    json::check_object("metadata", attributes, limits::ATTRIBUTES_BYTES)?;
    let key = namespace.attributes_key(name);
    let before = view.record(&key)?;
    let text = match &before {
        Some(before) if merge => json::merge("metadata", &attributes_of(view, before)?, attributes)?,
        _ => attributes.to_owned(),
    };
    check::check_length("metadata", text.len(), limits::ATTRIBUTES_BYTES)?;
    let references = vec![Reference { key: value, mode: ReferenceMode::Cascade }];
    let (bytes, guard) = (text.len(), unchanged(&key, before.as_ref()));
    let operation = Operation::Put { key, put: Put { references, ..Put::value(text) } };
    Ok(Attributes { replaced: before.is_some(), bytes, guard, operation })
}

impl Sets {
    /// Those of an earlier attempt, of which only the outcome is known.
    pub fn executed_before(keys: Vec<String>, per_key: bool) -> Self {
        let keys = last_of_each(keys, String::as_str).into_iter().map(|key| (key, None)).collect();
        Self { write: None, keys, per_key }
    }

    /// What became of each key, by the outcome of the write; by that of an earlier attempt, if this one was repeated: then
    /// what was found now says nothing of what was done.
    pub fn results(self, outcome: Option<&Outcome>) -> Vec<SetResult> {
        let Self { keys, per_key, .. } = self;
        let result = |key, version, error: String| SetResult { key, version, error };
        let said = |error: Option<Error>| error.map(|error| error.to_string());
        let Some(outcome) = outcome else {
            return keys.into_iter().map(|(key, error)| result(key, 0, said(error).unwrap_or_default())).collect();
        };
        let Outcome::Applied { results, .. } = outcome else {
            let lost = if per_key { SetResult::LOST } else { "" };
            return keys.into_iter().map(|(key, _)| result(key, 0, lost.into())).collect();
        };
        let written = results.iter().filter_map(|result| match result {
            OperationResult::Put { key, version } if key.scope().keyspace == keyspace::VALUES => {
                Some((key.user_bytes(), *version))
            }
            _ => None,
        });
        let written: BTreeMap<_, _> = written.collect();
        let became = |(key, error): (String, Option<Error>)| match written.get(key.as_bytes()) {
            Some(version) => result(key, *version, String::new()),
            None => {
                let error = said(error).unwrap_or_else(|| "the first attempt of this call found it otherwise".into());
                result(key, 0, error)
            }
        };
        keys.into_iter().map(became).collect()
    }
}

/// Values that are to be deleted.
#[derive(Clone, Debug)]
pub struct Deletes {
    /// `None`: nothing is to be done.
    pub write: Option<Write>,
    /// The keys in the order in which they came, with why one is not deleted.
    keys: Vec<(String, Option<Error>)>,
    /// Whether an earlier attempt was executed, which may have refused some of them.
    before: bool,
}

/// Deletes values, at one revision, all or none; with `per_key` those that can be. Those that are not there are no error.
///
/// Errors: `InvalidArgument`; `NotFound` for the namespace; without `per_key` also `ConditionFailed`.
pub fn delete(view: &View, namespace: &str, deletions: Vec<Deletion>, per_key: bool) -> Result<Deletes> {
    check::check_some("keys", deletions.len(), limits::CHANGES)?;
    let deletions = distinct(deletions);
    if let Some(wrong) = deletions.iter().find_map(|deletion| check_key(&deletion.key).err()).filter(|_| !per_key) {
        return Err(wrong);
    }
    let found = Namespace::existing(view, namespace)?;
    let mut guards: Vec<Compare> = found.iter().map(Namespace::guard).collect();
    let (mut keys, mut operations) = (Vec::new(), Vec::new());
    for Deletion { key: name, condition } in deletions {
        let refused = match may_delete(view, found.as_ref(), (&name, condition), &mut guards) {
            Err(error @ (Error::InvalidArgument { .. } | Error::ConditionFailed(_))) if per_key => Some(error),
            may => may.map(|()| None)?,
        };
        if let Some(found) = found.as_ref().filter(|_| refused.is_none()) {
            operations.push(Operation::Delete { key: found.value_key(&name) });
        }
        keys.push((name, refused));
    }
    let write = (!operations.is_empty()).then(|| Write::guarded(guards, operations));
    Ok(Deletes { write, keys, before: false })
}

/// That a value may be deleted; it must then still be as it was seen. Errors: `InvalidArgument`; `ConditionFailed`.
fn may_delete(
    view: &View,
    namespace: Option<&Namespace>,
    (name, condition): (&str, Option<Condition>),
    guards: &mut Vec<Compare>,
) -> Result<()> {
    check_key(name)?;
    if condition.is_none() {
        return Ok(());
    }
    let key = namespace.map(|namespace| namespace.value_key(name));
    let record = key.as_ref().map(|key| view.record(key)).transpose()?.flatten();
    guards.extend(key.map(|key| unchanged(&key, record.as_ref())));
    check_condition((namespace, name), condition, record.as_ref())
}

fn distinct(mut deletions: Vec<Deletion>) -> Vec<Deletion> {
    let mut seen = BTreeSet::new();
    deletions.retain(|deletion| seen.insert(deletion.key.clone()));
    deletions
}

impl Deletes {
    /// Those of an earlier attempt, of which only the outcome is known.
    pub fn executed_before(deletions: Vec<Deletion>) -> Self {
        let keys = distinct(deletions).into_iter().map(|deletion| (deletion.key, None)).collect();
        Self { write: None, keys, before: true }
    }

    /// What became of each key, by the outcome of the write.
    pub fn results(self, outcome: Option<&Outcome>) -> Vec<DeleteResult> {
        let results = match outcome {
            Some(Outcome::Applied { results, .. }) => results.as_slice(),
            _ => &[],
        };
        if self.before && results.len() != self.keys.len() {
            let lost = |(key, _)| DeleteResult { key, deleted: false, error: SetResult::LOST.into() };
            return self.keys.into_iter().map(lost).collect();
        }
        let mut results = results.iter();
        let became = |(key, error): (String, Option<Error>)| match error {
            Some(error) => DeleteResult { key, deleted: false, error: error.to_string() },
            None => {
                let deleted = matches!(results.next(), Some(OperationResult::Deleted(count)) if *count > 0);
                DeleteResult { key, deleted, error: String::new() }
            }
        };
        self.keys.into_iter().map(became).collect()
    }
}

/// Sets the attributes of a value that exists. Errors: `InvalidArgument`; `NotFound`; `ConditionFailed` if the attributes are not
/// of revision `if_revision`.
pub fn set_attributes(
    view: &View,
    namespace: &str,
    name: &str,
    attributes: &str,
    (merge, if_revision): (bool, Option<u64>),
) -> Result<Write> {
    check_key(name)?;
    json::check_object("metadata", attributes, limits::ATTRIBUTES_BYTES)?;
    let found = Namespace::existing(view, namespace)?;
    let absent = || missing(name_of(found.as_ref()), name);
    let namespace = found.as_ref().ok_or_else(absent)?;
    let key = namespace.value_key(name);
    if view.record(&key)?.is_none() {
        return Err(absent());
    }
    if let Some(expected) = if_revision {
        let revision = view.record(&namespace.attributes_key(name))?.map_or(0, |record| record.mod_revision);
        if revision != expected {
            let what = format!("the metadata of {} (it has revision {revision})", named(namespace.name(), name));
            return Err(Error::ConditionFailed(what));
        }
    }
    let exists = Compare::Exists { key: key.clone(), exists: true };
    let Attributes { guard, operation, .. } = write_attributes(view, namespace, (name, key), attributes, merge)?;
    Ok(Write::guarded(vec![namespace.guard(), exists, guard], vec![operation]))
}

/// Makes a value and its attributes what they were at a revision. Errors: `InvalidArgument`, also if that is no longer kept;
/// `NotFound` if there was no value then; `ConditionFailed`.
pub fn restore(
    view: &View,
    principal: &str,
    (namespace, name): (&str, &str),
    (revision, condition): (u64, Option<Condition>),
) -> Result<Write> {
    let entry = read::get(view, namespace, name, (true, Some(revision)))?;
    let namespace = Namespace::existing(view, namespace)?.ok_or_else(|| missing(namespace, name))?;
    let key = namespace.value_key(name);
    let mut guards = vec![namespace.guard()];
    if condition.is_some() {
        let record = view.record(&key)?;
        check_condition((Some(&namespace), name), condition, record.as_ref())?;
        guards.push(unchanged(&key, record.as_ref()));
    }
    let entries = index::entries(&namespace, &entry.value);
    let put = Operation::Put { key: key.clone(), put: Put { entries, ..Put::value(seal(entry.value, principal)) } };
    let attributes = entry.metadata.attributes.unwrap_or_else(|| "{}".into());
    let Attributes { replaced, guard, operation, .. } =
        write_attributes(view, &namespace, (name, key), &attributes, false)?;
    let wanted = replaced || entry.metadata.attributes_revision > 0;
    let operations = [put].into_iter().chain(wanted.then_some(operation)).collect();
    guards.push(guard);
    Ok(Write::guarded(guards, operations).if_full(namespace.full()))
}
