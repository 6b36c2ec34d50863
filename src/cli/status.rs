//! `meshstore status`.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use serde_json::{Value, json};

use super::{
    failure::Failure,
    options::{Session, duration},
    output::{self, table},
};
use crate::client::{Client, DiskSpace, Status as NodeStatus};

/// How often nodes are asked for hashes of equal revisions, while writes go on.
const HASH_ROUNDS: u32 = 10;

#[derive(Args, Debug)]
#[command(
    after_help = "Every endpoint and every member that is learned from them is asked; those that do not answer are shown, too.\n\nExamples:\n  meshstore status\n  meshstore status --hash\n  meshstore status --watch\n  meshstore status --watch=500ms --json\n  meshstore status --endpoints 10.0.0.1:7401 --json"
)]
pub(super) struct Status {
    /// Compare the hash of the state between the nodes; exits with 1 if two differ at the same position of the log,
    /// with 4 if fewer than two could be compared
    #[arg(long)]
    hash: bool,
    /// Show it anew, over and over, until interrupted; so often, or each 2s. With --json a line each time
    #[arg(long, value_name = "TIME", value_parser = duration, num_args = 0..=1, default_missing_value = "2s", require_equals = true)]
    watch: Option<Duration>,
}

type Answers = Vec<(String, crate::Result<NodeStatus>)>;

/// Those that answered.
fn alive(answers: &Answers) -> impl Iterator<Item = &NodeStatus> {
    answers.iter().filter_map(|(_, answer)| answer.as_ref().ok())
}

impl Status {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        if session.options.read.is_some() {
            return Err(Failure::usage("--read does not apply: a node answers what it knows now"));
        }
        let client = session.reader()?;
        let Some(pause) = self.watch else { return self.show(session, &client).await };
        loop {
            session.out.clear()?;
            if let Err(failure) = self.show(session, &client).await {
                match failure {
                    // Who looks at a cluster that is down wants to see it come back.
                    Failure::Unavailable(_) | Failure::Failed(_) => {}
                    other => return Err(other),
                }
            }
            tokio::time::sleep(pause.max(Duration::from_millis(100))).await;
        }
    }

    async fn show(&self, session: &Session, client: &Client) -> Result<(), Failure> {
        let mut answers = client.cluster().status_of_all(self.hash).await;
        let mut comparison = compare(&answers);
        if self.hash {
            (answers, comparison) = settle(client, answers).await;
        }
        let json = json!({
            "nodes": answers.iter().map(node_json).collect::<Vec<_>>(),
            "hash": self.hash.then(|| comparison.name()),
        });
        session.out.answer(&json, || text(&answers, self.hash.then_some(&comparison)))?;
        if !answers.iter().any(|(_, answer)| answer.is_ok()) {
            return Err(Failure::Unavailable("no node answers".into()));
        }
        match comparison {
            Comparison::Differ(_) if self.hash => Err(Failure::Failed("the states of the nodes differ".into())),
            Comparison::TooFew if self.hash => Err(Failure::Unavailable(
                "fewer than two nodes showed their state at the same position of the log".into(),
            )),
            _ => Ok(()),
        }
    }
}

/// Whether the nodes hold the same.
#[derive(Debug, PartialEq, Eq)]
enum Comparison {
    Equal { nodes: usize, applied_index: u64 },
    Differ(u64),
    TooFew,
}

impl Comparison {
    fn name(&self) -> &'static str {
        match self {
            Self::Equal { .. } => "equal",
            Self::Differ(_) => "differ",
            Self::TooFew => "not_comparable",
        }
    }
}

/// Compares the hashes of nodes at the same position of the log.
fn compare(answers: &Answers) -> Comparison {
    let mut at: BTreeMap<(u64, u64), Vec<(u64, &str)>> = BTreeMap::new();
    for status in alive(answers) {
        if !status.state_hash.is_empty() {
            let nodes = at.entry((status.applied_index, status.revision)).or_default();
            nodes.push((status.node_id, &status.state_hash));
        }
    }
    let mut equal = Comparison::TooFew;
    for ((applied_index, _), mut nodes) in at {
        nodes.sort_unstable();
        // A node that was reached by two addresses is not two nodes.
        nodes.dedup_by_key(|(id, _)| *id);
        let Some((_, first)) = nodes.first() else { continue };
        if nodes.iter().any(|(_, hash)| hash != first) {
            return Comparison::Differ(applied_index);
        }
        if nodes.len() > 1 {
            equal = Comparison::Equal { nodes: nodes.len(), applied_index };
        }
    }
    equal
}

/// Asks again while writes go on, until all that answer stand at one position, or patience ends.
async fn settle(client: &Client, mut answers: Answers) -> (Answers, Comparison) {
    for round in 1..=HASH_ROUNDS {
        let comparison = compare(&answers);
        let alive = alive(&answers).count();
        let done = match comparison {
            Comparison::Equal { nodes, .. } => nodes >= alive,
            Comparison::Differ(_) => true,
            Comparison::TooFew => alive < 2,
        };
        if done || round == HASH_ROUNDS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        answers = client.cluster().status_of_all(true).await;
    }
    let comparison = compare(&answers);
    (answers, comparison)
}

