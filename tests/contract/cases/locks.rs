//! Locks: one holder at a time, in turn, with tokens that the store checks; and elections.

use std::time::Duration;

use meshstore::{
    Client, Error, Result,
    client::{Change, Fence, LockGuard, NamespaceSettings, RecordId, Set, Transaction, Value},
    proto::{
        error_from_status,
        lease::{FENCE, fence_header},
        v1::{
            AcquireLockRequest, Attempt, GetStateRequest, OpenSessionRequest, ReleaseLockRequest,
            lock_client::LockClient, mesh_client::MeshClient, session_client::SessionClient,
        },
    },
};
use tokio::task::JoinSet;
use tonic::Request;

use super::{assert_missing, invalid_field, leader, session, unique};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Asks once for a lock, without a client in between that would ask again: the token, 0 if another holds it.
async fn ask(client: &Client, name: &str, lease: u64, only_if_free: bool) -> Result<u64> {
    let mut locks = LockClient::new(leader(client).await);
    let mut request = Request::new(AcquireLockRequest { name: name.into(), lease, value: "".into(), only_if_free });
    request.set_timeout(Duration::from_secs(5));
    let answer = locks.acquire(request).await.map_err(|status| error_from_status(&status))?;
    Ok(answer.into_inner().token)
}

/// Takes a free lock with this lease: the token.
pub async fn hold(client: &Client, name: &str, lease: u64) -> u64 {
    let token = ask(client, name, lease, true).await.unwrap();
    assert!(token > 0, "{name} is free");
    token
}

async fn lease(client: &Client) -> u64 {
    client.leases().grant_only(MINUTE, None).await.unwrap()
}

/// Waits until so many wait for a lock.
async fn waiting(client: &Client, name: &str, count: u64) {
    for _ in 0..10_000 {
        if client.lock(name).show().await.unwrap().1 == count {
            return;
        }
    }
    panic!("{name} never has {count} that wait");
}

fn fenced<T: std::fmt::Debug>(answer: Result<T>, fence: &Fence, newest: u64) {
    let expected = Error::Fenced { lock: fence.lock.clone(), token: fence.token, newest };
    assert_eq!(answer.map(|answer| format!("{answer:?}")), Err(expected));
}

pub async fn a_lock_is_given_on_in_turn(client: &Client) {
    let (name, lock) = (unique("turn"), client.lock(unique("unused")));
    assert_eq!(lock.show().await.unwrap(), (None, 0));
    let lock = client.lock(&name);
    let held = lock.acquire(MINUTE).await.unwrap();
    let mut contenders = JoinSet::new();
    for number in 0..4 {
        let lock = lock.clone();
        contenders.spawn(async move { (number, lock.acquire(MINUTE).await.unwrap()) });
        waiting(client, &name, number + 1).await;
    }
    let (holder, _) = lock.show().await.unwrap();
    assert_eq!(holder.map(|holder| (holder.token, holder.lease)), Some((held.token(), held.lease())));
    let mut last = held.token();
    held.release().await.unwrap();
    for expected in 0..4 {
        let (number, guard) = contenders.join_next().await.unwrap().unwrap();
        assert_eq!(number, expected);
        assert!(guard.token() > last && !guard.is_lost());
        last = guard.token();
        assert_eq!(lock.show().await.unwrap().1, 3 - number);
        guard.release().await.unwrap();
    }
    assert_eq!(lock.show().await.unwrap(), (None, 0));
}

pub async fn trying_takes_a_lock_or_leaves_nothing(client: &Client) {
    let name = unique("try");
    let lock = client.lock(&name);
    let held = lock.try_acquire().await.unwrap().unwrap();
    assert!(lock.try_acquire().await.unwrap().is_none());
    assert_eq!(lock.show().await.unwrap().1, 0);
    // Nobody overtakes those who wait.
    let (first, second) = (lease(client).await, lease(client).await);
    let queued = ask(client, &name, first, false);
    let released = async {
        waiting(client, &name, 1).await;
        held.release().await.unwrap();
    };
    let (token, ()) = tokio::join!(queued, released);
    let token = token.unwrap();
    assert!(token > 0);
    assert_eq!(ask(client, &name, first, false).await, Ok(token), "asking again is harmless");
    assert_eq!(ask(client, &name, first, true).await, Ok(token));
    assert_eq!(ask(client, &name, second, true).await, Ok(0));
    for lease in [first, second] {
        client.leases().revoke(lease).await.unwrap();
    }
    lock.try_acquire().await.unwrap().unwrap().release().await.unwrap();
}

