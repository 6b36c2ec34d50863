//! The changes of a while, newest last, within a bound of bytes.
//!
//! A [`Group`] is what one log entry changed of what can be watched. Groups go oldest first. Of each scope it is remembered what
//! changed it last, and what is gone: a watcher of a namespace in which nothing happens is covered for as long as nothing of
//! *that* namespace has gone, however much others write, also when the ring begins anew from files; and looking costs it
//! nothing. The newest group always stays, so that a change which is larger than the ring reaches those who keep up.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    model::{
        Record, ScopeId,
        keyspace::{
            ATTRIBUTES, COLLECTIONS, DOCUMENTS, GRANTS, Keyspace, MESSAGES, NAMESPACES, NODE_STATE, ROUTING_TABLE,
            RUNTIME_CONFIG, STATE, TOPOLOGY_CHANGES, VALUES,
        },
    },
    state::{Change, Commit},
};

/// Of whose records changes are kept.
const KEPT: [Keyspace; 12] = [
    MESSAGES,
    STATE,
    NODE_STATE,
    ROUTING_TABLE,
    RUNTIME_CONFIG,
    TOPOLOGY_CHANGES,
    NAMESPACES,
    VALUES,
    ATTRIBUTES,
    COLLECTIONS,
    DOCUMENTS,
    GRANTS,
];
/// What a change takes in memory beside the bytes of its key and values.
const CHANGE_BYTES: usize = 512;
/// What a group takes.
const GROUP_BYTES: usize = 256;
/// Most scopes of which it is remembered what changed them.
const SCOPES: usize = 1 << 16;
/// Who is so far behind comes from another history: the revision leaps with each.
const ANOTHER: u64 = 1 << 31;
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
                    if let Change::Record { key, .. } = change {
                        // It is part of the log entry, which is not to stay with it; the values are where the store has them.
                        *key = key.detached();
                    }
                    scopes.insert(scope);
                    bytes += size + CHANGE_BYTES;
                }
                kept
            });
            // Room was made for all that the entry changed.
            commit.changes.shrink_to_fit();
            !commit.changes.is_empty()
        });
        commits.shrink_to_fit();
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
    scopes: BTreeMap<ScopeId, Mark>,
}

/// What is known of a scope.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// The revision of its last change.
    newest: u64,
    /// That of the last change that is gone.
    gone: u64,
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
        for scope in &group.scopes {
            self.scopes.entry(*scope).or_default().newest = group.last();
        }
        self.groups.push_back(Arc::new(group));
        while self.bytes > self.most && self.groups.len() > 1 {
            let Some(oldest) = self.groups.pop_front() else { break };
            self.bytes -= oldest.bytes;
            self.gone = oldest.last();
            for scope in &oldest.scopes {
                self.scopes.entry(*scope).or_default().gone = oldest.last();
            }
        }
        if self.scopes.len() > SCOPES {
            self.began = self.gone;
            self.scopes.retain(|_, mark| mark.newest > self.gone);
        }
    }

    /// Forgets all: the state is at `revision`, and what led there was not told. `changed`: when its scopes were changed last.
    pub(super) fn forget(&mut self, revision: u64, changed: impl Iterator<Item = (ScopeId, u64)>) {
        let kept = changed.filter(|(scope, _)| KEPT.contains(&scope.keyspace));
        let scopes: BTreeMap<_, _> =
            kept.map(|(scope, newest)| (scope, Mark { newest, gone: newest })).take(SCOPES + 1).collect();
        *self = Self { newest: revision, gone: revision, ..Self::new(self.most) };
        if scopes.len() > SCOPES {
            self.began = revision;
        } else {
            self.scopes = scopes;
        }
    }

    /// The oldest revision behind which all changes of these scopes are known.
    pub(super) fn oldest(&self, scopes: &[ScopeId]) -> u64 {
        let gone = scopes.iter().filter_map(|scope| self.scopes.get(scope)).map(|mark| mark.gone);
        gone.fold(self.began, u64::max)
    }

    /// The oldest revision behind which all changes are known.
    pub(super) fn oldest_of_all(&self) -> u64 {
        self.began.max(self.gone)
    }

    /// The next group behind a revision that touches these scopes; `None` if the changes are not all known.
    pub(super) fn look(&self, after: u64, scopes: &[ScopeId]) -> Option<Look> {
        if after < self.oldest(scopes) || self.newest.saturating_sub(after) >= ANOTHER {
            return None;
        }
        let changed = |scope: &ScopeId| self.scopes.get(scope).is_some_and(|mark| mark.newest > after);
        if !scopes.iter().any(changed) && self.began <= after {
            return Some(Look { group: None, until: after.max(self.newest), newest: true });
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
        ring.forget(10, std::iter::empty());
        ring.began = 10;
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
        ring.forget(50, [(ROUTES, 1), (STATES, 40)].into_iter());
        assert_eq!((ring.bytes(), ring.oldest(&[ROUTES]), ring.oldest(&[STATES])), (0, 1, 40));
        assert!(ring.look(0, &[ROUTES]).is_none() && ring.look(39, &[STATES]).is_none());
        for (after, scope) in [(1, ROUTES), (40, STATES), (41, STATES)] {
            let look = ring.look(after, &[scope]).expect("nothing of it has changed since");
            assert!(look.newest && look.group.is_none() && look.until == 50);
        }
        ring.forget(50 + ANOTHER, [(STATES, 40)].into_iter());
        assert!(ring.look(45, &[STATES]).is_none(), "of another history nothing is known");
        assert!(ring.look(50 + ANOTHER, &[STATES]).is_some());
    }

    #[test]
    fn of_too_many_scopes_it_is_remembered_together() {
        let values = |n: usize| ScopeId::new(VALUES, 1_024 + u32::try_from(n).unwrap());
        let mut ring = Ring::new(4_000);
        for n in 0..SCOPES {
            let revision = n as u64 + 1;
            push(&mut ring, revision, vec![commit(revision, values(n), 1)]);
        }
        assert_eq!(ring.oldest(&[values(0)]), 1);
        assert_eq!(ring.look(1, &[values(0)]).unwrap().until, SCOPES as u64);
        push(&mut ring, SCOPES as u64 + 1, vec![commit(SCOPES as u64 + 1, values(SCOPES), 1)]);
        assert!(ring.look(1, &[values(0)]).is_none());
        assert_eq!(revisions(&ring, SCOPES as u64, &[values(SCOPES)]), [SCOPES as u64 + 1]);
        ring.forget(90_000, (0..=SCOPES).map(|n| (values(n), 5)));
        assert_eq!(ring.oldest(&[values(0)]), 90_000);
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
        assert!(look.group.is_none() && look.newest && look.until == 3_000, "nothing of it has changed");
        push(&mut ring, 3_001, vec![commit(3_001, ROUTES, 1)]);
        let look = ring.look(0, &[ROUTES]).unwrap();
        assert!(look.group.is_none() && !look.newest);
        assert_eq!(look.until, LOOK as u64);
        assert_eq!(revisions(&ring, 0, &[ROUTES]), [3_001]);
    }
}
