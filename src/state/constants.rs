//! What apply relies on, by apply version. Two replicas must never differ in one of these at one log
//! index, so a change is a new version, which only a log entry can switch on. `limits` is for the edge and
//! may change with any release; nothing here may import it.

/// The newest apply version that this program knows.
pub const APPLY_VERSION: u32 = 1;
/// Most records that one transaction deletes, cascades included.
pub const DELETES: usize = 4_096;
/// Most due records that one expiry transaction deletes.
pub const EXPIRIES: usize = 1_024;
/// An expiry that goes in parts looks for records that can go first at most this many steps down...
pub const PART_HOPS: usize = 64;
/// ...and looks at most at this many records there.
pub const PART_RECORDS: usize = 16 * DELETES;
/// An expiry of so few records is not weighed against [`REPLACED_BYTES`] before it happens.
pub const UNWEIGHED_RECORDS: usize = 16;
/// How long an expiry is put off that a `restrict` reference holds up, in milliseconds of log time.
pub const EXPIRY_PUT_OFF_MS: u64 = 60_000;
/// Up to this many keys `Unchanged` compares records; above, the whole scope must be unchanged.
pub const UNCHANGED_KEYS: u64 = 1_000;
/// Most records or keys that `Range` and `Referrers` answer.
pub const RANGE_RECORDS: usize = 1_000;
/// Bytes of records (as [`super::scope::answer_bytes`] counts them) after which `Range` answers no further one.
pub const RANGE_BYTES: usize = 1 << 20;
/// Most bytes of records and keys that one transaction answers, over all its operations.
pub const ANSWER_BYTES: usize = 8 << 20;
/// Most bytes of older records that one transaction replaces and deletes: they are in memory together.
pub const REPLACED_BYTES: usize = 64 << 20;
/// Most older versions that a scope keeps of each record.
pub const HISTORY: u32 = 64;
/// What a key costs a scope beside its own bytes and its value's.
pub const KEY_OVERHEAD_BYTES: u64 = 64;
/// Most sessions.
pub const SESSIONS: usize = 10_000;
/// Most outcomes that a session keeps.
pub const SESSION_OUTCOMES: usize = 1_024;
/// An outcome with more encoded bytes is kept as revision and branch only.
pub const OUTCOME_BYTES: usize = 4_096;
