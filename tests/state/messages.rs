//! What the layer of messages leaves to the leader: large messages that nobody names, and messages that are kept no longer.
//! Here each step is made by hand, on the core itself, with time that the test lets pass.

use bytes::Bytes;
use meshstore::{
    Error, Result,
    error::Fault,
    layers::{
        Write,
        mesh::{
            large::{self, Assembled, Assembly, Reclaim, UploadId},
            message,
            retention::{self, Trim},
        },
    },
    limits,
    model::{
        Outcome, Refusal, ScopeId, keyspace,
        mesh::{Announced, Chunk, Message, MessageFilter, PageRequest, Retention},
        proposal::{Action, Guards, Proposal},
        transaction::Transaction,
    },
    state::{
        View,
        sweep::{Sight, Step, Sweep},
        view::Source,
    },
};

use crate::store::{Pairs, Store, delete_all};

struct Frozen(Pairs);

impl Source for Frozen {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.0.get(key).cloned())
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        Ok(meshstore::state::Base::range(&self.0, start, end, limit).unwrap())
    }

    fn fault(&self, fault: Fault) -> Error {
        panic!("{fault}")
    }
}

fn view(store: &Store) -> View {
    View::new(store.state.meta().revision, Box::new(Frozen(store.pairs.clone())))
}

fn propose(store: &mut Store, guards: Guards, transaction: Transaction) -> Outcome {
    let Proposal { principal, action, .. } = store.proposal(Action::Transact(transaction));
    store.propose(Proposal { principal, call: None, guards, action })
}

fn write(store: &mut Store, write: Write) -> Result<bool> {
    let guards = Guards { compares: write.guards, ..Guards::default() };
    let outcome = propose(store, guards, write.transaction);
    write.meaning.of(outcome, None).map(|decided| decided.succeeded)
}

/// Makes steps until the sweep rests: how many transactions that took.
fn sweep(store: &mut Store, sweep: &mut impl Sweep) -> usize {
    let mut proposed = 0;
    for _ in 0..100_000 {
        let sight = Sight { view: &|| Ok(view(store)), wall_ms: store.wall_ms, account: &|scope| store.account(scope) };
        match sweep.step(&sight).unwrap() {
            Step::Rest(_) => return proposed,
            Step::Next => {}
            Step::Propose(compares, transaction) => {
                let guards = Guards { compares, ..Guards::default() };
                let outcome = propose(store, guards, transaction);
                assert!(matches!(outcome, Outcome::Applied { succeeded: true, .. }), "{outcome:?}");
                proposed += 1;
            }
        }
    }
    panic!("the sweep never rests")
}

/// Uploads, open ones, and chunks.
fn held(store: &Store) -> [u64; 3] {
    [keyspace::UPLOADS, keyspace::OPEN_UPLOADS, keyspace::MESSAGE_CHUNKS]
        .map(|keyspace| store.account(ScopeId::new(keyspace, 0)).count)
}

fn message(id: &str, to: &str, timestamp: i64) -> Message {
    Message { id: id.into(), from: "f".into(), to: to.into(), timestamp, ..Message::default() }
}

const CHUNK: usize = 512 << 10;

fn chunk(number: u32) -> Chunk {
    let data = Bytes::from(vec![number as u8; CHUNK]);
    Chunk { number, crc32c: crc32c::crc32c(&data), data }
}

/// Uploads so many of the chunks of a message.
fn upload(store: &mut Store, id: u128, message: Message, (arrive, of): (u32, u32)) -> Result<Assembly> {
    let announced = Announced { message, size: u64::from(of) * CHUNK as u64, chunks: of, crc32c: None };
    let mut assembly = Assembly::begin(announced)?;
    write(store, large::begin(UploadId(id), assembly.announced()))?;
    for number in 0..arrive {
        let chunk = assembly.take(chunk(number))?;
        write(store, large::chunk(UploadId(id), chunk))?;
    }
    Ok(assembly)
}

fn store_large(store: &mut Store, id: u128, message: Message, chunks: u32) -> Result<()> {
    match upload(store, id, message, (chunks, chunks))?.end()? {
        Assembled::Upload(message, content) => write(store, large::finish(UploadId(id), message, content)?).map(drop),
        Assembled::Whole(_) => panic!("too small"),
    }
}

