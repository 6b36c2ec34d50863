//! Reads of values.

use super::{
    super::list::{Range, Walk, successor},
    check_key,
    glob::Glob,
    missing,
    namespace::{Namespace, check_name, name_of},
    open, with_attributes,
};
use crate::{
    Error, Result,
    layers::check,
    limits,
    model::{
        Key, Record, ScopeId,
        key::prefix_end,
        keyspace,
        kv::{self, Entry, KeyFilter, Metadata},
        mesh::{Page, PageRequest},
    },
    state::{View, view::Version},
};

/// A value: the newest, or the one that was current at a revision; with the caller's attributes if they are asked for.
///
/// Errors: `InvalidArgument`, also for a revision of which nothing is kept any more; `NotFound`.
pub fn get(view: &View, namespace: &str, key: &str, (attributes, as_of): (bool, Option<u64>)) -> Result<Entry> {
    check_key(key)?;
    // What is not committed was at no revision.
    let committed = as_of.map(|_| view.committed());
    let view = committed.as_ref().unwrap_or(view);
    let found = Namespace::existing(view, namespace)?;
    let absent = || missing(name_of(found.as_ref()), key);
    let namespace = found.as_ref().ok_or_else(absent)?;
    let record_key = namespace.value_key(key);
    let record = match as_of {
        Some(revision) => as_of_revision(view, namespace, &record_key, revision)?,
        None => view.record(&record_key)?,
    };
    let record = record.ok_or_else(absent)?;
    let entry = open(view, key.into(), &record)?;
    if !attributes {
        return Ok(entry);
    }
    let attributes_key = namespace.attributes_key(key);
    let attributes = match as_of {
        Some(revision) => attributes_as_of(view, namespace, &attributes_key, (&record, revision))?,
        None => view.record(&attributes_key)?,
    };
    with_attributes(view, entry, attributes.as_ref())
}

/// The attributes that a value had at a revision. They live no longer than it does, so those of an earlier one under its key
/// are older than it.
fn attributes_as_of(
    view: &View,
    namespace: &Namespace,
    key: &Key,
    (value, revision): (&Record, u64),
) -> Result<Option<Record>> {
    let mut all = view.versions(key)?.into_iter().filter_map(Version::record).collect::<Vec<_>>();
    let may_lack = all.len() >= namespace.history() || revision < namespace.since();
    all.extend(view.record(key)?);
    let of_value = |record: &Record| record.create_revision >= value.create_revision;
    if let Some(at) = all.iter().rposition(|record| of_value(record) && record.mod_revision <= revision) {
        return Ok(Some(all.swap_remove(at)));
    }
    // There were none then, if all that there ever were are kept, or the first of its own are, and it still lives.
    let lives =
        view.record(&namespace.value_key_of(key))?.is_some_and(|now| now.create_revision == value.create_revision);
    let first = all.iter().find(|record| of_value(record));
    match lives {
        true if first.is_none_or(|first| first.version == 1) => Ok(None),
        false if !may_lack => Ok(None),
        _ => Err(too_old(namespace, revision)),
    }
}

fn too_old(namespace: &Namespace, revision: u64) -> Error {
    let kept = match namespace.history() {
        0 => "its namespace keeps no older versions".into(),
        most => format!("its namespace keeps {most} older versions"),
    };
    Error::invalid("as_of_revision", revision.to_string(), format!("is too long ago: {kept}"))
}

/// What a record was at a revision. Errors: `InvalidArgument` for one that is still to come, or if what it was is not kept.
fn as_of_revision(view: &View, namespace: &Namespace, key: &Key, revision: u64) -> Result<Option<Record>> {
    if revision > view.revision() {
        let rule = format!("must be at most {}, the present one", view.revision());
        return Err(Error::invalid("as_of_revision", revision.to_string(), rule));
    }
    let now = view.record(key)?;
    if revision == view.revision() || now.as_ref().is_some_and(|now| now.mod_revision <= revision) {
        return Ok(now);
    }
    let versions = view.versions(key)?;
    match versions.iter().rfind(|version| version.revision() <= revision) {
        Some(Version::Record(record)) => return Ok(Some(record.clone())),
        Some(Version::Deleted { .. }) => return Ok(None),
        None => {}
    }
    // Nothing that old is kept. There was nothing then, if what is kept begins with a creation, and nothing was dropped.
    let records: Vec<Record> = versions.into_iter().filter_map(Version::record).collect();
    let first = records.first().or(now.as_ref());
    let may_lack = records.len() >= namespace.history() || revision < namespace.since();
    if may_lack || first.is_some_and(|first| first.version > 1) {
        return Err(too_old(namespace, revision));
    }
    Ok(None)
}

/// The versions of a value that are kept, newest first, before a revision if one is named; and before which revision to go on,
/// if there are more than fit into an answer. Errors: `InvalidArgument`, `NotFound` if there is none at all.
pub fn history(
    view: &View,
    namespace: &str,
    key: &str,
    before: Option<u64>,
) -> Result<(Vec<kv::Version>, Option<u64>)> {
    check_key(key)?;
    let found = Namespace::existing(view, namespace)?;
    let absent = || missing(name_of(found.as_ref()), key);
    let namespace = found.as_ref().ok_or_else(absent)?;
    let record_key = namespace.value_key(key);
    let now = view.record(&record_key)?.map(Version::Record);
    let all: Vec<Version> = now.into_iter().chain(view.versions(&record_key)?.into_iter().rev()).collect();
    if all.is_empty() {
        return Err(absent());
    }
    let (mut shown, mut bytes, mut last) = (Vec::new(), 0, None);
    for version in all.into_iter().filter(|version| before.is_none_or(|before| version.revision() < before)) {
        if bytes >= limits::PAGE_BYTES {
            return Ok((shown, last));
        }
        last = Some(version.revision());
        shown.push(match version {
            Version::Record(record) => {
                bytes += record.value.len();
                kv::Version::Value(open(view, key.into(), &record)?)
            }
            Version::Deleted { revision, at_ms } => kv::Version::Deleted { revision, at_ms },
        });
    }
    Ok((shown, None))
}

