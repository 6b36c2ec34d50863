//! The logs of groups, compared with a map: a script of appends, deletions and reads.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use meshstore::{
    Error, Result,
    layers::{
        Write,
        consensus_log::{append, application, application_entry, delete, get, list},
    },
    model::{
        Outcome, Position, ReadStamp,
        consensus_log::{Indexes, LogEntry, RaftEntry, RaftPart, RaftPayload, StoredEntry},
        mesh::{Page, PageRequest},
        proposal::{Action, Batch, Guards, Proposal},
    },
    proto::{consensus_log::raft_part, convert::read_header, v1},
    storage::codec::{self, Kind},
};

use super::{
    super::{
        input::Input,
        replica::Replica,
        wire::{decode, sent, told},
    },
    refused,
};

const STEPS: usize = 32;
const GROUPS: [&str; 6] = ["g", "g\0", "g\0\u{1}", "h", "\0", "\u{10ffff}"];
const JSON: [&str; 4] = ["1", "{\"a\": [1, 2]}", " null ", "\"\\u0000\""];

pub(super) fn run(input: &mut Input<'_>) {
    let mut case = Case::default();
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        case.step(input);
    }
    case.end();
}

#[derive(Default)]
struct Case {
    replica: Replica,
    /// By group, index and term: the entry and the revision of it.
    entries: BTreeMap<(String, u64, u64), (String, u64)>,
}

