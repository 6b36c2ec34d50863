//! Work that goes through many records of itself, a step at a time, while a node leads: what it sees, and what it wants
//! next. What is left to do is said by the state; what a sweep keeps in memory is only where it was.

use super::{View, scope::Account};
use crate::{
    error::Result,
    model::{
        ScopeId,
        transaction::{Compare, Transaction},
    },
};

/// What a step sees.
pub struct Sight<'a> {
    /// Opens a view of the newest revision. One that is kept for later steps costs memory, and may be ended.
    pub view: &'a dyn Fn() -> Result<View>,
    /// The time by which records are stamped, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Count, bytes and last change of a scope, at the revision of a view that was opened before, or a later one.
    pub account: &'a dyn Fn(ScopeId) -> Account,
}

/// What a step wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This, if what it relies on still holds; then the next step.
    Propose(Vec<Compare>, Transaction),
    /// The next step, soon.
    Next,
    /// Nothing for so long, in milliseconds.
    Rest(u64),
}

/// Work of many steps. A step reads a bounded part of the state.
pub trait Sweep: Send {
    /// The next step. An error ends the sweep where it is; it begins anew.
    fn step(&mut self, sight: &Sight<'_>) -> Result<Step>;
    /// Begins anew: what was wanted was not done, or others have led meanwhile.
    fn begin_anew(&mut self);
}
