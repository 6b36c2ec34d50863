//! Whether a node makes progress, and if not, what stands still: what `/readyz` and gRPC's health service say.
//!
//! That a process answers proves little. So a node is asked for what only moves while it works: its leader's voice or its
//! own quorum's, the index that it applies, the sync of its log. [`Vitals::check`] is the rule, a pure function of what was
//! measured; each reason says what to look for.

use std::{sync::PoisonError, time::Duration};

use super::Node;
use crate::raft::{consensus::Leadership, space::Level};

/// A node is ready if it has heard of its cluster within so many of the longest election timeouts. An election passes
/// within it.
const READY_ELECTIONS: u32 = 10;
/// How long apply may stand still, or be far behind, and how long the log may write and sync at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many committed entries may wait to be applied. A busy node applies as many in a second or two.
const BEHIND: u64 = 20_000;

/// What was measured of a node at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Whether the state here differs from the majority's.
    pub diverged: bool,
    /// Who leads, as this node knows.
    pub leader: Leader,
    /// How old what is applied here may be, in milliseconds: of a leader, since it last heard a quorum; `u64::MAX` if
    /// nothing was heard.
    pub age_ms: u64,
    /// Committed entries that are not applied.
    pub behind: u64,
    /// How long there has been something to apply while nothing was applied.
    pub stuck: Duration,
    /// How long there have been too many of them.
    pub lagging: Duration,
    /// How long the log has been writing and syncing, if it is.
    pub syncing: Option<Duration>,
    /// Why this leader refuses what grows the data.
    pub writes_refused: Option<String>,
    /// The disk, if it is short or full.
    pub disk: Option<String>,
}

/// Who leads, as a node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leader {
    /// It leads.
    Me,
    /// Another does.
    Other(u64),
    /// Nobody, or nobody knows.
    Unknown,
}

impl Vitals {
    /// Whether calls will be answered; `silence` is the longest silence of the leader, or of a quorum, with which they still
    /// are. Errors: why not.
    pub fn check(&self, silence: Duration) -> Result<(), String> {
        if self.diverged {
            return Err("its state differs from the majority's".into());
        }
        if self.leader == Leader::Unknown {
            return Err("no leader is known: an election is under way, or no quorum is reached".into());
        }
        if let Some(syncing) = self.syncing.filter(|syncing| *syncing >= PATIENCE) {
            let seconds = syncing.as_secs();
            return Err(format!("the disk does not sync: the log has been at one write for {seconds} s"));
        }
        let behind = self.behind;
        if self.stuck >= PATIENCE {
            let seconds = self.stuck.as_secs();
            return Err(format!(
                "apply stands still: nothing was applied for {seconds} s, and {behind} committed entries wait"
            ));
        }
        if self.lagging >= PATIENCE {
            let seconds = self.lagging.as_secs();
            return Err(format!(
                "apply is behind: {behind} committed entries wait, more than {BEHIND} for {seconds} s"
            ));
        }
        match (self.leader, self.age_ms) {
            (_, age_ms) if u128::from(age_ms) <= silence.as_millis() => Ok(()),
            // The leader that a vote of earlier names may be long gone.
            (Leader::Me | Leader::Unknown, _) => Err("this node leads, but no quorum answers it".into()),
            (Leader::Other(id), u64::MAX) => Err(format!("nothing was heard yet from node {id}, which led last")),
            (Leader::Other(id), age_ms) => {
                Err(format!("node {id} leads or led, and what was applied here of it is {age_ms} ms old"))
            }
        }
    }

    /// What a node that is ready refuses, or soon will. It stays ready: reads and deletes are answered, and a balancer that
    /// took it out would take those away, too.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let refused = self.writes_refused.as_ref().map(|why| format!("writes that grow the data are refused: {why}"));
        let disk = self.disk.as_ref().map(|disk| format!("the disk of this node is {disk}"));
        refused.into_iter().chain(disk)
    }
}

/// How apply has moved, by what was seen each time that somebody asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// What was applied when somebody last asked.
    applied: Option<u64>,
    /// When apply was last seen to have moved, or to have nothing to do.
    moved: Duration,
    /// When it was last seen not to be far behind.
    near: Duration,
}

impl Pace {
    /// What is seen now: how long apply has stood still, and how long it has been far behind.
    fn see(&mut self, now: Duration, applied: u64, committed: u64) -> (Duration, Duration) {
        let behind = committed.saturating_sub(applied);
        // An installed snapshot may set it back to where it was, which is a move as well.
        if behind == 0 || self.applied != Some(applied) {
            self.moved = now;
        }
        if behind <= BEHIND || self.applied.is_none() {
            self.near = now;
        }
        self.applied = Some(applied);
        (now.saturating_sub(self.moved), now.saturating_sub(self.near))
    }
}

