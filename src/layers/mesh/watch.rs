//! What is watched of mesh storage: the records of one table.

use super::{
    config, message, node_state, route, state,
    table::{self, Table, check_prefix, stored_json},
};
use crate::{
    Result,
    layers::{
        check::stored,
        watch::{Filter, Part},
    },
    model::{
        Key, Record, ScopeId,
        mesh::Stored,
        watch::{Change, Changed, Keys},
    },
    state::View,
};

/// Makes a change of the records under a key.
type Open = fn(&View, &Key, Sides) -> Result<Change>;

/// A record now and before.
pub(in crate::layers) type Sides = [Option<Record>; 2];

/// A table that is watched.
#[derive(Clone, Copy)]
pub(in crate::layers) struct Watched {
    table: &'static Table,
    open: Open,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.table.kind)
    }
}

pub(in crate::layers) const MESSAGES: Watched = Watched {
    table: &message::TABLE,
    open: |view, key, sides| {
        changed(view, key, sides, |view, record| message::open(view, key, &record)).map(Change::Message)
    },
};
pub(in crate::layers) const STATE: Watched = Watched {
    table: &state::TABLE,
    open: |view, key, sides| {
        let open = |_: &View, record: Record| Ok(stored(&record, record.value.clone()));
        changed(view, key, sides, open).map(Change::State)
    },
};
pub(in crate::layers) const NODE_STATES: Watched = Watched {
    table: &node_state::TABLE,
    open: |view, key, sides| changed(view, key, sides, stored_json).map(Change::NodeState),
};
pub(in crate::layers) const ROUTES: Watched = Watched {
    table: &route::TABLE,
    open: |view, key, sides| changed(view, key, sides, stored_json).map(Change::Route),
};
pub(in crate::layers) const CONFIG: Watched = Watched {
    table: &config::TABLE,
    open: |view, key, sides| changed(view, key, sides, stored_json).map(Change::Config),
};

fn changed<T>(
    view: &View,
    key: &Key,
    [now, before]: Sides,
    open: impl Fn(&View, Record) -> Result<Stored<T>>,
) -> Result<Changed<T>> {
    let side = |record: Option<Record>| record.map(|record| open(view, record)).transpose();
    Ok(Changed { key: table::text(view, "key", key.user_bytes())?, now: side(now)?, before: side(before)? })
}

impl Watched {
    /// That such keys can be there. Errors: `InvalidArgument`.
    pub(in crate::layers) fn check(self, keys: &Keys) -> Result<()> {
        match keys {
            Keys::All => Ok(()),
            Keys::One(key) => self.table.key(key).map(drop),
            Keys::Prefix(prefix) => check_prefix(prefix),
        }
    }

    pub(in crate::layers) fn scope(self) -> ScopeId {
        self.table.scope()
    }

    /// What becomes of a record.
    pub(in crate::layers) fn open_change(self, view: &View, key: &Key, sides: Sides) -> Result<Change> {
        (self.open)(view, key, sides)
    }

    /// A part of the records that there are, from a position on.
    pub(in crate::layers) fn part(self, view: &View, filter: &Filter, from: &[u8]) -> Result<Part> {
        filter.part(view, self.scope(), from, |key, record| (self.open)(view, &key, [Some(record), None]).map(Some))
    }
}
