//! Deliberate bugs, by which the tests prove that they would find one.
//!
//! Compiled only with the feature `sabotage`, which no release has; then `MESHSTORE_SABOTAGE` names the bug. Without
//! the feature [`on`] is `false` for the compiler, too. `scripts/sabotage` shows that each is caught.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A linearizable read is answered from what is here, whatever that is.
    StaleRead,
    /// A leader does not ask a quorum whether it still leads.
    NoReadIndex,
    /// The log says that entries are durable before it has written them.
    AckBeforeSync,
    /// The log says that a vote is durable before it has written it.
    VoteNotSynced,
    /// Some entries are applied twice.
    ApplyTwice,
    /// Repeated attempts are executed again.
    SessionSkipped,
    /// The log is purged up to what is applied, not to what is flushed.
    PurgeEarly,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::StaleRead,
        Self::NoReadIndex,
        Self::AckBeforeSync,
        Self::VoteNotSynced,
        Self::ApplyTwice,
        Self::SessionSkipped,
        Self::PurgeEarly,
    ];

    /// Its name in `MESHSTORE_SABOTAGE`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StaleRead => "stale-read",
            Self::NoReadIndex => "no-read-index",
            Self::AckBeforeSync => "ack-before-sync",
            Self::VoteNotSynced => "vote-not-synced",
            Self::ApplyTwice => "apply-twice",
            Self::SessionSkipped => "session-skipped",
            Self::PurgeEarly => "purge-early",
        }
    }
}

/// Whether this process has the bug.
#[cfg(feature = "sabotage")]
pub fn on(sabotage: Sabotage) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Sabotage>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("MESHSTORE_SABOTAGE").ok()?;
        Sabotage::ALL.into_iter().find(|sabotage| sabotage.name() == name)
    }) == Some(sabotage)
}

/// Whether this process has the bug: it has none.
#[cfg(not(feature = "sabotage"))]
pub const fn on(_: Sabotage) -> bool {
    false
}