fn node_json((address, answer): &(String, crate::Result<NodeStatus>)) -> Value {
    let status = match answer {
        Ok(status) => status,
        Err(error) => return json!({ "endpoint": address, "reachable": false, "error": error.to_string() }),
    };
    let members: Vec<Value> = status
        .members
        .iter()
        .map(|member| {
            json!({
                "node_id": member.node_id, "client_address": member.client_address, "peer_address": member.peer_address,
                "voter": member.voter, "leader": member.leader, "matched_index": member.matched_index,
                "disk": member.disk.as_ref().map(disk_json),
            })
        })
        .collect();
    let keyspaces: Vec<Value> = status
        .keyspaces
        .iter()
        .map(|keyspace| {
            json!({
                "name": keyspace.name, "records": keyspace.records, "bytes": keyspace.bytes,
            })
        })
        .collect();
    json!({
        "endpoint": address, "reachable": true, "node_id": status.node_id, "version": status.version,
        "cluster_id": status.cluster_id, "role": status.role, "leader_id": status.leader_id, "term": status.term,
        "revision": status.revision, "last_log_index": status.last_log_index,
        "committed_index": status.committed_index, "applied_index": status.applied_index,
        "flushed_index": status.flushed_index, "purged_index": status.purged_index,
        "log_time_ms": status.log_time_ms, "sessions": status.sessions, "state_hash": status.state_hash,
        "feature_level": status.feature_level, "known_feature_level": status.known_feature_level,
        "members": members, "keyspaces": keyspaces, "disk": status.disk.as_ref().map(disk_json),
        "divergence": Some(&status.divergence).filter(|reason| !reason.is_empty()),
        "writes_refused": Some(&status.writes_refused).filter(|reason| !reason.is_empty()),
    })
}

fn disk_json(disk: &DiskSpace) -> Value {
    json!({
        "free_bytes": disk.free_bytes, "needed_bytes": disk.needed_bytes, "short": disk.short, "full": disk.full,
    })
}

/// A disk for a table: what is free, and whether that is enough.
fn disk_cell(disk: Option<&DiskSpace>) -> String {
    let Some(disk) = disk else { return String::new() };
    let free = format!("{} MiB free", disk.free_bytes >> 20);
    match (disk.full, disk.short) {
        (true, _) => format!("FULL, {free}"),
        (false, true) => format!("SHORT, {free}"),
        (false, false) => free,
    }
}

/// What needs somebody: who is short of disk space, and whether writes are refused for it.
fn alarms(answers: &Answers) -> Vec<String> {
    let mut lines = Vec::new();
    for status in alive(answers) {
        let Some(disk) = status.disk.filter(|disk| disk.short) else { continue };
        let (free, needed) = (disk.free_bytes >> 20, disk.needed_bytes.div_ceil(1 << 20));
        let what = if disk.full { "the disk is full" } else { "short of disk space" };
        lines.push(format!("ALARM node {}: {what}: {free} MiB free, {needed} MiB needed", status.node_id));
    }
    for status in alive(answers).filter(|status| !status.writes_refused.is_empty()) {
        let reason = output::visible(&status.writes_refused);
        lines.push(format!("ALARM writes are refused: {reason}"));
    }
    for status in alive(answers).filter(|status| !status.divergence.is_empty()) {
        lines.push(format!("ALARM {}", output::visible(&status.divergence)));
    }
    lines
}

/// Who runs what, if that differs: the cluster is being upgraded.
fn programs(answers: &Answers) -> Option<String> {
    let program = |status: &NodeStatus| (status.version.clone(), status.known_feature_level);
    let first = alive(answers).next().map(program)?;
    if alive(answers).all(|status| program(status) == first) {
        return None;
    }
    let lines = alive(answers).map(|status| {
        let (node, version, level) = (status.node_id, &status.version, status.known_feature_level.max(1));
        format!("node {node} runs meshstore {} (feature level {level})", output::visible(version))
    });
    Some(format!("the nodes run different programs:\n{}", lines.collect::<Vec<_>>().join("\n")))
}

