//! Changes, as they come.
//!
//! A [`Watch`] is told of changes by one node, and goes on at another, from the last revision that was shown wholly, when that
//! one stops, is cut off or falls behind. So its events are in order, nothing is left out and nothing comes twice.
//!
//! A node keeps the changes of a while only. If one says that it no longer covers the revision, the others are asked first;
//! those that do not answer are waited for as long as a call may take. If none covers it an established watch says so
//! ([`Event::Reset`]), reads what there is, and shows the difference to what it had shown, marked `resynced`. For that it
//! remembers the keys that it has shown ([`Watching::remember`]).

mod shown;

use std::{collections::VecDeque, error::Error as _, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tonic::Streaming;

use self::shown::{Merge, Shown};
use super::{Client, endpoints::Endpoint};
use crate::{
    Error, Result, limits,
    model::watch::{Change, Start, Target, Told, WatchRequest},
    proto::{
        error_from_status,
        v1::{self, watch_client::WatchClient},
    },
};

/// Bytes of keys that a watch remembers, unless told otherwise.
const REMEMBERED: usize = 64 << 20;
/// A node whose data may be so old is left, if there is another to ask.
const STALE_MS: u64 = 10_000;
/// Nor is one left sooner.
const STAY: Duration = Duration::from_secs(10);
/// What may come later than it should before a node is taken to be gone.
const LATE: Duration = Duration::from_secs(5);
/// How often in a row what there is is read anew because it took too long.
const MOST_STARTS: u32 = 10;

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
        let phase = match start {
            Start::Current => Phase::Content { merge: Merge::default(), resync: false },
            Start::Now | Start::After(_) => Phase::Changes,
        };
        let mut watch = Watch {
            silence: progress.saturating_mul(3).saturating_add(LATE),
            shown: Shown::new(remember),
            last: 0,
            started: false,
            stream: None,
            phase,
            search: Search::default(),
            parts: Vec::new(),
            ready: VecDeque::new(),
            ended: None,
            client,
            request,
        };
        let (allowed, begun) = (watch.client.deadline, Instant::now());
        while !watch.started {
            if let Some(error) = watch.ended.take() {
                return Err(error);
            }
            if timeout(allowed.saturating_sub(begun.elapsed()), watch.step()).await.is_err() {
                let waiting_for = match watch.search.last {
                    Some(error) => format!("a watch to begin (the last answer: {error})"),
                    None => "a watch to begin".into(),
                };
                let deadline_ms = u64::try_from(allowed.as_millis()).unwrap_or(u64::MAX);
                return Err(Error::DeadlineExceeded { deadline_ms, waiting_for, may_have_applied: false });
            }
        }
        // So that it is known where else to go.
        watch.client.shared.learn_later();
        Ok(watch)
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

/// What the watch reads now.
#[derive(Debug)]
enum Phase {
    /// What there is.
    Content {
        merge: Merge,
        /// It is compared with what was shown.
        resync: bool,
    },
    /// What changes.
    Changes,
}

/// The stream of one node.
struct Stream {
    endpoint: Arc<Endpoint>,
    messages: Streaming<v1::WatchResponse>,
    since: Instant,
    /// Its place on the connection.
    _place: Arc<()>,
}

/// A search for a node that goes on.
#[derive(Default)]
struct Search {
    failures: u32,
    starts: u32,
    /// Who failed.
    failed: Vec<String>,
    /// Who no longer covers the revision, and since when that is known of somebody.
    uncovered: Vec<String>,
    since: Option<Instant>,
    last: Option<Error>,
}

/// A watch that has begun.
pub struct Watch {
    client: Client,
    request: WatchRequest,
    /// A node that says nothing for so long is gone.
    silence: Duration,
    /// All up to here was shown.
    last: u64,
    shown: Shown,
    started: bool,
    stream: Option<Stream>,
    phase: Phase,
    search: Search,
    /// Of a transaction that comes in several messages.
    parts: Vec<Change>,
    ready: VecDeque<Event>,
    ended: Option<Error>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("target", &self.request.target).field("last", &self.last).finish_non_exhaustive()
    }
}

