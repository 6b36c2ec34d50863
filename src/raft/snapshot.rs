//! Snapshots on their way between nodes: storage's files behind the traits of the network.

use std::sync::Arc;

use super::{
    network::snapshot::{SnapshotReader, SnapshotSource},
    peer::{SnapshotReceiver, SnapshotSink},
    state_machine::SnapshotData,
    wire::SnapshotHead,
};
use crate::{
    error::Fault,
    model::Position,
    storage::{self, Incoming, Store},
};
use bytes::Bytes;

impl SnapshotSource for SnapshotData {
    fn reader(self) -> Result<Box<dyn SnapshotReader>, Fault> {
        match self {
            Self::Outgoing(snapshot) => Ok(Box::new(Pieces::of(&snapshot)?)),
            Self::Incoming(_) => Err(Fault::bug("a snapshot that is being received cannot be sent")),
        }
    }
}

/// The bytes of files that are a snapshot.
pub struct Pieces(storage::SnapshotReader);

impl Pieces {
    /// Of these. Errors: one cannot be read.
    pub fn of(files: &storage::Snapshot) -> Result<Self, Fault> {
        files.reader().map(Self)
    }
}

impl SnapshotReader for Pieces {
    fn next_chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        self.0.next().transpose()
    }
}

/// Receives snapshots into a store.
pub struct Receiver {
    store: Store,
    /// Told of a sync that failed, which stops the node.
    fault: Arc<dyn Fn(Fault) + Send + Sync>,
}

impl Receiver {
    /// Into this store.
    pub fn new(store: Store, fault: Arc<dyn Fn(Fault) + Send + Sync>) -> Self {
        Self { store, fault }
    }
}

impl SnapshotReceiver for Receiver {
    type Data = SnapshotData;
    type Sink = Sink;

    fn receive(&self) -> Result<Sink, Fault> {
        Ok(Sink { incoming: self.store.receive()?, fault: Arc::clone(&self.fault) })
    }
}

/// A snapshot that is being received into a store.
pub struct Sink {
    incoming: Incoming,
    fault: Arc<dyn Fn(Fault) + Send + Sync>,
}

impl SnapshotSink for Sink {
    type Data = SnapshotData;

    fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.incoming.push(bytes)
    }

    fn finish(self, head: &SnapshotHead) -> Result<SnapshotData, Fault> {
        let received = self.incoming.finish().map_err(|error| match error {
            storage::ReceiveError::Refused(_) => Fault::new(error.to_string()),
            // The leader would send it again, to a disk that has failed.
            storage::ReceiveError::Fault(fault) => {
                (self.fault)(fault.clone());
                fault
            }
        })?;
        let (announced, found) = (head.meta.last_log_id.map(Position::from), received.checkpoint().position);
        if announced != Some(found) {
            return Err(Fault::new(format!("the snapshot reaches {found}, but was announced as {announced:?}")));
        }
        Ok(SnapshotData::Incoming(received))
    }
}
