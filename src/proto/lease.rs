//! Leases and locks as wire messages, and back.

use prost::Message;
use tonic::metadata::{BinaryMetadataValue, MetadataMap, MetadataValue};

use super::{
    convert::{expected, stored, version_of},
    v1::{self, attached_key},
};
use crate::{
    Error, Result, limits,
    model::{
        lease::{AttachedKey, Fence, Holder, Kept, Lease},
        mesh::{Page, Stored},
    },
};

/// The metadata in which a write carries a fence. It does not begin with `x-meshstore-`: what does is taken off a call that is
/// passed on.
pub const FENCE: &str = "meshstore-fence-bin";

/// A fence as metadata.
pub fn fence_header(fence: &Fence) -> BinaryMetadataValue {
    let Fence { lock, token } = fence.clone();
    MetadataValue::from_bytes(&v1::Fence { lock, token }.encode_to_vec())
}

/// The fence that a call carries, if it does. Errors: `InvalidArgument` for one that is none.
pub fn fence(metadata: &MetadataMap) -> Result<Option<Fence>> {
    let mut headers = metadata.get_all_bin(FENCE).iter();
    let Some(header) = headers.next() else { return Ok(None) };
    if headers.next().is_some() {
        return Err(Error::invalid("fence", "", "must be one: a call depends on one lock"));
    }
    let malformed = || Error::invalid("fence", "", "must be a message of meshstore.v1.Fence");
    let bytes = header.to_bytes().map_err(|_| malformed())?;
    let v1::Fence { lock, token } = v1::Fence::decode(bytes).map_err(|_| malformed())?;
    if lock.is_empty() || lock.len() > limits::ID_BYTES {
        let rule = format!("must be the name of a lock, from 1 to {} bytes long", limits::ID_BYTES);
        return Err(Error::invalid("fence.lock", lock, rule));
    }
    if token == 0 {
        return Err(Error::invalid("fence.token", "0", "must be the token of a holder of the lock"));
    }
    Ok(Some(Fence { lock, token }))
}

impl From<Lease> for v1::LeaseInfo {
    fn from(lease: Lease) -> Self {
        let Lease { id, ttl_ms, remaining_ms, principal, create_revision, mod_revision, version, .. } = lease;
        let (created_at_ms, updated_at_ms) = (lease.granted_at_ms, lease.kept_at_ms);
        let version =
            version_of(&Stored { value: (), created_at_ms, updated_at_ms, create_revision, mod_revision, version });
        Self { id, ttl_ms, remaining_ms, principal, version: Some(version) }
    }
}

impl TryFrom<v1::LeaseInfo> for Lease {
    type Error = Error;

    fn try_from(sent: v1::LeaseInfo) -> Result<Self> {
        let v1::LeaseInfo { id, ttl_ms, remaining_ms, principal, version } = sent;
        let Stored { created_at_ms, updated_at_ms, create_revision, mod_revision, version, .. } = stored((), version)?;
        Ok(Self {
            id,
            ttl_ms,
            remaining_ms,
            principal,
            granted_at_ms: created_at_ms,
            kept_at_ms: updated_at_ms,
            create_revision,
            mod_revision,
            version,
        })
    }
}

impl From<AttachedKey> for v1::AttachedKey {
    fn from(key: AttachedKey) -> Self {
        use attached_key::Key as Wire;
        let key = match key {
            AttachedKey::Record(record) => Wire::Record(record.into()),
            AttachedKey::Value { namespace, key } => Wire::Value(v1::NamespacedKey { namespace, key }),
            AttachedKey::Lock(name) => Wire::Lock(name),
            AttachedKey::WaitsFor(name) => Wire::WaitsFor(name),
        };
        Self { key: Some(key) }
    }
}

impl TryFrom<v1::AttachedKey> for AttachedKey {
    type Error = Error;

    fn try_from(sent: v1::AttachedKey) -> Result<Self> {
        use attached_key::Key as Wire;
        Ok(match expected("key", sent.key)? {
            Wire::Record(record) => {
                let unknown = |_| Error::Unexpected("a record of a kind that this client does not know".into());
                Self::Record(super::transaction::record("record".into(), Some(record)).map_err(unknown)?)
            }
            Wire::Value(v1::NamespacedKey { namespace, key }) => Self::Value { namespace, key },
            Wire::Lock(name) => Self::Lock(name),
            Wire::WaitsFor(name) => Self::WaitsFor(name),
        })
    }
}

