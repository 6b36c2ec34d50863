//! What is watched and what is told of it as wire messages, and back.

use super::{
    convert::{expected, required},
    v1::{self, namespace_change::Kind, watch_change, watch_keys, watch_request, watch_response},
};
use crate::{
    Error, Result, limits,
    model::{
        ReadMode,
        kv::Entry,
        mesh::{Message, Stored},
        watch::{Change, Changed, Keys, NamespaceEvent, Start, Target, Told, WatchRequest},
    },
};

impl From<Keys> for v1::WatchKeys {
    fn from(keys: Keys) -> Self {
        let keys = match keys {
            Keys::All => None,
            Keys::One(key) => Some(watch_keys::Keys::Key(key)),
            Keys::Prefix(prefix) => Some(watch_keys::Keys::Prefix(prefix)),
        };
        Self { keys }
    }
}

impl From<v1::WatchKeys> for Keys {
    fn from(keys: v1::WatchKeys) -> Self {
        match keys.keys {
            None => Self::All,
            Some(watch_keys::Keys::Key(key)) => Self::One(key),
            Some(watch_keys::Keys::Prefix(prefix)) => Self::Prefix(prefix),
        }
    }
}

impl From<Target> for watch_request::What {
    fn from(target: Target) -> Self {
        match target {
            Target::Values { namespace, keys, attributes } => {
                let keys = Some(keys.into());
                Self::Values(v1::WatchValues { namespace, keys, include_metadata: attributes })
            }
            Target::Messages(keys) => Self::Messages(keys.into()),
            Target::State(keys) => Self::State(keys.into()),
            Target::NodeStates(keys) => Self::NodeStates(keys.into()),
            Target::Routes(keys) => Self::Routes(keys.into()),
            Target::Config(keys) => Self::Config(keys.into()),
            Target::Topology => Self::Topology(v1::WatchTopology {}),
            Target::Documents { service, collection, filter: filter_json } => {
                Self::Documents(v1::WatchDocuments { service, collection, filter_json })
            }
        }
    }
}

impl From<watch_request::What> for Target {
    fn from(what: watch_request::What) -> Self {
        use watch_request::What;
        match what {
            What::Values(v1::WatchValues { namespace, keys, include_metadata: attributes }) => {
                Self::Values { namespace, keys: keys.unwrap_or_default().into(), attributes }
            }
            What::Messages(keys) => Self::Messages(keys.into()),
            What::State(keys) => Self::State(keys.into()),
            What::NodeStates(keys) => Self::NodeStates(keys.into()),
            What::Routes(keys) => Self::Routes(keys.into()),
            What::Config(keys) => Self::Config(keys.into()),
            What::Topology(v1::WatchTopology {}) => Self::Topology,
            What::Documents(v1::WatchDocuments { service, collection, filter_json: filter }) => {
                Self::Documents { service, collection, filter }
            }
        }
    }
}

impl From<WatchRequest> for v1::WatchRequest {
    fn from(request: WatchRequest) -> Self {
        let WatchRequest { target, start, mode, progress_ms, previous } = request;
        let start = match start {
            Start::Now => None,
            Start::After(revision) => Some(watch_request::Start::AfterRevision(revision)),
            Start::Current => Some(watch_request::Start::Current(true)),
        };
        Self { what: Some(target.into()), start, read: Some(mode.into()), progress_ms, omit_previous: !previous }
    }
}

impl TryFrom<v1::WatchRequest> for WatchRequest {
    type Error = Error;

