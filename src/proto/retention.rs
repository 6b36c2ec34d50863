//! Retention rules as wire messages, and back.

use super::{
    convert::{expected, stored, version_of},
    v1,
};
use crate::{
    Error, Result,
    model::mesh::{Retention, Stored},
};

/// A mailbox and its rule.
type Item = (String, Stored<Retention>);

impl From<Retention> for v1::Retention {
    fn from(Retention { max_age_ms, max_count }: Retention) -> Self {
        Self { max_age_ms, max_count }
    }
}

impl From<v1::Retention> for Retention {
    fn from(v1::Retention { max_age_ms, max_count }: v1::Retention) -> Self {
        Self { max_age_ms, max_count }
    }
}

/// Without a header, as an item of a list; see the conversion with one.
impl From<Item> for v1::GetRetentionResponse {
    fn from((mailbox, stored): Item) -> Self {
        let version = Some(version_of(&stored));
        Self { header: None, mailbox, retention: Some(stored.value.into()), version }
    }
}

impl From<(v1::ReadHeader, Item)> for v1::GetRetentionResponse {
    fn from((header, item): (v1::ReadHeader, Item)) -> Self {
        Self { header: Some(header), ..item.into() }
    }
}

impl TryFrom<v1::GetRetentionResponse> for Item {
    type Error = Error;

    fn try_from(answer: v1::GetRetentionResponse) -> Result<Self> {
        Ok((answer.mailbox, stored(expected("retention", answer.retention)?.into(), answer.version)?))
    }
}