pub async fn who_gives_up_leaves_nothing_behind(client: &Client) {
    let name = unique("patience");
    let lock = client.lock(&name);
    let held = lock.acquire(MINUTE).await.unwrap();
    let late = lock.acquire(Duration::from_millis(50)).await;
    assert!(matches!(late, Err(Error::DeadlineExceeded { may_have_applied: false, .. })), "{late:?}");
    assert_eq!(lock.show().await.unwrap().1, 0);
    let waits = {
        let lock = lock.clone();
        tokio::spawn(async move { lock.acquire(MINUTE).await.map(drop) })
    };
    waiting(client, &name, 1).await;
    waits.abort();
    waiting(client, &name, 0).await;
    // A guard that is dropped lets go, too.
    drop(held);
    lock.acquire(MINUTE).await.unwrap().release().await.unwrap();
}

pub async fn a_lock_is_let_go_by_its_own_lease_only(client: &Client) {
    let name = unique("own");
    let (own, other) = (lease(client).await, lease(client).await);
    hold(client, &name, own).await;
    let lock = client.lock(&name);
    let nothing = format!("{name}, held or waited for by lease {other}");
    assert_missing(lock.release_of(other).await, "lock", &nothing);
    assert_eq!(lock.holder().await.unwrap().map(|holder| holder.lease), Some(own));
    let mut locks = LockClient::new(leader(client).await);
    let session = session(&leader(client).await).await;
    let release = |attempt| ReleaseLockRequest {
        end_lease: false,
        attempt: Some(Attempt { session, sequence: 1, answered_below: 1, attempt }),
        name: name.clone(),
        lease: own,
    };
    let first = locks.release(release(1)).await.unwrap().into_inner().revision;
    hold(client, &name, other).await;
    assert_eq!(locks.release(release(2)).await.unwrap().into_inner().revision, first, "it is answered as the first");
    assert_eq!(lock.holder().await.unwrap().map(|holder| holder.lease), Some(other));
    client.leases().revoke(own).await.unwrap();
    client.leases().revoke(other).await.unwrap();
    assert_eq!(lock.holder().await.unwrap(), None);
}

/// Writes of each surface with a fence; how each was answered.
async fn write_all(client: &Client, name: &str) -> Vec<Result<()>> {
    let transaction = Transaction::default().put_state(format!("{name}t"), "1");
    vec![
        client.state().put(name, "1").await.map(drop),
        client.node_state().save_json(name, "1").await.map(drop),
        client.routes().save_json(name, "1").await.map(drop),
        client.config().save_json(name, "1").await.map(drop),
        client.kv(name).set(Set::new("k", Value::Json("1".into()))).await.map(drop),
        client.kv(name).set_many(vec![Set::new("l", Value::Json("1".into()))]).await.map(drop),
        client.kv(name).delete("k").await.map(drop),
        client.commit(transaction).await.map(drop),
        client.namespaces().create(&format!("{name}n"), "{}", NamespaceSettings::default()).await.map(drop),
        client.raft_log().append("1").await.map(drop),
        client.state().delete(name).await.map(drop),
    ]
}

