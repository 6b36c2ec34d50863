//! Every bound that a node enforces on what it is sent, in one place, with their relations checked
//! by the compiler. What *apply* itself relies on is not here but in `state::constants`: a limit may
//! change with a release, apply may not.

/// Largest value of one record, in bytes.
pub const VALUE_BYTES: usize = 1 << 20;
/// Largest content of a message that comes in chunks, in bytes.
pub const LARGE_MESSAGE_BYTES: usize = 64 << 20;
/// Most chunks of one message.
pub const MESSAGE_CHUNKS: usize = 4_096;
/// Largest chunk of a message, in bytes.
pub const MESSAGE_CHUNK_BYTES: usize = VALUE_BYTES;
/// Most messages that one leader takes in chunks at once from clients, and as many that other nodes pass on.
pub const UPLOADS: usize = 4;
/// Chunks of one message that are on their way into the log at once.
pub const UPLOAD_CHUNKS: usize = 4;
/// Most uploads that are under way, or were broken off and are not forgotten yet, in the whole cluster.
pub const OPEN_UPLOADS: u64 = 64;
/// How long an upload may take, in milliseconds of log time: what is left of one whose node was killed goes then.
pub const UPLOAD_TTL_MS: u64 = 600_000;
/// The shortest age at which messages are deleted, in milliseconds.
pub const RETENTION_AGE_MIN_MS: u64 = 1_000;
/// Largest user part of a key (state key, config key, route destination), in bytes.
pub const KEY_BYTES: usize = 1024;
/// Largest id (message id, node id), in bytes.
pub const ID_BYTES: usize = 255;
/// Largest attributes of a value, and metadata of a namespace, in bytes of JSON.
pub const ATTRIBUTES_BYTES: usize = 64 << 10;
/// Most keys that one call reads.
pub const KEYS: usize = 1_000;
/// Most namespaces and other things that have a scope of their own: each takes memory on every node.
pub const SCOPES: u32 = 100_000;
/// Longest name of a field in a filter, a sort or an index, in bytes.
pub const FIELD_BYTES: usize = 512;
/// Longest JSON text of a filter, in bytes.
pub const FILTER_BYTES: usize = 256 << 10;
/// Deepest nesting of a filter.
pub const FILTER_DEPTH: usize = 16;
/// Most conditions of a filter, the lists that hold them counted in.
pub const FILTER_CONDITIONS: usize = 256;
/// Most items of a list that a field is compared with.
pub const FILTER_LIST: usize = 1_000;
/// Queries that a node answers at once; more wait for their turn.
pub const QUERIES: usize = 16;
/// Most fields by which a query sorts.
pub const SORT_FIELDS: usize = 8;
/// Most bytes of keys that a query puts in order in memory.
pub const SORT_BYTES: usize = 16 << 20;
/// Most indexes of a namespace.
pub const INDEXES: usize = 16;
/// Most fields of an index.
pub const INDEX_FIELDS: usize = 4;
/// Most ranges of an index that a query goes through.
pub const INDEX_RANGES: usize = 256;
/// Most entries of an index that a query picks values from; where more fit, it goes through the values.
pub const INDEX_PICKED: usize = 16_384;
/// Largest encoded transaction, in bytes.
pub const TRANSACTION_BYTES: usize = 4 << 20;
/// Most changes in one transaction of a client.
pub const CHANGES: usize = 1_024;
/// Most operations in one branch of a transaction from a layer.
pub const LAYER_OPERATIONS: usize = 20_000;
/// Most compares in one transaction.
pub const COMPARES: usize = 4_096;
/// Most proposals packed into one log entry.
pub const ENTRY_PROPOSALS: usize = 512;
/// Log entries are closed at this size, in bytes; one larger proposal makes an entry of its own.
pub const ENTRY_BYTES: usize = 1 << 20;
/// Most bytes of entries in one AppendEntries call.
pub const APPEND_BYTES: usize = 2 << 20;
/// Most bytes of entries in one AppendEntries call to a node that is so far behind that they are read from disk: the less,
/// the shorter is what writers wait for each.
pub const CATCH_UP_BYTES: usize = 256 << 10;
/// Most records that one transaction writes which a node keeps open.
pub const TRANSACTION_RECORDS: usize = 4 * CHANGES;
/// Most transactions that a node keeps open, and most of one principal.
pub const OPEN_TRANSACTIONS: usize = 1_024;
/// See [`OPEN_TRANSACTIONS`].
pub const OPEN_TRANSACTIONS_PER_PRINCIPAL: usize = 256;
/// Most bytes of what waits in all of them to be committed.
pub const OPEN_TRANSACTIONS_BYTES: usize = 256 << 20;
/// How long a transaction stays open that names no time, in milliseconds.
pub const TRANSACTION_TIMEOUT_DEFAULT_MS: u64 = 30_000;
/// The longest that one may ask for, in milliseconds.
pub const TRANSACTION_TIMEOUT_MAX_MS: u64 = 300_000;
/// Largest message that a peer decodes, in bytes.
pub const PEER_DECODE_BYTES: usize = 16 << 20;
/// Largest message that is decoded from a client, in bytes.
pub const CLIENT_DECODE_BYTES: usize = TRANSACTION_BYTES + (64 << 10);
/// Snapshot bytes per chunk on the wire.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// Most concurrent streams (calls) on one client connection.
pub const STREAMS_PER_CONNECTION: u32 = 100;
/// Most calls of one stream of calls that a node works on at once; more wait for their turn.
pub const MULTIPLEXED_CALLS: usize = 4_096;
/// Largest request that the client puts into a stream of calls, in bytes: a larger one would hold up the others.
pub const MULTIPLEXED_BYTES: usize = 64 << 10;
/// Most watches that a node serves at once.
pub const WATCHES: usize = 10_000;
/// Most watches on one client connection: other calls need streams of it, too.
pub const WATCHES_PER_CONNECTION: usize = 64;
/// The shortest and the longest time between two marks of progress of a watch, in milliseconds.
pub const WATCH_PROGRESS_MIN_MS: u64 = 50;
/// See [`WATCH_PROGRESS_MIN_MS`].
pub const WATCH_PROGRESS_MAX_MS: u64 = 60_000;
/// Time between two marks of progress if none is asked for, in milliseconds.
pub const WATCH_PROGRESS_DEFAULT_MS: u64 = 5_000;
/// Most calls of one principal that a node has under way at once, unless its configuration says otherwise.
pub const CALLS_PER_PRINCIPAL: usize = 10_000;
/// Answers are handed to a connection in pieces of so many bytes.
pub const PIECE_BYTES: usize = 32 << 10;
/// Most bytes of answers that were made and are not read before callers are refused.
pub const UNREAD_BYTES: usize = 256 << 20;
/// Most proposals that wait for a place in a log entry before callers are refused.
pub const QUEUED_PROPOSALS: usize = 16_384;
/// Most bytes of proposals that wait for a place in a log entry before callers are refused.
pub const QUEUED_BYTES: usize = 64 << 20;
/// Records on one page of a list, unless asked otherwise.
pub const PAGE_DEFAULT: usize = 100;
/// Most records on one page of a list.
pub const PAGE_MAX: usize = 1_000;
/// Bytes of values after which a page is closed early.
pub const PAGE_BYTES: usize = 1 << 20;
/// Longest page cursor, in bytes of its text.
pub const CURSOR_BYTES: usize = 8_192;
/// Longest deadline that a call may ask for, in milliseconds.
pub const DEADLINE_MAX_MS: u64 = 300_000;
/// Deadline of a call that names none, in milliseconds.
pub const DEADLINE_DEFAULT_MS: u64 = 10_000;
/// Shortest and longest life of an idle session, in milliseconds.
pub const SESSION_TTL_MIN_MS: u64 = 1_000;
/// See [`SESSION_TTL_MIN_MS`].
pub const SESSION_TTL_MAX_MS: u64 = 86_400_000;
/// Shortest and longest life of a lease that is not kept alive, in milliseconds of log time.
pub const LEASE_TTL_MIN_MS: u64 = 1_000;
/// See [`LEASE_TTL_MIN_MS`].
pub const LEASE_TTL_MAX_MS: u64 = 2_592_000_000;
/// Most leases that one call keeps alive.
pub const LEASES: usize = 1_000;
/// Most keys that are attached to one lease: they go in one transaction.
pub const LEASE_KEYS: usize = 400;
/// Largest value that is attached to a lease, in bytes.
pub const LEASED_VALUE_BYTES: usize = 56 << 10;

