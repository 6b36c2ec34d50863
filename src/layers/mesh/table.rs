//! What state, node state, routes and configuration have in common: one value under one key.

use bytes::Bytes;

use crate::{
    Error, Result,
    error::Fault,
    layers::{
        Write,
        check::{check_name, stored},
        list::{Range, Walk},
    },
    limits,
    model::{
        Key, Record, ScopeId,
        key::prefix_end,
        keyspace::{self, Keyspace},
        mesh::{Page, PageRequest, Stored},
        transaction::{Operation, Put},
    },
    state::View,
};

/// A keyspace without scopes, and what its parts are called towards callers.
pub(super) struct Table {
    pub(super) keyspace: Keyspace,
    /// What `NotFound` calls its records.
    pub(super) kind: &'static str,
    /// What the API calls its keys.
    pub(super) key_field: &'static str,
    /// The longest key, in bytes.
    pub(super) key_bytes: usize,
}

impl Table {
    pub(super) fn scope(&self) -> ScopeId {
        ScopeId::new(self.keyspace, keyspace::NO_SCOPE)
    }

    /// The key of a record. Errors: `InvalidArgument`.
    pub(super) fn key(&self, name: &str) -> Result<Key> {
        check_name(self.key_field, name, self.key_bytes)?;
        Ok(self.scope().key(name.as_bytes()))
    }

    fn missing(&self, name: &str) -> Error {
        Error::NotFound { kind: self.kind, name: name.into() }
    }

    pub(super) fn put(&self, name: &str, put: Put) -> Result<Write> {
        Ok(Write::always(vec![Operation::Put { key: self.key(name)?, put }]))
    }

    pub(super) fn delete(&self, name: &str) -> Result<Write> {
        let key = self.key(name)?;
        let delete = Operation::Delete { key: key.clone() };
        Ok(Write::if_exists(key, vec![delete], self.missing(name)))
    }

    pub(super) fn get(&self, view: &View, name: &str) -> Result<Record> {
        view.record(&self.key(name)?)?.ok_or_else(|| self.missing(name))
    }

    /// From where to where the keys lie that begin with `prefix`. Errors: `InvalidArgument`.
    pub(super) fn extent(&self, prefix: &str) -> Result<(Key, Bytes)> {
        check_prefix(prefix)?;
        let start = self.scope().key(prefix.as_bytes());
        // The number of a keyspace is not 255, so every key has one behind it.
        let end = prefix_end(start.as_bytes()).unwrap_or_default();
        Ok((start, end))
    }

    /// A page of what `item` makes of the records whose key begins with `prefix`. Errors: `InvalidArgument`.
    pub(super) fn list<T>(&self, prefix: &str, page: &PageRequest, item: Item<T>) -> Result<List<T>> {
        check_prefix(prefix)?;
        let range = Range { start: prefix.into(), end: prefix_end(prefix.as_bytes()) };
        Ok(List { scope: self.scope(), walk: Walk::open(self.keyspace, &prefix, range, page)?, item })
    }
}

/// An empty prefix is every key, one longer than any key is a mistake.
pub(super) fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.is_empty() { Ok(()) } else { check_name("prefix", prefix, limits::KEY_BYTES) }
}

/// Makes an item of a list of a key and its record.
pub(super) type Item<T> = fn(&View, String, Record) -> Result<T>;

/// One page of a table that is wanted, in key order.
#[derive(Debug)]
pub struct List<T> {
    scope: ScopeId,
    walk: Walk,
    item: Item<T>,
}

impl<T> List<T> {
    /// The revision at which it must be read: the one of the pages before.
    pub fn revision(&self) -> Option<u64> {
        self.walk.revision()
    }

    /// The page. Errors: `InvalidArgument` for a cursor that is not of this store.
    pub fn read(&self, view: &View) -> Result<Page<T>> {
        let fetch = |start: &[u8], end: Option<&[u8]>, limit| {
            let records = view.records(self.scope, start, end, limit)?;
            Ok(records.into_iter().map(|(key, record)| (key.user_bytes(), record)).collect())
        };
        self.walk.read(view, fetch, |position, record: Record| {
            let size = position.len() + record.value.len();
            Ok(((self.item)(view, text(view, "key", position.clone())?, record)?, size))
        })
    }
}

