//! A running node: propose, read, background jobs, start and stop.
//!
//! [`Node`] is one cheap handle. The path of a write: [`Node::propose`] → the proposer packs what queued into
//! one log entry → Raft → the machine applies → the outcome comes back. The path of a read: freshness (a
//! read index, a revision to wait for, or an age), then a view of one revision.

pub mod backup;
mod clock;
mod divergence;
mod fault;
pub mod identity;
mod jobs;
mod measures;
mod members;
mod pages;
mod peers;
mod propose;
mod raft_log;
mod read;
pub mod recover;
mod repair;
mod space;
mod standing;
mod start;
mod status;
mod vitals;
mod watch;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{sync, task::JoinHandle, time::Instant};

pub use fault::Faults;
pub use measures::{Counts, Measures};
pub use members::{Asked, Listed, ListedMember, NewAddresses, RemovedMember};
pub use pages::PagedViews;
pub use propose::check_encoded;
pub use standing::Decide;
pub use start::{Parts, Running, start};
pub use status::{MemberStatus, Status};
pub use vitals::{Leader, Vitals};
pub use watch::{Group, Hub, Look, WatchCounts, Watcher};

use self::{
    clock::LogClock,
    propose::{Answered, Proposer},
    read::ReadIndex,
};
use crate::{
    environment::{
        Environment, executor,
        sabotage::{self, Sabotage},
    },
    error::{Error, Result},
    limits,
    model::{
        Outcome, ReadMode, ReadStamp, ScopeId,
        proposal::{Action, Call, Guards, Proposal},
        session::Attempt,
        transaction::Transaction,
    },
    raft::{
        consensus::{Consensus, Leadership},
        log::{self, Log},
        network::Peers,
        state_machine::Machine,
    },
    state::{
        View,
        scope::{Account, Scope},
    },
    storage::{self, StoreStatus},
};

/// The principal of what a node proposes of itself.
const OWN: &str = "node";
/// The deadline of what a node proposes of itself.
const OWN_DEADLINE: Duration = Duration::from_secs(5);
/// A node that waits until it can be read looks again after so long, if nothing else tells it.
const READ_RETRY: Duration = Duration::from_millis(50);

/// A running node. Cheap to clone; all clones are one node.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

/// Where the log is in a data directory.
const LOG: &str = "mesh_consensus_log";
/// Where base, runs and index are in a data directory.
const STORAGE: &str = "storage";

/// What the parts of a node share.
struct Shared {
    environment: Environment,
    node_id: u64,
    directory: Arc<identity::Directory>,
    machine: Machine,
    consensus: Consensus,
    log: Log,
    proposer: Mutex<Option<Proposer>>,
    read_index: ReadIndex,
    pages: PagedViews<storage::View>,
    watches: Arc<Hub>,
    network: Arc<Peers>,
    log_clock: Arc<LogClock>,
    measures: Arc<Measures>,
    faults: Faults,
    places: space::Places,
    divergence: divergence::Divergence,
    membership: members::Membership,
    /// On the leader: why there is no room for writes, because of the others.
    refusing: ArcSwapOption<String>,
    /// The longest time without a leader before a follower asks for votes.
    longest_election: Duration,
    stopping: AtomicBool,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// A change that a layer wants, for somebody.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub principal: String,
    /// The session call, if it is made in a session.
    pub attempt: Option<Attempt>,
    /// What the layer relied on.
    pub guards: Guards,
    /// The change.
    pub transaction: Transaction,
}

impl Shared {
    fn cluster(&self) -> Option<u128> {
        self.directory.identity().cluster()
    }

    /// That the node is not stopping. Errors: `Unavailable`.
    fn check_running(&self) -> Result<()> {
        if self.stopping.load(Ordering::Acquire) { Err(stopping()) } else { Ok(()) }
    }

    async fn propose(&self, proposal: Proposal, deadline: Instant) -> Result<Outcome> {
        self.propose_answered(proposal, deadline).await.map(|answered| answered.outcome)
    }

    async fn propose_answered(&self, proposal: Proposal, deadline: Instant) -> Result<Answered> {
        self.check_room(&proposal)?;
        self.propose_unchecked(proposal, deadline).await
    }

