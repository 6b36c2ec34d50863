//! A network of namespaces: each node has one of its own with one device, all of which hang on a [`Switch`] in this
//! process; so do the clients, in the namespace that the tests run in. The kernel needs nothing but TAP devices for
//! that: no netem, no bridge, no packet filter.

mod frame;
mod switch;

use std::sync::atomic::{AtomicU32, Ordering};

use tun_rs::{DeviceBuilder, Layer};

pub use self::switch::Link;
use self::switch::Switch;
use super::tools::{missing, must, run};

/// Port 0 of the switch is the clients', port N node N's.
pub struct Network {
    nodes: usize,
    /// The first three bytes of all addresses, as text.
    prefix: String,
    spaces: Vec<String>,
    switch: Switch,
}

impl Network {
    /// Why there can be none; nothing if there can.
    pub fn missing() -> Option<String> {
        let device = std::path::Path::new("/dev/net/tun").exists();
        let device = (!device).then(|| "needs /dev/net/tun".to_owned());
        missing(true, &["ip", "nsenter"]).or(device)
    }

    pub fn create(nodes: usize, seed: u64) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let prefix = free_prefix(process, number);
        let devices: Vec<String> = (0..=nodes).map(|port| format!("mc{process}-{number}-{port}")).collect();
        let names = devices.clone();
        let open = move || {
            let open = |name: &String| {
                let device = DeviceBuilder::new().name(name).layer(Layer::L2).enable(false);
                device.build_async().unwrap_or_else(|error| panic!("TAP device {name}: {error}"))
            };
            names.iter().map(open).collect()
        };
        let switch = Switch::start(open, seed);
        let mut network = Self { nodes, prefix, spaces: Vec::new(), switch };
        must("ip", &["address", "add", &format!("{}/24", network.address(0)), "dev", &devices[0]]);
        must("ip", &["link", "set", &devices[0], "up"]);
        for (node, device) in devices.iter().enumerate().skip(1) {
            let space = format!("meshstore-{process}-{number}-{node}");
            must("ip", &["netns", "add", &space]);
            network.spaces.push(space.clone());
            must("ip", &["link", "set", device, "netns", &space]);
            let address = format!("{}/24", network.address(node));
            must("ip", &["-n", &space, "address", "add", &address, "dev", device]);
            must("ip", &["-n", &space, "link", "set", "lo", "up"]);
            must("ip", &["-n", &space, "link", "set", device, "up"]);
        }
        network
    }

    pub fn address(&self, port: usize) -> String {
        format!("{}.{}", self.prefix, if port == 0 { 254 } else { port })
    }

    /// What to put in front of a command, so that it runs in a node's namespace. Not `ip netns exec`: that would make a
    /// mount namespace, too, which keeps unmounted volumes alive.
    pub fn enter(&self, node: usize) -> Vec<String> {
        vec!["nsenter".into(), format!("--net=/run/netns/{}", self.spaces[node - 1])]
    }

    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.switch.set(from, to, link);
    }

    /// Sets the rules for all links between nodes, both ways.
    pub fn set_all(&self, link: Link) {
        for from in 1..=self.nodes {
            for to in (1..=self.nodes).filter(|to| *to != from) {
                self.switch.set(from, to, link);
            }
        }
    }

    pub fn clear(&self) {
        self.switch.clear();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for space in &self.spaces {
            if let Err(error) = run("ip", &["netns", "delete", space]) {
                eprintln!("{error}");
            }
        }
    }
}

/// Addresses that nobody here uses.
fn free_prefix(process: u32, number: u32) -> String {
    let used = must("ip", &["-o", "address", "show"]);
    let prefixes = (0..1_000).map(|try_next| {
        let chosen = (process * 7 + number * 13 + try_next) % 16_384;
        format!("10.{}.{}", 128 + chosen / 256, chosen % 256)
    });
    prefixes.into_iter().find(|prefix| !used.contains(&format!(" {prefix}."))).expect("free addresses")
}
