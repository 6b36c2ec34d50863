//! `meshstore recover`: data directories whose nodes do not run.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    failure::Failure,
    output::{self, Output, table},
};
use crate::{
    config::{Config, Flags},
    environment::Environment,
    model::Position,
    node::{
        identity::Held,
        recover::{self, Survey, Survivor},
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Compare what survived of a cluster that has lost its quorum for good; changes nothing
    #[command(
        after_help = "Stop the nodes first: each directory is locked while it is read, wholly. Copies of directories do as well.\n\nExample:\n  meshstore recover plan --data /srv/node-2 --data /mnt/copy-of-node-3"
    )]
    Plan {
        /// A data directory that survived; once for each
        #[arg(long, value_name = "DIR", required = true)]
        data: Vec<PathBuf>,
    },
    /// Make of one survivor the only node of a new cluster, which the old members can never join
    #[command(
        after_help = "`meshstore recover plan` says which survivor, and what may be lost. The old files stay in DIR/old-epoch-N. The revision leaps by 4,294,967,296 and sessions end, so clients notice that the history is another.\n\nExample:\n  meshstore recover apply --data /srv/node-2 --config new-cluster.toml --confirm 35596e1d1da95791add0934733817215"
    )]
    Apply {
        /// The survivor's data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// The cluster.toml with which the node will be started: where it listens
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The id of the cluster that is given up, as `meshstore recover plan` shows it
        #[arg(long, value_name = "CLUSTER")]
        confirm: String,
    },
    /// Free the data directory of a node whose log, vote or identity is damaged or lost, to come back under a new id
    #[command(
        after_help = "Without --confirm it says what it would do, and changes nothing. What was in DIR is moved to DIR/set-aside-N, and never deleted.\n\nExample:\n  meshstore recover node --data /srv/node-3 --confirm"
    )]
    Node {
        /// The node's data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Do it
        #[arg(long)]
        confirm: bool,
    },
}

impl Command {
    pub(super) fn run(self, json: bool) -> Result<(), Failure> {
        let environment = Environment::real();
        let out = Output::new(json);
        match self {
            Self::Plan { data } => {
                let survey = recover::survey(&environment, &data)?;
                out.answer(&survey_json(&survey), || survey_text(&survey))?;
                match survey.chosen {
                    Some(_) => Ok(()),
                    None => Err(Failure::Failed("none of these directories can be used".into())),
                }
            }
            Self::Apply { data, config, confirm } => apply(&environment, &out, data, &config, &confirm),
            Self::Node { data, confirm } => node(&environment, &out, &data, confirm),
        }
    }
}

pub(super) fn place(position: Option<Position>) -> String {
    position.map_or_else(|| "-".into(), |position| position.to_string())
}

pub(super) fn hex(id: Option<u128>) -> String {
    id.map_or_else(|| "-".into(), |id| format!("{id:032x}"))
}

fn position_json(position: Option<Position>) -> Value {
    position.map_or(Value::Null, |at| json!({ "term": at.term, "index": at.index }))
}

/// What was found in a directory, and what the command says of it beside that.
pub(super) fn survivor_json(survivor: &Survivor, beside: (&str, Value)) -> Value {
    let at = position_json;
    let mut found = json!({
        "data": survivor.path, "node_id": survivor.node, "cluster_id": survivor.cluster.map(|id| hex(Some(id))),
        "last": at(survivor.last), "committed": at(survivor.committed), "flushed": at(survivor.flushed),
        "flushed_revision": survivor.revision, "damage": survivor.damage,
    });
    if let Some(found) = found.as_object_mut() {
        found.insert(beside.0.into(), beside.1);
    }
    found
}

fn survey_json(survey: &Survey) -> Value {
    let at = position_json;
    let survivors = survey.survivors.iter().map(|survivor| {
        let vote = survivor.vote.map(|vote| json!({ "term": vote.term, "node_id": vote.node }));
        survivor_json(survivor, ("vote", vote.into()))
    });
    json!({
        "survivors": survivors.collect::<Vec<_>>(),
        "chosen": survey.chosen.and_then(|index| Some(&survey.survivors.get(index)?.path)),
        "absent_voters": survey.absent, "quorum_survives": survey.quorum, "committed": at(survey.committed),
    })
}

fn survey_text(survey: &Survey) -> String {
    let rows = survey.survivors.iter().map(|survivor| {
        let vote = survivor.vote.map_or_else(|| "-".into(), |vote| format!("node {}, term {}", vote.node, vote.term));
        let state = if survivor.damage.is_some() { "DAMAGED" } else { "whole" };
        vec![
            survivor.path.display().to_string(),
            survivor.node.to_string(),
            place(survivor.last),
            place(survivor.committed),
            place(survivor.flushed),
            vote,
            state.into(),
        ]
    });
    let columns = ["directory", "node", "last entry", "committed", "flushed", "vote", "state"];
    let mut parts = vec![table(&columns, rows)];
    let damage = survey.survivors.iter().filter_map(|survivor| {
        let damage = survivor.damage.as_ref()?;
        Some(format!("{}: {}", survivor.path.display(), output::visible(damage)))
    });
    parts.extend(damage);
    match survey.chosen.and_then(|index| survey.survivors.get(index)) {
        Some(chosen) => parts.push(verdict(survey, chosen)),
        None => parts.push("There is nothing to go on with.".into()),
    }
    parts.join("\n\n")
}

