//! The data broker as services see it: what their manifests declare, and the data client.

use meshstore::{
    Client, Error,
    client::{AccessRequest, DataClient, DataClientError, DataQuery, IndexSpec, Permission, RequestState},
};
use serde_json::{Value as Json, json};

use super::{
    broker::{built, denied, service},
    invalid_field,
};

fn manifest(service: &str, data: &Json) -> String {
    json!({
        "kind": "AOLAgent",
        "apiVersion": "v1",
        "metadata": {"name": service, "version": "1.0.0"},
        "spec": {"endpoints": {"grpc": 50051, "health": 50052}, "dependencies": ["aol-core"], "dataRequirements": data},
    })
    .to_string()
}

async fn pending(client: &Client, owner: &str, denied: bool) -> Vec<AccessRequest> {
    client.broker(owner).all_access_requests(("", denied)).await.unwrap()
}

pub async fn a_manifest_declares_collections_and_asks_for_access(client: &Client) {
    let (owner, asker) = (service(), service());
    let orders = client.broker(&owner).collection("orders");
    let collections = json!([
        {"name": "events", "schemaHint": {"at": "datetime"}, "indexes": [{"fields": ["at"], "type": "descending"}]},
        {"name": "metrics", "indexes": [{"fields": ["a", "b"], "type": "compound"}, {"fields": ["n"], "unique": true}]},
    ]);
    let requests = json!([{"collection": format!("{owner}.orders"), "permission": "read", "reason": "a report"}]);
    let text = manifest(&asker, &json!({"enabled": true, "collections": collections, "accessRequests": requests}));
    let broker = client.broker(&asker);
    let planned = broker.apply_manifest(&text, (true, true)).await.unwrap();
    assert!(planned.collections.iter().all(|one| one.created && one.error.is_empty()));
    assert!(broker.all_collections(&asker).await.unwrap().is_empty(), "a plan changes nothing");
    let applied = broker.apply_manifest(&text, (true, false)).await.unwrap();
    assert_eq!(applied, planned);
    assert_eq!(applied.collections[1].added_indexes, ["a_1_b_1", "n_1"]);
    assert_eq!(applied.requests[0].state, RequestState::Pending);
    let again = broker.apply_manifest(&text, (true, false)).await.unwrap();
    assert!(again.collections.iter().all(|one| !one.created && !one.changed && one.added_indexes.is_empty()));
    // Declared otherwise: what is not declared any more is dropped.
    let other = json!([{"name": "metrics", "description": "numbers", "indexes": [{"fields": ["n"]}]}]);
    let text = manifest(&asker, &json!({"enabled": true, "collections": other, "accessRequests": requests}));
    let metrics = &broker.apply_manifest(&text, (false, false)).await.unwrap().collections[0];
    assert!(metrics.changed && !metrics.created);
    assert_eq!((metrics.dropped_indexes.len(), metrics.added_indexes.as_slice()), (2, ["n_1".to_owned()].as_slice()));
    built(&broker.collection("metrics")).await;
    assert_eq!(broker.collection("events").count(&json!({})).await.unwrap(), 0);

    // The owner decides, of a collection that did not even exist.
    let asked = pending(client, &owner, false).await;
    assert_eq!((asked.len(), asked[0].service.as_str(), asked[0].reason.as_str()), (1, asker.as_str(), "a report"));
    orders.declare(Default::default()).await.unwrap();
    let theirs = broker.collection(format!("{owner}.orders"));
    denied(theirs.count(&json!({})).await);
    orders.deny(&asker).await.unwrap();
    assert!(pending(client, &owner, false).await.is_empty());
    assert_eq!(pending(client, &owner, true).await[0].denied_by, owner);
    assert_eq!(broker.apply_manifest(&text, (false, false)).await.unwrap().requests[0].state, RequestState::Denied);
    orders.approve(&asker, None, None).await.unwrap();
    assert_eq!(theirs.count(&json!({})).await.unwrap(), 0);
    assert!(pending(client, &owner, true).await.is_empty());
    assert_eq!(broker.apply_manifest(&text, (false, false)).await.unwrap().requests[0].state, RequestState::Granted);
    assert!(matches!(orders.approve(&asker, None, None).await, Err(Error::NotFound { kind: "access request", .. })));
    // More than it has is asked for anew.
    let more = text.replace("\"read\"", "\"write\"");
    assert_eq!(broker.apply_manifest(&more, (false, false)).await.unwrap().requests[0].state, RequestState::Pending);
    denied(theirs.approve(&asker, None, None).await);
    orders.approve(&asker, Some(Permission::Read), None).await.unwrap();
    denied(theirs.insert(&json!({})).await);
}

