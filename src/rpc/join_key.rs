//! Join keys of meshes: only their argon2id hashes are kept.

use argon2::{
    Argon2, PasswordHash,
    password_hash::{PasswordHasher, PasswordVerifier},
};

use crate::{
    error::{Error, Result},
    node::Node,
};

/// Longest join key, in bytes.
const KEY_BYTES: usize = 1_024;

/// The hash of a key, with a salt of its own. Errors: `InvalidArgument`.
pub(super) async fn hash(node: &Node, key: String) -> Result<String> {
    if key.len() > KEY_BYTES {
        return Err(Error::invalid("join_key", "", format!("must be at most {KEY_BYTES} bytes long")));
    }
    let (_, salt) = node.id_parts();
    let hashed = node
        .run_blocking("hash-join-key", move || {
            let hash: std::result::Result<PasswordHash, _> =
                Argon2::default().hash_password_with_salt(key.as_bytes(), &salt.to_be_bytes());
            hash.map(|hash| hash.to_string())
        })
        .await?;
    hashed.map_err(|error| Error::Unexpected(format!("the join key cannot be hashed: {error}")))
}

/// Whether a key is the one of a hash. Errors: `PermissionDenied`.
pub(super) async fn verify(node: &Node, key: String, hash: String) -> Result<()> {
    if key.is_empty() {
        return Err(Error::PermissionDenied("joining this mesh requires a join key".into()));
    }
    let checked = node.run_blocking("check-join-key", move || {
        let hash = PasswordHash::new(&hash)?;
        Argon2::default().verify_password(key.as_bytes(), &hash).map_err(Into::into)
    });
    let checked: std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> = checked.await?;
    checked.map_err(|_| Error::PermissionDenied("the join key is not that of the mesh".into()))
}
