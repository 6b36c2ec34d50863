//! Joins sorted sources into one: the newest source that holds a key decides what it is.

use super::engine::Pair;
use crate::error::Fault;

/// One sorted stream out of several sorted sources that hold each key once. Deletions are passed on: the
/// caller knows whether something older lies below. After an error it ends.
pub(super) struct Merge<S> {
    /// Newest first, each with its next pair. There are few, so the smallest is found by looking at all.
    sources: Vec<(Option<Pair>, S)>,
    begun: bool,
}

impl<S: Iterator<Item = Result<Pair, Fault>>> Merge<S> {
    /// Of sources, the newest first.
    pub(super) fn new(sources: impl IntoIterator<Item = S>) -> Self {
        Self { sources: sources.into_iter().map(|source| (None, source)).collect(), begun: false }
    }

    fn pull(&mut self) -> Result<Option<Pair>, Fault> {
        if !self.begun {
            self.begun = true;
            for (head, source) in &mut self.sources {
                *head = source.next().transpose()?;
            }
        }
        let heads = self.sources.iter().filter_map(|(head, _)| head.as_ref());
        // Of equal keys `min_by` answers the first, which is the newest.
        let Some((key, value)) = heads.min_by(|(a, _), (b, _)| a.cmp(b)).cloned() else { return Ok(None) };
        for (head, source) in &mut self.sources {
            if head.as_ref().is_some_and(|(at, _)| *at == key) {
                *head = source.next().transpose()?;
            }
        }
        Ok(Some((key, value)))
    }
}

impl<S: Iterator<Item = Result<Pair, Fault>>> Iterator for Merge<S> {
    type Item = Result<Pair, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let pulled = self.pull();
        if pulled.is_err() {
            self.sources.clear();
        }
        pulled.transpose()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    type Source<'a> = Box<dyn Iterator<Item = Result<Pair, Fault>> + 'a>;

    fn source(pairs: &'static [(&'static str, Option<&'static str>)]) -> Source<'static> {
        Box::new(pairs.iter().map(|(key, value)| Ok((Bytes::from_static(key.as_bytes()), value.map(Bytes::from)))))
    }

    #[test]
    fn the_newest_source_decides() {
        let newest = source(&[("b", None), ("d", Some("new"))]);
        let oldest = source(&[("a", Some("1")), ("b", Some("2")), ("d", Some("old")), ("e", Some("5"))]);
        let merged: Vec<String> = Merge::new([newest, oldest])
            .map(|pair| pair.map(|(key, value)| format!("{key:?} {value:?}")).unwrap())
            .collect();
        assert_eq!(merged, [r#"b"a" Some(b"1")"#, r#"b"b" None"#, r#"b"d" Some(b"new")"#, r#"b"e" Some(b"5")"#]);
    }

    #[test]
    fn an_error_ends_it() {
        let broken: Source<'static> = Box::new(std::iter::once(Err(Fault::new("broken"))));
        let mut merged = Merge::new([broken, source(&[("a", Some("1"))])]);
        assert!(merged.next().unwrap().is_err());
        assert!(merged.next().is_none());
    }
}
