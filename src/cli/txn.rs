//! `meshstore txn`: a transaction from a file.

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::{failure::Failure, input, options::Session};
use crate::client::{Change, Condition, EntryId, LogEntry, Message, RecordId, Transacted, Transaction, Written};
use crate::limits;

const EXAMPLE: &str = "\
The file is YAML or JSON; - is standard input. `require` says what must be true before,
`change` what is done then: all of it at one revision, or none. With `lease` what is written goes with that lease.

  require:
    - { state: leader, mod_revision: 12 }       # or exists: true, exists: false, version: 3
    - { route: 10.0.0.0/8, exists: false }
  change:
    - put_state: { key: leader, value: node-2 } # or value_base64
    - save_node_state: { node_id: node-2, state: { role: leader } }
    - save_route: { destination: 10.0.0.0/8, route: { via: node-2 } }
    - save_config: { key: failover/last, value: node-2 }
    - store_message: { id: m-1, from: node-1, to: node-2, content: hello, timestamp: 1 }
    - append_entry: { group: orders, term: 3, index: 7, entry: { set: x } }
    - delete: { state: candidate }              # or message, node_state, route, config, log_entry

Exits with 5 if something that is required is not so; nothing is changed then.

Examples:
  meshstore txn failover.yaml
  echo '{\"change\": [{\"delete\": {\"state\": \"a\"}}]}' | meshstore txn -";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Txn {
    /// The file; - for standard input
    file: String,
}

impl Txn {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let argument = if self.file == "-" { self.file } else { format!("@{}", self.file) };
        let transaction = read(&input::text_up_to(&argument, limits::TRANSACTION_BYTES)?)?;
        let done = session.writer()?.commit(transaction).await?;
        let Transacted { revision, leader_id, succeeded } = done;
        if !succeeded {
            return Err(Failure::Unmet(format!(
                "something that is required was not so at revision {revision}: nothing is changed"
            )));
        }
        session.out.written(Written { revision, leader_id })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    require: Vec<Requirement>,
    /// With which goes what is written; not entries of logs, which stay.
    lease: Option<u64>,
    change: Vec<Step>,
}

/// A record by its kind, and what must be true of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    message: Option<String>,
    state: Option<String>,
    node_state: Option<String>,
    route: Option<String>,
    config: Option<String>,
    log_entry: Option<Place>,
    exists: Option<bool>,
    version: Option<u64>,
    mod_revision: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    PutState {
        key: String,
        value: Option<String>,
        value_base64: Option<String>,
    },
    SaveNodeState {
        node_id: String,
        state: Value,
    },
    SaveRoute {
        destination: String,
        route: Value,
    },
    SaveConfig {
        key: String,
        value: Value,
    },
    StoreMessage {
        id: String,
        from: String,
        to: String,
        content: Option<String>,
        content_base64: Option<String>,
        timestamp: i64,
    },
    AppendEntry {
        group: String,
        term: u64,
        index: u64,
        entry: Value,
    },
    Delete(Record),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Message(String),
    State(String),
    NodeState(String),
    Route(String),
    Config(String),
    LogEntry(Place),
}

/// An entry of a group's log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    group: String,
    term: u64,
    index: u64,
}

impl From<Place> for RecordId {
    fn from(Place { group, term, index }: Place) -> Self {
        Self::LogEntry(EntryId { group, index, term })
    }
}

/// The transaction that a file describes. What is wrong is named with its place.
fn read(text: &str) -> Result<Transaction, Failure> {
    let file: File = input::described(text)?;
    let mut transaction = Transaction::default();
    for (index, requirement) in file.require.into_iter().enumerate() {
        let (record, condition) = required(requirement).ok_or_else(|| {
            Failure::usage(format!("require[{index}] in the file: one record and one condition belong in it"))
        })?;
        transaction = transaction.require(record, condition);
    }
    for (index, step) in file.change.into_iter().enumerate() {
        let change = change(step).map_err(|wrong| Failure::usage(format!("change[{index}] in the file: {wrong}")))?;
        transaction = transaction.change(match (file.lease, change) {
            (None, change) | (Some(_), change @ (Change::AppendEntry { .. } | Change::Delete(_))) => change,
            (Some(lease), change) => change.attached_to(lease),
        });
    }
    Ok(transaction)
}

