//! Retries: what a repeated attempt means, seen from the wire, since the client numbers its own attempts;
//! and many callers at once.

use std::collections::BTreeSet;

use meshstore::{
    Client, Error, Result,
    proto::{
        error_from_status,
        v1::{
            Attempt, CloseSessionRequest, DeleteStateRequest, GetStateRequest, KeepSessionRequest, OpenSessionRequest,
            PutStateRequest, StoreMessageRequest, mesh_client::MeshClient, session_client::SessionClient,
        },
    },
};
use tokio::task::JoinSet;
use tonic::{Request, Response, Status};

use super::{assert_missing, invalid_field, leader, unique};
use crate::harness;

/// The services of the leader, without a client in between.
struct Wire {
    mesh: MeshClient<harness::Wire>,
    sessions: SessionClient<harness::Wire>,
}

fn opened<T>(answer: std::result::Result<Response<T>, Status>) -> Result<T> {
    answer.map(Response::into_inner).map_err(|status| error_from_status(&status))
}

impl Wire {
    async fn to_leader(client: &Client) -> Self {
        let wire = leader(client).await;
        Self { mesh: MeshClient::new(wire.clone()), sessions: SessionClient::new(wire) }
    }

    async fn open(&mut self) -> u64 {
        opened(self.sessions.open_session(OpenSessionRequest { ttl_ms: 0 }).await).unwrap().session
    }

    async fn put(&mut self, attempt: Option<Attempt>, key: &str, value: &str) -> Result<u64> {
        let request = PutStateRequest { attempt, key: key.into(), value: value.to_owned().into(), lease: 0 };
        opened(self.mesh.put_state(request).await).map(|written| written.revision)
    }

    async fn delete(&mut self, attempt: Option<Attempt>, key: &str) -> Result<u64> {
        let request = DeleteStateRequest { attempt, key: key.into() };
        opened(self.mesh.delete_state(request).await).map(|written| written.revision)
    }

    /// Value and version.
    async fn get(&mut self, key: &str) -> Result<(String, u64)> {
        let answer = opened(self.mesh.get_state(GetStateRequest { read: None, key: key.into() }).await)?;
        Ok((String::from_utf8(answer.value.into()).unwrap(), answer.version.unwrap().version))
    }
}

/// The second and later attempts differ only in their count.
fn place(session: u64, sequence: u64, attempt: u32) -> Option<Attempt> {
    Some(Attempt { session, sequence, answered_below: 1, attempt })
}

pub async fn a_repeated_attempt_is_executed_once(client: &Client) {
    let (mut wire, key) = (Wire::to_leader(client).await, unique("repeat"));
    let session = wire.open().await;
    let first = wire.put(place(session, 1, 1), &key, "v").await.unwrap();
    for attempt in 2..5 {
        assert_eq!(wire.put(place(session, 1, attempt), &key, "v").await, Ok(first));
    }
    assert_eq!(wire.get(&key).await, Ok(("v".into(), 1)));
    let next = wire.put(place(session, 2, 1), &key, "w").await.unwrap();
    assert!(next > first);
    // Also after others: the answer is the outcome of then.
    assert_eq!(wire.put(place(session, 1, 5), &key, "v").await, Ok(first));
    assert_eq!(wire.get(&key).await, Ok(("w".into(), 2)));
}

pub async fn a_repeated_sequence_with_another_request_changes_nothing(client: &Client) {
    let (mut wire, key) = (Wire::to_leader(client).await, unique("other"));
    let session = wire.open().await;
    let first = wire.put(place(session, 1, 1), &key, "v").await.unwrap();
    assert_eq!(wire.put(place(session, 1, 2), &key, "other").await, Ok(first));
    assert_eq!(wire.get(&key).await, Ok(("v".into(), 1)));
}

