//! The calls of the contract, made to a store in this process.

use std::{
    ops::Deref,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    Error, Result,
    contract::{
        BeginTransactionOptions, Begun, ClearOptions, CountOptions, CreateNamespaceOptions, DeleteManyOptions,
        DeleteNamespaceOptions, DeleteOptions, DeleteResult, Deletion, Entry, Filter, GetManyOptions,
        GetMetadataOptions, GetOptions, HasOptions, HistoryOptions, ListOptions, Metadata, Namespace, NamespaceChange,
        Page, PageRequest, Properties, QueryOptions, RestoreOptions, Saved, SetEntry, SetManyOptions,
        SetMetadataOptions, SetOptions, SetResult, Storage, StorageStatus, Value, Version, async_trait,
    },
    error::Fault,
    layers::kv::{namespace, query, read},
    limits,
    model::{Principal, ReadMode, query::Found},
    service::{
        Caller, Core, storage as service,
        transactions::{Home, Options, Place, Transactions},
    },
    state::{View, view::Source},
};

/// A store in this process: what the calls of the contract need of it. Whatever is one is a [`Storage`].
pub trait Backend: Send + Sync + 'static {
    /// The store.
    type Core: Home;
    /// A handle that keeps it, for what goes on when its caller has gone.
    type Handle: Deref<Target = Self::Core> + Send + Sync + 'static;

    /// The store.
    fn core(&self) -> &Self::Core;
    /// The same, to keep.
    fn handle(&self) -> Self::Handle;
    /// The transactions that are open in it.
    fn transactions(&self) -> &Transactions;
    /// As whom its values are written.
    fn principal(&self) -> &Principal;
    /// Whether what was acknowledged outlives the process.
    fn is_durable(&self) -> bool;
}

/// How long a commit waits for the disk, whoever waits for it.
const COMMIT: Duration = Duration::from_secs(3_600);

/// Until when an answer is of use.
fn deadline() -> Instant {
    Instant::now() + Duration::from_millis(limits::DEADLINE_DEFAULT_MS)
}

/// Who asks for a change. Nothing gets lost on the way here, so there is no session.
fn caller(backend: &impl Backend) -> Caller {
    Caller { principal: backend.principal().to_string(), attempt: None, deadline: deadline(), fence: None }
}

/// Where a call is made.
async fn place<'a, B: Backend>(backend: &'a B, transaction: Option<&str>) -> Result<Place<'a, B::Core>> {
    let transaction = transaction.map(|id| (backend.transactions(), id));
    Place::of(backend.core(), transaction, (&backend.principal().to_string(), None, deadline())).await
}

/// The newest state.
fn newest() -> service::Freshness {
    (ReadMode::Linearizable, None, deadline())
}

/// Reads of the newest state, or of one revision, which is kept readable then.
async fn look<T>(core: &impl Core, revision: Option<u64>, read: impl FnOnce(&View) -> Result<T> + Send) -> Result<T> {
    let (view, _) = core.read(ReadMode::Linearizable, revision, deadline()).await?;
    if revision.is_some() {
        core.keep_for_pages(&view);
    }
    read(&view)
}

/// Reads a page, and keeps its revision readable if there is a next one, or if that is asked for.
async fn page<T>(
    core: &impl Core,
    (revision, keep): (Option<u64>, bool),
    read: impl FnOnce(&View) -> Result<Page<T>> + Send,
) -> Result<Page<T>> {
    let (view, _) = core.read(ReadMode::Linearizable, revision, deadline()).await?;
    let page = read(&view)?;
    if keep || !page.next_cursor.is_empty() {
        core.keep_for_pages(&view);
    }
    Ok(page)
}

/// Searches that run at once in this process.
static SEARCHES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(limits::QUERIES)));

/// A view that answers no reads behind a deadline.
struct Until {
    view: View,
    deadline: Instant,
}

impl Source for Until {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Source::get(&self.view, key)
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.check()?;
        Source::range(&self.view, start, end, limit)
    }

    fn fault(&self, fault: Fault) -> Error {
        self.view.fault(fault)
    }

    fn check(&self) -> Result<()> {
        if Instant::now() < self.deadline {
            return View::check(&self.view);
        }
        Err(late("what the call asks for to be found: narrow it"))
    }

    fn committed(&self) -> Option<Arc<dyn Source>> {
        Source::committed(&self.view)
    }
}

fn late(waiting_for: &str) -> Error {
    let (deadline_ms, waiting_for) = (limits::DEADLINE_DEFAULT_MS, waiting_for.into());
    Error::DeadlineExceeded { deadline_ms, waiting_for, may_have_applied: false }
}

