//! One call, from its first attempt to its answer.
//!
//! A call has one deadline and as many attempts as fit into it. Each attempt goes to the endpoint that
//! seems best then, and has a time of its own, a part of what is left, so that a node that is frozen or cut
//! off does not use up the whole call. Between attempts it waits, longer each time, with jitter.
//!
//! For a write the question is what an attempt that failed has done. *Certainly nothing* (no connection,
//! a refusal by a node) never stands in the way of another attempt. *Perhaps something* (a broken
//! connection, a timeout) is remembered in [`Call::may_have_applied`], and another attempt is made only if
//! the session makes it harmless. So no write is silently executed twice, and no deadline is reported as if
//! nothing had happened when something may have.

use std::{error::Error as _, sync::Arc, time::Duration};

use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::{
    Client, Written,
    endpoints::{Endpoint, Preference},
    line::{AUTHORIZATION, Line},
    rpc::{Read, Rpc, Write},
};
use crate::{
    Error, Result, limits,
    model::{
        ReadMode,
        isolation::TRANSACTION,
        session::Attempt,
        trace::{TRACEPARENT, TraceParent},
    },
    proto::{
        error_from_status,
        lease::{FENCE, fence_header},
        v1,
    },
};

const SHORTEST_ATTEMPT: Duration = Duration::from_millis(500);
const LONGEST_FIRST_ATTEMPT: Duration = Duration::from_secs(5);
/// How often a call may lose its session before anything was done, until it gives up.
const MOST_SESSIONS: u32 = 4;

/// A call under way.
pub(super) struct Call<'a> {
    client: &'a Client,
    name: &'static str,
    preference: Preference,
    allowed: Duration,
    deadline: Instant,
    attempts: u32,
    failed: Vec<Arc<Endpoint>>,
    stale: usize,
    /// Whether an attempt that failed may have done something.
    may_have_applied: bool,
    /// Whether another attempt after that is harmless.
    repeatable: bool,
    /// What all its attempts are called, wherever they are worked on.
    trace: TraceParent,
}

impl<'a> Call<'a> {
    pub(super) fn new(client: &'a Client, name: &'static str, preference: Preference) -> Self {
        let preference = client.pin.clone().map_or(preference, Preference::Only);
        Self {
            client,
            name,
            preference,
            allowed: client.deadline,
            deadline: Instant::now() + client.deadline,
            attempts: 0,
            failed: Vec::new(),
            stale: 0,
            may_have_applied: false,
            repeatable: true,
            trace: client.shared.names.trace(),
        }
    }

    /// The same with more time.
    pub(super) fn within(mut self, allowed: Duration) -> Self {
        self.allowed = allowed;
        self.deadline = Instant::now() + allowed;
        self
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The next attempt.
    async fn attempt<R: Rpc>(&mut self, message: R) -> Result<R::Reply> {
        let size = message.encoded_len();
        if size > limits::CLIENT_DECODE_BYTES {
            let rule = format!("must be at most {} bytes (it has {size})", limits::CLIENT_DECODE_BYTES);
            return Err(Error::invalid("request", "", rule));
        }
        let time = self.attempt_time();
        if time.is_zero() {
            return Err(self.too_late("no time is left for another"));
        }
        self.attempt_by((R::CHANGES, R::FENCED), message, time, R::send).await
    }

    /// The next attempt, which takes `time` at most, made by `send`.
    pub(super) async fn attempt_by<T, A, F>(
        &mut self,
        (changes, fenced): (bool, bool),
        message: T,
        time: Duration,
        send: impl FnOnce(Request<T>, Line) -> F,
    ) -> Result<A>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let endpoint = self.client.shared.endpoints.choose(&self.preference, &self.failed)?;
        self.attempts = self.attempts.saturating_add(1);
        let mut request = self.client.request(message, &self.trace);
        request.set_timeout(time);
        if let Some(fence) = self.client.fence.as_ref().filter(|_| fenced) {
            request.metadata_mut().insert_bin(FENCE, fence_header(fence));
        }
        if let Some(transaction) = &self.client.transaction {
            request.metadata_mut().insert(TRANSACTION, transaction.clone());
        }
        let (call, trace) = (self.name, self.trace.trace_id());
        let span = tracing::debug_span!("attempt", call, %trace, endpoint = endpoint.address, attempt = self.attempts);
        let answer = tokio::time::timeout(time, send(request, endpoint.line()?).instrument(span)).await;
        let error = match answer {
            Ok(Ok(reply)) => {
                endpoint.answered();
                return Ok(reply.into_inner());
            }
            // A status without a source came over the wire: the node lives, whatever it said.
            Ok(Err(status)) if status.source().is_none() => {
                endpoint.answered();
                error_from_status(&status)
            }
            Ok(Err(status)) if !timed_out(&status) => {
                endpoint.failed();
                error_from_status(&status)
            }
            // tonic watches the same time, so either of the two may be the first to notice.
            Ok(Err(_)) | Err(_) => {
                endpoint.failed();
                Error::Unknown(format!("{} did not answer within {} ms", endpoint.address, time.as_millis()))
            }
        };
        tracing::debug!(call, %trace, endpoint = endpoint.address, attempt = self.attempts, %error, "attempt failed");
        self.note(&endpoint, &error, changes);
        Err(error)
    }

