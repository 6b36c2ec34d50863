//! Which term each entry is of: one pair wherever the term changes.

use std::collections::VecDeque;

use crate::model::Position;

/// The terms of entries that follow each other.
#[derive(Default)]
pub(super) struct Terms {
    /// (index of the first entry, term).
    runs: VecDeque<(u64, u64)>,
}

impl Terms {
    /// The index of the first entry.
    pub(super) fn first(&self) -> Option<u64> {
        self.runs.front().map(|(index, _)| *index)
    }

    /// The term of the entry with this index, which must be there.
    pub(super) fn at(&self, index: u64) -> Option<u64> {
        self.runs.iter().rev().find(|(first, _)| *first <= index).map(|(_, term)| *term)
    }

    /// Adds an entry.
    pub(super) fn push(&mut self, entry: Position) {
        if self.runs.back().is_none_or(|(_, term)| *term != entry.term) {
            self.runs.push_back((entry.index, entry.term));
        }
    }

    /// Forgets the entries behind `last`; `None`: all.
    pub(super) fn truncate(&mut self, last: Option<u64>) {
        while self.runs.back().is_some_and(|(index, _)| Some(*index) > last) {
            self.runs.pop_back();
        }
    }

    /// Forgets the entries up to `upto`; `last` is the last of all.
    pub(super) fn purge(&mut self, upto: u64, last: Option<u64>) {
        let next = upto.saturating_add(1);
        let mut term = None;
        while let Some((_, of)) = self.runs.pop_front_if(|(index, _)| *index <= upto) {
            term = Some(of);
        }
        if let Some(term) = term.filter(|_| last >= Some(next) && self.first() != Some(next)) {
            self.runs.push_front((next, term));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(of: &[(u64, u64)]) -> Terms {
        let mut terms = Terms::default();
        of.iter().for_each(|(term, index)| terms.push(Position { term: *term, index: *index }));
        terms
    }

    #[test]
    fn terms_are_found_and_forgotten_from_both_ends() {
        let mut terms = terms(&[(1, 0), (1, 1), (1, 2), (3, 3), (3, 4), (7, 5)]);
        assert_eq!([0, 2, 3, 4, 5].map(|index| terms.at(index)), [1, 1, 3, 3, 7].map(Some));
        terms.purge(1, Some(5));
        assert_eq!((terms.first(), terms.at(1), terms.at(2)), (Some(2), None, Some(1)));
        terms.purge(2, Some(5));
        assert_eq!((terms.first(), terms.at(3)), (Some(3), Some(3)));
        terms.truncate(Some(3));
        assert_eq!((terms.at(3), terms.runs.len()), (Some(3), 1));
        terms.purge(3, Some(3));
        assert_eq!(terms.first(), None);
    }
}
