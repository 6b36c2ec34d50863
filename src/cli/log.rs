//! `meshstore log`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    failure::Failure,
    input,
    options::{Part, Session},
    output::{self, List, table},
};
use crate::client::consensus_log::{Entry, Indexes, RaftEntry, RaftOperation, RaftPart, RaftPayload, RaftProposal};

const JSON: &str = "JSON is the text itself, - for standard input, or @FILE.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Append an entry: to the Raft log, or with --group, --term and --index to a group's log
    #[command(
        after_help = format!("{JSON}\n\nExamples:\n  meshstore log append '{{\"note\":\"before the migration\"}}'\n  meshstore log append --group shard-7 --term 3 --index 42 @entry.json")
    )]
    Append {
        #[command(flatten)]
        group: Group,
        /// The entry's term; for a group
        #[arg(long, requires = "group")]
        term: Option<u64>,
        /// The entry's index; for a group
        #[arg(long, requires = "group")]
        index: Option<u64>,
        /// JSON text, kept exactly as it is; at most 1 MiB
        #[arg(value_name = "JSON", allow_hyphen_values = true)]
        entry: String,
    },
    /// Read one entry of the Raft log, decoded, or of a group's log
    #[command(after_help = "Examples:\n  meshstore log get 17\n  meshstore log get --group shard-7 42 --json")]
    Get {
        #[command(flatten)]
        group: Group,
        /// The index
        index: u64,
        /// Of several terms this one, not the highest; for a group
        #[arg(long, requires = "group")]
        term: Option<u64>,
    },
    /// List committed entries of the Raft log as the leader holds it, or of a group's log
    #[command(
        after_help = "Examples:\n  meshstore log list\n  meshstore log list 100 120 --json\n  meshstore log list --group shard-7 --all"
    )]
    List {
        #[command(flatten)]
        group: Group,
        /// The first index; of the Raft log the first that it holds, if nothing is said
        first: Option<u64>,
        /// The last index, included; as far as it goes, if nothing is said
        last: Option<u64>,
        #[command(flatten)]
        part: Part,
    },
    /// Delete the entries of a range of indexes from a group's log; the Raft log is never deleted by hand
    #[command(after_help = "Example:\n  meshstore log delete --group shard-7 1 41")]
    Delete {
        /// The group
        #[arg(long)]
        group: String,
        /// The first index
        first: u64,
        /// The last index, included
        last: u64,
    },
}

#[derive(Args, Debug)]
pub(super) struct Group {
    /// The log of this consensus group instead of the Raft log
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Append { group, term, index, entry } => append(session, group.group, term, index, &entry).await,
            Self::Get { group, index, term } => match group.group {
                Some(group) => {
                    let entry = session.reader()?.group_log(&group).get(index, term).await?;
                    session.out.answer(&entry_json(&entry), || entry_text(&entry))
                }
                None => {
                    let part = raft(session)?.read(Indexes { first: index, last: index }, 1).await?;
                    let Some(entry) = part.entries.first() else {
                        return Err(Failure::Failed("the node sent no entry".into()));
                    };
                    session.out.answer(&raft_json(entry), || raft_text(entry))
                }
            },
            Self::List { group, first, last, part } => match group.group {
                Some(group) => list_group(session, &group, first.unwrap_or(0), last.unwrap_or(0), part).await,
                None => list_raft(session, first, last.unwrap_or(0), part).await,
            },
            Self::Delete { group, first, last } => {
                if last == 0 || last < first {
                    return Err(Failure::usage("the last index must be at least 1, and not before the first"));
                }
                let written = session.writer()?.group_log(&group).delete(Indexes { first, last }).await?;
                session.out.written(written)
            }
        }
    }
}

async fn append(
    session: &Session,
    group: Option<String>,
    term: Option<u64>,
    index: Option<u64>,
    entry: &str,
) -> Result<(), Failure> {
    let entry = input::text(entry)?;
    let client = session.writer()?;
    match (group, term, index) {
        (None, ..) => {
            let placed = client.raft_log().append(&entry).await?;
            let (term, index, ordinal) = (placed.position.term, placed.position.index, placed.ordinal);
            let json = json!({ "term": term, "index": index, "ordinal": ordinal });
            session.out.answer(&json, || format!("appended at index {index}, term {term} (place {ordinal} in it)"))
        }
        (Some(group), Some(term), Some(index)) => {
            session.out.written(client.group_log(&group).append(term, index, &entry).await?)
        }
        _ => Err(Failure::usage("an entry of a group's log wants --term and --index")),
    }
}