/// A record of a table of JSON values.
pub(super) fn stored_json(view: &View, record: Record) -> Result<Stored<String>> {
    let json = text(view, "JSON value", record.value.clone())?;
    Ok(stored(&record, json))
}

/// The same with its key, as an item of a list.
pub(super) fn json_item(view: &View, key: String, record: Record) -> Result<(String, Stored<String>)> {
    Ok((key, stored_json(view, record)?))
}

/// A text that was checked when it was written; anything else in its place is a broken node.
pub(super) fn text(view: &View, what: &str, bytes: Bytes) -> Result<String> {
    String::from_utf8(bytes.into())
        .map_err(|error| view.fault(Fault::bug(format!("a stored {what} is not UTF-8: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{config, node_state, route, state, testing::Pairs},
        *,
    };

    fn field<T: std::fmt::Debug>(answer: Result<T>) -> String {
        match answer {
            Err(Error::InvalidArgument { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_table_checks_its_key_and_value() {
        let view = Pairs::default().view(1);
        let (long_id, long_key) = ("i".repeat(limits::ID_BYTES + 1), "k".repeat(limits::KEY_BYTES + 1));
        for key in ["", &long_key] {
            assert_eq!(field(state::put(key, Bytes::new())), "key");
            assert_eq!(field(state::get(&view, key)), "key");
            assert_eq!(field(state::delete(key)), "key");
            assert_eq!(field(route::save(key, "1".into())), "destination");
            assert_eq!(field(route::get(&view, key)), "destination");
            assert_eq!(field(route::delete(key)), "destination");
            assert_eq!(field(config::save(key, "1".into())), "key");
            assert_eq!(field(config::get(&view, key)), "key");
            assert_eq!(field(config::delete(key)), "key");
        }
        for key in ["", &long_id] {
            assert_eq!(field(node_state::save(key, "1".into())), "node_id");
            assert_eq!(field(node_state::get(&view, key)), "node_id");
            assert_eq!(field(node_state::delete(key)), "node_id");
        }
        assert!(state::put(&long_key[1..], Bytes::new()).is_ok());
        assert!(node_state::save(&long_id[1..], "1".into()).is_ok());
        assert_eq!(field(state::put("k", vec![0; limits::VALUE_BYTES + 1].into())), "value");
        assert_eq!(field(node_state::save("n", "{".into())), "state_json");
        assert_eq!(field(route::save("d", "{".into())), "route_json");
        assert_eq!(field(config::save("k", "{".into())), "value_json");
    }

    #[test]
    fn every_table_keeps_its_own_records() {
        let mut pairs = Pairs::default();
        let json = |n: u8| format!("{{ \"n\" : {n}9007199254740993 }}\n");
        pairs.put(state::put("k", Bytes::from_static(&[0, 0xFF])).unwrap());
        pairs.put(node_state::save("k", json(1)).unwrap());
        pairs.put(route::save("k", json(2)).unwrap());
        pairs.put(config::save("k", json(3)).unwrap());
        let view = pairs.view(1);
        assert_eq!(state::get(&view, "k").unwrap().value.as_ref(), [0, 0xFF]);
        assert_eq!(node_state::get(&view, "k").unwrap().value, json(1));
        assert_eq!(route::get(&view, "k").unwrap().value, json(2));
        assert_eq!(config::get(&view, "k").unwrap().value, json(3));
        let routes = route::list("", &PageRequest::default()).unwrap().read(&view).unwrap().items;
        assert_eq!(routes, [("k".to_owned(), route::get(&view, "k").unwrap())]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let view = Pairs::default().view(1);
        let missing = |kind| Error::NotFound { kind, name: "x".into() };
        assert_eq!(state::get(&view, "x"), Err(missing("state")));
        assert_eq!(node_state::get(&view, "x"), Err(missing("node state")));
        assert_eq!(route::get(&view, "x"), Err(missing("route")));
        assert_eq!(config::get(&view, "x"), Err(missing("config")));
    }
}