impl Node {
    /// The longest silence of the leader, or of a quorum, that this node is still ready with.
    pub fn silence(&self) -> Duration {
        self.shared.longest_election * READY_ELECTIONS
    }

    /// What is measured now. To be asked every now and then: how long apply has stood still is known only from when it was
    /// first seen to.
    pub fn vitals(&self) -> Vitals {
        let shared = &self.shared;
        let now = shared.environment.clock.monotonic();
        let committed = shared.consensus.status().map_or(0, |status| status.committed_index);
        let applied = shared.machine.progress().borrow().position.index;
        let (stuck, lagging) =
            shared.measures.pace.lock().unwrap_or_else(PoisonError::into_inner).see(now, applied, committed);
        Vitals {
            diverged: self.has_diverged(),
            leader: match self.leadership() {
                Leadership::Me { .. } => Leader::Me,
                Leadership::Other { id, .. } => Leader::Other(id),
                Leadership::Unknown => Leader::Unknown,
            },
            age_ms: self.age_ms(),
            behind: committed.saturating_sub(applied),
            stuck,
            lagging,
            syncing: shared.log.busy_since().map(|since| now.saturating_sub(since)),
            writes_refused: shared.writes_refused(),
            disk: shared.network.space().own().and_then(|room| match room.level {
                Level::Ample => None,
                Level::Short => Some(format!("short of space: {room}")),
                Level::Full => Some(format!("full, and takes no more entries: {room}")),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Vitals {
        Vitals {
            diverged: false,
            leader: Leader::Me,
            age_ms: 40,
            behind: 0,
            stuck: Duration::ZERO,
            lagging: Duration::ZERO,
            syncing: None,
            writes_refused: None,
            disk: None,
        }
    }

    #[test]
    fn a_node_is_ready_while_it_makes_progress_and_says_what_stands_still() {
        let s = Duration::from_secs;
        let follower = |age_ms| Vitals { leader: Leader::Other(2), age_ms, ..well() };
        let cases = [
            ("", well()),
            ("", follower(7_000)),
            ("", Vitals { behind: 1_000_000, stuck: s(4), lagging: s(4), ..well() }),
            ("", Vitals { syncing: Some(s(4)), ..well() }),
            ("", Vitals { writes_refused: Some("no room".into()), disk: Some("full".into()), ..well() }),
            ("differs from the majority", Vitals { diverged: true, ..well() }),
            ("no leader is known", Vitals { leader: Leader::Unknown, ..well() }),
            ("no quorum answers it", Vitals { age_ms: 7_001, ..well() }),
            ("no quorum answers it", Vitals { age_ms: u64::MAX, ..well() }),
            ("what was applied here of it is 7001 ms old", follower(7_001)),
            ("nothing was heard yet from node 2", follower(u64::MAX)),
            ("the disk does not sync: the log has been at one write for 6 s", Vitals { syncing: Some(s(6)), ..well() }),
            ("nothing was applied for 5 s, and 3 committed entries wait", Vitals { behind: 3, stuck: s(5), ..well() }),
            ("apply is behind: 30000 committed entries", Vitals { behind: 30_000, lagging: s(9), ..well() }),
        ];
        for (reason, vitals) in cases {
            let said = vitals.check(s(7)).err().unwrap_or_default();
            assert!(said.contains(reason) && said.is_empty() == reason.is_empty(), "{said:?} of {vitals:?}");
        }
    }

    #[test]
    fn what_a_ready_node_refuses_is_said() {
        assert_eq!(well().warnings().count(), 0);
        let full = Vitals { writes_refused: Some("no room".into()), disk: Some("full".into()), ..well() };
        let said: Vec<String> = full.warnings().collect();
        assert_eq!(said, ["writes that grow the data are refused: no room", "the disk of this node is full"]);
    }

    #[test]
    fn apply_stands_still_from_when_it_was_first_seen_to() {
        let s = Duration::from_secs;
        let mut pace = Pace::default();
        assert_eq!(pace.see(s(100), 10, 10), (s(0), s(0)), "nothing is to be done, however long");
        assert_eq!(pace.see(s(200), 10, 10), (s(0), s(0)));
        assert_eq!(pace.see(s(201), 10, 11), (s(1), s(0)));
        assert_eq!(pace.see(s(205), 10, 500), (s(5), s(0)));
        assert_eq!(pace.see(s(206), 11, 500), (s(0), s(0)), "it moves");
        let far = BEHIND + 100;
        assert_eq!(pace.see(s(208), 20, far), (s(0), s(2)), "it moves, but too slowly");
        assert_eq!(pace.see(s(214), 21, far), (s(0), s(8)));
        assert_eq!(pace.see(s(215), 200, far), (s(0), s(0)));
    }
}
