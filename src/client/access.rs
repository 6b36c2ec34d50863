//! Who may do what with the collections of the data broker.

use std::time::Duration;

use super::{Documents, Page, PageRequest, Written, pages};
use crate::{
    Result,
    model::document::{Grant, Permission},
    proto::v1,
};

/// A time in milliseconds; 0: none.
fn ms(time: Option<Duration>) -> u64 {
    time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

impl Documents {
    /// Allows a service something with this collection, in place of what it was allowed; with a time for so long only.
    ///
    /// Errors: `InvalidArgument`; `NotFound` for the collection; `PermissionDenied` for who does not administer it.
    pub async fn grant(
        &self,
        target: &str,
        permission: Permission,
        (reason, ttl): (&str, Option<Duration>),
    ) -> Result<Written> {
        let (service, collection) = self.place();
        let request = v1::GrantAccessRequest {
            attempt: None,
            service,
            collection,
            target_service: target.to_owned(),
            permission: v1::Permission::from(permission).into(),
            reason: reason.to_owned(),
            ttl_ms: ms(ttl),
        };
        self.client().write(request).await
    }

    /// Grants what a service asked for, or something else; with a time for so long only.
    ///
    /// Errors: `NotFound` for the collection, or if nothing was asked for; `PermissionDenied`.
    pub async fn approve(
        &self,
        target: &str,
        permission: Option<Permission>,
        ttl: Option<Duration>,
    ) -> Result<Written> {
        let permission = permission.map_or(v1::Permission::Unspecified, Into::into);
        self.decide(target, (true, permission), ttl).await
    }

    /// Denies what a service asked for; asked for again it stays denied.
    ///
    /// Errors: as of [`approve`](Self::approve).
    pub async fn deny(&self, target: &str) -> Result<Written> {
        self.decide(target, (false, v1::Permission::Unspecified), None).await
    }

    async fn decide(
        &self,
        target: &str,
        (allow, permission): (bool, v1::Permission),
        ttl: Option<Duration>,
    ) -> Result<Written> {
        let (service, collection) = self.place();
        let request = v1::DecideAccessRequestRequest {
            attempt: None,
            service,
            collection,
            target_service: target.to_owned(),
            allow,
            permission: permission.into(),
            ttl_ms: ms(ttl),
        };
        self.client().write(request).await
    }

    /// Takes back what a service was allowed.
    ///
    /// Errors: `NotFound` if that was nothing; `PermissionDenied`.
    pub async fn revoke(&self, target: &str) -> Result<Written> {
        let (service, collection) = self.place();
        let target_service = target.to_owned();
        self.client().write(v1::RevokeAccessRequest { attempt: None, service, collection, target_service }).await
    }

    /// A page of what services are allowed, in order of their names.
    ///
    /// Errors: `NotFound` for the collection; `PermissionDenied`.
    pub async fn grants(&self, page: PageRequest) -> Result<Page<Grant>> {
        let (service, collection) = self.place();
        let request = v1::ListGrantsRequest { read: None, service, collection, page: Some(page.into()) };
        self.client().read(request).await?.try_into()
    }

    /// All of it, as of one revision.
    ///
    /// Errors: as of [`grants`](Self::grants).
    pub async fn all_grants(&self) -> Result<Vec<Grant>> {
        pages::all(|page| self.grants(page)).await
    }
}
