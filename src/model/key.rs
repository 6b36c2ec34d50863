//! Keys: `keyspace u8 | scope u32 BE | bytes`, ordered as bytes.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::{
    keyspace::{self, Keyspace},
    shared,
};

/// Length of the part in front of the user's bytes.
pub const PREFIX_BYTES: usize = 5;

/// A whole key. Always at least [`PREFIX_BYTES`] long.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(#[serde(deserialize_with = "shared::deserialize")] Bytes);

/// A scope of a keyspace: one namespace, one collection, one index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScopeId {
    /// The keyspace.
    pub keyspace: Keyspace,
    /// The scope's number, 0 where the keyspace has none.
    pub scope: u32,
}

impl ScopeId {
    /// The scope `scope` of `keyspace`.
    pub const fn new(keyspace: Keyspace, scope: u32) -> Self {
        Self { keyspace, scope }
    }

    /// Where that stands which the core derives from the records of this scope, and which goes with it.
    pub fn derived(self) -> impl Iterator<Item = Self> {
        let homes = [keyspace::HISTORY, keyspace::REFERRERS].map(|home| Self::new(home, self.scope));
        let has = self.keyspace <= keyspace::LAST_RECORD && self.scope >= keyspace::FIRST_DYNAMIC_SCOPE;
        homes.into_iter().filter(move |_| has)
    }

    /// The bytes with which all keys of this scope begin.
    pub fn prefix(self) -> [u8; PREFIX_BYTES] {
        let [a, b, c, d] = self.scope.to_be_bytes();
        [self.keyspace, a, b, c, d]
    }

    /// The key of this scope with these bytes.
    pub fn key(self, bytes: &[u8]) -> Key {
        let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + bytes.len());
        buffer.put_slice(&self.prefix());
        buffer.put_slice(bytes);
        Key(buffer.freeze())
    }
}

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}/{}", self.keyspace, self.scope)
    }
}

impl Key {
    /// The key from its whole bytes; `None` if they are shorter than keyspace and scope.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        (bytes.len() >= PREFIX_BYTES).then_some(Self(bytes))
    }

    /// The whole key.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The same key, which keeps nothing in memory but itself.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// Whether the bytes are long enough to be a key. Only a key that was decoded can answer no.
    pub fn is_well_formed(&self) -> bool {
        self.0.len() >= PREFIX_BYTES
    }

    /// Keyspace and scope.
    pub fn scope(&self) -> ScopeId {
        scope_of(&self.0).unwrap_or(ScopeId::new(0, 0))
    }

    /// The bytes behind keyspace and scope.
    pub fn user_bytes(&self) -> Bytes {
        self.0.slice(PREFIX_BYTES.min(self.0.len())..)
    }
}

/// Keyspace and scope of a whole key's bytes; `None` if they are too short to be a key.
pub fn scope_of(key: &[u8]) -> Option<ScopeId> {
    let (&[keyspace, a, b, c, d], _) = key.split_first_chunk::<PREFIX_BYTES>()?;
    Some(ScopeId::new(keyspace, u32::from_be_bytes([a, b, c, d])))
}

/// The smallest byte string that is greater than every string with this prefix; `None` if there is
/// none (the prefix is all 0xFF, or empty).
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    Some(end.into())
}

/// Appends `part` so that composed keys order as their parts do: 0x00 becomes 0x00 0xFF, and
/// 0x00 0x01 ends the part.
pub fn escape(into: &mut Vec<u8>, part: &[u8]) {
    for byte in part {
        into.push(*byte);
        if *byte == 0 {
            into.push(0xFF);
        }
    }
    into.extend_from_slice(&[0, 1]);
}

/// Takes one escaped part off the front: the part and what follows; `None` if it is not well formed.
pub fn unescape(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut part = Vec::new();
    loop {
        match bytes {
            [0, 1, rest @ ..] => return Some((part, rest)),
            [0, 0xFF, rest @ ..] => {
                part.push(0);
                bytes = rest;
            }
            [0, ..] | [] => return None,
            [byte, rest @ ..] => {
                part.push(*byte);
                bytes = rest;
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scope(), self.user_bytes().escape_ascii())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping_round_trips_and_keeps_order() {
        let parts: [&[u8]; 7] = [b"", b"\0", b"\0\0", b"\0\xFF", b"a", b"a\0b", b"\xFF"];
        let mut escaped: Vec<Vec<u8>> = Vec::new();
        for part in parts {
            let mut bytes = Vec::new();
            escape(&mut bytes, part);
            bytes.extend_from_slice(b"tail");
            assert_eq!(unescape(&bytes), Some((part.to_vec(), &b"tail"[..])));
            escaped.push(bytes);
        }
        assert!(escaped.is_sorted());
        assert_eq!(unescape(b"abc"), None);
        assert_eq!(unescape(b"\0\x02"), None);
    }

    #[test]
    fn prefix_end_is_the_first_string_behind_the_prefix() {
        assert_eq!(prefix_end(b"a"), Some(Bytes::from_static(b"b")));
        assert_eq!(prefix_end(b"a\xFF"), Some(Bytes::from_static(b"b")));
        assert_eq!(prefix_end(b"\xFF\xFF"), None);
    }
}
