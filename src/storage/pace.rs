//! The pace of background work: a steady share of a processor instead of bursts.
//!
//! All nodes of a cluster flush at about the same position, so what follows a flush would take the processors from
//! everybody's callers at once. Whoever works in steps rests after each of them, for as long as nobody waits for the
//! result.

use std::time::Duration;

use crate::environment::{Clock, Step};

/// Rest after a step, in times of what the step took: a quarter of a processor remains.
const REST: u32 = 3;

/// Measures one step.
pub(super) struct Pace(Duration);

impl Pace {
    /// A step begins.
    pub(super) fn begin(clock: &dyn Clock) -> Self {
        Self(clock.monotonic())
    }

    /// The step is done: when to take the next.
    pub(super) fn next(&self, clock: &dyn Clock, hurry: bool) -> Step {
        let rest = clock.monotonic().saturating_sub(self.0).saturating_mul(REST);
        if hurry || rest.is_zero() { Step::Again } else { Step::WaitFor(rest) }
    }
}
