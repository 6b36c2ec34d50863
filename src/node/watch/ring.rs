//! The changes of a while, newest last, within a bound of bytes.
//!
//! A [`Group`] is what one log entry changed of what can be watched. Groups go oldest first. What is gone is remembered by
//! scope: a watcher of a namespace in which nothing happens is covered for as long as nothing of *that* namespace has gone,
//! however much others write. The newest group always stays, so that a change which is larger than the ring reaches those who
//! keep up.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    model::{
        Record, ScopeId,
        keyspace::{
            ATTRIBUTES, Keyspace, MESSAGES, NAMESPACES, NODE_STATE, ROUTING_TABLE, RUNTIME_CONFIG, STATE,
            TOPOLOGY_CHANGES, VALUES,
        },
    },
    state::{Change, Commit},
};

/// Of whose records changes are kept.
const KEPT: [Keyspace; 9] =
    [MESSAGES, STATE, NODE_STATE, ROUTING_TABLE, RUNTIME_CONFIG, TOPOLOGY_CHANGES, NAMESPACES, VALUES, ATTRIBUTES];
/// What a change takes in memory beside the bytes of its key and values.
const CHANGE_BYTES: usize = 512;
/// What a group takes.
const GROUP_BYTES: usize = 256;
/// Of most so many scopes it is remembered what is gone.
const SCOPES: usize = 1 << 16;
/// Most groups that one look goes through: it holds up whoever applies.
const LOOK: usize = 1_024;

/// What one log entry changed of what can be watched.
#[derive(Debug)]
pub struct Group {
    commits: Vec<Commit>,
    /// In order.
    scopes: Vec<ScopeId>,
    bytes: usize,
}

impl Group {
    /// What is kept of these commits; `None`: nothing.
    pub(super) fn of(mut commits: Vec<Commit>) -> Option<Self> {
        let (mut scopes, mut bytes) = (BTreeSet::new(), GROUP_BYTES);
        commits.retain_mut(|commit| {
            commit.changes.retain_mut(|change| {
                let (scope, size) = match change {
                    Change::Record { key, old, new } => {
                        (key.scope(), key.as_bytes().len() + lighten(old) + lighten(new))
                    }
                    Change::ScopeDropped { scope } => (*scope, 0),
                };
                let kept = KEPT.contains(&scope.keyspace);
                if kept {
                    scopes.insert(scope);
                    bytes += size + CHANGE_BYTES;
                }
                kept
            });
            !commit.changes.is_empty()
        });
        (!commits.is_empty()).then(|| Self { commits, scopes: scopes.into_iter().collect(), bytes })
    }

    /// The scopes that it touches.
    pub(super) fn scopes(&self) -> &[ScopeId] {
        &self.scopes
    }

    /// Its commits, in order of revision.
    pub fn commits(&self) -> &[Commit] {
        &self.commits
    }

    fn last(&self) -> u64 {
        self.commits.last().map_or(0, |commit| commit.revision)
    }

    fn touches(&self, scopes: &[ScopeId]) -> bool {
        scopes.iter().any(|scope| self.scopes.binary_search(scope).is_ok())
    }
}

/// Takes from a record what nobody is shown of it; the bytes of the rest.
fn lighten(record: &mut Option<Record>) -> usize {
    let Some(record) = record else { return 0 };
    (record.entries, record.references) = (Vec::new(), Vec::new());
    record.value.len()
}

/// What lies behind a revision.
#[derive(Debug)]
pub struct Look {
    /// The next group in which something is of interest.
    pub group: Option<Arc<Group>>,
    /// Nothing before that group, and nothing up to this revision if there is none, is of interest.
    pub until: u64,
    /// Whether nothing newer is known.
    pub newest: bool,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Ring {
    groups: VecDeque<Arc<Group>>,
    bytes: usize,
    most: usize,
    /// What changed after this revision was told.
    began: u64,
    /// The revision of the state.
    newest: u64,
    /// The newest revision that is gone.
    gone: u64,
    /// The same of each scope.
    gone_of: BTreeMap<ScopeId, u64>,
}

impl Ring {
    pub(super) fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// Takes in what led to `revision`, if something of it is kept.
    pub(super) fn push(&mut self, revision: u64, group: Option<Group>) {
        self.newest = revision;
        let Some(group) = group else { return };
        self.bytes += group.bytes;
        self.groups.push_back(Arc::new(group));
        while self.bytes > self.most && self.groups.len() > 1 {
            let Some(oldest) = self.groups.pop_front() else { break };
            self.bytes -= oldest.bytes;
            self.gone = oldest.last();
            self.gone_of.extend(oldest.scopes.iter().map(|scope| (*scope, oldest.last())));
        }
        if self.gone_of.len() > SCOPES {
            self.began = self.gone;
            self.gone_of.clear();
        }
    }