pub async fn a_repeated_delete_answers_as_the_first(client: &Client) {
    let (mut wire, key) = (Wire::to_leader(client).await, unique("delete"));
    let session = wire.open().await;
    wire.put(place(session, 1, 1), &key, "v").await.unwrap();
    let deleted = wire.delete(place(session, 2, 1), &key).await.unwrap();
    assert_eq!(wire.delete(place(session, 2, 2), &key).await, Ok(deleted));
    // It does not delete what came after it.
    wire.put(place(session, 3, 1), &key, "again").await.unwrap();
    assert_eq!(wire.delete(place(session, 2, 3), &key).await, Ok(deleted));
    assert_eq!(wire.get(&key).await, Ok(("again".into(), 1)));
}

pub async fn a_repeated_refusal_answers_as_the_first(client: &Client) {
    let (mut wire, key) = (Wire::to_leader(client).await, unique("refusal"));
    let session = wire.open().await;
    assert_missing(wire.delete(place(session, 1, 1), &key).await, "state", &key);
    wire.put(place(session, 2, 1), &key, "v").await.unwrap();
    assert_missing(wire.delete(place(session, 1, 2), &key).await, "state", &key);
    assert_eq!(wire.get(&key).await, Ok(("v".into(), 1)));
}

pub async fn an_answered_sequence_is_not_executed_again(client: &Client) {
    let (mut wire, key) = (Wire::to_leader(client).await, unique("answered"));
    let session = wire.open().await;
    wire.put(place(session, 1, 1), &key, "one").await.unwrap();
    let later = Some(Attempt { session, sequence: 2, answered_below: 2, attempt: 1 });
    wire.put(later, &key, "two").await.unwrap();
    let drifted = wire.put(place(session, 1, 2), &key, "one").await;
    assert_eq!(drifted, Err(Error::SessionExpired { session }));
    assert_eq!(wire.get(&key).await, Ok(("two".into(), 2)));
}

pub async fn an_unknown_session_is_refused(client: &Client) {
    let (mut wire, key) = (Wire::to_leader(client).await, unique("unknown"));
    let expired = Error::SessionExpired { session: u64::MAX };
    assert_eq!(wire.put(place(u64::MAX, 1, 1), &key, "v").await, Err(expired.clone()));
    assert_missing(wire.get(&key).await, "state", &key);
    let kept = opened(wire.sessions.keep_session(KeepSessionRequest { session: u64::MAX }).await);
    assert_eq!(kept, Err(expired));
}

pub async fn a_closed_session_is_refused(client: &Client) {
    let (mut wire, key) = (Wire::to_leader(client).await, unique("closed"));
    let session = wire.open().await;
    wire.put(place(session, 1, 1), &key, "v").await.unwrap();
    opened(wire.sessions.close_session(CloseSessionRequest { session }).await).unwrap();
    let expired = Err(Error::SessionExpired { session });
    assert_eq!(wire.put(place(session, 1, 2), &key, "v").await, expired);
    assert_eq!(wire.put(place(session, 2, 1), &key, "w").await, expired);
    assert_eq!(wire.get(&key).await, Ok(("v".into(), 1)));
    let other = wire.open().await;
    assert_ne!(other, session);
    wire.put(place(other, 1, 1), &key, "w").await.unwrap();
}

pub async fn an_attempt_is_checked(client: &Client) {
    let (mut wire, key) = (Wire::to_leader(client).await, unique("checked"));
    let right = Attempt { session: wire.open().await, sequence: 1, answered_below: 1, attempt: 1 };
    for (wrong, field) in [
        (Attempt { session: 0, ..right }, "attempt.session"),
        (Attempt { sequence: 0, answered_below: 0, ..right }, "attempt.sequence"),
        (Attempt { answered_below: 2, ..right }, "attempt.answered_below"),
    ] {
        assert_eq!(invalid_field(wire.put(Some(wrong), &key, "v").await), field);
        assert_eq!(invalid_field(wire.delete(Some(wrong), &key).await), field);
    }
    assert_missing(wire.get(&key).await, "state", &key);
    // A refused attempt has not used up its sequence.
    wire.put(Some(right), &key, "v").await.unwrap();
}