    /// Proposes, however little room there is.
    async fn propose_anyway(&self, proposal: Proposal, deadline: Instant) -> Result<Outcome> {
        self.propose_unchecked(proposal, deadline).await.map(|answered| answered.outcome)
    }

    async fn propose_unchecked(&self, proposal: Proposal, deadline: Instant) -> Result<Answered> {
        self.check_state()?;
        let budget = deadline.saturating_duration_since(Instant::now());
        let proposer = self.proposer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        proposer.ok_or_else(stopping)?.propose(&proposal, deadline, budget).await
    }

    /// Proposes for the node itself.
    async fn propose_own(&self, action: Action) -> Result<Outcome> {
        let guards = self.permitted_now(Guards::default());
        let proposal = Proposal { principal: OWN.into(), call: None, guards, action };
        self.propose(proposal, Instant::now() + OWN_DEADLINE).await
    }

    /// These guards, and that the permissions stay as they are until the proposal is applied.
    fn permitted_now(&self, guards: Guards) -> Guards {
        Guards { security_revision: self.machine.progress().borrow().security_revision, ..guards }
    }
}

impl Node {
    /// This node's id.
    pub fn id(&self) -> u64 {
        self.shared.node_id
    }

    /// Who leads, as this node knows.
    pub fn leadership(&self) -> Leadership {
        self.shared.consensus.leadership()
    }

    /// Whether it is known who leads.
    pub fn knows_leader(&self) -> bool {
        self.leadership() != Leadership::Unknown
    }

    /// Waits until a leader answers for this node's reads, as long as that takes. Errors: `Unavailable` when the node stops.
    pub async fn can_be_read(&self) -> Result<()> {
        let mut watch = self.shared.consensus.watch();
        // That it was voted for in an earlier life, as its log says, is no sign that it leads.
        while self.read(ReadMode::Linearizable, None, Instant::now() + OWN_DEADLINE).await.is_err() {
            self.shared.check_running()?;
            let changed = tokio::time::timeout(READ_RETRY, self.shared.consensus.changed(&mut watch)).await;
            changed.unwrap_or(Ok(())).map_err(|_| stopping())?;
        }
        Ok(())
    }

    /// The members of the cluster, as this node's log has them. Waits until that is known. Errors: `Unavailable` when the
    /// node stops.
    pub async fn member_ids(&self) -> Result<Vec<u64>> {
        let consensus = &self.shared.consensus;
        let mut watch = consensus.watch();
        loop {
            let members = consensus.members().all;
            if !members.is_empty() {
                return Ok(members.into_keys().collect());
            }
            consensus.changed(&mut watch).await.map_err(|_| stopping())?;
        }
    }

    /// The term in which this node leads, if it does.
    pub fn leads(&self) -> Option<u64> {
        match self.leadership() {
            Leadership::Me { term } => Some(term),
            _ => None,
        }
    }

    /// Whether the state here is known to be wrong.
    pub fn has_diverged(&self) -> bool {
        self.shared.check_state().is_err()
    }

    /// The connections to the other nodes.
    pub fn network(&self) -> &Arc<Peers> {
        &self.shared.network
    }

