//! The world of a simulated node: turmoil's network and time, its own disk, chance from a seed.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
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

use super::support::sim_disk::SimDisk;

/// 2026-01-01, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// The environment of a node with this disk.
pub fn environment(disk: &SimDisk, seed: u64) -> Environment {
    Environment {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(SimClock(Mutex::new(StdRng::seed_from_u64(seed)))),
        executor: Arc::new(SlowTasks(Mutex::new(StdRng::seed_from_u64(seed ^ 1)))),
        net: Arc::new(SimNet),
    }
}

/// A channel of a client over the simulated network.
pub fn channel(endpoint: Endpoint) -> Channel {
    endpoint.connect_with_connector_lazy(tower::service_fn(|uri: http::Uri| async move {
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        turmoil::net::TcpStream::connect(authority).await.map(TokioIo::new)
    }))
}

struct SimClock(Mutex<StdRng>);

impl Clock for SimClock {
    fn wall_ms(&self) -> u64 {
        EPOCH_MS + u64::try_from(self.monotonic().as_millis()).unwrap()
    }

    fn random(&self) -> u128 {
        self.0.lock().unwrap().random()
    }

    fn monotonic(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_default()
    }
}

/// Tasks whose every step takes a while, as it does on a real disk: so a crash finds writes that others have seen
/// and this disk has not.
struct SlowTasks(Mutex<StdRng>);

impl Executor for SlowTasks {
    fn start(&self, _: &'static str, worker: Box<dyn Worker>, signal: Signal) -> Running {
        let mut rng = StdRng::seed_from_u64(self.0.lock().unwrap().random());
        let (sender, running) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            // Nobody listens any more if the node is already gone.
            let _ = sender.send(drive_slowly(worker, signal, &mut rng).await);
        });
        running
    }
}

async fn drive_slowly(mut worker: Box<dyn Worker>, signal: Signal, rng: &mut StdRng) -> Result<(), Fault> {
    loop {
        tokio::time::sleep(pause(rng)).await;
        match worker.step()? {
            Step::Again => {}
            Step::Wait => signal.raised().await,
            Step::WaitFor(time) => drop(tokio::time::timeout(time, signal.raised()).await),
            Step::Done => return Ok(()),
        }
    }
}

/// Mostly up to a few milliseconds; now and then the disk stalls.
fn pause(rng: &mut StdRng) -> Duration {
    let most_us = if rng.random_bool(0.01) { 60_000 } else { 3_000 };
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