    fn try_from(request: v1::WatchRequest) -> Result<Self> {
        let v1::WatchRequest { what, start, read, progress_ms, omit_previous } = request;
        let options = read.unwrap_or_default();
        if options.revision.is_some() || options.keep {
            return Err(Error::invalid("read", "", "only its mode counts for a watch: set neither revision nor keep"));
        }
        let progress_ms = if progress_ms == 0 { limits::WATCH_PROGRESS_DEFAULT_MS } else { progress_ms };
        let bounds = limits::WATCH_PROGRESS_MIN_MS..=limits::WATCH_PROGRESS_MAX_MS;
        if !bounds.contains(&progress_ms) {
            let rule = format!("must be from {} to {}, or 0", bounds.start(), bounds.end());
            return Err(Error::invalid("progress_ms", progress_ms.to_string(), rule));
        }
        let start = match start {
            None => Start::Now,
            Some(watch_request::Start::AfterRevision(revision)) => Start::After(revision),
            Some(watch_request::Start::Current(_)) => Start::Current,
        };
        let (target, mode) = (required("what", what)?.into(), ReadMode::from(Some(options)));
        Ok(Self { target, start, mode, progress_ms, previous: !omit_previous })
    }
}

/// Of a change of a table: its wire form and back.
macro_rules! changed {
    ($wire:ident, $key:ident, $type:ty) => {
        impl From<Changed<$type>> for v1::$wire {
            fn from(changed: Changed<$type>) -> Self {
                let Changed { key, now, before } = changed;
                let item = |stored: Stored<$type>| (key.clone(), stored).into();
                Self { now: now.map(item), before: before.map(item), $key: key }
            }
        }

        impl TryFrom<v1::$wire> for Changed<$type> {
            type Error = Error;

            fn try_from(changed: v1::$wire) -> Result<Self> {
                let item = |item| <(String, Stored<$type>)>::try_from(item).map(|(_, stored)| stored);
                let (now, before) = (changed.now.map(item).transpose()?, changed.before.map(item).transpose()?);
                Ok(Self { key: changed.$key, now, before })
            }
        }
    };
}

changed!(StateChange, key, bytes::Bytes);
changed!(NodeStateChange, node_id, String);
changed!(RouteChange, destination, String);
changed!(ConfigChange, key, String);

impl From<Changed<Message>> for v1::MessageChange {
    fn from(Changed { key, now, before }: Changed<Message>) -> Self {
        Self { id: key, now: now.map(Into::into), before: before.map(Into::into) }
    }
}

impl TryFrom<v1::MessageChange> for Changed<Message> {
    type Error = Error;

    fn try_from(v1::MessageChange { id, now, before }: v1::MessageChange) -> Result<Self> {
        let (now, before) = (now.map(TryInto::try_into).transpose()?, before.map(TryInto::try_into).transpose()?);
        Ok(Self { key: id, now, before })
    }
}

impl From<Change> for v1::WatchChange {
    fn from(change: Change) -> Self {
        use watch_change::Change as Wire;
        let change = match change {
            Change::Value { key, now, before } => {
                Wire::Value(v1::ValueChange { key, now: now.map(Into::into), before: before.map(Into::into) })
            }
            Change::Attributes { key, now: now_json, before: before_json, revision } => {
                Wire::Attributes(v1::AttributesChange { key, now_json, before_json, revision })
            }
            Change::Namespace(event) => {
                let kind = match event {
                    NamespaceEvent::Created => Kind::Created,
                    NamespaceEvent::Cleared => Kind::Cleared,
                    NamespaceEvent::Deleted => Kind::Deleted,
                };
                Wire::Namespace(v1::NamespaceChange { kind: kind.into() })
            }
            Change::Message(changed) => Wire::Message(changed.into()),
            Change::State(changed) => Wire::State(changed.into()),
            Change::NodeState(changed) => Wire::NodeState(changed.into()),
            Change::Route(changed) => Wire::Route(changed.into()),
            Change::Config(changed) => Wire::Config(changed.into()),
            Change::Topology(entry) => Wire::Topology(entry.into()),
            Change::Document { id, now, before } => {
                Wire::Document(v1::DocumentChange { id, now: now.map(Into::into), before: before.map(Into::into) })
            }
        };
        Self { change: Some(change) }
    }
}