/// Searches on a thread of its own, since that may go through many values; until the deadline at the latest, also if nobody
/// waits for it any more.
async fn apart<T: Send + 'static>(view: View, search: impl FnOnce(&View) -> Result<T> + Send + 'static) -> Result<T> {
    let deadline = deadline();
    let turn = tokio::time::timeout_at(deadline, Arc::clone(&SEARCHES).acquire_owned()).await;
    let turn = turn.map_err(|_| late("other searches to end"))?;
    let searching = move || {
        let _turn = turn;
        search(&View::new(view.revision(), Box::new(Until { view, deadline })))
    };
    let found = tokio::task::spawn_blocking(searching).await;
    found.map_err(|error| Error::Unexpected(format!("a search panicked: {error}")))?
}

#[async_trait]
impl<B: Backend> Storage for B {
    fn properties(&self) -> Properties {
        let is_durable = self.is_durable();
        Properties { supports_transactions: true, supports_query: true, supports_metadata: true, is_durable }
    }

    async fn get(&self, key: &str, options: GetOptions) -> Result<Entry> {
        let GetOptions { namespace, include_metadata, as_of_revision, transaction } = options;
        let place = place(self, transaction.as_deref()).await?;
        look(&place, None, |view| read::get(view, &namespace, key, (include_metadata, as_of_revision))).await
    }

    async fn set(&self, key: &str, value: Value, options: SetOptions) -> Result<Saved> {
        let place = place(self, options.transaction.as_deref()).await?;
        let (namespace, set) = options.set(key, value);
        let (revision, results) = service::set(&place, caller(self), &namespace, (vec![set], false)).await?;
        Ok(Saved { revision, version: results.first().map_or(0, |result| result.version) })
    }

    async fn delete(&self, key: &str, options: DeleteOptions) -> Result<bool> {
        let DeleteOptions { namespace, condition, transaction } = options;
        let place = place(self, transaction.as_deref()).await?;
        let what = (vec![Deletion { key: key.to_owned(), condition }], false);
        let (_, results) = service::delete(&place, caller(self), &namespace, what).await?;
        Ok(results.first().is_some_and(|result| result.deleted))
    }

    async fn has(&self, key: &str, options: HasOptions) -> Result<bool> {
        let place = place(self, options.transaction.as_deref()).await?;
        look(&place, None, |view| read::has(view, &options.namespace, key)).await
    }

    async fn get_many(&self, keys: Vec<String>, options: GetManyOptions) -> Result<(Vec<Entry>, Vec<String>)> {
        let GetManyOptions { namespace, include_metadata, revision, transaction } = options;
        let place = place(self, transaction.as_deref()).await?;
        look(&place, revision, |view| read::get_many(view, &namespace, keys, include_metadata)).await
    }

    async fn set_many(&self, entries: Vec<SetEntry>, options: SetManyOptions) -> Result<Vec<SetResult>> {
        let place = place(self, options.transaction.as_deref()).await?;
        let what = (options.sets(entries), options.per_key);
        Ok(service::set(&place, caller(self), &options.namespace, what).await?.1)
    }

    async fn delete_many(&self, deletions: Vec<Deletion>, options: DeleteManyOptions) -> Result<Vec<DeleteResult>> {
        let place = place(self, options.transaction.as_deref()).await?;
        Ok(service::delete(&place, caller(self), &options.namespace, (deletions, options.per_key)).await?.1)
    }

    async fn list(&self, options: ListOptions) -> Result<Page<String>> {
        let place = place(self, options.transaction.as_deref()).await?;
        let (namespace, filter, keep) = options.filter();
        let list = read::list(&namespace, &filter)?;
        page(&place, (list.revision(), keep), |view| list.read(view)).await
    }

    async fn query(&self, filter: Filter, options: QueryOptions) -> Result<Page<Entry>> {
        filter.check()?;
        let place = place(self, options.transaction.as_deref()).await?;
        let (namespace, query) = options.query(filter);
        let search = query::search(&namespace, &query)?;
        let (view, stamp) = place.read(ReadMode::Linearizable, search.revision(), deadline()).await?;
        let Found { entries: items, next_cursor, .. } = apart(view.clone(), move |view| search.read(view)).await?;
        if !next_cursor.is_empty() {
            place.keep_for_pages(&view);
        }
        Ok(Page { items, next_cursor, revision: stamp.revision })
    }

    async fn count(&self, options: CountOptions) -> Result<u64> {
        let CountOptions { namespace, filter, transaction } = options;
        let place = place(self, transaction.as_deref()).await?;
        let Some(filter) = filter.filter(|filter| !filter.is_empty()) else {
            return Ok(service::count(&place, &namespace, newest()).await?.0);
        };
        filter.check()?;
        let (view, _) = place.read(ReadMode::Linearizable, None, deadline()).await?;
        apart(view, move |view| query::count(view, &namespace, &filter)).await
    }

