//! A watch that runs: which node tells it, where it goes on when that ends, and what becomes of what is told.

use std::{collections::VecDeque, error::Error as _, pin::Pin, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};
use tonic::Streaming;

use super::{
    super::{Client, endpoints::Endpoint},
    Event,
    shown::{Merge, Shown},
};
use crate::{
    Error, Result, limits,
    model::{
        ReadMode,
        watch::{Change, Start, Target, Told, WatchRequest},
    },
    proto::{
        error_from_status,
        v1::{self, watch_client::WatchClient},
    },
};

/// A node whose data may be so old is left, if there is another to ask.
const STALE_MS: u64 = 10_000;
/// Nor is one left sooner.
const STAY: Duration = Duration::from_secs(10);
/// What may come later than it should before a node is taken to be gone.
const LATE: Duration = Duration::from_secs(5);
/// How often in a row what there is is read anew because it took too long.
const MOST_STARTS: u32 = 10;

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
    /// When it last said something.
    heard: Instant,
    /// Its place on the connection.
    _place: Arc<()>,
}

/// A stream that is being opened. It goes on wherever the future was dropped that waited for it.
type Opening = Pin<Box<dyn Future<Output = Result<Stream, (Arc<Endpoint>, Error)>> + Send>>;

/// Opens a stream of a node, after a wait.
async fn open(
    client: Client,
    endpoint: Arc<Endpoint>,
    request: WatchRequest,
    wait: Duration,
) -> Result<Stream, (Arc<Endpoint>, Error)> {
    tokio::time::sleep(wait).await;
    let (time, trace) = (client.deadline, client.shared.names.trace());
    // Without a deadline that travels: it would be one of the whole stream.
    let request = client.request(v1::WatchRequest::from(request), &trace);
    let (channel, place) = endpoint.watching();
    let mut watches = WatchClient::new(channel).max_decoding_message_size(limits::PEER_DECODE_BYTES);
    let error = match timeout(time, watches.watch(request)).await {
        Ok(Ok(answer)) => {
            endpoint.answered();
            let (messages, since) = (answer.into_inner(), Instant::now());
            return Ok(Stream { endpoint, messages, since, heard: since, _place: place });
        }
        Ok(Err(status)) => {
            // A status without a source came over the wire: the node lives.
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
    Err((endpoint, error))
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
    since: Option<(Instant, Error)>,
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
    opening: Option<Opening>,
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
    /// A watch that nobody has answered yet.
    fn new(client: Client, request: WatchRequest, remember: usize) -> Self {
        let phase = match request.start {
            Start::Current => Phase::Content { merge: Merge::default(), resync: false },
            Start::Now | Start::After(_) => Phase::Changes,
        };
        Self {
            silence: Duration::from_millis(request.progress_ms).saturating_mul(3).saturating_add(LATE),
            shown: Shown::new(remember, request.start == Start::Current),
            last: 0,
            started: false,
            stream: None,
            opening: None,
            phase,
            search: Search::default(),
            parts: Vec::new(),
            ready: VecDeque::new(),
            ended: None,
            client,
            request,
        }
    }

    /// A watch, once a node has answered. It remembers so many bytes of what it shows.
    pub(super) async fn start(client: Client, request: WatchRequest, remember: usize) -> Result<Self> {
        let mut watch = Self::new(client, request, remember);
        let (allowed, begun) = (watch.client.deadline, Instant::now());
        while !watch.started {
            if let Some(error) = watch.ended.take() {
                return Err(error);
            }
            if timeout_at(begun + allowed, watch.step()).await.is_err() {
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
        let told = match timeout_at(stream.heard + self.silence, stream.messages.message()).await {
            Ok(Ok(Some(message))) => Told::try_from(message),
            Ok(Ok(None)) => Err(Error::Unknown("the node ended the watch".into())),
            Ok(Err(status)) => Err(error_from_status(&status)),
            Err(_) => Err(Error::Unknown(format!("{} said nothing for too long", stream.endpoint.address))),
        };
        stream.heard = Instant::now();
        match told {
            Ok(told) => self.take(told),
            Err(error) => {
                let endpoint = Arc::clone(&stream.endpoint);
                self.stream = None;
                self.failed(&endpoint, error);
            }
        }
    }

    /// Goes on with the connection that is being opened, or with another.
    async fn connect(&mut self) {
        if self.opening.is_none() {
            let Some(endpoint) = self.candidate() else { return self.none_covers() };
            let start = match &self.phase {
                Phase::Content { .. } => Start::Current,
                Phase::Changes if self.started => Start::After(self.last),
                Phase::Changes => self.request.start,
            };
            let mut request = WatchRequest { start, ..self.request.clone() };
            if self.started && start == Start::Current {
                // Nothing may be older than what was shown.
                request.mode = ReadMode::Linearizable;
            }
            let wait = match self.search.failures {
                0 => Duration::ZERO,
                failures => self.client.shared.jitter.backoff(failures),
            };
            self.opening = Some(Box::pin(open(self.client.clone(), endpoint, request, wait)));
        }
        let Some(opening) = &mut self.opening else { return };
        let opened = opening.await;
        self.opening = None;
        match opened {
            Ok(stream) => self.stream = Some(stream),
            Err((endpoint, error)) => self.failed(&endpoint, error),
        }
    }

    /// Where to go on; `None`: nobody covers the revision.
    fn candidate(&self) -> Option<Arc<Endpoint>> {
        let Search { failed, uncovered, since, .. } = &self.search;
        if since.as_ref().is_some_and(|(since, _)| since.elapsed() >= self.client.deadline) {
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
                search.since.get_or_insert_with(|| (Instant::now(), error.clone()));
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
        let unknown = || Error::Unavailable { reason: "no endpoint is known".into(), leader: None };
        self.ended = Some(self.search.since.take().map_or_else(unknown, |(_, error)| error));
    }

    /// Goes on with what there is.
    fn reset(&mut self) {
        if self.request.target == Target::Topology {
            // All of its history is kept: it is told once more, from its beginning.
            tracing::warn!(after = self.last, "a watch of the topology begins anew: this is another history");
            self.ready.push_back(Event::Reset { after: self.last, complete: true });
            (self.last, self.search) = (0, Search::default());
            return;
        }
        tracing::warn!(after = self.last, "no node knows what has changed since: a watch compares what there is");
        self.ready.push_back(Event::Reset { after: self.last, complete: self.shown.is_whole() });
        self.phase = Phase::Content { merge: Merge::since(self.last), resync: true };
        self.search = Search::default();
    }

    fn take(&mut self, told: Told) {
        if !matches!(told, Told::Started { .. }) {
            // A node that tells something is one to stay with.
            self.search = Search { starts: self.search.starts, ..Search::default() };
        }
        match told {
            Told::Started { revision, .. } => {
                if !self.started && matches!(self.phase, Phase::Changes) {
                    self.last = revision;
                }
                self.started = true;
                (self.search.uncovered, self.search.since) = (Vec::new(), None);
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

#[cfg(test)]
mod tests;