    /// The time of the next attempt: a fifth of the call's at first, then twice as long each time.
    fn attempt_time(&self) -> Duration {
        let first = (self.allowed / 5).clamp(SHORTEST_ATTEMPT, LONGEST_FIRST_ATTEMPT);
        let left = self.deadline.saturating_duration_since(Instant::now());
        first.saturating_mul(1 << self.attempts.min(10)).min(left)
    }

    /// Takes from an error what it says of the call, the endpoint and the leader.
    fn note(&mut self, endpoint: &Arc<Endpoint>, error: &Error, changes: bool) {
        let endpoints = &self.client.shared.endpoints;
        let session_gone = matches!(error, Error::SessionExpired { .. });
        self.may_have_applied |= changes && !session_gone && error.may_have_applied();
        self.stale += usize::from(matches!(error, Error::TooStale { .. }));
        if let Error::Unavailable { leader, .. } = error {
            endpoints.leads_not(endpoint);
            if let Some(leader) = leader {
                endpoints.leader_is_at(leader);
            }
        } else if matches!(error, Error::Unknown(_) | Error::DeadlineExceeded { .. }) {
            // A leader that cannot finish anything may have lost its quorum, and not know it yet.
            endpoints.leads_not(endpoint);
        }
        self.failed.push(endpoint.clone());
    }

    /// Waits until it is time for another attempt. Errors: there is none, this is the call's answer.
    pub(super) async fn again(&mut self, error: Error) -> Result<()> {
        let exhausted = match &error {
            // More of the same node, or all of them, will not make the data fresher soon.
            Error::TooStale { .. } => {
                matches!(self.preference, Preference::Only(_)) || self.stale >= self.client.shared.endpoints.all().len()
            }
            error => !error.is_retryable(),
        };
        if exhausted || (self.may_have_applied && !self.repeatable) {
            return Err(error);
        }
        let jitter = &self.client.shared.jitter;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let wait = match &error {
            // A disk is full, say: nothing comes of waiting, and the reason is worth more than a deadline that passed.
            Error::ResourceExhausted { retry_after_ms, .. }
                if Duration::from_millis(*retry_after_ms) > left && !self.may_have_applied =>
            {
                return Err(error);
            }
            Error::ResourceExhausted { retry_after_ms, .. } => jitter.spread(Duration::from_millis(*retry_after_ms)),
            // The first hint is worth following at once.
            Error::Unavailable { leader: Some(_), .. } if self.attempts == 1 => Duration::ZERO,
            _ => jitter.backoff(self.attempts),
        };
        tokio::time::sleep_until(self.deadline.min(Instant::now() + wait.min(self.allowed))).await;
        if Instant::now() < self.deadline { Ok(()) } else { Err(self.too_late(&error.to_string())) }
    }

    /// Attempts until there is an answer, of a call that may be made as often as one likes.
    async fn until_answered<R: Rpc>(mut self, request: R) -> Result<R::Reply> {
        loop {
            match self.attempt(request.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(error) => self.again(error).await?,
            }
        }
    }

    /// The answer when the deadline has passed.
    pub(super) fn too_late(&self, last: &str) -> Error {
        Error::DeadlineExceeded {
            deadline_ms: u64::try_from(self.allowed.as_millis()).unwrap_or(u64::MAX),
            waiting_for: format!("calling {} ({} attempts; the last: {last})", self.name, self.attempts),
            may_have_applied: self.may_have_applied,
        }
    }
}

/// A write that is attempted until it is done.
pub(super) trait Attempts: Sync {
    /// What is answered.
    type Reply: Send;
    /// Makes an attempt, which has this place in the session.
    fn attempt(&self, call: &mut Call<'_>, place: Option<Attempt>) -> impl Future<Output = Result<Self::Reply>> + Send;
}

/// A write that is one message.
struct Unary<R>(R);

impl<R: Write> Attempts for Unary<R> {
    type Reply = R::Reply;

    async fn attempt(&self, call: &mut Call<'_>, place: Option<Attempt>) -> Result<R::Reply> {
        let mut request = self.0.clone();
        if let Some(place) = place {
            request.set_attempt(place);
        }
        call.attempt(request).await
    }
}

fn timed_out(status: &tonic::Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::TimeoutExpired>() {
            return true;
        }
        source = error.source();
    }
    false
}