#[test]
fn an_upload_that_nobody_ends_expires_and_is_reclaimed() {
    let (mut store, mut reclaim) = (Store::new(), Reclaim::default());
    store_large(&mut store, 1, message("kept", "t", 1), 3).unwrap();
    let left = upload(&mut store, 2, message("left", "t", 1), (2, 3)).unwrap();
    assert_eq!(held(&store), [2, 1, 5]);
    assert_eq!(sweep(&mut store, &mut reclaim), 0, "it is under way");
    store.now_ms += limits::UPLOAD_TTL_MS;
    // Whatever comes next lets time pass. It is too late to go on.
    assert!(matches!(write(&mut store, large::chunk(UploadId(2), chunk(2))), Err(Error::Refused(_))));
    let mut assembly = left;
    assembly.take(chunk(2)).unwrap();
    let Ok(Assembled::Upload(whole, content)) = assembly.end() else { panic!("it is whole") };
    let finished = write(&mut store, large::finish(UploadId(2), whole, content).unwrap());
    assert!(matches!(finished, Err(Error::Refused(_))));
    assert_eq!(held(&store), [2, 0, 5]);
    assert!(sweep(&mut store, &mut reclaim) > 0);
    assert_eq!(held(&store), [1, 0, 3]);
    assert!(matches!(message::get(&view(&store), "left"), Err(Error::NotFound { .. })));
    let (_, content) = large::get(&view(&store), "kept").unwrap();
    assert_eq!(large::chunk_of(&view(&store), "kept", &content, 2), Ok(chunk(2)));
    assert_eq!(sweep(&mut store, &mut reclaim), 0);
}

#[test]
fn a_message_is_not_finished_before_all_its_bytes_are_there() {
    let mut store = Store::new();
    let mut assembly = upload(&mut store, 1, message("m", "t", 1), (2, 3)).unwrap();
    assembly.take(chunk(2)).unwrap();
    // Checked, but never stored: the core knows.
    let Ok(Assembled::Upload(whole, content)) = assembly.end() else { panic!("it is whole") };
    let finished = write(&mut store, large::finish(UploadId(1), whole, content).unwrap());
    assert!(matches!(finished, Err(Error::Refused(_))));
    // A chunk counts once.
    assert!(matches!(write(&mut store, large::chunk(UploadId(1), chunk(1))), Err(Error::Refused(_))));
    assert_eq!(held(&store), [1, 1, 2]);
}

#[test]
fn only_so_many_uploads_are_open() {
    let mut store = Store::new();
    let announced = Announced { message: message("m", "t", 1), size: 2 << 20, chunks: 2, crc32c: None };
    for id in 0..limits::OPEN_UPLOADS {
        write(&mut store, large::begin(UploadId(id.into()), &announced)).unwrap();
    }
    let one_more = write(&mut store, large::begin(UploadId(1_000), &announced));
    assert!(matches!(one_more, Err(Error::ResourceExhausted { .. })), "{one_more:?}");
    write(&mut store, large::abandon(UploadId(3))).unwrap();
    write(&mut store, large::begin(UploadId(1_000), &announced)).unwrap();
    let taken = write(&mut store, large::begin(UploadId(3), &announced));
    assert!(matches!(taken, Err(Error::Conflict(_) | Error::ResourceExhausted { .. })), "{taken:?}");
}

/// 64 MiB are more than one transaction of the core may delete; the message goes at once all the same.
#[test]
fn the_largest_message_goes_in_parts() {
    let (mut store, mut reclaim) = (Store::new(), Reclaim::default());
    store_large(&mut store, 1, message("m", "t", 1), 128).unwrap();
    write(&mut store, message::store(message("m", "t", 2)).unwrap()).unwrap();
    assert_eq!(message::get(&view(&store), "m").unwrap().value, message("m", "t", 2));
    assert_eq!(held(&store), [1, 0, 128]);
    let all = delete_all(ScopeId::new(keyspace::MESSAGE_CHUNKS, 0));
    assert_eq!(store.refused(vec![all]), Refusal::TooManyBytes);
    let transactions = sweep(&mut store, &mut reclaim);
    assert!((7..=9).contains(&transactions), "{transactions}");
    assert_eq!(held(&store), [0, 0, 0]);
}

fn timestamps(store: &Store, to: &str) -> Vec<i64> {
    let filter = MessageFilter { to: Some(to.into()), ..MessageFilter::default() };
    let list = message::list(&filter, &PageRequest { limit: 1_000, cursor: String::new() }).unwrap();
    list.read(&view(store)).unwrap().items.iter().map(|stored| stored.value.timestamp).collect()
}

fn fill(store: &mut Store, to: &str, timestamps: impl IntoIterator<Item = i64>) {
    for timestamp in timestamps {
        write(store, message::store(message(&format!("{to}{timestamp}"), to, timestamp)).unwrap()).unwrap();
    }
}

fn rule(store: &mut Store, mailbox: &str, max_age_ms: Option<u64>, max_count: Option<u64>) {
    write(store, retention::set(mailbox, Retention { max_age_ms, max_count }).unwrap()).unwrap();
}

