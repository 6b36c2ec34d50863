//! What a node tells of itself.

use meshstore::{Client, client::Status};

use super::unique;

pub async fn a_node_tells_of_itself(client: &Client) {
    let written = client.state().put(&unique("status"), "v").await.unwrap();
    let mut status = client.cluster().status(false).await.unwrap();
    // A client that does not know the leader yet asks any node, and learns from its answer.
    for _ in 0..100 {
        if status.role == "leader" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        status = client.cluster().status(false).await.unwrap();
    }
    assert_eq!(status.role, "leader");
    assert_eq!((status.node_id, written.leader_id), (status.leader_id, status.leader_id));
    assert!(status.revision >= written.revision);
    assert!(status.term > 0 && status.sessions > 0);
    assert!(status.applied_index > 0 && status.committed_index > 0 && status.last_log_index > 0);
    assert!(status.purged_index <= status.flushed_index && status.flushed_index <= status.applied_index);
    assert_eq!(status.cluster_id.len(), 32, "{}", status.cluster_id);
    assert_eq!(status.state_hash, "");
    assert!(!status.version.is_empty());
    assert!((1..=status.known_feature_level).contains(&status.feature_level), "{}", status.feature_level);
    let leaders: Vec<u64> = status.members.iter().filter(|member| member.leader).map(|member| member.node_id).collect();
    assert_eq!(leaders, [status.node_id]);
    let with_hash = client.cluster().status(true).await.unwrap();
    assert_eq!(with_hash.state_hash.len(), 32, "{}", with_hash.state_hash);
}

pub async fn keyspaces_count_their_records(client: &Client) {
    fn of(status: &Status, name: &str) -> (u64, u64) {
        let found = status.keyspaces.iter().find(|keyspace| keyspace.name == name);
        found.map_or((0, 0), |keyspace| (keyspace.records, keyspace.bytes))
    }
    let key = unique("count");
    let before = client.cluster().status(false).await.unwrap();
    client.state().put(&key, vec![0; 1_000]).await.unwrap();
    client.state().put(&key, vec![0; 2_000]).await.unwrap();
    client.config().save_json(&key, "1").await.unwrap();
    let after = client.cluster().status(false).await.unwrap();
    let ((records, bytes), (more_records, more_bytes)) = (of(&before, "mesh_state"), of(&after, "mesh_state"));
    assert_eq!(more_records, records + 1);
    assert!(more_bytes >= bytes + 2_000, "{bytes} then {more_bytes} bytes");
    assert_eq!(of(&after, "mesh_runtime_config").0, of(&before, "mesh_runtime_config").0 + 1);
    client.state().delete(&key).await.unwrap();
    let deleted = client.cluster().status(false).await.unwrap();
    assert_eq!(of(&deleted, "mesh_state"), (records, bytes));
}
