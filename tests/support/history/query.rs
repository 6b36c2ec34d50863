//! Queries that an index answers, held against reads of everything.
//!
//! Each answer names its revision, and of each value the revision that wrote it. So an answer of revision R, and all that is
//! there at revision S, tell of each other: a value that was last written at or before both must be in both, as the same. All
//! pairs of a query and the reads next to it are compared; at one revision they must agree wholly.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Operation, Problems, Verdict, place};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Call {
    /// Values, attributes, indexes and namespaces are changed; what becomes of it shows in the reads.
    Change(String),
    /// What is of this group, and at least so much; the greatest first.
    Query { group: u64, least: u64 },
    /// Everything.
    Scan,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Reply {
    Changed,
    Found { revision: u64, rows: Vec<Row> },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub key: String,
    /// The revision that wrote it.
    pub written: u64,
    pub group: u64,
    pub number: u64,
}

type Op = Operation<Call, Reply>;

/// Reads of everything next to a query that it is compared with, before it and behind it.
const NEXT: usize = 4;

pub fn check(history: &[Op]) -> Verdict {
    let mut problems = Problems::default();
    let mut scans: BTreeMap<u64, Vec<&[Row]>> = BTreeMap::new();
    for operation in history {
        if let (Call::Scan, Some(Reply::Found { revision, rows })) = (&operation.call, operation.reply()) {
            scans.entry(*revision).or_default().push(rows);
        }
    }
    for operation in history {
        if let (Call::Query { group, least }, Some(Reply::Found { revision, rows })) =
            (&operation.call, operation.reply())
        {
            check_rows(operation, (*group, *least), rows, &mut problems);
            let before = scans.range(..*revision).rev().take(NEXT);
            for (scanned, all) in before.chain(scans.range(revision..).take(NEXT)) {
                for everything in all {
                    compare((operation, *revision, rows), (*scanned, everything), (*group, *least), &mut problems);
                }
            }
        }
    }
    problems.verdict()
}

/// What is answered is what was asked for, in its order.
fn check_rows(query: &Op, (group, least): (u64, u64), rows: &[Row], problems: &mut Problems) {
    for row in rows {
        if row.group != group || row.number < least {
            problems.add(|| format!("unasked: {row:?} was answered, {}", place(query)));
        }
    }
    for pair in rows.windows(2) {
        let order = |row: &Row| (std::cmp::Reverse(row.number), row.key.clone());
        if order(&pair[0]) >= order(&pair[1]) {
            problems.add(|| format!("order: {:?} before {:?}, {}", pair[0], pair[1], place(query)));
        }
    }
}

fn compare(
    (query, at, rows): (&Op, u64, &[Row]),
    (scanned, everything): (u64, &[Row]),
    (group, least): (u64, u64),
    problems: &mut Problems,
) {
    for row in everything.iter().filter(|row| row.written <= at && scanned >= at) {
        // It was so when the query looked, too.
        let wanted = row.group == group && row.number >= least;
        if wanted && !rows.contains(row) {
            problems.add(|| format!("missed: {row:?} was there at {scanned}, but not found at {at}, {}", place(query)));
        }
        if let Some(other) = rows.iter().find(|found| found.key == row.key && *found != row) {
            problems.add(|| format!("stale: {other:?} was found at {at}, but it was {row:?}, {}", place(query)));
        }
    }
    for row in rows.iter().filter(|row| row.written <= scanned && scanned <= at) {
        // It was so when everything was read, too.
        if !everything.contains(row) {
            problems.add(|| {
                format!("phantom: {row:?} was found at {at}, but was not there at {scanned}, {}", place(query))
            });
        }
    }
}
