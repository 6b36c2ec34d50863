//! Byte strings that are decoded without a copy.
//!
//! What is decoded [`within`] shared bytes takes its byte strings from there, and keeps all of them in memory for as long as it
//! lives itself. Whoever keeps a little of much, for long, copies it.

use std::{cell::RefCell, fmt};

use bytes::Bytes;
use serde::{Deserializer, de};

thread_local! {
    static SOURCE: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
}

/// Decodes what stands in `source`.
pub fn within<T>(source: &Bytes, decode: impl FnOnce() -> T) -> T {
    /// Puts back what was the source before, also if decoding panics.
    struct Before(Bytes);
    impl Drop for Before {
        fn drop(&mut self) {
            SOURCE.set(std::mem::take(&mut self.0));
        }
    }
    let _before = Before(SOURCE.replace(source.clone()));
    decode()
}

/// For `#[serde(deserialize_with)]` of a field of bytes, of a format that lends what it decodes. The encoding is that of
/// [`Bytes`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    deserializer.deserialize_bytes(Taking)
}

struct Taking;

impl<'de> de::Visitor<'de> for Taking {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Bytes, E> {
        SOURCE.with_borrow(|source| {
            let (all, part) = (source.as_ptr_range(), bytes.as_ptr_range());
            let shares = all.start <= part.start && part.end <= all.end;
            Ok(if shares { source.slice_ref(bytes) } else { Bytes::copy_from_slice(bytes) })
        })
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Two {
        #[serde(deserialize_with = "deserialize")]
        first: Bytes,
        #[serde(deserialize_with = "deserialize")]
        second: Bytes,
    }

    fn decode(bytes: &[u8]) -> Two {
        bincode::serde::decode_from_slice(bytes, bincode::config::standard()).unwrap().0
    }

    #[test]
    fn what_is_decoded_within_shared_bytes_is_part_of_them_and_else_a_copy() {
        let two = Two { first: Bytes::from_static(b"first"), second: Bytes::new() };
        let encoded = Bytes::from(bincode::serde::encode_to_vec(&two, bincode::config::standard()).unwrap());
        let is_within = |part: &Bytes| encoded.as_ptr_range().contains(&part.as_ptr());
        let shared = within(&encoded, || decode(&encoded));
        assert!(shared == two && is_within(&shared.first));
        let copied = decode(&encoded);
        assert!(copied == two && !is_within(&copied.first));
        let elsewhere = encoded.to_vec();
        let copied = within(&encoded, || decode(&elsewhere));
        assert!(copied == two && !is_within(&copied.first));
    }
}
