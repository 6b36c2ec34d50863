//! `meshstore member`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    failure::Failure,
    options::Session,
    output::{self, table},
};
use crate::client::{MemberStatus, Members, RemovedMember};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the members: who votes, who leads, how far each is, who was removed
    #[command(after_help = "Examples:\n  meshstore member list\n  meshstore member list --json")]
    List,
    /// Invite the empty node that waits at an address
    #[command(
        after_help = "Start the node first, with an empty data directory and an id that the cluster has never had.\nIt becomes a voter \
                      by itself, as soon as it has caught up. A node that is started with --join\nneeds no invitation.\n\n\
                      Examples:\n  meshstore member add 4 10.0.0.4:7501\n  meshstore member add 5 10.0.0.5:7501 --learner"
    )]
    Add {
        /// The node's id
        id: u64,
        /// Where it waits for peers, host:port
        peer: String,
        /// It has all data and no vote, until it is promoted
        #[arg(long)]
        learner: bool,
    },
    /// Take a member out, for good: its id is never used again
    #[command(
        after_help = "A leader hands over first. The node stops by itself. Refused are the last voter, and a removal after\nwhich the \
                      voters that answer would be no quorum.\n\nExample:\n  meshstore member remove 2"
    )]
    Remove {
        /// The member's id
        id: u64,
    },
    /// Make a learner that has caught up a voter
    #[command(after_help = "Example:\n  meshstore member promote 5")]
    Promote {
        /// The learner's id
        id: u64,
    },
    /// Say where a member is now reached
    #[command(
        after_help = "Start the node at its new address first: it must answer there. What it listens on is said by its\ncluster.toml or \
                      its flags.\n\nExamples:\n  meshstore member update 3 --peer 10.0.0.7:7501 --client 10.0.0.7:7401"
    )]
    Update {
        /// The member's id
        id: u64,
        /// Where peers reach it
        #[arg(long, value_name = "HOST:PORT", required_unless_present = "client")]
        peer: Option<String>,
        /// Where clients reach it
        #[arg(long, value_name = "HOST:PORT")]
        client: Option<String>,
    },
    /// Have another voter take the lead
    #[command(after_help = "Examples:\n  meshstore member transfer\n  meshstore member transfer 3")]
    Transfer {
        /// Who is to lead [default: whoever is furthest]
        id: Option<u64>,
    },
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        if matches!(self, Self::List) && session.options.read.is_some() {
            return Err(Failure::usage("--read does not apply: the leader answers what it knows now"));
        }
        let cluster = session.writer()?.cluster();
        let written = match self {
            Self::List => {
                let members = cluster.members().await?;
                return session.out.answer(&members_json(&members), || text(&members));
            }
            Self::Add { id, peer, learner } => cluster.add(id, peer, learner).await?,
            Self::Remove { id } => cluster.remove(id).await?,
            Self::Promote { id } => cluster.promote(id).await?,
            Self::Update { id, peer, client } => cluster.update(id, peer, client).await?,
            Self::Transfer { id } => {
                let done = cluster.transfer_leadership(id.unwrap_or_default()).await?;
                let json = json!({ "leader_id": done.leader_id, "revision": done.revision });
                return session.out.answer(&json, || match done.leader_id {
                    0 => "handed over; who leads now is not known yet".into(),
                    leader => format!("node {leader} leads"),
                });
            }
        };
        session.out.written(written)
    }
}

fn kind(status: &MemberStatus) -> &'static str {
    let voter = status.member.as_ref().is_some_and(|member| member.voter);
    match (status.to_be_removed, status.to_be_added, status.to_be_voter, voter) {
        (true, ..) => "being removed",
        (_, true, ..) => "being added",
        (_, _, true, _) => "becomes a voter",
        (.., true) => "voter",
        _ => "learner",
    }
}

fn members_json(members: &Members) -> Value {
    let member = |status: &MemberStatus| {
        let member = status.member.clone().unwrap_or_default();
        json!({
            "node_id": member.node_id, "client_address": member.client_address, "peer_address": member.peer_address,
            "voter": member.voter, "leader": member.leader, "to_be_voter": status.to_be_voter,
            "to_be_removed": status.to_be_removed, "to_be_added": status.to_be_added,
            "matched_index": member.matched_index, "lag": status.lag, "reachable": status.unreachable.is_empty(),
            "unreachable": Some(&status.unreachable).filter(|reason| !reason.is_empty()),
            "version": Some(&status.version).filter(|version| !version.is_empty()),
        })
    };
    let removed = |removed: &RemovedMember| {
        json!({
            "node_id": removed.node_id, "removed_at_ms": removed.removed_at_ms, "removed_by": removed.removed_by,
        })
    };
    json!({
        "members": members.members.iter().map(member).collect::<Vec<_>>(),
        "removed": members.removed.iter().map(removed).collect::<Vec<_>>(),
        "leader_id": members.leader_id, "term": members.term, "last_log_index": members.last_log_index,
    })
}

fn text(members: &Members) -> String {
    let rows = members.members.iter().map(|status| {
        let member = status.member.clone().unwrap_or_default();
        let state = if status.unreachable.is_empty() { "reached".into() } else { output::cell(&status.unreachable) };
        vec![
            member.node_id.to_string(),
            kind(status).into(),
            if member.leader { "leader".into() } else { String::new() },
            output::cell(&member.client_address),
            output::cell(&member.peer_address),
            status.lag.map(|lag| lag.to_string()).unwrap_or_default(),
            state,
            output::cell(&status.version),
        ]
    });
    let mut parts = vec![table(&["member", "kind", "", "clients", "peers", "behind", "state", "version"], rows)];
    if !members.removed.is_empty() {
        let rows = members.removed.iter().map(|removed| {
            let by = output::cell(&removed.removed_by);
            vec![removed.node_id.to_string(), output::time(removed.removed_at_ms), by]
        });
        parts.push(table(&["removed", "at", "by"], rows));
    }
    parts.join("\n\n")
}
