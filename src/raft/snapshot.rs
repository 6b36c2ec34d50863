//! Snapshots on their way between nodes: storage's files behind the traits of the network.

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
            Self::Outgoing(snapshot) => Ok(Box::new(Pieces(snapshot.reader()?))),
            Self::Incoming(_) => Err(Fault::bug("a snapshot that is being received cannot be sent")),
        }
    }
}

struct Pieces(storage::SnapshotReader);

impl SnapshotReader for Pieces {
    fn next_chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        self.0.next().transpose()
    }
}

/// Receives snapshots into a store.
pub struct Receiver(pub Store);

impl SnapshotReceiver for Receiver {
    type Data = SnapshotData;
    type Sink = Sink;

    fn receive(&self) -> Result<Sink, Fault> {
        self.0.receive().map(Sink)
    }
}

/// A snapshot that is being received into a store.
pub struct Sink(Incoming);

impl SnapshotSink for Sink {
    type Data = SnapshotData;

    fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.0.push(bytes)
    }

    fn finish(self, head: &SnapshotHead) -> Result<SnapshotData, Fault> {
        let received = self.0.finish().map_err(|error| Fault::new(error.to_string()))?;
        let (announced, found) = (head.meta.last_log_id.map(Position::from), received.checkpoint().position);
        if announced != Some(found) {
            return Err(Fault::new(format!("the snapshot reaches {found}, but was announced as {announced:?}")));
        }
        Ok(SnapshotData::Incoming(received))
    }
}
