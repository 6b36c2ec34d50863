//! What stands behind the peer service of a node that belongs to no cluster yet: nothing. It says who it is and
//! lets itself be adopted; whoever wants more is told to come again.

use std::future::ready;

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use openraft::errors::Fatal;

use super::{Consensus, SnapshotReceiver, SnapshotSink};
use crate::{
    error::Fault,
    raft::{
        types::{TypeConfig, Vote},
        wire::{Append, Appended, Ballot, Balloted, Installed, SnapshotHead, SnapshotMeta, Transfer, Transferred},
    },
};

/// No Raft yet.
pub struct Unformed;

impl Consensus for Unformed {
    type Receiver = Self;

    async fn append(&self, _: Append) -> Result<Appended, Fatal<TypeConfig>> {
        Err(Fatal::Stopped)
    }

    fn append_all(&self, _: BoxStream<'static, Append>) -> BoxStream<'static, Result<Appended, Fatal<TypeConfig>>> {
        stream::once(ready(Err(Fatal::Stopped))).boxed()
    }

    async fn vote(&self, _: Ballot) -> Result<Balloted, Fatal<TypeConfig>> {
        Err(Fatal::Stopped)
    }

    async fn pre_vote(&self, _: Ballot) -> Result<Balloted, Fatal<TypeConfig>> {
        Err(Fatal::Stopped)
    }

    async fn transfer(&self, _: Transfer) -> Result<Transferred, Fatal<TypeConfig>> {
        Err(Fatal::Stopped)
    }

    fn receiver(&self) -> &Self {
        self
    }

    async fn install(&self, _: Vote, _: SnapshotMeta, (): ()) -> Result<Installed, Fatal<TypeConfig>> {
        Err(Fatal::Stopped)
    }
}

impl SnapshotReceiver for Unformed {
    type Data = ();
    type Sink = Self;

    fn receive(&self) -> Result<Self, Fault> {
        Err(Fault::new("this node belongs to no cluster yet"))
    }
}

impl SnapshotSink for Unformed {
    type Data = ();

    fn push(&mut self, _: &[u8]) -> Result<(), Fault> {
        Err(Fault::new("this node belongs to no cluster yet"))
    }

    fn finish(self, _: &SnapshotHead) -> Result<(), Fault> {
        Err(Fault::new("this node belongs to no cluster yet"))
    }
}
