//! Transactions that are open while their leader dies, or hands over.

use std::{fmt::Debug, time::Duration};

use meshstore::{
    Client, Error, Result,
    client::{HeldTransaction, Isolation, Set, Value},
};

use crate::harness::{Cluster, Settings};

const OPEN: Duration = Duration::from_secs(120);

async fn begin(client: &Client) -> HeldTransaction {
    let open = client.begin_held_for(Isolation::Serializable, OPEN).await.unwrap();
    open.kv("held").set(Set::new("key", Value::Json("1".into()))).await.unwrap();
    open.state().put("key", "1").await.unwrap();
    open
}

fn is_lost<T: Debug>(answer: Result<T>) {
    let Err(Error::TransactionAborted(why)) = answer else { panic!("{answer:?}") };
    assert!(why.contains("lost with its leader; nothing of it was written"), "{why}");
}

/// It is lost, whoever asks for it in whichever way is told, and nothing of it is there.
async fn lost(client: &Client, open: HeldTransaction) {
    is_lost(open.state().get("key").await);
    is_lost(open.kv("held").set(Set::new("other", Value::Json("2".into()))).await);
    is_lost(client.rollback_held(open.id()).await);
    is_lost(open.commit().await);
    assert!(matches!(client.state().get("key").await, Err(Error::NotFound { .. })));
    assert!(matches!(client.namespaces().show("held").await, Err(Error::NotFound { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_lost_with_its_leader() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let client = cluster.client();
    let open = begin(&client).await;
    let killed = cluster.leader().await;
    cluster.node(killed).kill();
    lost(&client, open).await;

    // One that leads no more keeps none, either; also if it leads again.
    cluster.node(killed).start();
    cluster.node(killed).ready().await;
    let (open, leader) = (begin(&client).await, cluster.leader().await);
    let next = cluster.follower().await;
    client.cluster().transfer_leadership(next).await.unwrap();
    client.cluster().transfer_leadership(leader).await.unwrap();
    lost(&client, open).await;

    let open = begin(&client).await;
    let revision = open.commit().await.unwrap().revision;
    assert_eq!(client.state().get("key").await.unwrap().mod_revision, revision);
    assert_eq!(client.kv("held").get("key").await.unwrap().metadata.mod_revision, revision);
}
