//! JSON, as it was stored.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use super::{Page, Stored, finite};
use crate::{Error, Result};

/// A JSON text, exactly as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// Of a text that was checked where it was stored, or will be.
    pub(super) fn of(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn raw(&self) -> &str {
        &self.0
    }

    /// The text, owned.
    pub fn into_raw(self) -> String {
        self.0
    }

    /// The value that the text stands for.
    ///
    /// Errors: `Unexpected` if it does not have the shape of a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.0).map_err(|error| {
            Error::Unexpected(format!("the stored JSON is no {}: {error}", std::any::type_name::<T>()))
        })
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text of a value that is to be stored in `field`.
pub(super) fn text(field: &str, value: &(impl Serialize + ?Sized)) -> Result<String> {
    finite::check(value).map_err(|wrong| Error::invalid(field, "", format!("must be writable as JSON: {wrong}")))?;
    serde_json::to_string(value)
        .map_err(|error| Error::invalid(field, "", format!("must be writable as JSON: {error}")))
}

pub(super) fn stored(stored: Stored<String>) -> Stored<Json> {
    let Stored { value, created_at_ms, updated_at_ms, create_revision, mod_revision, version } = stored;
    Stored { value: Json(value), created_at_ms, updated_at_ms, create_revision, mod_revision, version }
}

pub(super) fn page(page: Page<(String, Stored<String>)>) -> Page<(String, Stored<Json>)> {
    let Page { items, next_cursor, revision } = page;
    Page { items: items.into_iter().map(|(key, item)| (key, stored(item))).collect(), next_cursor, revision }
}
