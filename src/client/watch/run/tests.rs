//! What a watch makes of what it is told, without anybody who tells it.

use super::{super::shown::testing::record, *};
use crate::model::watch::{Changed, Keys, Target};

fn watch(start: Start) -> Watch {
    let client = Client::builder().endpoints(["a:1", "b:1", "c:1"]).seed(1).connect_lazy().unwrap();
    let target = Target::Config(Keys::All);
    let request = WatchRequest { target, start, mode: client.mode, progress_ms: 100, previous: true };
    Watch::new(client, request, 1 << 20)
}

fn gone(key: &str) -> Change {
    Change::Config(Changed { key: key.into(), now: None, before: None })
}

fn changes(revision: u64, keys: &[&str], more: bool) -> Told {
    Told::Changes { revision, changes: keys.iter().map(|key| record(key, revision)).collect(), more }
}

fn events(watch: &mut Watch) -> Vec<Event> {
    watch.ready.drain(..).collect()
}

/// A node that it goes to fails so.
fn fails(watch: &mut Watch, error: Error) -> Option<String> {
    let endpoint = watch.candidate()?;
    watch.failed(&endpoint, error);
    Some(endpoint.address.clone())
}

fn not_covered() -> Error {
    Error::NoLongerCovered { revision: 5, oldest: 9 }
}

fn broken() -> Error {
    Error::Unknown("broken".into())
}

#[tokio::test]
async fn a_transaction_that_breaks_off_is_told_anew_and_nothing_comes_twice() {
    let mut watch = watch(Start::Now);
    watch.take(Told::Started { node_id: 1, revision: 4 });
    watch.take(changes(5, &["a"], false));
    watch.take(changes(6, &["b"], true));
    fails(&mut watch, broken());
    assert_eq!(watch.revision(), 5);
    watch.take(Told::Started { node_id: 2, revision: 5 });
    watch.take(changes(5, &["a"], false));
    watch.take(changes(6, &["b"], true));
    watch.take(changes(6, &["c"], false));
    let told = |revision, keys: &[&str]| Event::Changes {
        revision,
        changes: keys.iter().map(|key| record(key, revision)).collect(),
        resynced: false,
    };
    assert_eq!(events(&mut watch), [told(5, &["a"]), told(6, &["b", "c"])]);
    watch.take(Told::Progress { revision: 9, age_ms: 0 });
    watch.take(Told::Progress { revision: 7, age_ms: 0 });
    assert_eq!(events(&mut watch), [Event::Progress { revision: 9 }, Event::Progress { revision: 9 }]);
}

#[tokio::test]
async fn every_node_is_asked_before_what_there_is_is_compared() {
    let mut watch = watch(Start::Now);
    watch.take(Told::Started { node_id: 1, revision: 4 });
    watch.take(changes(5, &["a", "b"], false));
    events(&mut watch);
    // One does not answer, and is asked again.
    let down = fails(&mut watch, broken()).unwrap();
    let mut asked = Vec::new();
    while asked.len() < 2 {
        asked.extend(fails(&mut watch, not_covered()));
    }
    assert!(!asked.contains(&down) && asked[0] != asked[1], "{down} {asked:?}");
    assert_eq!(fails(&mut watch, not_covered()), Some(down));
    assert!(watch.candidate().is_none());
    watch.none_covers();
    assert_eq!(
        events(&mut watch),
        [Event::Reset { after: 5, complete: false }],
        "its reader may have more from elsewhere"
    );
    watch.take(Told::Started { node_id: 1, revision: 9 });
    watch.take(Told::Content { revision: 9, records: vec![record("b", 5), record("c", 7)], last: true });
    let difference = vec![gone("a"), record("c", 7)];
    let expected =
        [Event::Changes { revision: 9, changes: difference, resynced: true }, Event::Current { revision: 9 }];
    assert_eq!(events(&mut watch), expected);
    assert!(watch.candidate().is_some());
}

#[tokio::test]
async fn a_watch_that_never_began_says_that_nobody_covers_it() {
    let mut watch = watch(Start::After(5));
    fails(&mut watch, broken());
    for _ in 0..3 {
        fails(&mut watch, not_covered());
    }
    watch.none_covers();
    assert_eq!(watch.ended, Some(not_covered()));
    assert_eq!(watch.next().await, Err(not_covered()));
}

#[tokio::test]
async fn a_revision_that_nobody_has_come_to_is_of_another_history() {
    let unknown = || Error::invalid("after_revision", "5", "must be at most 2");
    let mut begun = watch(Start::Now);
    begun.take(Told::Started { node_id: 1, revision: 5 });
    fails(&mut begun, unknown());
    assert_eq!(events(&mut begun), [Event::Reset { after: 5, complete: false }]);
    let mut never = watch(Start::After(5));
    fails(&mut never, unknown());
    assert_eq!(never.next().await, Err(unknown()));
}

#[tokio::test]
async fn content_that_breaks_off_goes_on_as_the_difference() {
    let mut watch = watch(Start::Current);
    watch.take(Told::Started { node_id: 1, revision: 4 });
    // Nothing was shown yet: this is no reset.
    fails(&mut watch, broken());
    watch.take(Told::Started { node_id: 2, revision: 4 });
    let page = vec![record("a", 1), record("b", 2)];
    watch.take(Told::Content { revision: 4, records: page.clone(), last: false });
    fails(&mut watch, Error::ViewTooOld { revision: 4, oldest: 5 });
    watch.take(Told::Started { node_id: 2, revision: 6 });
    watch.take(Told::Content { revision: 6, records: vec![record("b", 2), record("c", 6)], last: true });
    let difference = vec![gone("a"), record("c", 6)];
    let expected = [
        Event::Content { revision: 4, records: page },
        Event::Reset { after: 0, complete: true },
        Event::Changes { revision: 6, changes: difference, resynced: true },
        Event::Current { revision: 6 },
    ];
    assert_eq!(events(&mut watch), expected);
    assert_eq!(watch.revision(), 6);
}

#[tokio::test]
async fn what_no_node_can_mend_ends_it() {
    let mut watch = watch(Start::Now);
    watch.take(Told::Started { node_id: 1, revision: 5 });
    fails(&mut watch, Error::PermissionDenied("no".into()));
    assert_eq!(watch.next().await, Err(Error::PermissionDenied("no".into())));
    assert_eq!(watch.next().await, Err(Error::PermissionDenied("no".into())));
}
