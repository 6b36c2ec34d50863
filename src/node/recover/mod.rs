//! When a quorum is lost for good, or a node must come back as another: what is done to data directories whose nodes do
//! not run.
//!
//! [`survey`] compares what survived and changes nothing. [`apply`] makes of one survivor the first node of a new cluster.
//! Putting a directory aside is [`Held::set_aside`](super::identity::Held::set_aside).

mod epoch;
mod survey;

pub use epoch::{NewEpoch, apply};
pub use survey::{Survey, Survivor, survey};