#[test]
fn the_rule_of_all_holds_for_those_without_one() {
    let (mut store, mut trim) = (Store::new(), Trim::default());
    for mailbox in ["a", "a\0", "a\0b", "b", "\u{10ffff}"] {
        fill(&mut store, mailbox, 0..5);
    }
    assert_eq!(sweep(&mut store, &mut trim), 0, "there is no rule");
    rule(&mut store, "", None, Some(2));
    rule(&mut store, "a\0", None, Some(4));
    rule(&mut store, "b", Some(1_000), None);
    rule(&mut store, "nobody", None, Some(1));
    assert_eq!(sweep(&mut store, &mut trim), 4);
    for (mailbox, expected) in [("a", 3..5), ("a\0", 1..5), ("a\0b", 3..5), ("b", 0..5), ("\u{10ffff}", 3..5)] {
        assert_eq!(timestamps(&store, mailbox), expected.collect::<Vec<i64>>(), "{mailbox:?}");
    }
    write(&mut store, retention::delete("a\0").unwrap()).unwrap();
    assert_eq!(sweep(&mut store, &mut trim), 1);
    assert_eq!(timestamps(&store, "a\0"), [3, 4]);
}

#[test]
fn messages_age_from_when_they_were_stored_last() {
    let (mut store, mut trim) = (Store::new(), Trim::default());
    store.wall_ms = 1_000_000;
    rule(&mut store, "t", Some(10_000), None);
    fill(&mut store, "t", [5, 6, 7]);
    store.wall_ms += 6_000;
    fill(&mut store, "t", [1, 6]);
    assert_eq!(sweep(&mut store, &mut trim), 0);
    store.wall_ms += 3_999;
    assert_eq!(sweep(&mut store, &mut trim), 0);
    store.wall_ms += 1;
    assert_eq!(sweep(&mut store, &mut trim), 1, "nothing was written, but time has passed");
    assert_eq!(timestamps(&store, "t"), [1, 6]);
    // Its own deletions bring one more pass, which finds nothing.
    assert_eq!(sweep(&mut store, &mut trim), 0);
    store.wall_ms += 6_000;
    assert_eq!(sweep(&mut store, &mut trim), 1);
    assert_eq!(timestamps(&store, "t"), [0i64; 0]);
}

#[test]
fn age_and_count_hold_together() {
    let (mut store, mut trim) = (Store::new(), Trim::default());
    rule(&mut store, "t", Some(10_000), Some(150));
    fill(&mut store, "t", (0..100).map(|n| n * 2));
    store.wall_ms += 10_000;
    fill(&mut store, "t", (0..301).map(|n| n * 2 + 1));
    sweep(&mut store, &mut trim);
    assert_eq!(timestamps(&store, "t"), (151..301).map(|n| n * 2 + 1).collect::<Vec<i64>>());
}

/// What its receiver takes out while a mailbox is gone through does not make more messages go.
#[test]
fn no_more_go_than_were_too_many() {
    let (mut store, mut trim) = (Store::new(), Trim::default());
    fill(&mut store, "t", 0..20);
    rule(&mut store, "t", None, Some(10));
    let step = |store: &Store, trim: &mut Trim| {
        let account = |scope| store.account(scope);
        trim.step(&Sight { view: &|| Ok(view(store)), wall_ms: 0, account: &account }).unwrap()
    };
    // Begins a pass, opens the mailbox, counts.
    for _ in 0..3 {
        assert_eq!(step(&store, &mut trim), Step::Next);
    }
    for timestamp in 10..19 {
        write(&mut store, message::delete(&format!("t{timestamp}")).unwrap()).unwrap();
    }
    let Step::Propose(compares, transaction) = step(&store, &mut trim) else { panic!("ten are too many") };
    let outcome = propose(&mut store, Guards { compares, ..Guards::default() }, transaction);
    assert!(matches!(outcome, Outcome::Applied { .. }));
    assert_eq!(timestamps(&store, "t"), [19]);
    // A rule that was taken back, or a message that was overwritten: nothing goes.
    fill(&mut store, "t", 100..120);
    for _ in 0..10 {
        match step(&store, &mut trim) {
            Step::Propose(compares, transaction) => {
                write(&mut store, retention::delete("t").unwrap()).unwrap();
                let outcome = propose(&mut store, Guards { compares, ..Guards::default() }, transaction);
                assert_eq!(outcome, Outcome::Raced);
                assert_eq!(timestamps(&store, "t").len(), 21);
                return;
            }
            _ => continue,
        }
    }
    panic!("eleven were too many");
}
