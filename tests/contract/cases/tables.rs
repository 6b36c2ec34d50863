//! What holds for every table of one value under one key: state, node state, routes, configuration.

use std::fmt::Debug;

use meshstore::{
    Client, Result,
    client::{Page, PageRequest, Stored, Written},
    limits,
};

use super::{assert_missing, invalid_field, unique};

/// A table, through the client. Values are JSON texts, which state takes as bytes.
pub trait Table: Send + Sync + 'static {
    const KIND: &'static str;
    const KEY_FIELD: &'static str;
    const VALUE_FIELD: &'static str;
    const KEY_BYTES: usize = limits::KEY_BYTES;

    fn save(client: &Client, key: &str, value: &str) -> impl Future<Output = Result<Written>> + Send;
    fn get(client: &Client, key: &str) -> impl Future<Output = Result<Stored<String>>> + Send;
    fn delete(client: &Client, key: &str) -> impl Future<Output = Result<Written>> + Send;
    /// The keys of a page. Node states have no prefix: there it is all keys.
    fn list(client: &Client, prefix: &str, page: PageRequest) -> impl Future<Output = Result<Page<String>>> + Send;
}

pub struct State;
pub struct NodeState;
pub struct Route;
pub struct Config;

fn with_text<V>(stored: Stored<V>, text: impl FnOnce(V) -> String) -> Stored<String> {
    let Stored { value, created_at_ms, updated_at_ms, create_revision, mod_revision, version } = stored;
    Stored { value: text(value), created_at_ms, updated_at_ms, create_revision, mod_revision, version }
}

fn keys<V>(page: Page<(String, V)>) -> Page<String> {
    let Page { items, next_cursor, revision } = page;
    Page { items: items.into_iter().map(|(key, _)| key).collect(), next_cursor, revision }
}

impl Table for State {
    const KIND: &'static str = "state";
    const KEY_FIELD: &'static str = "key";
    const VALUE_FIELD: &'static str = "value";

    async fn save(client: &Client, key: &str, value: &str) -> Result<Written> {
        client.state().put(key, value.to_owned()).await
    }

    async fn get(client: &Client, key: &str) -> Result<Stored<String>> {
        let stored = client.state().get(key).await?;
        Ok(with_text(stored, |value| String::from_utf8(value.into()).unwrap()))
    }

    async fn delete(client: &Client, key: &str) -> Result<Written> {
        client.state().delete(key).await
    }

    async fn list(client: &Client, prefix: &str, page: PageRequest) -> Result<Page<String>> {
        client.state().list(prefix, page).await.map(keys)
    }
}

impl Table for NodeState {
    const KIND: &'static str = "node state";
    const KEY_FIELD: &'static str = "node_id";
    const VALUE_FIELD: &'static str = "state_json";
    const KEY_BYTES: usize = limits::ID_BYTES;

    async fn save(client: &Client, key: &str, value: &str) -> Result<Written> {
        client.node_state().save_json(key, value).await
    }

    async fn get(client: &Client, key: &str) -> Result<Stored<String>> {
        client.node_state().get(key).await.map(|stored| with_text(stored, |json| json.into_raw()))
    }

    async fn delete(client: &Client, key: &str) -> Result<Written> {
        client.node_state().delete(key).await
    }

    async fn list(client: &Client, _prefix: &str, page: PageRequest) -> Result<Page<String>> {
        client.node_state().list(page).await.map(keys)
    }
}

impl Table for Route {
    const KIND: &'static str = "route";
    const KEY_FIELD: &'static str = "destination";
    const VALUE_FIELD: &'static str = "route_json";

    async fn save(client: &Client, key: &str, value: &str) -> Result<Written> {
        client.routes().save_json(key, value).await
    }

    async fn get(client: &Client, key: &str) -> Result<Stored<String>> {
        client.routes().get(key).await.map(|stored| with_text(stored, |json| json.into_raw()))
    }

    async fn delete(client: &Client, key: &str) -> Result<Written> {
        client.routes().delete(key).await
    }

    async fn list(client: &Client, prefix: &str, page: PageRequest) -> Result<Page<String>> {
        client.routes().list(prefix, page).await.map(keys)
    }
}

impl Table for Config {
    const KIND: &'static str = "config";
    const KEY_FIELD: &'static str = "key";
    const VALUE_FIELD: &'static str = "value_json";

