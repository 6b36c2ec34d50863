//! Locks with fencing tokens, and elections.
//!
//! Each lock that is taken has a lease of its own, granted before it and revoked with it. So letting go is one transaction, and
//! whoever gives up waiting, in whatever way, leaves nothing behind: the lease is revoked when its [`Tenure`] is dropped, and
//! expires by itself if not even that happens.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::{
    Client, ReadMode, Written,
    endpoints::Preference,
    lease::{self, KeptLease},
};
use crate::{
    Error, Result, limits,
    model::{
        kind,
        lease::{Fence, Holder},
    },
    proto::{convert::expected, v1},
};

/// Most calls of a client that wait at the store at once. They last some seconds, and must leave room on its connection for
/// those that keep leases alive.
pub(super) const WAITS: usize = 50;
const _: () = assert!(WAITS < limits::STREAMS_PER_CONNECTION as usize);
/// Nobody waits for longer.
const FOREVER: Duration = Duration::from_secs(366 * 86_400);
/// How long a lease of a lock lives, unless something else is said.
const TTL: Duration = Duration::from_secs(10);

/// A lock; see [`Client::lock`].
///
/// A lock alone does not keep its holders apart: one that was paused for longer than its lease lives goes on, while another holds
/// the lock already. So whatever must not be mixed up is written through [`LockGuard::client`], whose writes the store refuses as
/// soon as the lock is lost.
///
/// ```no_run
/// use std::time::Duration;
///
/// use meshstore::Client;
///
/// # async fn example(client: Client) -> meshstore::Result<()> {
/// let held = client.lock("nightly-report").acquire(Duration::from_secs(30)).await?;
/// held.client().state().put("report/last", "2026-01-01").await?;
/// held.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Lock {
    client: Client,
    name: String,
    ttl: Duration,
    value: Bytes,
}

impl Lock {
    pub(super) fn of(client: Client, name: String) -> Self {
        Self { client, name, ttl: TTL, value: Bytes::new() }
    }

    /// The same with leases that live so long, a second to 30 days, without being kept alive: as long may the lock stay with
    /// somebody who has vanished.
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// Takes the lock. Who comes first is served first.
    ///
    /// Errors: `DeadlineExceeded` if it is not had within this time, however long a call of the client may take;
    /// `InvalidArgument` for a name that is empty or over 255 bytes. Nothing is left behind then.
    pub async fn acquire(&self, within: Duration) -> Result<LockGuard> {
        match self.acquire_unless(within, std::future::pending()).await? {
            Some(held) => Ok(held),
            None => Err(Error::Unexpected("nobody gave up, and the lock was given up".into())),
        }
    }

