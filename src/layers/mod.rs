//! Domain logic above the core: a layer turns one domain call into one transaction, and records back
//! into domain values.
//!
//! Layers are pure. A write is a function from arguments to a [`Write`]: in mesh storage nothing is read and nothing
//! waits, elsewhere it is decided on a [`View`](crate::state::View) and guarded by what it saw there. A read is a
//! function of a view, which shows one revision; who asks for one, how fresh it must be and on which node is decided
//! above, in `service` and `rpc`. No layer knows tonic, openraft or tokio.
//!
//! Log entries hold only what layers made of a call, never the call. So a layer may change its rules in
//! any release: old entries replay as they were decided.

mod check;
pub mod consensus_log;
pub mod documents;
pub mod json;
pub mod kv;
pub mod lease;
mod list;
pub mod lock;
pub mod mesh;
pub mod query;
mod scopes;
mod search;
pub mod topology;
pub mod transaction;
pub mod watch;

pub use list::page_limit;

use crate::{
    Error, Result,
    model::{
        Key, Outcome, Refusal,
        transaction::{Compare, Operation, Transaction},
    },
};

/// One domain call as one transaction, with what its outcome means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// What is to be done.
    pub transaction: Transaction,
    /// What was relied on when that was decided. If it no longer holds nothing is done, and the call is decided anew.
    pub guards: Vec<Compare>,
    /// What the outcome means.
    pub meaning: Meaning,
    /// What is attached to leases, which is to be noted with them before this is proposed ([`lease::noted`]).
    pub attached: lease::Attachments,
}

/// What the outcome of a transaction means to the caller who asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meaning {
    /// The error if a compare did not hold. `None`: none, the answer says so.
    unmet: Option<Error>,
    /// The error if a scope has no room for it.
    full: Option<Error>,
    /// Unique indexes of documents, by their scopes, with what they are called.
    taken: Vec<(u32, String)>,
}

impl Write {
    /// These operations, whatever is there.
    pub fn always(operations: Vec<Operation>) -> Self {
        Self { transaction: Transaction::blind(operations), ..Self::default() }
    }

    /// These operations if all compares hold; the answer says whether they did.
    pub fn compared(compares: Vec<Compare>, operations: Vec<Operation>) -> Self {
        let transaction = Transaction { compares, then: operations, otherwise: vec![] };
        Self { transaction, ..Self::default() }
    }

    /// These operations, decided on what `guards` say: if they no longer hold the call is decided anew.
    pub fn guarded(guards: Vec<Compare>, operations: Vec<Operation>) -> Self {
        Self { guards, ..Self::always(operations) }
    }

    /// These operations if the key has no record; otherwise nothing happens and the answer is `present`.
    pub fn if_missing(key: Key, operations: Vec<Operation>, present: Error) -> Self {
        let compares = vec![Compare::Exists { key, exists: false }];
        let transaction = Transaction { compares, then: operations, otherwise: vec![] };
        Self { transaction, meaning: Meaning::unmet(present), ..Self::default() }
    }

    /// These operations if the key has a record; otherwise nothing happens and the answer is `missing`.
    pub fn if_exists(key: Key, operations: Vec<Operation>, missing: Error) -> Self {
        let compares = vec![Compare::Exists { key, exists: true }];
        let transaction = Transaction { compares, then: operations, otherwise: vec![] };
        Self { transaction, meaning: Meaning::unmet(missing), ..Self::default() }
    }
}

impl Write {
    /// The same, which is answered by this if a scope has no room for it.
    #[must_use]
    pub fn if_full(mut self, full: Error) -> Self {
        self.meaning.full = Some(full);
        self
    }

    /// The same, whose records go with a lease; with 0 they stay. Errors: `InvalidArgument` if a value is too large for that.
    pub fn attached_to(mut self, lease: u64) -> Result<Self> {
        if lease == 0 {
            return Ok(self);
        }
        for operation in &mut self.transaction.then {
            if let Operation::Put { put, .. } = operation {
                let bytes = put.value.len();
                self.attached.attach(lease, ("value", bytes), put)?;
            }
        }
        Ok(self)
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The revision with the change in.
    pub revision: u64,
    /// Whether what was compared held.
    pub succeeded: bool,
}

impl Meaning {
    fn unmet(error: Error) -> Self {
        Self { unmet: Some(error), ..Self::default() }
    }

    fn refused(&self, refusal: &Refusal) -> Error {
        if let Refusal::UniqueTaken { scope, owner, .. } = refusal
            && let Some((_, label)) = self.taken.iter().find(|(taken, _)| taken == scope)
        {
            return documents::write::taken(&String::from_utf8_lossy(&owner.user_bytes()), label);
        }
        Error::Refused(refusal.to_string())
    }

    /// What became of the write. `session` is the one in which the call was made, if any.
    ///
    /// Errors: what the layer said for unmet compares; `Conflict`, `Refused` or `SessionExpired` as the
    /// store answered. None of them changed anything.
    pub fn of(self, outcome: Outcome, session: Option<u64>) -> Result<Decided> {
        match outcome {
            Outcome::Applied { revision, succeeded, .. } | Outcome::AppliedEarlier { revision, succeeded } => {
                match self.unmet {
                    Some(unmet) if !succeeded => Err(unmet),
                    _ => Ok(Decided { revision, succeeded }),
                }
            }
            Outcome::Raced => Err(Error::Conflict("what the change relied on".into())),
            Outcome::Refused { refusal: Refusal::ScopeFull(_), .. } if self.full.is_some() => {
                Err(self.full.unwrap_or_else(|| Error::Refused(String::new())))
            }
            Outcome::Refused { refusal, .. } => Err(self.refused(&refusal)),
            Outcome::SessionExpired => Err(Error::SessionExpired { session: session.unwrap_or_default() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ScopeId, outcome::Refusal};

    fn meaning(outcome: Outcome) -> Result<Decided> {
        let key = ScopeId::new(0x11, 0).key(b"k");
        let missing = Error::NotFound { kind: "state", name: "k".into() };
        Write::if_exists(key, vec![], missing).meaning.of(outcome, Some(7))
    }

    #[test]
    fn every_outcome_has_its_meaning() {
        let applied = |succeeded| Outcome::Applied { revision: 3, succeeded, results: vec![] };
        let missing = Error::NotFound { kind: "state", name: "k".into() };
        let done = Ok(Decided { revision: 3, succeeded: true });
        assert_eq!(meaning(applied(true)), done);
        assert_eq!(meaning(applied(false)), Err(missing.clone()));
        assert_eq!(meaning(Outcome::AppliedEarlier { revision: 3, succeeded: true }), done);
        assert_eq!(meaning(Outcome::AppliedEarlier { revision: 3, succeeded: false }), Err(missing));
        assert!(matches!(meaning(Outcome::Raced), Err(Error::Conflict(_))));
        let refused = Outcome::Refused { revision: 3, refusal: Refusal::Layer("no".into()) };
        assert_eq!(meaning(refused), Err(Error::Refused("no".into())));
        assert_eq!(meaning(Outcome::SessionExpired), Err(Error::SessionExpired { session: 7 }));
        assert_eq!(Write::always(vec![]).meaning.of(applied(true), None), done);
        let compared = Write::compared(vec![], vec![]).meaning;
        assert_eq!(compared.of(applied(false), None), Ok(Decided { revision: 3, succeeded: false }));
    }
}
