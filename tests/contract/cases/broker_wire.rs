//! The data broker on the wire: attempts that are repeated, and reads of older revisions.

use std::collections::BTreeSet;

use meshstore::{
    Client,
    client::{Declaration, Permission},
    proto::v1::{self, Attempt, broker_client::BrokerClient},
};
use serde_json::json;

use super::{
    broker::{collection, denied, service},
    leader, session,
};
use crate::harness;

/// The service itself, and a session.
struct Raw {
    broker: BrokerClient<harness::Wire>,
    session: u64,
}

impl Raw {
    async fn open(client: &Client) -> Self {
        let wire = leader(client).await;
        let session = session(&wire).await;
        Self { broker: BrokerClient::new(wire), session }
    }

    fn attempt(&self, sequence: u64, attempt: u32) -> Attempt {
        Attempt { session: self.session, sequence, answered_below: 1, attempt }
    }
}

pub async fn a_repeated_call_answers_what_the_first_has_done(client: &Client) {
    let (service, events) = collection(client, Declaration::new()).await;
    let mut session = Raw::open(client).await;
    let collection = "events".to_owned();
    let insert = |attempt| v1::InsertRequest {
        attempt: Some(attempt),
        service: service.clone(),
        collection: collection.clone(),
        documents_json: vec![r#"{"n":1}"#.into(), r#"{"n":2,"state":"new"}"#.into()],
        each: false,
    };
    let first = session.broker.insert(insert(session.attempt(1, 1))).await.unwrap().into_inner();
    let again = session.broker.insert(insert(session.attempt(1, 2))).await.unwrap().into_inner();
    assert_eq!((&first.results, first.revision), (&again.results, again.revision));
    assert_eq!(events.count(&json!({})).await.unwrap(), 2);
    for result in &again.results {
        events.get(&result.id).await.unwrap();
    }
    let update = |attempt| v1::UpdateRequest {
        attempt: Some(attempt),
        service: service.clone(),
        collection: collection.clone(),
        filter_json: r#"{"state":"new"}"#.into(),
        update_json: r#"{"state":"old"}"#.into(),
        ..v1::UpdateRequest::default()
    };
    for number in 1..3 {
        let answer = session.broker.update(update(session.attempt(2, number))).await.unwrap().into_inner();
        assert_eq!((answer.matched, answer.modified), (1, 1), "attempt {number}");
    }
    let upsert = |attempt| v1::UpdateRequest { filter_json: r#"{"n":9}"#.into(), upsert: true, ..update(attempt) };
    let mut ids = BTreeSet::new();
    for number in 1..3 {
        let answer = session.broker.update(upsert(session.attempt(3, number))).await.unwrap().into_inner();
        assert_eq!(answer.matched, 0, "attempt {number}");
        ids.insert(answer.upserted_id);
    }
    assert!(ids.len() == 1 && !ids.contains(""), "{ids:?}");
    let take = |attempt| v1::FindAndUpdateRequest {
        attempt: Some(attempt),
        service: service.clone(),
        collection: collection.clone(),
        filter_json: r#"{"n":1}"#.into(),
        update_json: r#"{"n":100}"#.into(),
        ..v1::FindAndUpdateRequest::default()
    };
    for number in 1..3 {
        let answer = session.broker.find_and_update(take(session.attempt(4, number))).await.unwrap().into_inner();
        assert!(answer.document.unwrap().json.contains("\"n\":100"), "attempt {number}");
    }
    let delete = |attempt| v1::DeleteDocumentsRequest {
        attempt: Some(attempt),
        service: service.clone(),
        collection: collection.clone(),
        ..v1::DeleteDocumentsRequest::default()
    };
    for number in 1..3 {
        let answer = session.broker.delete_documents(delete(session.attempt(5, number))).await.unwrap().into_inner();
        assert_eq!(answer.deleted, 3, "attempt {number}");
    }
    // What is too large to be kept is not said to be nothing.
    let large = json!({"_id": "large", "text": "x".repeat(8_000)});
    events.insert(&large).await.unwrap();
    let take = |attempt| v1::FindAndUpdateRequest { filter_json: r#"{"_id":"large"}"#.into(), ..take(attempt) };
    session.broker.find_and_update(take(session.attempt(6, 1))).await.unwrap();
    let lost = session.broker.find_and_update(take(session.attempt(6, 2))).await.unwrap_err();
    assert!(lost.message().contains("an earlier attempt of this call was executed"), "{lost}");
}

pub async fn what_was_revoked_is_not_read_as_it_was(client: &Client) {
    let (owner, events) = collection(client, Declaration::new()).await;
    events.insert(&json!({"_id": "secret"})).await.unwrap();
    let reader = service();
    events.grant(&reader, Permission::Read, ("", None)).await.unwrap();
    let theirs = client.broker(&reader).collection(format!("{owner}.events"));
    let page = theirs.find(&json!({})).unwrap().limit(1).page().await.unwrap();
    events.insert(&json!({"_id": "z"})).await.unwrap();
    let first = theirs.find(&json!({})).unwrap().limit(1).page().await.unwrap();
    events.revoke(&reader).await.unwrap();
    denied(theirs.find(&json!({})).unwrap().limit(1).cursor(first.next_cursor).page().await);
    let options = v1::ReadOptions { revision: Some(page.revision), ..v1::ReadOptions::default() };
    let request = v1::GetDocumentRequest {
        read: Some(options),
        service: reader,
        collection: format!("{owner}.events"),
        id: "secret".into(),
        projection: None,
    };
    let refused = Raw::open(client).await.broker.get_document(request).await.unwrap_err();
    assert_ne!(refused.code(), tonic::Code::Ok);
    assert!(refused.message().contains("may not read") || refused.code() == tonic::Code::OutOfRange, "{refused}");
}
