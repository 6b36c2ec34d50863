//! Who belongs to the cluster: what is told of it, and what is refused. Nothing here changes it, since all cases share it.

use meshstore::{Client, Error};

use super::{assert_missing, invalid_field};

/// An id that no node has.
const NOBODY: u64 = 9_999;

fn refused<T: std::fmt::Debug>(answer: meshstore::Result<T>) -> String {
    match answer {
        Err(Error::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

pub async fn the_leader_knows_of_all(client: &Client) {
    client.state().put(&super::unique("members"), "v").await.unwrap();
    let listed = client.cluster().members().await.unwrap();
    assert!(listed.term > 0 && listed.last_log_index > 0);
    let mut leaders = Vec::new();
    for status in listed.members {
        let member = status.member.unwrap();
        assert!(member.voter && !status.to_be_voter && !status.to_be_added && !status.to_be_removed);
        assert_eq!((status.unreachable.as_str(), status.version.is_empty()), ("", false), "node {}", member.node_id);
        assert!(member.peer_address.contains(':') && member.client_address.contains(':'));
        leaders.extend(member.leader.then_some(member.node_id));
    }
    assert_eq!(leaders, [listed.leader_id]);
}

pub async fn who_is_no_member_cannot_be_changed(client: &Client) {
    let cluster = client.cluster();
    let name = "node 9999";
    assert_missing(cluster.remove(NOBODY).await, "member", name);
    assert_missing(cluster.promote(NOBODY).await, "member", name);
    assert_missing(cluster.update(NOBODY, Some("127.0.0.1:1".into()), None).await, "member", name);
    assert_missing(cluster.transfer_leadership(NOBODY).await, "member", name);
}

pub async fn ids_and_addresses_are_checked(client: &Client) {
    let cluster = client.cluster();
    let member = cluster.members().await.unwrap().members.remove(0).member.unwrap();
    let id = member.node_id;
    assert_eq!(invalid_field(cluster.add(0, "127.0.0.1:1", false).await), "node_id");
    assert_eq!(invalid_field(cluster.remove(0).await), "node_id");
    assert_eq!(invalid_field(cluster.promote(0).await), "node_id");
    for wrong in ["", "here", "127.0.0.1", "127.0.0.1:0", "0.0.0.0:7501", "[::1:7501"] {
        assert_eq!(invalid_field(cluster.add(NOBODY, wrong, false).await), "peer_address", "{wrong}");
    }
    assert_eq!(invalid_field(cluster.update(id, Some("here".into()), None).await), "peer_address");
    assert_eq!(invalid_field(cluster.update(id, None, Some("here".into())).await), "client_address");
    assert_eq!(invalid_field(cluster.update(id, None, None).await), "peer_address");
    // What is so already is nothing to do.
    cluster.update(id, Some(member.peer_address), Some(member.client_address)).await.unwrap();
}

pub async fn only_an_empty_node_that_waits_is_added(client: &Client) {
    let cluster = client.cluster();
    let member = cluster.members().await.unwrap().members.remove(0).member.unwrap();
    let id = member.node_id;
    assert!(refused(cluster.add(id, &member.peer_address, false).await).contains("is a member already"));
    let other = refused(cluster.add(NOBODY, &member.peer_address, false).await);
    assert!(other.contains(&format!("it is node {id} that answers at {}", member.peer_address)), "{other}");
    let nobody = refused(cluster.add(NOBODY, "127.0.0.1:1", false).await);
    assert!(nobody.contains("start the node there first"), "{nobody}");
    assert_missing(cluster.remove(NOBODY).await, "member", "node 9999");
}

pub async fn an_address_leads_to_the_node_that_it_is_for(client: &Client) {
    let cluster = client.cluster();
    let members = cluster.members().await.unwrap().members;
    let of = |at: usize| members[at].member.clone().unwrap();
    let nobody = refused(cluster.update(of(0).node_id, Some("127.0.0.1:1".into()), None).await);
    assert!(nobody.contains("is not reached at 127.0.0.1:1") && nobody.ends_with("nothing was changed"), "{nobody}");
    if members.len() > 1 {
        let taken = refused(cluster.update(of(0).node_id, Some(of(1).peer_address), None).await);
        assert!(taken.contains(&format!("is the address of node {}", of(1).node_id)), "{taken}");
    }
    assert_eq!(cluster.members().await.unwrap().members[0].member.as_ref().unwrap().peer_address, of(0).peer_address);
}

pub async fn the_last_voter_stays_and_the_lead_goes_round(client: &Client) {
    let cluster = client.cluster();
    let listed = cluster.members().await.unwrap();
    if let [only] = listed.members.as_slice() {
        let id = only.member.as_ref().unwrap().node_id;
        assert!(refused(cluster.remove(id).await).contains("is the last voter"));
        assert!(refused(cluster.transfer_leadership(0).await).contains("no other voter answers"));
        cluster.transfer_leadership(id).await.unwrap();
        return;
    }
    for status in &listed.members {
        let id = status.member.as_ref().unwrap().node_id;
        cluster.transfer_leadership(id).await.unwrap();
        // Between the two an election may have made another the leader, but nobody else has a reason to.
        assert_eq!(cluster.members().await.unwrap().leader_id, id);
    }
}