impl Client {
    /// A request that says who calls, and what the call is called.
    pub(super) fn request<T>(&self, message: T, trace: &TraceParent) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.shared.authorization {
            request.metadata_mut().insert(AUTHORIZATION, authorization.clone());
        }
        if let Ok(trace) = trace.to_string().parse() {
            request.metadata_mut().insert(TRACEPARENT, trace);
        }
        request
    }

    /// A call that may be made as often as one likes.
    pub(super) async fn ask<R: Rpc>(&self, preference: Preference, request: R) -> Result<R::Reply> {
        Call::new(self, R::NAME, preference).until_answered(request).await
    }

    /// The same, with the deadline of another call that waits for it.
    pub(super) async fn ask_until<R: Rpc>(
        &self,
        deadline: Instant,
        preference: Preference,
        request: R,
    ) -> Result<R::Reply> {
        let left = deadline.saturating_duration_since(Instant::now());
        Call::new(self, R::NAME, preference).within(left).until_answered(request).await
    }

    /// One attempt at one endpoint, whatever comes of it.
    pub(super) async fn ask_once<R: Rpc>(&self, endpoint: Arc<Endpoint>, request: R) -> Result<R::Reply> {
        let mut call = Call::new(self, R::NAME, Preference::Any);
        call.preference = Preference::Only(endpoint);
        call.attempt(request).await
    }

    /// A read, in this client's mode.
    pub(super) async fn read<R: Read>(&self, request: R) -> Result<R::Reply> {
        self.read_as(request, false).await
    }

    /// The same; with `keep` the node that answers keeps the revision readable for the next.
    pub(super) async fn read_as<R: Read>(&self, request: R, keep: bool) -> Result<R::Reply> {
        let preference = match self.mode {
            // The leader answers without asking another node for its index.
            ReadMode::Linearizable => Preference::Leader,
            ReadMode::AtLeast(_) | ReadMode::Stale(_) => Preference::Any,
        };
        self.read_from(preference, v1::ReadOptions { keep, ..self.mode.into() }, request).await
    }

    /// A read of one revision that an answer has shown, which the node that answers keeps readable for the next.
    pub(super) async fn read_at<R: Read>(&self, revision: u64, request: R) -> Result<R::Reply> {
        let options = v1::ReadOptions { revision: Some(revision), keep: true, ..ReadMode::AtLeast(revision).into() };
        self.read_from(Preference::Leader, options, request).await
    }

    /// The same, in a mode of its own.
    pub(super) async fn read_from<R: Read>(
        &self,
        preference: Preference,
        options: v1::ReadOptions,
        mut request: R,
    ) -> Result<R::Reply> {
        request.set_options(options);
        let reply = self.ask(preference, request).await?;
        if let Some(revision) = R::revision(&reply) {
            self.shared.seen(revision);
        }
        Ok(reply)
    }

    /// A write: executed once, however many attempts it takes.
    pub(super) async fn write<R: Write>(&self, request: R) -> Result<Written> {
        self.execute(request).await.map(|reply| R::written(&reply))
    }

    /// The same, with all that was answered.
    pub(super) async fn execute<R: Write>(&self, request: R) -> Result<R::Reply> {
        let reply = self.execute_by(Call::new(self, R::NAME, Preference::Leader), &Unary(request)).await?;
        self.note_written(R::written(&reply));
        Ok(reply)
    }

    /// A write that knows how to make its attempts.
    pub(super) async fn execute_by<A: Attempts>(&self, mut call: Call<'_>, write: &A) -> Result<A::Reply> {
        if !self.shared.exactly_once {
            call.repeatable = false;
            loop {
                match write.attempt(&mut call, None).await {
                    Ok(reply) => return Ok(reply),
                    Err(error) => call.again(error).await?,
                }
            }
        }
        for _ in 0..MOST_SESSIONS {
            let mut place = self.shared.session.place(self, &call).await?;
            let session = loop {
                match write.attempt(&mut call, Some(place.next_attempt())).await {
                    Ok(reply) => {
                        place.answered();
                        return Ok(reply);
                    }
                    Err(Error::SessionExpired { .. }) => break place.session(),
                    Err(error) => call.again(error).await?,
                }
            };
            self.shared.session.forget(session);
            if call.may_have_applied {
                return Err(Error::SessionExpired { session });
            }
        }
        Err(Error::Unavailable { reason: "every new session was gone at once".into(), leader: None })
    }

    /// Takes note of what became of a write.
    pub(super) fn note_written(&self, Written { revision, leader_id }: Written) {
        self.shared.seen(revision);
        if !self.shared.endpoints.leader_is(leader_id) && leader_id != 0 {
            self.shared.learn_later();
        }
    }
}