impl TryFrom<v1::WatchChange> for Change {
    type Error = Error;

    fn try_from(change: v1::WatchChange) -> Result<Self> {
        use watch_change::Change as Wire;
        Ok(match expected("change", change.change)? {
            Wire::Value(v1::ValueChange { key, now, before }) => {
                let entry = |entry: Option<v1::StorageEntry>| entry.map(Entry::try_from).transpose();
                Self::Value { key, now: entry(now)?, before: entry(before)? }
            }
            Wire::Attributes(v1::AttributesChange { key, now_json: now, before_json: before, revision }) => {
                Self::Attributes { key, now, before, revision }
            }
            Wire::Namespace(change) => Self::Namespace(match change.kind() {
                Kind::Created => NamespaceEvent::Created,
                Kind::Cleared => NamespaceEvent::Cleared,
                Kind::Deleted => NamespaceEvent::Deleted,
                Kind::Unspecified => {
                    return Err(Error::Unexpected(format!("the answer has a change of kind {}", change.kind)));
                }
            }),
            Wire::Message(changed) => Self::Message(changed.try_into()?),
            Wire::State(changed) => Self::State(changed.try_into()?),
            Wire::NodeState(changed) => Self::NodeState(changed.try_into()?),
            Wire::Route(changed) => Self::Route(changed.try_into()?),
            Wire::Config(changed) => Self::Config(changed.try_into()?),
            Wire::Topology(entry) => Self::Topology(entry.try_into()?),
            Wire::Document(v1::DocumentChange { id, now, before }) => {
                Self::Document { id, now: now.map(Into::into), before: before.map(Into::into) }
            }
        })
    }
}

fn opened(changes: Vec<v1::WatchChange>) -> Result<Vec<Change>> {
    changes.into_iter().map(TryInto::try_into).collect()
}

impl From<Told> for v1::WatchResponse {
    fn from(told: Told) -> Self {
        use watch_response::Told as Wire;
        let sealed = |changes: Vec<Change>| changes.into_iter().map(Into::into).collect();
        let told = match told {
            Told::Started { node_id, revision } => Wire::Started(v1::WatchStarted { node_id, revision }),
            Told::Content { revision, records, last } => {
                Wire::Content(v1::WatchContent { revision, records: sealed(records), last })
            }
            Told::Changes { revision, changes, more } => {
                Wire::Changes(v1::WatchChanges { revision, changes: sealed(changes), more })
            }
            Told::Progress { revision, age_ms } => Wire::Progress(v1::WatchProgress { revision, age_ms }),
        };
        Self { told: Some(told) }
    }
}

impl TryFrom<v1::WatchResponse> for Told {
    type Error = Error;

