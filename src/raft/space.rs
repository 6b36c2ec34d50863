//! Who of the cluster has room on its disk: what this node measured of its own, and what the others reported.
//!
//! A node says how much room it has in every answer to an append, so a leader knows of its followers whatever is not
//! older than a few heartbeats. Of a node that has said nothing lately nothing is known, and nothing is supposed: it
//! counts neither as short nor as having room.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::types::NodeId;
use crate::{environment::Clock, proto::v1};

/// A report that is older than this says nothing.
const FRESH: Duration = Duration::from_secs(3);

/// How a disk stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is room.
    #[default]
    Ample,
    /// Less is free than a compaction and the log may need: nothing that grows the data is taken.
    Short,
    /// Even the reserve is going: nothing that costs space is taken.
    Full,
}

/// The room on a node's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Free bytes.
    pub free: u64,
    /// The bytes that should be free.
    pub needed: u64,
    /// What follows.
    pub level: Level,
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB free, {} MiB needed", self.free >> 20, self.needed.div_ceil(1 << 20))
    }
}

impl From<Room> for v1::DiskSpace {
    fn from(Room { free, needed, level }: Room) -> Self {
        Self { free_bytes: free, needed_bytes: needed, short: level >= Level::Short, full: level == Level::Full }
    }
}

impl From<v1::DiskSpace> for Room {
    fn from(space: v1::DiskSpace) -> Self {
        let level = match (space.full, space.short) {
            (true, _) => Level::Full,
            (false, true) => Level::Short,
            (false, false) => Level::Ample,
        };
        Self { free: space.free_bytes, needed: space.needed_bytes, level }
    }
}

/// See the module's text.
pub struct Space {
    clock: Arc<dyn Clock>,
    /// What the messages name.
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    own: Option<Room>,
    /// With the moment (monotonic) at which it was heard.
    others: BTreeMap<NodeId, (Room, Duration)>,
}

impl Space {
    /// Nothing is known yet. `path` is this node's data directory.
    pub fn new(clock: Arc<dyn Clock>, path: &Path) -> Self {
        Self { clock, path: path.to_owned(), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What it guards is replaced whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node's data directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was measured last of this node's disk; `None` before the first time.
    pub fn own(&self) -> Option<Room> {
        self.known().own
    }

    /// How this node's disk stands.
    pub fn level(&self) -> Level {
        self.own().unwrap_or_default().level
    }

    /// This node's disk was measured.
    pub fn measured(&self, room: Room) {
        self.known().own = Some(room);
    }

    /// Another node has told of its disk.
    pub fn reported(&self, node: NodeId, room: Room) {
        let now = self.clock.monotonic();
        self.known().others.insert(node, (room, now));
    }

    /// What the others told lately.
    pub fn others(&self) -> BTreeMap<NodeId, Room> {
        let now = self.clock.monotonic();
        let known = self.known();
        let fresh = known.others.iter().filter(|(_, (_, heard))| now.saturating_sub(*heard) <= FRESH);
        fresh.map(|(node, (room, _))| (*node, *room)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::clock::testing::Hand;

    #[test]
    fn what_was_told_long_ago_says_nothing() {
        let hand = Arc::new(Hand::default());
        let space = Space::new(hand.clone(), Path::new("data"));
        let short = Room { free: 1, needed: 2, level: Level::Short };
        space.reported(2, short);
        hand.set_ms(2_000);
        space.reported(3, Room::default());
        assert_eq!(space.others(), BTreeMap::from([(2, short), (3, Room::default())]));
        hand.set_ms(4_000);
        assert_eq!(space.others(), BTreeMap::from([(3, Room::default())]));
        assert_eq!((space.own(), space.level()), (None, Level::Ample));
        space.measured(short);
        assert_eq!((space.own(), space.level()), (Some(short), Level::Short));
    }

    #[test]
    fn a_report_survives_the_wire() {
        for level in [Level::Ample, Level::Short, Level::Full] {
            let room = Room { free: 5, needed: 7, level };
            assert_eq!(Room::from(v1::DiskSpace::from(room)), room);
        }
        let room = Room { free: 5 << 20, needed: (6 << 20) + 1, level: Level::Short };
        assert_eq!(room.to_string(), "5 MiB free, 7 MiB needed");
    }
}