    async fn create_namespace(&self, name: &str, options: CreateNamespaceOptions) -> Result<u64> {
        let CreateNamespaceOptions { metadata, settings, transaction } = options;
        let (metadata, place) = (metadata.unwrap_or_default(), place(self, transaction.as_deref()).await?);
        service::create_namespace(&place, caller(self), (name, &metadata), settings).await
    }

    async fn modify_namespace(&self, name: &str, change: NamespaceChange) -> Result<u64> {
        service::modify_namespace(self.core(), caller(self), name, change).await
    }

    async fn delete_namespace(&self, name: &str, options: DeleteNamespaceOptions) -> Result<u64> {
        service::delete_namespace(self.core(), caller(self), name, options.recursive).await
    }

    async fn show_namespace(&self, name: &str) -> Result<Namespace> {
        Ok(service::show_namespace(self.core(), name, newest()).await?.0)
    }

    async fn list_namespaces(&self, asked: PageRequest) -> Result<Page<Namespace>> {
        let list = namespace::list(&asked)?;
        let Page { items, next_cursor, revision } =
            page(self.core(), (list.revision(), false), |view| list.read(view)).await?;
        Ok(Page { items: service::measured(self.core(), items), next_cursor, revision })
    }

    async fn get_metadata(&self, key: &str, options: GetMetadataOptions) -> Result<Metadata> {
        let place = place(self, options.transaction.as_deref()).await?;
        look(&place, None, |view| read::metadata(view, &options.namespace, key)).await
    }

    async fn set_metadata(&self, key: &str, metadata: &str, options: SetMetadataOptions) -> Result<u64> {
        let SetMetadataOptions { namespace, merge, if_attributes_revision, transaction } = options;
        let (how, place) = ((merge, if_attributes_revision), place(self, transaction.as_deref()).await?);
        service::set_attributes(&place, caller(self), (&namespace, key), metadata, how).await
    }

    async fn history(&self, key: &str, options: HistoryOptions) -> Result<Vec<Version>> {
        let place = place(self, options.transaction.as_deref()).await?;
        look(&place, None, |view| {
            let (mut versions, mut before) = (Vec::new(), None);
            loop {
                let (mut part, more) = read::history(view, &options.namespace, key, before)?;
                versions.append(&mut part);
                match more {
                    Some(revision) => before = Some(revision),
                    None => return Ok(versions),
                }
            }
        })
        .await
    }

    async fn restore(&self, key: &str, as_of_revision: u64, options: RestoreOptions) -> Result<Saved> {
        let place = place(self, options.transaction.as_deref()).await?;
        let what = (options.namespace.as_str(), key);
        let when = (as_of_revision, options.condition);
        let (revision, version) = service::restore(&place, caller(self), what, when).await?;
        Ok(Saved { revision, version })
    }

    async fn clear(&self, options: ClearOptions) -> Result<u64> {
        service::clear(self.core(), caller(self), options.namespace.as_deref()).await
    }

    async fn get_status(&self) -> Result<StorageStatus> {
        Ok(service::status(self.core(), newest()).await?.0)
    }

    async fn begin_transaction(&self, options: BeginTransactionOptions) -> Result<Begun> {
        let BeginTransactionOptions { isolation, timeout } = options;
        let timeout_ms = timeout.map_or(0, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1));
        let (principal, options) = (self.principal().to_string(), Options { isolation, timeout_ms });
        let begun = self.transactions().begin(self.core(), &principal, options, deadline()).await?;
        // What is left open is ended, though nobody calls any more.
        if let Some(sweeping) = self.transactions().sweeping(self.core().leads()) {
            tokio::spawn(sweeping);
        }
        Ok(begun)
    }

    async fn commit(&self, transaction: &str) -> Result<u64> {
        // It comes to its end though its caller has gone: there is no session in which its outcome could be asked for later.
        let (transactions, handle, id) = (self.transactions().clone(), self.handle(), transaction.to_owned());
        let caller = Caller { deadline: Instant::now() + COMMIT, ..caller(self) };
        let committing = tokio::spawn(async move { transactions.commit(&*handle, caller, &id).await });
        match tokio::time::timeout_at(deadline(), committing).await {
            Ok(ended) => ended.map_err(|error| Error::Unexpected(format!("a commit panicked: {error}")))?,
            Err(_) => Err(Error::DeadlineExceeded {
                deadline_ms: limits::DEADLINE_DEFAULT_MS,
                waiting_for: "the commit to be on disk; what became of it is told to who commits it again".into(),
                may_have_applied: true,
            }),
        }
    }

    async fn rollback(&self, transaction: &str) -> Result<()> {
        self.transactions().rollback(self.core(), caller(self), transaction).await
    }
}