fn raft(session: &Session) -> Result<crate::client::consensus_log::RaftLog, Failure> {
    if session.options.read.is_some() {
        return Err(Failure::usage("--read does not apply: a node shows the committed entries of its own log"));
    }
    Ok(session.reader()?.raft_log())
}

async fn list_raft(session: &Session, first: Option<u64>, last: u64, part: Part) -> Result<(), Failure> {
    let log = raft(session)?;
    let request = part.request();
    if !request.cursor.is_empty() {
        return Err(Failure::usage("the Raft log has no cursors: give the first index"));
    }
    let mut shown = log.read(Indexes { first: first.unwrap_or(0), last }, request.limit).await?;
    if first.is_none() && shown.entries.is_empty() && shown.first_index > 0 {
        shown = log.read(Indexes { first: shown.first_index, last }, request.limit).await?;
    }
    while let Some(newest) = shown.entries.last().filter(|_| part.all) {
        let next = log.read(Indexes { first: newest.index + 1, last }, request.limit).await?;
        if next.entries.is_empty() {
            break;
        }
        shown.entries.extend(next.entries);
    }
    let json = json!({
        "node_id": shown.node_id, "first_index": shown.first_index, "committed_index": shown.committed_index,
        "items": shown.entries.iter().map(raft_json).collect::<Vec<_>>(),
    });
    session.out.answer(&json, || raft_list_text(&shown))
}

fn raft_list_text(shown: &RaftPart) -> String {
    let rows = shown.entries.iter().map(|entry| {
        let (kind, what) = summary(entry);
        vec![entry.index.to_string(), entry.term.to_string(), kind.into(), output::cell(&what)]
    });
    let rows: Vec<_> = rows.collect();
    let held =
        format!("node {} holds index {} to {} (committed)", shown.node_id, shown.first_index, shown.committed_index);
    let list = if rows.is_empty() { "none".into() } else { table(&["index", "term", "kind", "what"], rows) };
    format!("{list}\n\n{held}")
}

fn summary(entry: &RaftEntry) -> (&'static str, String) {
    match &entry.payload {
        None | Some(RaftPayload::Blank(_)) => ("blank", String::new()),
        Some(RaftPayload::Membership(membership)) => {
            let voters = membership.voters.iter().map(|set| format!("{:?}", set.node_ids)).collect::<Vec<_>>();
            ("membership", format!("voters {}, {} members", voters.join(" and "), membership.members.len()))
        }
        Some(RaftPayload::Batch(batch)) => {
            let shown: Vec<_> = batch.proposals.iter().map(proposal_text).collect();
            ("batch", shown.join("; "))
        }
    }
}

fn proposal_text(proposal: &RaftProposal) -> String {
    if let Some(entry) = &proposal.entry_json {
        return format!("application {}", output::visible(entry));
    }
    if proposal.operations.is_empty() {
        return proposal.action.replace('_', " ");
    }
    proposal.operations.iter().map(operation_text).collect::<Vec<_>>().join(", ")
}

fn operation_text(operation: &RaftOperation) -> String {
    let key = output::shown(&operation.key);
    format!("{} {} {key}", operation.kind.replace('_', " "), operation.keyspace).trim_end().to_owned()
}

