//! The world of a simulated node: turmoil's network and time, its own disk, chance from a seed.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use meshstore::{
    environment::{
        Clock, Environment,
        executor::{Executor, Running, Signal, Step, Worker},
        net::{Io, Listener, Net},
    },
    error::Fault,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tonic::transport::{Channel, Endpoint};

use super::{faults::DISK_STEP, support::sim_disk::SimDisk};

/// 2026-01-01, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// What faults turn while a node runs.
pub struct Knobs {
    /// How far the wall clock is ahead, in milliseconds.
    clock_ms: AtomicI64,
    /// How long a step of the disk takes at most, in microseconds.
    disk_step_us: AtomicU64,
}

impl Default for Knobs {
    fn default() -> Self {
        let knobs = Self { clock_ms: AtomicI64::new(0), disk_step_us: AtomicU64::new(0) };
        knobs.set_disk_step(DISK_STEP);
        knobs
    }
}

impl Knobs {
    pub fn set_clock(&self, ahead_ms: i64) {
        self.clock_ms.store(ahead_ms, Ordering::SeqCst);
    }

    pub fn set_disk_step(&self, most: Duration) {
        self.disk_step_us.store(u64::try_from(most.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

/// The environment of a node with this disk.
pub fn environment(disk: &SimDisk, knobs: &Arc<Knobs>, seed: u64) -> Environment {
    let rng = |salt| Mutex::new(StdRng::seed_from_u64(seed ^ salt));
    Environment {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(SimClock { rng: rng(0), knobs: knobs.clone() }),
        executor: Arc::new(SlowTasks { rng: rng(1), knobs: knobs.clone() }),
        net: Arc::new(SimNet),
    }
}

/// For looking at a disk when the run is over.
pub fn offline(disk: &SimDisk) -> Environment {
    environment(disk, &Arc::default(), 0)
}

/// A channel of a client over the simulated network.
pub fn channel(endpoint: Endpoint) -> Channel {
    endpoint.connect_with_connector_lazy(tower::service_fn(|uri: http::Uri| async move {
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        turmoil::net::TcpStream::connect(authority).await.map(TokioIo::new)
    }))
}

struct SimClock {
    rng: Mutex<StdRng>,
    knobs: Arc<Knobs>,
}

impl Clock for SimClock {
    fn wall_ms(&self) -> u64 {
        let ahead_ms = self.knobs.clock_ms.load(Ordering::SeqCst);
        (EPOCH_MS + u64::try_from(self.monotonic().as_millis()).unwrap()).saturating_add_signed(ahead_ms)
    }

    fn random(&self) -> u128 {
        self.rng.lock().unwrap().random()
    }

    fn monotonic(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_default()
    }
}

/// Tasks whose every step takes a while, as it does on a real disk: so a crash finds writes that others have seen
/// and this disk has not.
struct SlowTasks {
    rng: Mutex<StdRng>,
    knobs: Arc<Knobs>,
}

impl Executor for SlowTasks {
    fn start(&self, _: &'static str, worker: Box<dyn Worker>, signal: Signal) -> Running {
        let mut rng = StdRng::seed_from_u64(self.rng.lock().unwrap().random());
        let knobs = self.knobs.clone();
        let (sender, running) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            // Nobody listens any more if the node is already gone.
            let _ = sender.send(drive_slowly(worker, signal, &mut rng, &knobs).await);
        });
        running
    }
}

async fn drive_slowly(
    mut worker: Box<dyn Worker>,
    signal: Signal,
    rng: &mut StdRng,
    knobs: &Knobs,
) -> Result<(), Fault> {
    loop {
        tokio::time::sleep(pause(rng, knobs)).await;
        match worker.step()? {
            Step::Again => {}
            Step::Wait => signal.raised().await,
            Step::WaitFor(time) => drop(tokio::time::timeout(time, signal.raised()).await),
            Step::Done => return Ok(()),
        }
    }
}

/// Mostly up to a few milliseconds; now and then the disk stalls.
fn pause(rng: &mut StdRng, knobs: &Knobs) -> Duration {
    let step_us = knobs.disk_step_us.load(Ordering::SeqCst).max(1);
    let most_us = if rng.random_bool(0.01) { step_us * 20 } else { step_us };
    Duration::from_micros(rng.random_range(0..most_us))
}

struct SimNet;

impl Net for SimNet {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let port: u16 = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap();
            let listener = turmoil::net::TcpListener::bind(("0.0.0.0", port)).await?;
            Ok(Box::new(SimListener(listener)) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Io>> {
        Box::pin(async move {
            let stream = turmoil::net::TcpStream::connect(address).await?;
            let (local, remote) = (stream.local_addr().ok(), stream.peer_addr().ok());
            Ok(Io::new(stream, local, remote))
        })
    }
}

struct SimListener(turmoil::net::TcpListener);

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Io>> {
        Box::pin(async move {
            let (stream, remote) = self.0.accept().await?;
            let local = stream.local_addr().ok();
            Ok(Io::new(stream, local, Some(remote)))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