fn required(requirement: Requirement) -> Option<(RecordId, Condition)> {
    let Requirement { message, state, node_state, route, config, log_entry, exists, version, mod_revision } =
        requirement;
    let records = [
        message.map(RecordId::Message),
        state.map(RecordId::State),
        node_state.map(RecordId::NodeState),
        route.map(RecordId::Route),
        config.map(RecordId::Config),
        log_entry.map(RecordId::from),
    ];
    let exists = exists.map(|exists| if exists { Condition::Exists } else { Condition::Missing });
    let conditions = [exists, version.map(Condition::Version), mod_revision.map(Condition::ModRevision)];
    Some((only(records)?, only(conditions)?))
}

/// The one that is there; `None` if there is none, or more than one.
fn only<T>(of: impl IntoIterator<Item = Option<T>>) -> Option<T> {
    let mut of = of.into_iter().flatten();
    of.next().filter(|_| of.next().is_none())
}

fn change(step: Step) -> Result<Change, String> {
    Ok(match step {
        Step::PutState { key, value, value_base64 } => {
            Change::PutState { key, value: bytes("value", value, value_base64)? }
        }
        Step::SaveNodeState { node_id, state } => Change::SaveNodeState { node_id, state_json: state.to_string() },
        Step::SaveRoute { destination, route } => Change::SaveRoute { destination, route_json: route.to_string() },
        Step::SaveConfig { key, value } => Change::SaveConfig { key, value_json: value.to_string() },
        Step::StoreMessage { id, from, to, content, content_base64, timestamp } => {
            let content = bytes("content", content, content_base64)?;
            Change::StoreMessage(Message { id, from, to, content, timestamp, large: None })
        }
        Step::AppendEntry { group, term, index, entry } => {
            Change::AppendEntry { group, entry: LogEntry { term, index, entry_json: entry.to_string() } }
        }
        Step::Delete(record) => Change::Delete(match record {
            Record::Message(id) => RecordId::Message(id),
            Record::State(key) => RecordId::State(key),
            Record::NodeState(node_id) => RecordId::NodeState(node_id),
            Record::Route(destination) => RecordId::Route(destination),
            Record::Config(key) => RecordId::Config(key),
            Record::LogEntry(place) => place.into(),
        }),
    })
}

fn bytes(name: &str, text: Option<String>, base64: Option<String>) -> Result<bytes::Bytes, String> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    match (text, base64) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => {
            let decoded = BASE64_STANDARD.decode(base64).map_err(|error| format!("{name}_base64: {error}"))?;
            Ok(decoded.into())
        }
        _ => Err(format!("{name} or {name}_base64 belongs in it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        match read(text) {
            Err(Failure::Usage(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_a_transaction() {
        let text = EXAMPLE.split("\n\n").nth(1).unwrap();
        let transaction = read(text).unwrap();
        assert_eq!(
            transaction.preconditions,
            [
                (RecordId::State("leader".into()), Condition::ModRevision(12)),
                (RecordId::Route("10.0.0.0/8".into()), Condition::Missing),
            ]
        );
        assert_eq!(transaction.changes.len(), 7);
        assert_eq!(transaction.changes[0], Change::PutState { key: "leader".into(), value: "node-2".into() });
        assert_eq!(
            transaction.changes[2],
            Change::SaveRoute { destination: "10.0.0.0/8".into(), route_json: r#"{"via":"node-2"}"#.into() }
        );
        let entry = LogEntry { term: 3, index: 7, entry_json: r#"{"set":"x"}"#.into() };
        assert_eq!(transaction.changes[5], Change::AppendEntry { group: "orders".into(), entry });
        assert_eq!(transaction.changes[6], Change::Delete(RecordId::State("candidate".into())));
        let json = r#"{"change": [{"put_state": {"key": "k", "value_base64": "AP8="}}]}"#;
        let binary = Change::PutState { key: "k".into(), value: bytes::Bytes::from_static(&[0, 255]) };
        assert_eq!(read(json).unwrap().changes, [binary]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, part) in [
            ("{", "not YAML or JSON"),
            ("{}", "change"),
            ("{change: [{drop_table: {}}]}", "change[0]"),
            ("{change: [{put_state: {key: a, value: b, ttl: 5}}]}", "ttl"),
            ("{change: [{put_state: {key: a}}]}", "value or value_base64"),
            ("{change: [{put_state: {key: a, value_base64: '?'}}]}", "value_base64"),
            ("{change: [], require: [{state: a}]}", "require[0]"),
            ("{change: [], require: [{state: a, route: b, exists: true}]}", "one record and one condition"),
            ("{change: [{delete: {table: a}}]}", "change[0]"),
        ] {
            assert!(refused(text).contains(part), "{text}: {}", refused(text));
        }
    }
}
