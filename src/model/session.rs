//! How a client names an attempt, so that retries are safe.

/// The place of one attempt in a client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The session's id.
    pub session: u64,
    /// The call's number, the same for every attempt.
    pub sequence: u64,
    /// All calls below this have been answered.
    pub answered_below: u64,
    /// 1 for the first attempt.
    pub attempt: u32,
}