impl Case {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(16) {
            0..=5 => self.append(v1::AppendEntryRequest {
                attempt: None,
                group: group(input),
                term: input.number(),
                index: input.number(),
                entry_json: json(input),
            }),
            6 => {
                let bytes = input.bytes(64);
                if let Some(request) = decode::<v1::AppendEntryRequest>(bytes) {
                    self.append(request);
                }
            }
            7 | 8 => self.get(input),
            9 | 10 => self.list(input),
            11 | 12 => self.delete(input),
            13 => self.application(json(input)),
            14 => self.forged(input),
            _ => self.foreign(input),
        }
    }

    /// What became of a write; nothing has changed if it was refused.
    fn done(&mut self, write: Write) -> Result<u64> {
        let before = (self.replica.revision(), self.replica.meta().state_hash());
        let (outcome, _) = self.replica.propose(write.guards, Action::Transact(write.transaction));
        assert!(matches!(outcome, Outcome::Applied { .. }), "what a layer made was refused: {outcome:?}");
        let decided = write.meaning.of(outcome, None);
        if decided.is_err() {
            assert_eq!((self.replica.revision(), self.replica.meta().state_hash()), before);
        }
        decided.map(|decided| decided.revision)
    }

    fn append(&mut self, request: v1::AppendEntryRequest) {
        let v1::AppendEntryRequest { group, term, index, entry_json, .. } = sent(&request);
        let valid = !group.is_empty() && group.len() <= 255;
        let parsed = serde_json::from_str::<Box<serde_json::value::RawValue>>(&entry_json).is_ok();
        let write = match append(&group, LogEntry { term, index, entry_json: entry_json.clone() }) {
            Ok(write) => write,
            Err(error) => {
                assert!(!valid || !parsed || !JSON.contains(&entry_json.as_str()), "{error:?}");
                return refused(&error);
            }
        };
        assert!(valid && parsed);
        let there = self.entries.contains_key(&(group.clone(), index, term));
        match self.done(write) {
            Ok(revision) => {
                assert!(!there, "an entry was replaced");
                assert_eq!(revision, self.replica.revision());
                self.entries.insert((group, index, term), (entry_json, revision));
            }
            Err(error) => {
                assert!(there && matches!(error, Error::Refused(_)), "{error:?}");
                told(&error);
            }
        }
    }

    fn expected(&self, group: &str, indexes: Indexes) -> Vec<StoredEntry> {
        let end = if indexes.last == 0 { u64::MAX } else { indexes.last };
        let of_group =
            self.entries.iter().filter(|((of, index, _), _)| of == group && *index >= indexes.first && *index <= end);
        let stored = |(&(_, index, term), (json, revision)): (&(String, u64, u64), &(String, u64))| StoredEntry {
            value: LogEntry { term, index, entry_json: json.clone() },
            created_at_ms: 0,
            updated_at_ms: 0,
            create_revision: *revision,
            mod_revision: *revision,
            version: 1,
        };
        of_group.map(stored).collect()
    }

    fn get(&self, input: &mut Input<'_>) {
        let (group, index) = (group(input), input.number());
        let term = input.flag().then(|| input.number());
        let mut expected = self.expected(&group, Indexes { first: index, last: index });
        // The last index 0 stands for all.
        expected.retain(|stored| stored.value.index == index && term.is_none_or(|term| term == stored.value.term));
        match get(&self.replica.view(), &group, index, term) {
            Ok(found) => {
                assert_eq!(Some(&found), expected.last());
                let header = read_header(ReadStamp { revision: 1, age_ms: 2 }, 3);
                let answer = sent(&v1::GetEntryResponse::from((header, found.clone())));
                assert_eq!(StoredEntry::try_from(answer), Ok(found));
            }
            Err(error) => {
                assert_eq!(expected, vec![], "{error:?}");
                refused(&error);
            }
        }
    }

    fn list(&self, input: &mut Input<'_>) {
        let (group, indexes) = (group(input), Indexes { first: input.number(), last: input.number() });
        let limit = u32::from(input.byte() % 5);
        let mut page = PageRequest { limit, cursor: String::new() };
        let mut found = Vec::new();
        loop {
            let listed = match list(&group, indexes, &page).and_then(|list| list.read(&self.replica.view())) {
                Ok(listed) => listed,
                Err(error) => {
                    assert!(group.is_empty() || group.len() > 255, "{error:?}");
                    return refused(&error);
                }
            };
            let header = read_header(ReadStamp { revision: listed.revision, age_ms: 2 }, 3);
            let answer = sent(&v1::ListEntriesResponse::from((header, listed.clone())));
            assert_eq!(Page::<StoredEntry>::try_from(answer).as_ref(), Ok(&listed));
            assert!(limit == 0 || listed.items.len() <= limit as usize);
            assert!(!listed.items.is_empty() || listed.next_cursor.is_empty());
            found.extend(listed.items);
            page.cursor = listed.next_cursor;
            if page.cursor.is_empty() {
                break;
            }
        }
        assert_eq!(found, self.expected(&group, indexes), "{group:?} {indexes:?}");
    }

    fn delete(&mut self, input: &mut Input<'_>) {
        let (group, indexes) = (group(input), Indexes { first: input.number(), last: input.number() });
        let gone = self.expected(&group, indexes);
        let before = self.replica.revision();
        match delete(&group, indexes) {
            Ok(write) => {
                let revision = self.done(write).expect("a deletion of whatever is there");
                assert_eq!(revision, before + u64::from(!gone.is_empty()));
                for StoredEntry { value: LogEntry { term, index, .. }, .. } in gone {
                    self.entries.remove(&(group.clone(), index, term));
                }
            }
            Err(error) => refused(&error),
        }
    }

    /// An entry for the Raft log itself: known again there, and in no group.
    fn application(&mut self, json: String) {
        let write = match application(json.clone()) {
            Ok(write) => write,
            Err(error) => return refused(&error),
        };
        let transaction = write.transaction.clone();
        let revision = self.done(write).expect("it relies on nothing");
        assert_eq!(revision, self.replica.revision());
        let action = Action::Transact(transaction);
        let proposal = Proposal { principal: "p".into(), call: None, guards: Guards::default(), action };
        assert_eq!(application_entry(&proposal), Some(json.as_str()));
        let payload = RaftPayload::Batch(Batch { log_time_ms: 1, wall_ms: 2, proposals: vec![proposal] });
        let entries = vec![RaftEntry { position: Position { term: 3, index: 4 }, payload }];
        let part = raft_part(1, RaftPart { first_index: 1, committed_index: 4, entries }, application_entry);
        assert_eq!(sent(&part), part);
        let payload = part.entries.into_iter().next().and_then(|entry| entry.payload);
        let Some(v1::raft_entry::Payload::Batch(batch)) = payload else { panic!("{payload:?}") };
        assert_eq!(batch.proposals.first().and_then(|proposal| proposal.entry_json.clone()), Some(json));
    }

    /// A cursor of this very list, with another position: it reads the rest of its own list and nothing else.
    fn forged(&self, input: &mut Input<'_>) {
        let (group, indexes) = (group(input), Indexes { first: input.number(), last: input.number() });
        let view = self.replica.view();
        let read = |page: &PageRequest| list(&group, indexes, page).and_then(|list| list.read(&view));
        let Ok(first) = read(&PageRequest { limit: 1, cursor: String::new() }) else { return };
        if first.next_cursor.is_empty() {
            return;
        }
        let sealed = URL_SAFE_NO_PAD.decode(&first.next_cursor).expect("base64");
        let envelope = codec::open(&sealed, Kind::Cursor, 1).expect("an envelope");
        let (revision, fingerprint, _): (u64, u64, Bytes) = codec::decode_payload(envelope.payload).expect("a cursor");
        let revision = if input.byte() == 255 { input.number() } else { revision };
        let position = Bytes::copy_from_slice(input.bytes(40));
        let forged = URL_SAFE_NO_PAD.encode(codec::encode(Kind::Cursor, &(revision, fingerprint, position)));
        match read(&PageRequest { limit: 1_000, cursor: forged }) {
            Ok(page) => assert!(self.expected(&group, indexes).ends_with(&page.items), "{page:?}"),
            Err(error) => {
                assert_ne!(revision, view.revision(), "{error:?}");
                refused(&error);
            }
        }
    }

    /// A cursor of another list is of no use.
    fn foreign(&self, input: &mut Input<'_>) {
        let (one, other) = (group(input), group(input));
        let (of_one, of_other) = (indexes(input), indexes(input));
        let view = self.replica.view();
        let first = list(&one, of_one, &PageRequest { limit: 1, cursor: String::new() });
        let Ok(cursor) = first.and_then(|list| list.read(&view)).map(|page| page.next_cursor) else { return };
        if cursor.is_empty() {
            return;
        }
        let taken = list(&other, of_other, &PageRequest { limit: 1, cursor });
        assert_eq!(taken.is_ok(), one == other && of_one == of_other, "{taken:?}");
    }

    fn end(&self) {
        self.replica.audit();
        let view = self.replica.view();
        for group in GROUPS {
            let all = Indexes { first: 0, last: 0 };
            let page = PageRequest { limit: 1_000, cursor: String::new() };
            let found = list(group, all, &page).and_then(|list| list.read(&view)).expect("a page").items;
            assert_eq!(found, self.expected(group, all), "{group:?}");
        }
    }
}

fn indexes(input: &mut Input<'_>) -> Indexes {
    Indexes { first: input.number(), last: input.number() }
}

fn group(input: &mut Input<'_>) -> String {
    match input.byte() {
        choice @ 0..=247 => GROUPS[usize::from(choice) % GROUPS.len()].into(),
        248..=251 => String::from_utf8_lossy(input.bytes(6)).into_owned(),
        252 => String::new(),
        253 => "g".repeat(255),
        _ => "g".repeat(256),
    }
}

fn json(input: &mut Input<'_>) -> String {
    match input.byte() {
        choice @ 0..=223 => JSON[usize::from(choice) % JSON.len()].into(),
        _ => String::from_utf8_lossy(input.bytes(16)).into_owned(),
    }
}
