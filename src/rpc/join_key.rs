//! Join keys of meshes: only their argon2id hashes are kept.

use std::sync::Arc;

use argon2::{
    Argon2, PasswordHash,
    password_hash::{PasswordHasher, PasswordVerifier},
};
use tokio::{sync::Semaphore, time::Instant};

use super::turn_of;
use crate::{
    error::{Error, Result},
    node::Node,
};

/// Longest join key, in bytes.
const KEY_BYTES: usize = 1_024;
/// Most hashes that are made at once: each takes a core for some ten milliseconds, and 19 MiB.
const AT_ONCE: usize = 2;

/// What hashes join keys, a few at a time.
#[derive(Debug)]
pub(super) struct JoinKeys {
    turns: Arc<Semaphore>,
}

impl JoinKeys {
    pub(super) fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The hash of a key, with a salt of its own. Errors: `InvalidArgument`; `DeadlineExceeded`.
    pub(super) async fn hash(&self, node: &Node, deadline: Instant, key: String) -> Result<String> {
        check_length(&key)?;
        let (_, salt) = node.id_parts();
        let hashed = self.work(node, deadline, move || {
            let hash: std::result::Result<PasswordHash, _> =
                Argon2::default().hash_password_with_salt(key.as_bytes(), &salt.to_be_bytes());
            hash.map(|hash| hash.to_string())
        });
        hashed.await?.map_err(|error| Error::Unexpected(format!("the join key cannot be hashed: {error}")))
    }

    /// Whether a key is the one of a hash. Errors: `PermissionDenied`; `DeadlineExceeded`.
    pub(super) async fn verify(&self, node: &Node, deadline: Instant, key: String, hash: String) -> Result<()> {
        if key.is_empty() {
            return Err(Error::PermissionDenied("joining this mesh requires a join key".into()));
        }
        check_length(&key)?;
        let is_it = self.work(node, deadline, move || {
            PasswordHash::new(&hash).is_ok_and(|hash| Argon2::default().verify_password(key.as_bytes(), &hash).is_ok())
        });
        match is_it.await? {
            true => Ok(()),
            false => Err(Error::PermissionDenied("the join key is not that of the mesh".into())),
        }
    }

    /// Does this on a thread of its own, when it is its turn.
    async fn work<T: Send + 'static>(
        &self,
        node: &Node,
        deadline: Instant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let turn = turn_of(&self.turns, deadline, "other join keys to be checked on this node").await?;
        // Also if nobody waits for it any more: the thread is what there may be so many of.
        let working = move || {
            let _turn = turn;
            work()
        };
        node.run_blocking("join-key", working).await
    }
}

fn check_length(key: &str) -> Result<()> {
    if key.len() <= KEY_BYTES {
        return Ok(());
    }
    Err(Error::invalid("join_key", "", format!("must be at most {KEY_BYTES} bytes long")))
}