impl Watch {
    /// The next event; waits for it, however long the cluster is away. Dropping the future loses nothing.
    ///
    /// Errors: what no node can mend, such as `PermissionDenied`. The watch has ended then.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if let Some(error) = &self.ended {
                return Err(error.clone());
            }
            self.step().await;
        }
    }

    /// All changes up to this revision were told. Another watch may go on from here.
    pub fn revision(&self) -> u64 {
        self.last
    }

    /// Connects, or takes one message.
    async fn step(&mut self) {
        let Some(stream) = &mut self.stream else { return self.connect().await };
        let told = match timeout(self.silence, stream.messages.message()).await {
            Ok(Ok(Some(message))) => Told::try_from(message),
            Ok(Ok(None)) => Err(Error::Unknown("the node ended the watch".into())),
            Ok(Err(status)) => Err(error_from_status(&status)),
            Err(_) => Err(Error::Unknown(format!("{} said nothing for too long", stream.endpoint.address))),
        };
        match told {
            Ok(told) => self.take(told),
            Err(error) => {
                let endpoint = self.stream.take().map(|stream| stream.endpoint);
                if let Some(endpoint) = endpoint {
                    self.failed(&endpoint, error);
                }
            }
        }
    }

    async fn connect(&mut self) {
        if self.search.failures > 0 {
            tokio::time::sleep(self.client.shared.jitter.backoff(self.search.failures)).await;
        }
        let Some(endpoint) = self.candidate() else { return self.none_covers() };
        let start = match &self.phase {
            Phase::Content { .. } => Start::Current,
            Phase::Changes if self.started => Start::After(self.last),
            Phase::Changes => self.request.start,
        };
        let message = v1::WatchRequest::from(WatchRequest { start, ..self.request.clone() });
        let (time, trace) = (self.client.deadline, self.client.shared.names.trace());
        let request = self.client.request(message, time, &trace);
        let (channel, place) = endpoint.watching();
        let mut client = WatchClient::new(channel).max_decoding_message_size(limits::PEER_DECODE_BYTES);
        let error = match timeout(time, client.watch(request)).await {
            Ok(Ok(answer)) => {
                endpoint.answered();
                let (messages, since) = (answer.into_inner(), Instant::now());
                self.stream = Some(Stream { endpoint, messages, since, _place: place });
                return;
            }
            Ok(Err(status)) => {
                if status.source().is_some() {
                    endpoint.failed();
                }
                error_from_status(&status)
            }
            Err(_) => {
                endpoint.failed();
                Error::Unknown(format!("{} did not answer within {} ms", endpoint.address, time.as_millis()))
            }
        };
        self.failed(&endpoint, error);
    }

    /// Where to go on; `None`: nobody covers the revision.
    fn candidate(&self) -> Option<Arc<Endpoint>> {
        let Search { failed, uncovered, since, .. } = &self.search;
        if since.is_some_and(|since| since.elapsed() >= self.client.deadline) {
            return None;
        }
        let all = self.client.pin.clone().map_or_else(|| self.client.shared.endpoints.all(), |only| vec![only]);
        let left: Vec<_> = all.into_iter().filter(|endpoint| !uncovered.contains(&endpoint.address)).collect();
        let turn = usize::try_from(self.client.shared.jitter.next() % 1_024).unwrap_or_default() % left.len().max(1);
        let in_turn = left.iter().skip(turn).chain(left.iter().take(turn));
        let best = in_turn.min_by_key(|endpoint| {
            let (tried, rest) = (failed.iter().filter(|it| **it == endpoint.address).count(), endpoint.rests_until());
            (rest.is_some(), tried, rest)
        });
        best.cloned()
    }

    /// Takes from an error where to go on, and how.
    fn failed(&mut self, endpoint: &Arc<Endpoint>, error: Error) {
        tracing::debug!(endpoint = endpoint.address, %error, "a watch goes on elsewhere");
        self.parts.clear();
        let search = &mut self.search;
        match &error {
            Error::NoLongerCovered { .. } => {
                search.uncovered.push(endpoint.address.clone());
                search.since.get_or_insert_with(Instant::now);
            }
            // Nobody has come to a revision that was shown: this is another history.
            Error::InvalidArgument { field, .. } if field == "after_revision" && self.started => {
                search.last = Some(error);
                return self.reset();
            }
            Error::ViewTooOld { .. } if search.starts < MOST_STARTS => {
                search.starts += 1;
                search.failures += 1;
            }
            error if error.is_retryable() => {
                search.failures += 1;
                search.failed.push(endpoint.address.clone());
            }
            error => self.ended = Some(error.clone()),
        }
        self.search.last = Some(error);
        if let Phase::Content { merge, resync } = &mut self.phase {
            let begun = merge.begin_again();
            // What was shown of it stands: from here on only the difference is.
            if begun && !std::mem::replace(resync, true) {
                self.ready.push_back(Event::Reset { after: self.last, complete: self.shown.is_whole() });
            }
        }
    }

    fn none_covers(&mut self) {
        if self.started {
            return self.reset();
        }
        self.ended = self
            .search
            .last
            .take()
            .or_else(|| Some(Error::Unavailable { reason: "no endpoint is known".into(), leader: None }));
    }

    /// Goes on with what there is.
    fn reset(&mut self) {
        tracing::warn!(after = self.last, "no node knows what has changed since: a watch compares what there is");
        self.ready.push_back(Event::Reset { after: self.last, complete: self.shown.is_whole() });
        self.phase = Phase::Content { merge: Merge::since(self.last), resync: true };
        self.search = Search::default();
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Started { revision, .. } => {
                if !self.started && matches!(self.phase, Phase::Changes) {
                    self.last = revision;
                }
                self.started = true;
                let starts = self.search.starts;
                self.search = Search { starts, ..Search::default() };
            }
            Told::Content { revision, records, last } => self.content(revision, records, last),
            Told::Changes { revision, changes, more } => self.changes(revision, changes, more),
            Told::Progress { revision, age_ms } => {
                self.last = self.last.max(revision);
                self.ready.push_back(Event::Progress { revision: self.last });
                self.leave_if_stale(age_ms);
            }
        }
        self.client.shared.seen(self.last);
    }

    fn content(&mut self, revision: u64, records: Vec<Change>, last: bool) {
        let Phase::Content { merge, resync } = &mut self.phase else { return };
        let resynced = *resync;
        let shown = self.shown.difference(merge, &self.request.target, (records, last));
        if !shown.is_empty() {
            self.ready.push_back(match resynced {
                true => Event::Changes { revision, changes: shown, resynced },
                false => Event::Content { revision, records: shown },
            });
        }
        if last {
            self.phase = Phase::Changes;
            self.last = revision;
            self.search.starts = 0;
            self.ready.push_back(Event::Current { revision });
        }
    }

    fn changes(&mut self, revision: u64, mut changes: Vec<Change>, more: bool) {
        // Nothing comes twice, whatever a node says.
        if revision <= self.last {
            return;
        }
        self.parts.append(&mut changes);
        if more {
            return;
        }
        let changes = std::mem::take(&mut self.parts);
        self.shown.note(&changes);
        self.last = revision;
        self.ready.push_back(Event::Changes { revision, changes, resynced: false });
    }

    /// A node that is cut off from the others has nothing new to tell, and does not know it.
    fn leave_if_stale(&mut self, age_ms: u64) {
        let others = self.client.pin.is_none() && self.client.shared.endpoints.all().len() > 1;
        if !others || age_ms < STALE_MS {
            return;
        }
        if let Some(stream) = self.stream.take_if(|stream| stream.since.elapsed() >= STAY) {
            self.search.failed.push(stream.endpoint.address.clone());
        }
    }
}
