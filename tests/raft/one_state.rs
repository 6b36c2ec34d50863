//! One history, one state: applied live, replayed from the log, or installed from another's snapshot.

use proptest::prelude::*;

use super::{
    history::{history, undisturbed},
    replica::Replica,
};
use crate::support::sim_disk::{Loss, SimDisk};

/// What happens after an entry.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    Flush,
    Restart,
    Crash(Loss),
    /// Another takes over by snapshot.
    Move,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Nothing),
        3 => Just(Event::Flush),
        1 => Just(Event::Restart),
        1 => Just(Event::Crash(Loss::Everything)),
        1 => Just(Event::Crash(Loss::Torn)),
        1 => Just(Event::Move),
    ]
}

fn flush_and_purge(replica: &mut Replica) {
    replica.flush().unwrap();
    let applied = replica.applied().unwrap();
    assert_eq!(*replica.store().flushed().borrow(), Some(applied));
    replica.purge(applied).unwrap();
    assert_eq!(replica.log.purged(), Some(applied));
}

fn moved(from: &mut Replica, to: &SimDisk) -> Replica {
    flush_and_purge(from);
    let snapshot = from.snapshot();
    let mut replica = Replica::open(to).unwrap();
    replica.recover().unwrap();
    replica.install(&snapshot.meta, snapshot.snapshot).unwrap();
    replica
}

fn replay(replica: &mut Replica) {
    replica.recover().unwrap();
    let next = replica.next_to_apply();
    let entries = replica.log.entries(next..u64::MAX, usize::MAX).unwrap();
    replica.apply(entries).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn however_it_came_about(seed: u64, events in prop::collection::vec(event(), 2..40)) {
        let history = history(seed, events.len() as u64);
        let states = undisturbed(&history);
        let mut disk = SimDisk::new(seed);
        let mut replica = Replica::open(&disk).unwrap();
        for ((entry, event), state) in history.iter().zip(&events).zip(&states) {
            replica.append(std::slice::from_ref(entry)).unwrap();
            replica.apply(vec![entry.clone()]).unwrap();
            match event {
                Event::Nothing => {}
                Event::Flush => flush_and_purge(&mut replica),
                Event::Restart => {
                    replica.close().unwrap();
                    replica = Replica::open(&disk).unwrap();
                    replay(&mut replica);
                }
                Event::Crash(loss) => {
                    drop(replica);
                    disk.set_loss(*loss);
                    disk.crash();
                    replica = Replica::open(&disk).unwrap();
                    replay(&mut replica);
                }
                Event::Move => {
                    let other = SimDisk::new(seed);
                    replica = moved(&mut replica, &other);
                    disk = other;
                }
            }
            prop_assert_eq!(&replica.seen(), state, "after {:?}", event);
        }
    }
}
