//! What building needs to know of a collection: see [`search::build`](crate::layers::search::build).

use bytes::Bytes;

use super::{
    super::{
        super::{
            scopes::Scopes,
            search::build::{self, Indexed, Unfinished, Unfit},
        },
        collection::Collection,
        opened,
    },
    PROGRESS, Progress,
};
use crate::{
    Error, Result,
    error::Fault,
    model::{
        Entry, Key, Record, ScopeId,
        transaction::{Compare, Operation, Put},
    },
    state::View,
    storage::codec::{self, Kind},
};

/// Builds the indexes of collections.
pub type Build = build::Build<Collection>;

impl Indexed for Collection {
    const PROGRESS: ScopeId = PROGRESS;

    fn unfinished(view: &View, key: &Key, record: &Record) -> Result<Option<Unfinished>> {
        let broken = |error| view.fault(Fault::bug(format!("the record {key} cannot be read: {error}")));
        let progress: Progress = codec::decode(Kind::CollectionIndex, &record.value).map_err(broken)?;
        let Progress { collection: home, built, behind, .. } = progress;
        Ok(behind.map(|behind| Unfinished { home, built, behind }))
    }

    fn find(view: &View, key: &Key, home: &str) -> Result<Option<Self>> {
        let found = Self::find(view, home)?;
        Ok(found.filter(|found| found.indexes.iter().any(|index| index.progress_key() == *key)))
    }

    fn guard(&self) -> Compare {
        self.guard()
    }

    fn records(&self) -> ScopeId {
        self.documents()
    }

    fn entries(&self, view: &View, key: &Key, record: &Record) -> Result<std::result::Result<Vec<Entry>, Unfit>> {
        let opened = opened(view, key, record)?;
        let (document, mut entries) = (opened.document(record), Vec::new());
        for index in &self.indexes {
            let unfit = |why| Ok(Err(Unfit { progress: index.progress_key(), why }));
            let from = entries.len();
            match index.enter(&document, &mut entries) {
                Err(Error::InvalidArgument { rule, .. }) => return unfit(format!("a document {rule}")),
                entered => entered?,
            }
            // Also those of an index that is built later: they go in with the others.
            for entry in entries.iter().skip(from).filter(|entry| entry.unique) {
                if let Some(owner) = view.owner(entry.scope, &entry.key)?.filter(|owner| owner != key) {
                    let owner = String::from_utf8_lossy(&owner.user_bytes()).into_owned();
                    return unfit(format!("the documents {owner} and {} have the same in its fields", opened.id));
                }
            }
        }
        Ok(Ok(entries))
    }

    fn give_up(&self, view: &View, unfit: Unfit) -> Result<(Vec<Compare>, Vec<Operation>)> {
        let Unfit { progress, why: failed } = unfit;
        let missing = || view.fault(Fault::bug(format!("the record {progress} is of no index")));
        let index = self.indexes.iter().find(|index| index.progress_key() == progress).ok_or_else(missing)?;
        tracing::warn!(collection = self.name(), index = index.definition.name, failed, "an index cannot be built");
        let mut scopes = Scopes::read(view)?;
        let guards = vec![scopes.guard()];
        let mut operations = index.drop_scopes(&mut scopes);
        let indexes = self.indexes.iter().cloned().map(|mut one| {
            one.definition.failed |= one.progress_key() == progress;
            one
        });
        let (collection, built) = (self.name().to_owned(), index.progress(view)?.built);
        operations.extend([
            index.note(&Progress { collection, built, behind: None, failed }),
            self.with_indexes(indexes.collect()).put(),
            scopes.operation(),
        ]);
        Ok((guards, operations))
    }

    fn note(&self, progress: &Key, built: u64, behind: Option<Bytes>) -> Operation {
        let noted = Progress { collection: self.name().into(), built, behind, failed: String::new() };
        Operation::Put { key: progress.clone(), put: Put::value(codec::encode(Kind::CollectionIndex, &noted)) }
    }
}
