//! Lists of messages: by sender, receiver, pair and time.

use meshstore::{
    Client,
    client::{Message, MessageFilter, PageRequest},
    limits,
};

use super::{invalid_field, messages::message, unique};

async fn store_each(client: &Client, messages: &[Message]) {
    for message in messages {
        client.messages().store(message.clone()).await.unwrap();
    }
}

/// The ids of a list, without `prefix`; those that do not begin with it are other cases' messages.
async fn ids(client: &Client, prefix: &str, filter: MessageFilter) -> Vec<String> {
    let messages = client.messages().list_all(filter).await.unwrap();
    messages.iter().filter_map(|stored| stored.value.id.strip_prefix(prefix).map(Into::into)).collect()
}

fn from(name: &str) -> MessageFilter {
    MessageFilter { from: Some(name.into()), ..MessageFilter::default() }
}

fn to(name: &str) -> MessageFilter {
    MessageFilter { to: Some(name.into()), ..MessageFilter::default() }
}

fn pair(sender: &str, receiver: &str) -> MessageFilter {
    MessageFilter { from: Some(sender.into()), to: Some(receiver.into()), ..MessageFilter::default() }
}

pub async fn a_list_is_in_order_of_time_then_id(client: &Client) {
    let prefix = unique("order");
    let at = |id: &str, time| message(&format!("{prefix}{id}"), &prefix, "b", time);
    let messages = [
        at("now", 0),
        at("b", 5),
        at("a", 5),
        at("aa", 5),
        at("before", -1),
        at("last", i64::MAX),
        at("first", i64::MIN),
        at("far", 1 << 40),
        at("long-ago", -(1 << 40)),
    ];
    store_each(client, &messages).await;
    let expected = ["first", "long-ago", "before", "now", "a", "aa", "b", "far", "last"];
    assert_eq!(ids(client, &prefix, from(&prefix)).await, expected);
    assert_eq!(ids(client, &prefix, pair(&prefix, "b")).await, expected);
    assert_eq!(ids(client, &prefix, MessageFilter::default()).await, expected);
    let listed = client.messages().list_all(from(&prefix)).await.unwrap();
    assert_eq!(listed[3].value, messages[0]);
    assert_eq!(listed[3], client.messages().get(&messages[0].id).await.unwrap());
}

pub async fn sender_receiver_and_pair_select(client: &Client) {
    let p = unique("select");
    let (x, y) = (format!("{p}x"), format!("{p}y"));
    let numbered = |n: usize, from: &str, to: &str| message(&format!("{p}{n}"), from, to, n as i64);
    let messages = [numbered(1, &x, &y), numbered(2, &y, &x), numbered(3, &x, &x), numbered(4, &x, &y)];
    store_each(client, &messages).await;
    assert_eq!(ids(client, &p, from(&x)).await, ["1", "3", "4"]);
    assert_eq!(ids(client, &p, from(&y)).await, ["2"]);
    assert_eq!(ids(client, &p, to(&x)).await, ["2", "3"]);
    assert_eq!(ids(client, &p, to(&y)).await, ["1", "4"]);
    assert_eq!(ids(client, &p, pair(&x, &y)).await, ["1", "4"]);
    assert_eq!(ids(client, &p, pair(&y, &y)).await, [""; 0]);
    assert_eq!(ids(client, &p, from(&format!("{p}nobody"))).await, [""; 0]);
    assert_eq!(ids(client, &p, MessageFilter::default()).await, ["1", "2", "3", "4"]);
}

pub async fn time_bounds_are_half_open(client: &Client) {
    let p = unique("bounds");
    let times = [-2, -1, 0, 1, 255, 256];
    let messages: Vec<_> = times.iter().map(|time| message(&format!("{p}{time}"), &p, &p, *time)).collect();
    store_each(client, &messages).await;
    for whose in [MessageFilter::default(), from(&p), to(&p), pair(&p, &p)] {
        let between =
            async |since, until| ids(client, &p, MessageFilter { since, until, ..whose.clone() }).await.join(" ");
        assert_eq!(between(None, None).await, "-2 -1 0 1 255 256");
        assert_eq!(between(Some(0), None).await, "0 1 255 256");
        assert_eq!(between(None, Some(0)).await, "-2 -1");
        assert_eq!(between(Some(-1), Some(256)).await, "-1 0 1 255");
        assert_eq!(between(Some(1), Some(2)).await, "1");
        assert_eq!(between(Some(1), Some(1)).await, "");
        assert_eq!(between(Some(2), Some(1)).await, "");
        assert_eq!(between(Some(i64::MIN), Some(i64::MAX)).await, "-2 -1 0 1 255 256");
        assert_eq!(between(Some(i64::MAX), Some(i64::MIN)).await, "");
        assert_eq!(between(Some(257), None).await, "");
    }
}

pub async fn names_that_begin_alike_are_kept_apart(client: &Client) {
    let p = unique("alike");
    let names: Vec<String> =
        ["", "a", "ab", "a\0", "a\0\u{1}", "a\u{1}"].iter().map(|name| format!("{p}{name}")).collect();
    for (n, sender) in names.iter().enumerate() {
        for (m, receiver) in names.iter().enumerate() {
            client.messages().store(message(&format!("{p}{n}{m}"), sender, receiver, 1)).await.unwrap();
        }
    }
    let expected = |select: &dyn Fn(usize) -> (usize, usize)| -> Vec<String> {
        (0..names.len()).map(select).map(|(n, m)| format!("{n}{m}")).collect()
    };
    for (n, sender) in names.iter().enumerate() {
        assert_eq!(ids(client, &p, from(sender)).await, expected(&|m| (n, m)), "from {sender:?}");
        assert_eq!(ids(client, &p, to(sender)).await, expected(&|m| (m, n)), "to {sender:?}");
        for (m, receiver) in names.iter().enumerate() {
            assert_eq!(ids(client, &p, pair(sender, receiver)).await, [format!("{n}{m}")]);
        }
    }
}