pub async fn a_write_with_a_token_needs_the_lock(client: &Client) {
    let (name, lock_name) = (unique("fenced"), unique("fence"));
    let (first, second) = (lease(client).await, lease(client).await);
    let old = Fence { lock: lock_name.clone(), token: hold(client, &lock_name, first).await };
    let with_old = client.with_fence(old.clone());
    for answer in write_all(&with_old, &name).await {
        answer.unwrap();
    }
    with_old.with_lease(first).state().put(&name, "attached").await.unwrap();
    // Nobody holds it.
    client.leases().revoke(first).await.unwrap();
    let other = unique("fenced");
    client.kv(&other).set(Set::new("k", Value::Json("0".into()))).await.unwrap();
    let before = client.last_seen_revision();
    for answer in write_all(&with_old, &other).await {
        fenced(answer, &old, 0);
    }
    // Another does.
    let new = Fence { lock: lock_name.clone(), token: hold(client, &lock_name, second).await };
    assert!(new.token > old.token);
    for answer in write_all(&with_old, &other).await {
        fenced(answer, &old, new.token);
    }
    assert_missing(client.state().get(&other).await, "state", &other);
    assert_missing(client.routes().get(&other).await, "route", &other);
    assert_eq!(client.kv(&other).get("k").await.unwrap().metadata.mod_revision, before);
    for answer in write_all(&client.with_fence(new.clone()), &other).await {
        answer.unwrap();
    }
    // A lock that was never there, and a token that is still to come.
    let unknown = Fence { lock: unique("never"), token: 1 };
    fenced(client.with_fence(unknown.clone()).state().put(&name, "1").await, &unknown, 0);
    let future = Fence { token: new.token + 1_000, ..new.clone() };
    fenced(client.with_fence(future.clone()).state().put(&name, "1").await, &future, new.token);
    client.leases().revoke(second).await.unwrap();
}

pub async fn only_writes_take_a_fence(client: &Client) {
    let name = unique("fence");
    let wire = leader(client).await;
    let header = fence_header(&Fence { lock: name.clone(), token: 1 });
    let mut read = Request::new(GetStateRequest { read: None, key: "k".into() });
    read.metadata_mut().insert_bin(FENCE, header.clone());
    let answer = MeshClient::new(wire.clone()).get_state(read).await;
    assert_eq!(invalid_field(answer.map_err(|status| error_from_status(&status))), "fence");
    let mut open = Request::new(OpenSessionRequest { ttl_ms: 0 });
    open.metadata_mut().insert_bin(FENCE, header);
    let answer = SessionClient::new(wire).open_session(open).await;
    assert_eq!(invalid_field(answer.map_err(|status| error_from_status(&status))), "fence");
    let nobody = client.with_fence(Fence { lock: String::new(), token: 1 });
    assert_eq!(invalid_field(nobody.state().put(&name, "1").await), "fence.lock");
    let zero = client.with_fence(Fence { lock: name.clone(), token: 0 });
    assert_eq!(invalid_field(zero.state().put(&name, "1").await), "fence.token");
    assert_missing(client.state().get(&name).await, "state", &name);
}

pub async fn what_is_wrong_with_a_lock_is_named(client: &Client) {
    for name in ["", &"n".repeat(256)] {
        assert_eq!(invalid_field(client.lock(name).holder().await), "name");
        assert_eq!(invalid_field(client.lock(name).release_of(1).await), "name");
        assert_eq!(invalid_field(client.lock(name).acquire(SECOND).await), "name");
        assert_eq!(invalid_field(client.lock(name).observe().next().await), "name");
    }
    assert_eq!(invalid_field(client.lock("n").with_ttl(Duration::ZERO).acquire(SECOND).await), "ttl_ms");
    assert_eq!(invalid_field(ask(client, "n", 0, true).await), "lease");
    assert_missing(ask(client, "n", u64::MAX, false).await, "lease", &u64::MAX.to_string());
    let large = client.election("n").campaign(vec![0; (56 << 10) + 1], SECOND).await;
    assert_eq!(invalid_field(large), "value");
    assert_eq!(client.lock("n").show().await.unwrap(), (None, 0));
}

