//! Nodes of two builds in one cluster, while it is upgraded one node after the other. `MESHSTORE_OTHER_BINARY` names a build that
//! says nothing of feature levels.

use meshstore::{Client, Error, client::Retention};

use super::{
    harness::{Cluster, Settings},
    load::Load,
    proof::prove,
};

const RULE: Retention = Retention { max_age_ms: None, max_count: Some(1_000_000) };

async fn refused(client: &Client) -> String {
    match client.retention().set(Some("n1"), RULE).await {
        Err(Error::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_newer_builds_can_read_waits_for_all_of_them() {
    let Some(older) = std::env::var_os("MESHSTORE_OTHER_BINARY") else {
        println!("skipped: MESHSTORE_OTHER_BINARY names no older build");
        return;
    };
    let mut cluster = Cluster::new(3, Settings::default());
    for id in [2, 3] {
        cluster.node(id).binary = older.clone().into();
    }
    cluster.start_all().await;
    let mut load = Load::start(&cluster, 256);
    load.more(100).await;
    let client = cluster.client();
    client.cluster().transfer_leadership(1).await.unwrap();
    let said = refused(&client).await;
    assert!(said.starts_with("large messages and retention cannot be used before every member"), "{said}");
    assert!(said.contains("node 2 runs meshstore ") && said.contains("node 3 runs"), "{said}");
    for id in [2, 3] {
        load.more(100).await;
        let node = cluster.node(id);
        assert!(node.terminate().await.success());
        node.binary = super::harness::binary();
        node.start();
        node.ready().await;
        client.cluster().transfer_leadership(1).await.unwrap();
        if id == 2 {
            let said = refused(&client).await;
            assert!(!said.contains("node 2") && said.contains("node 3 runs"), "{said}");
        }
    }
    client.retention().set(Some("n1"), RULE).await.unwrap();
    // Now a node that knows less has no place here any more.
    let late = cluster.lay_out(4);
    late.binary = older.into();
    let said = late.refusal(1).await;
    assert!(said.contains("node 4 runs meshstore") && said.contains("has reached level 2"), "{said}");
    cluster.nodes.retain(|node| node.id != 4);
    prove(&cluster, &load.finish().await, 256).await;
}
