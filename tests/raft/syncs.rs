//! The first sync that fails stops a whole node, whichever file it is of: the fault names the file, and nobody tries again.

use std::{path::Path, sync::Arc, time::Duration};

use meshstore::{
    Client,
    config::{Config, Flags},
    environment::{Environment, disk::RealDisk},
    error::Fault,
    server,
};
use tempfile::TempDir;

use crate::support::failing_disk::FailingDisk;

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a single node on this disk, and writes until it stops: why it did.
async fn run(disk: &FailingDisk, home: &Path) -> Fault {
    let ports: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let [client, peer, http] = [0, 1, 2].map(|port: usize| ports[port].local_addr().unwrap().to_string());
    drop(ports);
    let text = format!(
        "[cluster]\nname = \"test\"\n[storage]\nengine = \"memory\"\nflush_after_s = 1\n[[node]]\nid = 1\n\
         client = \"{client}\"\npeer = \"{peer}\"\nhttp = \"{http}\"\n"
    );
    let flags = Flags { data_dir: Some(home.join("data")), ..Flags::default() };
    let config = Config::parse(&text, Path::new("test.toml"), &flags).unwrap();
    let environment = Environment { disk: Arc::new(disk.clone()), ..Environment::real() };
    let node = server::serve(environment, config, None, tokio::runtime::Handle::current(), std::future::pending());
    let write = async {
        let client = Client::builder().endpoints([client]).deadline(Duration::from_secs(2)).connect_lazy().unwrap();
        for number in 0.. {
            // Refused, once the node is gone.
            let _ = client.state().put(&format!("key-{}", number % 50), vec![7; 20_000]).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        ended = node => ended.unwrap_err(),
        () = write => unreachable!(),
        () = tokio::time::sleep(LIMIT) => panic!("the node goes on; failed: {:?}", disk.struck()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_cannot_be_synced_stops_the_node_at_once() {
    // The name, and how many syncs of it succeed first.
    let files = [
        (".log", 0),
        (".log", 30),
        ("mesh_consensus_log/spare", 0),
        ("mesh_consensus_log/spare", 2),
        (".run", 0),
        (".run", 1),
        ("storage/manifest.tmp", 0),
        ("storage/manifest.tmp", 2),
        ("data/storage", 1),
        ("data/IDENTITY.tmp", 0),
        ("data/IDENTITY.tmp", 1),
        ("data/IDENTITY.tmp", 2),
        ("data", 0),
    ];
    for (ends, skip) in files {
        let home = TempDir::new().unwrap();
        let disk = FailingDisk::new(Arc::new(RealDisk));
        disk.fail_sync_of(ends, skip);
        let fault = run(&disk, home.path()).await.to_string();
        let struck = disk.struck().unwrap_or_else(|| panic!("{ends} was never synced: {fault}"));
        assert!(fault.contains("simulated: sync failed"), "{ends} {skip}: {fault}");
        // A temporary name is that of the file that it was to replace, or its own; a directory is named by what is in it.
        let named = struck.with_extension("");
        let named = if struck.extension().is_some_and(|end| end == "tmp") { named } else { struck };
        assert!(fault.contains(named.to_str().unwrap()), "{ends} {skip}: {fault}");
        assert_eq!(disk.tried_again(), 0, "{ends} {skip}");
    }
}
