//! What a watch has shown, as far as it must be known to tell a difference: of each record its key and the revision of its last
//! write.
//!
//! A watch that did not begin with what there was does not know what its reader has from elsewhere: until it has gone through
//! all that there is, what was deleted while nobody watched cannot be told. What was written can: every record says when it was
//! written last. So it is as well beyond the bound of what is remembered, where all is let go.

use std::collections::BTreeMap;

use crate::model::watch::{Change, Changed, NamespaceEvent, Target};

/// What a key takes beside its bytes.
const AROUND: usize = 64;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Shown {
    /// `None`: it was too much.
    keys: Option<BTreeMap<Box<str>, u64>>,
    /// Whether there is nothing beside these that the reader may have.
    knows_all: bool,
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
    /// Nothing was shown yet. `begins_whole`: what is shown first is all that there is.
    pub(super) fn new(most: usize, begins_whole: bool) -> Self {
        Self { keys: Some(BTreeMap::new()), knows_all: begins_whole, bytes: 0, most }
    }

    /// Whether all is known that the reader may have.
    pub(super) fn is_whole(&self) -> bool {
        self.keys.is_some() && self.knows_all
    }

    /// Takes note of changes that are shown.
    pub(super) fn note(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Namespace(NamespaceEvent::Cleared | NamespaceEvent::Deleted) = change {
                (self.keys, self.bytes, self.knows_all) = (Some(BTreeMap::new()), 0, true);
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
            (self.keys, self.bytes, self.knows_all) = (None, 0, false);
        }
    }

    fn remove(&mut self, key: &str) {
        if self.keys.as_mut().is_some_and(|keys| keys.remove(key).is_some()) {
            self.bytes -= key.len() + AROUND;
        }
    }

    /// Of a part of what there is now: what differs from what was shown, and what was shown before its end and is gone. Takes
    /// note of all of it. `whole`: the content ends with this part.
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
            self.let_go((merge, Some(&key)), target, &mut told);
            let known = self.keys.as_ref().and_then(|keys| keys.get(&key).copied());
            // What is known decides: in another history a record may be an older one.
            if known.map_or(self.knows_all || revision > merge.since, |known| known != revision) {
                told.push(record);
            }
            self.insert(&key, revision);
            merge.last = Some(key);
        }
        if whole {
            self.let_go((merge, None), target, &mut told);
            self.knows_all = self.keys.is_some();
        }
        told
    }

    /// Tells what was shown before the next record of the content and is gone, and forgets it.
    fn let_go(&mut self, (merge, next): (&Merge, Option<&str>), target: &Target, told: &mut Vec<Change>) {
        for key in self.gone(merge, next) {
            self.remove(&key);
            told.push(deletion(target, key));
        }
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
        Target::Documents { .. } => Change::Document { id: key, now: None, before: None },
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
        let mut shown = Shown::new(1 << 20, false);
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
        // f was there before anybody watched; by now all that there is was gone through.
        let gone = shown.difference(&mut Merge::since(5), &TARGET, (vec![record("b", 6)], true));
        assert_eq!(told(&gone), [("c", None), ("d", None), ("f", None)]);
    }

    #[test]
    fn what_is_gone_is_known_only_to_who_knows_all_that_there_was() {
        let content = || (vec![record("a", 1)], true);
        let mut from_now_on = Shown::new(1 << 20, false);
        from_now_on.note(&[record("b", 7)]);
        assert!(!from_now_on.is_whole(), "its reader may have others from a list");
        assert_eq!(told(&from_now_on.difference(&mut Merge::since(7), &TARGET, content())), [("b", None)]);
        assert!(from_now_on.is_whole(), "all was gone through");
        let mut with_content = Shown::new(1 << 20, true);
        with_content.difference(&mut Merge::default(), &TARGET, content());
        assert!(with_content.is_whole());
    }

    #[test]
    fn in_another_history_what_is_known_decides() {
        let mut shown = Shown::new(1 << 20, true);
        shown.difference(&mut Merge::default(), &TARGET, (vec![record("a", 1), record("k", 90)], true));
        shown.note(&[record("k", 100), record("l", 101)]);
        // The nodes that had 100 and 101 are lost.
        let back = shown.difference(&mut Merge::since(101), &TARGET, (vec![record("a", 1), record("k", 90)], true));
        assert_eq!(told(&back), [("k", Some(90)), ("l", None)]);
    }

    #[test]
    fn content_is_the_difference_to_nothing() {
        let mut shown = Shown::new(1 << 20, false);
        let records = vec![record("a", 1), record("b", 2)];
        assert_eq!(shown.difference(&mut Merge::default(), &TARGET, (records.clone(), true)), records);
    }

    #[test]
    fn beyond_its_bound_it_knows_what_was_written_and_not_what_is_gone() {
        let mut shown = Shown::new(3 * (AROUND + 1), true);
        shown.note(&[record("a", 1), record("b", 2), record("c", 3)]);
        shown.note(&[deletion(&TARGET, "a".into()), record("d", 4)]);
        assert!(shown.is_whole());
        shown.note(&[record("e", 5)]);
        assert!(!shown.is_whole());
        let difference = shown.difference(&mut Merge::since(5), &TARGET, (vec![record("b", 2), record("f", 6)], true));
        assert_eq!(told(&difference), [("f", Some(6))]);
        assert!(!shown.is_whole(), "it is let go for good");
        shown.note(&[Change::Namespace(NamespaceEvent::Cleared)]);
        assert!(shown.is_whole());
    }
}
