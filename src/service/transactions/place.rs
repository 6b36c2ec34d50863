//! Where a call is made: in a store, or in a transaction. To what makes the call both are a [`Core`].

use tokio::time::Instant;

use super::{Home, Inside, Transactions};
use crate::{
    Result,
    model::{Outcome, ReadMode, ReadStamp, ScopeId, lease::Fence, session::Attempt},
    node::Request,
    service::Core,
    state::{View, scope::Account},
};

/// Where a call is made.
pub enum Place<'a, H: Home> {
    /// In the store.
    Store(&'a H),
    /// In a transaction.
    Inside(Inside<'a, H>),
}

impl<'a, H: Home> Place<'a, H> {
    /// The store, or the transaction of this name. In it a call is alone until this is dropped.
    ///
    /// Errors: those of entering a transaction.
    pub async fn of(
        home: &'a H,
        transaction: Option<(&Transactions, &str)>,
        who: (&str, Option<&Fence>, Instant),
    ) -> Result<Self> {
        match transaction {
            None => Ok(Self::Store(home)),
            Some((transactions, id)) => Ok(Self::Inside(transactions.enter(home, id, who).await?)),
        }
    }
}

impl<H: Home> Core for Place<'_, H> {
    fn at_hand(&self) -> Result<View> {
        match self {
            Self::Store(home) => home.at_hand(),
            Self::Inside(inside) => inside.at_hand(),
        }
    }

    async fn read(&self, mode: ReadMode, revision: Option<u64>, deadline: Instant) -> Result<(View, ReadStamp)> {
        match self {
            Self::Store(home) => home.read(mode, revision, deadline).await,
            Self::Inside(inside) => inside.read(mode, revision, deadline).await,
        }
    }

    async fn propose(&self, request: Request, deadline: Instant) -> Result<Outcome> {
        match self {
            Self::Store(home) => home.propose(request, deadline).await,
            Self::Inside(inside) => inside.propose(request, deadline).await,
        }
    }

    async fn refuse(&self, principal: String, attempt: Attempt, reason: String, deadline: Instant) -> Result<Outcome> {
        match self {
            Self::Store(home) => home.refuse(principal, attempt, reason, deadline).await,
            Self::Inside(inside) => inside.refuse(principal, attempt, reason, deadline).await,
        }
    }

    fn accounts(&self, wanted: &[ScopeId]) -> (u64, Vec<Option<Account>>) {
        match self {
            Self::Store(home) => home.accounts(wanted),
            Self::Inside(inside) => inside.accounts(wanted),
        }
    }

    fn accounts_are_shown(&self) -> bool {
        matches!(self, Self::Store(_))
    }

    fn knows_leader(&self) -> bool {
        match self {
            Self::Store(home) => home.knows_leader(),
            Self::Inside(inside) => inside.knows_leader(),
        }
    }

    fn keep_for_pages(&self, view: &View) {
        match self {
            Self::Store(home) => home.keep_for_pages(view),
            Self::Inside(inside) => inside.keep_for_pages(view),
        }
    }

    async fn require(&self, level: u32, deadline: Instant) -> Result<()> {
        match self {
            Self::Store(home) => home.require(level, deadline).await,
            Self::Inside(inside) => inside.require(level, deadline).await,
        }
    }
}