    /// Where faults are reported and waited for.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// A view that is as fresh as `mode` asks, of `revision` if one is named (the next page of a list), else of
    /// the newest revision here.
    ///
    /// Errors: `Unavailable` if no leader confirms a linearizable read; `TooStale`; `ViewTooOld` if the named
    /// revision is no longer kept; `DeadlineExceeded`.
    pub async fn read(&self, mode: ReadMode, revision: Option<u64>, deadline: Instant) -> Result<(View, ReadStamp)> {
        let shared = &self.shared;
        shared.check_running()?;
        shared.check_state()?;
        shared.measures.count_read(mode);
        let budget = deadline.saturating_duration_since(Instant::now());
        let mut progress = shared.machine.progress();
        let age_ms = match mode {
            ReadMode::Linearizable if sabotage::on(Sabotage::StaleRead) => 0,
            ReadMode::Linearizable => {
                let index = tokio::time::timeout_at(deadline, shared.read_index.get()).await;
                let index = index.map_err(|_| read_deadline(budget))??;
                read::applied(&mut progress, |progress| progress.position.index >= index, (deadline, budget)).await?;
                0
            }
            ReadMode::AtLeast(least) => {
                read::applied(&mut progress, |progress| progress.revision >= least, (deadline, budget)).await?;
                self.age_ms()
            }
            ReadMode::Stale(max_age) => {
                let (age_ms, max_age_ms) = (self.age_ms(), u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX));
                if age_ms > max_age_ms {
                    return Err(Error::TooStale { age_ms, max_age_ms });
                }
                age_ms
            }
        };
        if let Some(revision) = revision {
            read::applied(&mut progress, |progress| progress.revision >= revision, (deadline, budget)).await?;
        }
        let view = self.view(revision, Some((deadline, budget)))?;
        // It may have become known while this read waited.
        shared.check_state()?;
        let stamp = ReadStamp { revision: view.revision(), age_ms };
        Ok((view, stamp))
    }

    /// Keeps the revision of a view readable for some seconds, for the next page of a list.
    pub fn keep_for_pages(&self, view: &View) {
        // If it cannot be kept the next page says so.
        if let Ok(kept) = self.shared.machine.store().view(view.revision()) {
            self.shared.pages.keep(view.revision(), kept);
        }
    }

    /// What the newest state here holds of some scopes, as far as they exist, and its revision.
    pub fn accounts(&self, wanted: &[ScopeId]) -> (u64, Vec<Option<Account>>) {
        self.shared.machine.with_state(|_, meta| {
            let account = |scope| meta.scopes.get(scope).map(|scope| scope.account);
            (meta.revision, wanted.iter().map(account).collect())
        })
    }

    /// The greatest number that a scope was given, and what the newest state here has of some scopes, as far as they exist.
    pub fn scopes(&self, wanted: &[ScopeId]) -> (u32, Vec<Option<Scope>>) {
        self.shared.machine.with_state(|_, meta| {
            (meta.last_scope, wanted.iter().map(|scope| meta.scopes.get(scope).copied()).collect())
        })
    }

    /// What storage knows of itself.
    pub fn storage_status(&self) -> StoreStatus {
        self.shared.machine.store().status()
    }

    /// What the log has done since the start.
    pub fn log_statistics(&self) -> log::Statistics {
        self.shared.log.statistics()
    }

    /// How old the data here may be, in milliseconds; `u64::MAX` if this node has not heard from a leader.
    pub fn age_ms(&self) -> u64 {
        let shared = &self.shared;
        match shared.consensus.leadership() {
            Leadership::Me { .. } => shared.network.freshness().lead().map_or(u64::MAX, |lead| lead.quorum_age_ms),
            _ => {
                let applied = shared.machine.progress().borrow().position.index;
                shared.network.freshness().age_ms(applied)
            }
        }
    }

    /// Proposes a transaction; only a leader can. Answers once a quorum has it on disk and it is applied here.
    ///
    /// Errors: `Unavailable` (certainly not applied; with the leader, if one is known), `ResourceExhausted`
    /// (too much is queued, or there is no room on the disks), `Unknown`, `DeadlineExceeded`, `InvalidArgument` if it
    /// is too large.
    pub async fn propose(&self, request: Request, deadline: Instant) -> Result<Outcome> {
        self.propose_answered(request, deadline).await.map(|answered| answered.outcome)
    }

    async fn propose_answered(&self, request: Request, deadline: Instant) -> Result<Answered> {
        let shared = &self.shared;
        let Request { principal, attempt, guards, transaction } = request;
        check_size(&transaction)?;
        let guards = shared.permitted_now(guards);
        let call = attempt.map(Call::from);
        let action = Action::Transact(transaction);
        shared.propose_answered(Proposal { principal, call, guards, action }, deadline).await
    }

    /// Closes a session call with a refusal that a layer has made, unless an earlier attempt of it was executed: then its
    /// outcome. Errors: those of [`Node::propose`].
    pub async fn refuse(
        &self,
        principal: String,
        attempt: Attempt,
        reason: String,
        deadline: Instant,
    ) -> Result<Outcome> {
        let guards = self.shared.permitted_now(Guards::default());
        let proposal = Proposal { principal, call: Some(attempt.into()), guards, action: Action::Refuse { reason } };
        self.shared.propose(proposal, deadline).await
    }

    /// Waits for a state behind `revision`: the revision then. Errors: `Unavailable` when the node stops.
    pub async fn changed_since(&self, revision: u64) -> Result<u64> {
        let mut progress = self.shared.machine.progress();
        let newer = progress.wait_for(|progress| progress.revision > revision).await;
        newer.map(|progress| progress.revision).map_err(|_| stopping())
    }

    /// When locks or their queues change, as far as that is applied here.
    pub fn locks(&self) -> sync::watch::Receiver<u64> {
        self.shared.machine.locks()
    }

    /// Log time: on the leader now, elsewhere (and before a leader's clock runs) at the last entry that is applied here.
    pub fn log_time_ms(&self) -> u64 {
        let applied_ms = self.shared.machine.progress().borrow().log_time_ms;
        match self.shared.consensus.leadership() {
            Leadership::Me { term } => {
                let now = self.shared.environment.clock.monotonic();
                self.shared.log_clock.now_ms(term, now).max(applied_ms)
            }
            _ => applied_ms,
        }
    }

    /// Milliseconds since 1970, and chance: what new ids are made of.
    pub fn id_parts(&self) -> (u64, u128) {
        let clock = &self.shared.environment.clock;
        (clock.wall_ms(), clock.random())
    }

    /// Does work that takes long on a thread of its own. Errors: `Unexpected` if it panicked.
    pub async fn run_blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let threads = self.shared.environment.executor.as_ref();
        let done = executor::run_blocking(threads, name, move || Ok(work())).await;
        done.map_err(|fault| Error::Unexpected(fault.to_string()))
    }

    /// Opens a session that lives for `ttl_ms` without a call: its id.
    pub async fn open_session(&self, principal: String, ttl_ms: u64, deadline: Instant) -> Result<u64> {
        let bounds = limits::SESSION_TTL_MIN_MS..=limits::SESSION_TTL_MAX_MS;
        if !bounds.contains(&ttl_ms) {
            let rule = format!("{} to {} milliseconds", bounds.start(), bounds.end());
            return Err(Error::invalid("ttl_ms", ttl_ms.to_string(), rule));
        }
        match self.propose_session(principal, Action::OpenSession { ttl_ms }, deadline).await? {
            Outcome::Applied { revision, .. } => Ok(revision),
            Outcome::Refused { refusal, .. } => Err(Error::Refused(refusal.to_string())),
            other => Err(Error::Unexpected(format!("{other:?}"))),
        }
    }

    /// Keeps a session alive. Errors: `SessionExpired`.
    pub async fn keep_session(&self, principal: String, session: u64, deadline: Instant) -> Result<()> {
        match self.propose_session(principal, Action::KeepSession { session }, deadline).await? {
            Outcome::SessionExpired => Err(Error::SessionExpired { session }),
            _ => Ok(()),
        }
    }

    /// Ends a session. One that is gone already is no error.
    pub async fn close_session(&self, principal: String, session: u64, deadline: Instant) -> Result<()> {
        self.propose_session(principal, Action::CloseSession { session }, deadline).await?;
        Ok(())
    }

    async fn propose_session(&self, principal: String, action: Action, deadline: Instant) -> Result<Outcome> {
        let guards = self.shared.permitted_now(Guards::default());
        let proposal = Proposal { principal, call: None, guards, action };
        self.shared.propose(proposal, deadline).await
    }
}

fn stopping() -> Error {
    Error::Unavailable { reason: "the node is stopping".into(), leader: None }
}

fn read_deadline(budget: Duration) -> Error {
    Error::DeadlineExceeded {
        deadline_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
        waiting_for: "a quorum to confirm the leader".into(),
        may_have_applied: false,
    }
}

/// That a transaction keeps the bounds of what a layer may propose. Errors: `InvalidArgument`.
pub fn check_size(transaction: &Transaction) -> Result<()> {
    let counts = [
        ("compares", transaction.compares.len(), limits::COMPARES),
        ("then", transaction.then.len(), limits::LAYER_OPERATIONS),
        ("otherwise", transaction.otherwise.len(), limits::LAYER_OPERATIONS),
    ];
    match counts.into_iter().find(|(_, count, most)| count > most) {
        None => Ok(()),
        Some((field, count, most)) => {
            Err(Error::invalid(field, format!("{count} items"), format!("at most {most} items")))
        }
    }
}
