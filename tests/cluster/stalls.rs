//! Nodes that live and make no progress: a disk that does not sync, an apply that does not end; and callers that want more
//! meanwhile. They run inside this process,
//! so that what stands still can be chosen.

use std::{
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use meshstore::{
    Error,
    config::{Config, Flags},
    environment::{
        Environment,
        disk::{Disk, File, OpenMode},
    },
    model::Position,
    proto::v1::{GetStateRequest, PutStateRequest, mesh_client::MeshClient},
    raft::state_machine::Observer,
    server,
    state::Commit,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinHandle,
};

use crate::{
    harness::{Cluster, Settings, http_get, until},
    health::{ServingStatus, channel, health},
};

/// Whoever comes to it waits while it is shut.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn set(&self, shut: bool) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = shut;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let shut = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_while(shut, |shut| *shut).unwrap_or_else(PoisonError::into_inner));
    }
}

/// A test that fails opens it, or the threads that wait would keep the test from ending.
struct Opens(Gate);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// A disk whose syncs of the log stand still while the gate is shut.
struct Hanging {
    inner: Arc<dyn Disk>,
    gate: Gate,
}

struct HangingFile {
    inner: Box<dyn File>,
    gate: Option<Gate>,
}

impl Disk for Hanging {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let of_log = path.components().any(|part| part.as_os_str() == "mesh_consensus_log");
        let gate = of_log.then(|| self.gate.clone());
        Ok(Box::new(HangingFile { inner: self.inner.open(path, mode)?, gate }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.available_bytes(path)
    }
}

impl File for HangingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(gate) = &self.gate {
            gate.pass();
        }
        self.inner.sync()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.inner.try_lock()
    }
}

/// Has apply stand still while the gate is shut.
struct Standing(Gate);

impl Observer for Standing {
    fn committed(&self, _: Position, _: &[Commit]) {
        self.0.pass();
    }
}

/// A cluster of one node, inside this process.
struct Inside {
    cluster: Cluster,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    /// As in a process of its own: what stands still there stops nothing else.
    raft: Runtime,
}

impl Inside {
    /// Starts it, and waits until it is ready.
    async fn start(environment: Environment, observer: Option<Arc<dyn Observer>>, settings: Settings) -> Self {
        let cluster = Cluster::new(1, settings);
        let node = &cluster.nodes[0];
        let flags = Flags { node: Some(1), data_dir: Some(node.data.clone()), ..Flags::default() };
        let config = Config::load(&node.toml, &flags).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let raft = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (handle, stopped) = (raft.handle().clone(), async move { drop(stopped.await) });
        let serving = tokio::spawn(async move {
            server::serve(environment, config, observer, handle, stopped).await.unwrap();
        });
        let inside = Self { cluster, stop, serving, raft };
        inside.says(200, "ready").await;
        inside
    }

    /// Waits until the node says so.
    async fn says(&self, code: u16, reason: &str) {
        let node = &self.cluster.nodes[0];
        let said = async || {
            let answer = http_get(&node.http, "/readyz").await?;
            (answer.0 == code && answer.1.contains(reason)).then_some(())
        };
        until(&format!("/readyz to say {code}, {reason}"), said).await;
        let status = if code == 200 { ServingStatus::Serving } else { ServingStatus::NotServing };
        let agrees = async || health(&node.client, "").await.filter(|health| *health == status);
        until("gRPC's health service to say the same", agrees).await;
        assert_eq!(http_get(&node.http, "/livez").await.map(|(code, _)| code), Some(200), "it lives");
    }

    async fn stop(self) {
        drop(self.stop);
        self.serving.await.unwrap();
        self.raft.shutdown_background();
    }
}

/// A node whose `gate` is shut for one write says `reason`, and is ready again when it is open.
async fn stands_still(inside: Inside, gate: &Gate, reason: &str) {
    let client = inside.cluster.client();
    client.state().put("before", "1").await.unwrap();
    gate.set(true);
    let write = tokio::spawn({
        let client = client.clone();
        async move { client.state().put("meanwhile", "2").await }
    });
    inside.says(503, reason).await;
    gate.set(false);
    write.await.unwrap().unwrap();
    inside.says(200, "ready").await;
    drop(client);
    inside.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_does_not_sync_says_so() {
    let gate = Gate::default();
    let _opens = Opens(gate.clone());
    let real = Environment::real();
    let disk = Arc::new(Hanging { inner: real.disk.clone(), gate: gate.clone() });
    let inside = Inside::start(Environment { disk, ..real }, None, Settings::default()).await;
    stands_still(inside, &gate, "the disk does not sync").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_apply_stands_still_says_so() {
    let gate = Gate::default();
    let _opens = Opens(gate.clone());
    let observer = Arc::new(Standing(gate.clone()));
    let inside = Inside::start(Environment::real(), Some(observer), Settings::default()).await;
    stands_still(inside, &gate, "apply stands still: nothing was applied for").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_with_too_many_calls_under_way_is_told_when_to_come_again() {
    let gate = Gate::default();
    let _opens = Opens(gate.clone());
    let observer = Arc::new(Standing(gate.clone()));
    let settings = Settings { storage: "", raft: "[limits]\ncalls_per_principal = 1\n" };
    let inside = Inside::start(Environment::real(), Some(observer), settings).await;
    let client = MeshClient::new(channel(&inside.cluster.nodes[0].client));
    let put = PutStateRequest { key: "key".into(), value: "value".into(), ..Default::default() };
    let get = async || {
        client.clone().get_state(GetStateRequest { key: "key".into(), ..Default::default() }).await.map_err(Error::from)
    };
    gate.set(true);
    let writer = client.clone();
    let waits = tokio::spawn(until("the write", async move || {
        match writer.clone().put_state(put.clone()).await.map_err(Error::from) {
            Ok(_) => Some(()),
            // A read was faster.
            Err(Error::ResourceExhausted { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }));
    let refused = until("a second call to be refused", async || {
        get().await.err().filter(|error| matches!(error, Error::ResourceExhausted { .. }))
    })
    .await;
    let Error::ResourceExhausted { reason, retry_after_ms: 100 } = &refused else { panic!("{refused}") };
    assert!(reason.contains("anonymous has 1 calls under way"), "{reason}");
    gate.set(false);
    waits.await.unwrap();
    until("a place", async || get().await.ok()).await;
    inside.stop().await;
}
