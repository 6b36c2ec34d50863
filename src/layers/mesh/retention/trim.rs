//! Deletes what the rules do not keep.
//!
//! A *pass* goes through the mailboxes that have a rule, in order of their names. Of each it walks the index of receivers:
//! that counts the messages, and finds the aged among them; then, from the front again, the oldest beyond the number. A step
//! walks a bounded part, and a transaction deletes a bounded part, each message only as it was seen, and only while the rule
//! is as it was. One mailbox is walked in one view: so what goes is what was too much at one revision, however many others
//! its receiver takes out meanwhile.
//!
//! A pass is begun only if messages or rules have changed since the last one did, or if the message that it left has aged
//! that is first to; and after each it rests, longer the more there was to walk. So nothing is done where there is nothing to
//! do, and of a large store the walking takes a small part of one processor.

use std::collections::BTreeMap;

use super::TABLE;
use crate::{
    Result,
    layers::{list::Range, mesh::message},
    model::{
        Key, Record,
        keyspace::INDEX_MESSAGE_TO,
        mesh::Retention,
        transaction::{Compare, Operation, Transaction},
    },
    state::{
        View,
        sweep::{Sight, Step, Sweep},
        view::IndexEntry,
    },
};

/// The shortest rest after a pass, and between looks whether there is one to make.
const REST_MS: u64 = 1_000;
/// One more millisecond of rest for so many entries that were walked.
const ENTRIES_PER_REST_MS: u64 = 20;
/// Entries that are walked in one step, of which no records are read.
const ENTRIES: usize = 1_000;
/// And of which records are read.
const RECORDS: usize = 100;
/// Messages, and bytes of them, that one transaction deletes (the last one may be above it).
const MESSAGES_AT_ONCE: usize = 500;
const BYTES_AT_ONCE: usize = 8 << 20;
/// Rules that are read at once.
const RULES: usize = 500;

/// Goes through the mailboxes, pass by pass.
#[derive(Default)]
pub struct Trim {
    pass: Option<Pass>,
    /// The last changes of messages and rules when the last pass began.
    seen: Option<(u64, u64)>,
    /// When the next message ages, by wall time, of those that the last pass left.
    due_ms: Option<u64>,
}

/// A rule, and the revision at which it was set.
type Rule = (Retention, u64);

struct Pass {
    rules: BTreeMap<String, Rule>,
    /// Behind the mailbox that was gone through last.
    from: String,
    mailbox: Option<Mailbox>,
    walked: u64,
    due_ms: Option<u64>,
}

/// A mailbox that is being gone through.
struct Mailbox {
    name: String,
    /// What it is gone through in, and when that was opened.
    view: View,
    wall_ms: u64,
    /// That the rule is as it was.
    guards: Vec<Compare>,
    retention: Retention,
    range: Range,
    /// Messages that were counted, and are not aged.
    left: u64,
    /// `Some` once all are counted: how many of the oldest are to go.
    excess: Option<u64>,
}

/// Messages to delete together.
#[derive(Default)]
struct Batch {
    compares: Vec<Compare>,
    operations: Vec<Operation>,
    bytes: usize,
}

impl Sweep for Trim {
    fn step(&mut self, sight: &Sight<'_>) -> Result<Step> {
        if let Some(pass) = &mut self.pass {
            if let Some(step) = pass.step(sight)? {
                return Ok(step);
            }
            let rest_ms = REST_MS + pass.walked / ENTRIES_PER_REST_MS;
            self.due_ms = pass.due_ms;
            self.pass = None;
            return Ok(Step::Rest(rest_ms));
        }
        if (sight.account)(TABLE.scope()).count == 0 {
            self.begin_anew();
            return Ok(Step::Rest(REST_MS));
        }
        let view = (sight.view)()?;
        // Changes that the view does not show bring another pass.
        let last_change = |scope| (sight.account)(scope).last_revision.min(view.revision());
        let now = (last_change(message::TABLE.scope()), last_change(TABLE.scope()));
        if self.seen == Some(now) && self.due_ms.is_none_or(|due_ms| due_ms > sight.wall_ms) {
            return Ok(Step::Rest(REST_MS));
        }
        self.pass = Some(Pass::begin(&view)?);
        self.seen = Some(now);
        Ok(Step::Next)
    }

    fn begin_anew(&mut self) {
        *self = Self::default();
    }
}

impl Pass {
    fn begin(view: &View) -> Result<Self> {
        let (mut rules, mut start) = (BTreeMap::new(), Vec::new());
        loop {
            let page = view.records(TABLE.scope(), &start, None, RULES)?;
            let ended = page.len() < RULES;
            for (key, record) in page {
                start = [key.user_bytes().as_ref(), &[0]].concat();
                let mod_revision = record.mod_revision;
                let name = String::from_utf8_lossy(&key.user_bytes()).into_owned();
                let (name, stored) = super::open(view, name, record)?;
                rules.insert(name, (stored.value, mod_revision));
            }
            if ended {
                return Ok(Self { rules, from: String::new(), mailbox: None, walked: 0, due_ms: None });
            }
        }
    }

    /// The next step; `None`: the pass has ended.
    fn step(&mut self, sight: &Sight<'_>) -> Result<Option<Step>> {
        let Some(mailbox) = &mut self.mailbox else {
            self.mailbox = self.next_mailbox((sight.view)()?, sight.wall_ms)?;
            return Ok(self.mailbox.as_ref().map(|_| Step::Next));
        };
        let (batch, ended) = match mailbox.excess {
            None => mailbox.walk(&mut self.walked, &mut self.due_ms)?,
            Some(excess) => mailbox.trim(excess, &mut self.walked)?,
        };
        let step = batch.step(mailbox);
        if ended {
            self.from = format!("{}\0", mailbox.name);
            self.mailbox = None;
        }
        Ok(Some(step))
    }