pub async fn what_a_manifest_cannot_have_is_told_and_the_rest_is_done(client: &Client) {
    let name = service();
    let broker = client.broker(&name);
    let fields: Vec<String> = (0..5).map(|n| format!("f{n}")).collect();
    let collections = json!([{"name": "good"}, {"name": "bad", "indexes": [{"fields": fields, "type": "compound"}]}]);
    let requests = json!([{"collection": format!("{name}.good"), "permission": "read"}]);
    let text = manifest(&name, &json!({"enabled": true, "collections": collections, "accessRequests": requests}));
    let applied = broker.apply_manifest(&text, (false, false)).await.unwrap();
    assert!(applied.collections[0].created && applied.collections[1].error.contains("indexes[0].fields"));
    assert!(applied.requests[0].error.contains("is the service's own"));
    assert_eq!(broker.all_collections(&name).await.unwrap().len(), 1);
    for wrong in ["kind: Pod", "{", "", "[]", &text.replace("\"enabled\":true", "\"enabled\":1")] {
        assert_eq!(invalid_field(broker.apply_manifest(wrong, (false, false)).await), "manifest", "{wrong}");
    }
    denied(client.broker(service()).apply_manifest(&text, (false, false)).await);
}

pub async fn a_data_client_does_what_services_know_it_for(client: &Client) {
    let (one, other) = (service(), service());
    let data = DataClient::new(client.clone(), &one);
    let missing = data.insert("events", &json!({"a": 1})).await;
    assert_eq!(missing, Err(DataClientError::CollectionNotFound("events".into())));
    assert_eq!(missing.unwrap_err().to_string(), "Collection 'events' not found");
    let indexes = vec![IndexSpec::ascending("timestamp"), IndexSpec::ascending("event_id").unique()];
    let hint = json!({"event_id": "string"});
    let id = data.request_collection("events", Some(&hint), Some(indexes)).await.unwrap();
    assert_eq!(id, format!("{one}.events"));
    assert_eq!(data.request_collection("events", None, None).await.unwrap(), id);
    for n in 0..5 {
        let event =
            json!({"event_id": n.to_string(), "event_type": if n % 2 == 0 { "even" } else { "odd" }, "timestamp": n});
        data.insert("events", &event).await.unwrap();
    }
    let query = DataQuery::filters(json!({"timestamp": {"$gte": 1}})).projection(["timestamp"]).sort_desc("timestamp");
    let found = data.query("events", query.limit(2).skip(1)).await.unwrap();
    assert_eq!(found.iter().map(|event| event["timestamp"].clone()).collect::<Vec<_>>(), [3, 2]);
    assert!(found[0]["_id"].is_string() && found[0].get("event_id").is_none());
    assert_eq!(data.query("events", DataQuery::default()).await.unwrap().len(), 5);
    assert_eq!(data.update("events", &json!({"event_type": "odd"}), &json!({"processed": true})).await.unwrap(), 2);
    assert_eq!(data.delete("events", &json!({"processed": true, "timestamp": {"$lt": 2}})).await.unwrap(), 1);
    // Bulk: what can be, with what cannot.
    let many: Vec<Json> = (2..252).map(|n| json!({"event_id": n.to_string()})).collect();
    let results = data.bulk_insert("events", &many).await.unwrap();
    assert_eq!((results.len(), results.iter().filter(|result| result.is_err()).count()), (250, 3));

    let theirs = DataClient::new(client.clone(), &other);
    let refused = theirs.query(&id, DataQuery::default()).await.unwrap_err();
    assert!(refused.to_string().starts_with(&format!("Permission denied for collection '{id}'")), "{refused}");
    data.grant_access("events", &other, Permission::Read).await.unwrap();
    assert_eq!(theirs.query(&id, DataQuery::filters(json!({"event_type": "even"}))).await.unwrap().len(), 3);
    assert!(matches!(theirs.insert(&id, &json!({})).await, Err(DataClientError::PermissionDenied { .. })));
    data.revoke_access("events", &other).await.unwrap();
    data.revoke_access("events", &other).await.unwrap();
    assert!(theirs.query(&id, DataQuery::default()).await.is_err());
    let failed = data.query("events", DataQuery::filters(json!({"a": {"$like": 1}}))).await.unwrap_err();
    assert!(failed.to_string().starts_with("Database operation failed: invalid filter.a.$like"), "{failed}");
}
