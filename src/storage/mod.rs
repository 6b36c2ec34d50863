//! Storage: bytes by key, versioned by revision, for one writer and many readers.
//!
//! Truth on disk is two kinds of plain, checksummed, write-once files (and the log, which is not here): *runs*,
//! what one flush moved out of memory, and one *base*, everything up to a position. A pointer file, the manifest, names
//! them. sled is an index over them for random reads, which is trusted with nothing.
//!
//! ```text
//!  write ─► memtable ─freeze─► frozen tables ─flusher─► runs ─compactor─► base
//!                                   └───────merger────► index (sled)
//!  view(R) ◄─ memtables ≤ R, else the index, corrected by the undo of merges that R must not see
//! ```
//!
//! * The writer (apply) touches memory only. It freezes the memtable at a [`Checkpoint`] and goes on.
//! * The [flusher](flush) writes a frozen table as a run once the log is durable behind it; then the log
//!   may be purged up to there. The [`merger`] brings the index up to it. The [compactor](compact) joins files.
//!   All three are step functions.
//! * A [`View`] shows one revision and blocks nobody; see [`read`] for why it is right without locks.
//! * A [`Snapshot`] is a list of files, merged while it streams. Run, base, snapshot and backup are [one format](mod@file).
//! * At [start] the index is verified or rebuilt; damaged files are faults that name file and offset.
//!
//! Storage knows bytes, not records: what it must know of them (accounts, dropped scopes) it asks an
//! [`audit::Auditor`].

mod archive;
pub mod audit;
mod backup;
mod checkpoint;
pub mod codec;
mod compact;
mod disposable;
pub mod engine;
pub mod file;
mod files;
mod flush;
mod manifest;
mod memory;
pub mod memtable;
mod merge;
mod merger;
mod pace;
mod read;
mod receive;
mod reclaim;
mod replace;
mod shared;
mod sled;
mod snapshot;
mod start;
mod store;
mod tables;
mod undo;
mod view;
mod views;

pub use archive::{Archive, Pairs};
pub use backup::Backup;
pub use checkpoint::Checkpoint;
pub use files::holds_data;
pub use receive::{Incoming, ReceiveError, Received};
pub use replace::{Prepared, Replacement, set_aside};
pub use snapshot::{Snapshot, SnapshotReader};
pub use store::{EngineKind, NamedWorker, Options, Store, StoreStatus};
pub use view::{View, ViewError};