/// What is known of a value, with the caller's attributes. Errors: `InvalidArgument`, `NotFound`.
pub fn metadata(view: &View, namespace: &str, key: &str) -> Result<Metadata> {
    get(view, namespace, key, (true, None)).map(|entry| entry.metadata)
}

/// Whether there is a value. Errors: `InvalidArgument`; `NotFound` for the namespace.
pub fn has(view: &View, namespace: &str, key: &str) -> Result<bool> {
    check_key(key)?;
    let Some(namespace) = Namespace::existing(view, namespace)? else { return Ok(false) };
    Ok(view.record(&namespace.value_key(key))?.is_some())
}

/// Values, and the keys that have none. Errors: `InvalidArgument`, also if the values are too large for one answer;
/// `NotFound` for the namespace.
pub fn get_many(
    view: &View,
    namespace: &str,
    keys: Vec<String>,
    attributes: bool,
) -> Result<(Vec<Entry>, Vec<String>)> {
    check::check_count("keys", keys.len(), limits::KEYS)?;
    for key in &keys {
        check_key(key)?;
    }
    let Some(found) = Namespace::existing(view, namespace)? else { return Ok((vec![], keys)) };
    let (mut entries, mut absent, mut bytes) = (Vec::new(), Vec::new(), 0);
    for key in keys {
        let Some(record) = view.record(&found.value_key(&key))? else {
            absent.push(key);
            continue;
        };
        let mut entry = open(view, key, &record)?;
        if attributes {
            let record = view.record(&found.attributes_key(&entry.key))?;
            entry = with_attributes(view, entry, record.as_ref())?;
        }
        bytes += entry.key.len() + entry.value.len() + entry.metadata.attributes.as_ref().map_or(0, String::len);
        if bytes > limits::TRANSACTION_BYTES - limits::PAGE_BYTES {
            return Err(Error::invalid("keys", "", "their values are too large for one answer; ask for fewer"));
        }
        entries.push(entry);
    }
    Ok((entries, absent))
}

/// The scope of a namespace's values, if it has one yet. Errors: `InvalidArgument`, `NotFound`.
pub fn values_of(view: &View, namespace: &str) -> Result<Option<ScopeId>> {
    Ok(Namespace::existing(view, namespace)?.map(|namespace| namespace.values()))
}

/// Counts the values of a scope by reading them.
pub fn count(view: &View, scope: ScopeId) -> Result<u64> {
    const CHUNK: usize = 64;
    let (mut count, mut start) = (0, Vec::new());
    loop {
        let records = view.records(scope, &start, None, CHUNK)?;
        count += records.len() as u64;
        match records.last() {
            Some((last, _)) if records.len() == CHUNK => start = successor(&last.user_bytes()),
            _ => return Ok(count),
        }
    }
}

/// A page of the keys of a namespace that match a pattern, in their order.
#[derive(Debug)]
pub struct List {
    namespace: String,
    glob: Glob,
    walk: Walk,
    offset: u64,
    /// Whether no key is wanted at all.
    none: bool,
}

/// Errors: `InvalidArgument`.
pub fn list(namespace: &str, filter: &KeyFilter) -> Result<List> {
    let KeyFilter { pattern, limit, offset, cursor } = filter;
    let (namespace, glob) = (check_name(namespace)?.to_owned(), Glob::parse(pattern)?);
    if *offset > 0 && !cursor.is_empty() {
        return Err(Error::invalid(
            "offset",
            offset.to_string(),
            "must be 0 with a cursor: the first page left them out",
        ));
    }
    let prefix = glob.prefix().to_owned();
    let range = Range { end: prefix_end(prefix.as_bytes()), start: prefix.into() };
    let page = PageRequest { limit: limit.unwrap_or_default(), cursor: cursor.clone() };
    let walk = Walk::open(keyspace::VALUES, &(&namespace, pattern), range, &page)?;
    Ok(List { namespace, glob, walk, offset: *offset, none: *limit == Some(0) })
}

impl List {
    /// The revision at which it must be read: the one of the pages before.
    pub fn revision(&self) -> Option<u64> {
        self.walk.revision()
    }

    /// The page. Errors: `NotFound` for the namespace; `InvalidArgument` for a cursor that is not of this store.
    pub fn read(&self, view: &View) -> Result<Page<String>> {
        let empty = Page { items: vec![], next_cursor: String::new(), revision: view.revision() };
        let Some(namespace) = Namespace::existing(view, &self.namespace)? else { return Ok(empty) };
        if self.none {
            return Ok(empty);
        }
        let fetch = |start: &[u8], end: Option<&[u8]>, limit| {
            let records = view.records(namespace.values(), start, end, limit)?;
            Ok(records.into_iter().map(|(key, _)| (key.user_bytes(), key)).collect())
        };
        let mut left_out = self.offset;
        self.walk.read_some(view, fetch, |_, key| {
            let key = String::from_utf8_lossy(&key.user_bytes()).into_owned();
            if !self.glob.matches(&key) {
                return Ok(None);
            }
            if left_out > 0 {
                left_out -= 1;
                return Ok(None);
            }
            let size = key.len();
            Ok(Some((key, size)))
        })
    }
}
