//! What building needs to know of a namespace: see [`search::build`](crate::layers::search::build).

use bytes::Bytes;

use super::{
    super::{
        super::search::build::{self, Indexed, Unfinished, Unfit},
        text,
    },
    Namespace, PROGRESS, Progress, entries_of,
};
use crate::{
    Result,
    error::Fault,
    model::{
        Entry, Key, Record, ScopeId,
        transaction::{Compare, Operation, Put},
    },
    state::View,
    storage::codec::{self, Kind},
};

/// Builds the indexes of namespaces.
pub type Build = build::Build<Namespace>;

impl Indexed for Namespace {
    const PROGRESS: ScopeId = PROGRESS;

    fn unfinished(view: &View, key: &Key, record: &Record) -> Result<Option<Unfinished>> {
        let broken = |error| view.fault(Fault::bug(format!("the record {key} cannot be read: {error}")));
        let progress: Progress = codec::decode(Kind::NamespaceIndex, &record.value).map_err(broken)?;
        let Progress { namespace: home, built, behind } = progress;
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
        self.values()
    }

    fn entries(&self, view: &View, _: &Key, record: &Record) -> Result<std::result::Result<Vec<Entry>, Unfit>> {
        let json = text(view, record)?;
        Ok(Ok(entries_of(self, json.as_deref().and_then(|json| std::str::from_utf8(json).ok()))))
    }

    fn give_up(&self, view: &View, unfit: Unfit) -> Result<(Vec<Compare>, Vec<Operation>)> {
        let Unfit { progress, why } = unfit;
        Err(view.fault(Fault::bug(format!("the index under {progress} takes every value, but not one: {why}"))))
    }

    fn note(&self, progress: &Key, built: u64, behind: Option<Bytes>) -> Operation {
        let noted = Progress { namespace: self.name().into(), built, behind };
        Operation::Put { key: progress.clone(), put: Put::value(codec::encode(Kind::NamespaceIndex, &noted)) }
    }
}