fn raft_text(entry: &RaftEntry) -> String {
    let (kind, what) = summary(entry);
    let mut lines = vec![("index", entry.index.to_string()), ("term", entry.term.to_string()), ("kind", kind.into())];
    match &entry.payload {
        Some(RaftPayload::Batch(batch)) => {
            lines.push(("log time", format!("{} ms", batch.log_time_ms)));
            lines.push(("wall time", output::time(batch.wall_time_ms)));
            let rows = batch.proposals.iter().map(|proposal| {
                let session = match proposal.session {
                    0 => String::new(),
                    session => format!("{session}/{}", proposal.sequence),
                };
                let (ordinal, action) = (proposal.ordinal.to_string(), proposal.action.replace('_', " "));
                let what = output::cell(&proposal_text(proposal));
                vec![ordinal, output::cell(&proposal.principal), session, action, proposal.compares.to_string(), what]
            });
            let columns = ["place", "principal", "session/call", "action", "compares", "what"];
            format!("{}\n\n{}", output::fields(&lines), table(&columns, rows))
        }
        _ => {
            if !what.is_empty() {
                lines.push(("what", what));
            }
            output::fields(&lines)
        }
    }
}

fn raft_json(entry: &RaftEntry) -> Value {
    let mut object = Map::new();
    object.insert("index".into(), entry.index.into());
    object.insert("term".into(), entry.term.into());
    let (kind, payload) = match &entry.payload {
        None | Some(RaftPayload::Blank(_)) => ("blank", Value::Null),
        Some(RaftPayload::Membership(membership)) => {
            let voters: Vec<_> = membership.voters.iter().map(|set| &set.node_ids).collect();
            ("membership", json!({ "voters": voters, "members": membership.members }))
        }
        Some(RaftPayload::Batch(batch)) => {
            let proposals: Vec<_> = batch.proposals.iter().map(proposal_json).collect();
            let (log_time_ms, wall_time_ms) = (batch.log_time_ms, batch.wall_time_ms);
            ("batch", json!({ "log_time_ms": log_time_ms, "wall_time_ms": wall_time_ms, "proposals": proposals }))
        }
    };
    object.insert("kind".into(), kind.into());
    if !payload.is_null() {
        object.insert(kind.into(), payload);
    }
    Value::Object(object)
}

fn proposal_json(proposal: &RaftProposal) -> Value {
    let operations = |operations: &[RaftOperation]| {
        let shown = operations.iter().map(|operation| {
            let mut object = Map::new();
            object.insert("kind".into(), operation.kind.as_str().into());
            object.insert("keyspace".into(), operation.keyspace.as_str().into());
            output::put_bytes(&mut object, "key", &operation.key);
            object.insert("value_bytes".into(), operation.value_bytes.into());
            Value::Object(object)
        });
        shown.collect::<Vec<_>>()
    };
    json!({
        "ordinal": proposal.ordinal, "principal": proposal.principal, "session": proposal.session,
        "sequence": proposal.sequence, "action": proposal.action, "compares": proposal.compares,
        "operations": operations(&proposal.operations), "otherwise": operations(&proposal.otherwise),
        "entry": proposal.entry_json.as_deref().map(|text| serde_json::from_str::<Value>(text).unwrap_or(Value::Null)),
    })
}

async fn list_group(session: &Session, group: &str, first: u64, last: u64, part: Part) -> Result<(), Failure> {
    let log = session.reader()?.group_log(group);
    let indexes = Indexes { first, last };
    let (entries, next_cursor, revision) = part.of(log.list_all(indexes), log.list(indexes, part.request())).await?;
    let rows = entries.iter().map(|entry| {
        let value = output::cell(&output::visible(entry.stored.value.raw()));
        vec![entry.index.to_string(), entry.term.to_string(), value, output::time(entry.stored.created_at_ms)]
    });
    let list = List { rows: rows.collect(), items: entries.iter().map(entry_json).collect(), next_cursor, revision };
    session.out.list(&["index", "term", "entry", "appended"], list)
}

fn entry_json(entry: &Entry) -> Value {
    let mut object = Map::new();
    object.insert("index".into(), entry.index.into());
    object.insert("term".into(), entry.term.into());
    object.insert("entry".into(), serde_json::from_str(entry.stored.value.raw()).unwrap_or(Value::Null));
    output::put_version(&mut object, &entry.stored);
    Value::Object(object)
}

fn entry_text(entry: &Entry) -> String {
    let value = output::visible(entry.stored.value.raw()).into_owned();
    let mut lines = vec![("index", entry.index.to_string()), ("term", entry.term.to_string()), ("entry", value)];
    lines.extend(output::version_fields(&entry.stored));
    output::fields(&lines)
}
