//! What is recorded, and how it is written to a file.

use crate::history::{Outcome, Recorder, Verdict, json_lines, linearizable, set};

#[test]
fn a_history_is_a_line_for_each_event_in_order() {
    let recorder = Recorder::default();
    let add = recorder.invoke(1, set::Call::Add(7), 10);
    let read = recorder.invoke(2, set::Call::Read, 20);
    recorder.complete(read, Outcome::Ok(set::Reply::Read(vec![])), 30);
    let lost = recorder.invoke(3, set::Call::Add(8), 35);
    recorder.complete(add, Outcome::Ok(set::Reply::Added), 40);
    recorder.complete(lost, Outcome::Unknown, 50);
    recorder.invoke(4, set::Call::Add(9), 60);
    let history = recorder.history();
    assert_eq!(set::check(&history), Verdict::Valid);
    let expected = r#"{"call":{"Add":7},"process":1,"reply":null,"time":10,"type":"invoke"}
{"call":"Read","process":2,"reply":null,"time":20,"type":"invoke"}
{"call":"Read","process":2,"reply":{"Read":[]},"time":30,"type":"ok"}
{"call":{"Add":8},"process":3,"reply":null,"time":35,"type":"invoke"}
{"call":{"Add":7},"process":1,"reply":"Added","time":40,"type":"ok"}
{"call":{"Add":8},"process":3,"reply":null,"time":50,"type":"info"}
{"call":{"Add":9},"process":4,"reply":null,"time":60,"type":"invoke"}
"#;
    assert_eq!(json_lines(&history), expected);
}

#[test]
fn an_explanation_says_who_when_and_what() {
    use linearizable::{Action, Call, Reply};
    let recorder = Recorder::default();
    let call = |action| Call { key: 3, action };
    let write = recorder.invoke(1, call(Action::Write(Some(5))), 1_000_000);
    recorder.complete(write, Outcome::Ok(Reply::Written), 2_000_000);
    let read = recorder.invoke(2, call(Action::Read), 3_000_000);
    recorder.complete(read, Outcome::Ok(Reply::Read(None)), 4_500_000);
    let expected = "INVALID: key 3: no order explains its 2 operations; at best 1 of them, after which the value is \
                    Some(5) and none of these can be next:\n    Read -> Read(None), process 2 from 3.0 to 4.5 ms";
    assert_eq!(linearizable::check(&recorder.history()).to_string(), expected);
}
