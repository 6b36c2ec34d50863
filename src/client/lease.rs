//! Leases, and the tasks that keep them alive.
//!
//! A lease counts as lost as soon as it may have expired: by this client's own clock, from *before* the request was sent that
//! was answered last. The store counts from when that request reached its leader, so it never ends one earlier; what it is
//! believed to guard is then left alone while it still exists.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep_until, timeout_at},
};

use super::{Client, Page, PageRequest, ReadMode, Written, endpoints::Preference, pages};
use crate::{
    Error, Result,
    model::{
        kind,
        lease::{AttachedKey, Kept, Lease},
    },
    proto::v1,
};

/// The cluster counts in whole milliseconds.
const GRAIN: Duration = Duration::from_millis(1);

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Leases: what is attached to one goes with it; see [`Client::leases`].
///
/// ```no_run
/// use std::time::Duration;
///
/// use meshstore::Client;
///
/// # async fn example(client: Client) -> meshstore::Result<()> {
/// let lease = client.leases().grant(Duration::from_secs(10)).await?;
/// // Gone ten seconds after this process is, or as soon as the lease is revoked.
/// client.with_lease(lease.id()).state().put("services/billing/7", "10.0.0.7:443").await?;
/// lease.lost().await;
/// println!("the lease may have expired: whoever looks may not find this service any more");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Leases {
    client: Client,
}

impl Leases {
    pub(super) fn of(client: Client) -> Self {
        Self { client }
    }

    /// The same with another read mode.
    #[must_use]
    pub fn with_read(self, mode: ReadMode) -> Self {
        Self { client: self.client.with_read(mode) }
    }

    /// Makes a lease, and keeps it alive for as long as the answer is held: see [`KeptLease`].
    ///
    /// Errors: `InvalidArgument` if it is to live for less than a second, or more than 30 days.
    pub async fn grant(&self, ttl: Duration) -> Result<KeptLease> {
        let sent = Instant::now();
        let id = self.make(ttl, 0).await?;
        Ok(KeptLease::keep(self.client.without_fence(), id, ttl, sent))
    }

    /// Makes a lease that nobody keeps alive of itself: its id. `id`: the one that it is to have.
    ///
    /// Errors: as of [`grant`](Self::grant); `AlreadyExists` if there is one with this id.
    pub async fn grant_only(&self, ttl: Duration, id: Option<u64>) -> Result<u64> {
        self.make(ttl, id.unwrap_or_default()).await
    }

    async fn make(&self, ttl: Duration, id: u64) -> Result<u64> {
        Ok(self.client.execute(v1::GrantLeaseRequest { attempt: None, ttl_ms: ms(ttl), id }).await?.id)
    }

    /// Gives a lease its whole time again: how long that is.
    ///
    /// Errors: `NotFound` if it has expired.
    pub async fn keep_alive(&self, id: u64) -> Result<Duration> {
        keep_alive(&self.client, id, Instant::now() + self.client.deadline).await
    }

    /// The same for up to 1,000 leases at one revision: which of them live on, and which have expired.
    ///
    /// Errors: `NotFound` if all have.
    pub async fn keep_all_alive(&self, ids: Vec<u64>) -> Result<Kept> {
        Ok(self.client.ask(Preference::Leader, v1::KeepAliveRequest { ids }).await?.into())
    }

    /// Ends a lease now, with all that is attached to it.
    ///
    /// Errors: `NotFound` if there is none.
    pub async fn revoke(&self, id: u64) -> Result<Written> {
        self.client.write(v1::RevokeLeaseRequest { attempt: None, id }).await
    }

    /// A lease, and what is attached to it.
    ///
    /// Errors: `NotFound` if there is none.
    pub async fn show(&self, id: u64) -> Result<(Lease, Vec<AttachedKey>)> {
        self.client.read(v1::ShowLeaseRequest { read: None, id }).await?.try_into()
    }

