//! Changes, as they come.
//!
//! A [`Watch`] is told of changes by one node, and goes on at another, from the last revision that was shown wholly, when that
//! one stops, is cut off or falls behind. So its events are in order, nothing is left out and nothing comes twice.
//!
//! A node keeps the changes of a while only. If one says that it no longer covers the revision, the others are asked first;
//! those that do not answer are waited for as long as a call may take. If none covers it an established watch says so
//! ([`Event::Reset`]), reads what there is, and shows the difference to what it had shown, marked `resynced`. For that it
//! remembers the keys that it has shown ([`Watching::remember`]).

mod run;
mod shown;

use std::time::Duration;

pub use self::run::Watch;
use super::Client;
use crate::{
    Result, limits,
    model::watch::{Change, Start, Target, WatchRequest},
};

/// Bytes of keys that a watch remembers, unless told otherwise.
const REMEMBERED: usize = 64 << 20;

/// What is to be watched, and how; see [`Client::watch`].
///
/// ```no_run
/// use meshstore::{Client, client::{Event, Keys, Target}};
///
/// # async fn example(client: Client) -> meshstore::Result<()> {
/// let users = Target::Values { namespace: "users".into(), keys: Keys::All, attributes: false };
/// let mut watch = client.watch(users).current().start().await?;
/// loop {
///     match watch.next().await? {
///         Event::Content { records, .. } => println!("{} are there", records.len()),
///         Event::Changes { revision, changes, .. } => println!("at {revision}: {changes:?}"),
///         Event::Current { .. } | Event::Progress { .. } | Event::Reset { .. } => {}
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is watched until start"]
pub struct Watching {
    client: Client,
    target: Target,
    start: Start,
    progress: Duration,
    previous: bool,
    remember: usize,
}

impl Watching {
    pub(super) fn of(client: Client, target: Target) -> Self {
        let progress = Duration::from_millis(limits::WATCH_PROGRESS_DEFAULT_MS);
        Self { client, target, start: Start::Now, progress, previous: true, remember: REMEMBERED }
    }

    /// Begins with what changed after this revision, instead of what changes from now on.
    pub fn after(self, revision: u64) -> Self {
        Self { start: Start::After(revision), ..self }
    }

    /// Begins with all that there is, as of one revision. Not of the topology, whose whole history comes `after(0)`.
    pub fn current(self) -> Self {
        Self { start: Start::Current, ..self }
    }

    /// How often progress is told, from 50 ms to a minute. Without it every 5 seconds.
    pub fn progress(self, every: Duration) -> Self {
        Self { progress: every, ..self }
    }

    /// Leaves out what was there before each change.
    pub fn without_previous(self) -> Self {
        Self { previous: false, ..self }
    }

    /// Remembers so many bytes of keys that were shown. Without it 64 MiB, about half a million keys. Beyond that what is
    /// deleted between two nodes' memories is not told: the reset says so.
    pub fn remember(self, bytes: usize) -> Self {
        Self { remember: bytes, ..self }
    }

    /// Begins the watch, once a node has answered.
    ///
    /// Errors: `InvalidArgument`, also for a revision that is still to come; `NoLongerCovered` if no node keeps all changes
    /// behind the revision; `Unavailable` or `DeadlineExceeded` if no node answers within the client's deadline.
    pub async fn start(self) -> Result<Watch> {
        let Self { client, target, start, progress, previous, remember } = self;
        let progress_ms = u64::try_from(progress.as_millis()).unwrap_or(u64::MAX);
        let request = WatchRequest { target, start, mode: client.mode, progress_ms, previous };
        Watch::start(client, request, remember).await
    }
}

/// What a watch shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A part of what there is, in the order of keys: each record as a change that says what it is now.
    Content {
        /// The revision of all parts.
        revision: u64,
        /// The records.
        records: Vec<Change>,
    },
    /// All that there is was shown: what was watched is as of this revision.
    Current {
        /// The revision.
        revision: u64,
    },
    /// All that one transaction changed of what is watched.
    Changes {
        /// Its revision; if `resynced` one at which all of these are so.
        revision: u64,
        /// The changes, in the order of keys.
        changes: Vec<Change>,
        /// Whether these are differences to what was shown, found by comparison: not each change, and none knows what was there
        /// before.
        resynced: bool,
    },
    /// All changes up to this revision were shown.
    Progress {
        /// The revision.
        revision: u64,
    },
    /// No node knows all that has changed after this revision. What differs from what was shown comes next, then
    /// [`Event::Current`].
    Reset {
        /// The revision.
        after: u64,
        /// Whether what was deleted meanwhile is among the differences; otherwise only what was written.
        complete: bool,
    },
}
