//! What a watcher is told of what transactions change: a lens through which commits are looked at.
//!
//! A [`Lens`] makes domain changes of a commit, in the order of its records, and parts of what there is at one revision. It knows
//! where what it shows stands at the revision to which it has come: that of a namespace may change under its name.

use bytes::Bytes;

use super::{
    documents::watch as documents,
    kv::watch::Values,
    list::successor,
    mesh::watch::{self as mesh, Watched},
    topology::history,
};
use crate::{
    Error, Result, limits,
    model::{
        Key, Principal, Record, ScopeId,
        key::prefix_end,
        watch::{Change, Keys, Target},
    },
    state::{self, Commit, View},
};

/// Records that are read at once.
const CHUNK: usize = 32;
/// Records that are looked at for one part.
const PART: usize = limits::PAGE_MAX;

/// Which keys are shown.
#[derive(Clone, Debug)]
pub(super) struct Filter(Keys);

impl Filter {
    /// Whether a key is.
    pub(super) fn selects(&self, key: &[u8]) -> bool {
        match &self.0 {
            Keys::All => true,
            Keys::One(one) => key == one.as_bytes(),
            Keys::Prefix(prefix) => key.starts_with(prefix.as_bytes()),
        }
    }

    fn range(&self) -> (Vec<u8>, Option<Bytes>) {
        match &self.0 {
            Keys::All => (vec![], None),
            Keys::One(key) => (key.as_bytes().to_vec(), Some(successor(key.as_bytes()).into())),
            Keys::Prefix(prefix) => (prefix.as_bytes().to_vec(), prefix_end(prefix.as_bytes())),
        }
    }

    /// A part of the records of a scope, from a position on; `open` makes a change of each, if it is
    /// wanted.
    pub(super) fn part(
        &self,
        view: &View,
        scope: ScopeId,
        from: &[u8],
        open: impl Fn(Key, Record) -> Result<Option<Change>>,
    ) -> Result<Part> {
        let (start, end) = self.range();
        let (mut start, mut part) = (start.max(from.to_vec()), Part::default());
        let (mut bytes, mut looked_at) = (0, 0);
        loop {
            let records = view.records(scope, &start, end.as_deref(), CHUNK)?;
            let ended = records.len() < CHUNK;
            for (key, record) in records {
                start = successor(&key.user_bytes());
                if let Some(change) = open(key, record)? {
                    bytes += change.bytes();
                    part.changes.push(change);
                }
                looked_at += 1;
                if bytes >= limits::PAGE_BYTES || looked_at >= PART {
                    part.next = Some(start);
                    return Ok(part);
                }
            }
            if ended {
                return Ok(part);
            }
        }
    }
}

/// A part of what there is.
#[derive(Debug, Default)]
pub struct Part {
    /// The records, as changes.
    pub changes: Vec<Change>,
    /// Where the next part begins; `None`: this was the last.
    pub next: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Source {
    Values(Box<Values>),
    Documents(Box<documents::Watched>),
    Table(Watched),
    History,
}

/// See the module's text.
#[derive(Debug)]
pub struct Lens {
    source: Source,
    filter: Filter,
    previous: bool,
    moved: bool,
}

impl Lens {
    /// A lens on this for somebody, which tells what was there before if `previous`. Errors: `InvalidArgument`;
    /// `PermissionDenied` for a service that names another.
    pub fn open(principal: &Principal, target: Target, previous: bool) -> Result<Self> {
        let table = |watched: Watched, keys: Keys| {
            watched.check(&keys)?;
            Ok::<_, Error>((Source::Table(watched), keys))
        };
        let (source, keys) = match target {
            Target::Values { namespace, keys, attributes } => {
                check_prefix(&keys)?;
                (Source::Values(Box::new(Values::open(&namespace, &keys, attributes)?)), keys)
            }
            Target::Messages(keys) => table(mesh::MESSAGES, keys)?,
            Target::State(keys) => table(mesh::STATE, keys)?,
            Target::NodeStates(keys) => table(mesh::NODE_STATES, keys)?,
            Target::Routes(keys) => table(mesh::ROUTES, keys)?,
            Target::Config(keys) => table(mesh::CONFIG, keys)?,
            Target::Topology => (Source::History, Keys::All),
            Target::Documents { service, collection, filter } => {
                let watched = documents::Watched::open(principal, &service, (&collection, &filter))?;
                (Source::Documents(Box::new(watched)), Keys::All)
            }
        };
        Ok(Self { source, filter: Filter(keys), previous, moved: false })
    }

    /// Whether this is a history, of which every change is kept.
    pub fn is_history(&self) -> bool {
        matches!(self.source, Source::History)
    }

    /// In which scopes it looks now.
    pub fn scopes(&self) -> Vec<ScopeId> {
        match &self.source {
            Source::Values(values) => values.scopes(),
            Source::Documents(documents) => documents.scopes(),
            Source::Table(table) => vec![table.scope()],
            Source::History => vec![history::scope()],
        }
    }