    async fn save(client: &Client, key: &str, value: &str) -> Result<Written> {
        client.config().save_json(key, value).await
    }

    async fn get(client: &Client, key: &str) -> Result<Stored<String>> {
        client.config().get(key).await.map(|stored| with_text(stored, |json| json.into_raw()))
    }

    async fn delete(client: &Client, key: &str) -> Result<Written> {
        client.config().delete(key).await
    }

    async fn list(client: &Client, prefix: &str, page: PageRequest) -> Result<Page<String>> {
        client.config().list_keys(prefix, page).await
    }
}

/// All keys that begin with `prefix`, in the order in which pages of `limit` bring them.
async fn all_keys<T: Table>(client: &Client, prefix: &str, limit: u32) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = T::list(client, prefix, PageRequest { limit, cursor }).await.unwrap();
        assert!(page.items.len() <= limit as usize);
        assert!(!page.items.is_empty() || page.next_cursor.is_empty(), "an empty page that is not the last");
        all.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    all.retain(|key| key.starts_with(prefix));
    all
}

async fn save_each<T: Table>(client: &Client, keys: &[String]) {
    for key in keys {
        T::save(client, key, "1").await.unwrap();
    }
}

pub async fn what_is_stored_is_read_back<T: Table>(client: &Client) {
    let key = unique("read-back");
    let written = T::save(client, &key, "{\"a\": 1}").await.unwrap();
    assert_ne!(written.leader_id, 0);
    let stored = T::get(client, &key).await.unwrap();
    assert_eq!(stored.value, "{\"a\": 1}");
    assert_eq!((stored.create_revision, stored.mod_revision), (written.revision, written.revision));
    assert_eq!(stored.version, 1);
    assert_eq!(stored.created_at_ms, stored.updated_at_ms);
    assert_ne!(stored.created_at_ms, 0);
}

pub async fn an_upsert_keeps_the_creation<T: Table>(client: &Client) {
    let key = unique("upsert");
    let first = T::save(client, &key, "1").await.unwrap();
    let before = T::get(client, &key).await.unwrap();
    let second = T::save(client, &key, "2").await.unwrap();
    assert!(second.revision > first.revision);
    let after = T::get(client, &key).await.unwrap();
    assert_eq!(after.value, "2");
    assert_eq!((after.create_revision, after.created_at_ms), (first.revision, before.created_at_ms));
    assert_eq!((after.mod_revision, after.version), (second.revision, 2));
    // The same value again is a write like any other.
    let third = T::save(client, &key, "2").await.unwrap();
    let again = T::get(client, &key).await.unwrap();
    assert_eq!((again.mod_revision, again.version), (third.revision, 3));
    assert!(again.updated_at_ms >= after.updated_at_ms && after.updated_at_ms >= before.updated_at_ms);
}

pub async fn what_is_missing_is_not_found<T: Table>(client: &Client) {
    let key = unique("missing");
    assert_missing(T::get(client, &key).await, T::KIND, &key);
    assert_missing(T::delete(client, &key).await, T::KIND, &key);
}

pub async fn what_is_deleted_is_gone<T: Table>(client: &Client) {
    let key = unique("delete");
    let first = T::save(client, &key, "1").await.unwrap();
    let deleted = T::delete(client, &key).await.unwrap();
    assert!(deleted.revision > first.revision);
    assert_missing(T::get(client, &key).await, T::KIND, &key);
    assert_missing(T::delete(client, &key).await, T::KIND, &key);
    assert_eq!(all_keys::<T>(client, &key, 1_000).await, [""; 0]);
    // What comes after it under the same name is new.
    let second = T::save(client, &key, "2").await.unwrap();
    let stored = T::get(client, &key).await.unwrap();
    assert_eq!((stored.create_revision, stored.version), (second.revision, 1));
}