pub async fn a_delete_takes_the_message_off_every_list(client: &Client) {
    let p = unique("delete");
    store_each(client, &[message(&format!("{p}1"), &p, &p, 1), message(&format!("{p}2"), &p, &p, 2)]).await;
    client.messages().delete(&format!("{p}1")).await.unwrap();
    for filter in [MessageFilter::default(), from(&p), to(&p), pair(&p, &p)] {
        assert_eq!(ids(client, &p, filter.clone()).await, ["2"], "{filter:?}");
    }
}

pub async fn an_overwrite_moves_the_message_between_lists(client: &Client) {
    let p = unique("move");
    let (x, y) = (format!("{p}x"), format!("{p}y"));
    let id = format!("{p}1");
    store_each(client, &[message(&id, &x, &x, 1), message(&id, &y, &y, 2)]).await;
    for gone in [from(&x), to(&x), pair(&x, &x), pair(&x, &y), MessageFilter { until: Some(2), ..from(&y) }] {
        assert_eq!(ids(client, &p, gone.clone()).await, [""; 0], "{gone:?}");
    }
    for there in
        [MessageFilter::default(), from(&y), to(&y), pair(&y, &y), MessageFilter { since: Some(2), ..from(&y) }]
    {
        assert_eq!(ids(client, &p, there.clone()).await, ["1"], "{there:?}");
    }
}

pub async fn pages_show_one_revision_while_others_write(client: &Client) {
    let p = unique("stable");
    let messages: Vec<_> = (0..6).map(|n| message(&format!("{p}{n}"), &p, &p, n)).collect();
    store_each(client, &messages).await;
    let list = async |cursor| client.messages().list(from(&p), PageRequest { limit: 2, cursor }).await.unwrap();
    let mut page = list(String::new()).await;
    let revision = page.revision;
    // In front of the position and behind it: one more, one less, one changed, one moved away.
    store_each(client, &[message(&format!("{p}x"), &p, &p, 0), message(&format!("{p}y"), &p, &p, 4)]).await;
    client.messages().delete(&messages[3].id).await.unwrap();
    client.messages().store(Message { content: "changed".into(), ..messages[4].clone() }).await.unwrap();
    client.messages().store(message(&messages[5].id, "elsewhere", "elsewhere", 5)).await.unwrap();
    let mut seen = Vec::new();
    loop {
        assert_eq!(page.revision, revision);
        assert!(page.items.len() <= 2);
        seen.extend(page.items.into_iter().map(|stored| stored.value));
        if page.next_cursor.is_empty() {
            break;
        }
        page = list(page.next_cursor).await;
    }
    assert_eq!(seen, messages);
    assert_eq!(ids(client, &p, from(&p)).await, ["0", "x", "1", "2", "4", "y"]);
}

pub async fn a_foreign_cursor_is_refused(client: &Client) {
    let p = unique("foreign");
    store_each(client, &[message(&format!("{p}1"), &p, &p, 1), message(&format!("{p}2"), &p, &p, 2)]).await;
    let list = async |filter, cursor| client.messages().list(filter, PageRequest { limit: 1, cursor }).await;
    let cursor = list(from(&p), String::new()).await.unwrap().next_cursor;
    assert_eq!(list(from(&p), cursor.clone()).await.unwrap().items[0].value.id, format!("{p}2"));
    let others = [
        MessageFilter::default(),
        to(&p),
        pair(&p, &p),
        from("another"),
        MessageFilter { since: Some(0), ..from(&p) },
        MessageFilter { until: Some(9), ..from(&p) },
    ];
    for other in others {
        assert_eq!(invalid_field(list(other.clone(), cursor.clone()).await), "cursor", "{other:?}");
    }
    assert_eq!(invalid_field(list(from(&p), "nonsense".into()).await), "cursor");
    let state = client.state().list("", PageRequest { limit: 1, cursor }).await;
    assert_eq!(invalid_field(state), "cursor");
}

pub async fn filters_are_checked(client: &Client) {
    let list =
        async |filter, limit| client.messages().list(filter, PageRequest { limit, ..PageRequest::default() }).await;
    for wrong in ["", &"x".repeat(limits::ID_BYTES + 1)] {
        assert_eq!(invalid_field(list(from(wrong), 1).await), "from");
        assert_eq!(invalid_field(list(to(wrong), 1).await), "to");
        assert_eq!(invalid_field(list(pair("a", wrong), 1).await), "to");
    }
    assert_eq!(invalid_field(list(MessageFilter::default(), 1_001).await), "limit");
}

pub async fn a_heavy_page_is_closed_early(client: &Client) {
    let p = unique("heavy");
    for n in 0..4 {
        let content = vec![0; limits::PAGE_BYTES / 2].into();
        client.messages().store(Message { content, ..message(&format!("{p}{n}"), &p, &p, n) }).await.unwrap();
    }
    let first = client.messages().list(from(&p), PageRequest::default()).await.unwrap();
    assert!((1..4).contains(&first.items.len()), "{} items", first.items.len());
    assert!(!first.next_cursor.is_empty());
    assert_eq!(ids(client, &p, from(&p)).await, ["0", "1", "2", "3"]);
    for n in 0..4 {
        client.messages().delete(&format!("{p}{n}")).await.unwrap();
    }
}
