//! A switch in this process: it hands frames from port to port, and on the way cuts, delays, loses, doubles, reorders or
//! damages them, each direction of each link by rules of its own. A thread of its own, so that whoever measures does not
//! wait for it, nor it for them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tun_rs::AsyncDevice;

use super::frame;

/// What happens to frames in one direction of a link. Chances are from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    pub cut: bool,
    pub delay: Duration,
    /// At most so much more delay, by chance.
    pub jitter: Duration,
    pub loss: f64,
    pub duplicate: f64,
    /// How many are held back, so that later ones overtake them.
    pub reorder: f64,
    /// How many are changed in one bit, with a checksum that says that they are not.
    pub damage: f64,
}

/// How long a frame is held back that others are to overtake.
const HELD_BACK: Duration = Duration::from_millis(15);

struct Shared {
    links: BTreeMap<(usize, usize), Link>,
    rng: StdRng,
    /// Which address was seen at which port.
    addresses: BTreeMap<[u8; 6], usize>,
}

/// A running switch. Its devices vanish with it.
pub struct Switch {
    shared: Arc<Mutex<Shared>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Late {
    at: Instant,
    number: u64,
    port: usize,
    frame: Vec<u8>,
}

impl Switch {
    /// A switch between the devices that `open` makes, in this order.
    pub fn start(open: impl FnOnce() -> Vec<AsyncDevice> + Send + 'static, seed: u64) -> Self {
        let shared = Shared { links: BTreeMap::new(), rng: StdRng::seed_from_u64(seed), addresses: BTreeMap::new() };
        let shared = Arc::new(Mutex::new(shared));
        let (stop, stopped) = oneshot::channel();
        let (opened, ready) = std::sync::mpsc::channel();
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let ports = Arc::new(open());
                let (late, queue) = mpsc::unbounded_channel();
                tokio::spawn(deliver_late(ports.clone(), queue));
                for port in 0..ports.len() {
                    tokio::spawn(forward(port, ports.clone(), of_thread.clone(), late.clone()));
                }
                opened.send(()).unwrap();
                let _ = stopped.await;
            });
        });
        ready.recv().expect("the switch has its devices");
        Self { shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Sets the rules of one direction of a link.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.shared.lock().unwrap().links.insert((from, to), link);
    }

    /// Everything goes through again.
    pub fn clear(&self) {
        self.shared.lock().unwrap().links.clear();
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads the frames that come in at one port.
async fn forward(
    from: usize,
    ports: Arc<Vec<AsyncDevice>>,
    shared: Arc<Mutex<Shared>>,
    late: mpsc::UnboundedSender<Late>,
) {
    let (mut buffer, mut number) = (vec![0; 65_536], from as u64);
    loop {
        let Ok(length) = ports[from].recv(&mut buffer).await else {
            // The device is down, while its namespace is made or goes away.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let frame = &buffer[..length];
        if length < 14 {
            continue;
        }
        let targets = shared.lock().unwrap().targets(from, frame, ports.len());
        for to in targets {
            let copies = shared.lock().unwrap().copies(from, to, frame);
            for (delay, frame) in copies {
                if delay.is_zero() {
                    // A device that is down loses frames, as networks do.
                    let _ = ports[to].send(&frame).await;
                } else {
                    number += 1_000;
                    let _ = late.send(Late { at: Instant::now() + delay, number, port: to, frame });
                }
            }
        }
    }
}

/// When a frame is due, its place among those that are due at once, for whom it is, and the frame.
type Waiting = (Instant, u64, usize, Vec<u8>);

async fn deliver_late(ports: Arc<Vec<AsyncDevice>>, mut queue: mpsc::UnboundedReceiver<Late>) {
    let mut waiting: BinaryHeap<Reverse<Waiting>> = BinaryHeap::new();
    loop {
        let next = waiting.peek().map(|Reverse((at, ..))| *at);
        tokio::select! {
            late = queue.recv() => {
                let Some(Late { at, number, port, frame }) = late else { return };
                waiting.push(Reverse((at, number, port, frame)));
            }
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                if let Some(Reverse((_, _, port, frame))) = waiting.pop() {
                    let _ = ports[port].send(&frame).await;
                }
            }
        }
    }
}

impl Shared {
    /// Where a frame goes: to the port at which its address was seen, else to all.
    fn targets(&mut self, from: usize, frame: &[u8], ports: usize) -> Vec<usize> {
        let address = |at: usize| -> [u8; 6] { frame[at..at + 6].try_into().unwrap() };
        self.addresses.insert(address(6), from);
        match self.addresses.get(&address(0)) {
            Some(port) => vec![*port],
            None => (0..ports).filter(|port| *port != from).collect(),
        }
    }

    /// What comes out at the other end, and how much later.
    fn copies(&mut self, from: usize, to: usize, frame: &[u8]) -> Vec<(Duration, Vec<u8>)> {
        let link = self.links.get(&(from, to)).copied().unwrap_or_default();
        if link == Link::default() || !frame::is_ipv4(frame) {
            return vec![(Duration::ZERO, frame.to_vec())];
        }
        let rng = &mut self.rng;
        if link.cut || rng.random_bool(link.loss) {
            return Vec::new();
        }
        let count = if rng.random_bool(link.duplicate) { 2 } else { 1 };
        let copy = |_| {
            let mut frame = frame.to_vec();
            let mut delay = link.delay + link.jitter.mul_f64(rng.random());
            if rng.random_bool(link.reorder) {
                delay += HELD_BACK;
            }
            if rng.random_bool(link.damage) {
                frame::damage(&mut frame, rng);
            }
            (delay, frame)
        };
        (0..count).map(copy).collect()
    }
}