    /// A page of leases, in order of their ids.
    ///
    /// Errors: `InvalidArgument` if the cursor is not one of this list.
    pub async fn list(&self, page: PageRequest) -> Result<Page<Lease>> {
        self.client.read(v1::ListLeasesRequest { read: None, page: Some(page.into()) }).await?.try_into()
    }

    /// All leases.
    ///
    /// Errors: those of a read.
    pub async fn list_all(&self) -> Result<Vec<Lease>> {
        pages::all(move |page| self.list(page)).await
    }
}

async fn keep_alive(client: &Client, id: u64, deadline: Instant) -> Result<Duration> {
    let answer = client.ask_until(deadline, Preference::Leader, v1::KeepAliveRequest { ids: vec![id] }).await?;
    let kept = answer.kept.first().ok_or_else(|| Error::NotFound { kind: kind::LEASE, name: id.to_string() })?;
    Ok(Duration::from_millis(kept.ttl_ms))
}

/// A lease that is kept alive until this is dropped, every third of its time. It then expires by itself, unless it was
/// [revoked](Self::revoke).
#[derive(Debug)]
pub struct KeptLease {
    client: Client,
    id: u64,
    ttl: Duration,
    until: watch::Receiver<Instant>,
    lost: watch::Receiver<bool>,
    _keeper: Arc<Keeper>,
}

/// The task that keeps a lease alive; it ends with the last handle.
#[derive(Debug)]
struct Keeper(AbortHandle);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl KeptLease {
    /// Keeps a lease alive that was asked for at `sent`.
    pub(super) fn keep(client: Client, id: u64, ttl: Duration, sent: Instant) -> Self {
        // As the store counts it.
        let ttl = Duration::from_millis(ms(ttl));
        let (until, seen_until) = watch::channel(end(sent, ttl));
        let (lost, seen_lost) = watch::channel(false);
        let task = tokio::spawn(keep(client.clone(), id, ttl, (until, lost)));
        let keeper = Arc::new(Keeper(task.abort_handle()));
        Self { client, id, ttl, until: seen_until, lost: seen_lost, _keeper: keeper }
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How long it lives without being kept alive.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether it may have expired.
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow() || Instant::now() >= *self.until.borrow()
    }

    /// Ends when the lease may have expired, by what the store says or by this client's own clock. It does not live again.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut lost = self.lost.clone();
        async move {
            // The task also ends when the handle is dropped: then nobody keeps the lease any more.
            let _ = lost.wait_for(|lost| *lost).await;
        }
    }

    /// Ends the lease now, with all that is attached to it. One that has expired is as good as revoked.
    ///
    /// Errors: as of any call; it then expires by itself.
    pub async fn revoke(self) -> Result<()> {
        revoke(&self.client, self.id).await
    }
}

/// Ends a lease; one that has expired is as good as that.
pub(super) async fn revoke(client: &Client, id: u64) -> Result<()> {
    match client.write(v1::RevokeLeaseRequest { attempt: None, id }).await {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn end(sent: Instant, ttl: Duration) -> Instant {
    sent + ttl.saturating_sub(GRAIN)
}

async fn keep(client: Client, id: u64, ttl: Duration, (until, lost): (watch::Sender<Instant>, watch::Sender<bool>)) {
    loop {
        let ends = *until.borrow();
        let sent = ends - ttl.saturating_sub(GRAIN) + ttl / 3;
        sleep_until(sent.min(ends)).await;
        let sent = Instant::now();
        // However long the call would go on: what counts is when the lease may have ended.
        match timeout_at(ends, keep_alive(&client, id, ends)).await {
            Ok(Ok(_)) => {
                until.send_replace(end(sent, ttl));
            }
            Ok(Err(Error::NotFound { .. })) => break,
            // Retried within the call, until the end.
            Ok(Err(error)) if Instant::now() < ends => {
                tracing::debug!(lease = id, %error, "not kept alive");
                sleep_until((Instant::now() + ttl / 10).min(ends)).await;
                if Instant::now() >= ends {
                    break;
                }
            }
            Ok(Err(_)) | Err(_) => break,
        }
    }
    lost.send_replace(true);
}
