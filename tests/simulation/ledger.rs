//! What happened, in order: what clients were told, what nodes applied, which faults came. The trace of a
//! seed, and what the invariants look at.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use meshstore::{
    model::Position,
    raft::state_machine::Observer,
    state::{Change, Commit},
};

/// One thing that happened, at a simulated time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client was told that a write is in.
    Acknowledged { client: u64, id: String, revision: u64 },
    /// A client was told that a write failed, or may have.
    Failed { client: u64, id: String, error: String },
    /// A client read something that it must not.
    WrongRead { client: u64, what: String },
    /// A node applied an entry.
    Applied { node: u64, position: Position, commits: Vec<Commit> },
    /// A fault came, or went.
    Fault(String),
    /// A node stopped of itself.
    Stopped { node: u64, reason: String },
    /// What a node said of itself at the end.
    Final { node: u64, applied_index: u64, revision: u64, state_hash: String },
    /// What a node held at the end: message ids with their versions.
    Held { node: u64, messages: BTreeMap<String, u64> },
}

/// The ledger. Clones are handles on one.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<(Duration, Event)>>>);

impl Ledger {
    /// Notes what happens on a host.
    pub fn record(&self, event: Event) {
        self.record_at(turmoil::sim_elapsed().unwrap_or_default(), event);
    }

    /// Notes what happens to the world.
    pub fn record_at(&self, at: Duration, event: Event) {
        self.0.lock().unwrap().push((at, event));
    }

    pub fn events(&self) -> Vec<(Duration, Event)> {
        self.0.lock().unwrap().clone()
    }

    pub fn acknowledged(&self) -> usize {
        self.events().iter().filter(|(_, event)| matches!(event, Event::Acknowledged { .. })).count()
    }

    pub fn observer(&self, node: u64) -> Arc<dyn Observer> {
        Arc::new(NodeObserver { node, ledger: self.clone() })
    }

    /// A readable account for a failed seed: all but what was applied.
    pub fn history(&self) -> String {
        let mut text = String::new();
        for (at, event) in self.events() {
            if !matches!(event, Event::Applied { .. } | Event::Held { .. }) {
                let _ = writeln!(text, "{:>9.3} s  {event:?}", at.as_secs_f64());
            }
        }
        text
    }
}

struct NodeObserver {
    node: u64,
    ledger: Ledger,
}

impl Observer for NodeObserver {
    fn committed(&self, position: Position, commits: &[Commit]) {
        self.ledger.record(Event::Applied { node: self.node, position, commits: commits.to_vec() });
    }
}

/// The keys that a commit created, overwrote or deleted.
pub fn records(commit: &Commit) -> impl Iterator<Item = (String, Option<u64>)> + '_ {
    commit.changes.iter().filter_map(|change| match change {
        Change::Record { key, new, .. } => Some((format!("{key:?}"), new.as_ref().map(|record| record.version))),
        Change::ScopeDropped { .. } => None,
    })
}