fn text(answers: &Answers, hash: Option<&Comparison>) -> String {
    let mut columns = vec![
        "endpoint",
        "node",
        "role",
        "term",
        "revision",
        "log",
        "committed",
        "applied",
        "flushed",
        "sessions",
        "disk",
    ];
    columns.extend(hash.map(|_| "state hash"));
    let rows = answers.iter().map(|(address, answer)| match answer {
        Err(_) => vec![address.clone(), "?".into(), "unreachable".into()],
        Ok(status) => {
            let mut row = vec![address.clone(), status.node_id.to_string(), output::cell(&status.role)];
            let numbers = [status.term, status.revision, status.last_log_index, status.committed_index];
            row.extend(numbers.map(|number| number.to_string()));
            row.extend([status.applied_index, status.flushed_index, status.sessions].map(|number| number.to_string()));
            row.push(disk_cell(status.disk.as_ref()));
            row.extend(hash.map(|_| status.state_hash.clone()));
            row
        }
    });
    let mut parts = vec![table(&columns, rows)];
    let unreachable =
        answers.iter().filter_map(|(address, answer)| Some(format!("{address}: {}", answer.as_ref().err()?)));
    let unreachable: Vec<String> = unreachable.map(|line| output::visible(&line).into_owned()).collect();
    if !unreachable.is_empty() {
        parts.push(unreachable.join("\n"));
    }
    let alarms = alarms(answers);
    if !alarms.is_empty() {
        parts.push(alarms.join("\n"));
    }
    parts.extend(programs(answers));
    parts.extend(best(answers).map(cluster_text));
    parts.extend(hash.map(|comparison| match comparison {
        Comparison::Equal { nodes, applied_index } => {
            format!("{nodes} nodes hold the same at log index {applied_index}")
        }
        Comparison::Differ(applied_index) => format!("NODES DIFFER at log index {applied_index}"),
        Comparison::TooFew => "not comparable: no two nodes at the same position of the log".into(),
    }));
    parts.join("\n\n")
}

/// The one that knows most: the leader, else the one that is furthest.
fn best(answers: &Answers) -> Option<&NodeStatus> {
    alive(answers).max_by_key(|status| (status.role == "leader", status.term, status.applied_index))
}

fn cluster_text(status: &NodeStatus) -> String {
    let members = status.members.iter().map(|member| {
        let kind = if member.voter { "voter" } else { "learner" };
        let leader = if member.leader { "leader" } else { "" };
        let matched = member.matched_index.map(|index| index.to_string()).unwrap_or_default();
        let (client, peer) = (output::cell(&member.client_address), output::cell(&member.peer_address));
        let disk = disk_cell(member.disk.as_ref());
        vec![member.node_id.to_string(), kind.into(), leader.into(), client, peer, matched, disk]
    });
    let mut parts = Vec::new();
    if status.cluster_id.is_empty() {
        parts.push(format!("node {} belongs to no cluster yet", status.node_id));
    } else {
        let level = match status.feature_level {
            0 => String::new(),
            level => format!(" at feature level {level}"),
        };
        parts.push(format!("cluster {}{level}, as node {} sees it", status.cluster_id, status.node_id));
    }
    if !status.members.is_empty() {
        parts.push(table(&["member", "kind", "", "clients", "peers", "on disk up to", "disk"], members));
    }
    if !status.keyspaces.is_empty() {
        let rows = status.keyspaces.iter().map(|keyspace| {
            vec![output::cell(&keyspace.name), keyspace.records.to_string(), keyspace.bytes.to_string()]
        });
        parts.push(table(&["keyspace", "records", "bytes"], rows));
    }
    parts.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_at_one_position_are_compared() {
        let node = |node_id, applied_index, hash: &str| {
            let state_hash = hash.into();
            let status = NodeStatus { node_id, applied_index, revision: 1, state_hash, ..Default::default() };
            (format!("{node_id}"), Ok(status))
        };
        let down = ("x".to_owned(), Err(crate::Error::Unknown(String::new())));
        assert_eq!(compare(&vec![]), Comparison::TooFew);
        assert_eq!(compare(&vec![node(1, 5, "a"), node(2, 6, "b"), down.clone()]), Comparison::TooFew);
        assert_eq!(compare(&vec![node(1, 5, "a"), node(1, 5, "a")]), Comparison::TooFew, "one node, two addresses");
        let equal = Comparison::Equal { nodes: 2, applied_index: 5 };
        assert_eq!(compare(&vec![node(1, 5, "a"), node(2, 5, "a"), node(3, 6, "b")]), equal);
        assert_eq!(compare(&vec![node(1, 5, "a"), node(2, 5, "b"), down]), Comparison::Differ(5));
        assert_eq!(compare(&vec![node(1, 5, ""), node(2, 5, "")]), Comparison::TooFew, "no hashes");
    }

    #[test]
    fn programs_are_told_if_they_differ() {
        let node = |node_id, version: &str, known_feature_level| {
            let status = NodeStatus { node_id, version: version.into(), known_feature_level, ..Default::default() };
            (format!("{node_id}"), Ok(status))
        };
        assert_eq!(programs(&vec![node(1, "0.2.0", 2), node(2, "0.2.0", 2)]), None);
        let told = programs(&vec![node(1, "0.2.0", 2), node(2, "0.1.0", 0)]).unwrap();
        assert!(told.ends_with("node 2 runs meshstore 0.1.0 (feature level 1)"), "{told}");
    }
}
