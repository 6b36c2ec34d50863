//! The leader dies while large messages arrive: each is there wholly or not at all, and nothing is left behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use meshstore::{
    Error,
    client::{Client, Message, Stored},
};

use crate::harness::{Cluster, Settings, until};

const MIB: usize = 1 << 20;
const UPLOADS: usize = 3;

fn message(n: usize) -> Message {
    let content: Bytes = (0..(8 + n) * MIB / 4).flat_map(|word| ((word * 31 + n) as u32).to_le_bytes()).collect();
    Message { id: format!("large-{n}"), from: "a".into(), to: "b".into(), content, ..Message::default() }
}

/// Uploads, open ones, chunks.
async fn held(client: &Client) -> Option<[u64; 3]> {
    let status = client.cluster().status(false).await.ok()?;
    let of = |name| status.keyspaces.iter().find(|keyspace| keyspace.name == name).map_or(0, |found| found.records);
    Some(["mesh_message_uploads", "mesh_message_open_uploads", "mesh_message_chunks"].map(of))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_killed_while_large_messages_arrive() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let (client, sent) = (cluster.client().with_deadline(Duration::from_secs(120)), Arc::new(AtomicU64::new(0)));
    let mut uploads = tokio::task::JoinSet::new();
    for n in 0..UPLOADS {
        let (client, sent) = (client.clone(), Arc::clone(&sent));
        uploads.spawn(async move {
            let progress = Arc::new(move |bytes| {
                sent.fetch_max(bytes, Ordering::SeqCst);
            });
            (n, client.messages().store_large_with(message(n), progress).await)
        });
    }
    // In the middle of one, as far as a client can know.
    until("two MiB that are on their way", async || (sent.load(Ordering::SeqCst) > 2 * MIB as u64).then_some(())).await;
    let leader = cluster.leader().await;
    cluster.node(leader).kill();
    cluster.node(leader).start();
    cluster.node(leader).ready().await;
    let mut chunks = 0;
    let reader = cluster.client();
    while let Some(done) = uploads.join_next().await {
        let (n, stored) = done.unwrap();
        let read = reader.messages().get_large(&format!("large-{n}")).await;
        match (stored, read) {
            (Ok(written), Ok(Stored { value, mod_revision, version, .. })) => {
                assert_eq!((mod_revision, version), (written.revision, 1));
                assert_eq!(value, message(n));
            }
            (Err(error), Ok(Stored { value, .. })) => {
                assert!(error.may_have_applied(), "{error}");
                assert_eq!(value, message(n));
            }
            (Err(_), Err(Error::NotFound { .. })) => continue,
            (stored, read) => panic!("{stored:?}, but {:?}", read.map(|read| read.mod_revision)),
        }
        chunks += 2 * (8 + n as u64);
        reader.messages().delete(&format!("large-{n}")).await.unwrap();
    }
    assert!(chunks > 0, "none was stored: nothing was tested");
    // What the dead leader had begun expires later; all else goes.
    until("the chunks to go", async || {
        let [uploads, open, _] = held(&reader).await?;
        (uploads == open && uploads <= UPLOADS as u64).then_some(())
    })
    .await;
}