fn verdict(survey: &Survey, chosen: &Survivor) -> String {
    let last = chosen.last.unwrap_or_default();
    let cluster = hex(chosen.cluster);
    if survey.quorum {
        return format!(
            "A quorum of cluster {cluster} survives: nothing that was acknowledged is lost, and nothing is to be recovered.\n\
             Start these nodes as they are."
        );
    }
    let absent: Vec<String> = survey.absent.iter().map(u64::to_string).collect();
    let mut lines = vec![
        format!("Cluster {cluster}. Without a quorum; voters that are absent: {}.", absent.join(", ")),
        format!(
            "Chosen: node {} in {}, whose last entry {last} is the highest (term.index).",
            chosen.node,
            chosen.path.display()
        ),
        format!(
            "May be lost: whatever only absent voters had. If they acknowledged entries behind {last} without a node named \
             here, nobody\n  here can know of it, and those writes are gone although their callers were told that they succeeded."
        ),
    ];
    let others = survey.survivors.iter().filter(|other| other.path != chosen.path && other.damage.is_none());
    for other in others.filter(|other| other.last.map(|at| at.index) > Some(last.index)) {
        let (path, at) = (other.path.display(), place(other.last));
        lines.push(format!(
            "Left out: entries of {path} up to {at}, of an older term; no quorum can have acknowledged them with {last} there."
        ));
    }
    match survey.committed {
        Some(committed) if committed >= last => {}
        committed => lines.push(format!(
            "Become committed: entries behind {} up to {last}. Their callers may have been told that the outcome is unknown.",
            place(committed)
        )),
    }
    lines.push(format!(
        "If the absent voters are lost for good:\n  meshstore recover apply --data {} --config NEW-CLUSTER.toml --confirm {cluster}",
        chosen.path.display()
    ));
    lines.join("\n")
}

fn apply(
    environment: &Environment,
    out: &Output,
    data: PathBuf,
    config: &std::path::Path,
    confirm: &str,
) -> Result<(), Failure> {
    let cluster = Some(confirm).filter(|text| text.len() == 32).and_then(|text| u128::from_str_radix(text, 16).ok());
    let Some(cluster) = cluster else {
        return Err(Failure::usage("--confirm is the id of the cluster that is given up: 32 hex digits"));
    };
    // Which node it is stands in the directory.
    let node = {
        let held = Held::hold(environment, &data)?;
        let Some((node, ..)) = held.identity() else {
            let why = held.damage.map_or_else(|| "its IDENTITY is missing".into(), |fault| fault.to_string());
            return Err(Failure::Failed(format!("{} cannot be recovered: {why}", data.display())));
        };
        node
    };
    let flags = Flags { node: Some(node), data_dir: Some(data), insecure: true, ..Flags::default() };
    let config = Config::load(config, &flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let epoch = runtime.block_on(recover::apply(environment, &config, cluster))?;
    let json = json!({
        "node_id": epoch.node, "old_cluster_id": hex(Some(epoch.old_cluster)), "cluster_id": hex(Some(epoch.cluster)),
        "last": { "term": epoch.last.term, "index": epoch.last.index }, "revision": epoch.revision,
        "before": epoch.before,
    });
    out.answer(&json, || {
        let others: Vec<String> =
            config.cluster.nodes.iter().filter(|other| other.id != epoch.node).map(|other| other.id.to_string()).collect();
        let mut lines = vec![
            format!("Node {} is the only voter of the new cluster {}.", epoch.node, hex(Some(epoch.cluster))),
            format!("It holds everything up to entry {}; its revision is {}.", epoch.last, epoch.revision),
            format!("The old files are in {}. Remove them when you are sure.", epoch.before.display()),
            format!("Next: meshstore serve --config FILE --node {} --data {}", epoch.node, config.data_dir.display()),
            "Do not start the old members: they cannot join. Clients must open new sessions, and read again what they hold.".into(),
        ];
        if !others.is_empty() {
            lines.push(format!("The file also names node {}: start it with an empty directory, and add it: meshstore member add --help.", others.join(", ")));
        }
        lines.join("\n")
    })
}

fn node(environment: &Environment, out: &Output, data: &std::path::Path, confirm: bool) -> Result<(), Failure> {
    let held = Held::hold(environment, data)?;
    let damage = held.damage.as_ref().map(ToString::to_string);
    let (node, cluster) = held.identity().map_or((None, None), |(node, _, cluster)| (Some(node), cluster));
    let aside = confirm.then(|| held.set_aside(environment.disk.as_ref())).transpose()?;
    let json = json!({
        "node_id": node, "cluster_id": cluster.map(|id| hex(Some(id))), "damage": damage, "set_aside": aside,
    });
    out.answer(&json, || {
        let was = match node {
            Some(node) => format!("{} is node {node}'s, of cluster {}.", data.display(), hex(cluster)),
            None => format!("Whose {} is cannot be read: {}.", data.display(), damage.as_deref().unwrap_or("IDENTITY is missing")),
        };
        let old = node.map_or_else(|| "its old id".into(), |node| format!("id {node}"));
        let done = match &aside {
            Some(aside) => format!("What was in it is now in {}; nothing was deleted. The directory is free for a new node.", aside.display()),
            None => "Nothing was changed. With --confirm all that is in it is moved to a directory set-aside-N in it.".into(),
        };
        format!(
            "{was}\n{done}\n\n\
             A node that has lost its log, vote or identity has forgotten what it promised, and may not come back under {old}.\n\
             1. Keep the other nodes running: they serve as long as they are a majority.\n\
             2. Take the old one out: meshstore member remove {}\n\
             3. Choose an id that the cluster has never had, and start it on this directory, to join by any member's peer address:\n   \
             meshstore serve --config cluster.toml --node NEW-ID --data {} --join HOST:PORT \\\n     \
             --peer HOST:PORT --client HOST:PORT --http HOST:PORT\n\
             4. It becomes a voter by itself: meshstore member list. If the majority is lost: meshstore recover plan --help",
            node.map_or_else(|| "OLD-ID".into(), |node| node.to_string()),
            data.display()
        )
    })
}