pub async fn a_holder_that_vanishes_is_followed_by_the_next(client: &Client) {
    let name = unique("vanished");
    let gone = client.leases().grant_only(SECOND, None).await.unwrap();
    let old = Fence { lock: name.clone(), token: hold(client, &name, gone).await };
    // In front of the waiter there is one that vanishes, too.
    let waits = client.leases().grant_only(SECOND, None).await.unwrap();
    let queued = {
        let (client, name) = (client.clone(), name.clone());
        tokio::spawn(async move { ask(&client, &name, waits, false).await })
    };
    waiting(client, &name, 1).await;
    queued.abort();
    let next = client.lock(&name).acquire(MINUTE).await.unwrap();
    assert!(next.token() > old.token);
    fenced(client.with_fence(old.clone()).state().put(&name, "old").await, &old, next.token());
    next.client().state().put(&name, "new").await.unwrap();
    assert_missing(client.leases().show(gone).await, "lease", &gone.to_string());
    let answer = ask(client, &name, gone, false).await;
    assert_missing(answer, "lease", &gone.to_string());
    next.release().await.unwrap();
}

pub async fn a_holder_is_told_that_its_lock_is_lost(client: &Client) {
    let name = unique("lost");
    let held = client.lock(&name).with_ttl(SECOND).acquire(MINUTE).await.unwrap();
    client.leases().revoke(held.lease()).await.unwrap();
    held.lost().await;
    assert!(held.is_lost());
    let fence = held.fence();
    fenced(held.client().state().put(&name, "1").await, &fence, 0);
    held.release().await.unwrap();
}

/// A new leader takes nothing away, and who waited goes on waiting where it stood.
pub async fn locks_and_queues_outlive_a_change_of_the_leader(client: &Client) {
    let (name, cluster) = (unique("led"), client.cluster());
    let lock = client.lock(&name);
    let held = lock.acquire(MINUTE).await.unwrap();
    let mut contenders = JoinSet::new();
    for number in 0..2 {
        let lock = lock.clone();
        contenders.spawn(async move { (number, lock.acquire(MINUTE).await.unwrap()) });
        waiting(client, &name, number + 1).await;
    }
    let members = cluster.members().await.unwrap();
    let others = members.members.iter().filter_map(|status| status.member.as_ref()).map(|member| member.node_id);
    for other in others.filter(|id| *id != members.leader_id) {
        cluster.transfer_leadership(other).await.unwrap();
        let (lease, _) = client.leases().show(held.lease()).await.unwrap();
        assert!(lease.remaining_ms > 0 && !held.is_lost());
        assert_eq!(lock.show().await.unwrap().1, 2);
    }
    held.client().state().put(&name, "1").await.unwrap();
    held.release().await.unwrap();
    for expected in 0..2 {
        let (number, guard) = contenders.join_next().await.unwrap().unwrap();
        assert_eq!(number, expected);
        guard.release().await.unwrap();
    }
}

/// Read, add one, write: without the lock much of it would be lost.
pub async fn what_is_done_under_a_lock_is_done_one_after_the_other(client: &Client) {
    const CONTENDERS: u64 = 6;
    const TIMES: u64 = 5;
    let name = unique("counter");
    client.state().put(&name, "0").await.unwrap();
    let mut contenders = JoinSet::new();
    for _ in 0..CONTENDERS {
        let (client, name) = (client.clone(), name.clone());
        contenders.spawn(async move {
            let mut tokens = Vec::new();
            for _ in 0..TIMES {
                let held: LockGuard = client.lock(&name).acquire(MINUTE).await.unwrap();
                let read = client.state().get(&name).await.unwrap().value;
                let count: u64 = std::str::from_utf8(&read).unwrap().parse().unwrap();
                held.client().state().put(&name, (count + 1).to_string()).await.unwrap();
                tokens.push((held.token(), count));
                held.release().await.unwrap();
            }
            tokens
        });
    }
    let mut done: Vec<(u64, u64)> = contenders.join_all().await.into_iter().flatten().collect();
    done.sort_unstable();
    let counts: Vec<u64> = done.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, (0..CONTENDERS * TIMES).collect::<Vec<_>>(), "in the order of the tokens");
}

