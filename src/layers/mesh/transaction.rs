//! Changes of any kind, made together.
//!
//! A transaction is what its changes are one by one, under one revision; so each is made by the file of its table,
//! and only put together here.

use std::collections::BTreeSet;

use super::{config, message, node_state, route, state};
use crate::{
    Error, Result,
    layers::{
        Write,
        check::{check_count, check_some},
        consensus_log,
        lease::Attachments,
    },
    limits,
    model::{
        Key,
        consensus_log::EntryId,
        mesh::{Change, Condition, Extent, Listed, RecordId, Transaction},
        transaction::{Compare, NumberField, Operation, Relation},
    },
};

/// All changes, if all preconditions hold, and all lists are as they were. Errors: `InvalidArgument` naming what is wrong.
pub fn write(transaction: Transaction) -> Result<Write> {
    let Transaction { preconditions, unchanged, changes } = transaction;
    check_count("preconditions", preconditions.len() + unchanged.len(), limits::COMPARES)?;
    check_some("changes", changes.len(), limits::CHANGES)?;
    let compare = |(index, (record, condition)): (usize, (RecordId, Condition))| {
        compare(&record, condition).map_err(|error| within("preconditions", index, error))
    };
    let mut compares = preconditions.into_iter().enumerate().map(compare).collect::<Result<Vec<_>>>()?;
    for (index, (extent, listed)) in unchanged.into_iter().enumerate() {
        compares.push(as_listed(&extent, listed).map_err(|error| within("unchanged", index, error))?);
    }
    let (mut written, mut attached) = (BTreeSet::new(), Attachments::default());
    let mut operations = Vec::with_capacity(changes.len());
    for (index, change) in changes.into_iter().enumerate() {
        let made = made_of(change).map_err(|error| within("changes", index, error))?;
        attached.join(made.attached);
        compares.extend(made.transaction.compares);
        for operation in made.transaction.then {
            if let Operation::Put { key, .. } | Operation::Delete { key } = &operation
                && !written.insert(key.clone())
            {
                let rule = "must be of another record than the changes before it";
                return Err(Error::invalid(format!("changes[{index}]"), "", rule));
            }
            operations.push(operation);
        }
    }
    check_count("preconditions", compares.len(), limits::COMPARES)?;
    Ok(Write { attached, ..Write::compared(compares, operations) })
}

fn key(record: &RecordId) -> Result<Key> {
    match record {
        RecordId::Message(id) => message::key(id),
        RecordId::State(key) => state::key(key),
        RecordId::NodeState(node_id) => node_state::key(node_id),
        RecordId::Route(destination) => route::key(destination),
        RecordId::Config(key) => config::key(key),
        RecordId::LogEntry(EntryId { group, index, term }) => consensus_log::entry_key(group, *index, *term),
    }
}

fn compare(record: &RecordId, condition: Condition) -> Result<Compare> {
    let key = key(record)?;
    Ok(match condition {
        Condition::Exists => Compare::Exists { key, exists: true },
        Condition::Missing => Compare::Exists { key, exists: false },
        Condition::Version(to) => Compare::Number { key, field: NumberField::Version, relation: Relation::Equal, to },
        Condition::ModRevision(revision) => Compare::written_at(key, revision),
    })
}

/// That an extent is as it was listed.
fn as_listed(extent: &Extent, Listed { count, since_revision: since }: Listed) -> Result<Compare> {
    let (start, end) = match extent {
        Extent::State(prefix) => state::TABLE.extent(prefix)?,
        Extent::NodeStates => node_state::TABLE.extent("")?,
        Extent::Routes(prefix) => route::TABLE.extent(prefix)?,
        Extent::Config(prefix) => config::TABLE.extent(prefix)?,
        Extent::LogEntries(group, indexes) => consensus_log::extent(group, *indexes)?,
        // Lists of messages follow an index, whose entries say nothing of when their records were written.
        Extent::Messages => return Ok(Compare::unchanged_since(message::TABLE.scope(), since)),
    };
    Ok(Compare::Unchanged { start, end, count, since })
}

fn made_of(change: Change) -> Result<Write> {
    Ok(match change {
        Change::StoreMessage(message) => message::store(message)?,
        Change::PutState { key, value } => state::put(&key, value)?,
        Change::SaveNodeState { node_id, state_json } => node_state::save(&node_id, state_json)?,
        Change::SaveRoute { destination, route_json } => route::save(&destination, route_json)?,
        Change::SaveConfig { key, value_json } => config::save(&key, value_json)?,
        Change::AppendEntry { group, entry } => consensus_log::append(&group, entry)?,
        Change::Delete(record) => Write::always(vec![Operation::Delete { key: key(&record)? }]),
        Change::Attached { change, .. }
            if matches!(*change, Change::AppendEntry { .. } | Change::Delete(_) | Change::Attached { .. }) =>
        {
            return Err(Error::invalid("lease", "", "entries of logs and deletions take none"));
        }
        Change::Attached { lease, change } => made_of(*change)?.attached_to(lease)?,
    })
}

/// The same error, saying in which item it is.
fn within(list: &str, index: usize, error: Error) -> Error {
    match error {
        Error::InvalidArgument { field, value, rule } => {
            Error::InvalidArgument { field: format!("{list}[{index}].{field}"), value, rule }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(transaction: Transaction) -> (String, String) {
        match write(transaction) {
            Err(Error::InvalidArgument { field, rule, .. }) => (field, rule),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_transaction_is_what_its_changes_are_one_by_one() {
        let state = |key: &str| RecordId::State(key.into());
        let made = write(
            Transaction::default()
                .require(state("a"), Condition::Version(3))
                .require(RecordId::Route("r".into()), Condition::Missing)
                .put_state("a", "1")
                .delete(state("b"))
                .change(Change::SaveRoute { destination: "r".into(), route_json: "{}".into() }),
        )
        .unwrap();
        let mut expected = state::put("a", "1".into()).unwrap().transaction.then;
        expected.push(Operation::Delete { key: state::key("b").unwrap() });
        expected.extend(route::save("r", "{}".into()).unwrap().transaction.then);
        assert_eq!(made.transaction.then, expected);
        assert_eq!(made.transaction.otherwise, []);
        assert_eq!(
            made.transaction.compares,
            [
                Compare::Number {
                    key: state::key("a").unwrap(),
                    field: NumberField::Version,
                    relation: Relation::Equal,
                    to: 3
                },
                Compare::Exists { key: route::key("r").unwrap(), exists: false },
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let one = || Transaction::default().put_state("a", "1");
        assert_eq!(refused(Transaction::default()).0, "changes");
        assert_eq!(refused(one().put_state("", "")).0, "changes[1].key");
        assert_eq!(
            refused(one().require(RecordId::NodeState(String::new()), Condition::Exists)).0,
            "preconditions[0].node_id"
        );
        let (field, rule) = refused(one().delete(RecordId::State("a".into())));
        assert_eq!((field.as_str(), rule.starts_with("must be of another record")), ("changes[1]", true));
        let many = (0..=limits::CHANGES).fold(Transaction::default(), |many, n| many.put_state(n.to_string(), ""));
        assert_eq!(refused(many).0, "changes");
    }
}