pub async fn keys_are_checked<T: Table>(client: &Client) {
    let longest = unique("longest") + &"x".repeat(T::KEY_BYTES);
    let longest = &longest[..T::KEY_BYTES];
    // The limit counts bytes, not characters.
    let too_wide = "é".repeat(T::KEY_BYTES / 2 + 1);
    for wrong in ["", &format!("{longest}x"), &too_wide] {
        assert_eq!(invalid_field(T::save(client, wrong, "1").await), T::KEY_FIELD);
        assert_eq!(invalid_field(T::get(client, wrong).await), T::KEY_FIELD);
        assert_eq!(invalid_field(T::delete(client, wrong).await), T::KEY_FIELD);
    }
    T::save(client, longest, "1").await.unwrap();
    assert_eq!(T::get(client, longest).await.unwrap().value, "1");
    T::delete(client, longest).await.unwrap();
    // A missing record is named in full, however long its name.
    assert_missing(T::get(client, longest).await, T::KIND, longest);
}

pub async fn any_key_is_kept_apart<T: Table>(client: &Client) {
    let prefix = unique("odd");
    let odd = ["", "\0", "\0\0", "\u{1}", " ", "/", "%2F", "a", "A", "a\nb", "é", "e\u{301}", "\u{10ffff}"];
    let mut keys: Vec<String> = odd.iter().map(|odd| format!("{prefix}{odd}")).collect();
    for key in &keys {
        T::save(client, key, &format!("\"{}\"", key.escape_unicode().to_string().replace('\\', ""))).await.unwrap();
    }
    for key in &keys {
        let expected = format!("\"{}\"", key.escape_unicode().to_string().replace('\\', ""));
        let stored = T::get(client, key).await.unwrap();
        assert_eq!((stored.value, stored.version), (expected, 1), "{key:?}");
    }
    keys.sort();
    assert_eq!(all_keys::<T>(client, &prefix, 1_000).await, keys);
}

pub async fn values_are_bounded<T: Table>(client: &Client) {
    let key = unique("bounds");
    let largest = format!("\"{}\"", "x".repeat(limits::VALUE_BYTES - 2));
    T::save(client, &key, &largest).await.unwrap();
    assert_eq!(T::get(client, &key).await.unwrap().value, largest);
    assert_eq!(invalid_field(T::save(client, &key, &format!("{largest} ")).await), T::VALUE_FIELD);
    let stored = T::get(client, &key).await.unwrap();
    assert_eq!((stored.version, stored.value.len()), (1, limits::VALUE_BYTES));
    T::delete(client, &key).await.unwrap();
}

pub async fn a_list_is_in_key_order<T: Table>(client: &Client) {
    let prefix = unique("order");
    assert_eq!(all_keys::<T>(client, &prefix, 1_000).await, [""; 0]);
    let mut keys: Vec<String> = ["b", "a", "ab", "B", "10", "9"].iter().map(|key| format!("{prefix}{key}")).collect();
    save_each::<T>(client, &keys).await;
    keys.sort();
    assert_eq!(all_keys::<T>(client, &prefix, 1_000).await, keys);
}

pub async fn pages_follow_each_other<T: Table>(client: &Client) {
    let prefix = unique("pages");
    let keys: Vec<String> = (0..45).map(|number| format!("{prefix}{number:03}")).collect();
    save_each::<T>(client, &keys).await;
    for limit in [1, 7, 44, 45, 46, 1_000] {
        assert_eq!(all_keys::<T>(client, &prefix, limit).await, keys, "pages of {limit}");
    }
}

pub async fn pages_show_one_revision_while_others_write<T: Table>(client: &Client) {
    let prefix = unique("stable");
    let keys: Vec<String> = (0..6).map(|number| format!("{prefix}{number}")).collect();
    save_each::<T>(client, &keys).await;
    // Node states have no prefix, and so other cases' items in front: begin where the own ones begin.
    let mut page = T::list(client, &prefix, PageRequest { limit: 1, cursor: String::new() }).await.unwrap();
    while !page.items.contains(&keys[0]) {
        let request = PageRequest { limit: 1, cursor: page.next_cursor };
        page = T::list(client, &prefix, request).await.unwrap();
    }
    let revision = page.revision;
    T::delete(client, &keys[3]).await.unwrap();
    T::save(client, &format!("{prefix}25"), "1").await.unwrap();
    T::save(client, &keys[4], "2").await.unwrap();
    let mut seen = page.items;
    while !page.next_cursor.is_empty() && seen.len() < keys.len() {
        let request = PageRequest { limit: 2, cursor: page.next_cursor };
        page = T::list(client, &prefix, request).await.unwrap();
        assert_eq!(page.revision, revision);
        seen.extend(page.items.clone());
    }
    seen.truncate(keys.len());
    assert_eq!(seen, keys);
    // A list that begins now shows what is there now.
    let now = all_keys::<T>(client, &prefix, 1_000).await;
    assert!(now.contains(&format!("{prefix}25")) && !now.contains(&keys[3]), "{now:?}");
}

