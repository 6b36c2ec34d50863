//! Feature levels: what programs of different versions can read of each other's data (`node::members::features`).

/// What each level brought. The first is what every program knows, also one that says nothing of levels.
pub const LEVELS: &[(u32, &str)] = &[
    (1, "everything before"),
    (LARGE_MESSAGES, "large messages and retention"),
    (STORAGE, "the storage contract"),
    (VALUE_INDEXES, "indexes on values"),
    (LEASES, "leases and locks"),
    (TRANSACTIONS, "transactions that the leader keeps"),
    (DOCUMENTS, "collections of documents"),
];
/// Messages whose content is an upload, and rules of how long messages are kept.
pub const LARGE_MESSAGES: u32 = 2;
/// Scopes that are created and dropped, and keep older versions: namespaces.
pub const STORAGE: u32 = 3;
/// Namespaces with indexes.
pub const VALUE_INDEXES: u32 = 4;
/// Leases, and locks on them.
pub const LEASES: u32 = 5;
/// Calls that name a transaction, which an older program would answer as if they did not.
pub const TRANSACTIONS: u32 = 6;
/// Collections of documents, their indexes and grants.
pub const DOCUMENTS: u32 = 7;
/// The highest level that this program knows.
pub const LEVEL: u32 = DOCUMENTS;

/// What a level brought, as people call it.
pub fn brought(level: u32) -> &'static str {
    LEVELS.iter().find(|(number, _)| *number == level).map_or("what is newer", |(_, brought)| brought)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_says_what_it_brought() {
        let numbers: Vec<u32> = LEVELS.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (1..=LEVEL).collect::<Vec<_>>());
        assert_eq!(brought(LARGE_MESSAGES), "large messages and retention");
    }
}