    /// The same; `None` as soon as `given_up` ends: then nothing is left behind either.
    ///
    /// Errors: as of [`acquire`](Self::acquire).
    pub async fn acquire_unless(
        &self,
        within: Duration,
        given_up: impl Future<Output = ()>,
    ) -> Result<Option<LockGuard>> {
        let until = Instant::now() + within.min(FOREVER);
        tokio::pin!(given_up);
        let mut tenure = tokio::select! {
            tenure = Tenure::begin(self) => tenure?,
            // A lease that was granted nevertheless expires by itself.
            () = &mut given_up => return Ok(None),
        };
        loop {
            let asked = tokio::select! {
                asked = tenure.ask(self, until, false) => asked,
                () = &mut given_up => {
                    tenure.end().await?;
                    return Ok(None);
                }
            };
            match asked {
                Ok(Some(token)) => return Ok(Some(self.held(tenure, token))),
                Ok(None) => {}
                // The lease is gone, and the place with it: another takes its turn at the end.
                Err(Error::NotFound { kind: kind::LEASE, .. }) if Instant::now() < until => {
                    tenure = Tenure::begin(self).await?;
                }
                // The store may be away for a while: the place is kept as long as the lease lives.
                Err(error) if Instant::now() < until && is_passing(&error) => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= until {
                // If not even that can be done, it expires.
                let _ = tenure.end().await;
                return Err(Error::DeadlineExceeded {
                    deadline_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
                    waiting_for: format!("waiting for the lock {}, which others hold", self.name),
                    may_have_applied: false,
                });
            }
        }
    }

    /// Takes the lock if it is free, and nobody waits for it; `None` if not.
    ///
    /// Errors: as of [`acquire`](Self::acquire).
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>> {
        let tenure = Tenure::begin(self).await?;
        match tenure.ask(self, Instant::now() + self.client.deadline, true).await? {
            Some(token) => Ok(Some(self.held(tenure, token))),
            None => tenure.end().await.map(|()| None),
        }
    }

    fn held(&self, tenure: Tenure, token: u64) -> LockGuard {
        let fence = Fence { lock: self.name.clone(), token };
        LockGuard { client: self.client.with_fence(fence.clone()), fence, tenure }
    }

    /// Who holds the lock; `None`: nobody.
    ///
    /// Errors: those of a read.
    pub async fn holder(&self) -> Result<Option<Holder>> {
        self.show().await.map(|(holder, _)| holder)
    }

    /// The same, and how many wait for it, as far as 1,000 are counted.
    ///
    /// Errors: those of a read.
    pub async fn show(&self) -> Result<(Option<Holder>, u64)> {
        Ok(self.client.read(v1::ShowLockRequest { read: None, name: self.name.clone() }).await?.into())
    }

    /// Takes the lock from a lease that holds it, or its place in the queue, by ending that lease. Whoever held the lock learns of
    /// it when he keeps his lease alive, at the latest after a third of its time; his fenced writes are refused at once.
    ///
    /// Errors: `NotFound` if that lease has neither.
    pub async fn release_of(&self, lease: u64) -> Result<Written> {
        let name = self.name.clone();
        self.client.write(v1::ReleaseLockRequest { attempt: None, name, lease, end_lease: true }).await
    }

    /// Watches who holds the lock.
    pub fn observe(&self) -> Observer {
        Observer { client: self.client.clone(), name: self.name.clone(), known: None, revision: 0 }
    }
}

/// The lease of a lock that is held or waited for. When dropped it is revoked in the background.
#[derive(Debug)]
struct Tenure {
    client: Client,
    lease: Option<KeptLease>,
    id: u64,
}

impl Tenure {
    async fn begin(lock: &Lock) -> Result<Self> {
        let lease = lock.client.leases().grant(lock.ttl).await?;
        // Whoever holds a lock under another one lets go of it also when the other is lost.
        Ok(Self { client: lock.client.without_fence(), id: lease.id(), lease: Some(lease) })
    }

    /// Asks for the lock: the token if it is held. The place in the queue is kept between two calls.
    async fn ask(&self, lock: &Lock, until: Instant, only_if_free: bool) -> Result<Option<u64>> {
        let (name, value) = (lock.name.clone(), lock.value.clone());
        let request = v1::AcquireLockRequest { name, lease: self.id, value, only_if_free };
        let Ok(_turn) = timeout_at(until, lock.client.shared.waits.acquire()).await else { return Ok(None) };
        // Also a short patience is enough for one question.
        let deadline =
            until.max(Instant::now() + Duration::from_millis(500)).min(Instant::now() + lock.client.deadline);
        let answer = lock.client.ask_until(deadline, Preference::Leader, request).await?;
        lock.client.shared.seen(answer.revision);
        Ok(Some(answer.token).filter(|token| *token > 0))
    }

    async fn end(mut self) -> Result<()> {
        let lease = self.lease.take();
        match lease {
            Some(lease) => lease.revoke().await,
            None => Ok(()),
        }
    }
}

/// Whether the same may be asked with more luck later.
fn is_passing(error: &Error) -> bool {
    error.is_retryable() || matches!(error, Error::DeadlineExceeded { .. })
}

impl Drop for Tenure {
    fn drop(&mut self) {
        if self.lease.take().is_none() {
            return;
        }
        let (client, id) = (self.client.clone(), self.id);
        // Where nothing runs any more it expires by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = lease::revoke(&client, id).await {
                    tracing::debug!(lease = id, %error, "a lease is left to expire");
                }
            });
        }
    }
}