pub async fn a_session_is_kept_and_its_life_is_bounded(client: &Client) {
    let mut wire = Wire::to_leader(client).await;
    let default = opened(wire.sessions.open_session(OpenSessionRequest { ttl_ms: 0 }).await).unwrap();
    assert_eq!(default.ttl_ms, 60_000);
    let named = opened(wire.sessions.open_session(OpenSessionRequest { ttl_ms: 86_400_000 }).await).unwrap();
    assert_eq!(named.ttl_ms, 86_400_000);
    assert_ne!(named.session, default.session);
    for session in [default.session, named.session] {
        opened(wire.sessions.keep_session(KeepSessionRequest { session }).await).unwrap();
        opened(wire.sessions.close_session(CloseSessionRequest { session }).await).unwrap();
    }
    for ttl_ms in [1, 999, 86_400_001, u64::MAX] {
        assert_eq!(invalid_field(opened(wire.sessions.open_session(OpenSessionRequest { ttl_ms }).await)), "ttl_ms");
    }
    assert_eq!(invalid_field(opened(wire.sessions.keep_session(KeepSessionRequest { session: 0 }).await)), "session");
    assert_eq!(invalid_field(opened(wire.sessions.close_session(CloseSessionRequest { session: 0 }).await)), "session");
}

pub async fn without_a_session_every_call_is_executed(client: &Client) {
    let (mut wire, key) = (Wire::to_leader(client).await, unique("at-least-once"));
    let first = wire.put(None, &key, "v").await.unwrap();
    let second = wire.put(None, &key, "v").await.unwrap();
    assert!(second > first);
    assert_eq!(wire.get(&key).await, Ok(("v".into(), 2)));
    wire.delete(None, &key).await.unwrap();
    assert_missing(wire.delete(None, &key).await, "state", &key);
}

pub async fn writers_at_once_are_executed_one_after_the_other(client: &Client) {
    const WRITERS: usize = 64;
    let key = unique("writers");
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let (state, key) = (client.state(), key.clone());
        writers.spawn(async move { (number, state.put(&key, number.to_string()).await.unwrap().revision) });
    }
    let written = writers.join_all().await;
    let revisions: BTreeSet<u64> = written.iter().map(|(_, revision)| *revision).collect();
    assert_eq!(revisions.len(), WRITERS, "two writes share a revision");
    let stored = client.state().get(&key).await.unwrap();
    let (last, revision) = written.into_iter().max_by_key(|(_, revision)| *revision).unwrap();
    assert_eq!(stored.version, WRITERS as u64);
    assert_eq!((stored.mod_revision, stored.value.as_ref()), (revision, last.to_string().as_bytes()));
    assert_eq!(Some(&stored.create_revision), revisions.first());
}

pub async fn of_many_deletes_one_succeeds(client: &Client) {
    let key = unique("deletes");
    client.state().put(&key, "v").await.unwrap();
    let mut deletes = JoinSet::new();
    for _ in 0..16 {
        let (state, key) = (client.state(), key.clone());
        deletes.spawn(async move { state.delete(&key).await });
    }
    let (done, missed): (Vec<_>, Vec<_>) = deletes.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), missed.len()), (1, 15));
    for miss in missed {
        assert_missing(miss, "state", &key);
    }
}

pub async fn a_malformed_request_is_explained(client: &Client) {
    let mut wire = Wire::to_leader(client).await;
    let empty = opened(wire.mesh.store_message(StoreMessageRequest::default()).await);
    assert_eq!(invalid_field(empty), "message");
    let mut request = Request::new(GetStateRequest { read: None, key: "k".into() });
    request.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    assert_eq!(invalid_field(opened(wire.mesh.get_state(request).await)), "grpc-timeout");
}