const _: () = assert!(VALUE_BYTES < TRANSACTION_BYTES);
const _: () = assert!(LARGE_MESSAGE_BYTES <= MESSAGE_CHUNKS * MESSAGE_CHUNK_BYTES);
const _: () = assert!(UPLOADS * UPLOAD_CHUNKS * MESSAGE_CHUNK_BYTES * 2 <= QUEUED_BYTES);
// No call outlives what it has uploaded.
const _: () = assert!(UPLOAD_TTL_MS >= 2 * DEADLINE_MAX_MS);
const _: () = assert!(CHANGES <= LAYER_OPERATIONS);
const _: () = assert!(TRANSACTION_RECORDS <= LAYER_OPERATIONS);
const _: () = assert!(TRANSACTION_BYTES <= OPEN_TRANSACTIONS_BYTES);
const _: () = assert!(TRANSACTION_TIMEOUT_DEFAULT_MS <= TRANSACTION_TIMEOUT_MAX_MS);
const _: () = assert!(TRANSACTION_BYTES * 2 <= PEER_DECODE_BYTES);
const _: () = assert!(APPEND_BYTES + TRANSACTION_BYTES <= PEER_DECODE_BYTES);
const _: () = assert!(ENTRY_BYTES <= APPEND_BYTES);
const _: () = assert!(CATCH_UP_BYTES <= APPEND_BYTES);
const _: () = assert!(WATCHES_PER_CONNECTION < STREAMS_PER_CONNECTION as usize);
// A message of a watch is closed at this size; the change that crosses it has a value and the one before, each with attributes.
const _: () = assert!(PAGE_BYTES + 2 * (VALUE_BYTES + ATTRIBUTES_BYTES + 4 * KEY_BYTES) <= CLIENT_DECODE_BYTES);
const _: () = assert!(PAGE_DEFAULT <= PAGE_MAX);
const _: () = assert!(KEY_BYTES * 2 < CURSOR_BYTES);