    /// The next mailbox that has a rule, and messages if the rule is that of all.
    fn next_mailbox(&self, view: View, wall_ms: u64) -> Result<Option<Mailbox>> {
        let Some(common) = self.rules.get("") else {
            let next = self.rules.range(self.from.clone()..).next();
            return Ok(next.map(|(name, rule)| Mailbox::open((name.clone(), rule, false), view, wall_ms)));
        };
        let first = view.entries(INDEX_MESSAGE_TO, &message::mailbox(&self.from).start, None, 1)?;
        let name = first.first().and_then(|entry| message::receiver(&entry.entry_key));
        Ok(name.map(|name| match self.rules.get(&name) {
            Some(rule) => Mailbox::open((name, rule, false), view, wall_ms),
            None => Mailbox::open((name, common, true), view, wall_ms),
        }))
    }
}

impl Mailbox {
    /// A mailbox, its rule, and whether that is the one of all that have none of their own.
    fn open((name, (retention, set_at), common): (String, &Rule, bool), view: View, wall_ms: u64) -> Self {
        let (own, all) = (TABLE.scope().key(name.as_bytes()), TABLE.scope().key(b""));
        let guards = if common {
            vec![Compare::written_at(all, *set_at), Compare::Exists { key: own, exists: false }]
        } else {
            vec![Compare::written_at(own, *set_at)]
        };
        let range = message::mailbox(&name);
        Self { name, view, wall_ms, guards, retention: *retention, range, left: 0, excess: None }
    }

    /// When a message that was stored then is aged, if ever.
    fn ages_ms(&self, stored_ms: u64) -> Option<u64> {
        self.retention.max_age_ms.map(|age_ms| stored_ms.saturating_add(age_ms))
    }

    /// The next entries.
    fn page(&self, at_once: usize) -> Result<(Vec<IndexEntry>, bool)> {
        let page = self.view.entries(INDEX_MESSAGE_TO, &self.range.start, self.range.end.as_deref(), at_once)?;
        let last = page.len() < at_once;
        Ok((page, last))
    }

    /// Counts a part of the messages, and finds the aged ones among them: those, and whether that was the mailbox.
    fn walk(&mut self, walked: &mut u64, due_ms: &mut Option<u64>) -> Result<(Batch, bool)> {
        let mut batch = Batch::default();
        let (page, last) = self.page(if self.retention.max_age_ms.is_some() { RECORDS } else { ENTRIES })?;
        for entry in page {
            *walked += 1;
            self.range.start = behind(&entry.position);
            if self.retention.max_age_ms.is_none() {
                self.left += 1;
                continue;
            }
            let Some(record) = self.view.record(&entry.record_key)? else { continue };
            match self.ages_ms(record.updated_at_ms).filter(|ages_ms| *ages_ms > self.wall_ms) {
                Some(ages_ms) => {
                    *due_ms = Some(due_ms.map_or(ages_ms, |due_ms| due_ms.min(ages_ms)));
                    self.left += 1;
                }
                None if batch.add(entry.record_key, &record) => return Ok((batch, false)),
                None => {}
            }
        }
        let excess = self.retention.max_count.map_or(0, |count| self.left.saturating_sub(count));
        if last && excess > 0 {
            self.range = message::mailbox(&self.name);
            self.excess = Some(excess);
        }
        Ok((batch, last && excess == 0))
    }

    /// Takes a part of the oldest messages that are not aged: those, and whether that was all.
    fn trim(&mut self, mut excess: u64, walked: &mut u64) -> Result<(Batch, bool)> {
        let mut batch = Batch::default();
        let (page, last) = self.page(RECORDS)?;
        for entry in page {
            *walked += 1;
            self.range.start = behind(&entry.position);
            let Some(record) = self.view.record(&entry.record_key)? else { continue };
            if self.ages_ms(record.updated_at_ms).is_some_and(|ages_ms| ages_ms <= self.wall_ms) {
                continue;
            }
            excess -= 1;
            if batch.add(entry.record_key, &record) || excess == 0 {
                self.excess = Some(excess);
                return Ok((batch, excess == 0));
            }
        }
        self.excess = Some(excess);
        Ok((batch, last))
    }
}

impl Batch {
    /// Adds a message: whether that is enough.
    fn add(&mut self, key: Key, record: &Record) -> bool {
        self.compares.push(Compare::written_at(key.clone(), record.mod_revision));
        self.operations.push(Operation::Delete { key });
        self.bytes += record.value.len();
        self.operations.len() >= MESSAGES_AT_ONCE || self.bytes >= BYTES_AT_ONCE
    }

    fn step(self, mailbox: &Mailbox) -> Step {
        if self.operations.is_empty() {
            return Step::Next;
        }
        tracing::debug!(mailbox = mailbox.name, messages = self.operations.len(), "messages that are kept no longer");
        let guards = mailbox.guards.iter().cloned().chain(self.compares).collect();
        Step::Propose(guards, Transaction::blind(self.operations))
    }
}

/// The first position behind one.
fn behind(position: &[u8]) -> Vec<u8> {
    [position, &[0]].concat()
}
