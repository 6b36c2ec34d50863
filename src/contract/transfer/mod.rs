//! A namespace into a file of JSON lines, out of one, or from one backend to another.
//!
//! ```text
//! {"meshstore_export":1,"namespace":"users","revision":42}            what this is, and of which revision
//! {"key":"logo","bytes":"iVBORw0KGgo="}                                bytes, in base64
//! {"key":"user:1","value":{"name": "Ada"},"metadata":{"source":"x"}}   JSON, exactly as it is stored
//! {"key":"user:2","json":"{\n  \"name\": \"Alan\"\n}"}                 the same, of a text that has line breaks
//! {"end":true,"values":3}                                              so a file that was cut off is noticed
//! ```
//!
//! An export is of one revision. An import reads the whole file before it writes anything, so what is wrong in it is said with
//! its line, and nothing has changed. It writes in batches, each at one revision. If it is broken off it can simply be run
//! again: what it has written it writes to the same effect once more, or skips. A file that people write needs no first and
//! last line.
//!
//! **What goes along**: values and the attributes that callers gave them. Times, versions and older versions are the store's
//! own, and begin anew.

mod export;
mod import;
mod line;

use std::io;

pub use self::{
    export::{Exported, export},
    import::{IfExists, Imported, copy, import},
};
use crate::Error;

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Values that are done.
    pub done: u64,
    /// How many there are, about.
    pub of: u64,
}

/// Is told how far it is.
pub type OnProgress<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// Why an export or import did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A line of the file is not what it should be. Nothing was written.
    #[error("line {number}: {what}")]
    Line {
        /// Its number, from 1.
        number: u64,
        /// What is wrong.
        what: String,
    },
    /// The store refused a value. What stood in the batches before it was written.
    #[error("line {number} (key {key}): {error}; {written} values were written before")]
    Value {
        /// The number of its line, or which value it is, from 1.
        number: u64,
        /// Its key.
        key: String,
        /// What the store answered.
        error: String,
        /// How many values were written.
        written: u64,
    },
    /// The store's answer.
    #[error(transparent)]
    Answer(#[from] Error),
    /// The file cannot be read or written.
    #[error("the file: {0}")]
    File(#[from] io::Error),
}
