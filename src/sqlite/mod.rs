//! One SQLite file as a backend.
//!
//! The file holds the pairs of the core, as a cluster's storage would ([`backends`](crate::backends) says why that gives the
//! same answers), and the state beside them. Its tables are this store's own format and no interface: what is in them is
//! sealed and checksummed by `storage::codec`, and is to be read through the store.
//!
//! * **One transaction of SQLite a batch**: pairs, state and what is to be freed are committed together, with
//!   `synchronous = FULL` in a write-ahead log. What was answered is on the disk; a process that is killed, or a machine that loses its
//!   power, leaves the last commit.
//! * **A view is a read transaction** on a connection of its own, so it shows one revision however much is written beside it.
//! * **One process at a time**: the lock is on `FILE-lock`, and not on the file, whose own locks the operating system would
//!   drop with any descriptor of it that is closed. Beside the file lie, while it is open, `FILE-wal` and `FILE-shm`, which belong
//!   to it.
//! * **What belongs to others is left alone**: a file is this store's by its application id, and one that is not is not written.
//! * **What is full is refused**: if the disk is, the transaction is taken back and the store goes on. Anything else that goes
//!   wrong below ends it.

mod file;
mod keeper;
mod readers;

use std::{path::Path, sync::Arc};

use crate::{
    backends::{
        calls::Backend,
        local::{self, Handle, Local},
    },
    environment::Environment,
    error::Fault,
    model::Principal,
    service::transactions::Transactions,
};

/// Values in one SQLite file. Cheap to clone; all clones are one store, which is closed when the last goes, or at
/// [`close`](Self::close).
///
/// ```no_run
/// use std::sync::Arc;
///
/// use meshstore::{
///     Sqlite,
///     contract::{Storage, Value},
/// };
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let storage: Arc<dyn Storage> = Arc::new(Sqlite::open("notes.db".as_ref())?);
/// storage.set("greeting", Value::json("hello")?, "notes".into()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sqlite {
    /// First: what they keep open goes before the store.
    transactions: Transactions,
    handle: Handle,
    principal: Principal,
}

impl Sqlite {
    /// Opens a file, which is made if there is none.
    ///
    /// Errors: another process or handle has it open; it is another kind of file, damaged, or of a newer program; it cannot be
    /// read or written.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let environment = Environment::real();
        let file::Opened { place, connection, meta } = file::open(&environment, path)?;
        let place = Arc::new(place);
        let keeper = keeper::File::new(Arc::clone(&place), connection, meta.revision);
        let handle = local::start(&environment, keeper, readers::Readers::new(place), meta)?;
        Ok(Self { handle, principal: Principal::Anonymous, transactions: Transactions::default() })
    }

    /// The same store, whose values are written as somebody.
    #[must_use]
    pub fn with_principal(self, principal: Principal) -> Self {
        Self { principal, ..self }
    }

    /// Finishes what is in flight and lets go of the file. Calls that come later are told so. May wait for the disk.
    pub fn close(&self) {
        // What they keep open goes first, so that the file is left in order; then those that began meanwhile.
        self.transactions.end_all();
        self.handle.close();
        self.transactions.end_all();
    }
}

impl Backend for Sqlite {
    type Core = Local;
    type Handle = Handle;

    fn core(&self) -> &Local {
        &self.handle
    }

    fn handle(&self) -> Handle {
        self.handle.clone()
    }

    fn transactions(&self) -> &Transactions {
        &self.transactions
    }

    fn principal(&self) -> &Principal {
        &self.principal
    }

    fn is_durable(&self) -> bool {
        true
    }
}
