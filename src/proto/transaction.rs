//! Transactions as wire messages, and back.

use super::{convert::required, v1};
use crate::{
    Error, Result,
    model::{
        consensus_log::{EntryId, Indexes, LogEntry},
        mesh::{Change, Condition, Extent, Listed, RecordId, Transaction},
    },
};

impl From<Transaction> for v1::TransactRequest {
    fn from(transaction: Transaction) -> Self {
        let Transaction { preconditions, unchanged, changes } = transaction;
        Self {
            attempt: None,
            unchanged: unchanged.into_iter().map(Into::into).collect(),
            preconditions: preconditions.into_iter().map(Into::into).collect(),
            changes: changes.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::TransactRequest> for Transaction {
    type Error = Error;

    fn try_from(request: v1::TransactRequest) -> Result<Self> {
        let v1::TransactRequest { attempt: _, preconditions, changes, unchanged } = request;
        let preconditions = preconditions.into_iter().enumerate().map(|(index, precondition)| {
            let at = |part: &str| format!("preconditions[{index}].{part}");
            let record = record(at("record"), precondition.record)?;
            Ok((record, required(&at("condition"), precondition.condition)?.into()))
        });
        let unchanged = unchanged.into_iter().enumerate().map(|(index, unchanged)| {
            let v1::Unchanged { extent, count, since_revision } = unchanged;
            let extent = required(&format!("unchanged[{index}].extent"), extent.and_then(|extent| extent.extent))?;
            Ok((extent.into(), Listed { count, since_revision }))
        });
        let changes = changes.into_iter().enumerate().map(|(index, change)| {
            let at = format!("changes[{index}]");
            let lease = change.lease;
            let change = change_of(&at, required(&at, change.change)?)?;
            Ok(if lease == 0 { change } else { change.attached_to(lease) })
        });
        Ok(Self {
            preconditions: preconditions.collect::<Result<_>>()?,
            unchanged: unchanged.collect::<Result<_>>()?,
            changes: changes.collect::<Result<_>>()?,
        })
    }
}

impl From<RecordId> for v1::RecordId {
    fn from(record: RecordId) -> Self {
        use v1::record_id::Record;
        let record = match record {
            RecordId::Message(id) => Record::Message(id),
            RecordId::State(key) => Record::State(key),
            RecordId::NodeState(node_id) => Record::NodeState(node_id),
            RecordId::Route(destination) => Record::Route(destination),
            RecordId::Config(key) => Record::Config(key),
            RecordId::LogEntry(EntryId { group, index, term }) => {
                Record::LogEntry(v1::LogEntryId { group, term, index })
            }
        };
        Self { record: Some(record) }
    }
}

/// The record that is meant. Errors: `InvalidArgument` naming the field.
pub(super) fn record(field: String, record: Option<v1::RecordId>) -> Result<RecordId> {
    use v1::record_id::Record;
    Ok(match required(&field, record.and_then(|record| record.record))? {
        Record::Message(id) => RecordId::Message(id),
        Record::State(key) => RecordId::State(key),
        Record::NodeState(node_id) => RecordId::NodeState(node_id),
        Record::Route(destination) => RecordId::Route(destination),
        Record::Config(key) => RecordId::Config(key),
        Record::LogEntry(v1::LogEntryId { group, term, index }) => RecordId::LogEntry(EntryId { group, index, term }),
    })
}

impl From<(RecordId, Condition)> for v1::Precondition {
    fn from((record, condition): (RecordId, Condition)) -> Self {
        use v1::precondition::Condition as Wire;
        let condition = match condition {
            Condition::Exists => Wire::Exists(true),
            Condition::Missing => Wire::Exists(false),
            Condition::Version(version) => Wire::Version(version),
            Condition::ModRevision(revision) => Wire::ModRevision(revision),
        };
        Self { record: Some(record.into()), condition: Some(condition) }
    }
}

impl From<v1::precondition::Condition> for Condition {
    fn from(condition: v1::precondition::Condition) -> Self {
        use v1::precondition::Condition as Wire;
        match condition {
            Wire::Exists(true) => Self::Exists,
            Wire::Exists(false) => Self::Missing,
            Wire::Version(version) => Self::Version(version),
            Wire::ModRevision(revision) => Self::ModRevision(revision),
        }
    }
}

impl From<(Extent, Listed)> for v1::Unchanged {
    fn from((extent, Listed { count, since_revision }): (Extent, Listed)) -> Self {
        use v1::extent::Extent as Wire;
        let extent = match extent {
            Extent::State(prefix) => Wire::StatePrefix(prefix),
            Extent::NodeStates => Wire::NodeStates(true),
            Extent::Routes(prefix) => Wire::RoutePrefix(prefix),
            Extent::Config(prefix) => Wire::ConfigPrefix(prefix),
            Extent::Messages => Wire::Messages(true),
            Extent::LogEntries(group, Indexes { first: first_index, last: last_index }) => {
                Wire::LogEntries(v1::LogEntryRange { group, first_index, last_index })
            }
        };
        Self { extent: Some(v1::Extent { extent: Some(extent) }), count, since_revision }
    }
}

impl From<v1::extent::Extent> for Extent {
    fn from(extent: v1::extent::Extent) -> Self {
        use v1::extent::Extent as Wire;
        match extent {
            Wire::StatePrefix(prefix) => Self::State(prefix),
            Wire::NodeStates(_) => Self::NodeStates,
            Wire::RoutePrefix(prefix) => Self::Routes(prefix),
            Wire::ConfigPrefix(prefix) => Self::Config(prefix),
            Wire::Messages(_) => Self::Messages,
            Wire::LogEntries(v1::LogEntryRange { group, first_index: first, last_index: last }) => {
                Self::LogEntries(group, Indexes { first, last })
            }
        }
    }
}

impl From<Change> for v1::Change {
    fn from(change: Change) -> Self {
        use v1::change::Change as Wire;
        let json = |key, json| v1::JsonValue { key, json };
        let change = match change {
            Change::StoreMessage(message) => Wire::StoreMessage(message.into()),
            Change::PutState { key, value } => Wire::PutState(v1::StateValue { key, value }),
            Change::SaveNodeState { node_id, state_json } => Wire::SaveNodeState(json(node_id, state_json)),
            Change::SaveRoute { destination, route_json } => Wire::SaveRoute(json(destination, route_json)),
            Change::SaveConfig { key, value_json } => Wire::SaveConfig(json(key, value_json)),
            Change::AppendEntry { group, entry: LogEntry { term, index, entry_json } } => {
                Wire::AppendEntry(v1::AppendedEntry { group, term, index, entry_json })
            }
            Change::Delete(record) => Wire::Delete(record.into()),
            Change::Attached { lease, change } => return Self { lease, ..Self::from(*change) },
        };
        Self { change: Some(change), lease: 0 }
    }
}

fn change_of(at: &str, change: v1::change::Change) -> Result<Change> {
    use v1::change::Change as Wire;
    Ok(match change {
        Wire::StoreMessage(message) => Change::StoreMessage(message.into()),
        Wire::PutState(v1::StateValue { key, value }) => Change::PutState { key, value },
        Wire::SaveNodeState(v1::JsonValue { key, json }) => Change::SaveNodeState { node_id: key, state_json: json },
        Wire::SaveRoute(v1::JsonValue { key, json }) => Change::SaveRoute { destination: key, route_json: json },
        Wire::SaveConfig(v1::JsonValue { key, json }) => Change::SaveConfig { key, value_json: json },
        Wire::AppendEntry(v1::AppendedEntry { group, term, index, entry_json }) => {
            Change::AppendEntry { group, entry: LogEntry { term, index, entry_json } }
        }
        Wire::Delete(deleted) => Change::Delete(record(format!("{at}.delete"), Some(deleted))?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::mesh::Message;

    #[test]
    fn a_transaction_round_trips() {
        let name = || "name".to_owned();
        let records = [
            RecordId::Message(name()),
            RecordId::State(name()),
            RecordId::NodeState(name()),
            RecordId::Route(name()),
            RecordId::Config(name()),
            RecordId::LogEntry(EntryId { group: name(), index: 5, term: 6 }),
        ];
        let conditions = [
            Condition::Exists,
            Condition::Missing,
            Condition::Version(0),
            Condition::ModRevision(7),
            Condition::Exists,
            Condition::Missing,
        ];
        let message =
            Message { id: name(), from: "f".into(), to: "t".into(), content: "c".into(), timestamp: -1, large: None };
        let mut transaction = Transaction {
            preconditions: records.iter().cloned().zip(conditions).collect(),
            unchanged: [
                Extent::State(name()),
                Extent::NodeStates,
                Extent::Routes(name()),
                Extent::Config(name()),
                Extent::Messages,
                Extent::LogEntries(name(), Indexes { first: 2, last: 3 }),
            ]
            .map(|extent| (extent, Listed { count: 3, since_revision: 9 }))
            .to_vec(),
            changes: vec![
                Change::StoreMessage(message),
                Change::PutState { key: name(), value: "v".into() },
                Change::SaveNodeState { node_id: name(), state_json: "1".into() },
                Change::SaveRoute { destination: name(), route_json: "2".into() },
                Change::SaveConfig { key: name(), value_json: "3".into() },
                Change::AppendEntry { group: name(), entry: LogEntry { term: 7, index: 8, entry_json: "4".into() } },
            ],
        };
        transaction.changes.extend(records.map(Change::Delete));
        transaction.changes.push(Change::PutState { key: name(), value: "v".into() }.attached_to(7));
        assert_eq!(Transaction::try_from(v1::TransactRequest::from(transaction.clone())), Ok(transaction));
    }

    #[test]
    fn what_is_missing_is_named() {
        let field = |request| match Transaction::try_from(request) {
            Err(Error::InvalidArgument { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        let delete =
            |record| v1::Change { change: Some(v1::change::Change::Delete(v1::RecordId { record })), lease: 0 };
        let state = Some(v1::RecordId { record: Some(v1::record_id::Record::State("a".into())) });
        let request =
            |preconditions, changes| v1::TransactRequest { preconditions, changes, ..v1::TransactRequest::default() };
        let listed = v1::TransactRequest { unchanged: vec![v1::Unchanged::default()], ..Default::default() };
        assert_eq!(field(listed), "unchanged[0].extent");
        assert_eq!(field(request(vec![], vec![v1::Change::default()])), "changes[0]");
        assert_eq!(field(request(vec![], vec![delete(None)])), "changes[0].delete");
        assert_eq!(field(request(vec![v1::Precondition::default()], vec![])), "preconditions[0].record");
        let unconditional = v1::Precondition { record: state, condition: None };
        assert_eq!(field(request(vec![unconditional], vec![])), "preconditions[0].condition");
    }
}