pub async fn a_leader_is_elected_seen_and_followed(client: &Client) {
    let name = unique("election");
    let election = client.election(&name);
    let mut observer = election.observe();
    assert_eq!(observer.next().await, Ok(None));
    let first = election.campaign("host-1", MINUTE).await.unwrap();
    let seen = observer.next().await.unwrap().unwrap();
    assert_eq!((seen.token, seen.lease, seen.value.as_ref()), (first.token(), first.lease(), &b"host-1"[..]));
    assert_eq!(election.leader().await.unwrap(), Some(seen));
    let second = {
        let election = election.clone();
        tokio::spawn(async move { election.campaign("host-2", MINUTE).await.unwrap() })
    };
    waiting(client, &name, 1).await;
    let resigned = first.fence();
    election.resign(first.lease()).await.unwrap();
    // Whose lead was taken is told, and does not come back.
    first.lost().await;
    assert!(first.is_lost());
    assert_missing(client.leases().show(first.lease()).await, "lease", &first.lease().to_string());
    let second = second.await.unwrap();
    let seen = loop {
        if let Some(seen) = observer.next().await.unwrap() {
            break seen;
        }
    };
    assert_eq!((seen.token, seen.value.as_ref()), (second.token(), &b"host-2"[..]));
    fenced(first.client().state().put(&name, "1").await, &resigned, second.token());
    let delete = Transaction::default().change(Change::Delete(RecordId::State(name.clone())));
    fenced(client.with_fence(resigned.clone()).commit(delete).await, &resigned, second.token());
    second.client().state().put(&name, "2").await.unwrap();
    second.release().await.unwrap();
    assert_eq!(observer.next().await, Ok(None));
    first.release().await.unwrap();
}

/// Whoever gives up leaves nothing behind, and whoever has all the time waits as long as it takes.
pub async fn waiting_can_be_given_up_and_has_no_end(client: &Client) {
    let name = unique("patience");
    let lock = client.lock(&name);
    let held = lock.acquire(Duration::MAX).await.unwrap();
    let (give_up, given_up) = tokio::sync::oneshot::channel::<()>();
    let waiter = {
        let lock = lock.clone();
        tokio::spawn(async move { lock.acquire_unless(Duration::MAX, async { drop(given_up.await) }).await })
    };
    waiting(client, &name, 1).await;
    give_up.send(()).unwrap();
    assert!(waiter.await.unwrap().unwrap().is_none());
    assert_eq!(lock.show().await.unwrap().1, 0, "nothing is left behind");
    held.release().await.unwrap();
    assert!(lock.acquire_unless(MINUTE, std::future::pending()).await.unwrap().is_some());
}

/// What is asked for under a fence heeds it: also what may be asked twice.
pub async fn leases_and_locks_of_a_fenced_client_heed_the_fence(client: &Client) {
    let (outer, inner) = (unique("outer"), unique("inner"));
    let held = client.lock(&outer).acquire(MINUTE).await.unwrap();
    let kept = lease(client).await;
    let nested = held.client().lock(&inner).acquire(MINUTE).await.unwrap();
    let fence = held.fence();
    client.lock(&outer).release_of(held.lease()).await.unwrap();
    let is_fenced = |answer: Result<()>| assert!(matches!(answer, Err(Error::Fenced { .. })), "{answer:?}");
    is_fenced(client.with_fence(fence.clone()).leases().keep_alive(kept).await.map(drop));
    is_fenced(client.with_fence(fence.clone()).lock(unique("third")).acquire(SECOND).await.map(drop));
    // What was taken under the lock is let go of all the same.
    nested.release().await.unwrap();
    assert_eq!(client.lock(&inner).holder().await.unwrap(), None);
    // Two fences are one too many.
    let put = meshstore::proto::v1::PutStateRequest { key: "k".into(), ..Default::default() };
    let mut request = Request::new(put);
    for lock in [&outer, &inner] {
        let header = fence_header(&Fence { lock: lock.clone(), token: 1 });
        request.metadata_mut().append_bin(FENCE, header);
    }
    let answer = MeshClient::new(leader(client).await).put_state(request).await;
    let error = error_from_status(&answer.unwrap_err());
    assert!(matches!(&error, Error::InvalidArgument { field, .. } if field == "fence"), "{error:?}");
}
