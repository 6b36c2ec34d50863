//! Storage: a versioned memtable over an index, with plain checksummed files as the truth.

pub mod audit;
pub mod codec;
pub mod engine;
