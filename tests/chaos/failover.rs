//! How long writes stand still when the leader is killed, when it is told to stop, and when it hands over. A measurement: it
//! prints what it finds, and judges nothing.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{
    cluster::{Cluster, LIMIT, Settings, fresh, within},
    report::share,
    writers::{Writers, check_all},
};

pub async fn measure(rounds: u64, out: &Path) {
    let logs = fresh(out.join("failover"));
    let settings = Settings { storage: "", raft: "", ..Settings::plain(3) };
    let mut cluster = Cluster::start(&settings, &logs).await;
    let mut writers = Writers::start(&cluster, 0);
    writers.more(500).await.unwrap();
    let (mut killed, mut stopped, mut handed_over) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        killed.push(round_of(&mut cluster, &mut writers, Loss::Kill).await);
        stopped.push(round_of(&mut cluster, &mut writers, Loss::Stop).await);
        handed_over.push(round_of(&mut cluster, &mut writers, Loss::Transfer).await);
        if (round + 1) % 10 == 0 || round + 1 == rounds {
            eprintln!("{} of {rounds} rounds", round + 1);
        }
    }
    println!("{}", line("SIGKILL of the leader, until a write that began afterwards is acknowledged", killed));
    println!("{}", line("SIGTERM of the leader, longest time without an acknowledgement", stopped));
    println!("{}", line("member transfer, longest time without an acknowledgement", handed_over));
    let ledger = writers.finish().await;
    let wrong = check_all(&cluster, &ledger).await;
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// How a leader is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loss {
    Kill,
    Stop,
    Transfer,
}

/// One loss of the leader: how long writes stood still.
async fn round_of(cluster: &mut Cluster, writers: &mut Writers, loss: Loss) -> Duration {
    writers.more(300).await.unwrap();
    let leader = within(LIMIT, async || cluster.leader().await).await.expect("a leader");
    let still = if loss == Loss::Kill {
        cluster.kill(&[leader]);
        let at = Instant::now();
        writers.acknowledged_after(at).await.unwrap() - at
    } else {
        writers.forget_pauses();
        match loss {
            Loss::Transfer => drop(cluster.client(LIMIT).cluster().transfer_leadership(0).await.unwrap()),
            _ => cluster.node(leader).terminate().await.unwrap(),
        }
        writers.more(50).await.unwrap();
        writers.longest_pause()
    };
    cluster.start_all().await.unwrap();
    still
}

fn line(what: &str, mut all: Vec<Duration>) -> String {
    all.sort();
    let ns: Vec<u64> = all.iter().map(|pause| pause.as_nanos() as u64).collect();
    let of = |part: f64| share(&ns, part).unwrap_or_default() as f64 / 1e6;
    format!(
        "{what}, {} rounds: median {:.0} ms, p95 {:.0} ms, longest {:.0} ms, shortest {:.0} ms",
        all.len(),
        of(0.5),
        of(0.95),
        of(1.0),
        of(0.0)
    )
}
