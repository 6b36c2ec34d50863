//! What a watch has shown, as far as it must be known to tell a difference: of each record its key and the revision of its last
//! write.
//!
//! It is bounded. Beyond the bound all is let go: then what was deleted while nobody watched can no longer be told. What was
//! written can, without it: every record says when it was written last.

use std::collections::BTreeMap;

use crate::model::watch::{Change, Changed, NamespaceEvent, Target};

/// What a key takes beside its bytes.
const AROUND: usize = 64;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Shown {
    /// `None`: it was too much.
    keys: Option<BTreeMap<Box<str>, u64>>,
    bytes: usize,
    most: usize,
}

/// A difference that is being made: content on one side, what was shown on the other, both in order of keys.
#[derive(Debug, Default)]
pub(super) struct Merge {
    /// What was written later is to be shown.
    since: u64,
    /// The last key of the content so far.
    last: Option<Box<str>>,
}

impl Merge {
    pub(super) fn since(since: u64) -> Self {
        Self { since, last: None }
    }

    /// The content is read anew. Whether some of it was.
    pub(super) fn begin_again(&mut self) -> bool {
        self.last.take().is_some()
    }
}

impl Shown {
    pub(super) fn new(most: usize) -> Self {
        Self { keys: Some(BTreeMap::new()), bytes: 0, most }
    }

    /// Whether all that was shown is known.
    pub(super) fn is_whole(&self) -> bool {
        self.keys.is_some()
    }

    /// Takes note of changes that are shown.
    pub(super) fn note(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Namespace(NamespaceEvent::Cleared | NamespaceEvent::Deleted) = change {
                (self.keys, self.bytes) = (Some(BTreeMap::new()), 0);
            }
            match (change.key(), change.mod_revision()) {
                (Some(key), Some(revision)) => self.insert(key, revision),
                (Some(key), None) => self.remove(key),
                (None, _) => {}
            }
        }
    }

    fn insert(&mut self, key: &str, revision: u64) {
        let Some(keys) = &mut self.keys else { return };
        if let Some(known) = keys.get_mut(key) {
            *known = revision;
            return;
        }
        keys.insert(key.into(), revision);
        self.bytes += key.len() + AROUND;
        if self.bytes > self.most {
            (self.keys, self.bytes) = (None, 0);
        }
    }

    fn remove(&mut self, key: &str) {
        if self.keys.as_mut().is_some_and(|keys| keys.remove(key).is_some()) {
            self.bytes -= key.len() + AROUND;
        }
    }

    /// Of a part of what there is now: what differs from what was shown, and what was shown before its end and is gone. Takes
    /// note of it. `whole`: the content ends with this part.
    pub(super) fn difference(
        &mut self,
        merge: &mut Merge,
        target: &Target,
        (records, whole): (Vec<Change>, bool),
    ) -> Vec<Change> {
        let mut told = Vec::new();
        for record in records {
            let (Some(key), Some(revision)) = (record.key().map(Box::<str>::from), record.mod_revision()) else {
                continue;
            };
            told.extend(self.gone(merge, Some(&key)).into_iter().map(|key| deletion(target, key)));
            let known = self.keys.as_ref().and_then(|keys| keys.get(&key).copied());
            if revision > merge.since && known != Some(revision) {
                told.push(record);
            }
            merge.last = Some(key);
        }
        if whole {
            told.extend(self.gone(merge, None).into_iter().map(|key| deletion(target, key)));
        }
        self.note(&told);
        told
    }

    /// What was shown behind the last key of the content and before the next, which is the first behind it.
    fn gone(&self, merge: &Merge, next: Option<&str>) -> Vec<String> {
        use std::ops::Bound::{Excluded, Unbounded};
        let Some(keys) = &self.keys else { return Vec::new() };
        let from = merge.last.as_deref().map_or(Unbounded, Excluded);
        let until = next.map_or(Unbounded, Excluded);
        if merge.last.as_deref().zip(next).is_some_and(|(last, next)| last >= next) {
            return Vec::new();
        }
        keys.range::<str, _>((from, until)).map(|(key, _)| key.to_string()).collect()
    }
}