    fn try_from(answer: v1::WatchResponse) -> Result<Self> {
        use watch_response::Told as Wire;
        Ok(match expected("told", answer.told)? {
            Wire::Started(v1::WatchStarted { node_id, revision }) => Self::Started { node_id, revision },
            Wire::Content(v1::WatchContent { revision, records, last }) => {
                Self::Content { revision, records: opened(records)?, last }
            }
            Wire::Changes(v1::WatchChanges { revision, changes, more }) => {
                Self::Changes { revision, changes: opened(changes)?, more }
            }
            Wire::Progress(v1::WatchProgress { revision, age_ms }) => Self::Progress { revision, age_ms },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{document::Document, kv::Metadata, kv::Value, topology};

    fn stored<T>(value: T) -> Stored<T> {
        Stored { value, created_at_ms: 1, updated_at_ms: 2, create_revision: 3, mod_revision: 4, version: 5 }
    }

    fn changed<T: Clone>(value: T) -> Changed<T> {
        Changed { key: "k".into(), now: Some(stored(value.clone())), before: Some(stored(value)) }
    }

    #[test]
    fn what_is_told_survives_the_wire() {
        let document = Document {
            id: "d".into(),
            json: "{}".into(),
            created_at_ms: 1,
            updated_at_ms: 2,
            revision: 3,
            version: 4,
            owner: "o".into(),
        };
        let entry = Entry { key: "k".into(), value: Value::Json("1".into()), metadata: Metadata::default() };
        let history = topology::HistoryEntry {
            revision: 7,
            at_ms: 8,
            change: topology::Change {
                author: "a".into(),
                reason: "r".into(),
                cause: topology::Cause::Edit,
                edits: vec![],
            },
        };
        let message = Message { id: "k".into(), ..Message::default() };
        let changes = vec![
            Change::Value { key: "k".into(), now: Some(entry.clone()), before: None },
            Change::Value { key: "k".into(), now: None, before: Some(entry) },
            Change::Attributes { key: "k".into(), now: Some("{}".into()), before: None, revision: 9 },
            Change::Namespace(NamespaceEvent::Created),
            Change::Namespace(NamespaceEvent::Cleared),
            Change::Namespace(NamespaceEvent::Deleted),
            Change::Message(changed(message)),
            Change::State(changed("v".into())),
            Change::NodeState(changed("1".into())),
            Change::Route(changed("1".into())),
            Change::Config(Changed { key: "k".into(), now: None, before: None }),
            Change::Topology(history),
            Change::Document { id: "d".into(), now: None, before: Some(document) },
        ];
        for told in [
            Told::Started { node_id: 1, revision: 2 },
            Told::Content { revision: 3, records: changes.clone(), last: true },
            Told::Changes { revision: 3, changes, more: true },
            Told::Progress { revision: 4, age_ms: 5 },
        ] {
            assert_eq!(Told::try_from(v1::WatchResponse::from(told.clone())), Ok(told));
        }
        let unknown = v1::NamespaceChange { kind: 99 };
        let unknown = v1::WatchChange { change: Some(watch_change::Change::Namespace(unknown)) };
        assert!(matches!(Change::try_from(unknown), Err(Error::Unexpected(_))));
    }

    #[test]
    fn what_is_asked_survives_the_wire_and_is_checked() {
        let keys = [Keys::All, Keys::One("k".into()), Keys::Prefix("p".into())];
        let starts = [Start::Now, Start::After(0), Start::Current];
        for (keys, start) in keys.into_iter().zip(starts) {
            for target in [
                Target::Values { namespace: "n".into(), keys: keys.clone(), attributes: true },
                Target::Messages(keys.clone()),
                Target::State(keys.clone()),
                Target::NodeStates(keys.clone()),
                Target::Routes(keys.clone()),
                Target::Config(keys.clone()),
                Target::Topology,
                Target::Documents { service: "s".into(), collection: "c".into(), filter: "{}".into() },
            ] {
                let (mode, progress_ms, previous) = (ReadMode::AtLeast(7), 100, false);
                let request = WatchRequest { target, start, mode, progress_ms, previous };
                assert_eq!(WatchRequest::try_from(v1::WatchRequest::from(request.clone())), Ok(request));
            }
        }
        let whole = v1::WatchRequest { what: Some(Target::Topology.into()), ..v1::WatchRequest::default() };
        let told = WatchRequest::try_from(whole.clone()).unwrap();
        assert_eq!((told.start, told.progress_ms, told.previous), (Start::Now, 5_000, true));
        let kept = v1::ReadOptions { keep: true, ..v1::ReadOptions::default() };
        for (wrong, named) in [
            (v1::WatchRequest::default(), "what"),
            (v1::WatchRequest { progress_ms: 49, ..whole.clone() }, "progress_ms"),
            (v1::WatchRequest { progress_ms: 60_001, ..whole.clone() }, "progress_ms"),
            (v1::WatchRequest { read: Some(kept), ..whole.clone() }, "read"),
        ] {
            let Err(Error::InvalidArgument { field, .. }) = WatchRequest::try_from(wrong) else { panic!("{named}") };
            assert_eq!(field, named);
        }
    }
}