impl From<(v1::ReadHeader, (Lease, Vec<AttachedKey>))> for v1::ShowLeaseResponse {
    fn from((header, (lease, keys)): (v1::ReadHeader, (Lease, Vec<AttachedKey>))) -> Self {
        Self { header: Some(header), lease: Some(lease.into()), keys: keys.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<v1::ShowLeaseResponse> for (Lease, Vec<AttachedKey>) {
    type Error = Error;

    fn try_from(answer: v1::ShowLeaseResponse) -> Result<Self> {
        let keys = answer.keys.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        Ok((expected("lease", answer.lease)?.try_into()?, keys))
    }
}

impl From<(v1::ReadHeader, Page<Lease>)> for v1::ListLeasesResponse {
    fn from((header, page): (v1::ReadHeader, Page<Lease>)) -> Self {
        let Page { items, next_cursor, .. } = page;
        Self { header: Some(header), leases: items.into_iter().map(Into::into).collect(), next_cursor }
    }
}

impl TryFrom<v1::ListLeasesResponse> for Page<Lease> {
    type Error = Error;

    fn try_from(answer: v1::ListLeasesResponse) -> Result<Self> {
        let revision = expected("header", answer.header)?.revision;
        let items = answer.leases.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        Ok(Self { items, next_cursor: answer.next_cursor, revision })
    }
}

impl From<Kept> for v1::KeepAliveResponse {
    fn from(Kept { kept, missing }: Kept) -> Self {
        let kept = kept.into_iter().map(|(id, ttl_ms)| v1::KeptLease { id, ttl_ms }).collect();
        Self { kept, missing, ..Self::default() }
    }
}

impl From<v1::KeepAliveResponse> for Kept {
    fn from(answer: v1::KeepAliveResponse) -> Self {
        let v1::KeepAliveResponse { kept, missing, .. } = answer;
        Self { kept: kept.into_iter().map(|v1::KeptLease { id, ttl_ms }| (id, ttl_ms)).collect(), missing }
    }
}

impl From<(v1::ReadHeader, (Option<Holder>, u64))> for v1::ShowLockResponse {
    fn from((header, (holder, waiting)): (v1::ReadHeader, (Option<Holder>, u64))) -> Self {
        let holder = holder.map(|Holder { token, lease, principal, value, since_ms }| v1::LockHolder {
            token,
            lease,
            principal,
            value,
            since_ms,
        });
        Self { header: Some(header), holder, waiting }
    }
}

impl From<v1::ShowLockResponse> for (Option<Holder>, u64) {
    fn from(answer: v1::ShowLockResponse) -> Self {
        let v1::ShowLockResponse { header: _, holder, waiting } = answer;
        let holder = holder.map(|v1::LockHolder { token, lease, principal, value, since_ms }| Holder {
            token,
            lease,
            principal,
            value,
            since_ms,
        });
        (holder, waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(fence: v1::Fence) -> Result<Option<Fence>> {
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(FENCE, MetadataValue::from_bytes(&fence.encode_to_vec()));
        super::fence(&metadata)
    }

    #[test]
    fn a_fence_round_trips_or_is_refused() {
        let fence = Fence { lock: "a:b é".into(), token: u64::MAX };
        let mut metadata = MetadataMap::new();
        assert_eq!(super::fence(&metadata), Ok(None));
        metadata.insert_bin(FENCE, fence_header(&fence));
        assert_eq!(super::fence(&metadata), Ok(Some(fence)));
        let field = |carried| match carried {
            Err(Error::InvalidArgument { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(carried(v1::Fence { lock: String::new(), token: 1 })), "fence.lock");
        assert_eq!(field(carried(v1::Fence { lock: "n".repeat(256), token: 1 })), "fence.lock");
        assert_eq!(field(carried(v1::Fence { lock: "n".into(), token: 0 })), "fence.token");
        metadata.insert_bin(FENCE, MetadataValue::from_bytes(&[0xFF; 5]));
        assert_eq!(field(super::fence(&metadata)), "fence");
    }
}