/// That the record of a key is gone; what it was is not known any more.
fn deletion(target: &Target, key: String) -> Change {
    fn gone<T>(key: String) -> Changed<T> {
        Changed { key, now: None, before: None }
    }
    match target {
        Target::Messages(_) => Change::Message(gone(key)),
        Target::State(_) => Change::State(gone(key)),
        Target::NodeStates(_) => Change::NodeState(gone(key)),
        Target::Routes(_) => Change::Route(gone(key)),
        Target::Config(_) => Change::Config(gone(key)),
        // The history of the topology has no keys, and nothing of it goes.
        Target::Values { .. } | Target::Topology => Change::Value { key, now: None, before: None },
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::model::mesh::Stored;

    /// A record of the configuration that was written at a revision.
    pub(in super::super) fn record(key: &str, revision: u64) -> Change {
        let stored = Stored {
            value: "1".to_owned(),
            created_at_ms: 0,
            updated_at_ms: 0,
            create_revision: revision,
            mod_revision: revision,
            version: 1,
        };
        Change::Config(Changed { key: key.into(), now: Some(stored), before: None })
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::record, *};
    use crate::model::watch::Keys;

    const TARGET: Target = Target::Config(Keys::All);

    fn told(changes: &[Change]) -> Vec<(&str, Option<u64>)> {
        changes.iter().map(|change| (change.key().unwrap(), change.mod_revision())).collect()
    }

    #[test]
    fn a_difference_is_what_was_written_and_what_is_gone() {
        let mut shown = Shown::new(1 << 20);
        shown.note(&[record("a", 1), record("c", 2), record("d", 3), record("e", 4), record("z", 5)]);
        shown.note(&[deletion(&TARGET, "e".into())]);
        let mut merge = Merge::since(5);
        let part = vec![record("b", 6), record("c", 2)];
        let first = shown.difference(&mut merge, &TARGET, (part, false));
        assert_eq!(told(&first), [("a", None), ("b", Some(6))]);
        let last = shown.difference(&mut merge, &TARGET, (vec![record("d", 7), record("f", 4)], true));
        assert_eq!(told(&last), [("d", Some(7)), ("z", None)]);
        // The same once more: what was told of it is not told again.
        let whole = || vec![record("b", 6), record("c", 2), record("d", 7), record("f", 4)];
        let again = shown.difference(&mut Merge::since(5), &TARGET, (whole(), true));
        assert_eq!(told(&again), []);
        // f was there before anybody watched, and was never shown: that it goes is nothing to be told.
        let gone = shown.difference(&mut Merge::since(5), &TARGET, (vec![record("b", 6)], true));
        assert_eq!(told(&gone), [("c", None), ("d", None)]);
    }

    #[test]
    fn content_is_the_difference_to_nothing() {
        let mut shown = Shown::new(1 << 20);
        let records = vec![record("a", 1), record("b", 2)];
        assert_eq!(shown.difference(&mut Merge::default(), &TARGET, (records.clone(), true)), records);
    }

    #[test]
    fn beyond_its_bound_it_knows_what_was_written_and_not_what_is_gone() {
        let mut shown = Shown::new(3 * (AROUND + 1));
        shown.note(&[record("a", 1), record("b", 2), record("c", 3)]);
        shown.note(&[deletion(&TARGET, "a".into()), record("d", 4)]);
        assert!(shown.is_whole());
        shown.note(&[record("e", 5)]);
        assert!(!shown.is_whole());
        let difference = shown.difference(&mut Merge::since(5), &TARGET, (vec![record("b", 2), record("f", 6)], true));
        assert_eq!(told(&difference), [("f", Some(6))]);
        shown.note(&[Change::Namespace(NamespaceEvent::Cleared)]);
        assert!(shown.is_whole());
    }
}