/// A lock that is held, until this is dropped: then it is let go in the background. [`release`](Self::release) waits for that.
#[derive(Debug)]
pub struct LockGuard {
    client: Client,
    fence: Fence,
    tenure: Tenure,
}

impl LockGuard {
    /// The fencing token: greater than those of all who held the lock before.
    pub fn token(&self) -> u64 {
        self.fence.token
    }

    /// What makes a write depend on the lock; see [`Client::with_fence`].
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// A client whose writes are refused with `Fenced` as soon as the lock is lost.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The lease that holds the lock: what is attached to it goes with it.
    pub fn lease(&self) -> u64 {
        self.tenure.id
    }

    /// Whether the lock may be lost.
    pub fn is_lost(&self) -> bool {
        self.tenure.lease.as_ref().is_none_or(KeptLease::is_lost)
    }

    /// Ends when the lock may be lost; see [`KeptLease::lost`].
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let lost = self.tenure.lease.as_ref().map(KeptLease::lost);
        async move {
            if let Some(lost) = lost {
                lost.await;
            }
        }
    }

    /// Lets the lock go. One that is lost is as good as that.
    ///
    /// Errors: as of any call; it is let go when its lease expires.
    pub async fn release(self) -> Result<()> {
        self.tenure.end().await
    }
}

/// An election; see [`Client::election`].
///
/// It is a lock whose holder says something: who leads holds it, who stands waits for it. So a leader has a fencing token, too.
#[derive(Clone, Debug)]
pub struct Election {
    lock: Lock,
}

impl Election {
    pub(super) fn of(client: Client, name: String) -> Self {
        Self { lock: Lock::of(client, name) }
    }

    /// The same with leases that live so long; see [`Lock::with_ttl`].
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        Self { lock: self.lock.with_ttl(ttl) }
    }

    /// Stands for election, and waits until elected. `value`, at most 56 KiB, is what all others see of the leader. The lead is
    /// given up as a lock is let go.
    ///
    /// Errors: as of [`Lock::acquire`].
    pub async fn campaign(&self, value: impl Into<Bytes>, within: Duration) -> Result<LockGuard> {
        self.candidate(value).acquire(within).await
    }

    /// What a candidate takes to be elected: the lock, whose holder says this.
    pub fn candidate(&self, value: impl Into<Bytes>) -> Lock {
        Lock { value: value.into(), ..self.lock.clone() }
    }

    /// Takes the lead from a lease, or ends its candidacy, by ending that lease.
    ///
    /// Errors: as of [`Lock::release_of`].
    pub async fn resign(&self, lease: u64) -> Result<Written> {
        self.lock.release_of(lease).await
    }

    /// Who leads; `None`: nobody.
    ///
    /// Errors: those of a read.
    pub async fn leader(&self) -> Result<Option<Holder>> {
        self.lock.holder().await
    }

    /// Watches who leads.
    pub fn observe(&self) -> Observer {
        self.lock.observe()
    }
}

/// Who holds a lock or leads, again and again.
#[derive(Debug)]
pub struct Observer {
    client: Client,
    name: String,
    known: Option<u64>,
    revision: u64,
}

impl Observer {
    /// Who holds it: at first at once, then as soon as it is another than was told last; `None`: nobody. Who held it only
    /// briefly may be passed over.
    ///
    /// Errors: those of a read. It may be asked again then.
    pub async fn next(&mut self) -> Result<Option<Holder>> {
        loop {
            // Never older than what was told.
            let read = match self.known {
                None => self.client.mode,
                Some(_) => ReadMode::AtLeast(self.revision),
            };
            let (name, known_token) = (self.name.clone(), self.known);
            let request = v1::ObserveLockRequest { read: Some(read.into()), name, known_token };
            let turn = self.client.shared.waits.acquire().await;
            let answer = self.client.ask(Preference::Any, request).await?;
            drop(turn);
            self.revision = expected("header", answer.header)?.revision.max(self.revision);
            let (holder, _) = <(Option<Holder>, u64)>::from(answer);
            let token = holder.as_ref().map_or(0, |holder| holder.token);
            if self.known.replace(token) != Some(token) {
                return Ok(holder);
            }
        }
    }
}