    /// The scope whose records say where it is to look, if that may change.
    pub fn home(&self) -> Option<ScopeId> {
        match &self.source {
            Source::Values(values) => Some(values.home()),
            Source::Documents(documents) => Some(documents.home()),
            Source::Table(_) | Source::History => None,
        }
    }

    /// That whoever watches may still read what is told, by the newest state there is. Errors: `NotFound`; `PermissionDenied`.
    pub fn check(&self, newest: impl FnOnce() -> Result<View>) -> Result<()> {
        match &self.source {
            Source::Documents(documents) => documents.check(&newest()?),
            Source::Values(_) | Source::Table(_) | Source::History => Ok(()),
        }
    }

    /// Whether, since this was asked last, something was changed that says where it looks, or whether it may.
    pub fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Stands where a view shows.
    pub fn stand(&mut self, view: &View) -> Result<()> {
        match &mut self.source {
            Source::Values(values) => values.stand(view),
            Source::Documents(documents) => documents.stand(view),
            Source::Table(_) | Source::History => Ok(()),
        }
    }

    /// Stands before a transaction, if that changes where it is to look: whether it does. `view` is told of what is broken.
    pub fn stand_before(&mut self, view: &View, commit: &Commit) -> Result<bool> {
        match &mut self.source {
            Source::Values(values) => values.stand_before(view, commit),
            Source::Documents(documents) => documents.stand_before(view, commit),
            Source::Table(_) | Source::History => Ok(false),
        }
    }

    /// What a transaction changes, from one of its changes on, as much as fits into a message; and from which change to go on, if
    /// there is more. It stands behind what was looked at then. `view` is told of what is broken.
    pub fn changes(&mut self, view: &View, commit: &Commit, from: usize) -> Result<(Vec<Change>, Option<usize>)> {
        let (mut told, mut bytes) = (Vec::new(), 0);
        for (at, change) in commit.changes.iter().enumerate().skip(from) {
            // Dropped scopes need no look: they go with a change of the record of what they were of.
            let state::Change::Record { key, old, new } = change else { continue };
            if !self.selects(key, commit) {
                continue;
            }
            if bytes >= limits::PAGE_BYTES {
                return Ok((told, Some(at)));
            }
            let opened = match &mut self.source {
                Source::Values(values) => {
                    self.moved |= key.scope() == values.home();
                    values.open_change(view, (key, old, new), (commit, self.previous))?
                }
                Source::Documents(documents) => {
                    self.moved |= documents.depends_on(key);
                    documents.open_change(view, (key, old, new), self.previous)?
                }
                Source::Table(table) => {
                    let before = old.as_ref().filter(|_| self.previous).cloned();
                    Some(table.open_change(view, key, [new.clone(), before])?)
                }
                Source::History => {
                    let entry = new.as_ref().map(|record| history::entry(view, key, record)).transpose()?;
                    entry.map(Change::Topology)
                }
            };
            if let Some(change) = opened {
                bytes += change.bytes();
                told.push(change);
            }
        }
        Ok((told, None))
    }

    /// Whether something may be told of a record that a transaction changes.
    fn selects(&self, key: &Key, commit: &Commit) -> bool {
        match &self.source {
            Source::Values(values) => values.selects(key, &self.filter, commit),
            Source::Documents(documents) => documents.selects(key),
            Source::Table(table) => key.scope() == table.scope() && self.filter.selects(&key.user_bytes()),
            Source::History => key.scope() == history::scope(),
        }
    }

    /// A part of what there is, from a position on; the first is empty.
    pub fn part(&self, view: &View, from: &[u8]) -> Result<Part> {
        match &self.source {
            Source::Values(values) => values.part(view, &self.filter, from),
            Source::Documents(documents) => documents.part(view, &self.filter, from),
            Source::Table(table) => table.part(view, &self.filter, from),
            Source::History => Ok(Part::default()),
        }
    }
}

/// An empty prefix is every key, one longer than any key is a mistake.
fn check_prefix(keys: &Keys) -> Result<()> {
    match keys {
        Keys::Prefix(prefix) if !prefix.is_empty() => super::check::check_name("prefix", prefix, limits::KEY_BYTES),
        _ => Ok(()),
    }
}

/// The topology's history behind a revision, transaction by transaction.
#[derive(Debug)]
pub struct Past {
    /// Where the next entry is.
    next: Vec<u8>,
}

impl Past {
    /// Behind this revision.
    pub fn after(revision: u64) -> Self {
        Self { next: history::after(revision) }
    }

    /// The entries of the next transaction, and its revision; `None`: the view shows no more.
    pub fn next(&mut self, view: &View) -> Result<Option<(u64, Vec<Change>)>> {
        let (mut told, mut of) = (Vec::new(), None);
        loop {
            let found = history::behind(view, &self.next)?;
            let none = found.is_empty();
            for (position, entry) in found {
                if of.is_some_and(|of| of != entry.revision) {
                    return Ok(of.map(|of| (of, told)));
                }
                of = Some(entry.revision);
                self.next = successor(&position);
                told.push(Change::Topology(entry));
            }
            if none {
                return Ok(of.map(|of| (of, told)));
            }
        }
    }
}