pub async fn a_wrong_cursor_or_limit_is_refused<T: Table>(client: &Client) {
    let prefix = unique("cursor");
    save_each::<T>(client, &[format!("{prefix}a"), format!("{prefix}b")]).await;
    let list = async |limit, cursor: &str| T::list(client, &prefix, PageRequest { limit, cursor: cursor.into() }).await;
    let cursor = list(1, "").await.unwrap().next_cursor;
    assert!(!cursor.is_empty());
    list(1, &cursor).await.unwrap();
    let half = &cursor[..cursor.len() / 2];
    let twice = cursor.repeat(2);
    let long = "A".repeat(limits::CURSOR_BYTES + 1);
    for wrong in ["x", "not base64!", "AAAAAAAAAAAAAAAAAAAAAAAA", half, &twice, &long] {
        assert_eq!(invalid_field(list(1, wrong).await), "cursor", "{wrong}");
    }
    list(1_000, "").await.unwrap();
    assert_eq!(invalid_field(list(1_001, "").await), "limit");
    assert_eq!(invalid_field(list(u32::MAX, "").await), "limit");
}

pub async fn a_prefix_selects<T: Table>(client: &Client) {
    let prefix = unique("prefix");
    let keys: Vec<String> = ["a", "a/", "a/1", "a/1/2", "a0", "b"].iter().map(|key| format!("{prefix}{key}")).collect();
    save_each::<T>(client, &keys).await;
    let page = async |prefix: &str| T::list(client, prefix, PageRequest::default()).await.unwrap();
    assert_eq!(page(&format!("{prefix}a/")).await.items, keys[1..4]);
    assert_eq!(page(&format!("{prefix}a")).await.items, keys[..5]);
    assert_eq!(page(&format!("{prefix}c")).await.items, [""; 0]);
    let too_long = "x".repeat(limits::KEY_BYTES + 1);
    assert_eq!(invalid_field(T::list(client, &too_long, PageRequest::default()).await), "prefix");
    // A cursor belongs to its prefix.
    let first = PageRequest { limit: 1, cursor: String::new() };
    let cursor = T::list(client, &prefix, first).await.unwrap().next_cursor;
    let other = T::list(client, &format!("{prefix}a"), PageRequest { limit: 1, cursor }).await;
    assert_eq!(invalid_field(other), "cursor");
}

pub async fn one_name_is_another_record_in_each_table(client: &Client) {
    async fn check<T: Table>(client: &Client, key: &str, value: &str) {
        assert_eq!(T::get(client, key).await.unwrap().value, value);
    }
    let key = unique("shared");
    State::save(client, &key, "1").await.unwrap();
    NodeState::save(client, &key, "2").await.unwrap();
    Route::save(client, &key, "3").await.unwrap();
    Config::save(client, &key, "4").await.unwrap();
    check::<State>(client, &key, "1").await;
    check::<NodeState>(client, &key, "2").await;
    check::<Route>(client, &key, "3").await;
    check::<Config>(client, &key, "4").await;
    Route::delete(client, &key).await.unwrap();
    check::<NodeState>(client, &key, "2").await;
    check::<Config>(client, &key, "4").await;
}

pub async fn a_cursor_of_another_table_is_refused(client: &Client) {
    fn field(answer: Result<impl Debug>) -> String {
        invalid_field(answer)
    }
    let prefix = unique("foreign");
    save_each::<State>(client, &[format!("{prefix}a"), format!("{prefix}b")]).await;
    let first = PageRequest { limit: 1, cursor: String::new() };
    let cursor = State::list(client, &prefix, first).await.unwrap().next_cursor;
    let next = || PageRequest { limit: 1, cursor: cursor.clone() };
    assert_eq!(field(Route::list(client, &prefix, next()).await), "cursor");
    assert_eq!(field(Config::list(client, &prefix, next()).await), "cursor");
    assert_eq!(field(NodeState::list(client, &prefix, next()).await), "cursor");
    assert_eq!(field(client.messages().list(Default::default(), next()).await), "cursor");
}