    /// Forgets all: the state is at `revision`, and what led there was not told.
    pub(super) fn forget(&mut self, revision: u64) {
        *self = Self { began: revision, newest: revision, gone: revision, ..Self::new(self.most) };
    }

    /// The oldest revision behind which all changes of these scopes are known.
    pub(super) fn oldest(&self, scopes: &[ScopeId]) -> u64 {
        let gone = scopes.iter().filter_map(|scope| self.gone_of.get(scope).copied());
        gone.fold(self.began, u64::max)
    }

    /// The oldest revision behind which all changes are known.
    pub(super) fn oldest_of_all(&self) -> u64 {
        self.began.max(self.gone)
    }

    /// The next group behind a revision that touches these scopes; `None` if the changes are not all known.
    pub(super) fn look(&self, after: u64, scopes: &[ScopeId]) -> Option<Look> {
        if after < self.oldest(scopes) {
            return None;
        }
        let first = self.groups.partition_point(|group| group.last() <= after);
        let mut until = after;
        for group in self.groups.iter().skip(first).take(LOOK) {
            if group.touches(scopes) {
                return Some(Look { group: Some(Arc::clone(group)), until, newest: false });
            }
            until = group.last();
        }
        let newest = first + LOOK >= self.groups.len();
        Some(Look { group: None, until: if newest { after.max(self.newest) } else { until }, newest })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Takes in commits: the scopes that are touched.
    fn push(ring: &mut Ring, revision: u64, commits: Vec<Commit>) -> Vec<ScopeId> {
        let group = Group::of(commits);
        let touched = group.as_ref().map(|group| group.scopes.clone()).unwrap_or_default();
        ring.push(revision, group);
        touched
    }

    const STATES: ScopeId = ScopeId::new(STATE, 0);
    const ROUTES: ScopeId = ScopeId::new(ROUTING_TABLE, 0);

    fn record(revision: u64, bytes: usize) -> Record {
        Record {
            value: Bytes::from(vec![b'v'; bytes]),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            created_at_ms: 0,
            updated_at_ms: 0,
            expires_at_ms: None,
            entries: vec![crate::model::Entry { scope: 1, key: "e".into(), payload: Bytes::new(), unique: false }],
            references: vec![],
        }
    }

    fn commit(revision: u64, scope: ScopeId, bytes: usize) -> Commit {
        let (key, new) = (scope.key(b"k"), Some(record(revision, bytes)));
        Commit { revision, changes: vec![Change::Record { key, old: None, new }] }
    }

    fn revisions(ring: &Ring, mut after: u64, scopes: &[ScopeId]) -> Vec<u64> {
        let mut found = Vec::new();
        loop {
            let look = ring.look(after, scopes).expect("covered");
            match look.group {
                Some(group) => {
                    found.extend(group.commits().iter().map(|commit| commit.revision).filter(|it| *it > after));
                    after = group.last();
                }
                None if look.newest => return found,
                None => after = look.until,
            }
        }
    }

    #[test]
    fn what_touches_a_scope_is_found_behind_a_revision() {
        let mut ring = Ring::new(1 << 20);
        ring.forget(10);
        assert_eq!(push(&mut ring, 12, vec![commit(11, STATES, 1), commit(12, ROUTES, 1)]), [STATES, ROUTES]);
        assert_eq!(push(&mut ring, 13, vec![]), []);
        push(&mut ring, 15, vec![commit(15, ROUTES, 1)]);
        assert_eq!(revisions(&ring, 10, &[STATES]), [11, 12]);
        assert_eq!(revisions(&ring, 11, &[STATES]), [12]);
        assert_eq!(revisions(&ring, 12, &[ROUTES, STATES]), [15]);
        assert_eq!(revisions(&ring, 12, &[STATES]), [0; 0]);
        assert_eq!(ring.look(15, &[STATES]).unwrap().until, 15);
        assert_eq!(ring.look(12, &[STATES]).unwrap().until, 15);
        assert!(ring.look(9, &[STATES]).is_none());
    }

    #[test]
    fn the_oldest_go_and_only_who_needs_them_is_not_covered() {
        let mut ring = Ring::new(4_000);
        push(&mut ring, 1, vec![commit(1, ROUTES, 1)]);
        for revision in 2..=40 {
            push(&mut ring, revision, vec![commit(revision, STATES, 1_000)]);
            assert!(ring.bytes() <= 4_000, "{}", ring.bytes());
        }
        let kept = revisions(&ring, ring.oldest(&[STATES]), &[STATES]);
        assert_eq!(kept, ((41 - kept.len() as u64)..=40).collect::<Vec<_>>());
        assert_eq!(ring.oldest(&[STATES]), kept[0] - 1);
        assert_eq!((ring.oldest(&[ROUTES]), ring.oldest_of_all()), (1, kept[0] - 1));
        assert!(ring.look(kept[0] - 2, &[STATES]).is_none());
        assert!(ring.look(0, &[ROUTES]).is_none());
        assert_eq!(revisions(&ring, 1, &[ROUTES]), [0; 0]);
        assert_eq!(ring.look(1, &[ROUTES]).unwrap().until, 40);
        ring.forget(50);
        assert_eq!((ring.bytes(), ring.oldest(&[ROUTES])), (0, 50));
        assert!(ring.look(49, &[ROUTES]).is_none());
        assert!(ring.look(50, &[ROUTES]).unwrap().newest);
    }

    #[test]
    fn a_change_that_is_larger_than_the_ring_is_kept_until_the_next() {
        let mut ring = Ring::new(1_000);
        push(&mut ring, 1, vec![commit(1, STATES, 100)]);
        push(&mut ring, 2, vec![commit(2, STATES, 5_000)]);
        assert_eq!(revisions(&ring, 1, &[STATES]), [2]);
        assert!(ring.bytes() > 5_000);
        push(&mut ring, 3, vec![commit(3, STATES, 1)]);
        assert!(ring.bytes() < 1_000);
        assert!(ring.look(1, &[STATES]).is_none());
        assert_eq!(revisions(&ring, 2, &[STATES]), [3]);
    }

    #[test]
    fn what_nobody_can_watch_is_not_kept() {
        let mut ring = Ring::new(1 << 20);
        let chunks = ScopeId::new(crate::model::keyspace::MESSAGE_CHUNKS, 0);
        assert_eq!(push(&mut ring, 1, vec![commit(1, chunks, 1 << 20)]), []);
        assert_eq!(ring.bytes(), 0);
        let dropped = Change::ScopeDropped { scope: ScopeId::new(VALUES, 1_024) };
        let both = Commit { revision: 2, changes: vec![commit(2, chunks, 9).changes.remove(0), dropped.clone()] };
        push(&mut ring, 2, vec![both]);
        let group = ring.look(0, &[ScopeId::new(VALUES, 1_024)]).unwrap().group.unwrap();
        assert_eq!(group.commits(), [Commit { revision: 2, changes: vec![dropped] }]);
        push(&mut ring, 3, vec![commit(3, STATES, 9)]);
        let group = ring.look(2, &[STATES]).unwrap().group.unwrap();
        let Change::Record { new: Some(record), .. } = &group.commits()[0].changes[0] else { panic!("{group:?}") };
        assert!(record.entries.is_empty());
    }

    #[test]
    fn a_look_goes_through_so_many_groups_and_says_how_far_it_came() {
        let mut ring = Ring::new(64 << 20);
        for revision in 1..=3_000 {
            push(&mut ring, revision, vec![commit(revision, STATES, 1)]);
        }
        let look = ring.look(0, &[ROUTES]).unwrap();
        assert!(look.group.is_none() && !look.newest);
        assert_eq!(look.until, LOOK as u64);
        assert_eq!(revisions(&ring, 0, &[ROUTES]), [0; 0]);
        push(&mut ring, 3_001, vec![commit(3_001, ROUTES, 1)]);
        assert_eq!(revisions(&ring, 0, &[ROUTES]), [3_001]);
    }
}
