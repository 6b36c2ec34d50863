//! Many short lives: a cluster under load is killed, or loses its power, or its files are damaged; it starts again, and
//! whatever was acknowledged is there.

use std::{fs, path::Path, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    cluster::{Cluster, Settings, copy, fresh, within},
    damage::{KINDS, damage, is_clear},
    volume::FileSystem,
    writers::{Ledger, Told, Writers, check, check_all, count},
};

/// What came of many cycles.
#[derive(Debug, Default)]
pub struct Totals {
    pub cycles: u64,
    pub acknowledged: usize,
    pub unknown: usize,
    /// What must not be.
    pub wrong: Vec<String>,
    /// What else there is to count.
    pub notes: std::collections::BTreeMap<String, u64>,
}

impl Totals {
    fn add(&mut self, ledger: &Ledger) {
        self.acknowledged += count(ledger, &Told::Acknowledged);
        self.unknown += count(ledger, &Told::Unknown);
    }

    fn note(&mut self, what: impl Into<String>) {
        *self.notes.entry(what.into()).or_default() += 1;
    }

    pub fn line(&self) -> String {
        let notes: Vec<String> = self.notes.iter().map(|(what, count)| format!("{count} {what}")).collect();
        format!(
            "{} cycles ({}), {} acknowledged writes, {} of unknown outcome: {} wrong",
            self.cycles,
            notes.join(", "),
            self.acknowledged,
            self.unknown,
            self.wrong.len()
        )
    }

    pub fn join(mut self, other: Self) -> Self {
        self.cycles += other.cycles;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.wrong.extend(other.wrong);
        for (what, count) in other.notes {
            *self.notes.entry(what).or_default() += count;
        }
        self
    }
}

/// Says now and then how far it is.
fn progress(what: &str, cycle: u64, of: u64, totals: &Totals) {
    if (cycle + 1).is_multiple_of(10) || cycle + 1 == of {
        eprintln!("{what}: {} of {of}, {} wrong", cycle + 1, totals.wrong.len());
    }
}

/// SIGKILL of one node, the leader, a majority or all of three, so many times.
pub async fn kills(cycles: u64, seed: u64, out: &Path) -> Totals {
    let mut rng = StdRng::seed_from_u64(seed);
    let logs = fresh(out.join("kills"));
    let mut cluster = Cluster::start(&Settings::plain(3), &logs).await;
    let strike = async |cluster: &mut Cluster, rng: &mut StdRng| {
        let leader = cluster.leader().await.unwrap_or(1);
        let all = cluster.ids();
        let (ids, what) = match rng.random_range(0..4) {
            0 => (vec![all[rng.random_range(0..3)]], "of one node"),
            1 => (vec![leader], "of the leader"),
            2 => (vec![leader, leader % 3 + 1], "of a majority"),
            _ => (all, "of all nodes"),
        };
        cluster.kill(&ids);
        Ok(what.to_owned())
    };
    live(&mut cluster, "kills", cycles, &mut rng, strike).await
}

/// Power cuts: of a node that stands alone (so that nobody gives back what it lost), or of all of three.
pub async fn power_cuts(cycles: u64, all: bool, seed: u64, out: &Path) -> Totals {
    let mut totals = Totals::default();
    let of_ext4 = cycles.div_ceil(2);
    for (kind, cycles) in [(FileSystem::Ext4, of_ext4), (FileSystem::Xfs, cycles - of_ext4)] {
        if cycles == 0 {
            continue;
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let settings = Settings { volumes: Some(kind), ..Settings::plain(if all { 3 } else { 1 }) };
        let logs = fresh(out.join(format!("powercuts-{kind:?}")));
        let mut cluster = Cluster::start(&settings, &logs).await;
        let strike = async |cluster: &mut Cluster, rng: &mut StdRng| {
            // From lives that nothing but a sync could save to some in which the system wrote by itself.
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..400))).await;
            let frozen = rng.random_bool(0.5);
            let ids = cluster.ids();
            cluster.cut_power(&ids, frozen)?;
            Ok(format!("on {kind:?}{}", if frozen { ", frozen" } else { "" }))
        };
        let name = if all { "power cuts of all" } else { "power cuts of one" };
        totals = totals.join(live(&mut cluster, name, cycles, &mut rng, strike).await);
    }
    totals
}

/// Lives of a cluster, each ended by a strike.
async fn live(
    cluster: &mut Cluster,
    name: &str,
    cycles: u64,
    rng: &mut StdRng,
    mut strike: impl AsyncFnMut(&mut Cluster, &mut StdRng) -> Result<String, String>,
) -> Totals {
    let mut totals = Totals::default();
    let mut writers = Writers::start(cluster, 0);
    let client = cluster.client(Duration::from_secs(40));
    for cycle in 0..cycles {
        writers.turn(cycle);
        let result = async {
            writers.more(rng.random_range(20..200)).await?;
            let what = strike(cluster, rng).await?;
            totals.note(what);
            cluster.start_all().await?;
            writers.more(10).await?;
            // The ledger first: what is acknowledged later need not be in the list.
            let ledger = writers.ledger();
            check(&client, &ledger, cycle).await.map_err(|error| format!("nothing can be read: {error}"))
        };
        match result.await {
            Ok(wrong) => totals.wrong.extend(wrong),
            Err(error) => totals.wrong.push(format!("cycle {cycle}: {error}")),
        }
        totals.cycles += 1;
        progress(name, cycle, cycles, &totals);
        if totals.wrong.len() > 100 {
            break;
        }
    }
    let ledger = writers.finish().await;
    totals.wrong.extend(check_all(cluster, &ledger).await);
    totals.wrong.extend(cluster.complaints());
    totals.add(&ledger);
    totals
}

