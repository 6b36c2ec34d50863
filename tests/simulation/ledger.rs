//! What happened, in order: what nodes led and applied, which faults came. The trace of a seed, and what the invariants
//! look at. What clients were told stands in the histories of their workloads.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use meshstore::{model::Position, raft::state_machine::Observer, state::Commit};

/// One thing that happened, at a simulated time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node was started.
    Started { node: u64 },
    /// A node became leader.
    Leads { node: u64, term: u64 },
    /// A node applied an entry.
    Applied { node: u64, position: Position, commits: Vec<Commit> },
    /// A fault came, or went.
    Fault(String),
    /// A node stopped of itself.
    Stopped { node: u64, reason: String },
    /// What came of a change of the membership that an operator wanted.
    Churned { change: String, told: String },
    /// Who belongs to the cluster at the end.
    Members { nodes: Vec<u64> },
    /// What a node said of itself at the end.
    Final { node: u64, applied_index: u64, revision: u64, state_hash: String },
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

    /// Who became leader last.
    pub fn leader(&self) -> Option<u64> {
        let events = self.0.lock().unwrap();
        events.iter().rev().find_map(|(_, event)| match event {
            Event::Leads { node, .. } => Some(*node),
            _ => None,
        })
    }

    /// `loses`: set, the storage of the node loses the next record that is written.
    /// How often somebody became leader.
    pub fn elections(&self) -> usize {
        self.0.lock().unwrap().iter().filter(|(_, event)| matches!(event, Event::Leads { .. })).count()
    }

    pub fn observer(&self, node: u64, loses: Arc<AtomicBool>) -> Arc<dyn Observer> {
        Arc::new(NodeObserver { node, ledger: self.clone(), loses })
    }

    /// A readable account for a failed seed: all but what was applied.
    pub fn history(&self) -> String {
        let mut text = String::new();
        for (at, event) in self.0.lock().unwrap().iter() {
            if !matches!(event, Event::Applied { .. }) {
                let _ = writeln!(text, "{:>9.3} s  {event:?}", at.as_secs_f64());
            }
        }
        text
    }
}

struct NodeObserver {
    node: u64,
    ledger: Ledger,
    loses: Arc<AtomicBool>,
}

impl Observer for NodeObserver {
    fn committed(&self, position: Position, commits: &[Commit]) {
        self.ledger.record(Event::Applied { node: self.node, position, commits: commits.to_vec() });
    }

    fn leads(&self, term: u64) {
        self.ledger.record(Event::Leads { node: self.node, term });
    }

    fn loses_a_record(&self, _: Position) -> bool {
        self.loses.swap(false, Ordering::SeqCst)
    }
}