/// Damages files of a node that stands alone: it names the damage, or has everything.
pub async fn damages(cycles: u64, seed: u64, out: &Path) -> Totals {
    let mut rng = StdRng::seed_from_u64(seed);
    let logs = fresh(out.join("damage"));
    let mut cluster = Cluster::start(&Settings::plain(1), &logs).await;
    let (mut totals, mut ledger) = (Totals::default(), Ledger::new());
    for cycle in 0..cycles {
        if let Err(error) = damage_once(&mut cluster, cycle, &mut ledger, &mut totals, &mut rng).await {
            totals.wrong.push(format!("cycle {cycle}: {error}"));
            break;
        }
        totals.cycles += 1;
        progress("damages", cycle, cycles, &totals);
    }
    totals.wrong.extend(check_all(&cluster, &ledger).await);
    totals.wrong.extend(cluster.complaints());
    totals.add(&ledger);
    totals
}

async fn damage_once(
    cluster: &mut Cluster,
    cycle: u64,
    ledger: &mut Ledger,
    totals: &mut Totals,
    rng: &mut StdRng,
) -> Result<(), String> {
    let mut writers = Writers::start(cluster, cycle);
    writers.more(rng.random_range(20..300)).await?;
    ledger.extend(writers.finish().await);
    // The log has its mark behind the last write soon; flushes go on by themselves.
    tokio::time::sleep(Duration::from_millis(rng.random_range(200..1_500))).await;
    let ordered = rng.random_bool(0.5);
    match ordered {
        true => cluster.nodes[0].terminate().await?,
        false => cluster.kill(&[1]),
    }
    let data = cluster.nodes[0].data.clone();
    let whole = data.with_extension("whole");
    let _ = fs::remove_dir_all(&whole);
    copy(&data, &whole);
    let kind = KINDS[rng.random_range(0..KINDS.len())];
    let done = damage(&data, kind, rng);
    let said = start_damaged(cluster).await?;
    let wrong = match &said {
        Some(said) if is_clear(said) => {
            totals.note(format!("{kind:?} refused"));
            None
        }
        Some(said) => Some(format!("it stopped, and said: {said}")),
        None => {
            totals.note(format!("{kind:?} harmless or repaired"));
            check_all(cluster, ledger).await.into_iter().next().map(|first| format!("SILENT: {first}"))
        }
    };
    if let Some(wrong) = &wrong {
        let stopped = if ordered { "in order" } else { "by a kill" };
        totals.wrong.push(format!("cycle {cycle}, stopped {stopped}, {done}: {wrong}"));
    }
    if said.is_some() || wrong.is_some() {
        cluster.kill(&[1]);
        fs::remove_dir_all(&data).map_err(|error| error.to_string())?;
        fs::rename(&whole, &data).map_err(|error| error.to_string())?;
        cluster.start_all().await?;
    }
    Ok(())
}

/// What the node says if it refuses; nothing if it serves.
async fn start_damaged(cluster: &mut Cluster) -> Result<Option<String>, String> {
    let node = &mut cluster.nodes[0];
    node.start();
    let ended = within(super::cluster::LIMIT, async || match node.has_ended() {
        true => Some(true),
        false => node.is_ready().await.then_some(false),
    });
    match ended.await {
        Some(true) => Ok(Some(cluster.nodes[0].last_words())),
        Some(false) => Ok(None),
        None => Err("it neither serves nor ends".into()),
    }
}

/// How many acknowledged writes a node loses in a power cut if its disk only says that it syncs. With this the others are
/// worth something: what they look for would be found.
pub async fn control(out: &Path) -> usize {
    let settings = Settings { volumes: Some(FileSystem::Ext4), ..Settings::plain(1) };
    let logs = fresh(out.join("control"));
    let mut cluster = Cluster::start(&settings, &logs).await;
    let mut writers = Writers::start(&cluster, 0);
    writers.more(100).await.unwrap();
    cluster.nodes[0].inject("fsync,fdatasync", "retval=0");
    // It takes a moment until every thread is traced.
    tokio::time::sleep(Duration::from_millis(500)).await;
    writers.turn(1);
    writers.more(300).await.unwrap();
    let ledger = writers.ledger();
    drop(writers);
    cluster.cut_power(&[1], true).unwrap();
    if start_damaged(&mut cluster).await.is_ok_and(|said| said.is_some()) {
        // It found out by itself.
        return count(&ledger, &Told::Acknowledged);
    }
    let client = cluster.client(Duration::from_secs(20));
    check(&client, &ledger, 1).await.unwrap().iter().filter(|wrong| wrong.starts_with("LOST")).count()
}
